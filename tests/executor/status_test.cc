// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (what becomes of values)

// The bridge to Abseil: what api.md, sections 1 and 2, says of it.

#include <magpie/status.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class StatusTest : public OnMachine {};

std::string message_of(const absl::Status& status) {
  return std::string(status.message());
}

TEST_ON_THREADS(StatusTest, EveryOutcomeHasItsCode) {
  machine.run([&]() -> Task<> {
    Result<int> value = co_await as_result(give(1));
    EXPECT_TRUE(to_status(value).ok());

    Result<int> late = co_await try_timeout(never(), 1s);
    EXPECT_EQ(to_status(late).code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(message_of(to_status(late)), what_of(late.error()));

    JoinHandle<int> handle = executor.spawn(never());
    handle.cancel("not needed");
    Result<int> cancelled = co_await as_result(handle);
    EXPECT_EQ(to_status(cancelled).code(), absl::StatusCode::kCancelled);
    EXPECT_NE(message_of(to_status(cancelled)).find("not needed"), std::string::npos);

    Result<int> failed = co_await as_result(fail("broken"));
    EXPECT_EQ(to_status(failed), absl::UnknownError("broken"));
  });
}

TEST_ON_THREADS(StatusTest, StatusErrorKeepsItsStatus) {
  machine.run([&]() -> Task<> {
    const absl::Status missing = absl::NotFoundError("no such row");
    auto find = [&]() -> Task<int> { co_return value_or_throw(absl::StatusOr<int>(missing)); };
    Result<int> r = co_await as_result(find());
    EXPECT_EQ(to_status(r), missing);
    EXPECT_TRUE(is<StatusError>(r.error()));
    EXPECT_EQ(what_of(r.error()), missing.ToString());
    struct RowError : StatusError {
      using StatusError::StatusError;
    };
    auto derived = [&]() -> Task<int> {
      throw RowError(absl::AbortedError("row"));
      co_return 0;
    };
    Result<int> d = co_await as_result(derived());
    EXPECT_EQ(to_status(d), absl::AbortedError("row"));
  });
}

TEST_ON_THREADS(StatusTest, InnerTimeoutIsNoDeadlineOfTheOuterOne) {
  machine.run([&]() -> Task<> {
    Result<int> inner = co_await try_timeout(timeout(never(), 1s), 1h);
    EXPECT_EQ(to_status(inner).code(), absl::StatusCode::kUnknown);
    Result<int> plain = co_await as_result(timeout(never(), 1s));
    EXPECT_EQ(to_status(plain).code(), absl::StatusCode::kDeadlineExceeded);
  });
}

TEST_ON_THREADS(StatusTest, ErrorsThatAreNoStdExceptions) {
  machine.run([&]() -> Task<> {
    auto odd = []() -> Task<int> {
      throw 42;
      co_return 0;
    };
    Result<int> r = co_await as_result(odd());
    EXPECT_EQ(to_status(r).code(), absl::StatusCode::kUnknown);
    EXPECT_NE(message_of(to_status(r)).find("int"), std::string::npos);
    auto cancels = []() -> Task<int> {
      throw CancelledError();
      co_return 0;
    };
    Result<int> c = co_await as_result(cancels());
    EXPECT_EQ(to_status(c).code(), absl::StatusCode::kCancelled);
  });
}

TEST_ON_THREADS(StatusTest, ToStatusOrOfEveryKindOfValue) {
  machine.run([&]() -> Task<> {
    absl::StatusOr<int> one = to_status_or(co_await as_result(give(1)));
    EXPECT_EQ(*one, 1);
    absl::StatusOr<int> none = to_status_or(co_await as_result(fail("broken")));
    EXPECT_EQ(none.status(), absl::UnknownError("broken"));
    auto pointer = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(2); };
    absl::StatusOr<std::unique_ptr<int>> moved = to_status_or(co_await as_result(pointer()));
    EXPECT_EQ(**moved, 2);
    auto only = []() -> Task<MoveOnly> { co_return MoveOnly(3); };
    absl::StatusOr<MoveOnly> three = to_status_or(co_await as_result(only()));
    EXPECT_EQ(three->value(), 3);
    int here = 4;
    auto refer = [&]() -> Task<int&> { co_return here; };
    absl::StatusOr<std::reference_wrapper<int>> reference =
        to_status_or(co_await as_result(refer()));
    EXPECT_EQ(&reference->get(), &here);
    Result<void> nothing_much = co_await as_result(nothing());
    EXPECT_TRUE(to_status(nothing_much).ok());
    // A Result that is kept is copied.
    const Result<int> kept = co_await as_result(give(5));
    EXPECT_EQ(*to_status_or(kept), 5);
    EXPECT_EQ(kept.value(), 5);
  });
}

TEST(Status, ValueOrThrow) {
  EXPECT_EQ(value_or_throw(absl::StatusOr<int>(1)), 1);
  std::unique_ptr<int> two =
      value_or_throw(absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(2)));
  EXPECT_EQ(*two, 2);
  EXPECT_EQ(value_or_throw(absl::StatusOr<MoveOnly>(MoveOnly(3))).value(), 3);
  EXPECT_NO_THROW(value_or_throw(absl::OkStatus()));
  EXPECT_THROW(value_or_throw(absl::InternalError("x")), StatusError);
  try {
    (void)value_or_throw(absl::StatusOr<int>(absl::DataLossError("gone")));
    ADD_FAILURE();
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "DATA_LOSS: gone");
    EXPECT_EQ(dynamic_cast<const StatusError&>(e).status(), absl::DataLossError("gone"));
  }
  static_assert(std::is_base_of_v<std::runtime_error, StatusError>);
  static_assert(std::is_nothrow_copy_constructible_v<StatusError>);
}

TEST(Status, ErrorThatIsNoneIsMisuse) {
  const absl::Status fine = absl::OkStatus();
  EXPECT_THROW(throw StatusError(fine), std::invalid_argument);
}

}  // namespace
}  // namespace magpie
