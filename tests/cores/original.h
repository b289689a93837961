// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

// The C library's own functions, under names that libc_calls.cc defines.

namespace magpie::cores {

// Looked up when first called, which may be before any variable is initialised, and without a lock.
template <class Function>
class Original {
 public:
  constexpr explicit Original(const char* name) : name_(name) {}

  template <class... Arguments>
  auto operator()(Arguments... arguments) {
    // Relaxed: the function is older than the program.
    Function* function = function_.load(std::memory_order_relaxed);
    if (function == nullptr) {
      function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name_));
      function_.store(function, std::memory_order_relaxed);
    }
    return function(arguments...);
  }

 private:
  const char* const name_;
  std::atomic<Function*> function_{nullptr};
};

#define MAGPIE_ORIGINAL(name) inline constinit Original<decltype(::name)> name(#name);
namespace original {
MAGPIE_ORIGINAL(syscall)
MAGPIE_ORIGINAL(clock_gettime)
MAGPIE_ORIGINAL(nanosleep)
MAGPIE_ORIGINAL(sysconf)
MAGPIE_ORIGINAL(sched_getaffinity)
MAGPIE_ORIGINAL(sched_setaffinity)
MAGPIE_ORIGINAL(sched_yield)
MAGPIE_ORIGINAL(fopen)
MAGPIE_ORIGINAL(pthread_create)
MAGPIE_ORIGINAL(pthread_join)
MAGPIE_ORIGINAL(pthread_detach)
MAGPIE_ORIGINAL(pthread_once)
MAGPIE_ORIGINAL(pthread_mutex_lock)
MAGPIE_ORIGINAL(pthread_mutex_trylock)
MAGPIE_ORIGINAL(pthread_mutex_unlock)
MAGPIE_ORIGINAL(pthread_cond_wait)
MAGPIE_ORIGINAL(pthread_cond_timedwait)
MAGPIE_ORIGINAL(pthread_cond_clockwait)
MAGPIE_ORIGINAL(pthread_cond_signal)
MAGPIE_ORIGINAL(pthread_cond_broadcast)
}  // namespace original

#undef MAGPIE_ORIGINAL

}  // namespace magpie::cores
