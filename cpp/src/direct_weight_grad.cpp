#include <algorithm>
#include <cmath>

#include "direct_pass.h"
#include "parallel.h"

namespace triconv {

namespace {

// Of a planar buffer each sample is broadcast, so that those of neighbouring outputs may be any step apart: the taps of a
// kernel row read neighbours instead, if that many steps meet at all.
bool taps_are_neighbours(const DenseAxis& x) {
    return x.step % x.tap_step == 0;
}
DenseConv planar_conv(DenseConv conv) {
    if (taps_are_neighbours(conv[2])) conv[2].step = conv[2].tap_step;
    return conv;
}

// Taps that read neighbours: whole rows of the kernel, or each by itself.
struct TapRuns {
    std::int64_t per_row, count;
    int length;

    explicit TapRuns(const DenseConv& conv) {
        const bool whole = taps_are_neighbours(conv[2]);
        per_row = whole ? 1 : conv[2].taps;
        count = conv[0].taps * conv[1].taps * per_row;
        length = whole ? static_cast<int>(conv[2].taps) : 1;
    }
};

template <class E>
Bands matrix_bands(const KernelTable<E>& kernels, const DenseConv& conv, const LaneBlocks& xs) {
    return cut_bands(conv, kernels.lanes * static_cast<std::int64_t>(sizeof(E)) * xs.per_group);
}

}  // namespace

template <class E>
WeightGradWork weight_grad_work(const KernelTable<E>& kernels, const Layer& layer) {
    const LaneBlocks xs = input_blocks(layer, kernels.lanes, false, false),
                     ys = output_blocks(layer, kernels.lanes, false);
    const DenseConv conv = forward_conv(layer);
    const DyRuns<E> dy(ys, Bands{}, kernels.lanes);
    const TapRuns runs(conv);
    const BlockShape block = best_block(kernels.direct_product, dy.part_rows, xs.per_group);
    const Bands bands = matrix_bands(kernels, conv, xs);
    const auto entries =
        static_cast<double>(band_count(conv, bands) * BandLayout(conv, bands.rows, bands.pixels).entries);
    return {static_cast<double>(layer.taps() * dy.parts) * block.cycles,
            static_cast<double>(layer.in_per_group() * runs.count) *
                best_block(kernels.direct_product, runs.length, ys.per_group).cycles,
            static_cast<double>(layer.taps() * dy.parts * band_count(conv, bands) * ceil_div(xs.per_group, block.cols)),
            std::max(1.0, entries / static_cast<double>(std::max<std::int64_t>(1, layer.inputs())))};
}
template WeightGradWork weight_grad_work(const KernelTable<float>&, const Layer&);
template WeightGradWork weight_grad_work(const KernelTable<double>&, const Layer&);

template <class E>
DirectWeightGrad<E>::DirectWeightGrad(const KernelTable<E>& kernels, const Layer& layer, bool modest)
    : PassAlgorithm<E>(layer, Pass::weight_grad),
      kernels_(kernels),
      lanewise_(use_lanewise(layer, kernels.lanes)),
      xs_(input_blocks(layer, kernels.lanes, lanewise_, false)),
      ys_(output_blocks(layer, kernels.lanes, lanewise_)),
      conv_(forward_conv(layer)) {
    const int lanes = kernels.lanes;
    const std::int64_t lane_bytes = lanes * static_cast<std::int64_t>(sizeof(E));
    bands_ = lanewise_ ? cut_bands(conv_, lane_bytes, 1024) : matrix_bands(kernels, conv_, xs_);
    outputs_ = written_as_read(conv_);
    const WeightGradWork work = weight_grad_work(kernels, layer);
    planar_ = !lanewise_ && work.y_lanes < work.x_lanes;
    x_conv_ = planar_ ? planar_conv(conv_) : conv_;
    x_step_ = conv_[2].step / x_conv_[2].step;
    x_layout_ = BandLayout(x_conv_, bands_.rows, (bands_.pixels - 1) * x_step_ + 1);
    y_layout_ = BandLayout(outputs_, bands_.rows, bands_.pixels);
    for (const std::ptrdiff_t entry : x_layout_.entries_of_taps(x_conv_))
        tap_offset_.push_back(entry * lanes);
    taps_ = TapOrder(conv_, x_layout_, 2, lanes);
    band_count_ = layer.batch * band_count(conv_, bands_);
    x_block_size_ = static_cast<std::size_t>(x_layout_.entries * lanes);
    y_block_size_ = static_cast<std::size_t>(bands_.rows * bands_.pixels * lanes);
    const std::int64_t taps = layer.taps();
    if (lanewise_) {  // sums: [part of the bands][y block][tap in the order of taps_]
        // Parts shorten the sums and are the tasks; as many as sums of moderate size allow.
        constexpr std::int64_t sums_bytes = 32 << 20;
        const std::int64_t part_bytes = taps * lane_bytes * static_cast<std::int64_t>(ys_.blocks.size());
        const auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(band_count_)));
        parts_ = std::clamp<std::int64_t>(std::min(root, sums_bytes / std::max<std::int64_t>(1, part_bytes)), 1, 64);
        sums_size_ = static_cast<std::size_t>(parts_ * taps * lanes) * ys_.blocks.size();
        return;
    }
    runs_ = DyRuns<E>(ys_, bands_, lanes);
    if (planar_) {
        x_block_size_ = static_cast<std::size_t>(odd_lines<E>(x_layout_.entries));
        x_band_size_ = x_block_size_ * static_cast<std::size_t>(layer.in_channels);
        y_band_size_ = y_block_size_ * ys_.blocks.size();
        shape_ = best_block(kernels.direct_product, TapRuns(conv_).length, ys_.per_group);
        // Products have few rows: several of them share dy from the L1 cache.
        constexpr std::int64_t dy_bytes = 64 << 10;
        const std::int64_t row_bytes = ys_.per_group * bands_.pixels * lane_bytes;
        steps_at_once_ = static_cast<int>(std::max<std::int64_t>(1, dy_bytes / std::max<std::int64_t>(1, row_bytes)));
        products_per_task_ = 8;
    } else {
        x_band_size_ = x_block_size_ * xs_.blocks.size();
        y_band_size_ = runs_.part_size * static_cast<std::size_t>(runs_.parts * ys_.groups);
        shape_ = best_block(kernels.direct_product, runs_.part_rows, xs_.per_group);
    }
    constexpr std::int64_t chunk_bytes = 1 << 20, chunk_outputs = 1024;  // x, dy and sums in L2
    const std::int64_t band_bytes = 1 + static_cast<std::int64_t>((x_band_size_ + y_band_size_) * sizeof(E));
    bands_per_chunk_ =
        std::clamp<std::int64_t>(std::min(chunk_bytes / band_bytes, chunk_outputs / (bands_.rows * bands_.pixels)), 1,
                                 std::max<std::int64_t>(1, band_count_));
    if (planar_) {  // sums: [input channel][y block of the group][tap]
        block_stride_ = odd_lines<E>(taps * lanes);
        sums_size_ = static_cast<std::size_t>(layer.in_channels * ys_.per_group * block_stride_);
    } else {  // sums: [x block][output channel of the group][tap]
        block_stride_ = odd_lines<E>(ys_.rows_per_group(lanes) * taps * lanes);
        sums_size_ = xs_.blocks.size() * static_cast<std::size_t>(block_stride_);
    }
    const BlockGroups groups(ceil_div(band_count_, bands_per_chunk_));
    constexpr std::size_t all_groups_bytes = 4 << 20;
    const std::size_t all_groups = static_cast<std::size_t>(groups.count) * sums_size_;
    sums_of_all_groups_ = groups.grouped && !modest && all_groups * sizeof(E) <= all_groups_bytes;
    group_sums_size_ = sums_of_all_groups_ ? all_groups : groups.grouped ? sums_size_ : 0;
}

