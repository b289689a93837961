// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The requests of workload/service.cc, and what becomes of them: the same for every side.

#include <support/bench.h>
#include <support/latency.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace bench::service {

using namespace std::chrono_literals;

constexpr std::size_t kClients = 64;
constexpr std::size_t kRequests = 64;  // of each client
constexpr std::size_t kAll = kClients * kRequests;
constexpr std::size_t kPermits = 4;
constexpr std::size_t kSlices = 100;  // of a long request
constexpr auto kShortDeadline = 200us;

// What a request is: see workload/service.cc.
enum class Kind : std::uint8_t { plain, guarded, lengthy, hopeless, withdrawn };

inline std::vector<Kind> requests_of(std::size_t client) {
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
inline void work() {
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

/// `once` serves all clients, and has every request counted.
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

}  // namespace bench::service
