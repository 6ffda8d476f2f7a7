#include "direct_pass.h"

#include <algorithm>
#include <utility>

#include "parallel.h"

namespace triconv {

namespace {

std::int64_t product_of(std::int64_t DenseAxis::* field, const DenseConv& conv) {
    return conv[0].*field * (conv[1].*field) * (conv[2].*field);
}

struct Ends {
    LaneBlocks sources, targets;
};

// Bands of outputs with so many elements each, as have the entries that they read. Neighbouring bands both read the
// rows between them: few elements afford larger bands, and of one channel a band has as many rows as the kernel.
template <class E>
Bands direct_bands(const DenseConv& conv, std::int64_t source_elements, std::int64_t target_elements, int step_axis,
                   std::int64_t phases, bool planar) {
    constexpr std::int64_t bytes = 32 << 10, most_outputs = 4096, row_outputs = 256, element = sizeof(E);
    std::int64_t fewest_outputs = std::clamp<std::int64_t>(1024 / phases, 32, row_outputs);  // of each phase
    if (planar) {  // buffers of many channels stay in L2, and an image still has bands for some threads
        std::int64_t image = 1;
        for (const DenseAxis& axis : conv)
            image *= axis.end - axis.begin;
        fewest_outputs = std::clamp<std::int64_t>(image / 8, row_outputs, 1024);
    }
    const std::int64_t elements = std::max<std::int64_t>(1, source_elements + target_elements);  // no channels: 0
    std::int64_t outputs = std::clamp(bytes / (element * elements), fewest_outputs, most_outputs);
    // Without taps along x rows have no ends to read twice, but whole ones may adjoin in the array.
    const bool may_adjoin = conv[2].one_to_one() && phases == 1;
    const std::int64_t longest_row = may_adjoin ? 4 * fewest_outputs : fewest_outputs;
    if (source_elements != 1) return cut_bands(conv, element * source_elements, outputs, longest_row);
    outputs = std::max(2 * most_outputs, row_outputs * std::min(conv[1].taps, most_outputs));
    return cut_bands(conv, element, outputs, (step_axis == 1 ? 1 : 2) * row_outputs);  // tall kernels: rather more rows
}

template <class E>
std::ptrdiff_t sums_pitch(const DirectTiling& tiling) {  // planar
    return tiling.one_line ? tiling.layout.pixels : odd_lines<E>(tiling.bands.pixels);
}

// The axis along which a single channel's taps read neighbours, so that they can be the steps of the reduction; none:
// -1.
int axis_of_steps(const DenseConv& conv, std::int64_t channels) {
    int best = -1;
    for (int axis : {2, 1})
        if (channels == 1 && conv[axis].step == 1 && conv[axis].taps <= max_reduction &&
            (best < 0 || conv[axis].taps > conv[best].taps))
            best = axis;
    return best;
}

// The register blocks of a tiling: of each row of outputs, or of the band as one line.
template <class E>
void choose_blocks(const KernelTable<E>& kernels, const Ends& ends, bool planar, DirectTiling& tiling) {
    const std::int64_t rows = tiling.bands.rows, pixels = tiling.bands.pixels, lanes = kernels.lanes;
    const std::int64_t targets = ends.targets.rows_per_group(kernels.lanes);
    const auto shape_for = [&](std::int64_t outputs) {
        return planar ? best_block(kernels.direct_product, std::min(targets, lanes), ceil_div(outputs, lanes))
                      : best_block(kernels.direct_product, outputs, ends.targets.per_group);
    };
    const BlockShape by_row = shape_for(pixels), as_one = shape_for((rows - 1) * tiling.layout.pixels + pixels);
    tiling.one_line = tiling.step_axis != 1 && as_one.cycles <= by_row.cycles * static_cast<double>(rows);
    tiling.shape = tiling.one_line ? as_one : by_row;
    tiling.cycles = tiling.shape.cycles * static_cast<double>(tiling.one_line ? 1 : rows);
    if (tiling.step_axis == 1) {  // the next row reads most of what this one does: from L1, if the columns are few
        constexpr std::int64_t l1 = 24 << 10;
        const std::int64_t column = tiling.conv[1].taps * lanes * static_cast<std::int64_t>(sizeof(E));
        tiling.shape.cols = std::min(tiling.shape.cols, static_cast<int>(std::max<std::int64_t>(2, l1 / column)));
    }
}

// Whether an array whose rows are so far apart can serve as a planar buffer, its pixels being neighbours: a product finds
// outputs where it finds samples, and a band that is done as one line reads what a buffer has between rows.
bool serves_as_buffer(const DirectTiling& tiling, std::ptrdiff_t row_pitch) {
    const auto apart = [](const DenseAxis& axis) { return axis.step != 1 || axis.source.step != 1; };
    const bool any_pitch = !tiling.one_line || tiling.bands.rows == 1;
    const bool same_pitch = row_pitch == tiling.layout.pixels && row_pitch <= tiling.conv[2].source.size;
    return (any_pitch || same_pitch) && std::none_of(tiling.conv.begin(), tiling.conv.end(), apart);
}

// How much of the bands can be read where they are in an array whose rows adjoin, planar: from 0 to 1.
template <class E>
double share_in_array(const KernelTable<E>& kernels, const DirectTiling& tiling) {
    const DenseAxis &y = tiling.conv[1], &x = tiling.conv[2];
    if (!serves_as_buffer(tiling, x.source.size)) return 0;
    // Bands lie `length` apart, outputs as well as samples, and all are this long but for the last.
    const auto share = [](const DenseAxis& axis, std::int64_t bands, std::int64_t length, std::int64_t unit) {
        if (bands == 0) return 0.0;
        const std::int64_t begin = axis.source.index(axis.first_sample(axis.begin)), last = (bands - 1) * length;
        const auto room = [&](std::int64_t count) { return axis.source.size - axis.samples(round_up(count, unit)); };
        const std::int64_t before = ceil_div(std::max<std::int64_t>(0, -begin), length);
        const std::int64_t fitting = room(length) < begin ? 0 : (room(length) - begin) / length + 1;
        const bool last_inside = begin + last >= 0 && begin + last <= room(axis.end - axis.begin - last);
        const std::int64_t inside = std::max<std::int64_t>(0, std::min(fitting, bands - 1) - before) + last_inside;
        return static_cast<double>(inside) / static_cast<double>(bands);
    };
    const std::int64_t planes = tiling.conv[0].end - tiling.conv[0].begin, lanes = kernels.lanes;
    const bool to_the_pixel = tiling.one_line || can_move_back(tiling.shape, ceil_div(tiling.bands.pixels, lanes));
    return share(tiling.conv[0], planes, 1, 1) * share(y, tiling.bands.bands_y, tiling.bands.rows, 1) *
           share(x, tiling.bands.bands_x, tiling.bands.pixels, to_the_pixel ? 1 : lanes);
}

// The taps that blocks of the reduction start with.
Index first_taps(const DenseConv& conv, int step_axis) {
    Index taps{conv[0].taps, conv[1].taps, conv[2].taps};
    if (step_axis >= 0) taps[step_axis] = 1;
    return taps;
}

std::int64_t taps_of(const JoinedConv& joined) {
    std::int64_t taps = 0;
    for (const DenseConv& phase : joined.phases)
        taps += product_of(&DenseAxis::taps, phase);
    return taps;
}

template <class E>
DirectTiling tile(const KernelTable<E>& kernels, const JoinedConv& joined, const Ends& ends, bool planar) {
    const DenseConv& conv = joined.conv;
    const int lanes = kernels.lanes;
    const std::int64_t channels = ends.sources.rows_per_group(lanes), targets = ends.targets.rows_per_group(lanes);
    const std::int64_t source_elements = planar ? channels : std::int64_t{ends.sources.per_group} * lanes;
    const std::int64_t target_elements =
        planar ? targets
               : std::int64_t{ends.targets.per_group} * lanes * static_cast<std::int64_t>(joined.phases.size());
    DirectTiling tiling{};
    static_cast<JoinedConv&>(tiling) = joined;
    tiling.step_axis = planar ? axis_of_steps(conv, channels) : -1;
    tiling.bands = direct_bands<E>(conv, source_elements,
                                   planar ? std::min<std::int64_t>(target_elements, lanes) : target_elements,
                                   tiling.step_axis, static_cast<std::int64_t>(joined.phases.size()), planar);
    tiling.layout = tiling.step_axis < 0 ? BandLayout(conv, tiling.bands.rows, tiling.bands.pixels)
                                         : planar_layout<E>(conv, tiling.bands.rows, tiling.bands.pixels);
    choose_blocks(kernels, ends, planar, tiling);

    // Nanoseconds on the machine of the constants in cost_model.cpp: of a cycle of the products, for an element moved
    // to or from a buffer, for a row of one. Fitted to timings of some 220 random passes (AVX-512); a planar product
    // waits for the L2 cache where its steps are a channel apart.
    const double cycle_ns = (planar && tiling.step_axis < 0 ? 0.6 : 0.45) * fma_steps(kernels),
                 element_ns = planar ? 0.15 : 0.066, row_ns = planar ? 12 : 0;
    // Planar, the products of a block of target channels are one register block after the other.
    const double target_parts =
        planar ? static_cast<double>(targets) / static_cast<double>(std::clamp<std::int64_t>(targets, 1, lanes)) : 1;
    const double cycles = tiling.cycles * target_parts * static_cast<double>(channels * taps_of(joined));
    const double buffered = planar ? 1 - share_in_array(kernels, tiling) : 1;
    const double moved = buffered * static_cast<double>(source_elements * tiling.layout.entries) +
                         static_cast<double>(target_elements * tiling.bands.rows * tiling.bands.pixels);
    const double moved_rows = buffered * static_cast<double>(channels * tiling.layout.height) +
                              static_cast<double>(targets * tiling.bands.rows);
    tiling.ns = static_cast<double>((conv[0].end - conv[0].begin) * tiling.bands.bands_y * tiling.bands.bands_x) *
                (cycles * cycle_ns + moved * element_ns + moved_rows * row_ns);
    return tiling;
}

}  // namespace

double DirectTilings::ns() const {
    double sum = 0;
    for (const DirectTiling& tiling : of)
        sum += tiling.ns;
    return sum;
}

template <class E>
DirectTilings tile_direct(const KernelTable<E>& kernels, const Layer& layer, Pass pass) {
    Ends ends{input_blocks(layer, kernels.lanes, false, false), output_blocks(layer, kernels.lanes, false)};
    if (pass == Pass::input_grad) std::swap(ends.sources, ends.targets);
    const std::vector<DenseConv> convs = dense_convs(layer, pass);
    DirectTilings in_lanes{{}, false}, planar{{}, true};
    for (const JoinedConv& joined : join_phases(convs))
        in_lanes.of.push_back(tile(kernels, joined, ends, false));
    for (const DenseConv& conv : convs)
        planar.of.push_back(tile(kernels, JoinedConv{conv, {conv}, conv}, ends, true));
    return planar.ns() < in_lanes.ns() ? planar : in_lanes;
}
template DirectTilings tile_direct(const KernelTable<float>&, const Layer&, Pass);
template DirectTilings tile_direct(const KernelTable<double>&, const Layer&, Pass);

template <class E>
DirectPass<E>::DirectPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass)
    : BandPass<E>(kernels, layer, pass, false) {
    const DirectTilings tilings = tile_direct(kernels, layer, pass);
    planar_ = tilings.planar;
    // To lanes of which most are empty few samples are brought by the way, still fewer from pixels far apart.
    const int sources = sources_.rows_per_group(kernels.lanes);
    const bool far_apart = pass == Pass::forward && layer.axis[axes - 1].stride > 2;
    planar_samples_ = planar_ || sources == 1 || (far_apart && 2 * sources <= kernels.lanes);
    std::int64_t most_taps = 0;
    for (const DirectTiling& tiling : tilings.of) {
        const SubProblem& sub = subs_.emplace_back(make_sub_problem(tiling));
        most_taps = std::max(most_taps, taps_of(tiling));
        this->buffer_size_ = std::max(this->buffer_size_, sub.buffer_size);
        this->sums_size_ = std::max(this->sums_size_, sub.sums_size);
        this->add(sub.phases);
    }
    this->partial_size_ = this->sums_size_;
    this->set_panels(sources_.rows_per_group(kernels.lanes) * most_taps);
}

