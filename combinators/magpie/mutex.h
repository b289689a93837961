// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Mutex: one holder at a time, among tasks; a task that waits for it occupies no thread.
//
//     Mutex mutex;
//     Mutex::Lock lock = co_await mutex.lock();   // released when it goes out of scope
//
// First in, first out, without barging: while somebody waits, a released mutex belongs to the
// oldest waiter; neither try_lock nor a newcomer overtakes it. A cancelled waiter leaves nothing
// behind; a lock that was granted before the cancellation is delivered. lock() is a cancellation
// point; in a cancelled scope it takes nothing, also if the mutex is free. Given directly to race
// or any, it is taken only if it wins.
//
// The lock belongs to the Lock object, not to a task or thread: it may be held over suspensions,
// moved elsewhere, and released by whoever has it. It is not recursive: a task that locks what it
// holds waits for itself.
//
// Threads: all members from any thread; the mutex must outlive its waiters and locks. No
// allocation. Uncontended, one locked instruction to lock and one to release.

#include <cstdint>
#include <optional>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/permit_core.h>
#include <magpie/task.h>

namespace magpie {

class Condition;

namespace detail {
class LockOperation;
class ConditionWaiter;
struct ConditionTraits;

/// What a Mutex is made of, for PermitCore: one permit.
struct MutexTraits : OperationTraits {
  using Acquire = LockOperation;
  using Word = std::uint32_t;

  template <class Wait>
  static constexpr Word count(const Wait&) noexcept {
    return 1;
  }
};
}  // namespace detail

class MAGPIE_EXPORT Mutex {
 public:
  /// The mutex while somebody holds it: released by unlock() or the destructor.
  class [[nodiscard("the mutex is released when this object dies")]] Lock {
   public:
    /// Holds nothing.
    Lock() noexcept = default;
    Lock(Lock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Lock& operator=(Lock&& other) noexcept {
      if (this != &other) {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Lock() { unlock(); }

    /// Releases the mutex; a second call does nothing. From any thread.
    void unlock() noexcept {
      if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->release();
    }
    /// Whether it holds a mutex. Not while a Condition waits with it.
    [[nodiscard]] explicit operator bool() const noexcept { return mutex_ != nullptr; }

    /// For the library.
    explicit Lock(Mutex& mutex) noexcept : mutex_(&mutex) {}

   private:
    friend class detail::ConditionWaiter;
    friend struct detail::ConditionTraits;
    Mutex* mutex_ = nullptr;
  };

  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  /// Waits for the mutex.
  detail::LockOperation lock() noexcept;
  /// Without waiting: nothing if somebody holds it.
  [[nodiscard]] std::optional<Lock> try_lock() noexcept;

 private:
  friend class detail::LockOperation;
  friend struct detail::ConditionTraits;
  void release() noexcept {
    if (!core_.give_back_if_open(1)) [[unlikely]]
      release_closed();
  }
  void release_closed() noexcept;

  detail::PermitCore<detail::MutexTraits> core_{1};
};

namespace detail {

class [[nodiscard("co_await it")]] LockOperation : public Operation<LockOperation, Mutex::Lock> {
 public:
  static constexpr const char* kWhat = "a mutex";
  static constexpr bool kTakes = true;
  explicit LockOperation(Mutex& mutex) noexcept : mutex_(&mutex) {}
  LockOperation(LockOperation&& other) noexcept
      : Operation<LockOperation, Mutex::Lock>(std::move(other)), mutex_(other.mutex_) {}
  MAGPIE_EXPORT bool start() noexcept;
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<Mutex::Lock>& slot) noexcept { slot.emplace(*mutex_); }

  // As the operation's own, but for a free mutex without the steps of a wait.
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) {
    if (takes_at_once(*awaiting.promise().scope)) [[likely]]
      return false;
    return Operation<LockOperation, Mutex::Lock>::await_suspend(awaiting);
  }
  Mutex::Lock await_resume() {
    if (completed_at_once()) [[likely]]
      return Mutex::Lock(*mutex_);
    return Operation<LockOperation, Mutex::Lock>::await_resume();
  }

 private:
  bool takes_at_once(const Scope& its_scope) noexcept {
    if (its_scope.maybe_cancelled() || !mutex_->core_.take_if_open(1)) [[unlikely]]
      return false;
    has_completed_at_once();
    return true;
  }
  Mutex* mutex_;
};

}  // namespace detail

inline detail::LockOperation Mutex::lock() noexcept {
  return detail::LockOperation(*this);
}

}  // namespace magpie
