// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include <magpie/detail/batcher.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/errors.h>

namespace magpie::detail {

BatcherBase::BatcherBase(std::size_t max_size, Duration max_delay)
    : max_size_(max_size), max_delay_(max_delay) {
  if (max_size == 0) {
    throw std::invalid_argument(
        "a Batcher whose calls have at most 0 items would never make one: give at least 1");
  }
}

BatcherBase::Place BatcherBase::join(BatchMemberLinks& member) {
  Place place;
  std::shared_ptr<BatchCall> fresh;
  bool full = false;
  for (;;) {
    {
      std::lock_guard guard(lock_);
      if (dead_) return Place();
      if (open_ == nullptr && fresh != nullptr) {
        open_ = std::move(fresh);
        place.opened = true;
      }
      if (open_ != nullptr) {
        place.call = open_;
        BatchCall& call = *open_;
        member.prev = call.last;
        member.next = nullptr;
        (call.last != nullptr ? call.last->next : call.first) = &member;
        call.last = &member;
        full = ++call.count == max_size_;
        if (full) open_.reset();
        break;
      }
    }
    fresh = std::make_shared<BatchCall>();  // not under the lock
  }
  if (full) place.call->go.set();
  return place;
}

bool BatcherBase::leave(BatchCall& call, BatchMemberLinks& member) noexcept {
  std::shared_ptr<BatchCall> empty;
  {
    std::lock_guard guard(lock_);
    if (call.started) return false;
    (member.prev != nullptr ? member.prev->next : call.first) = member.next;
    (member.next != nullptr ? member.next->prev : call.last) = member.prev;
    // An empty call is not made: whoever comes next opens another, with a delay of its own.
    if (--call.count == 0 && open_.get() == &call) empty = std::move(open_);
  }
  if (empty) empty->go.set();
  return true;
}

// Under the lock.
BatchMemberLinks* BatcherBase::take(BatchCall& call) noexcept {
  call.started = true;
  call.last = nullptr;
  return std::exchange(call.first, nullptr);
}

BatchMemberLinks* BatcherBase::start(BatchCall& call) noexcept {
  std::shared_ptr<BatchCall> closed;
  std::lock_guard guard(lock_);
  if (open_.get() == &call) closed = std::move(open_);  // never the last to hold it
  return take(call);
}

bool BatcherBase::made_task(BatchCall& call) noexcept {
  std::lock_guard guard(lock_);
  call.has_task = true;
  return call.dropped;
}

bool BatcherBase::dropped_task(BatchCall& call) noexcept {
  std::lock_guard guard(lock_);
  call.dropped = true;
  return call.has_task;
}

BatchMemberLinks* BatcherBase::die() noexcept {
  std::shared_ptr<BatchCall> open;
  BatchMemberLinks* members = nullptr;
  {
    std::lock_guard guard(lock_);
    dead_ = true;
    open = std::move(open_);
    if (open != nullptr) members = take(*open);
  }
  if (open != nullptr) open->go.set();
  return members;
}

bool BatcherBase::dead() noexcept {
  std::lock_guard guard(lock_);
  return dead_;
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
