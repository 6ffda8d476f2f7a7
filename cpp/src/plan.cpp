// Plans: the choice of an algorithm for each pass, checks of the arrays, and the cases with nothing to compute.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <variant>

#include "algorithms.h"
#include "dispatch.h"
#include "parallel.h"
#include "transform_pass.h"
#include "triconv/triconv.hpp"
#include "workspace.h"

namespace triconv {

namespace {

std::string in_short(double value) {
    char text[32];
    return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, 3).ptr};
}

const char* role_name(Pass pass) {
    return pass == Pass::forward ? "forward" : pass == Pass::input_grad ? "input_grad" : "weight_grad";
}

// What "auto" may use without being told: kernel spectra of many channels with large kernels could fill the memory.
constexpr std::int64_t auto_workspace = std::int64_t{1} << 30;
constexpr double worth_of_modesty = 4;  // times as slow
// The error bound it accepts without being told, in epsilons: rules out Winograd's largest tiles in three dimensions.
constexpr double auto_tolerance = 1e4;

// A pass of a plan, for one element type.
template <class E>
struct PlannedPass {
    Costed costed;
    std::unique_ptr<PassAlgorithm<E>> algorithm;
    int max_threads = std::numeric_limits<int>::max();  // what max_workspace leaves room for
    std::vector<Costed> considered;

    int slots(int threads) const { return std::max(1, std::min(threads, max_threads)); }
};

template <class E>
class TypedPlan {
public:
    TypedPlan(const Problem& problem, const Options& options)
        : kernels_(table_of<E>(kernels())), layer_(problem), options_(options) {
        for (std::size_t i = 0; i < pass_count; ++i) {
            const std::string& own = options.pass_algorithm[i];
            requests_[i] = parse_algorithm(own.empty() ? options.algorithm : own, problem.rank);
        }
    }

    const Layer& layer() const { return layer_; }
    const KernelTable<E>& table() const { return kernels_; }

    // Chosen on first use: a call of one pass should not pay for planning three.
    const PlannedPass<E>& pass(Pass which) const {
        const auto i = static_cast<std::size_t>(which);
        std::call_once(once_[i], [&] { passes_[i] = choose(which); });
        return passes_[i];
    }

    std::vector<Candidate> candidates(Pass which) const {
        std::vector<Candidate> result;
        for (const Costed& costed : pass(which).considered)
            result.push_back(costed.candidate);
        return result;
    }

    std::vector<Candidate> contenders(Pass which) const {
        std::vector<Costed> costed = cost_candidates(kernels_, layer_, which, request(which));
        std::vector<Candidate> result;
        for (const Costed* c : allowed(which, costed))
            result.push_back(c->candidate);
        return result;
    }

    std::int64_t workspace_bytes(Pass which, int threads) const {
        if (threads < 1)
            throw std::invalid_argument("threads is " + std::to_string(threads) + ", expected a positive integer");
        const PlannedPass<E>& planned = pass(which);
        return planned.algorithm->workspace_bytes(planned.slots(threads));
    }

    RunInfo run(Pass which, const Operands<E>& operands, const CallerWorkspace& given) const {
        const PlannedPass<E>& planned = pass(which);
        const int slots = slots_within(given, which);
        RunInfo info{planned.costed.candidate.algorithm, kernels_.isa, 0, 0};
        if (!run_empty(which, operands)) {
            Workspace leased;
            if (!given.data) leased = Workspace(static_cast<std::size_t>(planned.algorithm->workspace_bytes(slots)));
            void* const workspace = given.data ? given.data : leased.data();
            const RunCounts counts = planned.algorithm->run(operands, slots, static_cast<char*>(workspace));
            info.tiles = counts.tiles;
            info.recomputed_tiles = counts.recomputed;
        }
        return info;
    }

