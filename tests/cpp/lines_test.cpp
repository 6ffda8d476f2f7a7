// Line transforms of every ISA against their definitions: explicit DFT sums and Cook-Toom matrices in long double,
// lane by lane, for every kind, length and pruning, with odd, interleaved and negative strides. Whatever a transform
// has no business to read is NaN or an unmapped page, whatever it has no business to write must keep its value.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "dispatch.h"
#include "guarded_buffer.h"

namespace triconv {
namespace {

using test::Guard;
using test::GuardedBuffer;

using Real = long double;
using Complex = std::complex<Real>;

constexpr LineKind fft_kinds[] = {LineKind::fft_real, LineKind::fft_real_inverse, LineKind::fft_complex,
                                  LineKind::fft_complex_inverse};

bool is_inverse(LineKind kind) {
    return kind == LineKind::fft_real_inverse || kind == LineKind::fft_complex_inverse;
}
bool is_complex(LineKind kind) {
    return kind == LineKind::fft_complex || kind == LineKind::fft_complex_inverse;
}
const char* name_of(LineKind kind) {
    constexpr const char* names[] = {"fft_real",          "fft_real_inverse", "fft_complex",     "fft_complex_inverse",
                                     "winograd_data",     "winograd_kernel",  "winograd_output", "winograd_data_t",
                                     "winograd_kernel_t", "winograd_output_t"};
    return names[static_cast<int>(kind)];
}

// Strides in lane vectors; an imaginary part lies `im` lane vectors behind the real one (0: behind all of them).
struct Layout {
    int in_stride, in_im, out_stride, out_im;
};
constexpr Layout layouts[] = {{1, 0, 1, 0}, {2, 1, 2, 1}, {-3, 1, 5, 2}, {3, -1, 7, 3}};

// A line of lane vectors, everything between them filled with `filler`; the first or the last adjoins an unmapped page.
template <class E>
class Line {
public:
    Line(int count, int parts, int lanes, int stride, int im, Guard side, E filler)
        : stride_(stride * lanes), im_((im == 0 ? (count - 1) * std::abs(stride) + 1 : im) * lanes) {
        const std::ptrdiff_t last = (count - 1) * stride_, last_part = (parts - 1) * im_;
        start_ = -std::min<std::ptrdiff_t>(0, last) - std::min<std::ptrdiff_t>(0, last_part);
        const std::ptrdiff_t size = std::abs(last) + std::abs(last_part) + lanes;
        memory_ = std::make_unique<GuardedBuffer<E>>(size, side, filler);
    }
    E* start() { return memory_->data() + start_; }
    std::ptrdiff_t stride() const { return stride_; }
    std::ptrdiff_t im() const { return im_; }
    E& at(int i, int part, int lane) { return start()[i * stride_ + part * im_ + lane]; }
    bool all_equal(E filler) const {
        return std::all_of(memory_->begin(), memory_->end(), [&](E value) { return value == filler; });
    }

private:
    std::ptrdiff_t stride_, im_, start_;
    std::unique_ptr<GuardedBuffer<E>> memory_;
};

// Runs `transform` over random data and gives what went in and what came out: entry-major, [entry][part][lane].
template <class E>
struct Execution {
    std::vector<E> in, out;
    int parts, lanes;

