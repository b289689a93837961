// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A worker without work: how it looks for some, how it sleeps, and what it does when it gets up.
// PARKING.md has the steps and the proof sketch.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/look_note.h>
#include <magpie/detail/worker.h>

namespace magpie::detail {
namespace {

// Who looks for work looks at the inbox all the time, but takes the lines that busy workers write
// at each push and pop less and less often while there is nothing to be had.
constexpr std::uint64_t kFirstLookNs = LookNote::kIntervalNs;
constexpr std::uint64_t kLastLookNs = 2'000;
// Where one post follows upon the other, a worker that takes each as it comes has the lines of the
// inbox travel to and fro for every one of them. In such a stream it comes by so often only, and
// finds several. At every so manieth search it tries whether there is one; after so many tries in
// which there was at most one post, it takes it to be over.
constexpr std::uint64_t kStreamNs = 600;
constexpr std::uint32_t kTryStreamEvery = 32;
constexpr std::uint32_t kStreamTries = 16;
// Who has looked for work all the time and seen only strands that he leaves to their workers (P7)
// looks away for so long, times those who do so, unless something else comes: together they look as
// often as one would.
constexpr std::uint64_t kNapNs = 100'000;
constexpr std::uint64_t kMostNaps = 16;
// So many does one who was woken wake in turn, if there is work for them: all are up after a few
// wake-ups that follow one upon the other.
constexpr std::uint32_t kWakeAtOnce = 2;

}  // namespace

// Looks everywhere, for a while. Nothing: `left_some` says whether it has left a strand to its
// worker.
std::uintptr_t WorkStealingMachine::search(Worker& self) noexcept {
  self.left_some = false;
  // Not before it has looked at the inbox again: a post would wait for what it steals to end.
  if (self.inbox_due) {
    if (const std::uintptr_t item = steal(self); item != 0) return item;
  }
  housekeeping(self);
  if (const std::uintptr_t item = next_item(self); item != 0) return item;
  if (services_.virtual_time() != nullptr) return 0;
  // A few workers keep looking for about as long as a wake-up takes; more would only heat the
  // machine. But whoever has left a strand to its worker cannot sleep, so he waits until it is
  // gone, or his.
  const bool spins = spinners_.load(std::memory_order_relaxed) < most_spinners_;
  if (!spins && !self.left_some) {
    if (std::exchange(self.inbox_due, true)) return 0;
    if (const std::uintptr_t item = next_item(self); item != 0) return item;
    if (const std::uintptr_t item = steal(self); item != 0 || !self.left_some) return item;
  }
  if (spins) spinners_.fetch_add(1, std::memory_order_relaxed);
  const bool stream = self.in_stream != 0 || ++self.searches % kTryStreamEvery == 0;
  std::uint64_t now = StdEnv::now_ns();
  const std::uint64_t until = now + (spins ? kSpinNs : LookNote::kPatienceNs);
  std::uint64_t interval = kFirstLookNs;
  std::uint64_t look = now + interval;
  std::uintptr_t item = 0;
  bool left_some = self.left_some;
  // After a nap that nobody ended the patience will do, if it is as before it.
  const std::uint64_t enough =
      std::exchange(self.napped, false) ? now + LookNote::kPatienceNs : until;
  do {
    const std::uint64_t blind_until = stream ? now + kStreamNs : now;
    do {
      StdEnv::pause();
      now = StdEnv::now_ns();
    } while (now < blind_until || (now < look && inbox_.empty()));
    self.from_inbox = 0;
    self.inbox_due = true;
    item = next_item(self);
    if (stream && self.from_inbox > 1) {
      self.in_stream = kStreamTries;
    } else if (self.in_stream != 0) {
      --self.in_stream;
    }
    if (item == 0) item = steal(self);
    left_some |= self.left_some;
    interval = std::min(2 * interval, kLastLookNs);
    look = now + interval;
  } while (item == 0 && now < (left_some ? enough : until) && !leaving(self));
  if (spins) spinners_.fetch_sub(1, std::memory_order_relaxed);
  self.left_some = left_some;
  return item;
}

// When the worker's own timer is due or rings of its deques are, by the steady clock; never:
// nothing.
std::optional<std::uint64_t> WorkStealingMachine::wants_to_be_up(Worker& self) const noexcept {
  std::optional<std::uint64_t> first = self.deque.owner().rings_due();
  const auto at = [&](std::uint64_t other) { first = std::min(first.value_or(other), other); };
  if (const auto due = self.jobs.owner().rings_due()) at(*due);
  const std::int64_t due = self.timers->earliest.load(std::memory_order_relaxed);
  if (due != kNeverNs)
    at(static_cast<std::uint64_t>(std::max<std::int64_t>(services_.timers.steady_ns(due), 0)));
  return first;
}

// N1 to N3. Without a heavy fence: it ends by itself.
void WorkStealingMachine::nap(Worker& self) noexcept {
  self.inbox_due = true;
  self.woken = true;  // as in park(), and from the sleep before
  const std::uint64_t now = StdEnv::now_ns();
  const std::uint64_t naps = std::min<std::uint64_t>(nappers_.count() + 1, kMostNaps);
  const std::uint64_t over = now + naps * kNapNs;
  const std::uint64_t until = std::min(over, wants_to_be_up(self).value_or(over));
  if (until <= now) return;
  self.napped =
      !nappers_.nap(attention_, until, [&] { return new_work_in_sight(self) || leaving(self); });
  WorkerCounters::add<std::int64_t>(self.counters.idle_ns,
                                    static_cast<std::int64_t>(StdEnv::now_ns() - now));
}

// P5, N5. Whoever comes back from the sleepers or a nap, notified or not, may hold the one
// notification that was sent: before it runs what it found, wherever it found it, the bit goes back
// up for those who still sleep or nap, and if there is more to do, it wakes the next.
void WorkStealingMachine::pass_on_wake_up(Worker& self) noexcept {
  self.woken = false;
  const bool sleeping = sleepers_.waiters() != 0;
  const bool napping = nappers_.count() != 0;
  // Whoever offers a job wakes one of the sleepers rather than one of those who wait for jobs, so
  // these are looked after here, too.
  const bool others = napping || waiters_.any();
  if (!sleeping && !others) return;
  const std::uint32_t bits =
      (sleeping ? attention::kSleepers : 0) | (napping ? attention::kNappers : 0);
  if (bits != 0) attention_.fetch_or(bits, std::memory_order_seq_cst);
  // Who is woken comes to this himself, or to a fence before he sleeps, whoever has woken him. So
  // the fence is left to the last.
  if (const std::uint32_t seen = sleeping ? work_in_sight(self, kWakeAtOnce) : 0;
      seen != 0 && (wake(seen) || !others))
    return;
  // A push that found no bit may still be in its worker's store buffer: pairs with the light fence
  // of every push.
  if (!all_sleep_but(1)) StdEnv::heavy_fence();
  if (sleeping && wake(work_in_sight(self, kWakeAtOnce))) return;
  if (napping && new_work_in_sight(self) && nappers_.wake_one(attention_)) return;
  if (job_in_sight()) wake_for_job();
}

// P8. Whether no more than `awake` workers, the caller among them, are up: all others are counted
// in at the event count. Then no push is under way that the caller does not see, and whoever gets
// up later sees the bit that the caller has set: no heavy fence is needed.
bool WorkStealingMachine::all_sleep_but(std::size_t awake) noexcept {
  // Sequentially consistent: a worker that is not counted here yet, since it is just being started,
  // has a fence between this and its first look at attention, which so sees the caller's bit.
  const std::size_t asleep = running_.load(std::memory_order_seq_cst) - awake;
  return sleepers_.waiters() == asleep && sleepers_.waiters_in_order() == asleep;
}

// How many workers there is work for, as far as one sees; no more than `enough`.
std::uint32_t WorkStealingMachine::work_in_sight(Worker& self,
                                                 std::uint32_t enough) const noexcept {
  // After the attention's seq_cst operation, also where there is no fence: pairs with inject()'s.
  std::size_t seen = inbox_.still_empty() ? 0 : 1;
  const std::size_t count = slots_.load(std::memory_order_acquire);  // pairs with start_workers()
  for (std::size_t i = 0; i < count && seen < enough; ++i) {
    Worker* const worker = workers_[i].load(std::memory_order_acquire);
    if (worker == nullptr) continue;
    const std::size_t items = worker->deque.size_hint();
    seen += items + worker->jobs.size_hint();
    if (items != 0 && seen < enough && is_bundle(worker->deque.thief(self.mark).peek()))
      seen = enough;
  }
  return static_cast<std::uint32_t>(std::min<std::size_t>(seen, enough));
}

// Whether there is more than strands that are passed on.
bool WorkStealingMachine::new_work_in_sight(Worker& self) const noexcept {
  if (!inbox_.still_empty()) return true;
  const std::size_t count = slots_.load(std::memory_order_acquire);  // pairs with start_workers()
  for (std::size_t i = 0; i < count; ++i) {
    Worker* const worker = workers_[i].load(std::memory_order_acquire);
    if (worker != nullptr &&
        (beyond_a_strand(worker->deque.thief(self.mark)) || worker->jobs.size_hint() != 0))
      return true;
  }
  return false;
}

void WorkStealingMachine::park(Worker& self) noexcept {
  self.inbox_due = true;
  self.woken = true;  // also on the way out by cancel(): that may swallow a notification
  VirtualTime* const time = services_.virtual_time();
  bool notified = false;
  bool counted_out = false;
  std::int64_t slept_from = 0;
  for (int stage = 0; stage < 2 && !notified; ++stage) {
    const auto key = sleepers_.prepare();                                  // P1
    attention_.fetch_or(attention::kSleepers, std::memory_order_seq_cst);  // P1
    const bool last = all_sleep_but(0);                                    // P8
    const bool shortly = stage == 0 && !last;
    // P3: pairs with the light fence of every push.
    if (!shortly && !last) StdEnv::heavy_fence();
    if (work_in_sight(self, 1) != 0 || leaving(self)) {  // P4
      sleepers_.cancel(key);
      break;
    }
    if (time != nullptr && !counted_out) {
      if (time->worker_parks()) {  // time has moved instead: what it fired lies in this worker's
                                   // deque, or elsewhere
        sleepers_.cancel(key);
        return;
      }
      counted_out = true;
    }
    const std::uint64_t now = StdEnv::now_ns();
    std::optional<std::uint64_t> until;
    bool due = false;
    if (time == nullptr) {
      until = wants_to_be_up(self);
      due = until.has_value();
    }
    if (slept_from == 0) slept_from = static_cast<std::int64_t>(now);
    if (shortly && (!until || *until > now + kFirstSleepNs)) {
      until = now + kFirstSleepNs;
      due = false;
    }
    WorkerCounters::add<std::uint64_t>(self.counters.parks);
    notified = sleepers_.wait(key, until);
    if (!notified && due) break;
  }
  if (counted_out) time->work_begins();
  if (slept_from != 0) {
    self.in_stream = 0;
    WorkerCounters::add<std::int64_t>(self.counters.idle_ns,
                                      static_cast<std::int64_t>(StdEnv::now_ns()) - slept_from);
    if (services_.tracing()) [[unlikely]]
      trace(TraceEvent::Kind::sleep, static_cast<std::uint64_t>(slept_from));
  }
  if (notified) {
    WorkerCounters::add<std::uint64_t>(self.counters.wakeups);
  }
}

}  // namespace magpie::detail
