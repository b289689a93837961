// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-all-optimisations

// Task: what api.md, section 3, says of it.

#include <magpie/task.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::ForeignEvent;
using test::Ledger;
using test::MoveOnly;
using test::NoDefault;
using test::OnForeignThread;
using test::ReadyRvalue;
using test::Tracked;

static_assert(!std::is_copy_constructible_v<Task<int>> &&
              std::is_nothrow_move_constructible_v<Task<int>>);
static_assert(std::is_same_v<Task<>, Task<void>>);
static_assert(!std::is_base_of_v<std::exception, CancelledError>);

Task<int> give(int value) {
  co_return value;
}
Task<MoveOnly> give_move_only(int value) {
  co_return MoveOnly(value);
}
Task<NoDefault> give_no_default(int value) {
  co_return NoDefault(value);
}
Task<int&> give_reference(int& value) {
  co_return value;
}
Task<const std::string&> give_const_reference(const std::string& value) {
  co_return value;
}
Task<std::unique_ptr<int>> give_pointer(int value) {
  co_return std::make_unique<int>(value);
}
Task<> do_nothing() {
  co_return;
}
Task<int> fail(const char* what) {
  throw std::runtime_error(what);
  co_return 0;
}
Task<int> cancel_itself() {
  throw CancelledError(CancelReason{CancelKind::requested, "by hand"});
  co_return 0;
}

TEST(Task, GivesItsValueToRun) {
  EXPECT_EQ(run(give(42)), 42);
}

TEST(Task, GivesValuesOfAwkwardTypes) {
  EXPECT_EQ(run(give_move_only(1)).value(), 1);
  EXPECT_EQ(run(give_no_default(2)).value, 2);
  EXPECT_EQ(*run(give_pointer(3)), 3);
  run(do_nothing());
  static_assert(std::is_void_v<decltype(run(do_nothing()))>);
}

TEST(Task, ReferenceArrivesAsTheSameObject) {
  int number = 5;
  WorkStealingExecutor executor({.threads = 1});
  static_assert(std::is_same_v<decltype(executor.run(give_reference(number))), int&>);
  EXPECT_EQ(&executor.run(give_reference(number)), &number);
  static_assert(std::is_same_v<decltype(run(give_reference(number))), int&>);
  EXPECT_EQ(&run(give_reference(number)), &number);
  const std::string text = "text";
  EXPECT_EQ(&run(give_const_reference(text)), &text);
}

TEST(Task, AwaitsGiveValuesOfAwkwardTypes) {
  int number = 7;
  auto body = [&]() -> Task<int> {
    MoveOnly a = co_await give_move_only(1);
    NoDefault b = co_await give_no_default(2);
    std::unique_ptr<int> c = co_await give_pointer(3);
    int& d = co_await give_reference(number);
    EXPECT_EQ(&d, &number);
    co_await do_nothing();
    co_return a.value() + b.value + *c + d;
  };
  EXPECT_EQ(run(body()), 13);
}

TEST(Task, IsLazy) {
  bool ran = false;
  auto body = [&]() -> Task<> {
    ran = true;
    co_return;
  };
  {
    Task<> never = body();
    EXPECT_FALSE(ran);
  }
  EXPECT_FALSE(ran);
}

Task<> hold(Tracked tracked, bool* ran) {
  *ran = true;
  tracked.touch();
  co_return;
}

TEST(Task, DestroyingOneThatWasNeverStartedFreesItsArgumentsOnce) {
  Ledger ledger;
  bool ran = false;
  {
    Task<> task = hold(Tracked(ledger), &ran);
    EXPECT_EQ(ledger.alive(), 1);
    Task<> other = std::move(task);
    EXPECT_FALSE(task);
    EXPECT_TRUE(other);
    EXPECT_EQ(ledger.alive(), 1);
    other = Task<>();
    EXPECT_EQ(ledger.alive(), 0);
  }
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_FALSE(ran);
}

