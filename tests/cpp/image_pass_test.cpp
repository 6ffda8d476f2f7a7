// FFT with samples in the lanes, whatever the costs would choose: one tile and many, ragged ends, all boundaries, signals,
// images and volumes, a stride and a dilation that leave one phase.
#include "image_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "algorithms.h"
#include "dispatch.h"
#include "layer_data.h"
#include "workspace.h"

namespace triconv::test {
namespace {

constexpr const char* problems[] = {
    "n1c1k1 i40x70 r5x9", "n2c1k1 i61x90 r7x9 p3x4", "n2c3k3 i37x41 r11x4 p7:2x0:9 g3", "n1c1k1 i20x22 r13x13 p6",
    "n1c1k1 i9x8 r9x8", "n1c1k1 i50x60 r3x3 p2 b=mirror", "n1c2k2 i50x60 r17x5 p9x4 b=wrap g2",
    "n1c1k1 i31x45 r8x8 p8 b=reflect", "n1c1k1 i31x45 r8x8 p8 b=nearest", "n1c1k1 i31x45 r8x8 p8 b=constant:1.5",
    "n1c1k1 i50x60 r3x3 p2 s2 d2", "n2c3k2 i40x50 r5x4 p2", "n1c4k8 i40x50 r5x4 p2 g2 b=mirror",
    // volumes
    "n2c1k1 i6x40x50 r3x5x4 p1x2x2", "n1c1k1 i5x6x7 r2x3x4 p2 b=wrap", "n2c2k3 i5x20x22 r2x3x5 p1",
    // signals
    "n1c1k1 i3000 r100", "n2c1k1 i1500 r600 p300:20", "n2c2k2 i2000 r33 p16 b=wrap",
    "n1c2k2 i900 r17 p16 g2 b=constant:-2", "n1c1k1 i100 r70 p60", "n1c1k1 i5x1200 r1x9 p2x3",
    "n1c2k1 i4x5x700 r1x1x9 p0x0x3 b=nearest", "n1c1k1 i3000 r5 s3 d3"};

// Tiles of which some are smaller than the image, and some so large that threads share them.
std::vector<std::string> tiles_of(const Problem& p) {
    if (p.kernel[0] == 1) return {p.rank == 2 ? "fft:1x768" : "fft:1x1x768"};
    if (p.rank == 1) return {"fft:1024", "fft:960", "fft:20736"};  // the last in more rows than cross over at once
    return p.rank == 2 ? std::vector<std::string>{"fft:32x64", "fft:48x32", "fft:96x192"}
                       : std::vector<std::string>{"fft:6x32x64", "fft:8x48x64"};
}

template <class E>
struct ForcedPass {
    Costed costed;
    std::unique_ptr<PassAlgorithm<E>> algorithm;

    ForcedPass(const Problem& problem, Pass pass, const std::string& tile) {
        const KernelTable<E>& table = table_of<E>(kernels());
        costed = cost_candidates(table, Layer(problem), pass, parse_algorithm(tile, problem.rank)).front();
        EXPECT_TRUE(is_image_tile(costed.shape, table.lanes)) << tile;
        costed.lane_kind = LaneKind::samples;
        algorithm = make_pass(table, Layer(problem), pass, costed);
    }

