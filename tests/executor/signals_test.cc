// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// on_signal: what api.md, section 5, says of it. What ends a process is tried in a child process.

#include <magpie/signals.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/sleep.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/machine.h>
#include <support/start_anew.h>

namespace magpie {
namespace {

using namespace test;

bool is_default(int number) {
  struct sigaction action{};
  return ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_DFL;
}

TEST(OnSignal, FirstOfTheSignalsCancels) {
  CancellationToken token = on_signal({SIGUSR1, SIGUSR2});
  EXPECT_FALSE(token.cancelled());
  EXPECT_TRUE(token.can_be_cancelled());
  ::raise(SIGUSR2);
  EXPECT_TRUE(eventually([&] { return token.cancelled(); }));
  try {
    token.throw_if_cancelled();
    ADD_FAILURE();
  } catch (const CancelledError& e) {
    EXPECT_EQ(e.reason().message, "SIGUSR2");
    EXPECT_EQ(e.reason().kind, CancelKind::requested);
  }
  // A second one, whichever of them it is, would have its default effect.
  EXPECT_TRUE(is_default(SIGUSR2));
  EXPECT_TRUE(is_default(SIGUSR1));
}

TEST(OnSignal, OthersThatStillWaitKeepTheirSignals) {
  CancellationToken both = on_signal({SIGUSR1, SIGUSR2});
  CancellationToken second = on_signal({SIGUSR2});
  ::raise(SIGUSR1);
  EXPECT_TRUE(eventually([&] { return both.cancelled(); }));
  EXPECT_FALSE(second.cancelled());
  EXPECT_FALSE(is_default(SIGUSR2));
  ::raise(SIGUSR2);
  EXPECT_TRUE(eventually([&] { return second.cancelled(); }));
  EXPECT_TRUE(is_default(SIGUSR2));
}

TEST(OnSignal, OneSignalCancelsAllWhoWaitForIt) {
  CancellationToken a = on_signal({SIGUSR1});
  CancellationToken b = on_signal({SIGUSR1});
  ::raise(SIGUSR1);
  EXPECT_TRUE(eventually([&] { return a.cancelled() && b.cancelled(); }));
}

TEST(OnSignal, AskedForAgainItHasAFreshFirstTime) {
  for (int i = 0; i < 3; ++i) {
    CancellationToken token = on_signal({SIGUSR1});
    EXPECT_FALSE(token.cancelled());
    ::raise(SIGUSR1);
    EXPECT_TRUE(eventually([&] { return token.cancelled(); }));
  }
}

// The thread that tells is held up: the first signal has come, and nobody has been told, when
// another one asks for the next.
TEST(OnSignal, WhoAsksAfterASignalWaitsForTheNext) {
  std::atomic<bool> held{false};
  std::atomic<bool> go_on{false};
  CancellationToken holder = on_signal({SIGUSR1});
  CancellationCallback callback(holder, [&] {
    held = true;
    while (!go_on) std::this_thread::yield();
  });
  ::raise(SIGUSR1);
  EXPECT_TRUE(eventually([&] { return held.load(); }));

  CancellationToken first = on_signal({SIGUSR2});
  ::raise(SIGUSR2);
  CancellationToken second = on_signal({SIGUSR2});
  CancellationToken later = on_signal({SIGUSR1});
  ::raise(SIGUSR1);
  go_on = true;
  EXPECT_TRUE(eventually([&] { return later.cancelled(); }));  // told after those before
  EXPECT_TRUE(first.cancelled());
  EXPECT_FALSE(second.cancelled());
  EXPECT_FALSE(is_default(SIGUSR2));
  ::raise(SIGUSR2);
  EXPECT_TRUE(eventually([&] { return second.cancelled(); }));
  EXPECT_TRUE(eventually([&] { return is_default(SIGUSR2); }));
}

TEST(OnSignal, EndsATask) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> sleeping{false};
  auto service = [&]() -> Task<> {
    sleeping = true;
    co_await sleep_for(1h);
  };
  auto body = [&]() -> Task<bool> {
    Result<void> r = co_await as_result(with_token(on_signal({SIGUSR1}), service()));
    co_return r.is_cancelled();
  };
  JoinHandle<bool> handle = executor.spawn(body());
  EXPECT_TRUE(eventually([&] { return sleeping.load(); }));
  ::kill(::getpid(), SIGUSR1);
  EXPECT_TRUE(handle.wait().value());
}

TEST(OnSignal, CallbacksRunOnAThreadNotInTheHandler) {
  CancellationToken token = on_signal({SIGUSR1});
  std::atomic<bool> called{false};
  std::thread::id where;
  CancellationCallback callback(token, [&] {
    where = std::this_thread::get_id();
    called = true;
  });
  ::raise(SIGUSR1);
  EXPECT_TRUE(eventually([&] { return called.load(); }));
  EXPECT_NE(where, std::this_thread::get_id());
}

TEST(OnSignal, WrongSignals) {
  EXPECT_THROW((void)on_signal({}), std::invalid_argument);
  EXPECT_THROW((void)on_signal(std::vector<int>{}), std::invalid_argument);
  EXPECT_THROW((void)on_signal({-1}), std::invalid_argument);
  EXPECT_THROW((void)on_signal({1000}), std::invalid_argument);
  EXPECT_TRUE(is_default(SIGWINCH));
  EXPECT_THROW((void)on_signal({SIGWINCH, SIGKILL}), std::system_error);
  EXPECT_TRUE(is_default(SIGWINCH));  // the call that failed has left nothing behind
}

#if !defined(MAGPIE_TSAN)  // which does not follow a fork of a program with threads
TEST(OnSignal, SecondSignalOfTheSetEndsTheProcess) {
  if (!test::can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  for (const int second : {SIGTERM, SIGINT}) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      // Another process image: this one's signal thread stayed with the parent.
      const char* const name = second == SIGTERM ? "15" : "2";
      ::execl("/proc/self/exe", "signals_child", "--gtest_filter=SignalsChild.*",
              "--gtest_also_run_disabled_tests", name, static_cast<char*>(nullptr));
      std::_Exit(99);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
    EXPECT_EQ(WTERMSIG(status), second);
  }
}

TEST(OnSignal, AChildThatWasForkedTakesItsSignalsItself) {
  CancellationToken token = on_signal({SIGUSR1});
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    for (;;) ::pause();
  }
  ::kill(child, SIGUSR1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1) << status;
  // The signals' thread serves in turn: were there one of the child's, it came before this one.
  CancellationToken later = on_signal({SIGUSR2});
  ::raise(SIGUSR2);
  EXPECT_TRUE(eventually([&] { return later.cancelled(); }));
  EXPECT_FALSE(token.cancelled());
  ::raise(SIGUSR1);
  EXPECT_TRUE(eventually([&] { return token.cancelled(); }));
}

// Not a test of its own: what the process above does.
TEST(SignalsChild, DISABLED_RaisesTwo) {
  const auto arguments = testing::internal::GetArgvs();
  const int second = std::atoi(arguments.back().c_str());
  CancellationToken token = on_signal({SIGINT, SIGTERM});
  ::raise(SIGINT);
  if (!eventually([&] { return token.cancelled(); })) std::_Exit(98);
  ::raise(second);
  std::this_thread::sleep_for(std::chrono::seconds(100));
  std::_Exit(97);
}
#endif

}  // namespace
}  // namespace magpie
