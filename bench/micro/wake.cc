// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// From a job's post by an outside thread to its first instruction on a worker that had nothing to
// do: for so long that it sleeps, and for 30 us only. Beside it a thread that sleeps on a futex and
// does nothing else. And how long a task takes from one executor to another.

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <support/bench.h>
#include <support/latency.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>

#include <magpie/resume_on.h>
#include <magpie/task.h>

namespace bench {
namespace {

using magpie::Task;
using namespace std::chrono_literals;

constexpr std::size_t kWakes = 100;
constexpr std::size_t kHops = 20'000;

// The longer pause is slept through, as a processor that is kept busy would wake others sooner; the
// short one is too short for that.
void pause_for(std::chrono::microseconds pause) {
  const SteadyTime until = now() + pause;
  if (pause >= 500us) return std::this_thread::sleep_until(until);
  while (now() < until) {
  }
}

// One word that a thread waits on, and the time that it woke at.
class Futex {
 public:
  void set(std::uint32_t value) {
    word_.store(value, std::memory_order_release);  // with the loads in wait_until
    syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }
  void wait_until(std::uint32_t value) {
    for (std::uint32_t seen = load(); seen != value; seen = load())
      syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
  }
  std::uint32_t load() const { return word_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::uint32_t> word_{0};
};

// `post(woken)` makes another thread take the time, and then set `woken`.
template <class Post>
void wakes(std::chrono::microseconds pause, Latencies& latencies, Post post) {
  for (std::size_t i = 0; i < kWakes; ++i) {
    pause_for(pause);
    Futex woken;
    SteadyTime at;
    const SteadyTime posted = now();
    post([&] {
      at = now();
      woken.set(1);
    });
    woken.wait_until(1);
    latencies.add(at - posted);
  }
}

// A thread that runs one function each time its futex is set.
template <class Function>
class Sleeper {
 public:
  ~Sleeper() {
    over_ = true;
    futex_.set(turn_ + 1);
    thread_.join();
  }
  void run(Function& function) {
    function_ = &function;
    futex_.set(++turn_);
  }

 private:
  void loop() {
    for (std::uint32_t turn = 1;; ++turn) {
      futex_.wait_until(turn);
      if (over_) return;
      (*function_)();
    }
  }

  Futex futex_;
  std::uint32_t turn_ = 0;
  bool over_ = false;
  Function* function_ = nullptr;
  std::jthread thread_{[this] { loop(); }};
};

void measure_wakes(benchmark::State& state, std::chrono::microseconds pause, auto post) {
  Latencies latencies;
  bool warm = false;
  measure(
      state,
      [&] {
        wakes(pause, latencies, post);
        if (!warm) latencies.clear();
        warm = true;
      },
      [&] { return true; });
  latencies.report(state);
}

void add_wakes(const std::string& workload, std::size_t threads, std::chrono::microseconds pause) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    magpie::WorkStealingExecutor executor({.threads = threads});
    measure_wakes(state, pause, [&](auto job) { executor.post(std::move(job)); });
  });
  add(workload, "futex", threads, [=](benchmark::State& state) {
    using Job = std::function<void()>;
    Job job;
    Sleeper<Job> sleeper;
    measure_wakes(state, pause, [&](auto function) {
      job = function;
      sleeper.run(job);
    });
  });
}

Task<std::size_t> hops(magpie::Executor& there, magpie::Executor& here) {
  std::size_t done = 0;
  for (; done < kHops; done += 2) {
    co_await magpie::resume_on(there);
    co_await magpie::resume_on(here);
  }
  co_return done;
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_wakes("wake_parked", threads, 500us);
    add_wakes("wake_after_30us", threads, 30us);
    add("resume_on", "magpie", threads, [=](benchmark::State& state) {
      magpie::WorkStealingExecutor there({.threads = threads});
      std::size_t result = 0;
      measure_magpie(
          state, threads, [&](auto& here) { result = here.run(hops(there, here)); },
          [&] { return result == kHops; });
      count_operations(state, kHops);
    });
  }
}

}  // namespace bench
