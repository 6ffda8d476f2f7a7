// The classes Plan, Step and PreparedWeights as Python sees them.
#pragma once

#include <pybind11/pybind11.h>

namespace triconv::python {

void register_plan(pybind11::module_& module);

}  // namespace triconv::python
