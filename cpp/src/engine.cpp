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
    transform_.forward(role, scratch, strides, spectra.at(0, block_index) + strip.row * lanes,
                       spectra.shape.plane_stride, scratch + strip_size_, {strip.count, pitch * lanes, lanes});
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
    // Left to right: a codelet may write rubbish past its tile.
    transform_.inverse(TileRole::write_tile, spectra.at(0, block_index) + strip.row * lanes, spectra.shape.plane_stride,
                       scratch, strides, scratch + strip_size_, {strip.count, pitch * lanes, lanes});

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

template class Engine<float>;
template class Engine<double>;

}  // namespace triconv
