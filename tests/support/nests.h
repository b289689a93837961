// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Combinators nested in themselves, of each kind, as deep as a test wants. At the bottom is what
// the test gives; each level says when it is left, and what passes from one to the next is counted.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include <unwind.h>

#include <gtest/gtest.h>

#include <magpie/as_completed.h>
#include <magpie/batch.h>
#include <magpie/cancellation.h>
#include <magpie/chain.h>
#include <magpie/config.h>
#include <magpie/gather.h>
#include <magpie/hedge.h>
#include <magpie/limited.h>
#include <magpie/race.h>
#include <magpie/retry.h>
#include <magpie/sleep.h>
#include <magpie/task_group.h>
#include <magpie/timeout.h>
#include <support/next_symbol.h>
#include <support/scale.h>
#include <support/small_stacks.h>
#include <support/step_counter.h>

namespace magpie::test {

using namespace std::chrono_literals;

#if !defined(MAGPIE_TEST_COUNTS_STEPS) || defined(MAGPIE_TSAN) || defined(MAGPIE_ASAN) || \
    !defined(__clang__)
// Of what a sanitizer adds nothing is promised. And which levels a step looks at is the same
// whoever has compiled it: counting takes long, so it is done once.
inline constexpr bool kCounts = false;
#else
inline constexpr bool kCounts = true;

// Nine tenths of what is executed when an error leaves a level are the unwinder's. It looks at the
// frames on the stack and not at levels, and needs no more of them deep down, as the nests on small
// stacks show. So it is left out: from when it is called until it has asked the personality of the
// frame in which it goes on.
extern "C" {
[[gnu::used]] inline _Unwind_Reason_Code _Unwind_RaiseException(_Unwind_Exception* error) {
  static const auto own = next_symbol<decltype(_Unwind_RaiseException)>("_Unwind_RaiseException");
  StepCounter::suspend();
  return own(error);
}
[[gnu::used]] inline void _Unwind_Resume(_Unwind_Exception* error) {
  static const auto own = next_symbol<decltype(_Unwind_Resume)>("_Unwind_Resume");
  StepCounter::suspend();
  own(error);
  __builtin_unreachable();
}
[[gnu::used]] inline _Unwind_Reason_Code __gxx_personality_v0(int version, _Unwind_Action actions,
                                                              _Unwind_Exception_Class of,
                                                              _Unwind_Exception* error,
                                                              _Unwind_Context* context) {
  static const auto own = next_symbol<decltype(__gxx_personality_v0)>("__gxx_personality_v0");
  const _Unwind_Reason_Code code = own(version, actions, of, error, context);
  if (code == _URC_INSTALL_CONTEXT) StepCounter::resume();
  return code;
}
}
#endif

// Counts what happens from when one level is left until the next one further out is: once deep
// down, once near the top.
class Levels {
 public:
  explicit Levels(std::size_t depth) : depth_(depth) {}

  // `height`: how many levels are below the one that has ended, or begins.
  void passes(std::size_t height) {
    if (counting_ != nullptr) *std::exchange(counting_, nullptr) = counter_->stop().instructions;
    passed_.fetch_add(1, std::memory_order_relaxed);
    if (!counter_) return;
    if (height != kMargin && height != depth_ - kMargin) return;
    counting_ = height == kMargin ? &deep_ : &shallow_;
    counter_->start();
  }
  std::size_t passed() const { return passed_.load(std::memory_order_relaxed); }
  void count() {
    if (kCounts) counter_.emplace();
  }

  /// All have been left, and, if it was counted, one deep down costs what one near the top does.
  void expect_the_same_cost(const char* name) const {
    EXPECT_EQ(passed(), depth_);
    if (!counter_) return;
    std::printf("%-28s %7zu deep down, %7zu near the top\n", name, deep_, shallow_);
    EXPECT_GT(shallow_, 0U);
    EXPECT_LE(deep_, shallow_ + shallow_ / 2);
  }

 private:
  // Far enough from the bottom for what waited beside the levels, and ends in any order, to be
  // gone.
  static constexpr std::size_t kMargin = 100;
  const std::size_t depth_;
  std::atomic<std::size_t> passed_{0};
  std::size_t deep_ = 0;
  std::size_t shallow_ = 0;
  std::size_t* counting_ = nullptr;
  std::optional<StepCounter> counter_;
};

struct Nest {
  Levels& levels;
  CancellationSource& source;
  Deadline deadline{};
  Task<void> (*bottom)(Nest&) = nullptr;
  Task<void> (*level)(Nest&, std::size_t) = nullptr;

  Task<void> below(std::size_t height) {
    return height == 0 ? bottom(*this) : level(*this, height);
  }
};

// A local of each level.
class Left {
 public:
  Left(Nest& nest, std::size_t height) : nest_(nest), height_(height) {}
  Left(const Left&) = delete;
  Left& operator=(const Left&) = delete;
  ~Left() { nest_.levels.passes(height_); }

