// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

// Timers in the order of their deadlines: an intrusive pairing heap, and the word on which a timer
// that fires and a waiter that leaves agree.
//
// The queue is not thread-safe: its user locks. It reads no clock and calls nobody back.
//
//     TimerQueue queue;
//     queue.insert(node);                             // node.deadline_ns is set
//     while (TimerNode* due = queue.pop_due(now)) fire(*due);
//
// No allocation, no recursion. Insert and earliest take constant time, remove and pop_due
// logarithmic time, amortised. Cancellation: remove(). Errors: none.

namespace magpie::detail {

struct TimerNode {
  std::int64_t deadline_ns = 0;

  // The queue's own. A node without `previous` that is not the root is in no queue.
  std::uint64_t sequence = 0;
  TimerNode* child = nullptr;     // the first one
  TimerNode* sibling = nullptr;   // the next one
  TimerNode* previous = nullptr;  // the previous sibling, or the parent of a first child
};

class TimerQueue {
 public:
  TimerQueue() = default;
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // The node must be in no queue, and must stay where it is until it leaves this one.
  void insert(TimerNode& node) noexcept {
    node.sequence = next_sequence_++;
    node.child = nullptr;
    root_ = meld(root_, &node);
    count(size() + 1);
  }

  // Any node of this queue.
  void remove(TimerNode& node) noexcept {
    if (&node == root_) {
      root_ = merge_children(node);
    } else {
      (node.previous->child == &node ? node.previous->child : node.previous->sibling) =
          node.sibling;
      if (node.sibling != nullptr) node.sibling->previous = node.previous;
      root_ = meld(root_, merge_children(node));
    }
    node.child = node.sibling = node.previous = nullptr;
    count(size() - 1);
  }

  bool contains(const TimerNode& node) const noexcept {
    return &node == root_ || node.previous != nullptr;
  }

  // The node with the earliest deadline, the first inserted among equal ones; null if empty.
  TimerNode* earliest() const noexcept { return root_; }

  // Takes out the earliest node if its deadline is not after `now_ns`.
  TimerNode* pop_due(std::int64_t now_ns) noexcept {
    TimerNode* node = root_;
    if (node == nullptr || node->deadline_ns > now_ns) return nullptr;
    remove(*node);
    return node;
  }

  // From any thread, also without what guards the rest.
  std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
  bool empty() const noexcept { return root_ == nullptr; }

 private:
  static bool before(const TimerNode& a, const TimerNode& b) noexcept {
    if (a.deadline_ns != b.deadline_ns) return a.deadline_ns < b.deadline_ns;
    return a.sequence < b.sequence;
  }

  // Makes the later of two roots the first child of the other.
  static TimerNode* meld(TimerNode* a, TimerNode* b) noexcept {
    if (a == nullptr) return b;
    if (b == nullptr) return a;
    if (before(*b, *a)) {
      TimerNode* earlier = b;
      b = a;
      a = earlier;
    }
    b->sibling = a->child;
    if (b->sibling != nullptr) b->sibling->previous = b;
    b->previous = a;
    a->child = b;
    return a;
  }

  // Two passes: children in pairs from the first to the last, then the pairs from the last to the
  // first. The results of the first pass are chained backwards through `sibling`.
  static TimerNode* merge_children(TimerNode& node) noexcept {
    TimerNode* pairs = nullptr;
    for (TimerNode* next = node.child; next != nullptr;) {
      TimerNode* first = next;
      TimerNode* second = first->sibling;
      next = second != nullptr ? second->sibling : nullptr;
      detach(*first);
      if (second != nullptr) detach(*second);
      TimerNode* pair = meld(first, second);
      pair->sibling = pairs;
      pairs = pair;
    }
    node.child = nullptr;
    TimerNode* merged = nullptr;
    while (pairs != nullptr) {
      TimerNode* pair = pairs;
      pairs = pair->sibling;
      pair->sibling = nullptr;
      merged = meld(merged, pair);
    }
    return merged;
  }

