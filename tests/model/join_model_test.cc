// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>
#include <magpie/detail/join.h>

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <deque>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// The counter of a join and the hop of its bearers, with the real deques: workers run children,
// steal them, suspend them and wake them elsewhere. The parent goes on once, after all children,
// and with it the join's memory is gone.
//
// The steps are those of join.h and child.h, which are bound to coroutines and threads:
// arm_children(), start_armed(), advance(), advance_carefully(), start_attentively(),
// skip_cancelled(), deliver_to(), unbundle(), and the worker's loop.

namespace magpie::model {
namespace {

using detail::BasicJoinCounter;
using detail::Deque;
using detail::kBundleTag;
using detail::kForkTag;
using detail::kTagMask;

// What bearers might get wrong.
enum class Hop {
  sound,
  without_carry,         // the units that a bearer has stay behind when it takes a sibling over
  carry_overwritten,     // they take the place of those that the sibling brings along already
  without_tag,           // an item with a sibling's address is a fork, whatever its tag
  without_pop,           // the sibling that lies at the bottom is started and stays there
  any_join,              // whatever has not started is a sibling, also another join's child
  kept_back,             // another join's child that was popped does not go back
  touch_after_delivery,  // a look at the join after its units have been handed in
  bundle_is_a_fork,      // who takes a bundle starts the first of it and forgets the others
  still_a_bundle,        // a child that goes back to the deque is a bundle again
  bundle_without_end,    // one at the end stands for as many as any other
};

struct Setup {
  unsigned workers = 2;
  // What each child does: r runs to its end; s suspends, somebody else wakes it; w first wakes who
  // has suspended; f fails, so that children that have not started are skipped; o, the last ones
  // only: an operation that has ended at once; n holds a join of its own, and awaits it.
  const char* children = "rr";
  const char* inner = "rr";  // the two children of that
  unsigned rounds = 1;       // joins at the same address, one after the other
  bool attention =
      false;  // the loop may be wanted: a child that is about to start goes back to the deque
  bool asymmetric = true;
  bool bundles = false;  // the children are queued in bundles, in rows of two
};

template <class Env, Hop kHop>
class World {
 public:
  World(Sim& sim, const Setup& setup)
      : sim_(sim), setup_(setup), n_(static_cast<unsigned>(std::strlen(setup.children))) {
    sim.set_asymmetric(setup.asymmetric);
    for (unsigned i = 0; i < setup.workers; ++i) deques_.emplace_back(4);
  }

  void work(unsigned self) {
    if (self == 0) fork(self);
    while (over_.load(std::memory_order_acquire) == 0) {
      // The loop takes turns: what was woken, or what lies in the deque.
      if (setup_.attention && sim_.decide(2) == 1) wake_one(self);
      std::uintptr_t item = deques_[self].owner().pop();
      while (item == 0 && over_.load(std::memory_order_acquire) == 0) {
        if (wake_one(self)) item = deques_[self].owner().pop();
        for (unsigned i = 1; item == 0 && i < setup_.workers; ++i) {
          Deque<Env>& other = deques_[(self + i) % setup_.workers];
          if (other.size_hint() != 0) item = other.thief(marks_[self]).steal().item;
        }
        if (item == 0) Env::yield_thread();
      }
      if (item == 0) return;
      if ((item & kTagMask) == kForkTag) {
        run(self, start_fork(self, reinterpret_cast<Rec*>(item - kForkTag)));
      } else if ((item & kTagMask) == kBundleTag) {
        Rec* const rec = reinterpret_cast<Rec*>(item & ~kTagMask);
        unbundle(self, *rec, half_of(*rec));
        run(self, start_attentively(self, rec));
      } else {
        run(self, end_child(self, reinterpret_cast<Rec*>(item)));
      }
    }
  }

  void check() const {
    sim_.check(parents_ == setup_.rounds, "the parent did not go on");
    sim_.check(join_.gone_and_untouched(), "a join was touched after its end");
  }

