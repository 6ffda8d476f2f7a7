// Dot products of planes (contract: DotArgs).
//
// A block of planes of a meets a block of those of b: a lane vector of either, once loaded, serves as many dots as the other
// has planes. Small blocks keep several sums of each dot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>

#include "../kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

// Dots with each of 1, 2, ... planes of a: sums, vectors of a and one of b stay in registers.
#if TRICONV_VECTOR_BYTES == 64 || defined(__aarch64__)  // 32 registers
inline constexpr int most_dots[] = {8, 8, 8, 6, 5, 4};
#else  // 16 registers
inline constexpr int most_dots[] = {8, 6, 4};
#endif
inline constexpr int most_planes = static_cast<int>(std::size(most_dots));

// Adds lanes that are `half` apart: of u in the lanes with no bit `half`, of v in the others.
template <int half, class E, int... lane>
TRICONV_INLINE Vec<E> add_lanes(Vec<E> u, Vec<E> v, std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(u, v, (lane & half ? lanes<E> + lane : lane)...) +
           __builtin_shufflevector(u, v, (lane & half ? lanes<E> + (lane ^ half) : lane ^ half)...);
}

// The sums of the lanes of `count` vectors, to the lanes of as few.
template <class E, int count, int half = 1>
TRICONV_INLINE void sum_lanes(Vec<E>* v) {
    if constexpr (half < lanes<E>) {
        TRICONV_UNROLL
        for (int i = 0; i < count; i += 2)
            v[i / 2] =
                add_lanes<half, E>(v[i], v[i + 1 < count ? i + 1 : i], std::make_integer_sequence<int, lanes<E>>());
        sum_lanes<E, (count + 1) / 2, 2 * half>(v);
    }
}

template <class E, int planes, int dots>
struct DotBlock {
    static constexpr int sets = independent_steps(planes * dots);
    Vec<E> sums[sets][planes][dots] = {};

    template <class Load>
    TRICONV_INLINE void add(int set, const E* a, std::ptrdiff_t a_plane, const E* b,
                            const std::ptrdiff_t (&offset)[dots], const Load& load) {
        Vec<E> of_a[planes];
        TRICONV_UNROLL
        for (int p = 0; p < planes; ++p)
            of_a[p] = in_register<E>(load(a + p * a_plane));
        TRICONV_UNROLL
        for (int t = 0; t < dots; ++t) {
            const Vec<E> of_b = in_register<E>(load(b + offset[t]));
            TRICONV_UNROLL
            for (int p = 0; p < planes; ++p)
                sums[set][p][t] += of_a[p] * of_b;
        }
    }
};

template <class E, int planes, int dots>
void dot_block(const DotArgs<E>& args, std::int64_t first_plane, std::int64_t first_dot) {
    DotBlock<E, planes, dots> block;
    constexpr int sets = block.sets;
    std::ptrdiff_t offset[dots];
    TRICONV_UNROLL
    for (int t = 0; t < dots; ++t)
        offset[t] = args.b_offset[first_dot + t];
    const std::int64_t count = args.count;
    for (std::int64_t n = 0; n < args.images; ++n)
        for (std::int64_t y = 0; y < args.rows; ++y) {
            const E* const a = args.a + first_plane * args.a_plane + n * args.a_image + y * args.a_row;
            const E* const b = args.b + n * args.b_image + y * args.b_row;
            std::int64_t x = 0;
            for (; x + sets * lanes<E> <= count; x += sets * lanes<E>) {
                TRICONV_UNROLL
                for (int s = 0; s < sets; ++s)
                    block.add(s, a + x + s * lanes<E>, args.a_plane, b + x + s * lanes<E>, offset,
                              [](const E* p) { return load_unaligned(p); });
            }
            for (; x < count; x += lanes<E>) {
                const auto left = static_cast<int>(count - x < lanes<E> ? count - x : lanes<E>);
                block.add(0, a + x, args.a_plane, b + x, offset, [&](const E* p) { return load_partial(p, left); });
            }
        }
    constexpr int count_of_sums = planes * dots;
    Vec<E> totals[count_of_sums];
    TRICONV_UNROLL
    for (int i = 0; i < count_of_sums; ++i) {
        totals[i] = block.sums[0][i / dots][i % dots];
        TRICONV_UNROLL
        for (int s = 1; s < sets; ++s)
            totals[i] += block.sums[s][i / dots][i % dots];
    }
    sum_lanes<E, count_of_sums>(totals);
    double* const sums = args.sums + first_plane * args.dots + first_dot;
    const std::ptrdiff_t row = args.dots;
    TRICONV_UNROLL
    for (int i = 0; i < count_of_sums; ++i)
        sums[i / dots * row + i % dots] += static_cast<double>(totals[i / lanes<E>][i % lanes<E>]);
}

// Blocks of `planes` planes: through a table by dots.
template <class E, int planes, int... dots>
TRICONV_INLINE void dots_with(const DotArgs<E>& args, std::int64_t plane, std::integer_sequence<int, dots...>) {
    static constexpr void (*blocks[])(const DotArgs<E>&, std::int64_t,
                                      std::int64_t) = {dot_block<E, planes, dots + 1>...};
    for_equal_parts(args.dots, most_dots[planes - 1],
                    [&](std::int64_t first, int size) { blocks[size - 1](args, plane, first); });
}

template <class E, int planes = 1>
void dots_of_planes(const DotArgs<E>& args, std::int64_t plane, int count) {
    if constexpr (planes < most_planes) {
        if (count > planes) return dots_of_planes<E, planes + 1>(args, plane, count);
    }
    dots_with<E, planes>(args, plane, std::make_integer_sequence<int, most_dots[planes - 1]>());
}

// In blocks that load the fewest vectors.
template <class E>
void dots(const DotArgs<E>& args) {
    int best = 1;
    auto fewest = std::numeric_limits<std::int64_t>::max();
    for (int planes = 1; planes <= most_planes; ++planes) {
        const std::int64_t loads = (args.planes + planes - 1) / planes * args.dots +
                                   (args.dots + most_dots[planes - 1] - 1) / most_dots[planes - 1] * args.planes;
        if (loads >= fewest) continue;
        fewest = loads;
        best = planes;
    }
    for_equal_parts(args.planes, best, [&](std::int64_t first, int size) { dots_of_planes<E>(args, first, size); });
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
