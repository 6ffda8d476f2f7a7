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
std::int64_t DenseAxis::sample_of_tap(std::int64_t q) const {
    return q * tap_step - std::min<std::int64_t>(0, (taps - 1) * tap_step);
}

DenseConv forward_conv(const Layer& layer) {
    DenseConv conv;
    for (int i = 0; i < axes; ++i) {
        const Axis& a = layer.axis[i];
        conv[i] = {{-a.pad, 1, a.in}, {0, 1, a.out}, 0, a.out, a.stride, a.dilation, a.kernel, 0, 1};
    }
    return conv;
}

Bands cut_bands(const DenseConv& conv, std::int64_t bytes_per_entry) {
    constexpr std::int64_t longest_row = 256, outputs_per_band = 256, buffer_bytes = 512 << 10;
    const std::int64_t height = conv[1].end - conv[1].begin, width = conv[2].end - conv[2].begin;
    Bands bands;
    bands.bands_x = ceil_div(width, longest_row);
    bands.pixels = ceil_div(width, bands.bands_x);
    std::int64_t rows = std::clamp<std::int64_t>(outputs_per_band / bands.pixels, 1, height);
    const auto bytes = [&](std::int64_t r) { return BandLayout(conv, r, bands.pixels).entries * bytes_per_entry; };
    while (rows > 1 && bytes(rows) > buffer_bytes)
        --rows;
    while (bands.pixels > 32 && bytes(rows) > buffer_bytes)
        bands.pixels = ceil_div(width, ++bands.bands_x);
    bands.bands_y = ceil_div(height, rows);
    bands.rows = ceil_div(height, bands.bands_y);
    return bands;
}

BandLayout::BandLayout(const DenseConv& conv, std::int64_t output_rows, std::int64_t output_pixels)
    : height(conv[1].samples(output_rows)),
      rows(ceil_div(height, conv[1].step)),
      pixels(ceil_div(conv[2].samples(output_pixels), conv[2].step)),
      phase_entries(rows * pixels),
      entries(conv[0].taps * conv[1].step * conv[2].step * phase_entries),
      y_phase_used(static_cast<std::size_t>(conv[1].step)),
      x_phase_used(static_cast<std::size_t>(conv[2].step)) {
    tap_entry.reserve(static_cast<std::size_t>(conv[0].taps * conv[1].taps * conv[2].taps));
    for (std::int64_t z = 0; z < conv[0].taps; ++z)
        for (std::int64_t y = 0; y < conv[1].taps; ++y)
            for (std::int64_t x = 0; x < conv[2].taps; ++x) {
                const std::int64_t row = conv[1].sample_of_tap(y), pixel = conv[2].sample_of_tap(x);
                const std::int64_t y_phase = row % conv[1].step, x_phase = pixel % conv[2].step;
                y_phase_used[static_cast<std::size_t>(y_phase)] = true;
                x_phase_used[static_cast<std::size_t>(x_phase)] = true;
                tap_entry.push_back(((z * conv[1].step + y_phase) * conv[2].step + x_phase) * phase_entries +
                                    row / conv[1].step * pixels + pixel / conv[2].step);
            }
}

