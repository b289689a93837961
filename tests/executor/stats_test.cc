// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/stats.h>

#include <set>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include <magpie/sleep.h>
#include <magpie/work_stealing_executor.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;

bool has_line(const std::string& text, const std::string& wanted) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == wanted) return true;
  }
  return false;
}

TEST(Prometheus, EveryWorkerIsASampleOfEachCounter) {
  ExecutorStats stats;
  stats.workers.resize(2);
  stats.workers[0].tasks_run = 7;
  stats.workers[1].tasks_run = 18'446'744'073'709'551'615U;
  stats.workers[1].busy = 1'500'000'001ns;
  stats.workers[1].queue_depth = 3;
  stats.live_tasks = 4;
  stats.heavy_fences = 5;
  const std::string text = to_prometheus(stats);
  EXPECT_TRUE(has_line(text, "# TYPE magpie_worker_tasks_run_total counter"));
  EXPECT_TRUE(has_line(text, "magpie_worker_tasks_run_total{worker=\"0\"} 7"));
  EXPECT_TRUE(has_line(text, "magpie_worker_tasks_run_total{worker=\"1\"} 18446744073709551615"));
  EXPECT_TRUE(has_line(text, "magpie_worker_busy_seconds_total{worker=\"1\"} 1.500000001"));
  EXPECT_TRUE(has_line(text, "magpie_worker_queue_depth{worker=\"1\"} 3"));
  EXPECT_TRUE(has_line(text, "magpie_live_tasks 4"));
  EXPECT_TRUE(has_line(text, "magpie_heavy_fences_total 5"));
}

TEST(Prometheus, TheExecutorsNameIsALabelThatIsEscaped) {
  ExecutorStats stats;
  stats.workers.resize(1);
  const std::string text = to_prometheus(stats, "a\"b\\c\nd");
  EXPECT_TRUE(has_line(text, "magpie_live_tasks{executor=\"a\\\"b\\\\c\\nd\"} 0"));
  EXPECT_TRUE(
      has_line(text, "magpie_worker_parks_total{executor=\"a\\\"b\\\\c\\nd\",worker=\"0\"} 0"));
}

TEST(Prometheus, EachMetricIsDescribedOnceBeforeItsSamples) {
  WorkStealingExecutor executor({.threads = 2});
  executor.run(sleep_for(1ms));
  std::istringstream lines(to_prometheus(executor.stats(), "main"));
  std::set<std::string> described;
  std::size_t samples = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    std::string second;
    std::string name;
    words >> first;
    if (first == "#") {
      words >> second >> name;
      if (second == "TYPE") {
        EXPECT_TRUE(described.insert(name).second) << line;
      }
      continue;
    }
    ++samples;
    EXPECT_TRUE(described.contains(first.substr(0, first.find('{')))) << line;
  }
  EXPECT_EQ(samples, (described.size() - 3) * 2 +
                         3);  // two workers, and three that are not counted by worker
}

}  // namespace
}  // namespace magpie
