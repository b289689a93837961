// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (what happens without memory)

// Combinators over many tasks when memory runs out: whichever allocation fails, each either does
// without or ends with an error, never hangs, and leaves nothing behind. And how much memory what
// waits takes.

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <forward_list>
#include <new>
#include <ranges>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_completed.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/thread_state.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/hedge.h>
#include <magpie/join_handle.h>
#include <magpie/limited.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/wait.h>
#include <magpie/work_stealing_executor.h>

#include <support/counting_new.h>
#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

Task<Tracked> tracked(Ledger& ledger, int steps) {
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
  if (steps == 3) throw std::runtime_error("three");
  co_return Tracked(ledger);
}

std::vector<Task<Tracked>> several(Ledger& ledger, int count) {
  std::vector<Task<Tracked>> tasks;
  for (int i = 0; i < count; ++i) tasks.push_back(tracked(ledger, i % 3));
  return tasks;
}

Task<> limited(Ledger& ledger) {
  (void)co_await gather_limited(3, several(ledger, 7));
}

Task<> mapped(Ledger& ledger) {
  std::vector<int> items(40);
  auto work = [&](int) { return tracked(ledger, 1); };
  (void)co_await map_concurrent(items, 5, work);
}

Task<> streamed(Ledger& ledger) {
  auto body = [](CompletionStream<Tracked>& stream) -> Task<> {
    for (auto next = co_await stream.next(); next; next = co_await stream.next()) {
    }
  };
  co_await as_completed(several(ledger, 7), Duration(std::chrono::seconds(1)), body);
}

Task<> waited(Ledger& ledger) {
  std::vector<JoinHandle<Tracked>> handles;
  for (int i = 0; i < 5; ++i) handles.push_back(spawn(tracked(ledger, i % 3)));
  (void)co_await wait(handles, ReturnWhen::first_completed, std::chrono::seconds(1));
  (void)co_await wait(handles);
}

Task<> hedged(Ledger& ledger) {
  int attempts = 0;
  auto ask = [&] { return tracked(ledger, ++attempts < 4 ? 3 : 1); };
  (void)co_await hedge(ask, HedgeOptions().delay(std::chrono::seconds(1)).max_attempts(5));
}

Task<> staggered(Ledger& ledger) {
  std::vector<TaskFactory<Tracked>> ways(4, [&] { return tracked(ledger, 2); });
  (void)co_await staggered_race(std::move(ways), std::chrono::nanoseconds(0));
}

bool is_memory(const std::exception_ptr& error) {
  return is<std::bad_alloc>(error) ||
         (is<ExceptionGroup>(error) && group_of(error).contains<std::bad_alloc>());
}

class FanoutMemory : public ::testing::TestWithParam<Task<> (*)(Ledger&)> {};
INSTANTIATE_TEST_SUITE_P(Combinators, FanoutMemory,
                         ::testing::Values(limited, mapped, streamed, waited, hedged, staggered));

TEST_P(FanoutMemory, EveryAllocationMayFail) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "operator new is the sanitizer's own";
#endif
  std::size_t failed = 0;
  bool reached = true;
  for (std::size_t n = 1; reached && n < 1000; ++n) {
    Ledger ledger;
    {
      testing::SimulatedExecutor simulator(n);
      std::exception_ptr error;
      auto program = [&]() -> Task<> {
        fail_allocation_after(n - 1);
        try {
          co_await GetParam()(ledger);
        } catch (...) {
          error = std::current_exception();
        }
        reached = allocations() >= failing_allocation.exchange(0);
      };
      simulator.run(program());
      if (error) {
        ++failed;
        EXPECT_TRUE(is_memory(error)) << n << ": " << what_of(error);
      }
    }
    EXPECT_EQ(ledger.alive(), 0) << n;
  }
  EXPECT_FALSE(reached);
  EXPECT_GT(failed, 0u);
}

#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN) && defined(NDEBUG)

constexpr std::size_t kWaiting = 1'000;

std::size_t unstarted = 0;  // on the one worker; not in the frames, which are measured

Task<> waits_for(Event& event) {
  --unstarted;
  co_await event.wait();
}

// While it lives, the depot has no frames of up to 256 bytes that tests before this one have left.
class EmptyDepot {
 public:
  EmptyDepot() {
    for (std::size_t size = 16; size <= 256; size += 16) {
      for (bool cached = true; cached;) {
        const std::size_t before = allocations();
        void* const frame = detail::allocate_frame(size);
        cached = allocations() == before;
        held_.push_front({frame, size});
      }
    }
  }
  EmptyDepot(const EmptyDepot&) = delete;
  EmptyDepot& operator=(const EmptyDepot&) = delete;
  ~EmptyDepot() {
    for (const auto& [frame, size] : held_) detail::free_frame(frame, size);
  }

