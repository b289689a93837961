// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (the system around the executor, hardly a coroutine)

// Faults that the process and the machine make: threads that cannot be had, memory for the executor
// itself, membarrier refused, workers that stand still, interrupted system calls, clocks that jump,
// fork, small stacks, executors with static lifetime; and thousands of executors that start, work,
// change size and stop.

#include <support/counting_new.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/atomic.h>
#include <magpie/magpie.h>

#include <support/foreign.h>
#include <support/machine.h>
#include <support/next_symbol.h>
#include <support/scale.h>
#include <support/start_anew.h>

namespace {
std::atomic<long> threads_until_refusal{-1};
}

// Takes the place of libc's: the n-th thread cannot be made. A sanitizer's own goes in between,
// under another name.
extern "C" {
using PthreadCreate = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
[[gnu::weak]] PthreadCreate __interceptor_pthread_create;
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) {
  if (threads_until_refusal.load() >= 0 && threads_until_refusal.fetch_sub(1) == 0) return EAGAIN;
  static PthreadCreate* const real =
      __interceptor_pthread_create != nullptr
          ? &__interceptor_pthread_create
          : magpie::test::next_symbol<PthreadCreate>("pthread_create");
  return real(thread, attributes, start, argument);
}
}

namespace magpie::test {
namespace {

std::size_t threads_of_this_process() {
  static const bool warm = (std::thread([] {}).join(), true);  // a sanitizer has its own
  static_cast<void>(warm);
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ++n;
  return n;
}

std::vector<pid_t> threads_named(const std::string& prefix) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(entry.path() / "comm");
    std::string name;
    if (std::getline(file, name) && name.starts_with(prefix))
      found.push_back(std::stoi(entry.path().filename().string()));
  }
  return found;
}

Task<long> tree(int depth) {
  if (depth == 0) {
    co_await this_task::yield();
    co_return 1;
  }
  auto [a, b] = co_await gather(tree(depth - 1), tree(depth - 1));
  co_return a + b;
}

/// A little of everything that needs threads: workers, timers, the pool for blocking calls.
Task<long> errand() {
  auto call = [] { return 1L; };
  auto blocking = to_thread(call);
  auto [leaves, called, slept] = co_await gather(tree(4), std::move(blocking), sleep_for(10us));
  co_await timeout(sleep_for(10us), 1h);
  co_return leaves + called;
}

// --- threads and memory --------------------------------------------------------------------------

TEST(Threads, MayBeRefusedAtEveryOne) {
  const std::size_t before = threads_of_this_process();  // or more, if some are about to end
  bool refused = true;
  std::size_t failures = 0;
  for (long k = 0; refused; ++k) {
    ASSERT_LT(k, 50);
    threads_until_refusal = k;
    try {
      WorkStealingExecutor executor({.threads = 4});
      EXPECT_EQ(executor.run(errand()), 17);
    } catch (const std::system_error& e) {
      EXPECT_EQ(e.code(), std::errc::resource_unavailable_try_again);
      ++failures;
    }
    refused = threads_until_refusal.exchange(-1) < 0;
    EXPECT_TRUE(eventually([&] { return threads_of_this_process() <= before; })) << k;
  }
  EXPECT_GE(failures,
            4u);  // without a worker there is no executor; without the timers' thread there is
}

TEST(Threads, RefusedToAGrowingExecutorLeaveItAsItWas) {
  WorkStealingExecutor executor({.threads = 2});
  for (long k = 0; k < 4; ++k) {
    threads_until_refusal = k;
    EXPECT_THROW(executor.resize(6), std::system_error);
    EXPECT_EQ(executor.thread_count(), 2u);
    EXPECT_EQ(executor.run(tree(6)), 64);
  }
  threads_until_refusal = -1;
  executor.resize(6);
  EXPECT_EQ(executor.thread_count(), 6u);
  EXPECT_EQ(executor.run(errand()), 17);
}

TEST(Threads, RefusedToTheTimersADrainEndsAllTheSame) {
  Event never;
  WorkStealingExecutor executor({.threads = 2});
  auto body = [&]() -> Task<> { co_await never.wait(); };
  JoinHandle<void> waits = executor.spawn(body());
  threads_until_refusal = 0;
  const ShutdownReport report = executor.shutdown(20ms);
  threads_until_refusal = -1;
  EXPECT_EQ(report.cancelled, 1u);
  EXPECT_TRUE(waits.cancelled());
}

