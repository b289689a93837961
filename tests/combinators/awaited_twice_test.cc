// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (refused before anything begins)

// Misuse: awaitables that were moved from, or awaited before, are refused with a sentence. What
// takes nothing away with it, such as an operation of a primitive, may be awaited again.

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_completed.h>
#include <magpie/as_result.h>
#include <magpie/barrier.h>
#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/chain.h>
#include <magpie/channel.h>
#include <magpie/condition.h>
#include <magpie/gather.h>
#include <magpie/hedge.h>
#include <magpie/limited.h>
#include <magpie/parallel.h>
#include <magpie/race.h>
#include <magpie/rate_limiter.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/timeout.h>

#include <support/machine.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::give;
using test::give_text;
using test::nothing;

class AwaitedTwice : public test::OnMachine {
 protected:
  // Makes an awaitable, awaits it, and awaits it again.
  template <class F>
  void refuses_a_second_await(F&& make) {
    auto body = [&]() -> Task<> {
      auto awaitable = make();
      (void)co_await awaitable;
      std::string what;
      try {
        (void)co_await awaitable;
      } catch (const std::logic_error& error) {
        what = error.what();
      }
      EXPECT_NE(what.find("awaited before"), std::string::npos) << what;
      co_await nothing();
    };
    executor.run(body());
  }
  // In a scope that is cancelled it starts nothing, and gives its children up.
  template <class F>
  void is_spent_where_it_was_refused(F&& make) {
    auto awaited = [](auto& awaitable) -> Task<> { (void)co_await awaitable; };
    auto body = [&]() -> Task<> {
      co_await cancel_scope([&](CancelScope& scope) -> Task<> {
        scope.cancel();
        auto awaitable = make();
        const Result<void> refused = co_await as_result(awaited(awaitable));
        EXPECT_TRUE(refused.is_cancelled());
        auto again = uncancellable(awaited(awaitable));
        const Result<void> spent = co_await as_result(std::move(again));
        EXPECT_THROW(spent.value(), std::logic_error);
      });
    };
    executor.run(body());
  }
  template <class F>
  void refuses_what_was_moved_from(F&& make) {
    auto body = [&]() -> Task<> {
      auto awaitable = make();
      auto other = std::move(awaitable);
      EXPECT_THROW((void)co_await std::move(awaitable), std::logic_error);
      (void)co_await std::move(other);  // has it all
    };
    executor.run(body());
  }
  // Makes an awaitable, awaits it where a cancellation refuses it, and awaits it again under a
  // mask: it is refused as awaited before, or runs and gives its value.
  template <class F>
  void runs_or_is_refused_after_a_refusal(F&& make) {
    auto body = [&](CancelScope& scope) -> Task<int> {
      auto awaitable = make();
      auto once = [&]() -> Task<> { (void)co_await awaitable; };
      scope.cancel();
      const Result<void> refused = co_await as_result(once());
      EXPECT_TRUE(refused.is_cancelled());
      auto masked = uncancellable(once());
      const Result<void> again = co_await as_result(std::move(masked));
      EXPECT_FALSE(again.is_cancelled());
      if (!again) {
        EXPECT_THROW(again.value(), std::logic_error);
      }
      co_return 1;
    };
    auto in_a_scope = [&]() -> Task<> {
      const Result<int> ended = co_await cancel_scope(body);
      EXPECT_TRUE(ended.has_value());
    };
    executor.run(in_a_scope());
  }
};

std::vector<Task<std::string>> texts() {
  std::vector<Task<std::string>> tasks;
  for (int i = 0; i < 3; ++i) tasks.push_back(give_text(std::string(40, 'x')));
  return tasks;
}

TEST_ON_THREADS(AwaitedTwice, GathersAreRefused) {
  refuses_a_second_await([] { return gather(give(1), give(2)); });
  refuses_a_second_await([] { return gather(give_text("a"), sleep_for(1s)); });
  refuses_a_second_await([] { return gather(sleep_for(1s), sleep_for(2s)); });
  refuses_a_second_await(
      [] { return gather([] { return std::string(40, 'x'); }, [] { return 1; }); });
  refuses_a_second_await([] { return gather(return_exceptions, give(1), give_text("b")); });
  refuses_a_second_await([] { return gather(texts()); });
  refuses_what_was_moved_from([] { return gather(give(1), give(2)); });
  refuses_what_was_moved_from([] { return gather(sleep_for(1s), give(2)); });
  refuses_what_was_moved_from([] { return gather([] { return 1; }, give(2)); });
  refuses_what_was_moved_from([] { return gather(texts()); });
}

