// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Every scenario of scenarios_*.h, over and over: cancelled at its k-th moment or point, in each of
// several ways; with its k-th allocation refused; with its k-th point, or its k-th move of an item,
// throwing; for every k. And cancelled at random moments on real threads. Whatever is done to it,
// it ends as documented and leaves nothing behind. SEED= replays other orders.

#include <support/counting_new.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include <support/machine.h>
#include <support/scale.h>

#include "scenarios_rest.h"

namespace magpie::test {

void PrintTo(const Scenario& scenario, std::ostream* out) {
  *out << scenario.name;
}

namespace {

enum class How {
  nothing,
  between_steps,  // the handle, by the simulating thread, while every task is suspended or ready
  by_a_task,      // a task is set free that cancels at a step of its own
  by_a_thread,    // another thread has cancelled before the next step
  beside_it,      // another thread cancels while the steps go on
  by_a_callback,  // out of the callback of a token that is cancelled
  twice,          // the token, and one moment later the handle
  inline_,        // by the scenario's own code
  before_body,    // the scenario begins in a cancelled task
  before_start,   // the task is cancelled before it has begun
  refused_memory,
  no_more_memory,  // all allocations from then on until it has ended
  point_throws,
  move_throws,
};

constexpr How kCancelling[] = {How::between_steps, How::by_a_task,     How::by_a_thread,
                               How::beside_it,     How::by_a_callback, How::twice,
                               How::inline_,       How::before_body,   How::before_start};

constexpr const char* kHowNames[] = {
    "nothing done",       "between steps",  "by a task",      "by a thread",     "beside it",
    "by a callback",      "twice",          "inline",         "before the body", "before the start",
    "allocation refused", "no more memory", "a point throws", "a move throws"};

struct Trial {
  How how = How::nothing;
  long at = 0;
  std::uint64_t seed = 1;
};

struct Seen {
  Outcome outcome = Outcome::value;
  std::exception_ptr error;
  bool reached = false;  // `at` was not beyond the end
};

/// Spare another thread per trial: one that does what it is given.
class Helper {
 public:
  Helper() : thread_([this] { serve(); }) {}
  ~Helper() {
    give(nullptr);
    thread_.join();
  }
  /// Begins fn; it has run when join() returns.
  void begin(std::function<void()> fn) {
    give(std::make_unique<std::function<void()>>(std::move(fn)));
  }
  void join() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
  }

 private:
  void give(std::unique_ptr<std::function<void()>> job) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
    job_ = std::move(job);
    busy_ = true;
    changed_.notify_all();
  }
  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return busy_; });
      if (!job_) return;
      lock.unlock();
      (*job_)();
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool busy_ = false;
  std::unique_ptr<std::function<void()>> job_;
  std::thread thread_;  // last: it uses the others
};

Task<> root(World& world, const Scenario& scenario, const Trial& trial, bool& reached, Tracked) {
  if (trial.how == How::before_body) world.points.act();
  if (trial.how == How::refused_memory) {
    fail_allocation_after(static_cast<std::size_t>(trial.at));
  } else if (trial.how == How::no_more_memory) {
    fail_allocations_after(static_cast<std::size_t>(trial.at));
  } else {
    co_return co_await scenario.run(world);
  }
  std::exception_ptr error;
  try {
    co_await scenario.run(world);
  } catch (...) {
    error = std::current_exception();
  }
  reached =
      allocations() >= failing_allocation.exchange(0) && allocations() >= failing_from.exchange(0);
  if (error) std::rethrow_exception(error);
}

Task<> watch(JoinHandle<>& handle) {
  co_await as_result(handle);
}

Task<> cancel_when(Event& event, JoinHandle<>& handle) {
  co_await event.wait();
  handle.cancel("by a task");
}

long trials_of[std::size(kHowNames)] = {};  // by How

