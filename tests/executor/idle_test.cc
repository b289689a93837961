// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: slow
// ctest-serial
// ctest-leave-out: gcc (threads and time, the coroutines are those of task_test)

// An executor with nothing to do costs nothing. On its own: nothing else of the process may use the
// processor meanwhile.

#include <ctime>

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/work_stealing_executor.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;

std::chrono::nanoseconds cpu_time() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

std::chrono::nanoseconds used_in_three_seconds() {
  const auto before = cpu_time();
  std::this_thread::sleep_for(3s);
  return cpu_time() - before;
}

#if defined(MAGPIE_TSAN) || defined(MAGPIE_ASAN)
constexpr auto kAllowed = 30ms;  // the sanitizers' own threads
#else
constexpr auto kAllowed = 1ms;
#endif

// Who polls does so all the time. A quiet stretch may have to be waited for: where threads stand
// still, the workers take a while to settle, and the kernel may charge them for what it does
// itself.
bool becomes_quiet() {
  std::this_thread::sleep_for(100ms);  // it settles
  for (int stretch = 0; stretch < 10; ++stretch) {
    if (used_in_three_seconds() < kAllowed) return true;
  }
  return false;
}

TEST(Idle, ExecutorThatHasWorkedSleeps) {
  WorkStealingExecutor executor({.threads = 8});
  for (int i = 0; i < 100; ++i) executor.run(sleep_for(10us));
  EXPECT_TRUE(becomes_quiet());
}

TEST(Idle, TasksThatSleepLongCostNothing) {
  WorkStealingExecutor executor({.threads = 4});
  std::vector<JoinHandle<void>> handles;
  for (int i = 0; i < 1000; ++i) handles.push_back(executor.spawn(sleep_for(1h)));
  EXPECT_TRUE(becomes_quiet());
  for (auto& handle : handles) EXPECT_TRUE(handle.cancel());
}

}  // namespace
}  // namespace magpie
