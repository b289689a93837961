// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/lifecycle.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>

#include <magpie/detail/registry.h>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// The end of an executor (executor/SHUTDOWN.md): nothing runs after shutdown() has returned, nobody
// waits for ever, and whoever brings or ends the last work does not touch what the destructor has
// freed.
//
// The counters, the phases and the waiting are the real ones. The executor's queue is a row of
// slots here, and its worker one thread.

namespace magpie::model {
namespace {

using detail::BasicLifecycle;
using detail::BasicLifeShard;
using detail::Phase;

// What the glue around the protocol leaves out.
enum class Flaw {
  none,
  late_entrance,   // a stranger publishes its work, then enters
  no_entrants,     // the destructor does not wait for strangers
  unseen_phase,    // a task that is admitted does not look whether everything is being cancelled
  no_fence,        // ... or looks without a fence
  no_second_look,  // nobody looks for what slipped in before the door was closed
};

template <class Env>
struct Machine {
  struct Shard : BasicLifeShard<Env> {};
  struct Task {
    typename Env::template Atomic<int> cancelled{0};
    void add_ref() {}  // it outlives everything here
    void release() {}
  };
  using Registry = detail::BasicRegistry<Env, Task>;

  void submit(std::size_t slot) { slots[slot].store(1, std::memory_order_release); }
  // The worker, until it is stopped: runs what lies in the slots.
  template <class F>
  void work(F&& run) {
    while (stop.load(std::memory_order_acquire) == 0) {
      bool found = false;
      for (std::size_t i = 0; i < slots.size(); ++i) {
        if (slots[i].load(std::memory_order_relaxed) == 0 ||
            slots[i].exchange(0, std::memory_order_acq_rel) == 0)
          continue;
        run(i);
        found = true;
      }
      if (!found) Env::yield_thread();
    }
  }
  template <Flaw kFlaw = Flaw::none>
  void shut_down() {
    life.set_phase(Phase::draining);
    do {
      life.set_phase(Phase::cancelling);
      life.wait_idle([] { return false; }, std::nullopt);
      life.set_phase(Phase::closed);
    } while (kFlaw != Flaw::no_second_look && life.live() != 0);
  }

  std::array<Shard, 2> shards;
  BasicLifecycle<Env, Shard> life{shards.data(), shards.size()};
  std::array<typename Env::template Atomic<int>, 2> slots;
  typename Env::template Atomic<int> stop{0};
  Registry registry;
  typename Registry::Table table;
  std::array<Task, 2> tasks;
};

// A post from outside while somebody shuts the executor down: it is refused, or has run when
// shutdown() returns.
// Each shard is used by one thread here; `own`: it knows, and counts by plain stores.
template <Mutant kMutant = Mutant::none>
Report post_against_shutdown(Options options, bool own, bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    sim.set_asymmetric(asymmetric);
    Machine<Env> machine;
    bool over = false;
    int accepted = 0;
    int ran = 0;
    sim.spawn([&] {
      machine.work([&](std::size_t) {
        sim.check(!over, "something runs after the end");
        ++ran;
        machine.life.end(machine.shards[1], own);
      });
    });
    sim.spawn([&] {
      if (!machine.life.admit(machine.shards[0], false, own)) return;
      sim.check(!over, "work is admitted after the end");
      ++accepted;
      machine.submit(0);
    });
    sim.spawn([&] {
      machine.template shut_down<>();
      over = true;
      sim.check(ran == accepted, "shutdown() returned before the work was done");
      machine.stop.store(1, std::memory_order_release);
    });
    sim.run();
  });
}

TEST(LifecycleModel, WhatIsPostedHasRunOrIsRefused) {
  expect_clean(post_against_shutdown({.preemptions = bound(3) - 1}, true));
  expect_clean(post_against_shutdown({.preemptions = 2}, false));
  expect_clean(post_against_shutdown({.preemptions = 2}, true, false));
}

TEST(LifecycleModelMutant, WorkIsCountedBeforeTheLookAtThePhase) {
  hunt(post_against_shutdown<Mutant::lifecycle_late_count>({.preemptions = 3}, false));
}

TEST(LifecycleModelMutant, WhoCountsByAPlainStoreLooksAtThePhaseAfterAFence) {
  hunt(post_against_shutdown<Mutant::lifecycle_no_light_fence>({.preemptions = 3}, true, false));
}