template <class E>
DyRuns<E>::DyRuns(const LaneBlocks& blocks, const Bands& bands, int lanes)
    : per_row(std::max<std::int64_t>(1, ceil_div(bands.pixels, lanes))),
      length(static_cast<int>(ceil_div(bands.pixels, per_row))),
      tail(static_cast<int>(bands.pixels - (per_row - 1) * length)) {
    constexpr std::int64_t most_rows = 64;  // with a band's pixels about 64 KB: stays in L2 while x passes by
    parts = static_cast<int>(std::max<std::int64_t>(1, ceil_div(blocks.rows_per_group(lanes), most_rows)));
    part_blocks = std::max(1, static_cast<int>(ceil_div(blocks.per_group, parts)));
    parts = static_cast<int>(ceil_div(blocks.per_group, part_blocks));
    part_rows = blocks.row_of(part_blocks, lanes);
    stride = odd_lines<E>(static_cast<std::ptrdiff_t>(part_rows) * lanes);
    part_size = static_cast<std::size_t>(bands.rows * per_row * stride);
}

// One block of x (all samples the band's outputs read) or of dy (the band's outputs, zeros up to a full band).
template <class E>
void DirectWeightGrad<E>::read_band(const Operands<E>& operands, const BandTask& band, bool of_x, int block,
                                    E* buffer) const {
    if (of_x)
        read_samples(kernels_, operands.x, band.n, xs_.blocks[static_cast<std::size_t>(block)], conv_, x_layout_,
                     band.t, buffer);
    else
        read_samples(kernels_, operands.dy, band.n, ys_.blocks[static_cast<std::size_t>(block)], outputs_, y_layout_,
                     band.t, buffer);
}

