// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bridge to Asio: its operations as awaitables, and tasks as its operations.
//
//     IoThread io;
//     WorkStealingExecutor workers;
//     asio::ip::tcp::socket socket(io.context());
//     ...
//     std::size_t n = co_await socket.async_read_some(buffer, use_task);           // within a task
//     n = co_await timeout(socket.async_read_some(buffer, use_task), 5s);
//
//     async_spawn(workers, digest(std::move(message)), asio::use_awaitable)        // within Asio
//
// An operation starts when it is awaited, on its I/O object's executor, and ends there; the task
// goes on where it was. So that executor must be serial: an io_context that one thread runs, such
// as an IoThread's, or a strand. `bind_executor(serial, use_task)` names another.
//
// Cancellation: an operation that its task's scope cancels is told so on that executor, by Asio's
// per-operation cancellation (every type at once), and is waited for: when CancelledError is
// thrown, nothing reads or writes its buffers any more. One that has succeeded all the same gives
// its value. What an operation had done before it was aborted is told by `as_tuple(use_task)`: its
// error code is a value then, and the cancellation is seen at the next cancellation point. An
// operation of an initiating function that knows no executor, and was given none, starts on the
// worker; it cannot be told, and so is waited for.
//
// Not in <magpie/magpie.h>, as it includes Asio (standalone, 1.22 or later): link magpie::asio.

#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/system_error.hpp>
#include <asio/system_executor.hpp>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/join.h>
#include <magpie/detail/unobserved.h>
#include <magpie/errors.h>
#include <magpie/executor.h>
#include <magpie/promise.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace magpie {

/// The type of `use_task`.
struct UseTask {
  /// Its default token on I/O objects: `UseTask::as_default_on_t<asio::ip::tcp::socket>` is a
  /// socket whose operations are awaitables without being told.
  template <class Inner>
  struct executor_with_default : Inner {
    using default_completion_token_type = UseTask;
    template <class Other>
    requires(!std::is_same_v<Other, executor_with_default> && std::is_convertible_v<Other, Inner>)
    executor_with_default(const Other& executor) noexcept : Inner(executor) {}
  };
  template <class T>
  using as_default_on_t =
      typename T::template rebind_executor<executor_with_default<typename T::executor_type>>::other;
  template <class T>
  static auto as_default_on(T&& object) {
    return as_default_on_t<std::decay_t<T>>(std::forward<T>(object));
  }
};

/// Asio's completion token: makes the operation a Task, which starts when it is awaited.
///
///   void(error_code, T...), void(exception_ptr, T...)  throws the error, asio::system_error
///   void(T...)
///
/// Of T... nothing gives Task<void>, one Task<T>, several Task<std::tuple<T...>>. If the io_context
/// is destroyed under the operation: asio::system_error of operation_aborted. An operation that
/// throws while it starts throws that.
inline constexpr UseTask use_task{};

namespace detail {

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
  return error == asio::error::operation_aborted;
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
  class Handler {
   public:
    using executor_type = typename Start::Executor;
    using cancellation_slot_type = asio::cancellation_slot;

    Handler(Parts part, const Start& start) noexcept
        : part_(std::move(part)), executor_(start.executor) {
      if constexpr (Start::kCancellable) slot_ = part_->signal_.slot();
    }
    executor_type get_executor() const noexcept { return executor_; }
    cancellation_slot_type get_cancellation_slot() const noexcept { return slot_; }

    void operator()(Args... arguments) {
      part_->complete(std::move(arguments)...);
      part_.end();
    }

   private:
    Parts part_;
    asio::cancellation_slot slot_;
    executor_type executor_;
  };

  Future<> ended() const { return ended_.future(); }

  // On the operation's executor, as everything that the handler and the signal do.

