// Tile transforms against explicit matrices, apart from convolution.
#include <gtest/gtest.h>

#include <complex>
#include <numbers>
#include <random>

#include "dispatch.h"
#include "transform.h"
#include "workspace.h"

namespace triconv::test {
namespace {

// The frequency of each axis and the part (re or im) that a plane of an FFT spectrum holds, by the rule in transform.h.
struct PlaneMeaning {
    std::array<int, axes> frequency{};
    bool imaginary = false;
};

void describe(const TileShape& shape, const std::vector<int>& levels, std::size_t level, bool complex, PlaneMeaning at,
              std::size_t plane, std::vector<PlaneMeaning>& planes) {
    if (level == levels.size()) {
        planes[plane] = at;
        if (complex) {
            at.imaginary = true;
            planes[plane + 1] = at;
        }
        return;
    }
    std::size_t rest = 1;
    for (std::size_t later = level + 1; later < levels.size(); ++later)
        rest *= static_cast<std::size_t>(shape.transform[static_cast<std::size_t>(levels[later])]);
    const auto axis = static_cast<std::size_t>(levels[level]);
    const int length = shape.transform[axis];
    for (int q = 0; q < length;) {
        const bool pair = complex || (q > 0 && !(length % 2 == 0 && q == length - 1));
        at.frequency[axis] = complex ? q : (q + 1) / 2;
        describe(shape, levels, level + 1, pair, at, plane + static_cast<std::size_t>(complex ? 2 * q : q) * rest,
                 planes);
        q += pair && !complex ? 2 : 1;
    }
}

template <class E>
void expect_dft(const IsaKernels& isa, const std::array<int, axes>& lengths) {
    const KernelTable<E>& kernels = table_of<E>(isa);
    TileShape shape;
    shape.fft = true;
    shape.transform = shape.outputs = lengths;
    const TileTransform<E> transform(kernels, shape);
    const int lanes = kernels.lanes;
    const auto planes = static_cast<std::size_t>(transform.planes());
    std::vector<int> levels;
    for (int a = axes - 1; a >= 0; --a)
        if (lengths[static_cast<std::size_t>(a)] > 1) levels.push_back(a);
    std::vector<PlaneMeaning> meaning(planes);
    describe(shape, levels, 0, false, {}, 0, meaning);

    const std::size_t vector = static_cast<std::size_t>(lanes);
    Workspace tile_memory(planes * vector * sizeof(E)), spectrum_memory(planes * vector * sizeof(E)),
        scratch((transform.scratch_size() + vector) * sizeof(E));
    E* const tile = static_cast<E*>(tile_memory.data());
    E* const spectrum = static_cast<E*>(spectrum_memory.data());
    std::mt19937_64 random(3);
    std::normal_distribution<double> normal;
    std::vector<E> original(planes * vector);
    for (std::size_t i = 0; i < original.size(); ++i)
        tile[i] = original[i] = static_cast<E>(normal(random));
    const std::array<std::ptrdiff_t, axes> strides{lengths[1] * lengths[2] * lanes, lengths[2] * lanes, lanes};
    transform.forward(TileRole::read_tile, tile, strides, spectrum, lanes, static_cast<E*>(scratch.data()));

    // Error of an FFT: epsilon times log2 of the length, relative to the largest value (about 4 sqrt(planes)).
    const double epsilon = std::numeric_limits<E>::epsilon();
    const double tolerance = 4 * epsilon * (1 + std::log2(planes)) * std::sqrt(static_cast<double>(planes));
    for (std::size_t p = 0; p < planes; ++p)
        for (int lane = 0; lane < lanes; ++lane) {
            std::complex<long double> sum;
            for (int z = 0; z < lengths[0]; ++z)
                for (int y = 0; y < lengths[1]; ++y)
                    for (int x = 0; x < lengths[2]; ++x) {
                        const long double turns = static_cast<long double>(z) * meaning[p].frequency[0] / lengths[0] +
                                                  static_cast<long double>(y) * meaning[p].frequency[1] / lengths[1] +
                                                  static_cast<long double>(x) * meaning[p].frequency[2] / lengths[2];
                        const long double value =
                            original[static_cast<std::size_t>(((z * lengths[1] + y) * lengths[2] + x) * lanes + lane)];
                        sum += value * std::polar(1.0L, -2 * std::numbers::pi_v<long double> * turns);
                    }
            ASSERT_NEAR(spectrum[p * vector + static_cast<std::size_t>(lane)],
                        static_cast<double>(meaning[p].imaginary ? sum.imag() : sum.real()), tolerance)
                << "plane " << p << " lane " << lane << " of " << shape.name(3) << " " << kernels.isa;
        }
    // And back: the unscaled inverse gives T0 T1 T2 times the tile.
    std::fill_n(tile, original.size(), E(-1));
    transform.inverse(TileRole::add_tile, spectrum, lanes, tile, strides, static_cast<E*>(scratch.data()));
    for (std::size_t i = 0; i < original.size(); ++i)
        ASSERT_NEAR(tile[i] * transform.scale(), original[i], tolerance) << "sample " << i;
}

TEST(TileTransformTest, IsTheDftAlongEachAxis) {
    for (const std::string& isa : supported_isas())
        for (const std::array<int, axes>& lengths : {std::array{1, 1, 8},
                                                     {1, 1, 7},
                                                     {1, 8, 1},
                                                     {1, 4, 6},
                                                     {1, 5, 9},
                                                     {1, 7, 4},
                                                     {1, 11, 22},
                                                     {4, 4, 4},
                                                     {3, 5, 6},
                                                     {2, 1, 5},
                                                     {6, 4, 1}}) {
            expect_dft<float>(kernels(isa), lengths);
            expect_dft<double>(kernels(isa), lengths);
        }
}

TEST(TileTransformTest, GainOfAnFftIsItsLengthButForRoundedConstants) {
    for (const std::string& isa : supported_isas())
        for (const int length : {2, 3, 5, 16, 20, 60, 1024, 4096, 4100, 1 << 16, 81920, 320000})
            for (const bool complex : {false, true}) {
                SCOPED_TRACE(::testing::Message() << isa << " " << length << " " << complex);
                EXPECT_NEAR(fft_gain(kernels(isa).f32, length, complex) / length, 1, 3e-7);
                EXPECT_NEAR(fft_gain(kernels(isa).f64, length, complex) / length, 1, 6e-16);
                if (length != 1024) continue;
                EXPECT_LT(fft_gain(kernels(isa).f32, length, complex) / length, 1 - 5e-8);
            }
    EXPECT_EQ(fft_gain(kernels().f32, 8209, false), 8209);  // a prime number, too long to be measured
}

TEST(TileTransformTest, BinsCoverEveryPlaneOnce) {
    for (bool fft : {true, false})
        for (const std::array<int, axes>& lengths : {std::array{1, 1, 6}, {1, 6, 4}, {1, 5, 7}, {4, 6, 8}, {1, 1, 1}}) {
            TileShape shape;
            shape.fft = fft;
            for (std::size_t a = 0; a < axes; ++a) {
                shape.taps[a] = lengths[a] > 1 ? 3 : 1;
                shape.transform[a] = lengths[a];
                shape.outputs[a] = lengths[a] - shape.taps[a] + 1;
            }
            const TileTransform<float> transform(kernels().f32, shape);
            std::vector<int> uses(static_cast<std::size_t>(transform.planes()), 0);
            for (const Bin& bin : transform.bins()) {
                ++uses[static_cast<std::size_t>(bin.plane)];
                if (bin.complex) ++uses[static_cast<std::size_t>(bin.plane) + 1];
                EXPECT_TRUE(fft || !bin.complex);
            }
            for (int count : uses)
                EXPECT_EQ(count, 1);
        }
}

}  // namespace
}  // namespace triconv::test
