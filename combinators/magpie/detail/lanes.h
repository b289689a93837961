// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Many pieces of work, a few at a time: the join behind gather_limited and map_concurrent.
//
// A lane is a strand that runs one piece after the other. Where the next one comes from (a list of
// tasks, somebody's range) is asked by one lane at a time: whoever comes meanwhile queues up and is
// served by the one that is there. So a range is never used by two threads, nobody waits for it
// blocking a worker, and no lock is held while it is asked.
//
// The join has as many units as there may be lanes. The newest lane bears those of the lanes that
// are not made yet, and gives them to the next one when it makes it: lanes are made only when there
// is something to do for them. The page: combinators/DESIGN.md, "Lanes".

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>

#include <magpie/config.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/join.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

struct Lane : CallRec, EndSink {
  Lane* newer = nullptr;    // the one that this lane made; by whoever is at the source
  std::size_t item = 0;     // which piece it runs
  bool has_source = false;  // it was given the source by whoever left it
};

enum class LanePolicy : std::uint8_t { fail_fast, keep_going, collect };

class MAGPIE_EXPORT LaneJoin : public Join {
 public:
  LaneJoin(const LaneJoin&) = delete;
  LaneJoin& operator=(const LaneJoin&) = delete;

 protected:
  LaneJoin(const char* what, LanePolicy policy) noexcept : what_(what), policy_(policy) {}
  ~LaneJoin();

  /// Binds the next piece of work to the lane (`lane.item`, its slot, sink_of(lane)) and gives its
  /// frame; null: there is none. What it throws is a failure, and the end of the source. By one
  /// thread at a time.
  virtual std::coroutine_handle<> pull(Lane& lane) = 0;
  /// Whether pull() would give something. For lanes that are not to ask any more.
  virtual bool anything_left() noexcept = 0;
  virtual Lane* new_lane() = 0;
  /// The lane's piece has ended: what it failed with, its reason, then its item may go.
  virtual std::exception_ptr error_of(const Lane& lane) const noexcept = 0;
  virtual ReasonRef reason_of(const Lane& lane) const noexcept = 0;
  virtual void let_go(Lane&) noexcept {}

  static Continuation sink_of(Lane& lane) noexcept {
    return Continuation::to(static_cast<EndSink*>(&lane));
  }

  /// Enters the scope and starts the first lane; at most `most` of them will be.
  std::coroutine_handle<> start(std::coroutine_handle<> awaiting, Scope& outer, std::size_t most,
                                Lane& first) noexcept;
  /// After the join: leaves the scope; throws what has to be thrown, unless the policy is to
  /// collect.
  void conclude();

  [[noreturn]] MAGPIE_COLD static void throw_no_limit(const char* what);

 private:
  static std::coroutine_handle<> begin_lane(CallRec* rec) noexcept;
  static std::coroutine_handle<> item_ended(EndSink* sink, SlotState outcome) noexcept;
  static void skipped(Join* join, Rec* rec, SlotState) noexcept;
  static const JoinKind kKind;

  static void send_to_source(Lane& lane) noexcept;
  void set_up(Lane& lane, std::uint32_t carry) noexcept;
  bool enter_source(Lane& lane) noexcept;
  Lane* next_in_line() noexcept;
  std::coroutine_handle<> ask(Lane& lane) noexcept;
  Lane* grow(Lane& lane) noexcept;
  std::coroutine_handle<> at_source(Lane& lane) noexcept;
  void leave_source(Lane& lane) noexcept;
  void note(SlotState outcome, std::exception_ptr error, ReasonRef reason,
            std::size_t item) noexcept;

  const char* const what_;
  const LanePolicy policy_;
  SpinLock<StdEnv> lock_;
  bool busy_ = false;         // these up to own_ under lock_: somebody is at the source
  Runnable* line_ = nullptr;  // who waits for it
  Runnable* line_end_ = nullptr;
  bool interrupted_ = false;  // something ended cancelled, or was not run
  std::exception_ptr error_;  // the first
  ReasonRef own_;             // of the first that ended cancelled by itself
  bool dry_ = false;          // whoever is at the source: it has given everything
  bool forced_ = false;       // the simulator destroys what waits
};

}  // namespace magpie::detail
