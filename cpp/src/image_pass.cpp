#include "image_pass.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <numeric>
#include <type_traits>
#include <utility>

#include "float_mode.h"
#include "product_sum.h"

namespace triconv {

// Bytes of a tile: of less a stage is not worth waking other threads for; of more one for each thread is too much.
constexpr std::size_t worth_sharing = 64 << 10, large_tile = 1 << 20;

bool is_image_filter(const Layer& layer, Pass pass) {
    constexpr std::int64_t most_channels = 4;
    return pass != Pass::weight_grad && layer.in_per_group() <= most_channels &&
           layer.out_per_group() <= most_channels && layer.output_phases() == 1 && layer.kernel_phases() == 1;
}

TileShape image_of(const TileShape& shape, int lanes) {
    TileShape image = shape;
    if (!is_line(shape)) return image;
    const int length = shape.transform[2];
    int rows = length;  // as many as there are columns, or the next larger number
    for (int r = lanes; length % (2 * lanes) == 0 && r < length; r += lanes)
        if (length % (2 * r) == 0 && std::int64_t{r} * r >= length) {
            rows = r;
            break;
        }
    const auto columns = [&](int samples) { return static_cast<int>(ceil_div(samples, rows)); };
    image.transform = {1, rows, columns(length)};
    image.outputs = {1, std::min(shape.outputs[2], rows), columns(shape.outputs[2])};
    image.taps = {1, std::min(shape.taps[2], rows), columns(shape.taps[2])};
    return image;
}

bool is_image_tile(const TileShape& shape, int lanes) {
    const TileShape image = image_of(shape, lanes);
    return shape.fft && image.transform[1] % lanes == 0 && image.transform[2] > 1 &&
           image.transform[2] % (is_line(shape) ? 2 : 2 * lanes) == 0;
}

bool single_product(int sources, int targets) {
    return sources * targets == 1;
}

int column_blocks(int sources, int targets, int depth) {
    return sources + (single_product(sources, targets) ? 0 : 1) + (depth > 1 ? 1 : 0);
}

template <class E>
ImagePass<E>::ImagePass(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape)
    : PassAlgorithm<E>(layer, pass),
      kernels_(kernels),
      shape_(shape),
      image_(image_of(shape, kernels.lanes)),
      sources_(static_cast<int>(pass == Pass::forward ? layer.in_per_group() : layer.out_per_group())),
      targets_(static_cast<int>(pass == Pass::forward ? layer.out_per_group() : layer.in_per_group())),
      outputs_(lane_blocks(layer, kernels.lanes, LaneKind::tiles, pass == Pass::input_grad)),
      tiles_(tile_grid(layer, pass, shape, LaneKind::samples, kernels.lanes)),
      scale_(fft_scale(kernels, image_.transform)) {
    for (int a = 0; a < axes; ++a) {
        read_[a] = axis_lines(kernels, image_, TileRole::read_tile, a, a == axes - 1);
        kernel_[a] = axis_lines(kernels, image_, TileRole::read_kernel, a, a == axes - 1);
        write_[a] = axis_lines(kernels, image_, TileRole::write_tile, a, a == axes - 1);
        const Axis& axis = layer.axis[a];
        const TileOrigin origin = tile_origin(axis, pass);
        from_[a] = origin.from;
        to_[a] = origin.to;
        end_[a] = origin.to + samples_along(axis, pass);
        source_[a] = input_grid(axis, 0, 0);
        target_[a] = output_grid(axis, 0);
        if (pass == Pass::input_grad) std::swap(source_[a], target_[a]);
    }
    block_im_ = odd_lines<E>(std::ptrdiff_t{rows()} * kernels.lanes);
    block_size_ = 2 * block_im_;
    tile_size_ = frequency_blocks() * block_size_;
    kernel_size_ = static_cast<std::size_t>(sources_ * targets_ * tile_size_);
    ArenaLayout layout;
    for (std::ptrdiff_t size : scratch_sizes())
        layout.add<E>(static_cast<std::size_t>(size));
    scratch_bytes_ = layout.size();
    if (is_signal()) twiddles_ = make_twiddles();
}

template <class E>
int ImagePass<E>::frequency_blocks() const {
    const int half = image_.transform[2] / 2, lanes = kernels_.lanes;
    return is_signal() ? half / lanes + 1 : half / lanes;
}

template <class E>
auto ImagePass<E>::make_twiddles() const -> Twiddles {
    const std::size_t lanes = static_cast<std::size_t>(kernels_.lanes),
                      row_vectors = static_cast<std::size_t>(image_.transform[1]) / lanes,
                      frequencies = static_cast<std::size_t>(image_.transform[2]) / 2 + 1;
    Twiddles table{Workspace(2 * sizeof(E) * lanes * frequencies),
                   Workspace(2 * sizeof(E) * row_vectors * frequencies)};
    const auto put = [&](Workspace& memory, std::size_t re, std::size_t im, double turns) {
        const std::complex<double> factor = std::polar(1.0, -2 * std::numbers::pi * turns);
        E* const to = static_cast<E*>(memory.data());
        to[re] = static_cast<E>(factor.real());
        to[im] = static_cast<E>(factor.imag());
    };
    for (std::size_t k = 0; k < frequencies; ++k) {
        const double turn = static_cast<double>(k) / shape_.transform[2];
        for (std::size_t l = 0; l < lanes; ++l)
            put(table.vectors, 2 * k * lanes + l, (2 * k + 1) * lanes + l, turn * static_cast<double>(l));
        for (std::size_t v = 0; v < row_vectors; ++v) {
            const std::size_t at = 2 * (v * frequencies + k);
            put(table.numbers, at, at + 1, turn * static_cast<double>(v * lanes));
        }
    }
    return table;
}

// Rows that cross over together: of a signal's image, neighbours in its array, where columns are far apart.
template <class E>
int ImagePass<E>::rows_at_once() const {
    return is_signal() ? std::min(512 / static_cast<int>(sizeof(E)), image_.transform[1]) : kernels_.lanes;
}

// Large tiles need not be in memory once for each thread, and few would leave threads idle. For the others, threads wait
// for each other less if each has tiles of its own, and those stay in its caches.
template <class E>
bool ImagePass<E>::shares_tiles() const {
    return layer_.groups == 1 && blocks_size() * sizeof(E) >= (tiles_.count() < 4 ? worth_sharing : large_tile);
}

template <class E>
auto ImagePass<E>::all_threads(int slots) const -> Crew {
    return {0, blocks_size() * sizeof(E) >= worth_sharing ? slots : 0};
}

// Elements of the parts of Scratch, in their order.
template <class E>
auto ImagePass<E>::scratch_sizes() const -> std::array<std::ptrdiff_t, 5> {
    const std::ptrdiff_t lanes = kernels_.lanes;
    return {is_signal() ? rows_at_once() * image_.transform[2] : 0, image_.transform[2] * lanes,
            (2 * lanes * frequency_blocks() + 1) * lanes,
            column_blocks(sources_, targets_, image_.transform[0]) * block_size_, 2 * rows()};
}

template <class E>
auto ImagePass<E>::scratch_of(const Memory& memory, int slot) const -> Scratch {
    std::array<E*, 5> part;
    ArenaLayout layout;
    const std::array sizes = scratch_sizes();
    for (std::size_t i = 0; i < sizes.size(); ++i)
        part[i] = reinterpret_cast<E*>(memory.of(slot) + layout.add<E>(static_cast<std::size_t>(sizes[i])));
    return {part[0], part[1], part[2] + kernels_.lanes, part[3], part[4]};
}

template <class E>
E* ImagePass<E>::blocks_of_thread(const Memory& memory, int slot) const {
    return memory.shared_blocks ? memory.shared_blocks : reinterpret_cast<E*>(memory.of(slot) + scratch_bytes_);
}

template <class E>
WorkspaceNeed ImagePass<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<E>(outputs_.blocks.size() * static_cast<std::size_t>(kernels_.lanes));  // bias
    (kernels_of_thread() ? per_thread : fixed).template add<E>(kernel_size_);
    (shares_tiles() ? fixed : per_thread).template add<E>(blocks_size());
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size() + scratch_bytes_)};
}

