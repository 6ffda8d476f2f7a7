// Draws a layer, its data, an algorithm, an instruction set and a number of threads; compares with the definition.
//
// Values: normal numbers, small integers, denormals, huge ones, mixtures of all, and a few NaN, infinities and the like at
// drawn places. What must hold for every output:
//   - its class (finite, NaN, +Inf, -Inf) is that of the exact sum;
//   - where finite, it is within the algorithm's error bound of the exact sum.
// A failure prints the case in one line, which starts with the problem as triconv::parse_problem reads it.
#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "algorithms.h"
#include "dispatch.h"
#include "draw.h"
#include "layer_data.h"
#include "reference.h"
#include "workspace.h"

namespace triconv::test {
namespace {

std::string current_case;  // printed should the process die

void print_current_case() {
    std::fprintf(stderr, "\ncase: %s\n", current_case.c_str());
}

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "\n%s", what.c_str());
    print_current_case();
    std::abort();
}

// ---- what is drawn ----------------------------------------------------------------------------------------------------

constexpr double most_products = 1 << 16;  // of the definition, so that a case takes milliseconds

bool small_enough(const Problem& p) {
    double products = static_cast<double>(p.batch * p.in_channels / p.groups * p.out_channels);
    for (int a = 0; a < p.rank; ++a)
        products *= static_cast<double>(p.output(a) * p.kernel[a]);
    return products <= most_products && size_of(shape_of(p, Array::x)) <= (1 << 16) &&
           size_of(shape_of(p, Array::w)) <= (1 << 16);
}

Problem draw_problem(Draw& draw) {
    Problem p;
    p.rank = draw.between(1, max_rank);
    p.dtype = draw.one_in(3) ? DType::f64 : DType::f32;
    p.boundary = static_cast<Boundary>(draw.between(0, 4));
    constexpr double fills[] = {0, 0, 0, 1.5, -2, 1e-40, 3e38, INFINITY, NAN};
    if (p.boundary == Boundary::constant) p.fill = draw.one_of(fills);
    const int longest = p.rank == 1 ? 200 : p.rank == 2 ? 30 : 11;
    for (int a = 0; a < p.rank; ++a) {
        p.input[a] = draw.between(1, longest);
        p.kernel[a] = draw.one_in(4) ? draw.between(1, 1 + longest / 2) : draw.between(1, 5);
        p.stride[a] = draw.one_in(3) ? draw.between(1, 5) : 1;
        p.dilation[a] = draw.one_in(3) ? draw.between(1, 5) : 1;
        p.pad_lo[a] = draw.between(0, draw.one_in(4) ? longest / 2 : 4);
        p.pad_hi[a] = draw.between(0, draw.one_in(4) ? longest / 2 : 4);
        const std::int64_t missing = p.dilation[a] * (p.kernel[a] - 1) + 1 - p.input[a] - p.pad_lo[a] - p.pad_hi[a];
        p.pad_hi[a] += std::max<std::int64_t>(0, missing);
    }
    // Batch and channels are halved until the definition can follow.
    std::int64_t batch = draw.between(1, 3), groups = draw.one_in(2) ? draw.between(2, 20) : 1,
                 in = draw.between(1, groups > 1 ? 3 : 36), out = draw.between(1, groups > 1 ? 3 : 36);
    for (;;) {
        p.batch = batch;
        p.groups = groups;
        p.in_channels = groups * in;
        p.out_channels = groups * out;
        std::int64_t& largest = *std::max({&batch, &groups, &in, &out}, [](auto* a, auto* b) { return *a < *b; });
        if (small_enough(p) || largest == 1) return p;
        largest /= 2;
    }
}

enum class Values { normal, integers, denormal, huge, mixed };

template <class E>
E draw_value(Values kind, std::mt19937_64& random) {
    using Limits = std::numeric_limits<E>;
    std::normal_distribution<double> normal;
    const auto scaled = [&](int exponent) { return static_cast<E>(std::ldexp(normal(random) / 8, exponent)); };
    switch (kind) {
        case Values::normal:
            return static_cast<E>(normal(random));
        case Values::integers:
            return static_cast<E>(static_cast<int>(random() % 7) - 3);
        case Values::denormal:
            return static_cast<E>(static_cast<int>(random() % 2001) - 1000) * Limits::denorm_min();
        case Values::huge:
            return scaled(Limits::max_exponent - static_cast<int>(random() % 4));
        case Values::mixed:
            return draw_value<E>(static_cast<Values>(random() % 4), random);
    }
    return 0;
}

