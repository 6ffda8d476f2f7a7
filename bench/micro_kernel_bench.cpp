// Speed of the micro-kernels of every ISA this machine has: GFLOP/s and the fraction `of_peak` of the arithmetic limit,
// itself measured right before and after with a loop that touches registers only: clocks and neighbours on the core
// change. Names: isa/type/kind/addressing/b/rows x cols; a_steps: rows far apart, consecutive reduction steps adjacent;
// a_rows: the reverse; l1, l2: the cache that b stays in; streaming: each call reads a part of b that is in no cache.
// A complex product counts as 4 multiplications: with the 3 that it takes, up to 4/3 of the peak.
// The kernels without a matrix product, in cache: isa/type/filter or depthwise/taps along x and y, filter_x/taps
// along x, filter_y/taps along y, dots/planes of a.
//
//   micro_kernel_bench --benchmark_filter=avx512/f32 --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "dispatch.h"

namespace triconv {
namespace {

// ---- the arithmetic limit -------------------------------------------------------------------------------------------

constexpr int chains = 12;  // more than units x latency; they start unequal, else the compiler merges them
constexpr int peak_rounds = 200000;

#if defined(__x86_64__)
__attribute__((target("avx512f"), noinline)) float multiply_add_avx512(float factor) {
    __m512 sums[chains], x = _mm512_set1_ps(factor);
    for (int k = 0; k < chains; ++k)
        sums[k] = _mm512_set1_ps(factor + static_cast<float>(k));
    for (int round = 0; round < peak_rounds; ++round) {
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k)
            sums[k] = _mm512_fmadd_ps(sums[k], x, x);
    }
    for (int k = 1; k < chains; ++k)
        sums[0] = _mm512_add_ps(sums[0], sums[k]);
    return _mm512_cvtss_f32(sums[0]);
}
__attribute__((target("avx2,fma"), noinline)) float multiply_add_avx2(float factor) {
    __m256 sums[chains], x = _mm256_set1_ps(factor);
    for (int k = 0; k < chains; ++k)
        sums[k] = _mm256_set1_ps(factor + static_cast<float>(k));
    for (int round = 0; round < peak_rounds; ++round) {
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k)
            sums[k] = _mm256_fmadd_ps(sums[k], x, x);
    }
    for (int k = 1; k < chains; ++k)
        sums[0] = _mm256_add_ps(sums[0], sums[k]);
    return _mm256_cvtss_f32(sums[0]);
}
#endif
__attribute__((noinline)) float multiply_add_baseline(float factor) {
    typedef float Vector __attribute__((vector_size(16)));
    Vector sums[chains], x = factor - Vector{};
    for (int k = 0; k < chains; ++k)
        sums[k] = x + static_cast<float>(k);
    for (int round = 0; round < peak_rounds; ++round) {
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k)
            sums[k] = sums[k] * x + x;
    }
    for (int k = 1; k < chains; ++k)
        sums[0] += sums[k];
    return sums[0][0];
}

double cpu_seconds() {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

// Operations per second of one thread, with vectors of `lanes` elements.
double measure_peak(const std::string& isa, int lanes) {
    float (*loop)(float) = multiply_add_baseline;
#if defined(__x86_64__)
    if (isa == "avx512") loop = multiply_add_avx512;
    if (isa == "avx2") loop = multiply_add_avx2;
#endif
    constexpr int attempts = 5;
    const double start = cpu_seconds();
    for (int attempt = 0; attempt < attempts; ++attempt)
        benchmark::DoNotOptimize(loop(0.5f));
    return 2.0 * lanes * chains * peak_rounds * attempts / (cpu_seconds() - start);
}

// ---- the kernels ----------------------------------------------------------------------------------------------------

struct Setting {
    std::string isa;
    ProductKind kind;
    bool a_rows_adjacent;
    int reduction;
    bool streaming;
    int rows, cols;
};

struct FreeDeleter {
    void operator()(void* p) const { std::free(p); }
};
template <class E>
std::unique_ptr<E[], FreeDeleter> lane_buffer(std::ptrdiff_t count) {
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(E) + 63) / 64 * 64;
    std::unique_ptr<E[], FreeDeleter> buffer(static_cast<E*>(std::aligned_alloc(64, bytes)));
    std::fill_n(buffer.get(), count, E(0.001));
    return buffer;
}

