// parallel_for calls every index once, on slots that are never shared, whoever else uses the pool, and survives fork.
#include "parallel.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "float_mode.h"
#include "forked_child.h"

namespace triconv {
namespace {

class ParallelTest : public ::testing::Test {
protected:
    void TearDown() override { set_num_threads(before_); }

private:
    int before_ = num_threads();
};

// Sum over the indices [0, count) by tasks; every index must come once, and slots must be within range and unshared.
std::int64_t sum_of_indices(std::int64_t count, int max_threads) {
    std::atomic<std::int64_t> sum{0};
    const int slots = std::min(num_threads(), max_threads);
    std::vector<std::atomic<int>> in_use(static_cast<std::size_t>(std::max(slots, 1)));
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
    parallel_for(count, max_threads, [&](std::int64_t index, int slot) {
        EXPECT_GE(slot, 0);
        EXPECT_LT(static_cast<std::size_t>(slot), in_use.size());
        EXPECT_EQ(in_use[static_cast<std::size_t>(slot)].fetch_add(1), 0);
        EXPECT_EQ(calls[static_cast<std::size_t>(index)].fetch_add(1), 0);
        sum += index;
        in_use[static_cast<std::size_t>(slot)].fetch_sub(1);
    });
    return sum;
}

std::int64_t expected_sum(std::int64_t count) {
    return count * (count - 1) / 2;
}

TEST_F(ParallelTest, EveryIndexOnce) {
    for (int threads : {1, 2, 3, 8}) {
        set_num_threads(threads);
        EXPECT_EQ(num_threads(), threads);
        for (std::int64_t count : {0, 1, 2, 3, 7, 8, 9, 1000}) {
            for (int max_threads : {1, 2, 5, 100}) {
                EXPECT_EQ(sum_of_indices(count, max_threads), expected_sum(count)) << threads << " " << count;
            }
        }
    }
}

TEST_F(ParallelTest, NegativeCountDoesNothing) {
    parallel_for(-1, 2, [](std::int64_t, int) { FAIL(); });
}

TEST_F(ParallelTest, ManySmallJobsInARow) {
    set_num_threads(4);
    std::atomic<std::int64_t> calls{0};
    for (int i = 0; i < 5000; ++i) {
        parallel_for(4, 4, [&](std::int64_t, int) { ++calls; });
    }
    EXPECT_EQ(calls, 20000);
}

TEST_F(ParallelTest, SlotsHaveContiguousRanges) {
    set_num_threads(3);
    std::vector<int> slot_of(10);
    parallel_for(10, 3, [&](std::int64_t index, int slot) { slot_of[static_cast<std::size_t>(index)] = slot; });
    EXPECT_EQ(slot_of, (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 2, 2, 2}));
}

TEST_F(ParallelTest, ExceptionIsRethrownAndThePoolStaysUsable) {
    set_num_threads(4);
    for (std::int64_t bad : {0, 5, 9}) {
        const auto task = [&](std::int64_t index, int) {
            if (index == bad) { throw std::domain_error("index"); }
        };
        EXPECT_THROW(parallel_for(10, 4, task), std::domain_error);
        EXPECT_THROW(parallel_for(10, 1, task), std::domain_error);
        EXPECT_EQ(sum_of_indices(100, 4), expected_sum(100));
    }
    EXPECT_THROW(parallel_for(8, 4, [](std::int64_t, int) { throw std::bad_alloc(); }), std::bad_alloc);
}

TEST_F(ParallelTest, NestedRunsSeriallyAsSlotZero) {
    set_num_threads(3);
    std::atomic<int> inner{0};
    parallel_for(6, 3, [&](std::int64_t, int) {
        EXPECT_EQ(num_threads(), 1);
        const std::thread::id self = std::this_thread::get_id();
        parallel_for(5, 3, [&](std::int64_t, int slot) {
            EXPECT_EQ(slot, 0);
            EXPECT_EQ(std::this_thread::get_id(), self);
            ++inner;
        });
    });
    EXPECT_EQ(inner, 30);
    EXPECT_EQ(num_threads(), 3);
}

TEST_F(ParallelTest, ConcurrentCallers) {
    set_num_threads(2);
    std::vector<std::thread> callers;
    std::atomic<int> wrong{0};
    for (int caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&] {
            for (int i = 0; i < 200; ++i) {
                wrong += sum_of_indices(50, 2) != expected_sum(50);
            }
        });
    }
    for (std::thread& caller : callers) {
        caller.join();
    }
    EXPECT_EQ(wrong, 0);
}

