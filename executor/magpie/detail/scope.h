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
//
// No question is answered by a walk: a cancellation leaves its mark, the cause, at each linked
// scope that it reaches, and whoever asks a scope that is not linked while something in the task is
// cancelled links it, which hands the cause down. So n scopes, however they are nested, cost a
// cancellation and its unwinding a number of steps in proportion to n.
//
// The children of one gather all wait in its scope, on as many cores as there are. A scope whose
// lock is asked for at once too often gets annexes, scopes right below it that share out what would
// be in its own lists.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/scope_annexes.h>
#include <magpie/detail/scope_cause.h>
#include <magpie/detail/scope_lists.h>
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

enum class ScopeKind : std::uint8_t {
  plain = 0,
  masked = 1,     // cancellation from outside stops here
  task_root = 2,  // the scope of a whole task
};

/// What a scope carries besides cancellation; the walk towards the root finds it.
enum class ScopeBaggage : std::uint8_t { none = 0, deadline = 1, task_local = 2 };

template <class Env>
struct BasicScopeVisit;

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
    if (const std::uint8_t linked = linked_.load(std::memory_order_relaxed); linked != 0)
        [[unlikely]] {
      if (parent_ != nullptr) {
        unlink(nullptr);
      } else if ((linked & kHasAnnexes) != 0) {
        delete_annexes(annexes());
      }
    }
    if (cause_.there_relaxed()) [[unlikely]]
      cause_.drop();
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
    linked_.store(kByParent, std::memory_order_relaxed);
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
    if (cause_.there_relaxed()) cause_.drop();
    if (was_cancelled) task_->cancels.fetch_sub(1, std::memory_order_relaxed);
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
  /// it. Not of one that has been left.
  bool cancelled() noexcept {
    // Relaxed: a checkpoint may be late by a moment; whoever parks asks under the scope's lock.
    if (task_->cancels.load(std::memory_order_relaxed) == 0) [[likely]]
      return false;
    return find_cause();
  }

  /// False: nothing in this task is cancelled. True: cancelled() tells.
  bool maybe_cancelled() const noexcept {
    return task_->cancels.load(std::memory_order_relaxed) != 0;
  }

  /// The reason of the cancellation that reached this scope first; null if none did.
  ReasonRef reason() noexcept {
    if (!cancelled()) return {};
    return canceller()->cause_.own_reason();
  }

  /// Parks `waiter`: from here on a cancellation may claim it. False if the scope is cancelled: the
  /// waiter was not parked. The caller holds the lock of the primitive that the waiter queues on
  /// (it nests outside the scope's).
  bool park(Waiter& waiter) noexcept {
    link();
    if constexpr (Env::mutant(Mutant::scope_early_check)) {
      if (reached()) return false;
    }
    if (!lock_own_lists()) [[unlikely]]
      return park_in_annex(waiter);
    std::lock_guard guard(lock_, std::adopt_lock);
    // Checked under the lock: a traversal comes either before (seen here) or after (claims it).
    if (!Env::mutant(Mutant::scope_early_check) && reached()) return false;
    waiter.annex = 0;
    lists_.add(waiter);
    return true;
  }

  /// Takes a waiter that something else completed out of the list. Not for one that a cancellation
  /// claimed: that one is out. The caller holds no lock.
  void unpark(Waiter& waiter) noexcept {
    if (waiter.annex != 0) [[unlikely]]
      return unpark_from_annex(waiter);
    bool crowded = false;
    {
      std::lock_guard guard(lock_);
      lists_.remove(waiter);
      crowded = found_crowded();
    }
    if (crowded) [[unlikely]]
      open_annexes();
  }

  // --- from any thread, by whoever knows that the scope has not been left ------------------------

  /// Cancels the scope and everything below it. False if it was cancelled (or closed) before. When
  /// it returns, everything below is cancelled. What runs there may see it earlier, and leave the
  /// scope: exit() waits until this call is through.
  bool cancel(ReasonRef reason, Effects& effects) noexcept {
    constexpr bool kLateCount = Env::mutant(Mutant::scope_late_count);
    bool before = false;
    bool first = false;
    if constexpr (Env::mutant(Mutant::scope_linking_cancel)) {
      if (maybe_cancelled()) link();
    }
    {
      std::lock_guard guard(lock_);
      const std::uint8_t state = state_.load(std::memory_order_relaxed);
      if (state == kClosed) return false;
      before = state != kActive;
      if (!before) {
        // All of it before the cause, whose release is theirs: whoever finds that finds this.
        state_.store(kCancelled | kCancelling, std::memory_order_relaxed);
        if constexpr (!kLateCount) task_->cancels.fetch_add(1, std::memory_order_relaxed);
        first = cause_.set_own(reason);
      }
    }
    if (before) {
      if constexpr (!Env::mutant(Mutant::scope_unawaited_rival)) await_cancel();
      return false;
    }
    if (first) {
      if (linked_.load(std::memory_order_acquire) != 0) sweep(effects);
    } else if constexpr (!Env::mutant(Mutant::scope_unawaited_outer)) {
      if constexpr (Env::mutant(Mutant::scope_early_end))
        state_.store(kCancelled, std::memory_order_release);
      canceller()->await_cancel();  // that one reaches everything here
    }
    if constexpr (kLateCount) task_->cancels.fetch_add(1, std::memory_order_relaxed);
    // The last touch of the scope. Release: pairs with await_cancel() and being_cancelled().
    state_.store(kCancelled, Env::mutant(Mutant::scope_relaxed_end) ? std::memory_order_relaxed
                                                                    : std::memory_order_release);
    return true;
  }

  /// Ends the time in which cancel() returns true: the task has its outcome.
  void close() noexcept {
    if constexpr (Env::mutant(Mutant::scope_open_end)) return;
    constexpr bool kLocked = !Env::mutant(Mutant::scope_plain_close);
    if constexpr (kLocked) lock_.lock();
    if (state_.load(std::memory_order_relaxed) == kActive)
      state_.store(kClosed, std::memory_order_relaxed);
    if constexpr (kLocked) lock_.unlock();
  }

  /// Whether somebody has cancelled this very scope; what is below it has been reached by then.
  bool cancelled_itself() const noexcept {
    if (!cancel_requested()) return false;
    await_cancel();
    return true;
  }
  /// The same, also while that goes on.
  bool cancel_requested() const noexcept {
    return (state_.load(std::memory_order_relaxed) & kCancelled) != 0;
  }
  /// The reason of this scope's own cancellation; null if there was none, or one from outside was
  /// there first.
  ReasonRef own_reason() const noexcept {
    if (!cancelled_itself()) return {};
    return cause_.own() ? cause_.own_reason() : ReasonRef();
  }

  /// Whether a cancellation from further out reaches the scope (its own is not asked).
  bool cancelled_from_outside() const noexcept {
    return kind_ != ScopeKind::masked && parent_ != nullptr && parent_->cancelled();
  }
  ReasonRef outside_reason() const noexcept {
    return kind_ != ScopeKind::masked && parent_ != nullptr ? parent_->reason() : ReasonRef();
  }

  /// The root of a task that has ended: whether there ever were tokens, without which only a group
  /// need be left. No lock: only the task's own strands add tokens.
  bool has_had_tokens() const noexcept { return has_had_tokens_ != 0; }

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
    if (ScopeToken* const own = lists_.own_token(); own != nullptr) {
      found(own);
      return own;
    }
    const bool dead = reached();
    ScopeToken* token = make(dead);
    if (!dead && token != nullptr) {
      token->own = true;
      take_over(*token);
    }
    return token;
  }

  /// All tokens, at the end of a task: nothing will cancel them any more.
  ScopeToken* take_tokens() noexcept {
    if (linked_.load(std::memory_order_relaxed) == 0) return nullptr;
    std::lock_guard guard(lock_);
    return lists_.let_go_of_tokens();
  }

  /// From here on it is in its parent's list, and is not left by two loads. Linked implies that
  /// every ancestor is; hence top-down.
  void link() noexcept {
    constexpr auto kOrder = Env::mutant(Mutant::scope_relaxed_link) ? std::memory_order_relaxed
                                                                    : std::memory_order_acquire;
    if (linked_.load(kOrder) == 0) [[unlikely]]  // acquire: pairs with join_list_of()
      link_path();
  }

  /// Lists a waiter that only shows where a strand is: no cancellation claims it. unpark() takes it
  /// out.
  void show(Waiter& waiter) noexcept {
    link();
    BasicScope& place = lock_place(waiter);
    std::lock_guard guard(place.lock_, std::adopt_lock);
    place.lists_.add(waiter);
    waiter.annex = &place != this ? annexes()->number_of(place) & 31U : 0;
  }

 private:
  friend class BasicScopeLists<Env>;
  friend struct BasicScopeVisit<Env>;  // scope_visit.h

  static constexpr std::uint8_t kActive = 0;
  static constexpr std::uint8_t kCancelled = 1;
  static constexpr std::uint8_t kClosed = 2;
  static constexpr std::uint8_t kCancelling = 4;  // beside kCancelled: cancel() is still here

  static constexpr std::uint8_t kUnlinked = 0;
  static constexpr std::uint8_t kByParent = 1;    // in the parent's list
  static constexpr std::uint8_t kByAnnex = 2;     // in that of one of its annexes
  static constexpr std::uint8_t kHasAnnexes = 4;  // beside either

  // --- the cause ---------------------------------------------------------------------------------

  bool reached() const noexcept { return cause_.there(); }

  // Which scope's own cancellation reached this one first: what is handed down to those below.
  const BasicScope* canceller() const noexcept { return cause_.canceller(*this); }

  // Under the parent's lock: a cause from outside. The task's count rises first: whoever finds the
  // cause, whose release is the count's, finds that something in the task is cancelled.
  bool hand_down(const BasicScope* canceller) noexcept {
    if (canceller == nullptr || kind_ == ScopeKind::masked || reached()) return false;
    const bool counts = kind_ == ScopeKind::task_root && !Env::mutant(Mutant::scope_uncounted_task);
    if (counts) task_->cancels.fetch_add(1, std::memory_order_relaxed);
    const bool first = cause_.set_outer(*canceller);
    if (!first && counts) task_->cancels.fetch_sub(1, std::memory_order_relaxed);
    return first;
  }

  // Something in the task is cancelled. Who is linked has been told.
  MAGPIE_COLD bool find_cause() noexcept {
    if (reached()) return true;
    link();
    return reached();
  }

  // --- annexes -----------------------------------------------------------------------------------

  using Annexes = BasicAnnexes<Env>;

  static constexpr unsigned kManyContenders = Env::kModel ? 1 : 16;
  // Models of what is between annexes and others need not wait for contenders.
  static constexpr bool kAnnexesAtOnce =
      Env::mutant(Mutant::scope_early_annexes) || Env::mutant(Mutant::scope_annex_asked) ||
      Env::mutant(Mutant::scope_annex_unlisted) || Env::mutant(Mutant::scope_annex_unpinned) ||
      Env::mutant(Mutant::scope_annexes_twice) || Env::mutant(Mutant::scope_relaxed_annexes) ||
      Env::mutant(Mutant::scope_annexes_seen_once);

  // Of a scope that is linked. Acquire: pairs with open_annexes().
  bool has_annexes() const noexcept {
    constexpr bool kWeak = Env::mutant(Mutant::scope_relaxed_annexes) ||
                           Env::mutant(Mutant::scope_relaxed_link);  // else it would look twice
    return (linked_.load(kWeak ? std::memory_order_relaxed : std::memory_order_acquire) &
            kHasAnnexes) != 0;
  }
  // Under lock_: null, if there are none; or by who knows that there are: the word stays until the
  // scope is left.
  Annexes* annexes() const noexcept { return lists_.annexes(); }

  // Locks this scope, and finds that it has no annexes; or false, with nothing locked. Of two who
  // ask for one scope, one comes after the other under the same lock, or the first found no annexes
  // and has done what it came for before they were opened: that was under this scope's lock.
  MAGPIE_ALWAYS_INLINE bool lock_own_lists() noexcept {
    if (!has_annexes() && lock_.try_lock()) [[likely]]
      return stays_locked();
    return !has_annexes() && lock_contended();
  }
  // A3.
  bool stays_locked() noexcept {
    if (!has_annexes() || Env::mutant(Mutant::scope_annexes_seen_once)) [[likely]]
      return true;
    lock_.unlock();
    return false;
  }
  MAGPIE_COLD bool lock_contended() noexcept {
    lock_.lock();
    if (!stays_locked()) return false;
    if (contenders_ < kManyContenders) ++contenders_;
    return true;
  }
  // The same for the annex of what is to be listed.
  BasicScope& lock_annex(const auto& listed) noexcept {
    BasicScope& annex = annexes()->of(listed);
    annex.lock_.lock();
    return annex;
  }
  BasicScope& lock_place(const auto& listed) noexcept {
    return lock_own_lists() ? *this : lock_annex(listed);
  }

  // Under lock_, by who leaves the lists. True: he has to open annexes, once he holds no lock.
  bool found_crowded() noexcept {
    if (contenders_ < kManyContenders) [[likely]]
      return false;
    if constexpr (!Env::mutant(Mutant::scope_annexes_twice)) contenders_ = 0;
    return true;
  }

  // A2. If memory is short, it goes without until it is crowded again.
  MAGPIE_COLD void open_annexes() noexcept {
    std::unique_ptr<Annexes> opened(new (std::nothrow) Annexes);
    std::lock_guard guard(lock_);
    if (opened == nullptr) return;
    if (annexes() != nullptr && !Env::mutant(Mutant::scope_annexes_twice)) return;
    for (BasicScope& annex : opened->scopes) {
      annex.enter(this, task_);
      annex.init_lists();
      if constexpr (!Env::mutant(Mutant::scope_annex_unlisted)) lists_.add(annex);
      annex.linked_.store(kByParent, std::memory_order_relaxed);
    }
    lists_.set_annexes(opened.release());
    // Release: pairs with has_annexes().
    linked_.store(linked_.load(std::memory_order_relaxed) | kHasAnnexes, std::memory_order_release);
  }

  // A5. Takes them out of the list; they are still to be deleted. False: a traversal is in one of
  // them. It began right here, or this scope would be pinned.
  bool close_annexes(Annexes*& closed) noexcept {
    if (!has_annexes()) [[likely]]
      return true;
    std::lock_guard guard(lock_);
    closed = annexes();
    for (const BasicScope& annex : closed->scopes)
      if (annex.pins_ != 0 && !Env::mutant(Mutant::scope_annex_unpinned)) return false;
    if constexpr (!Env::mutant(Mutant::scope_annex_unlisted))
      for (BasicScope& annex : closed->scopes) lists_.remove(annex);
    lists_.set_annexes(nullptr);
    return true;
  }

  // Nobody comes to them any more.
  MAGPIE_COLD static void delete_annexes(Annexes* closed) noexcept {
    for (BasicScope& annex : closed->scopes)
      annex.linked_.store(kUnlinked, std::memory_order_relaxed);
    delete closed;
  }

  MAGPIE_COLD void unpark_from_annex(Waiter& waiter) noexcept {
    BasicScope& annex = annexes()->at(waiter.annex);
    std::lock_guard guard(annex.lock_);
    annex.lists_.remove(waiter);
  }

  MAGPIE_COLD bool park_in_annex(Waiter& waiter) noexcept {
    BasicScope& annex = lock_annex(waiter);
    std::lock_guard guard(annex.lock_, std::adopt_lock);
    const BasicScope& asked = Env::mutant(Mutant::scope_annex_asked) ? annex : *this;
    if (!Env::mutant(Mutant::scope_early_check) && asked.reached()) return false;
    annex.lists_.add(waiter);
    waiter.annex = annexes()->number_of(annex) & 31U;
    return true;
  }

  // --- linking -----------------------------------------------------------------------------------

  void init_lists() noexcept {
    has_had_tokens_ = 0;
    contenders_ = kAnnexesAtOnce ? kManyContenders : 0;
    pins_ = 0;
    lists_.init();
  }

  // In whose lists it is: the parent's or those of one of its annexes. Of a scope that is linked.
  BasicScope* holder() const noexcept {
    return (linked_.load(std::memory_order_relaxed) & kByAnnex) != 0
               ? &parent_->annexes()->of(*this)
               : parent_;
  }

  // Under the lock of `place`.
  void join_list_of(BasicScope& place) noexcept {
    if constexpr (!Env::mutant(Mutant::scope_no_link)) place.lists_.add(*this);
    // Release: pairs with the acquire loads in link(), cancel() and ScopeVisit.
    linked_.store(&place == parent_ ? kByParent : kByAnnex, std::memory_order_release);
  }

  MAGPIE_NOINLINE bool link_below_group() noexcept {
    parent_->link();
    BasicScope& place = parent_->lock_place(*this);
    std::lock_guard guard(place.lock_, std::adopt_lock);
    const bool born_cancelled = hand_down(parent_->canceller());
    join_list_of(place);
    return !born_cancelled;
  }

  MAGPIE_NOINLINE void link_path() noexcept {
    std::size_t levels = 0;
    // Acquire: pairs with join_list_of().
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
    BasicScope& place = parent_->lock_place(*this);
    std::lock_guard guard(place.lock_, std::adopt_lock);
    if (linked_.load(std::memory_order_relaxed) != kUnlinked) return;
    init_lists();
    if constexpr (!Env::mutant(Mutant::scope_link_untold)) hand_down(parent_->canceller());
    join_list_of(place);
  }

  // Without `effects` all tokens go to the parent.
  // Out of line: it takes locks, and nothing of that belongs into the code of a fork.
  MAGPIE_COLD void unlink(Effects* effects) noexcept {
    if (parent_ == nullptr) return;  // a task's own root: its record outlives every traversal
    BasicScope* const p = holder();
    Annexes* closed = nullptr;
    Backoff<Env> backoff;
    for (;;) {
      // Tokens go to the parent itself, whichever of its annexes the scope is in.
      std::unique_lock outer(parent_->lock_, std::defer_lock);
      if (p != parent_ && has_had_tokens()) outer.lock();
      std::unique_lock guard(p->lock_);
      // pins_ is guarded by the holder's lock.
      const bool unpinned = pins_ == 0 || Env::mutant(Mutant::scope_unpinned_exit);
      if (unpinned && close_annexes(closed)) {
        p->lists_.remove(*this);
        if (lists_.tokens() != nullptr) hand_tokens_to(*parent_, effects);
        linked_.store(kUnlinked, std::memory_order_relaxed);
        const bool crowded = p == parent_ && p->found_crowded();
        guard.unlock();
        if (outer.owns_lock()) outer.unlock();
        if (crowded) [[unlikely]]
          p->open_annexes();
        if (closed != nullptr) [[unlikely]]
          delete_annexes(closed);
        return;
      }
      guard.unlock();  // a cancellation is below this scope: it ends by itself, and soon
      if (outer.owns_lock()) outer.unlock();
      backoff.wait();
    }
  }

  // --- tokens ------------------------------------------------------------------------------------

  void take_over(ScopeToken& token) noexcept {  // under lock_
    lists_.add(token);
    has_had_tokens_ = 1;
  }

  // Under p.lock_. Without `effects` all tokens go to the parent.
  void hand_tokens_to(BasicScope& p, Effects* effects) noexcept {
    std::lock_guard guard(lock_);
    if (ScopeToken* const own = lists_.own_token(); own != nullptr) own->own = false;
    if (effects != nullptr) {
      lists_.drop_unused_tokens(*effects);
      // The end of a task, and the caller lets go of them; or they have to be cancelled.
      if (kind_ == ScopeKind::task_root ||
          (!Env::mutant(Mutant::scope_unasked_tokens) && p.reached())) {
        effects->tokens = lists_.let_go_of_tokens();
        return;
      }
    }
    for (ScopeToken* t = lists_.let_go_of_tokens(); t != nullptr;) {
      ScopeToken* const next = t->next_token;
      p.take_over(*t);
      t = next;
    }
    if (effects != nullptr) p.lists_.drop_unused_tokens_in_time(*effects);
  }

  // --- traversals --------------------------------------------------------------------------------

  // A cancellation runs no user code, and waits only for cancellations further in: it ends by
  // itself, and soon. Acquire: pairs with the end of cancel().
  MAGPIE_COLD void await_cancel() const noexcept {
    Backoff<Env> backoff;
    while ((state_.load(std::memory_order_acquire) & kCancelling) != 0) backoff.wait();
  }

  // Claims what waits below, and hands the cause down. A scope that has one already is passed by,
  // and with it all that is below: whoever was there first goes on there, and is waited for.
  void sweep(Effects& effects) noexcept {
    traverse(
        [this](BasicScope& s) noexcept {
          if (&s == this || !s.cause_.own()) return true;
          s.await_cancel();
          return false;
        },
        [&effects](BasicScope& s) noexcept {
          s.lists_.claim_waiters(effects);
          s.lists_.take_tokens(effects);
          return true;
        },
        [](BasicScope& parent, BasicScope* s) noexcept {
          const BasicScope* const canceller = parent.canceller();
          for (; s != nullptr; s = s->next_sibling_) {
            if (s->kind_ == ScopeKind::masked) continue;
            if (Env::mutant(Mutant::scope_unmarked) ? !s->reached() : s->hand_down(canceller))
              break;
            if (s->being_cancelled()) break;
          }
          return s;
        });
  }

  // Whose canceller was there before the traversal, and is still under way. Acquire: pairs with the
  // release at that one's end, so that what it did below is seen by whom this one's end is told.
  bool being_cancelled() const noexcept {
    return !Env::mutant(Mutant::scope_unawaited_inner) && cause_.own() &&
           (state_.load(std::memory_order_acquire) & kCancelling) != 0;
  }

  // Depth first, iteratively, holding one lock at a time. Every scope on the path is pinned, so it
  // cannot be left.
  //
  //   enter(s)         with no lock: whether to go into s at all
  //   visit(s)         under its lock: whether to go below
  //   next(parent, s)  under the parent's lock: s, or the first behind it, to go to; null: none
  template <class Enter, class Visit, class Next>
  void traverse(Enter enter, Visit visit, Next next) noexcept {
    BasicScope* s = this;
    bool descend = true;
    for (;;) {
      if (descend && enter(*s)) {
        std::lock_guard guard(s->lock_);
        BasicScope* const child = visit(*s) ? next(*s, s->lists_.children()) : nullptr;
        if (child != nullptr) {
          ++child->pins_;
          s = child;  // pinned; the guard still holds the lock of the one above
        } else {
          descend = false;
        }
        continue;
      }
      if (s == this) return;
      BasicScope* const p = s->holder();
      std::lock_guard guard(p->lock_);
      BasicScope* const sibling = next(*p, s->next_sibling_);
      if (sibling != nullptr) ++sibling->pins_;
      --s->pins_;  // the last touch of s
      descend = sibling != nullptr;
      s = sibling != nullptr ? sibling : p;
    }
  }

  BasicCause<Env> cause_;
  typename Env::template Atomic<std::uint8_t> state_{kActive};
  typename Env::template Atomic<std::uint8_t> linked_{kUnlinked};
  ScopeKind kind_ = ScopeKind::plain;
  ScopeBaggage baggage_ = ScopeBaggage::none;
  SpinLock<Env> lock_;
  // Once linked, these two and the lists are guarded by lock_, but pins_ and the siblings by the
  // holder's.
  std::uint8_t has_had_tokens_ : 1 = 0;
  std::uint8_t contenders_ : 7 = 0;  // who found lock_ held, up to kManyContenders
  std::uint16_t pins_ = 0;
  BasicScope* parent_;
  BasicTaskCore<Env>* task_;
  // Valid once linked.
  BasicScopeLists<Env> lists_;
  BasicScope* next_sibling_;
  BasicScope* prev_sibling_;
};

}  // namespace magpie::detail
