// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// All children of a join, as a combinator is given them, and how they are started.
//
//   ChildPack     one member each, for a pack of arguments
//   ChildVector   children of one type, for a range
//
// Both are moved freely until the join starts, and stay where they are from then on.

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/child.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/join.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/ranges.h>
#include <magpie/detail/task_core.h>

namespace magpie::detail {

// --- in a row ------------------------------------------------------------------------------------

template <class Child>
inline constexpr bool is_task_child = false;
template <class T>
inline constexpr bool is_task_child<TaskChild<T>> = true;
template <class Child>
inline constexpr bool is_plain_task_child = false;
template <class T>
inline constexpr bool is_plain_task_child<TaskChild<T>> =
    std::is_void_v<T> || std::is_reference_v<T> || std::is_trivially_destructible_v<T>;

template <class Child>
MAGPIE_FLAT inline std::uintptr_t frame_of(const Child& child) noexcept {
  if constexpr (is_task_child<Child>) {
    return child.coroutine;
  } else {
    return 0;
  }
}

template <std::size_t I, class Child>
struct PackElement {
  template <class A>
  MAGPIE_FLAT explicit PackElement(A&& given) : child(std::forward<A>(given)) {}
  MAGPIE_FLAT PackElement(PackElement&& other) : child(std::move(other.child)) {}
  MAGPIE_FLAT ~PackElement() = default;
  Child child;
};

template <class Indices, class... Child>
class PackStorage;

template <std::size_t... I, class... Child>
class PackStorage<std::index_sequence<I...>, Child...> : private PackElement<I, Child>... {
 public:
  template <class... A>
  MAGPIE_FLAT explicit PackStorage(std::in_place_t, A&&... given)
      : PackElement<I, Child>(std::forward<A>(given))... {}
  MAGPIE_FLAT PackStorage(PackStorage&& other)
      : PackElement<I, Child>(std::move(static_cast<PackElement<I, Child>&>(other)))... {}
  MAGPIE_FLAT ~PackStorage() = default;

  template <class F>
  MAGPIE_FLAT void for_each(F&& fn) {
    (fn(static_cast<PackElement<I, Child>&>(*this).child), ...);
  }
  /// fn(child, index, frame): the frames are read before the first call, so that they need not be
  /// read again for all that may be written there.
  template <class F>
  MAGPIE_FLAT void for_each_with_frame(F&& fn) {
    const std::uintptr_t frames[] = {
        detail::frame_of(static_cast<PackElement<I, Child>&>(*this).child)...};
    (fn(static_cast<PackElement<I, Child>&>(*this).child, std::uint32_t{I}, frames[I]), ...);
  }
  template <class F>
  MAGPIE_FLAT void for_each_backwards(F&& fn) {
    constexpr std::size_t last = sizeof...(I) - 1;
    (fn(this->template get<last - I>()), ...);
  }
  MAGPIE_FLAT Fork* first_fork() noexcept {
    Fork* first = nullptr;
    for_each_backwards([&](auto& each) MAGPIE_FLAT {
      if constexpr (std::remove_cvref_t<decltype(each)>::kForked) first = &each;
    });
    return first;
  }
  /// fn(child) for those that are forked, from the last to the second.
  template <class F>
  MAGPIE_FLAT void for_each_later_fork(F&& fn) {
    Fork* later = nullptr;
    for_each_backwards([&](auto& each) MAGPIE_FLAT {
      if constexpr (std::remove_cvref_t<decltype(each)>::kForked) {
        if (later != nullptr) fn(*later);
        later = &each;
      }
    });
  }
  template <std::size_t Index>
  MAGPIE_FLAT auto& get() noexcept {
    return static_cast<PackElement<Index, std::tuple_element_t<Index, std::tuple<Child...>>>&>(
               *this)
        .child;
  }
  template <class F>
  MAGPIE_FLAT auto apply(F&& fn) {
    return fn(static_cast<PackElement<I, Child>&>(*this).child...);
  }

 private:
  // Of each child, as Outcomes shows it. Its slot is not read: it may be another thread's.
  MAGPIE_COLD static void look_at_each(void* children, Outcomes::Look look, void* context) {
    static_cast<PackStorage*>(children)->for_each(
        [&](auto& child) { look(context, child, child.slot(), child.slot().failure()); });
  }

 public:
  Outcomes outcomes() noexcept { return {look_at_each, this}; }
};

/// Before any child is made, so that none need be destroyed because another's task is empty.
template <class A>
MAGPIE_FLAT inline void require_given([[maybe_unused]] const A& given) {
  if constexpr (IsTask<A>) {
    if (!given) [[unlikely]]
      throw_moved_from_task();
  }
}

/// Children of several types.
template <class... Child>
class ChildPack : public PackStorage<std::index_sequence_for<Child...>, Child...> {
  using Storage = PackStorage<std::index_sequence_for<Child...>, Child...>;

