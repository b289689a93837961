// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Misuse: awaitables that were moved from, or awaited before, are refused with a sentence.

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/task_group.h>
#include <magpie/timeout.h>

#include <support/machine.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::give;
using test::give_text;
using test::nothing;

class AwaitedTwice : public test::OnMachine {
 protected:
  // Makes an awaitable, awaits it, and awaits it again.
  template <class F>
  void refuses_a_second_await(F&& make) {
    auto body = [&]() -> Task<> {
      auto awaitable = make();
      (void)co_await awaitable;
      std::string what;
      try {
        (void)co_await awaitable;
      } catch (const std::logic_error& error) {
        what = error.what();
      }
      EXPECT_NE(what.find("awaited before"), std::string::npos) << what;
      co_await nothing();
    };
    executor.run(body());
  }
  template <class F>
  void refuses_what_was_moved_from(F&& make) {
    auto body = [&]() -> Task<> {
      auto awaitable = make();
      auto other = std::move(awaitable);
      EXPECT_THROW((void)co_await std::move(awaitable), std::logic_error);
      (void)co_await std::move(other);  // has it all
    };
    executor.run(body());
  }
};

std::vector<Task<std::string>> texts() {
  std::vector<Task<std::string>> tasks;
  for (int i = 0; i < 3; ++i) tasks.push_back(give_text(std::string(40, 'x')));
  return tasks;
}

TEST_P(AwaitedTwice, GathersAreRefused) {
  refuses_a_second_await([] { return gather(give(1), give(2)); });
  refuses_a_second_await([] { return gather(give_text("a"), sleep_for(1s)); });
  refuses_a_second_await([] { return gather(sleep_for(1s), sleep_for(2s)); });
  refuses_a_second_await([] { return gather([] { return std::string(40, 'x'); }, [] { return 1; }); });
  refuses_a_second_await([] { return gather(return_exceptions, give(1), give_text("b")); });
  refuses_a_second_await([] { return gather(texts()); });
  refuses_what_was_moved_from([] { return gather(give(1), give(2)); });
  refuses_what_was_moved_from([] { return gather(sleep_for(1s), give(2)); });
  refuses_what_was_moved_from([] { return gather([] { return 1; }, give(2)); });
}

TEST_P(AwaitedTwice, RacesAreRefused) {
  refuses_a_second_await([] { return race(give(1), give(2)); });
  refuses_a_second_await([] { return race(sleep_for(1s), give(2)); });
  refuses_a_second_await([] { return any(texts()); });
  refuses_what_was_moved_from([] { return race(give(1), give(2)); });
  refuses_what_was_moved_from([] { return any(give(1), give_text("a")); });
  refuses_what_was_moved_from([] { return any(texts()); });
}

TEST_P(AwaitedTwice, BlocksAndCallsAreRefused) {
  refuses_a_second_await([] { return task_group([](TaskGroup&) { return give_text(std::string(40, 'x')); }); });
  refuses_a_second_await([] { return cancel_scope([](CancelScope&) { return give(1); }); });
  refuses_a_second_await([] { return timeout_scope(1s, [](TimeoutScope&) { return give(1); }); });
  refuses_a_second_await([] { return to_thread([] { return std::string(40, 'x'); }); });
}

TEST_P(AwaitedTwice, WrappersAreRefused) {
  refuses_a_second_await([] { return timeout(give(1), 1s); });
  refuses_a_second_await([] { return timeout(sleep_for(1s), 2s); });
  refuses_a_second_await([] { return try_timeout(sleep_for(1s), 2s); });
  refuses_a_second_await([] { return as_result(give(1)); });
  refuses_a_second_await([] { return uncancellable(sleep_for(1s)); });
  refuses_a_second_await([] { return with_token({}, sleep_for(1s)); });
  refuses_a_second_await([] { return finally(give(1), nothing); });
  refuses_a_second_await([] { return shield(give(1)); });
  refuses_what_was_moved_from([] { return timeout(give(1), 1s); });
  refuses_what_was_moved_from([] { return shield(give(1)); });
}

INSTANTIATE_TEST_SUITE_P(Threads, AwaitedTwice, test::kThreads, test::threads_name);

}  // namespace
}  // namespace magpie