template <class E>
void draw_values(Draw& draw, std::vector<E>& values, Values& kind) {
    using Limits = std::numeric_limits<E>;
    constexpr E odd[] = {Limits::quiet_NaN(), Limits::infinity(),   -Limits::infinity(), Limits::max(),
                         -Limits::max(),      Limits::denorm_min(), Limits::min(),       -E(0)};
    kind = static_cast<Values>(draw.between(0, 4));
    std::mt19937_64 random(draw.between<std::uint64_t>(0, 65535));
    for (E& v : values)
        v = draw_value<E>(kind, random);
    const int places = draw.between(0, 3);
    for (int i = 0; i < places && !values.empty(); ++i) {
        values[draw.between<std::size_t>(0, values.size() - 1)] = draw.one_of(odd);
        if (kind != Values::mixed) kind = Values::huge;
    }
}

// An array of its own allocation, so that AddressSanitizer guards its ends, in one of several layouts.
template <class E>
class LaidOut {
public:
    LaidOut(const std::vector<std::int64_t>& shape, const std::vector<E>& values, bool channels_last, int gap)
        : shape_(shape) {
        std::vector<std::size_t> order(shape.size());
        for (std::size_t i = 0; i < order.size(); ++i)
            order[i] = i;
        if (channels_last) std::rotate(order.begin() + 1, order.begin() + 2, order.end());
        std::ptrdiff_t stride = gap;
        for (std::size_t i = order.size(); i-- > 0;) {
            view_.strides[order[i]] = stride;
            stride *= shape[order[i]];
        }
        const std::int64_t size = size_of(shape);
        memory_.reset(new E[static_cast<std::size_t>(size ? (size - 1) * gap + 1 : 0)]());
        view_.data = memory_.get();
        if (!values.empty())
            for (std::int64_t i = 0; i < size; ++i)
                at(i) = values[static_cast<std::size_t>(i)];
    }
    const View& view() const { return view_; }
    std::vector<E> values() const {
        std::vector<E> result(static_cast<std::size_t>(size_of(shape_)));
        for (std::size_t i = 0; i < result.size(); ++i)
            result[i] = at(static_cast<std::int64_t>(i));
        return result;
    }

private:
    E& at(std::int64_t i) const {
        std::ptrdiff_t offset = 0;
        for (std::size_t a = shape_.size(); a-- > 0; i /= shape_[a])
            offset += i % shape_[a] * view_.strides[a];
        return memory_[static_cast<std::size_t>(offset)];
    }

    std::vector<std::int64_t> shape_;
    View view_;
    std::unique_ptr<E[]> memory_;
};

// The algorithm by a name, a drawn tile or a drawn candidate of "auto"; and how the tiles are blocked.
template <class E>
bool draw_algorithm(Draw& draw, const KernelTable<E>& kernels, const Layer& layer, Pass pass, Costed& costed) {
    constexpr const char* names[] = {"auto", "direct", "fft", "winograd", "fft:", "winograd:"};
    std::string asked = draw.one_of(names);
    if (asked.back() == ':')
        for (int a = 0; a < layer.rank; ++a)
            asked += (a ? "x" : "") + std::to_string(draw.between(1, asked[0] == 'f' ? 70 : 8));
    std::vector<Costed> candidates;
    try {
        candidates = cost_candidates(kernels, layer, pass, parse_algorithm(asked, layer.rank));
    } catch (const std::invalid_argument&) { return false; }  // no such tile for this kernel
    std::erase_if(candidates, [](const Costed& c) { return !c.candidate.possible; });
    if (candidates.empty()) return false;
    costed = candidates[draw.between<std::size_t>(0, candidates.size() - 1)];
    if (!costed.direct && draw.one_in(3))
        costed.blocking = {draw.between(1, 12), draw.one_in(2), draw.between(1, 3), draw.between(1, 3)};
    return true;
}

