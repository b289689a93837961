// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>
#include <magpie/detail/event_count.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <vector>

#include "expect.h"
#include "sim.h"

// No wake-up is lost: a thread that sleeps although there is work for it is a deadlock here. First
// the event count alone, then a worker that parks against one that pushes (PARKING.md).

namespace magpie::model {
namespace {

using detail::Deque;
using detail::EventCount;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto seq_cst = std::memory_order_seq_cst;

// Each of the takers needs one unit; the givers put in as many, one by one, and notify; or all, and
// notify so many at once.
template <Mutant kMutant>
struct Units {
  using Env = SimEnv<kMutant>;
  typename Env::template Atomic<int> left{0};
  EventCount<Env> event;

  void give() {
    left.fetch_add(1, relaxed);
    Env::fence_seq_cst();
    event.notify_one();
  }
  bool try_take() {
    int seen = left.load(relaxed);
    while (seen > 0) {
      if (left.compare_exchange_strong(seen, seen - 1, relaxed, relaxed)) return true;
    }
    return false;
  }
  void take(std::optional<std::uint64_t> deadline) {
    while (!try_take()) {
      const auto key = event.prepare();
      Env::fence_seq_cst();
      if (try_take()) {
        event.cancel(key);
        return;
      }
      // Who gives up waiting looks once more, then sleeps without a deadline.
      if (!event.wait(key, deadline)) deadline.reset();
    }
  }
};

constexpr std::uint32_t kAll = 0x7fffffff;

template <Mutant kMutant>
Report give_and_take(Options options, std::size_t givers, int each,
                     std::optional<std::uint64_t> deadline,
                     std::optional<std::uint32_t> at_once = std::nullopt) {
  return explore(options, [=](Sim& sim) {
    Units<kMutant> units;
    sim.spawn_alike(givers, [&, each, at_once](std::size_t) {
      if (at_once) {
        units.left.fetch_add(each, relaxed);
        SimEnv<>::fence_seq_cst();
        static_cast<void>(units.event.notify(*at_once));
      } else {
        for (int n = 0; n < each; ++n) units.give();
      }
    });
    sim.spawn_alike(givers * static_cast<std::size_t>(each),
                    [&, deadline](std::size_t) { units.take(deadline); });
    sim.run();
    sim.check(units.event.waiters() == 0, "a waiter was not counted out");
  });
}

// As many as `leavers` are counted in and go at once, while each is notified; and one, who comes
// meanwhile, needs a unit.
template <Mutant kMutant>
Report leave_as_notified(Options options, int leavers) {
  return explore(options, [=](Sim& sim) {
    Units<kMutant> units;
    std::vector<typename EventCount<SimEnv<kMutant>>::Key> keys;
    for (int i = 0; i < leavers; ++i) keys.push_back(units.event.prepare());
    sim.spawn_alike(keys.size(), [&](std::size_t i) { units.event.cancel(keys[i]); });
    sim.spawn([&, leavers] {
      for (int i = 0; i < leavers; ++i) units.event.notify_one();
      units.give();
    });
    sim.spawn([&] { units.take(std::nullopt); });
    sim.run();
    sim.check(units.event.waiters() == 0, "a waiter was not counted out");
  });
}

// One waits for the first thing to be done, and others until he has seen that; whoever does either
// notifies all, and somebody else just one.
template <Mutant kMutant>
Report one_thing_after_the_other(Options options, bool and_one) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    EventCount<Env> event;
    typename Env::template Atomic<int> first(0);
    typename Env::template Atomic<int> second(0);
    const auto wait_for = [&](auto& thing) {
      while (thing.load(relaxed) == 0) {
        const auto key = event.prepare();
        Env::fence_seq_cst();
        if (thing.load(relaxed) != 0) return event.cancel(key);
        event.wait(key, std::nullopt);
      }
    };
    const auto tell = [&](auto& thing) {
      thing.store(1, relaxed);
      Env::fence_seq_cst();
      event.notify_all();
    };
    sim.spawn([&] {
      wait_for(first);
      tell(second);
    });
    sim.spawn([&] { wait_for(second); });
    sim.spawn([&] { tell(first); });
    if (and_one) sim.spawn([&] { event.notify_one(); });
    sim.run();
    sim.check(event.waiters() == 0, "a waiter was not counted out");
  });
}

