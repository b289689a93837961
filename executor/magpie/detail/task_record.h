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
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/backoff.h>
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

class ExecutorServices;
struct CountedHandler;
struct TaskExtras;

using TaskRegistry = BasicRegistry<StdEnv, TaskRecord>;

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_self_await();

/// A group that wants to know when a child has ended: after the child's outcome was published, as
/// the record's last act. The call may end the group's block.
struct TaskOwner {
  void (*child_ended)(TaskOwner*, TaskRecord&) noexcept = nullptr;
};
/// The scope of a group, with whom the ends of its children are told.
struct GroupScope : Scope {
  explicit GroupScope(TaskOwner& its_owner) noexcept : owner(&its_owner) {}
  TaskOwner* const owner;
};

class MAGPIE_EXPORT TaskRecord : public OutcomeCore, public TaskCore {
 public:
  using Unstarted = Runnable;  // what an executor gets
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
  /// The task whose group this one was started in; 0 for a root, and once it is done.
  TaskId parent_id() const noexcept;
  std::string name() const;
  void set_name(std::string name);
  const LocalsFrame* locals() const noexcept;
  /// Until it is done.
  Executor* executor() const noexcept;
  Scope& root() noexcept { return root_; }
  const Scope& root() const noexcept { return root_; }

  // --- starting ----------------------------------------------------------------------------------

  /// Takes over the unstarted coroutine and its first handle, and has the executor run `node`,
  /// which calls begin(): below `group` (null: a root), told to `owner` at its end (null: to the
  /// group's own). If that throws, the coroutine and the record are gone.
  void launch(std::coroutine_handle<> coroutine, Runnable& node, Executor& executor,
              GroupScope* group, TaskOwner* owner, SpawnOptions* options);
  /// Whether its bindings, or that it has none, were settled when it was spawned.
  bool own_locals() const noexcept { return own_locals_; }

  /// For dumps: the task's body of a group has ended, and waits until the group's tasks have.
  void group_wait_begins() noexcept { group_waits_.fetch_add(1, std::memory_order_relaxed); }
  void group_wait_ends() noexcept { group_waits_.fetch_sub(1, std::memory_order_relaxed); }

  // --- the end -----------------------------------------------------------------------------------

  /// The task's coroutine is gone, its outcome lies in its place. Returns what this thread runs
  /// next; null: nothing.
  std::coroutine_handle<> has_ended(SlotState outcome) noexcept;
  /// For the simulator. The task's frame was destroyed where it waited: this is its outcome.
  void end_by_force(std::exception_ptr error) noexcept;

  void describe(std::string& out, Deadline now) const;

 protected:
  TaskRecord() noexcept : OutcomeCore(WithHandle{}) {}
  ~TaskRecord() override {
    // Relaxed: nobody else has it any more.
    if (handler_ != nullptr || extras_.load(std::memory_order_relaxed) != nullptr) [[unlikely]]
      drop_what_few_have();
  }

  /// On the executor, once there is a place for the outcome.
  void begin() noexcept;
  MAGPIE_COLD void end_before_it_began() noexcept;
  /// It never begins: the same without.
  virtual void make_place() noexcept = 0;
  virtual void set_cancelled_outcome(ReasonRef reason) noexcept = 0;
  virtual void set_error_outcome(std::exception_ptr error) noexcept = 0;
  friend class ExecutorServices;

 private:
  // The one who waits for it, if there is only one: the caller hands it over.
  [[nodiscard]] JoinWaiter* finish(SlotState outcome) noexcept;
  void finish_and_wake(SlotState outcome) noexcept;
  // Nothing unusual can be said of the task, and this is a worker of its own.
  [[nodiscard]] bool ends_simply(SlotState outcome, const LocalQueue* queue,
                                 const Executor& executor) const noexcept;
  void keep_handler(const ExecutorServices& services) noexcept;
  void give_up() noexcept;
  void leave_root() noexcept;
  void nobody_can_ask() noexcept override { report_if_unobserved(); }
  void report_if_unobserved() noexcept;
  void report(std::exception_ptr error) noexcept;
  TaskExtras& extras();
  MAGPIE_COLD void drop_what_few_have() noexcept;
  /// Whether it is a group's child; its scope's parent is then the group's scope, which is there
  /// until owner() was told.
  bool in_group() const noexcept { return root_.parent() != nullptr; }
  TaskOwner* owner() const noexcept;

  // By their sizes: beside `cancels` of TaskCore, then the rest; in the last byte of the last word
  // lies whether the value was taken, and behind it the value.
  std::atomic<std::uint32_t> group_waits_{0};
  Scope root_;
  TaskId id_{};
  std::atomic<TaskExtras*> extras_{nullptr};
  union {
    void* coroutine_ = nullptr;  // until it starts
    CountedHandler* handler_;    // from then on; the executor's, once it has ended
  };
  TaskRegistry::Place* place_ = nullptr;  // in the executor's list, and so where that is found
  // Milliseconds by the executor's clock, modulo 34 years.
  std::uint32_t born_low_ = 0;
  std::uint8_t born_high_ = 0;
  std::atomic<bool> started_{false};
  bool own_locals_ = false;
};

template <class T>
class TaskState final : public OutcomeState<T, TaskRecord>, public FrameAllocated {
 public:
  TaskState() noexcept { this->unstarted().how = &kStart; }
  Runnable& node() noexcept { return this->unstarted(); }

 private:
  static void start(Runnable* node) noexcept {
    auto& self = static_cast<TaskState&>(TaskState::place_of(*node));
    self.make_result();
    self.begin();
  }
  static constexpr RunKind kStart{&start};
  void make_place() noexcept override { this->make_result(); }
  void set_cancelled_outcome(ReasonRef reason) noexcept override {
    this->slot().set_cancelled(std::move(reason));
  }
  void set_error_outcome(std::exception_ptr error) noexcept override {
    this->slot().set_error(std::move(error));
  }
};

}  // namespace magpie::detail
