// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// resume_on and on: what api.md, section 3, says of them.

#include <magpie/resume_on.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_completed.h>
#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/chain.h>
#include <magpie/detail/random.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/hedge.h>
#include <magpie/limited.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/task_local.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class ResumeOn : public OnMachine {
 protected:
  WorkStealingExecutor other{{.threads = 1, .name = "other"}};
};

Task<Executor*> where() {
  Executor& here = co_await this_task::executor();
  co_return &here;
}
Task<int> hop(Executor& to, int value = 1) {
  co_await resume_on(to);
  co_return value;
}

TEST_ON_THREADS(ResumeOn, MovesTheCoroutineAndItsPlainAwaiters) {
  machine.run([&]() -> Task<> {
    co_await hop(other);
    Executor* here = co_await where();
    EXPECT_EQ(here, &other);
    co_await resume_on(executor);
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await resume_on(executor);  // where it is already
    here = co_await where();
    EXPECT_EQ(here, &executor);
  });
}

TEST_ON_THREADS(ResumeOn, CombinatorsParentResumesWhereItAwaited) {
  machine.run([&]() -> Task<> {
    Executor* here = nullptr;
    co_await gather(hop(other), hop(other));
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await race(hop(other), never());
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await any(hop(other));
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await timeout(hop(other), 1s);
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await timeout(resume_on(other), 1s);
    here = co_await where();
    EXPECT_EQ(here, &executor);
    auto limited = [&](TimeoutScope&) -> Task<int> { return hop(other); };
    co_await timeout_scope(1s, limited);
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await with_token(CancellationToken(), hop(other));
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await uncancellable(hop(other));
    here = co_await where();
    EXPECT_EQ(here, &executor);
    co_await shield(hop(other));
    here = co_await where();
    EXPECT_EQ(here, &executor);
    auto group = [&](TaskGroup& g) -> Task<> {
      g.spawn(hop(other));
      co_await hop(other);
    };
    co_await task_group(group);
    here = co_await where();
    EXPECT_EQ(here, &executor);
    TaskLocal<int> local{1};
    co_await local.with(2, hop(other));
    here = co_await where();
    EXPECT_EQ(here, &executor);
    // Failures and cancellations come home as well.
    auto hop_and_fail = [&]() -> Task<> {
      co_await resume_on(other);
      throw std::runtime_error("there");
    };
    Result<void> r = co_await try_timeout(hop_and_fail(), 1s);
    EXPECT_EQ(what_of(r.error()), "there");
    here = co_await where();
    EXPECT_EQ(here, &executor);
  });
}

TEST_ON_THREADS(ResumeOn, OnRunsElsewhereAndComesBack) {
  machine.run([&]() -> Task<> {
    Executor* there = co_await on(other, where());
    EXPECT_EQ(there, &other);
    Executor* here = co_await where();
    EXPECT_EQ(here, &executor);
    auto failing = [&]() -> Task<int> {
      Executor* inside = co_await where();
      EXPECT_EQ(inside, &other);
      throw std::runtime_error("there");
      co_return 0;
    };
    Result<int> r = co_await as_result(on(other, failing()));
    EXPECT_EQ(what_of(r.error()), "there");
    here = co_await where();
    EXPECT_EQ(here, &executor);
    Result<int> third = co_await as_result(on(other, on(executor, hop(other, 5))));
    EXPECT_EQ(third.value(), 5);
    here = co_await where();
    EXPECT_EQ(here, &executor);
  });
}

TEST_ON_THREADS(ResumeOn, CancelledThereItComesBackToo) {
  machine.run([&]() -> Task<> {
    Event arrived;
    auto body = [&]() -> Task<> {
      auto linger = [&]() -> Task<int> {
        arrived.set();
        co_return co_await never();
      };
      Result<int> r = co_await as_result(on(other, linger()));
      EXPECT_TRUE(r.is_cancelled());
      Executor* here = co_await where();
      EXPECT_EQ(here, &executor);
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await arrived.wait();
    handle.cancel();
    Result<void> done = co_await as_result(handle);
    EXPECT_TRUE(done.has_value());
  });
}

TEST_ON_THREADS(ResumeOn, InACancelledScopeOneStaysWhereOneIs) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      Result<void> r = co_await as_result(resume_on(other));
      EXPECT_TRUE(r.is_cancelled());
      Executor* here = co_await where();
      EXPECT_EQ(here, &executor);
    };
    co_await cancel_scope(block);
  });
}

