// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-sanitized-optimised
// ctest-leave-out: gcc (who runs what where, not how it is compiled)

// Bindings of task-locals in random programs: each coroutine gets what it is bound to by value,
// too, and asks at every step whether it finds the same, itself and by plain functions, which know
// only the thread that they run on. The programs bind, spawn, fork, wait, are cancelled, and move
// between executors and threads; they run on two executors with threads, one of them on a
// tbb::task_arena, and on a simulated one.
//
// With each of these edits of the library, steps of executor/LOCALS.md, it fails within a second:
//
//   N1  stand_in() notes nothing; or no note is made by run_fork(), resume_parent(), go_on_with(),
//       Awaiting::go_home(), Loop::run_piece(), or where a group's block goes on
//   N2  WithLocal does not set the word when it begins, or when it ends
//   N4  (under AddressSanitizer) leave_scope_slow() leaves the note where it is; or stand_in() does
//       not link, so that the scope is left by two loads
//   N6  run_job() does not lend the word of the job's owner
//   N7  LocalsCopy leaves the word as it is; or gives nothing back to a strand that stays
//
// N5, after a strand, shows only in what runs between two strands: tests/executor/locals_test.cc.

#include <magpie/task_local.h>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>

#include <support/foreign.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using detail::Random;
using test::scaled;
using test::seed_or;

constexpr std::size_t kLocals = 3;
using Bound = std::array<int, kLocals>;
const std::array<TaskLocal<int>, kLocals> locals;

class Program {
 public:
  // With one executor: a simulated one, where nothing happens on other threads.
  explicit Program(std::vector<Executor*> executors) : executors_(std::move(executors)) {}

  Task<> run(std::uint64_t seed) {
    co_await steps(Random(seed), 4, Bound{});
    while (spawned_.load() != 0) co_await sleep_for(1us);
  }
  std::uint64_t asked() const { return asked_.load(); }
  std::uint64_t wrong() const { return wrong_.load(); }

 private:
  // --- asking ------------------------------------------------------------------------------------

  Task<> look(Bound bound) {
    for (std::size_t i = 0; i < kLocals; ++i) {
      int found = co_await locals[i].get();
      asked_.fetch_add(1, std::memory_order_relaxed);
      if (found != bound[i]) wrong_.fetch_add(1);
    }
  }

  // Counted until it has ended: run() waits for all.
  class Counted {
   public:
    explicit Counted(Program& program) : program_(&program) { program.spawned_.fetch_add(1); }
    Counted(Counted&& other) noexcept : program_(std::exchange(other.program_, nullptr)) {}
    ~Counted() {
      if (program_ != nullptr) program_->spawned_.fetch_sub(1);
    }

   private:
    Program* program_;
  };
  Task<> spawned_look(Counted, Bound bound) { co_await look(bound); }
  Task<> spawned_steps(Counted, Random random, int depth, Bound bound) {
    co_await steps(random, depth, bound);
  }

  // What a plain function finds.
  void ask(Bound bound) { spawn(spawned_look(Counted(*this), bound)); }

  // Asks when the frame that it lies in goes.
  struct AsksAtItsEnd {
    ~AsksAtItsEnd() { program.ask(bound); }
    Program& program;
    Bound bound;
  };

  // --- awaitables of another library
  // ----------------------------------------------------------------

