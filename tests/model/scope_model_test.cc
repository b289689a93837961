// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <array>
#include <deque>

#include "expect.h"
#include "scope_world.h"

// Cancellation scopes: whoever parks in a cancelled scope is claimed or refused, whoever leaves a
// scope may destroy it at once, and a task counts no cancelled scope once all are left. A strand
// that nobody claims waits for ever, which the checker reports.

namespace magpie::model {
namespace {

using detail::ScopeToken;

// ---- one strand, one cancellation ----

// Scopes `depth` deep, the one at `level` is cancelled (0: the task's root) while the strand parks
// in the innermost.
template <Mutant kMutant>
Report park_against_cancel(Options options, std::size_t depth, std::size_t level) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> nest(task.root, task.core);
    Waiting<Env> waiting;
    Flag<Env> cancelled;
    nest.enter(level);
    BasicScope<Env>& target = nest.innermost();
    sim.spawn([&] {
      nest.enter(depth - level);
      waiting.await(nest.innermost());
      sim.check(nest.innermost().cancelled(),
                "a strand goes on in a scope that seems not cancelled");
      sim.check(nest.innermost().reason() == ReasonRef::of_kind(CancelKind::timeout),
                "a wrong reason");
      nest.leave(depth - level);
      cancelled.wait();  // who cancels keeps the scope alive
      nest.leave(level);
    });
    sim.spawn([&] {
      sim.check(cancel_now(target, CancelKind::timeout), "the only cancellation was refused");
      cancelled.raise();
    });
    sim.run();
    sim.check(task.counted() == (level == 0 ? 1U : 0U), "a cancellation is counted for ever");
    nest.check();
  });
}

TEST(ScopeModel, NoStrandStaysParkedInACancelledScope) {
  for (std::size_t depth = 1; depth <= 3; ++depth) {
    for (std::size_t level = 0; level <= depth; ++level) {
      expect_clean(park_against_cancel<Mutant::none>(locked(bound(3)), depth, level));
      expect_clean(park_against_cancel<Mutant::none>({.preemptions = 2}, depth, level));
    }
  }
}

TEST(ScopeModelMutant, WhoAsksBeforeTheLockParksForEver) {
  hunt(park_against_cancel<Mutant::scope_early_check>(locked(2), 1, 1));
}

TEST(ScopeModelMutant, WhoIsNotLinkedIsNotFound) {
  hunt(park_against_cancel<Mutant::scope_no_link>(locked(2), 1, 0));
}

TEST(ScopeModelMutant, WhoLinksItselfUntoldParksForEver) {
  hunt(park_against_cancel<Mutant::scope_link_untold>(locked(2), 1, 0));
}

TEST(ScopeModelMutant, WhoIsReachedUnmarkedParksForEver) {
  hunt(park_against_cancel<Mutant::scope_unmarked>(locked(2), 1, 0));
  hunt(park_against_cancel<Mutant::scope_unmarked>(locked(2), 3, 1));
}

TEST(ScopeModelMutant, ACountThatRisesAfterTheTraversalIsLate) {
  hunt(park_against_cancel<Mutant::scope_late_count>(locked(2), 1, 1));
  hunt(park_against_cancel<Mutant::scope_late_count>(locked(2), 2, 0));
}

// ---- scopes that are left while a traversal is below them ----

// The wait may be completed, so that the strand leaves its scopes while the cancellation is there.
template <Mutant kMutant>
Report leave_against_cancel(Options options, std::size_t depth) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> nest(task.root, task.core);
    Waiting<Env> waiting;
    nest.enter(depth);
    sim.check(waiting.park(nest.innermost()), "nobody has cancelled anything");
    sim.spawn([&] {
      waiting.resumed();
      nest.leave(depth);
    });
    sim.spawn([&] { waiting.complete(); });
    sim.spawn([&] { cancel_now(task.root); });
    sim.run();
    nest.check();
    sim.check(task.counted() == 1, "a cancellation is counted for ever");
  });
}

TEST(ScopeModel, AScopeThatIsLeftIsNotTouchedAgain) {
  for (std::size_t depth = 1; depth <= 3; ++depth) {
    expect_clean(leave_against_cancel<Mutant::none>(locked(2), depth));
    expect_clean_in_random_schedules(
        [=](Options options) { return leave_against_cancel<Mutant::none>(options, depth); },
        10'000);
  }
}

TEST(ScopeModelMutant, WhoLeavesWithoutLookingForPinsIsTouchedAgain) {
  hunt(leave_against_cancel<Mutant::scope_unpinned_exit>(locked(2), 1));
  hunt(leave_against_cancel<Mutant::scope_unpinned_exit>(locked(2), 2));
}

// ---- a scope that its own cancellation ends ----

// The strand sees the cancellation at a checkpoint, or is told of it, and leaves at once: whoever
// cancels is still there. `linked`: somebody has parked below the scope before.
template <Mutant kMutant>
Report leave_cancelled(Options options, bool linked) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> nest(task.root, task.core);
    Waiting<Env> waiting;
    Flag<Env> cancelled;
    nest.enter();
    BasicScope<Env>& target = nest.innermost();
    if (linked) {
      sim.check(waiting.park(target), "nobody has cancelled anything");
      waiting.complete();
      waiting.resumed();
    }
    sim.spawn([&] {
      if (!target.cancelled()) cancelled.wait();
      nest.leave();
    });
    sim.spawn([&] {
      sim.check(cancel_now(target), "the only cancellation was refused");
      cancelled.raise();
    });
    sim.run();
    nest.check();
    sim.check(task.counted() == 0, "a cancellation is counted for ever");
  });
}