 private:
  static constexpr unsigned kMost = 8;
  static constexpr unsigned kInner = kMost;  // the first index of an inner child
  static constexpr unsigned kRow = 2;
  struct Join;
  struct alignas(8) Rec {
    std::uint32_t carry;
    std::uint32_t index;
    Join* join;
  };
  struct Join {
    BasicJoinCounter<Env> counter;
    typename Env::template Atomic<int> cancelled{0};
    std::uint32_t units;
  };
  struct Outer : Join {
    std::array<Rec, kMost> recs;
    Join inner;
    std::array<Rec, 2> inner_recs;
  };

  std::uintptr_t item_of(Rec& rec) { return reinterpret_cast<std::uintptr_t>(&rec) | kForkTag; }

  void fork(unsigned self) {
    Outer& join = join_.make();
    join.units = n_;
    join.counter.start(n_);
    unsigned forks = 0;
    for (unsigned i = 0; i < n_; ++i) {
      join.recs[i] = {0, i, &join};
      if (setup_.children[i] != 'o') ++forks;
    }
    started_.fill(0);
    inner_ended_ = 0;
    ended_ = n_ - forks;
    join.recs[0].carry = ended_;
    if (setup_.bundles) {
      unbundle(self, join.recs[0], std::bit_floor(n_ - 1));
      return run(self, start_attentively(self, &join.recs[0]));
    }
    const bool room = deques_[self].owner().with_room_for(
        n_,
        [&](auto batch) {
          for (unsigned i = forks; i-- > 1;) batch.add(item_of(join.recs[i]));
          batch.commit();
          return true;
        },
        [&] {
          for (unsigned i = forks; i-- > 0;)
            sim_.check(deques_[self].owner().push(item_of(join.recs[i])), "push failed");
          return false;
        });
    if (!room) return;
    Env::light_fence();  // D3
    run(self, start_attentively(self, &join.recs[0]));
  }

  // Runs children one after the other, as symmetric transfer does.
  void run(unsigned self, Rec* rec) {
    while (rec != nullptr) {
      static_cast<void>(*join_);  // alive: who runs a child holds units
      const unsigned index = rec->index;
      sim_.check(++started_[index] == 1, "a child is started twice");
      switch (index < kInner ? setup_.children[index] : setup_.inner[index - kInner]) {
        case 's':
          suspended_[index].store(reinterpret_cast<std::uintptr_t>(rec), std::memory_order_release);
          return;  // somebody else may be running it by now
        case 'w':
          wake_one(self);
          break;
        case 'f':
          rec->join->cancelled.store(1, std::memory_order_release);
          break;
        case 'n':
          rec = fork_inner(self, rec);
          continue;
        default:
          sim_.pass();
          break;
      }
      rec = end_child(self, rec);
    }
  }

  Rec* fork_inner(unsigned self, Rec* holder) {
    Outer& outer = *join_;
    Join& inner = outer.inner;
    inner_holder_ = holder;
    inner.units = 2;
    inner.counter.start(2);
    for (unsigned i = 0; i < 2; ++i) outer.inner_recs[i] = {0, kInner + i, &inner};
    Rec* const first = &outer.inner_recs[0];
    sim_.check(deques_[self].owner().push(item_of(outer.inner_recs[1])), "push failed");
    Env::light_fence();  // D3
    return start_attentively(self, first);
  }

  // A suspended child comes to this worker's deque, untagged.
  bool wake_one(unsigned self) {
    for (auto& place : suspended_) {
      if (place.load(std::memory_order_relaxed) == 0) continue;
      const std::uintptr_t rec = place.exchange(0, std::memory_order_acq_rel);
      if (rec == 0) continue;
      sim_.check(deques_[self].owner().push(rec), "push failed");
      return true;
    }
    return false;
  }

  Rec* start_fork(unsigned self, Rec* rec) {
    static_cast<void>(*join_);
    Join* const join = rec->join;
    while (join->cancelled.load(std::memory_order_acquire) != 0) {
      sim_.check(++started_[rec->index] == 1, "a child is skipped that was started");
      count_end(join);
      const std::uint32_t units = rec->carry + 1;
      rec = pop_sibling(self, join);
      if (rec == nullptr) return deliver(self, join, units);
      rec->carry += units;
    }
    return rec;
  }

