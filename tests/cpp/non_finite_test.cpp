// NaN, infinities, numbers next to overflow and denormals: the class (finite, NaN, +Inf, -Inf) of every output is that of
// the exact sum, for every algorithm, pass, boundary and element type.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "layer_data.h"

namespace triconv::test {
namespace {

template <class E>
std::string class_of(E value) {
    if (std::isnan(value)) return "NaN";
    return std::isfinite(value) ? "finite" : value > 0 ? "+Inf" : "-Inf";
}

template <class E>
void expect_same_classes(const std::vector<E>& out, const std::vector<E>& expected) {
    ASSERT_EQ(out.size(), expected.size());
    for (std::size_t i = 0; i < out.size(); ++i)
        ASSERT_EQ(class_of(out[i]), class_of(expected[i])) << "output " << i;
}

template <class E>
LayerData<E> data_with_odd_values(const Problem& problem, std::uint64_t seed) {
    using Limits = std::numeric_limits<E>;
    constexpr E odd[] = {Limits::quiet_NaN(),
                         Limits::infinity(),
                         -Limits::infinity(),
                         Limits::max(),
                         -Limits::max(),
                         Limits::denorm_min(),
                         E(0)};
    LayerData<E> data(problem, seed);
    std::mt19937_64 random(seed);
    for (auto* values : {&data.x, &data.w, &data.dy, &data.bias})
        for (std::uint64_t count = random() % 3; count > 0; --count)
            (*values)[random() % values->size()] = odd[random() % std::size(odd)];
    return data;
}

template <class E>
using Outputs = std::array<std::vector<E>, pass_count>;

// The passes by themselves, in a step, and with prepared weights.
template <class E>
void expect_classes(const LayerData<E>& data, const std::string& algorithm, const Outputs<E>& expected) {
    const Problem& problem = data.problem;
    Options options;
    options.algorithm = algorithm;
    const Plan plan(problem, options);
    Outputs<E> of_step;
    std::array<View, pass_count> views;
    for (Pass pass : all_passes) {
        const auto i = static_cast<std::size_t>(pass);
        of_step[i] = data.empty_output(pass);
        views[i] = contiguous(shape_of(problem, LayerData<E>::output_of(pass)), of_step[i].data());
    }
    Step step(plan, data.view(Array::x), data.view(Array::w));
    step.forward(nullptr, 0, views[0]);
    step.backward(data.view(Array::y), views[1], views[2]);
    for (Pass pass : all_passes) {
        SCOPED_TRACE(to_string(problem, pass) + " " + algorithm);
        const auto i = static_cast<std::size_t>(pass);
        std::vector<E> out = data.empty_output(pass);
        data.run(plan, pass, out);
        expect_same_classes(out, expected[i]);
        SCOPED_TRACE("in a step");
        expect_same_classes(of_step[i], expected[i]);
    }
    SCOPED_TRACE(to_string(problem) + " prepared, " + algorithm);
    std::vector<E> y = data.empty_output(Pass::forward), dx = data.empty_output(Pass::input_grad);
    plan.prepare(data.view(Array::w))
        .forward(data.view(Array::x), nullptr, 0, contiguous(shape_of(problem, Array::y), y.data()));
    expect_same_classes(y, expected[0]);
    plan.prepare(data.view(Array::w), Pass::input_grad)
        .input_grad(data.view(Array::y), contiguous(shape_of(problem, Array::x), dx.data()));
    expect_same_classes(dx, expected[1]);
}

constexpr const char* algorithms[] = {"direct", "fft", "winograd"};

template <class E>
void expect_classes_of_the_reference(const Problem& problem) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        const LayerData<E> data = data_with_odd_values<E>(problem, seed);
        Outputs<E> expected;
        for (Pass pass : all_passes)
            expected[static_cast<std::size_t>(pass)] = data.reference(pass);
        for (const char* algorithm : algorithms)
            expect_classes(data, algorithm, expected);
    }
}

TEST(NonFiniteClass, IsThatOfTheReference) {
    constexpr const char* layers[] = {
        "n2c3k18 i11x10 r3x3 p1",  "n1c1k2 i90 r7 p4",      "n1c17k17 i9x10 r3x3 p1 g17", "n1c3k2 i13x12 r3x3 s2 p1 d3",
        "n1c2k3 i5x6x4 r2x3x3 p1", "n2c2k2 i7x6 r5x5 p5x9", "n1c5k10 i8x9 r3x3 p1 g5",    "n2c2k2 i2x3 r7x5 p3x2"};
    constexpr const char* boundaries[] = {"", " b=constant:1.5", " b=nearest", " b=reflect", " b=mirror", " b=wrap"};
    for (const char* layer : layers)
        for (const char* boundary : boundaries) {
            expect_classes_of_the_reference<float>(parse_problem(layer + std::string(boundary) + " f32").problem);
            expect_classes_of_the_reference<double>(parse_problem(layer + std::string(boundary) + " f64").problem);
        }
}

