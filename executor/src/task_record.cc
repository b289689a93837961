// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <chrono>
#include <cstdio>
#include <thread>

#include <time.h>

#include <magpie/cancellation_token.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/executor_services.h>
#include <magpie/detail/task_record.h>
#include <magpie/errors.h>

namespace magpie::detail {

namespace {

// For the age in dumps some milliseconds do: the steady clock's coarse reading costs a fraction of
// the fine one.
std::int64_t birth_time(const Executor& executor) {
  if (&executor.clock() != &system_steady_clock()) return to_ns(executor.clock().now());
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

TaskRecord::TaskRecord() noexcept = default;
TaskRecord::~TaskRecord() = default;

void TaskRecord::set_up(Executor& executor, std::coroutine_handle<> coroutine, std::string name) {
  executor_ = &executor;
  id_ = next_task_id();
  born_ns_ = birth_time(executor);
  if (!name.empty()) name_ = std::make_unique<std::string>(std::move(name));
  run = start;
  ended = has_ended;
  coroutine_ = coroutine;
}

void TaskRecord::link_token(std::unique_ptr<TokenLink> link) noexcept {
  token_link_ = std::move(link);
}

void TaskRecord::abandon() noexcept {
  token_link_.reset();
  if (coroutine_) std::exchange(coroutine_, nullptr).destroy();
  root_.close();
  const auto effects = root_.exit();
  detach_tokens(effects.tokens);
  detach_tokens(effects.dropped);
}

void TaskRecord::start(Runnable* node) noexcept {
  auto* const self = static_cast<TaskRecord*>(node);
  const std::coroutine_handle<> coroutine = std::exchange(self->coroutine_, nullptr);
  if (self->root_.cancelled()) {
    // Its body never runs; its arguments are destroyed before anybody learns of its end.
    install_locals(self->root_);
    ReasonRef reason = self->root_.reason();
    coroutine.destroy();
    self->set_cancelled_outcome(std::move(reason));
    self->finish(SlotState::cancelled);
    return;
  }
  self->started_.store(true, std::memory_order_relaxed);
  resume_strand(coroutine, &self->root_);
}

std::coroutine_handle<> TaskRecord::has_ended(EndSink* sink, SlotState outcome) noexcept {
  static_cast<TaskRecord*>(sink)->finish(outcome);
  return std::noop_coroutine();
}

TaskRecord* TaskRecord::of_sink(EndSink* sink) noexcept {
  return sink->ended == has_ended ? static_cast<TaskRecord*>(sink) : nullptr;
}

void TaskRecord::end_by_force(std::exception_ptr error) noexcept {
  mark_observed();  // whoever does this tells it himself
  set_error_outcome(std::move(error));
  finish(SlotState::error);
}

void TaskRecord::finish(SlotState outcome) noexcept {
  Executor& executor = *executor_;

  // 1. Nobody cancels the task any more; its tokens go quiet.
  root_.close();
  token_link_.reset();
  const auto effects = root_.exit();
  detach_tokens(effects.tokens);
  detach_tokens(effects.dropped);
  detach_tokens(root_.take_tokens());

  // 2. The outcome is published. An error waits for somebody to see it, beyond the executor's life
  // if need be.
  handler_ = ExecutorAccess::services(executor).handler();
  publish(outcome);  // and 3.

  // 4. Without a handle nobody can ask for an error any more. seq_cst: pairs with drop_handle().
  if (outcome == SlotState::error && without_handles()) report_if_unobserved();

  // 5. The group, then the executor. Nothing of either is touched afterwards.
  if (owner_ != nullptr) owner_->child_ended(owner_, *this);
  // Only now, lest virtual time moves before those who waited are scheduled.
  if (current_executor() != &executor) note_task_ended_abroad(executor);
  ExecutorAccess::retire(executor, *this, outcome);
  release();
}

void TaskRecord::report_if_unobserved() noexcept {
  if (owner_ != nullptr || !claim_report(reported_))
    return;  // a group reports its children's errors itself
  std::string label;
  try {
    label = name();
  } catch (...) {
  }
  report_unobserved(handler_.get(), label, error());
}

void TaskRecord::report_callback_error(std::exception_ptr error) noexcept {
  std::string label;
  try {
    label = name();
  } catch (...) {
  }
  // The handler belongs to the executor, which is alive for a callback at the end of the task; a
  // later on_done() on a finished task runs on the caller's thread and has only stderr.
  report_unobserved(handler_.get(), label, std::move(error));
}

bool TaskRecord::cancel(ReasonRef reason) noexcept {
  return cancel_scope_now(root_, std::move(reason));
}

void TaskRecord::block_until_done() {
  refuse_on_worker("wait()");
  Executor* executor;
  {
    std::lock_guard guard(lock_);
    if (done()) return;
    executor = executor_;  // alive: it waits for this task, whose end needs the lock
    ExecutorAccess::enter(*executor);
  }
  struct Leave {
    Executor* executor;
    ~Leave() { ExecutorAccess::leave(*executor); }
  } leave{executor};
  ExecutorAccess::block_on(*executor, *this);
}

std::string TaskRecord::name() const {
  {
    std::lock_guard guard(lock_);
    if (name_) return *name_;
  }
  return "task-" + std::to_string(static_cast<std::uint64_t>(id_));
}

void TaskRecord::set_name(std::string name) {
  auto fresh = std::make_unique<std::string>(std::move(name));
  std::lock_guard guard(lock_);
  std::swap(name_, fresh);
}

void TaskRecord::describe(std::string& out, Deadline now) const {
  auto& self = const_cast<TaskRecord&>(*this);
  out +=
      '#';  // piece by piece: g++ 12 takes a sum of strings that begins so for an overlapping copy
  out += std::to_string(static_cast<std::uint64_t>(id_)) + " " + name();
  if (parent_id_ != TaskId{}) out += " (in a group)";
  const char* state = done()                                     ? "done"
                      : started_.load(std::memory_order_relaxed) ? "running"
                                                                 : "not started";
  std::string waits;
  if (!done()) {
    constexpr std::size_t kMost = 8;
    const char* seen[kMost];
    std::size_t count = 0;
    self.root_.visit_waiters(kMost, [&](const Waiter& w) noexcept { seen[count++] = w.what; });
    for (std::size_t i = 0; i < count; ++i) waits += (i == 0 ? " " : ", ") + std::string(seen[i]);
    if (group_waits_.load(std::memory_order_relaxed) != 0) {
      waits += std::string(count == 0 ? " " : ", ") + "the tasks of a group";
      ++count;
    }
    if (count != 0) state = "waiting for";
    if (root_.cancelled_itself()) waits += " [cancelled]";
  }
  char age[32];
  std::snprintf(age, sizeof age, "%.3f s", static_cast<double>(to_ns(now) - born_ns_) * 1e-9);
  out += std::string(": ") + state + waits + ", age " + age + "\n";
}

}  // namespace magpie::detail
