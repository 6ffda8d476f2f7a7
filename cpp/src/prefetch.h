// Brings samples to the caches while something else is computed: lanes or rows far apart in the array, each on a page of
// its own, which the processor does not foresee. Addresses outside the array do no harm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace triconv {

// `pixels` samples of each of `rows` rows. Rows one element apart (channels last) are left to the hardware.
// Inlined, since GCC drops calls of functions that do nothing but prefetch.
template <class E>
[[gnu::always_inline]] inline void prefetch_rows(const E* first, std::ptrdiff_t row_stride, std::int64_t rows,
                                                 std::ptrdiff_t pixel_stride, std::int64_t pixels) {
    if (row_stride == 1 || pixel_stride <= 0) return;
    const std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>(64 / sizeof(E)) / pixel_stride);
    for (std::int64_t row = 0; row < rows; ++row) {
        const E* const pixel = first + row * row_stride;
        for (std::int64_t i = 0; i < pixels - 1; i += step)
            __builtin_prefetch(pixel + i * pixel_stride);
        __builtin_prefetch(pixel + (pixels - 1) * pixel_stride);
    }
}

}  // namespace triconv
