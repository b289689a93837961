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

#include <exception>
#include <thread>
#include <type_traits>
#include <utility>

#include <asio/async_result.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

#include <magpie/detail/asio_operation.h>
#include <magpie/detail/asio_spawn.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/unobserved.h>
#include <magpie/executor.h>
#include <magpie/task.h>

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

/// A thread that runs an io_context, for as long as this object lives; it is not destroyed on that
/// thread. Then operations that have
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
