// Outputs that came out non-finite are computed again by definition, box by box, so that the class (finite, NaN, +Inf,
// -Inf) of every output is the reference's, whatever the algorithm did to a NaN that only some outputs should see.
#pragma once

#include <cmath>
#include <vector>

#include "float_mode.h"
#include "geometry.h"
#include "parallel.h"

namespace triconv {

// A box of one lane block of image n, in t of the sub-grids.
struct DamagedBox {
    std::int64_t n;
    LaneBlock block;
    std::array<SubGrid, axes> grid;
    Index begin, end;
    // Of sums that each saw its own terms alone: what is finite is right. Else all of the box is in doubt, as of a tile.
    bool only_non_finite = false;
};

// Boxes found by the tasks of a run, kept apart for each slot.
class Damage {
public:
    explicit Damage(int slots) : of_slot_(static_cast<std::size_t>(slots)) {}
    std::vector<DamagedBox>& of(int slot) { return of_slot_[static_cast<std::size_t>(slot)]; }
    std::vector<DamagedBox> all() const {
        std::vector<DamagedBox> result;
        for (const auto& boxes : of_slot_)
            result.insert(result.end(), boxes.begin(), boxes.end());
        return result;
    }

private:
    std::vector<std::vector<DamagedBox>> of_slot_;
};

// Sets the existing elements of the boxes that are in doubt to value_at(n, channel, index).
template <class E, class ValueAt>
void set_outputs(const Tensor<E>& tensor, const std::vector<DamagedBox>& boxes, int max_threads, ValueAt value_at) {
    parallel_for(static_cast<std::int64_t>(boxes.size()), max_threads, [&](std::int64_t i, int) {
        const FloatMode mode(Denormals::keep);  // a denormal times an infinity is no NaN
        const DamagedBox& box = boxes[static_cast<std::size_t>(i)];
        Index t, at;
        for (t[0] = box.begin[0]; t[0] < box.end[0]; ++t[0])
            for (t[1] = box.begin[1]; t[1] < box.end[1]; ++t[1])
                for (t[2] = box.begin[2]; t[2] < box.end[2]; ++t[2]) {
                    bool exists = true;
                    std::ptrdiff_t offset = box.n * tensor.outer;
                    for (int a = 0; a < axes; ++a) {
                        at[a] = box.grid[a].index(t[a]);
                        exists = exists && box.grid[a].contains(t[a]);
                        offset += at[a] * tensor.along[a];
                    }
                    if (!exists) continue;
                    for (int l = 0; l < box.block.lanes; ++l) {
                        const std::int64_t channel = box.block.channel + l * box.block.channel_step;
                        E& element = tensor.data[offset + channel * tensor.inner];
                        if (!box.only_non_finite || !std::isfinite(element)) element = value_at(box.n, channel, at);
                    }
                }
    });
}

}  // namespace triconv
