// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 3600

// A day in the life of a service, in virtual time: arrivals, time limits, retries, a rate limit,
// connections, a queue with workers, batches, hedges, clients that go away, maintenance every hour;
// and timers from a nanosecond to a century, half of which are cancelled at midnight. Everything
// happens at its instant, to the nanosecond, and in the end everything is accounted for: requests,
// tokens, permits, items, values, timers, tasks.
//
// Each seed is another day and another order of what is ready at the same time: a thousand, and a
// few in sanitized builds. SEED= replays one; MAGPIE_DAYS=<n> makes it so many.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include <support/ledger.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using detail::Random;
using std::chrono::nanoseconds;
using test::Ledger;
using test::Tracked;

constexpr nanoseconds kDay = 24h;
constexpr nanoseconds kCentury = 24h * 36'525;
constexpr std::size_t kConnections = 3;
constexpr double kRate = 0.25;  // calls of the back end a second
constexpr std::size_t kBurst = 10;
constexpr std::size_t kReserve = 20;  // of retries
constexpr std::size_t kQueue = 4;
constexpr int kWorkers = 2;
constexpr nanoseconds kCleanup = 3ms;

struct Counts {
  std::uint64_t requests = 0;
  std::uint64_t values = 0;
  std::uint64_t errors = 0;
  std::uint64_t timeouts = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t calls = 0;  // of the back end
  std::uint64_t sent = 0;
  std::uint64_t handled = 0;
  std::uint64_t timers = 0;
  std::uint64_t due = 0;  // timers that came
  std::uint64_t steps = 0;

  bool operator==(const Counts&) const = default;
};

