// What plans, prepared weights and steps have in common: the choice of an algorithm for each pass, checks of the arrays, and
// the cases with nothing to compute.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "algorithms.h"
#include "dispatch.h"
#include "image_pass.h"
#include "made_on_first_use.h"
#include "parallel.h"
#include "triconv/triconv.hpp"
#include "used_taps.h"
#include "workspace.h"

namespace triconv {

inline std::string in_short(double value) {
    char text[32];
    return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, 3).ptr};
}

inline const char* role_name(Pass pass) {
    return pass == Pass::forward ? "forward" : pass == Pass::input_grad ? "input_grad" : "weight_grad";
}

// What "auto" may use without being told: kernel spectra of many channels with large kernels could fill the memory.
inline constexpr double auto_workspace = 1 << 30;
inline constexpr double worth_of_modesty = 4;  // times as slow
// Filters of long signals and large images, whose tiles may be as large as these, leave it at less if that costs little
// time. For one thread, so that two stay below three spectra of the padded input, or 5 % of an input that is large beside its
// kernel, of which threads themselves and pages of results take some: the workspace is a spectrum of the kernel and, for each
// thread, little more than that of a tile.
inline constexpr double filter_spectra = 1.9, large_input_share = 0.02;
inline constexpr double small_workspace = 1 << 20;  // of a thread: never minded
inline constexpr double worth_of_modest_filters = 1.3, worth_beside_large_inputs = 2;
// The error bound it accepts without being told, in epsilons: rules out Winograd's largest tiles in three dimensions.
inline constexpr double auto_tolerance = 1e4;

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
        : kernels_(table_of<E>(kernels())), taps_(Layer(problem)), layer_(taps_.layer()), options_(options) {
        for (std::size_t i = 0; i < pass_count; ++i) {
            const std::string& own = options.pass_algorithm[i];
            requests_[i] = parse_algorithm(own.empty() ? options.algorithm : own, problem.rank);
            requests_[i].limited = options.max_workspace >= 0 || options.tolerance > 0;
        }
    }

    const Layer& layer() const { return layer_; }  // of taps() only
    const UsedTaps<E>& taps() const { return taps_; }
    const KernelTable<E>& table() const { return kernels_; }

    // Chosen on first use: a call of one pass should not pay for planning three.
    const PlannedPass<E>& pass(Pass which) const {
        const auto i = static_cast<std::size_t>(which);
        return passes_[i].get([&] { return choose(which); });
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

    RunInfo run(Pass which, const Operands<E>& whole, const CallerWorkspace& given) const {
        const PlannedPass<E>& planned = pass(which);
        const Operands<E> operands = taps_.of(whole);
        const int slots = slots_within(given, which);
        RunInfo info{planned.costed.candidate.algorithm, kernels_.isa, 0, 0};
        if (!run_empty(which, operands)) {
            Workspace leased;
            if (!given.data) leased = Workspace(static_cast<std::size_t>(planned.algorithm->workspace_bytes(slots)));
            void* const workspace = given.data ? given.data : leased.data();
            const RunCounts counts =
                planned.algorithm->run(operands, slots, static_cast<char*>(workspace), !given.data);
            info.tiles = counts.tiles;
            info.recomputed_tiles = counts.recomputed;
        }
        taps_.finish(which, whole, slots);
        return info;
    }

    // Outputs without elements, and outputs that are empty sums.
    bool run_empty(Pass which, const Operands<E>& operands) const {
        const int all = std::numeric_limits<int>::max();
        const bool no_x = layer_.batch == 0 || layer_.in_channels == 0,
                   no_y = layer_.batch == 0 || layer_.out_channels == 0;
        if (!no_x && !no_y) return false;
        if (which == Pass::forward && !no_y) fill_bias(operands);
        if (which == Pass::input_grad && !no_x)
            fill_zero(operands.dx, layer_.batch, layer_.in_channels, layer_.input_extent(), all);
        if (which == Pass::weight_grad && layer_.out_channels > 0 && layer_.in_per_group() > 0)
            fill_zero(operands.dw, layer_.out_channels, layer_.in_per_group(), layer_.kernel_extent(), all);
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
                for_each_index(layer_.output_extent(), [&](const Index& o) {
                    y.element(n, k, o) = operands.bias ? operands.bias[k * operands.bias_stride] : E(0);
                });
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
        if (limited() || !request(which).leaves_choice()) return order;
        pass_over_large(order, auto_workspace, worth_of_modesty,
                        "workspace above 1 GiB: name the algorithm alone, or set max_workspace, to have it");
        if (is_image_filter(layer_, which)) {
            const double worth = is_large_beside_kernel(layer_) ? worth_beside_large_inputs : worth_of_modest_filters;
            pass_over_large(
                order, std::max(filter_workspace(), least_workspace(order, worth)), worth,
                "workspace large beside the input: name the algorithm alone, or set max_workspace, to have it");
        }
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
        const bool spreads = !planned.costed.direct && planned.costed.lane_kind != LaneKind::samples;
        if (spreads && !limited() && is_image_filter(layer_, which))
            planned.algorithm->repair_by([this, which] { return image_pass(which); });
        return planned;
    }

    // The fastest with samples in the lanes, which leaves little to the definition; null if there is none.
    std::unique_ptr<const PassAlgorithm<E>> image_pass(Pass which) const {
        Costed best;
        for (const Costed& tile : cost_candidates(kernels_, layer_, which, parse_algorithm("fft", layer_.rank))) {
            if (!tile.candidate.possible || !is_image_tile(tile.shape, kernels_.lanes)) continue;
            Costed costed = cost_image(kernels_, layer_, which, tile.shape);
            if (!best.candidate.possible || costed.candidate.predicted_seconds < best.candidate.predicted_seconds)
                best = std::move(costed);
        }
        return best.candidate.possible ? make_pass(kernels_, layer_, which, best) : nullptr;
    }

    double filter_workspace() const {
        if (is_large_beside_kernel(layer_)) return large_input_share * x_bytes(layer_);
        double padded = x_bytes(layer_);
        for (const Axis& a : layer_.axis)
            padded *= static_cast<double>(a.in + a.taps - 1) / static_cast<double>(a.in);
        return std::max(small_workspace, filter_spectra * padded);
    }

    // The end of the candidates, sorted, that are not more than `worth` times as slow as the first.
    static auto end_of_worth(const std::vector<Costed*>& order, double worth) {
        return std::find_if(order.begin(), order.end(), [&](const Costed* c) {
            return c->candidate.predicted_seconds > worth * order.front()->candidate.predicted_seconds;
        });
    }

    static double least_workspace(const std::vector<Costed*>& order, double worth) {
        double least = std::numeric_limits<double>::infinity();
        const auto end = end_of_worth(order, worth);
        for (auto c = order.begin(); c != end; ++c)
            least = std::min(least, static_cast<double>((*c)->candidate.workspace_bytes));
        return least;
    }

    // Drops the candidates ahead of the first whose workspace is within the limit, unless that one is so much slower.
    static void pass_over_large(std::vector<Costed*>& order, double limit, double worth, const char* reason) {
        const auto end = end_of_worth(order, worth);
        const auto modest = std::find_if(order.cbegin(), end, [&](const Costed* c) {
            return static_cast<double>(c->candidate.workspace_bytes) <= limit;
        });
        if (modest == end) return;
        for (auto c = order.cbegin(); c != modest; ++c)
            (*c)->candidate.reason = reason;
        order.erase(order.cbegin(), modest);
    }

    // The pass; while its workspace is above the limit, with the next smaller one.
    std::unique_ptr<PassAlgorithm<E>> fitting(Pass which, Costed& costed) const {
        auto algorithm = make_pass(kernels_, layer_, which, costed);
        while (limited() && algorithm->workspace().total(1) > options_.max_workspace && shrink(which, costed))
            algorithm = make_pass(kernels_, layer_, which, costed);
        return algorithm;
    }
    // To the next smaller workspace; false if there is none.
    static bool shrink(Pass which, Costed& costed) {
        if (costed.direct && which != Pass::weight_grad) return false;
        if (costed.direct && costed.lane_kind == LaneKind::samples) {  // dot products need whole planes in a buffer
            costed.lane_kind = LaneKind::channels;
            return true;
        }
        if (costed.direct) return !std::exchange(costed.modest, true);
        if (costed.blocking.rows <= 1) return false;
        costed.blocking.rows /= 2;
        return true;
    }

    bool limited() const { return options_.max_workspace >= 0; }

    double tolerance(Pass which) const {
        if (options_.tolerance > 0) return options_.tolerance;
        return request(which).leaves_choice() ? auto_tolerance * std::numeric_limits<E>::epsilon()
                                              : std::numeric_limits<double>::infinity();
    }

    std::string none_fits(Pass which, const std::vector<Costed>& costed, std::int64_t least) const {
        const std::string& own = options_.pass_algorithm[static_cast<std::size_t>(which)];
        const std::string asked = own.empty() ? options_.algorithm : own;
        if (least != std::numeric_limits<std::int64_t>::max())
            return "max_workspace is " + std::to_string(options_.max_workspace) + " bytes, expected at least " +
                   std::to_string(least) + " for " + role_name(which) + " with algorithm '" + asked + "'";
        double bound = std::numeric_limits<double>::infinity();
        std::string reasons;
        for (const Costed& c : costed) {
            if (c.candidate.possible)
                bound = std::min(bound, c.candidate.error_bound);
            else
                reasons += (reasons.empty() ? "" : "; ") + c.candidate.reason;
        }
        if (std::isinf(bound)) return "algorithm '" + asked + "' cannot compute this layer: " + reasons;
        return "tolerance is " + in_short(tolerance(which)) + ", expected at least " + in_short(bound) + " for " +
               role_name(which) + " with algorithm '" + asked + "'";
    }

    const KernelTable<E>& kernels_;
    UsedTaps<E> taps_;
    const Layer& layer_;
    Options options_;
    std::array<AlgorithmRequest, pass_count> requests_;
    std::array<OwnedOnFirstUse<const PlannedPass<E>>, pass_count> passes_;
};

inline bool has_x(const Problem& p) {
    return p.batch > 0 && p.in_channels > 0;
}
inline bool has_y(const Problem& p) {
    return p.batch > 0 && p.out_channels > 0;
}
inline bool has_w(const Problem& p) {
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

}  // namespace triconv
