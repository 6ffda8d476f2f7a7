// Lane vectors in the compiler's vector extension: the arithmetic operators come with the type, and one source serves
// SSE2, AVX2, AVX-512 and NEON. Included only by files under kernels/, once per ISA: everything here lives in the
// ISA's own namespace, else the linker could keep the AVX-512 copy of an inline function for an older machine.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(TRICONV_ISA_NAMESPACE) || !defined(TRICONV_VECTOR_BYTES)
#error "compile this through the per-ISA object libraries (TRICONV_ISA_NAMESPACE, TRICONV_VECTOR_BYTES)"
#endif

#define TRICONV_INLINE inline __attribute__((always_inline))
#define TRICONV_NOINLINE __attribute__((noinline))

// Before a loop of constant, small trip count over an array of lane vectors: unrolled fully, so that the array can live
// in registers.
#if defined(__clang__)
#define TRICONV_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TRICONV_UNROLL _Pragma("GCC unroll 32")
#endif

namespace triconv::TRICONV_ISA_NAMESPACE {

template <class E>
inline constexpr int lanes = TRICONV_VECTOR_BYTES / static_cast<int>(sizeof(E));

template <class E>
struct VecTypes;
template <>
struct VecTypes<float> {
    typedef float aligned __attribute__((vector_size(TRICONV_VECTOR_BYTES), may_alias));
    typedef float unaligned __attribute__((vector_size(TRICONV_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct VecTypes<double> {
    typedef double aligned __attribute__((vector_size(TRICONV_VECTOR_BYTES), may_alias));
    typedef double unaligned __attribute__((vector_size(TRICONV_VECTOR_BYTES), aligned(8), may_alias));
};
template <class E>
using Vec = typename VecTypes<E>::aligned;

template <class E>
TRICONV_INLINE Vec<E> load(const E* p) {
    return *reinterpret_cast<const Vec<E>*>(p);
}
template <class E>
TRICONV_INLINE void store(E* p, Vec<E> v) {
    *reinterpret_cast<Vec<E>*>(p) = v;
}
template <class E>
TRICONV_INLINE Vec<E> load_unaligned(const E* p) {
    return *reinterpret_cast<const typename VecTypes<E>::unaligned*>(p);
}
template <class E>
TRICONV_INLINE void store_unaligned(E* p, Vec<E> v) {
    *reinterpret_cast<typename VecTypes<E>::unaligned*>(p) = v;
}

template <class E>
TRICONV_INLINE Vec<E> broadcast(E value) {
    return value - Vec<E>{};  // folds to the broadcast alone: x - 0 is x, which x + 0 is not for x = -0
}

// Brings the cache line of p into L2; p may be any address.
TRICONV_INLINE void prefetch_to_l2(const void* p) {
    __builtin_prefetch(p, 0, 2);
}

// The same value, but in a register from here on: GCC else makes an unaligned load a memory operand of each use, which
// costs a load for each.
template <class E>
TRICONV_INLINE Vec<E> in_register(Vec<E> value) {
#if defined(__AVX512F__)
    asm("" : "+v"(value));
#elif defined(__SSE2__)
    asm("" : "+x"(value));
#endif
    return value;
}

// The same pointer, of whose value the compiler knows nothing: it else keeps one register for each sum of it and a stride,
// more than there are.
template <class E>
TRICONV_INLINE const E* opaque(const E* p) {
    asm("" : "+r"(p));
    return p;
}

// `count` elements, each `step` (1 or 2) from the one before, (count - 1) * step < lanes: load_partial sets the others to
// zero, as keep_partial does in a vector, store_partial leaves them alone. None behind them or between is touched: they
// may end at the last mapped byte, and another thread may be writing those between.
#if defined(__AVX512F__) && TRICONV_VECTOR_BYTES == 64
template <int step>
TRICONV_INLINE __mmask16 partial_mask(int count) {
    static_assert(step == 1 || step == 2);
    return static_cast<__mmask16>((step == 1 ? 0xffffu : 0x5555u) & ((1u << count * step) - 1));
}
template <int step = 1>
TRICONV_INLINE Vec<float> load_partial(const float* p, int count) {
    return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(partial_mask<step>(count), p));
}
template <int step = 1>
TRICONV_INLINE Vec<double> load_partial(const double* p, int count) {
    return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(partial_mask<step>(count)), p));
}
template <int step = 1>
TRICONV_INLINE void store_partial(float* p, Vec<float> v, int count) {
    _mm512_mask_storeu_ps(p, partial_mask<step>(count), reinterpret_cast<__m512>(v));
}
template <int step = 1>
TRICONV_INLINE void store_partial(double* p, Vec<double> v, int count) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(partial_mask<step>(count)), reinterpret_cast<__m512d>(v));
}
TRICONV_INLINE Vec<float> keep_partial(Vec<float> v, int count) {
    return reinterpret_cast<Vec<float>>(_mm512_maskz_mov_ps(partial_mask<1>(count), reinterpret_cast<__m512>(v)));
}
TRICONV_INLINE Vec<double> keep_partial(Vec<double> v, int count) {
    const auto mask = static_cast<__mmask8>(partial_mask<1>(count));
    return reinterpret_cast<Vec<double>>(_mm512_maskz_mov_pd(mask, reinterpret_cast<__m512d>(v)));
}
#elif defined(__AVX2__) && TRICONV_VECTOR_BYTES == 32
template <int step>
TRICONV_INLINE __m256i partial_mask(const float*, int count) {
    static_assert(step == 1 || step == 2);
    constexpr int never = 8;  // no count reaches it
    const __m256i at = step == 1 ? _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
                                 : _mm256_setr_epi32(0, never, 1, never, 2, never, 3, never);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), at);
}
template <int step>
TRICONV_INLINE __m256i partial_mask(const double*, int count) {
    static_assert(step == 1 || step == 2);
    constexpr int never = 4;
    const __m256i at = step == 1 ? _mm256_setr_epi64x(0, 1, 2, 3) : _mm256_setr_epi64x(0, never, 1, never);
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), at);
}
template <int step = 1>
TRICONV_INLINE Vec<float> load_partial(const float* p, int count) {
    return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(p, partial_mask<step>(p, count)));
}
template <int step = 1>
TRICONV_INLINE Vec<double> load_partial(const double* p, int count) {
    return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(p, partial_mask<step>(p, count)));
}
template <int step = 1>
TRICONV_INLINE void store_partial(float* p, Vec<float> v, int count) {
    _mm256_maskstore_ps(p, partial_mask<step>(p, count), reinterpret_cast<__m256>(v));
}
template <int step = 1>
TRICONV_INLINE void store_partial(double* p, Vec<double> v, int count) {
    _mm256_maskstore_pd(p, partial_mask<step>(p, count), reinterpret_cast<__m256d>(v));
}
TRICONV_INLINE Vec<float> keep_partial(Vec<float> v, int count) {
    const float* const any = nullptr;
    return reinterpret_cast<Vec<float>>(reinterpret_cast<__m256i>(v) & partial_mask<1>(any, count));
}
TRICONV_INLINE Vec<double> keep_partial(Vec<double> v, int count) {
    const double* const any = nullptr;
    return reinterpret_cast<Vec<double>>(reinterpret_cast<__m256i>(v) & partial_mask<1>(any, count));
}
#else
template <int step = 1, class E>
TRICONV_INLINE Vec<E> load_partial(const E* p, int count) {
    Vec<E> v{};
    TRICONV_UNROLL
    for (int k = 0; k < lanes<E>; k += step) {
        if (k < count * step) v[k] = p[k];
    }
    return v;
}
template <int step = 1, class E>
TRICONV_INLINE void store_partial(E* p, Vec<E> v, int count) {
    TRICONV_UNROLL
    for (int k = 0; k < lanes<E>; k += step) {
        if (k < count * step) p[k] = v[k];
    }
}
template <class V>
TRICONV_INLINE V keep_partial(V v, int count) {
    constexpr int size = static_cast<int>(sizeof(V) / sizeof(v[0]));
    TRICONV_UNROLL
    for (int k = 0; k < size; ++k) {
        if (k >= count) v[k] = 0;
    }
    return v;
}
#endif

// Steps of a reduction that go to sums of their own, so that few sums too make about 8 independent chains of additions: two
// FMA units of latency 4 want as many.
constexpr int independent_steps(int sums) {
    return sums >= 6 ? 1 : sums >= 3 ? 2 : 4;
}

// Cuts [0, count) into the fewest parts of at most `largest`, as equal as can be, and calls part(first, size).
template <class Part>
TRICONV_INLINE void for_equal_parts(std::int64_t count, int largest, const Part& part) {
    if (count <= largest) {  // without the divisions
        if (count > 0) part(std::int64_t{0}, static_cast<int>(count));
        return;
    }
    const std::int64_t parts = (count + largest - 1) / largest, size = count / parts, longer = count - parts * size;
    for (std::int64_t k = 0, first = 0; k < parts; ++k) {
        const std::int64_t length = size + (k < longer ? 1 : 0);
        part(first, static_cast<int>(length));
        first += length;
    }
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
