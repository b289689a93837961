// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How an outcome that many can wait for is published, and how its value is shared: the protocol
// below detail/outcome.h, which knows of no type. executor/SHUTDOWN.md, "The end of a task", where
// the steps O1 to O10 are.
//
//   OutcomeCore   who waits, who is called; publishing
//   BasicTaking   who may look at the value, and who has moved it out
//
// Those who wait when it is published to copy the value, and callbacks, come first; movers, also
// those who come only then, wait until that is over ("settling").

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// What waits for an outcome. Those who copy the value get their copies before anybody is woken, so
/// that a mover comes after them.
struct MAGPIE_EXPORT JoinWaiter : OperationBase {
  using Fill = void (*)(JoinWaiter*) noexcept;
  Fill fill = nullptr;  // copies the outcome; null for movers
  bool moves() const noexcept { return fill == nullptr; }
  /// What those have who are no movers, and for whom nothing need be copied before others go on.
  static Fill nothing() noexcept { return reinterpret_cast<Fill>(kNothing); }
  bool is_filled() const noexcept { return reinterpret_cast<std::uintptr_t>(fill) > kNothing; }
  bool park_in_scope() noexcept { return park(); }
  void hand_over() noexcept;  // to its executor; the last touch of it

 protected:
  using OperationBase::OperationBase;
  JoinWaiter(JoinWaiter&&) noexcept = default;
  ~JoinWaiter() = default;

 private:
  static constexpr std::uintptr_t kNothing = 1;  // no function's address
};

/// A function to call with the outcome.
template <class Env, class Core>
struct BasicDoneCallback : BasicBystander<Env> {
  void (*call)(BasicDoneCallback*, Core&) noexcept = nullptr;  // runs it and frees it
};

/// `Join` derives from BasicWaiter<Env> and is a JoinWaiter, or looks like one.
template <class Env, class Join>
class MAGPIE_EXPORT BasicOutcomeCore {
 public:
  using Environment = Env;
  using Callback = BasicDoneCallback<Env, BasicOutcomeCore>;
  using Unstarted = Nothing;  // see OutcomePlace

  BasicOutcomeCore(const BasicOutcomeCore&) = delete;
  BasicOutcomeCore& operator=(const BasicOutcomeCore&) = delete;

  // Relaxed, as add_handle(): who adds one has one.
  void add_ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  /// O8.
  void release() noexcept {
    // acq_rel: whoever frees it sees what the others did with it. Acquire, and no subtraction, by
    // whoever has the only reference: nobody else can add one.
    constexpr bool kWeak = Env::mutant(Mutant::outcome_relaxed_release);
    if (refs_.load(kWeak ? std::memory_order_relaxed : std::memory_order_acquire) == 1 ||
        refs_.fetch_sub(1, kWeak ? std::memory_order_relaxed : std::memory_order_acq_rel) == 1)
      delete this;
  }
  /// All handles together hold one reference. By who has a handle.
  void add_handle() noexcept { handles_.fetch_add(1, std::memory_order_relaxed); }
  /// By who has a reference: there may be no handle yet, and others may make the first one at the
  /// same time. The reference comes first, lest one of them finds himself alone in between.
  void add_first_handle() noexcept {
    if constexpr (Env::mutant(Mutant::outcome_handle_before_reference)) {
      if (handles_.fetch_add(1, std::memory_order_relaxed) == 0) add_ref();
      return;
    }
    add_ref();
    // acq_rel: who gives his own reference up again has seen that of the first handle.
    if (handles_.fetch_add(1, std::memory_order_acq_rel) != 0)
      refs_.fetch_sub(1, std::memory_order_relaxed);
  }
  void drop_handle() noexcept {
    if (alone()) {  // then it is done, or nobody is left who could end it
      if (outcome_ == SlotState::error) nobody_can_ask();
      delete this;
      return;
    }
    drop_one_of_several();
  }
  /// The same for one whose type is known, without a virtual call.
  template <class State>
  MAGPIE_ALWAYS_INLINE static void drop_handle_of(State* state) noexcept {
    BasicOutcomeCore& core = *state;
    if (!core.alone()) return core.drop_one_of_several();
    if (core.outcome_ == SlotState::error) [[unlikely]]
      core.nobody_can_ask();
    delete state;
  }

