// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "machine.h"

// What cores make each other wait for: lines of memory that travel between them, for each
// operation, and the time that all take, on a simulated computer (machine.h). Each of as many tasks
// as there are cores does what the row says with objects of its own, so that whatever travels is
// the library's doing. A change that makes a figure worse changes the row, and its commit says what
// that buys; what is better changes it too.
//
// MAGPIE_BUSIEST=5 in the environment prints the five places that waited most; MAGPIE_CORES=32
// shows the bursts on so many cores, which has no limits.

namespace magpie::cores {
namespace {

using namespace std::chrono_literals;

Task<> nothing() {
  co_return;
}
Task<int> one() {
  co_return 1;
}

Task<int> fib(int n) {
  if (n < 2) co_return n;
  const auto [a, b] = co_await gather(fib(n - 1), fib(n - 2));
  co_return a + b;
}

Task<> fan_out(std::size_t children) {
  std::vector<Task<>> tasks;
  for (std::size_t i = 0; i < children; ++i) tasks.push_back(nothing());
  co_await gather(std::move(tasks));
}

Task<> wait_for(Event& event) {
  co_await event.wait();
}
Task<> set(Event& event) {
  event.set();
  co_return;
}

Task<> send_all(Channel<int>& channel, std::size_t items) {
  for (std::size_t i = 0; i < items; ++i) co_await channel.send(1);
  channel.close();
}
Task<> receive_all(Channel<int>& channel) {
  for (;;) {
    const std::optional<int> item = co_await channel.receive();
    if (!item) co_return;
  }
}

// Three accesses to its own stack a turn, of a cycle each.
void busy_for(std::uint64_t us) {
  volatile std::uint64_t turns = 0;
  while (turns < us * 1'000 * Costs::kPerNs / 3) turns = turns + 1;
}
Task<> piece(std::uint64_t us) {
  busy_for(us);
  co_return;
}
Task<> pieces(std::size_t count, std::uint64_t us) {
  std::vector<Task<>> tasks;
  for (std::size_t i = 0; i < count; ++i) tasks.push_back(piece(us));
  co_await gather(std::move(tasks));
}

// So many operations of one task.
using Operations = std::function<Task<>(std::size_t)>;

// Where frames and stacks lie decides much, and each simulation of a process finds them elsewhere:
// what counts is the least of so many.
constexpr int kTries = 3;

// At most, on 8 and on 32 cores: lines that travel for each operation, and microseconds for all. A
// fifth more than the largest of 40 counts: in each the rows came in another order, and in half of
// them the allocator kept less.
struct Row {
  const char* name;
  std::size_t operations;
  double travels_at_8;
  double us_at_8;
  double travels_at_32;
  double us_at_32;
  Operations body;
};

const std::array kRows{
    Row{"Await", 4000, 0.2, 210, 0.7, 1000,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await one();
        }},
    Row{"CancelScope", 1000, 0.4, 140, 1.0, 440,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i)
            co_await cancel_scope([](CancelScope&) -> Task<> { co_return; });
        }},
    Row{"Semaphore", 1000, 0.5, 150, 1.0, 300,
        [](std::size_t n) -> Task<> {
          Semaphore semaphore(1);
          for (std::size_t i = 0; i < n; ++i) {
            const auto permit = co_await semaphore.acquire();
          }
        }},
    Row{"Mutex", 1000, 0.6, 160, 1.4, 370,
        [](std::size_t n) -> Task<> {
          Mutex mutex;
          for (std::size_t i = 0; i < n; ++i) {
            const auto lock = co_await mutex.lock();
          }
        }},
    Row{"Promise", 1000, 0.7, 320, 0.9, 600,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) {
            Promise<int> promise;
            Future<int> future = promise.future();
            promise.set_value(1);
            co_await future;
          }
        }},
    Row{"Gather", 4000, 1.9, 1100, 3.0, 1600,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; i += 1000) co_await fan_out(1000);
        }},
    Row{"Spawn", 500, 6.7, 790, 7.0, 1200,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await spawn(one());
        }},
    Row{"TaskGroup", 320, 7.5, 480, 8.9, 700,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; i += 16) {
            co_await task_group([](TaskGroup& group) -> Task<> {
              for (int k = 0; k < 16; ++k) group.spawn(nothing());
              co_return;
            });
          }
        }},
    Row{"Yield", 500, 1.2, 140, 1.8, 310,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await this_task::yield();
        }},
    Row{"Channel", 1000, 0.4, 170, 0.6, 320,
        [](std::size_t n) -> Task<> {
          Channel<int> channel(16);
          co_await gather(send_all(channel, n), receive_all(channel));
        }},
    Row{"Event", 100, 31.0, 570, 39.0, 1100,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) {
            Event event;
            co_await gather(wait_for(event), set(event));
          }
        }},
    Row{"Race", 100, 14.2, 430, 13.3, 1300,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await race(one(), sleep_for(1s));
        }},
    Row{"Cancel", 100, 11.6, 310, 18.8, 550,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) {
            JoinHandle<void> handle = spawn(sleep_for(1h));
            co_await this_task::yield();
            handle.cancel();
            co_await as_result(std::move(handle));
          }
        }},
    Row{"TaskLocal", 1000, 0.5, 270, 1.1, 810,
        [](std::size_t n) -> Task<> {
          static TaskLocal<int> local{0};
          for (std::size_t i = 0; i < n; ++i) co_await local.with(3, nothing());
        }},
};

