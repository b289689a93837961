// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <pthread.h>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/job.h>
#include <magpie/detail/join.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/look_note.h>
#include <magpie/detail/thread_name.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/worker.h>
#include <magpie/topology.h>

namespace magpie::detail {
namespace {

// How many injected items an idle worker takes along; the rest can be stolen from it.
constexpr std::size_t kInboxBatch = 16;
// How many items are lifted so that the parts of a bundle come below them.
constexpr std::size_t kLiftedAtMost = 64;

// A worker that waits for a job runs others' jobs on top of what waits, and these may wait in turn.
// A quarter of the stack is for that; what is left is for the last of them.
std::uintptr_t help_limit_of_this_thread() noexcept {
  pthread_attr_t attributes;
  void* lowest = nullptr;
  std::size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
  }
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const auto low = reinterpret_cast<std::uintptr_t>(lowest);
  constexpr std::uintptr_t kOtherwise = 64 * 1024;
  return low != 0 && low < here ? here - (here - low) / 4 : here - kOtherwise;
}

}  // namespace

Worker::Worker(WorkStealingMachine& the_machine, std::size_t the_index)
    : machine(the_machine), index(the_index), random(0x6d61677069650000ULL + the_index) {
  executor = &machine.executor_;
  attention = &machine.attention_;
  attend = &WorkStealingMachine::attend;
}

std::size_t WorkStealingMachine::wanted_threads(std::size_t option) {
  if (option == 0) return std::min(available_parallelism(), kMostThreads);
  if (option > kMostThreads) {
    throw std::invalid_argument(
        "an executor can have 1 to 4096 threads (0: as many as the machine offers), not " +
        std::to_string(option));
  }
  return option;
}

WorkStealingMachine::WorkStealingMachine(Executor& executor, ExecutorServices& services,
                                         const ExecutorOptions& options)
    : executor_(executor), services_(services), name_(options.name) {
  const std::size_t threads = wanted_threads(options.threads);
  if (options.pin_threads) {
    cpus_ = affinity_cpus_in_topology_order();
    // Threads that a pinned worker starts would be pinned with it.
    services_.timers.keep_on(cpus_);
    services_.blocking.keep_on(cpus_);
  }
  // Not available_parallelism(): an explicit number of threads holds whatever MAGPIE_THREADS says.
  const std::size_t processors =
      probe("", std::max(std::thread::hardware_concurrency(), 1U)).usable();
  most_spinners_ = std::max<std::size_t>(1, std::min(processors, threads) / 2);
  workers_ = std::make_unique<std::atomic<Worker*>[]>(kMostThreads);
  StdEnv::prepare();
  if (!StdEnv::asymmetric()) attention_.store(attention::kFence, std::memory_order_relaxed);
  try {
    start_workers(0, threads);
  } catch (...) {
    stop();
    delete_workers();
    throw;
  }
}

WorkStealingMachine::~WorkStealingMachine() {
  stop();
  delete_workers();
}

void WorkStealingMachine::delete_workers() noexcept {
  for (std::size_t i = 0; i < slots_.load(std::memory_order_relaxed); ++i)
    delete workers_[i].load();
}

void WorkStealingMachine::stop() noexcept {
  std::lock_guard guard(resize_mutex_);
  const std::size_t had = target_.load(std::memory_order_relaxed);
  end_workers(0, had);
}

