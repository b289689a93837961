// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 86400

// Random programs over the combinators, and a second opinion: an oracle that computes from the text
// of the program alone, one child after the other and without any executor, what its outcome must
// be and at which instant. Each program runs on the simulated executor, in several orders, and some
// on workers in virtual time.
//
// The pauses are random to the nanosecond, so that hardly ever two things happen at one instant,
// and what answers a cancellation with a value or an error takes its time: the outcome is then the
// same in every order. SEED= replays the run from that program on; MAGPIE_SOAK_MINUTES makes it
// last.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include <support/scale.h>
#include <support/soak.h>

#include "oracle_programs.h"
#include "script_programs.h"

namespace magpie {
namespace {

using namespace std::chrono_literals;
using namespace test;

// --- the comparison ---

bool same(const Fate& a, const Fate& b) {
  return a.text == b.text && a.end == b.end;
}

/// Runs it; if the oracle disagrees, it says so, with the smallest program about which it does.
bool agrees(Program program, std::uint64_t seed, const char* where,
            const std::function<Fate(const Program&)>& run) {
  if (same(run(program), program.expected)) return true;
  for (bool shrunk = true; shrunk;) {
    shrunk = false;
    for (Node& node : smaller(program.root)) {
      if (!is_definite(node)) continue;
      Program candidate(std::move(node), program.cancel);
      if (same(run(candidate), candidate.expected)) continue;
      program = std::move(candidate);
      shrunk = true;
      break;
    }
  }
  const Fate seen = run(program);
  ADD_FAILURE() << where << ", SEED=" << seed << ": " << seen.text << " at " << seen.end
                << ", but the oracle says " << program.expected.text << " at "
                << program.expected.end << "\n"
                << "cancelled at " << (program.cancel == kNever ? -1 : program.cancel) << ": "
                << program.root;
  return false;
}

TEST(Oracle, RandomProgramsEndAsASequentialEvaluatorSays) {
  std::uint64_t seed = test::seed_or(1);
  std::cout << "programs from seed " << seed << "\n";
  std::atomic<std::uint64_t> programs{0};
  std::atomic<std::uint64_t> now{seed};
  const test::Watchdog watchdog(
      programs, seed, [&now](std::ostream& out) { out << "at SEED=" << now.load() << "\n"; });
  const auto end =
      std::chrono::steady_clock::now() + test::soak_time(test::kScale == 1 ? 2s : 2500ms);
  std::size_t fates[5] = {};
  for (; std::chrono::steady_clock::now() < end; ++seed) {
    now = seed;
    const Program program(seed);
    ++fates[std::string("veTcG").find(program.expected.text[0])];
    for (std::uint64_t order = 1; order <= 3; ++order) {
      if (!agrees(program, seed, "simulated",
                  [order](const Program& p) { return simulate(p, order); }))
        return;
    }
    if (seed % 8 == 0 && !agrees(program, seed, "on workers", work)) return;
    programs.fetch_add(1);
  }
  std::cout << programs.load() << " programs; values, errors, timeouts, cancellations, groups:";
  for (const std::size_t n : fates) std::cout << " " << n;
  std::cout << "\n";
}

// --- the primitives ---

std::string lines_of(const Story& story) {
  std::string text;
  for (const std::string& line : story) text += "  " + line + "\n";
  return text;
}

/// As above, for a script.
bool agrees(Script script, std::uint64_t seed, const char* where,
            const std::function<Story(const Script&)>& run) {
  if (run(script) == ScriptOracle(script).tell()) return true;
  for (bool shrunk = true; shrunk;) {
    shrunk = false;
    for (Script& candidate : smaller(script)) {
      if (run(candidate) == ScriptOracle(candidate).tell()) continue;
      script = std::move(candidate);
      shrunk = true;
      break;
    }
  }
  ADD_FAILURE() << where << ", SEED=" << seed << ":\n"
                << lines_of(run(script)) << "but the oracle says\n"
                << lines_of(ScriptOracle(script).tell()) << "of\n"
                << script;
  return false;
}

TEST(Oracle, RandomScriptsOfPrimitivesEndAsASequentialEvaluatorSays) {
  std::uint64_t seed = test::seed_or(1);
  std::cout << "scripts from seed " << seed << "\n";
  std::atomic<std::uint64_t> scripts{0};
  std::atomic<std::uint64_t> now{seed};
  const test::Watchdog watchdog(
      scripts, seed, [&now](std::ostream& out) { out << "at SEED=" << now.load() << "\n"; });
  // A short run takes the same scripts on every machine, as far as it comes.
  const auto time = test::soak_time(1500ms);
  const std::uint64_t last = time >= 1min ? ~std::uint64_t{0} : seed + 10'000;
  const auto end = std::chrono::steady_clock::now() + time;
  std::map<char, std::uint64_t> ends;
  for (; seed < last && std::chrono::steady_clock::now() < end; ++seed) {
    now = seed;
    ScriptAuthor<Random> author{Random(seed)};
    const Script script = author.script();
    for (const std::string& line : ScriptOracle(script).tell()) {
      std::istringstream words(line);
      for (std::string word; words >> word;) {
        if (word.find('@') != std::string::npos) ++ends[word[0]];
      }
    }
    for (std::uint64_t order = 1; order <= 3; ++order) {
      if (!agrees(script, seed, "simulated",
                  [order](const Script& s) { return simulate_script(s, order); }))
        return;
    }
    if (seed % 8 == 0 &&
        !agrees(script, seed, "on workers", [](const Script& s) { return work_script(s); }))
      return;
    scripts.fetch_add(1);
  }
  std::cout << scripts.load() << " scripts; operations by what they ended with:";
  for (const auto& [text, count] : ends) std::cout << " " << text << " " << count;
  std::cout << "\n";
}

}  // namespace
}  // namespace magpie
