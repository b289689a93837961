// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// Scopes by themselves: what a cancellation reaches, and what it leaves alone. The steps are those
// of executor/CANCELLATION.md.

#include <magpie/detail/scope.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/cancel_state.h>
#include <magpie/detail/random.h>

#include <support/scale.h>

namespace magpie::detail {
namespace {

using test::scaled;

ReasonRef reason(const char* message) {
  return ReasonRef::make(CancelKind::requested, message);
}

int count(const BasicCancelEffects<StdEnv>& effects) {
  int n = 0;
  for (Waiter* w = effects.waiters; w != nullptr; w = w->scope_next) ++n;
  return n;
}

/// A task's root scope with its counter.
struct Root : TaskCore {
  Root() { scope.enter_root(nullptr, this); }
  ~Root() { (void)scope.exit(); }
  Scope scope;
};

struct Parked : Waiter {
  explicit Parked(Scope& the_scope) : scope(the_scope) {
    state.set(WaitPhase::waiting);
    parked = scope.park(*this);
  }
  Scope& scope;
  bool parked;
};

TEST(Scope, FreshOneIsNotCancelled) {
  Root root;
  Scope child;
  child.enter(&root.scope, &root);
  EXPECT_FALSE(child.cancelled());
  EXPECT_FALSE(child.reason());
  (void)child.exit();
}

TEST(Scope, CancellationReachesWhatIsBelowAndNothingElse) {
  Root root;
  Scope a, b, below;
  a.enter(&root.scope, &root);
  b.enter(&root.scope, &root);
  below.enter(&a, &root);
  Parked in_below(below), in_b(b), in_root(root.scope);
  BasicCancelEffects<StdEnv> effects;
  EXPECT_TRUE(a.cancel(reason("a"), effects));
  EXPECT_EQ(count(effects), 1);
  EXPECT_EQ(effects.waiters, &in_below);
  EXPECT_TRUE(below.cancelled());
  EXPECT_TRUE(a.cancelled());
  EXPECT_FALSE(b.cancelled());
  EXPECT_FALSE(root.scope.cancelled());
  EXPECT_EQ(below.reason().get().message, "a");
  b.unpark(in_b);
  root.scope.unpark(in_root);
  (void)below.exit();
  (void)a.exit();
  EXPECT_FALSE(root.scope.cancelled());
  EXPECT_EQ(root.cancels.load(), 0U);
  (void)b.exit();
}

// The queue of one word against a plain one: whoever leaves, the others keep their order, and so do
// bystanders.
TEST(SmallWaitQueue, KeepsItsOrderWhoeverLeaves) {
  constexpr std::size_t kWaiters = 5;
  constexpr std::size_t kBystanders = 3;
  std::array<BasicWaiter<StdEnv>, kWaiters> waiters;
  std::array<BasicBystander<StdEnv>, kBystanders> bystanders;
  for (std::size_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    BasicSmallWaitQueue<StdEnv> queue;
    std::vector<BasicWaiter<StdEnv>*> expected;
    std::size_t beside = 0;
    for (int step = 0; step < 40; ++step) {
      BasicWaiter<StdEnv>& w = waiters[static_cast<std::size_t>(random.below(kWaiters))];
      if (w.queued) {
        queue.forget(w);
        std::erase(expected, &w);
      } else {
        queue.forget(w);  // it is in no queue: nothing happens
        queue.push_back(w);
        expected.push_back(&w);
      }
      std::vector<BasicWaiter<StdEnv>*> there;
      for (auto* at = queue.front(); at != nullptr; at = at->queue_next) there.push_back(at);
      ASSERT_EQ(there, expected) << "seed " << seed << ", step " << step;
      if (random.below(4) != 0) continue;
      if (beside < kBystanders) {
        queue.add(bystanders[beside++]);
        ASSERT_TRUE(queue.has_bystanders());
        continue;
      }
      auto* at = queue.take_bystanders();
      for (; beside > 0; at = at->next_bystander) ASSERT_EQ(at, &bystanders[--beside]);
      ASSERT_EQ(at, nullptr);
      ASSERT_FALSE(queue.has_bystanders());
      ASSERT_EQ(queue.take_bystanders(), nullptr);
    }
    while (queue.front() != nullptr) queue.remove(*queue.front());
  }
}

TEST(Scope, SecondCancelIsFalseAndTheFirstReasonStays) {
  Root root;
  BasicCancelEffects<StdEnv> effects;
  EXPECT_TRUE(root.scope.cancel(reason("first"), effects));
  EXPECT_FALSE(root.scope.cancel(reason("second"), effects));
  EXPECT_EQ(root.scope.reason().get().message, "first");
}

TEST(Scope, TheFirstReasonThatReachesItStays) {
  Root root;
  Scope inner, below;
  inner.enter(&root.scope, &root);
  below.enter(&inner, &root);
  BasicCancelEffects<StdEnv> effects;
  inner.cancel(reason("inner"), effects);
  EXPECT_EQ(below.reason().get().message, "inner");
  EXPECT_FALSE(inner.cancelled_from_outside());
  root.scope.cancel(reason("outer"), effects);
  EXPECT_EQ(below.reason().get().message, "inner");
  EXPECT_EQ(inner.own_reason().get().message, "inner");
  EXPECT_TRUE(inner.cancelled_from_outside());
  EXPECT_EQ(inner.outside_reason().get().message, "outer");
  (void)below.exit();
  (void)inner.exit();
}

TEST(Scope, OfOneThatIsReachedFromOutsideFirstTheOwnReasonIsDropped) {
  Root root;
  Scope inner, below;
  inner.enter(&root.scope, &root);
  below.enter(&inner, &root);
  BasicCancelEffects<StdEnv> effects;
  root.scope.cancel(reason("outer"), effects);
  EXPECT_TRUE(inner.cancelled());
  EXPECT_FALSE(inner.cancelled_itself());
  EXPECT_TRUE(inner.cancel(reason("inner"), effects));
  EXPECT_FALSE(inner.cancel(reason("again"), effects));
  EXPECT_TRUE(inner.cancelled_itself());
  EXPECT_FALSE(inner.own_reason());
  EXPECT_EQ(below.reason().get().message, "outer");
  (void)below.exit();
  (void)inner.exit();
  EXPECT_EQ(root.cancels.load(), 1U);
}

TEST(Scope, ClosedOneIsNotCancelledAnyMore) {
  Root root;
  root.scope.close();
  BasicCancelEffects<StdEnv> effects;
  EXPECT_FALSE(root.scope.cancel(reason("late"), effects));
  EXPECT_FALSE(root.scope.cancelled());
}

TEST(Scope, ACancelledScopeRefusesToPark) {
  Root root;
  Scope child;
  child.enter(&root.scope, &root);
  BasicCancelEffects<StdEnv> effects;
  root.scope.cancel(reason("x"), effects);
  Parked late(child);
  EXPECT_FALSE(late.parked);
  (void)child.exit();
}

TEST(Scope, AMaskStopsWhatComesFromOutsideOnly) {
  Root root;
  Scope mask, inside;
  mask.enter(&root.scope, &root, ScopeKind::masked);
  inside.enter(&mask, &root);
  Parked parked(inside);
  BasicCancelEffects<StdEnv> effects;
  root.scope.cancel(reason("outside"), effects);
  EXPECT_EQ(count(effects), 0);
  EXPECT_FALSE(inside.cancelled());
  EXPECT_FALSE(mask.cancelled());
  EXPECT_TRUE(root.scope.cancelled());
  mask.cancel(reason("itself"), effects);
  EXPECT_EQ(count(effects), 1);
  EXPECT_TRUE(inside.cancelled());
  EXPECT_EQ(inside.reason().get().message, "itself");
  (void)inside.exit();
  (void)mask.exit();
}

TEST(Scope, AWaiterThatCompletedIsNotClaimed) {
  Root root;
  Parked done(root.scope), waiting(root.scope);
  EXPECT_TRUE(done.state.try_complete());
  BasicCancelEffects<StdEnv> effects;
  root.scope.cancel(reason("x"), effects);
  EXPECT_EQ(count(effects), 1);
  EXPECT_EQ(effects.waiters, &waiting);
  EXPECT_FALSE(waiting.state.try_complete());
  root.scope.unpark(done);
}

TEST(Scope, ATaskBornInACancelledGroupIsBornCancelled) {
  Root parent;
  Scope group;
  group.enter(&parent.scope, &parent);
  BasicCancelEffects<StdEnv> effects;
  group.cancel(reason("over"), effects);
  TaskCore core;
  Scope child;
  EXPECT_FALSE(child.enter_root(&group, &core));
  EXPECT_TRUE(child.cancelled());
  (void)child.exit();
  (void)group.exit();
}

TEST(Scope, CancellationReachesTasksInAGroup) {
  Root parent;
  Scope group;
  group.enter(&parent.scope, &parent);
  TaskCore core;
  Scope child, below;
  EXPECT_TRUE(child.enter_root(&group, &core));
  below.enter(&child, &core);
  Parked parked(below);
  EXPECT_FALSE(below.cancelled());
  BasicCancelEffects<StdEnv> effects;
  parent.scope.cancel(reason("all"), effects);
  EXPECT_EQ(count(effects), 1);
  EXPECT_TRUE(below.cancelled());
  EXPECT_EQ(core.cancels.load(), 1U);
  (void)below.exit();
  (void)child.exit();
  (void)group.exit();
}

TEST(Scope, DeepTreesAreLinkedAndSweptWithoutRecursion) {
  Root root;
  const std::size_t depth = scaled(200'000);
  std::vector<Scope> scopes(depth);
  Scope* above = &root.scope;
  for (Scope& scope : scopes) {
    scope.enter(above, &root);
    above = &scope;
  }
  Parked parked(*above);
  EXPECT_TRUE(parked.parked);
  BasicCancelEffects<StdEnv> effects;
  root.scope.cancel(reason("x"), effects);
  EXPECT_EQ(count(effects), 1);
  EXPECT_TRUE(above->cancelled());
  for (std::size_t i = depth; i > 0; --i) (void)scopes[i - 1].exit();
}

// Every atomic access is counted, locks included: no clock takes part.
struct CountingEnv : StdEnv {
  static inline std::size_t accesses = 0;

  template <class T>
  class Atomic {
   public:
    Atomic() = default;
    explicit Atomic(T value) : value_(value) {}
    T load(std::memory_order order) const { return counted().load(order); }
    void store(T value, std::memory_order order) { counted().store(value, order); }
    T exchange(T value, std::memory_order order) { return counted().exchange(value, order); }
    T fetch_add(T value, std::memory_order order) { return counted().fetch_add(value, order); }
    T fetch_sub(T value, std::memory_order order) { return counted().fetch_sub(value, order); }
    bool compare_exchange_strong(T& expected, T value, std::memory_order success,
                                 std::memory_order failure) {
      return counted().compare_exchange_strong(expected, value, success, failure);
    }

   private:
    std::atomic<T>& counted() const {
      ++accesses;
      return value_;
    }
    mutable std::atomic<T> value_{};
  };
};

// A task with scopes one below the other. Whoever stands in one of them asks what a combinator asks
// when it begins or ends there.
class CountedNest {
 public:
  using CountedScope = BasicScope<CountingEnv>;

  explicit CountedNest(std::size_t depth) : scopes_(depth) { root_.enter_root(nullptr, &task_); }
  ~CountedNest() { (void)root_.exit(); }

  void enter(ScopeKind outermost = ScopeKind::plain) {
    CountedScope* above = &root_;
    for (CountedScope& scope : scopes_) {
      ask(*above);
      scope.enter(above, &task_, above == &root_ ? outermost : ScopeKind::plain);
      above = &scope;
    }
  }
  void park() {
    waiter_.state.set(WaitPhase::waiting);
    EXPECT_TRUE(scopes_.back().park(waiter_));
  }
  void cancel(std::size_t level) { EXPECT_TRUE(scopes_[level].cancel(reason("x"), effects_)); }
  void cancel_root() { EXPECT_TRUE(root_.cancel(reason("x"), effects_)); }
  bool leave() {
    for (std::size_t i = scopes_.size(); i > 0; --i) {
      CountedScope& scope = scopes_[i - 1];
      ask(scope);
      (void)scope.own_reason();
      (void)scope.exit();
      (void)scope.cancelled_from_outside();
      (void)scope.outside_reason();
    }
    return effects_.waiters == &waiter_;
  }

 private:
  static void ask(CountedScope& scope) {
    EXPECT_EQ(static_cast<bool>(scope.reason()), scope.cancelled());
  }

  BasicTaskCore<CountingEnv> task_;
  CountedScope root_;
  std::vector<CountedScope> scopes_;
  BasicWaiter<CountingEnv> waiter_;
  BasicCancelEffects<CountingEnv> effects_;
};

// Twice as many scopes cost twice as much, whatever is cancelled in which order.
template <class F>
void expect_linear(const char* what, F&& run) {
  const auto counted = [&](std::size_t depth) {
    CountingEnv::accesses = 0;
    CountedNest nest(depth);
    run(nest, depth);
    return static_cast<double>(CountingEnv::accesses);
  };
  constexpr std::size_t kDepth = 2000;
  const double once = counted(kDepth);
  const double twice = counted(2 * kDepth);
  EXPECT_LE(twice, 2.01 * once + 100) << what;
  EXPECT_LE(once, 100.0 * kDepth) << what;
}

TEST(Scope, ANestIsCancelledAndLeftInStepsInProportionToItsDepth) {
  expect_linear("somebody waits, the outermost is cancelled", [](CountedNest& nest, std::size_t) {
    nest.enter();
    nest.park();
    nest.cancel(0);
    EXPECT_TRUE(nest.leave());
  });
  expect_linear("nobody has waited", [](CountedNest& nest, std::size_t) {
    nest.enter();
    nest.cancel_root();
    nest.leave();
  });
  expect_linear("the task is cancelled before", [](CountedNest& nest, std::size_t) {
    nest.cancel_root();
    nest.enter();
    nest.leave();
  });
  expect_linear("below a mask in a cancelled task", [](CountedNest& nest, std::size_t) {
    nest.cancel_root();
    nest.enter(ScopeKind::masked);
    nest.park();
    EXPECT_FALSE(nest.leave());
  });
  expect_linear("each is cancelled, from without", [](CountedNest& nest, std::size_t depth) {
    nest.enter();
    nest.park();
    for (std::size_t level = 0; level < depth; ++level) nest.cancel(level);
    EXPECT_TRUE(nest.leave());
  });
  expect_linear("each is cancelled, from within", [](CountedNest& nest, std::size_t depth) {
    nest.enter();
    nest.park();
    for (std::size_t level = depth; level > 0; --level) nest.cancel(level - 1);
    EXPECT_TRUE(nest.leave());
  });
}

TEST(Scope, TokensFollowTheirScopeAndThenTheEnclosingOnes) {
  Root root;
  CancelState* inner_token = nullptr;
  {
    Scope inner;
    inner.enter(&root.scope, &root);
    inner_token = token_state_of(inner);
    CancelState* const again = token_state_of(inner);
    EXPECT_EQ(inner_token, again);
    again->release();
    EXPECT_FALSE(inner_token->cancelled());
    leave_scope(inner);
  }
  EXPECT_FALSE(inner_token->cancelled());
  EXPECT_TRUE(cancel_scope_now(root.scope, reason("later")));
  EXPECT_TRUE(inner_token->cancelled());
  EXPECT_EQ(inner_token->reason().get().message, "later");
  inner_token->release();
}

TEST(Scope, ATokenLeftBehindInACancelledEnclosingScopeIsCancelled) {
  Root root;
  Scope mask, inner;
  mask.enter(&root.scope, &root, ScopeKind::masked);
  inner.enter(&mask, &root);
  CancelState* const token = token_state_of(inner);
  cancel_scope_now(root.scope, reason("outside"));
  EXPECT_FALSE(token->cancelled());
  leave_scope(inner);
  EXPECT_FALSE(token->cancelled());
  leave_scope(mask);  // a mask that has ended shields no longer
  EXPECT_TRUE(token->cancelled());
  token->release();
}

TEST(Scope, ATokenThatNobodyKeepsIsDroppedWithItsScope) {
  Root root;
  for (int i = 0; i < 1000; ++i) {
    Scope inner;
    inner.enter(&root.scope, &root);
    token_state_of(inner)->release();
    leave_scope(inner);
  }
  EXPECT_EQ(root.scope.take_tokens(), nullptr);  // else a long-lived task would collect them
}

// Threads: some open, park in, complete and leave scopes below one root; others cancel. Every
// parked waiter is claimed by exactly one side, and nothing is touched after it was left.
TEST(Scope, ParkingCompletingLeavingAndCancellingOnManyThreads) {
  for (std::size_t round = 0; round < scaled(600); ++round) {
    Root root;
    Scope group;
    group.enter(&root.scope, &root);
    std::atomic<bool> go{false};
    std::atomic<int> claimed{0};
    std::atomic<int> refused{0};
    std::atomic<int> completed{0};
    constexpr int kWorkers = 3;
    constexpr int kEach = 20;
    std::vector<std::thread> threads;
    for (int t = 0; t < kWorkers; ++t) {
      threads.emplace_back([&] {
        while (!go.load()) std::this_thread::yield();
        for (int i = 0; i < kEach; ++i) {
          Scope outer, inner;
          outer.enter(&group, &root, i % 4 == 0 ? ScopeKind::masked : ScopeKind::plain);
          inner.enter(&outer, &root);
          Waiter waiter;
          waiter.state.set(WaitPhase::waiting);
          if (!inner.park(waiter)) {
            EXPECT_NE(i % 4, 0);
            ++refused;
          } else if (waiter.state.try_complete()) {
            inner.unpark(waiter);
            ++completed;
          } else {
            // The canceller has taken it out of the list; it is ours again when it says so.
            while (waiter.state.phase() != WaitPhase::done_at_once) std::this_thread::yield();
          }
          if (i % 5 == 1) token_state_of(inner)->release();
          leave_scope(inner);
          leave_scope(outer);
        }
      });
    }
    std::thread canceller([&] {
      while (!go.load()) std::this_thread::yield();
      for (std::size_t spin = 0; spin < round % 50 * 20; ++spin) StdEnv::pause();
      BasicCancelEffects<StdEnv> effects;
      EXPECT_TRUE((round % 2 == 0 ? group : root.scope).cancel(reason("now"), effects));
      for (Waiter* w = effects.waiters; w != nullptr;) {
        Waiter* const next = w->scope_next;
        ++claimed;
        w->state.set(WaitPhase::done_at_once);
        w = next;
      }
      for (ScopeToken* token = effects.tokens; token != nullptr;) {
        auto* const state = static_cast<CancelState*>(token);
        token = token->next_token;
        state->drop_source();
        state->release();
      }
    });
    go = true;
    for (auto& thread : threads) thread.join();
    canceller.join();
    ASSERT_EQ(claimed.load() + refused.load() + completed.load(), kWorkers * kEach);
    leave_scope(group);
  }
}

// Whoever keeps a token beyond its scope gets it from the scope around it; that one lets go of
// those that nobody keeps any more, as it may live long.
TEST(Scope, TokensOfScopesThatHaveBeenLeftAreNotCollected) {
  Root root;
  std::size_t let_go = 0;
  CancelState* kept = nullptr;
  const auto leave = [&](Scope& scope) {
    const BasicCancelEffects<StdEnv> effects = scope.exit();
    for (ScopeToken* t = effects.dropped; t != nullptr; t = t->next_token) ++let_go;
    detach_tokens(effects.dropped);
  };
  constexpr std::size_t kRounds = 1000;
  for (std::size_t round = 0; round < kRounds; ++round) {
    Scope block;
    block.enter(&root.scope, &root);
    CancelState* const state = token_state_of(block);
    leave(block);
    EXPECT_TRUE(state->can_be_cancelled());
    if (round == 0) {
      kept = state;
    } else {
      state->release();
    }
  }
  EXPECT_GE(let_go, kRounds - 20);
  EXPECT_TRUE(cancel_scope_now(root.scope, reason("all")));
  EXPECT_TRUE(kept->cancelled());
  kept->release();
}

}  // namespace
}  // namespace magpie::detail
