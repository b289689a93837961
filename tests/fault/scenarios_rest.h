// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scenarios: time, retries, cancellation, primitives, tasks and handles. And the table of all.

#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "scenarios_fan.h"
#include "scenarios_leaver.h"
#include "world.h"

namespace magpie::test {

// --- time ----------------------------------------------------------------------------------------

inline Task<> timeout_in_time(World& w) {
  co_await timeout(slow_work(w, 1ms), 5ms);
}
inline Task<> timeout_too_late(World& w) {
  auto slow = [&w]() -> Task<> {
    auto cleanup = [&w]() -> Task<> {
      w.cleaned.fetch_add(1);
      co_await sleep_for(1ms);
    };
    auto inner = finally(slow_work(w, 1h), cleanup);
    w.begun.fetch_add(1);
    co_await std::move(inner);
  };
  co_await timeout(slow(), 1ms);
}
inline Task<> timeout_of_sleep(World& w) {
  w.point();
  co_await timeout(sleep_for(1h), 5ms);
}
inline Task<> timeout_default(World& w) {
  auto inner = [&w]() -> Task<int> {
    co_await sleep_for(1h);
    w.point();
    co_return 1;
  };
  auto bounded = with_timeout(inner(), 5ms, 3);
  const int got = co_await std::move(bounded);
  EXPECT_EQ(got, 3);
}
inline Task<> timeout_as_result(World& w) {
  Result<Item> late = co_await try_timeout(slow_work(w, 1h), 5ms);
  if (late.is_error()) std::move(late).value();
  EXPECT_TRUE(late.is_timeout());
  Result<Item> early = co_await try_timeout(work(w, 2), 5ms);
  if (early.is_error()) std::move(early).value();
  EXPECT_TRUE(early.has_value());
}
inline Task<> timeout_at_deadline(World& w) {
  const Deadline now = co_await this_task::now();
  co_await timeout_at(slow_work(w, 1ms), now + 1ms + 1ns);
}
inline Task<> timeout_of_permit(World& w) {
  Permit all = co_await w.semaphore.acquire(World::kPermits);
  Result<Permit> none = co_await try_timeout(w.semaphore.acquire(), 1ms);
  EXPECT_TRUE(none.is_timeout());
  all.release();
  Result<Permit> one = co_await try_timeout(w.semaphore.acquire(), 1ms);
  EXPECT_TRUE(one.has_value());
}
inline Task<> timeout_block(World& w) {
  auto body = [&w](TimeoutScope& scope) -> Task<int> {
    w.point();
    co_await sleep_for(1ms);
    const Deadline now = co_await this_task::now();
    EXPECT_TRUE(scope.reschedule(now + 5ms));
    co_await sleep_for(4ms);
    w.point();
    co_return 1;
  };
  auto block = timeout_scope(2ms, body);
  co_await std::move(block);
}
inline Task<> timeout_nested(World& w) {
  auto inner = timeout(slow_work(w, 1h), 10ms);
  co_await timeout(std::move(inner), 5ms);
}
inline Task<> sleeps(World& w) {
  const Deadline now = co_await this_task::now();
  co_await sleep_until(now + 1ms);
  w.point();
  co_await sleep_for(0ms);
  w.point();
  co_await sleep_until(now);
}

// --- retries, chains -----------------------------------------------------------------------------

inline Task<> retried(World& w) {
  int calls = 0;
  auto attempt = [&] {
    w.point();
    return ++calls < 3 ? failing(w, 1) : work(w, 1);
  };
  auto note = [&w](const RetryEvent&) { w.point(); };
  auto judge = [&w](const std::exception_ptr&) {
    w.point();
    return true;
  };
  RetryPolicy policy;
  policy.max_attempts(3).attempt_timeout(1s).total_timeout(1h).retry_if(judge).on_retry(note);
  policy.backoff(Backoff::exponential(1ms, 2.0, 10ms).jitter(Jitter::full));
  auto all = retry(attempt, policy);
  co_await std::move(all);
}
inline Task<> retried_in_vain(World& w) {
  auto attempt = [&w] { return failing(w, 1); };
  auto all = retry(attempt, RetryPolicy().max_attempts(2).backoff(Backoff::constant(1ms)));
  co_await std::move(all);
}
inline Task<> retried_after_timeouts(World& w) {
  int calls = 0;
  auto attempt = [&] { return ++calls == 1 ? slow_work(w, 1h) : slow_work(w, 1ms); };
  auto all = retry_with_timeout(attempt, 3, 10ms, 1ms);
  co_await std::move(all);
}
inline Task<> chained(World& w) {
  auto next = [&w](Item) {
    w.point();
    return work(w, 1);
  };
  auto last = [&w](Item) {
    w.point();
    return 3;
  };
  auto all = chain(work(w, 1), next, next, last);
  const int got = co_await std::move(all);
  EXPECT_EQ(got, 3);
}

// --- cancellation --------------------------------------------------------------------------------

inline Task<> tokened(World& w) {
  CancellationSource source;
  auto once = with_token(source.token(), careful_work(w, 1));
  co_await std::move(once);
  auto later = [&]() -> Task<> {
    co_await this_task::yield();
    w.point();
    source.cancel("by the token");
  };
  auto cancelled = as_result(with_token(source.token(), work(w, 8)));
  co_await gather(std::move(cancelled), later());
}
inline Task<> masked(World& w) {
  auto inner = [&w]() -> Task<> {
    for (int i = 0; i < 3; ++i) co_await this_task::yield();
    co_await with_permits(w, 1, 1);
    co_await locked(w, 1);
    w.shared = -1;
  };
  auto block = uncancellable(inner());
  co_await std::move(block);
  EXPECT_EQ(w.shared, -1);
}
inline Task<> shielded(World& w) {
  co_await shield(with_permits(w, 2, 3));
}
inline Task<> cleaned(World& w) {
  auto cleanup = [&w]() -> Task<> {
    w.cleaned.fetch_add(1);
    co_await this_task::yield();
    co_await with_permits(w, 1, 1);
    w.point();
  };
  auto block = finally(work(w, 2), cleanup);
  w.begun.fetch_add(1);
  co_await std::move(block);
}
inline Task<> cleaned_after_failure(World& w) {
  auto cleanup = [&w]() -> Task<> {
    w.cleaned.fetch_add(1);
    co_await sleep_for(1ms);
    w.point();
  };
  auto block = finally(failing(w, 1), cleanup);
  w.begun.fetch_add(1);
  co_await std::move(block);
}
inline Task<> scoped(World& w) {
  auto body = [&w](CancelScope& scope) -> Task<int> {
    co_await toil(w, 1);
    scope.cancel("enough");
    co_await sleep_for(1h);
    co_return 1;
  };
  auto block = cancel_scope(body);
  Result<int> got = co_await std::move(block);
  EXPECT_TRUE(got.is_cancelled() || got.is_error());
  if (got.is_error()) std::move(got).value();
}
inline Task<> called_back(World& w) {
  CancellationSource source;
  std::atomic<int> calls{0};
  CancellationToken token = co_await this_task::token();
  CancellationToken both = any_of(token, source.token());
  {
    auto count = [&] { calls.fetch_add(1); };
    CancellationCallback callback(both, count);
    co_await toil(w, 2);
    source.cancel();
  }
  EXPECT_EQ(calls.load(), 1);
  co_await this_task::yield();
  EXPECT_EQ(calls.load(), 1);
}
inline Task<> stop_tokens(World& w) {
  std::stop_source source;
  auto later = [&]() -> Task<> {
    co_await this_task::yield();
    w.point();
    source.request_stop();
  };
  CancellationToken token = co_await this_task::token();
  const std::stop_token back = to_stop_token(token);
  auto cancelled = as_result(with_token(from(source.get_token()), work(w, 9)));
  co_await gather(std::move(cancelled), later());
  co_await this_task::checkpoint();
  EXPECT_TRUE(back.stop_possible());
}

// --- primitives ----------------------------------------------------------------------------------

inline Task<> permits(World& w) {
  co_await gather(with_permits(w, 1, 2), with_permits(w, 1, 1), with_permits(w, 1, 0));
}
inline Task<> permits_of_several(World& w) {
  co_await gather(with_permits(w, 2, 1), with_permits(w, 1, 2), with_permits(w, 2, 0),
                  with_permits(w, 1, 1));
}
inline Task<> bounded_hold(World& w, BoundedSemaphore& semaphore) {
  Permit permit = co_await semaphore.acquire();
  w.point();
  co_await this_task::yield();
}
inline Task<> bounded_permits(World& w) {
  auto semaphore = std::make_unique<BoundedSemaphore>(1);
  auto all = as_result(gather(bounded_hold(w, *semaphore), bounded_hold(w, *semaphore)));
  auto ended = co_await std::move(all);
  EXPECT_EQ(semaphore->available(), 1u);
  std::move(ended).value();
}
inline Task<> waits_for_event(World& w) {
  auto set = [&w]() -> Task<> {
    co_await this_task::yield();
    w.point();
    w.event.set();
    w.event.clear();
  };
  auto wait = [&w]() -> Task<> {
    if (!w.event.is_set()) co_await timeout(w.event.wait(), 1h);
    w.point();
  };
  co_await gather(as_result(timeout(wait(), 1ms)), set(), as_result(timeout(wait(), 1ms)));
}
inline Task<> locks(World& w) {
  co_await gather(locked(w, 1), locked(w, 2), locked(w, 0));
}
inline Task<> waits_for_condition(World& w) {
  bool ready = false;
  auto wait = [&]() -> Task<> {
    Mutex::Lock lock = co_await w.mutex.lock();
    auto is_ready = [&] {
      w.point();
      return ready;
    };
    auto until = w.condition.wait(lock, is_ready);
    Result<void> waited = co_await as_result(std::move(until));
    EXPECT_EQ(w.in_mutex.fetch_add(1), 0) << "a wait ended without the lock";
    w.in_mutex.fetch_sub(1);
    std::move(waited).value();
  };
  auto notify = [&]() -> Task<> {
    co_await this_task::yield();
    Mutex::Lock lock = co_await w.mutex.lock();
    ready = true;
    w.condition.notify_one();
    w.condition.notify_one();
  };
  co_await gather(wait(), wait(), notify());
}
inline Task<> waits_for_notify(World& w) {
  auto wait = [&w]() -> Task<> {
    Mutex::Lock lock = co_await w.mutex.lock();
    co_await timeout(w.condition.wait(lock), 1s);
    w.point();
  };
  auto notify = [&w]() -> Task<> {
    co_await sleep_for(1ms);
    w.condition.notify_all();
  };
  co_await gather(wait(), notify(), wait());
}
inline Task<> latched(World& w) {
  Latch latch(3);
  auto arrive = [&]() -> Task<> {
    w.point();
    co_await this_task::yield();
    co_await latch.arrive_and_wait();
  };
  auto count = [&] {
    w.point();
    latch.count_down();
  };
  co_await gather(arrive(), count, arrive(), latch.wait());
}
inline Task<> party(World& w, Barrier& barrier, int phases) {
  for (int i = 0; i < phases; ++i) {
    w.point();
    co_await barrier.arrive_and_wait();
  }
}
inline Task<> barred(World& w) {
  Barrier barrier(3);
  co_await gather(party(w, barrier, 2), party(w, barrier, 2), party(w, barrier, 2));
}
inline Task<> sends(World& w) {
  co_await gather(send_items(w, 3), receive_items(w, 3));
}
inline Task<> sends_among_many(World& w) {
  co_await gather(send_items(w, 2), receive_items(w, 1), send_items(w, 1), receive_items(w, 2));
}
inline Task<> meets(World& w) {
  co_await gather(meet_to_send(w, 2), meet_to_receive(w, 1), meet_to_receive(w, 1));
}
inline Task<> closes(World& w) {
  auto close = [&w]() -> Task<> {
    co_await send_items(w, 2);
    co_await this_task::yield();
    w.channel.close();
  };
  auto drain = [&w]() -> Task<> {
    Result<void> ended = co_await as_result(receive_items(w, 100));
    EXPECT_FALSE(ended.is_timeout());
    std::move(ended).value();
  };
  co_await gather(drain(), drain(), close());
}
inline Task<> races_of_sends(World& w) {
  auto receiver = [&w]() -> Task<> {
    auto first = co_await race(w.rendezvous.receive(), w.channel.receive(), sleep_for(1ms));
    if (first.index != 2) w.received.fetch_add(1);
  };
  auto sender = [&w]() -> Task<> {
    auto first = co_await race(w.rendezvous.send(Tracked(w.ledger)), w.channel.send(Item(w)),
                               sleep_for(1ms));
    if (first.index != 2) w.sent.fetch_add(1);
  };
  co_await gather(sender(), receiver(), receiver(), sender());
}
inline Task<> promised(World& w) {
  Promise<Item> promise;
  Future<Item> future = promise.future();
  auto keep = [&]() -> Task<> {
    co_await this_task::yield();
    w.point();
    promise.set_value(Item(w));
  };
  auto wait = [&w](Future<Item> waited) -> Task<> {
    co_await waited;
    w.point();
  };
  co_await gather(wait(future), keep(), wait(future));
}
inline Task<> broken(World& w) {
  auto promise = std::make_unique<Promise<Item>>();
  Future<Item> future = promise->future();
  auto give_up = [&]() -> Task<> {
    co_await this_task::yield();
    w.point();
    promise.reset();
  };
  auto wait = [&]() -> Task<> { co_await future; };
  co_await gather(wait(), give_up());
}

// --- tasks and handles ---------------------------------------------------------------------------

inline Task<> locals_bound(World& w) {
  auto inner = [&w]() -> Task<> {
    co_await this_task::yield();
    const int seen = co_await w.local.get();
    EXPECT_EQ(seen, 8);
    w.point();
  };
  auto bound = w.local.with(8, inner());
  co_await std::move(bound);
  const int outer = co_await w.local.get();
  EXPECT_EQ(outer, 7);
}
inline Task<> blocking_call(World& w) {
  auto call = [&w] {
    w.point();
    return Item(w);
  };
  auto called = to_thread(call);
  co_await std::move(called);
}
inline Task<> handles(World& w) {
  JoinHandle<Item> handle = spawn(work(w, 2), "worker");
  auto count = [&w](const Result<Item>&) { w.received.fetch_add(0); };
  handle.on_done(count);
  co_await handle;
  w.point();
  JoinHandle<Item> other = handle;
  co_await std::move(handle);
  EXPECT_TRUE(other.done());
}
inline Task<> detached(World& w) {
  spawn(careful_work(w, 3));
  w.point();
  co_await this_task::yield();
}
inline Task<> cancelled_handle(World& w) {
  JoinHandle<Item> handle = spawn(careful_work(w, 9));
  co_await this_task::yield();
  handle.cancel("not needed");
  Result<Item> ended = co_await as_result(std::move(handle));
  EXPECT_FALSE(ended.is_timeout());
}
inline Task<> results(World& w) {
  Result<Item> good = co_await as_result(work(w, 1));
  Result<Item> bad = co_await as_result(failing(w, 1));
  EXPECT_FALSE(bad.has_value());
  if (good.is_error()) std::move(good).value();
}
inline Task<> elsewhere(World& w) {
  Executor& here = co_await this_task::executor();
  auto there = on(here, work(w, 1));
  co_await std::move(there);
  co_await resume_on(here);
  w.point();
}
inline Task<int> deep(World& w, int depth) {
  Tracked tracked(w.ledger);
  if (depth == 0) {
    co_await this_task::yield();
    w.point();
    co_return 0;
  }
  const int below = co_await deep(w, depth - 1);
  w.point();
  co_return below + 1;
}
inline Task<> deep_calls(World& w) {
  (void)co_await deep(w, 5);
}
inline Task<> checkpoints(World& w) {
  for (int i = 0; i < 4; ++i) {
    w.point();
    co_await this_task::checkpoint();
  }
  co_await this_task::yield();
}

// --- the table -----------------------------------------------------------------------------------

inline constexpr Scenario kScenarios[] = {
    {"gather_pack", "gather.h", Ends::value, gather_pack},
    {"gather_vector", "gather.h", Ends::value, gather_vector},
    {"gather_callables", "gather.h", Ends::value, gather_callables},
    {"gather_keep_going", "gather.h", Ends::error, gather_keep_going},
    {"gather_results", "gather.h result.h", Ends::value, gather_results},
    {"gather_fail_fast", "gather.h", Ends::error, gather_fail_fast},
    {"gather_operations", "gather.h semaphore.h event.h mutex.h sleep.h", Ends::value,
     gather_operations},
    {"gather_nested", "gather.h", Ends::value, gather_nested},
    {"gather_stubborn", "gather.h cancellation.h", Ends::value, gather_stubborn},
    {"gather_handles", "gather.h join_handle.h", Ends::value, gather_handles},
    {"race_pack", "race.h", Ends::value, race_pack},
    {"race_discards", "race.h", Ends::value, race_discards},
    {"race_operations", "race.h semaphore.h channel.h mutex.h", Ends::value, race_operations},
    {"race_of_waits", "race.h semaphore.h event.h", Ends::value, race_of_waits},
    {"race_failure", "race.h", Ends::error, race_failure},
    {"any_succeeds", "race.h", Ends::absorb, any_succeeds},
    {"any_fails", "race.h errors.h", Ends::error, any_fails},
    {"hedged", "hedge.h", Ends::absorb, hedged},
    {"staggered", "hedge.h", Ends::absorb, staggered},
    {"wait_for_all", "wait.h", Ends::value, wait_for_all},
    {"wait_for_first", "wait.h", Ends::value, wait_for_first},
    {"wait_in_vain", "wait.h", Ends::value, wait_in_vain},
    {"completed_all", "as_completed.h", Ends::value, completed_all},
    {"completed_late", "as_completed.h", Ends::error, completed_late},
    {"completed_left", "as_completed.h", Ends::value, completed_left},
    {"group_of_children", "task_group.h", Ends::value, group_of_children},
    {"group_start", "task_group.h", Ends::value, group_start},
    {"group_failure", "task_group.h", Ends::error, group_failure},
    {"group_cancels", "task_group.h", Ends::value, group_cancels},
    {"group_that_grows", "task_group.h", Ends::value, group_that_grows},
    {"limited", "limited.h", Ends::value, limited},
    {"limited_results", "limited.h", Ends::value, limited_results},
    {"mapped", "limited.h", Ends::value, mapped},
    {"rated", "rate_limiter.h", Ends::value, rated},
    {"gathered_at_a_rate", "rate_limiter.h", Ends::value, gathered_at_a_rate},
    {"batched", "batch.h", Ends::value, batched},
    {"batched_requests", "batch.h", Ends::value, batched_requests},
    {"loop", "parallel.h", Ends::value, loop},
    {"loop_over_elements", "parallel.h", Ends::value, loop_over_elements},
    {"reduction", "parallel.h", Ends::value, reduction},
    {"forked", "parallel.h", Ends::value, forked},
    {"timeout_in_time", "timeout.h", Ends::value, timeout_in_time},
    {"timeout_too_late", "timeout.h", Ends::error, timeout_too_late},
    {"timeout_of_sleep", "timeout.h sleep.h", Ends::error, timeout_of_sleep},
    {"timeout_default", "timeout.h", Ends::value, timeout_default},
    {"timeout_as_result", "timeout.h", Ends::value, timeout_as_result},
    {"timeout_at_deadline", "timeout.h clock.h", Ends::value, timeout_at_deadline},
    {"timeout_of_permit", "timeout.h semaphore.h", Ends::value, timeout_of_permit},
    {"timeout_block", "timeout.h", Ends::value, timeout_block},
    {"timeout_nested", "timeout.h", Ends::error, timeout_nested},
    {"sleeps", "sleep.h", Ends::value, sleeps},
    {"retried", "retry.h", Ends::absorb, retried},
    {"retried_in_vain", "retry.h", Ends::error, retried_in_vain},
    {"retried_after_timeouts", "retry.h", Ends::absorb, retried_after_timeouts},
    {"chained", "chain.h", Ends::value, chained},
    {"tokened", "cancellation.h cancellation_token.h", Ends::value, tokened},
    {"masked", "cancellation.h", Ends::value, masked},
    {"shielded", "cancellation.h", Ends::value, shielded},
    {"cleaned", "cancellation.h", Ends::value, cleaned},
    {"cleaned_after_failure", "cancellation.h", Ends::error, cleaned_after_failure},
    {"scoped", "cancellation.h", Ends::value, scoped},
    {"called_back", "cancellation_token.h", Ends::value, called_back},
    {"stop_tokens", "cancellation_token.h", Ends::value, stop_tokens},
    {"permits", "semaphore.h", Ends::value, permits},
    {"permits_of_several", "semaphore.h", Ends::value, permits_of_several},
    {"bounded_permits", "semaphore.h", Ends::value, bounded_permits},
    {"waits_for_event", "event.h", Ends::value, waits_for_event},
    {"locks", "mutex.h", Ends::value, locks},
    {"waits_for_condition", "condition.h", Ends::value, waits_for_condition},
    {"waits_for_notify", "condition.h", Ends::value, waits_for_notify},
    {"latched", "latch.h", Ends::value, latched},
    {"barred", "barrier.h", Ends::value, barred},
    {"sends", "channel.h", Ends::value, sends},
    {"sends_among_many", "channel.h", Ends::value, sends_among_many},
    {"meets", "channel.h", Ends::value, meets},
    {"closes", "channel.h", Ends::value, closes},
    {"races_of_sends", "channel.h race.h", Ends::value, races_of_sends},
    {"promised", "promise.h", Ends::value, promised},
    {"broken", "promise.h", Ends::error, broken},
    {"locals_bound", "task_local.h", Ends::value, locals_bound},
    {"blocking_call", "blocking.h", Ends::value, blocking_call},
    {"handles", "join_handle.h spawn.h", Ends::value, handles},
    {"detached", "spawn.h", Ends::value, detached},
    {"cancelled_handle", "join_handle.h", Ends::value, cancelled_handle},
    {"results", "as_result.h result.h", Ends::value, results},
    {"elsewhere", "resume_on.h", Ends::value, elsewhere},
    {"deep_calls", "task.h", Ends::value, deep_calls},
    {"checkpoints", "this_task.h", Ends::value, checkpoints},
    {"permits_past_a_leaver", "semaphore.h timeout.h", Ends::value, permits_past_a_leaver},
    {"lock_past_a_leaver", "mutex.h", Ends::value, lock_past_a_leaver},
    {"notification_past_a_leaver", "condition.h", Ends::value, notification_past_a_leaver},
    {"item_past_a_leaver", "channel.h", Ends::value, item_past_a_leaver},
    {"room_past_a_leaver", "channel.h", Ends::value, room_past_a_leaver},
    {"phase_past_a_leaver", "barrier.h", Ends::value, phase_past_a_leaver},
    {"tokens_past_a_leaver", "rate_limiter.h", Ends::value, tokens_past_a_leaver},
};

}  // namespace magpie::test
