// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One operation of Asio under way, and the coroutine that awaits it (combinators/DESIGN.md,
// "Asio").

#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

#include <asio/cancellation_signal.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/execution/executor.hpp>
#include <asio/experimental/channel_error.hpp>
#include <asio/system_error.hpp>
#include <asio/system_executor.hpp>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/join.h>
#include <magpie/errors.h>
#include <magpie/promise.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace magpie::detail {

/// What a completion says beside its error.
template <class... T>
struct AsioValues {
  using type = std::tuple<T...>;
};
template <class T>
struct AsioValues<T> {
  using type = T;
};
template <>
struct AsioValues<> {
  using type = void;
};
template <class... T>
struct AsioCompletion : AsioValues<T...> {};
template <class... T>
struct AsioCompletion<asio::error_code, T...> : AsioValues<T...> {};
template <class... T>
struct AsioCompletion<std::exception_ptr, T...> : AsioValues<T...> {};

inline std::exception_ptr asio_failure(asio::error_code error) {
  return error ? std::make_exception_ptr(asio::system_error(error)) : nullptr;
}
inline std::exception_ptr asio_failure(std::exception_ptr error) noexcept {
  return error;
}
inline bool is_aborted(asio::error_code error) noexcept {
  return error == asio::error::operation_aborted || error == std::errc::operation_canceled ||
         error == asio::experimental::error::channel_cancelled;
}
inline bool is_aborted(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const asio::system_error& failure) {
    return is_aborted(failure.code());
  } catch (...) {
  }
  return false;
}

/// What a handler says of its executor: nothing, where the operation has none.
template <class Executor>
struct AsioExecutorOf {
  using executor_type = Executor;
  executor_type get_executor() const noexcept { return executor; }
  Executor executor;
};
template <>
struct AsioExecutorOf<asio::system_executor> {
  explicit AsioExecutorOf(const asio::system_executor&) noexcept {}
};

/// One operation of Asio under way, in the frame of the coroutine that waits for it. It has two
/// parts: to be started, and to complete, which the handler is for. When both have ended, or were
/// dropped, so has the operation (combinators/DESIGN.md, "Asio").
template <class... Args>
class AsioOperation {
  using First = std::tuple_element_t<0, std::tuple<Args..., void>>;
  static constexpr bool kMayFail =
      std::is_same_v<First, asio::error_code> || std::is_same_v<First, std::exception_ptr>;

 public:
  using value_type = typename AsioCompletion<Args...>::type;

  AsioOperation() = default;
  AsioOperation(const AsioOperation&) = delete;
  AsioOperation& operator=(const AsioOperation&) = delete;

  /// Who holds one part, or both. Movable; ends what it holds.
  class Parts {
   public:
    explicit Parts(AsioOperation& operation) noexcept : operation_(&operation), count_(2) {}
    Parts(Parts&& other) noexcept
        : operation_(other.operation_), count_(std::exchange(other.count_, 0)) {}
    Parts& operator=(Parts&&) = delete;
    ~Parts() { end(); }
    void end() noexcept {
      if (count_ != 0) operation_->have_ended(std::exchange(count_, 0));
    }
    /// Of both.
    Parts take_one() noexcept {
      Parts one(*operation_);
      one.count_ = 1;
      count_ = 1;
      return one;
    }
    AsioOperation* operator->() const noexcept { return operation_; }

   private:
    AsioOperation* operation_;
    std::uint32_t count_;
  };

  template <class Start>
  class Handler : public AsioExecutorOf<typename Start::Executor> {
   public:
    using cancellation_slot_type = asio::cancellation_slot;

    Handler(Parts part, const Start& start) noexcept
        : AsioExecutorOf<typename Start::Executor>{start.executor}, part_(std::move(part)) {
      if constexpr (Start::kCancellable) slot_ = part_->signal_.slot();
    }
    cancellation_slot_type get_cancellation_slot() const noexcept { return slot_; }

    void operator()(Args... arguments) {
      part_->complete(std::move(arguments)...);
      part_.end();
    }

   private:
    Parts part_;
    asio::cancellation_slot slot_;
  };

  Future<> ended() const { return ended_.future(); }

  // On the operation's executor, as everything that the handler and the signal do.

  template <class Start>
  static void start(Parts parts, Start& start) noexcept {
    try {
      start(Handler<Start>(parts.take_one(), start));
    } catch (...) {
      parts->not_started_ = std::current_exception();
    }
    parts->started_ = true;
    if (parts->cancelled_) parts->cancel();
  }
  /// Takes effect as soon as it has started.
  void cancel() noexcept {
    cancelled_ = true;
    if (!started_ || completed_.load(std::memory_order_relaxed)) return;
    try {
      signal_.emit(asio::cancellation_type::all);
    } catch (...) {
      // What an operation throws at its cancellation ends neither of them.
    }
  }

  // After it has ended.

  /// Whether it says that it was cancelled.
  bool aborted() const {
    if constexpr (kMayFail) {
      return outcome_.has_value() && is_aborted(std::get<0>(*outcome_));
    } else {
      return false;
    }
  }
  value_type take() {
    if (not_started_) std::rethrow_exception(std::move(not_started_));
    if (not_kept_) std::rethrow_exception(std::move(not_kept_));
    if (!outcome_) {
      throw asio::system_error(asio::error::operation_aborted,
                               "the operation was dropped, by an io_context that ended");
    }
    if constexpr (kMayFail) {
      if (auto failure = asio_failure(std::move(std::get<0>(*outcome_))))
        std::rethrow_exception(std::move(failure));
      return std::apply([](auto&, auto&... values) { return value_of(values...); }, *outcome_);
    } else {
      return std::apply([](auto&... values) { return value_of(values...); }, *outcome_);
    }
  }

