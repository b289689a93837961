// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// wait: what the contract says of it, and of every cancellation point.

#include <magpie/wait.h>

#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

void must(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

/// A vector, for which braces will not do: g++ 12 takes none within a co_await expression.
template <class T, class... More>
std::vector<JoinHandle<T>> list(JoinHandle<T> first, More... more) {
  return {std::move(first), std::move(more)...};
}

class Wait : public OnMachine {
 protected:
  JoinHandle<int> in(Duration pause, int value = 0) {
    return executor.spawn(give_after(pause, value));
  }
};

TEST_ON_THREADS(Wait, AllCompletedIsTheDefaultAndWaitsForEveryOne) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles;
    for (int i = 0; i < 4; ++i) handles.push_back(in(std::chrono::seconds(i), i));
    auto [done, pending] = co_await wait(handles);
    EXPECT_EQ(done, handles);
    EXPECT_TRUE(pending.empty());
    for (int i = 0; i < 4; ++i) EXPECT_EQ(done[static_cast<std::size_t>(i)].result().value(), i);
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(Wait, AllCompletedDoesNotStopAtAnError) {  // B119
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{executor.spawn(fail_after(1s, "oops")), in(2s),
                                         executor.spawn(cancel_itself())};
    const WaitResult<int> result = co_await wait(handles, ReturnWhen::all_completed);
    EXPECT_EQ(result.done, handles);
    EXPECT_EQ(what_of(result.done[0].result().error()), "oops");
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Wait, FirstCompletedReturnsWithTheFirstToEndHoweverItEnds) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(3s), in(1s), in(2s)};
    auto first = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_EQ(first.done, std::vector{handles[1]});
    EXPECT_EQ(first.pending, (std::vector{handles[0], handles[2]}));
    EXPECT_EQ(machine.elapsed(), 1s);

    handles = {in(3s), executor.spawn(fail_after(1s, "oops"))};
    auto failed = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_EQ(failed.done, std::vector{handles[1]});
    EXPECT_EQ(what_of(failed.done[0].result().error()), "oops");
    EXPECT_EQ(machine.elapsed(), 2s);

    handles = {in(3s), executor.spawn(never())};
    handles[1].cancel();
    auto cancelled = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_EQ(cancelled.done, std::vector{handles[1]});
    EXPECT_EQ(machine.elapsed(), 2s);
  });
}

TEST_ON_THREADS(Wait, EveryTaskThatIsDoneByThenIsInDone) {  // B117
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(1s), in(5s), in(1s), in(1s)};
    co_await sleep_for(2s);
    auto result = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_EQ(result.done, (std::vector{handles[0], handles[2], handles[3]}));
    EXPECT_EQ(result.pending, std::vector{handles[1]});
  });
}

TEST_ON_THREADS(Wait, FirstExceptionReturnsWithTheFirstErrorAndNotWithACancelledTask) {  // B118
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(1s), executor.spawn(cancel_itself()),
                                         executor.spawn(fail_after(2s, "oops")), in(9s)};
    auto result = co_await wait(handles, ReturnWhen::first_exception);
    EXPECT_EQ(result.done, (std::vector{handles[0], handles[1], handles[2]}));
    EXPECT_EQ(result.pending, std::vector{handles[3]});
    EXPECT_EQ(what_of(result.done[2].result().error()), "oops");
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Wait, FirstExceptionWithoutOneWaitsForAll) {  // B119
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(3s), executor.spawn(cancel_itself()), in(1s)};
    auto result = co_await wait(handles, ReturnWhen::first_exception);
    EXPECT_EQ(result.done, handles);
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(Wait, FirstExceptionSeesAnErrorThatWasThereBefore) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(3s), executor.spawn(fail("early"))};
    co_await sleep_for(1s);
    auto result = co_await wait(handles, ReturnWhen::first_exception);
    EXPECT_EQ(result.done, std::vector{handles[1]});
    EXPECT_EQ(machine.elapsed(), 1s);
    EXPECT_EQ(what_of(handles[1].result().error()), "early");
  });
}

