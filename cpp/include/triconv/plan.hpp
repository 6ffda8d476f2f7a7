/// @file
/// How it is computed: plans, prepared weights, training steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "triconv/export.h"
#include "triconv/problem.hpp"

namespace triconv {

/// What a caller may ask of a plan.
struct Options {
    /// "direct", "fft" or "winograd"; several of them, as "direct,fft", for the fastest of these; "auto" for that of all.
    /// A tile may be fixed: "fft:16" or "fft:16x32" gives the transform length of each axis, "winograd:4" or
    /// "winograd:4x2" the outputs per tile.
    std::string algorithm = "auto";
    /// Largest accepted error bound, relative to the largest sum of |input * weight|. 0: a choice among several accepts
    /// 1e4 epsilons, an algorithm asked for alone whatever it has.
    double tolerance = 0;
    /// Largest workspace in bytes; the algorithm is chosen as if for one thread. Negative: no limit, but a choice among
    /// several passes over what needs more than 1 GiB, unless everything else is predicted to take four times as long.
    /// In filters of up to four channels in a group it does so, with two threads, from three spectra of the padded input
    /// on (5 % of an input above 64 MB whose kernel is small; never below 1 MiB a thread), unless everything else is
    /// predicted to take 1.3 times as long.
    std::int64_t max_workspace = -1;
    /// Where not empty, stands in for `algorithm` in that pass: what tune() returns.
    std::array<std::string, pass_count> pass_algorithm{};
};

/// One row of Plan::candidates: what an algorithm would cost for a pass, or why it cannot be used.
struct Candidate {
    std::string algorithm;  ///< "direct", "fft:16x16", "winograd:4x4"
    bool possible = false;  ///< for this layer
    bool chosen = false;
    std::string reason;                ///< why it was not possible or not chosen
    double multiplications = 0;        ///< real multiplications in the products
    double transform_flops = 0;        ///< in the transforms
    double bytes = 0;                  ///< memory traffic beyond the caches, estimated
    double predicted_seconds = 0;      ///< on one core
    double error_bound = 0;            ///< relative to the largest sum of |input * weight|; of transforms, in a tile
    std::int64_t workspace_bytes = 0;  ///< for one thread; an estimate, exact for the chosen one
};

/// Counts of what a run did, for tests and the curious.
struct RunInfo {
    std::string algorithm;
    std::string isa;
    std::int64_t tiles = 0;             ///< transform tiles computed (0 for direct)
    std::int64_t recomputed_tiles = 0;  ///< tiles with a non-finite value, computed again by definition
};

inline constexpr std::size_t workspace_alignment = 64;  ///< bytes

/// Memory of the caller for a run to work in, instead of the library's own. Its contents before are not read, after
/// undefined; one run at a time may use it.
///
/// A run uses as many threads as it has room for: workspace_bytes(pass, threads) bytes let it use `threads`, if
/// num_threads() is not less. A little bookkeeping, not the data, still comes from operator new.
struct CallerWorkspace {
    void* data = nullptr;   ///< a multiple of workspace_alignment; null with 0 bytes: the library's own
    std::size_t bytes = 0;  ///< at least workspace_bytes(pass, 1)
};

class PlanImpl;
class StepImpl;
class PreparedImpl;
class PreparedWeights;

/// A problem with an algorithm for each pass. Copies share their contents. A moved-from plan may only be assigned to or
/// destroyed, as all classes here.
///
/// All runs throw std::invalid_argument for views with null data where the problem has elements, and for a workspace
/// that is too small or not aligned; std::bad_alloc; and what a host's parallel-for threw.
class TRICONV_API Plan {
public:
    /// @throws std::invalid_argument if the problem is not valid, or nothing that the options allow can compute it.
    explicit Plan(const Problem& problem, const Options& options = {});

