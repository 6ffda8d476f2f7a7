// The functions of the Python package that plan and run in one call.
#pragma once

#include <pybind11/pybind11.h>

namespace triconv::python {

void register_functions(pybind11::module_& module);

}  // namespace triconv::python
