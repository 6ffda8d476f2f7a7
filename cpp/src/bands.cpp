#include "bands.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "prefetch.h"

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

bool DenseAxis::inside(std::int64_t t, std::int64_t count) const {
    const std::int64_t begin = source.index(first_sample(t));
    return begin >= 0 && begin + (samples(count) - 1) * source.step < source.size;
}

DenseConv written_as_read(const DenseConv& conv) {
    DenseConv outputs = conv;
    for (DenseAxis& axis : outputs)
        axis = {axis.target, axis.target, axis.begin, axis.end, 1, 1, 1, 0, 1};
    return outputs;
}

DenseConv forward_conv(const Layer& layer) {
    DenseConv conv;
    for (int i = 0; i < axes; ++i) {
        const Axis& a = layer.axis[i];
        conv[i] = {{-a.pad, 1, a.in, a.outside}, {0, 1, a.out}, 0, a.out, a.stride, a.dilation, a.kernel, 0, 1};
    }
    return conv;
}

namespace {

// Those of input_grad along one axis that meet any sample of x. Without a stride a single one does, its taps a dilation
// apart: phases of outputs are only needed where strides and dilations meet.
std::vector<DenseAxis> input_grad_axes(const Axis& a) {
    if (a.stride == 1) return {{{a.pad, 1, a.out}, {0, 1, a.in}, 0, a.in, 1, -a.dilation, a.kernel, 0, 1}};
    std::vector<DenseAxis> result;
    for (std::int64_t rho = 0; rho < a.output_phases; ++rho)
        for (std::int64_t phi = 0; phi < a.kernel_phases; ++phi) {
            DenseAxis d{output_grid(a, rho), input_grid(a, rho, phi), 0, 0, 1, -1, a.taps_of(phi), phi, a.tap_step};
            const std::int64_t outputs = ceil_div(a.out - rho, a.out_step);
            d.target.clip(0, outputs + d.taps - 1, d.begin, d.end);
            if (d.begin < d.end) result.push_back(d);
        }
    return result;
}

}  // namespace

std::vector<DenseConv> dense_convs(const Layer& layer, Pass pass) {
    if (pass == Pass::forward) return {forward_conv(layer)};
    std::vector<DenseConv> convs;
    for (const DenseAxis& z : input_grad_axes(layer.axis[0]))
        for (const DenseAxis& y : input_grad_axes(layer.axis[1]))
            for (const DenseAxis& x : input_grad_axes(layer.axis[2]))
                convs.push_back({z, y, x});
    return convs;
}

namespace {

bool same_grid(const SubGrid& a, const SubGrid& b) {
    return a.offset == b.offset && a.step == b.step;
}

// Whether b is the next phase of a along x, of as many phases as the stride has.
bool is_next_phase(const DenseConv& a, const DenseConv& b) {
    const auto same_axis = [](const DenseAxis& a, const DenseAxis& b) {
        return same_grid(a.source, b.source) && same_grid(a.target, b.target) && a.first_tap == b.first_tap;
    };
    const DenseAxis &x = a[2], &next = b[2];
    return same_axis(a[0], b[0]) && same_axis(a[1], b[1]) && same_grid(x.source, next.source) &&
           x.target.step == next.target.step && next.target.offset == x.target.offset + 1;
}

JoinedConv join(std::vector<DenseConv> phases) {
    JoinedConv joined{phases.front(), std::move(phases), {}};
    DenseAxis& x = joined.conv[2];
    for (const DenseConv& phase : joined.phases) {
        x.begin = std::min(x.begin, phase[2].begin);
        x.end = std::max(x.end, phase[2].end);
        x.taps = std::max(x.taps, phase[2].taps);
    }
    joined.written = joined.conv;
    joined.written[2].target.step /= static_cast<std::int64_t>(joined.phases.size());
    return joined;
}

}  // namespace

std::vector<JoinedConv> join_phases(const std::vector<DenseConv>& convs) {
    std::vector<JoinedConv> result;
    for (std::size_t first = 0; first < convs.size();) {
        const auto count = static_cast<std::size_t>(convs[first][2].target.step);
        std::size_t next = first + 1;
        while (next < convs.size() && next < first + count && is_next_phase(convs[next - 1], convs[next]))
            ++next;
        if (next < first + count) next = first + 1;  // a phase is missing: no tap meets it
        const auto begin = convs.begin() + static_cast<std::ptrdiff_t>(first);
        result.push_back(join({begin, begin + static_cast<std::ptrdiff_t>(next - first)}));
        first = next;
    }
    return result;
}