    // Outputs without elements, and outputs that are empty sums.
    bool run_empty(Pass which, const Operands<E>& operands) const {
        const Index in{layer_.axis[0].in, layer_.axis[1].in, layer_.axis[2].in};
        const Index kernel{layer_.axis[0].kernel, layer_.axis[1].kernel, layer_.axis[2].kernel};
        const int all = std::numeric_limits<int>::max();
        const bool no_x = layer_.batch == 0 || layer_.in_channels == 0,
                   no_y = layer_.batch == 0 || layer_.out_channels == 0;
        if (!no_x && !no_y) return false;
        if (which == Pass::forward && !no_y) fill_bias(operands);
        if (which == Pass::input_grad && !no_x) fill_zero(operands.dx, layer_.batch, layer_.in_channels, in, all);
        if (which == Pass::weight_grad && layer_.out_channels > 0 && layer_.in_per_group() > 0)
            fill_zero(operands.dw, layer_.out_channels, layer_.in_per_group(), kernel, all);
        return true;
    }

private:
    // As many as the plan allows and a caller's workspace has room for.
    int slots_within(const CallerWorkspace& given, Pass which) const {
        const PlannedPass<E>& planned = pass(which);
        int slots = planned.slots(num_threads());
        if (!given.data && given.bytes == 0) return slots;
        if (!given.data) throw std::invalid_argument("workspace has null data");
        if (reinterpret_cast<std::uintptr_t>(given.data) % workspace_alignment != 0)
            throw std::invalid_argument("workspace is not aligned, expected a multiple of " +
                                        std::to_string(workspace_alignment) + " bytes");
        const auto need = [&] { return static_cast<std::size_t>(planned.algorithm->workspace_bytes(slots)); };
        while (slots > 1 && need() > given.bytes)
            --slots;
        if (need() > given.bytes)
            throw std::invalid_argument("workspace has " + std::to_string(given.bytes) + " bytes, expected at least " +
                                        std::to_string(need()) + " for " + role_name(which));
        return slots;
    }

    void fill_bias(const Operands<E>& operands) const {
        const Tensor<E>& y = operands.y;
        for (std::int64_t n = 0; n < layer_.batch; ++n)
            for (std::int64_t k = 0; k < layer_.out_channels; ++k)
                for (std::int64_t i = 0; i < layer_.outputs(); ++i) {
                    const Index at = unravel(i, {layer_.axis[0].out, layer_.axis[1].out, layer_.axis[2].out});
                    y.data[n * y.outer + k * y.inner + at[0] * y.along[0] + at[1] * y.along[1] + at[2] * y.along[2]] =
                        operands.bias ? operands.bias[k * operands.bias_stride] : E(0);
                }
    }

    const AlgorithmRequest& request(Pass which) const { return requests_[static_cast<std::size_t>(which)]; }

    // The candidates that can be taken unless a workspace limit rules them out, cheapest first. The others get a reason.
    std::vector<Costed*> allowed(Pass which, std::vector<Costed>& costed) const {
        std::vector<Costed*> order;
        for (Costed& c : costed) {
            Candidate& candidate = c.candidate;
            if (!candidate.possible) continue;
            if (candidate.error_bound > tolerance(which))
                candidate.reason = "error bound above the tolerance";
            else
                order.push_back(&c);
        }
        std::stable_sort(order.begin(), order.end(), [](const Costed* a, const Costed* b) {
            return a->candidate.predicted_seconds < b->candidate.predicted_seconds;
        });
        if (!limited() && request(which).name == "auto") pass_over_large(order);
        return order;
    }

    // The cheapest candidate within the tolerance whose workspace fits.
    PlannedPass<E> choose(Pass which) const {
        std::vector<Costed> costed = cost_candidates(kernels_, layer_, which, request(which));
        const std::vector<Costed*> order = allowed(which, costed);
        PlannedPass<E> planned;
        std::int64_t least = std::numeric_limits<std::int64_t>::max();
        for (Costed* c : order) {
            if (planned.algorithm) {
                c->candidate.reason = "slower than the one chosen";
                continue;
            }
            auto algorithm = fitting(which, *c);
            const WorkspaceNeed need = algorithm->workspace();
            c->candidate.workspace_bytes = need.total(1);
            least = std::min(least, need.total(1));
            if (limited() && need.total(1) > options_.max_workspace) {
                c->candidate.reason = "workspace above max_workspace";
                continue;
            }
            c->candidate.chosen = true;
            planned.costed = *c;
            planned.algorithm = std::move(algorithm);
            if (limited() && need.per_thread > 0)
                planned.max_threads = static_cast<int>(std::clamp<std::int64_t>(
                    (options_.max_workspace - need.fixed) / need.per_thread, 1, std::numeric_limits<int>::max()));
        }
        if (!planned.algorithm) throw std::invalid_argument(none_fits(which, costed, least));
        planned.considered = std::move(costed);
        return planned;
    }

