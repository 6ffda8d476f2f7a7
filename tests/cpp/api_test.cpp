// What an embedding program brings along: workspaces, a parallel-for, an allocator. Each must leave the bits as they are.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "float_mode.h"
#include "guarded_buffer.h"
#include "layer_data.h"
#include "parallel.h"
#include "triconv/triconv.hpp"

namespace triconv::test {
namespace {

// Every algorithm, direct in its several ways, staged and fused, groups, strides, dilation, folded gradients, float64.
const char* const layers[] = {"n3c37k21 i17x19 r3x3 p1 f32",      "n2c3k40 i30x31 r5x5 s2 p2 f32",
                              "n2c70k70 i13x11 r3x3 p1 g70 f32",  "n1c1k1 i300 r31 p15 f64",
                              "n2c4k6 i9x10x11 r3x3x3 p1 g2 f32", "n2c5k3 i20x21 r5x3 p7x1 b=mirror f32",
                              "n4c32k32 i14x14 r3x3 p2 d2 f64"};
const char* const algorithms[] = {"auto", "direct", "fft"};

Plan plan_of(const Problem& problem, const std::string& algorithm) {
    Options options;
    options.algorithm = algorithm;
    return Plan(problem, options);
}

template <class E>
std::vector<E> run(const LayerData<E>& data, const Plan& plan, Pass pass, const CallerWorkspace& workspace = {}) {
    std::vector<E> out = data.empty_output(pass);
    const View to = contiguous(shape_of(data.problem, LayerData<E>::output_of(pass)), out.data());
    switch (pass) {
        case Pass::forward:
            plan.forward(data.view(Array::x), data.view(Array::w), data.bias.data(), 1, to, workspace);
            break;
        case Pass::input_grad:
            plan.input_grad(data.view(Array::w), data.view(Array::y), to, workspace);
            break;
        case Pass::weight_grad:
            plan.weight_grad(data.view(Array::x), data.view(Array::y), to, workspace);
            break;
    }
    return out;
}

// Calls body(data, plan, pass) for all of the above.
template <class F>
void for_each_case(F body) {
    for (const char* text : layers)
        for (const char* algorithm : algorithms) {
            const Problem problem = parse_problem(text).problem;
            for (Pass pass : all_passes) {
                SCOPED_TRACE(to_string(problem, pass) + " " + algorithm);
                in_element_type(problem, [&](auto element) {
                    body(LayerData<decltype(element)>(problem), plan_of(problem, algorithm), pass);
                });
            }
        }
}

class ApiTest : public ::testing::Test {
protected:
    void SetUp() override { set_num_threads(3); }
    void TearDown() override {
        set_parallel_for({});
        set_allocator({});
        set_num_threads(before_);
    }

private:
    int before_ = num_threads();
};

// ---- workspaces of the caller ---------------------------------------------------------------------------------------

class CallerWorkspaceTest : public ApiTest {};

// Filled with NaN, and between unmapped pages on either side.
TEST_F(CallerWorkspaceTest, OfExactlyTheSizeGivesTheSameBits) {
    for_each_case([](const auto& data, const Plan& plan, Pass pass) {
        const auto expected = run(data, plan, pass);
        for (int threads : {1, 2, 3}) {
            const std::int64_t bytes = plan.workspace_bytes(pass, threads);
            ASSERT_EQ(bytes % static_cast<std::int64_t>(workspace_alignment), 0);
            for (Guard side : {Guard::before, Guard::after}) {
                GuardedBuffer<unsigned char> memory(bytes, side, 0xff);
                EXPECT_TRUE(run(data, plan, pass, {memory.data(), static_cast<std::size_t>(bytes)}) == expected);
            }
        }
    });
}

TEST_F(CallerWorkspaceTest, OneByteLessIsRefusedOrTakesOneThreadLess) {
    for_each_case([](const auto& data, const Plan& plan, Pass pass) {
        const auto least = static_cast<std::size_t>(plan.workspace_bytes(pass, 1)),
                   most = static_cast<std::size_t>(plan.workspace_bytes(pass, 3));
        ASSERT_GT(least, 0u);
        GuardedBuffer<unsigned char> memory(static_cast<std::ptrdiff_t>(most), Guard::before, 0);
        EXPECT_THROW(run(data, plan, pass, {memory.data(), least - 1}), std::invalid_argument);
        EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [](unsigned char c) { return c == 0; }));
        if (most > least)
            EXPECT_TRUE(run(data, plan, pass, {memory.data(), most - 1}) == run(data, plan, pass));
        else
            EXPECT_THROW(run(data, plan, pass, {memory.data(), most - 1}), std::invalid_argument);
    });
}