Bands cut_bands(const DenseConv& conv, std::int64_t bytes_per_entry, std::int64_t most_outputs,
                std::int64_t longest_row) {
    constexpr std::int64_t buffer_bytes = 512 << 10;
    const std::int64_t height = conv[1].end - conv[1].begin, width = conv[2].end - conv[2].begin;
    Bands bands;
    bands.bands_x = ceil_div(width, longest_row);
    bands.pixels = ceil_div(width, bands.bands_x);
    std::int64_t rows = std::clamp<std::int64_t>(most_outputs / bands.pixels, 1, height);
    const auto bytes = [&](std::int64_t r) { return BandLayout(conv, r, bands.pixels).entries * bytes_per_entry; };
    while (rows > 1 && bytes(rows) > buffer_bytes)
        --rows;
    while (bands.pixels > 32 && bytes(rows) > buffer_bytes) {
        bands.bands_x = ceil_div(width, bands.pixels - 1);
        bands.pixels = ceil_div(width, bands.bands_x);
    }
    bands.bands_y = ceil_div(height, rows);
    bands.rows = ceil_div(height, bands.bands_y);
    return bands;
}

namespace {

Index band_extent(const DenseConv& conv, const Bands& bands) {
    return {conv[0].end - conv[0].begin, bands.bands_y, bands.bands_x};
}

}  // namespace

std::int64_t band_count(const DenseConv& conv, const Bands& bands) {
    const Index extent = band_extent(conv, bands);
    return extent[0] * extent[1] * extent[2];
}

BandTask band_task(const DenseConv& conv, const Bands& bands, int groups, std::int64_t index) {
    const std::int64_t count = band_count(conv, bands), channels = index / count;
    const Index at = unravel(index % count, band_extent(conv, bands));
    BandTask task{channels / groups, static_cast<int>(channels % groups), {}, 0, 0};
    task.t = {conv[0].begin + at[0], conv[1].begin + at[1] * bands.rows, conv[2].begin + at[2] * bands.pixels};
    task.rows = std::clamp<std::int64_t>(conv[1].end - task.t[1], 0, bands.rows);
    task.pixels = std::clamp<std::int64_t>(conv[2].end - task.t[2], 0, bands.pixels);
    return task;
}

BandLayout::BandLayout(const DenseConv& conv, std::int64_t output_rows, std::int64_t output_pixels, std::int64_t gap)
    : height(conv[1].samples(output_rows)),
      rows(ceil_div(height, conv[1].step)),
      pixels(ceil_div(conv[2].samples(output_pixels), conv[2].step) + gap),
      phase_entries(rows * pixels),
      entries(conv[0].taps * conv[1].step * conv[2].step * phase_entries),
      y_phase_used(static_cast<std::size_t>(conv[1].step)),
      x_phase_used(static_cast<std::size_t>(conv[2].step)) {
    for (std::int64_t y = 0; y < std::min(conv[1].taps, conv[1].step); ++y)
        y_phase_used[static_cast<std::size_t>(conv[1].sample_of_tap(y) % conv[1].step)] = true;
    for (std::int64_t x = 0; x < std::min(conv[2].taps, conv[2].step); ++x)
        x_phase_used[static_cast<std::size_t>(conv[2].sample_of_tap(x) % conv[2].step)] = true;
}

std::ptrdiff_t BandLayout::entry_of_tap(const DenseConv& conv, const Index& tap) const {
    const std::int64_t row = conv[1].sample_of_tap(tap[1]), pixel = conv[2].sample_of_tap(tap[2]);
    const std::int64_t phase = (tap[0] * conv[1].step + row % conv[1].step) * conv[2].step + pixel % conv[2].step;
    return phase * phase_entries + row / conv[1].step * pixels + pixel / conv[2].step;
}

