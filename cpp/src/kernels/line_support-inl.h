// What the composed and the PocketFFT lines share: the kinds, scratch memory, and tables.
#pragma once

#include <cstddef>
#include <forward_list>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "kernel_table.h"
#include "made_on_first_use.h"
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

// ---- shared tables --------------------------------------------------------------------------------------------------

// Tables that line transforms share while any of them lives. Sharing saves time and memory but nothing depends on it: a
// thread that finds the list in use makes a table of its own instead of waiting, so a child forked meanwhile cannot hang.
template <class Key, class Table>
class SharedTables {
public:
    // make() is called if there is no table.
    template <class Make>
    std::shared_ptr<const Table> find_or_make(const Key& key, const Make& make) {
        std::shared_ptr<const Table> table;
        access([&] {
            for (auto item = items_.begin(); item != items_.end() && !table; ++item)
                if (item->first == key) table = item->second.lock();
        });
        if (table) return table;
        table.reset(new Table(make()), [this](const Table* last) {
            delete last;
            access([this] { items_.remove_if([](const auto& item) { return item.second.expired(); }); });
        });
        access([&] { items_.emplace_front(key, table); });
        return table;
    }

private:
    template <class Use>
    void access(const Use& use) {
        if (std::unique_lock lock(mutex_, std::try_to_lock); lock) use();
    }

    std::mutex mutex_;
    std::forward_list<std::pair<Key, std::weak_ptr<const Table>>> items_;
};

}  // namespace triconv::TRICONV_ISA_NAMESPACE
