// The calling thread's floating-point mode for the length of a scope: round to nearest, no traps, denormals flushed to
// zero or kept. The whole mode is set, not only the denormal bits, because threads inherit theirs from whichever started
// them, and results must not depend on that. The mode before, exception flags included, comes back at the end.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace triconv {

enum class Denormals : std::uint8_t { flush, keep };

#if defined(__SSE2__)
inline constexpr bool can_flush_denormals = true;

class FloatMode {
public:
    explicit FloatMode(Denormals denormals) : saved_(_mm_getcsr()) {
        _mm_setcsr(denormals == Denormals::keep ? all_masked : all_masked | flush_to_zero | denormals_are_zero);
    }
    ~FloatMode() { _mm_setcsr(saved_); }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

private:
    static constexpr unsigned all_masked = 0x1f80, flush_to_zero = 0x8000, denormals_are_zero = 0x0040;
    unsigned saved_;
};
#elif defined(__aarch64__)
inline constexpr bool can_flush_denormals = true;

class FloatMode {
public:
    explicit FloatMode(Denormals denormals) {
        __asm__ volatile("mrs %0, fpcr" : "=r"(control_));
        __asm__ volatile("mrs %0, fpsr" : "=r"(status_));
        __asm__ volatile("msr fpcr, %0" : : "r"(denormals == Denormals::keep ? 0 : flush_to_zero));
    }
    ~FloatMode() {
        __asm__ volatile("msr fpcr, %0" : : "r"(control_));
        __asm__ volatile("msr fpsr, %0" : : "r"(status_));
    }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

private:
    static constexpr std::uint64_t flush_to_zero = std::uint64_t{1} << 24;
    std::uint64_t control_, status_;
};
#else
inline constexpr bool can_flush_denormals = false;

class FloatMode {
public:
    explicit FloatMode(Denormals) {}
};
#endif

}  // namespace triconv
