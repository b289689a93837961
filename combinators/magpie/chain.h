// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// chain: a task and what is done with its result, one step after the other.
//
//     Report report = co_await chain(fetch(id), parse, [&](Page page) -> Task<Report> { ... });
//
// Each step is called with the value of the one before (with nothing after a task without a value),
// and gives a task, or any other awaitable, which is awaited, or just a value. The chain gives what
// the last step gives. The value is passed as an rvalue: a step takes it by value, by reference, or
// as a reference to const; it lives until the step's task has ended, so references are safe in a
// coroutine's parameters. A pointer to a member is a step, too: `chain(fetch(id), &Page::title)`;
// the member of an object that the chain owns, or of what that object points to, is given as a
// copy.
//
// It stands for the same awaits written one below the other. The first failure or cancellation ends
// it; later steps are not called. On entry it is a cancellation point: in a cancelled scope nothing
// is started. Between steps it is not one: as after a plain await, the next step runs up to its own
// first cancellation point, so a value that is there in spite of a cancellation is not lost in the
// joints.
//
// No frame of its own: it lies in the awaiting coroutine. Steps are moved in (or referenced, if
// lvalues) and live until the chain has ended. Starts when awaited; resumes where it was awaited; a
// step begins on the executor where the one before it has ended.

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/callee.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/task_core.h>
#include <magpie/errors.h>

namespace magpie {

namespace detail {

/// Whether a step can be called with the value of the one before.
template <class F, class T>
inline constexpr bool kTakesStep = InvocableOnce<F, T>;
template <class F, class T>
requires std::is_void_v<T>
inline constexpr bool kTakesStep<F, T> = InvocableOnce<F>;

/// What the call gives.
template <class F, class T>
struct StepCall {
  static_assert(kTakesStep<F, T>,
                "chain: a step is called with the value of the one before it, as an rvalue; with "
                "nothing after a step without a value");
  using type = once_result_t<F, T>;
};
template <class F, class T>
requires std::is_void_v<T>
struct StepCall<F, T> {
  static_assert(kTakesStep<F, T>,
                "chain: after a step without a value the next one is called without arguments");
  using type = once_result_t<F>;
};

/// Whether the step takes a data member of a value T that the chain owns. The reference that it
/// gives may lead behind a smart pointer: it is an lvalue, and dies with T all the same.
template <class F, class T>
inline constexpr bool kTakesMemberOfOwn = std::is_member_object_pointer_v<std::remove_cvref_t<F>> &&
                                          std::is_class_v<std::unwrap_reference_t<T>>;

/// What the step gives once it has been awaited. A reference to a part of the value of the step
/// before would not outlive that: the object.
template <class F, class T, class R = typename StepCall<F, T>::type>
struct StepValue {
  using type = std::conditional_t<std::is_rvalue_reference_v<R> || kTakesMemberOfOwn<F, T>,
                                  std::remove_cvref_t<R>, R>;
};
template <class F, class T, Awaitable R>
struct StepValue<F, T, R> {
  using type = awaited_t<R>;
};

template <class... T>
struct TypeList {
  using Slots = std::tuple<Slot<T>...>;
  template <std::size_t I>
  using At = std::tuple_element_t<I, std::tuple<std::type_identity<T>...>>::type;
};
/// The values along the chain, those before T and that of the first task included.
template <class List, class T, class... F>
struct ChainValues;
template <class... Before, class T>
struct ChainValues<TypeList<Before...>, T> {
  using type = TypeList<Before..., T>;
};
template <class... Before, class T, class F, class... Rest>
struct ChainValues<TypeList<Before...>, T, F, Rest...> {
  using type =
      typename ChainValues<TypeList<Before..., T>, typename StepValue<F, T>::type, Rest...>::type;
};

template <class T, class... F>  // F: lvalue references for steps that were given as lvalues
class [[nodiscard("co_await it")]] Chain : public CombinatorBase, private EndSink {
  static constexpr std::size_t kSteps = sizeof...(F);
  using Values = typename ChainValues<TypeList<>, T, F...>::type;

