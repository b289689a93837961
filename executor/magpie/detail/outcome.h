// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// An outcome that many can wait for: what tasks in the full sense and promises have in common. A
// counted record with a place for the outcome, set once and published; handles name it, waiters
// copy the value or move it out, callbacks look at it.
//
//   OutcomeCore          who waits, who is called; publishing
//   OutcomeState<T, C>   the typed place, on top of C, which derives from OutcomeCore: how it is
//   copied, shown and moved out OutcomeHandle<S>     a counted reference that counts as a handle
//   OutcomeWait<S, M>    the operation that awaits it
//
// Those who wait when it is published, and callbacks, come first; movers, also those who come only
// then, wait until that is over
// ("settling"): executor/SHUTDOWN.md, "The end of a task".

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie::detail {

class OutcomeCore;

/// What waits for an outcome. Those who copy the value get their copies before anybody is woken, so
/// that a mover comes after them.
struct JoinWaiter : OperationBase {
  JoinWaiter() = default;
  JoinWaiter(JoinWaiter&&) noexcept = default;
  void (*fill)(JoinWaiter*) noexcept = nullptr;  // copies the outcome; null for movers
  bool moves() const noexcept { return fill == nullptr; }
  bool park_in_scope() noexcept { return park(); }

 protected:
  ~JoinWaiter() = default;
};

/// A function to call with the outcome.
struct DoneCallback {
  DoneCallback* next = nullptr;
  void (*call)(DoneCallback*, OutcomeCore&) noexcept = nullptr;  // runs it and frees it
  void (*drop)(DoneCallback*) noexcept = nullptr;                // frees it
};

class MAGPIE_EXPORT OutcomeCore {
 public:
  OutcomeCore(const OutcomeCore&) = delete;
  OutcomeCore& operator=(const OutcomeCore&) = delete;

  void add_ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    // acq_rel: whoever frees it sees what the others did with it.
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  void add_handle() noexcept {
    add_ref();
    handles_.fetch_add(1, std::memory_order_relaxed);
  }
  void drop_handle() noexcept;

  bool done() const noexcept {
    return done_.load(std::memory_order_acquire) != 0;
  }                                                        // pairs with publish()
  SlotState outcome() const noexcept { return outcome_; }  // once done
  bool cancelled() const noexcept { return done() && outcome_ == SlotState::cancelled; }
  virtual std::exception_ptr error() const noexcept = 0;  // once done: what it failed with, or null
  void mark_observed() noexcept { observed_.store(true, std::memory_order_relaxed); }

  void wait_done() noexcept;
  /// Blocks the calling thread until it is done. std::logic_error on a worker thread.
  virtual void block_until_done() = 0;

  /// Adds a callback; if it is done, calls it here.
  void on_done(DoneCallback* callback) noexcept;

  /// For waits: parks `op`, or returns false if it is done (the caller then completes at once) or
  /// `op` was refused.
  enum class Parked { yes, done, refused };
  Parked park_waiter(JoinWaiter& op) noexcept {
    std::lock_guard guard(lock_);
    if (done_.load(std::memory_order_relaxed) != 0 && !(settling_ && op.moves()))
      return Parked::done;
    if (!op.park_in_scope()) return Parked::refused;
    waiters_.push_back(op);
    return Parked::yes;
  }
  void forget_waiter(Waiter& waiter) noexcept {
    std::lock_guard guard(lock_);
    waiters_.forget(waiter);
  }

 protected:
  OutcomeCore() noexcept = default;
  virtual ~OutcomeCore() = default;

  /// The outcome lies in its place: everybody learns of it. Once.
  void publish(SlotState outcome) noexcept;
  bool without_handles() const noexcept {
    return handles_.load(std::memory_order_seq_cst) == 0;
  }  // pairs with drop_handle()
  bool observed() const noexcept { return observed_.load(std::memory_order_relaxed); }
  /// The last handle is gone, and it was done before.
  virtual void nobody_can_ask() noexcept {}
  [[noreturn]] MAGPIE_COLD static void throw_taken();

  mutable SpinLock<StdEnv> lock_;

 private:
  Waiter* claim_waiters() noexcept;  // under lock_: those who may go on, movers not while callbacks
                                     // look at the value
  static void wake_all(Waiter* ready) noexcept;

  bool settling_ = false;  // under lock_: done, but those who were there first still look at the
                           // value; movers wait

 protected:
  SlotState outcome_ = SlotState::empty;

 private:
  std::atomic<bool> observed_{false};
  std::atomic<std::uint32_t> refs_{1};
  std::atomic<std::uint32_t> handles_{0};
  std::atomic<std::uint32_t> done_{0};
  BasicWaitQueue<StdEnv> waiters_;  // under lock_
  DoneCallback* callbacks_ = nullptr;
};

template <class T, class Core>
class OutcomeState : public Core {
 public:
  using value_type = T;

  Result<T> result = ResultAccess::empty<T>();
  Slot<T>& slot() noexcept { return ResultAccess::slot(result); }
  const Slot<T>& slot() const noexcept { return ResultAccess::slot(result); }

  /// Copies the outcome. InvalidStateError if the value has been moved out.
  void copy_to(Slot<T>& target) {
    this->mark_observed();
    if constexpr (std::is_copy_constructible_v<Slot<T>>) {
      // seq_cst: pairs with move_to(): the mover sees this reader, or this reader sees that it is
      // taken.
      readers_.fetch_add(1, std::memory_order_seq_cst);
      const bool taken = taken_.load(std::memory_order_seq_cst);
      if (!taken) {
        try {
          target = slot();
        } catch (...) {
          target.capture_current_exception();
        }
      }
      readers_.fetch_sub(1, std::memory_order_release);  // pairs with the wait in move_to()
      if (taken) this->throw_taken();
    }
  }

  /// Calls f(const Result<T>&) while nobody moves the value out. InvalidStateError if somebody has.
  template <class F>
  void show_to(F&& f) {
    struct Reader {
      std::atomic<std::uint32_t>& readers;
      explicit Reader(std::atomic<std::uint32_t>& count) noexcept : readers(count) {
        readers.fetch_add(1, std::memory_order_seq_cst);  // pairs with move_to(), as in copy_to()
      }
      ~Reader() {
        readers.fetch_sub(1, std::memory_order_release);
      }  // pairs with the wait in move_to()
    } reader(readers_);
    if (taken_.load(std::memory_order_seq_cst)) this->throw_taken();
    std::forward<F>(f)(std::as_const(result));
  }

  /// Moves the outcome out, after those who are looking at it just now.
  void move_to(Slot<T>& target) {
    this->mark_observed();
    if (slot().state() != SlotState::value) {
      target = std::move(slot());  // failures are copied
      return;
    }
    if (taken_.exchange(true, std::memory_order_seq_cst)) this->throw_taken();
    Backoff<StdEnv> backoff;
    while (readers_.load(std::memory_order_seq_cst) != 0) backoff.wait();
    target = std::move(slot());
  }

  const Result<T>& shown() const {
    if (taken_.load(std::memory_order_acquire)) this->throw_taken();
    return result;
  }

  std::exception_ptr error() const noexcept override {
    return slot().state() == SlotState::error ? slot().error() : std::exception_ptr();
  }

 protected:
  OutcomeState() noexcept = default;
  ~OutcomeState() override = default;

 private:
  std::atomic<std::uint32_t> readers_{0};
  std::atomic<bool> taken_{false};
};

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_empty_handle();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_not_done();

template <class State>
class OutcomeHandle {
 public:
  OutcomeHandle() = default;
  explicit OutcomeHandle(State* state) noexcept : state_(state) { state_->add_handle(); }
  OutcomeHandle(const OutcomeHandle& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->add_handle();
  }
  OutcomeHandle(OutcomeHandle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  OutcomeHandle& operator=(OutcomeHandle other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~OutcomeHandle() {
    if (state_ != nullptr) state_->drop_handle();
  }
  State* get() const noexcept { return state_; }
  State& require() const {
    if (state_ == nullptr) [[unlikely]]
      throw_empty_handle();
    return *state_;
  }

 private:
  State* state_ = nullptr;
};

/// The wait for an outcome. `Move`: takes the value out; else copies it. State::kWhat names it in
/// dumps; State::refuse_self(scope) throws where the wait could never end.
template <class State, bool Move>
class [[nodiscard("co_await it")]] OutcomeWait
    : public Operation<OutcomeWait<State, Move>, typename State::value_type, JoinWaiter> {
  using T = typename State::value_type;
  using Base = Operation<OutcomeWait, T, JoinWaiter>;

 public:
  explicit OutcomeWait(OutcomeHandle<State> handle) : handle_(std::move(handle)) {
    this->what = State::kWhat;
  }
  OutcomeWait(OutcomeWait&& other) noexcept : Base(), handle_(std::move(other.handle_)) {
    this->what = State::kWhat;
  }

  bool done() const noexcept {
    return handle_.get() != nullptr && handle_.get()->done();
  }

  /// In a race: a value is moved out only by the winner, so that a loser leaves it to other
  /// handles. Failures are copied anyway.
  static constexpr bool kTakesAtItsEnd = Move;
  void set_taker(Arbiter * arbiter, std::uint32_t index) noexcept {
    taker_ = arbiter;
    taker_index_ = index;
  }

  bool start() {
    State& awaited = handle_.require();
    copied_.reset();  // of an await before this one
    awaited.refuse_self(*this->scope());
    if (this->refused()) return false;
    if constexpr (!Move) this->fill = copy_now;
    switch (awaited.park_waiter(*this)) {
      case OutcomeCore::Parked::yes:
        return true;
      case OutcomeCore::Parked::done:
        this->complete_at_once();
        return false;
      default:
        return false;
    }
  }
  void unqueue() noexcept {
    handle_.get()->forget_waiter(*this);
  }
  void deposit(Slot<T>& slot) {
    if (!copied_.empty()) {
      slot = std::move(copied_);
    } else if constexpr (Move) {
      if (taker_ != nullptr && handle_.get()->outcome() == SlotState::value &&
          !taker_->win(taker_index_)) {
        slot.set_cancelled(ReasonRef::of_kind(CancelKind::lost_race));
        return;
      }
      handle_.get()->move_to(slot);
    } else {
      handle_.get()->copy_to(slot);
    }
  }

 private:
  static void copy_now(JoinWaiter * waiter) noexcept {
    auto* const self = static_cast<OutcomeWait*>(waiter);
    try {
      self->handle_.get()->copy_to(self->copied_);
    } catch (...) {
      self->copied_.capture_current_exception();
    }
  }

  OutcomeHandle<State> handle_;
  Slot<T> copied_;
  Arbiter* taker_ = nullptr;
  std::uint32_t taker_index_ = 0;
};

}  // namespace magpie::detail
