// FFT lines of length T = radix * m, composed at run time (Cooley-Tukey) from the line transforms of length m, codelets
// or composed themselves, and one step of butterflies with twiddle factors. With t = j + radix * p, K = k + m * q,
// forward:
//
//     for each j < radix:  transform over p, m long -> k          (real: packed spectrum)
//     for each k < m:      times exp(-2 pi i j k / T), then butterfly over j, radix long -> q
//                                                                 (real: only k <= m / 2; q from the middle on stands
//                                                                  for the mirrored bin T - K)
//
// and backward, the same in reverse with conjugate factors. What lies between the two is kept in scratch memory: line j
// at j * pitch, complex entries interleaved (re, im). Pruned entries are whole groups of `radix`.
#pragma once

#include <cmath>
#include <cstddef>
#include <iterator>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "fft_codelets-inl.h"
#include "line_support-inl.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

template <class E>
struct ComposedLine {
    LineKind kind;
    int length, radix;
    int sub_length;        // length / radix
    int groups;            // entries read (inverse: written) / radix
    LineTransform<E> sub;  // pruned to `groups`
    const FftStep<E>* step;
    void (*first)(const void*, const LineArgs<E>&);  // the butterfly of k = 0
    std::shared_ptr<const std::vector<E>> factors;   // see StepArgs; k from 1 on
    std::size_t own_scratch, scratch;                // elements; the latter with those of `sub`, which lie behind

    // Odd in lane vectors, so that the lines do not fall into the same cache sets.
    std::ptrdiff_t pitch() const { return ((sub_length * (is_complex(kind) ? 2 : 1)) | 1) * std::ptrdiff_t{lanes<E>}; }
};

template <class E>
void run_in_scratch(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch);

template <class E>
void run_composed(const void* context, const LineArgs<E>& args) {
    const auto& line = *static_cast<const ComposedLine<E>*>(context);
    E* const scratch = reinterpret_cast<E*>(line_scratch(line.scratch * sizeof(E)));
    for_each_line(args, [&](const LineArgs<E>& one) { run_in_scratch(line, one, scratch); });
}

template <class E>
TRICONV_INLINE void run_subs(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch) {
    if (line.sub.run == run_composed<E>) {
        const auto& sub = *static_cast<const ComposedLine<E>*>(line.sub.context.get());
        for_each_line(args, [&](const LineArgs<E>& one) { run_in_scratch(sub, one, scratch + line.own_scratch); });
    } else {
        line.sub(args);
    }
}

// ---- complex --------------------------------------------------------------------------------------------------------

template <class E>
void run_composed_complex(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch) {
    constexpr std::ptrdiff_t part = lanes<E>, entry = 2 * part;
    const std::ptrdiff_t pitch = line.pitch(), is = args.in_stride, os = args.out_stride;
    const int m = line.sub_length;
    run_subs(line, {args.in, scratch, line.radix * is, entry, args.in_im, part, line.radix, is, pitch}, scratch);
    line.first(nullptr, {scratch, args.out, pitch, m * os, part, args.out_im});
    line.step->run[static_cast<int>(line.kind)](
        {scratch + entry, args.out + os, pitch, m * os, part, args.out_im, entry, os, 0, m - 1, line.factors->data()});
}

template <class E>
void run_composed_complex_inverse(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch) {
    constexpr std::ptrdiff_t part = lanes<E>, entry = 2 * part;
    const std::ptrdiff_t pitch = line.pitch(), is = args.in_stride, os = args.out_stride;
    const int m = line.sub_length;
    line.first(nullptr, {args.in, scratch, m * is, pitch, args.in_im, part});
    line.step->run[static_cast<int>(line.kind)](
        {args.in + is, scratch + entry, m * is, pitch, args.in_im, part, is, entry, 0, m - 1, line.factors->data()});
    run_subs(line, {scratch, args.out, entry, line.radix * os, part, args.out_im, line.radix, pitch, os}, scratch);
}

// ---- real -----------------------------------------------------------------------------------------------------------
//
// Bin k of a packed spectrum has its real part at entry 2 k - 1, the imaginary one at 2 k.

template <class E>
void run_composed_real(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch) {
    constexpr std::ptrdiff_t part = lanes<E>, entry = 2 * part;
    const std::ptrdiff_t pitch = line.pitch(), is = args.in_stride, os = args.out_stride;
    const int m = line.sub_length;
    run_subs(line, {args.in, scratch, line.radix * is, part, 0, 0, line.radix, is, pitch}, scratch);
    line.first(nullptr, {scratch, args.out - os, pitch, 2 * m * os, 0, os});
    line.step->run[static_cast<int>(line.kind)]({scratch + part, args.out + os, pitch, 2 * m * os, part, os, entry,
                                                 2 * os, 2 * (m - 2) * os, (m - 1) / 2, line.factors->data()});
    if (m % 2 == 0)
        line.step->middle[0](nullptr, {scratch + (m - 1) * part, args.out + (m - 1) * os, pitch, 2 * m * os, 0, os});
}