// Outputs of a tile along each axis.
template <class E>
Index ImagePass<E>::output_count(const Tile& tile) const {
    Index count;
    for (int a = 0; a < axes; ++a)
        count[a] = std::min<std::int64_t>(shape_.outputs[a], end_[a] - tile.to[a]);
    return count;
}

// ---- frequencies in the lanes -----------------------------------------------------------------------------------------

// Along one axis of a block, of `count` lines.
template <class E>
void ImagePass<E>::transform_columns(const LineTransform<E>& line, int axis, int count, const E* from, E* to) const {
    const std::ptrdiff_t lanes = kernels_.lanes, plane = image_.transform[1] * lanes;
    const std::ptrdiff_t stride = axis == 1 ? lanes : plane, step = axis == 1 ? plane : lanes;
    line({from, to, stride, stride, block_im_, block_im_, count, step, step});
}

// Frequency 0 and the middle one of an image: along the rows, the imaginary and the real part of one complex sequence.
// Their transforms are what is odd and even in that of the sequence.
template <class E>
void ImagePass<E>::multiply_first(const E* columns, const E* kernel, bool accumulate, E* products) const {
    struct Pair {
        E even_re, even_im, odd_re, odd_im;
    };
    const std::ptrdiff_t lanes = kernels_.lanes;
    const int depth = image_.transform[0], height = image_.transform[1];
    const auto pair = [&](const E* values, std::ptrdiff_t at, std::ptrdiff_t mirrored) -> Pair {
        const E re = values[at], im = values[at + block_im_], mirrored_re = values[mirrored],
                mirrored_im = values[mirrored + block_im_];
        return {(re + mirrored_re) / 2, (im - mirrored_im) / 2, (im + mirrored_im) / 2, (mirrored_re - re) / 2};
    };
    const auto put = [&](int at, E re, E im) {
        products[2 * at] = accumulate ? products[2 * at] + re : re;
        products[2 * at + 1] = accumulate ? products[2 * at + 1] + im : im;
    };
    for (int z = 0; z < depth; ++z)
        for (int y = 0; y < height; ++y) {
            const int at = z * height + y, mirrored = (depth - z) % depth * height + (height - y) % height;
            if (mirrored < at) continue;
            const Pair a = pair(columns, at * lanes, mirrored * lanes), b = pair(kernel, at * lanes, mirrored * lanes);
            const E even_re = a.even_re * b.even_re + a.even_im * b.even_im,
                    even_im = a.even_im * b.even_re - a.even_re * b.even_im;
            const E odd_re = a.odd_re * b.odd_re + a.odd_im * b.odd_im,
                    odd_im = a.odd_im * b.odd_re - a.odd_re * b.odd_im;
            put(at, even_re - odd_im, odd_re + even_im);
            if (mirrored != at) put(mirrored, even_re + odd_im, odd_re - even_im);
        }
}

