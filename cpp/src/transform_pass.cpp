#include "transform_pass.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "parallel.h"
#include "reference.h"
#include "workspace.h"

namespace triconv {

namespace {

std::int64_t sub_outputs(const Axis& a) {
    return ceil_div(a.out, a.out_step);
}  // of output phase 0

Index sub_outputs(const Layer& layer) {
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

// ---- stages over many tasks -----------------------------------------------------------------------------------------

template <class E>
void read_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch, TileRole role,
                const TileMap<const E>& map, int first, int blocks, const std::vector<Strip>& strips,
                const Spectra<E>& spectra) {
    runner(static_cast<std::int64_t>(strips.size()) * blocks, [&](std::int64_t i, int slot) {
        engine.read_tiles(role, map, strips[static_cast<std::size_t>(i / blocks)], first + static_cast<int>(i % blocks),
                          spectra, scratch(slot));
    });
}

template <class E>
void kernel_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
                  const Tensor<const E>& w, bool to_input, bool flip, const Slice& slice, const Spectra<E>& spectra) {
    const LaneBlocks& targets = engine.blocks(to_input);
    const LaneBlocks& sources = engine.blocks(!to_input);
    const int parts = engine.kernel_parts(sources);
    runner(static_cast<std::int64_t>(slice.target_count(targets)) * parts, [&](std::int64_t i, int slot) {
        const int target = slice.first_target(targets) + static_cast<int>(i / parts);
        const auto [block, part] = engine.kernel_part(sources, static_cast<int>(i % parts));
        const int source = target / targets.per_group * sources.per_group + block;
        engine.read_kernels(w, to_input, target, source, part, flip, spectra, scratch(slot));
    });
}

// Rows are cut, too: by a number that does not depend on the thread count, as the cut must not. Where c takes the place
// of a, the panels of the products are in scratch, which has room for them (see panel_size).
template <class E>
void multiply_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
                    ProductKind kind, bool to_input, const Slice& slice, const Spectra<E>& a, const Spectra<E>& w,
                    const Spectra<E>& c, int rows) {
    const int part = engine.product_rows(to_input, slice);
    const auto& bins = engine.transform().bins();
    const auto& runs = engine.transform().bin_runs();
    const int parts = (rows + part - 1) / part;
    const bool lanewise = engine.multiplies_lanewise(to_input);
    runner(static_cast<std::int64_t>(lanewise ? runs.size() : bins.size()) * parts, [&](std::int64_t i, int slot) {
        const int first = static_cast<int>(i % parts) * part, last = std::min(rows, first + part);
        const auto at = static_cast<std::size_t>(i / parts);
        if (lanewise)
            engine.multiply_lanewise(runs[at], kind, to_input, slice, a, w, c, first, last);
        else
            engine.multiply(bins[at], kind, to_input, slice, a, w, c, first, last,
                            a.data == c.data ? scratch(slot) : nullptr);
    });
}

template <class E>
std::size_t panel_size(const Engine<E>& engine, bool to_input, const Slice& slice, std::int64_t rows) {
    return static_cast<std::size_t>(engine.panel_row(to_input, slice) *
                                    std::min<std::int64_t>(rows, engine.product_rows(to_input, slice)));
}

template <class E>
void multiply_weight_grad_stage(const Engine<E>& engine, const Runner& runner, const Slice& slice, const Spectra<E>& dy,
                                const Spectra<E>& x, const Spectra<E>& dw, int rows, bool accumulate) {
    const auto& bins = engine.transform().bins();
    const auto& runs = engine.transform().bin_runs();
    const int first = slice.first_block(engine.y_blocks()), y_blocks = slice.block_count(engine.y_blocks());
    runner(static_cast<std::int64_t>(engine.lanewise() ? runs.size() : bins.size()) * y_blocks,
           [&](std::int64_t i, int) {
               const auto at = static_cast<std::size_t>(i / y_blocks);
               const int y_block = first + static_cast<int>(i % y_blocks);
               if (engine.lanewise())
                   engine.multiply_weight_grad_lanewise(runs[at], dy, x, dw, rows, y_block, accumulate);
               else
                   engine.multiply_weight_grad(bins[at], dy, x, dw, rows, slice, y_block, accumulate);
           });
}