TEST(ScopeModel, AScopeMayBeLeftWhileItIsCancelled) {
  for (const bool linked : {false, true}) {
    expect_clean(leave_cancelled<Mutant::none>({.preemptions = bound(3)}, linked));
  }
}

TEST(ScopeModelMutant, WhoLeavesWithoutLookingForTheCancellationIsTouchedAgain) {
  for (const bool linked : {false, true}) {
    hunt(leave_cancelled<Mutant::scope_unawaited_cancel>({.preemptions = 2}, linked));
  }
}

// ---- siblings ----

// Two strands below one scope that either of them links; the first may be completed. The last of
// them leaves the scope.
template <Mutant kMutant>
Report siblings(Options options, bool complete_first) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> middle(task.root, task.core);
    middle.enter();
    std::deque<Nest<Env>> nests;
    std::array<Waiting<Env>, 2> waitings;
    typename Env::template Atomic<int> left(2);
    for (std::size_t i = 0; i < 2; ++i) nests.emplace_back(middle.innermost(), task.core).enter(1);
    if (complete_first)
      sim.check(waitings[0].park(nests[0].innermost()), "nobody has cancelled anything");
    const auto leave = [&](std::size_t i) {
      nests[i].leave();
      if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) middle.leave();
    };
    const auto await = [&](std::size_t i) {
      waitings[i].await(nests[i].innermost());
      leave(i);
    };
    if (complete_first) {
      sim.spawn([&] {
        waitings[0].resumed();
        leave(0);
      });
      sim.spawn([&] { await(1); });
      sim.spawn([&] { waitings[0].complete(); });
    } else {
      sim.spawn_alike(2, await);
    }
    sim.spawn([&] { cancel_now(task.root); });
    sim.run();
    middle.check();
    for (const Nest<Env>& nest : nests) nest.check();
    sim.check(task.counted() == 1, "a cancellation is counted for ever");
  });
}

TEST(ScopeModel, SiblingsThatLinkAtTheSameTimeAreBothFound) {
  expect_clean(siblings<Mutant::none>(locked(bound(3) - 1), false));
  expect_clean_in_random_schedules(
      [](Options options) { return siblings<Mutant::none>(options, false); });
}

TEST(ScopeModel, ASiblingMayLeaveWhileTheTraversalGoesFromOneToTheOther) {
  expect_clean(siblings<Mutant::none>(locked(1), true));
  expect_clean_in_random_schedules(
      [](Options options) { return siblings<Mutant::none>(options, true); }, 40'000);
}

// ---- two cancellations ----

// Of an outer and of an inner scope at once. Either may claim the strand; it leaves both when they
// have ended.
template <Mutant kMutant>
Report two_cancels(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> nest(task.root, task.core);
    Waiting<Env> waiting;
    std::array<Flag<Env>, 2> cancelled;
    nest.enter();
    BasicScope<Env>& outer = nest.innermost();
    nest.enter();
    BasicScope<Env>& inner = nest.innermost();
    sim.spawn([&] {
      nest.enter();
      waiting.await(nest.innermost());
      nest.leave();
      cancelled[1].wait();
      const ReasonRef own = inner.own_reason();
      sim.check(!own || own == ReasonRef::of_kind(CancelKind::timeout), "a wrong reason");
      sim.check(
          own ? inner.reason() == own : inner.reason() == ReasonRef::of_kind(CancelKind::requested),
          "not the first reason that reached it");
      nest.leave();
      cancelled[0].wait();
      sim.check(outer.reason() == ReasonRef::of_kind(CancelKind::requested), "a wrong reason");
      nest.leave();
    });
    sim.spawn([&] {
      sim.check(cancel_now(outer), "the only cancellation was refused");
      cancelled[0].raise();
    });
    sim.spawn([&] {
      sim.check(cancel_now(inner, CancelKind::timeout), "the only cancellation was refused");
      cancelled[1].raise();
    });
    sim.run();
    sim.check(task.counted() == 0, "a cancellation is counted for ever");
    nest.check();
  });
}