template <class E>
std::vector<E> output_of(const LayerData<E>& data, Pass pass, const std::string& algorithm, const E* bias = nullptr) {
    Options options;
    options.algorithm = algorithm;
    const Plan plan(data.problem, options);
    std::vector<E> out = data.empty_output(pass);
    if (bias)
        plan.forward(data.view(Array::x), data.view(Array::w), bias, 1,
                     contiguous(shape_of(data.problem, Array::y), out.data()));
    else
        data.run(plan, pass, out);
    return out;
}

// Denormals are zeros in the kernels, but a denormal times an infinity is not zero times an infinity.
template <class E>
void expect_denormals_to_meet_infinities(const std::string& problem) {
    LayerData<E> data(parse_problem(problem).problem);
    std::fill(data.x.begin(), data.x.end(), std::numeric_limits<E>::denorm_min());
    std::fill(data.w.begin(), data.w.end(), std::numeric_limits<E>::infinity());
    std::fill(data.dy.begin(), data.dy.end(), -std::numeric_limits<E>::denorm_min());
    for (const char* algorithm : algorithms) {
        for (E y : output_of(data, Pass::forward, algorithm))
            ASSERT_EQ(y, std::numeric_limits<E>::infinity()) << algorithm;
        for (E dx : output_of(data, Pass::input_grad, algorithm))
            ASSERT_EQ(dx, -std::numeric_limits<E>::infinity()) << algorithm;
        LayerData<E> other = data;
        std::fill(other.dy.begin(), other.dy.end(), std::numeric_limits<E>::infinity());
        for (E dw : output_of(other, Pass::weight_grad, algorithm))
            ASSERT_EQ(dw, std::numeric_limits<E>::infinity()) << algorithm;
    }
}

TEST(NonFiniteClass, ADenormalTimesAnInfinityIsInfinite) {
    expect_denormals_to_meet_infinities<float>("n2c3k5 i9x8 r3x3 f32");
    expect_denormals_to_meet_infinities<double>("n2c3k5 i9x8 r3x3 f64");
    expect_denormals_to_meet_infinities<float>("n2c6k6 i9x8 r3x3 g6 f32");
}

// Terms that overflow on the way in some orders: their sum does not, so no algorithm's result may.
TEST(NonFiniteClass, SumsMayOverflowOnTheWay) {
    LayerData<double> data(parse_problem("n1c4k1 i3 r3 f64").problem);
    constexpr double huge = 1.5e308;
    std::fill(data.w.begin(), data.w.end(), 1);
    std::vector<double> terms = {huge, huge, -huge, -huge, huge, -huge, 1, 2, 3, 4, 5, 6};
    for (std::size_t shift = 0; shift < terms.size(); ++shift) {
        std::rotate_copy(terms.begin(), terms.begin() + static_cast<std::ptrdiff_t>(shift), terms.end(),
                         data.x.begin());
        EXPECT_TRUE(std::isfinite(data.reference(Pass::forward)[0])) << shift;
        for (const char* algorithm : algorithms)
            EXPECT_TRUE(std::isfinite(output_of(data, Pass::forward, algorithm)[0])) << algorithm << ' ' << shift;
    }
    data.x = terms;
    EXPECT_EQ(data.reference(Pass::forward)[0], 21);
}

// The rounding error of an addition is found by going back from the total, which may overflow where the total does not.
TEST(NonFiniteClass, ASumNextToTheLargestNumberIsFinite) {
    LayerData<double> data(parse_problem("n1c1k1 i2 r2 f64").problem);
    constexpr double largest = std::numeric_limits<double>::max();
    data.w = {1, 1};
    data.x = {0x1.8p971, -largest};  // the total is rounded away from the first
    EXPECT_EQ(data.reference(Pass::forward)[0], 0x1.8p971 - largest);
}

