// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>
#include <magpie/detail/event_count.h>
#include <magpie/detail/nappers.h>

#include <gtest/gtest.h>

#include <optional>

#include "expect.h"
#include "sim.h"

// Workers that leave a strand to its owner and nap (PARKING.md, N1 to N5), beside others that
// sleep. One owner passes strands on, then forks; nobody else takes a strand, and each of the
// others is busy for ever with the one fork that it takes, and so is the owner. There are as many
// as forks, so each must be woken, whatever it was doing: a fork that nobody comes for is a
// deadlock.

namespace magpie::model {
namespace {

namespace attention = detail::attention;
using detail::BasicNappers;
using detail::Deque;
using detail::EventCount;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto seq_cst = std::memory_order_seq_cst;

enum class Flaw {
  none,
  deaf,                  // a fork wakes sleepers only
  shaken,                // a strand that is passed on wakes whoever naps
  no_passing_on,         // who was woken from a nap does not look after others that nap
  light_passing_on,      // ... or without a heavy fence
  keeps_a_notification,  // who naps on the way from its sleep forgets that it was woken
};

struct Setup {
  std::size_t forks = 2;
  std::size_t strands = 1;
  bool timed = false;  // each one's first nap ends by itself, and makes no fence
};

template <Flaw kFlaw = Flaw::none, Mutant kMutant = Mutant::none>
Report pass_on_then_fork(Options options, Setup setup) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    constexpr std::uintptr_t kStrand = 8;
    constexpr std::uintptr_t kFork = 8 | detail::kForkTag;
    Deque<Env> deque(4);
    ThiefMarks<Env> marks;
    EventCount<Env> sleepers;
    BasicNappers<Env> nappers;
    typename Env::template Atomic<std::uint32_t> word(0);
    bool only_strands = true;

    const auto wake_sleeper = [&] {  // P2
      return (word.fetch_and(~attention::kSleepers, seq_cst) & attention::kSleepers) != 0 &&
             sleepers.notify_one();
    };
    const auto wake_napper = [&] {
      sim.check(!only_strands, "a strand that is passed on wakes whoever naps");
      return nappers.wake_one(word);
    };

    sim.spawn([&, setup] {
      const auto announce = [&] {  // P6, N4
        const std::uint32_t bits = word.load(relaxed);
        if ((bits & attention::kSleepers) != 0 && wake_sleeper()) return;
        if (kFlaw == Flaw::deaf || (bits & attention::kNappers) == 0) return;
        if (kFlaw == Flaw::shaken || detail::beyond_a_strand(deque.owner())) wake_napper();
      };
      for (std::size_t i = 0; i < setup.strands; ++i) {
        sim.check(deque.owner().push(kStrand), "push failed");
        announce();
        sim.check(deque.owner().pop() == kStrand, "a strand was not left to its owner");
      }
      only_strands = false;
      for (std::size_t i = 0; i < setup.forks; ++i) {
        sim.check(deque.owner().push(kFork), "push failed");
        announce();
      }
    });

