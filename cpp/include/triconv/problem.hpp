/// @file
/// What is to be computed: a convolution layer, its text form, and strided arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "triconv/export.h"

namespace triconv {

/// Type of the elements of all arrays: float or double.
enum class DType : std::uint8_t { f32, f64 };
/// One of the passes of a layer.
enum class Pass : std::uint8_t { forward, input_grad, weight_grad };
inline constexpr int pass_count = 3;  ///< How many passes there are.
inline constexpr int max_rank = 3;    ///< Most spatial axes.

/// What the padding of an input holds, by the names of scipy.ndimage. Padding may be wider than the input.
enum class Boundary : std::uint8_t {
    constant,  ///< k k k k | a b c d | k k k k    k: Problem::fill
    nearest,   ///< a a a a | a b c d | d d d d
    reflect,   ///< d c b a | a b c d | d c b a
    mirror,    ///< . d c b | a b c d | c b a .
    wrap,      ///< a b c d | a b c d | a b c d
};
/// @return "constant", "nearest"...
TRICONV_API const char* to_string(Boundary boundary);
/// @throws std::invalid_argument for any other name.
TRICONV_API Boundary parse_boundary(const std::string& name);

/// One convolution layer. Axes run from the outermost to the innermost: (depth,) (height,) width; the first `rank`
/// entries of each array count. The arrays:
///
///     x, dx   batch x in_channels x input
///     w, dw   out_channels x in_channels / groups x kernel
///     y, dy   batch x out_channels x output
struct Problem {
    int rank = 2;            ///< 1, 2 or 3
    std::int64_t batch = 1;  ///< 0 or more, as the channels
    std::int64_t in_channels = 1;
    std::int64_t out_channels = 1;
    std::int64_t groups = 1;  ///< divides both numbers of channels
    std::int64_t input[max_rank] = {1, 1, 1};
    std::int64_t kernel[max_rank] = {1, 1, 1};
    std::int64_t stride[max_rank] = {1, 1, 1};
    std::int64_t dilation[max_rank] = {1, 1, 1};
    std::int64_t pad_lo[max_rank] = {0, 0, 0};  ///< 0 or more, as pad_hi; may differ at the two ends of an axis
    std::int64_t pad_hi[max_rank] = {0, 0, 0};
    Boundary boundary = Boundary::constant;
    double fill = 0;  ///< of Boundary::constant, else 0
    DType dtype = DType::f32;

    /// @return Extent of the output: floor((input + pads - dilation * (kernel - 1) - 1) / stride) + 1.
    TRICONV_API std::int64_t output(int axis) const;
};

/// @throws std::invalid_argument with a message that names the argument, its value and what was expected.
TRICONV_API void validate(const Problem& problem);

/// The one text form of a problem, e.g. "n8c64k64 i56x56 r7x7 p3 f32 fwd"; stride "s2", dilation "d2", groups "g4",
/// asymmetric padding "p1:2" (low:high), per axis "p1x0:2", boundary "b=mirror" or "b=constant:2.5" with a fill. Written
/// without the parts that have their default value.
TRICONV_API std::string to_string(const Problem& problem);
TRICONV_API std::string to_string(const Problem& problem, Pass pass);  ///< With the pass at the end.
TRICONV_API const char* to_string(Pass pass);                          ///< "fwd", "dx", "dw"
/// What a text says.
struct ProblemAndPass {
    Problem problem;
    Pass pass = Pass::forward;
};
/// @throws std::invalid_argument if the text is malformed or the problem not valid.
TRICONV_API ProblemAndPass parse_problem(const std::string& text);

/// A strided array that is read. Strides are in elements: of batch (or output channel), channel (or input channel), then
/// each spatial axis. They may be zero or negative. `data` is element (0, 0, 0...), aligned as its type must be.
struct ConstView {
    const void* data = nullptr;  ///< null only where the array has no elements
    std::ptrdiff_t strides[2 + max_rank] = {};
};
/// A strided array that is written: its elements must not overlap each other or those of an input.
struct View {
    void* data = nullptr;
    std::ptrdiff_t strides[2 + max_rank] = {};
    TRICONV_API operator ConstView() const;  ///< The same array.
};

}  // namespace triconv
