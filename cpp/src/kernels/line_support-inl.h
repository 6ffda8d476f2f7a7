// What the composed and the PocketFFT lines share: the kinds, scratch memory, and the store of contexts.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>

#include "kernel_table.h"
#include "vec-inl.h"

namespace triconv::TRICONV_ISA_NAMESPACE {

constexpr bool is_inverse(LineKind kind) {
    return kind == LineKind::fft_real_inverse || kind == LineKind::fft_complex_inverse;
}
constexpr bool is_complex(LineKind kind) {
    return kind == LineKind::fft_complex || kind == LineKind::fft_complex_inverse;
}

template <class E, class Run>
TRICONV_INLINE void for_each_line(LineArgs<E> args, const Run& run) {
    for (int i = 0; i < args.lines; ++i, args.in += args.in_step, args.out += args.out_step)
        run(args);
}

// A codelet of one line. Its parameters are the fields of LineArgs, but in registers.
template <class E>
using Codelet = void(const E* in, E* out, std::ptrdiff_t in_stride, std::ptrdiff_t out_stride, std::ptrdiff_t in_im,
                     std::ptrdiff_t out_im);

// A codelet made to take all lines. Short ones (Winograd) are inlined in the loop; long ones are not, since the compiler
// would compute their many offsets in front of the loop and keep them in memory: 1.2 to 1.9 times the time.
template <class E, Codelet<E>* codelet>
void run_lines(const void*, const LineArgs<E>& args) {
    const E* in = args.in;
    E* out = args.out;
    const std::ptrdiff_t in_stride = args.in_stride, out_stride = args.out_stride, in_im = args.in_im,
                         out_im = args.out_im, in_step = args.in_step, out_step = args.out_step;
    for (int left = args.lines; left > 0; --left, in += in_step, out += out_step)
        codelet(in, out, in_stride, out_stride, in_im, out_im);
}

// ---- scratch --------------------------------------------------------------------------------------------------------

// Aligned memory of the calling thread, contents undefined; valid until the next call on the thread.
inline std::byte* line_scratch(std::size_t bytes) {
    constexpr std::align_val_t alignment{64};
    struct Release {
        void operator()(std::byte* p) const { ::operator delete(p, alignment); }
    };
    thread_local std::unique_ptr<std::byte, Release> memory;
    thread_local std::size_t capacity = 0;
    if (capacity < bytes) {
        memory.reset();
        capacity = 0;
        memory.reset(static_cast<std::byte*>(::operator new(bytes, alignment)));
        capacity = bytes;
    }
    return memory.get();
}

// ---- contexts -------------------------------------------------------------------------------------------------------

// A list of all that was ever put in, searched and extended without a lock: threads may race to add equal items, of
// which the later is merely superfluous, and a child forked meanwhile finds no lock held. Never freed, since contexts
// live as long as the process; there are as many items as different transforms were asked for.
template <class Item>
class EternalList {
public:
    // make() is called if no item matches.
    template <class Match, class Make>
    const Item& find_or_add(Match match, Make make) {
        for (const Node* node = head_.load(std::memory_order_acquire); node != nullptr; node = node->next) {
            if (match(node->item)) return node->item;
        }
        Node* const added = new Node{make(), head_.load(std::memory_order_relaxed)};
        while (!head_.compare_exchange_weak(added->next, added, std::memory_order_release, std::memory_order_relaxed)) {
        }
        return added->item;
    }

private:
    struct Node {
        Item item;
        Node* next;
    };
    std::atomic<Node*> head_{nullptr};
};

}  // namespace triconv::TRICONV_ISA_NAMESPACE
