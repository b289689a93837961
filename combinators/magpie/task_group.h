// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// task_group: a block that tasks are spawned into, and that ends when all of them have (a nursery).
//
//     co_await task_group([&](TaskGroup& group) -> Task<void> {
//       group.spawn(worker("A"));
//       group.spawn(worker("B"));
//       co_return;
//     });
//
// Children live in the group's scope and inherit its deadline and task-locals. The first failure
// cancels the other children and the body; all are waited for; then one ExceptionGroup with every
// failure, the body's included and cancellations excluded, is thrown, also when there is just one.
// A child that is cancelled by hand is no failure. group.cancel() ends the group without an error.
// If the outer scope is cancelled, something was interrupted by it and nothing failed:
// CancelledError; if body and children all returned values: the body's value.
//
// The safe pattern for what children use: objects outside the block outlive the children; the
// body's own locals do not, since children may run on after the body has returned. Pass such things
// by value.
//
// The callable is moved in (or referenced, if an lvalue) and lives until the block has ended.
// Cancellation point on entry. Threads: the TaskGroup may be used by the body, the children and
// what they start; by other threads only if they know that the block has not ended. Finished
// children are not kept.

#include <atomic>
#include <concepts>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/config.h>
#include <magpie/detail/body.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/spawn_impl.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/errors.h>
#include <magpie/join_handle.h>
#include <magpie/this_task.h>

namespace magpie {

class TaskGroup;
template <class V = void>
class ReadySignal;

namespace detail {

/// The block's bookkeeping: one unit for the body, one for each live child. The page:
/// combinators/DESIGN.md, "Groups".
class MAGPIE_EXPORT GroupCore : public TaskOwner, public EndSink, private Runnable {
 public:
  GroupCore() noexcept;
  GroupCore(const GroupCore&) = delete;
  GroupCore& operator=(const GroupCore&) = delete;

  void open(Scope& outer, std::coroutine_handle<> parent) noexcept;
  GroupScope& scope() noexcept { return scope_; }
  Executor& home() noexcept { return *home_; }

  /// One more child; std::logic_error if the block has ended.
  void add_unit();
  void remove_unit() noexcept;
  void fail(std::exception_ptr error, std::string_view who) noexcept;
  void cancel(ReasonRef reason) noexcept { cancel_scope_now(scope_, std::move(reason)); }
  void cancelled_by_group() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  /// A child has ended cancelled.
  void note_cancelled_child() noexcept {
    if (scope_.cancelled_from_outside()) interrupted_.store(true, std::memory_order_relaxed);
  }

  /// The body has ended; its unit is removed next.
  void body_ends() noexcept { TaskRecord::of(scope_).group_wait_begins(); }

  /// After the join: throws the failures, or the outer cancellation if it interrupted something.
  /// True if the group was cancelled by group.cancel().
  bool conclude(SlotState body);

  void* block = nullptr;  // the awaiter

 private:
  GroupScope scope_;
  std::atomic<std::uint32_t> pending_{1};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> interrupted_{
      false};  // a child ended cancelled after the group was from outside
  SpinLock<StdEnv> lock_;
  std::vector<std::exception_ptr>
      errors_;         // in order of completion; the same one may come back through a handle
  bool lost_ = false;  // a failure for which there was no memory
  std::coroutine_handle<> parent_;
  Executor* home_ = nullptr;
};

/// What start() and its child share: all that does not depend on the signal's type.
class MAGPIE_EXPORT StartCore : public TaskOwner {
 public:
  explicit StartCore(GroupCore& group) noexcept;
  virtual ~StartCore() = default;

  enum class Verdict : std::uint8_t { none, ready, failed, withdrawn };

  /// True for the first who decides.
  bool decide(Verdict verdict) noexcept;
  Verdict verdict() const noexcept;

