// FFT convolution of signals, images and volumes of few channels: one tile at a time, with samples in the lanes.
//
//   read      lanes: rows           transform along x; each 16 x 16 values (as many as there are lanes) transposed
//   filter    lanes: frequencies    transform along y and z, multiply, transform back
//   write     lanes: rows           transposed back; inverse transform along x
//
// Between the stages, a block is a lane vector of frequencies along x, of every row:
//
//   block 0:  re [ row (z, y) = 0 ][ 1 ] ...  im [ 0 ][ 1 ] ...     frequencies 0 to 15
//   block 1:  ...                                                   frequencies 16 to 31
//
// Frequency 0 shares its place with the middle one. Both are real, so that together they are one complex sequence along
// the rows, and the T / 2 frequencies fill whole lane vectors.
//
// A tile of a signal is taken for an image, too, of which a column holds neighbouring samples: T = columns * rows, sample
// n = x * rows + y. Between its two transforms every value is multiplied by exp(-2 pi i kx y / T) (Cooley and Tukey), and
// the middle frequency, no longer real then, has a place of its own.
//
// A tile's spectrum has the size of the tile. Where lanes hold tiles (engine.h) it has that of as many tiles as there are
// lanes: large ones leave the L2 cache.
#pragma once

#include <vector>

#include "parallel.h"
#include "pass.h"
#include "transform_pass.h"
#include "workspace.h"

namespace triconv {

// Whether a layer has few channels in a group and no phases: what an ImagePass can do, in forward and input_grad.
bool is_image_filter(const Layer& layer, Pass pass);
// The image that a tile is taken for: itself, or that of a signal. No T: the tile does not fill the lanes with whole vectors
// of rows and of frequencies.
TileShape image_of(const TileShape& shape, int lanes);
inline bool is_line(const TileShape& shape) {
    return shape.transform[0] == 1 && shape.transform[1] == 1;
}
bool is_image_tile(const TileShape& shape, int lanes);
// Whether a product takes the place of what it multiplies: nothing is added to it, nothing else reads that.
bool single_product(int sources, int targets);
// Blocks that a pass works in: of each channel read, of a sum of products unless there is one only, and between y and z.
int column_blocks(int sources, int targets, int depth);

template <class E>
class ImagePass final : public PassAlgorithm<E> {
public:
    // For is_image_filter(layer, pass) and an FFT shape with is_image_tile.
    ImagePass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape);
    WorkspaceNeed workspace() const override;
    RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const override;
    std::size_t prepared_size() const override;
    void prepare(const Tensor<const E>& w, E* prepared, int max_threads) const override;

private:
    // Of each thread its scratch; then, unless all share a tile, the blocks of its own; then its kernels.
    struct Memory {
        char* per_thread;
        std::size_t per_thread_size;
        E* shared_blocks;  // or null

        char* of(int slot) const { return per_thread + per_thread_size * static_cast<std::size_t>(slot); }
    };
    struct Run {
        const Operands<E>& operands;
        const E* bias;  // a lane vector for each channel, or null
        Memory memory;
        Damage& damage;
    };
    // Who computes a tile: one thread, or all of them, each a part of every stage. The sums are the same.
    struct Crew {
        int slot;         // of the one; with all of them 0, for what only one can do
        int threads = 0;  // how many all of them are

        template <class Task>
        void each(std::int64_t count, const Task& task) const {
            if (threads > 0) return parallel_for(count, threads, task);
            for (std::int64_t i = 0; i < count; ++i)
                task(i, slot);
        }
    };
    struct Scratch {
        E* samples;  // of a signal's tile: some rows of its image, all columns
        E *pixels,
            *spectra;  // of a lane vector of rows; frequency 0, in front of which there is room for another value
        E* columns;    // the blocks of column_blocks
        E* first;      // frequency 0 and the middle one: products
    };
    struct Tile {
        std::int64_t n, group;
        Index from, to;  // t of the first sample read, of the first output
        E* blocks;       // of each channel
    };
    using Lines = std::array<AxisLines<E>, axes>;
    // exp(-2 pi i k y / T) of a signal, with y = v * lanes + l, is lane l of vector k times number [v][k].
    struct Twiddles {
        Workspace vectors, numbers;
    };

