// Direct convolution of depthwise layers, forward and input_grad: every output is a sum over taps alone, channels are in
// the lanes.
//
// As in direct_pass.h a task computes a band of outputs from a buffer of samples (bands.h), here a few rows at a time:
// read what samples they need besides those of the rows before, compute, write. The samples of the next rows come from
// memory meanwhile.
#pragma once

#include "bands.h"
#include "pass.h"

namespace triconv {

template <class E>
class DepthwisePass final : public PassAlgorithm<E> {
public:
    DepthwisePass(const KernelTable<E>& kernels, const Layer& layer, Pass pass);  // forward or input_grad
    WorkspaceNeed workspace() const override;
    RunCounts run(const Operands<E>& operands, int max_threads) const override;
    std::size_t prepared_size() const override { return subs_.size() * panels_size_; }
    void prepare(const Tensor<const E>& w, E* prepared, int max_threads) const override;

private:
    struct SubProblem {  // one per pair of phases in input_grad
        DenseConv conv;
        Bands bands;
        BandLayout layout;
        int axis;  // along which the kernels work: 1 or 2
        TapOrder order;
        std::int64_t rows_at_once;
        std::ptrdiff_t block_size, sums_size;  // elements of the buffer and the sums: of one block of a group
    };
    struct Task;
    struct Rows;
    struct Stretch;
    SubProblem make_sub_problem(const DenseConv& conv) const;
    Task task_at(const SubProblem& sub, std::int64_t index) const;
    void pack_weights(const Tensor<const E>& w, const SubProblem& sub, E* panels, int max_threads) const;
    void read_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows, E* buffer) const;
    void compute_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows, const Rows& next,
                      const E* panels, const E* buffer, E* sums) const;
    void write_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows, const E* bias, E* sums,
                    std::vector<DamagedBox>& damage) const;

    const KernelTable<E>& kernels_;
    Layer layer_;
    Pass pass_;
    LaneBlocks sources_, targets_;
    std::vector<SubProblem> subs_;
    bool covers_output_ = true;        // else it is set to zero first
    std::ptrdiff_t panel_stride_ = 0;  // between the weights of two target blocks
    std::size_t panels_size_ = 0, buffer_size_ = 0, sums_size_ = 0;
};

}  // namespace triconv
