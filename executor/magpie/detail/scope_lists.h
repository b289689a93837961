// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What hangs on a scope: the waits that are parked in it, the scopes right below it, its tokens.
// And what a cancellation takes along from there.
//
// Lists and no more: every call is made under the scope's lock, but init(), which comes before
// anybody else can see the scope, tokens() by who leaves it, when nobody is left below, and
// annexes() by who knows that there are some. No cancellation, no errors.

#include <cstdint>

#include <magpie/detail/atomic.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/scope_annexes.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// A token's state, as far as its scope knows it: a link in a list under the scope's lock.
struct ScopeToken {
  ScopeToken* next_token = nullptr;
  void* children;    // of the first in a list: the scope's, see BasicScopeLists::children()
  bool own = false;  // made for the scope that holds it, not inherited from one that has been left
  std::uint32_t until_look = 0;  // of the first in a list: so many more, and unused ones are let go
  bool (*unused)(const ScopeToken*) noexcept = nullptr;  // nobody but the scope holds it any more

 protected:
  ~ScopeToken() = default;
};

/// What a cancellation has claimed: to be delivered once no lock is held.
template <class Env>
struct BasicCancelEffects {
  BasicWaiter<Env>* waiters = nullptr;  // linked by scope_next
  ScopeToken* tokens = nullptr;         // to be cancelled, or let go of at the end of a task
  ScopeToken* dropped = nullptr;        // to be let go of
};

template <class Env>
class BasicScopeLists {
 public:
  using Scope = BasicScope<Env>;
  using Waiter = BasicWaiter<Env>;
  using Effects = BasicCancelEffects<Env>;
  using Annexes = BasicAnnexes<Env>;

  void init() noexcept {
    waiters_or_annexes_ = nullptr;
    children_or_tokens_ = nullptr;
  }

  // --- annexes -----------------------------------------------------------------------------------

