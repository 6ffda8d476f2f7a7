// The C interface: each function checks its pointers, calls the C++ interface and turns exceptions into a status and a
// message.
#include "triconv/triconv.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "made_on_first_use.h"
#include "triconv/triconv.hpp"

struct triconv_plan {
    triconv::Plan plan;
};
struct triconv_prepared {
    triconv::PreparedWeights weights;
    triconv::Problem problem;
};
struct triconv_step {
    triconv::Problem problem;
    triconv::Step step;
};
struct triconv_signal_plan {
    triconv::SignalPlan plan;
};

namespace triconv {

static_assert(TRICONV_MAX_RANK == max_rank && TRICONV_PASSES == pass_count);

namespace {

// ---- errors ---------------------------------------------------------------------------------------------------------

// Of fixed size: to report that memory has run out must not take any.
thread_local char last_error[512] = "";

triconv_status fail(triconv_status status, const char* message) {
    std::snprintf(last_error, sizeof last_error, "%s", message);
    return status;
}

template <class F>
triconv_status guarded(F f) noexcept {
    try {
        f();
        return TRICONV_OK;
    } catch (const std::invalid_argument& error) {
        return fail(TRICONV_INVALID_ARGUMENT, error.what());
    } catch (const std::bad_alloc&) {
        return fail(TRICONV_OUT_OF_MEMORY, "out of memory");
    } catch (const std::length_error&) {
        return fail(TRICONV_OUT_OF_MEMORY, "out of memory: a list would be longer than can be addressed");
    } catch (const std::exception& error) { return fail(TRICONV_INTERNAL_ERROR, error.what()); } catch (...) {
        return fail(TRICONV_INTERNAL_ERROR, "an exception of unknown type");
    }
}

[[noreturn]] void refuse(const std::string& message) {
    throw std::invalid_argument(message);
}

template <class T>
T& required(const char* name, T* pointer) {
    if (pointer == nullptr) { refuse(std::string(name) + " is null"); }
    return *pointer;
}

template <class T>
void check_size(const char* name, std::size_t struct_size) {
    if (struct_size != sizeof(T)) {
        refuse(std::string(name) + " has struct_size " + std::to_string(struct_size) + ", expected " +
               std::to_string(sizeof(T)));
    }
}

template <class T>
T& required_struct(const char* name, T* pointer) {
    check_size<T>(name, required(name, pointer).struct_size);
    return *pointer;
}

template <class T>
triconv_status initialise(T* to, std::size_t struct_size, T value) noexcept {
    return guarded([&] {
        check_size<T>("the struct", struct_size);
        value.struct_size = sizeof(T);
        required("the struct", to) = value;
    });
}

// ---- values ---------------------------------------------------------------------------------------------------------

template <class E>
E checked_enum(const char* name, std::int32_t value, E last) {
    if (value < 0 || value > static_cast<std::int32_t>(last)) {
        refuse(std::string(name) + " is " + std::to_string(value) + ", expected 0 to " +
               std::to_string(static_cast<int>(last)));
    }
    return static_cast<E>(value);
}

Pass pass_of(std::int32_t pass) {
    return checked_enum("pass", pass, Pass::weight_grad);
}

void check_reserved(std::int32_t reserved) {
    if (reserved != 0) { refuse("reserved is " + std::to_string(reserved) + ", expected 0"); }
}

Problem problem_of(const triconv_problem* given) {
    const triconv_problem& from = required_struct("problem", given);
    check_reserved(from.reserved);
    Problem p;
    p.rank = from.rank;
    p.batch = from.batch;
    p.in_channels = from.in_channels;
    p.out_channels = from.out_channels;
    p.groups = from.groups;
    for (int axis = 0; axis < max_rank; ++axis) {
        p.input[axis] = from.input[axis];
        p.kernel[axis] = from.kernel[axis];
        p.stride[axis] = from.stride[axis];
        p.dilation[axis] = from.dilation[axis];
        p.pad_lo[axis] = from.pad_lo[axis];
        p.pad_hi[axis] = from.pad_hi[axis];
    }
    p.boundary = checked_enum("boundary", from.boundary, Boundary::wrap);
    p.fill = from.fill;
    p.dtype = checked_enum("dtype", from.dtype, DType::f64);
    validate(p);
    return p;
}

triconv_problem as_c(const Problem& p) {
    triconv_problem to{};
    to.rank = p.rank;
    to.batch = p.batch;
    to.in_channels = p.in_channels;
    to.out_channels = p.out_channels;
    to.groups = p.groups;
    for (int axis = 0; axis < max_rank; ++axis) {
        to.input[axis] = p.input[axis];
        to.kernel[axis] = p.kernel[axis];
        to.stride[axis] = p.stride[axis];
        to.dilation[axis] = p.dilation[axis];
        to.pad_lo[axis] = p.pad_lo[axis];
        to.pad_hi[axis] = p.pad_hi[axis];
    }
    return to;  // enumerators that are 0: the defaults
}

SignalProblem signal_problem_of(const triconv_signal_problem* given) {
    const triconv_signal_problem& from = required_struct("problem", given);
    check_reserved(from.reserved);
    SignalProblem p;
    p.rank = from.rank;
    p.batch1 = from.batch1;
    p.batch2 = from.batch2;
    std::copy_n(from.in1, max_rank, p.in1);
    std::copy_n(from.in2, max_rank, p.in2);
    p.mode = checked_enum("mode", from.mode, SignalMode::valid);
    p.dtype = checked_enum("dtype", from.dtype, DType::f64);
    validate(p);
    return p;
}

std::string text_or(const char* text, const char* otherwise) {
    return text != nullptr ? text : otherwise;
}

Options options_of(const triconv_options* given) {
    Options options;
    if (given == nullptr) { return options; }
    const triconv_options& from = required_struct("options", given);
    options.algorithm = text_or(from.algorithm, "auto");
    options.tolerance = from.tolerance;
    options.max_workspace = from.max_workspace;
    for (std::size_t pass = 0; pass < pass_count; ++pass) {
        options.pass_algorithm[pass] = text_or(from.pass_algorithm[pass], "");
    }
    return options;
}

template <class P>
void copy_output(const P& problem, std::int64_t* output) {
    for (int axis = 0; output != nullptr && axis < problem.rank; ++axis) {
        output[axis] = problem.output(axis);
    }
}

void copy_text(const std::string& text, char* to, std::size_t size) {
    std::snprintf(to, size, "%s", text.c_str());
}

// ---- arrays ---------------------------------------------------------------------------------------------------------

// Strides of an array whose outer axes, `outer_axes` of them, come before the spatial ones.
template <class V, class T>
V view_of(T* data, const std::int64_t* strides, int outer_axes, const std::int64_t* outer, int rank,
          const std::int64_t* extents) {
    V view;
    view.data = data;
    std::int64_t contiguous = 1;
    for (int i = outer_axes + rank; i-- > 0;) {
        view.strides[i] = static_cast<std::ptrdiff_t>(strides != nullptr ? strides[i] : contiguous);
        contiguous *= i >= outer_axes ? extents[i - outer_axes] : outer[i];
    }
    return view;
}

template <class V, class T>
V x_view(const Problem& p, T* data, const std::int64_t* strides) {
    const std::int64_t outer[] = {p.batch, p.in_channels};
    return view_of<V>(data, strides, 2, outer, p.rank, p.input);
}

template <class V, class T>
V w_view(const Problem& p, T* data, const std::int64_t* strides) {
    const std::int64_t outer[] = {p.out_channels, p.in_channels / p.groups};
    return view_of<V>(data, strides, 2, outer, p.rank, p.kernel);
}

template <class V, class T>
V y_view(const Problem& p, T* data, const std::int64_t* strides) {
    const std::int64_t outer[] = {p.batch, p.out_channels};
    std::int64_t output[max_rank];
    copy_output(p, output);
    return view_of<V>(data, strides, 2, outer, p.rank, output);
}

// A run, and what is reported of it.
template <class F>
triconv_status run_guarded(triconv_run_info* info, F run) noexcept {
    return guarded([&] {
        if (info != nullptr) { required_struct("info", info); }
        const RunInfo done = run();
        if (info == nullptr) { return; }
        info->tiles = done.tiles;
        info->recomputed_tiles = done.recomputed_tiles;
        copy_text(done.algorithm, info->algorithm, sizeof info->algorithm);
        copy_text(done.isa, info->isa, sizeof info->isa);
    });
}

// Makes the object a handle points to.
template <class H, class F>
triconv_status create(const char* name, H** handle, F make) noexcept {
    if (handle != nullptr) { *handle = nullptr; }
    return guarded([&] {
        required(name, handle);
        *handle = make();
    });
}

using SignalRun = RunInfo (SignalPlan::*)(const ConstView&, const ConstView&, const View&,
                                          const CallerWorkspace&) const;

RunInfo run_signal(const triconv_signal_plan* handle, SignalRun run, const void* in1, const std::int64_t* in1_strides,
                   const void* in2, const std::int64_t* in2_strides, void* out, const std::int64_t* out_strides,
                   const CallerWorkspace& workspace) {
    const SignalPlan& plan = required("plan", handle).plan;
    const SignalProblem& p = plan.problem();
    const std::int64_t batch = p.batch();
    std::int64_t output[max_rank];
    copy_output(p, output);
    return (plan.*run)(view_of<ConstView>(in1, in1_strides, 1, &p.batch1, p.rank, p.in1),
                       view_of<ConstView>(in2, in2_strides, 1, &p.batch2, p.rank, p.in2),
                       view_of<View>(out, out_strides, 1, &batch, p.rank, output), workspace);
}

// What build_info says, as strings that stay.
struct BuildText {
    BuildInfo info = build_info();
    std::string isas;

