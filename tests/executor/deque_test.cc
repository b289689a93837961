// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
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
    const auto stolen = deque.thief().steal();
    EXPECT_EQ(stolen.outcome, Steal::stolen);
    EXPECT_EQ(stolen.item, item);
  }
  EXPECT_EQ(deque.thief().steal().outcome, Steal::empty);
  EXPECT_EQ(deque.owner().pop(), 0U);
}

TEST(Deque, TheOwnerCanTakeTheOldestInEitherMode) {
  Deque<> deque;
  for (std::uintptr_t item = 1; item <= 5; ++item) push(deque, item);
  EXPECT_EQ(deque.owner().take_oldest(), 1U);
  EXPECT_EQ(deque.thief().steal().item, 2U);
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
  EXPECT_EQ(deque.thief().size_hint(), 2U);
  EXPECT_EQ(deque.thief().steal().item, 1U);
  EXPECT_EQ(deque.owner().size_hint(), 1U);
}

TEST(Deque, ItGrowsAndKeepsWhatItHolds) {
  for (const unsigned stolen_before : {0U, 1U, 3U}) {
    Deque<> deque(4);
    std::uintptr_t next = 1;
    std::uintptr_t oldest = 1;
    for (unsigned i = 0; i < stolen_before; ++i) push(deque, next++);
    for (unsigned i = 0; i < stolen_before; ++i) {
      EXPECT_EQ(deque.thief().steal().item, oldest++);
    }
    for (int i = 0; i < 100; ++i) push(deque, next++);
    EXPECT_EQ(deque.size_hint(), 100U);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(deque.thief().steal().item, oldest++);
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
    ASSERT_EQ(deque.thief().steal().item, item);
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
  EXPECT_EQ(deque.thief().steal().item, 1U);
  EXPECT_EQ(StdEnv::heavy_fences(), before + 1);
  EXPECT_FALSE(DequeTestAccess::biased(deque));
  EXPECT_EQ(deque.thief().steal().item, 2U);
  EXPECT_EQ(StdEnv::heavy_fences(), before + 1);
}

TEST(Deque, AThiefThatFindsItEmptyLeavesTheBiasAlone) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  EXPECT_EQ(deque.thief().steal().outcome, Steal::empty);
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
  ASSERT_EQ(deque.thief().steal().item, 1U);
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
  EXPECT_EQ(deque.thief().steal().item, 6U);
}

TEST(Deque, AStealStartsTheQuietStretchAnew) {
  SKIP_WITHOUT_MEMBARRIER();
  Deque<> deque;
  lose_the_bias(deque);
  const std::uint64_t now = StdEnv::now_ns();
  deque.owner().between_operations(now);
  pop_fenced(deque, DequeTestAccess::pops_before_bias);
  push(deque, 2);
  ASSERT_EQ(deque.thief().steal().item, 2U);
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
  for (int i = 0; i < 1000; ++i) granted += StdEnv::may_bias(now) ? 1 : 0;
  EXPECT_EQ(granted, 16);
  EXPECT_FALSE(StdEnv::may_bias(now + kMillisecond / 8));
  EXPECT_TRUE(StdEnv::may_bias(now + kMillisecond / 4));
  EXPECT_FALSE(StdEnv::may_bias(now + kMillisecond / 4));
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
      EXPECT_EQ(deque->thief().steal().item, 1U);
    }
    deque->owner().between_operations(1);
    EXPECT_EQ(DequeTestAccess::top_index(*deque), DequeTestAccess::restart_index)
        << "it is not empty";
    EXPECT_EQ(deque->owner().take_oldest(), 2U);
    deque->owner().between_operations(2);
    EXPECT_EQ(DequeTestAccess::top_index(*deque), 1U);
    EXPECT_EQ(deque->owner().pop(), 0U);
    for (std::uintptr_t item = 1; item <= 9; ++item) push(*deque, item);
    EXPECT_EQ(deque->thief().steal().item, 1U);
    EXPECT_EQ(deque->owner().pop(), 9U);
    EXPECT_EQ(deque->size_hint(), 7U);
  }
}

TEST(Deque, GrowsOnceForManyItems) {
  Deque<> deque(4);
  for (std::uintptr_t item = 1; item <= 3; ++item) push(deque, item);
  EXPECT_EQ(deque.thief().steal().item, 1U);
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

template <class T>
concept Pushes = requires(T handle) { handle.push(1); };
template <class T>
concept Steals = requires(T handle) { handle.steal(); };
static_assert(Pushes<Deque<>::Owner> && !Pushes<Deque<>::Thief> && !Pushes<Deque<>>);
static_assert(Steals<Deque<>::Thief> && !Steals<Deque<>::Owner> && !Steals<Deque<>>);

}  // namespace
}  // namespace magpie::detail