TEST_F(CallerWorkspaceTest, RefusedBeforeAnyWork) {
    const LayerData<float> data(parse_problem(layers[0]).problem);
    const Plan plan(data.problem);
    std::vector<float> out = data.empty_output(Pass::forward);
    const std::vector<float> untouched = out;
    const View y = contiguous(shape_of(data.problem, Array::y), out.data());
    std::vector<unsigned char> memory(static_cast<std::size_t>(plan.workspace_bytes(Pass::forward, 1)) + 128);
    auto* const aligned =
        reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
    const std::size_t bytes = memory.size() - 64;
    for (const CallerWorkspace& wrong :
         {CallerWorkspace{aligned + 1, bytes - 1}, CallerWorkspace{aligned + 32, bytes - 32},
          CallerWorkspace{nullptr, 1}, CallerWorkspace{nullptr, std::numeric_limits<std::size_t>::max()},
          CallerWorkspace{aligned, 0}})
        EXPECT_THROW(plan.forward(data.view(Array::x), data.view(Array::w), nullptr, 0, y, wrong),
                     std::invalid_argument);
    EXPECT_TRUE(out == untouched);
}

TEST_F(CallerWorkspaceTest, OfPreparedWeights) {
    for_each_case([](const auto& data, const Plan& plan, Pass pass) {
        if (pass == Pass::weight_grad) return;
        const PreparedWeights prepared = plan.prepare(data.view(Array::w), pass);
        const auto expected = run(data, plan, pass);
        const std::int64_t bytes = prepared.workspace_bytes(2);
        GuardedBuffer<unsigned char> memory(bytes, Guard::after, 0xff);
        const CallerWorkspace workspace{memory.data(), static_cast<std::size_t>(bytes)};
        auto out = data.empty_output(pass);
        const View to = contiguous(shape_of(data.problem, data.output_of(pass)), out.data());
        if (pass == Pass::forward)
            prepared.forward(data.view(Array::x), data.bias.data(), 1, to, workspace);
        else
            prepared.input_grad(data.view(Array::y), to, workspace);
        EXPECT_TRUE(out == expected);
    });
}

TEST_F(CallerWorkspaceTest, QueryIsForAnyNumberOfThreads) {
    const Plan plan(parse_problem(layers[1]).problem);
    for (Pass pass : all_passes) {
        EXPECT_EQ(plan.workspace_bytes(pass), plan.workspace_bytes(pass, 3));
        for (int threads = 1; threads < 20; ++threads)
            EXPECT_LE(plan.workspace_bytes(pass, threads), plan.workspace_bytes(pass, threads + 1));
        for (int threads : {0, -1, std::numeric_limits<int>::min()})
            EXPECT_THROW(plan.workspace_bytes(pass, threads), std::invalid_argument);
    }
    Options options;
    options.max_workspace = plan.workspace_bytes(Pass::forward, 2) + (64 << 10);
    const Plan limited(plan.problem(), options);
    EXPECT_LE(limited.workspace_bytes(Pass::forward, 100), options.max_workspace);
}

// ---- a parallel-for of the host -------------------------------------------------------------------------------------

using Piece = void (*)(void* run, int index);

std::atomic<int> host_calls{0}, host_pieces{0};

void count_call(int pieces) {
    ++host_calls;
    host_pieces += pieces;
}

void serially(void*, int pieces, Piece piece, void* run) {
    count_call(pieces);
    for (int i = 0; i < pieces; ++i)
        piece(run, i);
}

void in_reverse(void*, int pieces, Piece piece, void* run) {
    count_call(pieces);
    for (int i = pieces; i-- > 0;)
        piece(run, i);
}

void on_threads(void*, int pieces, Piece piece, void* run) {
    count_call(pieces);
    std::vector<std::thread> threads;
    for (int i = 0; i < pieces; ++i)
        threads.emplace_back(piece, run, i);
    for (std::thread& thread : threads)
        thread.join();
}

// Workers that are already at a piece take another meanwhile, as work-stealing hosts do while they wait.
void within_each_other(void* context, int pieces, Piece piece, void* run) {
    count_call(pieces);
    std::thread other([&] {
        for (int i = 1; i < pieces; i += 2)
            piece(run, i);
    });
    for (int i = 0; i < pieces; i += 2)
        piece(run, i);
    other.join();
    EXPECT_EQ(context, &host_calls);
}

const HostParallelFor hosts[] = {
    {serially, nullptr}, {in_reverse, nullptr}, {on_threads, nullptr}, {within_each_other, &host_calls}};