// The k-th allocation on any thread, workers included: an executor comes about or it does not, and
// what it runs ends.
TEST(Memory, MayBeRefusedToTheExecutorAtEveryAllocation) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "operator new is the sanitizer's own";
#endif
  std::size_t failures = 0;
  for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
    bool reached = true;
    for (std::size_t k = 0; reached && k < 2000; ++k) {
      fail_allocation_after(k);
      try {
        WorkStealingExecutor executor({.threads = threads});
        JoinHandle<long> handle =
            executor.spawn(errand(), "a name that is too long for any small buffer");
        executor.post([] {});
        EXPECT_EQ(executor.run(errand()), 17);
        executor.resize(threads + 1);
        EXPECT_EQ(handle.wait().value_or(17), 17);
        executor.shutdown(1s);
      } catch (const std::bad_alloc&) {
        ++failures;
      }
      reached = allocations() >= failing_allocation.exchange(0);
    }
    EXPECT_FALSE(reached);
  }
  EXPECT_GT(failures, 10u);
}

// --- the kernel ----------------------------------------------------------------------------------

void refuse_membarrier() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::_Exit(77);
  }
}

long load(std::size_t threads, int times) {
  WorkStealingExecutor executor({.threads = threads});
  long leaves = 0;
  for (int i = 0; i < times; ++i) leaves += executor.run(tree(8)) + executor.run(errand()) - 17;
  return leaves;
}

TEST(Memory, MayBeRefusedToAllWhenASignalComes) {
  const CancellationToken first = on_signal({SIGUSR1, SIGUSR2});
  const CancellationToken second = on_signal({SIGUSR2});
  test::fail_allocations_after(0);
  raise(SIGUSR2);
  const bool heard = eventually([&] { return first.cancelled() && second.cancelled(); });
  test::failing_from.store(0);
  EXPECT_TRUE(heard);
}

