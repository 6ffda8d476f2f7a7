// Convolutions of signals against their definition, over modes, shapes, batches and layouts.
#include "triconv/signal.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "triconv/triconv.hpp"

namespace triconv::test {
namespace {

// An array of batch and axes in any layout: `step` elements between neighbours, axes optionally in reversed memory order
// or running backwards.
template <class E>
struct Signals {
    std::vector<E> values;
    std::vector<std::int64_t> extents;  // batch, then axes
    ConstView view;                     // strides: batch, then axes

    Signals(std::int64_t batch, const std::int64_t* axes, int rank, int layout) : extents{batch} {
        extents.insert(extents.end(), axes, axes + rank);
        const std::ptrdiff_t step = layout == 0 ? 1 : 2;
        std::ptrdiff_t size = step;
        for (std::size_t i = 0; i < extents.size(); ++i) {
            const std::size_t axis = layout == 2 ? i : extents.size() - 1 - i;
            view.strides[axis] = size;
            size *= extents[axis];
        }
        values.assign(static_cast<std::size_t>(size), E(0));
        E* first = values.data();
        if (layout == 2) {
            first += (extents[1] - 1) * view.strides[1];
            view.strides[1] = -view.strides[1];
        }
        view.data = first;
    }
    View writable() {
        View result;
        result.data = const_cast<void*>(view.data);
        for (std::size_t i = 0; i < extents.size(); ++i)
            result.strides[i] = view.strides[i];
        return result;
    }
    // At a batch and three positions, those in front of the first axis being 0.
    E& at(std::int64_t batch, const std::int64_t (&position)[3]) {
        std::ptrdiff_t offset = (extents[0] == 1 ? 0 : batch) * view.strides[0];
        const std::size_t rank = extents.size() - 1;
        for (std::size_t axis = 0; axis < rank; ++axis)
            offset += position[3 - rank + axis] * view.strides[1 + axis];
        return static_cast<E*>(const_cast<void*>(view.data))[offset];
    }
    void fill(std::mt19937_64& random) {
        std::normal_distribution<double> normal;
        for (E& value : values)
            value = static_cast<E>(normal(random));
    }
};

std::int64_t extent(const std::int64_t (&extents)[max_rank], int rank, int axis_of_three) {
    const int axis = axis_of_three - (3 - rank);
    return axis < 0 ? 1 : extents[axis];
}

// First output of the mode within the full result, by SciPy's documentation: "same" is centered in it, "valid" is where
// the smaller array lies within the larger.
std::int64_t start(const SignalProblem& p, int axis_of_three) {
    const std::int64_t n1 = extent(p.in1, p.rank, axis_of_three), n2 = extent(p.in2, p.rank, axis_of_three);
    const std::int64_t full = n1 + n2 - 1;
    return p.mode == SignalMode::full ? 0 : p.mode == SignalMode::same ? (full - n1) / 2 : std::min(n1, n2) - 1;
}

// One sample of the full convolution: the sum over positions of in1, and that of the absolute products.
template <class E>
void sum_at(const SignalProblem& p, Signals<E>& in1, Signals<E>& in2, bool correlate, std::int64_t batch,
            const std::int64_t (&at)[3], double& sum, double& absolute) {
    std::int64_t first[3], last[3], i[3];
    for (int a = 0; a < 3; ++a) {
        first[a] = std::max<std::int64_t>(0, at[a] - extent(p.in2, p.rank, a) + 1);
        last[a] = std::min(extent(p.in1, p.rank, a) - 1, at[a]);
    }
    sum = absolute = 0;
    for (i[0] = first[0]; i[0] <= last[0]; ++i[0])
        for (i[1] = first[1]; i[1] <= last[1]; ++i[1])
            for (i[2] = first[2]; i[2] <= last[2]; ++i[2]) {
                std::int64_t j[3];
                for (int a = 0; a < 3; ++a) {
                    j[a] = at[a] - i[a];
                    if (correlate) j[a] = extent(p.in2, p.rank, a) - 1 - j[a];
                }
                const double product = static_cast<double>(in1.at(batch, i)) * static_cast<double>(in2.at(batch, j));
                sum += product;
                absolute += std::abs(product);
            }
}

template <class E>
void expect_as_defined(const SignalProblem& problem, const std::string& algorithm, int layout, bool correlate) {
    SignalProblem p = problem;
    p.dtype = sizeof(E) == 4 ? DType::f32 : DType::f64;
    std::mt19937_64 random(7);
    Signals<E> in1(p.batch1, p.in1, p.rank, layout), in2(p.batch2, p.in2, p.rank, layout);
    in1.fill(random);
    in2.fill(random);
    std::int64_t output[max_rank];
    for (int axis = 0; axis < p.rank; ++axis)
        output[axis] = p.output(axis);
    Signals<E> out(p.batch(), output, p.rank, layout);
    const SignalPlan plan(p, algorithm);
    EXPECT_NE(plan.algorithm().substr(0, 8), "winograd");
    if (correlate)
        plan.correlate(in1.view, in2.view, out.writable());
    else
        plan.convolve(in1.view, in2.view, out.writable());
    double error = 0, largest = 0;
    std::int64_t o[3];
    for (std::int64_t batch = 0; batch < p.batch(); ++batch)
        for (o[0] = 0; o[0] < extent(output, p.rank, 0); ++o[0])
            for (o[1] = 0; o[1] < extent(output, p.rank, 1); ++o[1])
                for (o[2] = 0; o[2] < extent(output, p.rank, 2); ++o[2]) {
                    const std::int64_t at[3] = {o[0] + start(p, 0), o[1] + start(p, 1), o[2] + start(p, 2)};
                    double sum, absolute;
                    sum_at(p, in1, in2, correlate, batch, at, sum, absolute);
                    error = std::max(error, std::abs(static_cast<double>(out.at(batch, o)) - sum));
                    largest = std::max(largest, absolute);
                }
    // docs/algorithms.md: an FFT of 2^20 samples errs less than 4 (1 + 20) epsilons.
    EXPECT_LE(error, 84 * static_cast<double>(std::numeric_limits<E>::epsilon()) * largest)
        << plan.algorithm() << " mode " << static_cast<int>(p.mode) << " layout " << layout << " in1 " << p.in1[0]
        << 'x' << p.in1[1] << 'x' << p.in1[2] << " in2 " << p.in2[0] << 'x' << p.in2[1] << 'x' << p.in2[2]
        << " batches " << p.batch1 << ' ' << p.batch2;
}

struct Shapes {
    int rank;
    std::int64_t in1[max_rank], in2[max_rank];
};
const Shapes shapes[] = {
    {1, {1}, {1}},
    {1, {10}, {3}},
    {1, {3}, {10}},
    {1, {7}, {4}},
    {1, {4}, {7}},
    {1, {8}, {8}},
    {1, {200}, {65}},
    {2, {9, 12}, {3, 4}},
    {2, {3, 4}, {9, 12}},
    {2, {3, 12}, {5, 2}},
    {2, {24, 20}, {16, 16}},
    {2, {1, 30}, {6, 1}},
    {3, {5, 6, 7}, {2, 3, 3}},
    {3, {2, 3, 3}, {5, 6, 7}},
    {3, {4, 1, 9}, {1, 5, 2}},
};

TEST(Signal, IsAsDefinedInEveryModeAndShape) {
    int computed = 0;
    for (const Shapes& s : shapes)
        for (SignalMode mode : {SignalMode::full, SignalMode::same, SignalMode::valid})
            for (auto [batch1, batch2] : {std::pair{1, 1}, std::pair{3, 1}, std::pair{1, 3}, std::pair{3, 3}}) {
                SignalProblem p;
                p.rank = s.rank;
                std::copy_n(s.in1, max_rank, p.in1);
                std::copy_n(s.in2, max_rank, p.in2);
                p.mode = mode;
                p.batch1 = batch1;
                p.batch2 = batch2;
                try {
                    validate(p);
                } catch (const std::invalid_argument&) {
                    EXPECT_EQ(mode, SignalMode::valid);
                    continue;
                }
                for (bool correlate : {false, true}) {
                    for (int layout : {0, 1, 2})
                        expect_as_defined<float>(p, "auto", layout, correlate);
                    for (const char* algorithm : {"auto", "direct", "fft"})
                        expect_as_defined<double>(p, algorithm, 0, correlate);
                }
                ++computed;
            }
    EXPECT_GE(computed, 4 * (3 * 15 - 3));
}

// Where a layer would be computed by Winograd, whose errors are larger.
TEST(Signal, AutoIsNeverWinograd) {
    SignalProblem p;
    p.rank = 2;
    p.in1[0] = p.in1[1] = 300;
    p.in2[0] = p.in2[1] = 3;
    p.batch2 = 64;
    Problem layer = parse_problem("n1c1k64 i300x300 r3x3 p2 f32").problem;
    const std::string chosen = Plan(layer).algorithm(Pass::forward), instead = SignalPlan(p).algorithm();
    EXPECT_NE(instead.substr(0, 8), "winograd");
    if (chosen.substr(0, 8) != "winograd") { EXPECT_EQ(instead, chosen); }
    EXPECT_EQ(SignalPlan(p, "winograd").algorithm().substr(0, 8), "winograd") << "but by name";
}

TEST(Signal, FunctionsRunAPlan) {
    SignalProblem p;
    p.in1[0] = 3;
    p.in2[0] = 3;
    p.dtype = DType::f64;
    const double in1[] = {1, 2, 3}, in2[] = {0, 1, 10};
    double out[5];
    const ConstView view1{in1, {0, 1}}, view2{in2, {0, 1}};
    convolve(p, view1, view2, {out, {0, 1}});
    EXPECT_EQ(std::vector<double>(out, out + 5), (std::vector<double>{0, 1, 12, 23, 30}));
    correlate(p, view1, view2, {out, {0, 1}});
    EXPECT_EQ(std::vector<double>(out, out + 5), (std::vector<double>{10, 21, 32, 3, 0}));
}

// Arrays and workspace adjoin unmapped pages: what the mode does not need of the larger array is not read, either.
TEST(Signal, StaysWithinItsArraysAndWorkspace) {
    for (SignalMode mode : {SignalMode::full, SignalMode::same, SignalMode::valid})
        for (auto [n1, n2] : {std::pair{500, 33}, std::pair{33, 500}, std::pair{64, 64}})
            for (Guard side : {Guard::before, Guard::after}) {
                SignalProblem p;
                p.in1[0] = n1;
                p.in2[0] = n2;
                p.mode = mode;
                const SignalPlan plan(p);
                GuardedBuffer<float> in1(n1, side, 1), in2(n2, side, 1), out(p.output(0), side, -1);
                const std::int64_t bytes = plan.workspace_bytes(1);
                GuardedBuffer<unsigned char> memory(bytes, side, 0xff);
                plan.convolve({in1.data(), {0, 1}}, {in2.data(), {0, 1}}, {out.data(), {0, 1}},
                              {memory.data(), static_cast<std::size_t>(bytes)});
                const auto expected = [&](std::int64_t i) {
                    const std::int64_t k = i + start(p, 2), first = std::max<std::int64_t>(0, k - n2 + 1),
                                       last = std::min<std::int64_t>(n1 - 1, k);
                    return static_cast<float>(last - first + 1);
                };
                for (std::int64_t i = 0; i < p.output(0); ++i)
                    ASSERT_NEAR(out[i], expected(i), 1e-3);
                EXPECT_THROW(plan.convolve({in1.data(), {0, 1}}, {in2.data(), {0, 1}}, {out.data(), {0, 1}},
                                           {memory.data(), static_cast<std::size_t>(bytes - 1)}),
                             std::invalid_argument);
            }
}

TEST(Signal, EmptyBatchesAreNothingToDo) {
    for (auto [batch1, batch2] : {std::pair{0, 1}, std::pair{1, 0}, std::pair{0, 0}}) {
        SignalProblem p;
        p.in1[0] = 8;
        p.in2[0] = 3;
        p.batch1 = batch1;
        p.batch2 = batch2;
        EXPECT_EQ(p.batch(), 0);
        float values[8] = {}, out[1] = {-7};
        SignalPlan(p).convolve({values, {8, 1}}, {values, {3, 1}}, {out, {10, 1}});
        EXPECT_EQ(out[0], -7);
    }
}

TEST(Signal, RefusesWhatCannotBeComputed) {
    const auto refused = [](void (*change)(SignalProblem&)) {
        SignalProblem p;
        p.rank = 2;
        p.in1[0] = p.in1[1] = 9;
        p.in2[0] = p.in2[1] = 3;
        EXPECT_NO_THROW(validate(p));
        change(p);
        EXPECT_THROW(SignalPlan{p}, std::invalid_argument);
    };
    refused([](SignalProblem& p) { p.rank = 0; });
    refused([](SignalProblem& p) { p.rank = 4; });
    refused([](SignalProblem& p) { p.batch1 = -1; });
    refused([](SignalProblem& p) { p.batch1 = 2, p.batch2 = 3; });
    refused([](SignalProblem& p) { p.in1[1] = 0; });
    refused([](SignalProblem& p) { p.in2[0] = std::numeric_limits<std::int64_t>::max(); });
    refused([](SignalProblem& p) { p.in1[0] = p.in1[1] = std::int64_t{1} << 40; });
    refused([](SignalProblem& p) { p.mode = SignalMode::valid, p.in2[1] = 10; });
    SignalProblem p;
    p.in1[0] = 9;
    EXPECT_THROW(SignalPlan(p, "fourier"), std::invalid_argument);
    float value = 1;
    EXPECT_THROW(SignalPlan(p).convolve({}, {&value, {0, 1}}, {&value, {0, 1}}), std::invalid_argument);
}

}  // namespace
}  // namespace triconv::test
