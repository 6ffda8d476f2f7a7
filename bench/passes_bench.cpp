// Whole passes of the layers in tests/shapes/layers.txt, by every algorithm that can do them.
//
//   passes_bench --benchmark_filter='vgg3.2/fwd/.*'
//   passes_bench --benchmark_filter='vgg3.2/fwd/winograd.*' winograd:4 winograd:4x6
//
// Arguments without dashes are algorithms to measure besides "auto", "direct", "fft" and "winograd".
// "direct_equivalent" is 2 N K C/G OH OW R^2 divided by the time: what a direct convolution would need to do per second.
#include <benchmark/benchmark.h>

#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "triconv/triconv.hpp"

namespace {

using namespace triconv;

struct Arrays {
    std::vector<float> x, w, y;
    ConstView x_view, w_view, y_view;
};

View contiguous(std::vector<float>& values, std::int64_t outer, std::int64_t inner, const std::int64_t* extent,
                int rank) {
    View view;
    std::ptrdiff_t stride = 1;
    for (int a = rank; a-- > 0;) {
        view.strides[2 + a] = stride;
        stride *= extent[a];
    }
    view.strides[1] = stride;
    view.strides[0] = stride * inner;
    values.resize(static_cast<std::size_t>(stride * inner * outer));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& v : values)
        v = normal(random);
    view.data = values.data();
    return view;
}

double direct_flops(const Problem& p) {
    double flops = 2.0 * static_cast<double>(p.batch * p.out_channels * (p.in_channels / p.groups));
    for (int a = 0; a < p.rank; ++a)
        flops *= static_cast<double>(p.output(a) * p.kernel[a]);
    return flops;
}

void run_pass(benchmark::State& state, const Problem& p, Pass pass, const std::string& algorithm) {
    Options options;
    options.algorithm = algorithm;
    const Plan plan(p, options);
    Arrays arrays;
    std::int64_t output[max_rank];
    for (int a = 0; a < p.rank; ++a)
        output[a] = p.output(a);
    const View x = contiguous(arrays.x, p.batch, p.in_channels, p.input, p.rank);
    const View w = contiguous(arrays.w, p.out_channels, p.in_channels / p.groups, p.kernel, p.rank);
    const View y = contiguous(arrays.y, p.batch, p.out_channels, output, p.rank);
    for (auto _ : state) {
        switch (pass) {
            case Pass::forward:
                plan.forward(x, w, nullptr, 0, y);
                break;
            case Pass::input_grad:
                plan.input_grad(w, y, x);
                break;
            case Pass::weight_grad:
                plan.weight_grad(x, y, w);
                break;
        }
    }
    state.SetLabel(plan.algorithm(pass));
    state.counters["direct_equivalent"] =
        benchmark::Counter(direct_flops(p), benchmark::Counter::kIsIterationInvariantRate);
}

void register_passes(const std::string& file, const std::vector<std::string>& algorithms) {
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
        const std::size_t colon = line.find(": ");
        if (line.empty() || line[0] == '#' || colon == std::string::npos) continue;
        const Problem problem = parse_problem(line.substr(colon + 2)).problem;
        for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad})
            for (const std::string& algorithm : algorithms) {
                Options options;
                options.algorithm = algorithm;
                try {
                    const Plan plan(problem, options);
                } catch (const std::invalid_argument&) { continue; }
                const std::string name = line.substr(0, colon) + "/" + to_string(pass) + "/" + algorithm;
                benchmark::RegisterBenchmark(
                    name.c_str(), [=](benchmark::State& state) { run_pass(state, problem, pass, algorithm); })
                    ->Unit(benchmark::kMillisecond)
                    ->UseRealTime();
            }
    }
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    std::vector<std::string> algorithms{"auto", "direct", "fft", "winograd"};
    algorithms.insert(algorithms.end(), argv + 1, argv + argc);
    register_passes(TRICONV_SHAPES "/layers.txt", algorithms);
    benchmark::RunSpecifiedBenchmarks();
}