#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
// Arguments that are moved into the frame: those before the one whose move throws are there
// already, those behind it are not. Not with sanitizers: at -O0 clang 19 reads the exception, to
// pass it on, from the frame that it has just freed, which they find.
TEST(Task, AParameterWhoseMoveThrowsLeavesEveryTaskDestroyedOnce) {
  struct ThrowsWhenMoved {
    ThrowsWhenMoved() = default;
    ThrowsWhenMoved(ThrowsWhenMoved&&) { throw std::runtime_error("moved"); }
  };
  auto keep = [](Tracked tracked) -> Task<> {
    tracked.touch();
    co_return;
  };
  auto one = [](Task<> before, ThrowsWhenMoved) -> Task<> { co_await std::move(before); };
  auto two = [](Task<> before, ThrowsWhenMoved, Task<> behind) -> Task<> {
    co_await std::move(before);
    co_await std::move(behind);
  };
  Ledger ledger;
  EXPECT_THROW(const auto task = one(keep(Tracked(ledger)), ThrowsWhenMoved()), std::runtime_error);
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_THROW(
      const auto task = two(keep(Tracked(ledger)), ThrowsWhenMoved(), keep(Tracked(ledger))),
      std::runtime_error);
  EXPECT_EQ(ledger.alive(), 0);
}
#endif

TEST(Task, ThrowsWhatItsBodyThrows) {
  EXPECT_THROW(run(fail("oops")), std::runtime_error);
  auto body = []() -> Task<std::string> {
    try {
      co_await fail("inner");
    } catch (const std::runtime_error& error) {
      co_return error.what();
    }
    co_return "nothing";
  };
  EXPECT_EQ(run(body()), "inner");
}

TEST(Task, ThrownCancelledErrorEndsItCancelled) {
  WorkStealingExecutor executor({.threads = 1});
  auto handle = executor.spawn(cancel_itself());
  EXPECT_TRUE(handle.wait().is_cancelled());
  EXPECT_TRUE(handle.cancelled());
  try {
    handle.result().value();
    FAIL();
  } catch (const CancelledError& error) {
    EXPECT_EQ(error.reason().message, "by hand");
  }
}

TEST(Task, CancelledErrorIsNotCaughtAsAStandardException) {
  auto body = []() -> Task<int> {
    try {
      co_await cancel_itself();
    } catch (const std::exception&) {
      co_return 1;
    } catch (const CancelledError&) {
      co_return 2;
    }
    co_return 3;
  };
  EXPECT_EQ(run(body()), 2);
}

TEST(Task, AwaitingAMovedFromTaskIsALogicError) {
  auto body = []() -> Task<int> {
    Task<int> task = give(1);
    Task<int> taken = std::move(task);
    int value = co_await std::move(taken);
    try {
      co_await std::move(task);
    } catch (const std::logic_error&) {
      value += 10;
    }
    try {
      co_await std::move(taken);
    } catch (const std::logic_error&) {
      value += 100;
    }
    co_return value;
  };
  EXPECT_EQ(run(body()), 111);
  WorkStealingExecutor executor({.threads = 1});
  EXPECT_THROW(executor.run(Task<int>()), std::logic_error);
  EXPECT_THROW(executor.spawn(Task<int>()), std::logic_error);
}

TEST(Task, FrameIsGoneBeforeItsAwaiterGoesOn) {
  Ledger ledger;
  bool ran = false;
  auto body = [&]() -> Task<> {
    Tracked argument(ledger);
    co_await hold(std::move(argument), &ran);
    EXPECT_EQ(ledger.alive(), 1);  // what was moved from, here
  };
  run(body());
  EXPECT_TRUE(ran);
  EXPECT_EQ(ledger.alive(), 0);
}

TEST(Task, AsResultGivesEachOutcomeAsAValue) {
  auto body = []() -> Task<> {
    Result<int> value = co_await as_result(give(1));
    EXPECT_EQ(value.outcome(), Outcome::value);
    EXPECT_EQ(value.value(), 1);
    EXPECT_EQ(value.error(), nullptr);
    Result<int> error = co_await as_result(fail("x"));
    EXPECT_TRUE(error.is_error());
    EXPECT_THROW(error.value(), std::runtime_error);
    EXPECT_EQ(error.value_or(9), 9);
    Result<int> cancelled = co_await as_result(cancel_itself());
    EXPECT_TRUE(cancelled.is_cancelled());
    Result<void> nothing = co_await as_result(do_nothing());
    EXPECT_TRUE(nothing);
    Result<MoveOnly> moved = co_await as_result(give_move_only(4));
    MoveOnly out = std::move(moved).value();
    EXPECT_EQ(out.value(), 4);
    int number = 0;
    Result<int&> reference = co_await as_result(give_reference(number));
    EXPECT_EQ(&reference.value(), &number);
    Result<void> slept = co_await as_result(sleep_for(1ns));
    EXPECT_TRUE(slept.has_value());
    EXPECT_THROW((void)as_result(Task<int>()).await_ready(), std::logic_error);
  };
  run(body());
}