template <class E>
auto DirectPass<E>::make_sub_problem(const DirectTiling& tiling) const -> SubProblem {
    const int lanes = kernels_.lanes;
    SubProblem sub{};
    static_cast<DirectTiling&>(sub) = tiling;
    sub.channel_stride = odd_lines<E>(sub.layout.entries);
    sub.block_size = lanes * (planar_samples_ ? sub.channel_stride : sub.layout.entries);
    sub.steps = lanes;
    sub.tail_steps = sources_.tail_lanes;
    sub.weight_step = lanes;
    if (sub.step_axis >= 0) {
        sub.steps = sub.tail_steps = static_cast<int>(sub.conv[sub.step_axis].taps);
        sub.weight_step = sub.step_axis == 1 ? lanes * sub.conv[2].taps : lanes;
    }
    for (const DenseConv& phase : sub.phases)
        sub.products.push_back(make_product(sub, phase));
    const std::int64_t rows = sub.bands.rows, pixels = sub.bands.pixels;
    const std::int64_t line = (rows - 1) * sub.layout.pixels + pixels;
    // Planar: whole lane vectors are read, beyond the last output, too.
    sub.buffer_size = static_cast<std::size_t>(sources_.per_group * sub.block_size + lanes);
    sub.sums_stride =
        planar_ ? odd_lines<E>((sub.one_line ? line + lanes : rows * sums_pitch<E>(sub)))
                : odd_lines<E>(rows * sub.layout.pixels * lanes * static_cast<std::ptrdiff_t>(sub.phases.size()));
    const std::int64_t sums = planar_ ? std::min<std::int64_t>(lanes, targets_.rows_per_group(lanes)) : sub.shape.cols;
    sub.sums_size = static_cast<std::size_t>(sub.sums_stride * sums);
    return sub;
}

