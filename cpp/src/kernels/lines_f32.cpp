#include "fft-inl.h"
#include "winograd-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template LineTransform<float> fft_line<float>(LineKind, int, int, int);
template LineTransform<float> winograd_line<float>(LineKind, int, int);

bool has_fft_codelet(int length) {
    for (const FftCodelet<float>& codelet : fft_codelets<float>) {
        if (codelet.length == length) return true;
    }
    return length == 1;
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
