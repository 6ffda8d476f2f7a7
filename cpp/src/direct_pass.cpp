#include "direct_pass.h"

#include <algorithm>

#include "parallel.h"
#include "reference.h"
#include "workspace.h"

namespace triconv {

std::int64_t DenseAxis::first_sample(std::int64_t t) const {
    return t * step + std::min<std::int64_t>(0, (taps - 1) * tap_step);
}
std::int64_t DenseAxis::samples(std::int64_t count) const {
    const std::int64_t span = (taps - 1) * (tap_step < 0 ? -tap_step : tap_step);
    return (count - 1) * step + span + 1;
}

namespace {

DenseConv forward_conv(const Layer& layer) {
    DenseConv conv;
    for (int i = 0; i < axes; ++i) {
        const Axis& a = layer.axis[i];
        conv[i] = {{-a.pad, 1, a.in}, {0, 1, a.out}, 0, a.out, a.stride, a.dilation, a.kernel, 0, 1};
    }
    return conv;
}

// One for each pair of phases that meet any sample of x.
std::vector<DenseConv> input_grad_convs(const Layer& layer) {
    Index phases;
    for (int i = 0; i < axes; ++i)
        phases[i] = layer.axis[i].output_phases * layer.axis[i].kernel_phases;
    std::vector<DenseConv> convs;
    for (std::int64_t index = 0; index < phases[0] * phases[1] * phases[2]; ++index) {
        const Index phase = unravel(index, phases);
        DenseConv conv;
        bool empty = false;
        for (int i = 0; i < axes; ++i) {
            const Axis& a = layer.axis[i];
            const std::int64_t rho = phase[i] / a.kernel_phases, phi = phase[i] % a.kernel_phases;
            DenseAxis& d = conv[i];
            d = {output_grid(a, rho), input_grid(a, rho, phi), 0, 0, 1, -1, a.taps_of(phi), phi, a.tap_step};
            const std::int64_t outputs = ceil_div(a.out - rho, a.out_step);
            d.target.clip(0, outputs + d.taps - 1, d.begin, d.end);
            empty = empty || d.begin >= d.end;
        }
        if (!empty) convs.push_back(conv);
    }
    return convs;
}

std::int64_t product_of(std::int64_t DenseAxis::* field, const DenseConv& conv) {
    return conv[0].*field * (conv[1].*field) * (conv[2].*field);
}

// Brings the samples read by a box of outputs at (z, y, x) into [z tap][row][pixel] lane vectors.
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

std::int64_t samples_per_block(const DenseConv& conv, std::int64_t rows, std::int64_t pixels) {
    return conv[0].taps * conv[1].samples(rows) * conv[2].samples(pixels);
}

// Offset of each tap in the buffer of read_samples, in elements; taps in row-major order.
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

}  // namespace

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

// ---- forward and input_grad -----------------------------------------------------------------------------------------

template <class E>
struct DirectPass<E>::Task {
    std::int64_t n;
    int group;
    Index t;  // first output
    std::int64_t rows, pixels;
};

template <class E>
DirectPass<E>::DirectPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass)
    : kernels_(kernels), layer_(layer), pass_(pass), lanewise_(use_lanewise(layer, kernels.lanes)) {
    const LaneBlocks xs = input_blocks(layer, kernels.lanes, lanewise_, false);
    const LaneBlocks ys = output_blocks(layer, kernels.lanes, lanewise_);
    sources_ = pass == Pass::forward ? xs : ys;
    targets_ = pass == Pass::forward ? ys : xs;
    const std::vector<DenseConv> convs =
        pass == Pass::forward ? std::vector<DenseConv>{forward_conv(layer)} : input_grad_convs(layer);
    std::int64_t most_taps = 0, covered = 0;
    for (const DenseConv& conv : convs) {
        subs_.push_back(make_sub_problem(conv));
        most_taps = std::max(most_taps, product_of(&DenseAxis::taps, conv));
        buffer_size_ = std::max(buffer_size_, subs_.back().buffer_size);
        sums_size_ = std::max(sums_size_, subs_.back().sums_size);
        covered += (conv[0].end - conv[0].begin) * (conv[1].end - conv[1].begin) * (conv[2].end - conv[2].begin);
    }
    covers_output_ = pass == Pass::forward || covered == layer.inputs();
    const std::int64_t rows = lanewise_ ? sources_.per_group : sources_.rows_per_group(kernels.lanes);
    panel_stride_ = odd_lines<E>(rows * most_taps * kernels.lanes);
    panels_size_ = targets_.blocks.size() * static_cast<std::size_t>(panel_stride_);
}

