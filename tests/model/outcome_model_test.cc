// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 3600

#include <magpie/detail/outcome_core.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "expect.h"
#include "operation.h"
#include "outcome_world.h"
#include "sim.h"
#include "strand.h"

// The end of a task or a promise (executor/SHUTDOWN.md, "The end of a task"): one thread publishes
// the outcome while others park for it, copy the value, move it out, are cancelled, add callbacks,
// block, and drop their handles; the last of them all frees the record.

namespace magpie::model {
namespace {

using detail::SlotState;

constexpr std::uint64_t kRandom = 8'000;

// ---- those who copy, those who move, and those who are cancelled ----

struct Cast {
  unsigned copiers = 0;
  unsigned movers = 0;
  bool callback = false;  // added before the end, during it or after it
  bool early = false;     // copiers wait and the callback is there from the start
  bool early_movers = false;
  bool cancel = false;
  bool listed = false;  // somebody has found the task in the list
};

template <Mutant kMutant, End kEnd = End::right>
Report settle(Options options, Cast cast) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using W = World<Env>;
    using Got = typename W::Got;
    W world(sim);
    std::array<Frame<typename W::Wait>, 4> frames;
    std::array<Got, 4> got{};
    std::array<bool, 4> early{};
    std::array<bool, 4> parked{};
    Callback<Env> callback;
    const unsigned waits = cast.copiers + cast.movers;
    typename W::Handle handle = world.handle();

    for (unsigned i = 0; i < waits; ++i) {
      frames[i].make(world, world.handle(), i >= cast.copiers);
      early[i] = i < cast.copiers ? cast.early : cast.early_movers;
      if (early[i]) sim.check(frames[i]->start(), "a wait did not park");
    }
    if (cast.callback && cast.early) handle.get()->on_done(&callback);
    if (!cast.callback || cast.early) handle = {};

    if (cast.listed) world.record().add_ref();

    sim.spawn([&] { world.record().template finish<kEnd>(SlotState::value); });
    if (cast.listed) sim.spawn([&] { world.record().release(); });
    for (unsigned i = 0; i < waits; ++i) {
      sim.spawn([&, i] {
        parked[i] = early[i] || frames[i]->start();
        if (parked[i]) frames[i]->strand.resumed();
        got[i] = W::finish(frames[i]);
      });
    }
    if (cast.callback && !cast.early) {
      sim.spawn([&] {
        typename W::Handle mine = std::move(handle);
        mine.get()->on_done(&callback);
      });
    }
    if (cast.cancel) sim.spawn([&] { world.cancel(); });
    sim.run();

    unsigned moved = 0;
    unsigned refused = 0;
    for (unsigned i = 0; i < waits; ++i) {
      sim.check(cast.cancel || got[i] != Got::cancelled, "nobody cancelled it");
      sim.check(got[i] != Got::failure, "there is a value");
      if (i < cast.copiers) {
        sim.check(!parked[i] || got[i] != Got::taken, "a copier that waited came too late");
        sim.check(cast.movers != 0 || got[i] != Got::taken, "nobody moved it");
      } else {
        moved += got[i] == Got::value;
        refused += got[i] == Got::taken;
      }
      sim.check(frames[i].gone_and_untouched(), "a wait was touched after its end");
    }
    sim.check(moved <= 1 && (refused == 0 || moved == 1), "not one mover has the value");
    if (!cast.cancel && cast.movers != 0) sim.check(moved == 1, "no mover has the value");
    if (cast.callback) {
      sim.check(callback.calls == 1, "a callback is not called once");
      sim.check(callback.shown || (moved == 1 && !cast.early), "a callback did not see the value");
    }
    world.check_end();
  });
}

TEST(OutcomeModel, AWaitThatParksWhileTheTaskEnds) {
  expect_clean(settle<Mutant::none>({.preemptions = bound(3)}, {.movers = 1}));
  expect_clean(settle<Mutant::none>({.preemptions = bound(3)}, {.copiers = 1}));
}

