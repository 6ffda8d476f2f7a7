#include "direct_pass.h"

#include <algorithm>

#include "parallel.h"
#include "reference.h"
#include "workspace.h"

namespace triconv {

namespace {

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

}  // namespace

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

}  // namespace triconv
