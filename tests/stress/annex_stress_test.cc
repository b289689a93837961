// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/scope.h>
#include <magpie/detail/scope_visit.h>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include <support/scale.h>

// One scope whose lock several threads ask for, so that it opens annexes (executor/CANCELLATION.md,
// A1 to A5), while others look at it, cancel it and leave it.

namespace magpie::detail {
namespace {

using test::scaled;

constexpr std::size_t kThreads = 4;
constexpr int kWaits = 2000;

struct GroupTask : TaskCore {
  Scope root;
};

bool park(Scope& scope, Waiter& waiter) {
  waiter.state.set(WaitPhase::waiting);
  return scope.park(waiter);
}

// As whoever brings what was waited for: then a cancellation leaves the waiter alone.
bool complete(Scope& scope, Waiter& waiter) {
  if (!waiter.state.try_complete()) return false;
  scope.unpark(waiter);
  return true;
}

// False: the scope is cancelled. What a cancellation claims is its until it has `delivered`.
bool wait_once(Scope& scope, const std::atomic<bool>& delivered) {
  Waiter waiter;
  if (!park(scope, waiter)) return false;
  if (complete(scope, waiter)) return true;
  while (!delivered) std::this_thread::yield();
  return false;
}

// Waits in the scope, each time while somebody looks at it and holds its lock, until a wait is
// listed in an annex.
void crowd(Scope& scope) {
  Waiter looked_at;
  ASSERT_TRUE(park(scope, looked_at));
  std::atomic<int> wanted{0};
  std::atomic<int> looks{0};
  std::atomic<bool> over{false};
  {
    std::jthread looking([&] {
      for (; !over; std::this_thread::yield()) {
        if (looks == wanted) continue;
        ScopeVisit::waiters(scope, 1, [&](const Waiter&) noexcept {
          ++looks;
          for (int i = 0; i < 8; ++i) std::this_thread::yield();
        });
      }
    });
    for (bool in_annex = false; !in_annex;) {
      Waiter waiter;
      ++wanted;
      while (looks != wanted) std::this_thread::yield();
      EXPECT_TRUE(park(scope, waiter));
      in_annex = waiter.annex != 0;
      EXPECT_TRUE(complete(scope, waiter));
    }
    over = true;
  }
  EXPECT_EQ(looked_at.annex, 0);
  ASSERT_TRUE(complete(scope, looked_at));
}

template <class Function>
void on_threads(Function function) {
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) threads.emplace_back(function);
}

TEST(AnnexStress, WhatWasParkedBeforeAndWhatIsParkedInAnnexesIsClaimed) {
  for (std::size_t round = 0; round < scaled(20); ++round) {
    GroupTask task;
    task.root.enter_root(nullptr, &task);
    std::array<Waiter, 3> before;
    std::array<Waiter, 2> after;
    for (Waiter& waiter : before) ASSERT_TRUE(park(task.root, waiter));
    crowd(task.root);
    for (Waiter& waiter : after) ASSERT_TRUE(park(task.root, waiter));
    const std::size_t first_to_go = round % before.size();
    ASSERT_TRUE(complete(task.root, before[first_to_go]));
    ASSERT_TRUE(complete(task.root, after[round % after.size()]));

    std::size_t seen = 0;
    ScopeVisit::waiters(task.root, 100, [&](const Waiter&) noexcept { ++seen; });
    EXPECT_EQ(seen, 3U);
    Scope::Effects effects;
    EXPECT_TRUE(task.root.cancel(ReasonRef::of_kind(CancelKind::requested), effects));
    std::size_t claimed = 0;
    for (const Waiter* w = effects.waiters; w != nullptr; w = w->scope_next, ++claimed)
      EXPECT_EQ(w->state.phase(), WaitPhase::cancelled);
    EXPECT_EQ(claimed, 3U);
    (void)task.root.exit();
  }
}

TEST(AnnexStress, ADumpMayLookAtATaskThatIsBeingLeft) {
  TaskCore outer;
  Scope group;
  group.enter_root(nullptr, &outer);
  for (std::size_t round = 0; round < scaled(100); ++round) {
    GroupTask task;
    task.root.enter_root(&group, &task);
    if (round % 8 == 0) crowd(task.root);
    std::atomic<bool> over{false};
    std::atomic<int> dumps{0};
    std::jthread dumper([&] {
      for (; !over; ++dumps) ScopeVisit::waiters(task.root, 8, [](const Waiter&) noexcept {});
    });
    on_threads([&] {
      for (int i = 0; i < kWaits; ++i) EXPECT_TRUE(wait_once(task.root, over));
    });
    for (const int before = dumps; dumps < before + 2 + static_cast<int>(round % 7);)
      std::this_thread::yield();
    task.root.close();
    (void)task.root.exit();
    over = true;
  }
  (void)group.exit();
}

// A condition's wait is parked a second time, in a scope of its own, to get its mutex back.
TEST(AnnexStress, AWaitThatWasListedInAnAnnexMayBeParkedAgainInAScopeWithoutAny) {
  for (const bool claimed : {false, true}) {
    GroupTask task;
    task.root.enter_root(nullptr, &task);
    crowd(task.root);
    Waiter waiter;
    ASSERT_TRUE(park(task.root, waiter));
    EXPECT_NE(waiter.annex, 0);
    if (claimed) {
      Scope::Effects effects;
      EXPECT_TRUE(task.root.cancel(ReasonRef::of_kind(CancelKind::requested), effects));
      EXPECT_EQ(effects.waiters, &waiter);
    } else {
      ASSERT_TRUE(complete(task.root, waiter));
    }
    Scope mask;
    mask.enter(&task.root, &task, ScopeKind::masked);
    ASSERT_TRUE(park(mask, waiter));
    ASSERT_TRUE(complete(mask, waiter));
    (void)mask.exit();
    (void)task.root.exit();
  }
}

// Each thread opens scopes below the shared one, waits there and in them, until it is cancelled;
// from then on every scope that it opens is.
TEST(AnnexStress, WhoeverOpensAScopeInACancelledOneIsCancelled) {
  for (std::size_t round = 0; round < scaled(100); ++round) {
    GroupTask task;
    task.root.enter_root(nullptr, &task);
    Scope shared;
    shared.enter(&task.root, &task);
    if (round % 8 == 0) crowd(shared);
    std::atomic<std::size_t> ready{0};
    std::atomic<bool> delivered{false};
    {
      std::jthread canceller([&] {
        while (ready < kThreads) std::this_thread::yield();
        Scope::Effects effects;
        EXPECT_TRUE(task.root.cancel(ReasonRef::of_kind(CancelKind::requested), effects));
        for (const Waiter* w = effects.waiters; w != nullptr; w = w->scope_next)
          EXPECT_EQ(w->state.phase(), WaitPhase::cancelled);
        delivered = true;
      });
      on_threads([&] {
        bool cancelled = false;
        for (int i = 0; i < 10 * kWaits && !cancelled; ++i) {
          if (i == kWaits) ++ready;
          cancelled = shared.cancelled();
          Scope inner;
          inner.enter(&shared, &task);
          if (!wait_once(i % 2 == 0 ? inner : shared, delivered)) cancelled = shared.cancelled();
          inner.link();
          if (cancelled) EXPECT_TRUE(inner.cancelled()) << "below a scope that is cancelled";
          (void)inner.exit();
        }
      });
    }
    EXPECT_TRUE(shared.cancelled());
    (void)shared.exit();
    (void)task.root.exit();
  }
}

struct Token : ScopeToken {
  std::atomic<int> cancelled{0};
};

// Scopes that lie in several annexes hand their tokens to the one above at the same time, while
// that is cancelled: each is cancelled once.
TEST(AnnexStress, TokensOfScopesInSeveralAnnexesAreCancelledOnce) {
  constexpr std::size_t kTokens = 200;
  for (std::size_t round = 0; round < scaled(20); ++round) {
    GroupTask task;
    task.root.enter_root(nullptr, &task);
    crowd(task.root);
    std::array<std::array<Token, kTokens>, kThreads> tokens;
    const auto cancel_all = [](const Scope::Effects& effects) {
      for (ScopeToken* t = effects.tokens; t != nullptr; t = t->next_token)
        ++static_cast<Token*>(t)->cancelled;
    };
    std::atomic<std::size_t> next{0};
    {
      std::jthread canceller([&] {
        while (next < kThreads) std::this_thread::yield();
        Scope::Effects effects;
        EXPECT_TRUE(task.root.cancel(ReasonRef::of_kind(CancelKind::requested), effects));
        cancel_all(effects);
      });
      on_threads([&] {
        for (Token& token : tokens[next++]) {
          Scope inner;
          inner.enter(&task.root, &task);
          (void)inner.own_token(
              [&](bool dead) -> ScopeToken* {
                if (!dead) return &token;
                ++token.cancelled;
                return nullptr;
              },
              [](ScopeToken*) {});
          cancel_all(inner.exit());
        }
      });
    }
    for (const auto& of_a_thread : tokens)
      for (const Token& token : of_a_thread) EXPECT_EQ(token.cancelled, 1);
    (void)task.root.exit();
  }
}

}  // namespace
}  // namespace magpie::detail
