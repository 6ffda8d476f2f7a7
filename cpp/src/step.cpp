// A training step: the passes of a plan with transforms in common, where that pays.
#include <limits>
#include <variant>

#include "plan_impl.h"
#include "transform_pass.h"

namespace triconv {

class StepImpl {
public:
    StepImpl(const Plan& plan, std::shared_ptr<const PlanImpl> impl, const ConstView& x, const ConstView& w)
        : plan_(plan), impl_(std::move(impl)), x_(x), w_(w) {
        impl_->visit([&](const auto& typed) { prepare(typed); });
    }

    bool reuses() const { return !std::holds_alternative<std::monostate>(step_); }

    RunInfo forward(const void* bias, std::ptrdiff_t bias_stride, const View& y) {
        if (!reuses()) return plan_.forward(x_, w_, bias, bias_stride, y);
        const Views views{&x_, &w_, nullptr, &y, nullptr, nullptr, bias, bias_stride};
        views.check(plan_.problem());
        return impl_->visit([&](const auto& typed) {
            using E = decltype(element_of(typed));
            const auto& step = std::get<TransformStep<E>>(step_);
            kept_ = Workspace(static_cast<std::size_t>(step.kept_bytes()));
            return info_of(typed, step.forward(views.operands<E>(plan_.problem().rank), std::numeric_limits<int>::max(),
                                               static_cast<E*>(kept_.data())));
        });
    }

    RunInfo backward(const ConstView& dy, const View& dx, const View& dw) {
        if (!reuses() || !kept_.data()) {
            RunInfo info;
            if (dx.data) info = plan_.input_grad(w_, dy, dx);
            if (dw.data) {
                const RunInfo second = plan_.weight_grad(x_, dy, dw);
                info.algorithm = info.algorithm.empty() ? second.algorithm : info.algorithm + "," + second.algorithm;
                info.isa = second.isa;
                info.tiles += second.tiles;
                info.recomputed_tiles += second.recomputed_tiles;
            }
            return info;
        }
        const Views views{&x_, &w_, &dy, nullptr, dx.data ? &dx : nullptr, dw.data ? &dw : nullptr, nullptr, 0};
        views.check(plan_.problem());
        return impl_->visit([&](const auto& typed) {
            using E = decltype(element_of(typed));
            return info_of(typed, std::get<TransformStep<E>>(step_).backward(views.operands<E>(plan_.problem().rank),
                                                                             std::numeric_limits<int>::max(),
                                                                             static_cast<const E*>(kept_.data())));
        });
    }

private:
    // One tile shape must serve all passes: that of the forward pass, unless it is direct. Shared where that is predicted
    // to be faster than the passes by themselves.
    template <class E>
    void prepare(const TypedPlan<E>& typed) {
        const Problem& p = plan_.problem();
        if (!has_x(p) || !has_y(p) || impl_->limits_workspace() || typed.layer().extended() || typed.taps().fewer())
            return;
        const PlannedPass<E>& forward = typed.pass(Pass::forward);
        if (forward.costed.direct || typed.pass(Pass::weight_grad).costed.direct ||
            typed.pass(Pass::input_grad).costed.direct)
            return;
        const Costed& tiles = forward.costed;
        const StepCost shared = cost_step(typed.table(), typed.layer(), tiles.shape, tiles.lane_kind);
        double apart = 0;
        for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad})
            apart += typed.pass(pass).costed.candidate.predicted_seconds;
        if (shared.seconds > apart) return;
        name_ = tiles.candidate.algorithm;
        step_.template emplace<TransformStep<E>>(typed.table(), typed.layer(), tiles.shape, tiles.lane_kind,
                                                 shared.rows);
    }

    template <class E>
    RunInfo info_of(const TypedPlan<E>& typed, const RunCounts& counts) const {
        return {name_, typed.table().isa, counts.tiles, counts.recomputed};
    }

    Plan plan_;
    std::shared_ptr<const PlanImpl> impl_;
    ConstView x_, w_;
    std::variant<std::monostate, TransformStep<float>, TransformStep<double>> step_;
    std::string name_;
    Workspace kept_;
};

Step::Step(const Plan& plan, const ConstView& x, const ConstView& w)
    : impl_(std::make_unique<StepImpl>(plan, plan.impl_, x, w)) {}
Step::~Step() = default;
RunInfo Step::forward(const void* bias, std::ptrdiff_t bias_stride, const View& y) {
    return impl_->forward(bias, bias_stride, y);
}
RunInfo Step::backward(const ConstView& dy, const View& dx, const View& dw) {
    return impl_->backward(dy, dx, dw);
}
bool Step::reuses_transforms() const {
    return impl_->reuses();
}

}  // namespace triconv