// Reduction order: block by block, those with all lanes in use first (LaneBlocks), every tap of a block together.
template <class E>
auto DirectPass<E>::make_product(const SubProblem& sub, const DenseConv& phase) const -> PhaseProduct {
    const std::int64_t tap_count = product_of(&DenseAxis::taps, phase);
    const Index firsts = first_taps(phase, sub.step_axis);
    PhaseProduct product{};
    if (!sub.products.empty()) product.first_row = sub.products.back().end_row;
    product.end_row = product.first_row + sources_.rows_per_group(kernels_.lanes) * tap_count;
    product.full_blocks = sources_.full_per_group * static_cast<int>(tap_count);
    product.buffered = samples_in(sub, phase, sub.layout, sub.channel_stride);
    for (int block = 0; block < sources_.per_group; ++block)
        for (std::int64_t i = 0; i < firsts[0] * firsts[1] * firsts[2]; ++i) {
            const Index at = unravel(i, firsts);
            const std::int64_t tap = (at[0] * phase[1].taps + at[1]) * phase[2].taps + at[2];
            product.weight_offset.push_back((product.first_row + weight_row(block, tap, tap_count)) * kernels_.lanes);
        }
    return product;
}

// channel_stride: planar only.
template <class E>
SampleOffsets DirectPass<E>::samples_in(const SubProblem& sub, const DenseConv& phase, const BandLayout& layout,
                                        std::ptrdiff_t channel_stride) const {
    const Index taps = first_taps(phase, sub.step_axis);
    SampleOffsets samples{{}, channel_stride, layout.pixels};
    if (sub.step_axis >= 0) samples.step = phase[sub.step_axis].tap_step * (sub.step_axis == 1 ? layout.pixels : 1);
    const std::ptrdiff_t block = planar_samples_ ? channel_stride : layout.entries,
                         entry = planar_samples_ ? 1 : kernels_.lanes;
    const std::int64_t first = sub.first_entry(phase);
    for (int b = 0; b < sources_.per_group; ++b)
        for (std::int64_t i = 0; i < taps[0] * taps[1] * taps[2]; ++i)
            samples.blocks.push_back(b * block * kernels_.lanes +
                                     (first + layout.entry_of_tap(phase, unravel(i, taps))) * entry);
    return samples;
}

