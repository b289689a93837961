// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-all-optimisations
// ctest-optimised-only

// The gate that noise cannot fool: instructions, locked instructions and allocations of the main
// paths, counted one by one and held against the table in costs.md. A change that costs a path an
// atomic fails here, whatever the machine does meanwhile.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <magpie/cancellation.h>
#include <magpie/channel.h>
#include <magpie/config.h>
#include <magpie/gather.h>
#include <magpie/mutex.h>
#include <magpie/parallel.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>
#include <support/counting_new.h>
#include <support/step_counter.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::StepCounter;

// ---- the paths: each does its operation so often ------------------------------------------------

using Path = Task<void> (*)(std::size_t);

MAGPIE_NOINLINE Task<int> one() {
  co_return 1;
}

MAGPIE_NOINLINE Task<int> yields_once() {
  co_await this_task::yield();
  co_return 1;
}

MAGPIE_NOINLINE int number(int n) {
  return n;
}

Task<void> awaits(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await one();
}

Task<void> fork_joins(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i)
    fork_join([] { return number(1); }, [] { return number(2); });
  co_return;
}

Task<void> gathers_of_two(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await gather(one(), one());
}

Task<void> gathers_of_ten(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    std::vector<Task<int>> children;
    children.reserve(10);
    for (int child = 0; child < 10; ++child) children.push_back(one());
    co_await gather(std::move(children));
  }
}

Task<void> spawns(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await spawn(one());
}

Task<void> spawns_with_name(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    const JoinHandle<int> handle = spawn(one());
    co_await handle;
  }
}

Task<void> posts(std::size_t times) {
  auto& executor = static_cast<WorkStealingExecutor&>(co_await this_task::executor());
  std::size_t ran = 0;
  for (std::size_t i = 0; i < times; ++i) executor.post([&ran] { ++ran; });
  while (ran < times) co_await this_task::yield();
}

Task<void> acquires(std::size_t times) {
  Semaphore semaphore(1);
  for (std::size_t i = 0; i < times; ++i) {
    const Permit permit = co_await semaphore.acquire();
  }
}

Task<void> locks(std::size_t times) {
  Mutex mutex;
  for (std::size_t i = 0; i < times; ++i) {
    const Mutex::Lock lock = co_await mutex.lock();
  }
}

Task<void> channel_values(std::size_t times) {
  Channel<int> channel(4);
  for (std::size_t i = 0; i < times; ++i) {
    co_await channel.send(1);
    co_await channel.receive();
  }
}

Task<void> timeouts(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await timeout(yields_once(), 1h);
}

Task<void> yields(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await this_task::yield();
}

Task<void> checkpoints(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await this_task::checkpoint();
}

Task<void> scopes(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) co_await cancel_scope([](CancelScope&) { return one(); });
}

constexpr std::array<std::pair<const char*, Path>, 14> kPaths{{
    {"await", awaits},
    {"fork_join", fork_joins},
    {"gather of 2", gathers_of_two},
    {"gather of 10", gathers_of_ten},
    {"spawn", spawns},
    {"spawn, copied", spawns_with_name},
    {"post", posts},
    {"semaphore", acquires},
    {"mutex", locks},
    {"channel", channel_values},
    {"timeout", timeouts},
    {"yield", yields},
    {"checkpoint", checkpoints},
    {"cancel_scope", scopes},
}};

// ---- counting -----------------------------------------------------------------------------------

struct Cost {
  double instructions = 0;
  double locked = 0;
  double allocations = 0;
};

Cost operator-(const Cost& a, const Cost& b) {
  return {a.instructions - b.instructions, a.locked - b.locked, a.allocations - b.allocations};
}

// The operator new of this program counts itself, with so many locked instructions. The least of
// some tries: the allocator locks, too, where it has nothing at hand.
std::size_t locked_by_counting() {
  std::size_t least = SIZE_MAX;
  for (int i = 0; i < 4; ++i) {
    StepCounter counter;
    counter.start();
    void* volatile memory = ::operator new(64);
    least = std::min(least, counter.stop().locked);
    ::operator delete(memory);
  }
  return least;
}

Task<Cost> counted(Path path, std::size_t times) {
  StepCounter counter;
  const std::size_t allocated = test::allocations();
  counter.start();
  co_await path(times);
  const test::Steps steps = counter.stop();
  const auto allocations = static_cast<double>(test::allocations() - allocated);
  static const auto counting = static_cast<double>(locked_by_counting());
  co_return Cost{static_cast<double>(steps.instructions),
                 static_cast<double>(steps.locked) - counting * allocations, allocations};
}

