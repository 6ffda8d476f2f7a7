// The definition, in the plainest form: the oracle of the tests, and the last word on values that are not finite.
//
// Sums are formed in double with compensation (product_sum.h): plain summation errs 2e-14 on 2e5 terms, and products of floats
// beyond float's range may cancel. Padding is a number in forward and weight_grad, so 0 * NaN = NaN there; input_grad sums the
// positions of outputs only, and over all those of the padded input that hold its sample. Denormals count: to be called where
// they are kept (float_mode.h).
#pragma once

#include <array>

#include "geometry.h"

namespace triconv {

template <class E>
E reference_forward_at(const Layer& layer, const Tensor<const E>& x, const Tensor<const E>& w,
                       const E* bias,  // of channel k, or null
                       std::int64_t n, std::int64_t k, const Index& o);
template <class E>
E reference_input_grad_at(const Layer& layer, const Tensor<const E>& w, const Tensor<const E>& dy, std::int64_t n,
                          std::int64_t c, const Index& i);
template <class E>
E reference_weight_grad_at(const Layer& layer, const Tensor<const E>& x, const Tensor<const E>& dy, std::int64_t k,
                           std::int64_t c, const Index& r);  // c within the group

// A whole pass, serially. Operands as in Plan: (x, w) -> y, (w, dy) -> dx, (x, dy) -> dw.
void reference_pass(const Problem& problem, Pass pass, const ConstView& a, const ConstView& b, const View& out);

}  // namespace triconv
