// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>
#include <magpie/detail/event_count.h>
#include <magpie/detail/job.h>
#include <magpie/detail/job_wait.h>

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <optional>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// fork_join (FORK_JOIN.md): functions that fork functions on workers that take jobs from one
// another, wait, help and sleep. Each runs once, a job is not touched after its end, and no
// notification is lost: a worker that sleeps although its job is done, or although there is one
// that nobody runs, is a deadlock here.
//
// The state of a job, the deques, the beds and the waiters are the real ones. The steps around them
// are those of job.h, fork_join.h and worker_jobs.cc, without spinning and short sleeps, which only
// hide what is lost.

namespace magpie::model {
namespace {

using detail::BasicBed;
using detail::BasicJobState;
using detail::BasicJobWaiters;
using detail::Deque;
using detail::EventCount;
namespace attention = detail::attention;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto seq_cst = std::memory_order_seq_cst;

// What the workers might get wrong, besides Mutant.
enum class Flaw {
  none,
  touch_after_end,   // the thief looks at the job once more after it has finished it
  no_wait,           // the owner goes on although a thief has its job
  silent,            // an offer wakes nobody
  announce_to_idle,  // ... only those who have nothing to do
  trusts_the_bit,    // ... nobody who waits while the bit says that somebody has nothing to do
  forgets_waiters,   // whoever comes back from the idle does not look after those who wait
};

template <class Env>
struct Pool {
  Pool(Sim& the_sim, unsigned deques, unsigned sleepers) : sim(the_sim) {
    for (unsigned i = 0; i < deques; ++i) jobs.emplace_back(2);
    for (unsigned i = 0; i < sleepers; ++i) beds.emplace_back();
  }

  bool job_in_sight() const {
    for (const Deque<Env>& deque : jobs) {
      if (deque.size_hint() != 0) return true;
    }
    return false;
  }

  std::uintptr_t steal_from(Deque<Env>& deque) {
    return deque.size_hint() == 0 ? 0 : deque.thief(marks[sim.this_thread()]).steal().item;
  }
  std::uintptr_t steal(unsigned self, unsigned& owner) {
    for (unsigned i = 1; i < jobs.size(); ++i) {
      owner = (self + i) % static_cast<unsigned>(jobs.size());
      if (const std::uintptr_t item = steal_from(jobs[owner]); item != 0) return item;
    }
    return 0;
  }

  bool wake_idle() {  // P2
    const std::uint32_t before = word.fetch_and(~attention::kSleepers, seq_cst);
    return (before & attention::kSleepers) != 0 && idle.notify_one();
  }
  void wake_waiter() {
    waiters.wake_one(word, [this](auto&& woke) {
      for (BasicBed<Env>& bed : beds) {
        if (woke(bed)) return;
      }
    });
  }
  template <Flaw kFlaw = Flaw::none>
  void wake_for_job() {
    const std::uint32_t bits = word.load(relaxed);
    if ((bits & attention::kSleepers) != 0) {
      if (wake_idle() || kFlaw == Flaw::trusts_the_bit) return;
    }
    if (kFlaw != Flaw::announce_to_idle && (bits & attention::kWaiters) != 0) wake_waiter();
  }

  template <Flaw kFlaw>
  void offer(unsigned self, std::uintptr_t item) {
    sim.check(jobs[self].owner().push(item), "push failed");  // F1, with the light fence
    if (kFlaw != Flaw::silent && (word.load(relaxed) & attention::kForJobs) != 0) {
      wake_for_job<kFlaw>();  // F2
    }
  }

  void pass_on_from_bed() {  // F11
    waiters.pass_on(word, [this] { return job_in_sight(); }, [this] { wake_for_job(); });
  }

  // P5, with what it owes to those who wait for jobs.
  template <Flaw kFlaw>
  void pass_on_from_idle() {
    const bool others = idle.waiters() != 0;
    if (!others && (kFlaw == Flaw::forgets_waiters || !waiters.any())) return;
    if (others) word.fetch_or(attention::kSleepers, seq_cst);
    if (others && job_in_sight() && (wake_idle() || !waiters.any())) return;
    Env::heavy_fence();
    if (others && job_in_sight()) {
      wake_idle();
    } else if (kFlaw != Flaw::forgets_waiters && job_in_sight()) {
      wake_for_job();
    }
  }

  // P1 to P4.
  template <class Look>
  void sleep_idle(Look&& look) {
    const auto key = idle.prepare();
    word.fetch_or(attention::kSleepers, seq_cst);
    Env::heavy_fence();
    if (look()) {
      idle.cancel(key);
    } else {
      idle.wait(key, std::nullopt);
    }
  }

