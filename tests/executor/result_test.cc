// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (one thread, no coroutine)

#include <magpie/result.h>

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace magpie {
namespace {

using detail::ReasonRef;
using detail::Slot;

template <class T, class... A>
Result<T> with_value(A&&... arguments) {
  Slot<T> slot;
  slot.emplace(std::forward<A>(arguments)...);
  return Result<T>(std::move(slot));
}

template <class T, class E>
Slot<T> slot_with(const E& error) {
  Slot<T> slot;
  slot.set_error(std::make_exception_ptr(error));
  return slot;
}

template <class T, class E>
Result<T> with_error(const E& error) {
  return Result<T>(slot_with<T>(error));
}

template <class T>
Result<T> cancelled(std::string message) {
  Slot<T> slot;
  slot.set_cancelled(ReasonRef::make(CancelKind::requested, std::move(message)));
  return Result<T>(std::move(slot));
}

// The number of outcomes that the result claims to have; is one, always.
template <class T>
int claims(const Result<T>& result) {
  return result.has_value() + result.is_error() + result.is_timeout() + result.is_cancelled();
}

static_assert(!std::is_default_constructible_v<Result<int>>);
static_assert(std::is_copy_constructible_v<Result<int>> &&
              std::is_copy_constructible_v<Result<void>>);
static_assert(!std::is_copy_constructible_v<Result<std::unique_ptr<int>>>);
static_assert(std::is_nothrow_move_constructible_v<Result<std::unique_ptr<int>>>);
static_assert(std::is_move_assignable_v<Result<std::unique_ptr<int>>>);
static_assert(sizeof(Result<int>) <= 16);
static_assert(std::is_same_v<decltype(std::declval<Result<int>&>().value()), int&>);
static_assert(std::is_same_v<decltype(std::declval<const Result<int>&>().value()), const int&>);
static_assert(std::is_same_v<decltype(std::declval<Result<int>>().value()), int&&>);
static_assert(std::is_same_v<decltype(std::declval<const Result<int>>().value()), const int&&>);
static_assert(std::is_same_v<decltype(std::declval<Result<int&>&>().value()), int&>);
static_assert(std::is_same_v<decltype(std::declval<const Result<int&>&>().value()), int&>);
static_assert(std::is_same_v<decltype(std::declval<Result<int&>>().value()), int&>);
static_assert(std::is_same_v<decltype(std::declval<const Result<int&>>().value()), int&>);
static_assert(std::is_void_v<decltype(std::declval<Result<void>&>().value())>);
static_assert(std::is_void_v<decltype(std::declval<const Result<void>>().value())>);
static_assert(!std::is_convertible_v<Result<int>, bool>);

TEST(Result, WithAValueGivesIt) {
  Result<std::string> result = with_value<std::string>("text");
  EXPECT_EQ(result.outcome(), Outcome::value);
  EXPECT_TRUE(result);
  EXPECT_EQ(claims(result), 1);
  EXPECT_EQ(result.error(), nullptr);
  result.value() += "!";
  EXPECT_EQ(std::as_const(result).value(), "text!");
  const std::string moved = std::move(result).value();
  EXPECT_EQ(moved, "text!");
  EXPECT_EQ(result.outcome(), Outcome::value) << "moved from, but not empty";
}

TEST(Result, WithAnErrorThrowsItFromEveryAccess) {
  Result<std::string> result = with_error<std::string>(std::runtime_error("oops"));
  EXPECT_EQ(result.outcome(), Outcome::error);
  EXPECT_FALSE(result);
  EXPECT_EQ(claims(result), 1);
  EXPECT_THROW(result.value(), std::runtime_error);
  EXPECT_THROW(std::as_const(result).value(), std::runtime_error);
  EXPECT_THROW(std::move(result).value(), std::runtime_error);
  EXPECT_NE(detail::exception_cast<std::runtime_error>(result.error()), nullptr);
}

TEST(Result, WithATimeoutErrorIsATimeoutUnlessItCameFromFurtherIn) {
  struct Slow : TimeoutError {
    Slow() : TimeoutError("slow") {}
  };
  const Result<int> plain = with_error<int>(TimeoutError());
  EXPECT_EQ(plain.outcome(), Outcome::timed_out);
  EXPECT_EQ(claims(plain), 1);
  EXPECT_TRUE(with_error<int>(Slow()).is_timeout());

  const auto inner = Result<int>::from_slot(slot_with<int>(TimeoutError()), true);
  EXPECT_EQ(inner.outcome(), Outcome::error);
  EXPECT_EQ(claims(inner), 1);
  const Result<int> copy = inner;
  EXPECT_TRUE(copy.is_error()) << "a copy is the same in this too";
  EXPECT_TRUE(Result<int>::from_slot(slot_with<int>(TimeoutError())).is_timeout());
}

TEST(Result, OfATimeoutOfItsOwnIsOneWhateverTheExceptionIs) {
  const auto result = Result<int>::timed_out(std::make_exception_ptr(TimeoutError("mine")));
  EXPECT_EQ(result.outcome(), Outcome::timed_out);
  EXPECT_THROW(result.value(), TimeoutError);
  const Result<void> moved =
      Result<void>::timed_out(std::make_exception_ptr(std::runtime_error("special")));
  EXPECT_TRUE(moved.is_timeout());
}

TEST(Result, ForgetsTheMarkOfWhatItIsAssignedOver) {
  auto result = Result<int>::from_slot(slot_with<int>(TimeoutError()), true);
  result = with_error<int>(TimeoutError());
  EXPECT_TRUE(result.is_timeout());
}

TEST(Result, ThatWasCancelledHasACancelledErrorWithTheReason) {
  const Result<int> result = cancelled<int>("stop");
  EXPECT_EQ(result.outcome(), Outcome::cancelled);
  EXPECT_EQ(claims(result), 1);
  const auto error = result.error();
  const auto* stored = detail::exception_cast<CancelledError>(error);
  ASSERT_NE(stored, nullptr);
  EXPECT_EQ(stored->reason().message, "stop");
  try {
    result.value();
    FAIL();
  } catch (const CancelledError& thrown) {
    EXPECT_EQ(thrown.reason().message, "stop");
  }
}

TEST(Result, OfVoidThrowsOrDoesNot) {
  const Result<void> good = with_value<void>();
  EXPECT_NO_THROW(good.value());
  EXPECT_TRUE(good);
  EXPECT_THROW(with_error<void>(std::runtime_error("oops")).value(), std::runtime_error);
}

TEST(Result, OfAReferenceNamesTheObject) {
  int number = 1;
  int other = 2;
  Result<int&> result = with_value<int&>(number);
  EXPECT_EQ(&result.value(), &number);
  EXPECT_EQ(&std::as_const(result).value(), &number);
  EXPECT_EQ(&result.value_or(other), &number);
  result = with_value<int&>(other);
  EXPECT_EQ(number, 1) << "assignment binds anew";
  EXPECT_EQ(&result.value(), &other);
  EXPECT_EQ(&cancelled<int&>("").value_or(number), &number);
}

TEST(Result, GivesTheOtherValueWhenItHasNone) {
  EXPECT_EQ(with_value<int>(1).value_or(2), 1);
  EXPECT_EQ(with_error<int>(std::runtime_error("oops")).value_or(2), 2);
  const Result<std::string> stopped = cancelled<std::string>("stop");
  EXPECT_EQ(stopped.value_or("other"), "other");
  EXPECT_EQ(*with_value<std::unique_ptr<int>>(std::make_unique<int>(1)).value_or(nullptr), 1);
  EXPECT_EQ(with_error<std::unique_ptr<int>>(TimeoutError()).value_or(nullptr), nullptr);
  EXPECT_EQ(stopped.value_or({}), "");
}

TEST(Result, MovedFromKeepsItsOutcome) {
  Result<int> failed = with_error<int>(std::runtime_error("oops"));
  const Result<int> moved = std::move(failed);
  EXPECT_TRUE(failed.is_error());
  EXPECT_EQ(failed.error(), moved.error());
  EXPECT_NE(failed.error(), nullptr);
  Result<std::unique_ptr<int>> unique = cancelled<std::unique_ptr<int>>("stop");
  unique = with_value<std::unique_ptr<int>>(std::make_unique<int>(5));
  EXPECT_EQ(*unique.value(), 5);
}

TEST(Result, LivesInAVector) {
  std::vector<Result<std::unique_ptr<int>>> results;
  for (int i = 0; i < 100; ++i) {
    results.push_back(i % 2 == 0 ? with_value<std::unique_ptr<int>>(std::make_unique<int>(i))
                                 : cancelled<std::unique_ptr<int>>(std::to_string(i)));
  }
  results.erase(results.begin());
  EXPECT_TRUE(results[0].is_cancelled());
  EXPECT_EQ(*results[1].value(), 2);
}

}  // namespace
}  // namespace magpie
