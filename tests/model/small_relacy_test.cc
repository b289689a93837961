// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "relacy_env.h"

#include <magpie/detail/event_count.h>
#include <magpie/detail/injection_queue.h>
#include <magpie/detail/outcome_core.h>
#include <magpie/detail/permit_core.h>
#include <magpie/detail/registry.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/timer_queue.h>

#include <array>
#include <mutex>

// SpinLock, PermitCore, TimerWord, InjectionQueue, EventCount, the end of a task and the list of
// tasks under the C++ memory model.

namespace magpie::model {
namespace {

using detail::EventCount;
using detail::InjectionQueue;
using detail::Runnable;
using detail::SpinLock;
using detail::TimerWord;

template <class Test>
void expect_clean(unsigned bound) {
  const RelacyReport report = explore_relacy<Test>({.bound = bound});
  EXPECT_TRUE(report.passed) << report.text;
  std::printf("%llu executions\n", report.executions);
}

template <class Test>
void expect_killed(unsigned bound) {
  const RelacyReport report = explore_relacy<Test>({.bound = bound});
  EXPECT_FALSE(report.passed);
  std::printf("after %llu executions\n", report.executions);
}

template <Mutant kMutant>
struct TwoInside : RelacyTest<TwoInside<kMutant>, 2> {
  SpinLock<RelacyEnv<kMutant>> lock;
  RelacyData<int> count{0};

  void thread(unsigned) {
    for (int i = 0; i < 2; ++i) {
      std::lock_guard hold(lock);
      count.write(count.read() + 1);
    }
  }
  void after() { relacy_check(count.read() == 4); }
};

TEST(SpinLockRelacy, WhatOneThreadWroteInsideTheNextOneSees) {
  MAGPIE_SKIP_RELACY();
  expect_clean<TwoInside<Mutant::none>>(4);
}

TEST(SpinLockRelacyMutant, ARelaxedUnlockHandsOverNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoInside<Mutant::spin_lock_relaxed_unlock>>(3);
}

TEST(SpinLockRelacyMutant, ALoadAndAStoreAreNotALock) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoInside<Mutant::spin_lock_plain_lock>>(3);
}

// Nobody waits: only the steps of an open core, and of one that an attempt has closed.
template <class Environment>
struct Permits {
  using Env = Environment;
  using Waiter = detail::BasicWaiter<Env>;
  using Acquire = Waiter;
  using Word = std::uint8_t;
  struct WakeList {
    bool claim_front(detail::BasicWaitQueue<Env>&) { return false; }
    void wake_all() {}
  };
  static Word count(const Waiter&) { return 1; }
};

template <Mutant kMutant>
struct OnePermit : RelacyTest<OnePermit<kMutant>, 3> {
  detail::PermitCore<Permits<RelacyEnv<kMutant>>> core{1};
  RelacyData<int> count{0};

  void thread(unsigned) {
    if (!core.try_take(1)) return;
    count.write(count.read() + 1);
    core.give_back(1);
  }
  void after() { relacy_check(core.available() == 1 && count.read() >= 1); }
};

TEST(PermitRelacy, WhatOneWroteTheNextOneWhoHasThePermitSees) {
  MAGPIE_SKIP_RELACY();
  expect_clean<OnePermit<Mutant::none>>(3);
}

TEST(PermitRelacyMutant, OneTakenWithARelaxedOrderTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<OnePermit<Mutant::permit_relaxed_take>>(3);
}

TEST(PermitRelacyMutant, OneGivenBackWithARelaxedOrderTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<OnePermit<Mutant::permit_relaxed_return>>(3);
}

// One who is in a race closes the core, and then has won or has not.
template <class Environment, bool kWins>
struct RacingPermits : Permits<Environment> {
  using Word = std::uint8_t;
  struct Acquire : detail::BasicWaiter<Environment> {
    bool taken = false;
  };
  static Word count(const detail::BasicWaiter<Environment>&) { return 1; }
  static bool asks(const Acquire&) { return true; }
  static bool park(const Acquire&) { return false; }  // cancelled: it does not wait
  static bool complete_at_once(Acquire& op) { return op.taken = kWins; }
};

template <Mutant kMutant, bool kWins>
struct OnePermitAndARace : RelacyTest<OnePermitAndARace<kMutant, kWins>, 3> {
  using Traits = RacingPermits<RelacyEnv<kMutant>, kWins>;
  detail::PermitCore<Traits> core{1};
  RelacyData<int> count{0};