    RunCounts run(const LayerData<E>& data, const Problem& p, Pass pass, int slots, bool prepared,
                  std::vector<E>& out) const {
        Operands<E> operands;
        operands.x = as_tensor<E>(data.view(Array::x), p.rank);
        operands.w = as_tensor<E>(data.view(Array::w), p.rank);
        operands.dy = as_tensor<E>(data.view(Array::y), p.rank);
        operands.y = operands.dx =
            as_tensor<E>(contiguous(shape_of(p, LayerData<E>::output_of(pass)), out.data()), p.rank);
        Workspace kept;
        if (prepared) {
            kept = Workspace(algorithm->prepared_size() * sizeof(E));
            algorithm->prepare(operands.w, static_cast<E*>(kept.data()), slots);
            operands.prepared = static_cast<const E*>(kept.data());
        }
        const Workspace workspace(static_cast<std::size_t>(algorithm->workspace_bytes(slots)));
        return algorithm->run(operands, slots, static_cast<char*>(workspace.data()));
    }
};

template <class E>
void expect_reference(const std::string& text, std::vector<std::string> tiles = {}) {
    const Problem problem = parse_problem(text).problem;
    if (tiles.empty()) tiles = tiles_of(problem);
    const LayerData<E> data(problem);
    for (Pass pass : {Pass::forward, Pass::input_grad})
        for (const std::string& tile : tiles) {
            SCOPED_TRACE(to_string(problem, pass) + " " + tile);
            const ForcedPass<E> forced(problem, pass, tile);
            std::vector<E> out = data.empty_output(pass);
            forced.run(data, problem, pass, 1, false, out);
            EXPECT_LE(largest_difference(out, data.reference(pass)),
                      forced.costed.candidate.error_bound * data.largest_absolute_sum(pass));
            for (bool prepared : {false, true}) {
                std::vector<E> again = data.empty_output(pass);
                forced.run(data, problem, pass, 3, prepared, again);
                EXPECT_EQ(std::memcmp(again.data(), out.data(), out.size() * sizeof(E)), 0) << prepared;
            }
        }
}

TEST(SamplesAsLanes, AgreeWithTheReference) {
    for (const char* text : problems) {
        expect_reference<float>(std::string(text) + " f32");
        expect_reference<double>(std::string(text) + " f64");
    }
}

// Of 1 MiB and more, several of them.
TEST(SamplesAsLanes, LargeTilesAgreeWithTheReference) {
    expect_reference<float>("n1c1k1 i600x1000 r3x3 p1 f32", {"fft:512x512"});
    expect_reference<double>("n1c1k1 i600x1000 r3x3 p1 f64", {"fft:512x512"});
}

// What is not finite reaches the outputs that read it. The others are those of a zero in its place, bit for bit: they come
// from the transform, not one by one from the definition.
TEST(SamplesAsLanes, OneNonFiniteSampleDamagesWhatReadsIt) {
    for (const char* text :
         {"n1c1k1 i61x90 r7x9 p3x4 f32", "n1c3k2 i40x50 r5x4 p2 f32", "n1c1k1 i50x60 r3x3 p2 b=mirror f32",
          "n1c1k1 i6x40x50 r3x5x4 p1x2x2 f32", "n1c1k1 i3000 r100 p50 f32", "n1c2k2 i2000 r33 p16 b=wrap f32"})
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            SCOPED_TRACE(text);
            const Problem problem = parse_problem(text).problem;
            const ForcedPass<float> forced(problem, Pass::forward, tiles_of(problem).front());
            LayerData<float> data(problem);
            float& sample = data.x[data.x.size() / 3];
            sample = 0;
            std::vector<float> clean = data.empty_output(Pass::forward), out = clean;
            EXPECT_EQ(forced.run(data, problem, Pass::forward, 2, false, clean).recomputed, 0);
            sample = bad;
            EXPECT_GT(forced.run(data, problem, Pass::forward, 2, false, out).recomputed, 0);
            const std::vector<float> expected = data.reference(Pass::forward);
            std::size_t finite = 0;
            for (std::size_t i = 0; i < out.size(); ++i) {
                if (std::isfinite(expected[i])) {
                    ASSERT_EQ(out[i], clean[i]) << i;
                    ++finite;
                } else {
                    ASSERT_EQ(std::isnan(out[i]), std::isnan(expected[i])) << i;
                    ASSERT_TRUE(std::isnan(out[i]) || out[i] == expected[i]) << i;
                }
            }
            EXPECT_GT(finite, 0u);
            EXPECT_LT(finite, out.size());
        }
}

// NaN, infinities and the largest numbers of both signs, several of which some outputs read; among the taps zeros and
// denormals. Outputs that read none of them have the errors of a tile without.
template <class E>
void expect_classes_of_the_reference(const std::string& text) {
    using Limits = std::numeric_limits<E>;
    constexpr E odd[] = {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), Limits::max(), -Limits::max()};
    const Problem problem = parse_problem(text).problem;
    std::mt19937_64 random(7);
    LayerData<E> data(problem);
    const LayerData<E> usual = data;
    for (E& tap : data.w)
        if (random() % 8 == 0) tap = random() % 4 == 0 ? E(0) : Limits::denorm_min();
    for (auto* samples : {&data.x, &data.dy})
        for (int i = 0; i < 10; ++i)
            (*samples)[random() % samples->size()] = odd[i / 2];
    for (Pass pass : {Pass::forward, Pass::input_grad})
        for (const std::string& tile : tiles_of(problem)) {
            SCOPED_TRACE(to_string(problem, pass) + " " + tile);
            std::vector<E> out = data.empty_output(pass);
            const ForcedPass<E> forced(problem, pass, tile);
            forced.run(data, problem, pass, 2, false, out);
            const double bound = forced.costed.candidate.error_bound * usual.largest_absolute_sum(pass);
            const std::vector<E> expected = data.reference(pass);
            for (std::size_t i = 0; i < out.size(); ++i) {
                ASSERT_EQ(std::isnan(out[i]), std::isnan(expected[i])) << i;
                ASSERT_EQ(std::isinf(out[i]), std::isinf(expected[i])) << i;
                ASSERT_EQ(std::isinf(out[i]) && out[i] > 0, std::isinf(expected[i]) && expected[i] > 0) << i;
                if (!std::isfinite(out[i])) continue;
                ASSERT_LE(std::abs(out[i] - expected[i]), bound + 4 * Limits::epsilon() * std::abs(expected[i])) << i;
            }
        }
}

