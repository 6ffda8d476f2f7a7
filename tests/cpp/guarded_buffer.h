// Memory between two unmapped pages: an access before the first or behind the last element is a crash, not a silent
// read of a neighbour.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "triconv/triconv.hpp"

namespace triconv::test {

enum class Guard : std::uint8_t { before, after };  // the side on which the memory adjoins the unmapped page

// Whole pages between two unmapped ones, of which the first or the last `bytes` are for use.
class GuardedPages {
public:
    GuardedPages(std::size_t bytes, Guard side) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t inner = (bytes + page - 1) / page * page;
        mapped_ = inner + 2 * page;
        void* memory = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(memory);
        if (inner > 0 && mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
        data_ = base_ + page + (side == Guard::after ? inner - bytes : 0);
    }
    ~GuardedPages() { munmap(base_, mapped_); }
    GuardedPages(const GuardedPages&) = delete;
    GuardedPages& operator=(const GuardedPages&) = delete;

    void* data() const { return data_; }

private:
    std::byte* base_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t mapped_ = 0;
};

template <class E>
class GuardedBuffer {
public:
    GuardedBuffer(std::ptrdiff_t count, Guard side, E fill)
        : pages_(static_cast<std::size_t>(count) * sizeof(E), side), count_(count) {
        std::fill_n(data(), count, fill);
    }

    E* data() { return static_cast<E*>(pages_.data()); }
    std::ptrdiff_t size() const { return count_; }
    E& operator[](std::ptrdiff_t i) { return data()[i]; }
    E* begin() { return data(); }
    E* end() { return data() + count_; }

private:
    GuardedPages pages_;
    std::ptrdiff_t count_;
};

// Rows of which each adjoins an unmapped page: what lies between them is not theirs.
template <class E>
class GuardedRows {
public:
    GuardedRows(std::int64_t rows, std::int64_t width, Guard side) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)),
                          bytes = sizeof(E) * static_cast<std::size_t>(width);
        const std::size_t used = (bytes + page - 1) / page * page, apart = used + page;
        mapped_ = static_cast<std::size_t>(rows) * apart + page;
        void* memory = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(memory);
        for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row)
            if (used > 0 && mprotect(base_ + page + row * apart, used, PROT_READ | PROT_WRITE) != 0)
                throw std::bad_alloc();
        first_ = reinterpret_cast<E*>(base_ + page + (side == Guard::after ? used - bytes : 0));
        pitch_ = static_cast<std::ptrdiff_t>(apart / sizeof(E));
    }
    ~GuardedRows() { munmap(base_, mapped_); }
    GuardedRows(const GuardedRows&) = delete;
    GuardedRows& operator=(const GuardedRows&) = delete;

    E* row(std::ptrdiff_t i) { return first_ + i * pitch_; }
    std::ptrdiff_t pitch() const { return pitch_; }

private:
    std::byte* base_ = nullptr;
    std::size_t mapped_ = 0;
    E* first_ = nullptr;
    std::ptrdiff_t pitch_ = 0;
};

// While it lives, all workspaces adjoin unmapped pages, and hold NaN before they are written to.
class GuardedWorkspaces {
public:
    explicit GuardedWorkspaces(Guard side) : side_(side) {
        set_allocator(
            {[](void* self, std::size_t bytes, std::size_t) {
                 return static_cast<GuardedWorkspaces*>(self)->allocate(bytes);
             },
             [](void* self, void* data, std::size_t) { static_cast<GuardedWorkspaces*>(self)->take_back(data); },
             this});
    }
    ~GuardedWorkspaces() { set_allocator({}); }
    GuardedWorkspaces(const GuardedWorkspaces&) = delete;
    GuardedWorkspaces& operator=(const GuardedWorkspaces&) = delete;

    int count() const { return count_; }  // so far

private:
    void* allocate(std::size_t bytes) {
        auto pages = std::make_unique<GuardedPages>(bytes, side_);
        void* const data = pages->data();
        std::memset(data, 0xff, bytes);
        const std::lock_guard lock(mutex_);
        ++count_;
        in_use_[data] = std::move(pages);
        return data;
    }
    void take_back(void* data) {
        const std::lock_guard lock(mutex_);
        in_use_.erase(data);
    }

    Guard side_;
    std::mutex mutex_;
    std::map<void*, std::unique_ptr<GuardedPages>> in_use_;
    int count_ = 0;
};

}  // namespace triconv::test