void WorkStealingMachine::start_workers(std::size_t from, std::size_t to) {
  std::size_t index = from;
  try {
    for (; index < to; ++index) {
      Worker* worker = workers_[index].load(std::memory_order_relaxed);
      if (worker == nullptr) {
        RegistryShard& shard = services_.make_own_shard();
        worker = new Worker(*this, index);
        worker->shard = &shard;
        workers_[index].store(worker, std::memory_order_release);  // pairs with the thieves' loads
        slots_.store(index + 1, std::memory_order_release);
      }
      if (VirtualTime* const time = services_.virtual_time(); time != nullptr) time->work_begins();
      target_.store(index + 1, std::memory_order_seq_cst);
      running_.store(index + 1, std::memory_order_seq_cst);
      StdEnv::fence_seq_cst();  // before the worker's first look at attention: all_sleep_but()
      try {
        worker->thread = std::thread([this, worker] { work(*worker); });
      } catch (...) {
        target_.store(index, std::memory_order_seq_cst);
        running_.store(index, std::memory_order_seq_cst);
        if (VirtualTime* const time = services_.virtual_time(); time != nullptr) time->work_ends();
        throw;
      }
    }
  } catch (...) {
    end_workers(from, index);
    throw;
  }
}

// Under resize_mutex_ or in the constructor. The workers finish their current piece and hand over
// what they have.
void WorkStealingMachine::end_workers(std::size_t from, std::size_t to) noexcept {
  if (from >= to) return;
  target_.store(from, std::memory_order_seq_cst);
  attention_.fetch_or(attention::kLoop, std::memory_order_seq_cst);
  sleepers_.notify_all();
  nappers_.wake_all();
  for (std::size_t i = from; i < to; ++i) {
    Worker& worker = *workers_[i].load(std::memory_order_relaxed);
    if (worker.thread.joinable()) worker.thread.join();
  }
  running_.store(from, std::memory_order_seq_cst);
  attention_.fetch_and(~attention::kLoop, std::memory_order_seq_cst);
}

void WorkStealingMachine::resize(std::size_t threads) {
  refuse_on_worker("resize()");
  const std::size_t wanted = wanted_threads(threads);
  std::lock_guard guard(resize_mutex_);
  const std::size_t now = target_.load(std::memory_order_relaxed);
  if (wanted > now) {
    start_workers(now, wanted);
  } else {
    end_workers(wanted, now);
  }
}

void WorkStealingMachine::pin(std::size_t index) noexcept {
  if (!cpus_.empty()) keep_this_thread_on({&cpus_[index % cpus_.size()], 1});
}

// --- work comes in -------------------------------------------------------------------------------

void WorkStealingMachine::schedule(Runnable& work) noexcept {
  LocalQueue* const queue = local_queue();
  if (queue == nullptr || queue->executor != &executor_) [[unlikely]]
    return inject(work);
  const auto item = reinterpret_cast<std::uintptr_t>(&work);
  queue->deque.owner().with_room_for(
      1,
      [&](auto batch) {
        batch.add(item);
        batch.commit();
        StdEnv::light_fence();  // P6, as in push()
        const std::uint32_t bits = attention_.load(std::memory_order_relaxed);
        if ((bits & attention::kForPushes) != 0) [[unlikely]]
          attend_to_strand(*queue, bits);
      },
      [&] { schedule_without_room(*queue, work); });
}

MAGPIE_NOINLINE void WorkStealingMachine::schedule_without_room(LocalQueue& queue,
                                                                Runnable& work) noexcept {
  if (!queue.deque.owner().push(reinterpret_cast<std::uintptr_t>(&work))) return inject(work);
  attend_to_strand(queue, attention_.load(std::memory_order_relaxed));
}

// Behind the push of a strand.
void WorkStealingMachine::attend_to_strand(LocalQueue& queue, std::uint32_t bits) noexcept {
  if ((bits & attention::kForPushes) == 0) return;
  // Somebody naps, and it is one more strand that is passed on: nothing for him.
  if ((bits & attention::kForHops) == 0 && queue.deque.size_hint() <= 1) return;
  attend(&queue);
}

void WorkStealingMachine::schedule_behind(Runnable& work) noexcept {
  LocalQueue* const queue = local_queue();
  if (queue == nullptr || queue->executor != &executor_) return inject(work);
  static_cast<Worker*>(queue)->prefer_oldest = true;
  schedule(work);
}

