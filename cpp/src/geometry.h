// The reduction of every layer to dense, stride-1 correlations, shared by all algorithms.
//
// Along one axis, forward reads x[o * stride + r * dilation - pad]. With g = gcd(stride, dilation), write
//
//   o = rho + j * out_step,   r = phi + q * tap_step,   out_step = dilation / g,  tap_step = stride / g
//   o * stride + r * dilation - pad = (rho * stride + phi * dilation - pad) + (j + q) * lcm(stride, dilation)
//
// so for each *output phase* rho and *kernel phase* phi, the sub-grid of x with that offset and step is correlated
// densely with the taps of phase phi. Output phases are independent (they act like images of the batch); kernel phases
// are summed (they act like input channels). No two (rho, phi) meet the same sample of x, so the gradient with respect
// to x decomposes the same way. Stride 1 and dilation 1 have one phase each.
//
// All layers are treated as 3-D; missing outer axes have extent 1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "triconv/triconv.hpp"

namespace triconv {

inline constexpr int axes = max_rank;
using Index = std::array<std::int64_t, axes>;

// How an axis of x goes on outside its array: the positions in [begin, end), which include all that are read, by the
// boundary; others, and those of a constant boundary, hold `fill`.
struct Extension {
    Boundary boundary = Boundary::constant;
    double fill = 0;
    std::int64_t begin = 0, end = 0;

    bool zeros() const { return boundary == Boundary::constant && fill == 0; }
    // The sample of an axis of `size` samples that a position holds; negative: the fill.
    std::int64_t sample_at(std::int64_t position, std::int64_t size) const {
        return position >= 0 && position < size ? position : sample_outside(position, size);
    }

private:
    std::int64_t sample_outside(std::int64_t position, std::int64_t size) const;
};

struct Axis {
    std::int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad = 0;
    std::int64_t step = 1, out_step = 1, tap_step = 1;
    std::int64_t output_phases = 1, kernel_phases = 1;  // those with any output, with any tap
    std::int64_t taps = 1;                              // of kernel phase 0, which has the most
    Extension outside = {};

    // Behind the last position that an output reads; the first one is -pad.
    std::int64_t read_end() const { return (out - 1) * stride + (kernel - 1) * dilation - pad + 1; }
    std::int64_t taps_of(std::int64_t phi) const { return (kernel - phi + tap_step - 1) / tap_step; }
};

struct TapRange {
    std::int64_t begin, end;
};

struct Layer {
    explicit Layer(const Problem& problem);  // expects a validated problem

    DType dtype;
    int rank;
    std::int64_t batch, in_channels, out_channels, groups;
    std::array<Axis, axes> axis;

    // Whether padding is read that is not zeros.
    bool extended() const { return !axis[axes - 1].outside.zeros(); }
    Boundary boundary() const { return axis[axes - 1].outside.boundary; }
    Layer zero_padded() const;
    Layer with_taps(const std::array<TapRange, axes>& used) const;  // of them only; for padding of zeros

    std::int64_t in_per_group() const { return in_channels / groups; }
    std::int64_t out_per_group() const { return out_channels / groups; }
    std::int64_t output_phases() const;
    std::int64_t kernel_phases() const;
    std::int64_t outputs() const;  // samples of one output channel of one image
    std::int64_t inputs() const;
    std::int64_t taps() const;  // kernel samples of one channel pair
    // The same along each axis.
    Index output_extent() const { return {axis[0].out, axis[1].out, axis[2].out}; }
    Index input_extent() const { return {axis[0].in, axis[1].in, axis[2].in}; }
    Index kernel_extent() const { return {axis[0].kernel, axis[1].kernel, axis[2].kernel}; }
};

// Samples t, t + 1, ..., end - 1 of a sub-grid that are a constant step apart in the array, the first at `index`;
// negative: all hold the fill.
struct SampleRun {
    std::int64_t end, index, step;
};

// Positions offset, offset + step, ... of an axis with `size` samples.
struct SubGrid {
    std::int64_t offset, step, size;
    Extension outside = {};

    std::int64_t index(std::int64_t t) const { return offset + step * t; }
    bool contains(std::int64_t t) const { return index(t) >= 0 && index(t) < size; }
    std::int64_t sample(std::int64_t t) const { return outside.sample_at(index(t), size); }
    // The run from t on, cut off at `end`.
    SampleRun run_from(std::int64_t t, std::int64_t end) const;
    // The t in [begin, end) whose position is in the array are [first, last).
    void clip(std::int64_t begin, std::int64_t end, std::int64_t& first, std::int64_t& last) const;
};
SubGrid input_grid(const Axis& axis, std::int64_t rho, std::int64_t phi);
SubGrid output_grid(const Axis& axis, std::int64_t rho);

// The part of an input sub-grid in the array, in t, that some output reads: [begin, end), joined over all phases.
struct Range {
    std::int64_t begin, end;
};
Range input_support(const Axis& axis);
// An axis whose array is the positions [begin, end), which may be padding, as far as they are read: the outputs and taps
// that meet them. Its first sample, output and tap are those at `position`, `output` and `tap` of the whole axis.
struct AxisPart {
    Axis axis;
    std::int64_t position = 0, output = 0, tap = 0;
    bool empty = true;  // nothing is read
};
AxisPart part_of(const Axis& axis, std::int64_t begin, std::int64_t end);
// Taps of which those that meet the array are: the others meet padding only, whichever the output.
TapRange used_taps(const Axis& axis);

// Whether every sample of x is read by some output: else input_grad must write zeros first.
bool input_covered(const Axis& axis);
bool input_covered(const Layer& layer);

// ---- arrays ---------------------------------------------------------------------------------------------------------

template <class E>
struct Tensor {
    E* data;
    std::ptrdiff_t outer, inner;  // batch and channel; of weights: output and input channel
    std::array<std::ptrdiff_t, axes> along;

