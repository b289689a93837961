// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Bindings of task-locals, as far as the executor carries them about: to spawned tasks, other
// threads and callbacks.

#include <magpie/detail/locals.h>

#include <atomic>
#include <coroutine>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/cancellation_token.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/limited.h>
#include <magpie/manual_clock.h>
#include <magpie/resume_on.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/task_group.h>
#include <magpie/task_local.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::ForeignEvent;
using test::Ledger;
using test::scaled;
using test::Tracked;

const TaskLocal<std::string> request{"none"};

Task<std::string> current() {
  std::string value = co_await request.get();
  co_return value;
}

// A function that spawns, and what the new task has seen.
void spawn_and_tell(std::string& seen, std::atomic<bool>& checked) {
  spawn(current()).on_done([&](const Result<std::string>& result) {
    seen = result.value();
    checked = true;
  });
}

// Does so at its end; before, it waits for `moment`, if there is one.
class SpawnsAtItsEnd {
 public:
  SpawnsAtItsEnd(std::string& seen, std::atomic<bool>& checked,
                 const std::atomic<bool>* moment = nullptr)
      : seen_(&seen), checked_(&checked), moment_(moment) {}
  SpawnsAtItsEnd(SpawnsAtItsEnd&& other) noexcept
      : seen_(std::exchange(other.seen_, nullptr)),
        checked_(other.checked_),
        moment_(other.moment_) {}
  ~SpawnsAtItsEnd() {
    if (seen_ == nullptr) return;
    while (moment_ != nullptr && !moment_->load()) std::this_thread::yield();
    spawn_and_tell(*seen_, *checked_);
  }

 private:
  std::string* seen_;
  std::atomic<bool>* checked_;
  const std::atomic<bool>* moment_;
};

TEST(Locals, SpawnedTasksKeepTheBindingsOfTheirBirth) {
  WorkStealingExecutor executor({.threads = 2});
  auto later = []() -> Task<std::string> {
    co_await sleep_for(1ms);
    std::string value = co_await request.get();
    co_return value;
  };
  auto body = [&]() -> Task<JoinHandle<std::string>> { co_return spawn(later()); };
  auto outer = [&]() -> Task<std::string> {
    JoinHandle<std::string> handle = co_await request.with("inside", body());
    std::string mine = co_await request.get();
    EXPECT_EQ(mine, "none");
    std::string childs = co_await handle;  // the binding has ended long ago
    co_return childs;
  };
  EXPECT_EQ(executor.run(outer()), "inside");
}

TEST(Locals, StayWithTheirStrandOnEveryThread) {
  WorkStealingExecutor executor({.threads = 4});
  auto worker = [](int id) -> Task<int> {
    int wrong = 0;
    for (std::size_t i = 0; i < scaled(200); ++i) {
      co_await this_task::yield();
      std::string before = co_await request.get();
      auto handle = spawn(current());
      std::string spawned = co_await std::move(handle);
      auto [a, b] = co_await gather(current(), current());
      for (const std::string& seen : {before, spawned, a, b})
        wrong += seen == std::to_string(id) ? 0 : 1;
    }
    co_return wrong;
  };
  auto bound = [&](int id) -> Task<int> {
    int wrong = co_await request.with(std::to_string(id), worker(id));
    co_return wrong;
  };
  std::vector<Task<int>> tasks;
  for (int id = 0; id < 16; ++id) tasks.push_back(bound(id));
  for (int wrong : executor.run(gather(std::move(tasks)))) EXPECT_EQ(wrong, 0);
}

TEST(Locals, WhatIsPostedHasNone) {
  WorkStealingExecutor executor({.threads = 1});
  std::atomic<bool> checked{false};
  std::string seen;
  auto inside = [&]() -> Task<> {
    executor.post([&] {
      spawn(current()).on_done([&](const Result<std::string>& result) {
        seen = result.value();
        checked = true;
      });
    });
    co_return;
  };
  auto body = [&]() -> Task<> { co_await request.with("inside", inside()); };
  executor.run(body());
  ASSERT_TRUE(eventually([&] { return checked.load(); }));
  EXPECT_EQ(seen, "none");
}