class HostParallelForTest : public ApiTest {};

TEST_F(HostParallelForTest, GivesTheSameBits) {
    for_each_case([](const auto& data, const Plan& plan, Pass pass) {
        const auto expected = run(data, plan, pass);
        for (const HostParallelFor& host : hosts) {
            set_parallel_for(host);
            EXPECT_TRUE(run(data, plan, pass) == expected);
        }
        set_parallel_for({});
    });
    EXPECT_GT(host_calls, 100);
    EXPECT_LE(host_pieces, 3 * host_calls);
}

TEST_F(HostParallelForTest, IsNotUsedForOneThreadNorAfterItIsTakenAway) {
    const LayerData<float> data(parse_problem(layers[0]).problem);
    const Plan plan(data.problem);
    set_parallel_for({serially, nullptr});
    set_num_threads(1);
    host_calls = 0;
    run(data, plan, Pass::forward);
    set_num_threads(3);
    set_parallel_for({});
    run(data, plan, Pass::forward);
    EXPECT_EQ(host_calls, 0);
}

// The host's own tasks run layers whose pieces run in the host again.
TEST_F(HostParallelForTest, NestsInTheHostsTasks) {
    const LayerData<float> data(parse_problem(layers[0]).problem);
    const Plan plan(data.problem);
    const std::vector<float> expected = run(data, plan, Pass::weight_grad);
    for (const HostParallelFor& host : hosts) {
        set_parallel_for(host);
        std::atomic<int> wrong{0};
        const auto task = [&](int) { wrong += run(data, plan, Pass::weight_grad) != expected; };
        const std::function<void(int)> erased = task;
        host.run(
            host.context, 4, [](void* f, int i) { (*static_cast<const std::function<void(int)>*>(f))(i); },
            const_cast<std::function<void(int)>*>(&erased));
        EXPECT_EQ(wrong, 0);
    }
}

// Within a piece there is one thread, and what runs there does not call the host.
TEST_F(HostParallelForTest, PiecesDoNotCallTheHostAgain) {
    const LayerData<float> data(parse_problem(layers[0]).problem);
    const Plan plan(data.problem);
    const std::vector<float> expected = run(data, plan, Pass::forward);
    set_parallel_for({on_threads, nullptr});
    host_calls = 0;
    std::atomic<int> wrong{0};
    parallel_for(3, 3, [&](std::int64_t, int) {
        wrong += num_threads() != 1;
        wrong += run(data, plan, Pass::forward) != expected;
    });
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(host_calls, 1);
}

TEST_F(HostParallelForTest, SlotsAreThoseOfThePool) {
    for (const HostParallelFor& host : hosts) {
        set_parallel_for(host);
        std::vector<std::atomic<int>> slot_of(10);
        parallel_for(10, 3,
                     [&](std::int64_t index, int slot) { slot_of[static_cast<std::size_t>(index)] += 1 + slot; });
        const std::vector<int> slots(slot_of.begin(), slot_of.end());
        EXPECT_EQ(slots, (std::vector<int>{1, 1, 1, 1, 2, 2, 2, 3, 3, 3}));
    }
}

// A piece that throws must look to the host like one that ends.
TEST_F(HostParallelForTest, ExceptionsOfTasksDoNotCrossTheHost) {
    static std::atomic<int> returned{0};
    const auto host = [](void*, int pieces, Piece piece, void* run) {
        for (int i = 0; i < pieces; ++i) {
            piece(run, i);
            ++returned;
        }
    };
    set_parallel_for({host, nullptr});
    const auto task = [](std::int64_t index, int) {
        if (index % 2 == 0) throw std::domain_error("task");
    };
    returned = 0;
    EXPECT_THROW(parallel_for(6, 3, task), std::domain_error);
    EXPECT_EQ(returned, 3);
}

TEST_F(HostParallelForTest, DenormalsAreZeroInEachPiece) {
    if (!can_flush_denormals) GTEST_SKIP() << "no flush-to-zero mode is known for this machine";
    for (const HostParallelFor& host : hosts) {
        set_parallel_for(host);
        const volatile float smallest = std::numeric_limits<float>::min();
        std::atomic<int> kept{0};
        parallel_for(3, 3, [&](std::int64_t, int) {
            const volatile float half = smallest * 0.5f;
            kept += half != 0.0f;
        });
        EXPECT_EQ(kept, 0);
        const volatile float half = smallest * 0.5f;
        EXPECT_GT(half, 0.0f);
    }
}

