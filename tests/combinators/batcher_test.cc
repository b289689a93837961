// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (more of what batch_test shows)
// ctest-leave-out: asan (values and outcomes, what else there is: fault/everywhere_test)

// Batcher: what api.md, section 6, says of it.

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/batch.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class BatcherTest : public OnMachine {};

/// The calls that were made.
struct Calls {
  std::mutex mutex;
  std::vector<std::vector<int>> inputs;

  void note(const std::vector<int>& items) {
    std::lock_guard guard(mutex);
    inputs.push_back(items);
  }
  std::vector<std::size_t> sizes() {
    std::lock_guard guard(mutex);
    std::vector<std::size_t> all;
    for (const auto& items : inputs) all.push_back(items.size());
    return all;
  }
};

Task<std::vector<std::string>> as_texts(Calls& calls, std::vector<int> items, Duration work = {}) {
  calls.note(items);
  if (work != Duration()) co_await sleep_for(work);
  std::vector<std::string> texts;
  for (const int item : items) texts.push_back(std::to_string(item));
  co_return texts;
}

// --- when a call is made -------------------------------------------------------------------------

TEST_ON_THREADS(BatcherTest, FullCallIsMadeAtOnce) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items), 1s); };
  Batcher<int, std::string> batcher(3, 1h, fn);
  machine.run([&]() -> Task<> {
    auto [a, b, c] = co_await gather(batcher.submit(1), batcher.submit(2), batcher.submit(3));
    EXPECT_EQ(a + b + c, "123");
  });
  EXPECT_EQ(calls.sizes(), std::vector<std::size_t>{3});
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(BatcherTest, CallIsMadeWhenItsTimeHasCome) {  // B198
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  Batcher<int, std::string> batcher(100, 10ms, fn);
  machine.run([&]() -> Task<> {
    JoinHandle<std::string> one = executor.spawn(batcher.submit(1));
    co_await sleep_for(4ms);
    JoinHandle<std::string> two = executor.spawn(batcher.submit(2));
    const std::string first = co_await one;
    EXPECT_EQ(first, "1");
    EXPECT_EQ(machine.elapsed(), 10ms);  // counted from the opener
    const auto second = co_await two;
    EXPECT_EQ(second, "2");
    const std::string third = co_await batcher.submit(3);
    EXPECT_EQ(third, "3");
    EXPECT_EQ(machine.elapsed(), 20ms);
  });
  EXPECT_EQ(calls.inputs, (std::vector<std::vector<int>>{{1, 2}, {3}}));
}

TEST_ON_THREADS(BatcherTest, ItemsKeepTheOrderInWhichTheyCame) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  Batcher<int, std::string> batcher(4, 1h, fn);
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<std::string>> handles;
    for (int i = 0; i < 8; ++i) {
      handles.push_back(executor.spawn(batcher.submit(i)));
      co_await sleep_for(1us);
    }
    for (int i = 0; i < 8; ++i) {
      const std::string text = co_await handles[static_cast<std::size_t>(i)];
      EXPECT_EQ(text, std::to_string(i));
    }
  });
  EXPECT_EQ(calls.inputs, (std::vector<std::vector<int>>{{0, 1, 2, 3}, {4, 5, 6, 7}}));
}

TEST_ON_THREADS(BatcherTest, CallsMayOverlap) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items), 10s); };
  Batcher<int, std::string> batcher(1, 1h, fn);
  machine.run([&]() -> Task<> {
    co_await gather(batcher.submit(1), batcher.submit(2), batcher.submit(3));
  });
  EXPECT_EQ(calls.sizes().size(), 3u);
  EXPECT_EQ(machine.elapsed(), 10s);
}

TEST_ON_THREADS(BatcherTest, NoDelayAndDelayWithoutEnd) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  machine.run([&]() -> Task<> {
    Batcher<int, std::string> eager(100, 0s, fn);
    const std::string now = co_await eager.submit(1);
    EXPECT_EQ(now, "1");
    Batcher<int, std::string> patient(2, Duration::never(), fn);
    JoinHandle<std::string> first = executor.spawn(patient.submit(2));
    co_await sleep_for(24h * 365);
    EXPECT_FALSE(first.done());
    const std::string second = co_await patient.submit(3);
    EXPECT_EQ(second, "3");
    const auto opened = co_await first;
    EXPECT_EQ(opened, "2");
  });
  EXPECT_EQ(calls.inputs, (std::vector<std::vector<int>>{{1}, {2, 3}}));
}