void WorkStealingMachine::inject(Runnable& work) noexcept {
  // Once the work is in the queue, it may run, end its task and with it the executor's life:
  // whoever is not one of its own threads holds it open.
  const bool visitor = local_queue() == nullptr || local_queue()->executor != &executor_;
  if (visitor) services_.enter();
  if (VirtualTime* const time = services_.virtual_time(); time != nullptr) time->work_begins();
  inbox_.push(work);
  StdEnv::fence_seq_cst();  // the push before the look; pairs with take_from_inbox() and park()
  std::uint32_t bits = attention_.load(std::memory_order_relaxed);
  if ((bits & attention::kInbox) == 0)
    bits = attention_.fetch_or(attention::kInbox, std::memory_order_seq_cst);
  wake_idle(bits, true);
  if (visitor) services_.leave();
}

// P2. Whoever takes the bit away wakes so many; they set it again if others still sleep. False:
// nobody was woken.
bool WorkStealingMachine::wake(std::uint32_t most) noexcept {
  if (most == 0) return false;
  const std::uint32_t before =
      attention_.fetch_and(~attention::kSleepers, std::memory_order_seq_cst);
  return (before & attention::kSleepers) != 0 && sleepers_.notify(most);
}

// After a push: wakes one of those who sleep, or, for more than a strand that is passed on, one of
// those who nap. False: nobody was woken.
bool WorkStealingMachine::wake_idle(std::uint32_t bits, bool new_work) noexcept {
  if ((bits & attention::kSleepers) != 0 && wake(1)) return true;
  return new_work && (bits & attention::kNappers) != 0 && nappers_.wake_one(attention_);  // N4
}

bool WorkStealingMachine::attend(LocalQueue* queue) noexcept {
  WorkStealingMachine& machine = static_cast<Worker*>(queue)->machine;
  std::uint32_t bits = machine.attention_.load(std::memory_order_relaxed);
  machine.wake_idle(bits,
                    (bits & attention::kNappers) != 0 && beyond_a_strand(queue->deque.owner()));
  if ((bits & attention::kInbox) != 0 && machine.inbox_.empty()) bits = machine.unmark_inbox();
  return (bits & (attention::kInbox | attention::kLoop)) != 0;
}

// After a look that found nothing, not with the last piece: where one came, the next one mostly
// follows, and would have to set the mark again.
std::uint32_t WorkStealingMachine::unmark_inbox() noexcept {
  const std::uint32_t bits =
      attention_.fetch_and(~attention::kInbox, std::memory_order_seq_cst) & ~attention::kInbox;
  // Whoever pushed before this saw the bit, or is seen now: pairs with the fence in inject().
  if (inbox_.still_empty()) return bits;
  return attention_.fetch_or(attention::kInbox, std::memory_order_seq_cst) | attention::kInbox;
}

// --- a worker's life -----------------------------------------------------------------------------

bool WorkStealingMachine::leaving(const Worker& self) const noexcept {
  return self.index >= target_.load(std::memory_order_relaxed);
}

void WorkStealingMachine::work(Worker& self) noexcept {
  name_this_thread(name_, "", self.index);
  pin(self.index);
  const ExecutorThreadScope on_executor(&executor_, &self);
  self.timers = &services_.timers.shard_here();
  self.help_limit = help_limit_of_this_thread();
  self.counters.since_ns.store(static_cast<std::int64_t>(StdEnv::now_ns()),
                               std::memory_order_relaxed);
  self.counters.idle_ns.store(0, std::memory_order_relaxed);
  self.counters.until_ns.store(0, std::memory_order_relaxed);
  while (!leaving(self)) {
    std::uintptr_t item = next_item(self);
    if (item == 0) item = search(self);
    if (item != 0) {
      if (self.woken) [[unlikely]]
        pass_on_wake_up(self);
      execute(self, item);
    } else if (!leaving(self)) {
      // Who has left a strand to its worker does not come to the sleepers' bit: the next strand
      // that is passed on would wake another, who could do no more, and so on.
      self.left_some ? nap(self) : park(self);
    }
  }
  hand_over(self);
  if (self.woken) pass_on_wake_up(self);
  self.counters.until_ns.store(static_cast<std::int64_t>(StdEnv::now_ns()),
                               std::memory_order_relaxed);
  // The last to be busy may be the one that leaves: what it then fires instead comes to its own
  // deque, where nobody counts it.
  if (VirtualTime* const time = services_.virtual_time(); time != nullptr) {
    while (time->worker_parks()) hand_over(self);
  }
  const auto any = [this](auto&& shows) noexcept { return any_mark(shows); };
  self.deque.owner().give_back_rings(any);
  self.jobs.owner().give_back_rings(any);
}

