// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>
#include <magpie/detail/event_core.h>
#include <magpie/detail/event_count.h>
#include <magpie/detail/injection_queue.h>
#include <magpie/detail/join.h>
#include <magpie/detail/lifecycle.h>
#include <magpie/detail/local_queue.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// A small executor, of everything that the real one is made of: workers with deques, their bias and
// its revocation, the injection queue, parking, joins, waits, cancellation, admission and shutdown,
// all at once. Tasks come from outside; each forks two children, of which one waits for the other;
// some are cancelled from outside, while somebody shuts the executor down and destroys it.
//
// Deque, InjectionQueue, EventCount, BasicLifecycle, BasicJoinCounter, BasicScope, EventCore and
// the waiters are the real ones. The worker's loop is worker.cc's, without spinning, short sleeps
// and timers, which only hide what is lost; coroutines are strands with a function.
//
// Far too large to be exhausted: random schedules, most of them by priorities that change twice
// (PCT, depth 3). A failure prints its seed; SEED=<it> runs that schedule alone. That parking needs
// its fence does not show here, as who pushes also looks at its own deque in the end:
// event_count_model_test.cc.

namespace magpie::model {
namespace {

using detail::BasicJoinCounter;
using detail::BasicLifecycle;
using detail::BasicLifeShard;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::Deque;
using detail::EventCore;
using detail::EventCount;
using detail::InjectionQueue;
using detail::kForkTag;
using detail::kTagMask;
using detail::Phase;
using detail::Runnable;
namespace attention = detail::attention;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto seq_cst = std::memory_order_seq_cst;

// What the glue between the protocols leaves out.
enum class Flaw {
  none,
  no_look_at_inbox,  // whoever parks does not look into the injection queue before
  silent_inbox,      // work from outside wakes nobody
  no_entrants,       // the destructor does not wait for strangers
  no_entrance,       // ... and a stranger does not say that it is there
};

struct Size {
  unsigned workers = 2;
  unsigned tasks = 2;           // a thread of its own brings each
  bool cancelled = true;        // the first one, by a thread of its own
  bool waits_for_posts = true;  // ... until which the executor stays open
  bool cancels_rest = false;    // the end cancels what still runs
  bool asymmetric = true;
};

template <class Env, Flaw kFlaw>
class Machine final : Strand<Env>::Home {
 public:
  struct Shard : BasicLifeShard<Env> {};
  // What a worker runs: a strand that goes on.
  struct Piece : Runnable, Strand<Env> {
    explicit Piece(Machine& machine) : Strand<Env>(&machine) {}
  };
  static constexpr std::size_t kMostWorkers = 3;

  // The deques own memory, so they lie where the model ends and not where the machine does: only
  // workers touch them.
  explicit Machine(std::deque<Deque<Env>>& deques) : workers_(deques.size()), deques_(deques) {}

  // ---- from any thread ----

  void go_on(Strand<Env>& strand) override { schedule(static_cast<Piece&>(strand)); }

  void schedule(Runnable& work) {
    const std::size_t self = Sim::current().this_thread();
    if (self >= workers_) return inject(work);
    push(self, reinterpret_cast<std::uintptr_t>(&work));
  }

  void inject(Runnable& work) {
    const std::size_t self = Sim::current().this_thread();
    Shard& here = shards_[self < workers_ ? self : kMostWorkers];
    const bool visitor = self >= workers_ && kFlaw != Flaw::no_entrance;
    if (visitor) life.enter(here);
    inbox_.push(work);
    Env::fence_seq_cst();
    std::uint32_t bits = attention_.load(relaxed);
    if ((bits & attention::kInbox) == 0) bits = attention_.fetch_or(attention::kInbox, seq_cst);
    if ((bits & attention::kSleepers) != 0 && kFlaw != Flaw::silent_inbox) wake(1);
    if (visitor) life.leave(here);
  }

  Shard& own_shard() { return shards_[Sim::current().this_thread()]; }
  Shard& strangers() { return shards_[kMostWorkers]; }

  // ---- by workers ----

  void push(std::size_t self, std::uintptr_t item) {
    Sim::current().check(deques_[self].owner().push(item), "push failed");
    const std::uint32_t bits = attention_.load(relaxed);
    if ((bits & attention::kSleepers) != 0) wake(1);  // P6
    if ((bits & attention::kInbox) != 0 && inbox_.empty()) unmark_inbox();
  }
  // A sibling that nobody has stolen, to go on with at once.
  bool pop_if(std::uintptr_t wanted) {
    auto deque = deques_[Sim::current().this_thread()].owner();
    if (deque.peek() != wanted) return false;
    const std::uintptr_t item = deque.pop();
    if (item == wanted) return true;
    if (item != 0) push(Sim::current().this_thread(), item);
    return false;
  }

