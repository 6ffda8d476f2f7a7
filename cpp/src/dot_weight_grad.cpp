#include "dot_weight_grad.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "band_pass.h"
#include "band_product.h"
#include "engine.h"
#include "parallel.h"

namespace triconv {

namespace {

constexpr std::int64_t most_weights = 1 << 14;  // their sums, of some parts, stay in L2

// The sum in a lane runs over at most max_reduction pixels of a band; each row but those of one line starts at lane 0.
template <class E>
Bands dot_bands(const KernelTable<E>& kernels, const Layer& layer, const DenseConv& conv) {
    const std::int64_t lanes = kernels.lanes, longest_row = max_reduction * lanes,
                       width = std::clamp<std::int64_t>(conv[2].end - conv[2].begin, 1, longest_row);
    const std::int64_t rows = max_reduction / ceil_div(width, lanes),
                       pixels = conv[2].one_to_one() ? longest_row : rows * width;
    const std::int64_t channels = layer.in_per_group() + layer.out_per_group();
    return cut_bands(conv, channels * static_cast<std::int64_t>(sizeof(E)), pixels, longest_row);
}

bool reads_padding(const DenseConv& conv) {
    return std::any_of(conv.begin(), conv.end(),
                       [](const DenseAxis& axis) { return !axis.inside(axis.begin, axis.end - axis.begin); });
}

}  // namespace

template <class E>
double dot_weight_grad_ns(const KernelTable<E>& kernels, const Layer& layer) {
    // A lane vector of a dot; a byte of the arrays, and of the planes that are copied; a band's dot.
    const double vector = 0.5 * fma_steps(kernels), byte = 0.06, copied = 0.06, dot = 10;
    const std::int64_t pairs = layer.in_per_group() * layer.out_per_group();
    if (pairs * layer.groups > most_weights / layer.taps()) return std::numeric_limits<double>::infinity();
    const DenseConv conv = forward_conv(layer);
    const Bands bands = dot_bands(kernels, layer, conv);
    const auto groups = static_cast<double>(layer.batch * layer.groups);
    const double dots = static_cast<double>(pairs * layer.taps()),
                 planes = static_cast<double>((conv[0].end - conv[0].begin) * (conv[1].end - conv[1].begin));
    const double row_vectors = conv[2].one_to_one()
                                   ? static_cast<double>(conv[2].end - conv[2].begin) / kernels.lanes
                                   : static_cast<double>(bands.bands_x * ceil_div(bands.pixels, kernels.lanes));
    const auto count = static_cast<double>(band_count(conv, bands));
    const bool apart = conv[1].step != 1 || conv[2].step != 1;
    const double read =
        apart || reads_padding(conv)
            ? count * static_cast<double>(layer.in_per_group() * BandLayout(conv, bands.rows, bands.pixels).entries)
            : 0;
    const double elements =
        static_cast<double>(layer.in_per_group() * layer.inputs() + layer.out_per_group() * layer.outputs());
    return groups * (dots * (planes * row_vectors * vector + count * dot) +
                     static_cast<double>(sizeof(E)) * (elements * byte + read * copied));
}
template double dot_weight_grad_ns(const KernelTable<float>&, const Layer&);
template double dot_weight_grad_ns(const KernelTable<double>&, const Layer&);

template <class E>
DotWeightGrad<E>::DotWeightGrad(const KernelTable<E>& kernels, const Layer& layer)
    : PassAlgorithm<E>(layer, Pass::weight_grad),
      kernels_(kernels),
      conv_(forward_conv(layer)),
      outputs_(written_as_read(conv_)),
      bands_(dot_bands(kernels, layer, conv_)),
      x_is_a_(layer.taps() == 1 && layer.out_per_group() > layer.in_per_group()),
      one_line_(conv_[2].one_to_one() && bands_.bands_x == 1),
      x_layout_(one_line_ ? BandLayout(conv_, bands_.rows, bands_.pixels)
                          : planar_layout<E>(conv_, bands_.rows, bands_.pixels)),
      dy_layout_(outputs_, bands_.rows, bands_.pixels),
      buffered_taps_(x_layout_.entries_of_taps(conv_)),
      band_count_(layer.batch * band_count(conv_, bands_)) {
    // Parts are the tasks, and shorten the sums.
    const auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(band_count_)));
    parts_ = std::clamp<std::int64_t>(
        std::min(root, 4 * most_weights / std::max<std::int64_t>(1, weights_of_group() * layer.groups)), 1, 64);
}

