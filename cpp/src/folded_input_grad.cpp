#include "folded_input_grad.h"

#include <algorithm>
#include <limits>

#include "parallel.h"

namespace triconv {

namespace {

// What an algorithm prepared starts on a cache line, as its workspace does.
template <class E>
std::size_t whole_lines(std::size_t elements) {
    constexpr std::size_t line = 64 / sizeof(E);
    return (elements + line - 1) / line * line;
}

template <class E>
std::unique_ptr<PassAlgorithm<E>> cheapest_within(const KernelTable<E>& kernels, const Layer& layer,
                                                  const Costed& limits) {
    const std::vector<Costed> all = cost_candidates(kernels, layer, Pass::input_grad,
                                                    parse_algorithm(limits.direct ? "direct" : "auto", layer.rank));
    const Costed* best = nullptr;
    for (const Costed& costed : all) {
        const Candidate& candidate = costed.candidate;
        const bool fits = candidate.possible && candidate.error_bound <= limits.candidate.error_bound &&
                          candidate.workspace_bytes <= limits.candidate.workspace_bytes;
        if (!costed.direct && !fits) continue;
        if (!best || candidate.predicted_seconds < best->candidate.predicted_seconds) best = &costed;
    }
    return make_pass(kernels, layer, Pass::input_grad, *best);
}

}  // namespace

template <class E>
FoldedInputGrad<E>::FoldedInputGrad(const KernelTable<E>& kernels, const Layer& layer, const Costed& costed)
    : PassAlgorithm<E>(layer, Pass::input_grad),
      array_(make_pass(kernels, layer.zero_padded(), Pass::input_grad, costed)) {
    if (layer.boundary() == Boundary::constant) return;  // copies no sample
    for (int axis = 0; axis < axes; ++axis)
        for (bool before : {true, false})
            add_slab(kernels, costed, axis, before);
}

template <class E>
void FoldedInputGrad<E>::add_slab(const KernelTable<E>& kernels, const Costed& costed, int axis, bool before) {
    Slab slab{layer_.zero_padded(), {}, {}, {}, nullptr};
    for (int a = 0; a < axes; ++a) {
        const Axis& whole = layer_.axis[a];
        const Range all{whole.outside.begin, whole.outside.end};
        const AxisPart part = a < axis   ? part_of(whole, 0, whole.in)
                              : a > axis ? part_of(whole, all.begin, all.end)
                              : before   ? part_of(whole, all.begin, 0)
                                         : part_of(whole, whole.in, all.end);
        if (part.empty) return;
        slab.layer.axis[a] = part.axis;
        slab.position[a] = part.position;
        slab.output[a] = part.output;
        slab.tap[a] = part.tap;
    }
    slab.algorithm = cheapest_within(kernels, slab.layer, costed);
    buffer_size_ = std::max(buffer_size_, whole_lines<E>(slab.size()));
    slabs_.push_back(std::move(slab));
}

template <class E>
Tensor<const E> FoldedInputGrad<E>::Slab::weights(const Tensor<const E>& w) const {
    return {w.data + w.offset_of(tap), w.outer, w.inner, w.along};
}

template <class E>
Tensor<E> FoldedInputGrad<E>::Slab::array(E* buffer) const {
    const std::int64_t row = layer.axis[2].in, plane = layer.axis[1].in * row;
    return {buffer, layer.in_channels * layer.inputs(), layer.inputs(), {plane, row, 1}};
}

template <class E>
std::size_t FoldedInputGrad<E>::Slab::size() const {
    return static_cast<std::size_t>(layer.batch * layer.in_channels * layer.inputs());
}

template <class E>
WorkspaceNeed FoldedInputGrad<E>::workspace() const {
    WorkspaceNeed most = array_->workspace();
    const std::int64_t buffer = static_cast<std::int64_t>(buffer_size_ * sizeof(E));
    for (const Slab& slab : slabs_) {
        const WorkspaceNeed need = slab.algorithm->workspace();
        most.fixed = std::max(most.fixed, buffer + need.fixed);
        most.per_thread = std::max(most.per_thread, need.per_thread);
    }
    return most;
}

template <class E>
std::int64_t FoldedInputGrad<E>::workspace_bytes(int slots) const {
    std::int64_t most = array_->workspace_bytes(slots);
    for (const Slab& slab : slabs_)
        most = std::max(most,
                        static_cast<std::int64_t>(buffer_size_ * sizeof(E)) + slab.algorithm->workspace_bytes(slots));
    return most;
}

template <class E>
std::size_t FoldedInputGrad<E>::prepared_size() const {
    std::size_t size = whole_lines<E>(array_->prepared_size());
    for (const Slab& slab : slabs_)
        size += whole_lines<E>(slab.algorithm->prepared_size());
    return size;
}

template <class E>
void FoldedInputGrad<E>::prepare(const Tensor<const E>& w, E* prepared, int max_threads) const {
    array_->prepare(w, prepared, max_threads);
    prepared += whole_lines<E>(array_->prepared_size());
    for (const Slab& slab : slabs_) {
        slab.algorithm->prepare(slab.weights(w), prepared, max_threads);
        prepared += whole_lines<E>(slab.algorithm->prepared_size());
    }
}

namespace {

// Adds values to the samples of a row that a run of positions copies; the sum of 0 times each new value: not 0 if one is
// not finite. Many copies of one sample are added up in double first.
template <class E>
E add_run(const E* values, std::int64_t count, E* to, std::ptrdiff_t step) {
    if (step == 0) {
        double sum = 0;
        for (std::int64_t i = 0; i < count; ++i)
            sum += static_cast<double>(values[i]);
        *to = static_cast<E>(static_cast<double>(*to) + sum);
        return *to * E(0);
    }
    E test = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        E& value = to[i * step];
        value += values[i];
        test += value * E(0);
    }
    return test;
}

template <class E>
void set_nan(const Tensor<E>& tensor, const std::vector<DamagedBox>& boxes, int slots) {
    set_outputs(tensor, boxes, slots,
                [](std::int64_t, std::int64_t, const Index&) { return std::numeric_limits<E>::quiet_NaN(); });
}

// Boxes for the elements that are not finite, of the channels (of all images) flagged, in runs along rows.
template <class E>
void append_non_finite(const Layer& layer, const Tensor<E>& dx, const std::vector<char>& flagged,
                       std::vector<DamagedBox>& boxes) {
    const auto& axis = layer.axis;
    const std::array<SubGrid, axes> grid{{{0, 1, axis[0].in}, {0, 1, axis[1].in}, {0, 1, axis[2].in}}};
    for (std::size_t i = 0; i < flagged.size(); ++i) {
        if (!flagged[i]) continue;
        const std::int64_t n = static_cast<std::int64_t>(i) / layer.in_channels,
                           c = static_cast<std::int64_t>(i) % layer.in_channels;
        for_each_index(layer.input_extent(), [&](const Index& at) {
            if (std::isfinite(dx.element(n, c, at))) return;
            const Index end{at[0] + 1, at[1] + 1, at[2] + 1};
            if (!boxes.empty() && boxes.back().n == n && boxes.back().block.channel == c &&
                boxes.back().end == Index{end[0], end[1], at[2]})
                boxes.back().end = end;
            else
                boxes.push_back({n, {c, 0, 1, {}}, grid, at, end});
        });
    }
}

}  // namespace

