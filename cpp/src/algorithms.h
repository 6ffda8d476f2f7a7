// The list of algorithms, what each would cost for a pass, and the choice between them.
//
// The choice depends on the problem, the ISA and the cache sizes only: never on a timing or the number of threads, so
// that the same machine always computes the same bits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pass.h"
#include "transform.h"
#include "transform_pass.h"

namespace triconv {

// Options::algorithm taken apart: a name of the table, "auto" or a name with a fixed tile ("fft:16x32").
struct AlgorithmRequest {
    std::string name;
    std::vector<int> tile;  // T (fft) or M (winograd) along the problem's axes; empty if not fixed
};
AlgorithmRequest parse_algorithm(const std::string& text, int rank);  // std::invalid_argument with the list

struct Costed {
    Candidate candidate;
    bool direct = false;
    TileShape shape;
    LaneKind lane_kind = LaneKind::channels;
    Blocking blocking;
};

// Every algorithm's best tiles for a pass, cheapest first within an algorithm, impossible ones with the reason.
template <class E>
std::vector<Costed> cost_candidates(const KernelTable<E>& kernels, const Layer& layer, Pass pass,
                                    const AlgorithmRequest& request);

// What a training step that shares the transforms would cost with these tiles, and the rows of its blocks. It pays where
// that is less than the predicted times of the three passes together.
struct StepCost {
    double seconds;
    std::int64_t rows;
};
template <class E>
StepCost cost_step(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape, LaneKind lane_kind);

template <class E>
std::unique_ptr<PassAlgorithm<E>> make_pass(const KernelTable<E>& kernels, const Layer& layer, Pass pass,
                                            const Costed& costed);

}  // namespace triconv