    Execution(const LineTransform<E>& transform, int lanes_in, bool complex, const Layout& layout, int nonzero,
              unsigned seed, Guard side)
        : parts(complex ? 2 : 1), lanes(lanes_in) {
        constexpr E untouched = E(12345.5);
        Line<E> source(transform.n_in, parts, lanes, layout.in_stride, layout.in_im, side,
                       std::numeric_limits<E>::quiet_NaN());
        Line<E> target(transform.n_out, parts, lanes, layout.out_stride, layout.out_im, side, untouched);
        std::mt19937 random(seed);
        std::uniform_real_distribution<double> uniform(-1, 1);
        for_each(transform.n_in, [&](int i, int part, int lane) {
            source.at(i, part, lane) = i < nonzero ? E(uniform(random)) : E(0);
            in.push_back(source.at(i, part, lane));
        });
        transform({source.start(), target.start(), source.stride(), target.stride(), complex ? source.im() : 0,
                   complex ? target.im() : 0});
        for_each(transform.n_out, [&](int i, int part, int lane) {
            out.push_back(target.at(i, part, lane));
            target.at(i, part, lane) = untouched;
        });
        EXPECT_TRUE(target.all_equal(untouched)) << "wrote outside its outputs";
    }
    Real input(int i, int part, int lane) const { return in[index(i, part, lane)]; }
    Real output(int i, int part, int lane) const { return out[index(i, part, lane)]; }

private:
    std::size_t index(int i, int part, int lane) const {
        return (static_cast<std::size_t>(i) * parts + part) * lanes + lane;
    }
    template <class F>
    void for_each(int count, F f) {
        for (int i = 0; i < count; ++i)
            for (int part = 0; part < parts; ++part)
                for (int lane = 0; lane < lanes; ++lane)
                    f(i, part, lane);
    }
};

// ---- FFT ------------------------------------------------------------------------------------------------------------

// The input of one lane as T complex numbers.
template <class E>
std::vector<Complex> full_sequence(const Execution<E>& run, LineKind kind, int length, int lane) {
    std::vector<Complex> x(length);
    const int count = static_cast<int>(run.in.size()) / (run.parts * run.lanes);
    if (kind == LineKind::fft_real_inverse) {
        x[0] = run.input(0, 0, lane);
        for (int k = 1; 2 * k <= length; ++k) {
            x[k] = Complex(run.input(2 * k - 1, 0, lane), 2 * k < length ? run.input(2 * k, 0, lane) : 0);
            x[length - k] = std::conj(x[k]);
        }
        return x;
    }
    for (int i = 0; i < count; ++i)
        x[i] = Complex(run.input(i, 0, lane), is_complex(kind) ? run.input(i, 1, lane) : 0);
    return x;
}

// Element `i` of the output of `kind`: the bin and the part it holds.
struct Element {
    int bin, part;
};
Element element_of(LineKind kind, int i, int part) {
    if (kind != LineKind::fft_real) return {i, part};
    return {(i + 1) / 2, i > 0 && i % 2 == 0 ? 1 : 0};
}

struct Roots {
    std::vector<Complex> values;
    Roots(int n, int sign) {
        const Real pi = std::acos(Real(-1));
        for (int k = 0; k < n; ++k)
            values.push_back(std::polar(Real(1), sign * 2 * pi * k / n));
    }
};

// An FFT's errors are at most a few eps per level times the moduli summed; 8 log2(2T) is several times what the
// codelets need and leaves room for the odd butterflies (sums of up to T/2 products, errors partly cancelling) and for
// Bluestein (two transforms of more than twice the length).
template <class E>
Real fft_tolerance(const std::vector<Complex>& x) {
    Real sum = 0;
    for (const Complex& value : x)
        sum += std::abs(value);
    return 8 * std::log2(2 * Real(x.size())) * std::numeric_limits<E>::epsilon() * sum;
}

template <class E>
void check_fft(const KernelTable<E>& table, LineKind kind, int length, int count, const Layout& layout) {
    SCOPED_TRACE(std::string(table.isa) + " " + name_of(kind) + " length " + std::to_string(length) + " count " +
                 std::to_string(count) + " in_stride " + std::to_string(layout.in_stride));
    const bool inverse = is_inverse(kind);
    const auto transform = table.fft_line(kind, length, inverse ? length : count, inverse ? count : length);
    ASSERT_NE(transform.run, nullptr);
    ASSERT_EQ(inverse ? transform.n_in : transform.n_out, length);
    const int actual = inverse ? transform.n_out : transform.n_in;
    ASSERT_GE(actual, count);
    ASSERT_LE(actual, length);

    const int nonzero = inverse ? length : count;
    const auto execute = [&](Guard side) {
        return Execution<E>(transform, table.lanes, is_complex(kind), layout, nonzero, length * 41u + count, side);
    };
    const Execution<E> run = execute(Guard::after);
    ASSERT_EQ(execute(Guard::before).out, run.out);
    const Roots roots(length, inverse ? 1 : -1);
    // Long lines: some lanes and entries only, else the sums of the definition take minutes.
    const int lane_step = length <= 128 ? 1 : std::max(1, table.lanes - 1);
    const int entry_step = length <= 128 ? 1 : length / 61;
    for (int lane = 0; lane < table.lanes; lane += lane_step) {
        const auto x = full_sequence(run, kind, length, lane);
        const Real tolerance = fft_tolerance<E>(x);
        for (int i = 0; i < transform.n_out; i += entry_step) {
            for (int part = 0; part < run.parts; ++part) {
                const Element element = element_of(kind, i, part);
                Complex expected = 0;
                for (int j = 0; j < length; ++j)
                    expected += x[j] * roots.values[static_cast<std::int64_t>(j) * element.bin % length];
                const Real error = run.output(i, part, lane) - (element.part ? expected.imag() : expected.real());
                ASSERT_TRUE(std::abs(error) <= tolerance) << "entry " << i << " part " << part << " lane " << lane
                                                          << ": error " << error << " above " << tolerance;
            }
        }
    }
}

template <class E>
void check_all_ffts(const std::string& isa) {
    const KernelTable<E>& table = table_of<E>(kernels(isa));
    for (const LineKind kind : fft_kinds) {
        for (int length = 1; length <= 40; ++length)
            for (int count = 1; count <= length; ++count)
                check_fft(table, kind, length, count, layouts[(length + count) % std::size(layouts)]);
        for (const int length : {2, 5, 8, 13, 16, 32})
            for (const Layout& layout : layouts)
                check_fft(table, kind, length, length, layout);
        for (const int length : {48,  54,  64,  72,  75,  80,  96,  97,   101,  128,  135,  144,  160,
                                 162, 200, 256, 288, 448, 512, 576, 1000, 1021, 1024, 2048, 4096, 8748})
            for (const int count : {1, length / 3, length / 2 + 1, length})
                check_fft(table, kind, length, count, layouts[(length + count) % std::size(layouts)]);
    }
}

class LinesTest : public testing::TestWithParam<std::string> {};

TEST_P(LinesTest, FftFloat) {
    check_all_ffts<float>(GetParam());
}
TEST_P(LinesTest, FftDouble) {
    check_all_ffts<double>(GetParam());
}

TEST_P(LinesTest, FftOfLongLineKeepsParseval) {
    const KernelTable<double>& table = kernels(GetParam()).f64;
    constexpr int length = 65536;
    const auto transform = table.fft_line(LineKind::fft_complex, length, length, length);
    const Execution<double> run(transform, table.lanes, true, layouts[0], length, 7, Guard::after);
    for (int lane = 0; lane < table.lanes; ++lane) {
        Real in = 0, out = 0;
        for (int i = 0; i < length; ++i)
            for (int part = 0; part < 2; ++part) {
                in += run.input(i, part, lane) * run.input(i, part, lane);
                out += run.output(i, part, lane) * run.output(i, part, lane);
            }
        EXPECT_NEAR(double(out / (in * length)), 1, 1e-14);
    }
}

TEST_P(LinesTest, LiveAsLongAsTheirLastCopy) {
    const KernelTable<float>& table = kernels(GetParam()).f32;
    for (const int length : {7 * 1024, 7919}) {  // composed; PocketFFT's
        std::weak_ptr<const void> context;
        {
            const auto line = table.fft_line(LineKind::fft_real, length, length, length);
            const auto copy = line;
            context = copy.context;
            EXPECT_FALSE(context.expired());
        }
        EXPECT_TRUE(context.expired());
    }
}

TEST_P(LinesTest, CodeletsOfFftLinesAreKnown) {
    const KernelTable<float>& table = kernels(GetParam()).f32;
    for (const int length : {1, 2, 3, 4, 8, 12, 16, 18, 20, 24, 32})
        EXPECT_EQ(table.codelets_of_line(length), 1) << length;
    for (const int length : {15, 36, 48, 64, 100, 128, 320, 512})
        EXPECT_EQ(table.codelets_of_line(length), 2) << length;
    for (const int length : {11, 17, 75, 97, 125, 360, 400, 4096})
        EXPECT_EQ(table.codelets_of_line(length), 3) << length;
}

TEST_P(LinesTest, FftLinesMayBeMadeAndRunByManyThreads) {
    const KernelTable<float>& table = kernels(GetParam()).f32;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int length = 41; length < 60; ++length)
                check_fft(table, LineKind::fft_real, length, length, layouts[0]);
        });
    }
    for (std::thread& thread : threads)
        thread.join();
}