    for (std::size_t i = 0; i < setup.forks; ++i) {
      sim.spawn([&, setup, i] {
        const auto thief = deque.thief(marks[i]);
        bool woken = false;
        bool napped = false;
        for (;;) {
          const bool any = deque.size_hint() != 0;
          if (any && detail::beyond_a_strand(thief)) {
            const auto stolen = thief.steal();
            if (stolen.item != 0) break;
            Env::yield_thread();
            continue;
          }
          if (any) {  // P7
            const bool timed = setup.timed && !napped;
            nappers.nap(
                word, timed ? std::optional<std::uint64_t>(sim.now_ns() + 50) : std::nullopt, [&] {
                  if (!timed) Env::heavy_fence();
                  return detail::beyond_a_strand(thief);
                });
            woken = kFlaw != Flaw::keeps_a_notification;
            napped = true;
            continue;
          }
          woken = true;
          const auto key = sleepers.prepare();           // P1
          word.fetch_or(attention::kSleepers, seq_cst);  // P1
          Env::heavy_fence();                            // P3
          if (deque.size_hint() != 0) {                  // P4
            sleepers.cancel(key);
            Env::yield_thread();
          } else {
            sleepers.wait(key, std::nullopt);
          }
        }
        if (!woken) return;
        const bool sleeping = sleepers.waiters() != 0;  // P5, N5
        const bool napping = nappers.count() != 0 && kFlaw != Flaw::no_passing_on;
        if (!sleeping && !napping) return;
        word.fetch_or((sleeping ? attention::kSleepers : 0) | (napping ? attention::kNappers : 0),
                      seq_cst);
        if (sleeping && deque.size_hint() != 0 && (wake_sleeper() || !napping)) return;
        if (kFlaw != Flaw::light_passing_on) Env::heavy_fence();
        if (sleeping && deque.size_hint() != 0 && wake_sleeper()) return;
        if (napping && detail::beyond_a_strand(thief)) wake_napper();
      });
    }
    sim.run();
    sim.check(nappers.count() == 0 && sleepers.waiters() == 0, "somebody was not counted out");
  });
}

TEST(NapModel, AForkWakesTheOnlyOneWhoNaps) {
  expect_clean(pass_on_then_fork({.preemptions = bound(3)}, {.forks = 1, .strands = 2}));
}

TEST(NapModel, EachForkIsTakenWhetherTheOthersNapOrSleep) {
  expect_clean(pass_on_then_fork({.preemptions = bound(2)}, {}));
}

TEST(NapModel, AShortNapNeedsNoFence) {
  expect_clean(pass_on_then_fork({.preemptions = bound(2)}, {.forks = 1, .timed = true}));
  expect_clean(pass_on_then_fork({.preemptions = 1}, {.timed = true}));
}

TEST(NapModel, ManyMoreInRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    for (const bool timed : {false, true}) {
      const Report report = pass_on_then_fork(
          {.strategy = strategy, .executions = 15'000, .pct_depth = 4, .pct_length = 300},
          {.forks = 4, .strands = 3, .timed = timed});
      EXPECT_TRUE(report.passed()) << report;
    }
  }
}

TEST(NapModelMutant, AForkThatWakesOnlySleepersIsLeftBesideANapper) {
  hunt(pass_on_then_fork<Flaw::deaf>({.preemptions = 3}, {.forks = 1}));
}

TEST(NapModelMutant, AStrandThatIsPassedOnMustNotWakeWhoNaps) {
  hunt(pass_on_then_fork<Flaw::shaken>({.preemptions = 3}, {.forks = 1, .strands = 2}));
}

TEST(NapModelMutant, WhoWasWokenFromANapLooksAfterTheOthers) {
  hunt(pass_on_then_fork<Flaw::no_passing_on>({.preemptions = 2}, {}));
}

TEST(NapModelMutant, WhoPassesItOnWithoutAHeavyFenceOverlooksAFork) {
  hunt(pass_on_then_fork<Flaw::light_passing_on>(
      {.strategy = Strategy::pct, .executions = 1'000'000, .pct_depth = 4, .pct_length = 60}, {}));
}

TEST(NapModelMutant, WhoNapsStillHoldsTheNotificationThatWokeIt) {
  hunt(pass_on_then_fork<Flaw::keeps_a_notification>({.preemptions = 2}, {}));
}

TEST(NapModelMutant, ABitThatIsSetAfterTheLookComesTooLate) {
  hunt(pass_on_then_fork<Flaw::none, Mutant::nap_late_bit>({.preemptions = 3}, {.forks = 1}));
}

TEST(NapModelMutant, WhoNapsWithoutALookOverlooksAFork) {
  hunt(pass_on_then_fork<Flaw::none, Mutant::nap_no_look>({.preemptions = 3}, {.forks = 1}));
}

}  // namespace
}  // namespace magpie::model
