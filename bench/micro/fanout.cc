// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// What the combinators over many tasks cost: a thousand children that end at once, or go round the
// queue first. Beside each stands what one would write without it, or gather. The spawning of what
// wait waits for is measured on both sides.

#include <support/bench.h>

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include <magpie/as_completed.h>
#include <magpie/gather.h>
#include <magpie/hedge.h>
#include <magpie/limited.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/wait.h>

namespace bench {
namespace {

using magpie::Task;
using namespace std::chrono_literals;

constexpr std::size_t kChildren = 1'000;
constexpr std::size_t kRounds = 20;
constexpr std::size_t kLimit = 16;

Task<std::size_t> ready() {
  co_return 1;
}
Task<std::size_t> round_the_queue() {
  co_await magpie::this_task::yield();
  co_return 1;
}
using Make = Task<std::size_t> (*)();

std::vector<Task<std::size_t>> children(Make make) {
  std::vector<Task<std::size_t>> tasks;
  tasks.reserve(kChildren);
  for (std::size_t i = 0; i < kChildren; ++i) tasks.push_back(make());
  return tasks;
}

std::size_t sum_of(const std::vector<std::size_t>& values) {
  std::size_t sum = 0;
  for (const std::size_t value : values) sum += value;
  return sum;
}

Task<std::size_t> by_gather(Make make) {
  const std::vector<std::size_t> values = co_await magpie::gather(children(make));
  co_return sum_of(values);
}

Task<std::size_t> by_gather_limited(Make make) {
  const std::vector<std::size_t> values = co_await magpie::gather_limited(kLimit, children(make));
  co_return sum_of(values);
}

// What gather_limited replaces: a semaphore in each child.
Task<std::size_t> permitted(magpie::Semaphore& semaphore, Task<std::size_t> task) {
  const magpie::Permit permit = co_await semaphore.acquire();
  co_return co_await std::move(task);
}
Task<std::size_t> by_semaphore(Make make) {
  magpie::Semaphore semaphore(kLimit);
  std::vector<Task<std::size_t>> tasks;
  tasks.reserve(kChildren);
  for (std::size_t i = 0; i < kChildren; ++i) tasks.push_back(permitted(semaphore, make()));
  const std::vector<std::size_t> values = co_await magpie::gather(std::move(tasks));
  co_return sum_of(values);
}

Task<std::size_t> by_map_concurrent(Make make) {
  std::vector<std::size_t> items(kChildren);
  auto work = [make](std::size_t) { return make(); };
  const std::vector<std::size_t> values = co_await magpie::map_concurrent(items, kLimit, work);
  co_return sum_of(values);
}

Task<std::size_t> by_as_completed(Make make) {
  co_return co_await magpie::as_completed(
      children(make), [](magpie::CompletionStream<std::size_t>& stream) -> Task<std::size_t> {
        std::size_t sum = 0;
        for (auto next = co_await stream.next(); next; next = co_await stream.next())
          sum += next->value.value();
        co_return sum;
      });
}

std::vector<magpie::JoinHandle<std::size_t>> handles(Make make) {
  std::vector<magpie::JoinHandle<std::size_t>> tasks;
  tasks.reserve(kChildren);
  for (std::size_t i = 0; i < kChildren; ++i) tasks.push_back(magpie::spawn(make()));
  return tasks;
}

Task<std::size_t> by_wait(Make make) {
  auto result = co_await magpie::wait(handles(make));
  co_return result.done.size();
}

Task<std::size_t> by_awaiting_handles(Make make) {
  std::size_t sum = 0;
  for (auto& handle : handles(make)) sum += co_await handle;
  co_return sum;
}

Task<std::size_t> by_hedge(Make make) {
  std::size_t sum = 0;
  magpie::HedgeOptions options;
  options.delay(10s).max_attempts(3);
  for (std::size_t i = 0; i < kChildren; ++i) sum += co_await magpie::hedge(make, options);
  co_return sum;
}

Task<std::size_t> by_plain_await(Make make) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kChildren; ++i) sum += co_await make();
  co_return sum;
}

void add_one(const char* workload, const char* side, std::size_t threads,
             Task<std::size_t> (*how)(Make), Make make) {
  add(workload, side, threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads,
        [&](auto& executor) {
          result = 0;
          for (std::size_t round = 0; round < kRounds; ++round) result += executor.run(how(make));
        },
        [&] { return result == kChildren * kRounds; });
    count_operations(state, kChildren * kRounds);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    const auto with_peer = [threads](const char* workload, Task<std::size_t> (*how)(Make),
                                     const char* peer, Task<std::size_t> (*peers_way)(Make),
                                     Make make) {
      add_one(workload, "magpie", threads, how, make);
      add_one(workload, peer, threads, peers_way, make);
    };
    with_peer("as_completed", by_as_completed, "gather", by_gather, ready);
    with_peer("as_completed_yield", by_as_completed, "gather", by_gather, round_the_queue);
    with_peer("gather_limited", by_gather_limited, "semaphore", by_semaphore, ready);
    with_peer("gather_limited_yield", by_gather_limited, "semaphore", by_semaphore,
              round_the_queue);
    with_peer("map_concurrent", by_map_concurrent, "gather", by_gather, ready);
    with_peer("map_concurrent_yield", by_map_concurrent, "gather", by_gather, round_the_queue);
    with_peer("wait", by_wait, "sequential_awaits", by_awaiting_handles, ready);
    with_peer("hedge", by_hedge, "sequential_awaits", by_plain_await, ready);
  }
}

}  // namespace bench
