#include "plan.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "geometry.h"
#include "plan_cache.h"
#include "released_gil.h"
#include "runs.h"

namespace triconv::python {

namespace {

// Whether float32 holds every value of the type, so that a float32 plan does not round its arguments.
bool converts_to_f32(const py::dtype& dtype) {
    const auto size = dtype.itemsize();
    return dtype.kind() == 'b' || size <= (dtype.kind() == 'f' ? 4 : 2);
}

// The plan's dtype is fixed: values that need float64 are refused by a float32 plan rather than rounded.
Argument read_planned(const char* name, const py::object& value, const Problem& problem) {
    Argument argument = read_argument(name, value);
    if (problem.dtype == DType::f32 && !converts_to_f32(argument.array.dtype()))
        throw py::type_error(std::string(name) + " has dtype " + format_dtype(argument.array.dtype()) +
                             ", expected float32, the dtype of the plan");
    return argument;
}

DType read_dtype(const py::object& value) {
    if (value.is_none()) return DType::f32;
    const py::dtype dtype = py::dtype::from_args(value);
    if (dtype.kind() == 'f' && dtype.itemsize() == 4) return DType::f32;
    if (dtype.kind() == 'f' && dtype.itemsize() == 8) return DType::f64;
    throw py::type_error("dtype is " + format_dtype(dtype) + ", expected float32 or float64");
}

double read_tolerance(const py::object& value) {
    if (value.is_none()) return 0;
    const double tolerance = PyFloat_AsDouble(value.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        throw py::type_error("tolerance is " + py::repr(value).cast<std::string>() + ", expected a float or None");
    }
    if (!(tolerance > 0))
        throw py::value_error("tolerance is " + py::repr(value).cast<std::string>() +
                              ", expected more than 0, or None");
    return tolerance;
}

// pass_algorithms: a tuple of three names, or None.
Options read_options(const py::object& algorithm, const py::object& tolerance, const py::object& max_workspace,
                     const py::object& pass_algorithms) {
    if (!py::isinstance<py::str>(algorithm))
        throw py::type_error("algorithm is " + py::repr(algorithm).cast<std::string>() + ", expected a str");
    Options options;
    options.algorithm = algorithm.cast<std::string>();
    options.tolerance = read_tolerance(tolerance);
    options.max_workspace = max_workspace.is_none() ? -1 : read_int("max_workspace", max_workspace, 0);
    if (!pass_algorithms.is_none()) options.pass_algorithm = pass_algorithms.cast<decltype(options.pass_algorithm)>();
    return options;
}

Argument read_planned_input(const py::object& value, const Geometry& geometry) {
    Argument x = read_planned("x", value, geometry.problem);
    require_shape(x, geometry.input_shape(), "the input_size of the plan");
    return x;
}

Argument read_planned_weight(const py::object& value, const Geometry& geometry) {
    Argument w = read_planned("w", value, geometry.problem);
    require_shape(w, geometry.weight_shape(), "the weight_size of the plan");
    return w;
}

Argument read_planned_grad_output(const py::object& value, const Geometry& geometry) {
    Argument dy = read_planned("dy", value, geometry.problem);
    require_shape(dy, geometry.output_shape(), "the output shape of the plan");
    return dy;
}

std::optional<Argument> read_planned_bias(const py::object& value, const Problem& problem) {
    if (value.is_none()) return std::nullopt;
    Argument bias = read_planned("bias", value, problem);
    require_shape(bias, {problem.out_channels}, "one number per output channel");
    return bias;
}

template <class F>
auto without_gil(F f) {
    const ReleasedGil released;
    return f();
}

// One forward pass and its gradients. Holds the arrays that the core reads again in backward.
class PyStep {
public:
    PyStep(const Plan& plan, const Geometry& geometry, const Argument& x, const Argument& w)
        : geometry_(geometry),
          x_(readable(x, geometry.problem.dtype)),
          w_(readable(w, geometry.problem.dtype)),
          step_(make_step(plan)) {}

