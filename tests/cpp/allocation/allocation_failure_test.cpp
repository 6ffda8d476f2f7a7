// Every allocation fails once, on any thread: what was called throws std::bad_alloc or succeeds, leaks nothing, and works
// the next time. A program of its own, since it replaces the global operator new, and mmap, which large workspaces use.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>

#include "layer_data.h"
#include "triconv/triconv.hpp"

namespace {

constexpr long never = 0;

std::atomic<long> requests{0}, failing_request{never};  // counted since `failing_request` was set
std::atomic<long> live_blocks{0}, mapped_bytes{0};

bool fails_now() {
    return failing_request != never && ++requests == failing_request;
}

void* allocate(std::size_t bytes, std::size_t alignment) {
    if (fails_now()) throw std::bad_alloc();
    void* const memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment + alignment);
    if (memory == nullptr) throw std::bad_alloc();
    ++live_blocks;
    return memory;
}

void release(void* memory) noexcept {
    if (memory != nullptr) --live_blocks;
    std::free(memory);
}

}  // namespace

void* operator new(std::size_t bytes) {
    return allocate(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return allocate(bytes, static_cast<std::size_t>(alignment));
}
// The library's own would call the first; AddressSanitizer's does not.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept try {
    return ::operator new(bytes);
} catch (const std::bad_alloc&) { return nullptr; }
void operator delete(void* memory) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    release(memory);
}

extern "C" void* mmap(void* at, std::size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
    if ((flags & MAP_ANONYMOUS) != 0 && fails_now()) return MAP_FAILED;
    const long mapped = syscall(SYS_mmap, at, bytes, protection, flags, file, offset);
    if (mapped != -1 && (flags & MAP_ANONYMOUS) != 0) mapped_bytes += static_cast<long>(bytes);
    return reinterpret_cast<void*>(mapped);
}
extern "C" int munmap(void* at, std::size_t bytes) noexcept {
    mapped_bytes -= static_cast<long>(bytes);
    return static_cast<int>(syscall(SYS_munmap, at, bytes));
}

namespace triconv::test {
namespace {

using Bits = std::vector<std::vector<float>>;

struct Held {
    long blocks, bytes;
};

Held held_now() {
    release_memory();
    return {live_blocks, mapped_bytes};
}

// Runs the operation with its 1st, 2nd, ... allocation failing, until it has no more; in a first round, after each failure
// once more as a whole: all results must have the same bits. What stays for the life of the process (threads) is made in
// that round, while its allocations fail, too; a second round must leave nothing.
void fail_each_allocation(const std::function<Bits()>& operation) {
    Bits expected;
    const auto compare = [&](const Bits& result, long which) {
        if (expected.empty()) expected = result;
        ASSERT_EQ(result, expected) << "allocation " << which;
    };
    for (const bool leaks_show : {false, true}) {
        const Held before = held_now();
        int failures = 0;
        for (long which = 1;; ++which) {
            requests = 0;
            failing_request = which;
            bool failed = false;
            Bits result;
            try {
                result = operation();
            } catch (const std::bad_alloc&) { failed = true; }
            failing_request = never;
            const bool injected = requests >= which;
            ASSERT_TRUE(injected || !failed) << "memory ran out by itself";
            if (!failed) { ASSERT_NO_FATAL_FAILURE(compare(result, which)); }
            if (!injected) break;
            failures += failed;
            Bits().swap(result);
            if (leaks_show) {
                const Held after = held_now();
                ASSERT_EQ(after.blocks, before.blocks) << "leaked when allocation " << which << " failed";
                ASSERT_EQ(after.bytes, before.bytes) << "leaked when allocation " << which << " failed";
            }
            if (!leaks_show) { ASSERT_NO_FATAL_FAILURE(compare(operation(), which)); }
            release_memory();  // so that every workspace is asked from the system again
        }
        EXPECT_GT(failures, 0);
    }
}

class AllocationFailure : public testing::Test {
protected:
    void SetUp() override { set_num_threads(3); }
};

void fail_in_all_passes(const std::string& problem, const std::string& algorithm, bool with_nan) {
    SCOPED_TRACE(problem + " " + algorithm + (with_nan ? " with NaN" : ""));
    LayerData<float> data(parse_problem(problem).problem);
    if (with_nan) data.x[data.x.size() / 2] = data.dy[data.dy.size() / 2] = std::numeric_limits<float>::quiet_NaN();
    const auto passes = [&](bool by_step) {
        Options options;
        options.algorithm = algorithm;
        const Plan plan(data.problem, options);
        Bits out;  // filled one by one: GCC 12 leaks the elements of an initializer list that throws
        for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad, Pass::forward})
            out.push_back(data.empty_output(pass));
        const auto view = [&](Pass pass) {
            return contiguous(shape_of(data.problem, LayerData<float>::output_of(pass)),
                              out[static_cast<std::size_t>(pass)].data());
        };
        if (by_step) {
            Step step(plan, data.view(Array::x), data.view(Array::w));
            step.forward(data.bias.data(), 1, view(Pass::forward));
            step.backward(data.view(Array::y), view(Pass::input_grad), view(Pass::weight_grad));
        } else {
            for (Pass pass : all_passes)
                data.run(plan, pass, out[static_cast<std::size_t>(pass)]);
        }
        plan.prepare(data.view(Array::w))
            .forward(data.view(Array::x), nullptr, 0, contiguous(shape_of(data.problem, Array::y), out[3].data()));
        for (std::vector<float>& values : out)  // NaN equals nothing
            for (float& value : values)
                if (std::isnan(value)) value = 1e30f;
        return out;
    };
    fail_each_allocation([&] { return passes(false); });
    if (algorithm != "direct") fail_each_allocation([&] { return passes(true); });  // direct has no spectra to share
}

