// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (one thread, and what many other tests run on)

#include <algorithm>
#include <chrono>
#include <coroutine>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/semaphore.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/task_local.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

namespace {

using namespace magpie;
using namespace std::chrono_literals;
using magpie::testing::DeadlockError;
using magpie::testing::ExplorationError;
using magpie::testing::explore;
using magpie::testing::SimulatedExecutor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Trace = std::vector<std::string>;

// Writes its name when it dies.
class Local {
 public:
  Local(Trace& trace, std::string name) : trace_(trace), name_(std::move(name)) {}
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;
  ~Local() { trace_.push_back(name_); }

 private:
  Trace& trace_;
  std::string name_;
};

Task<int> answer() {
  co_return 42;
}

Task<void> fail(std::string message) {
  co_await this_task::yield();
  throw std::runtime_error(message);
}

Task<void> steps_of(Trace& trace, std::string name, int steps) {
  for (int i = 0; i < steps; ++i) {
    trace.push_back(name + std::to_string(i));
    co_await this_task::yield();
  }
}

Task<void> three_at_once(Trace& trace) {
  co_await gather(steps_of(trace, "a", 3), steps_of(trace, "b", 3), steps_of(trace, "c", 3));
}

Trace trace_of(std::uint64_t seed) {
  SimulatedExecutor executor(seed);
  Trace trace;
  executor.run(three_at_once(trace));
  return trace;
}

template <class F>
std::string deadlock_of(F&& f) {
  try {
    std::forward<F>(f)();
  } catch (const DeadlockError& e) {
    return e.what();
  }
  ADD_FAILURE() << "no DeadlockError";
  return {};
}

bool ended_with_deadlock(const JoinHandle<void>& handle) {
  if (!handle.done() || !handle.result().is_error()) return false;
  try {
    handle.result().value();
  } catch (const DeadlockError&) {
    return true;
  } catch (...) {
  }
  return false;
}

// --- run -----------------------------------------------------------------------------------------

TEST(SimulatedExecutor, RunGivesTheTasksValue) {
  SimulatedExecutor executor;
  EXPECT_EQ(executor.run(answer()), 42);
}

TEST(SimulatedExecutor, RunThrowsWhatTheTaskThrew) {
  SimulatedExecutor executor;
  EXPECT_THROW(executor.run(fail("no")), std::runtime_error);
}

TEST(SimulatedExecutor, RunWorksThroughTheBaseClass) {
  SimulatedExecutor simulated;
  Executor& executor = simulated;
  EXPECT_EQ(executor.run(answer()), 42);
}

TEST(SimulatedExecutor, RunsOnTheCallingThread) {
  SimulatedExecutor executor;
  const auto where = [](std::thread::id& id) -> Task<void> {
    co_await this_task::yield();
    id = std::this_thread::get_id();
  };
  std::thread::id id;
  executor.run(where(id));
  EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(SimulatedExecutor, TheCallingThreadIsNoWorkerAfterwards) {
  SimulatedExecutor executor;
  executor.run(answer());
  EXPECT_THROW(spawn(answer()), std::logic_error);
  SimulatedExecutor another;
  EXPECT_EQ(another.run(answer()), 42);
}

TEST(SimulatedExecutor, RunWithinATaskIsALogicError) {
  SimulatedExecutor executor;
  const auto nested = [](SimulatedExecutor& inner) -> Task<void> {
    inner.run(answer());
    co_return;
  };
  EXPECT_THROW(executor.run(nested(executor)), std::logic_error);
}

TEST(SimulatedExecutor, RunFromASecondThreadMeanwhileIsALogicError) {
  SimulatedExecutor executor;
  bool refused = false;
  const auto body = [](SimulatedExecutor& simulated, bool& was_refused) -> Task<void> {
    std::thread other([&] {
      try {
        simulated.run(answer());
      } catch (const std::logic_error&) {
        was_refused = true;
      }
    });
    other.join();
    co_return;
  };
  executor.run(body(executor, refused));
  EXPECT_TRUE(refused);
}

TEST(SimulatedExecutor, LetsATestInBetweenStepsAndBeforeTimeMoves) {
  for (int k = 0;; ++k) {
    SimulatedExecutor executor(1);
    CancellationSource source;
    int moment = 0;
    bool began = false;
    executor.between_steps([&] {
      if (moment++ == k) source.cancel();
    });
    const auto task = [](bool& flag) -> Task<void> {
      flag = true;
      co_await sleep_for(1h);
      co_await this_task::yield();
    };
    JoinHandle<void> handle = executor.spawn(task(began), SpawnOptions().token(source.token()));
    executor.run(answer());  // which ends after the sleep has begun, or not
    if (k == 0) {
      EXPECT_FALSE(began);
    }
    EXPECT_TRUE(handle.cancelled());
    executor.between_steps({});
    const int before = moment;
    executor.run(answer());
    EXPECT_EQ(moment, before);
    if (moment <= k) break;
  }
}

TEST(SimulatedExecutor, CanBeRunAgain) {
  SimulatedExecutor executor;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(executor.run(answer()), 42);
}

TEST(SimulatedExecutor, HasOneThread) {
  EXPECT_EQ(SimulatedExecutor().thread_count(), 1U);
}

TEST(SimulatedExecutor, CountsItsSteps) {
  SimulatedExecutor executor;
  EXPECT_EQ(executor.steps(), 0U);
  executor.run(answer());
  EXPECT_EQ(executor.steps(), 1U);
  Trace trace;
  executor.run(steps_of(trace, "x", 10));
  EXPECT_EQ(executor.steps(), 1U + 11U);
  EXPECT_EQ(executor.stats().total.tasks_run, executor.steps());
}

// --- order ---------------------------------------------------------------------------------------

TEST(SimulatedExecutor, TheSameSeedGivesTheSameTrace) {
  for (std::uint64_t seed : {0ULL, 1ULL, 77ULL, ~0ULL}) EXPECT_EQ(trace_of(seed), trace_of(seed));
}

TEST(SimulatedExecutor, DifferentSeedsGiveDifferentTraces) {
  std::set<Trace> traces;
  for (std::uint64_t seed = 0; seed < 50; ++seed) traces.insert(trace_of(seed));
  EXPECT_GT(traces.size(), 40U);
}

TEST(SimulatedExecutor, EveryOrderOfThreeTasksComesUp) {
  std::set<Trace> orders;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SimulatedExecutor executor(seed);
    Trace trace;
    executor.run(gather(steps_of(trace, "a", 1), steps_of(trace, "b", 1), steps_of(trace, "c", 1)));
    orders.insert(trace);
  }
  EXPECT_EQ(orders.size(), 6U);
}

TEST(SimulatedExecutor, ATaskThatYieldsInALoopDoesNotStarveOthers) {
  SimulatedExecutor executor(3);
  const auto spins = [](bool& go) -> Task<void> {
    while (!go) co_await this_task::yield();
  };
  const auto sets = [](bool& go) -> Task<void> {
    co_await this_task::yield();
    go = true;
  };
  bool go = false;
  executor.run(gather(spins(go), sets(go)));
  EXPECT_TRUE(go);
}

// --- time ----------------------------------------------------------------------------------------

TEST(SimulatedExecutor, SleepsPassInVirtualTimeAndExactly) {
  SimulatedExecutor executor;
  const auto body = []() -> Task<std::chrono::nanoseconds> {
    const Deadline start = co_await this_task::now();
    co_await gather(sleep_for(24h), sleep_for(1h), sleep_for(1ns));
    co_await sleep_for(7ns);
    co_return co_await this_task::now() - start;
  };
  const auto real = std::chrono::steady_clock::now();
  EXPECT_EQ(executor.run(body()), 24h + 7ns);
  EXPECT_LT(std::chrono::steady_clock::now() - real, 10min);
}

TEST(SimulatedExecutor, TimeStandsStillWhileAnythingIsReady) {
  SimulatedExecutor executor;
  const auto busy = [](Deadline& seen) -> Task<void> {
    for (int i = 0; i < 1000; ++i) co_await this_task::yield();
    seen = co_await this_task::now();
  };
  const auto body = [&busy](Deadline& start, Deadline& seen) -> Task<void> {
    start = co_await this_task::now();
    co_await gather(busy(seen), sleep_for(1ns));
  };
  Deadline start;
  Deadline seen;
  executor.run(body(start, seen));
  EXPECT_EQ(start, seen);
}

TEST(SimulatedExecutor, TimeoutsFireInVirtualTime) {
  SimulatedExecutor executor;
  Event never;
  EXPECT_THROW(executor.run(timeout(never.wait(), 100h)), TimeoutError);
}

// --- what is left over ---------------------------------------------------------------------------

TEST(SimulatedExecutor, WhatStillRunsIsCancelledAndAwaited) {
  SimulatedExecutor executor;
  Trace trace;
  const auto cleanup = [](Trace& log) -> Task<void> {
    co_await sleep_for(1h);
    log.push_back("cleaned");
  };
  const auto background = [&cleanup](Trace& log) -> Task<void> {
    const auto clean = [&] { return cleanup(log); };
    co_await finally(sleep_for(1000h), clean);
    log.push_back("not reached");
  };
  const auto body = [&background](Trace& log, JoinHandle<void>& handle) -> Task<int> {
    handle = spawn(background(log));
    co_await sleep_for(1s);
    co_return 1;
  };
  JoinHandle<void> handle;
  EXPECT_EQ(executor.run(body(trace, handle)), 1);
  EXPECT_TRUE(handle.cancelled());
  EXPECT_THAT(trace, ElementsAre("cleaned"));
}

TEST(SimulatedExecutor, WhatIsSpawnedOutsideRunIsKeptForTheNext) {
  SimulatedExecutor executor;
  Trace trace;
  JoinHandle<void> handle = executor.spawn(steps_of(trace, "s", 1));
  executor.post([&] { trace.push_back("posted"); });
  EXPECT_TRUE(trace.empty());
  EXPECT_FALSE(handle.done());
  executor.run(sleep_for(1s));
  EXPECT_TRUE(handle.result().has_value());
  EXPECT_THAT(trace, ::testing::UnorderedElementsAre("s0", "posted"));
}

TEST(SimulatedExecutor, SpawnAfterARunIsAccepted) {
  SimulatedExecutor executor;
  const auto leaves_something = []() -> Task<void> {
    spawn(as_result(sleep_for(1h)));
    co_return;
  };
  executor.run(leaves_something());
  JoinHandle<int> handle = executor.spawn(answer());
  executor.run(sleep_for(1ms));
  EXPECT_EQ(handle.result().value(), 42);
}

TEST(SimulatedExecutor, TheDestructorEndsWhatWasNeverRun) {
  JoinHandle<int> handle;
  bool posted = false;
  {
    SimulatedExecutor executor;
    handle = executor.spawn(answer());
    executor.post([&] { posted = true; });
  }
  EXPECT_TRUE(handle.cancelled());
  EXPECT_TRUE(posted);
}

TEST(SimulatedExecutor, WaitOnAnUnfinishedHandleIsALogicErrorThatHelps) {
  SimulatedExecutor executor;
  JoinHandle<int> handle = executor.spawn(answer());
  try {
    handle.wait();
    FAIL() << "it returned";
  } catch (const std::logic_error& e) {
    EXPECT_THAT(e.what(), HasSubstr("run()"));
  }
  executor.run(sleep_for(1s));
  EXPECT_EQ(handle.wait().value(), 42);
}

TEST(SimulatedExecutor, TaskLocalsDoNotStayOnTheCallingThread) {
  static TaskLocal<int> local{1};
  SimulatedExecutor executor;
  const auto reads = []() -> Task<int> {
    co_await this_task::yield();
    co_return co_await local.get();
  };
  EXPECT_EQ(executor.run(local.with(2, reads())), 2);
  EXPECT_EQ(executor.run(reads()), 1);
  Event never;
  const auto stuck = [&]() -> Task<void> {
    co_await uncancellable(gather(never.wait(), never.wait()));
  };
  deadlock_of([&] { executor.run(local.with(3, stuck())); });
  EXPECT_EQ(executor.run(reads()), 1);
}

// --- threads -------------------------------------------------------------------------------------

TEST(SimulatedExecutor, ToThreadRunsInlineAsOneStep) {
  SimulatedExecutor executor;
  const auto body = [](std::thread::id& id) -> Task<int> {
    co_return co_await to_thread([&] {
      id = std::this_thread::get_id();
      return 7;
    });
  };
  std::thread::id id;
  EXPECT_EQ(executor.run(body(id)), 7);
  EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(SimulatedExecutor, ABlockingFunctionIsNotOnAWorkerThere) {
  SimulatedExecutor executor;
  const auto body = []() -> Task<int> {
    co_return co_await to_thread([] { return SimulatedExecutor().run(answer()); });
  };
  EXPECT_EQ(executor.run(body()), 42);
}

TEST(SimulatedExecutor, OtherThreadsMaySchedule) {
  SimulatedExecutor executor;
  int calls = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 100; ++k) executor.post([&] { ++calls; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  executor.run(sleep_for(1s));
  EXPECT_EQ(calls, 400);
}

TEST(SimulatedExecutor, AForeignThreadIsNotWaitedFor) {
  Event never;  // as far as the simulator can know
  SimulatedExecutor executor;
  deadlock_of([&] { executor.run(never.wait()); });
}

TEST(SimulatedExecutor, AStrandThatVisitsAnotherExecutorIsWaitedFor) {
  WorkStealingExecutor pool({.threads = 1});
  SimulatedExecutor executor;
  const auto there = []() -> Task<std::thread::id> {
    co_await sleep_for(2ms);  // in the pool's real time
    co_return std::this_thread::get_id();
  };
  const auto body = [&there](WorkStealingExecutor& other) -> Task<bool> {
    const Deadline before = co_await this_task::now();
    const std::thread::id id = co_await on(other, there());
    const Deadline after = co_await this_task::now();
    co_return id != std::this_thread::get_id() && before == after;
  };
  EXPECT_TRUE(executor.run(body(pool)));
}

TEST(SimulatedExecutor, StrandsOfAnotherExecutorMayVisit) {
  SimulatedExecutor executor;
  WorkStealingExecutor pool({.threads = 1});
  const auto where = []() -> Task<std::thread::id> { co_return std::this_thread::get_id(); };
  const auto body = [&where](SimulatedExecutor& simulated) -> Task<std::thread::id> {
    return on(simulated, where());
  };
  JoinHandle<std::thread::id> handle = pool.spawn(body(executor));
  while (!handle.done()) executor.run(sleep_for(1s));
  EXPECT_EQ(handle.result().value(), std::this_thread::get_id());
}

// --- deadlocks -----------------------------------------------------------------------------------

TEST(SimulatedExecutor, ADeadlockIsAnErrorThatShowsTheTasks) {
  SimulatedExecutor executor;
  Event first;
  Event second;
  const auto waits = [](Event& mine, Event& yours) -> Task<void> {
    co_await yours.wait();
    mine.set();
  };
  const auto body = [&waits](Event& a, Event& b) -> Task<void> {
    JoinHandle<void> one = spawn(waits(a, b), "philosopher one");
    JoinHandle<void> two = spawn(waits(b, a), "philosopher two");
    co_await one;
    co_await two;
  };
  const std::string what = deadlock_of([&] { executor.run(body(first, second)); });
  EXPECT_THAT(what, HasSubstr("philosopher one"));
  EXPECT_THAT(what, HasSubstr("philosopher two"));
  EXPECT_THAT(what, HasSubstr("an event"));
  EXPECT_THAT(what, HasSubstr("3 live tasks"));
}

TEST(SimulatedExecutor, ASleepForEverIsADeadlock) {
  SimulatedExecutor executor;
  deadlock_of([&] { executor.run(sleep_for(Duration::never())); });
  deadlock_of([&] { executor.run(uncancellable(sleep_for(Duration::never()))); });
}

TEST(SimulatedExecutor, InADeadlockWhatCanBeCancelledIsCancelledInOrder) {
  SimulatedExecutor executor;
  Event never;
  Trace trace;
  const auto body = [](Event& event, Trace& log) -> Task<void> {
    const Local local(log, "local");
    Result<void> result = co_await as_result(event.wait());
    log.push_back(result.is_cancelled() ? "cancelled" : "?");
    co_await uncancellable(sleep_for(1h));
    log.push_back("cleaned");
  };
  JoinHandle<void> handle;
  deadlock_of([&] {
    handle = executor.spawn(body(never, trace));
    executor.run(uncancellable(handle));
  });
  EXPECT_THAT(trace, ElementsAre("cancelled", "cleaned", "local"));
  EXPECT_TRUE(handle.result().has_value());
}

TEST(SimulatedExecutor, FramesThatCannotBeCancelledAreDestroyedInnermostFirst) {
  SimulatedExecutor executor;
  Event never;
  Trace trace;
  const auto inner = [](Event& event, Trace& log) -> Task<void> {
    const Local a(log, "inner a");
    const Local b(log, "inner b");
    try {
      co_await uncancellable(event.wait());
    } catch (...) {
      log.push_back("not reached");
    }
  };
  const auto outer = [&inner](Event& event, Trace& log) -> Task<void> {
    const Local local(log, "outer");
    co_await inner(event, log);
    log.push_back("not reached");
  };
  JoinHandle<void> handle = executor.spawn(outer(never, trace), "stuck");
  const std::string what = deadlock_of([&] { executor.run(handle); });
  EXPECT_THAT(what, HasSubstr("stuck"));
  EXPECT_THAT(trace, ElementsAre("inner b", "inner a", "outer"));
  EXPECT_TRUE(ended_with_deadlock(handle));
}

TEST(SimulatedExecutor, TheExecutorGoesOnAfterADeadlock) {
  SimulatedExecutor executor;
  Event never;
  for (int i = 0; i < 3; ++i) {
    deadlock_of([&] { executor.run(uncancellable(never.wait())); });
    EXPECT_EQ(executor.run(answer()), 42);
  }
  never.set();  // nobody is in its queue any more
  executor.run(never.wait());
}

Task<void> chain(int depth, Event& event, long& alive) {
  struct Counted {
    explicit Counted(long& count) : count_(count) { ++count_; }
    ~Counted() { --count_; }
    long& count_;
  } counted(alive);
  if (depth > 0) {
    co_await chain(depth - 1, event, alive);
  } else {
    co_await uncancellable(event.wait());
  }
}

TEST(SimulatedExecutor, AChainOfAMillionFramesIsDestroyedWithoutRecursion) {
  SimulatedExecutor executor;
  Event never;
  long alive = 0;
#if defined(MAGPIE_ASAN) || defined(MAGPIE_TSAN)
  constexpr int kDepth = 200'000;
#else
  constexpr int kDepth = 1'000'000;
#endif
  deadlock_of([&] { executor.run(chain(kDepth, never, alive)); });
  EXPECT_EQ(alive, 0);
}

Task<void> nested_groups(int depth, Event& event, Trace& trace) {
  const Local local(trace, std::to_string(depth));
  if (depth == 0) {
    co_await uncancellable(event.wait());
    co_return;
  }
  const auto body = [&](TaskGroup& group) -> Task<void> {
    group.spawn(nested_groups(depth - 1, event, trace));
    co_return;
  };
  co_await task_group(body);
}

TEST(SimulatedExecutor, NestedGroupsAreDestroyedInnermostFirst) {
  SimulatedExecutor executor;
  Event never;
  Trace trace;
  deadlock_of([&] { executor.run(nested_groups(5, never, trace)); });
  EXPECT_THAT(trace, ElementsAre("0", "1", "2", "3", "4", "5"));
}

TEST(SimulatedExecutor, TheParentOfAJoinGoesAfterItsLastChild) {
  Event never;
  const auto child = [](Event& event, Trace& log, std::string name) -> Task<void> {
    const Local local(log, name);
    co_await uncancellable(event.wait());
  };
  const auto done = [](Trace& log) -> Task<void> {
    const Local local(log, "done");
    co_return;
  };
  const auto parent = [&](Event& event, Trace& log) -> Task<void> {
    const Local local(log, "parent");
    co_await gather(child(event, log, "child"), done(log), uncancellable(event.wait()),
                    child(event, log, "child"),
                    as_result(uncancellable(sleep_for(Duration::never()))));
    log.push_back("not reached");
  };
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SimulatedExecutor executor(seed);
    Trace trace;
    deadlock_of([&] { executor.run(parent(never, trace)); });
    EXPECT_THAT(trace, ElementsAre("done", "child", "child", "parent")) << seed;
  }
}

TEST(SimulatedExecutor, EveryCombinatorCanBeDestroyedWhereItWaits) {
  Event never;
  Semaphore none(0);
  CancellationSource source;
  const auto stuck = [](Event& event) -> Task<int> {
    co_await uncancellable(event.wait());
    co_return 1;
  };
  const auto tokens = [&](Event& event) -> Task<int> {
    const CancellationToken token = co_await this_task::token();
    const CancellationToken merged = any_of(token, source.token());
    co_return co_await with_token(merged, stuck(event));
  };
  const auto body = [&](Event& event, Trace& log) -> Task<void> {
    const Local local(log, "parent");
    const auto in_scope = [&](CancelScope&) -> Task<int> { return stuck(event); };
    const auto in_time = [&](TimeoutScope&) -> Task<int> { return stuck(event); };
    const auto in_group = [&](TaskGroup& group) -> Task<int> {
      group.spawn(stuck(event));
      JoinHandle<int> handle = group.spawn(answer());
      const int value = co_await handle;
      co_return value;
    };
    const auto take = [&]() -> Task<int> {
      Permit permit = co_await uncancellable(none.acquire());
      co_return 1;
    };
    const auto clean = [&]() -> Task<void> { co_await event.wait(); };
    co_await gather(race(stuck(event), stuck(event)), any(stuck(event), answer()),
                    timeout(stuck(event), 1h), with_timeout(stuck(event), 1h, 2),
                    try_timeout(stuck(event), 1h), timeout_scope(1h, in_time),
                    cancel_scope(in_scope), task_group(in_group), tokens(event),
                    as_result(stuck(event)), take(), finally(answer(), clean),
                    gather(return_exceptions, stuck(event), fail("unseen")));
  };
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SimulatedExecutor executor(seed);
    Trace trace;
    deadlock_of([&] { executor.run(body(never, trace)); });
    EXPECT_THAT(trace, ElementsAre("parent"));
    executor.run(answer());
  }
  source.cancel();  // nobody is registered any more
  never.set();
  none.add_permits(1);
  EXPECT_TRUE(none.try_acquire().has_value());
}

TEST(SimulatedExecutor, WhatADestroyedFrameHeldIsGivenBack) {
  SimulatedExecutor executor;
  Event never;
  Semaphore slots(1);
  const auto holder = [](Event& event, Semaphore& semaphore) -> Task<void> {
    Permit permit = co_await semaphore.acquire();
    co_await uncancellable(event.wait());
  };
  const auto wants = [](Semaphore& semaphore) -> Task<void> {
    const Permit permit = co_await uncancellable(semaphore.acquire());
  };
  deadlock_of([&] { executor.run(gather(holder(never, slots), wants(slots), wants(slots))); });
  EXPECT_EQ(slots.available(), 1U);
}

TEST(SimulatedExecutor, AForeignAwaitableThatNobodyResumesIsDestroyedToo) {
  SimulatedExecutor executor;
  Trace trace;
  const auto body = [](Trace& log) -> Task<void> {
    const Local local(log, "local");
    co_await std::suspend_always();
  };
  JoinHandle<void> handle = executor.spawn(body(trace));
  const std::string what = deadlock_of([&] { executor.run(handle); });
  EXPECT_THAT(what, HasSubstr("a foreign awaitable"));
  EXPECT_THAT(trace, ElementsAre("local"));
  EXPECT_TRUE(ended_with_deadlock(handle));
}

// A single-threaded event of somebody else's, which resumes its waiter on the spot.
class ForeignEvent {
 public:
  void set() {
    set_ = true;
    if (waiter_) std::exchange(waiter_, nullptr).resume();
  }
  auto operator co_await() {
    struct Awaiter {
      explicit Awaiter(ForeignEvent& the_event) : event(the_event) {}
      Awaiter(const Awaiter&) = delete;
      Awaiter& operator=(const Awaiter&) = delete;
      ~Awaiter() { event.waiter_ = nullptr; }
      bool await_ready() const { return event.set_; }
      void await_suspend(std::coroutine_handle<> waiter) { event.waiter_ = waiter; }
      void await_resume() const {}
      ForeignEvent& event;
    };
    return Awaiter(*this);
  }

