// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (one thread, no coroutine)

#include <magpie/detail/deque.h>

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace magpie::detail {

// The white box: where indices start, and which mode the deque is in.
class DequeTestAccess {
 public:
  static std::unique_ptr<Deque<>> starting_at(std::uint64_t index) {
    return std::unique_ptr<Deque<>>(new Deque<>(4, index));
  }
  static constexpr std::uint64_t restart_index = Deque<>::kRestartIndex;
  static constexpr std::uint64_t pops_before_bias = Deque<>::kPopsBeforeBias;
  static constexpr std::uint64_t shortest_dwell = Deque<>::kShortestDwell;
  static constexpr std::uint64_t roomy_for = Deque<>::kRoomyFor;
  template <class D>
  static bool biased(const D& deque) {
    return D::mode_of(deque.top_.load(std::memory_order_relaxed)) == D::Mode::biased;
  }
  template <class D>
  static std::uint64_t top_index(const D& deque) {
    return D::index_of(deque.top_.load(std::memory_order_relaxed));
  }
};

namespace {

using Steal = Deque<>::Steal;
constexpr std::uint64_t kMillisecond = 1'000'000;

// The bias exists only where the kernel grants membarrier (and not under ThreadSanitizer).
#define SKIP_WITHOUT_MEMBARRIER() \
  if (!StdEnv::prepare()) GTEST_SKIP() << "no membarrier here"

template <class Env>
typename Deque<Env>::Thief thief(Deque<Env>& deque) {
  static ThiefMark<Env> mark;  // of the one thread there is
  return deque.thief(mark);
}

void push(Deque<>& deque, std::uintptr_t item) {
  ASSERT_TRUE(deque.owner().push(item));
}

TEST(Deque, TheOwnerPopsTheNewestFirst) {
  Deque<> deque;
  for (std::uintptr_t item = 1; item <= 3; ++item) push(deque, item);
  EXPECT_EQ(deque.owner().pop(), 3U);
  EXPECT_EQ(deque.owner().pop(), 2U);
  EXPECT_EQ(deque.owner().pop(), 1U);
  EXPECT_EQ(deque.owner().pop(), 0U);
  EXPECT_EQ(deque.owner().pop(), 0U);
}

TEST(Deque, AThiefTakesTheOldestFirst) {
  Deque<> deque;
  for (std::uintptr_t item = 1; item <= 3; ++item) push(deque, item);
  for (std::uintptr_t item = 1; item <= 3; ++item) {
    const auto stolen = thief(deque).steal();
    EXPECT_EQ(stolen.outcome, Steal::stolen);
    EXPECT_EQ(stolen.item, item);
  }
  EXPECT_EQ(thief(deque).steal().outcome, Steal::empty);
  EXPECT_EQ(deque.owner().pop(), 0U);
}

TEST(Deque, TheOwnerCanTakeTheOldestInEitherMode) {
  Deque<> deque;
  for (std::uintptr_t item = 1; item <= 5; ++item) push(deque, item);
  EXPECT_EQ(deque.owner().take_oldest(), 1U);
  EXPECT_EQ(thief(deque).steal().item, 2U);
  EXPECT_EQ(deque.owner().take_oldest(), 3U);
  EXPECT_EQ(deque.owner().pop(), 5U);
  EXPECT_EQ(deque.owner().take_oldest(), 4U);
  EXPECT_EQ(deque.owner().take_oldest(), 0U);
  EXPECT_EQ(deque.owner().pop(), 0U);
}

TEST(Deque, PeekShowsWhatPopWouldReturn) {
  Deque<> deque;
  EXPECT_EQ(deque.owner().peek(), 0U) << "nothing was ever pushed";
  push(deque, 7);
  push(deque, 8);
  EXPECT_EQ(deque.owner().peek(), 8U);
  EXPECT_EQ(deque.owner().pop(), 8U);
  EXPECT_EQ(deque.owner().peek(), 7U);
}

TEST(Deque, TheHintCountsItems) {
  Deque<> deque;
  EXPECT_EQ(deque.size_hint(), 0U);
  push(deque, 1);
  push(deque, 2);
  EXPECT_EQ(thief(deque).size_hint(), 2U);
  EXPECT_EQ(thief(deque).steal().item, 1U);
  EXPECT_EQ(deque.owner().size_hint(), 1U);
}

TEST(Deque, ItGrowsAndKeepsWhatItHolds) {
  for (const unsigned stolen_before : {0U, 1U, 3U}) {
    Deque<> deque(4);
    std::uintptr_t next = 1;
    std::uintptr_t oldest = 1;
    for (unsigned i = 0; i < stolen_before; ++i) push(deque, next++);
    for (unsigned i = 0; i < stolen_before; ++i) {
      EXPECT_EQ(thief(deque).steal().item, oldest++);
    }
    for (int i = 0; i < 100; ++i) push(deque, next++);
    EXPECT_EQ(deque.size_hint(), 100U);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(thief(deque).steal().item, oldest++);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(deque.owner().pop(), --next);
    EXPECT_EQ(deque.owner().pop(), 0U);
  }
}

TEST(Deque, SlotsAreUsedAgainWithoutGrowing) {
  struct CountingEnv : StdEnv {
    static int& allocations() {
      static int count = 0;
      return count;
    }
    static void* allocate(std::size_t bytes) noexcept {
      ++allocations();
      return StdEnv::allocate(bytes);
    }
  };
  CountingEnv::allocations() = 0;
  Deque<CountingEnv> deque(4);
  for (std::uintptr_t item = 1; item <= 1000; item += 2) {
    ASSERT_TRUE(deque.owner().push(item));
    ASSERT_TRUE(deque.owner().push(item + 1));
    ASSERT_EQ(thief(deque).steal().item, item);
    ASSERT_EQ(deque.owner().pop(), item + 1);
  }
  EXPECT_EQ(CountingEnv::allocations(), 1);
}

struct PoorEnv : StdEnv {
  static inline int budget = 0;
  static void* allocate(std::size_t bytes) noexcept {
    return budget-- > 0 ? StdEnv::allocate(bytes) : nullptr;
  }
};

TEST(Deque, APushThatFindsNoMemoryToGrowLeavesTheDequeAsItWas) {
  PoorEnv::budget = 1;
  Deque<PoorEnv> deque(2);
  ASSERT_TRUE(deque.owner().push(1));
  ASSERT_TRUE(deque.owner().push(2));
  EXPECT_FALSE(deque.owner().push(3));
  EXPECT_EQ(deque.size_hint(), 2U);
  EXPECT_EQ(deque.owner().peek(), 2U);
  PoorEnv::budget = 1;
  EXPECT_TRUE(deque.owner().push(3));
  for (std::uintptr_t item = 3; item > 0; --item) EXPECT_EQ(deque.owner().pop(), item);
}

TEST(Deque, AConstructorWithoutMemoryThrows) {
  PoorEnv::budget = 0;
  EXPECT_THROW(Deque<PoorEnv>{16}, std::bad_alloc);
}

TEST(Deque, TheFirstThiefPaysOneBarrierAndTheNextNone) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  for (std::uintptr_t item = 1; item <= 3; ++item) push(deque, item);
  ASSERT_TRUE(DequeTestAccess::biased(deque));
  const std::uint64_t before = StdEnv::heavy_fences();
  EXPECT_EQ(thief(deque).steal().item, 1U);
  EXPECT_EQ(StdEnv::heavy_fences(), before + 1);
  EXPECT_FALSE(DequeTestAccess::biased(deque));
  EXPECT_EQ(thief(deque).steal().item, 2U);
  EXPECT_EQ(StdEnv::heavy_fences(), before + 1);
}

TEST(Deque, AThiefThatFindsItEmptyLeavesTheBiasAlone) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  EXPECT_EQ(thief(deque).steal().outcome, Steal::empty);
  EXPECT_TRUE(DequeTestAccess::biased(deque));
}

