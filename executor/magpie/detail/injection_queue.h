// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/spin_lock.h>

#include <cstddef>
#include <mutex>  // std::lock_guard

// The door of an executor: work from threads that are not its workers, first in, first out.
//
// Intrusive, so that scheduling never allocates and never fails. Not for work between workers: that
// stays in their deques.
//
//     queue.push(runnable);   // then a fence and a notification: PARKING.md, P6
//     if (Runnable* work = queue.pop()) work->run();
//
// Threads: any. Whoever destroys the queue has emptied it. No cancellation, no errors.

namespace magpie::detail {

template <class Env = StdEnv>
class InjectionQueue {
 public:
  // A chain of runnables, linked by `next`, for push_all() and from pop_batch().
  struct Chain {
    Runnable* first = nullptr;
    Runnable* last = nullptr;
    std::size_t count = 0;
  };

  InjectionQueue() = default;
  InjectionQueue(const InjectionQueue&) = delete;
  InjectionQueue& operator=(const InjectionQueue&) = delete;

  void push(Runnable& runnable) noexcept {
    runnable.next = nullptr;
    if constexpr (Env::mutant(Mutant::injection_no_lock)) {
      append(runnable, runnable);
      return;
    }
    std::lock_guard hold(lock_);
    append(runnable, runnable);
  }

  // In the order of the chain, nothing in between.
  void push_all(const Chain& chain) noexcept {
    if (chain.first == nullptr) return;
    chain.last->next = nullptr;
    std::lock_guard hold(lock_);
    append(*chain.first, *chain.last);
  }

  // The oldest, or null.
  [[nodiscard("the work has left the queue")]] Runnable* pop() noexcept {
    if (empty()) return nullptr;
    std::lock_guard hold(lock_);
    Runnable* runnable = first_.load(std::memory_order_relaxed);
    if (runnable == nullptr) return nullptr;
    remove_up_to(*runnable);
    return runnable;
  }

  // Up to `limit` of the oldest.
  [[nodiscard("the work has left the queue")]] Chain pop_batch(std::size_t limit) noexcept {
    Chain chain;
    if (limit == 0 || empty()) return chain;
    std::lock_guard hold(lock_);
    chain.first = first_.load(std::memory_order_relaxed);
    if (chain.first == nullptr) return chain;
    chain.last = chain.first;
    chain.count = 1;
    while (chain.count < limit && chain.last->next != nullptr) {
      chain.last = chain.last->next;
      ++chain.count;
    }
    remove_up_to(*chain.last);
    return chain;
  }

  // One relaxed load. A worker that is about to park asks after its fence.
  bool empty() const noexcept { return first_.load(std::memory_order_relaxed) == nullptr; }
  /// After a seq_cst operation on what pushers look at behind their fence: either they see that, or
  /// this sees what they pushed.
  bool still_empty() const noexcept { return first_.load(std::memory_order_seq_cst) == nullptr; }

 private:
  void append(Runnable& first, Runnable& last) noexcept {
    if (last_ != nullptr) {
      last_->next = &first;
    } else {
      first_.store(&first, std::memory_order_relaxed);  // read under the lock, or as a hint
    }
    last_ = &last;
  }

  void remove_up_to(Runnable& last) noexcept {
    Runnable* rest = last.next;
    last.next = nullptr;
    if (rest == nullptr) last_ = nullptr;
    first_.store(rest, std::memory_order_relaxed);
  }

  // All on one line: who takes the lock needs the rest.
  alignas(kCacheLine) SpinLock<Env> lock_;
  typename Env::template Atomic<Runnable*> first_{nullptr};
  Runnable* last_ = nullptr;
};

}  // namespace magpie::detail
