/* The three passes of a layer from C. Checks that they are adjoint: with dy = y, the sums of y y, x dx and w dw are one
 * number. Then an error and its message. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "triconv/triconv.h"

enum { BATCH = 2, CHANNELS = 3, OUTPUTS = 4, SIZE = 12, TAPS = 5, X = BATCH * CHANNELS * SIZE * SIZE };
enum { W = OUTPUTS * CHANNELS * TAPS * TAPS, Y = BATCH * OUTPUTS * SIZE * SIZE };

static double x[X], dx[X], w[W], dw[W], y[Y];

static void fill(double* values, int count) {
    for (int i = 0; i < count; ++i)
        values[i] = sin(1.7 * i);
}

static double dot(const double* a, const double* b, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i)
        sum += a[i] * b[i];
    return sum;
}

static int failed(const char* what) {
    fprintf(stderr, "%s: %s\n", what, triconv_last_error());
    return 1;
}

static int make_plan(int64_t groups, triconv_plan** plan) {
    triconv_problem problem;
    triconv_status status = triconv_problem_init(&problem, sizeof problem);
    if (status != TRICONV_OK) return status;
    problem.dtype = TRICONV_F64;
    problem.batch = BATCH;
    problem.in_channels = CHANNELS;
    problem.out_channels = OUTPUTS;
    problem.groups = groups;
    for (int axis = 0; axis < 2; ++axis) {
        problem.input[axis] = SIZE;
        problem.kernel[axis] = TAPS;
        problem.pad_lo[axis] = problem.pad_hi[axis] = TAPS / 2;
    }
    return triconv_plan_create(&problem, NULL, plan);
}

int main(void) {
    triconv_plan* plan;
    if (make_plan(1, &plan) != TRICONV_OK) return failed("plan");
    fill(x, X);
    fill(w, W);
    if (triconv_forward(plan, x, NULL, w, NULL, NULL, 0, y, NULL, NULL, 0, NULL) != TRICONV_OK)
        return failed("forward");
    if (triconv_input_grad(plan, w, NULL, y, NULL, dx, NULL, NULL, 0, NULL) != TRICONV_OK) return failed("input_grad");
    if (triconv_weight_grad(plan, x, NULL, y, NULL, dw, NULL, NULL, 0, NULL) != TRICONV_OK)
        return failed("weight_grad");
    triconv_plan_destroy(plan);

    const double expected = dot(y, y, Y), by_input = dot(x, dx, X), by_weight = dot(w, dw, W);
    printf("<y, y> = %.12g, <x, dx> = %.12g, <w, dw> = %.12g\n", expected, by_input, by_weight);
    if (!(fabs(by_input - expected) < 1e-10 * expected && fabs(by_weight - expected) < 1e-10 * expected)) {
        fprintf(stderr, "the passes are not adjoint\n");
        return 1;
    }

    if (make_plan(2, &plan) != TRICONV_INVALID_ARGUMENT || plan != NULL ||
        strstr(triconv_last_error(), "groups") == NULL)
        return failed("3 channels in 2 groups were accepted, or the message is strange");
    printf("refused, as it should be: %s\n", triconv_last_error());
    return 0;
}
