// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/outcome.h>

#include <gtest/gtest.h>

#include <array>
#include <exception>
#include <new>
#include <utility>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// The end of a task or a promise (executor/SHUTDOWN.md, "The end of a task"): one thread publishes
// the outcome while others park for it, copy the value, move it out, are cancelled, add callbacks,
// block, and drop their handles; the last of them all frees the record.
//
// OutcomeCore, OutcomeState, OutcomeHandle and Slot are the real ones. OutcomeWait and the end of a
// task are repeated here in small, over strands.

namespace magpie::model {
namespace {

using detail::BasicOutcomeCore;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::OutcomeHandle;
using detail::OutcomeState;
using detail::Slot;
using detail::SlotState;
using detail::WaitPhase;

constexpr int kValue = 7;
constexpr int kGone = -1;

// Others run in the middle of each copy and each move.
struct Value {
  explicit Value(int number) noexcept : n(number) {}
  Value(const Value& other) noexcept : n(other.look()) {
    Sim::current().pass();
    other.look();
  }
  Value(Value&& other) noexcept : n(other.look()) {
    other.n = kGone;
    Sim::current().pass();
  }
  int look() const noexcept {
    Sim::current().check(n == kValue, "a value is looked at that has been moved out");
    return n;
  }
  int n;
};

template <class Env>
struct JoinWait : StrandWaiter<Env> {
  JoinWait(Strand<Env>& strand, BasicScope<Env>& scope) : StrandWaiter<Env>(strand), where(scope) {}
  BasicScope<Env>& where;
  void (*fill)(JoinWait*) noexcept = nullptr;
  bool moves() const noexcept { return fill == nullptr; }
  bool park_in_scope() noexcept {
    this->state.set(WaitPhase::waiting);
    if (where.park(*this)) return true;
    this->state.set(WaitPhase::cancelled_at_once);
    return false;
  }
  bool try_complete(bool*) noexcept { return this->state.try_complete(); }
  void hand_over() noexcept { this->strand->schedule(); }
};

template <class Env>
struct ModelCore : BasicOutcomeCore<Env, JoinWait<Env>> {
  void block_until_done() override { this->wait_done(); }

  // TaskRecord's.
  void report_if_unobserved() noexcept {
    if (this->claim_report()) ++*reports;
  }
  void nobody_can_ask() noexcept override { report_if_unobserved(); }

  int* reports = nullptr;  // outlives the record here
};

// Where the end of a task goes wrong in a mutant of the model's own.
enum class End { right, early_release };

template <class Env>
struct Record final : OutcomeState<Value, ModelCore<Env>> {
  explicit Record(Frame<Record>& its_frame) : frame(&its_frame) {}
  Frame<Record>* frame;

  // As TaskRecord::finish does it.
  template <End kEnd = End::right>
  void finish(SlotState outcome) {
    if (outcome == SlotState::value) {
      this->slot().emplace(kValue);
    } else {
      this->slot().set_cancelled({});
    }
    if (kEnd == End::early_release) this->release();
    this->publish(outcome);
    if (outcome == SlotState::error && this->without_handles()) this->report_if_unobserved();
    if (kEnd == End::right) this->release();
  }

  // As Promise::settle does it.
  template <bool kHeld>
  void settle() {
    this->slot().emplace(kValue);
    if (kHeld) this->add_ref();
    this->publish(SlotState::value);
    if (kHeld) this->release();
  }

  static void operator delete(Record* record, std::destroying_delete_t) {
    record->frame->destroy();
  }
};

template <class Env>
class World {
 public:
  using State = Record<Env>;
  using Handle = OutcomeHandle<State>;

  explicit World(Sim& sim) : sim_(sim) {
    root_.enter_root(nullptr, &task_);
    State& made = record_.make(record_);
    made.reports = &reports_;
  }

  State& record() { return *record_; }
  Handle handle() { return Handle(&*record_); }
  int reports() const { return reports_; }

  enum class Got { value, taken, cancelled, failure };

