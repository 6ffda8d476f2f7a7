// The micro-kernels and lane-wise products of every ISA against sums in long double: every register-block shape, both
// uses of the addressing, conjugation, accumulation; operands end at an unmapped page and poison around c stays.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "guarded_buffer.h"

namespace triconv {
namespace {

using test::Guard;
using test::GuardedBuffer;
using Exact = std::complex<long double>;

constexpr ProductKind all_kinds[] = {ProductKind::real, ProductKind::complex, ProductKind::complex_conj_a,
                                     ProductKind::complex_conj_b};

Exact exact_product(ProductKind kind, Exact a, Exact b) {
    return (kind == ProductKind::complex_conj_a ? std::conj(a) : a) *
           (kind == ProductKind::complex_conj_b ? std::conj(b) : b);
}

template <class E>
Exact number_at(ProductKind kind, const E* p, std::ptrdiff_t im) {
    return {p[0], kind == ProductKind::real ? 0.0L : p[im]};
}

// Rounding errors of a sum of `terms` products add up like a random walk: each is at most epsilon times the partial
// sum, itself at most `magnitude`, the sum of |a||b|. The imaginary part of a complex product is three such sums, one of
// them of up to twice the magnitude: sqrt(4 + 1 + 1) / 2 of the first is less than sqrt(2).
template <class E>
long double tolerance(std::ptrdiff_t terms, long double magnitude) {
    return std::numeric_limits<E>::epsilon() * (4 + std::sqrt(2.0L * static_cast<long double>(terms))) * magnitude;
}

template <class E>
void fill_random(GuardedBuffer<E>& buffer, std::mt19937& generator) {
    std::uniform_real_distribution<E> distribution(-1, 1);
    for (E& value : buffer)
        value = distribution(generator);
}

template <class E>
constexpr E poison = E(12345.5);

struct ProductCase {
    std::ptrdiff_t a_row, a_step;  // of a
    int blocks, full_blocks, length, tail_length;
    bool accumulate, wide_strides;
    Guard side;
    bool misaligned_b = false;
};

// All operands of one call. Blocks of a and b are stored in reverse order, so that the offsets matter.
template <class E>
struct ProductCall {
    ProductArgs<E> args{};
    std::vector<std::ptrdiff_t> a_offset, b_offset;
    GuardedBuffer<E> a, b, c;
    std::vector<E> c_before;

