#include "pass.h"

#include <algorithm>

#include "float_mode.h"
#include "parallel.h"
#include "reference.h"
#include "workspace.h"

namespace triconv {

template <class E>
void fill_zero(const Tensor<E>& tensor, std::int64_t outer, std::int64_t inner, const Index& extent, int max_threads) {
    parallel_for(outer * inner, max_threads, [&](std::int64_t i, int) {
        E* const channel = tensor.data + i / inner * tensor.outer + i % inner * tensor.inner;
        for (std::int64_t z = 0; z < extent[0]; ++z)
            for (std::int64_t y = 0; y < extent[1]; ++y) {
                E* const line = channel + z * tensor.along[0] + y * tensor.along[1];
                for (std::int64_t x = 0; x < extent[2]; ++x)
                    line[x * tensor.along[2]] = E(0);
            }
    });
}

Runner serial_runner(int slot) {
    return [slot](std::int64_t count, const auto& task) {
        for (std::int64_t i = 0; i < count; ++i)
            task(i, slot);
    };
}

Runner parallel_runner(int slots) {
    return [slots](std::int64_t count, const auto& task) { parallel_for(count, slots, task); };
}

template <class E>
void add_group(E* total, const E* part, std::size_t size, bool overwrite, int max_threads) {
    constexpr std::size_t piece = 1 << 14;
    parallel_for(static_cast<std::int64_t>((size + piece - 1) / piece), max_threads, [&](std::int64_t i, int) {
        const std::size_t first = static_cast<std::size_t>(i) * piece, last = std::min(size, first + piece);
        if (overwrite) return void(std::copy(part + first, part + last, total + first));
        for (std::size_t j = first; j < last; ++j)
            total[j] += part[j];
    });
}

template <class E>
void spread_bias(const Operands<E>& operands, const LaneBlocks& blocks, int lanes, E* bias) {
    for (const LaneBlock& block : blocks.blocks) {
        std::fill_n(bias, lanes, E(0));
        for (int l = 0; l < block.lanes; ++l)
            bias[l] = operands.bias[(block.channel + l * block.channel_step) * operands.bias_stride];
        bias += lanes;
    }
}

template <class E>
std::int64_t recompute_outputs(const Layer& layer, Pass pass, const Operands<E>& operands,
                               const std::vector<DamagedBox>& boxes, int max_threads) {
    if (pass == Pass::forward)
        set_outputs(operands.y, boxes, max_threads, [&](std::int64_t n, std::int64_t k, const Index& o) {
            const E* const bias = operands.bias ? operands.bias + k * operands.bias_stride : nullptr;
            return reference_forward_at(layer, operands.x, operands.w, bias, n, k, o);
        });
    else
        set_outputs(operands.dx, boxes, max_threads, [&](std::int64_t n, std::int64_t c, const Index& i) {
            return reference_input_grad_at(layer, operands.w, operands.dy, n, c, i);
        });
    return static_cast<std::int64_t>(boxes.size());
}

// Of the sums by definition.
template <class E>
double PassAlgorithm<E>::terms_of(const std::vector<DamagedBox>& boxes) const {
    double outputs = 0;
    for (const DamagedBox& box : boxes) {
        double of_box = box.block.lanes;
        for (int a = 0; a < axes; ++a)
            of_box *= static_cast<double>(box.end[a] - box.begin[a]);
        outputs += of_box;
    }
    const std::int64_t channels = pass_ == Pass::forward ? layer_.in_per_group() : layer_.out_per_group();
    return outputs * static_cast<double>(channels * layer_.taps());
}

template <class E>
RunCounts PassAlgorithm<E>::run(const Operands<E>& operands, int slots, char* workspace, bool may_allocate) const {
    constexpr double few_terms = 1 << 19;  // milliseconds
    Damage damage(slots);
    RunCounts counts = compute(operands, slots, workspace, damage);
    const std::vector<DamagedBox> boxes = damage.all();
    const PassAlgorithm* const repair =
        may_allocate && make_repair_ && terms_of(boxes) > few_terms ? repair_.get(make_repair_).get() : nullptr;
    if (repair) {
        Operands<E> unprepared = operands;
        unprepared.prepared = nullptr;
        const Workspace own(static_cast<std::size_t>(repair->workspace_bytes(slots)));
        counts.recomputed += repair->run(unprepared, slots, static_cast<char*>(own.data())).recomputed;
    } else {
        counts.recomputed += recompute_outputs(layer_, pass_, operands, boxes, slots);
    }
    return counts;
}

template <class E>
void recompute_weight_grad(const Layer& layer, const Operands<E>& operands, const LaneBlock& x, const LaneBlock& y,
                           bool lanewise, const Index& first, const Index& step) {
    const FloatMode mode(Denormals::keep);
    const Tensor<E>& dw = operands.dw;
    for (int j = 0; j < y.lanes; ++j)
        for (int l = 0; l < x.lanes; ++l) {
            if (lanewise && j != l) continue;
            const std::int64_t k = y.channel + j * y.channel_step;
            const std::int64_t c = (x.channel + l * x.channel_step) % layer.in_per_group();
            Index r;
            for (r[0] = first[0]; r[0] < layer.axis[0].kernel; r[0] += step[0])
                for (r[1] = first[1]; r[1] < layer.axis[1].kernel; r[1] += step[1])
                    for (r[2] = first[2]; r[2] < layer.axis[2].kernel; r[2] += step[2])
                        dw.element(k, c, r) = reference_weight_grad_at(layer, operands.x, operands.dy, k, c, r);
        }
}

#define TRICONV_INSTANTIATE(E)                                                                                      \
    template class PassAlgorithm<E>;                                                                                \
    template void fill_zero(const Tensor<E>&, std::int64_t, std::int64_t, const Index&, int);                       \
    template void add_group(E*, const E*, std::size_t, bool, int);                                                  \
    template void spread_bias(const Operands<E>&, const LaneBlocks&, int, E*);                                      \
    template std::int64_t recompute_outputs(const Layer&, Pass, const Operands<E>&, const std::vector<DamagedBox>&, \
                                            int);                                                                   \
    template void recompute_weight_grad(const Layer&, const Operands<E>&, const LaneBlock&, const LaneBlock&, bool, \
                                        const Index&, const Index&);
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
