// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

// How many processors this process may use, and which.
//
// Not std::thread::hardware_concurrency(), which knows nothing of containers: a pod that may use 2
// of 64 processors wants 2 workers, not 64 that are throttled most of the time.
//
// Threads: any. Nothing is cached: limits change while a process runs.

namespace magpie {

/// The number of threads that can run at once: the smaller of the calling thread's affinity mask
/// and the CPU quotas (cgroup v1 and v2) of the process's control group and all groups around it,
/// rounded up, at least 1. The environment variable MAGPIE_THREADS, unless empty, is taken instead:
/// std::invalid_argument when it is not a number from 1 to 4096.
MAGPIE_EXPORT std::size_t available_parallelism();

/// The processors of the calling thread's affinity mask, in the order in which to use them: one of
/// each core first, the cores' further hardware threads after those, the strongest cores leading
/// where they differ. Ascending where the system does not say.
[[nodiscard]] MAGPIE_EXPORT std::vector<int> affinity_cpus_in_topology_order();

namespace detail {

struct Parallelism {
  std::size_t affinity;              // processors in the mask
  std::optional<std::size_t> quota;  // whole processors of the tightest quota, nothing if unlimited

  std::size_t usable() const noexcept {
    const std::size_t allowed = quota && *quota < affinity ? *quota : affinity;
    return allowed > 0 ? allowed : 1;
  }
};

// `root` is put before every path that is opened: empty for the machine itself.
[[nodiscard]] MAGPIE_EXPORT Parallelism probe(const std::string& root, std::size_t affinity);

[[nodiscard]] MAGPIE_EXPORT std::vector<int> topology_order(const std::string& root,
                                                            std::vector<int> cpus);

// As sched_getaffinity(2) for the calling thread: bytes of the mask or 0, errno on failure.
using GetAffinity = int (*)(std::size_t bytes, void* mask);
[[nodiscard]] MAGPIE_EXPORT std::vector<int> affinity_cpus(GetAffinity get);

}  // namespace detail
}  // namespace magpie
