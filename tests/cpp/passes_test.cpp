// Every algorithm and pass against the reference, on named and on random problems.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "dispatch.h"
#include "guarded_buffer.h"
#include "layer_data.h"

namespace triconv::test {
namespace {

// An algorithm's own error bound is relative to the largest sum of |a||b| (Candidate::error_bound).
template <class E>
void expect_close_to_reference(const Problem& problem, const std::string& algorithm, const std::string& name) {
    const LayerData<E> data(problem);
    for (Pass pass : all_passes) {
        SCOPED_TRACE(name + ": " + to_string(problem, pass) + " " + algorithm);
        Options options;
        options.algorithm = algorithm;
        const Plan plan(problem, options);
        std::vector<E> out = data.empty_output(pass);
        const RunInfo info = data.run(plan, pass, out);
        double bound = 0;
        for (const Candidate& candidate : plan.candidates(pass))
            if (candidate.chosen) bound = candidate.error_bound;
        const double largest = data.largest_absolute_sum(pass);
        EXPECT_LE(largest_difference(out, data.reference(pass)), bound * largest + 1e-300) << plan.algorithm(pass);
        EXPECT_EQ(info.recomputed_tiles, 0) << "finite data must not need the reference";
        EXPECT_EQ(info.isa, kernels().f32.isa);
        if (algorithm != "auto") { EXPECT_EQ(info.algorithm.substr(0, algorithm.size()), algorithm); }
        if (algorithm.substr(0, 3) == "fft" && pass == Pass::forward && !out.empty() && problem.in_channels > 0) {
            EXPECT_GT(info.tiles, 0);
        }
    }
}

void expect_close_to_reference(const NamedProblem& named, const std::string& algorithm) {
    if (named.problem.dtype == DType::f32)
        expect_close_to_reference<float>(named.problem, algorithm, named.name);
    else
        expect_close_to_reference<double>(named.problem, algorithm, named.name);
}

bool winograd_can(const Problem& problem) {
    try {
        Options options;
        options.algorithm = "winograd";
        const Plan plan(problem, options);
        return true;
    } catch (const std::invalid_argument&) { return false; }
}

class NamedProblems : public testing::TestWithParam<const char*> {};

TEST_P(NamedProblems, AgreeWithTheReference) {
    int computed = 0;
    for (const NamedProblem& named : problems_in("small.txt")) {
        const std::string algorithm = GetParam();
        if (algorithm == "winograd" && !winograd_can(named.problem)) continue;
        expect_close_to_reference(named, algorithm);
        ++computed;
    }
    EXPECT_GT(computed, 30);
}

INSTANTIATE_TEST_SUITE_P(Algorithms, NamedProblems, testing::Values("direct", "fft", "winograd", "auto"),
                         [](const auto& info) { return std::string(info.param); });

// Tiles other than the cheapest: every FFT length there is a codelet for and some without, every Winograd size.
TEST(Tiles, FixedFftLengths) {
    for (int length : {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 18, 20, 24, 30, 32, 34, 40, 48, 64})
        expect_close_to_reference<float>(parse_problem("n2c5k6 i13x17 r3x3 p1 f32").problem,
                                         "fft:" + std::to_string(length) + "x" + std::to_string(length), "tile");
    expect_close_to_reference<double>(parse_problem("n1c3k4 i9x20 r2x5 p1 f64").problem, "fft:6x16", "tile");
    expect_close_to_reference<float>(parse_problem("n1c3k4 i9x8x20 r2x3x5 p1 f32").problem, "fft:4x9x12", "tile");
}

TEST(Tiles, FixedWinogradOutputs) {
    for (int m = 2; m <= 6; ++m)
        expect_close_to_reference<float>(parse_problem("n2c5k18 i13x17 r3x3 p1 f32").problem,
                                         "winograd:" + std::to_string(m) + "x" + std::to_string(m), "tile");
    for (int m = 2; m <= 4; ++m)
        expect_close_to_reference<float>(parse_problem("n2c5k18 i13x17 r5x5 p1 f32").problem,
                                         "winograd:" + std::to_string(m) + "x" + std::to_string(m), "tile");
    expect_close_to_reference<double>(parse_problem("n2c5k6 i13x17 r5x3 p1 f64").problem, "winograd:2x4", "tile");
    expect_close_to_reference<float>(parse_problem("n1c5k6 i7x9x8 r3x3x3 p1 f32").problem, "winograd:4x2x3", "tile");
}

Problem random_problem(std::mt19937_64& random) {
    const auto draw = [&](std::int64_t lo, std::int64_t hi) {
        return std::uniform_int_distribution<std::int64_t>(lo, hi)(random);
    };
    for (;;) {
        Problem p;
        p.rank = static_cast<int>(draw(1, 3));
        p.batch = draw(1, 3);
        p.groups = draw(0, 2) == 0 ? draw(2, 19) : 1;
        p.in_channels = p.groups * (draw(0, 1) ? 1 : draw(1, p.groups > 4 ? 3 : 21));
        p.out_channels = p.groups * (draw(0, 2) ? draw(1, p.groups > 4 ? 3 : 21) : 1);
        const std::int64_t largest = p.rank == 1 ? 60 : p.rank == 2 ? 20 : 9;
        for (int a = 0; a < p.rank; ++a) {
            p.input[a] = draw(1, largest);
            p.kernel[a] = draw(1, p.rank == 1 ? 20 : p.rank == 2 ? 7 : 4);
            p.stride[a] = draw(0, 1) ? 1 : draw(1, 4);
            p.dilation[a] = draw(0, 1) ? 1 : draw(1, 4);
            p.pad_lo[a] = draw(0, 4);
            p.pad_hi[a] = draw(0, 1) ? p.pad_lo[a] : draw(0, 4);
        }
        p.dtype = draw(0, 3) ? DType::f32 : DType::f64;
        try {
            validate(p);
            return p;
        } catch (const std::invalid_argument&) {}
    }
}

// Every other boundary than zeros, with padding up to wider than the input.
Problem random_extended_problem(std::mt19937_64& random) {
    const auto draw = [&](std::int64_t lo, std::int64_t hi) {
        return std::uniform_int_distribution<std::int64_t>(lo, hi)(random);
    };
    Problem p = random_problem(random);
    p.boundary = static_cast<Boundary>(draw(0, 4));
    if (p.boundary == Boundary::constant) p.fill = draw(0, 1) ? 1.5 : -0.25;
    for (int a = 0; a < p.rank; ++a) {
        if (draw(0, 3) == 0) p.input[a] = draw(1, 3);
        p.pad_lo[a] += draw(0, 2) ? 0 : draw(0, p.rank == 3 ? 4 : 9);
        p.pad_hi[a] += draw(0, 2) ? 0 : draw(0, p.rank == 3 ? 4 : 9);
        const std::int64_t missing = p.dilation[a] * (p.kernel[a] - 1) + 1 - p.input[a] - p.pad_lo[a] - p.pad_hi[a];
        p.pad_hi[a] += std::max<std::int64_t>(0, missing);
    }
    validate(p);
    return p;
}

TEST(Random, AgreesWithTheReference) {
    std::mt19937_64 random(20);
    for (int i = 0; i < 150; ++i) {
        const Problem problem = random_problem(random);
        for (const char* algorithm : {"direct", "fft", "winograd"}) {
            if (algorithm[0] == 'w' && !winograd_can(problem)) continue;
            expect_close_to_reference(NamedProblem{"random " + std::to_string(i), problem}, algorithm);
        }
    }
}

TEST(Random, BoundariesAgreeWithTheReference) {
    std::mt19937_64 random(21);
    for (int i = 0; i < 200; ++i) {
        const Problem problem = random_extended_problem(random);
        for (const char* algorithm : {"direct", "fft", "winograd"}) {
            if (algorithm[0] == 'w' && !winograd_can(problem)) continue;
            expect_close_to_reference(NamedProblem{"random " + std::to_string(i), problem}, algorithm);
        }
    }
}

// <dy, conv(x, w)> = <conv_input(dy, w), x> = <conv_weight(x, dy), w>, in double; the sums differ by rounding only.
TEST(Adjoint, ThePassesAreTransposesOfEachOther) {
    std::mt19937_64 random(4);
    for (int i = 0; i < 80; ++i) {
        Problem problem = i < 40 ? random_problem(random) : random_extended_problem(random);
        problem.dtype = DType::f64;
        problem.fill = 0;
        const LayerData<double> data(problem, static_cast<std::uint64_t>(i));
        for (const char* algorithm : {"direct", "fft"}) {
            SCOPED_TRACE(to_string(problem) + " " + algorithm);
            Options options;
            options.algorithm = algorithm;
            const Plan plan(problem, options);
            double inner[3], magnitude = 0;
            for (Pass pass : all_passes) {
                std::vector<double> out = data.empty_output(pass);
                data.run(plan, pass, out);
                const auto& other = pass == Pass::forward ? data.dy : pass == Pass::input_grad ? data.x : data.w;
                double sum = 0;
                for (std::size_t j = 0; j < out.size(); ++j) {
                    sum += out[j] * other[j];
                    magnitude = std::max(magnitude, std::abs(out[j] * other[j]) * static_cast<double>(out.size()));
                }
                inner[static_cast<int>(pass)] = sum;
            }
            EXPECT_NEAR(inner[0], inner[1], 1e-13 * magnitude);
            EXPECT_NEAR(inner[0], inner[2], 1e-13 * magnitude);
        }
    }
}

// With shared transforms and without: what a step does is up to the cost model.
TEST(StepTest, AgreesWithTheReference) {
    int shared = 0;
    std::vector<NamedProblem> problems = problems_in("small.txt");
    problems.push_back({"shared", parse_problem("n1c8k24 i40x40 r15x15 p7 f32").problem});
    for (const NamedProblem& named : problems) {
        if (named.problem.dtype != DType::f32) continue;
        for (const char* algorithm : {"fft", "winograd", "direct"}) {
            if (algorithm[0] == 'w' && !winograd_can(named.problem)) continue;
            SCOPED_TRACE(named.name + ": " + to_string(named.problem) + " " + algorithm);
            Options options;
            options.algorithm = algorithm;
            const Plan plan(named.problem, options);
            const LayerData<float> data(named.problem);
            Step step(plan, data.view(Array::x), data.view(Array::w));
            std::vector<float> out[3];
            View views[3];
            for (Pass pass : all_passes) {
                out[static_cast<int>(pass)] = data.empty_output(pass);
                views[static_cast<int>(pass)] = contiguous(shape_of(named.problem, LayerData<float>::output_of(pass)),
                                                           out[static_cast<int>(pass)].data());
            }
            step.forward(nullptr, 0, views[0]);
            const RunInfo info = step.backward(data.view(Array::y), views[1], views[2]);
            EXPECT_EQ(info.recomputed_tiles, 0);
            if (algorithm[0] == 'd' || data.x.size() * data.dy.size() == 0 || Layer(named.problem).extended()) {
                EXPECT_FALSE(step.reuses_transforms());
            }
            shared += step.reuses_transforms();
            for (Pass pass : all_passes) {
                double bound = 0;
                for (const Candidate& candidate : plan.candidates(Pass::forward))
                    if (candidate.chosen) bound = candidate.error_bound;
                EXPECT_LE(largest_difference(out[static_cast<int>(pass)], data.reference(pass)),
                          bound * data.largest_absolute_sum(pass) + 1e-300)
                    << to_string(pass);
            }
        }
    }
    EXPECT_GT(shared, 0);
}

// Sharing pays where transforms are most of the work, not in depthwise layers, whose products are little else. What is
// predicted depends on the machine's caches; of two dense layers that shared for every L2 from 256 KiB to 12 MiB, one
// suffices.
TEST(StepTest, SharesTransformsWhereThatIsPredictedToPay) {
    const auto shares = [](const char* text) {
        const Plan plan(parse_problem(text).problem);
        return Step(plan, ConstView{}, ConstView{}).reuses_transforms();
    };
    EXPECT_TRUE(shares("n16c32k32 i28x28 r13x13 p6 f32") || shares("n8c16k16 i56x56 r9x9 p4 f32"));
    EXPECT_FALSE(shares("n8c96k96 i56x56 r7x7 p3 g96 f32"));
    EXPECT_FALSE(shares("n8c128k128 i56x56 r31x31 p15 g128 f32"));
}

TEST(Bias, IsAddedToEachOutputChannel) {
    for (const char* algorithm : {"direct", "fft", "winograd", "few channels"}) {
        const bool few = algorithm == std::string("few channels");
        const Problem problem = parse_problem(few ? "n2c1k3 i9x8 r3x3 p1 f32" : "n2c5k19 i9x8 r3x3 p1 f32").problem;
        const LayerData<float> data(problem);
        Options options;
        options.algorithm = few ? "fft" : algorithm;
        const Plan plan(problem, options);
        std::vector<float> with = data.empty_output(Pass::forward), without = with;
        data.run(plan, Pass::forward, without);
        plan.forward(data.view(Array::x), data.view(Array::w), data.bias.data(), 1,
                     contiguous(shape_of(problem, Array::y), with.data()));
        for (std::size_t i = 0; i < with.size(); ++i)
            ASSERT_EQ(with[i], without[i] + data.bias[i / 72 % data.bias.size()]) << algorithm << " at " << i;
    }
}

// The class of every output is the reference's, and values far from the odd one are computed as ever.
// The weights are overwritten once they are prepared.
template <class E>
void expect_prepared_gives_the_same_bits(const Problem& problem, const std::string& algorithm, bool with_nan = false) {
    LayerData<E> data(problem);
    if (with_nan)
        for (auto* values : {&data.x, &data.dy, &data.w})
            (*values)[values->size() / 2] = std::numeric_limits<E>::quiet_NaN();
    Options options;
    options.algorithm = algorithm;
    const Plan plan(problem, options);
    for (Pass pass : {Pass::forward, Pass::input_grad}) {
        SCOPED_TRACE(to_string(problem, pass) + " " + algorithm);
        std::vector<E> expected = data.empty_output(pass);
        data.run(plan, pass, expected);
        const std::vector<E> kept = data.w;
        const PreparedWeights prepared = plan.prepare(data.view(Array::w), pass);
        std::fill(data.w.begin(), data.w.end(), E(9));
        EXPECT_EQ(prepared.pass(), pass);
        EXPECT_GE(prepared.bytes(), static_cast<std::int64_t>(kept.size() * sizeof(E)));
        for (int repeat = 0; repeat < 2; ++repeat) {
            std::vector<E> out = data.empty_output(pass);
            const View to = contiguous(shape_of(problem, LayerData<E>::output_of(pass)), out.data());
            if (pass == Pass::forward)
                prepared.forward(data.view(Array::x), nullptr, 0, to);
            else
                prepared.input_grad(data.view(Array::y), to);
            EXPECT_TRUE(out.empty() || std::memcmp(out.data(), expected.data(), out.size() * sizeof(E)) == 0);
        }
        data.w = kept;
    }
}

void expect_prepared_gives_the_same_bits(const Problem& problem, const std::string& algorithm) {
    if (problem.dtype == DType::f32)
        expect_prepared_gives_the_same_bits<float>(problem, algorithm);
    else
        expect_prepared_gives_the_same_bits<double>(problem, algorithm);
}

TEST(Prepared, GivesTheSameBits) {
    std::vector<Problem> problems;
    for (const NamedProblem& named : problems_in("small.txt"))
        problems.push_back(named.problem);
    std::mt19937_64 random(8);
    for (int i = 0; i < 40; ++i)
        problems.push_back(i < 20 ? random_problem(random) : random_extended_problem(random));
    problems.push_back(parse_problem("n1c128k128 i14x14 r7x7 p3 g128 f32").problem);  // slices of groups
    problems.push_back(parse_problem("n1c256k256 i7x7 r3x3 p1 f32").problem);         // parts of a group
    for (const Problem& problem : problems)
        for (const char* algorithm : {"auto", "direct", "fft", "winograd"})
            if (algorithm[0] != 'w' || winograd_can(problem)) expect_prepared_gives_the_same_bits(problem, algorithm);
}

TEST(Prepared, ComputesNonFiniteOutputsFromItsCopyOfTheWeights) {
    for (const char* algorithm : {"direct", "fft", "winograd"})
        expect_prepared_gives_the_same_bits<float>(parse_problem("n2c5k6 i13x17 r3x3 p1 f32").problem, algorithm, true);
}

TEST(Prepared, RefusesOtherPassesAndNoWeights) {
    const LayerData<float> data(parse_problem("n2c5k6 i13x17 r3x3 p1 f32").problem);
    const Plan plan(data.problem);
    EXPECT_THROW(plan.prepare(data.view(Array::w), Pass::weight_grad), std::invalid_argument);
    EXPECT_THROW(plan.prepare(ConstView{}), std::invalid_argument);
    const PreparedWeights prepared = plan.prepare(data.view(Array::w));
    std::vector<float> out = data.empty_output(Pass::input_grad);
    EXPECT_THROW(prepared.input_grad(data.view(Array::y), contiguous(shape_of(data.problem, Array::x), out.data())),
                 std::invalid_argument);
    EXPECT_THROW(prepared.forward(data.view(Array::x), nullptr, 0, View{}), std::invalid_argument);
}

TEST(NonFinite, StaysWhereItBelongs) {
    for (const char* text : {"n1c3k18 i30x28 r3x3 p1 f32", "n2c1k1 i60x28 r3x3 p1 f32", "n1c1k2 i700 r9 p4 f32",
                             "n1c17k17 i30x28 r5x5 p2 g17 f32", "n1c4k3 i20x21 r3x3 s2 p1 d3 f32",
                             "n1c3k18 i30x28 r3x3 p1 b=reflect f32", "n2c1k1 i12x14 r7x7 p9 b=mirror f32",
                             "n1c1k2 i300 r9 p4 b=wrap f32", "n1c17k17 i12x10 r5x5 p2 b=nearest g17 f32",
                             "n1c2k3 i9x8 r3x3 s2 p4 d3 b=nearest f32", "n1c1k2 i40 r9 p4 b=constant:1.5 f32",
                             "n1c3k2 i8x7 r3x3 p1 b=constant:nan f32", "n1c2k3 i9 r3 p1 b=constant:inf f32"})
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

void expect_first_output(const LayerData<float>& data, Pass pass, float expected) {
    for (const char* algorithm : {"direct", "fft", "winograd"}) {
        if (algorithm[0] == 'w' && !winograd_can(data.problem)) continue;
        Options options;
        options.algorithm = algorithm;
        std::vector<float> out = data.empty_output(pass);
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

// Products beyond float's range that cancel: what is left is in all digits of the sum, on two levels, too.
TEST(NonFinite, HugeProductsMayCancelPairByPair) {
    LayerData<float> data(parse_problem("n1c1k1 i6 r6 f32").problem);
    data.x = {2.1457279e32f, 2.5877588e27f, 8.1247333e36f, 2.1457279e32f, 2.5877588e27f, 8.1247333e36f};
    data.w = {2.8457713e32f, -1.9268888e24f, -2.8015172e38f, -2.8457713e32f, 1.9268888e24f, 2.8015172e38f};
    expect_first_output(data, Pass::forward, 0);
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
                if (named.problem.dtype == DType::f32)
                    run_all_passes_beside_unmapped_pages<float>(named.problem, side, channels_last);
                else
                    run_all_passes_beside_unmapped_pages<double>(named.problem, side, channels_last);
}

// Of short tasks each once fetched all of a long row ahead: 16 times the length took 250 times as long.
TEST(Depthwise, TimeIsProportionalToTheLength) {
    const auto seconds = [](const char* text) {
        const LayerData<float> data(parse_problem(text).problem);
        Options options;
        options.algorithm = "direct";
        const Plan plan(data.problem, options);
        std::vector<float> out = data.empty_output(Pass::forward);
        double least = INFINITY;
        for (int run = 0; run < 5; ++run) {
            const auto begin = std::chrono::steady_clock::now();
            data.run(plan, Pass::forward, out);
            least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        }
        return least;
    };
    EXPECT_LT(seconds("n1c4k12 i320000 r1 g4 f32"), 64 * seconds("n1c4k12 i20000 r1 g4 f32"));
}

// Bands of few channels, of which many are read where they are in the array.
constexpr const char* read_in_place[] = {"n2c20k3 i30x41 r1x1 f32",
                                         "n3c37k2 i300 r1 f32",
                                         "n1c40k1 i2x250 r1x1 f32",
                                         "n1c6k4 i33x50 r1x1 g2 f64",
                                         "n1c8k2 i40x48 r3x1 f32",
                                         "n1c18k3 i5x20x40 r1x1x1 f32",
                                         "n1c3k2 i6x20x64 r2x1x1 f64",
                                         "n1c4k2 i30x600 r3x3 f32",
                                         "n1c3k3 i40x200 r5x5 p2 g3 f32",
                                         "n2c1k1 i40x600 r5x5 f32",
                                         "n1c1k3 i60x1250 r9x4 p1x3 d2x1 f32",
                                         "n1c1k1 i70x1250 r1x9 p0x4 b=mirror f64",
                                         "n1c1k1 i90x600 r9x2 p1 f32",
                                         "n1c1k1 i5x40x1250 r3x2x4 p1 f32",
                                         "n1c1k1 i9x30x640 r2x3x3 d3x1x1 f64"};

TEST(ReadInPlace, AgreesWithTheReference) {
    for (const char* text : read_in_place)
        expect_close_to_reference(NamedProblem{text, parse_problem(text).problem}, "direct");
}

TEST(Bounds, OfWhatIsReadInPlace) {
    for (const char* text : read_in_place)
        for (Guard side : {Guard::before, Guard::after}) {
            const Problem problem = parse_problem(text).problem;
            if (problem.dtype == DType::f32)
                run_all_passes_beside_unmapped_pages<float>(problem, side, false);
            else
                run_all_passes_beside_unmapped_pages<double>(problem, side, false);
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
    for (const char* text : read_in_place)
        for (Guard side : {Guard::before, Guard::after}) {
            const Problem problem = parse_problem(text).problem;
            if (problem.dtype == DType::f32)
                expect_same_bits_of_rows_apart<float>(problem, side);
            else
                expect_same_bits_of_rows_apart<double>(problem, side);
        }
}

// Every second element of an array twice as long: never read where they are.
template <class E>
void expect_same_bits_of_elements_apart(const Problem& p) {
    const LayerData<E> data(p);
    Options options;
    options.algorithm = "direct";
    const Plan plan(p, options);
    for (Pass pass : {Pass::forward, Pass::input_grad}) {
        const std::vector<E>& source = pass == Pass::forward ? data.x : data.dy;
        std::vector<E> apart(2 * source.size());
        for (std::size_t i = 0; i < source.size(); ++i)
            apart[2 * i] = source[i];
        ConstView view = data.view(pass == Pass::forward ? Array::x : Array::y);
        view.data = apart.data();
        for (std::ptrdiff_t& stride : view.strides)
            stride *= 2;
        std::vector<E> first = data.empty_output(pass), second = first;
        data.run(plan, pass, first);
        const View out = contiguous(shape_of(p, pass == Pass::forward ? Array::y : Array::x), second.data());
        if (pass == Pass::forward)
            plan.forward(view, data.view(Array::w), nullptr, 0, out);
        else
            plan.input_grad(data.view(Array::w), view, out);
        EXPECT_TRUE(first == second) << to_string(p, pass);
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
    for (const char* text : read_in_place) {
        const Problem problem = parse_problem(text).problem;
        if (problem.dtype == DType::f32)
            expect_same_bits_of_elements_apart<float>(problem);
        else
            expect_same_bits_of_elements_apart<double>(problem);
    }
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
            if (problem.dtype == DType::f32)
                expect_same_bits_on_any_threads<float>(problem, algorithm);
            else
                expect_same_bits_on_any_threads<double>(problem, algorithm);
        }
    }
    // Of weight_grad, seven groups of bands: threads take groups or share the work of each.
    for (const char* text : {"n2c3k20 i150x130 r3x3 p1 f32", "n2c20k17 i150x130 r3x3 p1 f32"}) {
        const NamedProblem named{text, parse_problem(text).problem};
        expect_close_to_reference(named, "direct");
        expect_same_bits_on_any_threads<float>(named.problem, "direct");
    }
    set_num_threads(threads_before);
}

}  // namespace
}  // namespace triconv::test
