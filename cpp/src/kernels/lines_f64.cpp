#include "fft-inl.h"
#include "winograd-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template LineTransform<double> fft_line<double>(LineKind, int, int, int);
template LineTransform<double> winograd_line<double>(LineKind, int, int);

}  // namespace triconv::TRICONV_ISA_NAMESPACE
