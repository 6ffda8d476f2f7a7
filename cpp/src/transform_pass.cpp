#include "transform_pass.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "reference.h"
#include "workspace.h"

namespace triconv {

namespace {

std::int64_t sub_outputs(const Axis& a) {
    return ceil_div(a.out, a.out_step);
}  // of output phase 0

Index output_extent(const Layer& layer) {
    Index extent;
    for (int a = 0; a < axes; ++a)
        extent[a] = sub_outputs(layer.axis[a]);
    return extent;
}

Index support_end(const Layer& layer) {
    Index end;
    for (int a = 0; a < axes; ++a)
        end[a] = input_support(layer.axis[a]).end;
    return end;
}

Index input_extent(const Layer& layer) {
    return {layer.axis[0].in, layer.axis[1].in, layer.axis[2].in};
}

// ---- stages over many tasks -----------------------------------------------------------------------------------------

template <class E>
void read_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch, TileRole role,
                const TileMap<const E>& map, const std::vector<Strip>& strips, const Spectra<E>& spectra) {
    const std::int64_t blocks = static_cast<std::int64_t>(map.blocks->blocks.size());
    runner(static_cast<std::int64_t>(strips.size()) * blocks, [&](std::int64_t i, int slot) {
        engine.read_tiles(role, map, strips[static_cast<std::size_t>(i / blocks)], static_cast<int>(i % blocks),
                          spectra, scratch(slot));
    });
}

template <class E>
void kernel_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
                  const Tensor<const E>& w, bool to_input, bool flip, const Spectra<E>& spectra) {
    const LaneBlocks& targets = engine.blocks(to_input);
    const int sources = engine.blocks(!to_input).per_group;
    runner(static_cast<std::int64_t>(targets.blocks.size()) * sources, [&](std::int64_t i, int slot) {
        const int target = static_cast<int>(i / sources);
        const int source = target / targets.per_group * sources + static_cast<int>(i % sources);
        engine.read_kernels(w, to_input, target, source, flip, spectra, scratch(slot));
    });
}

// Rows are cut, too, when there are few bins: by a fixed number, as the cut must not depend on the thread count.
template <class E>
void multiply_stage(const Engine<E>& engine, const Runner& runner, ProductKind kind, bool to_input, const Spectra<E>& a,
                    const Spectra<E>& w, const Spectra<E>& c, int rows) {
    constexpr int part = 96;
    const auto& bins = engine.transform().bins();
    const int parts = (rows + part - 1) / part;
    runner(static_cast<std::int64_t>(bins.size()) * parts, [&](std::int64_t i, int) {
        const int first = static_cast<int>(i % parts) * part;
        engine.multiply(bins[static_cast<std::size_t>(i / parts)], kind, to_input, a, w, c, first,
                        std::min(rows, first + part));
    });
}

template <class E>
void multiply_weight_grad_stage(const Engine<E>& engine, const Runner& runner, const Spectra<E>& dy,
                                const Spectra<E>& x, const Spectra<E>& dw, int rows, bool accumulate) {
    const auto& bins = engine.transform().bins();
    const std::int64_t y_blocks = static_cast<std::int64_t>(engine.y_blocks().blocks.size());
    runner(static_cast<std::int64_t>(bins.size()) * y_blocks, [&](std::int64_t i, int) {
        engine.multiply_weight_grad(bins[static_cast<std::size_t>(i / y_blocks)], dy, x, dw, rows,
                                    static_cast<int>(i % y_blocks), accumulate);
    });
}

template <class E>
void write_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
                 const TileMap<E>& map, const std::vector<Strip>& strips, const Spectra<E>& spectra, const E* bias,
                 Damage& damage) {
    const std::int64_t blocks = static_cast<std::int64_t>(map.blocks->blocks.size());
    runner(static_cast<std::int64_t>(strips.size()) * blocks, [&](std::int64_t i, int slot) {
        const int block = static_cast<int>(i % blocks);
        engine.write_tiles(map, strips[static_cast<std::size_t>(i / blocks)], block, spectra,
                           bias ? bias + block * engine.lanes() : nullptr, scratch(slot), damage.of(slot));
    });
}