TEST(ScopeModel, TwoCancellationsOfDifferentLevelsMeet) {
  expect_clean(two_cancels<Mutant::none>(locked(2)));
  expect_clean_in_random_schedules(two_cancels<Mutant::none>);
}

// A strand cancels one of the scopes that it stands in while another thread cancels the same one,
// or one further out or in. Once its own call has returned, whatever that said, the strand is
// cancelled. Somebody has parked in the innermost before, so that traversals go all the way down.
template <Mutant kMutant>
Report cancel_and_look(Options options, std::size_t depth, std::size_t mine, std::size_t theirs) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> nest(task.root, task.core);
    Waiting<Env> waiting;
    Flag<Env> cancelled;
    std::array<BasicScope<Env>*, 4> scopes{&task.root};
    for (std::size_t level = 1; level <= depth; ++level) {
      nest.enter();
      scopes[level] = &nest.innermost();
    }
    sim.check(waiting.park(nest.innermost()), "nobody has cancelled anything");
    waiting.complete();
    waiting.resumed();
    sim.spawn([&] {
      cancel_now(*scopes[mine], CancelKind::timeout);
      sim.check(nest.innermost().cancelled(),
                "a strand goes on in a scope that seems not cancelled");
      sim.check(waiting.await(nest.innermost()) == Outcome::refused,
                "a strand parks in a cancelled scope");
      const ReasonRef reason = nest.innermost().reason();
      cancelled.wait();
      sim.check(reason && nest.innermost().reason() == reason, "a reason changes");
      nest.leave(depth);
    });
    sim.spawn([&] {
      cancel_now(*scopes[theirs], CancelKind::requested);
      cancelled.raise();
    });
    sim.run();
    nest.check();
  });
}

TEST(ScopeModel, WhoHasCancelledAScopeIsCancelledBelowIt) {
  for (std::size_t depth = 1; depth <= 3; ++depth) {
    for (std::size_t mine = 0; mine <= depth; ++mine) {
      for (std::size_t theirs = 0; theirs <= depth; ++theirs) {
        const unsigned preemptions = depth < 3 ? bound(3) : 2;
        expect_clean(cancel_and_look<Mutant::none>(locked(preemptions), depth, mine, theirs));
        expect_clean(cancel_and_look<Mutant::none>({.preemptions = 1}, depth, mine, theirs));
      }
    }
  }
  expect_clean_in_random_schedules(
      [](Options options) { return cancel_and_look<Mutant::none>(options, 3, 1, 2); });
}

TEST(ScopeModelMutant, WhoIsNotTheFirstIsCancelledLater) {
  hunt(cancel_and_look<Mutant::scope_unawaited_rival>(locked(2), 2, 1, 1));
}

TEST(ScopeModelMutant, WhoIsReachedFromOutsideIsCancelledLater) {
  hunt(cancel_and_look<Mutant::scope_unawaited_outer>(locked(2), 2, 1, 0));
}

TEST(ScopeModelMutant, WhoMeetsACancellationFurtherInIsCancelledLater) {
  hunt(cancel_and_look<Mutant::scope_unawaited_inner>(locked(2), 2, 0, 1));
}

TEST(ScopeModel, OfTwoCancellationsOfOneScopeOneCounts) {
  expect_clean(explore(locked(2), [](Sim& sim) {
    using Env = SimEnv<>;
    Task<Env> task;
    Waiting<Env> waiting;
    unsigned requests = 0;
    sim.spawn([&] { waiting.await(task.root); });
    sim.spawn_alike(2, [&](std::size_t) { requests += cancel_now(task.root); });
    sim.run();
    sim.check(requests == 1 && task.counted() == 1, "not one cancellation was the first");
  }));
}

// A closed scope takes no cancellation: the task has its outcome.
TEST(ScopeModel, ACancellationComesBeforeTheEndOfATaskOrIsRefused) {
  expect_clean(explore(locked(bound(4)), [](Sim& sim) {
    using Env = SimEnv<>;
    Task<Env> task;
    bool requested = false;
    bool seen = false;
    sim.spawn([&] {
      task.root.close();
      seen = task.root.cancelled_itself();
      task.root.exit();
    });
    sim.spawn([&] { requested = cancel_now(task.root); });
    sim.run();
    sim.check(requested == seen, "a cancellation was accepted by a task that had its outcome");
    sim.check(task.counted() == 0, "a cancellation is counted for ever");
  }));
}

// ---- masks ----

