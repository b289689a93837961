// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// as_completed: what it gives when, its timeout, several consumers, and what it takes.

#include <magpie/as_completed.h>

#include <list>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

/// Tasks that give their number after so many seconds.
template <class... Seconds>
std::vector<Task<int>> after(Seconds... seconds) {
  std::vector<Task<int>> tasks;
  int number = 0;
  (tasks.push_back(give_after(std::chrono::seconds(seconds), number++)), ...);
  return tasks;
}

class AsCompleted : public OnMachine {};

TEST_ON_THREADS(AsCompleted, GivesResultsInTheOrderInWhichTheyCome) {  // B124
  machine.run([&]() -> Task<> {
    std::vector<std::size_t> order;
    const int sum =
        co_await as_completed(after(3, 1, 4, 2), [&](CompletionStream<int>& stream) -> Task<int> {
          int values = 0;
          for (auto next = co_await stream.next(); next; next = co_await stream.next()) {
            EXPECT_EQ(static_cast<std::size_t>(next->value.value()), next->index);
            order.push_back(next->index);
            values += next->value.value();
            EXPECT_EQ(machine.elapsed(), std::chrono::seconds(order.size()));
          }
          auto again = co_await stream.next();
          EXPECT_FALSE(again.has_value());
          co_return values;
        });
    EXPECT_EQ(sum, 6);
    EXPECT_EQ(order, (std::vector<std::size_t>{1, 3, 0, 2}));
  });
  EXPECT_EQ(machine.elapsed(), 4s);
}

TEST_ON_THREADS(AsCompleted, GivesWhatFinishedMeanwhileInItsOrder) {  // B125
  machine.run([&]() -> Task<> {
    std::vector<std::size_t> order;
    co_await as_completed(after(3, 1, 2), [&](CompletionStream<int>& stream) -> Task<> {
      co_await sleep_for(5s);
      for (auto next = co_await stream.next(); next; next = co_await stream.next())
        order.push_back(next->index);
    });
    EXPECT_EQ(order, (std::vector<std::size_t>{1, 2, 0}));
  });
  EXPECT_EQ(machine.elapsed(), 5s);
}

TEST_ON_THREADS(AsCompleted, AnErrorComesAtItsTurnAndStopsNothing) {  // B130
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(give_after(3s, 3));
    tasks.push_back(fail_after(2s, "oops"));
    tasks.push_back(cancel_itself("mine"));
    co_await as_completed(std::move(tasks), [&](CompletionStream<int>& stream) -> Task<> {
      auto first = co_await stream.next();
      EXPECT_EQ(first->index, 2u);
      EXPECT_TRUE(first->value.is_cancelled());
      EXPECT_EQ(reason_of(first->value.error()).message, "mine");
      auto second = co_await stream.next();
      EXPECT_EQ(second->index, 1u);
      EXPECT_EQ(what_of(second->value.error()), "oops");
      auto third = co_await stream.next();
      EXPECT_EQ(third->value.value(), 3);
    });
  });
}

TEST_ON_THREADS(AsCompleted, AllMayFail) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 20; ++i) tasks.push_back(fail("all of them"));
    int failures = 0;
    co_await as_completed(std::move(tasks), [&](CompletionStream<int>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next())
        failures += next->value.is_error();
    });
    EXPECT_EQ(failures, 20);
  });
}

TEST_ON_THREADS(AsCompleted, OfNothingGivesNothing) {  // B116
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> none;
    const int answer =
        co_await as_completed(std::move(none), [&](CompletionStream<int>& stream) -> Task<int> {
          auto next = co_await stream.next();
          EXPECT_FALSE(next.has_value());
          co_return 5;
        });
    EXPECT_EQ(answer, 5);
    std::vector<Task<int>> timed;
    co_await as_completed(std::move(timed), 0s, [&](CompletionStream<int>& stream) -> Task<> {
      auto next = co_await stream.next();
      EXPECT_FALSE(next.has_value());
    });
  });
}

