#include "band_product.h"

#include <algorithm>

#include "engine.h"

namespace triconv {

namespace {

// Two multiplications or two loads a cycle, and some 6 independent sums at least (gemm-inl.h); vectors of b may be
// unaligned, which takes two loads, and come from the L2 cache.
double block_cycles(double rows, double cols) {
    const double sums = rows * cols;
    return std::max({sums / 2, rows / 2 + cols, sums >= 6 ? 4.0 : sums >= 3 ? 2.0 : 1.0}) + 0.25 * cols;
}

// One part of the reduction of every line.
template <class E>
void multiply_part(const KernelTable<E>& kernels, const BlockShape& shape, ProductArgs<E> args,
                   const ProductLines& lines, int rows, int cols) {
    const ProductArgs<E> whole = args;
    const EqualParts row_parts(rows, shape.rows), col_parts(cols, shape.cols);
    for (int col_part = 0, j = 0; col_part < col_parts.count; ++col_part, j += args.cols) {
        args.cols = col_parts.size(col_part);
        const std::ptrdiff_t first = j * whole.b_col - (col_part + 1 == col_parts.count ? lines.back : 0);
        for (int row_part = 0, i = 0; row_part < row_parts.count; ++row_part, i += args.rows) {
            args.rows = row_parts.size(row_part);
            for (std::int64_t line = 0; line < lines.count; ++line) {
                args.a = whole.a + line * lines.a + i * whole.a_row;
                args.b = whole.b + line * lines.b + first;
                args.c = whole.c + line * lines.c + i * whole.c_row + j * whole.c_col;
                kernels.direct_product.run(args);
            }
        }
    }
}

// The sums of the last block of each line to where they belong: they are of elements that far back.
template <class E>
void move_last_block(const BlockShape& shape, const ProductArgs<E>& args, const ProductLines& lines, int rows,
                     int cols) {
    const EqualParts parts(cols, shape.cols);
    const int last = parts.size(parts.count - 1);
    for (std::int64_t line = 0; line < lines.count; ++line)
        for (int i = 0; i < rows; ++i) {
            E* const block = args.c + line * lines.c + i * args.c_row + (cols - last) * args.c_col;
            std::copy_n(block, last * args.c_col, block - lines.back);
        }
}

}  // namespace

bool can_move_back(const BlockShape& shape, std::int64_t cols) {
    return cols > shape.cols;
}

template <class E>
BlockShape best_block(const DirectKernel<E>& kernel, std::int64_t rows, std::int64_t cols) {
    BlockShape best;
    if (rows <= 0) return best;
    for (int c = 1; c <= std::min<std::int64_t>(kernel.most_cols, cols); ++c) {
        const std::int64_t col_parts = (cols + c - 1) / c;
        const std::int64_t row_parts = (rows + kernel.most_rows[c - 1] - 1) / kernel.most_rows[c - 1];
        const std::int64_t wide = cols % col_parts, tall = rows % row_parts;  // parts one larger than the others
        const auto low_cols = static_cast<double>(cols / col_parts), low_rows = static_cast<double>(rows / row_parts);
        double cycles = 0;
        for (int w = 0; w < 2; ++w)
            for (int t = 0; t < 2; ++t)
                cycles += static_cast<double>((w ? wide : col_parts - wide) * (t ? tall : row_parts - tall)) *
                          block_cycles(low_rows + t, low_cols + w);
        if (c == 1 || cycles <= best.cycles)  // of equals the wider one: it loads less
            best = {static_cast<int>((rows + row_parts - 1) / row_parts),
                    static_cast<int>((cols + col_parts - 1) / col_parts), cycles};
    }
    return best;
}

template <class E>
void multiply_lines(const KernelTable<E>& kernels, const BlockShape& shape, const ProductArgs<E>& args,
                    const ProductLines& lines, int rows, int cols, E* partial) {
    const int part = std::max(1, max_reduction / std::max(1, args.length)), group = part * parts_per_group;
    const bool grouped = partial != nullptr && args.blocks > group;
    for (int first = 0; first < args.blocks; first += group) {
        const int end = std::min(first + group, args.blocks);
        for (int block = first; block < end; block += part) {
            ProductArgs<E> piece = args;
            piece.blocks = std::min(part, end - block);
            piece.full_blocks = std::clamp(args.full_blocks - block, 0, piece.blocks);
            piece.a_offset = args.a_offset + block;
            piece.b_offset = args.b_offset + block;
            if (grouped) piece.c = partial;
            piece.accumulate = block > first || (!grouped && (first > 0 || args.accumulate));
            multiply_part(kernels, shape, piece, lines, rows, cols);
        }
        if (!grouped) continue;
        const bool overwrite = first == 0 && !args.accumulate;
        for (std::int64_t line = 0; line < lines.count; ++line)
            for (int j = 0; j < cols; ++j)
                for (int i = 0; i < rows; ++i) {
                    const std::ptrdiff_t at = line * lines.c + i * args.c_row + j * args.c_col;
                    for (int l = 0; l < kernels.lanes; ++l)
                        args.c[at + l] = (overwrite ? E(0) : args.c[at + l]) + partial[at + l];
                }
    }
    if (lines.back > 0) move_last_block(shape, args, lines, rows, cols);
}

#define TRICONV_INSTANTIATE(E)                                                                                         \
    template BlockShape best_block(const DirectKernel<E>&, std::int64_t, std::int64_t);                                \
    template void multiply_lines(const KernelTable<E>&, const BlockShape&, const ProductArgs<E>&, const ProductLines&, \
                                 int, int, E*);
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
