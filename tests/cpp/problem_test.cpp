// The text form of problems, and the checks made before any work.
#include <gtest/gtest.h>

#include <chrono>
#include <locale>
#include <set>
#include <string>
#include <utility>

#include "layer_data.h"

namespace triconv::test {
namespace {

TEST(ProblemText, RoundTrips) {
    for (const char* text : {"n8c64k64 i56x56 r7x7 p3 f32 fwd", "n1c2k4 i30 r5 s2 p1:2 d3 f64 bwd_weight",
                             "n2c8k8 i5x6x7 r3x3x1 s1x2x1 p1x1x0 g4 f32 bwd_input", "n0c3k4 i5x5 r3x3 f32 fwd",
                             "n1c2k4 i30 r5 p9 b=reflect f32 fwd", "n1c2k4 i3x4 r5x5 p9:0x8 b=constant:-0.1 f32 fwd",
                             "n1c2k4 i5 r3 b=constant:5e-324 f64 fwd", "n1c2k4 i5 r3 b=constant:-1.5e+300 f64 fwd",
                             "n1c2k4 i5 r3 b=constant:-inf f64 fwd", "n1c2k4 i5 r3 b=constant:nan f64 fwd"}) {
        const ProblemAndPass parsed = parse_problem(text);
        EXPECT_EQ(to_string(parsed.problem, parsed.pass), text);
    }
}

// Of a locale that groups digits, say.
TEST(ProblemText, DoesNotDependOnTheGlobalLocale) {
    struct Grouping : std::numpunct<char> {
        char do_thousands_sep() const override { return ','; }
        std::string do_grouping() const override { return "\3"; }
    };
    const std::string text = "n1c1k2 i12345 r3 f32";
    const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Grouping));
    const std::string written = to_string(parse_problem(text).problem);
    std::locale::global(before);
    EXPECT_EQ(written, text);
}

TEST(ProblemText, RejectsWhatItCannotRead) {
    for (const char* text : {"", "n1c2k3", "n1c2k3 i5x5 r3x3x3", "n1c2k3 i5x5x5x5 r3", "n1c2 i5 r3", "q4 i5 r3",
                             "n1c2k3 i5 r3 s", "n1c2k3 i5 r3 p1x2", "n1c2k3 i5 r3 f16", "n1c2k3 i5 r3 b",
                             "n1c2k3 i5 r3 b=", "n1c2k3 i5 r3 b=zeros", "n1c2k3 i5 r3 b=constant:x",
                             "n1c2k3 i5 r3 b=constant:1x", "n1c2k3 i5 r3 b=constant:", "n1c2k3 i5 r3 b=constant:0x10",
                             "n1c2k3 i5 r3 b=constant:1e999", "n1c2k3 i5 r3 b=constant:1,5", "n1c2k3 i5 r3 b=wrap:1"})
        EXPECT_THROW(parse_problem(text), std::invalid_argument) << text;
}

std::string message_of(const Problem& problem, const Options& options = {}) {
    try {
        const Plan plan(problem, options);
    } catch (const std::invalid_argument& error) { return error.what(); }
    return "";
}

TEST(ProblemChecks, NameTheArgumentItsValueAndWhatWasExpected) {
    const Problem good = parse_problem("n1c4k6 i8x8 r3x3 f32").problem;
    EXPECT_EQ(message_of(good), "");
    const auto changed = [&](auto change) {
        Problem p = good;
        change(p);
        return message_of(p);
    };
    EXPECT_EQ(changed([](Problem& p) { p.rank = 4; }), "rank is 4, expected 1, 2 or 3");
    EXPECT_EQ(changed([](Problem& p) { p.groups = 3; }), "in_channels is 4, expected a multiple of groups = 3");
    EXPECT_EQ(changed([](Problem& p) { p.stride[1] = 0; }), "stride (width) is 0, expected at least 1");
    EXPECT_EQ(changed([](Problem& p) { p.dilation[0] = -2; }), "dilation (height) is -2, expected at least 1");
    EXPECT_EQ(changed([](Problem& p) { p.pad_lo[0] = -1; }), "padding (height) is -1, expected at least 0");
    EXPECT_EQ(changed([](Problem& p) {
                  p.boundary = Boundary::mirror;
                  p.fill = 2.5;
              }),
              "fill is 2.5, expected 0 with boundary 'mirror'");
    EXPECT_EQ(changed([](Problem& p) { p.kernel[0] = 9; }),
              "kernel is larger than the padded input (height): kernel spans 9, expected at most 8 = 8 + 0 + 0");
    EXPECT_NE(
        changed([](Problem& p) { p.batch = p.in_channels = p.out_channels = std::int64_t{1} << 30; }).find("overflows"),
        std::string::npos);
}