TEST_ON_THREADS(AsCompleted, OneAlone) {
  machine.run([&]() -> Task<> {
    co_await as_completed(after(1), [&](CompletionStream<int>& stream) -> Task<> {
      auto next = co_await stream.next();
      EXPECT_EQ(next->index, 0u);
      next = co_await stream.next();
      EXPECT_FALSE(next.has_value());
    });
  });
}

// --- the timeout ---------------------------------------------------------------------------------

TEST_ON_THREADS(AsCompleted,
                PastTheTimeoutWhatHasFinishedComesFirstThenTimeoutErrorThenNothing) {  // B126
  machine.run([&]() -> Task<> {
    co_await as_completed(after(1, 2, 9, 3, 8), 5s, [&](CompletionStream<int>& stream) -> Task<> {
      auto first = co_await stream.next();
      EXPECT_EQ(first->index, 0u);
      co_await sleep_for(5s);  // the time is over: 6 s
      auto second = co_await stream.next();
      EXPECT_EQ(second->index, 1u);
      auto third = co_await stream.next();
      EXPECT_EQ(third->index, 3u);
      for (int i = 0; i < 3; ++i) {
        const auto late = co_await as_result(stream.next());
        EXPECT_TRUE(late.is_timeout());
        EXPECT_FALSE(what_of(late.error()).empty());
      }
      EXPECT_EQ(machine.elapsed(), 6s);
      co_await sleep_for(2500ms);  // 8.5 s: one more has finished
      auto fourth = co_await stream.next();
      EXPECT_EQ(fourth->index, 4u);
      const auto still = co_await as_result(stream.next());
      EXPECT_TRUE(still.is_timeout());
      co_await sleep_for(1s);
      auto fifth = co_await stream.next();
      EXPECT_EQ(fifth->index, 2u);
      auto none = co_await stream.next();
      EXPECT_FALSE(none.has_value());
    });
  });
  EXPECT_EQ(machine.elapsed(), 9500ms);
}

TEST_ON_THREADS(AsCompleted, WhoWaitsAtTheTimeoutGetsTimeoutErrorExactlyThen) {
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks = after(1, 2);
    tasks.push_back(watched(ended, why));
    auto body = [&](CompletionStream<int>& stream) -> Task<int> {
      int seen = 0;
      for (auto next = co_await stream.next(); next; next = co_await stream.next()) ++seen;
      co_return seen;
    };
    const auto result = co_await as_result(as_completed(std::move(tasks), 2500ms, body));
    EXPECT_TRUE(result.is_timeout());
    EXPECT_EQ(machine.elapsed(), 2500ms);
    EXPECT_TRUE(ended);
  });
}

TEST_ON_THREADS(AsCompleted, TheTimeoutCancelsNoTask) {
  machine.run([&]() -> Task<> {
    co_await as_completed(after(3), 1s, [&](CompletionStream<int>& stream) -> Task<> {
      const auto late = co_await as_result(stream.next());
      EXPECT_TRUE(late.is_timeout());
      co_await sleep_for(5s);
      auto next = co_await stream.next();
      EXPECT_EQ(next->value.value(), 0);
    });
  });
}

