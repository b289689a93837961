// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The children of a join, by what they are made from, and how all of them are started.
//
//   TaskChild       a task's frame, forked
//   CallChild       a callable that is run as a child, or makes a task when its turn comes, forked
//   OperationChild  a leaf operation: no frame, started by the parent, ends in place
//
// Each keeps its outcome in its slot. They are moved freely until the join starts, and stay where they are from then on.

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/join.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/task_core.h>

namespace magpie::detail {

template <class T>
struct TaskChild : Rec {
  using value_type = T;
  static constexpr bool kForked = true;

  explicit TaskChild(Task<T>&& task) : frame(std::move(task).take_frame()) { frame.require(); }
  TaskChild(TaskChild&& other) noexcept : Rec(), frame(std::move(other.frame)) {}

  void arm(Join& the_join) noexcept {
    join = &the_join;
    coroutine = frame.bind(the_join.scope, Continuation::to(static_cast<Rec*>(this)), slot).address();
  }

  Slot<T> slot;
  TaskFrame<T> frame;
};

template <class F>
struct CallValue {
  using type = std::invoke_result_t<F&>;
};
template <class F>
  requires Awaitable<std::invoke_result_t<F&>>
struct CallValue<F> {
  using type = awaited_t<std::invoke_result_t<F&>>;
};

template <class F>  // F may be an lvalue reference: then the caller's object is called
struct CallChild : Rec {
  using value_type = typename CallValue<F>::type;
  static constexpr bool kForked = true;

  explicit CallChild(F&& f) : function(std::forward<F>(f)) {}
  CallChild(CallChild&& other) : Rec(), function(std::forward<F>(other.function)) {}

  void arm(Join& the_join) noexcept {
    join = &the_join;
    begin = [](Rec* rec) noexcept -> std::coroutine_handle<> {
      auto* const self = static_cast<CallChild*>(rec);
      try {
        using R = std::invoke_result_t<F&>;
        if constexpr (Awaitable<R>) {
          auto frame = as_task(std::invoke(self->function)).take_frame();
          frame.require();
          return transfer(frame.bind(self->join->scope, Continuation::to(rec), self->slot));
        } else if constexpr (std::is_void_v<R>) {
          std::invoke(self->function);
          self->slot.emplace();
        } else {
          self->slot.emplace(std::invoke(self->function));
        }
      } catch (...) {
        self->slot.capture_current_exception();
      }
      return child_ended(rec, self->slot.state());
    };
  }

  Slot<value_type> slot;
  F function;
};

template <class Op>
struct OperationChild : Rec {
  using value_type = typename Op::value_type;
  static constexpr bool kForked = false;

  explicit OperationChild(Op&& the_op) : op(std::move(the_op)) {}
  OperationChild(OperationChild&& other) : Rec(), op(std::move(other.op)) {}

  /// True if it has ended already, its outcome in the slot. Otherwise the child may be gone when this returns.
  bool start(Join& the_join, [[maybe_unused]] Arbiter* arbiter) noexcept {
    join = &the_join;
    op.prepare(&the_join.scope, resumed, this);
    // Only what takes something has to win first; what others take as well, a handle's result say, is settled at its end.
    if constexpr (requires { Op::kTakes; }) {
      if (arbiter != nullptr) op.set_arbiter(arbiter, index);
    }
    try {
      if (op.start()) return false;
      op.finish(slot);
    } catch (...) {
      slot.capture_current_exception();
    }
    return true;
  }

  static void resumed(Runnable* node) noexcept {
    auto* const self = static_cast<OperationChild*>(static_cast<OperationBase*>(node)->target());
    self->op.finish(self->slot);
    install_locals(self->join->scope);
    resume_here(child_ended(self, self->slot.state()));
  }

  Slot<value_type> slot;
  Op op;
};

template <class A>
auto make_child(A&& given) {
  using Plain = std::remove_cvref_t<A>;
  if constexpr (IsOperation<A>) {
    return OperationChild<Plain>(std::move(given));
  } else if constexpr (IsOperationSource<A>) {
    return make_child(std::forward<A>(given).operation());
  } else if constexpr (Awaitable<A>) {
    auto task = as_task(std::forward<A>(given));
    return TaskChild<typename decltype(task)::value_type>(std::move(task));
  } else {
    static_assert(std::invocable<std::remove_reference_t<A>&>,
                  "a child is a task, another awaitable, or a callable without arguments");
    return CallChild<A>(std::forward<A>(given));  // an lvalue is referenced, an rvalue moved in
  }
}
template <class A>
using child_t = decltype(make_child(std::declval<A>()));

/// What a child can be made from.
template <class A>
concept ChildLike = Awaitable<A> || std::invocable<std::remove_reference_t<A>&>;

/// void as std::monostate, references as they are.
template <class T>
using regular_t = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

template <class T>
regular_t<T> take_regular(Slot<T>& slot) {
  if constexpr (std::is_void_v<T>) {
    slot.take();
    return {};
  } else {
    return slot.take();
  }
}

// --- children in a row -------------------------------------------------------------------------------------------------

/// Children of several types.
template <class... Child>
class ChildPack {
 public:
  static constexpr bool kAnyForked = (Child::kForked || ...);
  static constexpr bool kAnyOperation = (!Child::kForked || ...);

