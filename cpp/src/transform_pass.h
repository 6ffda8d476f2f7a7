// The loop of the tiled transform algorithms (FFT and Winograd), for all three passes:
//
//   for each slice of the groups (see Slice in engine.h):
//       transform the kernels                                    (forward, input_grad)
//       for each block of tiles:   read tiles -> multiply spectra -> write tiles
//       inverse transform of the summed products                 (weight_grad)
//
// A pass is a choice of operands (see pass_table in the .cpp). A block of tiles is *fused* when one thread takes it
// through all stages while its spectra stay in the cache, and *staged* when all threads share each stage. Fused, threads
// may also take a slice each, with memory of their own for its spectra; in weight_grad, whose blocks all add to the
// slice's dw, that is what fused means.
#pragma once

#include <limits>
#include <memory>

#include "engine.h"
#include "pass.h"

namespace triconv {

struct Blocking {
    std::int64_t rows = 1;  // of tiles, per block: see TileGrid
    bool fused = false;
    int groups = std::numeric_limits<int>::max();  // of lane blocks, per slice; all of them if there are fewer
    int parts = 1;                                 // of a slice of one group, when all tiles are in one block
};

template <class E>
class TransformPass final : public PassAlgorithm<E> {
public:
    TransformPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape,
                  LaneKind lane_kind, const Blocking& blocking);
    WorkspaceNeed workspace() const override;
    RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const override;
    std::size_t prepared_size() const override;
    void prepare(const Tensor<const E>& w, E* prepared, int max_threads) const override;

private:
    struct Run;
    std::int64_t block_count() const { return ceil_div(engine_.grid().rows(), blocking_.rows); }
    std::int64_t slice_count() const { return ceil_div(engine_.x_blocks().groups, blocking_.groups); }
    Slice slice_at(std::int64_t index) const;
    std::size_t prepared_at(const Slice& slice) const;  // elements: one b_ after the other, by slice and part
    Spectra<E> kernel_spectra(const Run& run, const Slice& slice, int owner) const;
    void run_slice(Run& run, const Slice& slice, int owner, const Runner& runner) const;
    void run_part(Run& run, const Slice& slice, int owner, const Runner& runner) const;
    void run_block(Run& run, const Slice& slice, std::int64_t block, int owner, int slot, const Runner& runner) const;

    using PassAlgorithm<E>::layer_, PassAlgorithm<E>::pass_;
    Engine<E> engine_;
    Blocking blocking_;
    bool slice_of_thread_ = false, tiles_of_thread_ = false;  // where their spectra are: per thread, or fixed
    SpectraShape a_, b_, c_;                                  // tiles read; kernels (or x in weight_grad); result
    std::size_t a_at_ = 0, b_at_ = 0, c_at_ = 0, group_at_ = 0,
                bias_at_ = 0;  // bytes into the fixed or the per-thread part
    std::size_t fixed_ = 0, per_thread_ = 0;
};

// Forward, then both gradients, transforming x and dy once each: input_grad by overlap-add, the exact transpose of the
// forward tiles, so that it reads the same spectra of dy as weight_grad. Of layers padded with zeros.
template <class E>
class TransformStep {
public:
    TransformStep(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape, LaneKind lane_kind,
                  std::int64_t rows_per_block);
    WorkspaceNeed workspace() const;  // while forward or backward run
    std::int64_t kept_bytes() const;  // spectra of x, from forward to backward
    // `kept` has kept_bytes() bytes, 64-byte aligned.
    RunCounts forward(const Operands<E>& operands, int max_threads, E* kept) const;
    RunCounts backward(const Operands<E>& operands, int max_threads, const E* kept) const;

private:
    struct Arena;
    std::int64_t block_count() const { return ceil_div(engine_.grid().rows(), rows_per_block_); }
    Spectra<E> kept_block(const E* kept, std::int64_t block) const;

    Engine<E> engine_;
    std::int64_t rows_per_block_;
    SpectraShape x_, y_, w_forward_, w_backward_, dw_;
    std::size_t y_at_ = 0, w_at_ = 0, dx_at_ = 0, dw_at_ = 0, group_at_ = 0, bias_at_ = 0, fixed_ = 0, per_thread_ = 0;
};

// Samples a pass computes along an axis (weight_grad: reads of dy), of the largest phase.
std::int64_t samples_along(const Axis& axis, Pass pass);
// M of an FFT tile of this length.
std::int64_t fft_outputs(const Axis& axis, Pass pass, std::int64_t length);
// Where the tiles of forward and input_grad begin along an axis: t of the first sample read and of the first output.
struct TileOrigin {
    std::int64_t from = 0, to = 0;
};
TileOrigin tile_origin(const Axis& axis, Pass pass);
// Tiles of a pass for a tile shape: also what the cost model counts.
TileGrid tile_grid(const Layer& layer, Pass pass, const TileShape& shape, LaneKind lane_kind, int lanes);

}  // namespace triconv