TEST_F(HostParallelForTest, AHostThatFailsIsAnErrorOfTheRun) {
    const LayerData<float> data(parse_problem(layers[0]).problem);
    const Plan plan(data.problem);
    const std::vector<float> expected = run(data, plan, Pass::forward);
    const auto all_but_one = [](void*, int pieces, Piece piece, void* run) {
        for (int i = 1; i < pieces; ++i)
            piece(run, i);
        piece(run, pieces);
        piece(run, -1);
    };
    set_parallel_for({all_but_one, nullptr});
    EXPECT_THROW(run(data, plan, Pass::forward), std::logic_error);
    set_parallel_for({[](void*, int, Piece, void*) { throw std::range_error("host"); }, nullptr});
    EXPECT_THROW(run(data, plan, Pass::forward), std::range_error);
    set_parallel_for({});
    EXPECT_TRUE(run(data, plan, Pass::forward) == expected);
}

TEST_F(HostParallelForTest, MayBeChangedWhileLayersRun) {
    const LayerData<float> data(parse_problem("n2c8k8 i12x12 r3x3 p1 f32").problem);
    const Plan plan(data.problem);
    const std::vector<float> expected = run(data, plan, Pass::forward);
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> runners;
    for (int i = 0; i < 2; ++i)
        runners.emplace_back([&] {
            while (!stop)
                wrong += run(data, plan, Pass::forward) != expected;
        });
    for (int i = 0; i < 200; ++i) {
        set_parallel_for(hosts[static_cast<std::size_t>(i) % 2]);
        set_parallel_for({});
    }
    stop = true;
    for (std::thread& runner : runners)
        runner.join();
    EXPECT_EQ(wrong, 0);
}

// ---- an allocator of the host -----------------------------------------------------------------------------------------

// Counts what is taken and refuses the request numbered `refused`.
class CountingAllocator {
public:
    HostAllocator hook() { return {allocate, deallocate, this}; }

    std::atomic<int> requests{0}, refused{-1};
    std::size_t blocks_in_use() {
        const std::lock_guard lock(mutex_);
        return in_use_.size();
    }
    bool mistaken() const { return mistaken_; }

private:
    static void* allocate(void* context, std::size_t bytes, std::size_t alignment) {
        auto& self = *static_cast<CountingAllocator*>(context);
        if (self.requests++ == self.refused) return nullptr;
        void* const data = std::aligned_alloc(alignment, bytes);
        std::memset(data, 0xff, bytes);
        const std::lock_guard lock(self.mutex_);
        self.in_use_.insert({data, bytes});
        return data;
    }
    static void deallocate(void* context, void* data, std::size_t bytes) {
        auto& self = *static_cast<CountingAllocator*>(context);
        {
            const std::lock_guard lock(self.mutex_);
            if (self.in_use_.erase({data, bytes}) != 1) self.mistaken_ = true;
        }
        std::free(data);
    }

    std::mutex mutex_;
    std::set<std::pair<void*, std::size_t>> in_use_;
    std::atomic<bool> mistaken_{false};
};

class HostAllocatorTest : public ApiTest {
protected:
    ~HostAllocatorTest() override {
        EXPECT_EQ(allocator_.blocks_in_use(), 0u);
        EXPECT_FALSE(allocator_.mistaken());
    }
    CountingAllocator allocator_;
};

TEST_F(HostAllocatorTest, GivesEveryWorkspaceAndTakesItBack) {
    for_each_case([&](const auto& data, const Plan& plan, Pass pass) {
        const auto expected = run(data, plan, pass);
        set_allocator(allocator_.hook());
        const int before = allocator_.requests;
        EXPECT_TRUE(run(data, plan, pass) == expected);
        EXPECT_EQ(allocator_.requests, before + 1) << "a run takes one workspace";
        EXPECT_EQ(allocator_.blocks_in_use(), 0u) << "nothing is kept idle";
        set_allocator({});
    });
}

TEST_F(HostAllocatorTest, IsNotAskedWhereTheCallerHasAWorkspace) {
    for_each_case([&](const auto& data, const Plan& plan, Pass pass) {
        const auto expected = run(data, plan, pass);
        const std::int64_t bytes = plan.workspace_bytes(pass, 3);
        GuardedBuffer<unsigned char> memory(bytes, Guard::after, 0);
        set_allocator(allocator_.hook());
        const int before = allocator_.requests;
        EXPECT_TRUE(run(data, plan, pass, {memory.data(), static_cast<std::size_t>(bytes)}) == expected);
        EXPECT_EQ(allocator_.requests, before);
        set_allocator({});
    });
}

