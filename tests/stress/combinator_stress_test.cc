// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 86400

// Random programs over all combinators, cancelled from other threads at random moments. Nothing
// hangs (a watchdog ends the process), nothing leaks, every permit comes back, every task-local is
// the one that was bound. The seed is printed, and SEED= replays the programs (not the schedule).
// MAGPIE_SOAK_MINUTES makes it last.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
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

constexpr std::size_t kPermits = 3;
constexpr int kSources = 4;

class StressError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Everything that the programs of one round share.
struct World {
  explicit World(std::size_t threads)
      : executor({.threads = threads,
                  .max_blocking_threads = 2,
                  .on_unobserved_error = [](std::string_view, std::exception_ptr) {}}) {}

  Ledger ledger;
  Semaphore semaphore{kPermits};
  Event event;
  TaskLocal<std::uint64_t> local{0};
  CancellationSource sources[kSources];
  std::atomic<long> held{0};
  std::atomic<std::uint64_t>* operations = nullptr;
  WorkStealingExecutor executor;  // dies first: what was shielded uses the others
};

std::chrono::microseconds moment(Random& random) {
  return std::chrono::microseconds(random.below(50));
}

void check_held(World& world, long n) {
  const long now = world.held.fetch_add(n, std::memory_order_relaxed) + n;
  if (now > static_cast<long>(kPermits))
    ADD_FAILURE() << now << " permits are held of " << kPermits;
}

Task<int> node(World& world, Tracked tracked, std::uint64_t seed, int depth, std::uint64_t bound);

Task<int> child(World& world, Random& random, int depth, std::uint64_t bound) {
  return node(world, Tracked(world.ledger), random(), depth - 1, bound);
}

Task<> hold(World& world, std::size_t n) {
  Permit permit = co_await world.semaphore.acquire(n);
  check_held(world, static_cast<long>(n));
  world.held.fetch_sub(static_cast<long>(n), std::memory_order_relaxed);
}

Task<int> leaf(World& world, Random& random) {
  switch (random.below(14)) {
    case 0:
      throw StressError("leaf");
    case 1:
      co_await this_task::yield();
      break;
    case 2:
      co_await this_task::checkpoint();
      break;
    case 3:
      co_await sleep_for(moment(random));
      break;
    case 4:
      co_await hold(world, 1 + random.below(2));
      break;
    case 5:
      co_await as_result(timeout(world.event.wait(), moment(random)));
      break;
    case 6:
      co_await uncancellable(sleep_for(moment(random)));
      break;
    case 7:
      co_await as_result(timeout(sleep_for(1h), moment(random)));
      break;
    case 8: {
      auto first = co_await race(world.semaphore.acquire(), sleep_for(moment(random)),
                                 world.semaphore.acquire(2));
      if (first.index != 1) {
        const long n = first.index == 0 ? 1 : 2;
        check_held(world, n);
        world.held.fetch_sub(n, std::memory_order_relaxed);
      }
      break;
    }
    case 9: {
      Result<Permit> permit =
          co_await try_timeout(world.semaphore.acquire(1 + random.below(3)), moment(random));
      if (permit.has_value()) {
        const long n = static_cast<long>(permit.value().count());
        check_held(world, n);
        world.held.fetch_sub(n, std::memory_order_relaxed);
      }
      break;
    }
    case 10:
      if (random.below(8) == 0) {
        auto function = [] { std::this_thread::yield(); };
        co_await to_thread(function);
      }
      break;
    case 11:
      if (random.below(8) == 0) throw CancelledError();
      break;
    default:
      break;
  }
  co_return 1;
}

Task<> serve(World& world, Random random, bool silent, ReadySignal<int> ready,
             std::uint64_t bound) {
  co_await sleep_for(moment(random));
  if (!silent) ready.set(5);
  co_await child(world, random, 1, bound);
}

