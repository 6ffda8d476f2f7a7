// The plans of recent calls, so that a function called again with the same shapes does not plan again.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "triconv/triconv.hpp"

namespace triconv::python {

// A bounded map from problem and options to plan; the least recently used one goes first. Safe to call from any
// thread; calls no Python. A plan handed out stays valid after it has left the cache.
class PlanCache {
public:
    explicit PlanCache(std::size_t capacity) : capacity_(capacity) {}

    Plan get(const Problem& problem, const Options& options);

private:
    using Entry = std::pair<std::string, Plan>;

    std::size_t capacity_;
    std::mutex mutex_;
    std::list<Entry> entries_;  // most recently used first
    std::unordered_map<std::string, std::list<Entry>::iterator> index_;
};

// The plan from the process's cache. Called with the GIL held, which is released meanwhile: planning may take long.
Plan cached_plan(const Problem& problem, const Options& options);

}  // namespace triconv::python
