// What forward and input_grad by bands of outputs have in common (direct_pass.h, depthwise_pass.h, filter_pass.h): one
// dense convolution after the other, each with its weights packed into panels, one for each target block, and a task for
// each band.
#pragma once

#include "bands.h"
#include "pass.h"

namespace triconv {

// The planar buffer of a band. Long rows must not all fall into a few sets of the cache.
template <class E>
BandLayout planar_layout(const DenseConv& conv, std::int64_t rows, std::int64_t pixels) {
    constexpr std::int64_t long_row = 512 / sizeof(E);
    const std::int64_t samples = ceil_div(conv[2].samples(pixels), conv[2].step);
    return BandLayout(conv, rows, pixels, samples < long_row ? 0 : odd_lines<E>(samples) - samples);
}

template <class E>
class BandPass : public PassAlgorithm<E> {
public:
    WorkspaceNeed workspace() const override;
    RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const override;
    std::size_t prepared_size() const override { return conv_count_ * panels_size_; }
    void prepare(const Tensor<const E>& w, E* prepared, int max_threads) const override;

protected:
    struct Scratch {
        E *buffer, *sums, *partial;
    };
    struct Run {
        const Operands<E>& operands;
        const E* bias;  // a lane vector for each target block, or null
        int slots;
        Damage& damage;
        char* scratch;
        std::size_t scratch_bytes;  // of a slot
    };

    BandPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, bool lanewise);
    // To be called once for each convolution, or for those joined, after the sizes of the scratch are known.
    void add(const std::vector<DenseConv>& convs);
    // rows: lane vectors of weights of a target block, of the largest convolution.
    void set_panels(std::int64_t rows);
    Scratch scratch_of(const Run& run, int slot) const;
    const Tensor<const E>& source(const Operands<E>& operands) const {
        return pass_ == Pass::forward ? operands.x : operands.dy;
    }
    const Tensor<E>& target(const Operands<E>& operands) const {
        return pass_ == Pass::forward ? operands.y : operands.dx;
    }

    virtual void pack_weights(const Tensor<const E>& w, std::size_t conv, E* panels, int max_threads) const = 0;
    virtual void run_bands(const Run& run, std::size_t conv, const E* panels) const = 0;

    using PassAlgorithm<E>::layer_, PassAlgorithm<E>::pass_;
    const KernelTable<E>& kernels_;
    LaneBlocks sources_, targets_;
    std::ptrdiff_t panel_stride_ = 0;                                 // between the panels of two target blocks
    std::size_t buffer_size_ = 0, sums_size_ = 0, partial_size_ = 0;  // elements, of one thread

private:
    std::size_t conv_count_ = 0, panels_size_ = 0;
    std::int64_t covered_ = 0;  // samples of a target channel that some convolution writes
};

}  // namespace triconv
