// The filter kernel of every ISA against sums in long double: rows, taps and counts around its register blocks, every row
// of samples and of outputs against an unmapped page, and NaN behind the last sample that an output reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>

#include "dispatch.h"
#include "guarded_buffer.h"

namespace triconv {
namespace {

using test::Guard;
using test::GuardedBuffer;
using test::GuardedRows;

struct Shape {
    std::int64_t rows, count;
    int taps_y, taps_x;
    std::ptrdiff_t in_tap = 1, w_gap = 0;  // w_gap: between rows of taps
    std::int64_t before = 0;               // elements of a page, which the rows of samples begin behind

    std::ptrdiff_t w_row() const { return taps_x + w_gap; }
    std::int64_t sample_rows() const { return rows + taps_y - 1; }
    std::int64_t samples() const { return count + (taps_x - 1) * in_tap; }            // of a row
    std::int64_t beyond(int lanes) const { return (lanes - count % lanes) % lanes; }  // those read as well
};

template <class E>
class Filtering {
public:
    Filtering(const KernelTable<E>& table, const Shape& shape, Guard side, bool accumulate)
        : shape_(shape),
          kernel_(table.filter.run),
          in_(shape.sample_rows(), shape.before + shape.samples() + shape.beyond(table.lanes), side),
          w_(shape.taps_y * shape.w_row() - shape.w_gap, side, 0),
          out_(shape.rows, shape.count, side) {
        std::mt19937 generator(static_cast<unsigned>(shape.samples()));
        std::uniform_real_distribution<E> distribution(-1, 1);
        for (std::int64_t y = 0; y < shape.sample_rows(); ++y) {
            for (std::int64_t x = 0; x < shape.samples(); ++x)
                sample(y, x) = distribution(generator);
            std::fill_n(&sample(y, shape.samples()), shape.beyond(table.lanes), std::numeric_limits<E>::quiet_NaN());
        }
        for (E& w : w_)
            w = distribution(generator);
        for (std::int64_t y = 0; y < shape.rows; ++y)
            std::fill_n(out_.row(y), shape.count, before);
        args_ = {&sample(0, 0), w_.data(),    out_.row(0), in_.pitch(), shape.in_tap, shape.w_row(), out_.pitch(),
                 shape.taps_y,  shape.taps_x, shape.rows,  shape.count, bias,         accumulate};
    }

    bool run() { return kernel_(args_); }
    E& sample(std::int64_t y, std::int64_t x) { return in_.row(y)[shape_.before + x]; }

    void expect_exact() {
        const std::int64_t terms = shape_.taps_y * shape_.taps_x;
        for (std::int64_t y = 0; y < shape_.rows; ++y)
            for (std::int64_t x = 0; x < shape_.count; ++x) {
                long double sum = args_.accumulate ? before : bias, magnitude = std::abs(sum);
                for (int i = 0; i < shape_.taps_y; ++i)
                    for (int j = 0; j < shape_.taps_x; ++j) {
                        const long double product =
                            static_cast<long double>(sample(y + i, x + j * shape_.in_tap)) * w_[i * shape_.w_row() + j];
                        sum += product;
                        magnitude += std::abs(product);
                    }
                ASSERT_LE(
                    std::abs(out_.row(y)[x] - sum),
                    std::numeric_limits<E>::epsilon() * (2 + std::sqrt(static_cast<long double>(terms))) * magnitude)
                    << "output " << y << ", " << x;
            }
    }

private:
    static constexpr E before = 3, bias = E(-0.75);
    Shape shape_;
    bool (*kernel_)(const FilterArgs<E>&);
    GuardedRows<E> in_;
    GuardedBuffer<E> w_;
    GuardedRows<E> out_;
    FilterArgs<E> args_{};
};

template <class E>
void check(const KernelTable<E>& table, const Shape& shape) {
    SCOPED_TRACE(::testing::Message() << shape.rows << " x " << shape.count << " outputs, " << shape.taps_y << " x "
                                      << shape.taps_x << " taps " << shape.in_tap << " apart");
    for (const Guard side : {Guard::before, Guard::after})
        for (const bool accumulate : {false, true}) {
            Filtering<E> filtering(table, shape, side, accumulate);
            EXPECT_FALSE(filtering.run());
            filtering.expect_exact();
        }
}

template <class E>
void check_all(const KernelTable<E>& table) {
    const std::int64_t widest = 8 * table.lanes;
    for (std::int64_t rows = 1; rows <= 13; ++rows)
        for (int taps_y = 1; taps_y <= 8; ++taps_y)
            check(table, {rows, 3 * table.lanes + 1 + rows, taps_y, 1 + (taps_y + 1) % 4});
    for (int size = 2; size <= 8; ++size)  // of some the kernel knows more
        for (std::int64_t rows = 1; rows <= 8; ++rows)
            for (const std::int64_t count : {(table.lanes + 1) / 2, 3 * table.lanes, 5 * table.lanes - 1}) {
                check(table, {rows, count, size, size});
                check(table, {rows, count, size, size, 1, 1});
                check(table, {rows, count, size, size, 2});
            }
    for (std::int64_t count = 1; count <= widest + table.lanes + 1; ++count)
        check(table, {5, count, 3, 2, 1 + count % 3});
    for (const std::int64_t count : {widest - 1, widest, widest + 1})
        check(table, {2, count, 1, 7});
    check(table, {6, 2 * table.lanes, 31, 8});
    for (std::int64_t rows = 1; rows <= 5; ++rows)  // a row of taps
        for (const std::int64_t count : {std::int64_t{table.lanes} - 1, 4 * std::int64_t{table.lanes}, 2 * widest - 3})
            for (const int taps : {11, 12, 23, 24, 65, 256, 257}) {
                check(table, {rows, count, 1, taps});
                if (taps == 24) check(table, {rows, count, 1, taps, 2});
            }
    for (std::int64_t before = 0; before <= 17; ++before)  // a column: rows begin anywhere in a line
        for (const std::int64_t count : {2 * widest - 1, 2 * widest, 2 * widest + 3})
            check(table, {7, count, before % 5 == 0 ? 31 : 5, 1, 1, 0, before});
}

// A sample that is not finite is told of wherever it is read, in whole blocks, columns and the last lanes.
template <class E>
void check_non_finite(const KernelTable<E>& table, int taps_y, int taps_x) {
    const Shape shape{12, 4 * table.lanes + 2, taps_y, taps_x};
    for (std::int64_t y = 0; y < shape.sample_rows(); ++y)
        for (std::int64_t x = 0; x < shape.samples(); ++x) {
            Filtering<E> filtering(table, shape, Guard::after, false);
            filtering.sample(y, x) = std::numeric_limits<E>::infinity();
            EXPECT_TRUE(filtering.run()) << "sample " << y << ", " << x;
        }
}

class FilterOfIsa : public ::testing::TestWithParam<std::string> {};

TEST_P(FilterOfIsa, MatchesTheExactSumFloat) {
    check_all(table_of<float>(kernels(GetParam())));
}
TEST_P(FilterOfIsa, MatchesTheExactSumDouble) {
    check_all(table_of<double>(kernels(GetParam())));
}
TEST_P(FilterOfIsa, TellsOfWhatIsNotFinite) {
    for (const auto& [taps_y, taps_x] : {std::pair{2, 2}, {3, 3}, {6, 6}, {1, 40}}) {
        check_non_finite(table_of<float>(kernels(GetParam())), taps_y, taps_x);
        check_non_finite(table_of<double>(kernels(GetParam())), taps_y, taps_x);
    }
}

INSTANTIATE_TEST_SUITE_P(Isa, FilterOfIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace triconv
