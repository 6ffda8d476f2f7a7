// The depthwise kernels of every ISA against sums in long double: every length up to several register blocks, steps of
// one and of more entries, runs of every length, tap counts up to 31 x 31, with the operands against an unmapped page.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "guarded_buffer.h"

namespace triconv {
namespace {

using test::Guard;
using test::GuardedBuffer;

struct Shape {
    int taps;
    std::int64_t count;
    int step = 1;  // entries between outputs, and between taps of a run
};

// Errors of a blocked sum: a random walk of at most 64 steps within a block, and one over the blocks.
template <class E>
long double tolerance(std::int64_t terms, long double magnitude) {
    return std::numeric_limits<E>::epsilon() * (8 + std::sqrt(static_cast<long double>(terms) / 32)) * magnitude;
}

// Runs of 1, 2 ... most_run_taps, 1, 2 ... taps. They overlap and are read from the last to the first.
template <class E>
struct Problem {
    int lanes;
    Shape shape;
    GuardedBuffer<E> in;
    std::vector<TapRun> runs;
    std::vector<std::ptrdiff_t> tap_offset;
    DepthwiseArgs<E> args{};

    Problem(int lanes_, const Shape& shape_, Guard side)
        : lanes(lanes_),
          shape(shape_),
          in(lanes * (std::max(shape.taps - 1, 0) +
                      shape.step * (most_run_taps - 1 + std::max<std::int64_t>(shape.count - 1, 0)) + 1),
             side, 0) {
        fill(in);
        for (int tap = 0; tap < shape.taps; tap += runs.back().taps) {
            const int taps = std::min(static_cast<int>(runs.size()) % most_run_taps + 1, shape.taps - tap);
            // The run that starts at the end of the input ends there, too.
            const int room = tap == 0 ? shape.step * (most_run_taps - taps) : 0;
            runs.push_back({(shape.taps - 1 - tap + room) * lanes, taps});
            for (int k = 0; k < taps; ++k)
                tap_offset.push_back(runs.back().offset + k * shape.step * lanes);
        }
        args.in = in.data();
        args.in_step = args.out_step = args.dy_step = shape.step * lanes;
        args.runs = runs.data();
        args.run_count = static_cast<int>(runs.size());
        args.count = shape.count;
    }
    static void fill(GuardedBuffer<E>& buffer) {
        std::mt19937 generator(static_cast<unsigned>(buffer.size()));
        std::uniform_real_distribution<E> distribution(-1, 1);
        for (E& value : buffer)
            value = distribution(generator);
    }
    std::ptrdiff_t entry(std::int64_t i) { return i * shape.step * lanes; }  // of out and dy
    std::ptrdiff_t length() { return shape.count == 0 ? 0 : entry(shape.count - 1) + lanes; }
    long double input(int tap, std::int64_t i, int lane) { return in[tap_offset[tap] + entry(i) + lane]; }
};

template <class E>
void check_forward(const KernelTable<E>& table, const Shape& shape, Guard side, bool accumulate) {
    SCOPED_TRACE(::testing::Message() << "taps " << shape.taps << " count " << shape.count << " step " << shape.step
                                      << " accumulate " << accumulate);
    const int lanes = table.lanes;
    Problem<E> problem(lanes, shape, side);
    GuardedBuffer<E> w(shape.taps * lanes, side, 0), out(problem.length(), side, E(3));
    problem.fill(w);
    problem.args.w = w.data();
    problem.args.out = out.data();
    problem.args.accumulate = accumulate;
    table.depthwise_forward(problem.args);
    for (std::int64_t i = 0; i < shape.count; ++i) {
        for (int lane = 0; lane < lanes; ++lane) {
            long double sum = accumulate ? 3 : 0, magnitude = sum;
            for (int tap = 0; tap < shape.taps; ++tap) {
                const long double product = problem.input(tap, i, lane) * w[tap * lanes + lane];
                sum += product;
                magnitude += std::abs(product);
            }
            ASSERT_LE(std::abs(out[problem.entry(i) + lane] - sum), tolerance<E>(shape.taps, magnitude))
                << "output " << i << " lane " << lane;
        }
    }
}

template <class E>
void check_weight_grad(const KernelTable<E>& table, const Shape& shape, Guard side) {
    SCOPED_TRACE(::testing::Message() << "taps " << shape.taps << " count " << shape.count << " step " << shape.step);
    const int lanes = table.lanes;
    Problem<E> problem(lanes, shape, side);
    GuardedBuffer<E> dy(problem.length(), side, 0), dw(shape.taps * lanes, side, E(3));
    problem.fill(dy);
    problem.args.dy = dy.data();
    problem.args.out = dw.data();
    table.depthwise_weight_grad(problem.args);
    for (int tap = 0; tap < shape.taps; ++tap) {
        for (int lane = 0; lane < lanes; ++lane) {
            long double sum = 3, magnitude = 3;
            for (std::int64_t i = 0; i < shape.count; ++i) {
                const long double product = problem.input(tap, i, lane) * dy[problem.entry(i) + lane];
                sum += product;
                magnitude += std::abs(product);
            }
            ASSERT_LE(std::abs(dw[tap * lanes + lane] - sum), tolerance<E>(shape.count, magnitude))
                << "tap " << tap << " lane " << lane;
        }
    }
}

std::vector<Shape> all_shapes() {
    std::vector<Shape> shapes;
    for (std::int64_t count = 0; count <= 40; ++count)
        shapes.insert(shapes.end(), {{9, count}, {10, count, 3}});
    for (int taps = 0; taps <= 20; ++taps)
        shapes.push_back({taps, 13});
    for (int taps : {47, 48, 49, 96, 97, 961})
        shapes.push_back({taps, 14});
    for (std::int64_t count : {255, 256, 257, 1000})
        shapes.push_back({5, count});
    return shapes;
}

template <class E>
void check_all_forward(const KernelTable<E>& table) {
    for (const Shape& shape : all_shapes()) {
        check_forward(table, shape, Guard::after, false);
        check_forward(table, shape, Guard::before, true);
    }
}

template <class E>
void check_all_weight_grad(const KernelTable<E>& table) {
    for (const Shape& shape : all_shapes()) {
        check_weight_grad(table, shape, Guard::after);
        check_weight_grad(table, shape, Guard::before);
    }
}

class DepthwiseOfIsa : public ::testing::TestWithParam<std::string> {};

TEST_P(DepthwiseOfIsa, ForwardMatchesTheExactSumFloat) {
    check_all_forward(table_of<float>(kernels(GetParam())));
}
TEST_P(DepthwiseOfIsa, ForwardMatchesTheExactSumDouble) {
    check_all_forward(table_of<double>(kernels(GetParam())));
}
TEST_P(DepthwiseOfIsa, WeightGradMatchesTheExactSumFloat) {
    check_all_weight_grad(table_of<float>(kernels(GetParam())));
}
TEST_P(DepthwiseOfIsa, WeightGradMatchesTheExactSumDouble) {
    check_all_weight_grad(table_of<double>(kernels(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Isa, DepthwiseOfIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace triconv