// The array as if it were the buffer, planar; none if it cannot be.
template <class E>
SampleOffsets DirectPass<E>::samples_in_array(const SubProblem& sub, const Tensor<const E>& from) const {
    if (!planar_ || from.along[2] != 1 || !serves_as_buffer(sub, from.along[1])) return {};
    return samples_in(sub, sub.phases.front(), sub.layout.of_array(sub.conv, from.along), from.inner);
}

// The first sample of a band in the array; null if not all are there of the lane vectors that the product reads.
template <class E>
const E* DirectPass<E>::first_in_array(const SubProblem& sub, const Tensor<const E>& from, const BandTask& task) const {
    const Index outputs{1, task.rows, task.pixels};
    const std::int64_t channel = sources_.blocks[static_cast<std::size_t>(task.group * sources_.per_group)].channel;
    Index rest;  // samples behind the last one needed
    for (int a = 0; a < axes; ++a) {
        const DenseAxis& axis = sub.conv[a];
        const std::int64_t begin = axis.source.index(axis.first_sample(task.t[a]));
        rest[a] = axis.source.size - begin - axis.samples(outputs[a]);
        if (begin < 0 || rest[a] < 0) return nullptr;
    }
    const std::int64_t line = sub.one_line ? (task.rows - 1) * sub.layout.pixels + task.pixels : task.pixels;
    if (can_move_back(sub.shape, ceil_div(line, std::int64_t{kernels_.lanes})))
        return first_sample(from, sub.conv, task.n, channel, task.t);
    const std::int64_t beyond = round_up(line, kernels_.lanes) - line;  // of a line's last lane vector
    const bool rows_adjoin = from.along[1] <= sub.conv[2].source.size;  // what lies between others need not be readable
    if (beyond > rest[2] + (sub.one_line && rows_adjoin ? rest[1] * from.along[1] : 0)) return nullptr;
    return first_sample(from, sub.conv, task.n, channel, task.t);
}

