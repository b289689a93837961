// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// task_group: values, failures, and who spawns when: what api.md, section 6, says of it.

#include <magpie/task_group.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class TaskGroupTest : public OnMachine {};

TEST_ON_THREADS(TaskGroupTest, GivesTheBodysValueOnceAllChildrenHaveEnded) {
  int ended = 0;
  machine.run([&]() -> Task<> {
    const int value = co_await task_group([&](TaskGroup& group) -> Task<int> {
      auto child = [&]() -> Task<> {
        co_await sleep_for(5ms);
        ++ended;
      };
      // The closure is in the block, which the children outlive: what they use is by reference to
      // what lies outside.
      group.spawn(nothing_after(5ms));
      co_await child();
      co_return 4;
    });
    EXPECT_EQ(value, 4);
  });
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(machine.elapsed(), 5ms);
}

TEST_ON_THREADS(TaskGroupTest, HandlesGiveTheChildrensValuesAfterTheBlock) {  // B001
  machine.run([&]() -> Task<> {
    JoinHandle<int> a;
    JoinHandle<std::string> b;
    co_await task_group([&](TaskGroup& group) -> Task<> {
      a = group.spawn(give_after(2ms, 1), "first");
      b = group.spawn(give_text("x"));
      co_return;
    });
    EXPECT_TRUE(a.done());
    EXPECT_EQ(a.result().value(), 1);
    EXPECT_EQ(a.result().value(), 1);
    EXPECT_EQ(a.name(), "first");
    EXPECT_EQ(b.name(), "task-" + std::to_string(static_cast<std::uint64_t>(b.id())));
    const std::string text = co_await b;
    EXPECT_EQ(text, "x");
  });
}

TEST_ON_THREADS(TaskGroupTest, ValuesOfAllKindsFromTheBody) {
  int number = 3;
  machine.run([&]() -> Task<> {
    auto move_only = [](TaskGroup&) -> Task<MoveOnly> { co_return MoveOnly(2); };
    MoveOnly a = co_await task_group(move_only);
    EXPECT_EQ(a.value(), 2);
    auto refer = [&](TaskGroup&) -> Task<int&> { co_return number; };
    int& b = co_await task_group(refer);
    EXPECT_EQ(&b, &number);
    auto no_default = [](TaskGroup&) -> Task<NoDefault> { co_return NoDefault(5); };
    NoDefault c = co_await task_group(no_default);
    EXPECT_EQ(c.value, 5);
    auto empty = [](TaskGroup&) -> Task<> { co_return; };
    co_await task_group(empty);
  });
}

// --- failures ------------------------------------------------------------------------------------

TEST_ON_THREADS(TaskGroupTest, FirstFailureCancelsTheOthersAndTheBody) {  // B070, B071, B075
  bool ended[2] = {};
  CancelKind why[2] = {};
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<int> {
      group.spawn(watched(ended[0], why[0]));
      group.spawn(fail_after(1ms, "oops"), "culprit");
      co_return co_await watched(ended[1], why[1]);
    };
    Result<int> r = co_await as_result(task_group(body));
    const ExceptionGroup group = group_of(r.error());
    EXPECT_EQ(group.exceptions().size(), 1u);
    EXPECT_EQ(what_of(group.exceptions()[0]), "oops");
    co_await this_task::checkpoint();
  });
  EXPECT_TRUE(ended[0] && ended[1]);
  EXPECT_EQ(why[0], CancelKind::sibling_failed);
  EXPECT_EQ(why[1], CancelKind::sibling_failed);
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(TaskGroupTest, ReasonNamesTheFailedTaskAndItsError) {  // B037
  std::string message;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(fail_after(1ms, "disk full"), "writer");
      Result<int> r = co_await as_result(never());
      message = reason_of(r.error()).message;
    };
    co_await as_result(task_group(body));
  });
  EXPECT_NE(message.find("writer"), std::string::npos) << message;
  EXPECT_NE(message.find("disk full"), std::string::npos) << message;
}