template <class E>
auto DirectPass<E>::make_sub_problem(const DenseConv& conv) const -> SubProblem {
    const int lanes = kernels_.lanes;
    SubProblem sub;
    sub.conv = conv;
    sub.bands = cut_bands(conv, sources_.per_group, lanes * static_cast<std::int64_t>(sizeof(E)));
    const std::int64_t block_size = samples_per_block(conv, sub.bands.rows, sub.bands.pixels) * lanes;
    const std::vector<std::ptrdiff_t> taps = tap_offsets(conv, sub.bands.rows, sub.bands.pixels, lanes);
    const std::int64_t tap_count = static_cast<std::int64_t>(taps.size());
    // Reduction order: block by block, the ones with all lanes in use first (LaneBlocks), every tap of a block together.
    for (int block = 0; block < sources_.per_group; ++block)
        for (std::int64_t tap = 0; tap < tap_count; ++tap) {
            const int used = block < sources_.full_per_group ? lanes : sources_.tail_lanes;
            sub.a_offset.push_back(block * block_size + taps[static_cast<std::size_t>(tap)]);
            sub.b_offset.push_back((sources_.row_of(block, lanes) * tap_count + tap * used) * lanes);
        }
    sub.buffer_size = static_cast<std::size_t>(sources_.per_group * block_size);
    sub.sums_size = static_cast<std::size_t>(targets_.per_group) *
                    static_cast<std::size_t>(odd_lines<E>(sub.bands.rows * sub.bands.pixels * lanes));
    return sub;
}

template <class E>
WorkspaceNeed DirectPass<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<E>(panels_size_);
    fixed.add<E>(targets_.blocks.size() * static_cast<std::size_t>(kernels_.lanes));  // bias
    per_thread.add<E>(buffer_size_);
    per_thread.add<E>(sums_size_);
    per_thread.add<E>(sums_size_);  // partial
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

// Panels: for each target block, one row of lane vectors for each (source block, tap, source lane), in the order of
// the reduction. Lane-wise: one row for each (source block, tap).
template <class E>
void DirectPass<E>::pack_weights(const Tensor<const E>& w, const SubProblem& sub, E* panels, int max_threads) const {
    const int lanes = kernels_.lanes;
    const DenseConv& conv = sub.conv;
    const std::int64_t tap_count = product_of(&DenseAxis::taps, conv);
    const bool to_input = pass_ == Pass::input_grad;
    parallel_for(static_cast<std::int64_t>(targets_.blocks.size()), max_threads, [&](std::int64_t i, int) {
        const LaneBlock& target = targets_.blocks[static_cast<std::size_t>(i)];
        const std::int64_t group = i / targets_.per_group;
        for (int s = 0; s < sources_.per_group; ++s) {
            const LaneBlock& source = sources_.blocks[static_cast<std::size_t>(group * sources_.per_group + s)];
            const LaneBlock& x = to_input ? target : source;
            const LaneBlock& y = to_input ? source : target;
            const std::ptrdiff_t start = y.channel * w.outer + x.channel % layer_.in_per_group() * w.inner;
            RowArgs<E> row{};
            row.lane_stride = lanewise_ || !to_input ? w.outer * y.channel_step : w.inner;
            row.pixel_stride = to_input ? w.outer : w.inner;  // "pixels" are the source's lanes
            row.lane_count = target.lanes;
            row.count = lanewise_ ? 1 : source.lanes;
            for (std::int64_t tap = 0; tap < tap_count; ++tap) {
                const Index q = unravel(tap, {conv[0].taps, conv[1].taps, conv[2].taps});
                row.source = w.data + start;
                for (int a = 0; a < axes; ++a)
                    row.source += (conv[a].first_tap + q[a] * conv[a].tap_stride) * w.along[a];
                row.lanes = panels + i * panel_stride_ +
                            (lanewise_ ? (s * tap_count + tap) * lanes
                                       : sub.b_offset[static_cast<std::size_t>(s * tap_count + tap)]);
                kernels_.read_row(row);
            }
        }
    });
}