TEST(Task, AsResultDoesNotThrowInACancelledScopeEither) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> started{false};
  auto sleeper = []() -> Task<> { co_await sleep_for(1h); };
  auto body = [&]() -> Task<int> {
    started = true;
    Result<void> first = co_await as_result(sleeper());
    Result<void> second = co_await as_result(sleep_for(1h));
    Result<int> plain = co_await as_result(give(5));  // no cancellation point
    co_return (first.is_cancelled() ? 1 : 0) + (second.is_cancelled() ? 10 : 0) +
        plain.value_or(0) * 100;
  };
  auto handle = executor.spawn(body());
  ASSERT_TRUE(test::eventually([&] { return started.load(); }));
  handle.cancel();
  EXPECT_EQ(handle.wait().value(), 511);
}

TEST(Task, ThisTaskKnowsItsSurroundings) {
  WorkStealingExecutor executor({.threads = 2, .name = "pool"});
  auto body = [&]() -> Task<TaskId> {
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
    std::string name = co_await this_task::name();
    EXPECT_EQ(name, "worker");
    std::optional<Deadline> deadline = co_await this_task::deadline();
    EXPECT_FALSE(deadline.has_value());
    Deadline now = co_await this_task::now();
    EXPECT_LE(now, std::chrono::steady_clock::now());
    CancellationToken token = co_await this_task::token();
    EXPECT_TRUE(token.can_be_cancelled());
    EXPECT_FALSE(token.cancelled());
    co_await this_task::yield();
    co_await this_task::checkpoint();
    TaskId id = co_await this_task::id();
    co_return id;
  };
  auto handle = executor.spawn(body(), "worker");
  EXPECT_EQ(handle.wait().value(), handle.id());
}

TEST(Task, ChildrenAwaitedPlainlyBelongToTheSameTask) {
  auto inner = []() -> Task<TaskId> {
    TaskId id = co_await this_task::id();
    co_return id;
  };
  auto body = [&]() -> Task<bool> {
    TaskId mine = co_await this_task::id();
    TaskId childs = co_await inner();
    co_return mine == childs;
  };
  EXPECT_TRUE(run(body()));
}

TEST(Task, CancellationIsSeenNowAndAtEachLaterPoint) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> started{false};
  auto body = [&]() -> Task<int> {
    started = true;
    int caught = 0;
    CancellationToken token = co_await this_task::token();
    while (!token.cancelled()) std::this_thread::yield();
    for (int round = 0; round < 3; ++round) {
      try {
        co_await this_task::checkpoint();
      } catch (const CancelledError& error) {
        if (error.reason().message == "enough") ++caught;
      }
      try {
        co_await this_task::yield();
      } catch (const CancelledError&) {
        ++caught;
      }
      try {
        co_await sleep_for(1h);
      } catch (const CancelledError&) {
        ++caught;
      }
      try {
        co_await sleep_for(0s);
      } catch (const CancelledError&) {
        ++caught;
      }
    }
    co_return caught;
  };
  auto handle = executor.spawn(body());
  ASSERT_TRUE(test::eventually([&] { return started.load(); }));
  EXPECT_TRUE(handle.cancel("enough"));
  EXPECT_FALSE(handle.cancel("again"));
  EXPECT_EQ(handle.wait().value(), 12);  // a swallowed cancellation: the value wins
  EXPECT_FALSE(handle.cancelled());
}

TEST(Task, SelfCancelLosesAgainstTheValue) {
  WorkStealingExecutor executor({.threads = 2});
  JoinHandle<int> self;
  std::atomic<bool> ready{false};
  auto body = [&]() -> Task<int> {
    while (!ready.load()) std::this_thread::yield();
    EXPECT_TRUE(self.cancel());
    co_return 3;
  };
  self = executor.spawn(body());
  ready = true;
  EXPECT_EQ(self.wait().value(), 3);
}

