// Every algorithm and pass against the reference, on named and on random problems.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "dispatch.h"
#include "engine.h"
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
    in_element_type(named.problem, [&](auto element) {
        expect_close_to_reference<decltype(element)>(named.problem, algorithm, named.name);
    });
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

// Of a filter, whose taps are summed in several groups.
TEST(Bias, IsAddedOnceToSumsOfManyTerms) {
    const Problem problem = parse_problem("n1c1k1 i9300 r9000 p50 f32").problem;
    const LayerData<float> data(problem);
    Options options;
    options.algorithm = "direct";
    const Plan plan(problem, options);
    std::vector<float> with = data.empty_output(Pass::forward), without = with;
    data.run(plan, Pass::forward, without);
    const float bias = 1000;
    plan.forward(data.view(Array::x), data.view(Array::w), &bias, 1,
                 contiguous(shape_of(problem, Array::y), with.data()));
    for (std::size_t i = 0; i < with.size(); ++i)
        ASSERT_NEAR(with[i], without[i] + bias, 0.01) << i;
}

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
            if (algorithm[0] != 'w' || winograd_can(problem))
                in_element_type(problem, [&](auto element) {
                    expect_prepared_gives_the_same_bits<decltype(element)>(problem, algorithm);
                });
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

TEST(Direct, ReadInPlaceAgreesWithTheReference) {
    for (const NamedProblem& named : problems_in("in_place.txt"))
        expect_close_to_reference(named, "direct");
}

// Equal terms, whose rounding errors all point the same way: a sum of max_reduction has at most half as many epsilon.
TEST(Direct, WeightGradOfNarrowMapsSumsFewTermsAtOnce) {
    for (const std::int64_t width : {3, 4, 6, 18, 40}) {
        Problem problem = parse_problem("n1c1k1 i8194x9 r3x3 f32").problem;
        problem.input[1] = width;
        LayerData<float> data(problem);
        std::fill(data.dy.begin(), data.dy.end(), 0.7f);
        Options options;
        options.algorithm = "direct";
        const Plan plan(problem, options);
        for (const float value : {0.51f, 0.87f, 1.13f, 1.39f}) {
            std::fill(data.x.begin(), data.x.end(), value);
            std::vector<float> out = data.empty_output(Pass::weight_grad);
            data.run(plan, Pass::weight_grad, out);
            const double expected =
                static_cast<double>(value) * static_cast<double>(0.7f) * static_cast<double>(8192 * (width - 2));
            for (const float sum : out)
                EXPECT_NEAR(sum / expected, 1, max_reduction / 2 * std::numeric_limits<float>::epsilon()) << width;
        }
    }
}

TEST(Direct, GroupsOfBandsAgreeWithTheReference) {
    for (const NamedProblem& named : problems_in("groups_of_bands.txt"))
        expect_close_to_reference(named, "direct");
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

}  // namespace
}  // namespace triconv::test