// A strand that waits within a binding leaves nothing behind on its worker: what runs between two
// strands there would find the bindings of a frame that may be gone.
TEST(Locals, ADestructorOfATaskCancelledBeforeItsStartSeesNoOthers) {
  WorkStealingExecutor executor({.threads = 1});
  std::string seen;
  std::atomic<bool> checked{false};
  auto victim = [](SpawnsAtItsEnd) -> Task<> { co_return; };
  auto sleeper = []() -> Task<> { co_await sleep_for(1h); };
  auto bound = [&]() -> Task<> { co_await request.with("somebody else's", sleeper()); };
  auto waiting = executor.spawn(bound());
  executor.run(sleep_for(1ms));
  std::atomic<bool> hold{true};
  executor.post([&] {
    while (hold.load()) std::this_thread::yield();
  });
  auto handle = executor.spawn(victim(SpawnsAtItsEnd(seen, checked)));
  handle.cancel();
  auto second = executor.spawn(bound());  // runs before the victim, which lies behind
  hold = false;
  handle.wait();
  ASSERT_TRUE(eventually([&] { return checked.load(); }));
  EXPECT_EQ(seen, "none");
  for (auto* sleeps : {&waiting, &second}) {
    sleeps->cancel();
    sleeps->wait();  // before the closures go
  }
}

// The thief that runs the last child goes on with the parent, in whose scopes nobody has waited.
TEST(Locals, AParentThatGoesOnWithAThiefHasItsOwn) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> stolen{false};
  std::atomic<bool> first_is_over{false};
  auto first = [&]() -> Task<> {
    while (!stolen.load()) std::this_thread::yield();
    first_is_over = true;
    co_return;
  };
  auto last = [&]() -> Task<> {
    stolen = true;
    while (!first_is_over.load()) std::this_thread::yield();
    std::this_thread::sleep_for(5ms);
    co_return;
  };
  auto both = [&]() -> Task<> { co_await gather(first(), last()); };
  auto inside = [&]() -> Task<std::string> {
    co_await both();  // whose frame, and the gather's scope in it, is gone now
    auto handle = spawn(current());
    std::string seen = co_await std::move(handle);
    co_return seen;
  };
  auto body = [&]() -> Task<std::string> {
    std::string seen = co_await request.with("inside", inside());
    co_return seen;
  };
  EXPECT_EQ(executor.run(body()), "inside");
}

TEST(Locals, AStrandThatAForeignEventResumesHasItsOwn) {
  WorkStealingExecutor executor({.threads = 1});
  ForeignEvent event;
  auto waiter = [&]() -> Task<std::string> {
    co_await event;
    auto handle = spawn(current());
    std::string value = co_await handle;
    co_return value;
  };
  auto setter = [&]() -> Task<std::string> {
    event.set();
    auto handle = spawn(current());
    std::string value = co_await handle;
    co_return value;
  };
  auto as_waiter = [&]() -> Task<std::string> {
    std::string value = co_await request.with("waiter", waiter());
    co_return value;
  };
  auto as_setter = [&]() -> Task<std::string> {
    std::string value = co_await request.with("setter", setter());
    co_return value;
  };
  auto first = executor.spawn(as_waiter());
  ASSERT_TRUE(eventually([&] { return event.waiters() == 1; }));
  EXPECT_EQ(executor.run(as_setter()), "setter");
  EXPECT_EQ(first.wait().value(), "waiter");
}