  // The loop may be wanted; an item that goes back may be gone at once.
  Rec* start_attentively(unsigned self, Rec* rec) {
    const bool again = kHop == Hop::still_a_bundle && rec->index != 0 && rec->index % kRow == 0;
    const std::uintptr_t item = again ? bundle_of(*rec) : item_of(*rec);
    if (setup_.attention && sim_.decide(2) == 1 && deques_[self].owner().push(item)) return nullptr;
    return start_fork(self, rec);
  }

  static std::uintptr_t bundle_of(Rec& rec) {
    return reinterpret_cast<std::uintptr_t>(&rec) | kBundleTag;
  }
  static unsigned half_of(const Rec& rec) { return (rec.index & (0 - rec.index)) / 2; }
  void unbundle(unsigned self, Rec& rec, unsigned half) {
    if (kHop == Hop::bundle_is_a_fork && rec.index != 0) return;
    const unsigned left = kHop == Hop::bundle_without_end ? kMost : rec.join->units - rec.index;
    for (; half >= kRow; half /= 2) {
      if (half < left)
        sim_.check(deques_[self].owner().push(bundle_of(*(&rec + half))), "push failed");
    }
    if (1 < left) sim_.check(deques_[self].owner().push(item_of(*(&rec + 1))), "push failed");
  }

  void count_end(const Join* join) { ++(join == &(*join_).inner ? inner_ended_ : ended_); }

  Rec* end_child(unsigned self, Rec* rec) {
    count_end(rec->join);
    return advance(self, rec->join, rec->carry + 1);
  }

  static bool may_be_sibling(std::uintptr_t item) {
    return kHop == Hop::without_tag ? item != 0 : detail::is_fork(item);
  }

  // What was popped, if it is this join's; else it goes back.
  Rec* own_sibling(unsigned self, const Join* join, std::uintptr_t item) {
    Rec* const rec = reinterpret_cast<Rec*>(item & ~kTagMask);
    if (rec->join == join || kHop == Hop::any_join) return rec;
    if (kHop != Hop::kept_back) sim_.check(deques_[self].owner().push(item), "push failed");
    return nullptr;
  }

  Rec* pop_sibling(unsigned self, const Join* join) {
    auto deque = deques_[self].owner();
    const std::uintptr_t item = deque.peek();
    if (!detail::is_unstarted(item) || deque.size_hint() == 0 || deque.pop() == 0) return nullptr;
    const bool bundle = detail::is_bundle(item);
    Rec* const rec = own_sibling(self, join, item);
    if (bundle && rec != nullptr) unbundle(self, *rec, half_of(*rec));
    return rec;
  }

  Rec* advance(unsigned self, Join* join, std::uint32_t units) {
    static_cast<void>(*join_);
    if (units == join->units) return deliver(self, join, units);
    auto deque = deques_[self].owner();
    std::uintptr_t item = 0;
    using Popped = typename Deque<Env>::Popped;
    Popped popped = Popped::yes;
    if (kHop == Hop::without_pop) {
      item = deque.peek();
      if (!may_be_sibling(item)) popped = Popped::not_wanted;
    } else {
      popped = deque.pop_biased_if(&may_be_sibling, item);
    }
    Rec* const sibling =
        popped == Popped::yes ? own_sibling(self, join, item) : pop_sibling(self, join);
    if (sibling == nullptr) return deliver(self, join, units);
    if (kHop == Hop::carry_overwritten) {
      sibling->carry = units;
    } else if (kHop != Hop::without_carry) {
      sibling->carry += units;
    }
    return start_attentively(self, sibling);
  }