TEST_ON_THREADS(Wait, TimeoutIsNoErrorAndCancelsNothing) {  // B120
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(1s, 1), in(3s, 3), in(2s, 2)};
    auto [done, pending] = co_await wait(handles, ReturnWhen::all_completed, 2500ms);
    EXPECT_EQ(machine.elapsed(), 2500ms);
    EXPECT_EQ(done, (std::vector{handles[0], handles[2]}));
    EXPECT_EQ(pending, std::vector{handles[1]});
    const int late = co_await pending[0];
    EXPECT_EQ(late, 3);
    EXPECT_EQ(machine.elapsed(), 3s);
  });
}

TEST_ON_THREADS(Wait, TimeoutThatIsNotNeededIsForgotten) {
  machine.run([&]() -> Task<> {
    auto result = co_await wait(list(in(1s)), ReturnWhen::all_completed, 1h);
    EXPECT_EQ(result.done.size(), 1u);
    const std::optional<Deadline> deadline = co_await this_task::deadline();
    EXPECT_FALSE(deadline.has_value());
  });
  EXPECT_EQ(machine.elapsed(), 1s);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Wait, TimeoutOfNothingLooksOnce) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(1s), in(2s)};
    auto nothing = co_await wait(handles, ReturnWhen::first_completed, 0s);
    EXPECT_EQ(nothing.pending, handles);
    co_await sleep_for(1500ms);  // two timers due at one instant come in either order
    auto one = co_await wait(handles, ReturnWhen::first_completed, 0s);
    EXPECT_EQ(one.done, std::vector{handles[0]});
    auto all = co_await wait(handles, ReturnWhen::all_completed, -5s);
    EXPECT_EQ(all.pending, std::vector{handles[1]});
    EXPECT_EQ(machine.elapsed(), 1500ms);
  });
}

TEST(WaitPolling,
     LetsOthersRun) {  // a loop that polls must not keep the only worker from what it polls for
  Machine machine(1);
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{machine.executor.spawn(give(1))};
    int rounds = 0;
    for (bool over = false; !over && rounds < 1000; ++rounds) {
      auto seen = co_await wait(handles, ReturnWhen::all_completed, 0s);
      over = seen.pending.empty();
    }
    EXPECT_LT(rounds, 1000);
  });
}

TEST_ON_THREADS(Wait, NeverIsALimit) {
  machine.run([&]() -> Task<> {
    auto result = co_await wait(list(in(1s)), ReturnWhen::all_completed, Duration::never());
    EXPECT_EQ(result.done.size(), 1u);
    auto other = co_await wait(list(in(1s)), ReturnWhen::all_completed, std::optional<Duration>());
    EXPECT_EQ(other.done.size(), 1u);
  });
}

TEST_ON_THREADS(Wait, DuplicatesAreKeptInInputOrder) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> a = in(1s, 1);
    JoinHandle<int> b = in(2s, 2);
    const std::vector<JoinHandle<int>> handles{b, a, b, a, a};
    auto first = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_EQ(first.done, (std::vector{a, a, a}));
    EXPECT_EQ(first.pending, (std::vector{b, b}));
    auto all = co_await wait(handles);
    EXPECT_EQ(all.done, handles);
  });
}

TEST_ON_THREADS(Wait, OfNothingIsAnError) {  // B116
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> none;
    const auto result = co_await as_result(wait(none));
    EXPECT_TRUE(is<std::invalid_argument>(result.error()));
    EXPECT_FALSE(what_of(result.error()).empty());
    const auto timed = co_await as_result(wait(none, ReturnWhen::first_completed, 1s));
    EXPECT_TRUE(is<std::invalid_argument>(timed.error()));
  });
}

TEST_ON_THREADS(Wait, EmptyHandleIsAnError) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(1s), JoinHandle<int>()};
    const auto result = co_await as_result(wait(handles, ReturnWhen::first_completed));
    EXPECT_TRUE(is<InvalidStateError>(result.error()));
  });
}