  /// Waits for the verdict.
  class [[nodiscard]] Wait : public Operation<Wait, void> {
   public:
    static constexpr const char* kWhat = "a child's ready signal";
    explicit Wait(StartCore& core) noexcept : core_(&core) {}
    Wait(Wait&& other) noexcept : Operation<Wait, void>(std::move(other)), core_(other.core_) {}
    MAGPIE_EXPORT bool start() noexcept;
    MAGPIE_EXPORT void unqueue() noexcept;
    void deposit(Slot<void>& slot) noexcept { slot.emplace(); }

   private:
    StartCore* core_;
  };
  Wait wait() noexcept { return Wait(*this); }

  /// Makes the child's task and releases its frame: how a Task is passed depends on compiler and
  /// options, which may be others where it is taken. `self`, this, is kept for the child until
  /// let_go(), or drop_signal() if there is to be no child.
  virtual std::uintptr_t call(std::shared_ptr<StartCore> self) = 0;
  virtual void drop_signal() noexcept = 0;

 protected:
  /// The child has ended: gives up what kept this alive for it.
  virtual std::shared_ptr<StartCore> let_go() noexcept = 0;

 private:
  friend class Wait;
  GroupCore& group_;
  mutable SpinLock<StdEnv> lock_;
  Verdict verdict_ = Verdict::none;
  BasicWaitQueue<StdEnv> waiters_;
};

template <class V>
class StartValue : public StartCore {
 public:
  using StartCore::StartCore;
  using Stored = std::conditional_t<std::is_reference_v<V>,
                                    std::reference_wrapper<std::remove_reference_t<V>>, V>;
  std::optional<std::conditional_t<std::is_void_v<V>, std::monostate, Stored>> value;
  std::atomic<bool> claimed{false};  // a value is being, or has been, set
};

template <class V, class F>
class StartState final : public StartValue<V> {
 public:
  // The child's own, while it is alive: so its callable may take the signal by reference, too.
  std::optional<ReadySignal<V>> signal;

  StartState(GroupCore& group, F&& f)
      : StartValue<V>(group), function(std::in_place, std::forward<F>(f)) {}
  // A copy of an lvalue, since the child outlives the block's own variables; what cannot be copied
  // is referenced. Until the child has ended.
  using Kept =
      std::conditional_t<std::is_lvalue_reference_v<F> &&
                             !std::constructible_from<std::decay_t<F>, F>,
                         std::reference_wrapper<std::remove_reference_t<F>>, std::decay_t<F>>;
  std::optional<Kept> function;