    static std::ptrdiff_t a_span(const ProductCase& k, int rows) {
        return (rows - 1) * k.a_row + std::max(k.length, k.tail_length) * k.a_step;
    }
    ProductCall(const ProductCase& k, ProductKind kind, int lanes, int rows, int cols, std::mt19937& generator)
        : a(parts(kind) * std::max(1, k.blocks) * a_span(k, rows), k.side, E(0)),
          b(parts(kind) * std::max(1, k.blocks) * std::max(k.length, k.tail_length) * gap(k) * cols * lanes +
                (k.misaligned_b ? 1 : 0),
            k.side, E(0)),
          c(parts(kind) * rows * cols * gap(k) * lanes, k.side, poison<E>) {
        fill_random(a, generator);
        fill_random(b, generator);
        const std::ptrdiff_t b_block = std::max(k.length, k.tail_length) * gap(k) * cols * lanes;
        for (int block = 0; block < k.blocks; ++block) {
            a_offset.push_back((k.blocks - 1 - block) * a_span(k, rows));
            b_offset.push_back((k.blocks - 1 - block) * b_block);
        }
        args.a = a.data();
        args.b = b.data() + (k.misaligned_b && k.side == Guard::before ? 1 : 0);  // after: one element below the end
        args.c = c.data();
        args.a_im = a.size() / 2;
        args.b_im = b.size() / 2;
        args.c_im = c.size() / 2;
        args.a_offset = a_offset.data();
        args.b_offset = b_offset.data();
        args.blocks = k.blocks;
        args.full_blocks = k.full_blocks;
        args.length = k.length;
        args.tail_length = k.tail_length;
        args.a_row = k.a_row;
        args.a_step = k.a_step;
        args.b_step = lanes;
        args.b_col = std::max(k.length, k.tail_length) * gap(k) * lanes;
        if (!k.wide_strides) {
            args.b_step = cols * lanes;
            args.b_col = lanes;
        }
        args.c_col = gap(k) * lanes;
        args.c_row = cols * args.c_col;
        args.rows = rows;
        args.cols = cols;
        args.accumulate = k.accumulate;
        c_before.assign(c.begin(), c.end());
    }
    static int parts(ProductKind kind) { return kind == ProductKind::real ? 1 : 2; }
    static int gap(const ProductCase& k) { return k.wide_strides ? 3 : 1; }
};

template <class E>
void check_element(const ProductCall<E>& call, ProductKind kind, const E* c, int i, int j, int lane) {
    const ProductArgs<E>& p = call.args;
    Exact sum = 0;
    long double magnitude = 0;
    std::ptrdiff_t terms = 0;
    const std::ptrdiff_t at = i * p.c_row + j * p.c_col + lane;
    if (p.accumulate) {
        sum = number_at(kind, call.c_before.data() + at, p.c_im);
        magnitude = std::abs(sum);
    }
    for (int block = 0; block < p.blocks; ++block) {
        const int length = block < p.full_blocks ? p.length : p.tail_length;
        for (int t = 0; t < length; ++t) {
            const Exact a = number_at(kind, p.a + p.a_offset[block] + i * p.a_row + t * p.a_step, p.a_im);
            const Exact b = number_at(kind, p.b + p.b_offset[block] + t * p.b_step + j * p.b_col + lane, p.b_im);
            sum += exact_product(kind, a, b);
            magnitude += std::abs(a) * std::abs(b);
            ++terms;
        }
    }
    ASSERT_LE(std::abs(number_at(kind, c + at, p.c_im) - sum), tolerance<E>(terms, magnitude))
        << "i " << i << " j " << j << " lane " << lane;
}

template <class E>
void check_product(int lanes, void (*run)(const ProductArgs<E>&), ProductKind kind, const ProductCase& k, int rows,
                   int cols) {
    SCOPED_TRACE(::testing::Message() << "kind " << static_cast<int>(kind) << " rows " << rows << " cols " << cols
                                      << " a_row " << k.a_row << " a_step " << k.a_step << " blocks " << k.blocks
                                      << " length " << k.length << " accumulate " << k.accumulate);
    std::mt19937 generator(1);
    ProductCall<E> call(k, kind, lanes, rows, cols, generator);
    run(call.args);
    std::vector<bool> written(call.c_before.size());
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < cols; ++j) {
            for (int lane = 0; lane < lanes; ++lane) {
                const std::ptrdiff_t at = i * call.args.c_row + j * call.args.c_col + lane;
                written[at] = true;
                if (kind != ProductKind::real) written[at + call.args.c_im] = true;
                check_element(call, kind, call.c.data(), i, j, lane);
            }
        }
    }
    for (std::size_t at = 0; at < written.size(); ++at) {
        if (written[at]) continue;
        ASSERT_EQ(call.c[at], poison<E>) << "written outside c at " << at;
    }
}

template <class E>
void check_all_shapes(const KernelTable<E>& table) {
    const ProductCase cases[] = {
        {37, 1, 3, 2, table.lanes, table.lanes / 2 + 1, false, false, Guard::after},  // channels in lane blocks
        {table.lanes * 5, 1, 2, 2, table.lanes, 0, true, true, Guard::before},
        {1, table.lanes, 1, 1, 61, 0, false, true, Guard::after},  // rows are the lanes of one vector
        {1, table.lanes, 4, 3, 17, 5, true, false, Guard::before},
        {7, 45, 2, 1, 3, 1, true, true, Guard::after},
        {1, 1, 1, 0, 9, 1, false, false, Guard::after},
        {1, 1, 0, 0, 1, 1, false, false, Guard::after},  // no block: zero
        {1, 1, 0, 0, 1, 1, true, false, Guard::after},   // no block: c as it was
    };
    for (ProductKind kind : all_kinds) {
        const MicroKernel<E>& kernel = table.product[static_cast<int>(kind)];
        ASSERT_GE(kernel.mr, 1);
        ASSERT_GE(kernel.nr, 1);
        for (int rows = 1; rows <= kernel.mr; ++rows) {
            for (int cols = 1; cols <= kernel.nr; ++cols) {
                for (const ProductCase& k : cases)
                    check_product(table.lanes, kernel.run, kind, k, rows, cols);
            }
        }
    }
}

