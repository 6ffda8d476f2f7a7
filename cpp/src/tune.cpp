// The choice of algorithms by timing them. Nothing else in the library looks at a clock.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "triconv/triconv.hpp"
#include "workspace.h"

namespace triconv {

namespace {

constexpr std::size_t most_candidates = 8;  // by the cost model, and direct
constexpr double hopeless = 8;              // times the least predicted or measured time: not timed (again)
constexpr double least_sample = 3e-4;       // seconds; shorter runs are timed several at once
constexpr int least_rounds = 3, most_rounds = 25;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The operands of all passes: contiguous, with finite values of both signs.
class Arrays {
public:
    explicit Arrays(const Problem& p) {
        std::int64_t output[max_rank];
        for (int a = 0; a < p.rank; ++a)
            output[a] = p.output(a);
        x_ = make(p, p.batch, p.in_channels, p.input);
        w_ = make(p, p.out_channels, p.in_channels / p.groups, p.kernel);
        y_ = make(p, p.batch, p.out_channels, output);
    }

    void run(const Plan& plan, Pass pass) const {
        switch (pass) {
            case Pass::forward:
                plan.forward(x_, w_, nullptr, 0, y_);
                return;
            case Pass::input_grad:
                plan.input_grad(w_, y_, x_);
                return;
            case Pass::weight_grad:
                plan.weight_grad(x_, y_, w_);
                return;
        }
    }

private:
    View make(const Problem& p, std::int64_t outer, std::int64_t inner, const std::int64_t* extent) {
        View view;
        std::ptrdiff_t stride = 1;
        for (int a = p.rank; a-- > 0;) {
            view.strides[2 + a] = stride;
            stride *= extent[a];
        }
        view.strides[1] = stride;
        view.strides[0] = stride * inner;
        const auto count = static_cast<std::size_t>(stride * inner * outer);
        memory_.emplace_back(count * (p.dtype == DType::f32 ? sizeof(float) : sizeof(double)));
        view.data = memory_.back().data();
        if (p.dtype == DType::f32)
            fill(static_cast<float*>(view.data), count);
        else
            fill(static_cast<double*>(view.data), count);
        return view;
    }

    template <class E>
    void fill(E* values, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            state_ = state_ * 6364136223846793005u + 1442695040888963407u;
            values[i] = static_cast<E>(static_cast<std::int32_t>(state_ >> 32)) / E(2147483648.0);
        }
    }

    std::uint64_t state_ = 1;
    std::vector<Workspace> memory_;
    View x_, w_, y_;
};

struct Contender {
    std::string algorithm;
    Plan plan;
    int repeats = 1;              // runs per sample
    std::vector<double> samples;  // seconds per run

    void time(const Arrays& arrays, Pass pass) {
        const double start = now();
        for (int i = 0; i < repeats; ++i)
            arrays.run(plan, pass);
        samples.push_back((now() - start) / repeats);
    }
    double median() const {
        std::vector<double> sorted = samples;
        const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
        std::nth_element(sorted.begin(), middle, sorted.end());
        return *middle;
    }
};

std::vector<Contender> contenders(const Problem& problem, Options options, Pass pass) {
    const std::vector<Candidate> allowed = Plan(problem, options).contenders(pass);
    std::vector<Contender> result;
    for (std::size_t i = 0; i < allowed.size(); ++i) {
        const Candidate& candidate = allowed[i];
        if (i >= most_candidates && candidate.algorithm != "direct") continue;
        if (candidate.predicted_seconds > hopeless * allowed.front().predicted_seconds) continue;
        options.pass_algorithm[static_cast<std::size_t>(pass)] = candidate.algorithm;
        try {
            result.push_back({candidate.algorithm, Plan(problem, options), 1, {}});
        } catch (const std::invalid_argument&) {}  // not within max_workspace
    }
    return result;
}

// In turns, so that a change of the machine's speed meets all of them.
std::string fastest(std::vector<Contender> all, const Arrays& arrays, Pass pass, double seconds) {
    const double end = now() + seconds;
    double best = 0;
    for (Contender& c : all) {  // the first run also touches fresh memory
        c.time(arrays, pass);
        best = best == 0 ? c.samples[0] : std::min(best, c.samples[0]);
    }
    all.erase(
        std::remove_if(all.begin(), all.end(), [&](const Contender& c) { return c.samples[0] > hopeless * best; }),
        all.end());
    for (Contender& c : all) {
        c.repeats = static_cast<int>(std::clamp(least_sample / std::max(c.samples[0], 1e-9), 1.0, 1000.0));
        c.samples.clear();
    }
    for (int round = 0; round < most_rounds && (round < least_rounds || now() < end); ++round)
        for (Contender& c : all)
            c.time(arrays, pass);
    return std::min_element(all.begin(), all.end(),
                            [](const Contender& a, const Contender& b) { return a.median() < b.median(); })
        ->algorithm;
}

}  // namespace

std::array<std::string, pass_count> tune(const Problem& problem, const Options& options, double seconds_per_pass) {
    const Plan plan(problem, options);
    const Arrays arrays(problem);
    const bool empty = problem.batch == 0 || problem.in_channels == 0 || problem.out_channels == 0;
    std::array<std::string, pass_count> result;
    for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad}) {
        std::string& chosen = result[static_cast<std::size_t>(pass)];
        std::vector<Contender> all;
        if (!empty) all = contenders(problem, options, pass);
        chosen = all.size() < 2 ? plan.algorithm(pass) : fastest(std::move(all), arrays, pass, seconds_per_pass);
    }
    return result;
}

}  // namespace triconv