namespace {

// One row of one phase of a buffer: `count` samples of the tensor between zeros.
struct Run {
    std::int64_t entry, zeros_before, count, zeros_after;
    Index source;  // of the first sample
};

template <class Action>
void for_each_run(const DenseConv& conv, const BandLayout& layout, const Index& t, const Action& action) {
    const std::int64_t y0 = conv[1].first_sample(t[1]), x0 = conv[2].first_sample(t[2]);
    for (std::int64_t x_phase = 0; x_phase < conv[2].step; ++x_phase) {
        if (!layout.x_phase_used[static_cast<std::size_t>(x_phase)]) continue;
        const SubGrid grid{conv[2].source.index(x0 + x_phase), conv[2].source.step * conv[2].step, conv[2].source.size};
        std::int64_t first, last;
        grid.clip(0, layout.pixels, first, last);
        first = std::min(first, layout.pixels);
        last = std::max(first, last);
        for (std::int64_t tap = 0; tap < conv[0].taps; ++tap) {
            const std::int64_t z = t[0] * conv[0].step + tap * conv[0].tap_step;
            for (std::int64_t y = 0; y < layout.height; ++y) {
                const std::int64_t y_phase = y % conv[1].step;
                if (!layout.y_phase_used[static_cast<std::size_t>(y_phase)]) continue;
                Run run{((tap * conv[1].step + y_phase) * conv[2].step + x_phase) * layout.phase_entries +
                            y / conv[1].step * layout.pixels,
                        layout.pixels,
                        0,
                        0,
                        {}};
                if (first < last && conv[0].source.contains(z) && conv[1].source.contains(y0 + y)) {
                    run.zeros_before = first;
                    run.count = last - first;
                    run.zeros_after = layout.pixels - last;
                    run.source = {conv[0].source.index(z), conv[1].source.index(y0 + y), grid.index(first)};
                }
                action(run);
            }
        }
    }
}

template <class E>
const E* address(const Tensor<const E>& tensor, std::int64_t n, std::int64_t channel, const Index& at) {
    return tensor.data + n * tensor.outer + channel * tensor.inner + at[0] * tensor.along[0] + at[1] * tensor.along[1] +
           at[2] * tensor.along[2];
}

// Calls fill(entry, count) for zeros and read(source, count, entry) for samples of a channel a constant stride apart:
// runs without padding may join up.
template <class E, class Fill, class Read>
void for_each_line(const Tensor<const E>& tensor, std::int64_t n, std::int64_t channel, const DenseConv& conv,
                   const BandLayout& layout, const Index& t, const Fill& fill, const Read& read) {
    const std::ptrdiff_t stride = tensor.along[2] * conv[2].source.step * conv[2].step;
    const E* from = nullptr;  // samples not read yet
    std::int64_t entry = 0, count = 0;
    for_each_run(conv, layout, t, [&](const Run& run) {
        const std::int64_t first = run.entry + run.zeros_before;
        fill(run.entry, run.zeros_before);
        fill(first + run.count, run.zeros_after);
        if (run.count == 0) return;
        const E* const source = address(tensor, n, channel, run.source);
        if (count > 0 && from + count * stride == source && entry + count == first) {
            count += run.count;
            return;
        }
        if (count > 0) read(from, count, entry);
        from = source;
        entry = first;
        count = run.count;
    });
    if (count > 0) read(from, count, entry);
}

// The samples of `lanes` other channels, each on pages of its own, to where `row` finds its own.
template <class E>
void prefetch(const RowArgs<E>& row, const E* source, int lanes) {
    if (row.lane_stride == 1 || row.pixel_stride <= 0) return;  // channels last: left to the hardware
    const std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>(64 / sizeof(E)) / row.pixel_stride);
    for (int lane = 0; lane < lanes; ++lane)
        for (std::int64_t i = 0; i < row.count; i += step)
            __builtin_prefetch(source + lane * row.lane_stride + i * row.pixel_stride);
}

}  // namespace

template <class E>
void read_samples(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, const LaneBlock& block,
                  const DenseConv& conv, const BandLayout& layout, const Index& t, E* buffer, const LaneBlock* next) {
    const int lanes = kernels.lanes;
    RowArgs<E> row{};
    row.lane_stride = tensor.inner * block.channel_step;
    row.pixel_stride = tensor.along[2] * conv[2].source.step * conv[2].step;
    row.lane_count = block.lanes;
    const std::ptrdiff_t next_block = next ? (next->channel - block.channel) * tensor.inner : 0;
    const auto fill = [&](std::int64_t entry, std::int64_t count) {
        std::fill_n(buffer + entry * lanes, count * lanes, E(0));
    };
    for_each_line(tensor, n, block.channel, conv, layout, t, fill,
                  [&](const E* from, std::int64_t count, std::int64_t entry) {
                      row.lanes = buffer + entry * lanes;
                      row.count = count;
                      row.source = from;
                      if (next) prefetch(row, from + next_block, next->lanes);
                      kernels.read_row(row);
                  });
}

template <class E>
void read_plane(const Tensor<const E>& tensor, std::int64_t n, std::int64_t channel, const DenseConv& conv,
                const BandLayout& layout, const Index& t, E* buffer) {
    constexpr std::int64_t line = 64 / sizeof(E);
    const std::ptrdiff_t stride = tensor.along[2] * conv[2].source.step * conv[2].step;
    const auto fill = [&](std::int64_t entry, std::int64_t count) { std::fill_n(buffer + entry, count, E(0)); };
    for_each_line(
        tensor, n, channel, conv, layout, t, fill, [&](const E* from, std::int64_t count, std::int64_t entry) {
            E* const to = buffer + entry;
            for (std::int64_t i = 0; i < count; i += line)  // the next channel's samples, on a page of their own
                __builtin_prefetch(from + tensor.inner + i * stride);
            if (stride == 1)
                std::copy_n(from, count, to);
            else
                for (std::int64_t i = 0; i < count; ++i)
                    to[i] = from[i * stride];
        });
}

#define TRICONV_INSTANTIATE(E)                                                                                        \
    template void read_samples(const KernelTable<E>&, const Tensor<const E>&, std::int64_t, const LaneBlock&,         \
                               const DenseConv&, const BandLayout&, const Index&, E*, const LaneBlock*);              \
    template void read_plane(const Tensor<const E>&, std::int64_t, std::int64_t, const DenseConv&, const BandLayout&, \
                             const Index&, E*);
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
