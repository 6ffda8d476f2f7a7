// One pass of a layer by one algorithm, ready to run: what a plan chooses between.
#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "geometry.h"
#include "made_on_first_use.h"
#include "recompute.h"

namespace triconv {

template <class E>
struct Operands {
    Tensor<const E> x{}, w{}, dy{};
    Tensor<E> y{}, dx{}, dw{};
    const E* bias = nullptr;
    std::ptrdiff_t bias_stride = 0;
    const E* prepared = nullptr;  // what PassAlgorithm::prepare made of w, if it was called before
};

struct WorkspaceNeed {
    std::int64_t fixed = 0, per_thread = 0;  // bytes
    std::int64_t total(int threads) const { return fixed + per_thread * threads; }
};

struct RunCounts {
    std::int64_t tiles = 0, recomputed = 0;
};

template <class E>
class PassAlgorithm {
public:
    PassAlgorithm(const Layer& layer, Pass pass) : layer_(layer), pass_(pass) {}
    virtual ~PassAlgorithm() = default;
    virtual WorkspaceNeed workspace() const = 0;
    // What a run on so many slots takes: less than workspace() tells where parts with unlike needs follow each other.
    virtual std::int64_t workspace_bytes(int slots) const { return workspace().total(slots); }
    // `workspace`: workspace_bytes(slots) bytes, 64-byte aligned, contents undefined. Thread-safe. Outputs and reductions
    // are not empty (Plan sees to those).
    RunCounts run(const Operands<E>& operands, int slots, char* workspace, bool may_allocate = true) const;
    // The same, but for the outputs in the boxes it appends to `damage`: those have any value, and are to be computed by
    // definition. weight_grad has none: it does so itself, and counts them as recomputed.
    virtual RunCounts compute(const Operands<E>& operands, int slots, char* workspace, Damage& damage) const = 0;

    // What is run instead, in a workspace of its own, where the definition would be left more than a few outputs; `make` may
    // return null: nothing.
    using Make = std::function<std::unique_ptr<const PassAlgorithm>()>;
    void repair_by(Make make) { make_repair_ = std::move(make); }

    // The kernel stage by itself, for runs that share their weights: prepared_size() elements, 64-byte aligned. Those
    // runs need w all the same, for outputs computed by definition.
    virtual std::size_t prepared_size() const { return 0; }
    virtual void prepare(const Tensor<const E>& /*w*/, E* /*prepared*/, int /*max_threads*/) const {}

protected:
    Layer layer_;
    Pass pass_;

private:
    double terms_of(const std::vector<DamagedBox>& boxes) const;

    Make make_repair_;
    OwnedOnFirstUse<const std::unique_ptr<const PassAlgorithm>> repair_;
};

// Runs task(index, slot) for each index, on all threads or serially as one slot of an outer parallel_for.
using Runner = std::function<void(std::int64_t count, const std::function<void(std::int64_t, int)>& task)>;
Runner serial_runner(int slot);
Runner parallel_runner(int slots);

// Whether so many equal tasks leave hardly a thread idle.
inline bool keeps_busy(std::int64_t tasks, int slots) {
    return tasks % slots == 0 || tasks >= 4 * slots;
}

// Adds up the sizes of the parts of a workspace, each starting on a cache line of its own.
class ArenaLayout {
public:
    template <class E>
    std::size_t add(std::size_t elements) {
        const std::size_t start = size_;
        size_ += (elements * sizeof(E) + 63) / 64 * 64;
        return start;
    }
    std::size_t size() const { return size_; }

private:
    std::size_t size_ = 0;
};

// Sums over many blocks that go to memory: when there are more than a few, those of a group of blocks are formed apart
// and added to the total at its end, so that the rounding error grows with the fourth root of the number of blocks.
struct BlockGroups {
    explicit BlockGroups(std::int64_t blocks)
        : grouped(blocks > 16),
          size(grouped ? static_cast<std::int64_t>(std::sqrt(static_cast<double>(blocks)))
                       : std::max<std::int64_t>(1, blocks)),
          count(ceil_div(blocks, size)) {}

    bool starts(std::int64_t block) const { return grouped ? block % size == 0 : block == 0; }
    bool ends(std::int64_t block, std::int64_t blocks) const {
        return grouped && ((block + 1) % size == 0 || block + 1 == blocks);
    }

    bool grouped;
    std::int64_t size;   // blocks of a group
    std::int64_t count;  // of groups
};
// total (+)= part; the first group overwrites.
template <class E>
void add_group(E* total, const E* part, std::size_t size, bool overwrite, int max_threads);

// Rounds a number of elements up to an odd number of cache lines: strides that spread over the cache's sets.
template <class E>
std::ptrdiff_t odd_lines(std::ptrdiff_t elements) {
    constexpr std::ptrdiff_t line = 64 / sizeof(E);
    return ((elements + line - 1) / line | 1) * line;
}

// Sets every element of a batch-by-channels-by-extent array to zero.
template <class E>
void fill_zero(const Tensor<E>& tensor, std::int64_t outer, std::int64_t inner, const Index& extent, int max_threads);

// The bias of each block's channels as lane vectors, one after the other.
template <class E>
void spread_bias(const Operands<E>& operands, const LaneBlocks& blocks, int lanes, E* bias);

// Outputs that came out non-finite, computed by definition (reference.h), of forward or input_grad; how many boxes.
template <class E>
std::int64_t recompute_outputs(const Layer& layer, Pass pass, const Operands<E>& operands,
                               const std::vector<DamagedBox>& boxes, int max_threads);
// The taps first, first + step, ... of all channel pairs of an x and a y block.
template <class E>
void recompute_weight_grad(const Layer& layer, const Operands<E>& operands, const LaneBlock& x, const LaneBlock& y,
                           bool lanewise, const Index& first, const Index& step);

}  // namespace triconv
