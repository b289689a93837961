// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>

#include <chrono>
#include <compare>
#include <concepts>
#include <cstdint>
#include <limits>
#include <ratio>
#include <stdexcept>
#include <type_traits>

// Time as the library sees it: durations that cannot overflow, deadlines, and where "now" comes
// from.
//
// Not a wall clock: deadlines are points on the steady clock (or on a ManualClock that imitates
// it), unaffected by changes of the date.
//
// Threads: Duration and Deadline are values; now() may be called from any thread.

namespace magpie {

/// A point in the executor's time. Deadline::max() is never reached.
using Deadline = std::chrono::steady_clock::time_point;

static_assert(std::is_same_v<Deadline::duration, std::chrono::nanoseconds>,
              "magpie counts in the steady clock's nanoseconds");

namespace detail {

[[noreturn]] MAGPIE_EXPORT void throw_nan_duration();

// How many nanoseconds the unit has, as a fraction in lowest terms.
template <class Period>
struct NanosecondScale {
  using Reduced = std::ratio<1'000'000'000, Period::den>;
  static constexpr std::intmax_t factor = Reduced::num;
  static constexpr std::intmax_t divisor = Reduced::den;
  static constexpr bool exact = Period::num <= std::numeric_limits<std::intmax_t>::max() / factor;
};

template <class Period, std::floating_point F>
constexpr F scaled_to_nanoseconds(F count) noexcept {
  using Scale = NanosecondScale<Period>;
  F nanoseconds;
  if constexpr (Scale::exact) {
    nanoseconds = count * static_cast<F>(Period::num * Scale::factor);
  } else {
    nanoseconds = count * static_cast<F>(Period::num) * static_cast<F>(Scale::factor);
  }
  if constexpr (Scale::divisor != 1) nanoseconds /= static_cast<F>(Scale::divisor);
  return nanoseconds;
}

// In the precision of the caller's own type, as std::chrono::ceil does: 0.1 seconds as a double are
// 100,000,000 nanoseconds, although the double is a hair above a tenth.
template <class Period, std::floating_point F>
constexpr std::int64_t ceil_nanoseconds(F count) {
  if (count != count) throw_nan_duration();
  if (count <= F(0)) return 0;
  const F nanoseconds = scaled_to_nanoseconds<Period>(count);
  // 2^63 is a float, 2^63 - 1 is not.
  if (nanoseconds >= F(9223372036854775808.0L)) return std::numeric_limits<std::int64_t>::max();
  if constexpr (std::same_as<F, float>) {
    // No float is 30,000,000,000, but 30.0f seconds are as many nanoseconds all the same.
    const double finer = scaled_to_nanoseconds<Period>(static_cast<double>(count));
    if (finer < 9223372036854775808.0 &&
        static_cast<double>(static_cast<std::int64_t>(finer)) == finer) {
      return static_cast<std::int64_t>(finer);
    }
  }
  const auto whole = static_cast<std::int64_t>(nanoseconds);
  return static_cast<F>(whole) < nanoseconds ? whole + 1 : whole;
}

template <class Period, std::integral I>
constexpr std::int64_t ceil_nanoseconds(I count) noexcept {
  using Scale = NanosecondScale<Period>;
  __extension__ using Wide = __int128;
  if (count <= I(0)) return 0;
  if constexpr (!Scale::exact) {
    return ceil_nanoseconds<Period>(static_cast<long double>(count));
  } else {
    // Both factors are below 2^64 and 2^63: no overflow.
    const Wide product = static_cast<Wide>(count) * (Period::num * Scale::factor);
    const Wide nanoseconds = (product + (Scale::divisor - 1)) / Scale::divisor;
    constexpr Wide most = std::numeric_limits<std::int64_t>::max();
    return static_cast<std::int64_t>(nanoseconds < most ? nanoseconds : most);
  }
}

// Not a member of Duration: clang instantiates those that the class itself uses too late for
// constants.
template <class Period, class Rep>
constexpr std::int64_t count_of(const Rep& count) noexcept(std::integral<Rep>) {
  if constexpr (std::integral<Rep> || std::floating_point<Rep>) {
    return ceil_nanoseconds<Period>(count);
  } else {
    return ceil_nanoseconds<Period>(static_cast<long double>(count));
  }
}

}  // namespace detail

/// A length of time in nanoseconds, never negative. Every std::chrono::duration converts to it,
/// floating ones too: rounded up; what does not fit means "never", what is below zero "at once".
///
///     co_await sleep_for(20ms);
///     co_await sleep_for(std::chrono::duration<double>(0.02));
class Duration {
 public:
  /// Zero: at once.
  constexpr Duration() noexcept = default;