 private:
  bool set_ = false;
  std::coroutine_handle<> waiter_;
};

TEST(SimulatedExecutor, AForeignAwaitableThatADestructorResumesIsDestroyedOnItsWayHome) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SimulatedExecutor executor(seed);
    Event never;
    ForeignEvent foreign;
    Trace trace;
    struct Sets {
      ForeignEvent& event;
      ~Sets() { event.set(); }
    };
    const auto holder = [&](Trace& log) -> Task<void> {
      const Local local(log, "holder");
      const Sets sets{foreign};
      co_await std::suspend_always();
    };
    const auto masked = [&](Trace& log) -> Task<void> {
      const Local local(log, "masked");
      co_await uncancellable(never.wait());
    };
    const auto waiter = [&](Trace& log) -> Task<void> {
      const Local local(log, "waiter");
      co_await foreign;
      log.push_back("not reached");
      co_await uncancellable(never.wait());
    };
    const auto body = [&](Trace& log) -> Task<void> {
      const Local local(log, "parent");
      co_await gather(masked(log), waiter(log), masked(log));
    };
    const bool holder_first = seed % 2 == 0;  // one of the two orders lets the holder go first
    JoinHandle<void> first = executor.spawn(holder_first ? holder(trace) : body(trace));
    JoinHandle<void> second = executor.spawn(holder_first ? body(trace) : holder(trace));
    deadlock_of([&] { executor.run(gather(first, second)); });
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "masked"), 2) << seed;
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "waiter"), 1) << seed;
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "holder"), 1) << seed;
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "parent"), 1) << seed;
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "not reached"), 0) << seed;
  }
}

