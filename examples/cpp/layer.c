#include <stdio.h>
#include <triconv/triconv.h>

static float x[2 * 3 * 32 * 32], w[4 * 3 * 5 * 5], y[2 * 4 * 32 * 32];

int main(void) {
    triconv_problem problem;
    triconv_problem_init(&problem, sizeof problem);
    problem.batch = 2, problem.in_channels = 3, problem.out_channels = 4;
    for (int axis = 0; axis < 2; ++axis) {
        problem.input[axis] = 32, problem.kernel[axis] = 5;
        problem.pad_lo[axis] = problem.pad_hi[axis] = 2;
    }
    triconv_plan* plan;
    triconv_status status = triconv_plan_create(&problem, NULL, &plan);
    if (status == TRICONV_OK) /* null strides: contiguous arrays */
        status = triconv_forward(plan, x, NULL, w, NULL, NULL, 0, y, NULL, NULL, 0, NULL);
    if (status != TRICONV_OK) fprintf(stderr, "triconv: %s\n", triconv_last_error());
    triconv_plan_destroy(plan);
    return status;
}
