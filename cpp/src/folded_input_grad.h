// input_grad of a layer whose padding holds copies of samples: the gradients of the padded positions are folded back, each
// added to that of the sample it copies.
//
// Those of the array's own positions are an ordinary input_grad. The padding is cut into slabs, two along each axis, which
// extend over the array along the axes before it and over all positions along those behind:
//
//     +-------------------+
//     |   before axis 0   |
//     +---+-----------+---+
//     |   |           |   |    at the sides: before and behind axis 1
//     +---+-----------+---+
//     |   behind axis 0   |
//     +-------------------+
//
// Each is an input_grad, too, of the outputs and taps that meet it, one slab after the other to the same buffer. The
// padded gradient never exists.
#pragma once

#include <memory>
#include <vector>

#include "algorithms.h"

namespace triconv {

template <class E>
class FoldedInputGrad final : public PassAlgorithm<E> {
public:
    // costed: the algorithm of the array's own positions. Where that is direct, all slabs are, else each has the cheapest
    // that is no less accurate and is not expected to need more workspace; direct convolution may always be.
    FoldedInputGrad(const KernelTable<E>& kernels, const Layer& layer, const Costed& costed);
    WorkspaceNeed workspace() const override;
    std::int64_t workspace_bytes(int slots) const override;
    RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const override;
    std::size_t prepared_size() const override;
    void prepare(const Tensor<const E>& w, E* prepared, int max_threads) const override;

private:
    struct Slab {
        Layer layer;
        Index position, output, tap;  // of the first sample, output and tap
        std::unique_ptr<PassAlgorithm<E>> algorithm;

        Tensor<const E> weights(const Tensor<const E>& w) const;
        Tensor<E> array(E* buffer) const;  // contiguous
        std::size_t size() const;
    };
    void add_slab(const KernelTable<E>& kernels, const Costed& costed, int axis, bool before);
    void fold(const Slab& slab, const Tensor<E>& gradient, const Tensor<E>& dx, std::vector<char>& flagged,
              int slots) const;

    using PassAlgorithm<E>::layer_;
    std::unique_ptr<PassAlgorithm<E>> array_;
    std::vector<Slab> slabs_;
    std::size_t buffer_size_ = 0;  // elements
};

}  // namespace triconv
