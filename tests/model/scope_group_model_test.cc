// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/scope_visit.h>

#include <gtest/gtest.h>

#include <array>

#include "expect.h"
#include "scope_world.h"

// Tasks in groups: each has a root of its own below the group's scope. Cancellations come through
// the group and from handles, which keep a task's record for longer than there is a group.

namespace magpie::model {
namespace {

// ---- groups ----

// A task in a group: a record that ends with the task.
template <class Env>
struct Member {
  explicit Member(BasicScope<Env>& group) : root(group, core) {}

  struct Root {
    Root(BasicScope<Env>& group, BasicTaskCore<Env>& core) {
      born_cancelled = !scope.enter_root(&group, &core);
    }
    BasicScope<Env> scope;
    bool born_cancelled;
  };
  BasicTaskCore<Env> core;
  Root root;
};

// A task is spawned in a group while that is cancelled, and parks in a scope of its own. With
// `by_handle`, the task is cancelled directly, too. With `spawns`, it has a group with a task
// itself.
template <Mutant kMutant>
Report group(Options options, bool by_handle, bool spawns) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Frame<BasicScope<Env>> group_frame;
    BasicScope<Env>& group = group_frame.make();
    group.enter(&task.root, &task.core);
    std::array<Frame<Member<Env>>, 2> members;
    std::array<Waiting<Env>, 2> waitings;
    Flag<Env> group_cancelled;
    Flag<Env> spawned;
    Flag<Env> handle_gone;

    const auto live = [&](std::size_t i, BasicScope<Env>& parent, auto below) {
      members[i].make(parent);
      Member<Env>& member = *members[i];
      if (by_handle) spawned.raise();
      Nest<Env> nest(member.root.scope, member.core);
      nest.enter();
      below(nest.innermost());
      waitings[i].await(nest.innermost());
      sim.check(nest.innermost().cancelled(),
                "a strand goes on in a scope that seems not cancelled");
      nest.leave();
      member.root.scope.close();
      member.root.scope.exit();
      if (by_handle) handle_gone.wait();  // a handle keeps the record, not the scope
      sim.check(group.cancelled() || by_handle, "a task was cancelled without its group");
      members[i].destroy();
    };
    sim.spawn([&] {
      live(0, group, [&](BasicScope<Env>& own_group) {
        if (spawns) live(1, own_group, [](BasicScope<Env>&) {});
      });
      group_cancelled.wait();
      group.exit();
    });
    sim.spawn([&] {
      cancel_now(group, CancelKind::group_cancelled);
      group_cancelled.raise();
    });
    if (by_handle) {
      sim.spawn([&] {
        spawned.wait();
        cancel_now(members[0]->root.scope);
        handle_gone.raise();
      });
    }
    sim.run();
    sim.check(task.counted() == 0, "a cancellation is counted for ever");
    sim.check(members[0].gone_and_untouched(), "a record was touched after its end");
    sim.check(!spawns || members[1].gone_and_untouched(), "a record was touched after its end");
  });
}

TEST(ScopeGroupModel, ATaskThatIsSpawnedInACancelledGroupIsCancelled) {
  expect_clean(group<Mutant::none>(locked(bound(3)), false, false));
  expect_clean(group<Mutant::none>({.preemptions = 2}, false, false));
}

TEST(ScopeGroupModel, ACancelledGroupReachesTheGroupsOfItsTasks) {
  expect_clean(group<Mutant::none>(locked(2), false, true));
}

TEST(ScopeGroupModel, ATaskMayBeCancelledByItselfAndWithItsGroup) {
  expect_clean(group<Mutant::none>(locked(bound(3) - 1), true, false));
  expect_clean_in_random_schedules(
      [](Options options) { return group<Mutant::none>(options, true, false); });
}

TEST(ScopeGroupModelMutant, ATaskThatIsNotCountedParksForEver) {
  hunt(group<Mutant::scope_uncounted_task>(locked(2), false, false));
}