 private:
  std::forward_list<std::pair<void*, std::size_t>> held_;
};

[[maybe_unused]] const bool counted_freed = counts_freed.exchange(true);

std::size_t bytes_held() {
  return allocated_bytes() - freed_bytes();
}

// On a worker: until its deque has a small ring again, because it has long held little.
Task<> ring_is_small() {
  while (detail::local_queue()->deque.owner().rings_due().has_value())
    co_await sleep_for(std::chrono::milliseconds(20));
}

// Bytes for each of what `start` has waiting for the event, with what there is for all of them. On
// a worker of its own, whose cache of frames is empty.
template <class Start>
std::size_t bytes_of_each(Start start) {
  const EmptyDepot empty_depot;
  std::size_t bytes = 0;
  WorkStealingExecutor executor({.threads = 1});
  Event event;
  auto probe = [&](std::size_t before) -> Task<> {
    while (unstarted != 0) co_await this_task::yield();
    co_await ring_is_small();
    bytes = (bytes_held() - before) / kWaiting;
    event.set();
  };
  executor.run(start(event, probe));
  return bytes;
}

// Of a range that makes each child when gather takes it, so that no container counts.
template <class Make>
std::size_t bytes_of_a_child(Make make) {
  auto start = [make](Event& event, auto& probe) -> Task<> {
    auto make_one = [&](std::size_t) { return make(event); };
    auto children = std::views::iota(std::size_t{0}, kWaiting) | std::views::transform(make_one);
    const std::size_t before = bytes_held();
    unstarted = detail::IsOperation<decltype(make(event))> ? 0 : kWaiting;
    auto all = gather(std::move(children));
    auto both = gather(std::move(all), probe(before));
    co_await std::move(both);
  };
  return bytes_of_each(start);
}

std::size_t bytes_of_a_spawned_task() {
  auto start = [](Event& event, auto& probe) -> Task<> {
    std::vector<JoinHandle<>> handles;
    handles.reserve(kWaiting);
    const std::size_t before = bytes_held();
    unstarted = kWaiting;
    for (std::size_t i = 0; i < kWaiting; ++i) handles.push_back(spawn(waits_for(event)));
    co_await probe(before);
    for (auto& handle : handles) co_await std::move(handle);
  };
  return bytes_of_each(start);
}

// The limits are what is taken today, so that nobody makes it more unawares; bench/NOTES.md says
// what of. A child has a record among the others of its gather, and a frame of its own; a spawned
// task has a record of its own, and a place in the list of what is live.
#if defined(__clang__)
constexpr std::size_t kFrame = 128;
#else
constexpr std::size_t kFrame = 160;
#endif

void expect_at_most(std::size_t bytes, std::size_t limit) {
  std::printf("%zu bytes each\n", bytes);
  EXPECT_LE(bytes, limit);
}

static_assert(sizeof(detail::EventWait) == 72);
static_assert(sizeof(detail::TaskChild<void>) == 40 && sizeof(detail::TaskChild<int*>) == 40);

// As many wake-ups as make a ring of a megabyte. What they wake lies in one vector.
TEST(WaitingMemory, ABurstLeavesNothingBehind) {
  constexpr std::size_t kBurst = 100'000;
  WorkStealingExecutor executor({.threads = 1});
  executor.run([]() -> Task<> { co_return; }());
  const std::size_t before = bytes_held();
  std::size_t most = 0;
  auto program = [&]() -> Task<> {
    Event event;
    auto wait = [&](std::size_t) { return event.wait(); };
    auto waits = std::views::iota(std::size_t{0}, kBurst) | std::views::transform(wait);
    auto wakes = [&]() -> Task<> {
      const std::size_t waiting = bytes_held();
      event.set();
      most = bytes_held() - waiting;
      co_return;
    };
    auto all = gather(std::move(waits));
    auto both = gather(std::move(all), wakes());
    co_await std::move(both);
  };
  executor.run(program());
  EXPECT_GT(most, kBurst * 8) << "the wake-ups did not lie in the deque";
  // The worker sleeps, and gets up for it.
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (bytes_held() - before >= 4'096 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_LT(bytes_held() - before, 4'096U);
}

TEST(WaitingMemory, AChildWithAFrame) {
  expect_at_most(bytes_of_a_child(waits_for), kFrame + 40);
}
TEST(WaitingMemory, AChildWithoutAFrame) {
  expect_at_most(bytes_of_a_child([](Event& event) { return event.wait(); }), 88);
}
TEST(WaitingMemory, ASpawnedTask) {
  expect_at_most(bytes_of_a_spawned_task(), kFrame + 168);
}

#endif

}  // namespace
}  // namespace magpie
