// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Annexes: what a scope that many strands come to at once gets to share out what would be in its
// own lists. When they are opened and closed is scope.h's; the protocol is in
// executor/CANCELLATION.md, "Annexes".

#include <array>
#include <cstddef>
#include <cstdint>

#include <magpie/detail/atomic.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

/// Scopes right below the one that they belong to, in which nobody stands.
template <class Env>
struct BasicAnnexes {
  static constexpr std::size_t kCount = Env::kModel ? 2 : 16;

  // Each on lines of its own.
  struct alignas(kCacheLine) Annex : BasicScope<Env> {};

  // Where a wait that is parked now goes: threads have annexes of their own. (In a model an
  // execution must not depend on threads' numbers or on addresses: one annex for waits, one for
  // scopes.)
  BasicScope<Env>& of(const BasicWaiter<Env>&) noexcept {
    return scopes[Env::kModel ? 1 : thread_index() % kCount];
  }
  // Of a scope, which several threads may link at once: by its address. Neighbours in memory belong
  // to different ones.
  BasicScope<Env>& of(const BasicScope<Env>& scope) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(&scope);
    return scopes[Env::kModel ? 0 : (address >> 6 ^ address >> 10 ^ address >> 14) % kCount];
  }

  // From 1.
  std::uint8_t number_of(const BasicScope<Env>& annex) const noexcept {
    return static_cast<std::uint8_t>(static_cast<const Annex*>(&annex) - scopes.data() + 1);
  }
  BasicScope<Env>& at(std::uint8_t number) noexcept { return scopes[number - 1U]; }

  std::array<Annex, kCount> scopes;
  // The first of those that are parked in the scope itself, from before: its word for them leads
  // here now. Under the scope's lock.
  BasicWaiter<Env>* parked_before = nullptr;
};

}  // namespace magpie::detail
