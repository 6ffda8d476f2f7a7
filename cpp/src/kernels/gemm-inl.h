// Micro-kernels of the matrix products and the lane-wise products (contract: ProductArgs, LanewiseArgs, RotateArgs).
//
// A micro-kernel keeps rows x cols sums in registers (of complex numbers three each) and walks the reduction once: per
// step it loads `cols` lane vectors of b and broadcasts `rows` elements of a. Every remainder shape is its own
// instantiation, so small layers pay for no padding. Invariant: the sum of a call starts from zero and is added to c at
// the end, so the caller's calls are the blocks of a blocked summation. Prefetching b 8 KB ahead (the one distance
// tried, AVX-512 6 x 4 float) cost a third from the L2 cache and gained some 2 to 20 % from memory, within much noise.
#pragma once

#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

#include "../kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

// Register blocks. Operands that stay live: rows x cols sums, cols vectors of b, one broadcast (complex: three each).
struct RegisterBlock {
    int rows, cols;
};
#if TRICONV_VECTOR_BYTES == 64 || defined(__aarch64__)  // 32 registers
inline constexpr RegisterBlock real_block{6, 4};
inline constexpr RegisterBlock complex_block{3, 2};
#elif TRICONV_VECTOR_BYTES == 32  // 16 registers
inline constexpr RegisterBlock real_block{6, 2};
inline constexpr RegisterBlock complex_block{3, 1};
#else                             // 16 registers, and a product needs one of its own before it is added
inline constexpr RegisterBlock real_block{6, 2};  // float: 1 to 6 % above 4 x 2, one noisy run
inline constexpr RegisterBlock complex_block{3, 1};
#endif

constexpr RegisterBlock register_block(ProductKind kind) {
    return kind == ProductKind::real ? real_block : complex_block;
}

template <class E, ProductKind kind>
struct Number {  // a lane vector of numbers, or one number broadcast
    Vec<E> re, im;
};
template <class E>
struct Number<E, ProductKind::real> {
    Vec<E> re;
};

template <class E, ProductKind kind, bool aligned = true>
TRICONV_INLINE Number<E, kind> load_number(const E* p, std::ptrdiff_t im) {
    if constexpr (!aligned) {
        static_assert(kind == ProductKind::real);
        return {in_register<E>(load_unaligned(p))};
    } else if constexpr (kind == ProductKind::real) {
        return {load(p)};
    } else {
        return {load(p), load(p + im)};
    }
}

template <class E, ProductKind kind>
TRICONV_INLINE void prefetch_number(const E* p, std::ptrdiff_t im) {
    prefetch_to_l2(p);
    if constexpr (kind != ProductKind::real) prefetch_to_l2(p + im);
}

// In registers: GCC else broadcasts from a register what it also adds, on a unit that multiplies (a fifth slower).
template <class E, ProductKind kind>
TRICONV_INLINE Number<E, kind> broadcast_number(const E* p, std::ptrdiff_t im) {
    if constexpr (kind == ProductKind::real) {
        return {broadcast(*p)};
    } else {
        return {in_register<E>(broadcast(*p)), in_register<E>(broadcast(p[im]))};
    }
}

template <class E, ProductKind kind>
TRICONV_INLINE void store_number(E* p, std::ptrdiff_t im, const Number<E, kind>& value) {
    store(p, value.re);
    if constexpr (kind != ProductKind::real) store(p + im, value.im);
}

template <class E, ProductKind kind>
TRICONV_INLINE void add_number(Number<E, kind>& sum, const Number<E, kind>& value) {
    sum.re += value.re;
    if constexpr (kind != ProductKind::real) sum.im += value.im;
}

// sum += a * b, with the factor that `kind` names conjugated.
template <class E, ProductKind kind>
TRICONV_INLINE void multiply_add(Number<E, kind>& sum, const Number<E, kind>& a, const Number<E, kind>& b) {
    sum.re += a.re * b.re;
    if constexpr (kind == ProductKind::complex) {
        sum.im += a.re * b.im;
        sum.re -= a.im * b.im;
        sum.im += a.im * b.re;
    } else if constexpr (kind == ProductKind::complex_conj_a) {
        sum.im += a.re * b.im;
        sum.re += a.im * b.im;
        sum.im -= a.im * b.re;
    } else if constexpr (kind == ProductKind::complex_conj_b) {
        sum.im -= a.re * b.im;
        sum.re += a.im * b.im;
        sum.im += a.im * b.re;
    }
}

