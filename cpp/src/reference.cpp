#include "reference.h"

#include <vector>

#include "product_sum.h"

namespace triconv {

namespace {

// Positions of the padded input that one output or one tap reads: first, first + step, ...
struct PaddedSamples {
    const Layer& layer;
    Index first, step;

    template <class E>
    E at(const E* channel, const std::array<std::ptrdiff_t, axes>& along, const Index& i) const {
        std::ptrdiff_t offset = 0;
        for (int a = 0; a < axes; ++a) {
            const Axis& axis = layer.axis[a];
            const std::int64_t sample = axis.outside.sample_at(first[a] + i[a] * step[a] - axis.pad, axis.in);
            if (sample < 0) return static_cast<E>(axis.outside.fill);
            offset += sample * along[a];
        }
        return channel[offset];
    }
};

// The taps that meet sample i of an axis, at any position of the padded input that holds it, and for which output.
struct Meeting {
    std::int64_t tap, output;
};
std::vector<Meeting> meetings_of(const Axis& axis, std::int64_t i) {
    std::vector<Meeting> meetings;
    const auto add = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t position = begin; position < end; ++position) {
            if (axis.outside.sample_at(position, axis.in) != i) continue;
            for (std::int64_t r = 0; r < axis.kernel; ++r) {
                const std::int64_t shifted = position + axis.pad - r * axis.dilation;
                if (shifted >= 0 && shifted % axis.stride == 0 && shifted / axis.stride < axis.out)
                    meetings.push_back({r, shifted / axis.stride});
            }
        }
    };
    add(axis.outside.begin, 0);
    add(i, i + 1);
    add(axis.in, axis.outside.end);
    return meetings;
}

Index strides(const Layer& l) {
    return {l.axis[0].stride, l.axis[1].stride, l.axis[2].stride};
}
Index dilations(const Layer& l) {
    return {l.axis[0].dilation, l.axis[1].dilation, l.axis[2].dilation};
}
Index times(const Index& a, const Index& b) {
    return {a[0] * b[0], a[1] * b[1], a[2] * b[2]};
}

}  // namespace

template <class E>
E reference_forward_at(const Layer& layer, const Tensor<const E>& x, const Tensor<const E>& w, const E* bias,
                       std::int64_t n, std::int64_t k, const Index& o) {
    ProductSum<E> sum;
    bool open = !bias || sum.add(*bias, E(1));
    const PaddedSamples samples{layer, times(o, strides(layer)), dilations(layer)};
    const std::int64_t first = k / layer.out_per_group() * layer.in_per_group();
    for (std::int64_t c = 0; open && c < layer.in_per_group(); ++c) {
        const E* channel = x.data + n * x.outer + (first + c) * x.inner;
        const E* kernel = w.data + k * w.outer + c * w.inner;
        open = for_each_index(layer.kernel_extent(), [&](const Index& r) {
            return sum.add(samples.at(channel, x.along, r), kernel[w.offset_of(r)]);
        });
    }
    return sum.value();
}

template <class E>
E reference_input_grad_at(const Layer& layer, const Tensor<const E>& w, const Tensor<const E>& dy, std::int64_t n,
                          std::int64_t c, const Index& i) {
    ProductSum<E> sum;
    const std::int64_t group = c / layer.in_per_group(), c_in_group = c % layer.in_per_group();
    std::array<std::vector<Meeting>, axes> meetings;
    Index extent;
    for (int a = 0; a < axes; ++a) {
        meetings[a] = meetings_of(layer.axis[a], i[a]);
        extent[a] = static_cast<std::int64_t>(meetings[a].size());
    }
    bool open = true;
    for (std::int64_t j = 0; open && j < layer.out_per_group(); ++j) {
        const std::int64_t k = group * layer.out_per_group() + j;
        const E* const outputs = dy.data + n * dy.outer + k * dy.inner;
        const E* const kernel = w.data + k * w.outer + c_in_group * w.inner;
        open = for_each_index(extent, [&](const Index& m) {
            std::ptrdiff_t output = 0, tap = 0;
            for (int a = 0; a < axes; ++a) {
                const Meeting& meeting = meetings[a][static_cast<std::size_t>(m[a])];
                output += meeting.output * dy.along[a];
                tap += meeting.tap * w.along[a];
            }
            return sum.add(outputs[output], kernel[tap]);
        });
    }
    return sum.value();
}

