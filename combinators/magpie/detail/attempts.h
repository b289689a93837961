// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attempts that are started one by one until one of them succeeds: the join behind staggered_race
// and hedge.
//
// The next attempt starts when one has failed, or when some time has passed since the latest start.
// A lock decides which of these comes first; whoever it is, a failure or the timer of the latest
// attempt, starts exactly one. The join has a unit for each attempt that there may be; those of the
// attempts that have not been started are kept in reserve, and whoever ends the race takes them
// along. An attempt that nobody needs is never made: without a second one a race costs the first
// one's frame and a timer. The page: combinators/DESIGN.md, "Attempts".

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/join.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/timer.h>

namespace magpie::detail {

/// One of them, and the timer that starts the one after it.
struct Attempt : CallRec, EndSink, Timer {
  TimerWord<StdEnv> word;
  Attempt* after = nullptr;  // by whoever is starting one
};

class MAGPIE_EXPORT AttemptsJoin : public Join {
 public:
  AttemptsJoin(const AttemptsJoin&) = delete;
  AttemptsJoin& operator=(const AttemptsJoin&) = delete;

 protected:
  /// `delay_ns`: after that long the next one starts; kNeverNs: only after failures.
  explicit AttemptsJoin(std::int64_t delay_ns) noexcept : delay_ns_(delay_ns) {}
  ~AttemptsJoin();

  /// Makes the attempt's task and binds it to its slot and to sink_of(attempt). What it throws is
  /// the attempt's failure. Called at home, for one attempt at a time, in order.
  virtual std::coroutine_handle<> call(Attempt& attempt) = 0;
  /// In a catch handler: keeps the exception as the attempt's outcome.
  virtual SlotState capture(Attempt& attempt) noexcept = 0;
  virtual Attempt* new_attempt() = 0;

  static Continuation sink_of(Attempt& attempt) noexcept {
    return Continuation::to(static_cast<EndSink*>(&attempt));
  }

  /// Enters the scope and starts the first attempt of at most `most`.
  std::coroutine_handle<> start(std::coroutine_handle<> awaiting, Scope& outer, std::size_t most,
                                Attempt& first) noexcept;
  /// After the join: stops the timers, leaves the scope.
  void conclude() noexcept;
  Attempt* winner() const noexcept { return winner_; }  // after the join

  /// Nobody won: the errors in the order of the attempts as a group; if there are none, the
  /// cancellation.
  [[noreturn]] MAGPIE_COLD void throw_nobody_won(std::vector<std::exception_ptr> errors,
                                                 const ReasonRef& childs);
  [[noreturn]] MAGPIE_COLD static void throw_no_attempts();

 private:
  static std::coroutine_handle<> begin_attempt(CallRec* rec) noexcept;
  static std::coroutine_handle<> attempt_ended(EndSink* sink, SlotState outcome) noexcept;
  static void skipped(Join* join, Rec* rec, SlotState outcome) noexcept;
  static void start_the_next(Runnable* attempt) noexcept;
  static constexpr RunKind kStartTheNext{&start_the_next};
  static const JoinKind kKind;

  void set_up(Attempt& attempt, std::uint32_t index) noexcept;
  void settle(Attempt& attempt, SlotState outcome) noexcept;
  void arm(Attempt& attempt, std::int64_t due_ns) noexcept;
  bool time_is_up(const Attempt& attempt) noexcept;
  void take_next() noexcept;
  std::uint32_t close() noexcept;
  std::uint32_t launch() noexcept;

  const std::int64_t delay_ns_;
  SpinLock<StdEnv> lock_;
  bool closed_ = false;   // these under lock_: nothing is started any more
  bool starting_ = true;  // an attempt is on its way to its call
  bool out_of_memory_ = false;
  std::uint32_t next_ = 1;  // how many were started, the one on its way included
  std::uint32_t most_ = 1;
  std::uint32_t owed_ = 0;     // failures that came while one was on its way
  std::uint32_t reserve_ = 0;  // units of those that were not started
  Attempt* winner_ = nullptr;
  Attempt* first_ = nullptr;
  Attempt* latest_ = nullptr;  // by whoever is starting one
};

}  // namespace magpie::detail
