#include "depthwise_pass.h"

#include <algorithm>

#include "parallel.h"

namespace triconv {

// Rows of outputs of a task.
template <class E>
struct DepthwisePass<E>::Rows {
    BandTask task;
    std::int64_t first, count;

    // Rows of samples that these need and those before did not.
    std::int64_t first_sample(const DenseAxis& y) const { return first == 0 ? 0 : y.samples(first); }
    std::int64_t last_sample(const DenseAxis& y) const { return y.samples(first + count); }
};

// The samples that rows need besides those of the rows before, of the first of their blocks: in a channels-first array
// neighbours in each row of each lane's channel, which are one line where they adjoin. Arrays of other layouts are left to
// the hardware.
template <class E>
struct DepthwisePass<E>::Stretch {
    const E* first = nullptr;
    std::ptrdiff_t lane_stride = 0, row_stride = 0;
    int lanes = 0;
    std::int64_t rows = 1, count = 0;  // of a lane; of a row, elements

    Stretch(const Tensor<const E>& tensor, const DenseConv& conv, const LaneBlock& block, const Rows& next) {
        const DenseAxis &y = conv[1], &x = conv[2];
        const std::int64_t z0 = conv[0].first_sample(next.task.t[0]), y0 = y.first_sample(next.task.t[1]),
                           x0 = x.first_sample(next.task.t[2]);
        std::int64_t top, bottom, left, right;
        y.source.clip(y0 + next.first_sample(y), y0 + next.last_sample(y), top, bottom);
        x.source.clip(x0, x0 + x.samples(next.task.pixels), left, right);
        const std::int64_t height = (bottom - top) * y.source.step, width = (right - left) * x.source.step;
        if (next.count == 0 || height <= 0 || width <= 0 || !conv[0].source.contains(z0)) return;
        count = (width - 1) * tensor.along[2] + 1;
        if (count < 0 || count > 2 * width) return;
        first = tensor.data + next.task.n * tensor.outer + block.channel * tensor.inner +
                conv[0].source.index(z0) * tensor.along[0] + y.source.index(top) * tensor.along[1] +
                x.source.index(left) * tensor.along[2];
        lane_stride = tensor.inner * block.channel_step;
        lanes = block.lanes;
        if (tensor.along[1] >= 0 && tensor.along[1] <= count + line) {
            count += (height - 1) * tensor.along[1];
        } else {
            rows = height;
            row_stride = tensor.along[1];
        }
    }

    // Lines of the cache that hold it, about.
    std::int64_t lines() const { return ceil_div(count, line) * rows * lanes; }

