// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)
// ctest-leave-out: asan (words and waits, hardly memory)

#include <magpie/detail/nappers.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/parallel.h>
#include <magpie/spawn.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>
#include <support/scale.h>

namespace magpie {
namespace {

using detail::BasicNappers;
using detail::Deque;
using detail::StdEnv;
using test::scaled;

struct Place {
  BasicNappers<StdEnv> nappers;
  std::atomic<std::uint32_t> word{0};
  bool marked() const { return (word.load() & detail::attention::kNappers) != 0; }
};

TEST(BeyondAStrand, OneStrandIsPassedOnWhereasAForkOrTwoStrandsAreNewWork) {
  Deque<StdEnv> deque;
  const auto by_all = [&] {
    const bool beyond = detail::beyond_a_strand(deque.owner());
    detail::ThiefMark<> mark;
    EXPECT_EQ(detail::beyond_a_strand(deque.thief(mark)), beyond);
    return beyond;
  };
  EXPECT_FALSE(by_all());
  ASSERT_TRUE(deque.owner().push(8));
  EXPECT_FALSE(by_all());
  ASSERT_TRUE(deque.owner().push(16));
  EXPECT_TRUE(by_all());
  EXPECT_EQ(deque.owner().pop(), 16U);
  EXPECT_FALSE(by_all());
  EXPECT_EQ(deque.owner().pop(), 8U);
  ASSERT_TRUE(deque.owner().push(8 | detail::kForkTag));
  EXPECT_TRUE(by_all());
}

TEST(Nappers, NobodyIsWokenWhereNobodyNaps) {
  Place place;
  EXPECT_EQ(place.nappers.count(), 0U);
  EXPECT_FALSE(place.nappers.wake_one(place.word));
}

TEST(Nappers, WhoFindsNewWorkDoesNotNapAndLeavesTheBitUp) {
  Place place;
  EXPECT_TRUE(place.nappers.nap(place.word, std::nullopt, [&] {
    EXPECT_TRUE(place.nappers.count() == 1 && place.marked());
    return true;
  }));
  EXPECT_EQ(place.nappers.count(), 0U);
  EXPECT_TRUE(place.marked());
  EXPECT_FALSE(place.nappers.wake_one(place.word));
  EXPECT_FALSE(place.marked());
}

TEST(Nappers, ANapEndsByItself) {
  Place place;
  EXPECT_FALSE(place.nappers.nap(place.word, StdEnv::now_ns(), [] { return false; }));
  EXPECT_EQ(place.nappers.count(), 0U);
}

TEST(Nappers, EachOfTwoIsWokenOnceTheBitIsUpAgain) {
  Place place;
  std::atomic<int> up{0};
  auto napper = [&] {
    EXPECT_TRUE(place.nappers.nap(place.word, std::nullopt, [] { return false; }));
    up.fetch_add(1);
  };
  std::thread first(napper);
  while (!place.marked()) std::this_thread::yield();
  std::thread second(napper);
  // Until both are counted in the bit may go up again.
  while (up.load() == 0) {
    place.nappers.wake_one(place.word);
    std::this_thread::yield();
  }
  while (up.load() != 2) {
    if (place.nappers.count() != 0) place.word.fetch_or(detail::attention::kNappers);
    place.nappers.wake_one(place.word);
    std::this_thread::yield();
  }
  first.join();
  second.join();
  EXPECT_EQ(place.nappers.count(), 0U);
}

// Naps without an end, with the heavy fence that short ones do without.
TEST(Nappers, EveryForkOfAThousandEndsANap) {
  Place place;
  Deque<StdEnv> deque;
  constexpr std::uintptr_t kStrand = 8;
  constexpr std::uintptr_t kFork = 8 | detail::kForkTag;
  const std::uint64_t forks = scaled(1'000);
  std::atomic<std::uint64_t> taken{0};
  std::thread napper([&] {
    detail::ThiefMark<> mark;
    const auto thief = deque.thief(mark);
    while (taken.load() != forks) {
      if (!detail::beyond_a_strand(thief)) {
        place.nappers.nap(place.word, std::nullopt, [&] {
          StdEnv::heavy_fence();
          return detail::beyond_a_strand(thief);
        });
      } else if (thief.steal().item == kFork) {
        taken.fetch_add(1);
      }
    }
  });
  for (std::uint64_t i = 1; i <= forks; ++i) {
    for (int handed = 0; handed < 10; ++handed) {
      EXPECT_TRUE(deque.owner().push(kStrand));
      // What the other one sees is a hint: it may have taken two strands, one after the other, for
      // two at a time.
      static_cast<void>(deque.owner().pop());
    }
    EXPECT_TRUE(deque.owner().push(kFork));
    if (place.marked()) place.nappers.wake_one(place.word);
    while (taken.load() != i) std::this_thread::yield();
  }
  napper.join();
}

// Whatever comes after a worker has seen strands passed on for a while, and may nap, is run by
// another one, while the first does not let go of its thread.
TEST(Nappers, NewWorkOfEachKindIsRunBesideAWorkerThatIsBusy) {
  for (const std::size_t threads : {std::size_t{2}, std::size_t{4}}) {
    WorkStealingExecutor executor({.threads = threads});
    auto meet = [](std::atomic<int>& inside) -> Task<> {
      ++inside;
      while (inside.load() != 2) std::this_thread::yield();
      co_return;
    };
    auto count = [](std::atomic<int>& inside) -> Task<> {
      ++inside;
      co_return;
    };
    auto rounds = [&]() -> Task<> {
      for (std::uint64_t round = 0; round < 4 * scaled(10); ++round) {
        for (int i = 0; i < 2'000; ++i) co_await this_task::yield();
        // What is posted may still look when the round is over.
        const auto shared = std::make_shared<std::atomic<int>>(0);
        std::atomic<int>& inside = *shared;
        auto enter = [shared] {
          ++*shared;
          while (shared->load() != 2) std::this_thread::yield();
        };
        if (round % 4 == 0) {
          co_await gather(meet(inside), meet(inside));
        } else if (round % 4 == 1) {
          fork_join(enter, enter);
        } else if (round % 4 == 2) {
          JoinHandle<> first = spawn(count(inside));
          JoinHandle<> second = spawn(count(inside));
          while (inside.load() != 2) std::this_thread::yield();
          co_await std::move(first);
          co_await std::move(second);
        } else {
          std::thread stranger([&] { executor.post(enter); });
          enter();
          stranger.join();
        }
        EXPECT_EQ(inside.load(), 2);
      }
    };
    executor.run(rounds());
  }
}

}  // namespace
}  // namespace magpie