TEST_ON_THREADS(BatcherTest, NumbersThatMakeNoSense) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  EXPECT_THROW((Batcher<int, std::string>(0, 1s, fn)), std::invalid_argument);
}

TEST_ON_THREADS(BatcherTest, SubmitsWhenItIsAwaited) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  Batcher<int, std::string> batcher(1, 1h, fn);
  machine.run([&]() -> Task<> {
    auto later = batcher.submit(1);
    auto never_awaited = batcher.submit(2);
    co_await sleep_for(1s);
    EXPECT_TRUE(calls.sizes().empty());
    const std::string text = co_await std::move(later);
    EXPECT_EQ(text, "1");
  });
  EXPECT_EQ(calls.sizes(), std::vector<std::size_t>{1});
}

// --- values and functions ------------------------------------------------------------------------

TEST_ON_THREADS(BatcherTest, EveryKindOfValue) {
  machine.run([&]() -> Task<> {
    auto unwrap = [](std::vector<MoveOnly> items) -> Task<std::vector<MoveOnly>> {
      for (MoveOnly& item : items) item = MoveOnly(item.value() + 1);
      co_return items;
    };
    Batcher<MoveOnly, MoveOnly> moves(2, 1s, unwrap);
    auto [one, two] = co_await gather(moves.submit(MoveOnly(1)), moves.submit(MoveOnly(2)));
    EXPECT_EQ(one.value() + two.value(), 5);
    auto fixed = [](std::vector<NoDefault> items) -> Task<std::vector<NoDefault>> {
      co_return items;
    };
    Batcher<NoDefault, NoDefault> without(1, 1s, fixed);
    NoDefault three = co_await without.submit(NoDefault(3));
    EXPECT_EQ(three.value, 3);
    auto flip = [](std::vector<bool> items) -> Task<std::vector<bool>> {
      items.flip();
      co_return items;
    };
    Batcher<bool, bool> bits(2, 1s, flip);
    auto [a, b] = co_await gather(bits.submit(true), bits.submit(false));
    EXPECT_FALSE(a);
    EXPECT_TRUE(b);
  });
}

TEST_ON_THREADS(BatcherTest, FunctionIsMovedInOrCopied) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    std::optional<Batcher<int, int>> batcher;
    {
      auto fn = [kept = Tracked(ledger)](std::vector<int> items) -> Task<std::vector<int>> {
        co_await sleep_for(1s);
        kept.touch();
        co_return items;
      };
      batcher.emplace(1, 1s, fn);
    }
    const int one = co_await batcher->submit(1);
    EXPECT_EQ(one, 1);
    JoinHandle<int> running = executor.spawn(batcher->submit(2));
    co_await sleep_for(500ms);
    batcher.reset();  // the call that runs keeps the function
    const auto kept_on = co_await running;
    EXPECT_EQ(kept_on, 2);
    auto unique = [owned =
                       std::make_unique<int>(5)](std::vector<int> items) -> Task<std::vector<int>> {
      for (int& item : items) item += *owned;
      co_return items;
    };
    Batcher<int, int> by_reference(1, 1s, unique);
    const int six = co_await by_reference.submit(1);
    EXPECT_EQ(six, 6);
    Batcher<int, int> moved(1, 1s, std::move(unique));
    const int seven = co_await moved.submit(2);
    EXPECT_EQ(seven, 7);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(BatcherTest, CallRunsAsARootTaskOfTheOpener) {
  WorkStealingExecutor other({.threads = 1});
  TaskLocal<int> local(0);
  machine.run([&]() -> Task<> {
    std::atomic<bool> here{false};
    std::atomic<int> seen{-1};
    auto fn = [&](std::vector<int> items) -> Task<std::vector<int>> {
      Executor& e = co_await this_task::executor();
      here = &e == &executor;
      seen = co_await local.get();
      const auto name = co_await this_task::name();
      EXPECT_EQ(name, "batch");
      const auto deadline = co_await this_task::deadline();
      EXPECT_EQ(deadline, std::nullopt);
      co_return items;
    };
    Batcher<int, int> batcher(2, 1h, fn);
    auto open = [&]() -> Task<int> { co_return co_await timeout(batcher.submit(1), 1min); };
    JoinHandle<int> opener = executor.spawn(local.with(7, open()));
    co_await sleep_for(1s);
    const int two = co_await on(other, batcher.submit(2));
    EXPECT_EQ(two, 2);
    const auto one = co_await opener;
    EXPECT_EQ(one, 1);
    EXPECT_TRUE(here.load());
    EXPECT_EQ(seen.load(), 7);
  });
}

