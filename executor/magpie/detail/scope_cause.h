// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which cancellation reached a scope first: none, its own, with the reason that its canceller gave,
// or that of a scope further out. It is set once, and stays until the scope is left.
//
// Threads: any that knows that the scope has not been left. No errors. The invariants are in
// executor/CANCELLATION.md, I1 to I4.

#include <atomic>
#include <cstdint>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/reason.h>

namespace magpie::detail {

template <class Env>
class BasicCause {
 public:
  using Scope = BasicScope<Env>;

  bool there() const noexcept { return word_.load(kReading) != kNone; }
  /// By who can find no cause that he does not know.
  bool there_relaxed() const noexcept { return word_.load(std::memory_order_relaxed) != kNone; }

  /// By who knows the cause already.
  bool own() const noexcept { return (word_.load(std::memory_order_relaxed) & kOwn) != 0; }
  /// Of one's own; for who knows it already.
  ReasonRef own_reason() const noexcept {
    ReasonRef kept = reason_in(word_.load(std::memory_order_relaxed));
    ReasonRef copy = kept;
    (void)kept.release();
    return copy;
  }

  /// Whose own cancellation it is: `here`, the scope that this is the cause of, or one further out.
  /// Null: there is none.
  const Scope* canceller(const Scope& here) const noexcept {
    const std::uintptr_t word = word_.load(kReading);
    return (word & kOwn) != 0 ? &here : reinterpret_cast<const Scope*>(word);
  }

  /// True for the first, which the reason then belongs to.
  bool set_own(ReasonRef& reason) noexcept {
    void* const node = reason.release();
    if (set(reinterpret_cast<std::uintptr_t>(node) | kOwn)) return true;
    reason = ReasonRef::adopt(node);
    return false;
  }
  /// True for the first.
  bool set_outer(const Scope& canceller) noexcept {
    return set(reinterpret_cast<std::uintptr_t>(&canceller));
  }

  /// When nobody below is left who could ask for it.
  MAGPIE_COLD void drop() noexcept {
    const std::uintptr_t word = word_.load(std::memory_order_relaxed);
    word_.store(kNone, std::memory_order_relaxed);
    if ((word & kOwn) != 0) (void)reason_in(word);
  }

 private:
  static constexpr std::uintptr_t kNone = 0;
  static constexpr std::uintptr_t kOwn = 1;  // beside the reason

  static constexpr bool kWeak = Env::mutant(Mutant::scope_relaxed_cause);
  // Acquire: pairs with set(), so that the reason can be read, and every scope further out is seen
  // to be reached.
  static constexpr auto kReading = kWeak ? std::memory_order_relaxed : std::memory_order_acquire;

  static ReasonRef reason_in(std::uintptr_t word) noexcept {
    return ReasonRef::adopt(reinterpret_cast<void*>(word - kOwn));
  }

  // Release: pairs with kReading. The failure's order is that of reading: who is not the first may
  // have to wait for who was, whose state came before the cause.
  bool set(std::uintptr_t word) noexcept {
    std::uintptr_t none = kNone;
    return word_.compare_exchange_strong(
        none, word, kWeak ? std::memory_order_relaxed : std::memory_order_release, kReading);
  }

  typename Env::template Atomic<std::uintptr_t> word_{kNone};
};

}  // namespace magpie::detail