TEST(SamplesAsLanes, NonFiniteSamplesReachTheOutputsThatReadThem) {
    for (const char* text : problems) {
        expect_classes_of_the_reference<float>(std::string(text) + " f32");
        expect_classes_of_the_reference<double>(std::string(text) + " f64");
    }
}

// Where other FFT tiles are damaged: few and large ones are, not one for each NaN.
TEST(SamplesAsLanes, RepairOtherTiles) {
    // By definition these would be 20 tiles at least.
    constexpr std::pair<const char*, int> cases[] = {{"n1c1k1 i60000 r700 f32", 16},
                                                     {"n1c1k1 i60000 r300 p150 b=mirror f64", 60},
                                                     {"n1c2k2 i30000 r400 g2 f32", 60}};
    for (const auto& [text, most_tiles] : cases)
        for (const Pass pass : {Pass::forward, Pass::input_grad}) {
            const Problem problem = parse_problem(text).problem;
            SCOPED_TRACE(to_string(problem, pass));
            in_element_type(problem, [&, most = most_tiles](auto element) {
                using E = decltype(element);
                LayerData<E> data(problem);
                auto& samples = pass == Pass::forward ? data.x : data.dy;
                constexpr std::size_t bad = 20;
                for (std::size_t i = 0; i < bad; ++i)
                    samples[(2 * i + 1) * samples.size() / (2 * bad)] =
                        i % 2 ? std::numeric_limits<E>::quiet_NaN() : std::numeric_limits<E>::infinity();
                Options options;
                options.algorithm = "fft:1215";
                const Plan plan(problem, options);
                std::vector<E> out = data.empty_output(pass);
                EXPECT_LE(data.run(plan, pass, out).recomputed_tiles, most);
                EXPECT_GT(data.run(plan, pass, out).recomputed_tiles, 0);
                const std::vector<E> expected = data.reference(pass);
                E largest = 0;
                for (E value : expected)
                    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
                const E tolerance =
                    8 * std::numeric_limits<E>::epsilon() * largest;  // of random data; bounds are far above
                std::size_t finite = 0;
                for (std::size_t i = 0; i < out.size(); ++i) {
                    ASSERT_EQ(std::isnan(out[i]), std::isnan(expected[i])) << i;
                    if (!std::isfinite(expected[i])) {
                        ASSERT_TRUE(std::isnan(out[i]) || out[i] == expected[i]) << i;
                        continue;
                    }
                    ASSERT_NEAR(out[i], expected[i], tolerance) << i;
                    ++finite;
                }
                EXPECT_GT(finite, 0u);
            });
        }
}