    // Brings the next `lines` lines into the cache.
    void prefetch(std::int64_t lines) {
        for (; lines > 0 && lanes > 0; --lines) {
            __builtin_prefetch(first + at);
            at += line;
            if (at < count) continue;
            at = 0;
            first += row_stride;
            if (++row < rows) continue;
            row = 0;
            first += lane_stride - rows * row_stride;
            --lanes;
        }
    }

private:
    static constexpr std::int64_t line = 64 / sizeof(E);
    std::int64_t row = 0, at = 0;
};

template <class E>
DepthwisePass<E>::DepthwisePass(const KernelTable<E>& kernels, const Layer& layer, Pass pass)
    : BandPass<E>(kernels, layer, pass, true) {
    std::int64_t most_taps = 0;
    for (const JoinedConv& joined : join_phases(dense_convs(layer, pass))) {
        const SubProblem& sub = subs_.emplace_back(make_sub_problem(joined));
        const auto of_group = [](std::ptrdiff_t block, const LaneBlocks& blocks) {
            return static_cast<std::size_t>(blocks.per_group * block);
        };
        most_taps = std::max(most_taps, sub.taps);
        this->buffer_size_ = std::max(this->buffer_size_, of_group(sub.block_size, sources_));
        this->sums_size_ = std::max(this->sums_size_, of_group(sub.sums_size, targets_));
        this->add(joined.phases);
    }
    this->set_panels(most_taps * sources_.per_group);
}

template <class E>
auto DepthwisePass<E>::make_sub_problem(const JoinedConv& joined) const -> SubProblem {
    constexpr std::int64_t outputs_per_band = 4096;
    const int lanes = kernels_.lanes;
    const auto phases = static_cast<std::int64_t>(joined.phases.size());
    SubProblem sub{};
    static_cast<JoinedConv&>(sub) = joined;
    sub.bands = cut_bands(sub.conv, std::int64_t{sources_.per_group} * lanes * static_cast<std::int64_t>(sizeof(E)),
                          outputs_per_band / std::min(phases, outputs_per_band),
                          std::clamp<std::int64_t>(1024 / phases, 32, 256));
    sub.axis = sub.conv[1].taps > 1 && sub.bands.rows > 1 ? 1 : 2;
    // Down a column outputs need not be neighbours in a row: samples are left as they are, which are read faster so than
    // every stride-th by itself.
    sub.read = sub.conv;
    if (sub.axis == 1 && sub.conv[2].taps >= sub.conv[2].step) sub.read[2].step = 1;
    sub.hop_x = sub.conv[2].step / sub.read[2].step;
    sub.layout = BandLayout(sub.read, sub.bands.rows, (sub.bands.pixels - 1) * sub.hop_x + 1);
    for (DenseConv phase : joined.phases) {
        phase[2].step = sub.read[2].step;
        TapOrder& order = sub.orders.emplace_back(phase, sub.layout, sub.axis, lanes);
        for (TapRun& run : order.runs)
            run.offset += joined.first_entry(phase) * lanes;
        sub.taps += static_cast<std::int64_t>(order.taps.size());
    }
    sub.rows_at_once =
        std::min(sub.bands.rows, sub.axis == 1 ? kernels_.depthwise_outputs * sub.orders.front().hop : 1);
    sub.block_size = odd_lines<E>(sub.layout.entries * lanes);
    sub.sums_size = odd_lines<E>(sub.rows_at_once * sub.bands.pixels * phases * lanes);
    return sub;
}

// For each target block, a lane vector for each (source block, phase, tap in the order of the runs).
template <class E>
void DepthwisePass<E>::pack_weights(const Tensor<const E>& w, std::size_t index, E* panels, int max_threads) const {
    const SubProblem& sub = subs_[index];
    parallel_for(static_cast<std::int64_t>(targets_.blocks.size()), max_threads, [&](std::int64_t i, int) {
        const LaneBlock& target = targets_.blocks[static_cast<std::size_t>(i)];
        RowArgs<E> row{};
        row.lanes = panels + i * panel_stride_;
        row.lane_count = target.lanes;
        row.count = 1;
        for (int s = 0; s < sources_.per_group; ++s) {
            const auto source = static_cast<std::size_t>(i / targets_.per_group * sources_.per_group + s);
            const LaneBlock& y = pass_ == Pass::forward ? target : sources_.blocks[source];
            row.lane_stride = w.outer * y.channel_step;
            for (std::size_t phase = 0; phase < sub.orders.size(); ++phase) {
                const DenseConv& conv = sub.phases[phase];
                for (const std::int64_t tap : sub.orders[phase].taps) {
                    const Index q = unravel(tap, {conv[0].taps, conv[1].taps, conv[2].taps});
                    row.source = w.data + y.channel * w.outer;
                    for (int a = 0; a < axes; ++a)
                        row.source += (conv[a].first_tap + q[a] * conv[a].tap_stride) * w.along[a];
                    kernels_.read_row(row);
                    row.lanes += kernels_.lanes;
                }
            }
        }
    });
}

template <class E>
void DepthwisePass<E>::read_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows,
                                 E* buffer) const {
    const DenseAxis& y = sub.conv[1];
    const Index t{rows.task.t[0], rows.task.t[1], rows.task.t[2] * sub.hop_x};
    for (int s = 0; s < sources_.per_group; ++s) {
        const auto index = static_cast<std::size_t>(rows.task.group * sources_.per_group + s);
        read_sample_rows(kernels_, this->source(operands), rows.task.n, sources_.blocks[index], sub.read, sub.layout, t,
                         rows.first_sample(y), rows.last_sample(y), buffer + s * sub.block_size);
    }
}

