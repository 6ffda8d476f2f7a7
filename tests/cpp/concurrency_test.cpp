// Plans of many threads at once, shared and not, while others change the number of threads and give memory back: the same
// bits. Meant for ThreadSanitizer as much as for what it asserts.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>

#include "forked_child.h"
#include "layer_data.h"

namespace triconv::test {
namespace {

using Results = std::vector<std::vector<float>>;

// All that a plan can do; NaN in the data has outputs computed by definition.
Results results_of(const Plan& plan, const LayerData<float>& data) {
    Results out;
    const auto view = [&](Pass pass) {
        out.push_back(data.empty_output(pass));
        return contiguous(shape_of(data.problem, LayerData<float>::output_of(pass)), out.back().data());
    };
    for (Pass pass : all_passes) {
        out.push_back(data.empty_output(pass));
        data.run(plan, pass, out.back());
    }
    plan.prepare(data.view(Array::w)).forward(data.view(Array::x), data.bias.data(), 1, view(Pass::forward));
    Step step(plan, data.view(Array::x), data.view(Array::w));
    step.forward(nullptr, 0, view(Pass::forward));
    const View dx = view(Pass::input_grad), dw = view(Pass::weight_grad);
    step.backward(data.view(Array::y), dx, dw);
    for (std::vector<float>& values : out)
        std::replace_if(values.begin(), values.end(), [](float v) { return std::isnan(v); }, 1e30f);  // equals itself
    return out;
}

class Concurrency : public testing::TestWithParam<const char*> {
protected:
    void TearDown() override { set_num_threads(threads_before_); }

    const int threads_before_ = num_threads();
};

TEST_P(Concurrency, EightThreadsGetTheSameBits) {
    Options options;
    options.algorithm = GetParam();
    for (const char* text : {"n2c5k18 i13x17 r3x3 p1 f32", "n1c17k17 i12x13 r3x3 p1 g17 f32",
                             "n2c3k4 i9x10 r3x3 p2 b=mirror f32", "n1c2k2 i20x21 r3x3 p1 f32"})
        for (const bool shared : {true, false}) {
            LayerData<float> data(parse_problem(text).problem);
            data.x[data.x.size() / 2] = std::numeric_limits<float>::quiet_NaN();
            const Results expected = results_of(Plan(data.problem, options), data);
            const Plan plan(data.problem, options);  // whose passes are chosen by the threads, on first use
            std::atomic<int> wrong{0}, running{8};
            std::vector<std::thread> threads;
            for (int t = 0; t < 8; ++t)
                threads.emplace_back([&] {
                    for (int run = 0; run < 3; ++run)
                        wrong += results_of(shared ? plan : Plan(data.problem, options), data) != expected;
                    --running;
                });
            for (int count = 0; running > 0; ++count) {
                set_num_threads(1 + count % 4);
                release_memory();
                std::this_thread::yield();
            }
            for (std::thread& thread : threads)
                thread.join();
            EXPECT_EQ(wrong, 0) << text << " " << GetParam();
        }
}

INSTANTIATE_TEST_SUITE_P(ByAlgorithm, Concurrency, testing::Values("direct", "fft", "winograd"),
                         [](const auto& info) { return std::string(info.param); });

// ---- fork during the first use --------------------------------------------------------------------------------------

void plan_something() {
    Options options;
    options.algorithm = "direct";
    Plan(parse_problem("n1c1k1 i20x20 r3x3 f32").problem, options).workspace_bytes(Pass::forward);
}

// A thread uses the library for the first time; meanwhile its process forks, and the child uses it, too.
bool child_forked_during_first_use_succeeds(std::chrono::microseconds after) {
    std::atomic<bool> started{false};
    std::thread first([&] {
        started = true;
        plan_something();
    });
    while (!started) {}
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < after) {}
    const bool succeeded = succeeds_in_child([] {
        plan_something();
        return true;
    });
    first.join();
    return succeeded;
}

// Of a process that has not used the library: each trial is a child of it.
[[noreturn]] void fork_during_first_use() {
    for (int trial = 0; trial < 300; ++trial)
        if (!succeeds_in_child(
                [&] { return child_forked_during_first_use_succeeds(std::chrono::microseconds(trial % 100)); }))
            std::exit(1);
    std::exit(0);
}

TEST(FirstUse, ChildForkedMeanwhileDoesNotWaitForIt) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "ThreadSanitizer's allocator does not survive such a fork: the child waits for its lock";
#endif
    GTEST_FLAG_SET(death_test_style, "threadsafe");  // runs the program anew
    EXPECT_EXIT(fork_during_first_use(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace triconv::test
