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

// Lane vectors of a block of 1, 2, ... rows: enough sums that additions need not wait for each other, where they fit in the
// registers. Of 4 rows 3 columns took three quarters of the time of 4 on one machine, and as long on another (AVX-512).
#if TRICONV_VECTOR_BYTES == 64 || defined(__aarch64__)  // 32 registers
inline constexpr int filter_cols[] = {8, 4, 3, 3, 4, 4}, tap_vector_cols[] = {12, 8, 6, 6};
#elif TRICONV_VECTOR_BYTES == 32  // 16 registers: 12 sums, 3 vectors of samples, a tap
inline constexpr int filter_cols[] = {8, 4, 3, 3}, tap_vector_cols[] = {12, 6, 4, 3};
#else                             // the same, and a product needs one of its own before it is added
inline constexpr int filter_cols[] = {8, 4, 3, 2}, tap_vector_cols[] = {12, 6, 4, 3};
#endif
inline constexpr int filter_rows = static_cast<int>(std::size(filter_cols));

// Squares of taps known to the compiler (size > 0), which unrolls all loops over them; or any taps.
template <int size>
struct FilterTaps {
    template <class E>
    explicit FilterTaps(const FilterArgs<E>&) {}
    template <class E>
    static bool fit(const FilterArgs<E>& args) {
        return args.taps_y == size && args.taps_x == size && args.w_row == size && args.in_tap == 1;
    }
    static constexpr std::ptrdiff_t row = size;
};
template <>
struct FilterTaps<0> {
    template <class E>
    explicit FilterTaps(const FilterArgs<E>& args)
        : y(args.taps_y), x(args.taps_x), row(args.w_row), hop(args.in_tap) {}
    int y, x;
    std::ptrdiff_t row, hop;
};

// One row of samples, for the rows of outputs [first, last); w: the taps of the first, of the others one row before.
template <class E, int first, int last, int rows, int cols, int size>
TRICONV_INLINE void add_samples(Vec<E> (&sums)[rows][cols], const FilterTaps<size>& taps, std::ptrdiff_t last_col,
                                const E* in, const E* w) {
    const auto add_tap = [&](const E* in, const E* w) {
        Vec<E> samples[cols];
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j) {
            samples[j] = load_unaligned(in + (j + 1 < cols ? j * lanes<E> : last_col));
            if constexpr (last - first > 1) samples[j] = in_register<E>(samples[j]);
        }
        TRICONV_UNROLL
        for (int i = first; i < last; ++i) {
            const Vec<E> tap = broadcast(w[(first - i) * taps.row]);
            TRICONV_UNROLL
            for (int j = 0; j < cols; ++j)
                sums[i][j] += samples[j] * tap;
        }
    };
    if constexpr (size > 0) {
        TRICONV_UNROLL
        for (int x = 0; x < size; ++x)
            add_tap(in + x, w + x);
    } else {
        for (const E* const end = w + taps.x; w < end; ++w, in += taps.hop)
            add_tap(in, w);
    }
}

// What the block below this one reads and writes besides, which is to come after all columns: into L2. 10 % of the time of
// 5 x 5 taps on 2048 x 2048 (AVX-512).
template <class E, int rows, int cols>
TRICONV_INLINE void prefetch_next_rows(const FilterArgs<E>& args, const E* in, const E* out) {
    constexpr int line = 64 / static_cast<int>(sizeof(E));
    TRICONV_UNROLL
    for (int r = 0; r < rows; ++r) {
        TRICONV_UNROLL
        for (int x = 0; x < cols * lanes<E>; x += line) {
            __builtin_prefetch(in + (args.taps_y - 1 + rows + r) * args.in_row + x, 0, 2);
            __builtin_prefetch(out + (rows + r) * args.out_row + x, 1, 2);
        }
    }
}

// The sums of a block, row by row of samples. Of any taps there must be at least as many rows as of outputs.
template <class E, int rows, int cols, int size, int... i>
TRICONV_INLINE void add_rows(Vec<E> (&sums)[rows][cols], const FilterArgs<E>& args, std::ptrdiff_t last_col,
                             const E* in, std::integer_sequence<int, i...>) {
    const FilterTaps<size> taps(args);
    const auto row = [&](std::ptrdiff_t y) { return in + y * args.in_row; };
    const auto w = [&](std::ptrdiff_t y) { return args.w + y * taps.row; };
    if constexpr (size > 0) {
        const auto add = [&](auto at) {
            constexpr int y = decltype(at)::value, first = std::max(0, y - size + 1), last = std::min(rows, y + 1);
            add_samples<E, first, last>(sums, taps, last_col, row(y), w(y - first));
        };
        (add(std::integral_constant<int, i>()), ...);
    } else {
        (add_samples<E, 0, i + 1>(sums, taps, last_col, row(i), w(i)), ...);  // i: 0 ... rows - 2
        for (std::ptrdiff_t y = rows - 1; y < taps.y; ++y)
            add_samples<E, 0, rows>(sums, taps, last_col, row(y), w(y));
        (add_samples<E, i + 1, rows>(sums, taps, last_col, row(taps.y + i), w(taps.y - 1)), ...);
    }
}

