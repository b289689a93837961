// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// What pacing costs when there is nothing to wait for: a retry whose first attempt succeeds, beside
// the same task awaited; a retry whose attempts fail; a chain of three steps, beside the three
// awaits; tokens of a limiter that has plenty; a gather at a rate, batches, and submissions
// to a Batcher, by child and item.

#include <support/bench.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <utility>
#include <vector>

#include <magpie/batch.h>
#include <magpie/chain.h>
#include <magpie/config.h>
#include <magpie/gather.h>
#include <magpie/rate_limiter.h>
#include <magpie/retry.h>
#include <magpie/task.h>

namespace bench {
namespace {

using magpie::Task;
using namespace std::chrono_literals;

constexpr std::size_t kCalls = 100'000;
constexpr std::size_t kFailures = 10'000;
constexpr std::size_t kChildren = 100'000;
constexpr std::size_t kBatch = 100;
constexpr double kPlenty = 1e12;  // tokens a second

// Not inlined: clang would leave out the frames of what is awaited by hand.
MAGPIE_NOINLINE Task<std::size_t> one() {
  co_return 1;
}
MAGPIE_NOINLINE Task<std::size_t> same(std::size_t value) {
  co_return value;
}

// --- retry ---------------------------------------------------------------------------------------

Task<std::size_t> awaited() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kCalls; ++i) sum += co_await one();
  co_return sum;
}

Task<std::size_t> retried() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kCalls; ++i) sum += co_await magpie::retry(one);
  co_return sum;
}

Task<std::size_t> retried_with_deadlines() {
  std::size_t sum = 0;
  magpie::RetryPolicy policy;
  policy.attempt_timeout(1h).total_timeout(2h);
  for (std::size_t i = 0; i < kCalls; ++i) sum += co_await magpie::retry(one, policy);
  co_return sum;
}

Task<std::size_t> retried_failures() {
  std::size_t calls = 0;
  const auto error = std::make_exception_ptr(std::runtime_error("again"));
  auto factory = [&]() -> Task<std::size_t> {
    if (++calls < kFailures) std::rethrow_exception(error);
    return one();
  };
  co_await magpie::retry(factory, magpie::RetryPolicy().max_attempts(kFailures));
  co_return calls;
}

// --- chain ---------------------------------------------------------------------------------------

Task<std::size_t> three_awaits() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kCalls; ++i) {
    const std::size_t first = co_await one();
    const std::size_t second = co_await same(first);
    sum += co_await same(second);
  }
  co_return sum;
}

Task<std::size_t> chained() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kCalls; ++i) sum += co_await magpie::chain(one(), same, same);
  co_return sum;
}

// --- rates and batches ---------------------------------------------------------------------------

Task<std::size_t> tokens(magpie::RateLimiter& limiter, std::size_t n) {
  std::size_t taken = 0;
  for (; taken < n; ++taken) co_await limiter.acquire();
  co_return taken;
}

Task<std::size_t> uncontended_tokens() {
  magpie::RateLimiter limiter(kPlenty, kCalls);
  co_return co_await tokens(limiter, kCalls);
}

// Each waits for a timer: a hundred tasks take turns at the head of the queue.
Task<std::size_t> waited_tokens() {
  magpie::RateLimiter limiter(20e6, 1);
  std::vector<Task<std::size_t>> tasks;
  for (std::size_t i = 0; i < 100; ++i) tasks.push_back(tokens(limiter, kCalls / 100));
  const std::vector<std::size_t> taken = co_await magpie::gather(std::move(tasks));
  std::size_t sum = 0;
  for (const std::size_t t : taken) sum += t;
  co_return sum;
}

std::vector<Task<std::size_t>> children() {
  std::vector<Task<std::size_t>> tasks;
  tasks.reserve(kChildren);
  for (std::size_t i = 0; i < kChildren; ++i) tasks.push_back(one());
  return tasks;
}

Task<std::size_t> gathered() {
  const auto results = co_await magpie::gather(children());
  co_return results.size();
}

Task<std::size_t> gathered_at_a_rate() {
  magpie::RateLimiter limiter(kPlenty, kChildren);
  const auto results = co_await magpie::gather_rate_limited(limiter, children());
  co_return results.size();
}

Task<std::size_t> batched() {
  const std::vector<std::size_t> items(kChildren, 1);
  const auto results = co_await magpie::batch(items, kBatch, same);
  co_return results.size();
}

Task<std::vector<std::size_t>> as_they_are(std::vector<std::size_t> items) {
  co_return items;
}

// Submissions from as many tasks, a hundred in a call.
Task<std::size_t> submitted() {
  magpie::Batcher<std::size_t, std::size_t> batcher(kBatch, 1s, as_they_are);
  std::vector<Task<std::size_t>> tasks;
  tasks.reserve(kChildren);
  for (std::size_t i = 0; i < kChildren; ++i) tasks.push_back(batcher.submit(i));
  const auto results = co_await magpie::gather(std::move(tasks));
  co_return results.size();
}

void add_one(const char* workload, const char* side, std::size_t threads, std::size_t operations,
             Task<std::size_t> (*make)()) {
  add(workload, side, threads, [=](benchmark::State& state) {
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
    add_one("retry_first_try", "magpie", threads, kCalls, retried);
    add_one("retry_first_try", "magpie_deadlines", threads, kCalls, retried_with_deadlines);
    add_one("retry_first_try", "sequential_awaits", threads, kCalls, awaited);
    add_one("retry_failed_attempt", "magpie", threads, kFailures, retried_failures);
    add_one("chain_of_three", "magpie", threads, kCalls, chained);
    add_one("chain_of_three", "sequential_awaits", threads, kCalls, three_awaits);
    add_one("rate_limiter_uncontended", "magpie", threads, kCalls, uncontended_tokens);
    add_one("rate_limiter_waiting", "magpie", threads, kCalls, waited_tokens);
    add_one("gather_rate_limited", "magpie", threads, kChildren, gathered_at_a_rate);
    add_one("gather_rate_limited", "magpie_gather", threads, kChildren, gathered);
    add_one("batch_of_100", "magpie", threads, kChildren, batched);
    add_one("batcher_submit", "magpie", threads, kChildren, submitted);
  }
}

}  // namespace bench
