// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Workers that look away for a while, since all that they have seen is strands that are passed on:
// the steps N1 to N5 of executor/PARKING.md. New work wakes one of them, one more such strand does
// not.
//
// Threads: any. Whoever wakes makes the work visible first, then a fence (the light one, if whoever
// naps makes the heavy one before it looks, or does not nap for long), and then looks at attention.
// No cancellation, no errors.

#include <atomic>
#include <cstdint>
#include <optional>

#include <magpie/detail/atomic.h>
#include <magpie/detail/deque.h>
#include <magpie/detail/event_count.h>
#include <magpie/detail/local_queue.h>

namespace magpie::detail {

/// Whether a worker's deque holds more than one strand that may just be on its way from one task to
/// the next: several items, or a fork, which is made to be stolen. Asked with the owner's
/// handle or, as a hint, with a thief's.
template <class Handle>
bool beyond_a_strand(const Handle& handle) noexcept {
  const std::size_t size = handle.size_hint();
  return size > 1 || (size == 1 && (handle.peek() & kTagMask) != 0);
}

template <class Env>
class BasicNappers {
 public:
  using Attention = typename Env::template Atomic<std::uint32_t>;

  /// N1 to N3. Sleeps until somebody wakes this worker or until `deadline_ns`, unless `look()`
  /// finds work that is new. False: the deadline came first.
  template <class Look>
  bool nap(Attention& attention, std::optional<std::uint64_t> deadline_ns, Look&& look) noexcept {
    const auto key = bunk_.prepare();  // N1
    if constexpr (!Env::mutant(Mutant::nap_late_bit))
      attention.fetch_or(attention::kNappers, std::memory_order_seq_cst);  // N1
    if (!Env::mutant(Mutant::nap_no_look) && look()) {                     // N2
      bunk_.cancel(key);
      return true;
    }
    if constexpr (Env::mutant(Mutant::nap_late_bit))
      attention.fetch_or(attention::kNappers, std::memory_order_seq_cst);
    return bunk_.wait(key, deadline_ns);  // N3
  }

  /// N4. Whoever takes the bit away wakes somebody; he sets it again if others still nap. False:
  /// nobody was woken.
  bool wake_one(Attention& attention) noexcept {
    const std::uint32_t before =
        attention.fetch_and(~attention::kNappers, std::memory_order_seq_cst);
    return (before & attention::kNappers) != 0 && bunk_.notify_one();
  }
  void wake_all() noexcept { bunk_.notify_all(); }

  /// How many nap.
  std::uint32_t count() const noexcept { return bunk_.waiters(); }

 private:
  EventCount<Env> bunk_;
};

}  // namespace magpie::detail
