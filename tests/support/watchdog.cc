// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include <gtest/gtest.h>
#include <support/watchdog.h>

#include <magpie/detail/executor_core.h>

// What the linker is told to look for, as nothing else refers to this file.
extern "C" const int magpie_test_watchdog = 1;

namespace magpie::test {
namespace {

using namespace std::chrono_literals;

// Not one that programs use.
int watchdog_signal() {
  return SIGRTMAX - 3;
}

timer_t timer;

void start_timer(std::chrono::nanoseconds after) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(after);
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(seconds.count());
  when.it_value.tv_nsec = static_cast<long>((after - seconds).count());
  timer_settime(timer, 0, &when, nullptr);
}

void time_is_over(int) {
  std::signal(watchdog_signal(), SIG_DFL);
  start_timer(10s);
  std::cerr << "\nwatchdog: this hangs: ";
  if (const auto* const test = testing::UnitTest::GetInstance()->current_test_info())
    std::cerr << test->test_suite_name() << "." << test->name();
  std::cerr << std::endl;
  detail::ExecutorAccess::show_all(std::cerr);
  std::abort();
}

class Watchdog : public testing::EmptyTestEventListener {
  void OnTestProgramStart(const testing::UnitTest&) override {
    const char* const limit = std::getenv("MAGPIE_TEST_TIMEOUT");
    if (limit == nullptr || std::getenv("MAGPIE_SOAK_MINUTES") != nullptr ||
        std::getenv("MAGPIE_SOAK_OPERATIONS") != nullptr) {
      return;
    }
    const long seconds = std::strtol(limit, nullptr, 10);
    if (seconds > 30) set_watchdog(std::chrono::seconds(seconds - 30));
  }
};

[[maybe_unused]] const bool listening = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new Watchdog);
  return true;
}();

}  // namespace

void set_watchdog(std::chrono::nanoseconds after) {
  static const bool made = [] {
    struct sigaction action{};
    action.sa_handler = time_is_over;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_NODEFER;  // for the second one
    sigaction(watchdog_signal(), &action, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = watchdog_signal();
    return timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
  }();
  if (made) start_timer(after);
}

}  // namespace magpie::test