TEST(PlanChecks, NameWhatCannotBeDone) {
    const Problem problem = parse_problem("n1c4k6 i18x18 r9x9 f32").problem;
    Options options;
    options.algorithm = "magic";
    EXPECT_NE(message_of(problem, options).find("'magic', expected 'auto', 'direct', 'fft' or 'winograd'"),
              std::string::npos);
    options.algorithm = "winograd";
    EXPECT_NE(message_of(problem, options).find("winograd has no transform for 9 taps along the height"),
              std::string::npos);
    options.algorithm = "fft:8";
    EXPECT_NE(message_of(problem, options).find("FFT tile of 8, expected at least 9"), std::string::npos);
    for (const char* text : {"fft:", "fft:16x", "fft:16x16x16", "direct:4", "fft:0", "fft:99999999999", "", ",",
                             "direct,", ",fft", "auto,fft", "direct, fft", "direct,fft:16", "fft:16,direct",
                             "direct,magic", "fft,fft", "direct,fft,direct"}) {
        options.algorithm = text;
        EXPECT_NE(message_of(problem, options).find("expected 'auto'"), std::string::npos) << text;
    }
    options.algorithm = "auto";
    options.max_workspace = 100;
    EXPECT_NE(message_of(problem, options).find("max_workspace is 100 bytes, expected at least"), std::string::npos);
    options.max_workspace = -1;
    options.tolerance = 1e-12;
    EXPECT_NE(message_of(problem, options).find("tolerance is 1e-12, expected at least "), std::string::npos);
}

