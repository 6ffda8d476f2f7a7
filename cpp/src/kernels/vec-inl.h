// Lane vectors in the compiler's vector extension: the arithmetic operators come with the type, and one source serves
// SSE2, AVX2, AVX-512 and NEON. Included only by files under kernels/, once per ISA: everything here lives in the
// ISA's own namespace, else the linker could keep the AVX-512 copy of an inline function for an older machine.
#pragma once

#include <cstddef>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(TRICONV_ISA_NAMESPACE) || !defined(TRICONV_VECTOR_BYTES)
#error "compile this through the per-ISA object libraries (TRICONV_ISA_NAMESPACE, TRICONV_VECTOR_BYTES)"
#endif

#define TRICONV_INLINE inline __attribute__((always_inline))

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

// The first `count` elements, 0 <= count <= lanes: load_partial sets the others to zero, store_partial leaves them
// alone. No element behind them is touched, so they may end at the last mapped byte.
// load_even and store_even: the same for elements 0, 2 ... 2 count - 2, 0 <= count <= lanes / 2; those between, too, are
// neither read nor written, as another thread may be writing them.
#if defined(__AVX512F__) && TRICONV_VECTOR_BYTES == 64
TRICONV_INLINE Vec<float> load_partial(const float* p, int count) {
    return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p));
}
TRICONV_INLINE Vec<double> load_partial(const double* p, int count) {
    return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p));
}
TRICONV_INLINE void store_partial(float* p, Vec<float> v, int count) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(v));
}
TRICONV_INLINE void store_partial(double* p, Vec<double> v, int count) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), reinterpret_cast<__m512d>(v));
}
TRICONV_INLINE unsigned even_mask(int count) {
    return 0x5555u & ((1u << 2 * count) - 1);
}
TRICONV_INLINE Vec<float> load_even(const float* p, int count) {
    return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(even_mask(count)), p));
}
TRICONV_INLINE Vec<double> load_even(const double* p, int count) {
    return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(even_mask(count)), p));
}
TRICONV_INLINE void store_even(float* p, Vec<float> v, int count) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(even_mask(count)), reinterpret_cast<__m512>(v));
}
TRICONV_INLINE void store_even(double* p, Vec<double> v, int count) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(even_mask(count)), reinterpret_cast<__m512d>(v));
}
#elif defined(__AVX2__) && TRICONV_VECTOR_BYTES == 32
TRICONV_INLINE __m256i first_lanes_mask(const float*, int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
TRICONV_INLINE __m256i first_lanes_mask(const double*, int count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
TRICONV_INLINE Vec<float> load_partial(const float* p, int count) {
    return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(p, first_lanes_mask(p, count)));
}
TRICONV_INLINE Vec<double> load_partial(const double* p, int count) {
    return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(p, first_lanes_mask(p, count)));
}
TRICONV_INLINE void store_partial(float* p, Vec<float> v, int count) {
    _mm256_maskstore_ps(p, first_lanes_mask(p, count), reinterpret_cast<__m256>(v));
}
TRICONV_INLINE void store_partial(double* p, Vec<double> v, int count) {
    _mm256_maskstore_pd(p, first_lanes_mask(p, count), reinterpret_cast<__m256d>(v));
}
TRICONV_INLINE __m256i even_mask(const float* p, int count) {
    return _mm256_and_si256(first_lanes_mask(p, 2 * count), _mm256_set1_epi64x(0xffffffff));
}
TRICONV_INLINE __m256i even_mask(const double* p, int count) {
    return _mm256_and_si256(first_lanes_mask(p, 2 * count), _mm256_setr_epi64x(-1, 0, -1, 0));
}
TRICONV_INLINE Vec<float> load_even(const float* p, int count) {
    return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(p, even_mask(p, count)));
}
TRICONV_INLINE Vec<double> load_even(const double* p, int count) {
    return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(p, even_mask(p, count)));
}
TRICONV_INLINE void store_even(float* p, Vec<float> v, int count) {
    _mm256_maskstore_ps(p, even_mask(p, count), reinterpret_cast<__m256>(v));
}
TRICONV_INLINE void store_even(double* p, Vec<double> v, int count) {
    _mm256_maskstore_pd(p, even_mask(p, count), reinterpret_cast<__m256d>(v));
}
#else
template <class E>
TRICONV_INLINE Vec<E> load_partial(const E* p, int count) {
    Vec<E> v{};
    TRICONV_UNROLL
    for (int k = 0; k < lanes<E>; ++k) {
        if (k < count) v[k] = p[k];
    }
    return v;
}
template <class E>
TRICONV_INLINE void store_partial(E* p, Vec<E> v, int count) {
    TRICONV_UNROLL
    for (int k = 0; k < lanes<E>; ++k) {
        if (k < count) p[k] = v[k];
    }
}
template <class E>
TRICONV_INLINE Vec<E> load_even(const E* p, int count) {
    Vec<E> v{};
    TRICONV_UNROLL
    for (int k = 0; k < lanes<E>; k += 2) {
        if (k < 2 * count) v[k] = p[k];
    }
    return v;
}
template <class E>
TRICONV_INLINE void store_even(E* p, Vec<E> v, int count) {
    TRICONV_UNROLL
    for (int k = 0; k < lanes<E>; k += 2) {
        if (k < 2 * count) p[k] = v[k];
    }
}
#endif

}  // namespace triconv::TRICONV_ISA_NAMESPACE
