// Definition of fill_product_kernels, instantiated once per element type (products_f32.cpp, products_f64.cpp).
#pragma once

#include "depthwise-inl.h"
#include "dots-inl.h"
#include "filter-inl.h"
#include "gemm-inl.h"
#include "products.h"
#include "tile_io-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template <class E, ProductKind kind>
void fill_product(KernelTable<E>& table) {
    table.product[static_cast<int>(kind)] = micro_kernel<E, kind>();
    table.lanewise[static_cast<int>(kind)] = lanewise<E, kind>;
}

template <class E>
void fill_product_kernels(KernelTable<E>& table) {
    fill_product<E, ProductKind::real>(table);
    fill_product<E, ProductKind::complex>(table);
    fill_product<E, ProductKind::complex_conj_a>(table);
    fill_product<E, ProductKind::complex_conj_b>(table);
    table.direct_product = {direct_rows, direct_cols, run_direct_product<E>};
    table.rotate = rotate<E>;
    table.read_row = read_row<E>;
    table.read_padded_rows = read_padded_rows<E>;
    table.write_row = write_row<E>;
    table.transpose = transpose_squares<E>;
    table.filter = {filter_rows, fewest_tap_vectors, filter<E>};
    table.dots = {most_planes, dots<E>};
    table.depthwise_outputs = depthwise_outputs;
    table.depthwise_forward = depthwise_forward<E>;
    table.depthwise_weight_grad = depthwise_weight_grad<E>;
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
