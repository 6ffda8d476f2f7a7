#include "bands.h"

#include <algorithm>

namespace triconv {

std::int64_t DenseAxis::first_sample(std::int64_t t) const {
    return t * step + std::min<std::int64_t>(0, (taps - 1) * tap_step);
}
std::int64_t DenseAxis::samples(std::int64_t count) const {
    const std::int64_t span = (taps - 1) * (tap_step < 0 ? -tap_step : tap_step);
    return (count - 1) * step + span + 1;
}

DenseConv forward_conv(const Layer& layer) {
    DenseConv conv;
    for (int i = 0; i < axes; ++i) {
        const Axis& a = layer.axis[i];
        conv[i] = {{-a.pad, 1, a.in}, {0, 1, a.out}, 0, a.out, a.stride, a.dilation, a.kernel, 0, 1};
    }
    return conv;
}

Bands cut_bands(const DenseConv& conv, std::int64_t lane_vectors_per_pixel, std::int64_t lane_bytes) {
    constexpr std::int64_t longest_row = 256, outputs_per_band = 192, buffer_bytes = 512 << 10;
    const std::int64_t height = conv[1].end - conv[1].begin, width = conv[2].end - conv[2].begin;
    Bands bands;
    bands.bands_x = ceil_div(width, longest_row);
    bands.pixels = ceil_div(width, bands.bands_x);
    std::int64_t rows = std::clamp<std::int64_t>(outputs_per_band / bands.pixels, 1, height);
    const auto bytes = [&](std::int64_t r) {
        return samples_per_block(conv, r, bands.pixels) * lane_vectors_per_pixel * lane_bytes;
    };
    while (rows > 1 && bytes(rows) > buffer_bytes)
        --rows;
    while (bands.pixels > 32 && bytes(rows) > buffer_bytes)
        bands.pixels = ceil_div(width, ++bands.bands_x);
    bands.bands_y = ceil_div(height, rows);
    bands.rows = ceil_div(height, bands.bands_y);
    return bands;
}

std::int64_t samples_per_block(const DenseConv& conv, std::int64_t rows, std::int64_t pixels) {
    return conv[0].taps * conv[1].samples(rows) * conv[2].samples(pixels);
}

std::vector<std::ptrdiff_t> tap_offsets(const DenseConv& conv, std::int64_t rows, std::int64_t pixels, int lanes) {
    const std::int64_t height = conv[1].samples(rows), width = conv[2].samples(pixels);
    std::vector<std::ptrdiff_t> offsets;
    for (std::int64_t z = 0; z < conv[0].taps; ++z)
        for (std::int64_t y = 0; y < conv[1].taps; ++y)
            for (std::int64_t x = 0; x < conv[2].taps; ++x) {
                const std::int64_t row =
                    y * conv[1].tap_step - std::min<std::int64_t>(0, (conv[1].taps - 1) * conv[1].tap_step);
                const std::int64_t pixel =
                    x * conv[2].tap_step - std::min<std::int64_t>(0, (conv[2].taps - 1) * conv[2].tap_step);
                offsets.push_back(((z * height + row) * width + pixel) * lanes);
            }
    return offsets;
}

template <class E>
void read_samples(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, const LaneBlock& block,
                  const DenseConv& conv, const Index& t, std::int64_t rows, std::int64_t pixels, E* buffer) {
    const int lanes = kernels.lanes;
    const std::int64_t height = conv[1].samples(rows), width = conv[2].samples(pixels);
    const std::int64_t y0 = conv[1].first_sample(t[1]), x0 = conv[2].first_sample(t[2]);
    std::int64_t first, last;
    conv[2].source.clip(x0, x0 + width, first, last);
    RowArgs<E> row{};
    row.lane_stride = tensor.inner * block.channel_step;
    row.pixel_stride = tensor.along[2] * conv[2].source.step;
    row.lane_count = block.lanes;
    row.count = last - first;
    for (std::int64_t tap = 0; tap < conv[0].taps; ++tap) {
        const std::int64_t z = t[0] * conv[0].step + tap * conv[0].tap_step;
        for (std::int64_t y = y0; y < y0 + height; ++y, buffer += width * lanes) {
            if (first >= last || !conv[0].source.contains(z) || !conv[1].source.contains(y)) {
                std::fill_n(buffer, width * lanes, E(0));
                continue;
            }
            std::fill_n(buffer, (first - x0) * lanes, E(0));
            row.lanes = buffer + (first - x0) * lanes;
            row.source = tensor.data + n * tensor.outer + block.channel * tensor.inner +
                         conv[0].source.index(z) * tensor.along[0] + conv[1].source.index(y) * tensor.along[1] +
                         conv[2].source.index(first) * tensor.along[2];
            kernels.read_row(row);
            std::fill_n(buffer + (last - x0) * lanes, (x0 + width - last) * lanes, E(0));
        }
    }
}

template void read_samples(const KernelTable<float>&, const Tensor<const float>&, std::int64_t, const LaneBlock&,
                           const DenseConv&, const Index&, std::int64_t, std::int64_t, float*);
template void read_samples(const KernelTable<double>&, const Tensor<const double>&, std::int64_t, const LaneBlock&,
                           const DenseConv&, const Index&, std::int64_t, std::int64_t, double*);

}  // namespace triconv
