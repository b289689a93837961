// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "threads.h"

#include <cstring>
#include <memory>
#include <string>

#include "original.h"

namespace magpie::cores {
namespace {

pthread_key_t last_words;

// After the destructors of thread-local variables. The C library ends threads in an order of its
// own, which decides where the next ones have their memory: so the rest of it is for the end of the
// simulation, which is where the program's own thread, the first, ends.
void retire(void* raw) {
  Core& core = *static_cast<Core*>(raw);
  core.state = State::gone;
  wake(core, &core, kAll);
  if (core.index != 0) pass_on(core);
  self = nullptr;
}

struct Start {
  void* (*function)(void*);
  void* argument;
  Core* core;
};

void* start(void* raw) {
  const std::unique_ptr<Start> given(static_cast<Start*>(raw));
  pthread_setspecific(last_words, given->core);
  wait_for_turn(*given->core);
  self = given->core;
  return given->core->result = given->function(given->argument);
}

}  // namespace

void prepare_threads() {
  static const int status = pthread_key_create(&last_words, retire);
  if (status != 0) give_up("no key for what is specific to a thread");
}

pthread_t start_thread(Core& core, const pthread_attr_t* attributes, void* (*function)(void*),
                       void* argument) {
  const int status = original::pthread_create(&core.thread, attributes, start,
                                              new Start{function, argument, &core});
  if (status != 0) give_up(std::string("a thread cannot be started: ") + strerror(status));
  return core.thread;
}

Core& core_of(pthread_t thread) {
  for (const auto& core : cores)
    if (pthread_equal(core->thread, thread) != 0) return *core;
  give_up("a thread that is not simulated is waited for");
}

bool wait_for_end(Core& core, const Core& other, std::uint64_t deadline) {
  while (other.state != State::gone)
    if (!sleep_on(core, &other, deadline)) return false;
  return true;
}

}  // namespace magpie::cores
