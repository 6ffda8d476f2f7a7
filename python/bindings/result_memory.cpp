#include "result_memory.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "triconv/triconv.hpp"

namespace triconv::python {

namespace {

// Below, malloc reuses memory without fresh pages, too.
constexpr std::int64_t pooled_bytes = std::int64_t{1} << 20;

// ---- what NumPy calls: no exception may leave these -----------------------------------------------------------------

void* allocate_block(void*, std::size_t bytes) noexcept {
    try {
        return lend_memory(bytes);
    } catch (...) { return nullptr; }
}

void* allocate_zeros(void* context, std::size_t count, std::size_t item_size) noexcept {
    if (item_size > 0 && count > std::numeric_limits<std::size_t>::max() / item_size) return nullptr;
    void* const data = allocate_block(context, count * item_size);
    if (data != nullptr) std::memset(data, 0, count * item_size);
    return data;
}

void free_block(void*, void* data, std::size_t) noexcept {
    if (data != nullptr) return_memory(data);
}

void* reallocate_block(void* context, void* data, std::size_t bytes) noexcept {
    void* const moved = allocate_block(context, bytes);
    if (data == nullptr || moved == nullptr) return moved;
    std::memcpy(moved, data, std::min(bytes, memory_capacity(data)));
    return_memory(data);
    return moved;
}

// PyDataMem_Handler, as numpy/ndarraytypes.h defines it; version 1 is the only one.
struct MemoryHandler {
    char name[127];
    std::uint8_t version;
    struct {
        void* context;
        void* (*malloc)(void*, std::size_t);
        void* (*calloc)(void*, std::size_t, std::size_t);
        void* (*realloc)(void*, void*, std::size_t);
        void (*free)(void*, void*, std::size_t);
    } allocator;
};
MemoryHandler handler = {"triconv", 1, {nullptr, allocate_block, allocate_zeros, reallocate_block, free_block}};

// ---- NumPy's C API ---------------------------------------------------------------------------------------------------

// PyDataMem_SetHandler: makes a handler that of the calling context, returns the one before.
using SetHandler = PyObject* (*)(PyObject*);

SetHandler find_set_handler() {
    constexpr std::size_t index = 304;  // in numpy/__multiarray_api.h
    const py::object capsule = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
    void** const api = static_cast<void**>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
    if (api == nullptr) throw py::error_already_set();
    return reinterpret_cast<SetHandler>(api[index]);
}

struct Protocol {
    SetHandler set_handler;
    py::object capsule;
};

const Protocol& protocol() {
    static py::gil_safe_call_once_and_store<Protocol> storage;
    return storage
        .call_once_and_store_result([] { return Protocol{find_set_handler(), py::capsule(&handler, "mem_handler")}; })
        .get_stored();
}

// While it lives, arrays that the calling thread makes have their memory from the pool.
class PooledAllocation {
public:
    PooledAllocation() : set_handler_(protocol().set_handler), before_(set_handler_(protocol().capsule.ptr())) {
        if (before_ == nullptr) throw py::error_already_set();
    }
    ~PooledAllocation() {
        const py::error_scope kept;  // an error of the allocation stays the one reported
        Py_XDECREF(set_handler_(before_));
        Py_DECREF(before_);
    }
    PooledAllocation(const PooledAllocation&) = delete;
    PooledAllocation& operator=(const PooledAllocation&) = delete;

private:
    SetHandler set_handler_;
    PyObject* before_;
};

}  // namespace

py::array new_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape,
                    const std::vector<py::ssize_t>& strides, std::int64_t bytes) {
    if (bytes < pooled_bytes || max_idle_bytes() == 0) return py::array(dtype, shape, strides);
    const PooledAllocation pooled;
    return py::array(dtype, shape, strides);
}

py::array empty_array(const std::vector<py::ssize_t>& shape, const py::dtype& dtype) {
    std::int64_t bytes = dtype.itemsize();
    for (const py::ssize_t extent : shape)
        if (__builtin_mul_overflow(bytes, extent, &bytes)) break;  // NumPy's error
    return new_array(dtype, shape, {}, bytes);
}

}  // namespace triconv::python