    py::array forward(const std::optional<Argument>& bias) {
        const Problem& problem = geometry_.problem;
        py::array y = allocate(geometry_.output_shape(), problem.dtype, is_channels_last(x_, geometry_.batched),
                               geometry_.batched);
        const py::array b = bias ? readable(*bias, problem.dtype) : py::array();
        const void* bias_data = bias ? b.data() : nullptr;
        const std::ptrdiff_t bias_stride = bias ? b.strides(0) / b.itemsize() : 0;
        const View y_view = mutable_view(y, geometry_.batched);
        RunInfo info;
        {
            const ReleasedGil released;
            const std::lock_guard lock(mutex_);
            info = step_->forward(bias_data, bias_stride, y_view);
        }
        record_run(problem, Pass::forward, std::move(info));
        return y;
    }

    py::tuple backward(const py::object& grad_output, bool needs_dx, bool needs_dw) {
        const Problem& problem = geometry_.problem;
        const Argument argument = read_planned("dy", grad_output, problem);
        require_shape(argument, geometry_.output_shape(), "that of the output");
        const py::array dy = readable(argument, problem.dtype);
        const ConstView dy_view = const_view(dy, geometry_.batched);
        py::object dx = py::none();
        py::object dw = py::none();
        View dx_view;
        View dw_view;
        if (needs_dx) {
            py::array array = allocate(geometry_.input_shape(), problem.dtype,
                                       is_channels_last(argument.array, geometry_.batched), geometry_.batched);
            dx_view = mutable_view(array, geometry_.batched);
            dx = std::move(array);
        }
        if (needs_dw) {
            py::array array = allocate(geometry_.weight_shape(), problem.dtype, false, true);
            dw_view = mutable_view(array, true);
            dw = std::move(array);
        }
        if (needs_dx || needs_dw) {
            RunInfo info;
            {
                const ReleasedGil released;
                const std::lock_guard lock(mutex_);
                info = step_->backward(dy_view, dx_view, dw_view);
            }
            record_run(problem, std::nullopt, std::move(info));
        }
        return py::make_tuple(dx, dw);
    }

    bool reuses_transforms() const { return step_->reuses_transforms(); }

private:
    std::unique_ptr<Step> make_step(const Plan& plan) const {
        const ConstView x = const_view(x_, geometry_.batched);
        const ConstView w = const_view(w_, true);
        return without_gil([&] { return std::make_unique<Step>(plan, x, w); });
    }

    Geometry geometry_;
    py::array x_;
    py::array w_;
    std::mutex mutex_;  // a Step of the core belongs to one thread at a time
    std::unique_ptr<Step> step_;
};

Pass read_prepared_pass(const py::object& value) {
    const std::string name = py::isinstance<py::str>(value) ? value.cast<std::string>() : "";
    if (name == "forward") return Pass::forward;
    if (name == "input_grad") return Pass::input_grad;
    throw py::value_error("which is " + py::repr(value).cast<std::string>() + ", expected 'forward' or 'input_grad'");
}

// Prepared weights of the core with the shapes their arrays must have.
class PyPreparedWeights {
public:
    PyPreparedWeights(const Plan& plan, const Geometry& geometry, const Argument& w, Pass pass)
        : geometry_(geometry), weights_(prepare(plan, w, pass)) {}

    py::array forward(const py::object& input, const py::object& bias, const py::object& out) const {
        require_pass(Pass::forward);
        const Problem& problem = geometry_.problem;
        return run_forward(weights_, problem, geometry_.batched, read_planned_input(input, geometry_),
                           read_planned_bias(bias, problem), out, geometry_.output_shape());
    }

    py::array input_grad(const py::object& grad_output, const py::object& out) const {
        require_pass(Pass::input_grad);
        return run_input_grad(weights_, geometry_.problem, geometry_.batched,
                              read_planned_grad_output(grad_output, geometry_), out, geometry_.input_shape());
    }

    const Geometry& geometry() const { return geometry_; }
    const PreparedWeights& weights() const { return weights_; }

private:
    static PreparedWeights prepare(const Plan& plan, const Argument& weight, Pass pass) {
        const py::array w = readable(weight, plan.problem().dtype);
        const ConstView w_view = const_view(w, true);
        return without_gil([&] { return plan.prepare(w_view, pass); });
    }
    // Said before the arguments are looked at, whose shapes may be those of the other pass.
    void require_pass(Pass pass) const {
        if (weights_.pass() != pass)
            throw py::value_error(std::string("these weights are prepared for ") + pass_name(weights_.pass()) +
                                  ", expected " + pass_name(pass) + ": prepare(w, which='" + pass_name(pass) + "')");
    }
    static const char* pass_name(Pass pass) { return pass == Pass::forward ? "forward" : "input_grad"; }

