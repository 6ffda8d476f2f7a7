// The C interface with malformed descriptors: sizes and enumerations of any value, structs of wrong size, null pointers,
// workspaces too small or not aligned, algorithms of any text. What must hold:
//   - a status that the header names, and not TRICONV_INTERNAL_ERROR; a message with every failure;
//   - a problem that validates has an output, a text form that is read back, and a plan by "auto" if memory suffices;
//   - a run with proper arguments succeeds, and touches nothing but the arrays and the workspace.
// A failure prints the descriptor in one line; of a valid problem as triconv::parse_problem reads it.
#include "triconv/triconv.h"

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "draw.h"
#include "triconv/triconv.hpp"

// AddressSanitizer's operator new ends the process where there is no memory. This one meets the deletes of the others.
extern "C" const char* __asan_default_options() {
    return "alloc_dealloc_mismatch=0";
}
void* operator new(std::size_t bytes) {
    constexpr std::size_t most = std::size_t{256} << 20;
    void* const memory = bytes > most ? nullptr : std::malloc(bytes ? bytes : 1);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

namespace {

using triconv::test::Draw;

std::string current_case;  // printed should the process die

void print_current_case() {
    std::fprintf(stderr, "\ncase: %s\n", current_case.c_str());
}

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "\n%s; the last error is: %s", what, triconv_last_error());
    print_current_case();
    std::abort();
}

// Whether it succeeded.
bool check(triconv_status status) {
    require(status >= TRICONV_OK && status <= TRICONV_OUT_OF_MEMORY, "unexpected status");
    require(status == TRICONV_OK || *triconv_last_error() != 0, "failed without a message");
    return status == TRICONV_OK;
}

// ---- descriptors ------------------------------------------------------------------------------------------------------

// Mostly one of the range, at times anything.
std::int64_t number(Draw& draw, std::int64_t least, std::int64_t most) {
    constexpr std::int64_t odd[] = {-1,
                                    0,
                                    1 << 20,
                                    std::int64_t{1} << 40,
                                    std::numeric_limits<std::int64_t>::max(),
                                    std::numeric_limits<std::int64_t>::min()};
    switch (draw.between(0, 60)) {
        case 0:
            return draw.one_of(odd);
        case 1:
            return draw.any_integer();
        default:
            return draw.between(least, most);
    }
}

triconv_problem draw_problem(Draw& draw) {
    triconv_problem p;
    check(triconv_problem_init(&p, sizeof p));
    const auto small = [&](std::int64_t least, std::int64_t most) { return number(draw, least, most); };
    p.rank = static_cast<std::int32_t>(small(1, 3));
    p.dtype = static_cast<std::int32_t>(small(0, 1));
    p.batch = small(0, 3);
    p.groups = small(1, 3);
    const std::int64_t factor = p.groups > 0 && p.groups < 100 ? p.groups : 1;
    p.in_channels = draw.one_in(31) ? small(0, 4) : factor * draw.between(0, 4);
    p.out_channels = draw.one_in(31) ? small(0, 4) : factor * draw.between(0, 4);
    for (int a = 0; a < TRICONV_MAX_RANK; ++a) {
        p.input[a] = small(1, 20);
        p.kernel[a] = small(1, 6);
        p.stride[a] = small(1, 3);
        p.dilation[a] = small(1, 3);
        p.pad_lo[a] = small(0, 5);
        p.pad_hi[a] = small(0, 5);
    }
    p.boundary = static_cast<std::int32_t>(small(0, 4));
    if (p.boundary == TRICONV_CONSTANT && draw.one_in(2)) p.fill = draw.any_float();
    if (draw.one_in(31)) p.struct_size = draw.between<std::size_t>(0, 400);
    if (draw.one_in(31)) p.reserved = draw.between(-2, 2);
    return p;
}

std::string text_of(const triconv_problem& p) {
    std::string text = "problem of " + std::to_string(p.struct_size) + " bytes:";
    for (std::int64_t v : {std::int64_t{p.rank}, std::int64_t{p.dtype}, p.batch, p.in_channels, p.out_channels,
                           p.groups, std::int64_t{p.boundary}, std::int64_t{p.reserved}})
        text += " " + std::to_string(v);
    for (const auto* axes : {&p.input, &p.kernel, &p.stride, &p.dilation, &p.pad_lo, &p.pad_hi})
        for (std::int64_t v : *axes)
            text += " " + std::to_string(v);
    return text + " " + std::to_string(p.fill);
}

triconv::Problem cpp_problem(const triconv_problem& p) {
    triconv::Problem q;
    q.rank = p.rank;
    q.dtype = static_cast<triconv::DType>(p.dtype);
    q.batch = p.batch;
    q.in_channels = p.in_channels;
    q.out_channels = p.out_channels;
    q.groups = p.groups;
    for (int a = 0; a < p.rank; ++a) {
        q.input[a] = p.input[a];
        q.kernel[a] = p.kernel[a];
        q.stride[a] = p.stride[a];
        q.dilation[a] = p.dilation[a];
        q.pad_lo[a] = p.pad_lo[a];
        q.pad_hi[a] = p.pad_hi[a];
    }
    q.boundary = static_cast<triconv::Boundary>(p.boundary);
    q.fill = p.fill;
    return q;
}

