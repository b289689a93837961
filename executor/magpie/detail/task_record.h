// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task in the full sense: what run, spawn and group.spawn start. One counted record holds its
// root scope, its outcome, those who wait for it, and its place in the executor's registry; the
// coroutine's frame is gone before anybody learns of the end.
//
// References: one for the running task, one for all handles together, short ones for whoever
// cancels or dumps it.

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
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
#include <magpie/detail/registry.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/result.h>

namespace magpie {
class SpawnOptions;
}  // namespace magpie

namespace magpie::detail {

class TokenLink;

using TaskRegistry = BasicRegistry<StdEnv, TaskRecord>;

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_self_await();

/// A group that wants to know when a child has ended: after the child's outcome was published, as
/// the record's last act. The call may end the group's block.
struct TaskOwner {
  void (*child_ended)(TaskOwner*, TaskRecord&) noexcept = nullptr;
};

using UnobservedHandler = std::function<void(std::string_view, std::exception_ptr)>;
/// It outlives its executor while a task has ended there whose error nobody has seen.
struct CountedHandler {
  explicit CountedHandler(const UnobservedHandler& handler) : call(handler) {}
  const UnobservedHandler call;

  void add_ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    // acq_rel: whoever destroys it comes after all calls.
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  std::atomic<std::uint32_t> refs_{1};
};
/// To the handler, or without one to stderr.
void report_unobserved(const UnobservedHandler* handler, std::string_view name,
                       std::exception_ptr error) noexcept;

/// What few tasks have.
struct TaskExtras {
  TaskExtras() noexcept;
  MAGPIE_EXPORT ~TaskExtras();  // in the destructor of a record that another binary makes
  // These two are there before the task can start.
  std::unique_ptr<LocalsSnapshot> locals;
  std::unique_ptr<TokenLink> token_link;
  std::optional<std::string> name;  // under the record's lock_; none: "task-<id>"
};

class MAGPIE_EXPORT TaskRecord : public OutcomeCore,
                                 public Runnable,
                                 public EndSink,
                                 public TaskCore {
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
  const LocalsFrame* locals() const noexcept {
    // Acquire: pairs with extras(); set_name() may make them at any time.
    const TaskExtras* const extras = extras_.load(std::memory_order_acquire);
    return extras != nullptr && extras->locals ? extras->locals->head() : nullptr;
  }
  Executor* executor() const noexcept { return executor_; }
  Scope& root() noexcept { return root_; }
  const Scope& root() const noexcept { return root_; }

  // --- starting ----------------------------------------------------------------------------------

  /// Takes over the unstarted coroutine and its first handle, and has the executor run it: below
  /// `group` (null: a root), told to `owner` at its end (null: nobody). If that throws, the
  /// coroutine and the record are gone.
  void launch(std::coroutine_handle<> coroutine, Executor& executor, Scope* group, TaskOwner* owner,
              SpawnOptions* options);
  /// Whether its bindings, or that it has none, were settled when it was spawned.
  bool own_locals() const noexcept { return own_locals_; }

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
  TaskRecord() noexcept : OutcomeCore(WithHandle{}) {
    run = start;
    ended = has_ended;
  }
  ~TaskRecord() override {
    if (handler_ != nullptr) [[unlikely]]
      handler_->release();
    if (TaskExtras* const extras = extras_.load(std::memory_order_relaxed); extras != nullptr)
        [[unlikely]]
      delete extras;
  }

  virtual void set_cancelled_outcome(ReasonRef reason) noexcept = 0;
  virtual void set_error_outcome(std::exception_ptr error) noexcept = 0;
  friend class ExecutorServices;

 private:
  static void start(Runnable* self) noexcept;
  static std::coroutine_handle<> has_ended(EndSink* self, SlotState outcome) noexcept;
  /// The one who waits for it, if there is only one: the caller hands it over.
  [[nodiscard]] JoinWaiter* finish(SlotState outcome) noexcept;
  void finish_and_wake(SlotState outcome) noexcept;
  void give_up() noexcept;
  void leave_root() noexcept;
  void nobody_can_ask() noexcept override { report_if_unobserved(); }
  void report_if_unobserved() noexcept;
  void report(std::exception_ptr error) noexcept;
  TaskExtras& extras();

  // By their sizes: beside `cancels` of TaskCore, then the rest.
  std::atomic<std::uint32_t> group_waits_{0};
  Scope root_;
  TaskId id_{};
  TaskId parent_id_{};
  Executor* executor_ = nullptr;
  TaskOwner* owner_ = nullptr;
  std::atomic<TaskExtras*> extras_{nullptr};
  union {
    void* coroutine_ = nullptr;  // until it starts
    CountedHandler* handler_;    // from then on; the executor's, once it has ended
  };
  std::int64_t born_ns_ = 0;
  TaskRegistry::Place* place_ = nullptr;
  std::atomic<bool> reported_{false};
  std::atomic<bool> started_{false};
  bool own_locals_ = false;
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
