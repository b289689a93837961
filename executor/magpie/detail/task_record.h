// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A task in the full sense: what run, spawn and group.spawn start. One counted record holds its root scope, its outcome, those who
// wait for it, and its place in the executor's registry; the coroutine's frame is gone before anybody learns of the end.
//
// References: one for the running task, one for each handle, short ones for whoever cancels or dumps it.

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
#include <magpie/detail/operation.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/result.h>

namespace magpie::detail {

struct RegistryShard;
class TokenLink;

/// What waits for a task. Those who copy the value get their copies before anybody is woken, so that a mover comes after them.
struct JoinWaiter : OperationBase {
  JoinWaiter() = default;
  JoinWaiter(JoinWaiter&&) noexcept = default;
  void (*fill)(JoinWaiter*) noexcept = nullptr;  // copies the outcome; null for movers
  bool moves() const noexcept { return fill == nullptr; }
  bool park_in_scope() noexcept { return park(); }

 protected:
  ~JoinWaiter() = default;
};

/// A group that wants to know when a child has ended: after the child's outcome was published, as the record's last act. The
/// call may end the group's block.
struct TaskOwner {
  void (*child_ended)(TaskOwner*, TaskRecord&) noexcept = nullptr;
};

/// A function to call with the outcome.
struct DoneCallback {
  DoneCallback* next = nullptr;
  void (*call)(DoneCallback*, TaskRecord&) noexcept = nullptr;  // runs it and frees it
  void (*drop)(DoneCallback*) noexcept = nullptr;               // frees it
};

using UnobservedHandler = std::function<void(std::string_view, std::exception_ptr)>;
/// To the handler, or without one to stderr.
void report_unobserved(const UnobservedHandler* handler, std::string_view name, std::exception_ptr error) noexcept;

class MAGPIE_EXPORT TaskRecord : public TaskCore, public Runnable, public EndSink {
 public:
  TaskRecord(const TaskRecord&) = delete;
  TaskRecord& operator=(const TaskRecord&) = delete;

  static TaskRecord& of(const Scope& scope) noexcept { return *static_cast<TaskRecord*>(scope.task()); }

  // --- references -------------------------------------------------------------------------------------------------------

  void add_ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    // acq_rel: whoever frees it sees what the others did with it.
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  void add_handle() noexcept {
    add_ref();
    handles_.fetch_add(1, std::memory_order_relaxed);
  }
  void drop_handle() noexcept;

  // --- the outcome ------------------------------------------------------------------------------------------------------

  bool done() const noexcept { return done_.load(std::memory_order_acquire) != 0; }  // pairs with publish()
  SlotState outcome() const noexcept { return outcome_; }                             // once done
  bool cancelled() const noexcept { return done() && outcome_ == SlotState::cancelled; }
  virtual std::exception_ptr error() const noexcept = 0;  // once done: what it failed with, or null
  void mark_observed() noexcept { observed_.store(true, std::memory_order_relaxed); }

  /// Requests cancellation; false if it was requested before or the task has its outcome.
  bool cancel(ReasonRef reason) noexcept;

  void wait_done() noexcept;
  /// Blocks the calling thread until the task is done. std::logic_error on a worker thread.
  void block_until_done();

  /// Adds a callback; if the task is done, calls it here.
  void on_done(DoneCallback* callback) noexcept;

  /// For waits: parks `op`, or returns false if the task is done (the caller then completes at once) or `op` was refused.
  enum class Parked { yes, done, refused };
  Parked park_waiter(JoinWaiter& op) noexcept {
    std::lock_guard guard(lock_);
    if (done_.load(std::memory_order_relaxed) != 0 && !(settling_ && op.moves())) return Parked::done;
    if (!op.park_in_scope()) return Parked::refused;
    waiters_.push_back(op);
    return Parked::yes;
  }
  void report_callback_error(std::exception_ptr error) noexcept;
  void forget_waiter(Waiter& waiter) noexcept {
    std::lock_guard guard(lock_);
    waiters_.forget(waiter);
  }

  // --- identity ---------------------------------------------------------------------------------------------------------

  TaskId id() const noexcept { return id_; }
  /// The task whose group this one was started in; 0 for a root.
  TaskId parent_id() const noexcept { return parent_id_; }
  std::string name() const;
  void set_name(std::string name);
  const LocalsFrame* locals() const noexcept { return locals_ ? locals_->head() : nullptr; }
  Executor* executor() const noexcept { return executor_; }
  Scope& root() noexcept { return root_; }
  const Scope& root() const noexcept { return root_; }

  // --- starting ---------------------------------------------------------------------------------------------------------

  /// Everything that a new record needs; the executor admits it afterwards (or the caller releases it).
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

  // --- for the simulator ------------------------------------------------------------------------------------------------

  /// The record that a coroutine reports its end to; null if that is something else.
  static TaskRecord* of_sink(EndSink* sink) noexcept;
  /// The task's frame was destroyed where it waited: this is its outcome.
  void end_by_force(std::exception_ptr error) noexcept;

  void describe(std::string& out, Deadline now) const;

 protected:
  TaskRecord() noexcept;
  virtual ~TaskRecord();

  std::coroutine_handle<> coroutine_;  // until it starts
  SlotState outcome_ = SlotState::empty;

