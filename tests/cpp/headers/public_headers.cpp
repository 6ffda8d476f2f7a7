// Compiled as C++17 with every warning an error: a program that embeds the library need not use C++20.
#include <triconv/triconv.hpp>

int main() {
    return triconv::Problem().rank == 2 ? 0 : 1;
}