// Times call(), so many operations, as a fraction of the peak of the ISA's vectors of E.
template <class E, class Call>
void run_kernel(benchmark::State& state, const std::string& isa, double operations, const Call& call) {
    const int lanes = table_of<E>(kernels(isa)).lanes;
    double peak = measure_peak(isa, lanes);
    const double start = cpu_seconds();
    for (auto _ : state) {
        call();
        benchmark::ClobberMemory();
    }
    const double seconds = cpu_seconds() - start;
    peak = (peak + measure_peak(isa, lanes)) / 2;
    const double speed = operations * static_cast<double>(state.iterations()) / seconds;
    state.counters["GFLOPS"] = speed / 1e9;
    state.counters["of_peak"] = speed / peak;
}

template <class E>
void run_product(benchmark::State& state, const Setting& setting) {
    const KernelTable<E>& table = table_of<E>(kernels(setting.isa));
    const int lanes = table.lanes, parts = setting.kind == ProductKind::real ? 1 : 2;
    const int reduction = setting.reduction, blocks = setting.a_rows_adjacent ? 1 : reduction / lanes;
    const int length = reduction / blocks;
    const std::ptrdiff_t panel = std::ptrdiff_t{reduction} * setting.cols * lanes * parts;
    const std::ptrdiff_t stream = (std::ptrdiff_t{128} << 20) / std::ptrdiff_t{sizeof(E)};
    const std::ptrdiff_t panels = setting.streaming ? stream / panel : 1;
    const std::ptrdiff_t row_block = std::ptrdiff_t{setting.rows} * lanes;
    auto a = lane_buffer<E>(2 * std::ptrdiff_t{reduction} * std::max(lanes, setting.rows));
    auto b = lane_buffer<E>(panels * panel);
    auto c = lane_buffer<E>(2 * setting.rows * setting.cols * lanes);
    std::vector<std::ptrdiff_t> a_offset, b_offset;
    for (int block = 0; block < blocks; ++block) {
        a_offset.push_back(block * row_block);
        b_offset.push_back(std::ptrdiff_t{block} * length * setting.cols * lanes * parts);
    }
    ProductArgs<E> args{};
    args.a = a.get();
    args.c = c.get();
    args.a_im = std::ptrdiff_t{reduction} * std::max(lanes, setting.rows);
    args.b_im = lanes * setting.cols;
    args.c_im = setting.rows * setting.cols * lanes;
    args.a_offset = a_offset.data();
    args.b_offset = b_offset.data();
    args.blocks = args.full_blocks = blocks;
    args.length = length;
    args.a_row = setting.a_rows_adjacent ? 1 : lanes;
    args.a_step = setting.a_rows_adjacent ? lanes : 1;
    args.b_step = parts * setting.cols * lanes;
    args.b_col = args.c_col = lanes;
    args.c_row = setting.cols * lanes;
    args.rows = setting.rows;
    args.cols = setting.cols;
    const auto run = table.product[static_cast<int>(setting.kind)].run;
    std::ptrdiff_t next = 0;
    const double operations = 2.0 * (parts == 2 ? 4 : 1) * reduction * setting.rows * setting.cols * lanes;
    run_kernel<E>(state, setting.isa, operations, [&] {
        args.b = b.get() + next * panel;
        if (++next == panels) next = 0;
        run(args);
    });
}

// Rows of outputs of 512 pixels, in L2.
template <class E>
void run_filter(benchmark::State& state, const std::string& isa, int taps_y, int taps_x) {
    constexpr std::ptrdiff_t rows = 12, count = 512;
    const KernelTable<E>& table = table_of<E>(kernels(isa));
    const std::ptrdiff_t pitch = count + taps_x - 1 + table.lanes;
    const auto in = lane_buffer<E>((rows + taps_y - 1) * pitch), w = lane_buffer<E>(taps_y * taps_x),
               out = lane_buffer<E>(rows * count);
    const FilterArgs<E> args{in.get(), w.get(), out.get(), pitch, 1,    taps_x, count,
                             taps_y,   taps_x,  rows,      count, E(0), false};
    run_kernel<E>(state, isa, 2.0 * rows * count * taps_y * taps_x,
                  [&] { benchmark::DoNotOptimize(table.filter.run(args)); });
}

