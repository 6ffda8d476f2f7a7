#include "cpu.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#include <unistd.h>

#include "made_on_first_use.h"
#include "triconv/triconv.hpp"

namespace triconv {
namespace {

constexpr CacheSizes default_caches{32 << 10, 256 << 10, 1 << 20};

#if defined(__x86_64__)

struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // all zero where the CPU does not have the leaf
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

constexpr bool has_all(std::uint64_t value, std::uint64_t bits) {
    return (value & bits) == bits;
}

// The register states that the operating system saves on a context switch (XCR0).
std::uint64_t saved_states() {
    constexpr unsigned osxsave = 1u << 27;
    if (!has_all(cpuid(1).ecx, osxsave)) { return 0; }
    std::uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<std::uint64_t>(high) << 32) | low;
}

bool detect_x86_64_v3() {
    constexpr unsigned sse3 = 1u << 0, ssse3 = 1u << 9, fma = 1u << 12, cx16 = 1u << 13, sse41 = 1u << 19,
                       sse42 = 1u << 20, movbe = 1u << 22, popcnt = 1u << 23, avx = 1u << 28, f16c = 1u << 29;
    constexpr unsigned leaf1 = sse3 | ssse3 | fma | cx16 | sse41 | sse42 | movbe | popcnt | avx | f16c;
    constexpr unsigned bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
    constexpr unsigned lahf = 1u << 0, lzcnt = 1u << 5;
    constexpr std::uint64_t xmm_and_ymm = 0x06;
    return has_all(cpuid(1).ecx, leaf1) && has_all(cpuid(7).ebx, bmi1 | avx2 | bmi2) &&
           has_all(cpuid(0x80000001).ecx, lahf | lzcnt) && has_all(saved_states(), xmm_and_ymm);
}

bool detect_x86_64_v4() {
    constexpr unsigned f = 1u << 16, dq = 1u << 17, cd = 1u << 28, bw = 1u << 30, vl = 1u << 31;
    constexpr std::uint64_t mask_and_zmm = 0xe0;
    return cpu_has_avx2() && has_all(cpuid(7).ebx, f | dq | cd | bw | vl) && has_all(saved_states(), mask_and_zmm);
}

// AMD tells the width of its floating-point units in leaf 0x8000001a; Intel does not.
bool detect_halved_avx512() {
    constexpr unsigned fp256 = 1u << 2, fp512 = 1u << 3;
    const unsigned widths = cpuid(0x8000001au).eax;
    return has_all(widths, fp256) && !has_all(widths, fp512);
}

// From the deterministic cache parameters: leaf 4 (Intel) or 0x8000001d (AMD), one subleaf per cache.
CacheSizes cpuid_cache_sizes() {
    CacheSizes sizes{0, 0, 0};
    for (unsigned leaf : {4u, 0x8000001du}) {
        for (unsigned subleaf = 0; subleaf < 8; ++subleaf) {
            const Registers r = cpuid(leaf, subleaf);
            const unsigned type = r.eax & 31, level = (r.eax >> 5) & 7;  // type: 0 none, 1 data, 2 code, 3 unified
            if (type != 1 && type != 3) { continue; }
            const std::int64_t ways = (r.ebx >> 22) + 1, partitions = ((r.ebx >> 12) & 0x3ff) + 1;
            const std::int64_t line = (r.ebx & 0xfff) + 1, sets = static_cast<std::int64_t>(r.ecx) + 1;
            const std::int64_t bytes = ways * partitions * line * sets;
            (level == 1 ? sizes.l1d : level == 2 ? sizes.l2 : sizes.l3) = bytes;
        }
        if (sizes.l1d > 0) { break; }
    }
    return sizes;
}

// The brand string: leaves 0x80000002 to 4, 16 characters each, padded with blanks or zeros.
std::string model_name() {
    constexpr unsigned first = 0x80000002u, last = 0x80000004u;
    if (cpuid(0x80000000u).eax < last) { return {}; }
    char text[49] = {};
    char* to = text;
    for (unsigned leaf = first; leaf <= last; ++leaf) {
        const Registers r = cpuid(leaf);
        std::memcpy(to, &r, sizeof r);
        to += sizeof r;
    }
    return text;
}

#else

bool detect_halved_avx512() {
    return false;
}

CacheSizes cpuid_cache_sizes() {
    return {0, 0, 0};
}

std::string model_name() {
    return {};
}

#endif

#if defined(__APPLE__)

std::int64_t sysctl_bytes(const char* name) {
    std::int64_t value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 ? value : 0;
}

CacheSizes system_cache_sizes() {
    return {sysctl_bytes("hw.l1dcachesize"), sysctl_bytes("hw.l2cachesize"), sysctl_bytes("hw.l3cachesize")};
}

#elif defined(_SC_LEVEL1_DCACHE_SIZE)

CacheSizes system_cache_sizes() {
    return {sysconf(_SC_LEVEL1_DCACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE), sysconf(_SC_LEVEL3_CACHE_SIZE)};
}

#else

CacheSizes system_cache_sizes() {
    return {0, 0, 0};
}

#endif

CacheSizes detect_cache_sizes() {
    CacheSizes sizes = system_cache_sizes();
    if (sizes.l1d <= 0 || sizes.l2 <= 0) { sizes = cpuid_cache_sizes(); }
    if (sizes.l1d <= 0 || sizes.l2 <= 0) { return default_caches; }
    sizes.l3 = std::max(sizes.l3, sizes.l2);  // no third level: the second is the last
    return sizes;
}

}  // namespace

#if defined(__x86_64__)

bool cpu_has_avx2() {
    static const MadeOnFirstUse<const bool> has;
    return has.get(detect_x86_64_v3);
}

bool cpu_has_avx512() {
    static const MadeOnFirstUse<const bool> has;
    return has.get(detect_x86_64_v4);
}

#else

bool cpu_has_avx2() {
    return false;
}

bool cpu_has_avx512() {
    return false;
}

#endif

int cpu_fma_steps(int vector_bytes) {
    static const MadeOnFirstUse<const bool> halved;
    return vector_bytes == 64 && halved.get(detect_halved_avx512) ? 2 : 1;
}

const CacheSizes& cache_sizes() {
    static const MadeOnFirstUse<const CacheSizes> sizes;
    return sizes.get(detect_cache_sizes);
}

CpuInfo cpu_info() {
    std::string model = model_name();
    model.erase(0, model.find_first_not_of(' '));
    model.erase(model.find_last_not_of(' ') + 1);
    const CacheSizes& caches = cache_sizes();
    return {model.empty() ? "unknown" : model, caches.l1d, caches.l2, caches.l3};
}

}  // namespace triconv