// Lanes of each kind, and folded gradients.
TEST_F(AllocationFailure, InEveryPass) {
    for (const char* problem : {"n2c3k18 i6x7 r3x3 p1 f32", "n1c1k2 i40 r5 p2 f32", "n1c17k17 i6x5 r3x3 s2 p1 g17 f32",
                                "n1c2k3 i5x4 r3x3 p2 d2 b=mirror f32"})
        for (const char* algorithm : {"direct", "fft:8", "winograd:2"})
            fail_in_all_passes(problem, algorithm, false);
}

TEST_F(AllocationFailure, OfLargeWorkspaces) {
    fail_in_all_passes("n1c96k96 i6x6 r3x3 p1 f32", "fft:8", false);
}

// The memory of a host.
TEST_F(AllocationFailure, OfAHostsAllocator) {
    set_allocator({[](void*, std::size_t bytes, std::size_t alignment) -> void* {
                       if (fails_now()) return nullptr;
                       ++live_blocks;
                       return std::aligned_alloc(alignment, bytes);
                   },
                   [](void*, void* data, std::size_t) { release(data); }, nullptr});
    fail_in_all_passes("n2c3k18 i6x7 r3x3 p1 f32", "fft:8", false);
    fail_in_all_passes("n1c2k3 i5x4 r3x3 p2 d2 b=mirror f32", "direct", false);
    set_allocator({});
}

TEST_F(AllocationFailure, OfSignals) {
    const std::vector<float> samples(300, 1), kernel(20, 1);
    const auto convolved = [&] {
        SignalProblem problem;
        problem.in1[0] = static_cast<std::int64_t>(samples.size());
        problem.in2[0] = static_cast<std::int64_t>(kernel.size());
        const SignalPlan plan(problem, "fft");
        Bits out;
        out.emplace_back(static_cast<std::size_t>(problem.output(0)));
        plan.convolve({samples.data(), {0, 1}}, {kernel.data(), {0, 1}}, {out[0].data(), {0, 1}});
        return out;
    };
    fail_each_allocation(convolved);
}

TEST_F(AllocationFailure, WhileOutputsAreComputedByDefinition) {
    for (const char* problem : {"n1c1k2 i4 r2 f32", "n1c1k1 i3 r2 p1 b=mirror f32"})
        for (const char* algorithm : {"direct", "fft:4", "winograd:2"})
            fail_in_all_passes(problem, algorithm, true);
}

TEST_F(AllocationFailure, InPlanningAndInErrors) {
    const auto plan = [] {
        const ProblemAndPass parsed = parse_problem("n2c5k18 i13x17 r3x3 p1 f32");
        const Plan plan(parsed.problem);
        const auto candidates = plan.candidates(Pass::forward);
        const auto contenders = plan.contenders(Pass::weight_grad);
        try {
            Options options;
            options.algorithm = "fft:2x2";
            const Plan impossible(parsed.problem, options);
        } catch (const std::invalid_argument&) {}
        Bits sizes(1);
        for (const std::size_t size :
             {candidates.size(), contenders.size(), to_string(parsed.problem).size(), build_info().isas.size()})
            sizes[0].push_back(static_cast<float>(size));
        return sizes;
    };
    fail_each_allocation(plan);
}

TEST_F(AllocationFailure, OfMemoryForResults) {
    const auto lend = [] {
        for (const std::size_t bytes : {std::size_t{1000}, std::size_t{5} << 20}) {
            void* const data = lend_memory(bytes);
            std::memset(data, 1, bytes);
            return_memory(data);
        }
        return Bits(1);
    };
    fail_each_allocation(lend);
}

}  // namespace
}  // namespace triconv::test