// A row of 56 outputs, the taps of a row together as far as may be.
template <class E>
void run_depthwise(benchmark::State& state, const std::string& isa, int taps) {
    constexpr std::ptrdiff_t count = 56;
    const KernelTable<E>& table = table_of<E>(kernels(isa));
    const std::ptrdiff_t lanes = table.lanes, row = (count + taps - 1) * lanes;
    const auto in = lane_buffer<E>(taps * row), w = lane_buffer<E>(taps * taps * lanes),
               out = lane_buffer<E>(count * lanes);
    std::vector<TapRun> runs;
    for (int y = 0; y < taps; ++y)
        for (int x = 0; x < taps; x += most_run_taps)
            runs.push_back({y * row + x * lanes, std::min(most_run_taps, taps - x)});
    DepthwiseArgs<E> args{};
    args.in = in.get();
    args.w = w.get();
    args.out = out.get();
    args.runs = runs.data();
    args.run_count = static_cast<int>(runs.size());
    args.in_step = args.out_step = lanes;
    args.count = count;
    run_kernel<E>(state, isa, 2.0 * count * static_cast<double>(lanes) * taps * taps,
                  [&] { table.depthwise_forward(args); });
}

// Of `planes` planes of 1024 pixels with 24 others.
template <class E>
void run_dots(benchmark::State& state, const std::string& isa, int planes) {
    constexpr std::ptrdiff_t count = 1024, dots = 24;
    const KernelTable<E>& table = table_of<E>(kernels(isa));
    const auto a = lane_buffer<E>(planes * count), b = lane_buffer<E>(dots * count);
    std::vector<double> sums(static_cast<std::size_t>(planes * dots));
    std::vector<std::ptrdiff_t> offsets;
    for (int t = 0; t < dots; ++t)
        offsets.push_back(t * count);
    DotArgs<E> args{};
    args.a = a.get();
    args.b = b.get();
    args.b_offset = offsets.data();
    args.sums = sums.data();
    args.a_plane = count;
    args.images = args.rows = 1;
    args.count = count;
    args.planes = planes;
    args.dots = dots;
    run_kernel<E>(state, isa, 2.0 * count * planes * dots, [&] { table.dots.run(args); });
}

template <class E>
void register_type(const std::string& isa, const std::string& type) {
    for (ProductKind kind : {ProductKind::real, ProductKind::complex}) {
        const MicroKernel<E>& kernel = table_of<E>(kernels(isa)).product[static_cast<int>(kind)];
        for (bool a_rows_adjacent : {false, true}) {
            for (const auto& [place, reduction] : {std::pair{"/l1/", 64}, {"/l2/", 256}, {"/streaming/", 256}}) {
                const bool streaming = std::string(place) == "/streaming/";
                for (int rows : {1, (kernel.mr + 1) / 2, kernel.mr}) {
                    for (int cols : {1, kernel.nr}) {
                        const std::string name = isa + "/" + type + (kind == ProductKind::real ? "/real" : "/complex") +
                                                 (a_rows_adjacent ? "/a_rows" : "/a_steps") + place +
                                                 std::to_string(rows) + "x" + std::to_string(cols);
                        const Setting setting{isa, kind, a_rows_adjacent, reduction, streaming, rows, cols};
                        benchmark::RegisterBenchmark(
                            name.c_str(), [setting](benchmark::State& state) { run_product<E>(state, setting); });
                        if (kernel.nr == 1) break;
                    }
                }
            }
        }
    }
}

template <class E>
void register_others(const std::string& isa, const std::string& type) {
    using Run = void (*)(benchmark::State&, const std::string&, int);
    const auto add = [&](const std::string& kernel, Run run, int size) {
        benchmark::RegisterBenchmark((isa + "/" + type + "/" + kernel + "/" + std::to_string(size)).c_str(),
                                     [=](benchmark::State& state) { run(state, isa, size); });
    };
    for (int taps : {3, 5, 7, 9, 11, 15}) {
        add("filter", [](auto& state, const auto& isa, int size) { run_filter<E>(state, isa, size, size); }, taps);
        add("depthwise", run_depthwise<E>, taps);
    }
    for (int taps : {7, 16, 31, 65, 256}) {
        add("filter_x", [](auto& state, const auto& isa, int size) { run_filter<E>(state, isa, 1, size); }, taps);
        add("filter_y", [](auto& state, const auto& isa, int size) { run_filter<E>(state, isa, size, 1); }, taps);
    }
    for (int planes : {1, 2, 6, 12})
        add("dots", run_dots<E>, planes);
}

const bool registered = [] {
    for (const std::string& isa : supported_isas()) {
        register_type<float>(isa, "f32");
        register_type<double>(isa, "f64");
        register_others<float>(isa, "f32");
        register_others<double>(isa, "f64");
    }
    return true;
}();

}  // namespace
}  // namespace triconv