 public:
  static constexpr bool kAnyForked = (Child::kForked || ...);
  static constexpr bool kAnyOperation = (!Child::kForked || ...);
  /// Once every child has given its value, nothing is left that a destructor would have to do.
  static constexpr bool kNothingLeft = (is_plain_task_child<Child> && ...);
  static constexpr bool kFirstIsTask = is_task_child<std::tuple_element_t<0, std::tuple<Child...>>>;
  static constexpr std::uint32_t kStride = 0;  // of JoinKind

  template <class... A>
  MAGPIE_FLAT explicit ChildPack(std::in_place_t, A&&... given)
      : Storage(((detail::require_given(given), ...), std::in_place), std::forward<A>(given)...) {}

  static constexpr std::size_t size() noexcept { return sizeof...(Child); }
  /// Whether they were moved from or started before: all of them, so that one look will do.
  MAGPIE_FLAT bool spent() noexcept { return this->template get<0>().spent(); }
  static constexpr void free_memory() noexcept {}
};

template <>
class ChildPack<> {
 public:
  static constexpr bool kAnyForked = false;
  static constexpr bool kAnyOperation = false;
  static constexpr bool kNothingLeft = false;
  static constexpr bool kFirstIsTask = false;
  static constexpr std::uint32_t kStride = 0;
  explicit ChildPack(std::in_place_t) {}
  static constexpr std::size_t size() noexcept { return 0; }
  static constexpr bool spent() noexcept { return false; }
  static constexpr void free_memory() noexcept {}
  static Outcomes outcomes() noexcept {
    return {[](void*, Outcomes::Look, void*) {}, nullptr};
  }
  template <class F>
  void for_each(F&&) {}
  template <class F>
  void for_each_with_frame(F&&) {}
  template <class F>
  auto apply(F&& fn) {
    return fn();
  }
};

/// What an element of a range is given as: those of an rvalue range are moved from, those of an
/// lvalue are copied (handles) or referenced (callables), those that are made on the way are taken.
/// A view, rvalue or not, shows what belongs to somebody else: of an rvalue view, tasks and the
/// like, of which nobody else can want anything, are moved from, and the rest is copied.
template <class R>
struct RangeElement {
  using Element = decltype(*std::begin(std::declval<R&>()));
  using Plain = std::remove_cvref_t<Element>;
  static constexpr bool kShown =
      !std::is_lvalue_reference_v<R> && std::is_lvalue_reference_v<Element>;
  static constexpr bool kCopied =
      kShown && std::ranges::view<std::remove_cvref_t<R>> && std::copy_constructible<Plain>;
  static constexpr bool kMoved =
      kShown && !kCopied && !std::is_const_v<std::remove_reference_t<Element>>;
  // A handle makes its copy itself: copied into an rvalue, it would move the task's value out.
  using Copied = std::conditional_t<IsOperationSource<Plain>, Element, Plain>;
  using type =
      std::conditional_t<kCopied, Copied,
                         std::conditional_t<kMoved, std::remove_reference_t<Element>&&, Element&&>>;
};
template <class R>
struct RangeChild {
  using type = child_t<typename RangeElement<R>::type>;
};

/// A vector of operations that is given away: its memory, as much as theirs, is not kept while the
/// children wait. (Tasks are a pointer each.)
template <class R>
inline constexpr bool kGivenVector = false;
template <class T, class Allocator>
inline constexpr bool kGivenVector<std::vector<T, Allocator>> = sizeof(T) > 2 * sizeof(void*);

/// Children of one type, in memory from the frame cache.
template <class Child>
class ChildVector {
 public:
  static constexpr bool kAnyForked = Child::kForked;
  static constexpr bool kAnyOperation = !Child::kForked;
  static constexpr bool kNothingLeft = is_plain_task_child<Child>;
  static constexpr bool kFirstIsTask = is_task_child<Child>;
  static constexpr std::uint32_t kStride = kAnyForked ? sizeof(Child) : 0;

  template <class R>
  MAGPIE_FLAT explicit ChildVector(std::in_place_t, R&& range) : ChildVector() {
    if constexpr (kGivenVector<R>) {
      R given(std::move(range));
      take_called<R>(given);
    } else if constexpr (std::ranges::view<std::remove_cvref_t<R>>) {
      // A type of its own almost everywhere. In line, the compiler sees how the view was made and
      // keeps what it looks at in registers.
      take<R>(range);
    } else {
      take_called<R>(range);
    }
  }
  ChildVector(ChildVector&& other) noexcept
      : children_(std::exchange(other.children_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, kMovedFrom)) {}
  MAGPIE_FLAT ~ChildVector() {
    std::destroy_n(children_, size_);
    free_memory();
  }