  template <class... A>
  explicit ChildPack(std::in_place_t, A&&... given) : children_(make_child(std::forward<A>(given))...) {}

  static constexpr std::size_t size() noexcept { return sizeof...(Child); }
  std::uintptr_t address() const noexcept { return reinterpret_cast<std::uintptr_t>(&children_); }
  std::size_t bytes() const noexcept { return sizeof children_; }

  template <class F>
  void for_each(F&& fn) {
    std::apply([&](Child&... child) { (fn(child), ...); }, children_);
  }
  template <class F>
  void for_each_backwards(F&& fn) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (fn(std::get<sizeof...(Child) - 1 - I>(children_)), ...);
    }(std::index_sequence_for<Child...>());
  }
  std::tuple<Child...>& tuple() noexcept { return children_; }

 private:
  std::tuple<Child...> children_;
};

/// Children of one type.
template <class Child>
class ChildVector {
 public:
  static constexpr bool kAnyForked = Child::kForked;
  static constexpr bool kAnyOperation = !Child::kForked;

  explicit ChildVector(std::vector<Child>&& children) noexcept : children_(std::move(children)) {}

  std::size_t size() const noexcept { return children_.size(); }
  std::uintptr_t address() const noexcept { return reinterpret_cast<std::uintptr_t>(children_.data()); }
  std::size_t bytes() const noexcept { return children_.size() * sizeof(Child); }

  template <class F>
  void for_each(F&& fn) {
    for (Child& child : children_) fn(child);
  }
  template <class F>
  void for_each_backwards(F&& fn) {
    for (std::size_t i = children_.size(); i > 0; --i) fn(children_[i - 1]);
  }
  std::vector<Child>& vector() noexcept { return children_; }

 private:
  std::vector<Child> children_;
};

/// Collects a range's elements as children: those of an rvalue are moved from, those of an lvalue must be copyable handles.
template <class R>
auto children_of(R&& range) {
  using Element = decltype(*std::begin(range));
  constexpr bool kOurs = !std::is_lvalue_reference_v<R> && std::is_lvalue_reference_v<Element> &&
                         !std::is_const_v<std::remove_reference_t<Element>>;
  using Given = std::conditional_t<kOurs, std::remove_reference_t<Element>&&, Element>;
  std::vector<child_t<Given>> children;
  if constexpr (requires { std::size(range); }) children.reserve(std::size(range));
  for (auto&& element : range) children.push_back(make_child(static_cast<Given>(element)));
  return ChildVector<child_t<Given>>(std::move(children));
}

// --- starting ----------------------------------------------------------------------------------------------------------

/// Lets a forked child wait for its turn: in this worker's deque, or with the executor.
inline void push_fork(LocalQueue* queue, Rec& rec) noexcept {
  if (queue != nullptr && queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(&rec) | kForkTag)) [[likely]] return;
  rec.run = run_fork;
  rec.join->home->schedule(rec);
}

/// Opens the join's scope below the awaiting coroutine's and starts every child. Returns what this thread runs next.
/// The first child to go on is not queued: the thread goes straight to it.
template <class Children>
std::coroutine_handle<> start_join(Join& join, Children& children, Arbiter* arbiter) noexcept {
  join.counter.start(join.units);
  join.begin = children.address();
  join.bytes = children.bytes();
  join.home = current_executor();

  std::uint32_t ended = 0;  // units of operations that ended at once: this thread's to bring along
  std::uint32_t index = 0;
  children.for_each([&](auto& child) {
    child.index = index++;
    if constexpr (std::remove_cvref_t<decltype(child)>::kForked) child.arm(join);
  });
  if constexpr (Children::kAnyOperation) {
    // An operation that is parked may end on another thread at once. The join itself cannot end before the last operation was
    // started and, if this thread bears units, before it delivers them.
    std::uint32_t left = 0;
    children.for_each([&](auto& child) { left += std::remove_cvref_t<decltype(child)>::kForked ? 0 : 1; });
    children.for_each([&](auto& child) {
      if constexpr (!std::remove_cvref_t<decltype(child)>::kForked) {
        if (left == 0) return;
        --left;
        if (child.start(join, arbiter)) {
          const SlotState outcome = child.slot.state();
          if (outcome != SlotState::value || join.settle_values) join.settle(&join, &child, outcome);
          ++ended;
        }
      }
    });
  }
  if constexpr (Children::kAnyForked) {
    LocalQueue* const queue = local_queue();
    Rec* first = nullptr;
    children.for_each_backwards([&](auto& child) {
      if constexpr (std::remove_cvref_t<decltype(child)>::kForked) {
        if (first != nullptr) push_fork(queue, *first);
        first = &child;
      }
    });
    first->carry = ended;
    if (queue == nullptr || queue->wanted()) [[unlikely]] {
      push_fork(queue, *first);
      return std::noop_coroutine();
    }
    return start_fork(first);
  } else {
    return ended == 0 ? std::noop_coroutine() : deliver_to(&join, ended);
  }
}

}  // namespace magpie::detail
