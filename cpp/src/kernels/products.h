// The products, tile input and output and depthwise kernels of one ISA, for its table.
#pragma once

#include "../kernel_table.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

// Sets everything but the line transforms.
template <class E>
void fill_product_kernels(KernelTable<E>& table);

extern template void fill_product_kernels(KernelTable<float>&);
extern template void fill_product_kernels(KernelTable<double>&);

}  // namespace triconv::TRICONV_ISA_NAMESPACE
