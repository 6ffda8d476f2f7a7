// Brings samples to the caches while something else is computed: lanes or rows far apart in the array, each on a page of
// its own, which the processor does not foresee. Addresses outside the array do no harm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace triconv {

// `pixels` samples of each of `rows` rows. Rows one element apart (channels last) are left to the hardware.
template <int for_writing, class E>
void prefetch_rows(const E* first, std::ptrdiff_t row_stride, std::int64_t rows, std::ptrdiff_t pixel_stride,
                   std::int64_t pixels) {
    if (row_stride == 1 || pixel_stride <= 0) return;
    const std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>(64 / sizeof(E)) / pixel_stride);
    for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t i = 0; i < pixels; i += step)
            __builtin_prefetch(first + row * row_stride + i * pixel_stride, for_writing);
}

}  // namespace triconv
