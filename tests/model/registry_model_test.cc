// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/registry.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// The list of an executor's live tasks (executor/SHUTDOWN.md, "The list of what is live"): whoever
// reads it uses no task that is gone, misses none that stays, and a place is one task's at a time.

namespace magpie::model {
namespace {

using detail::BasicRegistry;

template <class Env>
struct Listed {
  typename Env::template Atomic<int> refs{1};
  typename Env::template Atomic<int> looks{0};
  Frame<Listed>* frame = nullptr;

  void add_ref() { refs.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (refs.fetch_sub(1, std::memory_order_acq_rel) == 1) frame->destroy();
  }
};

template <class Env>
struct World {
  using Record = Listed<Env>;
  using Registry = BasicRegistry<Env, Record>;
  using Place = typename Registry::Place;

  Registry registry;
  typename Registry::Table table;
  std::array<Frame<Record>, 4> records;

  Record& make(std::size_t i) {
    Record& record = records[i].make();
    record.frame = &records[i];
    return record;
  }
  // A task ends: its own reference falls after it was taken out.
  void end(Record& record, Place* place, bool own) {
    registry.unlist(place, own ? &table : nullptr);
    record.release();
  }
  int read() {
    int seen = 0;
    registry.for_each(table, [&](Record& record) {
      record.looks.fetch_add(1, std::memory_order_relaxed);
      ++seen;
    });
    return seen;
  }
};

// A task ends, on the worker that listed it or elsewhere, while somebody reads the list.
template <Mutant kMutant>
Report end_against_reader(Options options, bool own, bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    using W = World<SimEnv<kMutant>>;
    sim.set_asymmetric(asymmetric);
    W world;
    auto& record = world.make(0);
    auto* const place = world.table.list(record);
    sim.spawn([&] { world.end(record, place, own); });
    sim.spawn([&] { world.read(); });
    sim.run();
    sim.check(world.records[0].gone_and_untouched(), "a task was touched after its end");
    sim.check(world.read() == 0, "a task is listed that has ended");
  });
}

TEST(RegistryModel, WhoReadsTheListUsesNoTaskThatIsGone) {
  for (const bool own : {true, false}) {
    expect_clean(end_against_reader<Mutant::none>({.preemptions = bound(4)}, own));
    expect_clean(end_against_reader<Mutant::none>({.preemptions = 3}, own, false));
  }
}

TEST(RegistryModelMutant, WhoEndsATaskLooksForReadersAfterAFence) {
  hunt(end_against_reader<Mutant::registry_no_light_fence>({.preemptions = 3}, true, false));
}

TEST(RegistryModelMutant, WhoEndsATaskWaitsForReaders) {
  hunt(end_against_reader<Mutant::registry_no_wait>({.preemptions = 3}, true));
}

TEST(RegistryModelMutant, WhoReadsTheListMakesAHeavyFence) {
  hunt(end_against_reader<Mutant::registry_no_heavy_fence>({.preemptions = 3}, true));
}

// A worker lists a task after another; thieves end them; two read.
Report thieves_and_readers(Options options, unsigned readers) {
  return explore(options, [=](Sim& sim) {
    using W = World<SimEnv<>>;
    W world;
    std::array<typename W::Record*, 4> listed{};
    std::array<typename W::Place*, 4> places{};
    std::array<Flag<SimEnv<>>, 4> stolen;
    const auto add = [&](std::size_t i) {
      listed[i] = &world.make(i);
      places[i] = world.table.list(*listed[i]);
    };
    add(0);
    sim.spawn([&] {
      stolen[0].raise();
      add(1);
      stolen[1].raise();
      add(2);
      add(3);
      world.end(*listed[2], places[2], true);
    });
    sim.spawn([&] {
      for (std::size_t i = 0; i < 2; ++i) {
        stolen[i].wait();
        world.end(*listed[i], places[i], false);
      }
    });
    for (unsigned i = 0; i < readers; ++i) sim.spawn([&] { world.read(); });
    sim.run();
    for (std::size_t i = 0; i < 3; ++i)
      sim.check(world.records[i].gone_and_untouched(), "a task was touched after its end");
    const int before = listed[3]->looks.load(std::memory_order_relaxed);
    sim.check(world.read() == 1, "not what is live is listed");
    sim.check(listed[3]->looks.load(std::memory_order_relaxed) == before + 1, "another is listed");
  });
}

TEST(RegistryModel, APlaceIsOneTasksAtATime) {
  expect_clean(thieves_and_readers({.preemptions = 2, .store_buffers = false}, 1));
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = thieves_and_readers(
        {.strategy = strategy, .executions = 4'000, .pct_depth = 4, .pct_length = 200}, 2);
    EXPECT_TRUE(report.passed()) << report;
  }
}

}  // namespace
}  // namespace magpie::model
