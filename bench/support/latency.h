// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long single operations took, as percentiles: counters lat_p50_us and so on of the report. A
// benchmark that has them gets a row in the table of latencies, and a curve.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace bench {

using SteadyTime = std::chrono::steady_clock::time_point;

inline SteadyTime now() {
  return std::chrono::steady_clock::now();
}

/// For one thread.
class Latencies {
 public:
  void add(std::chrono::nanoseconds latency) { ns_.push_back(latency.count()); }
  /// After the first run, which is not timed.
  void clear() { ns_.clear(); }
  std::size_t count() const { return ns_.size(); }

  void report(benchmark::State& state) {
    if (ns_.empty()) return;
    std::sort(ns_.begin(), ns_.end());
    constexpr std::pair<const char*, double> kPercentiles[] = {
        {"p10", 0.10}, {"p50", 0.50}, {"p90", 0.90}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    for (const auto& [name, share] : kPercentiles)
      state.counters[std::string("lat_") + name + "_us"] = at(share) / 1e3;
  }

 private:
  // The smallest value that so large a share does not exceed.
  double at(double share) const {
    const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(ns_.size())));
    return static_cast<double>(ns_[std::max<std::size_t>(rank, 1) - 1]);
  }

  std::vector<std::int64_t> ns_;
};

}  // namespace bench
