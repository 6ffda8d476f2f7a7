// Memory between two unmapped pages: an access before the first or behind the last element is a crash, not a silent
// read of a neighbour.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace triconv::test {

enum class Guard : std::uint8_t { before, after };  // the side on which the elements adjoin the unmapped page

template <class E>
class GuardedBuffer {
public:
    GuardedBuffer(std::ptrdiff_t count, Guard side, E fill) : count_(count) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(E);
        const std::size_t inner = (bytes + page - 1) / page * page;
        mapped_ = inner + 2 * page;
        void* memory = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(memory);
        if (inner > 0 && mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
        data_ = reinterpret_cast<E*>(base_ + page + (side == Guard::after ? inner - bytes : 0));
        for (std::ptrdiff_t i = 0; i < count; ++i)
            data_[i] = fill;
    }
    ~GuardedBuffer() { munmap(base_, mapped_); }
    GuardedBuffer(const GuardedBuffer&) = delete;
    GuardedBuffer& operator=(const GuardedBuffer&) = delete;

    E* data() { return data_; }
    std::ptrdiff_t size() const { return count_; }
    E& operator[](std::ptrdiff_t i) { return data_[i]; }
    E* begin() { return data_; }
    E* end() { return data_ + count_; }

private:
    std::byte* base_ = nullptr;
    E* data_ = nullptr;
    std::size_t mapped_ = 0;
    std::ptrdiff_t count_;
};

}  // namespace triconv::test
