// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-all-optimisations
// ctest-optimised-only

// A fork that nobody steals costs no locked instruction: reads this program's own disassembly and
// looks at the code that gather of two tasks, and fork_join of two functions, run for every fork.
// Cold parts, which lie in functions of their own, may lock.
//
// How often the end of a cancelled task throws is counted. What the other paths execute:
// cost_test.cc.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/config.h>
#include <magpie/gather.h>
#include <magpie/parallel.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>
#include <support/next_symbol.h>

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

#if defined(__aarch64__)
const std::string objdump = "aarch64-linux-gnu-objdump";
// What is read and written in one step, by itself or by a function that finds out what the machine
// has; a barrier; and a load that waits for the stores with release before it.
bool is_locked(const std::string& instruction) {
  for (const char* part : {"\tldx", "\tldax", "\tstx", "\tstlx", "\tcas", "\tswp", "\tldadd",
                           "\tldset", "\tldclr", "\tldeor", "\tstadd", "\tstset", "\tstclr",
                           "__aarch64_", "\tdmb", "\tdsb", "\tldap", "\tldar"}) {
    if (contains(instruction, part)) return true;
  }
  return false;
}
#else
const std::string objdump = "objdump";
// An exchange with memory locks without saying so.
bool is_locked(const std::string& instruction) {
  return contains(instruction, "\tlock ") || contains(instruction, "\tmfence") ||
         (contains(instruction, "\txchg ") && contains(instruction, "("));
}
#endif

std::vector<Function> functions_of_this_program() {
  std::vector<Function> functions;
  // By its name: /proc/self would be objdump, or what emulates this processor.
  const std::string command = objdump + " --disassemble --demangle --no-show-raw-insn '" +
                              std::filesystem::read_symlink("/proc/self/exe").string() +
                              "' 2>/dev/null";
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
       {"hot_path::forked(", "hot_path::forked[", "detail::resume_here(", "detail::advance(",
        "detail::child_ended(", "detail::start_fork(", "detail::start_child(",
        "detail::pop_sibling(", "detail::allocate_frame(", "detail::free_frame(",
        "detail::thread_state("}) {
    if (contains(name, part)) return true;
  }
  return contains(name, "detail::GatherBase<") && contains(name, "::await_suspend<");
}

class HotPath : public testing::Test {
 protected:
  void SetUp() override {
#if (!defined(__x86_64__) && !defined(__aarch64__)) || !defined(__OPTIMIZE__) || \
    !defined(NDEBUG) || defined(MAGPIE_TSAN) || defined(MAGPIE_ASAN)
    GTEST_SKIP() << "says something about optimised x86-64 and AArch64 code only";
#endif
    if (std::system((objdump + " --version >/dev/null 2>&1").c_str()) != 0)
      GTEST_SKIP() << "needs " << objdump;
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
    // clang++ tags the name of what returns a Task.
    if ((contains(f.name, "hot_path::forked(") || contains(f.name, "hot_path::forked[")) &&
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

// What an exception costs is its throw and its catch: a cancelled task has one of each for each
// frame of the user's, and a wait that was given to gather directly has none.

#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)

Task<> sleeper() {
  co_await magpie::sleep_for(std::chrono::hours(1));
}
Task<> sleeper_below() {
  co_await sleeper();
}

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

TEST(CountedThrows, ACancelledTaskThrowsAndCatchesOnce) {
  expect_for_each(1, sleeper);
}
TEST(CountedThrows, AndOnceForEachFrameAboveIt) {
  expect_for_each(2, sleeper_below);
}
TEST(CountedThrows, AWaitThatWasGivenToGatherThrowsNothing) {
  expect_for_each(0, [] { return magpie::sleep_for(std::chrono::hours(1)); });
}

#endif

}  // namespace
}  // namespace hot_path

#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)

// The runtime's own, with a count: what this program refers to by these names is found here.
// By other names: each compiler has declarations of its own for these.
extern "C" {

void* counted_make(std::size_t size) noexcept asm("__cxa_allocate_exception");
void counted_throw(void* object, void* type, void (*destroy)(void*)) asm("__cxa_throw");
void counted_throw_again() asm("__cxa_rethrow");
void* counted_catch(void* exception) noexcept asm("__cxa_begin_catch");

void* counted_make(std::size_t size) noexcept {
  static auto* const real =
      magpie::test::next_symbol<void*(std::size_t)>("__cxa_allocate_exception");
  ++hot_path::counts.made;
  return real(size);
}
void counted_throw(void* object, void* type, void (*destroy)(void*)) {
  static auto* const real =
      magpie::test::next_symbol<void(void*, void*, void (*)(void*))>("__cxa_throw");
  ++hot_path::counts.thrown;
  real(object, type, destroy);
  std::abort();
}
void counted_throw_again() {
  static auto* const real = magpie::test::next_symbol<void()>("__cxa_rethrow");
  ++hot_path::counts.thrown_again;
  real();
  std::abort();
}
void* counted_catch(void* exception) noexcept {
  static auto* const real = magpie::test::next_symbol<void*(void*)>("__cxa_begin_catch");
  ++hot_path::counts.caught;
  return real(exception);
}

}  // extern "C"

#endif
