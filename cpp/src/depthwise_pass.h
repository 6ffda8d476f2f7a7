// Direct convolution of depthwise layers, forward and input_grad, but for those with few groups (direct_pass.h): every
// output is a sum over taps alone, groups are in the lanes.
//
// As in direct_pass.h a task computes a band of outputs from a buffer of samples (bands.h), here a few rows at a time:
// read what samples they need besides those of the rows before, compute, write. The samples of the next rows come from
// memory meanwhile.
#pragma once

#include "band_pass.h"

namespace triconv {

template <class E>
class DepthwisePass final : public BandPass<E> {
public:
    DepthwisePass(const KernelTable<E>& kernels, const Layer& layer, Pass pass);  // forward or input_grad

private:
    struct SubProblem : JoinedConv {  // input_grad: one per pair of phases, those of a row joined
        DenseConv read;               // as the buffer has its samples
        std::int64_t hop_x;           // entries of the buffer along a row, from output to output
        Bands bands;
        BandLayout layout;
        int axis;                      // along which the kernels work: 1 or 2
        std::vector<TapOrder> orders;  // of each phase
        std::int64_t taps;             // of all phases
        std::int64_t rows_at_once;
        std::ptrdiff_t block_size, sums_size;  // elements of the buffer and the sums: of one block of a group
    };
    struct Rows;
    struct Stretch;
    using typename BandPass<E>::Run;
    SubProblem make_sub_problem(const JoinedConv& joined) const;
    void pack_weights(const Tensor<const E>& w, std::size_t conv, E* panels, int max_threads) const override;
    void run_bands(const Run& run, std::size_t conv, const E* panels) const override;
    void read_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows, E* buffer) const;
    void compute_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows, const Rows& next,
                      const E* panels, const E* buffer, E* sums) const;
    void write_rows(const Run& run, const SubProblem& sub, const Rows& rows, E* sums,
                    std::vector<DamagedBox>& damage) const;

    using BandPass<E>::kernels_, BandPass<E>::layer_, BandPass<E>::pass_, BandPass<E>::sources_, BandPass<E>::targets_,
        BandPass<E>::panel_stride_;
    std::vector<SubProblem> subs_;
};

}  // namespace triconv
