// Rows between the user's arrays and lane vectors, for every ISA: each way across (lanes contiguous, pixels contiguous,
// every second pixel, any strides), all partial counts. The arrays adjoin an unmapped page on either side and start at
// any multiple of the element size; elements between those addressed keep their poison.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "dispatch.h"
#include "guarded_buffer.h"

namespace triconv {
namespace {

using test::Guard;
using test::GuardedBuffer;

template <class E>
constexpr E poison = E(-777);

struct Row {
    std::ptrdiff_t lane_stride, pixel_stride;
    int lane_count;
    std::int64_t count;

    // The addressed elements lie in [first, first + span) relative to element (0, 0).
    std::ptrdiff_t first() const {
        return std::min<std::ptrdiff_t>(0, (lane_count - 1) * lane_stride) +
               std::min<std::ptrdiff_t>(0, (count - 1) * pixel_stride);
    }
    std::ptrdiff_t span() const {
        if (lane_count == 0 || count == 0) return 0;
        return std::abs((lane_count - 1) * lane_stride) + std::abs((count - 1) * pixel_stride) + 1;
    }
    std::ptrdiff_t at(int lane, std::int64_t i) const { return -first() + lane * lane_stride + i * pixel_stride; }
};

std::ostream& operator<<(std::ostream& out, const Row& row) {
    return out << "lane_stride " << row.lane_stride << " pixel_stride " << row.pixel_stride << " lane_count "
               << row.lane_count << " count " << row.count;
}

std::vector<Row> rows_to_test(int lanes, bool only_distinct_elements) {
    std::vector<Row> rows;
    const std::int64_t counts[] = {0, 1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes + lanes / 2 + 1};
    for (std::int64_t count : counts) {
        for (int lane_count = 0; lane_count <= lanes; ++lane_count) {
            rows.push_back({1, lane_count, lane_count, count});
            rows.push_back({1, lanes + 3, lane_count, count});
            rows.push_back({count, 1, lane_count, count});
            rows.push_back({count + 5, 1, lane_count, count});
            rows.push_back({2 * count + 1, 2, lane_count, count});
            rows.push_back({2 * count - 1, 2, lane_count, count});
            rows.push_back({3 * count, 3, lane_count, count});
            rows.push_back({3, 3 * lanes, lane_count, count});
            rows.push_back({1, -lanes, lane_count, count});
            rows.push_back({-count, 1, lane_count, count});
            rows.push_back({-2 * count, 2, lane_count, count});
            rows.push_back({count, -1, lane_count, count});
            if (only_distinct_elements) continue;
            rows.push_back({1, 0, lane_count, count});
            rows.push_back({0, 1, lane_count, count});
            rows.push_back({0, 2, lane_count, count});
            rows.push_back({1, 1, lane_count, count});
            rows.push_back({2, 1, lane_count, count});
            rows.push_back({0, 0, lane_count, count});
        }
    }
    return rows;
}

template <class E>
void check_read(const KernelTable<E>& table, const Row& row, Guard side) {
    SCOPED_TRACE(row);
    const int lanes = table.lanes;
    GuardedBuffer<E> source(row.span(), side, 0), out(row.count * lanes, side, poison<E>);
    for (std::ptrdiff_t i = 0; i < source.size(); ++i)
        source[i] = static_cast<E>(i + 1);
    RowArgs<E> args{};
    args.lanes = out.data();
    args.source = source.data() - (row.span() > 0 ? row.first() : 0);
    args.lane_stride = row.lane_stride;
    args.pixel_stride = row.pixel_stride;
    args.lane_count = row.lane_count;
    args.count = row.count;
    table.read_row(args);
    for (std::int64_t i = 0; i < row.count; ++i) {
        for (int lane = 0; lane < lanes; ++lane) {
            const E expected = lane < row.lane_count ? source[row.at(lane, i)] : E(0);
            ASSERT_EQ(out[i * lanes + lane], expected) << "lane " << lane << " pixel " << i;
        }
    }
}

template <class E>
void check_write(const KernelTable<E>& table, const Row& row, Guard side, bool bias, bool add) {
    SCOPED_TRACE(::testing::Message() << row << " bias " << bias << " add " << add);
    const int lanes = table.lanes;
    const E nan = std::numeric_limits<E>::quiet_NaN();  // in the lanes not in use: must neither be written nor noticed
    GuardedBuffer<E> in(row.count * lanes, side, nan), destination(row.span(), side, poison<E>);
    GuardedBuffer<E> bias_values(lanes, side, nan);
    std::vector<E> expected(destination.begin(), destination.end());
    for (int lane = 0; lane < row.lane_count; ++lane)
        bias_values[lane] = static_cast<E>(1000 * (lane + 1));
    for (std::int64_t i = 0; i < row.count; ++i) {
        for (int lane = 0; lane < row.lane_count; ++lane) {
            E value = lane == 0 && i == 0 ? E(-0.0) : static_cast<E>(i * lanes + lane + 1);
            in[i * lanes + lane] = value;
            // Small integers: every sum is exact.
            if (bias) value += bias_values[lane];
            if (add) value += poison<E>;
            expected[row.at(lane, i)] = value;
        }
    }
    RowArgs<E> args{};
    args.lanes = in.data();
    args.destination = destination.data() - (row.span() > 0 ? row.first() : 0);
    args.lane_stride = row.lane_stride;
    args.pixel_stride = row.pixel_stride;
    args.lane_count = row.lane_count;
    args.count = row.count;
    args.bias = bias ? bias_values.data() : nullptr;
    args.add = add;
    ASSERT_FALSE(table.write_row(args));
    for (std::ptrdiff_t i = 0; i < destination.size(); ++i) {
        ASSERT_EQ(destination[i], expected[i]) << "element " << i;
        ASSERT_EQ(std::signbit(destination[i]), std::signbit(expected[i])) << "element " << i;
    }
}

// Lanes anywhere, some absent: rows of `count` pixels at multiples of a slot, in an order of their own.
template <class E>
void check_scattered(const KernelTable<E>& table, std::ptrdiff_t pixel_stride, std::int64_t count, unsigned absent,
                     Guard side) {
    SCOPED_TRACE(::testing::Message() << "pixel_stride " << pixel_stride << " count " << count << " absent " << absent);
    const int lanes = table.lanes;
    const std::ptrdiff_t slot = count > 0 ? (count - 1) * pixel_stride + 1 : 0;
    std::vector<std::ptrdiff_t> offset(static_cast<std::size_t>(lanes), absent_lane);
    std::ptrdiff_t used = 0;
    for (int lane = lanes; lane-- > 0;)
        if ((absent >> lane & 1) == 0) offset[static_cast<std::size_t>(lane)] = slot * used++;
    GuardedBuffer<E> array(slot * used, side, poison<E>), pixels(count * lanes, side, poison<E>);
    for (std::ptrdiff_t i = 0; i < array.size(); ++i)
        array[i] = static_cast<E>(i + 1);
    RowArgs<E> args{};
    args.lanes = pixels.data();
    args.source = args.destination = array.data();
    args.pixel_stride = pixel_stride;
    args.lane_count = lanes;
    args.count = count;
    args.lane_offset = offset.data();
    table.read_row(args);
    std::vector<E> expected(array.begin(), array.end());
    const E nan = std::numeric_limits<E>::quiet_NaN();  // in absent lanes: neither written nor noticed
    for (std::int64_t i = 0; i < count; ++i)
        for (int lane = 0; lane < lanes; ++lane) {
            const std::ptrdiff_t at = offset[static_cast<std::size_t>(lane)];
            E& pixel = pixels[i * lanes + lane];
            ASSERT_EQ(pixel, at == absent_lane ? E(0) : array[at + i * pixel_stride]) << lane << " pixel " << i;
            pixel = at == absent_lane ? nan : E(2) * pixel;
            if (at != absent_lane) expected[static_cast<std::size_t>(at + i * pixel_stride)] = pixel;
        }
    ASSERT_FALSE(table.write_row(args));
    for (std::ptrdiff_t i = 0; i < array.size(); ++i)
        ASSERT_EQ(array[i], expected[static_cast<std::size_t>(i)]) << "element " << i;
    for (int lane = 0; lane < lanes && count > 0; ++lane) {
        if (offset[static_cast<std::size_t>(lane)] == absent_lane) continue;
        pixels[(count - 1) * lanes + lane] = nan;
        ASSERT_TRUE(table.write_row(args)) << lane;
        pixels[(count - 1) * lanes + lane] = 1;
    }
}

template <class E>
void check_all_scattered(const KernelTable<E>& table) {
    const int lanes = table.lanes;
    for (std::ptrdiff_t pixel_stride : {1, 2, 3})
        for (int count : {0, 1, lanes - 1, lanes, 2 * lanes + 1})
            for (unsigned absent : {0u, 1u, 1u << (lanes - 1), 0x5555u, 0xffffu})
                for (Guard side : {Guard::before, Guard::after})
                    check_scattered(table, pixel_stride, count, absent, side);
}

template <class E>
void check_non_finite_detection(const KernelTable<E>& table) {
    const int lanes = table.lanes;
    const std::int64_t count = 2 * lanes + 1;
    const E infinity = std::numeric_limits<E>::infinity(), largest = std::numeric_limits<E>::max();
    for (const Row& row :
         {Row{1, lanes, lanes, count}, Row{1, lanes - 1, lanes - 1, count}, Row{count, 1, lanes, count},
          Row{count, 1, lanes - 1, count}, Row{3 * count, 3, lanes, count}}) {
        SCOPED_TRACE(row);
        GuardedBuffer<E> in(count * lanes, Guard::after, largest), destination(row.span(), Guard::after, 0);
        RowArgs<E> args{};
        args.lanes = in.data();
        args.destination = destination.data();
        args.lane_stride = row.lane_stride;
        args.pixel_stride = row.pixel_stride;
        args.lane_count = row.lane_count;
        args.count = count;
        EXPECT_FALSE(table.write_row(args)) << "the largest finite value is finite";
        for (E bad : {infinity, -infinity, std::numeric_limits<E>::quiet_NaN()}) {
            for (std::int64_t i : {std::int64_t{0}, count / 2, count - 1}) {
                for (int lane = 0; lane < row.lane_count; ++lane) {
                    in[i * lanes + lane] = bad;
                    ASSERT_TRUE(table.write_row(args)) << bad << " at lane " << lane << " pixel " << i;
                    in[i * lanes + lane] = 1;
                }
            }
        }
        // What counts is the value stored: finite parts may overflow, here in the last element.
        std::fill(in.begin(), in.end(), largest);
        std::fill(destination.begin(), destination.end(), E(0));
        destination[row.at(row.lane_count - 1, count - 1)] = largest;
        args.add = true;
        EXPECT_TRUE(table.write_row(args));
        std::fill(destination.begin(), destination.end(), E(0));
        GuardedBuffer<E> bias(lanes, Guard::after, 0);
        bias[0] = largest;
        args.bias = bias.data();
        EXPECT_TRUE(table.write_row(args));
    }
}

template <class E>
void check_all_reads(const KernelTable<E>& table) {
    for (const Row& row : rows_to_test(table.lanes, false)) {
        for (Guard side : {Guard::before, Guard::after})
            check_read(table, row, side);
    }
}

template <class E>
void check_all_writes(const KernelTable<E>& table) {
    for (const Row& row : rows_to_test(table.lanes, true)) {
        for (int options = 0; options < 4; ++options) {
            const Guard side = options % 2 == 0 ? Guard::before : Guard::after;
            check_write(table, row, side, (options & 1) != 0, (options & 2) != 0);
        }
        check_write(table, row, Guard::after, false, false);
    }
}

// Every row of samples adjoins an unmapped page, as does the plane; it may be as narrow as it likes.
template <class E>
void check_padded_rows(const KernelTable<E>& table, std::int64_t before, std::int64_t after, std::int64_t step,
                       Guard side) {
    constexpr std::int64_t rows = 3;
    for (std::int64_t count = 0; count <= 2 * table.lanes + 1; ++count) {
        const std::int64_t pitch = before + count + after, width = count == 0 ? 0 : (count - 1) * step + 1;
        test::GuardedRows<E> from(rows, width, side);
        GuardedBuffer<E> to(rows * pitch, side, poison<E>);
        for (std::int64_t i = 0; i < rows * width; ++i)
            from.row(i / width)[i % width] = static_cast<E>(1 + i);
        table.read_padded_rows({from.row(0), to.data(), from.pitch(), step, pitch, rows, before, count});
        for (std::int64_t i = 0; i < rows * pitch; ++i) {
            const std::int64_t x = i % pitch - before;
            ASSERT_EQ(to[i], x >= 0 && x < count ? static_cast<E>(1 + i / pitch * width + x * step) : E(0))
                << before << " + " << count << " + " << after << ", step " << step << ", entry " << i;
        }
    }
}
template <class E>
void check_padded_rows(const KernelTable<E>& table) {
    const std::int64_t lanes = table.lanes;
    for (const std::int64_t before : {std::int64_t{0}, std::int64_t{1}, lanes - 1, lanes, 2 * lanes + 1})
        for (const std::int64_t after : {std::int64_t{0}, std::int64_t{1}, lanes, lanes + 2})
            for (const std::int64_t step : {1, 2})
                for (const Guard side : {Guard::before, Guard::after})
                    check_padded_rows(table, before, after, step, side);
}

template <class E>
void check_transpose(const KernelTable<E>& table) {
    const std::ptrdiff_t n = table.lanes, count = 3;
    for (std::ptrdiff_t stride : {n, 2 * n, 5 * n})
        for (Guard side : {Guard::before, Guard::after}) {
            const std::ptrdiff_t step = n * stride, size = count * step - stride + n;
            GuardedBuffer<E> in(size, side, poison<E>), out(size, side, poison<E>);
            for (std::ptrdiff_t i = 0; i < size; ++i)
                in.data()[i] = static_cast<E>(i);
            table.transpose({in.data(), out.data(), stride, stride, step, step, static_cast<int>(count)});
            for (std::ptrdiff_t i = 0; i < size; ++i) {
                const std::ptrdiff_t square = i / step, row = i % step / stride, column = i % stride;
                ASSERT_EQ(out.data()[i], column < n ? static_cast<E>(square * step + column * stride + row) : poison<E>)
                    << "stride " << stride << " element " << i;
            }
        }
}

class TileIoOfIsa : public ::testing::TestWithParam<std::string> {};

TEST_P(TileIoOfIsa, ReadsAnyStridesFloat) {
    check_all_reads(table_of<float>(kernels(GetParam())));
}
TEST_P(TileIoOfIsa, ReadsAnyStridesDouble) {
    check_all_reads(table_of<double>(kernels(GetParam())));
}
TEST_P(TileIoOfIsa, WritesAnyStridesFloat) {
    check_all_writes(table_of<float>(kernels(GetParam())));
}
TEST_P(TileIoOfIsa, WritesAnyStridesDouble) {
    check_all_writes(table_of<double>(kernels(GetParam())));
}
TEST_P(TileIoOfIsa, ReadsAndWritesLanesAnywhere) {
    check_all_scattered(table_of<float>(kernels(GetParam())));
    check_all_scattered(table_of<double>(kernels(GetParam())));
}
TEST_P(TileIoOfIsa, ReadsPaddedRows) {
    check_padded_rows(kernels(GetParam()).f32);
    check_padded_rows(kernels(GetParam()).f64);
}
TEST_P(TileIoOfIsa, TransposesSquares) {
    check_transpose(kernels(GetParam()).f32);
    check_transpose(kernels(GetParam()).f64);
}

TEST_P(TileIoOfIsa, NoticesWhatIsNotFinite) {
    check_non_finite_detection(table_of<float>(kernels(GetParam())));
    check_non_finite_detection(table_of<double>(kernels(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Isa, TileIoOfIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace triconv
