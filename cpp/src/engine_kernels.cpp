// The kernels of an Engine: weights to spectra, and sums of spectra to dw.
#include <algorithm>

#include "engine.h"
#include "prefetch.h"

namespace triconv {

// The taps of one kernel phase between an x block and a y block, as offsets into a weight tensor. Rows are the channels
// on the other side than the lanes.
template <class E>
struct Engine<E>::KernelView {
    std::ptrdiff_t start, lane_stride, row_stride;
    std::array<std::ptrdiff_t, axes> tap_stride;
    Index taps;
    int lanes, rows;

    std::int64_t tap_count() const { return taps[0] * taps[1] * taps[2]; }

    // Calls f(RowArgs without an array, offset into the tensor, index of the first tap) for runs of taps at a constant
    // distance, as long as the strides allow: all taps of several rows at best. Taps count on from row to row.
    template <class F>
    void for_each_run(F f) const {
        const std::array<std::int64_t, 4> extent{rows, taps[0], taps[1], taps[2]};
        const std::array<std::ptrdiff_t, 4> stride{row_stride, tap_stride[0], tap_stride[1], tap_stride[2]};
        RowArgs<E> row{};
        row.lane_stride = lane_stride;
        row.lane_count = lanes;
        row.count = row.pixel_stride = 1;
        int outer = 4;
        for (; outer > 0; --outer) {
            if (extent[outer - 1] == 1) continue;
            if (row.count == 1) row.pixel_stride = stride[outer - 1];
            if (stride[outer - 1] != row.count * row.pixel_stride) break;
            row.count *= extent[outer - 1];
        }
        const std::int64_t total = rows * tap_count();
        for (std::int64_t tap = 0; tap < total; tap += row.count) {
            std::int64_t rest = tap;
            std::ptrdiff_t offset = start;
            for (int a = 3; a >= 0; --a) {
                offset += rest % extent[a] * stride[a];
                rest /= extent[a];
            }
            f(row, offset, tap);
        }
    }
};

// Calls move(index of a tap, its offset in a box): reversed, the first tap is at the position `at`.
template <class Move>
void for_each_tap(const Index& taps, const Index& at, bool flip, const std::array<std::ptrdiff_t, axes>& strides,
                  Move move) {
    std::ptrdiff_t tap = 0;
    for (std::int64_t z = 0; z < taps[0]; ++z)
        for (std::int64_t y = 0; y < taps[1]; ++y)
            for (std::int64_t x = 0; x < taps[2]; ++x, ++tap)
                move(tap, flip ? (at[0] - z) * strides[0] + (at[1] - y) * strides[1] + (at[2] - x) * strides[2]
                               : z * strides[0] + y * strides[1] + x * strides[2]);
}

template <class E>
auto Engine<E>::kernel_view(const LaneBlock& x, const LaneBlock& y, bool lanes_on_input,
                            const std::array<std::ptrdiff_t, axes>& along, std::ptrdiff_t outer,
                            std::ptrdiff_t inner) const -> KernelView {
    KernelView view{};
    view.start = y.channel * outer + (layer_.in_channels ? x.channel % layer_.in_per_group() : 0) * inner;
    for (int a = 0; a < axes; ++a) {
        view.start += x.phase[a] * along[a];
        view.tap_stride[a] = layer_.axis[a].tap_step * along[a];
        view.taps[a] = layer_.axis[a].taps_of(x.phase[a]);
    }
    view.lanes = lanes_on_input ? x.lanes : y.lanes;
    view.rows = lanewise() ? 1 : lanes_on_input ? y.lanes : x.lanes;
    view.lane_stride = lanewise() || !lanes_on_input ? outer * y.channel_step : inner;
    view.row_stride = lanes_on_input ? outer : inner;
    return view;
}

template <class E>
int Engine<E>::kernel_parts(const LaneBlocks& rows) const {
    return rows.full_per_group * parts_of(kernels_.lanes) +
           (rows.per_group - rows.full_per_group) * parts_of(rows.tail_lanes);
}

template <class E>
auto Engine<E>::kernel_part(const LaneBlocks& rows, int index) const -> KernelPart {
    const int full = parts_of(kernels_.lanes), of_full = rows.full_per_group * full;
    if (index < of_full) return {index / full, index % full};
    const int tail = parts_of(rows.tail_lanes);
    return {rows.full_per_group + (index - of_full) / tail, (index - of_full) % tail};
}

template <class E>
LaneBlock Engine<E>::part_of(const LaneBlock& rows, int part) const {
    if (lanewise()) return rows;  // its lanes are no rows
    const int first = part * kernel_rows_;
    LaneBlock some = rows;
    some.channel += first * rows.channel_step;
    some.lanes = std::min(kernel_rows_, rows.lanes - first);
    return some;
}

template <class E>
void Engine<E>::read_kernels(const Tensor<const E>& w, bool to_input, int target, int source, int part, bool flip,
                             const Spectra<E>& spectra, E* scratch) const {
    const LaneBlock& target_block = blocks(to_input).blocks[target];
    const LaneBlock source_block = part_of(blocks(!to_input).blocks[source], part);
    const KernelView view = to_input ? kernel_view(target_block, source_block, true, w.along, w.outer, w.inner)
                                     : kernel_view(source_block, target_block, false, w.along, w.outer, w.inner);
    const int lanes = kernels_.lanes;
    const LaneBlocks& sources = blocks(!to_input);
    const int first_row = sources.row_of(source % sources.per_group, lanes) + part * kernel_rows_;
    const TileShape& shape = transform_.shape();
    Index extent, last;
    for (int a = 0; a < axes; ++a) {
        extent[a] = transform_.extent(TileRole::read_kernel, a);
        last[a] = shape.taps[a] - 1;
    }
    const std::array<std::ptrdiff_t, axes> strides{extent[1] * extent[2] * lanes, extent[2] * lanes, lanes};
    const std::array<std::ptrdiff_t, axes> reversed{-strides[0], -strides[1], -strides[2]};
    const std::ptrdiff_t box_size = extent[0] * strides[0], row_size = view.tap_count() * lanes;
    const double scale = transform_.scale();
    const bool as_they_are = scale == 1 && view.taps == extent;  // no zeros around them, nothing to multiply
    E* const taps = scratch + box_size;
    view.for_each_run([&](RowArgs<E> row, std::ptrdiff_t offset, std::int64_t tap) {
        row.lanes = taps + tap * lanes;
        row.source = w.data + offset;
        if (row.lane_stride > row.count * row.pixel_stride)  // far apart: what comes next in each
            prefetch_rows(row.source + row.count * row.pixel_stride, row.lane_stride, row.lane_count, row.pixel_stride,
                          row.count);
        kernels_.read_row(row);
    });
    E* const spectrum = spectra.at(0, target) + first_row * lanes;
    if (as_they_are)
        return transform_.forward(TileRole::read_kernel, taps + (flip ? row_size - lanes : 0),
                                  flip ? reversed : strides, spectrum, spectra.shape.plane_stride,
                                  scratch + strip_size_, {view.rows, row_size, lanes});
    for (int r = 0; r < view.rows; ++r) {
        std::fill_n(scratch, box_size, E(0));
        for_each_tap(view.taps, last, flip, strides, [&](std::ptrdiff_t tap, std::ptrdiff_t in_box) {
            const E* const from = taps + r * row_size + tap * lanes;
            for (int lane = 0; lane < lanes; ++lane)
                scratch[in_box + lane] = static_cast<E>(scale * static_cast<double>(from[lane]));
        });
        transform_.forward(TileRole::read_kernel, scratch, strides, spectrum + r * lanes, spectra.shape.plane_stride,
                           scratch + strip_size_);
    }
}

namespace {

// Adds all lanes of each pixel into its first, pairwise.
template <class E>
void sum_lanes(E* pixels, std::int64_t count, int lanes) {
    for (std::int64_t i = 0; i < count; ++i, pixels += lanes)
        for (int half = lanes / 2; half > 0; half /= 2)
            for (int l = 0; l < half; ++l)
                pixels[l] += pixels[l + half];
}

}  // namespace

template <class E>
bool Engine<E>::write_kernels(const Tensor<E>& dw, int x_block, int y_block, int part, const Spectra<E>& spectra,
                              E* scratch) const {
    const LaneBlock& x = x_blocks_.blocks[x_block];
    const LaneBlock y = part_of(y_blocks_.blocks[y_block], part);
    const KernelView view = kernel_view(x, y, true, dw.along, dw.outer, dw.inner);
    const int lanes = kernels_.lanes;
    const int first_row = y_blocks_.row_of(y_block % y_blocks_.per_group, lanes) + part * kernel_rows_;
    Index extent;
    for (int a = 0; a < axes; ++a)
        extent[a] = transform_.extent(TileRole::write_kernel, a);
    const std::array<std::ptrdiff_t, axes> strides{extent[1] * extent[2] * lanes, extent[2] * lanes, lanes};
    const double scale = transform_.scale();
    const std::ptrdiff_t box_size = extent[0] * strides[0], row_size = view.tap_count() * lanes;
    const bool as_they_are = scale == 1 && view.taps == extent;
    E* const taps = scratch + box_size;
    bool non_finite = false;
    const E* const spectrum = spectra.at(0, x_block) + first_row * lanes;
    if (as_they_are) {
        transform_.inverse(TileRole::write_kernel, spectrum, spectra.shape.plane_stride, taps, strides,
                           scratch + strip_size_, {view.rows, row_size, lanes});
    } else {
        for (int r = 0; r < view.rows; ++r) {
            transform_.inverse(TileRole::write_kernel, spectrum + r * lanes, spectra.shape.plane_stride, scratch,
                               strides, scratch + strip_size_);
            for_each_tap(view.taps, {}, false, strides, [&](std::ptrdiff_t tap, std::ptrdiff_t in_box) {
                E* const to = taps + r * row_size + tap * lanes;
                for (int lane = 0; lane < lanes; ++lane)
                    to[lane] = static_cast<E>(scale * static_cast<double>(scratch[in_box + lane]));
            });
        }
    }
    if (lane_kind_ == LaneKind::tiles) sum_lanes(taps, view.rows * view.tap_count(), lanes);
    view.for_each_run([&](RowArgs<E> row, std::ptrdiff_t offset, std::int64_t tap) {
        if (lane_kind_ == LaneKind::tiles) row.lane_count = 1;
        row.lanes = taps + tap * lanes;
        row.destination = dw.data + offset;
        non_finite = kernels_.write_row(row) || non_finite;
    });
    return non_finite;
}

#define TRICONV_INSTANTIATE(E)                                                                                      \
    template void Engine<E>::read_kernels(const Tensor<const E>&, bool, int, int, int, bool, const Spectra<E>&, E*) \
        const;                                                                                                      \
    template bool Engine<E>::write_kernels(const Tensor<E>&, int, int, int, const Spectra<E>&, E*) const;           \
    template int Engine<E>::kernel_parts(const LaneBlocks&) const;                                                  \
    template Engine<E>::KernelPart Engine<E>::kernel_part(const LaneBlocks&, int) const;                            \
    template LaneBlock Engine<E>::part_of(const LaneBlock&, int) const;
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
