// A setting of the whole process, such as a host's hook: read without a lock, since a fork may come at any time, and never
// freed, since a run in progress may still use the one before.
#pragma once

#include <atomic>

namespace triconv {

template <class T>
class ProcessSetting {
public:
    const T& get() const {
        const Node* node = current_.load(std::memory_order_acquire);
        return node != nullptr ? node->value : unset_;
    }
    void set(const T& value) {
        Node* node = new Node{value, current_.load(std::memory_order_relaxed)};
        while (!current_.compare_exchange_weak(node->before, node, std::memory_order_acq_rel)) {}
    }

private:
    struct Node {
        T value;
        const Node* before;
    };

    std::atomic<const Node*> current_{nullptr};
    T unset_{};
};

}  // namespace triconv
