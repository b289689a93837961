// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <pthread.h>
#include <semaphore.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "machine.h"

// Whose turn it is: the cores of the simulated computer, their clocks, who sleeps and who wakes up.
//
// Only the thread whose turn it is touches any of this, or anything else of the machine. It gives
// the turn away by a semaphore of the C library, which is not simulated, and which orders what the
// one did before what the other does.

namespace magpie::cores {

inline constexpr std::size_t kMostCores = 256;
inline constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

[[noreturn]] void give_up(const std::string& sentence);

enum class State : std::uint8_t { ready, asleep, gone };

// A thread, which has a processor of its own.
struct Core {
  Core(std::size_t the_index, std::uint64_t the_clock) : index(the_index), clock(the_clock) {
    sem_init(&turn, 0, 0);
  }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() { sem_destroy(&turn); }

  const std::size_t index;
  State state = State::ready;
  std::uint64_t clock;
  std::uint64_t slice_end = kNever;
  const void* sleeps_on = nullptr;
  std::uint64_t deadline = kNever;
  std::uint64_t asleep_since = 0;  // for the order of those who sleep on one word
  bool woken = false;
  pthread_t thread{};
  void* result = nullptr;
  sem_t turn;
};

extern std::vector<std::unique_ptr<Core>> cores;
extern Traffic traffic;
// Of this thread; null: it is not simulated.
extern thread_local constinit Core* self __attribute__((tls_model("initial-exec")));

Core& add_core(std::uint64_t clock);

// The turn goes round; comes back when it is this core's again.
void pass_on(Core& core);
void wait_for_turn(Core& core);

// Before each thing that others can see: those who are behind do first what they do.
inline void let_others_catch_up(Core& core) {
  if (core.clock >= core.slice_end) [[unlikely]]
    pass_on(core);
}

inline void spend(Core& core, std::uint64_t cycles) {
  core.clock += cycles;
  let_others_catch_up(core);
}

// Another core has something to do from then on.
inline void expect_other(Core& core, std::uint64_t clock) {
  core.slice_end = std::min(core.slice_end, clock + Costs::kSlice);
}

// Nothing happens between the call and the sleep. False: the deadline has come.
bool sleep_on(Core& core, const void* word, std::uint64_t deadline);

// Whoever has slept longest comes first. The turn stays where it is.
long wake(Core& core, const void* word, long count);
inline constexpr long kAll = std::numeric_limits<long>::max();

}  // namespace magpie::cores
