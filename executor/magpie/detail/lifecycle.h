// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is live in an executor, and how it ends: counters that only rise, the phases, and those who
// wait for nothing to be left. SHUTDOWN.md has the steps and the proof sketch.
//
// Threads: any, with the shard that is theirs (sharing one costs time, nothing else). Errors: none.

#include <cstddef>
#include <cstdint>
#include <optional>

#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/event_count.h>

namespace magpie::detail {

enum class Phase : std::uint32_t { open, draining, cancelling, closed };

/// One of the places where things are counted. Numbers only rise, so that their sums can be
/// trusted: see live(). A shard is shared by threads, or one thread's own: that thread alone raises
/// `started` and `ended` then, by plain stores.
template <class Env>
struct BasicLifeShard {
  BasicLifeShard* next_own = nullptr;
  typename Env::template Atomic<std::uint64_t> started{0};
  typename Env::template Atomic<std::uint64_t> ended{0};
  // Visits of threads that are not the executor's own.
  typename Env::template Atomic<std::uint64_t> entered{0};
  typename Env::template Atomic<std::uint64_t> left{0};
};

template <class Env, class Shard>
class BasicLifecycle {
 public:
  BasicLifecycle(const Shard* shards, std::size_t count) noexcept
      : shards_(shards), count_(count) {}
  BasicLifecycle(const BasicLifecycle&) = delete;
  BasicLifecycle& operator=(const BasicLifecycle&) = delete;

  /// A1, A2. Counts one more; or refuses it, as the executor takes no more work, or none from
  /// outside.
  [[nodiscard]] bool admit(Shard& here, bool from_inside, bool own = false) noexcept {
    if constexpr (Env::mutant(Mutant::lifecycle_late_count)) {
      if (refused(from_inside)) return false;
      raise(here.started, own);
      return true;
    }
    raise(here.started, own);
    // With the heavy one in set_phase(): whoever closes sees the count, or this sees the phase.
    if constexpr (!Env::mutant(Mutant::lifecycle_no_light_fence)) Env::light_fence();
    if (!refused(from_inside)) [[likely]]
      return true;
    end(here, own);
    return false;
  }

  /// E1, E2. Something live has ended. On a thread that is not the executor's own between enter()
  /// and leave().
  void end(Shard& here, bool own = false) noexcept {
    raise(here.ended, own);  // with live(): whoever finds it there sees what the work has done
    poke();
  }
  /// Whoever waits looks again.
  void poke() noexcept {
    Env::light_fence();  // with the heavy one in wait_idle(): who waits sees the raised count, or
                         // this sees that he asks
    // Once for each of his looks: until he is up and asks again, all that ends is seen by the next.
    // Acquire: pairs with the store in wait_idle(), before which he is counted in.
    if (asks_.load(std::memory_order_relaxed) && asks_.exchange(false, std::memory_order_acquire))
      idle_.notify_all();
  }

  /// What has not ended. If the sums are equal, there was a moment between the two in which nothing
  /// was live.
  std::uint64_t live() const noexcept {
    if constexpr (Env::mutant(Mutant::lifecycle_started_first)) {
      const std::uint64_t started = sum(&Shard::started);
      return started - sum(&Shard::ended);
    }
    const std::uint64_t ended = sum(&Shard::ended);
    return sum(&Shard::started) - ended;
  }

  Phase phase() const noexcept { return phase_.load(std::memory_order_seq_cst); }  // as in admit()
  void set_phase(Phase phase) noexcept {
    phase_.store(phase, std::memory_order_seq_cst);
    // With the light one in admit(): the sums and looks that follow see what was admitted before.
    if constexpr (!Env::mutant(Mutant::lifecycle_light_phase)) Env::heavy_fence();
  }

  /// One more shard, for a thread of its own; it stays until the end.
  void adopt(Shard& own) noexcept {
    BasicLifeShard<Env>* head = own_.load(std::memory_order_relaxed);
    do {
      own.next_own = head;
      // Release: pairs with for_each_shard().
    } while (!own_.compare_exchange_weak(head, &own, std::memory_order_release,
                                         std::memory_order_relaxed));
  }
  template <class F>
  void for_each_shard(F&& fn) const {
    for (std::size_t i = 0; i < count_; ++i) fn(shards_[i]);
    for (const auto* shard = own_.load(std::memory_order_acquire); shard != nullptr;
         shard = shard->next_own)
      fn(static_cast<const Shard&>(*shard));
  }

  /// W1 to W3. Sleeps until nothing is live or `over()` says so (whoever makes that true pokes):
  /// true; or until the deadline.
  template <class Over>
  bool wait_idle(Over&& over, std::optional<std::uint64_t> deadline_ns) noexcept {
    for (;;) {
      if constexpr (Env::mutant(Mutant::lifecycle_early_question))
        asks_.store(true, std::memory_order_release);
      const auto key = idle_.prepare();
      if constexpr (!Env::mutant(Mutant::lifecycle_early_question))
        asks_.store(true, std::memory_order_release);  // pairs with the exchange in poke()
      if constexpr (!Env::mutant(Mutant::lifecycle_no_heavy_fence))
        Env::heavy_fence();  // with the light one in poke()
      if (live() == 0 || over()) {
        idle_.cancel(key);
        return true;
      }
      if (!idle_.wait(key, deadline_ns)) return live() == 0 || over();
    }
  }

  /// V1. Before such a thread publishes work: the work may end the last task, and with it the
  /// executor's life.
  void enter(Shard& here) noexcept { here.entered.fetch_add(1, std::memory_order_seq_cst); }
  /// V2. Its last touch. seq_cst: with wait_for_entrants().
  void leave(Shard& here) noexcept { here.left.fetch_add(1, std::memory_order_seq_cst); }
  /// Once nothing is live. `left` is summed first: both only rise.
  void wait_for_entrants() const noexcept {
    Backoff<Env> backoff;
    for (;;) {
      const std::uint64_t left = sum(&Shard::left);
      if (left == sum(&Shard::entered)) return;
      backoff.wait();
    }
  }

  using Counter = typename Env::template Atomic<std::uint64_t> Shard::*;
  std::uint64_t sum(Counter counter) const noexcept {
    std::uint64_t total = 0;
    for_each_shard([&](const Shard& shard) noexcept {
      total += (shard.*counter).load(std::memory_order_seq_cst);
    });
    return total;
  }

  /// Counts one more in a shard that is this thread's own, or shared. Release: pairs with sum().
  static void raise(typename Env::template Atomic<std::uint64_t>& counter, bool own) noexcept {
    if (own) [[likely]] {
      counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    } else {
      counter.fetch_add(1, std::memory_order_seq_cst);
    }
  }

 private:
  bool refused(bool from_inside) const noexcept {
    const Phase now = phase();
    if (now == Phase::open) [[likely]]
      return false;
    return now == Phase::closed || !from_inside;
  }

  const Shard* const shards_;
  const std::size_t count_;
  typename Env::template Atomic<BasicLifeShard<Env>*> own_{nullptr};
  typename Env::template Atomic<Phase> phase_{Phase::open};
  EventCount<Env> idle_;
  // Beside idle_: somebody waits, and was not told.
  typename Env::template Atomic<bool> asks_{false};
};

}  // namespace magpie::detail
