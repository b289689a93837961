// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// staggered_race and hedge: attempts that start one after the other, until one succeeds.
//
//     std::vector<TaskFactory<Socket>> ways;   // different ones: addresses of a host, say
//     Indexed<Socket> first = co_await staggered_race(std::move(ways), 250ms);
//
//     auto fetch_it = [&] { return fetch(url); };   // the same one again
//     Page page = co_await hedge(fetch_it, HedgeOptions().delay(50ms).max_attempts(3));
//
// The next attempt starts when one has failed, or when `delay` has passed since the latest start,
// whichever comes first; of nothing: at once; never(): only after failures. The first to succeed
// wins. The others are cancelled and waited for; the value of one that succeeded all the same is
// destroyed, or handed to the function given to on_discard, as for race: `co_await hedge(f,
// o).on_discard([](std::size_t attempt, Page&& page) {...})`.
//
// If none succeeds: an ExceptionGroup of the failures in the order of the attempts, also when there
// was just one attempt; CancelledError when all ended cancelled. A factory that throws is a failed
// attempt. If the caller is cancelled, the attempts are, and no more are started: a value or
// failures that are there all the same go before CancelledError.
//
// Factories are called one after the other, never two at a time, on the executor where it was
// awaited; each just when its attempt starts. They live until the last attempt has ended, so a
// capturing lambda that returns a task is safe. hedge's is moved in, or referenced if an lvalue. No
// factories, or max_attempts(0): std::invalid_argument. Cancellation point on entry. Starts when
// awaited; resumes where it was awaited; time is the executor's.
//
// After "happy eyeballs" (RFC 8305) and hedged requests (Dean and Barroso, "The tail at scale",
// 2013).

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/attempts.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/task_core.h>
#include <magpie/errors.h>
#include <magpie/race.h>

namespace magpie {

/// Makes a task each time it is called.
template <class T>
using TaskFactory = std::function<Task<T>()>;

/// When hedge starts the same thing again.
class HedgeOptions {
 public:
  HedgeOptions() noexcept {}
  /// After how long without a result the next attempt starts, counted from the latest start. 100 ms
  /// unless set.
  HedgeOptions& delay(Duration delay) noexcept {
    delay_ = delay;
    return *this;
  }
  /// How many attempts there are at most, the first one included. 2 unless set.
  HedgeOptions& max_attempts(std::size_t attempts) noexcept {
    max_attempts_ = attempts;
    return *this;
  }

  [[nodiscard]] Duration delay() const noexcept { return delay_; }
  [[nodiscard]] std::size_t max_attempts() const noexcept { return max_attempts_; }

 private:
  Duration delay_ = std::chrono::milliseconds(100);
  std::size_t max_attempts_ = 2;
};

namespace detail {

template <class T>
struct AttemptOf : Attempt {
  Slot<T> slot;
};

/// Attempts that differ.
template <class T>
struct FactoryList {
  static constexpr bool kIndexed = true;
  std::vector<TaskFactory<T>> factories;

  std::size_t size() const noexcept { return factories.size(); }
  Task<T> operator()(std::size_t number) { return factories[number](); }
};

/// The same attempt again.
template <class F>  // F may be an lvalue reference
struct RepeatedFactory {
  static constexpr bool kIndexed = false;
  F factory;
  std::size_t attempts;

  std::size_t size() const noexcept { return attempts; }
  auto operator()(std::size_t) { return detail::as_task(std::invoke(factory)); }
};

template <class Source, class Discard>
class [[nodiscard("co_await it")]] Attempts final : public CombinatorBase, private AttemptsJoin {
  using T = typename std::invoke_result_t<Source&, std::size_t>::value_type;

 public:
  using value_type = std::conditional_t<Source::kIndexed, Indexed<T>, T>;

  Attempts(Source&& source, Duration delay, Discard&& discard)
      : AttemptsJoin(delay.count()),
        source_(std::move(source)),
        delay_(delay),
        discard_(std::forward<Discard>(discard)) {}
  Attempts(Attempts&& other)
      : AttemptsJoin(other.delay_.count()),
        source_(std::move(other.source_)),
        delay_(other.delay_),
        discard_(std::forward<Discard>(other.discard_)),
        spent_(std::exchange(other.spent_, true)) {}
  ~Attempts() {
    for (Attempt* attempt = first_.after; attempt != nullptr;) {
      Attempt* const after = attempt->after;
      delete static_cast<AttemptOf<T>*>(attempt);
      attempt = after;
    }
  }

