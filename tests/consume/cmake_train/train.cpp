// Learns the kernels of a convolution layer from its outputs by gradient descent, and prints the loss of each step.
// Fails unless every step lowers the loss and the last is a hundredth of the first.
#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "triconv/triconv.hpp"

namespace {

// A contiguous array of four axes.
struct Array {
    std::int64_t extent[4];
    std::vector<float> values;

    Array(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d)
        : extent{a, b, c, d}, values(static_cast<std::size_t>(a * b * c * d)) {}

    triconv::View view() {
        return {values.data(), {extent[1] * extent[2] * extent[3], extent[2] * extent[3], extent[3], 1}};
    }
    void fill_normal(std::mt19937& random) {
        std::normal_distribution<float> normal;
        for (float& value : values)
            value = normal(random);
    }
};

// dy becomes the gradient of the loss, half the mean of the squared differences, for y.
double loss_and_gradient(const Array& y, const Array& target, Array& dy) {
    const auto count = static_cast<float>(y.values.size());
    double loss = 0;
    for (std::size_t i = 0; i < y.values.size(); ++i) {
        const float difference = y.values[i] - target.values[i];
        dy.values[i] = difference / count;
        loss += 0.5 * static_cast<double>(difference * difference / count);
    }
    return loss;
}

}  // namespace

int main() {
    constexpr int steps = 12;
    constexpr float learning_rate = 3;
    const triconv::Plan plan(triconv::parse_problem("n4c3k4 i32x32 r5x5 p2 f32").problem);
    Array x(4, 3, 32, 32), w(4, 3, 5, 5), w_true(4, 3, 5, 5), dw(4, 3, 5, 5);
    Array y(4, 4, 32, 32), target(4, 4, 32, 32), dy(4, 4, 32, 32);
    std::mt19937 random(0);
    x.fill_normal(random);
    w_true.fill_normal(random);
    plan.forward(x.view(), w_true.view(), nullptr, 0, target.view());

    double first = 0, last = 0;
    for (int step = 0; step < steps; ++step) {
        triconv::Step training(plan, x.view(), w.view());
        training.forward(nullptr, 0, y.view());
        const double loss = loss_and_gradient(y, target, dy);
        std::printf("step %2d: loss %.6f\n", step, loss);
        if (step == 0)
            first = loss;
        else if (!(loss < last))
            return std::fprintf(stderr, "the loss has not fallen\n"), 1;
        last = loss;
        training.backward(dy.view(), {}, dw.view());
        for (std::size_t i = 0; i < w.values.size(); ++i)
            w.values[i] -= learning_rate * dw.values[i];
    }
    if (!(last < 0.01 * first)) return std::fprintf(stderr, "the loss is still %g of the first\n", last / first), 1;
    std::printf("triconv %s, %s: learned\n", triconv::build_info().version.c_str(), triconv::build_info().isa.c_str());
}
