#include "arrays.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>

#include "result_memory.h"

namespace triconv::python {

namespace {

// An argument that exports its memory by DLPack only; NumPy reads every other protocol itself.
bool is_dlpack_only(const py::object& value) {
    return py::hasattr(value, "__dlpack__") && !py::hasattr(value, "__array__") &&
           !py::hasattr(value, "__array_interface__") && PyObject_CheckBuffer(value.ptr()) == 0;
}

py::array to_array(const char* name, const py::object& value) {
    if (py::isinstance<py::array>(value)) return py::reinterpret_borrow<py::array>(value);
    if (value.is_none()) throw py::type_error(std::string(name) + " is None, expected an array");
    try {
        const py::module_ numpy = py::module_::import("numpy");
        return numpy.attr(is_dlpack_only(value) ? "from_dlpack" : "asarray")(value).cast<py::array>();
    } catch (py::error_already_set& error) {
        const bool is_value_error = error.matches(PyExc_ValueError);
        const std::string message = std::string(name) + " cannot be read as an array";
        py::raise_from(error, is_value_error ? PyExc_ValueError : PyExc_TypeError,
                       (message + ": " + py::str(error.value()).cast<std::string>()).c_str());
        throw py::error_already_set();
    }
}

DType promoted_dtype(const char* name, const py::dtype& dtype) {
    const char kind = dtype.kind();
    const auto size = dtype.itemsize();
    if (kind == 'f' && size <= 4) return DType::f32;
    if (kind == 'i' || kind == 'u' || kind == 'b' || (kind == 'f' && size == 8)) return DType::f64;
    throw py::type_error(std::string(name) + " has dtype " + format_dtype(dtype) +
                         ", expected real numbers: float32, float64, float16, integers or booleans");
}

std::int64_t item_size(DType dtype) {
    return dtype == DType::f32 ? 4 : 8;
}

bool is_native(const py::array& array, DType dtype) {
    const py::dtype present = array.dtype();
    return present.kind() == 'f' && present.itemsize() == item_size(dtype) && present.byteorder() == '=';
}

bool is_aligned(const py::array& array, std::int64_t size) {
    if (array.size() == 0) return true;
    if (reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(size) != 0) return false;
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
        if (array.shape(axis) > 1 && array.strides(axis) % size != 0) return false;
    return true;
}

void fill_strides(const py::array& array, bool batched, std::ptrdiff_t* strides) {
    const auto size = static_cast<py::ssize_t>(array.itemsize());
    const py::ssize_t first = batched ? 0 : 1;
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
        strides[first + axis] = array.strides(axis) / size;
}

// First byte and one past the last byte of an array's elements.
std::pair<std::uintptr_t, std::uintptr_t> byte_range(const py::array& array) {
    auto low = reinterpret_cast<std::uintptr_t>(array.data());
    auto high = low + static_cast<std::uintptr_t>(array.itemsize());
    if (array.size() == 0) return {low, low};
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
        const py::ssize_t span = (array.shape(axis) - 1) * array.strides(axis);
        (span < 0 ? low : high) += static_cast<std::uintptr_t>(span);
    }
    return {low, high};
}

bool shares_memory(const py::array& a, const py::array& b) {
    const auto [a_low, a_high] = byte_range(a);
    const auto [b_low, b_high] = byte_range(b);
    if (a_high <= b_low || b_high <= a_low) return false;
    constexpr int max_work = 10000;  // candidate solutions NumPy may try before it gives up
    try {
        return py::module_::import("numpy").attr("shares_memory")(a, b, max_work).cast<bool>();
    } catch (const py::error_already_set&) {
        return true;  // too hard to tell
    }
}

// Sufficient: in order of stride, each axis steps over everything the smaller ones reach.
bool has_distinct_elements(const py::array& array) {
    if (array.size() == 0) return true;
    std::vector<std::pair<py::ssize_t, py::ssize_t>> axes;  // |stride|, extent
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
        if (array.shape(axis) > 1) axes.emplace_back(std::abs(array.strides(axis)), array.shape(axis));
    std::sort(axes.begin(), axes.end());
    py::ssize_t reach = array.itemsize();
    for (const auto& [stride, extent] : axes) {
        if (stride < reach) return false;
        reach = stride * (extent - 1) + reach;
    }
    return true;
}

void check_out(const py::object& out, const Shape& shape, DType dtype, std::initializer_list<const Argument*> inputs) {
    if (!py::isinstance<py::array>(out))
        throw py::type_error(std::string("out is a ") + Py_TYPE(out.ptr())->tp_name + ", expected a numpy.ndarray");
    const Argument argument{"out", py::reinterpret_borrow<py::array>(out), dtype};
    const py::array& array = argument.array;
    require_shape(argument, shape, "the shape of the result");
    if (array.dtype().kind() != 'f' || array.itemsize() != item_size(dtype))
        throw py::type_error("out has dtype " + format_dtype(array.dtype()) + ", expected " +
                             format_dtype(numpy_dtype(dtype)) + ", the dtype of the result");
    if (!array.writeable()) throw py::value_error("out is read-only, expected a writeable array");
    if (!is_native(array, dtype))
        throw py::value_error("out has dtype " + format_dtype(array.dtype()) + ", expected native byte order");
    if (!is_aligned(array, item_size(dtype)))
        throw py::value_error("out is not aligned to its elements of " + std::to_string(item_size(dtype)) + " bytes");
    if (!has_distinct_elements(array)) throw py::value_error("out has elements that overlap one another");
    for (const Argument* input : inputs)
        if (input != nullptr && shares_memory(array, input->array))
            throw py::value_error(std::string("out overlaps ") + input->name + " in memory, expected separate arrays");
}

}  // namespace

