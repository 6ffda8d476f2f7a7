#include "fft-inl.h"
#include "winograd-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template LineTransform<float> fft_line<float>(LineKind, int, int, int);
template LineTransform<float> winograd_line<float>(LineKind, int, int);

int codelets_of_line(int length) {
    if (length == 1) return 1;
    constexpr int many = 3;
    int codelets = 1;
    while (codelets < many && !composable<float>(length, codelets - 1, std::begin(fft_steps<float>)))
        ++codelets;
    return codelets;
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