template <class E>
void write_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
                 const TileMap<E>& map, const Slice& slice, const std::vector<Strip>& strips, const Spectra<E>& spectra,
                 const E* bias, Damage& damage) {
    const int first = slice.first_target(*map.blocks), blocks = slice.target_count(*map.blocks);
    runner(static_cast<std::int64_t>(strips.size()) * blocks, [&](std::int64_t i, int slot) {
        const int block = first + static_cast<int>(i % blocks);
        engine.write_tiles(map, strips[static_cast<std::size_t>(i / blocks)], block, spectra,
                           bias ? bias + block * engine.lanes() : nullptr, scratch(slot), damage.of(slot));
    });
}

// A task owns one lane block of one image, or of all images where lanes hold tiles of several: overlapping tiles are added
// in order, whoever runs it.
template <class E>
void add_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
               const TileMap<E>& map, const std::vector<Strip>& strips, const Spectra<E>& spectra, Damage& damage) {
    const std::int64_t blocks = static_cast<std::int64_t>(map.blocks->blocks.size());
    const bool apart = engine.lane_kind() != LaneKind::tiles;
    const auto image_of = [&](const Strip& strip) { return apart ? strip.line / engine.grid().lines_per_image() : 0; };
    const std::int64_t first = image_of(strips.front()), images = image_of(strips.back()) - first + 1;
    runner(images * blocks, [&](std::int64_t i, int slot) {
        for (const Strip& strip : strips)
            if (image_of(strip) == first + i / blocks)
                engine.add_tiles(map, strip, static_cast<int>(i % blocks), spectra, scratch(slot), damage.of(slot));
    });
}

// Inverse transform of dw's spectra. Parts of lane blocks computed again are counted in recomputed[slot].
template <class E>
void write_kernels_stage(const Engine<E>& engine, const Runner& runner, const std::function<E*(int)>& scratch,
                         const Operands<E>& operands, const Slice& slice, const Spectra<E>& spectra,
                         std::vector<std::int64_t>& recomputed) {
    const LaneBlocks& xs = engine.x_blocks();
    const LaneBlocks& ys = engine.y_blocks();
    const Layer& layer = engine.layer();
    const int parts = engine.kernel_parts(ys);
    runner(static_cast<std::int64_t>(slice.target_count(xs)) * parts, [&](std::int64_t i, int slot) {
        const int x_block = slice.first_target(xs) + static_cast<int>(i / parts);
        const auto [block, part] = engine.kernel_part(ys, static_cast<int>(i % parts));
        const int y_block = x_block / xs.per_group * ys.per_group + block;
        if (!engine.write_kernels(operands.dw, x_block, y_block, part, spectra, scratch(slot))) return;
        ++recomputed[static_cast<std::size_t>(slot)];
        LaneBlock x = xs.blocks[static_cast<std::size_t>(x_block)],
                  y = engine.part_of(ys.blocks[static_cast<std::size_t>(y_block)], part);
        if (engine.lane_kind() == LaneKind::tiles) x.lanes = y.lanes = 1;
        Index step;
        for (int a = 0; a < axes; ++a)
            step[a] = layer.axis[a].tap_step;
        recompute_weight_grad(layer, operands, x, y, engine.lanewise(), x.phase, step);
    });
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
    return {operands.y, &engine.y_blocks(), false, {}, sub_outputs(engine.layer())};
}
template <class E>
TileMap<E> dx_map(const Engine<E>& engine, const Operands<E>& operands) {
    return {operands.dx, &engine.x_blocks(), true, {}, support_end(engine.layer())};
}

}  // namespace

std::int64_t samples_along(const Axis& axis, Pass pass) {
    const Range support = input_support(axis);
    return pass == Pass::input_grad ? support.end - support.begin : sub_outputs(axis);
}

