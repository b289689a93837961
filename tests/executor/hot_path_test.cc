// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A fork that nobody steals costs no locked instruction: reads this program's own disassembly and
// looks at the code that gather of two tasks, and fork_join of two functions, run for every fork.
// Cold parts, which lie in functions of their own, may lock.

#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <magpie/config.h>
#include <magpie/gather.h>
#include <magpie/parallel.h>
#include <magpie/task.h>
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

}  // namespace
}  // namespace hot_path