// --- failures ------------------------------------------------------------------------------------

TEST_ON_THREADS(BatcherTest, ErrorGoesToEachSubmitter) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto fn = [&](std::vector<int>) -> Task<std::vector<int>> {
      if (++calls == 1) throw std::runtime_error("call");
      throw std::runtime_error("later");
      co_return {};
    };
    Batcher<int, int> batcher(2, 1s, fn);
    auto [a, b] = co_await gather(return_exceptions, batcher.submit(1), batcher.submit(2));
    EXPECT_EQ(what_of(a.error()), "call");
    EXPECT_EQ(what_of(b.error()), "call");
    Result<int> next = co_await as_result(batcher.submit(3));  // it goes on with the next call
    EXPECT_EQ(what_of(next.error()), "later");
    auto refuses = [](std::vector<int>) -> Task<std::vector<int>> {
      throw std::runtime_error("no task");
    };
    Batcher<int, int> refusing(1, 1s, refuses);
    Result<int> refused = co_await as_result(refusing.submit(1));
    EXPECT_EQ(what_of(refused.error()), "no task");
    auto cancels = [](std::vector<int>) -> Task<std::vector<int>> {
      throw CancelledError(CancelReason{CancelKind::requested, "the call"});
      co_return {};
    };
    Batcher<int, int> cancelling(1, 1s, cancels);
    Result<int> cancelled = co_await as_result(cancelling.submit(1));
    EXPECT_EQ(reason_of(cancelled.error()).message, "the call");
    co_await this_task::checkpoint();  // the submitter is not cancelled
  });
}

TEST_ON_THREADS(BatcherTest, WrongNumberOfOutputsIsALogicError) {
  machine.run([&]() -> Task<> {
    for (const std::size_t outputs : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
      auto fn = [&](std::vector<int>) -> Task<std::vector<int>> {
        co_return std::vector<int>(outputs, 1);
      };
      Batcher<int, int> batcher(2, 1s, fn);
      auto [a, b] = co_await gather(return_exceptions, batcher.submit(1), batcher.submit(2));
      EXPECT_TRUE(is<std::logic_error>(a.error())) << outputs;
      EXPECT_EQ(what_of(a.error()), what_of(b.error()));
    }
  });
}

TEST_ON_THREADS(BatcherTest, MovesThatThrowAreErrorsOfTheCall) {
  machine.run([&]() -> Task<> {
    static std::atomic<int> moves{0};
    moves = 0;
    struct Bomb {
      Bomb() = default;
      Bomb(Bomb&&) {
        if (++moves == 12) throw std::runtime_error("moved");
      }
    };
    auto fn = [](std::vector<Bomb> items) -> Task<std::vector<int>> {
      co_return std::vector<int>(items.size(), 1);
    };
    Batcher<Bomb, int> batcher(4, 1s, fn);
    auto one = [&]() -> Task<int> { co_return co_await batcher.submit(Bomb()); };
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 4; ++i) tasks.push_back(one());
    std::vector<Result<int>> results = co_await gather(return_exceptions, std::move(tasks));
    int failed = 0;
    for (const auto& r : results) {
      if (!r.has_value()) {
        ++failed;
        EXPECT_EQ(what_of(r.error()), "moved");
      }
    }
    EXPECT_GT(failed, 0);
  });
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(BatcherTest, CancelledSubmitterLeavesACallThatHasNotStarted) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  Batcher<int, std::string> batcher(10, 1s, fn);
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<std::string>> handles;
    for (int i = 0; i < 4; ++i) {
      handles.push_back(executor.spawn(batcher.submit(i)));
      co_await sleep_for(1ms);
    }
    handles[0].cancel();  // the opener, too
    handles[2].cancel();
    Result<std::string> gone = co_await as_result(handles[2]);
    EXPECT_TRUE(gone.is_cancelled());
    const auto stayed = co_await handles[1];
    EXPECT_EQ(stayed, "1");
    const auto last = co_await handles[3];
    EXPECT_EQ(last, "3");
    EXPECT_EQ(machine.elapsed(), 1s);
  });
  EXPECT_EQ(calls.inputs, (std::vector<std::vector<int>>{{1, 3}}));
}

