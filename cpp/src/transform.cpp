#include "transform.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>
#include <type_traits>

#include "workspace.h"

namespace triconv {

std::string TileShape::name(int rank) const {
    std::string text = fft ? "fft:" : "winograd:";
    for (int a = axes - rank; a < axes; ++a) {
        if (a > axes - rank) text += 'x';
        text += std::to_string(fft ? transform[a] : outputs[a]);
    }
    return text;
}

template <class E>
double fft_gain(const KernelTable<E>& kernels, int length, bool complex) {
    constexpr int longest = 1 << 12;         // that is measured: the errors of the factors of a length add up
    constexpr std::ptrdiff_t enough = 4096;  // samples, for 1e-9 in float32
    if (length > longest) {
        int factor = longest;
        while (length % factor != 0)
            --factor;
        return factor == 1 ? length : fft_gain(kernels, factor, complex) * fft_gain(kernels, length / factor, complex);
    }
    const auto line = [&](LineKind real, LineKind of_complex) {
        return kernels.fft_line(complex ? of_complex : real, length, length, length);
    };
    const LineTransform<E> forth = line(LineKind::fft_real, LineKind::fft_complex),
                           back = line(LineKind::fft_real_inverse, LineKind::fft_complex_inverse);
    using Wide = std::conditional_t<std::is_same_v<E, float>, double, long double>;
    const std::ptrdiff_t lanes = kernels.lanes, im = length * lanes, size = complex ? 2 * im : im;
    const Workspace memory(static_cast<std::size_t>(3 * size) * sizeof(E));
    E *const samples = static_cast<E*>(memory.data()), *const spectrum = samples + size,
             *const result = spectrum + size;
    std::mt19937 random;
    Wide products = 0, squares = 0;
    while (squares < enough) {
        for (std::ptrdiff_t i = 0; i < size; i += lanes) {
            const auto bits = random();
            for (std::ptrdiff_t l = 0; l < lanes; ++l)
                samples[i + l] = bits >> l & 1 ? E(1) : E(-1);
        }
        forth({samples, spectrum, lanes, lanes, im, im});
        back({spectrum, result, lanes, lanes, im, im});
        products += std::inner_product(samples, samples + size, result, Wide(0));
        squares += static_cast<Wide>(size);
    }
    // Each of the three transforms has half the error of two.
    const Wide of_two = products / (squares * length) - 1;
    return length * static_cast<double>(1 + of_two * 3 / 2);
}

// Samples are real along the innermost axis that has any.
template <class E>
double fft_scale(const KernelTable<E>& kernels, const std::array<int, axes>& lengths) {
    double gain = 1;
    bool complex = false;
    for (int a = axes - 1; a >= 0; --a) {
        if (lengths[a] == 1) continue;
        gain *= fft_gain(kernels, lengths[a], complex);
        complex = true;
    }
    return 1 / gain;
}

template <class E>
AxisLines<E> axis_lines(const KernelTable<E>& kernels, const TileShape& shape, TileRole role, int axis, bool first) {
    const int t = shape.transform[axis], m = shape.outputs[axis], r = shape.taps[axis];
    AxisLines<E> lines;
    if (shape.fft) {
        int n_in = t, n_out = t;
        switch (role) {
            case TileRole::read_tile:
                break;
            case TileRole::read_kernel:
                n_in = r;
                break;
            case TileRole::read_grad:
                n_in = m;
                break;
            case TileRole::write_tile:
                n_out = m;
                break;
            case TileRole::add_tile:
                break;
            case TileRole::write_kernel:
                n_out = r;
                break;
        }
        const bool inverse =
            role == TileRole::write_tile || role == TileRole::add_tile || role == TileRole::write_kernel;
        lines.real = kernels.fft_line(inverse ? LineKind::fft_real_inverse : LineKind::fft_real, t, n_in, n_out);
        if (!first)
            lines.complex =
                kernels.fft_line(inverse ? LineKind::fft_complex_inverse : LineKind::fft_complex, t, n_in, n_out);
        lines.count = inverse ? n_out : n_in;
        lines.extent =
            inverse ? std::max(lines.real.n_out, lines.complex.n_out) : std::max(lines.real.n_in, lines.complex.n_in);
        return lines;
    }
    static constexpr LineKind kinds[tile_role_count] = {LineKind::winograd_data,     LineKind::winograd_kernel,
                                                        LineKind::winograd_output,   LineKind::winograd_data_t,
                                                        LineKind::winograd_kernel_t, LineKind::winograd_output_t};
    lines.real = kernels.winograd_line(kinds[static_cast<int>(role)], m, r);
    if (!lines.real.run) throw std::logic_error("no Winograd transform of this size");
    const bool whole = role == TileRole::read_tile || role == TileRole::add_tile;
    const bool taps = role == TileRole::read_kernel || role == TileRole::write_kernel;
    lines.count = lines.extent = whole ? t : taps ? r : m;
    return lines;
}

template <class E>
TileTransform<E>::TileTransform(const KernelTable<E>& kernels, const TileShape& shape)
    : shape_(shape), lanes_(kernels.lanes) {
    for (int a = axes - 1; a >= 0; --a)
        if (shape.transform[a] > 1) levels_.push_back(a);
    rest_.assign(levels_.size(), 1);
    for (int level = static_cast<int>(levels_.size()) - 1; level >= 0; --level) {
        rest_[level] = planes_;
        planes_ *= shape.transform[levels_[level]];
    }
    const int first = levels_.empty() ? axes - 1 : levels_.front();
    if (shape.fft) scale_ = fft_scale(kernels, shape.transform);
    for (int i = 0; i < tile_role_count; ++i)
        for (int a = 0; a < axes; ++a) {
            roles_[i].lines[a] = axis_lines(kernels, shape, static_cast<TileRole>(i), a, a == first);
            roles_[i].count[a] = roles_[i].lines[a].count;
            roles_[i].extent[a] = roles_[i].lines[a].extent;
        }
    list_bins(0, 0, false);
    list_bin_runs();
    for (const Role& role : roles_) {
        std::size_t size = 0;
        for (std::size_t level = 0; level + 1 < levels_.size(); ++level)
            size += level_size(role, level);
        scratch_size_ = std::max(scratch_size_, size);
    }
}

template <class E>
void TileTransform<E>::list_bins(std::size_t level, int plane, bool complex) {
    if (complex) {
        const int count = level < levels_.size() ? rest_[level] * shape_.transform[levels_[level]] : 1;
        for (int i = 0; i < count; ++i)
            bins_.push_back({plane + 2 * i, true});
        return;
    }
    if (level == levels_.size()) {
        bins_.push_back({plane, false});
        return;
    }
    const int length = shape_.transform[levels_[level]];
    for (int q = 0; q < length;) {
        const bool pair = is_pair(q, length);
        list_bins(level + 1, plane + q * rest_[level], pair);
        q += pair ? 2 : 1;
    }
}

template <class E>
void TileTransform<E>::list_bin_runs() {
    constexpr int longest = 64;  // runs are tasks, too
    for (const Bin& bin : bins_) {
        if (bin_runs_.empty() || bin_runs_.back().complex != bin.complex || bin_runs_.back().count == longest)
            bin_runs_.push_back({bin.plane, 0, bin.complex});
        ++bin_runs_.back().count;
    }
}

// Elements of the scratch buffer that a level has for one line: T values. An odd number of lane vectors: the next level
// reads across the lines, and strides of many lines by a power of two would all fall into a few sets of the cache.
template <class E>
std::ptrdiff_t TileTransform<E>::line_size(std::size_t level, bool complex) const {
    return (shape_.transform[levels_[level]] * (complex ? 2 : 1) | 1) * std::ptrdiff_t{lanes_};
}

// Scratch of one level: a line (complex from level 1 on) for each index of the outer axes.
template <class E>
std::size_t TileTransform<E>::level_size(const Role& role, std::size_t level) const {
    std::size_t size = static_cast<std::size_t>(line_size(level, level > 0));
    for (std::size_t outer = level + 1; outer < levels_.size(); ++outer)
        size *= role.extent[levels_[outer]];
    return size;
}

// Values to be transformed along the axes from one level on: `count` boxes, and their spectra in as many runs of planes.
template <class E>
struct TileTransform<E>::Boxes {
    bool complex;
    std::array<std::ptrdiff_t, axes> strides;  // of the box
    std::ptrdiff_t im;                         // of the box, complex
    int count = 1;
    std::ptrdiff_t box_step = 0, spectrum_step = 0;
};

// The lines of one level of one box: how they lie in it and in the scratch buffer, where the next level finds them.
template <class E>
struct TileTransform<E>::LineLoop {
    int count[2] = {1, 1};                            // lines that hold data
    int extent[2] = {1, 1};                           // lines the next level reads or writes
    std::ptrdiff_t stride[2] = {0, 0};                // in the box
    std::array<std::ptrdiff_t, axes> next_strides{};  // in the scratch buffer
    std::ptrdiff_t line_size, size;                   // of the scratch buffer, elements

