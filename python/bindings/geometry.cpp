#include "geometry.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <tuple>
#include <utility>

namespace triconv::python {

namespace {

using Axes = std::array<std::int64_t, max_rank>;

struct Padding {
    Axes low = {};
    Axes high = {};
    bool same = false;
};

// The integer that `value` is, or nothing if it is no integer.
std::optional<std::int64_t> as_int(const char* name, const py::handle& value) {
    if (PyIndex_Check(value.ptr()) == 0) return std::nullopt;
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) {  // an array of several elements has __index__ but no value
        PyErr_Clear();
        return std::nullopt;
    }
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow != 0)
        throw py::value_error(std::string(name) + " contains " + py::str(index).cast<std::string>() +
                              ", which does not fit in 64 bits");
    return number;
}

std::string text_of(const py::handle& value) {
    return py::repr(value).cast<std::string>();
}

bool is_sequence(const py::handle& value) {
    return py::isinstance<py::sequence>(value) && !py::isinstance<py::str>(value) && !py::isinstance<py::bytes>(value);
}

std::string count_of_ints(int rank) {
    return rank == 1 ? "1 int" : std::to_string(rank) + " ints";
}

// One value for all axes, or one per axis; each at least `least`.
Axes read_axes(const char* name, const py::object& value, int rank, std::int64_t least) {
    const auto wrong_type = [&] {
        return py::type_error(std::string(name) + " is " + text_of(value) + ", expected an int or a sequence of " +
                              count_of_ints(rank));
    };
    Axes axes = {};
    if (const auto number = as_int(name, value)) {
        axes.fill(*number);
    } else {
        if (!is_sequence(value)) throw wrong_type();
        const auto entries = py::reinterpret_borrow<py::sequence>(value);
        const std::size_t count = entries.size();
        if (count != 1 && count != static_cast<std::size_t>(rank))
            throw py::value_error(std::string(name) + " is " + text_of(value) + " with " + std::to_string(count) +
                                  " entries, expected an int or " + count_of_ints(rank));
        for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
            const auto entry = as_int(name, entries[count == 1 ? 0 : axis]);
            if (!entry) throw wrong_type();
            axes[axis] = *entry;
        }
    }
    for (int axis = 0; axis < rank; ++axis)
        if (axes[static_cast<std::size_t>(axis)] < least)
            throw py::value_error(std::string(name) + " is " + text_of(value) + ", expected at least " +
                                  std::to_string(least) + " on every axis");
    return axes;
}

[[noreturn]] void throw_padding(const py::object& value, int rank, bool allows_strings) {
    const std::string strings = allows_strings ? ", 'valid' or 'same'" : "";
    const std::string message = "padding is " + text_of(value) + ", expected an int, " + count_of_ints(rank) + ", " +
                                std::to_string(rank) + (rank == 1 ? " (low, high) pair" : " (low, high) pairs") +
                                strings;
    const bool is_right_type = is_sequence(value) || py::isinstance<py::str>(value);
    if (is_right_type) throw py::value_error(message);
    throw py::type_error(message);
}

// One entry of a padding sequence: an int for both ends, or a (low, high) pair.
std::optional<std::pair<std::int64_t, std::int64_t>> read_ends(const py::handle& entry) {
    if (const auto both = as_int("padding", entry)) return std::pair{*both, *both};
    if (!is_sequence(entry)) return std::nullopt;
    const auto pair = py::reinterpret_borrow<py::sequence>(entry);
    if (pair.size() != 2) return std::nullopt;
    const auto low = as_int("padding", pair[0]);
    const auto high = as_int("padding", pair[1]);
    if (!low || !high) return std::nullopt;
    return std::pair{*low, *high};
}

Padding read_padding(const py::object& value, int rank, bool allows_strings) {
    Padding padding;
    if (py::isinstance<py::str>(value)) {
        const auto text = value.cast<std::string>();
        if (!allows_strings || (text != "same" && text != "valid")) throw_padding(value, rank, allows_strings);
        padding.same = text == "same";
        return padding;
    }
    if (const auto number = as_int("padding", value)) {
        padding.low.fill(*number);
        padding.high.fill(*number);
    } else {
        if (!is_sequence(value)) throw_padding(value, rank, allows_strings);
        const auto entries = py::reinterpret_borrow<py::sequence>(value);
        const std::size_t count = entries.size();
        if (count != 1 && count != static_cast<std::size_t>(rank)) throw_padding(value, rank, allows_strings);
        for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
            const auto ends = read_ends(entries[count == 1 ? 0 : axis]);
            if (!ends) throw_padding(value, rank, allows_strings);
            std::tie(padding.low[axis], padding.high[axis]) = *ends;
        }
    }
    for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis)
        if (padding.low[axis] < 0 || padding.high[axis] < 0)
            throw py::value_error("padding is " + text_of(value) + ", expected 0 or more at every end");
    return padding;
}

