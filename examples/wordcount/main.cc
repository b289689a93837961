// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// wordcount DIR: the words of a directory tree, and the most frequent of them.

#include <chrono>
#include <iostream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <magpie/magpie.h>

#include "../support/command_line.h"
#include "count_tree.h"

using namespace magpie;
using wordcount::Progress;
using wordcount::Summary;

namespace {

constexpr std::string_view usage =
    R"(usage: wordcount [--threads N] [--open N] [--timeout S] [--top N] DIR

Counts the words of every text file below DIR: how many, how many different ones, and the most frequent.
A word is a run of [A-Za-z0-9_]. A file with a NUL byte in its first 8 KiB is binary and skipped; links are not followed.

  --threads N   worker threads; 0, the default: one for each processor
  --open N      how many files are open at a time (32)
  --timeout S   give up after S seconds
  --top N       how many of the most frequent words are shown (20)

Exit status: 0; 1 if something could not be read (stderr names it, the rest is counted); 2 for a wrong command line,
a DIR that is not there, or a failure; 124 after the timeout; 130 after Ctrl-C, 143 after SIGTERM.
)";

std::string describe(const Progress& progress) {
  return std::to_string(progress.files.load()) + " files, " +
         std::to_string(progress.bytes.load() / 1'000'000) + " MB, " +
         std::to_string(progress.words.load()) + " words";
}

int print(const Summary& summary, const Progress& progress) {
  std::cout << summary.words << " words, " << summary.different << " different, in "
            << progress.files << " files (skipped: " << progress.binary << " binary, "
            << progress.unreadable << " unreadable)\n";
  for (const auto& [count, word] : summary.top) {
    std::cout.width(7);
    std::cout << count << ' ' << word << '\n';
  }
  std::cout.flush();
  if (!std::cout) throw std::runtime_error("cannot write the result");
  return progress.unreadable == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help")
    return std::cout << usage << std::flush ? 0 : 2;
  Progress progress;
  try {
    support::Options options{{"--threads", {0, 0, 4096}},
                             {"--open", {32, 1, 100'000}},
                             {"--top", {20, 0, 1e9}},
                             {"--timeout", {std::numeric_limits<double>::infinity(), 0, 1e9}}};
    const auto number = [&](const char* name) {
      return static_cast<std::size_t>(options.at(name).value);
    };
    const std::vector<std::string> arguments = support::parse_options(argc, argv, options);
    if (arguments.size() != 1) throw std::invalid_argument("one DIR is needed");
    WorkStealingExecutor executor({.threads = number("--threads")});
    return support::run_program(
        "wordcount", executor,
        wordcount::count_tree(arguments[0], number("--open"), number("--top"), progress),
        std::chrono::duration<double>(options.at("--timeout").value),
        [&] { return describe(progress); },
        [&](const Summary& summary) { return print(summary, progress); });
  } catch (const std::invalid_argument& error) {
    std::cerr << "wordcount: " << error.what() << "\nTry 'wordcount --help'.\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "wordcount: " << error.what() << '\n';
    return 2;
  }
}