// A task spawns a task that spawns a task, on two threads in turn: shutdown() neither returns nor
// closes the door before the last.
template <Mutant kMutant = Mutant::none>
Report chain_against_shutdown(Options options, bool own) {
  return explore(options, [own](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Machine<Env> machine;
    bool over = false;
    typename Env::template Atomic<int> turn{1};
    machine.shards[0].started.store(1, std::memory_order_relaxed);
    for (int self = 0; self < 2; ++self) {
      sim.spawn([&, self] {
        for (int task = 1 + self; task <= 3; task += 2) {
          while (turn.load(std::memory_order_acquire) != task) Env::yield_thread();
          sim.check(!over, "something runs after the end");
          auto& here = machine.shards[static_cast<std::size_t>(self)];
          if (task < 3) {
            sim.check(machine.life.admit(here, true, own), "a task was refused from inside");
            turn.store(task + 1, std::memory_order_release);
          }
          machine.life.end(here, own);
        }
      });
    }
    sim.spawn([&] {
      machine.template shut_down<>();
      over = true;
    });
    sim.run();
  });
}

TEST(LifecycleModel, TasksThatSpawnTasksAreWaitedFor) {
  expect_clean(chain_against_shutdown({.preemptions = 2}, true));
}

TEST(LifecycleModelMutant, WhatEndedIsSummedFirst) {
  hunt(chain_against_shutdown<Mutant::lifecycle_started_first>({.preemptions = 3}, false));
}

// A task is counted out, then its value is destroyed: that posts something, or is refused.
template <Flaw kFlaw = Flaw::none, Mutant kMutant = Mutant::none>
Report value_against_shutdown(Options options, bool own) {
  return explore(options, [own](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Machine<Env> machine;
    bool over = false;
    int accepted = 0;
    int ran = 0;
    machine.shards[0].started.store(1, std::memory_order_relaxed);
    sim.spawn([&] {
      machine.life.end(machine.shards[0], own);
      if (machine.life.admit(machine.shards[0], true, own)) {
        ++accepted;
        machine.submit(0);
      }
      machine.work([&](std::size_t) {
        sim.check(!over, "something runs after the end");
        ++ran;
        machine.life.end(machine.shards[0], own);
      });
    });
    sim.spawn([&] {
      machine.template shut_down<kFlaw>();
      over = true;
      sim.check(ran == accepted, "shutdown() returned before the work was done");
      machine.stop.store(1, std::memory_order_release);
    });
    sim.run();
  });
}

TEST(LifecycleModel, WhatTheValueOfTheLastTaskBringsHasRunOrIsRefused) {
  for (const bool own : {false, true})
    expect_clean(value_against_shutdown({.preemptions = 3}, own));
}

TEST(LifecycleModelMutant, WhoClosesTheDoorLooksAgain) {
  hunt(value_against_shutdown<Flaw::no_second_look>({.preemptions = 3}, false));
}

TEST(LifecycleModelMutant, WhoClosesTheDoorMakesAHeavyFence) {
  hunt(value_against_shutdown<Flaw::none, Mutant::lifecycle_light_phase>({.preemptions = 3}, true));
}

// The time for a drain is over while a task goes on.
template <Mutant kMutant = Mutant::none>
Report drain_that_expires(Options options, bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    sim.set_asymmetric(asymmetric);
    Machine<Env> machine;
    typename Env::template Atomic<int> expired{0};
    machine.shards[0].started.store(1, std::memory_order_relaxed);
    sim.spawn([&] {
      expired.store(1, std::memory_order_release);
      machine.life.poke();
    });
    sim.spawn([&] {
      machine.life.set_phase(Phase::draining);
      machine.life.wait_idle([&] { return expired.load(std::memory_order_acquire) != 0; },
                             std::nullopt);
    });
    sim.run();
  });
}

TEST(LifecycleModel, ADrainEndsWhenItsTimeIsOver) {
  expect_clean(drain_that_expires({.preemptions = bound(4)}));
  expect_clean(drain_that_expires({.preemptions = bound(4)}, false));
}

TEST(LifecycleModelMutant, WhoWaitsMakesAHeavyFence) {
  hunt(drain_that_expires<Mutant::lifecycle_no_heavy_fence>({.preemptions = 3}));
}

// Two tasks end, each on a thread of its own, while somebody waits for that.
template <Mutant kMutant = Mutant::none>
Report two_that_end(Options options, bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    sim.set_asymmetric(asymmetric);
    Machine<Env> machine;
    machine.shards[0].started.store(2, std::memory_order_relaxed);
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] { machine.life.end(machine.shards[i], true); });
    }
    sim.spawn([&] {
      sim.check(machine.life.wait_idle([] { return false; }, std::nullopt), "left too early");
      sim.check(machine.life.live() == 0, "something is live");
    });
    sim.run();
  });
}