  std::size_t size() const noexcept { return size_; }
  bool spent() const noexcept {
    return capacity_ == kMovedFrom || (size_ != 0 && children_->spent());
  }

  // This may be gone when fn returns for the last child, as the join may have ended: its members
  // are read before.
  template <class F>
  MAGPIE_FLAT void for_each(F&& fn) {
    Child* const end = children_ + size_;
    for (Child* child = children_; child != end; ++child) fn(*child);
  }
  template <class F>
  MAGPIE_FLAT void for_each_with_frame(F&& fn) {
    std::uint32_t index = 0;
    for_each([&](Child& child) MAGPIE_FLAT { fn(child, index++, detail::frame_of(child)); });
  }
  template <class F>
  MAGPIE_FLAT void for_each_backwards(F&& fn) {
    Child* const begin = children_;
    for (Child* child = begin + size_; child != begin;) fn(*--child);
  }
  MAGPIE_FLAT Fork* first_fork() noexcept { return children_; }
  template <class F>
  MAGPIE_FLAT void for_each_later_fork(F&& fn) {
    for (std::size_t i = size_; i > 1;) fn(children_[--i]);
  }
  Child& operator[](std::size_t index) noexcept { return children_[index]; }
  Child* data() noexcept { return children_; }
  Outcomes outcomes() noexcept { return {look_at_each, this}; }

  /// Instead of the destructor, when nothing is left in the children: see kNothingLeft.
  MAGPIE_FLAT void free_memory() noexcept {
    if constexpr (kCachedAtFirst) {
      if (capacity_ == kFirstCapacity) [[likely]]
        return detail::free_frame(children_, kFirstBytes);
    }
    if (children_ != nullptr) free_memory_of(children_, capacity_);
  }

 private:
  static constexpr std::size_t kFirstCapacity = 8;
  static constexpr std::size_t kMovedFrom = std::numeric_limits<std::size_t>::max();
  static constexpr bool kOverAligned = alignof(Child) > __STDCPP_DEFAULT_NEW_ALIGNMENT__;

  static constexpr std::size_t kFirstBytes = kFirstCapacity * sizeof(Child);
  // Whether the first memory of a range that does not know its size comes from a cache: then which
  // one is known here, and it is taken and given back in line.
  static constexpr bool kCachedAtFirst = !kOverAligned && frame_class(kFirstBytes) < kFrameClasses;

  MAGPIE_FLAT ChildVector() noexcept {}

  // As that of the PackStorage.
  MAGPIE_COLD static void look_at_each(void* children, Outcomes::Look look, void* context) {
    static_cast<ChildVector*>(children)->for_each(
        [&](Child& child) { look(context, child, child.slot(), child.slot().failure()); });
  }

  template <class R>
  MAGPIE_FLAT void take(std::remove_reference_t<R>& range) {
    if constexpr (requires { std::size(range); }) {
      if (const auto size = static_cast<std::size_t>(std::size(range)); size != 0) grow(size);
    }
    for (auto&& element : range) {
      if (size_ == capacity_) [[unlikely]]
        grow_further();
      std::construct_at(children_ + size_, static_cast<typename RangeElement<R>::type>(element));
      ++size_;
    }
  }
  template <class R>
  void take_called(std::remove_reference_t<R>& range) {
    take<R>(range);
  }

  MAGPIE_FLAT void grow_further() {
    if constexpr (kCachedAtFirst) {
      if (capacity_ == 0) {
        children_ = static_cast<Child*>(allocate_frame(kFirstBytes));
        capacity_ = kFirstCapacity;
        return;
      }
    }
    grow(capacity_ == 0 ? kFirstCapacity : 2 * capacity_);
  }
  void grow(std::size_t capacity) {
    if (capacity > std::numeric_limits<std::size_t>::max() / sizeof(Child))
      throw std::bad_array_new_length();
    ChildVector larger;  // it owns what has been moved when a move throws
    const std::size_t bytes = capacity * sizeof(Child);
    if constexpr (kOverAligned) {
      larger.children_ =
          static_cast<Child*>(::operator new(bytes, std::align_val_t(alignof(Child))));
    } else {
      larger.children_ = static_cast<Child*>(allocate_frame(bytes));
    }
    larger.capacity_ = capacity;
    for (; larger.size_ < size_; ++larger.size_)
      std::construct_at(larger.children_ + larger.size_, std::move(children_[larger.size_]));
    std::swap(children_, larger.children_);
    std::swap(capacity_, larger.capacity_);
  }
  static void free_memory_of(Child* children, std::size_t capacity) noexcept {
    if constexpr (kOverAligned) {
      ::operator delete(children, std::align_val_t(alignof(Child)));
    } else {
      detail::free_frame(children, capacity * sizeof(Child));
    }
  }

