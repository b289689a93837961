// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Jobs from outside: one or two threads that are no workers post functions and wait until all have
// run.

#include <support/bench.h>

#include <atomic>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include <oneapi/tbb/task_arena.h>

namespace bench {
namespace {

constexpr std::size_t kJobs = 40'000;

// Counts down; outlives the executor, since the last job may still be in it when the waiter goes
// on.
class Countdown {
 public:
  void start(std::size_t n) { left_.store(n, std::memory_order_relaxed); }
  void done() {
    // acq_rel, with the load in wait(): the jobs end before the wait.
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_all();
  }
  void wait() {
    for (std::size_t n = left_.load(std::memory_order_acquire); n != 0;
         n = left_.load(std::memory_order_acquire)) {
      left_.wait(n, std::memory_order_acquire);
    }
  }
  bool is_done() const { return left_.load(std::memory_order_relaxed) == 0; }

 private:
  std::atomic<std::size_t> left_{0};
};

// `post()` from so many threads at once, the calling one among them.
template <class Post>
void from_outside(std::size_t producers, Countdown& left, Post post) {
  const std::size_t each = kJobs / producers;
  left.start(each * producers);
  const auto produce = [&] {
    for (std::size_t i = 0; i < each; ++i) post();
  };
  std::vector<std::jthread> others;
  for (std::size_t p = 1; p < producers; ++p) others.emplace_back(produce);
  produce();
  left.wait();
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t producers : {std::size_t{1}, std::size_t{2}}) {
    const std::string workload = "post_from_" + std::to_string(producers);
    for (const std::size_t threads : options.threads) {
      add(workload, "magpie", threads, [=](benchmark::State& state) {
        Countdown left;
        measure_magpie(
            state, threads,
            [&](auto& executor) {
              from_outside(producers, left, [&] { executor.post([&left] { left.done(); }); });
            },
            [&] { return left.is_done(); });
        count_operations(state, kJobs);
      });
      add(workload, "tbb_enqueue", threads, [=](benchmark::State& state) {
        Countdown left;
        // One more than workers: the caller's own place, which it does not take.
        const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads + 1);
        tbb::task_arena arena(static_cast<int>(threads), 0);
        measure(
            state,
            [&] {
              from_outside(producers, left, [&] { arena.enqueue([&left] { left.done(); }); });
            },
            [&] { return left.is_done(); });
        count_operations(state, kJobs);
      });
    }
  }
}

}  // namespace bench
