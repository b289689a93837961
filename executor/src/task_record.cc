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
#include <magpie/detail/local_queue.h>
#include <magpie/detail/one_line.h>
#include <magpie/detail/scope_visit.h>
#include <magpie/detail/spawn_impl.h>
#include <magpie/detail/task_extras.h>
#include <magpie/detail/task_record.h>
#include <magpie/detail/unobserved.h>
#include <magpie/errors.h>

namespace magpie::detail {

namespace {

// For the age in dumps some milliseconds do: the steady clock's coarse reading costs a fraction of
// the fine one.
std::int64_t in_ms(Deadline time) noexcept {
  return to_ns(time) / 1'000'000;
}
std::int64_t birth_in_ms(const ExecutorServices& services) {
  if (!services.steady) [[unlikely]]
    return in_ms(services.clock.now());
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 +
         static_cast<std::uint32_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace

TaskExtras& TaskRecord::extras() {
  TaskExtras* there = extras_.load(std::memory_order_acquire);
  if (there != nullptr) return *there;
  auto fresh = std::make_unique<TaskExtras>();
  // Release: pairs with the acquire loads of whoever finds them.
  if (!extras_.compare_exchange_strong(there, fresh.get(), std::memory_order_acq_rel,
                                       std::memory_order_acquire))
    return *there;
  return *fresh.release();
}

void TaskRecord::drop_what_few_have() noexcept {
  if (handler_ != nullptr) handler_->release();
  delete extras_.load(std::memory_order_relaxed);
}

const LocalsFrame* TaskRecord::locals() const noexcept {
  // Acquire: pairs with extras(); set_name() may make them at any time.
  const TaskExtras* const extras = extras_.load(std::memory_order_acquire);
  return extras != nullptr && extras->locals ? extras->locals->head() : nullptr;
}

Executor* TaskRecord::executor() const noexcept {
  return static_cast<const RegistryShard&>(TaskRegistry::table_of(place_)).executor;
}

TaskId TaskRecord::parent_id() const noexcept {
  // Under the lock: until it is done the group has not heard of its end, and is there.
  std::lock_guard guard(lock_);
  return in_group() && !done() ? of(*root_.parent()).id() : TaskId{};
}

TaskOwner* TaskRecord::owner() const noexcept {
  if (!in_group()) return nullptr;
  const TaskExtras* const extras = extras_.load(std::memory_order_acquire);
  return extras != nullptr && extras->owner != nullptr
             ? extras->owner
             : static_cast<const GroupScope*>(root_.parent())->owner;
}

void TaskRecord::launch(std::coroutine_handle<> coroutine, Runnable& node, Executor& executor,
                        GroupScope* group, TaskOwner* owner, SpawnOptions* options) {
  ExecutorServices& services = ExecutorAccess::services(executor);
  coroutine_ = coroutine.address();
  // This is a plain function: the thread stays the same.
  ThreadState* const thread = thread_state();
  id_ = next_task_id(*thread);
  root_.enter_root(group, this);
  try {
    const auto born = static_cast<std::uint64_t>(birth_in_ms(services));
    born_low_ = static_cast<std::uint32_t>(born);
    born_high_ = static_cast<std::uint8_t>(born >> 32);
    if (owner != nullptr) [[unlikely]]
      extras().owner = owner;
    // What the spawning strand sees; a group's child that another thread starts sees what the group
    // does.
    own_locals_ = group == nullptr || thread->executor != nullptr;
    if (own_locals_ && thread->locals != nullptr) [[unlikely]] {
      if (const LocalsFrame* const locals = locals_here(); locals != nullptr)
        extras().locals = std::make_unique<LocalsSnapshot>(locals);
    }
    if (options != nullptr) [[unlikely]] {
      if (!options->name_.empty()) extras().name = std::move(options->name_);
      if (options->token_.can_be_cancelled()) {
        extras().token_link = std::make_unique<TokenLink>(*this, options->token_);
        extras().token_link->arm();
      }
    }
    services.admit(executor, *this, node, thread->queue);
  } catch (...) {
    give_up();
    throw;
  }
}

// It was not admitted: destroys the unstarted frame, closes the scope.
void TaskRecord::give_up() noexcept {
  if (TaskExtras* const extras = extras_.load(std::memory_order_acquire); extras != nullptr)
    extras->token_link.reset();
  std::coroutine_handle<>::from_address(coroutine_).destroy();
  handler_ = nullptr;
  make_place();
  leave_root();
  drop_handle();
  release();
}

// Nobody cancels the task any more, and its tokens go quiet.
void TaskRecord::leave_root() noexcept {
  root_.close();
  const auto effects = root_.exit();
  detach_tokens(effects.tokens);
  detach_tokens(effects.dropped);
  detach_tokens(root_.take_tokens());
}

void TaskRecord::begin() noexcept {
  if (root_.cancelled()) [[unlikely]]
    return end_before_it_began();
  const auto coroutine = std::coroutine_handle<>::from_address(coroutine_);
  handler_ = nullptr;
  started_.store(true, std::memory_order_relaxed);
  resume_strand(coroutine, &root_);
}

// It was cancelled: its body never runs; its arguments are destroyed before anybody learns of its
// end.
void TaskRecord::end_before_it_began() noexcept {
  const auto coroutine = std::coroutine_handle<>::from_address(coroutine_);
  handler_ = nullptr;
  install_locals(root_);
  ReasonRef reason = root_.reason();
  coroutine.destroy();
  set_cancelled_outcome(std::move(reason));
  finish_and_wake(SlotState::cancelled);
}

void TaskRecord::end_by_force(std::exception_ptr error) noexcept {
  mark_observed();  // whoever does this tells it himself
  set_error_outcome(std::move(error));
  finish_and_wake(SlotState::error);
}

// The steps of executor/SHUTDOWN.md. What few tasks need comes in finish() only.

namespace {

// The only one that waited for a task, if that: it is what this worker does next, so it need not go
// through the deque, unless the loop is wanted for something else.
MAGPIE_ALWAYS_INLINE std::coroutine_handle<> go_on_with(JoinWaiter* waiter,
                                                        const LocalQueue* queue) noexcept {
  if (waiter == nullptr) return nullptr;
  if (waiter->is_awaited() && queue != nullptr && queue->executor == waiter->executor &&
      !queue->noticed()) [[likely]] {
    install_locals(*waiter->scope());
    return transfer(waiter->awaiting());
  }
  waiter->hand_over();
  return nullptr;
}

}  // namespace

inline bool TaskRecord::ends_simply(SlotState outcome, const LocalQueue* queue,
                                    const Executor& executor) const noexcept {
  // Relaxed: null is all that it is asked for.
  return queue != nullptr && queue->executor == &executor && queue->shard != nullptr &&
         !root_.has_had_tokens() && outcome != SlotState::error &&
         extras_.load(std::memory_order_relaxed) == nullptr &&
         !ExecutorAccess::services(executor).tracing();
}

inline void TaskRecord::keep_handler(const ExecutorServices& services) noexcept {
  if (CountedHandler* const handler = services.handler(); handler != nullptr) {
    handler->add_ref();
    handler_ = handler;
  }
}

std::coroutine_handle<> TaskRecord::has_ended(SlotState outcome) noexcept {
  const LocalQueue* const queue = local_queue();
  Executor* const home = executor();
  if (!ends_simply(outcome, queue, *home)) [[unlikely]]
    return go_on_with(finish(outcome), queue);
  ExecutorServices& services = ExecutorAccess::services(*home);
  RegistryShard& own = *queue->shard;
  const bool grouped = in_group();
  if (grouped) {  // 1
    root_.close();
    (void)root_.exit();
  }
  keep_handler(services);  // 2
  JoinWaiter* const waiter = publish_but_one(outcome);
  if (grouped) {  // 5; without an error this runs nothing of the user's
    TaskOwner* const told = static_cast<const GroupScope*>(root_.parent())->owner;
    told->child_ended(told, *this);
    forget_locals();  // those of the group, if it had none of its own
  }
  services.unlist(place_, &own);
  services.retire(outcome, &own);
  waiter != nullptr ? release_beside_waiter() : release();
  return go_on_with(waiter, queue);
}

void TaskRecord::finish_and_wake(SlotState outcome) noexcept {
  if (JoinWaiter* const waiter = finish(outcome); waiter != nullptr) waiter->hand_over();
}

JoinWaiter* TaskRecord::finish(SlotState outcome) noexcept {
  Executor& executor = *TaskRecord::executor();
  ExecutorServices& services = ExecutorAccess::services(executor);

  // 1. Nobody cancels the task any more from its token or from a group; its tokens go quiet. A root
  // of its own need not be closed: from 2 on cancel() sees the end, and until then it is a request
  // that came too late.
  if (TaskExtras* const extras = extras_.load(std::memory_order_acquire); extras != nullptr)
    extras->token_link.reset();
  if (in_group() || root_.has_had_tokens()) leave_root();
  if (services.tracing()) services.trace_task(TraceEvent::Kind::task_ends, *this);

  // 2. The outcome is published, and 3. An error waits for somebody to see it, beyond the
  // executor's life if need be.
  keep_handler(services);
  const bool abroad = current_executor() != &executor;
  JoinWaiter* waiter = nullptr;
  if (abroad || in_group()) {  // a group may run code of the user's in 5: nobody waits for that
    publish(outcome);
  } else {
    waiter = publish_but_one(outcome);
  }

  // 4. Without a handle nobody can ask for an error any more. seq_cst: pairs with drop_handle().
  if (outcome == SlotState::error && without_handles()) report_if_unobserved();

  // 5. The group, then the executor, which lists the task as done until then: a callback that hangs
  // shows in a dump. Nothing of either is touched afterwards.
  if (TaskOwner* const told = owner(); told != nullptr) told->child_ended(told, *this);
  // Its bindings lie in the record, or around the group. Values whose destructors spawn go with the
  // record.
  forget_locals();
  // Only now, lest virtual time moves before those who waited are scheduled.
  if (abroad) note_task_ended_abroad(executor);
  RegistryShard* const own = own_shard(executor);
  services.unlist(place_, own);
  if (own != nullptr) {
    services.retire(outcome, own);
  } else {
    ExecutorAccess::retire(executor, outcome);
  }
  waiter != nullptr ? release_beside_waiter() : release();
  return waiter;
}

void TaskRecord::report_if_unobserved() noexcept {
  // A group reports its children's errors itself.
  if (!in_group() && claim_report()) report(error());
}

void TaskRecord::report_callback_error(std::exception_ptr error) noexcept {
  report(std::move(error));
}

void TaskRecord::report(std::exception_ptr error) noexcept {
  std::string label;
  try {
    label = name();
  } catch (...) {
  }
  report_unobserved(handler_ != nullptr ? &handler_->call : nullptr, label, std::move(error));
}

bool TaskRecord::cancel(ReasonRef reason) noexcept {
  return !done() && cancel_scope_now(root_, std::move(reason));
}

void TaskRecord::block_until_done() {
  refuse_on_worker("wait()");
  Executor* home;
  {
    std::lock_guard guard(lock_);
    if (done()) return;
    home = executor();  // alive: it waits for this task, whose end needs the lock
    ExecutorAccess::enter(*home);
  }
  struct Leave {
    Executor* executor;
    ~Leave() { ExecutorAccess::leave(*executor); }
  } leave{home};
  ExecutorAccess::block_on(*home, *this);
}

std::string TaskRecord::name() const {
  {
    std::lock_guard guard(lock_);
    const TaskExtras* const extras = extras_.load(std::memory_order_acquire);
    if (extras != nullptr && extras->name) return *extras->name;
  }
  return "task-" + std::to_string(static_cast<std::uint64_t>(id_));
}

void TaskRecord::set_name(std::string name) {
  TaskExtras& mine = extras();
  std::optional<std::string> fresh(std::move(name));
  std::lock_guard guard(lock_);
  std::swap(mine.name, fresh);
}

void TaskRecord::describe(std::string& out, Deadline now) const {
  auto& self = const_cast<TaskRecord&>(*this);
  out +=
      '#';  // piece by piece: g++ 12 takes a sum of strings that begins so for an overlapping copy
  out += std::to_string(static_cast<std::uint64_t>(id_)) + " " + in_one_line(name());
  if (in_group()) out += " (in a group)";
  const char* state = done()                                     ? "done"
                      : started_.load(std::memory_order_relaxed) ? "running"
                                                                 : "not started";
  std::string waits;
  if (!done()) {
    constexpr std::size_t kMost = 8;
    const char* seen[kMost];
    std::size_t count = 0;
    ScopeVisit::waiters(self.root_, kMost,
                        [&](const Waiter& w) noexcept { seen[count++] = w.kind().what(w); });
    for (std::size_t i = 0; i < count; ++i) waits += (i == 0 ? " " : ", ") + std::string(seen[i]);
    if (group_waits_.load(std::memory_order_relaxed) != 0) {
      waits += std::string(count == 0 ? " " : ", ") + "the tasks of a group";
      ++count;
    }
    if (count != 0) state = "waiting for";
    if (root_.cancel_requested()) waits += " [cancelled]";
  }
  char age[32];
  const std::uint64_t born = born_low_ | static_cast<std::uint64_t>(born_high_) << 32;
  constexpr std::uint64_t kRange = std::uint64_t{1} << 40;
  std::uint64_t ms = (static_cast<std::uint64_t>(in_ms(now)) - born) & (kRange - 1);
  // Born after whoever dumps looked at the clock.
  constexpr std::uint64_t kDay = 86'400'000;
  if (ms > kRange - kDay) ms = 0;
  std::snprintf(age, sizeof age, "%.3f s", static_cast<double>(ms) * 1e-3);
  out += std::string(": ") + state + waits + ", age " + age + "\n";
}

}  // namespace magpie::detail
