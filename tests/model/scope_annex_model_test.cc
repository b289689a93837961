// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <array>
#include <deque>

#include "expect.h"
#include "scope_world.h"

// Annexes, as strands that leave a scope's lists open them: what others list there meanwhile is
// found, and in one list (executor/CANCELLATION.md, A1 to A5). A task that is left while somebody
// looks at it is in scope_group_model_test.cc.

namespace magpie::model {
namespace {

// Strands that wait in one scope or in scopes of their own right below it, while the task is
// cancelled. What the first waits for comes, so that it leaves the list, and with it annexes; the
// last of all leaves the scope.
template <Mutant kMutant>
Report crowd(Options options, std::size_t strands, std::size_t with_scopes) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> shared(task.root, task.core);
    shared.enter();
    std::deque<Nest<Env>> nests;
    std::array<Waiting<Env>, 4> waitings;
    typename Env::template Atomic<std::size_t> left(strands);
    for (std::size_t i = 0; i < strands; ++i) nests.emplace_back(shared.innermost(), task.core);
    const auto enter = [&](std::size_t i) {
      if (i < with_scopes) nests[i].enter();
    };
    const auto leave = [&](std::size_t i) {
      if (i < with_scopes) nests[i].leave();
      if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) shared.leave();
    };
    enter(0);
    sim.check(waitings[0].park(nests[0].innermost()), "nobody has cancelled anything");
    sim.spawn([&] {
      waitings[0].complete();
      waitings[0].resumed();
      leave(0);
    });
    for (std::size_t i = 1; i < strands; ++i) {
      sim.spawn([&, i] {
        enter(i);
        waitings[i].await(nests[i].innermost());
        leave(i);
      });
    }
    sim.spawn([&] { cancel_now(task.root); });
    sim.run();
    shared.check();
    for (const Nest<Env>& nest : nests) nest.check();
    sim.check(task.counted() == 1, "a cancellation is counted for ever");
  });
}

TEST(ScopeAnnexModel, WhatIsListedInAnnexesIsFound) {
  for (std::size_t with_scopes = 0; with_scopes <= 2; ++with_scopes) {
    const unsigned preemptions = with_scopes == 0 ? 2 : 1;
    expect_clean(crowd<Mutant::scope_early_annexes>(locked(preemptions), 2, with_scopes));
    expect_clean_in_random_schedules(
        [=](Options options) { return crowd<Mutant::none>(options, 4, with_scopes); }, 10'000);
    expect_clean_in_random_schedules(
        [=](Options options) {
          return crowd<Mutant::scope_early_annexes>(options, 4, with_scopes);
        },
        10'000);
  }
  expect_clean(crowd<Mutant::none>(locked(1), 3, 0));
}

TEST(ScopeAnnexModelMutant, WhoAsksTheAnnexInsteadOfTheScopeParksForEver) {
  hunt(crowd<Mutant::scope_annex_asked>(locked(2), 2, 0));
}

TEST(ScopeAnnexModelMutant, AnAnnexThatIsNotListedIsNotFound) {
  hunt(crowd<Mutant::scope_annex_unlisted>(locked(2), 2, 0));
}

// Two leave the list at once, and with it annexes; a third waits there and leaves, too. The last of
// them cancels.
template <Mutant kMutant>
Report leave_a_crowd(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    std::array<Waiting<Env>, 3> waitings;
    typename Env::template Atomic<int> left(3);
    for (std::size_t i = 0; i < 2; ++i)
      sim.check(waitings[i].park(task.root), "nobody has cancelled anything");
    for (std::size_t i = 0; i < 3; ++i) {
      sim.spawn([&, i] {
        if (i == 2) sim.check(waitings[i].park(task.root), "nobody has cancelled anything");
        waitings[i].complete();
        waitings[i].resumed();
        if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) cancel_now(task.root);
      });
    }
    sim.run();
  });
}

TEST(ScopeAnnexModel, OfSeveralWhoLeaveACrowdOneOpensAnnexes) {
  expect_clean(leave_a_crowd<Mutant::none>(locked(2)));
  expect_clean(leave_a_crowd<Mutant::scope_early_annexes>(locked(2)));
}

TEST(ScopeAnnexModelMutant, AnnexesThatAreOpenedTwiceHideWhatIsListedInThem) {
  hunt(leave_a_crowd<Mutant::scope_annexes_twice>(locked(2)));
}

// Two strands below one scope link that, while a third, beside it, leaves the list above, and with
// it annexes. The last of them leaves the scope, and cancels what is above.
template <Mutant kMutant>
Report link_in_a_crowd(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> below(task.root, task.core);
    Waiting<Env> waiting;
    typename Env::template Atomic<int> left(3);
    below.enter();
    BasicScope<Env>& scope = below.innermost();
    sim.check(waiting.park(task.root), "nobody has cancelled anything");
    const auto leave = [&] {
      if (left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
      below.leave();
      cancel_now(task.root);
    };
    sim.spawn([&] {
      waiting.complete();
      waiting.resumed();
      leave();
    });
    for (int i = 0; i < 2; ++i) {
      sim.spawn([&] {
        scope.link();
        leave();
      });
    }
    sim.run();
    below.check();
  });
}

TEST(ScopeAnnexModel, AScopeThatIsLinkedWhileAnnexesAreOpenedIsInOneList) {
  expect_clean(link_in_a_crowd<Mutant::none>(locked(2)));
  expect_clean(link_in_a_crowd<Mutant::scope_early_annexes>(locked(2)));
  expect_clean_in_random_schedules(link_in_a_crowd<Mutant::scope_early_annexes>);
}

TEST(ScopeAnnexModelMutant, AScopeMayBeLinkedTwiceByWhoDoesNotLookForAnnexesAgain) {
  hunt(link_in_a_crowd<Mutant::scope_annexes_seen_once>(locked(2)));
}

}  // namespace
}  // namespace magpie::model
