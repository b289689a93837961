// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/batch_core.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "expect.h"
#include "sim.h"

// The calls of a Batcher: submitters that open them, join them and leave, tasks that start them at
// any moment or are dropped unstarted, and the Batcher's end. Each member is with exactly one
// owner: who submitted it, or who took it.

namespace magpie::model {
namespace {

using detail::BatchCore;
using detail::BatchMemberLinks;
using detail::BatchMembers;

struct Call : BatchMembers {
  unsigned gone = 0;
};

template <class Environment>
struct ModelTraits {
  using Env = Environment;
  using Call = model::Call;
  using Owner = Call*;
  static Owner make() { return &calls[made++]; }
  static void go(Call& call) { ++call.gone; }

  static inline std::array<Call, 8> calls;
  static inline std::size_t made = 0;
};

enum class Does : std::uint8_t {
  nothing,
  joins,
  leaves,  // as the first member; these are of the first call, whose task
  starts,  // begins
  makes,   // has been made
  drops,   // is destroyed unstarted
  dies
};

struct Play {
  std::size_t max_size = 2;
  std::array<Does, 4> does;
};

// A call has been opened by a member; its task is being made.
template <Mutant kMutant>
Report perform(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Traits = ModelTraits<Env>;
    Traits::calls = {};
    Traits::made = 0;
    BatchCore<Traits> core(play.max_size);
    struct Member : BatchMemberLinks {
      unsigned owners = 0;
    };
    std::array<Member, 5> members;
    const auto own = [&](Member& member) {
      sim.check(++member.owners == 1, "a member has two owners");
    };
    const auto take = [&](BatchMemberLinks* first) {
      std::size_t size = 0;
      for (BatchMemberLinks* m = first; m != nullptr; m = m->next, ++size)
        own(*static_cast<Member*>(m));
      sim.check(size <= play.max_size, "a call has too many members");
    };
    Member& opener = members[4];
    Call& call = *core.join(opener).call;
    const auto does = [&](Does what) {
      return std::find(play.does.begin(), play.does.end(), what) != play.does.end();
    };
    for (std::size_t i = 0; i < play.does.size(); ++i) {
      Member& member = members[i];
      switch (play.does[i]) {
        case Does::nothing:
          own(member);
          break;
        case Does::joins:
          sim.spawn([&] {
            if (core.join(member).call != nullptr) return;
            sim.check(does(Does::dies), "a member was refused");
            own(member);
          });
          break;
        case Does::leaves:
          own(member);
          sim.spawn([&] {
            if (core.leave(call, opener)) own(opener);
          });
          break;
        case Does::starts:
          own(member);
          sim.spawn([&] { take(core.start(call)); });
          break;
        case Does::makes:
          own(member);
          sim.spawn([&] {
            if (core.made_task(call)) take(core.start(call));
          });
          break;
        case Does::drops:
          own(member);
          sim.spawn([&] {
            if (core.dropped_task(call)) take(core.start(call));
          });
          break;
        case Does::dies:
          own(member);
          sim.spawn([&] { take(core.die()); });
          break;
      }
    }
    sim.run();
    // What comes sooner or later: the tasks that were opened start, unless they are gone.
    if (!does(Does::makes) && core.made_task(call)) take(core.start(call));
    if (!does(Does::drops) && !does(Does::starts)) take(core.start(call));
    for (Call& other : Traits::calls) {
      if (&other != &call) take(core.start(other));
    }
    for (const Member& member : members) sim.check(member.owners == 1, "nobody has a member");
    sim.check(call.count < play.max_size || call.gone != 0, "a full call is not told to go");
    if (play.max_size == 5 && !does(Does::dies))
      sim.check(call.gone == 0 || call.count == 0, "who joins has no delay of its own");
  });
}

Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

// A task is dropped or starts, and not both.
bool makes_sense(const std::array<Does, 4>& does) {
  const auto count = [&](Does what) { return std::count(does.begin(), does.end(), what); };
  for (const Does once : {Does::leaves, Does::starts, Does::makes, Does::drops, Does::dies}) {
    if (count(once) > 1) return false;
  }
  return count(Does::starts) + count(Does::drops) < 2;
}

TEST(BatchModel, EveryThreeOperations) {
  constexpr Does kAll[] = {Does::joins, Does::leaves, Does::starts,
                           Does::makes, Does::drops,  Does::dies};
  std::uint64_t executions = 0;
  for (const Does& a : kAll) {
    for (const Does& b : kAll) {
      for (const Does& c : kAll) {
        const std::array<Does, 4> does{a, b, c};
        if (&b < &a || &c < &b || !makes_sense(does)) continue;
        for (const std::size_t max_size : {1U, 2U, 5U}) {
          const Report report = perform<Mutant::none>(locked(2), {max_size, does});
          EXPECT_TRUE(report.passed() && report.exhausted) << report;
          executions += report.executions;
        }
      }
    }
  }
  std::printf("%llu executions\n", static_cast<unsigned long long>(executions));
}

TEST(BatchModel, FourOperationsInRandomSchedulesWithStoreBuffers) {
  for (const Does last : {Does::starts, Does::dies}) {
    for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
      const Report report = perform<Mutant::none>(
          {.strategy = strategy, .executions = 10'000, .pct_depth = 4, .pct_length = 100},
          {2, {Does::joins, Does::joins, Does::leaves, last}});
      EXPECT_TRUE(report.passed()) << report;
    }
  }
}

TEST(BatchModelMutant, AFullCallTakesNobodyMore) {
  hunt(perform<Mutant::batch_full_stays_open>(locked(1), {2, {Does::joins, Does::joins}}));
}

TEST(BatchModelMutant, NobodyLeavesACallThatHasStarted) {
  hunt(perform<Mutant::batch_leaves_started>(locked(1), {2, {Does::leaves, Does::starts}}));
}

TEST(BatchModelMutant, NobodyJoinsACallThatIsEmptyAndGoes) {
  hunt(perform<Mutant::batch_empty_stays_open>(locked(2), {5, {Does::leaves, Does::joins}}));
}

TEST(BatchModelMutant, NobodyJoinsACallThatHasStarted) {
  hunt(perform<Mutant::batch_started_stays_open>(locked(1), {2, {Does::joins, Does::starts}}));
}

TEST(BatchModelMutant, WhoHasMadeATaskLearnsThatItIsGone) {
  hunt(perform<Mutant::batch_dropped_unsaid>(locked(2), {2, {Does::makes, Does::drops}}));
}

}  // namespace
}  // namespace magpie::model