TEST(Task, AwaitingAChildIsNoCancellationPoint) {
  WorkStealingExecutor executor({.threads = 2});
  JoinHandle<int> self;
  std::atomic<bool> ready{false};
  auto body = [&]() -> Task<int> {
    while (!ready.load()) std::this_thread::yield();
    self.cancel();
    int value = co_await give(8);
    co_return value;
  };
  self = executor.spawn(body());
  ready = true;
  EXPECT_EQ(self.wait().value(), 8);
}

TEST(Task, ForeignAwaitableComesHomeToItsExecutor) {
  WorkStealingExecutor executor({.threads = 2});
  auto body = [&]() -> Task<int> {
    int sum = 0;
    for (int i = 0; i < 20; ++i) {
      sum += co_await OnForeignThread(i);
      Executor& here = co_await this_task::executor();
      EXPECT_EQ(&here, &executor);
    }
    co_return sum;
  };
  EXPECT_EQ(executor.run(body()), 190);
  EXPECT_EQ(executor.run(OnForeignThread(4)), 4);
  EXPECT_EQ(executor.spawn(OnForeignThread(5)).wait().value(), 5);
}

TEST(Task, ForeignRvalueResultIsKeptByValue) {
  auto body = []() -> Task<std::size_t> {
    std::vector<int> values = co_await ReadyRvalue(3);
    Result<std::vector<int>> result = co_await as_result(ReadyRvalue(2));
    co_return values.size() * 10 + result.value().size();
  };
  EXPECT_EQ(run(body()), 32U);
}

TEST(Task, ForeignEventResumesWaitersThroughTheirExecutor) {
  ForeignEvent event;
  std::atomic<bool> in_set{false};
  std::atomic<int> resumed_inside{0};
  WorkStealingExecutor executor({.threads = 2});  // ends first: what is posted may end last
  auto waiter = [&](int awaits) -> Task<> {
    co_await event;
    if (in_set.load() && detail::current_executor() != &executor) ++resumed_inside;
    for (int i = 0; i < awaits; ++i) co_await give(i);  // would nest on the setter's stack
  };
  std::vector<JoinHandle<void>> handles;
  for (int i = 0; i < 50; ++i) handles.push_back(executor.spawn(waiter(i == 25 ? 100'000 : 1'000)));
  ASSERT_TRUE(test::eventually([&] { return event.waiters() == 50; }));
  executor.post([&] {
    in_set = true;
    event.set();
    in_set = false;
  });
  for (auto& handle : handles) EXPECT_TRUE(handle.wait());
  EXPECT_EQ(resumed_inside.load(), 0);
}

Task<int> give_in_time(int value) {
  return timeout(give(value), 1h);
}

TEST(Task, IsMadeOfAnyAwaitableOfTheLibraryThatGivesItsValue) {
  static_assert(!std::is_convertible_v<JoinHandle<int>, Task<long>> &&
                !std::is_convertible_v<int, Task<int>>);
  auto body = []() -> Task<> {
    Event set;
    set.set();
    std::vector<Task<>> waits;
    waits.push_back(sleep_for(1ns));
    waits.push_back(set.wait());
    co_await gather(std::move(waits));

    JoinHandle<int> handle = spawn(give(3));
    std::vector<Task<int>> tasks;
    tasks.push_back(give(1));
    tasks.push_back(with_timeout(give(2), 1h, -1));
    tasks.push_back(handle);
    tasks.push_back(give_in_time(4));
    const std::vector<int> values = co_await gather(std::move(tasks));
    EXPECT_EQ(values, (std::vector<int>{1, 2, 3, 4}));
    EXPECT_EQ(handle.result().value(), 3);  // an lvalue handle was copied

    std::vector<TaskFactory<int>> factories;
    factories.push_back([] { return timeout(give(5), 1h); });
    const Indexed<int> first = co_await staggered_race(std::move(factories), 1h);
    EXPECT_EQ(first.value, 5);

    Task<MoveOnly> assigned = timeout(give_move_only(6), 1h);
    assigned = timeout(give_move_only(7), 1h);
    const MoveOnly got = co_await std::move(assigned);
    EXPECT_EQ(got.value(), 7);
  };
  run(body());
}

