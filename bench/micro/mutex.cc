// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A mutex: taken and released by one task; handed over from waiter to waiter, so that every lock()
// parks; and among a thousand tasks that hold it over a yield. A condition: two tasks that notify
// each other.

#include <support/bench.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <magpie/condition.h>
#include <magpie/gather.h>
#include <magpie/mutex.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kLocks = 300'000;
constexpr std::size_t kTasks = 1'000;

Task<std::size_t> locks(magpie::Mutex& mutex, std::size_t n, bool over_yield) {
  std::size_t done = 0;
  for (; done < n; ++done) {
    const magpie::Mutex::Lock lock = co_await mutex.lock();
    if (over_yield) co_await magpie::this_task::yield();
  }
  co_return done;
}

Task<std::size_t> uncontended() {
  magpie::Mutex mutex;
  co_return co_await locks(mutex, kLocks, false);
}

Task<std::size_t> among(std::size_t tasks, bool over_yield) {
  magpie::Mutex mutex;
  std::vector<Task<std::size_t>> children;
  children.reserve(tasks);
  for (std::size_t i = 0; i < tasks; ++i)
    children.push_back(locks(mutex, kLocks / tasks, over_yield));
  magpie::Mutex::Lock held = co_await mutex.lock();
  magpie::JoinHandle<std::vector<std::size_t>> all =
      magpie::spawn(magpie::gather(std::move(children)));
  co_await magpie::this_task::yield();  // let them queue: from then on each release finds a waiter
  held.unlock();
  const std::vector<std::size_t> results = co_await std::move(all);
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  co_return sum;
}

struct PingPong {
  magpie::Mutex mutex;
  magpie::Condition condition;
  std::size_t turn = 0;
};

Task<std::size_t> play(PingPong& game, std::size_t me, std::size_t n) {
  magpie::Mutex::Lock lock = co_await game.mutex.lock();
  for (std::size_t i = 0; i < n; ++i) {
    co_await game.condition.wait(lock, [&game, me] { return game.turn % 2 == me; });
    ++game.turn;
    game.condition.notify_one();
  }
  co_return n;
}

Task<std::size_t> notifications() {
  PingPong game;
  auto [a, b] = co_await magpie::gather(play(game, 0, kLocks / 2), play(game, 1, kLocks / 2));
  co_return a + b;
}

void add_one(const char* workload, std::size_t threads, Task<std::size_t> (*make)()) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == kLocks; });
    count_operations(state, kLocks);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("mutex_uncontended", threads, uncontended);
    add_one("mutex_hand_off", threads, [] { return among(4, false); });
    add_one("mutex_over_yield", threads, [] { return among(kTasks, true); });
    add_one("condition_notify", threads, notifications);
  }
}

}  // namespace bench
