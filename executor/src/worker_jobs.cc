// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// The jobs of fork_join: offered, stolen, taken back and waited for. The steps F1 to F11 are those
// of executor/FORK_JOIN.md.

#include <cstdint>
#include <optional>
#include <utility>

#include <magpie/detail/backoff.h>
#include <magpie/detail/job.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/worker.h>

namespace magpie::detail {
namespace {

// Who waits for a job looks at the clock after so many rounds: the first six are pauses, together
// some microseconds, the others leave the processor to whoever needs it, maybe the thief.
constexpr int kRoundsOfSpin = 8;

}  // namespace

// F2.
void announce_job(LocalQueue* queue) noexcept {
  StdEnv::light_fence();  // what the offer still owes where there is no membarrier
  static_cast<Worker*>(queue)->machine.wake_for_job();
}

bool offer_job_slowly(LocalQueue* queue, Job* job) noexcept {
  if (!queue->jobs.owner().push(reinterpret_cast<std::uintptr_t>(job))) return false;
  announce_job(queue);
  return true;
}

// At most one is woken: one that has nothing to do, or else one that waits for a job of its own.
// The sleepers' bit alone says nothing: it stays up when the last who set it has found work before
// it slept.
void WorkStealingMachine::wake_for_job() noexcept {
  const std::uint32_t bits = attention_.load(std::memory_order_relaxed);
  if (wake_idle(bits, true)) return;
  if ((bits & attention::kWaiters) != 0) wake_waiter();
}

void WorkStealingMachine::wake_waiter() noexcept {
  waiters_.wake_one(attention_, [this](auto&& woke) {
    const std::size_t count = slots_.load(std::memory_order_acquire);  // pairs with start_workers()
    for (std::size_t i = 0; i < count; ++i) {
      Worker* const worker = workers_[i].load(std::memory_order_acquire);
      if (worker != nullptr && woke(worker->bed)) return;
    }
  });
}

bool WorkStealingMachine::job_in_sight() const noexcept {
  const std::size_t count = slots_.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < count; ++i) {
    const Worker* const worker = workers_[i].load(std::memory_order_acquire);
    if (worker != nullptr && worker->jobs.size_hint() != 0) return true;
  }
  return false;
}

// F4. The item has the job's tag, and the victim is noted.
std::uintptr_t WorkStealingMachine::steal_job(Worker& self, Worker& victim) noexcept {
  if (victim.jobs.size_hint() == 0) return 0;
  WorkerCounters::add<std::uint64_t>(self.counters.steals_tried);
  const auto stolen = victim.jobs.thief(self.mark).steal();
  if (stolen.outcome != Deque<StdEnv>::Steal::stolen) return 0;
  WorkerCounters::add<std::uint64_t>(self.counters.steals_won);
  self.robbed = &victim;
  return stolen.item | kJobTag;
}

// F5 to F7. The owner outlives the call: it is a worker of this machine, and so is the caller.
void WorkStealingMachine::run_job(Worker& self, Worker& owner, Job* job) noexcept {
  const auto function =
      reinterpret_cast<Job::Function>(job->state.begin(reinterpret_cast<std::uintptr_t>(&self)));
  ThreadState* const thread = thread_state();  // the call is a plain one: the thread stays the same
  LocalsFrame* const locals = std::exchange(thread->locals, job->locals);
  function(job);
  thread->locals = locals;
  job->state.finish();
  owner.bed.job_done();
}

// Runs one job of another worker, if there is one: rather one of the thief's, which is a part of
// what the caller waits for.
bool WorkStealingMachine::help(Worker& self, std::uintptr_t thief, bool& woken) noexcept {
  std::uintptr_t item = 0;
  const std::size_t count = slots_.load(std::memory_order_acquire);  // pairs with start_workers()
  const auto start = static_cast<std::size_t>(self.random.below(count));
  for (std::size_t i = 0; i < count && item == 0; ++i) {
    Worker* const worker = workers_[i].load(std::memory_order_acquire);
    if (reinterpret_cast<std::uintptr_t>(worker) == thief) item = steal_job(self, *worker);
  }
  for (std::size_t i = 0; i < count && item == 0; ++i) {
    Worker* const victim = workers_[(start + i) % count].load(std::memory_order_acquire);
    if (victim != &self && victim != nullptr) item = steal_job(self, *victim);
  }
  if (item == 0) return false;
  Worker& owner = *self.robbed;  // what runs now may steal, too
  if (std::exchange(woken, false)) pass_on_from_bed();
  run_job(self, owner, reinterpret_cast<Job*>(item & ~kTagMask));
  return true;
}

// F11.
void WorkStealingMachine::pass_on_from_bed() noexcept {
  waiters_.pass_on(attention_, [this] { return job_in_sight(); }, [this] { wake_for_job(); });
}

bool take_back_or_wait(LocalQueue* queue, Job* job) noexcept {
  Worker& self = *static_cast<Worker*>(queue);
  auto jobs = self.jobs.owner();
  if (jobs.pop() != 0) {
    // Nobody else comes by while functions fork functions.
    if (++self.careful_takes % kHousekeepingEvery == 0) jobs.between_operations(StdEnv::now_ns());
    return true;
  }
  self.machine.wait_for(self, *job);
  return false;
}

// F8 to F11: runs jobs of others, then spins for about as long as a wake-up takes, then sleeps.
void WorkStealingMachine::wait_for(Worker& self, const Job& job) noexcept {
  bool woken = false;
  bool slept = false;
  std::uint64_t spin_until = 0;
  while (!job.state.done()) {
    // A worker that is to leave, or has used much of its stack, only waits: whoever has the job
    // goes on by itself.
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const bool helps = here > self.help_limit && !leaving(self);
    if (helps && help(self, job.state.thief(), woken)) {
      spin_until = 0;
      slept = false;
      continue;
    }
    const auto reason_to_stay_up = [&] { return job.state.done() || (helps && job_in_sight()); };
    const std::uint64_t now = StdEnv::now_ns();
    if (spin_until == 0) spin_until = now + kSpinNs;
    if (now < spin_until) {
      Backoff<StdEnv> backoff;
      for (int i = 0; i < kRoundsOfSpin && !reason_to_stay_up(); ++i) backoff.wait();
      continue;
    }
    woken = true;  // also where it stays up: it may have been notified
    // As in park(): a short sleep first, which needs no heavy fence. Nor does one who looks out for
    // no other jobs.
    std::optional<std::uint64_t> until;
    if (helps && !slept) until = now + kFirstSleepNs;
    const Slept how =
        waiters_.sleep(self.bed, attention_, helps, helps && slept, until, reason_to_stay_up);
    slept = how == Slept::until_deadline;
    if (how != Slept::not_at_all) {
      WorkerCounters::add<std::uint64_t>(self.counters.parks);
      WorkerCounters::add<std::int64_t>(self.counters.idle_ns,
                                        static_cast<std::int64_t>(StdEnv::now_ns() - now));
    }
    if (how == Slept::until_woken) WorkerCounters::add<std::uint64_t>(self.counters.wakeups);
    spin_until = slept ? 1 : 0;  // after a short sleep a long one, at once
  }
  if (woken) pass_on_from_bed();
}

}  // namespace magpie::detail