    std::ptrdiff_t offset_of(const Index& i) const { return i[0] * along[0] + i[1] * along[1] + i[2] * along[2]; }
    E* address_of(std::int64_t n, std::int64_t channel, const Index& i) const {
        return data + n * outer + channel * inner + offset_of(i);
    }
    E& element(std::int64_t n, std::int64_t channel, const Index& i) const { return *address_of(n, channel, i); }
};
Tensor<const char> as_tensor(const ConstView& view, int rank);
template <class E>
Tensor<const E> as_tensor(const ConstView& view, int rank) {
    const Tensor<const char> t = as_tensor(view, rank);
    return {static_cast<const E*>(view.data), t.outer, t.inner, t.along};
}
template <class E>
Tensor<E> as_tensor(const View& view, int rank) {
    const Tensor<const char> t = as_tensor(ConstView(view), rank);
    return {static_cast<E*>(view.data), t.outer, t.inner, t.along};
}

// ---- lanes ----------------------------------------------------------------------------------------------------------

// What lanes hold: the channels of one group; one channel of each of several groups (depthwise layers); tiles, all of the
// same channel, where a layer has too few channels to fill them; or samples, of one tile (image_pass.h) or of planes in
// the arrays (dot_weight_grad.h).
enum class LaneKind : std::uint8_t { channels, groups, tiles, samples };

// What the lanes of one lane vector hold: `lanes` channels, channel_step apart, of one kernel phase of x. Lanes that hold
// tiles share their channel: channel_step is zero.
struct LaneBlock {
    std::int64_t channel, channel_step;
    int lanes;
    Index phase;
};

// The channels of a tensor cut into lane blocks. Blocks belong to groups that do not mix in the products: the layer's
// groups; or, lane-wise (depthwise layers), blocks of `lanes` layer groups. Within a group the blocks with all lanes
// in use come first, then those with tail_lanes. Lane-wise, and where lanes hold tiles, a channel is a block of its own.
struct LaneBlocks {
    std::vector<LaneBlock> blocks;
    int groups = 0, per_group = 0, full_per_group = 0, tail_lanes = 0;

    // Channels (times kernel phases) of one group up to a block: rows of the spectra that reduce over them.
    int row_of(int block_in_group, int lanes) const;
    int rows_per_group(int lanes) const;
};

// Lane-wise products put groups in lanes, matrix products put the channels of one group there; whichever needs fewer
// lane vectors. Lane-wise needs one input channel per group.
bool use_lanewise(const Layer& layer, int lanes);
// With phases, every block of channels comes once per kernel phase.
LaneBlocks input_blocks(const Layer& layer, int lanes, bool lanewise, bool phases);
LaneBlocks output_blocks(const Layer& layer, int lanes, bool lanewise);
// The same for lanes of any kind; of x with phases.
LaneBlocks lane_blocks(const Layer& layer, int lanes, LaneKind kind, bool of_input);

// ---- counting -------------------------------------------------------------------------------------------------------

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

inline std::int64_t round_up(std::int64_t count, std::int64_t unit) {
    return ceil_div(count, unit) * unit;
}

// Calls f(index) for all indices below an extent, last axis fastest; where f returns a bool, until that is false: whether it
// never was.
template <class F>
bool for_each_index(const Index& extent, F f) {
    Index i;
    for (i[0] = 0; i[0] < extent[0]; ++i[0])
        for (i[1] = 0; i[1] < extent[1]; ++i[1])
            for (i[2] = 0; i[2] < extent[2]; ++i[2])
                if constexpr (std::is_void_v<std::invoke_result_t<F, const Index&>>)
                    f(i);
                else if (!f(i))
                    return false;
    return true;
}

// Splits an index over extents, last one fastest.
inline Index unravel(std::int64_t index, const Index& extent) {
    Index result{};
    for (int a = axes - 1; a >= 0; --a) {
        if (extent[a] == 1) continue;  // mostly: saves a slow division
        result[a] = index % extent[a];
        index /= extent[a];
    }
    return result;
}

}  // namespace triconv