// A task owns one lane block of one image: its overlapping tiles are added in order, whoever runs it.
template <class E>
void add_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
               const TileMap<E>& map, const std::vector<Strip>& strips, const Spectra<E>& spectra, Damage& damage) {
    const std::int64_t blocks = static_cast<std::int64_t>(map.blocks->blocks.size());
    const std::int64_t first = strips.front().image, images = strips.back().image - first + 1;
    runner(images * blocks, [&](std::int64_t i, int slot) {
        for (const Strip& strip : strips)
            if (strip.image == first + i / blocks)
                engine.add_tiles(map, strip, static_cast<int>(i % blocks), spectra, scratch(slot), damage.of(slot));
    });
}

// Inverse transform of dw's spectra; returns the number of lane blocks computed again.
template <class E>
std::int64_t write_kernels_stage(const Engine<E>& engine, const std::function<E*(int)>& scratch,
                                 const Operands<E>& operands, const Spectra<E>& spectra, int max_threads, int slots) {
    const LaneBlocks& xs = engine.x_blocks();
    const LaneBlocks& ys = engine.y_blocks();
    const Layer& layer = engine.layer();
    std::vector<std::int64_t> recomputed(static_cast<std::size_t>(slots), 0);
    parallel_for(static_cast<std::int64_t>(xs.blocks.size()) * ys.per_group, max_threads,
                 [&](std::int64_t i, int slot) {
                     const int x_block = static_cast<int>(i / ys.per_group);
                     const int y_block = x_block / xs.per_group * ys.per_group + static_cast<int>(i % ys.per_group);
                     if (!engine.write_kernels(operands.dw, x_block, y_block, spectra, scratch(slot))) return;
                     ++recomputed[static_cast<std::size_t>(slot)];
                     const LaneBlock& x = xs.blocks[static_cast<std::size_t>(x_block)];
                     const LaneBlock& y = ys.blocks[static_cast<std::size_t>(y_block)];
                     Index step;
                     for (int a = 0; a < axes; ++a)
                         step[a] = layer.axis[a].tap_step;
                     recompute_weight_grad(layer, operands, x, y, engine.lanewise(), x.phase, step);
                 });
    std::int64_t total = 0;
    for (std::int64_t count : recomputed)
        total += count;
    return total;
}

template <class E>
auto forward_by_definition(const Layer& layer, const Operands<E>& operands) {
    return [&layer, &operands](std::int64_t n, std::int64_t k, const Index& o) {
        return forward_value(layer, operands, n, k, o);
    };
}

template <class E>
auto input_grad_by_definition(const Layer& layer, const Operands<E>& operands) {
    return [&layer, &operands](std::int64_t n, std::int64_t c, const Index& i) {
        return reference_input_grad_at(layer, operands.w, operands.dy, n, c, i);
    };
}

// ---- operands of the passes -----------------------------------------------------------------------------------------

template <class E>
TileMap<const E> x_map(const Engine<E>& engine, const Operands<E>& operands) {
    return {operands.x, &engine.x_blocks(), true, {}, {}};
}
template <class E>
TileMap<const E> dy_map(const Engine<E>& engine, const Operands<E>& operands) {
    return {operands.dy, &engine.y_blocks(), false, {}, {}};
}
template <class E>
TileMap<E> y_map(const Engine<E>& engine, const Operands<E>& operands) {
    return {operands.y, &engine.y_blocks(), false, {}, output_extent(engine.layer())};
}
template <class E>
TileMap<E> dx_map(const Engine<E>& engine, const Operands<E>& operands) {
    return {operands.dx, &engine.x_blocks(), true, {}, support_end(engine.layer())};
}

}  // namespace

