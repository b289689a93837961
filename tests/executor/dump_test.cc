// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// dump_tasks: the tree of live tasks.

#include <magpie/executor.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/start_anew.h>
#include <support/watchdog.h>
#include <unistd.h>

#include <magpie/detail/executor_core.h>
#include <magpie/event.h>
#include <magpie/resume_on.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/task_group.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using magpie::testing::DeadlockError;
using magpie::testing::SimulatedExecutor;

struct Line {
  std::size_t indent;
  std::string rest;  // without the number
};

std::vector<Line> lines_of(const std::string& dump) {
  std::istringstream in(dump);
  std::string text;
  std::getline(in, text);  // the count
  std::vector<Line> lines;
  while (std::getline(in, text)) {
    const std::size_t indent = text.find('#');
    lines.push_back({indent, text.substr(text.find(' ', indent) + 1)});
  }
  return lines;
}

std::string dump_of(const Executor& executor) {
  std::ostringstream out;
  executor.dump_tasks(out);
  return std::move(out).str();
}

Task<> do_nothing() {
  co_return;
}
Task<> sleeper() {
  co_await sleep_for(1h);
}

Task<> family() {
  auto inner = [](TaskGroup& group) -> Task<> {
    group.spawn(sleeper(), "grandchild one");
    group.spawn(sleeper(), "grandchild two");
    co_return;
  };
  auto child = [&inner]() -> Task<> { co_await task_group(inner); };
  auto body = [&child](TaskGroup& group) -> Task<> {
    group.spawn(child(), "child one");
    group.spawn(sleeper(), "child two");
    co_return;
  };
  co_await task_group(body);
}

TEST(Dump, ShowsTheTasksOfAGroupBelowTheOneWhoseGroupItIs) {
  SimulatedExecutor executor(3);
  std::string dump;
  auto body = [&]() -> Task<> {
    auto root = executor.spawn(family(), "root");
    co_await sleep_for(1min);
    dump = dump_of(executor);
    root.cancel();
  };
  executor.run(body());
  EXPECT_EQ(dump.find("6 live tasks\n"), 0U) << dump;
  const std::vector<Line> lines = lines_of(dump);
  ASSERT_EQ(lines.size(), 6U) << dump;
  EXPECT_EQ(lines[0].indent, 2U) << dump;  // the one that dumps
  EXPECT_EQ(lines[0].rest.find("task-"), 0U) << dump;
  // In the order of their numbers, which is that of their births.
  EXPECT_EQ(lines[1].rest, "root: waiting for the tasks of a group, age 60.000 s") << dump;
  EXPECT_EQ(lines[1].indent, 2U) << dump;
  EXPECT_EQ(lines[2].rest, "child one (in a group): waiting for the tasks of a group, age 60.000 s")
      << dump;
  EXPECT_EQ(lines[2].indent, 4U) << dump;
  EXPECT_EQ(lines[3].rest, "grandchild one (in a group): waiting for sleep, age 60.000 s") << dump;
  EXPECT_EQ(lines[3].indent, 6U) << dump;
  EXPECT_EQ(lines[4].rest, "grandchild two (in a group): waiting for sleep, age 60.000 s") << dump;
  EXPECT_EQ(lines[4].indent, 6U) << dump;
  EXPECT_EQ(lines[5].rest, "child two (in a group): waiting for sleep, age 60.000 s") << dump;
  EXPECT_EQ(lines[5].indent, 4U) << dump;
}

TEST(Dump, HasOneLineForATaskWhateverItsNameHolds) {
  WorkStealingExecutor executor({.threads = 1});
  const auto sleeping = executor.spawn(sleeper(), std::string("a\n  #9 b\r\x1b[2J\0c", 15));
  const auto lines = lines_of(dump_of(executor));
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].rest.substr(0, 17), "a   #9 b  [2J c: ");
}

TEST(Dump, ShowsATaskAsDoneWhileItsCallbacksRun) {
  SimulatedExecutor executor(1);
  std::string seen;
  auto body = [&]() -> Task<> {
    auto handle = executor.spawn(do_nothing(), "child");
    handle.on_done([&](auto&) { seen = dump_of(executor); });
    co_await handle;
  };
  executor.run(body());
  EXPECT_NE(seen.find(" child: done"), std::string::npos) << seen;
}

TEST(Dump, ShowsTheTreeInADeadlock) {
  SimulatedExecutor executor;
  Event never;
  auto body = [&never](TaskGroup& group) -> Task<> {
    auto waits = [](Event& event) -> Task<> { co_await event.wait(); };
    group.spawn(waits(never), "stuck");
    co_return;
  };
  auto whole = [&body]() -> Task<> { co_await task_group(body); };
  std::string what;
  try {
    executor.run(whole());
  } catch (const DeadlockError& error) {
    what = error.what();
  }
  const std::vector<Line> lines = lines_of(what);
  ASSERT_EQ(lines.size(), 2U) << what;
  EXPECT_EQ(lines[0].indent + 2, lines[1].indent) << what;
  EXPECT_EQ(lines[1].rest, "stuck (in a group): waiting for an event, age 0.000 s") << what;
}