    Geometry geometry_;
    PreparedWeights weights_;
};

// A plan of the core with the shapes its arrays must have.
class PyPlan {
public:
    PyPlan(const Geometry& geometry, const Options& options)
        : geometry_(geometry), options_(options), plan_(cached_plan(geometry.problem, options)) {}

    py::array forward(const py::object& input, const py::object& weight, const py::object& bias,
                      const py::object& out) const {
        const Argument x = read_planned_input(input, geometry_);
        const Argument w = read_planned_weight(weight, geometry_);
        return run_forward(plan_, geometry_.batched, x, w, read_planned_bias(bias, geometry_.problem), out,
                           geometry_.output_shape());
    }

    py::array input_grad(const py::object& weight, const py::object& grad_output, const py::object& out) const {
        const Argument w = read_planned_weight(weight, geometry_);
        const Argument dy = read_planned_grad_output(grad_output, geometry_);
        return run_input_grad(plan_, geometry_.batched, w, dy, out, geometry_.input_shape());
    }

    py::array weight_grad(const py::object& input, const py::object& grad_output, const py::object& out) const {
        const Argument x = read_planned_input(input, geometry_);
        const Argument dy = read_planned_grad_output(grad_output, geometry_);
        return run_weight_grad(plan_, geometry_.batched, x, dy, out, geometry_.weight_shape());
    }

    py::tuple step(const py::object& input, const py::object& weight, const py::object& bias) const {
        const Argument x = read_planned_input(input, geometry_);
        const Argument w = read_planned_weight(weight, geometry_);
        const std::optional<Argument> b = read_planned_bias(bias, geometry_.problem);
        auto step = std::make_unique<PyStep>(plan_, geometry_, x, w);
        py::array y = step->forward(b);
        return py::make_tuple(std::move(y), std::move(step));
    }

    std::unique_ptr<PyPreparedWeights> prepare(const py::object& weight, const py::object& which) const {
        const Pass pass = read_prepared_pass(which);
        return std::make_unique<PyPreparedWeights>(plan_, geometry_, read_planned_weight(weight, geometry_), pass);
    }

    // f(plan, pass) for the three passes, in the order forward, input_grad, weight_grad. It may have to plan the pass.
    template <class F>
    auto per_pass(F f) const {
        return without_gil([&] {
            return std::array{f(plan_, Pass::forward), f(plan_, Pass::input_grad), f(plan_, Pass::weight_grad)};
        });
    }

    py::tuple tune() const {
        const auto names = without_gil([&] { return triconv::tune(geometry_.problem, options_); });
        return py::make_tuple(names[0], names[1], names[2]);
    }

    py::tuple candidates() const {
        py::tuple passes(3);
        std::size_t index = 0;
        for (const auto& candidates : per_pass([](const Plan& plan, Pass pass) { return plan.candidates(pass); })) {
            py::list rows;
            for (const Candidate& row : candidates)
                rows.append(py::make_tuple(row.algorithm, row.possible, row.chosen, row.reason, row.multiplications,
                                           row.transform_flops, row.bytes, row.predicted_seconds, row.error_bound,
                                           row.workspace_bytes));
            passes[index++] = py::tuple(rows);
        }
        return passes;
    }

    // The algorithm of the forward pass and the seconds predicted for it: the other passes need not be planned for this.
    py::tuple forward_choice() const {
        const auto candidates = without_gil([&] { return plan_.candidates(Pass::forward); });
        const auto chosen =
            std::find_if(candidates.begin(), candidates.end(), [](const Candidate& c) { return c.chosen; });
        return py::make_tuple(plan_.algorithm(Pass::forward),
                              chosen == candidates.end() ? 0.0 : chosen->predicted_seconds);
    }

