// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (one thread, no coroutine)

#include <magpie/clock.h>

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <ratio>
#include <stdexcept>
#include <type_traits>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using Seconds = std::chrono::duration<double>;

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

// As an argument, the way users hand durations over.
std::int64_t count(Duration duration) {
  return duration.count();
}
std::int64_t count_optional(std::optional<Duration> duration) {
  return duration ? duration->count() : -1;
}

TEST(Duration, KeepsWholeNanoseconds) {
  EXPECT_EQ(count(1ns), 1);
  EXPECT_EQ(count(20ms), 20'000'000);
  EXPECT_EQ(count(2h), 7'200'000'000'000);
  EXPECT_EQ(count(std::chrono::days(365)), 31'536'000'000'000'000);
  EXPECT_EQ(count(Duration()), 0);
}

TEST(Duration, RoundsUpWhatIsFinerThanANanosecond) {
  using Picoseconds = std::chrono::duration<std::int64_t, std::pico>;
  EXPECT_EQ(count(Picoseconds(1)), 1);
  EXPECT_EQ(count(Picoseconds(1000)), 1);
  EXPECT_EQ(count(Picoseconds(1001)), 2);
  EXPECT_EQ(count(Picoseconds(most)), most / 1000 + 1);
  EXPECT_EQ(count(std::chrono::duration<int, std::ratio<1, 3>>(1)), 333'333'334);
  EXPECT_EQ(count(std::chrono::duration<int, std::atto>(1)), 1);
}

TEST(Duration, RoundsFloatingTimesUpInTheirOwnPrecision) {
  EXPECT_EQ(count(Seconds(0.1)), 100'000'000);
  EXPECT_EQ(count(std::chrono::duration<float>(0.1f)), 100'000'000);
  EXPECT_EQ(count(std::chrono::duration<double, std::milli>(1.5)), 1'500'000);
  EXPECT_EQ(count(std::chrono::duration<double, std::nano>(1.25)), 2);
  EXPECT_EQ(count(std::chrono::duration<double, std::nano>(1.0)), 1);
  EXPECT_EQ(count(std::chrono::duration<long double, std::nano>(2.000001L)), 3);
  EXPECT_EQ(count(std::chrono::duration<double, std::pico>(0.5)), 1);
  EXPECT_EQ(count(Seconds(std::numeric_limits<double>::denorm_min())), 1);
}

// 24 bits hold neither 30,000,000,000 nor the nanoseconds of a minute.
TEST(Duration, KeepsWholeNanosecondsOfAFloatThatTheFloatItselfCannotCount) {
  EXPECT_EQ(count(std::chrono::duration<float>(30.0f)), 30'000'000'000);
  EXPECT_EQ(count(std::chrono::duration<float>(2.5f)), 2'500'000'000);
  EXPECT_EQ(count(std::chrono::duration<float, std::ratio<60>>(0.5f)), 30'000'000'000);
  EXPECT_EQ(count(std::chrono::duration<float, std::ratio<3600>>(1.0f)), 3'600'000'000'000);
  EXPECT_EQ(count(std::chrono::duration<float, std::ratio<86400>>(365.0f)), 31'536'000'000'000'000);
  static_assert(Duration(std::chrono::duration<float>(30.0f)) == Duration(30s));
  EXPECT_TRUE(Duration(std::chrono::duration<float>(9.3e9f)).is_never());
  EXPECT_TRUE(Duration(std::chrono::duration<float>(3e38f)).is_never());
}

TEST(Duration, TakesWhatIsBelowZeroAsAtOnce) {
  EXPECT_EQ(count(-1ns), 0);
  EXPECT_EQ(count(std::chrono::nanoseconds::min()), 0);
  EXPECT_EQ(count(std::chrono::hours::min()), 0);
  EXPECT_EQ(count(Seconds(-0.5)), 0);
  EXPECT_EQ(count(Seconds(-0.0)), 0);
  EXPECT_EQ(count(Seconds(-std::numeric_limits<double>::infinity())), 0);
}

TEST(Duration, TakesWhatDoesNotFitAsNever) {
  EXPECT_TRUE(Duration(std::chrono::hours::max()).is_never());
  EXPECT_TRUE(Duration(std::chrono::nanoseconds::max()).is_never());
  EXPECT_TRUE(Duration(std::chrono::years(293)).is_never());
  EXPECT_FALSE(Duration(std::chrono::years(292)).is_never());
  EXPECT_TRUE(Duration(Seconds(1e300)).is_never());
  EXPECT_TRUE(Duration(Seconds(std::numeric_limits<double>::max())).is_never());
  EXPECT_TRUE(Duration(Seconds(std::numeric_limits<double>::infinity())).is_never());
  EXPECT_TRUE(Duration(std::chrono::duration<float>(9.3e9f)).is_never());
  EXPECT_TRUE((Duration(std::chrono::duration<std::uint64_t>(UINT64_MAX)).is_never()));
  EXPECT_TRUE((Duration(std::chrono::duration<int, std::exa>(1)).is_never()));
  EXPECT_TRUE((Duration(std::chrono::duration<double, std::exa>(1)).is_never()));
  EXPECT_EQ(Duration::never().count(), most);
}

TEST(Duration, HasRoomForTheLargestFloatBelowTheLimit) {
  // 2^63 - 1024 is the last double below 2^63.
  const double last = std::nextafter(9223372036854775808.0, 0.0);
  EXPECT_EQ(count(std::chrono::duration<double, std::nano>(last)), most - 1023);
  EXPECT_TRUE(Duration(std::chrono::duration<double, std::nano>(9223372036854775808.0)).is_never());
}

TEST(Duration, RefusesNotANumber) {
  EXPECT_THROW(count(Seconds(std::numeric_limits<double>::quiet_NaN())), std::invalid_argument);
  EXPECT_THROW(count(std::chrono::duration<float>(std::nanf(""))), std::invalid_argument);
  EXPECT_THROW(count_optional(Seconds(std::nan(""))), std::invalid_argument);
}

TEST(Duration, ConvertsWhereItIsOptional) {
  EXPECT_EQ(count_optional(5us), 5000);
  EXPECT_EQ(count_optional(Seconds(0.25)), 250'000'000);
  EXPECT_EQ(count_optional(std::optional<std::chrono::milliseconds>(3ms)), 3'000'000);
  EXPECT_EQ(count_optional(std::optional<std::chrono::milliseconds>()), -1);
  EXPECT_EQ(count_optional({}), -1);
  std::optional<Duration> stored;
  stored = -3s;
  EXPECT_EQ(stored->count(), 0);
}

TEST(Duration, ComparesWithChronoAndConvertsBackExplicitly) {
  constexpr Duration duration = 5ms;
  constexpr Duration never = Duration::never();
  static_assert(never > duration && Duration(5ns).count() == 5);
  static_assert(duration == 5000us && duration < 6ms && 1s > duration);
  static_assert(duration.to_chrono() == 5ms);
  static_assert(static_cast<std::chrono::nanoseconds>(duration).count() == 5'000'000);
  static_assert(!std::is_convertible_v<Duration, std::chrono::nanoseconds>);
  static_assert(!std::is_convertible_v<int, Duration>, "a bare number has no unit");
  static_assert(sizeof(Duration) == 8 && std::is_trivially_copyable_v<Duration>);
  const bool flag = duration.count() > 0;
  EXPECT_EQ((flag ? duration : 7ms), 5ms);
}

TEST(Deadline, IsNeverPastTheEndOfTime) {
  const Deadline start(1'000ns);
  EXPECT_EQ(deadline_after(start, 5ns), Deadline(1'005ns));
  EXPECT_EQ(deadline_after(start, -5ns), start);
  EXPECT_EQ(deadline_after(start, Duration::never()), Deadline::max());
  EXPECT_EQ(deadline_after(start, std::chrono::nanoseconds(most - 1)), Deadline::max());
  EXPECT_EQ(deadline_after(start, std::chrono::nanoseconds(most - 1001)),
            Deadline(most * 1ns - 1ns));
  EXPECT_EQ(deadline_after(Deadline::max(), 1ns), Deadline::max());
  // Before the epoch there is room for more than the longest duration: it is never all the same.
  EXPECT_EQ(deadline_after(Deadline(-10ns), Duration::never()), Deadline::max());
}

TEST(Duration, IsCalculatedWithAndDoesNotOverflow) {
  static_assert(Duration(5ms) + 1ms == 6ms && 1ms + Duration(5ms) == 6ms &&
                Duration(5ms) - 1ms == 4ms);
  static_assert(Duration(5ms) * 2 == 10ms && 2U * Duration(5ms) == 10ms &&
                Duration(1s) * 0.25 == 250ms);
  EXPECT_EQ(Duration(1ms) - 2ms, 0ms);
  EXPECT_EQ(Duration(1ms) * -1, 0ms);
  EXPECT_EQ(Duration(1ms) * -0.5, 0ms);
  EXPECT_THROW(static_cast<void>(Duration(1ms) * std::nan("")), std::invalid_argument);
  EXPECT_TRUE((Duration::never() + 1ns).is_never());
  EXPECT_TRUE((Duration::never() - Duration::never()).is_never());
  EXPECT_TRUE((Duration::never() * 0.5).is_never());
  EXPECT_TRUE((Duration(std::chrono::hours(24 * 365 * 200)) * 2).is_never());
  EXPECT_TRUE((Duration(1s) * std::numeric_limits<std::uint64_t>::max()).is_never());
  EXPECT_EQ(Duration::never() * 0, 0ms);
  EXPECT_EQ(Deadline(1s) + Duration(5ms), Deadline(1'005ms));
  EXPECT_EQ(Deadline(1s) + Duration::never(), Deadline::max());
}

TEST(Deadline, HasATimeUntilItThatIsNeverNegative) {
  const Deadline start(1'000ns);
  EXPECT_EQ(time_until(Deadline(1'005ns), start), 5ns);
  EXPECT_EQ(time_until(start, start), 0ns);
  EXPECT_EQ(time_until(Deadline(1ns), start), 0ns);
  EXPECT_EQ(time_until(Deadline::min(), Deadline::max()), 0ns);
  EXPECT_TRUE(time_until(Deadline::max(), start).is_never());
  EXPECT_TRUE(time_until(Deadline(most * 1ns - 1ns), Deadline::min()).is_never());
}

TEST(Clock, TheDefaultOneIsTheSteadyClock) {
  Clock& clock = system_steady_clock();
  const Deadline before = std::chrono::steady_clock::now();
  const Deadline now = clock.now();
  const Deadline after = std::chrono::steady_clock::now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, after);
  EXPECT_EQ(clock.as_manual(), nullptr);
  EXPECT_EQ(&clock, &system_steady_clock());
}

TEST(Clock, CanBeTheUsersOwn) {
  class Stopped : public Clock {
   public:
    Deadline now() const override { return Deadline(42ns); }
  };
  Stopped stopped;
  EXPECT_EQ(static_cast<Clock&>(stopped).now(), Deadline(42ns));
}

}  // namespace
}  // namespace magpie
