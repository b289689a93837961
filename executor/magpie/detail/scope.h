// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Cancellation scopes: where a coroutine stands in the tree that a cancellation walks.
//
// A scope lies in the frame of whoever opened it (a combinator, a timeout, a task's record).
// Entering one is a handful of plain stores; it joins its parent's list of children only when
// something below it parks ("lazy links"), so trees that only compute pay nothing. `cancelled()` is
// one relaxed load while no scope of the task is cancelled.
//
// The protocol, its invariants and the proof sketch are in executor/CANCELLATION.md; the step
// numbers in comments refer to it. Locks nest only from parent to child. No user code and no
// scheduling happens under a lock: a cancellation collects what it claimed in `CancelEffects`, and
// the caller delivers it afterwards.

#include <cstddef>
#include <cstdint>
#include <mutex>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// The part of a task that its scopes count in. Own cancelled scopes that have not been left, plus
/// cancellations that reached the task from an enclosing group: while it is 0, nothing that the
/// task runs is cancelled.
template <class Env>
struct BasicTaskCore {
  typename Env::template Atomic<std::uint32_t> cancels{0};
};
using TaskCore = BasicTaskCore<StdEnv>;

/// A token's state, as far as its scope knows it: a link in a list under the scope's lock.
struct ScopeToken {
  ScopeToken* next_token = nullptr;
  void* children;    // of the first in a list: the scope's, see children()
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

enum class ScopeKind : std::uint8_t {
  plain = 0,
  masked = 1,     // cancellation from outside stops here
  task_root = 2,  // the scope of a whole task
};

/// What a scope carries besides cancellation; the walk towards the root finds it.
enum class ScopeBaggage : std::uint8_t { none = 0, deadline = 1, task_local = 2 };

template <class Env>
class BasicScope {
 public:
  using Waiter = BasicWaiter<Env>;
  using Effects = BasicCancelEffects<Env>;

  // What is not initialised here is set by enter() or when the scope is linked. What is lies side
  // by side: two words, that one store or two clear.
  BasicScope() noexcept {}
  BasicScope(const BasicScope&) = delete;
  BasicScope& operator=(const BasicScope&) = delete;
  /// A scope that was entered and never left: its frame is destroyed where it waited. Everything
  /// below it is gone already.
  ~BasicScope() {
    if (linked_.load(std::memory_order_relaxed) != 0 && parent_ != nullptr) [[unlikely]]
      unlink(nullptr);
  }

  // --- by the coroutine that opens the scope -----------------------------------------------------

  /// Opens the scope, once. Plain stores: nobody else can see it yet.
  void enter(BasicScope* parent, BasicTaskCore<Env>* task) noexcept {
    parent_ = parent;
    task_ = task;
  }
  void enter(BasicScope* parent, BasicTaskCore<Env>* task, ScopeKind kind,
             ScopeBaggage baggage = ScopeBaggage::none) noexcept {
    enter(parent, task);
    kind_ = kind;
    baggage_ = baggage;
  }

  /// Opens the scope of a whole task, which is linked from the start: `parent` is the group's scope
  /// or null. Returns false if the group is cancelled already: the task is then born cancelled.
  bool enter_root(BasicScope* parent, BasicTaskCore<Env>* task) noexcept {
    enter(parent, task, ScopeKind::task_root);
    init_lists();
    if (parent != nullptr) return link_below_group();
    linked_.store(1, std::memory_order_relaxed);
    return true;
  }

  /// Leaves the scope: everything below it has ended. Returns tokens that must be cancelled because
  /// the parent is: the caller does that with no lock held. A scope that nobody parked below and
  /// nobody cancelled pays two loads.
  Effects exit() noexcept {
    Effects effects;
    const bool was_cancelled = (state_.load(std::memory_order_relaxed) & kCancelled) != 0;
    if (was_cancelled && !Env::mutant(Mutant::scope_unawaited_cancel)) await_cancel();
    if (linked_.load(std::memory_order_relaxed) != 0) unlink(&effects);
    if (was_cancelled) {
      reason_ = ReasonRef();
      task_->cancels.fetch_sub(1, std::memory_order_relaxed);
    }
    return effects;
  }

