#include "products-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template void fill_product_kernels(KernelTable<float>&);

}  // namespace triconv::TRICONV_ISA_NAMESPACE