  bool done() const noexcept {
    return done_.load(std::memory_order_acquire) != kOpen;
  }  // pairs with publish()
  SlotState outcome() const noexcept { return outcome_; }  // once done
  bool cancelled() const noexcept { return done() && outcome_ == SlotState::cancelled; }
  virtual std::exception_ptr error() const noexcept = 0;  // once done: what it failed with, or null
  void mark_observed() noexcept { observed_.store(true, std::memory_order_relaxed); }

  /// Blocks the calling thread, whatever it is.
  void wait_done() noexcept;
  /// Blocks the calling thread until it is done. std::logic_error on a worker thread.
  virtual void block_until_done() = 0;

  /// Adds a callback; if it is done, calls it here.
  void on_done(Callback* callback) noexcept;

  /// O1. For waits: parks `op`, or returns false if it is done (the caller then completes at once)
  /// or `op` was refused.
  enum class Parked { yes, done, refused };
  Parked park_waiter(Join& op) noexcept {
    // Acquire: pairs with publish().
    if (may_go_on(done_.load(std::memory_order_acquire), op)) return Parked::done;
    std::lock_guard guard(lock_);
    if (may_go_on(done_.load(std::memory_order_relaxed), op)) return Parked::done;
    if (!op.park_in_scope()) return Parked::refused;
    waiters_.push_back(op);
    return Parked::yes;
  }
  void forget_waiter(BasicWaiter<Env>& waiter) noexcept {
    std::lock_guard guard(lock_);
    waiters_.forget(waiter);
  }

 protected:
  BasicOutcomeCore() noexcept = default;
  /// With a first handle, counted without a locked instruction: nobody knows the record yet.
  struct WithHandle {};
  explicit BasicOutcomeCore(WithHandle) noexcept : refs_(2), handles_(1) {}
  virtual ~BasicOutcomeCore() = default;

  /// The outcome lies in its place: everybody learns of it. Once, by somebody who holds a
  /// reference.
  void publish(SlotState outcome) noexcept {
    lock_.lock();
    publish_locked(outcome, nullptr);
  }
  /// The same; if there is one waiter, and no callback, the caller gets it: claimed, with its copy,
  /// and to be handed over by him.
  [[nodiscard]] MAGPIE_ALWAYS_INLINE Join* publish_but_one(SlotState outcome) noexcept {
    lock_.lock();
    auto* const first = static_cast<Join*>(waiters_.front());
    Join* one = nullptr;
    if (outcome == SlotState::error || waiters_.has_bystanders() || blocked_ ||
        (first != nullptr && (first->queue_next != nullptr || first->is_filled()))) [[unlikely]] {
      publish_locked(outcome, &one);
      return one;
    }
    // What it comes to where nobody has to be told but one, who needs no copy.
    outcome_ = outcome;
    if constexpr (!Env::mutant(Mutant::outcome_done_after_lock)) done_.store(kSettled, kValueOrder);
    if (first != nullptr) {
      waiters_.remove_only(*first);
      if (claim(*first)) one = first;
    }
    lock_.unlock();
    if constexpr (Env::mutant(Mutant::outcome_done_after_lock)) done_.store(kSettled, kValueOrder);
    return one;
  }
  /// For the owner of a handle: whether it is the only one, and holds the only reference. It then
  /// stays so.
  bool alone() const noexcept {
    if constexpr (Env::mutant(Mutant::outcome_handles_first)) {
      return handles_.load(std::memory_order_acquire) == 1 &&
             refs_.load(std::memory_order_acquire) == 1;
    }
    if constexpr (Env::mutant(Mutant::outcome_alone_among_handles))
      return handles_.load(std::memory_order_acquire) == 1;
    // The references first: when only that of the handles is left, only handles add handles.
    // Acquire, both: pair with release() and drop_handle(), for what the others did with it.
    constexpr auto kOrder = Env::mutant(Mutant::outcome_relaxed_alone) ? std::memory_order_relaxed
                                                                       : std::memory_order_acquire;
    return refs_.load(kOrder) == 1 && handles_.load(kOrder) == 1;
  }
  /// O10. release() by the end of a task that has claimed its only waiter and is yet to hand it
  /// over. That one's handle, which nobody touches meanwhile, keeps the reference of all handles,
  /// and handles make no others: so if there are two, the other one is the caller's, and stays the
  /// last that can fall.
  void release_beside_waiter() noexcept {
    // Acquire: pairs with release(), by those who found the task in a list. Release: pairs with
    // alone(), for what they and the caller did with it.
    constexpr auto kOrder = Env::mutant(Mutant::outcome_relaxed_beside) ? std::memory_order_relaxed
                                                                        : std::memory_order_acquire;
    if (refs_.load(kOrder) == 2 || Env::mutant(Mutant::outcome_plain_beside)) [[likely]] {
      refs_.store(1, std::memory_order_release);
    } else {
      release();
    }
  }
  bool without_handles() const noexcept {
    return handles_.load(std::memory_order_seq_cst) == 0;
  }  // pairs with drop_handle()
  /// O7. Once done, by whoever finds that nobody can ask any more: whether this is an error that
  /// nobody has seen, and the caller the first to find it: he counts as having seen it. Those who
  /// saw it otherwise did so before they dropped their handles, which `handles_` orders.
  bool claim_report() noexcept {
    // acq_rel: one of two; nothing else hangs on it.
    return outcome_ == SlotState::error && !observed_.exchange(true, std::memory_order_acq_rel);
  }
  /// The last handle is gone, and it was done before.
  virtual void nobody_can_ask() noexcept {}

