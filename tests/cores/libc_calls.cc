// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "core.h"
#include "kernel.h"
#include "machine.h"
#include "memory.h"
#include "original.h"
#include "threads.h"

// What the C library would do: functions in the place of its own, for the whole process. Threads
// that are not simulated get what they ask for from the C library.

namespace magpie::cores {
namespace {

// What sleeps, costs a call of the kernel to wake.
void rouse(Core& core, const void* word, long count) {
  if (wake(core, word, count) != 0) core.clock += Costs::kCall;
}

int lock(Core& core, pthread_mutex_t* mutex, const void* place) {
  for (;;) {
    touch(mutex, sizeof(int), Access::locked, place);
    const int status = original::pthread_mutex_trylock(mutex);
    if (status != EBUSY) return status;
    core.clock += Costs::kCall;
    sleep_on(core, mutex, kNever);
  }
}

int unlock(Core& core, pthread_mutex_t* mutex, const void* place) {
  touch(mutex, sizeof(int), Access::locked, place);
  const int status = original::pthread_mutex_unlock(mutex);
  rouse(core, mutex, 1);
  return status;
}

int wait(Core& core, pthread_cond_t* condition, pthread_mutex_t* mutex, std::uint64_t deadline,
         const void* place) {
  touch(condition, sizeof(int), Access::locked, place);
  unlock(core, mutex, place);  // the turn stays here from then to the sleep
  core.clock += Costs::kCall;
  const bool woken = sleep_on(core, condition, deadline);
  lock(core, mutex, place);
  return woken ? 0 : ETIMEDOUT;
}

int notify(Core& core, pthread_cond_t* condition, long count, const void* place) {
  touch(condition, sizeof(int), Access::read, place);
  rouse(core, condition, count);
  return 0;
}

// The words are those of the C library, which may have been here before.
void once(Core& core, pthread_once_t* control, void (*function)(), const void* place) {
  constexpr int kNew = 0;
  constexpr int kUnderWay = 1;
  constexpr int kDone = 2;
  for (;;) {
    touch(control, sizeof *control, Access::read, place);
    if (*control == kDone) return;
    if (*control == kNew) break;
    sleep_on(core, control, kNever);
  }
  const auto becomes = [&](int state) {
    touch(control, sizeof *control, Access::locked, place);
    *control = state;
    rouse(core, control, kAll);
  };
  *control = kUnderWay;
  try {
    function();
  } catch (...) {
    becomes(kNew);
    throw;
  }
  becomes(kDone);
}

}  // namespace

extern "C" {

long syscall(long number, ...) noexcept {
  std::va_list list;
  va_start(list, number);
  std::array<long, 6> a{};
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  if (Core* const core = self; core != nullptr) {
    if (number == SYS_futex) return futex(*core, a);
    if (number == SYS_membarrier) return membarrier(*core, a[0]);
  }
  return original::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (Core* const core = self; core != nullptr) {
    *time = now(*core);
    return 0;
  }
  return original::clock_gettime(clock, time);
}

int nanosleep(const timespec* time, timespec* left) {
  if (Core* const core = self; core != nullptr) {
    const std::uint64_t cycles = cycles_of(*time);
    const std::uint64_t most = kNever - core->clock;
    sleep_on(*core, nullptr, core->clock + std::min(cycles, most));
    return 0;
  }
  return original::nanosleep(time, left);
}

int sched_yield() noexcept {
  if (Core* const core = self; core != nullptr) {
    spend(*core, Costs::kCall);
    return 0;
  }
  return original::sched_yield();
}

long sysconf(int name) noexcept {
  if (self != nullptr && (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF))
    return static_cast<long>(processors);
  return original::sysconf(name);
}

int get_nprocs() noexcept {
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

int sched_getaffinity(pid_t thread, std::size_t bytes, cpu_set_t* set) noexcept {
  if (self == nullptr) return original::sched_getaffinity(thread, bytes, set);
  if (bytes * 8 < processors) {
    errno = EINVAL;
    return -1;
  }
  CPU_ZERO_S(bytes, set);
  for (std::size_t i = 0; i < processors; ++i) CPU_SET_S(i, bytes, set);
  return 0;
}

int sched_setaffinity(pid_t thread, std::size_t bytes, const cpu_set_t* set) noexcept {
  if (self != nullptr) return 0;  // each thread has its core
  return original::sched_setaffinity(thread, bytes, set);
}

FILE* fopen(const char* path, const char* mode) {
  const std::string_view name(path);
  if (self != nullptr && (name.starts_with("/proc/") || name.starts_with("/sys/"))) {
    errno = ENOENT;  // the host's processors, and how much of them this process may use
    return nullptr;
  }
  return original::fopen(path, mode);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*function)(void*),
                   void* argument) noexcept {
  Core* const core = self;
  if (core == nullptr) return original::pthread_create(thread, attributes, function, argument);
  spend(*core, Costs::kCall);
  Core& started = add_core(core->clock + Costs::kWake);
  expect_other(*core, started.clock);
  *thread = start_thread(started, attributes, function, argument);
  return 0;
}

int pthread_join(pthread_t thread, void** result) {
  if (Core* const core = self; core != nullptr) {
    spend(*core, Costs::kCall);
    const Core& other = core_of(thread);
    wait_for_end(*core, other, kNever);
    if (result != nullptr) *result = other.result;
    return 0;
  }
  return original::pthread_join(thread, result);
}

int pthread_detach(pthread_t thread) noexcept {
  return self != nullptr ? 0 : original::pthread_detach(thread);
}

int pthread_once(pthread_once_t* control, void (*function)()) {
  Core* const core = self;
  if (core == nullptr) return original::pthread_once(control, function);
  once(*core, control, function, MAGPIE_HERE);
  return 0;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  Core* const core = self;
  return core != nullptr ? lock(*core, mutex, MAGPIE_HERE) : original::pthread_mutex_lock(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  touch(mutex, sizeof(int), Access::locked, MAGPIE_HERE);
  return original::pthread_mutex_trylock(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  Core* const core = self;
  return core != nullptr ? unlock(*core, mutex, MAGPIE_HERE)
                         : original::pthread_mutex_unlock(mutex);
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  Core* const core = self;
  return core != nullptr ? wait(*core, condition, mutex, kNever, MAGPIE_HERE)
                         : original::pthread_cond_wait(condition, mutex);
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* until) {
  Core* const core = self;
  return core != nullptr ? wait(*core, condition, mutex, deadline_of(*until), MAGPIE_HERE)
                         : original::pthread_cond_timedwait(condition, mutex, until);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* until) {
  Core* const core = self;
  return core != nullptr ? wait(*core, condition, mutex, deadline_of(*until), MAGPIE_HERE)
                         : original::pthread_cond_clockwait(condition, mutex, clock, until);
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  Core* const core = self;
  return core != nullptr ? notify(*core, condition, 1, MAGPIE_HERE)
                         : original::pthread_cond_signal(condition);
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  Core* const core = self;
  return core != nullptr ? notify(*core, condition, kAll, MAGPIE_HERE)
                         : original::pthread_cond_broadcast(condition);
}

}  // extern "C"

}  // namespace magpie::cores
