// The list of algorithms, the tiles of each that are worth looking at, and how a pass is made of one.
//
// The choice depends on the problem, the ISA and the cache sizes only: never on a timing or the number of threads, so
// that the same machine always computes the same bits.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cost_model.h"
#include "pass.h"

namespace triconv {

// Options::algorithm taken apart: names of the table ("auto" is all of them), or one with a fixed tile ("fft:16x32").
struct AlgorithmRequest {
    std::vector<std::string> names;
    std::vector<int> tile;  // T (fft) or M (winograd) along the problem's axes; empty if not fixed
    bool limited = false;   // limits may rule out the fastest tiles: none is left out then

    bool leaves_choice() const { return names.size() > 1; }
    bool includes(const std::string& name) const { return std::find(names.begin(), names.end(), name) != names.end(); }
};
AlgorithmRequest parse_algorithm(const std::string& text, int rank);  // std::invalid_argument with the list

// Every algorithm's best tiles for a pass, cheapest first within an algorithm, impossible ones with the reason.
template <class E>
std::vector<Costed> cost_candidates(const KernelTable<E>& kernels, const Layer& layer, Pass pass,
                                    const AlgorithmRequest& request);

template <class E>
std::unique_ptr<PassAlgorithm<E>> make_pass(const KernelTable<E>& kernels, const Layer& layer, Pass pass,
                                            const Costed& costed);

}  // namespace triconv
