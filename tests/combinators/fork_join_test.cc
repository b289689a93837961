// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// fork_join: results, errors, who runs what while somebody waits, and where it is called.

#include <magpie/parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <pthread.h>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::MoveOnly;
using test::NoDefault;
using test::scaled;
using test::Tracked;

// A plain function as a task.
template <class F>
Task<std::invoke_result_t<F&>> as_task(F f) {
  co_return f();
}

/// Runs a plain function on a worker.
template <class F>
auto on_worker(WorkStealingExecutor& executor, F f) {
  return executor.run(as_task(std::ref(f)));
}

/// Runs f so that g is stolen: f waits until g has begun.
template <class F, class G>
auto with_g_stolen(F f, G g) {
  std::atomic<bool> begun{false};
  return fork_join(
      [&]() -> decltype(auto) {
        EXPECT_TRUE(eventually([&] { return begun.load(); }));
        return f();
      },
      [&]() -> decltype(auto) {
        begun = true;
        return g();
      });
}

long fib(int n) {
  if (n < 2) return n;
  auto [a, b] = fork_join([n] { return fib(n - 1); }, [n] { return fib(n - 2); });
  return a + b;
}

class ForkJoinTest : public test::OnThreads {
 protected:
  WorkStealingExecutor executor{{.threads = threads}};
};

// --- results -------------------------------------------------------------------------------------

TEST_ON_THREADS(ForkJoinTest, GivesBothResults) {
  on_worker(executor, [] {
    auto [x, y] = fork_join([] { return 1; }, [] { return std::string("two"); });
    EXPECT_EQ(x, 1);
    EXPECT_EQ(y, "two");
    std::tuple<int, long> both = fork_join([] { return 3; }, [] { return 4L; });
    EXPECT_EQ(std::get<1>(both), 4);
  });
  EXPECT_EQ(on_worker(executor, [] { return fib(20); }), 6765);
}

TEST_ON_THREADS(ForkJoinTest, VoidIsMonostate) {
  on_worker(executor, [] {
    int a = 0;
    int b = 0;
    auto [x, y] = fork_join([&] { a = 1; }, [&] { b = 2; });
    static_assert(std::same_as<decltype(x), std::monostate> &&
                  std::same_as<decltype(y), std::monostate>);
    EXPECT_EQ(a + b, 3);
    auto [z, number] = fork_join([] {}, [] { return 5; });
    static_assert(std::same_as<decltype(z), std::monostate>);
    EXPECT_EQ(number, 5);
  });
}

template <class Call>
void awkward_results(Call call) {
  int number = 1;
  std::string text = "text";
  auto references =
      call([&]() -> int& { return number; }, [&]() -> const std::string& { return text; });
  static_assert(std::same_as<decltype(references), std::pair<int&, const std::string&>>);
  EXPECT_EQ(&references.first, &number);
  EXPECT_EQ(&references.second, &text);

  auto [a, b] = call([] { return MoveOnly(1); }, [] { return std::make_unique<int>(2); });
  EXPECT_EQ(a.value() + *b, 3);
  auto [c, d] = call([] { return NoDefault(3); }, [] { return NoDefault(4); });
  EXPECT_EQ(c.value + d.value, 7);
  // What it would refer to dies with the call.
  auto moved = call([&]() -> std::string&& { return std::move(text); }, [] { return 0; });
  static_assert(std::same_as<decltype(moved), std::pair<std::string, int>>);
  EXPECT_EQ(moved.first, "text");
}

TEST_ON_THREADS(ForkJoinTest, ResultsThatAreReferencesMoveOnlyOrWithoutADefault) {
  on_worker(executor, [] { awkward_results([](auto f, auto g) { return fork_join(f, g); }); });
  if (threads == 1) return;
  on_worker(executor, [] { awkward_results([](auto f, auto g) { return with_g_stolen(f, g); }); });
}

TEST_ON_THREADS(ForkJoinTest, FunctionsOfEveryKindAreCalledAsTheyAreGiven) {
  struct Once {
    std::unique_ptr<int> value = std::make_unique<int>(7);
    std::unique_ptr<int> operator()() && { return std::move(value); }
  };
  on_worker(executor, [] {
    auto [x, y] = fork_join(Once(), Once());
    EXPECT_EQ(*x + *y, 14);
    int calls = 0;
    auto count = [&calls]() mutable { return ++calls; };
    auto [a, b] = fork_join([] {}, count);
    static_cast<void>(a);
    EXPECT_EQ(b, 1);
    EXPECT_EQ(calls, 1);
    auto [p, q] = fork_join(&available_parallelism, *&available_parallelism);
    EXPECT_EQ(p, q);
  });
}