TapOrder::TapOrder(const DenseConv& conv, const BandLayout& layout, int axis, int lanes) {
    const DenseAxis& along = conv[axis];
    const std::int64_t tap_step = std::abs(along.tap_step), common = std::gcd(along.step, tap_step);
    const std::int64_t apart = along.step / common;  // taps of a run; those between read other phases
    if (apart < along.taps) hop = tap_step / common;
    const Index extent{conv[0].taps, conv[1].taps, conv[2].taps};
    Index firsts = extent;
    firsts[axis] = std::min(apart, along.taps);
    for (std::int64_t i = 0; i < firsts[0] * firsts[1] * firsts[2]; ++i) {
        const Index first = unravel(i, firsts);
        const std::int64_t count = ceil_div(along.taps - first[axis], apart);
        const std::int64_t parts = ceil_div(count, std::int64_t{most_run_taps});
        for (std::int64_t k = 0, part = 0; part < parts; ++part) {
            const std::int64_t end = (part + 1) * count / parts;
            runs.push_back({0, static_cast<int>(end - k)});
            for (std::int64_t begin = k; k < end; ++k) {
                Index tap = first;
                tap[axis] += apart * (along.tap_step < 0 ? count - 1 - k : k);
                taps.push_back((tap[0] * extent[1] + tap[1]) * extent[2] + tap[2]);
                if (k == begin) runs.back().offset = layout.entry_of_tap(conv, tap) * lanes;
            }
        }
    }
}

BandLayout BandLayout::of_array(const DenseConv& conv, const std::array<std::ptrdiff_t, axes>& along) const {
    BandLayout array = *this;
    array.pixels = along[1];
    array.phase_entries = conv[0].tap_step * along[0];
    return array;
}

std::vector<std::ptrdiff_t> BandLayout::entries_of_taps(const DenseConv& conv) const {
    const Index taps{conv[0].taps, conv[1].taps, conv[2].taps};
    std::vector<std::ptrdiff_t> result;
    for (std::int64_t i = 0; i < taps[0] * taps[1] * taps[2]; ++i)
        result.push_back(entry_of_tap(conv, unravel(i, taps)));
    return result;
}

namespace {

// A part of a row of one phase of a buffer: samples of the tensor a constant step apart.
struct Run {
    std::int64_t entry, count;
    Index source;  // of the first sample
    std::int64_t step;
};

// What a phase of a buffer for outputs from t on holds along an axis: every step-th sample.
SubGrid grid_of_phase(const DenseAxis& axis, std::int64_t t, std::int64_t phase) {
    const SubGrid& source = axis.source;
    return {source.index(axis.first_sample(t) + phase), source.step * axis.step, source.size, source.outside};
}

// Calls fill(entry, count) and read(run): a stretch of columns of a phase after the other.
template <class Fill, class Read>
void for_each_run(const DenseConv& conv, const BandLayout& layout, const Index& t, std::int64_t first_row,
                  std::int64_t last_row, const Fill& fill, const Read& read) {
    const std::int64_t y0 = conv[1].first_sample(t[1]), step_y = conv[1].step;
    const std::int64_t first_phase = first_row % step_y, first_in_phase = first_row / step_y;
    const auto for_each_row = [&](std::int64_t x_phase, std::int64_t x, const SampleRun& along) {
        for (std::int64_t tap = 0; tap < conv[0].taps; ++tap) {
            const std::int64_t plane = conv[0].source.sample(t[0] * conv[0].step + tap * conv[0].tap_step);
            std::int64_t phase = first_phase, in_phase = first_in_phase;
            for (std::int64_t y = first_row; y < last_row; ++y) {
                if (layout.y_phase_used[static_cast<std::size_t>(phase)]) {
                    const std::int64_t row = conv[1].source.sample(y0 + y);
                    const std::int64_t entry =
                        ((tap * step_y + phase) * conv[2].step + x_phase) * layout.phase_entries +
                        in_phase * layout.pixels + x;
                    if (plane < 0 || row < 0 || along.index < 0)
                        fill(entry, along.end - x);
                    else
                        read(Run{entry, along.end - x, {plane, row, along.index}, along.step});
                }
                if (++phase < step_y) continue;
                phase = 0;
                ++in_phase;
            }
        }
    };
    for (std::int64_t x_phase = 0; x_phase < conv[2].step; ++x_phase) {
        if (!layout.x_phase_used[static_cast<std::size_t>(x_phase)]) continue;
        const SubGrid grid = grid_of_phase(conv[2], t[2], x_phase);
        for (std::int64_t x = 0; x < layout.pixels;) {
            const SampleRun along = grid.run_from(x, layout.pixels);
            for_each_row(x_phase, x, along);
            x = along.end;
        }
    }
}

// Calls fill(entry, count) where there is the fill and read(source, stride, count, entry) for samples of a channel a
// constant stride apart: runs without padding may join up.
template <class E, class Fill, class Read>
void for_each_line(const Tensor<const E>& tensor, std::int64_t n, std::int64_t channel, const DenseConv& conv,
                   const BandLayout& layout, const Index& t, std::int64_t first_row, std::int64_t last_row,
                   const Fill& fill, const Read& read) {
    const E* from = nullptr;  // samples not read yet
    std::ptrdiff_t stride = 0;
    std::int64_t entry = 0, count = 0;
    for_each_run(conv, layout, t, first_row, last_row, fill, [&](const Run& run) {
        const E* const source = tensor.address_of(n, channel, run.source);
        const std::ptrdiff_t along = tensor.along[2] * run.step;
        if (count > 0 && stride == along && from + count * stride == source && entry + count == run.entry) {
            count += run.count;
            return;
        }
        if (count > 0) read(from, stride, count, entry);
        from = source;
        stride = along;
        entry = run.entry;
        count = run.count;
    });
    if (count > 0) read(from, stride, count, entry);
}

}  // namespace