// One lane block (planar: channel) of x to the buffer of a band.
template <class E>
void DirectWeightGrad<E>::read_x(const Operands<E>& operands, const BandTask& band, std::int64_t unit,
                                 E* buffer) const {
    const std::size_t block = static_cast<std::size_t>(unit);
    E* const to = buffer + block * x_block_size_;
    if (planar_) {
        const Index t{band.t[0], band.t[1], band.t[2] * x_step_};
        return read_plane(kernels_, operands.x, band.n, unit, x_conv_, x_layout_, t, operands.x.inner, to);
    }
    const LaneBlock* const next = block + 1 < xs_.blocks.size() ? &xs_.blocks[block + 1] : nullptr;
    read_samples(kernels_, operands.x, band.n, xs_.blocks[block], conv_, x_layout_, band.t, to, next);
}

// One lane block of dy to the buffer of a band. By runs it is "transposed": pixels are the lanes of read_row.
template <class E>
void DirectWeightGrad<E>::read_dy(const Operands<E>& operands, const BandTask& band, int block, E* buffer) const {
    if (planar_)
        return read_band(operands, band, false, block, buffer + static_cast<std::size_t>(block) * y_block_size_);
    const int lanes = kernels_.lanes, group = block / ys_.per_group, in_group = block % ys_.per_group;
    const int part = in_group / runs_.part_blocks;
    const int row_in_part = ys_.row_of(in_group, lanes) - ys_.row_of(part * runs_.part_blocks, lanes);
    const std::size_t index = static_cast<std::size_t>(block);
    const LaneBlock& y = ys_.blocks[index];
    const int next_lanes = index + 1 < ys_.blocks.size() ? ys_.blocks[index + 1].lanes : 0;  // prefetched
    const Tensor<const E>& dy = operands.dy;
    const E* const source = dy.address_of(band.n, y.channel, band.t);
    E* to = buffer + static_cast<std::size_t>(group * runs_.parts + part) * runs_.part_size + row_in_part * lanes;
    RowArgs<E> row{};
    row.lane_stride = dy.along[2];
    row.pixel_stride = dy.inner;
    row.count = y.lanes;
    for (std::int64_t r = 0; r < band.rows; ++r)
        for (std::int64_t run = 0; run < runs_.per_row; ++run, to += runs_.stride) {
            const std::int64_t pixel = run * runs_.length;
            row.lane_count = static_cast<int>(std::clamp<std::int64_t>(band.pixels - pixel, 0, runs_.length));
            row.lanes = to;
            row.source = source + r * dy.along[1] + pixel * dy.along[2];
            for (int k = 0; k < next_lanes; ++k)
                __builtin_prefetch(row.source + (y.lanes + k) * dy.inner);
            if (row.lane_count > 0)
                kernels_.read_row(row);
            else
                std::fill_n(to, y.lanes * lanes, E(0));
        }
}

