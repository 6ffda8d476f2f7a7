// One row of pixels between a user's strided array and lane vectors (contract: RowArgs).
//
// Three ways across: lanes contiguous in the user's array (channels last), pixels contiguous or every second one (channels
// first, and tiles as lanes: transposed in registers, `lanes` x `lanes` at a time), anything else one by one. The user's
// array is aligned to its element only, and no byte of it outside the addressed elements is touched: rows end at the
// end of the array, and elements between those written may belong to another thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "../kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

// ---- transposition --------------------------------------------------------------------------------------------------

// Elements of 128 bits: shuffles within them are single instructions in every instruction set.
template <class E>
inline constexpr int inner_lanes = 16 / static_cast<int>(sizeof(E));

// Shuffle index for element j: in each group of `width` blocks the even blocks of a, then those of b (odd: the odd).
constexpr int deinterleave_index(int vector_lanes, int block, int width, bool odd, int j) {
    const int group = j / block / width, k = j / block % width, half = width / 2;
    const int from = group * width + 2 * (k % half) + (odd ? 1 : 0);
    return (k < half ? 0 : vector_lanes) + from * block + j % block;
}

template <class E, int block, int width, bool odd, int... j>
TRICONV_INLINE Vec<E> deinterleave(Vec<E> a, Vec<E> b, std::integer_sequence<int, j...>) {
    return __builtin_shufflevector(a, b, deinterleave_index(lanes<E>, block, width, odd, j)...);
}
template <class E, int block, int width>
TRICONV_INLINE Vec<E> even_blocks(Vec<E> a, Vec<E> b) {
    return deinterleave<E, block, width, false>(a, b, std::make_integer_sequence<int, lanes<E>>());
}
template <class E, int block, int width>
TRICONV_INLINE Vec<E> odd_blocks(Vec<E> a, Vec<E> b) {
    return deinterleave<E, block, width, true>(a, b, std::make_integer_sequence<int, lanes<E>>());
}

// Transposes the width x width matrices whose entries are blocks of elements and whose rows are rows[i * stride].
template <class E, int block, int width>
TRICONV_INLINE void transpose_blocks(Vec<E>* rows, int stride) {
    static_assert(width == 1 || width == 2 || width == 4);
    if constexpr (width == 2) {
        const Vec<E> even = even_blocks<E, block, width>(rows[0], rows[stride]);
        rows[stride] = odd_blocks<E, block, width>(rows[0], rows[stride]);
        rows[0] = even;
    } else if constexpr (width == 4) {
        const Vec<E> even01 = even_blocks<E, block, width>(rows[0], rows[stride]);
        const Vec<E> odd01 = odd_blocks<E, block, width>(rows[0], rows[stride]);
        const Vec<E> even23 = even_blocks<E, block, width>(rows[2 * stride], rows[3 * stride]);
        const Vec<E> odd23 = odd_blocks<E, block, width>(rows[2 * stride], rows[3 * stride]);
        rows[0] = even_blocks<E, block, width>(even01, even23);
        rows[stride] = even_blocks<E, block, width>(odd01, odd23);
        rows[2 * stride] = odd_blocks<E, block, width>(even01, even23);
        rows[3 * stride] = odd_blocks<E, block, width>(odd01, odd23);
    }
}

template <class E>
TRICONV_INLINE void transpose(Vec<E> (&rows)[lanes<E>]) {
    constexpr int inner = inner_lanes<E>, outer = lanes<E> / inner;
    TRICONV_UNROLL
    for (int i = 0; i < outer; ++i)
        transpose_blocks<E, 1, inner>(rows + i * inner, 1);
    TRICONV_UNROLL
    for (int i = 0; i < inner; ++i)
        transpose_blocks<E, inner, outer>(rows + i, inner);
}

