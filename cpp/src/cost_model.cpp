#include "cost_model.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu.h"
#include "direct_pass.h"
#include "dot_weight_grad.h"
#include "filter_pass.h"
#include "image_pass.h"
#include "winograd_bounds.h"

namespace triconv {

Work work_of(Pass pass, const LaneBlocks& xs, const LaneBlocks& ys, LaneKind lane_kind, int lanes) {
    Work work;
    work.lane_kind = lane_kind;
    work.groups = xs.groups;
    work.in_place =
        pass != Pass::weight_grad && (lane_kind == LaneKind::channels || (xs.per_group == 1 && ys.per_group == 1));
    const LaneBlocks& sources = pass == Pass::input_grad ? ys : xs;
    const LaneBlocks& targets = pass == Pass::input_grad ? xs : ys;
    const auto x_count = static_cast<std::int64_t>(xs.blocks.size()),
               y_count = static_cast<std::int64_t>(ys.blocks.size());
    work.read_blocks = pass == Pass::weight_grad ? x_count + y_count : static_cast<std::int64_t>(sources.blocks.size());
    work.write_blocks = pass == Pass::weight_grad ? 0 : static_cast<std::int64_t>(targets.blocks.size());
    work.source_blocks = pass == Pass::weight_grad ? y_count : work.read_blocks;
    work.target_blocks = pass == Pass::weight_grad ? x_count : work.write_blocks;
    // In weight_grad the channels of y are rows of the product and those of x are lanes.
    const LaneBlocks& rows = pass == Pass::weight_grad ? ys : sources;
    const LaneBlocks& columns = pass == Pass::weight_grad ? xs : targets;
    const std::int64_t row_count = lane_kind == LaneKind::channels ? rows.rows_per_group(lanes) : rows.per_group;
    work.lanewise = lane_kind == LaneKind::groups ||
                    (lane_kind == LaneKind::tiles && (pass == Pass::weight_grad || sources.per_group == 1));
    const bool by_lanes = lane_kind == LaneKind::groups || (lane_kind == LaneKind::tiles && pass == Pass::weight_grad);
    work.complex_multiplications = by_lanes ? 4 : 3;
    work.products = row_count * static_cast<std::int64_t>(columns.blocks.size());
    work.kernel_vectors = work.products;
    return work;
}

template <class E>
double line_ns(const KernelTable<E>& kernels, const TileShape& shape, int axis) {
    const int t = shape.transform[axis];
    if (t == 1) return 0;
    if (!shape.fft) return 0.16 * t;
    const int codelets = kernels.codelets_of_line(t);
    if (codelets == 1) return 2.6;
    if (t < 28) return 6;
    // Tiles of long lines are not in L1; what those wait for hides a third codelet.
    const bool third_shows = codelets > 2 && t <= 450;
    return 4.8 + 2.3 * std::max(0.0, std::log2(t / 128.0)) + (third_shows ? 3 : 0);
}

namespace {

// ---- what a shape amounts to ----------------------------------------------------------------------------------------

double element_bytes(const Layer& layer) {
    return layer.dtype == DType::f32 ? 4 : 8;
}
double epsilon(const Layer& layer) {
    return layer.dtype == DType::f32 ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
}

// Additions and multiplications of a line transform, per value: of Winograd's matrices about half are zeros.
double line_flops(const TileShape& shape, int axis) {
    const int t = shape.transform[axis];
    if (t == 1) return 0;
    return shape.fft ? 2.5 * std::log2(t) : t;
}

double fft_error_bound(const Layer& layer, double samples_of_tile) {
    return epsilon(layer) * 4 * (1 + std::log2(samples_of_tile));
}

double y_bytes(const Layer& layer) {
    return element_bytes(layer) * static_cast<double>(layer.batch * layer.out_channels * layer.outputs());
}
double array_bytes(const Layer& layer) {
    return x_bytes(layer) + y_bytes(layer);
}

// The share of the arrays' bytes that an operand is; of arrays without elements, none.
double share_of_arrays(double bytes, const Layer& layer) {
    return bytes > 0 ? bytes / array_bytes(layer) : 0;
}

// ---- the cost model -------------------------------------------------------------------------------------------------
//
// Nanoseconds on one core of a 2.5 GHz machine with two 512-bit multiply-adds a cycle. Only ratios matter. The constants
// are from timings of some 250 random layers with every algorithm (least squares of the relative errors, rounded); those
// of lines and complex products, from 63 passes that FFT and Winograd might both do (fewest wrong choices); those of
// Winograd's lines, real products and kernels read, from 450 random passes and layers of few tiles.
constexpr double fma_ns = 0.28;  // one lane-vector multiply-add within a micro-kernel, times fma_steps
constexpr double real_fmas = 0.85, complex_fmas = 3.3;  // products in these units: register blocks differ
constexpr double value_ns = 1.8;    // reading and writing one lane vector of a spectrum, besides the lines
constexpr double lone_lines = 0.7;  // lines of tiles in the lanes with one channel to read, in a quarter of L2
// Where lanes hold samples: lines in units of line_ns, a lane vector of rows, and what is read and written of a tile, of its
// blocks for each line, and of the arrays in units of array_ns.
constexpr double image_lines = 0.5, image_rows_ns = 150, image_touches = 1.7, image_block_touches = 3.3,
                 image_crossings = 0.65, image_twiddle_ns = 4;
constexpr double lane_block_ns = 60;        // transform of a lane block of a tile, apart from its size
constexpr double transform_call_ns = 2500;  // a pass by transforms over one by direct convolution, apart from all sizes
constexpr double lanewise_ns = 0.8;         // one lane-vector product that streams its operands
constexpr double pairwise_ns = 1.6;         // the same, a sum for each pair of channels from a few rows
constexpr double direct_weight_grad_ns = 0.54;  // a cycle of its products, times fma_steps; other passes: tile_direct
constexpr double product_call_ns = 60;          // of a band, one tap
constexpr double direct_lanewise_ns = 0.30, direct_lanewise_gradient_ns = 0.45;  // of a depthwise layer
constexpr double direct_lanewise_crossings = 1.4;                                // of its arrays, in units of array_ns
constexpr double array_byte_ns = 0.12;     // reading or writing the user's arrays, transposition included
constexpr double scattered_byte_ns = 0.4;  // the same, where samples are apart from each other
constexpr double strip_ns = 500;           // finding the tiles of a strip, where lanes hold tiles
constexpr double tap_gather_ns = 0.8;      // one weight, read with a stride
constexpr double kernels_read = 0.55;      // gathering and transforming kernels, relative to the reverse in weight_grad
constexpr double l2_byte_ns = 0.015, memory_byte_ns = 0.12;
constexpr double many_planes = 8192;  // of a tile, from which on a byte from memory costs twice as much
constexpr double bin_ns = 120;        // a bin's product of one block of tiles, apart from its size

// Error of a sum of products in units of epsilon, relative to the largest sum of absolute values: parts of
// max_reduction terms are summed one after the other, then groups of parts. A statistical bound, as roundings of both signs
// cancel; the tests hold every sum to it.
constexpr double sum_error = 16;

// Reading and writing the arrays of a pass once. Samples apart from each other cost more: inputs of a stride, if its phases
// are not joined (bands.h), and outputs of a dilation, which only transforms take apart.
enum class Crossing : std::uint8_t { transforms, direct, direct_joined };
double array_ns(const Layer& layer, Pass pass, Crossing crossing = Crossing::transforms) {
    const Axis& width = layer.axis[axes - 1];
    const bool joined =
        crossing == Crossing::direct_joined && width.out_step == 1 && width.kernel_phases == width.tap_step;
    const bool outputs_apart = crossing == Crossing::transforms && width.taps > 1 && width.out_step > 1;
    const bool inputs_apart = pass == Pass::input_grad && width.tap_step > 1 && !joined;
    return array_bytes(layer) * (inputs_apart || outputs_apart ? scattered_byte_ns : array_byte_ns);
}

// What a core's caches hold. Of an L3 it can count on its share only, a few times its L2, however large that reports to be.
double cached_bytes() {
    const double l2 = static_cast<double>(cache_sizes().l2);
    return std::clamp(static_cast<double>(cache_sizes().l3), 1.25 * l2, 6 * l2);
}

// Per byte of a working set that is passed over again and again. What of it is in L2 or L3 shrinks as it grows.
double stream_ns(double bytes, double memory_ns) {
    const double near = 1.25 * static_cast<double>(cache_sizes().l2), far = cached_bytes();
    if (bytes <= near) return l2_byte_ns;
    if (bytes >= far) return memory_ns;
    return l2_byte_ns + (memory_ns - l2_byte_ns) * (bytes - near) / (far - near);
}

struct Bins {
    double real = 1, complex = 0;
    double fmas() const { return real_fmas * real + complex_fmas * complex; }  // in time
};
Bins bins_of(const TileShape& shape) {
    double planes = 1, real = 1;
    for (int t : shape.transform) {
        planes *= t;
        if (t > 1) real *= shape.fft ? (t % 2 == 0 ? 2 : 1) : t;
    }
    return {real, (planes - real) / 2};
}

// Bytes of spectra that a slice of some groups needs: for one tile read, one written (x's in weight_grad), and for its
// kernels. memory_ns: per byte that is in no cache. The lines of one tile are a plane apart each, and where there are many
// the processor sees no stream of them to read ahead. block_ns: a block's products, apart from their sizes.
struct SliceBytes {
    double source, target, kernels;
    double memory_ns, block_ns;
    bool in_place, tile_lanes;