TEST_ON_THREADS(ResumeOn, ExecutorThatHasShutDownRefusesAndOneStays) {
  other.shutdown(0s);
  machine.run([&]() -> Task<> {
    Result<void> r = co_await as_result(resume_on(other));
    EXPECT_TRUE(is<ExecutorShutdownError>(r.error()));
    Executor* here = co_await where();
    EXPECT_EQ(here, &executor);
    bool ran = false;
    Result<int> s = co_await as_result(on(other, started(ran)));
    EXPECT_TRUE(is<ExecutorShutdownError>(s.error()));
    EXPECT_FALSE(ran);
    here = co_await where();
    EXPECT_EQ(here, &executor);
  });
}

TEST_ON_THREADS(ResumeOn, VirtualTimeDoesNotMoveWhileAStrandComesHome) {
  machine.run([&]() -> Task<> {
    JoinHandle<void> later = executor.spawn(nothing_after(1h));
    for (int i = 0; i < 20; ++i) {
      co_await gather(hop(other), hop(other));
      co_await timeout(hop(other), 30min);
      JoinHandle<int> task = executor.spawn(hop(other));
      co_await task;
      co_await hop(other);
      co_await resume_on(executor);
      co_await on(other, give(1));
    }
    EXPECT_EQ(machine.elapsed(), 0ms);
    later.cancel();
  });
}

TEST_ON_THREADS(ResumeOn, ExecutorIsLetGoOnceItsVisitorsHaveLeft) {
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 10; ++i) {
      auto guest = std::make_unique<WorkStealingExecutor>(ExecutorOptions{.threads = 1});
      co_await hop(*guest);
      co_await resume_on(executor);
      co_await gather(hop(*guest), hop(*guest));
      co_await timeout(hop(*guest), 1s);
      JoinHandle<int> task = executor.spawn(hop(*guest));
      co_await task;
      auto group = [&](TaskGroup& g) -> Task<> {
        g.spawn(hop(*guest));
        co_await hop(*guest);
      };
      co_await task_group(group);
      std::thread([&] { guest.reset(); }).join();
    }
  });
}

// `visited` ends only once the task, which `go` lets go on, is home.
void expect_that_its_end_waits(std::optional<WorkStealingExecutor>& visited, Event& go,
                               const std::atomic<bool>& home, JoinHandle<void>& task) {
  std::atomic<bool> gone{false};
  std::thread end([&] {
    visited.reset();
    EXPECT_TRUE(home);
    gone = true;
  });
  std::this_thread::sleep_for(20ms);  // for visited's destructor to do what it must not
  EXPECT_FALSE(gone);
  go.set();
  task.wait();
  end.join();
}

TEST(ResumeOnAcrossThreads, AnExecutorWaitsForTheParentWhoseChildrenHaveGoneElsewhere) {
  WorkStealingExecutor own({.threads = 1});
  WorkStealingExecutor third({.threads = 1});
  std::optional<WorkStealingExecutor> visited(std::in_place, ExecutorOptions{.threads = 1});
  Event go;
  std::atomic<int> away{0};
  auto child = [&]() -> Task<int> {
    co_await resume_on(third);
    ++away;
    co_await go.wait();
    co_return 1;
  };
  std::atomic<bool> home{false};
  auto body = [&]() -> Task<> {
    co_await resume_on(*visited);
    co_await gather(child(), child());
    Executor* const here = co_await where();
    EXPECT_EQ(here, &*visited);
    home = true;
    co_await resume_on(own);
  };
  JoinHandle<void> task = own.spawn(body());
  EXPECT_TRUE(eventually([&] { return away == 2; }));
  expect_that_its_end_waits(visited, go, home, task);
}

// It is there already, goes elsewhere by itself, and is brought back.
TEST(ResumeOnAcrossThreads, AnExecutorWaitsForWhoComesBackToWhereItWas) {
  WorkStealingExecutor own({.threads = 1});
  std::optional<WorkStealingExecutor> visited(std::in_place, ExecutorOptions{.threads = 1});
  Event go;
  std::atomic<bool> back{false}, home{false};
  auto body = [&]() -> Task<> {
    co_await resume_on(*visited);
    co_await on(*visited, hop(own));
    co_await on(*visited, where());  // which does not leave
    Executor* const here = co_await where();
    EXPECT_EQ(here, &*visited);
    back = true;
    co_await go.wait();
    home = true;
    co_await resume_on(own);
  };
  JoinHandle<void> task = own.spawn(body());
  EXPECT_TRUE(eventually([&] { return back.load(); }));
  expect_that_its_end_waits(visited, go, home, task);
}