template <class E>
void transpose_squares(const TransposeArgs<E>& args) {
    for (int square = 0; square < args.count; ++square) {
        const E* in = args.in + square * args.in_step;
        E* out = args.out + square * args.out_step;
        Vec<E> rows[lanes<E>];
        TRICONV_UNROLL
        for (int i = 0; i < lanes<E>; ++i)
            rows[i] = load(in + i * args.in_stride);
        transpose<E>(rows);
        TRICONV_UNROLL
        for (int i = 0; i < lanes<E>; ++i)
            store(out + i * args.out_stride, rows[i]);
    }
}

// ---- read -----------------------------------------------------------------------------------------------------------

template <class E>
void read_channels_last(const RowArgs<E>& args) {
    if (args.lane_count == lanes<E>) {
        for (std::int64_t i = 0; i < args.count; ++i) {
            store(args.lanes + i * lanes<E>, load_unaligned(args.source + i * args.pixel_stride));
        }
    } else {
        for (std::int64_t i = 0; i < args.count; ++i) {
            store(args.lanes + i * lanes<E>, load_partial(args.source + i * args.pixel_stride, args.lane_count));
        }
    }
}

template <class E, int... j>
TRICONV_INLINE Vec<E> every_second(Vec<E> front, Vec<E> back, std::integer_sequence<int, j...>) {
    return __builtin_shufflevector(front, back, (2 * j < lanes<E> ? 2 * j : 2 * j + 1)...);
}

// `count` pixels of one channel, 0 <= count <= lanes, zeros behind them. whole: count is lanes.
template <class E, int pixel_stride, bool whole>
TRICONV_INLINE Vec<E> load_pixels(const E* p, int count) {
    static_assert(pixel_stride == 1 || pixel_stride == 2);
    if constexpr (pixel_stride == 1) {
        return whole ? load_unaligned(p) : load_partial(p, count);
    } else {
        // Elements 0, 2 ... 2 count - 2. The second load starts at lanes - 1 so as to end with the last of them.
        const int span = 2 * count - 1;
        const Vec<E> front = whole ? load_unaligned(p) : load_partial(p, std::clamp(span, 0, lanes<E>));
        const Vec<E> back = whole              ? load_unaligned(p + lanes<E> - 1)
                            : span >= lanes<E> ? load_partial(p + lanes<E> - 1, span - lanes<E> + 1)
                                               : Vec<E>{};
        return every_second<E>(front, back, std::make_integer_sequence<int, lanes<E>>());
    }
}

// The value of of_offset(offset) for a lane that is in use, else `otherwise`; `scattered`: args.lane_offset is given.
// live_lanes: args.lane_count rounded up to inner_lanes, so that the shuffles of lanes never in use fall away.
template <int live_lanes, bool scattered, class E, class Value, class OfOffset>
TRICONV_INLINE Value with_lane(const RowArgs<E>& args, int lane, Value otherwise, const OfOffset& of_offset) {
    if (lane > live_lanes - inner_lanes<E> && lane >= args.lane_count) return otherwise;
    if constexpr (scattered) {
        return args.lane_offset[lane] != absent_lane ? of_offset(args.lane_offset[lane]) : otherwise;
    } else {
        return of_offset(lane * args.lane_stride);
    }
}

// Each row is given a value once: conditional assignments would keep the array in memory.
template <class E, int pixel_stride, int live_lanes, bool scattered, bool whole>
TRICONV_INLINE void read_pixels(const RowArgs<E>& args, std::int64_t first, int count) {
    Vec<E> rows[lanes<E>];
    const E* source = args.source + first * pixel_stride;
    TRICONV_UNROLL
    for (int lane = 0; lane < live_lanes; ++lane)
        rows[lane] = with_lane<live_lanes, scattered>(args, lane, Vec<E>{}, [&](std::ptrdiff_t offset) {
            return load_pixels<E, pixel_stride, whole>(source + offset, count);
        });
    TRICONV_UNROLL
    for (int lane = live_lanes; lane < lanes<E>; ++lane)
        rows[lane] = Vec<E>{};
    transpose<E>(rows);
    E* out = args.lanes + first * lanes<E>;
    TRICONV_UNROLL
    for (int i = 0; i < lanes<E>; ++i) {
        if (whole || i < count) store(out + i * lanes<E>, rows[i]);
    }
}