    // Calls f(offset in the box, in the scratch buffer) for each run of count[0] lines.
    template <class F>
    void for_each_run(F f) const {
        for (int j = 0; j < count[1]; ++j)
            f(j * stride[1], j * extent[0] * line_size);
    }
};

template <class E>
auto TileTransform<E>::line_loop(const Role& role, std::size_t level, const Boxes& boxes) const -> LineLoop {
    LineLoop loop;
    loop.line_size = loop.size = line_size(level, boxes.complex);
    for (std::size_t outer = level + 1; outer < levels_.size(); ++outer) {
        const int a = levels_[outer], slot = static_cast<int>(outer - level - 1);
        loop.count[slot] = role.count[a];
        loop.extent[slot] = role.extent[a];
        loop.stride[slot] = boxes.strides[a];
        loop.next_strides[a] = loop.size;
        loop.size *= role.extent[a];
    }
    return loop;
}

// What one level's lines leave to the next, or take from it: each of their values, for all outer indices, is a box.
// Calls run(boxes, offset in the scratch buffer, in the spectrum) for values of one kind that follow each other.
template <class E>
template <class Run>
void TileTransform<E>::for_runs_of_values(std::size_t level, const Boxes& boxes, const LineLoop& loop,
                                          std::ptrdiff_t plane_stride, const Run& run) const {
    const int length = shape_.transform[levels_[level]] * (boxes.complex ? 2 : 1);
    for (int q = 0; q < length;) {
        const bool pair = boxes.complex || is_pair(q, length);
        const int width = pair ? 2 : 1;
        int end = q + width;
        while (end < length && (boxes.complex || is_pair(end, length)) == pair)
            end += width;
        run(Boxes{pair, loop.next_strides, lanes_, (end - q) / width, width * std::ptrdiff_t{lanes_},
                  width * rest_[level] * plane_stride},
            q * std::ptrdiff_t{lanes_}, q * rest_[level] * plane_stride);
        q = end;
    }
}

template <class E>
void TileTransform<E>::forward(TileRole role, const E* tile, const std::array<std::ptrdiff_t, axes>& strides,
                               E* spectrum, std::ptrdiff_t plane_stride, E* scratch, const TileSeries& series) const {
    forward_level(roles_[static_cast<int>(role)], 0,
                  {false, strides, 0, series.count, series.tile_step, series.spectrum_step}, tile, spectrum,
                  plane_stride, scratch);
}

template <class E>
void TileTransform<E>::forward_level(const Role& role, std::size_t level, const Boxes& boxes, const E* in, E* out,
                                     std::ptrdiff_t plane_stride, E* scratch) const {
    if (levels_.empty()) {
        for (int i = 0; i < boxes.count; ++i)
            std::copy_n(in + i * boxes.box_step, lanes_, out + i * boxes.spectrum_step);
        return;
    }
    const int axis = levels_[level], width = boxes.complex ? 2 : 1;
    const LineTransform<E>& line = boxes.complex ? role.lines[axis].complex : role.lines[axis].real;
    if (level + 1 == levels_.size()) {
        line({in, out, boxes.strides[axis], width * plane_stride, boxes.im, plane_stride, boxes.count, boxes.box_step,
              boxes.spectrum_step});
        return;
    }
    const LineLoop loop = line_loop(role, level, boxes);
    if (loop.count[0] < loop.extent[0] || loop.count[1] < loop.extent[1]) std::fill_n(scratch, loop.size, E(0));
    for (int i = 0; i < boxes.count; ++i, in += boxes.box_step, out += boxes.spectrum_step) {
        loop.for_each_run([&](std::ptrdiff_t in_box, std::ptrdiff_t in_scratch) {
            line({in + in_box, scratch + in_scratch, boxes.strides[axis], lanes_ * width, boxes.im, lanes_,
                  loop.count[0], loop.stride[0], loop.line_size});
        });
        for_runs_of_values(level, boxes, loop, plane_stride,
                           [&](const Boxes& values, std::ptrdiff_t in_scratch, std::ptrdiff_t in_spectrum) {
                               forward_level(role, level + 1, values, scratch + in_scratch, out + in_spectrum,
                                             plane_stride, scratch + loop.size);
                           });
    }
}

template <class E>
void TileTransform<E>::inverse(TileRole role, const E* spectrum, std::ptrdiff_t plane_stride, E* tile,
                               const std::array<std::ptrdiff_t, axes>& strides, E* scratch,
                               const TileSeries& series) const {
    inverse_level(roles_[static_cast<int>(role)], 0,
                  {false, strides, 0, series.count, series.tile_step, series.spectrum_step}, spectrum, tile,
                  plane_stride, scratch);
}

template <class E>
void TileTransform<E>::inverse_level(const Role& role, std::size_t level, const Boxes& boxes, const E* in, E* out,
                                     std::ptrdiff_t plane_stride, E* scratch) const {
    if (levels_.empty()) {
        for (int i = 0; i < boxes.count; ++i)
            std::copy_n(in + i * boxes.spectrum_step, lanes_, out + i * boxes.box_step);
        return;
    }
    const int axis = levels_[level], width = boxes.complex ? 2 : 1;
    const LineTransform<E>& line = boxes.complex ? role.lines[axis].complex : role.lines[axis].real;
    if (level + 1 == levels_.size()) {
        line({in, out, width * plane_stride, boxes.strides[axis], plane_stride, boxes.im, boxes.count,
              boxes.spectrum_step, boxes.box_step});
        return;
    }
    const LineLoop loop = line_loop(role, level, boxes);
    for (int i = 0; i < boxes.count; ++i, in += boxes.spectrum_step, out += boxes.box_step) {
        for_runs_of_values(level, boxes, loop, plane_stride,
                           [&](const Boxes& values, std::ptrdiff_t in_scratch, std::ptrdiff_t in_spectrum) {
                               inverse_level(role, level + 1, values, in + in_spectrum, scratch + in_scratch,
                                             plane_stride, scratch + loop.size);
                           });
        loop.for_each_run([&](std::ptrdiff_t in_box, std::ptrdiff_t in_scratch) {
            line({scratch + in_scratch, out + in_box, lanes_ * width, boxes.strides[axis], lanes_, boxes.im,
                  loop.count[0], loop.line_size, loop.stride[0]});
        });
    }
}

template AxisLines<float> axis_lines(const KernelTable<float>&, const TileShape&, TileRole, int, bool);
template AxisLines<double> axis_lines(const KernelTable<double>&, const TileShape&, TileRole, int, bool);
template double fft_scale(const KernelTable<float>&, const std::array<int, axes>&);
template double fft_scale(const KernelTable<double>&, const std::array<int, axes>&);
template double fft_gain(const KernelTable<float>&, int, bool);
template double fft_gain(const KernelTable<double>&, int, bool);
template class TileTransform<float>;
template class TileTransform<double>;

}  // namespace triconv
