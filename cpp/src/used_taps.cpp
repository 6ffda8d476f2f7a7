#include "used_taps.h"

#include <limits>

#include "parallel.h"

namespace triconv {

template <class E>
UsedTaps<E>::UsedTaps(const Layer& whole) : layer_(whole) {
    for (int a = 0; a < axes; ++a) {
        const TapRange used = whole.extended() ? TapRange{0, whole.axis[a].kernel} : used_taps(whole.axis[a]);
        first_[a] = used.begin;
        end_[a] = used.end;
        kernel_[a] = whole.axis[a].kernel;
        fewer_ = fewer_ || used.end - used.begin < kernel_[a];
    }
    if (fewer_) layer_ = whole.with_taps(first_, end_);
}

template <class E>
Operands<E> UsedTaps<E>::of(Operands<E> operands) const {
    if (operands.w.data) operands.w = of(operands.w);
    if (operands.dw.data) operands.dw = of(operands.dw);
    return operands;
}

namespace {

template <class E>
E& element(const Tensor<E>& tensor, std::int64_t outer, std::int64_t inner, const Index& i) {
    return tensor.data[outer * tensor.outer + inner * tensor.inner + i[0] * tensor.along[0] + i[1] * tensor.along[1] +
                       i[2] * tensor.along[2]];
}

}  // namespace

// Calls f(first element, how many) for the taps of a kernel that are left out, row by row.
template <class E>
template <class T, class F>
void UsedTaps<E>::for_each_run_of_others(const Tensor<T>& weights, T* kernel, F f) const {
    for_each_index({kernel_[0], kernel_[1], 1}, [&](const Index& r) {
        bool in_use = true;
        for (int a = 0; a < axes - 1; ++a)
            in_use = in_use && r[a] >= first_[a] && r[a] < end_[a];
        T* const row = kernel + r[0] * weights.along[0] + r[1] * weights.along[1];
        f(row, in_use ? first_[2] : kernel_[2]);
        if (in_use) f(row + end_[2] * weights.along[2], kernel_[2] - end_[2]);
        return true;
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
    const Index outputs{layer_.axis[0].out, layer_.axis[1].out, layer_.axis[2].out};
    parallel_for(layer_.out_channels, max_threads, [&](std::int64_t k, int) {
        const auto for_each_output = [&](auto f) {
            for (std::int64_t n = 0; n < layer_.batch; ++n)
                for_each_index(outputs, [&](const Index& o) {
                    f(n, o);
                    return true;
                });
        };
        if (pass == Pass::forward) {
            if (zeros_times_others(whole.w, k) == E(0)) return;
            for_each_output([&](std::int64_t n, const Index& o) {
                element(whole.y, n, k, o) = std::numeric_limits<E>::quiet_NaN();
            });
            return;
        }
        E gradient = 0;
        for_each_output([&](std::int64_t n, const Index& o) { gradient += E(0) * element(whole.dy, n, k, o); });
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
