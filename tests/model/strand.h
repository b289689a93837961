// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/scope.h>
#include <magpie/detail/waiter_state.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "sim.h"

// What the models of waits, scopes and joins have in common: memory that dies in the middle of an
// execution, and strands that somebody else schedules.
//
//     Frame<Wait> frame;                          // in the body of explore()
//     frame.make();                               // in a thread, or before run()
//     park(*frame);                               // the structures under test keep the address
//     frame.destroy();                            // in a thread: whoever touches it from here on
//     fails the execution sim.run(); sim.check(frame.gone_and_untouched(), ..);
//
// A late touch shows in three ways: an atomic of the object is used (sim.h notices), the model
// itself goes through operator*, or something is written over the pattern that a dead frame is
// filled with. Pointers that are read from a dead frame lead to an object whose atomics are dead,
// too. Any other late read of a plain field shows only by what comes of it.

namespace magpie::model {

template <class T>
class Frame {
 public:
  Frame() = default;
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  // The object is not destroyed here: after a failed check its locks may be held by threads that
  // are no more.

  template <class... Args>
  T& make(Args&&... args) {
    fill();  // what a constructor leaves out is the same in each execution
    alive_ = true;
    return *::new (memory_) T(std::forward<Args>(args)...);
  }

  T& operator*() const {
    Sim::current().check(alive_, "a frame is used after its end");
    return object();
  }
  T* operator->() const { return &**this; }

  void destroy() {
    Sim::current().check(alive_, "a frame is destroyed twice");
    object().~T();
    alive_ = false;
    fill();
  }

  bool alive() const { return alive_; }
  bool gone_and_untouched() const {
    if (alive_) return false;
    const std::byte* const pattern = nowhere;
    for (std::size_t i = 0; i < sizeof(T); i += sizeof pattern) {
      if (std::memcmp(memory_ + i, &pattern, std::min(sizeof pattern, sizeof(T) - i)) != 0)
        return false;
    }
    return true;
  }

 private:
  // Where pointers of dead frames lead.
  alignas(64) static inline std::byte nowhere[4096];

  void fill() {
    const std::byte* const pattern = nowhere;
    for (std::size_t i = 0; i < sizeof(T); i += sizeof pattern) {
      std::memcpy(memory_ + i, &pattern, std::min(sizeof pattern, sizeof(T) - i));
    }
  }

  T& object() const { return *std::launder(reinterpret_cast<T*>(const_cast<std::byte*>(memory_))); }

  alignas(T) std::byte memory_[sizeof(T)];
  bool alive_ = false;
};

// A flag that threads wait for; it outlives every frame, as an executor's queue does.
template <class Env>
class Flag {
 public:
  void raise() { raised_.store(1, std::memory_order_release); }
  void wait() {
    while (raised_.load(std::memory_order_acquire) == 0) Env::yield_thread();
  }

 private:
  typename Env::template Atomic<int> raised_{0};
};

// A suspended strand: whoever schedules it hands it to the thread that waits in resumed(), or to
// its home, if it has one.
template <class Env>
class Strand {
 public:
  struct Home {
    virtual void go_on(Strand& strand) = 0;

   protected:
    ~Home() = default;
  };

  explicit Strand(Home* home = nullptr) : home_(home) {}
  void schedule() {
    const int before = scheduled_.fetch_add(1, std::memory_order_acq_rel);
    Sim::current().check(before == 0, "a strand is resumed twice");
    if (home_ != nullptr) home_->go_on(*this);
  }
  void resumed() {
    while (scheduled_.load(std::memory_order_acquire) == 0) Env::yield_thread();
  }
  bool scheduled() const { return scheduled_.load(std::memory_order_relaxed) != 0; }
  // By the strand, which is about to wait once more: before anybody can schedule it.
  void suspends_again() { scheduled_.store(0, std::memory_order_relaxed); }

 private:
  typename Env::template Atomic<int> scheduled_{0};
  Home* const home_;
};

// A waiter that knows its strand.
template <class Env>
struct StrandWaiter : detail::BasicWaiter<Env> {
  static constexpr detail::BasicWaitKind<Env> kKind{nullptr, detail::GoesOn::coroutine, nullptr,
                                                    nullptr};
  explicit StrandWaiter(Strand<Env>& its_strand) : strand(&its_strand) {
    this->how = &kKind;
    waits_here();
  }
  // Before it is parked, each time.
  void waits_here() { this->executor = here(); }
  static Executor* here() {
    static std::byte place;
    return reinterpret_cast<Executor*>(&place);
  }
  Strand<Env>* strand;
};

// Whoever schedules it has read where, and the executor's queue then has that word.
template <class Env>
void schedule(detail::BasicWaiter<Env>& waiter) {
  Sim::current().check(waiter.executor == StrandWaiter<Env>::here(),
                       "a waiter is scheduled that does not know where it goes on");
  waiter.next = nullptr;
  static_cast<StrandWaiter<Env>&>(waiter).strand->schedule();
}

// As cancel_state.cc does it, for waiters.
template <class Env>
void schedule_claimed(const detail::BasicCancelEffects<Env>& effects) {
  // Taken off first: a scheduled waiter may be gone.
  for (detail::BasicWaiter<Env>* rest = effects.waiters; rest != nullptr;)
    schedule(*detail::take_row(rest));
}

template <class Env>
bool cancel_now(detail::BasicScope<Env>& scope, CancelKind kind = CancelKind::requested) {
  detail::BasicCancelEffects<Env> effects;
  if (!scope.cancel(detail::ReasonRef::of_kind(kind), effects)) return false;
  schedule_claimed(effects);
  return true;
}

}  // namespace magpie::model