template <class E>
int DirectPass<E>::targets_at_once(const SubProblem& sub) const {
    return planar_ ? 1 : sub.shape.cols;
}

// Panels: for each target block and phase, one row of lane vectors for each (source block, tap, source lane), in the order
// of the reduction. This is the first row of a block and tap, from the phase's first on.
template <class E>
std::int64_t DirectPass<E>::weight_row(int block, std::int64_t tap, std::int64_t tap_count) const {
    const int used = block < sources_.full_per_group ? kernels_.lanes : sources_.tail_lanes;
    return sources_.row_of(block, kernels_.lanes) * tap_count + tap * used;
}

template <class E>
void DirectPass<E>::pack_weights(const Tensor<const E>& w, std::size_t index, E* panels, int max_threads) const {
    const SubProblem& sub = subs_[index];
    for (std::size_t i = 0; i < sub.phases.size(); ++i)
        pack_phase(w, sub.phases[i], panels + sub.products[i].first_row * kernels_.lanes, max_threads);
}

constexpr int most_run = 25;  // taps

template <class E>
void DirectPass<E>::pack_phase(const Tensor<const E>& w, const DenseConv& conv, E* panels, int max_threads) const {
    const std::int64_t tap_count = product_of(&DenseAxis::taps, conv);
    std::vector<std::ptrdiff_t> taps;  // where they are in w
    for (std::int64_t tap = 0; tap < tap_count; ++tap) {
        const Index q = unravel(tap, {conv[0].taps, conv[1].taps, conv[2].taps});
        taps.push_back(0);
        for (int a = 0; a < axes; ++a)
            taps.back() += (conv[a].first_tap + q[a] * conv[a].tap_stride) * w.along[a];
    }
    const bool to_input = pass_ == Pass::input_grad, as_runs = taps_are_runs(w, tap_count);
    std::vector<std::int64_t> order(as_runs ? taps.size() : 0);  // of the taps, as they are in w
    for (std::size_t tap = 0; tap < order.size(); ++tap)
        order[static_cast<std::size_t>(taps[tap])] = static_cast<std::int64_t>(tap);
    parallel_for(static_cast<std::int64_t>(targets_.blocks.size()), max_threads, [&](std::int64_t i, int) {
        const LaneBlock& target = targets_.blocks[static_cast<std::size_t>(i)];
        const std::int64_t group = i / targets_.per_group;
        for (int s = 0; s < sources_.per_group; ++s) {
            const LaneBlock& source = sources_.blocks[static_cast<std::size_t>(group * sources_.per_group + s)];
            const LaneBlock& x = to_input ? target : source;
            const LaneBlock& y = to_input ? source : target;
            const E* const first = w.data + y.channel * w.outer + x.channel % layer_.in_per_group() * w.inner;
            const auto panel = [&](std::int64_t tap) {
                return panels + i * panel_stride_ + weight_row(s, tap, tap_count) * kernels_.lanes;
            };
            // Many taps are read in several runs, which few lanes are not worth.
            if (as_runs && (tap_count <= most_run || 4 * y.lanes >= kernels_.lanes))
                pack_runs(w, first, x, y, order, panel);
            else
                pack_taps(first, to_input ? w.outer : w.inner, to_input ? w.inner : w.outer, target, source, taps,
                          panel);
        }
    });
}