TileGrid tile_grid(const Layer& layer, Pass pass, const TileShape& shape) {
    TileGrid grid;
    grid.images = layer.batch * layer.output_phases();
    for (int a = 0; a < axes; ++a) {
        const Axis& axis = layer.axis[a];
        const Range support = input_support(axis);
        const std::int64_t samples = pass == Pass::input_grad ? support.end - support.begin : sub_outputs(axis);
        grid.tiles[a] = ceil_div(samples, shape.outputs[a]);
    }
    return grid;
}

// ---- one pass -------------------------------------------------------------------------------------------------------

template <class E>
struct TransformPass<E>::Arena {
    char* fixed;
    char* per_thread;
    std::size_t per_thread_size, scratch_at;
    Damage* damage;

    E* part(bool of_thread, int slot, std::size_t at) const {
        return reinterpret_cast<E*>(
            (of_thread ? per_thread + static_cast<std::size_t>(slot) * per_thread_size : fixed) + at);
    }
    E* scratch(int slot) const { return part(true, slot, scratch_at); }
};

template <class E>
TransformPass<E>::TransformPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape,
                                const Blocking& blocking)
    : engine_(kernels, layer, shape), pass_(pass), grid_(tile_grid(layer, pass, shape)), blocking_(blocking) {
    blocking_.tiles = std::clamp<std::int64_t>(blocking.tiles, 1, std::max<std::int64_t>(1, grid_.count()));
    if (pass == Pass::weight_grad) {  // all blocks add to one dw; rows of a block are summed in one go
        blocking_.fused = false;
        blocking_.tiles = std::min<std::int64_t>(blocking_.tiles, max_reduction);
    }
    const int planes = engine_.transform().planes(), lanes = kernels.lanes;
    const std::size_t xs = engine_.x_blocks().blocks.size(), ys = engine_.y_blocks().blocks.size();
    const bool to_input = pass == Pass::input_grad;
    if (pass == Pass::weight_grad) {
        const int rows = engine_.lanewise() ? engine_.y_blocks().per_group : engine_.y_blocks().rows_per_group(lanes);
        a_ = SpectraShape::make<E>(planes, ys, blocking_.tiles, lanes);
        b_ = SpectraShape::make<E>(planes, xs, blocking_.tiles, lanes);
        c_ = SpectraShape::make<E>(planes, xs, rows, lanes);
    } else {
        const LaneBlocks& sources = engine_.blocks(!to_input);
        const int rows = engine_.lanewise() ? sources.per_group : sources.rows_per_group(lanes);
        a_ = SpectraShape::make<E>(planes, to_input ? ys : xs, blocking_.tiles, lanes);
        b_ = SpectraShape::make<E>(planes, to_input ? xs : ys, rows, lanes);
        c_ = SpectraShape::make<E>(planes, to_input ? xs : ys, blocking_.tiles, lanes);
    }
    ArenaLayout fixed, per_thread;
    per_thread.add<E>(engine_.scratch_size());
    ArenaLayout& of_tiles = blocking_.fused ? per_thread : fixed;
    a_at_ = of_tiles.add<E>(a_.size);
    c_at_ = of_tiles.add<E>(c_.size);
    group_at_ = c_at_;
    if (pass == Pass::weight_grad && BlockGroups(block_count()).grouped) group_at_ = fixed.add<E>(c_.size);
    b_at_ = fixed.add<E>(b_.size);
    bias_at_ = fixed.add<E>(ys * static_cast<std::size_t>(lanes));
    fixed_ = fixed.size();
    per_thread_ = per_thread.size();
}

template <class E>
WorkspaceNeed TransformPass<E>::workspace() const {
    return {static_cast<std::int64_t>(fixed_), static_cast<std::int64_t>(per_thread_)};
}

