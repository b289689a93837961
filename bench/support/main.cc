// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Google Benchmark's main, with two options more:
//   --threads=3,4   besides 1 and all threads
//   --full          large sizes

#include <support/bench.h>

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include <magpie/config.h>
#include <magpie/topology.h>

namespace bench {
namespace {

bool any_failed = false;

rusage own_usage() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

long switches_so_far() {
  const rusage usage = own_usage();
  return usage.ru_nvcsw + usage.ru_nivcsw;
}

// ru_maxrss would begin with what the process had that started this one.
double peak_megabytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  }
  return static_cast<double>(own_usage().ru_maxrss) / 1024;
}

bool add_threads(std::string_view list, std::vector<std::size_t>& threads) {
  while (!list.empty()) {
    const std::string_view number = list.substr(0, list.find(','));
    std::size_t n = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), n);
    if (error != std::errc() || end != number.data() + number.size() || n < 1 || n > 4096)
      return false;
    threads.push_back(n);
    list.remove_prefix(std::min(number.size() + 1, list.size()));
  }
  return true;
}

}  // namespace

void add(const std::string& workload, const std::string& side, std::size_t threads, Body body) {
  const std::string name = workload + "/" + side + "/threads:" + std::to_string(threads);
  benchmark::RegisterBenchmark(name.c_str(),
                               [body = std::move(body)](benchmark::State& state) {
                                 try {
                                   body(state);
                                 } catch (const std::exception& error) {
                                   fail(state, error.what());
                                 }
                               })
      ->MeasureProcessCPUTime()
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

Usage::Usage() : switches_(switches_so_far()) {}

void Usage::report(benchmark::State& state) const {
  state.counters["switches"] = benchmark::Counter(
      static_cast<double>(switches_so_far() - switches_), benchmark::Counter::kAvgIterations);
  state.counters["peak_mb"] = peak_megabytes();
}

void fail(benchmark::State& state, const std::string& what_is_wrong) {
  any_failed = true;
  state.SkipWithError(what_is_wrong.c_str());
}

}  // namespace bench

int main(int argc, char** argv) {
  bench::Options options{.threads = {1, magpie::available_parallelism()}};
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    constexpr std::string_view kThreads = "--threads=";
    if (argument == "--full") {
      options.full = true;
    } else if (argument.starts_with(kThreads)) {
      if (!bench::add_threads(argument.substr(kThreads.size()), options.threads)) {
        std::fprintf(stderr, "%s: numbers from 1 to 4096 are needed, as in --threads=3,4\n",
                     argv[i]);
        return 2;
      }
    } else {
      argv[kept++] = argv[i];
    }
  }
  std::sort(options.threads.begin(), options.threads.end());
  options.threads.erase(std::unique(options.threads.begin(), options.threads.end()),
                        options.threads.end());

  benchmark::AddCustomContext("compiler",
#if defined(__clang__)
                              __VERSION__
#else
                              "GCC " __VERSION__
#endif
  );
  benchmark::AddCustomContext("magpie_version", MAGPIE_VERSION);
  benchmark::Initialize(&kept, argv);
  if (benchmark::ReportUnrecognizedArguments(kept, argv)) return 2;
  bench::register_benchmarks(options);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return bench::any_failed ? 1 : 0;
}
