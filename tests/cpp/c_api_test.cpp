// The C interface gives what the C++ interface gives, and refuses every misuse that can be told from proper use.
#include "triconv/triconv.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "layer_data.h"
#include "triconv/triconv.hpp"

namespace triconv::test {
namespace {

triconv_problem c_problem(const Problem& p) {
    triconv_problem c;
    EXPECT_EQ(triconv_problem_init(&c, sizeof c), TRICONV_OK);
    c.rank = p.rank;
    c.dtype = static_cast<int32_t>(p.dtype);
    c.batch = p.batch;
    c.in_channels = p.in_channels;
    c.out_channels = p.out_channels;
    c.groups = p.groups;
    for (int axis = 0; axis < max_rank; ++axis) {
        c.input[axis] = p.input[axis];
        c.kernel[axis] = p.kernel[axis];
        c.stride[axis] = p.stride[axis];
        c.dilation[axis] = p.dilation[axis];
        c.pad_lo[axis] = p.pad_lo[axis];
        c.pad_hi[axis] = p.pad_hi[axis];
    }
    c.boundary = static_cast<int32_t>(p.boundary);
    c.fill = p.fill;
    return c;
}

triconv_run_info run_info() {
    triconv_run_info info;
    EXPECT_EQ(triconv_run_info_init(&info, sizeof info), TRICONV_OK);
    return info;
}

// A plan of the C interface for a problem.
class Handle {
public:
    explicit Handle(const triconv_problem& problem) {
        EXPECT_EQ(triconv_plan_create(&problem, nullptr, &plan_), TRICONV_OK) << triconv_last_error();
    }
    ~Handle() { triconv_plan_destroy(plan_); }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    operator triconv_plan*() const { return plan_; }

private:
    triconv_plan* plan_ = nullptr;
};

template <class E>
void expect_same_as_cpp(const Problem& problem) {
    SCOPED_TRACE(to_string(problem));
    const LayerData<E> data(problem);
    const Plan plan(problem);
    const Handle handle(c_problem(problem));
    triconv_run_info info = run_info();
    std::vector<E> expected[3], out[3];
    for (Pass pass : all_passes) {
        const int i = static_cast<int>(pass);
        expected[i] = out[i] = data.empty_output(pass);
        const std::string algorithm = data.run(plan, pass, expected[i]).algorithm;
        char name[64];
        ASSERT_EQ(triconv_plan_algorithm(handle, i, name, sizeof name), TRICONV_OK);
        EXPECT_EQ(name, algorithm);
        for (int32_t threads : {1, 2}) {
            size_t bytes = 0;
            ASSERT_EQ(triconv_plan_workspace_bytes(handle, i, threads, &bytes), TRICONV_OK);
            EXPECT_EQ(static_cast<std::int64_t>(bytes), plan.workspace_bytes(pass, threads));
        }
    }
    const E *x = data.x.data(), *w = data.w.data(), *dy = data.dy.data();
    ASSERT_EQ(triconv_forward(handle, x, nullptr, w, nullptr, nullptr, 0, out[0].data(), nullptr, nullptr, 0, &info),
              TRICONV_OK)
        << triconv_last_error();
    EXPECT_EQ(info.algorithm, plan.algorithm(Pass::forward));
    EXPECT_EQ(info.isa, build_info().isa);
    EXPECT_EQ(info.tiles > 0, plan.algorithm(Pass::forward) != "direct");
    EXPECT_EQ(info.recomputed_tiles, 0);
    ASSERT_EQ(triconv_input_grad(handle, w, nullptr, dy, nullptr, out[1].data(), nullptr, nullptr, 0, nullptr),
              TRICONV_OK);
    ASSERT_EQ(triconv_weight_grad(handle, x, nullptr, dy, nullptr, out[2].data(), nullptr, nullptr, 0, nullptr),
              TRICONV_OK);
    for (Pass pass : all_passes)
        EXPECT_TRUE(out[static_cast<int>(pass)] == expected[static_cast<int>(pass)]) << to_string(pass);

    // Prepared weights; a bias.
    data.run(plan, Pass::forward, expected[0]);
    for (std::size_t i = 0; i < expected[0].size(); ++i)
        out[0][i] = E(-1);
    triconv_prepared* prepared = nullptr;
    ASSERT_EQ(triconv_prepare(handle, w, nullptr, TRICONV_FORWARD, &prepared), TRICONV_OK) << triconv_last_error();
    ASSERT_EQ(triconv_prepared_forward(prepared, x, nullptr, nullptr, 0, out[0].data(), nullptr, nullptr, 0, nullptr),
              TRICONV_OK);
    EXPECT_TRUE(out[0] == expected[0]);
    EXPECT_EQ(triconv_prepared_input_grad(prepared, dy, nullptr, out[1].data(), nullptr, nullptr, 0, nullptr),
              TRICONV_INVALID_ARGUMENT)
        << "prepared for forward";
    triconv_prepared_destroy(prepared);
    ASSERT_EQ(triconv_prepare(handle, w, nullptr, TRICONV_INPUT_GRAD, &prepared), TRICONV_OK);
    ASSERT_EQ(triconv_prepared_input_grad(prepared, dy, nullptr, out[1].data(), nullptr, nullptr, 0, &info),
              TRICONV_OK);
    EXPECT_TRUE(out[1] == expected[1]);
    triconv_prepared_destroy(prepared);

    // A step, also of outputs left out.
    const auto view = [&](auto& values, Array which) { return contiguous(shape_of(problem, which), values.data()); };
    Step step(plan, data.view(Array::x), data.view(Array::w));
    step.forward(data.bias.data(), 1, view(expected[0], Array::y));
    step.backward(data.view(Array::y), view(expected[1], Array::x), view(expected[2], Array::w));
    triconv_step* c_step = nullptr;
    ASSERT_EQ(triconv_step_create(handle, x, nullptr, w, nullptr, &c_step), TRICONV_OK) << triconv_last_error();
    ASSERT_EQ(triconv_step_forward(c_step, data.bias.data(), 1, out[0].data(), nullptr, &info), TRICONV_OK);
    ASSERT_EQ(triconv_step_backward(c_step, dy, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr), TRICONV_OK);
    ASSERT_EQ(triconv_step_backward(c_step, dy, nullptr, out[1].data(), nullptr, out[2].data(), nullptr, nullptr),
              TRICONV_OK);
    triconv_step_destroy(c_step);
    for (int i = 0; i < 3; ++i)
        EXPECT_TRUE(out[i] == expected[i]) << i;
}

TEST(CApi, GivesWhatTheCppInterfaceGives) {
    for (const char* text : {"n2c19k21 i30x31 r5x5 p2 f32", "n2c8k6 i20 r3 s2 p1 g2 f64", "n1c3k2 i6x7x8 r3x3x3 p1 f32",
                             "n2c5k3 i20x21 r5x3 p7x1 b=mirror f32", "n2c4k4 i9x9 r3x3 p1 b=constant:2.5 d2 f32"}) {
        const Problem problem = parse_problem(text).problem;
        in_element_type(problem, [&](auto element) { expect_same_as_cpp<decltype(element)>(problem); });
    }
}

TEST(CApi, TakesStridesAndAWorkspace) {
    const Problem problem = parse_problem("n2c3k4 i8x9 r3x3 f32").problem;
    const LayerData<float> data(problem);
    const Plan plan(problem);
    std::vector<float> expected = data.empty_output(Pass::forward), out(expected.size() * 2, -1);
    data.run(plan, Pass::forward, expected);
    const Handle handle(c_problem(problem));
    size_t bytes = 0;
    ASSERT_EQ(triconv_plan_workspace_bytes(handle, TRICONV_FORWARD, 1, &bytes), TRICONV_OK);
    void* const workspace = std::aligned_alloc(64, bytes);
    const int64_t y_strides[] = {2 * 4 * 6 * 7, 2 * 6 * 7, 2 * 7, 2};
    const auto forward = [&](void* memory, size_t size) {
        return triconv_forward(handle, data.x.data(), nullptr, data.w.data(), nullptr, nullptr, 0, out.data(),
                               y_strides, memory, size, nullptr);
    };
    EXPECT_EQ(forward(workspace, bytes), TRICONV_OK) << triconv_last_error();
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(out[2 * i], expected[i]);
        EXPECT_EQ(out[2 * i + 1], -1);
    }
    EXPECT_EQ(forward(workspace, bytes - 1), TRICONV_INVALID_ARGUMENT);
    EXPECT_NE(std::string(triconv_last_error()).find("workspace has"), std::string::npos) << triconv_last_error();
    EXPECT_EQ(forward(static_cast<char*>(workspace) + 4, bytes - 4), TRICONV_INVALID_ARGUMENT);
    EXPECT_EQ(forward(nullptr, bytes), TRICONV_INVALID_ARGUMENT);
    std::free(workspace);
}

TEST(CApi, Options) {
    const Problem problem = parse_problem("n1c8k8 i30x30 r5x5 p2 f32").problem;
    const triconv_problem c = c_problem(problem);
    triconv_options options;
    ASSERT_EQ(triconv_options_init(&options, sizeof options), TRICONV_OK);
    options.algorithm = "fft:16";
    options.pass_algorithm[TRICONV_WEIGHT_GRAD] = "direct";
    triconv_plan* plan = nullptr;
    ASSERT_EQ(triconv_plan_create(&c, &options, &plan), TRICONV_OK) << triconv_last_error();
    char name[64], three[4];
    triconv_plan_algorithm(plan, TRICONV_FORWARD, name, sizeof name);
    EXPECT_STREQ(name, "fft:16x16");
    triconv_plan_algorithm(plan, TRICONV_FORWARD, three, sizeof three);
    EXPECT_STREQ(three, "fft");
    triconv_plan_algorithm(plan, TRICONV_WEIGHT_GRAD, name, sizeof name);
    EXPECT_STREQ(name, "direct");
    triconv_plan_destroy(plan);
    const auto refused = [&](const std::function<void(triconv_options&)>& change) {
        triconv_options wrong = options;
        change(wrong);
        plan = reinterpret_cast<triconv_plan*>(&options);
        EXPECT_EQ(triconv_plan_create(&c, &wrong, &plan), TRICONV_INVALID_ARGUMENT);
        EXPECT_EQ(plan, nullptr);
    };
    refused([](triconv_options& o) { o.algorithm = "best"; });
    refused([](triconv_options& o) { o.pass_algorithm[0] = "fft:x"; });
    refused([](triconv_options& o) { o.tolerance = -1; });
    refused([](triconv_options& o) { o.tolerance = std::numeric_limits<double>::quiet_NaN(); });
    refused([](triconv_options& o) { o.max_workspace = 0; });
    refused([](triconv_options& o) { o.struct_size = 0; });
    refused([](triconv_options& o) { o.struct_size += 8; });
}

TEST(CApi, Signals) {
    triconv_signal_problem problem;
    ASSERT_EQ(triconv_signal_problem_init(&problem, sizeof problem), TRICONV_OK);
    problem.in1[0] = 3;
    problem.in2[0] = 3;
    problem.dtype = TRICONV_F64;
    int64_t length = 0;
    ASSERT_EQ(triconv_signal_problem_output(&problem, &length), TRICONV_OK);
    ASSERT_EQ(length, 5);
    triconv_signal_plan* plan = nullptr;
    ASSERT_EQ(triconv_signal_plan_create(&problem, nullptr, &plan), TRICONV_OK) << triconv_last_error();
    size_t bytes = 0;
    ASSERT_EQ(triconv_signal_plan_workspace_bytes(plan, 1, &bytes), TRICONV_OK);
    void* const workspace = std::aligned_alloc(64, bytes);
    const double in1[] = {1, 2, 3}, in2[] = {0, 1, 10};
    double out[5];
    triconv_run_info info = run_info();
    ASSERT_EQ(triconv_convolve(plan, in1, nullptr, in2, nullptr, out, nullptr, workspace, bytes, &info), TRICONV_OK);
    EXPECT_EQ(std::vector<double>(out, out + 5), (std::vector<double>{0, 1, 12, 23, 30}));
    EXPECT_STREQ(info.algorithm, "direct");
    const int64_t backwards[] = {0, -1};
    ASSERT_EQ(triconv_correlate(plan, in1, nullptr, in2 + 2, backwards, out, nullptr, nullptr, 0, nullptr), TRICONV_OK);
    EXPECT_EQ(std::vector<double>(out, out + 5), (std::vector<double>{0, 1, 12, 23, 30}));
    EXPECT_EQ(triconv_convolve(plan, nullptr, nullptr, in2, nullptr, out, nullptr, nullptr, 0, nullptr),
              TRICONV_INVALID_ARGUMENT);
    EXPECT_EQ(triconv_convolve(plan, in1, nullptr, in2, nullptr, nullptr, nullptr, nullptr, 0, nullptr),
              TRICONV_INVALID_ARGUMENT);
    EXPECT_EQ(triconv_convolve(plan, in1, nullptr, in2, nullptr, out, nullptr, workspace, bytes - 1, nullptr),
              TRICONV_INVALID_ARGUMENT);
    std::free(workspace);
    triconv_signal_plan_destroy(plan);

    const auto refused = [&](const std::function<void(triconv_signal_problem&)>& change) {
        triconv_signal_problem wrong = problem;
        change(wrong);
        EXPECT_EQ(triconv_signal_plan_create(&wrong, "auto", &plan), TRICONV_INVALID_ARGUMENT);
        EXPECT_EQ(plan, nullptr);
        EXPECT_EQ(triconv_signal_problem_output(&wrong, nullptr), TRICONV_INVALID_ARGUMENT);
    };
    refused([](triconv_signal_problem& p) { p.mode = 3; });
    refused([](triconv_signal_problem& p) { p.mode = -1; });
    refused([](triconv_signal_problem& p) { p.dtype = 2; });
    refused([](triconv_signal_problem& p) { p.rank = 4; });
    refused([](triconv_signal_problem& p) { p.reserved = 1; });
    refused([](triconv_signal_problem& p) { p.in1[0] = std::numeric_limits<int64_t>::min(); });
    refused([](triconv_signal_problem& p) { p.struct_size = sizeof(triconv_problem); });
    EXPECT_EQ(triconv_signal_plan_create(&problem, "", &plan), TRICONV_INVALID_ARGUMENT);
}

// ---- misuse ---------------------------------------------------------------------------------------------------------

TEST(CApi, EveryNullIsRefused) {
    int refused = 0;
    const auto expect_refused = [&](triconv_status status) {
        EXPECT_EQ(status, TRICONV_INVALID_ARGUMENT) << refused;
        EXPECT_STRNE(triconv_last_error(), "") << refused;
        ++refused;
    };
    expect_refused(triconv_problem_init(nullptr, sizeof(triconv_problem)));
    expect_refused(triconv_options_init(nullptr, sizeof(triconv_options)));
    expect_refused(triconv_run_info_init(nullptr, sizeof(triconv_run_info)));
    expect_refused(triconv_signal_problem_init(nullptr, sizeof(triconv_signal_problem)));
    expect_refused(triconv_build_info_init(nullptr, sizeof(triconv_build_info)));
    expect_refused(triconv_problem_output(nullptr, nullptr));
    expect_refused(triconv_signal_problem_output(nullptr, nullptr));
    triconv_plan* plan = nullptr;
    triconv_signal_plan* signal_plan = nullptr;
    triconv_prepared* prepared = nullptr;
    triconv_step* step = nullptr;
    size_t bytes = 0;
    char name[8];
    const triconv_problem problem = c_problem(Problem());
    expect_refused(triconv_plan_create(nullptr, nullptr, &plan));
    expect_refused(triconv_plan_create(&problem, nullptr, nullptr));
    expect_refused(triconv_plan_algorithm(nullptr, 0, name, sizeof name));
    expect_refused(triconv_plan_workspace_bytes(nullptr, 0, 1, &bytes));
    expect_refused(triconv_forward(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr, nullptr, nullptr,
                                   0, nullptr));
    expect_refused(
        triconv_input_grad(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(
        triconv_weight_grad(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(triconv_prepare(nullptr, nullptr, nullptr, 0, &prepared));
    expect_refused(
        triconv_prepared_forward(nullptr, nullptr, nullptr, nullptr, 0, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(triconv_prepared_input_grad(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(triconv_step_create(nullptr, nullptr, nullptr, nullptr, nullptr, &step));
    expect_refused(triconv_step_forward(nullptr, nullptr, 0, nullptr, nullptr, nullptr));
    expect_refused(triconv_step_backward(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr));
    expect_refused(triconv_signal_plan_create(nullptr, nullptr, &signal_plan));
    expect_refused(triconv_signal_plan_workspace_bytes(nullptr, 1, &bytes));
    expect_refused(
        triconv_convolve(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(
        triconv_correlate(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(triconv_num_threads(nullptr));
    expect_refused(triconv_get_build_info(nullptr));

    const Handle handle(problem);
    expect_refused(triconv_plan_algorithm(handle, 0, nullptr, 8));
    expect_refused(triconv_plan_workspace_bytes(handle, 0, 1, nullptr));
    expect_refused(
        triconv_forward(handle, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(
        triconv_input_grad(handle, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(
        triconv_weight_grad(handle, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
    expect_refused(triconv_prepare(handle, nullptr, nullptr, 0, &prepared));
    expect_refused(triconv_prepare(handle, name, nullptr, 0, nullptr));
    expect_refused(triconv_step_create(handle, nullptr, nullptr, nullptr, nullptr, nullptr));
    EXPECT_EQ(triconv_step_create(handle, nullptr, nullptr, nullptr, nullptr, &step), TRICONV_OK);
    expect_refused(triconv_step_forward(step, nullptr, 0, nullptr, nullptr, nullptr));
    expect_refused(triconv_step_backward(step, nullptr, nullptr, name, nullptr, name, nullptr, nullptr));
    triconv_step_destroy(step);

    triconv_plan_destroy(nullptr);
    triconv_prepared_destroy(nullptr);
    triconv_step_destroy(nullptr);
    triconv_signal_plan_destroy(nullptr);
    EXPECT_EQ(triconv_problem_output(&problem, nullptr), TRICONV_OK);
    EXPECT_EQ(triconv_release_memory(nullptr), TRICONV_OK);
    EXPECT_EQ(triconv_plan_algorithm(handle, 0, name, 0), TRICONV_OK);
}

TEST(CApi, EveryWrongValueIsRefused) {
    const triconv_problem good = c_problem(parse_problem("n1c2k2 i8x8 r3x3 f32").problem);
    const auto refused = [&](const std::function<void(triconv_problem&)>& change) {
        triconv_problem wrong = good;
        change(wrong);
        triconv_plan* plan = nullptr;
        EXPECT_EQ(triconv_plan_create(&wrong, nullptr, &plan), TRICONV_INVALID_ARGUMENT);
        EXPECT_EQ(plan, nullptr);
        EXPECT_EQ(triconv_problem_output(&wrong, nullptr), TRICONV_INVALID_ARGUMENT);
    };
    constexpr int64_t most = std::numeric_limits<int64_t>::max(), least = std::numeric_limits<int64_t>::min();
    for (size_t size : {size_t{0}, size_t{4}, sizeof good - 1, sizeof good + 8, std::numeric_limits<size_t>::max()})
        refused([&](triconv_problem& p) { p.struct_size = size; });
    for (int32_t value : {-1, 2, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()})
        refused([&](triconv_problem& p) { p.dtype = value; });
    for (int32_t value : {-1, 5, std::numeric_limits<int32_t>::max()})
        refused([&](triconv_problem& p) { p.boundary = value; });
    for (int32_t value : {-1, 0, 4, std::numeric_limits<int32_t>::max()})
        refused([&](triconv_problem& p) { p.rank = value; });
    refused([](triconv_problem& p) { p.reserved = 7; });
    for (int64_t value : {most, least, int64_t{-1}}) {
        refused([&](triconv_problem& p) { p.batch = value; });
        refused([&](triconv_problem& p) { p.in_channels = value; });
        refused([&](triconv_problem& p) { p.out_channels = value; });
        refused([&](triconv_problem& p) { p.groups = value; });
        for (int axis = 0; axis < 2; ++axis) {
            refused([&](triconv_problem& p) { p.input[axis] = value; });
            refused([&](triconv_problem& p) { p.kernel[axis] = value; });
            refused([&](triconv_problem& p) { p.stride[axis] = value; });
            refused([&](triconv_problem& p) { p.dilation[axis] = value; });
            refused([&](triconv_problem& p) { p.pad_lo[axis] = value; });
            refused([&](triconv_problem& p) { p.pad_hi[axis] = value; });
        }
    }
    refused([](triconv_problem& p) { p.batch = p.input[0] = p.input[1] = int64_t{1} << 40; });
    refused([](triconv_problem& p) { p.boundary = TRICONV_WRAP, p.fill = 1; });

    const Handle handle(good);
    size_t bytes = 0;
    char name[8];
    triconv_prepared* prepared = nullptr;
    const float w[2 * 2 * 3 * 3] = {};
    for (int32_t pass : {-1, 3, std::numeric_limits<int32_t>::min()}) {
        EXPECT_EQ(triconv_plan_algorithm(handle, pass, name, sizeof name), TRICONV_INVALID_ARGUMENT);
        EXPECT_EQ(triconv_plan_workspace_bytes(handle, pass, 1, &bytes), TRICONV_INVALID_ARGUMENT);
        EXPECT_EQ(triconv_prepare(handle, w, nullptr, pass, &prepared), TRICONV_INVALID_ARGUMENT);
    }
    EXPECT_EQ(triconv_prepare(handle, w, nullptr, TRICONV_WEIGHT_GRAD, &prepared), TRICONV_INVALID_ARGUMENT);
    EXPECT_EQ(triconv_plan_workspace_bytes(handle, 0, 0, &bytes), TRICONV_INVALID_ARGUMENT);
    EXPECT_EQ(triconv_set_num_threads(0), TRICONV_INVALID_ARGUMENT);
    triconv_run_info info = run_info();
    info.struct_size = 1;
    float out[2 * 6 * 6] = {7};
    const float x[2 * 8 * 8] = {};
    EXPECT_EQ(triconv_forward(handle, x, nullptr, w, nullptr, nullptr, 0, out, nullptr, nullptr, 0, &info),
              TRICONV_INVALID_ARGUMENT);
    EXPECT_EQ(out[0], 7) << "refused before any work";
    triconv_problem small;
    EXPECT_EQ(triconv_problem_init(&small, 8), TRICONV_INVALID_ARGUMENT);
}

// ---- errors ---------------------------------------------------------------------------------------------------------

TEST(CApi, MessagesBelongToThreads) {
    triconv_set_num_threads(-5);
    const std::string here = triconv_last_error();
    EXPECT_NE(here.find("-5"), std::string::npos);
    std::thread([&] {
        EXPECT_STREQ(triconv_last_error(), "");
        triconv_set_num_threads(-6);
        EXPECT_NE(std::string(triconv_last_error()).find("-6"), std::string::npos);
    }).join();
    EXPECT_EQ(triconv_last_error(), here);
    int32_t threads = 0;
    EXPECT_EQ(triconv_num_threads(&threads), TRICONV_OK);
    EXPECT_GE(threads, 1);
    EXPECT_EQ(triconv_last_error(), here) << "success does not change the message";
}

TEST(CApi, LongMessagesAreCut) {
    triconv_signal_problem problem;
    triconv_signal_problem_init(&problem, sizeof problem);
    const std::string name(100000, 'a');
    triconv_signal_plan* plan = nullptr;
    EXPECT_EQ(triconv_signal_plan_create(&problem, name.c_str(), &plan), TRICONV_INVALID_ARGUMENT);
    EXPECT_GT(std::strlen(triconv_last_error()), 20u);
    EXPECT_LT(std::strlen(triconv_last_error()), 1000u);
}

// ---- the process ----------------------------------------------------------------------------------------------------

TEST(CApi, HooksOfTheHost) {
    const Problem problem = parse_problem("n4c8k8 i20x20 r3x3 p1 f32").problem;
    const LayerData<float> data(problem);
    const Handle handle(c_problem(problem));
    std::vector<float> expected = data.empty_output(Pass::forward), out = expected;
    const auto forward = [&](std::vector<float>& y) {
        return triconv_forward(handle, data.x.data(), nullptr, data.w.data(), nullptr, nullptr, 0, y.data(), nullptr,
                               nullptr, 0, nullptr);
    };
    int32_t before = 0;
    ASSERT_EQ(triconv_num_threads(&before), TRICONV_OK);
    ASSERT_EQ(triconv_set_num_threads(2), TRICONV_OK);
    ASSERT_EQ(forward(expected), TRICONV_OK);

    int calls = 0;
    const triconv_parallel_for serially = [](void* context, int pieces, triconv_piece piece, void* run) {
        ++*static_cast<int*>(context);
        for (int i = 0; i < pieces; ++i)
            piece(run, i);
    };
    ASSERT_EQ(triconv_set_parallel_for(serially, &calls), TRICONV_OK);
    EXPECT_EQ(forward(out), TRICONV_OK);
    EXPECT_TRUE(out == expected);
    EXPECT_GT(calls, 0);
    const triconv_parallel_for lazily = [](void*, int, triconv_piece, void*) {};
    ASSERT_EQ(triconv_set_parallel_for(lazily, nullptr), TRICONV_OK);
    EXPECT_EQ(forward(out), TRICONV_INTERNAL_ERROR);
    const triconv_parallel_for throwing = [](void*, int, triconv_piece, void*) { throw 42; };
    ASSERT_EQ(triconv_set_parallel_for(throwing, nullptr), TRICONV_OK);
    EXPECT_EQ(forward(out), TRICONV_INTERNAL_ERROR);
    ASSERT_EQ(triconv_set_parallel_for(nullptr, nullptr), TRICONV_OK);

    int blocks = 0;
    const triconv_allocate allocate = [](void* context, size_t bytes, size_t alignment) {
        ++*static_cast<int*>(context);
        return std::aligned_alloc(alignment, bytes);
    };
    const triconv_deallocate deallocate = [](void* context, void* memory, size_t) {
        --*static_cast<int*>(context);
        std::free(memory);
    };
    EXPECT_EQ(triconv_set_allocator(allocate, nullptr, nullptr), TRICONV_INVALID_ARGUMENT);
    ASSERT_EQ(triconv_set_allocator(allocate, deallocate, &blocks), TRICONV_OK);
    triconv_prepared* prepared = nullptr;
    ASSERT_EQ(triconv_prepare(handle, data.w.data(), nullptr, TRICONV_FORWARD, &prepared), TRICONV_OK);
    EXPECT_GT(blocks, 0);
    triconv_prepared_destroy(prepared);
    EXPECT_EQ(blocks, 0);
    const triconv_allocate nothing = [](void*, size_t, size_t) -> void* { return nullptr; };
    ASSERT_EQ(triconv_set_allocator(nothing, deallocate, &blocks), TRICONV_OK);
    EXPECT_EQ(forward(out), TRICONV_OUT_OF_MEMORY);
    EXPECT_STREQ(triconv_last_error(), "out of memory");
    ASSERT_EQ(triconv_set_allocator(nullptr, nullptr, nullptr), TRICONV_OK);
    EXPECT_EQ(forward(out), TRICONV_OK);
    EXPECT_TRUE(out == expected);
    ASSERT_EQ(triconv_set_num_threads(before), TRICONV_OK);

    size_t bytes = 0;
    EXPECT_EQ(triconv_release_memory(&bytes), TRICONV_OK);
    EXPECT_GT(bytes, 0u);
    EXPECT_EQ(triconv_release_memory(&bytes), TRICONV_OK);
    EXPECT_EQ(bytes, 0u);
}

TEST(CApi, BuildInfo) {
    triconv_build_info info;
    ASSERT_EQ(triconv_build_info_init(&info, sizeof info), TRICONV_OK);
    ASSERT_EQ(triconv_get_build_info(&info), TRICONV_OK) << triconv_last_error();
    const BuildInfo expected = build_info();
    EXPECT_EQ(info.version, expected.version);
    EXPECT_EQ(info.compiler, expected.compiler);
    EXPECT_EQ(info.isa, expected.isa);
    EXPECT_EQ(std::string(info.isas).find("baseline"), 0u);
    info.struct_size = 3;
    EXPECT_EQ(triconv_get_build_info(&info), TRICONV_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace triconv::test