// The bias is a term of the sum: it may bring back what has overflowed without it, and the other way round.
template <class E>
void expect_bias_to_be_a_term(const std::string& problem) {
    constexpr E largest = std::numeric_limits<E>::max();
    LayerData<E> data(parse_problem(problem).problem);
    std::fill(data.x.begin(), data.x.end(), largest);
    std::fill(data.w.begin(), data.w.end(), E(0.5));
    const E bias[] = {-largest, 0, largest};
    for (const char* algorithm : algorithms) {
        const std::vector<E> out = output_of(data, Pass::forward, algorithm, bias);
        const std::size_t outputs = out.size() / 3;
        for (std::size_t i = 0; i < outputs; ++i) {
            EXPECT_NEAR(out[i] / largest, 0.5, 1e-5) << algorithm;
            EXPECT_EQ(out[i + outputs], std::numeric_limits<E>::infinity()) << algorithm;
            EXPECT_EQ(out[i + 2 * outputs], std::numeric_limits<E>::infinity()) << algorithm;
        }
    }
}

TEST(NonFiniteClass, TheBiasIsATermOfTheSum) {
    expect_bias_to_be_a_term<float>("n1c1k3 i20 r3 f32");
    expect_bias_to_be_a_term<double>("n1c1k3 i20 r3 f64");
    expect_bias_to_be_a_term<float>("n1c3k3 i20 r3 g3 f32");
}

// Where the samples are zeros, the bias is the result, although a tile's rounding errors may take their sum past the
// largest number.
template <class E>
void expect_bias_not_to_overflow(const std::string& problem) {
    constexpr E largest = std::numeric_limits<E>::max();
    LayerData<E> data(parse_problem(problem).problem);
    const E bias[] = {largest, -largest};
    std::mt19937_64 random(1);
    for (E scale : {E(0.25), E(0.1), E(0.03)}) {
        std::uniform_real_distribution<E> sample(-scale * largest, scale * largest);
        for (std::size_t i = 0; i < data.x.size(); ++i)
            data.x[i] = i % 10 < 6 ? E(0) : sample(random);
        for (const char* algorithm : algorithms) {
            const std::vector<E> out = output_of(data, Pass::forward, algorithm, bias);
            const std::size_t outputs = out.size() / 2;
            for (std::size_t i = 0; i < outputs; ++i) {
                if (i % 10 >= 4) continue;
                ASSERT_EQ(out[i], bias[0]) << algorithm << ' ' << i;
                ASSERT_EQ(out[i + outputs], bias[1]) << algorithm << ' ' << i;
            }
        }
    }
}

TEST(NonFiniteClass, RoundingErrorsDoNotOverflowWithTheBias) {
    expect_bias_not_to_overflow<float>("n1c1k2 i400 r3 f32");
    expect_bias_not_to_overflow<double>("n1c1k2 i400 r3 f64");
}

// The class of every output is the reference's, and values far from the odd one are computed as ever.
TEST(NonFinite, StaysWhereItBelongs) {
    for (const char* text :
         {"n1c3k18 i30x28 r3x3 p1 f32", "n2c1k1 i60x28 r3x3 p1 f32", "n1c1k2 i700 r9 p4 f32",
          "n1c17k17 i30x28 r5x5 p2 g17 f32", "n1c4k3 i20x21 r3x3 s2 p1 d3 f32", "n1c3k18 i30x28 r3x3 p1 b=reflect f32",
          "n2c1k1 i12x14 r7x7 p9 b=mirror f32", "n1c1k2 i300 r9 p4 b=wrap f32",
          "n1c17k17 i12x10 r5x5 p2 b=nearest g17 f32", "n1c2k3 i9x8 r3x3 s2 p4 d3 b=nearest f32",
          "n1c1k2 i40 r9 p4 b=constant:1.5 f32", "n1c3k2 i8x7 r3x3 p1 b=constant:nan f32",
          "n1c2k3 i9 r3 p1 b=constant:inf f32", "n1c1k1 i24x150 r5x3 p4x1 d2x1 f32", "n1c1k1 i4700 r4500 p30 f32"})
        for (const char* algorithm : {"direct", "fft", "winograd"})
            for (float odd : {NAN, INFINITY, -INFINITY})
                for (int where = 0; where < 3; ++where) {
                    const Problem problem = parse_problem(text).problem;
                    if (algorithm[0] == 'w' && !winograd_can(problem)) continue;
                    LayerData<float> data(problem);
                    auto& values = where == 0 ? data.x : where == 1 ? data.w : data.dy;
                    values[values.size() / 3] = odd;
                    Options options;
                    options.algorithm = algorithm;
                    const Plan plan(problem, options);
                    for (Pass pass : all_passes) {
                        SCOPED_TRACE(to_string(problem, pass) + " " + algorithm);
                        std::vector<float> out = data.empty_output(pass);
                        data.run(plan, pass, out);
                        const std::vector<float> expected = data.reference(pass);
                        for (std::size_t i = 0; i < out.size(); ++i) {
                            ASSERT_EQ(std::isnan(out[i]), std::isnan(expected[i])) << i;
                            if (std::isnan(expected[i])) continue;
                            if (std::isinf(expected[i])) {
                                ASSERT_EQ(out[i], expected[i]) << i;
                            } else {
                                ASSERT_NEAR(out[i], expected[i], 1e-3) << i;
                            }
                        }
                    }
                }
}

