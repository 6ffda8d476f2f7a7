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

constexpr std::int64_t most_weights = 1 << 17, most_sums = 1 << 18;  // most_sums: of all parts

bool x_is_a(const Layer& layer) {  // the kernel passes over the planes of b for each block of those of a
    return layer.taps() == 1 && layer.out_per_group() > layer.in_per_group();
}

// Lane vectors of a plane that a sum in a lane runs over: few enough that a block of planes of a stays in L1.
template <class E>
std::int64_t most_vectors(const KernelTable<E>& kernels, const Layer& layer) {
    constexpr std::int64_t l1 = 24 << 10;
    const std::int64_t planes = x_is_a(layer) ? layer.in_per_group() : layer.out_per_group(),
                       vector = kernels.lanes * static_cast<std::int64_t>(sizeof(E));
    return std::min(std::int64_t{max_reduction},
                    l1 / vector / std::clamp<std::int64_t>(planes, 1, kernels.dots.most_planes));
}

// Each row but those of one line starts at lane 0.
template <class E>
Bands dot_bands(const KernelTable<E>& kernels, const Layer& layer, const DenseConv& conv) {
    const std::int64_t lanes = kernels.lanes, vectors = most_vectors(kernels, layer), longest_row = vectors * lanes,
                       width = std::clamp<std::int64_t>(conv[2].end - conv[2].begin, 1, longest_row);
    const std::int64_t rows = vectors / ceil_div(width, lanes),
                       pixels = conv[2].one_to_one() ? longest_row : rows * width;
    constexpr std::int64_t dy_bytes = 512 << 10, element = sizeof(E);
    const std::int64_t most_pixels = dy_bytes / element / std::max<std::int64_t>(1, layer.out_per_group());
    return cut_bands(conv, element * layer.in_per_group(), std::min(pixels, std::max(lanes, most_pixels)), longest_row);
}

template <class E>
DotRows dot_rows(const KernelTable<E>& kernels, const Layer& layer, const DenseConv& conv, const Bands& bands) {
    const std::int64_t lanes = kernels.lanes;
    DotRows rows;
    rows.one_line = conv[2].one_to_one() && bands.bands_x == 1;
    rows.count = rows.one_line ? 1 : bands.rows;
    rows.vectors = ceil_div(rows.one_line ? bands.rows * bands.pixels : bands.pixels, lanes);
    if (band_count(conv, bands) > 1) return rows;
    constexpr std::int64_t buffers = 1 << 20;  // bytes of x and dy
    const std::int64_t image = static_cast<std::int64_t>(sizeof(E)) *
                               (layer.in_per_group() * BandLayout(conv, bands.rows, bands.pixels).entries +
                                layer.out_per_group() * bands.rows * bands.pixels);
    const std::int64_t most =
        std::min(most_vectors(kernels, layer) / std::max<std::int64_t>(1, rows.count * rows.vectors),
                 buffers / std::max<std::int64_t>(1, image));
    rows.images = std::clamp<std::int64_t>(most, 1, std::max<std::int64_t>(1, layer.batch));
    return rows;
}

bool reads_padding(const DenseConv& conv) {
    return std::any_of(conv.begin(), conv.end(),
                       [](const DenseAxis& axis) { return !axis.inside(axis.begin, axis.end - axis.begin); });
}

}  // namespace