// ---- what must hold ---------------------------------------------------------------------------------------------------

template <class E>
double largest_finite(const std::vector<E>& values) {
    double largest = 0;
    for (E v : values)
        if (std::isfinite(v)) largest = std::max(largest, std::abs(static_cast<double>(v)));
    return largest;
}

template <class E>
std::vector<double> wide(const std::vector<E>& values) {
    return {values.begin(), values.end()};
}

// Of a pass on the drawn data: the sums, unrounded where E is float, and how far off an output may be.
template <class E>
struct Expected {
    std::vector<double> sums;
    double tolerance;
};

template <class E>
Expected<E> expect(const LayerData<E>& data, Pass pass, bool tame, bool with_bias, const Costed& costed) {
    using Limits = std::numeric_limits<E>;
    LayerData<double> exact(data.problem);
    exact.problem.dtype = DType::f64;
    exact.problem.fill = static_cast<double>(static_cast<E>(data.problem.fill));
    exact.x = wide(data.x), exact.w = wide(data.w), exact.dy = wide(data.dy);
    Expected<E> expected;
    const Problem& p = exact.problem;
    const Layer layer(p);
    expected.sums = exact.reference(pass);
    if (pass == Pass::forward && with_bias) {
        const std::int64_t per_channel = layer.outputs();
        for (std::size_t i = 0; i < expected.sums.size(); ++i) {
            const auto at = static_cast<std::int64_t>(i) / per_channel;
            const Index o = unravel(static_cast<std::int64_t>(i) % per_channel,
                                    {layer.axis[0].out, layer.axis[1].out, layer.axis[2].out});
            const double bias = data.bias[static_cast<std::size_t>(at % p.out_channels)];
            expected.sums[i] = reference_forward_at(layer, as_tensor<double>(exact.view(Array::x), p.rank),
                                                    as_tensor<double>(exact.view(Array::w), p.rank), &bias,
                                                    at / p.out_channels, at % p.out_channels, o);
        }
    }
    // Rounding errors are relative to the largest sum of |a||b| that a tile forms, of values of like size: to the largest
    // sum of an output. Else at most to |a||b| times the number of terms; what would overflow is computed by definition.
    const auto& first = pass == Pass::input_grad ? data.w : data.x;
    const auto& second = pass == Pass::forward ? data.w : data.dy;
    double a = largest_finite(first), b = largest_finite(second);
    if (pass != Pass::input_grad && std::isfinite(exact.problem.fill)) a = std::max(a, std::abs(exact.problem.fill));
    double terms = pass == Pass::forward ? static_cast<double>(layer.in_per_group() * layer.taps())
                   : pass == Pass::input_grad
                       ? static_cast<double>(layer.out_per_group() * layer.taps()) * (layer.extended() ? 64 : 1)
                       : static_cast<double>(layer.batch * layer.outputs());
    terms += 1;
    const double bias = pass == Pass::forward && with_bias ? largest_finite(data.bias) : 0;
    const double scale = tame ? std::max(exact.largest_absolute_sum(pass), a * b) : a * b * terms;
    const double bound = costed.candidate.error_bound;
    constexpr double largest = Limits::max();
    const double flushed = Limits::min() * terms * (1 + a + b) * (bound / Limits::epsilon());
    expected.tolerance = bound * std::min(scale + bias, 4 * largest) + flushed;
    return expected;
}

const char* class_of(double v) {
    return std::isnan(v) ? "NaN" : v == INFINITY ? "+Inf" : v == -INFINITY ? "-Inf" : "finite";
}

