// The engine with micro-kernels of odd register blocks, so that its own cutting into blocks is what is tested.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "algorithms.h"
#include "dispatch.h"
#include "layer_data.h"
#include "parallel.h"
#include "pass.h"
#include "workspace.h"

namespace triconv::test {
namespace {

// Plain loops with a register block of MR x NR, refusing to be called with more.
template <int MR, int NR, ProductKind Kind>
void fake_product(const ProductArgs<float>& p) {
    ASSERT_GE(p.rows, 1);
    ASSERT_GE(p.cols, 1);
    ASSERT_LE(p.rows, MR);
    ASSERT_LE(p.cols, NR);
    ASSERT_LE(p.full_blocks, p.blocks);
    const int lanes = kernels().f32.lanes;
    for (int i = 0; i < p.rows; ++i)
        for (int j = 0; j < p.cols; ++j)
            for (int lane = 0; lane < lanes; ++lane) {
                double re = 0, im = 0;
                for (int block = 0; block < p.blocks; ++block)
                    for (int t = 0; t < (block < p.full_blocks ? p.length : p.tail_length); ++t) {
                        const float* a = p.a + p.a_offset[block] + i * p.a_row + t * p.a_step;
                        const float* b = p.b + p.b_offset[block] + t * p.b_step + j * p.b_col + lane;
                        const double ai = Kind == ProductKind::real             ? 0.0
                                          : Kind == ProductKind::complex_conj_a ? -a[p.a_im]
                                                                                : a[p.a_im];
                        const double bi = Kind == ProductKind::real             ? 0.0
                                          : Kind == ProductKind::complex_conj_b ? -b[p.b_im]
                                                                                : b[p.b_im];
                        re += static_cast<double>(*a) * *b - ai * bi;
                        im += *a * bi + ai * *b;
                    }
                float* c = p.c + i * p.c_row + j * p.c_col + lane;
                *c = static_cast<float>((p.accumulate ? *c : 0) + re);
                if (Kind != ProductKind::real) c[p.c_im] = static_cast<float>((p.accumulate ? c[p.c_im] : 0) + im);
            }
}

template <int MR, int NR>
KernelTable<float> table_with_blocks() {
    KernelTable<float> table = kernels().f32;
    table.product[static_cast<int>(ProductKind::real)] = {MR, NR, fake_product<MR, NR, ProductKind::real>};
    table.product[static_cast<int>(ProductKind::complex)] = {MR, NR, fake_product<MR, NR, ProductKind::complex>};
    table.product[static_cast<int>(ProductKind::complex_conj_a)] = {MR, NR,
                                                                    fake_product<MR, NR, ProductKind::complex_conj_a>};
    table.product[static_cast<int>(ProductKind::complex_conj_b)] = {MR, NR,
                                                                    fake_product<MR, NR, ProductKind::complex_conj_b>};
    return table;
}

// With a workspace of exactly what it asks for.
RunCounts run_pass(const PassAlgorithm<float>& pass, const Operands<float>& operands, int slots) {
    const Workspace workspace(static_cast<std::size_t>(pass.workspace_bytes(slots)));
    return pass.run(operands, slots, static_cast<char*>(workspace.data()));
}

void expect_all_passes(const KernelTable<float>& table, const Problem& problem, const std::string& algorithm,
                       const std::function<void(Costed&)>& change = {}) {
    const Layer layer(problem);
    const LayerData<float> data(problem);
    for (Pass pass : all_passes) {
        SCOPED_TRACE(to_string(problem, pass) + " " + algorithm);
        std::vector<Costed> costed = cost_candidates(table, layer, pass, parse_algorithm(algorithm, problem.rank));
        if (change) change(costed.front());
        const auto run = make_pass(table, layer, pass, costed.front());
        std::vector<float> out = data.empty_output(pass);
        Operands<float> operands;
        operands.x = as_tensor<float>(data.view(Array::x), problem.rank);
        operands.w = as_tensor<float>(data.view(Array::w), problem.rank);
        operands.dy = as_tensor<float>(data.view(Array::y), problem.rank);
        const Tensor<float> to = as_tensor<float>(
            contiguous(shape_of(problem, LayerData<float>::output_of(pass)), out.data()), problem.rank);
        operands.y = operands.dx = operands.dw = to;
        run_pass(*run, operands, 2);
        EXPECT_LE(largest_difference(out, data.reference(pass)),
                  costed.front().candidate.error_bound * data.largest_absolute_sum(pass));
    }
}

// The gradients of a step, whose tiles of dx are added up.
void expect_step(const Problem& problem, const std::string& algorithm,
                 const std::function<void(Costed&)>& change = {}) {
    SCOPED_TRACE(to_string(problem, Pass::forward) + " step " + algorithm);
    const Layer layer(problem);
    const LayerData<float> data(problem);
    const std::vector<Costed> costed =
        cost_candidates(kernels().f32, layer, Pass::forward, parse_algorithm(algorithm, problem.rank));
    const auto other = std::find_if(costed.begin(), costed.end(),  // a step has none with samples in the lanes
                                    [](const Costed& c) { return c.lane_kind != LaneKind::samples; });
    ASSERT_NE(other, costed.end());
    Costed forward = *other;
    if (change) change(forward);
    const TransformStep<float> step(kernels().f32, layer, forward.shape, forward.lane_kind, 3);
    const Workspace kept(static_cast<std::size_t>(step.kept_bytes()));
    std::vector<float> out[3];
    const auto output = [&](Pass pass) {
        std::vector<float>& array = out[static_cast<int>(pass)];
        array = data.empty_output(pass);
        return as_tensor<float>(contiguous(shape_of(problem, LayerData<float>::output_of(pass)), array.data()),
                                problem.rank);
    };
    Operands<float> operands;
    operands.x = as_tensor<float>(data.view(Array::x), problem.rank);
    operands.w = as_tensor<float>(data.view(Array::w), problem.rank);
    operands.dy = as_tensor<float>(data.view(Array::y), problem.rank);
    operands.y = output(Pass::forward);
    operands.dx = output(Pass::input_grad);
    operands.dw = output(Pass::weight_grad);
    EXPECT_EQ(step.forward(operands, 2, static_cast<float*>(kept.data())).recomputed, 0);
    EXPECT_EQ(step.backward(operands, 2, static_cast<const float*>(kept.data())).recomputed, 0);
    for (Pass pass : all_passes)
        EXPECT_LE(largest_difference(out[static_cast<int>(pass)], data.reference(pass)),
                  forward.candidate.error_bound * data.largest_absolute_sum(pass))
            << to_string(problem, pass);
}

// Overlap-add must give what the separate passes give, for every layer, whether or not a plan would share transforms.
TEST(Engine, SharesTransformsInAStep) {
    int computed = 0;
    for (const NamedProblem& named : problems_in("small.txt")) {
        const Problem& p = named.problem;
        if (p.dtype != DType::f32 || p.batch == 0 || p.in_channels == 0 || p.out_channels == 0) continue;
        if (Layer(p).extended()) continue;
        for (const char* algorithm : {"fft", "winograd"}) {
            const std::vector<Costed> costed =
                cost_candidates(kernels().f32, Layer(p), Pass::forward, parse_algorithm(algorithm, p.rank));
            if (!costed.front().candidate.possible) continue;
            expect_step(p, algorithm);
            ++computed;
        }
    }
    EXPECT_GT(computed, 30);
}

TEST(Engine, WorksWithAnyRegisterBlock) {
    for (const char* text :
         {"n2c37k41 i11x13 r3x3 p1 f32", "n1c20k70 i9x9 r5x5 s2 p2 f32", "n2c12k18 i9x10 r3x3 p1 g3 f32"})
        for (const char* algorithm : {"direct", "fft", "winograd"}) {
            const Problem problem = parse_problem(text).problem;
            expect_all_passes(table_with_blocks<1, 1>(), problem, algorithm);
            expect_all_passes(table_with_blocks<5, 3>(), problem, algorithm);
            expect_all_passes(table_with_blocks<7, 11>(), problem, algorithm);
        }
}

// Blocks of tiles that end anywhere within rows and images, fused and staged.
TEST(Engine, WorksWithAnyBlocking) {
    const Problem problem = parse_problem("n3c5k18 i19x17 r3x3 p1 f32").problem;
    for (std::int64_t tiles : {1, 2, 3, 7, 10, 64, 1000})
        for (bool fused : {false, true})
            for (const char* algorithm : {"fft:8", "winograd:4"}) {
                const Blocking blocking{tiles, fused};
                expect_all_passes(kernels().f32, problem, algorithm,
                                  [&](Costed& costed) { costed.blocking = blocking; });
            }
}

// Slices of any number of groups, of lane-wise and of matrix layers; threads take slices, or share them.
TEST(Engine, WorksWithAnySlices) {
    for (const char* text : {"n3c70k70 i9x11 r3x3 p1 g70 f32", "n2c37k74 i13x12 r3x3 s2 p1 g37 f32",
                             "n2c10k15 i9x10 r3x3 p1 g5 f32", "n3c36k36 i9 r3 p1 d2 g2 f32"})
        for (int groups : {1, 2, 3, 100})
            for (std::int64_t tiles : {1, 5, 1000})
                for (bool fused : {false, true}) {
                    const Blocking blocking{tiles, fused, groups};
                    expect_all_passes(kernels().f32, parse_problem(text).problem, "fft:8",
                                      [&](Costed& costed) { costed.blocking = blocking; });
                }
}

TEST(Engine, SlicesGiveTheSameBitsOnAnyThreads) {
    const int threads_before = num_threads();
    const Problem problem = parse_problem("n5c70k70 i9x11 r3x3 p1 g70 f32").problem;
    const Layer layer(problem);
    const LayerData<float> data(problem);
    for (Pass pass : all_passes)
        for (int groups : {1, 2}) {
            std::vector<float> first;
            for (int threads : {1, 2, 3, 5}) {
                set_num_threads(threads);
                std::vector<Costed> costed =
                    cost_candidates(kernels().f32, layer, pass, parse_algorithm("fft:8", problem.rank));
                costed.front().blocking = {3, true, groups};
                std::vector<float> out = data.empty_output(pass);
                Operands<float> operands;
                operands.x = as_tensor<float>(data.view(Array::x), problem.rank);
                operands.w = as_tensor<float>(data.view(Array::w), problem.rank);
                operands.dy = as_tensor<float>(data.view(Array::y), problem.rank);
                operands.y = operands.dx = operands.dw = as_tensor<float>(
                    contiguous(shape_of(problem, LayerData<float>::output_of(pass)), out.data()), problem.rank);
                run_pass(*make_pass(kernels().f32, layer, pass, costed.front()), operands, threads);
                if (first.empty()) first = out;
                EXPECT_EQ(out, first) << to_string(problem, pass) << ' ' << groups << ' ' << threads;
            }
        }
    set_num_threads(threads_before);
}

// Every tile is in one lane of one row, in strips of any length.
TEST(TilesAsLanes, EveryTileIsDealtOnce) {
    for (std::int64_t images : {1, 2, 5, 33})
        for (const Index& tiles : {Index{1, 1, 1}, Index{1, 1, 7}, Index{1, 1, 140}, Index{1, 3, 5}, Index{2, 9, 4}})
            for (int lanes : {1, 4, 16})
                for (int longest : {1, 3, 1000}) {
                    TileGrid grid;
                    grid.images = images;
                    grid.tiles = tiles;
                    if (lanes > 1) grid = grid.dealt_to(lanes);
                    EXPECT_LE(grid.rows(), grid.count());
                    std::set<std::pair<std::int64_t, Index>> dealt;
                    std::int64_t rows = 0;
                    for (std::int64_t first = 0; first < grid.rows(); first += 5)
                        for (const Strip& strip : strips_of(grid, first, std::min(first + 5, grid.rows()), longest)) {
                            EXPECT_LE(strip.count, longest);
                            rows += strip.count;
                            for (LaneTiles held : tiles_of_lanes(grid, strip)) {
                                for (; held.count > 0; --held.count, ++held.tile[2]) {
                                    EXPECT_LT(held.tile[2], tiles[2]);
                                    EXPECT_TRUE(dealt.insert({held.image, held.tile}).second);
                                }
                            }
                        }
                    EXPECT_EQ(rows, grid.rows());
                    EXPECT_EQ(static_cast<std::int64_t>(dealt.size()), grid.count());
                }
}

TEST(TilesAsLanes, LeaveFewLanesEmpty) {
    TileGrid grid;
    grid.images = 1;
    grid.tiles = {1, 1, 140};
    EXPECT_EQ(grid.dealt_to(16).rows(), 9);
    grid.images = 4;
    EXPECT_EQ(grid.dealt_to(16).rows(), 35);  // 4 images by 4 segments
    grid.tiles = {1, 9, 9};
    EXPECT_EQ(grid.dealt_to(16).rows(), 21);  // 324 tiles
}

// Few tiles and many, ragged ends, zeros beyond a tile, phases, groups: whatever the costs would choose.
TEST(TilesAsLanes, AgreeWithTheReference) {
    const auto by_tiles = [](Costed& costed) { costed.lane_kind = LaneKind::tiles; };
    for (const char* text :
         {"n1c1k1 i300 r9 f32", "n1c1k1 i301 r9 p4 f32", "n3c1k1 i50 r9 p12:3 f32", "n1c1k1 i9 r5 p2 f32",
          "n1c1k1 i1 r1 f32", "n2c1k3 i77 r5 s2 p2 f32", "n2c3k1 i90 r7 p3 d3 f32", "n2c2k3 i64 r8 s4 p3:5 d2 f32",
          "n1c3k2 i40x37 r3x5 p1x2 f32", "n5c2k2 i13x11 r3x3 p1 f32", "n1c1k1 i20x70 r5x5 f32",
          "n2c3k3 i21x19 r3x3 p1 g3 f32", "n1c4k2 i23x22 r4x3 s2x3 p1 g2 f32", "n1c1k2 i9x14x13 r3x3x3 p1 f32",
          "n2c1k40 i17x16 r3x3 p1 f32", "n2c37k1 i17x16 r3x3 p1 f32", "n1c300k2 i40 r5 p2 f32"})
        for (const char* algorithm : {"fft", "winograd"}) {
            const Problem problem = parse_problem(text).problem;
            if (algorithm[0] == 'w' && problem.kernel[0] > 7) continue;
            expect_all_passes(kernels().f32, problem, algorithm, by_tiles);
            expect_step(problem, algorithm, by_tiles);
        }
    for (const char* algorithm : {"fft:8x8", "fft:12x10", "winograd:2x2"})
        expect_all_passes(kernels().f32, parse_problem("n2c3k2 i30x33 r3x3 p1 f32").problem, algorithm, by_tiles);
}

TEST(TilesAsLanes, WorkWithAnyBlockingAndRegisterBlock) {
    for (const char* text : {"n3c1k1 i60x17 r3x3 p1 f32", "n3c3k5 i60x17 r3x3 p1 f32", "n2c4k4 i30x17 r3x3 p1 g4 f32"})
        for (std::int64_t rows : {1, 2, 7, 1000})
            for (bool fused : {false, true}) {
                const auto change = [&](Costed& costed) {
                    costed.lane_kind = LaneKind::tiles;
                    costed.blocking = {rows, fused, 2};
                };
                const Problem problem = parse_problem(text).problem;
                expect_all_passes(table_with_blocks<5, 3>(), problem, "fft:8", change);
                expect_all_passes(kernels().f32, problem, "winograd:4", change);
            }
}

TEST(FftOutputs, AWholeImageSharesItsZeros) {
    const Axis same = Layer(parse_problem("n1c1k1 i56 r31 p15 f32").problem).axis[axes - 1];
    const Axis valid = Layer(parse_problem("n1c1k1 i56 r31 f32").problem).axis[axes - 1];
    for (Pass pass : all_passes) {
        EXPECT_EQ(fft_outputs(same, pass, 70), 40);
        EXPECT_EQ(fft_outputs(same, pass, 71), 56);  // the image and the zeros on one side
        EXPECT_EQ(fft_outputs(same, pass, 90), 60);
    }
    EXPECT_EQ(fft_outputs(valid, Pass::forward, 55), 25);
    EXPECT_EQ(fft_outputs(valid, Pass::forward, 56), 26);
    EXPECT_EQ(fft_outputs(valid, Pass::input_grad, 55), 25);
    EXPECT_EQ(fft_outputs(valid, Pass::input_grad, 56), 56);
}

// All lengths from the kernel's to beyond the padded image's: one tile or many, sharing zeros or not.
TEST(FftOutputs, EveryLengthIsRight) {
    for (const char* text :
         {"n2c3k2 i9 r6 p3:2 f32", "n2c3k2 i9 r6 p0:4 f32", "n2c3k2 i5 r4 p6:5 f32", "n2c3k2 i16 r7 s2 p3 f32",
          "n2c3k2 i11 r5 p4 d3 f32", "n2c3k2 i14 r5 s4 p3:5 d2 f32", "n2c18k18 i9 r8 p4 g18 f32",
          "n2c3k2 i3 r3 s5 p0:8 f32", "n2c3k2 i9 r6 p3:2 b=wrap f32", "n2c3k2 i5 r4 p6:5 b=mirror f32",
          "n2c3k2 i9 r6 p3:2 b=constant:2 f32", "n2c3k2 i14 r5 s4 p3:5 d2 b=reflect f32"}) {
        const Problem problem = parse_problem(text).problem;
        const Layer layer(problem);
        const Axis& axis = layer.axis[axes - 1];
        for (std::int64_t t = axis.taps; t <= ceil_div(axis.out, axis.out_step) + axis.taps + 1; ++t) {
            expect_all_passes(kernels().f32, problem, "fft:" + std::to_string(t));
            if (!layer.extended()) expect_step(problem, "fft:" + std::to_string(t));
        }
    }
}

// The drawings of scipy.ndimage's manual, and where the axis is read no more.
TEST(Geometry, PositionsOutsideHoldTheBoundarysSamples) {
    const auto drawn = [](Boundary boundary, std::int64_t size) {
        const SubGrid grid{-9, 1, size, {boundary, 0, -8, size + 8}};
        std::string text;
        for (std::int64_t t = 0; t < size + 18; ++t)
            text += grid.sample(t) < 0 ? 'k' : static_cast<char>('a' + grid.sample(t));
        return text;
    };
    EXPECT_EQ(drawn(Boundary::constant, 4), "kkkkkkkkkabcdkkkkkkkkk");
    EXPECT_EQ(drawn(Boundary::nearest, 4), "kaaaaaaaaabcdddddddddk");
    EXPECT_EQ(drawn(Boundary::reflect, 4), "kabcddcbaabcddcbaabcdk");
    EXPECT_EQ(drawn(Boundary::mirror, 4), "kcbabcdcbabcdcbabcdcbk");
    EXPECT_EQ(drawn(Boundary::wrap, 4), "kabcdabcdabcdabcdabcdk");
    EXPECT_EQ(drawn(Boundary::mirror, 2), "kabababababababababk");
    for (Boundary boundary : {Boundary::nearest, Boundary::reflect, Boundary::mirror, Boundary::wrap})
        EXPECT_EQ(drawn(boundary, 1), "kaaaaaaaaaaaaaaaaak");
}

TEST(Geometry, RunsFollowTheSamples) {
    for (Boundary boundary :
         {Boundary::constant, Boundary::nearest, Boundary::reflect, Boundary::mirror, Boundary::wrap})
        for (std::int64_t size : {1, 2, 3, 7})
            for (std::int64_t step : {1, 2, 5})
                for (std::int64_t offset : {-23, -4, 0, 3}) {
                    const SubGrid grid{offset, step, size, {boundary, 0, -20, size + 15}};
                    int runs = 0;
                    for (std::int64_t t = 0; t < 40; ++runs) {
                        const SampleRun run = grid.run_from(t, 40);
                        ASSERT_GT(run.end, t);
                        for (std::int64_t i = t; i < run.end; ++i)
                            ASSERT_EQ(run.index < 0 ? -1 : run.index + (i - t) * run.step,
                                      std::max<std::int64_t>(grid.sample(i), -1));
                        t = run.end;
                    }
                    if (boundary == Boundary::nearest) { EXPECT_LE(runs, 5); }
                }
}

TEST(Geometry, SubGridsCoverTheInputOnce) {
    for (const NamedProblem& named : problems_in("small.txt")) {
        const Layer layer(named.problem);
        for (const Axis& axis : layer.axis) {
            std::vector<int> hits(static_cast<std::size_t>(axis.in), 0);
            for (std::int64_t rho = 0; rho < axis.output_phases; ++rho)
                for (std::int64_t phi = 0; phi < axis.kernel_phases; ++phi) {
                    const SubGrid grid = input_grid(axis, rho, phi);
                    std::int64_t first, last;
                    grid.clip(-1000, 1000, first, last);
                    for (std::int64_t t = first; t < last; ++t)
                        ++hits[static_cast<std::size_t>(grid.index(t))];
                }
            EXPECT_LE(*std::max_element(hits.begin(), hits.end()), 1) << named.name;
        }
    }
}

TEST(Blocks, ChannelsAppearOncePerPhase) {
    for (const NamedProblem& named : problems_in("small.txt")) {
        const Layer layer(named.problem);
        for (bool lanewise : {false, true}) {
            if (lanewise && layer.in_per_group() != 1) continue;
            const LaneBlocks blocks = input_blocks(layer, 16, lanewise, true);
            std::vector<std::int64_t> uses(static_cast<std::size_t>(layer.in_channels), 0);
            for (const LaneBlock& block : blocks.blocks)
                for (int lane = 0; lane < block.lanes; ++lane)
                    ++uses[static_cast<std::size_t>(block.channel + lane * block.channel_step)];
            for (std::int64_t count : uses)
                EXPECT_EQ(count, layer.kernel_phases()) << named.name;
            EXPECT_EQ(static_cast<int>(blocks.blocks.size()), layer.in_channels ? blocks.groups * blocks.per_group : 0);
        }
    }
}

// A batch of nothing is planned, too.
TEST(BlockGroups, NoBlocksAreNoGroups) {
    const volatile std::int64_t none = 0;
    EXPECT_EQ(BlockGroups(none).count, 0);
}

}  // namespace
}  // namespace triconv::test