  mutable SpinLock<Env> lock_;

 private:
  // done_. Settling: done, but those who were there first still look at the value; movers wait.
  static constexpr std::uint32_t kOpen = 0;
  static constexpr std::uint32_t kSettling = 1;
  static constexpr std::uint32_t kSettled = 2;
  // Release pairs with done().
  static constexpr auto kValueOrder = Env::mutant(Mutant::outcome_relaxed_done)
                                          ? std::memory_order_relaxed
                                          : std::memory_order_release;
  // seq_cst pairs with drop_handle(): only errors need it.
  static constexpr auto kErrorOrder = Env::mutant(Mutant::outcome_weak_error)
                                          ? std::memory_order_release
                                          : std::memory_order_seq_cst;
  void publish_locked(SlotState outcome, Join** only_one) noexcept;  // gives the lock up
  void drop_one_of_several() noexcept;

  static bool may_go_on(std::uint32_t done, const Join& op) noexcept {
    return done == kSettled ||
           (done == kSettling && (!op.moves() || Env::mutant(Mutant::outcome_late_mover)));
  }
  // Under lock_: those who may go on, movers not while somebody looks at the value.
  BasicWaiter<Env>* claim_waiters(bool settling) noexcept;
  // Under lock_, of one that is out of the queue: whether it is to be woken.
  static bool claim(Join& op) noexcept {
    bool wake_anyway = false;
    if (op.try_complete(&wake_anyway)) return true;
    if (wake_anyway) op.fill = nullptr;
    return wake_anyway;
  }
  bool somebody_copies() const noexcept;  // under lock_
  static void wake_all(BasicWaiter<Env>* ready) noexcept;

  bool blocked_ = false;  // under lock_: a thread sleeps in wait_done(), or is about to

 protected:
  SlotState outcome_ = SlotState::empty;

 private:
  typename Env::template Atomic<bool> observed_{false};
  typename Env::template Atomic<std::uint32_t> refs_{1};
  typename Env::template Atomic<std::uint32_t> handles_{0};
  typename Env::template Atomic<std::uint32_t> done_{kOpen};  // rises under lock_
  // Under lock_. Callbacks stand beside those who wait, so that nobody has a word for them who has
  // none.
  BasicSmallWaitQueue<Env> waiters_;
};

