// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 300
// ctest-leave-out: gcc (threads and time, the coroutines are those of task_test)

// The executor as a machine: its threads, options, resizing, waking and sleeping.

#include <magpie/work_stealing_executor.h>

#include <ctime>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sched.h>

#include <gtest/gtest.h>

#include <magpie/blocking.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>
#include <support/start_anew.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::scaled;

Task<int> give(int value) {
  co_return value;
}

std::string thread_name() {
  char name[32] = {};
  pthread_getname_np(pthread_self(), name, sizeof name);
  return name;
}

class ThreadsVariable {
 public:
  explicit ThreadsVariable(const char* value) { setenv("MAGPIE_THREADS", value, 1); }
  ~ThreadsVariable() { unsetenv("MAGPIE_THREADS"); }
};

TEST(WorkStealingExecutor, TakesOneTo4096Threads) {
  EXPECT_EQ(WorkStealingExecutor({.threads = 1}).thread_count(), 1U);
  EXPECT_EQ(WorkStealingExecutor({.threads = 3}).thread_count(), 3U);
  EXPECT_EQ(WorkStealingExecutor().thread_count(), available_parallelism());
  EXPECT_EQ(WorkStealingExecutor({.threads = 0}).thread_count(), available_parallelism());
  EXPECT_THROW(WorkStealingExecutor({.threads = 5000}), std::invalid_argument);
  EXPECT_THROW(WorkStealingExecutor({.threads = 4097}), std::invalid_argument);
  EXPECT_THROW(WorkStealingExecutor({.max_blocking_threads = 0}), std::invalid_argument);
  EXPECT_THROW(run(give(1), {.threads = 5000}), std::invalid_argument);
}

TEST(WorkStealingExecutor, ThreadsVariableCountsUnlessANumberIsGiven) {
  {
    ThreadsVariable set("3");
    EXPECT_EQ(available_parallelism(), 3U);
    EXPECT_EQ(WorkStealingExecutor().thread_count(), 3U);
    EXPECT_EQ(WorkStealingExecutor({.threads = 2}).thread_count(), 2U);
    WorkStealingExecutor executor({.threads = 1});
    executor.resize(0);
    EXPECT_EQ(executor.thread_count(), 3U);
  }
  {
    ThreadsVariable set("");
    EXPECT_GE(WorkStealingExecutor().thread_count(), 1U);
  }
  for (const char* wrong : {"zero", "0", "-1", "4097", "3x", " "}) {
    ThreadsVariable set(wrong);
    try {
      WorkStealingExecutor executor;
      ADD_FAILURE() << wrong;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(wrong), std::string::npos) << error.what();
    }
    EXPECT_EQ(WorkStealingExecutor({.threads = 1}).thread_count(), 1U);
  }
}

TEST(WorkStealingExecutor, NamesItsThreadsAndKeepsTheIndex) {
  std::string seen =
      run([]() -> Task<std::string> { co_return thread_name(); }(), {.threads = 1, .name = "pool"});
  EXPECT_EQ(seen, "pool-0");
  seen = run([]() -> Task<std::string> { co_return thread_name(); }(),
             {.threads = 1, .name = "a-very-long-name-indeed"});
  EXPECT_EQ(seen.size(), 15U);
  EXPECT_EQ(seen.substr(13), "-0");
  seen = run([]() -> Task<std::string> { co_return thread_name(); }(),
             {.threads = 1, .name = std::string("cut\0here", 8)});
  EXPECT_EQ(seen, "cut-0");
  // The threads for blocking calls are told from the workers, also where the name is long.
  seen = run(to_thread([] { return thread_name(); }),
             {.threads = 1, .name = "a-very-long-name-indeed"});
  EXPECT_EQ(seen, "a-very-lon-io-0");
}

TEST(WorkStealingExecutor, PinnedWorkersRunToo) {
  WorkStealingExecutor executor({.threads = 4, .pin_threads = true});
  auto [a, b] = executor.run(gather(give(1), give(2)));
  EXPECT_EQ(a + b, 3);
}

TEST(WorkStealingExecutor, WhatAPinnedWorkerStartsIsNotPinnedWithIt) {
  const auto processors = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    return CPU_COUNT(&set);
  };
  const int all = processors();
  WorkStealingExecutor executor({.threads = 2, .pin_threads = true});
  auto ask = [&]() -> Task<int> { co_return processors(); };
  EXPECT_EQ(executor.run(ask()), 1);
  EXPECT_EQ(executor.run(to_thread(processors)), all);
}