// "4 (N, C, H, W)", "3 (C, H, W)".
std::string axes_text(int rank, bool batched) {
    static constexpr const char* spatial[] = {"L", "H, W", "D, H, W"};
    return std::to_string(rank + (batched ? 2 : 1)) + (batched ? " (N, C, " : " (C, ") + spatial[rank - 1] + ")";
}

bool read_batched(int rank, const NamedShape& input) {
    const auto count = static_cast<int>(input.shape.size());
    if (count != rank + 1 && count != rank + 2)
        throw py::value_error(std::string(input.name) + " has " + std::to_string(count) + " dimensions, shape " +
                              format_shape(input.shape) + ", expected " + axes_text(rank, true) + " or " +
                              axes_text(rank, false));
    return count == rank + 2;
}

void require_weight_rank(int rank, const NamedShape& weight, const char* channel_axes) {
    static constexpr const char* spatial[] = {"L", "H, W", "D, H, W"};
    if (static_cast<int>(weight.shape.size()) != rank + 2)
        throw py::value_error(std::string(weight.name) + " has " + std::to_string(weight.shape.size()) +
                              " dimensions, shape " + format_shape(weight.shape) + ", expected " +
                              std::to_string(rank + 2) + " (" + channel_axes + ", " + spatial[rank - 1] + ")");
}

void require_extents(const NamedShape& named, std::size_t first_spatial) {
    for (std::size_t axis = 0; axis < named.shape.size(); ++axis) {
        const std::int64_t least = axis < first_spatial ? 0 : 1;
        if (named.shape[axis] < least)
            throw py::value_error(std::string(named.name) + " has shape " + format_shape(named.shape) +
                                  ", expected at least " + std::to_string(least) + " on axis " + std::to_string(axis));
    }
}

void require_divides(std::int64_t groups, std::int64_t channels, const char* name, const char* what) {
    if (channels % groups != 0)
        throw py::value_error("groups is " + std::to_string(groups) + ", which does not divide the " +
                              std::to_string(channels) + " " + what + " channels of " + name);
}

std::string per_group_text(std::int64_t channels, std::int64_t groups) {
    if (groups == 1) return std::to_string(channels);
    return std::to_string(channels / groups) + " = " + std::to_string(channels) + " channels / " +
           std::to_string(groups) + " groups";
}

void set_axes(Geometry& geometry, const NamedShape& weight, const Axes& stride, const Axes& dilation) {
    Problem& problem = geometry.problem;
    for (int axis = 0; axis < problem.rank; ++axis) {
        const auto i = static_cast<std::size_t>(axis);
        problem.kernel[axis] = weight.shape[i + 2];
        problem.stride[axis] = stride[i];
        problem.dilation[axis] = dilation[i];
    }
}

// Bounds that keep the arithmetic on extents here and in the core within 64 bits.
void require_moderate(const Problem& problem, const NamedShape& input, const NamedShape& weight,
                      const Padding& padding) {
    constexpr std::int64_t limit = std::int64_t{1} << 40;
    const auto require = [&](const char* name, std::int64_t value) {
        if (value > limit)
            throw py::value_error(std::string(name) + " contains " + std::to_string(value) +
                                  ", expected at most 2**40: sizes in bytes overflow 64 bits beyond");
    };
    for (const std::int64_t extent : input.shape)
        require(input.name, extent);
    for (const std::int64_t extent : weight.shape)
        require(weight.name, extent);
    for (int axis = 0; axis < problem.rank; ++axis) {
        const auto i = static_cast<std::size_t>(axis);
        require("stride", problem.stride[axis]);
        require("padding", std::max(padding.low[i], padding.high[i]));
        if (problem.kernel[axis] > 1 && problem.dilation[axis] > limit / (problem.kernel[axis] - 1))
            throw py::value_error("dilation is " + std::to_string(problem.dilation[axis]) + " for " + weight.name +
                                  " of shape " + format_shape(weight.shape) +
                                  ", expected a kernel that spans at most 2**40 positions");
    }
}

