// Threads: a small pool, created on first use, safe across fork, or the host's parallel-for in its place. Work is a sequence
// of parallel-fors over independent tasks; no task waits for another, so running them serially or nested gives the same
// bits.
#pragma once

#include <cstdint>
#include <functional>

#include "triconv/triconv.hpp"  // num_threads

namespace triconv {

// Calls task(index, slot) for every index in [0, count), each once. A slot in [0, min(num_threads(), max_threads)) is
// never in use by two tasks at the same time: it names the scratch memory a task may use. Slots get contiguous ranges
// of indices (static partitioning). Denormals are flushed to zero inside, the caller's mode restored after. The first
// exception thrown by a task is rethrown here when all have ended. Called from inside a task, or while another thread
// has the pool, it runs serially as slot 0. A host's parallel-for gets a piece of work for each slot.
void parallel_for(std::int64_t count, int max_threads, const std::function<void(std::int64_t index, int slot)>& task);

}  // namespace triconv
