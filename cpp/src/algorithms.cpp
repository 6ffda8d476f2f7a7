#include "algorithms.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "cpu.h"
#include "depthwise_pass.h"
#include "direct_pass.h"
#include "dot_weight_grad.h"
#include "filter_pass.h"
#include "folded_input_grad.h"
#include "image_pass.h"

namespace triconv {

namespace {

// ---- tiles worth looking at -----------------------------------------------------------------------------------------

constexpr std::int64_t most_fft_taps = std::int64_t{1} << 30;  // lengths are ints
constexpr std::int64_t most_tile_samples = std::int64_t{1} << 30;

// Lengths 2^a 3^b 5^c from `least` on, sorted, up to the first that is `enough`.
std::vector<int> smooth_lengths(std::int64_t least, std::int64_t enough) {
    std::vector<int> lengths;
    constexpr std::int64_t largest = most_fft_taps;
    const std::int64_t limit = std::min(largest, 2 * enough);  // the power of two below it is enough
    for (std::int64_t five = 1; five <= limit; five *= 5)
        for (std::int64_t three = five; three <= limit; three *= 3)
            for (std::int64_t t = three; t <= limit; t *= 2)
                if (t >= least) lengths.push_back(static_cast<int>(t));
    std::sort(lengths.begin(), lengths.end());
    const auto last = std::lower_bound(lengths.begin(), lengths.end(), enough);
    if (last != lengths.end()) lengths.erase(last + 1, lengths.end());
    return lengths;
}

// What lanes may hold: channels, or groups in depthwise layers; and tiles, where channels may leave lanes empty.
std::vector<LaneKind> lane_kinds(const Layer& layer, int lanes) {
    const bool lanewise = use_lanewise(layer, lanes);
    std::vector<LaneKind> kinds{lanewise ? LaneKind::groups : LaneKind::channels};
    if ((lanewise ? layer.groups : std::min(layer.in_per_group(), layer.out_per_group())) < lanes)
        kinds.push_back(LaneKind::tiles);
    return kinds;
}

// FFT lengths for one axis: the few with the least work per output of that axis.
template <class E>
std::vector<int> fft_lengths(const KernelTable<E>& kernels, const Layer& layer, Pass pass, int axis) {
    const std::int64_t taps = layer.axis[axis].taps,
                       samples = std::max<std::int64_t>(1, samples_along(layer.axis[axis], pass));
    if (taps == 1) return {1};
    if (taps > most_fft_taps) return {};
    // Beyond 16 kernels or 64 K samples a longer tile saves nothing more.
    const std::int64_t longest = std::max<std::int64_t>(16 * taps, 1 << 16);
    std::vector<std::pair<double, int>> ranked, ranked_dealt;  // dealt: with tiles as lanes
    const std::vector<int> all = smooth_lengths(taps, std::min(samples + taps - 1, longest));
    for (int t : all) {
        TileShape shape;
        shape.fft = true;
        shape.transform[axis] = t;
        const double tiles = static_cast<double>(ceil_div(samples, fft_outputs(layer.axis[axis], pass, t)));
        const double tile_ns = t * (line_ns(kernels, shape, axis) + 1.0);
        ranked.push_back({tiles * tile_ns, t});
        ranked_dealt.push_back({std::ceil(static_cast<double>(layer.batch) * tiles / kernels.lanes) * tile_ns, t});
    }
    std::vector<int> lengths;
    const auto add = [&](int t) {
        if (std::find(lengths.begin(), lengths.end(), t) == lengths.end()) lengths.push_back(t);
    };
    const auto keep = [&](std::vector<std::pair<double, int>>& of, std::size_t kept) {
        std::stable_sort(of.begin(), of.end());
        for (std::size_t i = 0; i < std::min(kept, of.size()); ++i)
            add(of[i].second);
    };
    keep(ranked, 8);
    if (lane_kinds(layer, kernels.lanes).size() > 1) keep(ranked_dealt, 4);
    if (is_image_filter(layer, pass)) {  // those that fill lanes with samples
        const int whole = axis == 2 ? 2 * kernels.lanes : axis == 1 ? kernels.lanes : 1;
        std::erase_if(ranked, [&](const auto& length) { return length.second % whole != 0; });
        keep(ranked, 6);
        const std::int64_t cached = 3 * cache_sizes().l2 / static_cast<std::int64_t>(2 * sizeof(E));  // tile and kernel
        std::erase_if(ranked, [&](const auto& length) { return length.second > cached; });
        keep(ranked, 6);
        if (is_large_beside_kernel(layer))
            for (double times_taps : {1.25, 1.5, 2.0, 3.0}) {  // tiles whose workspace is little
                const double least = times_taps * static_cast<double>(taps);
                const auto modest =
                    std::find_if(all.begin(), all.end(), [&](int t) { return t % whole == 0 && t >= least; });
                if (modest != all.end()) add(*modest);
            }
    }
    return lengths;
}

constexpr std::int64_t most_winograd_taps = 16;  // there are transforms for fewer: see codegen/generate.py

template <class E>
bool has_winograd(const KernelTable<E>& kernels, int m, int r) {
    return kernels.winograd_line(LineKind::winograd_data, m, r).run != nullptr;
}

template <class E>
std::vector<int> winograd_outputs(const KernelTable<E>& kernels, const Layer& layer, Pass, int axis) {
    const std::int64_t taps = layer.axis[axis].taps;
    if (taps == 1) return {1};
    std::vector<int> outputs;
    for (int m = 1; m <= 8 && taps <= most_winograd_taps; ++m)
        if (has_winograd(kernels, m, static_cast<int>(taps))) outputs.push_back(m);
    return outputs;
}

TileShape tile_shape(const Layer& layer, Pass pass, bool fft, const std::array<int, axes>& sizes) {
    TileShape shape;
    shape.fft = fft;
    for (int a = 0; a < axes; ++a) {
        shape.taps[a] = static_cast<int>(layer.axis[a].taps);
        shape.transform[a] = fft ? sizes[a] : sizes[a] + shape.taps[a] - 1;
        shape.outputs[a] = fft ? static_cast<int>(fft_outputs(layer.axis[a], pass, sizes[a])) : sizes[a];
    }
    return shape;
}

// ---- the table ------------------------------------------------------------------------------------------------------

struct Algorithm {
    const char* name;
    bool fft;
    // Sizes of the tile to look at along one axis (T or M); none: the algorithm cannot do this axis.
    template <class E>
    std::vector<int> sizes(const KernelTable<E>& kernels, const Layer& layer, Pass pass, int axis) const {
        return fft ? fft_lengths(kernels, layer, pass, axis) : winograd_outputs(kernels, layer, pass, axis);
    }
};
constexpr Algorithm transforms[] = {{"winograd", false}, {"fft", true}};

std::string impossible_reason(const Layer& layer, const Algorithm& algorithm, int axis) {
    static const char* const names[] = {"depth", "height", "width"};
    const Axis& a = layer.axis[axis];
    std::string reason = std::string(algorithm.name) + " has no transform for " + std::to_string(a.taps) +
                         " taps along the " + names[axis];
    if (a.taps != a.kernel)
        reason += " (kernel " + std::to_string(a.kernel) + " in " + std::to_string(a.tap_step) + " phases)";
    return reason + (algorithm.fft ? ", expected at most 2^30" : ", expected 1 to 7");
}

// The sizes a caller fixed, checked; taps of 1 have nothing to fix.
template <class E>
std::vector<int> fixed_size(const KernelTable<E>& kernels, const Layer& layer, const Algorithm& algorithm,
                            const AlgorithmRequest& request, int axis) {
    const int size = request.tile[static_cast<std::size_t>(axis - (axes - layer.rank))];
    const std::int64_t taps = layer.axis[axis].taps;
    if (taps == 1) return {1};
    if (taps > (algorithm.fft ? most_fft_taps : most_winograd_taps)) return {};
    if (algorithm.fft && size < taps)
        throw std::invalid_argument("algorithm has an FFT tile of " + std::to_string(size) + ", expected at least " +
                                    std::to_string(taps) + ", the taps of the kernel");
    if (!algorithm.fft && !has_winograd(kernels, size, static_cast<int>(taps)))
        throw std::invalid_argument("algorithm has a Winograd tile of " + std::to_string(size) +
                                    " outputs, which for " + std::to_string(taps) + " taps there is no transform for");
    return {size};
}

Costed impossible(const Algorithm& algorithm, const std::string& reason) {
    Costed costed;
    costed.candidate.algorithm = algorithm.name;
    costed.candidate.reason = reason;
    return costed;
}

// A tile with what its lanes hold at the least cost: one of `works`, or samples.
template <class E>
Costed with_best_lanes(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const std::vector<Work>& works,
                       const TileShape& shape) {
    std::vector<Costed> all;
    for (const Work& work : works)
        all.push_back(cost_transform(kernels, layer, pass, work, shape));
    if (is_image_filter(layer, pass) && is_image_tile(shape, kernels.lanes))
        all.push_back(cost_image(kernels, layer, pass, shape));
    return *std::min_element(all.begin(), all.end(), [](const Costed& a, const Costed& b) {
        return a.candidate.predicted_seconds < b.candidate.predicted_seconds;
    });
}

// Keeps the fastest of the tiles, which are sorted; if asked, those besides that take less workspace than all that are faster.
void leave_out_slow(std::vector<Costed>& tiles, bool keep_modest) {
    constexpr std::size_t fastest = 32;
    if (tiles.size() <= fastest) return;
    const auto workspace = [](const Costed& tile) { return tile.candidate.workspace_bytes; };
    auto end = tiles.begin() + fastest;
    if (keep_modest) {
        std::int64_t least = workspace(*std::ranges::min_element(tiles.begin(), end, {}, workspace));
        for (auto tile = end; tile != tiles.end(); ++tile) {
            if (workspace(*tile) >= least) continue;
            least = workspace(*tile);
            std::swap(*end++, *tile);
        }
    }
    tiles.erase(end, tiles.end());
}

template <class E>
std::vector<Costed> cost_tiles(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const Algorithm& algorithm,
                               const AlgorithmRequest& request) {
    std::array<std::vector<int>, axes> sizes;
    for (int a = 0; a < axes; ++a) {
        const bool fixed = !request.tile.empty() && a >= axes - layer.rank;
        sizes[a] = a < axes - layer.rank ? std::vector<int>{1}
                   : fixed               ? fixed_size(kernels, layer, algorithm, request, a)
                                         : algorithm.sizes(kernels, layer, pass, a);
        if (sizes[a].empty()) return {impossible(algorithm, impossible_reason(layer, algorithm, a))};
    }
    const std::vector<LaneKind> kinds = lane_kinds(layer, kernels.lanes);
    std::vector<Work> works;
    for (LaneKind kind : kinds)
        works.push_back(work_of(pass, lane_blocks(layer, kernels.lanes, kind, true),
                                lane_blocks(layer, kernels.lanes, kind, false), kind, kernels.lanes));
    std::vector<Costed> all;
    for (int z : sizes[0])
        for (int y : sizes[1])
            for (int x : sizes[2]) {
                if (std::int64_t{z} * y > most_tile_samples / x) {
                    if (!request.tile.empty())
                        throw std::invalid_argument("algorithm has a tile of " + std::to_string(z) + " x " +
                                                    std::to_string(y) + " x " + std::to_string(x) +
                                                    " samples, expected at most 2^30 of them");
                    continue;
                }
                all.push_back(
                    with_best_lanes(kernels, layer, pass, works, tile_shape(layer, pass, algorithm.fft, {z, y, x})));
            }
    if (all.empty()) return {impossible(algorithm, "tiles would have more than 2^30 samples")};
    std::stable_sort(all.begin(), all.end(), [](const Costed& a, const Costed& b) {
        return a.candidate.predicted_seconds < b.candidate.predicted_seconds;
    });
    if (request.leaves_choice() && !request.limited) leave_out_slow(all, is_image_filter(layer, pass));
    return all;
}

}  // namespace

AlgorithmRequest parse_algorithm(const std::string& text, int rank) {
    const auto bad = [&]() -> std::invalid_argument {
        return std::invalid_argument(
            "algorithm is '" + text +
            "', expected 'auto', 'direct', 'fft' or 'winograd', several names ('direct,fft'), or one with a tile: "
            "'fft:16' or 'fft:16x32' (transform lengths), 'winograd:4' or 'winograd:4x2' (outputs)");
    };
    const AlgorithmRequest all{{"direct", "fft", "winograd"}, {}, false};
    if (text == "auto") return all;
    AlgorithmRequest request;
    const std::size_t colon = text.find(':');
    for (std::size_t begin = 0, end; begin <= std::min(colon, text.size()); begin = end + 1) {
        end = std::min({text.find(',', begin), colon, text.size()});
        const std::string name = text.substr(begin, end - begin);
        if (!all.includes(name) || request.includes(name)) throw bad();
        request.names.push_back(name);
    }
    if (colon == std::string::npos) return request;
    const bool tiled = !request.leaves_choice() && request.names.front() != "direct";
    int size = 0, digits = 0;
    for (std::size_t i = colon + 1; i <= text.size(); ++i) {
        if (i < text.size() && text[i] >= '0' && text[i] <= '9' && ++digits <= 9) {
            size = size * 10 + (text[i] - '0');
            continue;
        }
        if (digits == 0 || digits > 9 || size == 0 || (i < text.size() && text[i] != 'x')) throw bad();
        request.tile.push_back(size);
        size = digits = 0;
    }
    if (request.tile.size() == 1) request.tile.resize(static_cast<std::size_t>(rank), request.tile[0]);
    if (!tiled || request.tile.size() != static_cast<std::size_t>(rank)) throw bad();
    return request;
}

namespace {

// Passes list their blocks of channels, the phases of strides and dilations, and direct ones their taps. A system that
// grants more memory than it has would let lists beyond these grow until it ends some program.
constexpr std::int64_t most_listed_taps = std::int64_t{1} << 30;
constexpr double most_listed_phases = 1 << 22, most_listed_blocks = 1 << 27;

void check_lists(const Layer& layer) {
    double phases = 1;
    for (const Axis& a : layer.axis)
        phases *= static_cast<double>(a.output_phases) * static_cast<double>(a.kernel_phases);
    const double channels = static_cast<double>(layer.in_channels) + static_cast<double>(layer.out_channels);
    const double blocks = std::max(static_cast<double>(layer.groups), channels) * phases;
    if (phases > most_listed_phases || blocks > most_listed_blocks) throw std::bad_alloc();
}

}  // namespace

template <class E>
std::vector<Costed> cost_candidates(const KernelTable<E>& kernels, const Layer& layer, Pass pass,
                                    const AlgorithmRequest& request) {
    check_lists(layer);
    const bool one_tap = layer.axis[0].taps * layer.axis[1].taps * layer.axis[2].taps == 1;
    std::vector<Costed> result;
    if (request.includes("direct")) result.push_back(cost_direct(kernels, layer, pass));
    for (const Algorithm& algorithm : transforms)
        // One tap: a plain matrix product either way.
        if (request.includes(algorithm.name) && !(one_tap && request.includes("direct"))) {
            const std::vector<Costed> tiles = cost_tiles(kernels, layer, pass, algorithm, request);
            result.insert(result.end(), tiles.begin(), tiles.end());
        }
    return result;
}

template <class E>
std::unique_ptr<PassAlgorithm<E>> make_pass(const KernelTable<E>& kernels, const Layer& layer, Pass pass,
                                            const Costed& costed) {
    if (costed.direct && layer.taps() > most_listed_taps) throw std::bad_alloc();
    if (pass == Pass::input_grad && layer.extended())
        return std::make_unique<FoldedInputGrad<E>>(kernels, layer, costed);
    if (!costed.direct && costed.lane_kind == LaneKind::samples)
        return std::make_unique<ImagePass<E>>(kernels, layer, pass, costed.shape);
    if (!costed.direct)
        return std::make_unique<TransformPass<E>>(kernels, layer, pass, costed.shape, costed.lane_kind,
                                                  costed.blocking);
    if (pass == Pass::weight_grad && costed.lane_kind == LaneKind::samples)
        return std::make_unique<DotWeightGrad<E>>(kernels, layer);
    if (pass == Pass::weight_grad) return std::make_unique<DirectWeightGrad<E>>(kernels, layer, costed.modest);
    if (costed.lane_kind == LaneKind::groups) return std::make_unique<DepthwisePass<E>>(kernels, layer, pass);
    if (is_filter(layer, pass)) return std::make_unique<FilterPass<E>>(kernels, layer, pass);
    return std::make_unique<DirectPass<E>>(kernels, layer, pass);
}

#define TRICONV_INSTANTIATE(E)                                                                                        \
    template std::vector<Costed> cost_candidates(const KernelTable<E>&, const Layer&, Pass, const AlgorithmRequest&); \
    template std::unique_ptr<PassAlgorithm<E>> make_pass(const KernelTable<E>&, const Layer&, Pass, const Costed&);
TRICONV_INSTANTIATE(float)
TRICONV_INSTANTIATE(double)

}  // namespace triconv
