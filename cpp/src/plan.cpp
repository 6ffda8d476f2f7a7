// Plans, weights prepared for them, and what the library was built with.
#include "plan_impl.h"

namespace triconv {

Plan::Plan(const Problem& problem, const Options& options) {
    validate(problem);
    impl_ = std::make_shared<const PlanImpl>(problem, options);
}

// ---- fixed weights --------------------------------------------------------------------------------------------------

class PreparedImpl {
public:
    PreparedImpl(std::shared_ptr<const PlanImpl> plan, const ConstView& w, Pass pass)
        : plan_(std::move(plan)), pass_(pass) {
        const Problem& p = plan_->problem();
        if (pass == Pass::weight_grad)
            throw std::invalid_argument("pass is weight_grad, which reads no weights: expected forward or input_grad");
        Views{nullptr, &w, nullptr, nullptr, nullptr, nullptr, nullptr, 0}.check(p);
        if (!has_w(p)) return;
        plan_->visit([&](const auto& typed) { prepare(typed, w); });
    }

    RunInfo run(Pass pass, Views views, const CallerWorkspace& workspace) const {
        if (pass != pass_)
            throw std::invalid_argument(std::string("the weights are prepared for ") + role_name(pass_) +
                                        ", expected " + role_name(pass));
        views.w = &weights_;
        return plan_->run(pass, views, workspace, spectra_.data());
    }

    Pass pass() const { return pass_; }
    std::int64_t workspace_bytes(int threads) const { return plan_->workspace_bytes(pass_, threads); }
    std::int64_t bytes() const { return static_cast<std::int64_t>(copy_.size() + spectra_.size()); }

private:
    template <class E>
    void prepare(const TypedPlan<E>& typed, const ConstView& w) {
        copy_weights<E>(w);
        const PlannedPass<E>& planned = typed.pass(pass_);
        spectra_ = Workspace(planned.algorithm->prepared_size() * sizeof(E));
        planned.algorithm->prepare(typed.taps().of(as_tensor<E>(weights_, plan_->problem().rank)),
                                   static_cast<E*>(spectra_.data()), planned.max_threads);
    }

    template <class E>
    void copy_weights(const ConstView& w) {
        const Problem& p = plan_->problem();
        const std::int64_t inner = p.in_channels / p.groups;
        Index extent{1, 1, 1};
        std::ptrdiff_t size = 1;
        for (int a = p.rank; a-- > 0;) {
            extent[static_cast<std::size_t>(axes - p.rank + a)] = p.kernel[a];
            weights_.strides[2 + a] = size;
            size *= p.kernel[a];
        }
        weights_.strides[1] = size;
        weights_.strides[0] = size * inner;
        copy_ = Workspace(static_cast<std::size_t>(size * inner * p.out_channels) * sizeof(E));
        weights_.data = copy_.data();
        E* to = static_cast<E*>(copy_.data());
        const Tensor<const E> from = as_tensor<E>(w, p.rank);
        for (std::int64_t k = 0; k < p.out_channels; ++k)
            for (std::int64_t c = 0; c < inner; ++c)
                for (std::ptrdiff_t tap = 0; tap < size; ++tap)
                    *to++ = from.element(k, c, unravel(tap, extent));
    }

    std::shared_ptr<const PlanImpl> plan_;
    Pass pass_;
    Workspace copy_, spectra_;
    ConstView weights_;  // of the copy
};

PreparedWeights Plan::prepare(const ConstView& w, Pass pass) const {
    return PreparedWeights(std::make_shared<const PreparedImpl>(impl_, w, pass));
}

RunInfo PreparedWeights::forward(const ConstView& x, const void* bias, std::ptrdiff_t bias_stride, const View& y,
                                 const CallerWorkspace& workspace) const {
    return impl_->run(Pass::forward, {&x, nullptr, nullptr, &y, nullptr, nullptr, bias, bias_stride}, workspace);
}

RunInfo PreparedWeights::input_grad(const ConstView& dy, const View& dx, const CallerWorkspace& workspace) const {
    return impl_->run(Pass::input_grad, {nullptr, nullptr, &dy, nullptr, &dx, nullptr, nullptr, 0}, workspace);
}

Pass PreparedWeights::pass() const {
    return impl_->pass();
}

std::int64_t PreparedWeights::bytes() const {
    return impl_->bytes();
}

std::int64_t PreparedWeights::workspace_bytes(int threads) const {
    return impl_->workspace_bytes(threads);
}

const Problem& Plan::problem() const {
    return impl_->problem();
}

RunInfo Plan::forward(const ConstView& x, const ConstView& w, const void* bias, std::ptrdiff_t bias_stride,
                      const View& y, const CallerWorkspace& workspace) const {
    return impl_->run(Pass::forward, {&x, &w, nullptr, &y, nullptr, nullptr, bias, bias_stride}, workspace);
}

RunInfo Plan::input_grad(const ConstView& w, const ConstView& dy, const View& dx,
                         const CallerWorkspace& workspace) const {
    return impl_->run(Pass::input_grad, {nullptr, &w, &dy, nullptr, &dx, nullptr, nullptr, 0}, workspace);
}

RunInfo Plan::weight_grad(const ConstView& x, const ConstView& dy, const View& dw,
                          const CallerWorkspace& workspace) const {
    return impl_->run(Pass::weight_grad, {&x, nullptr, &dy, nullptr, nullptr, &dw, nullptr, 0}, workspace);
}

std::string Plan::algorithm(Pass pass) const {
    return impl_->visit([&](const auto& plan) { return plan.pass(pass).costed.candidate.algorithm; });
}

std::int64_t Plan::workspace_bytes(Pass pass) const {
    return workspace_bytes(pass, num_threads());
}

std::int64_t Plan::workspace_bytes(Pass pass, int threads) const {
    return impl_->workspace_bytes(pass, threads);
}

double Plan::flops(Pass pass) const {
    return impl_->visit([&](const auto& plan) {
        const Candidate& chosen = plan.pass(pass).costed.candidate;
        return 2 * chosen.multiplications + chosen.transform_flops;
    });
}

std::vector<Candidate> Plan::candidates(Pass pass) const {
    return impl_->visit([&](const auto& plan) { return plan.candidates(pass); });
}

std::vector<Candidate> Plan::contenders(Pass pass) const {
    return impl_->visit([&](const auto& plan) { return plan.contenders(pass); });
}

// ---- build information ----------------------------------------------------------------------------------------------

BuildInfo build_info() {
    return {TRICONV_VERSION, TRICONV_COMPILER, TRICONV_FLAGS, compiled_isas(), kernels().f32.isa};
}

}  // namespace triconv
