// The arrays of a layer in memory: nothing outside of them is touched, and neither their layout nor the number of threads
// changes a bit of the result.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "guarded_buffer.h"
#include "layer_data.h"

namespace triconv::test {
namespace {

// A view of elements that adjoin one another, channels before or behind the pixels.
template <class E>
View dense_view(const std::vector<std::int64_t>& shape, E* data, bool channels_last) {
    View view = contiguous(shape, data);
    if (!channels_last) return view;
    std::ptrdiff_t stride = shape[1];
    for (std::size_t i = shape.size(); i-- > 2;) {
        view.strides[i] = stride;
        stride *= shape[i];
    }
    view.strides[1] = 1;
    view.strides[0] = stride;
    return view;
}

template <class E>
void run_all_passes_beside_unmapped_pages(const Problem& p, Guard side, bool channels_last) {
    const auto x_shape = shape_of(p, Array::x), w_shape = shape_of(p, Array::w), y_shape = shape_of(p, Array::y);
    const GuardedWorkspaces workspaces(side);
    GuardedBuffer<E> x(size_of(x_shape), side, 1), w(size_of(w_shape), side, 1), y(size_of(y_shape), side, 1),
        bias(p.out_channels, side, 1);
    const View x_view = dense_view(x_shape, x.data(), channels_last);
    const View w_view = dense_view(w_shape, w.data(), channels_last);
    const View y_view = dense_view(y_shape, y.data(), channels_last);
    for (const char* algorithm : {"direct", "fft", "winograd"}) {
        if (algorithm[0] == 'w' && !winograd_can(p)) continue;
        SCOPED_TRACE(to_string(p) + " " + algorithm);
        Options options;
        options.algorithm = algorithm;
        const Plan plan(p, options);
        plan.forward(x_view, w_view, bias.data(), 1, y_view);
        plan.input_grad(w_view, y_view, x_view);
        plan.weight_grad(x_view, y_view, w_view);
        plan.prepare(w_view).forward(x_view, bias.data(), 1, y_view);
        Step step(plan, x_view, w_view);
        step.forward(nullptr, 0, y_view);
        step.backward(y_view, View{}, w_view);
    }
    EXPECT_TRUE(workspaces.count() > 0 || size_of(x_shape) == 0 || size_of(y_shape) == 0) << to_string(p);
}

// Arrays and workspaces that adjoin unmapped pages, in both layouts: nothing outside them is read or written.
TEST(Bounds, NothingOutsideTheArraysIsTouched) {
    for (const NamedProblem& named : problems_in("small.txt"))
        for (Guard side : {Guard::before, Guard::after})
            for (bool channels_last : {false, true})
                in_element_type(named.problem, [&](auto element) {
                    run_all_passes_beside_unmapped_pages<decltype(element)>(named.problem, side, channels_last);
                });
}

TEST(Bounds, OfWhatIsReadInPlace) {
    for (const NamedProblem& named : problems_in("in_place.txt"))
        for (Guard side : {Guard::before, Guard::after}) {
            in_element_type(named.problem, [&](auto element) {
                run_all_passes_beside_unmapped_pages<decltype(element)>(named.problem, side, false);
            });
        }
}

// An array of which every row adjoins unmapped pages.
template <class E>
class ArrayOfGuardedRows {
public:
    ArrayOfGuardedRows(const std::vector<std::int64_t>& shape, Guard side)
        : width_(shape.back()), count_(size_of(shape) / width_), rows_(count_, width_, side) {
        view_ = contiguous(shape, rows_.row(0));
        for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis)
            view_.strides[axis] = view_.strides[axis] / width_ * rows_.pitch();
    }
    ArrayOfGuardedRows(const std::vector<std::int64_t>& shape, Guard side, const std::vector<E>& values)
        : ArrayOfGuardedRows(shape, side) {
        for (std::int64_t i = 0; i < count_; ++i)
            std::copy_n(values.data() + i * width_, width_, rows_.row(i));
    }
    const View& view() const { return view_; }
    std::vector<E> values() {
        std::vector<E> all;
        for (std::int64_t i = 0; i < count_; ++i)
            all.insert(all.end(), rows_.row(i), rows_.row(i) + width_);
        return all;
    }

private:
    std::int64_t width_, count_;
    GuardedRows<E> rows_;
    View view_;
};

template <class E>
void expect_same_bits_of_rows_apart(const Problem& p, Guard side) {
    const LayerData<E> data(p);
    Options options;
    options.algorithm = "direct";
    const Plan plan(p, options);
    const ArrayOfGuardedRows<E> x(shape_of(p, Array::x), side, data.x), w(shape_of(p, Array::w), side, data.w),
        dy(shape_of(p, Array::y), side, data.dy);
    for (Pass pass : all_passes) {
        ArrayOfGuardedRows<E> out(shape_of(p, data.output_of(pass)), side);
        if (pass == Pass::forward) plan.forward(x.view(), w.view(), nullptr, 0, out.view());
        if (pass == Pass::input_grad) plan.input_grad(w.view(), dy.view(), out.view());
        if (pass == Pass::weight_grad) plan.weight_grad(x.view(), dy.view(), out.view());
        std::vector<E> expected = data.empty_output(pass);
        data.run(plan, pass, expected);
        EXPECT_TRUE(out.values() == expected) << to_string(p, pass);
    }
}

TEST(Bounds, WhatLiesBetweenRowsIsNotTouched) {
    for (const NamedProblem& named : problems_in("in_place.txt"))
        for (Guard side : {Guard::before, Guard::after}) {
            in_element_type(named.problem, [&](auto element) {
                expect_same_bits_of_rows_apart<decltype(element)>(named.problem, side);
            });
        }
}

// Every second element of an array twice as long: never read where they are, nor written. Of samples that are not finite,
// too: the same outputs are computed by definition.
template <class E>
class ArrayOfElementsApart {
public:
    explicit ArrayOfElementsApart(const std::vector<std::int64_t>& shape)
        : elements_(2 * static_cast<std::size_t>(size_of(shape))), view_(contiguous(shape, elements_.data())) {
        for (std::ptrdiff_t& stride : view_.strides)
            stride *= 2;
    }
    ArrayOfElementsApart(const std::vector<std::int64_t>& shape, const std::vector<E>& values)
        : ArrayOfElementsApart(shape) {
        for (std::size_t i = 0; i < values.size(); ++i)
            elements_[2 * i] = values[i];
    }
    const View& view() const { return view_; }
    const E& operator[](std::size_t i) const { return elements_[2 * i]; }

private:
    std::vector<E> elements_;
    View view_;
};

template <class E>
void expect_same_bits_of_elements_apart(const Problem& p, bool with_nan) {
    LayerData<E> data(p);
    if (with_nan)
        for (auto* values : {&data.x, &data.dy})
            (*values)[values->size() / 3] = std::numeric_limits<E>::quiet_NaN();
    Options options;
    options.algorithm = "direct";
    const Plan plan(p, options);
    const ArrayOfElementsApart<E> x(shape_of(p, Array::x), data.x), dy(shape_of(p, Array::y), data.dy);
    for (Pass pass : all_passes) {
        std::vector<E> expected = data.empty_output(pass);
        data.run(plan, pass, expected);
        const ArrayOfElementsApart<E> out(shape_of(p, data.output_of(pass)));
        if (pass == Pass::forward) plan.forward(x.view(), data.view(Array::w), nullptr, 0, out.view());
        if (pass == Pass::input_grad) plan.input_grad(data.view(Array::w), dy.view(), out.view());
        if (pass == Pass::weight_grad) plan.weight_grad(x.view(), dy.view(), out.view());
        for (std::size_t i = 0; i < expected.size(); ++i)
            ASSERT_EQ(std::memcmp(&expected[i], &out[i], sizeof(E)), 0) << to_string(p, pass) << " at " << i;
    }
}

// The layout of the arrays must not change a bit of the result.
void expect_same_bits_in_channels_last(const Problem& p) {
    const LayerData<float> data(p);
    const std::int64_t pixels = p.input[0] * p.input[1];
    std::vector<float> x_last(data.x.size());
    for (std::int64_t n = 0; n < p.batch; ++n)
        for (std::int64_t c = 0; c < p.in_channels; ++c)
            for (std::int64_t i = 0; i < pixels; ++i)
                x_last[static_cast<std::size_t>((n * pixels + i) * p.in_channels + c)] =
                    data.x[static_cast<std::size_t>((n * p.in_channels + c) * pixels + i)];
    ConstView x_view = data.view(Array::x);
    x_view.data = x_last.data();
    x_view.strides[1] = 1;
    x_view.strides[3] = p.in_channels;
    x_view.strides[2] = p.in_channels * p.input[1];
    for (const char* algorithm : {"direct", "fft", "winograd"}) {
        Options options;
        options.algorithm = algorithm;
        const Plan plan(p, options);
        std::vector<float> first = data.empty_output(Pass::forward), second = first;
        data.run(plan, Pass::forward, first);
        plan.forward(x_view, data.view(Array::w), nullptr, 0, contiguous(shape_of(p, Array::y), second.data()));
        EXPECT_TRUE(first == second) << algorithm;
    }
}

TEST(Determinism, BitsDoNotDependOnTheLayout) {
    for (const char* text : {"n2c19k21 i14x13 r3x3 p1 f32", "n2c3k2 i34x33 r3x3 p1 f32"})
        expect_same_bits_in_channels_last(parse_problem(text).problem);
    for (const NamedProblem& named : problems_in("in_place.txt"))
        for (bool with_nan : {false, true})
            in_element_type(named.problem, [&](auto element) {
                expect_same_bits_of_elements_apart<decltype(element)>(named.problem, with_nan);
            });
}

// Twice on each number of threads: nor do they change from run to run.
template <class E>
void expect_same_bits_on_any_threads(const Problem& problem, const std::string& algorithm) {
    const LayerData<E> data(problem);
    Options options;
    options.algorithm = algorithm;
    const Plan plan(problem, options);
    for (Pass pass : all_passes) {
        std::vector<E> first = data.empty_output(pass);
        set_num_threads(1);
        data.run(plan, pass, first);
        for (int run = 1; run < 16; ++run) {
            set_num_threads(1 + run % 8);
            std::vector<E> out = data.empty_output(pass);
            data.run(plan, pass, out);
            EXPECT_TRUE(out.empty() || std::memcmp(out.data(), first.data(), out.size() * sizeof(E)) == 0)
                << to_string(problem, pass) << " " << algorithm << ", threads " << num_threads();
        }
    }
}

TEST(Determinism, BitsDoNotDependOnTheNumberOfThreads) {
    const int threads_before = num_threads();
    std::mt19937_64 random(8);
    for (int i = 0; i < 50; ++i) {
        const Problem problem = i < 25 ? random_problem(random) : random_extended_problem(random);
        for (const char* algorithm : {"direct", "fft", "winograd", "auto"}) {
            if (algorithm[0] == 'w' && !winograd_can(problem)) continue;
            in_element_type(
                problem, [&](auto element) { expect_same_bits_on_any_threads<decltype(element)>(problem, algorithm); });
        }
    }
    for (const NamedProblem& named : problems_in("groups_of_bands.txt"))
        expect_same_bits_on_any_threads<float>(named.problem, "direct");
    set_num_threads(threads_before);
}

}  // namespace
}  // namespace triconv::test