template <class E>
void DirectPass<E>::compute_band(const SubProblem& sub, const Task& task, const E* panels, const E* buffer, E* sums,
                                 E* partial) const {
    const int lanes = kernels_.lanes;
    const DenseConv& conv = sub.conv;
    // The buffer is laid out for full bands; a band at the edge uses a part of it.
    const std::int64_t width = conv[2].samples(sub.bands.pixels);
    const std::ptrdiff_t row_step = conv[1].step * width * lanes, pixel_step = conv[2].step * lanes;
    const std::ptrdiff_t sums_stride = odd_lines<E>(sub.bands.rows * sub.bands.pixels * lanes);
    const E* const group_panels = panels + task.group * targets_.per_group * panel_stride_;
    if (lanewise_) {
        const std::int64_t taps = product_of(&DenseAxis::taps, conv);
        for (int target = 0; target < targets_.per_group; ++target)
            for (int source = 0; source < sources_.per_group; ++source)
                for (std::int64_t r = 0; r < task.rows; ++r) {
                    DepthwiseArgs<E> args{};
                    args.in = buffer + r * row_step;
                    args.w = group_panels + target * panel_stride_ + source * taps * lanes;
                    args.out = sums + target * sums_stride + r * sub.bands.pixels * lanes;
                    args.tap_offset = sub.a_offset.data() + source * taps;
                    args.taps = static_cast<int>(taps);
                    args.in_step = pixel_step;
                    args.count = task.pixels;
                    args.accumulate = source > 0;
                    kernels_.depthwise_forward(args);
                }
        return;
    }
    ProductArgs<E> args{};
    args.a_offset = sub.a_offset.data();
    args.b_offset = sub.b_offset.data();
    args.blocks = static_cast<int>(sub.a_offset.size());
    args.full_blocks = sources_.full_per_group * static_cast<int>(product_of(&DenseAxis::taps, conv));
    args.length = lanes;
    args.tail_length = sources_.tail_lanes;
    args.a_row = pixel_step;
    args.a_step = 1;
    args.b_step = lanes;
    args.b_col = panel_stride_;
    args.c_row = lanes;
    args.c_col = sums_stride;
    args.b = group_panels;
    for (std::int64_t r = 0; r < task.rows; ++r) {
        args.a = buffer + r * row_step;
        args.c = sums + r * sub.bands.pixels * lanes;
        multiply_blocks(kernels_.product[static_cast<int>(ProductKind::real)], args, static_cast<int>(task.pixels),
                        targets_.per_group, lanes, partial);
    }
}

template <class E>
void DirectPass<E>::write_band(const Operands<E>& operands, const SubProblem& sub, const Task& task, const E* bias,
                               E* sums, std::vector<DamagedBox>& damage) const {
    const Tensor<E>& to = pass_ == Pass::forward ? operands.y : operands.dx;
    const DenseConv& conv = sub.conv;
    const int lanes = kernels_.lanes;
    const std::ptrdiff_t sums_stride = odd_lines<E>(sub.bands.rows * sub.bands.pixels * lanes);
    for (int target = 0; target < targets_.per_group; ++target) {
        const int block_index = task.group * targets_.per_group + target;
        const LaneBlock& block = targets_.blocks[static_cast<std::size_t>(block_index)];
        RowArgs<E> row{};
        row.lane_stride = to.inner * block.channel_step;
        row.pixel_stride = to.along[2] * conv[2].target.step;
        row.lane_count = block.lanes;
        row.count = task.pixels;
        row.bias = bias ? bias + block_index * lanes : nullptr;
        for (std::int64_t r = 0; r < task.rows; ++r) {
            row.lanes = sums + target * sums_stride + r * sub.bands.pixels * lanes;
            row.destination =
                to.data + task.n * to.outer + block.channel * to.inner + conv[0].target.index(task.t[0]) * to.along[0] +
                conv[1].target.index(task.t[1] + r) * to.along[1] + conv[2].target.index(task.t[2]) * to.along[2];
            if (!kernels_.write_row(row)) continue;
            DamagedBox box{task.n, block, {conv[0].target, conv[1].target, conv[2].target}, task.t, task.t};
            box.begin[1] += r;
            box.end = {box.begin[0] + 1, box.begin[1] + 1, box.begin[2] + task.pixels};
            damage.push_back(box);
        }
    }
}

