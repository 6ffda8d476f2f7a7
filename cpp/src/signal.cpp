// A convolution of signals as the forward pass of a layer: the larger array is the image, the other, reversed, the kernel,
// and the zeros around the image are the layer's padding. What varies along the batch says what it is to the layer:
//
//   the image only     batch
//   the kernel only    output channels
//   both               groups
#include "triconv/signal.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace triconv {

namespace {

// Positions of the full convolution along an axis that the mode keeps.
struct Window {
    std::int64_t start, size;
};

Window window(const SignalProblem& p, int axis) {
    const std::int64_t n1 = p.in1[axis], n2 = p.in2[axis];
    switch (p.mode) {
        case SignalMode::full:
            break;
        case SignalMode::same:
            return {(n2 - 1) / 2, n1};
        case SignalMode::valid:
            return {std::min(n1, n2) - 1, std::max(n1, n2) - std::min(n1, n2) + 1};
    }
    return {0, n1 + n2 - 1};
}

bool in1_is_kernel(const SignalProblem& p) {
    double samples1 = 1, samples2 = 1;
    for (int axis = 0; axis < p.rank; ++axis) {
        samples1 *= static_cast<double>(p.in1[axis]);
        samples2 *= static_cast<double>(p.in2[axis]);
    }
    return samples1 < samples2;
}

// First sample of the image that is read, and how many.
Window samples_read(std::int64_t extent, std::int64_t taps, const Window& out) {
    const std::int64_t begin = std::max<std::int64_t>(0, out.start - (taps - 1));
    return {begin, std::min(extent, out.start + out.size) - begin};
}

Problem layer_of(const SignalProblem& p) {
    const bool swapped = in1_is_kernel(p);
    const std::int64_t* const image = swapped ? p.in2 : p.in1;
    const std::int64_t* const kernel = swapped ? p.in1 : p.in2;
    const std::int64_t images = swapped ? p.batch2 : p.batch1, kernels = swapped ? p.batch1 : p.batch2;
    Problem layer;
    layer.rank = p.rank;
    layer.dtype = p.dtype;
    layer.groups = images > 1 && kernels > 1 ? images : 1;
    layer.batch = layer.groups > 1 ? 1 : images;
    layer.in_channels = layer.groups;
    layer.out_channels = kernels;
    for (int axis = 0; axis < p.rank; ++axis) {
        const Window out = window(p, axis);
        layer.input[axis] = samples_read(image[axis], kernel[axis], out).size;
        layer.kernel[axis] = kernel[axis];
        layer.pad_lo[axis] = std::max<std::int64_t>(0, kernel[axis] - 1 - out.start);
        layer.pad_hi[axis] = std::max<std::int64_t>(0, out.start + out.size - image[axis]);
    }
    return layer;
}

// The layer that copies an array: the array is of a valid size if this is.
Problem array_of(const SignalProblem& p, const std::int64_t* extents, std::int64_t batch) {
    Problem layer;
    layer.rank = p.rank;
    layer.dtype = p.dtype;
    layer.batch = batch;
    std::copy_n(extents, p.rank, layer.input);
    return layer;
}

std::ptrdiff_t element_bytes(DType dtype) {
    return dtype == DType::f32 ? sizeof(float) : sizeof(double);
}

// The view that starts `samples` further along an axis.
ConstView moved(ConstView view, int axis, std::int64_t samples, DType dtype) {
    if (view.data) {
        const std::ptrdiff_t bytes = samples * view.strides[1 + axis] * element_bytes(dtype);
        view.data = static_cast<const char*>(view.data) + bytes;
    }
    return view;
}

ConstView reversed(ConstView view, const std::int64_t* extents, int rank, DType dtype) {
    for (int axis = 0; axis < rank; ++axis) {
        view = moved(view, axis, extents[axis] - 1, dtype);
        view.strides[1 + axis] = -view.strides[1 + axis];
    }
    return view;
}

// The layer's view of an array: the batch is whichever of the two outer axes has more than one element.
template <class V>
V as_layer(const V& view, int rank) {
    V result;
    result.data = view.data;
    result.strides[0] = result.strides[1] = view.strides[0];
    for (int axis = 0; axis < rank; ++axis)
        result.strides[2 + axis] = view.strides[1 + axis];
    return result;
}

// By direct summation or FFT, unless Winograd is asked for by name.
Options options_of(const std::string& algorithm) {
    Options options;
    options.algorithm = algorithm == "auto" ? "direct,fft" : algorithm;
    return options;
}

[[noreturn]] void refuse(const std::string& name, std::int64_t value, const std::string& expected) {
    throw std::invalid_argument(name + " is " + std::to_string(value) + ", expected " + expected);
}

const SignalProblem& validated(const SignalProblem& problem) {
    validate(problem);
    return problem;
}

}  // namespace