  template <class Execute>
  void work(std::size_t self, Execute execute) {
    bool woken = false;
    while (stop_.load(std::memory_order_acquire) == 0) {
      std::uintptr_t item = next_item(self);
      if (item == 0) item = steal(self);
      if (item != 0) {
        if (std::exchange(woken, false)) pass_on();
        execute(item);
      } else {
        woken = true;
        park();
      }
    }
    Sim::current().check(deques_[self].size_hint() == 0, "a worker leaves and has work");
    gone_.fetch_add(1, std::memory_order_acq_rel);
  }

  // ---- the end ----

  template <class CancelAll>
  void shut_down(CancelAll cancel_all) {
    life.set_phase(Phase::draining);
    do {
      life.set_phase(Phase::cancelling);
      cancel_all();
      life.wait_idle([] { return false; }, std::nullopt);
      life.set_phase(Phase::closed);
    } while (life.live() != 0);
  }
  void stop() {
    if (kFlaw != Flaw::no_entrants) life.wait_for_entrants();
    stop_.store(1, std::memory_order_release);
    attention_.fetch_or(attention::kLoop, seq_cst);
    Env::fence_seq_cst();
    sleepers_.notify_all();
    while (gone_.load(std::memory_order_acquire) != static_cast<int>(workers_)) Env::yield_thread();
  }

 private:
  std::array<Shard, kMostWorkers + 1> shards_;

 public:
  BasicLifecycle<Env, Shard> life{shards_.data(), shards_.size()};

 private:
  std::uintptr_t next_item(std::size_t self) {
    const bool inbox = (attention_.load(relaxed) & attention::kInbox) != 0;
    if (from_inbox_[self] != 0) {
      --from_inbox_[self];
    } else if (inbox) {
      if (const std::uintptr_t item = take_from_inbox(self); item != 0) return item;
    }
    if (const std::uintptr_t item = deques_[self].owner().pop(); item != 0) return item;
    return inbox_.empty() ? 0 : take_from_inbox(self);
  }

  void unmark_inbox() {
    attention_.fetch_and(~attention::kInbox, seq_cst);
    if (!inbox_.still_empty()) attention_.fetch_or(attention::kInbox, seq_cst);
  }

  std::uintptr_t take_from_inbox(std::size_t self) {
    std::array<Runnable*, 2> taken{};
    std::size_t count = 0;
    if (deques_[self].size_hint() == 0) {
      count = inbox_.pop_batch(taken.data(), taken.size());
    } else if (Runnable* const work = inbox_.try_pop(); work != nullptr) {
      taken[count++] = work;
    }
    if (count == 0) {
      if (inbox_.empty()) unmark_inbox();
      return 0;
    }
    from_inbox_[self] = count;
    if (count > 1) push(self, reinterpret_cast<std::uintptr_t>(taken[1]));
    return reinterpret_cast<std::uintptr_t>(taken[0]);
  }

  std::uintptr_t steal(std::size_t self) {
    for (std::size_t i = 1; i < workers_; ++i) {
      Deque<Env>& victim = deques_[(self + i) % workers_];
      if (victim.size_hint() == 0) continue;
      if (const std::uintptr_t item = victim.thief(marks_[self]).steal().item; item != 0)
        return item;
    }
    return 0;
  }

  bool work_in_sight() {
    if (kFlaw != Flaw::no_look_at_inbox && !inbox_.still_empty()) return true;
    for (const Deque<Env>& deque : deques_) {
      if (deque.size_hint() != 0) return true;
    }
    return false;
  }

  void wake(std::uint32_t most) {  // P2
    if ((attention_.fetch_and(~attention::kSleepers, seq_cst) & attention::kSleepers) != 0)
      sleepers_.notify(most);
  }

  void pass_on() {  // P5
    if (sleepers_.waiters() == 0) return;
    attention_.fetch_or(attention::kSleepers, seq_cst);
    bool seen = work_in_sight();
    if (!seen) {
      if (!all_sleep_but(1)) Env::heavy_fence();
      seen = work_in_sight();
    }
    if (seen) wake(2);
  }

  bool all_sleep_but(std::size_t awake) {  // P8
    return sleepers_.waiters_in_order() == workers_ - awake;
  }

  void park() {
    const auto key = sleepers_.prepare();                                 // P1
    attention_.fetch_or(attention::kSleepers, seq_cst);                   // P1
    if (!all_sleep_but(0)) Env::heavy_fence();                            // P8, P3
    if (work_in_sight() || stop_.load(std::memory_order_acquire) != 0) {  // P4
      sleepers_.cancel(key);
      Env::yield_thread();
    } else {
      sleepers_.wait(key, std::nullopt);
    }
  }