TEST(SimulatedExecutor, DestructorsOfDestroyedFramesMayPostSpawnSetAndCancel) {
  SimulatedExecutor executor;
  Event never;
  Event other;
  bool posted = false;
  JoinHandle<int> spawned;
  struct Busy {
    SimulatedExecutor& executor;
    Event& event;
    bool& posted;
    JoinHandle<int>& spawned;
    ~Busy() {
      event.set();
      executor.post([flag = &posted] { *flag = true; });
      spawned = executor.spawn(answer());
    }
  };
  const auto body = [&](Event& event) -> Task<void> {
    const Busy busy{executor, other, posted, spawned};
    co_await uncancellable(event.wait());
  };
  deadlock_of([&] { executor.run(gather(body(never), uncancellable(other.wait()))); });
  EXPECT_TRUE(posted);
  EXPECT_TRUE(spawned.cancelled());
  EXPECT_TRUE(other.is_set());
}

TEST(SimulatedExecutor, WhoAwaitsATaskThatIsStuckIsDestroyedWithIt) {
  SimulatedExecutor executor;
  Event never;
  Trace trace;
  const auto body = [](Event& event) -> Task<void> { co_await uncancellable(event.wait()); };
  const auto waiter = [](JoinHandle<void> task, Trace& log) -> Task<void> {
    const Local local(log, "waiter");
    co_await uncancellable(task);
  };
  JoinHandle<void> handle = executor.spawn(body(never));
  bool told = false;
  handle.on_done([&](const Result<void>& result) { told = result.is_error(); });
  deadlock_of([&] { executor.run(waiter(handle, trace)); });
  EXPECT_TRUE(ended_with_deadlock(handle));
  EXPECT_TRUE(told);
  EXPECT_THAT(trace, ElementsAre("waiter"));
}

