#include <cmath>
#include <triconv/triconv.hpp>
#include <vector>

int main() {
    const triconv::Plan plan(triconv::parse_problem("n8c16k32 i56x56 r7x7 p3 f32").problem);
    std::vector<float> x(8 * 16 * 56 * 56, 1), w(32 * 16 * 7 * 7, 1), y(8 * 32 * 56 * 56);
    const triconv::ConstView x_view{x.data(), {16 * 56 * 56, 56 * 56, 56, 1}};  // strides in elements
    const triconv::ConstView w_view{w.data(), {16 * 7 * 7, 7 * 7, 7, 1}};
    plan.forward(x_view, w_view, nullptr, 0, {y.data(), {32 * 56 * 56, 56 * 56, 56, 1}});
    return std::abs(y[28 * 56 + 28] - 16 * 7 * 7) < 0.01f ? 0 : 1;  // 16 channels of 7 x 7 ones
}