// Two ways to walk a, aligned b or not, and every shape up to the largest rows of each number of columns.
template <class E>
void check_direct_shapes(const KernelTable<E>& table) {
    const DirectKernel<E>& kernel = table.direct_product;
    ASSERT_GE(kernel.most_cols, 1);
    for (std::ptrdiff_t a_row : {std::ptrdiff_t{1}, std::ptrdiff_t{table.lanes}}) {
        const std::ptrdiff_t a_step = a_row == 1 ? table.lanes : 1;
        const ProductCase cases[] = {
            {a_row, a_step, 3, 2, table.lanes, table.lanes / 2 + 1, false, false, Guard::after},
            {a_row, a_step, 4, 3, 7, 3, true, true, Guard::before, true},
            {a_row, a_step, 1, 1, 61, 0, true, false, Guard::after, true},
            {a_row, a_step, 0, 0, 1, 1, false, false, Guard::after},  // no block: zero
        };
        for (int cols = 1; cols <= kernel.most_cols; ++cols) {
            ASSERT_GE(kernel.most_rows[cols - 1], 1);
            for (int rows = 1; rows <= kernel.most_rows[cols - 1]; ++rows) {
                for (const ProductCase& k : cases)
                    check_product(table.lanes, kernel.run, ProductKind::real, k, rows, cols);
            }
        }
    }
}

struct LanewiseCase {
    int rows;
    bool b_varies, sum_rows, accumulate;
};

template <class E>
void check_lanewise(const KernelTable<E>& table, ProductKind kind, const LanewiseCase& k) {
    SCOPED_TRACE(::testing::Message() << "kind " << static_cast<int>(kind) << " rows " << k.rows << " b varies "
                                      << k.b_varies << " sum " << k.sum_rows << " accumulate " << k.accumulate);
    const int lanes = table.lanes, parts = kind == ProductKind::real ? 1 : 2, room = std::max(1, k.rows);
    std::mt19937 generator(2);
    GuardedBuffer<E> a(parts * room * 2 * lanes, Guard::after, 0), b(parts * room * lanes, Guard::after, 0),
        c(parts * room * 3 * lanes, Guard::after, poison<E>);
    fill_random(a, generator);
    fill_random(b, generator);
    const std::vector<E> before(c.begin(), c.end());
    LanewiseArgs<E> args{};
    args.a = a.data();
    args.b = b.data();
    args.c = c.data();
    args.a_im = a.size() / 2;
    args.b_im = b.size() / 2;
    args.c_im = c.size() / 2;
    args.a_row = 2 * lanes;
    args.b_row = k.b_varies ? lanes : 0;
    args.c_row = k.sum_rows ? 0 : 3 * lanes;
    args.rows = k.rows;
    args.accumulate = k.accumulate;
    table.lanewise[static_cast<int>(kind)](args);

    const int outputs = k.sum_rows ? 1 : k.rows;
    std::vector<E> expected_untouched = before;
    for (int i = 0; i < outputs; ++i) {
        for (int lane = 0; lane < lanes; ++lane) {
            const std::ptrdiff_t at = i * args.c_row + lane;
            Exact sum = k.accumulate ? number_at(kind, before.data() + at, args.c_im) : 0;
            long double magnitude = std::abs(sum);
            for (int row = k.sum_rows ? 0 : i; row < (k.sum_rows ? k.rows : i + 1); ++row) {
                const Exact x = number_at(kind, args.a + row * args.a_row + lane, args.a_im);
                const Exact y = number_at(kind, args.b + row * args.b_row + lane, args.b_im);
                sum += exact_product(kind, x, y);
                magnitude += std::abs(x) * std::abs(y);
            }
            // Summed pairwise in short chains: a constant, whatever the number of rows.
            ASSERT_LE(std::abs(number_at(kind, args.c + at, args.c_im) - sum), tolerance<E>(4, magnitude));
            expected_untouched[at] = c[at];
            if (parts == 2) expected_untouched[at + args.c_im] = c[at + args.c_im];
        }
    }
    ASSERT_TRUE(std::equal(c.begin(), c.end(), expected_untouched.begin())) << "written outside c";
}

