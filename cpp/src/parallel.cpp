// The pool, and the host's parallel-for. One thread at a time owns it, for the length of one parallel_for; it publishes a
// job, runs slot 0 of it, then the slots 1, 2, ... whose workers have not begun, and waits for the others to finish. A
// sleeping thread takes longer to wake up than a small job to run, so nobody waits for one that does. Any other caller
// runs its work serially instead of waiting.
//
// Fork: only the forking thread exists in the child, and the pool's mutexes may be locked there for ever. So the child
// abandons the pool with everything in it: its next parallel_for makes a new one.
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "float_mode.h"
#include "made_on_first_use.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "process_setting.h"

namespace triconv {
namespace {

// ---- how many threads -----------------------------------------------------------------------------------------------

// CPUs that the control group may use at a time, rounded up; `fallback` where it sets no quota.
int control_group_cpus(int fallback) {
    std::ifstream file("/sys/fs/cgroup/cpu.max");  // "<quota> <period>" in microseconds, or "max <period>"
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0) { return fallback; }
    const double cpus = std::strtod(quota.c_str(), nullptr) / period;
    return cpus > 0 && cpus < fallback ? static_cast<int>(cpus + 0.999) : fallback;
}

int available_cpus() {
    int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) { cpus = CPU_COUNT(&set); }
#endif
    return std::max(1, control_group_cpus(cpus));
}

// Far beyond any machine; what is kept for each thread stays small.
constexpr int most_threads = 1 << 16;

[[noreturn]] void refuse_threads(const std::string& name, const std::string& value) {
    throw std::invalid_argument(name + " is " + value + ", expected an integer from 1 to " +
                                std::to_string(most_threads));
}

int initial_threads() {
    const char* text = std::getenv("TRICONV_NUM_THREADS");
    if (text == nullptr) { return available_cpus(); }
    int value = 0;
    const char* end = text + std::strlen(text);
    const auto [parsed_to, error] = std::from_chars(text, end, value);
    if (error != std::errc() || parsed_to != end || value < 1 || value > most_threads)
        refuse_threads("TRICONV_NUM_THREADS", std::string("\"").append(text).append("\""));
    return value;
}

std::atomic<int> configured_threads{0};  // 0: not decided yet

int configured_num_threads() {
    int threads = configured_threads.load(std::memory_order_relaxed);
    if (threads == 0) {
        const int initial = initial_threads();
        if (configured_threads.compare_exchange_strong(threads, initial)) { threads = initial; }
    }
    return threads;
}

// ---- one parallel_for -----------------------------------------------------------------------------------------------

thread_local bool inside_task = false;

class Job {
public:
    Job(std::int64_t count, const std::function<void(std::int64_t, int)>& task) : count_(count), task_(task) {}

    // Runs the indices of one of `slots` slots; keeps the first exception.
    void run(int slot, int slots) noexcept {
        const FloatMode mode(Denormals::flush);
        const bool outer = inside_task;
        inside_task = true;
        try {
            const std::int64_t end = begin_of(slot + 1, slots);
            for (std::int64_t index = begin_of(slot, slots); index < end; ++index) {
                task_(index, slot);
            }
        } catch (...) {
            if (!failed_.exchange(true)) { error_ = std::current_exception(); }
        }
        inside_task = outer;
    }

    // To be called when all slots have ended.
    void rethrow() {
        if (error_ != nullptr) { std::rethrow_exception(error_); }
    }

private:
    std::int64_t begin_of(int slot, int slots) const {
        return count_ / slots * slot + std::min<std::int64_t>(slot, count_ % slots);
    }

    std::int64_t count_;
    const std::function<void(std::int64_t, int)>& task_;
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
};

// ---- the host's parallel-for ----------------------------------------------------------------------------------------

ProcessSetting<HostParallelFor> host_parallel_for;

struct HostRun {
    Job& job;
    int slots;
    std::atomic<int> ended{0};
};

// No exception leaves a piece: the job keeps it.
void run_piece(void* run, int piece) {
    HostRun& host_run = *static_cast<HostRun*>(run);
    if (piece < 0 || piece >= host_run.slots) { return; }
    host_run.job.run(piece, host_run.slots);
    host_run.ended.fetch_add(1, std::memory_order_acq_rel);
}

void run_by_host(const HostParallelFor& host, Job& job, int slots) {
    HostRun run{job, slots};
    host.run(host.context, slots, run_piece, &run);
    const int ended = run.ended.load(std::memory_order_acquire);
    if (ended != slots) {
        throw std::logic_error("the host's parallel-for returned after " + std::to_string(ended) + " of " +
                               std::to_string(slots) + " pieces");
    }
}