  Sim& sim;
  std::deque<Deque<Env>> jobs;
  ThiefMarks<Env> marks;
  std::deque<BasicBed<Env>> beds;
  BasicJobWaiters<Env> waiters;
  typename Env::template Atomic<std::uint32_t> word{0};
  EventCount<Env> idle;
};

// ---- trees of functions
// --------------------------------------------------------------------------

struct Setup {
  unsigned workers = 2;
  unsigned depth = 1;  // of the tree that worker 0 runs
  // Only second halves fork, and a first half waits until the second has begun: it must be stolen.
  bool insists = false;
  bool asymmetric = true;
};

template <class Env, Flaw kFlaw>
class Trees {
 public:
  Trees(Sim& sim, const Setup& setup)
      : sim_(sim), setup_(setup), pool_(sim, setup.workers, setup.workers) {}

  void work(unsigned self) {
    if (self == 0) {
      run(self, 1, setup_.depth);
      over_.store(1, std::memory_order_release);
      Env::fence_seq_cst();
      pool_.idle.notify_all();
      return;
    }
    bool woken = false;
    while (over_.load(std::memory_order_acquire) == 0) {
      unsigned owner = 0;
      if (const std::uintptr_t item = pool_.steal(self, owner); item != 0) {
        if (std::exchange(woken, false)) pool_.template pass_on_from_idle<kFlaw>();
        run_job(self, owner, item);
      } else if (pool_.job_in_sight()) {
        Env::yield_thread();
      } else {
        woken = true;
        pool_.sleep_idle(
            [&] { return pool_.job_in_sight() || over_.load(std::memory_order_acquire) != 0; });
      }
    }
  }

  void check() const {
    const int nodes =
        setup_.insists ? 2 * static_cast<int>(setup_.depth) + 1 : (2 << setup_.depth) - 1;
    int runs = 0;
    for (const int n : runs_) runs += n;
    sim_.check(runs == nodes, "a function did not run");
  }

 private:
  struct Job {
    Job(unsigned the_node, unsigned the_depth) : state(1), node(the_node), depth(the_depth) {}
    BasicJobState<Env> state;
    unsigned node;
    unsigned depth;
  };

  // As fork_join: node's two children are its halves.
  void run(unsigned self, unsigned node, unsigned depth) {
    sim_.check(++runs_[node] == 1, "a function ran twice");
    begun_[node].store(1, relaxed);
    if (depth == 0) {
      sim_.pass();
      return;
    }
    Frame<Job> job;
    job.make(2 * node + 1, depth - 1);
    pool_.template offer<kFlaw>(self, reinterpret_cast<std::uintptr_t>(&*job));
    run(self, 2 * node, setup_.insists ? 0 : depth - 1);
    while (setup_.insists && begun_[2 * node + 1].load(relaxed) == 0) Env::yield_thread();
    auto deque = pool_.jobs[self].owner();
    if (deque.pop_biased() || deque.pop() != 0) {  // F3
      run(self, 2 * node + 1, depth - 1);
    } else if (kFlaw != Flaw::no_wait) {
      wait_for(self, job->state);
    }
    job.destroy();
  }

  void run_job(unsigned self, unsigned owner, std::uintptr_t item) {
    Job& job = *reinterpret_cast<Job*>(item);
    static_cast<void>(job.state.begin(self + 2));  // F5
    run(self, job.node, job.depth);
    job.state.finish();  // F6
    if (kFlaw == Flaw::touch_after_end) static_cast<void>(job.state.thief());
    pool_.beds[owner].job_done();  // F7
  }

  void wait_for(unsigned self, BasicJobState<Env>& state) {
    bool woken = false;
    while (!state.done()) {
      unsigned owner = 0;
      if (const std::uintptr_t item = pool_.steal(self, owner); item != 0) {
        if (std::exchange(woken, false)) pool_.pass_on_from_bed();
        run_job(self, owner, item);
      } else if (pool_.job_in_sight()) {
        Env::yield_thread();
      } else {
        woken = true;
        pool_.waiters.sleep(pool_.beds[self], pool_.word, true, true, std::nullopt,
                            [&] { return state.done() || pool_.job_in_sight(); });
      }
    }
    if (woken) pool_.pass_on_from_bed();
  }

