// Direct depthwise convolution (contract: DepthwiseArgs).
//
// A block of neighbouring outputs and a run of neighbouring taps meet in registers: each lane vector of the input is
// loaded once for all taps of the run that read it, (outputs + taps - 1) loads for outputs x taps multiplications.
// Sums are formed in blocks of bounded length before they are added to the result, so that 31 x 31 taps or long rows
// cost no accuracy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "../kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

#if TRICONV_VECTOR_BYTES == 64 || defined(__aarch64__)  // 32 registers
inline constexpr int depthwise_outputs = 14, depthwise_rows = 8;
#else
inline constexpr int depthwise_outputs = 8, depthwise_rows = 4;
#endif
inline constexpr int depthwise_tap_block = 64;   // taps summed before they are added to out
inline constexpr int depthwise_row_block = 256;  // products summed before they are added to dw

// Calls action(taps), a std::integral_constant, for a run of `count` taps.
template <int taps = 1, class Action>
TRICONV_INLINE void with_run_taps(int count, const Action& action) {
    if constexpr (taps < most_run_taps) {
        if (count > taps) return with_run_taps<taps + 1>(count, action);
    }
    action(std::integral_constant<int, taps>());
}

// The same address, but not to the compiler: GCC else merges what the cases of with_run_taps have in common, all loads
// first, which are more than there are registers.
template <int taps, class E>
TRICONV_INLINE const E* apart(const E* address) {
    asm("" : "+r"(address) : "i"(taps));
    return address;
}

// ---- forward --------------------------------------------------------------------------------------------------------

// The next `outputs` outputs, the taps of one run.
template <class E, int taps, int outputs>
TRICONV_INLINE void add_run(const E* in, std::ptrdiff_t in_step, const E* w, Vec<E> (&sums)[outputs]) {
    in = apart<taps>(in);
    Vec<E> weights[taps];
    TRICONV_UNROLL
    for (int k = 0; k < taps; ++k)
        weights[k] = in_register<E>(load(w + k * lanes<E>));
    TRICONV_UNROLL
    for (int j = 0; j < outputs + taps - 1; ++j) {
        const Vec<E> value = in_register<E>(load(in));
        in += in_step;
        TRICONV_UNROLL
        for (int k = 0; k < taps; ++k) {
            if (j >= k && j - k < outputs) sums[j - k] += value * weights[k];
        }
    }
}

// `outputs` outputs from `first` on.
template <class E, int outputs>
void depthwise_forward_block(const DepthwiseArgs<E>& args, std::int64_t first) {
    const E* const in = args.in + first * args.in_step;
    E* const out = args.out + first * args.out_step;
    const std::ptrdiff_t in_step = args.in_step, out_step = args.out_step;
    const E* w = args.w;
    const TapRun* run = args.runs;
    const TapRun* const end = run + args.run_count;
    bool accumulate = args.accumulate;
    do {  // at least once: without taps the result is zero
        Vec<E> sums[outputs] = {};
        for (int taps = 0; run != end && (taps += run->taps) <= depthwise_tap_block; ++run) {
            with_run_taps(run->taps, [&](auto run_taps) {
                add_run<E, decltype(run_taps)::value>(in + run->offset, in_step, w, sums);
            });
            w += run->taps * lanes<E>;
        }
        TRICONV_UNROLL
        for (int i = 0; i < outputs; ++i) {
            E* const to = out + i * out_step;
            store(to, accumulate ? load(to) + sums[i] : sums[i]);
        }
        accumulate = true;
    } while (run != end);
}

template <class E, int... shape>
TRICONV_INLINE void depthwise_forward_blocks(const DepthwiseArgs<E>& args, std::integer_sequence<int, shape...>) {
    static constexpr void (*blocks[])(const DepthwiseArgs<E>&,
                                      std::int64_t) = {depthwise_forward_block<E, shape + 1>...};
    for_equal_parts(args.count, depthwise_outputs,
                    [&](std::int64_t first, int outputs) { blocks[outputs - 1](args, first); });
}

template <class E>
void depthwise_forward(const DepthwiseArgs<E>& args) {
    constexpr auto shapes = std::make_integer_sequence<int, depthwise_outputs>();
    depthwise_forward_blocks<E>(args, shapes);
}

// ---- weight_grad ----------------------------------------------------------------------------------------------------

// The taps of one run over the next `rows` rows of dy. Two sets of sums: one would wait for its additions.
template <class E, int rows, int taps>
TRICONV_INLINE void add_rows(const E* in, std::ptrdiff_t in_step, const E* dy, std::ptrdiff_t dy_step,
                             Vec<E> (&sums)[2][taps]) {
    in = apart<taps>(in);
    Vec<E> dys[rows];
    TRICONV_UNROLL
    for (int i = 0; i < rows; ++i)
        dys[i] = in_register<E>(load(dy + i * dy_step));
    TRICONV_UNROLL
    for (int j = 0; j < rows + taps - 1; ++j) {
        const Vec<E> value = in_register<E>(load(in));
        in += in_step;
        TRICONV_UNROLL
        for (int k = 0; k < taps; ++k) {
            if (j >= k && j - k < rows) sums[(j - k) % 2][k] += value * dys[j - k];
        }
    }
}

// All that is left in blocks of `rows` rows, then of half as many ...
template <class E, int rows, int taps>
TRICONV_INLINE void add_all_rows(const DepthwiseArgs<E>& args, std::int64_t count, const E* in, const E* dy,
                                 Vec<E> (&sums)[2][taps]) {
    for (; count >= rows; count -= rows) {
        add_rows<E, rows>(in, args.in_step, dy, args.dy_step, sums);
        in += rows * args.in_step;
        dy += rows * args.dy_step;
    }
    if constexpr (rows > 1) add_all_rows<E, rows / 2>(args, count, in, dy, sums);
}

template <class E, int taps>
TRICONV_INLINE void depthwise_weight_grad_run(const DepthwiseArgs<E>& args, std::int64_t count, const E* in,
                                              const E* dy, E* dw) {
    Vec<E> sums[2][taps] = {};
    add_all_rows<E, depthwise_rows>(args, count, in, dy, sums);
    TRICONV_UNROLL
    for (int k = 0; k < taps; ++k) {
        store(dw + k * lanes<E>, load(dw + k * lanes<E>) + (sums[0][k] + sums[1][k]));
    }
}

template <class E>
void depthwise_weight_grad(const DepthwiseArgs<E>& args) {
    for_equal_parts(args.count, depthwise_row_block, [&](std::int64_t first, int size) {
        E* dw = args.out;
        for (const TapRun* run = args.runs; run != args.runs + args.run_count; ++run) {
            with_run_taps(run->taps, [&](auto taps) {
                depthwise_weight_grad_run<E, decltype(taps)::value>(
                    args, size, args.in + run->offset + first * args.in_step, args.dy + first * args.dy_step, dw);
            });
            dw += run->taps * lanes<E>;
        }
    });
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