  void thread(unsigned index) {
    if (index == 0) {
      typename Traits::Acquire op;
      core.start(op);
      if (!op.taken) return;
    } else if (!core.try_take(1)) {
      return;
    }
    count.write(count.read() + 1);
    core.give_back(1);
  }
  void after() { relacy_check(core.available() == 1); }
};

TEST(PermitRelacy, WhoWinsARaceSeesWhatTheOneBeforeWrote) {
  MAGPIE_SKIP_RELACY();
  expect_clean<OnePermitAndARace<Mutant::none, true>>(2);
}

// Relacy lets a plain store go on with the release sequence of the same thread's read-modify-write
// before it: that the store in open() must be a release is not noticed here.
TEST(PermitRelacy, WhoLosesARaceHandsOnWhatTheOneBeforeWrote) {
  MAGPIE_SKIP_RELACY();
  expect_clean<OnePermitAndARace<Mutant::none, false>>(2);
}

TEST(PermitRelacyMutant, OneWhoClosesWithARelaxedOrderIsToldNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<OnePermitAndARace<Mutant::permit_relaxed_close, true>>(2);
}

template <Mutant kMutant>
struct FireAgainstLeave : RelacyTest<FireAgainstLeave<kMutant>, 2> {
  TimerWord<RelacyEnv<kMutant>> word;
  RelacyData<int> frame{0};

  void thread(unsigned index) {
    if (index == 0) {
      if (!word.begin_fire()) return;
      frame.write(1);
      word.end_fire();
    } else {
      const bool unfired = word.disarm();
      relacy_check(frame.read() == (unfired ? 0 : 1));
      frame.write(2);  // as whoever gets the memory next
    }
  }
};

TEST(TimerWordRelacy, TheFrameSeesAllThatTheTimerDid) {
  MAGPIE_SKIP_RELACY();
  expect_clean<FireAgainstLeave<Mutant::none>>(5);
}

TEST(TimerWordRelacyMutant, WithoutTheWaitTheFrameLeavesTooEarly) {
  MAGPIE_SKIP_RELACY();
  expect_killed<FireAgainstLeave<Mutant::timer_word_no_wait>>(3);
}

TEST(TimerWordRelacyMutant, ARelaxedEndTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<FireAgainstLeave<Mutant::timer_word_relaxed_end>>(3);
}

template <class Env>
struct Linked {
  typename Env::template Atomic<Linked*> next{nullptr};
};

template <Mutant kMutant>
struct PushAndPop : RelacyTest<PushAndPop<kMutant>, 3> {
  using Node = Linked<RelacyEnv<kMutant>>;
  InjectionQueue<RelacyEnv<kMutant>, Node> queue;
  std::array<Node, 2> runnables{};
  std::array<RelacyData<int>, 2> payload;
  int out = 0;

  void thread(unsigned index) {
    if (index < 2) {
      payload[index].write(7);
      queue.push(runnables[index]);
    } else {
      take(queue.pop());
    }
  }
  void take(Node* runnable) {
    if (runnable == nullptr) return;
    relacy_check(payload[static_cast<std::size_t>(runnable - runnables.data())].read() == 7);
    ++out;
  }
  void after() {
    while (Node* runnable = queue.pop()) take(runnable);
    relacy_check(out == 2);
  }
};

TEST(InjectionQueueRelacy, WhoPopsSeesWhatWasWrittenBeforeThePush) {
  MAGPIE_SKIP_RELACY();
  expect_clean<PushAndPop<Mutant::none>>(3);
}

// One pushes some and then looks for a sleeper, one takes all but one, and one who will sleep looks
// whether something is left.
template <Mutant kMutant, std::size_t kPushes>
struct PushMarkAndLook : RelacyTest<PushMarkAndLook<kMutant, kPushes>, 3> {
  using Env = RelacyEnv<kMutant>;
  InjectionQueue<Env, Linked<Env>> queue;
  typename Env::template Atomic<int> sleeps{0};
  std::array<Linked<Env>, kPushes> runnables{};
  bool seen_to = false;
  bool found = false;

