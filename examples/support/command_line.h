// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the programs with a command line share: options that are numbers, a line of progress on a
// terminal, and how a timeout, a signal and an error end the process.

#include <unistd.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

namespace support {

struct Option {
  double value, least, most;
};
using Options = std::map<std::string, Option, std::less<>>;

/// The arguments after the options; std::invalid_argument says what is wrong.
inline std::vector<std::string> parse_options(int argc, char** argv, Options& options) {
  int next = 1;
  while (next < argc && argv[next][0] == '-') {
    const std::string name = argv[next++];
    if (name == "--") break;
    const auto found = options.find(name);
    if (found == options.end()) throw std::invalid_argument("there is no option '" + name + "'");
    auto& [value, least, most] = found->second;
    const std::string_view text = next < argc ? argv[next++] : "";
    const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
    if (error != std::errc() || end != text.end() || !(value >= least && value <= most)) {
      throw std::invalid_argument(name + " needs a number from " + std::to_string(int(least)) +
                                  " to " + std::to_string(int(most)) + ", not '" +
                                  std::string(text) + "'");
    }
  }
  return {argv + next, argv + argc};
}

using Describe = std::function<std::string()>;

inline magpie::Task<void> show(const Describe& describe) {
  for (;;) {
    std::cerr << "\r" + describe() + "\033[K";
    co_await magpie::sleep_for(std::chrono::milliseconds(100));
  }
}

inline magpie::Task<void> clear_line() {
  std::cerr << "\r\033[K";
  co_return;
}

template <class T>
magpie::Task<T> with_progress_line(magpie::Task<T> work, const Describe& describe) {
  auto first = co_await magpie::race(std::move(work), finally(show(describe), clear_line));
  co_return std::get<0>(std::move(first.value));  // the line never ends by itself
}

/// Runs `work` until it is done (its result goes to `finish`, which gives the exit status), the
/// time is up (124), SIGINT (130), SIGTERM (143) or an error (2). `name` is the program's.
template <class T, class Finish>
int run_program(const std::string& name, magpie::WorkStealingExecutor& executor,
                magpie::Task<T> work, magpie::Duration limit, const Describe& describe,
                Finish finish) {
  const magpie::CancellationToken interrupt = magpie::on_signal({SIGINT});
  const magpie::CancellationToken end = magpie::on_signal({SIGTERM});
  try {
    if (::isatty(STDERR_FILENO) != 0) work = with_progress_line(std::move(work), describe);
    return finish(
        executor.run(timeout(with_token(magpie::any_of(interrupt, end), std::move(work)), limit)));
  } catch (const magpie::TimeoutError&) {
    std::cerr << name + ": timed out after " + describe() + "\n";
    return 124;
  } catch (const magpie::CancelledError&) {
    std::cerr << name + ": interrupted after " + describe() + "\n";
    return interrupt.cancelled() ? 130 : 143;
  }
}

}  // namespace support