  /// exit() for the scope that nobody parked below and nobody cancelled: two loads. False: it takes
  /// the long way.
  bool leave_if_untouched() noexcept { return touched() == 0; }
  /// The same as a number, 0 for the untouched scope, for who asks something else with it.
  std::uint64_t touched() const noexcept {
    static_assert(kActive == 0);
    return std::uint64_t{state_.load(std::memory_order_relaxed)} |
           std::uint64_t{linked_.load(std::memory_order_relaxed)};
  }

  // --- by anything below -------------------------------------------------------------------------

  /// Whether a cancellation reaches this scope, from itself or from outside as far as no mask stops
  /// it.
  bool cancelled() const noexcept {
    // Relaxed: a checkpoint may be late by a moment; whoever parks asks again under the scope's
    // lock.
    if (task_->cancels.load(std::memory_order_relaxed) == 0) [[likely]]
      return false;
    return first_cancelled(false) != nullptr;
  }

  /// False: nothing in this task is cancelled. True: cancelled() tells.
  bool maybe_cancelled() const noexcept {
    return task_->cancels.load(std::memory_order_relaxed) != 0;
  }

  /// The reason of the outermost cancelled scope that reaches this one; null if there is none.
  ReasonRef reason() const noexcept {
    const BasicScope* s = first_cancelled(true);
    return s != nullptr ? s->reason_ : ReasonRef();
  }

  /// Parks `waiter`: from here on a cancellation may claim it. False if the scope is cancelled: the
  /// waiter was not parked. The caller holds the lock of the primitive that the waiter queues on
  /// (it nests outside the scope's).
  bool park(Waiter& waiter) noexcept {
    link();
    if constexpr (Env::mutant(Mutant::scope_early_check)) {
      if (cancelled()) return false;
    }
    std::lock_guard guard(lock_);
    // Checked under the lock: a traversal comes either before (seen here) or after (claims it).
    if (!Env::mutant(Mutant::scope_early_check) && cancelled()) return false;
    push_waiter(waiter);
    return true;
  }

  /// Takes a waiter that something else completed out of the list. Not for one that a cancellation
  /// claimed: that one is out.
  void unpark(Waiter& waiter) noexcept {
    std::lock_guard guard(lock_);
    remove_waiter(waiter);
  }

  // --- from any thread, by whoever knows that the scope has not been left ------------------------

  /// Cancels the scope and everything below it. False if it was cancelled (or closed) before. What
  /// runs there may see it at once and leave the scope: exit() waits until this call is through.
  bool cancel(ReasonRef reason, Effects& effects) noexcept {
    {
      std::lock_guard guard(lock_);
      if (state_.load(std::memory_order_relaxed) != kActive) return false;
      reason_ = std::move(reason);
      // Release: pairs with the acquire in first_cancelled(), which then reads reason_.
      state_.store(kCancelled | kCancelling, std::memory_order_release);
      if constexpr (!Env::mutant(Mutant::scope_late_count))
        task_->cancels.fetch_add(1, std::memory_order_release);
    }
    if (linked_.load(std::memory_order_acquire) != 0) sweep(effects);
    if constexpr (Env::mutant(Mutant::scope_late_count))
      task_->cancels.fetch_add(1, std::memory_order_release);
    // The last touch of the scope. Release: pairs with await_cancel().
    state_.store(kCancelled, std::memory_order_release);
    return true;
  }

  /// Ends the time in which cancel() returns true: the task has its outcome.
  void close() noexcept {
    std::lock_guard guard(lock_);
    if (state_.load(std::memory_order_relaxed) == kActive)
      state_.store(kClosed, std::memory_order_relaxed);
  }

  /// This scope's own state, whatever its parents say.
  bool cancelled_itself() const noexcept {
    return (state_.load(std::memory_order_acquire) & kCancelled) != 0;
  }
  /// The reason of this scope's own cancellation; only after cancelled_itself().
  const ReasonRef& own_reason() const noexcept { return reason_; }