// Neither hangs nor fills the memory.
TEST(PlanChecks, ListsBeyondAnyMemoryRunOutOfIt) {
    const auto start = std::chrono::steady_clock::now();
    for (const char* text :
         {"n1c1k1 i549755813888 r549755813888 f32",        // taps
          "n1c1k1 i1000000000000 r1000 d1000000000 f32",   // phases of the outputs
          "n1c1k1 i1000000000 r500000000 s499999999 f32",  // phases of the kernel
          "n1c1099511627776k1099511627776 i1 r1 g1099511627776 f32", "n1c0k0 i1 r1 g1099511627776 f32"}) {
        const Plan plan(parse_problem(text).problem);
        for (Pass pass : all_passes)
            EXPECT_THROW(plan.workspace_bytes(pass), std::bad_alloc) << text;
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

// Extents that do not fit an int must not be cut down to one that does.
TEST(PlanChecks, KernelsBeyondTheTransformsAreRefused) {
    Problem problem = parse_problem("n1c1k1 i5 r3 f32").problem;
    problem.input[0] = problem.kernel[0] = (std::int64_t{1} << 32) + 3;
    for (const char* algorithm : {"fft", "fft:16", "winograd", "winograd:2"}) {
        Options options;
        options.algorithm = algorithm;
        EXPECT_NE(message_of(problem, options).find("has no transform for 4294967299 taps"), std::string::npos)
            << algorithm;
    }
}

// A large workspace is avoided by "auto", but not at the price of a far slower algorithm.
TEST(PlanChecks, AutoTakesALargeWorkspaceOnlyWhenItMust) {
    const Plan plan(parse_problem("n1c256k256 i64x64 r31x31 p15 f32").problem);
    for (Pass pass : all_passes) {
        double chosen = 0, modest = INFINITY;
        std::int64_t bytes = 0;
        for (const Candidate& candidate : plan.candidates(pass)) {
            if (candidate.chosen) {
                chosen = candidate.predicted_seconds;
                bytes = candidate.workspace_bytes;
            } else if (candidate.possible && candidate.workspace_bytes <= std::int64_t{1} << 30) {
                modest = std::min(modest, candidate.predicted_seconds);
            }
        }
        EXPECT_TRUE(bytes <= std::int64_t{5} << 28 || modest > 4 * chosen) << plan.algorithm(pass);
    }
    const Plan large(parse_problem("n1c3k16 i2000x2000 r301x301 f32").problem);
    EXPECT_EQ(large.algorithm(Pass::weight_grad).substr(0, 3), "fft");
}

TEST(PlanChecks, SeveralAlgorithmsMayBeNamed) {
    const Problem problem = parse_problem("n2c32k32 i40x40 r3x3 p1 f32").problem;
    const auto names_of = [&](const std::string& algorithm) {
        Options options;
        options.algorithm = algorithm;
        std::set<std::string> names;
        for (const Candidate& c : Plan(problem, options).candidates(Pass::forward))
            names.insert(c.algorithm.substr(0, c.algorithm.find(':')));
        return names;
    };
    EXPECT_EQ(names_of("auto"), (std::set<std::string>{"direct", "fft", "winograd"}));
    EXPECT_EQ(names_of("winograd,direct"), (std::set<std::string>{"direct", "winograd"}));
    EXPECT_EQ(names_of("direct,fft"), (std::set<std::string>{"direct", "fft"}));
}

// What one of them can do, they can: its smallest workspace, its least error bound.
TEST(PlanChecks, SeveralAlgorithmsReachAsFarAsOne) {
    for (const char* text :
         {"n1c1k1 i1000x1000 r15x15 f32", "n1c3k8 i300x300 r9x9 f32", "n1c8k8 i20x20x20 r4x4x4 f32"}) {
        const Problem problem = parse_problem(text).problem;
        Options options;
        options.algorithm = "fft";
        options.max_workspace = 1;
        const std::string message = message_of(problem, options), before = "expected at least ";
        options.max_workspace = std::stoll(message.substr(message.find(before) + before.size()));
        EXPECT_EQ(message_of(problem, options).find("for forward"), std::string::npos) << text;
        options.algorithm = "fft,winograd";
        EXPECT_EQ(message_of(problem, options).find("for forward"), std::string::npos) << text;
    }
    Options options;
    options.algorithm = "fft,winograd";
    const Problem no_tile = parse_problem("n1c1k1 i1100x1100x1100 r1100x1100x1100 f32").problem;
    EXPECT_NE(message_of(no_tile, options).find("'fft,winograd' cannot compute this layer: "), std::string::npos);
}

// Of a large image 5 % with two threads, else three padded spectra, unless all such tiles are predicted to be far slower.
TEST(PlanChecks, FiltersLeaveItAtAModestWorkspace) {
    for (auto [text, limit] : {std::pair{"n1c1k1 i256x256x256 r15x15x15 p7 f32", 3.36e6},
                               std::pair{"n1c1k1 i1000000 r100000 p99999 f32", 13.2e6},
                               std::pair{"n1c1k1 i1000000 r100000 p99999 f64", 26.4e6},
                               std::pair{"n1c2k2 i1000000 r100000 p99999 f32", 26.4e6}}) {
        const Plan plan(parse_problem(text).problem);
        double chosen = 0, modest = INFINITY;
        for (const Candidate& c : plan.candidates(Pass::forward)) {
            if (c.chosen) chosen = c.predicted_seconds;
            if (c.possible && static_cast<double>(c.workspace_bytes) < 0.5 * limit)
                modest = std::min(modest, c.predicted_seconds);
        }
        const auto bytes = static_cast<double>(plan.workspace_bytes(Pass::forward, 2));
        EXPECT_TRUE(bytes < limit || modest > 1.3 * chosen)
            << text << ": " << plan.algorithm(Pass::forward) << ", " << bytes;
    }
}

// Two threads, of inputs above 64 MB: 5 % where the kernel is far below 1 % of it, the least at twice the time next to that.
TEST(PlanChecks, FiltersOfLargeInputsTakeAShareOfThem) {
    constexpr std::pair<const char*, double> shares[] = {
        {"n1c1k1 i20000000 r1000 p999", 0.05},       {"n1c1k1 i4608x4608 r101x101 p100", 0.05},
        {"n1c1k1 i260x260x260 r15x15x15 p14", 0.05}, {"n1c1k1 i20000000 r190000 p189999", 0.10},
        {"n1c1k1 i4608x4608 r450x450 p449", 0.25},   {"n1c1k1 i260x260x260 r50x50x50 p49", 1.0}};
    for (const auto& [text, share] : shares) {
        const Problem problem = parse_problem(std::string(text) + " f32").problem;
        double bytes = 4;
        for (int a = 0; a < problem.rank; ++a)
            bytes *= static_cast<double>(problem.input[a]);
        Options options;
        options.algorithm = "direct,fft";
        EXPECT_LE(static_cast<double>(Plan(problem, options).workspace_bytes(Pass::forward, 2)), share * bytes) << text;
    }
}

TEST(PlanChecks, WorkspaceLimitIsKept) {
    const Problem problem = parse_problem("n2c32k32 i40x40 r5x5 p2 f32").problem;
    Options options;
    const Plan plain(problem, options);
    for (Pass pass : all_passes)
        EXPECT_GT(plain.workspace_bytes(pass), 0);
    options.algorithm = "fft";
    for (std::int64_t limit : {1 << 19, 1 << 20, 1 << 21, 1 << 22, 1 << 24}) {
        options.max_workspace = limit;
        try {
            const Plan plan(problem, options);
            for (Pass pass : all_passes)
                EXPECT_LE(plan.workspace_bytes(pass), limit);
        } catch (const std::invalid_argument&) { EXPECT_LT(limit, 1 << 21); }
    }
}

// Direct weight_grad takes more to keep its threads apart, unless there is no room: that changes no bit.
TEST(PlanChecks, DirectWeightGradMakesDoWithLess) {
    const LayerData<float> data(parse_problem("n8c64k64 i56x56 r3x3 p1 f32").problem);
    Options options;
    options.algorithm = "direct";
    const Plan plan(data.problem, options);
    std::vector<float> out = data.empty_output(Pass::weight_grad), modest = out;
    data.run(plan, Pass::weight_grad, out);
    options.max_workspace = 1 << 20;
    EXPECT_GT(plan.workspace_bytes(Pass::weight_grad, 1), options.max_workspace);
    const Plan limited(data.problem, options);
    EXPECT_LE(limited.workspace_bytes(Pass::weight_grad, 8), options.max_workspace);
    data.run(limited, Pass::weight_grad, modest);
    EXPECT_TRUE(out == modest);
}

// Dot products need planes of all channels in a buffer (with 16 lanes 280 KB here), the other ways do not.
TEST(PlanChecks, WeightGradOfFewPairsMakesDoWithLess) {
    const LayerData<float> data(parse_problem("n2c16k1 i64x64 r1x1 f32").problem);
    Options options;
    options.algorithm = "direct";
    options.max_workspace = 256 << 10;
    const Plan plan(data.problem, options);
    EXPECT_LE(plan.workspace_bytes(Pass::weight_grad, 1), options.max_workspace);
    std::vector<float> out = data.empty_output(Pass::weight_grad);
    data.run(plan, Pass::weight_grad, out);
    const std::vector<float> expected = data.reference(Pass::weight_grad);
    const double bound = plan.candidates(Pass::weight_grad).front().error_bound;
    EXPECT_LE(largest_difference(out, expected), bound * data.largest_absolute_sum(Pass::weight_grad));
}

// Complex products take 3 multiplications in matrices, 4 lane by lane.
TEST(PlanChecks, CountsMultiplications) {
    const auto count = [](const char* problem, const char* algorithm, Pass pass) {
        Options options;
        options.algorithm = algorithm;
        return Plan(parse_problem(problem).problem, options).candidates(pass).front().multiplications;
    };
    for (const Pass pass : all_passes) {
        EXPECT_EQ(count("n1c16k16 i14x14 r3x3 p1 f32", "fft:16x16", pass), 16 * 16 * (4 + 3 * 126));
        EXPECT_EQ(count("n1c16k16 i14x14 r3x3 p1 f32", "direct", pass), 16 * 16 * 14 * 14 * 9);
    }
    EXPECT_EQ(count("n1c64k64 i56x56 r31x31 p15 g64 f32", "fft:72x72", Pass::weight_grad), 64 * (4 + 4 * 2590));
}

// Besides the weights. The outputs of a band are those of all phases.
TEST(PlanChecks, BandsOfJoinedPhasesStaySmall) {
    Options options;
    options.algorithm = "direct";
    const Plan plan(parse_problem("n1c64k64 i131072 r16 s16 f32").problem, options);
    EXPECT_LE(plan.workspace_bytes(Pass::input_grad, 1), 64 * 64 * 16 * 4 + (512 << 10));
}

// Of an input gradient in parts that follow each other, too, and with as many threads as fit.
TEST(PlanChecks, WorkspaceLimitIsKeptWithCopiesInThePadding) {
    const Problem problem = parse_problem("n2c32k32 i40x40 r5x5 p2 b=reflect f32").problem;
    const LayerData<float> data(problem);
    const std::vector<float> expected = data.reference(Pass::input_grad);
    set_num_threads(8);
    for (std::int64_t limit : {1 << 19, 3 << 19, 1 << 22, 1 << 24}) {
        Options options;
        options.max_workspace = limit;
        const Plan plan(problem, options);
        EXPECT_LE(plan.workspace_bytes(Pass::input_grad), limit);
        std::vector<float> out = data.empty_output(Pass::input_grad);
        data.run(plan, Pass::input_grad, out);
        EXPECT_LE(largest_difference(out, expected), 1e-4 * data.largest_absolute_sum(Pass::input_grad));
    }
    set_num_threads(2);
}

TEST(PlanChecks, AutoKeepsAwayFromTheLeastAccurateTiles) {
    for (const char* text : {"n2c64k64 i32x32x32 r3x3x3 p1 f32", "n2c64k64 i32x32x32 r3x3x3 p1 f64"}) {
        const Problem problem = parse_problem(text).problem;
        const double epsilon = problem.dtype == DType::f32 ? 1.2e-7 : 2.3e-16;
        const Plan plan(problem);
        bool removed = false;
        for (Pass pass : all_passes)
            for (const Candidate& candidate : plan.candidates(pass)) {
                if (candidate.chosen) { EXPECT_LE(candidate.error_bound, 1e4 * epsilon); }
                removed = removed || candidate.error_bound > 1e4 * epsilon;
            }
        EXPECT_TRUE(removed) << "the test should look at a layer with such tiles";
    }
}

TEST(PlanChecks, ToleranceExcludesWinograd) {
    const Problem problem = parse_problem("n4c64k64 i56x56 r3x3 p1 f32").problem;
    Options options;
    options.tolerance = 1e-5;
    const Plan plan(problem, options);
    for (Pass pass : all_passes)
        EXPECT_EQ(plan.algorithm(pass).find("winograd:6"), std::string::npos);
}

}  // namespace
}  // namespace triconv::test