Seen run_trial(const Scenario& scenario, const Trial& trial, Helper& helper) {
  Seen seen;
  World world;
  ++trials_of[static_cast<std::size_t>(trial.how)];
  {
    testing::SimulatedExecutor executor(trial.seed);
    CancellationSource source;
    CancellationSource other;
    JoinHandle<> handle;
    Event go;
    const auto cancel_inline = [&] { source.cancel("inline"); };
    const auto fail = [] { throw Injected(); };
    switch (trial.how) {
      case How::inline_:
        world.points.at = trial.at, world.points.act = cancel_inline;
        break;
      case How::before_body:
        world.points.act = cancel_inline;
        break;
      case How::point_throws:
        world.points.at = trial.at, world.points.act = fail;
        break;
      case How::move_throws:
        world.moves.at = trial.at, world.moves.act = fail;
        break;
      default:
        break;
    }
    handle = executor.spawn(root(world, scenario, trial, seen.reached, Tracked(world.ledger)),
                            SpawnOptions().token(source.token()));
    if (trial.how == How::by_a_task) executor.spawn(cancel_when(go, handle));
    if (trial.how == How::before_start) handle.cancel("before the start");
    auto cancel_the_source = [&] { source.cancel("out of a callback"); };
    const CancellationCallback callback(other.token(), cancel_the_source);
    long moment = 0;
    executor.between_steps([&] {
      const long now = moment++;
      if (now > 1'000'000) {
        std::fprintf(stderr, "%s (%s at %ld, seed %llu) goes on for ever\n", scenario.name,
                     kHowNames[static_cast<int>(trial.how)], trial.at,
                     static_cast<unsigned long long>(trial.seed));
        std::abort();
      }
      if (trial.how == How::beside_it && now == trial.at + 1) helper.join();
      if (trial.how == How::twice && now == trial.at + 1) {
        handle.cancel("again");
        EXPECT_FALSE(source.cancel("and again"));
      }
      if (now != trial.at) return;
      seen.reached = !handle.done() || seen.reached;
      switch (trial.how) {
        case How::between_steps:
          handle.cancel("between steps");
          break;
        case How::by_a_task:
          go.set();
          break;
        case How::by_a_thread:
          helper.begin([&] { handle.cancel("by a thread"); });
          helper.join();
          break;
        case How::beside_it:
          // For one step, which there then is: the simulator does not wait for other threads.
          executor.post([] {});
          helper.begin([&] { source.cancel("beside it"); });
          break;
        case How::by_a_callback:
          other.cancel();
          break;
        case How::twice:
          EXPECT_TRUE(source.cancel("first"));
          break;
        default:
          break;
      }
    });
    try {
      executor.run(watch(handle));
    } catch (const testing::DeadlockError& e) {
      ADD_FAILURE() << e.what();
    }
    helper.join();
    if (handle.done()) {
      seen.outcome = handle.result().outcome();
      seen.error = handle.result().error();
    } else {
      ADD_FAILURE() << "the task has not ended";
    }
    if (trial.how == How::inline_ || trial.how == How::point_throws)
      seen.reached = world.points.count > trial.at;
    if (trial.how == How::move_throws) seen.reached = world.moves.count > trial.at;
    EXPECT_EQ(executor.stats().live_tasks, 0u);
    EXPECT_EQ(executor.stats().pending_timers, 0u);
    world.points.at = world.moves.at = -1;
    world.settle(trial.how != How::move_throws, trial.how == How::refused_memory   ? 1
                                                : trial.how == How::no_more_memory ? 99
                                                                                   : 0);
  }
  EXPECT_EQ(world.ledger.alive(), 0) << "a frame or a value was lost";
  return seen;
}

template <class E>
bool holds(const std::exception_ptr& error) {
  return is<E>(error) || (is<ExceptionGroup>(error) && group_of(error).contains<E>());
}