template <class E>
WorkspaceNeed DirectWeightGrad<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<E>(sums_size_);
    if (lanewise_) {
        per_thread.add<E>(x_block_size_);
        per_thread.add<E>(y_block_size_);
    } else {
        fixed.add<E>(group_sums_size_);
        ArenaLayout& buffers = sums_of_all_groups_ ? per_thread : fixed;
        buffers.add<E>(x_chunk_size());
        buffers.add<E>(static_cast<std::size_t>(bands_per_chunk_) * y_band_size_);
    }
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

// Rows are a part of the output channels of a group, columns are a few lane blocks of input channels; one tap. The
// products of a part follow each other: it is read from memory once, and those of the same columns, too.
template <class E>
auto DirectWeightGrad<E>::lane_product(std::int64_t index, const E* x, const E* y, E* sums) const -> Product {
    const int lanes = kernels_.lanes;
    const std::int64_t taps = layer_.taps(), col_parts = ceil_div(xs_.per_group, shape_.cols);
    const std::int64_t tap = index % taps, col_part = index / taps % col_parts, unit = index / taps / col_parts;
    const int group = static_cast<int>(unit / runs_.parts), part = static_cast<int>(unit % runs_.parts);
    const int first = part * runs_.part_blocks, last = std::min(first + runs_.part_blocks, ys_.per_group);
    const int first_row = ys_.row_of(first, lanes), last_row = ys_.row_of(last, lanes);
    const std::int64_t first_col = col_part * xs_.per_group / col_parts;
    const std::int64_t last_col = (col_part + 1) * xs_.per_group / col_parts;
    const std::int64_t x_block = group * xs_.per_group + first_col;
    Product product{{}, last_row - first_row, static_cast<int>(last_col - first_col)};
    ProductArgs<E>& args = product.args;
    args.a = y + static_cast<std::size_t>(unit) * runs_.part_size;
    args.b = x + static_cast<std::size_t>(x_block) * x_block_size_ + tap_offset_[static_cast<std::size_t>(tap)];
    args.c = sums + x_block * block_stride_ + (first_row * taps + tap) * lanes;
    args.a_row = args.b_step = lanes;
    args.a_step = 1;
    args.c_row = taps * lanes;
    args.b_col = static_cast<std::ptrdiff_t>(x_block_size_);
    args.c_col = block_stride_;
    args.length = runs_.length;
    args.tail_length = runs_.tail;
    return product;
}

// Rows are the taps of a run, columns are lane blocks of output channels; one input channel.
template <class E>
auto DirectWeightGrad<E>::planar_product(std::int64_t index, const E* x, const E* y, E* sums) const -> Product {
    const int lanes = kernels_.lanes;
    const TapRuns runs(conv_);
    const std::int64_t channel = index / runs.count, run = index % runs.count, group = channel / layer_.in_per_group();
    const std::int64_t tap = run * runs.length;
    Product product{{}, runs.length, ys_.per_group};
    ProductArgs<E>& args = product.args;
    args.a = x + static_cast<std::size_t>(channel) * x_block_size_ + tap_offset_[static_cast<std::size_t>(tap)] / lanes;
    args.b = y + static_cast<std::size_t>(group * ys_.per_group) * y_block_size_;
    args.c = sums + channel * ys_.per_group * block_stride_ + tap * lanes;
    args.a_row = 1;
    args.a_step = x_step_;
    args.b_step = args.c_row = lanes;
    args.b_col = static_cast<std::ptrdiff_t>(y_block_size_);
    args.c_col = block_stride_;
    args.length = static_cast<int>(bands_.pixels);
    return product;
}

// The blocks of the reduction, bands [first, first + count): rows of pixels or, of dy by runs, their runs, the last run
// of each row, which may be shorter, behind all others.
template <class E>
auto DirectWeightGrad<E>::find_steps(std::int64_t first, std::int64_t count) const -> Steps {
    const int lanes = kernels_.lanes;
    const std::ptrdiff_t x_entry = planar_ ? 1 : lanes;
    const std::int64_t runs = planar_ ? 1 : runs_.per_row;
    Steps steps;
    const auto add = [&](std::int64_t first_run, std::int64_t last_run) {
        for (std::int64_t b = 0; b < count; ++b)
            for (std::int64_t r = 0; r < band_at(first + b).rows; ++r)
                for (std::int64_t run = first_run; run < last_run; ++run) {
                    steps.y.push_back(b * static_cast<std::ptrdiff_t>(y_band_size_) +
                                      (planar_ ? r * bands_.pixels * lanes : (r * runs + run) * runs_.stride));
                    steps.x.push_back(b * static_cast<std::ptrdiff_t>(x_band_size_) +
                                      (r * x_layout_.pixels + run * runs_.length) * x_entry);
                }
    };
    add(0, runs - 1);
    if (planar_ || runs_.tail == runs_.length) add(runs - 1, runs);
    steps.full = static_cast<int>(steps.y.size());
    if (!planar_ && runs_.tail < runs_.length) add(runs - 1, runs);
    return steps;
}