template <class E>
RunCounts DirectPass<E>::run(const Operands<E>& operands, int max_threads) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const int lanes = kernels_.lanes;
    const WorkspaceNeed need = workspace();
    const Workspace workspace(static_cast<std::size_t>(need.total(slots)));
    E* const panels = static_cast<E*>(workspace.data());
    ArenaLayout fixed;
    fixed.add<E>(panels_size_);
    E* const bias = operands.bias ? reinterpret_cast<E*>(static_cast<char*>(workspace.data()) + fixed.size()) : nullptr;
    if (bias) spread_bias(operands, targets_, lanes, bias);
    const bool forward = pass_ == Pass::forward;
    const Index input{layer_.axis[0].in, layer_.axis[1].in, layer_.axis[2].in};
    if (!covers_output_) fill_zero(operands.dx, layer_.batch, layer_.in_channels, input, slots);

    Damage damage(slots);
    for (const SubProblem& sub : subs_) {
        const DenseConv& conv = sub.conv;
        pack_weights(operands.w, sub, panels, slots);
        const Index extent{conv[0].end - conv[0].begin, sub.bands.bands_y, sub.bands.bands_x};
        const std::int64_t per_image = extent[0] * extent[1] * extent[2];
        parallel_for(layer_.batch * targets_.groups * per_image, slots, [&](std::int64_t i, int slot) {
            const Index band = unravel(i % per_image, extent);
            Task task{i / per_image / targets_.groups, static_cast<int>(i / per_image % targets_.groups), {}, 0, 0};
            task.t = {conv[0].begin + band[0], conv[1].begin + band[1] * sub.bands.rows,
                      conv[2].begin + band[2] * sub.bands.pixels};
            task.rows = std::min(sub.bands.rows, conv[1].end - task.t[1]);
            task.pixels = std::min(sub.bands.pixels, conv[2].end - task.t[2]);
            if (task.rows <= 0 || task.pixels <= 0) return;
            E* const buffer =
                reinterpret_cast<E*>(static_cast<char*>(workspace.data()) + need.fixed + need.per_thread * slot);
            ArenaLayout thread;
            thread.add<E>(buffer_size_);
            E* const sums = reinterpret_cast<E*>(reinterpret_cast<char*>(buffer) + thread.size());
            thread.add<E>(sums_size_);
            E* const partial = reinterpret_cast<E*>(reinterpret_cast<char*>(buffer) + thread.size());
            for (int s = 0; s < sources_.per_group; ++s)
                read_samples(kernels_, forward ? operands.x : operands.dy, task.n,
                             sources_.blocks[static_cast<std::size_t>(task.group * sources_.per_group + s)], conv,
                             task.t, sub.bands.rows, sub.bands.pixels,
                             buffer + s * samples_per_block(conv, sub.bands.rows, sub.bands.pixels) * lanes);
            compute_band(sub, task, panels, buffer, sums, partial);
            write_band(operands, sub, task, bias, sums, damage.of(slot));
        });
    }
    const std::vector<DamagedBox> boxes = damage.all();
    if (forward)
        recompute(operands.y, boxes, slots, [&](std::int64_t n, std::int64_t k, const Index& o) {
            return forward_value(layer_, operands, n, k, o);
        });
    else
        recompute(operands.dx, boxes, slots, [&](std::int64_t n, std::int64_t c, const Index& i) {
            return reference_input_grad_at(layer_, operands.w, operands.dy, n, c, i);
        });
    return {0, static_cast<std::int64_t>(boxes.size())};
}

template class DirectPass<float>;
template class DirectPass<double>;