// While a dump goes through the tasks others are born, a little after it looked at the clock.
TEST(Dump, ATaskBornAfterTheDumpBeganIsOfNoAge) {
  struct SetBack : Clock {
    Deadline now() const override { return Deadline(set.load()); }
    std::atomic<std::chrono::nanoseconds> set{10s};
  };
  SetBack clock;
  WorkStealingExecutor executor({.threads = 1, .clock = &clock});
  Event never;
  auto waits = [](Event& event) -> Task<> { co_await event.wait(); };
  JoinHandle<void> handle = executor.spawn(waits(never), "early");
  clock.set = 9'999ms;
  const std::string dump = dump_of(executor);
  EXPECT_NE(dump.find(", age 0.000 s"), std::string::npos) << dump;
  handle.cancel();
  handle.wait();
}

Task<> nested(int depth, Event& event) {
  auto body = [&](TaskGroup& group) -> Task<> {
    if (depth > 0) group.spawn(nested(depth - 1, event));
    co_await event.wait();
  };
  co_await task_group(body);
}

TEST(Dump, OfDeepNestingStaysInBounds) {
  constexpr int kDepth = 2'000;
  SimulatedExecutor executor;
  Event event;
  std::string dump;
  auto body = [&]() -> Task<> {
    auto root = executor.spawn(nested(kDepth, event));
    co_await sleep_for(1s);
    dump = dump_of(executor);
    event.set();
    co_await root;
  };
  executor.run(body());
  EXPECT_EQ(lines_of(dump).size(), kDepth + 2U);
  EXPECT_LT(dump.size(), kDepth * 200U);
}

// What an executor's destructor waits for need not be a task of its own.
TEST(Dump, SaysWhatElseThereIsToWaitForBesidesTasks) {
  WorkStealingExecutor visited({.threads = 1});
  WorkStealingExecutor home({.threads = 1});
  EXPECT_EQ(dump_of(visited), "0 live tasks\n");
  Event over;
  auto visits = [&]() -> Task<> {
    co_await resume_on(visited);
    co_await over.wait();
  };
  auto visitor = home.spawn(visits());
  while (dump_of(home).find("waiting for an event") == std::string::npos) std::this_thread::yield();
  EXPECT_EQ(dump_of(visited),
            "0 live tasks\n"
            "1 more to wait for: functions that were posted, strands of other executors that visit "
            "this one\n");
  EXPECT_EQ(dump_of(home).find("1 live task\n"), 0U);
  EXPECT_EQ(dump_of(home).find("more to wait for"), std::string::npos);
  over.set();
  visitor.wait();
  home.shutdown(1s);
  EXPECT_EQ(dump_of(visited), "0 live tasks\n");
}

// What a watchdog does, on a thread that knows nothing of who is just being made or destroyed.
TEST(Dump, OfAllExecutorsWhileOthersAreMadeAndDestroyed) {
  WorkStealingExecutor stays({.threads = 1});
  std::atomic<int> looks{0};
  std::atomic<bool> over{false};
  std::thread watchdog([&] {
    while (!over.load()) {
      std::ostringstream out;
      detail::ExecutorAccess::show_all(out);
      const std::string shown = std::move(out).str();
      EXPECT_NE(shown.find("live task"), std::string::npos);
      EXPECT_NE(shown.find("magpie_worker_tasks_run_total{worker=\"0\"}"), std::string::npos);
      looks.fetch_add(1);
    }
  });
  const auto some_work = []() -> Task<> { co_await this_task::yield(); };
  for (int seen = 0, made = 0; made < 20 || seen < 20; seen = looks.load(), ++made) {
    if (made % 2 == 0) {
      WorkStealingExecutor executor({.threads = 2});
      executor.run(some_work());
    } else {
      SimulatedExecutor executor;
      executor.run(some_work());
    }
  }
  over.store(true);
  watchdog.join();
}

#if GTEST_HAS_DEATH_TEST
TEST(WatchdogDeathTest, ATestThatHangsIsShownBeforeItEnds) {
  if (!test::can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        WorkStealingExecutor executor({.threads = 1});
        Event never;
        auto waits = [](Event& event) -> Task<> { co_await event.wait(); };
        auto handle = executor.spawn(waits(never), "left behind");
        while (dump_of(executor).find("waiting for") == std::string::npos)
          std::this_thread::yield();
        test::set_watchdog(1ms);
        for (;;) pause();
      },
      "this hangs: WatchdogDeathTest.ATestThatHangsIsShownBeforeItEnds"
      ".*1 live task.*left behind: waiting for an event.*magpie_");
}
#endif

}  // namespace
}  // namespace magpie