TEST(EventCountModel, OneGiverWakesTwoSleepers) {
  expect_clean(give_and_take<Mutant::none>({.preemptions = bound(3)}, 1, 2, std::nullopt));
}

TEST(EventCountModel, TwoGiversWakeTwoSleepers) {
  expect_clean(give_and_take<Mutant::none>({.preemptions = bound(2)}, 2, 1, std::nullopt));
}

TEST(EventCountModel, ADeadlineMayComeAtAnyMoment) {
  expect_clean(give_and_take<Mutant::none>({.preemptions = bound(2)}, 1, 2, 1'000));
}

TEST(EventCountModel, NotifyAllWakesEverySleeper) {
  expect_clean(give_and_take<Mutant::none>({.preemptions = bound(2)}, 1, 2, std::nullopt, kAll));
}

TEST(EventCountModel, OneCallWakesTwoSleepers) {
  expect_clean(give_and_take<Mutant::none>({.preemptions = bound(3)}, 1, 2, std::nullopt, 2));
  expect_clean(give_and_take<Mutant::none>({.preemptions = bound(2)}, 1, 2, 1'000, 2));
}

TEST(EventCountModel, NotifyAllWakesTheOneWhoMustGoOn) {
  expect_clean(one_thing_after_the_other<Mutant::none>({.preemptions = bound(2)}, false));
  expect_clean(one_thing_after_the_other<Mutant::none>({.preemptions = bound(2)}, true));
}

TEST(EventCountModel, WhoLeavesAsItIsNotifiedKeepsNothingFromWhoComes) {
  expect_clean(leave_as_notified<Mutant::none>({.preemptions = bound(4)}, 1));
  expect_clean(leave_as_notified<Mutant::none>({.preemptions = bound(3)}, 2));
}

TEST(EventCountModel, ManySleepersInRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = give_and_take<Mutant::none>(
        {.strategy = strategy, .executions = 50'000, .pct_depth = 4}, 2, 3, 1'000);
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(EventCountModelMutant, WhoComesAfterANotifyAllIsWokenInPlaceOfAnother) {
  hunt(one_thing_after_the_other<Mutant::event_count_counts_all>({.preemptions = 2}, false));
}

TEST(EventCountModelMutant, ANotificationMustMoveTheEpoch) {
  hunt(give_and_take<Mutant::event_count_no_epoch>({.preemptions = 3}, 1, 2, std::nullopt));
  hunt(leave_as_notified<Mutant::event_count_no_epoch>({.preemptions = 3}, 1));
}

// ---- parking ----

enum class Park { sound, without_heavy_fence, without_rescan, rescan_before_counting_in };
enum class Push { sound, without_looking };

// One worker pushes `items`, looks for sleepers after each push, and takes none itself: the parker
// must get them all. In a pool the pusher would go on with them; here it is busy for ever.
template <Park kPark, Push kPush = Push::sound>
Report park_against_push(Options options, std::uintptr_t items, std::size_t parkers,
                         bool asymmetric = true, bool timed = false) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    sim.set_asymmetric(asymmetric);
    Deque<Env> deque(2);
    ThiefMarks<Env> marks;
    EventCount<Env> sleepers;
    Env::Atomic<std::uint32_t> attention(0);
    std::uintptr_t taken = 0;

    sim.spawn([&, items] {
      for (std::uintptr_t item = 1; item <= items; ++item) {
        sim.check(deque.owner().push(item), "push failed");  // P6, with the light fence
        if constexpr (kPush == Push::sound) {
          if (attention.load(relaxed) != 0) sleepers.notify_one();  // P6, P2
        }
      }
    });

    sim.spawn_alike(parkers, [&, items, timed](std::size_t) {
      const auto look = [&] {  // true: no reason to sleep
        const auto stolen = deque.thief(marks[sim.this_thread()]).steal();
        if (stolen.item != 0) {
          taken += 1;
          // More where it came from: the next sleeper is this worker's to wake.
          if (deque.size_hint() > 0 && attention.load(seq_cst) != 0) sleepers.notify_one();
        }
        return stolen.outcome != Deque<Env>::Steal::empty;
      };
      bool short_park = timed;
      while (taken < items) {
        if (look()) {
          Env::yield_thread();
          continue;
        }
        if constexpr (kPark == Park::rescan_before_counting_in) {
          Env::heavy_fence();
          if (look()) continue;
        }
        attention.fetch_add(1, seq_cst);      // P1
        const auto key = sleepers.prepare();  // P1
        // P3. A short park does without the heavy fence: it ends by itself.
        if (kPark != Park::without_heavy_fence && !short_park) Env::heavy_fence();
        const bool rescan = kPark == Park::sound || kPark == Park::without_heavy_fence;
        if (taken >= items || (rescan && look())) {
          sleepers.cancel(key);
          attention.fetch_sub(1, seq_cst);
          continue;
        }
        const std::optional<std::uint64_t> deadline =
            short_park ? std::optional<std::uint64_t>(sim.now_ns() + 50) : std::nullopt;
        short_park = sleepers.wait(key, deadline) && timed;
        attention.fetch_sub(1, seq_cst);
      }
      // Whoever took the last item tells the others, which is this model's shutdown.
      Env::fence_seq_cst();
      sleepers.notify_all();
    });
    sim.run();
    sim.check(taken == items, "an item was lost");
  });
}

TEST(ParkingModel, NoPushIsOverlookedByOneParker) {
  expect_clean(park_against_push<Park::sound>({.preemptions = bound(3)}, 2, 1));
}

TEST(ParkingModel, NoPushIsOverlookedByTwoParkers) {
  expect_clean(park_against_push<Park::sound>({.preemptions = bound(2)}, 2, 2));
}

TEST(ParkingModel, NoPushIsOverlookedWithoutAsymmetricFences) {
  expect_clean(park_against_push<Park::sound>({.preemptions = bound(2)}, 2, 1, false));
}

TEST(ParkingModel, AShortParkNeedsNoHeavyFence) {
  expect_clean(park_against_push<Park::sound>({.preemptions = bound(2)}, 2, 1, true, true));
}

TEST(ParkingModelMutant, WithoutTheHeavyFenceAPushIsOverlooked) {
  hunt(park_against_push<Park::without_heavy_fence>({.preemptions = 3}, 2, 1));
}

TEST(ParkingModelMutant, WithoutARescanAPushIsOverlooked) {
  hunt(park_against_push<Park::without_rescan>({.preemptions = 3}, 2, 1));
}

TEST(ParkingModelMutant, ARescanBeforeCountingInIsTooEarly) {
  hunt(park_against_push<Park::rescan_before_counting_in>({.preemptions = 3}, 2, 1));
}

TEST(ParkingModelMutant, APusherThatDoesNotLookWakesNobody) {
  hunt(park_against_push<Park::sound, Push::without_looking>({.preemptions = 3}, 2, 1));
}

// ---- parking with one bit ----
//
// As the workers do it: attention holds one bit, "somebody sleeps and nobody has been woken since".
// Whoever takes it away wakes one sleeper, so that a worker that pushes often calls at most once;
// who was woken puts the bit back before it runs what it found.

enum class Bit {
  sound,
  without_heavy_fence,
  without_rescan,
  without_passing_on,
  passing_on_without_heavy_fence,
  bit_after_rescan,
  bit_taken_by_load_and_store,
};

// Each parker takes one item and is then busy for ever, so every one of them must be woken.
template <Bit kBit>
Report one_item_each(Options options, int pushers, int each, int stages = 2) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    constexpr std::uint32_t kSleepers = 1;
    std::deque<Deque<Env>> deques;
    ThiefMarks<Env> marks;
    for (int i = 0; i < pushers; ++i) deques.emplace_back(2);
    EventCount<Env> sleepers;
    Env::Atomic<std::uint32_t> attention(0);

    // Of as many pushes as there may be, one that takes the bit wakes somebody: no more calls than
    // times that somebody said he would sleep.
    unsigned said = 0;
    unsigned calls = 0;
    const auto will_sleep = [&] {
      if ((attention.fetch_or(kSleepers, seq_cst) & kSleepers) == 0) ++said;
    };
    const auto wake = [&](std::uint32_t most) {  // P2
      if (most == 0) return false;
      std::uint32_t before;
      if (kBit == Bit::bit_taken_by_load_and_store) {
        before = attention.load(relaxed);
        attention.store(before & ~kSleepers, seq_cst);
      } else {
        before = attention.fetch_and(~kSleepers, seq_cst);
      }
      if ((before & kSleepers) == 0) return false;
      sim.check(++calls <= said, "two wake-ups for one who sleeps");
      return sleepers.notify(most);
    };
    const auto work_in_sight = [&](std::size_t enough) {
      std::size_t seen = 0;
      for (const Deque<Env>& deque : deques) {
        if (seen < enough) seen += deque.size_hint();
      }
      return static_cast<std::uint32_t>(std::min(seen, enough));
    };

    for (int i = 0; i < pushers; ++i) {
      sim.spawn([&, i, each] {
        Deque<Env>& mine = deques[static_cast<std::size_t>(i)];
        for (int n = 0; n < each; ++n) {
          sim.check(mine.owner().push(1), "push failed");           // P6
          if ((attention.load(relaxed) & kSleepers) != 0) wake(1);  // P6
        }
      });
    }
    sim.spawn_alike(static_cast<std::size_t>(pushers * each), [&, stages](std::size_t) {
      bool woken = false;
      const auto steal = [&] {
        for (Deque<Env>& deque : deques) {
          if (deque.size_hint() != 0 && deque.thief(marks[sim.this_thread()]).steal().item != 0)
            return true;
        }
        return false;
      };
      while (!steal()) {
        if (work_in_sight(1) != 0) {
          Env::yield_thread();
          continue;
        }
        woken = true;
        bool notified = false;
        for (int stage = 2 - stages; stage < 2 && !notified; ++stage) {
          const auto key = sleepers.prepare();                                     // P1
          if (kBit != Bit::bit_after_rescan) will_sleep();                         // P1
          if (stage == 1 && kBit != Bit::without_heavy_fence) Env::heavy_fence();  // P3
          if (kBit != Bit::without_rescan && work_in_sight(1) != 0) {              // P4
            sleepers.cancel(key);
            break;
          }
          if (kBit == Bit::bit_after_rescan) will_sleep();
          notified = sleepers.wait(
              key, stage == 0 ? std::optional<std::uint64_t>(sim.now_ns() + 50) : std::nullopt);
        }
      }
      if (kBit != Bit::without_passing_on && woken && sleepers.waiters() != 0) {  // P5
        will_sleep();
        if (const std::uint32_t seen = work_in_sight(2); seen != 0) {
          wake(seen);
          return;
        }
        if (kBit != Bit::passing_on_without_heavy_fence) Env::heavy_fence();
        wake(work_in_sight(2));
      }
    });
    sim.run();
  });
}