std::string format_shape(const Shape& shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i)
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

std::string format_dtype(const py::dtype& dtype) {
    return py::str(dtype).cast<std::string>();
}

py::dtype numpy_dtype(DType dtype) {
    return dtype == DType::f32 ? py::dtype::of<float>() : py::dtype::of<double>();
}

Shape Argument::shape() const {
    return Shape(array.shape(), array.shape() + array.ndim());
}

Argument read_argument(const char* name, const py::object& value) {
    py::array array = to_array(name, value);
    const DType dtype = promoted_dtype(name, array.dtype());
    return {name, std::move(array), dtype};
}

DType promote(std::initializer_list<DType> dtypes) {
    return std::find(dtypes.begin(), dtypes.end(), DType::f64) != dtypes.end() ? DType::f64 : DType::f32;
}

void require_shape(const Argument& argument, const Shape& expected, const std::string& meaning) {
    const py::array& array = argument.array;
    const bool equal = static_cast<std::size_t>(array.ndim()) == expected.size() &&
                       std::equal(expected.begin(), expected.end(), array.shape());
    if (!equal)
        throw py::value_error(std::string(argument.name) + " has shape " + format_shape(argument.shape()) +
                              ", expected " + format_shape(expected) + ", " + meaning);
}

py::array readable(const Argument& argument, DType dtype) {
    if (is_native(argument.array, dtype) && is_aligned(argument.array, item_size(dtype))) return argument.array;
    return argument.array.attr("astype")(numpy_dtype(dtype), py::arg("order") = "K", py::arg("copy") = true)
        .cast<py::array>();
}

ConstView const_view(const py::array& array, bool batched) {
    ConstView view;
    view.data = array.data();
    fill_strides(array, batched, view.strides);
    return view;
}

View mutable_view(py::array& array, bool batched) {
    View view;
    view.data = array.mutable_data();
    fill_strides(array, batched, view.strides);
    return view;
}

bool is_channels_last(const py::array& array, bool batched) {
    const py::ssize_t channel = batched ? 1 : 0;
    if (array.strides(channel) == 0) return false;
    py::ssize_t least = 0;
    const auto fits = [&](py::ssize_t axis) {
        if (array.shape(axis) == 0 || array.strides(axis) < least) return false;
        least = array.strides(axis) * std::max<py::ssize_t>(array.shape(axis), 1);
        return true;
    };
    if (!fits(channel)) return false;
    for (py::ssize_t axis = array.ndim() - 1; axis > channel; --axis)
        if (!fits(axis)) return false;
    // Every axis inside the batch has extent 1: nothing tells the layouts apart.
    if (least == array.strides(channel)) return false;
    return !batched || fits(0);
}

py::array allocate(const Shape& shape, DType dtype, bool channels_last, bool batched) {
    const auto rank = static_cast<py::ssize_t>(shape.size());
    std::vector<py::ssize_t> order;  // innermost axis first
    const py::ssize_t channel = batched ? 1 : 0;
    if (channels_last) order.push_back(channel);
    for (py::ssize_t axis = rank - 1; axis >= 0; --axis)
        if (!channels_last || axis != channel) order.push_back(axis);

    std::vector<py::ssize_t> strides(shape.size());
    std::int64_t bytes = item_size(dtype);
    for (const py::ssize_t axis : order) {
        const auto i = static_cast<std::size_t>(axis);
        strides[i] = static_cast<py::ssize_t>(bytes);
        if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(shape[i], 1), &bytes))
            throw py::value_error("the result has shape " + format_shape(shape) + " of " +
                                  format_dtype(numpy_dtype(dtype)) + ": its size in bytes overflows 64 bits");
    }
    return new_array(numpy_dtype(dtype), std::vector<py::ssize_t>(shape.begin(), shape.end()), strides, bytes);
}

py::array output_array(const py::object& out, const Shape& shape, DType dtype, bool channels_last, bool batched,
                       std::initializer_list<const Argument*> inputs) {
    if (out.is_none()) return allocate(shape, dtype, channels_last, batched);
    check_out(out, shape, dtype, inputs);
    return py::reinterpret_borrow<py::array>(out);
}

}  // namespace triconv::python