TEST_ON_THREADS(Wait, OnesOwnHandleIsAnError) {
  machine.run([&]() -> Task<> {
    Event have_handle;
    std::vector<JoinHandle<void>> handles;
    auto body = [&]() -> Task<> {
      co_await have_handle.wait();
      const auto result = co_await as_result(wait(handles, ReturnWhen::first_completed));
      EXPECT_TRUE(is<std::logic_error>(result.error()));
    };
    handles.push_back(executor.spawn(body()));
    have_handle.set();
    co_await handles[0];
  });
}

TEST_ON_THREADS(Wait, OneHandleAlone) {
  machine.run([&]() -> Task<> {
    for (const ReturnWhen when :
         {ReturnWhen::first_completed, ReturnWhen::first_exception, ReturnWhen::all_completed}) {
      auto result = co_await wait(list(in(1s, 7)), when);
      EXPECT_EQ(result.done.size(), 1u);
      EXPECT_EQ(result.done[0].result().value(), 7);
      EXPECT_TRUE(result.pending.empty());
    }
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(Wait, TakesBraces) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> first = in(1s);
    JoinHandle<int> second = in(2s);
    auto waiting = wait({first, second}, ReturnWhen::first_completed);
    auto result = co_await std::move(waiting);
    EXPECT_EQ(result.done, list(first));
    EXPECT_EQ(result.pending, list(second));
  });
}

TEST_ON_THREADS(Wait,
                TakesNoResult) {  // move-only and other awkward values stay where they are; so do
                                  // errors that nobody has seen
  machine.run([&]() -> Task<> {
    auto unique = [](int v) -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(v); };
    auto result = co_await wait(list(executor.spawn(unique(5)), executor.spawn(unique(6))));
    const std::unique_ptr<int> five = co_await std::move(result.done[0]);
    EXPECT_EQ(*five, 5);

    auto no_default = []() -> Task<NoDefault> { co_return NoDefault(4); };
    auto second = co_await wait(list(executor.spawn(no_default())));
    EXPECT_EQ(second.done[0].result().value().value, 4);

    auto voids = co_await wait(list(executor.spawn(nothing_after(1s)), executor.spawn(nothing())),
                               ReturnWhen::first_completed);
    static_assert(std::is_same_v<decltype(voids), WaitResult<void>>);
    EXPECT_EQ(voids.done.size(), 1u);

    int object = 0;
    auto refer = [&]() -> Task<int&> { co_return object; };
    auto references = co_await wait(list(executor.spawn(refer())));
    EXPECT_EQ(&references.done[0].result().value(), &object);
  });
}

TEST(WaitErrors, ThatNobodyAsksForAreReported) {
  std::atomic<int> reported{0};
  std::optional<WorkStealingExecutor> slot(
      std::in_place,
      ExecutorOptions{
          .threads = 2,
          .on_unobserved_error = [&](std::string_view, std::exception_ptr) { ++reported; }});
  WorkStealingExecutor& executor = *slot;
  auto body = [&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{executor.spawn(fail("seen")),
                                         executor.spawn(fail("unseen"))};
    auto result = co_await wait(std::move(handles));
    EXPECT_EQ(what_of(result.done[0].result().error()), "seen");
  };
  executor.run(body());
  // By whoever lets go of the task last, perhaps the worker on which it ended.
  EXPECT_TRUE(eventually([&] { return reported.load() == 1; }));
  slot.reset();
  EXPECT_EQ(reported.load(), 1);
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(Wait, CancellingItEndsTheWaitAlone) {  // B122
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(2s, 1), in(3s, 2)};
    const auto waited = co_await try_timeout(wait(handles), 1s);
    EXPECT_TRUE(waited.is_timeout());
    EXPECT_EQ(machine.elapsed(), 1s);
    auto rest = co_await wait(handles);
    EXPECT_EQ(rest.done.size(), 2u);
    EXPECT_EQ(rest.done[1].result().value(), 2);
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(Wait, IsACancellationPointAlsoWhenEverythingIsDone) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(1s)};
    (void)co_await wait(handles);
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("now");
      const auto done = co_await as_result(wait(handles));
      EXPECT_EQ(reason_of(done.error()).message, "now");
      const auto polled = co_await as_result(wait(handles, ReturnWhen::first_completed, 0s));
      EXPECT_TRUE(polled.is_cancelled());
      std::vector<JoinHandle<int>> none;
      const auto misused = co_await as_result(wait(none));  // misuse is said in any scope
      EXPECT_TRUE(is<std::invalid_argument>(misused.error()));
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
  });
}