// Rows of lane vectors for each tap: of a target block, from the lanes of a source block, which are "pixels".
template <class E>
template <class Panel>
void DirectPass<E>::pack_taps(const E* w, std::ptrdiff_t source_stride, std::ptrdiff_t target_stride,
                              const LaneBlock& target, const LaneBlock& source, const std::vector<std::ptrdiff_t>& taps,
                              const Panel& panel) const {
    RowArgs<E> row{};
    row.lane_stride = target_stride;
    row.pixel_stride = source_stride;
    row.lane_count = target.lanes;
    row.count = source.lanes;
    for (std::size_t tap = 0; tap < taps.size(); ++tap) {
        row.source = w + taps[tap];
        row.lanes = panel(static_cast<std::int64_t>(tap));
        kernels_.read_row(row);
    }
}

// The same where the taps of an input channel follow each other: they are read as runs, with the output channels in the
// lanes, and sorted afterwards.
template <class E>
bool DirectPass<E>::taps_are_runs(const Tensor<const E>& w, std::int64_t taps) const {
    std::int64_t stride = 1;
    for (int a = axes - 1; a >= 0; --a) {
        if (layer_.axis[a].kernel > 1 && w.along[a] != stride) return false;
        stride *= layer_.axis[a].kernel;
    }
    return taps > 1 && taps == stride;
}