// Products [begin, end), taken together through steps_at_once_ blocks of the reduction after another.
template <class E>
void DirectWeightGrad<E>::multiply(std::int64_t begin, std::int64_t end, const E* x, const E* y, const Steps& steps,
                                   bool accumulate, E* sums) const {
    std::vector<Product> products;
    for (std::int64_t i = begin; i < end; ++i)
        products.push_back(planar_ ? planar_product(i, x, y, sums) : lane_product(i, x, y, sums));
    const int blocks = static_cast<int>(steps.y.size()), at_once = planar_ ? steps_at_once_ : blocks;
    for (int first = 0; first < blocks; first += at_once)
        for (const Product& product : products) {
            ProductArgs<E> args = product.args;
            args.a_offset = (planar_ ? steps.x : steps.y).data() + first;
            args.b_offset = (planar_ ? steps.y : steps.x).data() + first;
            args.blocks = std::min(at_once, blocks - first);
            args.full_blocks = std::clamp(steps.full - first, 0, args.blocks);
            args.accumulate = accumulate || first > 0;
            multiply_lines(kernels_, shape_, args, {}, product.rows, product.cols);
        }
}

// All threads of the runner read the bands of a chunk, then share its products.
template <class E>
void DirectWeightGrad<E>::run_chunk(const Operands<E>& operands, const Runner& runner, int slots, std::int64_t chunk,
                                    bool accumulate, const Buffers& buffers, E* sums) const {
    const std::int64_t x_units = planar_ ? layer_.in_channels : static_cast<std::int64_t>(xs_.blocks.size());
    const std::int64_t y_blocks = static_cast<std::int64_t>(ys_.blocks.size());
    const std::int64_t first = chunk * bands_per_chunk_, count = std::min(bands_per_chunk_, band_count_ - first);
    runner(count * (x_units + y_blocks), [&](std::int64_t i, int) {
        const std::int64_t b = i % count, unit = i / count;
        const BandTask band = band_at(first + b);
        if (unit < x_units)
            read_x(operands, band, unit, buffers.x + static_cast<std::size_t>(b) * x_band_size_);
        else
            read_dy(operands, band, static_cast<int>(unit - x_units),
                    buffers.y + static_cast<std::size_t>(b) * y_band_size_);
    });
    const Steps steps = find_steps(first, count);
    const std::int64_t products = planar_
                                      ? layer_.in_channels * TapRuns(conv_).count
                                      : layer_.taps() * ceil_div(xs_.per_group, shape_.cols) * runs_.parts * ys_.groups;
    const std::int64_t per_task = std::min<std::int64_t>(products_per_task_, ceil_div(products, std::int64_t{slots}));
    runner(ceil_div(products, per_task), [&](std::int64_t i, int) {
        multiply(i * per_task, std::min(products, (i + 1) * per_task), buffers.x, buffers.y, steps, accumulate, sums);
    });
}

