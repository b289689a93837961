// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the programs of the tour share: they run in virtual time, so that ten seconds of sleep end
// at once, or with --real on the wall clock; and they print lines that begin with the seconds since
// the start.
//
// Not a part of the library: a program of your own is `int main() { magpie::run(program()); }`.
// Threads: print from any thread. The programs print in an order that time decides, never the
// scheduler.

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

#include <magpie/magpie.h>

namespace tour {

using Seconds = std::chrono::duration<double>;

inline magpie::Clock* clock = &magpie::system_steady_clock();
inline magpie::Deadline start;

/// printf, behind the elapsed time and with a line break.
[[gnu::format(printf, 1, 2)]] inline void print(const char* format, ...) {
  char text[500];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const Seconds elapsed = clock->now() - start;
  std::printf("[%4.1fs] %s\n", elapsed.count(), text);  // one call: lines of two threads do not mix
}

/// The sentence of an error.
inline std::string what(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (const magpie::CancelledError& e) {
    return e.reason().message;
  }
}

/// Cancels the program wherever it can be. Only there where the tests of the tour are built
/// (tests/examples/cancel_everywhere.cc).
[[gnu::weak]] int cancel_everywhere(magpie::Task<void> (*program)());

inline int run(int argc, char** argv, magpie::Task<void> (*program)()) {
  const std::string_view option = argc == 2 ? argv[1] : "";
  if (cancel_everywhere != nullptr && option == "--cancel-everywhere")
    return cancel_everywhere(program);
  const bool real = option == "--real";
  if (argc > 1 && !real) {
    std::fprintf(stderr,
                 "usage: %s [--real]\n  --real: wait for real, instead of in virtual time\n",
                 argv[0]);
    return 2;
  }
  magpie::ManualClock virtual_time;
  if (!real) clock = &virtual_time;
  start = clock->now();
  // Four workers on any machine, to show that the output does not depend on them; MAGPIE_THREADS
  // sets another number.
  const std::size_t threads = std::getenv("MAGPIE_THREADS") != nullptr ? 0 : 4;
  try {
    magpie::WorkStealingExecutor executor({.threads = threads, .clock = clock});
    executor.run(program());
    return 0;
  } catch (...) {
    std::fprintf(stderr, "%s: %s\n", argv[0], what(std::current_exception()).c_str());
    return 1;
  }
}

}  // namespace tour
