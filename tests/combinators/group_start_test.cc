// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (more of what task_group_test shows)

// group.start and ReadySignal: what api.md, section 6, says of them.

#include <magpie/task_group.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class GroupStart : public OnMachine {};

Task<> serve_a_function(ReadySignal<int> ready) {
  ready.set(11);
  co_return;
}

TEST_ON_THREADS(GroupStart, ReturnsOnceTheChildIsReadyWhichGoesOnInTheGroup) {  // B094, B098
  bool ended = false;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      const int port = co_await group.start<int>([&](ReadySignal<int> ready) -> Task<void> {
        co_await sleep_for(1ms);
        ready.set(8080);
        co_await sleep_for(10ms);
        ended = true;
      });
      EXPECT_EQ(port, 8080);
      EXPECT_FALSE(ended);
      EXPECT_EQ(machine.elapsed(), 1ms);
    };
    co_await task_group(body);
  });
  EXPECT_TRUE(ended);
  EXPECT_EQ(machine.elapsed(), 11ms);
}

TEST_ON_THREADS(GroupStart, ItsTypeIsDeducedWhereItCanBe) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      const int a = co_await group.start([](ReadySignal<int> ready) -> Task<void> {
        ready.set(1);
        co_return;
      });
      const std::string b = co_await group.start(
          [](const ReadySignal<std::string>& ready) -> Task<void> {
            ready.set("text");
            co_return;
          },
          "named");
      const int c = co_await group.start(serve_a_function);
      std::function<Task<void>(ReadySignal<int>)> function = serve_a_function;
      const int d = co_await group.start(function);
      auto once = [](ReadySignal<void> ready) mutable -> Task<void> {
        ready.set();
        co_return;
      };
      co_await group.start(once);
      co_await group.start<void>([](auto ready) -> Task<void> {
        ready.set();
        co_return;
      });
      auto make = [](ReadySignal<MoveOnly> ready) -> Task<void> {
        ready.set(MoveOnly(4));
        co_return;
      };
      MoveOnly e = co_await group.start(make);
      EXPECT_EQ(a + c + d + e.value(), 1 + 11 + 11 + 4);
      EXPECT_EQ(b, "text");
      auto no_default = [](ReadySignal<NoDefault> ready) -> Task<void> {
        ready.set(3);  // what makes a V
        co_return;
      };
      NoDefault f = co_await group.start(no_default);
      EXPECT_EQ(f.value, 3);
    };
    co_await task_group(body);
  });
}

TEST_ON_THREADS(GroupStart, FailureBeforeTheSignalIsItsAlone) {  // B095
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<int> {
      auto failing = [](ReadySignal<int>) -> Task<void> {
        co_await sleep_for(1ms);
        throw std::runtime_error("not ready");
      };
      Result<int> r = co_await as_result(group.start(failing));
      EXPECT_EQ(what_of(r.error()), "not ready");
      co_await sleep_for(1ms);  // the group is unharmed
      co_return 1;
    };
    const int value = co_await task_group(body);
    EXPECT_EQ(value, 1);
  });
}

TEST_ON_THREADS(GroupStart, FailureAfterTheSignalIsTheGroups) {  // B095
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto failing = [](ReadySignal<int> ready) -> Task<void> {
        ready.set(2);
        co_await sleep_for(1ms);
        throw std::runtime_error("later");
      };
      const int ready = co_await group.start(failing);
      EXPECT_EQ(ready, 2);
      co_await never();
    };
    Result<void> r = co_await as_result(task_group(body));
    EXPECT_EQ(what_of(group_of(r.error()).exceptions().at(0)), "later");
  });
}

TEST_ON_THREADS(GroupStart, EndWithoutASignalIsAnError) {  // B096
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto silent = [](ReadySignal<int>) -> Task<void> { co_return; };
      Result<int> r = co_await as_result(group.start(silent));
      EXPECT_TRUE(is<std::logic_error>(r.error()));
      auto silent_void = [](ReadySignal<void>) -> Task<void> { co_return; };
      Result<void> s = co_await as_result(group.start(silent_void));
      EXPECT_TRUE(is<std::logic_error>(s.error()));
    };
    co_await task_group(body);
  });
}

TEST_ON_THREADS(GroupStart, SecondSignalIsAnError) {  // B096
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto twice = [](ReadySignal<int> ready) -> Task<void> {
        ReadySignal<int> copy = ready;
        ready.set(1);
        EXPECT_THROW(copy.set(2), InvalidStateError);
        co_return;
      };
      const int first = co_await group.start(twice);
      EXPECT_EQ(first, 1);
    };
    co_await task_group(body);
  });
}

struct Picky {
  explicit Picky(int given) : value(given) {
    if (given < 0) throw std::invalid_argument("too small");
  }
  int value;
};

