// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The awaiter of map_concurrent: lanes over a range that somebody else wrote.

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/children.h>
#include <magpie/detail/gathered.h>
#include <magpie/detail/items.h>
#include <magpie/detail/late.h>
#include <magpie/detail/limited_base.h>
#include <magpie/detail/ranges.h>
#include <magpie/detail/slot.h>

namespace magpie::detail {

/// Slots that stay where they are while more are added.
template <class T>
class SlotList {
 public:
  void expect(std::size_t count) noexcept { next_size_ = count < kMost ? count : kMost; }
  Slot<T>& add() {
    if (chunks_.empty() || used_ == chunks_.back().size) {
      chunks_.emplace_back(next_size_);
      next_size_ = next_size_ < kMost / 2 ? 2 * next_size_ : kMost;
      used_ = 0;
    }
    ++size_;
    return chunks_.back().slots[used_++];
  }
  std::size_t size() const noexcept { return size_; }
  template <class F>
  void for_each(F&& fn) {
    std::size_t left = size_;
    for (Chunk& chunk : chunks_) {
      for (std::size_t i = 0; i < chunk.size && left > 0; ++i, --left) fn(chunk.slots[i]);
    }
  }

 private:
  static constexpr std::size_t kMost = std::size_t{1} << 16;
  struct Chunk {
    explicit Chunk(std::size_t count) : slots(new Slot<T>[count]), size(count) {}
    std::unique_ptr<Slot<T>[]> slots;
    std::size_t size;
  };
  std::vector<Chunk> chunks_;
  std::size_t next_size_ = 16;
  std::size_t used_ = 0;  // of the last chunk
  std::size_t size_ = 0;
};

template <class T, class Kept>
struct MapLane : Lane {
  Slot<T>* slot = nullptr;
  Late<Kept> kept;
};
template <class T>
struct MapLane<T, void> : Lane {  // items stay where they are
  Slot<T>* slot = nullptr;
};

template <class R, class F>
using mapped_t = awaited_t<map_call_t<R, F>>;
template <class R, class F>
using map_kept_t =
    std::conditional_t<MapTraits<R, F>::kInPlace, void, typename MapTraits<R, F>::Kept>;

/// What does not depend on the types of the range and the function.
template <class T, class Kept>
class MapBase : public LimitedBase<MapLane<T, Kept>> {
  using Base = LimitedBase<MapLane<T, Kept>>;

 public:
  using value_type = typename GatheredVector<T, false>::type;

  value_type await_resume() {
    this->concluded();
    if constexpr (!std::is_void_v<value_type>) {
      value_type results;
      results.reserve(slots_.size());
      slots_.for_each([&](Slot<T>& slot) { results.push_back(value_of(slot)); });
      return results;
    }
  }

 protected:
  using MyLane = MapLane<T, Kept>;

  explicit MapBase(std::size_t limit) : Base("map_concurrent", LanePolicy::fail_fast, limit) {}
  MapBase(MapBase&& other) : Base("map_concurrent", LanePolicy::fail_fast, other) {}

  void require_limit() const {
    this->require();
    if (this->limit_ == 0) LaneJoin::throw_no_limit("map_concurrent");
  }
  void expect(std::size_t items) noexcept { slots_.expect(items); }
  /// A place for the value of the lane's next task.
  void take_slot(MyLane& lane) {
    lane.item = count_++;
    if constexpr (std::is_void_v<T>) {
      if (lane.slot == nullptr) lane.slot = &slots_.add();
      lane.slot->reset();
    } else {
      lane.slot = &slots_.add();
    }
  }
  std::coroutine_handle<> bind(MyLane& lane, Task<T>&& task) {
    auto frame = std::move(task).take_frame();
    frame.require();
    return frame.bind(this->scope, LaneJoin::sink_of(lane), *lane.slot);
  }

 private:
  std::exception_ptr error_of(const Lane& lane) const noexcept override {
    return static_cast<const MyLane&>(lane).slot->error();
  }
  ReasonRef reason_of(const Lane& lane) const noexcept override {
    return static_cast<const MyLane&>(lane).slot->reason();
  }
  void let_go(Lane& lane) noexcept override {
    if constexpr (!std::is_void_v<Kept>) static_cast<MyLane&>(lane).kept.reset();
  }

  SlotList<T> slots_;      // of tasks without a value: one for each lane
  std::size_t count_ = 0;  // by whoever is at the source
};

template <class R, class F>
class [[nodiscard("co_await it")]] MapConcurrent final
    : public MapBase<mapped_t<R, F>, map_kept_t<R, F>> {
  using Traits = MapTraits<R, F>;
  using Range = typename Traits::Range;
  using Base = MapBase<mapped_t<R, F>, map_kept_t<R, F>>;
  using typename Base::MyLane;

 public:
  MapConcurrent(R&& range, std::size_t limit, F&& function)
      : Base(limit), range_(std::forward<R>(range)), function_(std::forward<F>(function)) {}
  MapConcurrent(MapConcurrent&& other)
      : Base(std::move(other)),
        range_(std::forward<R>(other.range_)),
        function_(std::forward<F>(other.function_)) {}

  bool await_ready() {
    this->require_limit();
    if constexpr (std::ranges::sized_range<Range>) {
      return std::ranges::size(range_) == 0;
    } else if constexpr (Traits::kReadAgain) {
      return std::ranges::begin(range_) == std::ranges::end(range_);
    } else {
      return false;  // nothing is read before it is known that the scope is not cancelled
    }
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) {
    std::size_t most = std::numeric_limits<std::size_t>::max();
    if constexpr (std::ranges::sized_range<Range>) {
      most = static_cast<std::size_t>(std::ranges::size(range_));
      this->expect(most);
    }
    return this->suspend(awaiting, most);
  }

 private:
  std::coroutine_handle<> pull(Lane& base) override {
    auto& lane = static_cast<MyLane&>(base);
    if (!at_) {
      at_.emplace(std::ranges::begin(range_));
      end_.emplace(std::ranges::end(range_));
    } else {
      ++*at_;
    }
    if (*at_ == *end_) return nullptr;
    this->take_slot(lane);
    return this->bind(lane, detail::as_task(std::invoke(function_, argument(lane))));
  }

  typename Traits::Argument argument([[maybe_unused]] MyLane& lane) {
    if constexpr (Traits::kInPlace) {
      return static_cast<typename Traits::Argument>(**at_);
    } else {
      lane.kept.emplace(Traits::keep(*at_));
      return static_cast<typename Traits::Argument>(*lane.kept);
    }
  }

  // What passes by just once is not read for this.
  bool anything_left() noexcept override {
    if constexpr (Traits::kReadAgain) {
      try {
        return at_ ? std::ranges::next(*at_) != *end_
                   : std::ranges::begin(range_) != std::ranges::end(range_);
      } catch (...) {
      }
    }
    return true;
  }

  R range_;
  F function_;
  // These by whoever is at the source.
  Late<std::ranges::iterator_t<Range>> at_;  // what was given last
  Late<std::ranges::sentinel_t<Range>> end_;
};

}  // namespace magpie::detail
