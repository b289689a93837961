// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a cancellation source, its tokens and their callbacks share.
//
// The callbacks of a state run on the cancelling thread, outside its lock. Taking a callback back
// waits for it if it is running on another thread, and not if it is running on this one. The state
// may lose its last owner inside a callback: the canceller holds a reference of its own. The
// protocol: executor/CANCELLATION.md, "stop state".

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

/// Names the calling thread: equal within it, different between threads that live at the same time.
MAGPIE_EXPORT std::uintptr_t thread_tag() noexcept;

template <class Env>
struct BasicCallbackNode {
  // How far it is.
  static constexpr std::uint32_t kIdle = 0;
  static constexpr std::uint32_t kListed = 1;
  static constexpr std::uint32_t kRunning = 2;
  static constexpr std::uint32_t kFinished = 3;

  BasicCallbackNode* prev = nullptr;  // under the state's lock
  BasicCallbackNode* next = nullptr;
  void (*invoke)(BasicCallbackNode*) noexcept = nullptr;
  typename Env::template Atomic<std::uint32_t> status{kIdle};
  bool awaited = false;       // a thread sleeps until it has run; under the lock
  std::uintptr_t runner = 0;  // who runs it; under the lock
  bool* destroyed =
      nullptr;  // set by a callback that destroys itself; only the runner's thread touches it
};

/// The list of callbacks and the one flag, without ownership: what the models check.
template <class Env>
class BasicStopState {
 public:
  using Node = BasicCallbackNode<Env>;

  bool cancelled() const noexcept {
    return cancelled_.load(std::memory_order_acquire);
  }  // pairs with begin()

  /// True for the first; it then calls run_callbacks().
  bool begin(ReasonRef reason) noexcept {
    std::lock_guard guard(lock_);
    if (cancelled_.load(std::memory_order_relaxed)) return false;
    reason_ = std::move(reason);
    cancelled_.store(true, std::memory_order_release);  // pairs with cancelled(), for reason_
    return true;
  }

  void run_callbacks(std::uintptr_t self) noexcept {
    Node* ran = nullptr;  // the one before, unless its callback has destroyed it
    for (;;) {
      bool destroyed = false;
      Node* node;
      bool awaited = false;
      {
        std::lock_guard guard(lock_);
        if (ran != nullptr) awaited = end(*ran);
        node = head_;
        if (node != nullptr) {
          unlink(*node);
          node->status.store(Node::kRunning, std::memory_order_relaxed);
          node->runner = self;
          node->destroyed = &destroyed;
        }
      }
      if (awaited) [[unlikely]]
        Env::futex_wake(ran->status);  // it may be gone: only its address is used
      if (node == nullptr) return;
      node->invoke(node);
      ran = !destroyed || Env::mutant(Mutant::stop_state_late_end) ? node : nullptr;
    }
  }

  /// False if the state is cancelled already: the caller runs the callback itself.
  bool add(Node& node) noexcept {
    std::lock_guard guard(lock_);
    if (cancelled_.load(std::memory_order_relaxed)) return false;
    node.next = head_;
    node.prev = nullptr;
    if (head_ != nullptr) head_->prev = &node;
    head_ = &node;
    node.status.store(Node::kListed, std::memory_order_relaxed);
    return true;
  }

  /// Afterwards the callback neither runs nor will run, unless it runs on the calling thread. True
  /// if it never ran.
  bool remove(Node& node, std::uintptr_t self) noexcept {
    {
      std::lock_guard guard(lock_);
      const std::uint32_t status = node.status.load(std::memory_order_relaxed);
      if (status == Node::kListed) {
        unlink(node);
        node.status.store(Node::kIdle, std::memory_order_relaxed);
        return true;
      }
      if (status == Node::kIdle) return true;
      if (node.runner == self) {
        if (status == Node::kRunning) *node.destroyed = true;
        return false;
      }
    }
    if constexpr (!Env::mutant(Mutant::stop_state_no_wait)) await_end(node);
    return false;
  }

  const ReasonRef& reason() const noexcept { return reason_; }  // once cancelled

 private:
  static bool ended(const Node& node) noexcept {
    // Acquire: pairs with end(): what the callback did is seen.
    return node.status.load(std::memory_order_acquire) == Node::kFinished;
  }

  // Under the lock: the last touch of the node. True: somebody sleeps until then.
  static bool end(Node& node) noexcept {
    const bool awaited = node.awaited;
    // Release: pairs with ended().
    node.status.store(Node::kFinished, Env::mutant(Mutant::stop_state_relaxed_end)
                                           ? std::memory_order_relaxed
                                           : std::memory_order_release);
    return awaited;
  }

  // A callback is somebody else's code and may take its time, or its thread wait for a processor:
  // whoever waits for it does not spin for long.
  MAGPIE_COLD void await_end(Node& node) noexcept {
    constexpr int kLooks = Env::kModel ? 0 : 10;
    Backoff<Env> backoff;
    for (int i = 0; i < kLooks; ++i) {
      if (ended(node)) return;
      backoff.wait();
    }
    if constexpr (Env::mutant(Mutant::stop_state_loose_block)) {
      if (ended(node)) return;
      node.awaited = true;
    } else {
      std::lock_guard guard(lock_);
      if (ended(node)) return;
      node.awaited = true;  // before end(), which then wakes, or after it, as was just seen
    }
    while (!ended(node)) Env::futex_wait(node.status, Node::kRunning);
  }

