// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan (which overload is called)

// How callables are called: what is moved in and called exactly once, as an rvalue, as std::thread
// does; what is called repeatedly, or given as an lvalue, as an lvalue. A predicate's answer is
// whatever an `if` takes.

#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/magpie.h>

#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class CallablesTest : public OnMachine {};

/// Can be moved, and called as an rvalue; no more.
template <class F>
class OnlyOnce {
 public:
  explicit OnlyOnce(F function) : function_(std::make_unique<F>(std::move(function))) {}
  template <class... A>
  requires std::invocable<F, A...>
  decltype(auto) operator()(A&&... arguments) && {
    EXPECT_FALSE(called_);
    called_ = true;
    return std::move(*function_)(std::forward<A>(arguments)...);
  }

 private:
  std::unique_ptr<F> function_;
  bool called_ = false;
};

/// Says how it is called, through a task or at once.
struct SaysHow {
  std::string operator()() & { return "lvalue"; }
  std::string operator()() && { return "rvalue"; }
  std::string operator()(int) & { return "lvalue"; }
  std::string operator()(int) && { return "rvalue"; }
  template <class T>
  Task<std::string> operator()(T&) & {
    return give_text("lvalue");
  }
  template <class T>
  Task<std::string> operator()(T&) && {
    return give_text("rvalue");
  }
};
struct TaskSaysHow {
  Task<std::string> operator()() & { return give_text("lvalue"); }
  Task<std::string> operator()() && { return give_text("rvalue"); }
};
struct OnlyAsAnLvalue {
  int operator()() & { return 7; }
  Task<int> operator()(CancelScope&) & { return give(7); }
};

using Body = Task<int> (*)();

TEST_ON_THREADS(CallablesTest, GatherCallsWhatCanBeCalledOnlyOnce) {
  auto [a, b, c] = machine.run([]() -> Task<std::tuple<int, int, std::monostate>> {
    auto all = gather(OnlyOnce([] { return 1; }), OnlyOnce([] { return give_after(1s, 2); }),
                      OnlyOnce([] {}));
    co_return co_await std::move(all);
  });
  EXPECT_EQ(a, 1);
  EXPECT_EQ(b, 2);

  const std::vector<int> row = machine.run([]() -> Task<std::vector<int>> {
    std::vector<OnlyOnce<Body>> calls;
    for (int i = 0; i < 3; ++i) calls.emplace_back([] { return give_after(1s, 4); });
    co_return co_await gather(std::move(calls));
  });
  EXPECT_EQ(row, (std::vector<int>{4, 4, 4}));

  const auto results = machine.run([]() -> Task<std::tuple<Result<int>, Result<int>>> {
    auto all = gather(return_exceptions, OnlyOnce([] { return give(1); }),
                      OnlyOnce([]() -> int { throw std::runtime_error("no"); }));
    co_return co_await std::move(all);
  });
  EXPECT_EQ(std::get<0>(results).value(), 1);
  EXPECT_TRUE(std::get<1>(results).is_error());
}

TEST_ON_THREADS(CallablesTest, LimitedGathersAndRacesCallWhatCanBeCalledOnlyOnce) {
  machine.run([]() -> Task<> {
    auto limited = gather_limited(1, OnlyOnce([] { return 1; }), OnlyOnce([] { return give(2); }));
    auto [a, b] = co_await std::move(limited);
    EXPECT_EQ(a + b, 3);
    auto first = race(OnlyOnce([] { return give_after(1s, 1); }),
                      OnlyOnce([] { return give_after(2s, 2); }));
    const Indexed<int> won = co_await std::move(first);
    EXPECT_EQ(won.index, 0U);
    auto good = any(OnlyOnce([] { return fail("no"); }), OnlyOnce([] { return give(2); }));
    const Indexed<int> succeeded = co_await std::move(good);
    EXPECT_EQ(succeeded.value, 2);
  });
}

TEST_ON_THREADS(CallablesTest, BlocksCallBodiesThatCanBeCalledOnlyOnce) {
  machine.run([]() -> Task<> {
    auto scope = cancel_scope(OnlyOnce([](CancelScope&) { return give_after(1s, 1); }));
    const Result<int> scoped = co_await std::move(scope);
    EXPECT_EQ(scoped.value(), 1);
    auto limit = timeout_scope(5s, OnlyOnce([](TimeoutScope&) { return give_after(1s, 2); }));
    const int timed = co_await std::move(limit);
    EXPECT_EQ(timed, 2);
    auto group = task_group(OnlyOnce([](TaskGroup& g) -> Task<int> {
      JoinHandle<int> child = g.spawn(give_after(1s, 3));
      co_return co_await std::move(child);
    }));
    const int grouped = co_await std::move(group);
    EXPECT_EQ(grouped, 3);
    std::vector<Task<int>> tasks;
    tasks.push_back(give_after(1s, 4));
    auto stream =
        as_completed(std::move(tasks), OnlyOnce([](CompletionStream<int>& s) -> Task<int> {
                       auto next = co_await s.next();
                       co_return next->value.value();
                     }));
    const int streamed = co_await std::move(stream);
    EXPECT_EQ(streamed, 4);
  });
}