  Sim& sim_;
  const Setup setup_;
  Pool<Env> pool_;
  typename Env::template Atomic<int> over_{0};
  std::array<typename Env::template Atomic<int>, 16> begun_;
  std::array<int, 16> runs_{};
};

template <Mutant kMutant = Mutant::none, Flaw kFlaw = Flaw::none>
Report grow(Options options, Setup setup) {
  return explore(options, [=](Sim& sim) {
    sim.set_asymmetric(setup.asymmetric);
    Trees<SimEnv<kMutant>, kFlaw> trees(sim, setup);
    for (unsigned i = 0; i < setup.workers; ++i) {
      sim.spawn([&, i] { trees.work(i); });
    }
    sim.run();
    trees.check();
  });
}

void expect_clean_in_random_schedules(Setup setup, std::uint64_t executions) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = grow(
        {.strategy = strategy, .executions = executions, .pct_depth = 4, .pct_length = 300}, setup);
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(JobModel, EachFunctionRunsOnce) {
  expect_clean(grow({.preemptions = bound(3)}, {.depth = 1}));
  expect_clean(grow({.preemptions = 2}, {.depth = 2}));
  expect_clean_in_random_schedules({.workers = 3, .depth = 3}, 5'000);
}

TEST(JobModel, EachFunctionRunsOnceWithoutAsymmetricFences) {
  expect_clean(grow({.preemptions = 2}, {.depth = 1, .asymmetric = false}));
}

// The second half of each fork must be stolen: by an idle worker, or by the one that waits for the
// thief.
TEST(JobModel, IdleWorkersAndThoseWhoWaitAreWokenForAJob) {
  expect_clean(grow({.preemptions = bound(3)}, {.depth = 1, .insists = true}));
  expect_clean(grow({.preemptions = 2}, {.depth = 2, .insists = true}));
}

TEST(JobModelMutant, AThiefLeavesTheJobAloneAfterItsEnd) {
  hunt(grow<Mutant::none, Flaw::touch_after_end>({.preemptions = 3}, {.insists = true}));
}

TEST(JobModelMutant, AnOwnerWaitsForTheThief) {
  hunt(grow<Mutant::none, Flaw::no_wait>({.preemptions = 2}, {.depth = 1}));
}

TEST(JobModelMutant, AnOfferWakesSomebody) {
  hunt(grow<Mutant::none, Flaw::silent>({.preemptions = 2}, {.insists = true}));
}

TEST(JobModelMutant, AnOfferWakesOneWhoWaitsWhereNobodyIsIdle) {
  hunt(grow<Mutant::none, Flaw::announce_to_idle>({.preemptions = 2},
                                                  {.depth = 2, .insists = true}));
}

// ---- notifications ----
//
// Some wait for jobs of their own, some have nothing to do. There is one job for each of them,
// offered by workers that do none themselves, and whoever takes one is then busy for ever: so each
// sleeper must be woken.

template <Mutant kMutant, Flaw kFlaw = Flaw::none>
Report one_job_each(Options options, unsigned waiting, unsigned idle, unsigned offerers = 1) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Pool<Env> pool(sim, offerers, waiting);
    const unsigned takers = waiting + idle;
    const auto take_one = [&] {
      for (Deque<Env>& deque : pool.jobs) {
        if (pool.steal_from(deque) != 0) return true;
      }
      return false;
    };
    for (unsigned i = 0; i < takers; ++i) {
      sim.spawn([&, i] {
        const bool waits = i < waiting;
        bool woken = false;
        while (!take_one()) {
          if (pool.job_in_sight()) {
            Env::yield_thread();
            continue;
          }
          woken = true;
          const auto look = [&] { return pool.job_in_sight(); };
          if (waits) {
            pool.waiters.sleep(pool.beds[i], pool.word, true, true, std::nullopt, look);
          } else {
            pool.sleep_idle(look);
          }
        }
        if (!woken) return;
        if (waits) {
          pool.pass_on_from_bed();
        } else {
          pool.template pass_on_from_idle<kFlaw>();
        }
      });
    }
    for (unsigned i = 0; i < offerers; ++i) {
      sim.spawn([&, i] {
        for (unsigned n = i; n < takers; n += offerers) pool.template offer<kFlaw>(i, 8);
      });
    }
    sim.run();
  });
}