template <class E>
template <class Panel>
void DirectPass<E>::pack_runs(const Tensor<const E>& w, const E* first, const LaneBlock& x, const LaneBlock& y,
                              const std::vector<std::int64_t>& order, const Panel& panel) const {
    const std::ptrdiff_t lanes = kernels_.lanes, tap_count = static_cast<std::ptrdiff_t>(order.size());
    alignas(64) E runs[most_lanes * most_run * most_lanes];  // [channel of x][tap] lane vectors of y's channels
    alignas(64) E square[most_lanes * most_lanes];
    RowArgs<E> row{};
    row.lane_stride = w.outer;
    row.pixel_stride = 1;
    row.lane_count = y.lanes;
    const EqualParts parts(static_cast<int>(tap_count), most_run);
    for (int part = 0; part < parts.count; ++part) {
        const std::ptrdiff_t first_tap = parts.first(part), part_taps = parts.size(part);
        const bool adjoin = parts.count == 1 && w.inner == tap_count;  // runs of all channels
        for (std::ptrdiff_t c = 0; c < (adjoin ? 1 : x.lanes); ++c) {
            row.source = first + c * w.inner + first_tap;
            row.lanes = runs + c * part_taps * lanes;
            row.count = adjoin ? x.lanes * part_taps : part_taps;
            kernels_.read_row(row);
        }
        std::fill(runs + x.lanes * part_taps * lanes, runs + lanes * part_taps * lanes, E(0));
        for (std::ptrdiff_t i = 0; i < part_taps; ++i) {
            const E* const from = runs + i * lanes;
            E* const to = panel(order[static_cast<std::size_t>(first_tap + i)]);
            if (pass_ == Pass::input_grad) {
                kernels_.transpose({from, square, part_taps * lanes, lanes, 0, 0, 1});
                std::copy_n(square, y.lanes * lanes, to);
            } else {
                for (int c = 0; c < x.lanes; ++c)
                    std::copy_n(from + c * part_taps * lanes, lanes, to + c * lanes);
            }
        }
    }
}

template <class E>
void DirectPass<E>::read_band(const Tensor<const E>& from, const SubProblem& sub, const BandTask& task,
                              E* buffer) const {
    const std::ptrdiff_t next_band = task.pixels * sub.conv[2].step * sub.conv[2].source.step * from.along[2];
    for (int s = 0; s < sources_.per_group; ++s) {
        const LaneBlock& block = sources_.blocks[static_cast<std::size_t>(task.group * sources_.per_group + s)];
        const bool last = s + 1 == sources_.per_group;
        E* const to = buffer + s * sub.block_size;
        if (!planar_samples_)
            read_samples(kernels_, from, task.n, block, sub.conv, sub.layout, task.t, to, last ? nullptr : &block + 1);
        else
            for (int l = 0; l < block.lanes; ++l)
                read_plane(kernels_, from, task.n, block.channel + l, sub.conv, sub.layout, task.t,
                           last && l + 1 == block.lanes ? next_band : from.inner, to + l * sub.channel_stride);
    }
}

// `count` target blocks of the group from `target` on. first_in_array: null if the samples are in the buffer.
template <class E>
void DirectPass<E>::compute_targets(const SubProblem& sub, const BandTask& task, int target, int count, const E* panels,
                                    const E* first_in_array, const SampleOffsets& in_array,
                                    const Scratch& scratch) const {
    E* sums = scratch.sums;
    const E* const weights = panels + (task.group * targets_.per_group + target) * panel_stride_;
    for (const PhaseProduct& product : sub.products) {
        multiply(sub, product, task, target, count, weights, first_in_array ? first_in_array : scratch.buffer,
                 first_in_array ? in_array : product.buffered, sums, scratch.partial);
        sums += kernels_.lanes;
    }
}

