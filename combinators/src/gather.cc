// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/gather.h>

namespace magpie::detail {
namespace {

// True for the first failure of all.
bool note(GatherJoin& join, const Rec& rec, bool error, bool own_cancellation) noexcept {
  // Relaxed: the child's unit publishes it. Only the first of each kind is kept.
  std::uint64_t before = join.failures.load(std::memory_order_relaxed);
  std::uint64_t after;
  do {
    after = before | GatherJoin::kAny;
    const std::uint64_t number = std::uint64_t{rec.index} + 1;
    if (error && GatherJoin::first_error(before) == 0) after |= number;
    if (own_cancellation && GatherJoin::first_cancelled(before) == 0)
      after |= number << GatherJoin::kCancelledShift;
    // Of a hundred thousand that a cancellation ends together, one writes the line.
    if (after == before) return false;
  } while (!join.failures.compare_exchange_weak(before, after, std::memory_order_relaxed));
  return GatherJoin::first_error(before) == 0 && GatherJoin::first_cancelled(before) == 0;
}

// What a child that failed failed with.
std::exception_ptr error_of(Join& join, const Rec& rec) noexcept {
  std::exception_ptr error;
  // Only this child's slot is read: others may be running.
  join.kind->outcomes(&join).for_each(
      [&](const Rec& child, const SlotBase& slot, const void* failure) {
        if (&child != &rec) return;
        if (slot.state() == SlotState::error) error = Outcomes::error(failure);
        if (slot.state() == SlotState::cancelled) error = make_cancelled(Outcomes::reason(failure));
      });
  return error;
}

// Whether the child ended cancelled by itself, not because the gather or somebody further out is.
bool on_its_own(Join& join) noexcept {
  return !join.scope.cancelled();
}

}  // namespace

void GatherJoin::settle_fail_fast(Join* base, Rec* rec, SlotState outcome) noexcept {
  auto* const join = static_cast<GatherJoin*>(base);
  const bool error = outcome == SlotState::error;
  const bool own_cancellation = !error && on_its_own(*join);
  if (!note(*join, *rec, error, own_cancellation) || (!error && !own_cancellation)) return;
  // The cancellation comes before the child's unit is delivered: until then the scope is there.
  std::string label;
  try {
    label = "child " + std::to_string(rec->index) + " of a gather";
  } catch (...) {
  }
  cancel_scope_now(join->scope, ReasonRef::sibling_failed(label, error_of(*join, *rec)));
}

void GatherJoin::settle_keep_going(Join* base, Rec* rec, SlotState outcome) noexcept {
  auto* const join = static_cast<GatherJoin*>(base);
  const bool error = outcome == SlotState::error;
  note(*join, *rec, error, !error && on_its_own(*join));
}

void GatherJoin::settle_nothing(Join*, Rec*, SlotState) noexcept {}

void GatherJoin::conclude_slowly(Join* join, Outcomes outcomes) {
  auto& failures = static_cast<GatherJoin*>(join)->failures;
  Scope& scope = join->scope;
  if (failures.load(std::memory_order_relaxed) == kRefused)
    throw CancelledError(scope.parent()->reason());
  const ReasonRef own = scope.own_reason();
  leave_scope(scope);
  const std::uint64_t failed = failures.load(std::memory_order_relaxed);
  if (failed == 0) return;
  ReasonRef childs;
  outcomes.for_each([&](const Rec& child, const SlotBase& slot, const void* failure) {
    if (child.index + 1 == first_error(failed)) SlotBase::throw_failure(slot.state(), failure);
    if (child.index + 1 == first_cancelled(failed) && slot.state() == SlotState::cancelled)
      childs = Outcomes::reason(failure);
  });
  throw_join_cancelled(scope, childs, own);
}

void throw_join_cancelled(const Scope& scope, const ReasonRef& own, const ReasonRef& fallback) {
  ReasonRef reason = scope.outside_reason();
  if (!reason) reason = own ? own : fallback;
  throw CancelledError(std::move(reason));
}

}  // namespace magpie::detail