TEST(OutcomeModel, WhoCopiesComesBeforeWhoMoves) {
  expect_clean(settle<Mutant::none>(locked(1), {.copiers = 1, .movers = 1}));
  expect_clean(
      settle<Mutant::none>(locked(bound(3) - 1), {.copiers = 1, .movers = 1, .early = true}));
  for (const Cast cast : {Cast{.copiers = 2, .movers = 2}, Cast{.copiers = 1, .movers = 2}}) {
    expect_clean_in_random_schedules(
        [=](Options options) { return settle<Mutant::none>(options, cast); }, kRandom);
  }
}

TEST(OutcomeModel, OneOfTwoMoversHasTheValue) {
  expect_clean(settle<Mutant::none>(locked(1), {.movers = 2}));
  expect_clean(settle<Mutant::none>(locked(bound(3) - 1), {.movers = 2, .early_movers = true}));
}

TEST(OutcomeModel, ACallbackSeesTheValueBeforeItIsMovedOut) {
  expect_clean(settle<Mutant::none>(locked(bound(3) - 1), {.movers = 1, .callback = true}));
  for (const bool early_movers : {false, true}) {
    expect_clean(settle<Mutant::none>(
        locked(2), {.movers = 1, .callback = true, .early = true, .early_movers = early_movers}));
  }
  expect_clean_in_random_schedules(
      [](Options options) {
        return settle<Mutant::none>(options, {.copiers = 1, .movers = 1, .callback = true});
      },
      kRandom);
}

TEST(OutcomeModel, AWaitIsCancelledWhileTheTaskEnds) {
  for (const bool early : {false, true}) {
    expect_clean(settle<Mutant::none>(locked(early ? 2 : 1),
                                      {.movers = 1, .early_movers = early, .cancel = true}));
    expect_clean(settle<Mutant::none>(locked(early ? 2 : 1),
                                      {.copiers = 1, .early = early, .cancel = true}));
  }
  expect_clean_in_random_schedules(
      [](Options options) {
        return settle<Mutant::none>(options,
                                    {.copiers = 1, .movers = 1, .callback = true, .cancel = true});
      },
      kRandom);
}

TEST(OutcomeModelMutant, DoneRisesUnderTheLock) {
  hunt(settle<Mutant::outcome_done_after_lock>(locked(2), {.movers = 1}));
}

TEST(OutcomeModelMutant, MoversWaitForCallbacks) {
  hunt(settle<Mutant::outcome_movers_at_once>(
      locked(2), {.movers = 1, .callback = true, .early = true, .early_movers = true}));
}

TEST(OutcomeModelMutant, MoversThatComeLaterWaitForThoseWhoWereThere) {
  hunt(settle<Mutant::outcome_late_mover>(locked(2), {.copiers = 1, .movers = 1, .early = true}));
  hunt(settle<Mutant::outcome_late_mover>(locked(2),
                                          {.movers = 1, .callback = true, .early = true}));
}

TEST(OutcomeModelMutant, AValueIsTakenInOneStep) {
  hunt(settle<Mutant::outcome_plain_take>(locked(3), {.movers = 2}));
}

TEST(OutcomeModelMutant, AMoverWaitsForThoseWhoReadJustThen) {
  hunt(settle<Mutant::outcome_take_at_once>(locked(3), {.copiers = 1, .movers = 1}));
}

TEST(OutcomeModelMutant, WhoPublishesHoldsAReference) {
  hunt(settle<Mutant::none, End::early_release>(locked(2), {.copiers = 1}));
}

TEST(OutcomeModel, TheEndBesideItsWaiterSeesWhoElseHasTheTask) {
  for (const bool early : {false, true}) {
    expect_clean(settle<Mutant::none>(locked(early ? 2 : 1),
                                      {.movers = 1, .early_movers = early, .listed = true}));
  }
  expect_clean_in_random_schedules(
      [](Options options) {
        return settle<Mutant::none>(
            options,
            {.copiers = 1, .movers = 1, .early_movers = true, .cancel = true, .listed = true});
      },
      kRandom);
}