template <class E>
E reference_weight_grad_at(const Layer& layer, const Tensor<const E>& x, const Tensor<const E>& dy, std::int64_t k,
                           std::int64_t c, const Index& r) {
    ProductSum<E> sum;
    const PaddedSamples samples{layer, times(r, dilations(layer)), strides(layer)};
    const std::int64_t channel = k / layer.out_per_group() * layer.in_per_group() + c;
    bool open = true;
    for (std::int64_t n = 0; open && n < layer.batch; ++n)
        open = for_each_index(layer.output_extent(), [&](const Index& o) {
            return sum.add(samples.at(x.data + n * x.outer + channel * x.inner, x.along, o), dy.element(n, k, o));
        });
    return sum.value();
}

template float reference_forward_at(const Layer&, const Tensor<const float>&, const Tensor<const float>&, const float*,
                                    std::int64_t, std::int64_t, const Index&);
template double reference_forward_at(const Layer&, const Tensor<const double>&, const Tensor<const double>&,
                                     const double*, std::int64_t, std::int64_t, const Index&);
template float reference_input_grad_at(const Layer&, const Tensor<const float>&, const Tensor<const float>&,
                                       std::int64_t, std::int64_t, const Index&);
template double reference_input_grad_at(const Layer&, const Tensor<const double>&, const Tensor<const double>&,
                                        std::int64_t, std::int64_t, const Index&);
template float reference_weight_grad_at(const Layer&, const Tensor<const float>&, const Tensor<const float>&,
                                        std::int64_t, std::int64_t, const Index&);
template double reference_weight_grad_at(const Layer&, const Tensor<const double>&, const Tensor<const double>&,
                                         std::int64_t, std::int64_t, const Index&);

namespace {

template <class E>
void reference_pass_of(const Layer& layer, Pass pass, const ConstView& a, const ConstView& b, const View& out_view) {
    const auto first = as_tensor<E>(a, layer.rank), second = as_tensor<E>(b, layer.rank);
    const Tensor<E> out = as_tensor<E>(out_view, layer.rank);
    auto fill = [&](std::int64_t outer, std::int64_t inner, const Index& extent, auto value_at) {
        for (std::int64_t i = 0; i < outer; ++i)
            for (std::int64_t j = 0; j < inner; ++j)
                for_each_index(extent, [&](const Index& at) { out.element(i, j, at) = value_at(i, j, at); });
    };
    switch (pass) {
        case Pass::forward:
            return fill(layer.batch, layer.out_channels, layer.output_extent(), [&](auto n, auto k, const Index& o) {
                return reference_forward_at<E>(layer, first, second, nullptr, n, k, o);
            });
        case Pass::input_grad:
            return fill(layer.batch, layer.in_channels, layer.input_extent(), [&](auto n, auto c, const Index& i) {
                return reference_input_grad_at(layer, first, second, n, c, i);
            });
        case Pass::weight_grad:
            return fill(layer.out_channels, layer.in_per_group(), layer.kernel_extent(),
                        [&](auto k, auto c, const Index& r) {
                            return reference_weight_grad_at(layer, first, second, k, c, r);
                        });
    }
}

}  // namespace

void reference_pass(const Problem& problem, Pass pass, const ConstView& a, const ConstView& b, const View& out) {
    validate(problem);
    const Layer layer(problem);
    if (problem.dtype == DType::f32) return reference_pass_of<float>(layer, pass, a, b, out);
    reference_pass_of<double>(layer, pass, a, b, out);
}

}  // namespace triconv