// Two tasks of a group end, the one by itself, while a cancellation goes through the group.
template <Mutant kMutant>
Report leave_a_group(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Frame<BasicScope<Env>> group_frame;
    BasicScope<Env>& group = group_frame.make();
    group.enter(&task.root, &task.core);
    std::array<Frame<Member<Env>>, 2> members;
    for (Frame<Member<Env>>& member : members) member.make(group);
    std::array<Waiting<Env>, 2> waitings;
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] {
        if (i == 0) waitings[i].await(members[i]->root.scope);
        members[i]->root.scope.close();
        members[i]->root.scope.exit();
        members[i].destroy();
      });
    }
    sim.spawn([&] { cancel_now(group); });
    sim.run();
    group.exit();
    sim.check(task.counted() == 0, "a cancellation is counted for ever");
    for (const Frame<Member<Env>>& member : members) {
      sim.check(member.gone_and_untouched(), "a record was touched after its end");
    }
  });
}

TEST(ScopeGroupModel, TasksLeaveAGroupThatIsBeingCancelled) {
  expect_clean(leave_a_group<Mutant::none>(locked(2)));
  expect_clean(leave_a_group<Mutant::scope_early_annexes>(locked(2)));
}

TEST(ScopeGroupModelMutant, ATaskThatLeavesWithoutLookingForPinsIsTouchedAgain) {
  hunt(leave_a_group<Mutant::scope_unpinned_exit>(locked(2)));
}

// ---- dumps ----

// Somebody looks at all that waits in a task of a group while that leaves its root: he keeps the
// record, but does not pin the root, from which he sets out.
template <Mutant kMutant>
Report look_at_a_task(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    BasicScope<Env> group;
    group.enter(&task.root, &task.core);
    Frame<Member<Env>> member;
    BasicScope<Env>& root = member.make(group).root.scope;
    std::array<Waiting<Env>, 2> waitings;
    for (Waiting<Env>& waiting : waitings)
      sim.check(waiting.park(root), "nobody has cancelled anything");
    sim.spawn([&] {
      for (Waiting<Env>& waiting : waitings) {
        waiting.complete();
        waiting.resumed();
      }
      root.close();
      root.exit();
    });
    sim.spawn([&] {
      detail::BasicScopeVisit<Env>::waiters(root, 8,
                                            [](const detail::BasicWaiter<Env>&) noexcept {});
    });
    sim.run();
    member.destroy();
    group.exit();
    sim.check(member.gone_and_untouched(), "a record was touched after its end");
  });
}

TEST(ScopeGroupModel, ATaskThatIsLookedAtMayLeaveItsRoot) {
  expect_clean(look_at_a_task<Mutant::none>(locked(bound(3))));
  expect_clean(look_at_a_task<Mutant::scope_early_annexes>(locked(bound(3))));
}

TEST(ScopeGroupModelMutant, ARootThatIsLeftWhileSomebodyIsInItsAnnexLetsHimTouchWhatIsFreed) {
  hunt(look_at_a_task<Mutant::scope_annex_unpinned>(locked(2)));
}

// ---- handles that come late ----

// What a handle keeps of a task that has ended: it is freed with the last reference.
template <class Env>
struct Record : Member<Env> {
  using Member<Env>::Member;
  typename Env::template Atomic<bool> done{false};
  typename Env::template Atomic<int> references{2};  // the task's, and the handle's
};

enum class EndedBy {
  itself,   // its wait is completed
  handle,   // nothing but the handle cancels it
  group,    // its group is cancelled
  farther,  // a scope around what the group lies in is, and not by who leaves the group
};

enum class Told { in_time, too_early };  // its end: once the task's root has been left, or before