TEST_ON_THREADS(CallablesTest, AGroupStartsWhatCanBeCalledOnlyOnce) {
  auto set = [](ReadySignal<int> ready) -> Task<void> {
    ready.set(5);
    co_return;
  };
  // Deduced, in spite of the qualifier.
  struct Deduced {
    decltype(set) function;
    std::unique_ptr<int> moved_only;
    Task<void> operator()(ReadySignal<int> ready) && { return function(std::move(ready)); }
  };
  machine.run([&]() -> Task<> {
    auto group = task_group([&](TaskGroup& g) -> Task<void> {
      auto given = g.start<int>(OnlyOnce(set));
      const int ready = co_await std::move(given);
      EXPECT_EQ(ready, 5);
      auto deduced = g.start(Deduced{set, nullptr});
      const int again = co_await std::move(deduced);
      EXPECT_EQ(again, 5);
    });
    co_await std::move(group);
  });
}

TEST_ON_THREADS(CallablesTest, CleanupsAndStepsCanBeCalledOnlyOnce) {
  machine.run([]() -> Task<> {
    bool cleaned = false;
    auto cleanup = [&]() -> Task<void> {
      cleaned = true;
      co_return;
    };
    auto guarded = finally(give(1), OnlyOnce(cleanup));
    const int value = co_await std::move(guarded);
    EXPECT_EQ(value, 1);
    EXPECT_TRUE(cleaned);
    auto steps = chain(give(1), OnlyOnce([](int i) { return give_after(1s, i + 1); }),
                       OnlyOnce([](int i) { EXPECT_EQ(i, 2); }), OnlyOnce([] { return 3; }));
    const int last = co_await std::move(steps);
    EXPECT_EQ(last, 3);
  });
}

TEST_ON_THREADS(CallablesTest, ThreadsAndPostsCallWhatCanBeCalledOnlyOnce) {
  Event posted;
  machine.run([&]() -> Task<> {
    auto blocking = to_thread(OnlyOnce([] { return 1; }));
    const int value = co_await std::move(blocking);
    EXPECT_EQ(value, 1);
    executor.post(OnlyOnce([&] { posted.set(); }));
    co_await posted.wait();
    JoinHandle<int> handle = spawn(give(2));
    int shown = 0;
    handle.on_done(OnlyOnce([&](const Result<int>& result) { shown = result.value(); }));
    co_await handle;
    auto [a, b] = fork_join(OnlyOnce([] { return 3; }), OnlyOnce([] { return 4; }));
    EXPECT_EQ(a + b, 7);
  });
}

TEST_ON_THREADS(CallablesTest, WhatIsMovedInIsCalledAsAnRvalue) {
  machine.run([&]() -> Task<> {
    auto [plain, task] = co_await gather(SaysHow(), TaskSaysHow());
    EXPECT_EQ(plain + task, "rvaluervalue");
    auto [limited, later] = co_await gather_limited(1, SaysHow(), TaskSaysHow());
    EXPECT_EQ(limited + later, "rvaluervalue");
    const auto won = co_await race(TaskSaysHow());
    EXPECT_EQ(won.value, "rvalue");
    const Result<std::string> scoped = co_await cancel_scope(SaysHow());
    EXPECT_EQ(scoped.value(), "rvalue");
    const std::string timed = co_await timeout_scope(1s, SaysHow());
    EXPECT_EQ(timed, "rvalue");
    const std::string grouped = co_await task_group(SaysHow());
    EXPECT_EQ(grouped, "rvalue");
    const std::string step = co_await chain(give(1), SaysHow());
    EXPECT_EQ(step, "rvalue");
    const std::string blocking = co_await to_thread(SaysHow());
    EXPECT_EQ(blocking, "rvalue");
    auto [f, g] = fork_join(SaysHow(), SaysHow());
    EXPECT_EQ(f + g, "rvaluervalue");
  });
}

TEST_ON_THREADS(CallablesTest, AnLvalueIsCalledAsOne) {
  machine.run([&]() -> Task<> {
    SaysHow plain;
    TaskSaysHow task;
    auto [a, b] = co_await gather(plain, task);
    EXPECT_EQ(a + b, "lvaluelvalue");
    auto [c, d] = co_await gather_limited(1, plain, task);
    EXPECT_EQ(c + d, "lvaluelvalue");
    const auto won = co_await race(task);
    EXPECT_EQ(won.value, "lvalue");
    const Result<std::string> scoped = co_await cancel_scope(plain);
    EXPECT_EQ(scoped.value(), "lvalue");
    const std::string timed = co_await timeout_scope(1s, plain);
    EXPECT_EQ(timed, "lvalue");
    const std::string grouped = co_await task_group(plain);
    EXPECT_EQ(grouped, "lvalue");
    const std::string step = co_await chain(give(1), plain);
    EXPECT_EQ(step, "lvalue");
    const std::string blocking = co_await to_thread(plain);
    EXPECT_EQ(blocking, "lvalue");
    auto [f, g] = fork_join(plain, plain);
    EXPECT_EQ(f + g, "lvaluelvalue");
  });
}

