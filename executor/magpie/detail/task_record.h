// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task in the full sense: what run, spawn and group.spawn start. One counted record holds its
// root scope, its outcome, those who wait for it, and its place in the executor's registry; the
// coroutine's frame is gone before anybody learns of the end.
//
// References: one for the running task, one for each handle, short ones for whoever cancels or
// dumps it.

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/outcome.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/result.h>

namespace magpie::detail {

struct RegistryShard;
class TokenLink;

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_self_await();

/// A group that wants to know when a child has ended: after the child's outcome was published, as
/// the record's last act. The call may end the group's block.
struct TaskOwner {
  void (*child_ended)(TaskOwner*, TaskRecord&) noexcept = nullptr;
};

using UnobservedHandler = std::function<void(std::string_view, std::exception_ptr)>;
/// To the handler, or without one to stderr.
void report_unobserved(const UnobservedHandler* handler, std::string_view name,
                       std::exception_ptr error) noexcept;

class MAGPIE_EXPORT TaskRecord : public OutcomeCore,
                                 public TaskCore,
                                 public Runnable,
                                 public EndSink {
 public:
  static constexpr const char* kWhat = "a task";

  static TaskRecord& of(const Scope& scope) noexcept {
    return *static_cast<TaskRecord*>(scope.task());
  }

  // --- the outcome -------------------------------------------------------------------------------

  /// Requests cancellation; false if it was requested before or the task has its outcome.
  bool cancel(ReasonRef reason) noexcept;

  void block_until_done() override;
  void report_callback_error(std::exception_ptr error) noexcept;
  /// Nobody waits for himself: std::logic_error.
  void refuse_self(const Scope& scope) const {
    if (&of(scope) == this) throw_self_await();
  }

  // --- identity ----------------------------------------------------------------------------------

  TaskId id() const noexcept { return id_; }
  /// The task whose group this one was started in; 0 for a root.
  TaskId parent_id() const noexcept { return parent_id_; }
  std::string name() const;
  void set_name(std::string name);
  const LocalsFrame* locals() const noexcept { return locals_ ? locals_->head() : nullptr; }
  Executor* executor() const noexcept { return executor_; }
  Scope& root() noexcept { return root_; }
  const Scope& root() const noexcept { return root_; }

  // --- starting ----------------------------------------------------------------------------------

  /// Everything that a new record needs; the executor admits it afterwards (or the caller releases
  /// it).
  void set_up(Executor& executor, std::coroutine_handle<> coroutine, std::string name);
  void inherit_locals(const LocalsFrame* locals) {
    own_locals_ = true;
    if (locals != nullptr) locals_ = std::make_unique<LocalsSnapshot>(locals);
  }
  /// Whether its bindings, or that it has none, were settled when it was spawned.
  bool own_locals() const noexcept { return own_locals_; }
  void hold(std::coroutine_handle<> coroutine) noexcept { coroutine_ = coroutine; }
  void set_owner(TaskOwner* owner) noexcept { owner_ = owner; }
  void link_token(std::unique_ptr<TokenLink> link) noexcept;
  /// Opens the root scope below `group` (may be null).
  void open(Scope* group) noexcept {
    if (group != nullptr) parent_id_ = of(*group).id();
    root_.enter_root(group, this);
  }
  /// It was not admitted: destroys the unstarted frame, closes the scope.
  void abandon() noexcept;

  /// For dumps: the task's body of a group has ended, and waits until the group's tasks have.
  void group_wait_begins() noexcept { group_waits_.fetch_add(1, std::memory_order_relaxed); }
  void group_wait_ends() noexcept { group_waits_.fetch_sub(1, std::memory_order_relaxed); }

  // --- for the simulator -------------------------------------------------------------------------

  /// The record that a coroutine reports its end to; null if that is something else.
  static TaskRecord* of_sink(EndSink* sink) noexcept;
  /// The task's frame was destroyed where it waited: this is its outcome.
  void end_by_force(std::exception_ptr error) noexcept;

  void describe(std::string& out, Deadline now) const;

 protected:
  TaskRecord() noexcept;
  ~TaskRecord() override;

  std::coroutine_handle<> coroutine_;  // until it starts

  virtual void set_cancelled_outcome(ReasonRef reason) noexcept = 0;
  virtual void set_error_outcome(std::exception_ptr error) noexcept = 0;
  friend class ExecutorServices;

 private:
  static void start(Runnable* self) noexcept;
  static std::coroutine_handle<> has_ended(EndSink* self, SlotState outcome) noexcept;
  void finish(SlotState outcome) noexcept;
  void nobody_can_ask() noexcept override { report_if_unobserved(); }
  void report_if_unobserved() noexcept;

  std::atomic<bool> reported_{false};
  std::atomic<bool> started_{false};
  std::atomic<std::uint32_t> group_waits_{0};
  Scope root_;
  TaskId id_{};
  TaskId parent_id_{};
  Executor* executor_ = nullptr;
  TaskOwner* owner_ = nullptr;
  std::unique_ptr<LocalsSnapshot> locals_;
  bool own_locals_ = false;
  std::unique_ptr<std::string> name_;  // under lock_; null: "task-<id>"
  std::unique_ptr<TokenLink> token_link_;
  std::shared_ptr<const UnobservedHandler>
      handler_;  // set when it ends with an error that nobody has seen
  std::int64_t born_ns_ = 0;

  // The registry's, under its shard's lock.
  RegistryShard* shard_ = nullptr;
  TaskRecord* registry_prev_ = nullptr;
  TaskRecord* registry_next_ = nullptr;
  TaskRecord* sweep_next_ = nullptr;
};

template <class T>
class TaskState final : public OutcomeState<T, TaskRecord> {
 public:
  // Records come from the frame cache too.
  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* record, std::size_t size) noexcept { free_frame(record, size); }
  static void* operator new(std::size_t size, std::align_val_t align) {
    return ::operator new(size, align);
  }
  static void operator delete(void* record, std::size_t, std::align_val_t align) noexcept {
    ::operator delete(record, align);
  }

  TaskState() noexcept = default;

 private:
  void set_cancelled_outcome(ReasonRef reason) noexcept override {
    this->slot().set_cancelled(std::move(reason));
  }
  void set_error_outcome(std::exception_ptr error) noexcept override {
    this->slot().set_error(std::move(error));
  }
};

}  // namespace magpie::detail
