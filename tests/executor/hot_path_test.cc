// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A fork that nobody steals costs no locked instruction: reads this program's own disassembly and
// looks at the code that gather of two tasks, and fork_join of two functions, run for every fork.
// Cold parts, which lie in functions of their own, may lock.
//
// What primitives cost when nobody waits is counted: the processor stops after each instruction, and a
// signal handler looks whether the next one locks. So is how often the end of a cancelled task throws.

#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/channel.h>
#include <magpie/config.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/mutex.h>
#include <magpie/parallel.h>
#include <magpie/semaphore.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

namespace hot_path {

using magpie::Task;

Task<long> forked(int n) {
  if (n < 2) co_return n;
  auto [a, b] = co_await magpie::gather(forked(n - 1), forked(n - 2));
  co_return a + b;
}

MAGPIE_NOINLINE long shared_out(int n) {
  if (n < 2) return n;
  const auto [a, b] =
      magpie::fork_join([n] { return shared_out(n - 1); }, [n] { return shared_out(n - 2); });
  return a + b;
}

Task<long> shared_out_by_a_task(int n) {
  co_return shared_out(n);
}

// What the search has to find if it works at all.
MAGPIE_NOINLINE int locked(std::atomic<int>& counter) {
  return counter.fetch_add(1);
}

namespace {

struct Function {
  std::string name;
  std::vector<std::string> locked;  // instructions
};

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// An exchange with memory locks without saying so.
bool is_locked(const std::string& instruction) {
  return contains(instruction, "\tlock ") || contains(instruction, "\tmfence") ||
         (contains(instruction, "\txchg ") && contains(instruction, "("));
}

std::vector<Function> functions_of_this_program() {
  std::vector<Function> functions;
  // By this process's number: /proc/self would be objdump.
  const std::string command = "objdump --disassemble --demangle --no-show-raw-insn /proc/" +
                              std::to_string(getpid()) + "/exe 2>/dev/null";
  FILE* const disassembly = popen(command.c_str(), "r");
  if (disassembly == nullptr) return functions;
  std::array<char, 4096> line;
  while (std::fgets(line.data(), static_cast<int>(line.size()), disassembly) != nullptr) {
    const std::string text = line.data();
    if (const auto name = text.find(" <");
        !text.empty() && text.front() != ' ' && name != std::string::npos) {
      functions.push_back({text.substr(name + 2, text.rfind(">:") - name - 2), {}});
    } else if (!functions.empty() && is_locked(text)) {
      functions.back().locked.push_back(text);
    }
  }
  pclose(disassembly);
  return functions;
}

// By name: what is not inlined of the way of a fork, from the making of the frame to the end of the
// child.
bool is_on_the_way_of_a_fork(const std::string& name) {
  if (contains(name, ".cold")) return false;
  for (const char* part :
       {"hot_path::forked(", "detail::advance(", "detail::child_ended(", "detail::start_fork(",
        "detail::start_child(", "detail::pop_sibling(", "detail::allocate_frame(",
        "detail::free_frame(", "detail::thread_state("}) {
    if (contains(name, part)) return true;
  }
  return contains(name, "detail::GatherBase<") && contains(name, "::await_suspend<");
}

class HotPath : public testing::Test {
 protected:
  void SetUp() override {
#if !defined(__x86_64__) || !defined(__OPTIMIZE__) || !defined(NDEBUG) || defined(MAGPIE_TSAN) || \
    defined(MAGPIE_ASAN)
    GTEST_SKIP() << "says something about optimised x86-64 code only";
#endif
    if (std::system("objdump --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs objdump";
    magpie::WorkStealingExecutor executor({.threads = 1});
    ASSERT_EQ(executor.run(forked(10)), 55);  // it is linked, and it works
    ASSERT_EQ(executor.run(shared_out_by_a_task(10)), 55);
    functions_ = functions_of_this_program();
  }

  std::vector<Function> functions_;
};

TEST_F(HotPath, TheSearchFindsALockedInstruction) {
  std::atomic<int> counter{0};
  EXPECT_EQ(locked(counter), 0);
  int found = 0;
  for (const Function& f : functions_) {
    if (contains(f.name, "hot_path::locked(") && !f.locked.empty()) ++found;
  }
  EXPECT_EQ(found, 1);
}

TEST_F(HotPath, AForkThatNobodyStealsRunsNoLockedInstruction) {
  int bodies = 0;
  int looked_at = 0;
  for (const Function& f : functions_) {
    if (!is_on_the_way_of_a_fork(f.name)) continue;
    ++looked_at;
    if (contains(f.name, "hot_path::forked(") &&
        (contains(f.name, "resume") || contains(f.name, "actor")))
      ++bodies;
    for (const std::string& instruction : f.locked) ADD_FAILURE() << f.name << ":\n" << instruction;
  }
  EXPECT_EQ(bodies, 1)
      << "the coroutine's body was not found: does the compiler call it something new?";
  EXPECT_GE(looked_at, 3);
}

// The function, and whatever of fork_join was not inlined: all that has its name.
TEST_F(HotPath, AForkOfFunctionsThatNobodyStealsRunsNoLockedInstruction) {
  int found = 0;
  for (const Function& f : functions_) {
    if (!contains(f.name, "hot_path::shared_out(") || contains(f.name, ".cold")) continue;
    ++found;
    for (const std::string& instruction : f.locked) ADD_FAILURE() << f.name << ":\n" << instruction;
  }
  EXPECT_GE(found, 1);
}


// ---- counted ------------------------------------------------------------------------------------

#if defined(__x86_64__) && defined(__linux__)

std::atomic<int> steps{0};
std::atomic<int> locks_taken{0};

// A lock prefix, or an exchange with memory.
bool locks(const unsigned char* instruction) {
  for (;; ++instruction) {
    switch (*instruction) {
      case 0xf0:
        return true;
      case 0x66: case 0xf2: case 0xf3: case 0x2e: case 0x36: case 0x3e: case 0x26: case 0x64: case 0x65:
        continue;
      default:
        break;
    }
    if ((*instruction & 0xf0) == 0x40) ++instruction;  // REX
    return (*instruction == 0x86 || *instruction == 0x87) && instruction[1] >> 6 != 3;
  }
}

void after_an_instruction(int, siginfo_t*, void* context) {
  const auto next = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  steps.fetch_add(1, std::memory_order_relaxed);
  if (locks(reinterpret_cast<const unsigned char*>(next)))
    locks_taken.fetch_add(1, std::memory_order_relaxed);
}

// The trap flag; the stack pointer is moved past what a leaf function keeps below it.
MAGPIE_NOINLINE void stop_after_each_instruction() {
  asm volatile(
      "leaq -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; leaq 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}
MAGPIE_NOINLINE void stop_no_more() {
  asm volatile(
      "leaq -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; leaq 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}

// How many locked instructions the operation takes, once everything is warm. It must not suspend.
template <class Operation>
int locks_of(Operation operation) {
  struct sigaction action {};
  action.sa_sigaction = after_an_instruction;
  action.sa_flags = SA_SIGINFO;
  struct sigaction before {};
  sigaction(SIGTRAP, &action, &before);
  auto program = [&]() -> Task<> {
    for (int i = 0; i < 3; ++i) co_await operation();
    steps = 0;
    locks_taken = 0;
    auto last = operation();
    stop_after_each_instruction();
    co_await std::move(last);
    stop_no_more();
  };
  magpie::WorkStealingExecutor({.threads = 1}).run(program());
  sigaction(SIGTRAP, &before, nullptr);
  EXPECT_GT(steps.load(), 20);  // it did stop
  return locks_taken.load();
}

class CountedLocks : public testing::Test {
 protected:
  void SetUp() override {
#if !defined(__OPTIMIZE__) || !defined(NDEBUG) || defined(MAGPIE_TSAN) || defined(MAGPIE_ASAN)
    GTEST_SKIP() << "says something about optimised code only";
#endif
  }
};

TEST_F(CountedLocks, TheCountFindsALockedInstruction) {
  std::atomic<int> counter{0};
  auto twice = [&]() -> Task<> {
    locked(counter);
    locked(counter);
    co_return;
  };
  EXPECT_EQ(locks_of(twice), 2);
}

TEST_F(CountedLocks, ASemaphoreTakesTwoForAPermitAndItsReturn) {
  magpie::Semaphore semaphore(1);
  auto once = [&]() -> Task<> { const magpie::Permit permit = co_await semaphore.acquire(); };
  EXPECT_EQ(locks_of(once), 2);
}

TEST_F(CountedLocks, AMutexTakesTwoForALockAndItsRelease) {
  magpie::Mutex mutex;
  auto once = [&]() -> Task<> { const magpie::Mutex::Lock lock = co_await mutex.lock(); };
  EXPECT_EQ(locks_of(once), 2);
}

TEST_F(CountedLocks, AChannelTakesTwoForAValueSentAndReceived) {
  magpie::Channel<int> channel(4);
  int received = 0;
  auto once = [&]() -> Task<> {
    co_await channel.send(1);
    const std::optional<int> value = co_await channel.receive();
    received += value.value_or(0);
  };
  EXPECT_EQ(locks_of(once), 2);
  EXPECT_EQ(received, 4);
}

#endif


// What an exception costs is its throw and its catch: a cancelled task has one of each for each frame
// of the user's, and a wait that was given to gather directly has none.

#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)

Task<> sleeper() { co_await magpie::sleep_for(std::chrono::hours(1)); }
Task<> sleeper_below() { co_await sleeper(); }

struct Counts {
  int made = 0;
  int thrown = 0;
  int thrown_again = 0;
  int caught = 0;

  friend Counts operator-(const Counts& a, const Counts& b) {
    return {a.made - b.made, a.thrown - b.thrown, a.thrown_again - b.thrown_again,
            a.caught - b.caught};
  }
};
Counts counts;

// What it takes to cancel n of them, with all that does not depend on n.
template <class Make>
Counts cancelled(std::size_t n, Make make) {
  const Counts before = counts;
  magpie::CancellationSource source;
  auto waiting = [&]() -> Task<> {
    std::vector<decltype(make())> all;
    all.reserve(n);
    for (std::size_t i = 0; i < n; ++i) all.push_back(make());
    co_await magpie::gather(std::move(all));
  };
  auto guarded = [&]() -> Task<> {
    auto outcome = magpie::as_result(magpie::with_token(source.token(), waiting()));
    const auto result = co_await std::move(outcome);
    EXPECT_TRUE(result.is_cancelled());
  };
  auto cancel = [&]() -> Task<> {
    magpie::Executor& executor = co_await magpie::this_task::executor();
    while (executor.stats().pending_timers < n) co_await magpie::this_task::yield();
    source.cancel();
  };
  auto program = [&]() -> Task<> { co_await magpie::gather(guarded(), cancel()); };
  magpie::WorkStealingExecutor({.threads = 1}).run(program());
  return counts - before;
}

template <class Make>
void expect_for_each(int exceptions, Make make) {
  const Counts more = cancelled(300, make) - cancelled(200, make);
  EXPECT_EQ(more.made, 100 * exceptions);
  EXPECT_EQ(more.thrown, 100 * exceptions);
  EXPECT_EQ(more.thrown_again, 0);
  EXPECT_EQ(more.caught, 100 * exceptions);
}

TEST(CountedThrows, ACancelledTaskThrowsAndCatchesOnce) { expect_for_each(1, sleeper); }
TEST(CountedThrows, AndOnceForEachFrameAboveIt) { expect_for_each(2, sleeper_below); }
TEST(CountedThrows, AWaitThatWasGivenToGatherThrowsNothing) {
  expect_for_each(0, [] { return magpie::sleep_for(std::chrono::hours(1)); });
}

#endif

}  // namespace
}  // namespace hot_path

#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)

// The runtime's own, with a count: what this program refers to by these names is found here.
namespace hot_path {
namespace {
template <class Function>
Function* the_runtimes(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
}  // namespace
}  // namespace hot_path

// By other names: each compiler has declarations of its own for these.
extern "C" {

void* counted_make(std::size_t size) noexcept asm("__cxa_allocate_exception");
void counted_throw(void* object, void* type, void (*destroy)(void*)) asm("__cxa_throw");
void counted_throw_again() asm("__cxa_rethrow");
void* counted_catch(void* exception) noexcept asm("__cxa_begin_catch");

void* counted_make(std::size_t size) noexcept {
  static auto* const real = hot_path::the_runtimes<void*(std::size_t)>("__cxa_allocate_exception");
  ++hot_path::counts.made;
  return real(size);
}
void counted_throw(void* object, void* type, void (*destroy)(void*)) {
  static auto* const real =
      hot_path::the_runtimes<void(void*, void*, void (*)(void*))>("__cxa_throw");
  ++hot_path::counts.thrown;
  real(object, type, destroy);
  std::abort();
}
void counted_throw_again() {
  static auto* const real = hot_path::the_runtimes<void()>("__cxa_rethrow");
  ++hot_path::counts.thrown_again;
  real();
  std::abort();
}
void* counted_catch(void* exception) noexcept {
  static auto* const real = hot_path::the_runtimes<void*(void*)>("__cxa_begin_catch");
  ++hot_path::counts.caught;
  return real(exception);
}

}  // extern "C"

#endif