TEST(SimulatedExecutor, WhatIsLeftOverAndCannotEndIsADeadlockToo) {
  SimulatedExecutor executor;
  Event never;
  const auto stuck = [](Event& event) -> Task<void> { co_await uncancellable(event.wait()); };
  const auto body = [&stuck](Event& event) -> Task<int> {
    spawn(stuck(event), "left over");
    co_await this_task::yield();
    co_await this_task::yield();
    co_await sleep_for(1s);
    co_return 1;
  };
  EXPECT_THAT(deadlock_of([&] { executor.run(body(never)); }), HasSubstr("left over"));
}

TEST(SimulatedExecutor, ADeadlockOfTheRestDoesNotHideTheTasksOwnError) {
  SimulatedExecutor executor;
  Event never;
  const auto stuck = [](Event& event) -> Task<void> { co_await uncancellable(event.wait()); };
  const auto body = [&stuck](Event& event) -> Task<void> {
    spawn(stuck(event), "left over");
    co_await sleep_for(1s);
    throw std::out_of_range("its own");
  };
  try {
    executor.run(body(never));
    FAIL();
  } catch (const DeadlockError& e) {
    EXPECT_THAT(e.what(), HasSubstr("left over"));
    EXPECT_THROW(std::rethrow_if_nested(e), std::out_of_range);
  }
}

