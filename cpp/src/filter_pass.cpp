#include "filter_pass.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "band_product.h"
#include "cpu.h"
#include "engine.h"
#include "parallel.h"

namespace triconv {

namespace {

// Whole rows as far as may be: samples come in the order that the hardware fetches ahead in. A few rows of outputs and
// those of the taps share the L2 cache; neighbouring bands both read the rows between them, so tall kernels have taller
// bands.
template <class E>
Bands filter_bands(const KernelTable<E>& kernels, const DenseConv& conv) {
    constexpr std::int64_t fewest_outputs = 16 << 10, whole_blocks = 12;  // rows: a multiple of blocks of 4 and of 6
    const std::int64_t cached_bytes = std::clamp<std::int64_t>(cache_sizes().l2 / 4, 256 << 10, 512 << 10);
    const std::int64_t element = sizeof(E), rows = conv[1].end - conv[1].begin, width = conv[2].end - conv[2].begin,
                       height = conv[1].samples(std::clamp<std::int64_t>(rows, 1, kernels.filter.most_rows));
    const std::int64_t longest_row = std::clamp<std::int64_t>(cached_bytes / (element * height), 256, 4096);
    Bands bands = cut_bands(conv, element, std::max(fewest_outputs, 256 * std::min<std::int64_t>(conv[1].taps, 4096)),
                            longest_row);
    bands.rows = std::min(round_up(bands.rows, whole_blocks), rows);
    bands.bands_y = ceil_div(rows, bands.rows);
    bands.pixels = std::min(round_up(bands.pixels, std::int64_t{4} * kernels.lanes), width);
    bands.bands_x = ceil_div(width, bands.pixels);
    return bands;
}

// Where the outputs [0, count) of a row find all their samples in an array, whole lane vectors of them: [first, end).
Range readable(const DenseAxis& axis, std::int64_t t, std::int64_t count, int lanes) {
    const std::int64_t begin = axis.source.index(axis.first_sample(t));
    const std::int64_t room = axis.source.size - begin - axis.samples(1) + 1;  // outputs, from 0 on
    const std::int64_t first = round_up(std::max<std::int64_t>(0, -begin), lanes);
    std::int64_t length = std::min(count, room) - first;
    if (length > 0 && first + round_up(length, lanes) > room) length -= length % lanes;
    return {first, first + std::max<std::int64_t>(0, length)};
}

bool steps_are_one(const DenseConv& conv) {
    return std::all_of(conv.begin(), conv.end(), [](const DenseAxis& axis) { return axis.source.step == 1; });
}

}  // namespace

bool is_filter(const Layer& layer, Pass pass) {
    const bool neighbours = layer.axis[1].stride == 1 && layer.axis[2].stride == 1;
    return layer.in_per_group() == 1 && layer.out_per_group() == 1 && (pass == Pass::input_grad || neighbours);
}

template <class E>
double filter_ns(const KernelTable<E>& kernels, const Layer& layer, Pass pass) {
    // The sums of a vector of outputs, those of another part of the taps added; a sample, a row of them brought into the
    // buffer; a band. Fitted to some 50 filters (AVX2, AVX-512).
    const double sum = 1, further_part = 3, sample = 0.12, sample_row = 10, band = 200;
    double ns = 0;
    for (const DenseConv& conv : dense_convs(layer, pass)) {
        const Bands bands = filter_bands(kernels, conv);
        const std::int64_t height = conv[1].end - conv[1].begin, width = conv[2].end - conv[2].begin;
        const double rows = static_cast<double>((conv[0].end - conv[0].begin) * height);
        const double vectors = rows * static_cast<double>(bands.bands_x * ceil_div(bands.pixels, kernels.lanes));
        const double taps = static_cast<double>(conv[0].taps * conv[1].taps * conv[2].taps);
        // A vector of samples times a tap: the rows of a block share the loads.
        const std::int64_t rows_of_part = max_reduction / std::clamp<std::int64_t>(conv[2].taps, 1, max_reduction);
        const double block_rows = static_cast<double>(
            std::clamp<std::int64_t>(std::min(conv[1].taps, rows_of_part), 1, kernels.filter.most_rows));
        double product = (0.17 + 0.36 / block_rows) * fma_steps(kernels);
        if (conv[1].taps == 1 && std::abs(conv[2].tap_step) == 1 && conv[2].taps >= kernels.filter.row_of_taps) {
            // Parts of at most max_reduction taps: the kernel takes as many.
            const double steps = static_cast<double>(conv[2].taps + kernels.lanes - 1);
            product = 0.22 * steps / static_cast<double>(conv[2].taps) * fma_steps(kernels);
        }
        const double parts = static_cast<double>(conv[0].taps) *
                             std::ceil(static_cast<double>(conv[1].taps * conv[2].taps) / max_reduction);
        // Without padding all is read in place; with it, the bands at the top and the bottom and the edges are not.
        const Range inner = readable(conv[2], conv[2].begin, width, kernels.lanes);
        const bool in_place =
            steps_are_one(conv) && inner.end - inner.begin >= std::max(width / 2, std::int64_t{8} * kernels.lanes);
        const double edge_rows = static_cast<double>(conv[1].inside(conv[1].begin, height) ? 0 : 2 * bands.rows);
        const double edges = in_place ? std::min(1.0, edge_rows / static_cast<double>(height)) : 1.0;
        const double rows_read = edges * rows * static_cast<double>(conv[0].taps) *
                                 (1 + static_cast<double>(conv[1].taps - 1) / static_cast<double>(bands.rows));
        ns += vectors * (taps * product + sum + (parts - 1) * further_part) +
              rows_read * (static_cast<double>(width) * sample + sample_row) +
              static_cast<double>(band_count(conv, bands)) * band;
    }
    return ns;
}
template double filter_ns(const KernelTable<float>&, const Layer&, Pass);
template double filter_ns(const KernelTable<double>&, const Layer&, Pass);

template <class E>
FilterPass<E>::FilterPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass)
    : BandPass<E>(kernels, layer, pass, false) {
    std::int64_t most_taps = 0;
    for (const DenseConv& conv : dense_convs(layer, pass)) {
        const EqualParts tap_cols(static_cast<int>(conv[2].taps), max_reduction);
        const EqualParts tap_rows(static_cast<int>(conv[1].taps), std::max(1, max_reduction / tap_cols.size(0)));
        const Bands bands = filter_bands(kernels, conv);
        const SubProblem& sub =
            subs_.emplace_back(SubProblem{conv, bands, planar_layout<E>(conv, bands.rows, bands.pixels), tap_rows,
                                          tap_cols, odd_lines<E>(bands.pixels)});
        const auto sums = static_cast<std::size_t>(sub.bands.rows * sub.sums_row);
        // Whole lane vectors are read, beyond the last output, too.
        this->buffer_size_ = std::max(this->buffer_size_, static_cast<std::size_t>(sub.layout.entries + kernels.lanes));
        this->sums_size_ = std::max(this->sums_size_, sums);
        if (sub.parts() > parts_per_group) this->partial_size_ = std::max(this->partial_size_, sums);
        most_taps = std::max(most_taps, conv[0].taps * conv[1].taps * conv[2].taps);
        this->add({conv});
    }
    this->set_panels(ceil_div(most_taps, kernels.lanes));
}