template <class E>
double dot_weight_grad_ns(const KernelTable<E>& kernels, const Layer& layer) {
    const std::int64_t in = layer.in_per_group(), out = layer.out_per_group();
    if (in * out * layer.groups > most_weights / layer.taps()) return std::numeric_limits<double>::infinity();
    const DenseConv conv = forward_conv(layer);
    const Bands bands = dot_bands(kernels, layer, conv);
    const DotRows rows = dot_rows(kernels, layer, conv, bands);
    const auto groups = static_cast<double>(layer.groups),
               count = static_cast<double>(layer.batch) * groups * static_cast<double>(band_count(conv, bands));
    const double planes = static_cast<double>(std::max<std::int64_t>(1, x_is_a(layer) ? in : out)),
                 dots = static_cast<double>(in * out * layer.taps());
    // A block of 5 planes and 5 dots, if there are as many.
    const double a = std::min(planes, 5.0), b = std::clamp(dots / planes, 1.0, 5.0);
    // Fitted to timings of 220 random passes (AVX-512), times 1.2, as other costs are above what they take today: a lane
    // vector of a dot, the fewer loads the larger its block; a row of a block; a band's dot; a weight. Then rows and bytes
    // that are copied, and bytes of the arrays, the more of them come from memory.
    const double row_dots = count * static_cast<double>(rows.count) * dots;
    const double products =
        row_dots * static_cast<double>(rows.vectors) * (0.08 + 0.8 * (1 / a + 1 / b)) * fma_steps(kernels) +
        row_dots / (a * b) * 3 + dots * (count / static_cast<double>(rows.images) * 4 + groups * 3.6);
    const BandLayout layout(conv, bands.rows, bands.pixels);
    const bool copied = conv[1].step != 1 || conv[2].step != 1 || reads_padding(conv);
    const double rows_copied =
                     copied ? count * static_cast<double>(in * layout.height * std::min(conv[2].step, conv[2].taps))
                            : 0,
                 bytes_copied = copied ? count * static_cast<double>(in * layout.entries) * sizeof(E) : 0;
    const double bytes = static_cast<double>(layer.batch * layer.groups) * sizeof(E) *
                         static_cast<double>(in * layer.inputs() + out * layer.outputs());
    constexpr double cached = 32 << 20;
    return products + rows_copied * 5 + bytes_copied * 0.016 + bytes * 0.035 * std::min(1.0, bytes / cached);
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
      x_is_a_(x_is_a(layer)),
      rows_(dot_rows(kernels, layer, conv_, bands_)),
      x_layout_(rows_.one_line ? BandLayout(conv_, bands_.rows, bands_.pixels)
                               : planar_layout<E>(conv_, bands_.rows, bands_.pixels)),
      dy_layout_(outputs_, bands_.rows, bands_.pixels),
      buffered_taps_(x_layout_.entries_of_taps(conv_)),
      band_count_(ceil_div(layer.batch, rows_.images) * band_count(conv_, bands_)) {
    // Parts are the tasks, and shorten the sums.
    const auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(band_count_)));
    parts_ = std::clamp<std::int64_t>(
        std::min(root, most_sums / std::max<std::int64_t>(1, weights_of_group() * layer.groups)), 1, 64);
}

template <class E>
std::int64_t DotWeightGrad<E>::weights_of_group() const {
    return layer_.in_per_group() * layer_.out_per_group() * layer_.taps();
}

template <class E>
WorkspaceNeed DotWeightGrad<E>::workspace() const {
    ArenaLayout fixed, per_thread;
    fixed.add<double>(static_cast<std::size_t>(parts_ * layer_.groups * weights_of_group()));
    per_thread.add<E>(static_cast<std::size_t>(rows_.images * layer_.in_per_group() * odd_lines<E>(x_layout_.entries)));
    per_thread.add<E>(
        static_cast<std::size_t>(rows_.images * layer_.out_per_group() * odd_lines<E>(dy_layout_.entries)));
    return {static_cast<std::int64_t>(fixed.size()), static_cast<std::int64_t>(per_thread.size())};
}

template <class E>
auto DotWeightGrad<E>::band_at(std::int64_t index) const -> Band {
    Band band{band_task(conv_, bands_, 1, index), 0};
    band.n *= rows_.images;
    band.images = std::min(rows_.images, layer_.batch - band.n);
    return band;
}

// Whether the rows of an array are as those of a buffer: sums must not depend on where they are.
template <class E>
bool DotWeightGrad<E>::rows_fit(const Tensor<const E>& tensor, const Band& band) const {
    return tensor.along[2] == 1 && (!rows_.one_line || band.rows == 1 || tensor.along[1] == band.pixels);
}

template <class E>
bool DotWeightGrad<E>::x_in_place(const Tensor<const E>& x, const Band& band) const {
    return rows_fit(x, band) && conv_[1].step == 1 && conv_[2].step == 1 && conv_[0].inside(band.t[0], 1) &&
           conv_[1].inside(band.t[1], band.rows) && conv_[2].inside(band.t[2], band.pixels);
}