// Random trees of combinators whose children hop between executors; each executor then ends, and
// must have nobody left.
class Hops {
 public:
  Task<int> tree(std::uint64_t seed, int depth) {
    detail::Random random(seed);
    if (depth <= 0) co_return 1;
    switch (random.below(7)) {
      case 0:
        co_await gather(hop(random(), depth - 1), hop(random(), depth - 1));
        break;
      case 1:
        co_await timeout(hop(random(), depth - 1), 1h);
        break;
      case 2: {
        auto cleanup = [this, to = random.below(3)] { return visit(to); };
        auto work = hop(random(), depth - 1);
        co_await finally(std::move(work), cleanup);
        break;
      }
      case 3:
        co_await gather_limited(2, several(random(), depth - 1));
        break;
      case 4: {
        auto attempt = [this, depth, next = random()] { return hop(next, depth - 1); };
        co_await hedge(attempt);
        break;
      }
      case 5: {
        auto then = [this, depth, next = random()](int) { return hop(next, depth - 1); };
        auto first = hop(random(), depth - 1);
        co_await chain(std::move(first), then);
        break;
      }
      default: {
        const std::uint64_t next = random();
        auto read = [&](CompletionStream<int>& stream) -> Task<> {
          for (auto one = co_await stream.next(); one; one = co_await stream.next())
            co_await visit(one->index);
          co_await hop(next, depth - 1);
        };
        co_await as_completed(several(random(), depth - 1), read);
        auto spawn_one = [&](TaskGroup& group) -> Task<> {
          group.spawn(hop(next, depth - 1));
          co_await hop(next, depth - 1);
        };
        co_await task_group(spawn_one);
        co_await gather(resume_on(at(next)), sleep_for(0ms));
      }
    }
    co_return 1;
  }
  WorkStealingExecutor& at(std::uint64_t i) { return *executors[i % 3]; }

  std::array<std::optional<WorkStealingExecutor>, 3> executors;

 private:
  Task<int> hop(std::uint64_t seed, int depth) {
    detail::Random random(seed);
    for (std::uint64_t n = random.below(4); n > 0; --n) {
      co_await resume_on(at(random()));
      const bool there_and_back = random.below(3) == 0;
      if (there_and_back) co_await on(at(random()), tree(random(), depth - 1));
    }
    const bool from_elsewhere = random.below(3) == 0;
    if (from_elsewhere) {  // moves the coroutine itself, below no combinator
      auto moving = [this](std::uint64_t first, std::uint64_t second) -> Task<> {
        co_await resume_on(at(first));
        co_await on(at(first), visit(second));
        co_await on(at(second), visit(first));
      };
      Executor& to = at(random());
      Task<> moves = moving(random(), random());
      co_await on(to, std::move(moves));
    }
    co_await tree(random(), depth - 1);
    const bool away = random.below(2) == 0;
    if (away) co_await resume_on(at(random()));
    co_return 1;
  }
  Task<> visit(std::uint64_t i) { co_await resume_on(at(i)); }
  std::vector<Task<int>> several(std::uint64_t seed, int depth) {
    std::vector<Task<int>> tasks;
    for (std::uint64_t i = 0; i < 3; ++i) tasks.push_back(hop(seed + i, depth));
    return tasks;
  }
};

TEST(ResumeOnAcrossThreads, RandomTreesLeaveNobodyBehind) {
  for (std::uint64_t seed = 1; seed <= scaled(200); ++seed) {
    Hops hops;
    for (auto& executor : hops.executors) executor.emplace(ExecutorOptions{.threads = 1});
    hops.at(seed).run(hops.tree(seed, 4));
    for (auto& executor : hops.executors) executor.reset();
  }
}

TEST(ResumeOnAcrossThreads, TaskThatEndsElsewhereMayEndItsExecutor) {
  for (int round = 0; round < 100; ++round) {
    WorkStealingExecutor guest({.threads = 1});
    JoinHandle<int> handle;
    std::optional<WorkStealingExecutor> own;
    auto body = [&]() -> Task<int> {
      co_await resume_on(guest);
      co_await resume_on(*own);
      co_return co_await hop(guest, round);
    };
    own.emplace(ExecutorOptions{.threads = 1});
    handle = own->spawn(body());
    if (round % 2 == 0) handle.wait();
    own.reset();
    EXPECT_TRUE(handle.done());
  }
}

}  // namespace
}  // namespace magpie