  /// Null: there are none. Few scopes have any: their word is that of the waiters.
  Annexes* annexes() const noexcept {
    const auto word = reinterpret_cast<std::uintptr_t>(waiters_or_annexes_);
    return (word & kAnnexes) != 0 ? reinterpret_cast<Annexes*>(word & ~kAnnexes) : nullptr;
  }
  void set_annexes(Annexes* opened) noexcept {
    Waiter* const first = waiters();
    if (opened != nullptr) {
      opened->parked_before = first;
      waiters_or_annexes_ =
          reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(opened) | kAnnexes);
    } else {
      waiters_or_annexes_ = first;
    }
  }

  // --- waiters -----------------------------------------------------------------------------------

  /// Not those that are listed in annexes.
  Waiter* waiters() const noexcept {
    const Annexes* const opened = annexes();
    return opened != nullptr ? opened->parked_before : static_cast<Waiter*>(waiters_or_annexes_);
  }

  /// Not once there are annexes.
  void add(Waiter& w) noexcept {
    auto* const first = static_cast<Waiter*>(waiters_or_annexes_);
    w.scope_prev = nullptr;
    w.scope_next = first;
    if (first != nullptr) first->scope_prev = &w;
    waiters_or_annexes_ = &w;
  }

  void remove(Waiter& w) noexcept {
    if (w.scope_prev != nullptr) {
      w.scope_prev->scope_next = w.scope_next;
    } else {
      set_first_waiter(w.scope_next);
    }
    if (w.scope_next != nullptr) w.scope_next->scope_prev = w.scope_prev;
  }

  void move_to(Effects& effects, Waiter& w) noexcept {
    remove(w);
    w.scope_next = effects.waiters;
    effects.waiters = &w;
  }

  /// Every wait that nothing has completed.
  void claim_waiters(Effects& effects) noexcept {
    for (Waiter* w = waiters(); w != nullptr;) {
      Waiter* const next = w->scope_next;
      if (w->state.try_cancel()) move_to(effects, *w);
      w = next;
    }
  }

  // --- children ----------------------------------------------------------------------------------

  /// The first child, which is the latest. Few scopes have tokens: while there are any, the word
  /// leads to the first of them, and the first child is found there.
  Scope* children() const noexcept {
    const ScopeToken* const first = tokens();
    return first != nullptr ? static_cast<Scope*>(first->children)
                            : static_cast<Scope*>(children_or_tokens_);
  }

  void add(Scope& child) noexcept {
    child.prev_sibling_ = nullptr;
    Scope* const first = children();
    child.next_sibling_ = first;
    if (first != nullptr) first->prev_sibling_ = &child;
    set_children(&child);
  }

  void remove(Scope& child) noexcept {
    if (child.prev_sibling_ != nullptr) {
      child.prev_sibling_->next_sibling_ = child.next_sibling_;
    } else {
      set_children(child.next_sibling_);
    }
    if (child.next_sibling_ != nullptr) child.next_sibling_->prev_sibling_ = child.prev_sibling_;
  }

  // --- tokens ------------------------------------------------------------------------------------

  ScopeToken* tokens() const noexcept {
    const auto word = reinterpret_cast<std::uintptr_t>(children_or_tokens_);
    return (word & kTokens) != 0 ? reinterpret_cast<ScopeToken*>(word & ~kTokens) : nullptr;
  }

  /// The scope's own one; null: none was made.
  ScopeToken* own_token() const noexcept {
    ScopeToken* const first = tokens();
    return first != nullptr && first->own ? first : nullptr;
  }

  /// The scope's own token is the first.
  void add(ScopeToken& token) noexcept {
    ScopeToken* first = tokens();
    const std::uint32_t until_look = first != nullptr ? first->until_look : kFewTokens;
    if (first != nullptr && first->own) {
      token.next_token = first->next_token;
      first->next_token = &token;
    } else {
      token.next_token = first;
      set_tokens(&token);
      first = &token;
    }
    first->until_look = until_look - (until_look > 0);
  }

  ScopeToken* let_go_of_tokens() noexcept {
    ScopeToken* const all = tokens();
    if (all != nullptr) set_tokens(nullptr);
    return all;
  }

  void take_tokens(Effects& effects) noexcept {
    for (ScopeToken* t = let_go_of_tokens(); t != nullptr;) {
      ScopeToken* const next = t->next_token;
      t->next_token = effects.tokens;
      effects.tokens = t;
      t = next;
    }
  }

  /// A long-lived scope would collect what was made in those that have been left, hence this. Its
  /// own token stays. What nobody else holds now, nobody else can get.
  void drop_unused_tokens(Effects& effects) noexcept {
    std::uint32_t kept = 0;
    ScopeToken* all = tokens();
    for (ScopeToken** at = &all; *at != nullptr;) {
      ScopeToken* const t = *at;
      if (!t->own && t->unused != nullptr && t->unused(t)) {
        *at = t->next_token;
        t->next_token = effects.dropped;
        effects.dropped = t;
      } else {
        at = &t->next_token;
        ++kept;
      }
    }
    set_tokens(all);
    if (all != nullptr) all->until_look = kept < kFewTokens ? kFewTokens : kept;
  }

  /// The same once for as many as were kept the last time: a token more costs a bounded number of
  /// steps.
  void drop_unused_tokens_in_time(Effects& effects) noexcept {
    const ScopeToken* const first = tokens();
    if (first != nullptr && first->until_look == 0) drop_unused_tokens(effects);
  }

 private:
  static constexpr std::uint32_t kFewTokens = 8;
  static constexpr std::uintptr_t kTokens = 1;   // in children_or_tokens_
  static constexpr std::uintptr_t kAnnexes = 1;  // in waiters_or_annexes_

  void set_first_waiter(Waiter* first) noexcept {
    if (Annexes* const opened = annexes(); opened != nullptr) [[unlikely]] {
      opened->parked_before = first;
    } else {
      waiters_or_annexes_ = first;
    }
  }
  void set_children(Scope* child) noexcept {
    if (ScopeToken* const first = tokens(); first != nullptr) {
      first->children = child;
    } else {
      children_or_tokens_ = child;
    }
  }
  void set_tokens(ScopeToken* first) noexcept {
    Scope* const child = children();
    if (first != nullptr) {
      first->children = child;
      children_or_tokens_ =
          reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(first) | kTokens);
    } else {
      children_or_tokens_ = child;
    }
  }

  void* waiters_or_annexes_;
  void* children_or_tokens_;
};

}  // namespace magpie::detail