    BuildText() {
        for (const std::string& isa : info.isas) {
            if (!isas.empty()) { isas += ' '; }
            isas += isa;
        }
    }
};

}  // namespace
}  // namespace triconv

using namespace triconv;

const char* triconv_last_error(void) {
    return last_error;
}

// ---- problems -------------------------------------------------------------------------------------------------------

triconv_status triconv_problem_init(triconv_problem* problem, size_t struct_size) {
    return initialise(problem, struct_size, as_c(Problem()));
}

triconv_status triconv_problem_output(const triconv_problem* problem, int64_t* output) {
    return guarded([&] { copy_output(problem_of(problem), output); });
}

triconv_status triconv_options_init(triconv_options* options, size_t struct_size) {
    const Options defaults;
    return initialise(options, struct_size, {0, nullptr, defaults.tolerance, defaults.max_workspace, {}});
}

triconv_status triconv_run_info_init(triconv_run_info* info, size_t struct_size) {
    return initialise(info, struct_size, {});
}

// ---- layers ---------------------------------------------------------------------------------------------------------

triconv_status triconv_plan_create(const triconv_problem* problem, const triconv_options* options,
                                   triconv_plan** plan) {
    return create("plan", plan, [&] { return new triconv_plan{Plan(problem_of(problem), options_of(options))}; });
}

