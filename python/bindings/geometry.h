// From a caller's sizes, stride, padding, dilation and groups to the Problem of the core, with every check that can be
// put in the caller's terms: the argument, the value it had and what was expected. What is left to the core (overflow,
// the algorithm's own limits) it reports itself.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "arrays.h"
#include "triconv/triconv.hpp"

namespace triconv::python {

// The shape of an argument, with the name it has in messages ("input" or "input_size").
struct NamedShape {
    const char* name;
    Shape shape;
};

// Parameters as the caller gave them.
struct Parameters {
    py::object stride;
    py::object padding;
    py::object dilation;
    py::object groups;
    // PyTorch's name of what the padding holds, or a pair of the core's (a boundary and the fill). Not of a transpose.
    py::object padding_mode = {};
};

// A convolution and the shapes its arrays have. Unbatched arrays lack the batch axis.
struct Geometry {
    Problem problem;
    bool batched = true;

    Shape input_shape() const;
    Shape weight_shape() const;
    Shape output_shape() const;
};

Geometry convolution_geometry(int rank, const NamedShape& input, const NamedShape& weight, const Parameters& parameters,
                              DType dtype);

// A transposed convolution is the input gradient of `conv`: its input is the gradient, its output the input. Where
// output_padding adds positions that no input reaches, `conv` has the reached ones only (none if `unreached_only`) and
// the rest of the output is 0.
struct TransposedGeometry {
    Geometry conv;
    Shape output_shape;
    bool has_unreached = false;
    bool unreached_only = false;
};

TransposedGeometry transposed_geometry(int rank, const NamedShape& input, const NamedShape& weight,
                                       const Parameters& parameters, const py::object& output_padding, DType dtype);

// A layer before it has an input. Every check is made that does not depend on one: on a sample just large enough for two
// outputs along each axis, so that the stride counts.
Geometry layer_geometry(int rank, const py::object& in_channels, const py::object& out_channels,
                        const py::object& kernel_size, const Parameters& parameters, DType dtype);

std::int64_t read_int(const char* name, const py::handle& value, std::int64_t least);
Shape read_size(const char* name, const py::object& value);

}  // namespace triconv::python
