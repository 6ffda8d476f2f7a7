// What an algorithm would cost for a pass, predicted from the shape, the ISA and the cache sizes. Nothing is timed.
#pragma once

#include "pass.h"
#include "transform.h"
#include "transform_pass.h"

namespace triconv {

// A candidate, and what it takes to make a pass of it.
struct Costed {
    Candidate candidate;
    bool direct = false;
    TileShape shape;
    LaneKind lane_kind = LaneKind::channels;
    Blocking blocking;
    bool modest = false;  // direct weight_grad: in the least workspace
};

// Lane vectors of a pass's operands, of tiles for one row of their spectra (a tile, or one for each lane): a (tiles
// read), b (kernels, or x in weight_grad), c (the result).
struct Work {
    std::int64_t read_blocks = 0, write_blocks = 0;     // lane blocks of the tiles read and written
    std::int64_t source_blocks = 0, target_blocks = 0;  // the same, but x's blocks are weight_grad's targets
    std::int64_t kernel_vectors = 0;  // lane vectors of weights: one for each reduced row and target block
    std::int64_t products = 0;        // lane-vector products for one row (tile or output) and bin or tap
    LaneKind lane_kind = LaneKind::channels;
    bool lanewise = false;            // products lane by lane
    int complex_multiplications = 3;  // real ones of a complex product
    int groups = 0;                   // of lane blocks
    bool in_place = false;            // the result may overwrite the tiles read
};
Work work_of(Pass pass, const LaneBlocks& xs, const LaneBlocks& ys, LaneKind lane_kind, int lanes);

// Of the whole input array.
double x_bytes(const Layer& layer);
// Whether the input is above 64 MB and a kernel less than 1 % of it: workspaces that a kernel asks for are little then.
bool is_large_beside_kernel(const Layer& layer);

// Nanoseconds of a line transform along an axis of a tile, per value.
template <class E>
double line_ns(const KernelTable<E>& kernels, const TileShape& shape, int axis);

template <class E>
Costed cost_transform(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const Work& work,
                      const TileShape& shape);
// The same with samples in the lanes: for is_image_filter and is_image_tile (image_pass.h).
template <class E>
Costed cost_image(const KernelTable<E>& kernels, const Layer& layer, Pass pass, const TileShape& shape);
template <class E>
Costed cost_direct(const KernelTable<E>& kernels, const Layer& layer, Pass pass);

// What a training step that shares the transforms would cost with these tiles, and the rows of its blocks. It pays where
// that is less than the predicted times of the three passes together.
struct StepCost {
    double seconds;
    std::int64_t rows;
};
template <class E>
StepCost cost_step(const KernelTable<E>& kernels, const Layer& layer, const TileShape& shape, LaneKind lane_kind);

}  // namespace triconv