    // Drops the candidates ahead of the first with a modest workspace, unless that one is much slower.
    static void pass_over_large(std::vector<Costed*>& order) {
        const auto modest = std::find_if(
            order.begin(), order.end(), [](const Costed* c) { return c->candidate.workspace_bytes <= auto_workspace; });
        if (modest == order.end() ||
            (*modest)->candidate.predicted_seconds > worth_of_modesty * order.front()->candidate.predicted_seconds)
            return;
        for (auto c = order.begin(); c != modest; ++c)
            (*c)->candidate.reason = "workspace above 1 GiB: name the algorithm, or set max_workspace, to have it";
        order.erase(order.begin(), modest);
    }

    // The pass, with smaller blocks of tiles if its workspace is above the limit.
    std::unique_ptr<PassAlgorithm<E>> fitting(Pass which, Costed& costed) const {
        auto algorithm = make_pass(kernels_, layer_, which, costed);
        while (limited() && !costed.direct && costed.blocking.rows > 1 &&
               algorithm->workspace().total(1) > options_.max_workspace) {
            costed.blocking.rows /= 2;
            algorithm = make_pass(kernels_, layer_, which, costed);
        }
        return algorithm;
    }

    bool limited() const { return options_.max_workspace >= 0; }

    double tolerance(Pass which) const {
        if (options_.tolerance > 0) return options_.tolerance;
        return request(which).name == "auto" ? auto_tolerance * std::numeric_limits<E>::epsilon()
                                             : std::numeric_limits<double>::infinity();
    }

    std::string none_fits(Pass which, const std::vector<Costed>& costed, std::int64_t least) const {
        const std::string& own = options_.pass_algorithm[static_cast<std::size_t>(which)];
        const std::string asked = own.empty() ? options_.algorithm : own;
        if (least != std::numeric_limits<std::int64_t>::max())
            return "max_workspace is " + std::to_string(options_.max_workspace) + " bytes, expected at least " +
                   std::to_string(least) + " for " + role_name(which) + " with algorithm '" + asked + "'";
        double bound = std::numeric_limits<double>::infinity();
        for (const Costed& c : costed) {
            if (!c.candidate.possible && costed.size() == 1)
                return "algorithm '" + asked + "' cannot compute this layer: " + c.candidate.reason;
            if (c.candidate.possible) bound = std::min(bound, c.candidate.error_bound);
        }
        return "tolerance is " + in_short(options_.tolerance) + ", expected at least " + in_short(bound) + " for " +
               role_name(which) + " with algorithm '" + asked + "'";
    }

    const KernelTable<E>& kernels_;
    Layer layer_;
    Options options_;
    std::array<AlgorithmRequest, pass_count> requests_;
    mutable std::array<std::once_flag, pass_count> once_;
    mutable std::array<PlannedPass<E>, pass_count> passes_;
};

bool has_x(const Problem& p) {
    return p.batch > 0 && p.in_channels > 0;
}
bool has_y(const Problem& p) {
    return p.batch > 0 && p.out_channels > 0;
}
bool has_w(const Problem& p) {
    return p.in_channels > 0 && p.out_channels > 0;
}

// The arrays of a run, as the caller gave them; null where the run has none.
struct Views {
    const ConstView *x, *w, *dy;
    const View *y, *dx, *dw;
    const void* bias;
    std::ptrdiff_t bias_stride;

