// Winograd line transforms: generated straight-line code for every F(m, r) there is.
#pragma once

#include "lines.h"
#include "winograd_codelets-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template <class E>
LineTransform<E> winograd_line(LineKind kind, int m, int r) {
    for (const WinogradCodelet<E>& codelet : winograd_codelets<E>) {
        if (codelet.kind == kind && codelet.m == m && codelet.r == r) {
            return {codelet.run, nullptr, codelet.n_in, codelet.n_out};
        }
    }
    return {};
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
