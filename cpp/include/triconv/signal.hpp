/// @file
/// Convolutions of signals, images and volumes, by the conventions of scipy.signal.
#pragma once

#include <cstdint>
#include <string>

#include "triconv/export.h"
#include "triconv/plan.hpp"
#include "triconv/problem.hpp"

namespace triconv {

/// The part of the full result that is computed, along each axis, of n1 samples with n2.
enum class SignalMode : std::uint8_t {
    full,   ///< all n1 + n2 - 1
    same,   ///< the middle n1, of two middles the first
    valid,  ///< the |n1 - n2| + 1 that need no zeros around the larger; one array is at least as large along all axes
};

/// Arrays in1 and in2 of `rank` axes, in batches. A batch of one is used with all of the other.
struct SignalProblem {
    int rank = 1;                            ///< 1, 2 or 3
    std::int64_t batch1 = 1, batch2 = 1;     ///< equal, or one of them is 1
    std::int64_t in1[max_rank] = {1, 1, 1};  ///< extents, outermost axis first; 1 or more
    std::int64_t in2[max_rank] = {1, 1, 1};
    SignalMode mode = SignalMode::full;
    DType dtype = DType::f32;

    TRICONV_API std::int64_t batch() const;           ///< Of the result.
    TRICONV_API std::int64_t output(int axis) const;  ///< Extent of the result.
};

/// @throws std::invalid_argument with a message that names the argument, its value and what was expected.
TRICONV_API void validate(const SignalProblem& problem);

/// A signal problem with an algorithm, for any number of runs; immutable, its copies share their contents.
///
/// In all views strides[0] is that of the batch (of any value where the batch is 1) and strides[1 + axis] those of the
/// axes. Runs throw what those of a Plan do.
class TRICONV_API SignalPlan {
public:
    /// @param algorithm As in Options. "auto" is "direct,fft": the errors of Winograd are ten times theirs.
    /// @throws std::invalid_argument if the problem is not valid or the algorithm cannot compute it.
    explicit SignalPlan(const SignalProblem& problem, const std::string& algorithm = "auto");

    /// out[i] = sum over j of in1[i - j + start] * in2[j]; start by the mode. The zeros around the larger array are
    /// numbers: infinite samples of the other make NaN of them.
    RunInfo convolve(const ConstView& in1, const ConstView& in2, const View& out,
                     const CallerWorkspace& workspace = {}) const;
    /// convolve with in2 reversed along all axes.
    RunInfo correlate(const ConstView& in1, const ConstView& in2, const View& out,
                      const CallerWorkspace& workspace = {}) const;

    const SignalProblem& problem() const { return problem_; }  ///< Lives as long as the plan.
    std::string algorithm() const;                             ///< "direct", "fft:16x16"...
    std::int64_t workspace_bytes(int threads) const;           ///< As Plan::workspace_bytes.

private:
    RunInfo run(const ConstView& in1, const ConstView& in2, const View& out, const CallerWorkspace& workspace) const;

    SignalProblem problem_;
    bool swapped_;  // in1 is the kernel
    Plan plan_;
};

/// A single run of a SignalPlan. Where there are more of one problem, a plan saves planning again.
TRICONV_API RunInfo convolve(const SignalProblem& problem, const ConstView& in1, const ConstView& in2, const View& out);
/// As convolve, by SignalPlan::correlate.
TRICONV_API RunInfo correlate(const SignalProblem& problem, const ConstView& in1, const ConstView& in2,
                              const View& out);

}  // namespace triconv
