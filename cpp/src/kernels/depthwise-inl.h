// Direct depthwise convolution, lanes = channels (contract: DepthwiseArgs).
//
// Every multiplication needs a lane vector of the input of its own, so two loads per cycle are the limit: a block of
// outputs (forward) or of taps (weight_grad) shares the other operand. Sums are formed in blocks of bounded length
// before they are added to the result, so that 31 x 31 taps or long rows cost no accuracy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "../kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

#if TRICONV_VECTOR_BYTES == 64 || defined(__aarch64__)  // 32 registers
inline constexpr int depthwise_outputs = 12, depthwise_taps = 8;
#else
inline constexpr int depthwise_outputs = 8, depthwise_taps = 4;
#endif
inline constexpr int depthwise_tap_block = 48;   // taps summed before they are added to out
inline constexpr int depthwise_row_block = 256;  // products summed before they are added to dw

// Cuts [0, count) into the fewest parts of at most `largest`, as equal as can be, and calls part(first, size).
template <class Part>
TRICONV_INLINE void for_equal_parts(std::int64_t count, int largest, const Part& part) {
    const std::int64_t parts = (count + largest - 1) / largest;
    for (std::int64_t k = 0, first = 0; k < parts; ++k) {
        const std::int64_t size = (count - first + (parts - k) - 1) / (parts - k);
        part(first, static_cast<int>(size));
        first += size;
    }
}

// `outputs` outputs from `first` on.
template <class E, int outputs>
void depthwise_forward_block(const DepthwiseArgs<E>& args, std::int64_t first) {
    E* out = args.out + first * lanes<E>;
    bool accumulate = args.accumulate;
    int tap = 0;
    do {  // at least once: without taps the result is zero
        const int tap_end = std::min(tap + depthwise_tap_block, args.taps);
        Vec<E> sums[outputs] = {};
        for (; tap < tap_end; ++tap) {
            const E* in = args.in + args.tap_offset[tap] + first * lanes<E>;
            const Vec<E> w = load(args.w + static_cast<std::ptrdiff_t>(tap) * lanes<E>);
            TRICONV_UNROLL
            for (int i = 0; i < outputs; ++i)
                sums[i] += load(in + i * lanes<E>) * w;
        }
        TRICONV_UNROLL
        for (int i = 0; i < outputs; ++i) {
            store(out + i * lanes<E>, accumulate ? load(out + i * lanes<E>) + sums[i] : sums[i]);
        }
        accumulate = true;
    } while (tap < args.taps);
}

template <class E, int... shape>
TRICONV_INLINE void depthwise_forward_row(const DepthwiseArgs<E>& args, std::integer_sequence<int, shape...>) {
    static constexpr void (*blocks[])(const DepthwiseArgs<E>&,
                                      std::int64_t) = {depthwise_forward_block<E, shape + 1>...};
    for_equal_parts(args.count, depthwise_outputs,
                    [&](std::int64_t first, int outputs) { blocks[outputs - 1](args, first); });
}

template <class E>
void depthwise_forward(const DepthwiseArgs<E>& args) {
    constexpr auto shapes = std::make_integer_sequence<int, depthwise_outputs>();
    depthwise_forward_row<E>(args, shapes);
}

// `taps` taps from first_tap on, over i in [first, last).
template <class E, int taps>
void depthwise_weight_grad_block(const DepthwiseArgs<E>& args, std::int64_t first_tap, std::int64_t first,
                                 std::int64_t last) {
    constexpr int partial_sums = std::max(2, 8 / taps);
    const E* in[taps];
    TRICONV_UNROLL
    for (int tap = 0; tap < taps; ++tap)
        in[tap] = args.in + args.tap_offset[first_tap + tap];
    Vec<E> sums[partial_sums][taps] = {};
    std::int64_t i = first;
    for (; i + partial_sums <= last; i += partial_sums) {
        TRICONV_UNROLL
        for (int k = 0; k < partial_sums; ++k) {
            const Vec<E> dy = load(args.dy + (i + k) * lanes<E>);
            TRICONV_UNROLL
            for (int tap = 0; tap < taps; ++tap)
                sums[k][tap] += load(in[tap] + (i + k) * lanes<E>) * dy;
        }
    }
    for (; i < last; ++i) {
        const Vec<E> dy = load(args.dy + i * lanes<E>);
        TRICONV_UNROLL
        for (int tap = 0; tap < taps; ++tap)
            sums[0][tap] += load(in[tap] + i * lanes<E>) * dy;
    }
    E* dw = args.out + first_tap * lanes<E>;
    TRICONV_UNROLL
    for (int tap = 0; tap < taps; ++tap) {
        TRICONV_UNROLL
        for (int k = 1; k < partial_sums; ++k)
            sums[0][tap] += sums[k][tap];
        store(dw + tap * lanes<E>, load(dw + tap * lanes<E>) + sums[0][tap]);
    }
}

template <class E, int... shape>
TRICONV_INLINE void depthwise_weight_grad_row(const DepthwiseArgs<E>& args, std::integer_sequence<int, shape...>) {
    static constexpr void (*blocks[])(const DepthwiseArgs<E>&, std::int64_t, std::int64_t,
                                      std::int64_t) = {depthwise_weight_grad_block<E, shape + 1>...};
    for_equal_parts(args.count, depthwise_row_block, [&](std::int64_t first, int size) {
        for_equal_parts(args.taps, depthwise_taps, [&](std::int64_t first_tap, int taps) {
            blocks[taps - 1](args, first_tap, first, first + size);
        });
    });
}

template <class E>
void depthwise_weight_grad(const DepthwiseArgs<E>& args) {
    constexpr auto shapes = std::make_integer_sequence<int, depthwise_taps>();
    depthwise_weight_grad_row<E>(args, shapes);
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
