// Memory of large result arrays: from the core's pool, by NumPy's allocator protocol (NEP 49). The first touch of fresh
// pages would take a sixth of the time of a layer such as vgg1.2. Arrays own their memory as NumPy's own do (with a
// capsule as their base they could not be resized); it returns to the pool with them.
#pragma once

#include <pybind11/numpy.h>

#include <vector>

namespace triconv::python {

namespace py = pybind11;

// A new array, contents undefined. `bytes` is its size: small arrays come from NumPy's own allocator.
py::array new_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape,
                    const std::vector<py::ssize_t>& strides, std::int64_t bytes);
// The same, in C order, as numpy.empty makes it.
py::array empty_array(const std::vector<py::ssize_t>& shape, const py::dtype& dtype);

}  // namespace triconv::python