// ---- the pool -------------------------------------------------------------------------------------------------------

inline void pause_cpu() {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// A pass publishes jobs within microseconds of each other, and its threads end their parts a little apart, while a sleeping
// thread takes tens of microseconds to wake up: so who waits looks for a few times as long first. Not when there are more
// threads than CPUs, where it would hold up the one it waits for.
template <class Condition>
bool spin_until(bool worthwhile, Condition condition) {
    constexpr std::chrono::microseconds longest{200};
    constexpr int looks = 64;  // from one glance at the clock to the next
    if (!worthwhile) { return condition(); }
    const auto begin = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < looks; ++i) {
            if (condition()) { return true; }
            pause_cpu();
        }
    } while (std::chrono::steady_clock::now() - begin < longest);
    return condition();
}

// Where a worker may run. A kernel that wakes a thread puts it on the waker's CPU if the others seem busy, and in a virtual
// machine a CPU that idles seems so, as the host has halted it: the worker then waits until the owner has done its share.
// So the owner forbids a worker the CPU they would share, and the worker lifts that as soon as it runs.
class Placement {
public:
#if defined(__linux__)
    // By the worker: it has nothing to do.
    void idle() { cpu_.store(sched_getcpu(), std::memory_order_relaxed); }

    // These three with the pool's mutex held; by the worker:
    void fall_asleep() { asleep_ = true; }
    void wake_up() {
        asleep_ = false;
        if (restricted_) { pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_); }
        restricted_ = false;
    }

    // By the owner, before it publishes a job. A worker that is awake and elsewhere stays there. Where a sandbox or more
    // CPUs than a cpu_set_t holds refuse it, that is not tried again.
    void keep_off_this_cpu(std::thread& worker) {
        const int here = sched_getcpu();
        if (refused_ || here < 0 || (!asleep_ && cpu_.load(std::memory_order_relaxed) != here)) { return; }
        const pthread_t thread = worker.native_handle();
        if (!restricted_) { refused_ = pthread_getaffinity_np(thread, sizeof allowed_, &allowed_) != 0; }
        cpu_set_t others = allowed_;
        CPU_CLR(here, &others);
        if (refused_ || CPU_COUNT(&others) == 0) { return; }
        refused_ = pthread_setaffinity_np(thread, sizeof others, &others) != 0;
        restricted_ = restricted_ || !refused_;
    }

private:
    std::atomic<int> cpu_{-1};  // where it was when it became idle
    bool asleep_ = false;
    bool restricted_ = false;
    bool refused_ = false;
    cpu_set_t allowed_{};  // if restricted: where it may run otherwise
#else
    void idle() {}
    void fall_asleep() {}
    void wake_up() {}
    void keep_off_this_cpu(std::thread&) {}
#endif
};

class Pool {
public:
    // False, with nothing done, when another thread has the pool.
    bool try_run(Job& job, int threads) {
        const std::unique_lock owner(owner_, std::try_to_lock);
        if (!owner.owns_lock()) { return false; }
        const int slots = 1 + start_workers(threads - 1);
        const bool spin = slots <= cpus_;
        std::uint64_t generation = 0;
        {
            const std::lock_guard lock(mutex_);
            job_ = &job;
            slots_ = slots;
            spin_ = spin;
            running_.store(slots - 1, std::memory_order_relaxed);
            if (spin && slots <= most_placed) {
                for (int slot = 1; slot < slots; ++slot) {
                    Worker& worker = worker_of(slot);
                    worker.placement.keep_off_this_cpu(worker.thread);
                }
            }
            generation = generation_.fetch_add(1, std::memory_order_release) + 1;
        }
        work_.notify_all();
        job.run(0, slots);
        for (int slot = 1; slot < slots; ++slot) {
            if (worker_of(slot).claim(generation)) {
                job.run(slot, slots);
                running_.fetch_sub(1, std::memory_order_acq_rel);
            }
        }
        const auto finished = [this] { return running_.load(std::memory_order_acquire) == 0; };
        if (!spin_until(spin, finished)) {
            std::unique_lock lock(mutex_);
            done_.wait(lock, finished);
        }
        return true;
    }

    // Ends the workers, after the job in progress if there is one; from then on every call runs serially.
    void stop() {
        owner_.lock();
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
            generation_.fetch_add(1, std::memory_order_release);
        }
        work_.notify_all();
        for (Worker& worker : workers_) {
            worker.thread.join();
        }
    }

