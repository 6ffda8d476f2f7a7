// What the engine asks of the kernels of one instruction set: plain structs of function pointers, one table per
// element type and ISA. Everything under kernels/ is compiled once per ISA and reached only through these tables.
//
// A *lane vector* is `lanes` consecutive elements; which values the lanes hold (channels, usually) is the engine's
// affair. Offsets and strides are in elements. Buffers of lane vectors are 64-byte aligned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>

namespace triconv {

// ---- matrix products ------------------------------------------------------------------------------------------------
//
//   c[i][j] (+)= sum over reduction index t of a[i][t] * b[t][j]      i < rows, j < cols (lane vectors)
//
// Elements of a are broadcast, those of b and c are lane vectors. The reduction runs over blocks, each of `length`
// steps (the blocks from `full_blocks` on have `tail_length`); a block starts at a_offset[block], b_offset[block].
//
//   a[i][block, t] at a + a_offset[block] + i * a_row + t * a_step
//   b[block, t][j] at b + b_offset[block] + t * b_step + j * b_col
//   c[i][j]        at c + i * c_row + j * c_col
//
// For complex products the imaginary part lies a_im, b_im, c_im behind the real one.
template <class E>
struct ProductArgs {
    const E* a;
    const E* b;
    E* c;
    std::ptrdiff_t a_im, b_im, c_im;
    const std::ptrdiff_t* a_offset;
    const std::ptrdiff_t* b_offset;
    int blocks, full_blocks;
    int length, tail_length;
    std::ptrdiff_t a_row, a_step;
    std::ptrdiff_t b_step, b_col;
    std::ptrdiff_t b_ahead;  // from b to a column that is wanted later: fetched into L2 meanwhile. 0: nothing
    std::ptrdiff_t c_row, c_col;
    int rows, cols;   // rows <= mr, cols <= nr of the micro-kernel
    bool accumulate;  // add to c instead of overwriting it; the sum of one call is formed apart first
};

template <class E>
struct MicroKernel {
    int mr, nr;  // largest rows and cols
    void (*run)(const ProductArgs<E>&);
};

// The real product for direct convolution: a_row is 1 or `lanes`, b need not be aligned, and the largest number of rows
// depends on that of the columns.
template <class E>
struct DirectKernel {
    const int* most_rows;  // by cols - 1
    int most_cols;
    void (*run)(const ProductArgs<E>&);
};

// Product of numbers a, b in a transform domain: real, complex, with one of the factors conjugated.
enum class ProductKind : std::uint8_t { real, complex, complex_conj_a, complex_conj_b };
inline constexpr int product_kind_count = 4;

// Lane-wise product for depthwise layers, no reduction over channels. Rows are tiles of one bin, or bins of one tile:
//   c[i] (+)= a[i] * b[i]                 b_row = 0: one b for all rows
//   c (+)= sum over i of a[i] * b[i]      c_row = 0
// c[i] may be a[i].
template <class E>
struct LanewiseArgs {
    const E* a;
    const E* b;
    E* c;
    std::ptrdiff_t a_im, b_im, c_im;
    std::ptrdiff_t a_row, b_row, c_row;
    int rows;
    bool accumulate;
};

// Complex lane vectors, each turned by a factor of two parts, or by its conjugate:
//   values[i] *= vectors[i] * numbers[i]      i < count
// Of a vector all real parts come first, then all imaginary ones; of a number they are neighbours.
template <class E>
struct RotateArgs {
    E* values;
    const E* vectors;
    const E* numbers;
    int count;
    bool conjugate;
};

// ---- line transforms ------------------------------------------------------------------------------------------------
//
// A line transform maps `n_in` lane vectors to `n_out` lane vectors along one axis of a tile:
//   in  element i at in  + i * in_stride   (complex: imaginary part at + in_im)
//   out element i at out + i * out_stride  (complex: imaginary part at + out_im)
// in and out must not overlap. Real spectra are packed, T values: r0 r1 i1 r2 i2 ... [r(T/2) if T is even].
// One call takes `lines` of them, in_step and out_step apart: a small tile's are too short to be called one by one. They
// are done in order: what a line writes past the entries asked for may be where the next one writes its own.
enum class LineKind : std::uint8_t {
    fft_real,             // T reals (the last T - n_in zero)      -> packed half spectrum
    fft_real_inverse,     // packed half spectrum                  -> the first n_out of T reals, unscaled
    fft_complex,          // T complex (the last T - n_in zero)    -> T complex, exp(-2 pi i jk / T)
    fft_complex_inverse,  // T complex -> the first n_out of T complex, exp(+2 pi i jk / T), unscaled
    // Winograd F(m, r), T = m + r - 1, Cook-Toom matrices: y = A^T [(G w) * (B^T x)]
    winograd_data,      // B^T: T -> T
    winograd_kernel,    // G:   r -> T
    winograd_output,    // A^T: T -> m
    winograd_data_t,    // B:   T -> T   (the transposes serve the gradients)
    winograd_kernel_t,  // G^T: T -> r
    winograd_output_t,  // A:   m -> T
};

template <class E>
struct LineArgs {
    const E* in;
    E* out;
    std::ptrdiff_t in_stride, out_stride, in_im, out_im;
    int lines = 1;
    std::ptrdiff_t in_step = 0, out_step = 0;
};

template <class E>
struct LineTransform {
    void (*run)(const void* context, const LineArgs<E>&) = nullptr;
    std::shared_ptr<const void> context;
    int n_in = 0;   // entries read: the caller provides this many, zeros at the end
    int n_out = 0;  // entries written: the caller provides room for this many