void pop_fenced(Deque<>& deque, std::uint64_t times) {
  for (std::uint64_t i = 0; i < times; ++i) {
    push(deque, 1);
    ASSERT_EQ(deque.owner().pop(), 1U);
  }
}

void lose_the_bias(Deque<>& deque) {
  push(deque, 1);
  ASSERT_EQ(thief(deque).steal().item, 1U);
  ASSERT_FALSE(DequeTestAccess::biased(deque));
}

TEST(Deque, TheBiasReturnsAfterManyPopsInALongTimeWithoutAThief) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  lose_the_bias(deque);
  const std::uint64_t now = StdEnv::now_ns();
  deque.owner().between_operations(now);  // the quiet stretch starts
  pop_fenced(deque, DequeTestAccess::pops_before_bias - 1);
  deque.owner().between_operations(now + 2 * kMillisecond);
  EXPECT_FALSE(DequeTestAccess::biased(deque)) << "one pop is missing";
  pop_fenced(deque, 1);
  deque.owner().between_operations(now + DequeTestAccess::shortest_dwell - 1);
  EXPECT_FALSE(DequeTestAccess::biased(deque)) << "a nanosecond is missing";
  deque.owner().between_operations(now + DequeTestAccess::shortest_dwell);
  EXPECT_TRUE(DequeTestAccess::biased(deque));
  push(deque, 5);
  EXPECT_EQ(deque.owner().pop(), 5U);
  push(deque, 6);
  EXPECT_EQ(thief(deque).steal().item, 6U);
}

