// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What lies behind a Batcher; the page for users is <magpie/batch.h>.
//
// Who is in which call: batch_core.h. A call is made by a root task, which waits until it is full,
// its time has come, nobody is left in it, or the Batcher is gone.

#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/as_result.h>
#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/batch_core.h>
#include <magpie/detail/body.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/event.h>
#include <magpie/promise.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/timeout.h>

namespace magpie::detail {

struct BatchCall : BatchMembers {
  Event go;  // no need to wait any longer
};

/// What a Batcher is made of, for BatchCore.
struct BatchTraits {
  using Env = StdEnv;
  using Call = BatchCall;
  using Owner = std::shared_ptr<BatchCall>;
  MAGPIE_EXPORT static Owner make();
  static void go(Call& call) noexcept { call.go.set(); }
};

/// fn(std::vector<In>) -> Task<std::vector<Out>>, or another awaitable of that value.
template <class F, class In, class Out>
concept BatchFunction =
    std::invocable<std::remove_reference_t<F>&, std::vector<In>> &&
    Awaitable<std::invoke_result_t<std::remove_reference_t<F>&, std::vector<In>>> &&
    std::same_as<awaited_t<std::invoke_result_t<std::remove_reference_t<F>&, std::vector<In>>>,
                 std::vector<Out>>;

/// The part that knows no types: who is in which call. As BatchCore, which see.
class MAGPIE_EXPORT BatcherBase {
  using Core = BatchCore<BatchTraits>;

 public:
  /// std::invalid_argument for a size of 0.
  BatcherBase(std::size_t max_size, Duration max_delay);
  BatcherBase(const BatcherBase&) = delete;
  BatcherBase& operator=(const BatcherBase&) = delete;

  using Place = Core::Place;
  Place join(BatchMemberLinks& member);
  bool leave(BatchCall& call, BatchMemberLinks& member) noexcept;
  BatchMemberLinks* start(BatchCall& call) noexcept;
  bool made_task(BatchCall& call) noexcept;
  bool dropped_task(BatchCall& call) noexcept;
  BatchMemberLinks* die() noexcept;
  bool dead() noexcept;

  Duration max_delay() const noexcept { return max_delay_; }

 protected:
  ~BatcherBase() = default;

 private:
  const Duration max_delay_;
  Core core_;
};

MAGPIE_EXPORT MAGPIE_COLD std::exception_ptr cancelled_by_shutdown() noexcept;
/// The std::logic_error of a call that gave so many outputs for so many inputs.
MAGPIE_EXPORT MAGPIE_COLD std::exception_ptr make_wrong_number(std::size_t inputs,
                                                               std::size_t outputs);

template <class In, class Out>
class BatcherCore : public BatcherBase, public std::enable_shared_from_this<BatcherCore<In, Out>> {
 public:
  struct Member : BatchMemberLinks, FrameAllocated {
    explicit Member(In&& the_item) : item(std::move(the_item)) {}

    In item;
    Promise<Out> promise;
  };

  /// Members that were taken out of their call; those that are not told anything get
  /// BrokenPromiseError.
  class Members {
   public:
    explicit Members(BatchMemberLinks* first) noexcept : first_(first) {}
    Members(const Members&) = delete;
    Members& operator=(const Members&) = delete;
    ~Members() {
      while (first_ != nullptr) delete static_cast<Member*>(std::exchange(first_, first_->next));
    }
    bool empty() const noexcept { return first_ == nullptr; }
    std::size_t size() const noexcept {
      std::size_t n = 0;
      for (BatchMemberLinks* member = first_; member != nullptr; member = member->next) ++n;
      return n;
    }
    template <class F>
    void for_each(F&& fn) {
      for (BatchMemberLinks* member = first_; member != nullptr; member = member->next)
        fn(static_cast<Member&>(*member));
    }
    /// fn(Promise<Out>&) for each, which is gone but for its promise.
    template <class F>
    void answer(F&& fn) {
      while (first_ != nullptr) {
        Member* const member = static_cast<Member*>(std::exchange(first_, first_->next));
        Promise<Out> promise = std::move(member->promise);
        delete member;
        fn(promise);
      }
    }
    void fail(const std::exception_ptr& error) {
      answer([&](Promise<Out>& promise) { promise.set_exception(error); });
    }

   private:
    BatchMemberLinks* first_;
  };