TEST_ON_THREADS(AsCompleted, ATimeoutThatIsNotNeededIsForgotten) {  // B127
  machine.run([&]() -> Task<> {
    co_await as_completed(after(1, 2), 1h, [&](CompletionStream<int>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next()) {
      }
      EXPECT_EQ(executor.stats().pending_timers, 0u);
    });
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(AsCompleted, ATimeoutOfNothingIsOverAtOnce) {
  machine.run([&]() -> Task<> {
    for (const Duration limit : {Duration(0s), Duration(-1s)}) {
      co_await as_completed(after(1), limit, [&](CompletionStream<int>& stream) -> Task<> {
        const auto late = co_await as_result(stream.next());
        EXPECT_TRUE(late.is_timeout());
        co_await sleep_for(2s);
        auto next = co_await stream.next();
        EXPECT_TRUE(next.has_value());
      });
    }
    co_await as_completed(after(1), Duration::never(),
                          [&](CompletionStream<int>& stream) -> Task<> {
                            auto next = co_await stream.next();
                            EXPECT_TRUE(next.has_value());
                          });
    co_await as_completed(after(1), std::nullopt, [&](CompletionStream<int>& stream) -> Task<> {
      auto next = co_await stream.next();
      EXPECT_TRUE(next.has_value());
    });
  });
}

// --- several consumers ---------------------------------------------------------------------------

TEST_ON_THREADS(AsCompleted, SeveralCoroutinesMayAskAtOnce) {  // B128
  machine.run([&]() -> Task<> {
    std::vector<int> seen(40);
    int nothing = 0;
    Event all_wait;
    std::vector<Task<int>> tasks;
    auto wait_and_give = [&](int i) -> Task<int> {
      co_await all_wait.wait();
      co_return i;
    };
    for (int i = 0; i < 40; ++i) tasks.push_back(wait_and_give(i));
    co_await as_completed(std::move(tasks), [&](CompletionStream<int>& stream) -> Task<> {
      auto one = [&]() -> Task<std::optional<Indexed<Result<int>>>> {
        co_return co_await stream.next();
      };
      std::vector<Task<std::optional<Indexed<Result<int>>>>> consumers;
      for (int i = 0; i < 50; ++i) consumers.push_back(one());
      auto open = [&]() -> Task<std::optional<Indexed<Result<int>>>> {
        co_await sleep_for(1s);
        all_wait.set();
        co_return std::nullopt;
      };
      consumers.push_back(open());
      auto got = co_await gather(std::move(consumers));
      for (auto& item : got) {
        if (item) {
          ++seen[item->index];
        } else {
          ++nothing;
        }
      }
    });
    EXPECT_EQ(seen, std::vector<int>(40, 1));
    EXPECT_EQ(nothing, 11);
  });
}

TEST_ON_THREADS(AsCompleted, AllWhoWaitAtTheTimeoutHearOfIt) {
  machine.run([&]() -> Task<> {
    co_await as_completed(after(9), 1s, [&](CompletionStream<int>& stream) -> Task<> {
      auto all = co_await gather(return_exceptions, stream.next(), stream.next(), stream.next());
      EXPECT_TRUE(std::get<0>(all).is_timeout());
      EXPECT_TRUE(std::get<1>(all).is_timeout());
      EXPECT_TRUE(std::get<2>(all).is_timeout());
    });
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

// --- what it takes -------------------------------------------------------------------------------

TEST_ON_THREADS(AsCompleted, AwkwardValues) {
  int object = 0;
  machine.run([&]() -> Task<> {
    auto move_only = [](int v) -> Task<MoveOnly> { co_return MoveOnly(v); };
    std::vector<Task<MoveOnly>> movers;
    movers.push_back(move_only(3));
    const MoveOnly moved = co_await as_completed(
        std::move(movers), [&](CompletionStream<MoveOnly>& stream) -> Task<MoveOnly> {
          auto next = co_await stream.next();
          co_return std::move(next->value).value();
        });
    EXPECT_EQ(moved.value(), 3);

    auto no_default = [](int v) -> Task<NoDefault> { co_return NoDefault(v); };
    std::vector<Task<NoDefault>> plain;
    plain.push_back(no_default(4));
    co_await as_completed(std::move(plain), [&](CompletionStream<NoDefault>& stream) -> Task<> {
      auto next = co_await stream.next();
      EXPECT_EQ(next->value.value().value, 4);
    });

    std::vector<Task<std::string>> texts;  // a type that brings namespace std into every call
    texts.push_back(give_text("text"));
    co_await as_completed(std::move(texts), [&](CompletionStream<std::string>& stream) -> Task<> {
      auto next = co_await stream.next();
      EXPECT_EQ(next->value.value(), "text");
    });

    std::vector<Task<>> voids;
    voids.push_back(nothing());
    co_await as_completed(std::move(voids), [&](CompletionStream<void>& stream) -> Task<> {
      auto next = co_await stream.next();
      static_assert(std::is_same_v<decltype(next), std::optional<Indexed<Result<void>>>>);
      EXPECT_TRUE(next->value.has_value());
    });

    auto refer = [&]() -> Task<int&> { co_return object; };
    std::vector<Task<int&>> references;
    references.push_back(refer());
    int& same = co_await as_completed(std::move(references),
                                      [&](CompletionStream<int&>& stream) -> Task<int&> {
                                        auto next = co_await stream.next();
                                        co_return next->value.value();
                                      });
    EXPECT_EQ(&same, &object);
  });
}

TEST_ON_THREADS(AsCompleted, TakesHandlesOperationsCallablesAndOtherRanges) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{executor.spawn(give_after(9s, 0)),
                                         executor.spawn(give_after(1s, 1)),
                                         executor.spawn(give(2))};
    co_await sleep_for(500ms);
    std::vector<std::size_t> order;
    co_await as_completed(handles, [&](CompletionStream<int>& stream) -> Task<> {
      for (int i = 0; i < 2; ++i) {
        auto next = co_await stream.next();
        order.push_back(next->index);
      }
    });
    EXPECT_EQ(order, (std::vector<std::size_t>{2, 1}));
    const int zero = co_await handles[0];  // the task behind a handle went on
    EXPECT_EQ(zero, 0);

    co_await as_completed(std::list<Task<int>>(),
                          [](CompletionStream<int>&) -> Task<> { co_return; });
    auto sleeps = std::views::iota(1, 4) | std::views::transform([](int i) {
                    return sleep_for(std::chrono::seconds(4 - i));
                  });
    order.clear();
    co_await as_completed(sleeps, [&](CompletionStream<void>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next())
        order.push_back(next->index);
    });
    EXPECT_EQ(order, (std::vector<std::size_t>{2, 1, 0}));

    auto callable = [] { return 5; };
    std::vector<decltype(callable)> callables(3, callable);
    int sum = 0;
    co_await as_completed(std::move(callables), [&](CompletionStream<int>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next())
        sum += next->value.value();
    });
    EXPECT_EQ(sum, 15);
  });
}