// Bands are taken in chunks, these in groups with sums of their own, which are added up in order. Threads take groups where
// that keeps all of them busy, else they share the work within each chunk: the same sums.
template <class E>
void DirectWeightGrad<E>::run_matrix(const Operands<E>& operands, int slots, char* workspace) const {
    const WorkspaceNeed need = this->workspace();
    const std::int64_t chunks = ceil_div(band_count_, bands_per_chunk_);
    const BlockGroups groups(chunks);
    ArenaLayout layout;
    layout.add<E>(sums_size_);
    E* const sums = reinterpret_cast<E*>(workspace);
    E* const group_sums = groups.grouped ? reinterpret_cast<E*>(workspace + layout.add<E>(group_sums_size_)) : sums;
    char* const fixed_buffers = workspace + layout.size();
    const auto run_group = [&](std::int64_t group, const Runner& runner, int group_slots, char* memory, E* to) {
        ArenaLayout arena;
        E* const x = reinterpret_cast<E*>(memory + arena.add<E>(x_chunk_size()));
        const Buffers buffers{x, reinterpret_cast<E*>(memory + arena.size())};
        const std::int64_t first = group * groups.size, last = std::min(chunks, first + groups.size);
        for (std::int64_t chunk = first; chunk < last; ++chunk)
            run_chunk(operands, runner, group_slots, chunk, chunk > first, buffers, to);
    };
    if (sums_of_all_groups_ && keeps_busy(groups.count, slots)) {
        parallel_for(groups.count, slots, [&](std::int64_t group, int slot) {
            run_group(group, serial_runner(slot), 1, workspace + need.fixed + need.per_thread * slot,
                      group_sums + static_cast<std::size_t>(group) * sums_size_);
        });
        for (std::int64_t group = 0; group < groups.count; ++group)
            add_group(sums, group_sums + static_cast<std::size_t>(group) * sums_size_, sums_size_, group == 0, slots);
        return;
    }
    for (std::int64_t group = 0; group < groups.count; ++group) {
        run_group(group, parallel_runner(slots), slots, fixed_buffers, group_sums);
        if (groups.grouped) add_group(sums, group_sums, sums_size_, group == 0, slots);
    }
}

// Tasks: a lane block of dy and a part of the bands, whose sums are added up in order afterwards.
template <class E>
void DirectWeightGrad<E>::run_lanewise(const Operands<E>& operands, int slots, char* workspace) const {
    const int lanes = kernels_.lanes;
    const WorkspaceNeed need = this->workspace();
    const std::int64_t y_blocks = static_cast<std::int64_t>(ys_.blocks.size());
    const std::int64_t sums_of_block = static_cast<std::int64_t>(tap_offset_.size()) * lanes;
    E* const sums = reinterpret_cast<E*>(workspace);
    parallel_for(parts_ * y_blocks, slots, [&](std::int64_t i, int slot) {
        const std::int64_t part = i / y_blocks;
        const int y_block = static_cast<int>(i % y_blocks), x_block = y_block / ys_.per_group;
        E* const x_buffer = reinterpret_cast<E*>(workspace + need.fixed + need.per_thread * slot);
        ArenaLayout thread;
        thread.add<E>(x_block_size_);
        E* const y_buffer = reinterpret_cast<E*>(reinterpret_cast<char*>(x_buffer) + thread.size());
        DepthwiseArgs<E> args{};
        args.out = sums + i * sums_of_block;
        std::fill_n(args.out, sums_of_block, E(0));
        args.runs = taps_.runs.data();
        args.run_count = static_cast<int>(taps_.runs.size());
        args.in_step = args.dy_step = taps_.hop * lanes;
        const std::int64_t first = part * band_count_ / parts_;
        const std::int64_t last = (part + 1) * band_count_ / parts_;
        for (std::int64_t b = first; b < last; ++b) {
            const BandTask band = band_at(b);
            if (band.rows == 0 || band.pixels == 0) continue;
            read_band(operands, band, true, x_block, x_buffer);
            read_band(operands, band, false, y_block, y_buffer);
            for (std::int64_t r = 0; r < band.rows; ++r)
                for (std::int64_t first = 0; first < std::min(taps_.hop, band.pixels); ++first) {
                    args.in = x_buffer + (r * x_layout_.pixels + first) * lanes;
                    args.dy = y_buffer + (r * bands_.pixels + first) * lanes;
                    args.count = ceil_div(band.pixels - first, taps_.hop);
                    kernels_.depthwise_weight_grad(args);
                }
        }
    });
    const std::int64_t total = y_blocks * sums_of_block;
    for (std::int64_t part = 1; part < parts_; ++part)
        for (std::int64_t i = 0; i < total; ++i)
            sums[i] += sums[part * total + i];
}