private:
    // Placing a worker takes the owner about a microsecond; of many threads one that shares a CPU matters less.
    static constexpr int most_placed = 16;

    struct Worker {
        std::thread thread;
        Placement placement;
        std::atomic<std::uint64_t> claimed{0};  // generation of the last job whose slot somebody has begun

        // True for one of those that ask: the worker itself or the owner.
        bool claim(std::uint64_t generation) {
            std::uint64_t before = claimed.load(std::memory_order_relaxed);
            return before < generation && claimed.compare_exchange_strong(before, generation);
        }
    };

    Worker& worker_of(int slot) { return workers_[static_cast<std::size_t>(slot - 1)]; }

    // Makes sure of `wanted` workers. Returns how many of them there are: fewer if the system refuses more threads.
    int start_workers(int wanted) {
        sigset_t all_signals, before;
        if (static_cast<int>(workers_.size()) < wanted) {
            sigfillset(&all_signals);  // handlers are the program's affair, so run in its threads
            pthread_sigmask(SIG_SETMASK, &all_signals, &before);
            try {
                while (static_cast<int>(workers_.size()) < wanted) {
                    add_worker();
                }
            } catch (const std::system_error&) {
                // The results do not depend on how many threads there are.
            } catch (const std::bad_alloc&) {}
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
        }
        return std::min(wanted, static_cast<int>(workers_.size()));
    }

    void add_worker() {
        Worker& worker = workers_.emplace_back();
        const int slot = static_cast<int>(workers_.size());
        try {
            worker.thread = std::thread([this, &worker, slot, seen = generation_.load()] { work(worker, slot, seen); });
        } catch (...) {
            workers_.pop_back();
            throw;
        }
    }

    // `seen` is the last generation that is not this worker's affair.
    void work(Worker& self, int slot, std::uint64_t seen) {
        bool took_part = false;
        for (;;) {
            const auto published = [&] { return generation_.load(std::memory_order_acquire) != seen; };
            self.placement.idle();
            spin_until(took_part, published);
            std::unique_lock lock(mutex_);
            self.placement.fall_asleep();
            work_.wait(lock, published);
            self.placement.wake_up();
            seen = generation_.load(std::memory_order_relaxed);
            if (stopping_) { return; }
            Job* job = job_;
            const int slots = slots_;
            took_part = slot < slots && spin_;
            lock.unlock();
            if (slot < slots && self.claim(seen)) {
                job->run(slot, slots);
                finish();
            }
        }
    }

    void finish() {
        if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            const std::lock_guard lock(mutex_);  // the owner is either before its check of running_ or in wait
            done_.notify_one();
        }
    }

    const int cpus_ = available_cpus();
    std::mutex owner_;            // held for the length of a parallel_for
    std::deque<Worker> workers_;  // changed by the owner only; they stay where they are

    std::mutex mutex_;  // guards what follows; the atomics may be read without it
    std::condition_variable work_, done_;
    Job* job_ = nullptr;
    int slots_ = 0;
    bool spin_ = false;
    bool stopping_ = false;
    std::atomic<std::uint64_t> generation_{0};  // of the job last published
    std::atomic<int> running_{0};               // its slots that have not ended, but for the owner's own
};

MadeOnFirstUse<Pool> current_pool;

Pool& pool() {
    return current_pool.get([] { return Pool(); });  // starts no threads yet
}

// Registered when the library is loaded: anything later could itself be interrupted by a fork.
class ProcessHooks {
public:
    ProcessHooks() {
        pthread_atfork(nullptr, nullptr, [] { current_pool.abandon(); });
    }
    // At exit, and when the code is unloaded under the workers.
    ~ProcessHooks() {
        Pool* const existing = current_pool.made();
        if (existing != nullptr && !inside_task) { existing->stop(); }
    }
};
ProcessHooks process_hooks;

}  // namespace

int num_threads() {
    return inside_task ? 1 : configured_num_threads();
}

void set_num_threads(int count) {
    if (count < 1 || count > most_threads) refuse_threads("the number of threads", std::to_string(count));
    configured_threads.store(count);
}

void set_parallel_for(const HostParallelFor& host) {
    host_parallel_for.set(host);
}

void parallel_for(std::int64_t count, int max_threads, const std::function<void(std::int64_t, int)>& task) {
    if (count <= 0) { return; }
    const int threads = static_cast<int>(std::min<std::int64_t>(count, std::min(num_threads(), max_threads)));
    Job job(count, task);
    const HostParallelFor& host = host_parallel_for.get();
    if (threads <= 1) {
        job.run(0, 1);
    } else if (host.run != nullptr) {
        run_by_host(host, job, threads);
    } else if (!pool().try_run(job, threads)) {
        job.run(0, 1);
    }
    job.rethrow();
}

}  // namespace triconv