// A single row of taps lets no rows of outputs share samples, vectors of which mostly cross a cache line besides. There the
// two change parts: a sample meets the taps that the outputs of a lane vector have for it, none for some of them,
//
//   outputs x ... x + 3 (4 lanes), taps w0 w1 w2        in[x]    * (w0  0  0  0)
//                                                       in[x + 1] * (w1 w0  0  0)
//                                                       in[x + 2] * (w2 w1 w0  0)
//                                                       in[x + 3] * ( 0 w2 w1 w0)  ...
//
// which takes taps + lanes - 1 steps instead of taps; one vector of taps serves the whole block.
inline constexpr int fewest_tap_vectors = TRICONV_VECTOR_BYTES == 64 ? 12 : 24, most_tap_vectors = 256;
inline constexpr int tap_vectors = -1;  // as the `size` of taps

template <class E, int rows, int cols>
TRICONV_INLINE void add_tap_vectors(Vec<E> (&sums)[rows][cols], const FilterArgs<E>& args, std::ptrdiff_t last_col,
                                    const E* in) {
    const E* w = args.w;  // of the first sample
    const E* samples[rows];
    TRICONV_UNROLL
    for (int i = 0; i < rows; ++i)
        samples[i] = in + i * args.in_row;
    for (int left = args.taps_x + lanes<E> - 1; left > 0; --left, --w) {
        const Vec<E> taps = in_register<E>(load_unaligned(w));
        TRICONV_UNROLL
        for (int i = 0; i < rows; ++i) {
            samples[i] = opaque(samples[i]);
            TRICONV_UNROLL
            for (int j = 0; j < cols; ++j)
                sums[i][j] += broadcast(samples[i][j + 1 < cols ? j * lanes<E> : last_col]) * taps;
            ++samples[i];
        }
    }
}

// The lane vectors of a row are neighbours but for the last, which may overlap the one before. count: outputs of that.
template <class E, int size, int rows, int cols>
TRICONV_INLINE void filter_block(const FilterArgs<E>& args, const E* in, E* out, std::ptrdiff_t last_col, int count,
                                 FiniteTest<E>& test) {
    Vec<E> sums[rows][cols] = {};
    prefetch_next_rows<E, rows, cols>(args, in, out);
    if constexpr (size == tap_vectors)
        add_tap_vectors<E>(sums, args, last_col, in);
    else
        add_rows<E, rows, cols, size>(sums, args, last_col, in,
                                      std::make_integer_sequence<int, size == 0 ? rows - 1 : rows + size - 1>());
    const Vec<E> bias = broadcast(args.bias);
    FiniteTest<E> finite = test;
    TRICONV_UNROLL
    for (int r = 0; r < rows; ++r) {
        TRICONV_UNROLL
        for (int j = 0; j < cols; ++j) {
            E* const to = out + r * args.out_row + (j + 1 < cols ? j * lanes<E> : last_col);
            if (j + 1 < cols || count == lanes<E>) {
                const Vec<E> value = sums[r][j] + (args.accumulate ? load_unaligned(to) : bias);
                store_unaligned(to, value);
                finite.include(value);
            } else {
                const Vec<E> value = sums[r][j] + (args.accumulate ? load_partial(to, count) : bias);
                store_partial(to, value, count);
                finite.include(keep_partial(value, count));  // loading them again would wait for the store
            }
        }
    }
    test = finite;
}

// Some rows, cut into blocks of equal width. Where nothing is added, a last vector with empty lanes is done again from
// further left instead.
template <class E, int size, int rows, int... col>
TRICONV_INLINE void filter_blocks(const FilterArgs<E>& args, const E* in, E* out, FiniteTest<E>& test,
                                  std::integer_sequence<int, col...>) {
    using Block = void (*)(const FilterArgs<E>&, const E*, E*, std::ptrdiff_t, int, FiniteTest<E>&);
    const std::int64_t vectors = (args.count + lanes<E> - 1) / lanes<E>;
    const auto tail = static_cast<int>(args.count - (vectors - 1) * lanes<E>);
    const bool again = tail < lanes<E> && vectors > 1 && !args.accumulate;
    static constexpr Block by_cols[] = {filter_block<E, size, rows, col + 1>...};
    for_equal_parts(vectors, sizeof...(col), [&](std::int64_t first, int cols) {
        const bool last = first + cols == vectors;
        by_cols[cols - 1](args, in + first * lanes<E>, out + first * lanes<E>,
                          (cols - 1) * lanes<E> - (last && again ? lanes<E> - tail : 0),
                          last && !again ? tail : lanes<E>, test);
    });
}

