// The pool keeps the most recently returned blocks, at most max_idle_blocks of them and max_idle_bytes() in all, each for
// most_idle_requests further requests. A request takes the smallest block that fits without wasting too much. Large
// blocks begin with huge pages, mapped and unmapped directly: malloc would keep freed memory for itself or give it back
// at each call, by a threshold that moves. Blocks of a host's allocator are not kept: what is idle is its affair.
#include "workspace.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
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

#include "made_on_first_use.h"
#include "process_setting.h"

namespace triconv {
namespace {

constexpr std::size_t page = std::size_t{4} << 10;
constexpr std::size_t largest_page = std::size_t{64} << 10;  // of the systems whose huge pages have 2 MiB or more
constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t max_idle_blocks = 32;
constexpr std::uint64_t most_idle_requests = 256;

ProcessSetting<HostAllocator> host_allocator;

struct Block {
    void* data;
    std::size_t capacity;
    const HostAllocator* host;  // whose it is; null: the library's own
};

std::size_t read_max_idle_bytes() {
    const char* text = std::getenv("TRICONV_MAX_IDLE_MIB");
    if (text == nullptr) { return std::size_t{1} << 30; }  // every workspace that "auto" chooses by itself fits
    std::size_t mib = 0;
    const char* end = text + std::strlen(text);
    const auto [parsed_to, error] = std::from_chars(text, end, mib);
    if (error != std::errc() || parsed_to != end || mib > std::numeric_limits<std::size_t>::max() >> 20) {
        throw std::invalid_argument("TRICONV_MAX_IDLE_MIB is \"" + std::string(text) +
                                    "\", expected a number of mebibytes, 0 or more");
    }
    return mib << 20;
}

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

// What a block may have that is not asked for. The pages that it occupies are worth more than the time to get fresh ones,
// all the more in results, which the caller may keep.
struct Spare {
    double slack;        // of a large idle block: its capacity, at most so many times what is needed
    std::size_t unused;  // of whole huge pages: one part in so many
};
constexpr Spare workspace_spare{2, 8}, result_spare{1.125, 128};

// Whole huge pages where they hold little more, else the block ends with small ones.
std::size_t capacity_for(std::size_t bytes, const Spare& spare) {
    if (bytes > std::numeric_limits<std::size_t>::max() - 2 * huge_page) { throw std::bad_alloc(); }
    const std::size_t whole = (bytes + huge_page - 1) / huge_page * huge_page;
    if (whole - bytes <= bytes / spare.unused) { return whole; }
    const std::size_t unit = is_large(bytes) ? largest_page : page;
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
    if (is_large(capacity)) { return {map_huge_pages(capacity), capacity, nullptr}; }
    return {::operator new(capacity, std::align_val_t{workspace_alignment}), capacity, nullptr};
}

Block allocate_by_host(const HostAllocator& host, std::size_t bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() - workspace_alignment) { throw std::bad_alloc(); }
    const std::size_t capacity = (bytes + workspace_alignment - 1) / workspace_alignment * workspace_alignment;
    void* data = host.allocate(host.context, capacity, workspace_alignment);
    if (data == nullptr) { throw std::bad_alloc(); }
    if (reinterpret_cast<std::uintptr_t>(data) % workspace_alignment != 0) {
        host.deallocate(host.context, data, capacity);
        throw std::bad_alloc();
    }
    return {data, capacity, &host};
}

void release(const Block& block) {
    allow_access(block.data, block.capacity);
    if (block.host != nullptr) {
        block.host->deallocate(block.host->context, block.data, block.capacity);
    } else if (is_large(block.capacity)) {
        munmap(block.data, block.capacity);
    } else {
        ::operator delete(block.data, std::align_val_t{workspace_alignment});
    }
}

class BlockPool {
public:
    BlockPool() { idle_.reserve(max_idle_blocks + 1); }

    Block take(std::size_t bytes, const Spare& spare) {
        const HostAllocator& host = host_allocator.get();
        if (host.allocate != nullptr) { return allocate_by_host(host, bytes); }
        max_idle_bytes();  // refuses a wrong setting now: a block's return cannot
        const std::size_t capacity = capacity_for(bytes, spare);
        {
            const std::lock_guard lock(mutex_);
            ++requests_;
            auto best = idle_.end();
            for (auto it = idle_.begin(); it != idle_.end(); ++it) {
                if (fits(it->block.capacity, bytes, spare) &&
                    (best == idle_.end() || it->block.capacity < best->block.capacity)) {
                    best = it;
                }
            }
            if (best != idle_.end()) {
                const Block block = best->block;
                idle_bytes_ -= block.capacity;
                idle_.erase(best);
                return block;
            }
        }
        return allocate(capacity);
    }