// Of two targets one has weights that make its transform overflow whatever the samples: the other loses none of its own.
TEST(SamplesAsLanes, WeightsOfOneTargetMayOverflow) {
    for (const char* text : {"n1c1k2 i40x70 r5x9 f32", "n1c1k2 i3000 r100 f32"}) {
        SCOPED_TRACE(text);
        const Problem problem = parse_problem(text).problem;
        LayerData<float> data(problem);
        data.x[data.x.size() / 3] = 1e37f;
        const auto second = data.w.begin() + static_cast<std::ptrdiff_t>(data.w.size() / 2);
        std::fill(second, data.w.end(), 0.0f);
        const double scale = data.largest_absolute_sum(Pass::forward);
        std::fill(second, data.w.end(), 3e38f);
        const ForcedPass<float> forced(problem, Pass::forward, tiles_of(problem).front());
        std::vector<float> out = data.empty_output(Pass::forward);
        forced.run(data, problem, Pass::forward, 2, false, out);
        const std::vector<float> expected = data.reference(Pass::forward);
        const double bound = forced.costed.candidate.error_bound * scale;
        std::size_t large = 0;
        for (std::size_t i = 0; i < out.size(); ++i) {
            ASSERT_EQ(std::isfinite(out[i]), std::isfinite(expected[i])) << i;
            if (!std::isfinite(expected[i])) continue;
            ASSERT_LE(std::abs(static_cast<double>(out[i]) - expected[i]), bound) << i;
            large += std::abs(expected[i]) > bound;
        }
        EXPECT_GT(large, 0u);
    }
}

// What is small enough to be flushed to zero is that for any number of threads, in repairs, too.
TEST(SamplesAsLanes, SmallNumbersAreTheSameForAnyNumberOfThreads) {
    for (const char* text : {"n1c1k1 i60x60 r9x9 f32", "n1c1k1 i20000 r500 f32"}) {
        const Problem problem = parse_problem(text).problem;
        for (const std::string& tile : tiles_of(problem))
            for (const bool small_weights : {false, true})
                for (const bool repaired : {false, true}) {
                    SCOPED_TRACE(std::string(text) + " " + tile);
                    LayerData<float> data(problem);
                    for (float& x : data.x)
                        x *= small_weights ? 1e30f : 1e-36f;
                    for (float& w : data.w)
                        w *= small_weights ? 1e-36f : 1e30f;
                    if (repaired) data.x[data.x.size() / 2] = std::numeric_limits<float>::quiet_NaN();
                    const ForcedPass<float> forced(problem, Pass::forward, tile);
                    std::vector<float> one = data.empty_output(Pass::forward), three = one;
                    for (const bool prepared : {false, true}) {
                        forced.run(data, problem, Pass::forward, 1, prepared, one);
                        forced.run(data, problem, Pass::forward, 3, prepared, three);
                        EXPECT_EQ(std::memcmp(one.data(), three.data(), one.size() * sizeof(float)), 0) << prepared;
                    }
                }
    }
}

// Products that overflow and cancel leave the others: none of their digits is lost in between.
TEST(SamplesAsLanes, ProductsThatOverflowMayCancel) {
    const Problem problem = parse_problem("n1c1k1 i40x70 r1x9 f32").problem;
    LayerData<float> data(problem);
    std::fill(data.x.begin(), data.x.end(), 0.0f);
    std::fill(data.w.begin(), data.w.end(), 0.0f);
    data.w[0] = data.w[2] = 3e38f;
    data.w[1] = 1;
    data.x[20] = 3e38f, data.x[21] = 1e30f, data.x[22] = -3e38f;
    const ForcedPass<float> forced(problem, Pass::forward, tiles_of(problem).front());
    std::vector<float> out = data.empty_output(Pass::forward);
    forced.run(data, problem, Pass::forward, 1, false, out);
    EXPECT_EQ(out[20], 1e30f);
}

TEST(SamplesAsLanes, TilesOfTooManySamplesAreRefused) {
    for (const char* algorithm : {"fft:641x6700417x32", "fft:65536x65536x32", "fft:2x32768x32768"}) {
        Options options;
        options.algorithm = algorithm;
        EXPECT_THROW(Plan(parse_problem("n1c1k1 i5x5x64 r2x2x5 f32").problem, options).workspace_bytes(Pass::forward),
                     std::invalid_argument)
            << algorithm;
    }
}

}  // namespace
}  // namespace triconv::test
