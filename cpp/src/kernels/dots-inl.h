// Dot products of planes (contract: DotArgs).
//
// A lane vector of a, once loaded, serves a block of dots; few of them keep several sums each, since an addition would
// wait for the one before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "../kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

constexpr int sums_of_dot(int dots) {
    return dots >= 6 ? 1 : dots >= 3 ? 2 : 4;
}

template <class E, int dots>
void dot_block(const DotArgs<E>& args, int first) {
    constexpr int sets = sums_of_dot(dots);
    std::ptrdiff_t offset[dots];
    TRICONV_UNROLL
    for (int t = 0; t < dots; ++t)
        offset[t] = args.b_offset[first + t];
    Vec<E> sums[sets][dots] = {};
    const std::int64_t count = args.count;
    for (std::int64_t y = 0; y < args.rows; ++y) {
        const E* const a = args.a + y * args.a_row;
        const E* const b = args.b + y * args.b_row;
        std::int64_t x = 0;
        for (; x + sets * lanes<E> <= count; x += sets * lanes<E>) {
            TRICONV_UNROLL
            for (int s = 0; s < sets; ++s) {
                const Vec<E> value = load_unaligned(a + x + s * lanes<E>);
                TRICONV_UNROLL
                for (int t = 0; t < dots; ++t)
                    sums[s][t] += value * load_unaligned(b + offset[t] + x + s * lanes<E>);
            }
        }
        for (; x < count; x += lanes<E>) {
            const auto left = static_cast<int>(count - x < lanes<E> ? count - x : lanes<E>);
            const Vec<E> value = load_partial(a + x, left);
            TRICONV_UNROLL
            for (int t = 0; t < dots; ++t)
                sums[0][t] += value * load_partial(b + offset[t] + x, left);
        }
    }
    TRICONV_UNROLL
    for (int t = 0; t < dots; ++t) {
        Vec<E> sum = sums[0][t];
        TRICONV_UNROLL
        for (int s = 1; s < sets; ++s)
            sum += sums[s][t];
        E total = 0;
        for (int lane = 0; lane < lanes<E>; ++lane)
            total += sum[lane];
        args.sums[first + t] = total;
    }
}

template <class E, int... dots>
TRICONV_INLINE void dot_blocks(const DotArgs<E>& args, std::integer_sequence<int, dots...>) {
    static constexpr void (*blocks[])(const DotArgs<E>&, int) = {dot_block<E, dots + 1>...};
    for_equal_parts(args.dots, sizeof...(dots),
                    [&](std::int64_t first, int size) { blocks[size - 1](args, static_cast<int>(first)); });
}

template <class E>
void dots(const DotArgs<E>& args) {
    constexpr int most_dots = 8;
    dot_blocks<E>(args, std::make_integer_sequence<int, most_dots>());
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
