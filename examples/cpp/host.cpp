// A program with threads and memory of its own: triconv starts no thread and asks for no large memory.
#include <cstddef>
#include <cstdlib>
#include <thread>
#include <triconv/triconv.hpp>
#include <vector>

// Stands for the program's scheduler.
void run_pieces(void*, int pieces, void (*piece)(void* run, int index), void* run) {
    std::vector<std::thread> threads;
    for (int i = 1; i < pieces; ++i)
        threads.emplace_back(piece, run, i);
    piece(run, 0);
    for (std::thread& thread : threads)
        thread.join();
}

// Stands for the program's memory.
void* allocate(void*, std::size_t bytes, std::size_t alignment) {
    return std::aligned_alloc(alignment, bytes);
}
void deallocate(void*, void* data, std::size_t) {
    std::free(data);
}

int main() {
    triconv::set_num_threads(4);
    triconv::set_parallel_for({run_pieces, nullptr});
    triconv::set_allocator({allocate, deallocate, nullptr});

    triconv::SignalProblem problem;  // 48,000 samples through a room of 4,000
    problem.in1[0] = 48000;
    problem.in2[0] = 4000;
    const triconv::SignalPlan plan(problem);
    std::vector<float> dry(48000, 1), room(4000, 1), wet(51999);

    // Memory for all runs to come: nothing is allocated for a run but a little bookkeeping.
    const auto bytes = static_cast<std::size_t>(plan.workspace_bytes(4));
    void* const workspace = std::aligned_alloc(triconv::workspace_alignment, bytes);
    plan.convolve({dry.data(), {0, 1}}, {room.data(), {0, 1}}, {wet.data(), {0, 1}}, {workspace, bytes});
    std::free(workspace);
    return wet[10000] > 3999 && wet[10000] < 4001 ? 0 : 1;
}