// Lets its strand go on with another worker, and spawns when that has left what it stood in.
struct SpawnsLate {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> strand) {
    std::atomic<int>& turn = step;  // this object goes with the strand
    JoinHandle<std::string>& handle = spawned;
    std::thread([strand] { strand.resume(); }).detach();
    while (turn.load() != 1) std::this_thread::yield();
    handle = spawn(current());
    turn = 2;
  }
  void await_resume() const noexcept {}
  std::atomic<int>& step;
  JoinHandle<std::string>& spawned;
};

TEST(Locals, WhatAForeignAwaitableSpawnsWhenItsStrandIsGoneHasThem) {
  for (const bool bound_inside : {false, true}) {
    WorkStealingExecutor executor({.threads = 2});
    std::atomic<int> step{0};
    JoinHandle<std::string> spawned;
    auto inner = [&]() -> Task<> {
      co_await sleep_for(1ms);  // from here on it goes on from a queue
      SpawnsLate late{step, spawned};
      co_await late;
    };
    auto body = [&]() -> Task<> {
      Task<> task = bound_inside ? Task<>(request.with("inside", inner())) : inner();
      co_await timeout(std::move(task), 1h);
      step = 1;
    };
    executor.run(request.with("outside", body()));
    ASSERT_TRUE(eventually([&] { return step.load() == 2; }));
    EXPECT_EQ(spawned.wait().value(), bound_inside ? "inside" : "outside");
  }
}

TEST(Locals, AForeignAwaitableThatDoesNotSuspendTakesNoneAway) {
  struct Stays {
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<>) const {
      if (fails) throw std::runtime_error("no");
      return false;
    }
    void await_resume() const noexcept {}
    bool fails;
  };
  auto body = []() -> Task<std::string> {
    co_await sleep_for(1ms);
    Stays stays{false};
    co_await stays;
    JoinHandle<std::string> first = spawn(current());
    auto failing = []() -> Task<> {
      Stays fails{true};
      co_await fails;
    };
    const Result<void> failed = co_await as_result(failing());
    EXPECT_TRUE(failed.is_error());
    JoinHandle<std::string> second = spawn(current());
    std::string seen = co_await first;
    seen += co_await second;
    co_return seen;
  };
  WorkStealingExecutor executor({.threads = 2});
  EXPECT_EQ(executor.run(request.with("mine", body())), "minemine");
}

// What a simulation destroys where it waited may spawn while it goes.
TEST(Locals, WhatIsDestroyedWhereItWaitedLeavesNoNote) {
  struct Spawns {
    ~Spawns() { spawn(current()); }
  };
  Event never;
  auto item = [&](int) -> Task<> { co_await uncancellable(never.wait()); };
  auto middle = [&]() -> Task<> {
    std::vector<int> items{1, 2, 3};
    co_await map_concurrent(items, 2, item);
  };
  auto outer = [&]() -> Task<> {
    const Spawns spawns;
    co_await middle();
  };
  auto body = [&]() -> Task<> {
    co_await request.with("used", sleep_for(1ms));
    co_await outer();
  };
  testing::SimulatedExecutor executor(1);
  EXPECT_THROW(executor.run(body()), testing::DeadlockError);
}

// Here with the task that has inherited it: by then its thread has none of the task's bindings.
TEST(Locals, ABoundValueThatGoesWithTheLastTaskMaySpawn) {
  const TaskLocal<std::shared_ptr<SpawnsAtItsEnd>> local{nullptr};
  WorkStealingExecutor executor({.threads = 1});
  std::string seen;
  std::atomic<bool> checked{false};
  auto last = []() -> Task<> { co_await this_task::yield(); };
  auto starts = [&]() -> Task<> {
    spawn(last());
    co_return;
  };
  auto inner = [&]() -> Task<> { co_await request.with("inside", starts()); };
  auto body = [&]() -> Task<> {
    auto value = std::make_shared<SpawnsAtItsEnd>(seen, checked);
    co_await local.with(std::move(value), inner());
  };
  executor.run(body());
  ASSERT_TRUE(eventually([&] { return checked.load(); }));
  EXPECT_EQ(seen, "none");
}

