// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/outcome_core.h>

#include <exception>
#include <new>
#include <utility>

#include "sim.h"
#include "strand.h"

// A task's record or a promise's state, and those who wait for it, for outcome_model_test.cc.
//
// OutcomeCore, OutcomeState, OutcomeHandle and Slot are the real ones. OutcomeWait and the end of a
// task are repeated here in small, over strands.

namespace magpie::model {

using detail::BasicOutcomeCore;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::OutcomeHandle;
using detail::OutcomeState;
using detail::Slot;
using detail::SlotState;
using detail::WaitPhase;

constexpr int kValue = 7;
constexpr int kGone = -1;

// Others run in the middle of each copy and each move.
struct Value {
  explicit Value(int number) noexcept : n(number) {}
  Value(const Value& other) noexcept : n(other.look()) {
    Sim::current().pass();
    other.look();
  }
  Value(Value&& other) noexcept : n(other.look()) {
    other.n = kGone;
    Sim::current().pass();
  }
  int look() const noexcept {
    Sim::current().check(n == kValue, "a value is looked at that has been moved out");
    return n;
  }
  int n;
};

template <class Env>
struct JoinWait : StrandWaiter<Env> {
  JoinWait(Strand<Env>& strand, BasicScope<Env>& scope) : StrandWaiter<Env>(strand), where(scope) {}
  BasicScope<Env>& where;
  void (*fill)(JoinWait*) noexcept = nullptr;
  bool moves() const noexcept { return fill == nullptr; }
  bool is_filled() const noexcept { return fill != nullptr; }
  bool park_in_scope() noexcept {
    this->state.set(WaitPhase::waiting);
    if (where.park(*this)) return true;
    this->state.set(WaitPhase::cancelled_at_once);
    return false;
  }
  bool try_complete(bool*) noexcept { return this->state.try_complete(); }
  void hand_over() noexcept { this->strand->schedule(); }
};

template <class Env>
struct ModelCore : BasicOutcomeCore<Env, JoinWait<Env>> {
  void block_until_done() override { this->wait_done(); }

  // TaskRecord's.
  void report_if_unobserved() noexcept {
    if (this->claim_report()) ++*reports;
  }
  void nobody_can_ask() noexcept override { report_if_unobserved(); }

  int* reports = nullptr;  // outlives the record here
};

// Where the end of a task goes wrong in a mutant of the model's own.
enum class End { right, early_release, beside_nobody };

template <class Env>
struct Record final : OutcomeState<Value, ModelCore<Env>> {
  explicit Record(Frame<Record>& its_frame) : frame(&its_frame) {}
  Frame<Record>* frame;

  // As TaskRecord::has_ended does it.
  template <End kEnd = End::right>
  void finish(SlotState outcome) {
    if (outcome == SlotState::value) {
      this->slot().emplace(kValue);
    } else {
      this->slot().set_cancelled({});
    }
    if (kEnd == End::early_release) this->release();
    JoinWait<Env>* const one = this->publish_but_one(outcome);
    if (outcome == SlotState::error && this->without_handles()) this->report_if_unobserved();
    if (kEnd == End::beside_nobody || (kEnd == End::right && one != nullptr)) {
      this->release_beside_waiter();
    } else if (kEnd == End::right) {
      this->release();
    }
    if (one != nullptr) one->hand_over();
  }

  // As Promise::settle does it.
  template <bool kHeld>
  void settle() {
    this->slot().emplace(kValue);
    if (kHeld) this->add_ref();
    this->publish(SlotState::value);
    if (kHeld) this->release();
  }

  static void operator delete(Record* record, std::destroying_delete_t) {
    record->frame->destroy();
  }
};

template <class Env>
class World {
 public:
  using State = Record<Env>;
  using Handle = OutcomeHandle<State>;

  explicit World(Sim& sim) : sim_(sim) {
    root_.enter_root(nullptr, &task_);
    apart_.enter_root(nullptr, &task_);
    State& made = record_.make(record_);
    made.reports = &reports_;
  }

  State& record() { return *record_; }
  Handle handle() { return Handle(&*record_); }
  int reports() const { return reports_; }

