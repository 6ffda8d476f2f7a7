// Dense convolutions cut into bands of outputs, and the buffer of samples that a band reads: the common ground of the
// direct passes.
//
//   [z tap][row][pixel]        one lane vector each; zeros where there is padding
//
// A tap is a constant offset into the buffer, and neighbouring outputs are a constant stride apart.
#pragma once

#include <array>
#include <vector>

#include "geometry.h"
#include "kernel_table.h"

namespace triconv {

// Outputs target[t] = sum over taps q of source[t * step + q * tap_step] * weights[first_tap + q * tap_stride].
struct DenseAxis {
    SubGrid source, target;
    std::int64_t begin, end;  // t
    std::int64_t step, tap_step;
    std::int64_t taps, first_tap, tap_stride;

    // First sample (in source t) and number of samples that `count` outputs from `t` read.
    std::int64_t first_sample(std::int64_t t) const;
    std::int64_t samples(std::int64_t count) const;
};
using DenseConv = std::array<DenseAxis, axes>;

// How the outputs of a dense convolution are cut into bands: along y and x; z is done plane by plane.
struct Bands {
    std::int64_t rows = 1, pixels = 1;  // of one band at most
    std::int64_t bands_y = 1, bands_x = 1;
};
Bands cut_bands(const DenseConv& conv, std::int64_t lane_vectors_per_pixel, std::int64_t lane_bytes);

DenseConv forward_conv(const Layer& layer);

// Lane vectors of a buffer for `rows` x `pixels` outputs.
std::int64_t samples_per_block(const DenseConv& conv, std::int64_t rows, std::int64_t pixels);

// Offset of each tap in that buffer, in elements; taps in row-major order.
std::vector<std::ptrdiff_t> tap_offsets(const DenseConv& conv, std::int64_t rows, std::int64_t pixels, int lanes);

// Fills the buffer with the samples of one lane block of image n that the outputs from t on read.
template <class E>
void read_samples(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, const LaneBlock& block,
                  const DenseConv& conv, const Index& t, std::int64_t rows, std::int64_t pixels, E* buffer);

}  // namespace triconv