std::int64_t SignalProblem::batch() const {
    return batch1 == 1 ? batch2 : batch1;
}

std::int64_t SignalProblem::output(int axis) const {
    return window(*this, axis).size;
}

void validate(const SignalProblem& p) {
    constexpr std::int64_t largest = std::int64_t{1} << 40;
    if (p.rank < 1 || p.rank > max_rank) refuse("rank", p.rank, "1, 2 or 3");
    for (auto [name, batch] : {std::pair{"batch1", p.batch1}, std::pair{"batch2", p.batch2}})
        if (batch < 0 || batch > largest) refuse(name, batch, "0 to 2^40");
    if (p.batch1 != p.batch2 && p.batch1 != 1 && p.batch2 != 1)
        refuse("batch2", p.batch2, "1 or batch1 = " + std::to_string(p.batch1));
    bool larger1 = true, larger2 = true;
    for (int axis = 0; axis < p.rank; ++axis) {
        for (auto [name, extent] : {std::pair{"in1", p.in1[axis]}, std::pair{"in2", p.in2[axis]}})
            if (extent < 1 || extent > largest)
                refuse(std::string(name) + '[' + std::to_string(axis) + ']', extent, "1 to 2^40");
        larger1 = larger1 && p.in1[axis] >= p.in2[axis];
        larger2 = larger2 && p.in2[axis] >= p.in1[axis];
    }
    if (p.mode == SignalMode::valid && !larger1 && !larger2)
        throw std::invalid_argument(
            "mode is valid: one of in1 and in2 must be at least as large as the other along every axis");
    validate(array_of(p, p.in1, p.batch1));
    validate(array_of(p, p.in2, p.batch2));
    validate(layer_of(p));
}

SignalPlan::SignalPlan(const SignalProblem& problem, const std::string& algorithm)
    : problem_(validated(problem)), swapped_(in1_is_kernel(problem)), plan_(layer_of(problem), options_of(algorithm)) {}

RunInfo SignalPlan::run(const ConstView& in1, const ConstView& in2, const View& out,
                        const CallerWorkspace& workspace) const {
    const SignalProblem& p = problem_;
    ConstView image = swapped_ ? in2 : in1;
    const std::int64_t* const extents = swapped_ ? p.in2 : p.in1;
    const std::int64_t* const taps = swapped_ ? p.in1 : p.in2;
    for (int axis = 0; axis < p.rank; ++axis)
        image = moved(image, axis, samples_read(extents[axis], taps[axis], window(p, axis)).start, p.dtype);
    const ConstView kernel = reversed(swapped_ ? in1 : in2, taps, p.rank, p.dtype);
    return plan_.forward(as_layer(image, p.rank), as_layer(kernel, p.rank), nullptr, 0, as_layer(out, p.rank),
                         workspace);
}

RunInfo SignalPlan::convolve(const ConstView& in1, const ConstView& in2, const View& out,
                             const CallerWorkspace& workspace) const {
    return run(in1, in2, out, workspace);
}

RunInfo SignalPlan::correlate(const ConstView& in1, const ConstView& in2, const View& out,
                              const CallerWorkspace& workspace) const {
    return run(in1, reversed(in2, problem_.in2, problem_.rank, problem_.dtype), out, workspace);
}

std::string SignalPlan::algorithm() const {
    return plan_.algorithm(Pass::forward);
}

std::int64_t SignalPlan::workspace_bytes(int threads) const {
    return plan_.workspace_bytes(Pass::forward, threads);
}

RunInfo convolve(const SignalProblem& problem, const ConstView& in1, const ConstView& in2, const View& out) {
    return SignalPlan(problem).convolve(in1, in2, out);
}

RunInfo correlate(const SignalProblem& problem, const ConstView& in1, const ConstView& in2, const View& out) {
    return SignalPlan(problem).correlate(in1, in2, out);
}

}  // namespace triconv
