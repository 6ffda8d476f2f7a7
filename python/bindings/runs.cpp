#include "runs.h"

#include <utility>

#include "released_gil.h"

namespace triconv::python {

namespace {

thread_local std::optional<LastRun> last_run_;

}  // namespace

const std::optional<LastRun>& last_run() {
    return last_run_;
}

void record_run(const Problem& problem, std::optional<Pass> pass, RunInfo info) {
    last_run_ = LastRun{problem, pass, std::move(info)};
}

namespace {

// run(x, bias, bias_stride, y) with the GIL released. `weight` is null if it was prepared before.
template <class Run>
py::array forward_by(Run run, const Problem& problem, bool batched, const Argument& input, const Argument* weight,
                     const std::optional<Argument>& bias, const py::object& out, const Shape& shape) {
    const bool channels_last = is_channels_last(input.array, batched);
    py::array result =
        output_array(out, shape, problem.dtype, channels_last, batched, {&input, weight, bias ? &*bias : nullptr});
    const py::array x = readable(input, problem.dtype);
    const py::array b = bias ? readable(*bias, problem.dtype) : py::array();
    const ConstView x_view = const_view(x, batched);
    const View y_view = mutable_view(result, batched);
    const void* bias_data = bias ? b.data() : nullptr;
    const std::ptrdiff_t bias_stride = bias ? b.strides(0) / b.itemsize() : 0;
    RunInfo info;
    {
        const ReleasedGil released;
        info = run(x_view, bias_data, bias_stride, y_view);
    }
    record_run(problem, Pass::forward, std::move(info));
    return result;
}

// run(dy, dx), likewise.
template <class Run>
py::array input_grad_by(Run run, const Problem& problem, bool batched, const Argument* weight,
                        const Argument& grad_output, const py::object& out, const Shape& shape) {
    const bool channels_last = is_channels_last(grad_output.array, batched);
    py::array result = output_array(out, shape, problem.dtype, channels_last, batched, {weight, &grad_output});
    const py::array dy = readable(grad_output, problem.dtype);
    const ConstView dy_view = const_view(dy, batched);
    const View dx_view = mutable_view(result, batched);
    RunInfo info;
    {
        const ReleasedGil released;
        info = run(dy_view, dx_view);
    }
    record_run(problem, Pass::input_grad, std::move(info));
    return result;
}

}  // namespace

py::array run_forward(const Plan& plan, bool batched, const Argument& input, const Argument& weight,
                      const std::optional<Argument>& bias, const py::object& out, const Shape& shape) {
    const py::array w = readable(weight, plan.problem().dtype);
    const ConstView w_view = const_view(w, true);
    return forward_by([&](const ConstView& x, const void* b, std::ptrdiff_t stride,
                          const View& y) { return plan.forward(x, w_view, b, stride, y); },
                      plan.problem(), batched, input, &weight, bias, out, shape);
}

py::array run_forward(const PreparedWeights& weights, const Problem& problem, bool batched, const Argument& input,
                      const std::optional<Argument>& bias, const py::object& out, const Shape& shape) {
    return forward_by([&](const ConstView& x, const void* b, std::ptrdiff_t stride,
                          const View& y) { return weights.forward(x, b, stride, y); },
                      problem, batched, input, nullptr, bias, out, shape);
}

py::array run_input_grad(const Plan& plan, bool batched, const Argument& weight, const Argument& grad_output,
                         const py::object& out, const Shape& shape) {
    const py::array w = readable(weight, plan.problem().dtype);
    const ConstView w_view = const_view(w, true);
    return input_grad_by([&](const ConstView& dy, const View& dx) { return plan.input_grad(w_view, dy, dx); },
                         plan.problem(), batched, &weight, grad_output, out, shape);
}

py::array run_input_grad(const PreparedWeights& weights, const Problem& problem, bool batched,
                         const Argument& grad_output, const py::object& out, const Shape& shape) {
    return input_grad_by([&](const ConstView& dy, const View& dx) { return weights.input_grad(dy, dx); }, problem,
                         batched, nullptr, grad_output, out, shape);
}

py::array run_weight_grad(const Plan& plan, bool batched, const Argument& input, const Argument& grad_output,
                          const py::object& out, const Shape& shape) {
    const Problem& problem = plan.problem();
    py::array result = output_array(out, shape, problem.dtype, false, true, {&input, &grad_output});
    const py::array x = readable(input, problem.dtype);
    const py::array dy = readable(grad_output, problem.dtype);
    const ConstView x_view = const_view(x, batched);
    const ConstView dy_view = const_view(dy, batched);
    const View dw_view = mutable_view(result, true);
    RunInfo info;
    {
        const ReleasedGil released;
        info = plan.weight_grad(x_view, dy_view, dw_view);
    }
    record_run(problem, Pass::weight_grad, std::move(info));
    return result;
}

std::optional<Argument> read_bias(const py::object& bias, std::int64_t channels) {
    if (bias.is_none()) return std::nullopt;
    Argument argument = read_argument("bias", bias);
    require_shape(argument, {channels}, "one number per output channel");
    return argument;
}

}  // namespace triconv::python