// input_grad is forward on dy with the flipped kernel: overlap-save, no seams.
TileOrigin tile_origin(const Axis& axis, Pass pass) {
    if (pass != Pass::input_grad) return {};
    const std::int64_t to = input_support(axis).begin;
    return {to - (axis.taps - 1), to};
}

TileGrid tile_grid(const Layer& layer, Pass pass, const TileShape& shape, LaneKind lane_kind, int lanes) {
    TileGrid grid;
    grid.images = layer.batch * layer.output_phases();
    for (int a = 0; a < axes; ++a) {
        grid.tiles[a] = ceil_div(samples_along(layer.axis[a], pass), shape.outputs[a]);
    }
    return lane_kind == LaneKind::tiles ? grid.dealt_to(lanes) : grid;
}

// Outputs from T samples with R taps: T - R + 1; or all there are, when reads past the tile's end, which wrap around to
// its begin, should find zeros and do: zeros on the left of an image then serve as those on its right, too.
std::int64_t fft_outputs(const Axis& axis, Pass pass, std::int64_t length) {
    if (pass != Pass::input_grad && !axis.outside.zeros()) return length - axis.taps + 1;
    const Range support = input_support(axis);
    const std::int64_t outputs = samples_along(axis, pass);
    const std::int64_t first = pass == Pass::input_grad ? axis.taps - 1 - support.begin : support.begin;
    const std::int64_t last = pass == Pass::input_grad ? first + sub_outputs(axis) : support.end;
    const std::int64_t wrapped = outputs + axis.taps - 1 - length;  // samples of the tile read again
    const bool one_tile = outputs <= length && last <= length && wrapped <= first;
    return one_tile ? std::max(outputs, length - axis.taps + 1) : length - axis.taps + 1;
}

// ---- one pass -------------------------------------------------------------------------------------------------------

// Where the spectra of a run are. Those of a slice (kernels, sums of weight_grad) are those of the thread `owner` when
// threads take slices; those of a block of tiles are those of the thread `slot` when threads take blocks.
template <class E>
struct TransformPass<E>::Run {
    const Operands<E>& operands;
    char* fixed;
    char* per_thread;
    std::size_t per_thread_size;
    int slots;
    Damage& damage;
    std::vector<std::int64_t> recomputed;  // parts of lane blocks of dw, of each slot

    E* part(bool of_thread, int slot, std::size_t at) const {
        return reinterpret_cast<E*>(
            (of_thread ? per_thread + static_cast<std::size_t>(slot) * per_thread_size : fixed) + at);
    }
    E* scratch(int slot) const { return part(true, slot, 0); }
};

