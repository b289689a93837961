// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// Sources, tokens, callbacks and any_of, from one thread and from many.

#include <magpie/cancellation_token.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>
#include <unistd.h>

namespace magpie {
namespace {

using test::eventually;
using test::scaled;

TEST(CancellationToken, DefaultOneCanNeverBeCancelled) {
  CancellationToken token;
  EXPECT_FALSE(token.cancelled());
  EXPECT_FALSE(token.can_be_cancelled());
  EXPECT_NO_THROW(token.throw_if_cancelled());
  int calls = 0;
  CancellationCallback callback(token, [&] { ++calls; });
  EXPECT_EQ(calls, 0);
}

TEST(CancellationToken, FollowsItsSource) {
  CancellationSource source;
  CancellationToken token = source.token();
  EXPECT_TRUE(token.can_be_cancelled());
  EXPECT_FALSE(token.cancelled());
  EXPECT_FALSE(source.cancelled());
  EXPECT_TRUE(source.cancel("stop"));
  EXPECT_FALSE(source.cancel("again"));
  EXPECT_TRUE(source.cancelled());
  EXPECT_TRUE(token.cancelled());
  try {
    token.throw_if_cancelled();
    FAIL();
  } catch (const CancelledError& error) {
    EXPECT_EQ(error.reason().kind, CancelKind::requested);
    EXPECT_EQ(error.reason().message, "stop");
  }
}

TEST(CancellationToken, CopiesOfASourceShareOneState) {
  CancellationSource a;
  CancellationSource b = a;
  CancellationToken token = a.token();
  EXPECT_EQ(token, b.token());
  EXPECT_TRUE(b.cancel());
  EXPECT_TRUE(a.cancelled());
  EXPECT_FALSE(a.cancel());
}

TEST(CancellationToken, CannotBeCancelledOnceTheLastSourceHasDied) {
  CancellationToken token;
  {
    std::optional<CancellationSource> a{std::in_place};
    token = a->token();
    CancellationSource b = *a;
    a.reset();
    EXPECT_TRUE(token.can_be_cancelled());
    CancellationSource moved = std::move(b);
    EXPECT_TRUE(token.can_be_cancelled());
  }
  EXPECT_FALSE(token.can_be_cancelled());
  EXPECT_FALSE(token.cancelled());
}

TEST(CancellationToken, StaysCancelledAfterItsSourceHasDied) {
  CancellationToken token;
  {
    CancellationSource source;
    token = source.token();
    source.cancel();
  }
  EXPECT_TRUE(token.cancelled());
  EXPECT_TRUE(token.can_be_cancelled());
}

TEST(CancellationCallback, RunsOnceOnTheCancellingThread) {
  CancellationSource source;
  int calls = 0;
  std::thread::id where;
  CancellationCallback callback(source.token(), [&] {
    ++calls;
    where = std::this_thread::get_id();
  });
  std::thread canceller([&] { source.cancel(); });
  const auto canceller_id = canceller.get_id();
  canceller.join();
  source.cancel();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(where, canceller_id);
}

TEST(CancellationCallback, RunsAtOnceIfTheTokenIsCancelled) {
  CancellationSource source;
  source.cancel();
  int calls = 0;
  CancellationCallback callback(source.token(), [&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(CancellationCallback, DoesNotRunOnceItIsGone) {
  CancellationSource source;
  int calls = 0;
  {
    CancellationCallback callback(source.token(), [&] { ++calls; });
  }
  source.cancel();
  EXPECT_EQ(calls, 0);
}

TEST(CancellationCallback, IsMadeFromAnyCallable) {
  CancellationSource source;
  int calls = 0;
  auto lambda = [&] { ++calls; };
  CancellationCallback deduced(source.token(), lambda);
  static_assert(std::is_same_v<decltype(deduced), CancellationCallback<decltype(lambda)>>);
  CancellationCallback<std::function<void()>> function(source.token(), [&] { ++calls; });
  auto owned = std::make_unique<int>(1);
  CancellationCallback moved(source.token(),
                             [&calls, owned = std::move(owned)] { calls += *owned; });
  std::optional<CancellationCallback<std::function<void()>>> later;
  later.emplace(source.token(), lambda);
  source.cancel();
  EXPECT_EQ(calls, 4);
}

TEST(CancellationCallback, CallsItsFunctionAsStdStopCallbackDoes) {
  struct Once {
    std::unique_ptr<int> owned;
    int* sum;
    void operator()() && { *sum += *owned; }
  };
  int sum = 0;
  auto counts = [&sum] { ++sum; };
  CancellationSource source;
  const CancellationCallback once(source.token(), Once{std::make_unique<int>(10), &sum});
  const CancellationCallback<decltype(counts)&> referenced(source.token(), counts);
  source.cancel();
  EXPECT_EQ(sum, 11);
}

TEST(CancellationCallback, MayTakeBackItselfAndOthers) {
  CancellationSource source;
  int calls = 0;
  using Callback = CancellationCallback<std::function<void()>>;
  std::unique_ptr<Callback> self;
  std::unique_ptr<Callback> other;
  // The one that was registered last runs first: it removes both.
  other = std::make_unique<Callback>(source.token(), [&] { calls += 100; });
  self = std::make_unique<Callback>(source.token(), [&] {
    ++calls;
    other.reset();
    self.reset();
  });
  source.cancel();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(self, nullptr);
}

TEST(CancellationCallback, MayDropTheLastSourceAndTokenFromInside) {
  auto source = std::make_unique<CancellationSource>();
  using Callback = CancellationCallback<std::function<void()>>;
  std::unique_ptr<Callback> self;
  self = std::make_unique<Callback>(source->token(), [&] {
    source.reset();
    self.reset();
  });
  source->cancel();
  EXPECT_EQ(source, nullptr);
}

TEST(CancellationCallback, MayRegisterAnotherFromInside) {
  CancellationSource source;
  int calls = 0;
  std::optional<CancellationCallback<std::function<void()>>> second;
  CancellationCallback first(source.token(),
                             [&] { second.emplace(source.token(), [&] { ++calls; }); });
  source.cancel();
  EXPECT_EQ(calls, 1);
}

TEST(CancellationCallback, MayCancelAnotherSourceThatCancelsThisOne) {
  CancellationSource a;
  CancellationSource b;
  int calls = 0;
  CancellationCallback on_a(a.token(), [&] {
    ++calls;
    b.cancel();
  });
  CancellationCallback on_b(b.token(), [&] {
    ++calls;
    a.cancel();
  });
  a.cancel();
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(b.cancelled());
}

TEST(CancellationCallback, DestructorWaitsForARunOnAnotherThread) {
  for (std::size_t round = 0; round < scaled(200); ++round) {
    CancellationSource source;
    std::atomic<bool> inside{false};
    std::atomic<bool> finished{false};
    std::atomic<bool> release{false};
    auto function = [&] {
      inside = true;
      while (!release.load()) std::this_thread::yield();
      finished = true;
    };
    auto callback =
        std::make_unique<CancellationCallback<decltype(function)>>(source.token(), function);
    std::thread canceller([&] { source.cancel(); });
    ASSERT_TRUE(eventually([&] { return inside.load(); }));
    std::thread opener([&] { release = true; });
    callback.reset();
    EXPECT_TRUE(finished.load());
    canceller.join();
    opener.join();
  }
}

TEST(CancellationCallback, DestructorSleepsWhileARunOnAnotherThreadTakesItsTime) {
  CancellationSource source;
  std::atomic<bool> inside{false};
  std::atomic<bool> release{false};
  int written = 0;
  auto function = [&] {
    inside = true;
    while (!release.load()) std::this_thread::yield();
    written = 1;
  };
  std::optional<CancellationCallback<decltype(function)>> callback(std::in_place, source.token(),
                                                                   function);
  std::thread canceller([&] { source.cancel(); });
  ASSERT_TRUE(eventually([&] { return inside.load(); }));
  std::atomic<pid_t> waits{0};
  std::thread destroyer([&] {
    waits = gettid();
    callback.reset();
    EXPECT_EQ(written, 1);
  });
  EXPECT_TRUE(eventually([&] { return waits.load() != 0 && test::sleeps(waits.load()); }));
  release = true;
  destroyer.join();
  canceller.join();
}

TEST(CancellationCallback, CrossedCancelsDoNotDeadlock) {
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    CancellationSource a;
    CancellationSource b;
    using Callback = CancellationCallback<std::function<void()>>;
    std::atomic<int> calls{0};
    Callback on_a(a.token(), [&] {
      ++calls;
      b.cancel();
    });
    Callback on_b(b.token(), [&] {
      ++calls;
      a.cancel();
    });
    std::thread one([&] { a.cancel(); });
    std::thread two([&] { b.cancel(); });
    one.join();
    two.join();
    ASSERT_EQ(calls.load(), 2);
  }
}

TEST(CancellationCallback, RegisteringAndCancellingFromManyThreads) {
  for (std::size_t round = 0; round < scaled(300); ++round) {
    auto source = std::make_unique<CancellationSource>();
    const CancellationToken token = source->token();
    std::atomic<int> registered{0};
    std::atomic<int> ran{0};
    std::atomic<int> winners{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 30; ++i) {
          int calls = 0;
          {
            CancellationCallback callback(token, [&] {
              ++calls;
              ++ran;
            });
            if (token.cancelled()) ++registered;
          }
          EXPECT_LE(calls, 1);  // after the destructor: plain reads are ordered
        }
      });
    }
    for (int t = 0; t < 2; ++t) threads.emplace_back([&] { winners += source->cancel() ? 1 : 0; });
    for (auto& thread : threads) thread.join();
    ASSERT_EQ(winners.load(), 1);
    ASSERT_GE(ran.load(), 0);
  }
}

TEST(AnyOf, OfNothingCannotBeCancelled) {
  EXPECT_FALSE(any_of().can_be_cancelled());
  EXPECT_FALSE(any_of(CancellationToken()).can_be_cancelled());
  EXPECT_FALSE(any_of(CancellationToken(), CancellationToken()).can_be_cancelled());
  EXPECT_FALSE(any_of(std::vector<CancellationToken>()).can_be_cancelled());
}

TEST(AnyOf, IsCancelledByEachOfItsTokensWithThatOnesReason) {
  for (std::size_t which = 0; which < 6; ++which) {
    std::vector<CancellationSource> s(6);
    CancellationToken token =
        any_of(s[0].token(), s[1].token(), s[2].token(), s[3].token(), s[4].token(), s[5].token());
    EXPECT_FALSE(token.cancelled());
    s[which].cancel("number " + std::to_string(which));
    EXPECT_TRUE(token.cancelled());
    s[(which + 1) % 6].cancel("late");
    try {
      token.throw_if_cancelled();
    } catch (const CancelledError& error) {
      EXPECT_EQ(error.reason().message, "number " + std::to_string(which));
    }
  }
}

TEST(AnyOf, TakesOneToSixTokensAndAVector) {
  CancellationSource s;
  const CancellationToken t = s.token();
  EXPECT_EQ(any_of(t), t);
  EXPECT_EQ(any_of(t, t), t);  // duplicates collapse
  std::vector<CancellationToken> all{any_of(t, CancellationSource().token()), any_of(t, t, t),
                                     any_of(t, t, t, t), any_of(t, t, t, t, t),
                                     any_of(t, t, t, t, t, t)};
  const CancellationToken every = any_of(all);
  s.cancel();
  EXPECT_TRUE(every.cancelled());
}

TEST(AnyOf, TakesAnyNumberOfTokens) {
  CancellationSource s[9];
  const CancellationToken last = s[8].token();
  const CancellationToken seven = any_of(s[0].token(), s[1].token(), s[2].token(), s[3].token(),
                                         s[4].token(), s[5].token(), s[6].token());
  const CancellationToken nine =
      any_of(s[0].token(), s[1].token(), s[2].token(), s[3].token(), s[4].token(), s[5].token(),
             CancellationToken(), s[7].token(), last);
  s[6].cancel("the seventh");
  EXPECT_TRUE(seven.cancelled());
  EXPECT_FALSE(nine.cancelled());
  s[8].cancel("the ninth");
  EXPECT_TRUE(nine.cancelled());
}

TEST(AnyOf, WithStdInScope) {
  using namespace std;  // NOLINT: std::any_of must not interfere
  CancellationSource a;
  CancellationSource b;
  CancellationSource c;
  CancellationToken token = any_of(a.token(), b.token(), c.token());
  c.cancel();
  EXPECT_TRUE(token.cancelled());
}

TEST(AnyOf, OfCancelledOnesIsCancelledAtOnce) {
  CancellationSource a;
  CancellationSource b;
  b.cancel("before");
  EXPECT_TRUE(any_of(a.token(), b.token()).cancelled());
}

TEST(AnyOf, CannotBeCancelledOnceAllSourcesHaveDied) {
  CancellationToken token;
  {
    CancellationSource a;
    {
      CancellationSource b;
      token = any_of(a.token(), b.token());
    }
    EXPECT_TRUE(token.can_be_cancelled());
  }
  EXPECT_FALSE(token.can_be_cancelled());
}

TEST(AnyOf, NestsAndRunsItsCallbacks) {
  CancellationSource a;
  CancellationSource b;
  CancellationSource c;
  CancellationToken inner = any_of(a.token(), b.token());
  CancellationToken outer = any_of(inner, c.token());
  int calls = 0;
  CancellationCallback callback(outer, [&] { ++calls; });
  b.cancel();
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(c.cancelled());  // downwards only
  EXPECT_FALSE(a.cancelled());
}

TEST(AnyOf, MayDieWhileItsSourcesCancel) {
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    CancellationSource a;
    CancellationSource b;
    auto token = std::make_unique<CancellationToken>(any_of(a.token(), b.token()));
    std::thread one([&] { a.cancel(); });
    std::thread two([&] { b.cancel(); });
    token.reset();
    one.join();
    two.join();
  }
}

