// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Permits and who waits for them: what a semaphore and a mutex (one permit) are made of, over what
// their users are made of: the library's operations, or the models'
// (tests/model/semaphore_model_test.cc).
//
// `Traits` has
//   Env, Waiter, Acquire, WakeList      as for ChannelCore
//   Word                                unsigned: counts the free permits, with a bit to spare
//   count(operation), count(waiter)     how many permits it wants
//   asks(operation)                     whether it has to win a race before it takes anything
//   park(operation), complete_at_once(operation)   as OperationBase
//
// One word has the free permits and, as its highest bit, whether the core is closed. Open, nobody
// waits, and whoever finds enough takes or gives back with one compare-and-swap. Only the holder of
// the lock closes and opens it, and nobody else changes the word of a closed one; he leaves it
// closed while somebody is in the queue, and only then. The page: combinators/DESIGN.md, "Permits".

#include <cstddef>
#include <mutex>

#include <magpie/config.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

template <class Traits>
class PermitCore {
  using Env = typename Traits::Env;
  using Waiter = typename Traits::Waiter;
  using Acquire = typename Traits::Acquire;
  using WakeList = typename Traits::WakeList;

 public:
  using Word = typename Traits::Word;
  /// More than this many cannot be counted.
  static constexpr Word kMost = static_cast<Word>(~Word(0)) / 2;

  constexpr explicit PermitCore(Word permits) noexcept : word_(permits) {}

  Word available() const noexcept {
    // Acquire: pairs with the release in give_back_if_open() and open().
    return free_of(word_.load(std::memory_order_acquire));
  }

  /// The steps of an open core. False: it is closed, or there are not enough.
  MAGPIE_ALWAYS_INLINE bool take_if_open(Word n) noexcept;
  /// Its last touch: the core may be gone afterwards.
  MAGPIE_ALWAYS_INLINE bool give_back_if_open(Word n) noexcept;

  /// False: somebody waits, or there are not enough. Of none there are always enough.
  bool try_take(Word n) noexcept;
  /// Of permits that were taken, or are new. The core may be gone afterwards.
  void give_back(Word n) noexcept {
    if (!give_back_if_open(n)) give_back_to_closed(n);
  }
  /// The same, when it was closed a moment ago.
  void give_back_to_closed(Word n) noexcept;

  /// True: parked, and not to be touched any more.
  bool start(Acquire& op) noexcept;
  /// For who does not wait as an operation of its own: true if it has the permits now. False:
  /// `park()` was called, and the waiter put in the queue.
  template <class Park>
  bool take_or_queue(Waiter& waiter, Park park) noexcept;
  /// Who was cancelled leaves the queue.
  void leave(Waiter& waiter) noexcept;

 private:
  static constexpr Word kClosed = static_cast<Word>(kMost + 1);

  static Word free_of(Word word) noexcept { return static_cast<Word>(word & ~kClosed); }
  static bool is_closed(Word word) noexcept { return (word & kClosed) != 0; }

  bool try_take_slowly(Word n) noexcept;
  bool start_slowly(Acquire& op, Word n) noexcept;
  Word close() noexcept;
  void open(Word free) noexcept;
  void serve(Word free, WakeList& woken) noexcept;

  typename Env::template Atomic<Word> word_;
  SpinLock<Env> lock_;
  BasicWaitQueue<Env> waiters_;
};

template <class Traits>
MAGPIE_ALWAYS_INLINE bool PermitCore<Traits>::take_if_open(Word n) noexcept {
  Word word = word_.load(std::memory_order_relaxed);
  do {
    if (is_closed(word) && !Env::mutant(Mutant::permit_barging)) return false;
    if (free_of(word) < n) return false;
    if constexpr (Env::mutant(Mutant::permit_plain_take)) {
      word_.store(static_cast<Word>(word - n), std::memory_order_relaxed);
      return true;
    }
    // Acquire: pairs with the release in give_back_if_open() and open().
  } while (!word_.compare_exchange_weak(word, static_cast<Word>(word - n),
                                        Env::mutant(Mutant::permit_relaxed_take)
                                            ? std::memory_order_relaxed
                                            : std::memory_order_acquire,
                                        std::memory_order_relaxed));
  return true;
}

template <class Traits>
MAGPIE_ALWAYS_INLINE bool PermitCore<Traits>::give_back_if_open(Word n) noexcept {
  Word word = word_.load(std::memory_order_relaxed);
  do {
    if (is_closed(word) && !Env::mutant(Mutant::permit_back_to_the_closed)) return false;
    // Release: pairs with the acquire in take_if_open() and close().
  } while (!word_.compare_exchange_weak(word, static_cast<Word>(word + n),
                                        Env::mutant(Mutant::permit_relaxed_return)
                                            ? std::memory_order_relaxed
                                            : std::memory_order_release,
                                        std::memory_order_relaxed));
  return true;
}