  /// std::invalid_argument for NaN.
  template <class Rep, class Period>
  constexpr Duration(const std::chrono::duration<Rep, Period>& duration) noexcept(
      std::integral<Rep>)
      : nanoseconds_(detail::count_of<Period>(duration.count())) {}

  /// Longer than any time that can be waited for.
  [[nodiscard]] static constexpr Duration never() noexcept {
    return Duration(std::chrono::nanoseconds::max());
  }
  [[nodiscard]] constexpr bool is_never() const noexcept { return *this == never(); }

  /// In nanoseconds; never() is the largest std::int64_t.
  [[nodiscard]] constexpr std::int64_t count() const noexcept { return nanoseconds_; }
  [[nodiscard]] constexpr std::chrono::nanoseconds to_chrono() const noexcept {
    return std::chrono::nanoseconds(nanoseconds_);
  }
  // Explicit, so that `flag ? duration : 5ms` has one meaning.
  constexpr explicit operator std::chrono::nanoseconds() const noexcept { return to_chrono(); }

  friend constexpr bool operator==(Duration, Duration) noexcept = default;
  friend constexpr std::strong_ordering operator<=>(Duration, Duration) noexcept = default;

 private:
  std::int64_t nanoseconds_ = 0;
};

// Calculating with durations. What does not fit is never(), what would be below zero is zero;
// never() less something, or a part of it, is never().
[[nodiscard]] constexpr Duration operator+(Duration one, Duration other) noexcept {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(one.count(), other.count(), &sum)) return Duration::never();
  return std::chrono::nanoseconds(sum);
}
[[nodiscard]] constexpr Duration operator-(Duration from, Duration part) noexcept {
  if (from.is_never()) return from;
  return std::chrono::nanoseconds(from.count() - part.count());
}
/// std::invalid_argument for a NaN.
template <class Factor>
requires(std::integral<Factor> && !std::same_as<Factor, bool>) || std::floating_point<Factor>
[[nodiscard]] constexpr Duration operator*(Duration duration,
                                           Factor factor) noexcept(std::integral<Factor>) {
  if constexpr (std::floating_point<Factor>) {
    if (duration.is_never() && factor > Factor(0)) return duration;
    return std::chrono::duration<Factor, std::nano>(static_cast<Factor>(duration.count()) * factor);
  } else {
    if (factor <= Factor(0)) return {};
    std::int64_t product = 0;
    if (duration.is_never() || __builtin_mul_overflow(duration.count(), factor, &product))
      return Duration::never();
    return std::chrono::nanoseconds(product);
  }
}
template <class Factor>
requires(std::integral<Factor> && !std::same_as<Factor, bool>) || std::floating_point<Factor>
[[nodiscard]] constexpr Duration operator*(Factor factor,
                                           Duration duration) noexcept(std::integral<Factor>) {
  return duration * factor;
}

/// now + duration, but never past Deadline::max(), which stands for "never".
[[nodiscard]] constexpr Deadline deadline_after(Deadline now, Duration duration) noexcept {
  const std::int64_t start = now.time_since_epoch().count();
  std::int64_t end = 0;
  if (duration.is_never() || __builtin_add_overflow(start, duration.count(), &end)) {
    return Deadline::max();
  }
  return Deadline(std::chrono::nanoseconds(end));
}

/// As deadline_after().
[[nodiscard]] constexpr Deadline operator+(Deadline now, Duration duration) noexcept {
  return deadline_after(now, duration);
}

/// How long it is from `now` to the deadline: zero when it has passed, never() for Deadline::max().
[[nodiscard]] constexpr Duration time_until(Deadline deadline, Deadline now) noexcept {
  if (deadline == Deadline::max()) return Duration::never();
  if (deadline <= now) return {};
  std::int64_t rest = 0;
  if (__builtin_sub_overflow(deadline.time_since_epoch().count(), now.time_since_epoch().count(),
                             &rest)) {
    return Duration::never();
  }
  return std::chrono::nanoseconds(rest);
}

class ManualClock;

/// Where an executor takes the time from. Must outlive every executor that uses it. One of your own
/// may have another zero and another pace than the steady clock, but threads wait on that: a sleep
/// ends when your clock says so or, if it jumps ahead meanwhile, up to as late as it would have.
class MAGPIE_EXPORT Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock();

  /// From any thread; never goes backwards, never throws.
  [[nodiscard]] virtual Deadline now() const = 0;

  /// Used by executors: virtual time needs their help to move.
  [[nodiscard]] virtual ManualClock* as_manual() noexcept { return nullptr; }
};

/// std::chrono::steady_clock; exists until the process ends, static destructors included.
[[nodiscard]] MAGPIE_EXPORT Clock& system_steady_clock() noexcept;

}  // namespace magpie

#include <magpie/manual_clock.h>
