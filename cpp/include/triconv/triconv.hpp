/// @file
/// triconv: the three passes of a convolution layer on the CPU, and convolutions of signals, by tiled FFT, Winograd or
/// direct summation. This header gives the whole C++ interface; triconv.h is the C interface.
///
/// The layer functions are cross-correlations, as in every deep-learning framework:
///
///     forward      y [n][k][o] = bias[k] + sum over c, r of  x[n][c][o * stride + r * dilation - pad_lo] * w[k][c][r]
///     input_grad   dx = the transpose of forward applied to dy, w fixed (of its linear part: constant padding has none)
///     weight_grad  dw = the transpose of forward applied to dy, x fixed
///
/// Errors are exceptions: std::invalid_argument for a problem, option, view or workspace that cannot be computed with
/// (raised before any work), std::bad_alloc when memory runs out. After an exception outputs are unspecified; the next
/// call works. Plans and prepared weights are immutable: any number of threads may run one.
#pragma once

#include "triconv/plan.hpp"
#include "triconv/problem.hpp"
#include "triconv/runtime.hpp"
#include "triconv/signal.hpp"
