#include "used_taps.h"

#include <limits>

#include "parallel.h"

namespace triconv {

template <class E>
UsedTaps<E>::UsedTaps(const Layer& whole) : layer_(whole), whole_(whole.kernel_extent()) {
    for (int a = 0; a < axes; ++a) {
        used_[a] = whole.extended() ? TapRange{0, whole_[a]} : used_taps(whole.axis[a]);
        fewer_ = fewer_ || used_[a].end - used_[a].begin < whole_[a];
    }
    if (fewer_) layer_ = whole.with_taps(used_);
}

template <class E>
Operands<E> UsedTaps<E>::of(Operands<E> operands) const {
    if (operands.w.data) operands.w = of(operands.w);
    if (operands.dw.data) operands.dw = of(operands.dw);
    return operands;
}

// Calls f(first element, how many) for the taps of a kernel that are left out, row by row.
template <class E>
template <class T, class F>
void UsedTaps<E>::for_each_run_of_others(const Tensor<T>& weights, T* kernel, F f) const {
    for_each_index({whole_[0], whole_[1], 1}, [&](const Index& r) {
        bool in_use = true;
        for (int a = 0; a < axes - 1; ++a)
            in_use = in_use && r[a] >= used_[a].begin && r[a] < used_[a].end;
        T* const row = kernel + weights.offset_of(r);
        f(row, in_use ? used_[2].begin : whole_[2]);
        if (in_use) f(row + used_[2].end * weights.along[2], whole_[2] - used_[2].end);
    });
}

// Not 0 if a weight that is left out is not finite.
template <class E>
E UsedTaps<E>::zeros_times_others(const Tensor<const E>& w, std::int64_t k) const {
    E sum = 0;
    for (std::int64_t c = 0; c < layer_.in_per_group(); ++c)
        for_each_run_of_others(w, w.data + k * w.outer + c * w.inner, [&](const E* tap, std::int64_t count) {
            for (std::int64_t i = 0; i < count; ++i)
                sum += E(0) * tap[i * w.along[2]];
        });
    return sum;
}

// The padding is zeros.
template <class E>
void UsedTaps<E>::finish(Pass pass, const Operands<E>& whole, int max_threads) const {
    if (!fewer_ || pass == Pass::input_grad) return;
    parallel_for(layer_.out_channels, max_threads, [&](std::int64_t k, int) {
        const auto for_each_output = [&](auto f) {
            for (std::int64_t n = 0; n < layer_.batch; ++n)
                for_each_index(layer_.output_extent(), [&](const Index& o) { f(n, o); });
        };
        if (pass == Pass::forward) {
            if (zeros_times_others(whole.w, k) == E(0)) return;
            for_each_output([&](std::int64_t n, const Index& o) {
                whole.y.element(n, k, o) = std::numeric_limits<E>::quiet_NaN();
            });
            return;
        }
        E gradient = 0;
        for_each_output([&](std::int64_t n, const Index& o) { gradient += E(0) * whole.dy.element(n, k, o); });
        const Tensor<E>& dw = whole.dw;
        for (std::int64_t c = 0; c < layer_.in_per_group(); ++c)
            for_each_run_of_others(dw, dw.data + k * dw.outer + c * dw.inner, [&](E* tap, std::int64_t count) {
                for (std::int64_t i = 0; i < count; ++i)
                    tap[i * dw.along[2]] = gradient;
            });
    });
}

template class UsedTaps<float>;
template class UsedTaps<double>;

}  // namespace triconv
