// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <iostream>
#include <utility>
#include <vector>

#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/executor_services.h>
#include <magpie/detail/join.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/one_line.h>
#include <magpie/detail/unobserved.h>
#include <magpie/errors.h>

namespace magpie::detail {

ExecutorServices::ExecutorServices(const ExecutorOptions& options, Clock& the_clock)
    : clock(the_clock),
      steady(&the_clock == &system_steady_clock()),
      timers(the_clock),
      blocking(options.name, options.max_blocking_threads, options.blocking_keep_alive,
               the_clock.as_manual() != nullptr ? &the_clock.as_manual()->virtual_time() : nullptr),
      virtual_time_(the_clock.as_manual() != nullptr ? &the_clock.as_manual()->virtual_time()
                                                     : nullptr),
      shards_(new RegistryShard[kShards]),
      life_(shards_.get(), kShards) {
  StdEnv::prepare();  // before anybody makes one of the fences: they are of one kind from then on
  std::unique_ptr<CountedHandler> handler;  // attach() may throw
  if (options.on_unobserved_error)
    handler = std::make_unique<CountedHandler>(options.on_unobserved_error);
  if (virtual_time_ != nullptr) virtual_time_->attach(timers);
  handler_ = handler.release();
}

ExecutorServices::~ExecutorServices() {
  end_trace();
  if (virtual_time_ != nullptr) virtual_time_->detach();
  if (handler_ != nullptr) handler_->release();
}

void ExecutorServices::serve(Executor& executor) noexcept {
  executor_ = &executor;
  for (std::size_t i = 0; i < kShards; ++i) shards_[i].executor = &executor;
}

RegistryShard& ExecutorServices::shard_here() const noexcept {
  return shards_[thread_index() % kShards];
}

RegistryShard& ExecutorServices::make_own_shard() {
  std::lock_guard guard(own_shards_mutex_);
  RegistryShard& shard = *own_shards_.emplace_back(std::make_unique<RegistryShard>());
  shard.executor = executor_;
  life_.adopt(shard);
  return shard;
}

std::uint64_t ExecutorServices::live_others() const noexcept {
  const std::uint64_t ended = life_.sum(&RegistryShard::others_ended);
  return life_.sum(&RegistryShard::others_started) - ended;
}

std::uint64_t ExecutorServices::live_tasks() const noexcept {
  const std::uint64_t all = live();
  const std::uint64_t others = live_others();
  return all > others ? all - others : 0;
}

namespace {

bool from_inside(const Executor& executor) noexcept {
  return current_executor() == &executor;
}

}  // namespace

void ExecutorServices::throw_shut_down() {
  throw ExecutorShutdownError(
      "this executor has been shut down and takes no more work: spawn before shutdown(), or on "
      "another executor");
}

void ExecutorServices::admit_from_elsewhere(Executor& executor, TaskRecord& record,
                                            Runnable& node) {
  take_in<false>(executor, record, shard_here());
  executor.schedule(node);
}

void ExecutorServices::admit_post(Executor& executor) {
  RegistryShard* const own = own_shard(executor);
  RegistryShard& shard = own != nullptr ? *own : shard_here();
  if (!life_.admit(shard, own != nullptr || from_inside(executor), own != nullptr)) [[unlikely]] {
    throw ExecutorShutdownError(
        "this executor has been shut down and takes no more work: post before shutdown(), or to "
        "another executor");
  }
  life_.raise(shard.others_started, own != nullptr);
}

void ExecutorServices::retire_post(RegistryShard* own) noexcept {
  RegistryShard& here = own != nullptr ? *own : shard_here();
  life_.raise(here.others_ended, own != nullptr);
  life_.end(here, own != nullptr);
}

bool ExecutorServices::wait_idle(const std::atomic<bool>* stop_waiting, bool dump_when_slow) {
  const auto over = [&]() noexcept {
    return stop_waiting != nullptr && stop_waiting->load(std::memory_order_acquire);
  };
  const auto idle = [&]() noexcept { return live() == 0 || over(); };
  struct Thread : BlockedThread {
    decltype(idle)* condition;
  } thread;
  thread.condition = &idle;
  thread.over = [](const BlockedThread& base) noexcept {
    return (*static_cast<const Thread&>(base).condition)();
  };
  if (virtual_time_ != nullptr) virtual_time_->waiter_begins(thread);
  constexpr std::uint64_t kSlowNs = 10'000'000'000;
  if (!dump_when_slow) {
    life_.wait_idle(over, std::nullopt);
  } else if (!life_.wait_idle(over, StdEnv::now_ns() + kSlowNs)) {
    std::cerr << "magpie: an executor's destructor has been waiting for 10 s for what does not "
                 "end:\n";
    try {
      dump(std::cerr);
    } catch (...) {
      // No memory for it; the destructor goes on waiting.
    }
    life_.wait_idle(over, std::nullopt);
  }
  if (virtual_time_ != nullptr) virtual_time_->waiter_ends(thread);
  return live() == 0;
}

void ExecutorServices::cancel_all(const ReasonRef& reason) noexcept {
  life_.set_phase(Phase::cancelling);
  for_each_task([&](TaskRecord& record) noexcept { record.cancel(reason); });
}

namespace {

// The end of a drain, in the executor's own time.
struct DrainTimer : Timer {
  explicit DrainTimer(ExecutorServices& the_services) : services(&the_services) {
    claim = [](Timer* timer) noexcept {
      return static_cast<DrainTimer*>(timer)->word.begin_fire();
    };
    fire = [](Timer* timer) noexcept {
      auto* const self = static_cast<DrainTimer*>(timer);
      self->expired.store(true, std::memory_order_release);
      self->services->poke();
      self->word.end_fire();
    };
  }
  ExecutorServices* services;
  TimerWord<StdEnv> word;
  std::atomic<bool> expired{false};
};

}  // namespace

ShutdownReport ExecutorServices::shutdown(Duration drain, bool destructor) {
  std::lock_guard only_one(shutdown_mutex_);
  if (life_.phase() == Phase::closed) return {};
  const std::uint64_t completed = life_.sum(&RegistryShard::completed);
  const std::uint64_t cancelled = life_.sum(&RegistryShard::cancelled);
  life_.set_phase(Phase::draining);
  if (virtual_time_ != nullptr)
    virtual_time_->set_auto_advance(true);  // or cleanups that sleep would never end
  if (drain.is_never()) {
    wait_idle(nullptr, destructor);
  } else if (drain.count() > 0 && virtual_time_ == nullptr && &clock == &system_steady_clock()) {
    // Who waits keeps the time itself: without memory for the monitor's thread nobody serves a
    // timer of this thread.
    life_.wait_idle([]() noexcept { return false; }, to_ns(deadline_after(clock.now(), drain)));
  } else if (drain.count() > 0) {
    DrainTimer timer(*this);
    timer.deadline_ns = to_ns(deadline_after(clock.now(), drain));
    TimerShard& shard = timers.shard_here();
    {
      std::lock_guard guard(shard.lock);
      Timers::arm(shard, timer);
    }
    timers.armed(timer.deadline_ns);
    wait_idle(&timer.expired, destructor);
    {
      std::lock_guard guard(shard.lock);
      Timers::disarm(shard, timer);
    }
    timer.word.disarm();
  }
  // A value may be destroyed, on its task's worker, after the task was counted out: what its
  // destructor brought before the door was closed has been admitted. So it is closed until nothing
  // is live behind it.
  do {
    if (live() != 0) {
      cancel_all(ReasonRef::of_kind(CancelKind::shutdown));
      wait_idle(nullptr, destructor);
    }
    life_.set_phase(Phase::closed);
  } while (live() != 0);
  return {static_cast<std::size_t>(life_.sum(&RegistryShard::completed) - completed),
          static_cast<std::size_t>(life_.sum(&RegistryShard::cancelled) - cancelled)};
}

namespace {

struct DumpLine {
  TaskId id;
  TaskId parent;
  std::string text;
  std::size_t first_child;  // indices of other lines
  std::size_t next_sibling;
};

// Children below their parents, by their ids. Nesting may be deep, so there is no recursion and
// indentation ends somewhere. A child whose parent is not there any more, as the lines were not
// gathered at one instant, counts as a root.
std::string as_tree(std::vector<DumpLine>& lines) {
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  constexpr std::size_t kDeepest = 32;
  std::sort(lines.begin(), lines.end(),
            [](const DumpLine& a, const DumpLine& b) { return a.id < b.id; });
  std::size_t first_root = kNone;
  for (DumpLine& line : lines) line.first_child = kNone;
  for (std::size_t i = lines.size(); i > 0; --i) {
    DumpLine& line = lines[i - 1];
    const auto parent = std::lower_bound(lines.begin(), lines.end(), line.parent,
                                         [](const DumpLine& l, TaskId id) { return l.id < id; });
    const bool found = parent != lines.end() && parent->id == line.parent;
    std::size_t& first = found ? parent->first_child : first_root;
    line.next_sibling = std::exchange(first, i - 1);
  }
  std::string text;
  std::vector<std::size_t>
      path;  // what comes after the present line, for it and for each of its ancestors
  for (std::size_t i = first_root; i != kNone || !path.empty();) {
    if (i == kNone) {
      i = path.back();
      path.pop_back();
      continue;
    }
    text.append(2 * (std::min(path.size(), kDeepest) + 1), ' ');
    text += lines[i].text;
    path.push_back(lines[i].next_sibling);
    i = lines[i].first_child;
  }
  return text;
}

}  // namespace

void ExecutorServices::dump(std::ostream& out) const {
  std::vector<DumpLine> lines;
  const Deadline now = clock.now();
  for_each_task([&](TaskRecord& record) {
    DumpLine& line = lines.emplace_back(DumpLine{record.id(), record.parent_id(), {}, 0, 0});
    record.describe(line.text, now);
  });
  out << lines.size() << (lines.size() == 1 ? " live task\n" : " live tasks\n") << as_tree(lines);
  if (const std::uint64_t others = live_others(); others != 0) {
    out << others
        << " more to wait for: functions that were posted, strands of other executors that visit "
           "this one\n";
  }
}

void ExecutorServices::unobserved(std::string_view name, std::exception_ptr error) noexcept {
  report_unobserved(handler_ != nullptr ? &handler_->call : nullptr, name, std::move(error));
}

void report_unobserved(const UnobservedHandler* handler, std::string_view name,
                       std::exception_ptr error) noexcept {
  try {
    if (handler != nullptr) {
      (*handler)(name, std::move(error));
      return;
    }
    const std::string line = in_one_line("magpie: nobody asked for the error of " +
                                         std::string(name) + ": " + describe(error)) +
                             "\n";
    std::fputs(line.c_str(), stderr);
  } catch (...) {
    std::fputs("magpie: on_unobserved_error threw\n", stderr);
  }
}

}  // namespace magpie::detail

