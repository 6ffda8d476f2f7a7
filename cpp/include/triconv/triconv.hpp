// triconv: the three passes of a convolution layer on the CPU, by tiled FFT, Winograd or direct summation.
//
// The layer functions are cross-correlations, as in every deep-learning framework:
//
//   forward      y [n][k][o] = bias[k] + sum over c, r of  x[n][c][o * stride + r * dilation - pad_lo] * w[k][c][r]
//   input_grad   dx = the transpose of forward applied to dy, w fixed (of its linear part: a constant padding has none)
//   weight_grad  dw = the transpose of forward applied to dy, x fixed
//
// Errors are exceptions: std::invalid_argument for a problem, option or view that cannot be computed (raised before
// any work), std::bad_alloc when memory runs out. Plans are immutable; any number of threads may run one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "triconv/export.h"

namespace triconv {

enum class DType : std::uint8_t { f32, f64 };
enum class Pass : std::uint8_t { forward, input_grad, weight_grad };
inline constexpr int pass_count = 3;
inline constexpr int max_rank = 3;

// What the padding of an input holds, by the names of scipy.ndimage. Padding may be wider than the input.
enum class Boundary : std::uint8_t {
    constant,  // k k k k | a b c d | k k k k    k: Problem::fill
    nearest,   // a a a a | a b c d | d d d d
    reflect,   // d c b a | a b c d | d c b a
    mirror,    // . d c b | a b c d | c b a .
    wrap,      // a b c d | a b c d | a b c d
};
TRICONV_API const char* to_string(Boundary boundary);
TRICONV_API Boundary parse_boundary(const std::string& name);  // std::invalid_argument

// One convolution layer. Axes run from the outermost to the innermost: (depth,) (height,) width; the first `rank`
// entries of each array count. Padding may differ at the two ends of an axis and must not be negative.
struct Problem {
    int rank = 2;
    std::int64_t batch = 1;
    std::int64_t in_channels = 1;
    std::int64_t out_channels = 1;
    std::int64_t groups = 1;
    std::int64_t input[max_rank] = {1, 1, 1};
    std::int64_t kernel[max_rank] = {1, 1, 1};
    std::int64_t stride[max_rank] = {1, 1, 1};
    std::int64_t dilation[max_rank] = {1, 1, 1};
    std::int64_t pad_lo[max_rank] = {0, 0, 0};
    std::int64_t pad_hi[max_rank] = {0, 0, 0};
    Boundary boundary = Boundary::constant;
    double fill = 0;  // of Boundary::constant, else 0
    DType dtype = DType::f32;

    // Extent of the output along `axis`: floor((input + pads - dilation * (kernel - 1) - 1) / stride) + 1.
    TRICONV_API std::int64_t output(int axis) const;
};

// Throws std::invalid_argument with a message that names the argument, its value and what was expected.
TRICONV_API void validate(const Problem& problem);

// The one text form of a problem, e.g. "n8c64k64 i56x56 r7x7 p3 f32 fwd"; stride "s2", dilation "d2", groups "g4",
// asymmetric padding "p1:2" (low:high), per axis "p1x0:2", boundary "b=mirror" or "b=constant:2.5" with a fill. Written
// without the parts that have their default value.
TRICONV_API std::string to_string(const Problem& problem);
TRICONV_API std::string to_string(const Problem& problem, Pass pass);
TRICONV_API const char* to_string(Pass pass);
struct ProblemAndPass {
    Problem problem;
    Pass pass = Pass::forward;
};
TRICONV_API ProblemAndPass parse_problem(const std::string& text);

// A strided array: element strides for batch (or output channel), channel (or input channel), then each spatial axis.
// Strides may be zero or negative for inputs; the elements of an output must not overlap.
struct ConstView {
    const void* data = nullptr;
    std::ptrdiff_t strides[2 + max_rank] = {};
};
struct View {
    void* data = nullptr;
    std::ptrdiff_t strides[2 + max_rank] = {};
    TRICONV_API operator ConstView() const;
};

// What a caller may ask of a plan.
struct Options {
    // "auto", "direct", "fft" or "winograd". A tile may be fixed: "fft:16" or "fft:16x32" gives the transform length
    // of each axis, "winograd:4" or "winograd:4x2" the outputs per tile.
    std::string algorithm = "auto";
    // Largest accepted error bound, relative to the largest sum of |input * weight|. 0: "auto" accepts 1e4 epsilons, an
    // algorithm asked for by name whatever it has.
    double tolerance = 0;
    // Largest workspace in bytes; the algorithm is chosen as if for one thread. Negative: no limit, but "auto" passes
    // over what needs more than 1 GiB, unless everything else is predicted to take four times as long.
    std::int64_t max_workspace = -1;
    // Where not empty, stands in for `algorithm` in that pass: what tune() returns.
    std::array<std::string, pass_count> pass_algorithm{};
};

// One row of Plan::candidates: what an algorithm would cost for a pass, or why it cannot be used.
struct Candidate {
    std::string algorithm;  // "direct", "fft:16x16", "winograd:4x4"
    bool possible = false;
    bool chosen = false;
    std::string reason;          // why it was not possible or not chosen
    double multiplications = 0;  // real multiplications in the products
    double transform_flops = 0;
    double bytes = 0;              // memory traffic beyond the caches, estimated
    double predicted_seconds = 0;  // on one core
    double error_bound = 0;
    std::int64_t workspace_bytes = 0;  // for one thread; an estimate, exact for the chosen one
};

// Counts of what a run did, for tests and the curious.
struct RunInfo {
    std::string algorithm;
    std::string isa;
    std::int64_t tiles = 0;             // transform tiles computed (0 for direct)
    std::int64_t recomputed_tiles = 0;  // tiles with a non-finite value, computed again by definition
};

class PlanImpl;
class StepImpl;
class PreparedImpl;
class PreparedWeights;

class TRICONV_API Plan {
public:
    explicit Plan(const Problem& problem, const Options& options = {});

