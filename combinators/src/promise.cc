// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <stdexcept>

#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/executor_core.h>
#include <magpie/manual_clock.h>
#include <magpie/promise.h>

namespace magpie::detail {

// Whoever sets the promise, no executor stands behind it: any may bring it about, so virtual time
// moves wherever there is some.
void PromiseCore::block_until_done() {
  refuse_on_worker("wait()");
  if (done()) return;
  struct Thread : BlockedThread {
    const PromiseCore* core;
  } thread;
  thread.core = this;
  thread.over = [](const BlockedThread& base) noexcept {
    return static_cast<const Thread&>(base).core->done();
  };
  const BlockedAnywhere blocked(thread);
  wait_done();
}

void throw_promise_set_twice() {
  throw InvalidStateError("this promise has been set: that can be done once");
}

void throw_empty_promise() {
  throw InvalidStateError("this promise is empty: it was moved from");
}

void throw_null_exception() {
  throw std::invalid_argument("set_exception() needs an exception, not a null pointer");
}

std::exception_ptr make_broken_promise() noexcept {
  return make_error<BrokenPromiseError>();
}

ReasonRef reason_in(const std::exception_ptr& error) noexcept {
  const CancelledError* const cancelled = exception_cast<CancelledError>(error);
  return cancelled != nullptr ? cancelled->reason_ref() : ReasonRef();
}

}  // namespace magpie::detail