 private:
  std::uintptr_t call(std::shared_ptr<StartCore> self) override {
    signal.emplace(std::static_pointer_cast<StartValue<V>>(std::move(self)));
    using Once = once_t<Kept, ReadySignal<V>&>;
    static_assert(
        std::is_void_v<awaited_t<std::invoke_result_t<Once, ReadySignal<V>&>>>,
        "start() takes a callable f(ReadySignal<V>) -> Task<void>: what it has to say it says "
        "by the signal");
    return detail::as_task(std::invoke(static_cast<Once>(*function), *signal))
        .take_frame()
        .release();
  }
  void drop_signal() noexcept override { signal.reset(); }
  std::shared_ptr<StartCore> let_go() noexcept override {
    std::shared_ptr<StartCore> self = signal->state();
    signal.reset();
    function.reset();  // others may keep a signal, and so this, for longer
    return self;
  }
};

/// The V of a callable that takes a ReadySignal<V>, however it takes it.
template <class A>
struct SignalType {};
template <class V>
struct SignalType<ReadySignal<V>> {
  using type = V;
};
template <class F>
struct SignalOf {};
template <class R, class A, bool N>
struct SignalOf<R (*)(A) noexcept(N)> : SignalType<std::remove_cvref_t<A>> {};
template <class R, class C, class A, bool N>
struct SignalOf<R (C::*)(A) noexcept(N)> : SignalType<std::remove_cvref_t<A>> {};
template <class R, class C, class A, bool N>
struct SignalOf<R (C::*)(A) const noexcept(N)> : SignalType<std::remove_cvref_t<A>> {};
template <class R, class C, class A, bool N>
struct SignalOf<R (C::*)(A) & noexcept(N)> : SignalType<std::remove_cvref_t<A>> {};
template <class R, class C, class A, bool N>
struct SignalOf<R (C::*)(A) const & noexcept(N)> : SignalType<std::remove_cvref_t<A>> {};
template <class R, class C, class A, bool N>
struct SignalOf<R (C::*)(A) && noexcept(N)> : SignalType<std::remove_cvref_t<A>> {};
template <class F>
auto signal_of() {
  using Plain = std::decay_t<F>;
  if constexpr (requires { &Plain::operator(); }) {
    return std::type_identity<typename SignalOf<decltype(&Plain::operator())>::type>();
  } else {
    return std::type_identity<typename SignalOf<Plain>::type>();
  }
}

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_second_signal();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_never_ready();

struct Deduced;

template <class F>
class TaskGroupBlock;

}  // namespace detail

/// How a started child says that it is ready. Copyable; may be set from any thread, once: a second
/// time is InvalidStateError.
template <class V>
class ReadySignal {
 public:
  /// Lets group.start() return with the value. If start() was cancelled meanwhile it has no effect.
  /// If making the value from the argument throws, nothing was signalled, and it may be tried
  /// again.
  template <class U = V>
  requires(!std::is_void_v<V> && std::constructible_from<V, U &&>)
  void set(U&& value) const {
    if (state_->claimed.exchange(true, std::memory_order_acq_rel)) detail::throw_second_signal();
    try {
      state_->value.emplace(std::forward<U>(value));
    } catch (...) {
      state_->claimed.store(
          false, std::memory_order_release);  // nothing was signalled; pairs with the exchange
      throw;
    }
    state_->decide(detail::StartCore::Verdict::ready);
  }
  void set() const
  requires std::is_void_v<V>
  {
    if (state_->claimed.exchange(true, std::memory_order_acq_rel)) detail::throw_second_signal();
    state_->decide(detail::StartCore::Verdict::ready);
  }

  /// For the library.
  explicit ReadySignal(std::shared_ptr<detail::StartValue<V>> state) noexcept
      : state_(std::move(state)) {}
  const std::shared_ptr<detail::StartValue<V>>& state() const noexcept { return state_; }

 private:
  std::shared_ptr<detail::StartValue<V>> state_;
};

/// The block's own handle, which task_group makes: valid until the block ends.
class TaskGroup {
 public:
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  /// Starts a child. In a group that is aborting it is accepted, born cancelled, and never runs.
  /// std::logic_error after the end.
  template <detail::Awaitable A>
  auto spawn(A&& task) {
    return add(detail::as_task(std::forward<A>(task)), nullptr);
  }
  template <detail::Awaitable A>
  auto spawn(A&& task, SpawnOptions options) {
    auto owned = detail::as_task(std::forward<A>(task));
    return add(std::move(owned), &options);
  }

  /// Starts a child and returns what it signals once it is ready; it then goes on in the group. A
  /// child that fails before it has signalled gives its error to start() alone; one that ends
  /// without a signal: std::logic_error. If start() is cancelled, it takes the child along.
  /// `f(ReadySignal<V>) -> Task<void>`; V may be void, or an lvalue reference.
  template <class V = detail::Deduced, class F>
  auto start(F&& f, std::string name = {}) {
    if constexpr (std::same_as<V, detail::Deduced>) {
      return start<typename decltype(detail::signal_of<F>())::type>(std::forward<F>(f),
                                                                    std::move(name));
    } else {
      auto state = std::make_shared<detail::StartState<V, F>>(core_, std::forward<F>(f));
      if constexpr (std::is_void_v<V>) {
        return start_child(std::move(state), std::move(name));
      } else {
        return start_value<V>(std::move(state), std::move(name));
      }
    }
  }

  /// Ends the group: children and body are cancelled, and it is no error.
  void cancel() noexcept {
    core_.cancelled_by_group();
    core_.cancel(detail::ReasonRef::of_kind(CancelKind::group_cancelled));
  }
  /// Whether the group is being cancelled, for whatever reason.
  [[nodiscard]] bool cancelled() const noexcept {
    return const_cast<detail::GroupCore&>(core_).scope().cancelled();
  }