    void check(const Problem& p) const {
        const auto require = [](const char* name, const auto* view, bool has_elements) {
            if (view && !view->data && has_elements) throw std::invalid_argument(std::string(name) + " has null data");
        };
        require("x", x, has_x(p));
        require("w", w, has_w(p));
        require("dy", dy, has_y(p));
        require("y", y, has_y(p));
        require("dx", dx, has_x(p));
        require("dw", dw, has_w(p));
    }

    template <class E>
    Operands<E> operands(int rank) const {
        Operands<E> result;
        if (x) result.x = as_tensor<E>(*x, rank);
        if (w) result.w = as_tensor<E>(*w, rank);
        if (dy) result.dy = as_tensor<E>(*dy, rank);
        if (y) result.y = as_tensor<E>(*y, rank);
        if (dx) result.dx = as_tensor<E>(*dx, rank);
        if (dw) result.dw = as_tensor<E>(*dw, rank);
        result.bias = static_cast<const E*>(bias);
        result.bias_stride = bias_stride;
        return result;
    }
};

template <class E>
E element_of(const TypedPlan<E>&);  // names the element type of a plan within a generic lambda

}  // namespace

class PlanImpl {
public:
    template <class F>
    decltype(auto) visit(F f) const {
        if (const auto* plan = std::get_if<TypedPlan<float>>(&plan_)) return f(*plan);
        return f(std::get<TypedPlan<double>>(plan_));
    }

    PlanImpl(const Problem& problem, const Options& options)
        : problem_(problem), limits_workspace_(options.max_workspace >= 0) {
        if (!(options.tolerance >= 0))
            throw std::invalid_argument("tolerance is " + in_short(options.tolerance) + ", expected 0 or more");
        if (problem.dtype == DType::f32)
            plan_.emplace<TypedPlan<float>>(problem, options);
        else
            plan_.emplace<TypedPlan<double>>(problem, options);
        // What cannot be computed as asked is said now; a plain "auto" or "direct" always can.
        if (options.algorithm != "auto" && options.algorithm != "direct")
            visit([](const auto& plan) { plan.pass(Pass::forward); });
        const bool by_pass = options.pass_algorithm != Options().pass_algorithm;
        if (options.max_workspace >= 0 || options.tolerance > 0 || by_pass)
            visit([](const auto& plan) {
                for (Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad})
                    plan.pass(pass);
            });
    }

    std::int64_t workspace_bytes(Pass pass, int threads) const {
        return visit([&](const auto& plan) { return plan.workspace_bytes(pass, threads); });
    }

    const Problem& problem() const { return problem_; }
    bool limits_workspace() const { return limits_workspace_; }

    // prepared: null, or what the pass's algorithm prepared from the weights.
    RunInfo run(Pass pass, const Views& views, const CallerWorkspace& workspace, const void* prepared = nullptr) const {
        views.check(problem_);
        return visit([&](const auto& plan) {
            using E = decltype(element_of(plan));
            Operands<E> operands = views.operands<E>(problem_.rank);
            operands.prepared = static_cast<const E*>(prepared);
            return plan.run(pass, operands, workspace);
        });
    }

private:
    Problem problem_;
    bool limits_workspace_;
    std::variant<std::monostate, TypedPlan<float>, TypedPlan<double>> plan_;
};

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
        planned.algorithm->prepare(as_tensor<E>(weights_, plan_->problem().rank), static_cast<E*>(spectra_.data()),
                                   planned.max_threads);
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
                for (std::ptrdiff_t tap = 0; tap < size; ++tap) {
                    const Index at = unravel(tap, extent);
                    *to++ = from.data[k * from.outer + c * from.inner + at[0] * from.along[0] + at[1] * from.along[1] +
                                      at[2] * from.along[2]];
                }
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

// ---- training step --------------------------------------------------------------------------------------------------

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
        if (!has_x(p) || !has_y(p) || impl_->limits_workspace() || typed.layer().extended()) return;
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

// ---- build information ----------------------------------------------------------------------------------------------

BuildInfo build_info() {
    return {TRICONV_VERSION, TRICONV_COMPILER, TRICONV_FLAGS, compiled_isas(), kernels().f32.isa};
}

}  // namespace triconv
