// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A service under load. Clients send one request after the other; 64 of them are more than the
// workers can serve at once, so a request's latency is that of the queue and of whoever is in front
// of it. What comes is drawn from a seed:
//
//   82 %  short: 4 us of work under a deadline that is far away
//   12 %  guarded: the same while it holds one of 4 permits, with a yield in between
//    4 %  long: 400 us of work, with a checkpoint every 4 us
//    1 %  hopeless: works until its deadline of 200 us strikes
//    1 %  withdrawn: works, with a yield every 4 us, until its client cancels it from another task
//
// No peer beside it has deadlines, cancellation and permits together; written by hand over one of
// them they would be another program. What is compared is one state of this library with another.

#include <support/bench.h>
#include <support/latency.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/semaphore.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

namespace bench {
namespace {

using magpie::Task;
using namespace std::chrono_literals;

constexpr std::size_t kClients = 64;
constexpr std::size_t kRequests = 64;  // of each client
constexpr std::size_t kAll = kClients * kRequests;
constexpr std::size_t kPermits = 4;
constexpr std::size_t kSlices = 100;  // of a long request
constexpr auto kShortDeadline = 200us;

enum class Kind : std::uint8_t { plain, guarded, lengthy, hopeless, withdrawn };

std::vector<Kind> requests_of(std::size_t client) {
  std::minstd_rand random(static_cast<std::uint32_t>(client) + 1);
  std::vector<Kind> kinds(kRequests);
  for (Kind& kind : kinds) {
    const auto drawn = random() % 100;
    kind = drawn < 82   ? Kind::plain
           : drawn < 94 ? Kind::guarded
           : drawn < 98 ? Kind::lengthy
           : drawn < 99 ? Kind::hopeless
                        : Kind::withdrawn;
  }
  return kinds;
}

// About 4 us on a machine of today: a slice of a request's work, which looks at nothing.
void work() {
  std::uint64_t x = 88'172'645'463'325'252;
  for (int i = 0; i < 2'000; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
  }
  benchmark::DoNotOptimize(x);
}

// What became of the requests: how many ended in each way, and how long they took.
struct Ledger {
  std::array<std::atomic<std::size_t>, 3> ended{};  // served, timed out, cancelled
  std::vector<std::chrono::nanoseconds> took = std::vector<std::chrono::nanoseconds>(kAll);
  std::vector<std::vector<Kind>> kinds;

  Ledger() {
    for (std::size_t client = 0; client < kClients; ++client) kinds.push_back(requests_of(client));
  }
  void clear() {
    for (auto& count : ended) count.store(0, std::memory_order_relaxed);
  }
  void count(std::size_t how) { ended[how].fetch_add(1, std::memory_order_relaxed); }
  std::size_t of(std::size_t how) const { return ended[how].load(std::memory_order_relaxed); }
  // Only the hopeless time out, and only the withdrawn are cancelled.
  bool is_right() const {
    std::array<std::size_t, 3> expected{};
    for (const auto& client : kinds) {
      for (const Kind kind : client)
        ++expected[kind == Kind::hopeless ? 1U : kind == Kind::withdrawn ? 2U : 0U];
    }
    return of(0) == expected[0] && of(1) == expected[1] && of(2) == expected[2];
  }
};

Task<void> plain() {
  work();
  co_return;
}

Task<void> guarded(magpie::Semaphore& permits) {
  const magpie::Permit permit = co_await permits.acquire();
  co_await magpie::this_task::yield();
  work();
}

Task<void> lengthy() {
  for (std::size_t i = 0; i < kSlices; ++i) {
    work();
    co_await magpie::this_task::checkpoint();
  }
}

Task<void> hopeless() {
  for (;;) {
    work();
    co_await magpie::this_task::checkpoint();
  }
}

Task<void> patient() {
  for (;;) {
    work();
    co_await magpie::this_task::yield();
  }
}

Task<void> cancel_it(magpie::CancellationSource& source) {
  source.cancel();
  co_return;
}

Task<void> withdrawn() {
  magpie::CancellationSource source;
  co_await magpie::gather(magpie::with_token(source.token(), patient()), cancel_it(source));
}

Task<void> request(Kind kind, magpie::Semaphore& permits) {
  switch (kind) {
    case Kind::plain:
      return plain();
    case Kind::guarded:
      return guarded(permits);
    case Kind::lengthy:
      return lengthy();
    case Kind::hopeless:
      return hopeless();
    case Kind::withdrawn:
      return withdrawn();
  }
  return plain();
}

Task<void> client(std::size_t number, Ledger& ledger, magpie::Semaphore& permits) {
  for (std::size_t i = 0; i < kRequests; ++i) {
    const Kind kind = ledger.kinds[number][i];
    const magpie::Duration deadline =
        kind == Kind::hopeless ? magpie::Duration(kShortDeadline) : magpie::Duration(1h);
    const SteadyTime sent = now();
    co_await magpie::this_task::yield();  // behind those that were there before
    const magpie::Result<void> result =
        co_await magpie::as_result(magpie::timeout(request(kind, permits), deadline));
    ledger.took[number * kRequests + i] = now() - sent;
    ledger.count(result.is_timeout() ? 1 : result.is_cancelled() ? 2 : 0);
  }
}

Task<void> service(Ledger& ledger) {
  magpie::Semaphore permits(kPermits);
  std::vector<Task<void>> clients;
  for (std::size_t i = 0; i < kClients; ++i) clients.push_back(client(i, ledger, permits));
  co_await magpie::gather(std::move(clients));
}

// -------------------------------------------------------------------------------------------------

template <class Once>
void measure_service(benchmark::State& state, Ledger& ledger, Once once) {
  Latencies latencies;
  bool warm = false;
  measure(
      state,
      [&] {
        ledger.clear();
        once();
        if (warm) {
          for (const auto took : ledger.took) latencies.add(took);
        }
        warm = true;
      },
      [&] { return ledger.is_right(); });
  count_operations(state, kAll);
  latencies.report(state);
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add("service", "magpie", threads, [=](benchmark::State& state) {
      magpie::WorkStealingExecutor executor({.threads = threads});
      Ledger ledger;
      measure_service(state, ledger, [&] { executor.run(service(ledger)); });
    });
  }
}

}  // namespace bench