template <class E>
void read_samples(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, const LaneBlock& block,
                  const DenseConv& conv, const BandLayout& layout, const Index& t, E* buffer, const LaneBlock* next) {
    read_sample_rows(kernels, tensor, n, block, conv, layout, t, 0, layout.height, buffer, next);
}

template <class E>
void read_sample_rows(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n,
                      const LaneBlock& block, const DenseConv& conv, const BandLayout& layout, const Index& t,
                      std::int64_t first_row, std::int64_t last_row, E* buffer, const LaneBlock* next) {
    const int lanes = kernels.lanes;
    RowArgs<E> row{};
    row.lane_stride = tensor.inner * block.channel_step;
    row.lane_count = block.lanes;
    const E outside = static_cast<E>(conv[2].source.outside.fill);
    const std::ptrdiff_t next_block = next ? (next->channel - block.channel) * tensor.inner : 0;
    const auto fill = [&](std::int64_t entry, std::int64_t count) {
        std::fill_n(buffer + entry * lanes, count * lanes, outside);
    };
    for_each_line(tensor, n, block.channel, conv, layout, t, first_row, last_row, fill,
                  [&](const E* from, std::ptrdiff_t stride, std::int64_t count, std::int64_t entry) {
                      row.pixel_stride = stride;
                      row.lanes = buffer + entry * lanes;
                      row.count = count;
                      row.source = from;
                      if (next) prefetch_rows(from + next_block, row.lane_stride, next->lanes, stride, count);
                      kernels.read_row(row);
                  });
}

namespace {

// Whether all that a buffer holds besides samples is zero, and these are neighbours in the array, or every second.
template <class E>
bool rows_are_padded_with_zeros(const Tensor<const E>& tensor, const DenseConv& conv) {
    const std::ptrdiff_t apart = tensor.along[2] * conv[2].source.step * conv[2].step;
    return (apart == 1 || apart == 2) && conv[1].source.outside.zeros() && conv[2].source.outside.zeros();
}

// One phase of one plane: samples, where there are any, and zeros around them. plane: null if it is outside the array.
template <class E>
void read_padded_phase(const KernelTable<E>& kernels, const BandLayout& layout, const E* plane, const SubGrid& y,
                       const SubGrid& x, const std::array<std::ptrdiff_t, axes>& along, std::ptrdiff_t ahead, E* to) {
    constexpr std::int64_t line = 64 / sizeof(E);
    std::int64_t top, bottom, left, right;  // what is in the array
    y.clip(0, layout.rows, top, bottom);
    x.clip(0, layout.pixels, left, right);
    if (!plane || top == bottom || left == right) return void(std::fill_n(to, layout.phase_entries, E(0)));
    PaddedRowsArgs<E> args{};
    args.from = plane + y.index(top) * along[1] + x.index(left) * along[2];
    args.to = std::fill_n(to, top * layout.pixels, E(0));
    args.from_row = y.step * along[1];
    args.from_step = x.step * along[2];
    args.to_row = layout.pixels;
    args.rows = bottom - top;
    args.before = left;
    args.count = right - left;
    for (std::int64_t row = 0; ahead != 0 && row < args.rows; ++row)
        for (std::int64_t i = 0; i < args.count * args.from_step; i += line)
            __builtin_prefetch(args.from + ahead + row * args.from_row + i);
    kernels.read_padded_rows(args);
    std::fill_n(args.to + args.rows * layout.pixels, (layout.rows - bottom) * layout.pixels, E(0));
}

// As read_plane, of all rows at once: of maps of 14 x 14 what the runs one by one took five times as long for.
template <class E>
void read_padded_plane(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n,
                       std::int64_t channel, const DenseConv& conv, const BandLayout& layout, const Index& t,
                       std::ptrdiff_t ahead, E* buffer) {
    for (std::int64_t tap = 0; tap < conv[0].taps; ++tap) {
        const std::int64_t z = conv[0].source.sample(t[0] * conv[0].step + tap * conv[0].tap_step);
        const E* const plane = z < 0 ? nullptr : tensor.address_of(n, channel, {z, 0, 0});
        for (std::int64_t y = 0; y < conv[1].step; ++y)
            for (std::int64_t x = 0; x < conv[2].step; ++x, buffer += layout.phase_entries)
                if (layout.y_phase_used[static_cast<std::size_t>(y)] &&
                    layout.x_phase_used[static_cast<std::size_t>(x)])
                    read_padded_phase(kernels, layout, plane, grid_of_phase(conv[1], t[1], y),
                                      grid_of_phase(conv[2], t[2], x), tensor.along, x == 0 ? ahead : 0, buffer);
    }
}

}  // namespace