// ---- Winograd -------------------------------------------------------------------------------------------------------

using Matrix = std::vector<std::vector<Real>>;

Matrix zeros(int rows, int cols) {
    return Matrix(rows, std::vector<Real>(cols, 0));
}
Matrix transposed(const Matrix& a) {
    Matrix t = zeros(static_cast<int>(a[0].size()), static_cast<int>(a.size()));
    for (std::size_t i = 0; i < a.size(); ++i)
        for (std::size_t j = 0; j < a[0].size(); ++j)
            t[j][i] = a[i][j];
    return t;
}

struct CookToom {
    Matrix output, kernel, data;
};

// From Lagrange interpolation at the points, independently of the generator.
CookToom cook_toom(int m, int r) {
    const std::vector<Real> points = {0, 1, -1, 0.5L, -2, 2, -0.5L};
    const int tile = m + r - 1;
    CookToom f{zeros(m, tile), zeros(tile, r), zeros(tile, tile)};
    for (int j = 0; j < tile; ++j) {
        const bool infinite = j == tile - 1;
        std::vector<Real> polynomial = {1};
        Real divisor = 1;
        for (int b = 0; b < tile - 1; ++b) {
            if (b == j) continue;
            polynomial.insert(polynomial.begin(), 0);
            for (std::size_t i = 0; i + 1 < polynomial.size(); ++i)
                polynomial[i] -= points[b] * polynomial[i + 1];
            if (!infinite) divisor *= points[j] - points[b];
        }
        for (std::size_t i = 0; i < polynomial.size(); ++i)
            f.data[j][i] = polynomial[i];
        for (int i = 0; i < m; ++i)
            f.output[i][j] = infinite ? i == m - 1 : std::pow(points[j], Real(i));
        for (int i = 0; i < r; ++i)
            f.kernel[j][i] = infinite ? i == r - 1 : std::pow(points[j], Real(i)) / divisor;
    }
    return f;
}