  enum class Got { value, taken, cancelled, failure };

  // OutcomeWait, awaited: what it gives.
  struct Wait {
    // `apart`: where cancel() does not reach it.
    Wait(World& in, Handle&& to, bool move, bool apart = false)
        : handle(std::move(to)), moves(move), node(strand, frame_scope) {
      frame_scope.enter(apart ? &in.apart_ : &in.root_, &in.task_);
    }
    // True: parked. False: it goes on at once.
    bool start() {
      if (frame_scope.cancelled()) {
        node.state.set(WaitPhase::cancelled_at_once);
        return false;
      }
      if (!moves) {
        node.owner = this;
        node.fill = [](JoinWait<Env>* waiter) noexcept {
          Wait& self = *static_cast<Node*>(waiter)->owner;
          try {
            self.handle.get()->copy_to(self.copied);
          } catch (...) {
            self.copied.capture_current_exception();
          }
        };
      }
      switch (handle.get()->park_waiter(node)) {
        case BasicOutcomeCore<Env, JoinWait<Env>>::Parked::yes:
          return true;
        case BasicOutcomeCore<Env, JoinWait<Env>>::Parked::done:
          node.state.set(WaitPhase::done_at_once);
          return false;
        default:
          return false;
      }
    }
    // On the resumed strand.
    Got finish() {
      Got got = Got::cancelled;
      switch (node.state.phase()) {
        case WaitPhase::done:
          frame_scope.unpark(node);
          [[fallthrough]];
        case WaitPhase::done_at_once:
          got = deposit();
          break;
        case WaitPhase::cancelled:
          handle.get()->forget_waiter(node);
          break;
        case WaitPhase::cancelled_at_once:
          break;
        default:
          Sim::current().fail("a wait ended without an outcome");
      }
      frame_scope.exit();
      return got;
    }
    Got deposit() {
      if (copied.empty()) {
        Sim::current().check(handle.get()->done(), "a wait is over before the outcome");
        try {
          if (moves) {
            handle.get()->move_to(copied);
          } else {
            handle.get()->copy_to(copied);
          }
        } catch (const InvalidStateError&) {
          return Got::taken;
        }
      }
      if (copied.state() != SlotState::value) return Got::failure;
      copied.value().look();
      return Got::value;
    }

    struct Node : JoinWait<Env> {
      using JoinWait<Env>::JoinWait;
      Wait* owner = nullptr;
    };

    Handle handle;
    const bool moves;
    Slot<Value> copied;
    BasicScope<Env> frame_scope;
    Strand<Env> strand;
    Node node;
  };

  // A coroutine that awaits its handle and lets go of it.
  static Got await(Frame<Wait>& frame) {
    if (frame->start()) frame->strand.resumed();
    return finish(frame);
  }
  static Got finish(Frame<Wait>& frame) {
    const Got got = frame->finish();
    frame.destroy();
    return got;
  }

  void cancel() { cancel_now(root_); }

  void check_end() {
    root_.exit();
    apart_.exit();
    sim_.check(record_.gone_and_untouched(), "the record was touched after its end, or has none");
    sim_.check(task_.cancels.load(std::memory_order_relaxed) == 0,
               "a cancellation is counted for ever");
  }

 private:
  Sim& sim_;
  BasicTaskCore<Env> task_;
  BasicScope<Env> root_;
  BasicScope<Env> apart_;
  Frame<State> record_;
  int reports_ = 0;
};

// A callback that others run in the middle of.
template <class Env>
struct Callback : BasicOutcomeCore<Env, JoinWait<Env>>::Callback {
  using Core = BasicOutcomeCore<Env, JoinWait<Env>>;
  int calls = 0;
  bool shown = false;

  Callback() {
    this->call = [](typename Core::Callback* base, Core& core) noexcept {
      auto& self = *static_cast<Callback*>(base);
      ++self.calls;
      try {
        static_cast<Record<Env>&>(core).show_to([&](const Result<Value>& result) noexcept {
          result.value().look();
          Sim::current().pass();
          result.value().look();
          self.shown = true;
        });
      } catch (const InvalidStateError&) {
      }
    };
  }
};

}  // namespace magpie::model
