// The matrix products of direct convolution: c (+)= a * b by the kernels' direct_product, cut into register blocks. As
// everywhere, the reduction is cut into parts of at most max_reduction steps, each summed apart, and long ones into
// groups of parts (engine.h).
#pragma once

#include "cpu.h"
#include "kernel_table.h"

namespace triconv {

// Passes through a unit for multiply-adds that one of the kernels' vectors takes.
template <class E>
double fma_steps(const KernelTable<E>& kernels) {
    return cpu_fma_steps(kernels.lanes * static_cast<int>(sizeof(E)));
}

// The size of the register blocks for a product, and what they cost.
struct BlockShape {
    int rows = 1, cols = 1;
    double cycles = 0;  // estimate for one step of the reduction of the whole product
};
template <class E>
BlockShape best_block(const DirectKernel<E>& kernel, std::int64_t rows, std::int64_t cols);

// Products that differ in where their rows or columns start: lines of outputs.
struct ProductLines {
    std::int64_t count = 1;
    std::ptrdiff_t a = 0, b = 0, c = 0;  // from one to the next
    // The last block of columns is taken that many elements earlier, so that nothing behind a line's last element is read,
    // and its sums are moved to match.
    std::int64_t back = 0;
};
// Whether the last of so many columns has a block before its own, into which it may move.
bool can_move_back(const BlockShape& shape, std::int64_t cols);

// args: the product of a line; its rows and cols are ignored. partial: room for a second c, needed only for reductions
// above max_reduction * parts_per_group steps that should be summed in groups.
template <class E>
void multiply_lines(const KernelTable<E>& kernels, const BlockShape& shape, const ProductArgs<E>& args,
                    const ProductLines& lines, int rows, int cols, E* partial = nullptr);

}  // namespace triconv