void triconv_plan_destroy(triconv_plan* plan) {
    delete plan;
}

triconv_status triconv_plan_algorithm(const triconv_plan* plan, int32_t pass, char* name, size_t size) {
    return guarded(
        [&] { copy_text(required("plan", plan).plan.algorithm(pass_of(pass)), &required("name", name), size); });
}

triconv_status triconv_plan_workspace_bytes(const triconv_plan* plan, int32_t pass, int32_t threads, size_t* bytes) {
    return guarded([&] {
        required("bytes", bytes) =
            static_cast<size_t>(required("plan", plan).plan.workspace_bytes(pass_of(pass), threads));
    });
}

triconv_status triconv_forward(const triconv_plan* plan, const void* x, const int64_t* x_strides, const void* w,
                               const int64_t* w_strides, const void* bias, int64_t bias_stride, void* y,
                               const int64_t* y_strides, void* workspace, size_t workspace_bytes,
                               triconv_run_info* info) {
    return run_guarded(info, [&] {
        const Plan& of = required("plan", plan).plan;
        const Problem& p = of.problem();
        return of.forward(x_view<ConstView>(p, x, x_strides), w_view<ConstView>(p, w, w_strides), bias,
                          static_cast<std::ptrdiff_t>(bias_stride), y_view<View>(p, y, y_strides),
                          {workspace, workspace_bytes});
    });
}

