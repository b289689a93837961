// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// spawn, SpawnOptions, post: starting tasks, from inside and outside.

#include <magpie/spawn.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;

Task<int> give(int value) {
  co_return value;
}
Task<> sleep_long() {
  co_await sleep_for(1h);
}
Task<std::string> my_name() {
  std::string name = co_await this_task::name();
  co_return name;
}

TEST(Spawn, TakesOptionsInEachSpelling) {
  WorkStealingExecutor executor({.threads = 2});
  CancellationSource source;
  const std::string text = "text";
  EXPECT_EQ(executor.spawn(my_name(), "literal").wait().value(), "literal");
  EXPECT_EQ(executor.spawn(my_name(), text).wait().value(), "text");
  EXPECT_EQ(executor.spawn(my_name(), std::string_view("view")).wait().value(), "view");
  EXPECT_EQ(executor.spawn(my_name(), SpawnOptions().name("chained").token(source.token()))
                .wait()
                .value(),
            "chained");
  EXPECT_EQ(executor.spawn(my_name(), SpawnOptions("made")).wait().value(), "made");
  EXPECT_EQ(executor.spawn(my_name(), SpawnOptions()).wait().value().substr(0, 5), "task-");
  SpawnOptions options;
  options.name("kept");
  EXPECT_EQ(executor.spawn(my_name(), options).wait().value(), "kept");
  auto body = [&]() -> Task<> {
    auto a = spawn(my_name(), "a");
    auto b = spawn(my_name());
    SpawnOptions named = SpawnOptions().name("c");
    auto c = spawn(my_name(), named);
    std::string first = co_await a;
    std::string third = co_await c;
    EXPECT_EQ(first, "a");
    EXPECT_EQ(third, "c");
    co_await b;
  };
  executor.run(body());
  static_assert(std::is_same_v<decltype(executor.spawn(give(1))), JoinHandle<int>>);
}

TEST(Spawn, TakesAnyAwaitable) {
  WorkStealingExecutor executor({.threads = 2});
  executor.spawn(sleep_for(1us)).wait();
  auto [a, b] = executor.run(gather(give(1), give(2)));
  EXPECT_EQ(a + b, 3);
  auto both = executor.spawn(gather(give(3), give(4)), "both");
  EXPECT_EQ(std::get<1>(both.wait().value()), 4);
  auto handle = executor.spawn(give(5));
  EXPECT_EQ(executor.run(handle), 5);
  EXPECT_EQ(executor.run(std::move(handle)), 5);
  EXPECT_EQ(run(gather(give(6))), std::make_tuple(6));
  EXPECT_EQ(run(give(7), {.threads = 2}), 7);
  Result<int> result = executor.run(as_result(give(8)));
  EXPECT_EQ(result.value(), 8);
  executor.run(this_task::yield());
  auto id = executor.run(this_task::id());
  EXPECT_NE(id, TaskId{});
}

TEST(Spawn, OffEveryExecutorIsALogicError) {
  EXPECT_THROW(spawn(give(1)), std::logic_error);
}

TEST(Spawn, NeverStartsInline) {
  WorkStealingExecutor executor({.threads = 1});
  auto body = []() -> Task<bool> {
    bool ran = false;
    auto child = [&]() -> Task<> {
      ran = true;
      co_return;
    };
    auto handle = spawn(child());
    bool inside = ran;
    co_await handle;
    co_return !inside && ran;
  };
  EXPECT_TRUE(executor.run(body()));
}

TEST(Spawn, IsARootThatItsSpawnerDoesNotCancel) {
  WorkStealingExecutor executor({.threads = 2});
  JoinHandle<void> child;
  std::atomic<bool> spawned{false};
  auto body = [&]() -> Task<> {
    child = spawn(sleep_long());
    spawned = true;
    co_await sleep_for(1h);
  };
  auto parent = executor.spawn(body());
  ASSERT_TRUE(eventually([&] { return spawned.load(); }));
  parent.cancel();
  EXPECT_TRUE(parent.wait().is_cancelled());
  EXPECT_FALSE(child.done());
  child.cancel();
  EXPECT_TRUE(child.wait().is_cancelled());
}