// A task leaves its root and ends, its group's block leaves the group and what is around it, and
// all their frames are freed; a handle cancels the task at any moment of that, and later. The
// task's end follows TaskRecord::has_ended() by hand: root, outcome, group, reference.
template <Mutant kMutant>
Report late_handle(Options options, EndedBy by, Told told = Told::in_time) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> nest(task.root, task.core);
    nest.enter();  // a gather's, say
    nest.enter();
    BasicScope<Env>& group = nest.innermost();
    Frame<Record<Env>> frame;
    Record<Env>& record = frame.make(group);
    BasicScope<Env>& root = record.root.scope;
    Waiting<Env> waiting;
    Flag<Env> group_told;
    bool requested = false;
    bool seen = false;
    const auto release = [&] {
      if (record.references.fetch_sub(1, std::memory_order_acq_rel) == 1) frame.destroy();
    };
    if (by == EndedBy::itself) sim.check(waiting.park(root), "nobody has cancelled anything");

    sim.spawn([&] {  // the task
      if (by == EndedBy::itself) {
        waiting.resumed();
      } else {
        waiting.await(root);
      }
      if (told == Told::too_early) group_told.raise();
      root.close();
      seen = root.cancel_requested();
      root.exit();
      record.done.store(true, std::memory_order_release);
      group_told.raise();
      release();
    });
    sim.spawn([&] {  // the group's block
      if (by == EndedBy::group) cancel_now(group, CancelKind::group_cancelled);
      group_told.wait();
      nest.leave(2);
    });
    sim.spawn([&] {  // the handle
      if (!record.done.load(std::memory_order_acquire)) requested = cancel_now(root);
      release();
    });
    if (by == EndedBy::itself) sim.spawn([&] { waiting.complete(); });
    if (by == EndedBy::farther) sim.spawn([&] { cancel_now(task.root); });
    sim.run();
    nest.check();
    sim.check(frame.gone_and_untouched(), "a record was touched after its end");
    sim.check(requested == seen, "a cancellation was accepted by a task that had its outcome");
    sim.check(task.counted() == (by == EndedBy::farther ? 1U : 0U),
              "a cancellation is counted for ever");
  });
}

TEST(ScopeGroupModel, AHandleMayCancelATaskWhoseGroupIsBeingLeftOrIsGone) {
  for (const EndedBy by : {EndedBy::itself, EndedBy::handle, EndedBy::group, EndedBy::farther}) {
    const bool far = by == EndedBy::farther;  // a longer way down, and a thread more
    expect_clean(late_handle<Mutant::none>(locked(far ? 1 : 2), by));
    if (!far) expect_clean(late_handle<Mutant::none>({.preemptions = 1}, by));
    expect_clean_in_random_schedules(
        [=](Options options) { return late_handle<Mutant::none>(options, by); });
  }
  expect_clean(late_handle<Mutant::scope_early_annexes>(locked(1), EndedBy::itself));
}

TEST(ScopeGroupModelMutant, WhoLinksWhatHeCancelsComesToAGroupThatIsGone) {
  hunt(late_handle<Mutant::scope_linking_cancel>(locked(2), EndedBy::group));
}

TEST(ScopeGroupModelMutant, ATaskWhoseRootIsNotClosedIsCancelledAfterItsEnd) {
  hunt(late_handle<Mutant::scope_open_end>(locked(2), EndedBy::itself));
  hunt(late_handle<Mutant::scope_open_end>(locked(2), EndedBy::group));
}

TEST(ScopeGroupModelMutant, ARootThatIsClosedWithoutItsLockIsCancelledAfterItsEnd) {
  hunt(late_handle<Mutant::scope_plain_close>(locked(2), EndedBy::itself));
  hunt(late_handle<Mutant::scope_plain_close>(locked(2), EndedBy::group));
}

TEST(ScopeGroupModelMutant, WhoIsThroughBeforeTheGroupsCancellationComesToAGroupThatIsGone) {
  hunt(late_handle<Mutant::scope_early_end>(locked(2), EndedBy::group));
}

TEST(ScopeGroupModelMutant, ARootThatIsLeftWhileAHandleCancelsItLetsThatComeToAGroupThatIsGone) {
  hunt(late_handle<Mutant::scope_unawaited_cancel>(locked(2), EndedBy::group));
}

TEST(ScopeGroupModelMutant, ARootThatIsLeftWhileItsGroupIsBeingCancelledIsTouchedAgain) {
  hunt(late_handle<Mutant::scope_unpinned_exit>(locked(2), EndedBy::farther));
}

TEST(ScopeGroupModelMutant, ATaskThatTellsItsGroupBeforeItLeavesItsRootComesToAGroupThatIsGone) {
  hunt(late_handle<Mutant::none>(locked(2), EndedBy::itself, Told::too_early));
  hunt(late_handle<Mutant::none>(locked(2), EndedBy::group, Told::too_early));
}

}  // namespace
}  // namespace magpie::model