TEST(ParkingBitModel, EachOfTwoSleepersIsWokenForItsItem) {
  expect_clean(one_item_each<Bit::sound>({.preemptions = bound(3)}, 1, 2, 1));
}

TEST(ParkingBitModel, TwoPushersWakeTwoSleepers) {
  expect_clean(one_item_each<Bit::sound>({.preemptions = bound(2)}, 2, 1, 1));
}

TEST(ParkingBitModel, WhoIsWokenWakesTwo) {
  expect_clean(one_item_each<Bit::sound>({.preemptions = 1}, 1, 3, 1));
}

TEST(ParkingBitModel, AShortParkComesBeforeTheLongOne) {
  expect_clean(one_item_each<Bit::sound>({.preemptions = 1}, 1, 2, 2));
}

TEST(ParkingBitModel, ManyMoreInRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = one_item_each<Bit::sound>(
        {.strategy = strategy, .executions = 30'000, .pct_depth = 4, .pct_length = 300}, 2, 2);
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(ParkingBitModelMutant, WithoutTheHeavyFenceAPushIsOverlooked) {
  hunt(one_item_each<Bit::without_heavy_fence>({.preemptions = 3}, 1, 2, 1));
}

TEST(ParkingBitModelMutant, OnePushTakesTheBit) {
  hunt(one_item_each<Bit::bit_taken_by_load_and_store>({.preemptions = 2}, 2, 1));
}

TEST(ParkingBitModelMutant, WithoutARescanAPushIsOverlooked) {
  hunt(one_item_each<Bit::without_rescan>({.preemptions = 3}, 1, 2, 1));
}

TEST(ParkingBitModelMutant, WhoIsWokenMustPassItOn) {
  hunt(one_item_each<Bit::without_passing_on>({.preemptions = 3}, 1, 2, 1));
}

// The second push found no bit, and its item is still under way to memory when the one that was
// woken for the first looks for more.
TEST(ParkingBitModelMutant, WhoPassesItOnWithoutAHeavyFenceOverlooksAPush) {
  hunt(one_item_each<Bit::passing_on_without_heavy_fence>({.preemptions = 3}, 1, 2, 1));
}

TEST(ParkingBitModelMutant, ABitThatIsSetAfterTheRescanComesTooLate) {
  hunt(one_item_each<Bit::bit_after_rescan>({.preemptions = 3}, 1, 2, 1));
}

// ---- a pool ----
//
// Workers that all push and park. Work comes from outside through a queue: who takes a piece of it
// pushes an item of its own and is then busy for ever, and so is who takes an item: as many workers
// as pieces and items, and each of them must be woken. Who finds all others asleep does without the
// heavy fences (P8).

enum class Census { sound, overlooks_one };

template <Census kCensus>
Report pool(Options options, std::size_t pieces) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    constexpr std::uint32_t kSleepers = 1;
    const std::size_t workers = 2 * pieces;
    std::deque<Deque<Env>> deques;
    ThiefMarks<Env> marks;
    for (std::size_t i = 0; i < workers; ++i) deques.emplace_back(2);
    EventCount<Env> sleepers;
    Env::Atomic<std::uint32_t> attention(0);
    Env::Atomic<std::size_t> inbox(0);

    const auto wake = [&](std::uint32_t most) {  // P2
      if ((attention.fetch_and(~kSleepers, seq_cst) & kSleepers) != 0) sleepers.notify(most);
    };
    const auto work_in_sight = [&] {
      if (inbox.load(relaxed) != 0) return true;
      for (const Deque<Env>& deque : deques) {
        if (deque.size_hint() != 0) return true;
      }
      return false;
    };
    const auto all_sleep_but = [&](std::size_t awake) {  // P8
      const std::size_t asleep = sleepers.waiters_in_order();
      return asleep + awake == workers ||
             (kCensus == Census::overlooks_one && asleep + awake + 1 == workers);
    };

    sim.spawn([&] {
      for (std::size_t i = 0; i < pieces; ++i) {
        inbox.fetch_add(1, relaxed);
        Env::fence_seq_cst();
        if ((attention.load(relaxed) & kSleepers) != 0) wake(1);  // P6
      }
    });
    for (std::size_t self = 0; self < workers; ++self) {
      sim.spawn([&, self] {
        const auto take_piece = [&] {
          std::size_t seen = inbox.load(relaxed);
          while (seen != 0) {
            if (inbox.compare_exchange_strong(seen, seen - 1, relaxed, relaxed)) return true;
          }
          return false;
        };
        const auto steal = [&] {
          for (Deque<Env>& deque : deques) {
            if (deque.size_hint() != 0 && deque.thief(marks[sim.this_thread()]).steal().item != 0)
              return true;
          }
          return false;
        };
        bool woken = false;
        bool piece = false;
        while (!(piece = take_piece()) && !steal()) {
          woken = true;
          bool notified = false;
          for (int stage = 0; stage < 2 && !notified; ++stage) {
            const auto key = sleepers.prepare();          // P1
            attention.fetch_or(kSleepers, seq_cst);       // P1
            const bool last = all_sleep_but(0);           // P8
            if (stage == 1 && !last) Env::heavy_fence();  // P3
            if (work_in_sight()) {                        // P4
              sleepers.cancel(key);
              Env::yield_thread();
              break;
            }
            notified = sleepers.wait(key, stage == 0 && !last
                                              ? std::optional<std::uint64_t>(sim.now_ns() + 50)
                                              : std::nullopt);
          }
        }
        if (woken && sleepers.waiters() != 0) {  // P5
          attention.fetch_or(kSleepers, seq_cst);
          bool seen = work_in_sight();
          if (!seen) {
            if (!all_sleep_but(1)) Env::heavy_fence();  // P8
            seen = work_in_sight();
          }
          if (seen) wake(2);
        }
        if (!piece) return;
        sim.check(deques[self].owner().push(1), "push failed");   // P6
        if ((attention.load(relaxed) & kSleepers) != 0) wake(1);  // P6
      });
    }
    sim.run();
  });
}

TEST(PoolModel, WhoSleepsLastNeedsNoFence) {
  expect_clean(pool<Census::sound>({.preemptions = bound(2)}, 1));
}

TEST(PoolModel, ManyMoreInRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = pool<Census::sound>(
        {.strategy = strategy, .executions = 30'000, .pct_depth = 4, .pct_length = 300}, 2);
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(PoolModelMutant, AWorkerThatIsUpIsOverlooked) {
  hunt(pool<Census::overlooks_one>({.preemptions = 3}, 1));
}

}  // namespace
}  // namespace magpie::model