template <class E, int size, int rows>
void filter_some_rows(const FilterArgs<E>& args, const E* in, E* out, FiniteTest<E>& test) {
    constexpr int cols = (size == tap_vectors ? tap_vector_cols : filter_cols)[rows - 1];
    filter_blocks<E, size, rows>(args, in, out, test, std::make_integer_sequence<int, cols>());
}

template <class E>
using FilterRows = void (*)(const FilterArgs<E>&, const E*, E*, FiniteTest<E>&);

// Blocks of four rows, of squares of few taps: six rows of them took longer.
template <class E>
TRICONV_INLINE FilterRows<E> four_rows_of_square(const FilterArgs<E>& args) {
    return FilterTaps<3>::fit(args)   ? filter_some_rows<E, 3, 4>
           : FilterTaps<5>::fit(args) ? filter_some_rows<E, 5, 4>
           : FilterTaps<7>::fit(args) ? filter_some_rows<E, 7, 4>
                                      : nullptr;
}

// As many outputs as fill whole lane vectors, since others would meet what is behind the samples; how many.
template <class E, int... i>
TRICONV_INLINE std::int64_t filter_by_tap_vectors(const FilterArgs<E>& args, FiniteTest<E>& test,
                                                  std::integer_sequence<int, i...>) {
    static constexpr FilterRows<E> some_rows[] = {filter_some_rows<E, tap_vectors, i + 1>...};
    const bool last_overlaps = args.count > lanes<E> && !args.accumulate;
    FilterArgs<E> whole = args;
    if (!last_overlaps) whole.count -= args.count % lanes<E>;
    E taps[most_tap_vectors + 2 * lanes<E>] = {};  // backwards, between zeros
    std::reverse_copy(args.w, args.w + args.taps_x, taps + lanes<E>);
    whole.w = taps + lanes<E> + args.taps_x - 1;
    for_equal_parts(whole.count > 0 ? args.rows : 0, sizeof...(i), [&](std::int64_t first, int rows) {
        some_rows[rows - 1](whole, args.in + first * args.in_row, args.out + first * args.out_row, test);
    });
    return whole.count;
}

template <class E, int... i>
TRICONV_INLINE void filter_all_rows(const FilterArgs<E>& args, FiniteTest<E>& test, std::integer_sequence<int, i...>) {
    FilterRows<E> some_rows[] = {filter_some_rows<E, 0, i + 1>...};
    static_assert(filter_rows >= 4);
    int most_rows = std::min(filter_rows, args.taps_y);
    if (const auto four_rows = four_rows_of_square(args)) {
        most_rows = 4;
        some_rows[most_rows - 1] = four_rows;
    }
    for_equal_parts(args.rows, most_rows, [&](std::int64_t first, int rows) {
        some_rows[rows - 1](args, args.in + first * args.in_row, args.out + first * args.out_row, test);
    });
}

// Outputs in front of the first whose samples begin a cache line in every row; none if that cannot be, or is of no use: samples
// of neighbouring taps are not apart by lines, few outputs are not worth another block. Where sums are added to, a last vector
// cannot overlap the one before, and after such outputs would read further than `count` of them do.
template <class E>
TRICONV_INLINE std::int64_t outputs_before_line(const FilterArgs<E>& args) {
    constexpr std::uintptr_t line = 64;
    const std::int64_t before =
        static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(args.in) % line / sizeof(E));
    const bool all_rows = args.in_row * sizeof(E) % line == 0;
    const bool of_use = args.taps_x == 1 && args.taps_y > 1 && args.count >= 16 * lanes<E>;
    return of_use && all_rows && !args.accumulate ? before : 0;
}

template <class E>
bool filter(const FilterArgs<E>& args) {
    FiniteTest<E> test;
    FilterArgs<E> rest = args;
    const auto advance = [&](std::int64_t count) {
        rest.in += count;
        rest.out += count;
        rest.count -= count;
    };
    const auto all_rows = [&](const FilterArgs<E>& some) {
        filter_all_rows(some, test, std::make_integer_sequence<int, filter_rows>());
    };
    if (args.taps_y == 1 && args.in_tap == 1 && args.taps_x >= fewest_tap_vectors && args.taps_x <= most_tap_vectors)
        advance(filter_by_tap_vectors(args, test,
                                      std::make_integer_sequence<int, static_cast<int>(std::size(tap_vector_cols))>()));
    if (const std::int64_t count = outputs_before_line(rest)) {
        FilterArgs<E> before = rest;
        before.count = count;
        all_rows(before);
        advance(count);
    }
    if (rest.count > 0) all_rows(rest);
    return test.failed(lanes<E>);
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