TEST_ON_THREADS(AsCompleted, GivesTheBodysResultAndCanBeKeptBeforeItIsAwaited) {
  machine.run([&]() -> Task<> {
    auto body = [](CompletionStream<int>& stream) -> Task<std::unique_ptr<int>> {
      auto next = co_await stream.next();
      co_return std::make_unique<int>(next->value.value());
    };
    auto kept = as_completed(after(1), body);
    auto moved = std::move(kept);
    const std::unique_ptr<int> value = co_await std::move(moved);
    EXPECT_EQ(*value, 0);
    auto both = co_await gather(as_completed(after(1), body), as_completed(after(2), body));
    EXPECT_EQ(*std::get<1>(both), 0);
  });
}

TEST_ON_THREADS(AsCompleted, ComesHomeFromOtherExecutors) {
  WorkStealingExecutor other({.threads = 2});
  machine.run([&]() -> Task<> {
    auto away = [&](int v) -> Task<int> {
      co_await resume_on(other);
      co_return v;
    };
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 8; ++i) tasks.push_back(away(i));
    const int sum =
        co_await as_completed(std::move(tasks), [&](CompletionStream<int>& stream) -> Task<int> {
          int values = 0;
          for (auto next = co_await stream.next(); next; next = co_await stream.next())
            values += next->value.value();
          co_await resume_on(other);
          co_return values;
        });
    EXPECT_EQ(sum, 28);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(AsCompleted, OneHundredThousandTasks) {
  const std::size_t n = scaled(100'000);
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.reserve(n);
    for (std::size_t i = 0; i < n; ++i) {
      tasks.push_back(i % 2 == 0 ? give(1) : give_after(std::chrono::microseconds(i % 100), 1));
    }
    std::size_t seen = 0;
    co_await as_completed(std::move(tasks), 1h, [&](CompletionStream<int>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next())
        seen += next->value.has_value();
    });
    EXPECT_EQ(seen, n);

    std::vector<Task<int>> endless;
    for (std::size_t i = 0; i < n; ++i) endless.push_back(never());
    endless.push_back(give(1));
    const std::size_t index = co_await as_completed(
        std::move(endless), [&](CompletionStream<int>& stream) -> Task<std::size_t> {
          auto next = co_await stream.next();
          co_return next->index;
        });
    EXPECT_EQ(index, n);
  });
}

}  // namespace
}  // namespace magpie