// next: rows whose samples to bring into the cache meanwhile.
template <class E>
void DepthwisePass<E>::compute_rows(const Operands<E>& operands, const SubProblem& sub, const Rows& rows,
                                    const Rows& next, const E* panels, const E* buffer, E* sums) const {
    const int lanes = kernels_.lanes;
    const auto phases = static_cast<std::int64_t>(sub.orders.size());
    const std::ptrdiff_t row_in = sub.layout.pixels * lanes, pixel_in = sub.hop_x * lanes, pixel_out = phases * lanes;
    const std::ptrdiff_t row_out = sub.bands.pixels * pixel_out;
    const bool down = sub.axis == 1;  // a line runs down a column, else along a row
    const std::int64_t pixels = rows.task.pixels, lines = down ? pixels : rows.count,
                       length = down ? rows.count : pixels;
    const std::ptrdiff_t along_in = down ? row_in : pixel_in, along_out = down ? row_out : pixel_out;
    const std::ptrdiff_t across_in = down ? pixel_in : row_in, across_out = down ? pixel_out : row_out;

    Stretch ahead(this->source(operands), sub.conv,
                  sources_.blocks[static_cast<std::size_t>(next.task.group * sources_.per_group)], next);
    const std::int64_t lines_ahead = ceil_div(ahead.lines(), std::max<std::int64_t>(1, lines * phases));
    DepthwiseArgs<E> args{};
    for (int target = 0; target < targets_.per_group; ++target)
        for (int source = 0; source < sources_.per_group; ++source) {
            args.w =
                panels + (rows.task.group * targets_.per_group + target) * panel_stride_ + source * sub.taps * lanes;
            args.accumulate = source > 0;
            const E* const in = buffer + source * sub.block_size + rows.first * row_in;
            E* out = sums + target * sub.sums_size;
            for (const TapOrder& order : sub.orders) {
                args.runs = order.runs.data();
                args.run_count = static_cast<int>(order.runs.size());
                args.in_step = along_in * order.hop;
                args.out_step = along_out * order.hop;
                for (std::int64_t line = 0; line < lines; ++line) {
                    ahead.prefetch(lines_ahead);
                    for (std::int64_t start = 0; start < std::min(order.hop, length); ++start) {
                        args.in = in + line * across_in + start * along_in;
                        args.out = out + line * across_out + start * along_out;
                        args.count = ceil_div(length - start, order.hop);
                        kernels_.depthwise_forward(args);
                    }
                }
                args.w += static_cast<std::ptrdiff_t>(order.taps.size()) * lanes;
                out += lanes;
            }
        }
}

template <class E>
void DepthwisePass<E>::write_rows(const Run& run, const SubProblem& sub, const Rows& rows, E* sums,
                                  std::vector<DamagedBox>& damage) const {
    const int lanes = kernels_.lanes;
    const std::ptrdiff_t row_out = sub.bands.pixels * static_cast<std::ptrdiff_t>(sub.orders.size()) * lanes;
    for (int target = 0; target < targets_.per_group; ++target) {
        const int index = rows.task.group * targets_.per_group + target;
        BandRows written{rows.task.n, targets_.blocks[static_cast<std::size_t>(index)], rows.task.t, rows.task.pixels,
                         rows.count};
        written.t[1] += rows.first;
        write_joined_rows(kernels_, this->target(run.operands), sub, written, row_out, sums + target * sub.sums_size,
                          run.bias ? run.bias + index * lanes : nullptr, damage);
    }
}

template <class E>
void DepthwisePass<E>::run_bands(const Run& run, std::size_t conv, const E* panels) const {
    const SubProblem& sub = subs_[conv];
    const std::int64_t tasks = layer_.batch * targets_.groups * band_count(sub.conv, sub.bands);
    const auto task_at = [&](std::int64_t index) { return band_task(sub.conv, sub.bands, targets_.groups, index); };
    const auto rows_from = [&](const BandTask& of, std::int64_t first) {
        return Rows{of, first, std::clamp<std::int64_t>(of.rows - first, 0, sub.rows_at_once)};
    };
    parallel_for(tasks, run.slots, [&](std::int64_t index, int slot) {
        const BandTask task = task_at(index);
        if (task.rows == 0 || task.pixels == 0) return;
        const auto scratch = this->scratch_of(run, slot);
        for (Rows rows = rows_from(task, 0); rows.count > 0;) {
            const Rows next = rows_from(task, rows.first + rows.count);
            const bool last = next.count == 0 && index + 1 < tasks;
            read_rows(run.operands, sub, rows, scratch.buffer);
            compute_rows(run.operands, sub, rows, last ? rows_from(task_at(index + 1), 0) : next, panels,
                         scratch.buffer, scratch.sums);
            write_rows(run, sub, rows, scratch.sums, run.damage.of(slot));
            rows = next;
        }
    });
}

template class DepthwisePass<float>;
template class DepthwisePass<double>;

}  // namespace triconv
