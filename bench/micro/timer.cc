// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Timers: armed and disarmed by a timeout that does not strike, armed and fired by short sleeps,
// and many long sleeps that are cancelled at once: given to gather directly (no frame, no
// throw) and in a coroutine each (a frame and a throw).

#include <support/bench.h>
#include <support/problems.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

namespace bench {
namespace {

using magpie::Task;
using namespace std::chrono_literals;

constexpr std::size_t kSleepers = kTimers;
constexpr auto kLook = 100us;

Task<std::size_t> yields_once() {
  co_await magpie::this_task::yield();
  co_return 1;
}

// The task suspends, so that the timer is really armed.
Task<std::size_t> timeouts() {
  std::size_t done = 0;
  for (std::size_t i = 0; i < kTimeouts; ++i) done += co_await magpie::timeout(yields_once(), 1h);
  co_return done;
}

auto sleeps(magpie::Duration duration) {
  std::vector<decltype(magpie::sleep_for(duration))> all;
  all.reserve(kTimers);
  for (std::size_t i = 0; i < kTimers; ++i) all.push_back(magpie::sleep_for(duration));
  return all;
}

Task<std::size_t> short_sleeps() {
  co_await magpie::gather(sleeps(1us));
  co_return kTimers;
}

Task<void> gathered_sleeps() {
  co_await magpie::gather(sleeps(1h));
}

struct Sleepers {
  std::atomic<std::size_t> left{0};
};

// Counts what leaves it, by an exception as nothing else ends the sleep.
Task<void> sleeper(Sleepers& sleepers) {
  const Leaving leaving(sleepers.left);
  co_await magpie::sleep_for(1h);
}

Task<void> sleepers_of(Sleepers& sleepers) {
  std::vector<Task<void>> all;
  all.reserve(kSleepers);
  for (std::size_t i = 0; i < kSleepers; ++i) all.push_back(sleeper(sleepers));
  co_await magpie::gather(std::move(all));
}

// Cancels once all the timers are armed. Looks now and then: what a loop of looks takes on a second
// thread would be counted as time of the sleeps.
Task<void> cancel_when_armed(magpie::CancellationSource& source, std::size_t timers) {
  magpie::Executor& executor = co_await magpie::this_task::executor();
  while (executor.stats().pending_timers < timers) co_await magpie::sleep_for(kLook);
  source.cancel();
}

Task<bool> until_cancelled(magpie::CancellationSource& source, Task<void> task) {
  const auto result =
      co_await magpie::as_result(magpie::with_token(source.token(), std::move(task)));
  co_return result.is_cancelled();
}

Task<std::size_t> cancel_sleeps() {
  magpie::CancellationSource source;
  const auto [cancelled, nothing] = co_await magpie::gather(
      until_cancelled(source, gathered_sleeps()), cancel_when_armed(source, kTimers));
  co_return cancelled ? kTimers : 0;
}

Task<std::size_t> cancel_sleepers() {
  magpie::CancellationSource source;
  Sleepers sleepers;
  const auto [cancelled, nothing] = co_await magpie::gather(
      until_cancelled(source, sleepers_of(sleepers)), cancel_when_armed(source, kSleepers));
  co_return cancelled ? sleepers.left.load(std::memory_order_relaxed) : 0;
}

void add_one(const char* workload, std::size_t threads, std::size_t operations,
             Task<std::size_t> (*make)()) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == operations; });
    count_operations(state, operations);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("timeout_not_reached", threads, kTimeouts, timeouts);
    add_one("sleep_and_fire", threads, kTimers, short_sleeps);
    add_one("sleep_and_cancel", threads, kTimers, cancel_sleeps);
    add_one("sleep_and_cancel_with_throw", threads, kSleepers, cancel_sleepers);
  }
}

}  // namespace bench
