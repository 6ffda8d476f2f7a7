// The rows of an ImagePass: between the arrays and lane vectors of rows, and between those and the blocks.
#include <algorithm>
#include <cmath>

#include "image_pass.h"

namespace triconv {

// ---- rows of an image -----------------------------------------------------------------------------------------------

// Where a lane vector of rows begins: a constant stride apart from `offset[0]` (regular), or lane by lane.
template <class E>
struct ImagePass<E>::RowLanes {
    std::array<std::ptrdiff_t, most_lanes> offset{};
    int present = 0;
    bool regular = true;
};

template <class E>
auto ImagePass<E>::row_lanes(const Tensor<const E>& from, const Tile& tile, int z, int y) const -> RowLanes {
    RowLanes rows;
    const std::int64_t plane = source_[0].sample(tile.from[0] + z);
    for (int l = 0; l < kernels_.lanes; ++l) {
        const std::int64_t at = plane < 0 ? -1 : source_[1].sample(tile.from[1] + y + l);
        rows.offset[l] = at < 0 ? absent_lane : plane * from.along[0] + at * from.along[1];
        rows.present += at >= 0;
        rows.regular = rows.regular && at >= 0 &&
                       (l == 0 || rows.offset[l] == rows.offset[l - 1] + from.along[1] * source_[1].step);
    }
    return rows;
}

// The pixels of those rows, as the boundary has them; `row` describes the rows.
template <class E>
void ImagePass<E>::read_pixels(const Tensor<const E>& from, const E* base, const RowLanes& rows, std::int64_t begin,
                               RowArgs<E>& row, E* pixels) const {
    const int lanes = kernels_.lanes;
    const E fill = static_cast<E>(source_[2].outside.fill);
    const std::int64_t end = begin + shape_.transform[2];
    for (std::int64_t x = begin; x < end; x += row.count) {
        const SampleRun run = source_[2].run_from(x, end);
        row.count = run.end - x;
        row.lanes = pixels + (x - begin) * lanes;
        if (run.index < 0 || rows.present == 0) {
            std::fill_n(row.lanes, row.count * lanes, fill);
            continue;
        }
        row.source = base + run.index * from.along[2];
        row.pixel_stride = run.step * from.along[2];
        kernels_.read_row(row);
        if (rows.present == lanes || fill == E(0)) continue;
        for (int l = 0; l < lanes; ++l)
            for (std::int64_t i = 0; i < row.count && rows.offset[l] == absent_lane; ++i)
                row.lanes[i * lanes + l] = fill;
    }
}

template <class E>
void ImagePass<E>::read_image(const Tensor<const E>& from, const Tile& tile, int source, int first,
                              const Scratch& scratch, Apart* apart) const {
    const int height = shape_.transform[1];
    const E* const array = from.data + tile.n * from.outer + (tile.group * sources_ + source) * from.inner;
    const RowLanes rows = row_lanes(from, tile, first / height, first % height);
    RowArgs<E> row{};
    row.lane_count = kernels_.lanes;
    row.lane_stride = from.along[1] * source_[1].step;
    row.lane_offset = rows.regular ? nullptr : rows.offset.data();
    read_pixels(from, array + (rows.regular ? rows.offset[0] : 0), rows, tile.from[2], row, scratch.pixels);
    if (apart) take_apart(first, source, scratch, *apart);
    rows_to_blocks(read_[2].real, scratch, first, blocks_of(tile, source));
}

// To follow the pixels of a channel's rows, which are in scratch: what all of its rows have in common.
template <class E>
RowArgs<E> ImagePass<E>::output_row(const Run& run, std::int64_t channel, const Scratch& scratch) const {
    RowArgs<E> row{};
    row.lanes = scratch.pixels;
    row.bias = run.bias ? run.bias + channel * kernels_.lanes : nullptr;
    return row;
}

// Where the array has the output at t.
template <class E>
E* ImagePass<E>::output_at(const Tensor<E>& to, std::int64_t n, std::int64_t channel, const Index& t) const {
    return to.address_of(n, channel, {target_[0].index(t[0]), target_[1].index(t[1]), target_[2].index(t[2])});
}

template <class E>
bool ImagePass<E>::write_image(const Run& run, const Tile& tile, int target, int first, const Scratch& scratch) const {
    const int lanes = kernels_.lanes, z = first / shape_.transform[1], y = first % shape_.transform[1];
    const Index count = output_count(tile);
    if (z >= count[0] || y >= count[1]) return false;
    const std::int64_t channel = tile.group * targets_ + target;
    const Tensor<E>& to = pass_ == Pass::forward ? run.operands.y : run.operands.dx;
    RowArgs<E> row = output_row(run, channel, scratch);
    row.lane_stride = to.along[1] * target_[1].step;
    row.pixel_stride = to.along[2] * target_[2].step;
    row.lane_count = static_cast<int>(std::min<std::int64_t>(lanes, count[1] - y));
    row.count = count[2];
    row.destination = output_at(to, tile.n, channel, {tile.to[0] + z, tile.to[1] + y, tile.to[2]});
    blocks_to_rows(blocks_of(tile, target), scratch, first);
    return kernels_.write_row(row);
}

// ---- the samples of a signal, some rows of its image at a time -------------------------------------------------------

namespace {

// Moves samples 0 to count - 1 of a signal that are in rows [first, first + lanes) of its image, of which `row` describes
// sample `first` and its lanes: first columns of whole lane vectors, then the last, shorter one.
template <class E, class Move>
void for_columns(RowArgs<E> row, int lanes, std::int64_t first, std::int64_t count, std::int64_t height,
                 const Move& move) {
    const std::int64_t whole = count < first + lanes ? 0 : (count - first - lanes) / height + 1;
    const std::int64_t rest = std::clamp<std::int64_t>(count - first - whole * height, 0, lanes);
    row.lane_count = lanes;
    row.count = whole;
    if (whole > 0) move(row);
    row.lanes += whole * lanes;
    if (row.source) row.source += whole * row.pixel_stride;
    if (row.destination) row.destination += whole * row.pixel_stride;
    row.lane_count = static_cast<int>(rest);
    row.count = 1;
    if (rest > 0) move(row);
}

template <class E>
void copy_samples(std::int64_t count, const E* from, std::ptrdiff_t from_stride, E* to, std::ptrdiff_t to_stride) {
    if (from_stride == 1 && to_stride == 1)
        std::copy_n(from, count, to);
    else
        for (std::int64_t i = 0; i < count; ++i)
            to[i * to_stride] = from[i * from_stride];
}

}  // namespace

template <class E>
void ImagePass<E>::read_signal(const Tensor<const E>& from, const Tile& tile, int source, int first,
                               const Scratch& scratch, Apart* apart) const {
    const int lanes = kernels_.lanes, height = image_.transform[1], width = image_.transform[2];
    const std::int64_t plane = source_[0].sample(tile.from[0]), line = source_[1].sample(tile.from[1]);
    const E fill = static_cast<E>(source_[2].outside.fill);
    const E* const array = from.data + tile.n * from.outer + (tile.group * sources_ + source) * from.inner +
                           std::max<std::int64_t>(0, plane) * from.along[0] +
                           std::max<std::int64_t>(0, line) * from.along[1];
    const bool exists = plane >= 0 && line >= 0;
    const int count = std::min(rows_at_once(), height - first);
    E* to = scratch.samples;
    for (int x = 0; x < width; ++x) {
        const std::int64_t column = tile.from[2] + std::int64_t{x} * height + first, end = column + count;
        for (std::int64_t t = column; t < end;) {
            const SampleRun run = source_[2].run_from(t, end);
            if (!exists || run.index < 0)
                std::fill_n(to, run.end - t, fill);
            else
                copy_samples(run.end - t, array + run.index * from.along[2], run.step * from.along[2], to, 1);
            to += run.end - t;
            t = run.end;
        }
    }
    RowArgs<E> row{};
    row.lanes = scratch.pixels;
    row.lane_stride = 1;
    row.lane_count = lanes;
    row.count = width;
    row.source = scratch.samples;
    row.pixel_stride = count;
    for (int y = first; y < first + count; y += lanes, row.source += lanes) {
        kernels_.read_row(row);
        if (apart) take_apart(y, source, scratch, *apart);
        rows_to_blocks(read_[2].real, scratch, y, blocks_of(tile, source));
    }
}

template <class E>
bool ImagePass<E>::write_signal(const Run& run, const Tile& tile, int target, int first, const Scratch& scratch) const {
    const int lanes = kernels_.lanes, height = image_.transform[1];
    const std::int64_t channel = tile.group * targets_ + target, count = output_count(tile)[2];
    const Tensor<E>& to = pass_ == Pass::forward ? run.operands.y : run.operands.dx;
    const std::ptrdiff_t stride = to.along[2] * target_[2].step;
    E* const destination = output_at(to, tile.n, channel, tile.to);
    RowArgs<E> row = output_row(run, channel, scratch);
    row.lane_stride = 1;
    row.pixel_stride = std::min(rows_at_once(), height - first);
    row.destination = scratch.samples;
    bool non_finite = false;
    for (int y = first; y < std::min<std::int64_t>(first + row.pixel_stride, count); y += lanes) {
        blocks_to_rows(blocks_of(tile, target), scratch, y);
        for_columns(row, lanes, y, count, height,
                    [&](const RowArgs<E>& part) { non_finite = kernels_.write_row(part) || non_finite; });
        row.destination += lanes;
    }
    const E* from = scratch.samples;
    for (std::int64_t at = first; at < count; at += height, from += row.pixel_stride)
        copy_samples(std::min<std::int64_t>(row.pixel_stride, count - at), from, 1, destination + at * stride, stride);
    return non_finite;
}

// ---- rows in the lanes, frequencies in the lanes ----------------------------------------------------------------------

// Half spectra of a signal's rows, from row `first` on, by the factors between its two transforms.
template <class E>
void ImagePass<E>::rotate(int first, bool conjugate, const Scratch& scratch) const {
    const int lanes = kernels_.lanes, frequencies = image_.transform[2] / 2 + 1;
    kernels_.rotate(
        {scratch.spectra - lanes, static_cast<const E*>(twiddles_.vectors.data()),
         static_cast<const E*>(twiddles_.numbers.data()) + std::ptrdiff_t{2} * (first / lanes) * frequencies,
         frequencies, conjugate});
}

// The pixels of a lane vector of rows, from row `first` on, to half spectra, and those to the blocks.
template <class E>
void ImagePass<E>::rows_to_blocks(const LineTransform<E>& line, const Scratch& scratch, int first, E* blocks) const {
    const int lanes = kernels_.lanes, width = image_.transform[2];
    E* const spectra = scratch.spectra;
    line({scratch.pixels, spectra, lanes, lanes, 0, 0});
    std::copy_n(spectra + (is_signal() ? 0 : width - 1) * lanes, lanes, spectra - lanes);
    if (is_signal()) {
        std::fill_n(spectra, lanes, E(0));
        std::fill_n(spectra + width * lanes, (2 * lanes * frequency_blocks() - width) * lanes, E(0));
        rotate(first, false, scratch);
    }
    for (int im = 0; im < 2; ++im)
        kernels_.transpose({spectra + (im - 1) * lanes, blocks + first * lanes + im * block_im_, 2 * lanes, lanes,
                            2 * lanes * lanes, block_size_, frequency_blocks()});
}

// And back.
template <class E>
void ImagePass<E>::blocks_to_rows(const E* blocks, const Scratch& scratch, int first) const {
    const int lanes = kernels_.lanes, width = image_.transform[2];
    E* const spectra = scratch.spectra;
    for (int im = 0; im < 2; ++im)
        kernels_.transpose({blocks + first * lanes + im * block_im_, spectra + (im - 1) * lanes, lanes, 2 * lanes,
                            block_size_, 2 * lanes * lanes, frequency_blocks()});
    if (is_signal()) rotate(first, true, scratch);
    std::copy_n(spectra - lanes, lanes, spectra + (is_signal() ? 0 : width - 1) * lanes);
    const LineTransform<E>& line = write_[2].real;
    line({spectra, scratch.pixels, lanes, lanes, 0, 0});
}

// ---- repairs and kernels --------------------------------------------------------------------------------------------

// The pixels of a lane vector of rows, from row `first` on.
template <class E>
void ImagePass<E>::take_apart(int first, int source, const Scratch& scratch, Apart& apart) const {
    const int height = image_.transform[1], width = image_.transform[2], lanes = kernels_.lanes;
    for (int x = 0; x < width; ++x)
        for (int l = 0; l < lanes; ++l) {
            E& value = scratch.pixels[x * lanes + l];
            if (std::abs(value) < apart.least) continue;
            const int row = first + l;
            const std::int64_t at = is_signal() ? x * height + row : row * width + x;
            if (std::isnan(value))
                apart.nan[static_cast<std::size_t>(at)] = true;
            else
                apart.products.push_back({at, source, value});
            value = 0;
        }
}

// Rows of taps of one pair of channels, the first of them at `taps`, to a channel's blocks; zeros where there are none.
template <class E>
void ImagePass<E>::read_taps(const Tensor<const E>& taps, int first, const Scratch& scratch, E* blocks) const {
    const int lanes = kernels_.lanes, height = image_.transform[1], width_taps = image_.taps[2];
    RowArgs<E> row{};
    row.lane_stride = is_signal() ? taps.along[2] : taps.along[1];
    row.pixel_stride = is_signal() ? taps.along[2] * height : taps.along[2];
    row.lanes = scratch.pixels;
    for (int at = first; at < std::min(first + rows_at_once(), rows()); at += lanes) {
        const int z = at / height, y = at % height;
        if (z >= image_.taps[0]) continue;  // not read
        if (y >= image_.taps[1]) {
            for (int block = 0; block < frequency_blocks(); ++block)
                for (int im = 0; im < 2; ++im)
                    std::fill_n(blocks + block * block_size_ + im * block_im_ + at * lanes, lanes * lanes, E(0));
            continue;
        }
        std::fill_n(scratch.pixels, kernel_[2].extent * lanes, E(0));
        row.source = taps.data + z * taps.along[0] + y * row.lane_stride;
        if (is_signal()) {
            for_columns(row, lanes, y, shape_.taps[2], height,
                        [&](const RowArgs<E>& part) { kernels_.read_row(part); });
        } else {
            row.lane_count = std::min(lanes, image_.taps[1] - y);
            row.count = width_taps;
            kernels_.read_row(row);
        }
        for (int i = 0; i < width_taps * lanes; ++i)
            scratch.pixels[i] = static_cast<E>(scale_ * static_cast<double>(scratch.pixels[i]));
        rows_to_blocks(kernel_[2].real, scratch, at, blocks);
    }
}

#define TRICONV_INSTANTIATE(E)                                                                                     \
    template void ImagePass<E>::read_image(const Tensor<const E>&, const Tile&, int, int, const Scratch&, Apart*)  \
        const;                                                                                                     \
    template E* ImagePass<E>::output_at(const Tensor<E>&, std::int64_t, std::int64_t, const Index&) const;         \
    template bool ImagePass<E>::write_image(const Run&, const Tile&, int, int, const Scratch&) const;              \
    template void ImagePass<E>::read_signal(const Tensor<const E>&, const Tile&, int, int, const Scratch&, Apart*) \
        const;                                                                                                     \
    template bool ImagePass<E>::write_signal(const Run&, const Tile&, int, int, const Scratch&) const;             \
    template void ImagePass<E>::read_taps(const Tensor<const E>&, int, const Scratch&, E*) const;
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