  Child* children_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// --- starting ------------------------------------------------------------------------------------

/// Queues every forked child, where there is no deque or it has to grow.
template <class Children>
void push_forks_slowly(LocalQueue* queue, Children& children) noexcept {
  if constexpr (Children::kStride != 0) {
    if (queue != nullptr && children.size() > kSingly)
      return queue_in_bundles(queue, *children.first_fork(), children.size());
  }
  const EachFork backwards = [](void* all, void (*look)(void*, Fork&), void* context) {
    static_cast<Children*>(all)->for_each_backwards([&](auto& child) {
      if constexpr (std::remove_cvref_t<decltype(child)>::kForked) look(context, child);
    });
  };
  detail::queue_forks(queue, backwards, &children);
}

/// Starts the operations among the children; returns how many ended at once: units for this thread
/// to bring along. An operation that is parked may end on another thread at once. The join itself
/// cannot end before the last operation was started and, if this thread bears units, before it
/// delivers them.
template <class Children>
std::uint32_t start_operations(Join& join, Children& children, bool is_race) noexcept {
  std::uint32_t ended = 0;
  children.for_each([&](auto& child) {
    if constexpr (!std::remove_cvref_t<decltype(child)>::kForked) {
      if (child.start(join, is_race)) {
        const SlotState outcome = child.slot().state();
        if (outcome != SlotState::value || join.kind->settle_values)
          join.kind->settle(&join, &child, outcome);
        ++ended;
      }
    }
  });
  return ended;
}

/// Tells every child of its join, before start_armed(). `Settled`: the join hears of every end, not
/// of failures only.
template <bool Settled, class Children>
MAGPIE_FLAT inline void arm_children(Join& join, Children& children) noexcept {
  join.start_counting(static_cast<std::uint32_t>(children.size()));
  children.for_each_with_frame([&](auto& child, std::uint32_t index, std::uintptr_t frame)
                                   MAGPIE_FLAT {
                                     child.index = index;
                                     if constexpr (std::remove_cvref_t<decltype(child)>::kForked)
                                       child.template arm<Settled>(join, frame);
                                   });
}
/// Instead of start_armed(), or of both: none is ever started, and all are spent.
template <class Children>
void refuse_children(Children& children) noexcept {
  children.for_each([](auto& child) { child.refuse(); });
}

/// Starts every child of a join whose scope has been entered. Returns what this thread runs next.
/// The first child to go on is not queued: the thread goes straight to it.
template <class Children>
MAGPIE_FLAT inline std::coroutine_handle<> start_armed(Join& join, Children& children,
                                                       bool is_race) noexcept {
  // Not earlier: what was written before must be read again behind it.
  const ThisThread thread = this_thread();
  join.home = thread->executor;
  std::uint32_t ended = 0;
  if constexpr (Children::kAnyOperation) ended = start_operations(join, children, is_race);
  if constexpr (Children::kAnyForked) {
    Fork* const first = children.first_fork();
    if constexpr (Children::kAnyOperation) first->carry = ended;
    LocalQueue* const queue = thread->queue;
    const auto slowly = [&]() -> std::coroutine_handle<> {
      push_forks_slowly(queue, children);
      return std::noop_coroutine();
    };
    if (queue == nullptr) [[unlikely]]
      return slowly();
    if constexpr (Children::kStride != 0) {
      if (children.size() > kSingly) [[unlikely]]
        return start_in_bundles(queue, *first, children.size());
    }
    return queue->deque.owner().with_room_for(
        children.size(),
        [&](auto batch) MAGPIE_FLAT -> std::coroutine_handle<> {
          children.for_each_later_fork(
              [&](Fork& later) MAGPIE_FLAT { batch.add(detail::tagged(&later, kForkTag)); });
          batch.commit();
          StdEnv::compiler_barrier();  // D3; where that is not enough, attention is never zero
          if (queue->noticed_after_push()) [[unlikely]]
            return start_behind_fence(first);
          // An operation that ended at once may have cancelled the join; else that was asked a
          // moment ago.
          if constexpr (Children::kAnyOperation) return start_fork(first);
          if constexpr (Children::kFirstIsTask) {
            return detail::transfer(
                std::coroutine_handle<>::from_address(reinterpret_cast<void*>(first->coroutine)));
          }
          return start_child(first);
        },
        slowly);
  } else {
    return ended == 0 ? std::noop_coroutine() : deliver_to(&join, ended);
  }
}

}  // namespace magpie::detail
