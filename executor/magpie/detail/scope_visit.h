// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What dumps and the simulator ask of all the scopes of a task: what waits there, and, when nothing
// can ever run again, to be given it.
//
// Threads: any that knows that the scope has not been left. No cancellation, no errors.

#include <atomic>
#include <cstddef>

#include <magpie/detail/scope.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

template <class Env>
struct BasicScopeVisit {
  using Scope = BasicScope<Env>;
  using Waiter = BasicWaiter<Env>;
  using Effects = BasicCancelEffects<Env>;

  /// Calls fn(const Waiter&) for waiters at the scope and below, at most `limit` of them. fn runs
  /// under a lock.
  template <class F>
  static void waiters(Scope& scope, std::size_t limit, F&& fn) noexcept {
    visit(scope, [&](Scope& s) noexcept {
      for (Waiter* w = s.lists_.waiters(); w != nullptr && limit > 0; w = w->scope_next, --limit)
        fn(*w);
      return limit > 0;
    });
  }

  /// Claims what waits at the scope and below as a cancellation would, but behind masks too: the
  /// claimed strands are destroyed.
  static void claim_behind_masks(Scope& scope, Effects& effects) noexcept {
    visit(scope, [&](Scope& s) noexcept {
      s.lists_.claim_waiters(effects);
      return true;
    });
  }

  /// Takes one of those that only show (BasicScope::show()), unless `effects` holds something
  /// already.
  static void claim_one_shown(Scope& scope, Effects& effects) noexcept {
    visit(scope, [&](Scope& s) noexcept {
      for (Waiter* w = s.lists_.waiters(); w != nullptr && effects.waiters == nullptr;
           w = w->scope_next) {
        if (w->state.phase() == WaitPhase::idle) {
          s.lists_.move_to(effects, *w);
          break;
        }
      }
      return effects.waiters == nullptr;
    });
  }

 private:
  // Calls fn(scope), under its lock, for this scope and those of the same task below it, until it
  // returns false.
  template <class F>
  static void visit(Scope& scope, F&& fn) noexcept {
    // Acquire: pairs with the release in join_list_of().
    if (scope.linked_.load(std::memory_order_acquire) == 0) return;
    bool more = true;
    scope.traverse([](Scope&) noexcept { return true; },
                   [&](Scope& s) noexcept {
                     more = more && fn(s);
                     return more;
                   },
                   [&](Scope&, Scope* s) noexcept -> Scope* {
                     while (s != nullptr && s->kind_ == ScopeKind::task_root) s = s->next_sibling_;
                     return more ? s : nullptr;
                   });
  }
};
using ScopeVisit = BasicScopeVisit<StdEnv>;

}  // namespace magpie::detail
