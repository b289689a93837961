// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "core.h"

#include <errno.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace magpie::cores {

std::vector<std::unique_ptr<Core>> cores;
Traffic traffic;
thread_local constinit Core* self __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

std::uint64_t sleeps = 0;

// The one whose clock is behind, or whose deadline comes first.
Core& next_core() {
  Core* first = nullptr;
  std::uint64_t at = kNever;
  std::uint64_t second = kNever;
  for (const auto& core : cores) {
    std::uint64_t when = kNever;
    if (core->state == State::ready) when = core->clock;
    if (core->state == State::asleep) when = core->deadline;
    if (when < at) {
      second = std::exchange(at, when);
      first = core.get();
    } else {
      second = std::min(second, when);
    }
  }
  if (first == nullptr) give_up("every thread sleeps and nobody is left to wake one");
  if (first->state == State::asleep) {
    first->state = State::ready;
    first->clock = std::max(first->clock, first->deadline);
    first->woken = false;
  }
  first->slice_end = second == kNever ? kNever : std::max(second, first->clock) + Costs::kSlice;
  return *first;
}

}  // namespace

void give_up(const std::string& sentence) {
  std::fprintf(stderr, "cores: %s\n", sentence.c_str());
  std::abort();
}

Core& add_core(std::uint64_t clock) {
  if (cores.size() == kMostCores)
    give_up("more threads than " + std::to_string(kMostCores) + " in one simulation");
  cores.push_back(std::make_unique<Core>(cores.size(), clock));
  return *cores.back();
}

void wait_for_turn(Core& core) {
  const int saved = errno;  // the caller may be about to read its own
  while (sem_wait(&core.turn) != 0) {
  }
  errno = saved;
}

void pass_on(Core& core) {
  Core& next = next_core();
  if (&next == &core) return;
  sem_post(&next.turn);
  wait_for_turn(core);
}

bool sleep_on(Core& core, const void* word, std::uint64_t deadline) {
  core.state = State::asleep;
  core.sleeps_on = word;
  core.deadline = deadline;
  core.asleep_since = ++sleeps;
  core.woken = false;
  pass_on(core);
  return core.woken;
}

long wake(Core& core, const void* word, long count) {
  long woken = 0;
  for (; woken < count; ++woken) {
    Core* first = nullptr;
    for (const auto& other : cores) {
      if (other->state == State::asleep && other->sleeps_on == word &&
          (first == nullptr || other->asleep_since < first->asleep_since))
        first = other.get();
    }
    if (first == nullptr) break;
    first->state = State::ready;
    first->woken = true;
    first->clock = std::max(first->clock, core.clock + Costs::kWake);
    expect_other(core, first->clock);
    ++traffic.wakes;
  }
  return woken;
}

}  // namespace magpie::cores