// Under the lock: from here until open() nobody else changes the word. The free permits.
template <class Traits>
typename PermitCore<Traits>::Word PermitCore<Traits>::close() noexcept {
  const Word word = word_.load(std::memory_order_relaxed);
  // Relaxed: what closed it, and all that was done since, the lock orders.
  if (is_closed(word)) return free_of(word);
  if constexpr (Env::mutant(Mutant::permit_late_close)) {
    word_.fetch_or(kClosed, std::memory_order_acquire);
    return word;
  }
  // Acquire: pairs with the release in give_back_if_open().
  return word_.fetch_or(kClosed, Env::mutant(Mutant::permit_relaxed_close)
                                     ? std::memory_order_relaxed
                                     : std::memory_order_acquire);
}

// Under the lock, of a closed core: it stays closed if somebody waits. The lock is released
// afterwards, so this is not for those who give back: with their permits somebody may destroy the
// core meanwhile. It is for who has still to leave, to be told that he has got something, or to
// tell others.
template <class Traits>
void PermitCore<Traits>::open(Word free) noexcept {
  const bool closed = !waiters_.empty() || Env::mutant(Mutant::permit_stays_closed);
  // Release: pairs with the acquire in take_if_open() and available().
  word_.store(closed ? static_cast<Word>(free | kClosed) : free, std::memory_order_release);
}

template <class Traits>
bool PermitCore<Traits>::try_take(Word n) noexcept {
  if (n == 0 || take_if_open(n)) return true;
  // While somebody has closed it this is how many were free before.
  return available() >= n && try_take_slowly(n);
}

template <class Traits>
bool PermitCore<Traits>::try_take_slowly(Word n) noexcept {
  std::lock_guard guard(lock_);
  if (!waiters_.empty()) return false;
  const Word free = close();
  const bool enough = free >= n;
  open(enough ? static_cast<Word>(free - n) : free);
  return enough;
}

template <class Traits>
void PermitCore<Traits>::give_back_to_closed(Word n) noexcept {
  do {
    lock_.lock();
    if (!waiters_.empty()) {
      WakeList woken;
      serve(static_cast<Word>(close() + n), woken);
      lock_.unlock();
      woken.wake_all();
      return;
    }
    // Nobody waits any more, so it is open. Not given back here, but as the last touch.
    if (Env::mutant(Mutant::permit_early_return) && give_back_if_open(n)) n = 0;
    lock_.unlock();
  } while (!give_back_if_open(n));
}

// Under the lock, of a closed core: what is free goes to the head of the queue, as long as it is
// enough for it.
template <class Traits>
void PermitCore<Traits>::serve(Word free, WakeList& woken) noexcept {
  while (!waiters_.empty()) {
    const Word n = Traits::count(*waiters_.front());
    if (free < n) break;
    if (woken.claim_front(waiters_) || Env::mutant(Mutant::permit_for_the_cancelled))
      free = static_cast<Word>(free - n);
    if (Env::mutant(Mutant::permit_serves_one)) break;
  }
  open(free);
}

template <class Traits>
bool PermitCore<Traits>::start(Acquire& op) noexcept {
  const Word n = Traits::count(op);
  // Who is in a race takes nothing before it has won, and then must get it: both under the lock.
  if (Traits::asks(op) || (n != 0 && !take_if_open(n))) return start_slowly(op, n);
  Traits::complete_at_once(op);
  return false;
}

template <class Traits>
bool PermitCore<Traits>::start_slowly(Acquire& op, Word n) noexcept {
  std::lock_guard guard(lock_);
  const Word free = close();
  if (n == 0 || (waiters_.empty() && free >= n)) {
    open(Traits::complete_at_once(op) ? static_cast<Word>(free - n) : free);
    return false;
  }
  if (!Traits::park(op)) {
    open(free);
    return false;
  }
  waiters_.push_back(op);
  return true;
}

template <class Traits>
template <class Park>
bool PermitCore<Traits>::take_or_queue(Waiter& waiter, Park park) noexcept {
  const Word n = Traits::count(waiter);
  if (take_if_open(n)) return true;
  std::lock_guard guard(lock_);
  const Word free = close();
  if (waiters_.empty() && free >= n) {
    open(static_cast<Word>(free - n));
    return true;
  }
  park();
  waiters_.push_back(waiter);
  return false;
}

// A large request that leaves the head may make way for the ones behind it.
template <class Traits>
void PermitCore<Traits>::leave(Waiter& waiter) noexcept {
  WakeList woken;
  {
    std::unique_lock guard(lock_, std::defer_lock);
    if (!Env::mutant(Mutant::permit_leave_unlocked)) guard.lock();
    if (waiter.queued) {
      waiters_.remove(waiter);
      if (Env::mutant(Mutant::permit_leave_unserved)) {
        open(close());
      } else {
        serve(close(), woken);
      }
    }
  }
  woken.wake_all();
}

}  // namespace magpie::detail
