// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A semaphore: taken and given back by one task, and ten permits among a thousand tasks, given back
// at once or held over a yield; and one permit that four tasks hold over a yield, so that each
// release finds a waiter.

#include <support/bench.h>
#include <support/problems.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <magpie/gather.h>
#include <magpie/semaphore.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kTasks = kSemaphoreTasks;
constexpr std::size_t kPermits = kSemaphorePermits;

Task<std::size_t> acquires(magpie::Semaphore& semaphore, std::size_t n, bool over_yield) {
  std::size_t done = 0;
  for (; done < n; ++done) {
    const magpie::Permit permit = co_await semaphore.acquire();
    if (over_yield) co_await magpie::this_task::yield();
  }
  co_return done;
}

Task<std::size_t> uncontended() {
  magpie::Semaphore semaphore(kPermits);
  co_return co_await acquires(semaphore, kAcquires, false);
}

Task<std::size_t> shared(std::size_t permits, std::size_t tasks, bool over_yield) {
  magpie::Semaphore semaphore(permits);
  std::vector<Task<std::size_t>> children;
  children.reserve(tasks);
  for (std::size_t i = 0; i < tasks; ++i)
    children.push_back(acquires(semaphore, kAcquires / tasks, over_yield));
  const std::vector<std::size_t> results = co_await magpie::gather(std::move(children));
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  co_return sum;
}

void add_one(const char* workload, std::size_t threads, Task<std::size_t> (*make)()) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == kAcquires; });
    count_operations(state, kAcquires);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("semaphore_uncontended", threads, uncontended);
    add_one("semaphore_shared", threads, [] { return shared(kPermits, kTasks, false); });
    add_one("semaphore_over_yield", threads, [] { return shared(kPermits, kTasks, true); });
    add_one("semaphore_hand_off", threads, [] { return shared(1, 4, true); });
  }
}

}  // namespace bench
