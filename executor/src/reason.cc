// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/error_node.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/reason.h>
#include <magpie/errors.h>

#include <array>
#include <memory>
#include <new>
#include <utility>

namespace magpie {

std::string_view to_string(CancelKind kind) noexcept {
  switch (kind) {
    case CancelKind::requested:
      return "requested";
    case CancelKind::timeout:
      return "timeout";
    case CancelKind::sibling_failed:
      return "sibling_failed";
    case CancelKind::lost_race:
      return "lost_race";
    case CancelKind::group_cancelled:
      return "group_cancelled";
    case CancelKind::shutdown:
      return "shutdown";
  }
  return "unknown";
}

namespace detail {
namespace {

// A node of its own. The mortal ones are all of this type.
struct OwnReason : ReasonNode, ErrorNode {
  OwnReason(CancelKind the_kind, std::string the_text, std::exception_ptr the_cause,
            unsigned the_depth) noexcept
      : ReasonNode(the_kind, false),
        text(std::move(the_text)),
        cause(std::move(the_cause)),
        depth(the_depth) {}
  ~OwnReason() override { delete built.load(std::memory_order_relaxed); }

  std::string text;  // the message, or the failed task's label
  std::exception_ptr cause;
  unsigned depth;  // how many reasons lie below this one, each the cause of the next
};

// What is in here is never destroyed: a cancellation may be looked at by a static destructor.
template <class T>
union Immortal {
  template <class... A>
  constexpr explicit Immortal(A&&... arguments) : object(std::forward<A>(arguments)...) {}
  constexpr ~Immortal() {}
  T object;
};

constinit Immortal<ReasonNode> kind_nodes[cancel_kinds] = {
    Immortal<ReasonNode>(CancelKind::requested, true),
    Immortal<ReasonNode>(CancelKind::timeout, true),
    Immortal<ReasonNode>(CancelKind::sibling_failed, true),
    Immortal<ReasonNode>(CancelKind::lost_race, true),
    Immortal<ReasonNode>(CancelKind::group_cancelled, true),
    Immortal<ReasonNode>(CancelKind::shutdown, true),
};

// A value that somebody cast into the enumeration counts as a request.
std::size_t index_of(CancelKind kind) noexcept {
  const auto index = static_cast<std::size_t>(kind);
  return index < cancel_kinds ? index : 0;
}

const char* sentence(CancelKind kind) noexcept {
  switch (kind) {
    case CancelKind::requested:
      return "";
    case CancelKind::timeout:
      return "cancelled because the deadline passed";
    case CancelKind::sibling_failed:
      return "cancelled because a sibling failed";
    case CancelKind::lost_race:
      return "cancelled because another task finished first";
    case CancelKind::group_cancelled:
      return "cancelled together with its group";
    case CancelKind::shutdown:
      return "cancelled because the executor shuts down";
  }
  return "";
}

// For when there is no memory for a message; has the kind all the same.
const CancelReason& silent_reason(CancelKind kind) noexcept {
  // Constructed at the first call, never destroyed; empty strings allocate nothing.
  static Immortal<std::array<CancelReason, cancel_kinds>> reasons(
      std::array<CancelReason, cancel_kinds>{{{CancelKind::requested},
                                              {CancelKind::timeout},
                                              {CancelKind::sibling_failed},
                                              {CancelKind::lost_race},
                                              {CancelKind::group_cancelled},
                                              {CancelKind::shutdown}}});
  return reasons.object[index_of(kind)];
}

// What causes a cancellation is seldom a cancellation, but a task that is cancelled through a
// failing sibling again and again must not grow a chain: the message of the outermost asks for that
// of the next, and quotes it.
constexpr unsigned deepest_chain = 8;

std::string message_of(const ReasonNode& node) {
  if (node.immortal) return sentence(node.kind);
  const auto& own = static_cast<const OwnReason&>(node);
  if (!own.cause) return own.text;
  std::string message = "cancelled because ";
  message += own.text.empty() ? std::string("a sibling") : own.text;
  if (const auto* cancelled = exception_cast<CancelledError>(own.cause)) {
    message += " was cancelled";
    const std::string& why = cancelled->reason().message;
    if (!why.empty()) message += ": " + why;
  } else {
    message += " failed: " + describe(own.cause);
  }
  return message;
}

}  // namespace

ReasonRef ReasonRef::of_kind(CancelKind kind) noexcept {
  return ReasonRef(&kind_nodes[index_of(kind)].object);
}

ReasonRef ReasonRef::make(CancelKind kind, std::string message) noexcept {
  if (message.empty()) return of_kind(kind);
  try {
    return ReasonRef(new OwnReason(kind, std::move(message), nullptr, 0));
  } catch (const std::bad_alloc&) {
    return of_kind(kind);
  }
}

ReasonRef ReasonRef::sibling_failed(std::string_view label, std::exception_ptr cause) noexcept {
  if (!cause) return of_kind(CancelKind::sibling_failed);
  unsigned depth = 0;
  if (const auto* cancelled = exception_cast<CancelledError>(cause)) {
    const ReasonRef& below = cancelled->reason_ref();
    if (!below.node_->immortal) depth = static_cast<const OwnReason*>(below.node_)->depth + 1;
  }
  if (depth > deepest_chain) return of_kind(CancelKind::sibling_failed);
  try {
    return ReasonRef(
        new OwnReason(CancelKind::sibling_failed, std::string(label), std::move(cause), depth));
  } catch (const std::bad_alloc&) {
    return of_kind(CancelKind::sibling_failed);
  }
}

const CancelReason& ReasonRef::get() const noexcept {
  // Pairs with the release of the exchange below: the text was written before it was published.
  const CancelReason* reason = node_->built.load(std::memory_order_acquire);
  if (reason != nullptr) return *reason;
  try {
    auto fresh =
        std::make_unique<const CancelReason>(CancelReason{node_->kind, message_of(*node_)});
    // Two threads may both have built it: the first one's stays, everybody refers to that.
    // Release pairs with both acquires; acquire with the release of who was first.
    if (node_->built.compare_exchange_strong(reason, fresh.get(), std::memory_order_acq_rel,
                                             std::memory_order_acquire)) {
      return *fresh.release();
    }
    return *reason;
  } catch (...) {
    // No memory, or a what() that throws although it promises not to would have terminated.
    return silent_reason(node_->kind);
  }
}

void ReasonRef::drop() const noexcept {
  // Release: what this handle's owner read was read before. Acquire: the last owner sees all of
  // that as done before it destroys the node. Each pairs with the other handles' drop().
  if (node_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    ErrorNode::destroy(static_cast<const OwnReason*>(node_));
  }
}

}  // namespace detail
}  // namespace magpie