template <class E>
std::int64_t DotWeightGrad<E>::weights_of_group() const {
    return layer_.in_per_group() * layer_.out_per_group() * layer_.taps();
}

template <class E>
WorkspaceNeed DotWeightGrad<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<double>(static_cast<std::size_t>(parts_ * layer_.groups * weights_of_group()));
    per_thread.add<E>(static_cast<std::size_t>(layer_.in_per_group() * odd_lines<E>(x_layout_.entries)));
    per_thread.add<E>(static_cast<std::size_t>(layer_.out_per_group() * odd_lines<E>(dy_layout_.entries)));
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

// Whether the rows of an array are as those of a buffer: sums must not depend on where they are.
template <class E>
bool DotWeightGrad<E>::rows_fit(const Tensor<const E>& tensor, const BandTask& band) const {
    return tensor.along[2] == 1 && (!one_line_ || band.rows == 1 || tensor.along[1] == band.pixels);
}

template <class E>
bool DotWeightGrad<E>::x_in_place(const Tensor<const E>& x, const BandTask& band) const {
    return rows_fit(x, band) && conv_[1].step == 1 && conv_[2].step == 1 && conv_[0].inside(band.t[0], 1) &&
           conv_[1].inside(band.t[1], band.rows) && conv_[2].inside(band.t[2], band.pixels);
}

template <class E>
auto DotWeightGrad<E>::read_planes(const Tensor<const E>& tensor, const DenseConv& conv, const BandLayout& layout,
                                   std::int64_t first_channel, std::int64_t channels, const BandTask& band,
                                   E* buffer) const -> Planes {
    const std::ptrdiff_t stride = odd_lines<E>(layout.entries);
    for (std::int64_t c = 0; c < channels; ++c)
        read_plane(kernels_, tensor, band.n, first_channel + c, conv, layout, band.t, tensor.inner,
                   buffer + c * stride);
    return {buffer, stride, layout.pixels};
}

// The offsets of b in all dots with a channel of a.
template <class E>
std::vector<std::ptrdiff_t> DotWeightGrad<E>::b_offsets(std::ptrdiff_t channel,
                                                        const std::vector<std::ptrdiff_t>& taps) const {
    std::vector<std::ptrdiff_t> offsets;
    for (std::int64_t c = 0; c < (x_is_a_ ? layer_.out_per_group() : layer_.in_per_group()); ++c)
        for (const std::ptrdiff_t tap : taps)
            offsets.push_back(c * channel + tap);
    return offsets;
}

template <class E>
void DotWeightGrad<E>::add_dots(const BandTask& band, const Planes& a, const Planes& b,
                                const std::vector<std::ptrdiff_t>& offsets, double* sums) const {
    constexpr std::size_t most_dots = 64;
    E dots[most_dots];
    DotArgs<E> args{};
    args.b = b.first;
    args.sums = dots;
    args.a_row = a.row;
    args.b_row = b.row;
    args.rows = one_line_ ? 1 : band.rows;
    args.count = one_line_ ? band.rows * band.pixels : band.pixels;
    const std::int64_t channels = x_is_a_ ? layer_.in_per_group() : layer_.out_per_group();
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        args.a = a.first + channel * a.channel;
        for (std::size_t first = 0; first < offsets.size(); first += most_dots) {
            args.b_offset = offsets.data() + first;
            args.dots = static_cast<int>(std::min(most_dots, offsets.size() - first));
            kernels_.dots(args);
            for (int t = 0; t < args.dots; ++t)
                *sums++ += static_cast<double>(dots[t]);
        }
    }
}

