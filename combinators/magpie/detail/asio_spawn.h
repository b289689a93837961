// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task as an operation of Asio (combinators/DESIGN.md, "Asio").

#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>

#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <asio/system_error.hpp>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/unobserved.h>
#include <magpie/executor.h>
#include <magpie/task.h>

namespace magpie::detail {

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
      if (called.exchange(true, std::memory_order_relaxed)) return;
      const Work working = std::move(work);
      Handler asking = std::move(handler);
      if constexpr (std::is_void_v<T>) {
        std::move(asking)(std::move(error));
      } else {
        Kept kept = std::move(value);
        if (kept) {
          std::move(asking)(std::move(error), *std::move(kept));
        } else {
          std::move(asking)(std::move(error), T());
        }
      }
    }

    Handler handler;
    Work work;
    std::exception_ptr error;
    Kept value;
    // It may be queued twice, where an executor throws behind having queued it. All that it tells
    // was there before: the executor orders that.
    std::atomic<bool> called = false;
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
        if (asked->called.load(std::memory_order_relaxed)) throw;
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

}  // namespace magpie::detail