  /// Whether a cancellation from further out reaches the scope (its own is not asked).
  bool cancelled_from_outside() const noexcept {
    return kind_ != ScopeKind::masked && parent_ != nullptr &&
           parent_->first_cancelled(false) != nullptr;
  }
  ReasonRef outside_reason() const noexcept {
    return kind_ != ScopeKind::masked && parent_ != nullptr ? parent_->reason() : ReasonRef();
  }

  /// The root of a task that has ended: whether there ever were tokens, without which only a group
  /// need be left. No lock: only the task's own strands add tokens.
  bool has_had_tokens() const noexcept { return has_had_tokens_; }

  BasicScope* parent() const noexcept { return parent_; }
  BasicTaskCore<Env>* task() const noexcept { return task_; }
  ScopeKind kind() const noexcept { return kind_; }
  ScopeBaggage baggage() const noexcept { return baggage_; }

  /// The scope's own token, made by `make()` the first time; `make` runs under the scope's lock and
  /// gets whether the scope is cancelled. A scope that is cancelled keeps none. `found` gets a
  /// token that was there already, under the lock too: the time to take a reference.
  template <class Make, class Found>
  ScopeToken* own_token(Make&& make, Found&& found) {
    link();
    std::lock_guard guard(lock_);
    if (ScopeToken* const first = tokens(); first != nullptr && first->own) {
      found(first);
      return first;
    }
    const bool dead = cancelled();
    ScopeToken* token = make(dead);
    if (!dead && token != nullptr) {
      token->own = true;
      push_token(*token);
    }
    return token;
  }

  /// All tokens, at the end of a task: nothing will cancel them any more.
  ScopeToken* take_tokens() noexcept {
    if (linked_.load(std::memory_order_relaxed) == 0) return nullptr;
    std::lock_guard guard(lock_);
    return let_go_of_tokens();
  }

  /// Calls fn(const Waiter&) for waiters at this scope and below, at most `limit` of them. For
  /// dumps: fn runs under a lock.
  template <class F>
  void visit_waiters(std::size_t limit, F&& fn) noexcept {
    visit_scopes([&](BasicScope& s) noexcept {
      for (Waiter* w = s.waiters_; w != nullptr && limit > 0; w = w->scope_next, --limit) fn(*w);
      return limit > 0;
    });
  }

  /// Lists a waiter that only shows where a strand is: no cancellation claims it. unpark() takes it
  /// out.
  void show(Waiter& waiter) noexcept {
    link();
    std::lock_guard guard(lock_);
    push_waiter(waiter);
  }

  /// Claims what waits at this scope and below as a cancellation would, but behind masks too. For
  /// the simulator, when nothing can ever run again: the claimed strands are destroyed.
  void claim_behind_masks(Effects& effects) noexcept {
    visit_scopes([&](BasicScope& s) noexcept {
      for (Waiter* w = s.waiters_; w != nullptr;) {
        Waiter* const next = w->scope_next;
        if (w->state.try_cancel()) s.move_to(effects, *w);
        w = next;
      }
      return true;
    });
  }
  /// Takes one of those that only show, unless `effects` holds something already.
  void claim_one_shown(Effects& effects) noexcept {
    visit_scopes([&](BasicScope& s) noexcept {
      for (Waiter* w = s.waiters_; w != nullptr && effects.waiters == nullptr; w = w->scope_next) {
        if (w->state.phase() == WaitPhase::idle) {
          s.move_to(effects, *w);
          break;
        }
      }
      return effects.waiters == nullptr;
    });
  }

 private:
  static constexpr std::uint8_t kActive = 0;
  static constexpr std::uint8_t kCancelled = 1;
  static constexpr std::uint8_t kClosed = 2;
  static constexpr std::uint8_t kCancelling = 4;  // beside kCancelled: cancel() is still here
  static constexpr std::uint32_t kFewTokens = 8;
  static constexpr std::uintptr_t kTokens = 1;  // in children_or_tokens_

  void init_lists() noexcept {
    has_had_tokens_ = false;
    pins_ = 0;
    waiters_ = nullptr;
    children_or_tokens_ = nullptr;
    next_sibling_ = nullptr;
    prev_sibling_ = nullptr;
  }