TEST_ON_THREADS(BatcherTest, EmptyCallIsNotMadeAndTheNextOneHasItsOwnDelay) {  // B198
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  Batcher<int, std::string> batcher(10, 1s, fn);
  machine.run([&]() -> Task<> {
    Result<std::string> late = co_await try_timeout(batcher.submit(1), 900ms);
    EXPECT_TRUE(late.is_timeout());
    const auto next = co_await batcher.submit(2);
    EXPECT_EQ(next, "2");
    EXPECT_EQ(machine.elapsed(), 1900ms);
  });
  EXPECT_EQ(calls.inputs, (std::vector<std::vector<int>>{{2}}));
  EXPECT_TRUE(eventually([&] { return executor.stats().live_tasks == 0; }));
}

TEST_ON_THREADS(BatcherTest, CancelledSubmitterOfACallThatRunsDropsItsResult) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items), 1s); };
  Batcher<int, std::string> batcher(2, 1h, fn);
  machine.run([&]() -> Task<> {
    JoinHandle<std::string> one = executor.spawn(batcher.submit(1));
    JoinHandle<std::string> two = executor.spawn(batcher.submit(2));
    co_await sleep_for(500ms);
    one.cancel("enough");
    Result<std::string> r = co_await as_result(one);
    EXPECT_EQ(reason_of(r.error()).message, "enough");
    EXPECT_EQ(machine.elapsed(), 500ms);
    const auto other = co_await two;
    EXPECT_EQ(other, "2");  // the call goes on
  });
  EXPECT_EQ(calls.sizes(), std::vector<std::size_t>{2});
}

TEST_ON_THREADS(BatcherTest, NothingIsSubmittedInACancelledScope) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items)); };
  Batcher<int, std::string> batcher(1, 1s, fn);
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await batcher.submit(1);
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    co_await sleep_for(10s);
  });
  EXPECT_TRUE(calls.sizes().empty());
}

// --- ends ----------------------------------------------------------------------------------------

TEST_ON_THREADS(BatcherTest, SubmittersLeftWhenItDiesGetABrokenPromise) {
  Calls calls;
  auto fn = [&](std::vector<int> items) { return as_texts(calls, std::move(items), 1s); };
  auto batcher = std::make_unique<Batcher<int, std::string>>(2, 1h, fn);
  machine.run([&]() -> Task<> {
    JoinHandle<std::string> first = executor.spawn(batcher->submit(1));
    JoinHandle<std::string> second = executor.spawn(batcher->submit(2));
    co_await sleep_for(1ms);
    JoinHandle<std::string> left = executor.spawn(batcher->submit(3));
    auto unawaited = batcher->submit(4);
    co_await sleep_for(1ms);
    batcher.reset();
    Result<std::string> broken = co_await as_result(left);
    EXPECT_TRUE(is<BrokenPromiseError>(broken.error()));
    EXPECT_EQ(machine.elapsed(), 2ms);
    Result<std::string> too_late = co_await as_result(std::move(unawaited));
    EXPECT_TRUE(is<BrokenPromiseError>(too_late.error()));
    const auto one = co_await first;
    EXPECT_EQ(one, "1");  // that call had started
    const auto two = co_await second;
    EXPECT_EQ(two, "2");
  });
  EXPECT_EQ(calls.sizes(), std::vector<std::size_t>{2});
  EXPECT_TRUE(eventually([&] { return executor.stats().live_tasks == 0; }));
}

bool waits_for_its_answer(const Executor& executor) {
  std::ostringstream dump;
  executor.dump_tasks(dump);
  return dump.str().find("a future") != std::string::npos;
}

