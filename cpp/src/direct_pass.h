// Direct convolution: implicit GEMM on the real micro-kernel, for every shape and all three passes, and its lane-wise
// form for depthwise layers. It is the fallback that always works.
//
// A task computes a *band* of outputs: a few rows, or a part of one. The samples the band reads are brought into a
// buffer for each source block (bands.h), in which a tap is a constant offset and neighbouring outputs are a constant
// stride apart: the buffers are the packed panel `a` of a matrix product that reduces over (block, tap, lane), with no
// im2col. input_grad is the same on the
// sub-grids of geometry.h, with dy read backwards; weight_grad reduces over the pixels of bands instead.
#pragma once

#include "bands.h"
#include "engine.h"
#include "pass.h"

namespace triconv {

template <class E>
class DirectPass final : public PassAlgorithm<E> {
public:
    DirectPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass);  // forward or input_grad
    WorkspaceNeed workspace() const override;
    RunCounts run(const Operands<E>& operands, int max_threads) const override;

private:
    struct SubProblem {  // one per pair of phases in input_grad
        DenseConv conv;
        Bands bands;
        std::size_t buffer_size, sums_size;  // elements per thread
        std::vector<std::ptrdiff_t> a_offset, b_offset;
    };
    struct Task;
    SubProblem make_sub_problem(const DenseConv& conv) const;
    void pack_weights(const Tensor<const E>& w, const SubProblem& sub, E* panels, int max_threads) const;
    void compute_band(const SubProblem& sub, const Task& task, const E* panels, const E* buffer, E* sums,
                      E* partial) const;
    void write_band(const Operands<E>& operands, const SubProblem& sub, const Task& task, const E* bias, E* sums,
                    std::vector<DamagedBox>& damage) const;

    const KernelTable<E>& kernels_;
    Layer layer_;
    Pass pass_;
    bool lanewise_;
    LaneBlocks sources_, targets_;
    std::vector<SubProblem> subs_;
    bool covers_output_ = true;        // else it is set to zero first
    std::ptrdiff_t panel_stride_ = 0;  // between the weight panels of two target blocks
    std::size_t panels_size_ = 0, buffer_size_ = 0, sums_size_ = 0;
};

template <class E>
class DirectWeightGrad final : public PassAlgorithm<E> {
public:
    DirectWeightGrad(const KernelTable<E>& kernels, const Layer& layer);
    WorkspaceNeed workspace() const override;
    RunCounts run(const Operands<E>& operands, int max_threads) const override;

private:
    struct Band;
    Band band_at(std::int64_t index) const;
    void read_band(const Operands<E>& operands, const Band& band, bool of_x, int block, E* buffer) const;
    void run_matrix(const Operands<E>& operands, int slots, char* workspace) const;
    void run_lanewise(const Operands<E>& operands, int slots, char* workspace) const;
    std::int64_t write(const Operands<E>& operands, E* sums, int slots) const;

    const KernelTable<E>& kernels_;
    Layer layer_;
    bool lanewise_;
    LaneBlocks xs_, ys_;
    DenseConv conv_;
    Bands bands_;
    std::int64_t band_count_ = 0, bands_per_chunk_ = 1, parts_ = 1;
    std::size_t x_block_size_ = 0, y_block_size_ = 0;   // elements of one block of one band
    std::ptrdiff_t tap_stride_ = 0, block_stride_ = 0;  // of the sums
    std::size_t sums_size_ = 0, group_size_ = 0;
};

}  // namespace triconv
