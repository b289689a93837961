// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Promise and Future: a result that somebody else gives, once, from any thread: a callback of
// another library, say.
//
//     Promise<int> promise;
//     Future<int> future = promise.future();
//     library.on_answer([p = std::move(promise)](int answer) mutable { p.set_value(answer); });
//     int a = co_await future;               // copies the value; any number of waiters
//     int b = co_await std::move(future);    // moves it out
//
// A promise is set once: to a value, or to an exception (a CancelledError counts as a cancellation,
// whose waiters get CancelledError while their own scopes stay untouched). A promise that dies
// unset sets BrokenPromiseError. Waiters go on on their own executors; set_value runs none of them.
//
// Futures are copyable; all copies name the same result, and it lives as long as one of them or the
// promise. They are awaited as JoinHandles are: awaiting is a cancellation point, also when the
// result is there; an lvalue copies the value; an rvalue moves it out, once those who waited before
// have theirs, and then the other copies and a second mover get InvalidStateError. Cancelling a
// waiter ends the wait only. Given to a combinator as an lvalue, a future is awaited as an lvalue.
// An error that nobody asks for is dropped.
//
// Threads: distinct objects from any thread; setting from any thread, also with other calls running
// on the same promise; a promise may be destroyed as soon as its result is seen. Both may outlive
// every executor. wait() blocks a thread that is not a worker; with a ManualClock, virtual time
// goes on meanwhile.

#include <atomic>
#include <concepts>
#include <cstddef>
#include <exception>
#include <new>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/outcome.h>
#include <magpie/errors.h>
#include <magpie/result.h>
#include <magpie/task.h>

namespace magpie {

template <class T = void>
class Future;

namespace detail {

class MAGPIE_EXPORT PromiseCore : public OutcomeCore {
 public:
  static constexpr const char* kWhat = "a future";

  /// True for the one who may set it; he then fills the slot and calls settle(), or gives the right
  /// back.
  bool claim() noexcept { return !claimed_.exchange(true, std::memory_order_acq_rel); }
  void give_back_claim() noexcept {
    claimed_.store(false, std::memory_order_release);
  }  // pairs with claim()
  void settle(SlotState outcome) noexcept { publish(outcome); }

  void block_until_done() override;
  void refuse_self(const Scope&) const noexcept {}

 protected:
  PromiseCore() noexcept = default;
  ~PromiseCore() override = default;

 private:
  std::atomic<bool> claimed_{false};
};

template <class T>
class FutureState final : public OutcomeState<T, PromiseCore>, public FrameAllocated {
 public:
  FutureState() noexcept = default;
};

/// What a promise of a T can be set with.
template <class T, class... A>
inline constexpr bool kSetsPromise = std::is_constructible_v<T, A&&...>;
template <class T, class... A>
inline constexpr bool kSetsPromise<T&, A...> = false;
template <class T, class U>
inline constexpr bool kSetsPromise<T&, U> = std::is_convertible_v<U&&, T&>;
template <class... A>
inline constexpr bool kSetsPromise<void, A...> = sizeof...(A) == 0;
template <class T, class... A>
concept SetsPromise = kSetsPromise<T, A...>;

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_promise_set_twice();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_empty_promise();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_null_exception();
MAGPIE_EXPORT MAGPIE_COLD std::exception_ptr make_broken_promise() noexcept;
/// The reason if the exception is a CancelledError, else null.
MAGPIE_EXPORT ReasonRef reason_in(const std::exception_ptr& error) noexcept;

}  // namespace detail

/// The setting side. Movable; one that was moved from can be assigned to and destroyed, everything
/// else is InvalidStateError.
template <class T = void>
class Promise {
 public:
  using value_type = T;

