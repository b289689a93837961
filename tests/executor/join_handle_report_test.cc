// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (more of what join_handle_test shows)

// JoinHandle: callbacks at the end of a task, and errors that nobody asks for.

#include <magpie/join_handle.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/event.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;

Task<int> give(int value) {
  co_return value;
}
Task<int> fail() {
  throw std::runtime_error("failed");
  co_return 0;
}
Task<> sleep_long() {
  co_await sleep_for(1h);
}

/// Holds tasks at a place.
class Gate {
 public:
  void open() { event_.set(); }
  Task<> pass() { co_await event_.wait(); }

 private:
  Event event_;
};

Task<int> give_behind(Gate& gate, int value) {
  co_await gate.pass();
  co_return value;
}

class JoinHandleTest : public testing::Test {
 protected:
  struct Report {
    std::string name;
    std::string what;
  };
  std::vector<Report> reports() {
    std::lock_guard guard(mutex_);
    return reports_;
  }

  std::mutex mutex_;
  std::vector<Report> reports_;
  std::optional<WorkStealingExecutor> slot_{
      std::in_place, ExecutorOptions{.threads = 2,
                                     .on_unobserved_error = [this](std::string_view name,
                                                                   std::exception_ptr error) {
                                       std::string what = "?";
                                       try {
                                         std::rethrow_exception(error);
                                       } catch (const std::exception& e) {
                                         what = e.what();
                                       } catch (...) {
                                       }
                                       std::lock_guard guard(mutex_);
                                       reports_.push_back({std::string(name), what});
                                     }}};
  WorkStealingExecutor& executor = *slot_;
};

TEST_F(JoinHandleTest, OnDoneIsCalledOnceWithTheResult) {
  Gate gate;
  auto handle = executor.spawn(give_behind(gate, 6));
  std::atomic<int> sum{0};
  handle.on_done([&](const Result<int>& result) { sum += result.value(); });
  auto owned = std::make_unique<int>(100);
  handle.on_done(
      [&, owned = std::move(owned)](const Result<int>& result) { sum += result.value() + *owned; });
  EXPECT_EQ(sum.load(), 0);
  gate.open();
  handle.wait();
  ASSERT_TRUE(eventually([&] { return sum.load() == 112; }));
  const auto here = std::this_thread::get_id();
  std::thread::id there;
  handle.on_done([&](const Result<int>&) { there = std::this_thread::get_id(); });  // at once
  EXPECT_EQ(there, here);
}

TEST_F(JoinHandleTest, OnDoneTakesWhatCanBeCalledJustOnce) {
  struct Once {
    std::unique_ptr<int> owned;
    std::atomic<int>* sum;
    void operator()(const Result<int>& result) && { *sum += result.value() + *owned; }
  };
  std::atomic<int> sum{0};
  const auto handle = executor.spawn(give(6));
  handle.on_done(Once{std::make_unique<int>(100), &sum});
  ASSERT_TRUE(eventually([&] { return sum.load() == 106; }));
}