  // The first child. Few scopes have tokens: while there are any, the word leads to the first of
  // them, and the first child is found there. Under lock_.
  BasicScope* children() const noexcept {
    const ScopeToken* const first = tokens();
    return first != nullptr ? static_cast<BasicScope*>(first->children)
                            : static_cast<BasicScope*>(children_or_tokens_);
  }
  void set_children(BasicScope* child) noexcept {
    if (ScopeToken* const first = tokens(); first != nullptr) {
      first->children = child;
    } else {
      children_or_tokens_ = child;
    }
  }
  ScopeToken* tokens() const noexcept {
    const auto word = reinterpret_cast<std::uintptr_t>(children_or_tokens_);
    return (word & kTokens) != 0 ? reinterpret_cast<ScopeToken*>(word & ~kTokens) : nullptr;
  }
  void set_tokens(ScopeToken* first) noexcept {
    BasicScope* const child = children();
    if (first != nullptr) {
      first->children = child;
      children_or_tokens_ =
          reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(first) | kTokens);
    } else {
      children_or_tokens_ = child;
    }
  }
  ScopeToken* let_go_of_tokens() noexcept {
    ScopeToken* const all = tokens();
    if (all != nullptr) set_tokens(nullptr);
    return all;
  }

  MAGPIE_NOINLINE bool link_below_group() noexcept {
    parent_->link();
    std::lock_guard guard(parent_->lock_);
    const bool born_cancelled = parent_->cancelled();
    if (born_cancelled) task_->cancels.store(1, std::memory_order_relaxed);
    parent_->append_child(*this);
    linked_.store(1, std::memory_order_release);  // pairs with the acquire load in link()
    return !born_cancelled;
  }

  // The walk towards the root. Acquire: pairs with the release in cancel(), so that the reason can
  // be read.
  const BasicScope* first_cancelled(bool outermost) const noexcept {
    const BasicScope* found = nullptr;
    for (const BasicScope* s = this; s != nullptr; s = s->parent_) {
      if ((s->state_.load(std::memory_order_acquire) & kCancelled) != 0) {
        found = s;
        if (!outermost) return found;
      }
      if (s->kind_ == ScopeKind::masked) break;
    }
    return found;
  }

  // Invariant: linked implies that every ancestor is. Hence top-down.
  void link() noexcept {
    constexpr auto kOrder = Env::mutant(Mutant::scope_relaxed_link) ? std::memory_order_relaxed
                                                                    : std::memory_order_acquire;
    if (linked_.load(kOrder) != 0) return;  // acquire: pairs with the release in link_to_parent()
    std::size_t levels = 0;
    for (BasicScope* s = this; s->linked_.load(std::memory_order_acquire) == 0; s = s->parent_)
      ++levels;
    if (levels != 0) link_levels(this, levels);
  }

  // Links `bottom` and the `levels - 1` scopes above it, outermost first. Without memory for the
  // path: it remembers 32 places on it, and does the stretches between them in the same way, so a
  // million levels are four calls deep.
  static void link_levels(BasicScope* bottom, std::size_t levels) noexcept {
    constexpr std::size_t kPlaces = 32;
    BasicScope* places[kPlaces];
    const std::size_t stretch = (levels + kPlaces - 1) / kPlaces;
    std::size_t n = 0;
    BasicScope* s = bottom;
    for (std::size_t i = 0; i < levels; ++i, s = s->parent_) {
      if (i % stretch == 0) places[n++] = s;
    }
    for (std::size_t left = levels; n > 0;) {
      --n;
      const std::size_t above = left - n * stretch;  // from this place up to the one before
      if (stretch == 1) {
        places[n]->link_to_parent();
      } else {
        link_levels(places[n], above);
      }
      left -= above;
    }
  }

  void link_to_parent() noexcept {
    std::lock_guard guard(parent_->lock_);
    if (linked_.load(std::memory_order_relaxed) != 0) return;
    init_lists();
    if constexpr (!Env::mutant(Mutant::scope_no_link)) parent_->append_child(*this);
    linked_.store(
        1, std::memory_order_release);  // pairs with the acquire loads in link() and cancel()
  }