  Promise() : state_(new detail::FutureState<T>()) {}
  Promise(Promise&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  /// The promise that was here is broken, if it was not set.
  Promise& operator=(Promise&& other) noexcept {
    if (this != &other) {
      let_go();
      state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
  }
  ~Promise() { let_go(); }

  /// A future of this promise; any number of times.
  [[nodiscard]] Future<T> future() const {
    return Future<T>(detail::OutcomeHandle<detail::FutureState<T>>(&state()));
  }

  /// Sets the value, constructed from the argument. InvalidStateError if it is set already. If the
  /// construction throws, the promise is as it was.
  template <class U = T>
  requires detail::SetsPromise<T, U>
  void set_value(U&& value) {
    give(std::forward<U>(value));
  }
  /// The same from no argument or several; for Promise<void> without.
  template <class... A>
  requires(sizeof...(A) != 1 && detail::SetsPromise<T, A...>)
  void set_value(A&&... arguments) {
    give(std::forward<A>(arguments)...);
  }

  /// Sets the failure. InvalidStateError if it is set already; std::invalid_argument for a null
  /// pointer.
  void set_exception(std::exception_ptr error) {
    if (!error) detail::throw_null_exception();
    auto& s = state();
    if (!s.claim()) detail::throw_promise_set_twice();
    settle(s, [&](detail::Slot<T>& slot) noexcept {
      if (detail::ReasonRef reason = detail::reason_in(error)) {
        slot.set_cancelled(std::move(reason));
      } else {
        slot.set_error(std::move(error));
      }
    });
  }

 private:
  detail::FutureState<T>& state() const {
    if (state_ == nullptr) [[unlikely]]
      detail::throw_empty_promise();
    return *state_;
  }

  template <class... A>
  void give(A&&... arguments) {
    auto& s = state();
    if (!s.claim()) detail::throw_promise_set_twice();
    settle(s, [&](detail::Slot<T>& slot) {
      try {
        slot.emplace(std::forward<A>(arguments)...);
      } catch (...) {
        s.give_back_claim();
        throw;
      }
    });
  }

  // Whoever sees the result may destroy this promise: from then on only the state is touched, which
  // is held.
  template <class Fill>
  static void settle(detail::FutureState<T>& s, Fill&& fill) {
    std::forward<Fill>(fill)(s.slot());
    s.add_ref();
    s.settle(s.slot().state());
    s.release();
  }

  void let_go() noexcept {
    if (state_ == nullptr) return;
    if (state_->claim()) {
      state_->slot().set_error(detail::make_broken_promise());
      state_->settle(detail::SlotState::error);
    }
    std::exchange(state_, nullptr)->release();
  }

  detail::FutureState<T>* state_;
};

/// The waiting side; see the head of the file.
template <class T>
class Future : public detail::OperationSource {
 public:
  using value_type = T;

  /// Empty: every use is InvalidStateError.
  Future() = default;

  /// Waits and copies the value; it must be copyable.
  auto operator co_await() const& { return operation(); }
  /// Waits and moves the value out, after those who waited before have theirs. Afterwards other
  /// copies get InvalidStateError.
  auto operator co_await() && { return std::move(*this).operation(); }

  /// Whether the promise was set. If so, everything that was written before is visible.
  [[nodiscard]] bool done() const { return handle_.require().done(); }
  /// The result; InvalidStateError while there is none, or after it was moved out. The reference
  /// lives as long as a copy of the future, and must not be used concurrently with an rvalue await.
  const Result<T>& result() const {
    auto& s = handle_.require();
    if (!s.done()) detail::throw_not_done();
    return s.shown();
  }
  /// Blocks the calling thread until the promise is set; std::logic_error on a thread that runs
  /// tasks, also when it is.
  const Result<T>& wait() const {
    auto& s = handle_.require();
    s.block_until_done();
    return s.shown();
  }

  friend bool operator==(const Future& a, const Future& b) noexcept {
    return a.handle_.get() == b.handle_.get();
  }

  /// For the library.
  explicit Future(detail::OutcomeHandle<detail::FutureState<T>> handle) noexcept
      : handle_(std::move(handle)) {}
  detail::OutcomeWait<detail::FutureState<T>, false> operation() const& {
    static_assert(
        std::is_void_v<T> || std::is_reference_v<T> || std::is_copy_constructible_v<T>,
        "this future's value cannot be copied: move it out with `co_await std::move(future)`");
    return detail::OutcomeWait<detail::FutureState<T>, false>(handle_);
  }
  detail::OutcomeWait<detail::FutureState<T>, true> operation() && {
    return detail::OutcomeWait<detail::FutureState<T>, true>(std::move(handle_));
  }

 private:
  friend struct std::hash<Future>;

  detail::OutcomeHandle<detail::FutureState<T>> handle_;
};

}  // namespace magpie

/// Futures of the same promise have the same: they can be keys of unordered containers.
template <class T>
struct std::hash<magpie::Future<T>> {
  std::size_t operator()(const magpie::Future<T>& future) const noexcept {
    return std::hash<const void*>()(future.handle_.get());
  }
};
