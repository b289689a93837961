// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 86400

// Cancellations from other threads at random moments, each against one await of a primitive or a
// combinator, on 1, 2, 3, 8 and 64 workers: no permit, result or task is lost, and nothing hangs.
// Most of the awaits end in no other way; the rest is about to end by itself. SEED= replays the
// choices (not the schedule). A million in some seconds, a tenth of that in sanitized builds;
// MAGPIE_SOAK_MINUTES makes it go on, and MAGPIE_SOAK_OPERATIONS until so many awaits have ended:
// `./dev soak --operations 10000000`.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/magpie.h>

#include <support/ledger.h>
#include <support/scale.h>
#include <support/soak.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using detail::Random;
using test::Ledger;
using test::Tracked;

constexpr std::size_t kVictims = 64;
constexpr std::size_t kPermits = 5;
constexpr std::size_t kThreads[] = {1, 2, 3, 8, 64};
constexpr std::size_t kCancellations =  // on each number of threads
    (test::kScale == 1 ? 1'000'000 : 100'000) / std::size(kThreads);

enum Kind : std::size_t {
  kSleep,
  kShortSleep,
  kEvent,
  kAcquire,
  kAcquireTwo,
  kHandle,
  kEndingHandle,
  kYields,
  kGather,
  kRace,
  kAny,
  kTimeout,
  kGroup,
  kShield,
  kFinally,
  kUncancellable,
  kCancelScope,
  kToThread,
  kMutex,
  kCondition,
  kSend,
  kReceive,
  kRendezvous,
  kLatch,
  kBarrier,
  kFuture,
  kRate,
  kWait,
  kKinds,
};
constexpr std::array<const char*, kKinds> kNames = {
    "sleep",   "short sleep",   "event", "acquire",   "acquire 2", "handle",    "ending",
    "yields",  "gather",        "race",  "any",       "timeout",   "group",     "shield",
    "finally", "uncancellable", "scope", "to_thread", "mutex",     "condition", "send",
    "receive", "rendezvous",    "latch", "barrier",   "future",    "rate",      "wait"};
// How often each is chosen: what allocates and starts tasks less often than what waits.
constexpr std::array<std::uint64_t, kKinds> kWeights = {
    16, 4, 16, 16, 8, 12, 1, 2, 4, 4, 2, 2, 1, 1, 2, 1, 1, 1, 12, 3, 8, 8, 6, 8, 4, 8, 4, 1};

/// The source that the current await of a victim listens to. The lock covers the copy only:
/// cancel() runs without it.
struct Target {
  std::optional<CancellationSource> get() {
    std::lock_guard guard(lock);
    return source;
  }
  void put(std::optional<CancellationSource> next) {
    std::lock_guard guard(lock);
    source.swap(next);
  }

  detail::SpinLock<> lock;
  std::optional<CancellationSource> source;
};

struct Count {
  std::atomic<std::uint64_t> cancelled{0};
  std::atomic<std::uint64_t> completed{0};
};

struct World;
/// Of all worlds.
struct Counts {
  std::array<Count, kKinds> of;
  std::atomic<std::uint64_t> cancellations{0};
  std::atomic<World*> current{nullptr};
};

struct World {
  World(std::size_t threads, Counts& all)
      : counts(all), executor({.threads = threads, .max_blocking_threads = 2}) {}

  Ledger ledger;
  Semaphore semaphore{kPermits};
  Event event;
  Mutex mutex;
  long guarded = 0;  // by the mutex
  Condition condition;
  Channel<Tracked> channel{4};
  Channel<Tracked> meeting{0};
  std::atomic<long> sent{0};
  std::atomic<long> received{0};
  Latch latch{1};  // never counted down
  Barrier barrier{3};
  Promise<int> promise;  // never set
  Future<int> future = promise.future();
  RateLimiter limiter{200'000, 8};
  std::atomic<std::uint64_t> cancellations{0};
  std::atomic<bool> stop{false};
  std::atomic<long> held{0};
  std::array<Target, kVictims> targets;
  Counts& counts;
  WorkStealingExecutor executor;  // dies first: what was shielded uses the others
  JoinHandle<int> endless;

  void note(Kind kind, bool was_cancelled) {
    Count& count = counts.of[kind];
    (was_cancelled ? count.cancelled : count.completed).fetch_add(1, std::memory_order_relaxed);
  }
};

Kind choose(Random& random) {
  static constexpr std::uint64_t total = [] {
    std::uint64_t sum = 0;
    for (const std::uint64_t weight : kWeights) sum += weight;
    return sum;
  }();
  std::uint64_t left = random.below(total);
  std::size_t kind = 0;
  while (left >= kWeights[kind]) left -= kWeights[kind++];
  return static_cast<Kind>(kind);
}

Task<int> endless(Tracked) {
  co_await sleep_for(Duration::never());
  co_return 0;
}
Task<int> ending(Tracked, std::uint64_t yields) {
  for (; yields > 0; --yields) co_await this_task::yield();
  co_return 7;
}
Task<> hold(World& world, Permit permit) {
  const long n = static_cast<long>(permit.count());
  EXPECT_LE(world.held.fetch_add(n) + n, static_cast<long>(kPermits));
  co_await uncancellable(this_task::yield());
  world.held.fetch_sub(n);
}

/// One await that `token` cancels too.
Task<> attempt(World& world, Kind kind, CancellationToken token, Random& random) {
  const auto finish = [&](const auto& result) {
    EXPECT_FALSE(result.is_error() || result.is_timeout()) << kNames[kind];
    world.note(kind, result.is_cancelled());
  };
  const auto soon = [&] { return std::chrono::microseconds(random.below(20)); };
  const auto tracked = [&] { return Tracked(world.ledger); };
  switch (kind) {
    case kSleep:
      finish(co_await as_result(with_token(token, sleep_for(1h))));
      break;
    case kShortSleep:
      finish(co_await as_result(with_token(token, sleep_for(soon()))));
      break;
    case kEvent:
      finish(co_await as_result(with_token(token, world.event.wait())));
      break;
    case kAcquire:
    case kAcquireTwo: {
      const std::size_t n = kind == kAcquire ? 1 : 2;
      Result<Permit> permit = co_await as_result(with_token(token, world.semaphore.acquire(n)));
      finish(permit);
      if (permit) co_await hold(world, std::move(permit).value());
      break;
    }
    case kHandle:
      finish(co_await as_result(with_token(token, world.endless)));
      break;
    case kEndingHandle: {
      JoinHandle<int> handle = spawn(ending(tracked(), random.below(4)));
      Result<int> result = co_await as_result(with_token(token, handle));
      finish(result);
      // The wait was cancelled, the task was not.
      Result<int> again = co_await as_result(uncancellable(handle));
      EXPECT_EQ(again.value_or(0), 7);
      break;
    }
    case kYields:
      finish(co_await as_result(with_token(token, ending(tracked(), random.below(16)))));
      break;
    case kGather:
      finish(co_await as_result(
          with_token(token, gather(sleep_for(1h), world.event.wait(), world.endless))));
      break;
    case kRace: {
      // Whoever wins, nothing but the winner's permit is taken.
      auto contest =
          race(world.semaphore.acquire(2), world.event.wait(), world.semaphore.acquire(1));
      auto result = co_await as_result(with_token(token, std::move(contest)));
      finish(result);
      if (!result) break;
      auto& winner = result.value();
      if (winner.index == 0) co_await hold(world, std::move(std::get<0>(winner.value)));
      if (winner.index == 2) co_await hold(world, std::move(std::get<2>(winner.value)));
      break;
    }
    case kAny:
      finish(co_await as_result(with_token(token, any(sleep_for(1h), world.event.wait()))));
      break;
    case kTimeout:
      finish(co_await as_result(with_token(token, with_timeout(endless(tracked()), soon(), 1))));
      break;
    case kGroup: {
      auto body = [&](TaskGroup& group) -> Task<> {
        group.spawn(endless(tracked()));
        group.spawn(ending(tracked(), 1));
        co_return;
      };
      finish(co_await as_result(with_token(token, task_group(body))));
      break;
    }
    case kShield:
      finish(co_await as_result(with_token(token, shield(ending(tracked(), 2)))));
      break;
    case kFinally: {
      int cleanups = 0;
      auto cleanup = [&]() -> Task<> {
        co_await this_task::yield();
        ++cleanups;
      };
      finish(co_await as_result(with_token(token, finally(world.event.wait(), cleanup))));
      EXPECT_LE(cleanups, 1);
      break;
    }
    case kUncancellable:
      finish(co_await as_result(with_token(token, uncancellable(ending(tracked(), 3)))));
      break;
    case kCancelScope: {
      auto body = [&](CancelScope&) -> Task<int> { co_return co_await endless(tracked()); };
      finish(co_await as_result(with_token(token, cancel_scope(body))));
      break;
    }
    case kToThread: {
      auto function = [] { std::this_thread::yield(); };
      finish(co_await as_result(with_token(token, to_thread(function))));
      break;
    }
    case kMutex: {
      Result<Mutex::Lock> lock = co_await as_result(with_token(token, world.mutex.lock()));
      finish(lock);
      if (lock) {
        const long seen = world.guarded++;
        if (random.below(4) == 0) co_await uncancellable(this_task::yield());
        EXPECT_EQ(world.guarded, seen + 1);
      }
      break;
    }
    case kCondition: {
      Mutex::Lock lock = co_await world.mutex.lock();
      finish(co_await as_result(with_token(token, world.condition.wait(lock))));
      ++world.guarded;  // it holds the lock again, however the wait ended
      break;
    }
    case kSend:
    case kRendezvous: {
      Channel<Tracked>& channel = kind == kSend ? world.channel : world.meeting;
      Result<void> result = co_await as_result(with_token(token, channel.send(tracked())));
      if (result) world.sent.fetch_add(1);
      finish(result);
      break;
    }
    case kReceive: {
      auto contest = race(world.channel.receive(), world.meeting.receive());
      auto result = co_await as_result(with_token(token, std::move(contest)));
      if (result) world.received.fetch_add(1);
      finish(result);
      break;
    }
    case kLatch:
      finish(co_await as_result(with_token(token, world.latch.wait())));
      break;
    case kBarrier:
      finish(co_await as_result(with_token(token, world.barrier.arrive_and_wait())));
      break;
    case kFuture: {
      Future<int> future = world.future;
      finish(co_await as_result(with_token(token, future)));
      break;
    }
    case kRate:
      finish(co_await as_result(with_token(token, world.limiter.acquire(1 + random.below(4)))));
      break;
    case kWait: {
      std::vector<JoinHandle<int>> handles{world.endless,
                                           spawn(ending(tracked(), random.below(4)))};
      const ReturnWhen when =
          random.below(2) == 0 ? ReturnWhen::first_completed : ReturnWhen::all_completed;
      finish(co_await as_result(with_token(token, wait(std::move(handles), when))));
      break;
    }
    case kKinds:
      break;
  }
}

Task<> victim(World& world, std::size_t index, std::uint64_t seed) {
  Random random(seed);
  Target& target = world.targets[index];
  while (!world.stop.load(std::memory_order_relaxed)) {
    CancellationSource source;
    target.put(source);
    co_await attempt(world, choose(random), source.token(), random);
    target.put(std::nullopt);
  }
}

/// Cancels what it finds, until there were enough; now and then it sets the event, or takes and
/// gives permits back.
void cancel_at_random(World& world, Random random) {
  while (world.cancellations.load(std::memory_order_relaxed) < kCancellations) {
    const std::size_t first = random.below(kVictims);
    std::uint64_t made = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      std::optional<CancellationSource> source = world.targets[(first + i) % kVictims].get();
      if (source && source->cancel("at random")) ++made;
    }
    world.cancellations.fetch_add(made, std::memory_order_relaxed);
    world.counts.cancellations.fetch_add(made, std::memory_order_relaxed);
    if (made == 0) std::this_thread::yield();
    switch (random.below(32)) {
      case 2:
        world.condition.notify_one();
        break;
      case 3:
        world.condition.notify_all();
        break;
      case 0:
        world.event.set();
        world.event.clear();
        break;
      case 1:
        if (std::optional<Permit> permit = world.semaphore.try_acquire(1 + random.below(2)))
          std::this_thread::yield();
        break;
      default:
        break;
    }
  }
}

void cancel_everything(std::size_t threads, Counts& counts, Random& random) {
  SCOPED_TRACE(std::to_string(threads) + " threads");
  auto world = std::make_unique<World>(threads, counts);
  counts.current = world.get();
  world->endless = world->executor.spawn(endless(Tracked(world->ledger)));
  std::vector<JoinHandle<void>> victims;
  for (std::size_t i = 0; i < kVictims; ++i)
    victims.push_back(world->executor.spawn(victim(*world, i, random())));
  std::vector<std::thread> cancellers;
  for (int i = 0; i < 2; ++i)
    cancellers.emplace_back(cancel_at_random, std::ref(*world), Random(random()));
  for (auto& canceller : cancellers) canceller.join();
  world->stop = true;
  while (std::any_of(victims.begin(), victims.end(),
                     [](const auto& handle) { return !handle.done(); })) {
    for (Target& target : world->targets) {
      if (std::optional<CancellationSource> source = target.get()) source->cancel();
    }
    std::this_thread::yield();
  }
  for (auto& handle : victims) EXPECT_TRUE(handle.result().has_value());
  world->endless.cancel();
  world->executor.shutdown(1h);
  EXPECT_TRUE(world->endless.cancelled());
  EXPECT_EQ(world->semaphore.available(), kPermits);
  EXPECT_EQ(world->held.load(), 0);
  EXPECT_TRUE(world->mutex.try_lock().has_value());
  // What was sent and not received lies in the channel, and nothing else.
  EXPECT_EQ(world->sent.load() - world->received.load(), static_cast<long>(world->channel.size()));
  EXPECT_EQ(world->meeting.size(), 0U);
  EXPECT_EQ(world->ledger.alive(), static_cast<long>(world->channel.size()));
  while (world->channel.try_receive()) {
  }
  EXPECT_EQ(world->ledger.alive(), 0);
  EXPECT_EQ(world->executor.stats().live_tasks, 0U);
  EXPECT_EQ(world->executor.stats().pending_timers, 0U);
  EXPECT_GE(world->cancellations.load(), kCancellations);
  counts.current = nullptr;
}

/// All awaits that have ended, cancelled or not.
std::uint64_t operations_of(const Counts& counts) {
  std::uint64_t sum = 0;
  for (const auto& kind : counts.of) sum += kind.cancelled.load() + kind.completed.load();
  return sum;
}

TEST(AwaitCancelStress, CancellationsOfEveryPrimitiveLoseNothing) {
  const std::uint64_t seed = test::seed_or(20261122);
  SCOPED_TRACE("seed " + std::to_string(seed));
  Random random(seed);
  Counts counts;
  const test::Watchdog watchdog(counts.cancellations, seed, [&counts](std::ostream& out) {
    if (World* const stuck = counts.current.load(); stuck != nullptr)
      test::show_all(out, stuck->executor);
  });
  const auto end = std::chrono::steady_clock::now() + test::soak_time(0ms);
  do {
    for (const std::size_t threads : kThreads) cancel_everything(threads, counts, random);
  } while (
      (std::chrono::steady_clock::now() < end || operations_of(counts) < test::soak_operations()) &&
      !HasFailure());
  std::printf("%llu cancellations, %llu operations\n",
              static_cast<unsigned long long>(counts.cancellations.load()),
              static_cast<unsigned long long>(operations_of(counts)));
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    const std::uint64_t cancelled = counts.of[kind].cancelled.load();
    const std::uint64_t completed = counts.of[kind].completed.load();
    std::printf("%-14s %9llu cancelled %9llu completed\n", kNames[kind],
                static_cast<unsigned long long>(cancelled),
                static_cast<unsigned long long>(completed));
    EXPECT_GT(cancelled + completed, 0U) << kNames[kind];
    if (kind != kUncancellable) EXPECT_GT(cancelled, 0U) << kNames[kind];
  }
}

}  // namespace
}  // namespace magpie