// What is added up of a product. Complex numbers are multiplied as Gauss did, with three multiplications and additions
// that other units than the multiplying ones do meanwhile:
//   a b = re_re - im_im + i (cross - re_re - im_im)     cross: (a.re + a.im) (b.re + b.im)
template <class E, ProductKind kind>
struct Sum {
    Vec<E> re_re, im_im, cross;
};
template <class E>
struct Sum<E, ProductKind::real> {
    Vec<E> re;
};

template <class E, ProductKind kind>
struct Factor {
    Vec<E> re, im, cross;
};
template <class E>
struct Factor<E, ProductKind::real> {
    Vec<E> re;
};

template <class E, ProductKind kind>
TRICONV_INLINE Factor<E, kind> factor_of(const Number<E, kind>& number, bool conjugated) {
    if constexpr (kind == ProductKind::real) {
        return {number.re};
    } else {
        return {number.re, number.im, conjugated ? number.re - number.im : number.re + number.im};
    }
}

template <class E, ProductKind kind>
TRICONV_INLINE void add_product(Sum<E, kind>& sum, const Factor<E, kind>& a, const Factor<E, kind>& b) {
    if constexpr (kind == ProductKind::real) {
        sum.re += a.re * b.re;
    } else {
        sum.re_re += a.re * b.re;
        sum.im_im += a.im * b.im;
        sum.cross += a.cross * b.cross;
    }
}

template <class E, ProductKind kind>
TRICONV_INLINE Number<E, kind> value_of(const Sum<E, kind>& sum) {
    if constexpr (kind == ProductKind::real) {
        return {sum.re};
    } else {
        const Vec<E> im_im = kind == ProductKind::complex ? sum.im_im : -sum.im_im;  // one conjugated
        return {sum.re_re - im_im, sum.cross - (sum.re_re + im_im)};
    }
}

template <class E, ProductKind kind>
TRICONV_INLINE void add_sum(Sum<E, kind>& sum, const Sum<E, kind>& value) {
    if constexpr (kind == ProductKind::real) {
        sum.re += value.re;
    } else {
        sum.re_re += value.re_re;
        sum.im_im += value.im_im;
        sum.cross += value.cross;
    }
}

template <class E, ProductKind kind, int rows, int cols>
struct Sums {
    Sum<E, kind> at[rows][cols] = {};
};

template <class E, ProductKind kind, int rows, int cols>
TRICONV_INLINE void add_sums(Sums<E, kind, rows, cols>& sums, const Sums<E, kind, rows, cols>& others) {
    TRICONV_UNROLL
    for (int i = 0; i < rows; ++i) {
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j)
            add_sum(sums.at[i][j], others.at[i][j]);
    }
}

template <class E, ProductKind kind, int rows, int cols, bool direct, class RowStride>
TRICONV_INLINE void product_step(Sums<E, kind, rows, cols>& sums, const E* a, RowStride a_row, std::ptrdiff_t a_im,
                                 const E* b, std::ptrdiff_t b_col, std::ptrdiff_t b_im, std::ptrdiff_t b_ahead) {
    Factor<E, kind> vectors[cols];
    TRICONV_UNROLL
    for (int j = 0; j < cols; ++j)
        vectors[j] = factor_of(load_number<E, kind, !direct>(b + j * b_col, b_im), kind == ProductKind::complex_conj_b);
    if constexpr (!direct) prefetch_number<E, kind>(b + b_ahead, b_im);
    TRICONV_UNROLL
    for (int i = 0; i < rows; ++i) {
        const Factor<E, kind> element =
            factor_of(broadcast_number<E, kind>(a + i * a_row, a_im), kind == ProductKind::complex_conj_a);
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j)
            add_product(sums.at[i][j], element, vectors[j]);
    }
}

template <class E, ProductKind kind, int rows, int cols>
TRICONV_INLINE void store_sums(const ProductArgs<E>& args, const Sums<E, kind, rows, cols>& sums) {
    TRICONV_UNROLL
    for (int i = 0; i < rows; ++i) {
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j) {
            E* c = args.c + i * args.c_row + j * args.c_col;
            Number<E, kind> value = value_of(sums.at[i][j]);
            if (args.accumulate) add_number(value, load_number<E, kind>(c, args.c_im));
            store_number(c, args.c_im, value);
        }
    }
}

// The rows of a in the next block of the reduction, one cache line each.
template <class E, ProductKind kind, int rows, class RowStride>
TRICONV_INLINE void prefetch_rows(const ProductArgs<E>& args, int block, RowStride a_row) {
    if (block >= args.blocks) return;
    const E* a = args.a + args.a_offset[block];
    TRICONV_UNROLL
    for (int i = 0; i < rows; ++i) {
        __builtin_prefetch(a + i * a_row);
        if constexpr (kind != ProductKind::real) __builtin_prefetch(a + i * a_row + args.a_im);
    }
}