template <class Env, class Join>
BasicWaiter<Env>* BasicOutcomeCore<Env, Join>::claim_waiters(bool settling) noexcept {
  BasicWaiter<Env>* ready = nullptr;
  BasicWaiter<Env>** tail = &ready;
  BasicWaiter<Env>* after = nullptr;
  for (BasicWaiter<Env>* w = waiters_.front(); w != nullptr; w = after) {
    after = w->queue_next;
    auto* const op = static_cast<Join*>(w);
    if (settling && op->moves() && !Env::mutant(Mutant::outcome_movers_at_once)) continue;
    waiters_.remove(*w);
    if (!claim(*op)) continue;
    w->queue_next = nullptr;
    *tail = w;
    tail = &w->queue_next;
  }
  return ready;
}

template <class Env, class Join>
bool BasicOutcomeCore<Env, Join>::somebody_copies() const noexcept {
  for (BasicWaiter<Env>* w = waiters_.front(); w != nullptr; w = w->queue_next) {
    if (static_cast<Join*>(w)->is_filled()) return true;
  }
  return false;
}

template <class Env, class Join>
void BasicOutcomeCore<Env, Join>::wake_all(BasicWaiter<Env>* ready) noexcept {
  while (ready != nullptr) {
    BasicWaiter<Env>* const after =
        ready->queue_next;  // read first: a scheduled waiter may be gone
    static_cast<Join*>(ready)->hand_over();
    ready = after;
  }
}

template <class Env, class Join>
void BasicOutcomeCore<Env, Join>::publish_locked(SlotState outcome, Join** only_one) noexcept {
  BasicWaiter<Env>* ready;
  BasicBystander<Env>* latest;
  bool settling;
  bool blocked;
  const auto rise = [&] {
    const std::uint32_t done = settling ? kSettling : kSettled;
    if (outcome == SlotState::error) [[unlikely]] {
      done_.store(done, kErrorOrder);
    } else {
      done_.store(done, kValueOrder);
    }
  };
  {
    std::lock_guard guard(lock_, std::adopt_lock);  // O2
    outcome_ = outcome;
    latest = waiters_.take_bystanders();
    const bool anybody = waiters_.front() != nullptr;
    settling = latest != nullptr || (anybody && somebody_copies());
    blocked = blocked_;
    if constexpr (!Env::mutant(Mutant::outcome_done_after_lock)) rise();
    ready = anybody ? claim_waiters(settling) : nullptr;
  }
  if constexpr (Env::mutant(Mutant::outcome_done_after_lock)) rise();
  if (blocked) [[unlikely]]
    Env::futex_wake(done_);  // O3

  if (only_one != nullptr && latest == nullptr && ready != nullptr &&
      ready->queue_next == nullptr) {
    *only_one = static_cast<Join*>(std::exchange(ready, nullptr));
    if ((*only_one)->is_filled()) (*only_one)->fill(*only_one);
  }
  // O4. Those who were there first get their copies, and callbacks look at the value itself;
  // movers, also those who come only now, wait until that is over.
  for (BasicWaiter<Env>* w = ready; w != nullptr; w = w->queue_next) {
    auto* const op = static_cast<Join*>(w);
    if (op->is_filled()) op->fill(op);
  }
  wake_all(ready);
  BasicBystander<Env>* first = nullptr;
  while (latest != nullptr) {
    BasicBystander<Env>* const before = std::exchange(latest->next_bystander, first);
    first = std::exchange(latest, before);
  }
  while (first != nullptr) {
    auto* const callback = static_cast<Callback*>(first);
    first = first->next_bystander;
    callback->call(callback, *this);  // frees it
  }
  if (settling) {
    {
      std::lock_guard guard(lock_);  // O5
      // Release: pairs with park_waiter(), where a mover then goes on without the lock.
      done_.store(kSettled, std::memory_order_release);
      ready = claim_waiters(false);
    }
    wake_all(ready);
  }
}

template <class Env, class Join>
void BasicOutcomeCore<Env, Join>::drop_one_of_several() noexcept {
  // O6. seq_cst on both sides: the last handle sees the end, or the end sees that no handle is
  // left. Also releases what this handle did with the record; acquired by whoever is the last.
  if (handles_.fetch_sub(1, std::memory_order_seq_cst) != 1) return;
  if constexpr (Env::mutant(Mutant::outcome_early_release)) release();
  if (done_.load(std::memory_order_seq_cst) != kOpen) nobody_can_ask();
  if constexpr (!Env::mutant(Mutant::outcome_early_release)) release();
}