// Flags the channels (of all images) that have values now that are not finite.
template <class E>
void FoldedInputGrad<E>::fold(const Slab& slab, const Tensor<E>& gradient, const Tensor<E>& dx,
                              std::vector<char>& flagged, int slots) const {
    constexpr std::int64_t rows_ahead = 8;  // where a slab is a few columns, each row is a cache line of its own
    const auto& axis = slab.layer.axis;
    std::array<SubGrid, axes> grid;
    for (int a = 0; a < axes; ++a)
        grid[a] = {slab.position[a], 1, layer_.axis[a].in, layer_.axis[a].outside};
    std::vector<SampleRun> runs;  // along a row
    for (std::int64_t x = 0; x < axis[2].in; x = runs.back().end)
        runs.push_back(grid[2].run_from(x, axis[2].in));
    parallel_for(layer_.batch * layer_.in_channels, slots, [&](std::int64_t i, int) {
        const std::int64_t n = i / layer_.in_channels, c = i % layer_.in_channels;
        E test = 0;
        for (std::int64_t z = 0; z < axis[0].in; ++z)
            for (std::int64_t y = 0; y < axis[1].in; ++y) {
                const E* const from = gradient.address_of(n, c, {z, y, 0});
                E* const to = dx.address_of(n, c, {grid[0].sample(z), grid[1].sample(y), 0});
                __builtin_prefetch(to + rows_ahead * dx.along[1] + runs.front().index * dx.along[2]);
                std::int64_t x = 0;
                for (const SampleRun& run : runs) {
                    test += add_run(from + x, run.end - x, to + run.index * dx.along[2], run.step * dx.along[2]);
                    x = run.end;
                }
            }
        if (!(test == E(0))) flagged[static_cast<std::size_t>(i)] = 1;
    });
}

// Outputs that the parts could not compute are NaN, as is every sum that they enter; dx is left to the definition of the
// whole there.
template <class E>
RunCounts FoldedInputGrad<E>::compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const {
    if (slabs_.empty()) return array_->compute(operands, slots, workspace, damage);
    const Tensor<E>& dx = operands.dx;
    Damage of_array(slots);
    RunCounts counts = array_->compute(operands, slots, workspace, of_array);
    const std::vector<DamagedBox> boxes = of_array.all();
    set_nan(dx, boxes, slots);
    std::vector<char> flagged(static_cast<std::size_t>(layer_.batch * layer_.in_channels));
    for (const DamagedBox& box : boxes)
        for (int l = 0; l < box.block.lanes; ++l)
            flagged[static_cast<std::size_t>(box.n * layer_.in_channels + box.block.channel +
                                             l * box.block.channel_step)] = 1;

    char* const slab_workspace = workspace + buffer_size_ * sizeof(E);
    const E* prepared = operands.prepared;
    if (prepared) prepared += whole_lines<E>(array_->prepared_size());
    for (const Slab& slab : slabs_) {
        const Tensor<E> gradient = slab.array(reinterpret_cast<E*>(workspace));
        Operands<E> of_slab = operands;
        of_slab.w = slab.weights(operands.w);
        of_slab.dy.data += operands.dy.offset_of(slab.output);
        of_slab.dx = gradient;
        of_slab.prepared = prepared;
        if (prepared) prepared += whole_lines<E>(slab.algorithm->prepared_size());
        Damage of_gradient(slots);
        counts.tiles += slab.algorithm->compute(of_slab, slots, slab_workspace, of_gradient).tiles;
        set_nan(gradient, of_gradient.all(), slots);
        fold(slab, gradient, dx, flagged, slots);
    }
    append_non_finite(layer_, dx, flagged, damage.of(0));
    return counts;
}

template class FoldedInputGrad<float>;
template class FoldedInputGrad<double>;

}  // namespace triconv
