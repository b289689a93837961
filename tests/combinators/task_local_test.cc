// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// TaskLocal: what api.md, section 3, says of it.

#include <magpie/task_local.h>

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class TaskLocalTest : public OnMachine {};

TaskLocal<std::string> request{"none"};
TaskLocal<int> number{7};

Task<std::string> ask(Duration pause = {}) {
  co_await sleep_for(pause);
  co_return co_await request.get();
}

TEST_ON_THREADS(TaskLocalTest, InnermostBindingIsSeenAndEndsWithItsBlock) {
  machine.run([&]() -> Task<> {
    std::string seen = co_await request.get();
    EXPECT_EQ(seen, "none");
    auto inner = [&]() -> Task<> {
      std::string here = co_await ask();
      EXPECT_EQ(here, "outer");
      here = co_await request.with("inner", ask(1ms));
      EXPECT_EQ(here, "inner");
      here = co_await request.get();
      EXPECT_EQ(here, "outer");
      const int other = co_await number.get();
      EXPECT_EQ(other, 7);
      const int both = co_await number.with(8, request.with("x", number.get()));
      EXPECT_EQ(both, 8);
    };
    co_await request.with("outer", inner());
    seen = co_await request.get();
    EXPECT_EQ(seen, "none");
  });
}

TEST_ON_THREADS(TaskLocalTest, ClassOfItsValueMayForbidToTakeTheAddress) {
  struct Value {
    explicit Value(int given) : number(given) {}
    void operator&() const = delete;
    int number;
  };
  TaskLocal<Value> local{Value(1)};
  auto read = [&]() -> Task<int> {
    const Value value = co_await local.get();
    co_return value.number;
  };
  machine.run([&]() -> Task<> {
    const int initial = co_await read();
    EXPECT_EQ(initial, 1);
    const int bound = co_await local.with(Value(2), read());
    EXPECT_EQ(bound, 2);
  });
}

TEST_ON_THREADS(TaskLocalTest, BindingEndsWithAnErrorAndACancellationToo) {
  machine.run([&]() -> Task<> {
    Result<int> error = co_await as_result(request.with("a", fail("e")));
    EXPECT_EQ(what_of(error.error()), "e");
    std::string seen = co_await request.get();
    EXPECT_EQ(seen, "none");
    Result<int> late = co_await as_result(timeout(request.with("b", never()), 1ms));
    EXPECT_TRUE(late.is_timeout());
    seen = co_await request.get();
    EXPECT_EQ(seen, "none");
  });
}

TEST_ON_THREADS(TaskLocalTest, ChildrenOfAllCombinatorsInherit) {
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<> {
      auto pair = co_await gather(ask(1ms), ask(2ms));
      EXPECT_EQ(std::get<0>(pair) + std::get<1>(pair), "rr");
      auto first = co_await race(ask(2ms), ask(1ms));
      EXPECT_EQ(first.value, "r");
      std::string timed = co_await timeout(ask(1ms), 1s);
      EXPECT_EQ(timed, "r");
      std::string masked = co_await uncancellable(ask(1ms));
      EXPECT_EQ(masked, "r");
      std::string shielded = co_await shield(ask(1ms));
      EXPECT_EQ(shielded, "r");
      Result<std::string> block =
          co_await cancel_scope([](CancelScope&) -> Task<std::string> { return ask(1ms); });
      EXPECT_EQ(block.value(), "r");
      auto group = [](TaskGroup& g) -> Task<std::string> {
        JoinHandle<std::string> child = g.spawn(ask(1ms));
        co_return co_await child;
      };
      std::string grouped = co_await task_group(group);
      EXPECT_EQ(grouped, "r");
    };
    co_await request.with("r", body());
  });
}

TEST_ON_THREADS(TaskLocalTest, SpawnedTaskHasASnapshot) {  // B017
  machine.run([&]() -> Task<> {
    JoinHandle<std::string> handle;
    auto body = [&]() -> Task<> {
      handle = spawn(ask(5ms));
      co_return;
    };
    co_await request.with("snapshot", body());
    const std::string seen = co_await handle;  // the binding ended before the task asked
    EXPECT_EQ(seen, "snapshot");
    JoinHandle<std::string> by_member = executor.spawn(request.with("own", ask(1ms)));
    const std::string own = co_await by_member;
    EXPECT_EQ(own, "own");
  });
}

TEST_ON_THREADS(TaskLocalTest, SiblingsAndParentsDoNotSeeIt) {  // B017
  machine.run([&]() -> Task<> {
    auto results = co_await gather(request.with("a", ask(2ms)), ask(1ms),
                                   request.with("b", ask(1ms)), ask(3ms));
    EXPECT_EQ(std::get<0>(results), "a");
    EXPECT_EQ(std::get<1>(results), "none");
    EXPECT_EQ(std::get<2>(results), "b");
    EXPECT_EQ(std::get<3>(results), "none");
  });
}

TEST_ON_THREADS(TaskLocalTest, GroupsChildSeesWhatItsSpawnerSaw) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      JoinHandle<std::string> bound;
      auto spawn_it = [&]() -> Task<> {
        bound = group.spawn(ask(5ms));
        co_return;
      };
      co_await request.with("spawner", spawn_it());
      const std::string seen = co_await bound;
      EXPECT_EQ(seen, "spawner");
      JoinHandle<std::string> plain = group.spawn(ask(1ms));
      const std::string of_group = co_await plain;
      EXPECT_EQ(of_group, "group");
    };
    co_await request.with("group", task_group(body));
  });
}

TEST_ON_THREADS(TaskLocalTest, GroupsChildSpawnedByAThreadSeesTheGroups) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto child = co_await to_thread([&] { return group.spawn(ask()); });
      const std::string seen = co_await child;
      EXPECT_EQ(seen, "group");
    };
    co_await request.with("group", task_group(body));
  });
}

TEST_ON_THREADS(TaskLocalTest, FollowsTheTaskToOtherThreadsAndExecutors) {
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<> {
      for (int i = 0; i < 200; ++i) {
        co_await this_task::yield();
        const std::string seen = co_await request.get();
        if (seen != "kept") {
          ADD_FAILURE() << seen;
          co_return;
        }
      }
      const std::string there = co_await on(other, ask());
      EXPECT_EQ(there, "kept");
    };
    std::vector<Task<>> tasks;
    for (int i = 0; i < 10; ++i)
      tasks.push_back([](auto& make) -> Task<> { co_await request.with("kept", make()); }(body));
    co_await gather(std::move(tasks));
  });
}

TEST_ON_THREADS(TaskLocalTest, ValuesLiveAsLongAsSomebodyCanSeeThem) {
  Ledger ledger;
  {
    TaskLocal<std::shared_ptr<Tracked>> local;
    machine.run([&]() -> Task<> {
      auto body = [&]() -> Task<> {
        auto seen = co_await local.get();
        seen->touch();
      };
      co_await local.with(std::make_shared<Tracked>(ledger), body());
      EXPECT_EQ(ledger.alive(), 0);
    });
  }
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(TaskLocalTest, GetIsNoCancellationPoint) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      const int a = co_await number.get();
      EXPECT_EQ(a, 7);
      const int b = co_await number.with(9, give(1));
      EXPECT_EQ(b, 1);
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.has_value());
  });
}

}  // namespace
}  // namespace magpie