// ---- runs -------------------------------------------------------------------------------------------------------------

constexpr double most_bytes = 1 << 20;  // of an array or a workspace

double elements(std::int64_t outer, std::int64_t inner, const std::int64_t* extent, int rank) {
    double count = static_cast<double>(outer) * static_cast<double>(inner);
    for (int a = 0; a < rank; ++a)
        count *= static_cast<double>(extent[a]);
    return count;
}

// Bytes `offset` behind an address that is a multiple of 64; AddressSanitizer guards their end.
class Memory {
public:
    Memory(std::size_t bytes, std::size_t offset) : offset_(offset) {
        if (posix_memalign(&block_, 64, bytes + offset) != 0) throw std::bad_alloc();
    }
    ~Memory() { std::free(block_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* data() const { return static_cast<char*>(block_) + offset_; }

private:
    void* block_ = nullptr;
    std::size_t offset_;
};

class Runner {
public:
    Runner(Draw& draw, const triconv_problem& p, const std::int64_t* output) : draw_(draw) {
        const std::size_t element = p.dtype == TRICONV_F64 ? 8 : 4;
        const auto array = [&](std::int64_t outer, std::int64_t inner, const std::int64_t* extent) {
            const double count = elements(outer, inner, extent, p.rank);
            small_ = small_ && count * static_cast<double>(element) <= most_bytes;
            return small_ ? std::vector<char>(static_cast<std::size_t>(count) * element) : std::vector<char>();
        };
        x_ = array(p.batch, p.in_channels, p.input);
        w_ = array(p.out_channels, p.in_channels / p.groups, p.kernel);
        y_ = array(p.batch, p.out_channels, output);
        bias_.resize(small_ ? static_cast<std::size_t>(p.out_channels) * element : 0);
        products_ =
            elements(p.batch, p.out_channels, output, p.rank) * elements(p.in_channels / p.groups, 1, p.kernel, p.rank);
    }
    bool affordable() const { return small_ && products_ < 1e6; }

    void run(const triconv_plan* plan) {
        const int pass = draw_.between(0, 2), threads = draw_.between(1, 3);
        std::size_t need = 0;
        if (!check(triconv_plan_workspace_bytes(plan, pass, threads, &need)) ||
            static_cast<double>(need) > 64 * most_bytes)
            return;
        const std::size_t given = draw_.one_in(2) ? need : draw_.between<std::size_t>(0, 2 * need);
        const bool own = draw_.one_in(2);
        const std::size_t offset = draw_.one_in(8) ? draw_.between<std::size_t>(1, 63) : 0;
        const Memory workspace(given, offset);
        const bool proper_workspace = own || (given >= need && offset == 0);
        void* const memory = own ? nullptr : workspace.data();
        const std::size_t room = own ? 0 : given;
        triconv_run_info info;
        check(triconv_run_info_init(&info, sizeof info));
        const bool proper_info = !draw_.one_in(16);
        if (!proper_info) info.struct_size = draw_.between<std::size_t>(0, 200);
        // Arrays without elements may be null, others not.
        bool nulls = false;
        const auto given_array = [&](std::vector<char>& array) -> void* {
            if (array.empty()) return nullptr;
            if (!draw_.one_in(31)) return array.data();
            nulls = true;
            return nullptr;
        };
        triconv_plan* const none = nullptr;
        const triconv_plan* const which = draw_.one_in(31) ? none : plan;
        triconv_status status = TRICONV_OK;
        void *const a = given_array(pass == TRICONV_INPUT_GRAD ? w_ : x_),
                    *const b = given_array(pass == TRICONV_FORWARD ? w_ : y_),
                    *const c = given_array(pass == TRICONV_FORWARD      ? y_
                                           : pass == TRICONV_INPUT_GRAD ? x_
                                                                        : w_);
        if (pass == TRICONV_FORWARD)
            status = triconv_forward(which, a, nullptr, b, nullptr, draw_.one_in(2) ? bias_.data() : nullptr, 1, c,
                                     nullptr, memory, room, &info);
        else if (pass == TRICONV_INPUT_GRAD)
            status = triconv_input_grad(which, a, nullptr, b, nullptr, c, nullptr, memory, room, &info);
        else
            status = triconv_weight_grad(which, a, nullptr, b, nullptr, c, nullptr, memory, room, &info);
        const bool proper = proper_workspace && proper_info && !nulls && which != nullptr;
        require(check(status) || !proper, "a proper run failed");
    }

private:
    Draw& draw_;
    bool small_ = true;
    double products_ = 0;
    std::vector<char> x_, w_, y_, bias_;
};

void use_layer(Draw& draw) {
    const triconv_problem problem = draw_problem(draw);
    current_case = text_of(problem);
    std::int64_t output[TRICONV_MAX_RANK] = {};
    const bool valid = check(triconv_problem_output(&problem, output));
    if (valid) {
        const triconv::Problem cpp = cpp_problem(problem);
        current_case = to_string(cpp);
        require(to_string(triconv::parse_problem(current_case).problem) == current_case, "the text is not read back");
    }
    triconv_options options;
    check(triconv_options_init(&options, sizeof options));
    std::string algorithm[1 + TRICONV_PASSES];
    constexpr const char* known[] = {"auto",       "direct",  "fft",        "winograd", "fft:8",
                                     "winograd:2", "fft:4x4", "direct,fft", ""};
    for (std::string& name : algorithm)
        name = draw.one_in(4) ? draw.text(12) : draw.one_of(known);
    options.algorithm = draw.one_in(2) ? algorithm[0].c_str() : nullptr;
    for (int pass = 0; pass < TRICONV_PASSES; ++pass)
        options.pass_algorithm[pass] = !draw.one_in(4) ? nullptr : algorithm[1 + pass].c_str();
    if (draw.one_in(4)) options.tolerance = draw.any_float();
    if (draw.one_in(4)) options.max_workspace = number(draw, 0, 1 << 20);
    if (draw.one_in(31)) options.struct_size = draw.between<std::size_t>(0, 200);
    const bool default_options = draw.one_in(2);
    current_case += default_options ? "" : ", algorithm " + algorithm[0];

    triconv_plan* plan = nullptr;
    const triconv_status status = triconv_plan_create(&problem, default_options ? nullptr : &options, &plan);
    const bool made = check(status);
    require(made == (plan != nullptr), "a plan without success, or the other way round");
    require(valid || !made, "a plan of a problem that is not valid");
    require(!valid || made || !default_options || status == TRICONV_OUT_OF_MEMORY, "no plan by auto");
    if (!made) return;
    char name[8];
    const std::int32_t pass = static_cast<std::int32_t>(number(draw, 0, 2));
    if (check(triconv_plan_algorithm(plan, pass, name, draw.between<std::size_t>(0, sizeof name))))
        require(pass >= 0 && pass < TRICONV_PASSES, "a pass that there is not");
    Runner runner(draw, problem, output);
    if (runner.affordable()) runner.run(plan);
    triconv_plan_destroy(plan);
}

void use_signal(Draw& draw) {
    triconv_signal_problem p;
    check(triconv_signal_problem_init(&p, sizeof p));
    p.rank = static_cast<std::int32_t>(number(draw, 1, 3));
    p.dtype = static_cast<std::int32_t>(number(draw, 0, 1));
    p.mode = static_cast<std::int32_t>(number(draw, 0, 2));
    p.batch1 = number(draw, 0, 3);
    p.batch2 = number(draw, 0, 3);
    for (int a = 0; a < TRICONV_MAX_RANK; ++a) {
        p.in1[a] = number(draw, 1, 20);
        p.in2[a] = number(draw, 1, 20);
    }
    current_case = "signals of rank " + std::to_string(p.rank) + ", mode " + std::to_string(p.mode) + ", batches " +
                   std::to_string(p.batch1) + " and " + std::to_string(p.batch2) + ":";
    for (const auto* in : {&p.in1, &p.in2})
        for (std::int64_t extent : *in)
            current_case += " " + std::to_string(extent);
    std::int64_t output[TRICONV_MAX_RANK] = {};
    const bool valid = check(triconv_signal_problem_output(&p, output));
    triconv_signal_plan* plan = nullptr;
    const bool made = check(triconv_signal_plan_create(&p, nullptr, &plan));
    require(made == (plan != nullptr), "a plan without success, or the other way round");
    require(valid || !made, "a plan of a problem that is not valid");
    if (!made) return;
    const double in1 = elements(p.batch1, 1, p.in1, p.rank), in2 = elements(p.batch2, 1, p.in2, p.rank),
                 out = elements(std::max(p.batch1, p.batch2), 1, output, p.rank);
    if (in1 <= 1e4 && in2 <= 1e4 && out <= 1e5) {
        const std::size_t element = p.dtype == TRICONV_F64 ? 8 : 4;
        std::vector<char> a(static_cast<std::size_t>(in1) * element), b(static_cast<std::size_t>(in2) * element),
            c(static_cast<std::size_t>(out) * element);
        check(draw.one_in(2)
                  ? triconv_convolve(plan, a.data(), nullptr, b.data(), nullptr, c.data(), nullptr, nullptr, 0, nullptr)
                  : triconv_correlate(plan, a.data(), nullptr, b.data(), nullptr, c.data(), nullptr, nullptr, 0,
                                      nullptr));
    }
    triconv_signal_plan_destroy(plan);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    __sanitizer_set_death_callback(print_current_case);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Draw draw(data, size);
    current_case = "(not drawn yet)";
    check(triconv_set_num_threads(static_cast<std::int32_t>(number(draw, 1, 3))));
    if (!draw.one_in(5))
        use_layer(draw);
    else
        use_signal(draw);
    return 0;
}
