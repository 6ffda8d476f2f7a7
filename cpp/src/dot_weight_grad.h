// weight_grad by dot products: that of a weight is the sum over all pixels of a channel of dy times a channel of x, shifted
// by the tap. Pixels are in the lanes, so that nothing is transposed, but every pair of channels passes over its planes:
// for layers with few pairs, or with one channel on one side (filters; 1 x 1 to a single output).
//
// The dots of a band of outputs (bands.h) are taken of the arrays where their pixels are neighbours and no padding is
// read, else of a planar buffer. Small images are taken several at once. The dots of all bands are added up in double.
#pragma once

#include <cstdint>
#include <vector>

#include "bands.h"
#include "kernel_table.h"
#include "pass.h"

namespace triconv {

// Estimated nanoseconds, on the machine of the constants in cost_model.cpp; infinite where there are too many weights.
template <class E>
double dot_weight_grad_ns(const KernelTable<E>& kernels, const Layer& layer);

// What a sum runs over in a band: rows, or the band as one line where those of arrays and buffers have no gaps.
struct DotRows {
    bool one_line = false;
    std::int64_t count = 0, vectors = 0;  // vectors: of lanes, in a row
    std::int64_t images = 1;              // at most; several only where a band is all of an image
};

template <class E>
class DotWeightGrad final : public PassAlgorithm<E> {
public:
    DotWeightGrad(const KernelTable<E>& kernels, const Layer& layer);
    WorkspaceNeed workspace() const override;
    RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const override;

private:
    // The channels of a group, of one array, for a band: where, and how far apart.
    struct Planes {
        const E* first;
        std::ptrdiff_t image, channel, row;
    };
    struct Band : BandTask {
        std::int64_t images;  // from n on
    };
    Band band_at(std::int64_t index) const;
    std::int64_t weights_of_group() const;
    bool rows_fit(const Tensor<const E>& tensor, const Band& band) const;
    bool x_in_place(const Tensor<const E>& x, const Band& band) const;
    Planes read_planes(const Tensor<const E>& tensor, const DenseConv& conv, const BandLayout& layout,
                       std::int64_t first_channel, std::int64_t channels, const Band& band, E* buffer) const;
    std::vector<std::ptrdiff_t> b_offsets(std::ptrdiff_t channel, const std::vector<std::ptrdiff_t>& taps) const;
    void add_dots(const Band& band, const Planes& a, const Planes& b, const std::vector<std::ptrdiff_t>& offsets,
                  double* sums) const;
    std::int64_t write(const Operands<E>& operands, const double* sums, int slots) const;

    using PassAlgorithm<E>::layer_;
    const KernelTable<E>& kernels_;
    DenseConv conv_, outputs_;  // outputs_: dy read as it is
    Bands bands_;
    bool x_is_a_;  // of the kernel: its planes are channels of x, its dots those of dy (1 x 1), or the other way round
    DotRows rows_;
    BandLayout x_layout_, dy_layout_;
    std::vector<std::ptrdiff_t> buffered_taps_;
    std::int64_t band_count_, parts_;
};

}  // namespace triconv