// Two functions that wait for each other must both run, whatever sleeps when they are posted.
TEST(WorkStealingExecutor, WakesAsManyWorkersAsThereIsWork) {
  for (std::size_t threads : {2U, 3U, 8U}) {
    WorkStealingExecutor executor({.threads = threads});
    for (int round = 0; round < 60; ++round) {
      if (round % 2 == 0) std::this_thread::sleep_for(1ms);  // all asleep, in the second stage
      std::atomic<std::size_t> inside{0};
      std::atomic<std::size_t> out{0};
      for (std::size_t i = 0; i < threads; ++i) {
        executor.post([&] {
          ++inside;
          EXPECT_TRUE(eventually([&] { return inside.load() >= threads; }));
          ++out;
        });
      }
      ASSERT_TRUE(eventually([&] { return out.load() == threads; }));
    }
  }
}

TEST(WorkStealingExecutor, WakesSleepersForWhatATaskSpawns) {
  WorkStealingExecutor executor({.threads = 4});
  for (int round = 0; round < 60; ++round) {
    std::this_thread::sleep_for(500us);
    std::atomic<std::size_t> inside{0};
    auto meet = [](std::atomic<std::size_t>& count) -> Task<bool> {
      ++count;
      co_return eventually([&] { return count.load() >= 4; });
    };
    auto body = [&]() -> Task<bool> {
      std::vector<JoinHandle<bool>> handles;
      for (int i = 0; i < 4; ++i) handles.push_back(spawn(meet(inside)));
      bool all = true;
      for (auto& handle : handles) {
        bool met = co_await handle;
        all = all && met;
      }
      co_return all;
    };
    ASSERT_TRUE(executor.run(body()));
  }
}

TEST(WorkStealingExecutor, WakesSleepersForTheChildrenOfAGather) {
  WorkStealingExecutor executor({.threads = 3});
  for (int round = 0; round < 60; ++round) {
    std::this_thread::sleep_for(500us);
    std::atomic<int> inside{0};
    auto meet = [](std::atomic<int>& count) -> Task<bool> {
      ++count;
      co_return eventually([&] { return count.load() >= 3; });
    };
    auto [a, b, c] = executor.run(gather(meet(inside), meet(inside), meet(inside)));
    ASSERT_TRUE(a && b && c);
  }
}

// PARKING.md, P7: what a worker has woken is its own at first, but not for long.
Task<> waits_for(Event& event, std::atomic<int>& ran) {
  co_await event.wait();
  ran.fetch_add(1);
}

// Three workers, each of which has woken one strand and does not let go of its thread before that
// has run: the fourth runs them all.
TEST(WorkStealingExecutor, AStrandIsTakenFromAWorkerThatHasWokenItAndGoesOn) {
  constexpr int kBlockers = 3;
  WorkStealingExecutor executor({.threads = kBlockers + 1});
  for (int round = 0; round < static_cast<int>(scaled(100)); ++round) {
    std::atomic<int> parked{0};
    std::atomic<int> ran[kBlockers] = {};
    auto blocker = [&](int i) -> Task<> {
      Event event;
      JoinHandle<> woken = spawn(waits_for(event, ran[i]));
      parked.fetch_add(1);
      while (parked.load() != kBlockers) co_await this_task::yield();
      event.set();
      while (ran[i].load() == 0) std::this_thread::yield();
      co_await std::move(woken);
    };
    auto all = [&]() -> Task<> { co_await gather(blocker(0), blocker(1), blocker(2)); };
    executor.run(all());
    for (const auto& count : ran) EXPECT_EQ(count.load(), 1);
  }
}