TEST_ON_THREADS(GroupStart, SignalWhoseValueCannotBeMadeMayBeSetAgain) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto corrects = [](ReadySignal<Picky> ready) -> Task<void> {
        EXPECT_THROW(ready.set(-1), std::invalid_argument);
        ready.set(2);
        EXPECT_THROW(ready.set(3), InvalidStateError);
        co_return;
      };
      const Picky given = co_await group.start(corrects);
      EXPECT_EQ(given.value, 2);
    };
    co_await task_group(body);
  });
}

TEST_ON_THREADS(GroupStart, CallableThatThrowsLeaksNothing) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto broken = [tracked = Tracked(ledger)](ReadySignal<int>) -> Task<void> {
        throw std::runtime_error("no coroutine");
      };
      Result<int> r = co_await as_result(group.start(broken));
      EXPECT_EQ(what_of(r.error()), "no coroutine");
    };
    co_await task_group(body);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(GroupStart, CallableLivesAsLongAsTheChild) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto serve = [tracked = Tracked(ledger)](ReadySignal<void> ready) -> Task<void> {
        ready.set();
        co_await sleep_for(5ms);
        tracked.touch();
      };
      auto start = group.start(std::move(serve));
      co_await std::move(start);
      EXPECT_GE(ledger.alive(), 1);
    };
    co_await task_group(body);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(GroupStart, CallableThatCannotBeCopiedIsReferenced) {
  machine.run([&]() -> Task<> {
    auto serve = [number = std::make_unique<int>(5)](ReadySignal<int> ready) -> Task<void> {
      ready.set(*number);
      co_return;
    };
    auto body = [&](TaskGroup& group) -> Task<int> { co_return co_await group.start(serve); };
    const int value = co_await task_group(body);
    EXPECT_EQ(value, 5);
  });
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(GroupStart, CancelledOneTakesItsChildAlong) {  // B097
  bool ended = false;
  CancelKind why{};
  std::optional<ReadySignal<int>> late;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto slow = [&](ReadySignal<int> ready) -> Task<void> {
        late = ready;
        co_await watched(ended, why);
      };
      Result<int> r = co_await as_result(timeout(group.start(slow), 1ms));
      EXPECT_TRUE(r.is_timeout());
      EXPECT_TRUE(ended);
      co_await sleep_for(1ms);  // the group goes on
    };
    co_await task_group(body);
  });
  EXPECT_TRUE(ended);
  late->set(5);  // has no effect any more
}

TEST_ON_THREADS(GroupStart, ErrorOfAChildThatIsTakenAlongIsReportedByStart) {  // rule 0.4
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto angry = [](ReadySignal<int>) -> Task<void> { co_await bitter("cleanup"); };
      Result<int> r = co_await as_result(timeout(group.start(angry), 1ms));
      EXPECT_EQ(what_of(r.error()), "cleanup");
      co_await sleep_for(1ms);  // start()'s alone: the group is unharmed
    };
    co_await task_group(body);
  });
}

TEST_ON_THREADS(GroupStart, InACancelledScopeStartsNothing) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto child = [&](ReadySignal<int> ready) -> Task<void> {
        ran = true;
        ready.set(1);
        co_return;
      };
      auto block = [&](CancelScope& scope) -> Task<> {
        scope.cancel();
        Result<int> r = co_await as_result(group.start(child));
        EXPECT_TRUE(r.is_cancelled());
      };
      co_await cancel_scope(block);
    };
    co_await task_group(body);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(GroupStart, GroupThatIsCancelledMeanwhileCancelsBoth) {  // B099
  machine.run([&]() -> Task<> {
    for (const bool forgives : {false, true}) {
      auto cancel_soon = [](TaskGroup& group) -> Task<> {
        co_await sleep_for(1ms);
        group.cancel();
      };
      auto body = [&](TaskGroup& group) -> Task<> {
        group.spawn(cancel_soon(group));
        auto child = [&](ReadySignal<int>) -> Task<void> {
          if (forgives) {
            co_await forgiving(1);
          } else {
            co_await never();
          }
        };
        Result<int> r = co_await as_result(group.start(child));
        EXPECT_TRUE(r.is_cancelled());
        EXPECT_EQ(reason_of(r.error()).kind, CancelKind::group_cancelled);
      };
      co_await task_group(body);
    }
  });
}

TEST_ON_THREADS(GroupStart, ChildCancelledByHandBeforeItsSignal) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto child = [](ReadySignal<int>) -> Task<void> { co_await cancel_itself("gave up"); };
      Result<int> r = co_await as_result(group.start(child));
      EXPECT_EQ(reason_of(r.error()).message, "gave up");
      co_await this_task::checkpoint();
    };
    co_await task_group(body);
  });
}

TEST_ON_THREADS(GroupStart, FromAnotherTaskThanTheGroups) {
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto elsewhere = [&]() -> Task<int> {
        auto serve = [](ReadySignal<int> ready) -> Task<void> {
          co_await sleep_for(1ms);
          ready.set(6);
          co_await sleep_for(1ms);
        };
        co_return co_await group.start(serve);
      };
      JoinHandle<int> outsider = executor.spawn(elsewhere());
      const int value = co_await outsider;
      EXPECT_EQ(value, 6);
    };
    co_await task_group(body);
  });
}

