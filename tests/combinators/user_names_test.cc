// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (which functions are called)

// A user's types lie in a namespace with functions of its own. The library finds its own functions
// all the same: a call of it that argument-dependent lookup led astray would not compile here.

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <stdexcept>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/magpie.h>

namespace bank {

// As good a match as any template of the library's that takes what it is given.
#define TAKEN(name)                    \
  template <class A>                   \
  void name(A&&) = delete;             \
  template <class A, class B>          \
  void name(A&&, B&&) = delete;        \
  template <class A, class B, class C> \
  void name(A&&, B&&, C&&) = delete

TAKEN(any);
TAKEN(as_result);
TAKEN(as_task);
TAKEN(batch);
TAKEN(chain);
TAKEN(child_task);
TAKEN(deliver);
TAKEN(describe);
TAKEN(forget_blocking);
TAKEN(forward);
TAKEN(frame_of);
TAKEN(free_frame);
TAKEN(gather);
TAKEN(gather_as);
TAKEN(invoke);
TAKEN(make_callee);
TAKEN(move);
TAKEN(note_asked_end);
TAKEN(queue_forks);
TAKEN(race);
TAKEN(require_given);
TAKEN(retry);
TAKEN(run);
TAKEN(shield);
TAKEN(spawn);
TAKEN(start_armed);
TAKEN(submit_blocking);
TAKEN(tagged);
TAKEN(take_back);
TAKEN(timeout);
TAKEN(transfer);
TAKEN(wait);
#undef TAKEN

struct Account {
  Account() = default;
  explicit Account(int all) : balance(all) {}
  Account* operator&() = delete;
  const Account* operator&() const = delete;
  int balance = 0;
};

struct Foreign {
  bool await_ready() const noexcept { return true; }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  Account await_resume() const { return Account(3); }
};

magpie::Task<Account> opened() {
  co_await magpie::this_task::yield();
  co_return Account(3);
}

magpie::Task<Account&> found() {
  static Account account(3);
  co_return account;
}

magpie::Task<Account> refused() {
  co_await magpie::this_task::yield();
  throw std::runtime_error("refused");
}

// Every kind of callable that an operation takes.
struct Clerk {
  magpie::Task<Account> operator()() const { return opened(); }
  magpie::Task<Account> operator()(const Account&) const { return opened(); }
  magpie::Task<Account> operator()(magpie::CancelScope&) const { return opened(); }
  magpie::Task<Account> operator()(magpie::TimeoutScope&) const { return opened(); }
  magpie::Task<Account> operator()(magpie::TaskGroup& group) const {
    auto handle = group.spawn(opened());
    co_return co_await handle;
  }
  magpie::Task<Account> operator()(magpie::CompletionStream<Account>& stream) const {
    auto next = co_await stream.next();
    co_return std::move(*next).value.value();
  }
};

struct Sweep {
  magpie::Task<> operator()() const { co_return; }
};
struct Audit {
  void operator()() const {}
  void operator()(int) const {}
  void operator()(Account&) const {}
  void operator()(const magpie::Result<Account>& result) const { EXPECT_TRUE(result); }
  void operator()(std::size_t, Account&&) const {}
};
struct Total {
  Account operator()(int amount) const { return Account(amount); }
  Account operator()(Account a, Account b) const { return Account(a.balance + b.balance); }
};
struct Ledger {
  magpie::Task<std::vector<Account>> operator()(std::vector<Account> all) const {
    co_return std::move(all);
  }
};

struct Accounts {
  auto begin() { return items.begin(); }
  auto end() { return items.end(); }
  std::vector<Account> items = std::vector<Account>(3);
};

}  // namespace bank

