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
// One list. Who pushes puts his node in the place of the last one by an exchange, and then links it
// to the one before: nobody who pushes waits for anybody (Vyukov's intrusive queue, 2010). Who
// takes has a lock, and puts an end mark behind what there is, the same way: up to there the list
// is his and his successors', and they walk along it without meeting who pushes. There are two
// marks, as the last one lies before what comes next.
//
// Threads: any. Whoever destroys the queue has emptied it. No cancellation, no errors.

#include <atomic>
#include <cstddef>
#include <mutex>  // std::lock_guard
#include <type_traits>
#include <utility>

#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

template <class Env = StdEnv, class Node = Runnable>
class InjectionQueue {
 public:
  InjectionQueue() noexcept { unlink(ends_[0]); }
  InjectionQueue(const InjectionQueue&) = delete;
  InjectionQueue& operator=(const InjectionQueue&) = delete;

  // I1, I2. One exchange, no waiting.
  void push(Node& node) noexcept {
    unlink(node);
    // Release: what is in the node, for whoever links the next one to it, and with the loads of
    // last_ in takers and in still_empty(). Acquire: of the one before, which has been unlinked.
    Node* const before = last_.exchange(&node, push_order());
    // Release: pairs with the load in linked_to(), whose thread may free the one before.
    link(*before).store(&node, Env::mutant(Mutant::injection_relaxed_link)
                                   ? std::memory_order_relaxed
                                   : std::memory_order_release);
  }

  // The oldest, or null.
  [[nodiscard("the work has left the queue")]] Node* pop() noexcept {
    Node* oldest = nullptr;
    return pop_batch(&oldest, 1) != 0 ? oldest : nullptr;
  }

  // Up to `limit` of the oldest, in order: how many. Fewer does not mean that there are no more.
  [[nodiscard("the work has left the queue")]] std::size_t pop_batch(Node** taken,
                                                                     std::size_t limit) noexcept {
    if (empty()) return 0;
    const auto wait = [](Node& node) noexcept { return behind(node); };
    if constexpr (Env::mutant(Mutant::injection_no_lock)) return take(taken, limit, wait);
    std::lock_guard hold(lock_);
    return take(taken, limit, wait);
  }

  // The same for who has something else to do, and so waits for nobody: null also if somebody takes
  // at this moment, or has pushed and not linked yet.
  [[nodiscard("the work has left the queue")]] Node* try_pop() noexcept {
    if (empty() || lock_.seems_held() || !lock_.try_lock()) return nullptr;
    std::lock_guard hold(lock_, std::adopt_lock);
    Node* oldest = nullptr;
    const auto look = [](Node& node) noexcept { return linked_to(node); };
    return take(&oldest, 1, look) != 0 ? oldest : nullptr;
  }

  // Two relaxed loads. A worker that is about to park asks after its fence.
  bool empty() const noexcept { return seems_empty(std::memory_order_relaxed); }

  /// After a seq_cst operation on what pushers look at behind their fence: either they see that, or
  /// this sees what they pushed, until it is taken.
  bool still_empty() const noexcept {
    // Pairs with the exchange in push(), and with the fence behind it.
    return seems_empty(std::memory_order_seq_cst);
  }

 private:
  static constexpr std::memory_order push_order() noexcept {
    if (Env::mutant(Mutant::injection_relaxed_push)) return std::memory_order_relaxed;
    if (Env::mutant(Mutant::injection_release_push)) return std::memory_order_release;
    return std::memory_order_acq_rel;
  }

  // I5. In this order: whatever was pushed before the mark that is the last, has been taken when
  // the mark is the first.
  bool seems_empty(std::memory_order order) const noexcept {
    const Node* first = nullptr;
    if constexpr (Env::mutant(Mutant::injection_first_first)) first = first_.load(order);
    const Node* const last = last_.load(order);
    if constexpr (!Env::mutant(Mutant::injection_first_first))
      first = first_.load(std::memory_order_relaxed);
    if (!Env::mutant(Mutant::injection_any_end) && last != &ends_[0] && last != &ends_[1])
      return false;
    return first == last;
  }

  // I3, I4. `behind_first` may say that there is nothing yet.
  template <class BehindFirst>
  std::size_t take(Node** taken, std::size_t limit, BehindFirst behind_first) noexcept {
    Node* first = first_.load(std::memory_order_relaxed);
    const bool at_end = first == end_;
    if (at_end) {
      if (last_.load(std::memory_order_relaxed) == end_) return 0;  // somebody else came first
      if (!Env::mutant(Mutant::injection_one_end)) end_ = other_mark();
      push(*end_);
    }
    // One that was left here by somebody who did not wait, too.
    if (Env::mutant(Mutant::injection_takes_mark) ? at_end : first == other_mark()) {
      first = behind_first(*first);
      if (first == nullptr) return 0;
    }
    std::size_t count = 0;
    while (count < limit && first != end_) {
      // What is taken already does not wait.
      Node* const next = count == 0 ? behind_first(*first) : linked_to(*first);
      if (next == nullptr) break;
      taken[count++] = std::exchange(first, next);
    }
    first_.store(first, std::memory_order_relaxed);
    return count;
  }

  Node* other_mark() noexcept { return end_ == &ends_[0] ? &ends_[1] : &ends_[0]; }

  // Who pushed what comes behind has made it the last, and links it with his next instruction; if
  // he is held up in between, this waits for him.
  static Node* behind(Node& node) noexcept {
    Node* next = linked_to(node);
    for (Backoff<Env> backoff; next == nullptr; next = linked_to(node)) backoff.wait();
    return next;
  }
  static Node* linked_to(Node& node) noexcept {
    // Acquire: pairs with the store in push().
    return link(node).load(Env::mutant(Mutant::injection_relaxed_walk) ? std::memory_order_relaxed
                                                                       : std::memory_order_acquire);
  }

  // A model's nodes have links that are atomic themselves.
  static decltype(auto) link(Node& node) noexcept {
    if constexpr (std::is_pointer_v<decltype(node.next)>) {
      return std::atomic_ref<Node*>(node.next);
    } else {
      return (node.next);
    }
  }
  static void unlink(Node& node) noexcept {
    if constexpr (std::is_pointer_v<decltype(node.next)>) {
      node.next = nullptr;
    } else {
      node.next.store(nullptr, std::memory_order_relaxed);
    }
  }

  // Who pushes; the marks with what he writes, as the first one who pushes writes one of them.
  alignas(kCacheLine) typename Env::template Atomic<Node*> last_{&ends_[0]};
  Node ends_[2];
  // Who takes.
  alignas(kCacheLine) SpinLock<Env> lock_;
  typename Env::template Atomic<Node*> first_{&ends_[0]};  // written under the lock
  Node* end_{&ends_[0]};                                   // under the lock: the newest mark
};

}  // namespace magpie::detail