template <class E>
TransformPass<E>::TransformPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape,
                                LaneKind lane_kind, const Blocking& blocking)
    : PassAlgorithm<E>(layer, pass),
      engine_(kernels, layer, shape, tile_grid(layer, pass, shape, lane_kind, kernels.lanes), lane_kind),
      blocking_(blocking) {
    const LaneBlocks& xs = engine_.x_blocks();
    const LaneBlocks& ys = engine_.y_blocks();
    blocking_.rows = std::clamp<std::int64_t>(blocking.rows, 1, std::max<std::int64_t>(1, engine_.grid().rows()));
    if (pass == Pass::weight_grad)  // rows of a block are summed in one go
        blocking_.rows = std::min<std::int64_t>(blocking_.rows, max_reduction);
    blocking_.groups = std::clamp(blocking.groups, 1, std::max(1, xs.groups));
    const bool to_input = pass == Pass::input_grad;
    const LaneBlocks& sources = pass == Pass::weight_grad ? ys : engine_.blocks(!to_input);
    const LaneBlocks& targets = pass == Pass::weight_grad ? xs : engine_.blocks(to_input);
    // Parts share the tiles read, so that all of them must be in memory.
    const bool divisible = blocking_.groups == 1 && block_count() == 1 && engine_.lane_kind() == LaneKind::channels;
    blocking_.parts = divisible ? std::clamp(blocking.parts, 1, std::max(1, targets.per_group)) : 1;
    slice_of_thread_ = blocking_.fused && slice_count() > 1;
    tiles_of_thread_ = pass == Pass::weight_grad ? slice_of_thread_ : blocking_.fused;

    const int planes = engine_.transform().planes(), lanes = kernels.lanes;
    const Slice widest{0, std::min(blocking_.groups, xs.groups)};
    const auto make = [&](std::int64_t blocks, std::int64_t rows) {
        return SpectraShape::make<E>(planes, static_cast<std::size_t>(blocks), rows, lanes);
    };
    const int target_blocks = Slice::part_blocks(widest.block_count(targets), blocking_.parts);
    const SpectraShape kernel_shape =
        make(target_blocks, engine_.lanewise() ? sources.per_group : sources.rows_per_group(lanes));
    const SpectraShape target_shape = make(target_blocks, blocking_.rows);
    a_ = make(widest.block_count(sources), blocking_.rows);
    b_ = pass == Pass::weight_grad ? target_shape : kernel_shape;
    c_ = pass == Pass::weight_grad ? kernel_shape : target_shape;
    // The result takes the place of the tiles read: half the memory to stay in the cache.
    const bool in_place = pass != Pass::weight_grad && blocking_.parts == 1 &&
                          (!engine_.lanewise() || (xs.per_group == 1 && ys.per_group == 1));
    if (in_place) a_ = c_ = a_.size > c_.size ? a_ : c_;

    ArenaLayout fixed, per_thread;
    per_thread.add<E>(
        std::max(engine_.scratch_size(), in_place ? panel_size(engine_, to_input, widest, blocking_.rows) : 0));
    ArenaLayout& of_tiles = tiles_of_thread_ ? per_thread : fixed;
    ArenaLayout& of_slice = slice_of_thread_ ? per_thread : fixed;
    a_at_ = of_tiles.add<E>(a_.size);
    if (pass == Pass::weight_grad) {
        b_at_ = of_tiles.add<E>(b_.size);
        c_at_ = group_at_ = of_slice.add<E>(c_.size);
        if (BlockGroups(block_count()).grouped) group_at_ = of_slice.add<E>(c_.size);
    } else {
        b_at_ = of_slice.add<E>(b_.size);
        c_at_ = in_place ? a_at_ : of_tiles.add<E>(c_.size);
    }
    bias_at_ = fixed.add<E>(ys.blocks.size() * static_cast<std::size_t>(lanes));
    fixed_ = fixed.size();
    per_thread_ = per_thread.size();
}

template <class E>
WorkspaceNeed TransformPass<E>::workspace() const {
    return {static_cast<std::int64_t>(fixed_), static_cast<std::int64_t>(per_thread_)};
}

template <class E>
Slice TransformPass<E>::slice_at(std::int64_t index) const {
    const int first = static_cast<int>(index) * blocking_.groups;
    return {first, std::min(first + blocking_.groups, engine_.x_blocks().groups)};
}