template <class E>
void check_all_lanewise(const KernelTable<E>& table) {
    for (ProductKind kind : all_kinds) {
        for (int rows : {0, 1, 2, 3, 4, 5, 7, 8, 128, 129, 1001}) {
            for (bool accumulate : {false, true}) {
                check_lanewise(table, kind, {rows, false, false, accumulate});
                check_lanewise(table, kind, {rows, true, false, accumulate});
                check_lanewise(table, kind, {rows, true, true, accumulate});
            }
        }
    }
}

template <class E>
void check_rotate(const KernelTable<E>& table, int count, bool conjugate) {
    SCOPED_TRACE(::testing::Message() << count << " conjugate " << conjugate);
    const int lanes = table.lanes;
    std::mt19937 generator(3);
    GuardedBuffer<E> values(2 * lanes * count, Guard::after, 0), vectors(2 * lanes * count, Guard::after, 0),
        numbers(2 * count, Guard::after, 0);
    for (GuardedBuffer<E>* buffer : {&values, &vectors, &numbers})
        fill_random(*buffer, generator);
    const std::vector<E> before(values.begin(), values.end());
    table.rotate({values.data(), vectors.data(), numbers.data(), count, conjugate});
    const ProductKind kind = conjugate ? ProductKind::complex_conj_b : ProductKind::complex;
    for (int i = 0; i < count; ++i)
        for (int at = 2 * lanes * i; at < 2 * lanes * i + lanes; ++at) {
            const Exact factor =
                number_at(kind, vectors.data() + at, lanes) * number_at(kind, numbers.data() + 2 * i, 1);
            const Exact value = number_at(kind, before.data() + at, lanes);
            ASSERT_LE(std::abs(number_at(kind, values.data() + at, lanes) - exact_product(kind, value, factor)),
                      tolerance<E>(4, std::abs(value) * std::abs(factor)));
        }
}

class ProductsOfIsa : public ::testing::TestWithParam<std::string> {};

TEST_P(ProductsOfIsa, EveryShapeOfDirectProductMatchesTheExactSumFloat) {
    check_direct_shapes(table_of<float>(kernels(GetParam())));
}
TEST_P(ProductsOfIsa, EveryShapeOfDirectProductMatchesTheExactSumDouble) {
    check_direct_shapes(table_of<double>(kernels(GetParam())));
}

TEST_P(ProductsOfIsa, EveryShapeOfMicroKernelMatchesTheExactSumFloat) {
    check_all_shapes(table_of<float>(kernels(GetParam())));
}
TEST_P(ProductsOfIsa, EveryShapeOfMicroKernelMatchesTheExactSumDouble) {
    check_all_shapes(table_of<double>(kernels(GetParam())));
}
TEST_P(ProductsOfIsa, LanewiseMatchesTheExactSumFloat) {
    check_all_lanewise(table_of<float>(kernels(GetParam())));
}
TEST_P(ProductsOfIsa, LanewiseMatchesTheExactSumDouble) {
    check_all_lanewise(table_of<double>(kernels(GetParam())));
}
TEST_P(ProductsOfIsa, RotateMatchesTheExactProduct) {
    for (int count : {1, 2, 3, 8})
        for (bool conjugate : {false, true}) {
            check_rotate(table_of<float>(kernels(GetParam())), count, conjugate);
            check_rotate(table_of<double>(kernels(GetParam())), count, conjugate);
        }
}

INSTANTIATE_TEST_SUITE_P(Isa, ProductsOfIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace triconv
