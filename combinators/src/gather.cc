// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/gather.h>

namespace magpie::detail {
namespace {

void set_first(std::atomic<Rec*>& first, Rec* rec) noexcept {
  Rec* nobody = nullptr;
  first.compare_exchange_strong(nobody, rec, std::memory_order_acq_rel, std::memory_order_relaxed);
}

// Whether the child ended cancelled by itself, not because the gather or somebody further out is.
bool on_its_own(const Join& join) noexcept { return !join.scope.cancelled(); }

}  // namespace

void GatherJoin::settle_fail_fast(Join* base, Rec* rec, SlotState outcome) noexcept {
  auto* const join = static_cast<GatherJoin*>(base);
  join->any_failed.store(true, std::memory_order_relaxed);
  std::exception_ptr cause;
  if (outcome == SlotState::error) {
    set_first(join->first_error, rec);
    cause = join->error_of(join, rec);
  } else if (on_its_own(*join)) {
    set_first(join->first_cancelled, rec);
  } else {
    return;
  }
  // The cancellation comes before the child's unit is delivered: until then the scope is there.
  std::string label;
  try {
    label = "child " + std::to_string(rec->index) + " of a gather";
  } catch (...) {
  }
  cancel_scope_now(join->scope, ReasonRef::sibling_failed(label, std::move(cause)));
}

void GatherJoin::settle_keep_going(Join* base, Rec* rec, SlotState outcome) noexcept {
  auto* const join = static_cast<GatherJoin*>(base);
  join->any_failed.store(true, std::memory_order_relaxed);
  if (outcome == SlotState::error) {
    set_first(join->first_error, rec);
  } else if (on_its_own(*join)) {
    set_first(join->first_cancelled, rec);
  }
}

void GatherJoin::settle_nothing(Join*, Rec*, SlotState) noexcept {}

void throw_join_cancelled(const Scope& scope, const ReasonRef& own, const ReasonRef& fallback) {
  ReasonRef reason = scope.outside_reason();
  if (!reason) reason = own ? own : fallback;
  throw CancelledError(std::move(reason));
}

}  // namespace magpie::detail