void check(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

class Service {
 public:
  Service(testing::SimulatedExecutor& executor, std::uint64_t seed)
      : executor_(executor), random_(seed) {}

  Counts live_through_it() {
    executor_.run(day());
    check(slots_.available() == kConnections, "a permit was lost");
    check(calls_now_ == 0, "a call has not ended");
    check(queue_.size() == 0, "an order lies in the queue");
    check(counts_.sent == counts_.handled, "an order was lost");
    check(budget_.available() <= kReserve, "retries were made of nothing");
    check(config_.try_lock().has_value(), "the lock was not given back");
    const ExecutorStats stats = executor_.stats();
    check(stats.live_tasks == 0, "a task is left");
    check(stats.pending_timers == 0, "a timer is left");
    check(ledger_.alive() == 0, "a value is left");
    check(
        counts_.requests == counts_.values + counts_.errors + counts_.timeouts + counts_.cancelled,
        "a request has no outcome, or two");
    counts_.steps = executor_.steps();
    return counts_;
  }

 private:
  struct Order {
    Order(Promise<int> its_reply, Tracked its_tracked)
        : reply(std::move(its_reply)), tracked(std::move(its_tracked)) {}
    Promise<int> reply;
    Tracked tracked;
  };

  Deadline now() const { return executor_.clock().now(); }

  /// Of any order of magnitude between the two.
  nanoseconds between(nanoseconds least, nanoseconds most) {
    const double low = std::log(static_cast<double>(least.count()));
    const double high = std::log(static_cast<double>(most.count()));
    const double drawn = std::exp(low + random_.unit() * (high - low));
    return std::clamp(nanoseconds(static_cast<std::int64_t>(drawn)), least, most);
  }

  Task<> pause(nanoseconds time) {
    const Deadline due = now() + time;
    co_await sleep_for(time);
    check(now() == due, "a sleep did not end at its instant");
  }

  // --- the back end ---

  /// The bucket once more, filled by the clock alone.
  void take_token() {
    const Deadline at = now();
    const double flowed = std::chrono::duration<double>(at - level_at_).count() * kRate;
    level_ = std::min(level_ + flowed, static_cast<double>(kBurst)) - 1;
    level_at_ = at;
    check(level_ >= -1e-6, "more tokens were given than have flowed in");
  }

  Task<int> call(Tracked tracked) {
    co_await open_.wait();
    co_await limiter_.acquire();
    take_token();
    Permit permit = co_await slots_.acquire();
    ++counts_.calls;
    check(++calls_now_ <= kConnections, "more calls than connections");
    Result<void> over = co_await as_result(pause(between(1us, 20s)));
    if (over.is_cancelled()) {  // the connection is closed in good order
      auto cleanup = uncancellable(pause(kCleanup));
      co_await std::move(cleanup);
    }
    --calls_now_;
    tracked.touch();
    over.value();
    if (random_.below(8) == 0) throw std::runtime_error("busy");
    co_return 1;
  }
  Task<int> call() { return call(Tracked(ledger_)); }

  Task<std::vector<int>> look_up(std::vector<int> keys) {
    check(!keys.empty() && keys.size() <= 5, "a batch of a wrong size");
    co_await pause(between(1ms, 1s));
    for (int& key : keys) key *= 2;
    co_return keys;
  }

  Task<> worker() {
    for (;;) {
      std::optional<Order> order = co_await queue_.receive();
      if (!order) co_return;
      ++counts_.handled;
      co_await pause(between(1ms, 40s));
      if (random_.below(16) == 0) continue;  // the promise is broken
      order->reply.set_value(1);
    }
  }

  Task<> maintain() {
    for (int hour = 0; hour < 24; ++hour) {
      co_await pause(1h);
      open_.clear();
      {
        Mutex::Lock lock = co_await config_.lock();
        co_await pause(between(1ms, 10s));
      }
      open_.set();
    }
  }

  // --- what clients ask for ---

  Task<int> persistently() {
    auto attempt = [this] { return call(); };
    auto pauses = Backoff::exponential(100ms, 2, 10s).jitter(Jitter::full);
    RetryPolicy policy;
    policy.max_attempts(4).attempt_timeout(5s).backoff(pauses).budget(budget_).seed(random_());
    int value = co_await retry(attempt, policy);
    co_return value;
  }

  Task<int> ordered() {
    Promise<int> reply;
    Future<int> answer = reply.future();
    Order order(std::move(reply), Tracked(ledger_));
    co_await queue_.send(std::move(order));
    ++counts_.sent;
    int value = co_await std::move(answer);
    co_return value;
  }

  Task<int> several() {
    std::vector<Task<int>> calls;
    for (std::uint64_t n = 1 + random_.below(4); n > 0; --n) calls.push_back(call());
    std::vector<int> values = co_await gather(std::move(calls));
    co_return static_cast<int>(values.size());
  }

  Task<int> hedged() {
    auto attempt = [this] { return call(); };
    Indexed<int> first = co_await any(call(), call());
    HedgeOptions options;
    options.delay(300ms).max_attempts(3);
    int second = co_await hedge(attempt, options);
    co_return first.value + second;
  }

  Task<int> batched() {
    const int key = static_cast<int>(random_.below(1000));
    int value = co_await batcher_.submit(key);
    check(value == 2 * key, "somebody else's result");
    co_return value;
  }

  Task<int> grouped() {
    int sum = 0;
    auto add = [&]() -> Task<> { sum += co_await call(); };
    auto body = [&](TaskGroup& group) -> Task<> {
      for (int i = 0; i < 2; ++i) group.spawn(add());
      Mutex::Lock lock = co_await config_.lock();
      co_await pause(between(1ns, 1ms));
    };
    co_await task_group(body);
    co_return sum;
  }

  Task<int> work() {
    switch (random_.below(7)) {
      case 0:
      case 1:
        return persistently();
      case 2:
        return ordered();
      case 3:
        return several();
      case 4:
        return hedged();
      case 5:
        return batched();
      default:
        return grouped();
    }
  }

  // --- clients ---

  void note(const Result<int>& result) {
    if (result.has_value()) {
      ++counts_.values;
    } else if (result.is_timeout()) {
      ++counts_.timeouts;
    } else if (result.is_cancelled()) {
      ++counts_.cancelled;
    } else {
      ++counts_.errors;
    }
  }

  Task<> client(Tracked tracked) {
    ++counts_.requests;
    const nanoseconds limit = between(1ms, 10min);
    const Deadline last = now() + limit;
    if (random_.below(8) == 0) {  // goes away after a while
      JoinHandle<int> handle = spawn(work());
      co_await pause(limit);
      const bool was_done = handle.done();
      handle.cancel();
      Result<int> result = co_await as_result(std::move(handle));
      check(now() <= last + (was_done ? 0ns : kCleanup), "what was cancelled goes on");
      note(result);
    } else {
      auto bounded = timeout(work(), limit);
      Result<int> result = co_await as_result(std::move(bounded));
      check(now() <= last + kCleanup, "a limit was passed");
      // Nothing within has a shorter limit.
      if (result.is_timeout() && limit < 5s) check(now() >= last, "a limit came too early");
      note(result);
    }
    tracked.touch();
  }

  /// Of any length that a timer may have.
  Task<> timer() {
    ++counts_.timers;
    co_await pause(between(1ns, kCentury));
    ++counts_.due;
  }

  Task<> day() {
    const Deadline midnight = now() + kDay;
    level_at_ = now();
    open_.set();
    std::vector<JoinHandle<>> staff;
    for (int i = 0; i < kWorkers; ++i) staff.push_back(spawn(worker()));
    JoinHandle<> maintenance = spawn(maintain());
    std::vector<JoinHandle<>> timers;
    std::vector<JoinHandle<>> clients;
    for (;;) {
      const nanoseconds next = nanoseconds(
          static_cast<std::int64_t>(-std::log(1 - random_.unit()) * static_cast<double>(kEvery)));
      if (next > midnight - now()) break;
      co_await pause(next);
      std::erase_if(clients, [](const JoinHandle<>& handle) { return handle.done(); });
      clients.push_back(spawn(client(Tracked(ledger_))));
      if (random_.below(4) == 0) timers.push_back(spawn(timer()));
    }
    co_await sleep_until(midnight);
    check(now() == midnight, "the day did not end at midnight");
    co_await std::move(maintenance);
    for (JoinHandle<>& handle : clients) co_await std::move(handle);
    check(now() <= midnight + 10min + kCleanup, "a client stays for ever");
    queue_.close();
    for (JoinHandle<>& handle : staff) co_await std::move(handle);
    // The rest of the timers, through the century.
    for (JoinHandle<>& handle : timers) {
      if (random_.below(2) == 0) handle.cancel();
    }
    const Deadline before = now();
    for (JoinHandle<>& handle : timers) {
      Result<void> result = co_await as_result(std::move(handle));
      check(result.has_value() || result.is_cancelled(), "a timer failed");
    }
    check(now() <= before + kCentury, "a century was longer");
    co_await sleep_until(before + kCentury);
    check(limiter_.try_acquire(kBurst) && !limiter_.try_acquire(), "a full bucket is not full");
  }

  static constexpr std::int64_t kEvery = nanoseconds(60s).count();

  testing::SimulatedExecutor& executor_;
  Random random_;
  Ledger ledger_;
  Counts counts_;
  Semaphore slots_{kConnections};
  RateLimiter limiter_{kRate, kBurst};
  RetryBudget budget_{0.1, kReserve};
  Channel<Order> queue_{kQueue};
  Mutex config_;
  Event open_;
  Batcher<int, int> batcher_{5, 50ms,
                             [this](std::vector<int> keys) { return look_up(std::move(keys)); }};
  std::size_t calls_now_ = 0;
  double level_ = kBurst;
  Deadline level_at_;
};

Counts live_through_a_day(std::uint64_t seed) {
  testing::SimulatedExecutor executor(seed);
  Service service(executor, seed);
  return service.live_through_it();
}

TEST(Day, OfAServiceIsAccountedForToTheNanosecond) {
  const char* const replayed = std::getenv("SEED");
  const char* const wanted = std::getenv("MAGPIE_DAYS");
  const std::uint64_t first = test::seed_or(1);
  const std::uint64_t days = replayed != nullptr ? 1
                             : wanted != nullptr ? std::strtoull(wanted, nullptr, 10)
                                                 : (test::kScale == 1 ? 1000 : 2);
  Counts sum;
  for (std::uint64_t seed = first; seed < first + days; ++seed) {
    SCOPED_TRACE("SEED=" + std::to_string(seed));
    Counts counts;
    ASSERT_NO_THROW(counts = live_through_a_day(seed));
    sum.requests += counts.requests;
    sum.values += counts.values;
    sum.errors += counts.errors;
    sum.timeouts += counts.timeouts;
    sum.cancelled += counts.cancelled;
    sum.timers += counts.timers;
    sum.due += counts.due;
    sum.steps += counts.steps;
  }
  // A load in which all of it happens.
  EXPECT_GT(sum.values, sum.requests / 4);
  EXPECT_GT(sum.errors, sum.requests / 50);
  EXPECT_GT(sum.timeouts, sum.requests / 50);
  EXPECT_GT(sum.cancelled, sum.requests / 50);
  EXPECT_GT(sum.due, sum.timers / 2);
  EXPECT_LT(sum.due, sum.timers);
  std::printf(
      "%llu days of virtual time from SEED=%llu: %llu requests (%llu values, %llu errors, "
      "%llu timeouts, %llu cancelled), %llu timers, %llu steps\n",
      static_cast<unsigned long long>(days), static_cast<unsigned long long>(first),
      static_cast<unsigned long long>(sum.requests), static_cast<unsigned long long>(sum.values),
      static_cast<unsigned long long>(sum.errors), static_cast<unsigned long long>(sum.timeouts),
      static_cast<unsigned long long>(sum.cancelled), static_cast<unsigned long long>(sum.timers),
      static_cast<unsigned long long>(sum.steps));
}

TEST(Day, IsTheSameOnceMoreFromTheSameSeed) {
  EXPECT_EQ(live_through_a_day(7), live_through_a_day(7));
}

}  // namespace
}  // namespace magpie
