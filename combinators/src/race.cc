// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <string>

#include <magpie/race.h>

namespace magpie::detail {

void RaceJoin::settle_race(Join* base, Rec* rec, SlotState outcome) noexcept {
  auto* const join = static_cast<RaceJoin*>(base);
  // Who was cancelled with the race, or with somebody further out, has not completed.
  if (outcome != SlotState::value && outcome != SlotState::error && join->scope.cancelled()) return;
  // An operation that takes something has won already, before it took it.
  if (!join->arbiter.win(rec->index) && join->arbiter.winner() != rec->index) {
    if (outcome == SlotState::error)
      rec->index = join->ended.fetch_add(1, std::memory_order_relaxed);  // as in settle_any()
    return;
  }
  cancel_scope_now(join->scope, ReasonRef::of_kind(CancelKind::lost_race));
}

void RaceJoin::settle_any(Join* base, Rec* rec, SlotState outcome) noexcept {
  auto* const join = static_cast<RaceJoin*>(base);
  if (outcome != SlotState::value) {
    // What it took could not be moved to it: it has won all the same, and the others take nothing
    // any more.
    if (join->arbiter.winner() == rec->index)
      cancel_scope_now(join->scope, ReasonRef::of_kind(CancelKind::lost_race));
    // Nobody asks any more which child it is, only the how-manieth to fail. Published with the
    // child's unit.
    rec->index = join->ended.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (!join->arbiter.win(rec->index) && join->arbiter.winner() != rec->index) return;
  cancel_scope_now(join->scope, ReasonRef::of_kind(CancelKind::lost_race));
}

void throw_empty_race(const char* what) {
  throw std::invalid_argument(std::string(what) +
                              " needs at least one contestant: of none, none can be first");
}

void RaceJoin::throw_error_of_a_loser(Outcomes outcomes) {
  std::exception_ptr first;
  std::uint32_t order = 0;
  outcomes.for_each([&](const Rec& child, const SlotBase& slot, const void* failure) {
    if (slot.state() != SlotState::error || (first && order < child.index)) return;
    first = Outcomes::error(failure);
    order = child.index;  // see settle_race()
  });
  if (first) std::rethrow_exception(std::move(first));
}

void RaceJoin::throw_nobody_won(Outcomes outcomes) const {
  std::vector<std::pair<std::uint32_t, std::exception_ptr>> failures;
  ReasonRef childs;
  outcomes.for_each([&](const Rec& child, const SlotBase& slot, const void* failure) {
    if (slot.state() == SlotState::error)
      failures.emplace_back(child.index, Outcomes::error(failure));  // see settle_any()
    if (slot.state() == SlotState::cancelled && !childs) childs = Outcomes::reason(failure);
  });
  if (failures.empty())
    throw_join_cancelled(scope, childs, ReasonRef::of_kind(CancelKind::lost_race));
  std::sort(failures.begin(), failures.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::exception_ptr> errors;
  errors.reserve(failures.size());
  for (auto& [order, error] : failures) errors.push_back(std::move(error));
  throw ExceptionGroup("none of the contestants succeeded", std::move(errors));
}

}  // namespace magpie::detail
