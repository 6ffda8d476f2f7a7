// Chooses the kernels: the most capable ISA compiled in that this CPU and operating system have, lowered by
// TRICONV_MAX_ISA=baseline|avx2|avx512. A value that is unknown, not compiled in or not supported is an error
// (std::invalid_argument with the list of possible ones), never a silent fallback.
#pragma once

#include <string>
#include <vector>

#include "kernel_table.h"

namespace triconv {

const IsaKernels& kernels();                        // of the ISA in use, decided on first use
const IsaKernels& kernels(const std::string& isa);  // of a given one, for tests and benchmarks
std::vector<std::string> compiled_isas();           // least to most capable
std::vector<std::string> supported_isas();          // those this machine can run

// The ISA to use when TRICONV_MAX_ISA has the value `max_isa` (null: not set).
std::string choose_isa(const char* max_isa);

template <class E>
const KernelTable<E>& table_of(const IsaKernels& isa);
template <>
inline const KernelTable<float>& table_of<float>(const IsaKernels& isa) {
    return isa.f32;
}
template <>
inline const KernelTable<double>& table_of<double>(const IsaKernels& isa) {
    return isa.f64;
}

}  // namespace triconv