// The one loop's body. a: spectra of the tiles read, b: of the kernels (x in weight_grad), c: the result.
template <class E>
void TransformPass<E>::run_block(Run& run, const Slice& slice, std::int64_t block, int owner, int slot,
                                 const Runner& runner) const {
    const Operands<E>& operands = run.operands;
    const std::int64_t first = block * blocking_.rows, last = std::min(first + blocking_.rows, engine_.grid().rows());
    const int rows = static_cast<int>(last - first);
    const std::vector<Strip> strips = strips_of(engine_.grid(), first, last, engine_.longest_strip());
    const auto scratch = [&run](int s) { return run.scratch(s); };
    const bool to_input = pass_ == Pass::input_grad;
    const LaneBlocks& sources = pass_ == Pass::forward ? engine_.x_blocks() : engine_.y_blocks();
    const LaneBlocks& targets = pass_ == Pass::forward ? engine_.y_blocks() : engine_.x_blocks();
    const int first_source = slice.first_block(sources), source_count = slice.block_count(sources),
              first_target = slice.first_target(targets);
    const Spectra<E> a{run.part(tiles_of_thread_, slot, a_at_), a_, first_source};
    if (pass_ == Pass::weight_grad) {
        const Spectra<E> b{run.part(tiles_of_thread_, slot, b_at_), b_, first_target},
            c{run.part(slice_of_thread_, owner, group_at_), c_, first_target};
        if (slice.part == 0)
            read_stage<E>(engine_, runner, scratch, TileRole::read_grad, dy_map(engine_, operands), first_source,
                          source_count, strips, a);
        read_stage<E>(engine_, runner, scratch, TileRole::read_tile, x_map(engine_, operands), first_target,
                      slice.target_count(targets), strips, b);
        multiply_weight_grad_stage(engine_, runner, slice, a, b, c, rows, !BlockGroups(block_count()).starts(block));
        return;
    }
    const Spectra<E> b = kernel_spectra(run, slice, owner),
                     c{run.part(tiles_of_thread_, slot, c_at_), c_, first_target};
    TileMap<const E> from = to_input ? dy_map(engine_, operands) : x_map(engine_, operands);
    TileMap<E> to = to_input ? dx_map(engine_, operands) : y_map(engine_, operands);
    for (int axis = 0; axis < axes; ++axis) {
        const TileOrigin origin = tile_origin(layer_.axis[axis], pass_);
        from.origin[axis] = origin.from;
        to.origin[axis] = origin.to;
    }
    const E* const bias = operands.bias && !to_input ? run.part(false, 0, bias_at_) : nullptr;
    if (slice.part == 0)
        read_stage<E>(engine_, runner, scratch, TileRole::read_tile, from, first_source, source_count, strips, a);
    multiply_stage<E>(engine_, runner, scratch, ProductKind::complex_conj_b, to_input, slice, a, b, c, rows);
    write_stage<E>(engine_, runner, scratch, to, slice, strips, c, bias, run.damage);
}

template <class E>
Spectra<E> TransformPass<E>::kernel_spectra(const Run& run, const Slice& slice, int owner) const {
    // Prepared spectra are only read.
    E* const data = run.operands.prepared ? const_cast<E*>(run.operands.prepared) + prepared_at(slice)
                                          : run.part(slice_of_thread_, owner, b_at_);
    return {data, b_, slice.first_target(engine_.blocks(pass_ == Pass::input_grad))};
}

template <class E>
std::size_t TransformPass<E>::prepared_at(const Slice& slice) const {
    const int index = slice.first_group / blocking_.groups * blocking_.parts + slice.part;
    return static_cast<std::size_t>(index) * b_.size;
}

template <class E>
std::size_t TransformPass<E>::prepared_size() const {
    return static_cast<std::size_t>(slice_count() * blocking_.parts) * b_.size;
}

template <class E>
void TransformPass<E>::prepare(const Tensor<const E>& w, E* prepared, int max_threads) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    ArenaLayout thread;
    thread.add<E>(engine_.scratch_size());
    const Workspace workspace(thread.size() * static_cast<std::size_t>(slots));
    const std::function<E*(int)> scratch = [&](int slot) {
        return reinterpret_cast<E*>(static_cast<char*>(workspace.data()) +
                                    thread.size() * static_cast<std::size_t>(slot));
    };
    const bool to_input = pass_ == Pass::input_grad;
    for (std::int64_t i = 0; i < slice_count(); ++i)
        for (int part = 0; part < blocking_.parts; ++part) {
            Slice slice = slice_at(i);
            slice.part = part;
            slice.parts = blocking_.parts;
            kernel_stage(engine_, parallel_runner(slots), scratch, w, to_input, to_input, slice,
                         Spectra<E>{prepared + prepared_at(slice), b_, slice.first_target(engine_.blocks(to_input))});
        }
}

template <class E>
void TransformPass<E>::run_slice(Run& run, const Slice& slice, int owner, const Runner& runner) const {
    for (int part = 0; part < blocking_.parts; ++part)
        run_part(run, {slice.first_group, slice.last_group, part, blocking_.parts}, owner, runner);
}

