// The stages of a tiled transform convolution. Every pass is: read tiles, multiply spectra, write tiles (see passes.h
// for the loop). The stages know nothing of passes; what differs comes in through TileMap and the product's operands.
//
// Spectra layout, for both operands and the result (lanes: one lane vector):
//
//   plane 0:  block 0: [row 0][row 1] ... [row rows-1] pad | block 1: ... | ... pad
//   plane 1:  ...
//
// Rows are tiles (x, y and their gradients) or reduced channels (weights); blocks are the lane blocks of the tensor. Where
// lanes hold tiles (LaneKind), a row is one tile for each lane, a block one channel, and the spectra of weights have the
// same value in all lanes: the products are those of a lane-wise layer whose groups share their kernels.
// Block and plane strides are odd multiples of a cache line, so that the planes of a tile fall into different sets; the
// planes of a single row of a single block are contiguous.
// One bin's product is then a matrix product whose a is read with a row stride of one lane vector, as a packed panel.
#pragma once

#include <algorithm>
#include <vector>

#include "recompute.h"
#include "transform.h"

namespace triconv {

struct SpectraShape {
    std::ptrdiff_t plane_stride = 0, block_stride = 0;  // elements
    std::size_t size = 0;                               // elements of all planes

    template <class E>
    static SpectraShape make(int planes, std::size_t blocks, std::int64_t rows, int lanes);
};

// Groups of lane blocks (see LaneBlocks) do not mix in the products, so a pass can take a few of them at a time through
// the whole loop: a slice. Only its spectra are in memory. Of a lane-wise layer the slice is one lane block of the
// layer's groups; of a layer without groups, all channels. A slice of one group can be cut once more, into parts of the
// blocks that the products write (targets): then only a part of the kernels' spectra is in memory.
struct Slice {
    int first_group, last_group;
    int part = 0, parts = 1;

    int first_block(const LaneBlocks& blocks) const { return first_group * blocks.per_group; }
    int block_count(const LaneBlocks& blocks) const { return (last_group - first_group) * blocks.per_group; }
    int first_target(const LaneBlocks& blocks) const { return first_block(blocks) + cut(blocks, part); }
    int target_count(const LaneBlocks& blocks) const { return cut(blocks, part + 1) - cut(blocks, part); }
    int targets_per_group(const LaneBlocks& blocks) const { return target_count(blocks) / (last_group - first_group); }

    // Target blocks of each part but the last: a multiple of what micro-kernels take at a time.
    static int part_blocks(int count, int parts) {
        constexpr int step = 4;
        return parts == 1 ? count : (count + parts * step - 1) / (parts * step) * step;
    }

private:
    int cut(const LaneBlocks& blocks, int p) const {
        return std::min(block_count(blocks), p * part_blocks(block_count(blocks), parts));
    }
};

template <class E>
struct Spectra {
    E* data;
    SpectraShape shape;
    int first_block = 0;  // of the slice held

    E* at(int plane, std::ptrdiff_t block) const {
        return data + plane * shape.plane_stride + (block - first_block) * shape.block_stride;
    }
};

// The tiles of a pass: image = batch index and output phase; tile (z, y, x) of an image starts at origin + index * M.
// A *line* is a run of tiles along the innermost axis: all of them, or, where there are fewer lines than lanes to fill,
// one of equal segments. `lanes` lines next to each other make the rows of the spectra, a tile of each line a row.
struct TileGrid {
    std::int64_t images = 0;
    Index tiles{1, 1, 1};
    int lanes = 1;
    std::int64_t segments = 1;

    // The grid with its tiles dealt to lanes, by as many segments as give the fewest rows.
    TileGrid dealt_to(int lanes) const;