template <class E>
void check(const std::vector<E>& out, const Expected<E>& expected) {
    constexpr double largest = std::numeric_limits<E>::max();
    for (std::size_t i = 0; i < out.size(); ++i) {
        const double sum = expected.sums[i], got = static_cast<double>(out[i]);
        const std::string where = "output " + std::to_string(i) + " is " + std::to_string(got) + ", expected " +
                                  std::to_string(sum) + " within " + std::to_string(expected.tolerance);
        // Next to the largest number, rounding decides.
        if (std::abs(std::abs(sum) - largest) <= expected.tolerance + largest * std::numeric_limits<E>::epsilon())
            continue;
        const double rounded = static_cast<double>(static_cast<E>(sum));
        if (std::string(class_of(rounded)) != class_of(got)) fail(where);
        if (std::isfinite(rounded) && !(std::abs(got - sum) <= expected.tolerance)) fail(where);
    }
}

template <class E>
void run_case(Draw& draw, const Problem& problem) {
    const std::vector<std::string> isas = supported_isas();
    const std::string& isa = isas[draw.between<std::size_t>(0, isas.size() - 1)];
    const KernelTable<E>& table = table_of<E>(kernels(isa));
    const Pass pass = draw.one_of(all_passes);
    const int threads = draw.between(1, 4);
    const bool with_bias = draw.one_in(2) && pass == Pass::forward, prepared = draw.one_in(4),
               channels_last = draw.one_in(2);
    const int gap = draw.one_in(4) ? 2 : 1;
    const Layer layer(problem);
    current_case = to_string(problem, pass) + "  isa " + isa + ", threads " + std::to_string(threads) +
                   (with_bias ? ", bias" : "") + (prepared ? ", prepared" : "");

    Costed costed;
    if (!draw_algorithm(draw, table, layer, pass, costed)) return;
    current_case += ", " + costed.candidate.algorithm;

    LayerData<E> data(problem);
    Values kinds[4];
    draw_values(draw, data.x, kinds[0]);
    draw_values(draw, data.w, kinds[1]);
    draw_values(draw, data.dy, kinds[2]);
    draw_values(draw, data.bias, kinds[3]);
    const bool tame = std::all_of(std::begin(kinds), std::end(kinds), [](Values v) { return v <= Values::integers; }) &&
                      std::abs(problem.fill) <= 2;

    const LaidOut<E> x(shape_of(problem, Array::x), data.x, channels_last, gap),
        w(shape_of(problem, Array::w), data.w, channels_last, 1),
        dy(shape_of(problem, Array::y), data.dy, channels_last, gap),
        out(shape_of(problem, LayerData<E>::output_of(pass)), data.empty_output(pass), channels_last, gap);
    Operands<E> operands;
    operands.x = as_tensor<E>(ConstView(x.view()), problem.rank);
    operands.w = as_tensor<E>(ConstView(w.view()), problem.rank);
    operands.dy = as_tensor<E>(ConstView(dy.view()), problem.rank);
    operands.y = operands.dx = operands.dw = as_tensor<E>(out.view(), problem.rank);
    if (with_bias) operands.bias = data.bias.data(), operands.bias_stride = 1;

    set_num_threads(threads);
    const auto algorithm = make_pass(table, layer, pass, costed);
    Workspace memory;
    if (prepared && pass != Pass::weight_grad) {
        memory = Workspace(algorithm->prepared_size() * sizeof(E));
        algorithm->prepare(operands.w, static_cast<E*>(memory.data()), threads);
        operands.prepared = static_cast<const E*>(memory.data());
    }
    const Workspace workspace(static_cast<std::size_t>(algorithm->workspace_bytes(threads)));
    if (workspace.size() > 0)
        std::memset(workspace.data(), 0xff, workspace.size());  // NaN: nothing may be read before it is written
    algorithm->run(operands, threads, static_cast<char*>(workspace.data()));
    check(out.values(), expect(data, pass, tame, with_bias, costed));
}

}  // namespace
}  // namespace triconv::test

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    __sanitizer_set_death_callback(triconv::test::print_current_case);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace triconv;
    test::Draw draw(data, size);
    const Problem problem = test::draw_problem(draw);
    test::current_case = to_string(problem);
    validate(problem);
    if (!test::small_enough(problem)) return -1;
    if (to_string(parse_problem(test::current_case).problem) != test::current_case)
        test::fail("the text form is not read back");
    if (problem.dtype == DType::f32)
        test::run_case<float>(draw, problem);
    else
        test::run_case<double>(draw, problem);
    return 0;
}