// All blocks of tiles of one part of a slice; `owner` holds the slice's spectra.
template <class E>
void TransformPass<E>::run_part(Run& run, const Slice& slice, int owner, const Runner& runner) const {
    const std::int64_t blocks = block_count();
    const std::function<E*(int)> scratch = [&run](int slot) { return run.scratch(slot); };
    if (pass_ == Pass::weight_grad) {
        E* const total = run.part(slice_of_thread_, owner, c_at_);
        const BlockGroups groups(blocks);
        for (std::int64_t block = 0; block < blocks; ++block) {
            run_block(run, slice, block, owner, owner, runner);
            if (groups.ends(block, blocks))
                add_group(total, run.part(slice_of_thread_, owner, group_at_), c_.size, block < groups.size, run.slots);
        }
        write_kernels_stage(engine_, runner, scratch, run.operands, slice,
                            Spectra<E>{total, c_, slice.first_target(engine_.x_blocks())}, run.recomputed);
        return;
    }
    const bool to_input = pass_ == Pass::input_grad;
    if (!run.operands.prepared)
        kernel_stage(engine_, runner, scratch, run.operands.w, to_input, to_input, slice,
                     kernel_spectra(run, slice, owner));
    if (!blocking_.fused) {
        for (std::int64_t block = 0; block < blocks; ++block)
            run_block(run, slice, block, owner, owner, runner);
        return;
    }
    runner(blocks,
           [&](std::int64_t block, int slot) { run_block(run, slice, block, owner, slot, serial_runner(slot)); });
}

template <class E>
RunCounts TransformPass<E>::compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const {
    Run run{operands,
            workspace,
            workspace + fixed_,
            per_thread_,
            slots,
            damage,
            std::vector<std::int64_t>(static_cast<std::size_t>(slots), 0)};

    if (pass_ == Pass::forward && operands.bias)
        spread_bias(operands, engine_.y_blocks(), engine_.lanes(), run.part(false, 0, bias_at_));
    if (pass_ == Pass::input_grad && !input_covered(layer_))
        fill_zero(operands.dx, layer_.batch, layer_.in_channels, layer_.input_extent(), slots);

    // Threads take slices where that keeps all of them busy, else they share the work within each: the same sums.
    const std::int64_t slices = slice_count();
    if (slice_of_thread_ && keeps_busy(slices, slots)) {
        parallel_for(slices, slots,
                     [&](std::int64_t i, int slot) { run_slice(run, slice_at(i), slot, serial_runner(slot)); });
    } else {
        for (std::int64_t i = 0; i < slices; ++i)
            run_slice(run, slice_at(i), 0, parallel_runner(slots));
    }
    return {engine_.grid().count(), std::accumulate(run.recomputed.begin(), run.recomputed.end(), std::int64_t{0})};
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
                                LaneKind lane_kind, std::int64_t rows_per_block)
    : engine_(kernels, layer, shape, tile_grid(layer, Pass::forward, shape, lane_kind, kernels.lanes), lane_kind),
      rows_per_block_(std::clamp<std::int64_t>(rows_per_block, 1,
                                               std::clamp<std::int64_t>(engine_.grid().rows(), 1, max_reduction))) {
    const int planes = engine_.transform().planes(), lanes = kernels.lanes;
    const std::size_t xs = engine_.x_blocks().blocks.size(), ys = engine_.y_blocks().blocks.size();
    const auto rows_of = [&](const LaneBlocks& blocks) {
        return engine_.lanewise() ? blocks.per_group : blocks.rows_per_group(lanes);
    };
    x_ = SpectraShape::make<E>(planes, xs, rows_per_block_, lanes);
    y_ = SpectraShape::make<E>(planes, ys, rows_per_block_, lanes);
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
    const Runner runner = parallel_runner(slots);
    const Slice whole = engine_.whole();
    const Spectra<E> w{arena.at(w_at_), w_forward_}, y{arena.at(y_at_), y_};
    E* const bias = operands.bias ? arena.at(bias_at_) : nullptr;
    if (bias) spread_bias(operands, engine_.y_blocks(), engine_.lanes(), bias);
    kernel_stage(engine_, runner, scratch, operands.w, false, false, whole, w);
    Damage damage(slots);
    for (std::int64_t first = 0; first < engine_.grid().rows(); first += rows_per_block_) {
        const std::int64_t last = std::min(first + rows_per_block_, engine_.grid().rows());
        const std::vector<Strip> strips = strips_of(engine_.grid(), first, last, engine_.longest_strip());
        const Spectra<E> x = kept_block(kept, first / rows_per_block_);
        read_stage<E>(engine_, runner, scratch, TileRole::read_tile, x_map(engine_, operands), 0,
                      whole.block_count(engine_.x_blocks()), strips, x);
        multiply_stage<E>(engine_, runner, scratch, ProductKind::complex_conj_b, false, whole, x, w, y,
                          static_cast<int>(last - first));
        write_stage<E>(engine_, runner, scratch, y_map(engine_, operands), whole, strips, y, bias, damage);
    }
    return {engine_.grid().count(), recompute_outputs(engine_.layer(), Pass::forward, operands, damage.all(), slots)};
}

