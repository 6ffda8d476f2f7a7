// The dot products of every ISA against sums in long double: counts, rows and numbers of planes and dots around its blocks,
// every row against an unmapped page.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "guarded_buffer.h"

namespace triconv {
namespace {

using test::Guard;
using test::GuardedRows;

struct Sizes {
    std::int64_t images, rows, count;
    int planes, dots;
};

template <class E>
void check(const KernelTable<E>& table, const Sizes& sizes, Guard side) {
    const auto [images, rows, count, planes, dots] = sizes;
    SCOPED_TRACE(testing::Message() << planes << " planes, " << dots << " dots of " << images << " x " << rows << " x "
                                    << count);
    const std::int64_t shifts = 3;  // of b, which each row has room for
    GuardedRows<E> a(planes * images * rows, count, side), b(images * (rows + dots), count + shifts - 1, side);
    std::mt19937 generator(static_cast<unsigned>(count));
    std::uniform_real_distribution<E> distribution(-1, 1);
    for (std::int64_t y = 0; y < planes * images * rows; ++y)
        for (std::int64_t x = 0; x < count; ++x)
            a.row(y)[x] = distribution(generator);
    for (std::int64_t y = 0; y < images * (rows + dots); ++y)
        for (std::int64_t x = 0; x < count + shifts - 1; ++x)
            b.row(y)[x] = distribution(generator);
    std::vector<std::ptrdiff_t> offsets;
    for (int t = 0; t < dots; ++t)
        offsets.push_back(t * b.pitch() + t % shifts);
    std::vector<double> sums(static_cast<std::size_t>(planes * dots), 7);
    DotArgs<E> args{};
    args.a = a.row(0);
    args.b = b.row(0);
    args.b_offset = offsets.data();
    args.sums = sums.data();
    args.a_plane = images * rows * a.pitch();
    args.a_image = rows * a.pitch();
    args.a_row = a.pitch();
    args.b_image = (rows + dots) * b.pitch();
    args.b_row = b.pitch();
    args.images = images;
    args.rows = rows;
    args.count = count;
    args.planes = planes;
    args.dots = dots;
    table.dots.run(args);
    for (int p = 0; p < planes; ++p)
        for (int t = 0; t < dots; ++t) {
            long double sum = 7, magnitude = 0;
            for (std::int64_t n = 0; n < images; ++n)
                for (std::int64_t y = 0; y < rows; ++y)
                    for (std::int64_t x = 0; x < count; ++x) {
                        const long double product = static_cast<long double>(a.row((p * images + n) * rows + y)[x]) *
                                                    b.row(n * (rows + dots) + y + t)[x + t % shifts];
                        sum += product;
                        magnitude += std::abs(product);
                    }
            const auto terms = static_cast<long double>(images * rows * count);
            ASSERT_LE(std::abs(sums[static_cast<std::size_t>(p * dots + t)] - sum),
                      std::numeric_limits<E>::epsilon() * (2 + std::sqrt(terms)) * magnitude +
                          std::numeric_limits<double>::epsilon() * std::abs(sum))
                << "plane " << p << ", dot " << t;
        }
}

template <class E>
void check_all(const KernelTable<E>& table) {
    for (const Guard side : {Guard::before, Guard::after}) {
        for (int planes = 1; planes <= 8; ++planes)
            for (int dots = 1; dots <= 18; ++dots)
                for (const std::int64_t count :
                     {std::int64_t{1}, std::int64_t{table.lanes}, 9 * std::int64_t{table.lanes} - 1})
                    check(table, {1, 2, count, planes, dots}, side);
        for (std::int64_t count = 1; count <= 9 * table.lanes; ++count)
            for (const int dots : {1, 4, 8})
                check(table, {2, 3, count, 1, dots}, side);
    }
}

class DotsOfIsa : public testing::TestWithParam<std::string> {};

TEST_P(DotsOfIsa, MatchTheExactSumFloat) {
    check_all(table_of<float>(kernels(GetParam())));
}
TEST_P(DotsOfIsa, MatchTheExactSumDouble) {
    check_all(table_of<double>(kernels(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Isa, DotsOfIsa, testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace triconv
