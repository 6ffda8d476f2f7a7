// What the machine can do, from CPUID and XGETBV (the operating system must save the registers, too).
#pragma once

#include <cstdint>

namespace triconv {

bool cpu_has_avx2();    // AVX2, FMA, BMI and the rest of x86-64-v3
bool cpu_has_avx512();  // AVX-512 F, BW, CD, DQ, VL: x86-64-v4

// How often a unit for multiply-adds is passed for one of a vector with so many bytes: twice where 512 bits are computed
// as two halves, which is known of AMD's before Zen 5 only.
int cpu_fma_steps(int vector_bytes);

struct CacheSizes {  // bytes per core; l3 as this core may use it
    std::int64_t l1d, l2, l3;
};
const CacheSizes& cache_sizes();  // conservative defaults where the system does not tell

}  // namespace triconv