// Of each group the taps, row-major, in the order of the samples along y and x.
template <class E>
void FilterPass<E>::pack_weights(const Tensor<const E>& w, std::size_t conv, E* panels, int max_threads) const {
    const DenseConv& axis = subs_[conv].conv;
    parallel_for(targets_.groups, max_threads, [&](std::int64_t group, int) {
        E* to = panels + group * panel_stride_;
        Index q, tap;
        for (q[0] = 0; q[0] < axis[0].taps; ++q[0])
            for (q[1] = 0; q[1] < axis[1].taps; ++q[1])
                for (q[2] = 0; q[2] < axis[2].taps; ++q[2]) {
                    const E* from = w.data + group * w.outer;
                    for (int a = 0; a < axes; ++a) {
                        tap[a] = a > 0 && axis[a].tap_step < 0 ? axis[a].taps - 1 - q[a] : q[a];
                        from += (axis[a].first_tap + tap[a] * axis[a].tap_stride) * w.along[a];
                    }
                    *to++ = *from;
                }
    });
}

template <class E>
auto FilterPass<E>::in_array(const SubProblem& sub, const Tensor<const E>& from, const BandTask& task) const
    -> Samples {
    const std::int64_t channel = sources_.blocks[static_cast<std::size_t>(task.group)].channel;
    const E* const first = first_sample(from, sub.conv, task.n, channel, task.t);
    return {first, from.along[1], sub.conv[0].tap_step * from.along[0]};
}

