/** @file
 * triconv in C99: the three passes of a convolution layer on the CPU, and convolutions of signals. What is computed, and
 * how, is told in triconv.hpp and the headers it includes.
 *
 * Every function that can fail returns a status, 0 for success; triconv_last_error() says what was wrong. No function
 * prints, aborts or throws, and none of them minds null pointers: where a pointer may not be null, null is
 * TRICONV_INVALID_ARGUMENT. After a failure, results are as they were or, of a run that had begun, unspecified.
 *
 * Arrays are given by the address of their first element and their strides, in elements: those of batch (or output
 * channel), channel (or input channel), then of each spatial axis, 2 + rank numbers. Null strides mean a contiguous
 * array (C order).
 *
 * Structs begin with their size in bytes as the program knows it, by which later versions of the library can tell what
 * that was; the functions named ..._init set it and all defaults. Sizes that no version had are refused.
 *
 * Handles are immutable and may be used by any number of threads at a time, except a triconv_step. To destroy one is
 * allowed when no call is using it; the library keeps alive what handles made from it need.
 */
#ifndef TRICONV_TRICONV_H
#define TRICONV_TRICONV_H

#include <stddef.h>
#include <stdint.h>

#include "triconv/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------------------------ */

/** One of the TRICONV_ constants that follow. */
typedef int32_t triconv_status;
enum {
    TRICONV_OK = 0,
    TRICONV_INVALID_ARGUMENT = 1, /**< Said before any work. */
    TRICONV_OUT_OF_MEMORY = 2,
    TRICONV_INTERNAL_ERROR = 3 /**< Anything else, such as a host's parallel-for that left out pieces. */
};

/** @return The message of the calling thread's last call that failed; "" if none has. Valid until its next failure. */
TRICONV_API const char* triconv_last_error(void);

/* ---- problems ---------------------------------------------------------------------------------------------------- */

enum { TRICONV_MAX_RANK = 3, TRICONV_PASSES = 3 };

/** Type of the elements. */
enum { TRICONV_F32 = 0, TRICONV_F64 = 1 };

/** Passes. */
enum { TRICONV_FORWARD = 0, TRICONV_INPUT_GRAD = 1, TRICONV_WEIGHT_GRAD = 2 };

/** What the padding holds: see triconv::Boundary. */
enum { TRICONV_CONSTANT = 0, TRICONV_NEAREST = 1, TRICONV_REFLECT = 2, TRICONV_MIRROR = 3, TRICONV_WRAP = 4 };

/** A convolution layer: see triconv::Problem. The first `rank` entries of each array count. */
typedef struct triconv_problem {
    size_t struct_size;
    int32_t rank;
    int32_t dtype;
    int64_t batch, in_channels, out_channels, groups;
    int64_t input[TRICONV_MAX_RANK];
    int64_t kernel[TRICONV_MAX_RANK];
    int64_t stride[TRICONV_MAX_RANK];
    int64_t dilation[TRICONV_MAX_RANK];
    int64_t pad_lo[TRICONV_MAX_RANK];
    int64_t pad_hi[TRICONV_MAX_RANK];
    double fill;
    int32_t boundary;
    int32_t reserved; /**< 0 */
} triconv_problem;

/** A layer of one channel, stride and dilation 1, no padding, float32, rank 2. @param struct_size sizeof *problem */
TRICONV_API triconv_status triconv_problem_init(triconv_problem* problem, size_t struct_size);
/** Checks the problem, and gives its output's extents. @param output Room for `rank` numbers, or null. */
TRICONV_API triconv_status triconv_problem_output(const triconv_problem* problem, int64_t* output);

/** What a caller may ask of a plan: see triconv::Options. */
typedef struct triconv_options {
    size_t struct_size;
    const char* algorithm; /**< "auto", "direct,fft", "fft:16x16"...; null: "auto" */
    double tolerance;
    int64_t max_workspace;                      /**< bytes; negative: no limit */
    const char* pass_algorithm[TRICONV_PASSES]; /**< by pass; null or "": `algorithm` */
} triconv_options;

/** The defaults of triconv::Options. @param struct_size sizeof *options */
TRICONV_API triconv_status triconv_options_init(triconv_options* options, size_t struct_size);

/** What a run did: see triconv::RunInfo. */
typedef struct triconv_run_info {
    size_t struct_size;
    int64_t tiles;
    int64_t recomputed_tiles;
    char algorithm[64]; /**< ends with a zero, as isa */
    char isa[16];
} triconv_run_info;

/** @param struct_size sizeof *info */
TRICONV_API triconv_status triconv_run_info_init(triconv_run_info* info, size_t struct_size);

/* ---- layers ------------------------------------------------------------------------------------------------------ */

