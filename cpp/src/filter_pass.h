// Direct convolution from one channel to one, forward and input_grad: filters of signals and images, and depthwise layers
// of few channels. There is no product over channels that could fill lanes; they hold pixels instead (kernels/filter-inl.h).
//
// A band of outputs (bands.h) is computed in up to three pieces. In the middle one all samples lie in the array, whose
// pixels are neighbours: they are read where they are. The pieces at the left and the right edge, which see padding, and
// bands of short rows, at the top and the bottom or of other arrays bring their samples into a buffer first. Outputs go
// straight to the array, too, if neighbours there.
#pragma once

#include <cstdint>
#include <vector>

#include "band_pass.h"
#include "engine.h"

namespace triconv {

// Whether the pass leads from one channel to one, in each group, with outputs that read neighbours.
bool is_filter(const Layer& layer, Pass pass);

// Estimated nanoseconds of one group of one image, on the machine of the constants in cost_model.cpp.
template <class E>
double filter_ns(const KernelTable<E>& kernels, const Layer& layer, Pass pass);

template <class E>
class FilterPass final : public BandPass<E> {
public:
    FilterPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass);  // is_filter(layer, pass)

private:
    struct SubProblem {
        DenseConv conv;
        Bands bands;
        BandLayout layout;              // of the buffer, of whole bands
        EqualParts tap_rows, tap_cols;  // planes of taps are cut into rectangles, each summed apart
        std::ptrdiff_t sums_row;

        std::int64_t parts() const { return conv[0].taps * tap_rows.count * tap_cols.count; }
    };
    // The samples that a piece reads, in the buffer or in the array.
    struct Samples {
        const E* first;
        std::ptrdiff_t row, plane;  // from one to the next, of those of neighbouring taps
    };
    struct Rows {
        E* first;
        std::ptrdiff_t row;
    };
    using typename BandPass<E>::Run;
    using typename BandPass<E>::Scratch;
    void pack_weights(const Tensor<const E>& w, std::size_t conv, E* panels, int max_threads) const override;
    void run_bands(const Run& run, std::size_t conv, const E* panels) const override;
    Samples in_array(const SubProblem& sub, const Tensor<const E>& from, const BandTask& task) const;
    Samples in_buffer(const SubProblem& sub, const Tensor<const E>& from, const BandTask& task, E* buffer) const;
    bool filter_piece(const SubProblem& sub, const BandTask& task, const Samples& samples, const E* weights, E bias,
                      const Rows& out, const Rows& partial) const;
    void run_piece(const Run& run, const SubProblem& sub, const BandTask& task, const Samples& samples, const E* panels,
                   const Scratch& scratch, std::vector<DamagedBox>& damage) const;

    using BandPass<E>::kernels_, BandPass<E>::layer_, BandPass<E>::pass_, BandPass<E>::sources_, BandPass<E>::targets_,
        BandPass<E>::panel_stride_;
    std::vector<SubProblem> subs_;
};

}  // namespace triconv