  static void detach(TimerNode& node) noexcept { node.sibling = node.previous = nullptr; }

  // One writer at a time: a plain store, no read-modify-write.
  void count(std::size_t nodes) noexcept { size_.store(nodes, std::memory_order_relaxed); }

  TimerNode* root_ = nullptr;
  std::atomic<std::size_t> size_{0};
  std::uint64_t next_sequence_ = 0;
};

// The handshake of a timer with the frame that holds it: either the timer fires, and the frame
// waits until it is through, or the frame is off first, and the timer touches nothing.
//
//     monitor: if (word.begin_fire()) { cancel(scope); word.end_fire(); }
//     frame:   queue.remove(node), if it is still there;  word.disarm();
//
// begin_fire() itself touches the word, so whoever takes a node out of the queue calls it before
// the frame can disarm(): under the queue's lock, which the frame takes to remove its node.
template <class Env = StdEnv>
class TimerWord {
 public:
  TimerWord() = default;
  TimerWord(const TimerWord&) = delete;
  TimerWord& operator=(const TimerWord&) = delete;

  // W1. True: the caller fires, and ends with end_fire(). Acquire: pairs with whatever published
  // the timer, and is a formality where a lock did.
  [[nodiscard("a timer that is off must not fire")]] bool begin_fire() noexcept {
    std::uint32_t state = kArmed;
    return word_.compare_exchange_strong(state, kFiring, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }

  // W2. The last touch: of the word, that may be gone by then, only the address is used. Release:
  // pairs with the loads in disarm().
  void end_fire() noexcept {
    constexpr auto order = Env::mutant(Mutant::timer_word_relaxed_end) ? std::memory_order_relaxed
                                                                       : std::memory_order_release;
    if constexpr (Env::mutant(Mutant::timer_word_plain_end)) {
      const std::uint32_t before = word_.load(std::memory_order_relaxed);
      word_.store(kFired, order);
      if (before == kAwaited) Env::futex_wake(word_);
      return;
    }
    if (word_.exchange(kFired, order) == kAwaited) [[unlikely]]
      Env::futex_wake(word_);
  }

  // W3. Afterwards the timer neither fires nor touches anything. True: it had not fired. Not from
  // within the firing itself, which would wait for its own end.
  bool disarm() noexcept {
    std::uint32_t state = kArmed;
    // Acquire on failure: pairs with W2.
    if (word_.compare_exchange_strong(state, kOff, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return true;
    }
    if constexpr (!Env::mutant(Mutant::timer_word_no_wait)) {
      if (state == kFiring) state = await_end();
    }
    return state == kOff;
  }

 private:
  // W4. A cancellation calls callbacks, which are somebody else's code: no spinning for long.
  MAGPIE_COLD std::uint32_t await_end() noexcept {
    constexpr int kLooks = Env::kModel ? 0 : 10;
    Backoff<Env> backoff;
    std::uint32_t state = kFiring;
    for (int i = 0; i < kLooks && state == kFiring; ++i) {
      backoff.wait();
      state = word_.load(std::memory_order_acquire);  // pairs with W2
    }
    if (state != kFiring) return state;
    // Acquire: pairs with W2.
    if (!word_.compare_exchange_strong(state, kAwaited, std::memory_order_acquire,
                                       std::memory_order_acquire)) {
      return state;
    }
    do {
      Env::futex_wait(word_, kAwaited);
      state = word_.load(std::memory_order_acquire);  // pairs with W2
    } while (state == kAwaited);
    return state;
  }

  static constexpr std::uint32_t kArmed = 0;
  static constexpr std::uint32_t kFiring = 1;
  static constexpr std::uint32_t kFired = 2;
  static constexpr std::uint32_t kOff = 3;
  static constexpr std::uint32_t kAwaited = 4;  // firing, and its owner sleeps until that is over

  typename Env::template Atomic<std::uint32_t> word_{kArmed};
};

}  // namespace magpie::detail