/** A layer with an algorithm for each pass: see triconv::Plan. */
typedef struct triconv_plan triconv_plan;

/** @param options Null for the defaults. @param plan Set to the plan, on failure to null. */
TRICONV_API triconv_status triconv_plan_create(const triconv_problem* problem, const triconv_options* options,
                                               triconv_plan** plan);
/** Null: nothing is done, as by every function of this name. */
TRICONV_API void triconv_plan_destroy(triconv_plan* plan);

/** @param name Room for `size` characters; the name is cut to what fits, with a zero at its end. */
TRICONV_API triconv_status triconv_plan_algorithm(const triconv_plan* plan, int32_t pass, char* name, size_t size);
/** Bytes of workspace that a run takes with so many threads, exactly. */
TRICONV_API triconv_status triconv_plan_workspace_bytes(const triconv_plan* plan, int32_t pass, int32_t threads,
                                                        size_t* bytes);

/** y from x, w and bias.
 * @param bias Null, or out_channels elements `bias_stride` elements apart.
 * @param workspace Of all runs: memory to work in, aligned to 64 bytes, or null, with 0 bytes, for the library's own. As
 *        many threads run as it has room for: see triconv::CallerWorkspace.
 * @param info Of all runs: null, or what the run did; initialised by triconv_run_info_init. */
TRICONV_API triconv_status triconv_forward(const triconv_plan* plan, const void* x, const int64_t* x_strides,
                                           const void* w, const int64_t* w_strides, const void* bias,
                                           int64_t bias_stride, void* y, const int64_t* y_strides, void* workspace,
                                           size_t workspace_bytes, triconv_run_info* info);
/** dx from w and dy. */
TRICONV_API triconv_status triconv_input_grad(const triconv_plan* plan, const void* w, const int64_t* w_strides,
                                              const void* dy, const int64_t* dy_strides, void* dx,
                                              const int64_t* dx_strides, void* workspace, size_t workspace_bytes,
                                              triconv_run_info* info);
/** dw from x and dy. */
TRICONV_API triconv_status triconv_weight_grad(const triconv_plan* plan, const void* x, const int64_t* x_strides,
                                               const void* dy, const int64_t* dy_strides, void* dw,
                                               const int64_t* dw_strides, void* workspace, size_t workspace_bytes,
                                               triconv_run_info* info);

/** Weights prepared for any number of runs of one pass: see triconv::PreparedWeights. */
typedef struct triconv_prepared triconv_prepared;

/** @param pass TRICONV_FORWARD or TRICONV_INPUT_GRAD. @param w May change afterwards. */
TRICONV_API triconv_status triconv_prepare(const triconv_plan* plan, const void* w, const int64_t* w_strides,
                                           int32_t pass, triconv_prepared** prepared);
/** Null: nothing is done. */
TRICONV_API void triconv_prepared_destroy(triconv_prepared* prepared);
/** As triconv_forward, of the prepared weights. */
TRICONV_API triconv_status triconv_prepared_forward(const triconv_prepared* prepared, const void* x,
                                                    const int64_t* x_strides, const void* bias, int64_t bias_stride,
                                                    void* y, const int64_t* y_strides, void* workspace,
                                                    size_t workspace_bytes, triconv_run_info* info);
/** As triconv_input_grad, of the prepared weights. */
TRICONV_API triconv_status triconv_prepared_input_grad(const triconv_prepared* prepared, const void* dy,
                                                       const int64_t* dy_strides, void* dx, const int64_t* dx_strides,
                                                       void* workspace, size_t workspace_bytes, triconv_run_info* info);

/** A training step that transforms x and dy once: see triconv::Step. One thread at a time may use it. */
typedef struct triconv_step triconv_step;

/** @param x, w Must stay alive and unchanged until the step is destroyed or triconv_step_backward has returned. */
TRICONV_API triconv_status triconv_step_create(const triconv_plan* plan, const void* x, const int64_t* x_strides,
                                               const void* w, const int64_t* w_strides, triconv_step** step);
/** Null: nothing is done. */
TRICONV_API void triconv_step_destroy(triconv_step* step);
/** As triconv_forward, by the step. */
TRICONV_API triconv_status triconv_step_forward(triconv_step* step, const void* bias, int64_t bias_stride, void* y,
                                                const int64_t* y_strides, triconv_run_info* info);
/** To be called after triconv_step_forward. @param dx, dw Either may be null to be left out. */
TRICONV_API triconv_status triconv_step_backward(triconv_step* step, const void* dy, const int64_t* dy_strides,
                                                 void* dx, const int64_t* dx_strides, void* dw,
                                                 const int64_t* dw_strides, triconv_run_info* info);

/* ---- signals ----------------------------------------------------------------------------------------------------- */

