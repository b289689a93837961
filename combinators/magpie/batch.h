// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// batch: so many items at a time, and a pause in between.
//
//     auto results = co_await batch(items, 10, process, BatchOptions().pause(100ms));
//
// process(item) gives a task for each item. The tasks of a batch run side by side, as a gather; the
// next batch begins when all of them have ended and the pause is over. The results are in the order
// of the items. No pause after the last batch; the last one may be smaller.
//
// The first failure cancels the rest of its batch, which is waited for, and ends it all: it is
// thrown, and the results so far are dropped. A cancellation does likewise, also in a pause. No
// items in a range that knows its size: an empty result without suspending; else it is a
// cancellation point on entry, and nothing is started in a cancelled scope. A size of 0:
// std::invalid_argument.
//
// The range is referenced if it is an lvalue, moved in if it is an rvalue. Each item lives until
// its task has ended: the elements of a range that can be read again stay where they are; what a
// range makes on the way, or reads just once, is kept until its batch has ended. process gets an
// element as it is; as an rvalue, where it can take one, if nobody else has it: of a container that
// was moved in, or made on the way. The range is read one batch at a time, and process called for
// all items of a batch, in order, before the first of their tasks starts; if one of these throws,
// none of that batch does. process is moved in (or referenced, if an lvalue) and lives until the
// batches have ended.
//
// Starts when awaited; resumes where it was awaited. Time is the executor's.
//
// Batcher: callers' single requests, gathered into one call.
//
//     auto find = [&](std::vector<Key> keys) { return db.find_all(std::move(keys)); };
//     Batcher<Key, Row> rows(100, 5ms, find);
//     Row row = co_await rows.submit(key);   // from any number of tasks

#include <concepts>
#include <cstddef>
#include <functional>
#include <iterator>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/batcher.h>
#include <magpie/detail/children.h>
#include <magpie/detail/items.h>
#include <magpie/detail/late.h>
#include <magpie/detail/ranges.h>
#include <magpie/detail/slot.h>
#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace magpie {

/// What batch does between its batches. A value with chained setters.
class BatchOptions {
 public:
  BatchOptions() noexcept {}
  /// How long after the end of a batch the next one begins. At once if not set.
  BatchOptions& pause(Duration pause) noexcept {
    pause_ = pause;
    return *this;
  }
  [[nodiscard]] Duration pause() const noexcept { return pause_; }

 private:
  Duration pause_;
};

namespace detail {

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_empty_batches();

/// Where batches come from: somebody's range and function, without their types, so that the
/// coroutine is compiled once for what the function gives. `Call`: that, before it is awaited.
template <class Call>
class BatchSource {
 public:
  explicit BatchSource(bool reads_again) noexcept : reads_again_(reads_again) {}
  BatchSource(const BatchSource&) = delete;
  BatchSource& operator=(const BatchSource&) = delete;
  virtual ~BatchSource() = default;

  /// Whether looking for the first item takes none away.
  bool reads_again() const noexcept { return reads_again_; }
  /// Begins to read. Like next(): whether there is an item.
  virtual bool begin() = 0;
  /// Calls the function for up to `size` items, at least one.
  virtual void make(std::vector<Call>& calls, std::size_t size) = 0;
  /// The batch has ended. What comes after it is not read before.
  virtual bool next() = 0;
  /// How many items there are in all; 0 if the range does not know.
  virtual std::size_t count() = 0;

 private:
  const bool reads_again_;
};

template <class R, class F>  // either may be an lvalue reference: then it is the caller's
class BatchItems final : public BatchSource<map_call_t<R, F>> {
  using Items = MapTraits<R, F>;
  using Range = typename Items::Range;
  using Call = map_call_t<R, F>;

 public:
  BatchItems(R&& range, F&& function)
      : BatchSource<Call>(Items::kReadAgain),
        range_(std::forward<R>(range)),
        function_(std::forward<F>(function)) {}

  bool begin() override {
    at_.emplace(std::ranges::begin(range_));
    end_.emplace(std::ranges::end(range_));
    return *at_ != *end_;
  }
  void make(std::vector<Call>& calls, std::size_t size) override {
    for (;;) {
      if constexpr (Items::kInPlace) {
        calls.push_back(std::invoke(function_, static_cast<typename Items::Argument>(**at_)));
      } else {
        kept_.push_back(std::make_unique<Box>(at_));
        calls.push_back(
            std::invoke(function_, static_cast<typename Items::Argument>(kept_.back()->item)));
      }
      full_ = calls.size() == size;
      if (full_) return;
      ++*at_;
      if (*at_ == *end_) return;
    }
  }
  bool next() override {
    if constexpr (!Items::kInPlace) kept_.clear();
    if (full_) ++*at_;
    return *at_ != *end_;
  }
  std::size_t count() override {
    if constexpr (std::ranges::sized_range<Range>) {
      return static_cast<std::size_t>(std::ranges::size(range_));
    } else {
      return 0;
    }
  }

