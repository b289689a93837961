// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Cancellation within the task tree: who can cancel a piece of work, and what cancellation must not
// reach.
//
//   with_token(token, task)  the token cancels the task too
//   uncancellable(task)      cancellation from outside is not seen inside, and is seen again after
//   shield(task)             the wait can be cancelled, the task goes on, owned by the executor
//   finally(task, cleanup)   cleanup() runs in any case, masked; then the task's outcome goes on
//   cancel_scope(body)       a block that can be cancelled by itself: Result<T>
//
// Sources, tokens and callbacks are in <magpie/cancellation_token.h>, which this header includes.
// Each of these starts when awaited and resumes its awaiter on the executor where it awaited. In a
// cancelled scope with_token, shield and cancel_scope start nothing and throw CancelledError;
// entering uncancellable and finally is no cancellation point.

#include <concepts>
#include <coroutine>
#include <exception>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/cancellation_token.h>
#include <magpie/config.h>
#include <magpie/detail/body.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/callee.h>
#include <magpie/detail/late.h>
#include <magpie/detail/spawn_impl.h>
#include <magpie/errors.h>
#include <magpie/result.h>
#include <magpie/spawn.h>

namespace magpie {

namespace detail {

/// Cancels a scope when a token is.
class MAGPIE_EXPORT ScopeLink final : public CallbackBase {
 public:
  explicit ScopeLink(Scope& scope) noexcept : scope_(scope) {
    invoke = [](CallbackNode* node) noexcept {
      auto* const self = static_cast<ScopeLink*>(static_cast<CallbackBase*>(node));
      cancel_scope_now(self->scope_, self->source_->reason());
    };
  }
  ~ScopeLink() { detach(); }
  void arm(const CancellationToken& token) noexcept {
    source_ = token.state();
    attach(source_);
  }

 private:
  Scope& scope_;
  StateRef source_;
};

template <class Callee>
class [[nodiscard("co_await it")]] WithToken : public CombinatorBase {
 public:
  using value_type = typename Callee::value_type;
  WithToken(CancellationToken token, Callee&& callee)
      : token_(std::move(token)), callee_(std::move(callee)) {}
  WithToken(WithToken&& other)
      : token_(std::move(other.token_)), callee_(std::move(other.callee_)) {}

  bool await_ready() const {
    callee_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) {
    Scope& outer = *awaiting.promise().scope;
    if (outer.cancelled() || token_.cancelled()) {
      refused_ = outer.cancelled() ? outer.reason() : token_.state()->reason();
      return detail::transfer(awaiting);
    }
    scope_.enter(&outer, outer.task());
    link_.emplace(scope_);
    link_->arm(token_);
    awaiting_.begin(awaiting, outer);
    return detail::transfer(callee_.start(scope_, awaiting_));
  }
  value_type await_resume() {
    if (refused_) throw CancelledError(std::move(refused_));
    callee_.finish();
    link_.reset();
    leave_scope(scope_);
    return callee_.slot.take();
  }

 private:
  CancellationToken token_;
  Callee callee_;
  Scope scope_;
  Awaiting awaiting_;
  Late<ScopeLink> link_;
  ReasonRef refused_;
};

template <class Callee>
class [[nodiscard("co_await it")]] Uncancellable : public CombinatorBase {
 public:
  using value_type = typename Callee::value_type;
  explicit Uncancellable(Callee&& callee) : callee_(std::move(callee)) {}
  Uncancellable(Uncancellable&& other) : callee_(std::move(other.callee_)) {}

  bool await_ready() const {
    callee_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    scope_.enter(&outer, outer.task(), ScopeKind::masked);
    awaiting_.begin(awaiting, outer);
    return detail::transfer(callee_.start(scope_, awaiting_));
  }
  value_type await_resume() {
    callee_.finish();
    leave_scope(scope_);
    return callee_.slot.take();
  }

