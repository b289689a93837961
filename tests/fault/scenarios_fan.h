// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scenarios: combinators over several tasks. Closures have names and capture references (g++ 12).

#include <array>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "world.h"

namespace magpie::test {

inline std::vector<Task<Item>> several(World& world, int n) {
  std::vector<Task<Item>> tasks;
  for (int i = 0; i < n; ++i) tasks.push_back(work(world, i % 3));
  return tasks;
}

// --- gather --------------------------------------------------------------------------------------

inline Task<> gather_pack(World& w) {
  co_await gather(work(w, 1), work(w, 0), toil(w, 2));
}
inline Task<> gather_vector(World& w) {
  std::vector<Item> values = co_await gather(several(w, 4));
  EXPECT_EQ(values.size(), 4u);
}
inline Task<> gather_callables(World& w) {
  auto one = [&w] { return work(w, 1); };
  auto plain = [&w] { w.point(); };
  co_await gather(one, plain, work(w, 1), one);
}
inline Task<> gather_keep_going(World& w) {
  co_await gather(keep_going, failing(w, 0), work(w, 2), work(w, 1));
}
inline Task<> gather_results(World& w) {
  auto all = co_await gather(return_exceptions, failing(w, 1), work(w, 2), careful_work(w, 1));
  EXPECT_FALSE(std::get<0>(all).has_value());
}
inline Task<> gather_fail_fast(World& w) {
  co_await gather(careful_work(w, 4), failing(w, 1), careful_work(w, 3));
}
inline Task<> gather_operations(World& w) {
  auto open = [&w] {
    w.point();
    w.event.set();
  };
  auto all = gather(w.semaphore.acquire(), w.event.wait(), sleep_for(1ms), w.mutex.lock(), open,
                    w.semaphore.acquire());
  co_await std::move(all);
}
inline Task<> gather_two(World& w) {
  co_await gather(work(w, 1), work(w, 1));
}
inline Task<> gather_nested(World& w) {
  co_await gather(gather_two(w), gather_two(w), gather_vector(w));
}
inline Task<> gather_stubborn(World& w) {
  co_await gather(stubborn_work(w, 3), work(w, 1), stubborn_work(w, 1));
}
inline Task<> gather_handles(World& w) {
  JoinHandle<Item> one = spawn(work(w, 2));
  JoinHandle<Item> two = spawn(work(w, 1));
  co_await gather(one, std::move(two));
}

// --- race, any, hedge ----------------------------------------------------------------------------

inline Task<> race_pack(World& w) {
  auto first = co_await race(work(w, 1), careful_work(w, 2), toil(w, 3));
  EXPECT_LT(first.index, 3u);
}
inline Task<> race_discards(World& w) {
  auto discard = [&w](std::size_t, Item&&) { w.point(); };
  std::vector<Task<Item>> tasks;
  for (int i = 0; i < 4; ++i) tasks.push_back(stubborn_work(w, i));
  auto contest = race(std::move(tasks)).on_discard(discard);
  co_await std::move(contest);
}
inline Task<> race_operations(World& w) {
  Item item(w);
  EXPECT_TRUE(w.channel.try_send(item));
  w.sent.fetch_add(1);
  auto contest = race(w.semaphore.acquire(2), w.channel.receive(), w.mutex.lock(), sleep_for(1ms));
  auto first = co_await std::move(contest);
  if (first.index == 1) w.received.fetch_add(1);
}
inline Task<> race_of_waits(World& w) {
  Permit all = co_await w.semaphore.acquire(World::kPermits);
  auto give_back = [&]() -> Task<> {
    w.point();
    co_await this_task::yield();
    all.release();
    co_await sleep_for(5ms);
  };
  auto contest = race(w.semaphore.acquire(), w.event.wait(), w.semaphore.acquire(2), give_back());
  co_await std::move(contest);
}
inline Task<> race_failure(World& w) {
  co_await race(failing(w, 1), slow_work(w, 1h), slow_work(w, 1h));
}
inline Task<> any_succeeds(World& w) {
  co_await any(failing(w, 0), careful_work(w, 3), failing(w, 1), work(w, 4));
}
inline Task<> any_fails(World& w) {
  co_await any(failing(w, 2), failing(w, 0));
}
inline Task<> hedged(World& w) {
  int calls = 0;
  auto ask = [&] {
    w.point();
    return ++calls == 1 ? slow_work(w, 1h) : slow_work(w, 1ms);
  };
  auto discard = [&w](std::size_t, Item&&) { w.point(); };
  auto options = HedgeOptions().delay(10ms).max_attempts(3);
  auto attempts = hedge(ask, options).on_discard(discard);
  co_await std::move(attempts);
}
inline Task<> staggered(World& w) {
  auto fails = [&w] { return failing(w, 1); };
  auto works = [&w] { return stubborn_work(w, 2); };
  std::vector<TaskFactory<Item>> ways;
  ways.emplace_back(fails);
  ways.emplace_back(works);
  ways.emplace_back(works);
  co_await staggered_race(std::move(ways), 0ms);
}

// --- wait, as_completed --------------------------------------------------------------------------

inline std::vector<JoinHandle<Item>> spawned(World& w, int n) {
  std::vector<JoinHandle<Item>> handles;
  for (int i = 0; i < n; ++i) handles.push_back(spawn(work(w, i)));
  return handles;
}
inline Task<> wait_for_all(World& w) {
  auto seen = co_await wait(spawned(w, 3));
  EXPECT_EQ(seen.done.size(), 3u);
}
inline Task<> wait_for_first(World& w) {
  auto handles = spawned(w, 3);
  auto seen = co_await wait(handles, ReturnWhen::first_completed, 1s);
  EXPECT_FALSE(seen.done.empty());
  for (JoinHandle<Item>& handle : handles) handle.cancel();
}
inline Task<> wait_in_vain(World& w) {
  std::vector<JoinHandle<Item>> handles;
  handles.push_back(spawn(slow_work(w, 1s)));
  auto seen = co_await wait(handles, ReturnWhen::first_exception, 1ms);
  EXPECT_EQ(seen.done.size() + seen.pending.size(), 1u);
}
inline Task<> completed_all(World& w) {
  auto body = [&w](CompletionStream<Item>& stream) -> Task<int> {
    int n = 0;
    for (;;) {
      auto next = co_await stream.next();
      if (!next) break;
      w.point();
      ++n;
    }
    co_return n;
  };
  auto block = as_completed(several(w, 4), body);
  const int seen = co_await std::move(block);
  EXPECT_EQ(seen, 4);
}
inline Task<> completed_late(World& w) {
  std::vector<Task<Item>> tasks = several(w, 2);
  tasks.push_back(slow_work(w, 1h));
  auto body = [](CompletionStream<Item>& stream) -> Task<> {
    for (;;) {
      auto next = co_await stream.next();
      if (!next) break;
    }
  };
  auto block = as_completed(std::move(tasks), Duration(5ms), body);
  co_await std::move(block);
}
inline Task<> completed_left(World& w) {
  std::vector<Task<Item>> tasks = several(w, 2);
  tasks.push_back(careful_work(w, 9));
  tasks.push_back(stubborn_work(w, 3));
  auto body = [&w](CompletionStream<Item>& stream) -> Task<> {
    co_await stream.next();
    w.point();
  };
  auto block = as_completed(std::move(tasks), body);
  co_await std::move(block);
}

// --- task_group ----------------------------------------------------------------------------------

inline Task<> group_of_children(World& w) {
  auto body = [&w](TaskGroup& group) -> Task<int> {
    for (int i = 0; i < 3; ++i) group.spawn(work(w, i));
    JoinHandle<Item> handle = group.spawn(careful_work(w, 1), "named");
    w.point();
    co_await handle;
    co_return 5;
  };
  auto block = task_group(body);
  const int given = co_await std::move(block);
  EXPECT_EQ(given, 5);
}
inline Task<> service(World& w, ReadySignal<Item> ready) {
  co_await this_task::yield();
  w.point();
  ready.set(Item(w));
  co_await this_task::yield();
  w.point();
}
inline Task<> group_start(World& w) {
  auto body = [&w](TaskGroup& group) -> Task<> {
    World& shared = w;
    auto serve = [&shared](ReadySignal<Item> ready) { return service(shared, std::move(ready)); };
    auto starting = group.start<Item>(serve);
    Item item = co_await std::move(starting);
    w.point();
  };
  auto block = task_group(body);
  co_await std::move(block);
}
inline Task<> group_failure(World& w) {
  auto body = [&w](TaskGroup& group) -> Task<> {
    group.spawn(careful_work(w, 9));
    group.spawn(failing(w, 1));
    co_await sleep_for(1h);
  };
  auto block = task_group(body);
  co_await std::move(block);
}
inline Task<> group_cancels(World& w) {
  auto body = [&w](TaskGroup& group) -> Task<> {
    group.spawn(careful_work(w, 9));
    group.spawn(stubborn_work(w, 2));
    co_await this_task::yield();
    group.cancel();
    group.spawn(work(w, 1));
    co_await sleep_for(1h);
  };
  auto block = task_group(body);
  co_await std::move(block);
}
inline Task<> breeding(World& w, TaskGroup& group, int generations) {
  w.point();
  co_await this_task::yield();
  if (generations == 0) co_return;
  group.spawn(breeding(w, group, generations - 1));
  group.spawn(toil(w, 1));
}
inline Task<> group_that_grows(World& w) {
  auto body = [&w](TaskGroup& group) -> Task<> {
    group.spawn(breeding(w, group, 2));
    co_return;
  };
  auto inner = [&body](TaskGroup& group) -> Task<> {
    auto block = task_group(body);
    group.spawn(std::move(block));
    co_await this_task::yield();
  };
  auto block = task_group(inner);
  co_await std::move(block);
}

// --- limits, paces, batches ----------------------------------------------------------------------

inline Task<> limited(World& w) {
  std::vector<Item> values = co_await gather_limited(2, several(w, 5));
  EXPECT_EQ(values.size(), 5u);
}
inline Task<> limited_results(World& w) {
  std::vector<Task<Item>> tasks = several(w, 3);
  tasks.push_back(failing(w, 0));
  auto values = co_await gather_limited(return_exceptions, 2, std::move(tasks));
  EXPECT_EQ(values.size(), 4u);
}
inline Task<> mapped(World& w) {
  std::vector<int> items(6);
  auto each = [&w](int) {
    w.point();
    return work(w, 1);
  };
  auto all = map_concurrent(items, 2, each);
  std::vector<Item> values = co_await std::move(all);
  EXPECT_EQ(values.size(), 6u);
}
inline Task<> rate_limited_child(World& w, RateLimiter& limiter, std::size_t n) {
  co_await limiter.acquire(n);
  w.point();
}
inline Task<> rated(World& w) {
  RateLimiter limiter(100, 2);
  co_await gather(rate_limited_child(w, limiter, 1), rate_limited_child(w, limiter, 2),
                  rate_limited_child(w, limiter, 1));
  auto first = co_await race(limiter.acquire(2), limiter.acquire(1));
  EXPECT_LT(first.index, 2u);
}
inline Task<> gathered_at_a_rate(World& w) {
  RateLimiter limiter(100, 1);
  auto all = gather_rate_limited(limiter, several(w, 3));
  co_await std::move(all);
}
inline Task<> batched(World& w) {
  std::vector<int> items(5);
  auto each = [&w](int) { return work(w, 1); };
  auto options = BatchOptions().pause(1ms);
  auto all = batch(items, 2, each, options);
  std::vector<Item> values = co_await std::move(all);
  EXPECT_EQ(values.size(), 5u);
}
inline Task<std::vector<int>> answer_batch(World& w, std::vector<int> asked) {
  w.point();
  co_await sleep_for(1ms);
  w.point();
  co_return asked;
}
inline Task<> ask_batch(Batcher<int, int>& batcher, int n) {
  const int answer = co_await batcher.submit(n);
  EXPECT_EQ(answer, n);
}
inline Task<> batched_requests(World& w) {
  auto answer = [&w](std::vector<int> asked) { return answer_batch(w, std::move(asked)); };
  Batcher<int, int> batcher(2, 5ms, std::move(answer));
  co_await gather(ask_batch(batcher, 1), ask_batch(batcher, 2), ask_batch(batcher, 3));
}

// --- CPU loops -----------------------------------------------------------------------------------

inline Task<> loop(World& w) {
  std::atomic<int> calls{0};
  auto each = [&](int) {
    w.point();
    calls.fetch_add(1);
  };
  auto all = parallel_for(0, 9, 2, each);
  co_await std::move(all);
  EXPECT_EQ(calls.load(), 9);
}
inline Task<> loop_over_elements(World& w) {
  std::array<int, 9> numbers{};
  auto each = [&w](int& n) {
    w.point();
    ++n;
  };
  auto all = parallel_for_each(numbers, 2, each);
  co_await std::move(all);
  EXPECT_EQ(std::accumulate(numbers.begin(), numbers.end(), 0), 9);
}
inline Task<> reduction(World& w) {
  auto map = [&w](int i) {
    w.point();
    return i;
  };
  auto add = [&w](int a, int b) {
    w.point();
    return a + b;
  };
  auto sum = parallel_reduce(0, 9, 2, 0, map, add);
  const int total = co_await std::move(sum);
  EXPECT_EQ(total, 36);
}
inline Task<> forked(World& w) {
  auto left = [&w] {
    w.point();
    return Item(w);
  };
  auto right = [&w] { w.point(); };
  (void)fork_join(left, right);
  co_await this_task::yield();
}

}  // namespace magpie::test
