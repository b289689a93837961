// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Linked into the programs of the tour where tests are built: `<program> --cancel-everywhere`
// cancels the program at its k-th moment between two steps, for every k, in several orders, through
// its handle and through a token; and on workers at random moments. However it is cancelled, it
// ends, cancelled or with its value, with no task and no timer left; what leaks is the sanitizer's
// to say. What the programs print goes nowhere. MAGPIE_SEED= begins with another order.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <thread>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include <examples/support/tour.h>
#include <support/scale.h>

namespace tour {
namespace {

using magpie::JoinHandle;
using magpie::Task;

constexpr std::uint64_t kOrders = magpie::test::kScale == 1 ? 12 : 2;
constexpr int kRounds = magpie::test::kScale == 1 ? 60 : 20;
constexpr long kForEver = 1'000'000;

bool failed = false;
long trials = 0;
long ended_cancelled = 0;
long ended_failed = 0;

void complain(const char* how, long at, std::uint64_t seed, const char* what) {
  failed = true;
  std::fprintf(stderr, "%s at %ld, MAGPIE_SEED=%llu: %s\n", how, at,
               static_cast<unsigned long long>(seed), what);
}

void check_outcome(const magpie::Result<void>& result, const char* how, long at,
                   std::uint64_t seed) {
  ++trials;
  if (result.has_value()) return;
  if (result.is_cancelled()) {
    ++ended_cancelled;
    return;
  }
  ++ended_failed;
  try {
    std::rethrow_exception(result.error());
  } catch (const std::runtime_error&) {
    // What the programs fail with.
  } catch (const std::exception& error) {
    complain(how, at, seed, error.what());
  }
}

void check_rest(const magpie::Executor& executor, const char* how, long at, std::uint64_t seed) {
  const magpie::ExecutorStats stats = executor.stats();
  if (stats.live_tasks != 0) complain(how, at, seed, "tasks are left");
  if (stats.pending_timers != 0) complain(how, at, seed, "timers are left");
}

Task<> see_the_end(JoinHandle<>& handle) {
  co_await as_result(handle);
}

/// False: it had ended before that moment.
bool cancel_at(Task<> (*program)(), long at, bool by_token, std::uint64_t seed) {
  const char* const how = by_token ? "cancelled by a token" : "cancelled by its handle";
  magpie::testing::SimulatedExecutor executor(seed);
  magpie::CancellationSource source;
  clock = &executor.clock();
  start = clock->now();
  JoinHandle<> handle = executor.spawn(program(), magpie::SpawnOptions().token(source.token()));
  long moment = 0;
  bool reached = false;
  executor.between_steps([&] {
    const long now = moment++;
    if (now > kForEver) {
      complain(how, at, seed, "it goes on for ever");
      std::abort();
    }
    if (now != at) return;
    reached = !handle.done();
    by_token ? source.cancel("everywhere") : handle.cancel("everywhere");
  });
  try {
    executor.run(see_the_end(handle));
  } catch (const magpie::testing::DeadlockError& error) {
    complain(how, at, seed, error.what());
  }
  if (handle.done()) {
    check_outcome(handle.result(), how, at, seed);
  } else {
    complain(how, at, seed, "the program has not ended");
  }
  check_rest(executor, how, at, seed);
  return reached;
}

void cancel_on_workers(Task<> (*program)(), std::uint64_t seed) {
  const char* const how = "cancelled on workers";
  magpie::detail::Random random(seed);
  magpie::ManualClock virtual_time;
  magpie::WorkStealingExecutor executor({.threads = 3, .clock = &virtual_time});
  clock = &virtual_time;
  start = clock->now();
  for (int round = 0; round < kRounds; ++round) {
    JoinHandle<> handle = executor.spawn(program());
    // Time moves while this thread waits, so another one cancels; it stands still meanwhile, or it
    // could pass between two of the things that are cancelled.
    std::thread canceller(
        [&virtual_time, handle, pause = random.below(std::uint64_t{1} << (8 + round % 12))] {
          const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(pause);
          while (std::chrono::steady_clock::now() < until) {
          }
          const auto hold = virtual_time.hold();
          handle.cancel("everywhere");
        });
    const magpie::Result<void>& result = handle.wait();
    canceller.join();
    check_outcome(result, how, round, seed);
  }
  executor.shutdown(std::chrono::seconds(0));
  check_rest(executor, how, kRounds, seed);
}

}  // namespace

int cancel_everywhere(Task<> (*program)()) {
  if (std::freopen("/dev/null", "w", stdout) == nullptr) return 2;
  const char* const text = std::getenv("MAGPIE_SEED");
  const std::uint64_t first = text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
  for (std::uint64_t seed = first; seed < first + kOrders && !failed; ++seed) {
    for (const bool by_token : {false, true}) {
      for (long at = 0; !failed && cancel_at(program, at, by_token, seed);) ++at;
    }
  }
  cancel_on_workers(program, first);
  std::fprintf(stderr, "%ld trials: %ld ended cancelled, %ld failed\n", trials, ended_cancelled,
               ended_failed);
  if (ended_cancelled == 0) complain("cancelled", 0, first, "it never ended cancelled");
  return failed ? 1 : 0;
}

}  // namespace tour
