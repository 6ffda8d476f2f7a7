// The kernel table of one instruction set: the function that fills it is the only symbol of this ISA that other objects can
// see.
#include "kernel_table.h"
#include "lines.h"
#include "products.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {
namespace {

template <class E>
KernelTable<E> make_table() {
    KernelTable<E> table{};
    table.isa = TRICONV_ISA_NAME;
    table.lanes = lanes<E>;
    fill_product_kernels(table);
    table.fft_line = fft_line<E>;
    table.winograd_line = winograd_line<E>;
    table.codelets_of_line = codelets_of_line;
    return table;
}

}  // namespace
}  // namespace triconv::TRICONV_ISA_NAMESPACE

extern "C" void TRICONV_ISA_ACCESSOR(triconv::IsaKernels* kernels) {
    using namespace triconv::TRICONV_ISA_NAMESPACE;
    *kernels = {make_table<float>(), make_table<double>()};
}