namespace magpie {
namespace {

using namespace std::chrono_literals;
using bank::Account;

template <class T>
std::vector<Task<T>> two(Task<T> (*make)()) {
  std::vector<Task<T>> tasks;
  tasks.push_back(make());
  tasks.push_back(make());
  return tasks;
}

class UserNames : public ::testing::Test {
 protected:
  WorkStealingExecutor executor{{.threads = 2}};
  const bank::Clerk clerk{};
};

TEST_F(UserNames, GathersAndRaces) {
  const auto body = [&]() -> Task<> {
    co_await magpie::gather(bank::opened(), bank::found(), bank::Foreign(), clerk);
    co_await magpie::gather(keep_going, bank::opened(), clerk);
    const auto [failed] = co_await magpie::gather(return_exceptions, bank::refused());
    EXPECT_TRUE(failed.is_error());
    co_await magpie::gather(two(bank::opened));
    co_await magpie::gather(two(bank::found));
    co_await magpie::gather(std::vector<bank::Clerk>(20));
    co_await magpie::gather(std::vector<bank::Foreign>(2));
    co_await gather_limited(1, two(bank::opened));
    RateLimiter limiter(1e6, 10);
    co_await gather_rate_limited(limiter, two(bank::opened));
    bank::Accounts accounts;
    EXPECT_EQ((co_await map_concurrent(accounts, 2, clerk)).size(), 3U);
    EXPECT_EQ((co_await magpie::batch(accounts, 2, clerk)).size(), 3U);
    co_await magpie::race(bank::opened(), bank::Foreign(), clerk).on_discard(bank::Audit());
    EXPECT_EQ((co_await magpie::any(bank::refused(), bank::opened())).value.balance, 3);
    co_await staggered_race(std::vector<TaskFactory<Account>>(2, clerk), 1h);
    co_await hedge(clerk, HedgeOptions().delay(1h)).on_discard(bank::Audit());
  };
  executor.run(body());
}

TEST_F(UserNames, BlocksTimeoutsAndRepeats) {
  const auto body = [&]() -> Task<> {
    co_await task_group(clerk);
    co_await as_completed(two(bank::opened), clerk);
    co_await magpie::wait(std::vector<JoinHandle<Account>>(2, magpie::spawn(bank::opened())));
    co_await magpie::timeout(bank::opened(), 1h);
    co_await magpie::timeout(bank::Foreign(), 1h);
    co_await with_timeout(bank::opened(), 1h, Account(4));
    EXPECT_TRUE(co_await try_timeout(bank::found(), 1h));
    co_await timeout_scope(1h, clerk);
    EXPECT_TRUE(co_await cancel_scope(clerk));
    co_await magpie::retry(clerk, RetryPolicy());
    co_await retry_with_timeout(clerk, 2, 1h);
    co_await magpie::chain(bank::opened(), clerk);
    Batcher<Account, Account> batcher(1, 1h, bank::Ledger());
    EXPECT_EQ((co_await batcher.submit(Account(5))).balance, 5);
  };
  executor.run(body());
}

TEST_F(UserNames, WhatStandsAroundATask) {
  const auto body = [&]() -> Task<> {
    const bank::Sweep sweep{};
    EXPECT_TRUE(co_await magpie::as_result(bank::opened()));
    EXPECT_TRUE(co_await magpie::as_result(bank::Foreign()));
    co_await on(executor, bank::opened());
    co_await with_token({}, bank::Foreign());
    co_await uncancellable(bank::Foreign());
    co_await magpie::shield(bank::opened());
    co_await finally(bank::opened(), sweep);
    TaskLocal<Account> local{Account(3)};
    EXPECT_EQ((co_await local.get()).balance, 3);
    co_await local.with(Account(4), bank::opened());
    co_await to_thread(bank::Audit());
    EXPECT_EQ((co_await to_thread([] { return Account(6); })).balance, 6);
  };
  executor.run(body());
}

TEST_F(UserNames, LoopsHandlesAndStatesOfThePrimitives) {
  const auto body = [&]() -> Task<> {
    co_await parallel_for(0, 3, 1, bank::Audit());
    std::vector<Account> accounts(3);
    co_await parallel_for_each(accounts, 1, bank::Audit());
    const auto sum = co_await parallel_reduce(0, 4, 1, Account(), bank::Total(), bank::Total());
    EXPECT_EQ(sum.balance, 6);
    fork_join(bank::Audit(), [] { return Account(1); });
    auto handle = magpie::spawn(bank::opened());
    handle.on_done(bank::Audit());
    co_await handle;
    EXPECT_EQ((co_await std::move(handle)).balance, 3);
    Channel<Account> channel(1);
    co_await channel.send(Account(7));
    EXPECT_EQ((co_await channel.receive())->balance, 7);
    Promise<Account> promise;
    promise.set_value(Account(8));
    EXPECT_EQ((co_await promise.future()).balance, 8);
    CancellationSource source;
    const CancellationCallback callback(source.token(), bank::Audit());
    source.cancel();
  };
  executor.run(body());
  executor.post(bank::Audit());
}

}  // namespace
}  // namespace magpie