TEST_F(JoinHandleTest, ManyCallbacksAreCalledInTheirOrder) {
  constexpr int kCallbacks = 20'000;  // with a walk along the list for each, seconds
  Gate gate;
  auto handle = executor.spawn(give_behind(gate, 1));
  std::vector<int> order;
  std::atomic<bool> all{false};
  for (int i = 0; i < kCallbacks; ++i) {
    handle.on_done([&, i](const Result<int>&) {
      order.push_back(i);
      if (i + 1 == kCallbacks) all = true;
    });
  }
  gate.open();
  ASSERT_TRUE(eventually([&] { return all.load(); }));
  EXPECT_EQ(order.size(), static_cast<std::size_t>(kCallbacks));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(JoinHandleTest, OnDoneSeesTheValueAlthoughAWaiterMovesItOut) {
  for (int round = 0; round < 500; ++round) {
    Gate gate;
    auto text = [](Gate& g) -> Task<std::string> {
      co_await g.pass();
      co_return std::string(64, 'y');
    };
    auto mover = [](JoinHandle<std::string> h) -> Task<std::size_t> {
      std::string value = co_await std::move(h);
      co_return value.size();
    };
    auto handle = executor.spawn(text(gate));
    std::atomic<std::size_t> seen{0};
    handle.on_done([&](const Result<std::string>& result) { seen = result.value().size(); });
    auto moved = executor.spawn(mover(handle));
    if (round % 2 == 0) std::this_thread::yield();
    gate.open();
    ASSERT_EQ(moved.wait().value(), 64U);
    ASSERT_TRUE(eventually([&] { return seen.load() != 0; }));
    ASSERT_EQ(seen.load(), 64U);
  }
  EXPECT_TRUE(reports().empty());
}

TEST_F(JoinHandleTest, OnDoneThatThrowsIsReported) {
  auto handle = executor.spawn(give(1), "thrower");
  handle.wait();
  handle.on_done([](const Result<int>&) { throw std::runtime_error("from a callback"); });
  ASSERT_EQ(reports().size(), 1U);
  EXPECT_EQ(reports()[0].what, "from a callback");
  Gate gate;
  auto other = executor.spawn(give_behind(gate, 1), "other");
  other.on_done([](const Result<int>&) { throw std::runtime_error("second"); });
  gate.open();
  ASSERT_TRUE(eventually([&] { return reports().size() == 2; }));
  EXPECT_EQ(reports()[1].name, "other");
}

TEST_F(JoinHandleTest, AnErrorThatNobodyAsksForIsReportedOnce) {
  {
    auto handle = executor.spawn(fail(), "lonely");
  }
  ASSERT_TRUE(eventually([&] { return !reports().empty(); }));
  slot_.reset();
  ASSERT_EQ(reports().size(), 1U);
  EXPECT_EQ(reports()[0].name, "lonely");
  EXPECT_EQ(reports()[0].what, "failed");
}

TEST_F(JoinHandleTest, AnErrorIsReportedByWhoeverDropsTheLastHandle) {
  auto handle = executor.spawn(fail());
  auto copy = handle;
  while (!handle.done()) std::this_thread::yield();
  EXPECT_TRUE(reports().empty());
  handle = JoinHandle<int>();
  EXPECT_TRUE(reports().empty());
  slot_.reset();
  copy = JoinHandle<int>();
  EXPECT_EQ(reports().size(), 1U);
}

TEST_F(JoinHandleTest, AnErrorWhoseWaitWasRefusedIsReported) {
  auto body = []() -> Task<> {
    auto handle = spawn(fail(), "unseen");
    EXPECT_THROW(handle.wait(), std::logic_error);
    co_return;
  };
  executor.run(body());
  ASSERT_TRUE(eventually([&] { return !reports().empty(); }));
  EXPECT_EQ(reports()[0].name, "unseen");
}

TEST_F(JoinHandleTest, AnErrorWhoseCallbackCouldNotBeMadeIsReported) {
  struct Uncopyable {
    Uncopyable() = default;
    Uncopyable(const Uncopyable&) { throw std::bad_alloc(); }
    void operator()(const Result<int>&) const {}
  };
  {
    auto handle = executor.spawn(fail(), "unheard");
    Uncopyable callback;
    EXPECT_THROW(handle.on_done(callback), std::bad_alloc);
  }
  ASSERT_TRUE(eventually([&] { return !reports().empty(); }));
  EXPECT_EQ(reports()[0].name, "unheard");
}

TEST_F(JoinHandleTest, AnErrorThatSomebodyHasSeenIsNotReported) {
  executor.spawn(fail()).wait();
  {
    auto handle = executor.spawn(fail());
    while (!handle.done()) std::this_thread::yield();
    EXPECT_TRUE(handle.result().is_error());
  }
  {
    auto handle = executor.spawn(fail());
    EXPECT_THROW(executor.run(handle), std::runtime_error);
  }
  {
    auto handle = executor.spawn(fail());
    std::atomic<bool> called{false};
    handle.on_done([&](const Result<int>&) { called = true; });
    ASSERT_TRUE(eventually([&] { return called.load(); }));
  }
  EXPECT_THROW(executor.run(fail()), std::runtime_error);
  slot_.reset();
  EXPECT_TRUE(reports().empty());
}

TEST_F(JoinHandleTest, AnErrorWhoseOnlyWaiterWasCancelledBeforeIsReported) {
  Gate gate;
  auto failing = [](Gate& g) -> Task<> {
    co_await g.pass();
    throw std::runtime_error("late");
  };
  auto handle = executor.spawn(failing(gate));
  auto waiter = [](JoinHandle<void> h) -> Task<> { co_await h; };
  auto waiting = executor.spawn(waiter(handle));
  executor.run(sleep_for(1ms));
  waiting.cancel();
  EXPECT_TRUE(waiting.wait().is_cancelled());
  gate.open();
  handle = JoinHandle<void>();
  ASSERT_TRUE(eventually([&] { return reports().size() == 1; }));
  EXPECT_EQ(reports()[0].what, "late");
}

TEST(UnobservedErrors, AreReportedInOneLineEachUnlessThereIsAHandler) {
  auto failing = []() -> Task<> {
    throw std::runtime_error("first\nsecond");
    co_return;
  };
  ::testing::internal::CaptureStderr();
  {
    WorkStealingExecutor without({.threads = 1});
    const auto handle = without.spawn(failing(), std::string("a\0b\n", 4));
    EXPECT_TRUE(eventually([&] { return handle.done(); }));
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "magpie: nobody asked for the error of a b : first second\n");
}

TEST_F(JoinHandleTest, ACancellationIsNotReported) {
  {
    executor.spawn(sleep_long()).cancel();
  }
  slot_.reset();
  EXPECT_TRUE(reports().empty());
}

}  // namespace
}  // namespace magpie
