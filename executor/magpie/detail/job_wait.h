// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How workers sleep that wait for a stolen job, and who wakes them: the thief that has done the
// job, each worker by itself, and whoever offers a job that nobody runs, one of them at a time.
// Steps F7 to F11 of executor/FORK_JOIN.md; the sleep of workers that have nothing to do at all is
// PARKING.md's.
//
// Threads: sleep() by the worker whose bed it is, the others by any. No cancellation, no errors.

#include <atomic>
#include <cstdint>
#include <optional>

#include <magpie/detail/atomic.h>
#include <magpie/detail/event_count.h>
#include <magpie/detail/local_queue.h>

namespace magpie::detail {

/// Where one worker sleeps.
template <class Env>
struct BasicBed {
  EventCount<Env> sleeper;
  typename Env::template Atomic<std::uint32_t> helps{0};  // it would run another job meanwhile

  /// F7, by a thief, after it has finished the job. The fence comes between the end of the job and
  /// the look for a sleeper: pairs with the one in BasicJobWaiters::sleep().
  void job_done() noexcept {
    if constexpr (!Env::mutant(Mutant::job_no_fence_at_end)) Env::fence_seq_cst();
    sleeper.notify_one();
  }
};

enum class Slept : std::uint8_t { not_at_all, until_woken, until_deadline };

/// The waiters of a pool. `Attention` is the pool's word of attention.
template <class Env>
class BasicJobWaiters {
 public:
  using Attention = typename Env::template Atomic<std::uint32_t>;
  using Bed = BasicBed<Env>;

  /// F8, F9. Sleeps until somebody wakes this worker, or until `deadline_ns`, unless `look()` finds
  /// a reason not to: its job is done, or, if it helps, another one is in sight. Without a heavy
  /// fence a job that is just being offered may be overlooked: only with a deadline.
  template <class Look>
  Slept sleep(Bed& bed, Attention& attention, bool helps, bool heavy,
              std::optional<std::uint64_t> deadline_ns, Look&& look) noexcept {
    const auto key = bed.sleeper.prepare();  // F8
    if (helps) {
      bed.helps.store(1, std::memory_order_relaxed);  // seen by who sees the bit
      count_.fetch_add(1, std::memory_order_seq_cst);
      attention.fetch_or(attention::kWaiters, std::memory_order_seq_cst);  // F8
    }
    // F9. Pairs with the light fence of an offer (D3) and with the fence of job_done().
    if (heavy && !Env::mutant(Mutant::job_no_heavy_fence)) {
      Env::heavy_fence();
    } else {
      Env::fence_seq_cst();
    }
    Slept slept = Slept::not_at_all;
    if (!Env::mutant(Mutant::job_no_look) && look()) {
      bed.sleeper.cancel(key);
    } else {
      slept = bed.sleeper.wait(key, deadline_ns) ? Slept::until_woken : Slept::until_deadline;
    }
    if (helps) {
      bed.helps.store(0, std::memory_order_relaxed);
      count_.fetch_sub(1, std::memory_order_seq_cst);
    }
    return slept;
  }

  /// F10. Whoever takes the bit away wakes one who helps. `for_each(fn)` calls fn(bed) for all beds
  /// until it gives true.
  template <class ForEach>
  void wake_one(Attention& attention, ForEach&& for_each) noexcept {
    if ((attention.fetch_and(~attention::kWaiters, std::memory_order_seq_cst) &
         attention::kWaiters) == 0)
      return;
    for_each([](Bed& bed) {
      return bed.helps.load(std::memory_order_relaxed) != 0 && bed.sleeper.notify_one();
    });
  }

  /// F11. Whoever comes back from sleep(), woken or not, may hold the one notification that was
  /// sent for a job: before it goes on, the bit goes back up for those who still sleep, and if
  /// there is more to do, one of them is woken.
  template <class InSight, class Wake>
  void pass_on(Attention& attention, InSight&& in_sight, Wake&& wake) noexcept {
    if (Env::mutant(Mutant::job_no_passing_on) || count_.load(std::memory_order_relaxed) == 0)
      return;
    attention.fetch_or(attention::kWaiters, std::memory_order_seq_cst);
    // Pairs with the light fence of an offer that found no bit.
    if constexpr (!Env::mutant(Mutant::job_no_heavy_passing_on)) Env::heavy_fence();
    if (in_sight()) wake();
  }

  /// Whether somebody sleeps who would run a job.
  bool any() const noexcept { return count_.load(std::memory_order_relaxed) != 0; }

 private:
  typename Env::template Atomic<std::uint32_t> count_{0};
};

}  // namespace magpie::detail