  bool await_ready() const {
    if (spent_) [[unlikely]]
      throw_awaited_twice();
    if (source_.size() == 0) {
      if constexpr (Source::kIndexed) throw_empty_race("staggered_race()");
      throw_no_attempts();
    }
    return false;
  }

  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    spent_ = true;
    if (outer.cancelled()) [[unlikely]] {
      refused_ = &outer;
      return detail::transfer(awaiting);
    }
    return this->start(awaiting, outer, source_.size(), first_);
  }

  value_type await_resume() {
    if (refused_ != nullptr) [[unlikely]]
      throw CancelledError(refused_->reason());
    this->conclude();
    if constexpr (!std::same_as<Discard, NoDiscard>) hand_on_losers();
    auto* const won = static_cast<AttemptOf<T>*>(this->winner());
    if (won == nullptr) fail();
    if constexpr (!Source::kIndexed) {
      return won->slot.take();
    } else if constexpr (std::is_void_v<T>) {
      return value_type{won->index};
    } else {
      return value_type{won->index, won->slot.take()};
    }
  }

  /// What happens to the value of an attempt that succeeded and lost: fn(attempt, T&&); fn(attempt)
  /// where T is void.
  template <class F>
  auto on_discard(F&& fn) && {
    static_assert(kTakesDiscarded<F, T>,
                  "on_discard takes a function fn(attempt, T&&), T being what the attempts give; "
                  "fn(attempt) where it is void");
    if (std::exchange(spent_, true)) [[unlikely]]
      throw_awaited_twice();
    return Attempts<Source, F>(std::move(source_), delay_, std::forward<F>(fn));
  }

 private:
  std::coroutine_handle<> call(Attempt& attempt) override {
    auto frame = source_(attempt.index).take_frame();
    frame.require();
    return frame.bind(this->scope, sink_of(attempt), static_cast<AttemptOf<T>&>(attempt).slot);
  }
  SlotState capture(Attempt& attempt) noexcept override {
    Slot<T>& slot = static_cast<AttemptOf<T>&>(attempt).slot;
    slot.capture_current_exception();
    return slot.state();
  }
  Attempt* new_attempt() override { return new AttemptOf<T>(); }

  void hand_on_losers() {
    std::exception_ptr refusal;  // a call that throws keeps no other value from being handed on
    for (Attempt* attempt = &first_; attempt != nullptr; attempt = attempt->after) {
      Slot<T>& slot = static_cast<AttemptOf<T>*>(attempt)->slot;
      if (slot.state() != SlotState::value || attempt == this->winner()) continue;
      const std::size_t number = attempt->index;
      try {
        if constexpr (std::is_void_v<T>) {
          std::invoke(discard_, number);
        } else {
          std::invoke(discard_, number, static_cast<T&&>(slot.value()));
        }
      } catch (...) {
        if (!refusal) refusal = std::current_exception();
      }
    }
    if (refusal) [[unlikely]]
      std::rethrow_exception(std::move(refusal));
  }

  [[noreturn]] MAGPIE_COLD void fail() {
    std::vector<std::exception_ptr> errors;
    ReasonRef childs;
    for (Attempt* attempt = &first_; attempt != nullptr; attempt = attempt->after) {
      const Slot<T>& slot = static_cast<AttemptOf<T>*>(attempt)->slot;
      if (slot.state() == SlotState::error) errors.push_back(slot.error());
      if (slot.state() == SlotState::cancelled && !childs) childs = slot.reason();
    }
    this->throw_nobody_won(std::move(errors), childs);
  }

  Source source_;
  Duration delay_;
  Discard discard_;
  AttemptOf<T> first_;
  Scope* refused_ = nullptr;
  bool spent_ = false;  // started, refused, or moved from
};

}  // namespace detail

/// The first of the factories' tasks to succeed, started one after the other; see the head of the
/// file.
template <class T>
auto staggered_race(std::vector<TaskFactory<T>> factories, Duration delay) {
  return detail::Attempts<detail::FactoryList<T>, detail::NoDiscard>({std::move(factories)}, delay,
                                                                     detail::NoDiscard());
}

/// The value of the first attempt to succeed, all of them made by factory() -> Task<T>; see the
/// head of the file.
template <class F>
requires(std::invocable<std::remove_reference_t<F>&> &&
         detail::Awaitable<std::invoke_result_t<std::remove_reference_t<F>&>>)
auto hedge(F&& factory, HedgeOptions options = HedgeOptions()) {
  return detail::Attempts<detail::RepeatedFactory<F>, detail::NoDiscard>(
      {std::forward<F>(factory), options.max_attempts()}, options.delay(), detail::NoDiscard());
}

}  // namespace magpie
