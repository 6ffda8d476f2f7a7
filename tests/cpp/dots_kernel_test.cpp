// The dot products of every ISA against sums in long double: counts, rows and numbers of dots around its blocks, every row
// against an unmapped page.
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

template <class E>
void check(const KernelTable<E>& table, std::int64_t rows, std::int64_t count, int dots, Guard side) {
    SCOPED_TRACE(testing::Message() << dots << " dots of " << rows << " x " << count);
    const std::int64_t shifts = 3;  // of b, which each row has room for
    GuardedRows<E> a(rows, count, side), b(rows + dots, count + shifts - 1, side);
    std::mt19937 generator(static_cast<unsigned>(count));
    std::uniform_real_distribution<E> distribution(-1, 1);
    for (std::int64_t y = 0; y < rows; ++y)
        for (std::int64_t x = 0; x < count; ++x)
            a.row(y)[x] = distribution(generator);
    for (std::int64_t y = 0; y < rows + dots; ++y)
        for (std::int64_t x = 0; x < count + shifts - 1; ++x)
            b.row(y)[x] = distribution(generator);
    std::vector<std::ptrdiff_t> offsets;
    for (int t = 0; t < dots; ++t)
        offsets.push_back(t * b.pitch() + t % shifts);
    std::vector<E> sums(static_cast<std::size_t>(dots), E(7));
    table.dots({a.row(0), b.row(0), offsets.data(), sums.data(), a.pitch(), b.pitch(), rows, count, dots});
    for (int t = 0; t < dots; ++t) {
        long double sum = 0, magnitude = 0;
        for (std::int64_t y = 0; y < rows; ++y)
            for (std::int64_t x = 0; x < count; ++x) {
                const long double product = static_cast<long double>(a.row(y)[x]) * b.row(y + t)[x + t % shifts];
                sum += product;
                magnitude += std::abs(product);
            }
        const auto terms = static_cast<long double>(rows * count);
        ASSERT_LE(std::abs(sums[static_cast<std::size_t>(t)] - sum),
                  std::numeric_limits<E>::epsilon() * (2 + std::sqrt(terms)) * magnitude)
            << "dot " << t;
    }
}

template <class E>
void check_all(const KernelTable<E>& table) {
    for (const Guard side : {Guard::before, Guard::after}) {
        for (int dots = 1; dots <= 18; ++dots)
            for (const std::int64_t count :
                 {std::int64_t{1}, std::int64_t{table.lanes}, 9 * std::int64_t{table.lanes} - 1})
                check(table, 2, count, dots, side);
        for (std::int64_t count = 1; count <= 9 * table.lanes; ++count)
            for (const int dots : {1, 4, 8})
                check(table, 3, count, dots, side);
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
