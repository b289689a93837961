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
// error code is a value then, and the cancellation is seen at the next cancellation point. Two
// kinds cannot be told, and so are waited for: those of an initiating function that knows no
// executor, and was given none, which start on the worker; and those whose token has a cancellation
// slot of its own.
//
// The io_context must outlive the tasks that use it, and run until they have ended: one that is
// stopped keeps them waiting, cancelled or not.
//
// Not in <magpie/magpie.h>, as it includes Asio (standalone, 1.22 or later): link magpie::asio.

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/execution/executor.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/experimental/channel_error.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/system_error.hpp>
#include <asio/system_executor.hpp>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/foreign.h>
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
/// Of T... nothing gives Task<void>, one Task<T>, several Task<std::tuple<T...>>. An operation
/// whose handler is dropped, by an io_context that ends say: asio::system_error of
/// operation_aborted. One that throws while it starts throws that.
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

/// Who asked Asio for a task: is told once how it has ended, on the executor of the handler.
template <class T, class Handler>
class AsioAsker {
 public:
  explicit AsioAsker(Handler&& handler) : asked_(std::make_shared<Asked>(std::move(handler))) {}
  AsioAsker(AsioAsker&&) noexcept = default;
  AsioAsker& operator=(AsioAsker&&) = delete;
  /// The task has not begun. The caller may be the initiating function, in which no handler runs.
  ~AsioAsker() {
    if (!asked_) return;
    asked_->error = aborted("the task was cancelled or refused before it began");
    try {
      tell([](const auto& executor, auto call) { asio::post(executor, std::move(call)); });
    } catch (...) {
      report_unobserved(nullptr, "async_spawn", std::current_exception());
    }
  }

  void operator()(Result<T> result) {
    if (result.is_cancelled()) {
      asked_->error = aborted("the task was cancelled");
    } else if (!result.has_value()) {
      asked_->error = result.error();
    } else if constexpr (!std::is_void_v<T>) {
      try {
        asked_->value.emplace(std::move(result).value());
      } catch (...) {
        asked_->error = std::current_exception();
      }
    }
    tell([](const auto& executor, auto call) { asio::dispatch(executor, std::move(call)); });
  }

 private:
  using Work = asio::executor_work_guard<typename asio::associated_executor<Handler>::type>;
  using Kept = std::optional<std::conditional_t<std::is_void_v<T>, std::monostate, T>>;

  struct Asked {
    explicit Asked(Handler&& asking)
        : handler(std::move(asking)), work(asio::make_work_guard(handler)) {}
    // Leaves nothing that is the handler's, or its executor's, to whoever has told it.
    void call() {
      called = true;
      const Work working = std::move(work);
      Handler asking = std::move(handler);
      if constexpr (std::is_void_v<T>) {
        std::move(asking)(std::move(error));
      } else {
        Kept kept = std::move(value);
        std::move(asking)(std::move(error), kept ? T(*std::move(kept)) : T());
      }
    }

    Handler handler;
    Work work;
    std::exception_ptr error;
    Kept value;
    bool called = false;
  };

  static std::exception_ptr aborted(const char* why) noexcept {
    return std::make_exception_ptr(asio::system_error(asio::error::operation_aborted, why));
  }

  template <class Submit>
  void tell(Submit submit) {
    const std::shared_ptr<Asked> asked = std::move(asked_);
    const auto executor = asked->work.get_executor();
    for (;;) {
      try {
        submit(executor, [asked] { asked->call(); });
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
  static constexpr bool kCancelledAnywhere = true;  // its slot cancels a source

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
    } catch (...) {
      // Refused, or without memory: it has not begun, and he has been told.
    }
  }

  Executor& executor;
};

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
/// T for Task<void>. The handler runs on its own executor, for which it counts as work until then,
/// and whose io_context must outlive the task; without one, on the worker. Cancellation by the
/// handler's slot, of any type, cancels the task. A task that was cancelled gives
/// asio::system_error of operation_aborted, as Asio's own operations do; so does one that could not
/// begin, as the executor is shut down or memory is short (a handler without an executor then runs
/// on Asio's system_context). Any thread; the slot as for any operation.
template <detail::Awaitable A, class CompletionToken>
auto async_spawn(Executor& executor, A&& task, CompletionToken&& token) {
  auto owned = detail::as_task(std::forward<A>(task));
  using T = typename decltype(owned)::value_type;
  return asio::async_initiate<CompletionToken, typename detail::SpawnSignature<T>::type>(
      detail::SpawnForAsio{executor}, token, std::move(owned));
}

/// A thread that runs an io_context, for as long as this object lives. Then operations that have
/// not ended are dropped. Their tasks may still have sockets, so they must have ended before: make
/// this object first, then the executor, whose destructor waits for them. For the same reason
/// nobody else stops the io_context.
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

template <class R, class... Args>
class asio::async_result<magpie::UseTask, R(Args...)> {
  using Operation = magpie::detail::AsioOperation<std::decay_t<Args>...>;

 public:
  using return_type = magpie::Task<typename Operation::value_type>;

  template <class Initiation, class... Given>
  static return_type initiate(Initiation&& initiation, magpie::UseTask, Given&&... given) {
    auto executor = magpie::detail::asio_executor_of(initiation);
    using Start = magpie::detail::AsioStart<decltype(executor), std::decay_t<Initiation>,
                                            std::decay_t<Given>...>;
    return magpie::detail::await_asio<Operation>(Start{std::move(executor),
                                                       std::forward<Initiation>(initiation),
                                                       {std::forward<Given>(given)...}});
  }
};