 public:
  using value_type = typename Values::template At<kSteps>;

  explicit Chain(Task<T>&& task, F&&... steps)
      : first_(std::move(task).take_frame()), steps_(std::forward<F>(steps)...) {}
  Chain(Chain&& other) : first_(std::move(other.first_)), steps_(std::move(other.steps_)) {}

  bool await_ready() const {
    first_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    scope_ = awaiting.promise().scope;
    if (scope_->cancelled()) [[unlikely]] {
      refused_ = true;
      first_ = TaskFrame<T>();
      return detail::transfer(awaiting);
    }
    awaiting_.begin(awaiting, *scope_);
    this->ended = step_ended<0>;
    this->waits_at = current_executor();
    return detail::transfer(
        first_.bind(*scope_, Continuation::to(static_cast<EndSink*>(this)), std::get<0>(slots_)));
  }
  value_type await_resume() {
    if (refused_) [[unlikely]]
      throw CancelledError(scope_->reason());
    if (reached_ != kSteps) [[unlikely]]
      throw_failure(std::make_index_sequence<kSteps>());
    return std::get<kSteps>(slots_).take();
  }

 private:
  template <std::size_t I>
  static std::coroutine_handle<> step_ended(EndSink* sink, SlotState) noexcept {
    return static_cast<Chain*>(sink)->template go_on_after<I>();
  }

  // Slot I holds an outcome, and whatever it came from has ended.
  template <std::size_t I>
  std::coroutine_handle<> go_on_after() noexcept {
    reached_ = I;
    if constexpr (I > 0) std::get<I - 1>(slots_).reset();
    if constexpr (I == kSteps) {
      return awaiting_.go_on();
    } else {
      if (!std::get<I>(slots_).has_value()) [[unlikely]]
        return awaiting_.go_on();
      auto& result = std::get<I + 1>(slots_);
      try {
        using R = decltype(call<I>());
        if constexpr (Awaitable<R>) {
          auto frame = detail::as_task(call<I>()).take_frame();
          frame.require();
          this->ended = step_ended<I + 1>;
          return detail::transfer(
              frame.bind(*scope_, Continuation::to(static_cast<EndSink*>(this)), result));
        } else if constexpr (std::is_void_v<R>) {
          call<I>();
          result.emplace();
        } else {
          result.emplace(call<I>());
        }
      } catch (...) {
        result.capture_current_exception();
      }
      return go_on_after<I + 1>();
    }
  }

  template <std::size_t I>
  decltype(auto) call() {
    using Value = typename Values::template At<I>;
    using Step = std::tuple_element_t<I, std::tuple<F...>>;
    if constexpr (std::is_void_v<Value>) {
      return std::invoke(static_cast<once_t<Step>>(std::get<I>(steps_)));
    } else {
      return std::invoke(static_cast<once_t<Step, Value>>(std::get<I>(steps_)),
                         static_cast<Value&&>(std::get<I>(slots_).value()));
    }
  }

  template <std::size_t... I>
  MAGPIE_COLD void throw_failure(std::index_sequence<I...>) const {
    ((I == reached_ ? std::get<I>(slots_).require_value() : void()), ...);
  }

  TaskFrame<T> first_;
  std::tuple<F...> steps_;
  typename Values::Slots slots_;
  Scope* scope_ = nullptr;
  std::size_t reached_ = 0;  // the last slot with an outcome
  bool refused_ = false;
  Awaiting awaiting_;
};

}  // namespace detail

/// Feeds each result to the next step; see the head of the file.
template <detail::Awaitable A, class... F>
auto chain(A&& task, F&&... steps) {
  return detail::Chain<detail::awaited_t<A>, F...>(detail::as_task(std::forward<A>(task)),
                                                   std::forward<F>(steps)...);
}

}  // namespace magpie
