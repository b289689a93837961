// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "kernel.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>

#include <algorithm>

#include "machine.h"

namespace magpie::cores {

std::size_t processors = 1;

namespace {

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr std::uint64_t kBase = 1'000 * kNsPerSecond * Costs::kPerNs;  // the time at the beginning

std::uint64_t latest = 0;

long futex_wait(Core& core, const void* word, std::uint32_t expected, const timespec* until) {
  spend(core, Costs::kCall);
  if (__atomic_load_n(static_cast<const std::uint32_t*>(word), __ATOMIC_SEQ_CST) != expected) {
    errno = EAGAIN;
    return -1;
  }
  if (sleep_on(core, word, until != nullptr ? deadline_of(*until) : kNever)) return 0;
  errno = ETIMEDOUT;
  return -1;
}

}  // namespace

void boot(std::size_t how_many) {
  processors = how_many;
  latest = 0;
}

timespec now(Core& core) {
  spend(core, Costs::kClock);
  // Cores are ahead of each other by a slice; the time that programs see never goes back.
  latest = std::max(latest, core.clock);
  const std::uint64_t ns = (kBase + latest) / Costs::kPerNs;
  return {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
}

std::uint64_t cycles_of(const timespec& time) {
  const auto seconds = static_cast<std::uint64_t>(time.tv_sec);
  if (seconds >= kNever / (kNsPerSecond * Costs::kPerNs)) return kNever;
  return (seconds * kNsPerSecond + static_cast<std::uint64_t>(time.tv_nsec)) * Costs::kPerNs;
}

std::uint64_t deadline_of(const timespec& time) {
  const std::uint64_t at = cycles_of(time);
  return at == kNever ? kNever : at - std::min(at, kBase);
}

long futex(Core& core, const std::array<long, 6>& a) {
  ++traffic.calls;
  const void* const word = reinterpret_cast<const void*>(a[0]);
  const auto expected = static_cast<std::uint32_t>(a[2]);
  const auto* const until = reinterpret_cast<const timespec*>(a[3]);
  switch (a[1] & FUTEX_CMD_MASK) {
    case FUTEX_WAIT_BITSET:
      return futex_wait(core, word, expected, until);
    case FUTEX_WAIT:
      if (until != nullptr) give_up("a futex with a relative deadline");
      return futex_wait(core, word, expected, nullptr);
    case FUTEX_WAKE:
      spend(core, Costs::kCall);
      return wake(core, word, a[2]);
    default:
      give_up("an operation of futexes that it does not know");
  }
}

long membarrier(Core& core, long command) {
  ++traffic.calls;
  spend(core, Costs::kCall);
  switch (command) {
    case MEMBARRIER_CMD_QUERY:
      return MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
      return 0;
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
      ++traffic.barriers;
      for (const auto& other : cores)
        if (other->state == State::ready && other.get() != &core) other->clock += Costs::kInterrupt;
      return 0;
    default:
      give_up("a membarrier that it does not know");
  }
}

}  // namespace magpie::cores