 private:
  Callee callee_;
  Scope scope_;
  Awaiting awaiting_;
};

template <class T>
class [[nodiscard("co_await it")]] Shield : public CombinatorBase {
 public:
  using value_type = T;
  explicit Shield(Task<T>&& task) : task_(std::move(task)) {}
  Shield(Shield&& other) noexcept : task_(std::move(other.task_)) {}

  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) {
    Scope& outer = *awaiting.promise().scope;
    if (outer.cancelled()) {
      refused_ = outer.reason();
      return false;
    }
    JoinHandle<T> handle =
        require_current_executor("shield()").spawn(std::move(task_), SpawnOptions("shield"));
    wait_.emplace(std::move(handle).operation());
    return wait_->await_suspend(awaiting);
  }
  T await_resume() {
    if (refused_) throw CancelledError(std::move(refused_));
    return wait_->await_resume();
  }

 private:
  Task<T> task_;
  Late<JoinOperation<T, true>> wait_;
  ReasonRef refused_;
};

/// Throws what is left of two failures.
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_both(std::exception_ptr task,
                                                       std::exception_ptr cleanup);

template <class T, class F>
class [[nodiscard("co_await it")]] Finally : public CombinatorBase, private EndSink {
 public:
  using value_type = T;
  Finally(Task<T>&& task, F&& cleanup)
      : frame_(std::move(task).take_frame()), cleanup_(std::forward<F>(cleanup)) {}
  Finally(Finally&& other)
      : frame_(std::move(other.frame_)), cleanup_(std::forward<F>(other.cleanup_)) {}

  bool await_ready() const {
    frame_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    outer_ = awaiting.promise().scope;
    awaiting_.begin(awaiting, *outer_);
    this->ended = task_ended;
    this->waits_at = current_executor();
    return detail::transfer(
        frame_.bind(*outer_, Continuation::to(static_cast<EndSink*>(this)), slot_));
  }
  T await_resume() {
    leave_scope(mask_);
    if (cleaned_.state() == SlotState::value) [[likely]]
      return slot_.take();
    if (slot_.state() == SlotState::error) {
      if (cleaned_.state() == SlotState::error) throw_both(slot_.error(), cleaned_.error());
      return slot_.take();
    }
    cleaned_.require_value();  // throws
    return slot_.take();
  }

 private:
  static std::coroutine_handle<> task_ended(EndSink* sink, SlotState) noexcept {
    auto* const self = static_cast<Finally*>(sink);
    self->mask_.enter(self->outer_, self->outer_->task(), ScopeKind::masked);
    try {
      auto frame =
          detail::as_task(std::invoke(static_cast<once_t<F>>(self->cleanup_))).take_frame();
      frame.require();
      return detail::transfer(
          frame.bind(self->mask_, self->awaiting_.continuation(), self->cleaned_));
    } catch (...) {
      self->cleaned_.capture_current_exception();
      return self->awaiting_.go_on();
    }
  }

  TaskFrame<T> frame_;
  F cleanup_;
  Slot<T> slot_;
  Slot<awaited_t<once_result_t<F>>> cleaned_;  // what it gives is dropped
  Scope mask_;
  Scope* outer_ = nullptr;
  Awaiting awaiting_;
};

template <class F>
class CancelScopeBlock;

}  // namespace detail

/// The block's own handle in cancel_scope, which makes it: valid until the block ends; from any
/// thread that knows that it has not. A cancel() may be what ends it.
class CancelScope {
 public:
  CancelScope(const CancelScope&) = delete;
  CancelScope& operator=(const CancelScope&) = delete;

  /// Ends just this block. True for the first call.
  bool cancel(std::string reason = {}) {
    return detail::cancel_scope_now(
        scope_, detail::ReasonRef::make(CancelKind::requested, std::move(reason)));
  }
  /// Whether the block's own cancellation was requested.
  [[nodiscard]] bool cancelled() const noexcept { return scope_.cancelled_itself(); }

  /// For the library.
  detail::Scope& scope() noexcept { return scope_; }

