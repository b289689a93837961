// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// wordcount DIR: the words of a directory tree, and the most frequent of them.

#include <unistd.h>

#include <charconv>
#include <csignal>
#include <iostream>
#include <limits>
#include <map>
#include <string>
#include <string_view>

#include <magpie/magpie.h>

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

const std::string hint = "\nTry 'wordcount --help'.";

struct Option {
  double value, least, most;
};
using Options = std::map<std::string, Option, std::less<>>;

/// Gives DIR; std::invalid_argument says what is wrong.
std::string parse(int argc, char** argv, Options& options) {
  int next = 1;
  while (next < argc && argv[next][0] == '-') {
    const std::string name = argv[next++];
    if (name == "--") break;
    const auto found = options.find(name);
    if (found == options.end())
      throw std::invalid_argument("there is no option '" + name + "'" + hint);
    auto& [value, least, most] = found->second;
    const std::string_view text = next < argc ? argv[next++] : "";
    const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
    if (error != std::errc() || end != text.end() || !(value >= least && value <= most)) {
      throw std::invalid_argument(name + " needs a number from " + std::to_string(int(least)) +
                                  " to " + std::to_string(int(most)) + ", not '" +
                                  std::string(text) + "'" + hint);
    }
  }
  if (argc - next != 1) throw std::invalid_argument("one DIR is needed" + hint);
  return argv[next];
}

std::string describe(const Progress& progress, std::string before) {
  return before + std::to_string(progress.files.load()) + " files, " +
         std::to_string(progress.bytes.load() / 1'000'000) + " MB, " +
         std::to_string(progress.words.load()) + " words";
}

Task<void> show(const Progress& progress) {
  for (;;) {
    std::cerr << describe(progress, "\r") + "\033[K";
    co_await sleep_for(std::chrono::milliseconds(100));
  }
}

Task<void> clear_line() {
  std::cerr << "\r\033[K";
  co_return;
}

Task<Summary> with_progress_line(Task<Summary> counting, const Progress& progress) {
  auto first = co_await race(std::move(counting), finally(show(progress), clear_line));
  co_return std::get<0>(std::move(first.value));  // the line never ends by itself
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
  const CancellationToken interrupt = on_signal({SIGINT});
  const CancellationToken end = on_signal({SIGTERM});
  try {
    Options options{{"--threads", {0, 0, 4096}},
                    {"--open", {32, 1, 100'000}},
                    {"--top", {20, 0, 1e9}},
                    {"--timeout", {std::numeric_limits<double>::infinity(), 0, 1e9}}};
    const auto number = [&](const char* name) {
      return static_cast<std::size_t>(options.at(name).value);
    };
    const std::string root = parse(argc, argv, options);
    WorkStealingExecutor executor({.threads = number("--threads")});
    auto counting = wordcount::count_tree(root, number("--open"), number("--top"), progress);
    if (::isatty(STDERR_FILENO) != 0) counting = with_progress_line(std::move(counting), progress);
    const std::chrono::duration<double> limit(options.at("--timeout").value);
    return print(
        executor.run(timeout(with_token(any_of(interrupt, end), std::move(counting)), limit)),
        progress);
  } catch (const TimeoutError&) {
    std::cerr << describe(progress, "wordcount: timed out after ") + "\n";
    return 124;
  } catch (const CancelledError&) {
    std::cerr << describe(progress, "wordcount: interrupted after ") + "\n";
    return interrupt.cancelled() ? 130 : 143;
  } catch (const std::exception& error) {
    std::cerr << "wordcount: " << error.what() << '\n';
    return 2;
  }
}