template <class E, int pixel_stride, int live_lanes, bool scattered>
void read_channels_first(const RowArgs<E>& args) {
    std::int64_t i = 0;
    for (; i + lanes<E> <= args.count; i += lanes<E>)
        read_pixels<E, pixel_stride, live_lanes, scattered, true>(args, i, lanes<E>);
    if (i < args.count)
        read_pixels<E, pixel_stride, live_lanes, scattered, false>(args, i, static_cast<int>(args.count - i));
}

// Offset of a lane, or absent_lane.
template <class E>
TRICONV_INLINE std::ptrdiff_t lane_offset(const RowArgs<E>& args, int lane) {
    return args.lane_offset != nullptr ? args.lane_offset[lane] : lane * args.lane_stride;
}

template <class E>
void read_elements(const RowArgs<E>& args) {
    for (std::int64_t i = 0; i < args.count; ++i) {
        E* out = args.lanes + i * lanes<E>;
        const E* source = args.source + i * args.pixel_stride;
        store(out, Vec<E>{});
        for (int lane = 0; lane < args.lane_count; ++lane) {
            const std::ptrdiff_t offset = lane_offset(args, lane);
            if (offset != absent_lane) out[lane] = source[offset];
        }
    }
}

// Whole lane vectors, whose ends the next ones overwrite; only the last one must end with the plane.
template <class E, int step>
void read_padded_rows(const PaddedRowsArgs<E>& args) {
    const E* const end = args.to + args.rows * args.to_row;
    const auto write = [&](E* to, Vec<E> value) {
        if (end - to >= lanes<E>)
            store_unaligned(to, value);
        else
            store_partial(to, value, static_cast<int>(end - to));
    };
    const E* from = args.from;
    for (E* row = args.to; row < end; row += args.to_row, from += args.from_row) {
        for (std::int64_t x = 0; x < args.before; x += lanes<E>)
            write(row + x, Vec<E>{});
        E* const samples = row + args.before;
        std::int64_t x = 0;
        for (; x + lanes<E> <= args.count; x += lanes<E>)
            write(samples + x, load_pixels<E, step, true>(from + x * step, lanes<E>));
        if (x < args.count) {
            write(samples + x, load_pixels<E, step, false>(from + x * step, static_cast<int>(args.count - x)));
            x += lanes<E>;
        }
        for (; args.before + x < args.to_row; x += lanes<E>)
            write(samples + x, Vec<E>{});
    }
}

template <class E>
void read_padded_rows(const PaddedRowsArgs<E>& args) {
    if (args.from_step == 2) return read_padded_rows<E, 2>(args);
    read_padded_rows<E, 1>(args);
}

// ---- write ----------------------------------------------------------------------------------------------------------

// Collects whether values are finite: x * 0 is zero for a finite x, else NaN, and NaN stays in a sum.
template <class E>
struct FiniteTest {
    Vec<E> sum{};
    TRICONV_INLINE void include(Vec<E> value) { sum += value * E(0); }
    TRICONV_INLINE bool failed(int lane_count) const {
        for (int lane = 0; lane < lane_count; ++lane) {
            if (!(sum[lane] == E(0))) return true;
        }
        return false;
    }
};

// Without a bias -0, the number that changes nothing when it is added, not even the sign of a zero.
template <class E>
TRICONV_INLINE Vec<E> bias_or_nothing(const RowArgs<E>& args) {
    return args.bias != nullptr ? load_partial(args.bias, args.lane_count) : broadcast(E(-0.0));
}

template <class E>
bool write_channels_last(const RowArgs<E>& args) {
    const Vec<E> bias = bias_or_nothing(args);
    FiniteTest<E> test;
    const bool whole = args.lane_count == lanes<E>;
    for (std::int64_t i = 0; i < args.count; ++i) {
        E* destination = args.destination + i * args.pixel_stride;
        Vec<E> value = load_unaligned(args.lanes + i * lanes<E>) + bias;
        if (whole) {
            if (args.add) value += load_unaligned(destination);
            store_unaligned(destination, value);
        } else {
            if (args.add) value += load_partial(destination, args.lane_count);
            store_partial(destination, value, args.lane_count);
        }
        test.include(value);
    }
    return test.failed(args.lane_count);
}