template <class E>
RunCounts DotWeightGrad<E>::compute(const Operands<E>& operands, int slots, char* workspace, Damage&) const {
    const WorkspaceNeed need = this->workspace();
    double* const all_sums = reinterpret_cast<double*>(workspace);
    const std::int64_t weights = weights_of_group(), in = layer_.in_per_group(), out = layer_.out_per_group();
    const Tensor<const E>&x = operands.x, &dy = operands.dy;
    // Where dy is b, there is one tap.
    const auto in_array =
        b_offsets(x_is_a_ ? dy.inner : x.inner, x_layout_.of_array(conv_, x.along).entries_of_taps(conv_));
    const auto buffered = b_offsets(odd_lines<E>(x_is_a_ ? dy_layout_.entries : x_layout_.entries), buffered_taps_);
    parallel_for(parts_ * layer_.groups, slots, [&](std::int64_t index, int slot) {
        const std::int64_t group = index / parts_, part = index % parts_;
        E* const x_buffer = reinterpret_cast<E*>(workspace + need.fixed + need.per_thread * slot);
        E* const dy_buffer = x_buffer + in * odd_lines<E>(x_layout_.entries);
        double* const sums = all_sums + index * weights;
        std::fill_n(sums, weights, 0.0);
        for (std::int64_t b = part * band_count_ / parts_; b < (part + 1) * band_count_ / parts_; ++b) {
            const BandTask band = band_task(conv_, bands_, 1, b);
            if (band.rows == 0 || band.pixels == 0) continue;
            const bool x_in_array = x_in_place(x, band), dy_in_array = rows_fit(dy, band);
            const Planes x_planes =
                x_in_array ? Planes{first_sample(x, conv_, band.n, group * in, band.t), x.inner, x.along[1]}
                           : read_planes(x, conv_, x_layout_, group * in, in, band, x_buffer);
            const Planes dy_planes =
                dy_in_array ? Planes{first_output(dy, conv_, band.n, group * out, band.t), dy.inner, dy.along[1]}
                            : read_planes(dy, outputs_, dy_layout_, group * out, out, band, dy_buffer);
            if (x_is_a_)
                add_dots(band, x_planes, dy_planes, dy_in_array ? in_array : buffered, sums);
            else
                add_dots(band, dy_planes, x_planes, x_in_array ? in_array : buffered, sums);
        }
    });
    return {0, write(operands, all_sums, slots)};
}

// Sums to dw; the number of pairs of channels computed again.
template <class E>
std::int64_t DotWeightGrad<E>::write(const Operands<E>& operands, const double* sums, int slots) const {
    const Tensor<E>& dw = operands.dw;
    const std::int64_t weights = weights_of_group(), in = layer_.in_per_group(), out = layer_.out_per_group(),
                       taps = layer_.taps();
    const Index kernel{conv_[0].taps, conv_[1].taps, conv_[2].taps};
    std::vector<std::int64_t> recomputed(static_cast<std::size_t>(slots), 0);
    parallel_for(layer_.groups * out * in, slots, [&](std::int64_t pair, int slot) {
        const std::int64_t group = pair / (out * in), k = pair / in % out, c = pair % in;
        const double* const of_pair = sums + group * parts_ * weights + (x_is_a_ ? c * out + k : (k * in + c) * taps);
        bool finite = true;
        for (std::int64_t tap = 0; tap < taps; ++tap) {
            double sum = 0;
            for (std::int64_t part = 0; part < parts_; ++part)
                sum += of_pair[part * weights + tap];
            E& weight = dw.element(group * out + k, c, unravel(tap, kernel));
            weight = static_cast<E>(sum);
            finite = finite && std::isfinite(weight);
        }
        if (finite) return;
        ++recomputed[static_cast<std::size_t>(slot)];
        recompute_weight_grad(layer_, operands, {group * in + c, 1, 1, {}}, {group * out + k, 1, 1, {}}, false,
                              {0, 0, 0}, {1, 1, 1});
    });
    return std::accumulate(recomputed.begin(), recomputed.end(), std::int64_t{0});
}

template class DotWeightGrad<float>;
template class DotWeightGrad<double>;

}  // namespace triconv
