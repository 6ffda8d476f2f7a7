// The products of the engine: one bin's matrix product cut into register blocks, or a run of bins lane by lane.
#include <algorithm>

#include "engine.h"

namespace triconv {

namespace {

// One part of the reduction, cut into register blocks. The first blocks of rows that meet a panel of b have a column each
// of the next panel fetched: panels are a few KB in planes far apart, too short for the processor to see a stream in
// them. All columns at once, by the first block, would come faster than memory delivers.
template <class E>
void multiply_part(const MicroKernel<E>& kernel, const ProductArgs<E>& whole, int first_block, int blocks, int rows,
                   int cols) {
    ProductArgs<E> args = whole;
    args.blocks = blocks;
    args.full_blocks = std::clamp(whole.full_blocks - first_block, 0, blocks);
    args.a_offset = whole.a_offset + first_block;
    args.b_offset = whole.b_offset + first_block;
    args.accumulate = first_block > 0 || whole.accumulate;
    const int next_block = first_block + blocks;
    const std::ptrdiff_t after =
        (next_block < whole.blocks ? whole.b_offset[next_block] : whole.b_ahead) - whole.b_offset[first_block];
    const EqualParts row_parts(rows, kernel.mr), col_parts(cols, kernel.nr);
    for (int col_part = 0, j = 0; col_part < col_parts.count; ++col_part, j += args.cols) {
        args.cols = col_parts.size(col_part);
        const bool last = col_part + 1 == col_parts.count;
        const std::ptrdiff_t next = last ? after - j * whole.b_col : args.cols * whole.b_col;
        for (int row_part = 0, i = 0; row_part < row_parts.count; ++row_part, i += args.rows) {
            args.b_ahead = row_part < kernel.nr ? next + row_part * whole.b_col : 0;
            args.rows = row_parts.size(row_part);
            args.a = whole.a + i * whole.a_row;
            args.b = whole.b + j * whole.b_col;
            args.c = whole.c + i * whole.c_row + j * whole.c_col;
            kernel.run(args);
        }
    }
}

// c (+)= a * b: `args` describes the whole product, rows and cols of any size, all blocks of the reduction.
template <class E>
void multiply_blocks(const MicroKernel<E>& kernel, const ProductArgs<E>& args, int rows, int cols) {
    const int part = std::max(1, max_reduction / std::max(1, args.length));
    for (int first = 0; first < args.blocks; first += part)
        multiply_part(kernel, args, first, std::min(part, args.blocks - first), rows, cols);
}

}  // namespace

// The inner loop of a lane-wise product runs over the rows of a bin or over the bins of a row, whichever are more.
template <class E>
void Engine<E>::multiply_lanewise(const BinRun& bins, ProductKind complex_kind, bool to_input, const Slice& slice,
                                  const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first,
                                  int last) const {
    const auto run = kernels_.lanewise[static_cast<int>(bins.complex ? complex_kind : ProductKind::real)];
    const LaneBlocks& sources = blocks(!to_input);
    const LaneBlocks& targets = blocks(to_input);
    const std::ptrdiff_t lanes = kernels_.lanes, planes = bins.planes_per_bin();
    const std::ptrdiff_t a_bin = planes * a.shape.plane_stride, w_bin = planes * w.shape.plane_stride,
                         c_bin = planes * c.shape.plane_stride;
    const int rows = last - first;
    const auto multiply_blocks_of = [&](int target, int source, int row, bool accumulate) {
        LanewiseArgs<E> args{a.at(bins.plane, source) + first * lanes,
                             w.at(bins.plane, target) + row * lanes,
                             c.at(bins.plane, target) + first * lanes,
                             a.shape.plane_stride,
                             w.shape.plane_stride,
                             c.shape.plane_stride,
                             lanes,
                             0,
                             lanes,
                             rows,
                             accumulate};
        if (rows < bins.count) {
            args.a_row = a_bin;
            args.b_row = w_bin;
            args.c_row = c_bin;
            args.rows = bins.count;
            for (int i = 0; i < rows; ++i, args.a += lanes, args.c += lanes)
                run(args);
        } else {
            for (int i = 0; i < bins.count; ++i, args.a += a_bin, args.b += w_bin, args.c += c_bin)
                run(args);
        }
    };
    for (int group = slice.first_group; group < slice.last_group; ++group)
        for (int target = 0; target < targets.per_group; ++target)
            for (int source = 0; source < sources.per_group; ++source)
                multiply_blocks_of(group * targets.per_group + target, group * sources.per_group + source, source,
                                   source > 0);
}

template <class E>
void Engine<E>::multiply_weight_grad_lanewise(const BinRun& bins, const Spectra<E>& dy, const Spectra<E>& x,
                                              const Spectra<E>& dw, int rows, int y_block, bool accumulate) const {
    const auto run =
        kernels_.lanewise[static_cast<int>(bins.complex ? ProductKind::complex_conj_a : ProductKind::real)];
    const std::ptrdiff_t lanes = kernels_.lanes, planes = bins.planes_per_bin();
    const std::ptrdiff_t dy_bin = planes * dy.shape.plane_stride, x_bin = planes * x.shape.plane_stride,
                         dw_bin = planes * dw.shape.plane_stride;
    const int group = y_block / y_blocks_.per_group, in_group = y_block % y_blocks_.per_group;
    for (int x_block = group * x_blocks_.per_group; x_block < (group + 1) * x_blocks_.per_group; ++x_block) {
        LanewiseArgs<E> args{dy.at(bins.plane, y_block),
                             x.at(bins.plane, x_block),
                             dw.at(bins.plane, x_block) + in_group * lanes,
                             dy.shape.plane_stride,
                             x.shape.plane_stride,
                             dw.shape.plane_stride,
                             lanes,
                             lanes,
                             0,
                             rows,
                             accumulate};
        // A few rows are added up one after the other, each along the bins.
        constexpr int few = 8;
        if (rows <= few) {
            args.a_row = dy_bin;
            args.b_row = x_bin;
            args.c_row = dw_bin;
            args.rows = bins.count;
            for (int i = 0; i < rows; ++i, args.a += lanes, args.b += lanes) {
                args.accumulate = accumulate || i > 0;
                run(args);
            }
        } else {
            for (int i = 0; i < bins.count; ++i, args.a += dy_bin, args.b += x_bin, args.c += dw_bin)
                run(args);
        }
    }
}

// So many that a panel of them leaves most of L2 to the kernels.
template <class E>
int Engine<E>::product_rows(bool to_input, const Slice& slice) const {
    constexpr std::ptrdiff_t panel_bytes = 128 << 10;
    constexpr std::ptrdiff_t step = 12, fewest = 24, most = 96;  // a multiple of the micro-kernels' rows
    const std::ptrdiff_t row_bytes = panel_row(to_input, slice) * static_cast<std::ptrdiff_t>(sizeof(E));
    return static_cast<int>(
        std::clamp(panel_bytes / std::max<std::ptrdiff_t>(1, row_bytes) / step * step, fewest, most));
}

template <class E>
std::ptrdiff_t Engine<E>::panel_row(bool to_input, const Slice& slice) const {
    return std::ptrdiff_t{2} * slice.block_count(blocks(!to_input)) * kernels_.lanes;  // complex
}

// Where lanes hold tiles: the kernels' values, the same in all lanes, are what is broadcast.
template <class E>
void Engine<E>::multiply_tiles(const Bin& bin, ProductKind complex_kind, bool to_input, const Slice& slice,
                               const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first,
                               int last) const {
    const ProductKind swapped =
        complex_kind == ProductKind::complex_conj_b ? ProductKind::complex_conj_a : ProductKind::complex;
    const auto& kernel = kernels_.product[static_cast<int>(bin.complex ? swapped : ProductKind::real)];
    const LaneBlocks& sources = blocks(!to_input);
    const LaneBlocks& targets = blocks(to_input);
    const int lanes = kernels_.lanes;
    constexpr int length = 16;  // channels of a block of the reduction
    const int count = (sources.per_group + length - 1) / length;
    std::vector<std::ptrdiff_t> offsets(2 * static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        offsets[static_cast<std::size_t>(i)] = i * length * lanes;
        offsets[static_cast<std::size_t>(count + i)] = i * length * a.shape.block_stride;
    }
    ProductArgs<E> args{};
    args.a_im = w.shape.plane_stride;
    args.b_im = a.shape.plane_stride;
    args.c_im = c.shape.plane_stride;
    args.a_offset = offsets.data();
    args.b_offset = offsets.data() + count;
    args.blocks = count;
    args.full_blocks = sources.per_group / length;
    args.length = length;
    args.tail_length = sources.per_group % length;
    args.a_row = w.shape.block_stride;
    args.a_step = lanes;
    args.b_step = a.shape.block_stride;
    args.b_col = lanes;
    args.c_row = c.shape.block_stride;
    args.c_col = lanes;
    for (int group = slice.first_group; group < slice.last_group; ++group) {
        args.a = w.at(bin.plane, group * targets.per_group);
        args.b = a.at(bin.plane, group * sources.per_group) + first * lanes;
        args.c = c.at(bin.plane, group * targets.per_group) + first * lanes;
        multiply_blocks(kernel, args, targets.per_group, last - first);
    }
}

template <class E>
void Engine<E>::multiply(const Bin& bin, ProductKind complex_kind, bool to_input, const Slice& slice,
                         const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first, int last,
                         E* panel) const {
    if (lane_kind_ == LaneKind::tiles) return multiply_tiles(bin, complex_kind, to_input, slice, a, w, c, first, last);
    const ProductKind kind = bin.complex ? complex_kind : ProductKind::real;
    const LaneBlocks& sources = blocks(!to_input);
    const LaneBlocks& targets = blocks(to_input);
    const int lanes = kernels_.lanes, rows = last - first, planes = bin.complex ? 2 : 1;
    const int first_source = slice.first_block(sources), source_count = slice.block_count(sources);
    const std::ptrdiff_t first_element = static_cast<std::ptrdiff_t>(first) * lanes;
    const E* rows_of_a = a.at(bin.plane, first_source) + first_element;
    std::ptrdiff_t a_block = a.shape.block_stride, a_im = a.shape.plane_stride;
    if (panel) {
        a_block = static_cast<std::ptrdiff_t>(rows) * lanes;
        a_im = source_count * a_block;
        for (int plane = 0; plane < planes; ++plane)
            for (int i = 0; i < source_count; ++i)
                std::copy_n(a.at(bin.plane + plane, first_source + i) + first_element, a_block,
                            panel + plane * a_im + i * a_block);
        rows_of_a = panel;
    }

    std::vector<std::ptrdiff_t> offsets(2 * static_cast<std::size_t>(sources.per_group));
    std::ptrdiff_t* const a_offset = offsets.data();
    std::ptrdiff_t* const b_offset = a_offset + sources.per_group;
    for (int i = 0; i < sources.per_group; ++i) {
        a_offset[i] = i * a_block;
        b_offset[i] = sources.row_of(i, lanes) * lanes;
    }
    ProductArgs<E> args{};
    args.a_im = a_im;
    args.b_im = w.shape.plane_stride;
    args.c_im = c.shape.plane_stride;
    args.a_offset = a_offset;
    args.b_offset = b_offset;
    args.blocks = sources.per_group;
    args.full_blocks = sources.full_per_group;
    args.length = lanes;
    args.tail_length = sources.tail_lanes;
    args.a_row = lanes;
    args.a_step = 1;
    args.b_step = lanes;
    args.b_col = w.shape.block_stride;
    args.c_row = lanes;
    args.c_col = c.shape.block_stride;
    const int target_count = slice.targets_per_group(targets);
    for (int group = slice.first_group; group < slice.last_group; ++group) {
        const int target = slice.first_target(targets) + (group - slice.first_group) * target_count;
        args.a = rows_of_a + (group - slice.first_group) * sources.per_group * a_block;
        args.b = w.at(bin.plane, target);
        args.b_ahead = group + 1 < slice.last_group ? target_count * w.shape.block_stride
                                                    : w.at(bin.plane + planes, slice.first_target(targets)) - args.b;
        args.c = c.at(bin.plane, target) + first_element;
        multiply_blocks(kernels_.product[static_cast<int>(kind)], args, rows, target_count);
    }
}

template <class E>
void Engine<E>::multiply_weight_grad(const Bin& bin, const Spectra<E>& dy, const Spectra<E>& x, const Spectra<E>& dw,
                                     int rows, const Slice& slice, int y_block, bool accumulate) const {
    const ProductKind kind = bin.complex ? ProductKind::complex_conj_a : ProductKind::real;
    const int lanes = kernels_.lanes, group = y_block / y_blocks_.per_group, in_group = y_block % y_blocks_.per_group;
    const int target_count = slice.targets_per_group(x_blocks_);
    const int target = slice.first_target(x_blocks_) + (group - slice.first_group) * target_count;
    const std::ptrdiff_t no_offset = 0;
    ProductArgs<E> args{};
    args.a = dy.at(bin.plane, y_block);
    args.b = x.at(bin.plane, target);
    args.c = dw.at(bin.plane, target) + y_blocks_.row_of(in_group, lanes) * lanes;
    args.a_im = dy.shape.plane_stride;
    args.b_im = x.shape.plane_stride;
    args.c_im = dw.shape.plane_stride;
    args.a_offset = args.b_offset = &no_offset;
    args.blocks = args.full_blocks = 1;
    args.length = rows;
    args.a_row = 1;
    args.a_step = lanes;
    args.b_step = lanes;
    args.b_col = x.shape.block_stride;
    args.c_row = lanes;
    args.c_col = dw.shape.block_stride;
    args.accumulate = accumulate;
    multiply_blocks(kernels_.product[static_cast<int>(kind)], args, y_blocks_.blocks[y_block].lanes, target_count);
}

#define TRICONV_INSTANTIATE(E)                                                                                         \
    template void Engine<E>::multiply(const Bin&, ProductKind, bool, const Slice&, const Spectra<E>&,                  \
                                      const Spectra<E>&, const Spectra<E>&, int, int, E*) const;                       \
    template int Engine<E>::product_rows(bool, const Slice&) const;                                                    \
    template std::ptrdiff_t Engine<E>::panel_row(bool, const Slice&) const;                                            \
    template void Engine<E>::multiply_lanewise(const BinRun&, ProductKind, bool, const Slice&, const Spectra<E>&,      \
                                               const Spectra<E>&, const Spectra<E>&, int, int) const;                  \
    template void Engine<E>::multiply_weight_grad(const Bin&, const Spectra<E>&, const Spectra<E>&, const Spectra<E>&, \
                                                  int, const Slice&, int, bool) const;                                 \
    template void Engine<E>::multiply_weight_grad_lanewise(const BinRun&, const Spectra<E>&, const Spectra<E>&,        \
                                                           const Spectra<E>&, int, int, bool) const;
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