template <class E>
void read_plane(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, std::int64_t channel,
                const DenseConv& conv, const BandLayout& layout, const Index& t, std::ptrdiff_t ahead, E* buffer) {
    if (rows_are_padded_with_zeros(tensor, conv))
        return read_padded_plane(kernels, tensor, n, channel, conv, layout, t, ahead, buffer);
    constexpr std::int64_t line = 64 / sizeof(E);
    const E outside = static_cast<E>(conv[2].source.outside.fill);
    const auto fill = [&](std::int64_t entry, std::int64_t count) { std::fill_n(buffer + entry, count, outside); };
    for_each_line(tensor, n, channel, conv, layout, t, 0, layout.height, fill,
                  [&](const E* from, std::ptrdiff_t stride, std::int64_t count, std::int64_t entry) {
                      E* const to = buffer + entry;
                      for (std::int64_t i = 0; i < count; i += line)
                          __builtin_prefetch(from + ahead + i * stride);
                      if (stride == 1)
                          std::copy_n(from, count, to);
                      else
                          for (std::int64_t i = 0; i < count; ++i)
                              to[i] = from[i * stride];
                  });
}

namespace {

// Rows of outputs with pixels [begin, end), and the elements of an array from pixel to pixel and from row to row.
struct WrittenRows {
    std::int64_t begin, end, count;
    std::ptrdiff_t pixel, pitch;

    template <class E>
    WrittenRows(const Tensor<E>& tensor, const DenseConv& written, const BandRows& rows, std::int64_t first,
                std::int64_t last)
        : begin(first),
          end(last),
          count(rows.rows),
          pixel(tensor.along[2] * written[2].target.step),
          pitch(tensor.along[1] * written[1].target.step) {}

    // Calls write(row, pixels) for each, or once for all of them if they adjoin in the array as well as in the values,
    // which are so many pixels apart.
    template <class Write>
    void for_each(std::ptrdiff_t line, const Write& write) const {
        const std::int64_t pixels = end - begin;
        if (line == pixels && pitch == pixels * pixel) return write(0, count * pixels);
        for (std::int64_t r = 0; r < count; ++r)
            write(r, pixels);
    }
    // What was written by one of those calls is not finite.
    void note_damage(const DenseConv& written, const BandRows& rows, const LaneBlock& block, std::int64_t row,
                     std::int64_t pixels, std::vector<DamagedBox>& damage) const {
        const std::int64_t first = rows.t[1] + row, last = first + pixels / (end - begin);
        damage.push_back(
            damaged_outputs(written, rows.n, block, {rows.t[0], first, begin}, {rows.t[0] + 1, last, end}));
    }
};

}  // namespace