// One waits, one is idle; one offers a job, another makes a coroutine ready. The idle one takes the
// coroutine first, whatever it was woken for, and is then busy for ever: the job is left to the one
// who waits.
template <Flaw kFlaw>
Report job_and_coroutine(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<>;
    Pool<Env> pool(sim, 1, 1);
    Env::Atomic<int> coroutine(0);
    BasicJobState<Env> own(1);  // of the one who waits: done when somebody has taken the job
    const auto take_job = [&] {
      if (pool.steal_from(pool.jobs[0]) == 0) return false;
      own.finish();
      pool.beds[0].job_done();
      return true;
    };
    sim.spawn([&] {
      bool woken = false;
      while (!own.done()) {
        if (take_job()) continue;
        if (pool.job_in_sight()) {
          Env::yield_thread();
          continue;
        }
        woken = true;
        pool.waiters.sleep(pool.beds[0], pool.word, true, true, std::nullopt,
                           [&] { return own.done() || pool.job_in_sight(); });
      }
      if (woken) pool.pass_on_from_bed();
    });
    sim.spawn([&] {
      bool woken = false;
      while (coroutine.load(relaxed) == 0) {
        if (take_job()) continue;
        if (pool.job_in_sight()) {
          Env::yield_thread();
          continue;
        }
        woken = true;
        pool.sleep_idle([&] { return pool.job_in_sight() || coroutine.load(relaxed) != 0; });
      }
      if (woken) pool.template pass_on_from_idle<kFlaw>();
    });
    sim.spawn([&] { pool.template offer<kFlaw>(0, 8); });
    sim.spawn([&] {
      coroutine.store(1, std::memory_order_release);  // P6
      Env::light_fence();
      if ((pool.word.load(relaxed) & attention::kForHops) != 0) pool.wake_idle();  // P6
    });
    sim.run();
  });
}

TEST(JobWaitModel, AJobIsNotForgottenForACoroutine) {
  expect_clean(job_and_coroutine<Flaw::none>({.preemptions = 2}));
}

// One waits for a job, and looks out for no other; the thief ends it.
template <Mutant kMutant>
Report wait_for_the_thief(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Pool<Env> pool(sim, 0, 1);
    BasicJobState<Env> job(1);
    sim.spawn([&] {
      job.finish();
      pool.beds[0].job_done();
    });
    sim.spawn([&] {
      while (!job.done()) {
        pool.waiters.sleep(pool.beds[0], pool.word, false, false, std::nullopt,
                           [&] { return job.done(); });
      }
    });
    sim.run();
  });
}

TEST(JobWaitModel, WhoOnlyWaitsIsWokenByTheThief) {
  expect_clean(wait_for_the_thief<Mutant::none>({.preemptions = 4}));
}

TEST(JobWaitModel, OneWhoWaitsIsWokenForAJob) {
  expect_clean(one_job_each<Mutant::none>({.preemptions = bound(3)}, 1, 0));
}

TEST(JobWaitModel, TwoWhoWaitAreWoken) {
  expect_clean(one_job_each<Mutant::none>({.preemptions = bound(3)}, 2, 0));
}

TEST(JobWaitModel, OneWhoWaitsAndOneWhoIsIdleAreWoken) {
  expect_clean(one_job_each<Mutant::none>({.preemptions = bound(3)}, 1, 1));
}

TEST(JobWaitModel, ManyMoreInRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    for (const unsigned offerers : {1U, 2U}) {
      const Report report = one_job_each<Mutant::none>(
          {.strategy = strategy, .executions = 15'000, .pct_depth = 4, .pct_length = 400}, 2, 2,
          offerers);
      EXPECT_TRUE(report.passed()) << report;
    }
  }
}

TEST(JobWaitModelMutant, WithoutTheHeavyFenceAnOfferIsOverlooked) {
  hunt(one_job_each<Mutant::job_no_heavy_fence>({.preemptions = 3}, 1, 0));
}

TEST(JobWaitModelMutant, WithoutALookAnOfferIsOverlooked) {
  hunt(one_job_each<Mutant::job_no_look>({.preemptions = 2}, 1, 0));
}

TEST(JobWaitModelMutant, TheEndOfAJobMustBeVisibleBeforeTheLookForItsOwner) {
  hunt(wait_for_the_thief<Mutant::job_no_fence_at_end>({.preemptions = 3}));
}

TEST(JobWaitModelMutant, WhoIsWokenMustPassItOn) {
  hunt(one_job_each<Mutant::job_no_passing_on>({.preemptions = 3}, 2, 0));
}

TEST(JobWaitModelMutant, WhoPassesItOnWithoutAHeavyFenceOverlooksAnOffer) {
  hunt(one_job_each<Mutant::job_no_heavy_passing_on>({.preemptions = 3}, 2, 0));
}

TEST(JobWaitModelMutant, TheBitOfTheIdleDoesNotSayThatSomebodyIsIdle) {
  hunt(one_job_each<Mutant::none, Flaw::trusts_the_bit>({.preemptions = 3}, 1, 1));
}

TEST(JobWaitModelMutant, WhoWasIdleMustLookAfterThoseWhoWait) {
  hunt(job_and_coroutine<Flaw::forgets_waiters>({.preemptions = 3}));
}

}  // namespace
}  // namespace magpie::model