  template <class Start>
  static void start(Parts parts, Start& start) noexcept {
    try {
      start(Handler<Start>(parts.take_one(), start));
    } catch (...) {
      parts->thrown_ = std::current_exception();
    }
  }
  void cancel() {
    if (!completed_) signal_.emit(asio::cancellation_type::all);
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
    if (thrown_) std::rethrow_exception(std::move(thrown_));
    if (!outcome_) {
      throw asio::system_error(asio::error::operation_aborted,
                               "the io_context ended before the operation");
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
    completed_ = true;
    try {
      outcome_.emplace(std::move(arguments)...);
    } catch (...) {
      thrown_ = std::current_exception();
    }
  }

  // Whoever waits may destroy the operation as soon as the promise is set.
  void have_ended(std::uint32_t parts) noexcept {
    if (parts_.deliver(parts)) ended_.set_value();
  }

  Promise<> ended_;
  asio::cancellation_signal signal_;
  BasicJoinCounter<StdEnv> parts_{2};
  bool completed_ = false;
  std::optional<std::tuple<Args...>> outcome_;
  std::exception_ptr thrown_;
};

/// The executor of what an initiating function leaves to its token; of none, Asio's
/// system_executor, which runs what it is given on the spot.
template <class Initiation>
auto asio_executor_of(const Initiation& initiation) noexcept {
  if constexpr (requires { typename Initiation::executor_type; }) {
    return initiation.get_executor();
  } else if constexpr (requires { initiation.initiation_; }) {
    // Of a token that adapts another, as as_tuple does: until 1.30 these hide the executor.
    return asio_executor_of(initiation.initiation_);
  } else {
    return asio::system_executor();
  }
}

/// Of an operation that is cancelled on any thread, whatever else happens to it.
template <class Initiation>
inline constexpr bool kCancelledAnywhere = false;

/// How an operation is started.
template <class Ex, class Initiation, class... Args>
struct AsioStart {
  using Executor = Ex;
  // Else nothing orders a cancellation with what happens to the operation.
  static constexpr bool kCancellable =
      !std::is_same_v<Executor, asio::system_executor> || kCancelledAnywhere<Initiation>;

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

/// Tells the operation that it is cancelled; the future is set when it has been told.
template <class Operation, class Executor>
Future<> cancel_asio(Operation& operation, const Executor& executor) {
  for (;;) {
    try {
      Promise<> told;
      Future<> heard = told.future();
      asio::dispatch(executor, [&operation, told = std::move(told)]() mutable {
        operation.cancel();
        told.set_value();
      });
      return heard;
    } catch (const std::bad_alloc&) {
      std::this_thread::yield();  // this has to be told: wait for memory
    }
  }
}

template <class Operation, class Start>
Task<typename Operation::value_type> await_asio(Start start) {
  co_await this_task::checkpoint();
  Operation operation;
  const Future<> ended = operation.ended();
  asio::dispatch(start.executor, [parts = typename Operation::Parts(operation), &start]() mutable {
    Operation::start(std::move(parts), start);
  });
  // It must not be left alone now: until it has ended nothing here may throw.
  Result<void> waited = co_await as_result(ended);
  if (!waited.has_value()) {
    if constexpr (Start::kCancellable) {
      const Future<> heard = cancel_asio(operation, start.executor);
      try {
        co_await uncancellable(heard);
      } catch (const BrokenPromiseError&) {
        // The io_context is destroyed, and the operation with it.
      }
    }
    co_await uncancellable(ended);
    if (operation.aborted()) std::move(waited).value();  // throws CancelledError
  }
  co_return operation.take();
}

template <class Signature>
struct AsioTask;
template <class R, class... Args>
struct AsioTask<R(Args...)> {
  using Operation = AsioOperation<std::decay_t<Args>...>;
  using return_type = Task<typename Operation::value_type>;

  template <class Ex, class Initiation, class... Given>
  static return_type make(Ex executor, Initiation&& initiation, Given&&... given) {
    using Start = AsioStart<Ex, std::decay_t<Initiation>, std::decay_t<Given>...>;
    return await_asio<Operation>(Start{std::move(executor),
                                       std::forward<Initiation>(initiation),
                                       {std::forward<Given>(given)...}});
  }
};

/// Who asked Asio for a task: is told once how it has ended, on the executor of the handler.
template <class T, class Handler>
class AsioAsker {
 public:
  explicit AsioAsker(Handler&& handler) : asked_(std::make_shared<Asked>(std::move(handler))) {}
  AsioAsker(AsioAsker&&) noexcept = default;
  AsioAsker& operator=(AsioAsker&&) = delete;
  /// The task was never begun. The caller may be the initiating function, in which no handler runs.
  ~AsioAsker() {
    if (asked_) tell([](const auto& executor, auto call) { asio::post(executor, call); });
  }

  void operator()(Result<T>&& result) {
    asked_->result.emplace(std::move(result));
    tell([](const auto& executor, auto call) { asio::dispatch(executor, call); });
  }

 private:
  struct Asked {
    explicit Asked(Handler&& asking)
        : handler(std::move(asking)), work(asio::make_work_guard(handler)) {}
    void call() {
      called = true;
      std::exception_ptr error = failure();
      if constexpr (std::is_void_v<T>) {
        std::move(handler)(std::move(error));
      } else if (error) {
        std::move(handler)(std::move(error), T());
      } else {
        std::move(handler)(std::move(error), std::move(*result).value());
      }
    }
    std::exception_ptr failure() const {
      if (result && !result->is_cancelled()) return result->error();
      return std::make_exception_ptr(
          asio::system_error(asio::error::operation_aborted, "the task was cancelled"));
    }

    Handler handler;
    asio::executor_work_guard<typename asio::associated_executor<Handler>::type> work;
    std::optional<Result<T>> result;
    bool called = false;
  };

