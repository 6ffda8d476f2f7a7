/* Compiled as C99 with every warning an error. */
#include <triconv/triconv.h>

int main(void) {
    triconv_problem problem;
    return triconv_problem_init(&problem, sizeof problem);
}