void set_padding(Problem& problem, const Padding& padding, const Parameters& parameters) {
    for (int axis = 0; axis < problem.rank; ++axis) {
        const auto i = static_cast<std::size_t>(axis);
        if (padding.same && problem.stride[axis] != 1)
            throw py::value_error("padding is 'same' with stride " + text_of(parameters.stride) +
                                  ", expected stride 1 on every axis");
        const std::int64_t total = problem.dilation[axis] * (problem.kernel[axis] - 1);
        problem.pad_lo[axis] = padding.same ? total / 2 : padding.low[i];
        problem.pad_hi[axis] = padding.same ? total - total / 2 : padding.high[i];
    }
}

// What the padding holds. PyTorch's modes by name; the core's boundaries as a pair of name and fill.
void set_boundary(Problem& problem, const py::object& padding_mode) {
    if (py::isinstance<py::tuple>(padding_mode)) {
        const auto [boundary, fill] = padding_mode.cast<std::pair<std::string, double>>();
        problem.boundary = parse_boundary(boundary);
        problem.fill = fill;
        return;
    }
    static const std::pair<const char*, Boundary> modes[] = {{"zeros", Boundary::constant},
                                                             {"reflect", Boundary::mirror},
                                                             {"replicate", Boundary::nearest},
                                                             {"circular", Boundary::wrap}};
    const std::string message =
        "padding_mode is " + text_of(padding_mode) + ", expected 'zeros', 'reflect', 'replicate' or 'circular'";
    if (!py::isinstance<py::str>(padding_mode)) throw py::type_error(message);
    const auto name = padding_mode.cast<std::string>();
    const auto* const mode =
        std::find_if(std::begin(modes), std::end(modes), [&](const auto& known) { return name == known.first; });
    if (mode == std::end(modes)) throw py::value_error(message);
    problem.boundary = mode->second;
}

// As in PyTorch, 'reflect' and 'circular' take each sample once at most.
void require_samples_to_copy(const Problem& problem, const NamedShape& input, const Parameters& parameters) {
    if (!py::isinstance<py::str>(parameters.padding_mode)) return;
    if (problem.boundary != Boundary::mirror && problem.boundary != Boundary::wrap) return;
    for (int axis = 0; axis < problem.rank; ++axis) {
        const std::int64_t most = problem.input[axis] - (problem.boundary == Boundary::mirror ? 1 : 0);
        const std::int64_t widest = std::max(problem.pad_lo[axis], problem.pad_hi[axis]);
        if (widest > most)
            throw py::value_error("padding is " + text_of(parameters.padding) + ", which is " + std::to_string(widest) +
                                  " on spatial axis " + std::to_string(axis) + " of " + input.name + " of shape " +
                                  format_shape(input.shape) + ", expected at most " + std::to_string(most) +
                                  " with padding_mode " + text_of(parameters.padding_mode));
    }
}

Shape full_shape(const Problem& problem, bool batched, std::int64_t channels, const std::int64_t* extents) {
    Shape shape;
    shape.reserve(2 + max_rank);
    if (batched) shape.push_back(problem.batch);
    shape.push_back(channels);
    shape.insert(shape.end(), extents, extents + problem.rank);
    return shape;
}

// Cuts one axis of a transposed convolution to the positions that some input reaches. Returns the size of the output.
std::int64_t set_transposed_axis(TransposedGeometry& geometry, int axis, std::int64_t input,
                                 std::int64_t output_padding) {
    Problem& problem = geometry.conv.problem;
    const std::int64_t last =
        (input - 1) * problem.stride[axis] + problem.dilation[axis] * (problem.kernel[axis] - 1) - problem.pad_lo[axis];
    const std::int64_t size = last + 1 - problem.pad_hi[axis] + output_padding;
    const std::int64_t beyond = output_padding - problem.pad_hi[axis];
    problem.pad_hi[axis] = std::max<std::int64_t>(-beyond, 0);
    const std::int64_t kept = std::min(beyond, problem.stride[axis] - 1);
    problem.input[axis] = last + 1 + kept;
    geometry.has_unreached |= problem.input[axis] < size;
    geometry.unreached_only |= problem.input[axis] < 1;
    return size;
}

}  // namespace

