// Problems for tests: from files, at random, and what can be said of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "triconv/triconv.hpp"

namespace triconv::test {

struct NamedProblem {
    std::string name;
    Problem problem;
};

inline std::vector<NamedProblem> problems_in(const std::string& file) {
    std::ifstream stream(std::string(TRICONV_TEST_SHAPES) + "/" + file);
    std::vector<NamedProblem> problems;
    for (std::string line; std::getline(stream, line);) {
        const std::size_t colon = line.find(": ");
        if (line.empty() || line[0] == '#' || colon == std::string::npos) continue;
        problems.push_back({line.substr(0, colon), parse_problem(line.substr(colon + 2)).problem});
    }
    return problems;
}

inline Problem random_problem(std::mt19937_64& random) {
    const auto draw = [&](std::int64_t lo, std::int64_t hi) {
        return std::uniform_int_distribution<std::int64_t>(lo, hi)(random);
    };
    for (;;) {
        Problem p;
        p.rank = static_cast<int>(draw(1, 3));
        p.batch = draw(1, 3);
        p.groups = draw(0, 2) == 0 ? draw(2, 19) : 1;
        p.in_channels = p.groups * (draw(0, 1) ? 1 : draw(1, p.groups > 4 ? 3 : 21));
        p.out_channels = p.groups * (draw(0, 2) ? draw(1, p.groups > 4 ? 3 : 21) : 1);
        const std::int64_t largest = p.rank == 1 ? 60 : p.rank == 2 ? 20 : 9;
        for (int a = 0; a < p.rank; ++a) {
            p.input[a] = draw(1, largest);
            p.kernel[a] = draw(1, p.rank == 1 ? 20 : p.rank == 2 ? 7 : 4);
            p.stride[a] = draw(0, 1) ? 1 : draw(1, 4);
            p.dilation[a] = draw(0, 1) ? 1 : draw(1, 4);
            p.pad_lo[a] = draw(0, 4);
            p.pad_hi[a] = draw(0, 1) ? p.pad_lo[a] : draw(0, 4);
        }
        p.dtype = draw(0, 3) ? DType::f32 : DType::f64;
        try {
            validate(p);
            return p;
        } catch (const std::invalid_argument&) {}
    }
}

// Every other boundary than zeros, with padding up to wider than the input.
inline Problem random_extended_problem(std::mt19937_64& random) {
    const auto draw = [&](std::int64_t lo, std::int64_t hi) {
        return std::uniform_int_distribution<std::int64_t>(lo, hi)(random);
    };
    Problem p = random_problem(random);
    p.boundary = static_cast<Boundary>(draw(0, 4));
    if (p.boundary == Boundary::constant) p.fill = draw(0, 1) ? 1.5 : -0.25;
    for (int a = 0; a < p.rank; ++a) {
        if (draw(0, 3) == 0) p.input[a] = draw(1, 3);
        p.pad_lo[a] += draw(0, 2) ? 0 : draw(0, p.rank == 3 ? 4 : 9);
        p.pad_hi[a] += draw(0, 2) ? 0 : draw(0, p.rank == 3 ? 4 : 9);
        const std::int64_t missing = p.dilation[a] * (p.kernel[a] - 1) + 1 - p.input[a] - p.pad_lo[a] - p.pad_hi[a];
        p.pad_hi[a] += std::max<std::int64_t>(0, missing);
    }
    validate(p);
    return p;
}

// Calls f with a zero of the problem's element type.
template <class F>
void in_element_type(const Problem& problem, F f) {
    if (problem.dtype == DType::f32)
        f(0.0f);
    else
        f(0.0);
}

inline bool winograd_can(const Problem& problem) {
    try {
        Options options;
        options.algorithm = "winograd";
        const Plan plan(problem, options);
        return true;
    } catch (const std::invalid_argument&) { return false; }
}

}  // namespace triconv::test
