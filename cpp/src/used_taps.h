// Kernels larger than the padded input needs: taps that meet nothing but the zeros around it, for every output, are left
// out of the layer, which may be most of them (14 taps on 7 samples, on three axes). What is not finite meets those zeros
// all the same: NaN in forward and weight_grad.
#pragma once

#include "pass.h"

namespace triconv {

template <class E>
class UsedTaps {
public:
    explicit UsedTaps(const Layer& whole);

    // The same outputs by the taps in use, and whether that are fewer.
    const Layer& layer() const { return layer_; }
    bool fewer() const { return fewer_; }

    // Weights and their gradient without the other taps.
    template <class T>
    Tensor<T> of(Tensor<T> weights) const {
        for (int a = 0; a < axes; ++a)
            weights.data += used_[a].begin * weights.along[a];
        return weights;
    }
    Operands<E> of(Operands<E> operands) const;
    // After a run with those, what the other taps do: `whole` has the arrays with all taps.
    void finish(Pass pass, const Operands<E>& whole, int max_threads) const;

private:
    template <class T, class F>
    void for_each_run_of_others(const Tensor<T>& weights, T* kernel, F f) const;
    E zeros_times_others(const Tensor<const E>& w, std::int64_t k) const;

    Layer layer_;  // of the taps in use
    Index whole_;  // taps along each axis
    std::array<TapRange, axes> used_{};
    bool fewer_ = false;
};

}  // namespace triconv