// F(m, 1) and F(1, r) need no interpolation.
CookToom matrices(int m, int r) {
    if (m > 1 && r > 1) return cook_toom(m, r);
    const int tile = m + r - 1;
    CookToom f{zeros(m, tile), zeros(tile, r), zeros(tile, tile)};
    for (int j = 0; j < tile; ++j) {
        f.data[j][j] = 1;
        f.output[m == 1 ? 0 : j][j] = 1;
        f.kernel[j][r == 1 ? 0 : j] = 1;
    }
    return f;
}

// Rounding of a sum of products, in any order: at most one error per term and one for the constant.
template <class E>
void check_product(const LineTransform<E>& transform, int lanes, const Matrix& matrix, const Layout& layout,
                   Guard side) {
    ASSERT_NE(transform.run, nullptr);
    ASSERT_EQ(transform.n_out, static_cast<int>(matrix.size()));
    ASSERT_EQ(transform.n_in, static_cast<int>(matrix[0].size()));
    const Execution<E> run(transform, lanes, false, layout, transform.n_in, 3, side);
    for (int lane = 0; lane < lanes; ++lane) {
        for (int o = 0; o < transform.n_out; ++o) {
            Real expected = 0, moduli = 0;
            for (int i = 0; i < transform.n_in; ++i) {
                expected += matrix[o][i] * run.input(i, 0, lane);
                moduli += std::abs(matrix[o][i] * run.input(i, 0, lane));
            }
            const Real tolerance = (transform.n_in + 2) * std::numeric_limits<E>::epsilon() * moduli;
            ASSERT_TRUE(std::abs(run.output(o, 0, lane) - expected) <= tolerance) << "entry " << o << " lane " << lane;
        }
    }
}

bool has_winograd(int m, int r) {
    return r == 1 ? m <= 8 : m <= 6 && r <= 7 && m + r - 1 <= 8;
}

template <class E>
void check_all_winograds(const std::string& isa) {
    const KernelTable<E>& table = table_of<E>(kernels(isa));
    for (int m = 1; m <= 9; ++m) {
        for (int r = 1; r <= 9; ++r) {
            SCOPED_TRACE(isa + " F(" + std::to_string(m) + ", " + std::to_string(r) + ")");
            if (!has_winograd(m, r)) {
                EXPECT_EQ(table.winograd_line(LineKind::winograd_data, m, r).run, nullptr);
                continue;
            }
            const CookToom f = matrices(m, r);
            for (const Layout& layout : layouts) {
                const auto check = [&](LineKind kind, const Matrix& matrix) {
                    SCOPED_TRACE(name_of(kind));
                    for (const Guard side : {Guard::before, Guard::after})
                        check_product(table.winograd_line(kind, m, r), table.lanes, matrix, layout, side);
                };
                check(LineKind::winograd_data, f.data);
                check(LineKind::winograd_kernel, f.kernel);
                check(LineKind::winograd_output, f.output);
                check(LineKind::winograd_data_t, transposed(f.data));
                check(LineKind::winograd_kernel_t, transposed(f.kernel));
                check(LineKind::winograd_output_t, transposed(f.output));
            }
        }
    }
}

