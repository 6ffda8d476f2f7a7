// FFT line transforms: generated codelets where there are some, else lines composed of them (fft_composed-inl.h), else
// PocketFFT's plans run on lane vectors: any length.
//
// PocketFFT's templates take any type with arithmetic, and keep their twiddle factors in the element type; a lane
// vector is such a type. Its plans work in place on contiguous data, so lines are copied to a scratch buffer of the
// thread and back; the copy also does the strides and the zeros behind the entries read.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "fft_codelets-inl.h"
#include "fft_composed-inl.h"
#include "line_support-inl.h"
#include "lines.h"
#include "triconv_pocketfft.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

namespace pocketfft_detail = pocketfft::detail;

// ---- plans ----------------------------------------------------------------------------------------------------------

template <class Plan>
std::shared_ptr<const Plan> pocketfft_plan(int length) {
    static const MadeOnFirstUse<SharedTables<int, Plan>> plans;
    return plans.get([] { return SharedTables<int, Plan>(); }).find_or_make(length, [&] {
        return Plan(static_cast<std::size_t>(length));
    });
}

// ---- PocketFFT on lane vectors --------------------------------------------------------------------------------------

// Vec without its permission to alias, which template arguments lose anyhow (GCC warns of that). Only PocketFFT reads
// and writes through it; the copies here go through Vec, which may alias it.
template <class E>
struct PlainVec;
template <>
struct PlainVec<float> {
    typedef float type __attribute__((vector_size(TRICONV_VECTOR_BYTES)));
};
template <>
struct PlainVec<double> {
    typedef double type __attribute__((vector_size(TRICONV_VECTOR_BYTES)));
};

// Context of a line transform that runs one of PocketFFT's plans.
template <class E>
struct PocketfftLine {
    LineKind kind;
    int length, n_in, n_out;
    std::shared_ptr<const pocketfft_detail::pocketfft_r<E>> real_plan;     // set for the real kinds
    std::shared_ptr<const pocketfft_detail::pocketfft_c<E>> complex_plan;  // set for the complex kinds
};

template <class E>
void run_real_line(const PocketfftLine<E>& line, const LineArgs<E>& args) {
    using T = typename PlainVec<E>::type;
    auto* const data = reinterpret_cast<E*>(line_scratch(line.length * sizeof(T)));
    for (int i = 0; i < line.n_in; ++i)
        store<E>(data + i * lanes<E>, load(args.in + i * args.in_stride));
    for (int i = line.n_in; i < line.length; ++i)
        store<E>(data + i * lanes<E>, Vec<E>{});
    line.real_plan->exec(reinterpret_cast<T*>(data), E(1), !is_inverse(line.kind));
    for (int i = 0; i < line.n_out; ++i)
        store<E>(args.out + i * args.out_stride, load(data + i * lanes<E>));
}

template <class E>
void run_complex_line(const PocketfftLine<E>& line, const LineArgs<E>& args) {
    using Complex = pocketfft_detail::cmplx<typename PlainVec<E>::type>;
    auto* const data = reinterpret_cast<E*>(line_scratch(line.length * sizeof(Complex)));
    const auto re = [&](int i) { return data + i * 2 * lanes<E>; };
    const auto im = [&](int i) { return re(i) + lanes<E>; };
    for (int i = 0; i < line.n_in; ++i) {
        store<E>(re(i), load(args.in + i * args.in_stride));
        store<E>(im(i), load(args.in + i * args.in_stride + args.in_im));
    }
    for (int i = line.n_in; i < line.length; ++i) {
        store<E>(re(i), Vec<E>{});
        store<E>(im(i), Vec<E>{});
    }
    line.complex_plan->exec(reinterpret_cast<Complex*>(data), E(1), !is_inverse(line.kind));
    for (int i = 0; i < line.n_out; ++i) {
        store<E>(args.out + i * args.out_stride, load(re(i)));
        store<E>(args.out + i * args.out_stride + args.out_im, load(im(i)));
    }
}

template <class E, void (*run)(const PocketfftLine<E>&, const LineArgs<E>&)>
void run_pocketfft(const void* context, const LineArgs<E>& args) {
    const auto& line = *static_cast<const PocketfftLine<E>*>(context);
    for_each_line(args, [&](const LineArgs<E>& one) { run(line, one); });
}

template <class E>
LineTransform<E> pocketfft_line(LineKind kind, int length, int n_in, int n_out) {
    auto line = std::make_shared<PocketfftLine<E>>();
    line->kind = kind;
    line->length = length;
    line->n_in = n_in;
    line->n_out = n_out;
    if (is_complex(kind)) {
        line->complex_plan = pocketfft_plan<pocketfft_detail::pocketfft_c<E>>(length);
        return {run_pocketfft<E, run_complex_line<E>>, std::move(line), n_in, n_out};
    }
    line->real_plan = pocketfft_plan<pocketfft_detail::pocketfft_r<E>>(length);
    return {run_pocketfft<E, run_real_line<E>>, std::move(line), n_in, n_out};
}

// ---- the choice -----------------------------------------------------------------------------------------------------

template <class E>
void copy_entries(const void*, const LineArgs<E>& args) {
    for_each_line(args, [](const LineArgs<E>& one) { store<E>(one.out, load(one.in)); });
}

template <class E>
void copy_complex_entries(const void*, const LineArgs<E>& args) {
    for_each_line(args, [](const LineArgs<E>& one) {
        store<E>(one.out, load(one.in));
        store<E>(one.out + one.out_im, load(one.in + one.in_im));
    });
}

template <class E>
LineTransform<E> fft_line(LineKind kind, int length, int n_in, int n_out) {
    if (length == 1) return {is_complex(kind) ? copy_complex_entries<E> : copy_entries<E>, nullptr, 1, 1};
    const bool inverse = is_inverse(kind);
    const int asked = inverse ? n_out : n_in;
    const int count = asked < 1 ? 1 : asked > length ? length : asked;
    if (const FftCodelet<E>* const codelet = find_codelet<E>(kind, length, count)) {
        return {codelet->run, nullptr, inverse ? length : codelet->count, inverse ? codelet->count : length};
    }
    if (LineTransform<E> composed = composed_line<E>(kind, length, count); composed.run) return composed;
    return pocketfft_line<E>(kind, length, inverse ? length : count, inverse ? count : length);
}

}  // namespace triconv::TRICONV_ISA_NAMESPACE