TEST_ON_THREADS(TaskGroupTest, EveryFailureIsListedInOrderOfCompletion) {  // B072, B073, B074
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(bitter("third", 3ms));
      group.spawn(fail_after(1ms, "first"));
      group.spawn(bitter("second", 2ms));
      group.spawn(never());
      Result<int> waited = co_await as_result(never());
      co_await uncancellable(sleep_for(5ms));
      throw std::logic_error("body");
    };
    Result<void> r = co_await as_result(task_group(body));
    const ExceptionGroup group = group_of(r.error());
    EXPECT_EQ(group.exceptions().size(), 4u);
    if (group.exceptions().size() != 4) co_return;
    EXPECT_EQ(what_of(group.exceptions()[0]), "first");
    EXPECT_EQ(what_of(group.exceptions()[1]), "second");
    EXPECT_EQ(what_of(group.exceptions()[2]), "third");
    EXPECT_EQ(what_of(group.exceptions()[3]), "body");
  });
}

TEST_ON_THREADS(TaskGroupTest, SimultaneousFailuresAreAllThere) {  // B072
  machine.run([&]() -> Task<> {
    for (int round = 0; round < 20; ++round) {
      auto body = [&](TaskGroup& group) -> Task<> {
        for (int i = 0; i < 50; ++i) group.spawn(bitter(std::to_string(i)));
        co_await sleep_for(1ms);
        throw std::runtime_error("body");
      };
      Result<void> r = co_await as_result(task_group(body));
      EXPECT_EQ(group_of(r.error()).exceptions().size(), 51u);
    }
  });
}

TEST_ON_THREADS(TaskGroupTest, BodysErrorCancelsTheChildren) {  // B073
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(watched(ended, why));
      co_await sleep_for(1ms);
      throw std::runtime_error("body");
    };
    Result<void> r = co_await as_result(task_group(body));
    EXPECT_EQ(what_of(group_of(r.error()).exceptions().at(0)), "body");
  });
  EXPECT_TRUE(ended);
  EXPECT_EQ(why, CancelKind::sibling_failed);
}

TEST_ON_THREADS(TaskGroupTest, FailureThatComesBackThroughAHandleIsOneFailure) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<int> {
      JoinHandle<int> child = group.spawn(fail_after(1ms, "once"));
      co_return co_await child;
    };
    Result<int> r = co_await as_result(task_group(body));
    EXPECT_EQ(group_of(r.error()).exceptions().size(), 1u);
  });
}

TEST_ON_THREADS(TaskGroupTest, ChildCancelledByHandIsNoFailure) {  // B076
  machine.run([&]() -> Task<> {
    const int value = co_await task_group([&](TaskGroup& group) -> Task<int> {
      JoinHandle<int> child = group.spawn(never());
      JoinHandle<int> other = group.spawn(give_after(5ms, 2));
      co_await sleep_for(1ms);
      EXPECT_TRUE(child.cancel());
      Result<int> r = co_await as_result(child);
      EXPECT_TRUE(r.is_cancelled());
      const int sum = co_await other;
      co_return sum;
    });
    EXPECT_EQ(value, 2);
  });
}

TEST_ON_THREADS(TaskGroupTest, GroupsNestAndSoDoTheirErrors) {  // B082
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto inner = [](TaskGroup& group) -> Task<> {
      group.spawn(fail_after(1ms, "deep"));
      co_return;
    };
    auto outer = [&](TaskGroup& group) -> Task<> {
      group.spawn(watched(ended, why));
      co_await task_group(inner);
    };
    Result<void> r = co_await as_result(task_group(outer));
    const ExceptionGroup group = group_of(r.error());
    EXPECT_EQ(group.exceptions().size(), 1u);
    EXPECT_TRUE(is<ExceptionGroup>(group.exceptions()[0]));
    EXPECT_TRUE(group.contains<std::runtime_error>());
  });
  EXPECT_TRUE(ended);
}

TEST_ON_THREADS(TaskGroupTest, OuterErrorCancelsTheInnerGroup) {  // B082
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto inner = [&](TaskGroup& group) -> Task<> {
      group.spawn(watched(ended, why));
      co_return;
    };
    auto wrapped = [&]() -> Task<> { co_await task_group(inner); };
    auto outer = [&](TaskGroup& group) -> Task<> {
      group.spawn(wrapped());
      co_await sleep_for(1ms);
      throw std::runtime_error("outer");
    };
    Result<void> r = co_await as_result(task_group(outer));
    EXPECT_EQ(group_of(r.error()).exceptions().size(), 1u);
  });
  EXPECT_TRUE(ended);
}

TEST_ON_THREADS(TaskGroupTest, BodyThatThrowsBeforeItIsACoroutine) {
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<> {
      group.spawn(never());
      throw std::runtime_error("no coroutine");
    };
    Result<void> r = co_await as_result(task_group(body));
    EXPECT_EQ(what_of(group_of(r.error()).exceptions().at(0)), "no coroutine");
  });
}