// --- explore -------------------------------------------------------------------------------------

class Environment {
 public:
  explicit Environment(const char* value) {
    value != nullptr ? setenv("MAGPIE_SEED", value, 1) : unsetenv("MAGPIE_SEED");
  }
  ~Environment() { unsetenv("MAGPIE_SEED"); }
};

Task<void> deposit(int& balance) {
  const int seen = balance;
  co_await this_task::yield();  // the planted race: another deposit may come in between
  balance = seen + 1;
}

void two_deposits(SimulatedExecutor& executor) {
  int balance = 0;
  const auto late = [](int& money) -> Task<void> {
    co_await this_task::yield();
    co_await this_task::yield();
    co_await deposit(money);
  };
  executor.run(gather(deposit(balance), late(balance)));
  if (balance != 2) throw std::runtime_error("a deposit was lost");
}

TEST(Explore, FindsAPlantedRaceAndReportsTheSeed) {
  const Environment none(nullptr);
  try {
    explore(1000, two_deposits);
    FAIL() << "the race was not found";
  } catch (const ExplorationError& e) {
    EXPECT_GE(e.seed(), 1U);
    EXPECT_LE(e.seed(), 1000U);
    EXPECT_THAT(e.what(), HasSubstr("a deposit was lost"));
    EXPECT_THAT(e.what(), HasSubstr("MAGPIE_SEED=" + std::to_string(e.seed())));
    EXPECT_THROW(std::rethrow_if_nested(e), std::runtime_error);
    SimulatedExecutor again(e.seed());
    EXPECT_THROW(two_deposits(again), std::runtime_error);
  }
}