    const Geometry& geometry() const { return geometry_; }
    const Plan& plan() const { return plan_; }

private:
    Geometry geometry_;
    Options options_;
    Plan plan_;
};

std::unique_ptr<PyPlan> make_plan(int rank, const py::object& input_size, const py::object& weight_size,
                                  const py::object& stride, const py::object& padding, const py::object& dilation,
                                  const py::object& groups, const py::object& padding_mode, const py::object& dtype,
                                  const py::object& algorithm, const py::object& tolerance,
                                  const py::object& max_workspace, const py::object& pass_algorithms) {
    const NamedShape input = {"input_size", read_size("input_size", input_size)};
    const NamedShape weight = {"weight_size", read_size("weight_size", weight_size)};
    const Geometry geometry =
        convolution_geometry(rank, input, weight, {stride, padding, dilation, groups, padding_mode}, read_dtype(dtype));
    return std::make_unique<PyPlan>(geometry, read_options(algorithm, tolerance, max_workspace, pass_algorithms));
}

// Throws what a plan for the layer would throw whatever its input. Returns the shape of the weight.
py::tuple check_layer(int rank, const py::object& in_channels, const py::object& out_channels,
                      const py::object& kernel_size, const py::object& stride, const py::object& padding,
                      const py::object& dilation, const py::object& groups, const py::object& padding_mode,
                      const py::object& dtype, const py::object& algorithm) {
    const Geometry geometry = layer_geometry(rank, in_channels, out_channels, kernel_size,
                                             {stride, padding, dilation, groups, padding_mode}, read_dtype(dtype));
    cached_plan(geometry.problem, read_options(algorithm, py::none(), py::none(), py::none()));
    return py::tuple(py::cast(geometry.weight_shape()));
}

}  // namespace

void register_plan(py::module_& module) {
    py::class_<PyStep>(module, "Step")
        .def("backward", &PyStep::backward)
        .def_property_readonly("reuses_transforms", &PyStep::reuses_transforms);

    py::class_<PyPreparedWeights>(module, "PreparedWeights")
        .def("forward", &PyPreparedWeights::forward)
        .def("input_grad", &PyPreparedWeights::input_grad)
        .def_property_readonly(
            "problem",
            [](const PyPreparedWeights& self) { return to_string(self.geometry().problem, self.weights().pass()); })
        .def_property_readonly("nbytes", [](const PyPreparedWeights& self) { return self.weights().bytes(); });

    const auto shape_tuple = [](const Shape& shape) { return py::tuple(py::cast(shape)); };
    const auto three = [](const auto& values) { return py::make_tuple(values[0], values[1], values[2]); };
    py::class_<PyPlan>(module, "Plan")
        .def(py::init(&make_plan))
        .def("forward", &PyPlan::forward)
        .def("input_grad", &PyPlan::input_grad)
        .def("weight_grad", &PyPlan::weight_grad)
        .def("step", &PyPlan::step)
        .def("prepare", &PyPlan::prepare)
        .def("tune", &PyPlan::tune)
        .def_property_readonly("problem", [](const PyPlan& self) { return to_string(self.plan().problem()); })
        .def_property_readonly("dtype", [](const PyPlan& self) { return numpy_dtype(self.geometry().problem.dtype); })
        .def_property_readonly("input_shape",
                               [=](const PyPlan& self) { return shape_tuple(self.geometry().input_shape()); })
        .def_property_readonly("weight_shape",
                               [=](const PyPlan& self) { return shape_tuple(self.geometry().weight_shape()); })
        .def_property_readonly("output_shape",
                               [=](const PyPlan& self) { return shape_tuple(self.geometry().output_shape()); })
        .def_property_readonly(
            "algorithm",
            [=](const PyPlan& self) {
                return three(self.per_pass([](const Plan& plan, Pass pass) { return plan.algorithm(pass); }));
            })
        .def_property_readonly(
            "workspace_bytes",
            [=](const PyPlan& self) {
                return three(self.per_pass([](const Plan& plan, Pass pass) { return plan.workspace_bytes(pass); }));
            })
        .def_property_readonly(
            "flops",
            [=](const PyPlan& self) {
                return three(self.per_pass([](const Plan& plan, Pass pass) { return plan.flops(pass); }));
            })
        .def_property_readonly("forward_choice", &PyPlan::forward_choice)
        .def_property_readonly("candidates", &PyPlan::candidates);
    module.def("check_layer", &check_layer);
}

}  // namespace triconv::python
