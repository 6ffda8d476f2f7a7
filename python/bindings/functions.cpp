#include "functions.h"

#include <pybind11/stl.h>

#include "geometry.h"
#include "plan_cache.h"
#include "runs.h"

namespace triconv::python {

namespace {

// What every function takes after its arrays.
struct Call {
    int rank;
    Parameters parameters;
    py::object algorithm;
    py::object out;
};

Plan plan_for(const Problem& problem, const Call& call) {
    if (!py::isinstance<py::str>(call.algorithm))
        throw py::type_error("algorithm is " + py::repr(call.algorithm).cast<std::string>() + ", expected a str");
    Options options;
    options.algorithm = call.algorithm.cast<std::string>();
    return cached_plan(problem, options);
}

NamedShape named_shape(const Argument& argument) {
    return {argument.name, argument.shape()};
}

// "the output of input (2, 3, 8, 8) and weight (4, 3, 3, 3)".
std::string output_of(const NamedShape& input, const NamedShape& weight) {
    return std::string("the output of ") + input.name + " " + format_shape(input.shape) + " and " + weight.name + " " +
           format_shape(weight.shape);
}

void fill_zero(py::array& array) {
    array.attr("fill")(0);
}

// Adds bias[k] to channel k.
void add_bias(py::array& array, const Argument& bias, bool batched) {
    Shape broadcast(static_cast<std::size_t>(array.ndim()), 1);
    broadcast[batched ? 1 : 0] = bias.array.shape(0);
    array.attr("__iadd__")(bias.array.attr("reshape")(py::cast(broadcast)));
}

py::array conv(const Call& call, const py::object& input, const py::object& weight, const py::object& bias) {
    const Argument x = read_argument("input", input);
    const Argument w = read_argument("weight", weight);
    const DType dtype = promote({x.dtype, w.dtype});
    Geometry geometry = convolution_geometry(call.rank, named_shape(x), named_shape(w), call.parameters, dtype);
    const std::optional<Argument> b = read_bias(bias, geometry.problem.out_channels);
    if (b) geometry.problem.dtype = promote({dtype, b->dtype});
    const Plan plan = plan_for(geometry.problem, call);
    return run_forward(plan, geometry.batched, x, w, b, call.out, geometry.output_shape());
}

py::array conv_input(const Call& call, const py::object& input_size, const py::object& weight,
                     const py::object& grad_output) {
    const NamedShape input = {"input_size", read_size("input_size", input_size)};
    const Argument w = read_argument("weight", weight);
    const Argument dy = read_argument("grad_output", grad_output);
    const Geometry geometry =
        convolution_geometry(call.rank, input, named_shape(w), call.parameters, promote({w.dtype, dy.dtype}));
    require_shape(dy, geometry.output_shape(), output_of(input, named_shape(w)));
    const Plan plan = plan_for(geometry.problem, call);
    return run_input_grad(plan, geometry.batched, w, dy, call.out, geometry.input_shape());
}

py::array conv_weight(const Call& call, const py::object& input, const py::object& weight_size,
                      const py::object& grad_output) {
    const Argument x = read_argument("input", input);
    const NamedShape weight = {"weight_size", read_size("weight_size", weight_size)};
    const Argument dy = read_argument("grad_output", grad_output);
    const Geometry geometry =
        convolution_geometry(call.rank, named_shape(x), weight, call.parameters, promote({x.dtype, dy.dtype}));
    require_shape(dy, geometry.output_shape(), output_of(named_shape(x), weight));
    const Plan plan = plan_for(geometry.problem, call);
    return run_weight_grad(plan, geometry.batched, x, dy, call.out, geometry.weight_shape());
}

py::array conv_transpose(const Call& call, const py::object& output_padding, const py::object& input,
                         const py::object& weight, const py::object& bias) {
    const Argument x = read_argument("input", input);
    const Argument w = read_argument("weight", weight);
    const DType dtype = promote({x.dtype, w.dtype});
    TransposedGeometry geometry =
        transposed_geometry(call.rank, named_shape(x), named_shape(w), call.parameters, output_padding, dtype);
    Problem& problem = geometry.conv.problem;
    const bool batched = geometry.conv.batched;
    const std::optional<Argument> b = read_bias(bias, problem.in_channels);
    if (b) problem.dtype = promote({dtype, b->dtype});

    // The checks of `out` include the bias, which the gradient pass does not know.
    const bool channels_last = is_channels_last(x.array, batched);
    py::array result = output_array(call.out, geometry.output_shape, problem.dtype, channels_last, batched,
                                    {&x, &w, b ? &*b : nullptr});
    if (!geometry.unreached_only) {
        const Plan plan = plan_for(problem, call);
        if (geometry.has_unreached) fill_zero(result);
        run_input_grad(plan, batched, w, x, result, geometry.output_shape);
    } else {
        fill_zero(result);
    }
    if (b) add_bias(result, *b, batched);
    return result;
}

py::array conv_transpose_input(const Call& call, const py::object& output_padding, const py::object& input_size,
                               const py::object& weight, const py::object& grad_output) {
    const NamedShape input = {"input_size", read_size("input_size", input_size)};
    const Argument w = read_argument("weight", weight);
    const Argument dy = read_argument("grad_output", grad_output);
    const TransposedGeometry geometry = transposed_geometry(call.rank, input, named_shape(w), call.parameters,
                                                            output_padding, promote({w.dtype, dy.dtype}));
    require_shape(dy, geometry.output_shape, output_of(input, named_shape(w)));
    const Problem& problem = geometry.conv.problem;
    if (geometry.unreached_only) {
        py::array result = output_array(call.out, input.shape, problem.dtype, false, geometry.conv.batched, {&w, &dy});
        fill_zero(result);
        return result;
    }
    const Plan plan = plan_for(problem, call);
    return run_forward(plan, geometry.conv.batched, dy, w, std::nullopt, call.out, input.shape);
}

py::array conv_transpose_weight(const Call& call, const py::object& output_padding, const py::object& input,
                                const py::object& weight_size, const py::object& grad_output) {
    const Argument x = read_argument("input", input);
    const NamedShape weight = {"weight_size", read_size("weight_size", weight_size)};
    const Argument dy = read_argument("grad_output", grad_output);
    const TransposedGeometry geometry = transposed_geometry(call.rank, named_shape(x), weight, call.parameters,
                                                            output_padding, promote({x.dtype, dy.dtype}));
    require_shape(dy, geometry.output_shape, output_of(named_shape(x), weight));
    const Problem& problem = geometry.conv.problem;
    if (geometry.unreached_only) {
        py::array result = output_array(call.out, weight.shape, problem.dtype, false, true, {&x, &dy});
        fill_zero(result);
        return result;
    }
    const Plan plan = plan_for(problem, call);
    return run_weight_grad(plan, geometry.conv.batched, dy, x, call.out, weight.shape);
}

}  // namespace

void register_functions(py::module_& module) {
    using Object = const py::object&;
    module.def("read_array", [](const char* name, Object value) { return read_argument(name, value).array; });
    module.def("conv", [](int rank, Object input, Object weight, Object bias, Object stride, Object padding,
                          Object dilation, Object groups, Object padding_mode, Object algorithm, Object out) {
        return conv({rank, {stride, padding, dilation, groups, padding_mode}, algorithm, out}, input, weight, bias);
    });
    module.def("conv_input",
               [](int rank, Object input_size, Object weight, Object grad_output, Object stride, Object padding,
                  Object dilation, Object groups, Object padding_mode, Object algorithm, Object out) {
                   return conv_input({rank, {stride, padding, dilation, groups, padding_mode}, algorithm, out},
                                     input_size, weight, grad_output);
               });
    module.def("conv_weight",
               [](int rank, Object input, Object weight_size, Object grad_output, Object stride, Object padding,
                  Object dilation, Object groups, Object padding_mode, Object algorithm, Object out) {
                   return conv_weight({rank, {stride, padding, dilation, groups, padding_mode}, algorithm, out}, input,
                                      weight_size, grad_output);
               });
    module.def("conv_transpose",
               [](int rank, Object input, Object weight, Object bias, Object stride, Object padding,
                  Object output_padding, Object groups, Object dilation, Object algorithm, Object out) {
                   return conv_transpose({rank, {stride, padding, dilation, groups}, algorithm, out}, output_padding,
                                         input, weight, bias);
               });
    module.def("conv_transpose_input",
               [](int rank, Object input_size, Object weight, Object grad_output, Object stride, Object padding,
                  Object output_padding, Object groups, Object dilation, Object algorithm, Object out) {
                   return conv_transpose_input({rank, {stride, padding, dilation, groups}, algorithm, out},
                                               output_padding, input_size, weight, grad_output);
               });
    module.def("conv_transpose_weight",
               [](int rank, Object input, Object weight_size, Object grad_output, Object stride, Object padding,
                  Object output_padding, Object groups, Object dilation, Object algorithm, Object out) {
                   return conv_transpose_weight({rank, {stride, padding, dilation, groups}, algorithm, out},
                                                output_padding, input, weight_size, grad_output);
               });
}

}  // namespace triconv::python