// Elements first, first, first + 1, first + 1 ... of a vector: those at even places are what store_partial<2> writes.
template <class E, int first, int... j>
TRICONV_INLINE Vec<E> twice_each(Vec<E> value, std::integer_sequence<int, j...>) {
    return __builtin_shufflevector(value, value, (first + j / 2)...);
}

// Every second pixel of a row, 0 <= count <= lanes of them; those between are neither read nor written.
template <class E>
TRICONV_INLINE Vec<E> load_apart(const E* p, int count) {
    constexpr int half = lanes<E> / 2;
    const Vec<E> front = load_partial<2>(p, std::min(count, half));
    const Vec<E> back = count > half ? load_partial<2>(p + lanes<E>, count - half) : Vec<E>{};
    return even_blocks<E, 1, lanes<E>>(front, back);
}
template <class E>
TRICONV_INLINE void store_apart(E* p, Vec<E> value, int count) {
    constexpr int half = lanes<E> / 2;
    constexpr auto all = std::make_integer_sequence<int, lanes<E>>();
    store_partial<2>(p, twice_each<E, 0>(value, all), std::min(count, half));
    if (count > half) store_partial<2>(p + lanes<E>, twice_each<E, half>(value, all), count - half);
}

template <class E, int pixel_stride, int live_lanes, bool scattered, bool whole>
TRICONV_INLINE void write_pixels(const RowArgs<E>& args, Vec<E> bias, FiniteTest<E>& test, std::int64_t first,
                                 int count) {
    static_assert(pixel_stride == 1 || pixel_stride == 2);
    Vec<E> rows[lanes<E>];
    const E* in = args.lanes + first * lanes<E>;
    TRICONV_UNROLL
    for (int i = 0; i < lanes<E>; ++i)
        rows[i] = whole || i < count ? load(in + i * lanes<E>) + bias : Vec<E>{};
    transpose<E>(rows);
    E* destination = args.destination + first * pixel_stride;
    TRICONV_UNROLL
    for (int lane = 0; lane < live_lanes; ++lane) {
        const Vec<E> written = with_lane<live_lanes, scattered>(args, lane, Vec<E>{}, [&](std::ptrdiff_t offset) {
            E* out = destination + offset;
            Vec<E> value = rows[lane];
            if constexpr (pixel_stride == 2) {
                if (args.add) value += load_apart(out, count);
                store_apart<E>(out, value, count);
            } else if constexpr (whole) {
                if (args.add) value += load_unaligned(out);
                store_unaligned(out, value);
            } else {
                if (args.add) value += load_partial(out, count);
                store_partial(out, value, count);
            }
            return value;
        });
        test.include(written);
    }
}

// The line of the cache with a pixel of each lane. More lanes are written than the processor foresees, and a store across two
// lines that it has not waits for them, and all later ones for it.
template <int live_lanes, bool scattered, class E>
TRICONV_INLINE void prefetch_lanes(const RowArgs<E>& args, const E* pixel) {
    TRICONV_UNROLL
    for (int lane = 0; lane < live_lanes; ++lane) {
        const std::ptrdiff_t offset =
            with_lane<live_lanes, scattered>(args, lane, absent_lane, [](std::ptrdiff_t of_lane) { return of_lane; });
        // Not in the function above: GCC drops calls of what does nothing but prefetch.
        if (offset != absent_lane) __builtin_prefetch(pixel + offset, 1);
    }
}

