// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan (one thread)

#include <magpie/detail/random.h>
#include <magpie/detail/slot.h>
#include <magpie/errors.h>

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace magpie::detail {
namespace {

struct Counted {
  explicit Counted(int the_number) : number(the_number) { ++alive; }
  Counted(Counted&& other) noexcept : number(std::exchange(other.number, -1)) { ++alive; }
  Counted& operator=(Counted&&) = delete;
  ~Counted() { --alive; }
  static inline int alive = 0;
  int number;
};

struct ThrowsWhenMoved {
  ThrowsWhenMoved() = default;
  ThrowsWhenMoved(ThrowsWhenMoved&&) { throw std::runtime_error("cannot be moved"); }
  ThrowsWhenMoved& operator=(ThrowsWhenMoved&&) = delete;
};

struct Pinned {
  explicit Pinned(int the_number) : number(the_number) {}
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  int number;
};

struct Pair {  // an aggregate
  int a;
  std::string b;
};

std::exception_ptr oops() {
  return std::make_exception_ptr(std::runtime_error("oops"));
}

// Not inlined: with AddressSanitizer g++ 12 takes the copy of an empty slot for a read of its
// value.
[[gnu::noinline]] Slot<std::string> copy_of(const Slot<std::string>& slot) {
  return slot;
}

template <class T>
std::string thrown_by_take(Slot<T>& slot) {
  try {
    slot.take();
    return "nothing";
  } catch (const std::exception& e) {
    return e.what();
  } catch (const CancelledError& e) {
    return "cancelled: " + e.reason().message;
  }
}

static_assert(sizeof(Slot<int>) <= 16 && sizeof(Slot<void>) <= 16 && sizeof(Slot<int&>) <= 16);
static_assert(!std::is_polymorphic_v<SlotBase>);
static_assert(std::is_copy_constructible_v<Slot<std::string>>);
static_assert(std::is_copy_constructible_v<Slot<void>> && std::is_copy_constructible_v<Slot<int&>>);
static_assert(!std::is_copy_constructible_v<Slot<std::unique_ptr<int>>>);
static_assert(std::is_nothrow_move_constructible_v<Slot<std::unique_ptr<int>>>);
static_assert(!std::is_copy_assignable_v<Slot<std::unique_ptr<int>>>);
static_assert(!std::is_move_constructible_v<Slot<Pinned>>);
static_assert(!std::is_nothrow_move_constructible_v<Slot<ThrowsWhenMoved>>);
static_assert(noexcept(std::declval<Slot<int>&>().emplace(1)));
static_assert(std::is_same_v<decltype(std::declval<Slot<int&>&>().take()), int&>);
static_assert(std::is_same_v<decltype(std::declval<Slot<void>&>().take()), void>);
static_assert(std::is_same_v<decltype(std::declval<const Slot<int&>&>().value()), int&>);
static_assert(std::is_same_v<decltype(std::declval<const Slot<int>&>().value()), const int&>);

TEST(Slot, IsEmptyAtFirst) {
  Slot<Counted> slot;
  EXPECT_EQ(slot.state(), SlotState::empty);
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Slot, KeepsAValueAndDestroysItOnce) {
  {
    Slot<Counted> slot;
    slot.emplace(5);
    EXPECT_EQ(slot.state(), SlotState::value);
    EXPECT_EQ(slot.value().number, 5);
    EXPECT_EQ(Counted::alive, 1);
    const Counted taken = slot.take();
    EXPECT_EQ(taken.number, 5);
    EXPECT_EQ(slot.value().number, -1) << "moved from, not gone";
    EXPECT_EQ(Counted::alive, 2);
    slot.reset();
    EXPECT_EQ(Counted::alive, 1);
    slot.emplace(6);
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Slot, TakesVoidReferencesMoveOnlyAndConstValues) {
  Slot<void> nothing;
  nothing.emplace();
  nothing.take();
  EXPECT_EQ(nothing.state(), SlotState::value);

  int number = 1;
  Slot<int&> reference;
  reference.emplace(number);
  EXPECT_EQ(&reference.take(), &number);
  EXPECT_EQ(&reference.value(), &number);

  const Slot<const int&> constant = [&] {
    Slot<const int&> slot;
    slot.emplace(number);
    return slot;
  }();
  EXPECT_EQ(&constant.value(), &number);

  Slot<std::unique_ptr<int>> unique;
  unique.emplace(std::make_unique<int>(3));
  EXPECT_EQ(*unique.take(), 3);

  Slot<const std::string> text;
  text.emplace("abc");
  EXPECT_EQ(text.take(), "abc");

  Slot<Pair> pair;
  pair.emplace(1, "b");
  EXPECT_EQ(pair.take().b, "b");

  Slot<Pinned> pinned;
  pinned.emplace(4);
  EXPECT_EQ(pinned.value().number, 4);
}

TEST(Slot, StaysEmptyWhenTheConstructorThrows) {
  struct Throws {
    explicit Throws(bool yes) {
      if (yes) throw std::runtime_error("not today");
    }
  };
  Slot<Throws> slot;
  EXPECT_THROW(slot.emplace(true), std::runtime_error);
  EXPECT_EQ(slot.state(), SlotState::empty);
  slot.emplace(false);
  EXPECT_EQ(slot.state(), SlotState::value);
}

TEST(Slot, RethrowsTheErrorItselfEachTime) {
  Slot<int> slot;
  const std::exception_ptr error = oops();
  slot.set_error(error);
  EXPECT_EQ(slot.state(), SlotState::error);
  EXPECT_EQ(slot.error(), error);
  EXPECT_EQ(thrown_by_take(slot), "oops");
  EXPECT_EQ(thrown_by_take(slot), "oops");
}

TEST(Slot, ThrowsCancelledErrorWithItsReason) {
  Slot<void> slot;
  slot.set_cancelled(ReasonRef::make(CancelKind::requested, "stop"));
  EXPECT_EQ(slot.state(), SlotState::cancelled);
  EXPECT_EQ(slot.reason().get().message, "stop");
  EXPECT_EQ(thrown_by_take(slot), "cancelled: stop");
}

TEST(Slot, TakenWhileEmptySaysSo) {
  Slot<int> slot;
  EXPECT_THROW(slot.take(), InvalidStateError);
}

TEST(Slot, SortsTheCurrentException) {
  Slot<int> slot;
  try {
    throw CancelledError({CancelKind::timeout, "late"});
  } catch (...) {
    slot.capture_current_exception();
  }
  ASSERT_EQ(slot.state(), SlotState::cancelled);
  EXPECT_EQ(slot.reason().kind(), CancelKind::timeout);
  slot.reset();
  try {
    throw 42;
  } catch (...) {
    slot.capture_current_exception();
  }
  ASSERT_EQ(slot.state(), SlotState::error);
  EXPECT_EQ(*exception_cast<int>(slot.error()), 42);
}

TEST(Slot, ReplacesWhatItHeld) {
  Slot<Counted> slot;
  slot.emplace(1);
  slot.set_error(oops());
  EXPECT_EQ(Counted::alive, 0);
  slot.set_cancelled(ReasonRef::of_kind(CancelKind::shutdown));
  EXPECT_EQ(slot.state(), SlotState::cancelled);
}

TEST(Slot, CopiesEveryState) {
  Slot<std::string> slot;
  const Slot<std::string> empty = copy_of(slot);
  EXPECT_EQ(empty.state(), SlotState::empty);
  slot.emplace("a string that is too long to be short");
  Slot<std::string> copy = slot;
  EXPECT_EQ(copy.value(), slot.value());
  slot.set_error(oops());
  copy = slot;
  EXPECT_EQ(copy.error(), slot.error());
  slot.set_cancelled(ReasonRef::make(CancelKind::requested, "stop"));
  copy = slot;
  EXPECT_EQ(copy.reason(), slot.reason());
  const Slot<std::string>& alias = copy;
  copy = alias;
  EXPECT_EQ(copy.reason().get().message, "stop");
}

TEST(Slot, KeepsAFailureThatIsMovedAway) {
  Slot<std::unique_ptr<int>> slot;
  slot.set_error(oops());
  Slot<std::unique_ptr<int>> other = std::move(slot);
  EXPECT_EQ(slot.error(), other.error());
  EXPECT_NE(slot.error(), nullptr);
  other.set_cancelled(ReasonRef::make(CancelKind::requested, "stop"));
  slot = std::move(other);
  EXPECT_EQ(slot.reason().get().message, "stop");
  EXPECT_TRUE(other.reason());
}

TEST(Slot, HoldsTheExceptionOfAMoveThatFailed) {
  Slot<ThrowsWhenMoved> from;
  from.emplace();
  EXPECT_THROW(Slot<ThrowsWhenMoved>{std::move(from)}, std::runtime_error);
  Slot<ThrowsWhenMoved> to;
  to.emplace();
  EXPECT_THROW(to = std::move(from), std::runtime_error);
  EXPECT_EQ(to.state(), SlotState::error);
  EXPECT_THROW(to.take(), std::runtime_error);
  EXPECT_THROW(from.take(), std::runtime_error);
}

// The reference implementation's first numbers for the state {1, 2}.
TEST(Random, IsXoroshiro128PlusPlus) {
  Random random(1, 2);
  for (std::uint64_t expected :
       {std::uint64_t{393217}, std::uint64_t{669327710093319}, std::uint64_t{1732421326133921491},
        std::uint64_t{11394790081659126983u}, std::uint64_t{9555452776773192676u}}) {
    EXPECT_EQ(random(), expected);
  }
  // As published with SplitMix64 for the seed 1234567.
  std::uint64_t state = 1234567;
  EXPECT_EQ(splitmix64(state), 6457827717110365317u);
  EXPECT_EQ(splitmix64(state), 3203168211198807973u);
}

TEST(Random, RepeatsWithTheSeedAndDiffersWithout) {
  Random a(7);
  Random b(7);
  Random c(8);
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t number = a();
    EXPECT_EQ(number, b());
    equal += number == c() ? 1 : 0;
  }
  EXPECT_LT(equal, 2);
  static_assert(std::uniform_random_bit_generator<Random>);
}

TEST(Random, IsEvenBelowABound) {
  Random random(0);
  std::array<int, 6> counts{};
  for (int i = 0; i < 60'000; ++i) counts.at(random.below(6)) += 1;
  for (int count : counts) EXPECT_NEAR(count, 10'000, 500);  // five standard deviations
  EXPECT_EQ(random.below(0), 0u);
  EXPECT_EQ(random.below(1), 0u);
  // Three quarters of the range: without rejection the lower third would come twice as often.
  const std::uint64_t bound = std::uint64_t{3} << 62;
  int low = 0;
  for (int i = 0; i < 30'000; ++i) low += random.below(bound) < bound / 3 ? 1 : 0;
  EXPECT_NEAR(low, 10'000, 500);
}

TEST(Random, GivesUnitsBelowOne) {
  Random random(3);
  double sum = 0;
  for (int i = 0; i < 10'000; ++i) {
    const double unit = random.unit();
    ASSERT_GE(unit, 0.0);
    ASSERT_LT(unit, 1.0);
    sum += unit;
  }
  EXPECT_NEAR(sum / 10'000, 0.5, 0.02);
}

}  // namespace
}  // namespace magpie::detail
