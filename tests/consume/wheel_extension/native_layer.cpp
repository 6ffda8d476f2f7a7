// An extension module of another package: runs the library of the triconv wheel on NumPy arrays.
#include <pybind11/numpy.h>

#include <stdexcept>

#include "triconv/triconv.hpp"

namespace py = pybind11;

namespace {

using Image = py::array_t<float, py::array::c_style | py::array::forcecast>;

// The valid correlation of one image with one kernel.
Image correlate(const Image& image, const Image& kernel) {
    if (image.ndim() != 2 || kernel.ndim() != 2) throw std::invalid_argument("expected two matrices");
    triconv::Problem problem;
    for (int axis = 0; axis < 2; ++axis) {
        problem.input[axis] = image.shape(axis);
        problem.kernel[axis] = kernel.shape(axis);
    }
    const triconv::Plan plan(problem);
    Image result({problem.output(0), problem.output(1)});
    const triconv::ConstView x{image.data(), {0, 0, image.shape(1), 1}};
    const triconv::ConstView w{kernel.data(), {0, 0, kernel.shape(1), 1}};
    const triconv::View y{result.mutable_data(), {0, 0, result.shape(1), 1}};
    {
        const py::gil_scoped_release released;
        plan.forward(x, w, nullptr, 0, y);
    }
    return result;
}

}  // namespace

PYBIND11_MODULE(native_layer, module) {
    module.def("correlate", &correlate);
    module.def("num_threads", &triconv::num_threads);
}
