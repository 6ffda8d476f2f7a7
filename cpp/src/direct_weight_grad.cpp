#include <algorithm>
#include <cmath>

#include "direct_pass.h"
#include "parallel.h"
#include "workspace.h"

namespace triconv {

template <class E>
struct DirectWeightGrad<E>::Band {
    std::int64_t n;
    Index t;
    std::int64_t rows, pixels;
};

template <class E>
DirectWeightGrad<E>::DirectWeightGrad(const KernelTable<E>& kernels, const Layer& layer)
    : kernels_(kernels),
      layer_(layer),
      lanewise_(use_lanewise(layer, kernels.lanes)),
      xs_(input_blocks(layer, kernels.lanes, lanewise_, false)),
      ys_(output_blocks(layer, kernels.lanes, lanewise_)),
      conv_(forward_conv(layer)) {
    const int lanes = kernels.lanes;
    const std::int64_t lane_bytes = lanes * static_cast<std::int64_t>(sizeof(E));
    bands_ = lanewise_ ? cut_bands(conv_, lane_bytes, 1024) : cut_bands(conv_, lane_bytes * xs_.per_group);
    outputs_ = conv_;
    for (DenseAxis& axis : outputs_)
        axis = {axis.target, axis.target, axis.begin, axis.end, 1, 1, 1, 0, 1};
    x_layout_ = BandLayout(conv_, bands_.rows, bands_.pixels);
    y_layout_ = BandLayout(outputs_, bands_.rows, bands_.pixels);
    for (std::int64_t tap = 0; tap < layer.taps(); ++tap) {
        const Index at = unravel(tap, {conv_[0].taps, conv_[1].taps, conv_[2].taps});
        tap_offset_.push_back(x_layout_.entry_of_tap(conv_, at) * lanes);
    }
    taps_ = TapOrder(conv_, x_layout_, 2, lanes);
    band_count_ = layer.batch * layer.axis[0].out * bands_.bands_y * bands_.bands_x;
    x_block_size_ = static_cast<std::size_t>(x_layout_.entries * lanes);
    y_block_size_ = static_cast<std::size_t>(bands_.rows * bands_.pixels * lanes);
    const std::int64_t taps = layer.taps();
    if (lanewise_) {  // sums: [part of the bands][y block][tap in the order of taps_]
        // Parts shorten the sums and are the tasks; as many as sums of moderate size allow.
        constexpr std::int64_t sums_bytes = 32 << 20;
        const std::int64_t part_bytes = taps * lane_bytes * static_cast<std::int64_t>(ys_.blocks.size());
        const auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(band_count_)));
        parts_ = std::clamp<std::int64_t>(std::min(root, sums_bytes / part_bytes), 1, 64);
        sums_size_ = static_cast<std::size_t>(parts_ * taps * lanes) * ys_.blocks.size();
        return;
    }
    planar_ = prefers_planes();
    if (planar_) x_block_size_ = static_cast<std::size_t>(odd_lines<E>(x_layout_.entries));
    const std::size_t x_units = planar_ ? static_cast<std::size_t>(layer.in_channels) : xs_.blocks.size();
    x_band_size_ = x_block_size_ * x_units;
    y_band_size_ = y_block_size_ * ys_.blocks.size();
    constexpr std::int64_t chunk_bytes = 1 << 20, chunk_outputs = 1024;  // x, dy and sums in L2
    const std::int64_t band_bytes = 1 + static_cast<std::int64_t>((x_band_size_ + y_band_size_) * sizeof(E));
    bands_per_chunk_ =
        std::clamp<std::int64_t>(std::min(chunk_bytes / band_bytes, chunk_outputs / (bands_.rows * bands_.pixels)), 1,
                                 std::max<std::int64_t>(1, band_count_));
    if (planar_) {  // sums: [input channel][y block of the group][tap]
        block_stride_ = odd_lines<E>(taps * lanes);
        sums_size_ = static_cast<std::size_t>(layer.in_channels * ys_.per_group * block_stride_);
    } else {  // sums: [tap][x block][output channel of the group]
        block_stride_ = odd_lines<E>(static_cast<std::ptrdiff_t>(ys_.rows_per_group(lanes)) * lanes);
        tap_stride_ = odd_lines<E>(static_cast<std::ptrdiff_t>(xs_.blocks.size()) * block_stride_);
        sums_size_ = static_cast<std::size_t>(taps * tap_stride_);
    }
    group_size_ = BlockGroups(ceil_div(band_count_, bands_per_chunk_)).grouped ? sums_size_ : 0;
}