TEST(Spawn, TokenCancelsTheTaskWithItsReason) {
  WorkStealingExecutor executor({.threads = 2});
  CancellationSource source;
  auto handle = executor.spawn(sleep_long(), SpawnOptions().token(source.token()));
  source.cancel("gone");
  try {
    handle.wait().value();
    FAIL();
  } catch (const CancelledError& error) {
    EXPECT_EQ(error.reason().message, "gone");
  }
  bool ran = false;
  auto body = [&]() -> Task<> {
    ran = true;
    co_return;
  };
  auto late = executor.spawn(body(), SpawnOptions().token(source.token()));
  EXPECT_TRUE(late.wait().is_cancelled());
  EXPECT_FALSE(ran);
}

TEST(Spawn, TokenMayDieOrCancelAtAnyMoment) {
  WorkStealingExecutor executor({.threads = 2});
  for (int round = 0; round < 300; ++round) {
    CancellationSource source;
    auto handle = executor.spawn(sleep_for(round % 3 == 0 ? Duration(10us) : Duration(1h)),
                                 SpawnOptions().token(source.token()));
    std::thread canceller([&] { source.cancel(); });
    handle.wait();
    canceller.join();
  }
  {
    auto source = std::make_unique<CancellationSource>();
    auto handle = executor.spawn(sleep_for(1us), SpawnOptions().token(source->token()));
    source.reset();
    EXPECT_TRUE(handle.wait());
  }
}

TEST(Spawn, PostRunsOnceAndTakesMoveOnlyCallables) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<int> sum{0};
  auto owned = std::make_unique<int>(5);
  executor.post([&, owned = std::move(owned)] { sum += *owned; });
  std::function<void()> function = [&] { sum += 10; };
  executor.post(function);
  executor.post(std::move(function));
  struct alignas(128) Aligned {
    std::atomic<int>* sum;
    void operator()() const { *sum += reinterpret_cast<std::uintptr_t>(this) % 128 == 0 ? 100 : 1; }
  };
  executor.post(Aligned{&sum});
  ASSERT_TRUE(eventually([&] { return sum.load() == 125; }));
}

TEST(Spawn, PostThatThrowsIsReported) {
  std::atomic<int> reports{0};
  {
    WorkStealingExecutor executor(
        {.threads = 1, .on_unobserved_error = [&](std::string_view, std::exception_ptr error) {
           try {
             std::rethrow_exception(error);
           } catch (const std::runtime_error&) {
             ++reports;
           }
         }});
    executor.post([] { throw std::runtime_error("posted"); });
  }
  EXPECT_EQ(reports.load(), 1);
}

TEST(Spawn, AHandlerThatThrowsHarmsNobody) {
  WorkStealingExecutor executor(
      {.threads = 1, .on_unobserved_error = [](std::string_view, std::exception_ptr) {
         throw std::runtime_error("again");
       }});
  executor.post([] { throw std::runtime_error("posted"); });
  EXPECT_EQ(executor.run(give(1)), 1);
}

TEST(Spawn, PostedFunctionsMaySpawnAndPost) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<int> done{0};
  executor.post([&] {
    executor.post([&] { ++done; });
    auto body = [](std::atomic<int>& d) -> Task<> {
      ++d;
      co_return;
    };
    spawn(body(done));
  });
  ASSERT_TRUE(eventually([&] { return done.load() == 2; }));
}

TEST(Spawn, TasksOfOneExecutorAwaitHandlesOfAnother) {
  WorkStealingExecutor a({.threads = 1});
  WorkStealingExecutor b({.threads = 2});
  WorkStealingExecutor c({.threads = 1});
  WorkStealingExecutor d({.threads = 2});
  std::vector<WorkStealingExecutor*> executors{&a, &b, &c, &d};
  auto hop = [&](auto& self, std::size_t depth) -> Task<int> {
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, executors[depth % 4]);
    if (depth == 0) co_return 0;
    auto handle = executors[(depth - 1) % 4]->spawn(self(self, depth - 1));
    int below = co_await std::move(handle);
    Executor& again = co_await this_task::executor();
    EXPECT_EQ(&again, executors[depth % 4]);
    co_return below + 1;
  };
  std::vector<JoinHandle<int>> all;
  for (std::size_t i = 0; i < 40; ++i)
    all.push_back(executors[(i + 20) % 4]->spawn(hop(hop, i + 20)));
  for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(all[i].wait().value(), static_cast<int>(i + 20));
}

}  // namespace
}  // namespace magpie