TEST(OutcomeModelMutant, TheEndGivesItsReferenceUpPlainlyOnlyBesideItsWaiterAndNobodyElse) {
  hunt(settle<Mutant::outcome_plain_beside>(locked(2),
                                            {.movers = 1, .early_movers = true, .listed = true}));
  hunt(settle<Mutant::none, End::beside_nobody>(locked(2), {.movers = 1}));
}

TEST(OutcomeModelMutant, AHandleIsDroppedAfterItsLastLook) {
  hunt(settle<Mutant::outcome_early_release>(locked(2), {.movers = 1}));
}

// A wait may be over, and everything gone, before the thread that parked it is back.
TEST(OutcomeModel, AWaitMayEndWhileItParks) {
  for (const bool move : {true, false}) {
    expect_clean(explore({.preemptions = 2}, [=](Sim& sim) {
      using W = World<SimEnv<>>;
      W world(sim);
      Frame<W::Wait> frame;
      frame.make(world, world.handle(), move);
      Strand<SimEnv<>>& strand = frame->strand;
      sim.spawn([&] { world.record().finish(SlotState::value); });
      sim.spawn([&] {
        if (!frame->start()) strand.schedule();
      });
      sim.spawn([&] {
        strand.resumed();
        sim.check(frame->finish() == W::Got::value, "the only wait has no value");
        frame.destroy();
      });
      sim.run();
      sim.check(frame.gone_and_untouched(), "a wait was touched after its end");
      world.check_end();
    }));
  }
}

// ---- each pair of what one can do with a handle ----

enum class Does : std::uint8_t {
  ends,    // the task
  copies,  // awaits
  moves,   // awaits an rvalue
  calls,   // adds a callback
  blocks,
  looks,
  drops,   // its handle
  cancels  // the first wait
};

// One waits from the start, and is cancelled maybe. The task ends when two have done what they do,
// if not before. `aside`: who waited first goes on in a thread of its own; else when all is over.
Report pair_of(Options options, Does first, Does a, Does b, bool aside) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    using W = World<Env>;
    using Got = W::Got;
    W world(sim);
    std::array<Frame<W::Wait>, 3> frames;
    std::array<std::optional<Got>, 3> got;
    std::array<Callback<Env>, 3> callbacks;
    std::array<W::Handle, 3> handles;
    const bool cancelled = a == Does::cancels || b == Does::cancels;
    const bool ends = a == Does::ends || b == Does::ends;
    const std::array<Does, 3> roles{first, a, b};
    Env::Atomic<int> done{0};
    const auto is_done = [&] {
      if (done.fetch_add(1, std::memory_order_acq_rel) == 1 && !ends)
        world.record().finish(SlotState::value);
    };
    const auto first_ends = [&] {
      frames[0]->strand.resumed();
      got[0] = W::finish(frames[0]);
    };
    frames[0].make(world, world.handle(), first == Does::moves);
    sim.check(frames[0]->start(), "a wait did not park");
    if (aside) sim.spawn(first_ends);
    const auto look = [](W::Handle& handle) {
      try {
        handle.get()->show_to([](const Result<Value>& result) noexcept { result.value().look(); });
      } catch (const InvalidStateError&) {
      }
    };
    for (std::size_t i = 1; i < 3; ++i) {
      const Does does = roles[i];
      const bool waits = does == Does::copies || does == Does::moves;
      if (waits) {
        frames[i].make(world, world.handle(), does == Does::moves, true);
      } else if (does != Does::ends && does != Does::cancels) {
        handles[i] = world.handle();
      }
      sim.spawn([&, i, does, waits] {
        W::Handle mine = std::move(handles[i]);
        bool parked = false;
        if (waits) {
          parked = frames[i]->start();
        } else if (does == Does::ends) {
          world.record().finish(SlotState::value);
        } else if (does == Does::calls) {
          mine.get()->on_done(&callbacks[i]);
        } else if (does == Does::looks && mine.get()->done()) {
          look(mine);
        } else if (does == Does::drops) {
          mine = {};
        } else if (does == Does::cancels) {
          world.cancel();
        }
        is_done();
        if (parked) frames[i]->strand.resumed();
        if (waits) got[i] = W::finish(frames[i]);
        if (does != Does::blocks) return;
        mine.get()->block_until_done();
        sim.check(mine.get()->done(), "a thread goes on before the end");
        look(mine);
      });
    }
    sim.run();
    if (!aside) {
      sim.check(frames[0]->strand.scheduled(), "who waited first is left behind");
      first_ends();
    }
    int moved = 0;
    int movers = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      if (roles[i] == Does::calls)
        sim.check(callbacks[i].calls == 1, "a callback is not called once");
      if (!got[i]) continue;
      sim.check(*got[i] != Got::failure, "there is a value");
      sim.check(*got[i] != Got::cancelled || (i == 0 && cancelled), "nobody cancelled it");
      moved += roles[i] == Does::moves && *got[i] == Got::value;
      movers += roles[i] == Does::moves && *got[i] != Got::cancelled;
      sim.check(i != 0 || first == Does::moves || *got[0] != Got::taken,
                "a copier that waited came too late");
    }
    sim.check(moved == (movers == 0 ? 0 : 1), "not one mover has the value");
    world.check_end();
  });
}