TEST(AnyOf, MayLoseItsLastOwnerInItsOwnCallback) {
  CancellationSource a;
  CancellationSource b;
  auto token = std::make_unique<CancellationToken>(any_of(a.token(), b.token()));
  using Callback = CancellationCallback<std::function<void()>>;
  std::unique_ptr<Callback> callback;
  callback = std::make_unique<Callback>(*token, [&] {
    token.reset();
    callback.reset();
  });
  a.cancel();
  EXPECT_EQ(token, nullptr);
}

// The last source cancels and dies while the token is asked: what cannot be cancelled is not,
// either.
TEST(CancellationToken, IsNotTakenForOneThatCannotBeCancelledWhenItsLastSourceHasCancelled) {
  std::atomic<CancellationSource*> given{nullptr};
  std::atomic<bool> stop{false};
  std::thread canceller([&] {
    while (!stop.load()) {
      if (const std::unique_ptr<CancellationSource> source{given.exchange(nullptr)})
        source->cancel();
      std::this_thread::yield();  // there may be one processor
    }
  });
  for (std::size_t round = 0; round < scaled(5'000); ++round) {
    auto source = std::make_unique<CancellationSource>();
    const CancellationToken token = source->token();
    given = source.release();
    for (int look = 0; look < 10; ++look) ASSERT_TRUE(token.can_be_cancelled());
    while (given.load() != nullptr) std::this_thread::yield();
  }
  stop = true;
  canceller.join();
}

}  // namespace
}  // namespace magpie
