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

/// A test that runs once with each of several numbers of threads, and has that number. Declared by
/// TEST_ON_THREADS: gtest's TEST_P instantiates so much for each test that the compiler took a
/// tenth longer for the file.
class OnThreads : public ::testing::Test {
 public:
  using Make = OnThreads* (*)();
  static bool add(const char* suite, const char* name, const char* file, int line,
                  std::initializer_list<std::size_t> threads, Make make);

 protected:
  const std::size_t threads = next_;

 private:
  static inline std::size_t next_ = 1;
};

/// One with a machine of so many workers.
class OnMachine : public OnThreads {
 protected:
  Machine machine{threads};
  WorkStealingExecutor& executor = machine.executor;
};

#define MAGPIE_TEST_ON(fixture, name, ...)                                         \
  class fixture##_##name##_Test final : public fixture {                           \
    void TestBody() override;                                                      \
    static const bool added_;                                                      \
  };                                                                               \
  const bool fixture##_##name##_Test::added_ = ::magpie::test::OnThreads::add(     \
      #fixture, #name, __FILE__, __LINE__, __VA_ARGS__,                            \
      []() -> ::magpie::test::OnThreads* { return new fixture##_##name##_Test; }); \
  void fixture##_##name##_Test::TestBody()
/// A test of a fixture that derives from OnThreads or OnMachine: with 1, 2 and 4 threads.
#define TEST_ON_THREADS(fixture, name) MAGPIE_TEST_ON(fixture, name, {1, 2, 4})
/// The same with one.
#define TEST_ON_A_THREAD(fixture, name) MAGPIE_TEST_ON(fixture, name, {1})

Task<int> give(int value);
Task<std::string> give_text(std::string value);
Task<> nothing();

Task<int> give_after(Duration pause, int value);
Task<> nothing_after(Duration pause);

Task<int> fail(std::string what);
Task<int> fail_after(Duration pause, std::string what);

/// Ends only when it is cancelled (or after a year, so that a test fails rather than hangs).
Task<int> never();

/// Does not see a cancellation.
Task<int> stubborn(Duration pause, int value);

/// Swallows its cancellation and gives a value.
Task<int> forgiving(int value);

/// Answers its cancellation with an error, after a while.
Task<int> bitter(std::string what, Duration pause = {});

/// Ends cancelled by itself: its scope is not.
Task<int> cancel_itself(std::string why = "by itself");

/// Sets the flag once it has ended, however; sees the reason for which it was cancelled.
Task<int> watched(bool& ended, CancelKind& reason);

/// Notes that it was started.
Task<int> started(bool& flag, int value = 0);

/// what() of an exception, the message of a cancellation, or empty.
std::string what_of(const std::exception_ptr& error);

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
CancelReason reason_of(const std::exception_ptr& error);

/// The group inside an exception; it must be one.
ExceptionGroup group_of(const std::exception_ptr& error);

}  // namespace magpie::test