TEST_F(ParallelTest, BusyPoolMeansSerialAsSlotZero) {
    set_num_threads(2);
    std::atomic<bool> started{false}, release{false};
    std::thread owner([&] {
        parallel_for(2, 2, [&](std::int64_t, int) {
            started = true;
            while (!release) {
                std::this_thread::yield();
            }
        });
    });
    while (!started) {
        std::this_thread::yield();
    }
    parallel_for(8, 2, [](std::int64_t, int slot) { EXPECT_EQ(slot, 0); });
    release = true;
    owner.join();
}

TEST_F(ParallelTest, NumberOfThreadsMustBeReasonable) {
    for (int count : {0, -1, std::numeric_limits<int>::min(), 65537, std::numeric_limits<int>::max()}) {
        EXPECT_THROW(set_num_threads(count), std::invalid_argument);
    }
}

// Denormals vanish inside tasks only, and the caller's mode and exception flags are as before.
TEST_F(ParallelTest, DenormalsAreFlushedInsideOnly) {
    if (!can_flush_denormals) GTEST_SKIP() << "no flush-to-zero mode is known for this machine";
    for (int threads : {1, 3}) {
        set_num_threads(threads);
        const volatile float tiny = std::numeric_limits<float>::denorm_min();
        const volatile float smallest = std::numeric_limits<float>::min();
        std::feclearexcept(FE_ALL_EXCEPT);
        std::fesetround(FE_UPWARD);
        std::atomic<int> kept{0}, misrounded{0};
        parallel_for(6, threads, [&](std::int64_t, int) {
            const volatile float product = smallest * 0.5f, sum = tiny + tiny, third = 1.0f / 3.0f;
            kept += product != 0.0f || sum != 0.0f;
            volatile float one = 1.0f, three = 3.0f;
            misrounded += one / three != third;
        });
        EXPECT_EQ(std::fegetround(), FE_UPWARD);
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(kept, 0);
        EXPECT_EQ(misrounded, 0);
        EXPECT_EQ(std::fetestexcept(FE_UNDERFLOW | FE_INEXACT), 0);
        const volatile float half = smallest * 0.5f;
        EXPECT_GT(half, 0.0f);
    }
}

#if defined(__linux__)

// ---- where the workers run ------------------------------------------------------------------------------------------

// Runs a job of two slots on threads that were idle for a while. `worker` runs in slot 1, while slot 0 waits for its end,
// so that slot 1 is the worker's and not taken over by the owner.
void run_on_idle_worker(const std::function<void(int owner_cpu)>& worker) {
    using namespace std::chrono_literals;
    std::this_thread::sleep_for(5ms);
    std::atomic<bool> ended{false};
    std::atomic<int> owner_cpu{sched_getcpu()};
    parallel_for(2, 2, [&](std::int64_t index, int) {
        if (index == 1) {
            worker(owner_cpu);
            ended = true;
        } else {
            const auto deadline = std::chrono::steady_clock::now() + 2s;
            while (!ended && std::chrono::steady_clock::now() < deadline) {
                owner_cpu = sched_getcpu();
                std::this_thread::yield();
            }
            EXPECT_TRUE(ended);
        }
    });
}

std::vector<int> allowed_cpus() {
    cpu_set_t set;
    EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &set)) { cpus.push_back(cpu); }
    }
    return cpus;
}

TEST_F(ParallelTest, WorkerWakesUpOnAnotherCpu) {
    if (num_threads() < 2 || allowed_cpus().size() < 2) { GTEST_SKIP() << "one CPU"; }
    set_num_threads(2);
    // The kernel may still move either thread in between: on a busy machine some batch is undisturbed.
    int together = 40;
    for (int batch = 0; batch < 3 && together > 10; ++batch) {
        together = 0;
        for (int i = 0; i < 40; ++i) {
            run_on_idle_worker([&](int owner_cpu) { together += sched_getcpu() == owner_cpu; });
        }
    }
    EXPECT_LE(together, 10);
}