    /// @param x, w Inputs.
    /// @param bias Null, or out_channels elements `bias_stride` elements apart.
    /// @param y Output; must not overlap x, w or bias.
    /// @param workspace See CallerWorkspace.
    RunInfo forward(const ConstView& x, const ConstView& w, const void* bias, std::ptrdiff_t bias_stride, const View& y,
                    const CallerWorkspace& workspace = {}) const;
    /// @param w, dy Inputs: the weights, the gradient by y.
    /// @param dx Output: the gradient by x. It is overwritten, not added to.
    RunInfo input_grad(const ConstView& w, const ConstView& dy, const View& dx,
                       const CallerWorkspace& workspace = {}) const;
    /// @param x, dy Inputs: the input of forward, the gradient by y.
    /// @param dw Output: the gradient by w. It is overwritten, not added to.
    RunInfo weight_grad(const ConstView& x, const ConstView& dy, const View& dw,
                        const CallerWorkspace& workspace = {}) const;

    /// The weights as the pass reads them (their spectra, or packed), for any number of runs.
    /// @param w The weights; may change afterwards.
    /// @param pass forward or input_grad.
    PreparedWeights prepare(const ConstView& w, Pass pass = Pass::forward) const;

    const Problem& problem() const;          ///< Lives as long as the plan.
    std::string algorithm(Pass pass) const;  ///< "direct", "fft:16x16", "winograd:4x4"
    /// @return Bytes of workspace that a run takes with the present number of threads.
    std::int64_t workspace_bytes(Pass pass) const;
    /// @return Bytes of workspace that a run takes with `threads` threads, exactly; not fewer for more threads.
    /// @throws std::invalid_argument if `threads` is less than 1.
    std::int64_t workspace_bytes(Pass pass, int threads) const;
    double flops(Pass pass) const;  ///< Floating-point operations of the chosen algorithm.
    /// What was considered, and why it was chosen or not.
    std::vector<Candidate> candidates(Pass pass) const;
    /// Those that the options allow (but for max_workspace), in the order of their predicted times.
    std::vector<Candidate> contenders(Pass pass) const;

private:
    friend class Step;
    std::shared_ptr<const PlanImpl> impl_;
};

/// Fixed weights, made by Plan::prepare: the same bits as the plan's own pass, without transforming the kernels at each
/// call. Holds a copy of the weights, too, for outputs computed by definition. Keeps what it needs of the plan alive.
class TRICONV_API PreparedWeights {
public:
    /// As Plan::forward. @throws std::invalid_argument, too, unless prepared for the pass.
    RunInfo forward(const ConstView& x, const void* bias, std::ptrdiff_t bias_stride, const View& y,
                    const CallerWorkspace& workspace = {}) const;
    /// As Plan::input_grad. @throws std::invalid_argument, too, unless prepared for the pass.
    RunInfo input_grad(const ConstView& dy, const View& dx, const CallerWorkspace& workspace = {}) const;

    Pass pass() const;                                ///< What they were prepared for.
    std::int64_t bytes() const;                       ///< Memory held.
    std::int64_t workspace_bytes(int threads) const;  ///< As Plan::workspace_bytes of the pass.

private:
    friend class Plan;
    explicit PreparedWeights(std::shared_ptr<const PreparedImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<const PreparedImpl> impl_;
};

/// Times the candidates instead of predicting their times: the best few of each pass by the cost model, and direct, on
/// random data with the present number of threads, in turns. Passes with nothing to compute or one candidate are not
/// timed.
/// @param seconds_per_pass Takes up to about this for each pass, more if a single run of each candidate does.
/// @return What is fastest by the median, for Options::pass_algorithm.
TRICONV_API std::array<std::string, pass_count> tune(const Problem& problem, const Options& options,
                                                     double seconds_per_pass = 2);

/// A training step that transforms x and dy once: forward keeps the spectra of x, which weight_grad reads again, and
/// both gradients read one set of spectra of dy. Where that is not possible or not predicted to be faster, the step runs
/// the plan's separate passes. Not to be shared between threads.
class TRICONV_API Step {
public:
    /// @param x, w Must stay alive and unchanged until backward returns.
    Step(const Plan& plan, const ConstView& x, const ConstView& w);
    ~Step();
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

    /// As Plan::forward.
    RunInfo forward(const void* bias, std::ptrdiff_t bias_stride, const View& y);
    /// As Plan::input_grad and Plan::weight_grad. To be called after forward.
    /// @param dx, dw Either may have null data to be left out.
    RunInfo backward(const ConstView& dy, const View& dx, const View& dw);
    bool reuses_transforms() const;  ///< Whether the passes share transforms.

private:
    std::unique_ptr<StepImpl> impl_;
};

}  // namespace triconv