TEST(OutcomeModel, EveryPairOfOperations) {
  constexpr Does kOperations[] = {Does::ends,   Does::copies, Does::moves, Does::calls,
                                  Does::blocks, Does::looks,  Does::drops, Does::cancels};
  for (const Does first : {Does::copies, Does::moves}) {
    for (const bool aside : {false, true}) {
      expect_clean_pairs(kOperations, [=](Does a, Does b) {
        const Does other = b == Does::ends ? Does::looks : b;  // a task ends once
        return pair_of(aside ? locked_for_long() : locked(2), first, a, other, aside);
      });
    }
  }
}

// ---- promises ----

// Whoever sees the result may destroy the promise: the setting side holds the state meanwhile.
template <bool kHeld>
Report set_a_promise(Options options, bool move) {
  return explore(options, [=](Sim& sim) {
    using W = World<SimEnv<>>;
    W world(sim);
    Frame<W::Wait> frame;
    frame.make(world, world.handle(), move);
    sim.spawn([&] { world.record().template settle<kHeld>(); });
    sim.spawn([&] {
      auto& state = world.record();
      sim.check(W::await(frame) == W::Got::value, "no value");
      state.release();  // the promise's
    });
    sim.run();
    world.check_end();
  });
}

TEST(OutcomeModel, APromiseMayGoWithItsResult) {
  for (const bool move : {true, false}) {
    expect_clean(set_a_promise<true>({.preemptions = bound(3)}, move));
  }
}

TEST(OutcomeModelMutant, WhoSetsAPromiseHoldsItsState) {
  hunt(set_a_promise<false>(locked(2), false));
}

// A promise gives a future away, and goes, while the last one from before is dropped.
template <Mutant kMutant>
Report another_future(Options options) {
  return explore(options, [](Sim& sim) {
    using W = World<SimEnv<kMutant>>;
    W world(sim);
    typename W::Handle first = world.handle();
    sim.spawn([&] { typename W::Handle(std::move(first)); });
    sim.spawn([&] {
      auto& state = world.record();
      state.template settle<true>();
      typename W::Handle second(&state);
      state.release();  // the promise's
      second.get()->shown().value().look();
    });
    sim.run();
    world.check_end();
  });
}

TEST(OutcomeModel, AFutureIsMadeWhileTheLastOneIsDropped) {
  expect_clean(another_future<Mutant::none>({.preemptions = bound(4)}));
}

