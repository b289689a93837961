// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// JoinHandle<T>: a started task. Copyable; all copies name the same task; dropping every copy detaches it.
//
//     JoinHandle<int> handle = executor.spawn(work(), "worker");
//     int a = co_await handle;              // copies the result; any number of waiters
//     int b = co_await std::move(handle);   // moves it out
//
// Awaiting is a cancellation point; cancelling the waiter ends the wait, not the task. If the task was cancelled, the await
// throws CancelledError, and the waiter's own scope is untouched. When a waiter goes on, the task's locals and frame are gone.
//
// Threads: distinct handles from any thread, also of the same task; one handle object as any other value. Handles may outlive
// their executor.

#include <compare>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/task_record.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie {

namespace detail {

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_empty_handle();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_not_done();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_self_await();

template <class T>
class StateHandle {  // a counted reference that counts as a handle
 public:
  StateHandle() = default;
  explicit StateHandle(TaskState<T>* state) noexcept : state_(state) { state_->add_handle(); }
  StateHandle(const StateHandle& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->add_handle();
  }
  StateHandle(StateHandle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  StateHandle& operator=(StateHandle other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~StateHandle() {
    if (state_ != nullptr) state_->drop_handle();
  }
  TaskState<T>* get() const noexcept { return state_; }
  TaskState<T>& require() const {
    if (state_ == nullptr) [[unlikely]] throw_empty_handle();
    return *state_;
  }

 private:
  TaskState<T>* state_ = nullptr;
};

/// The wait for a task. `Move`: takes the value out; else copies it.
template <class T, bool Move>
class [[nodiscard("co_await it")]] JoinOperation : public Operation<JoinOperation<T, Move>, T, JoinWaiter> {
 public:
  explicit JoinOperation(StateHandle<T> handle) : handle_(std::move(handle)) { this->what = "a task"; }
  JoinOperation(JoinOperation&& other) noexcept
      : Operation<JoinOperation<T, Move>, T, JoinWaiter>(), handle_(std::move(other.handle_)) {
    this->what = "a task";
  }

  bool done() const noexcept { return handle_.get() != nullptr && handle_.get()->done(); }

  /// In a race: a value is moved out only by the winner, so that a loser leaves it to other handles. Failures are copied anyway.
  static constexpr bool kTakesAtItsEnd = Move;
  void set_taker(Arbiter* arbiter, std::uint32_t index) noexcept {
    taker_ = arbiter;
    taker_index_ = index;
  }

  bool start() {
    TaskState<T>& task = handle_.require();
    if (&TaskRecord::of(*this->scope()) == &task) throw_self_await();
    if (this->refused()) return false;
    if constexpr (!Move) this->fill = copy_now;
    switch (task.park_waiter(*this)) {
      case TaskRecord::Parked::yes:
        return true;
      case TaskRecord::Parked::done:
        this->complete_at_once();
        return false;
      default:
        return false;
    }
  }
  void unqueue() noexcept { handle_.get()->forget_waiter(*this); }
  void deposit(Slot<T>& slot) {
    if (!copied_.empty()) {
      slot = std::move(copied_);
    } else if constexpr (Move) {
      if (taker_ != nullptr && handle_.get()->outcome() == SlotState::value && !taker_->win(taker_index_)) {
        slot.set_cancelled(ReasonRef::of_kind(CancelKind::lost_race));
        return;
      }
      handle_.get()->move_to(slot);
    } else {
      handle_.get()->copy_to(slot);
    }
  }

 private:
  static void copy_now(JoinWaiter* waiter) noexcept {
    auto* const self = static_cast<JoinOperation*>(waiter);
    try {
      self->handle_.get()->copy_to(self->copied_);
    } catch (...) {
      self->copied_.capture_current_exception();
    }
  }

  StateHandle<T> handle_;
  Slot<T> copied_;
  Arbiter* taker_ = nullptr;
  std::uint32_t taker_index_ = 0;
};

}  // namespace detail

template <class T>
class JoinHandle : public detail::OperationSource {
 public:
  using value_type = T;

  /// Empty: every use is InvalidStateError.
  JoinHandle() = default;

  /// Waits and copies the value; it must be copyable.
  auto operator co_await() const& { return operation(); }
  /// Waits and moves the value out, after those who waited before have theirs. Afterwards other handles get InvalidStateError.
  auto operator co_await() && { return std::move(*this).operation(); }

  /// Whether the task has ended. If so, everything that it wrote is visible.
  [[nodiscard]] bool done() const { return state().done(); }
  /// Whether it ended cancelled.
  [[nodiscard]] bool cancelled() const { return state().cancelled(); }
  /// The outcome; InvalidStateError while there is none, or after it was moved out.
  const Result<T>& result() const {
    auto& s = state();
    if (!s.done()) detail::throw_not_done();
    s.mark_observed();
    return s.shown();
  }
  /// Blocks the calling thread until the task has ended; std::logic_error on a thread that runs tasks.
  const Result<T>& wait() const {
    auto& s = state();
    s.block_until_done();
    s.mark_observed();  // only now: a wait that was refused has seen nothing
    return s.shown();
  }
  /// Requests cancellation. True if this call made the request; false if there was one already, or the task has ended.
  bool cancel(std::string reason = {}) const {
    return state().cancel(detail::ReasonRef::make(CancelKind::requested, std::move(reason)));
  }
  [[nodiscard]] TaskId id() const { return state().id(); }
  [[nodiscard]] std::string name() const { return state().name(); }
  void set_name(std::string name) const { state().set_name(std::move(name)); }

  /// Calls f(const Result<T>&) once: on the thread that ends the task, or here if it has ended. What it throws goes to
  /// on_unobserved_error. Whoever moves the value out waits meanwhile.
  template <class F>
  void on_done(F&& f) const;

  friend bool operator==(const JoinHandle& a, const JoinHandle& b) noexcept { return a.handle_.get() == b.handle_.get(); }

  /// For the library.
  explicit JoinHandle(detail::StateHandle<T> handle) noexcept : handle_(std::move(handle)) {}
  detail::JoinOperation<T, false> operation() const& {
    static_assert(std::is_void_v<T> || std::is_reference_v<T> || std::is_copy_constructible_v<T>,
                  "this task's value cannot be copied: move it out with `co_await std::move(handle)`");
    return detail::JoinOperation<T, false>(handle_);
  }
  detail::JoinOperation<T, true> operation() && { return detail::JoinOperation<T, true>(std::move(handle_)); }
  detail::TaskState<T>& state() const { return handle_.require(); }

 private:
  detail::StateHandle<T> handle_;
};

template <class T>
template <class F>
void JoinHandle<T>::on_done(F&& f) const {
  struct Callback : detail::DoneCallback {
    explicit Callback(F&& function) : f(std::forward<F>(function)) {}
    std::decay_t<F> f;
  };
  auto& s = state();
  s.mark_observed();
  auto* const callback = new Callback(std::forward<F>(f));
  callback->call = [](detail::DoneCallback* base, detail::TaskRecord& record) noexcept {
    auto* const self = static_cast<Callback*>(base);
    try {
      static_cast<detail::TaskState<T>&>(record).show_to(self->f);
    } catch (...) {
      record.report_callback_error(std::current_exception());
    }
    delete self;
  };
  callback->drop = [](detail::DoneCallback* base) noexcept { delete static_cast<Callback*>(base); };
  s.on_done(callback);
}

}  // namespace magpie
