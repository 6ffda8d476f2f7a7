// The pool keeps the most recently returned blocks, at most max_idle_blocks of them. A request takes the smallest block
// that fits without wasting too much. Large blocks are whole huge pages, mapped and unmapped directly: malloc would keep
// freed memory for itself or give it back at each call, by a threshold that moves.
#include "workspace.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define TRICONV_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRICONV_ADDRESS_SANITIZER
#endif
#endif
#if defined(TRICONV_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace triconv {
namespace {

constexpr std::size_t cache_line = 64;
constexpr std::size_t page = std::size_t{4} << 10;
constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t max_idle_blocks = 8;

struct Block {
    void* data;
    std::size_t capacity;
};

// Under AddressSanitizer an access to a pooled block behind the size asked for, or after its return, is reported.
void forbid_access([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(TRICONV_ADDRESS_SANITIZER)
    __asan_poison_memory_region(data, bytes);
#endif
}

void allow_access([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(TRICONV_ADDRESS_SANITIZER)
    __asan_unpoison_memory_region(data, bytes);
#endif
}

constexpr bool is_large(std::size_t capacity) {
    return capacity >= huge_page;
}

std::size_t capacity_for(std::size_t bytes) {
    const std::size_t unit = is_large(bytes) ? huge_page : page;
    if (bytes > std::numeric_limits<std::size_t>::max() - 2 * huge_page) { throw std::bad_alloc(); }
    return (bytes + unit - 1) / unit * unit;
}

// Maps one huge page too much and unmaps what lies outside the aligned part.
void* map_huge_pages(std::size_t capacity) {
    const std::size_t mapped = capacity + huge_page;
    void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) { throw std::bad_alloc(); }
    char* begin = static_cast<char*>(base);
    const std::size_t head = (huge_page - reinterpret_cast<std::uintptr_t>(begin) % huge_page) % huge_page;
    char* aligned = begin + head;
    if (head > 0) { munmap(begin, head); }
    munmap(aligned + capacity, huge_page - head);
#if defined(MADV_HUGEPAGE)
    madvise(aligned, capacity, MADV_HUGEPAGE);  // advice: without huge pages the memory is slower, not wrong
#endif
    return aligned;
}

Block allocate(std::size_t capacity) {
    if (is_large(capacity)) { return {map_huge_pages(capacity), capacity}; }
    return {::operator new(capacity, std::align_val_t{cache_line}), capacity};
}

void release(const Block& block) {
    allow_access(block.data, block.capacity);
    if (is_large(block.capacity)) {
        munmap(block.data, block.capacity);
    } else {
        ::operator delete(block.data, std::align_val_t{cache_line});
    }
}

class BlockPool {
public:
    Block take(std::size_t capacity) {
        {
            const std::lock_guard lock(mutex_);
            auto best = idle_.end();
            for (auto it = idle_.begin(); it != idle_.end(); ++it) {
                if (fits(it->capacity, capacity) && (best == idle_.end() || it->capacity < best->capacity)) {
                    best = it;
                }
            }
            if (best != idle_.end()) {
                const Block block = *best;
                idle_.erase(best);
                return block;
            }
        }
        return allocate(capacity);
    }

    void give_back(const Block& block) noexcept {
        Block evicted = block;
        {
            const std::lock_guard lock(mutex_);
            if (idle_.size() == max_idle_blocks) {
                evicted = idle_.front();
                idle_.erase(idle_.begin());
            } else {
                evicted.data = nullptr;
            }
            forbid_access(block.data, block.capacity);
            idle_.push_back(block);
        }
        if (evicted.data != nullptr) { release(evicted); }
    }

    std::size_t trim() {
        std::vector<Block> blocks;
        blocks.reserve(max_idle_blocks);
        {
            const std::lock_guard lock(mutex_);
            blocks.swap(idle_);  // both have room for max_idle_blocks
        }
        std::size_t bytes = 0;
        for (const Block& block : blocks) {
            bytes += block.capacity;
            release(block);
        }
        return bytes;
    }

    BlockPool() { idle_.reserve(max_idle_blocks); }

    std::mutex& mutex() { return mutex_; }

private:
    // Small blocks may be reused for anything small, large ones for at least half their size: the pages that a
    // too-large block occupies are worth more than the time to get fresh ones.
    static bool fits(std::size_t have, std::size_t wanted) {
        return have >= wanted && (!is_large(have) || have / 2 <= wanted);
    }

    std::mutex mutex_;
    std::vector<Block> idle_;  // least recently returned first
};

// Never destroyed: a thread that outlives main may still return its lease.
BlockPool& pool = *new BlockPool;

// The mutex is held across a fork, so that no other thread can leave the child's copy locked or half changed.
[[maybe_unused]] const int fork_handlers =
    pthread_atfork([] { pool.mutex().lock(); }, [] { pool.mutex().unlock(); }, [] { pool.mutex().unlock(); });

}  // namespace

Workspace::Workspace(std::size_t bytes) {
    if (bytes == 0) { return; }
    const Block block = pool.take(capacity_for(bytes));
    data_ = block.data;
    size_ = bytes;
    capacity_ = block.capacity;
    allow_access(data_, size_);
    forbid_access(static_cast<char*>(data_) + size_, capacity_ - size_);
}

Workspace::~Workspace() {
    if (data_ != nullptr) { pool.give_back({data_, capacity_}); }
}

Workspace::Workspace(Workspace&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Workspace& Workspace::operator=(Workspace&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
}

std::size_t trim_workspaces() {
    return pool.trim();
}

}  // namespace triconv