TEST_ON_THREADS(ForkJoinTest, ResultsAreDestroyedOnce) {
  Ledger ledger;
  on_worker(executor, [&] {
    for (int i = 0; i < 100; ++i) {
      auto [a, b] = fork_join([&] { return Tracked(ledger); }, [&] { return Tracked(ledger); });
      a.touch();
      b.touch();
      if (threads > 1) {
        auto stolen =
            with_g_stolen([&] { return Tracked(ledger); }, [&] { return Tracked(ledger); });
        stolen.second.touch();
        try {
          with_g_stolen([]() -> int { throw 1; }, [&] { return Tracked(ledger); });
          ADD_FAILURE();
        } catch (int) {
        }
      }
    }
  });
  EXPECT_GE(ledger.total(), 200);
  EXPECT_EQ(ledger.alive(), 0);
}

// --- errors --------------------------------------------------------------------------------------

template <class Call>
void errors_of(Call call) {
  bool other = false;
  auto note = [&] { other = true; };
  auto throws = [](const char* what) {
    return [what]() -> int { throw std::runtime_error(what); };
  };
  const auto message = [&](auto f, auto g) -> std::string {
    try {
      call(f, g);
      return "nothing";
    } catch (const std::exception& e) {
      return e.what();
    }
  };
  EXPECT_EQ(message(throws("f"), note), "f");
  EXPECT_TRUE(std::exchange(other, false));  // g ended all the same
  EXPECT_EQ(message(note, throws("g")), "g");
  EXPECT_TRUE(std::exchange(other, false));
  EXPECT_EQ(message(throws("f"), throws("g")), "f");
  // Anything may be thrown, and arrives as it was.
  try {
    call([]() -> int { throw 5; }, []() -> int { throw 6; });
    ADD_FAILURE();
  } catch (int n) {
    EXPECT_EQ(n, 5);
  }
  try {
    call([] {}, []() -> int { throw CancelledError(CancelReason{CancelKind::requested, "g's"}); });
    ADD_FAILURE();
  } catch (const CancelledError& e) {
    EXPECT_EQ(e.reason().message, "g's");
  }
}

TEST_ON_THREADS(ForkJoinTest, BothEndAndTheErrorOfTheFirstGoesBeforeTheOthers) {
  on_worker(executor, [] { errors_of([](auto f, auto g) { fork_join(f, g); }); });
  if (threads == 1) return;
  on_worker(executor, [] { errors_of([](auto f, auto g) { with_g_stolen(f, g); }); });
}

TEST_ON_THREADS(ForkJoinTest, AnErrorComesThroughManyForks) {
  struct Tree {
    std::atomic<int> leaves{0};
    void run(int depth) {
      if (depth == 0) {
        if (leaves.fetch_add(1) % 2 == 0) throw std::runtime_error("leaf");
        return;
      }
      fork_join([&] { run(depth - 1); }, [&] { run(depth - 1); });
    }
  };
  Tree tree;
  EXPECT_THROW(on_worker(executor, [&] { tree.run(8); }), std::runtime_error);
  EXPECT_EQ(tree.leaves, 256);
}

// --- where it is called --------------------------------------------------------------------------

TEST(ForkJoin, OffTheWorkersItRunsBothInTurn) {
  const std::thread::id here = std::this_thread::get_id();
  std::vector<int> order;
  auto [a, b] = fork_join(
      [&] {
        order.push_back(1);
        return std::this_thread::get_id();
      },
      [&] {
        order.push_back(2);
        return std::this_thread::get_id();
      });
  EXPECT_EQ(a, here);
  EXPECT_EQ(b, here);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  errors_of([](auto f, auto g) { fork_join(f, g); });
  awkward_results([](auto f, auto g) { return fork_join(f, g); });
  EXPECT_EQ(fib(15), 610);
}

TEST(ForkJoin, OnEveryExecutorAndInABlockingCall) {
  TbbExecutor tbb({.threads = 2});
  EXPECT_EQ(tbb.run(as_task([] { return fib(15); })), 610);
  testing::SimulatedExecutor simulated(1);
  EXPECT_EQ(simulated.run(as_task([] { return fib(15); })), 610);
  WorkStealingExecutor executor({.threads = 2});
  auto body = []() -> Task<long> { co_return co_await to_thread([] { return fib(15); }); };
  EXPECT_EQ(executor.run(body()), 610);
  executor.run(as_task([] { errors_of([](auto f, auto g) { fork_join(f, g); }); }));
}

