#include "geometry.h"

#include <algorithm>
#include <numeric>

namespace triconv {

namespace {

// The phases and steps of an axis with its sizes.
Axis with_phases(Axis a) {
    // With one output or one tap the stride or dilation multiplies only zero.
    if (a.out == 1) a.stride = 1;
    if (a.kernel == 1) a.dilation = 1;
    const std::int64_t g = std::gcd(a.stride, a.dilation);
    a.out_step = a.dilation / g;
    a.tap_step = a.stride / g;
    a.step = a.out_step * a.stride;
    a.output_phases = std::min(a.out_step, a.out);
    a.kernel_phases = std::min(a.tap_step, a.kernel);
    a.taps = ceil_div(a.kernel, a.tap_step);
    return a;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
    if (b == 1) return a;  // mostly: saves a slow division
    return a >= 0 ? a / b : -ceil_div(-a, b);
}

}  // namespace

Layer::Layer(const Problem& p)
    : dtype(p.dtype),
      rank(p.rank),
      batch(p.batch),
      in_channels(p.in_channels),
      out_channels(p.out_channels),
      groups(p.groups) {
    bool reads_padding = false;
    for (int i = 0; i < p.rank; ++i) {
        Axis& a = axis[axes - p.rank + i];
        a = with_phases({p.input[i], p.output(i), p.kernel[i], p.stride[i], p.dilation[i], p.pad_lo[i]});
        reads_padding = reads_padding || a.pad > 0 || a.read_end() > a.in;
    }
    if (!reads_padding) return;
    for (Axis& a : axis)
        a.outside = {p.boundary, p.fill, -a.pad, a.read_end()};
}

Layer Layer::with_taps(const std::array<TapRange, axes>& used) const {
    Layer result = *this;
    for (int i = 0; i < axes; ++i) {
        Axis& a = result.axis[i];
        const auto [begin, end] = used[i];
        a = with_phases({a.in, a.out, end - begin, a.stride, a.dilation, a.pad - begin * a.dilation});
        a.outside = {Boundary::constant, 0, -a.pad, a.read_end()};
    }
    return result;
}

AxisPart part_of(const Axis& a, std::int64_t begin, std::int64_t end) {
    AxisPart part;
    const std::int64_t span = (a.kernel - 1) * a.dilation;
    part.output = ceil_div(std::max<std::int64_t>(0, begin + a.pad - span), a.stride);
    const std::int64_t last_output = std::min(a.out - 1, floor_div(end - 1 + a.pad, a.stride));
    part.tap = ceil_div(std::max<std::int64_t>(0, begin + a.pad - last_output * a.stride), a.dilation);
    const std::int64_t last_tap =
        std::min(a.kernel - 1, floor_div(end - 1 + a.pad - part.output * a.stride, a.dilation));
    const std::int64_t first_read = part.output * a.stride + part.tap * a.dilation - a.pad;
    const std::int64_t last_read = last_output * a.stride + last_tap * a.dilation - a.pad;
    part.position = std::max(begin, first_read);
    const std::int64_t size = std::min(end, last_read + 1) - part.position;
    part.empty = last_output < part.output || last_tap < part.tap || size <= 0;
    if (part.empty) return part;
    part.axis = with_phases({size, last_output - part.output + 1, last_tap - part.tap + 1, a.stride, a.dilation,
                             part.position - first_read});
    return part;
}

TapRange used_taps(const Axis& axis) {
    const AxisPart part = part_of(axis, 0, axis.in);
    if (part.empty) return {0, axis.kernel};
    // What is left of the padding is not negative.
    const std::int64_t begin = std::min(part.tap, axis.pad / axis.dilation);
    return {begin, part.tap + part.axis.kernel};
}

Layer Layer::zero_padded() const {
    Layer result = *this;
    for (Axis& a : result.axis)
        a.outside = {};
    return result;
}

std::int64_t Layer::output_phases() const {
    return axis[0].output_phases * axis[1].output_phases * axis[2].output_phases;
}
std::int64_t Layer::kernel_phases() const {
    return axis[0].kernel_phases * axis[1].kernel_phases * axis[2].kernel_phases;
}
std::int64_t Layer::outputs() const {
    return axis[0].out * axis[1].out * axis[2].out;
}
std::int64_t Layer::inputs() const {
    return axis[0].in * axis[1].in * axis[2].in;
}
std::int64_t Layer::taps() const {
    return axis[0].kernel * axis[1].kernel * axis[2].kernel;
}

namespace {

// Neighbouring positions, from one on: samples index, index + direction, ... up to the position `last`. No index: fill.
struct Stretch {
    std::int64_t last, index;
    int direction;
};
constexpr std::int64_t no_sample = -1, far_away = std::int64_t{1} << 61;

// Outside the array an axis repeats its samples, or all but one of them (mirror), forwards or forwards and backwards.
Stretch stretch_from(const Extension& outside, std::int64_t size, std::int64_t position) {
    if (position >= 0 && position < size) return {size - 1, position, 1};
    if (outside.boundary == Boundary::constant || position >= outside.end)
        return {position < 0 ? -1 : far_away, no_sample, 0};
    if (position < outside.begin) return {outside.begin - 1, no_sample, 0};
    const std::int64_t last = position < 0 ? -1 : outside.end - 1;
    if (outside.boundary == Boundary::nearest || size == 1) return {last, position < 0 ? 0 : size - 1, 0};
    const std::int64_t length = outside.boundary == Boundary::mirror ? size - 1 : size;
    const std::int64_t repetition = floor_div(position, length), at = position - repetition * length;
    const bool backwards = outside.boundary != Boundary::wrap && repetition % 2 != 0;
    return {std::min(last, position - at + length - 1), backwards ? size - 1 - at : at, backwards ? -1 : 1};
}

}  // namespace

std::int64_t Extension::sample_outside(std::int64_t position, std::int64_t size) const {
    return stretch_from(*this, size, position).index;
}

SampleRun SubGrid::run_from(std::int64_t t, std::int64_t end) const {
    const Stretch stretch = stretch_from(outside, size, index(t));
    return {std::min(end, floor_div(stretch.last - offset, step) + 1), stretch.index, stretch.direction * step};
}

void SubGrid::clip(std::int64_t begin, std::int64_t end, std::int64_t& first, std::int64_t& last) const {
    first = std::max(begin, -floor_div(offset, step));  // ceil(-offset / step)
    last = std::max(first, std::min(end, floor_div(size - 1 - offset, step) + 1));
}

SubGrid input_grid(const Axis& a, std::int64_t rho, std::int64_t phi) {
    return {rho * a.stride - a.pad + phi * a.dilation, a.step, a.in, a.outside};
}
SubGrid output_grid(const Axis& a, std::int64_t rho) {
    return {rho, a.out_step, a.out};
}

Range input_support(const Axis& a) {
    const std::int64_t longest = ceil_div(a.out, a.out_step) + a.taps - 1;
    Range support{longest, 0};
    for (std::int64_t rho = 0; rho < a.output_phases; ++rho)
        for (std::int64_t phi = 0; phi < a.kernel_phases; ++phi) {
            const std::int64_t outputs = ceil_div(a.out - rho, a.out_step);
            std::int64_t first, last;
            input_grid(a, rho, phi).clip(0, outputs + a.taps_of(phi) - 1, first, last);
            if (first >= last) continue;
            support.begin = std::min(support.begin, first);
            support.end = std::max(support.end, last);
        }
    if (support.begin >= support.end) support = {0, 0};
    return support;
}

bool input_covered(const Axis& a) {
    const Range support = input_support(a);
    std::int64_t covered = 0;
    for (std::int64_t rho = 0; rho < a.output_phases; ++rho)
        for (std::int64_t phi = 0; phi < a.kernel_phases; ++phi) {
            std::int64_t first, last;
            input_grid(a, rho, phi).clip(support.begin, support.end, first, last);
            covered += last - first;
        }
    return covered == a.in;
}

bool input_covered(const Layer& layer) {
    return input_covered(layer.axis[0]) && input_covered(layer.axis[1]) && input_covered(layer.axis[2]);
}

Tensor<const char> as_tensor(const ConstView& view, int rank) {
    Tensor<const char> t{nullptr, view.strides[0], view.strides[1], {}};
    for (int i = 0; i < rank; ++i)
        t.along[axes - rank + i] = view.strides[2 + i];
    return t;
}

// ---- lanes ----------------------------------------------------------------------------------------------------------

int LaneBlocks::row_of(int block, int lanes) const {
    return block < full_per_group ? block * lanes : full_per_group * lanes + (block - full_per_group) * tail_lanes;
}
int LaneBlocks::rows_per_group(int lanes) const {
    return row_of(per_group, lanes);
}

bool use_lanewise(const Layer& layer, int lanes) {
    if (layer.groups == 1 || layer.in_per_group() != 1) return false;
    const std::int64_t multiplier = layer.out_per_group();
    return ceil_div(layer.groups, lanes) * multiplier <= layer.groups * ceil_div(multiplier, lanes);
}

namespace {

using Phases = std::vector<Index>;

Phases kernel_phases_of(const Layer& layer) {
    Phases phases;
    for (std::int64_t i = 0; i < layer.kernel_phases(); ++i)
        phases.push_back(
            unravel(i, {layer.axis[0].kernel_phases, layer.axis[1].kernel_phases, layer.axis[2].kernel_phases}));
    return phases;
}

// Blocks of each layer group's channels, every chunk once per phase.
LaneBlocks matrix_blocks(std::int64_t groups, std::int64_t channels, int lanes, const Phases& phases) {
    LaneBlocks result;
    result.groups = static_cast<int>(groups);
    for (std::int64_t g = 0; g < groups; ++g)
        for (std::int64_t c = 0; c < channels; c += lanes)
            for (const auto& phase : phases)
                result.blocks.push_back(
                    {g * channels + c, 1, static_cast<int>(std::min<std::int64_t>(lanes, channels - c)), phase});
    result.per_group = static_cast<int>(ceil_div(channels, lanes)) * static_cast<int>(phases.size());
    result.full_per_group = static_cast<int>(channels / lanes) * static_cast<int>(phases.size());
    result.tail_lanes = static_cast<int>(channels % lanes);
    return result;
}

// Blocks of layer groups, each once per phase and per channel of the group.
LaneBlocks lanewise_blocks(std::int64_t groups, std::int64_t channels, int lanes, const Phases& phases) {
    LaneBlocks result;
    result.groups = static_cast<int>(ceil_div(groups, lanes));
    for (std::int64_t g = 0; g < groups; g += lanes)
        for (std::int64_t j = 0; j < channels; ++j)
            for (const auto& phase : phases)
                result.blocks.push_back(
                    {g * channels + j, channels, static_cast<int>(std::min<std::int64_t>(lanes, groups - g)), phase});
    result.per_group = static_cast<int>(channels) * static_cast<int>(phases.size());
    result.full_per_group = 0;
    result.tail_lanes = 1;  // a lane-wise product reduces over blocks, not over lanes
    return result;
}

// Every channel a block, once per phase: all lanes hold the same one.
LaneBlocks tile_blocks(std::int64_t groups, std::int64_t channels, int lanes, const Phases& phases) {
    LaneBlocks result;
    result.groups = static_cast<int>(groups);
    for (std::int64_t c = 0; c < groups * channels; ++c)
        for (const auto& phase : phases)
            result.blocks.push_back({c, 0, lanes, phase});
    result.per_group = static_cast<int>(channels) * static_cast<int>(phases.size());
    result.tail_lanes = 1;
    return result;
}

}  // namespace

LaneBlocks lane_blocks(const Layer& layer, int lanes, LaneKind kind, bool of_input) {
    if (kind == LaneKind::tiles)
        return tile_blocks(layer.groups, of_input ? layer.in_per_group() : layer.out_per_group(), lanes,
                           of_input ? kernel_phases_of(layer) : Phases{{}});
    const bool lanewise = kind == LaneKind::groups;
    return of_input ? input_blocks(layer, lanes, lanewise, true) : output_blocks(layer, lanes, lanewise);
}

LaneBlocks input_blocks(const Layer& layer, int lanes, bool lanewise, bool phases) {
    return (lanewise ? lanewise_blocks : matrix_blocks)(layer.groups, layer.in_per_group(), lanes,
                                                        phases ? kernel_phases_of(layer) : Phases{{}});
}

LaneBlocks output_blocks(const Layer& layer, int lanes, bool lanewise) {
    return (lanewise ? lanewise_blocks : matrix_blocks)(layer.groups, layer.out_per_group(), lanes, {{}});
}

}  // namespace triconv