    std::int64_t count() const { return images * tiles[0] * tiles[1] * tiles[2]; }
    std::int64_t lines_per_image() const { return tiles[0] * tiles[1] * segments; }
    std::int64_t line_tiles() const { return ceil_div(tiles[2], segments); }
    std::int64_t rows() const { return ceil_div(images * lines_per_image(), lanes) * line_tiles(); }
};

// `count` consecutive tiles, from the one with index `tile` on, of `lanes` lines; `row` is the spectra row of the first.
struct Strip {
    std::int64_t line, tile;
    int count;
    std::int64_t row;
};
std::vector<Strip> strips_of(const TileGrid& grid, std::int64_t first, std::int64_t last, int longest);

// The part of a strip that one lane holds. The last line of an image may be shorter than a strip; the last lines to be
// dealt may not exist, count is then 0.
struct LaneTiles {
    std::int64_t image;
    Index tile;
    int count;
};
std::array<LaneTiles, most_lanes> tiles_of_lanes(const TileGrid& grid, const Strip& strip);  // the first grid.lanes

// Where tiles come from or go to: a tensor on the input's sub-grids (x, dx) or on the output's (y, dy).
template <class E>
struct TileMap {
    Tensor<E> tensor;
    const LaneBlocks* blocks;
    bool on_input;
    Index origin{};  // t of the first sample of tile 0
    Index end{};     // writing: t of samples not to be written any more
};

template <class E>
class Engine {
public:
    Engine(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape, const TileGrid& grid,
           LaneKind lane_kind);

    const KernelTable<E>& kernels() const { return kernels_; }
    const Layer& layer() const { return layer_; }
    const TileTransform<E>& transform() const { return transform_; }
    const LaneBlocks& x_blocks() const { return x_blocks_; }
    const LaneBlocks& y_blocks() const { return y_blocks_; }
    const TileGrid& grid() const { return grid_; }
    LaneKind lane_kind() const { return lane_kind_; }
    bool lanewise() const { return lane_kind_ != LaneKind::channels; }
    // Whether products are taken lane by lane: else they are matrix products, with channels to reduce over.
    bool multiplies_lanewise(bool to_input) const {
        return lane_kind_ == LaneKind::groups || (lane_kind_ == LaneKind::tiles && blocks(!to_input).per_group == 1);
    }
    int lanes() const { return kernels_.lanes; }
    int longest_strip() const { return longest_strip_; }        // tiles; bounds the strip buffer
    std::size_t scratch_size() const { return scratch_size_; }  // elements, of the four tile stages

    // ---- tiles and kernels to spectra and back; scratch has scratch_size() elements
    void read_tiles(TileRole role, const TileMap<const E>& map, const Strip& strip, int block,
                    const Spectra<E>& spectra, E* scratch) const;
    // Writes each output once. Tiles with non-finite values are appended to damaged.
    void write_tiles(const TileMap<E>& map, const Strip& strip, int block, const Spectra<E>& spectra, const E* bias,
                     E* scratch, std::vector<DamagedBox>& damaged) const;
    // Adds overlapping tiles to the destination, in the order of the calls.
    void add_tiles(const TileMap<E>& map, const Strip& strip, int block, const Spectra<E>& spectra, E* scratch,
                   std::vector<DamagedBox>& damaged) const;
    // Kernel spectra for a product from `source` blocks (rows) to `target` block (lanes). flip: reversed taps.
    void read_kernels(const Tensor<const E>& w, bool to_input, int target, int source, int part, bool flip,
                      const Spectra<E>& spectra, E* scratch) const;
    // dw from spectra with x's blocks as lanes and output channels as rows; true if a value was not finite.
    bool write_kernels(const Tensor<E>& dw, int x_block, int y_block, int part, const Spectra<E>& spectra,
                       E* scratch) const;
    // Both are done in parts, a few rows each: how many for the rows of a group, and which part of which of its blocks.
    struct KernelPart {
        int block, part;
    };
    int kernel_parts(const LaneBlocks& rows) const;
    KernelPart kernel_part(const LaneBlocks& rows, int index) const;
    LaneBlock part_of(const LaneBlock& rows, int part) const;