  void thread(unsigned index) {
    if (index == 0) {
      for (auto& runnable : runnables) queue.push(runnable);
      Env::fence_seq_cst();
      seen_to = sleeps.load(std::memory_order_relaxed) != 0;
    } else if (index == 1) {
      for (std::size_t i = 1; i < kPushes; ++i) (void)queue.pop();
    } else {
      sleeps.fetch_add(1, std::memory_order_seq_cst);
      Env::fence_seq_cst();  // Relacy does not order a fence with a sequentially consistent load
      found = !queue.still_empty();
    }
  }
  void after() { relacy_check(seen_to || found); }
};

TEST(InjectionQueueRelacy, WhatIsBeforeTheMarkIsSeenByWhoeverWillSleep) {
  MAGPIE_SKIP_RELACY();
  expect_clean<PushMarkAndLook<Mutant::none, 2>>(3);
}

// The second mark behind which something may be left is the first one, again.
TEST(InjectionQueueRelacy, WhatIsBeforeTheSecondMarkIsSeenByWhoeverWillSleep) {
  MAGPIE_SKIP_RELACY();
  expect_clean<PushMarkAndLook<Mutant::none, 3>>(3);
}

TEST(InjectionQueueRelacyMutant, TheFirstThatIsTheLastMayBeLeft) {
  MAGPIE_SKIP_RELACY();
  expect_killed<PushMarkAndLook<Mutant::injection_any_end, 2>>(3);
}

TEST(InjectionQueueRelacyMutant, WhoSeesAMarkMustSeeHowFarOthersAre) {
  MAGPIE_SKIP_RELACY();
  expect_killed<PushMarkAndLook<Mutant::injection_relaxed_push, 3>>(3);
}

// Nodes that are freed, or pushed again, as soon as they have been taken.
template <class Env>
struct Freed {
  class Watched {
   public:
    void store(Freed* to, std::memory_order order) {
      to == nullptr ? node_.write(1) : static_cast<void>(node_.read());
      next_.store(to, order);
    }
    Freed* load(std::memory_order order) { return next_.load(order); }
    void free() { node_.write(0); }

   private:
    typename Env::template Atomic<Freed*> next_{nullptr};
    RelacyData<int> node_{0};
  };
  Watched next;
};

template <Mutant kMutant>
struct TakeAndFree {
  using Env = RelacyEnv<kMutant>;
  using Node = Freed<Env>;
  InjectionQueue<Env, Node> queue;
  std::array<Node, 3> nodes{};
  int pushed = 0;
  typename Env::template Atomic<int> taken{0};

  void free(Node& node) {
    node.next.free();
    taken.fetch_add(1, std::memory_order_relaxed);
  }
  void free_and_push(Node& node) {
    free(node);
    ++pushed;
    queue.push(node);
  }
  void after() {
    while (Node* const node = queue.pop()) free(*node);
    relacy_check(taken.load(std::memory_order_relaxed) == static_cast<int>(nodes.size()) + pushed);
  }
};

template <Mutant kMutant, bool kPatient = true>
struct TwoPushAndOneFrees : RelacyTest<TwoPushAndOneFrees<kMutant, kPatient>, 3>,
                            TakeAndFree<kMutant> {
  void thread(unsigned index) {
    if (index == 0) {
      this->queue.push(this->nodes[0]);
      this->queue.push(this->nodes[1]);
    } else if (index == 1) {
      this->queue.push(this->nodes[2]);
    } else {
      if (auto* const node = take()) this->free_and_push(*node);
      if (auto* const node = take()) this->free(*node);
    }
  }
  auto* take() { return kPatient ? this->queue.pop() : this->queue.try_pop(); }
  void after() { TakeAndFree<kMutant>::after(); }
};

template <Mutant kMutant>
struct OnePushesAndTwoFree : RelacyTest<OnePushesAndTwoFree<kMutant>, 3>, TakeAndFree<kMutant> {
  void thread(unsigned index) {
    if (index == 0) {
      for (auto& node : this->nodes) this->queue.push(node);
      return;
    }
    std::array<typename TakeAndFree<kMutant>::Node*, 2> some{};
    const std::size_t count = this->queue.pop_batch(some.data(), some.size());
    for (std::size_t i = 0; i < count; ++i)
      index == 2 && i == 0 ? this->free_and_push(*some[i]) : this->free(*some[i]);
  }
  void after() { TakeAndFree<kMutant>::after(); }
};

TEST(InjectionQueueRelacy, WhoHasTakenANodeMayFreeIt) {
  MAGPIE_SKIP_RELACY();
  expect_clean<TwoPushAndOneFrees<Mutant::none>>(3);
}

TEST(InjectionQueueRelacy, WhoHasTakenANodeWithoutWaitingMayFreeIt) {
  MAGPIE_SKIP_RELACY();
  expect_clean<TwoPushAndOneFrees<Mutant::none, false>>(3);
}

TEST(InjectionQueueRelacy, WhoHasTakenSomeMayFreeThem) {
  MAGPIE_SKIP_RELACY();
  expect_clean<OnePushesAndTwoFree<Mutant::none>>(3);
}

TEST(InjectionQueueRelacyMutant, WhoLinksTheNextOneMustSeeThatANodeIsUnlinked) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoPushAndOneFrees<Mutant::injection_release_push>>(3);
}