 private:
  template <class... All>
  static value_type value_of(All&... values) {
    if constexpr (!std::is_void_v<value_type>) return value_type(std::move(values)...);
  }

  void complete(Args&&... arguments) noexcept {
    completed_.store(true, std::memory_order_relaxed);
    try {
      outcome_.emplace(std::move(arguments)...);
    } catch (...) {
      not_kept_ = std::current_exception();
    }
  }

  // Whoever waits may destroy the operation as soon as the promise is set.
  void have_ended(std::uint32_t parts) noexcept {
    if (parts_.deliver(parts)) ended_.set_value();
  }

  Promise<> ended_;
  asio::cancellation_signal signal_;
  BasicJoinCounter<StdEnv> parts_{2};
  bool started_ = false;
  bool cancelled_ = false;
  // Atomic, though relaxed, for what is cancelled anywhere: a signal too many does no harm there.
  std::atomic<bool> completed_{false};
  std::optional<std::tuple<Args...>> outcome_;
  std::exception_ptr not_started_;
  std::exception_ptr not_kept_;
};

/// The executor of what an initiating function leaves to its token; of none, Asio's
/// system_executor, which runs what it is given on the spot. Asio wraps the initiation once for
/// each token that adapts another one: bind_executor's has an `ex_`; the others, such as
/// as_tuple's, hid the executor of their `initiation_` until 1.30.
template <class Initiation>
auto asio_executor_of(const Initiation& initiation) noexcept {
  if constexpr (requires {
                  requires asio::execution::is_executor<
                      std::remove_cvref_t<decltype(initiation.ex_)>>::value;
                }) {
    return initiation.ex_;
  } else if constexpr (requires { typename Initiation::executor_type; }) {
    return initiation.get_executor();
  } else if constexpr (requires { initiation.initiation_; }) {
    return asio_executor_of(initiation.initiation_);
  } else {
    return asio::system_executor();
  }
}

/// Whether it may be cancelled on any thread, whatever else happens to it there.
template <class Initiation>
constexpr bool is_cancelled_anywhere() noexcept {
  if constexpr (requires { Initiation::kCancelledAnywhere; }) {
    return true;
  } else if constexpr (requires(const Initiation& initiation) { initiation.initiation_; }) {
    return is_cancelled_anywhere<
        std::remove_cvref_t<decltype(std::declval<Initiation>().initiation_)>>();
  } else {
    return false;
  }
}

/// How an operation is started.
template <class Ex, class Initiation, class... Args>
struct AsioStart {
  using Executor = Ex;
  // Else nothing orders a cancellation with what happens to the operation.
  static constexpr bool kCancellable =
      !std::is_same_v<Executor, asio::system_executor> || is_cancelled_anywhere<Initiation>();

  template <class Handler>
  void operator()(Handler handler) {
    std::apply(
        [&](Args&... each) { std::move(initiation)(std::move(handler), std::move(each)...); },
        arguments);
  }

  Executor executor;
  Initiation initiation;
  std::tuple<Args...> arguments;
};

/// Tells the operation that it is cancelled. The future is set when it has been told; broken, if it
/// cannot be. Needs memory, and waits for it.
template <class Operation, class Executor>
Future<> cancel_asio(Operation& operation, const Executor& executor) noexcept {
  for (;;) {
    Future<> heard;
    try {
      Promise<> told;
      heard = told.future();
      asio::dispatch(executor, [&operation, told = std::move(told)]() mutable {
        operation.cancel();
        told.set_value();
      });
      return heard;
    } catch (const std::bad_alloc&) {
      // Not broken: it has been queued all the same, as a strand may do without memory.
      if (heard != Future<>() && !heard.done()) return heard;
      std::this_thread::yield();
    } catch (...) {
      return heard;
    }
  }
}

template <class Operation, class Start>
Task<typename Operation::value_type> await_asio(Start start) {
  co_await this_task::checkpoint();
  Operation operation;
  const Future<> ended = operation.ended();
  // It must not be left alone: from here on nothing may throw before it has ended.
  std::exception_ptr refused;
  try {
    asio::dispatch(start.executor,
                   [parts = typename Operation::Parts(operation), &start]() mutable {
                     Operation::start(std::move(parts), start);
                   });
  } catch (...) {
    refused = std::current_exception();
  }
  // Not done: the executor has queued it and then thrown, as a strand may without memory.
  if (refused && ended.done()) std::rethrow_exception(std::move(refused));
  Result<void> waited = co_await as_result(ended);
  if (!waited.has_value()) {
    if constexpr (Start::kCancellable) {
      const Future<> heard = cancel_asio(operation, start.executor);
      try {
        co_await uncancellable(heard);
      } catch (const BrokenPromiseError&) {
        // It was dropped unseen, or refused.
      }
    }
    co_await uncancellable(ended);
    if (operation.aborted()) std::move(waited).value();  // throws CancelledError
  }
  co_return operation.take();
}

}  // namespace magpie::detail