  virtual void set_cancelled_outcome(ReasonRef reason) noexcept = 0;
  virtual void set_error_outcome(std::exception_ptr error) noexcept = 0;
  [[noreturn]] static void throw_taken();
  friend class ExecutorServices;

 private:
  static void start(Runnable* self) noexcept;
  static std::coroutine_handle<> has_ended(EndSink* self, SlotState outcome) noexcept;
  void finish(SlotState outcome) noexcept;
  Waiter* claim_waiters() noexcept;  // under lock_: those who may go on, movers not while callbacks look at the value
  static void wake_all(Waiter* ready) noexcept;
  void report_if_unobserved() noexcept;

  std::atomic<std::uint32_t> refs_{1};
  std::atomic<std::uint32_t> handles_{0};
  std::atomic<std::uint32_t> done_{0};
  std::atomic<std::uint32_t> group_waits_{0};
  std::atomic<bool> observed_{false};
  std::atomic<bool> reported_{false};
  std::atomic<bool> started_{false};
  mutable SpinLock<StdEnv> lock_;
  BasicWaitQueue<StdEnv> waiters_;  // under lock_
  DoneCallback* callbacks_ = nullptr;
  bool settling_ = false;  // under lock_: done, but those who were there first still look at the value; movers wait
  Scope root_;
  TaskId id_{};
  TaskId parent_id_{};
  Executor* executor_ = nullptr;
  TaskOwner* owner_ = nullptr;
  std::unique_ptr<LocalsSnapshot> locals_;
  bool own_locals_ = false;
  std::unique_ptr<std::string> name_;  // under lock_; null: "task-<id>"
  std::unique_ptr<TokenLink> token_link_;
  std::shared_ptr<const UnobservedHandler> handler_;  // set when it ends with an error that nobody has seen
  std::int64_t born_ns_ = 0;

  // The registry's, under its shard's lock.
  RegistryShard* shard_ = nullptr;
  TaskRecord* registry_prev_ = nullptr;
  TaskRecord* registry_next_ = nullptr;
  TaskRecord* sweep_next_ = nullptr;
};

template <class T>
class TaskState final : public TaskRecord {
 public:
  // Records come from the frame cache too.
  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* record, std::size_t size) noexcept { free_frame(record, size); }
  static void* operator new(std::size_t size, std::align_val_t align) { return ::operator new(size, align); }
  static void operator delete(void* record, std::size_t, std::align_val_t align) noexcept { ::operator delete(record, align); }

  TaskState() noexcept = default;

  Result<T> result = ResultAccess::empty<T>();
  Slot<T>& slot() noexcept { return ResultAccess::slot(result); }
  const Slot<T>& slot() const noexcept { return ResultAccess::slot(result); }

  /// Copies the outcome. InvalidStateError if the value has been moved out.
  void copy_to(Slot<T>& target) {
    mark_observed();
    if constexpr (std::is_copy_constructible_v<Slot<T>>) {
      // seq_cst: pairs with move_to(): the mover sees this reader, or this reader sees that it is taken.
      readers_.fetch_add(1, std::memory_order_seq_cst);
      const bool taken = taken_.load(std::memory_order_seq_cst);
      if (!taken) {
        try {
          target = slot();
        } catch (...) {
          target.capture_current_exception();
        }
      }
      readers_.fetch_sub(1, std::memory_order_release);  // pairs with the wait in move_to()
      if (taken) throw_taken();
    }
  }

  /// Calls f(const Result<T>&) while nobody moves the value out. InvalidStateError if somebody has.
  template <class F>
  void show_to(F&& f) {
    struct Reader {
      std::atomic<std::uint32_t>& readers;
      explicit Reader(std::atomic<std::uint32_t>& count) noexcept : readers(count) {
        readers.fetch_add(1, std::memory_order_seq_cst);  // pairs with move_to(), as in copy_to()
      }
      ~Reader() { readers.fetch_sub(1, std::memory_order_release); }  // pairs with the wait in move_to()
    } reader(readers_);
    if (taken_.load(std::memory_order_seq_cst)) throw_taken();
    std::forward<F>(f)(std::as_const(result));
  }

  /// Moves the outcome out, after those who are looking at it just now.
  void move_to(Slot<T>& target) {
    mark_observed();
    if (slot().state() != SlotState::value) {
      target = std::move(slot());  // failures are copied
      return;
    }
    if (taken_.exchange(true, std::memory_order_seq_cst)) throw_taken();
    Backoff<StdEnv> backoff;
    while (readers_.load(std::memory_order_seq_cst) != 0) backoff.wait();
    target = std::move(slot());
  }

  const Result<T>& shown() const {
    if (taken_.load(std::memory_order_acquire)) throw_taken();
    return result;
  }

  std::exception_ptr error() const noexcept override {
    return slot().state() == SlotState::error ? slot().error() : std::exception_ptr();
  }

 protected:
  void set_cancelled_outcome(ReasonRef reason) noexcept override { slot().set_cancelled(std::move(reason)); }
  void set_error_outcome(std::exception_ptr error) noexcept override { slot().set_error(std::move(error)); }

 private:
  std::atomic<std::uint32_t> readers_{0};
  std::atomic<bool> taken_{false};
};

}  // namespace magpie::detail