  struct Stays {
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<>) const {
      program.ask(bound);
      return false;
    }
    void await_resume() const { program.ask(bound); }
    Program& program;
    Bound bound;
  };
  // Its strand has gone on, and may have left everything, when it asks.
  struct Leaves {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> strand) const {
      Program& kept = program;
      const Bound bound_then = bound;
      const Counted counted(kept);
      if (on_its_own_thread) {
        test::start_detached([strand] { strand.resume(); });
        for (int i = 0; i < 50; ++i) std::this_thread::yield();
      } else {
        strand.resume();
      }
      kept.ask(bound_then);
    }
    void await_resume() const noexcept {}
    Program& program;
    Bound bound;
    bool on_its_own_thread;
  };

  // --- the program -------------------------------------------------------------------------------

  bool threads() const { return executors_.size() > 1; }
  Executor& any_executor(Random& random) {
    return *executors_[static_cast<std::size_t>(random.below(executors_.size()))];
  }

  // Some steps one after the other; after each, and at the end of the frame, the same is found as
  // before.
  Task<> steps(Random random, int depth, Bound bound) {
    const AsksAtItsEnd at_the_end{*this, bound};
    const std::uint64_t count = 1 + random.below(3);
    for (std::uint64_t i = 0; i < count; ++i) {
      Task<> next = step(Random(random()), depth, bound);
      co_await std::move(next);
      co_await look(bound);
      ask(bound);
    }
  }

  Task<> deeper(Random& random, int depth, Bound bound) {
    if (depth == 0) return pause(Random(random()), bound);
    return steps(Random(random()), depth - 1, bound);
  }

  Task<> pause(Random random, Bound bound) {
    switch (random.below(threads() ? 6 : 4)) {
      case 0:
        co_await this_task::yield();
        break;
      case 1:
        co_await sleep_for(std::chrono::microseconds(random.below(50)));
        break;
      case 2: {
        Stays stays{*this, bound};
        co_await stays;
        break;
      }
      case 3: {
        Leaves leaves{*this, bound, false};
        co_await leaves;
        break;
      }
      case 4: {
        Leaves leaves{*this, bound, true};
        co_await leaves;
        break;
      }
      default:
        co_await resume_on(any_executor(random));
        break;
    }
    ask(bound);
  }

  Task<> step(Random random, int depth, Bound bound) {
    switch (random.below(14)) {
      case 0:
      case 1: {
        Bound inside = bound;
        const auto which = static_cast<std::size_t>(random.below(kLocals));
        inside[which] = static_cast<int>(random.below(1'000'000)) + 1;
        Task<> task = deeper(random, depth, inside);
        co_await locals[which].with(inside[which], std::move(task));
        break;
      }
      case 2: {
        std::vector<Task<>> tasks;
        for (std::uint64_t n = 1 + random.below(3); n > 0; --n)
          tasks.push_back(deeper(random, depth, bound));
        co_await gather(std::move(tasks));
        break;
      }
      case 3: {
        std::vector<Random> seeds;
        for (std::uint64_t n = 1 + random.below(4); n > 0; --n) seeds.emplace_back(random());
        auto item = [this, depth, bound](Random& its_random) {
          ask(bound);
          return deeper(its_random, depth, bound);
        };
        co_await map_concurrent(seeds, 2, item);
        break;
      }
      case 4: {  // cancelled at any moment, or not at all
        Task<> task = deeper(random, depth, bound);
        const Duration limit = std::chrono::microseconds(random.below(200));
        (void)co_await try_timeout(std::move(task), limit);
        break;
      }
      case 5: {
        Task<> task = deeper(random, depth, bound);
        co_await uncancellable(std::move(task));
        break;
      }
      case 6: {
        Task<> first = deeper(random, depth, bound);
        Task<> second = deeper(random, depth, bound);
        co_await race(std::move(first), std::move(second));
        break;
      }
      case 7: {
        auto body = [&](TaskGroup& group) -> Task<> {
          group.spawn(deeper(random, depth, bound));
          ask(bound);
          co_await this_task::yield();
          group.spawn(deeper(random, depth, bound));
        };
        co_await task_group(body);
        break;
      }
      case 8:
        spawn(spawned_steps(Counted(*this), Random(random()), depth / 2, bound));
        break;
      case 9: {
        JoinHandle<void> handle =
            spawn(spawned_steps(Counted(*this), Random(random()), depth / 2, bound));
        co_await handle;
        break;
      }
      case 10: {
        Task<> task = deeper(random, depth, bound);
        Executor& target = any_executor(random);
        co_await on(target, std::move(task));
        break;
      }
      case 11: {
        auto half = [&] { ask(bound); };
        auto both = [&] { fork_join(half, half); };
        fork_join(both, both);
        break;
      }
      case 12: {
        auto position = [&](int) { ask(bound); };
        co_await parallel_for(0, 8, 1, position);
        break;
      }
      default:
        current_executor().post([this, counted = Counted(*this)] { ask(Bound{}); });
        co_await pause(Random(random()), bound);
        break;
    }
  }

  static Executor& current_executor() { return *detail::current_executor(); }

  const std::vector<Executor*> executors_;
  std::atomic<std::uint64_t> spawned_{0};
  std::atomic<std::uint64_t> asked_{0};
  std::atomic<std::uint64_t> wrong_{0};
};

#if defined(MAGPIE_TSAN)
// libtbb is not instrumented, and takes memory over from threads that have ended, as foreign ones
// do here all the time.
using Second = WorkStealingExecutor;
#else
using Second = TbbExecutor;
#endif

constexpr std::size_t kPrograms = 400;

TEST(RandomLocals, EveryStrandFindsItsOwnOnEveryThread) {
  const std::uint64_t seed = seed_or(1);
  std::uint64_t asked = 0;
  for (std::size_t i = 0; i < scaled(kPrograms); ++i) {
    WorkStealingExecutor stealing({.threads = 1 + i % 3});
    Second second({.threads = 2});
    Program program({&stealing, &second});
    Executor& first = i % 2 == 0 ? static_cast<Executor&>(stealing) : second;
    first.run(program.run(seed + i));
    ASSERT_EQ(program.wrong(), 0U) << "something else than it is bound to: SEED=" << seed + i;
    asked += program.asked();
  }
  std::printf("asked %llu times\n", static_cast<unsigned long long>(asked));
}

TEST(RandomLocals, EveryStrandFindsItsOwnInEveryOrder) {
  const std::uint64_t seed = seed_or(1);
  std::uint64_t asked = 0;
  for (std::size_t i = 0; i < scaled(kPrograms); ++i) {
    testing::SimulatedExecutor executor(seed + i);
    Program program({&executor});
    executor.run(program.run(seed + i));
    ASSERT_EQ(program.wrong(), 0U) << "something else than it is bound to: SEED=" << seed + i;
    asked += program.asked();
  }
  std::printf("asked %llu times\n", static_cast<unsigned long long>(asked));
}

}  // namespace
}  // namespace magpie
