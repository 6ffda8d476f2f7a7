// Workspaces, and large results, are leased from a process-wide pool: fresh pages can cost more than the transforms that
// would use them, so they are kept, huge-page advised, and reused.
#pragma once

#include <cstddef>

namespace triconv {

class Workspace {
public:
    Workspace() = default;
    explicit Workspace(std::size_t bytes);  // 64-byte aligned (2 MB when large), contents undefined; std::bad_alloc
    ~Workspace();
    Workspace(Workspace&& other) noexcept;
    Workspace& operator=(Workspace&& other) noexcept;

    void* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    void* data_ = nullptr;
    std::size_t size_ = 0;      // asked for
    std::size_t capacity_ = 0;  // of the pooled block
};

// Memory for results: as a workspace, but its holder keeps the bare pointer, and perhaps for long, so that a reused block
// is hardly larger than asked for.
void* lend_memory(std::size_t bytes);  // std::bad_alloc
void return_memory(void* data) noexcept;
std::size_t memory_capacity(void* data);  // bytes that may be used

// What the pool keeps at most: the environment variable TRICONV_MAX_IDLE_MIB, 1 GiB without it, 0 for no pool.
// std::invalid_argument if it is not a number.
std::size_t max_idle_bytes();

}  // namespace triconv