    Slice whole() const { return {0, x_blocks_.groups}; }

    // ---- products of a slice: one bin (lane-wise: a run of them)
    // c[target] = sum over a's blocks of a * w (kind conj_b: correlation, complex: convolution), rows [first, last).
    // c may overwrite a where both have the same shape: `panel`, if not null, takes the rows of a first, panel_row
    // elements each.
    void multiply(const Bin& bin, ProductKind complex_kind, bool to_input, const Slice& slice, const Spectra<E>& a,
                  const Spectra<E>& w, const Spectra<E>& c, int first, int last, E* panel) const;
    int product_rows(bool to_input, const Slice& slice) const;  // a sensible number of rows for one call
    std::ptrdiff_t panel_row(bool to_input, const Slice& slice) const;
    void multiply_lanewise(const BinRun& bins, ProductKind complex_kind, bool to_input, const Slice& slice,
                           const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first, int last) const;
    // dw += conj(dy) * x, summed over rows [0, rows)
    void multiply_weight_grad(const Bin& bin, const Spectra<E>& dy, const Spectra<E>& x, const Spectra<E>& dw, int rows,
                              const Slice& slice, int y_block, bool accumulate) const;
    void multiply_weight_grad_lanewise(const BinRun& bins, const Spectra<E>& dy, const Spectra<E>& x,
                                       const Spectra<E>& dw, int rows, int y_block, bool accumulate) const;

    const LaneBlocks& blocks(bool of_input) const { return of_input ? x_blocks_ : y_blocks_; }
    std::array<SubGrid, axes> grids(bool on_input, std::int64_t image, const LaneBlock& block) const;

private:
    struct Window;
    struct Windows;
    template <class Element>
    class Rows;
    template <class Element, class Extent>
    Windows windows_of(const TileMap<Element>& map, const Strip& strip, const LaneBlock& block,
                       const Extent& extent) const;
    DamagedBox damaged_box(const Windows& windows, const LaneBlock& block, bool on_input, int lane, std::int64_t first,
                           std::int64_t last) const;
    struct KernelView;
    void multiply_tiles(const Bin& bin, ProductKind complex_kind, bool to_input, const Slice& slice,
                        const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first, int last) const;
    KernelView kernel_view(const LaneBlock& x, const LaneBlock& y, bool lanes_on_input,
                           const std::array<std::ptrdiff_t, axes>& along, std::ptrdiff_t outer,
                           std::ptrdiff_t inner) const;

    int parts_of(int rows) const { return (rows + kernel_rows_ - 1) / kernel_rows_; }

    const KernelTable<E>& kernels_;
    Layer layer_;
    TileGrid grid_;
    LaneKind lane_kind_;
    LaneBlocks x_blocks_, y_blocks_;
    TileTransform<E> transform_;
    int longest_strip_ = 1;
    int kernel_rows_ = 1;  // of kernels read or written in one go
    std::size_t scratch_size_ = 0, strip_size_ = 0;
};

// So that rounding errors stay small, a reduction is cut into parts of at most max_reduction steps, each summed apart, and
// those of direct convolution, which may be long, into groups of parts. Of 246,016 terms of random signs, in float32 with
// AVX-512, the sum errs by 1.1e-6 of the largest sum with parts of 512 alone.
inline constexpr int max_reduction = 256;
inline constexpr int parts_per_group = 16;

// `total` cut into as few parts of at most `most` as will do, sizes as equal as can be, the larger ones first.
struct EqualParts {
    EqualParts(int total, int most)
        : count((total + most - 1) / most), small(total / std::max(1, count)), larger(total % std::max(1, count)) {}
    int size(int part) const { return part < larger ? small + 1 : small; }
    int first(int part) const { return part * small + std::min(part, larger); }

    int count, small, larger;
};

}  // namespace triconv