Task<> on_each_core(const Row& row, std::size_t cores) {
  std::vector<Task<>> tasks;
  for (std::size_t i = 0; i < cores; ++i) tasks.push_back(row.body(row.operations));
  co_await gather(std::move(tasks));
}

Reading run(const Row& row, std::size_t cores) {
  return simulate(cores, [&](Meter& meter) {
    WorkStealingExecutor executor({.threads = cores});
    executor.run(on_each_core(row, cores));  // the caches of frames are filled
    meter.measure([&] { executor.run(on_each_core(row, cores)); });
  });
}

void print(const char* name, std::size_t cores, double operations, const Reading& run) {
  const Traffic& t = run.traffic;
  std::printf(
      "%-12s %3zu cores %9.1f us %8.2f travels %7.2f copies %6.2f locked an operation, %llu "
      "wake-ups, %llu barriers\n",
      name, cores, run.ns / 1e3, static_cast<double>(t.travels()) / operations,
      static_cast<double>(t.shared) / operations, static_cast<double>(t.locked) / operations,
      static_cast<unsigned long long>(t.wakes), static_cast<unsigned long long>(t.barriers));
  if (const char* const count = std::getenv("MAGPIE_BUSIEST"); count != nullptr)
    std::puts(busiest_places(std::strtoul(count, nullptr, 10)).c_str());
}

std::string name_of(const testing::TestParamInfo<Row>& info) {
  return info.param.name;
}
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

class CoresOnTheirOwn : public testing::TestWithParam<Row> {};

TEST_P(CoresOnTheirOwn, WaitForEachOtherNoMoreThanTheRowAllows) {
  const Row& row = GetParam();
  for (const auto& [cores, most_travels, most_us] :
       {std::tuple{8U, row.travels_at_8, row.us_at_8},
        std::tuple{32U, row.travels_at_32, row.us_at_32}}) {
    const double operations = static_cast<double>(cores * row.operations);
    double travels = 0;
    double us = 0;
    for (int i = 0; i < kTries; ++i) {
      const Reading measured = run(row, cores);
      print(row.name, cores, operations, measured);
      travels = static_cast<double>(measured.traffic.travels()) / operations;
      us = measured.ns / 1e3;
      if (travels <= most_travels && us <= most_us) break;
    }
    EXPECT_LE(travels, most_travels) << "on " << cores << " cores";
    EXPECT_LE(us, most_us) << "on " << cores << " cores";
  }
}

INSTANTIATE_TEST_SUITE_P(Of, CoresOnTheirOwn, testing::ValuesIn(kRows), name_of);