namespace {

// The taps of a kernel, in order, that are a constant stride apart: of its rows, often of all of them.
struct TapLine {
    std::int64_t count = 1;
    std::ptrdiff_t stride = 1;
};

TapLine first_tap_line(const Index& kernel, const std::array<std::ptrdiff_t, axes>& along) {
    TapLine line;
    for (int a = axes; a-- > 0;) {
        if (kernel[a] == 1) continue;
        if (line.count == 1)
            line.stride = along[a];
        else if (along[a] != line.count * line.stride)
            break;
        line.count *= kernel[a];
    }
    return line;
}

}  // namespace

// Sums to dw; the number of (x block, y block) pairs computed again.
template <class E>
std::int64_t DirectWeightGrad<E>::write(const Operands<E>& operands, E* sums, int slots) const {
    const int lanes = kernels_.lanes;
    const std::int64_t taps = layer_.taps();
    const Index kernel = layer_.kernel_extent();
    const Tensor<E>& dw = operands.dw;
    const TapLine line = first_tap_line(kernel, dw.along);
    std::vector<std::int64_t> recomputed(static_cast<std::size_t>(slots), 0);
    parallel_for(static_cast<std::int64_t>(ys_.blocks.size()) * xs_.per_group, slots, [&](std::int64_t i, int slot) {
        const int y_block = static_cast<int>(i / xs_.per_group), group = y_block / ys_.per_group;
        const int x_block = group * xs_.per_group + static_cast<int>(i % xs_.per_group);
        const LaneBlock& x = xs_.blocks[static_cast<std::size_t>(x_block)];
        const LaneBlock& y = ys_.blocks[static_cast<std::size_t>(y_block)];
        const std::int64_t x_channel = x.channel % layer_.in_per_group();
        const int y_in_group = y_block % ys_.per_group;
        bool non_finite = false;
        const auto write = [&](RowArgs<E>& row, std::int64_t k, std::int64_t c, std::int64_t tap, E* from) {
            row.destination = dw.address_of(y.channel + k, x_channel + c, unravel(tap, kernel));
            row.lanes = from;
            non_finite = kernels_.write_row(row) || non_finite;
        };
        RowArgs<E> row{};
        row.pixel_stride = line.stride;  // "pixels" are taps
        row.count = line.count;
        if (lanewise_) {
            row.lane_stride = dw.outer * y.channel_step;
            row.lane_count = y.lanes;
            row.count = 1;
            for (std::int64_t i = 0; i < taps; ++i)
                write(row, 0, 0, taps_.taps[static_cast<std::size_t>(i)], sums + (y_block * taps + i) * lanes);
        } else if (planar_) {
            row.lane_stride = dw.outer;
            row.lane_count = y.lanes;
            for (int c = 0; c < x.lanes; ++c) {
                E* const from = sums + ((x.channel + c) * ys_.per_group + y_in_group) * block_stride_;
                for (std::int64_t tap = 0; tap < taps; tap += line.count)
                    write(row, 0, c, tap, from + tap * lanes);
            }
        } else {
            E* const from = sums + x_block * block_stride_ + ys_.row_of(y_in_group, lanes) * taps * lanes;
            row.lane_stride = dw.inner;
            row.lane_count = x.lanes;
            if (taps == 1) {  // or output channels
                row.pixel_stride = dw.outer;
                row.count = y.lanes;
                write(row, 0, 0, 0, from);
            } else {
                for (int k = 0; k < y.lanes; ++k)
                    for (std::int64_t tap = 0; tap < taps; tap += line.count)
                        write(row, k, 0, tap, from + (k * taps + tap) * lanes);
            }
        }
        if (!non_finite) return;
        ++recomputed[static_cast<std::size_t>(slot)];
        recompute_weight_grad(layer_, operands, x, y, lanewise_, {0, 0, 0}, {1, 1, 1});
    });
    std::int64_t total = 0;
    for (std::int64_t count : recomputed)
        total += count;
    return total;
}

template <class E>
RunCounts DirectWeightGrad<E>::compute(const Operands<E>& operands, int slots, char* workspace, Damage&) const {
    if (lanewise_)
        run_lanewise(operands, slots, workspace);
    else
        run_matrix(operands, slots, workspace);
    return {0, write(operands, reinterpret_cast<E*>(workspace), slots)};
}

template class DirectWeightGrad<float>;
template class DirectWeightGrad<double>;

}  // namespace triconv