// The one loop's body. a: spectra of the tiles read, b: of the kernels (x in weight_grad), c: the result.
template <class E>
void TransformPass<E>::run_block(const Operands<E>& operands, std::int64_t block, const Arena& arena, int slot,
                                 const Runner& runner) const {
    const std::int64_t first = block * blocking_.tiles, last = std::min(first + blocking_.tiles, grid_.count());
    const int rows = static_cast<int>(last - first);
    const std::vector<Strip> strips = strips_of(grid_, first, last, engine_.longest_strip());
    const Spectra<E> a{arena.part(blocking_.fused, slot, a_at_), a_}, b{arena.part(false, 0, b_at_), b_},
        c{arena.part(blocking_.fused, slot, c_at_), c_};
    const auto scratch = [&arena](int s) { return arena.scratch(s); };
    const E* const bias = operands.bias ? arena.part(false, 0, bias_at_) : nullptr;
    switch (pass_) {
        case Pass::forward:
            read_stage<E>(engine_, runner, scratch, TileRole::read_tile, x_map(engine_, operands), strips, a);
            multiply_stage(engine_, runner, ProductKind::complex_conj_b, false, a, b, c, rows);
            write_stage<E>(engine_, runner, scratch, y_map(engine_, operands), strips, c, bias, *arena.damage);
            return;
        case Pass::input_grad: {  // forward on dy with the flipped kernel: overlap-save, no seams
            TileMap<const E> from = dy_map(engine_, operands);
            TileMap<E> to = dx_map(engine_, operands);
            for (int axis = 0; axis < axes; ++axis) {
                to.origin[axis] = input_support(engine_.layer().axis[axis]).begin;
                from.origin[axis] = to.origin[axis] - (engine_.layer().axis[axis].taps - 1);
            }
            read_stage<E>(engine_, runner, scratch, TileRole::read_tile, from, strips, a);
            multiply_stage(engine_, runner, ProductKind::complex_conj_b, true, a, b, c, rows);
            write_stage<E>(engine_, runner, scratch, to, strips, c, nullptr, *arena.damage);
            return;
        }
        case Pass::weight_grad:
            read_stage<E>(engine_, runner, scratch, TileRole::read_grad, dy_map(engine_, operands), strips, a);
            read_stage<E>(engine_, runner, scratch, TileRole::read_tile, x_map(engine_, operands), strips, b);
            multiply_weight_grad_stage(engine_, runner, a, b, Spectra<E>{arena.part(false, 0, group_at_), c_}, rows,
                                       !BlockGroups(block_count()).starts(block));
            return;
    }
}

template <class E>
RunCounts TransformPass<E>::run(const Operands<E>& operands, int max_threads) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const Workspace workspace(fixed_ + per_thread_ * static_cast<std::size_t>(slots));
    Damage damage(slots);
    char* const base = static_cast<char*>(workspace.data());
    const Arena arena{base, base + fixed_, per_thread_, 0, &damage};
    const std::function<E*(int)> scratch = [&arena](int slot) { return arena.scratch(slot); };
    const Runner parallel = [slots](std::int64_t count, const auto& task) { parallel_for(count, slots, task); };

    const Layer& layer = engine_.layer();
    if (pass_ == Pass::forward && operands.bias)
        spread_bias(operands, engine_.y_blocks(), engine_.lanes(), arena.part(false, 0, bias_at_));
    if (pass_ != Pass::weight_grad)
        kernel_stage(engine_, parallel, scratch, operands.w, pass_ == Pass::input_grad, pass_ == Pass::input_grad,
                     Spectra<E>{arena.part(false, 0, b_at_), b_});
    if (pass_ == Pass::input_grad && !input_covered(layer))
        fill_zero(operands.dx, layer.batch, layer.in_channels, input_extent(layer), slots);

    const std::int64_t blocks = block_count();
    const BlockGroups groups(blocks);
    if (blocking_.fused) {
        parallel_for(blocks, slots, [&](std::int64_t block, int slot) {
            const Runner serial = [slot](std::int64_t count, const auto& task) {
                for (std::int64_t i = 0; i < count; ++i)
                    task(i, slot);
            };
            run_block(operands, block, arena, slot, serial);
        });
    } else {
        for (std::int64_t block = 0; block < blocks; ++block) {
            run_block(operands, block, arena, 0, parallel);
            if (pass_ == Pass::weight_grad && groups.ends(block, blocks))
                add_group(arena.part(false, 0, c_at_), arena.part(false, 0, group_at_), c_.size, block < groups.size,
                          slots);
        }
    }
    if (pass_ == Pass::weight_grad)
        return {grid_.count(), write_kernels_stage(engine_, scratch, operands,
                                                   Spectra<E>{arena.part(false, 0, c_at_), c_}, slots, slots)};
    const std::vector<DamagedBox> damaged = damage.all();
    if (pass_ == Pass::forward)
        recompute(operands.y, damaged, slots, forward_by_definition(engine_.layer(), operands));
    else
        recompute(operands.dx, damaged, slots, input_grad_by_definition(engine_.layer(), operands));
    return {grid_.count(), static_cast<std::int64_t>(damaged.size())};
}