template <class E>
void DirectPass<E>::multiply(const SubProblem& sub, const PhaseProduct& product, const BandTask& task, int target,
                             int count, const E* weights, const E* first_sample, const SampleOffsets& samples, E* sums,
                             E* partial) const {
    const int lanes = kernels_.lanes;
    const std::int64_t outputs = sub.one_line ? (task.rows - 1) * sub.layout.pixels + task.pixels : task.pixels;
    ProductLines lines;
    lines.count = sub.one_line ? 1 : task.rows;
    ProductArgs<E> args{};
    args.c = sums;
    args.blocks = static_cast<int>(samples.blocks.size());
    args.full_blocks = product.full_blocks;
    args.length = sub.steps;
    args.tail_length = sub.tail_steps;
    if (planar_) {
        args.a = weights;
        args.b = first_sample;
        args.a_offset = product.weight_offset.data();
        args.b_offset = samples.blocks.data();
        args.a_row = 1;
        args.a_step = sub.weight_step;
        args.b_step = samples.step;
        args.b_col = args.c_col = lanes;
        args.c_row = sub.sums_stride;
        lines.b = samples.line;
        lines.c = sums_pitch<E>(sub);
        const int rows = targets_.blocks[static_cast<std::size_t>(task.group * targets_.per_group + target)].lanes;
        const int cols = static_cast<int>(ceil_div(outputs, lanes));
        if (can_move_back(sub.shape, cols)) lines.back = cols * lanes - outputs;
        multiply_lines(kernels_, sub.shape, args, lines, rows, cols, partial);
    } else {
        args.a = first_sample;
        args.b = weights;
        args.a_offset = samples.blocks.data();
        args.b_offset = product.weight_offset.data();
        args.a_row = planar_samples_ ? 1 : lanes;
        args.a_step = planar_samples_ ? samples.step : 1;
        args.b_step = lanes;
        args.b_col = panel_stride_;
        args.c_row = lanes * static_cast<std::ptrdiff_t>(sub.phases.size());  // they take turns
        args.c_col = sub.sums_stride;
        lines.a = sub.layout.pixels * args.a_row;
        lines.c = sub.layout.pixels * args.c_row;
        multiply_lines(kernels_, sub.shape, args, lines, static_cast<int>(outputs), count, partial);
    }
}

template <class E>
void DirectPass<E>::write_target(const Run& run, const SubProblem& sub, const BandTask& task, int block_index, E* sums,
                                 std::vector<DamagedBox>& damage) const {
    const int lanes = kernels_.lanes;
    const LaneBlock& block = targets_.blocks[static_cast<std::size_t>(block_index)];
    const Tensor<E>& to = this->target(run.operands);
    const E* const block_bias = run.bias ? run.bias + block_index * lanes : nullptr;
    if (!planar_) {
        const std::ptrdiff_t line = sub.layout.pixels * static_cast<std::ptrdiff_t>(sub.phases.size()) * lanes;
        return write_joined_rows(kernels_, to, sub, {task.n, block, task.t, task.pixels, task.rows}, line, sums,
                                 block_bias, damage);
    }
    write_plane_rows(kernels_, to, sub.conv, {task.n, block, task.t, task.pixels, task.rows},
                     {sums_pitch<E>(sub), sub.sums_stride}, sums, block_bias, damage);
}

template <class E>
void DirectPass<E>::run_bands(const Run& run, std::size_t conv, const E* panels) const {
    const SubProblem& sub = subs_[conv];
    const std::int64_t bands = layer_.batch * targets_.groups * band_count(sub.conv, sub.bands);
    // Few bands: several threads share one. That changes no sum.
    const int at_once = targets_at_once(sub);
    const std::int64_t target_steps = ceil_div(targets_.per_group, at_once);
    const std::int64_t shares =
        run.slots == 1 ? 1 : std::clamp<std::int64_t>(ceil_div(2 * run.slots, bands), 1, target_steps);
    const Tensor<const E>& from = this->source(run.operands);
    const SampleOffsets in_array = samples_in_array(sub, from);
    parallel_for(bands * shares, run.slots, [&](std::int64_t index, int slot) {
        const std::int64_t share = index % shares;
        const BandTask task = band_task(sub.conv, sub.bands, targets_.groups, index / shares);
        if (task.rows == 0 || task.pixels == 0) return;
        const Scratch scratch = this->scratch_of(run, slot);
        const E* const first = in_array.blocks.empty() ? nullptr : first_in_array(sub, from, task);
        if (!first) read_band(from, sub, task, scratch.buffer);
        for (std::int64_t step = share * target_steps / shares; step < (share + 1) * target_steps / shares; ++step) {
            const int target = static_cast<int>(step) * at_once;
            const int count = std::min(at_once, targets_.per_group - target);
            compute_targets(sub, task, target, count, panels, first, in_array, scratch);
            for (int k = 0; k < count; ++k)
                write_target(run, sub, task, task.group * targets_.per_group + target + k,
                             scratch.sums + k * sub.sums_stride, run.damage.of(slot));
        }
    });
}

template class DirectPass<float>;
template class DirectPass<double>;

}  // namespace triconv
