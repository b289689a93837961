// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/executor_core.h>
#include <magpie/detail/outcome.h>
#include <magpie/errors.h>

namespace magpie::detail {

void JoinWaiter::hand_over() noexcept {
  executor->schedule(*this);
}

template class BasicOutcomeCore<StdEnv, JoinWaiter>;

void throw_taken() {
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