template class TransformPass<float>;
template class TransformPass<double>;

// ---- a training step ------------------------------------------------------------------------------------------------

template <class E>
struct TransformStep<E>::Arena {
    Workspace workspace;
    std::size_t fixed, per_thread;

    E* at(std::size_t offset) const { return reinterpret_cast<E*>(static_cast<char*>(workspace.data()) + offset); }
    E* scratch(int slot) const { return at(fixed + static_cast<std::size_t>(slot) * per_thread); }
};

template <class E>
TransformStep<E>::TransformStep(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape,
                                std::int64_t tiles_per_block)
    : engine_(kernels, layer, shape),
      grid_(tile_grid(layer, Pass::forward, shape)),
      tiles_per_block_(
          std::clamp<std::int64_t>(tiles_per_block, 1, std::clamp<std::int64_t>(grid_.count(), 1, max_reduction))) {
    const int planes = engine_.transform().planes(), lanes = kernels.lanes;
    const std::size_t xs = engine_.x_blocks().blocks.size(), ys = engine_.y_blocks().blocks.size();
    const auto rows_of = [&](const LaneBlocks& blocks) {
        return engine_.lanewise() ? blocks.per_group : blocks.rows_per_group(lanes);
    };
    x_ = SpectraShape::make<E>(planes, xs, tiles_per_block_, lanes);
    y_ = SpectraShape::make<E>(planes, ys, tiles_per_block_, lanes);
    w_forward_ = SpectraShape::make<E>(planes, ys, rows_of(engine_.x_blocks()), lanes);
    w_backward_ = SpectraShape::make<E>(planes, xs, rows_of(engine_.y_blocks()), lanes);
    dw_ = w_backward_;  // dw's spectra have x's blocks as lanes and y's channels as rows, too
    ArenaLayout layout;
    y_at_ = layout.add<E>(y_.size);
    dx_at_ = layout.add<E>(x_.size);
    w_at_ = layout.add<E>(std::max(w_forward_.size, w_backward_.size));
    dw_at_ = group_at_ = layout.add<E>(dw_.size);
    if (BlockGroups(block_count()).grouped) group_at_ = layout.add<E>(dw_.size);
    bias_at_ = layout.add<E>(ys * static_cast<std::size_t>(lanes));
    fixed_ = layout.size();
    ArenaLayout thread;
    thread.add<E>(engine_.scratch_size());
    per_thread_ = thread.size();
}

template <class E>
WorkspaceNeed TransformStep<E>::workspace() const {
    return {static_cast<std::int64_t>(fixed_), static_cast<std::int64_t>(per_thread_)};
}

template <class E>
std::int64_t TransformStep<E>::kept_bytes() const {
    return block_count() * static_cast<std::int64_t>(x_.size * sizeof(E));
}

template <class E>
Spectra<E> TransformStep<E>::kept_block(const E* kept, std::int64_t block) const {
    return {const_cast<E*>(kept) + static_cast<std::size_t>(block) * x_.size, x_};
}