TEST(MembarrierDeathTest, RefusedFromTheStartFencesDoInstead) {
  if (!can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  if (prctl(PR_GET_SECCOMP) < 0) GTEST_SKIP() << "the kernel has no seccomp";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        refuse_membarrier();
        const bool right = load(4, 20) == 20 * 256;
        std::_Exit(right && !detail::Kernel::register_membarrier() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(MembarrierDeathTest, RefusedLaterTheProgramEndsWithASentence) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "not in use";
#endif
  if (!can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  if (!detail::Kernel::register_membarrier()) GTEST_SKIP() << "the kernel has none";
  EXPECT_DEATH(
      {
        load(2, 1);
        refuse_membarrier();
        detail::Kernel::membarrier();
      },
      "membarrier");
}

std::atomic<int> interruptions{0};

std::atomic<long> pause_ns{50'000'000};

void stand_still(int) {
  const int saved = errno;
  const long ns = pause_ns.load();
  const timespec pause{ns / 1'000'000'000, ns % 1'000'000'000};
  nanosleep(&pause, nullptr);
  interruptions.fetch_add(1);
  errno = saved;
}

void interrupt(int) {
  interruptions.fetch_add(1);
}

void on_signal_call(int signal, void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;  // without SA_RESTART
  ASSERT_EQ(sigaction(signal, &action, nullptr), 0);
}

// As the kernel may do by itself, wherever they are: each of the workers in its turn, then all at
// once.
TEST(Machine, WorkersMayStandStillForAWhile) {
  on_signal_call(SIGUSR1, stand_still);
  interruptions = 0;
  WorkStealingExecutor executor({.threads = 3, .name = "stopped"});
  std::atomic<bool> all_stopped{false};
  std::thread stopper([&] {
    // A worker has its name once it runs.
    EXPECT_TRUE(eventually([] { return threads_named("stopped-").size() >= 3; }));
    const std::vector<pid_t> workers = threads_named("stopped-");
    for (int round = 0; round < 3; ++round) {
      for (const pid_t worker : workers) {
        syscall(SYS_tgkill, getpid(), worker, SIGUSR1);
        if (round < 2) std::this_thread::sleep_for(5ms);
      }
    }
    all_stopped = true;
  });
  const auto end = std::chrono::steady_clock::now() + 250ms;
  // ThreadSanitizer keeps a signal back from a thread that sleeps: on, until they have come.
  while (std::chrono::steady_clock::now() < end || !all_stopped || interruptions.load() < 3)
    EXPECT_EQ(executor.run(errand()), 17);
  stopper.join();
}

// One of three for a whole second: what it has in hand waits, all else goes on.
TEST(Machine, OneWorkerMayStandStillForASecond) {
  on_signal_call(SIGUSR1, stand_still);
  interruptions = 0;
  pause_ns = 1'000'000'000;
  {
    WorkStealingExecutor executor({.threads = 3, .name = "stopped"});
    ASSERT_TRUE(eventually([] { return threads_named("stopped-").size() >= 3; }));
    syscall(SYS_tgkill, getpid(), threads_named("stopped-").front(), SIGUSR1);
    while (interruptions.load() == 0) EXPECT_EQ(executor.run(errand()), 17);
  }
  pause_ns = 50'000'000;
}

TEST(Machine, SystemCallsMayBeInterruptedAllTheTime) {
  on_signal_call(SIGALRM, interrupt);
  interruptions = 0;
  const itimerval storm{{0, 200}, {0, 200}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &storm, nullptr), 0);
  {
    WorkStealingExecutor executor({.threads = 3});
    const auto end = std::chrono::steady_clock::now() + 200ms;
    while (std::chrono::steady_clock::now() < end || interruptions.load() <= 10) {
      const auto before = std::chrono::steady_clock::now();
      EXPECT_EQ(executor.run(errand()), 17);
      executor.run(sleep_for(2ms));  // while nobody has work
      EXPECT_GE(std::chrono::steady_clock::now() - before, 2ms);
    }
  }
  const itimerval quiet{};
  ASSERT_EQ(setitimer(ITIMER_REAL, &quiet, nullptr), 0);
  EXPECT_GT(interruptions.load(), 10);
}

TEST(Machine, ClocksMayJump) {
  ManualClock clock;
  clock.set_auto_advance(false);
  WorkStealingExecutor executor({.threads = 2, .clock = &clock});
  std::vector<JoinHandle<>> sleepers;
  auto sleeper = [](Duration time) -> Task<> { co_await sleep_for(time); };
  for (const Duration time :
       {Duration(1ns), Duration(1ms), Duration(24h), Duration(24h * 365 * 100)}) {
    sleepers.push_back(executor.spawn(sleeper(time)));
  }
  JoinHandle<> forever = executor.spawn(sleeper(Duration(std::chrono::nanoseconds::max())));
  JoinHandle<> bounded =
      executor.spawn(timeout(sleep_for(std::chrono::nanoseconds::max()), 24h * 365));
  // Each sleep has its timer, those without end as well, and the timeout has one.
  ASSERT_TRUE(eventually([&] { return executor.stats().pending_timers == 7; }));
  clock.advance(24h * 365 * 100);  // a laptop that was shut for a century
  for (JoinHandle<>& handle : sleepers) EXPECT_TRUE(handle.wait().has_value());
  EXPECT_TRUE(bounded.wait().is_timeout());
  EXPECT_FALSE(forever.done());
  clock.advance(0ns);
  clock.advance(Duration(-1h));
  EXPECT_FALSE(forever.done());
  forever.cancel();
  EXPECT_TRUE(forever.wait().is_cancelled());
}

// --- processes -----------------------------------------------------------------------------------

int exit_code_of(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The child has none of the workers: it must leave the executor alone, and end by exec or _exit.
TEST(Fork, ChildrenThatExecOrExitAtOnceHarmNobody) {
  WorkStealingExecutor executor({.threads = 3});
  std::atomic<bool> stop{false};
  auto busy = [&stop]() -> Task<long> {
    long sum = 0;
    while (!stop.load()) sum += co_await errand();
    co_return sum;
  };
  JoinHandle<long> handle = executor.spawn(busy());
  for (int i = 0; i < 6; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (i % 2 == 0) _exit(7);
      execl("/bin/sh", "sh", "-c", "exit 7", nullptr);
      _exit(1);
    }
    EXPECT_EQ(exit_code_of(child), 7);
  }
  stop = true;
  const Result<long>& ended = handle.wait();
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended.value() % 17, 0);
  EXPECT_EQ(executor.run(errand()), 17);
}

TEST(FreshProcess, WorksOnSmallStacks) {
  if (std::getenv("MAGPIE_TEST_SMALL_STACK") != nullptr) {  // here we are in it
    EXPECT_EQ(load(4, 5), 5 * 256);
    return;
  }
  if (kScale != 1) GTEST_SKIP() << "sanitizers need larger ones";
  if (!can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command =
      "ulimit -s 256 && MAGPIE_TEST_SMALL_STACK=1 exec '" + self +
      "' --gtest_brief=1 --gtest_filter=FreshProcess.WorksOnSmallStacks >/dev/null";
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// The whole process, by SIGSTOP, as job control does it.
TEST(FreshProcess, MayBeStoppedForASecond) {
  const char* const ready = std::getenv("MAGPIE_TEST_STOPPED");
  if (ready != nullptr) {  // here we are in it
    WorkStealingExecutor executor({.threads = 3});
    EXPECT_EQ(executor.run(errand()), 17);
    std::ofstream(ready) << "at work\n";
    // The steady clock goes on while it stands still, so all this takes longer than it is stopped.
    const auto end = std::chrono::steady_clock::now() + 1500ms;
    while (std::chrono::steady_clock::now() < end) {
      EXPECT_EQ(executor.run(errand()), 17);
      EXPECT_TRUE(executor.run(as_result(timeout(sleep_for(1h), 1ms))).is_timeout());
    }
    return;
  }
  if (!can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  const std::string mark =
      (std::filesystem::temp_directory_path() / ("magpie-stopped-" + std::to_string(getpid())))
          .string();
  setenv("MAGPIE_TEST_STOPPED", mark.c_str(), 1);
  const pid_t child = fork();
  if (child != 0) unsetenv("MAGPIE_TEST_STOPPED");
  ASSERT_GE(child, 0);
  if (child == 0) {
    execl("/proc/self/exe", "fault_process_test", "--gtest_brief=1",
          "--gtest_filter=FreshProcess.MayBeStoppedForASecond", nullptr);
    _exit(1);
  }
  const bool at_work = eventually([&] { return std::filesystem::exists(mark); });
  EXPECT_EQ(kill(child, SIGSTOP), 0);
  std::this_thread::sleep_for(1s);
  EXPECT_EQ(kill(child, SIGCONT), 0);
  EXPECT_EQ(exit_code_of(child), 0);
  EXPECT_TRUE(at_work);
  std::filesystem::remove(mark);
}

TEST(FreshProcessDeathTest, AStaticExecutorEndsAtExitWithWorkInProgress) {
  if (!can_start_anew()) GTEST_SKIP() << "this program cannot start itself anew";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        static WorkStealingExecutor executor({.threads = 2});
        executor.spawn(sleep_for(24h));
        auto cleans = []() -> Task<> {
          co_await as_result(sleep_for(24h));
          auto bounded = uncancellable(sleep_for(1ms));
          co_await std::move(bounded);
        };
        executor.spawn(cleans());
        if (executor.run(errand()) != 17) std::_Exit(1);
        std::exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

// --- lives ---------------------------------------------------------------------------------------

TEST(Lives, ThousandsOfStartLoadResizeStop) {
  const std::size_t before = threads_of_this_process();  // or more, if some are about to end
  const std::size_t cycles = scaled(2000);
  for (std::size_t i = 0; i < cycles; ++i) {
    WorkStealingExecutor executor({.threads = 1 + i % 4});
    std::vector<JoinHandle<long>> handles;
    for (int n = 0; n < 4; ++n) handles.push_back(executor.spawn(tree(n)));
    handles.push_back(executor.spawn(errand()));
    executor.spawn(sleep_for(24h));
    if (i % 2 == 0) executor.resize(1 + (i / 2) % 4);
    for (std::size_t n = 0; n < handles.size(); ++n) {
      if (i % 3 == 0) {
        const Result<long>& ended = handles[n].wait();
        EXPECT_EQ(ended.value_or(-1), n == 4 ? 17 : 1 << n);
      }
    }
    if (i % 5 == 0) executor.shutdown(Duration());
  }
  EXPECT_TRUE(eventually([&] { return threads_of_this_process() <= before; }));
  std::cout << cycles << " cycles\n";
}

}  // namespace
}  // namespace magpie::test