// --- who spawns, and when ------------------------------------------------------------------------

TEST_ON_THREADS(TaskGroupTest, ChildrenSpawnWhileItCloses) {  // B067
  std::atomic<int> ran{0};
  struct Tree {
    static Task<> grow(TaskGroup& group, int depth, std::atomic<int>& ran) {
      ran.fetch_add(1);
      co_await sleep_for(1ms);
      if (depth > 0) {
        group.spawn(grow(group, depth - 1, ran));
        group.spawn(grow(group, depth - 1, ran));
      }
    }
  };
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(Tree::grow(group, 9, ran));
      co_return;
    };
    co_await task_group(body);
  });
  EXPECT_EQ(ran.load(), 1023);
  EXPECT_TRUE(eventually([&] { return executor.stats().live_tasks == 0; }));
}

TEST_ON_THREADS(TaskGroupTest, OtherThreadsSpawnWhileTheBlockRuns) {
  std::atomic<int> ran{0};
  machine.run([&]() -> Task<> {
    Event done;
    auto hold = machine.clock.hold();
    auto body = [&](TaskGroup& group) -> Task<> {
      std::thread other([&] {
        auto child = [](std::atomic<int>& count) -> Task<> {
          count.fetch_add(1);
          co_return;
        };
        for (int i = 0; i < 500; ++i) group.spawn(child(ran));
        done.set();
      });
      co_await done.wait();
      other.join();
    };
    co_await task_group(body);
  });
  EXPECT_EQ(ran.load(), 500);
}

TEST_ON_THREADS(TaskGroupTest, LongLivedGroupDoesNotCollectFinishedChildren) {  // B016
  Ledger ledger;
  auto hold = [](Tracked tracked) -> Task<> {
    tracked.touch();
    co_return;
  };
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      for (int i = 0; i < 2000; ++i) {
        group.spawn(hold(Tracked(ledger)));
        if (i % 100 == 0) {
          co_await sleep_for(1ms);
          EXPECT_LE(ledger.alive(), 1);
        }
      }
    };
    co_await task_group(body);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(TaskGroupTest, ChildrenInheritTheDeadline) {
  machine.run([&]() -> Task<> {
    const Deadline now = co_await this_task::now();
    auto ask = []() -> Task<std::optional<Deadline>> { co_return co_await this_task::deadline(); };
    auto body = [&](TaskGroup& group) -> Task<> {
      JoinHandle<std::optional<Deadline>> child = group.spawn(ask());
      const auto seen = co_await child;
      EXPECT_EQ(seen, now + 3s);
      auto limited = [&]() -> Task<> {
        JoinHandle<std::optional<Deadline>> inner = group.spawn(ask());
        const auto of_group = co_await inner;  // the group's, not that of whoever spawned it
        EXPECT_EQ(of_group, now + 3s);
      };
      co_await timeout(limited(), 1s);
    };
    co_await timeout(task_group(body), 3s);
  });
}

TEST_ON_THREADS(TaskGroupTest, ManyChildren) {
  std::atomic<long> sum{0};
  auto add = [](std::atomic<long>& to, long value) -> Task<> {
    to.fetch_add(value);
    co_return;
  };
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      for (long i = 0; i < 10'000; ++i) group.spawn(add(sum, i));
      co_return;
    };
    co_await task_group(body);
  });
  EXPECT_EQ(sum.load(), 10'000L * 9'999 / 2);
}

TEST_ON_THREADS(TaskGroupTest, BodyThatEndsOnAnotherExecutorComesHomeAndLetsThatOneGo) {
  machine.run([&]() -> Task<> {
    Executor& home = co_await this_task::executor();
    for (const bool with_child : {false, true}) {
      auto other = std::make_unique<WorkStealingExecutor>(ExecutorOptions{.threads = 1});
      auto body = [&](TaskGroup& group) -> Task<int> {
        if (with_child) group.spawn(nothing_after(1ms));
        co_await resume_on(*other);
        co_return 1;
      };
      const int value = co_await task_group(body);
      EXPECT_EQ(value, 1);
      Executor& here = co_await this_task::executor();
      EXPECT_EQ(&here, &home);
      std::thread([&] { other.reset(); }).join();  // it waits for nobody
    }
  });
}

}  // namespace
}  // namespace magpie