 private:
  Nest& nest_;
  const std::size_t height_;
};

// ---- one level of each kind ---------------------------------------------------------------------

inline Task<void> plain(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await nest.below(height - 1);
}
inline Task<void> in_gather(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await gather(nest.below(height - 1), sleep_for(1h));
}
inline Task<void> in_gather_of_results(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto [result] = co_await gather(return_exceptions, nest.below(height - 1));
  std::move(result).value();
}
inline Task<void> in_gather_limited(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  std::vector<Task<void>> children;
  children.push_back(nest.below(height - 1));
  co_await gather_limited(2, std::move(children));
}
inline Task<void> in_race(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await race(nest.below(height - 1), sleep_for(1h));
}
inline Task<void> in_group(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](TaskGroup& group) -> Task<void> {
    group.spawn(nest.below(height - 1));
    co_return;
  };
  co_await task_group(body);
}
inline Task<void> in_the_body_of_a_group(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](TaskGroup&) -> Task<void> { co_await nest.below(height - 1); };
  co_await task_group(body);
}
inline Task<void> in_timeout(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await timeout(nest.below(height - 1), 2h);
}
inline Task<void> in_timeout_at(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await timeout_at(nest.below(height - 1), nest.deadline);
}
inline Task<void> in_timeout_scope(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](TimeoutScope&) -> Task<void> { co_await nest.below(height - 1); };
  co_await timeout_scope(2h, body);
}
inline Task<void> with_the_token(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await with_token(nest.source.token(), nest.below(height - 1));
}
inline Task<void> in_cancel_scope(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](CancelScope&) -> Task<void> { co_await nest.below(height - 1); };
  Result<void> ended = co_await cancel_scope(body);
  std::move(ended).value();
}
inline Task<void> in_a_mask(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await uncancellable(nest.below(height - 1));
}
inline Task<void> in_a_shield(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await shield(nest.below(height - 1));
}
inline Task<void> with_a_cleanup(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto cleanup = []() -> Task<void> { co_await sleep_for(1us); };
  co_await finally(nest.below(height - 1), cleanup);
}
inline Task<void> in_retry(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto attempt = [&nest, height] { return nest.below(height - 1); };
  co_await retry(attempt, RetryPolicy().max_attempts(1));
}

inline Task<void> in_any(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await any(nest.below(height - 1));
}
inline Task<void> in_staggered_race(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto attempt = [&nest, height] { return nest.below(height - 1); };
  std::vector<TaskFactory<void>> attempts;
  attempts.emplace_back(attempt);
  co_await staggered_race(std::move(attempts), 1h);
}
inline Task<void> in_hedge(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto attempt = [&nest, height] { return nest.below(height - 1); };
  co_await hedge(attempt, HedgeOptions().max_attempts(1));
}
inline Task<void> in_map_concurrent(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto map = [&nest](std::size_t below) { return nest.below(below); };
  const std::array<std::size_t, 1> items{height - 1};
  co_await map_concurrent(items, 2, map);
}
inline Task<void> in_batch(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto map = [&nest](std::size_t below) { return nest.below(below); };
  const std::array<std::size_t, 1> items{height - 1};
  co_await batch(items, 2, map);
}
inline Task<void> in_as_completed(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [](CompletionStream<void>& stream) -> Task<void> {
    auto next = co_await stream.next();
    std::move(next->value).value();
  };
  std::vector<Task<void>> tasks;
  tasks.push_back(nest.below(height - 1));
  co_await as_completed(std::move(tasks), body);
}
inline Task<void> in_chain(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto step = []() -> Task<void> { co_return; };
  co_await chain(nest.below(height - 1), step);
}
inline Task<void> in_try_timeout(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  Result<void> ended = co_await try_timeout(nest.below(height - 1), 2h);
  std::move(ended).value();
}
inline Task<void> as_a_result(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  Result<void> ended = co_await as_result(nest.below(height - 1));
  std::move(ended).value();
}
inline Task<void> in_start_of_a_group(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto child = [&nest, height](ReadySignal<void> ready) -> Task<void> {
    co_await nest.below(height - 1);
    ready.set();
  };
  auto body = [&child](TaskGroup& group) -> Task<void> { co_await group.start<void>(child); };
  co_await task_group(body);
}

// ---- without stack ------------------------------------------------------------------------------

/// So many levels do not fit into one of the stacks below where each of them is a call, which takes
/// 32 bytes or more, in a sanitizer's build 64.
inline constexpr std::size_t kVeryDeep = kScale == 1 ? 10'000 : 5'000;

// ---- all kinds ----------------------------------------------------------------------------------

struct Kind {
  const char* name;
  Task<void> (*level)(Nest&, std::size_t);
  bool counted;  // the others go up like one that is, and to count a step takes its time
};
inline constexpr std::array<Kind, 26> kKinds{{
    {"await", plain, false},
    {"gather", in_gather, true},
    {"gather(return_exceptions)", in_gather_of_results, false},
    {"gather_limited", in_gather_limited, true},
    {"race", in_race, true},
    {"task_group, in a child", in_group, true},
    {"task_group, in the body", in_the_body_of_a_group, true},
    {"timeout", in_timeout, true},
    {"timeout_at, all at once", in_timeout_at, true},
    {"timeout_scope", in_timeout_scope, false},
    {"with_token", with_the_token, true},
    {"cancel_scope", in_cancel_scope, true},
    {"uncancellable", in_a_mask, true},
    {"shield", in_a_shield, false},
    {"finally", with_a_cleanup, false},
    {"retry", in_retry, false},
    {"any", in_any, false},
    {"staggered_race", in_staggered_race, false},
    {"hedge", in_hedge, false},
    {"map_concurrent", in_map_concurrent, false},
    {"batch", in_batch, false},
    {"as_completed", in_as_completed, false},
    {"chain", in_chain, false},
    {"try_timeout", in_try_timeout, false},
    {"as_result", as_a_result, false},
    {"group.start", in_start_of_a_group, false},
}};

}  // namespace magpie::test