// Those over many tasks.
Task<int> fan(World& world, Random& random, int depth, std::uint64_t bound) {
  const auto below = [&] { return child(world, random, depth, bound); };
  std::vector<Task<int>> tasks;
  for (std::uint64_t i = random.below(6); i > 0; --i) tasks.push_back(below());
  const std::size_t limit = 1 + random.below(3);
  switch (random.below(6)) {
    case 0: {
      const std::vector<int> values = co_await gather_limited(limit, std::move(tasks));
      co_return static_cast<int>(values.size());
    }
    case 1: {
      const std::vector<Result<int>> results =
          co_await gather_limited(return_exceptions, limit, std::move(tasks));
      co_return static_cast<int>(results.size());
    }
    case 2: {
      std::vector<std::uint64_t> items(random.below(9));
      auto each = [&](std::uint64_t) { return below(); };
      const std::vector<int> values = co_await map_concurrent(items, limit, each);
      EXPECT_EQ(values.size(), items.size());
      co_return 1;
    }
    case 3: {
      std::optional<Duration> time;
      if (random.below(2) == 0) time = moment(random);
      const std::size_t wanted = random.below(6);
      const bool races = random.below(2) == 0;
      auto body = [&](CompletionStream<int>& stream) -> Task<int> {
        int sum = 0;
        for (std::size_t i = 0; i < wanted; ++i) {
          if (races) co_await race(stream.next(), sleep_for(moment(random)));
          auto next = co_await stream.next();
          if (next) sum += next->value.value_or(0);
        }
        co_return sum;
      };
      co_return co_await as_completed(std::move(tasks), time, body);
    }
    case 4: {
      auto discard = [&](std::size_t, int&&) {
        world.operations->fetch_add(1, std::memory_order_relaxed);
      };
      HedgeOptions options;
      options.delay(moment(random)).max_attempts(1 + random.below(4));
      auto attempts = hedge(below, options).on_discard(discard);
      co_return co_await std::move(attempts);
    }
    default: {
      std::vector<JoinHandle<int>> handles;
      for (Task<int>& task : tasks) handles.push_back(spawn(std::move(task)));
      handles.push_back(spawn(below()));
      const auto when = static_cast<ReturnWhen>(random.below(3));
      auto seen = co_await wait(handles, when, moment(random));
      EXPECT_EQ(seen.done.size() + seen.pending.size(), handles.size());
      for (JoinHandle<int>& handle : seen.pending) handle.cancel();
      auto rest = co_await wait(handles);
      co_return static_cast<int>(rest.done.size());
    }
  }
}