namespace magpie {

namespace {

// All executors, the newest first.
constinit std::mutex live_executors_mutex;
constinit Executor* newest_executor = nullptr;

}  // namespace

Executor::Executor(std::unique_ptr<detail::ExecutorServices> services) noexcept
    : services_(services.release()) {
  services_->serve(*this);
  std::lock_guard guard(live_executors_mutex);
  older_ = newest_executor;
  if (older_ != nullptr) older_->newer_ = this;
  newest_executor = this;
}
Executor::~Executor() {
  {
    std::lock_guard guard(live_executors_mutex);
    (newer_ != nullptr ? newer_->older_ : newest_executor) = older_;
    if (older_ != nullptr) older_->newer_ = newer_;
  }
  delete services_;
}
void Executor::is_made() noexcept {
  std::lock_guard guard(live_executors_mutex);
  made_ = true;
}
void Executor::is_unmade() noexcept {
  std::lock_guard guard(live_executors_mutex);
  made_ = false;
}

Clock& Executor::clock() const noexcept {
  return services_->clock;
}
void Executor::dump_tasks(std::ostream& out) const {
  services_->dump(out);
}

ExecutorStats Executor::stats() const {
  ExecutorStats stats;
  stats.live_tasks = static_cast<std::size_t>(services_->live_tasks());
  stats.pending_timers = services_->timers.pending();
  stats.heavy_fences = detail::StdEnv::heavy_fences();
  return stats;
}

void Executor::await_task(detail::TaskRecord& record) {
  detail::VirtualTime* const time = services_->virtual_time();
  struct Thread : detail::BlockedThread {
    detail::TaskRecord* record;
  } thread;
  thread.record = &record;
  thread.over = [](const detail::BlockedThread& base) noexcept {
    return static_cast<const Thread&>(base).record->done();
  };
  if (time != nullptr) time->waiter_begins(thread);
  record.wait_done();
  if (time != nullptr) time->waiter_ends(thread);
}

bool Executor::on_own_thread() const noexcept {
  const detail::LocalQueue* const queue = detail::local_queue();
  return queue != nullptr && queue->executor == this;
}

namespace detail {

Timers& ExecutorAccess::timers(const Executor& executor) noexcept {
  return executor.services_->timers;
}
BlockingPool& ExecutorAccess::blocking(const Executor& executor) noexcept {
  return executor.services_->blocking;
}
VirtualTime* ExecutorAccess::virtual_time(const Executor& executor) noexcept {
  return executor.services_->virtual_time();
}
void ExecutorAccess::retire(Executor& executor, SlotState outcome) noexcept {
  ExecutorServices& services = *executor.services_;
  if (RegistryShard* const own = own_shard(executor); own != nullptr || executor.on_own_thread())
      [[likely]] {
    services.retire(outcome, own);
    return;
  }
  services.enter();
  services.retire(outcome, nullptr);
  services.leave();
}
void ExecutorAccess::admit_post(Executor& executor) {
  executor.services_->admit_post(executor);
}
void ExecutorAccess::retire_post(Executor& executor) noexcept {
  ExecutorServices& services = *executor.services_;
  if (RegistryShard* const own = own_shard(executor); own != nullptr || executor.on_own_thread())
      [[likely]] {
    services.retire_post(own);
    return;
  }
  services.enter();
  services.retire_post(nullptr);
  services.leave();
}
void ExecutorAccess::unobserved(Executor& executor, std::string_view name,
                                std::exception_ptr error) noexcept {
  executor.services_->unobserved(name, std::move(error));
}
void ExecutorAccess::show_all(std::ostream& out) {
  std::lock_guard guard(live_executors_mutex);
  const auto each = [](auto show) {
    for (const Executor* executor = newest_executor; executor != nullptr;
         executor = executor->older_)
      show(*executor);
  };
  each([&](const Executor& executor) { executor.dump_tasks(out); });
  each([&](const Executor& executor) {
    if (executor.made_) out << to_prometheus(executor.stats()) << std::flush;
  });
}
void ExecutorAccess::enter(Executor& executor) noexcept {
  executor.services_->enter();
}
void ExecutorAccess::leave(Executor& executor) noexcept {
  executor.services_->leave();
}

void note_strand_moves(Executor& home, const Executor* from, const Executor* to) noexcept {
  VirtualTime* const time = ExecutorAccess::virtual_time(home);
  if (time == nullptr || (from == &home) == (to == &home)) return;
  from == &home ? time->visit_begins() : time->visit_ends();
}

void note_task_ended_abroad(Executor& home) noexcept {
  Executor* const here = current_executor();
  note_strand_moves(home, here, &home);
  ExecutorAccess::retire_post(*here);
}

ComingHome::ComingHome(const Scope& scope, Executor& home) noexcept
    : home_(home), own_(*TaskRecord::of(scope).executor()), here_(*current_executor()) {
  if (&here_ == &home_) return;
  ExecutorAccess::enter(own_);  // alive until the destructor has done with it
  if (&here_ == &own_) note_strand_moves(own_, &here_, &home_);
}

ComingHome::~ComingHome() {
  if (&here_ == &home_) return;
  if (&here_ != &own_) {
    note_strand_moves(own_, &here_, &home_);
    ExecutorAccess::retire_post(here_);
  }
  ExecutorAccess::leave(own_);
}

void refuse_on_worker(const char* what) {
  if (current_executor() == nullptr) return;
  throw std::logic_error(std::string(what) +
                         " was called on a thread that runs tasks, which it would block: co_await "
                         "the task there, or call it from another thread");
}

}  // namespace detail
}  // namespace magpie
