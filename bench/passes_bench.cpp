// Whole passes of the layers in tests/shapes/layers.txt, by every algorithm that can do them.
//
//   passes_bench --benchmark_filter='vgg3.2/fwd/.*'
//   passes_bench --benchmark_filter='vgg3.2/(step|three)/auto'      a training step, and the same by three calls
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

// Results have arrays of their own: values fed back would grow until they are not finite.
struct Arrays {
    std::vector<float> values[6];
    View x, w, dy, y, dx, dw;

    explicit Arrays(const Problem& p) {
        std::int64_t output[max_rank];
        for (int a = 0; a < p.rank; ++a)
            output[a] = p.output(a);
        const std::int64_t inner = p.in_channels / p.groups;
        x = contiguous(values[0], p.batch, p.in_channels, p.input, p.rank);
        w = contiguous(values[1], p.out_channels, inner, p.kernel, p.rank);
        dy = contiguous(values[2], p.batch, p.out_channels, output, p.rank);
        y = contiguous(values[3], p.batch, p.out_channels, output, p.rank);
        dx = contiguous(values[4], p.batch, p.in_channels, p.input, p.rank);
        dw = contiguous(values[5], p.out_channels, inner, p.kernel, p.rank);
    }

    void run(const Plan& plan, Pass pass) const {
        switch (pass) {
            case Pass::forward:
                plan.forward(x, w, nullptr, 0, y);
                break;
            case Pass::input_grad:
                plan.input_grad(w, dy, dx);
                break;
            case Pass::weight_grad:
                plan.weight_grad(x, dy, dw);
                break;
        }
    }
};

void run_pass(benchmark::State& state, const Plan& plan, Pass pass) {
    const Arrays arrays(plan.problem());
    for (auto _ : state)
        arrays.run(plan, pass);
    state.SetLabel(plan.algorithm(pass));
    state.counters["direct_equivalent"] =
        benchmark::Counter(direct_flops(plan.problem()), benchmark::Counter::kIsIterationInvariantRate);
}

// A training step, and the same by three calls.
void run_step(benchmark::State& state, const Plan& plan) {
    const Arrays arrays(plan.problem());
    bool reuses = false;
    for (auto _ : state) {
        Step step(plan, arrays.x, arrays.w);
        reuses = step.reuses_transforms();
        step.forward(nullptr, 0, arrays.y);
        step.backward(arrays.dy, arrays.dx, arrays.dw);
    }
    state.SetLabel(reuses ? plan.algorithm(Pass::forward) + ", transforms shared" : "three passes");
}

void run_three_passes(benchmark::State& state, const Plan& plan) {
    const Arrays arrays(plan.problem());
    for (auto _ : state)
        for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad})
            arrays.run(plan, pass);
    state.SetLabel(plan.algorithm(Pass::forward) + " " + plan.algorithm(Pass::input_grad) + " " +
                   plan.algorithm(Pass::weight_grad));
}

template <class Run>
void register_run(const std::string& name, Run run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMillisecond)->UseRealTime();
}

void register_passes(const std::string& file, const std::vector<std::string>& algorithms) {
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
        const std::size_t colon = line.find(": ");
        if (line.empty() || line[0] == '#' || colon == std::string::npos) continue;
        const Problem problem = parse_problem(line.substr(colon + 2)).problem;
        for (const std::string& algorithm : algorithms) {
            Options options;
            options.algorithm = algorithm;
            try {
                const Plan plan(problem, options);
                const std::string layer = line.substr(0, colon) + "/";
                for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad})
                    register_run(layer + to_string(pass) + "/" + algorithm,
                                 [=](benchmark::State& state) { run_pass(state, plan, pass); });
                register_run(layer + "step/" + algorithm, [=](benchmark::State& state) { run_step(state, plan); });
                register_run(layer + "three/" + algorithm,
                             [=](benchmark::State& state) { run_three_passes(state, plan); });
            } catch (const std::invalid_argument&) {}  // the algorithm cannot compute the layer
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