// Taps of one row of the kernel that read neighbouring entries of the buffer.
template <class E>
auto DirectWeightGrad<E>::tap_runs() const -> TapRuns {
    const DenseAxis& x = conv_[2];
    const std::int64_t apart = x.step % x.tap_step == 0 ? std::min(x.step / x.tap_step, x.taps) : x.taps;
    return {apart, conv_[0].taps * conv_[1].taps * apart};
}

// Cycles per output, estimated, with input channels in the lanes and with output channels there.
template <class E>
bool DirectWeightGrad<E>::prefers_planes() const {
    const int lanes = kernels_.lanes;
    const TapRuns runs = tap_runs();
    const double with_x_lanes =
        static_cast<double>(layer_.taps() * ys_.per_group) *
        best_block(kernels_.direct_product, std::min(lanes, ys_.rows_per_group(lanes)), xs_.per_group).cycles;
    const double with_y_lanes =
        static_cast<double>(layer_.in_per_group() * runs.count) *
        best_block(kernels_.direct_product, ceil_div(conv_[2].taps, runs.apart), ys_.per_group).cycles;
    return with_y_lanes < with_x_lanes;
}

template <class E>
auto DirectWeightGrad<E>::band_at(std::int64_t index) const -> Band {
    const Index extent{layer_.axis[0].out, bands_.bands_y, bands_.bands_x};
    const std::int64_t per_image = extent[0] * extent[1] * extent[2];
    const Index at = unravel(index % per_image, extent);
    Band band{index / per_image, {at[0], at[1] * bands_.rows, at[2] * bands_.pixels}, 0, 0};
    band.rows = std::clamp<std::int64_t>(layer_.axis[1].out - band.t[1], 0, bands_.rows);
    band.pixels = std::clamp<std::int64_t>(layer_.axis[2].out - band.t[2], 0, bands_.pixels);
    return band;
}

// One block of x (all samples the band's outputs read) or of dy (the band's outputs, zeros up to a full band).
template <class E>
void DirectWeightGrad<E>::read_band(const Operands<E>& operands, const Band& band, bool of_x, int block,
                                    E* buffer) const {
    if (of_x)
        read_samples(kernels_, operands.x, band.n, xs_.blocks[static_cast<std::size_t>(block)], conv_, x_layout_,
                     band.t, buffer);
    else
        read_samples(kernels_, operands.dy, band.n, ys_.blocks[static_cast<std::size_t>(block)], outputs_, y_layout_,
                     band.t, buffer);
}

template <class E>
WorkspaceNeed DirectWeightGrad<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<E>(sums_size_);
    if (lanewise_) {
        per_thread.add<E>(x_block_size_);
        per_thread.add<E>(y_block_size_);
    } else {
        fixed.add<E>(group_size_);
        fixed.add<E>(static_cast<std::size_t>(bands_per_chunk_) * x_band_size_);
        fixed.add<E>(static_cast<std::size_t>(bands_per_chunk_) * y_band_size_);
    }
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

// Rows are output channels, columns are lane blocks of input channels; one tap.
template <class E>
auto DirectWeightGrad<E>::lane_product(std::int64_t index, const E* x, const E* y, E* sums) const -> Product {
    const int lanes = kernels_.lanes;
    const std::int64_t y_blocks = static_cast<std::int64_t>(ys_.blocks.size()), tap = index / y_blocks;
    const int y_block = static_cast<int>(index % y_blocks), group = y_block / ys_.per_group;
    Product product{{}, ys_.blocks[static_cast<std::size_t>(y_block)].lanes, xs_.per_group};
    ProductArgs<E>& args = product.args;
    args.a = y + static_cast<std::size_t>(y_block) * y_block_size_;
    args.b = x + static_cast<std::size_t>(group * xs_.per_group) * x_block_size_ +
             tap_offset_[static_cast<std::size_t>(tap)];
    args.c = sums + tap * tap_stride_ + group * xs_.per_group * block_stride_ +
             ys_.row_of(y_block % ys_.per_group, lanes) * lanes;
    args.a_row = 1;
    args.a_step = args.b_step = args.c_row = lanes;
    args.b_col = static_cast<std::ptrdiff_t>(x_block_size_);
    args.c_col = block_stride_;
    return product;
}

