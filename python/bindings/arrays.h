// Arrays in and out: from what a caller may pass to the strided views of the core, and back.
//
// Anything NumPy can read is accepted (ndarrays, the buffer protocol, DLPack producers, nested sequences), with any
// strides, byte order and alignment. The core reads it in place unless its element type, byte order or alignment is
// foreign; then it is copied once.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "triconv/triconv.hpp"

namespace triconv::python {

namespace py = pybind11;

using Shape = std::vector<std::int64_t>;

// "(2, 3, 8, 8)", and "(4,)" for one entry, as Python prints tuples.
std::string format_shape(const Shape& shape);

// "float32".
std::string format_dtype(const py::dtype& dtype);
py::dtype numpy_dtype(DType dtype);

// An array argument, named for messages. `dtype` is the element type its values are promoted to: float32 for float32
// and float16, float64 for float64, integers and booleans.
struct Argument {
    const char* name;
    py::array array;
    DType dtype;

    Shape shape() const;
};

// Throws TypeError if `value` cannot be read as an array of real numbers, ValueError if its shape is ragged.
Argument read_argument(const char* name, const py::object& value);

// float64 if any of the arguments is.
DType promote(std::initializer_list<DType> dtypes);

// Throws ValueError, "<name> has shape ..., expected ... (<meaning>)", unless the shapes are equal.
void require_shape(const Argument& argument, const Shape& expected, const std::string& meaning);

// The argument as native, aligned elements of `dtype`: its own array if it already is, else a copy in the same layout.
py::array readable(const Argument& argument, DType dtype);

// Views of a native, aligned array. With `batched` false the array has no batch axis and the view gets one of extent 1.
ConstView const_view(const py::array& array, bool batched);
View mutable_view(py::array& array, bool batched);

// Whether the strides order the elements as (batch,) spatial axes, channels, by PyTorch's rule; false if ambiguous.
bool is_channels_last(const py::array& array, bool batched);

// A new array, C-contiguous or channels_last. Throws ValueError if its size in bytes overflows.
py::array allocate(const Shape& shape, DType dtype, bool channels_last, bool batched);

// `out` if the caller gave one (not None), checked to be a writeable, native, aligned ndarray of this shape and dtype
// whose elements overlap neither one another nor any of the inputs (null: not given); else a new array.
py::array output_array(const py::object& out, const Shape& shape, DType dtype, bool channels_last, bool batched,
                       std::initializer_list<const Argument*> inputs);

}  // namespace triconv::python
