// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Waits for something that happens: an event that a thousand tasks wait for, phases of a barrier,
// and a latch that as many arrive at.

#include <support/bench.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <magpie/barrier.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/latch.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kWaits = 300'000;
constexpr std::size_t kTasks = 1'000;
constexpr std::size_t kRounds = kWaits / kTasks;
constexpr std::size_t kParties = 4;

Task<std::size_t> event_set() {
  std::size_t woken = 0;
  for (std::size_t round = 0; round < kRounds; ++round) {
    magpie::Event event;
    std::vector<magpie::detail::EventWait> waits;
    waits.reserve(kTasks);
    for (std::size_t i = 0; i < kTasks; ++i) waits.push_back(event.wait());
    magpie::JoinHandle<void> all = magpie::spawn(magpie::gather(std::move(waits)));
    co_await magpie::this_task::yield();
    event.set();
    co_await all;
    woken += kTasks;
  }
  co_return woken;
}

Task<std::size_t> latch_arrive() {
  std::size_t through = 0;
  for (std::size_t round = 0; round < kRounds; ++round) {
    magpie::Latch latch(kTasks);
    std::vector<magpie::detail::LatchWait> waits;
    waits.reserve(kTasks);
    for (std::size_t i = 0; i < kTasks; ++i) waits.push_back(latch.arrive_and_wait());
    co_await magpie::gather(std::move(waits));
    through += kTasks;
  }
  co_return through;
}

Task<std::size_t> party(magpie::Barrier& barrier) {
  std::size_t passed = 0;
  for (; passed < kWaits / kParties; ++passed) co_await barrier.arrive_and_wait();
  co_return passed;
}

Task<std::size_t> barrier_phases() {
  magpie::Barrier barrier(kParties);
  std::vector<Task<std::size_t>> parties;
  for (std::size_t i = 0; i < kParties; ++i) parties.push_back(party(barrier));
  const std::vector<std::size_t> results = co_await magpie::gather(std::move(parties));
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  co_return sum;
}

void add_one(const char* workload, std::size_t threads, Task<std::size_t> (*make)()) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == kWaits; });
    count_operations(state, kWaits);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("event_set", threads, event_set);
    add_one("latch_arrive", threads, latch_arrive);
    add_one("barrier_of_4", threads, barrier_phases);
  }
}

}  // namespace bench