TEST_ON_THREADS(Wait, OuterDeadlineGoesBeforeItsOwn) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(9s)};
    const auto waited =
        co_await as_result(timeout(wait(handles, ReturnWhen::all_completed, 5s), 1s));
    EXPECT_TRUE(waited.is_timeout());
    EXPECT_EQ(machine.elapsed(), 1s);
    const auto inner = co_await timeout(wait(handles, ReturnWhen::all_completed, 1s), 5s);
    EXPECT_EQ(inner.pending, handles);
  });
}

TEST_ON_THREADS(Wait, CanBeAContestantAndAChild) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{in(2s)};
    auto first = co_await race(wait(handles), sleep_for(1s));
    EXPECT_EQ(first.index, 1u);
    auto kept = wait(handles);  // a value: it may be kept before it is awaited
    auto moved = std::move(kept);
    auto both = co_await gather(std::move(moved), wait(handles, ReturnWhen::first_completed));
    EXPECT_EQ(std::get<0>(both).done, handles);
    EXPECT_EQ(std::get<1>(both).done, handles);
  });
}

TEST_ON_THREADS(Wait, WaitsForAGroupsChildren) {
  machine.run([&]() -> Task<> {
    co_await task_group([&](TaskGroup& group) -> Task<> {
      std::vector<JoinHandle<int>> handles{group.spawn(give_after(1s, 1)),
                                           group.spawn(give_after(2s, 2))};
      auto first = co_await wait(handles, ReturnWhen::first_completed);
      EXPECT_EQ(first.done, std::vector{handles[0]});
    });
  });
}

TEST_ON_THREADS(Wait, OneHundredThousandTasks) {
  const std::size_t n = scaled(100'000);
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles;
    handles.reserve(n);
    for (std::size_t i = 0; i < n; ++i) handles.push_back(in(std::chrono::microseconds(1 + i % 7)));
    auto first = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_EQ(first.done.size() + first.pending.size(), n);
    EXPECT_FALSE(first.done.empty());
    auto none = co_await wait(handles, ReturnWhen::first_exception, 1ns);
    EXPECT_EQ(none.done.size() + none.pending.size(), n);
    auto all = co_await wait(handles);
    EXPECT_EQ(all.done, handles);
  });
}

TEST(WaitOnTbb, Works) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  auto body = [&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{executor.spawn(give_after(1ms, 1)),
                                         executor.spawn(never()), executor.spawn(give(2))};
    auto first = co_await wait(handles, ReturnWhen::first_completed);
    EXPECT_GE(first.done.size(), 1u);
    auto timed = co_await wait(handles, ReturnWhen::all_completed, 20ms);
    EXPECT_EQ(timed.pending, std::vector{handles[1]});
  };
  executor.run(body());
}

// --- in every order ------------------------------------------------------------------------------