TEST_ON_THREADS(CallablesTest, WhatIsCalledRepeatedlyIsCalledAsAnLvalue) {
  machine.run([&]() -> Task<> {
    const std::string retried = co_await retry(TaskSaysHow());
    EXPECT_EQ(retried, "lvalue");
    const std::string hedged = co_await hedge(TaskSaysHow(), HedgeOptions().delay(1s));
    EXPECT_EQ(hedged, "lvalue");
    std::vector<std::string> items{"a", "b"};
    const auto mapped = co_await map_concurrent(items, 1, SaysHow());
    EXPECT_EQ(mapped, (std::vector<std::string>{"lvalue", "lvalue"}));
    const auto batched = co_await batch(items, 1, SaysHow());
    EXPECT_EQ(batched, (std::vector<std::string>{"lvalue", "lvalue"}));
  });
  struct Once {
    Task<int> operator()() && { return give(1); }
    Task<int> operator()(std::string&) && { return give(1); }
  };
  const auto retries = []<class F>(F) { return requires { retry(std::declval<F>()); }; };
  EXPECT_TRUE(retries(TaskSaysHow()));
  EXPECT_FALSE(retries(Once()));
  const auto maps = []<class F>(F) {
    return requires(std::vector<std::string> items) {
      map_concurrent(items, 1, std::declval<F>());
    };
  };
  EXPECT_TRUE(maps(SaysHow()));
  EXPECT_FALSE(maps(Once()));
}

TEST_ON_THREADS(CallablesTest, WhatCanBeCalledOnlyAsAnLvalueMayBeMovedIn) {
  machine.run([&]() -> Task<> {
    auto [value] = co_await gather(OnlyAsAnLvalue());
    EXPECT_EQ(value, 7);
    const Result<int> scoped = co_await cancel_scope(OnlyAsAnLvalue());
    EXPECT_EQ(scoped.value(), 7);
    const int blocking = co_await to_thread(OnlyAsAnLvalue());
    EXPECT_EQ(blocking, 7);
    auto [f, g] = fork_join(OnlyAsAnLvalue(), OnlyAsAnLvalue());
    EXPECT_EQ(f + g, 14);
    Event posted;
    struct Sets {
      Event& event;
      void operator()() & { event.set(); }
    };
    executor.post(Sets{posted});
    co_await posted.wait();
    struct Shows {
      int& shown;
      void operator()(const Result<int>& result) & { shown = result.value(); }
    };
    JoinHandle<int> handle = spawn(give(2));
    co_await handle;
    int shown = 0;
    handle.on_done(Shows{shown});
    EXPECT_EQ(shown, 2);
  });
}

/// Only an `if`, and what is like it, takes it for a bool.
struct Answer {
  bool yes;
  explicit operator bool() const { return yes; }
};

TEST_ON_THREADS(CallablesTest, AConditionTakesAPredicateWhoseAnswerConvertsExplicitly) {
  machine.run([&]() -> Task<> {
    Mutex mutex;
    Condition condition;
    int items = 0;
    auto consumer = [&]() -> Task<int> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await condition.wait(lock, [&] { return Answer{items == 2}; });
      co_return items;
    };
    auto producer = [&]() -> Task<> {
      for (int i = 0; i < 2; ++i) {
        co_await sleep_for(1s);
        Mutex::Lock lock = co_await mutex.lock();
        ++items;
        condition.notify_one();
      }
    };
    auto [seen, nothing] = co_await gather(consumer, producer);
    EXPECT_EQ(seen, 2);
  });
}

TEST_ON_THREADS(CallablesTest, ARetryAsksAPredicateWhoseAnswerConvertsExplicitly) {
  machine.run([&]() -> Task<> {
    int asked = 0;
    auto first_only = [&](const std::exception_ptr&) { return Answer{++asked == 1}; };
    int attempts = 0;
    auto failing = [&]() -> Task<int> {
      ++attempts;
      throw std::runtime_error("no");
      co_return 0;
    };
    const RetryPolicy policy = RetryPolicy().max_attempts(5).retry_if(first_only);
    const Result<int> result = co_await as_result(retry(failing, policy));
    EXPECT_TRUE(result.is_error());
    EXPECT_EQ(attempts, 2);
    EXPECT_EQ(asked, 2);
  });
}

/// An awaitable of somebody else's, which is ready explicitly.
struct ReadyExplicitly {
  Answer await_ready() const { return {true}; }
  void await_suspend(std::coroutine_handle<>) const {}
  int await_resume() const { return 6; }
};

TEST_ON_THREADS(CallablesTest, AForeignAwaiterMayBeReadyExplicitly) {
  machine.run([&]() -> Task<> {
    const int direct = co_await ReadyExplicitly();
    EXPECT_EQ(direct, 6);
    auto [given] = co_await gather(ReadyExplicitly());
    EXPECT_EQ(given, 6);
  });
}

}  // namespace
}  // namespace magpie
