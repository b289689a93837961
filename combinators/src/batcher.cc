// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <magpie/detail/batcher.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/errors.h>

namespace magpie::detail {

BatchTraits::Owner BatchTraits::make() {
  return std::make_shared<BatchCall>();
}

BatcherBase::BatcherBase(std::size_t max_size, Duration max_delay)
    : max_delay_(max_delay), core_(max_size) {
  if (max_size == 0) {
    throw std::invalid_argument(
        "a Batcher whose calls have at most 0 items would never make one: give at least 1");
  }
}

BatcherBase::Place BatcherBase::join(BatchMemberLinks& member) {
  return core_.join(member);
}
bool BatcherBase::leave(BatchCall& call, BatchMemberLinks& member) noexcept {
  return core_.leave(call, member);
}
BatchMemberLinks* BatcherBase::start(BatchCall& call) noexcept {
  return core_.start(call);
}
bool BatcherBase::made_task(BatchCall& call) noexcept {
  return core_.made_task(call);
}
bool BatcherBase::dropped_task(BatchCall& call) noexcept {
  return core_.dropped_task(call);
}
BatchMemberLinks* BatcherBase::die() noexcept {
  return core_.die();
}
bool BatcherBase::dead() noexcept {
  return core_.dead();
}

std::exception_ptr cancelled_by_shutdown() noexcept {
  return make_error<CancelledError>(ReasonRef::of_kind(CancelKind::shutdown));
}

std::exception_ptr make_wrong_number(std::size_t inputs, std::size_t outputs) {
  return std::make_exception_ptr(std::logic_error(
      "a Batcher's function got " + std::to_string(inputs) + " items and gave " +
      std::to_string(outputs) + " results: it has to give one for each, in their order"));
}

}  // namespace magpie::detail