template <class Env, class Join>
void BasicOutcomeCore<Env, Join>::wait_done() noexcept {
  // A task that ends in a moment need not make a system call to wake this thread.
  constexpr int kLooks = Env::kModel ? 0 : 10;
  Backoff<Env> backoff;
  for (int i = 0; i < kLooks; ++i) {
    if (done()) return;
    backoff.wait();
  }
  if constexpr (Env::mutant(Mutant::outcome_block_unlocked)) {
    blocked_ = true;
  } else {
    // Under the lock: publish() comes before, and is seen here, or after, and sees this.
    std::lock_guard guard(lock_);
    if (done_.load(std::memory_order_relaxed) != kOpen) return;
    blocked_ = true;
  }
  while (!done()) Env::futex_wait(done_, kOpen);
}

template <class Env, class Join>
void BasicOutcomeCore<Env, Join>::on_done(Callback* callback) noexcept {
  {
    std::lock_guard guard(lock_);
    if (done_.load(std::memory_order_relaxed) == kOpen) {
      waiters_.add(*callback);
      return;
    }
  }
  callback->call(callback, *this);
}

extern template class MAGPIE_EXPORT BasicOutcomeCore<StdEnv, JoinWaiter>;  // outcome.cc
using OutcomeCore = BasicOutcomeCore<StdEnv, JoinWaiter>;
using DoneCallback = OutcomeCore::Callback;

/// Whether somebody has moved the value out.
template <class Env>
class BasicTaken {
 public:
  /// True for one.
  bool take() noexcept {
    // Relaxed: who moves such a value out only copies it.
    return !taken_.exchange(true, std::memory_order_relaxed);
  }
  /// The same by whoever has the only handle: nobody can look at it.
  bool take_alone() noexcept {
    if (taken_.load(std::memory_order_relaxed)) return false;
    taken_.store(true, std::memory_order_relaxed);
    return true;
  }
  bool taken() const noexcept { return taken_.load(std::memory_order_acquire); }

 protected:
  typename Env::template Atomic<bool> taken_{false};
};

/// Who looks at the value just now, and whether somebody has moved it out. Of a reader and a mover
/// that come together, the reader sees that it is taken, or the mover sees the reader and waits.
template <class Env>
class BasicTaking : public BasicTaken<Env> {
  using BasicTaken<Env>::taken_;

 public:
  /// False: it is taken. In both cases end_reading() comes afterwards.
  bool begin_reading() noexcept {
    // seq_cst: pairs with take().
    readers_.fetch_add(1, kWeak ? std::memory_order_acq_rel : std::memory_order_seq_cst);
    return !taken_.load(kWeak ? std::memory_order_acquire : std::memory_order_seq_cst);
  }
  void end_reading() noexcept {
    // Release: pairs with the wait in take().
    readers_.fetch_sub(1, Env::mutant(Mutant::outcome_relaxed_reader) ? std::memory_order_relaxed
                                                                      : std::memory_order_release);
  }
  /// The caller may move it out, after those who look at it just now. False: somebody has.
  bool take() noexcept {
    if constexpr (Env::mutant(Mutant::outcome_plain_take)) {
      if (this->taken()) return false;
      taken_.store(true, std::memory_order_seq_cst);
    } else {
      if (taken_.exchange(true, kWeak ? std::memory_order_acq_rel : std::memory_order_seq_cst))
        return false;
    }
    if constexpr (!Env::mutant(Mutant::outcome_take_at_once)) {
      Backoff<Env> backoff;
      while (readers_.load(kWeak ? std::memory_order_acquire : std::memory_order_seq_cst) != 0)
        backoff.wait();
    }
    return true;
  }

 private:
  static constexpr bool kWeak = Env::mutant(Mutant::outcome_weak_taking);

  typename Env::template Atomic<std::uint32_t> readers_{0};
};

}  // namespace magpie::detail
