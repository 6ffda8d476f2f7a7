// Tuning returns algorithms that the options allow, and plans take what they are told for each pass.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "layer_data.h"
#include "triconv/triconv.hpp"

namespace triconv::test {
namespace {

constexpr double quick = 0.02;  // seconds per pass

void expect_allowed(const Problem& problem, const Options& options) {
    SCOPED_TRACE(to_string(problem) + " " + options.algorithm);
    Options tuned = options;
    tuned.pass_algorithm = tune(problem, options, quick);
    const Plan plan(problem, tuned);
    for (Pass pass : all_passes) {
        EXPECT_EQ(plan.algorithm(pass), tuned.pass_algorithm[static_cast<std::size_t>(pass)]);
        const std::vector<Candidate> contenders = Plan(problem, options).contenders(pass);
        EXPECT_TRUE(std::any_of(contenders.begin(), contenders.end(),
                                [&](const Candidate& c) { return c.algorithm == plan.algorithm(pass); }));
        if (options.max_workspace >= 0) { EXPECT_LE(plan.workspace_bytes(pass), options.max_workspace); }
    }
}

TEST(Tune, TakesWhatTheOptionsAllow) {
    const Problem problem = parse_problem("n2c8k8 i20x20 r3x3 p1 f32").problem;
    Options options;
    expect_allowed(problem, options);
    expect_allowed(parse_problem("n1c4k4 i9x8x7 r3x3x2 p1 s2 f64").problem, options);
    expect_allowed(parse_problem("n1c16k16 i30 r9 g16 f32").problem, options);
    expect_allowed(parse_problem("n0c4k4 i9x8 r3x3 f32").problem, options);
    expect_allowed(parse_problem("n2c0k4 i9x8 r3x3 f32").problem, options);
    options.max_workspace = 200000;
    expect_allowed(problem, options);
    options = {};
    options.tolerance = 2e-6;
    expect_allowed(problem, options);
    options = {};
    for (const char* algorithm : {"direct", "fft", "winograd", "fft:12"}) {
        options.algorithm = algorithm;
        expect_allowed(problem, options);
    }
}

TEST(Tune, ContendersAreInOrderAndWithinTheTolerance) {
    Options options;
    options.tolerance = 1e-5;
    const Plan plan(parse_problem("n2c64k64 i28x28 r3x3 p1 f32").problem, options);
    for (Pass pass : all_passes) {
        const std::vector<Candidate> contenders = plan.contenders(pass);
        ASSERT_FALSE(contenders.empty());
        EXPECT_EQ(contenders.front().algorithm, plan.algorithm(pass));
        for (std::size_t i = 0; i < contenders.size(); ++i) {
            EXPECT_LE(contenders[i].error_bound, options.tolerance);
            if (i > 0) { EXPECT_GE(contenders[i].predicted_seconds, contenders[i - 1].predicted_seconds); }
        }
    }
}

TEST(PassAlgorithm, IsTakenForItsPassAndCheckedAtOnce) {
    const Problem problem = parse_problem("n2c8k8 i20x20 r3x3 p1 f32").problem;
    Options options;
    options.algorithm = "direct";
    options.pass_algorithm[1] = "fft:10";
    const Plan plan(problem, options);
    EXPECT_EQ(plan.algorithm(Pass::forward), "direct");
    EXPECT_EQ(plan.algorithm(Pass::input_grad), "fft:10x10");
    EXPECT_EQ(plan.algorithm(Pass::weight_grad), "direct");
    for (const char* wrong : {"nothing", "fft:2", "winograd:7"}) {
        options.pass_algorithm[1] = wrong;
        EXPECT_THROW(Plan(problem, options), std::invalid_argument);
    }
}

}  // namespace
}  // namespace triconv::test