  /// For the library.
  detail::GroupCore& core() noexcept { return core_; }

 private:
  template <class F>
  friend class detail::TaskGroupBlock;
  TaskGroup() = default;

  template <class T>
  JoinHandle<T> add(Task<T>&& task, SpawnOptions* options, detail::TaskOwner* owner = nullptr) {
    core_.add_unit();
    try {
      return detail::Spawner::spawn<T>(core_.home(), std::move(task), options, &core_.scope(),
                                       owner);
    } catch (...) {
      core_.remove_unit();
      throw;
    }
  }

  /// Returns when the child is ready.
  Task<void> start_child(std::shared_ptr<detail::StartCore> state, std::string name) {
    return Task<void>::of_frame(frame_of_start(std::move(state), std::move(name)));
  }
  MAGPIE_EXPORT std::uintptr_t frame_of_start(std::shared_ptr<detail::StartCore> state,
                                              std::string name);
  Task<void> start_and_wait(std::shared_ptr<detail::StartCore> state, std::string name);
  template <class V>
  Task<V> start_value(std::shared_ptr<detail::StartValue<V>> state, std::string name) {
    Task<void> ready = start_child(state, std::move(name));
    co_await std::move(ready);
    if constexpr (std::is_reference_v<V>) {
      co_return state->value->get();
    } else {
      co_return std::move(*state->value);
    }
  }

  detail::GroupCore core_;
};

namespace detail {

template <class F>
class [[nodiscard("co_await it")]] TaskGroupBlock : public CombinatorBase {
 public:
  using value_type = typename Body<F, TaskGroup>::value_type;
  explicit TaskGroupBlock(F&& body) : body_(std::forward<F>(body)) {}
  TaskGroupBlock(TaskGroupBlock&& other) : body_(std::move(other.body_)) {}

  bool await_ready() const {
    body_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    if (outer.cancelled()) {
      refused_ = outer.reason();
      return detail::transfer(awaiting);
    }
    GroupCore& core = group_.core();
    core.open(outer, awaiting);
    core.ended = body_ended;
    core.block = this;
    entered_ = true;
    const auto started =
        body_.start(group_, core.scope(), Continuation::to(static_cast<EndSink*>(&core)));
    return started ? detail::transfer(started) : body_ended(&core, body_.slot.state());
  }
  value_type await_resume() {
    if (!entered_) throw CancelledError(std::move(refused_));
    Slot<value_type>& slot = body_.slot;
    const bool ended_by_cancel = group_.core().conclude(slot.state());
    if constexpr (std::is_void_v<value_type>) {
      if (ended_by_cancel && slot.state() == SlotState::cancelled) return;
    }
    return slot.take();
  }

 private:
  static std::coroutine_handle<> body_ended(EndSink* sink, SlotState outcome) noexcept {
    auto* const core = static_cast<GroupCore*>(sink);
    auto* const self = block_of(core);
    if (outcome == SlotState::error) core->fail(self->body_.slot.error(), "the group's body");
    // A body that was cancelled on its own takes the children along.
    if (outcome == SlotState::cancelled)
      core->cancel(ReasonRef::of_kind(CancelKind::group_cancelled));
    const ComingHome trip(core->scope(), core->home());
    core->body_ends();
    core->remove_unit();
    return std::noop_coroutine();
  }
  static TaskGroupBlock* block_of(GroupCore* core) noexcept {
    return static_cast<TaskGroupBlock*>(core->block);
  }

  Body<F, TaskGroup> body_;
  TaskGroup group_;
  ReasonRef refused_;
  bool entered_ = false;
};

}  // namespace detail

/// Runs body(TaskGroup&) -> Task<R> and gives its R once all children have ended; see the head of
/// the file.
template <class F>
requires detail::BodyOf<F, TaskGroup>
auto task_group(F&& body) {
  return detail::TaskGroupBlock<F>(std::forward<F>(body));
}

}  // namespace magpie