template <class E>
auto FilterPass<E>::in_buffer(const SubProblem& sub, const Tensor<const E>& from, const BandTask& task, E* buffer) const
    -> Samples {
    const bool whole = task.rows == sub.bands.rows && task.pixels == sub.bands.pixels;
    const BandLayout part = whole ? BandLayout() : planar_layout<E>(sub.conv, task.rows, task.pixels);
    const BandLayout& layout = whole ? sub.layout : part;
    const std::int64_t channel = sources_.blocks[static_cast<std::size_t>(task.group)].channel;
    read_plane(kernels_, from, task.n, channel, sub.conv, layout, task.t, 0, buffer);
    return {buffer, layout.pixels, layout.phase_entries};
}

// Whether the kernel told of a value that is not finite.
template <class E>
bool FilterPass<E>::filter_piece(const SubProblem& sub, const BandTask& task, const Samples& samples, const E* weights,
                                 E bias, const Rows& out, const Rows& partial) const {
    const std::int64_t hop_y = std::abs(sub.conv[1].tap_step), hop_x = std::abs(sub.conv[2].tap_step);
    const std::int64_t parts = sub.parts();
    FilterArgs<E> args{};
    args.in_row = hop_y * samples.row;
    args.in_tap = hop_x;
    args.w_row = sub.conv[2].taps;
    args.count = task.pixels;
    bool non_finite = false;
    for (std::int64_t i = 0; i < parts; ++i) {
        Index at{};
        if (parts > 1) at = unravel(i, {sub.conv[0].taps, sub.tap_rows.count, sub.tap_cols.count});
        const int y = sub.tap_rows.first(static_cast<int>(at[1])), x = sub.tap_cols.first(static_cast<int>(at[2]));
        const Rows& sums = i < parts_per_group ? out : partial;
        args.w = weights + (at[0] * sub.conv[1].taps + y) * args.w_row + x;
        args.taps_y = sub.tap_rows.size(static_cast<int>(at[1]));
        args.taps_x = sub.tap_cols.size(static_cast<int>(at[2]));
        args.out_row = hop_y * sums.row;
        args.accumulate = i % parts_per_group != 0;
        args.bias = i == 0 ? bias : E(-0.0);
        const E* const in = samples.first + at[0] * samples.plane + y * args.in_row + x * hop_x;
        non_finite = false;
        for (std::int64_t phase = 0; phase < std::min(hop_y, task.rows); ++phase) {  // rows that share samples
            args.in = in + phase * samples.row;
            args.out = sums.first + phase * sums.row;
            args.rows = ceil_div(task.rows - phase, hop_y);
            non_finite = kernels_.filter.run(args) || non_finite;
        }
        if (i < parts_per_group || ((i + 1) % parts_per_group != 0 && i + 1 < parts)) continue;
        E test = 0;
        for (std::int64_t r = 0; r < task.rows; ++r)
            for (std::int64_t x = 0; x < task.pixels; ++x)
                test += E(0) * (out.first[r * out.row + x] += partial.first[r * partial.row + x]);
        non_finite = !(test == E(0));
    }
    return non_finite;
}

