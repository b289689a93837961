// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "machine.h"

// What cores make each other wait for: lines of memory that travel between them, for each
// operation, on a simulated computer (machine.h). Each of as many tasks as there are cores does
// what the row says with objects of its own, so that whatever travels is the library's doing. A
// change that makes a figure worse changes the row, and its commit says what that buys; what is
// better changes it too.
//
// MAGPIE_BUSIEST=5 in the environment prints the five places that waited most.

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

// So many operations of one task.
using Operations = std::function<Task<>(std::size_t)>;

struct Row {
  const char* name;
  std::size_t operations;
  // Lines that travel for each operation, on 8 and on 32 cores, at most: up to twice what was
  // counted, as it differs with where the frames lie.
  double at_8;
  double at_32;
  Operations body;
};

const std::array kRows{
    Row{"Await", 4000, 0.6, 1.5,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await one();
        }},
    Row{"CancelScope", 1000, 0.6, 1.5,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i)
            co_await cancel_scope([](CancelScope&) -> Task<> { co_return; });
        }},
    Row{"Semaphore", 1000, 0.8, 2.0,
        [](std::size_t n) -> Task<> {
          Semaphore semaphore(1);
          for (std::size_t i = 0; i < n; ++i) {
            const auto permit = co_await semaphore.acquire();
          }
        }},
    Row{"Mutex", 1000, 0.8, 2.0,
        [](std::size_t n) -> Task<> {
          Mutex mutex;
          for (std::size_t i = 0; i < n; ++i) {
            const auto lock = co_await mutex.lock();
          }
        }},
    Row{"Promise", 1000, 1.0, 2.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) {
            Promise<int> promise;
            Future<int> future = promise.future();
            promise.set_value(1);
            co_await future;
          }
        }},
    Row{"Gather", 4000, 2.0, 4.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; i += 1000) co_await fan_out(1000);
        }},
    Row{"Spawn", 500, 4.0, 9.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await spawn(one());
        }},
    Row{"TaskGroup", 320, 7.0, 12.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; i += 16) {
            co_await task_group([](TaskGroup& group) -> Task<> {
              for (int k = 0; k < 16; ++k) group.spawn(nothing());
              co_return;
            });
          }
        }},
    Row{"Yield", 500, 2.5, 2.5,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await this_task::yield();
        }},
    Row{"Channel", 1000, 1.0, 2.0,
        [](std::size_t n) -> Task<> {
          Channel<int> channel(16);
          co_await gather(send_all(channel, n), receive_all(channel));
        }},
    Row{"Event", 100, 18.0, 36.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) {
            Event event;
            co_await gather(wait_for(event), set(event));
          }
        }},
    Row{"Race", 100, 14.0, 20.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) co_await race(one(), sleep_for(1s));
        }},
    Row{"Cancel", 100, 14.0, 25.0,
        [](std::size_t n) -> Task<> {
          for (std::size_t i = 0; i < n; ++i) {
            JoinHandle<void> handle = spawn(sleep_for(1h));
            co_await this_task::yield();
            handle.cancel();
            co_await as_result(std::move(handle));
          }
        }},
    Row{"TaskLocal", 1000, 0.6, 1.0,
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
      "wake-ups\n",
      name, cores, run.ns / 1e3, static_cast<double>(t.travels()) / operations,
      static_cast<double>(t.shared) / operations, static_cast<double>(t.locked) / operations,
      static_cast<unsigned long long>(t.wakes));
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

TEST_P(CoresOnTheirOwn, MoveNoMoreLinesThanTheRowAllows) {
  const Row& row = GetParam();
  for (const auto& [cores, most] : {std::pair{8U, row.at_8}, std::pair{32U, row.at_32}}) {
    const Reading measured = run(row, cores);
    const double operations = static_cast<double>(cores * row.operations);
    print(row.name, cores, operations, measured);
    EXPECT_LE(static_cast<double>(measured.traffic.travels()) / operations, most)
        << "on " << cores << " cores";
  }
}

INSTANTIATE_TEST_SUITE_P(Of, CoresOnTheirOwn, testing::ValuesIn(kRows), name_of);

// fib(22) has 57,313 calls.
Reading fib_on(std::size_t cores) {
  const Reading measured = simulate(cores, [&](Meter& meter) {
    WorkStealingExecutor executor({.threads = cores});
    executor.run(fib(16));
    meter.measure([&] { executor.run(fib(22)); });
  });
  print("fib(22)", cores, 57'313, measured);
  return measured;
}

TEST(TreeOfForks, IsFasterOnMoreCores) {
  const double alone = fib_on(1).ns;
  EXPECT_LE(fib_on(2).ns, 0.65 * alone);
  EXPECT_LE(fib_on(8).ns, 0.25 * alone);
}

// Far more cores than there is work for: most of them wake up, find nothing and sleep again.
TEST(TreeOfForks, IsNotHeldUpByCoresThatFindNothing) {
  const double few = fib_on(16).ns;
  EXPECT_LE(fib_on(64).ns, 2.0 * few);
  EXPECT_LE(fib_on(128).ns, 4.0 * few);
}

}  // namespace
}  // namespace magpie::cores
