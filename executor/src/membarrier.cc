// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include <magpie/detail/atomic.h>

// The kernel's part of StdEnv: process-wide barriers, futexes, the clock.

namespace magpie::detail {
namespace {

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

std::atomic<std::uint64_t> membarrier_count{0};
std::once_flag registration;
bool registered = false;  // written once, inside `registration`

[[maybe_unused]] long call_membarrier(int command) noexcept {
  return syscall(SYS_membarrier, command, 0, 0);
}

[[maybe_unused]] bool refused_by_environment() noexcept {
  const char* value = std::getenv("MAGPIE_NO_MEMBARRIER");
  return value != nullptr && value[0] != '\0' && !(value[0] == '0' && value[1] == '\0');
}

bool try_registration() noexcept {
#ifdef MAGPIE_TSAN
  return false;
#else
  if (refused_by_environment()) return false;
  const long supported = call_membarrier(MEMBARRIER_CMD_QUERY);
  if (supported < 0 || (supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return false;
  if (call_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0) return false;
  // A sandbox may let the registration pass and refuse the barrier.
  return call_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
#endif
}

}  // namespace

bool Kernel::register_membarrier() noexcept {
  std::call_once(registration, [] {
    registered = try_registration();
    // Relaxed: whoever relies on it is ordered after this call by the start of its thread.
    membarrier_in_use.store(registered, std::memory_order_relaxed);
  });
  return membarrier_in_use.load(std::memory_order_relaxed);
}

void Kernel::membarrier() noexcept {
  membarrier_count.fetch_add(1, std::memory_order_relaxed);
  if (call_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) [[likely]] {
    return;
  }
  // The registration belongs to the address space and can be renewed.
  if (call_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
      call_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) {
    return;
  }
  std::fputs(
      "magpie: the kernel no longer allows membarrier(2), which running threads rely on. If a "
      "sandbox is entered after the executor was made, start the process with "
      "MAGPIE_NO_MEMBARRIER=1.\n",
      stderr);
  std::abort();
}

std::uint64_t Kernel::membarriers() noexcept {
  return membarrier_count.load(std::memory_order_relaxed);
}

// A bucket of kBurst tokens, refilled at one per kInterval, kept as the instant at which it would
// be full again. A return to the biased mode may cost one barrier, and rings are freed behind one.
// It interrupts all cores: at 1.3 us each, one in 250 us keeps that below 1 % however many deques
// there are.
bool Kernel::may_barrier(std::uint64_t now_ns) noexcept {
  constexpr std::uint64_t kInterval = 250'000;
  constexpr std::uint64_t kBurst = 16;
  static std::atomic<std::uint64_t> full_at{0};
  std::uint64_t seen = full_at.load(std::memory_order_relaxed);
  for (;;) {
    const std::uint64_t next = (seen > now_ns ? seen : now_ns) + kInterval;
    if (next - now_ns > kInterval * kBurst) return false;
    // Relaxed: the word guards nothing but itself.
    if (full_at.compare_exchange_weak(seen, next, std::memory_order_relaxed,
                                      std::memory_order_relaxed)) {
      return true;
    }
  }
}

bool Kernel::futex_wait(const void* word, std::uint32_t expected,
                        std::optional<std::uint64_t> deadline_ns) noexcept {
  timespec until{};
  if (deadline_ns) {
    until.tv_sec = static_cast<time_t>(*deadline_ns / kNanosecondsPerSecond);
    until.tv_nsec = static_cast<long>(*deadline_ns % kNanosecondsPerSecond);
  }
  const int saved = errno;  // callers do not expect to find it changed
  bool woken = true;
  for (;;) {
    // The bitset form takes an absolute time, so an interrupted sleep goes on where it was.
    const long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                                deadline_ns ? &until : nullptr, nullptr, FUTEX_BITSET_MATCH_ANY);
    if (result == 0 || errno == EAGAIN) break;
    if (errno == EINTR) continue;
    woken = errno != ETIMEDOUT;
    break;
  }
  errno = saved;
  return woken;
}

void Kernel::futex_wake(const void* word, int count) noexcept {
  const int saved = errno;  // waking the dead is fine: EFAULT, if the page is gone already
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
  errno = saved;
}

void Kernel::yield() noexcept {
  sched_yield();
}

void Kernel::doze() noexcept {
  const timespec moment{0, 200'000};
  const int saved = errno;
  nanosleep(&moment, nullptr);
  errno = saved;
}

std::uint64_t Kernel::now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNanosecondsPerSecond +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void MembarrierForTests::refuse() noexcept {
  Kernel::register_membarrier();
  Kernel::membarrier_in_use.store(false, std::memory_order_relaxed);
}

void MembarrierForTests::restore() noexcept {
  Kernel::register_membarrier();
  Kernel::membarrier_in_use.store(registered, std::memory_order_relaxed);
}

}  // namespace magpie::detail
