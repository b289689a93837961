// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scenarios: one of several that wait for a primitive leaves, and whoever comes behind must not
// notice. Leavers leave after 1 ms; what the others wait for comes at 2 ms, and they would give up
// at 5 ms.

#include <optional>
#include <utility>

#include "world.h"

namespace magpie::test {

/// Waits for long enough; hands on what went wrong.
template <class A>
Task<> patient(World& world, A operation) {
  auto bounded = try_timeout(std::move(operation), 5ms);
  auto result = co_await std::move(bounded);
  EXPECT_FALSE(result.is_timeout()) << "whoever came behind one that left was forgotten";
  if (result.is_error()) std::move(result).value();
  world.point();
}
template <class A>
Task<> leaving(World& world, A operation) {
  world.point();
  auto bounded = try_timeout(std::move(operation), 1ms);
  auto result = co_await std::move(bounded);
  if (result.is_error()) std::move(result).value();
}

inline Task<> permits_past_a_leaver(World& w) {
  auto holder = [&w]() -> Task<> {
    Permit permit = co_await w.semaphore.acquire();
    co_await sleep_for(10ms);
  };
  co_await gather(holder(), leaving(w, w.semaphore.acquire(2)), patient(w, w.semaphore.acquire()));
}
inline Task<> lock_past_a_leaver(World& w) {
  auto holder = [&w]() -> Task<> {
    Mutex::Lock lock = co_await w.mutex.lock();
    co_await sleep_for(2ms);
  };
  co_await gather(holder(), leaving(w, w.mutex.lock()), patient(w, w.mutex.lock()));
}
inline Task<> notification_past_a_leaver(World& w) {
  auto wait = [&w](bool leaves) -> Task<> {
    Mutex::Lock lock = co_await w.mutex.lock();
    if (leaves) co_await leaving(w, w.condition.wait(lock));
    if (!leaves) co_await patient(w, w.condition.wait(lock));
  };
  auto notify = [&w]() -> Task<> {
    co_await sleep_for(2ms);
    w.condition.notify_one();
  };
  co_await gather(wait(true), wait(false), notify());
}
inline Task<> item_past_a_leaver(World& w) {
  auto receive = [&w](Duration time, bool leaves) -> Task<> {
    Result<std::optional<Item>> got = co_await try_timeout(w.channel.receive(), time);
    EXPECT_TRUE(leaves || !got.is_timeout());
    if (got.is_error()) std::move(got).value();
    if (got.has_value()) w.received.fetch_add(1);
  };
  auto send = [&w]() -> Task<> {
    co_await sleep_for(2ms);
    co_await send_items(w, 1);
  };
  co_await gather(receive(1ms, true), receive(5ms, false), send());
}
inline Task<> room_past_a_leaver(World& w) {
  auto send = [&w](Duration time, bool leaves) -> Task<> {
    auto bounded = try_timeout(w.rendezvous.send(Tracked(w.ledger)), time);
    Result<void> sent = co_await std::move(bounded);
    EXPECT_TRUE(leaves || !sent.is_timeout());
    if (sent.is_error()) std::move(sent).value();
    if (sent.has_value()) w.sent.fetch_add(1);
  };
  auto receive = [&w]() -> Task<> {
    co_await sleep_for(2ms);
    co_await meet_to_receive(w, 1);
  };
  co_await gather(send(1ms, true), send(5ms, false), receive());
}
inline Task<> phase_past_a_leaver(World& w) {
  Barrier barrier(2);
  auto late = [&]() -> Task<> {
    co_await sleep_for(2ms);
    co_await patient(w, barrier.arrive_and_wait());
  };
  co_await gather(leaving(w, barrier.arrive_and_wait()), late(), late());
}
inline Task<> tokens_past_a_leaver(World& w) {
  RateLimiter limiter(1000, 4);
  EXPECT_TRUE(limiter.try_acquire(3));
  // There is one; four would be there at 3 ms, and after them one more at 4 ms.
  auto next = [&]() -> Task<> {
    auto bounded = try_timeout(limiter.acquire(), 2ms);
    Result<void> got = co_await std::move(bounded);
    EXPECT_FALSE(got.is_timeout());
    if (got.is_error()) std::move(got).value();
  };
  co_await gather(leaving(w, limiter.acquire(4)), next());
}

}  // namespace magpie::test