std::int64_t read_int(const char* name, const py::handle& value, std::int64_t least) {
    const auto number = as_int(name, value);
    if (!number) throw py::type_error(std::string(name) + " is " + text_of(value) + ", expected an int");
    if (*number < least)
        throw py::value_error(std::string(name) + " is " + std::to_string(*number) + ", expected at least " +
                              std::to_string(least));
    return *number;
}

Shape read_size(const char* name, const py::object& value) {
    if (!is_sequence(value) && !py::isinstance<py::array>(value))
        throw py::type_error(std::string(name) + " is " + text_of(value) + ", expected a sequence of ints");
    Shape shape;
    for (const py::handle entry : value) {
        const auto number = as_int(name, entry);
        if (!number)
            throw py::type_error(std::string(name) + " is " + text_of(value) + ", expected a sequence of ints");
        shape.push_back(*number);
    }
    return shape;
}

Shape Geometry::input_shape() const {
    return full_shape(problem, batched, problem.in_channels, problem.input);
}

Shape Geometry::weight_shape() const {
    Shape shape = {problem.out_channels, problem.in_channels / problem.groups};
    shape.insert(shape.end(), problem.kernel, problem.kernel + problem.rank);
    return shape;
}

Shape Geometry::output_shape() const {
    std::int64_t extents[max_rank];
    for (int axis = 0; axis < problem.rank; ++axis)
        extents[axis] = problem.output(axis);
    return full_shape(problem, batched, problem.out_channels, extents);
}

Geometry convolution_geometry(int rank, const NamedShape& input, const NamedShape& weight, const Parameters& parameters,
                              DType dtype) {
    Geometry geometry;
    geometry.batched = read_batched(rank, input);
    require_weight_rank(rank, weight, "K, C / groups");
    const std::size_t channel = geometry.batched ? 1 : 0;
    require_extents(input, channel + 1);
    require_extents(weight, 2);

    Problem& problem = geometry.problem;
    problem.rank = rank;
    problem.dtype = dtype;
    problem.batch = geometry.batched ? input.shape[0] : 1;
    problem.in_channels = input.shape[channel];
    problem.out_channels = weight.shape[0];
    problem.groups = read_int("groups", parameters.groups, 1);
    require_divides(problem.groups, problem.in_channels, input.name, "input");
    require_divides(problem.groups, problem.out_channels, weight.name, "output");
    if (weight.shape[1] != problem.in_channels / problem.groups)
        throw py::value_error(
            std::string(weight.name) + " has " + std::to_string(weight.shape[1]) +
            (problem.groups == 1 ? " input channels, expected " : " input channels per group, expected ") +
            per_group_text(problem.in_channels, problem.groups) +
            (problem.groups == 1 ? std::string(", those of ") + input.name : ""));

    const Axes stride = read_axes("stride", parameters.stride, rank, 1);
    const Axes dilation = read_axes("dilation", parameters.dilation, rank, 1);
    const Padding padding = read_padding(parameters.padding, rank, true);
    std::copy_n(input.shape.begin() + static_cast<std::ptrdiff_t>(channel) + 1, rank, problem.input);
    set_axes(geometry, weight, stride, dilation);
    require_moderate(problem, input, weight, padding);
    set_padding(problem, padding, parameters);
    set_boundary(problem, parameters.padding_mode);
    require_samples_to_copy(problem, input, parameters);
    validate(problem);
    return geometry;
}

