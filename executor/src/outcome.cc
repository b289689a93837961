// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <chrono>
#include <thread>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/outcome.h>
#include <magpie/errors.h>

namespace magpie::detail {

Waiter* OutcomeCore::claim_waiters() noexcept {
  Waiter* ready = nullptr;
  Waiter** tail = &ready;
  Waiter* after = nullptr;
  for (Waiter* w = waiters_.front(); w != nullptr; w = after) {
    after = w->queue_next;
    auto* const op = static_cast<JoinWaiter*>(w);
    if (settling_ && op->moves()) continue;
    waiters_.remove(*w);
    bool wake_anyway = false;
    if (!op->try_complete(&wake_anyway)) {
      if (!wake_anyway) continue;
      op->fill = nullptr;
    }
    w->queue_next = nullptr;
    *tail = w;
    tail = &w->queue_next;
  }
  return ready;
}

void OutcomeCore::wake_all(Waiter* ready) noexcept {
  while (ready != nullptr) {
    Waiter* const after = ready->queue_next;  // read first: a scheduled waiter may be gone
    ready->home->schedule(*ready);
    ready = after;
  }
}

void OutcomeCore::publish(SlotState outcome) noexcept {
  Waiter* ready;
  DoneCallback* callbacks;
  bool settling;
  {
    std::lock_guard guard(lock_);
    outcome_ = outcome;
    callbacks = std::exchange(callbacks_, nullptr);
    settling_ = callbacks != nullptr || waiters_.front() != nullptr;
    settling = settling_;
    // seq_cst pairs with drop_handle(): only errors need it. Release pairs with done() and
    // wait_done().
    done_.store(
        1, outcome == SlotState::error ? std::memory_order_seq_cst : std::memory_order_release);
    ready = claim_waiters();
  }
  done_.notify_all();

  // Those who were there first get their copies, and callbacks look at the value itself; movers,
  // also those who come only now, wait until that is over.
  for (Waiter* w = ready; w != nullptr; w = w->queue_next) {
    auto* const op = static_cast<JoinWaiter*>(w);
    if (op->fill != nullptr) op->fill(op);
  }
  wake_all(ready);
  while (callbacks != nullptr) {
    DoneCallback* const after = callbacks->next;
    callbacks->call(callbacks, *this);
    callbacks = after;
  }
  if (settling) {
    {
      std::lock_guard guard(lock_);
      settling_ = false;
      ready = claim_waiters();
    }
    wake_all(ready);
  }
}

void OutcomeCore::drop_handle() noexcept {
  // seq_cst on both sides: the last handle sees the end, or the end sees that no handle is left.
  if (handles_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
      done_.load(std::memory_order_seq_cst) != 0)
    nobody_can_ask();
  release();
}

void OutcomeCore::wait_done() noexcept {
#ifdef MAGPIE_TSAN
  // ThreadSanitizer keeps signals back from a thread until it makes a call that it knows:
  // on_signal() would hear nothing.
  while (!done()) std::this_thread::sleep_for(std::chrono::microseconds(200));
#else
  done_.wait(0, std::memory_order_acquire);  // pairs with publish()
#endif
}

void OutcomeCore::on_done(DoneCallback* callback) noexcept {
  {
    std::lock_guard guard(lock_);
    if (done_.load(std::memory_order_relaxed) == 0) {
      DoneCallback** tail = &callbacks_;
      while (*tail != nullptr) tail = &(*tail)->next;
      callback->next = nullptr;
      *tail = callback;
      return;
    }
  }
  callback->call(callback, *this);
}

void OutcomeCore::throw_taken() {
  throw InvalidStateError(
      "the result has been moved out by another handle: await an lvalue handle to copy it instead");
}

void throw_empty_handle() {
  throw InvalidStateError(
      "this handle is empty (default-made, or moved from): assign one to it that spawn() or "
      "Promise::future() gave");
}

void throw_not_done() {
  throw InvalidStateError("there is no result yet: co_await the handle, or wait() for it");
}

}  // namespace magpie::detail