  // OutcomeWait, awaited: what it gives.
  struct Wait {
    Wait(World& in, Handle&& to, bool move)
        : handle(std::move(to)), moves(move), node(strand, frame_scope) {
      frame_scope.enter(&in.root_, &in.task_);
    }
    // True: parked. False: it goes on at once.
    bool start() {
      if (frame_scope.cancelled()) {
        node.state.set(WaitPhase::cancelled_at_once);
        return false;
      }
      if (!moves) {
        node.owner = this;
        node.fill = [](JoinWait<Env>* waiter) noexcept {
          Wait& self = *static_cast<Node*>(waiter)->owner;
          try {
            self.handle.get()->copy_to(self.copied);
          } catch (...) {
            self.copied.capture_current_exception();
          }
        };
      }
      switch (handle.get()->park_waiter(node)) {
        case BasicOutcomeCore<Env, JoinWait<Env>>::Parked::yes:
          return true;
        case BasicOutcomeCore<Env, JoinWait<Env>>::Parked::done:
          node.state.set(WaitPhase::done_at_once);
          return false;
        default:
          return false;
      }
    }
    // On the resumed strand.
    Got finish() {
      Got got = Got::cancelled;
      switch (node.state.phase()) {
        case WaitPhase::done:
          frame_scope.unpark(node);
          [[fallthrough]];
        case WaitPhase::done_at_once:
          got = deposit();
          break;
        case WaitPhase::cancelled:
          handle.get()->forget_waiter(node);
          break;
        case WaitPhase::cancelled_at_once:
          break;
        default:
          Sim::current().fail("a wait ended without an outcome");
      }
      frame_scope.exit();
      return got;
    }
    Got deposit() {
      if (copied.empty()) {
        Sim::current().check(handle.get()->done(), "a wait is over before the outcome");
        try {
          if (moves) {
            handle.get()->move_to(copied);
          } else {
            handle.get()->copy_to(copied);
          }
        } catch (const InvalidStateError&) {
          return Got::taken;
        }
      }
      if (copied.state() != SlotState::value) return Got::failure;
      copied.value().look();
      return Got::value;
    }

    struct Node : JoinWait<Env> {
      using JoinWait<Env>::JoinWait;
      Wait* owner = nullptr;
    };

    Handle handle;
    const bool moves;
    Slot<Value> copied;
    BasicScope<Env> frame_scope;
    Strand<Env> strand;
    Node node;
  };

  // A coroutine that awaits its handle and lets go of it.
  static Got await(Frame<Wait>& frame) {
    if (frame->start()) frame->strand.resumed();
    return finish(frame);
  }
  static Got finish(Frame<Wait>& frame) {
    const Got got = frame->finish();
    frame.destroy();
    return got;
  }

  void cancel() { cancel_now(root_); }

  void check_end() {
    root_.exit();
    sim_.check(record_.gone_and_untouched(), "the record was touched after its end, or has none");
    sim_.check(task_.cancels.load(std::memory_order_relaxed) == 0,
               "a cancellation is counted for ever");
  }

 private:
  Sim& sim_;
  BasicTaskCore<Env> task_;
  BasicScope<Env> root_;
  Frame<State> record_;
  int reports_ = 0;
};

// A callback that others run in the middle of.
template <class Env>
struct Callback : BasicOutcomeCore<Env, JoinWait<Env>>::Callback {
  using Core = BasicOutcomeCore<Env, JoinWait<Env>>;
  int calls = 0;
  bool shown = false;

  Callback() {
    this->call = [](typename Core::Callback* base, Core& core) noexcept {
      auto& self = *static_cast<Callback*>(base);
      ++self.calls;
      try {
        static_cast<Record<Env>&>(core).show_to([&](const Result<Value>& result) noexcept {
          result.value().look();
          Sim::current().pass();
          result.value().look();
          self.shown = true;
        });
      } catch (const InvalidStateError&) {
      }
    };
  }
};

// Most steps hold a lock: exhaustive without store buffers, and random schedules with them.
Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

template <class Run>
void expect_clean_in_random_schedules(Run run, std::uint64_t executions = 8'000) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report =
        run({.strategy = strategy, .executions = executions, .pct_depth = 4, .pct_length = 200});
    EXPECT_TRUE(report.passed()) << report;
  }
}

// ---- those who copy, those who move, and those who are cancelled ----

struct Cast {
  unsigned copiers = 0;
  unsigned movers = 0;
  bool callback = false;  // added before the end, during it or after it
  bool early = false;     // copiers wait and the callback is there from the start
  bool early_movers = false;
  bool cancel = false;
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

    sim.spawn([&] { world.record().template finish<kEnd>(SlotState::value); });
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
        [=](Options options) { return settle<Mutant::none>(options, cast); });
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
  expect_clean_in_random_schedules([](Options options) {
    return settle<Mutant::none>(options, {.copiers = 1, .movers = 1, .callback = true});
  });
}

TEST(OutcomeModel, AWaitIsCancelledWhileTheTaskEnds) {
  for (const bool early : {false, true}) {
    expect_clean(settle<Mutant::none>(locked(early ? 2 : 1),
                                      {.movers = 1, .early_movers = early, .cancel = true}));
    expect_clean(settle<Mutant::none>(locked(early ? 2 : 1),
                                      {.copiers = 1, .early = early, .cancel = true}));
  }
  expect_clean_in_random_schedules([](Options options) {
    return settle<Mutant::none>(options,
                                {.copiers = 1, .movers = 1, .callback = true, .cancel = true});
  });
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
        [=](Options options) { return fail_unseen<Mutant::none>(options, 3, look); });
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