// The walk over the reduction; a_row is a constant where it can be: with `rows` index registers less the loop has none to
// reload, and four instructions a cycle are what limits it. direct: b need not be aligned, and nothing is prefetched: for
// one or two rows, to prefetch the next columns cost up to a fifth, from memory as well as from caches.
template <class E, ProductKind kind, int rows, int cols, bool direct, class RowStride>
TRICONV_INLINE void product_sums(const ProductArgs<E>& args, RowStride a_row) {
    constexpr int unroll = independent_steps(rows * cols * (kind == ProductKind::real ? 1 : 3));
    const std::ptrdiff_t a_step = args.a_step, a_im = args.a_im;
    const std::ptrdiff_t b_col = args.b_col, b_step = args.b_step, b_im = args.b_im, b_ahead = args.b_ahead;
    Sums<E, kind, rows, cols> sums[unroll];
    for (int block = 0; block < args.blocks; ++block) {
        const int length = block < args.full_blocks ? args.length : args.tail_length;
        const E* a = args.a + args.a_offset[block];
        const E* b = args.b + args.b_offset[block];
        if constexpr (!direct) prefetch_rows<E, kind, rows>(args, block + 1, a_row);
        int t = 0;
        for (; t + unroll <= length; t += unroll) {
            TRICONV_UNROLL
            for (int u = 0; u < unroll; ++u) {
                product_step<E, kind, rows, cols, direct>(sums[u], a, a_row, a_im, b, b_col, b_im, b_ahead);
                a += a_step;
                b += b_step;
            }
        }
        if constexpr (unroll > 1) {
            for (; t < length; ++t) {
                product_step<E, kind, rows, cols, direct>(sums[0], a, a_row, a_im, b, b_col, b_im, b_ahead);
                a += a_step;
                b += b_step;
            }
        }
    }
    if constexpr (unroll == 4) add_sums(sums[2], sums[3]);
    if constexpr (unroll > 1) add_sums(sums[0], sums[1]);
    if constexpr (unroll == 4) add_sums(sums[0], sums[2]);
    store_sums(args, sums[0]);
}

template <int value>
using Constant = std::integral_constant<std::ptrdiff_t, value>;

template <class E, ProductKind kind, int rows, int cols>
void product(const ProductArgs<E>& args) {
    if (args.a_row == lanes<E>) {
        product_sums<E, kind, rows, cols, false>(args, Constant<lanes<E>>());
    } else if (args.a_row == 1) {
        product_sums<E, kind, rows, cols, false>(args, Constant<1>());
    } else {
        product_sums<E, kind, rows, cols, false>(args, args.a_row);
    }
}

// The instantiation for args.rows x args.cols, through a table ordered by rows, then cols.
template <class E, ProductKind kind, int... shape>
TRICONV_INLINE void run_shape(const ProductArgs<E>& args, std::integer_sequence<int, shape...>) {
    constexpr int cols = register_block(kind).cols;
    static constexpr void (*shapes[])(const ProductArgs<E>&) = {
        product<E, kind, shape / cols + 1, shape % cols + 1>...};
    shapes[(args.rows - 1) * cols + args.cols - 1](args);
}

template <class E, ProductKind kind>
void run_product(const ProductArgs<E>& args) {
    constexpr RegisterBlock block = register_block(kind);
    run_shape<E, kind>(args, std::make_integer_sequence<int, block.rows * block.cols>());
}

template <class E, ProductKind kind>
constexpr MicroKernel<E> micro_kernel() {
    return {register_block(kind).rows, register_block(kind).cols, run_product<E, kind>};
}

// ---- direct convolution ---------------------------------------------------------------------------------------------

// Rows of the largest blocks of 1, 2, ... columns. Tall blocks read few vectors of b, which may come from the L2 cache,
// for each multiplication; wide ones serve few rows.
#if TRICONV_VECTOR_BYTES == 64 || defined(__aarch64__)  // 32 registers
inline constexpr int direct_rows[] = {14, 14, 9, 7, 5, 4, 4, 3};
#else  // 16 registers
inline constexpr int direct_rows[] = {8, 6, 4, 2};
#endif
inline constexpr int direct_cols = static_cast<int>(std::size(direct_rows));

template <class E, int rows, int cols, int a_row>
void direct_product(const ProductArgs<E>& args) {
    product_sums<E, ProductKind::real, rows, cols, true>(args, Constant<a_row>());
}

