// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "machine.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include <atomic>
#include <exception>

#include "core.h"
#include "kernel.h"
#include "memory.h"
#include "threads.h"

namespace magpie::cores {
namespace {

struct Program {
  const std::function<void(Meter&)>& function;
  Meter meter;
  std::exception_ptr error;
};

void* run_program(void* raw) {
  Program& program = *static_cast<Program*>(raw);
  try {
    program.function(program.meter);
  } catch (...) {
    program.error = std::current_exception();
  }
  // Threads that nobody waits for may have their last steps to do.
  Core& core = *self;
  const std::uint64_t patience = core.clock + 10'000'000 * Costs::kPerNs;
  for (const auto& other : cores)
    if (other.get() != &core && !wait_for_end(core, *other, patience))
      give_up("a thread outlives the simulation");
  return nullptr;
}

// The turn goes from thread to thread at a third of the cost, if they are all in one place.
class OnOneProcessor {
 public:
  OnOneProcessor() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
      if (CPU_ISSET(i, &before_)) CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
  }
  OnOneProcessor(const OnOneProcessor&) = delete;
  OnOneProcessor& operator=(const OnOneProcessor&) = delete;
  ~OnOneProcessor() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_{};
};

}  // namespace

void Meter::measure(const std::function<void()>& function) {
  forget_places();
  traffic = Traffic();
  const std::uint64_t clock = self->clock;
  function();
  run_.ns = static_cast<double>(self->clock - clock) / Costs::kPerNs;
  run_.traffic = traffic;
}

Reading simulate(std::size_t how_many, const std::function<void(Meter&)>& function) {
  static std::atomic_flag busy;
  if (busy.test_and_set(std::memory_order_acquire))  // pairs with clear() below
    give_up("a simulation runs already");
  prepare_threads();
  const OnOneProcessor here;
  // As many as the C library's allocator has by itself on such a computer; else threads that have
  // nothing to do with each other would have memory side by side.
  mallopt(M_ARENA_MAX, static_cast<int>(8 * how_many));

  boot(how_many);
  forget_lines();
  Program program{function, Meter(), nullptr};
  start_thread(add_core(0), nullptr, run_program, &program);
  for (std::size_t i = 0; i < cores.size(); ++i) {  // the first starts the others
    sem_post(&cores[i]->turn);
    pthread_join(cores[i]->thread, nullptr);
  }
  cores.clear();
  busy.clear(std::memory_order_release);  // pairs with test_and_set() above
  if (program.error) std::rethrow_exception(program.error);
  return program.meter.run();
}

}  // namespace magpie::cores
