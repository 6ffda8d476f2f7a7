// Workspaces are aligned, usable to the last byte, distinct while leased, reused after, and bounded while idle.
#include "workspace.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "triconv/triconv.hpp"

namespace triconv {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

class WorkspaceTest : public ::testing::Test {
protected:
    void SetUp() override { release_memory(); }
};

TEST_F(WorkspaceTest, EmptyHasNoMemory) {
    const Workspace defaulted, sized(0);
    EXPECT_EQ(defaulted.data(), nullptr);
    EXPECT_EQ(sized.data(), nullptr);
    EXPECT_EQ(sized.size(), 0u);
}

TEST_F(WorkspaceTest, AlignedAndWritable) {
    for (std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{4096}, 2 * mib - 1, 2 * mib, 5 * mib + 1}) {
        const Workspace workspace(bytes);
        EXPECT_EQ(workspace.size(), bytes);
        const std::size_t alignment = bytes >= 2 * mib ? 2 * mib : 64;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(workspace.data()) % alignment, 0u) << bytes;
        std::memset(workspace.data(), 0x5a, bytes);
    }
}

TEST_F(WorkspaceTest, LeasesAreDistinct) {
    const Workspace a(3 * mib), b(3 * mib);
    EXPECT_NE(a.data(), b.data());
}

TEST_F(WorkspaceTest, ReturnedBlockIsReused) {
    const void* first = Workspace(4 * mib).data();
    EXPECT_EQ(Workspace(4 * mib).data(), first);
    EXPECT_EQ(Workspace(3 * mib).data(), first);
}

TEST_F(WorkspaceTest, SmallestFittingBlockIsTaken) {
    const void* small;
    {
        const Workspace a(6 * mib), b(4 * mib);
        small = b.data();
    }
    EXPECT_EQ(Workspace(4 * mib).data(), small);
}

TEST_F(WorkspaceTest, MuchLargerBlockIsNotWasted) {
    { const Workspace large(64 * mib); }
    { const Workspace small(2 * mib); }
    EXPECT_EQ(release_memory(), 66 * mib);
}

TEST_F(WorkspaceTest, IdleBlocksAreBoundedInNumber) {
    {
        std::vector<Workspace> many;
        for (int i = 0; i < 50; ++i) {
            many.emplace_back(2 * mib);
        }
    }
    EXPECT_EQ(release_memory(), 32 * 2 * mib);
    EXPECT_EQ(release_memory(), 0u);
}

// The pages are never touched: only addresses are taken.
TEST_F(WorkspaceTest, IdleBytesAreBounded) {
    ASSERT_EQ(max_idle_bytes(), 1024 * mib);
    const auto leave_idle = [](std::vector<std::size_t> sizes) {
        std::vector<Workspace> many;
        for (std::size_t size : sizes) {
            many.emplace_back(size * mib);
        }
        while (!many.empty()) {
            many.erase(many.begin());
        }
        return release_memory();
    };
    EXPECT_EQ(leave_idle({600, 300, 200}), 500 * mib) << "the oldest goes";
    EXPECT_EQ(leave_idle({300, 1200}), 300 * mib) << "a block above the bound displaces no other";
    EXPECT_EQ(leave_idle({1024}), 1024 * mib);
}

TEST_F(WorkspaceTest, BlockThatNoRequestFitsIsGivenBack) {
    { const Workspace unused(64 * mib); }
    for (int i = 0; i < 300; ++i) {
        const Workspace used(2 * mib);
    }
    EXPECT_EQ(release_memory(), 2 * mib);
}

TEST_F(WorkspaceTest, LentMemoryIsAlignedReusedAndHardlyLargerThanAskedFor) {
    for (std::size_t bytes : {std::size_t{0}, std::size_t{1}, mib, 2 * mib - 1, 51 * mib + 1}) {
        void* const data = lend_memory(bytes);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % 64, 0u);
        EXPECT_GE(memory_capacity(data), bytes);
        std::memset(data, 0x5a, memory_capacity(data));
        return_memory(data);
        EXPECT_EQ(Workspace(std::max<std::size_t>(bytes, 1)).data(), data) << "results and workspaces share the pool";
        EXPECT_EQ(lend_memory(bytes), data);
        return_memory(data);
    }
    for (std::size_t bytes : {15 * mib + 1, 39 * mib + 1, 55 * mib + 1}) {
        release_memory();
        void* const data = lend_memory(bytes);
        EXPECT_LE(memory_capacity(data), bytes + std::max<std::size_t>(bytes / 128, 64 << 10)) << bytes;
        return_memory(data);
    }
    release_memory();
    return_memory(lend_memory(64 * mib));
    void* const smaller = lend_memory(40 * mib);
    EXPECT_EQ(memory_capacity(smaller), 40 * mib);
    return_memory(smaller);
    EXPECT_THROW(lend_memory(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
}

TEST_F(WorkspaceTest, HardlyLargerThanAskedFor) {
    for (std::size_t bytes : {2 * mib, 2 * mib + 1, 3 * mib, 5 * mib + 1, 15 * mib, 63 * mib + 5}) {
        { const Workspace used(bytes); }
        const std::size_t idle = release_memory();
        EXPECT_GE(idle, bytes);
        EXPECT_LE(idle, bytes + bytes / 8) << bytes;
    }
}

TEST_F(WorkspaceTest, MoveTransfersTheLease) {
    Workspace a(100);
    const void* data = a.data();
    Workspace b(std::move(a));
    EXPECT_EQ(a.data(), nullptr);
    EXPECT_EQ(b.data(), data);
    Workspace c(200);
    c = std::move(b);
    EXPECT_EQ(c.data(), data);
    EXPECT_EQ(c.size(), 100u);
}

TEST_F(WorkspaceTest, TooLargeIsBadAlloc) {
    EXPECT_THROW(Workspace(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
    EXPECT_THROW(Workspace(std::numeric_limits<std::size_t>::max() / 2), std::bad_alloc);
}

TEST_F(WorkspaceTest, ConcurrentLeases) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([t] {
            for (std::size_t i = 1; i < 300; ++i) {
                const Workspace workspace(i * 1000);
                auto* bytes = static_cast<unsigned char*>(workspace.data());
                std::memset(bytes, t, workspace.size());
                EXPECT_EQ(bytes[0], t);
                EXPECT_EQ(bytes[workspace.size() - 1], t);
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
}

// A child forked while another thread takes and returns blocks can do so itself.
TEST_F(WorkspaceTest, UsableInAForkedChild) {
    std::atomic<bool> stop{false};
    std::thread other([&] {
        while (!stop) {
            const Workspace workspace(1000);
        }
    });
    for (int i = 0; i < 50; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(10);
            const Workspace workspace(1000);
            _exit(workspace.data() != nullptr ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    stop = true;
    other.join();
}

}  // namespace
}  // namespace triconv