TEST_ON_THREADS(AwaitedTwice, RacesAreRefused) {
  refuses_a_second_await([] { return race(give(1), give(2)); });
  refuses_a_second_await([] { return race(sleep_for(1s), give(2)); });
  refuses_a_second_await([] { return any(texts()); });
  refuses_what_was_moved_from([] { return race(give(1), give(2)); });
  refuses_what_was_moved_from([] { return any(give(1), give_text("a")); });
  refuses_what_was_moved_from([] { return any(texts()); });
}

TEST_ON_THREADS(AwaitedTwice, BlocksAndCallsAreRefused) {
  refuses_a_second_await(
      [] { return task_group([](TaskGroup&) { return give_text(std::string(40, 'x')); }); });
  refuses_a_second_await([] { return cancel_scope([](CancelScope&) { return give(1); }); });
  refuses_a_second_await([] { return timeout_scope(1s, [](TimeoutScope&) { return give(1); }); });
  refuses_what_was_moved_from(
      [] { return task_group([](TaskGroup&) { return give_text(std::string(40, 'x')); }); });
  refuses_what_was_moved_from([] { return cancel_scope([](CancelScope&) { return give(1); }); });
  refuses_what_was_moved_from(
      [] { return timeout_scope(1s, [](TimeoutScope&) { return give(1); }); });
  refuses_a_second_await([] { return to_thread([] { return std::string(40, 'x'); }); });
}

TEST_ON_THREADS(AwaitedTwice, WrappersAreRefused) {
  refuses_a_second_await([] { return timeout(give(1), 1s); });
  refuses_a_second_await([] { return timeout(sleep_for(1s), 2s); });
  refuses_a_second_await([] { return try_timeout(sleep_for(1s), 2s); });
  refuses_a_second_await([] { return as_result(give(1)); });
  refuses_a_second_await([] { return uncancellable(sleep_for(1s)); });
  refuses_a_second_await([] { return with_token({}, sleep_for(1s)); });
  refuses_a_second_await([] { return finally(give(1), nothing); });
  refuses_a_second_await([] { return shield(give(1)); });
  refuses_what_was_moved_from([] { return timeout(give(1), 1s); });
  refuses_what_was_moved_from([] { return shield(give(1)); });
}

Task<int> count(CompletionStream<std::string>& stream) {
  int n = 0;
  for (auto next = co_await stream.next(); next; next = co_await stream.next()) ++n;
  co_return n;
}

TEST_ON_THREADS(AwaitedTwice, StreamsAttemptsAndChainsAreRefused) {
  auto attempts = [] {
    return std::vector<std::function<Task<int>()>>{[] { return give(1); }, [] { return give(2); }};
  };
  auto first = [] { return give_text("a"); };
  auto length = [](std::string text) { return text.size(); };
  refuses_a_second_await([] { return as_completed(texts(), count); });
  refuses_a_second_await([&] { return hedge(first, HedgeOptions().delay(1ms).max_attempts(3)); });
  refuses_a_second_await([&] { return staggered_race(attempts(), 1ms); });
  refuses_a_second_await([&] { return chain(give_text("abc"), length); });
  refuses_what_was_moved_from([] { return as_completed(texts(), count); });
  refuses_what_was_moved_from(
      [&] { return hedge(first, HedgeOptions().delay(1ms).max_attempts(3)); });
  refuses_what_was_moved_from([&] { return staggered_race(attempts(), 1ms); });
}

TEST_ON_THREADS(AwaitedTwice, AHedgeThatHasGivenItsAttemptsAwayIsRefused) {
  auto body = []() -> Task<> {
    auto first = [] { return give(1); };
    auto discard = [](std::size_t, int) {};
    auto hedged = hedge(first);
    auto other = std::move(hedged).on_discard(discard);
    EXPECT_THROW((void)co_await std::move(hedged), std::logic_error);
    const int value = co_await std::move(other);
    EXPECT_EQ(value, 1);
  };
  executor.run(body());
}