// An idle worker that has watched strands being passed on looks away now and then, not for good.
TEST(WorkStealingExecutor, AStrandIsTakenFromAWorkerThatHasPassedOnManyBefore) {
  WorkStealingExecutor executor({.threads = 2});
  auto all = [&]() -> Task<> {
    for (int i = 0; i < 10'000; ++i) co_await this_task::yield();
    std::atomic<int> ran{0};
    Event event;
    JoinHandle<> woken = spawn(waits_for(event, ran));
    co_await this_task::yield();
    event.set();
    while (ran.load() == 0) std::this_thread::yield();
    co_await std::move(woken);
  };
  for (int round = 0; round < static_cast<int>(scaled(20)); ++round) executor.run(all());
}

// Two strands that never leave their worker's deque empty: each runs until both have been seen at
// work on different threads.
TEST(WorkStealingExecutor, AStrandIsTakenFromAWorkerThatAlwaysHasOne) {
  WorkStealingExecutor executor({.threads = 2});
  for (int round = 0; round < static_cast<int>(scaled(100)); ++round) {
    std::atomic<std::thread::id> at[2] = {};
    std::atomic<bool> both_at_work{false};
    auto loop = [&](int me) -> Task<> {
      while (!both_at_work.load()) {
        at[me].store(std::this_thread::get_id());
        const std::thread::id other = at[1 - me].load();
        if (other != std::thread::id() && other != std::this_thread::get_id())
          both_at_work.store(true);
        co_await this_task::yield();
      }
    };
    auto both = [&]() -> Task<> { co_await gather(loop(0), loop(1)); };
    executor.run(both());
  }
}

TEST(WorkStealingExecutor, ServesEveryTaskWhileOthersYieldForEver) {
  WorkStealingExecutor executor({.threads = 1});
  std::atomic<bool> stop{false};
  auto spinner = [](std::atomic<bool>& s) -> Task<> {
    while (!s.load()) co_await this_task::yield();
  };
  std::vector<JoinHandle<void>> spinners;
  for (int i = 0; i < 3; ++i) spinners.push_back(executor.spawn(spinner(stop)));
  EXPECT_EQ(executor.run(give(4)), 4);  // from outside
  executor.run(sleep_for(1ms));         // a timer
  auto nested = []() -> Task<int> {
    auto handle = spawn(give(6));
    int value = co_await handle;
    co_return value;
  };
  EXPECT_EQ(executor.run(nested()), 6);
  stop = true;
  for (auto& handle : spinners) handle.wait();
}

// Counted in steps of the others, not in time: it does not matter who stands still meanwhile.
TEST(WorkStealingExecutor, WhatComesFromOutsideIsServedWithinSoManySteps) {
  constexpr std::uint64_t kMost = 4 * 61;  // every 61st piece of work is the oldest one
  WorkStealingExecutor executor({.threads = 1});
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> steps{0};
  auto spinner = [&]() -> Task<> {
    while (!stop.load()) {
      steps.fetch_add(1);
      co_await this_task::yield();
    }
  };
  std::vector<JoinHandle<void>> spinners;
  for (int i = 0; i < 5; ++i) spinners.push_back(executor.spawn(spinner()));
  for (int i = 0; i < 200; ++i) {
    std::atomic<std::uint64_t> served_at{0};
    auto task = [&]() -> Task<> {
      served_at = steps.load();
      co_return;
    };
    JoinHandle<> handle = executor.spawn(task());
    const std::uint64_t spawned_at = steps.load();  // or before
    handle.wait();
    EXPECT_LE(served_at.load(), spawned_at + kMost);
  }
  stop = true;
  for (auto& handle : spinners) handle.wait();
}

// A worker that has just run a post of a stream goes to the injection queue again before it takes
// from another one what may last: whether the post came first.
bool a_post_comes_before_what_can_be_stolen() {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> offer{false};
  std::atomic<bool> offered{false};
  std::atomic<int> stolen{0};
  std::atomic<int> order{0};
  std::atomic<int> end{0};
  const auto until = [](const auto& done) {
    while (!done()) std::this_thread::yield();
  };
  std::atomic<bool> begun{false};
  executor.post([&] {  // one worker is at this all the time
    begun = true;
    until([&] { return offer.load(); });
    for (int i = 0; i < 2; ++i)
      executor.post([&] {
        int none = 0;
        stolen.compare_exchange_strong(none, ++order);
        ++end;
      });
    offered = true;
    until([&] { return stolen != 0; });
    ++end;
  });
  until([&] { return begun.exchange(false); });
  constexpr int kStream = 20'000;
  std::atomic<int> ran{0};
  for (int i = 0; i < kStream; ++i) executor.post([&] { ++ran; });
  executor.post([&] {
    begun = true;
    until([&] { return offered.load(); });
  });
  until([&] { return begun.load(); });
  int posted = 0;
  executor.post([&] {
    posted = ++order;
    ++end;
  });
  offer = true;
  until([&] { return end == 4 && ran == kStream; });
  return posted < stolen;
}
TEST(WorkStealingExecutor, APostThatIsThereIsNotOvertakenByWhatCanBeStolen) {
  // The stream has to be seen as one: it mostly is not.
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(a_post_comes_before_what_can_be_stolen());
}

TEST(WorkStealingExecutor, TimersFireWhileEveryWorkerIsBusyAndNothingSuspends) {
  WorkStealingExecutor executor({.threads = 1});
  auto busy = []() -> Task<bool> {
    CancellationToken token = co_await this_task::token();
    bool seen = eventually([&] { return token.cancelled(); });
    co_return seen;
  };
  EXPECT_TRUE(executor.run(timeout(busy(), 3ms)));  // it returned a value although it was timed out
}

TEST(WorkStealingExecutor, SleepsLastAtLeastAsLongAsAsked) {
  WorkStealingExecutor executor({.threads = 2});
  auto body = []() -> Task<> {
    for (auto length : {1us, 50us, 300us, 3000us}) {
      const auto before = std::chrono::steady_clock::now();
      co_await sleep_for(length);
      EXPECT_GE(std::chrono::steady_clock::now() - before, length);
      const auto until = std::chrono::steady_clock::now() + length;
      co_await sleep_until(until);
      EXPECT_GE(std::chrono::steady_clock::now(), until);
    }
    co_await sleep_for(-1s);
    co_await sleep_until(Deadline());
  };
  executor.run(gather(body(), body(), body(), body()));
}

TEST(WorkStealingExecutor, BlockingCallsOnAWorkerAreRefused) {
  WorkStealingExecutor executor({.threads = 2});
  WorkStealingExecutor other({.threads = 1});
  auto body = [&]() -> Task<int> {
    int refused = 0;
    for (auto* target : {&executor, &other}) {
      try {
        target->run(give(1));
      } catch (const std::logic_error&) {
        ++refused;
      }
      try {
        target->resize(1);
      } catch (const std::logic_error&) {
        ++refused;
      }
      try {
        target->shutdown(1s);
      } catch (const std::logic_error&) {
        ++refused;
      }
    }
    try {
      run(give(1));
    } catch (const std::logic_error&) {
      ++refused;
    }
    co_return refused;
  };
  EXPECT_EQ(executor.run(body()), 7);
  EXPECT_EQ(executor.thread_count(), 2U);
  EXPECT_EQ(other.run(give(1)), 1);
}

TEST(WorkStealingExecutor, ResizesUnderLoad) {
  WorkStealingExecutor executor({.threads = 1});
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> rounds{0};
  struct Tree {
    static Task<int> of(int depth) {
      if (depth == 0) {
        co_await this_task::yield();
        co_return 1;
      }
      auto [a, b] = co_await gather(of(depth - 1), of(depth - 1));
      co_return a + b;
    }
  };
  auto load = [&]() -> Task<> {
    while (!stop.load()) {
      int leaves = co_await Tree::of(5);
      EXPECT_EQ(leaves, 32);
      co_await sleep_for(10us);
      ++rounds;
    }
  };
  std::vector<JoinHandle<void>> handles;
  for (int i = 0; i < 8; ++i) handles.push_back(executor.spawn(load()));
  for (std::size_t cycle = 0; cycle < scaled(40); ++cycle) {
    for (std::size_t threads : {8U, 2U, 64U, 1U}) {
      executor.resize(threads);
      ASSERT_EQ(executor.thread_count(), threads);
      const std::size_t before = rounds.load();
      ASSERT_TRUE(eventually([&] { return rounds.load() > before; }));
    }
  }
  EXPECT_THROW(executor.resize(4097), std::invalid_argument);
  EXPECT_EQ(executor.thread_count(), 1U);
  stop = true;
  for (auto& handle : handles) EXPECT_TRUE(handle.wait());
}

TEST(WorkStealingExecutor, AnyNumberOfThreadsMayResize) {
  WorkStealingExecutor executor({.threads = 2});
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < scaled(60); ++i) {
        executor.resize(1 + (i * 7 + t * 3) % 9);
        EXPECT_EQ(executor.run(give(3)), 3);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(WorkStealingExecutor, ManyThreadsOnFewCores) {
  WorkStealingExecutor executor({.threads = 64});
  struct Fibonacci {
    static Task<long> of(long n) {
      if (n < 2) co_return n;
      auto [a, b] = co_await gather(of(n - 1), of(n - 2));
      co_return a + b;
    }
  };
  EXPECT_EQ(executor.run(Fibonacci::of(20)), 6765);
  std::vector<Task<>> sleepers;
  for (int i = 0; i < 1000; ++i) {
    sleepers.push_back([]() -> Task<> {
      co_await sleep_for(1ms);
      co_await this_task::yield();
    }());
  }
  executor.run(gather(std::move(sleepers)));
}

TEST(WorkStealingExecutor, RunsFromManyThreadsAtOnce) {
  WorkStealingExecutor executor({.threads = 2});
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) ASSERT_EQ(executor.run(give(t * 1000 + i)), t * 1000 + i);
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(WorkStealingExecutor, OtherTasksGoOnAfterRun) {
  WorkStealingExecutor executor({.threads = 1});
  JoinHandle<void> child;
  auto body = [&]() -> Task<> {
    child = spawn(sleep_for(3ms));
    co_return;
  };
  executor.run(body());
  EXPECT_TRUE(child.wait());
}

TEST(WorkStealingExecutor, FreeRunCancelsWhatItsTaskSpawned) {
  JoinHandle<void> child;
  auto body = [&]() -> Task<> {
    child = spawn(sleep_for(1h));
    co_return;
  };
  run(body(), {.threads = 2});
  EXPECT_TRUE(child.cancelled());
}

TEST(WorkStealingExecutor, DumpNamesLiveTasksAndWhatTheyWaitFor) {
  WorkStealingExecutor executor({.threads = 2});
  auto sleeper = executor.spawn(sleep_for(1h), "sleepy");
  auto joiner = [](JoinHandle<void> h) -> Task<> { co_await h; };
  auto waiting = executor.spawn(joiner(sleeper), "patient");
  ASSERT_TRUE(eventually([&] {
    std::ostringstream out;
    executor.dump_tasks(out);
    const std::string text = out.str();
    return text.find("sleepy") != std::string::npos && text.find("patient") != std::string::npos &&
           text.find("waiting for sleep") != std::string::npos &&
           text.find("waiting for a task") != std::string::npos;
  }));
  EXPECT_EQ(executor.stats().live_tasks, 2U);
  // A sleep is shown before its timer is armed.
  ASSERT_TRUE(eventually([&] { return executor.stats().pending_timers == 1; }));
  sleeper.cancel();
  waiting.wait();
  ASSERT_TRUE(eventually([&] { return executor.stats().live_tasks == 0; }));
  EXPECT_EQ(executor.stats().pending_timers, 0U);  // a cancelled timer is gone at once
}

TEST(WorkStealingExecutor, PostedFunctionsAndVisitorsAreNoLiveTasks) {
  WorkStealingExecutor executor({.threads = 1});
  WorkStealingExecutor other({.threads = 1});
  std::atomic<bool> running{false};
  std::atomic<bool> go_on{false};
  const auto hold = [&] {
    running = true;
    while (!go_on) std::this_thread::yield();
  };
  executor.post(hold);
  ASSERT_TRUE(eventually([&] { return running.load(); }));
  EXPECT_EQ(executor.stats().live_tasks, 0U);
  go_on = true;
  auto visits = [&]() -> Task<> {
    co_await resume_on(executor);
    co_await sleep_for(1h);
  };
  auto visitor = other.spawn(visits());
  ASSERT_TRUE(eventually([&] { return executor.stats().pending_timers == 1; }));
  EXPECT_EQ(executor.stats().live_tasks, 0U);
  EXPECT_EQ(other.stats().live_tasks, 1U);
  visitor.cancel();
  visitor.wait();
  EXPECT_TRUE(eventually([&] { return other.stats().live_tasks == 0; }));
}

TEST(WorkStealingExecutor, StatsAndDumpsFromAnyThreadWhileItWorks) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> stop{false};
  std::vector<std::thread> watchers;
  for (int i = 0; i < 2; ++i) {
    watchers.emplace_back([&] {
      while (!stop.load()) {
        std::ostringstream out;
        executor.dump_tasks(out);
        ExecutorStats stats = executor.stats();
        EXPECT_GE(stats.workers.size(), 2U);
        std::this_thread::sleep_for(200us);
      }
    });
  }
  auto work = []() -> Task<> {
    auto nap = []() -> Task<> { co_await sleep_for(5us); };
    for (int i = 0; i < 100; ++i) co_await gather(nap(), nap(), sleep_for(1us));
  };
  for (std::size_t round = 0; round < scaled(20); ++round) {
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 20; ++i) handles.push_back(executor.spawn(work()));
    for (auto& handle : handles) EXPECT_TRUE(handle.wait());
  }
  stop = true;
  for (auto& watcher : watchers) watcher.join();
  EXPECT_GT(executor.stats().total.tasks_run, 0U);
}

using WorkStealingExecutorDeathTest = testing::Test;

TEST(WorkStealingExecutorDeathTest, DestructionOnItsOwnWorkerEndsTheProgramWithASentence) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "TSan cannot fork a process that has threads";
#else
  if (!test::can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        auto* executor = new WorkStealingExecutor({.threads = 1});
        executor->post([executor] { delete executor; });
        std::this_thread::sleep_for(200s);
      },
      "destroyed by one of its own tasks");
#endif
}

}  // namespace
}  // namespace magpie