TEST_F(ParallelTest, WorkersKeepTheirAffinity) {
    const std::vector<int> before = allowed_cpus();
    set_num_threads(2);
    for (int i = 0; i < 20; ++i) {
        run_on_idle_worker([&](int) { EXPECT_EQ(allowed_cpus(), before); });
        parallel_for(2, 2, [](std::int64_t, int) {});  // whose slots the owner often runs both
    }
}

TEST_F(ParallelTest, AffinityGivenToAWorkerStays) {
    const std::vector<int> before = allowed_cpus();
    set_num_threads(2);
    const auto allow = [](const std::vector<int>& cpus) {
        cpu_set_t set;
        CPU_ZERO(&set);
        for (int cpu : cpus) {
            CPU_SET(cpu, &set);
        }
        EXPECT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
    };
    for (int cpu : before) {
        run_on_idle_worker([&](int) { allow({cpu}); });
        for (int i = 0; i < 3; ++i) {
            run_on_idle_worker([&](int) { EXPECT_EQ(allowed_cpus(), std::vector<int>{cpu}); });
        }
    }
    run_on_idle_worker([&](int) { allow(before); });
    allow(before);  // had a worker not come, its part would have run here
}

#endif

// ---- fork -----------------------------------------------------------------------------------------------------------

using test::succeeds_in_child;

// Slot 0 waits until another thread has begun.
bool another_thread_takes_part() {
    std::atomic<std::thread::id> other{};
    parallel_for(2, 2, [&](std::int64_t, int slot) {
        if (slot != 0) other = std::this_thread::get_id();
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while (other.load() == std::thread::id() && std::chrono::steady_clock::now() < deadline)
            std::this_thread::yield();
    });
    return other.load() != std::thread::id() && other.load() != std::this_thread::get_id();
}

bool pool_works() {
    if (!another_thread_takes_part()) return false;
    std::atomic<std::int64_t> sum{0};
    std::atomic<int> other_slots{0};
    parallel_for(1000, 2, [&](std::int64_t index, int slot) {
        sum += index;
        other_slots += slot != 0;
    });
    return sum == expected_sum(1000) && other_slots == 500;
}

TEST_F(ParallelTest, ChildHasAPoolOfItsOwn) {
    set_num_threads(2);
    EXPECT_TRUE(pool_works());
    EXPECT_TRUE(succeeds_in_child([] { return pool_works() && succeeds_in_child(pool_works) && pool_works(); }));
    EXPECT_TRUE(pool_works());
}

TEST_F(ParallelTest, ForkWhileAnotherThreadHasThePool) {
    set_num_threads(2);
    std::atomic<bool> stop{false};
    std::thread owner([&] {
        while (!stop) {
            parallel_for(64, 2, [](std::int64_t, int) {});
        }
    });
    for (int i = 0; i < 50; ++i) {
        EXPECT_TRUE(succeeds_in_child(pool_works));
    }
    stop = true;
    owner.join();
}

// ---- the environment, read once per process -------------------------------------------------------------------------

// The tests above have decided the number of threads, so each value needs a fresh process.
class NumThreadsVariable : public ::testing::Test {
protected:
    void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

[[noreturn]] void report_threads(const char* value) {
    setenv("TRICONV_NUM_THREADS", value, 1);
    try {
        std::fprintf(stderr, "threads: %d\n", num_threads());
    } catch (const std::invalid_argument& error) { std::fprintf(stderr, "invalid: %s\n", error.what()); }
    std::exit(0);
}

TEST_F(NumThreadsVariable, PositiveInteger) {
    EXPECT_EXIT(report_threads("3"), ::testing::ExitedWithCode(0), "threads: 3");
}

TEST_F(NumThreadsVariable, AnythingElseIsAnError) {
    for (const char* value : {"0", "-2", "", "two", "2x", " 2", "2.5", "65537", "99999999999999999999"}) {
        EXPECT_EXIT(report_threads(value), ::testing::ExitedWithCode(0), "invalid: TRICONV_NUM_THREADS is ") << value;
    }
}

// A program that exits while its workers wait, or while a thread is in parallel_for, ends.
[[noreturn]] void exit_with_busy_pool() {
    alarm(10);
    set_num_threads(3);
    std::thread([] {
        for (;;) {
            parallel_for(100, 3, [](std::int64_t, int) {});
        }
    }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::exit(7);
}

TEST_F(NumThreadsVariable, ExitWithBusyPool) {
    EXPECT_EXIT(exit_with_busy_pool(), ::testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace triconv