    // y must not overlap x, w or bias; bias may be null, else it holds out_channels elements `bias_stride` apart.
    RunInfo forward(const ConstView& x, const ConstView& w, const void* bias, std::ptrdiff_t bias_stride,
                    const View& y) const;
    RunInfo input_grad(const ConstView& w, const ConstView& dy, const View& dx) const;
    RunInfo weight_grad(const ConstView& x, const ConstView& dy, const View& dw) const;

    // The weights as the pass reads them (their spectra, or packed), for any number of runs: forward or input_grad. w may
    // change afterwards.
    PreparedWeights prepare(const ConstView& w, Pass pass = Pass::forward) const;

    const Problem& problem() const;
    std::string algorithm(Pass pass) const;         // "direct", "fft:16x16", "winograd:4x4"
    std::int64_t workspace_bytes(Pass pass) const;  // with the present number of threads
    double flops(Pass pass) const;                  // floating-point operations of the chosen algorithm
    std::vector<Candidate> candidates(Pass pass) const;
    // Those that the options allow (but for max_workspace), in the order of their predicted times.
    std::vector<Candidate> contenders(Pass pass) const;

private:
    friend class Step;
    std::shared_ptr<const PlanImpl> impl_;
};

// Fixed weights, made by Plan::prepare: the same bits as the plan's own pass, without transforming the kernels at each
// call. Holds a copy of the weights, too, for outputs computed by definition. Immutable, as a plan is.
class TRICONV_API PreparedWeights {
public:
    // std::invalid_argument unless prepared for the pass.
    RunInfo forward(const ConstView& x, const void* bias, std::ptrdiff_t bias_stride, const View& y) const;
    RunInfo input_grad(const ConstView& dy, const View& dx) const;

    Pass pass() const;
    std::int64_t bytes() const;  // memory held

private:
    friend class Plan;
    explicit PreparedWeights(std::shared_ptr<const PreparedImpl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<const PreparedImpl> impl_;
};

// Times the candidates instead of predicting their times: the best few of each pass by the cost model, and direct, on
// random data with the present number of threads, in turns. Returns what is fastest by the median, for
// Options::pass_algorithm; passes with nothing to compute or one candidate are not timed. Takes up to about
// seconds_per_pass for each pass, more if a single run of each candidate does.
TRICONV_API std::array<std::string, pass_count> tune(const Problem& problem, const Options& options,
                                                     double seconds_per_pass = 2);

// A training step that transforms x and dy once: forward keeps the spectra of x, which weight_grad reads again, and
// both gradients read one set of spectra of dy. Where that is not possible or not predicted to be faster, the step runs the
// plan's separate passes.
// x and w must stay unchanged until backward returns. Not to be shared between threads.
class TRICONV_API Step {
public:
    Step(const Plan& plan, const ConstView& x, const ConstView& w);
    ~Step();
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

    RunInfo forward(const void* bias, std::ptrdiff_t bias_stride, const View& y);
    // Call after forward. Either output may have null data to be left out.
    RunInfo backward(const ConstView& dy, const View& dx, const View& dw);
    bool reuses_transforms() const;

private:
    std::unique_ptr<StepImpl> impl_;
};

// Threads used by the calling process; at least 1. The first value comes from TRICONV_NUM_THREADS, else from the
// number of cores this process may use. Results do not depend on it.
TRICONV_API void set_num_threads(int count);
TRICONV_API int num_threads();  // 1 inside a task of the library

// Workspaces are kept for reuse, up to 1 GiB or the environment variable TRICONV_MAX_IDLE_MIB. This gives those not in
// use back to the system; returns the bytes given back.
TRICONV_API std::size_t release_memory();

// Memory from the same pool, for results that a caller makes again and again: fresh pages cost more than many a pass.
// 64-byte aligned (2 MB when large), contents undefined; std::bad_alloc.
TRICONV_API void* lend_memory(std::size_t bytes);
TRICONV_API void return_memory(void* data) noexcept;  // what lend_memory gave; any thread may return it
TRICONV_API std::size_t memory_capacity(void* data);  // bytes of lent memory that may be used: at least those asked for

// What the pool keeps at most: the environment variable TRICONV_MAX_IDLE_MIB, 1 GiB without it, 0 for no pool.
// std::invalid_argument if it is not a number.
TRICONV_API std::size_t max_idle_bytes();

struct BuildInfo {
    std::string version;
    std::string compiler;
    std::string flags;
    std::vector<std::string> isas;  // compiled in, least to most capable
    std::string isa;                // in use; TRICONV_MAX_ISA lowers it
};
TRICONV_API BuildInfo build_info();  // std::invalid_argument if TRICONV_MAX_ISA is unknown or not supported here

// What, with the ISA and the number of threads, the times of the passes depend on.
struct CpuInfo {
    std::string model;  // as the processor names itself; "unknown" where it does not
    std::int64_t l1d, l2,
        l3;  // bytes of cache per core, l3 as a core may use it; defaults where the system does not tell
};
TRICONV_API CpuInfo cpu_info();

}  // namespace triconv