// One strand below a mask, one beside it. The outer cancellation claims only the second; the first
// ends when the mask itself is cancelled, or by completion.
template <Mutant kMutant>
Report mask(Options options, bool cancel_the_mask) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    Nest<Env> masked(task.root, task.core);
    Nest<Env> beside(task.root, task.core);
    std::array<Waiting<Env>, 2> waitings;
    Flag<Env> mask_cancelled;
    bool told = false;
    masked.enter(ScopeKind::masked);
    BasicScope<Env>& the_mask = masked.innermost();
    if (!cancel_the_mask) {
      masked.enter();
      sim.check(waitings[0].park(masked.innermost()), "nobody has cancelled anything");
    }
    sim.spawn([&] {
      if (cancel_the_mask) masked.enter();
      const Outcome outcome =
          cancel_the_mask ? waitings[0].await(masked.innermost()) : waitings[0].resumed();
      sim.check(
          cancel_the_mask ? told && outcome != Outcome::completed : outcome == Outcome::completed,
          "a cancellation went through a mask");
      sim.check(masked.innermost().cancelled() == cancel_the_mask,
                "a cancellation is seen through a mask");
      masked.leave();
      if (cancel_the_mask) mask_cancelled.wait();
      masked.leave();
    });
    sim.spawn([&] {
      beside.enter();
      sim.check(waitings[1].await(beside.innermost()) != Outcome::completed, "nobody completes it");
      beside.leave();
    });
    sim.spawn([&] {
      cancel_now(task.root);
      if (!cancel_the_mask) {
        waitings[0].complete();
        return;
      }
      told = true;
      cancel_now(the_mask);
      mask_cancelled.raise();
    });
    sim.run();
    masked.check();
    beside.check();
    sim.check(task.counted() == 1, "a cancellation is counted for ever");
  });
}

TEST(ScopeModel, ACancellationStopsAtAMask) {
  for (const bool cancel_the_mask : {false, true}) {
    expect_clean(mask<Mutant::none>(locked(1), cancel_the_mask));
    expect_clean_in_random_schedules(
        [=](Options options) { return mask<Mutant::none>(options, cancel_the_mask); });
  }
}

// ---- tokens ----

struct Token : ScopeToken {
  int cancelled = 0;
};

// Strands make a token each in a scope `depth` deep and leave their scopes, so that the tokens go
// to the scopes above one after the other; the task is cancelled meanwhile. With `kind` masked,
// tokens come out from behind a mask.
template <Mutant kMutant>
Report tokens(Options options, std::size_t strands, std::size_t depth,
              ScopeKind kind = ScopeKind::plain) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Task<Env> task;
    std::array<Token, 2> the_tokens;
    std::deque<Nest<Env>> nests;
    const auto cancel_tokens = [&](const BasicCancelEffects<Env>& effects) {
      for (ScopeToken* t = effects.tokens; t != nullptr; t = t->next_token)
        ++static_cast<Token*>(t)->cancelled;
    };
    for (std::size_t i = 0; i < strands; ++i) {
      Nest<Env>& nest = nests.emplace_back(task.root, task.core);
      Token& token = the_tokens[i];
      sim.spawn([&] {
        for (std::size_t n = 0; n < depth; ++n) nest.enter(kind);
        nest.innermost().own_token(
            [&](bool cancelled) -> ScopeToken* {
              if (!cancelled) return &token;
              ++token.cancelled;
              return nullptr;
            },
            [](ScopeToken*) {});
        for (std::size_t n = 0; n < depth; ++n) cancel_tokens(nest.leave());
      });
    }
    sim.spawn([&] {
      BasicCancelEffects<Env> effects;
      task.root.cancel(ReasonRef::of_kind(CancelKind::requested), effects);
      cancel_tokens(effects);
    });
    sim.run();
    for (const Nest<Env>& nest : nests) nest.check();
    for (std::size_t i = 0; i < strands; ++i) {
      sim.check(the_tokens[i].cancelled == 1, "a token is not cancelled once with its task");
    }
  });
}

TEST(ScopeModel, ATokenIsCancelledOnceWhereverItIs) {
  for (std::size_t depth = 1; depth <= 2; ++depth) {
    for (const ScopeKind kind : {ScopeKind::plain, ScopeKind::masked}) {
      expect_clean(tokens<Mutant::none>(locked(bound(3)), 1, depth, kind));
      expect_clean(tokens<Mutant::none>({.preemptions = 2}, 1, depth, kind));
      expect_clean_in_random_schedules(
          [=](Options options) { return tokens<Mutant::none>(options, 2, depth, kind); }, 10'000);
    }
  }
  expect_clean(tokens<Mutant::none>(locked(2), 2, 1));
  expect_clean(tokens<Mutant::scope_early_annexes>(locked(2), 2, 1));
}

TEST(ScopeModelMutant, ATokenThatGoesToACancelledScopeIsForgotten) {
  hunt(tokens<Mutant::scope_unasked_tokens>(locked(2), 2, 1));
  hunt(tokens<Mutant::scope_unasked_tokens>(locked(2), 1, 1, ScopeKind::masked));
}

}  // namespace
}  // namespace magpie::model
