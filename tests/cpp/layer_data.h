// Arrays of a layer for tests: random values, the reference's results, and comparison with a derived tolerance.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "problems.h"
#include "reference.h"
#include "triconv/triconv.hpp"

namespace triconv::test {

// The extents of one of a layer's arrays, outer axes first.
enum class Array { x, w, y };
inline std::vector<std::int64_t> shape_of(const Problem& p, Array which) {
    std::vector<std::int64_t> shape;
    switch (which) {
        case Array::x:
            shape = {p.batch, p.in_channels};
            break;
        case Array::w:
            shape = {p.out_channels, p.in_channels / p.groups};
            break;
        case Array::y:
            shape = {p.batch, p.out_channels};
            break;
    }
    for (int a = 0; a < p.rank; ++a)
        shape.push_back(which == Array::x ? p.input[a] : which == Array::w ? p.kernel[a] : p.output(a));
    return shape;
}

inline std::int64_t size_of(const std::vector<std::int64_t>& shape) {
    std::int64_t size = 1;
    for (std::int64_t extent : shape)
        size *= extent;
    return size;
}

template <class E>
View contiguous(const std::vector<std::int64_t>& shape, E* data) {
    View view;
    view.data = data;
    std::ptrdiff_t stride = 1;
    for (std::size_t i = shape.size(); i-- > 0;) {
        view.strides[i] = stride;
        stride *= shape[i];
    }
    return view;
}

template <class E>
struct LayerData {
    Problem problem;
    std::vector<E> x, w, dy, bias;

    explicit LayerData(const Problem& p, std::uint64_t seed = 1) : problem(p) {
        std::mt19937_64 random(seed);
        std::normal_distribution<double> normal;
        for (auto [values, which] : {std::pair{&x, Array::x}, std::pair{&w, Array::w}, std::pair{&dy, Array::y}}) {
            values->resize(static_cast<std::size_t>(size_of(shape_of(p, which))));
            for (E& v : *values)
                v = static_cast<E>(normal(random));
        }
        bias.resize(static_cast<std::size_t>(p.out_channels));
        for (E& v : bias)
            v = static_cast<E>(normal(random));
    }

    ConstView view(Array which) const {
        const auto& values = which == Array::x ? x : which == Array::w ? w : dy;
        return contiguous(shape_of(problem, which), const_cast<E*>(values.data()));
    }
    static Array output_of(Pass pass) {
        return pass == Pass::forward ? Array::y : pass == Pass::input_grad ? Array::x : Array::w;
    }
    std::vector<E> empty_output(Pass pass) const {
        return std::vector<E>(static_cast<std::size_t>(size_of(shape_of(problem, output_of(pass)))), E(-77));
    }
    ConstView first(Pass pass) const { return view(pass == Pass::input_grad ? Array::w : Array::x); }
    ConstView second(Pass pass) const { return view(pass == Pass::forward ? Array::w : Array::y); }

    RunInfo run(const Plan& plan, Pass pass, std::vector<E>& out) const {
        const View to = contiguous(shape_of(problem, output_of(pass)), out.data());
        switch (pass) {
            case Pass::forward:
                return plan.forward(view(Array::x), view(Array::w), nullptr, 0, to);
            case Pass::input_grad:
                return plan.input_grad(view(Array::w), view(Array::y), to);
            case Pass::weight_grad:
                return plan.weight_grad(view(Array::x), view(Array::y), to);
        }
        return {};
    }
    std::vector<E> reference(Pass pass) const {
        std::vector<E> out = empty_output(pass);
        reference_pass(problem, pass, first(pass), second(pass),
                       contiguous(shape_of(problem, output_of(pass)), out.data()));
        return out;
    }
    // sum |first| |second| for each output: what rounding errors are relative to.
    double largest_absolute_sum(Pass pass) const {
        LayerData absolute = *this;
        absolute.problem.fill = std::abs(problem.fill);
        for (auto* values : {&absolute.x, &absolute.w, &absolute.dy})
            for (E& v : *values)
                v = std::abs(v);
        double largest = 0;
        for (E v : absolute.reference(pass))
            largest = std::max(largest, static_cast<double>(v));
        return largest;
    }
};

// Largest |a - b|; infinite if a value is NaN or the sizes differ.
template <class E>
double largest_difference(const std::vector<E>& a, const std::vector<E>& b) {
    if (a.size() != b.size()) return INFINITY;
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        if (!(d <= largest)) largest = std::isnan(d) ? INFINITY : d;
    }
    return largest;
}

inline constexpr Pass all_passes[] = {Pass::forward, Pass::input_grad, Pass::weight_grad};

}  // namespace triconv::test