TEST_ON_THREADS(AwaitedTwice, WhatACancellationRefusedIsNotCancelledForGood) {
  RateLimiter limiter(1e6, 100);
  auto work = [](int n) { return give(n); };
  auto first = [] { return give(1); };
  auto length = [](std::string text) { return text.size(); };
  const std::vector<int> items{0, 1, 2};
  const auto check = [&](auto make) { runs_or_is_refused_after_a_refusal(make); };
  check([] { return gather(give(1), sleep_for(1ms)); });
  check([] { return gather(texts()); });
  check([] { return race(give(1), give(2)); });
  check([] { return any(texts()); });
  check([] { return timeout(give(1), 1s); });
  check([] { return try_timeout(sleep_for(1ms), 1s); });
  check([] { return timeout_scope(1s, [](TimeoutScope&) { return give(1); }); });
  check([] { return cancel_scope([](CancelScope&) { return give(1); }); });
  check([] { return task_group([](TaskGroup&) { return give(1); }); });
  check([] { return shield(give(1)); });
  check([] { return with_token(CancellationToken(), give(1)); });
  check([] { return as_completed(texts(), count); });
  check([&] { return hedge(first, HedgeOptions().delay(1ms).max_attempts(3)); });
  check([&] { return staggered_race(std::vector<TaskFactory<int>>{first, first}, 1ms); });
  check([&] { return chain(give_text("abc"), length); });
  check([] { return gather_limited(2, texts()); });
  check([&] { return gather_rate_limited(limiter, texts()); });
  check([&] { return gather_rate_limited(return_exceptions, limiter, give(1), sleep_for(1ms)); });
  check([&] { return map_concurrent(items, 2, work); });
  check([&] { return parallel_for(0, 100, 10, [](int) {}); });
  check([] { return to_thread([] { return 1; }); });
}

TEST_ON_THREADS(AwaitedTwice, FanOutsWithALimitAreRefused) {
  RateLimiter limiter(1e6, 10);
  auto work = [](int n) { return give(n); };
  refuses_a_second_await([] { return gather_limited(2, texts()); });
  refuses_a_second_await([] { return gather_limited(2, give(1), give_text("b")); });
  refuses_a_second_await([&] { return gather_rate_limited(limiter, texts()); });
  refuses_a_second_await([&] { return map_concurrent(std::vector<int>{0, 1, 2}, 2, work); });
  refuses_what_was_moved_from([] { return gather_limited(2, texts()); });
  refuses_what_was_moved_from([] { return gather_limited(2, give(1), give_text("b")); });
  refuses_what_was_moved_from([&] { return gather_rate_limited(limiter, texts()); });
  refuses_what_was_moved_from([&] { return map_concurrent(std::vector<int>{0, 1, 2}, 2, work); });
}

TEST_ON_THREADS(AwaitedTwice, WhatACancelledScopeRefusedIsSpent) {
  RateLimiter limiter(1e6, 10);
  auto work = [](int n) { return give(n); };
  auto first = [] { return give(1); };
  auto attempts = [] {
    return std::vector<std::function<Task<int>()>>{[] { return give(1); }, [] { return give(2); }};
  };
  auto length = [](std::string text) { return text.size(); };
  is_spent_where_it_was_refused([] { return gather(give(1), give(2)); });
  is_spent_where_it_was_refused([] { return gather(texts()); });
  is_spent_where_it_was_refused([] { return race(give(1), give(2)); });
  is_spent_where_it_was_refused([] { return any(texts()); });
  is_spent_where_it_was_refused([] { return as_completed(texts(), count); });
  is_spent_where_it_was_refused([&] { return gather_rate_limited(limiter, texts()); });
  is_spent_where_it_was_refused([] { return gather_limited(2, texts()); });
  is_spent_where_it_was_refused([] { return gather_limited(2, give(1), give_text("b")); });
  is_spent_where_it_was_refused([&] { return map_concurrent(std::vector<int>{0, 1, 2}, 2, work); });
  is_spent_where_it_was_refused([&] { return hedge(first, HedgeOptions().max_attempts(3)); });
  is_spent_where_it_was_refused([&] { return staggered_race(attempts(), 1ms); });
  is_spent_where_it_was_refused([&] { return chain(give_text("abc"), length); });
}

