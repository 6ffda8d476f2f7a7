// Direct convolution: implicit GEMM on the real micro-kernel, for every shape and all three passes, and the lane-wise
// weight_grad of depthwise layers (depthwise_pass.h has their other passes, unless the groups are few). It is the
// fallback that always works.
//
// A task computes a *band* of outputs: a few rows, or a part of one. The samples the band reads are brought into a
// buffer (bands.h) in which a tap is a constant offset and outputs are neighbours: an operand of a matrix product that
// reduces over (block of channels, tap, channel), with no im2col. The product is done in one of two ways, whichever
// wastes less:
//
//   channels in the lanes   rows: pixels, broadcast       columns: lane blocks of target channels
//   planar                  rows: target channels         columns: lane vectors of pixels
//
// Planar needs no transposition and suits few target channels (from one channel to one: filter_pass.h). input_grad is the
// same on the sub-grids of geometry.h, with dy read backwards; weight_grad reduces over the pixels of bands instead. An
// array whose pixels are neighbours may serve as a planar buffer itself, for bands that read no padding.
#pragma once

#include "band_pass.h"
#include "band_product.h"
#include "bands.h"
#include "engine.h"
#include "pass.h"

namespace triconv {

// How a dense convolution is done: in bands, and the register blocks of their products.
struct DirectTiling : JoinedConv {  // planar: one convolution alone
    Bands bands;
    BandLayout layout;
    int step_axis;  // planar, a single channel: the steps of the reduction are the taps along this axis; else -1
    bool one_line;  // the rows of a band are done as one line, gaps and all
    BlockShape shape;
    double cycles;  // estimated, of all products of a band for one step of the reduction
    double ns;      // estimated, of all bands of one image and group
};

// The convolutions of a dense forward or input_grad, one per pair of phases in input_grad (not planar: those of a row
// joined), in the way that is estimated to take less time.
struct DirectTilings {
    std::vector<DirectTiling> of;
    bool planar;

    double ns() const;
};
template <class E>
DirectTilings tile_direct(const KernelTable<E>& kernels, const Layer& layer, Pass pass);

// Where a product finds the samples of a band, from the first on: in the buffer, or in the array itself.
struct SampleOffsets {
    std::vector<std::ptrdiff_t> blocks;  // of the reduction
    std::ptrdiff_t step = 0, line = 0;   // step: of a block, planar, elements; line: entries from row to row
};

template <class E>
class DirectPass final : public BandPass<E> {
public:
    DirectPass(const KernelTable<E>& kernels, const Layer& layer, Pass pass);  // forward or input_grad

private:
    struct PhaseProduct {
        std::int64_t first_row, end_row;            // of its weights in a panel
        std::vector<std::ptrdiff_t> weight_offset;  // of the blocks of the reduction
        SampleOffsets buffered;
        int full_blocks;
    };
    struct SubProblem : DirectTiling {
        std::int64_t block_size;                     // elements of the buffer per source block
        std::ptrdiff_t channel_stride, sums_stride;  // channel_stride: planar only
        int steps, tail_steps;                       // of a block of the reduction: of full ones, of those after them
        std::ptrdiff_t weight_step;                  // planar: elements from step to step
        std::size_t buffer_size, sums_size;          // elements per thread
        std::vector<PhaseProduct> products;          // of the phases
    };
    using typename BandPass<E>::Run;
    using typename BandPass<E>::Scratch;
    SubProblem make_sub_problem(const DirectTiling& tiling) const;
    PhaseProduct make_product(const SubProblem& sub, const DenseConv& phase) const;
    SampleOffsets samples_in(const SubProblem& sub, const DenseConv& phase, const BandLayout& layout,
                             std::ptrdiff_t channel_stride) const;
    SampleOffsets samples_in_array(const SubProblem& sub, const Tensor<const E>& from) const;
    const E* first_in_array(const SubProblem& sub, const Tensor<const E>& from, const BandTask& task) const;
    int targets_at_once(const SubProblem& sub) const;  // target blocks that share the sums
    std::int64_t weight_row(int block, std::int64_t tap, std::int64_t tap_count) const;
    void pack_weights(const Tensor<const E>& w, std::size_t conv, E* panels, int max_threads) const override;
    void pack_phase(const Tensor<const E>& w, const DenseConv& conv, E* panels, int max_threads) const;
    template <class Panel>
    void pack_taps(const E* w, std::ptrdiff_t source_stride, std::ptrdiff_t target_stride, const LaneBlock& target,
                   const LaneBlock& source, const std::vector<std::ptrdiff_t>& taps, const Panel& panel) const;
    bool taps_are_runs(const Tensor<const E>& w, std::int64_t taps) const;
    template <class Panel>
    void pack_runs(const Tensor<const E>& w, const E* first, const LaneBlock& x, const LaneBlock& y,
                   const std::vector<std::int64_t>& order, const Panel& panel) const;
    void run_bands(const Run& run, std::size_t conv, const E* panels) const override;
    void read_band(const Tensor<const E>& from, const SubProblem& sub, const BandTask& task, E* buffer) const;
    void compute_targets(const SubProblem& sub, const BandTask& task, int target, int count, const E* panels,
                         const E* first_in_array, const SampleOffsets& in_array, const Scratch& scratch) const;
    void multiply(const SubProblem& sub, const PhaseProduct& product, const BandTask& task, int target, int count,
                  const E* weights, const E* first_sample, const SampleOffsets& samples, E* sums, E* partial) const;
    void write_target(const Run& run, const SubProblem& sub, const BandTask& task, int block, E* sums,
                      std::vector<DamagedBox>& damage) const;