/** Parts of the full result: see triconv::SignalMode. */
enum { TRICONV_FULL = 0, TRICONV_SAME = 1, TRICONV_VALID = 2 };

/** Arrays in1 and in2 of `rank` axes, in batches: see triconv::SignalProblem. Their strides are 1 + rank numbers. */
typedef struct triconv_signal_problem {
    size_t struct_size;
    int32_t rank;
    int32_t dtype;
    int64_t batch1, batch2;
    int64_t in1[TRICONV_MAX_RANK];
    int64_t in2[TRICONV_MAX_RANK];
    int32_t mode;
    int32_t reserved; /**< 0 */
} triconv_signal_problem;

/** Rank 1, batches of one, mode full, float32. @param struct_size sizeof *problem */
TRICONV_API triconv_status triconv_signal_problem_init(triconv_signal_problem* problem, size_t struct_size);
/** Checks the problem, and gives its output's extents. @param output Room for `rank` numbers, or null. */
TRICONV_API triconv_status triconv_signal_problem_output(const triconv_signal_problem* problem, int64_t* output);

/** See triconv::SignalPlan. */
typedef struct triconv_signal_plan triconv_signal_plan;

/** @param algorithm "auto" (which is "direct,fft" here), "direct"...; null: "auto".
 * @param plan Set to the plan, on failure to null. */
TRICONV_API triconv_status triconv_signal_plan_create(const triconv_signal_problem* problem, const char* algorithm,
                                                      triconv_signal_plan** plan);
/** Null: nothing is done. */
TRICONV_API void triconv_signal_plan_destroy(triconv_signal_plan* plan);
/** As triconv_plan_workspace_bytes. */
TRICONV_API triconv_status triconv_signal_plan_workspace_bytes(const triconv_signal_plan* plan, int32_t threads,
                                                               size_t* bytes);
/** See triconv::SignalPlan::convolve; `workspace` and `info` as of all runs. */
TRICONV_API triconv_status triconv_convolve(const triconv_signal_plan* plan, const void* in1,
                                            const int64_t* in1_strides, const void* in2, const int64_t* in2_strides,
                                            void* out, const int64_t* out_strides, void* workspace,
                                            size_t workspace_bytes, triconv_run_info* info);
/** See triconv::SignalPlan::correlate. */
TRICONV_API triconv_status triconv_correlate(const triconv_signal_plan* plan, const void* in1,
                                             const int64_t* in1_strides, const void* in2, const int64_t* in2_strides,
                                             void* out, const int64_t* out_strides, void* workspace,
                                             size_t workspace_bytes, triconv_run_info* info);

/* ---- the process --------------------------------------------------------------------------------------------------- */

/** Threads a run uses at most, 1 to 65536; results do not depend on it. */
TRICONV_API triconv_status triconv_set_num_threads(int32_t count);
/** @param count Set to the number of threads a run uses at most. */
TRICONV_API triconv_status triconv_num_threads(int32_t* count);

/** A piece of a run. */
typedef void (*triconv_piece)(void* run, int index);
/** A host's parallel-for: calls piece(run, i) once for each i in [0, pieces), in any order, on any threads, and returns
 * when all have ended. See triconv::HostParallelFor. */
typedef void (*triconv_parallel_for)(void* context, int pieces, triconv_piece piece, void* run);
/** Null: the library's own threads. */
TRICONV_API triconv_status triconv_set_parallel_for(triconv_parallel_for parallel_for, void* context);

/** A host's memory: see triconv::HostAllocator. `allocate` returns null if there is none. */
typedef void* (*triconv_allocate)(void* context, size_t bytes, size_t alignment);
/** Takes back what triconv_allocate gave, with the same number of bytes. */
typedef void (*triconv_deallocate)(void* context, void* data, size_t bytes);
/** Both null: the library's own memory. */
TRICONV_API triconv_status triconv_set_allocator(triconv_allocate allocate, triconv_deallocate deallocate,
                                                 void* context);
/** Gives workspaces that are kept for reuse back to the system. @param bytes Null, or how much that was. */
TRICONV_API triconv_status triconv_release_memory(size_t* bytes);

/** What was built, and the instruction set in use. The strings live as long as the library. */
typedef struct triconv_build_info {
    size_t struct_size;
    const char* version;
    const char* compiler;
    const char* flags;
    const char* isas; /**< compiled in, least to most capable, separated by blanks */
    const char* isa;  /**< in use */
} triconv_build_info;

/** @param struct_size sizeof *info */
TRICONV_API triconv_status triconv_build_info_init(triconv_build_info* info, size_t struct_size);
/** Fails if TRICONV_MAX_ISA is unknown or not supported here. */
TRICONV_API triconv_status triconv_get_build_info(triconv_build_info* info);

#ifdef __cplusplus
}
#endif

#endif