template <class E>
void expect_first_output(const LayerData<E>& data, Pass pass, E expected) {
    for (const char* algorithm : {"direct", "fft", "winograd"}) {
        if (algorithm[0] == 'w' && !winograd_can(data.problem)) continue;
        Options options;
        options.algorithm = algorithm;
        std::vector<E> out = data.empty_output(pass);
        data.run(Plan(data.problem, options), pass, out);
        EXPECT_EQ(out[0], expected) << to_string(data.problem, pass) << ", " << algorithm;
    }
}

// The gradient of the array's own positions overflows, its sum with that of the padding does not.
TEST(NonFinite, FoldedGradientsMayOverflowOnTheWay) {
    LayerData<float> data(parse_problem("n1c1k1 i2 r2 p1 b=nearest f32").problem);
    data.w = {-1, 1};
    data.dy = {3e38f, -3e38f, 1};
    const std::vector<float> expected = data.reference(Pass::input_grad);
    EXPECT_TRUE(std::isfinite(expected[0]));
    expect_first_output(data, Pass::input_grad, expected[0]);
}

// Products beyond the range that cancel: what is left is in all digits of the sum, on two levels, too.
template <class E>
void expect_huge_products_to_cancel(const char* text, E scale) {
    LayerData<E> data(parse_problem(text).problem);
    const E x[] = {E(2.1457279e32), E(2.5877588e27), E(8.1247333e36)};
    const E w[] = {E(2.8457713e32), E(-1.9268888e24), E(-2.8015172e38)};
    for (std::size_t i = 0; i < 3; ++i) {
        data.x[i] = data.x[i + 3] = x[i];
        data.w[i] = w[i] * scale;
        data.w[i + 3] = -data.w[i];
    }
    expect_first_output(data, Pass::forward, E(0));
}
TEST(NonFinite, HugeProductsMayCancelPairByPair) {
    expect_huge_products_to_cancel<float>("n1c1k1 i6 r6 f32", 1);
    expect_huge_products_to_cancel<double>("n1c1k1 i6 r6 f64", 1e260);
}

// What is left is smaller than the errors of the largest products, and comes between them.
TEST(NonFinite, HugeProductsMayCancelOnTwoLevels) {
    LayerData<float> single(parse_problem("n1c1k1 i5 r5 f32").problem);
    single.x = {3e38f, 1e28f, 1e30f, 3e38f, 1e28f};
    single.w = {3e38f, 1e28f, 1, -3e38f, -1e28f};
    expect_first_output(single, Pass::forward, 1e30f);
    LayerData<double> data(parse_problem("n1c1k1 i5 r5 f64").problem);
    data.x = {0x1p600, 0x1p560, 0x1p1020, 0x1p600, 0x1p560};  // partial sums overflow
    data.w = {0x1p600, 0x1p560, 1, -0x1p600, -0x1p560};
    expect_first_output(data, Pass::forward, 0x1p1020);
    data.x = data.w = {0x1p500, 0x1p470, 0x1p440, 0x1p500, 0x1p470};
    data.w[3] = -data.w[3], data.w[4] = -data.w[4];
    EXPECT_EQ(data.reference(Pass::forward)[0], 0x1p880);
}

// Products beyond float's range that cancel: what is left is in all digits of the sum.
TEST(NonFinite, HugeProductsMayCancel) {
    for (const char* text : {"n1c1k3 i2 r2 p1 b=nearest f32", "n1c1k3 i2 r2 p1 f32"}) {
        LayerData<float> data(parse_problem(text).problem);
        constexpr float huge = 3e38f;
        data.w = {huge, huge, 0, 1, huge, 0};
        data.dy = {huge, -huge, 0, 1e30f, 0, 0, -huge, 0, 0};
        expect_first_output(data, Pass::input_grad, 1e30f);
    }
}

}  // namespace
}  // namespace triconv::test
