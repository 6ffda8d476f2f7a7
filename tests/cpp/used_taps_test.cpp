// Taps that meet only the zeros around the input: which they are, and what they do to values that are not finite.
#include "used_taps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "layer_data.h"

namespace triconv::test {
namespace {

bool meets_the_array(const Axis& axis, std::int64_t tap) {
    for (std::int64_t o = 0; o < axis.out; ++o) {
        const std::int64_t position = o * axis.stride + tap * axis.dilation - axis.pad;
        if (position >= 0 && position < axis.in) return true;
    }
    return false;
}

// No more than those from the first to the last one that meets the array, but for taps that keep the padding from being
// negative; no fewer.
TEST(UsedTaps, AreThoseThatMeetTheArray) {
    std::mt19937_64 random(3);
    int fewer = 0;
    for (int i = 0; i < 3000; ++i) {
        const auto draw = [&](std::int64_t lo, std::int64_t hi) {
            return std::uniform_int_distribution<std::int64_t>(lo, hi)(random);
        };
        Problem p;
        p.rank = 1;
        p.input[0] = draw(1, 12);
        p.kernel[0] = draw(1, 12);
        p.stride[0] = draw(1, 4);
        p.dilation[0] = draw(1, 4);
        p.pad_lo[0] = draw(0, 30);
        p.pad_hi[0] = draw(0, 30);
        if (p.output(0) < 1) continue;
        SCOPED_TRACE(to_string(p));
        const Layer layer(p);
        const Axis& axis = layer.axis[axes - 1];
        const TapRange used = used_taps(axis);
        std::int64_t first = p.kernel[0], last = -1;
        for (std::int64_t tap = 0; tap < p.kernel[0]; ++tap)
            if (meets_the_array(axis, tap)) {
                first = std::min(first, tap);
                last = tap;
            }
        EXPECT_TRUE(0 <= used.begin && used.begin < used.end && used.end <= p.kernel[0]);
        EXPECT_GE(axis.pad, used.begin * axis.dilation);
        if (last < 0) continue;
        // A stride may skip all samples of the array at the first or last tap of the range.
        EXPECT_LE(used.begin, first);
        EXPECT_GE(used.end, last + 1);
        if (p.stride[0] == 1) {
            EXPECT_EQ(used.begin, std::min(first, axis.pad / axis.dilation));
            EXPECT_EQ(used.end, last + 1);
        }
        fewer += used.end - used.begin < p.kernel[0];
    }
    EXPECT_GT(fewer, 300);
}

template <class E>
void expect_nan_by_zeros(const Problem& problem, E bad) {
    LayerData<E> data(problem);
    const Plan plan(problem);
    const std::size_t taps = static_cast<std::size_t>(problem.kernel[0] * problem.kernel[1]);
    data.w[taps * 3] = bad;  // the first tap of output channel 1 (of 3 input channels) and input channel 0
    std::vector<E> y = data.empty_output(Pass::forward);
    data.run(plan, Pass::forward, y);
    const std::size_t plane = y.size() / 8;  // of two images of four channels
    for (std::size_t i = 0; i < y.size(); ++i)
        ASSERT_EQ(std::isnan(y[i]), i / plane % 4 == 1) << i;
    std::vector<E> dx = data.empty_output(Pass::input_grad);
    data.run(plan, Pass::input_grad, dx);
    for (E value : dx)
        ASSERT_TRUE(std::isfinite(value));
    data.dy[plane * 2] = bad;  // channel 2
    std::vector<E> dw = data.empty_output(Pass::weight_grad);
    data.run(plan, Pass::weight_grad, dw);
    for (std::size_t i = 0; i < 4; ++i)
        ASSERT_EQ(std::isnan(dw[i * 3 * taps]), i == 2) << i;
    ASSERT_EQ(dw[0], E(0));
}

TEST(UsedTaps, OthersMultiplyWhatIsNotFiniteByZero) {
    for (const char* text : {"n2c3k4 i3x4 r9x11 p4x5", "n2c3k4 i2x3 r9x9 p8 d2"}) {
        SCOPED_TRACE(text);
        expect_nan_by_zeros<float>(parse_problem(std::string(text) + " f32").problem, INFINITY);
        expect_nan_by_zeros<double>(parse_problem(std::string(text) + " f64").problem, NAN);
    }
}

TEST(UsedTaps, KernelsOfWhichFewTapsAreUsedTakeFewMultiplications) {
    const Plan whole(parse_problem("n2c3k4 i3x4 r9x11 p4x5 f32").problem),
        used(parse_problem("n2c3k4 i3x4 r5x7 p2x3 f32").problem);
    for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad}) {
        const auto of = [&](const Plan& plan) { return plan.candidates(pass).front(); };
        EXPECT_EQ(of(whole).algorithm, of(used).algorithm);
        EXPECT_EQ(of(whole).predicted_seconds, of(used).predicted_seconds);
    }
}

}  // namespace
}  // namespace triconv::test
