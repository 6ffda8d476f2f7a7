#include "band_pass.h"

#include <algorithm>
#include <utility>

#include "parallel.h"

namespace triconv {

template <class E>
BandPass<E>::BandPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, bool lanewise)
    : PassAlgorithm<E>(layer, pass),
      kernels_(kernels),
      sources_(input_blocks(layer, kernels.lanes, lanewise, false)),
      targets_(output_blocks(layer, kernels.lanes, lanewise)) {
    if (pass == Pass::input_grad) std::swap(sources_, targets_);
}

template <class E>
void BandPass<E>::add(const std::vector<DenseConv>& convs) {
    ++conv_count_;
    for (const DenseConv& conv : convs)
        covered_ += (conv[0].end - conv[0].begin) * (conv[1].end - conv[1].begin) * (conv[2].end - conv[2].begin);
}

template <class E>
void BandPass<E>::set_panels(std::int64_t rows) {
    panel_stride_ = odd_lines<E>(rows * kernels_.lanes);
    panels_size_ = targets_.blocks.size() * static_cast<std::size_t>(panel_stride_);
}

template <class E>
WorkspaceNeed BandPass<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<E>(panels_size_);
    fixed.add<E>(targets_.blocks.size() * static_cast<std::size_t>(kernels_.lanes));  // bias
    for (std::size_t size : {buffer_size_, sums_size_, partial_size_})
        per_thread.add<E>(size);
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

template <class E>
auto BandPass<E>::scratch_of(const Run& run, int slot) const -> Scratch {
    char* const base = run.scratch + run.scratch_bytes * static_cast<std::size_t>(slot);
    ArenaLayout layout;
    const auto next = [&](std::size_t size) { return reinterpret_cast<E*>(base + layout.add<E>(size)); };
    E* const buffer = next(buffer_size_);
    E* const sums = next(sums_size_);
    return {buffer, sums, next(partial_size_)};
}

// The panels of one convolution after the other, each a whole number of cache lines.
template <class E>
void BandPass<E>::prepare(const Tensor<const E>& w, E* prepared, int max_threads) const {
    for (std::size_t conv = 0; conv < conv_count_; ++conv, prepared += panels_size_)
        pack_weights(w, conv, prepared, max_threads);
}

template <class E>
RunCounts BandPass<E>::compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const {
    const WorkspaceNeed need = this->workspace();
    E* const packed = reinterpret_cast<E*>(workspace);
    ArenaLayout fixed;
    fixed.add<E>(panels_size_);
    E* const bias = operands.bias ? reinterpret_cast<E*>(workspace + fixed.size()) : nullptr;
    if (bias) spread_bias(operands, targets_, kernels_.lanes, bias);
    if (pass_ == Pass::input_grad && covered_ < layer_.inputs())
        fill_zero(operands.dx, layer_.batch, layer_.in_channels, layer_.input_extent(), slots);
    const Run run{operands, bias, slots, damage, workspace + need.fixed, static_cast<std::size_t>(need.per_thread)};
    for (std::size_t conv = 0; conv < conv_count_; ++conv) {
        if (!operands.prepared) pack_weights(operands.w, conv, packed, slots);
        run_bands(run, conv, operands.prepared ? operands.prepared + conv * panels_size_ : packed);
    }
    return {};
}

template class BandPass<float>;
template class BandPass<double>;

}  // namespace triconv
