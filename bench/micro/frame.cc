// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// What a coroutine's frame costs besides running: its memory, from the cache of frames and beside
// it from the allocator; a scope that is entered and left around it; and an exception that goes
// through one and through ten of them, beside plain functions.

#include <support/bench.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <magpie/cancellation.h>
#include <magpie/config.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/task.h>
#include <magpie/timeout.h>

namespace bench {
namespace {

using magpie::Task;
using namespace std::chrono_literals;

constexpr std::size_t kFrames = 1'000'000;
constexpr std::size_t kScopes = 100'000;
constexpr std::size_t kThrows = 10'000;

// ---- memory -------------------------------------------------------------------------------------

// Sizes of usual frames, in turn; `deep` of them at a time.
template <class Allocate, class Free>
std::size_t frames(std::size_t deep, Allocate allocate, Free free) {
  constexpr std::array<std::size_t, 4> kSizes{96, 128, 192, 320};
  std::vector<void*> held(deep);
  std::size_t done = 0;
  for (; done < kFrames; done += deep) {
    for (std::size_t i = 0; i < deep; ++i) {
      held[i] = allocate(kSizes[i % kSizes.size()]);
      benchmark::DoNotOptimize(held[i]);
    }
    for (std::size_t i = deep; i-- > 0;) free(held[i], kSizes[i % kSizes.size()]);
  }
  return done;
}

template <class Allocate, class Free>
void add_frames(const char* side, std::size_t deep, Allocate allocate, Free free) {
  add("frame_memory_" + std::to_string(deep), side, 1, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure(
        state, [&] { result = frames(deep, allocate, free); }, [&] { return result == kFrames; });
    count_operations(state, kFrames);
  });
}

// ---- scopes -------------------------------------------------------------------------------------

MAGPIE_NOINLINE Task<std::size_t> one() {
  co_return 1;
}

Task<std::size_t> in_turn() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kScopes; ++i) sum += co_await one();
  co_return sum;
}

Task<std::size_t> cancel_scopes() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kScopes; ++i) {
    const magpie::Result<std::size_t> result =
        co_await magpie::cancel_scope([](magpie::CancelScope&) { return one(); });
    sum += result.value_or(std::size_t{0});
  }
  co_return sum;
}

Task<std::size_t> timeout_scopes() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kScopes; ++i)
    sum += co_await magpie::timeout_scope(1h, [](magpie::TimeoutScope&) { return one(); });
  co_return sum;
}

Task<std::size_t> masks() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kScopes; ++i) sum += co_await magpie::uncancellable(one());
  co_return sum;
}

// ---- exceptions ---------------------------------------------------------------------------------

struct Thrown {};

MAGPIE_NOINLINE Task<std::size_t> throws_through(std::size_t frames) {
  if (frames == 1) throw Thrown();
  co_return co_await throws_through(frames - 1);
}

Task<std::size_t> catches(std::size_t frames) {
  std::size_t caught = 0;
  for (std::size_t i = 0; i < kThrows; ++i) {
    try {
      co_await throws_through(frames);
    } catch (const Thrown&) {
      ++caught;
    }
  }
  co_return caught;
}

MAGPIE_NOINLINE std::size_t plain_throws_through(std::size_t frames) {
  if (frames == 1) throw Thrown();
  std::size_t below = plain_throws_through(frames - 1);
  benchmark::DoNotOptimize(below);  // as a tail call it would leave no frame to unwind
  return below;
}

std::size_t plain_catches(std::size_t frames) {
  std::size_t caught = 0;
  for (std::size_t i = 0; i < kThrows; ++i) {
    try {
      benchmark::DoNotOptimize(plain_throws_through(frames));
    } catch (const Thrown&) {
      ++caught;
    }
  }
  return caught;
}

// -------------------------------------------------------------------------------------------------

template <class Make>
void add_task(const std::string& workload, const char* side, std::size_t operations, Make make) {
  add(workload, side, 1, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, 1, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == operations; });
    count_operations(state, operations);
  });
}

}  // namespace

// One thread: nothing here is shared.
void register_benchmarks(const Options&) {
  for (const std::size_t deep : {std::size_t{1}, std::size_t{100}}) {
    add_frames("magpie", deep, magpie::detail::allocate_frame, magpie::detail::free_frame);
    add_frames(
        "operator_new", deep, [](std::size_t size) { return ::operator new(size); },
        [](void* frame, std::size_t size) { ::operator delete(frame, size); });
  }
  add_task("cancel_scope", "magpie", kScopes, cancel_scopes);
  add_task("timeout_scope", "magpie", kScopes, timeout_scopes);
  add_task("uncancellable", "magpie", kScopes, masks);
  for (const char* scope : {"cancel_scope", "timeout_scope", "uncancellable"})
    add_task(scope, "sequential_awaits", kScopes, in_turn);
  for (const std::size_t frames : {std::size_t{1}, std::size_t{10}}) {
    const std::string workload = "exception_through_" + std::to_string(frames);
    add_task(workload, "magpie", kThrows, [=] { return catches(frames); });
    add(workload, "plain_functions", 1, [=](benchmark::State& state) {
      std::size_t result = 0;
      measure(state, [&] { result = plain_catches(frames); }, [&] { return result == kThrows; });
      count_operations(state, kThrows);
    });
  }
}

}  // namespace bench
