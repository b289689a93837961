// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the awaiters of gather_limited and map_concurrent share.

#include <coroutine>
#include <cstddef>
#include <utility>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/lanes.h>
#include <magpie/detail/thread_state.h>
#include <magpie/errors.h>

namespace magpie::detail {

/// What gather_limited and map_concurrent share: their first lane, the limit, and being refused in
/// a cancelled scope.
template <class LaneType>
class LimitedBase : public CombinatorBase, protected LaneJoin {
 protected:
  LimitedBase(const char* what, LanePolicy policy, std::size_t limit) noexcept
      : LaneJoin(what, policy), limit_(limit) {}
  LimitedBase(const char* what, LanePolicy policy, LimitedBase& moved) noexcept
      : LaneJoin(what, policy), limit_(moved.limit_), spent_(std::exchange(moved.spent_, true)) {}
  ~LimitedBase() {
    for (Lane* lane = first_.newer; lane != nullptr;) {
      Lane* const newer = lane->newer;
      delete static_cast<LaneType*>(lane);
      lane = newer;
    }
  }

  /// It is awaited once, and not after a move.
  void require() const {
    if (spent_) [[unlikely]]
      throw_awaited_twice();
  }
  template <class P>
  std::coroutine_handle<> suspend(std::coroutine_handle<P> awaiting, std::size_t most) noexcept {
    Scope& outer = *awaiting.promise().scope;
    outer_ = &outer;
    spent_ = true;
    if (outer.cancelled()) [[unlikely]]
      return detail::transfer(awaiting);
    started_ = true;
    return this->start(awaiting, outer, most < limit_ ? most : limit_, first_);
  }
  /// True: there is a result to give. False: there was nothing to do.
  bool concluded() {
    if (outer_ == nullptr) return false;
    if (!started_) throw CancelledError(outer_->reason());
    this->conclude();
    return true;
  }
  Lane* new_lane() override { return new LaneType(); }

  const std::size_t limit_;

 private:
  LaneType first_;
  Scope* outer_ = nullptr;
  bool started_ = false;
  bool spent_ = false;  // started, refused, or moved from
};

}  // namespace magpie::detail