  const std::size_t workers_;
  std::deque<Deque<Env>>& deques_;
  ThiefMarks<Env> marks_;
  std::array<std::size_t, kMostWorkers> from_inbox_{};
  InjectionQueue<Env> inbox_;
  EventCount<Env> sleepers_;
  typename Env::template Atomic<std::uint32_t> attention_{0};
  typename Env::template Atomic<int> stop_{0};
  typename Env::template Atomic<int> gone_{0};
};

// A task: forks two children; the first waits for an event that the second sets.
template <class Env, Flaw kFlaw>
class TreeTask {
 public:
  using M = Machine<Env, kFlaw>;
  using Piece = typename M::Piece;

  TreeTask(Sim& sim, M& machine)
      : sim_(sim), machine_(machine), start_(machine), waits_(machine), sets_(machine) {
    root_.enter_root(nullptr, &core_);
  }

  // By a stranger.
  void post() {
    if (!machine_.life.admit(machine_.strangers(), false)) return;
    admitted_ = true;
    machine_.schedule(start_);
  }
  void cancel() { cancel_now(root_); }

  // Which of the pieces of this task the item is; none: another task's.
  bool run(std::uintptr_t item) {
    if (item == reinterpret_cast<std::uintptr_t>(static_cast<Runnable*>(&start_))) {
      fork();
    } else if (item == fork_item()) {
      run_second(0);
    } else if (item == reinterpret_cast<std::uintptr_t>(static_cast<Runnable*>(&waits_))) {
      end_first();
    } else {
      return false;
    }
    return true;
  }

  void check_end() {
    sim_.check(ended_ == (admitted_ ? 1 : 0), "a task that was admitted has not run, or twice");
    sim_.check(!admitted_ || wait_.gone_and_untouched(), "a wait was touched after its end");
    root_.exit();
    sim_.check(core_.cancels.load(relaxed) == 0, "a cancellation is counted for ever");
  }

 private:
  std::uintptr_t fork_item() {
    return reinterpret_cast<std::uintptr_t>(static_cast<Runnable*>(&sets_)) | kForkTag;
  }

  void fork() {
    join_.start(2);
    scope_.enter(&root_, &core_);
    wait_.make(waits_, scope_, nullptr);
    machine_.push(sim_.this_thread(), fork_item());
    // From where it is parked, another worker may go on with it.
    if (!wait_->refused() && event_.start(*wait_)) return;
    end_first();
  }
  // The first child's end; if the second still lies in this worker's deque it is next, and takes
  // the unit along.
  void end_first() {
    finish_wait(*wait_, [&] { event_.leave(*wait_); });
    wait_.destroy();
    if (machine_.pop_if(fork_item())) {
      run_second(1);
    } else {
      deliver(1);
    }
  }
  void run_second(std::uint32_t carried) {
    event_.set();
    deliver(1 + carried);
  }
  void deliver(std::uint32_t units) {
    if (units != 2 && !join_.deliver(units)) return;
    scope_.exit();
    sim_.check(++ended_ == 1, "a task has ended twice");
    machine_.life.end(machine_.own_shard(), true);
  }

  Sim& sim_;
  M& machine_;
  BasicTaskCore<Env> core_;
  BasicScope<Env> root_;
  BasicScope<Env> scope_;  // of the join
  BasicJoinCounter<Env> join_;
  EventCore<WaitTraits<Env>> event_;
  Frame<Wait<Env>> wait_;
  Piece start_;
  Piece waits_;
  Piece sets_;
  bool admitted_ = false;
  int ended_ = 0;
};

template <Mutant kMutant = Mutant::none, Flaw kFlaw = Flaw::none>
Report perform(Options options, Size size) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Task = TreeTask<Env, kFlaw>;
    sim.set_asymmetric(size.asymmetric);
    std::deque<Deque<Env>> deques;
    for (unsigned i = 0; i < size.workers; ++i) deques.emplace_back(4);
    Frame<Machine<Env, kFlaw>> machine;
    machine.make(deques);
    std::deque<Task> tasks;
    for (unsigned i = 0; i < size.tasks; ++i) tasks.emplace_back(sim, *machine);
    for (unsigned i = 0; i < size.workers; ++i) {
      sim.spawn([&, i] {
        machine->work(i, [&](std::uintptr_t item) {
          for (Task& task : tasks) {
            if (task.run(item)) return;
          }
          sim.fail("a worker has taken what nobody has given");
        });
      });
    }
    typename Env::template Atomic<int> posted{0};
    for (Task& task : tasks) {
      sim.spawn([&] {
        task.post();
        posted.fetch_add(1, std::memory_order_acq_rel);
      });
    }
    if (size.cancelled) {
      sim.spawn([&] { tasks[0].cancel(); });
    }
    sim.spawn([&] {
      const auto wait_for_posts = [&] {
        while (posted.load(std::memory_order_acquire) != static_cast<int>(size.tasks))
          Env::yield_thread();
      };
      if (size.waits_for_posts) wait_for_posts();
      machine->shut_down([&] {
        if (!size.cancels_rest) return;
        for (Task& task : tasks) task.cancel();
      });
      // Whoever posts holds the executor; who cancels holds a task's handle at most.
      wait_for_posts();
      machine->stop();
      machine.destroy();
    });
    sim.run();
    sim.check(machine.gone_and_untouched(), "the executor was touched after its end");
    for (Task& task : tasks) task.check_end();
  });
}