TEST_ON_THREADS(AwaitedTwice, LoopsAreRefused) {
  auto each = [](int) {};
  auto self = [](int n) { return n; };
  refuses_a_second_await([&] { return parallel_for(0, 1000, 10, each); });
  refuses_a_second_await([&] { return parallel_for_each(std::vector<int>(100), 10, each); });
  refuses_a_second_await([&] { return parallel_reduce(0, 1000, 10, 0, self, std::plus<>()); });
  refuses_what_was_moved_from([&] { return parallel_for(0, 1000, 10, each); });
  refuses_what_was_moved_from([&] { return parallel_for_each(std::vector<int>(100), 10, each); });
  refuses_what_was_moved_from([&] { return parallel_reduce(0, 1000, 10, 0, self, std::plus<>()); });
}

TEST_ON_THREADS(AwaitedTwice, WhatHasSentItsItemIsRefused) {
  struct Big {
    std::string text{std::string(40, 'x')};
    char room[300]{};
  };
  Channel<Big> big(10);
  Channel<std::string> small(10);
  refuses_a_second_await([&] { return big.send(Big()); });
  refuses_a_second_await([&] { return small.send(std::string(40, 'x')); });
  refuses_what_was_moved_from([&] { return big.send(Big()); });
  refuses_what_was_moved_from([&] { return small.send(std::string(40, 'x')); });
}

TEST_ON_THREADS(AwaitedTwice, ReceivingAgainGivesTheNextItem) {
  auto body = []() -> Task<> {
    Channel<std::string> channel(3);
    co_await channel.send(std::string(40, 'a'));
    co_await channel.send(std::string(40, 'b'));
    auto receive = channel.receive();
    std::string got;
    auto once = [&]() -> Task<> {
      std::optional<std::string> item = co_await receive;
      got += !item ? "-" : item->empty() ? "?" : item->substr(0, 1);
    };
    co_await once();
    co_await once();
    Result<void> cancelled = co_await as_result(timeout(once(), 1ms));
    EXPECT_FALSE(cancelled.has_value());
    channel.close();
    co_await once();
    co_await once();
    EXPECT_EQ(got, "ab--");
  };
  executor.run(body());
}

TEST_ON_THREADS(AwaitedTwice, ArrivingAgainIsAnotherPhase) {
  auto body = []() -> Task<> {
    Barrier barrier(2);
    int last[2]{};
    auto party = [&](int& times) -> Task<> {
      auto arrive = barrier.arrive_and_wait();
      for (int i = 0; i < 10; ++i) {
        const bool was_last = co_await arrive;
        times += was_last;
      }
    };
    co_await gather(party(last[0]), party(last[1]));
    EXPECT_EQ(last[0] + last[1], 10);
  };
  executor.run(body());
}

TEST_ON_THREADS(AwaitedTwice, WaitingAgainForgetsHowTheLastWaitEnded) {
  auto body = []() -> Task<> {
    Mutex mutex;
    Condition condition;
    auto lock = co_await mutex.lock();
    auto wait = condition.wait(lock);
    auto once = [&]() -> Task<> { co_await wait; };
    Result<void> first = co_await as_result(timeout(once(), 1ms));
    EXPECT_FALSE(first.has_value());
    auto note = [&]() -> Task<> {
      auto mine = co_await mutex.lock();
      condition.notify_one();
    };
    auto notifier = spawn(note());
    Result<void> second = co_await as_result(once());
    EXPECT_TRUE(second.has_value());
    co_await notifier;

    auto handle = spawn(give_text(std::string(40, 'x')));
    auto shielded = shield(handle);
    for (int i = 0; i < 2; ++i) {
      const std::string text = co_await shielded;
      EXPECT_EQ(text.size(), 40U);
    }
  };
  executor.run(body());
}

TEST_ON_THREADS(AwaitedTwice, TheNextOfAStreamGivesEachOnceAndThenNothing) {
  auto body = []() -> Task<> {
    auto read = [](CompletionStream<std::string>& stream) -> Task<int> {
      auto next = stream.next();
      int n = 0;
      for (int i = 0; i < 6; ++i) {
        auto item = co_await next;
        n += item.has_value();
      }
      co_return n;
    };
    const int n = co_await as_completed(texts(), read);
    EXPECT_EQ(n, 3);
  };
  executor.run(body());
}

}  // namespace
}  // namespace magpie