TEST(Explore, CallsTheFunctionForEachSeedFromOneOn) {
  const Environment none(nullptr);
  std::vector<std::uint64_t> seeds;
  explore(5, [&](SimulatedExecutor& executor) { seeds.push_back(executor.seed()); });
  EXPECT_THAT(seeds, ElementsAre(1, 2, 3, 4, 5));
  explore(0, [](SimulatedExecutor&) { FAIL(); });
}

TEST(Explore, EndsWithTheFirstFailure) {
  const Environment none(nullptr);
  int calls = 0;
  const auto third = [&](SimulatedExecutor& executor) {
    ++calls;
    if (executor.seed() == 3) throw 17;  // not a std::exception
  };
  EXPECT_THROW(explore(10, third), ExplorationError);
  EXPECT_EQ(calls, 3);
}

TEST(Explore, TheEnvironmentReplaysOneSeed) {
  const Environment one("18446744073709551615");
  std::vector<std::uint64_t> seeds;
  explore(100, [&](SimulatedExecutor& executor) { seeds.push_back(executor.seed()); });
  EXPECT_THAT(seeds, ElementsAre(~std::uint64_t{0}));
}

TEST(Explore, AnEmptySeedCountsAsUnset) {
  const Environment empty("");
  int calls = 0;
  explore(3, [&](SimulatedExecutor&) { ++calls; });
  EXPECT_EQ(calls, 3);
}

TEST(Explore, ASeedThatIsNoNumberIsRefusedAndQuoted) {
  for (const char* text : {"seven", "12x", "-1", " 3", "18446744073709551616"}) {
    const Environment bad(text);
    try {
      explore(3, [](SimulatedExecutor&) {});
      FAIL() << text;
    } catch (const std::invalid_argument& e) {
      EXPECT_THAT(e.what(), HasSubstr("\"" + std::string(text) + "\""));
    }
  }
}

TEST(Explore, ADeadlockIsAFailureLikeAnyOther) {
  const Environment none(nullptr);
  Event never;
  try {
    explore(3, [&](SimulatedExecutor& executor) { executor.run(uncancellable(never.wait())); });
    FAIL();
  } catch (const ExplorationError& e) {
    EXPECT_EQ(e.seed(), 1U);
    EXPECT_THROW(std::rethrow_if_nested(e), DeadlockError);
  }
}

}  // namespace