TEST(BatcherEnds, WithTheExecutorOfItsOpener) {
  WorkStealingExecutor mine({.threads = 1});
  std::atomic<int> called{0};
  auto fn = [&](std::vector<int> items) -> Task<std::vector<int>> {
    ++called;
    co_return items;
  };
  Batcher<int, int> batcher(10, 1h, fn);
  JoinHandle<int> here;
  {
    WorkStealingExecutor theirs({.threads = 1});
    JoinHandle<int> opener = theirs.spawn(batcher.submit(1));
    EXPECT_TRUE(eventually([&] { return theirs.stats().live_tasks == 2; }));  // it has opened
    here = mine.spawn(batcher.submit(2));
    EXPECT_TRUE(eventually([&] { return waits_for_its_answer(mine); }));
  }
  const Result<int>& r = here.wait();  // the call's task is cancelled: nobody waits for ever
  EXPECT_TRUE(r.is_cancelled());
  EXPECT_EQ(called.load(), 0);
  // The next one opens another call, where it lives.
  JoinHandle<int> again = mine.spawn(batcher.submit(3));
  EXPECT_TRUE(eventually([&] { return waits_for_its_answer(mine); }));
  EXPECT_FALSE(again.done());
  again.cancel();
  EXPECT_TRUE(again.wait().is_cancelled());
}

TEST_ON_THREADS(BatcherTest, HundredThousandItems) {
  const int many = static_cast<int>(scaled(100'000));
  std::atomic<int> calls{0};
  auto fn = [&](std::vector<int> items) -> Task<std::vector<int>> {
    ++calls;
    for (int& item : items) item *= 2;
    co_return items;
  };
  Batcher<int, int> batcher(100, 1s, fn);
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < many; ++i) tasks.push_back(batcher.submit(i));
    const std::vector<int> all = co_await gather(std::move(tasks));
    for (int i = 0; i < many; ++i) EXPECT_EQ(all[static_cast<std::size_t>(i)], 2 * i);
  });
  EXPECT_EQ(calls.load(), (many + 99) / 100);
}

// --- at any moment -------------------------------------------------------------------------------

// Submissions that come, leave and are answered: each gets its own result, and each item is given
// to one call at most.
template <class E>
void submit_and_cancel(E& executor, std::uint64_t seed) {
  Ledger ledger;
  std::mutex mutex;
  std::vector<int> given;
  struct Item {
    int number;
    Tracked tracked;
  };
  auto fn = [&](std::vector<Item> items) -> Task<std::vector<int>> {
    std::vector<int> numbers;
    for (const Item& item : items) {
      item.tracked.touch();
      numbers.push_back(item.number);
    }
    {
      std::lock_guard guard(mutex);
      given.insert(given.end(), numbers.begin(), numbers.end());
    }
    co_await this_task::yield();
    if (numbers.front() % 5 == 4) throw std::runtime_error("call");
    co_return numbers;
  };
  auto main = [&]() -> Task<> {
    auto batcher = std::make_unique<Batcher<Item, int>>(3, 2us, fn);
    detail::Random random(seed);
    std::vector<JoinHandle<int>> handles;
    for (int i = 0; i < 10; ++i) {
      handles.push_back(spawn(batcher->submit(Item{i, Tracked(ledger)})));
      if (random.below(2) == 0) co_await this_task::yield();
      if (random.below(3) == 0) handles[random.below(handles.size())].cancel();
      if (random.below(8) == 0) co_await sleep_for(std::chrono::microseconds(random.below(4)));
    }
    if (random.below(3) == 0) batcher.reset();
    int answered = 0;
    for (int i = 0; i < 10; ++i) {
      Result<int> r = co_await as_result(handles[static_cast<std::size_t>(i)]);
      if (r.has_value()) {
        EXPECT_EQ(r.value(), i);
        ++answered;
      } else if (!r.is_cancelled() && !is<BrokenPromiseError>(r.error())) {
        EXPECT_EQ(what_of(r.error()), "call");
      }
    }
    batcher.reset();
    std::lock_guard guard(mutex);
    std::sort(given.begin(), given.end());
    EXPECT_TRUE(std::adjacent_find(given.begin(), given.end()) == given.end());
    EXPECT_LE(answered, static_cast<int>(given.size()));
  };
  executor.run(main());
  // A call whose submitters were all cancelled runs on.
  EXPECT_TRUE(eventually([&] { return executor.stats().live_tasks == 0; }));
}

TEST(BatcherInASimulation, EveryScheduleIsRight) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& executor) {
    submit_and_cancel(executor, executor.seed());
    if (::testing::Test::HasFailure()) throw std::runtime_error("see above");
  });
}

TEST(BatcherAcrossThreads, SubmittersComeAndGo) {
  WorkStealingExecutor workers({.threads = 3});
  for (std::uint64_t i = 0; i < scaled(2000); ++i) submit_and_cancel(workers, i);
}

}  // namespace
}  // namespace magpie