// What `rows` says is read where it is: of a copy made of fields that have just been written, a processor may have to wait
// until all stores before them are done, those to the array included.
template <class E>
void write_joined_rows(const KernelTable<E>& kernels, const Tensor<E>& tensor, const JoinedConv& joined,
                       const BandRows& rows, std::ptrdiff_t line, E* values, const E* bias,
                       std::vector<DamagedBox>& damage) {
    const auto phases = static_cast<std::int64_t>(joined.phases.size());
    const std::int64_t first = rows.t[2] * phases, lanes = kernels.lanes;
    const DenseConv& written = joined.written;
    std::int64_t begin, end;  // the ends of some phases may be outside the array
    written[2].target.clip(first, first + rows.pixels * phases, begin, end);
    if (begin >= end) return;
    const WrittenRows out(tensor, written, rows, begin, end);
    E* const destination = first_output(tensor, written, rows.n, rows.block.channel, {rows.t[0], rows.t[1], begin});
    RowArgs<E> args{};
    args.lane_stride = tensor.inner * rows.block.channel_step;
    args.pixel_stride = out.pixel;
    args.lane_count = rows.block.lanes;
    args.bias = bias;
    out.for_each(line / lanes, [&](std::int64_t row, std::int64_t pixels) {
        args.lanes = values + (begin - first) * lanes + row * line;
        args.destination = destination + row * out.pitch;
        args.count = pixels;
        if (kernels.write_row(args)) out.note_damage(written, rows, rows.block, row, pixels, damage);
    });
}

// Lanes are pixels: the kernel takes whole lane vectors, and one lane vector of what is left.
template <class E>
void write_plane_rows(const KernelTable<E>& kernels, const Tensor<E>& tensor, const DenseConv& conv,
                      const BandRows& rows, const PlaneValues& at, E* values, const E* bias,
                      std::vector<DamagedBox>& damage) {
    const WrittenRows out(tensor, conv, rows, rows.t[2], rows.t[2] + rows.pixels);
    std::array<E, most_lanes> lane_bias;
    RowArgs<E> args{};
    args.lane_stride = out.pixel;
    args.pixel_stride = out.pixel * kernels.lanes;
    args.bias = bias ? lane_bias.data() : nullptr;
    for (int lane = 0; lane < rows.block.lanes; ++lane) {
        const std::int64_t channel = rows.block.channel + lane * rows.block.channel_step;
        E* const destination = first_output(tensor, conv, rows.n, channel, rows.t);
        if (bias) lane_bias.fill(bias[lane]);
        out.for_each(at.line, [&](std::int64_t row, std::int64_t pixels) {
            args.lanes = values + lane * at.plane + row * at.line;
            args.destination = destination + row * out.pitch;
            args.lane_count = kernels.lanes;
            args.count = pixels / kernels.lanes;
            bool non_finite = args.count > 0 && kernels.write_row(args);
            args.lanes += args.count * kernels.lanes;
            args.destination += args.count * args.pixel_stride;
            args.lane_count = static_cast<int>(pixels - args.count * kernels.lanes);
            args.count = 1;
            non_finite = (args.lane_count > 0 && kernels.write_row(args)) || non_finite;
            if (non_finite) out.note_damage(conv, rows, {channel, 1, 1, rows.block.phase}, row, pixels, damage);
        });
    }
}

#define TRICONV_INSTANTIATE(E)                                                                                        \
    template void read_samples(const KernelTable<E>&, const Tensor<const E>&, std::int64_t, const LaneBlock&,         \
                               const DenseConv&, const BandLayout&, const Index&, E*, const LaneBlock*);              \
    template void read_sample_rows(const KernelTable<E>&, const Tensor<const E>&, std::int64_t, const LaneBlock&,     \
                                   const DenseConv&, const BandLayout&, const Index&, std::int64_t, std::int64_t, E*, \
                                   const LaneBlock*);                                                                 \
    template void read_plane(const KernelTable<E>&, const Tensor<const E>&, std::int64_t, std::int64_t,               \
                             const DenseConv&, const BandLayout&, const Index&, std::ptrdiff_t, E*);                  \
    template void write_joined_rows(const KernelTable<E>&, const Tensor<E>&, const JoinedConv&, const BandRows&,      \
                                    std::ptrdiff_t, E*, const E*, std::vector<DamagedBox>&);                          \
    template void write_plane_rows(const KernelTable<E>&, const Tensor<E>&, const DenseConv&, const BandRows&,        \
                                   const PlaneValues&, E*, const E*, std::vector<DamagedBox>&);
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