 private:
  struct Nothing {};
  // Not the item alone: its class may forbid `new`.
  struct Box {
    explicit Box(Late<std::ranges::iterator_t<Range>>& at) : item(Items::keep(*at)) {}
    typename Items::Kept item;
  };
  R range_;
  F function_;
  Late<std::ranges::iterator_t<Range>> at_;
  Late<std::ranges::sentinel_t<Range>> end_;
  bool full_ = false;  // the last of the batch is still at at_
  std::conditional_t<Items::kInPlace, Nothing, std::vector<std::unique_ptr<Box>>>
      kept_;  // of this batch
};

/// What gather gives for the tasks of a batch: a vector, or nothing.
template <class Call>
using batch_value_t = awaited_t<decltype(magpie::gather(std::declval<std::vector<Call>>()))>;

template <class Call>
Task<batch_value_t<Call>> batch_task(std::unique_ptr<BatchSource<Call>> source, std::size_t size,
                                     BatchOptions options) {
  using Results = batch_value_t<Call>;
  constexpr bool kVoid = std::is_void_v<Results>;
  if (size == 0) throw_empty_batches();
  if (!source->reads_again()) co_await this_task::checkpoint();  // before anything is read
  regular_t<Results> results;
  bool more = source->begin();
  while (more) {
    co_await this_task::checkpoint();
    std::vector<Call> calls;
    source->make(calls, size);
    if constexpr (kVoid) {
      co_await magpie::gather(std::move(calls));
    } else {
      Results part = co_await magpie::gather(std::move(calls));
      if (results.empty()) results.reserve(source->count());
      for (auto&& result : part) {
        if constexpr (std::is_lvalue_reference_v<decltype(result)>) {
          results.push_back(std::move(result));
        } else {
          results.push_back(result);  // a bit of a vector<bool>
        }
      }
    }
    more = source->next();
    if (more && options.pause() != Duration()) co_await sleep_for(options.pause());
  }
  if constexpr (!kVoid) co_return std::move(results);
}

}  // namespace detail

/// fn(item) -> Task<R> for each item, `size` of them at a time; see the head of the file.
template <class R, class F>
requires detail::Mappable<R, F>
auto batch(R&& items, std::size_t size, F&& fn, BatchOptions options = BatchOptions()) {
  using Call = detail::map_call_t<R, F>;
  return detail::batch_task<Call>(
      std::unique_ptr<detail::BatchSource<Call>>(
          new detail::BatchItems<R, F>(std::forward<R>(items), std::forward<F>(fn))),
      size, options);
}

/// Gathers items that tasks submit singly, and calls a function with up to `max_size` of them at
/// once.
///
/// The first item opens a call, which is made when it is full or `max_delay` has passed, whichever
/// is first: fn(std::vector<In>) -> Task<std::vector<Out>>, items in the order in which they came,
/// a result for each in the same order. It runs as a root task named "batch" on the opener's
/// executor, with the opener's task-locals; meanwhile the next items open another call, so calls
/// may overlap, and fn has to stand that. What it throws goes to each submitter of the call, a
/// cancellation of it as CancelledError; a wrong number of results is std::logic_error for each.
///
/// submit() is a cancellation point. A submitter that is cancelled leaves its call if that has not
/// started, else its result is dropped; a call that nobody is left in is not made.
///
/// fn is moved in; an lvalue is copied, as calls may run on after the Batcher, or referenced if it
/// cannot be copied. When the Batcher dies, calls that have started go on to their end and give
/// their results; those who are left in others get BrokenPromiseError. What fn uses must live until
/// its calls have ended, which the executor's end, at the latest, waits for. Threads: submit from
/// any task of any executor.
template <class In, class Out>
class Batcher {
  static_assert(std::is_object_v<In> && std::is_object_v<Out>, "a Batcher takes and gives objects");

 public:
  /// `max_delay` is counted from a call's first item; Duration::never(): only full calls are made.
  /// std::invalid_argument for a size of 0.
  template <detail::BatchFunction<In, Out> F>
  Batcher(std::size_t max_size, Duration max_delay, F&& fn)
      : core_(std::make_shared<detail::BatcherCoreOf<In, Out, Stored<F>>>(max_size, max_delay,
                                                                          std::forward<F>(fn))) {}
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;
  ~Batcher() { typename Core::Members(core_->die()); }

  /// The result for this item. Submits when it is awaited.
  Task<Out> submit(In item) { return Core::submit(core_, std::move(item)); }

 private:
  using Core = detail::BatcherCore<In, Out>;
  template <class F>
  using Stored = std::conditional_t<std::is_lvalue_reference_v<F> &&
                                        !std::copy_constructible<std::remove_reference_t<F>>,
                                    F, std::remove_cvref_t<F>>;
  std::shared_ptr<Core> core_;
};

}  // namespace magpie
