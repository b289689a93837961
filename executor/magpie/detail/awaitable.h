// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What can be given where a task is taken: tasks, the library's operations and combinators,
// handles, and foreign awaitables.

#include <concepts>
#include <coroutine>
#include <type_traits>
#include <utility>

#include <magpie/detail/fwd.h>
#include <magpie/detail/operation.h>

namespace magpie::detail {

/// Base of the library's combinators: awaitables that start something. They are moved until they
/// are awaited.
struct CombinatorBase {};
/// Base of what stands for a wait without being one yet (handles): `operation()` makes the
/// operation.
struct OperationSource {};

template <class A>
concept IsOperation = std::derived_from<std::remove_cvref_t<A>, OperationBase>;
template <class A>
concept IsCombinator = std::derived_from<std::remove_cvref_t<A>, CombinatorBase>;
template <class A>
concept IsOperationSource = std::derived_from<std::remove_cvref_t<A>, OperationSource>;

template <class A>
inline constexpr bool is_task = false;
template <class T>
inline constexpr bool is_task<Task<T>> = true;
template <class A>
concept IsTask = is_task<std::remove_cvref_t<A>>;

/// An awaitable of this library.
template <class A>
concept Ours = IsTask<A> || IsOperation<A> || IsCombinator<A> || IsOperationSource<A>;

/// What does nothing unless it is awaited; a handle is none of these.
template <class A>
concept Lazy = IsTask<A> || IsOperation<A> || IsCombinator<A>;

template <class A>
concept HasMemberCoAwait = requires(A&& a) { std::forward<A>(a).operator co_await(); };
template <class A>
concept HasFreeCoAwait = requires(A&& a) { operator co_await(std::forward<A>(a)); };
template <class A>
concept IsAwaiter = requires(A& a, std::coroutine_handle<> h) {
  static_cast<bool>(a.await_ready());
  a.await_suspend(h);
  a.await_resume();
};

/// An awaitable of somebody else's.
template <class A>
concept Foreign =
    !Ours<A> && (HasMemberCoAwait<A> || HasFreeCoAwait<A> || IsAwaiter<std::remove_reference_t<A>>);

template <class A>
concept Awaitable = Ours<A> || Foreign<A>;

template <class A>
decltype(auto) get_awaiter(A&& awaitable) {
  if constexpr (HasMemberCoAwait<A>) {
    return std::forward<A>(awaitable).operator co_await();
  } else if constexpr (HasFreeCoAwait<A>) {
    return operator co_await(std::forward<A>(awaitable));
  } else {
    return std::forward<A>(awaitable);
  }
}

// An rvalue reference refers to what dies with the awaitable: its value is kept instead.
template <class A>
struct AwaitedValue {
  using Given = decltype(get_awaiter(std::declval<A>()).await_resume());
  using type =
      std::conditional_t<std::is_rvalue_reference_v<Given>, std::remove_cvref_t<Given>, Given>;
};
template <Ours A>
struct AwaitedValue<A> {
  using type = typename std::remove_cvref_t<A>::value_type;
};

/// What `co_await` of it gives.
template <Awaitable A>
using awaited_t = typename AwaitedValue<A>::type;

}  // namespace magpie::detail