// Tasks that end, fail, are cancelled, and a waiter that is cancelled or timed out, all within a
// few steps.
TEST(WaitInEveryOrder, GivesWhatIsTrue) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& simulator) {
    auto body = [&]() -> Task<> {
      auto steps = [](int n, bool fails) -> Task<int> {
        for (int i = 0; i < n; ++i) co_await this_task::yield();
        if (fails) throw std::runtime_error("failed");
        co_return n;
      };
      for (const ReturnWhen when :
           {ReturnWhen::first_completed, ReturnWhen::first_exception, ReturnWhen::all_completed}) {
        std::vector<JoinHandle<int>> handles{spawn(steps(2, false)), spawn(steps(1, true)),
                                             spawn(steps(3, false)), spawn(steps(2, false))};
        handles.push_back(handles[1]);
        CancellationSource source;
        auto meddle = [&]() -> Task<> {
          co_await this_task::yield();
          handles[2].cancel();
          co_await this_task::yield();
          source.cancel();
        };
        JoinHandle<void> meddler = spawn(meddle());
        const auto waited = co_await as_result(with_token(source.token(), wait(handles, when)));
        if (waited) {
          const WaitResult<int>& result = waited.value();
          bool failed = false;
          for (const JoinHandle<int>& handle : result.done) {
            must(handle.done(), "a task in `done` runs");
            failed = failed || (!handle.result() && !handle.cancelled());
          }
          must(result.done.size() + result.pending.size() == 5, "a handle was lost");
          if (when == ReturnWhen::first_completed)
            must(!result.done.empty(), "it returned without a reason");
          if (when == ReturnWhen::first_exception)
            must(failed || result.pending.empty(), "it returned without an error");
          if (when == ReturnWhen::all_completed)
            must(result.pending.empty(), "it returned too early");
        } else {
          must(waited.is_cancelled() && source.cancelled(), "it was cancelled by nobody");
        }
        co_await meddler;
        auto rest = co_await wait(handles);
        must(rest.pending.empty(), "not all ended");
        must(what_of(handles[1].result().error()) == "failed", "an error was lost");
        must(handles[0].result().value() == 2, "a task was cancelled that nobody cancelled");
      }
    };
    simulator.run(body());
  });
}

TEST(WaitInEveryOrder, LeavesNothingBehindInADeadlock) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Event never_set;
    testing::SimulatedExecutor simulator(seed);
    auto stuck = [&]() -> Task<> { co_await uncancellable(never_set.wait()); };
    auto body = [&]() -> Task<> {
      std::vector<JoinHandle<void>> handles{spawn(stuck()), spawn(stuck())};
      (void)co_await uncancellable(wait(handles));
    };
    EXPECT_THROW(simulator.run(body()), testing::DeadlockError);
  }
}

// Real threads: tasks end on several workers while the waiter is cancelled from outside.
TEST(WaitAcrossThreads, EndsAndCancellationsMeet) {
  WorkStealingExecutor executor({.threads = 3});
  std::atomic<bool> stop{false};
  std::atomic<CancellationSource*> current{nullptr};
  std::atomic<std::size_t> used{0};
  std::thread canceller([&] {
    while (!stop.load()) {
      if (CancellationSource* const source = current.exchange(nullptr)) {
        source->cancel();
        ++used;
      }
      std::this_thread::yield();
    }
  });
  auto body = [&]() -> Task<> {
    std::size_t lent = 0;
    for (std::size_t round = 0; round < scaled(4000); ++round) {
      std::vector<JoinHandle<int>> handles;
      auto hop = [](std::size_t n) -> Task<int> {
        for (std::size_t i = 0; i < n; ++i) co_await this_task::yield();
        co_return 1;
      };
      for (std::size_t i = 0; i < 6; ++i)
        handles.push_back(executor.spawn(hop((i * 7 + round) % 4)));
      CancellationSource source;
      const bool lends = round % 3 != 0;
      if (lends) current.store(&source);
      const auto when = static_cast<ReturnWhen>(round % 3);
      const auto waited = co_await as_result(with_token(source.token(), wait(handles, when, 1ms)));
      CancellationSource* expected = &source;
      if (lends && !current.compare_exchange_strong(expected, nullptr)) {
        ++lent;
        // It is being used, also after it shows itself cancelled.
        while (used.load() != lent) co_await this_task::yield();
        EXPECT_TRUE(source.cancelled());
      }
      const bool whole =
          !waited || waited.value().done.size() + waited.value().pending.size() == handles.size();
      EXPECT_TRUE(whole);
      int sum = 0;
      for (JoinHandle<int>& handle : handles) sum += co_await handle;
      EXPECT_EQ(sum, 6);
    }
  };
  executor.run(body());
  stop.store(true);
  canceller.join();
}

}  // namespace
}  // namespace magpie
