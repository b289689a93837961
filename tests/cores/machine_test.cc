// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include <magpie/detail/atomic.h>
#include <magpie/topology.h>

#include "machine.h"

namespace magpie::cores {
namespace {

constexpr std::uint64_t kTimes = 1000;

struct alignas(64) Counter {
  std::atomic<std::uint64_t> value{0};
};

// Each of so many threads calls it with its number.
template <class Function>
void on_threads(std::size_t count, Function function) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back([&function, i] { function(i); });
  for (std::thread& thread : threads) thread.join();
}

// Each of four threads counts so often, all in one line or each in its own.
Reading count_on_four(bool together) {
  return simulate(4, [&](Meter& meter) {
    std::array<Counter, 4> counters;
    meter.measure([&] {
      on_threads(4, [&](std::size_t i) {
        std::atomic<std::uint64_t>& counter = counters[together ? 0 : i].value;
        for (std::uint64_t n = 0; n < kTimes; ++n) counter.fetch_add(1);
      });
    });
    EXPECT_EQ(counters[0].value, together ? 4 * kTimes : kTimes);
  });
}

TEST(SimulatedCores, ALineThatAllWriteTravels) {
  const Reading run = count_on_four(true);
  EXPECT_GE(run.traffic.travels(), kTimes);
  EXPECT_GE(run.traffic.locked, 4 * kTimes);
}

TEST(SimulatedCores, LinesOfTheirOwnStay) {
  const Reading run = count_on_four(false);
  EXPECT_LE(run.traffic.travels(), 100U);
  EXPECT_LE(4 * run.ns, count_on_four(true).ns);
}

// Counted by a copy of this process, which finds its memory as the next copy does.
Reading count_in_a_child() {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe(ends.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const Reading run = count_on_four(true);
    _exit(write(ends[1], &run, sizeof run) == sizeof run ? 0 : 1);
  }
  close(ends[1]);
  Reading run;
  EXPECT_EQ(read(ends[0], &run, sizeof run), static_cast<ssize_t>(sizeof run));
  close(ends[0]);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  return run;
}

// Two threads take turns. Each turn the line goes to who reads that it is his, and is claimed by
// him: nobody writes to it between the count of a read and the read.
TEST(SimulatedCores, AnAccessIsMadeWhenItIsCounted) {
  const Reading run = simulate(2, [](Meter& meter) {
    Counter turn;
    meter.measure([&turn] {
      on_threads(2, [&turn](std::size_t i) {
        for (std::uint64_t n = i; n < 2 * kTimes; n += 2) {
          while (turn.value.load() != n) {
          }
          turn.value.store(n + 1);
        }
      });
    });
  });
  EXPECT_GE(run.traffic.moves, 2 * kTimes - 2);
  EXPECT_GE(run.traffic.claims, 2 * kTimes - 2);
}

TEST(SimulatedCores, AProgramDoesTheSameEachTime) {
  const Reading first = count_in_a_child();
  EXPECT_GT(first.ns, 0);
  for (int i = 0; i < 20; ++i) {
    const Reading again = count_in_a_child();
    EXPECT_EQ(again.ns, first.ns);
    EXPECT_EQ(again.traffic.accesses, first.traffic.accesses);
    EXPECT_EQ(again.traffic.travels(), first.traffic.travels());
    EXPECT_EQ(again.traffic.waited, first.traffic.waited);
  }
}

TEST(SimulatedCores, WhoJoinsAThreadGoesOnAfterItsEnd) {
  simulate(2, [](Meter&) {
    std::chrono::steady_clock::time_point end;
    std::thread thread([&end] {
      std::this_thread::sleep_for(std::chrono::hours(1));
      end = std::chrono::steady_clock::now();
    });
    const auto began = std::chrono::steady_clock::now();
    thread.join();
    EXPECT_GE(end - began, std::chrono::hours(1));
    EXPECT_GE(std::chrono::steady_clock::now(), end);
    EXPECT_LE(std::chrono::steady_clock::now() - end, std::chrono::milliseconds(1));
  });
}

// The one that is joined sets nobody free; the other waits, without sleeping, for who has joined.
TEST(SimulatedCores, WhoHasJoinedAThreadTakesPartAgain) {
  simulate(3, [](Meter&) {
    std::atomic<bool> joined{false};
    std::thread spinner([&joined] {
      while (!joined.load()) {
      }
    });
    std::thread([] {}).join();
    joined.store(true);
    spinner.join();
  });
}

template <class Clock>
void wait_for_an_hour() {
  const auto from = Clock::now();
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  EXPECT_EQ(never.wait_until(lock, from + std::chrono::hours(1)), std::cv_status::timeout);
  EXPECT_GE(Clock::now() - from, std::chrono::hours(1));
  EXPECT_LE(Clock::now() - from, std::chrono::hours(1) + std::chrono::milliseconds(1));
}

TEST(SimulatedCores, TimeIsThatOfTheSimulatedComputer) {
  const auto before = std::chrono::steady_clock::now();
  simulate(1, [](Meter&) {
    wait_for_an_hour<std::chrono::steady_clock>();
    wait_for_an_hour<std::chrono::system_clock>();
  });
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::minutes(30));
}

TEST(SimulatedCores, ADeadlineThatIsTooFarAwayIsNone) {
  simulate(1, [](Meter&) {
    std::mutex mutex;
    std::condition_variable condition;
    bool set = false;
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::hours(1));
      const std::lock_guard lock(mutex);
      set = true;
      condition.notify_one();
    });
    std::unique_lock lock(mutex);
    EXPECT_TRUE(condition.wait_until(lock, std::chrono::steady_clock::time_point::max(),
                                     [&set] { return set; }));
    lock.unlock();
    other.join();
  });
}