template <class E>
RunCounts TransformStep<E>::forward(const Operands<E>& operands, int max_threads, E* kept) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const Arena arena{Workspace(fixed_ + per_thread_ * static_cast<std::size_t>(slots)), fixed_, per_thread_};
    const std::function<E*(int)> scratch = [&arena](int slot) { return arena.scratch(slot); };
    const Runner runner = [slots](std::int64_t count, const auto& task) { parallel_for(count, slots, task); };
    const Spectra<E> w{arena.at(w_at_), w_forward_}, y{arena.at(y_at_), y_};
    E* const bias = operands.bias ? arena.at(bias_at_) : nullptr;
    if (bias) spread_bias(operands, engine_.y_blocks(), engine_.lanes(), bias);
    kernel_stage(engine_, runner, scratch, operands.w, false, false, w);
    Damage damage(slots);
    for (std::int64_t first = 0; first < grid_.count(); first += tiles_per_block_) {
        const std::int64_t last = std::min(first + tiles_per_block_, grid_.count());
        const std::vector<Strip> strips = strips_of(grid_, first, last, engine_.longest_strip());
        const Spectra<E> x = kept_block(kept, first / tiles_per_block_);
        read_stage<E>(engine_, runner, scratch, TileRole::read_tile, x_map(engine_, operands), strips, x);
        multiply_stage(engine_, runner, ProductKind::complex_conj_b, false, x, w, y, static_cast<int>(last - first));
        write_stage<E>(engine_, runner, scratch, y_map(engine_, operands), strips, y, bias, damage);
    }
    const std::vector<DamagedBox> damaged = damage.all();
    recompute(operands.y, damaged, slots, forward_by_definition(engine_.layer(), operands));
    return {grid_.count(), static_cast<std::int64_t>(damaged.size())};
}

template <class E>
RunCounts TransformStep<E>::backward(const Operands<E>& operands, int max_threads, const E* kept) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const Arena arena{Workspace(fixed_ + per_thread_ * static_cast<std::size_t>(slots)), fixed_, per_thread_};
    const std::function<E*(int)> scratch = [&arena](int slot) { return arena.scratch(slot); };
    const Runner runner = [slots](std::int64_t count, const auto& task) { parallel_for(count, slots, task); };
    const Spectra<E> w{arena.at(w_at_), w_backward_}, dy{arena.at(y_at_), y_}, dx{arena.at(dx_at_), x_},
        dw{arena.at(dw_at_), dw_}, group_dw{arena.at(group_at_), dw_};
    const Layer& layer = engine_.layer();
    if (operands.dx.data) {
        kernel_stage(engine_, runner, scratch, operands.w, true, false, w);
        fill_zero(operands.dx, layer.batch, layer.in_channels, input_extent(layer), slots);
    }
    Damage damage(slots);
    const BlockGroups groups(block_count());
    for (std::int64_t block = 0; block < block_count(); ++block) {
        const std::int64_t first = block * tiles_per_block_;
        const std::int64_t last = std::min(first + tiles_per_block_, grid_.count());
        const int rows = static_cast<int>(last - first);
        const std::vector<Strip> strips = strips_of(grid_, first, last, engine_.longest_strip());
        read_stage<E>(engine_, runner, scratch, TileRole::read_grad, dy_map(engine_, operands), strips, dy);
        if (operands.dx.data) {
            multiply_stage(engine_, runner, ProductKind::complex, true, dy, w, dx, rows);
            add_stage<E>(engine_, runner, scratch, dx_map(engine_, operands), strips, dx, damage);
        }
        if (operands.dw.data) {
            multiply_weight_grad_stage(engine_, runner, dy, kept_block(kept, block), group_dw, rows,
                                       !groups.starts(block));
            if (groups.ends(block, block_count()))
                add_group(dw.data, group_dw.data, dw_.size, block < groups.size, slots);
        }
    }
    RunCounts counts{grid_.count(), 0};
    if (operands.dw.data) counts.recomputed += write_kernels_stage(engine_, scratch, operands, dw, slots, slots);
    const std::vector<DamagedBox> damaged = damage.all();
    counts.recomputed += static_cast<std::int64_t>(damaged.size());
    recompute(operands.dx, damaged, slots, input_grad_by_definition(engine_.layer(), operands));
    return counts;
}

template class TransformStep<float>;
template class TransformStep<double>;

}  // namespace triconv