    double tile() const { return in_place ? std::max(source, target) : source + target; }
};
template <class E>
SliceBytes slice_bytes(const KernelTable<E>& kernels, const TileShape& shape, const Work& work, int groups) {
    const Bins bins = bins_of(shape);
    const double per_vector = (bins.real + 2 * bins.complex) * kernels.lanes * static_cast<double>(sizeof(E)) *
                              std::min(groups, work.groups) / std::max(1, work.groups);
    return {per_vector * static_cast<double>(work.source_blocks),
            per_vector * static_cast<double>(work.target_blocks),
            per_vector * static_cast<double>(work.kernel_vectors),
            memory_byte_ns * (1 + std::min(1.0, (bins.real + 2 * bins.complex) / many_planes)),
            work.lanewise ? 0 : groups * (bins.real + bins.complex) * bin_ns,
            work.in_place,
            work.lane_kind == LaneKind::tiles};
}

// Nanoseconds that the spectra of a slice spend between caches with a blocking. A spectrum is written and read around the
// product (twice where the result takes its place). Kernels are written (read, in weight_grad) once, and every block
// passes over all of them: reading, which the products overlap with arithmetic, or adding to them in weight_grad. Of a
// slice in parts each part passes over all tiles read. Where lanes hold tiles, the kernels of few rows compete with them
// for the cache.
double traffic_ns(Pass pass, const SliceBytes& bytes, double tiles, double rows, int parts) {
    const double kernels = bytes.kernels / parts, kernel_rate = stream_ns(kernels, bytes.memory_ns);
    if (parts > 1) {
        const double rate = stream_ns(tiles * (bytes.source + bytes.target / parts) + kernels, bytes.memory_ns);
        return tiles * rate * ((1 + parts) * bytes.source + 2 * bytes.target) + 2 * bytes.kernels * kernel_rate +
               parts * bytes.block_ns;
    }
    rows = std::max(1.0, std::min(rows, tiles));
    const double rate = stream_ns(rows * bytes.tile() + (bytes.tile_lanes ? kernels : 0), bytes.memory_ns);
    const double touches = bytes.in_place ? 4 : 2, blocks = std::ceil(tiles / rows);
    const double kernel_touches = pass == Pass::weight_grad ? 2 * blocks : 1 + 0.5 * blocks;
    return touches * tiles * bytes.tile() * rate + kernel_touches * bytes.kernels * kernel_rate +
           blocks * bytes.block_ns;
}

// As many rows as cost least, for few tiles in parts of the kernels' spectra.
Blocking dense_blocking(Pass pass, const SliceBytes& bytes, double tiles, double row_step, int groups,
                        std::int64_t target_blocks) {
    constexpr double most_bytes = 48 << 20;  // of a block's spectra, if several tiles fit
    constexpr double most_fused = 96;        // more rows gain nothing, and threads need blocks to share
    const double most = pass == Pass::weight_grad ? max_reduction : std::max(tiles, 1.0);
    Blocking best;
    best.groups = groups;
    double least_ns = std::numeric_limits<double>::infinity();
    const auto consider = [&](double rows, int parts) {
        const double ns = traffic_ns(pass, bytes, tiles, rows, parts);
        if (ns >= least_ns) return;
        least_ns = ns;
        best.rows = static_cast<std::int64_t>(rows);
        best.parts = parts;
    };
    for (double r = row_step; r == row_step || (r < 2 * most && r * bytes.tile() <= most_bytes); r *= 2)
        consider(std::min(r, most), 1);
    if (groups == 1 && !bytes.tile_lanes && tiles <= most && tiles * bytes.source <= most_bytes)
        for (std::int64_t part = 4; part < target_blocks; part += 4)
            if (const std::int64_t parts = ceil_div(target_blocks, part); parts <= 16)
                consider(std::max(1.0, tiles), static_cast<int>(parts));
    const double rows = static_cast<double>(best.rows);
    if (pass == Pass::weight_grad)
        best.fused = rows * bytes.tile() + bytes.kernels < 4 * static_cast<double>(cache_sizes().l2);
    else
        best.fused = rows <= most_fused && tiles > rows;
    return best;
}

template <class E>
Blocking blocking_of(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape,
                     const Work& work) {
    const double l2 = static_cast<double>(cache_sizes().l2);
    const SliceBytes of_group = slice_bytes(kernels, shape, work, 1);
    if (work.lanewise) {  // nothing is shared by the tiles of a block but a lane vector of kernels for each bin
        const double most = pass == Pass::weight_grad ? max_reduction : 48;
        return {static_cast<std::int64_t>(std::clamp(l2 / 4 / of_group.tile(), 1.0, most)), true, 1, 1};
    }
    // A multiple of the micro-kernels' rows; where lanes hold tiles, of their columns.
    const double row_step = work.lane_kind == LaneKind::tiles ? 4 : 12;
    // As many groups as leave room for row_step tiles in L2.
    const int groups =
        static_cast<int>(std::clamp(1.25 * l2 / (row_step * of_group.tile()), 1.0, std::max(1.0, double(work.groups))));
    const double tiles = static_cast<double>(tile_grid(layer, pass, shape, work.lane_kind, kernels.lanes).rows());
    return dense_blocking(pass, slice_bytes(kernels, shape, work, groups), tiles, row_step, groups,
                          work.target_blocks / std::max(1, work.groups));
}

// Reading and writing the arrays. Rows of pixels that tiles overlap in are read again for each. Lanes of tiles read and
// write a run of pixels each for every row of a strip, from as many places: the shorter, the less of a cache line is used,
// and where tiles have several rows, memory is slow to follow.
double crossing_ns(const Layer& layer, Pass pass, const Work& work, const TileGrid& grid, const TileShape& shape,
                   double rows) {
    const double again = static_cast<double>(shape.transform[0]) * shape.transform[1] /
                         (static_cast<double>(shape.outputs[0]) * shape.outputs[1]);
    const double read = pass == Pass::input_grad ? y_bytes(layer) : x_bytes(layer);
    const double ns = array_ns(layer, pass) * (1 + (again - 1) * share_of_arrays(read, layer));
    if (work.lane_kind != LaneKind::tiles) return ns;
    const double strip = std::clamp(static_cast<double>(grid.line_tiles()), 1.0, rows);
    const double strips = std::ceil(static_cast<double>(grid.rows()) / strip);
    const double far =
        shape.transform[0] * shape.transform[1] > 1 ? std::min(1.0, array_bytes(layer) / cached_bytes()) : 0;
    return ns * (1 + far) * (1 + grid.lanes / (strip * shape.outputs[axes - 1])) +
           strips * static_cast<double>(work.read_blocks + work.write_blocks) * strip_ns;
}

// Nanoseconds of a pass's arithmetic, by stage.
struct StageCosts {
    double value;       // all line transforms, per value of a spectrum
    double flops;       // of the same; no time
    double lane_block;  // transform of one lane block of one row of tiles, either way
    double kernels;     // gathered and transformed, or the reverse
    double products;
};
template <class E>
StageCosts stage_costs(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const Work& work,
                       const TileShape& shape, double rows) {
    const Bins bins = bins_of(shape);
    const double planes = bins.real + 2 * bins.complex;
    const bool pairs = pass == Pass::weight_grad && work.lane_kind == LaneKind::tiles;
    StageCosts costs{};
    for (int a = 0; a < axes; ++a) {
        costs.value += line_ns(kernels, shape, a);
        costs.flops += line_flops(shape, a);
    }
    const double tile_bytes = planes * kernels.lanes * static_cast<double>(sizeof(E));
    if (work.lanewise && work.lane_kind == LaneKind::tiles && !pairs &&
        tile_bytes <= static_cast<double>(cache_sizes().l2) / 4)
        costs.value *= lone_lines;
    costs.lane_block = lane_block_ns + planes * (costs.value + value_ns);
    costs.kernels = (static_cast<double>(work.kernel_vectors) * costs.lane_block +
                     static_cast<double>(layer.out_channels * layer.in_per_group() * layer.taps()) * tap_gather_ns) *
                    (pass == Pass::weight_grad ? 1 : kernels_read);
    const double products = rows * static_cast<double>(work.products);
    costs.products = work.lanewise ? products * planes * (pairs ? pairwise_ns : lanewise_ns)
                                   : products * bins.fmas() * fma_ns * fma_steps(kernels);
    return costs;
}

}  // namespace

double x_bytes(const Layer& layer) {
    return element_bytes(layer) * static_cast<double>(layer.batch * layer.in_channels * layer.inputs());
}

bool is_large_beside_kernel(const Layer& layer) {
    const double bytes = x_bytes(layer);
    return bytes > 64e6 && element_bytes(layer) * static_cast<double>(layer.taps()) < 0.01 * bytes;
}

template <class E>
Costed cost_transform(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const Work& work,
                      const TileShape& shape) {
    Costed result;
    result.shape = shape;
    result.lane_kind = work.lane_kind;
    result.blocking = blocking_of(kernels, layer, pass, shape, work);
    const Bins bins = bins_of(shape);
    const double planes = bins.real + 2 * bins.complex, lanes = kernels.lanes;
    const double vector_bytes = lanes * static_cast<double>(sizeof(E));
    const TileGrid grid = tile_grid(layer, pass, shape, work.lane_kind, kernels.lanes);
    const double tiles = static_cast<double>(grid.rows());
    const StageCosts stages = stage_costs(kernels, layer, pass, work, shape, tiles);
    const double read = static_cast<double>(work.read_blocks), write = static_cast<double>(work.write_blocks);
    const double kernel_vectors = static_cast<double>(work.kernel_vectors);
    const double transforms = tiles * (read + write) + kernel_vectors;
    const double products = tiles * static_cast<double>(work.products);
    const double kernel_bytes = planes * kernel_vectors * vector_bytes;
    const double blocks = std::ceil(tiles / static_cast<double>(result.blocking.rows));
    const double spectra_bytes = tiles * planes * (read + write) * vector_bytes;
    const SliceBytes slice = slice_bytes(kernels, shape, work, result.blocking.groups);
    const double streamed = kernel_bytes * blocks * (pass == Pass::weight_grad ? 2 : 1);
    const double staged = result.blocking.fused ? 0 : 2 * spectra_bytes;
    const double slices = std::ceil(std::max(1, work.groups) / static_cast<double>(result.blocking.groups));
    const double ns =
        transform_call_ns + tiles * (read + write) * stages.lane_block + stages.kernels + stages.products +
        crossing_ns(layer, pass, work, grid, shape, static_cast<double>(result.blocking.rows)) +
        slices * traffic_ns(pass, slice, tiles, static_cast<double>(result.blocking.rows), result.blocking.parts);
    Candidate& c = result.candidate;
    c.algorithm = shape.name(layer.rank);
    c.possible = true;
    c.multiplications = products * (bins.real + work.complex_multiplications * bins.complex) * lanes;
    c.transform_flops = transforms * planes * lanes * stages.flops;
    c.bytes = streamed + staged + array_bytes(layer);
    c.predicted_seconds = ns * 1e-9;
    c.workspace_bytes = static_cast<std::int64_t>(
        (slice.kernels + static_cast<double>(result.blocking.rows) * slice.target) / result.blocking.parts +
        static_cast<double>(result.blocking.rows) * (slice.tile() - slice.target) + 3 * planes * vector_bytes);
    if (shape.fft) {
        c.error_bound = fft_error_bound(layer, planes);
    } else {
        c.error_bound = epsilon(layer);
        for (int a = 0; a < axes; ++a)
            if (shape.taps[a] > 1) c.error_bound *= winograd_amplification(shape.outputs[a], shape.taps[a]);
        c.error_bound += sum_error * epsilon(layer);
    }
    return result;
}

template <class E>
Costed cost_image(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape) {
    const TileShape image = image_of(shape, kernels.lanes);
    const std::int64_t lanes = kernels.lanes, depth = image.transform[0], height = image.transform[1];
    const auto in = static_cast<double>(layer.in_per_group()), out = static_cast<double>(layer.out_per_group()),
               sources = pass == Pass::forward ? in : out, targets = pass == Pass::forward ? out : in, pairs = in * out,
               groups = static_cast<double>(layer.groups);
    const std::int64_t count = tile_grid(layer, pass, shape, LaneKind::samples, kernels.lanes).count();
    double values = 1;
    for (int t : shape.transform)
        values *= t;
    const double tiles = groups * (static_cast<double>(count) + 0.5 * pairs / std::max(1.0, sources + targets));
    const double used = static_cast<double>(image.outputs[0]) * image.outputs[1] / static_cast<double>(depth * height);
    const auto all_lines = [&](const auto& of_axis) {
        const double along_x = of_axis(2), across = of_axis(1) + of_axis(0);
        return sources * (along_x + across) + targets * (along_x * used + across);
    };
    const double lines = all_lines([&](int axis) { return line_ns(kernels, image, axis); });
    const double row_vectors = sources * static_cast<double>(depth * ceil_div(height, lanes)) +
                               targets * static_cast<double>(image.outputs[0] * ceil_div(image.outputs[1], lanes));
    const double vectors = values / static_cast<double>(lanes), bytes = values * element_bytes(layer);
    const double block_bytes = 2 * static_cast<double>(depth * height * lanes) * element_bytes(layer);
    const bool signal = is_line(shape);
    const double memory_ns = memory_byte_ns * (signal ? 2 : 1);  // a signal's columns are from as many places
    const double kept = bytes * (std::max(sources, targets) + pairs), passed = bytes * (sources + targets) / 2;
    const double far = std::min(1.0, array_bytes(layer) / cached_bytes());
    const double read = share_of_arrays(pass == Pass::input_grad ? y_bytes(layer) : x_bytes(layer), layer);
    const double again = signal ? 1 : 1 / used;
    const double arithmetic = vectors * (lines * image_lines + (pairs - 1) * lanewise_ns +
                                         (signal ? (sources + targets) * image_twiddle_ns : 0)) +
                              row_vectors * image_rows_ns;
    // A sum's block is left out: so were the constants fitted.
    const double traffic = image_touches * passed * stream_ns(kept, memory_ns) +
                           image_block_touches * (depth > 1 ? 6 : 4) * passed *
                               stream_ns((sources + (depth > 1 ? 2 : 1)) * block_bytes, memory_ns);
    const double crossing = array_ns(layer, pass) * image_crossings * (1 + far) * (1 + (again - 1) * read);
    const double ns = transform_call_ns + tiles * (arithmetic + traffic) + crossing;
    Costed result;
    result.shape = shape;
    result.lane_kind = LaneKind::samples;
    result.blocking.fused = true;
    Candidate& c = result.candidate;
    c.algorithm = shape.name(layer.rank);
    c.possible = true;
    c.multiplications = tiles * values * 2 * pairs;
    c.transform_flops = tiles * values * all_lines([&](int axis) { return line_flops(image, axis); });
    c.bytes = tiles * 3 * passed + array_bytes(layer);
    c.predicted_seconds = ns * 1e-9;
    const int columns = column_blocks(static_cast<int>(sources), static_cast<int>(targets), static_cast<int>(depth));
    c.workspace_bytes = static_cast<std::int64_t>(kept + columns * block_bytes);
    c.error_bound = fft_error_bound(layer, values);
    return result;
}

namespace {

template <class E>
Costed cost_direct_in(const KernelTable<E>& kernels, const Layer& layer, Pass pass, bool lanewise) {
    const Work work = work_of(pass, input_blocks(layer, kernels.lanes, lanewise, false),
                              output_blocks(layer, kernels.lanes, lanewise),
                              lanewise ? LaneKind::groups : LaneKind::channels, kernels.lanes);
    const double outputs = static_cast<double>(layer.batch * layer.outputs()), taps = static_cast<double>(layer.taps());
    const double vector_weights = static_cast<double>(work.kernel_vectors) * taps * kernels.lanes;
    double ns = vector_weights * tap_gather_ns;
    if (lanewise) {
        const double product_ns = pass == Pass::weight_grad ? direct_lanewise_gradient_ns : direct_lanewise_ns;
        // input_grad computes every input from all taps that may meet it, also where they meet padding of dy
        const double steps = static_cast<double>(layer.axis[0].stride * layer.axis[1].stride * layer.axis[2].stride);
        const double inputs = static_cast<double>(layer.batch * layer.inputs());
        const double computed = pass == Pass::input_grad ? std::max(outputs, inputs / steps) : outputs;
        const double lanes = static_cast<double>(ceil_div(layer.groups, std::int64_t{kernels.lanes}) * kernels.lanes);
        const double empty = lanes / static_cast<double>(layer.groups) - 1;  // lanes, for each in use
        ns += computed * taps * static_cast<double>(work.products) * product_ns +
              direct_lanewise_crossings * (1 + empty / 2) * array_ns(layer, pass, Crossing::direct_joined);
    } else if (pass == Pass::weight_grad) {
        const WeightGradWork gradient = weight_grad_work(kernels, layer);
        const auto groups = static_cast<double>(layer.batch * layer.groups);
        const double product_calls = gradient.x_lanes <= gradient.y_lanes ? groups * gradient.products : 0;
        ns += outputs * static_cast<double>(layer.groups) * std::min(gradient.x_lanes, gradient.y_lanes) *
                  direct_weight_grad_ns * fma_steps(kernels) +
              product_calls * product_call_ns +
              array_ns(layer, pass, Crossing::direct) *
                  (1 + (gradient.reads - 1) * share_of_arrays(x_bytes(layer), layer));
    } else {
        const auto groups = static_cast<double>(layer.batch * layer.groups);
        if (is_filter(layer, pass)) {
            ns += filter_ns(kernels, layer, pass) * groups + array_ns(layer, pass, Crossing::direct);
        } else {
            const DirectTilings tilings = tile_direct(kernels, layer, pass);
            ns += tilings.ns() * groups +
                  array_ns(layer, pass, tilings.planar ? Crossing::direct : Crossing::direct_joined);
        }
    }
    Costed result;
    result.direct = true;
    result.lane_kind = lanewise ? LaneKind::groups : LaneKind::channels;
    Candidate& c = result.candidate;
    c.algorithm = "direct";
    c.possible = true;
    c.multiplications = outputs * taps * static_cast<double>(layer.in_per_group() * layer.out_channels);
    c.bytes = array_bytes(layer);
    c.workspace_bytes = static_cast<std::int64_t>(vector_weights * static_cast<double>(sizeof(E)));
    c.predicted_seconds = 1e-9 * ns;
    c.error_bound = epsilon(layer) * sum_error;
    return result;
}

}  // namespace

template <class E>
Costed cost_direct(const KernelTable<E>& kernels, const Layer& layer, Pass pass) {
    const bool lanewise = use_lanewise(layer, kernels.lanes);
    Costed costed = cost_direct_in(kernels, layer, pass, lanewise);
    if (pass == Pass::weight_grad) {
        const double by_dots = 1e-9 * dot_weight_grad_ns(kernels, layer);
        if (by_dots >= costed.candidate.predicted_seconds) return costed;
        costed.lane_kind = LaneKind::samples;
        costed.candidate.predicted_seconds = by_dots;
        return costed;
    }
    // Of few groups most lanes are empty. One by one, they are read as planes.
    const bool few = 2 * layer.groups <= kernels.lanes && (layer.output_phases() == 1 || is_filter(layer, pass));
    if (!lanewise || !few) return costed;
    const Costed one_by_one = cost_direct_in(kernels, layer, pass, false);
    return one_by_one.candidate.predicted_seconds < costed.candidate.predicted_seconds ? one_by_one : costed;
}

// Each operand is transformed once, so that of the six transforms of tiles in three passes four remain. The price: the
// spectra of x go to memory and come back; one block of tiles serves all passes, staged, with the kernels of all groups;
// and dx is added up from the T samples of each tile.
template <class E>
StepCost cost_step(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape, LaneKind lane_kind) {
    if (lane_kind == LaneKind::samples)
        return {std::numeric_limits<double>::infinity(), 1};  // a step has no such passes
    const TileGrid grid = tile_grid(layer, Pass::forward, shape, lane_kind, kernels.lanes);
    const double tiles = static_cast<double>(grid.rows());
    const LaneBlocks xs = lane_blocks(layer, kernels.lanes, lane_kind, true),
                     ys = lane_blocks(layer, kernels.lanes, lane_kind, false);
    const Work forward = work_of(Pass::forward, xs, ys, lane_kind, kernels.lanes);
    SliceBytes bytes = slice_bytes(kernels, shape, forward, forward.groups);
    bytes.in_place = false;
    // weight_grad finds the spectra of dy where input_grad left them, and those of x in memory.
    const double kept = tiles * bytes.source;
    SliceBytes left = bytes;
    left.source = 0;
    left.target /= 2;
    double added_bytes = x_bytes(layer);
    for (int a = 0; a < axes; ++a)
        added_bytes *= static_cast<double>(shape.transform[a]) / static_cast<double>(shape.outputs[a]);

    double whole_ns =
        3 * transform_call_ns + 2 * kept * stream_ns(kept, bytes.memory_ns) + 2 * added_bytes * array_byte_ns;
    for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad}) {
        const Work work = work_of(pass, xs, ys, lane_kind, kernels.lanes);
        const StageCosts stages = stage_costs(kernels, layer, pass, work, shape, tiles);
        whole_ns += stages.kernels + stages.products;
        if (pass == Pass::weight_grad) continue;
        whole_ns += tiles * static_cast<double>(work.read_blocks + work.write_blocks) * stages.lane_block +
                    crossing_ns(layer, pass, work, grid, shape, tiles);
    }
    StepCost best{std::numeric_limits<double>::infinity(), 1};
    // The passes of a depthwise layer keep a slice of few groups in L2 from the first stage to the last, which traffic_ns
    // does not see: depthwise7 of bench/ took 1.4 to 2.6 times as long in a step that shares (AVX-512 and baseline).
    if (forward.lanewise && forward.groups > 1) return best;
    constexpr double most_bytes = 48 << 20;  // as in dense_blocking
    for (double r = 12; r == 12 || (r < 2 * std::min<double>(tiles, max_reduction) && r * bytes.tile() <= most_bytes);
         r *= 2) {
        const double rows = std::min<double>(r, max_reduction);
        const double ns = whole_ns + 2 * traffic_ns(Pass::forward, bytes, tiles, rows, 1) +
                          traffic_ns(Pass::weight_grad, left, tiles, rows, 1);
        if (ns * 1e-9 < best.seconds) best = {ns * 1e-9, static_cast<std::int64_t>(rows)};
    }
    return best;
}

#define TRICONV_INSTANTIATE(E)                                                                                \
    template double line_ns(const KernelTable<E>&, const TileShape&, int);                                    \
    template Costed cost_transform(const KernelTable<E>&, const Layer&, Pass, const Work&, const TileShape&); \
    template Costed cost_image(const KernelTable<E>&, const Layer&, Pass, const TileShape&);                  \
    template Costed cost_direct(const KernelTable<E>&, const Layer&, Pass);                                   \
    template StepCost cost_step(const KernelTable<E>&, const Layer&, const TileShape&, LaneKind);
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
