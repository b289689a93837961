// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Event: a flag that tasks can wait for. set() wakes everybody who waits, also if it is cleared at
// once.
//
// Threads: all members from any thread; the event must outlive its waiters. wait() is a
// cancellation point, takes nothing, and allocates nothing.

#include <cstddef>

#include <magpie/config.h>
#include <magpie/detail/event_core.h>
#include <magpie/detail/operation.h>
#include <magpie/task.h>

namespace magpie {

class Event;

namespace detail {

class [[nodiscard("co_await it")]] EventWait : public Operation<EventWait, void> {
 public:
  static constexpr const char* kWhat = "an event";
  explicit EventWait(Event& event) noexcept : event_(&event) {}
  EventWait(EventWait&& other) noexcept
      : Operation<EventWait, void>(std::move(other)), event_(other.event_) {}
  MAGPIE_EXPORT bool start() noexcept;
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<void>& slot) noexcept { slot.emplace(); }

 private:
  Event* event_;
};

}  // namespace detail

class MAGPIE_EXPORT Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  /// Raises the flag and wakes all waiters.
  void set() noexcept;
  /// Lowers it. Waiters that set() has reached wake all the same.
  void clear() noexcept;
  [[nodiscard]] bool is_set() const noexcept;
  /// Waits until the flag is up.
  detail::EventWait wait() noexcept { return detail::EventWait(*this); }

 private:
  friend class detail::EventWait;
  detail::EventCore<detail::OperationTraits> core_;
};

}  // namespace magpie
