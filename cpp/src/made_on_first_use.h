// Values made when they are first asked for, without a lock, which a fork could leave locked for ever: threads that come
// at the same time each make a value, all alike, and the first one is kept.
#pragma once

#include <atomic>

namespace triconv {

// As a static of a function, which then needs no lock either: nothing is left to do when it is constructed. Never freed,
// since a thread may outlive main.
template <class T>
class MadeOnFirstUse {
public:
    constexpr MadeOnFirstUse() = default;
    MadeOnFirstUse(const MadeOnFirstUse&) = delete;
    MadeOnFirstUse& operator=(const MadeOnFirstUse&) = delete;

    template <class Make>
    T& get(const Make& make) const {
        T* value = made();
        if (value == nullptr) {
            T* const mine = new T(make());
            if (value_.compare_exchange_strong(value, mine, std::memory_order_acq_rel)) return *mine;
            delete mine;
        }
        return *value;
    }

    T* made() const { return value_.load(std::memory_order_acquire); }  // null: not yet
    // The next get() makes another; this one is left to whoever still has it.
    void abandon() { value_.store(nullptr, std::memory_order_relaxed); }

private:
    mutable std::atomic<T*> value_{nullptr};
};

// As a member: the value goes with it.
template <class T>
class OwnedOnFirstUse : public MadeOnFirstUse<T> {
public:
    ~OwnedOnFirstUse() { delete this->made(); }
};

}  // namespace triconv
