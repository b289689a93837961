// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where threads leave full magazines of free frames for one another: for each class of sizes a
// stack under a lock, and one count of bytes for all of them.
//
// `Bounds` has
//   kClasses
//   bytes_of(index)         of a full magazine of this class, with its frames
//   bytes(threads)          how much there may be in all, for so many threads
//   dispose(index, full)    frees a full magazine with its frames
//
// A magazine has one owner: a thread, until put() has said yes; the depot; then the thread that
// take() gives it to. The bytes are counted before it is there and after it is gone, so the count
// is never too small, and the bound holds. (A thread that ends while another puts may leave that
// one's magazine above the bound of those who are left: it goes with the next thread's end.)
// Protocol of one lock, so this is its page; the model: tests/model/small_model_test.cc.

#include <atomic>
#include <cstddef>
#include <mutex>

#include <magpie/detail/atomic.h>
#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

/// The head of the array: see frame_pool.h.
struct Magazine {
  // In the depot the magazine below; null while this is a shelf or an empty spare, and this itself
  // while it is a full one.
  void* below;
};

template <class Env, class Bounds>
class FrameDepot {
 public:
  void thread_opens() noexcept { threads_.fetch_add(1, std::memory_order_relaxed); }
  /// Gives up what is above the bound without this thread.
  void thread_ends() noexcept {
    threads_.fetch_sub(1, std::memory_order_relaxed);
    for (std::size_t i = 0; i < Bounds::kClasses; ++i) {
      while (bytes_.load(std::memory_order_relaxed) > bound()) {
        Magazine* const full = take(i);
        if (full == nullptr) break;
        Bounds::dispose(i, full);
      }
    }
  }

  /// False: it has enough.
  bool put(std::size_t index, Magazine* full) noexcept {
    const std::size_t bytes = Bounds::bytes_of(index);
    // Relaxed: a count, which orders nothing; the lock hands the magazine over. A look first, as a
    // full depot is asked for every frame.
    if (bytes_.load(std::memory_order_relaxed) + bytes > bound()) return false;
    if (bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes > bound() &&
        !Env::mutant(Mutant::depot_single_look)) {
      if (!Env::mutant(Mutant::depot_kept_count))
        bytes_.fetch_sub(bytes, std::memory_order_relaxed);
      return false;
    }
    Row& row = rows_[index];
    std::lock_guard guard(row.lock);
    full->below = row.top.load(std::memory_order_relaxed);
    row.top.store(full, std::memory_order_relaxed);
    return true;
  }
  /// Null: it has none.
  Magazine* take(std::size_t index) noexcept {
    Row& row = rows_[index];
    // As in put(): an empty depot is asked for every frame.
    if (row.top.load(std::memory_order_relaxed) == nullptr) return nullptr;
    Magazine* full;
    {
      std::unique_lock guard(row.lock, std::defer_lock);
      if (!Env::mutant(Mutant::depot_no_lock)) guard.lock();
      full = row.top.load(std::memory_order_relaxed);
      if (full == nullptr) return nullptr;
      row.top.store(static_cast<Magazine*>(full->below), std::memory_order_relaxed);
    }
    bytes_.fetch_sub(Bounds::bytes_of(index), std::memory_order_relaxed);
    return full;
  }

  /// For tests, where nobody else is at it.
  std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

 private:
  std::size_t bound() const noexcept {
    return Bounds::bytes(threads_.load(std::memory_order_relaxed));
  }

  struct alignas(kCacheLine) Row {
    SpinLock<Env> lock;
    typename Env::template Atomic<Magazine*> top{nullptr};  // written under the lock
  };
  Row rows_[Bounds::kClasses];
  typename Env::template Atomic<std::size_t> bytes_{0};
  typename Env::template Atomic<std::size_t> threads_{0};
};

}  // namespace magpie::detail
