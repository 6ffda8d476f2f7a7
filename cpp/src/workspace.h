// Workspaces, and large results, are leased from a process-wide pool: fresh pages can cost more than the transforms that
// would use them, so they are kept, huge-page advised, and reused.
#pragma once

#include <cstddef>

#include "triconv/triconv.hpp"

namespace triconv {

class Workspace {
public:
    Workspace() = default;
    explicit Workspace(std::size_t bytes);  // workspace_alignment, contents undefined; std::bad_alloc
    ~Workspace();
    Workspace(Workspace&& other) noexcept;
    Workspace& operator=(Workspace&& other) noexcept;

    void* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    void* data_ = nullptr;
    std::size_t size_ = 0;      // asked for
    std::size_t capacity_ = 0;  // of the block
    const HostAllocator* host_ = nullptr;
};

}  // namespace triconv
