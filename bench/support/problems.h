// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What all sides of a workload must share to do the same work, where they lie in several programs:
// sizes, the parts that are plain code, and the results that are right. The sides themselves, in
// workload/, micro/ and versus/, differ only in how they share the work out.

#include <support/bench.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

// ---- fib: nothing but forks ---------------------------------------------------------------------

inline int fib_size(const Options& options) {
  return options.full ? 35 : 30;
}

constexpr long fib_value(int n) {
  long a = 0;
  long b = 1;
  for (int i = 0; i < n; ++i) a = std::exchange(b, a + b);
  return a;
}

// ---- skynet: ten children a node, every leaf gives its number -----------------------------------

constexpr std::size_t kSkynetChildren = 10;

inline std::uint64_t skynet_leaves(const Options& options) {
  return options.full ? 10'000'000 : 1'000'000;
}

constexpr std::uint64_t skynet_sum(std::uint64_t leaves) {
  return leaves * (leaves - 1) / 2;
}

// ---- nqueens: a task for every placement that is possible so far --------------------------------

constexpr int kMostQueens = 16;
using Board = std::array<signed char, kMostQueens>;  // the column of the queen in each row

inline bool attacked(const Board& board, int row, int column) {
  for (int r = 0; r < row; ++r) {
    const int distance = column - board[static_cast<std::size_t>(r)];
    if (distance == 0 || distance == row - r || distance == r - row) return true;
  }
  return false;
}

inline Board with_queen(Board board, int row, int column) {
  board[static_cast<std::size_t>(row)] = static_cast<signed char>(column);
  return board;
}

inline int queens(const Options& options) {
  return options.full ? 12 : 11;
}

// Known counts, so that a program that is wrong in the same way on all sides is found out too.
constexpr std::array<long, 14> kQueensSolutions{1,  1,  0,   0,   2,     10,     4,
                                                40, 92, 352, 724, 2'680, 14'200, 73'712};

// ---- micro: operations of one run ---------------------------------------------------------------

constexpr std::size_t kSpawnedTasks = 50'000;
constexpr std::size_t kPostedJobs = 40'000;
// Children in all, so that narrow gathers take some milliseconds too.
constexpr std::size_t kGatheredChildren = 400'000;
constexpr std::size_t kTimers = 100'000;
constexpr std::size_t kTimeouts = 100'000;
constexpr std::size_t kAcquires = 300'000;
constexpr std::size_t kSemaphoreTasks = 1'000;
constexpr std::size_t kSemaphorePermits = 10;
constexpr std::size_t kChannelValues = 300'000;
constexpr std::size_t kYields = 300'000;

// ---- cancellation: counts the scopes that were left ---------------------------------------------

class Leaving {
 public:
  explicit Leaving(std::atomic<std::size_t>& count) : count_(count) {}
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;
  ~Leaving() { count_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::size_t>& count_;
};

// ---- post: jobs from threads that are no workers ------------------------------------------------

// Counts down; outlives the executor, since the last job may still be in it when the waiter goes
// on. On lines of its own: it lies on the stack of the thread that posts.
class alignas(128) Countdown {
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

// `post()` from so many threads at once, the calling one among them; returns when all jobs have
// called left.done().
template <class Post>
void post_from_outside(std::size_t producers, Countdown& left, Post post) {
  const std::size_t each = kPostedJobs / producers;
  left.start(each * producers);
  const auto produce = [&] {
    for (std::size_t i = 0; i < each; ++i) post();
  };
  std::vector<std::jthread> others;
  for (std::size_t p = 1; p < producers; ++p) others.emplace_back(produce);
  produce();
  left.wait();
}

}  // namespace bench