TEST(Deque, AStealStartsTheQuietStretchAnew) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  lose_the_bias(deque);
  const std::uint64_t now = StdEnv::now_ns();
  deque.owner().between_operations(now);
  pop_fenced(deque, DequeTestAccess::pops_before_bias);
  push(deque, 2);
  ASSERT_EQ(thief(deque).steal().item, 2U);
  deque.owner().between_operations(now + 5 * kMillisecond);
  EXPECT_FALSE(DequeTestAccess::biased(deque));
  pop_fenced(deque, DequeTestAccess::pops_before_bias);
  deque.owner().between_operations(now + 10 * kMillisecond);
  EXPECT_TRUE(DequeTestAccess::biased(deque));
}

TEST(Deque, ABiasThatIsSoonRevokedReturnsLaterEachTime) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  std::uint64_t now = StdEnv::now_ns() + 1'000 * kMillisecond;  // past what other tests used up
  std::vector<std::uint64_t> dwells;
  for (int round = 0; round < 12; ++round) {
    lose_the_bias(deque);
    const std::uint64_t start = now;
    deque.owner().between_operations(now);
    pop_fenced(deque, DequeTestAccess::pops_before_bias);
    while (!DequeTestAccess::biased(deque)) {
      now += DequeTestAccess::shortest_dwell / 4;
      deque.owner().between_operations(now);
    }
    dwells.push_back((now - start) / DequeTestAccess::shortest_dwell);
  }
  EXPECT_EQ(dwells,
            (std::vector<std::uint64_t>{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000}));
}

TEST(Deque, TheBiasReturnsAlsoToAnOwnerThatOnlyPops) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  lose_the_bias(deque);
  // Nothing but pushes and pops, as in a tree of forks.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  push(deque, 7);  // stays: the last item is taken in another way
  while (!DequeTestAccess::biased(deque) && std::chrono::steady_clock::now() < end) {
    pop_fenced(deque, DequeTestAccess::pops_before_bias);
  }
  EXPECT_TRUE(DequeTestAccess::biased(deque));
  EXPECT_EQ(deque.owner().pop(), 7U);
}

