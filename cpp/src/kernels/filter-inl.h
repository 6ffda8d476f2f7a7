// Direct convolution from one channel to one (contract: FilterArgs).
//
// A block of a few rows of outputs and a few lane vectors of each meets one row of samples after the other: a vector of
// samples, once loaded, serves every row of outputs, each with the taps of another row. The first and the last rows of
// samples concern some of the rows only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "../kernel_table.h"
#include "tile_io-inl.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

// Lane vectors of a block of 1, 2, ... rows: enough sums that additions need not wait for each other, and as many as there
// are registers for. 3 columns of 4 rows took three quarters of the time of 4 (AVX-512).
#if TRICONV_VECTOR_BYTES > 16 || defined(__aarch64__)
inline constexpr int filter_cols[] = {8, 4, 3, 3};
#else  // a product needs a register of its own before it is added
inline constexpr int filter_cols[] = {8, 4, 3, 2};
#endif
inline constexpr int filter_rows = static_cast<int>(std::size(filter_cols));

// One row of samples, for the rows of outputs [first, last); w: the taps of the first, of the others one w_row before.
template <class E, int first, int last, int rows, int cols>
TRICONV_INLINE void add_samples(Vec<E> (&sums)[rows][cols], const FilterArgs<E>& args, const E* in, const E* w) {
    const std::ptrdiff_t in_tap = args.in_tap, w_row = args.w_row;
    for (const E* const end = w + args.taps_x; w < end; ++w, in += in_tap) {
        Vec<E> samples[cols];
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j) {
            samples[j] = load_unaligned(in + j * lanes<E>);
            if constexpr (last - first > 1) samples[j] = in_register<E>(samples[j]);
        }
        TRICONV_UNROLL
        for (int i = first; i < last; ++i) {
            const Vec<E> tap = broadcast(w[(first - i) * w_row]);
            TRICONV_UNROLL
            for (int j = 0; j < cols; ++j)
                sums[i][j] += samples[j] * tap;
        }
    }
}

// What the block below this one reads and writes besides: 10 % of the time of 5 x 5 taps on 2048 x 2048 (AVX-512).
template <class E, int rows, int cols>
TRICONV_INLINE void prefetch_next_rows(const FilterArgs<E>& args, const E* in, const E* out) {
    constexpr int line = 64 / static_cast<int>(sizeof(E));
    TRICONV_UNROLL
    for (int r = 0; r < rows; ++r) {
        TRICONV_UNROLL
        for (int x = 0; x < cols * lanes<E>; x += line) {
            __builtin_prefetch(in + (args.taps_y - 1 + rows + r) * args.in_row + x);
            __builtin_prefetch(out + (rows + r) * args.out_row + x, 1);
        }
    }
}

// Rows of outputs with at least as many rows of taps. The outputs of the last column are the first `count` of its lanes.
template <class E, int rows, int cols, int... i>
TRICONV_INLINE void filter_block(const FilterArgs<E>& args, const E* in, E* out, int count, Vec<E> bias,
                                 FiniteTest<E>& test, std::integer_sequence<int, i...>) {
    Vec<E> sums[rows][cols] = {};
    const auto samples = [&](std::ptrdiff_t row) { return in + row * args.in_row; };
    const auto taps = [&](std::ptrdiff_t row) { return args.w + row * args.w_row; };
    prefetch_next_rows<E, rows, cols>(args, in, out);
    (add_samples<E, 0, i + 1>(sums, args, samples(i), taps(i)), ...);  // i: 0 ... rows - 2
    for (std::ptrdiff_t row = rows - 1; row < args.taps_y; ++row)
        add_samples<E, 0, rows>(sums, args, samples(row), taps(row));
    (add_samples<E, i + 1, rows>(sums, args, samples(args.taps_y + i), taps(args.taps_y - 1)), ...);
    TRICONV_UNROLL
    for (int r = 0; r < rows; ++r) {
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j) {
            E* const to = out + r * args.out_row + j * lanes<E>;
            if (j + 1 < cols || count == lanes<E>) {
                const Vec<E> value = sums[r][j] + (args.accumulate ? load_unaligned(to) : bias);
                store_unaligned(to, value);
                test.include(value);
            } else {
                store_partial(to, sums[r][j] + (args.accumulate ? load_partial(to, count) : bias), count);
                test.include(load_partial(to, count));
            }
        }
    }
}

template <class E, int rows>
void filter_some_rows(const FilterArgs<E>& args, const E* in, E* out, FiniteTest<E>& test) {
    constexpr int cols = filter_cols[rows - 1], width = cols * lanes<E>;
    constexpr std::make_integer_sequence<int, rows - 1> ends;
    const Vec<E> bias = broadcast(args.bias);
    std::int64_t x = 0;
    for (; x + width <= args.count; x += width)
        filter_block<E, rows, cols>(args, in + x, out + x, lanes<E>, bias, test, ends);
    for (; x < args.count; x += lanes<E>)
        filter_block<E, rows, 1>(args, in + x, out + x,
                                 static_cast<int>(std::min<std::int64_t>(lanes<E>, args.count - x)), bias, test, ends);
}

template <class E>
bool filter(const FilterArgs<E>& args) {
    static constexpr void (*some_rows[])(const FilterArgs<E>&, const E*, E*, FiniteTest<E>&) = {
        filter_some_rows<E, 1>, filter_some_rows<E, 2>, filter_some_rows<E, 3>, filter_some_rows<E, 4>};
    static_assert(std::size(some_rows) == filter_rows);
    FiniteTest<E> test;
    for_equal_parts(args.rows, std::min(filter_rows, args.taps_y), [&](std::int64_t first, int rows) {
        some_rows[rows - 1](args, args.in + first * args.in_row, args.out + first * args.out_row, test);
    });
    return test.failed(lanes<E>);
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