  void append_child(BasicScope& child) noexcept {  // under lock_
    child.prev_sibling_ = nullptr;
    BasicScope* const first = children();
    child.next_sibling_ = first;
    if (first != nullptr) first->prev_sibling_ = &child;
    set_children(&child);
  }

  void push_waiter(Waiter& w) noexcept {  // under lock_
    w.scope_prev = nullptr;
    w.scope_next = waiters_;
    if (waiters_ != nullptr) waiters_->scope_prev = &w;
    waiters_ = &w;
  }

  void move_to(Effects& effects, Waiter& w) noexcept {  // under lock_
    remove_waiter(w);
    w.scope_next = effects.waiters;
    effects.waiters = &w;
  }

  void remove_waiter(Waiter& w) noexcept {  // under lock_
    if (w.scope_prev != nullptr) {
      w.scope_prev->scope_next = w.scope_next;
    } else {
      waiters_ = w.scope_next;
    }
    if (w.scope_next != nullptr) w.scope_next->scope_prev = w.scope_prev;
  }

  // A cancellation runs no user code and waits for nobody: it ends by itself, and soon. Acquire:
  // pairs with the end of cancel().
  MAGPIE_COLD void await_cancel() noexcept {
    Backoff<Env> backoff;
    while ((state_.load(std::memory_order_acquire) & kCancelling) != 0) backoff.wait();
  }

  // Without `effects` all tokens go to the parent.
  // Out of line: it takes locks, and nothing of that belongs into the code of a fork.
  MAGPIE_COLD void unlink(Effects* effects) noexcept {
    BasicScope* const p = parent_;
    if (p == nullptr) return;  // a task's own root: its record outlives every traversal
    Backoff<Env> backoff;
    for (;;) {
      std::unique_lock guard(p->lock_);
      if (pins_ == 0 ||
          Env::mutant(Mutant::scope_unpinned_exit)) {  // pins_ is guarded by the parent's lock
        if (prev_sibling_ != nullptr) {
          prev_sibling_->next_sibling_ = next_sibling_;
        } else {
          p->set_children(next_sibling_);
        }
        if (next_sibling_ != nullptr) next_sibling_->prev_sibling_ = prev_sibling_;
        if (tokens() != nullptr) hand_tokens_to(*p, effects);
        linked_.store(0, std::memory_order_relaxed);
        return;
      }
      guard.unlock();  // a cancellation is below this scope: it ends by itself, and soon
      backoff.wait();
    }
  }

  // The scope's own token is the first. Under lock_.
  void push_token(ScopeToken& token) noexcept {
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
    has_had_tokens_ = true;
  }

  // A long-lived scope would collect what was made in those that have been left, hence this. Its
  // own token stays. Under lock_: what nobody else holds now, nobody else can get.
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

  // Under p.lock_. Without `effects` all tokens go to the parent.
  void hand_tokens_to(BasicScope& p, Effects* effects) noexcept {
    std::lock_guard guard(lock_);
    if (ScopeToken* const first = tokens(); first != nullptr) first->own = false;
    if (effects != nullptr) {
      drop_unused_tokens(*effects);
      // The end of a task, and the caller lets go of them; or they have to be cancelled.
      if (kind_ == ScopeKind::task_root ||
          (!Env::mutant(Mutant::scope_unasked_tokens) && p.cancelled())) {
        effects->tokens = let_go_of_tokens();
        return;
      }
    }
    for (ScopeToken* t = let_go_of_tokens(); t != nullptr;) {
      ScopeToken* const next = t->next_token;
      p.push_token(*t);
      t = next;
    }
    // Once for as many as were kept the last time: a token more costs a bounded number of steps.
    if (effects == nullptr) return;
    const ScopeToken* const first = p.tokens();
    if (first != nullptr && first->until_look == 0) p.drop_unused_tokens(*effects);
  }