TEST_P(LinesTest, WinogradFloat) {
    check_all_winograds<float>(GetParam());
}
TEST_P(LinesTest, WinogradDouble) {
    check_all_winograds<double>(GetParam());
}

// Several lines in one call give what as many calls do, bit for bit, `pitch` entries apart: later ones overwrite what
// earlier ones have written.
template <class E>
void check_several_lines(const LineTransform<E>& transform, int lanes, bool complex, int pitch) {
    constexpr int lines = 3;
    ASSERT_NE(transform.run, nullptr);
    const int parts = complex ? 2 : 1;
    const auto line = [&](int entries) { return Line<E>(lines * entries, parts, lanes, 1, 0, Guard::after, E(0)); };
    Line<E> source = line(transform.n_in), apart = line(transform.n_out), together = line(transform.n_out);
    for (int part = 0; part < parts; ++part)
        for (int i = 0; i < lines * transform.n_in; ++i)
            for (int lane = 0; lane < lanes; ++lane)
                source.at(i, part, lane) = static_cast<E>((37 * i + 11 * lane + 5 * part) % 101 - 50);
    const std::ptrdiff_t in_step = transform.n_in * source.stride(), out_step = pitch * apart.stride();
    LineArgs<E> args{source.start(), together.start(), source.stride(), together.stride(), source.im(), together.im(),
                     lines,          in_step,          out_step};
    transform(args);
    args.lines = 1;
    args.out = apart.start();
    for (int i = 0; i < lines; ++i, args.in += in_step, args.out += out_step)
        transform(args);
    for (int part = 0; part < parts; ++part)
        for (int i = 0; i < lines * transform.n_out; ++i)
            for (int lane = 0; lane < lanes; ++lane)
                ASSERT_EQ(together.at(i, part, lane), apart.at(i, part, lane)) << "entry " << i << " lane " << lane;
}

template <class E>
void check_several_lines(const LineTransform<E>& transform, int lanes, bool complex) {
    for (const int pitch : {transform.n_out, (transform.n_out + 1) / 2})
        check_several_lines(transform, lanes, complex, pitch);
}

template <class E>
void check_several_lines_of_all_kinds(const KernelTable<E>& table) {
    for (const LineKind kind : fft_kinds)
        for (const int length : {1, 8, 20, 54, 77, 512}) {  // copied, codelets, composed once and twice, PocketFFT
            SCOPED_TRACE(std::string(name_of(kind)) + " length " + std::to_string(length));
            check_several_lines(table.fft_line(kind, length, length, length), table.lanes, is_complex(kind));
        }
    for (const LineKind kind : {LineKind::winograd_data, LineKind::winograd_kernel, LineKind::winograd_output_t}) {
        SCOPED_TRACE(name_of(kind));
        check_several_lines(table.winograd_line(kind, 4, 3), table.lanes, false);
    }
}

TEST_P(LinesTest, TakeSeveralLinesInOneCall) {
    check_several_lines_of_all_kinds(kernels(GetParam()).f32);
    check_several_lines_of_all_kinds(kernels(GetParam()).f64);
}

INSTANTIATE_TEST_SUITE_P(Isas, LinesTest, testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return info.param; });

// The matrices the transforms are held to give the correlation: sum over j of A^T(i,j) G(j,k) B^T(j,n) = [n = i + k].
TEST(CookToomTest, MatricesCorrelate) {
    for (int m = 1; m <= 8; ++m) {
        for (int r = 1; r <= 7; ++r) {
            if (!has_winograd(m, r)) continue;
            const CookToom f = matrices(m, r);
            for (int i = 0; i < m; ++i)
                for (int k = 0; k < r; ++k)
                    for (int n = 0; n < m + r - 1; ++n) {
                        Real sum = 0;
                        for (int j = 0; j < m + r - 1; ++j)
                            sum += f.output[i][j] * f.kernel[j][k] * f.data[j][n];
                        EXPECT_NEAR(double(sum), n == i + k, 1e-15) << m << " " << r;
                    }
        }
    }
}

}  // namespace
}  // namespace triconv