void WorkStealingMachine::execute(Worker& self, std::uintptr_t item) noexcept {
  WorkerCounters::add<std::uint64_t>(self.counters.tasks_run);
  const std::uint64_t traced_from = services_.tracing() ? StdEnv::now_ns() : 0;
  if ((item & kForkTag) != 0) {
    run_fork_item(item);
  } else if ((item & kJobTag) == 0) {
    reinterpret_cast<Runnable*>(item)->run();
  } else {
    run_job(self, *self.robbed, reinterpret_cast<Job*>(item & ~kTagMask));
  }
  forget_locals();
  if (traced_from != 0) [[unlikely]]
    trace(TraceEvent::Kind::piece, traced_from);
}

// What has begun at that time and ends now; a steal has no length.
void WorkStealingMachine::trace(TraceEvent::Kind kind, std::uint64_t from_ns) noexcept {
  const std::uint64_t length = kind == TraceEvent::Kind::steal ? 0 : StdEnv::now_ns() - from_ns;
  services_.trace({.kind = kind, .at_ns = from_ns, .for_ns = length});
}

void WorkStealingMachine::housekeeping(Worker& self) noexcept {
  const std::uint64_t now = StdEnv::now_ns();
  self.deque.owner().between_operations(now);
  self.jobs.owner().between_operations(now);
  const auto any = [this](auto&& shows) noexcept { return any_mark(shows); };
  self.deque.owner().tend_rings(now, any);
  self.jobs.owner().tend_rings(now, any);
  if (services_.virtual_time() == nullptr &&
      self.timers->earliest.load(std::memory_order_relaxed) != kNeverNs) {
    services_.timers.serve(*self.timers, services_.timers.now_ns());
  }
}

// Mostly nothing is due and nobody posts.
std::uintptr_t WorkStealingMachine::next_item(Worker& self) noexcept {
  const bool posts = (attention_.load(std::memory_order_relaxed) & attention::kInbox) != 0;
  if (--self.until_care == 0 || posts || self.from_inbox != 0) [[unlikely]]
    return next_item_with_care(self, posts);
  return self.prefer_oldest ? oldest_item(self) : newest_item(self);
}

MAGPIE_NOINLINE std::uintptr_t WorkStealingMachine::next_item_with_care(Worker& self,
                                                                        bool posts) noexcept {
  if (self.until_care == 0) {
    self.until_care = kHousekeepingEvery;
    self.prefer_oldest = true;
    housekeeping(self);
  }
  // The inbox and the deque take turns, so that neither starves: what was taken along from the
  // inbox comes out of the deque first, then an item of its own.
  if (self.from_inbox != 0) {
    --self.from_inbox;
  } else if (posts && (self.deque.size_hint() != 0 || (self.inbox_due && !inbox_.empty()))) {
    // With nothing to do at all the mark may stay: the next one to push need not set it again.
    if (const std::uintptr_t item = take_from_inbox(self); item != 0) return item;
  }
  return self.prefer_oldest ? oldest_item(self) : newest_item(self);
}

inline std::uintptr_t WorkStealingMachine::newest_item(Worker& self) noexcept {
  if (const std::uintptr_t item = self.deque.owner().pop(); item != 0) [[likely]] {
    WorkerCounters::add<std::uint64_t>(self.counters.local_pops);
    return item;
  }
  // The queue itself is asked, not the bit: who pushed may be held up before it sets that, and this
  // worker would look for work, and see it, for as long.
  return !self.inbox_due || inbox_.empty() ? 0 : take_from_inbox(self);
}