// A block of every channel of a tile, in place.
template <class E>
void ImagePass<E>::filter(const E* kernels, const Tile& tile, int block, const Scratch& scratch) const {
    const int lanes = kernels_.lanes, depth = image_.transform[0], height = image_.transform[1];
    E* const sum = scratch.columns + (single_product(sources_, targets_) ? 0 : sources_) * block_size_;
    E* const along_y = sum + block_size_;
    const std::ptrdiff_t at = block * block_size_;
    for (int s = 0; s < sources_; ++s) {
        E* const columns = scratch.columns + s * block_size_;
        transform_columns(read_[1].complex, 1, depth, blocks_of(tile, s) + at, depth > 1 ? along_y : columns);
        if (depth > 1) transform_columns(read_[0].complex, 0, height, along_y, columns);
    }
    for (int t = 0; t < targets_; ++t) {
        const bool packed = block == 0 && !is_signal();
        for (int s = 0; s < sources_; ++s) {
            const E* const columns = scratch.columns + s * block_size_;
            const E* const kernel = kernels + (t * sources_ + s) * tile_size_ + at;
            if (packed) multiply_first(columns, kernel, s > 0, scratch.first);
            kernels_.lanewise[static_cast<int>(ProductKind::complex_conj_b)](
                {columns, kernel, sum, block_im_, block_im_, block_im_, lanes, lanes, lanes, rows(), s > 0});
        }
        for (int i = 0; packed && i < rows(); ++i) {
            sum[i * lanes] = scratch.first[2 * i];
            sum[i * lanes + block_im_] = scratch.first[2 * i + 1];
        }
        if (depth > 1) transform_columns(write_[0].complex, 0, height, sum, along_y);
        transform_columns(write_[1].complex, 1, image_.outputs[0], depth > 1 ? along_y : sum, blocks_of(tile, t) + at);
    }
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// The tap that sample t + q of a source meets in the sum of output t of a target is at q in the result.
template <class E>
Tensor<const E> ImagePass<E>::taps_of(const Tensor<const E>& w, std::int64_t group, int source, int target) const {
    const bool flip = pass_ == Pass::input_grad;
    const std::int64_t out = group * layer_.out_per_group() + (flip ? source : target);
    Tensor<const E> taps = w;
    taps.data += out * w.outer + (flip ? target : source) * w.inner;
    for (int a = 0; flip && a < axes; ++a) {
        taps.data += (shape_.taps[a] - 1) * w.along[a];
        taps.along[a] = -w.along[a];
    }
    return taps;
}

template <class E>
void ImagePass<E>::transform_kernels(const Tensor<const E>& w, std::int64_t group, E* spectra, const Memory& memory,
                                     const Crew& crew) const {
    const int depth = image_.transform[0], height = image_.transform[1];
    E* const blocks = blocks_of_thread(memory, crew.slot);
    for (int t = 0; t < targets_; ++t)
        for (int s = 0; s < sources_; ++s, spectra += tile_size_) {
            const Tensor<const E> taps = taps_of(w, group, s, t);
            crew.each(ceil_div(rows(), rows_at_once()), [&](std::int64_t task, int slot) {
                const int first = static_cast<int>(task) * rows_at_once();
                read_taps(taps, first, scratch_of(memory, slot), blocks);
            });
            crew.each(frequency_blocks(), [&](std::int64_t block, int slot) {
                const std::ptrdiff_t at = block * block_size_;
                E* const along_y = depth > 1 ? scratch_of(memory, slot).columns : spectra + at;
                if (depth > 1) std::fill_n(along_y, block_size_, E(0));
                transform_columns(kernel_[1].complex, 1, image_.taps[0], blocks + at, along_y);
                if (depth > 1) transform_columns(kernel_[0].complex, 0, height, along_y, spectra + at);
            });
        }
}

// ---- the pass -------------------------------------------------------------------------------------------------------

template <class E>
unsigned ImagePass<E>::compute_tile(const Run& run, const Tile& tile, const E* kernels, const Crew& crew,
                                    Apart* apart) const {
    const Tensor<const E>& from = pass_ == Pass::forward ? run.operands.x : run.operands.dy;
    const auto read = is_signal() ? &ImagePass::read_signal : &ImagePass::read_image;
    const auto write = is_signal() ? &ImagePass::write_signal : &ImagePass::write_image;
    const std::int64_t tasks = ceil_div(rows(), rows_at_once());  // of a channel
    const auto first_row = [&](std::int64_t task) { return static_cast<int>(task % tasks) * rows_at_once(); };
    (apart ? Crew{crew.slot} : crew).each(sources_ * tasks, [&](std::int64_t task, int slot) {
        (this->*read)(from, tile, static_cast<int>(task / tasks), first_row(task), scratch_of(run.memory, slot), apart);
    });
    crew.each(frequency_blocks(), [&](std::int64_t block, int slot) {
        filter(kernels, tile, static_cast<int>(block), scratch_of(run.memory, slot));
    });
    std::atomic<unsigned> failed = 0;
    crew.each(targets_ * tasks, [&](std::int64_t task, int slot) {
        const int target = static_cast<int>(task / tasks);
        if ((this->*write)(run, tile, target, first_row(task), scratch_of(run.memory, slot))) failed |= 1U << target;
    });
    return failed;
}

// A transform spreads what is not finite over its tile, or overflows. Samples that make it do so are taken for zeros, and
// their products added to the outputs that read them. Whether that was necessary.
template <class E>
bool ImagePass<E>::run_tile(const Run& run, std::int64_t group, std::int64_t index, const E* kernels,
                            const Crew& crew) const {
    const std::int64_t count = tiles_.lines_per_image() * tiles_.tiles[2];
    const Index at = unravel(index % count, tiles_.tiles);
    Tile tile{index / count, group, from_, to_, blocks_of_thread(run.memory, crew.slot)};
    for (int a = 0; a < axes; ++a) {
        tile.from[a] += at[a] * shape_.outputs[a];
        tile.to[a] += at[a] * shape_.outputs[a];
    }
    if (compute_tile(run, tile, kernels, crew, nullptr) == 0) return false;
    const std::size_t samples = static_cast<std::size_t>(rows()) * static_cast<std::size_t>(image_.transform[2]);
    // At first what is not finite; next, where the transform overflows all the same, the largest numbers, too.
    for (const E least : {std::numeric_limits<E>::infinity(), std::sqrt(std::numeric_limits<E>::max())}) {
        Apart apart{least, std::vector<bool>(samples), {}};
        if (compute_tile(run, tile, kernels, crew, &apart) != 0) continue;
        spread_nan(run, tile, std::move(apart.nan));
        if (!apart.products.empty()) add_products(run, tile, apart.products);
        return true;
    }
    // The weights are to blame. Targets whose weights are not have lost the samples taken apart.
    add_damage(run, tile, compute_tile(run, tile, kernels, crew, nullptr), crew.slot);
    return false;
}

// All outputs of those targets.
template <class E>
void ImagePass<E>::add_damage(const Run& run, const Tile& tile, unsigned failed, int slot) const {
    const Index count = output_count(tile);
    const std::int64_t rows = rows_at_once();
    for (int t = 0; t < targets_; ++t)
        for_each_index({count[0], (failed >> t) % 2 == 0 ? 0 : ceil_div(count[1], rows), 1}, [&](const Index& i) {
            const Index first{tile.to[0] + i[0], tile.to[1] + i[1] * rows, tile.to[2]};
            run.damage.of(slot).push_back(
                {tile.n,
                 {tile.group * targets_ + t, 0, 1, {}},
                 target_,
                 first,
                 {first[0] + 1, std::min(first[1] + rows, tile.to[1] + count[1]), first[2] + count[2]}});
        });
}

// To all outputs that read such a sample.
template <class E>
void ImagePass<E>::spread_nan(const Run& run, const Tile& tile, std::vector<bool> nan) const {
    const Index count = output_count(tile);
    // Axis by axis: an output is marked if any of its taps is.
    const Index extent{shape_.transform[0], shape_.transform[1], shape_.transform[2]};
    std::int64_t stride = 1;
    for (int a = axes - 1; a >= 0; stride *= extent[a--])
        for (std::int64_t line = 0; line < static_cast<std::int64_t>(nan.size()) / extent[a]; ++line) {
            const std::int64_t first = line / stride * stride * extent[a] + line % stride;
            std::int64_t next = extent[a] + shape_.taps[a];  // sample that is marked
            for (std::int64_t i = extent[a] - 1; i >= 0; --i) {
                const auto at = static_cast<std::size_t>(first + i * stride);
                if (nan[at]) next = i;
                nan[at] = next < i + shape_.taps[a];
            }
        }
    const Tensor<E>& to = pass_ == Pass::forward ? run.operands.y : run.operands.dx;
    for_each_index(count, [&](const Index& i) {
        if (!nan[static_cast<std::size_t>((i[0] * extent[1] + i[1]) * extent[2] + i[2])]) return;
        for (int t = 0; t < targets_; ++t)
            *output_at(to, tile.n, tile.group * targets_ + t,
                       {tile.to[0] + i[0], tile.to[1] + i[1], tile.to[2] + i[2]}) = std::numeric_limits<E>::quiet_NaN();
    });
}

// A sample times its taps, to the outputs that read it. Summed apart, with a wider range and all digits, so that only results
// overflow: NaN are those where an infinity meets a tap of zero, or one of the other sign.
template <class E>
void ImagePass<E>::add_products(const Run& run, const Tile& tile,
                                const std::vector<typename Apart::Product>& products) const {
    using Wide = std::conditional_t<std::is_same_v<E, float>, double, long double>;
    const FloatMode mode(Denormals::keep);  // a denormal times an infinity is no NaN
    const Tensor<E>& to = pass_ == Pass::forward ? run.operands.y : run.operands.dx;
    const Index count = output_count(tile), extent{shape_.transform[0], shape_.transform[1], shape_.transform[2]};
    struct Readers {
        Index begin, end;
        bool none() const { return begin[0] >= end[0] || begin[1] >= end[1] || begin[2] >= end[2]; }
    };
    const auto readers_of = [&](const Index& sample) {
        Readers readers;
        for (int a = 0; a < axes; ++a) {
            readers.begin[a] = std::max<std::int64_t>(0, sample[a] - shape_.taps[a] + 1);
            readers.end[a] = std::min(count[a], sample[a] + 1);
        }
        return readers;
    };
    Readers all{count, {}};  // the box of all of them
    for (const auto& product : products)
        if (const Readers readers = readers_of(unravel(product.at, extent)); !readers.none())
            for (int a = 0; a < axes; ++a) {
                all.begin[a] = std::min(all.begin[a], readers.begin[a]);
                all.end[a] = std::max(all.end[a], readers.end[a]);
            }
    if (all.none()) return;
    const Index first = all.begin, size{all.end[0] - first[0], all.end[1] - first[1], all.end[2] - first[2]};
    for (int t = 0; t < targets_; ++t) {
        std::vector<CompensatedSum<Wide>> sums(static_cast<std::size_t>(size[0] * size[1] * size[2]));
        for (const auto& [at, source, value] : products) {
            const Index sample = unravel(at, extent);
            const Tensor<const E> taps = taps_of(run.operands.w, tile.group, source, t);
            const Readers readers = readers_of(sample);
            if (readers.none()) continue;
            const auto& [begin, end] = readers;
            for (std::int64_t z = begin[0]; z < end[0]; ++z)
                for (std::int64_t y = begin[1]; y < end[1]; ++y) {
                    CompensatedSum<Wide>* sum =
                        sums.data() + ((z - first[0]) * size[1] + y - first[1]) * size[2] + begin[2] - first[2];
                    const E* tap = taps.data + taps.offset_of({sample[0] - z, sample[1] - y, sample[2] - begin[2]});
                    for (std::int64_t x = begin[2]; x < end[2]; ++x, tap -= taps.along[2])
                        sum++->add(static_cast<Wide>(value) * *tap);
                }
        }
        const CompensatedSum<Wide>* sum = sums.data();
        for_each_index(size, [&](const Index& i) {
            E& out =
                *output_at(to, tile.n, tile.group * targets_ + t,
                           {tile.to[0] + first[0] + i[0], tile.to[1] + first[1] + i[1], tile.to[2] + first[2] + i[2]});
            CompensatedSum<Wide> total = *sum++;
            total.add(out);
            out = static_cast<E>(total.value());
        });
    }
}

template <class E>
RunCounts ImagePass<E>::compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const {
    const FloatMode mode(Denormals::flush);  // of what one thread does outside of a parallel-for, too
    const WorkspaceNeed need = this->workspace();
    ArenaLayout fixed;
    const auto in_fixed = [&](std::size_t size) { return reinterpret_cast<E*>(workspace + fixed.add<E>(size)); };
    E* const bias = in_fixed(outputs_.blocks.size() * static_cast<std::size_t>(kernels_.lanes));
    E* const common_kernels = kernels_of_thread() ? nullptr : in_fixed(kernel_size_);
    const Memory memory{workspace + need.fixed, static_cast<std::size_t>(need.per_thread),
                        shares_tiles() ? in_fixed(blocks_size()) : nullptr};
    const bool biased = pass_ == Pass::forward && operands.bias;
    if (biased) spread_bias(operands, outputs_, kernels_.lanes, bias);
    const Run run{operands, biased ? bias : nullptr, memory, damage};
    if (pass_ == Pass::input_grad && !input_covered(layer_))
        fill_zero(operands.dx, layer_.batch, layer_.in_channels, layer_.input_extent(), slots);
    const std::int64_t tiles = tiles_.count();
    std::vector<std::int64_t> repaired(static_cast<std::size_t>(slots), 0);
    const auto run_one = [&](std::int64_t group, std::int64_t tile, const E* kernels, const Crew& crew) {
        repaired[static_cast<std::size_t>(crew.slot)] += run_tile(run, group, tile, kernels, crew);
    };
    const auto kernels_of = [&](std::int64_t group, const Crew& crew) -> const E* {
        if (operands.prepared) return operands.prepared + static_cast<std::size_t>(group) * kernel_size_;
        E* const kernels = common_kernels ? common_kernels : blocks_of_thread(memory, crew.slot) + blocks_size();
        transform_kernels(operands.w, group, kernels, memory, crew);
        return kernels;
    };
    // Threads take groups where that keeps all of them busy, else they share the tiles of each, or each tile.
    const Crew all = all_threads(slots);
    if (keeps_busy(layer_.groups, slots)) {
        parallel_for(layer_.groups, slots, [&](std::int64_t group, int slot) {
            const E* const kernels = kernels_of(group, {slot});
            for (std::int64_t tile = 0; tile < tiles; ++tile)
                run_one(group, tile, kernels, {slot});
        });
        return {layer_.groups * tiles, std::accumulate(repaired.begin(), repaired.end(), std::int64_t{0})};
    }
    for (std::int64_t group = 0; group < layer_.groups; ++group) {
        const E* const kernels = kernels_of(group, all);
        if (shares_tiles())
            for (std::int64_t tile = 0; tile < tiles; ++tile)
                run_one(group, tile, kernels, all);
        else
            parallel_for(tiles, slots, [&](std::int64_t tile, int slot) { run_one(group, tile, kernels, {slot}); });
    }
    return {layer_.groups * tiles, std::accumulate(repaired.begin(), repaired.end(), std::int64_t{0})};
}

template <class E>
std::size_t ImagePass<E>::prepared_size() const {
    return static_cast<std::size_t>(layer_.groups) * kernel_size_;
}

template <class E>
void ImagePass<E>::prepare(const Tensor<const E>& w, E* prepared, int max_threads) const {
    const FloatMode mode(Denormals::flush);
    const int slots = std::max(1, std::min(num_threads(), max_threads));
    const bool by_group = keeps_busy(layer_.groups, slots);
    const auto spectra = [&](std::int64_t group) { return prepared + static_cast<std::size_t>(group) * kernel_size_; };
    ArenaLayout fixed, per_thread;
    (by_group ? per_thread : fixed).template add<E>(blocks_size());
    const std::size_t thread_bytes = scratch_bytes_ + per_thread.size();
    const Workspace workspace(fixed.size() + thread_bytes * static_cast<std::size_t>(slots));
    char* const begin = static_cast<char*>(workspace.data());
    const Memory memory{begin + fixed.size(), thread_bytes, by_group ? nullptr : reinterpret_cast<E*>(begin)};
    if (by_group)
        return parallel_for(layer_.groups, slots, [&](std::int64_t group, int slot) {
            transform_kernels(w, group, spectra(group), memory, {slot});
        });
    for (std::int64_t group = 0; group < layer_.groups; ++group)
        transform_kernels(w, group, spectra(group), memory, all_threads(slots));
}

template class ImagePass<float>;
template class ImagePass<double>;

}  // namespace triconv
