// The plans of recent calls, so that a function called again with the same shapes does not plan again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "triconv/triconv.hpp"

namespace triconv::python {

// A map from problem and options to plan, bounded in plans and in the memory of their tables, which are as long as the
// signals may be; the least recently used one goes first. Safe to call from any thread; calls no Python. A plan handed out
// stays valid after it has left the cache.
class PlanCache {
public:
    PlanCache(std::size_t most_plans, std::int64_t most_bytes) : most_plans_(most_plans), most_bytes_(most_bytes) {}

    Plan get(const Problem& problem, const Options& options);

    // Held across a fork, so that no other thread can leave the child's copy locked or half changed.
    std::mutex& mutex() { return mutex_; }

private:
    struct Entry {
        std::string key;
        Plan plan;
        std::int64_t bytes;
    };

    void forget_least_recent();

    std::size_t most_plans_;
    std::int64_t most_bytes_, bytes_ = 0;
    std::mutex mutex_;
    std::list<Entry> entries_;  // most recently used first
    std::unordered_map<std::string, std::list<Entry>::iterator> index_;
};

// The plan from the process's cache. Called with the GIL held, which is released meanwhile: planning may take long.
Plan cached_plan(const Problem& problem, const Options& options);

}  // namespace triconv::python