  using BatcherBase::BatcherBase;
  virtual ~BatcherCore() = default;
  virtual Task<std::vector<Out>> call(std::vector<In> items) = 0;

  static Task<Out> submit(std::shared_ptr<BatcherCore> core, In item) {
    co_await this_task::checkpoint();
    auto owned = std::make_unique<Member>(std::move(item));
    Future<Out> future = owned->promise.future();
    const BatcherBase::Place place = core->join(*owned);
    if (!place.call) {
      owned.reset();  // breaks its promise
      co_return co_await std::move(future);
    }
    Member* const member = owned.release();  // the call's, until it has been left
    if (place.opened) {
      // Once the task has been made its opening settles the call's members, whatever becomes of it.
      try {
        auto task = make_call(Opening(core, place.call));
        require_current_executor("Batcher::submit()").spawn(std::move(task), SpawnOptions("batch"));
      } catch (...) {
        Members(core->start(*place.call)).fail(std::current_exception());
        throw;
      }
      if (core->made_task(*place.call))
        Members(core->start(*place.call)).fail(cancelled_by_shutdown());
    }
    Result<Out> result = co_await magpie::as_result(std::move(future));
    if (result.is_cancelled() && core->leave(*place.call, *member)) owned.reset(member);
    co_return std::move(result).value();
  }

 private:
  /// The right to start a call. If it is dropped without, the task never ran: it was cancelled
  /// before.
  class Opening {
   public:
    Opening(std::shared_ptr<BatcherCore> core, std::shared_ptr<BatchCall> call) noexcept
        : core_(std::move(core)), call_(std::move(call)) {}
    Opening(Opening&&) noexcept = default;
    ~Opening() {
      if (!call_ || !core_->dropped_task(*call_)) return;
      Members left(start());
      if (!left.empty()) left.fail(cancelled_by_shutdown());
    }
    BatchCall& call() const noexcept { return *call_; }
    BatcherCore& core() const noexcept { return *core_; }
    BatchMemberLinks* start() noexcept { return core_->start(*call_); }
    void close() noexcept {
      call_.reset();
      core_.reset();
    }

   private:
    std::shared_ptr<BatcherCore> core_;
    std::shared_ptr<BatchCall> call_;
  };

  static Task<> make_call(Opening opening) {
    std::exception_ptr error;  // of a call that cannot be made
    try {
      auto wait = try_timeout(opening.call().go.wait(), opening.core().max_delay());
      Result<Result<void>> waited = co_await as_result(std::move(wait));
      if (waited.is_cancelled()) co_return;  // by the executor's end: see Opening
    } catch (...) {
      error = std::current_exception();
    }
    Members members(opening.start());
    if (members.empty() || opening.core().dead()) co_return;
    if (!error) {
      try {
        Result<std::vector<Out>> result =
            co_await magpie::as_result(called(opening.core(), members));
        opening.close();  // once the last submitter has its answer, nothing of the Batcher is used
        hand_out(std::move(result), members);
      } catch (...) {
        error = std::current_exception();
      }
    }
    if (error) members.fail(error);
  }

  static Task<std::vector<Out>> called(BatcherCore& core, Members& members) {
    std::vector<In> items;
    items.reserve(members.size());
    members.for_each([&](Member& member) { items.push_back(std::move(member.item)); });
    co_return co_await core.call(std::move(items));
  }

  static void hand_out(Result<std::vector<Out>> result, Members& members) {
    if (!result.has_value()) {
      members.fail(result.error());
      return;
    }
    std::vector<Out>& outputs = result.value();
    if (outputs.size() != members.size()) {
      members.fail(make_wrong_number(members.size(), outputs.size()));
      return;
    }
    auto output = outputs.begin();
    members.answer([&](Promise<Out>& promise) {
      try {
        promise.set_value(std::move(*output++));
      } catch (...) {
        promise.set_exception(std::current_exception());
      }
    });
  }
};

template <class In, class Out, class F>  // F: an lvalue reference if it could not be copied
class BatcherCoreOf final : public BatcherCore<In, Out> {
 public:
  template <class G>
  BatcherCoreOf(std::size_t max_size, Duration max_delay, G&& function)
      : BatcherCore<In, Out>(max_size, max_delay), function_(std::forward<G>(function)) {}

  Task<std::vector<Out>> call(std::vector<In> items) override {
    return detail::as_task(std::invoke(function_, std::move(items)));
  }

 private:
  F function_;
};

}  // namespace magpie::detail