// Blocks of `cols` columns: through a table by rows.
template <class E, int cols, int a_row, int... row>
TRICONV_INLINE void run_direct_rows(const ProductArgs<E>& args, std::integer_sequence<int, row...>) {
    static constexpr void (*shapes[])(const ProductArgs<E>&) = {direct_product<E, row + 1, cols, a_row>...};
    shapes[args.rows - 1](args);
}

template <class E, int a_row, int cols = 1>
TRICONV_INLINE void run_direct_cols(const ProductArgs<E>& args) {
    if constexpr (cols < direct_cols) {
        if (args.cols > cols) return run_direct_cols<E, a_row, cols + 1>(args);
    }
    run_direct_rows<E, cols, a_row>(args, std::make_integer_sequence<int, direct_rows[cols - 1]>());
}

template <class E>
void run_direct_product(const ProductArgs<E>& args) {
    if (args.a_row == 1) {
        run_direct_cols<E, 1>(args);
    } else {
        run_direct_cols<E, lanes<E>>(args);
    }
}

// ---- lane-wise ------------------------------------------------------------------------------------------------------

// Sum over rows [first, first + count) of a * b, pairwise above `sum_block` rows: the error grows with the logarithm of
// the rows, and reading is what the time goes into.
template <class E, ProductKind kind>
Number<E, kind> lanewise_sum(const LanewiseArgs<E>& args, std::ptrdiff_t first, std::ptrdiff_t count) {
    constexpr int partial_sums = 4, sum_block = 128;
    if (count > sum_block) {
        const std::ptrdiff_t half = count / 2;
        Number<E, kind> sum = lanewise_sum<E, kind>(args, first, half);
        add_number(sum, lanewise_sum<E, kind>(args, first + half, count - half));
        return sum;
    }
    Number<E, kind> sums[partial_sums] = {};
    const E* a = args.a + first * args.a_row;
    const E* b = args.b + first * args.b_row;
    std::ptrdiff_t i = 0;
    for (; i + partial_sums <= count; i += partial_sums) {
        TRICONV_UNROLL
        for (int k = 0; k < partial_sums; ++k) {
            multiply_add(sums[k], load_number<E, kind>(a, args.a_im), load_number<E, kind>(b, args.b_im));
            a += args.a_row;
            b += args.b_row;
        }
    }
    for (; i < count; ++i) {
        multiply_add(sums[0], load_number<E, kind>(a, args.a_im), load_number<E, kind>(b, args.b_im));
        a += args.a_row;
        b += args.b_row;
    }
    add_number(sums[0], sums[1]);
    add_number(sums[2], sums[3]);
    add_number(sums[0], sums[2]);
    return sums[0];
}

template <class E, ProductKind kind, bool accumulate>
void lanewise_rows(const LanewiseArgs<E>& args) {
    for (std::ptrdiff_t i = 0; i < args.rows; ++i) {
        E* c = args.c + i * args.c_row;
        Number<E, kind> value = {};
        if constexpr (accumulate) value = load_number<E, kind>(c, args.c_im);
        multiply_add(value, load_number<E, kind>(args.a + i * args.a_row, args.a_im),
                     load_number<E, kind>(args.b + i * args.b_row, args.b_im));
        store_number(c, args.c_im, value);
    }
}

template <class E, ProductKind kind>
void lanewise(const LanewiseArgs<E>& args) {
    if (args.c_row == 0) {
        Number<E, kind> sum = lanewise_sum<E, kind>(args, 0, args.rows);
        if (args.accumulate) add_number(sum, load_number<E, kind>(args.c, args.c_im));
        store_number(args.c, args.c_im, sum);
    } else if (args.accumulate) {
        lanewise_rows<E, kind, true>(args);
    } else {
        lanewise_rows<E, kind, false>(args);
    }
}

template <class E, ProductKind kind>
void rotate_by(const RotateArgs<E>& args) {
    constexpr std::ptrdiff_t im = lanes<E>;
    for (std::ptrdiff_t i = 0; i < args.count; ++i) {
        Number<E, ProductKind::complex> factor = {};
        multiply_add(factor, load_number<E, ProductKind::complex>(args.vectors + 2 * im * i, im),
                     broadcast_number<E, ProductKind::complex>(args.numbers + 2 * i, 1));
        E* const at = args.values + 2 * im * i;
        Number<E, kind> value = {};
        multiply_add(value, load_number<E, kind>(at, im), {factor.re, factor.im});
        store_number(at, im, value);
    }
}

template <class E>
void rotate(const RotateArgs<E>& args) {
    (args.conjugate ? rotate_by<E, ProductKind::complex_conj_b> : rotate_by<E, ProductKind::complex>)(args);
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
