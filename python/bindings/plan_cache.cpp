#include "plan_cache.h"

#include <pthread.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "released_gil.h"

namespace triconv::python {

namespace {

// The bytes that tell one request from another: every number of fixed width, then the algorithms.
class KeyBuilder {
public:
    template <class T>
    void add(const T& value) {
        const std::size_t end = key_.size();
        key_.resize(end + sizeof(T));
        std::memcpy(key_.data() + end, &value, sizeof(T));
    }
    std::string finish(const std::string& tail) && { return std::move(key_) + tail; }

private:
    std::string key_;
};

std::string key_of(const Problem& problem, const Options& options) {
    KeyBuilder key;
    key.add(problem.rank);
    key.add(problem.batch);
    key.add(problem.in_channels);
    key.add(problem.out_channels);
    key.add(problem.groups);
    key.add(problem.input);
    key.add(problem.kernel);
    key.add(problem.stride);
    key.add(problem.dilation);
    key.add(problem.pad_lo);
    key.add(problem.pad_hi);
    key.add(problem.boundary);
    key.add(problem.fill);
    key.add(problem.dtype);
    key.add(options.tolerance);
    key.add(options.max_workspace);
    std::string algorithms = options.algorithm;
    for (const std::string& own : options.pass_algorithm)
        algorithms += ',' + own;
    return std::move(key).finish(algorithms);
}

// What the tables of a plan may come to: factors and bins of three passes, for transforms as long as the longest axis.
std::int64_t table_bytes(const Problem& problem) {
    std::int64_t longest = 1;
    for (int a = 0; a < problem.rank; ++a)
        longest = std::max(longest, problem.input[a] + problem.pad_lo[a] + problem.pad_hi[a]);
    return 3 * 16 * longest;
}

constexpr std::size_t most_plans = 256;
constexpr std::int64_t most_bytes = std::int64_t{1} << 30;

// Never destroyed: a thread may still be planning when the program exits.
PlanCache& cache = *new PlanCache(most_plans, most_bytes);

// When the module is loaded: anything later could itself be interrupted by a fork.
[[maybe_unused]] const int fork_handlers =
    pthread_atfork([] { cache.mutex().lock(); }, [] { cache.mutex().unlock(); }, [] { cache.mutex().unlock(); });

}  // namespace

void PlanCache::forget_least_recent() {
    bytes_ -= entries_.back().bytes;
    index_.erase(entries_.back().key);
    entries_.pop_back();
}

Plan PlanCache::get(const Problem& problem, const Options& options) {
    const std::string key = key_of(problem, options);
    {
        const std::lock_guard lock(mutex_);
        if (const auto found = index_.find(key); found != index_.end()) {
            entries_.splice(entries_.begin(), entries_, found->second);
            return found->second->plan;
        }
    }
    const Plan plan(problem, options);  // may take long: other threads look up meanwhile
    const std::lock_guard lock(mutex_);
    if (index_.find(key) != index_.end()) return plan;
    entries_.push_front({key, plan, table_bytes(problem)});
    index_.emplace(key, entries_.begin());
    bytes_ += entries_.front().bytes;
    while (entries_.size() > 1 && (entries_.size() > most_plans_ || bytes_ > most_bytes_))
        forget_least_recent();
    return plan;
}

Plan cached_plan(const Problem& problem, const Options& options) {
    const ReleasedGil released;
    return cache.get(problem, options);
}

}  // namespace triconv::python