template <class E>
void run_composed_real_inverse(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch) {
    constexpr std::ptrdiff_t part = lanes<E>, entry = 2 * part;
    const std::ptrdiff_t pitch = line.pitch(), is = args.in_stride, os = args.out_stride;
    const int m = line.sub_length;
    line.first(nullptr, {args.in - is, scratch, 2 * m * is, pitch, is, 0});
    line.step->run[static_cast<int>(line.kind)]({args.in + is, scratch + part, 2 * m * is, pitch, is, part, 2 * is,
                                                 entry, 2 * (m - 2) * is, (m - 1) / 2, line.factors->data()});
    if (m % 2 == 0)
        line.step->middle[1](nullptr, {args.in + (m - 1) * is, scratch + (m - 1) * part, 2 * m * is, pitch, is, 0});
    run_subs(line, {scratch, args.out, part, line.radix * os, 0, 0, line.radix, pitch, os}, scratch);
}

template <class E>
void run_in_scratch(const ComposedLine<E>& line, const LineArgs<E>& args, E* scratch) {
    constexpr void (*runs[])(const ComposedLine<E>&, const LineArgs<E>&, E*) = {
        run_composed_real<E>, run_composed_real_inverse<E>, run_composed_complex<E>, run_composed_complex_inverse<E>};
    runs[static_cast<int>(line.kind)](line, args, scratch);
}

// ---- the choice -----------------------------------------------------------------------------------------------------

// The smallest codelet of a kind and length for at least `count` entries, or null.
template <class E>
const FftCodelet<E>* find_codelet(LineKind kind, int length, int count) {
    for (const FftCodelet<E>& codelet : fft_codelets<E>) {
        if (codelet.kind == kind && codelet.length == length && codelet.count >= count) return &codelet;
    }
    return nullptr;
}

// Whether at most `steps` steps from `first` on in the table, in that order, make a line of `length` of a codelet.
template <class E>
bool composable(int length, int steps, const FftStep<E>* first) {
    if (find_codelet<E>(LineKind::fft_complex, length, 1)) return true;
    if (steps == 0) return false;
    for (const FftStep<E>* step = first; step != std::end(fft_steps<E>); ++step) {
        if (length % step->radix == 0 && composable<E>(length / step->radix, steps - 1, step)) return true;
    }
    return false;
}

// The last step of the composition with the fewest steps, and of those the first in the table; null if there is none:
// with steps of radix 2, 3 and 5 any product of these and of one length of a codelet can be made.
template <class E>
const FftStep<E>* last_step(int length) {
    int rest = length;
    for (const int prime : {2, 3, 5})
        while (rest % prime == 0)
            rest /= prime;
    if (rest != 1 && !find_codelet<E>(LineKind::fft_complex, rest, 1)) return nullptr;
    for (int steps = 0;; ++steps) {
        for (const FftStep<E>& step : fft_steps<E>) {
            if (length % step.radix == 0 && composable<E>(length / step.radix, steps, std::begin(fft_steps<E>)))
                return &step;
        }
    }
}

// Computed in the next larger type, so that each is rounded once.
template <class E>
std::vector<E> compute_factors(LineKind kind, int length, int radix) {
    using Wide = std::conditional_t<std::is_same_v<E, float>, double, long double>;
    const int m = length / radix, bins = is_complex(kind) ? m : (m + 1) / 2;
    const int sign = is_inverse(kind) ? 1 : -1;
    constexpr Wide two_pi = 6.283185307179586476925286766559005768L;
    std::vector<E> factors;
    factors.reserve(std::size_t{2} * (bins > 1 ? bins - 1 : 0) * (radix - 1));
    for (int k = 1; k < bins; ++k) {
        for (int j = 1; j < radix; ++j) {
            const Wide angle = two_pi * k * j / length;
            factors.push_back(static_cast<E>(std::cos(angle)));
            factors.push_back(static_cast<E>(sign * std::sin(angle)));
        }
    }
    return factors;
}

template <class E>
std::shared_ptr<const std::vector<E>> twiddle_factors(LineKind kind, int length, int radix) {
    using Tables = SharedTables<std::tuple<LineKind, int, int>, std::vector<E>>;
    static const MadeOnFirstUse<Tables> tables;
    return tables.get([] { return Tables(); }).find_or_make({kind, length, radix}, [&] {
        return compute_factors<E>(kind, length, radix);
    });
}

// The line of `length` for at least `count` entries. run is null if the length has prime factors that no codelet has.
template <class E>
LineTransform<E> composed_line(LineKind kind, int length, int count) {
    const FftStep<E>* const step = last_step<E>(length);
    if (step == nullptr) return {};
    const bool inverse = is_inverse(kind);
    const int radix = step->radix, m = length / radix, least = (count + radix - 1) / radix;
    const FftCodelet<E>* const codelet = find_codelet<E>(kind, m, least);

    auto line = std::make_shared<ComposedLine<E>>();
    line->kind = kind;
    line->length = length;
    line->radix = radix;
    line->sub_length = m;
    line->sub = codelet == nullptr ? composed_line<E>(kind, m, least)
                                   : LineTransform<E>{codelet->run, nullptr, inverse ? m : codelet->count,
                                                      inverse ? codelet->count : m};
    line->groups = inverse ? line->sub.n_out : line->sub.n_in;
    line->step = step;
    line->first = is_complex(kind) ? find_codelet<E>(kind, radix, radix)->run : step->first[inverse];
    line->factors = twiddle_factors<E>(kind, length, radix);
    line->own_scratch = line->scratch = static_cast<std::size_t>(radix * line->pitch());
    if (codelet == nullptr) line->scratch += static_cast<const ComposedLine<E>*>(line->sub.context.get())->scratch;

    const int entries = line->groups * radix;
    return {run_composed<E>, std::move(line), inverse ? length : entries, inverse ? entries : length};
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