/// What a scenario with Ends::error ends with.
bool is_its_own(const std::exception_ptr& error) {
  return holds<ScenarioError>(error) || holds<TimeoutError>(error) ||
         holds<BrokenPromiseError>(error);
}

std::string describe(const Scenario& scenario, const Trial& trial) {
  std::ostringstream text;
  text << scenario.name << ": " << kHowNames[static_cast<int>(trial.how)] << " at " << trial.at
       << ", seed " << trial.seed;
  return std::move(text).str();
}

class Everywhere : public ::testing::TestWithParam<Scenario> {
 protected:
  const Scenario& scenario() const { return GetParam(); }
  Seen attempt(const Trial& trial) {
    SCOPED_TRACE(describe(scenario(), trial));
    const Seen seen = run_trial(scenario(), trial, helper_);
    check(trial, seen);
    return seen;
  }
  /// For every k until the scenario ends before it; the number of trials.
  long sweep(How how, std::uint64_t seed) {
    long k = 0;
    for (; k < 5000; ++k) {
      const Seen seen = attempt({.how = how, .at = k, .seed = seed});
      if (!seen.reached || HasFailure() || how == How::before_body || how == How::before_start)
        break;
    }
    EXPECT_LT(k, 5000);
    return k;
  }

 private:
  void check(const Trial& trial, const Seen& seen) {
    const bool own =
        scenario().ends == Ends::error ? is_its_own(seen.error) : seen.outcome == Outcome::value;
    const bool absorbed = scenario().ends == Ends::absorb && is_its_own(seen.error);
    switch (trial.how) {
      case How::nothing:
        EXPECT_TRUE(own) << what_of(seen.error);
        break;
      case How::before_start:
        EXPECT_EQ(seen.outcome, Outcome::cancelled);
        break;
      // Whoever swallows errors, or does without one that fails, may end as ever, or with a value.
      case How::refused_memory:
      case How::no_more_memory:
        EXPECT_TRUE(own || absorbed || seen.outcome == Outcome::value ||
                    holds<std::bad_alloc>(seen.error))
            << what_of(seen.error);
        break;
      case How::point_throws:
      case How::move_throws:
        EXPECT_TRUE(own || absorbed || seen.outcome == Outcome::value ||
                    holds<Injected>(seen.error))
            << what_of(seen.error);
        break;
      default:
        EXPECT_TRUE(own || absorbed || seen.outcome == Outcome::cancelled) << what_of(seen.error);
    }
  }
  Helper helper_;
};

const std::uint64_t kSeed = seed_or(1);
constexpr std::uint64_t kSeeds = kScale == 1 ? 20 : 2;

class Totals : public ::testing::Environment {
 public:
  void TearDown() override {
    std::printf("%zu scenarios, seeds from %llu; trials:", std::size(kScenarios),
                static_cast<unsigned long long>(kSeed));
    for (std::size_t i = 0; i < std::size(kHowNames); ++i)
      std::printf("%s %s %ld", i == 0 ? "" : ",", kHowNames[i], trials_of[i]);
    std::printf("\n");
  }
};
const ::testing::Environment* const kTotals = ::testing::AddGlobalTestEnvironment(new Totals);

INSTANTIATE_TEST_SUITE_P(Scenarios, Everywhere, ::testing::ValuesIn(kScenarios),
                         [](const ::testing::TestParamInfo<Scenario>& each) {
                           return std::string(each.param.name);
                         });

TEST_P(Everywhere, EndsByItself) {
  for (std::uint64_t seed = kSeed; seed < kSeed + 10 && !HasFailure(); ++seed)
    attempt({.seed = seed});
}

TEST_P(Everywhere, MayBeCancelledAtEveryMoment) {
  for (std::uint64_t seed = kSeed; seed < kSeed + kSeeds; ++seed) {
    for (const How how : kCancelling) {
      if (HasFailure()) return;
      sweep(how, seed);
    }
  }
}