TEST(InjectionQueueRelacyMutant, WhoLinksTheNextOneMustBeThroughWithTheNodeBefore) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoPushAndOneFrees<Mutant::injection_relaxed_link>>(3);
}

TEST(InjectionQueueRelacyMutant, WhoFreesANodeMustSeeThatOthersAreThroughWithIt) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoPushAndOneFrees<Mutant::injection_relaxed_walk>>(3);
}

// Two sleepers and one who wakes them, one by one. A sleeper that is never woken is a deadlock.
template <Mutant kMutant>
struct SleepAndWake : RelacyTest<SleepAndWake<kMutant>, 3> {
  using Env = RelacyEnv<kMutant>;
  EventCount<Env> event;
  typename Env::template Atomic<int> units{0};
  RelacyData<int> payload{0};

  bool try_take() {
    int seen = units.load(std::memory_order_relaxed);
    while (seen > 0) {
      // Relaxed on purpose: a sleeper learns of the payload from its notification alone, and one
      // that never slept does not look at it.
      if (units.compare_exchange_strong(seen, seen - 1, std::memory_order_relaxed,
                                        std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }
  void thread(unsigned index) {
    if (index == 0) {
      payload.write(1);
      for (int i = 0; i < 2; ++i) {
        units.fetch_add(1, std::memory_order_relaxed);
        Env::fence_seq_cst();
        event.notify_one();
      }
      return;
    }
    while (!try_take()) {
      const auto key = event.prepare();
      Env::fence_seq_cst();
      if (try_take()) {
        event.cancel(key);
        return;
      }
      if (event.wait(key, std::nullopt)) relacy_check(payload.read() == 1);
    }
  }
  void after() { relacy_check(event.waiters() == 0); }
};

TEST(EventCountRelacy, BothSleepersAreWokenAndSeeWhy) {
  MAGPIE_SKIP_RELACY();
  expect_clean<SleepAndWake<Mutant::none>>(2);
}

TEST(EventCountRelacyMutant, ANotificationMustMoveTheEpoch) {
  MAGPIE_SKIP_RELACY();
  expect_killed<SleepAndWake<Mutant::event_count_no_epoch>>(3);
}

// P8 of PARKING.md, without a fence anywhere. One gets up, writes something and looks whether
// somebody sleeps; the other says that it will sleep, and if then nobody is up, looks for what was
// written: one of the two sees the other.
template <Mutant kMutant>
struct LastOneUp : RelacyTest<LastOneUp<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  EventCount<Env> sleepers;
  typename Env::template Atomic<int> said{0};
  typename Env::template Atomic<int> written{0};
  RelacyData<int> missed{0};
  RelacyData<int> silent{0};

  void thread(unsigned index) {
    const auto key = sleepers.prepare();
    if (index == 0) {
      sleepers.cancel(key);
      written.store(1, std::memory_order_relaxed);
      if (said.load(std::memory_order_relaxed) == 0) silent.write(1);
      return;
    }
    said.fetch_or(1, std::memory_order_seq_cst);
    if (sleepers.waiters_in_order() == 2 && written.load(std::memory_order_relaxed) == 0)
      missed.write(1);
    sleepers.cancel(key);
  }
  void after() { relacy_check(silent.read() == 0 || missed.read() == 0); }
};

TEST(EventCountRelacy, WhoCountsTheOthersAsAsleepIsSeenByWhoGetsUp) {
  MAGPIE_SKIP_RELACY();
  expect_clean<LastOneUp<Mutant::none>>(4);
}

TEST(EventCountRelacyMutant, ARelaxedCensusOverlooksWhoGetsUp) {
  MAGPIE_SKIP_RELACY();
  expect_killed<LastOneUp<Mutant::event_count_loose_census>>(3);
}

// One reads a value, and one moves it out.
template <Mutant kMutant>
struct ReadAndTake : RelacyTest<ReadAndTake<kMutant>, 2> {
  detail::BasicTaking<RelacyEnv<kMutant>> taking;
  RelacyData<int> value{7};

  void thread(unsigned index) {
    if (index == 0) {
      if (taking.begin_reading()) relacy_check(value.read() == 7);
      taking.end_reading();
    } else {
      relacy_check(taking.take());
      value.write(0);
    }
  }
};

TEST(OutcomeRelacy, AMoverComesAfterThoseWhoRead) {
  MAGPIE_SKIP_RELACY();
  expect_clean<ReadAndTake<Mutant::none>>(4);
}

TEST(OutcomeRelacyMutant, ReadersAndMoversMustAgreeOnAnOrder) {
  MAGPIE_SKIP_RELACY();
  expect_killed<ReadAndTake<Mutant::outcome_weak_taking>>(3);
}

TEST(OutcomeRelacyMutant, ARelaxedEndOfAReadingTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<ReadAndTake<Mutant::outcome_relaxed_reader>>(3);
}

// The end of a task against its only handle; the last of the two frees the record.
template <class Env>
struct RelacyWait : detail::BasicWaiter<Env> {
  void (*fill)(RelacyWait*) noexcept = nullptr;
  bool moves() const noexcept { return true; }
  bool is_filled() const noexcept { return false; }
  bool park_in_scope() noexcept { return true; }
  bool try_complete(bool*) noexcept { return this->state.try_complete(); }
  void hand_over() noexcept {}
};

template <Mutant kMutant, bool kFails>
struct EndAndDrop : RelacyTest<EndAndDrop<kMutant, kFails>, 2> {
  using Env = RelacyEnv<kMutant>;
  struct Record final : detail::BasicOutcomeCore<Env, RelacyWait<Env>> {
    explicit Record(EndAndDrop& its_test) : test(its_test) {}
    EndAndDrop& test;
    std::exception_ptr error() const noexcept override { return nullptr; }
    void block_until_done() override {}
    void report() {
      if (this->claim_report()) ++test.reports;
    }
    void nobody_can_ask() noexcept override { report(); }
    void finish(detail::SlotState outcome) {
      if (auto* const one = this->publish_but_one(outcome); one != nullptr) one->hand_over();
      if (outcome == detail::SlotState::error && this->without_handles()) report();
    }
    static void operator delete(Record* record, std::destroying_delete_t) {
      for (auto& trace : record->test.traces) trace.write(2);
      record->test.freed = true;
    }
  };

  Record record{*this};
  RelacyData<int> payload{0};
  std::array<RelacyData<int>, 2> traces;
  int reports = 0;
  bool freed = false;

  void before() { record.add_first_handle(); }
  void thread(unsigned index) {
    if (index == 0) {
      payload.write(7);
      record.finish(kFails ? detail::SlotState::error : detail::SlotState::value);
      traces[0].write(1);
      record.release();
    } else {
      if (!kFails && record.done()) relacy_check(payload.read() == 7);
      traces[1].write(1);
      record.drop_handle();
    }
  }
  void after() { relacy_check(freed && reports == (kFails ? 1 : 0)); }
};

TEST(OutcomeRelacy, TheLastOneFreesTheRecordAndAnErrorIsReportedOnce) {
  MAGPIE_SKIP_RELACY();
  expect_clean<EndAndDrop<Mutant::none, false>>(3);
  expect_clean<EndAndDrop<Mutant::none, true>>(3);
}

TEST(OutcomeRelacyMutant, ARelaxedEndOfATaskTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<EndAndDrop<Mutant::outcome_relaxed_done, false>>(3);
}

TEST(OutcomeRelacyMutant, WhoFreesMustSeeWhatOthersDid) {
  MAGPIE_SKIP_RELACY();
  expect_killed<EndAndDrop<Mutant::outcome_relaxed_release, false>>(3);
}

TEST(OutcomeRelacyMutant, WhoFindsItselfAloneMustSeeWhatOthersDid) {
  MAGPIE_SKIP_RELACY();
  expect_killed<EndAndDrop<Mutant::outcome_relaxed_alone, false>>(3);
}

// The end of a task that has claimed its only waiter, which goes on there; somebody has found the
// task in the list, and there is another handle. The last of them all frees the record.
template <Mutant kMutant>
struct EndBesideWaiter : RelacyTest<EndBesideWaiter<kMutant>, 3> {
  using Env = RelacyEnv<kMutant>;
  struct Record final : detail::BasicOutcomeCore<Env, RelacyWait<Env>> {
    using Core = detail::BasicOutcomeCore<Env, RelacyWait<Env>>;
    explicit Record(EndBesideWaiter& its_test)
        : Core(typename Core::WithHandle{}), test(its_test) {}
    EndBesideWaiter& test;
    std::exception_ptr error() const noexcept override { return nullptr; }
    void block_until_done() override {}
    RelacyWait<Env>* finish() { return this->publish_but_one(detail::SlotState::value); }
    void give_up_beside_waiter() { this->release_beside_waiter(); }
    static void operator delete(Record* record, std::destroying_delete_t) {
      for (auto& trace : record->test.traces) trace.write(2);
      ++record->test.freed;
    }
  };

  Record record{*this};
  RelacyWait<Env> wait;
  std::array<RelacyData<int>, 3> traces;
  int freed = 0;

  void before() {
    record.add_ref();     // whoever found it
    record.add_handle();  // the other one's; the first is the waiter's
    wait.state.set(detail::WaitPhase::waiting);
    relacy_check(record.park_waiter(wait) == Record::Core::Parked::yes);
  }
  void thread(unsigned index) {
    if (index == 0) {
      relacy_check(record.finish() == &wait);
      record.give_up_beside_waiter();
      traces[0].write(1);  // by who waited, and goes on
      record.drop_handle();
    } else if (index == 1) {
      traces[1].write(1);
      record.release();
    } else {
      traces[2].write(1);
      record.drop_handle();
    }
  }
  void after() { relacy_check(freed == 1); }
};

TEST(OutcomeRelacy, TheEndBesideItsWaiterFreesNothingThatOthersHave) {
  MAGPIE_SKIP_RELACY();
  expect_clean<EndBesideWaiter<Mutant::none>>(3);
}

TEST(OutcomeRelacyMutant, TheEndBesideItsWaiterMustSeeWhatOthersDid) {
  MAGPIE_SKIP_RELACY();
  expect_killed<EndBesideWaiter<Mutant::outcome_plain_beside>>(3);
  expect_killed<EndBesideWaiter<Mutant::outcome_relaxed_beside>>(3);
}

TEST(OutcomeRelacyMutant, TheLastHandleAndTheEndMustAgreeOnAnOrder) {
  MAGPIE_SKIP_RELACY();
  expect_killed<EndAndDrop<Mutant::outcome_weak_error, true>>(3);
}

// A detached task ends on the worker that listed it, while somebody reads the list.
template <Mutant kMutant>
struct EndAndRead : RelacyTest<EndAndRead<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  struct Record {
    explicit Record(EndAndRead& its_test) : test(its_test) {}
    EndAndRead& test;
    typename Env::template Atomic<std::uint32_t> refs{1};
    void add_ref() { refs.fetch_add(1, std::memory_order_relaxed); }
    void release() {  // as an outcome's
      if (refs.load(std::memory_order_acquire) == 1 ||
          refs.fetch_sub(1, std::memory_order_acq_rel) == 1)
        test.memory.write(0);
    }
  };
  using Registry = detail::BasicRegistry<Env, Record>;

  Registry registry;
  typename Registry::Table table;
  Record record{*this};
  typename Registry::Place* place = nullptr;
  RelacyData<int> memory{1};

  void before() { place = table.list(record); }
  void thread(unsigned index) {
    if (index == 0) {
      registry.unlist(place, &table);
      record.release();
    } else {
      registry.for_each(table, [&](Record&) { relacy_check(memory.read() == 1); });
    }
  }
  void after() {}
};

TEST(RegistryRelacy, WhoReadsTheListUsesNoTaskThatIsGone) {
  MAGPIE_SKIP_RELACY();
  expect_clean<EndAndRead<Mutant::none>>(3);
}

TEST(RegistryRelacyMutant, WhoEndsATaskMustSeeTheReferencesOfAReaderThatIsThrough) {
  MAGPIE_SKIP_RELACY();
  expect_killed<EndAndRead<Mutant::registry_relaxed_reading>>(4);
}

}  // namespace
}  // namespace magpie::model