constexpr Size kTwoWorkers{};
constexpr Size kMoreTasks{.tasks = 3};
constexpr Size kThreeWorkers{.workers = 3, .cancels_rest = true};
constexpr Size kEndsAtOnce{.waits_for_posts = false, .cancels_rest = true};
constexpr Size kFenced{.asymmetric = false};

Options at_random(Strategy strategy, std::uint64_t executions) {
  return {.strategy = strategy,
          .executions = executions,
          .pct_depth = 3,
          .pct_length = 500,
          .longest = 20'000};
}

TEST(ExecutorModel, EveryTaskRunsOnceAndTheEndComesAfterTheLast) {
  std::uint64_t executions = 0;
  for (const Size& size : {kTwoWorkers, kMoreTasks, kThreeWorkers, kEndsAtOnce, kFenced}) {
    for (const Strategy strategy : {Strategy::pct, Strategy::random}) {
      const Report report =
          perform(at_random(strategy, strategy == Strategy::pct ? 12'000 : 4'000), size);
      EXPECT_TRUE(report.passed()) << report;
      executions += report.executions;
    }
  }
  std::printf("%llu random executions\n", static_cast<unsigned long long>(executions));
}

template <Mutant kMutant, Flaw kFlaw = Flaw::none>
void hunt_at_random(const Size& size, Strategy strategy = Strategy::pct) {
  hunt(perform<kMutant, kFlaw>(at_random(strategy, 1'000'000), size));
}

TEST(ExecutorModelMutant, WhoParksLooksIntoTheInjectionQueue) {
  hunt_at_random<Mutant::none, Flaw::no_look_at_inbox>(kTwoWorkers);
}

TEST(ExecutorModelMutant, WorkFromOutsideWakesSomebody) {
  hunt_at_random<Mutant::none, Flaw::silent_inbox>(kTwoWorkers);
}

TEST(ExecutorModelMutant, TheDestructorWaitsForStrangers) {
  hunt_at_random<Mutant::none, Flaw::no_entrants>({.tasks = 1});
}

TEST(ExecutorModelMutant, AStrangerSaysThatItIsThere) {
  hunt_at_random<Mutant::none, Flaw::no_entrance>(kTwoWorkers);
}

TEST(ExecutorModelMutant, AThiefMakesAHeavyFence) {
  hunt_at_random<Mutant::deque_no_barrier>(kTwoWorkers);
}

TEST(ExecutorModelMutant, UnitsAreHandedInInOneStep) {
  hunt_at_random<Mutant::join_plain_counter>(kTwoWorkers);
}

TEST(ExecutorModelMutant, TheInjectionQueueHasALock) {
  hunt_at_random<Mutant::injection_no_lock>(kTwoWorkers);
}

TEST(ExecutorModelMutant, ANotificationMovesTheEpoch) {
  hunt_at_random<Mutant::event_count_no_epoch>(kTwoWorkers);
}

TEST(ExecutorModelMutant, AWaitIsDecidedInOneStep) {
  hunt_at_random<Mutant::waiter_plain_decide>(kTwoWorkers);
}

TEST(ExecutorModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt_at_random<Mutant::event_leave_unlocked>(kTwoWorkers);
}

TEST(ExecutorModelMutant, TheFlagIsLookedAtUnderTheLock) {
  hunt_at_random<Mutant::event_early_look>(kTwoWorkers);
}

TEST(ExecutorModelMutant, WhoWaitsForTheEndMakesAHeavyFence) {
  hunt_at_random<Mutant::lifecycle_no_heavy_fence>(kTwoWorkers, Strategy::random);
}

TEST(ExecutorModelMutant, WorkIsCountedBeforeTheLookAtThePhase) {
  hunt_at_random<Mutant::lifecycle_late_count>(kEndsAtOnce, Strategy::random);
}

}  // namespace
}  // namespace magpie::model