  static BasicScope* next_unmasked(BasicScope* s) noexcept {
    while (s != nullptr && s->kind_ == ScopeKind::masked) s = s->next_sibling_;
    return s;
  }

  // Under the parent's lock, before the scope is visited: the count must rise first.
  static void pin(BasicScope& s) noexcept {
    ++s.pins_;
    if constexpr (Env::mutant(Mutant::scope_uncounted_task)) return;
    if (s.kind_ == ScopeKind::task_root) s.task_->cancels.fetch_add(1, std::memory_order_release);
  }

  // Calls fn(scope), under its lock, for this scope and those of the same task below it, until it
  // returns false.
  template <class F>
  void visit_scopes(F&& fn) noexcept;

  // Depth first, iteratively, holding one lock at a time. Every scope on the path is pinned, so it
  // cannot be left.
  void sweep(Effects& effects) noexcept {
    BasicScope* s = this;
    bool descend = true;
    for (;;) {
      if (descend) {
        std::lock_guard guard(s->lock_);
        s->claim_all(effects);
        BasicScope* const child = next_unmasked(s->children());
        if (child != nullptr) pin(*child);
        if (child == nullptr) {
          descend = false;
        } else {
          s = child;  // pinned; the guard still holds the lock of the one above
        }
        continue;
      }
      if (s == this) return;
      BasicScope* const p = s->parent_;
      std::lock_guard guard(p->lock_);
      BasicScope* const sibling = next_unmasked(s->next_sibling_);
      if (sibling != nullptr) pin(*sibling);
      --s->pins_;  // the last touch of s
      descend = sibling != nullptr;
      s = sibling != nullptr ? sibling : p;
    }
  }

  void claim_all(Effects& effects) noexcept {  // under lock_
    for (Waiter* w = waiters_; w != nullptr;) {
      Waiter* const next = w->scope_next;
      if (w->state.try_cancel()) move_to(effects, *w);
      w = next;
    }
    for (ScopeToken* t = let_go_of_tokens(); t != nullptr;) {
      ScopeToken* const next = t->next_token;
      t->next_token = effects.tokens;
      effects.tokens = t;
      t = next;
    }
  }

  ReasonRef reason_;
  typename Env::template Atomic<std::uint8_t> state_{kActive};
  typename Env::template Atomic<std::uint8_t> linked_{0};
  ScopeKind kind_ = ScopeKind::plain;
  ScopeBaggage baggage_ = ScopeBaggage::none;
  SpinLock<Env> lock_;
  // Once linked, has_had_tokens_ and the lists are guarded by lock_, but pins_ and the siblings by
  // the parent's.
  bool has_had_tokens_ = false;
  std::uint16_t pins_ = 0;
  BasicScope* parent_;
  BasicTaskCore<Env>* task_;
  // Valid once linked.
  Waiter* waiters_;
  void* children_or_tokens_;
  BasicScope* next_sibling_;
  BasicScope* prev_sibling_;
};

template <class Env>
template <class F>
void BasicScope<Env>::visit_scopes(F&& fn) noexcept {
  if (linked_.load(std::memory_order_acquire) == 0) return;
  BasicScope* s = this;
  bool descend = true;
  bool more = true;
  for (;;) {
    if (descend) {
      std::lock_guard guard(s->lock_);
      more = more && fn(*s);
      BasicScope* child = more ? s->children() : nullptr;
      while (child != nullptr && child->kind_ == ScopeKind::task_root) child = child->next_sibling_;
      if (child == nullptr) {
        descend = false;
      } else {
        ++child->pins_;
        s = child;
      }
      continue;
    }
    if (s == this) return;
    BasicScope* const p = s->parent_;
    std::lock_guard guard(p->lock_);
    BasicScope* sibling = more ? s->next_sibling_ : nullptr;
    while (sibling != nullptr && sibling->kind_ == ScopeKind::task_root)
      sibling = sibling->next_sibling_;
    if (sibling != nullptr) ++sibling->pins_;
    --s->pins_;
    descend = sibling != nullptr;
    s = sibling != nullptr ? sibling : p;
  }
}

}  // namespace magpie::detail
