// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

// Why something was cancelled: the public pair of kind and message, and the counted handle that
// carries it through scopes, slots and CancelledError.
//
// A handle is one pointer. Making and copying one never throws: a cancellation must get through
// when there is no memory, so each kind has a node that always exists and is never freed. Messages
// that nobody may ever read are built when they are first asked for.
//
// Threads: a handle is a value (one thread at a time); nodes are shared freely, get() included.

namespace magpie {

/// What caused a cancellation.
enum class CancelKind : std::uint8_t {
  requested,        ///< somebody called cancel()
  timeout,          ///< a deadline passed
  sibling_failed,   ///< another child of the same combinator failed
  lost_race,        ///< another child of a race finished first
  group_cancelled,  ///< TaskGroup::cancel()
  shutdown,         ///< the executor stops
};

/// Why a task was cancelled. The first reason of a scope wins; later ones are dropped.
struct CancelReason {
  CancelKind kind = CancelKind::requested;
  /// What the caller of cancel() said; else a sentence for the kind, and empty for `requested`.
  std::string message = {};
};

/// The enumerator's name, for example "sibling_failed".
[[nodiscard]] MAGPIE_EXPORT std::string_view to_string(CancelKind kind) noexcept;

namespace detail {

inline constexpr std::size_t cancel_kinds = 6;

// The part of a node that copying a handle needs. Nodes that live for ever are not counted: their
// counter would be the one cache line that all cancellations of a program fight for.
struct ReasonNode {
  constexpr ReasonNode(CancelKind the_kind, bool lives_for_ever) noexcept
      : kind(the_kind), immortal(lives_for_ever) {}

  mutable std::atomic<std::uint32_t> references{1};
  // Null until the message was asked for; set once, owned by the node.
  mutable std::atomic<const CancelReason*> built{nullptr};
  const CancelKind kind;
  const bool immortal;
};

class ReasonRef {
 public:
  constexpr ReasonRef() noexcept = default;
  ReasonRef(const ReasonRef& other) noexcept : node_(other.node_) { retain(); }
  ReasonRef(ReasonRef&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  ReasonRef& operator=(ReasonRef other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~ReasonRef() {
    if (node_ != nullptr && !node_->immortal) drop();
  }

  // A reason with this message; without one, or without memory, that of the kind.
  MAGPIE_EXPORT static ReasonRef make(CancelKind kind, std::string message = {}) noexcept;

  // The kind's own node: no allocation, nothing counted.
  MAGPIE_EXPORT static ReasonRef of_kind(CancelKind kind) noexcept;

  // "cancelled because task-3 failed: oops". The cause is kept, and asked for its what() only when
  // somebody wants the message. An empty label names no one.
  MAGPIE_EXPORT static ReasonRef sibling_failed(std::string_view label,
                                                std::exception_ptr cause) noexcept;

  // Both need a handle that is not null. Without memory for the message get() gives it empty.
  MAGPIE_EXPORT const CancelReason& get() const noexcept;
  CancelKind kind() const noexcept { return node_->kind; }

  explicit operator bool() const noexcept { return node_ != nullptr; }
  // The same cancellation, not merely an equal text.
  friend bool operator==(const ReasonRef& a, const ReasonRef& b) noexcept {
    return a.node_ == b.node_;
  }

  // For packing a handle into a word: release() gives up what adopt() takes over.
  [[nodiscard]] void* release() noexcept {
    return const_cast<ReasonNode*>(std::exchange(node_, nullptr));
  }
  [[nodiscard]] static ReasonRef adopt(void* word) noexcept {
    return ReasonRef(static_cast<const ReasonNode*>(word));
  }

 private:
  explicit ReasonRef(const ReasonNode* node) noexcept : node_(node) {}

  void retain() const noexcept {
    // Relaxed: whoever copies has a reference, so the node cannot die meanwhile.
    if (node_ != nullptr && !node_->immortal) {
      node_->references.fetch_add(1, std::memory_order_relaxed);
    }
  }
  MAGPIE_EXPORT void drop() const noexcept;

  const ReasonNode* node_ = nullptr;
};

}  // namespace detail
}  // namespace magpie
