// Running a plan on arrays: shape checks done, the GIL released, and a record of what ran kept per thread.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "arrays.h"
#include "geometry.h"
#include "triconv/triconv.hpp"

namespace triconv::python {

// What the calling thread's last run did. A step's backward has no single pass.
struct LastRun {
    Problem problem;
    std::optional<Pass> pass;
    RunInfo info;
};
const std::optional<LastRun>& last_run();
void record_run(const Problem& problem, std::optional<Pass> pass, RunInfo info);

// Arguments of one pass, their shapes already checked against the geometry. They return the result: `out` if it is not
// None. Element types must promote to the problem's.
py::array run_forward(const Plan& plan, bool batched, const Argument& input, const Argument& weight,
                      const std::optional<Argument>& bias, const py::object& out, const Shape& shape);
py::array run_input_grad(const Plan& plan, bool batched, const Argument& weight, const Argument& grad_output,
                         const py::object& out, const Shape& shape);
py::array run_weight_grad(const Plan& plan, bool batched, const Argument& input, const Argument& grad_output,
                          const py::object& out, const Shape& shape);

// The same with the weight prepared before.
py::array run_forward(const PreparedWeights& weights, const Problem& problem, bool batched, const Argument& input,
                      const std::optional<Argument>& bias, const py::object& out, const Shape& shape);
py::array run_input_grad(const PreparedWeights& weights, const Problem& problem, bool batched,
                         const Argument& grad_output, const py::object& out, const Shape& shape);

// The argument if it is not None; its shape must be (channels,).
std::optional<Argument> read_bias(const py::object& bias, std::int64_t channels);

}  // namespace triconv::python