 private:
  template <class F>
  friend class detail::CancelScopeBlock;
  CancelScope() = default;

  detail::Scope scope_;
};

namespace detail {

template <class F>
class [[nodiscard("co_await it")]] CancelScopeBlock : public CombinatorBase {
  using T = typename Body<F, CancelScope>::value_type;

 public:
  using value_type = Result<T>;
  explicit CancelScopeBlock(F&& body) : body_(std::forward<F>(body)) {}
  CancelScopeBlock(CancelScopeBlock&& other) : body_(std::move(other.body_)) {}

  bool await_ready() const {
    body_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    if (outer.cancelled()) {
      refused_ = outer.reason();
      return detail::transfer(awaiting);
    }
    block_.scope().enter(&outer, outer.task());
    entered_ = true;
    awaiting_.begin(awaiting, outer);
    const auto started = body_.start(block_, block_.scope(), awaiting_.continuation());
    return detail::transfer(started ? started : std::coroutine_handle<>(awaiting));
  }
  value_type await_resume() {
    if (!entered_) throw CancelledError(std::move(refused_));
    leave_scope(block_.scope());
    if (body_.slot.state() == SlotState::cancelled && block_.scope().cancelled_from_outside()) {
      throw CancelledError(block_.scope().outside_reason());
    }
    return value_type(std::move(body_.slot));
  }

 private:
  Body<F, CancelScope> body_;
  CancelScope block_;
  Awaiting awaiting_;
  ReasonRef refused_;
  bool entered_ = false;
};

}  // namespace detail

/// Runs the task in a scope that the token cancels too. If the token is cancelled already, the task
/// is not started.
template <detail::Awaitable A>
auto with_token(CancellationToken token, A&& task) {
  return detail::WithToken<detail::callee_t<A>>(std::move(token),
                                                detail::make_callee(std::forward<A>(task)));
}

/// Runs the task where cancellation from outside, deadlines included, is not seen; its own scopes
/// work as ever. Afterwards a cancellation that came meanwhile is seen at the next cancellation
/// point.
template <detail::Awaitable A>
auto uncancellable(A&& task) {
  return detail::Uncancellable<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)));
}

/// As asyncio.shield: cancelling the waiter ends the wait at once, while the task goes on as a root
/// task of the executor. If nobody waits any more when it fails, its error goes to
/// on_unobserved_error. A handle given to it is just waited for.
template <detail::Awaitable A>
auto shield(A&& task) {
  if constexpr (detail::IsOperationSource<A>) {
    return std::forward<A>(task).operation();
  } else {
    auto owned = detail::as_task(std::forward<A>(task));
    return detail::Shield<typename decltype(owned)::value_type>(std::move(owned));
  }
}

/// Runs the task, then `cleanup() -> Task<void>`, whatever the outcome, where no cancellation from
/// outside is seen; then the task's outcome goes on. A value that the cleanup gives is dropped; one
/// that throws replaces a value or a cancellation; if both failed: ExceptionGroup of the two. A
/// cleanup whose frame gets no memory has thrown std::bad_alloc.
template <detail::Awaitable A, class F>
requires detail::InvocableOnce<F> && detail::Awaitable<detail::once_result_t<F>>
auto finally(A&& task, F&& cleanup) {
  auto owned = detail::as_task(std::forward<A>(task));
  return detail::Finally<typename decltype(owned)::value_type, F>(std::move(owned),
                                                                  std::forward<F>(cleanup));
}

/// Runs body(CancelScope&) -> Task<T>; gives Result<T>. scope.cancel() ends just this block
/// (is_cancelled()); the block's errors are in the result. Cancellation of the outer scope is
/// thrown, also when both are cancelled. After the body has returned, its value wins over a
/// cancel().
template <class F>
requires detail::BodyOf<F, CancelScope>
auto cancel_scope(F&& body) {
  return detail::CancelScopeBlock<F>(std::forward<F>(body));
}

}  // namespace magpie