MAGPIE_NOINLINE std::uintptr_t WorkStealingMachine::oldest_item(Worker& self) noexcept {
  self.prefer_oldest = false;
  const std::uintptr_t item = self.deque.owner().take_oldest();
  if (item == 0) return newest_item(self);
  WorkerCounters::add<std::uint64_t>(self.counters.local_pops);
  return is_bundle(item) ? open_oldest(self, item) : item;
}

// A bundle that was the oldest: its first child is one piece, the others are the oldest still. On
// top of the deque they would be run, one after the other, before what lies there now.
std::uintptr_t WorkStealingMachine::open_oldest(Worker& self, std::uintptr_t bundle) noexcept {
  auto deque = self.deque.owner();
  std::array<std::uintptr_t, kLiftedAtMost> above;
  std::size_t lifted = 0;
  while (lifted < above.size()) {
    const std::uintptr_t item = deque.pop();
    if (item == 0) break;
    above[lifted++] = item;
  }
  Fork& first = fork_of(bundle);
  unbundle(first, &self);
  while (lifted != 0) {
    const std::uintptr_t item = above[--lifted];
    if (!deque.push(item)) inject_item(item);
  }
  self.wanted();  // P6: for all of these
  return tagged(&first, kForkTag);
}

std::uintptr_t WorkStealingMachine::take_from_inbox(Worker& self) noexcept {
  auto deque = self.deque.owner();
  const bool idle = deque.size_hint() == 0;
  std::array<Runnable*, kInboxBatch> taken;
  std::size_t count = 0;
  if (idle) {
    count = inbox_.pop_batch(taken.data(), kInboxBatch);
  } else if (Runnable* const work = inbox_.try_pop(); work != nullptr) {
    taken[count++] = work;
  }
  if (count == 0) {
    if (inbox_.empty()) unmark_inbox();
    return 0;
  }
  WorkerCounters::add<std::uint64_t>(self.counters.injected, count);
  self.from_inbox = count;
  self.inbox_due = self.in_stream == 0 || count == kInboxBatch;
  if (VirtualTime* const time = services_.virtual_time(); time != nullptr) {
    for (std::size_t i = 0; i < count; ++i) time->work_ends();  // this worker is counted itself
  }
  // The rest goes to the deque, newest first, so that it comes out in its order.
  for (std::size_t i = count; --i > 0;) {
    if (!deque.push(reinterpret_cast<std::uintptr_t>(taken[i]))) inject(*taken[i]);
  }
  if (count > 1) wake_idle(attention_.load(std::memory_order_relaxed), true);
  return reinterpret_cast<std::uintptr_t>(taken.front());
}

// P7. Whether a thief leaves the only item of `victim` to him: a strand that he has just woken, and
// will most likely run next, with everything at hand, sooner than somebody else could. Not if he
// runs the same piece for longer than the patience, and not if he has an item whenever somebody
// looks: then there is work for two. All thieves share the note, so that it does not matter who
// comes by.
bool WorkStealingMachine::leave_alone(Worker& self, Worker& victim) const noexcept {
  if (victim.deque.size_hint() != 1 || services_.virtual_time() != nullptr) return false;
  if ((victim.deque.thief(self.mark).peek() & kTagMask) != 0)
    return false;  // forks are made to be stolen
  const LookNote note(victim.looks.load(std::memory_order_relaxed));
  const LookNote::Verdict verdict =
      note.judge(victim.counters.tasks_run.load(std::memory_order_relaxed), StdEnv::now_ns());
  if (verdict.next != note.word()) victim.looks.store(verdict.next, std::memory_order_relaxed);
  return verdict.leave;
}

