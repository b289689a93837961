// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor in virtual time, and the tasks that combinators are tried on: such as give a value
// after a while, fail, never end by themselves, ignore a cancellation, or answer it with an error.

#include <chrono>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/cancellation.h>
#include <magpie/clock.h>
#include <magpie/errors.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

namespace magpie::test {

using namespace std::chrono_literals;

/// A clock of its own and workers on it. run() takes the closure of a coroutine, which outlives it.
class Machine {
 public:
  explicit Machine(std::size_t threads)
      : executor({.threads = threads, .clock = &clock}), start_(clock.now()) {}

  template <class F>
  decltype(auto) run(F&& body) {
    return executor.run(body());
  }
  /// The time that has passed since the machine was made.
  std::chrono::nanoseconds elapsed() const { return clock.now() - start_; }

  ManualClock clock;
  WorkStealingExecutor executor;

 private:
  const Deadline start_;
};

/// A test that runs with 1, 2 and 4 workers: INSTANTIATE_TEST_SUITE_P(Threads, ..., test::kThreads,
/// test::threads_name).
class OnMachine : public ::testing::TestWithParam<std::size_t> {
 protected:
  Machine machine{GetParam()};
  WorkStealingExecutor& executor = machine.executor;
};
inline const auto kThreads = ::testing::Values<std::size_t>(1, 2, 4);
inline std::string threads_name(const ::testing::TestParamInfo<std::size_t>& info) {
  return std::to_string(info.param);
}

inline Task<int> give(int value) {
  co_return value;
}
inline Task<std::string> give_text(std::string value) {
  co_return value;
}
inline Task<> nothing() {
  co_return;
}

inline Task<int> give_after(Duration pause, int value) {
  co_await sleep_for(pause);
  co_return value;
}
inline Task<> nothing_after(Duration pause) {
  co_await sleep_for(pause);
}

inline Task<int> fail(std::string what) {
  throw std::runtime_error(what);
  co_return 0;
}
inline Task<int> fail_after(Duration pause, std::string what) {
  co_await sleep_for(pause);
  throw std::runtime_error(what);
}

/// Ends only when it is cancelled (or after a year, so that a test fails rather than hangs).
inline Task<int> never() {
  co_await sleep_for(24h * 365);
  co_return -1;
}

/// Does not see a cancellation.
inline Task<int> stubborn(Duration pause, int value) {
  co_await uncancellable(sleep_for(pause));
  co_return value;
}

/// Swallows its cancellation and gives a value.
inline Task<int> forgiving(int value) {
  Result<int> waited = co_await as_result(never());
  EXPECT_TRUE(waited.is_cancelled());
  co_return value;
}

/// Answers its cancellation with an error, after a while.
inline Task<int> bitter(std::string what, Duration pause = {}) {
  Result<int> waited = co_await as_result(never());
  EXPECT_TRUE(waited.is_cancelled());
  co_await uncancellable(sleep_for(pause));
  throw std::runtime_error(what);
}

/// Ends cancelled by itself: its scope is not.
inline Task<int> cancel_itself(std::string why = "by itself") {
  throw CancelledError(CancelReason{CancelKind::requested, why});
  co_return 0;
}

/// Sets the flag once it has ended, however; sees the reason for which it was cancelled.
inline Task<int> watched(bool& ended, CancelKind& reason) {
  try {
    co_await sleep_for(24h * 365);
  } catch (const CancelledError& e) {
    ended = true;
    reason = e.reason().kind;
    throw;
  }
  ended = true;
  co_return -1;
}

/// Notes that it was started.
inline Task<int> started(bool& flag, int value = 0) {
  flag = true;
  co_return value;
}

/// what() of an exception, the message of a cancellation, or empty.
inline std::string what_of(const std::exception_ptr& error) {
  if (!error) return {};
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (const CancelledError& e) {
    return e.reason().message;
  } catch (...) {
    return "?";
  }
}

/// Whether the exception is an E.
template <class E>
bool is(const std::exception_ptr& error) {
  if (!error) return false;
  try {
    std::rethrow_exception(error);
  } catch (const E&) {
    return true;
  } catch (...) {
    return false;
  }
}

/// The reason for which something was cancelled; it must have been.
inline CancelReason reason_of(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const CancelledError& e) {
    return e.reason();
  } catch (...) {
  }
  ADD_FAILURE() << "this was not cancelled: " << what_of(error);
  return {};
}

/// The group inside an exception; it must be one.
inline ExceptionGroup group_of(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const ExceptionGroup& group) {
    return group;
  } catch (...) {
  }
  ADD_FAILURE() << "this is no ExceptionGroup: " << what_of(error);
  return ExceptionGroup("none", {});
}

}  // namespace magpie::test
