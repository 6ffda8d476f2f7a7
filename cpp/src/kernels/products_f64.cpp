#include "products-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template void fill_product_kernels(KernelTable<double>&);

}  // namespace triconv::TRICONV_ISA_NAMESPACE
