// The line transforms of one ISA, for its table: see "line transforms" in kernel_table.h.
#pragma once

#include "kernel_table.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

// Of length T >= 1. Counts below 1 are taken as 1, those above T as T.
template <class E>
LineTransform<E> fft_line(LineKind kind, int length, int n_in, int n_out);

// F(m, r); run is null if there is none. F(m, 1) copies, spreads and sums, exactly.
template <class E>
LineTransform<E> winograd_line(LineKind kind, int m, int r);

int codelets_of_line(int length);

extern template LineTransform<float> fft_line<float>(LineKind, int, int, int);
extern template LineTransform<double> fft_line<double>(LineKind, int, int, int);
extern template LineTransform<float> winograd_line<float>(LineKind, int, int);
extern template LineTransform<double> winograd_line<double>(LineKind, int, int);

}  // namespace triconv::TRICONV_ISA_NAMESPACE
