// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdio>
#include <utility>

#include <magpie/stats.h>

namespace magpie {
namespace {

/// A label's value: what the format gives a meaning is escaped.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\n') {
      result += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') result += '\\';
    result += c;
  }
  return result;
}

std::string seconds(std::chrono::nanoseconds time) {
  char text[40];
  const auto count = time.count();
  std::snprintf(
      text, sizeof text, "%s%lld.%09lld", count < 0 ? "-" : "",
      static_cast<long long>(count < 0 ? -(count / 1'000'000'000) : count / 1'000'000'000),
      static_cast<long long>(count < 0 ? -(count % 1'000'000'000) : count % 1'000'000'000));
  return text;
}

class Exposition {
 public:
  explicit Exposition(std::string_view executor)
      : executor_(executor.empty() ? std::string() : "executor=\"" + escaped(executor) + "\"") {}

  void head(const char* name, const char* type, const char* help) {
    text_ += std::string("# HELP ") + name + ' ' + help + "\n# TYPE " + name + ' ' + type + '\n';
  }
  void sample(const char* name, const std::string& labels, const std::string& value) {
    text_ += name;
    const std::string between = executor_.empty() || labels.empty() ? "" : ",";
    if (const std::string all = executor_ + between + labels; !all.empty())
      text_ += '{' + all + '}';
    text_ += ' ' + value + '\n';
  }
  std::string take() { return std::move(text_); }

 private:
  const std::string executor_;
  std::string text_;
};

struct WorkerMetric {
  const char* name;
  const char* type;
  const char* help;
  std::string (*value)(const WorkerStats&);
};

constexpr WorkerMetric kWorkerMetrics[] = {
    {"magpie_worker_tasks_run_total", "counter", "Pieces of work taken up by the worker's loop.",
     [](const WorkerStats& w) { return std::to_string(w.tasks_run); }},
    {"magpie_worker_local_pops_total", "counter",
     "Pieces of work taken from the worker's own deque.",
     [](const WorkerStats& w) { return std::to_string(w.local_pops); }},
    {"magpie_worker_steals_tried_total", "counter", "Looks into another worker's deque.",
     [](const WorkerStats& w) { return std::to_string(w.steals_tried); }},
    {"magpie_worker_steals_won_total", "counter",
     "Looks into another worker's deque that found work.",
     [](const WorkerStats& w) { return std::to_string(w.steals_won); }},
    {"magpie_worker_injected_total", "counter", "Pieces of work that came from outside.",
     [](const WorkerStats& w) { return std::to_string(w.injected); }},
    {"magpie_worker_parks_total", "counter", "Times the worker went to sleep.",
     [](const WorkerStats& w) { return std::to_string(w.parks); }},
    {"magpie_worker_wakeups_total", "counter", "Times the worker was woken by another thread.",
     [](const WorkerStats& w) { return std::to_string(w.wakeups); }},
    {"magpie_worker_busy_seconds_total", "counter", "Time not spent asleep.",
     [](const WorkerStats& w) { return seconds(w.busy); }},
    {"magpie_worker_idle_seconds_total", "counter", "Time spent asleep.",
     [](const WorkerStats& w) { return seconds(w.idle); }},
    {"magpie_worker_queue_depth", "gauge", "Items in the worker's deque.",
     [](const WorkerStats& w) { return std::to_string(w.queue_depth); }},
};

}  // namespace

std::string to_prometheus(const ExecutorStats& stats, std::string_view executor) {
  Exposition exposition(executor);
  for (const WorkerMetric& metric : kWorkerMetrics) {
    exposition.head(metric.name, metric.type, metric.help);
    for (std::size_t i = 0; i < stats.workers.size(); ++i) {
      exposition.sample(metric.name, "worker=\"" + std::to_string(i) + '"',
                        metric.value(stats.workers[i]));
    }
  }
  exposition.head("magpie_live_tasks", "gauge", "Tasks spawned and not ended.");
  exposition.sample("magpie_live_tasks", "", std::to_string(stats.live_tasks));
  exposition.head("magpie_pending_timers", "gauge", "Sleeps and timeouts that are not due yet.");
  exposition.sample("magpie_pending_timers", "", std::to_string(stats.pending_timers));
  exposition.head("magpie_heavy_fences_total", "counter", "membarrier calls of the process.");
  exposition.sample("magpie_heavy_fences_total", "", std::to_string(stats.heavy_fences));
  return exposition.take();
}

}  // namespace magpie
