// The transform of one tile along up to three axes, from line transforms. FFT and Winograd differ only in their lines.
//
// A tile is a box of lane vectors; its spectrum is `planes` lane vectors, plane_stride apart. The innermost axis is
// transformed first. A real FFT packs its half spectrum as r0 r1 i1 r2 i2 ... [r(T/2)]; its pure-real entries are then
// transformed along the next axis as reals, its pairs as complex numbers, so that T0 * T1 * T2 reals give exactly
// as many planes, grouped in *bins*: one plane (real) or two consecutive ones (complex).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "geometry.h"
#include "kernel_table.h"

namespace triconv {

struct TileShape {
    bool fft = false;
    std::array<int, axes> transform{1, 1, 1};  // T
    std::array<int, axes> outputs{1, 1, 1};    // M = T - R + 1, or more: see fft_outputs
    std::array<int, axes> taps{1, 1, 1};       // R

    std::string name(int rank) const;  // "fft:16x16" (T), "winograd:4x4" (M)
};

struct Bin {
    int plane;
    bool complex;
};
// Bins of one kind that follow each other: `count` from `plane` on.
struct BinRun {
    int plane, count;
    bool complex;

    int planes_per_bin() const { return complex ? 2 : 1; }
};

// What is transformed. The three on the right are the transposes of those on the left.
enum class TileRole : std::uint8_t {
    read_tile,     // T samples -> spectrum        x in forward and weight_grad
    read_kernel,   // R taps -> spectrum
    write_tile,    // spectrum -> M outputs        y in forward
    add_tile,      // spectrum -> T samples        dx, overlap-add
    write_kernel,  // spectrum -> R taps           dw
    read_grad,     // M samples -> spectrum        dy in weight_grad and overlap-add
};
inline constexpr int tile_role_count = 6;

// The line transforms of a role along one axis; samples that the caller provides, and has room for: see TileTransform.
// The samples of the axis that is transformed first are real: it has no complex lines.
template <class E>
struct AxisLines {
    LineTransform<E> real, complex;
    int count = 1, extent = 1;
};
template <class E>
AxisLines<E> axis_lines(const KernelTable<E>& kernels, const TileShape& shape, TileRole role, int axis, bool first);

// What a product of FFTs along an axis is multiplied by: of a tile and a kernel forth, of the product back. T, but for what
// the rounded constants of the butterflies add up to, which depends on T alone: 2e-7 of it for 2^18 in float32, as much as
// all random errors together. Found by transforming random signs.
template <class E>
double fft_gain(const KernelTable<E>& kernels, int length, bool complex);
// Factor that makes the inverse of a product of spectra the correlation. To be applied in double: the rounding of a factor
// would be an error of all products alike, too.
template <class E>
double fft_scale(const KernelTable<E>& kernels, const std::array<int, axes>& lengths);

// Tiles at a constant distance, and their spectra.
struct TileSeries {
    int count = 1;
    std::ptrdiff_t tile_step = 0, spectrum_step = 0;
};

template <class E>
class TileTransform {
public:
    TileTransform(const KernelTable<E>& kernels, const TileShape& shape);

    int planes() const { return planes_; }
    const std::vector<Bin>& bins() const { return bins_; }
    const std::vector<BinRun>& bin_runs() const { return bin_runs_; }
    const TileShape& shape() const { return shape_; }
    // fft_scale; 1 for Winograd.
    double scale() const { return scale_; }

    // Samples (outputs) along an axis that the caller provides (has room for); those past the role's count are zero on
    // input and rubbish on output: codelets come pruned to few lengths.
    int extent(TileRole role, int axis) const { return roles_[static_cast<int>(role)].extent[axis]; }
    int count(TileRole role, int axis) const { return roles_[static_cast<int>(role)].count[axis]; }
    std::size_t scratch_size() const { return scratch_size_; }  // elements

    // One tile after the other. tiles and spectra must not overlap; strides in elements.
    void forward(TileRole role, const E* tile, const std::array<std::ptrdiff_t, axes>& strides, E* spectrum,
                 std::ptrdiff_t plane_stride, E* scratch, const TileSeries& series = {}) const;
    void inverse(TileRole role, const E* spectrum, std::ptrdiff_t plane_stride, E* tile,
                 const std::array<std::ptrdiff_t, axes>& strides, E* scratch, const TileSeries& series = {}) const;

private:
    struct Role {
        std::array<AxisLines<E>, axes> lines;
        std::array<int, axes> count, extent;
    };
    struct Boxes;
    struct LineLoop;

    void list_bins(std::size_t level, int plane, bool complex);
    void list_bin_runs();
    void forward_level(const Role& role, std::size_t level, const Boxes& boxes, const E* in, E* out,
                       std::ptrdiff_t plane_stride, E* scratch) const;
    void inverse_level(const Role& role, std::size_t level, const Boxes& boxes, const E* in, E* out,
                       std::ptrdiff_t plane_stride, E* scratch) const;
    template <class Run>
    void for_runs_of_values(std::size_t level, const Boxes& boxes, const LineLoop& loop, std::ptrdiff_t plane_stride,
                            const Run& run) const;
    LineLoop line_loop(const Role& role, std::size_t level, const Boxes& boxes) const;
    std::ptrdiff_t line_size(std::size_t level, bool complex) const;
    std::size_t level_size(const Role& role, std::size_t level) const;
    bool is_pair(int packed, int length) const {
        return shape_.fft && packed > 0 && !(length % 2 == 0 && packed == length - 1);
    }

    TileShape shape_;
    int lanes_;
    int planes_ = 1;
    double scale_ = 1;
    std::vector<int> levels_;  // the axes with T > 1, innermost first
    std::vector<int> rest_;    // planes of one value of level i: product of the T of the later levels
    std::vector<Bin> bins_;
    std::vector<BinRun> bin_runs_;
    std::array<Role, tile_role_count> roles_;
    std::size_t scratch_size_ = 0;
};

}  // namespace triconv
