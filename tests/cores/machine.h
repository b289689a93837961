// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

// A computer of many cores, on one: what threads do runs in the order of a clock that each core has
// of its own, and every access to memory costs what the state of its cache line makes it cost.
//
//     const Reading run = simulate(64, [](Meter& meter) {
//       magpie::WorkStealingExecutor executor({.threads = 64});
//       meter.measure([&] { executor.run(work()); });
//     });
//     run.ns, run.traffic.moves
//
// The compiler tells it of the accesses: code is traced that was compiled with -fsanitize=thread,
// whose calls land here instead of in ThreadSanitizer. What is not so compiled (the C and the C++
// library, the allocator, assembly) takes no time and moves no lines.
//
// Each thread has a core of its own. One core at a time runs, the one whose clock is behind the
// others', for a slice that is shorter than a wake-up and longer than a line's journey. So a
// program does the same each time that it is started, but for what it decides by addresses; where
// it lies in memory, and so which objects share a line, depends on what the process did before. The
// caches are as large as memory, and all cores are equally far from each other: what is counted is
// what cores make each other wait for, nothing else.
//
// As long as it runs, the simulated computer's are: threads, mutexes, condition variables,
// pthread_once, futexes, membarrier, clocks and sleeps, and the number of processors, to which no
// control group sets a limit. A thread that blocks elsewhere blocks everything, and none may wait
// for one that is not simulated.
//
// Threads: one simulation at a time, begun by a thread that is not in one; whatever threads it
// starts are gone at its end. Errors: a sentence and abort() where every thread sleeps for good,
// where one outlives the simulation, and where one cannot be started. What the program throws comes
// out of simulate().

namespace magpie::cores {

// What an access costs, in cycles: orders of magnitude of servers of today.
struct Costs {
  static constexpr std::uint64_t kPerNs = 3;          // cycles in a nanosecond
  static constexpr std::uint64_t kHit = 1;            // and the instructions around an access
  static constexpr std::uint64_t kLocked = 18;        // an atomic read-modify-write, a full fence
  static constexpr std::uint64_t kMove = 250;         // a line that another core has written
  static constexpr std::uint64_t kShared = 100;       // a line that nobody has changed since
  static constexpr std::uint64_t kClock = 60;         // reading the time
  static constexpr std::uint64_t kCall = 600;         // a system call
  static constexpr std::uint64_t kWake = 15'000;      // from a futex's wake to the woken thread
  static constexpr std::uint64_t kInterrupt = 1'500;  // what a membarrier costs each running core
  static constexpr std::uint64_t kPause = 60;         // what a loop that waits does in each round
  static constexpr std::uint64_t kSlice = 400;        // how far one core may be ahead of another
};

// What cores asked of the memory that others have.
struct Traffic {
  std::uint64_t accesses = 0;
  std::uint64_t moves = 0;   // of lines whose last writer is another core, to read or to write them
  std::uint64_t shared = 0;  // copies of lines that were not written since others read them
  std::uint64_t claims = 0;  // lines that others have copies of, when this core writes
  std::uint64_t locked = 0;
  std::uint64_t calls = 0;     // of the kernel: futexes, membarriers
  std::uint64_t wakes = 0;     // of threads that slept in the kernel
  std::uint64_t barriers = 0;  // membarriers
  std::uint64_t waited = 0;    // cycles for lines, in turn with others

  // Lines that changed hands.
  std::uint64_t travels() const { return moves + claims; }
};

struct Reading {
  double ns = 0;  // by the simulated clock
  Traffic traffic;
};

class Meter {
 public:
  // What runs counts, on all cores. Once for each simulation.
  void measure(const std::function<void()>& function);
  const Reading& run() const { return run_; }

 private:
  Reading run_;
};

// A computer whose programs find so many processors.
Reading simulate(std::size_t processors, const std::function<void(Meter&)>& program);

// The places whose accesses waited for other cores most, in the measured part of the last
// simulation, as text. Needs llvm-symbolizer to name them.
std::string busiest_places(std::size_t count);

}  // namespace magpie::cores