// Nobody wants the value of a group's child: it goes with the child's record, when what the child
// was bound to may be gone.
TEST(Locals, AChildsValueThatGoesAfterItsGroupMaySpawn) {
  WorkStealingExecutor executor({.threads = 2});
  std::string seen;
  std::atomic<bool> checked{false};
  std::atomic<bool> spawned{false};
  std::atomic<bool> group_is_gone{false};
  std::atomic<TaskGroup*> open{nullptr};
  auto child = [&]() -> Task<SpawnsAtItsEnd> {
    while (!spawned.load()) co_await this_task::yield();
    co_return SpawnsAtItsEnd(seen, checked, &group_is_gone);
  };
  auto in_group = [&](TaskGroup& group) -> Task<> {
    open = &group;
    while (!spawned.load()) co_await this_task::yield();
  };
  auto bound = [&]() -> Task<> { co_await task_group(in_group); };
  auto body = [&]() -> Task<> {
    co_await request.with("inside", bound());
    group_is_gone = true;
  };
  std::thread outside([&] {  // whose child has the bindings of the group
    while (open.load() == nullptr) std::this_thread::yield();
    (void)open.load()->spawn(child());
    spawned = true;
  });
  executor.run(body());
  outside.join();
  ASSERT_TRUE(eventually([&] { return checked.load(); }));
  EXPECT_EQ(seen, "none");
}

// Virtual time moves, and fires what is due, on the thread that ends the last thing to be done.
TEST(Locals, ACallbackThatATimerCallsHasNoneOfWhoMovesTheClock) {
  for (const bool by_hand : {false, true}) {
    ManualClock clock;
    clock.set_auto_advance(!by_hand);
    WorkStealingExecutor home({.threads = 1, .clock = &clock});
    WorkStealingExecutor abroad({.threads = 1});
    std::string seen;
    std::atomic<bool> checked{false};
    auto waits = [&]() -> Task<> {
      const CancellationToken token = co_await this_task::token();
      const CancellationCallback callback(token, [&] { spawn_and_tell(seen, checked); });
      co_await sleep_for(2h);
    };
    auto limited = [&]() -> Task<> {
      const Result<void> ended = co_await as_result(timeout(waits(), 1h));
      EXPECT_TRUE(ended.is_timeout());
    };
    auto moves = [&]() -> Task<> {
      co_await resume_on(abroad);
      if (by_hand) clock.advance(1h);
      std::this_thread::sleep_for(20ms);  // until home has nothing to do
    };
    auto starts = [&]() -> Task<JoinHandle<void>> { co_return spawn(moves()); };
    auto waiting = home.spawn(limited());
    home.run(this_task::checkpoint());  // it waits by now
    JoinHandle<void> moving = home.run(request.with("inside", starts()));
    waiting.wait();
    moving.wait();
    ASSERT_TRUE(eventually([&] { return checked.load(); }));
    EXPECT_EQ(seen, "none") << by_hand;
  }
}

TEST(Locals, ValuesLiveAsLongAsSomebodyIsBoundToThem) {
  Ledger ledger;
  {
    const TaskLocal<std::shared_ptr<Tracked>> local{nullptr};
    WorkStealingExecutor executor({.threads = 2});
    auto inside = [&]() -> Task<> {
      co_await sleep_for(1ms);
      std::shared_ptr<Tracked> value = co_await local.get();
      EXPECT_NE(value, nullptr);
      EXPECT_EQ(ledger.alive(), 1);
    };
    auto starts = [&]() -> Task<> {
      spawn(inside());
      co_return;
    };
    auto body = [&]() -> Task<> {
      co_await local.with(std::make_shared<Tracked>(ledger), starts());
    };
    executor.run(body());
    executor.shutdown(1h);
  }
  EXPECT_EQ(ledger.alive(), 0);
}

}  // namespace
}  // namespace magpie