// g++ 12: no co_await in conditions, closures have names and capture references only.
Task<int> node(World& world, Tracked tracked, std::uint64_t seed, int depth, std::uint64_t bound) {
  tracked.touch();
  world.operations->fetch_add(1, std::memory_order_relaxed);
  Random random(seed);
  const std::uint64_t seen = co_await world.local.get();
  if (seen != bound)
    ADD_FAILURE() << "a task-local of " << seen << " where " << bound << " was bound";
  if (depth <= 0) co_return co_await leaf(world, random);
  const auto below = [&] { return child(world, random, depth, bound); };
  switch (random.below(25)) {
    case 0: {
      auto [a, b] = co_await gather(below(), below());
      co_return a + b;
    }
    case 1: {
      std::vector<Task<int>> tasks;
      for (std::uint64_t i = random.below(5); i > 0; --i) tasks.push_back(below());
      std::vector<int> values = co_await gather(std::move(tasks));
      co_return static_cast<int>(values.size());
    }
    case 2: {
      auto results = co_await gather(return_exceptions, below(), below(), below());
      co_return std::get<0>(results).value_or(0);
    }
    case 3: {
      auto kept = co_await gather(keep_going, below(), below());
      co_return std::get<1>(kept);
    }
    case 4: {
      auto discard = [&](std::size_t, int&&) {
        world.operations->fetch_add(1, std::memory_order_relaxed);
      };
      auto contest = race(below(), below()).on_discard(discard);
      auto first = co_await std::move(contest);
      co_return first.value;
    }
    case 5: {
      std::vector<Task<int>> tasks;
      for (std::uint64_t i = random.below(4) + 1; i > 0; --i) tasks.push_back(below());
      auto first = co_await any(std::move(tasks));
      co_return first.value;
    }
    case 6: {
      auto first = co_await race(below(), world.semaphore.acquire(), sleep_for(moment(random)));
      if (first.index == 1) {
        check_held(world, 1);
        world.held.fetch_sub(1, std::memory_order_relaxed);
      }
      co_return 1;
    }
    case 7:
      co_return co_await timeout(below(), moment(random));
    case 8:
      co_return co_await with_timeout(below(), moment(random), 3);
    case 9: {
      Result<int> r = co_await try_timeout(below(), moment(random));
      co_return r.value_or(0);
    }
    case 10: {
      auto body = [&](TimeoutScope& scope) -> Task<int> {
        const Deadline now = co_await this_task::now();
        switch (random.below(4)) {
          case 0:
            scope.reschedule(std::nullopt);
            break;
          case 1:
            scope.reschedule(now + moment(random));
            break;
          case 2:
            scope.reschedule(now - 1us);
            break;
          default:
            break;
        }
        co_return co_await child(world, random, depth, bound);
      };
      co_return co_await timeout_scope(moment(random), body);
    }
    case 11: {
      auto body = [&](TaskGroup& group) -> Task<int> {
        for (std::uint64_t i = random.below(4); i > 0; --i)
          group.spawn(child(world, random, depth, bound));
        JoinHandle<int> handle = group.spawn(child(world, random, depth, bound));
        switch (random.below(5)) {
          case 0:
            group.cancel();
            break;
          case 1:
            handle.cancel();
            break;
          case 2:
            co_await as_result(handle);
            break;
          case 3:
            co_await handle;
            break;
          default:
            break;
        }
        co_return 2;
      };
      co_return co_await task_group(body);
    }
    case 12: {
      auto body = [&](TaskGroup& group) -> Task<int> {
        // The child outlives the body's locals: it gets what it needs by value.
        World& shared = world;
        const Random own(random());
        const bool silent = random.below(6) == 0;
        const std::uint64_t value = bound;
        auto starting = [&shared, own, silent, value](ReadySignal<int> ready) {
          return serve(shared, own, silent, ready, value);
        };
        Result<int> r = co_await try_timeout(group.start(starting), moment(random) * 2);
        co_return r.value_or(0);
      };
      co_return co_await task_group(body);
    }
    case 13: {
      auto body = [&](CancelScope& scope) -> Task<int> {
        if (random.below(3) == 0) scope.cancel();
        co_return co_await child(world, random, depth, bound);
      };
      Result<int> r = co_await cancel_scope(body);
      co_return r.value_or(0);
    }
    case 14:
      co_return co_await with_token(world.sources[random.below(kSources)].token(), below());
    case 15:
      co_return co_await shield(below());
    case 16: {
      bool cleaned = false;
      auto cleanup = [&]() -> Task<> {
        co_await as_result(sleep_for(moment(random)));
        cleaned = true;
      };
      Result<int> r = co_await as_result(finally(below(), cleanup));
      EXPECT_TRUE(cleaned);
      co_return std::move(r).value();
    }
    case 17: {
      const std::uint64_t fresh = random();
      auto bound_child = world.local.with(fresh, child(world, random, depth, fresh));
      co_return co_await std::move(bound_child);
    }
    case 18: {
      JoinHandle<int> handle = spawn(below());
      if (random.below(3) == 0) handle.cancel();
      auto first = co_await race(handle, std::move(handle), sleep_for(moment(random)));
      co_return static_cast<int>(first.index);
    }
    case 19:
    case 20:
    case 21:
    case 22:
    case 23:
      co_return co_await fan(world, random, depth, bound);
    default: {
      Result<int> r = co_await as_result(below());
      CancellationToken token = co_await this_task::token();
      std::atomic<int> calls{0};
      {
        CancellationCallback callback(token, [&] { calls.fetch_add(1); });
        co_await as_result(sleep_for(moment(random)));
      }
      EXPECT_LE(calls.load(), 1);
      co_return r.value_or(0);
    }
  }
}