TEST(OutcomeModelMutant, WhetherAHandleIsAloneIsAskedOfAllAndOfTheHandlesLast) {
  hunt(another_future<Mutant::outcome_handles_first>({.preemptions = 2}));
  hunt(settle<Mutant::outcome_alone_among_handles>(locked(2), {.copiers = 1}));
}

// Two futures of one promise are made at once, and dropped.
template <Mutant kMutant>
Report two_futures(Options options) {
  return explore(options, [](Sim& sim) {
    using W = World<SimEnv<kMutant>>;
    W world(sim);
    for (int i = 0; i < 2; ++i) {
      sim.spawn([&] { typename W::Handle(&world.record()); });
    }
    sim.run();
    auto& state = world.record();
    state.template settle<true>();
    state.release();  // the promise's
    world.check_end();
  });
}

TEST(OutcomeModel, TwoFuturesOfOnePromiseAreMadeAtOnce) {
  expect_clean(two_futures<Mutant::none>({.preemptions = bound(4)}));
}

TEST(OutcomeModelMutant, TheFirstHandleTakesItsReferenceBeforeItCountsItself) {
  hunt(two_futures<Mutant::outcome_handle_before_reference>({.preemptions = 3}));
}

// ---- errors that nobody sees ----

// Handles that are dropped while the task fails; one of them may be awaited before.
template <Mutant kMutant>
Report fail_unseen(Options options, unsigned handles, bool look) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using W = World<Env>;
    W world(sim);
    std::array<typename W::Handle, 3> held;
    bool seen = false;
    for (unsigned i = 0; i < handles; ++i) held[i] = world.handle();
    sim.spawn([&] { world.record().finish(SlotState::error); });
    for (unsigned i = 0; i < handles; ++i) {
      sim.spawn([&, i] {
        typename W::Handle mine = std::move(held[i]);
        if (look && i == 0 && mine.get()->done()) {
          mine.get()->mark_observed();
          seen = true;
        }
        mine = {};
      });
    }
    sim.run();
    sim.check(world.reports() == (seen ? 0 : 1),
              seen ? "an error is reported that was seen" : "an error is not reported once");
    world.check_end();
  });
}

TEST(OutcomeModel, AnErrorThatNobodySeesIsReportedOnce) {
  for (const bool look : {false, true}) {
    expect_clean(fail_unseen<Mutant::none>({.preemptions = bound(4)}, 1, look));
    expect_clean(fail_unseen<Mutant::none>({.preemptions = 2}, 2, look));
    expect_clean_in_random_schedules(
        [=](Options options) { return fail_unseen<Mutant::none>(options, 3, look); }, kRandom);
  }
}

TEST(OutcomeModelMutant, TheLastHandleAndTheEndSeeEachOther) {
  hunt(fail_unseen<Mutant::outcome_weak_error>({.preemptions = 2}, 1, false));
}

// ---- threads that block ----

template <Mutant kMutant>
Report block(Options options, unsigned threads) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using W = World<Env>;
    W world(sim);
    std::array<typename W::Handle, 2> held;
    for (unsigned i = 0; i < threads; ++i) held[i] = world.handle();
    sim.spawn([&] { world.record().finish(SlotState::value); });
    for (unsigned i = 0; i < threads; ++i) {
      sim.spawn([&, i] {
        typename W::Handle mine = std::move(held[i]);
        mine.get()->block_until_done();
        sim.check(mine.get()->done(), "a thread goes on before the end");
        mine.get()->shown().value().look();
      });
    }
    sim.run();
    world.check_end();
  });
}

TEST(OutcomeModel, AThreadThatBlocksIsWoken) {
  expect_clean(block<Mutant::none>({.preemptions = bound(4)}, 1));
  expect_clean(block<Mutant::none>({.preemptions = 2}, 2));
}

TEST(OutcomeModelMutant, AThreadSaysUnderTheLockThatItWillSleep) {
  hunt(block<Mutant::outcome_block_unlocked>({.preemptions = 2}, 1));
}

}  // namespace
}  // namespace magpie::model