template <class E, int pixel_stride, int live_lanes, bool scattered>
bool write_channels_first(const RowArgs<E>& args) {
    constexpr int line = 64 / sizeof(E);
    const Vec<E> bias = bias_or_nothing(args);
    FiniteTest<E> test;  // here its lanes are pixels; those behind a partial block are zero
    prefetch_lanes<live_lanes, scattered>(args, args.destination);
    prefetch_lanes<live_lanes, scattered>(args, args.destination + line);
    std::int64_t i = 0;
    for (; i + lanes<E> <= args.count; i += lanes<E>) {
        for (int ahead = 2; ahead < 2 + pixel_stride; ++ahead)
            prefetch_lanes<live_lanes, scattered>(args, args.destination + i * pixel_stride + ahead * line);
        write_pixels<E, pixel_stride, live_lanes, scattered, true>(args, bias, test, i, lanes<E>);
    }
    if (i < args.count)
        write_pixels<E, pixel_stride, live_lanes, scattered, false>(args, bias, test, i,
                                                                    static_cast<int>(args.count - i));
    return test.failed(lanes<E>);
}

template <class E>
bool write_elements(const RowArgs<E>& args) {
    E test = 0;
    for (std::int64_t i = 0; i < args.count; ++i) {
        const E* in = args.lanes + i * lanes<E>;
        for (int lane = 0; lane < args.lane_count; ++lane) {
            const std::ptrdiff_t offset = lane_offset(args, lane);
            if (offset == absent_lane) continue;
            E* destination = args.destination + i * args.pixel_stride + offset;
            E value = in[lane];
            if (args.bias != nullptr) value += args.bias[lane];
            if (args.add) value += *destination;
            *destination = value;
            test += value * E(0);
        }
    }
    return !(test == E(0));
}

// ---- choice ---------------------------------------------------------------------------------------------------------

// Calls action(live_lanes), a std::integral_constant, for the multiple of inner_lanes that holds lane_count.
template <class E, int live_lanes = inner_lanes<E>, class Action>
TRICONV_INLINE auto with_live_lanes(int lane_count, const Action& action) {
    if constexpr (live_lanes < lanes<E>) {
        if (lane_count > live_lanes) return with_live_lanes<E, live_lanes + inner_lanes<E>>(lane_count, action);
    }
    return action(std::integral_constant<int, live_lanes>());
}

template <class E>
void read_row(const RowArgs<E>& args) {
    if (args.lane_offset != nullptr) {
        if (args.pixel_stride == 1)
            read_channels_first<E, 1, lanes<E>, true>(args);
        else if (args.pixel_stride == 2)
            read_channels_first<E, 2, lanes<E>, true>(args);
        else
            read_elements(args);
    } else if (args.lane_stride == 1 || args.lane_count <= 1) {
        read_channels_last(args);
    } else if (args.pixel_stride == 1) {
        with_live_lanes<E>(args.lane_count, [&](auto live_lanes) {
            read_channels_first<E, 1, decltype(live_lanes)::value, false>(args);
        });
    } else if (args.pixel_stride == 2) {
        with_live_lanes<E>(args.lane_count, [&](auto live_lanes) {
            read_channels_first<E, 2, decltype(live_lanes)::value, false>(args);
        });
    } else {
        read_elements(args);
    }
}

template <class E>
bool write_row(const RowArgs<E>& args) {
    if (args.lane_offset != nullptr) {
        if (args.pixel_stride == 1) return write_channels_first<E, 1, lanes<E>, true>(args);
        if (args.pixel_stride == 2) return write_channels_first<E, 2, lanes<E>, true>(args);
        return write_elements(args);
    }
    if (args.lane_stride == 1 || args.lane_count <= 1) return write_channels_last(args);
    if (args.pixel_stride == 1) {
        return with_live_lanes<E>(args.lane_count, [&](auto live_lanes) {
            return write_channels_first<E, 1, decltype(live_lanes)::value, false>(args);
        });
    }
    if (args.pixel_stride == 2) {
        return with_live_lanes<E>(args.lane_count, [&](auto live_lanes) {
            return write_channels_first<E, 2, decltype(live_lanes)::value, false>(args);
        });
    }
    return write_elements(args);
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
