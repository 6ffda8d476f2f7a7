// Dense convolutions cut into bands of outputs, and the buffer of samples that a band reads: the common ground of the
// direct passes.
//
//   [z tap][y phase][x phase][row][pixel]        with the padding, as the boundary has it
//
// Samples a stride apart are neighbours: sample (y, x) is in phase (y mod step, x mod step), at row y / step and pixel
// x / step of it. A tap is then a constant offset into the buffer, neighbouring outputs of a row are neighbouring
// entries, and the outputs of a whole band are one line with gaps. Entries are lane vectors (channels in the lanes), or
// elements of one channel (planar).
#pragma once

#include <array>
#include <vector>

#include "geometry.h"
#include "kernel_table.h"
#include "recompute.h"

namespace triconv {

// Outputs target[t] = sum over taps q of source[t * step + q * tap_step] * weights[first_tap + q * tap_stride].
struct DenseAxis {
    SubGrid source, target;
    std::int64_t begin, end;  // t
    std::int64_t step, tap_step;
    std::int64_t taps, first_tap, tap_stride;

    // First sample (in source t) and number of samples that `count` outputs from `t` read.
    std::int64_t first_sample(std::int64_t t) const;
    std::int64_t samples(std::int64_t count) const;
    std::int64_t sample_of_tap(std::int64_t q) const;           // from the first sample on, for the first output
    bool inside(std::int64_t t, std::int64_t count) const;      // whether all samples that they read are in the array
    bool one_to_one() const { return taps == 1 && step == 1; }  // each output reads a sample of its own
};
using DenseConv = std::array<DenseAxis, axes>;

DenseConv forward_conv(const Layer& layer);
DenseConv written_as_read(const DenseConv& conv);  // reads its outputs as they are
// Those of forward or input_grad: of the latter one for each pair of phases of a strided axis that meet any sample of x.
std::vector<DenseConv> dense_convs(const Layer& layer, Pass pass);

// Convolutions of a layer that read the same samples, and whose outputs take turns along a row: the phases of an
// input_grad's stride along x.
struct JoinedConv {
    DenseConv conv;                 // reads what any of them does; its outputs t are those of all
    std::vector<DenseConv> phases;  // ordered by where output 0 is
    DenseConv written;              // as conv, but its outputs along x are those of all phases: t * phases + phase

    // Entries from the first sample of an output to the first that a phase reads: it may have fewer taps than others.
    std::int64_t first_entry(const DenseConv& phase) const {
        return conv[2].sample_of_tap(0) - phase[2].sample_of_tap(0);
    }
};
// Joins those that can be; others are alone. All phases of a row are written at once: pixels that are neighbours, instead
// of every stride-th one several times.
std::vector<JoinedConv> join_phases(const std::vector<DenseConv>& convs);

// How the outputs of a dense convolution are cut into bands: along y and x; z is done plane by plane.
struct Bands {
    std::int64_t rows = 1, pixels = 1;  // of one band at most
    std::int64_t bands_y = 1, bands_x = 1;
};
Bands cut_bands(const DenseConv& conv, std::int64_t bytes_per_entry, std::int64_t most_outputs = 256,
                std::int64_t longest_row = 256);

// One band of a group of channels of an image, in rows of one plane.
struct BandTask {
    std::int64_t n;
    int group;
    Index t;  // first output
    std::int64_t rows, pixels;
};
std::int64_t band_count(const DenseConv& conv, const Bands& bands);  // of one group of one image
// Bands are counted first, then groups, then images. Bands at the end may be smaller.
BandTask band_task(const DenseConv& conv, const Bands& bands, int groups, std::int64_t index);

// The buffer of a band of `rows` x `pixels` outputs; gap: entries more than needed in each row of a phase.
struct BandLayout {
    BandLayout() = default;
    BandLayout(const DenseConv& conv, std::int64_t rows, std::int64_t pixels, std::int64_t gap = 0);

    std::int64_t height = 0;            // rows of samples
    std::int64_t rows = 0, pixels = 0;  // of one phase; pixels: also the entries between two rows of outputs
    std::int64_t phase_entries = 0, entries = 0;
    std::vector<bool> y_phase_used, x_phase_used;

