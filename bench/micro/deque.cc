// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// The deque of a worker: pushed and popped by its owner, stolen from by one thief that has it to
// itself, and both at once.

#include <support/bench.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>

#include <magpie/detail/deque.h>

namespace bench {
namespace {

using Deque = magpie::detail::Deque<>;

constexpr std::size_t kItems = 1'000'000;

void push(Deque& deque, std::uintptr_t item) {
  if (!deque.owner().push(item)) throw std::bad_alloc();
}

std::size_t push_and_pop(Deque& deque, std::size_t depth) {
  std::size_t popped = 0;
  for (std::size_t done = 0; done < kItems; done += depth) {
    for (std::uintptr_t i = 1; i <= depth; ++i) push(deque, i);
    for (std::size_t i = 0; i < depth; ++i) popped += deque.owner().pop() != 0;
  }
  return popped;
}

std::size_t push_and_steal(Deque& deque) {
  constexpr std::size_t kDepth = 1'000;
  std::size_t stolen = 0;
  magpie::detail::ThiefMark<> mark;
  for (std::size_t done = 0; done < kItems; done += kDepth) {
    for (std::uintptr_t i = 1; i <= kDepth; ++i) push(deque, i);
    while (deque.thief(mark).steal().outcome == Deque::Steal::stolen) ++stolen;
  }
  return stolen;
}

// The owner pushes pairs and pops one of each; what it leaves is for the thief.
std::size_t under_theft(Deque& deque) {
  std::atomic<bool> over{false};
  std::size_t stolen = 0;
  std::jthread thief([&] {
    magpie::detail::ThiefMark<> mark;
    for (;;) {
      const bool last = over.load(std::memory_order_acquire);  // with the store below
      const auto taken = deque.thief(mark).steal();
      if (taken.outcome == Deque::Steal::stolen) ++stolen;
      if (taken.outcome != Deque::Steal::empty) continue;
      if (last) return;
      std::this_thread::yield();
    }
  });
  std::size_t popped = 0;
  for (std::size_t done = 0; done < kItems; done += 2) {
    push(deque, 1);
    push(deque, 2);
    popped += deque.owner().pop() != 0;
    if (done % 1'024 == 0) {  // the deque keeps as many as a deep tree would
      while (deque.owner().pop() != 0) ++popped;
    }
  }
  while (deque.owner().pop() != 0) ++popped;
  over.store(true, std::memory_order_release);
  thief.join();
  return popped + stolen;
}

template <class Run>
void add_one(const char* workload, Run run) {
  add(workload, "magpie", 1, [=](benchmark::State& state) {
    Deque deque;
    std::size_t result = 0;
    measure(state, [&] { result = run(deque); }, [&] { return result == kItems; });
    count_operations(state, kItems);
  });
}

}  // namespace

void register_benchmarks(const Options&) {
  add_one("deque_push_pop_1", [](Deque& deque) { return push_and_pop(deque, 1); });
  add_one("deque_push_pop_100", [](Deque& deque) { return push_and_pop(deque, 100); });
  add_one("deque_push_steal", push_and_steal);
  add_one("deque_under_theft", under_theft);
}

}  // namespace bench