    // The samples of a tile, in the order of the array, that its transform should not see.
    struct Apart {
        struct Product {
            std::int64_t at;
            int source;
            E value;
        };
        E least;                        // absolute value that is too large
        std::vector<bool> nan;          // of each sample: whether it is NaN in any of the channels read
        std::vector<Product> products;  // infinities, and values so large that a transform overflows
    };
    bool is_signal() const { return is_line(shape_); }
    std::array<std::ptrdiff_t, 5> scratch_sizes() const;
    Scratch scratch_of(const Memory& memory, int slot) const;
    E* blocks_of_thread(const Memory& memory, int slot) const;
    std::size_t blocks_size() const { return static_cast<std::size_t>(std::max(sources_, targets_) * tile_size_); }
    bool kernels_of_thread() const { return layer_.groups > 1; }  // which then may take groups
    bool shares_tiles() const;
    Crew all_threads(int slots) const;
    int rows() const { return image_.transform[0] * image_.transform[1]; }
    int frequency_blocks() const;
    E* blocks_of(const Tile& tile, int channel) const { return tile.blocks + channel * tile_size_; }
    int rows_at_once() const;
    Twiddles make_twiddles() const;
    void rotate(int first, bool conjugate, const Scratch& scratch) const;

    struct RowLanes;
    RowLanes row_lanes(const Tensor<const E>& from, const Tile& tile, int z, int y) const;
    void read_pixels(const Tensor<const E>& from, const E* base, const RowLanes& rows, std::int64_t begin,
                     RowArgs<E>& row, E* pixels) const;
    RowArgs<E> output_row(const Run& run, std::int64_t channel, const Scratch& scratch) const;
    E* output_at(const Tensor<E>& to, std::int64_t n, std::int64_t channel, const Index& t) const;
    Index output_count(const Tile& tile) const;
    // rows_at_once() rows of the tile, from row `first` on. apart: null, or those samples are added to it, and taken for
    // zeros. Written: whether a value was not finite.
    void read_image(const Tensor<const E>& from, const Tile& tile, int source, int first, const Scratch& scratch,
                    Apart* apart) const;
    bool write_image(const Run& run, const Tile& tile, int target, int first, const Scratch& scratch) const;
    void read_signal(const Tensor<const E>& from, const Tile& tile, int source, int first, const Scratch& scratch,
                     Apart* apart) const;
    bool write_signal(const Run& run, const Tile& tile, int target, int first, const Scratch& scratch) const;
    void take_apart(int first, int source, const Scratch& scratch, Apart& apart) const;
    void rows_to_blocks(const LineTransform<E>& line, const Scratch& scratch, int first, E* blocks) const;
    void blocks_to_rows(const E* blocks, const Scratch& scratch, int first) const;
    void transform_columns(const LineTransform<E>& line, int axis, int count, const E* from, E* to) const;
    void multiply_first(const E* columns, const E* kernel, bool accumulate, E* products) const;
    void filter(const E* kernels, const Tile& tile, int block, const Scratch& scratch) const;
    Tensor<const E> taps_of(const Tensor<const E>& w, std::int64_t group, int source, int target) const;
    void read_taps(const Tensor<const E>& taps, int first, const Scratch& scratch, E* blocks) const;
    void transform_kernels(const Tensor<const E>& w, std::int64_t group, E* spectra, const Memory& memory,
                           const Crew& crew) const;
    // The targets with values that are not finite, a bit each.
    unsigned compute_tile(const Run& run, const Tile& tile, const E* kernels, const Crew& crew, Apart* apart) const;
    void add_damage(const Run& run, const Tile& tile, unsigned failed, int slot) const;
    void spread_nan(const Run& run, const Tile& tile, std::vector<bool> nan) const;
    void add_products(const Run& run, const Tile& tile, const std::vector<typename Apart::Product>& products) const;
    bool run_tile(const Run& run, std::int64_t group, std::int64_t index, const E* kernels, const Crew& crew) const;

    using PassAlgorithm<E>::layer_, PassAlgorithm<E>::pass_;
    const KernelTable<E>& kernels_;
    TileShape shape_, image_;
    int sources_, targets_;  // channels read and written, of a group
    Lines read_, kernel_, write_;
    std::array<SubGrid, axes> source_, target_;
    LaneBlocks outputs_;  // every channel in all lanes
    TileGrid tiles_;
    Index from_, to_, end_;  // of an image: t of the first sample read, of the first output, behind the last one
    std::ptrdiff_t block_im_, block_size_, tile_size_;
    std::size_t kernel_size_, scratch_bytes_;
    double scale_;
    Twiddles twiddles_;
};

}  // namespace triconv
