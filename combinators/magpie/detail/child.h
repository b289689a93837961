// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A child of a join, by what it is made from. All children of one: detail/children.h.
//
//   TaskChild       a task's frame, forked
//   CallChild       a callable that is run as a child, or makes a task when its turn comes, forked
//   OperationChild  a leaf operation: no frame, started by the parent, ends in place
//
// Each keeps its outcome in its slot. They are moved freely until the join starts, and stay where
// they are from then on. Each tells whether it can still be started, and was neither moved from nor
// started before.

#include <concepts>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <variant>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/join.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/task_core.h>

namespace magpie::detail {

// Compilers judge the size of these little functions before they see how little is left of them; on
// the fork path each call that stays costs as much as the fork.
#define MAGPIE_FLAT __attribute__((always_inline))
// For await_suspend: clang before 19 may optimise what is inlined there as if the coroutine could
// not go on elsewhere meanwhile.
#if defined(__clang__) && __clang_major__ < 19
#define MAGPIE_FLAT_SUSPEND
#else
#define MAGPIE_FLAT_SUSPEND MAGPIE_FLAT
#endif

// In the place of a callable's coroutine until its join starts.
inline constexpr std::uintptr_t kUnstarted = 1;

/// The frame of a task that is not empty.
struct GivenFrame {
  std::uintptr_t address;
};

// Whether an outcome lies in the place where the child is a Runnable meanwhile, before its start.
template <class T>
inline constexpr bool kInNode =
    sizeof(Slot<T>) <= sizeof(Runnable) && alignof(Slot<T>) <= alignof(Runnable);

/// A forked child with its outcome. A small one takes no place of its own: the slot is there from
/// the child's beginning to its end, except while an executor's queue has the child (Fork).
template <class Record, class T>
struct ForkedChild : Record {
  using value_type = T;
  static constexpr bool kForked = true;

  MAGPIE_FLAT ForkedChild() noexcept {}
  ForkedChild(const ForkedChild&) = delete;
  ForkedChild& operator=(const ForkedChild&) = delete;
  MAGPIE_FLAT Slot<T>& slot() noexcept { return slot_; }

 private:
  Slot<T> slot_;
};
template <class Record, class T>
requires kInNode<T>
struct ForkedChild<Record, T> : Record {
  using value_type = T;
  static constexpr bool kForked = true;

  MAGPIE_FLAT ForkedChild() noexcept { ::new (static_cast<void*>(this->node_place())) Slot<T>; }
  ForkedChild(const ForkedChild&) = delete;
  ForkedChild& operator=(const ForkedChild&) = delete;
  MAGPIE_FLAT ~ForkedChild() { std::destroy_at(&slot()); }
  MAGPIE_FLAT Slot<T>& slot() noexcept {
    return *std::launder(reinterpret_cast<Slot<T>*>(this->node_place()));
  }
};

template <class T>
struct TaskChild : ForkedChild<Fork, T> {
  // Until the join starts the child owns the frame.
  MAGPIE_FLAT explicit TaskChild(GivenFrame given) noexcept {
    this->coroutine = given.address;
    this->join = nullptr;
  }
  template <class A>
  MAGPIE_FLAT explicit TaskChild(A&& given) {
    auto frame = detail::as_task(std::forward<A>(given)).take_frame();
    frame.require();
    this->coroutine = frame.release();
    this->join = nullptr;
  }
  TaskChild(TaskChild&& other) noexcept {
    this->coroutine = std::exchange(other.coroutine, 0);
    this->join = other.join;
  }
  MAGPIE_FLAT ~TaskChild() {
    if (!spent()) [[unlikely]] {
      destroy_unstarted_sparing(std::coroutine_handle<PromiseBase>::from_address(
          reinterpret_cast<void*>(this->coroutine)));
    }
  }

  /// Whether it was moved from, or its join has started.
  MAGPIE_FLAT bool spent() const noexcept { return this->coroutine == 0 || this->join != nullptr; }
  template <bool Settled>
  MAGPIE_FLAT void arm(Join& the_join, std::uintptr_t frame) noexcept {
    this->join = &the_join;
    this->carry = 0;
    auto& promise = handle(frame).promise();
    promise.scope = &the_join.scope;
    promise.continuation = Continuation::to(static_cast<Fork*>(this), Settled);
    promise.slot = &this->slot();
  }
  void refuse() noexcept {
    destroy_unstarted(std::coroutine_handle<PromiseBase>::from_address(
        reinterpret_cast<void*>(std::exchange(this->coroutine, 0))));
  }

 private:
  static std::coroutine_handle<TaskPromise<T>> handle(std::uintptr_t address) noexcept {
    return std::coroutine_handle<TaskPromise<T>>::from_address(reinterpret_cast<void*>(address));
  }
};

template <class F>
struct CallValue {
  using type = once_result_t<F>;
};
template <class F>
requires Awaitable<once_result_t<F>>
struct CallValue<F> {
  using type = awaited_t<once_result_t<F>>;
};

template <class F>  // F may be an lvalue reference: then the caller's object is called
struct CallChild : ForkedChild<CallRec, typename CallValue<F>::type> {
  explicit CallChild(F&& f) : function(std::forward<F>(f)) { this->coroutine = kUnstarted; }
  CallChild(CallChild&& other) : function(std::forward<F>(other.function)) {
    this->coroutine = std::exchange(other.coroutine, 0);
  }

