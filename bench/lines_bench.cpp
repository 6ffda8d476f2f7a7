// Line transforms alone, data in L1 (longer lines: L2): nanoseconds per transform of one line of lane vectors, per ISA.
//   lines_bench --benchmark_filter=avx512/f32/fft_complex
// The name ends in kind/length/entries read (inverse: written). Items are entries times lanes, so that items per second
// of ISAs and lengths compare.
#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>

#include "dispatch.h"

namespace triconv {
namespace {

struct NamedKind {
    LineKind kind;
    const char* name;
};
constexpr NamedKind fft_kinds[] = {{LineKind::fft_real, "fft_real"},
                                   {LineKind::fft_real_inverse, "fft_real_inverse"},
                                   {LineKind::fft_complex, "fft_complex"},
                                   {LineKind::fft_complex_inverse, "fft_complex_inverse"}};
constexpr NamedKind winograd_kinds[] = {
    {LineKind::winograd_data, "winograd_data"},         {LineKind::winograd_kernel, "winograd_kernel"},
    {LineKind::winograd_output, "winograd_output"},     {LineKind::winograd_data_t, "winograd_data_t"},
    {LineKind::winograd_kernel_t, "winograd_kernel_t"}, {LineKind::winograd_output_t, "winograd_output_t"}};
constexpr int fft_lengths[] = {4,  8,  9,  12, 16,  18,  20,  24,  32,  15,   28,   36,   48,   64,
                               72, 80, 96, 97, 128, 256, 512, 576, 750, 1024, 2048, 4096, 8192, 9216};

struct Release {
    void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};

template <class E>
void run_line(benchmark::State& state, const LineTransform<E>& transform, int lanes, int length, bool complex) {
    const std::ptrdiff_t part = static_cast<std::ptrdiff_t>(length + 1) * lanes;
    const std::size_t count = static_cast<std::size_t>(4 * part);
    const std::unique_ptr<E, Release> memory(static_cast<E*>(::operator new(count * sizeof(E), std::align_val_t{64})));
    E* const data = memory.get();
    for (std::size_t i = 0; i < count; ++i)
        data[i] = E(i % 17) - E(8);
    const std::ptrdiff_t im = complex ? part : 0;
    const LineArgs<E> args{data, data + 2 * part, lanes, lanes, im, im};
    for (auto _ : state) {
        transform(args);
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * length * lanes);
}

template <class E>
void add_ffts(const std::string& prefix, const KernelTable<E>& table) {
    for (const int length : fft_lengths) {
        for (const NamedKind& named : fft_kinds) {
            const bool complex = named.kind == LineKind::fft_complex || named.kind == LineKind::fft_complex_inverse;
            const bool inverse =
                named.kind == LineKind::fft_real_inverse || named.kind == LineKind::fft_complex_inverse;
            for (const int count : {length, (length + 1) / 2, (length + 3) / 4}) {
                const auto transform =
                    table.fft_line(named.kind, length, inverse ? length : count, inverse ? count : length);
                const std::string name =
                    prefix + named.name + "/" + std::to_string(length) + "/" + std::to_string(count);
                benchmark::RegisterBenchmark(name.c_str(), [=, lanes = table.lanes](benchmark::State& state) {
                    run_line(state, transform, lanes, length, complex);
                });
            }
        }
    }
}

template <class E>
void add_winograds(const std::string& prefix, const KernelTable<E>& table) {
    for (const auto& [m, r] : {std::pair{2, 3}, {4, 3}, {6, 3}, {2, 5}, {4, 5}}) {
        for (const NamedKind& named : winograd_kinds) {
            const auto transform = table.winograd_line(named.kind, m, r);
            const std::string name = prefix + named.name + "/" + std::to_string(m) + "/" + std::to_string(r);
            benchmark::RegisterBenchmark(name.c_str(),
                                         [=, tile = m + r - 1, lanes = table.lanes](benchmark::State& state) {
                                             run_line(state, transform, lanes, tile, false);
                                         });
        }
    }
}

bool add_all() {
    for (const std::string& isa : supported_isas()) {
        const IsaKernels& table = kernels(isa);
        add_ffts(isa + "/f32/", table.f32);
        add_ffts(isa + "/f64/", table.f64);
        add_winograds(isa + "/f32/", table.f32);
        add_winograds(isa + "/f64/", table.f64);
    }
    return true;
}

const bool added [[maybe_unused]] = add_all();

}  // namespace
}  // namespace triconv