// ---- weight_grad ----------------------------------------------------------------------------------------------------

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
    bands_ = cut_bands(conv_, lanewise_ ? 1 : xs_.per_group, lane_bytes);
    band_count_ = layer.batch * layer.axis[0].out * bands_.bands_y * bands_.bands_x;
    x_block_size_ = static_cast<std::size_t>(samples_per_block(conv_, bands_.rows, bands_.pixels) * lanes);
    y_block_size_ = static_cast<std::size_t>(bands_.rows * bands_.pixels * lanes);
    const std::int64_t taps = layer.taps();
    if (lanewise_) {  // sums: [part of the batch][y block][tap]
        parts_ = std::clamp<std::int64_t>(layer.batch, 1, 8);
        sums_size_ = static_cast<std::size_t>(parts_ * taps * lanes) * ys_.blocks.size();
        return;
    }
    // sums: [tap][x block][output channel of the group]
    constexpr std::int64_t chunk_bytes = 4 << 20, chunk_outputs = 1024;
    const std::int64_t band_bytes =
        1 +
        static_cast<std::int64_t>((x_block_size_ * xs_.blocks.size() + y_block_size_ * ys_.blocks.size()) * sizeof(E));
    bands_per_chunk_ =
        std::clamp<std::int64_t>(std::min(chunk_bytes / band_bytes, chunk_outputs / (bands_.rows * bands_.pixels)), 1,
                                 std::max<std::int64_t>(1, band_count_));
    block_stride_ = odd_lines<E>(static_cast<std::ptrdiff_t>(ys_.rows_per_group(lanes)) * lanes);
    tap_stride_ = odd_lines<E>(static_cast<std::ptrdiff_t>(xs_.blocks.size()) * block_stride_);
    sums_size_ = static_cast<std::size_t>(taps * tap_stride_);
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
        return read_samples(kernels_, operands.x, band.n, xs_.blocks[static_cast<std::size_t>(block)], conv_, band.t,
                            bands_.rows, bands_.pixels, buffer);
    DenseConv outputs = conv_;
    for (DenseAxis& axis : outputs)
        axis = {axis.target, axis.target, axis.begin, axis.end, 1, 1, 1, 0, 1};
    read_samples(kernels_, operands.dy, band.n, ys_.blocks[static_cast<std::size_t>(block)], outputs, band.t,
                 bands_.rows, bands_.pixels, buffer);
}

template <class E>
WorkspaceNeed DirectWeightGrad<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<E>(sums_size_);
    if (lanewise_) {
        per_thread.add<E>(x_block_size_);
        per_thread.add<E>(y_block_size_);
    } else {
        fixed.add<E>(static_cast<std::size_t>(bands_per_chunk_) * x_block_size_ * xs_.blocks.size());
        fixed.add<E>(static_cast<std::size_t>(bands_per_chunk_) * y_block_size_ * ys_.blocks.size());
    }
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

// Bands are taken in chunks: all threads read a chunk, then share its products by taps and blocks of output channels.
template <class E>
void DirectWeightGrad<E>::run_matrix(const Operands<E>& operands, int slots, char* workspace) const {
    const int lanes = kernels_.lanes;
    const std::int64_t x_blocks = static_cast<std::int64_t>(xs_.blocks.size());
    const std::int64_t y_blocks = static_cast<std::int64_t>(ys_.blocks.size());
    ArenaLayout layout;
    layout.add<E>(sums_size_);
    E* const sums = reinterpret_cast<E*>(workspace);
    const std::size_t x_size = x_block_size_ * xs_.blocks.size(), y_size = y_block_size_ * ys_.blocks.size();
    E* const x_buffer =
        reinterpret_cast<E*>(workspace + layout.add<E>(static_cast<std::size_t>(bands_per_chunk_) * x_size));
    E* const y_buffer = reinterpret_cast<E*>(workspace + layout.size());
    const std::vector<std::ptrdiff_t> taps = tap_offsets(conv_, bands_.rows, bands_.pixels, lanes);
    const std::ptrdiff_t row_step = conv_[1].step * conv_[2].samples(bands_.pixels) * lanes;

    for (std::int64_t first = 0; first < band_count_; first += bands_per_chunk_) {
        const std::int64_t count = std::min(bands_per_chunk_, band_count_ - first);
        parallel_for(count * (x_blocks + y_blocks), slots, [&](std::int64_t i, int) {
            const std::int64_t b = i / (x_blocks + y_blocks), block = i % (x_blocks + y_blocks);
            const Band band = band_at(first + b);
            const bool of_x = block < x_blocks;
            const std::size_t at = static_cast<std::size_t>(of_x ? block : block - x_blocks);
            E* const to = of_x ? x_buffer + static_cast<std::size_t>(b) * x_size + at * x_block_size_
                               : y_buffer + static_cast<std::size_t>(b) * y_size + at * y_block_size_;
            read_band(operands, band, of_x, static_cast<int>(at), to);
        });
        // Reduction blocks: the rows of the chunk's bands.
        std::vector<std::ptrdiff_t> y_rows, x_rows;
        for (std::int64_t b = 0; b < count; ++b)
            for (std::int64_t r = 0; r < band_at(first + b).rows; ++r) {
                y_rows.push_back(b * static_cast<std::ptrdiff_t>(y_size) + r * bands_.pixels * lanes);
                x_rows.push_back(b * static_cast<std::ptrdiff_t>(x_size) + r * row_step);
            }
        parallel_for(static_cast<std::int64_t>(taps.size()) * y_blocks, slots, [&](std::int64_t i, int) {
            const std::int64_t tap = i / y_blocks;
            const int y_block = static_cast<int>(i % y_blocks), group = y_block / ys_.per_group;
            ProductArgs<E> args{};
            args.a = y_buffer + static_cast<std::size_t>(y_block) * y_block_size_;
            args.b = x_buffer + static_cast<std::size_t>(group * xs_.per_group) * x_block_size_ +
                     taps[static_cast<std::size_t>(tap)];
            args.c = sums + tap * tap_stride_ + group * xs_.per_group * block_stride_ +
                     ys_.row_of(y_block % ys_.per_group, lanes) * lanes;
            args.a_offset = y_rows.data();
            args.b_offset = x_rows.data();
            args.blocks = args.full_blocks = static_cast<int>(y_rows.size());
            args.length = static_cast<int>(bands_.pixels);
            args.a_row = 1;
            args.a_step = lanes;
            args.b_step = conv_[2].step * lanes;
            args.b_col = static_cast<std::ptrdiff_t>(x_block_size_);
            args.c_row = lanes;
            args.c_col = block_stride_;
            args.accumulate = first > 0;
            multiply_blocks(kernels_.product[static_cast<int>(ProductKind::real)], args,
                            ys_.blocks[static_cast<std::size_t>(y_block)].lanes, xs_.per_group, lanes);
        });
    }
}