  Rec* deliver(unsigned self, Join* join, std::uint32_t units) {
    const bool is_inner = join == &(*join_).inner;
    const std::uint32_t all = join->units;
    const bool last = units == all || join->counter.deliver(units);
    if (kHop == Hop::touch_after_delivery) {
      sim_.pass();
      static_cast<void>((*join_).units);
    }
    if (!last) return nullptr;
    if (is_inner) {
      sim_.check(inner_ended_ == 2, "a holder goes on before the children of its join have ended");
      return end_child(self, inner_holder_);
    }
    go_on(self);
    return nullptr;
  }

  // The parent.
  void go_on(unsigned self) {
    sim_.check(ended_ == n_, "the parent goes on before its children have ended");
    join_.destroy();
    if (++parents_ == setup_.rounds) {
      over_.store(1, std::memory_order_release);
    } else {
      fork(self);
    }
  }

  Sim& sim_;
  const Setup setup_;
  const unsigned n_;
  Frame<Outer> join_;
  std::deque<Deque<Env>> deques_;
  ThiefMarks<Env> marks_;
  std::array<typename Env::template Atomic<std::uintptr_t>, kMost> suspended_;
  typename Env::template Atomic<int> over_{0};
  std::array<int, kMost + 2> started_{};
  unsigned ended_ = 0;
  unsigned inner_ended_ = 0;
  Rec* inner_holder_ = nullptr;
  unsigned parents_ = 0;
};

template <Mutant kMutant = Mutant::none, Hop kHop = Hop::sound>
Report play(Options options, Setup setup) {
  return explore(options, [=](Sim& sim) {
    World<SimEnv<kMutant>, kHop> world(sim, setup);
    for (unsigned i = 0; i < setup.workers; ++i) {
      sim.spawn([&, i] { world.work(i); });
    }
    sim.run();
    world.check();
  });
}

template <Mutant kMutant = Mutant::none, Hop kHop = Hop::sound>
void expect_clean_in_random_schedules(Setup setup, std::uint64_t executions = 10'000) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = play<kMutant, kHop>(
        {.strategy = strategy, .executions = executions, .pct_depth = 4, .pct_length = 200}, setup);
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(JoinModel, TheParentGoesOnOnceAfterAllChildren) {
  expect_clean(play({.preemptions = bound(3)}, {.children = "rr"}));
  expect_clean(play({.preemptions = 2}, {.children = "rrr"}));
  expect_clean(play({.preemptions = 2}, {.children = "rrrr"}));
  expect_clean_in_random_schedules({.workers = 3, .children = "rrrr"}, 20'000);
}

TEST(JoinModel, TheParentGoesOnOnceWithoutAsymmetricFences) {
  expect_clean(play({.preemptions = 2}, {.children = "rrr", .asymmetric = false}));
}

// A suspended child goes on on a worker that may have its siblings, and itself, at the bottom of
// its deque.
TEST(JoinModel, ChildrenSuspendAndGoOnElsewhere) {
  for (const char* children : {"sr", "srr", "swr", "ssr", "rsw"}) {
    expect_clean(play({.preemptions = 2}, {.children = children}));
    expect_clean_in_random_schedules({.workers = 3, .children = children}, 5'000);
  }
}

TEST(JoinModel, ChildrenThatHaveNotStartedAreSkipped) {
  expect_clean(play({.preemptions = 2}, {.children = "frr"}));
  expect_clean(play({.preemptions = 2}, {.children = "rfr"}));
  expect_clean_in_random_schedules({.workers = 3, .children = "rfsr"});
}

TEST(JoinModel, AChildThatIsAboutToStartMayGoBackToTheDeque) {
  expect_clean(play({.preemptions = 2}, {.children = "rr", .attention = true}));
  expect_clean(play({.preemptions = 2}, {.children = "rro", .attention = true}));
  expect_clean_in_random_schedules({.workers = 3, .children = "rsro", .attention = true});
}

// What lies in the deques from the first join has the addresses of the second.
TEST(JoinModel, AJoinMayFollowAnotherAtTheSameAddress) {
  expect_clean(play({.preemptions = 2}, {.children = "rr", .rounds = 2}));
  expect_clean_in_random_schedules({.workers = 3, .children = "rsr", .rounds = 3});
}

TEST(JoinModel, AThiefTakesABundleOfChildren) {
  expect_clean(play({.preemptions = 2}, {.children = "rrr", .bundles = true}));
  expect_clean(play({.preemptions = bound(2)}, {.children = "rrrrr", .bundles = true}));
  expect_clean(play({.preemptions = 1}, {.children = "rrrrrrrr", .bundles = true}));
  for (const char* children : {"rrrrrrr", "srrrwr", "rsrrsrr", "rrfrrrr", "frrrr"}) {
    expect_clean_in_random_schedules({.workers = 3, .children = children, .bundles = true}, 5'000);
    expect_clean_in_random_schedules(
        {.workers = 3, .children = children, .rounds = 2, .attention = true, .bundles = true},
        5'000);
  }
}

// Either's children lie in the deque when one of the other's ends.
TEST(JoinModel, AJoinWithinAnothersChild) {
  for (const char* children : {"sn", "rn", "nr"}) {
    for (const char* inner : {"rr", "wr"}) {
      expect_clean(play({.preemptions = 1}, {.children = children, .inner = inner}));
      expect_clean_in_random_schedules({.workers = 3, .children = children, .inner = inner}, 3'000);
    }
  }
  expect_clean(play({.preemptions = 2}, {.children = "nr"}));
  expect_clean_in_random_schedules(
      {.workers = 3, .children = "snr", .inner = "wr", .rounds = 2, .attention = true}, 3'000);
}

TEST(JoinModelMutant, WhatHasNotStartedMayBeAnotherJoinsChild) {
  hunt(play<Mutant::none, Hop::any_join>({.preemptions = 1}, {.children = "sn", .inner = "wr"}));
}

TEST(JoinModelMutant, AnotherJoinsChildGoesBack) {
  hunt(play<Mutant::none, Hop::kept_back>({.preemptions = 1}, {.children = "sn", .inner = "wr"}));
}

TEST(JoinModelMutant, UnitsThatStayBehindAreMissing) {
  hunt(play<Mutant::none, Hop::without_carry>({.preemptions = 1}, {.children = "rr"}));
}

TEST(JoinModelMutant, UnitsThatAreOverwrittenAreMissing) {
  hunt(play<Mutant::none, Hop::carry_overwritten>(
      {.preemptions = 1}, {.workers = 1, .children = "ssr", .attention = true}));
}

TEST(JoinModelMutant, ASiblingThatWasWokenIsNotAFork) {
  hunt(play<Mutant::none, Hop::without_tag>({.preemptions = 2}, {.children = "swr"}));
}

TEST(JoinModelMutant, ASiblingThatIsNotPoppedStartsTwice) {
  hunt(play<Mutant::none, Hop::without_pop>({.preemptions = 1}, {.children = "rr"}));
}

TEST(JoinModelMutant, ThoseBehindTheFirstOfABundleAreQueued) {
  hunt(play<Mutant::none, Hop::bundle_is_a_fork>({.preemptions = 1},
                                                 {.children = "rrrr", .bundles = true}));
}

TEST(JoinModelMutant, AChildWhoseBundleWasTakenApartIsNoneAnyMore) {
  hunt(play<Mutant::none, Hop::still_a_bundle>(
      {.preemptions = 1}, {.children = "rrrr", .attention = true, .bundles = true}));
}

TEST(JoinModelMutant, TheLastBundleMayBeSmaller) {
  hunt(play<Mutant::none, Hop::bundle_without_end>({.preemptions = 1},
                                                   {.children = "rrr", .bundles = true}));
}

TEST(JoinModelMutant, WhoHasDeliveredLeavesTheJoinAlone) {
  hunt(play<Mutant::none, Hop::touch_after_delivery>({.preemptions = 2}, {.children = "rr"}));
}

TEST(JoinModelMutant, ALoadAndAStoreLoseUnits) {
  hunt(play<Mutant::join_plain_counter>({.preemptions = 3}, {.children = "rr"}));
}

}  // namespace
}  // namespace magpie::model