// Signal, failure, cancellation of start() and of the group in every order of steps.
TEST(GroupStartInEveryOrder, EachStartHasOneOutcome) {
  testing::explore(600, [](testing::SimulatedExecutor& simulator) {
    bool running = false;
    auto serve = [&](ReadySignal<int> ready) -> Task<void> {
      running = true;
      co_await this_task::yield();
      ready.set(1);
      co_await this_task::yield();
      running = false;
    };
    // Outside the body: a group's children may outlive its body's locals.
    JoinHandle<int> starter;
    auto start = [&](TaskGroup& group) -> Task<int> { co_return co_await group.start(serve); };
    auto meddle = [&](TaskGroup& group, bool with_group) -> Task<> {
      co_await this_task::yield();
      co_await this_task::yield();
      if (with_group) {
        group.cancel();
      } else {
        starter.cancel();
      }
    };
    auto body = [&](TaskGroup& group) -> Task<int> {
      starter = group.spawn(start(group));
      JoinHandle<void> a = group.spawn(meddle(group, false));
      JoinHandle<void> b = group.spawn(meddle(group, true));
      const Result<int> r = co_await uncancellable(as_result(starter));
      if (!r.has_value() && !r.is_cancelled())
        throw std::runtime_error("neither a value nor cancelled");
      co_return r.value_or(0);
    };
    simulator.run(task_group(body));
    (void)running;
  });
}

// The signal comes from a thread of its own, at the moment of the cancellation: either the value is
// delivered and the child goes on in the group, or it is taken along.
TEST(GroupStartAcrossThreads, SignalAgainstCancellation) {
  WorkStealingExecutor workers({.threads = 2});
  int ready_count = 0;
  for (int round = 0; round < 200; ++round) {
    auto body = [&](TaskGroup& group) -> Task<> {
      auto child = [round](ReadySignal<int> ready) -> Task<void> {
        std::thread other([ready, round] {
          std::atomic<int> i{0};  // a wait of a few microseconds that is not optimised away
          while (i.load() < round * 40) i.fetch_add(1);
          ready.set(round);
        });
        Event never_set;
        Result<void> waited = co_await as_result(never_set.wait());
        other.join();
        std::move(waited).value();
      };
      Result<int> r = co_await try_timeout(group.start(child), 60us);
      if (r.has_value()) {
        ++ready_count;
        EXPECT_EQ(r.value(), round);
      } else {
        EXPECT_TRUE(r.is_timeout());
      }
      group.cancel();
    };
    workers.run(task_group(body));
  }
  EXPECT_LE(ready_count, 200);
}

TEST_ON_THREADS(GroupStart, ItsCallableGoesWithTheChildAlsoIfItsSignalIsKept) {
  std::optional<ReadySignal<int>> kept;
  auto guard = std::make_shared<int>(1);
  const std::weak_ptr<int> alive = guard;
  machine.run([&]() -> Task<> {
    auto child = [&kept, guard = std::move(guard)](ReadySignal<int> ready) -> Task<> {
      kept = ready;
      ready.set(*guard);
      co_return;
    };
    auto body = [&](TaskGroup& group) -> Task<> {
      const int value = co_await group.start<int>(std::move(child));
      EXPECT_EQ(value, 1);
    };
    co_await task_group(body);
    EXPECT_TRUE(alive.expired());
  });
}

TEST_ON_THREADS(GroupStart, ItsChildIsCancelledForTheReasonThatItIs) {
  std::optional<CancelReason> seen;
  machine.run([&]() -> Task<> {
    auto child = [&](ReadySignal<int>) -> Task<> {
      try {
        co_await sleep_for(1h);
      } catch (const CancelledError& error) {
        seen = error.reason();
        throw;
      }
    };
    auto body = [&](TaskGroup& group) -> Task<> {
      const int value = co_await with_timeout(group.start<int>(child), 1ms, -1);
      EXPECT_EQ(value, -1);
    };
    co_await task_group(body);
  });
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->kind, CancelKind::timeout);
}

TEST_ON_THREADS(GroupStart, TheSignalMayBeAReferenceAndSaysNothingByDefault) {
  machine.run([&]() -> Task<> {
    int number = 1;
    auto by_reference = [&](ReadySignal<int&> ready) -> Task<> {
      ready.set(number);
      co_return;
    };
    auto no_value = [](ReadySignal<> ready) -> Task<> {
      ready.set();
      co_return;
    };
    auto body = [&](TaskGroup& group) -> Task<> {
      int& same = co_await group.start<int&>(by_reference);
      EXPECT_EQ(&same, &number);
      int& deduced = co_await group.start(by_reference);
      EXPECT_EQ(&deduced, &number);
      co_await group.start(no_value);
    };
    co_await task_group(body);
  });
}

}  // namespace
}  // namespace magpie
