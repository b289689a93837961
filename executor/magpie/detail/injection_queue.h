// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

// The door of an executor: work from threads that are not its workers, first in, first out.
//
// Intrusive, so that scheduling never allocates and never fails. Not for work between workers: that
// stays in their deques.
//
//     queue.push(runnable);   // then a fence and a notification: PARKING.md, P6
//     if (Runnable* work = queue.pop()) work->run();
//
// Two lists, each with a lock: who pushes appends to the new one; who takes has the old one, and
// when that is empty, makes the new one the old one as a whole. So nobody who pushes waits while
// somebody walks along nodes that other processors have written (the two locks of Michael and
// Scott, 1996, would have both sides write the node between them).
//
// Threads: any. Whoever destroys the queue has emptied it. No cancellation, no errors.

#include <cstddef>
#include <mutex>  // std::lock_guard

#include <magpie/detail/atomic.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

template <class Env = StdEnv>
class InjectionQueue {
 public:
  InjectionQueue() = default;
  InjectionQueue(const InjectionQueue&) = delete;
  InjectionQueue& operator=(const InjectionQueue&) = delete;

  void push(Runnable& runnable) noexcept {
    runnable.next = nullptr;
    if constexpr (Env::mutant(Mutant::injection_no_lock)) {
      append(runnable);
      return;
    }
    std::lock_guard hold(new_.lock);
    append(runnable);
  }

  // The oldest, or null.
  [[nodiscard("the work has left the queue")]] Runnable* pop() noexcept {
    Runnable* oldest = nullptr;
    return pop_batch(&oldest, 1) != 0 ? oldest : nullptr;
  }

  // Up to `limit` of the oldest, in order: how many. Fewer does not mean that there are no more.
  [[nodiscard("the work has left the queue")]] std::size_t pop_batch(Runnable** taken,
                                                                     std::size_t limit) noexcept {
    if (empty()) return 0;
    std::lock_guard hold(old_.lock);
    Runnable* next = old_.first.load(std::memory_order_relaxed);
    if (next == nullptr) next = age();
    std::size_t count = 0;
    for (; count < limit && next != nullptr; next = next->next) taken[count++] = next;
    old_.first.store(next, std::memory_order_relaxed);
    return count;
  }

  // Two relaxed loads. A worker that is about to park asks after its fence.
  bool empty() const noexcept {
    return new_.first.load(std::memory_order_relaxed) == nullptr &&
           old_.first.load(std::memory_order_relaxed) == nullptr;
  }
  /// After a seq_cst operation on what pushers look at behind their fence: either they see that, or
  /// this sees what they pushed, until it is taken.
  bool still_empty() const noexcept {
    // In this order: what is no longer in the new list is in the old one by then. Pairs with the
    // release in age(), and with the fence behind a push.
    return new_.first.load(std::memory_order_seq_cst) == nullptr &&
           old_.first.load(std::memory_order_relaxed) == nullptr;
  }

 private:
  // Each on a line of its own: who takes the lock needs the rest. Written under the lock.
  struct alignas(kCacheLine) List {
    SpinLock<Env> lock;
    typename Env::template Atomic<Runnable*> first{nullptr};
    Runnable* last = nullptr;  // of the new one, if there is one
  };

  void append(Runnable& runnable) noexcept {
    if (new_.first.load(std::memory_order_relaxed) != nullptr) {
      new_.last->next = &runnable;
    } else {
      new_.first.store(&runnable, std::memory_order_relaxed);
    }
    new_.last = &runnable;
  }

  // Under the lock of the old list, which is empty: the first of it from now on.
  Runnable* age() noexcept {
    std::lock_guard hold(new_.lock);
    Runnable* const first = new_.first.load(std::memory_order_relaxed);
    if constexpr (Env::mutant(Mutant::injection_in_neither))
      new_.first.store(nullptr, std::memory_order_release);
    old_.first.store(first, std::memory_order_relaxed);
    // Release: pairs with the load in still_empty().
    new_.first.store(nullptr, Env::mutant(Mutant::injection_relaxed_move)
                                  ? std::memory_order_relaxed
                                  : std::memory_order_release);
    return first;
  }

  List new_;
  List old_;
};

}  // namespace magpie::detail