  void unlink(Node& node) noexcept {
    (node.prev != nullptr ? node.prev->next : head_) = node.next;
    if (node.next != nullptr) node.next->prev = node.prev;
  }

  typename Env::template Atomic<bool> cancelled_{false};
  SpinLock<Env> lock_;
  Node* head_ = nullptr;
  ReasonRef reason_;
};

using CallbackNode = BasicCallbackNode<StdEnv>;

/// The counted state behind sources and tokens. A scope's token is one too: the scope holds a
/// reference and cancels it.
class MAGPIE_EXPORT CancelState : public ScopeToken {
 public:
  CancelState() = default;
  virtual ~CancelState();
  CancelState(const CancelState&) = delete;
  CancelState& operator=(const CancelState&) = delete;

  void add_ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1)
      delete this;  // acq_rel: as for any counted object
  }
  /// A reference, unless the last one is gone.
  bool try_add_ref() noexcept {
    std::uint32_t refs = refs_.load(std::memory_order_relaxed);
    while (refs != 0) {
      if (refs_.compare_exchange_weak(refs, refs + 1, std::memory_order_relaxed)) return true;
    }
    return false;
  }
  /// Whether there is no reference but one. A std::stop_token that was made from the state is none.
  bool sole_owner() const noexcept {
    return refs_.load(std::memory_order_acquire) == 1;  // pairs with release()
  }

  void add_source() noexcept { sources_.fetch_add(1, std::memory_order_relaxed); }
  void drop_source() noexcept { sources_.fetch_sub(1, std::memory_order_release); }
  virtual bool can_be_cancelled() const noexcept {
    // In this order: the last source may cancel and die in between. Pairs with drop_source().
    return sources_.load(std::memory_order_acquire) != 0 || cancelled();
  }

  bool cancelled() const noexcept { return stop_.cancelled(); }
  const ReasonRef& reason() const noexcept { return stop_.reason(); }

  /// The caller holds a reference.
  bool cancel(ReasonRef reason) noexcept {
    if (!stop_.begin(std::move(reason))) return false;
    add_ref();  // the last callback may drop the last owner
    stop_.run_callbacks(thread_tag());
    release();
    return true;
  }

  bool add(CallbackNode& node) noexcept { return stop_.add(node); }
  bool remove(CallbackNode& node) noexcept { return stop_.remove(node, thread_tag()); }

  /// Something that lives as long as the state, made at most once: the bridge to std::stop_token.
  template <class T, class Make>
  T& attachment(Make&& make) {
    std::lock_guard guard(attachment_mutex_);
    if (!attachment_) attachment_ = std::forward<Make>(make)();
    return *static_cast<T*>(attachment_.get());
  }

 private:
  std::atomic<std::uint32_t> refs_{1};
  std::atomic<std::uint32_t> sources_{0};
  BasicStopState<StdEnv> stop_;
  std::mutex attachment_mutex_;
  std::shared_ptr<void> attachment_;
};

/// What a cancellation claimed, in the order of S7 in CANCELLATION.md: tell(token) for the tokens,
/// then schedule(waiter) for each waiter, or the first of a row. The callbacks come first: one that
/// lives in the frame of a claimed waiter's task must be called before that task goes on and takes
/// it back.
template <class Env, class Tell, class Schedule>
void deliver_in_order(const BasicCancelEffects<Env>& effects, Tell tell, Schedule schedule) {
  const auto schedule_all = [&] {
    // Taken off first: a scheduled waiter may be gone.
    for (BasicWaiter<Env>* rest = effects.waiters; rest != nullptr;) schedule(*take_row(rest));
  };
  if (Env::mutant(Mutant::deliver_waiters_first)) schedule_all();
  for (ScopeToken* t = effects.tokens; t != nullptr;) {
    ScopeToken* const next = t->next_token;  // likewise
    tell(t);
    t = next;
  }
  if (!Env::mutant(Mutant::deliver_waiters_first)) schedule_all();
}

/// Delivers what a cancellation claimed: cancels the tokens, then schedules the waiters. No lock
/// may be held.
MAGPIE_EXPORT void deliver(const BasicCancelEffects<StdEnv>& effects,
                           const ReasonRef& reason) noexcept;

/// Cancels a scope and delivers. False if it was cancelled before.
MAGPIE_EXPORT bool cancel_scope_now(Scope& scope, ReasonRef reason) noexcept;

/// Leaves a scope, with everything that has to happen to tokens made in it.
MAGPIE_EXPORT void leave_scope_slow(Scope& scope) noexcept;
inline void leave_scope(Scope& scope) noexcept {
  if (!scope.leave_if_untouched()) leave_scope_slow(scope);
}

/// Lets go of the tokens of a task that has ended: nothing will cancel them any more.
MAGPIE_EXPORT void detach_tokens(ScopeToken* tokens) noexcept;

/// The token state of a scope, with a reference for the caller.
MAGPIE_EXPORT CancelState* token_state_of(Scope& scope);

}  // namespace magpie::detail