void check_outcome(const Result<int>& r) {
  if (!r.is_error()) return;
  try {
    r.value();
  } catch (const StressError&) {
  } catch (const ExceptionGroup& group) {
    EXPECT_FALSE(group.exceptions().empty());
  } catch (const TimeoutError&) {  // within try_timeout an inner one is an error
  } catch (const std::logic_error& e) {
    // Only group.start() makes one: its child ended without a signal.
    EXPECT_NE(std::string(e.what()).find("ReadySignal"), std::string::npos) << e.what();
  }
}

TEST(CombinatorStress, RandomProgramsCancelledAtRandomMomentsLeaveNothingBehind) {
  const std::uint64_t seed = test::seed_or(20261121);
  std::cout << "seed " << seed << "\n";
  Random random(seed);
  std::atomic<std::uint64_t> operations{0};
  std::atomic<World*> current{nullptr};
  const test::Watchdog watchdog(operations, seed, [&current](std::ostream& out) {
    if (World* const stuck = current.load(); stuck != nullptr) test::show_all(out, stuck->executor);
  });
  const auto end =
      std::chrono::steady_clock::now() + test::soak_time(test::kScale == 1 ? 4s : 2500ms);
  std::size_t rounds = 0;
  std::size_t outcomes[4] = {};
  // On a slow machine until each outcome was seen, for a while.
  const auto goes_on = [&] {
    const auto now = std::chrono::steady_clock::now();
    const bool all_seen = std::ranges::count(outcomes, std::size_t{0}) == 0;
    return now < end || (!all_seen && now < end + 60s);
  };
  while (goes_on() && !testing::Test::HasFailure()) {
    ++rounds;
    auto world = std::make_unique<World>(test::soak_threads(rounds));
    world->operations = &operations;
    current = world.get();
    std::vector<JoinHandle<int>> roots;
    for (int i = 0; i < 40; ++i) {
      roots.push_back(world->executor.spawn(node(*world, Tracked(world->ledger), random(),
                                                 3 + static_cast<int>(random.below(3)), 0)));
    }
    std::atomic<bool> stop{false};
    std::thread meddler([&, mine = Random(random())]() mutable {
      while (!stop.load()) {
        switch (mine.below(6)) {
          case 0:
            roots[mine.below(roots.size())].cancel();
            break;
          case 1:
            if (mine.below(20) == 0) world->sources[mine.below(kSources)].cancel();
            break;
          case 2:
            world->event.set();
            break;
          case 3:
            world->event.clear();
            break;
          case 4:
            if (auto permit = world->semaphore.try_acquire(1 + mine.below(2))) {
              const long n = static_cast<long>(permit->count());
              check_held(*world, n);
              std::this_thread::yield();
              world->held.fetch_sub(n, std::memory_order_relaxed);
            }
            break;
          default:
            std::this_thread::sleep_for(std::chrono::microseconds(mine.below(30)));
        }
      }
    });
    for (auto& root : roots) {
      const Result<int>& r = root.wait();
      ++outcomes[static_cast<std::size_t>(r.outcome())];
      check_outcome(r);
    }
    stop = true;
    meddler.join();
    if (random.below(2) == 0)
      world->executor.shutdown(0s);  // what was shielded or dropped may still run
    roots.clear();
    World* const ended = world.get();
    world->executor.shutdown(1h);
    EXPECT_EQ(ended->executor.stats().live_tasks, 0u);
    EXPECT_EQ(ended->executor.stats().pending_timers, 0u);
    EXPECT_EQ(ended->semaphore.available(), kPermits);
    EXPECT_EQ(ended->held.load(), 0);
    EXPECT_EQ(ended->ledger.alive(), 0);
    current = nullptr;
  }
  std::cout << rounds << " rounds, " << operations.load()
            << " operations; values, errors, timeouts, cancellations: " << outcomes[0] << " "
            << outcomes[1] << " " << outcomes[2] << " " << outcomes[3] << "\n";
  for (const std::size_t n : outcomes) EXPECT_GT(n, 0u);
}

}  // namespace
}  // namespace magpie
