#include "engine.h"

#include <algorithm>
#include <cmath>

#include "pass.h"

namespace triconv {

namespace {

constexpr std::int64_t strip_bytes = 256 << 10;  // a strip buffer should leave room in L2
constexpr std::int64_t longest_axis = std::int64_t{1} << 62;

}  // namespace

template <class E>
SpectraShape SpectraShape::make(int planes, std::size_t blocks, std::int64_t rows, int lanes) {
    SpectraShape shape;
    shape.block_stride = odd_lines<E>(rows * lanes);
    shape.plane_stride = odd_lines<E>(static_cast<std::ptrdiff_t>(blocks) * shape.block_stride);
    if (blocks == 1 && rows == 1) shape.plane_stride = lanes;
    shape.size = static_cast<std::size_t>(planes) * static_cast<std::size_t>(shape.plane_stride);
    return shape;
}
template SpectraShape SpectraShape::make<float>(int, std::size_t, std::int64_t, int);
template SpectraShape SpectraShape::make<double>(int, std::size_t, std::int64_t, int);

std::vector<Strip> strips_of(const TileGrid& grid, std::int64_t first, std::int64_t last, int longest) {
    std::vector<Strip> strips;
    const std::int64_t line_tiles = grid.line_tiles();
    for (std::int64_t row = first; row < last;) {
        const std::int64_t tile = row % line_tiles;
        const std::int64_t count = std::min({line_tiles - tile, last - row, static_cast<std::int64_t>(longest)});
        strips.push_back({row / line_tiles * grid.lanes, tile, static_cast<int>(count), row - first});
        row += count;
    }
    return strips;
}

TileGrid TileGrid::dealt_to(int lane_count) const {
    TileGrid best = *this;
    best.lanes = lane_count;
    for (TileGrid grid = best; grid.segments <= std::min<std::int64_t>(tiles[2], lane_count); ++grid.segments)
        if (grid.rows() < best.rows()) best.segments = grid.segments;
    return best;
}

// The lines of a strip follow each other: one division for all of them.
std::array<LaneTiles, most_lanes> tiles_of_lanes(const TileGrid& grid, const Strip& strip) {
    std::array<LaneTiles, most_lanes> result{};
    std::int64_t image = strip.line / grid.lines_per_image();
    const std::int64_t line_tiles = grid.line_tiles();
    Index line = unravel(strip.line % grid.lines_per_image(), {grid.tiles[0], grid.tiles[1], grid.segments});
    for (int lane = 0; lane < grid.lanes && image < grid.images; ++lane) {
        const std::int64_t first = line[2] * line_tiles + strip.tile;
        result[static_cast<std::size_t>(lane)] = {
            image,
            {line[0], line[1], first},
            static_cast<int>(std::clamp<std::int64_t>(grid.tiles[2] - first, 0, strip.count))};
        if (++line[2] < grid.segments) continue;
        line[2] = 0;
        if (++line[1] < grid.tiles[1]) continue;
        line[1] = 0;
        if (++line[0] < grid.tiles[0]) continue;
        line[0] = 0;
        ++image;
    }
    return result;
}

template <class E>
Engine<E>::Engine(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape, const TileGrid& grid,
                  LaneKind lane_kind)
    : kernels_(kernels),
      layer_(layer),
      grid_(grid),
      lane_kind_(lane_kind),
      x_blocks_(lane_blocks(layer, kernels.lanes, lane_kind, true)),
      y_blocks_(lane_blocks(layer, kernels.lanes, lane_kind, false)),
      transform_(kernels, shape) {
    std::int64_t rows = 1, tile = 1;  // of the largest box any role reads or writes
    for (int a = 0; a < axes; ++a) {
        const std::int64_t extent = shape.transform[a];
        tile *= extent;
        if (a < axes - 1) rows *= extent;
    }
    const std::int64_t pixel = kernels.lanes * static_cast<std::int64_t>(sizeof(E));
    const std::int64_t room = strip_bytes / (rows * pixel);  // pixels along the innermost axis
    longest_strip_ = static_cast<int>(std::max<std::int64_t>(1, room / shape.transform[axes - 1]));
    std::int64_t taps = 1;
    for (int a = 0; a < axes; ++a)
        taps *= shape.taps[a];
    constexpr std::int64_t run_of_taps = 256;  // long enough for rows to be read in one go where they are short
    kernel_rows_ = static_cast<int>(std::clamp<std::int64_t>(run_of_taps / taps, 1, kernels.lanes));
    strip_size_ = static_cast<std::size_t>(std::max(tile * longest_strip_, tile + taps * kernel_rows_) * kernels.lanes);
    scratch_size_ = strip_size_ + transform_.scratch_size();
}

// The image index of a TileGrid holds the batch index and the output phase of each axis.
template <class E>
std::array<SubGrid, axes> Engine<E>::grids(bool on_input, std::int64_t image, const LaneBlock& block) const {
    const Index rho =
        unravel(image % layer_.output_phases(),
                {layer_.axis[0].output_phases, layer_.axis[1].output_phases, layer_.axis[2].output_phases});
    std::array<SubGrid, axes> result;
    for (int a = 0; a < axes; ++a)
        result[a] = on_input ? input_grid(layer_.axis[a], rho[a], block.phase[a]) : output_grid(layer_.axis[a], rho[a]);
    return result;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Where the tiles of a strip in one lane meet the array: `offset` is that of their first sample, which need not exist;
// those in [first, last) along each axis do, counted from it. Those up to `end` may be read from outside the array.
template <class E>
struct Engine<E>::Window {
    std::int64_t image;
    Index begin;     // t of the first sample
    Index position;  // and where along the axis that is
    Index first, last, end;
    std::ptrdiff_t offset;
    int count;  // tiles
};

// One for each line of a strip; lanes that hold channels have theirs in common.
template <class E>
struct Engine<E>::Windows {
    int count;
    std::array<Window, most_lanes> of;
};

// extent(axis, begin, tiles): samples of the tiles from `begin` on.
template <class E>
template <class Element, class Extent>
auto Engine<E>::windows_of(const TileMap<Element>& map, const Strip& strip, const LaneBlock& block,
                           const Extent& extent) const -> Windows {
    Windows windows{grid_.lanes, {}};
    const std::array<LaneTiles, most_lanes> tiles = tiles_of_lanes(grid_, strip);
    std::array<SubGrid, axes> grid{};  // of the image last seen, and the t of its samples
    std::array<Range, axes> samples{};
    std::ptrdiff_t start = 0;
    for (std::int64_t lane = 0, image = -1; lane < windows.count; ++lane) {
        const LaneTiles& held = tiles[static_cast<std::size_t>(lane)];
        Window& window = windows.of[static_cast<std::size_t>(lane)];
        window.image = held.image;
        window.count = held.count;
        if (held.count == 0) continue;
        if (held.image != image) {
            image = held.image;
            grid = grids(map.on_input, image, block);
            start = image / layer_.output_phases() * map.tensor.outer + block.channel * map.tensor.inner;
            for (int a = 0; a < axes; ++a)
                grid[a].clip(-longest_axis, longest_axis, samples[a].begin, samples[a].end);
        }
        window.offset = start;
        for (int a = 0; a < axes; ++a) {
            const std::int64_t begin = map.origin[a] + held.tile[a] * transform_.shape().outputs[a];
            window.begin[a] = begin;
            window.position[a] = grid[a].index(begin);
            window.end[a] = extent(a, begin, held.count);
            window.first[a] = std::max<std::int64_t>(0, samples[a].begin - begin);
            window.last[a] = std::min<std::int64_t>(window.end[a], samples[a].end - begin);
            window.offset += window.position[a] * map.tensor.along[a];
        }
    }
    return windows;
}

// The rows of samples of a strip in the array and, of x, in its padding.
template <class E>
template <class Element>
class Engine<E>::Rows {
public:
    Rows(const Engine& engine, const TileMap<Element>& map, const LaneBlock& block, const Windows& windows)
        : windows_(windows),
          data_(map.tensor.data),
          scattered_(engine.lane_kind() == LaneKind::tiles),
          extended_(map.on_input && engine.layer().extended()),
          along_(map.tensor.along) {
        for (int a = 0; a < axes; ++a) {
            const Axis& axis = engine.layer().axis[a];
            grid_[a] = {0, map.on_input ? axis.step : axis.out_step, axis.in, axis.outside};
            stride_[a] = along_[a] * grid_[a].step;
        }
        if (extended_) fill_ = static_cast<E>(grid_[2].outside.fill);
        args.pixel_stride = stride_[2];
        args.lane_stride = map.tensor.inner * block.channel_step;
        args.lane_count = block.lanes;
        args.lane_offset = scattered_ ? offset_.data() : nullptr;
    }
    Rows(const Rows&) = delete;  // args points into it
    Rows& operator=(const Rows&) = delete;

    // Cuts samples [begin, end) of row (z, y) into pieces of which each lane has all or nothing, and calls
    // action(begin, end, data): args fit the piece, data is where its element (lane 0, 0) is, null if no lane has any.
    template <class Action>
    void for_pieces(std::int64_t z, std::int64_t y, std::int64_t begin, std::int64_t end, const Action& action) {
        for (std::int64_t at = begin, next = end; at < end; at = next, next = end) {
            bool any = false;
            for (std::size_t lane = 0; lane < static_cast<std::size_t>(windows_.count); ++lane) {
                const Window& window = windows_.of[lane];
                Piece piece = in_array(window, z, y, at, end);
                if (extended_ && piece.offset == absent_lane) piece = in_padding(window, z, y, at, piece.end);
                next = std::min(next, piece.end);
                offset_[lane] = piece.offset;
                piece_stride_[lane] = piece.stride;
                any = any || piece.offset != absent_lane;
            }
            args.count = next - at;
            if (extended_ && any) choose_stride();
            action(at, next, !any ? nullptr : scattered_ ? data_ : data_ + offset_[0]);
        }
    }

    // What x has where a piece has no data.
    E fill() const { return fill_; }

    // To follow a kernel's read of a piece with data: the lanes whose samples are another stride apart, or the fill.
    void read_lanes_apart(int lanes) const {
        for (int i = 0; i < apart_count_; ++i) {
            const LaneApart& apart = apart_[static_cast<std::size_t>(i)];
            for (std::int64_t at = 0; at < args.count; ++at)
                args.lanes[at * lanes + apart.lane] = apart.source[at * apart.stride];
        }
    }

    RowArgs<E> args{};

private:
    // Samples of a lane up to `end`, a constant stride apart.
    struct Piece {
        std::int64_t end;
        std::ptrdiff_t offset, stride;
    };
    struct LaneApart {
        std::size_t lane;
        const E* source;
        std::ptrdiff_t stride;
    };

    Piece in_array(const Window& w, std::int64_t z, std::int64_t y, std::int64_t at, std::int64_t end) const {
        const bool row_exists = z >= w.first[0] && z < w.last[0] && y >= w.first[1] && y < w.last[1];
        if (!row_exists || at >= w.last[2]) return {end, absent_lane, 0};
        if (at < w.first[2]) return {std::min(end, w.first[2]), absent_lane, 0};
        return {std::min(end, w.last[2]), w.offset + z * stride_[0] + y * stride_[1] + at * stride_[2], stride_[2]};
    }

    Piece in_padding(const Window& w, std::int64_t z, std::int64_t y, std::int64_t at, std::int64_t end) const {
        if (z >= w.end[0] || y >= w.end[1] || at >= w.end[2]) return {end, absent_lane, 0};
        const std::int64_t plane = grid(w, 0).sample(z), row = grid(w, 1).sample(y);
        if (plane < 0 || row < 0) return {end, absent_lane, 0};
        const SampleRun run = grid(w, 2).run_from(at, std::min(end, w.end[2]));
        if (run.index < 0) return {run.end, absent_lane, 0};
        return {run.end,
                w.offset + (plane - w.position[0]) * along_[0] + (row - w.position[1]) * along_[1] +
                    (run.index - w.position[2]) * along_[2],
                run.step * along_[2]};
    }
    SubGrid grid(const Window& w, int axis) const {
        SubGrid result = grid_[axis];
        result.offset = w.position[axis];
        return result;
    }

    // The kernels read all lanes with one stride: that of the array, if any lane has it.
    void choose_stride() {
        apart_count_ = 0;
        args.pixel_stride = piece_stride_[0];
        if (!scattered_) return;
        std::ptrdiff_t chosen = absent_lane;
        for (std::size_t lane = 0; lane < static_cast<std::size_t>(windows_.count); ++lane)
            if (offset_[lane] != absent_lane && (chosen == absent_lane || piece_stride_[lane] == stride_[2]))
                chosen = piece_stride_[lane];
        args.pixel_stride = chosen;
        for (std::size_t lane = 0; lane < static_cast<std::size_t>(windows_.count); ++lane) {
            const bool exists = offset_[lane] != absent_lane;
            if (exists ? piece_stride_[lane] == chosen : fill_ == E(0)) continue;
            apart_[static_cast<std::size_t>(apart_count_++)] = {lane, exists ? data_ + offset_[lane] : &fill_,
                                                                piece_stride_[lane]};
            offset_[lane] = absent_lane;
        }
    }

    const Windows& windows_;
    Element* data_;
    bool scattered_, extended_;
    E fill_ = 0;
    std::array<std::ptrdiff_t, axes> along_, stride_{};
    std::array<SubGrid, axes> grid_{};  // but for the offsets, which are those of the windows
    std::array<std::ptrdiff_t, most_lanes> offset_{}, piece_stride_{};
    std::array<LaneApart, most_lanes> apart_{};
    int apart_count_ = 0;
};

template <class E>
void Engine<E>::read_tiles(TileRole role, const TileMap<const E>& map, const Strip& strip, int block_index,
                           const Spectra<E>& spectra, E* scratch) const {
    const LaneBlock& block = map.blocks->blocks[block_index];
    const TileShape& shape = transform_.shape();
    const int lanes = kernels_.lanes, rows_z = transform_.extent(role, 0), rows_y = transform_.extent(role, 1);
    // Tiles of x overlap in the buffer and are read once; tiles of dy stand apart, each with its own zeros behind it.
    const bool overlap = role == TileRole::read_tile;
    const std::int64_t count = transform_.count(role, 2), extent = transform_.extent(role, 2);
    const std::int64_t pitch = overlap ? shape.outputs[2] : extent;
    const std::int64_t width = (strip.count - 1) * pitch + extent;
    const Windows windows = windows_of(map, strip, block, [&](int axis, std::int64_t, int tiles) {
        return axis < 2 ? transform_.count(role, axis) : overlap ? (tiles - 1) * pitch + extent : tiles * count;
    });
    Rows<const E> rows(*this, map, block, windows);
    const auto read = [&](E* line, std::int64_t z, std::int64_t y, std::int64_t begin, std::int64_t end) {
        rows.for_pieces(z, y, begin, end, [&](std::int64_t first, std::int64_t last, const E* source) {
            rows.args.lanes = line + (first - begin) * lanes;
            rows.args.source = source;
            if (source) {
                kernels_.read_row(rows.args);
                rows.read_lanes_apart(lanes);
            } else {
                std::fill_n(rows.args.lanes, (last - first) * lanes, rows.fill());
            }
        });
    };
    for (int z = 0; z < rows_z; ++z)
        for (int y = 0; y < rows_y; ++y) {
            E* const line = scratch + (z * rows_y + y) * width * lanes;
            if (overlap) {
                read(line, z, y, 0, width);
                continue;
            }
            for (int i = 0; i < strip.count; ++i) {
                read(line + i * pitch * lanes, z, y, i * count, (i + 1) * count);
                std::fill_n(line + (i * pitch + count) * lanes, (extent - count) * lanes, E(0));
            }
        }
    const std::array<std::ptrdiff_t, axes> strides{rows_y * width * lanes, width * lanes, lanes};
    for (int i = 0; i < strip.count; ++i)
        transform_.forward(role, scratch + i * pitch * lanes, strides,
                           spectra.at(0, block_index) + (strip.row + i) * lanes, spectra.shape.plane_stride,
                           scratch + strip_size_);
}

namespace {

// Whether any of a tile's outputs is non-finite in lanes [first, last).
template <class E>
bool any_non_finite(const E* tile, const std::array<int, axes>& outputs,
                    const std::array<std::ptrdiff_t, axes>& strides, int first, int last) {
    for (int z = 0; z < outputs[0]; ++z)
        for (int y = 0; y < outputs[1]; ++y)
            for (int x = 0; x < outputs[2]; ++x)
                for (int l = first; l < last; ++l)
                    if (!std::isfinite(tile[z * strides[0] + y * strides[1] + x * strides[2] + l])) return true;
    return false;
}

}  // namespace

// Samples [first, last) along the innermost axis of a strip's tiles in the lane of a window.
template <class E>
DamagedBox Engine<E>::damaged_box(const Windows& windows, const LaneBlock& block, bool on_input, int lane,
                                  std::int64_t first, std::int64_t last) const {
    const Window& window = windows.of[static_cast<std::size_t>(lane)];
    DamagedBox box{window.image / layer_.output_phases(), block, grids(on_input, window.image, block), {}, {}};
    if (lane_kind_ == LaneKind::tiles) box.block.lanes = 1;
    for (int a = 0; a < axes; ++a) {
        box.begin[a] = window.begin[a] + (a == 2 ? std::max(first, window.first[a]) : window.first[a]);
        box.end[a] = window.begin[a] + (a == 2 ? std::min(last, window.last[a]) : window.last[a]);
    }
    return box;
}

template <class E>
void Engine<E>::write_tiles(const TileMap<E>& map, const Strip& strip, int block_index, const Spectra<E>& spectra,
                            const E* bias, E* scratch, std::vector<DamagedBox>& damaged) const {
    const LaneBlock& block = map.blocks->blocks[block_index];
    const TileShape& shape = transform_.shape();
    const int lanes = kernels_.lanes;
    const std::int64_t pitch = shape.outputs[2];
    const std::int64_t width = (strip.count - 1) * pitch + transform_.extent(TileRole::write_tile, 2);
    const std::int64_t rows_y = transform_.extent(TileRole::write_tile, 1);
    const std::array<std::ptrdiff_t, axes> strides{rows_y * width * lanes, width * lanes, lanes};
    for (int i = 0; i < strip.count; ++i)  // left to right: a codelet may write rubbish past its tile
        transform_.inverse(TileRole::write_tile, spectra.at(0, block_index) + (strip.row + i) * lanes,
                           spectra.shape.plane_stride, scratch + i * pitch * lanes, strides, scratch + strip_size_);

    const Windows windows = windows_of(map, strip, block, [&](int axis, std::int64_t begin, int tiles) {
        return std::min<std::int64_t>((axis == 2 ? tiles : 1) * shape.outputs[axis], map.end[axis] - begin);
    });
    Rows<E> rows(*this, map, block, windows);
    rows.args.bias = bias;
    bool finite = true;
    for (std::int64_t z = 0; z < shape.outputs[0]; ++z)
        for (std::int64_t y = 0; y < shape.outputs[1]; ++y)
            rows.for_pieces(z, y, 0, strip.count * pitch, [&](std::int64_t first, std::int64_t, E* destination) {
                if (!destination) return;
                rows.args.lanes = scratch + z * strides[0] + y * strides[1] + first * lanes;
                rows.args.destination = destination;
                finite = !kernels_.write_row(rows.args) && finite;
            });
    if (finite) return;
    for (int lane = 0; lane < windows.count; ++lane)
        for (int i = 0; i < windows.of[static_cast<std::size_t>(lane)].count; ++i) {
            // A sum of bias and a finite tile may overflow, too: then every tile of the strip is looked at again.
            const int last = lane_kind_ == LaneKind::tiles ? lane + 1 : block.lanes;
            if (!bias && !any_non_finite(scratch + i * pitch * lanes, shape.outputs, strides, lane, last)) continue;
            damaged.push_back(damaged_box(windows, block, map.on_input, lane, i * pitch, (i + 1) * pitch));
        }
}

template <class E>
void Engine<E>::add_tiles(const TileMap<E>& map, const Strip& strip, int block_index, const Spectra<E>& spectra,
                          E* scratch, std::vector<DamagedBox>& damaged) const {
    const LaneBlock& block = map.blocks->blocks[block_index];
    const TileShape& shape = transform_.shape();
    const int lanes = kernels_.lanes;
    const std::array<std::ptrdiff_t, axes> strides{shape.transform[1] * shape.transform[2] * lanes,
                                                   shape.transform[2] * lanes, lanes};
    for (int i = 0; i < strip.count; ++i) {
        transform_.inverse(TileRole::add_tile, spectra.at(0, block_index) + (strip.row + i) * lanes,
                           spectra.shape.plane_stride, scratch, strides, scratch + strip_size_);
        const Windows windows = windows_of(
            map, {strip.line, strip.tile + i, 1, strip.row + i}, block, [&](int axis, std::int64_t begin, int) {
                return std::min<std::int64_t>(shape.transform[axis], map.end[axis] - begin);
            });
        Rows<E> rows(*this, map, block, windows);
        rows.args.add = true;
        bool finite = true;
        for (std::int64_t z = 0; z < shape.transform[0]; ++z)
            for (std::int64_t y = 0; y < shape.transform[1]; ++y)
                rows.for_pieces(z, y, 0, shape.transform[2], [&](std::int64_t first, std::int64_t, E* destination) {
                    if (!destination) return;
                    rows.args.lanes = scratch + z * strides[0] + y * strides[1] + first * lanes;
                    rows.args.destination = destination;
                    finite = !kernels_.write_row(rows.args) && finite;
                });
        for (int lane = 0; lane < windows.count && !finite; ++lane)
            if (windows.of[static_cast<std::size_t>(lane)].count > 0)
                damaged.push_back(damaged_box(windows, block, map.on_input, lane, 0, shape.transform[2]));
    }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// The taps of one kernel phase between an x block and a y block, as offsets into a weight tensor. Rows are the channels
// on the other side than the lanes.
template <class E>
struct Engine<E>::KernelView {
    std::ptrdiff_t start, lane_stride, row_stride;
    std::array<std::ptrdiff_t, axes> tap_stride;
    Index taps;
    int lanes, rows;

    std::int64_t tap_count() const { return taps[0] * taps[1] * taps[2]; }

    // Calls f(RowArgs without an array, offset into the tensor, index of the first tap) for runs of taps at a constant
    // distance, as long as the strides allow: all taps of several rows at best. Taps count on from row to row.
    template <class F>
    void for_each_run(int first_row, int row_count, F f) const {
        const std::array<std::int64_t, 4> extent{row_count, taps[0], taps[1], taps[2]};
        const std::array<std::ptrdiff_t, 4> stride{row_stride, tap_stride[0], tap_stride[1], tap_stride[2]};
        RowArgs<E> row{};
        row.lane_stride = lane_stride;
        row.lane_count = lanes;
        row.count = row.pixel_stride = 1;
        int outer = 4;
        for (; outer > 0; --outer) {
            if (extent[outer - 1] == 1) continue;
            if (row.count == 1) row.pixel_stride = stride[outer - 1];
            if (stride[outer - 1] != row.count * row.pixel_stride) break;
            row.count *= extent[outer - 1];
        }
        const std::int64_t total = row_count * tap_count();
        for (std::int64_t tap = 0; tap < total; tap += row.count) {
            std::int64_t rest = tap;
            std::ptrdiff_t offset = start + first_row * row_stride;
            for (int a = 3; a >= 0; --a) {
                offset += rest % extent[a] * stride[a];
                rest /= extent[a];
            }
            f(row, offset, tap);
        }
    }
};

// Calls move(index of a tap, its offset in a box): reversed, the first tap is at the position `at`.
template <class Move>
void for_each_tap(const Index& taps, const Index& at, bool flip, const std::array<std::ptrdiff_t, axes>& strides,
                  Move move) {
    std::ptrdiff_t tap = 0;
    for (std::int64_t z = 0; z < taps[0]; ++z)
        for (std::int64_t y = 0; y < taps[1]; ++y)
            for (std::int64_t x = 0; x < taps[2]; ++x, ++tap)
                move(tap, flip ? (at[0] - z) * strides[0] + (at[1] - y) * strides[1] + (at[2] - x) * strides[2]
                               : z * strides[0] + y * strides[1] + x * strides[2]);
}

template <class E>
auto Engine<E>::kernel_view(const LaneBlock& x, const LaneBlock& y, bool lanes_on_input,
                            const std::array<std::ptrdiff_t, axes>& along, std::ptrdiff_t outer,
                            std::ptrdiff_t inner) const -> KernelView {
    KernelView view{};
    view.start = y.channel * outer + (layer_.in_channels ? x.channel % layer_.in_per_group() : 0) * inner;
    for (int a = 0; a < axes; ++a) {
        view.start += x.phase[a] * along[a];
        view.tap_stride[a] = layer_.axis[a].tap_step * along[a];
        view.taps[a] = layer_.axis[a].taps_of(x.phase[a]);
    }
    view.lanes = lanes_on_input ? x.lanes : y.lanes;
    view.rows = lanewise() ? 1 : lanes_on_input ? y.lanes : x.lanes;
    view.lane_stride = lanewise() || !lanes_on_input ? outer * y.channel_step : inner;
    view.row_stride = lanes_on_input ? outer : inner;
    return view;
}

template <class E>
void Engine<E>::read_kernels(const Tensor<const E>& w, bool to_input, int target, int source, bool flip,
                             const Spectra<E>& spectra, E* scratch) const {
    const LaneBlock& target_block = blocks(to_input).blocks[target];
    const LaneBlock& source_block = blocks(!to_input).blocks[source];
    const KernelView view = to_input ? kernel_view(target_block, source_block, true, w.along, w.outer, w.inner)
                                     : kernel_view(source_block, target_block, false, w.along, w.outer, w.inner);
    const int lanes = kernels_.lanes;
    const LaneBlocks& sources = blocks(!to_input);
    const int first_row = lanewise() ? source % sources.per_group : sources.row_of(source % sources.per_group, lanes);
    const TileShape& shape = transform_.shape();
    Index extent, last;
    for (int a = 0; a < axes; ++a) {
        extent[a] = transform_.extent(TileRole::read_kernel, a);
        last[a] = shape.taps[a] - 1;
    }
    const std::array<std::ptrdiff_t, axes> strides{extent[1] * extent[2] * lanes, extent[2] * lanes, lanes};
    const std::array<std::ptrdiff_t, axes> reversed{-strides[0], -strides[1], -strides[2]};
    const std::ptrdiff_t box_size = extent[0] * strides[0], row_size = view.tap_count() * lanes;
    const E scale = static_cast<E>(transform_.scale());
    const bool as_they_are = scale == E(1) && view.taps == extent;  // no zeros around them, nothing to multiply
    E* const taps = scratch + box_size;
    for (int done = 0, count; done < view.rows; done += count) {
        count = std::min(view.rows - done, kernel_rows_);
        view.for_each_run(done, count, [&](RowArgs<E> row, std::ptrdiff_t offset, std::int64_t tap) {
            row.lanes = taps + tap * lanes;
            row.source = w.data + offset;
            kernels_.read_row(row);
        });
        for (int r = 0; r < count; ++r) {
            E* const spectrum = spectra.at(0, target) + (first_row + done + r) * lanes;
            if (as_they_are) {
                transform_.forward(TileRole::read_kernel, taps + r * row_size + (flip ? row_size - lanes : 0),
                                   flip ? reversed : strides, spectrum, spectra.shape.plane_stride,
                                   scratch + strip_size_);
                continue;
            }
            std::fill_n(scratch, box_size, E(0));
            for_each_tap(view.taps, last, flip, strides, [&](std::ptrdiff_t tap, std::ptrdiff_t in_box) {
                const E* const from = taps + r * row_size + tap * lanes;
                for (int lane = 0; lane < lanes; ++lane)
                    scratch[in_box + lane] = scale * from[lane];
            });
            transform_.forward(TileRole::read_kernel, scratch, strides, spectrum, spectra.shape.plane_stride,
                               scratch + strip_size_);
        }
    }
}

namespace {

// Adds all lanes of each pixel into its first, pairwise.
template <class E>
void sum_lanes(E* pixels, std::int64_t count, int lanes) {
    for (std::int64_t i = 0; i < count; ++i, pixels += lanes)
        for (int half = lanes / 2; half > 0; half /= 2)
            for (int l = 0; l < half; ++l)
                pixels[l] += pixels[l + half];
}

}  // namespace

template <class E>
bool Engine<E>::write_kernels(const Tensor<E>& dw, int x_block, int y_block, const Spectra<E>& spectra,
                              E* scratch) const {
    const LaneBlock& x = x_blocks_.blocks[x_block];
    const LaneBlock& y = y_blocks_.blocks[y_block];
    const KernelView view = kernel_view(x, y, true, dw.along, dw.outer, dw.inner);
    const int lanes = kernels_.lanes, y_in_group = y_block % y_blocks_.per_group;
    const int first_row = lanewise() ? y_in_group : y_blocks_.row_of(y_in_group, lanes);
    Index extent;
    for (int a = 0; a < axes; ++a)
        extent[a] = transform_.extent(TileRole::write_kernel, a);
    const std::array<std::ptrdiff_t, axes> strides{extent[1] * extent[2] * lanes, extent[2] * lanes, lanes};
    const E scale = static_cast<E>(transform_.scale());
    const std::ptrdiff_t box_size = extent[0] * strides[0], row_size = view.tap_count() * lanes;
    const bool as_they_are = scale == E(1) && view.taps == extent;
    E* const taps = scratch + box_size;
    bool non_finite = false;
    for (int done = 0, count; done < view.rows; done += count) {
        count = std::min(view.rows - done, kernel_rows_);
        for (int r = 0; r < count; ++r) {
            E* const box = as_they_are ? taps + r * row_size : scratch;
            transform_.inverse(TileRole::write_kernel, spectra.at(0, x_block) + (first_row + done + r) * lanes,
                               spectra.shape.plane_stride, box, strides, scratch + strip_size_);
            if (!as_they_are)
                for_each_tap(view.taps, {}, false, strides, [&](std::ptrdiff_t tap, std::ptrdiff_t in_box) {
                    E* const to = taps + r * row_size + tap * lanes;
                    for (int lane = 0; lane < lanes; ++lane)
                        to[lane] = scale * scratch[in_box + lane];
                });
        }
        if (lane_kind_ == LaneKind::tiles) sum_lanes(taps, count * view.tap_count(), lanes);
        view.for_each_run(done, count, [&](RowArgs<E> row, std::ptrdiff_t offset, std::int64_t tap) {
            if (lane_kind_ == LaneKind::tiles) row.lane_count = 1;
            row.lanes = taps + tap * lanes;
            row.destination = dw.data + offset;
            non_finite = kernels_.write_row(row) || non_finite;
        });
    }
    return non_finite;
}

// ---- products -------------------------------------------------------------------------------------------------------

namespace {

// The part of `total` that comes after `done`, in equal parts of at most `most`.
int balanced_part(int total, int done, int most) {
    const int left = total - done;
    const int parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

// One part of the reduction, cut into register blocks. The first blocks of rows that meet a panel of b have a column each
// of the next panel fetched: panels are a few KB in planes far apart, too short for the processor to see a stream in
// them. All columns at once, by the first block, would come faster than memory delivers.
template <class E>
void multiply_part(const MicroKernel<E>& kernel, const ProductArgs<E>& whole, int first_block, int blocks, int rows,
                   int cols, E* c, bool accumulate) {
    ProductArgs<E> args = whole;
    args.blocks = blocks;
    args.full_blocks = std::clamp(whole.full_blocks - first_block, 0, blocks);
    args.a_offset = whole.a_offset + first_block;
    args.b_offset = whole.b_offset + first_block;
    args.accumulate = accumulate;
    const int next_block = first_block + blocks;
    const std::ptrdiff_t after =
        (next_block < whole.blocks ? whole.b_offset[next_block] : whole.b_ahead) - whole.b_offset[first_block];
    for (int j = 0; j < cols; j += args.cols) {
        args.cols = balanced_part(cols, j, kernel.nr);
        const bool last = j + args.cols == cols;
        const std::ptrdiff_t next = last ? after - j * whole.b_col : args.cols * whole.b_col;
        for (int i = 0, column = 0; i < rows; i += args.rows, ++column) {
            args.b_ahead = column < kernel.nr ? next + column * whole.b_col : 0;
            args.rows = balanced_part(rows, i, kernel.mr);
            args.a = whole.a + i * whole.a_row;
            args.b = whole.b + j * whole.b_col;
            args.c = c + i * whole.c_row + j * whole.c_col;
            kernel.run(args);
        }
    }
}

}  // namespace

template <class E>
void multiply_blocks(const MicroKernel<E>& kernel, const ProductArgs<E>& args, int rows, int cols, int lanes,
                     E* partial) {
    const int part = std::max(1, max_reduction / std::max(1, args.length)), group = part * parts_per_group;
    const bool grouped = partial != nullptr && args.blocks > group;
    for (int first = 0; first < args.blocks; first += group) {
        const int end = std::min(first + group, args.blocks);
        E* const c = grouped ? partial : args.c;
        for (int block = first; block < end; block += part)
            multiply_part(kernel, args, block, std::min(part, end - block), rows, cols, c,
                          block > first || (!grouped && (first > 0 || args.accumulate)));
        if (!grouped) continue;
        const bool overwrite = first == 0 && !args.accumulate;
        for (int j = 0; j < cols; ++j)
            for (int i = 0; i < rows; ++i) {
                const std::ptrdiff_t at = i * args.c_row + j * args.c_col;
                for (int l = 0; l < lanes; ++l)
                    args.c[at + l] = (overwrite ? E(0) : args.c[at + l]) + partial[at + l];
            }
    }
}
template void multiply_blocks(const MicroKernel<float>&, const ProductArgs<float>&, int, int, int, float*);
template void multiply_blocks(const MicroKernel<double>&, const ProductArgs<double>&, int, int, int, double*);

// The inner loop of a lane-wise product runs over the rows of a bin or over the bins of a row, whichever are more.
template <class E>
void Engine<E>::multiply_lanewise(const BinRun& bins, ProductKind complex_kind, bool to_input, const Slice& slice,
                                  const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first,
                                  int last) const {
    const auto run = kernels_.lanewise[static_cast<int>(bins.complex ? complex_kind : ProductKind::real)];
    const LaneBlocks& sources = blocks(!to_input);
    const LaneBlocks& targets = blocks(to_input);
    const std::ptrdiff_t lanes = kernels_.lanes, planes = bins.planes_per_bin();
    const std::ptrdiff_t a_bin = planes * a.shape.plane_stride, w_bin = planes * w.shape.plane_stride,
                         c_bin = planes * c.shape.plane_stride;
    const int rows = last - first;
    const auto multiply_blocks_of = [&](int target, int source, int row, bool accumulate) {
        LanewiseArgs<E> args{a.at(bins.plane, source) + first * lanes,
                             w.at(bins.plane, target) + row * lanes,
                             c.at(bins.plane, target) + first * lanes,
                             a.shape.plane_stride,
                             w.shape.plane_stride,
                             c.shape.plane_stride,
                             lanes,
                             0,
                             lanes,
                             rows,
                             accumulate};
        if (rows < bins.count) {
            args.a_row = a_bin;
            args.b_row = w_bin;
            args.c_row = c_bin;
            args.rows = bins.count;
            for (int i = 0; i < rows; ++i, args.a += lanes, args.c += lanes)
                run(args);
        } else {
            for (int i = 0; i < bins.count; ++i, args.a += a_bin, args.b += w_bin, args.c += c_bin)
                run(args);
        }
    };
    for (int group = slice.first_group; group < slice.last_group; ++group)
        for (int target = 0; target < targets.per_group; ++target)
            for (int source = 0; source < sources.per_group; ++source)
                multiply_blocks_of(group * targets.per_group + target, group * sources.per_group + source, source,
                                   source > 0);
}

template <class E>
void Engine<E>::multiply_weight_grad_lanewise(const BinRun& bins, const Spectra<E>& dy, const Spectra<E>& x,
                                              const Spectra<E>& dw, int rows, int y_block, bool accumulate) const {
    const auto run =
        kernels_.lanewise[static_cast<int>(bins.complex ? ProductKind::complex_conj_a : ProductKind::real)];
    const std::ptrdiff_t lanes = kernels_.lanes, planes = bins.planes_per_bin();
    const std::ptrdiff_t dy_bin = planes * dy.shape.plane_stride, x_bin = planes * x.shape.plane_stride,
                         dw_bin = planes * dw.shape.plane_stride;
    const int group = y_block / y_blocks_.per_group, in_group = y_block % y_blocks_.per_group;
    for (int x_block = group * x_blocks_.per_group; x_block < (group + 1) * x_blocks_.per_group; ++x_block) {
        LanewiseArgs<E> args{dy.at(bins.plane, y_block),
                             x.at(bins.plane, x_block),
                             dw.at(bins.plane, x_block) + in_group * lanes,
                             dy.shape.plane_stride,
                             x.shape.plane_stride,
                             dw.shape.plane_stride,
                             lanes,
                             lanes,
                             0,
                             rows,
                             accumulate};
        // A few rows are added up one after the other, each along the bins.
        constexpr int few = 8;
        if (rows <= few) {
            args.a_row = dy_bin;
            args.b_row = x_bin;
            args.c_row = dw_bin;
            args.rows = bins.count;
            for (int i = 0; i < rows; ++i, args.a += lanes, args.b += lanes) {
                args.accumulate = accumulate || i > 0;
                run(args);
            }
        } else {
            for (int i = 0; i < bins.count; ++i, args.a += dy_bin, args.b += x_bin, args.c += dw_bin)
                run(args);
        }
    }
}

// So many that a panel of them leaves most of L2 to the kernels.
template <class E>
int Engine<E>::product_rows(bool to_input, const Slice& slice) const {
    constexpr std::ptrdiff_t panel_bytes = 128 << 10;
    constexpr std::ptrdiff_t step = 12, fewest = 24, most = 96;  // a multiple of the micro-kernels' rows
    const std::ptrdiff_t row_bytes = panel_row(to_input, slice) * static_cast<std::ptrdiff_t>(sizeof(E));
    return static_cast<int>(
        std::clamp(panel_bytes / std::max<std::ptrdiff_t>(1, row_bytes) / step * step, fewest, most));
}

template <class E>
std::ptrdiff_t Engine<E>::panel_row(bool to_input, const Slice& slice) const {
    return std::ptrdiff_t{2} * slice.block_count(blocks(!to_input)) * kernels_.lanes;  // complex
}

// Where lanes hold tiles: the kernels' values, the same in all lanes, are what is broadcast.
template <class E>
void Engine<E>::multiply_tiles(const Bin& bin, ProductKind complex_kind, bool to_input, const Slice& slice,
                               const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first,
                               int last) const {
    const ProductKind swapped =
        complex_kind == ProductKind::complex_conj_b ? ProductKind::complex_conj_a : ProductKind::complex;
    const auto& kernel = kernels_.product[static_cast<int>(bin.complex ? swapped : ProductKind::real)];
    const LaneBlocks& sources = blocks(!to_input);
    const LaneBlocks& targets = blocks(to_input);
    const int lanes = kernels_.lanes;
    constexpr int length = 16;  // channels of a block of the reduction
    const int count = (sources.per_group + length - 1) / length;
    std::vector<std::ptrdiff_t> offsets(2 * static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        offsets[static_cast<std::size_t>(i)] = i * length * lanes;
        offsets[static_cast<std::size_t>(count + i)] = i * length * a.shape.block_stride;
    }
    ProductArgs<E> args{};
    args.a_im = w.shape.plane_stride;
    args.b_im = a.shape.plane_stride;
    args.c_im = c.shape.plane_stride;
    args.a_offset = offsets.data();
    args.b_offset = offsets.data() + count;
    args.blocks = count;
    args.full_blocks = sources.per_group / length;
    args.length = length;
    args.tail_length = sources.per_group % length;
    args.a_row = w.shape.block_stride;
    args.a_step = lanes;
    args.b_step = a.shape.block_stride;
    args.b_col = lanes;
    args.c_row = c.shape.block_stride;
    args.c_col = lanes;
    for (int group = slice.first_group; group < slice.last_group; ++group) {
        args.a = w.at(bin.plane, group * targets.per_group);
        args.b = a.at(bin.plane, group * sources.per_group) + first * lanes;
        args.c = c.at(bin.plane, group * targets.per_group) + first * lanes;
        multiply_blocks(kernel, args, targets.per_group, last - first, lanes);
    }
}

template <class E>
void Engine<E>::multiply(const Bin& bin, ProductKind complex_kind, bool to_input, const Slice& slice,
                         const Spectra<E>& a, const Spectra<E>& w, const Spectra<E>& c, int first, int last,
                         E* panel) const {
    if (lane_kind_ == LaneKind::tiles) return multiply_tiles(bin, complex_kind, to_input, slice, a, w, c, first, last);
    const ProductKind kind = bin.complex ? complex_kind : ProductKind::real;
    const LaneBlocks& sources = blocks(!to_input);
    const LaneBlocks& targets = blocks(to_input);
    const int lanes = kernels_.lanes, rows = last - first, planes = bin.complex ? 2 : 1;
    const int first_source = slice.first_block(sources), source_count = slice.block_count(sources);
    const std::ptrdiff_t first_element = static_cast<std::ptrdiff_t>(first) * lanes;
    const E* rows_of_a = a.at(bin.plane, first_source) + first_element;
    std::ptrdiff_t a_block = a.shape.block_stride, a_im = a.shape.plane_stride;
    if (panel) {
        a_block = static_cast<std::ptrdiff_t>(rows) * lanes;
        a_im = source_count * a_block;
        for (int plane = 0; plane < planes; ++plane)
            for (int i = 0; i < source_count; ++i)
                std::copy_n(a.at(bin.plane + plane, first_source + i) + first_element, a_block,
                            panel + plane * a_im + i * a_block);
        rows_of_a = panel;
    }

    std::vector<std::ptrdiff_t> offsets(2 * static_cast<std::size_t>(sources.per_group));
    std::ptrdiff_t* const a_offset = offsets.data();
    std::ptrdiff_t* const b_offset = a_offset + sources.per_group;
    for (int i = 0; i < sources.per_group; ++i) {
        a_offset[i] = i * a_block;
        b_offset[i] = sources.row_of(i, lanes) * lanes;
    }
    ProductArgs<E> args{};
    args.a_im = a_im;
    args.b_im = w.shape.plane_stride;
    args.c_im = c.shape.plane_stride;
    args.a_offset = a_offset;
    args.b_offset = b_offset;
    args.blocks = sources.per_group;
    args.full_blocks = sources.full_per_group;
    args.length = lanes;
    args.tail_length = sources.tail_lanes;
    args.a_row = lanes;
    args.a_step = 1;
    args.b_step = lanes;
    args.b_col = w.shape.block_stride;
    args.c_row = lanes;
    args.c_col = c.shape.block_stride;
    const int target_count = slice.targets_per_group(targets);
    for (int group = slice.first_group; group < slice.last_group; ++group) {
        const int target = slice.first_target(targets) + (group - slice.first_group) * target_count;
        args.a = rows_of_a + (group - slice.first_group) * sources.per_group * a_block;
        args.b = w.at(bin.plane, target);
        args.b_ahead = group + 1 < slice.last_group ? target_count * w.shape.block_stride
                                                    : w.at(bin.plane + planes, slice.first_target(targets)) - args.b;
        args.c = c.at(bin.plane, target) + first_element;
        multiply_blocks(kernels_.product[static_cast<int>(kind)], args, rows, target_count, lanes);
    }
}

template <class E>
void Engine<E>::multiply_weight_grad(const Bin& bin, const Spectra<E>& dy, const Spectra<E>& x, const Spectra<E>& dw,
                                     int rows, const Slice& slice, int y_block, bool accumulate) const {
    const ProductKind kind = bin.complex ? ProductKind::complex_conj_a : ProductKind::real;
    const int lanes = kernels_.lanes, group = y_block / y_blocks_.per_group, in_group = y_block % y_blocks_.per_group;
    const int target_count = slice.targets_per_group(x_blocks_);
    const int target = slice.first_target(x_blocks_) + (group - slice.first_group) * target_count;
    const std::ptrdiff_t no_offset = 0;
    ProductArgs<E> args{};
    args.a = dy.at(bin.plane, y_block);
    args.b = x.at(bin.plane, target);
    args.c = dw.at(bin.plane, target) + y_blocks_.row_of(in_group, lanes) * lanes;
    args.a_im = dy.shape.plane_stride;
    args.b_im = x.shape.plane_stride;
    args.c_im = dw.shape.plane_stride;
    args.a_offset = args.b_offset = &no_offset;
    args.blocks = args.full_blocks = 1;
    args.length = rows;
    args.a_row = 1;
    args.a_step = lanes;
    args.b_step = lanes;
    args.b_col = x.shape.block_stride;
    args.c_row = lanes;
    args.c_col = dw.shape.block_stride;
    args.accumulate = accumulate;
    multiply_blocks(kernels_.product[static_cast<int>(kind)], args, y_blocks_.blocks[y_block].lanes, target_count,
                    lanes);
}

template class Engine<float>;
template class Engine<double>;

}  // namespace triconv