    using BandPass<E>::kernels_, BandPass<E>::layer_, BandPass<E>::pass_, BandPass<E>::sources_, BandPass<E>::targets_,
        BandPass<E>::panel_stride_;
    bool planar_ = false, planar_samples_ = false;  // planar_samples_: the buffer alone, or both
    std::vector<SubProblem> subs_;
};

// The bands' buffer of dy for products whose rows are output channels, the elements of a row neighbours along the
// reduction: nothing is transposed, and register blocks may have any number of rows.
//
//   [group][part of its channels][row of pixels][run of pixels][channel][pixel]     a run: one lane vector per channel
template <class E>
struct DyRuns {
    DyRuns() = default;
    DyRuns(const LaneBlocks& blocks, const Bands& bands, int lanes);

    std::int64_t per_row = 1;
    int length = 1, tail = 1;                       // pixels of a run, of the last of a row
    int parts = 1, part_blocks = 1, part_rows = 1;  // parts of a group, lane blocks and channels of one (at most)
    std::ptrdiff_t stride = 0;                      // elements, between runs
    std::size_t part_size = 0;
};

// Estimates for a dense weight_grad, which has the channels of x or those of y in the lanes: it takes the faster way.
struct WeightGradWork {
    double x_lanes, y_lanes;  // cycles of the products, for one output of each channel of a group
    double products;          // calls for one with x in the lanes, for all outputs of an image and a group
    double reads;             // how often x is read, as neighbouring bands read the same
};
template <class E>
WeightGradWork weight_grad_work(const KernelTable<E>& kernels, const Layer& layer);

template <class E>
class DirectWeightGrad final : public PassAlgorithm<E> {
public:
    // modest: in the least workspace, the same sums.
    DirectWeightGrad(const KernelTable<E>& kernels, const Layer& layer, bool modest);
    WorkspaceNeed workspace() const override;
    RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const override;

private:
    struct Product {
        ProductArgs<E> args;
        int rows, cols;
    };
    struct Steps {  // blocks of the reduction, offsets into the buffers
        std::vector<std::ptrdiff_t> x, y;
        int full;
    };
    struct Buffers {  // of a chunk of bands
        E *x, *y;
    };
    Product lane_product(std::int64_t index, const E* x, const E* y, E* sums) const;
    Product planar_product(std::int64_t index, const E* x, const E* y, E* sums) const;
    BandTask band_at(std::int64_t index) const { return band_task(conv_, bands_, 1, index); }
    void read_band(const Operands<E>& operands, const BandTask& band, bool of_x, int block, E* buffer) const;
    void read_x(const Operands<E>& operands, const BandTask& band, std::int64_t unit, E* buffer) const;
    void read_dy(const Operands<E>& operands, const BandTask& band, int block, E* buffer) const;
    Steps find_steps(std::int64_t first, std::int64_t count) const;
    void multiply(std::int64_t begin, std::int64_t end, const E* x, const E* y, const Steps& steps, bool accumulate,
                  E* sums) const;
    std::size_t x_chunk_size() const { return static_cast<std::size_t>(bands_per_chunk_) * x_band_size_; }
    void run_chunk(const Operands<E>& operands, const Runner& runner, int slots, std::int64_t chunk, bool accumulate,
                   const Buffers& buffers, E* sums) const;
    void run_matrix(const Operands<E>& operands, int slots, char* workspace) const;
    void run_lanewise(const Operands<E>& operands, int slots, char* workspace) const;
    std::int64_t write(const Operands<E>& operands, E* sums, int slots) const;

    using PassAlgorithm<E>::layer_;
    const KernelTable<E>& kernels_;
    bool lanewise_, planar_ = false;  // planar: x is read planar, output channels are in the lanes
    LaneBlocks xs_, ys_;
    DenseConv conv_, outputs_, x_conv_;  // outputs_: dy read as it is; x_conv_: x as its buffer has it
    std::int64_t x_step_;                // of that buffer's entries along a row, from output to output
    Bands bands_;
    BandLayout x_layout_, y_layout_;
    std::vector<std::ptrdiff_t> tap_offset_;  // elements of the buffer of x
    TapOrder taps_;                           // lane-wise
    std::int64_t band_count_ = 0, bands_per_chunk_ = 1, parts_ = 1;
    std::size_t x_block_size_ = 0, y_block_size_ = 0;  // elements of one block (planar: channel) of one band
    std::size_t x_band_size_ = 0, y_band_size_ = 0;
    DyRuns<E> runs_;    // not planar
    BlockShape shape_;  // of all products
    std::int64_t products_per_task_ = 1;
    int steps_at_once_ = 1;            // blocks of the reduction, planar only
    std::ptrdiff_t block_stride_ = 0;  // of the sums
    std::size_t sums_size_ = 0, group_sums_size_ = 0;
    bool sums_of_all_groups_ = false;  // threads may take groups of chunks, in buffers of their own
};

}  // namespace triconv