// Everything that takes memory of the library, with each request refused in turn.
TEST_F(HostAllocatorTest, EachFailureIsCleanAndTheNextCallWorks) {
    for (const char* text : {"n2c19k21 i30x30 r5x5 p2 f32", "n2c5k3 i20x21 r5x3 p7x1 b=mirror f32"}) {
        const LayerData<float> data(parse_problem(text).problem);
        const Plan plan = plan_of(data.problem, "fft");
        const auto all = [&] {
            std::vector<std::vector<float>> results;
            for (Pass pass : all_passes)
                results.push_back(run(data, plan, pass));
            const PreparedWeights prepared = plan.prepare(data.view(Array::w));
            std::vector<float> y = data.empty_output(Pass::forward), dx = data.empty_output(Pass::input_grad),
                               dw = data.empty_output(Pass::weight_grad);
            prepared.forward(data.view(Array::x), nullptr, 0, contiguous(shape_of(data.problem, Array::y), y.data()));
            Step step(plan, data.view(Array::x), data.view(Array::w));
            step.forward(nullptr, 0, contiguous(shape_of(data.problem, Array::y), y.data()));
            step.backward(data.view(Array::y), contiguous(shape_of(data.problem, Array::x), dx.data()),
                          contiguous(shape_of(data.problem, Array::w), dw.data()));
            results.insert(results.end(), {y, dx, dw});
            void* const lent = lend_memory(1000);
            EXPECT_GE(memory_capacity(lent), 1000u);
            return_memory(lent);
            return results;
        };
        const auto expected = all();
        set_allocator(allocator_.hook());
        allocator_.requests = 0;
        EXPECT_TRUE(all() == expected);
        const int requests = allocator_.requests;
        EXPECT_GE(requests, 8);
        for (int i = 0; i < requests; ++i) {
            allocator_.requests = 0;
            allocator_.refused = i;
            EXPECT_THROW(all(), std::bad_alloc) << i;
            EXPECT_EQ(allocator_.blocks_in_use(), 0u) << i;
            allocator_.refused = -1;
            EXPECT_TRUE(all() == expected) << i;
        }
        set_allocator({});
    }
}

TEST_F(HostAllocatorTest, BlocksGoBackToWhereTheyCameFrom) {
    const LayerData<float> data(parse_problem(layers[0]).problem);
    const Plan plan(data.problem);
    void* const own = lend_memory(5000);
    set_allocator(allocator_.hook());
    void* const hosts_block = lend_memory(5000);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(hosts_block) % workspace_alignment, 0u);
    {
        const PreparedWeights prepared = plan.prepare(data.view(Array::w));
        EXPECT_GE(allocator_.blocks_in_use(), 2u);
        return_memory(own);
        set_allocator({});
        return_memory(hosts_block);
        std::vector<float> y = data.empty_output(Pass::forward);
        prepared.forward(data.view(Array::x), data.bias.data(), 1,
                         contiguous(shape_of(data.problem, Array::y), y.data()));
        EXPECT_TRUE(y == run(data, plan, Pass::forward));
    }
    EXPECT_EQ(allocator_.blocks_in_use(), 0u);
}

TEST_F(HostAllocatorTest, MisalignedMemoryIsGivenBackAndNotUsed) {
    static unsigned char memory[4096];
    static int given_back;
    given_back = 0;
    set_allocator({[](void*, std::size_t, std::size_t) -> void* {
                       return memory + 1 + (64 - reinterpret_cast<std::uintptr_t>(memory) % 64) % 64;
                   },
                   [](void*, void*, std::size_t) { ++given_back; }, nullptr});
    EXPECT_THROW(lend_memory(100), std::bad_alloc);
    EXPECT_EQ(given_back, 1);
}

TEST_F(HostAllocatorTest, BothFunctionsOrNone) {
    HostAllocator half = allocator_.hook();
    half.deallocate = nullptr;
    EXPECT_THROW(set_allocator(half), std::invalid_argument);
    half = allocator_.hook();
    half.allocate = nullptr;
    EXPECT_THROW(set_allocator(half), std::invalid_argument);
    set_allocator(allocator_.hook());
    EXPECT_THROW(lend_memory(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
    EXPECT_EQ(allocator_.requests, 0);
}

TEST(CpuInfo, SaysSomething) {
    const CpuInfo info = cpu_info();
    EXPECT_FALSE(info.model.empty());
    EXPECT_GT(info.l1d, 0);
    EXPECT_GE(info.l3, info.l2);
}

}  // namespace
}  // namespace triconv::test