template <class E>
RunCounts TransformStep<E>::backward(const Operands<E>& operands, int max_threads, const E* kept) const {
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const Arena arena{Workspace(fixed_ + per_thread_ * static_cast<std::size_t>(slots)), fixed_, per_thread_};
    const std::function<E*(int)> scratch = [&arena](int slot) { return arena.scratch(slot); };
    const Runner runner = parallel_runner(slots);
    const Slice whole = engine_.whole();
    const Spectra<E> w{arena.at(w_at_), w_backward_}, dy{arena.at(y_at_), y_}, dx{arena.at(dx_at_), x_},
        dw{arena.at(dw_at_), dw_}, group_dw{arena.at(group_at_), dw_};
    const Layer& layer = engine_.layer();
    if (operands.dx.data) {
        kernel_stage(engine_, runner, scratch, operands.w, true, false, whole, w);
        fill_zero(operands.dx, layer.batch, layer.in_channels, layer.input_extent(), slots);
    }
    Damage damage(slots);
    const BlockGroups groups(block_count());
    for (std::int64_t block = 0; block < block_count(); ++block) {
        const std::int64_t first = block * rows_per_block_;
        const std::int64_t last = std::min(first + rows_per_block_, engine_.grid().rows());
        const int rows = static_cast<int>(last - first);
        const std::vector<Strip> strips = strips_of(engine_.grid(), first, last, engine_.longest_strip());
        read_stage<E>(engine_, runner, scratch, TileRole::read_grad, dy_map(engine_, operands), 0,
                      whole.block_count(engine_.y_blocks()), strips, dy);
        if (operands.dx.data) {
            multiply_stage<E>(engine_, runner, scratch, ProductKind::complex, true, whole, dy, w, dx, rows);
            add_stage<E>(engine_, runner, scratch, dx_map(engine_, operands), strips, dx, damage);
        }
        if (operands.dw.data) {
            multiply_weight_grad_stage(engine_, runner, whole, dy, kept_block(kept, block), group_dw, rows,
                                       !groups.starts(block));
            if (groups.ends(block, block_count()))
                add_group(dw.data, group_dw.data, dw_.size, block < groups.size, slots);
        }
    }
    RunCounts counts{engine_.grid().count(), 0};
    if (operands.dw.data) {
        std::vector<std::int64_t> recomputed(static_cast<std::size_t>(slots), 0);
        write_kernels_stage(engine_, runner, scratch, operands, whole, dw, recomputed);
        counts.recomputed += std::accumulate(recomputed.begin(), recomputed.end(), std::int64_t{0});
    }
    counts.recomputed += recompute_outputs(layer, Pass::input_grad, operands, damage.all(), slots);
    return counts;
}

template class TransformStep<float>;
template class TransformStep<double>;

}  // namespace triconv
