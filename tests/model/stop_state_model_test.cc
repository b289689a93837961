// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/cancel_state.h>

#include <gtest/gtest.h>

#include <array>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// Callbacks of a cancellation: added, taken back while they run, by others and by callbacks, and
// gone right afterwards.

namespace magpie::model {
namespace {

using detail::BasicCallbackNode;
using detail::BasicCancelEffects;
using detail::BasicScope;
using detail::BasicStopState;
using detail::BasicTaskCore;
using detail::BasicWaiter;
using detail::ReasonRef;
using detail::ScopeToken;
using detail::WaitPhase;

enum class Act {
  run,               // for a while
  take_back_itself,  // and is gone before it returns
  take_back_other,   // which is gone before it returns
};

template <class Env>
struct Callback;

// What outlives the callbacks. Callback 1 is added after callback 0, hence runs before it.
template <class Env>
struct Stage {
  BasicStopState<Env> state;
  std::array<Frame<Callback<Env>>, 2> frames;
  std::array<int, 2> runs{};
  std::uintptr_t runner = 0;
  bool cancelled = false;

  void prepare(std::size_t index, Act act) { frames[index].make(*this, index, act); }
  bool add(std::size_t index) { return state.add(*frames[index]); }

  void cancel(std::uintptr_t self) {
    if (!state.begin(ReasonRef::of_kind(CancelKind::requested))) return;
    Sim::current().check(!cancelled, "two cancellations were the first");
    cancelled = true;
    runner = self;
    state.run_callbacks(self);
  }

  void take_back(std::size_t index, std::uintptr_t self, bool from_within = false) {
    const bool never_ran = state.remove(*frames[index], self);
    Sim::current().check(never_ran == (runs[index] == 0),
                         "remove() is wrong about whether the callback ran");
    Sim::current().check(from_within || !frames[index]->running,
                         "remove() came back while the callback ran");
    frames[index].destroy();
  }

  void check(std::size_t callbacks) const {
    Sim::current().check(cancelled, "no cancellation was the first");
    for (std::size_t i = 0; i < callbacks; ++i) {
      Sim::current().check(frames[i].gone_and_untouched(), "a callback was touched after its end");
    }
  }
};

template <class Env>
struct Callback : BasicCallbackNode<Env> {
  Callback(Stage<Env>& its_stage, std::size_t its_index, Act its_act)
      : stage(its_stage), index(its_index), act(its_act) {
    this->invoke = [](BasicCallbackNode<Env>* node) noexcept {
      static_cast<Callback*>(node)->call();
    };
  }

  void call() {
    Sim::current().check(++stage.runs[index] == 1, "a callback runs twice");
    running = true;
    used.store(1, std::memory_order_relaxed);
    Sim::current().pass();
    if (act == Act::take_back_itself) {
      stage.take_back(index, stage.runner, true);
      Sim::current().pass();
      return;
    }
    if (act == Act::take_back_other) stage.take_back(1 - index, stage.runner);
    used.store(2, std::memory_order_relaxed);
    running = false;
  }