TEST(LifecycleModel, WhoWaitsIsToldOfTheLastEnd) {
  expect_clean(two_that_end({.preemptions = bound(3)}));
  expect_clean(two_that_end({.preemptions = bound(3)}, false));
}

TEST(LifecycleModelMutant, WhoWaitsAsksWhenHeIsCountedIn) {
  hunt(two_that_end<Mutant::lifecycle_early_question>({.preemptions = 3}));
}

// A stranger brings the last work, or ends it; then the executor is gone.
template <Flaw kFlaw = Flaw::none>
Report last_touch(Options options, bool brings, bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    sim.set_asymmetric(asymmetric);
    Frame<Machine<Env>> machine;
    machine.make();
    machine->shards[0].started.store(1, std::memory_order_relaxed);
    bool worker_gone = false;
    sim.spawn([&] {
      machine->work([&](std::size_t) { machine->life.end(machine->shards[1]); });
      worker_gone = true;
    });
    sim.spawn([&] {
      auto& here = machine->shards[0];
      if constexpr (kFlaw != Flaw::late_entrance) machine->life.enter(here);
      brings ? machine->submit(0) : machine->life.end(here);
      if constexpr (kFlaw == Flaw::late_entrance) machine->life.enter(here);
      machine->life.leave(here);
    });
    sim.spawn([&] {
      machine->template shut_down<>();
      if constexpr (kFlaw != Flaw::no_entrants) machine->life.wait_for_entrants();
      machine->stop.store(1, std::memory_order_release);
      while (!worker_gone) Env::yield_thread();
      machine.destroy();
    });
    sim.run();
    sim.check(machine.gone_and_untouched(), "the executor was touched after its end");
  });
}

TEST(LifecycleModel, NobodyTouchesAnExecutorAfterItsEnd) {
  for (const bool brings : {false, true}) {
    expect_clean(last_touch({.preemptions = 2}, brings));
    expect_clean(last_touch({.preemptions = 2}, brings, false));
  }
}

TEST(LifecycleModelMutant, AStrangerEntersBeforeItsWorkIsSeen) {
  hunt(last_touch<Flaw::late_entrance>({.preemptions = 3}, true));
}

TEST(LifecycleModelMutant, TheDestructorWaitsForStrangers) {
  hunt(last_touch<Flaw::no_entrants>({.preemptions = 3}, false));
}

// A task spawns another while everything is cancelled. Each ends only when it hears of that: from
// the sweep, or at its admission.
template <Flaw kFlaw = Flaw::none>
Report sweep_against_admission(Options options, bool asymmetric = true) {
  return explore(options, [asymmetric](Sim& sim) {
    using Env = SimEnv<>;
    sim.set_asymmetric(asymmetric);
    Machine<Env> machine;
    using Task = typename Machine<Env>::Task;
    const auto cancel = [&](Task& task) {
      if (task.cancelled.exchange(1, std::memory_order_acq_rel) == 0)
        machine.life.end(machine.shards[1]);
    };
    const auto admit = [&](Task& task) {
      sim.check(machine.life.admit(machine.shards[0], true, true),
                "a task was refused from inside");
      machine.table.list(task);
      if (kFlaw != Flaw::no_fence) Env::light_fence();
      if (kFlaw != Flaw::unseen_phase && machine.life.phase() == Phase::cancelling) cancel(task);
    };
    admit(machine.tasks[0]);
    sim.spawn([&] {
      if (machine.tasks[0].cancelled.load(std::memory_order_acquire) == 0) admit(machine.tasks[1]);
    });
    sim.spawn([&] {
      machine.life.set_phase(Phase::cancelling);
      machine.registry.for_each(machine.table, cancel);
      machine.life.wait_idle([] { return false; }, std::nullopt);
    });
    sim.run();
  });
}

TEST(LifecycleModel, ATaskThatIsSpawnedWhileAllAreCancelledIsCancelled) {
  expect_clean(sweep_against_admission({.preemptions = bound(4)}));
  expect_clean(sweep_against_admission({.preemptions = 3}, false));
}

TEST(LifecycleModelMutant, AnAdmittedTaskLooksAtThePhase) {
  hunt(sweep_against_admission<Flaw::unseen_phase>({.preemptions = 3}));
}

TEST(LifecycleModelMutant, ATaskIsListedBeforeTheLookAtThePhase) {
  hunt(sweep_against_admission<Flaw::no_fence>({.preemptions = 3}, false));
}

}  // namespace
}  // namespace magpie::model