// fib(22) has 57,313 calls. The first try that is within the limit, or the least of them all.
double ns_of_fib_on(std::size_t cores, double limit) {
  double least = std::numeric_limits<double>::max();
  for (int i = 0; i < kTries && least > limit; ++i) {
    const Reading measured = simulate(cores, [&](Meter& meter) {
      WorkStealingExecutor executor({.threads = cores});
      executor.run(fib(16));
      meter.measure([&] { executor.run(fib(22)); });
    });
    print("fib(22)", cores, 57'313, measured);
    least = std::min(least, measured.ns);
  }
  return least;
}

void expect_fib_within(std::size_t cores, double limit) {
  EXPECT_LE(ns_of_fib_on(cores, limit), limit) << cores << " cores";
}

TEST(TreeOfForks, IsFasterOnMoreCores) {
  const double alone = ns_of_fib_on(1, 0);
  expect_fib_within(2, 0.7 * alone);
  expect_fib_within(8, 0.24 * alone);
}

// Far more cores than there is work for: most of them wake up, find nothing and sleep again.
TEST(TreeOfForks, IsNotHeldUpByCoresThatFindNothing) {
  const double few = ns_of_fib_on(16, 0);
  expect_fib_within(64, 1.1 * few);
  expect_fib_within(128, 1.5 * few);
}

// Work that comes while all cores sleep. Were they woken one after the other, the last would begin
// when the first are long through; and were there a barrier for each, those who work would be
// interrupted by as many. The limits lie between what such a chain took (64 sleep: some 145 us and
// 57 barriers, 130 and 33, 160 and 42, 125 and 43) and what it takes now, but for the time of the
// small pieces: that is 140 or 190 us, as their frames lie in memory.
struct Burst {
  const char* name;
  double us_at_64;
  std::uint64_t barriers_at_64;
  Task<> (*program)();
};

const std::array kBursts{
    Burst{"Fib", 140, 42, []() -> Task<> { co_await fib(22); }},
    Burst{"Pieces", 110, 15, []() -> Task<> { co_await pieces(128, 20); }},
    Burst{"SmallPieces", 240, 21, []() -> Task<> { co_await pieces(1000, 2); }},
    Burst{"ParallelFor", 115, 30,
          []() -> Task<> { co_await parallel_for(0, 2000, 0, [](int) { busy_for(1); }); }},
};

Reading run(const Burst& burst, std::size_t cores) {
  const Reading measured = simulate(cores, [&](Meter& meter) {
    WorkStealingExecutor executor({.threads = cores});
    executor.run(fib(16));
    executor.run(sleep_for(300ms));
    meter.measure([&] { executor.run(burst.program()); });
  });
  print(burst.name, cores, 1, measured);
  return measured;
}

std::string name_of_burst(const testing::TestParamInfo<Burst>& info) {
  return info.param.name;
}
void PrintTo(const Burst& burst, std::ostream* out) {
  *out << burst.name;
}

class BurstOfWork : public testing::TestWithParam<Burst> {};

TEST_P(BurstOfWork, IsBegunByAllCoresSoon) {
  const Burst& burst = GetParam();
  if (const char* const cores = std::getenv("MAGPIE_CORES"); cores != nullptr) {
    for (int i = 0; i < kTries; ++i) run(burst, std::strtoul(cores, nullptr, 10));
    GTEST_SKIP() << "the limits are those of 64 cores";
  }
  double us = 0;
  std::uint64_t barriers = 0;
  for (int i = 0; i < kTries; ++i) {
    const Reading measured = run(burst, 64);
    us = measured.ns / 1e3;
    barriers = measured.traffic.barriers;
    if (us <= burst.us_at_64 && barriers <= burst.barriers_at_64) break;
  }
  EXPECT_LE(us, burst.us_at_64);
  EXPECT_LE(barriers, burst.barriers_at_64);
}

INSTANTIATE_TEST_SUITE_P(Of, BurstOfWork, testing::ValuesIn(kBursts), name_of_burst);

// Threads that post one job after the other, all at once, and workers. Under a lock that posters
// share 16 and 16 would take 13 lines and 910 ns a post, 8 and 2 14 and 900; were each post taken
// as it comes, with workers at the posters' lines, 1 and 8 would take 65 and 2,900, and a wake-up
// for every second one.
struct Stream {
  std::size_t posters;
  std::size_t workers;
  double travels;
  double ns;
};
constexpr Stream kStreams[] = {
    {1, 1, 3.7, 225}, {1, 2, 4.4, 230}, {1, 8, 4.4, 220}, {8, 2, 6, 170}, {16, 16, 6, 170}};

TEST(StreamOfPosts, TakesFewLinesAPost) {
  constexpr std::size_t kPosts = 4096;
  for (const Stream& limit : kStreams) {
    double travels = 0;
    double ns = 0;
    for (int i = 0; i < kTries; ++i) {
      const Reading measured = simulate(limit.posters + limit.workers, [&](Meter& meter) {
        WorkStealingExecutor executor({.threads = limit.workers});
        const auto post_some = [&] {
          for (std::size_t k = 0; k < kPosts / limit.posters; ++k) executor.post([] {});
        };
        const auto stream = [&] {
          const std::uint64_t all = executor.stats().total.tasks_run + kPosts;
          std::vector<std::thread> others;
          for (std::size_t p = 1; p < limit.posters; ++p) others.emplace_back(post_some);
          post_some();
          for (std::thread& other : others) other.join();
          while (executor.stats().total.tasks_run < all) std::this_thread::sleep_for(10us);
        };
        stream();
        meter.measure(stream);
      });
      std::printf("%2zu posting: ", limit.posters);
      print("posts", limit.workers, kPosts, measured);
      travels = static_cast<double>(measured.traffic.travels()) / kPosts;
      ns = measured.ns / kPosts;
      if (travels <= limit.travels && ns <= limit.ns) break;
    }
    EXPECT_LE(travels, limit.travels) << limit.posters << " and " << limit.workers;
    EXPECT_LE(ns, limit.ns) << limit.posters << " and " << limit.workers;
  }
}

// Posts to workers that have work of their own, pieces of a microsecond, and look at the posts in
// between. If those who look waited for each other, a post would take 810 ns and 12.6 lines, with
// 32 workers 820 and 14.
TEST(PostsToBusyWorkers, AreNotWaitedFor) {
  constexpr std::size_t kPosts = 1024;
  for (const Stream& limit : {Stream{1, 8, 11.5, 640}, Stream{8, 32, 13.8, 660}}) {
    double travels = 0;
    double ns = 0;
    for (int i = 0; i < kTries; ++i) {
      const Reading measured = simulate(limit.posters + limit.workers, [&](Meter& meter) {
        WorkStealingExecutor executor({.threads = limit.workers});
        std::atomic<bool> enough{false};
        std::atomic<std::size_t> busy{0};
        std::atomic<std::size_t> ran{0};
        const auto keep_busy = [&]() -> Task<> {
          for (busy.fetch_add(1); !enough.load(std::memory_order_relaxed); busy_for(1))
            co_await this_task::yield();
        };
        for (std::size_t k = 0; k < 4 * limit.workers; ++k) executor.spawn(keep_busy());
        while (busy.load() < 4 * limit.workers) std::this_thread::sleep_for(10us);
        const auto post_some = [&] {
          for (std::size_t k = 0; k < kPosts / limit.posters; ++k)
            executor.post([&ran] { ran.fetch_add(1, std::memory_order_relaxed); });
        };
        meter.measure([&] {
          std::vector<std::thread> others;
          for (std::size_t p = 1; p < limit.posters; ++p) others.emplace_back(post_some);
          post_some();
          for (std::thread& other : others) other.join();
          while (ran.load() < kPosts) std::this_thread::sleep_for(1us);
        });
        enough = true;
      });
      std::printf("%2zu posting: ", limit.posters);
      print("to the busy", limit.workers, kPosts, measured);
      travels = static_cast<double>(measured.traffic.travels()) / kPosts;
      ns = measured.ns / kPosts;
      if (travels <= limit.travels && ns <= limit.ns) break;
    }
    EXPECT_LE(travels, limit.travels) << limit.posters << " and " << limit.workers;
    EXPECT_LE(ns, limit.ns) << limit.posters << " and " << limit.workers;
  }
}

// Who waits for the end sleeps, and most tasks end while he gets up: one of them calls the kernel
// for him (executor/SHUTDOWN.md, W1 and E2). If each did, that would be 1,200 calls.
TEST(DrainOfAThousandTasks, CallsTheKernelForFewOfThem) {
  constexpr std::size_t kCores = 8;
  constexpr std::size_t kTasks = 1000;
  const Reading measured = simulate(kCores, [&](Meter& meter) {
    WorkStealingExecutor executor({.threads = kCores});
    executor.run([]() -> Task<> {
      for (std::size_t i = 0; i < kTasks; ++i) spawn(sleep_for(1ms));
      co_return;
    }());
    meter.measure([&] { EXPECT_EQ(executor.shutdown(1h).completed, kTasks); });
  });
  print("drain", kCores, kTasks, measured);
  std::printf("%llu calls of the kernel\n",
              static_cast<unsigned long long>(measured.traffic.calls));
  EXPECT_LE(measured.traffic.calls, 600U);
}

}  // namespace
}  // namespace magpie::cores