TEST_P(Everywhere, MayRunOutOfMemoryAtEveryAllocation) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "operator new is the sanitizer's own";
#else
  for (std::uint64_t seed = kSeed; seed < kSeed + kSeeds && !HasFailure(); ++seed) {
    sweep(How::refused_memory, seed);
    sweep(How::no_more_memory, seed);
  }
#endif
}

TEST_P(Everywhere, MayThrowAtEveryPointAndMove) {
  for (std::uint64_t seed = kSeed; seed < kSeed + kSeeds && !HasFailure(); ++seed) {
    sweep(How::point_throws, seed);
    sweep(How::move_throws, seed);
  }
}

// The real thing: workers, and cancellations at random moments from this thread.
TEST_P(Everywhere, MayBeCancelledOnWorkers) {
  detail::Random random(kSeed + 99);
  constexpr std::size_t kRounds = kScale == 1 ? 24 : 6;
  std::vector<std::unique_ptr<World>> worlds;
  for (std::size_t i = 0; i < kRounds; ++i) worlds.push_back(std::make_unique<World>());
  {
    ManualClock clock;
    WorkStealingExecutor executor({.threads = 3, .clock = &clock});
    const Trial trial;
    bool reached = false;
    for (std::size_t i = 0; i < kRounds; ++i) {
      JoinHandle<> handle =
          executor.spawn(root(*worlds[i], scenario(), trial, reached, Tracked(worlds[i]->ledger)));
      for (std::uint64_t spins = random.below(i % 2 == 0 ? 300 : 5000); spins > 0; --spins)
        static_cast<void>(random());
      handle.cancel("at random");
      const Result<void>& ended = handle.wait();
      const bool own =
          ended.has_value() ? scenario().ends != Ends::error : is_its_own(ended.error());
      EXPECT_TRUE(own || ended.is_cancelled()) << what_of(ended.error());
    }
    executor.shutdown(1h);
    EXPECT_EQ(executor.stats().live_tasks, 0u);
    EXPECT_EQ(executor.stats().pending_timers, 0u);
    for (const auto& world : worlds) world->settle(true);
  }
  for (const auto& world : worlds) EXPECT_EQ(world->ledger.alive(), 0);
}

// What needs no scenario, and why.
const std::set<std::string> kWithoutScenario = {
    "magpie.h",            // only includes the others
    "config.h",            // macros
    "executor.h",          // every scenario runs on one
    "executor_options.h",  // values
    "work_stealing_executor.h",
    "tbb_executor.h",
    "manual_clock.h",
    "stats.h",
    "trace.h",
    "topology.h",
    "status.h",
    "signals.h",  // nothing awaited
    "asio.h",     // combinators_asio_test: what it waits for is not the simulator's
    "mpi.h",      // combinators_mpi_test, the same
};

// A new header fails this until it has a line in the table (or above).
TEST(EveryScenario, EveryPublicHeaderHasOne) {
  std::set<std::string> covered;
  for (const Scenario& scenario : kScenarios) {
    std::istringstream words(scenario.headers);
    for (std::string word; words >> word;) covered.insert(word);
  }
  EXPECT_GE(std::size(kScenarios), 60u);
  const std::filesystem::path root = std::filesystem::path(__FILE__).parent_path() / ".." / "..";
  std::size_t headers = 0;
  for (const char* const folder : {"combinators/magpie", "executor/magpie"}) {
    for (const auto& entry : std::filesystem::directory_iterator(root / folder)) {
      const std::string name = entry.path().filename().string();
      if (entry.path().extension() != ".h") continue;
      ++headers;
      EXPECT_EQ(covered.contains(name), !kWithoutScenario.contains(name))
          << name << " has no scenario, or is not in need of one";
      covered.erase(name);
    }
  }
  EXPECT_GT(headers, 30u);
  EXPECT_TRUE(covered.empty()) << "there is no " << *covered.begin();
}

}  // namespace
}  // namespace magpie::test