// Rows are the taps of a run, columns are lane blocks of output channels; one input channel.
template <class E>
auto DirectWeightGrad<E>::planar_product(std::int64_t index, const E* x, const E* y, E* sums) const -> Product {
    const int lanes = kernels_.lanes;
    const TapRuns runs = tap_runs();
    const std::int64_t channel = index / runs.count, run = index % runs.count, group = channel / layer_.in_per_group();
    const std::int64_t in_row = run % runs.apart, tap = run / runs.apart * conv_[2].taps + in_row;
    Product product{{}, static_cast<int>(ceil_div(conv_[2].taps - in_row, runs.apart)), ys_.per_group};
    ProductArgs<E>& args = product.args;
    args.a = x + static_cast<std::size_t>(channel) * x_block_size_ + tap_offset_[static_cast<std::size_t>(tap)] / lanes;
    args.b = y + static_cast<std::size_t>(group * ys_.per_group) * y_block_size_;
    args.c = sums + channel * ys_.per_group * block_stride_ + tap * lanes;
    args.a_row = args.a_step = 1;
    args.b_step = lanes;
    args.b_col = static_cast<std::ptrdiff_t>(y_block_size_);
    args.c_row = runs.apart * lanes;
    args.c_col = block_stride_;
    return product;
}

// Bands are taken in chunks: all threads read a chunk, then share its products.
template <class E>
void DirectWeightGrad<E>::run_matrix(const Operands<E>& operands, int slots, char* workspace) const {
    const std::int64_t x_units = planar_ ? layer_.in_channels : static_cast<std::int64_t>(xs_.blocks.size());
    const std::int64_t y_blocks = static_cast<std::int64_t>(ys_.blocks.size());
    ArenaLayout layout;
    layout.add<E>(sums_size_);
    E* const sums = reinterpret_cast<E*>(workspace);
    E* const group_sums = group_size_ ? reinterpret_cast<E*>(workspace + layout.add<E>(group_size_)) : sums;
    const std::int64_t chunks = ceil_div(band_count_, bands_per_chunk_);
    const BlockGroups groups(chunks);
    E* const x_buffer =
        reinterpret_cast<E*>(workspace + layout.add<E>(static_cast<std::size_t>(bands_per_chunk_) * x_band_size_));
    E* const y_buffer = reinterpret_cast<E*>(workspace + layout.size());
    const std::ptrdiff_t x_row = x_layout_.pixels * (planar_ ? 1 : kernels_.lanes);
    const std::int64_t products = planar_ ? layer_.in_channels * tap_runs().count : layer_.taps() * y_blocks;

    std::vector<std::ptrdiff_t> y_rows, x_rows;
    for (std::int64_t first = 0; first < band_count_; first += bands_per_chunk_) {
        const std::int64_t count = std::min(bands_per_chunk_, band_count_ - first), chunk = first / bands_per_chunk_;
        parallel_for(count * (x_units + y_blocks), slots, [&](std::int64_t i, int) {
            const std::int64_t b = i / (x_units + y_blocks), unit = i % (x_units + y_blocks);
            const Band band = band_at(first + b);
            const bool of_x = unit < x_units;
            const std::size_t at = static_cast<std::size_t>(of_x ? unit : unit - x_units);
            E* const to = of_x ? x_buffer + static_cast<std::size_t>(b) * x_band_size_ + at * x_block_size_
                               : y_buffer + static_cast<std::size_t>(b) * y_band_size_ + at * y_block_size_;
            if (of_x && planar_)
                read_plane(operands.x, band.n, unit, conv_, x_layout_, band.t, to);
            else
                read_band(operands, band, of_x, static_cast<int>(at), to);
        });
        // Reduction blocks: the rows of the chunk's bands.
        y_rows.clear();
        x_rows.clear();
        for (std::int64_t b = 0; b < count; ++b)
            for (std::int64_t r = 0; r < band_at(first + b).rows; ++r) {
                y_rows.push_back(b * static_cast<std::ptrdiff_t>(y_band_size_) + r * bands_.pixels * kernels_.lanes);
                x_rows.push_back(b * static_cast<std::ptrdiff_t>(x_band_size_) + r * x_row);
            }
        parallel_for(products, slots, [&](std::int64_t i, int) {
            Product product = planar_ ? planar_product(i, x_buffer, y_buffer, group_sums)
                                      : lane_product(i, x_buffer, y_buffer, group_sums);
            ProductArgs<E>& args = product.args;
            args.a_offset = planar_ ? x_rows.data() : y_rows.data();
            args.b_offset = planar_ ? y_rows.data() : x_rows.data();
            args.blocks = args.full_blocks = static_cast<int>(y_rows.size());
            args.length = static_cast<int>(bands_.pixels);
            args.accumulate = !groups.starts(chunk);
            const BlockShape shape = best_block(kernels_.direct_product, product.rows, product.cols);
            multiply_lines(kernels_, shape, args, {}, product.rows, product.cols);
        });
        if (groups.ends(chunk, chunks)) add_group(sums, group_sums, sums_size_, chunk < groups.size, slots);
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
            const Band band = band_at(b);
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

// Sums to dw; the number of (x block, y block) pairs computed again.
template <class E>
std::int64_t DirectWeightGrad<E>::write(const Operands<E>& operands, E* sums, int slots) const {
    const int lanes = kernels_.lanes;
    const std::int64_t taps = layer_.taps();
    const Index kernel{layer_.axis[0].kernel, layer_.axis[1].kernel, layer_.axis[2].kernel};
    const Tensor<E>& dw = operands.dw;
    std::vector<std::int64_t> recomputed(static_cast<std::size_t>(slots), 0);
    parallel_for(static_cast<std::int64_t>(ys_.blocks.size()) * xs_.per_group, slots, [&](std::int64_t i, int slot) {
        const int y_block = static_cast<int>(i / xs_.per_group), group = y_block / ys_.per_group;
        const int x_block = group * xs_.per_group + static_cast<int>(i % xs_.per_group);
        const LaneBlock& x = xs_.blocks[static_cast<std::size_t>(x_block)];
        const LaneBlock& y = ys_.blocks[static_cast<std::size_t>(y_block)];
        const std::int64_t x_channel = x.channel % layer_.in_per_group();
        bool non_finite = false;
        const auto write = [&](RowArgs<E>& row, std::int64_t channel, std::int64_t tap, E* from) {  // tap: row-major
            const Index r = unravel(tap, kernel);
            row.destination = dw.data + y.channel * dw.outer + channel * dw.inner + r[0] * dw.along[0] +
                              r[1] * dw.along[1] + r[2] * dw.along[2];
            row.lanes = from;
            non_finite = kernels_.write_row(row) || non_finite;
        };
        RowArgs<E> row{};
        if (planar_) {
            row.lane_stride = dw.outer;
            row.pixel_stride = dw.along[2];  // "pixels" are the taps of a kernel row
            row.lane_count = y.lanes;
            row.count = kernel[2];
            for (int l = 0; l < x.lanes; ++l) {
                const std::int64_t block = (x.channel + l) * ys_.per_group + y_block % ys_.per_group;
                for (std::int64_t tap = 0; tap < taps; tap += kernel[2])
                    write(row, x_channel + l, tap, sums + block * block_stride_ + tap * lanes);
            }
        } else {
            row.lane_stride = lanewise_ ? dw.outer * y.channel_step : dw.inner;
            row.pixel_stride = dw.outer;  // "pixels" are output channels
            row.lane_count = x.lanes;
            row.count = lanewise_ ? 1 : y.lanes;
            for (std::int64_t tap = 0; tap < taps; ++tap)
                if (lanewise_)
                    write(row, x_channel, taps_.taps[static_cast<std::size_t>(tap)],
                          sums + (y_block * taps + tap) * lanes);
                else
                    write(row, x_channel, tap,
                          sums + tap * tap_stride_ + x_block * block_stride_ +
                              ys_.row_of(y_block % ys_.per_group, lanes) * lanes);
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
RunCounts DirectWeightGrad<E>::run(const Operands<E>& operands, int max_threads) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const Workspace workspace(static_cast<std::size_t>(this->workspace().total(slots)));
    char* const base = static_cast<char*>(workspace.data());
    if (lanewise_)
        run_lanewise(operands, slots, base);
    else
        run_matrix(operands, slots, base);
    return {0, write(operands, reinterpret_cast<E*>(base), slots)};
}

template class DirectWeightGrad<float>;
template class DirectWeightGrad<double>;

}  // namespace triconv