TEST(SimulatedCores, ThereAreAsManyProcessorsAsItIsTold) {
  ASSERT_EQ(unsetenv("MAGPIE_THREADS"), 0);
  simulate(77, [](Meter&) {
    EXPECT_EQ(std::thread::hardware_concurrency(), 77U);
    EXPECT_EQ(available_parallelism(), 77U);
    EXPECT_EQ(affinity_cpus_in_topology_order().size(), 77U);
    EXPECT_EQ(sysconf(_SC_NPROCESSORS_ONLN), 77);
    EXPECT_EQ(std::fopen("/proc/self/cgroup", "r"), nullptr);
    EXPECT_FALSE(detail::probe("", 77).quota.has_value());
  });
}

TEST(SimulatedCores, AMutexIsHeldByOne) {
  constexpr std::size_t kThreads = 8;
  std::uint64_t sum = 0;
  const Reading run = simulate(kThreads, [&sum](Meter& meter) {
    std::mutex mutex;
    meter.measure([&] {
      on_threads(kThreads, [&](std::size_t) {
        for (std::uint64_t n = 0; n < kTimes; ++n) {
          const std::lock_guard lock(mutex);
          ++sum;
        }
      });
    });
  });
  EXPECT_EQ(sum, kThreads * kTimes);
  EXPECT_GE(run.traffic.locked, 2 * kThreads * kTimes);  // to lock it, and to unlock it
  EXPECT_GT(run.traffic.wakes, 0U);
}

// Also if whoever does it does so for long, or fails.
TEST(SimulatedCores, WhatIsDoneOnceIsDoneByOne) {
  simulate(8, [](Meter&) {
    int times = 0;
    int failures = 0;
    std::once_flag flag;
    on_threads(8, [&](std::size_t) {
      for (bool done = false; !done;) {
        try {
          std::call_once(flag, [&] {
            std::this_thread::sleep_for(std::chrono::seconds(1));
            if (failures < 2) throw ++failures;
            ++times;
          });
          done = true;
        } catch (int) {
        }
      }
      EXPECT_EQ(times, 1);
    });
    EXPECT_EQ(failures, 2);
  });
}

TEST(SimulatedCores, AStaticVariableIsMadeByOne) {
  simulate(8, [](Meter&) {
    static std::atomic<int> made{0};
    struct Slow {
      Slow() {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        made.fetch_add(1);
      }
    };
    on_threads(8, [](std::size_t) {
      static const Slow slow;
      EXPECT_EQ(made.load(), 1);
    });
  });
}

TEST(SimulatedCores, APauseTakesTime) {
  const Reading run = simulate(1, [](Meter& meter) {
    meter.measure([] {
      for (int i = 0; i < 1000; ++i) detail::StdEnv::pause();
    });
  });
  EXPECT_GE(run.ns, 1000.0 * Costs::kPause / Costs::kPerNs);
}

TEST(SimulatedCores, WhatTheProgramThrowsComesOut) {
  for (int i = 0; i < 2; ++i) {
    const auto run = [] { simulate(1, [](Meter&) { throw std::runtime_error("out of it"); }); };
    EXPECT_THROW(run(), std::runtime_error);
  }
}

TEST(SimulatedCores, ThreadsThatAreLetGoOfMayEndAfterTheProgram) {
  bool ended = false;
  simulate(2, [&ended](Meter&) {
    std::thread([&ended] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ended = true;
    }).detach();
  });
  EXPECT_TRUE(ended);
}

TEST(SimulatedCoresDeathTest, AThreadThatOutlivesTheProgramIsAnError) {
  const auto run = [] {
    simulate(2, [](Meter&) {
      std::thread([] { std::this_thread::sleep_for(std::chrono::hours(1)); }).detach();
    });
  };
  EXPECT_DEATH(run(), "a thread outlives the simulation");
}

TEST(SimulatedCoresDeathTest, ADeadlockIsAnError) {
  const auto run = [] {
    simulate(2, [](Meter&) {
      std::mutex mutex;
      mutex.lock();
      std::thread([&mutex] { mutex.lock(); }).join();
    });
  };
  EXPECT_DEATH(run(), "every thread sleeps and nobody is left to wake one");
}

TEST(SimulatedCoresDeathTest, AThreadThatCannotBeStartedIsAnError) {
  const auto run = [] {
    simulate(1, [](Meter&) {
      pthread_attr_t attributes;
      pthread_attr_init(&attributes);
      pthread_attr_setstacksize(&attributes, std::size_t{1} << 60);
      pthread_t thread;
      pthread_create(&thread, &attributes, [](void* nothing) { return nothing; }, nullptr);
    });
  };
  EXPECT_DEATH(run(), "a thread cannot be started");
}

TEST(SimulatedCores, WhoeverWaitsIsWoken) {
  const Reading run = simulate(2, [](Meter& meter) {
    std::atomic<int> word{0};
    meter.measure([&] {
      std::thread other([&] {
        for (int turn = 1; turn < 100; turn += 2) {
          word.wait(turn - 1);
          while (word.load() != turn) word.wait(word.load());
          word.store(turn + 1);
          word.notify_one();
        }
      });
      for (int turn = 0; turn < 100; turn += 2) {
        word.store(turn + 1);
        word.notify_one();
        while (word.load() != turn + 2) word.wait(turn + 1);
      }
      other.join();
    });
  });
  EXPECT_GT(run.traffic.travels(), 20U);
  EXPECT_GT(run.traffic.calls, 20U);
}

}  // namespace
}  // namespace magpie::cores
