// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a task in the full sense is started, and the executor's templates.

#include <concepts>
#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <magpie/cancellation_token.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/task_core.h>
#include <magpie/detail/task_record.h>
#include <magpie/join_handle.h>

namespace magpie {

/// How a task is spawned: its name, and a token that cancels it. Converts from a string:
/// spawn(task, "name").
class SpawnOptions {
 public:
  SpawnOptions() noexcept {}
  SpawnOptions(std::string name) noexcept : name_(std::move(name)) {}
  SpawnOptions(std::string_view name) : name_(name) {}
  SpawnOptions(const char* name) : name_(name) {}

  SpawnOptions& name(std::string name) {
    name_ = std::move(name);
    return *this;
  }
  SpawnOptions& token(CancellationToken token) {
    token_ = std::move(token);
    return *this;
  }

 private:
  friend class detail::TaskRecord;
  std::string name_;
  CancellationToken token_;
};

namespace detail {

struct Spawner {
  /// A task below `group` (null: a root), told to `owner` at its end (null: to the group's own).
  /// `options` may be null, and may be moved from.
  template <class T>
  static JoinHandle<T> spawn(Executor& executor, Task<T>&& task, SpawnOptions* options,
                             GroupScope* group, TaskOwner* owner) {
    TaskFrame<T> frame = std::move(task).take_frame();
    frame.require();
    auto* const state = new TaskState<T>;
    state->launch(
        frame.bind(state->root(), Continuation::to(static_cast<TaskRecord*>(state)), state->slot()),
        state->node(), executor, group, owner, options);
    return JoinHandle<T>(StateHandle<T>::adopt(state));
  }

  template <class F>
  static void post(Executor& executor, F&& function) {
    // What is posted comes from one thread and is freed by another, all the time: an allocator
    // that keeps memory for each thread would go to its common part for each of them.
    struct Node : Runnable, FrameAllocated {
      Node(Executor& its_home, F&& f) : home(its_home), call(std::forward<F>(f)) {}
      Executor& home;
      std::decay_t<F> call;
    };
    std::unique_ptr<Node> node(new Node(executor, std::forward<F>(function)));
    static constexpr RunKind kCall{[](Runnable* base) noexcept {
      std::unique_ptr<Node> self(static_cast<Node*>(base));
      Executor& home = self->home;
      thread_state()->locals = nullptr;
      try {
        static_cast<void>(static_cast<once_t<std::decay_t<F>>>(self->call)());
      } catch (...) {
        ExecutorAccess::unobserved(home, "post", std::current_exception());
      }
      self.reset();
      ExecutorAccess::retire_post(home);
    }};
    node->how = &kCall;
    ExecutorAccess::admit_post(executor);
    executor.schedule(*node.release());
  }
};

/// What the task that run() and spawn() are given gives.
template <class A>
struct Spawned {
  static_assert(Awaitable<A>,
                "run() and spawn() take a task or another awaitable; a coroutine has to be called: "
                "write run(f()), not run(f)");
  using type = int;
};
template <Awaitable A>
struct Spawned<A> {
  using type = awaited_t<A>;
};

template <class T>
T take_result(JoinHandle<T>&& handle) {
  Slot<T> slot;
  handle.state().move_to(slot);
  handle = JoinHandle<T>();
  return slot.take();
}

}  // namespace detail

template <class A>
decltype(auto) Executor::run(A&& task) {
  using T = typename detail::Spawned<A>::type;
  detail::refuse_on_worker("run()");
  JoinHandle<T> handle = detail::Spawner::spawn<T>(*this, detail::as_task(std::forward<A>(task)),
                                                   nullptr, nullptr, nullptr);
  handle.state().mark_observed();
  detail::ExecutorAccess::await_task(*this, handle.state());
  return detail::take_result(std::move(handle));
}

template <class A>
auto Executor::spawn(A&& task, SpawnOptions options) {
  using T = typename detail::Spawned<A>::type;
  return detail::Spawner::spawn<T>(*this, detail::as_task(std::forward<A>(task)), &options, nullptr,
                                   nullptr);
}

template <class A>
auto Executor::spawn(A&& task) {
  using T = typename detail::Spawned<A>::type;
  return detail::Spawner::spawn<T>(*this, detail::as_task(std::forward<A>(task)), nullptr, nullptr,
                                   nullptr);
}

template <class F>
requires detail::InvocableOnce<std::decay_t<F>>
void Executor::post(F&& function) {
  static_assert(
      !detail::Lazy<detail::once_result_t<std::decay_t<F>>>,
      "post() calls a plain function; a task that it returned would never run: use spawn(task())");
  detail::Spawner::post(*this, std::forward<F>(function));
}

}  // namespace magpie