// The stretch of each row from the first value that is not finite to the last.
template <class E>
void note_damage(const DenseConv& conv, const BandTask& task, const LaneBlock& block, const E* out, std::ptrdiff_t row,
                 std::vector<DamagedBox>& damage) {
    const auto finite = [](E value) { return std::isfinite(value); };
    for (std::int64_t r = 0; r < task.rows; ++r) {
        const E *const begin = out + r * row, *const end = begin + task.pixels;
        const E* const first = std::find_if_not(begin, end, finite);
        if (first == end) continue;
        const E* const last =
            std::find_if_not(std::make_reverse_iterator(end), std::make_reverse_iterator(first), finite).base();
        const Index at{task.t[0], task.t[1] + r, task.t[2]};
        damage.push_back(damaged_outputs(conv, task.n, block, {at[0], at[1], at[2] + (first - begin)},
                                         {at[0] + 1, at[1] + 1, at[2] + (last - begin)}));
    }
}

template <class E>
void FilterPass<E>::run_piece(const Run& run, const SubProblem& sub, const BandTask& task, const Samples& samples,
                              const E* panels, const Scratch& scratch, std::vector<DamagedBox>& damage) const {
    const Tensor<E>& to = this->target(run.operands);
    const LaneBlock& block = targets_.blocks[static_cast<std::size_t>(task.group)];
    const E* const weights = panels + task.group * panel_stride_;
    const E bias = run.bias ? run.bias[task.group * kernels_.lanes] : E(-0.0);
    const Rows sums{scratch.sums, sub.sums_row}, partial{scratch.partial, sub.sums_row};
    if (to.along[2] * sub.conv[2].target.step == 1) {
        const Rows out{first_output(to, sub.conv, task.n, block.channel, task.t),
                       to.along[1] * sub.conv[1].target.step};
        if (filter_piece(sub, task, samples, weights, bias, out, partial))
            note_damage(sub.conv, task, block, out.first, out.row, damage);
        return;
    }
    filter_piece(sub, task, samples, weights, bias, sums, partial);
    write_plane_rows(kernels_, to, sub.conv, {task.n, block, task.t, task.pixels, task.rows},
                     {sums.row, 0} /* one channel */, sums.first, static_cast<const E*>(nullptr), damage);
}

template <class E>
void FilterPass<E>::run_bands(const Run& run, std::size_t conv, const E* panels) const {
    const SubProblem& sub = subs_[conv];
    const Tensor<const E>& from = this->source(run.operands);
    const bool neighbours = from.along[2] == 1 && steps_are_one(sub.conv);
    const std::int64_t bands = layer_.batch * targets_.groups * band_count(sub.conv, sub.bands);
    parallel_for(bands, run.slots, [&](std::int64_t index, int slot) {
        const BandTask band = band_task(sub.conv, sub.bands, targets_.groups, index);
        if (band.rows == 0 || band.pixels == 0) return;
        const Scratch scratch = this->scratch_of(run, slot);
        Range inner{0, 0};
        if (neighbours && sub.conv[0].inside(band.t[0], 1) && sub.conv[1].inside(band.t[1], band.rows))
            inner = readable(sub.conv[2], band.t[2], band.pixels, kernels_.lanes);
        // Short rows, or edges of little less than all: one piece.
        if (inner.end - inner.begin < std::max(band.pixels / 2, std::int64_t{8} * kernels_.lanes)) inner = {0, 0};
        const auto run_part = [&](std::int64_t first, std::int64_t end, bool in_place) {
            if (first >= end) return;
            BandTask piece = band;
            piece.t[2] += first;
            piece.pixels = end - first;
            const Samples samples = in_place ? in_array(sub, from, piece) : in_buffer(sub, from, piece, scratch.buffer);
            run_piece(run, sub, piece, samples, panels, scratch, run.damage.of(slot));
        };
        run_part(0, inner.begin, false);
        run_part(inner.begin, inner.end, true);
        run_part(inner.end, band.pixels, false);
    });
}

template class FilterPass<float>;
template class FilterPass<double>;

}  // namespace triconv