  Stage<Env>& stage;
  const std::size_t index;
  const Act act;
  bool running = false;
  typename Env::template Atomic<int> used{0};
};

// One callback is added and taken back while others cancel.
template <Mutant kMutant>
Report add_and_take_back(Options options, bool added, std::uintptr_t cancellers) {
  return explore(options, [=](Sim& sim) {
    Stage<SimEnv<kMutant>> stage;
    stage.prepare(0, Act::run);
    if (added) sim.check(stage.add(0), "nobody has cancelled anything");
    sim.spawn([&] {
      if (added || stage.add(0)) {
        sim.pass();
        stage.take_back(0, 100);
        return;
      }
      sim.check(stage.state.cancelled() && stage.state.reason(), "add() refuses without a reason");
      stage.frames[0]->call();
      stage.frames[0].destroy();
    });
    for (std::uintptr_t i = 1; i <= cancellers; ++i) {
      sim.spawn([&, i] { stage.cancel(i); });
    }
    sim.run();
    stage.check(1);
  });
}

// Two callbacks of which one acts on itself or on the other; others take back what is theirs.
template <Mutant kMutant>
Report two_callbacks(Options options, Act first, Act second) {
  return explore(options, [=](Sim& sim) {
    Stage<SimEnv<kMutant>> stage;
    stage.prepare(0, first);
    stage.prepare(1, second);
    sim.check(stage.add(0) && stage.add(1), "nobody has cancelled anything");
    if (first == Act::run && second != Act::take_back_other) {
      sim.spawn([&] { stage.take_back(0, 100); });
    }
    if (second != Act::take_back_itself) {
      sim.spawn([&] {
        stage.take_back(1, 101);
        if (second == Act::take_back_other && stage.runs[1] == 0) stage.take_back(0, 101);
      });
    }
    sim.spawn([&] { stage.cancel(1); });
    sim.run();
    stage.check(2);
  });
}

// A callback of the task's own token lives in the frame that waits, and the task is cancelled.
template <Mutant kMutant>
Report callback_in_a_waiting_frame(Options options) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Stage<Env> stage;  // with the token's state
    struct Token : ScopeToken {
    } token;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    root.own_token([&](bool) { return &token; }, [](ScopeToken*) {});
    Strand<Env> strand;
    Frame<StrandWaiter<Env>> frame;
    frame.make(strand);
    stage.prepare(0, Act::run);
    sim.check(stage.add(0), "nobody has cancelled anything");
    frame->state.set(WaitPhase::waiting);
    sim.check(root.park(*frame), "nobody has cancelled anything");
    sim.spawn([&] {
      strand.resumed();
      sim.check(stage.runs[0] == 1 && !stage.frames[0]->running,
                "the task goes on before its own callback was called");
      stage.take_back(0, 100);
      frame.destroy();
    });
    sim.spawn([&] {
      BasicCancelEffects<Env> effects;
      sim.check(root.cancel(ReasonRef::of_kind(CancelKind::requested), effects),
                "the only cancellation was refused");
      detail::deliver_in_order(
          effects,
          [&](ScopeToken* told) {
            sim.check(told == &token, "another token");
            stage.cancel(1);
          },
          [](BasicWaiter<Env>& waiter) { schedule(waiter); });
    });
    sim.run();
    stage.check(1);
    sim.check(frame.gone_and_untouched(), "a wait was touched after its end");
    root.exit();
  });
}

TEST(StopStateModel, ATasksOwnCallbackIsCalledBeforeACancellationLetsItGoOn) {
  expect_clean(callback_in_a_waiting_frame<Mutant::none>({.preemptions = bound(4)}));
}

TEST(StopStateModelMutant, WaitersAreScheduledAfterTheTokensWereTold) {
  hunt(callback_in_a_waiting_frame<Mutant::deliver_waiters_first>({.preemptions = 1}));
}

TEST(StopStateModel, ACallbackRunsOrIsTakenBack) {
  for (const bool added : {true, false}) {
    expect_clean(add_and_take_back<Mutant::none>({.preemptions = bound(4)}, added, 1));
    expect_clean(add_and_take_back<Mutant::none>({.preemptions = 2}, added, 2));
  }
}

TEST(StopStateModel, TwoCallbacksAreTakenBackByTwoThreads) {
  expect_clean(two_callbacks<Mutant::none>({.preemptions = 2}, Act::run, Act::run));
}

TEST(StopStateModel, ACallbackMayBeGoneBeforeItReturns) {
  expect_clean(
      two_callbacks<Mutant::none>({.preemptions = bound(3)}, Act::run, Act::take_back_itself));
  expect_clean(
      two_callbacks<Mutant::none>({.preemptions = bound(3)}, Act::take_back_itself, Act::run));
}

TEST(StopStateModel, ACallbackMayTakeBackAnother) {
  expect_clean(
      two_callbacks<Mutant::none>({.preemptions = bound(4)}, Act::run, Act::take_back_other));
}

TEST(StopStateModelMutant, WithoutTheWaitTheCallbackIsGoneWhileItRuns) {
  hunt(add_and_take_back<Mutant::stop_state_no_wait>({.preemptions = 2}, true, 1));
}

TEST(StopStateModelMutant, WhoWillSleepSaysSoUnderTheLock) {
  hunt(add_and_take_back<Mutant::stop_state_loose_block>({.preemptions = 3}, true, 1));
}

TEST(StopStateModelMutant, ACallbackThatTookItselfBackIsTouched) {
  hunt(two_callbacks<Mutant::stop_state_late_end>({.preemptions = 2}, Act::run,
                                                  Act::take_back_itself));
}

}  // namespace
}  // namespace magpie::model