template <class E>
auto DotWeightGrad<E>::read_planes(const Tensor<const E>& tensor, const DenseConv& conv, const BandLayout& layout,
                                   std::int64_t first_channel, std::int64_t channels, const Band& band, E* buffer) const
    -> Planes {
    const std::ptrdiff_t stride = odd_lines<E>(layout.entries);
    for (std::int64_t n = 0; n < band.images; ++n)
        for (std::int64_t c = 0; c < channels; ++c)
            read_plane(kernels_, tensor, band.n + n, first_channel + c, conv, layout, band.t, tensor.inner,
                       buffer + (n * channels + c) * stride);
    return {buffer, channels * stride, stride, layout.pixels};
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
void DotWeightGrad<E>::add_dots(const Band& band, const Planes& a, const Planes& b,
                                const std::vector<std::ptrdiff_t>& offsets, double* sums) const {
    DotArgs<E> args{};
    args.a = a.first;
    args.b = b.first;
    args.b_offset = offsets.data();
    args.sums = sums;
    args.a_plane = a.channel;
    args.a_image = a.image;
    args.b_image = b.image;
    args.a_row = a.row;
    args.b_row = b.row;
    args.images = band.images;
    args.rows = rows_.one_line ? 1 : band.rows;
    args.count = rows_.one_line ? band.rows * band.pixels : band.pixels;
    args.planes = static_cast<int>(x_is_a_ ? layer_.in_per_group() : layer_.out_per_group());
    args.dots = static_cast<int>(offsets.size());
    kernels_.dots.run(args);
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
        E* const dy_buffer = x_buffer + rows_.images * in * odd_lines<E>(x_layout_.entries);
        double* const sums = all_sums + index * weights;
        std::fill_n(sums, weights, 0.0);
        for (std::int64_t b = part * band_count_ / parts_; b < (part + 1) * band_count_ / parts_; ++b) {
            const Band band = band_at(b);
            if (band.rows == 0 || band.pixels == 0) continue;
            const bool x_in_array = x_in_place(x, band), dy_in_array = rows_fit(dy, band);
            const Planes x_planes =
                x_in_array ? Planes{first_sample(x, conv_, band.n, group * in, band.t), x.outer, x.inner, x.along[1]}
                           : read_planes(x, conv_, x_layout_, group * in, in, band, x_buffer);
            const Planes dy_planes =
                dy_in_array
                    ? Planes{first_output(dy, conv_, band.n, group * out, band.t), dy.outer, dy.inner, dy.along[1]}
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
    std::vector<std::ptrdiff_t> tap_offset;
    for (std::int64_t tap = 0; tap < taps; ++tap)
        tap_offset.push_back(dw.offset_of(unravel(tap, kernel)));
    std::vector<std::int64_t> recomputed(static_cast<std::size_t>(slots), 0);
    parallel_for(layer_.groups * out, slots, [&](std::int64_t channel, int slot) {
        const std::int64_t group = channel / out, k = channel % out;
        for (std::int64_t c = 0; c < in; ++c) {
            const double* of_pair = sums + group * parts_ * weights + (x_is_a_ ? c * out + k : (k * in + c) * taps);
            E* const to = dw.address_of(channel, c, {});
            bool finite = true;
            for (const std::ptrdiff_t offset : tap_offset) {
                double sum = 0;
                for (std::int64_t part = 0; part < parts_; ++part)
                    sum += of_pair[part * weights];
                ++of_pair;
                to[offset] = static_cast<E>(sum);
                finite = finite && std::isfinite(to[offset]);
            }
            if (finite) continue;
            ++recomputed[static_cast<std::size_t>(slot)];
            recompute_weight_grad(layer_, operands, {group * in + c, 1, 1, {}}, {channel, 1, 1, {}}, false, {0, 0, 0},
                                  {1, 1, 1});
        }
    });
    return std::accumulate(recomputed.begin(), recomputed.end(), std::int64_t{0});
}

template class DotWeightGrad<float>;
template class DotWeightGrad<double>;

}  // namespace triconv