// Runs a task that does not wait, here and now; with what it ended as far as its sink was told.
detail::SlotState told_of(Task<int> task) {
  struct Sink : detail::EndSink {
    Sink() : EndSink{note, nullptr} {}
    static std::coroutine_handle<> note(detail::EndSink* sink, detail::SlotState state) noexcept {
      static_cast<Sink*>(sink)->outcome = state;
      return std::noop_coroutine();
    }
    detail::SlotState outcome = detail::SlotState::empty;
  } sink;
  detail::Scope scope;
  detail::Slot<int> slot;
  auto frame = std::move(task).take_frame();
  detail::resume_here(
      frame.bind(scope, detail::Continuation::to(static_cast<detail::EndSink*>(&sink)), slot));
  return sink.outcome;
}

// As the end of an executor does, which runs what is left on it.
struct ResumesAnother {
  ResumesAnother() = default;
  ResumesAnother(ResumesAnother&&) = default;
  ~ResumesAnother() {
    const auto fails = []() -> Task<int> {
      throw std::runtime_error("within a destructor");
      co_return 0;
    };
    EXPECT_EQ(told_of(fails()), detail::SlotState::error);
  }
};

TEST(Task, GoesOnAfterACoroutineWhoseParametersDestructorResumedAnother) {
  const auto holds = []([[maybe_unused]] ResumesAnother parameter, int value) -> Task<int> {
    co_return value;
  };
  const auto fails = []([[maybe_unused]] ResumesAnother parameter) -> Task<int> {
    throw std::runtime_error("on purpose");
    co_return 0;
  };
  auto body = [&]() -> Task<int> {
    const int awaited = co_await holds(ResumesAnother(), 1);
    auto [first, second] = co_await gather(holds(ResumesAnother(), 2), holds(ResumesAnother(), 3));
    const Result<int> failed = co_await as_result(fails(ResumesAnother()));
    EXPECT_TRUE(failed.is_error());
    JoinHandle<int> handle = spawn(holds(ResumesAnother(), 4));
    const int joined = co_await handle;
    co_return awaited + first + second + joined;
  };
  EXPECT_EQ(run(body()), 10);
  EXPECT_EQ(told_of(holds(ResumesAnother(), 5)), detail::SlotState::value);
}

// What g++ 12 makes of these forms is no matter of ours, but they must go on working where they do.
TEST(Task, CanaryAwaitInAConditionOfABodyThatDeclaresSomething) {
  auto body = [](int n) -> Task<int> {
    int sum = 0;
    bool positive = co_await give(n) > 0;
    if (positive) sum += co_await give(1);
    sum += n > 0 ? co_await give(10) : co_await give(20);
    co_return sum;
  };
  EXPECT_EQ(run(body(1)), 11);
  EXPECT_EQ(run(body(-1)), 20);
}

#ifdef __clang__  // g++ 12 does not align frames (CHANGELOG.md, "Known")
template <std::size_t Alignment>
struct alignas(Alignment) OverAligned {
  OverAligned() noexcept { look(); }
  OverAligned(const OverAligned& other) noexcept {
    other.look();
    look();
  }
  ~OverAligned() { look(); }
  // The compiler knows where it ought to lie, and must not say so without looking.
  void look() const noexcept {
    const void* const volatile where = this;
    if (reinterpret_cast<std::uintptr_t>(where) % Alignment != 0) misplaced.fetch_add(1);
  }
  static inline std::atomic<int> misplaced{0};
};

template <class Aligned>
Task<Aligned> pass_on(Aligned parameter) {
  Aligned local;
  co_await this_task::yield();
  local.look();
  co_return parameter;
}

template <class Aligned>
Task<> keep_and_await() {
  std::vector<Task<Aligned>> children;
  for (int i = 0; i < 8; ++i) {  // frames beside each other
    const Aligned awaited = co_await pass_on(Aligned());
    awaited.look();
    co_await gather(pass_on(awaited), pass_on(awaited));
    co_await spawn(pass_on(awaited));
    children.push_back(pass_on(awaited));
  }
  co_await gather(std::move(children));
  EXPECT_EQ(Aligned::misplaced.load(), 0);
}

TEST(Task, WhatIsOverAlignedLiesInTheFrameWhereItMust) {
  run(keep_and_await<OverAligned<32>>());
  run(keep_and_await<OverAligned<64>>());
  run(keep_and_await<OverAligned<256>>());
}
#endif

}  // namespace
}  // namespace magpie