std::uintptr_t WorkStealingMachine::steal(Worker& self) noexcept {
  const std::size_t count = slots_.load(std::memory_order_acquire);  // pairs with start_workers()
  const std::size_t start = static_cast<std::size_t>(self.random.below(count));
  self.left_some = false;
  bool again = true;
  for (int round = 0; round < 2 && again; ++round) {
    again = false;
    for (std::size_t i = 0; i < count; ++i) {
      Worker* const victim = workers_[(start + i) % count].load(std::memory_order_acquire);
      if (victim == &self || victim == nullptr) continue;
      const bool empty = victim->deque.size_hint() == 0;
      if (empty && LookNote(victim->looks.load(std::memory_order_relaxed)).looks() != 0)
        victim->looks.store(0, std::memory_order_relaxed);
      const bool left = !empty && leave_alone(self, *victim);
      self.left_some |= left;
      if (empty || left) {
        if (const std::uintptr_t job = steal_job(self, *victim); job != 0) return job;
        continue;
      }
      WorkerCounters::add<std::uint64_t>(self.counters.steals_tried);
      const auto stolen = victim->deque.thief(self.mark).steal();
      if (stolen.outcome == Deque<StdEnv>::Steal::stolen) {
        WorkerCounters::add<std::uint64_t>(self.counters.steals_won);
        if (services_.tracing()) [[unlikely]]
          trace(TraceEvent::Kind::steal, StdEnv::now_ns());
        return stolen.item;
      }
      if (stolen.outcome == Deque<StdEnv>::Steal::retry) again = true;
    }
  }
  return 0;
}

// A worker that leaves gives what it has to the others.
void WorkStealingMachine::hand_over(Worker& self) noexcept {
  auto deque = self.deque.owner();
  for (;;) {
    const std::uintptr_t item = deque.pop();
    if (item == 0) return;
    inject_item(item);
  }
}

void WorkStealingMachine::inject_item(std::uintptr_t item) noexcept {
  inject((item & kForkTag) == 0 ? *reinterpret_cast<Runnable*>(item) : node_of_item(item));
}

// --- what one sees -------------------------------------------------------------------------------

void WorkStealingMachine::add_stats(ExecutorStats& stats) const {
  const std::size_t count = slots_.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < count; ++i) {
    const Worker* const worker = workers_[i].load(std::memory_order_acquire);
    if (worker == nullptr) continue;
    const WorkerCounters& c = worker->counters;
    WorkerStats w;
    w.tasks_run = c.tasks_run.load(std::memory_order_relaxed);
    w.local_pops = c.local_pops.load(std::memory_order_relaxed);
    w.steals_tried = c.steals_tried.load(std::memory_order_relaxed);
    w.steals_won = c.steals_won.load(std::memory_order_relaxed);
    w.injected = c.injected.load(std::memory_order_relaxed);
    w.parks = c.parks.load(std::memory_order_relaxed);
    w.wakeups = c.wakeups.load(std::memory_order_relaxed);
    w.queue_depth = worker->deque.size_hint() + worker->jobs.size_hint();
    const std::int64_t since = c.since_ns.load(std::memory_order_relaxed);
    std::int64_t until = c.until_ns.load(std::memory_order_relaxed);
    if (until == 0) until = static_cast<std::int64_t>(StdEnv::now_ns());
    if (since != 0) {
      w.idle = std::chrono::nanoseconds(c.idle_ns.load(std::memory_order_relaxed));
      w.busy =
          std::max(std::chrono::nanoseconds(until - since) - w.idle, std::chrono::nanoseconds(0));
    }
    stats.total.tasks_run += w.tasks_run;
    stats.total.local_pops += w.local_pops;
    stats.total.steals_tried += w.steals_tried;
    stats.total.steals_won += w.steals_won;
    stats.total.injected += w.injected;
    stats.total.parks += w.parks;
    stats.total.wakeups += w.wakeups;
    stats.total.busy += w.busy;
    stats.total.idle += w.idle;
    stats.total.queue_depth += w.queue_depth;
    stats.workers.push_back(w);
  }
}

}  // namespace magpie::detail