TEST(ForkJoin, ACancelledTaskForksAllTheSame) {
  WorkStealingExecutor executor({.threads = 2});
  auto body = []() -> Task<> {
    auto inside = [](CancelScope& scope) -> Task<long> {
      scope.cancel();
      co_return fib(12);
    };
    auto block = cancel_scope(inside);
    Result<long> result = co_await std::move(block);
    EXPECT_EQ(result.value(), 144);
  };
  executor.run(body());
}

TEST(ForkJoin, OtherWorkersTakePart) {
  WorkStealingExecutor executor({.threads = 4});
  std::atomic<int> inside{0};
  auto meet = [&] {
    ++inside;
    EXPECT_TRUE(eventually([&] { return inside >= 4; }));
    return std::this_thread::get_id();
  };
  std::set<std::thread::id> threads;
  on_worker(executor, [&] {
    auto [ab, cd] =
        fork_join([&] { return fork_join(meet, meet); }, [&] { return fork_join(meet, meet); });
    threads = {ab.first, ab.second, cd.first, cd.second};
  });
  EXPECT_EQ(threads.size(), 4U);
}

// Sleeping workers are woken by a fork as they are by a push of a coroutine.
TEST(ForkJoin, AForkWakesASleepingWorker) {
  WorkStealingExecutor executor({.threads = 2});
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(2ms);  // both sleep, past the short sleep that ends by itself
    on_worker(executor, [] { with_g_stolen([] {}, [] {}); });
  }
}

// --- while somebody waits ------------------------------------------------------------------------

// The thief's own forks are done by the one who waits for it, also when it has gone to sleep
// before.
TEST(ForkJoin, WhoWaitsHelpsTheThief) {
  WorkStealingExecutor executor({.threads = 2});
  for (const auto pause : {0ms, 1ms, 20ms}) {
    std::thread::id owner;
    std::thread::id helper;
    on_worker(executor, [&] {
      owner = std::this_thread::get_id();
      with_g_stolen([] {},
                    [&] {
                      std::this_thread::sleep_for(pause);  // who waits spins, then sleeps
                      with_g_stolen([] {}, [&] { helper = std::this_thread::get_id(); });
                    });
    });
    EXPECT_EQ(owner, helper);
  }
}

TEST(ForkJoin, WhoWaitsRunsNoCoroutine) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> waiting{false};
  std::atomic<bool> ran_meanwhile{false};
  auto other = [&]() -> Task<> {
    if (waiting) ran_meanwhile = true;
    co_return;
  };
  std::vector<JoinHandle<void>> handles;
  on_worker(executor, [&] {
    with_g_stolen(
        [&] {
          for (int i = 0; i < 20; ++i) handles.push_back(spawn(other()));  // in this worker's deque
          waiting = true;
        },
        [&] {
          EXPECT_TRUE(eventually([&] { return waiting.load(); }));
          executor.post([] {});
          std::this_thread::sleep_for(30ms);
          waiting = false;
        });
  });
  for (auto& handle : handles) handle.wait();
  EXPECT_FALSE(ran_meanwhile);
}

TEST(ForkJoin, TasksGoOnElsewhereWhileTwoWorkersAreBusyWithAFork) {
  WorkStealingExecutor executor({.threads = 3});
  std::atomic<bool> ran{false};
  auto other = [&]() -> Task<> {
    ran = true;
    co_return;
  };
  on_worker(executor, [&] {
    with_g_stolen([&] { spawn(other()); },
                  [&] { EXPECT_TRUE(eventually([&] { return ran.load(); })); });
  });
}