triconv_status triconv_input_grad(const triconv_plan* plan, const void* w, const int64_t* w_strides, const void* dy,
                                  const int64_t* dy_strides, void* dx, const int64_t* dx_strides, void* workspace,
                                  size_t workspace_bytes, triconv_run_info* info) {
    return run_guarded(info, [&] {
        const Plan& of = required("plan", plan).plan;
        const Problem& p = of.problem();
        return of.input_grad(w_view<ConstView>(p, w, w_strides), y_view<ConstView>(p, dy, dy_strides),
                             x_view<View>(p, dx, dx_strides), {workspace, workspace_bytes});
    });
}

triconv_status triconv_weight_grad(const triconv_plan* plan, const void* x, const int64_t* x_strides, const void* dy,
                                   const int64_t* dy_strides, void* dw, const int64_t* dw_strides, void* workspace,
                                   size_t workspace_bytes, triconv_run_info* info) {
    return run_guarded(info, [&] {
        const Plan& of = required("plan", plan).plan;
        const Problem& p = of.problem();
        return of.weight_grad(x_view<ConstView>(p, x, x_strides), y_view<ConstView>(p, dy, dy_strides),
                              w_view<View>(p, dw, dw_strides), {workspace, workspace_bytes});
    });
}

triconv_status triconv_prepare(const triconv_plan* plan, const void* w, const int64_t* w_strides, int32_t pass,
                               triconv_prepared** prepared) {
    return create("prepared", prepared, [&] {
        const Plan& of = required("plan", plan).plan;
        const Problem& p = of.problem();
        return new triconv_prepared{of.prepare(w_view<ConstView>(p, w, w_strides), pass_of(pass)), p};
    });
}

void triconv_prepared_destroy(triconv_prepared* prepared) {
    delete prepared;
}

triconv_status triconv_prepared_forward(const triconv_prepared* prepared, const void* x, const int64_t* x_strides,
                                        const void* bias, int64_t bias_stride, void* y, const int64_t* y_strides,
                                        void* workspace, size_t workspace_bytes, triconv_run_info* info) {
    return run_guarded(info, [&] {
        const triconv_prepared& of = required("prepared", prepared);
        return of.weights.forward(x_view<ConstView>(of.problem, x, x_strides), bias,
                                  static_cast<std::ptrdiff_t>(bias_stride), y_view<View>(of.problem, y, y_strides),
                                  {workspace, workspace_bytes});
    });
}

triconv_status triconv_prepared_input_grad(const triconv_prepared* prepared, const void* dy, const int64_t* dy_strides,
                                           void* dx, const int64_t* dx_strides, void* workspace, size_t workspace_bytes,
                                           triconv_run_info* info) {
    return run_guarded(info, [&] {
        const triconv_prepared& of = required("prepared", prepared);
        return of.weights.input_grad(y_view<ConstView>(of.problem, dy, dy_strides),
                                     x_view<View>(of.problem, dx, dx_strides), {workspace, workspace_bytes});
    });
}

triconv_status triconv_step_create(const triconv_plan* plan, const void* x, const int64_t* x_strides, const void* w,
                                   const int64_t* w_strides, triconv_step** step) {
    return create("step", step, [&] {
        const Plan& of = required("plan", plan).plan;
        const Problem& p = of.problem();
        return new triconv_step{p, {of, x_view<ConstView>(p, x, x_strides), w_view<ConstView>(p, w, w_strides)}};
    });
}

void triconv_step_destroy(triconv_step* step) {
    delete step;
}

triconv_status triconv_step_forward(triconv_step* step, const void* bias, int64_t bias_stride, void* y,
                                    const int64_t* y_strides, triconv_run_info* info) {
    return run_guarded(info, [&] {
        triconv_step& of = required("step", step);
        return of.step.forward(bias, static_cast<std::ptrdiff_t>(bias_stride), y_view<View>(of.problem, y, y_strides));
    });
}