  template <class Submit>
  void tell(Submit submit) {
    const std::shared_ptr<Asked> asked = std::move(asked_);
    for (;;) {
      try {
        submit(asked->work.get_executor(), [asked] { asked->call(); });
        return;
      } catch (const std::bad_alloc&) {
        if (asked->called) throw;
        std::this_thread::yield();  // he must not be forgotten: wait for memory
      }
    }
  }

  std::shared_ptr<Asked> asked_;
};

template <class T, class Asker>
Task<> spawned_by_asio(Task<T> task, CancellationToken token, Asker asker) {
  asker(co_await as_result(with_token(std::move(token), std::move(task))));
}

struct SpawnForAsio {
  template <class Handler, class T>
  void operator()(Handler&& handler, Task<T> task) const {
    CancellationToken token;
    if (auto slot = asio::get_associated_cancellation_slot(handler); slot.is_connected()) {
      CancellationSource source;
      token = source.token();
      slot.assign([source = std::move(source)](asio::cancellation_type) mutable {
        source.cancel("by Asio's signal");
      });
    }
    AsioAsker<T, std::decay_t<Handler>> asker(std::forward<Handler>(handler));
    try {
      executor.spawn(spawned_by_asio(std::move(task), std::move(token), std::move(asker)),
                     SpawnOptions("async_spawn"));
    } catch (const ExecutorShutdownError&) {
      // Never begun: he has been told.
    }
  }

  Executor& executor;
};

template <>
inline constexpr bool kCancelledAnywhere<SpawnForAsio> = true;

template <class T>
struct SpawnSignature {
  static_assert(std::is_default_constructible_v<T> && !std::is_reference_v<T>,
                "async_spawn() has to give a value also beside an error: return a std::optional "
                "or a pointer");
  using type = void(std::exception_ptr, T);
};
template <>
struct SpawnSignature<void> {
  using type = void(std::exception_ptr);
};

}  // namespace detail

/// Spawns the task on the executor, as an operation of Asio: `void(std::exception_ptr, T)`, without
/// T for Task<void>. The handler runs on its own executor, for which it counts as work until then;
/// without one, on the worker. Cancellation by the handler's slot, of any type, cancels the task. A
/// task that was cancelled, or refused since the executor is shut down, gives asio::system_error of
/// operation_aborted, as Asio's own operations do. Any thread; the slot as for any operation.
template <class T, class CompletionToken>
auto async_spawn(Executor& executor, Task<T> task, CompletionToken&& token) {
  return asio::async_initiate<CompletionToken, typename detail::SpawnSignature<T>::type>(
      detail::SpawnForAsio{executor}, token, std::move(task));
}

/// A thread that runs an io_context, for as long as this object lives. Then operations that have
/// not ended are dropped. Their tasks may still have sockets, so they must have ended before: make
/// this object first, then the executor, whose destructor waits for them.
class IoThread {
 public:
  /// What handlers throw that belong to no awaited operation goes to `on_unobserved_error`, on this
  /// thread, as an executor's; empty: one line on stderr.
  explicit IoThread(detail::UnobservedHandler on_unobserved_error = {})
      : on_unobserved_error_(std::move(on_unobserved_error)), thread_([this] { run(); }) {}
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  ~IoThread() {
    context_.stop();
    thread_.join();
  }

  using executor_type = asio::io_context::executor_type;
  executor_type get_executor() noexcept { return context_.get_executor(); }
  [[nodiscard]] asio::io_context& context() noexcept { return context_; }

 private:
  void run() noexcept {
    while (!context_.stopped()) {
      try {
        context_.run();
      } catch (...) {
        detail::report_unobserved(on_unobserved_error_ ? &on_unobserved_error_ : nullptr,
                                  "a handler of an IoThread", std::current_exception());
      }
    }
  }

  detail::UnobservedHandler on_unobserved_error_;
  asio::io_context context_{1};
  asio::executor_work_guard<executor_type> work_{context_.get_executor()};
  std::thread thread_;
};

}  // namespace magpie

template <class Signature>
struct asio::async_result<magpie::UseTask, Signature> {
  using return_type = typename magpie::detail::AsioTask<Signature>::return_type;

  template <class Initiation, class... Given>
  static return_type initiate(Initiation&& initiation, magpie::UseTask, Given&&... given) {
    auto executor = magpie::detail::asio_executor_of(initiation);
    return magpie::detail::AsioTask<Signature>::make(
        std::move(executor), std::forward<Initiation>(initiation), std::forward<Given>(given)...);
  }
};
template <class Executor, class Signature>
struct asio::async_result<asio::executor_binder<magpie::UseTask, Executor>, Signature> {
  using return_type = typename magpie::detail::AsioTask<Signature>::return_type;

  template <class Initiation, class Token, class... Given>
  static return_type initiate(Initiation&& initiation, const Token& token, Given&&... given) {
    return magpie::detail::AsioTask<Signature>::make(
        token.get_executor(), std::forward<Initiation>(initiation), std::forward<Given>(given)...);
  }
};