TEST(Deque, AllDequesShareABudgetOfReturnsToTheBias) {
  SKIP_WITHOUT_MEMBARRIER();
  const std::uint64_t now = StdEnv::now_ns() + 100'000 * kMillisecond;
  int granted = 0;
  for (int i = 0; i < 1000; ++i) granted += StdEnv::may_barrier(now) ? 1 : 0;
  EXPECT_EQ(granted, 16);
  EXPECT_FALSE(StdEnv::may_barrier(now + kMillisecond / 8));
  EXPECT_TRUE(StdEnv::may_barrier(now + kMillisecond / 4));
  EXPECT_FALSE(StdEnv::may_barrier(now + kMillisecond / 4));
}

TEST(Deque, WithoutMembarrierItIsFencedForGood) {
  MembarrierForTests::refuse();
  {
    Deque<> deque;
    const std::uint64_t before = StdEnv::heavy_fences();
    EXPECT_FALSE(DequeTestAccess::biased(deque));
    lose_the_bias(deque);
    const std::uint64_t now = StdEnv::now_ns();
    deque.owner().between_operations(now);
    pop_fenced(deque, DequeTestAccess::pops_before_bias);
    deque.owner().between_operations(now + 1'000 * kMillisecond);
    EXPECT_FALSE(DequeTestAccess::biased(deque));
    EXPECT_EQ(StdEnv::heavy_fences(), before);
  }
  MembarrierForTests::restore();
}

TEST(Deque, IndicesStartOverBeforeTheyOverflow) {
  for (const bool biased : {true, false}) {
    const auto deque = DequeTestAccess::starting_at(DequeTestAccess::restart_index - 1);
    push(*deque, 1);
    push(*deque, 2);
    if (biased) {
      EXPECT_EQ(deque->owner().take_oldest(), 1U);
    } else {
      EXPECT_EQ(thief(*deque).steal().item, 1U);
    }
    deque->owner().between_operations(1);
    EXPECT_EQ(DequeTestAccess::top_index(*deque), DequeTestAccess::restart_index)
        << "it is not empty";
    EXPECT_EQ(deque->owner().take_oldest(), 2U);
    deque->owner().between_operations(2);
    EXPECT_EQ(DequeTestAccess::top_index(*deque), 1U);
    EXPECT_EQ(deque->owner().pop(), 0U);
    for (std::uintptr_t item = 1; item <= 9; ++item) push(*deque, item);
    EXPECT_EQ(thief(*deque).steal().item, 1U);
    EXPECT_EQ(deque->owner().pop(), 9U);
    EXPECT_EQ(deque->size_hint(), 7U);
  }
}

TEST(Deque, GrowsOnceForManyItems) {
  Deque<> deque(4);
  for (std::uintptr_t item = 1; item <= 3; ++item) push(deque, item);
  EXPECT_EQ(thief(deque).steal().item, 1U);
  const auto fits = [&](std::size_t count) {
    return deque.owner().with_room_for(count, [](auto) { return true; }, [] { return false; });
  };
  EXPECT_FALSE(fits(100));
  deque.owner().make_room_for(100);
  EXPECT_TRUE(fits(100));
  EXPECT_FALSE(fits(128));
  for (std::uintptr_t item = 4; item <= 103; ++item) push(deque, item);
  for (std::uintptr_t item = 2; item <= 52; ++item) EXPECT_EQ(deque.owner().take_oldest(), item);
  for (std::uintptr_t item = 103; item > 52; --item) EXPECT_EQ(deque.owner().pop(), item);
  EXPECT_EQ(deque.owner().pop(), 0U);
}

// Counts the bytes of rings, and stops whoever makes a fence.
struct RingEnv : StdEnv {
  static inline std::size_t bytes = 0;
  static inline int budget = 0;  // of allocations
  static inline bool affords_barrier = true;
  static inline std::function<void()> at_fence;

  RingEnv() {
    StdEnv::prepare();
    bytes = 0;
    budget = 1'000;
    affords_barrier = true;
    at_fence = nullptr;
  }
  static void* allocate(std::size_t size) noexcept {
    if (budget-- <= 0) return nullptr;
    bytes += size;
    return StdEnv::allocate(size);
  }
  static void deallocate(void* memory, std::size_t size) noexcept {
    bytes -= size;
    StdEnv::deallocate(memory, size);
  }
  static bool may_barrier(std::uint64_t) noexcept { return affords_barrier; }
  static void fence_seq_cst() noexcept {
    StdEnv::fence_seq_cst();
    if (at_fence) std::exchange(at_fence, nullptr)();
  }
  static void light_fence() noexcept {
    StdEnv::light_fence();
    if (at_fence) std::exchange(at_fence, nullptr)();
  }
};

// A deque whose first ring has four slots, one thief, and time.
class DequeRings : public ::testing::Test {
 protected:
  static std::size_t ring_of(std::size_t slots) { return 2 * 8 + slots * 8; }
  auto any() {
    return [this](auto&& shows) { return shows(mark_); };
  }
  void push(std::uintptr_t from, std::uintptr_t to) {
    for (std::uintptr_t item = from; item <= to; ++item) ASSERT_TRUE(owner_.push(item));
  }
  void pop(std::uintptr_t from, std::uintptr_t to) {
    for (std::uintptr_t item = from; item >= to; --item) ASSERT_EQ(owner_.pop(), item);
  }
  void tend_at(std::uint64_t now) { owner_.tend_rings(now, any()); }

  static constexpr std::uint64_t kLong = DequeTestAccess::roomy_for;
  RingEnv env_;  // as at the start
  Deque<RingEnv> deque_{4};
  ThiefMark<RingEnv> mark_;
  Deque<RingEnv>::Owner owner_ = deque_.owner();
  Deque<RingEnv>::Thief thief_ = deque_.thief(mark_);
};

TEST_F(DequeRings, WhatWasOutgrownIsFreed) {
  push(1, 100);
  EXPECT_GT(RingEnv::bytes, ring_of(128));
  EXPECT_TRUE(owner_.rings_due().has_value());
  tend_at(1);
  EXPECT_EQ(RingEnv::bytes, ring_of(128));
  tend_at(1 + kLong);
  tend_at(1 + 2 * kLong);
  EXPECT_EQ(RingEnv::bytes, ring_of(128)) << "what it holds needs the ring";
  pop(100, 1);
}

TEST_F(DequeRings, ARingThatHasLongBeenTooLargeGivesWayToASmallOne) {
  push(1, 100);
  pop(100, 4);
  tend_at(10);
  EXPECT_EQ(owner_.rings_due(), 10 + kLong);
  tend_at(9 + kLong);
  EXPECT_EQ(RingEnv::bytes, ring_of(128));
  tend_at(10 + kLong);
  EXPECT_EQ(RingEnv::bytes, ring_of(4));
  EXPECT_FALSE(owner_.rings_due().has_value());
  EXPECT_EQ(thief_.steal().item, 1U);
  push(4, 9);
  EXPECT_EQ(thief_.peek(), 2U);
  pop(9, 2);
  EXPECT_EQ(owner_.pop(), 0U);
}

TEST_F(DequeRings, ARingThatIsNeededNowAndThenStays) {
  push(1, 5);
  pop(5, 1);
  for (std::uint64_t now = 1; now < 10 * kLong; now += kLong) {
    tend_at(now);
    push(1, 4);  // the first would do
    pop(4, 1);
    tend_at(now + kLong / 2);
    push(1, 5);  // and would not
    pop(5, 1);
  }
  EXPECT_EQ(RingEnv::bytes, ring_of(8));
  EXPECT_EQ(RingEnv::budget, 998);
}

TEST_F(DequeRings, ItemsThatComeAndGoAreNoMoreThanThereAreAtATime) {
  push(1, 5);
  pop(5, 1);
  tend_at(1);
  for (std::uintptr_t item = 1; item <= 1'000; item += 4) {
    push(item, item + 3);
    for (std::uintptr_t i = item; i < item + 4; ++i) ASSERT_EQ(thief_.steal().item, i);
  }
  tend_at(1 + kLong);
  EXPECT_EQ(RingEnv::bytes, ring_of(4));
}

TEST_F(DequeRings, WhatAThiefReadsIsKeptUntilItIsThrough) {
  push(1, 1);
  ASSERT_EQ(thief_.steal().item, 1U);  // from now on a steal makes a fence at once
  const std::function<std::uintptr_t()> ways[] = {[&] { return thief_.steal().item; },
                                                  [&] { return thief_.peek(); }};
  for (const auto& read : ways) {
    push(1, 9);
    const std::size_t before = RingEnv::bytes;
    // Between its mark and the ring.
    RingEnv::at_fence = [&] {
      tend_at(1);
      EXPECT_EQ(RingEnv::bytes, before);
      EXPECT_TRUE(owner_.rings_due().has_value());
    };
    EXPECT_EQ(read(), 1U);
    EXPECT_FALSE(RingEnv::at_fence);
    tend_at(2);
    EXPECT_EQ(RingEnv::bytes, ring_of(16));
    while (owner_.pop() != 0) {
    }
    owner_.give_back_rings(any());
    EXPECT_EQ(RingEnv::bytes, ring_of(4));
  }
}

TEST_F(DequeRings, AThiefElsewhereKeepsNothing) {
  Deque<RingEnv> other(4);
  push(1, 5);
  ASSERT_TRUE(other.owner().push(1));
  RingEnv::at_fence = [&] {
    tend_at(1);
    EXPECT_EQ(RingEnv::bytes, ring_of(8) + ring_of(4));
  };
  EXPECT_EQ(other.thief(mark_).peek(), 1U);
  EXPECT_FALSE(RingEnv::at_fence);
}

TEST_F(DequeRings, AnOwnerThatLeavesGivesBackAtOnceWhatItDoesNotNeed) {
  push(1, 100);
  owner_.give_back_rings(any());
  EXPECT_EQ(RingEnv::bytes, ring_of(128));
  pop(100, 5);
  owner_.give_back_rings(any());
  EXPECT_EQ(RingEnv::bytes, ring_of(4));
  pop(4, 1);
}

TEST_F(DequeRings, WithoutMemoryForASmallRingTheLargeOneStaysUntilThereIsSome) {
  push(1, 100);
  pop(100, 1);
  tend_at(1);
  RingEnv::budget = 0;
  tend_at(1 + kLong);
  EXPECT_EQ(RingEnv::bytes, ring_of(128));
  EXPECT_EQ(owner_.rings_due(), 1 + 2 * kLong);
  push(1, 100);
  pop(100, 1);
  RingEnv::budget = 1;
  tend_at(1 + 2 * kLong);
  tend_at(1 + 3 * kLong);
  EXPECT_EQ(RingEnv::bytes, ring_of(4));
}

TEST_F(DequeRings, WhereNoBarrierCanBeAffordedRingsWait) {
  if (!StdEnv::asymmetric()) GTEST_SKIP() << "no membarrier here";
  push(1, 100);
  RingEnv::affords_barrier = false;
  const std::uint64_t before = StdEnv::heavy_fences();
  tend_at(1);
  EXPECT_GT(RingEnv::bytes, ring_of(128));
  RingEnv::affords_barrier = true;
  tend_at(2);
  tend_at(3);
  EXPECT_EQ(RingEnv::bytes, ring_of(128));
  EXPECT_EQ(StdEnv::heavy_fences(), before + 1);
}

template <class T>
concept Pushes = requires(T handle) { handle.push(1); };
template <class T>
concept Steals = requires(T handle) { handle.steal(); };
static_assert(Pushes<Deque<>::Owner> && !Pushes<Deque<>::Thief> && !Pushes<Deque<>>);
static_assert(Steals<Deque<>::Thief> && !Steals<Deque<>::Owner> && !Steals<Deque<>>);

}  // namespace
}  // namespace magpie::detail