    // The entry that a tap reads for the first output.
    std::ptrdiff_t entry_of_tap(const DenseConv& conv, const Index& tap) const;
    std::vector<std::ptrdiff_t> entries_of_taps(const DenseConv& conv) const;  // row-major

    // An array with such strides as if it were the buffer: planar, of outputs and taps without steps.
    BandLayout of_array(const DenseConv& conv, const std::array<std::ptrdiff_t, axes>& along) const;
};

// The taps ordered for the depthwise kernels: in runs along one axis (1 or 2) that read neighbouring samples.
struct TapOrder {
    TapOrder() = default;
    TapOrder(const DenseConv& conv, const BandLayout& layout, int axis, int lanes);

    std::vector<TapRun> runs;
    std::vector<std::int64_t> taps;  // row-major
    std::int64_t hop = 1;            // samples of a phase between those of two taps of a run
};

// Where the outputs from t on start, and the samples that they read of the first tap's plane, which may be outside.
template <class E>
E* first_output(const Tensor<E>& tensor, const DenseConv& conv, std::int64_t n, std::int64_t channel, const Index& t) {
    E* first = tensor.data + n * tensor.outer + channel * tensor.inner;
    for (int a = 0; a < axes; ++a)
        first += conv[a].target.index(t[a]) * tensor.along[a];
    return first;
}
template <class E>
E* first_sample(const Tensor<E>& tensor, const DenseConv& conv, std::int64_t n, std::int64_t channel, const Index& t) {
    E* first = tensor.data + n * tensor.outer + channel * tensor.inner + conv[0].sample_of_tap(0) * tensor.along[0];
    for (int a = 0; a < axes; ++a)
        first += conv[a].source.index(conv[a].first_sample(t[a])) * tensor.along[a];
    return first;
}

// Fills a buffer with the samples of one lane block of image n that the outputs from t on read. next: the block that
// will be read after this one, prefetched, or null.
template <class E>
void read_samples(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, const LaneBlock& block,
                  const DenseConv& conv, const BandLayout& layout, const Index& t, E* buffer,
                  const LaneBlock* next = nullptr);
// The same, but only the rows [first_row, last_row) of the layout's height.
template <class E>
void read_sample_rows(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n,
                      const LaneBlock& block, const DenseConv& conv, const BandLayout& layout, const Index& t,
                      std::int64_t first_row, std::int64_t last_row, E* buffer, const LaneBlock* next = nullptr);

// The same for one channel, planar. ahead: elements from each sample to the one that will be read after this call in its
// place, prefetched.
template <class E>
void read_plane(const KernelTable<E>& kernels, const Tensor<const E>& tensor, std::int64_t n, std::int64_t channel,
                const DenseConv& conv, const BandLayout& layout, const Index& t, std::ptrdiff_t ahead, E* buffer);

// Outputs of a block of image n that saw their own terms alone, some of which are not finite.
inline DamagedBox damaged_outputs(const DenseConv& conv, std::int64_t n, const LaneBlock& block, const Index& begin,
                                  const Index& end) {
    return {n, block, {conv[0].target, conv[1].target, conv[2].target}, begin, end, true};
}

// Outputs of a band, from t on, of one block of image n.
struct BandRows {
    std::int64_t n;
    LaneBlock block;
    Index t;
    std::int64_t pixels, rows;
};

// Writes them from lane vectors, rows a line apart, with a bias of each lane or null; those of all phases take turns.
// Non-finite ones are noted.
template <class E>
void write_joined_rows(const KernelTable<E>& kernels, const Tensor<E>& tensor, const JoinedConv& joined,
                       const BandRows& rows, std::ptrdiff_t line, E* values, const E* bias,
                       std::vector<DamagedBox>& damage);

// As write_joined_rows for one phase, from planar values.
struct PlaneValues {
    std::ptrdiff_t line, plane;  // elements from row to row, and from channel to channel of the block
};
template <class E>
void write_plane_rows(const KernelTable<E>& kernels, const Tensor<E>& tensor, const DenseConv& conv,
                      const BandRows& rows, const PlaneValues& at, E* values, const E* bias,
                      std::vector<DamagedBox>& damage);

}  // namespace triconv
