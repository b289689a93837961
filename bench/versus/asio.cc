// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Standalone Asio on a thread_pool: functions posted to it, and awaitables. Asio has no gather and
// no semaphore; the usual stand-ins are used: co_spawn of each child with a count of those that are
// left, and a channel that is filled with permits.

#include <support/bench.h>
#include <support/problems.h>
#include <support/service.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/experimental/concurrent_channel.hpp>

namespace bench {
namespace {

using namespace std::chrono_literals;
using asio::awaitable;
using asio::use_awaitable;

/// `make(executor)` gives an awaitable of a number, which is run on a pool of so many threads.
template <class Make, class Correct>
void measure_asio(benchmark::State& state, std::size_t threads, Make&& make, Correct&& correct) {
  asio::thread_pool pool(threads);
  measure(
      state,
      [&] {
        correct.result = asio::co_spawn(pool, make(pool.get_executor()), asio::use_future).get();
      },
      correct);
}

struct Equals {
  std::size_t expected;
  std::size_t result = 0;
  bool operator()() const { return result == expected; }
};

using Executor = asio::thread_pool::executor_type;

// ---- fan-out ------------------------------------------------------------------------------------

awaitable<std::size_t> one() {
  co_return 1;
}

// Ends when `n` children made by `child(i)`, each on the executor `on(i)`, have ended; gives the
// sum of their values.
template <class On, class Child>
awaitable<std::size_t> gather_on(On on, std::size_t n, Child child) {
  std::vector<std::size_t> results(n);
  std::atomic<std::size_t> left{n};
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [&](auto handler) {
        auto done = std::make_shared<decltype(handler)>(std::move(handler));
        for (std::size_t i = 0; i < n; ++i) {
          asio::co_spawn(on(i), child(i),
                         [&left, &results, i, done](std::exception_ptr, std::size_t value) {
                           results[i] = value;
                           // acq_rel, with itself: the last one sees all results.
                           if (left.fetch_sub(1, std::memory_order_acq_rel) == 1)
                             std::move (*done)();
                         });
        }
      },
      use_awaitable);
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  co_return sum;
}

template <class Child>
awaitable<std::size_t> gather(Executor executor, std::size_t n, Child child) {
  return gather_on([executor](std::size_t) { return executor; }, n, std::move(child));
}

awaitable<std::size_t> spawned(Executor executor) {
  return gather(executor, kSpawnedTasks, [](std::size_t) { return one(); });
}

awaitable<std::size_t> gathers(Executor executor, std::size_t width) {
  std::size_t sum = 0;
  for (std::size_t done = 0; done < kGatheredChildren; done += width)
    sum += co_await gather(executor, width, [](std::size_t) { return one(); });
  co_return sum;
}

awaitable<std::size_t> yields(std::size_t n) {
  std::size_t done = 0;
  for (; done < n; ++done) co_await asio::post(use_awaitable);
  co_return done;
}

// ---- timers -------------------------------------------------------------------------------------

using Timers = std::deque<asio::steady_timer>;  // they need not move

// `handler` is called for each of the timers.
template <class Handler>
void arm(Timers& timers, Executor executor, std::chrono::nanoseconds after, Handler handler) {
  for (std::size_t i = 0; i < kTimers; ++i) {
    timers.emplace_back(executor, after);
    timers.back().async_wait(handler);
  }
}

awaitable<std::size_t> short_sleep(Executor executor) {
  asio::steady_timer timer(executor, 1us);
  co_await timer.async_wait(use_awaitable);
  co_return 1;
}

awaitable<std::size_t> short_sleeps(Executor executor) {
  return gather(executor, kTimers, [executor](std::size_t) { return short_sleep(executor); });
}

struct Sleepers {
  Timers timers;
  std::atomic<std::size_t> armed{0};
  std::atomic<std::size_t> left{0};
};

// Ends by the exception of a cancelled timer.
awaitable<std::size_t> long_sleep(asio::steady_timer& timer, Sleepers& sleepers) {
  const Leaving leaving(sleepers.left);
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void(asio::error_code)>(
      [&](auto handler) {
        timer.async_wait(std::move(handler));
        // release, with the load in cancel_when_armed(): nobody touches the timer before.
        sleepers.armed.fetch_add(1, std::memory_order_release);
      },
      use_awaitable);
  co_return 1;
}

// Looks now and then, as magpie's side does.
awaitable<std::size_t> cancel_when_armed(Sleepers& sleepers) {
  asio::steady_timer look(co_await asio::this_coro::executor);
  while (sleepers.armed.load(std::memory_order_acquire) < sleepers.timers.size()) {
    look.expires_after(100us);
    co_await look.async_wait(use_awaitable);
  }
  for (asio::steady_timer& timer : sleepers.timers) timer.cancel();
  co_return 0;
}

awaitable<std::size_t> cancelled_sleeps(Executor executor) {
  Sleepers sleepers;
  for (std::size_t i = 0; i < kTimers; ++i) sleepers.timers.emplace_back(executor, 1h);
  const std::size_t awake = co_await gather(executor, kTimers + 1, [&](std::size_t i) {
    return i < kTimers ? long_sleep(sleepers.timers[i], sleepers) : cancel_when_armed(sleepers);
  });
  co_return sleepers.left.load(std::memory_order_relaxed) - awake;
}

awaitable<std::size_t> yields_once() {
  co_await asio::post(use_awaitable);
  co_return 1;
}

// On one thread: the operator's two sides must not run at the same time.
awaitable<std::size_t> timeouts(Executor executor) {
  using asio::experimental::awaitable_operators::operator||;
  std::size_t done = 0;
  for (std::size_t i = 0; i < kTimeouts; ++i) {
    asio::steady_timer timer(executor, 1h);
    const auto first = co_await (yields_once() || timer.async_wait(use_awaitable));
    if (first.index() == 0) done += std::get<0>(first);
  }
  co_return done;
}

// ---- channels, and a semaphore made of one ------------------------------------------------------

using Channel = asio::experimental::concurrent_channel<void(asio::error_code, std::size_t)>;

awaitable<std::size_t> produce(Channel& channel) {
  for (std::size_t i = 1; i <= kChannelValues; ++i)
    co_await channel.async_send(asio::error_code(), i, use_awaitable);
  co_return 0;
}

awaitable<std::size_t> consume(Channel& channel) {
  std::size_t count = 0;
  for (std::size_t i = 1; i <= kChannelValues; ++i) {
    const std::size_t value = co_await channel.async_receive(use_awaitable);
    if (value == i) ++count;
  }
  co_return count;
}

awaitable<std::size_t> one_to_one(Executor executor, std::size_t capacity) {
  Channel channel(executor, capacity);
  co_return co_await gather(
      executor, 2, [&](std::size_t i) { return i == 0 ? produce(channel) : consume(channel); });
}

awaitable<std::size_t> in_turn(Executor executor) {
  Channel channel(executor, 16);
  std::size_t count = 0;
  for (std::size_t i = 0; i < kChannelValues; ++i) {
    co_await channel.async_send(asio::error_code(), i, use_awaitable);
    const std::size_t value = co_await channel.async_receive(use_awaitable);
    if (value == i) ++count;
  }
  co_return count;
}

awaitable<std::size_t> acquires(Channel& permits, std::size_t n, bool over_yield) {
  std::size_t done = 0;
  for (; done < n; ++done) {
    const std::size_t permit = co_await permits.async_receive(use_awaitable);
    if (over_yield) co_await asio::post(use_awaitable);
    co_await permits.async_send(asio::error_code(), permit, use_awaitable);
  }
  co_return done;
}

awaitable<std::size_t> semaphore(Executor executor, std::size_t tasks, bool over_yield) {
  Channel permits(executor, kSemaphorePermits);
  for (std::size_t i = 0; i < kSemaphorePermits; ++i) permits.try_send(asio::error_code(), i);
  co_return co_await gather(executor, tasks, [&](std::size_t) {
    return acquires(permits, kAcquires / tasks, over_yield);
  });
}

// ---- a service ----------------------------------------------------------------------------------

awaitable<void> plain() {
  service::work();
  co_return;
}

awaitable<void> guarded(Channel& permits) {
  const std::size_t permit = co_await permits.async_receive(use_awaitable);
  co_await asio::post(use_awaitable);
  service::work();
  permits.try_send(asio::error_code(), permit);
}

awaitable<void> lengthy() {
  for (std::size_t i = 0; i < service::kSlices; ++i) {
    service::work();
    co_await asio::post(use_awaitable);  // throws once it is cancelled
  }
}

awaitable<void> endless() {
  for (;;) {
    service::work();
    co_await asio::post(use_awaitable);
  }
}

awaitable<void> at_once() {
  co_return;
}

awaitable<void> request(service::Kind kind, Channel& permits) {
  switch (kind) {
    case service::Kind::plain:
      return plain();
    case service::Kind::guarded:
      return guarded(permits);
    case service::Kind::lengthy:
      return lengthy();
    case service::Kind::hopeless:
    case service::Kind::withdrawn:
      return endless();
  }
  return plain();
}

awaitable<std::size_t> client(std::size_t number, service::Ledger& ledger, Channel& permits) {
  using asio::experimental::awaitable_operators::operator||;
  const auto strand = co_await asio::this_coro::executor;
  for (std::size_t i = 0; i < service::kRequests; ++i) {
    const service::Kind kind = ledger.kinds[number][i];
    const std::chrono::nanoseconds deadline =
        kind == service::Kind::hopeless ? std::chrono::nanoseconds(service::kShortDeadline)
                                        : std::chrono::nanoseconds(1h);
    const SteadyTime sent = now();
    co_await asio::post(use_awaitable);  // behind those that were there before
    asio::steady_timer timer(strand, deadline);
    std::size_t how = 0;
    if (kind == service::Kind::withdrawn) {
      const auto first =
          co_await ((request(kind, permits) || at_once()) || timer.async_wait(use_awaitable));
      how = first.index() == 2 ? 1 : first.index() == 1 ? 2 : 0;
    } else {
      const auto first = co_await (request(kind, permits) || timer.async_wait(use_awaitable));
      how = first.index() == 1 ? 1 : 0;
    }
    ledger.took[number * service::kRequests + i] = now() - sent;
    ledger.count(how);
  }
  co_return 0;
}

awaitable<std::size_t> serve(Executor executor, service::Ledger& ledger) {
  Channel permits(executor, service::kPermits);
  for (std::size_t i = 0; i < service::kPermits; ++i) permits.try_send(asio::error_code(), i);
  co_return co_await gather_on([executor](std::size_t) { return asio::make_strand(executor); },
                               service::kClients,
                               [&](std::size_t i) { return client(i, ledger, permits); });
}

// -------------------------------------------------------------------------------------------------

template <class Make>
void add_one(const std::string& workload, std::size_t threads, std::size_t operations, Make make) {
  add(workload, "asio_awaitables", threads, [=](benchmark::State& state) {
    Equals correct{operations};
    measure_asio(state, threads, make, correct);
    count_operations(state, operations);
  });
}

// `start(pool, left)` makes handlers that call left.done(), kTimers in all.
template <class Start>
void add_callbacks(const std::string& workload, std::size_t threads, Start start) {
  add(workload, "asio_callbacks", threads, [=](benchmark::State& state) {
    Countdown left;
    asio::thread_pool pool(threads);
    measure(
        state,
        [&] {
          Timers timers;
          left.start(kTimers);
          start(timers, pool.get_executor(), left);
          left.wait();
        },
        [&] { return left.is_done(); });
    count_operations(state, kTimers);
  });
}

void add_post(std::size_t producers, std::size_t threads) {
  add("post_from_" + std::to_string(producers), "asio_post", threads, [=](benchmark::State& state) {
    Countdown left;
    asio::thread_pool pool(threads);
    measure(
        state,
        [&] {
          post_from_outside(producers, left, [&] { asio::post(pool, [&left] { left.done(); }); });
        },
        [&] { return left.is_done(); });
    count_operations(state, kPostedJobs);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_post(1, threads);
    add_post(2, threads);
    add_one("spawn_and_wait", threads, kSpawnedTasks, spawned);
    for (const std::size_t width : {std::size_t{10}, std::size_t{1'000}, std::size_t{100'000}}) {
      add_one("gather_" + std::to_string(width), threads, kGatheredChildren,
              [=](Executor executor) { return gathers(executor, width); });
    }
    add_one("yield_of_1", threads, kYields, [](Executor) { return yields(kYields); });
    add_callbacks("sleep_and_fire", threads,
                  [](Timers& timers, Executor executor, Countdown& left) {
                    arm(timers, executor, 1us, [&left](asio::error_code) { left.done(); });
                  });
    add_one("sleep_and_fire", threads, kTimers, short_sleeps);
    add_callbacks("sleep_and_cancel", threads,
                  [](Timers& timers, Executor executor, Countdown& left) {
                    arm(timers, executor, 1h, [&left](asio::error_code) { left.done(); });
                    for (asio::steady_timer& timer : timers) timer.cancel();
                  });
    add_one("sleep_and_cancel_with_throw", threads, kTimers, cancelled_sleeps);
    if (threads == 1) add_one("timeout_not_reached", threads, kTimeouts, timeouts);
    add_one("channel_in_turn", threads, kChannelValues, in_turn);
    add_one("channel_1_to_1_of_64", threads, kChannelValues,
            [](Executor executor) { return one_to_one(executor, 64); });
    add("service", "asio_awaitables", threads, [=](benchmark::State& state) {
      asio::thread_pool pool(threads);
      service::Ledger ledger;
      service::measure_service(state, ledger, [&] {
        asio::co_spawn(pool, serve(pool.get_executor(), ledger), asio::use_future).get();
      });
    });
    add_one("semaphore_uncontended", threads, kAcquires,
            [](Executor executor) { return semaphore(executor, 1, false); });
    add_one("semaphore_shared", threads, kAcquires,
            [](Executor executor) { return semaphore(executor, kSemaphoreTasks, false); });
    add_one("semaphore_over_yield", threads, kAcquires,
            [](Executor executor) { return semaphore(executor, kSemaphoreTasks, true); });
  }
}

}  // namespace bench