triconv_status triconv_step_backward(triconv_step* step, const void* dy, const int64_t* dy_strides, void* dx,
                                     const int64_t* dx_strides, void* dw, const int64_t* dw_strides,
                                     triconv_run_info* info) {
    return run_guarded(info, [&] {
        triconv_step& of = required("step", step);
        return of.step.backward(y_view<ConstView>(of.problem, dy, dy_strides), x_view<View>(of.problem, dx, dx_strides),
                                w_view<View>(of.problem, dw, dw_strides));
    });
}

// ---- signals --------------------------------------------------------------------------------------------------------

triconv_status triconv_signal_problem_init(triconv_signal_problem* problem, size_t struct_size) {
    return initialise(problem, struct_size, {0, 1, TRICONV_F32, 1, 1, {1, 1, 1}, {1, 1, 1}, TRICONV_FULL, 0});
}

triconv_status triconv_signal_problem_output(const triconv_signal_problem* problem, int64_t* output) {
    return guarded([&] { copy_output(signal_problem_of(problem), output); });
}

triconv_status triconv_signal_plan_create(const triconv_signal_problem* problem, const char* algorithm,
                                          triconv_signal_plan** plan) {
    return create("plan", plan, [&] {
        return new triconv_signal_plan{SignalPlan(signal_problem_of(problem), text_or(algorithm, "auto"))};
    });
}

void triconv_signal_plan_destroy(triconv_signal_plan* plan) {
    delete plan;
}

triconv_status triconv_signal_plan_workspace_bytes(const triconv_signal_plan* plan, int32_t threads, size_t* bytes) {
    return guarded(
        [&] { required("bytes", bytes) = static_cast<size_t>(required("plan", plan).plan.workspace_bytes(threads)); });
}

triconv_status triconv_convolve(const triconv_signal_plan* plan, const void* in1, const int64_t* in1_strides,
                                const void* in2, const int64_t* in2_strides, void* out, const int64_t* out_strides,
                                void* workspace, size_t workspace_bytes, triconv_run_info* info) {
    return run_guarded(info, [&] {
        return run_signal(plan, &SignalPlan::convolve, in1, in1_strides, in2, in2_strides, out, out_strides,
                          {workspace, workspace_bytes});
    });
}

triconv_status triconv_correlate(const triconv_signal_plan* plan, const void* in1, const int64_t* in1_strides,
                                 const void* in2, const int64_t* in2_strides, void* out, const int64_t* out_strides,
                                 void* workspace, size_t workspace_bytes, triconv_run_info* info) {
    return run_guarded(info, [&] {
        return run_signal(plan, &SignalPlan::correlate, in1, in1_strides, in2, in2_strides, out, out_strides,
                          {workspace, workspace_bytes});
    });
}

// ---- the process ----------------------------------------------------------------------------------------------------

triconv_status triconv_set_num_threads(int32_t count) {
    return guarded([&] { set_num_threads(count); });
}

triconv_status triconv_num_threads(int32_t* count) {
    return guarded([&] { required("count", count) = num_threads(); });
}

triconv_status triconv_set_parallel_for(triconv_parallel_for parallel_for, void* context) {
    return guarded([&] { set_parallel_for({parallel_for, context}); });
}

triconv_status triconv_set_allocator(triconv_allocate allocate, triconv_deallocate deallocate, void* context) {
    return guarded([&] { set_allocator({allocate, deallocate, context}); });
}

triconv_status triconv_release_memory(size_t* bytes) {
    return guarded([&] {
        const std::size_t released = release_memory();
        if (bytes != nullptr) { *bytes = released; }
    });
}

triconv_status triconv_build_info_init(triconv_build_info* info, size_t struct_size) {
    return initialise(info, struct_size, {});
}

triconv_status triconv_get_build_info(triconv_build_info* info) {
    return guarded([&] {
        triconv_build_info& to = required_struct("info", info);
        static const MadeOnFirstUse<const BuildText> made;
        const BuildText& text = made.get([] { return BuildText(); });
        to.version = text.info.version.c_str();
        to.compiler = text.info.compiler.c_str();
        to.flags = text.info.flags.c_str();
        to.isas = text.isas.c_str();
        to.isa = text.info.isa.c_str();
    });
}
