// Speed of the crossing between the user's arrays and lane vectors, hot in the cache: bytes of the user's array per
// second. Names: isa/type/direction/layout/lane count; rows of 64 pixels.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"

namespace triconv {
namespace {

enum class Layout { channels_last, channels_first, every_second_pixel, strided };

struct Setting {
    std::string isa;
    bool write;
    Layout layout;
    int lane_count;
};

template <class E>
void run_row(benchmark::State& state, const Setting& setting) {
    constexpr std::int64_t count = 64;
    const KernelTable<E>& table = table_of<E>(kernels(setting.isa));
    const int lanes = table.lanes;
    // A few elements off any vector boundary, and a lane stride that is no power of two.
    std::vector<E> array(8 * count * lanes, E(1)), storage(count * lanes + 64, E(1));
    const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(storage.data()) % 64;
    RowArgs<E> args{};
    args.lanes = storage.data() + (64 - misaligned) / sizeof(E);
    args.source = array.data() + 1;
    args.destination = array.data() + 1;
    args.lane_count = setting.lane_count;
    args.count = count;
    switch (setting.layout) {
        case Layout::channels_last:
            args.lane_stride = 1, args.pixel_stride = setting.lane_count;
            break;
        case Layout::channels_first:
            args.lane_stride = count + 8, args.pixel_stride = 1;
            break;
        case Layout::every_second_pixel:
            args.lane_stride = 2 * count + 8, args.pixel_stride = 2;
            break;
        case Layout::strided:
            args.lane_stride = 3 * count + 8, args.pixel_stride = 3;
            break;
    }
    for (auto _ : state) {
        if (setting.write) {
            benchmark::DoNotOptimize(table.write_row(args));
        } else {
            table.read_row(args);
        }
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * count * setting.lane_count * std::int64_t{sizeof(E)});
}

template <class E>
void register_type(const std::string& isa, const std::string& type) {
    const int lanes = table_of<E>(kernels(isa)).lanes;
    const std::pair<Layout, const char*> layouts[] = {{Layout::channels_last, "/channels_last/"},
                                                      {Layout::channels_first, "/channels_first/"},
                                                      {Layout::every_second_pixel, "/every_second_pixel/"},
                                                      {Layout::strided, "/strided/"}};
    for (bool write : {false, true}) {
        for (const auto& [layout, layout_name] : layouts) {
            for (int lane_count : {lanes, lanes - 1, 1}) {
                const Setting setting{isa, write, layout, lane_count};
                const std::string name =
                    isa + "/" + type + (write ? "/write" : "/read") + layout_name + std::to_string(lane_count);
                benchmark::RegisterBenchmark(name.c_str(),
                                             [setting](benchmark::State& state) { run_row<E>(state, setting); });
            }
        }
    }
}

const bool registered = [] {
    for (const std::string& isa : supported_isas()) {
        register_type<float>(isa, "f32");
        register_type<double>(isa, "f64");
    }
    return true;
}();

}  // namespace
}  // namespace triconv