    void give_back(const Block& block) noexcept {
        if (block.host != nullptr) { return release(block); }
        std::array<Block, max_idle_blocks + 1> evicted;
        std::size_t evicted_count = 0;
        {
            const std::lock_guard lock(mutex_);
            if (block.capacity > max_idle_bytes()) {
                evicted[evicted_count++] = block;
            } else {
                forbid_access(block.data, block.capacity);
                idle_.push_back({block, requests_});
                idle_bytes_ += block.capacity;
            }
            while (!idle_.empty() && (idle_.size() > max_idle_blocks || idle_bytes_ > max_idle_bytes() ||
                                      requests_ - idle_.front().returned_at > most_idle_requests)) {
                evicted[evicted_count++] = idle_.front().block;
                idle_bytes_ -= idle_.front().block.capacity;
                idle_.erase(idle_.begin());
            }
        }
        for (std::size_t i = 0; i < evicted_count; ++i)
            release(evicted[i]);
    }

    std::size_t trim() {
        std::vector<IdleBlock> blocks;
        blocks.reserve(max_idle_blocks + 1);
        {
            const std::lock_guard lock(mutex_);
            blocks.swap(idle_);  // both have room for all
            idle_bytes_ = 0;
        }
        std::size_t bytes = 0;
        for (const IdleBlock& idle : blocks) {
            bytes += idle.block.capacity;
            release(idle.block);
        }
        return bytes;
    }

    // Blocks whose holders keep the bare pointer.
    void* lend(std::size_t bytes) {
        const Block block = take(bytes, result_spare);
        allow_access(block.data, block.capacity);
        try {
            const std::lock_guard lock(mutex_);
            lent_.emplace(block.data, block);
        } catch (...) {
            give_back(block);
            throw;
        }
        return block.data;
    }
    void take_back(void* data) noexcept {
        Block block{};
        {
            const std::lock_guard lock(mutex_);
            const auto found = lent_.find(data);
            block = found->second;
            lent_.erase(found);
        }
        give_back(block);
    }
    std::size_t capacity_of(void* data) {
        const std::lock_guard lock(mutex_);
        return lent_.at(data).capacity;
    }

    std::mutex& mutex() { return mutex_; }

private:
    struct IdleBlock {
        Block block;
        std::uint64_t returned_at;  // number of the latest request then
    };

    // Small blocks may be reused for anything small.
    static bool fits(std::size_t have, std::size_t wanted, const Spare& spare) {
        return have >= wanted &&
               (!is_large(have) || static_cast<double>(have) <= spare.slack * static_cast<double>(wanted));
    }

    std::mutex mutex_;
    std::vector<IdleBlock> idle_;  // least recently returned first
    std::size_t idle_bytes_ = 0;
    std::uint64_t requests_ = 0;
    std::unordered_map<void*, Block> lent_;
};

// Never destroyed: a thread that outlives main may still return its lease.
BlockPool& pool = *new BlockPool;

// The mutex is held across a fork, so that no other thread can leave the child's copy locked or half changed.
[[maybe_unused]] const int fork_handlers =
    pthread_atfork([] { pool.mutex().lock(); }, [] { pool.mutex().unlock(); }, [] { pool.mutex().unlock(); });

}  // namespace

Workspace::Workspace(std::size_t bytes) {
    if (bytes == 0) { return; }
    const Block block = pool.take(bytes, workspace_spare);
    data_ = block.data;
    size_ = bytes;
    capacity_ = block.capacity;
    host_ = block.host;
    allow_access(data_, size_);
    forbid_access(static_cast<char*>(data_) + size_, capacity_ - size_);
}

Workspace::~Workspace() {
    if (data_ != nullptr) { pool.give_back({data_, capacity_, host_}); }
}

Workspace::Workspace(Workspace&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)),
      host_(std::exchange(other.host_, nullptr)) {}

Workspace& Workspace::operator=(Workspace&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(host_, other.host_);
    return *this;
}

void* lend_memory(std::size_t bytes) {
    return pool.lend(std::max<std::size_t>(bytes, 1));
}

void return_memory(void* data) noexcept {
    pool.take_back(data);
}

std::size_t memory_capacity(void* data) {
    return pool.capacity_of(data);
}

void set_allocator(const HostAllocator& host) {
    if ((host.allocate == nullptr) != (host.deallocate == nullptr)) {
        throw std::invalid_argument("a host's allocator has either allocate or deallocate, expected both or none");
    }
    host_allocator.set(host);
}

std::size_t max_idle_bytes() {
    static const MadeOnFirstUse<const std::size_t> bytes;
    return bytes.get(read_max_idle_bytes);
}

std::size_t release_memory() {
    return pool.trim();
}

}  // namespace triconv
