// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/scope.h>
#include <magpie/detail/scope_visit.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

// One scope whose lock several threads ask for, so that it opens annexes (executor/CANCELLATION.md,
// A1 to A4), while others look at it, cancel it and leave it.

namespace magpie::detail {
namespace {

constexpr std::size_t kThreads = 4;
constexpr int kWaits = 2000;

struct GroupTask : TaskCore {
  Scope root;
};

// False: the scope is cancelled.
bool wait_once(Scope& scope) {
  Waiter waiter;
  waiter.state.set(WaitPhase::waiting);
  if (!scope.park(waiter)) return false;
  // As whoever brings what was waited for: then a cancellation leaves the waiter alone.
  if (!waiter.state.try_complete()) return false;
  scope.unpark(waiter);
  return true;
}

template <class Function>
void on_threads(Function function) {
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) threads.emplace_back(function);
}

TEST(AnnexStress, ADumpMayLookAtATaskThatIsBeingLeft) {
  TaskCore outer;
  Scope group;
  group.enter_root(nullptr, &outer);
  for (int round = 0; round < 100; ++round) {
    GroupTask task;
    task.root.enter_root(&group, &task);
    std::atomic<bool> over{false};
    std::atomic<int> dumps{0};
    std::jthread dumper([&] {
      for (; !over; ++dumps) ScopeVisit::waiters(task.root, 8, [](const Waiter&) noexcept {});
    });
    on_threads([&] {
      for (int i = 0; i < kWaits; ++i) EXPECT_TRUE(wait_once(task.root));
    });
    for (const int before = dumps; dumps < before + 2 + round % 7;) std::this_thread::yield();
    task.root.close();
    (void)task.root.exit();
    over = true;
  }
  (void)group.exit();
}

// Each thread opens scopes below the shared one, waits in them and beside them, until it is
// cancelled; from then on every scope that it opens is.
TEST(AnnexStress, WhoeverOpensAScopeInACancelledOneIsCancelled) {
  for (int round = 0; round < 100; ++round) {
    GroupTask task;
    task.root.enter_root(nullptr, &task);
    Scope shared;
    shared.enter(&task.root, &task);
    std::atomic<std::size_t> ready{0};
    {
      std::jthread canceller([&] {
        while (ready < kThreads) std::this_thread::yield();
        Scope::Effects effects;
        EXPECT_TRUE(task.root.cancel(ReasonRef::of_kind(CancelKind::requested), effects));
        for (const Waiter* w = effects.waiters; w != nullptr; w = w->scope_next)
          EXPECT_EQ(w->state.phase(), WaitPhase::cancelled);
      });
      on_threads([&] {
        bool cancelled = false;
        for (int i = 0; i < 10 * kWaits && !cancelled; ++i) {
          if (i == kWaits) ++ready;
          cancelled = shared.cancelled();
          Scope inner;
          inner.enter(&shared, &task);
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

}  // namespace
}  // namespace magpie::detail