  bool spent() const noexcept { return (this->coroutine & kUnstarted) == 0; }
  template <bool Settled>
  void arm(Join& the_join, std::uintptr_t) noexcept {
    this->join = &the_join;
    this->carry = 0;
    this->coroutine = 0;
    this->begin = [](CallRec* rec) noexcept -> std::coroutine_handle<> {
      auto* const self = static_cast<CallChild*>(rec);
      try {
        using R = once_result_t<F>;
        if constexpr (Awaitable<R>) {
          auto frame =
              detail::as_task(std::invoke(static_cast<once_t<F>>(self->function))).take_frame();
          frame.require();
          return frame.bind(self->join->scope, Continuation::to(rec, Settled), self->slot());
        } else if constexpr (std::is_void_v<R>) {
          std::invoke(static_cast<once_t<F>>(self->function));
          self->slot().emplace();
        } else {
          self->slot().emplace(std::invoke(static_cast<once_t<F>>(self->function)));
        }
      } catch (...) {
        self->slot().capture_current_exception();
      }
      settle_child(rec, self->slot().state());
      return nullptr;
    };
  }
  void refuse() noexcept { this->coroutine = 0; }

  F function;
};

template <class A>
decltype(auto) operation_of(A&& given) {
  if constexpr (IsOperation<A>) {
    return std::move(given);
  } else {
    return std::forward<A>(given).operation();
  }
}

/// After so many children of a row, others have their turn.
inline constexpr std::uint32_t kRowPiece = 64;
/// Whether the executor has anything else for this thread, as far as one can tell. If not, the row
/// goes on: queued again, it would wake a worker for which there is nothing to do.
inline bool row_gives_way() noexcept {
  const LocalQueue* const queue = local_queue();
  return queue == nullptr || queue->deque.size_hint() != 0 || queue->loop_is_wanted();
}

// A wait begins with a Rec: given to a combinator, the operation is itself the child.
template <class Op>
struct OperationChild : Op {
  using value_type = typename Op::value_type;
  static constexpr bool kForked = false;

  template <class A>
  explicit OperationChild(A&& given) : Op(operation_of(std::forward<A>(given))) {}
  OperationChild(OperationChild&& other) : Op(static_cast<Op&&>(other)) {
    if (other.spent()) this->stand = Stand::moved;
    other.stand = Stand::moved;
  }

  bool spent() const noexcept { return this->stand != Stand::nowhere; }

  void refuse() noexcept { this->stand = Stand::moved; }
  /// True if it has ended already, its outcome in the slot. Otherwise the child may be gone when
  /// this returns.
  bool start(Join& the_join, [[maybe_unused]] bool is_race) noexcept {
    this->prepare(the_join, Op::template kKind<resumed, GoesOn::row>);
    // Only what takes something has to win first; what others take as well, a handle's result say,
    // is settled at its end.
    if constexpr (requires { Op::kTakes; }) {
      if (is_race) this->enter_race(true);
    }
    if constexpr (requires { Op::kTakesAtItsEnd; }) {
      if (Op::kTakesAtItsEnd && is_race) this->enter_race(false);
    }
    try {
      if (Op::start()) return false;
      this->finish(slot_);
    } catch (...) {
      slot_.capture_current_exception();
    }
    return true;
  }

  // The first of a row, if a cancellation claimed it: those behind it end as well, and hand in
  // their units together.
  static void resumed(Runnable* node) noexcept {
    auto* self = static_cast<OperationChild*>(static_cast<OperationBase*>(node));
    Join* const join = self->join;
    install_locals(join->scope);
    // On a thread that is no worker after each: a simulator can put anything in between.
    const std::uint32_t piece = local_queue() != nullptr ? kRowPiece : 1;
    std::uint32_t units = 0;
    do {
      Waiter* const next = behind_in_row(*self);
      self->finish(self->slot_);
      settle_child(self, self->slot_.state());
      ++units;
      self = static_cast<OperationChild*>(static_cast<OperationBase*>(next));
      if (self != nullptr && units % piece == 0 && row_gives_way()) {
        // Those that are left keep the join alive, and bring their own units.
        self->executor->schedule_behind(*self);
        break;
      }
    } while (self != nullptr);
    resume_here(advance(join, units));
  }

  Slot<value_type>& slot() noexcept { return slot_; }

 private:
  Slot<value_type> slot_;
};

/// The child that something given becomes; it is constructed from what is given.
template <class A>
struct ChildFor {
  static_assert(InvocableOnce<A>,
                "a child is a task, another awaitable, or a callable without arguments");
  using type = CallChild<A>;  // an lvalue is referenced, an rvalue moved in
};
template <class A>
requires Awaitable<A>
struct ChildFor<A> {
  using type = TaskChild<awaited_t<A>>;
};
template <class A>
requires(IsOperation<A> || IsOperationSource<A>)
struct ChildFor<A> {
  using type = OperationChild<std::remove_cvref_t<decltype(operation_of(std::declval<A>()))>>;
};
template <class A>
using child_t = typename ChildFor<
    std::conditional_t<std::is_lvalue_reference_v<A>, A, std::remove_reference_t<A>>>::type;

/// What a child can be made from.
template <class A>
concept ChildLike = Awaitable<A> || InvocableOnce<A>;

/// void as std::monostate, references as they are.
template <class T>
using regular_t = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

/// The value of a slot that is known to hold one.
template <class T>
MAGPIE_FLAT inline regular_t<T> value_of(Slot<T>& slot) {
  if constexpr (std::is_void_v<T>) {
    return {};
  } else if constexpr (std::is_reference_v<T>) {
    return slot.value();
  } else {
    return std::move(slot.value());
  }
}

}  // namespace magpie::detail