// A waiter sleeps, and uses no processor, however long the thief takes.
TEST(ForkJoin, WhoWaitsLongSleeps) {
  WorkStealingExecutor executor({.threads = 2});
  const auto processor_time = [] {
    timespec used{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
  };
  // Who waits may be late for its sleep, where threads stand still; not every time.
  bool slept = false;
  for (int attempt = 0; attempt < 10 && !slept; ++attempt) {
    ExecutorStats before;
    std::chrono::nanoseconds used{};
    on_worker(executor, [&] {
      with_g_stolen([] {},
                    [&] {
                      before = executor.stats();
                      std::this_thread::sleep_for(20ms);
                      const auto from = processor_time();
                      std::this_thread::sleep_for(300ms);
                      used = processor_time() - from;
                    });
      const ExecutorStats after = executor.stats();
      EXPECT_LT(used, 100ms);
      // Sleeping is not being busy, wherever one sleeps.
      slept =
          after.total.parks > before.total.parks && after.total.idle - before.total.idle > 200ms;
    });
  }
  EXPECT_TRUE(slept);
}

// An offer wakes an idle worker, which then finds a coroutine to run: who waits is woken for the
// job.
TEST(ForkJoin, AnIdleWorkerThatTakesSomethingElseWakesOneWhoWaits) {
  for (int round = 0; round < 20 && !::testing::Test::HasFailure(); ++round) {
    std::atomic<bool> stolen{false}, begun{false};
    auto other = [&]() -> Task<> {
      EXPECT_TRUE(eventually([&] { return begun.load(); }));
      co_return;
    };
    WorkStealingExecutor executor({.threads = 3});
    on_worker(executor, [&] {
      fork_join(
          [&] { EXPECT_TRUE(eventually([&] { return stolen.load(); })); },
          [&] {
            stolen = true;
            std::this_thread::sleep_for(
                3ms);  // until the owner sleeps in its bed, and the third worker among the idle
            fork_join(
                [&] {
                  spawn(other());
                  EXPECT_TRUE(eventually([&] { return begun.load(); }));
                },
                [&] { begun = true; });
          });
    });
  }
}

// Two sleep in their beds, and there may be one notification for two offers.
TEST(ForkJoin, WhoIsWokenForAJobPassesItOn) {
  for (int round = 0; round < 20 && !::testing::Test::HasFailure(); ++round) {
    WorkStealingExecutor executor({.threads = 4});
    std::atomic<int> stolen{0}, begun{0};
    const auto two = [](std::atomic<int>& n) { return eventually([&] { return n == 2; }); };
    auto pair = [&]() -> Task<> {
      fork_join([&] { EXPECT_TRUE(two(stolen)); },
                [&] {
                  ++stolen;
                  EXPECT_TRUE(two(stolen));
                  std::this_thread::sleep_for(3ms);  // until both owners sleep
                  fork_join([&] { EXPECT_TRUE(two(begun)); },
                            [&] {
                              ++begun;
                              EXPECT_TRUE(two(begun));
                            });
                });
      co_return;
    };
    auto a = executor.spawn(pair());
    auto b = executor.spawn(pair());
    a.wait();
    b.wait();
  }
}

TEST(ForkJoin, WhatAStolenFunctionSpawnsInheritsTheTaskLocals) {
  WorkStealingExecutor executor({.threads = 2});
  TaskLocal<int> local{0};
  auto child = [&]() -> Task<int> { co_return co_await local.get(); };
  JoinHandle<int> own;
  JoinHandle<int> stolen;
  JoinHandle<int> helped;
  auto inner = [&]() -> Task<> {
    with_g_stolen([&] { own = spawn(child()); },
                  [&] {
                    stolen = spawn(child());
                    with_g_stolen([] {}, [&] { helped = spawn(child()); });
                  });
    co_return;
  };
  auto body = [&]() -> Task<> {
    co_await local.with(5, inner());
    int a = co_await own;
    int b = co_await stolen;
    int c = co_await helped;
    EXPECT_EQ(a + b + c, 15);
    // Nothing of it is left on either thread.
    for (int i = 0; i < 20; ++i) {
      auto other = spawn(child());
      int none = co_await other;
      EXPECT_EQ(none, 0);
    }
  };
  executor.run(body());
}

TEST(ForkJoin, InForksOfCoroutinesAndInLoops) {
  WorkStealingExecutor executor({.threads = 3});
  auto child = [](int n) -> Task<long> {
    long before = fib(n);
    co_await this_task::yield();
    co_return before + fib(n);
  };
  auto body = [&]() -> Task<> {
    std::vector<Task<long>> children;
    for (int i = 0; i < 50; ++i) children.push_back(child(10 + i % 5));
    std::vector<long> all = co_await gather(std::move(children));
    EXPECT_EQ(std::accumulate(all.begin(), all.end(), 0L), 2 * 10 * (55 + 89 + 144 + 233 + 377));
    long sum = co_await parallel_reduce(0, 100, 1, 0L, [](int) { return fib(10); }, std::plus<>());
    EXPECT_EQ(sum, 5500);
  };
  executor.run(body());
}

// --- depth, and workers that come and go ---------------------------------------------------------

// Each level forks, so the deque grows past its first ring and back.
long down(int depth) {
  if (depth == 0) return 0;
  auto [below, one] = fork_join([depth] { return down(depth - 1); }, [] { return 1L; });
  return below + one;
}

TEST_ON_THREADS(ForkJoinTest, AThousandForksDeep) {
  for (int i = 0; i < 20; ++i) EXPECT_EQ(on_worker(executor, [] { return down(3000); }), 3000);
}

// While a worker waits it runs others' jobs on its own stack: that must not go on without bounds.
// Each call uses a lot of it, and waits for somebody to take its other half; two workers help each
// other in turn, until a quarter of their stacks is used: then nobody comes.
class Descent {
 public:
  void go(int levels) {
    if (levels == 0) return;
    const std::chrono::milliseconds patience = others_use() < 0.2 ? 60s : 50ms;
    used_by_[std::this_thread::get_id()] = used_here();
    auto* const space = static_cast<volatile char*>(__builtin_alloca(kLevel));
    for (std::size_t i = 0; i < kLevel; i += 1024) space[i] = 1;
    const auto here = std::this_thread::get_id();
    std::atomic<bool> begun{false};
    fork_join(
        [&] {
          const auto give_up = std::chrono::steady_clock::now() + patience;
          while (!begun && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
        },
        [&] {
          begun = true;
          if (std::this_thread::get_id() != here) {
            most_used = std::max(most_used, used_here());
            ++stolen;
          }
          go(levels - 1);
        });
  }

  static constexpr std::size_t kLevel = 96 * 1024;
  int stolen = 0;
  double most_used = 0;  // the part of a stack that was in use when a stolen function began

 private:
  static double used_here() {
    pthread_attr_t attributes;
    void* lowest = nullptr;
    std::size_t size = 0;
    EXPECT_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
    pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
    const auto left = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) -
                      reinterpret_cast<std::uintptr_t>(lowest);
    return 1 - static_cast<double>(left) / static_cast<double>(size);
  }
  // Of the other worker, which waits further up.
  double others_use() const {
    double used = 0;
    for (const auto& [thread, part] : used_by_) {
      if (thread != std::this_thread::get_id()) used = part;
    }
    return used;
  }

  std::map<std::thread::id, double> used_by_;  // one call at a time is at work
};

TEST(ForkJoin, WhoHasUsedAQuarterOfTheStackHelpsNoMore) {
  WorkStealingExecutor executor({.threads = 2});
  Descent descent;
  constexpr int kLevels = 60;  // 5.6 MiB if all were on one stack
  on_worker(executor, [&] { descent.go(kLevels); });
  EXPECT_GT(descent.stolen, 5);
  EXPECT_LT(descent.stolen, kLevels);
  EXPECT_GT(descent.most_used, 0.1);
  EXPECT_LT(descent.most_used, 0.3);
}

TEST(ForkJoin, WorkersComeAndGoWhileFunctionsFork) {
  WorkStealingExecutor executor({.threads = 3});
  std::vector<JoinHandle<long>> handles;
  for (std::size_t i = 0; i < scaled(200); ++i)
    handles.push_back(executor.spawn(as_task([] { return fib(16); })));
  for (std::size_t i = 0; i < scaled(60); ++i) executor.resize(1 + i % 5);
  for (auto& handle : handles) EXPECT_EQ(handle.wait().value(), 987);
}

TEST(ForkJoin, AnExecutorEndsWhileItsTasksFork) {
  for (std::size_t i = 0; i < scaled(100); ++i) {
    std::atomic<int> ended{0};
    {
      WorkStealingExecutor executor({.threads = 3});
      for (int t = 0; t < 5; ++t) {
        executor.post([&] {
          fib(12);
          ++ended;
        });
      }
    }
    EXPECT_EQ(ended, 5);
  }
}

TEST(ForkJoin, WithoutAsymmetricFences) {
  detail::MembarrierForTests::refuse();
  {
    WorkStealingExecutor executor({.threads = 3});
    for (std::size_t i = 0; i < scaled(20); ++i)
      EXPECT_EQ(on_worker(executor, [] { return fib(18); }), 2584);
    on_worker(executor, [] { with_g_stolen([] {}, [] { std::this_thread::sleep_for(5ms); }); });
  }
  detail::MembarrierForTests::restore();
}

}  // namespace
}  // namespace magpie