Geometry layer_geometry(int rank, const py::object& in_channels, const py::object& out_channels,
                        const py::object& kernel_size, const Parameters& parameters, DType dtype) {
    const std::int64_t groups = read_int("groups", parameters.groups, 1);
    const auto read_channels = [&](const char* name, const py::object& value) {
        const std::int64_t channels = read_int(name, value, 1);
        if (channels % groups != 0)
            throw py::value_error("groups is " + std::to_string(groups) + ", which does not divide " + name + ", " +
                                  std::to_string(channels));
        return channels;
    };
    NamedShape input = {"input", {1, read_channels("in_channels", in_channels)}};
    NamedShape weight = {"weight", {read_channels("out_channels", out_channels), input.shape[1] / groups}};
    const Axes kernel = read_axes("kernel_size", kernel_size, rank, 1);
    const Axes stride = read_axes("stride", parameters.stride, rank, 1);
    const Axes dilation = read_axes("dilation", parameters.dilation, rank, 1);
    constexpr std::int64_t moderate_stride = 1 << 16;  // beyond, a second output could make the sample too large
    for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) {
        std::int64_t last_tap = 0;  // 0 where it overflows: the checks of the geometry find that
        if (__builtin_mul_overflow(kernel[axis] - 1, dilation[axis], &last_tap)) last_tap = 0;
        std::int64_t extent = 0;
        if (__builtin_add_overflow(last_tap, std::min(stride[axis], moderate_stride) + 1, &extent)) extent = 1;
        input.shape.push_back(extent);
        weight.shape.push_back(kernel[axis]);
    }
    Problem checked;
    set_boundary(checked, parameters.padding_mode);
    Parameters of_sample = parameters;  // how much padding a mode allows depends on the input
    of_sample.padding_mode = py::str("zeros");
    return convolution_geometry(rank, input, weight, of_sample, dtype);
}

TransposedGeometry transposed_geometry(int rank, const NamedShape& input, const NamedShape& weight,
                                       const Parameters& parameters, const py::object& output_padding, DType dtype) {
    TransposedGeometry geometry;
    geometry.conv.batched = read_batched(rank, input);
    require_weight_rank(rank, weight, "C, K / groups");
    const std::size_t channel = geometry.conv.batched ? 1 : 0;
    require_extents(input, channel + 1);
    require_extents(weight, 2);

    Problem& problem = geometry.conv.problem;
    problem.rank = rank;
    problem.dtype = dtype;
    problem.batch = geometry.conv.batched ? input.shape[0] : 1;
    problem.out_channels = input.shape[channel];
    problem.groups = read_int("groups", parameters.groups, 1);
    require_divides(problem.groups, problem.out_channels, input.name, "input");
    if (weight.shape[0] != problem.out_channels)
        throw py::value_error(std::string(weight.name) + " has " + std::to_string(weight.shape[0]) +
                              " input channels on axis 0, expected " + std::to_string(problem.out_channels) +
                              ", those of " + input.name);
    if (__builtin_mul_overflow(weight.shape[1], problem.groups, &problem.in_channels))
        throw py::value_error(std::string(weight.name) + " of shape " + format_shape(weight.shape) +
                              ": its number of output channels overflows 64 bits");

    const Axes stride = read_axes("stride", parameters.stride, rank, 1);
    const Axes dilation = read_axes("dilation", parameters.dilation, rank, 1);
    const Axes extra = read_axes("output_padding", output_padding, rank, 0);
    const Padding padding = read_padding(parameters.padding, rank, false);
    set_axes(geometry.conv, weight, stride, dilation);
    require_moderate(problem, input, weight, padding);
    set_padding(problem, padding, parameters);

    geometry.output_shape = full_shape(problem, geometry.conv.batched, problem.in_channels, problem.input);
    for (int axis = 0; axis < rank; ++axis) {
        const auto i = static_cast<std::size_t>(axis);
        if (extra[i] >= std::max(stride[i], dilation[i]))
            throw py::value_error("output_padding is " + text_of(output_padding) +
                                  ", expected less than the stride or the dilation of every axis");
        const std::int64_t extent = input.shape[channel + 1 + i];
        std::int64_t spread = 0;
        if (__builtin_mul_overflow(extent, stride[i], &spread) || spread > (std::int64_t{1} << 60))
            throw py::value_error("stride of " + std::to_string(stride[i]) + " makes the output of " + input.name +
                                  " of shape " + format_shape(input.shape) + " too large");
        const std::int64_t size = set_transposed_axis(geometry, axis, extent, extra[i]);
        if (size < 1)
            throw py::value_error("padding is " + text_of(parameters.padding) + ", which leaves an output of " +
                                  std::to_string(size) + " on spatial axis " + std::to_string(axis) + " of " +
                                  input.name + " of shape " + format_shape(input.shape) + ", expected at least 1");
        geometry.output_shape[channel + 1 + i] = size;
    }
    if (!geometry.unreached_only) validate(problem);
    return geometry;
}

}  // namespace triconv::python