// Tasks: a lane block of dy and a part of the batch, whose sums are added up in order afterwards.
template <class E>
void DirectWeightGrad<E>::run_lanewise(const Operands<E>& operands, int slots, char* workspace) const {
    const int lanes = kernels_.lanes;
    const WorkspaceNeed need = this->workspace();
    const std::int64_t y_blocks = static_cast<std::int64_t>(ys_.blocks.size());
    const std::vector<std::ptrdiff_t> taps = tap_offsets(conv_, bands_.rows, bands_.pixels, lanes);
    const std::int64_t sums_of_block = static_cast<std::int64_t>(taps.size()) * lanes;
    const std::int64_t bands_per_image = band_count_ / layer_.batch;
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
        args.tap_offset = taps.data();
        args.taps = static_cast<int>(taps.size());
        args.in_step = conv_[2].step * lanes;
        const std::int64_t first = part * layer_.batch / parts_ * bands_per_image;
        const std::int64_t last = (part + 1) * layer_.batch / parts_ * bands_per_image;
        for (std::int64_t b = first; b < last; ++b) {
            const Band band = band_at(b);
            if (band.rows == 0 || band.pixels == 0) continue;
            read_band(operands, band, true, x_block, x_buffer);
            read_band(operands, band, false, y_block, y_buffer);
            args.count = band.pixels;
            for (std::int64_t r = 0; r < band.rows; ++r) {
                args.in = x_buffer + r * conv_[1].step * conv_[2].samples(bands_.pixels) * lanes;
                args.dy = y_buffer + r * bands_.pixels * lanes;
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
        bool non_finite = false;
        for (std::int64_t tap = 0; tap < taps; ++tap) {
            const Index r = unravel(tap, kernel);
            RowArgs<E> row{};
            row.destination = dw.data + y.channel * dw.outer + x.channel % layer_.in_per_group() * dw.inner +
                              r[0] * dw.along[0] + r[1] * dw.along[1] + r[2] * dw.along[2];
            row.lane_stride = lanewise_ ? dw.outer * y.channel_step : dw.inner;
            row.pixel_stride = dw.outer;  // "pixels" are output channels
            row.lane_count = x.lanes;
            row.count = lanewise_ ? 1 : y.lanes;
            row.lanes = lanewise_ ? sums + (y_block * taps + tap) * lanes
                                  : sums + tap * tap_stride_ + x_block * block_stride_ +
                                        ys_.row_of(y_block % ys_.per_group, lanes) * lanes;
            non_finite = kernels_.write_row(row) || non_finite;
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