// The least of some tries: what is done now and then, by the clock or the number of turns, is left
// out.
Task<Cost> least(Path path, std::size_t times) {
  Cost least = co_await counted(path, times);
  for (int i = 0; i < 2; ++i) {
    const Cost again = co_await counted(path, times);
    least.instructions = std::min(least.instructions, again.instructions);
    least.locked = std::min(least.locked, again.locked);
    least.allocations = std::min(least.allocations, again.allocations);
  }
  co_return least;
}

// Of one operation: what eleven more of them cost more. So beginning and end do not count, and what
// is done once is less than a tenth of an operation's.
Task<Cost> of_one(Path path) {
  constexpr std::size_t kFew = 1;
  constexpr std::size_t kMore = 12;
  co_await path(kMore);  // caches are filled, symbols are bound
  const Cost few = co_await least(path, kFew);
  const Cost more = co_await least(path, kMore);
  const Cost difference = more - few;
  constexpr auto kTimes = static_cast<double>(kMore - kFew);
  co_return Cost{difference.instructions / kTimes, difference.locked / kTimes,
                 difference.allocations / kTimes};
}

Cost cost_of(Path path) {
  WorkStealingExecutor executor({.threads = 1});
  return executor.run(of_one(path));
}

// ---- the table ----------------------------------------------------------------------------------

struct Row {
  double clang_instructions = 0;
  double gcc_instructions = 0;
  double locked = 0;
  double allocations = 0;
};

std::map<std::string, Row> table() {
  const std::string here = __FILE__;
  std::ifstream file(here.substr(0, here.rfind('/')) + "/costs.md");
  std::map<std::string, Row> rows;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("| ")) continue;
    std::istringstream cells(line);
    std::vector<std::string> cell;
    for (std::string text; std::getline(cells, text, '|');) cell.push_back(text);
    if (cell.size() < 7 || cell[3].size() < 2 || cell[3][1] < '0' || cell[3][1] > '9') continue;
    const std::string name = cell[1].substr(1, cell[1].find_last_not_of(' '));
    rows[name] = {std::stod(cell[3]), std::stod(cell[4]), std::stod(cell[5]), std::stod(cell[6])};
  }
  return rows;
}

// The instructions in the table are those of two compilers; another one makes others.
double allowed_instructions(const Row& row) {
#if defined(__clang__)
  return __clang_major__ == 19 ? row.clang_instructions : 0;
#else
  return __GNUC__ == 12 ? row.gcc_instructions : 0;
#endif
}

class CostOfAPath : public testing::Test {
 protected:
  void SetUp() override {
#if !defined(__OPTIMIZE__) || !defined(NDEBUG)
    GTEST_SKIP() << "says something about optimised code only";
#endif
    if (!StepCounter::available()) GTEST_SKIP() << "counts on x86-64 Linux only";
  }
};

std::atomic<int> shared{0};  // global: what nobody else sees would be optimised away

MAGPIE_NOINLINE void locks_three_times() {
  shared.fetch_add(1);
  shared.exchange(2);
  shared.store(3);  // in order with all others: an exchange, or a fence
  shared.store(4, std::memory_order_release);
}

TEST_F(CostOfAPath, TheCounterFindsLockedInstructions) {
  StepCounter counter;
  counter.start();
  locks_three_times();
  const test::Steps steps = counter.stop();
  EXPECT_EQ(steps.locked, 3U);
  EXPECT_GE(steps.instructions, 6U);
  EXPECT_LE(steps.instructions, 40U);
}

TEST_F(CostOfAPath, EachIsWithinTheTable) {
  const std::map<std::string, Row> rows = table();
  EXPECT_EQ(rows.size(), kPaths.size()) << "a row for each path, a path for each row: costs.md";
  std::printf("%-24s %12s %8s %11s\n", "one operation", "instructions", "locked", "allocations");
  for (const auto& [name, path] : kPaths) {
    SCOPED_TRACE(name);
    const auto found = rows.find(name);
    EXPECT_NE(found, rows.end()) << "costs.md has no row for it";
    const Row allowed = found != rows.end() ? found->second : Row();
    const Cost cost = cost_of(path);
    std::printf("%-24s %12.1f %8.1f %11.1f\n", name, cost.instructions, cost.locked,
                cost.allocations);
    // A tenth: what is done once in more than ten times.
    EXPECT_LE(cost.locked, allowed.locked + 0.1)
        << "locked instructions: more than costs.md allows";
    EXPECT_LE(cost.allocations, allowed.allocations + 0.1)
        << "allocations: more than costs.md allows";
    if (const double most = allowed_instructions(allowed); most != 0) {
      EXPECT_LE(cost.instructions, most) << "instructions: more than costs.md allows";
    }
  }
}

}  // namespace
}  // namespace magpie