    void operator()(const LineArgs<E>& args) const { run(context.get(), args); }
};

// ---- tile input and output ------------------------------------------------------------------------------------------
//
// The user's arrays are strided; tiles are made of lane vectors. One row of pixels crosses over here. Lanes are a constant
// stride apart, or (lane_offset) anywhere: then an absent lane is read as zeros and not written.
inline constexpr int most_lanes = 16;  // of any ISA and element
inline constexpr std::ptrdiff_t absent_lane = std::numeric_limits<std::ptrdiff_t>::min();

template <class E>
struct RowArgs {
    E* lanes;         // [count] lane vectors, contiguous; write with lane_stride 1: need not be aligned
    const E* source;  // read:  element (lane, i) at source + lane * lane_stride + i * pixel_stride
    E* destination;   // write: the same addressing
    std::ptrdiff_t lane_stride, pixel_stride;
    int lane_count;                     // lanes in use; read sets the others to zero
    std::int64_t count;                 // pixels
    const E* bias;                      // write: one lane vector added to each pixel, or null
    bool add;                           // write: add to the destination
    const std::ptrdiff_t* lane_offset;  // of each lane_count lanes, instead of lane * lane_stride; null: none
};

// Rows of a plane with zeros around each, for lanes that hold pixels. A row of `to` is a constant number of entries:
//   [before: zeros][count: from + row * from_row, from_step (1 or 2) apart][zeros to the end]
template <class E>
struct PaddedRowsArgs {
    const E* from;
    E* to;
    std::ptrdiff_t from_row, from_step, to_row;
    std::int64_t rows, before, count;  // before + count <= to_row
};

// `lanes` x `lanes` elements, lane vectors a stride apart, turned so that element (i, j) becomes (j, i); `count` of those
// squares, a step apart.
template <class E>
struct TransposeArgs {
    const E* in;
    E* out;
    std::ptrdiff_t in_stride, out_stride, in_step, out_step;
    int count;
};

// ---- filters --------------------------------------------------------------------------------------------------------
//
// Direct convolution from one channel to one:
//   out[y][x] (+)= bias + sum over i < taps_y, j < taps_x of in[y + i][x + j * in_tap] * w[i][j]     y < rows, x < count
// Rows are in_row, w_row, out_row apart, the elements of each are neighbours; nothing need be aligned. Samples are read as
// lane vectors: those of all that `count` outputs are cut into.
template <class E>
struct FilterArgs {
    const E* in;
    const E* w;
    E* out;
    std::ptrdiff_t in_row, in_tap, w_row, out_row;
    int taps_y, taps_x;
    std::int64_t rows, count;
    E bias;
    bool accumulate;  // add to out, and no bias
};
template <class E>
struct FilterKernel {
    int most_rows;  // of a block, and at most as many as of taps: they share the samples
    int row_of_taps;  // taps of a single row from which on (to max_reduction) samples meet vectors of them: lanes - 1 steps more
    bool (*run)(const FilterArgs<E>&);  // true if a value written was not finite
};

// Dot products of planes of some images, lanes hold pixels; nothing need be aligned:
//   sums[p * dots + t] += sum over n < images, y < rows, x < count of
//                         a[p * a_plane + n * a_image + y * a_row + x] * b[b_offset[t] + n * b_image + y * b_row + x]
// for p < planes, t < dots. Each row starts at lane 0: a lane sums images * rows * ceil(count / lanes) products.
template <class E>
struct DotArgs {
    const E* a;
    const E* b;
    const std::ptrdiff_t* b_offset;
    double* sums;
    std::ptrdiff_t a_plane, a_image, a_row;
    std::ptrdiff_t b_image, b_row;
    std::int64_t images, rows, count;
    int planes, dots;
};
template <class E>
struct DotKernel {
    int most_planes;  // of a block: they are read again for each block of dots
    void (*run)(const DotArgs<E>&);
};

// ---- depthwise direct -----------------------------------------------------------------------------------------------
//
//   forward:      out[i] (+)= sum over runs, k of  in[run.offset + (i + k) * in_step] * w[tap]       i < count
//   weight_grad:  dw[tap] += sum over i of in[run.offset + (i + k) * in_step] * dy[i]                k < run.taps
// The taps of a run thus read neighbours, a step apart as the outputs are: what one reads serves all. `tap` counts
// through the runs. All entries are lane vectors; offsets and steps are in elements.
struct TapRun {
    std::ptrdiff_t offset;
    int taps;  // at most most_run_taps
};
inline constexpr int most_run_taps = 4;

template <class E>
struct DepthwiseArgs {
    const E* in;
    const E* w;   // forward
    const E* dy;  // weight_grad
    E* out;       // forward: out, weight_grad: dw
    const TapRun* runs;
    int run_count;
    std::ptrdiff_t in_step, dy_step, out_step;  // out_step: forward
    std::int64_t count;
    bool accumulate;  // forward
};

// ---- the table ------------------------------------------------------------------------------------------------------
template <class E>
struct KernelTable {
    const char* isa;
    int lanes;
    MicroKernel<E> product[product_kind_count];
    DirectKernel<E> direct_product;
    void (*lanewise[product_kind_count])(const LanewiseArgs<E>&);
    void (*rotate)(const RotateArgs<E>&);
    void (*read_row)(const RowArgs<E>&);
    bool (*write_row)(const RowArgs<E>&);  // true if a value written was not finite
    void (*read_padded_rows)(const PaddedRowsArgs<E>&);
    void (*transpose)(const TransposeArgs<E>&);
    FilterKernel<E> filter;
    DotKernel<E> dots;
    int depthwise_outputs;  // that forward takes together
    void (*depthwise_forward)(const DepthwiseArgs<E>&);
    void (*depthwise_weight_grad)(const DepthwiseArgs<E>&);
    // FFT of length T reading n_in entries and writing n_out (n = T where a side is not pruned). Any T >= 1: generated
    // codelets, lines composed of them where T has small prime factors, else PocketFFT. The result may read or write
    // more entries than asked for, never more than T: see LineTransform::n_in and n_out. Throws std::bad_alloc.
    LineTransform<E> (*fft_line)(LineKind kind, int length, int n_in, int n_out);
    // Winograd F(m, r): run is null if there is no such codelet. F(m, 1) is the identity.
    LineTransform<E> (*winograd_line)(LineKind kind, int m, int r);
    // How many codelets an FFT line of that length is made of: 1, 2, or 3, which stands for more and for PocketFFT, too.
    int (*codelets_of_line)(int length);
};

struct IsaKernels {
    KernelTable<float> f32;
    KernelTable<double> f64;
};

}  // namespace triconv
