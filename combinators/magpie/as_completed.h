// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// as_completed: the results of several tasks one by one, in the order in which they come.
//
//     co_await as_completed(std::move(tasks), 3s, [&](CompletionStream<Page>& pages) -> Task<void>
//     {
//       for (auto next = co_await pages.next(); next; next = co_await pages.next()) {
//         show(next->index, next->value);   // which of the tasks, and its Result<Page>
//       }
//     });
//
// All tasks are started; the body runs beside them and gives as_completed its result. The tasks
// belong to the block: when the body has ended, however, those that still run are cancelled and
// waited for, and what was not asked for is dropped. (A handle's task goes on; only the wait for it
// ends.) A task that fails or ends cancelled is a Result like any other, and stops nothing.
//
// The timeout is the stream's, not the tasks': once it is over, next() gives what has finished and
// was not given out, then throws TimeoutError as long as something still runs, and gives nullopt
// when nothing does. It starts with the block; of nothing: it is over at once. A timeout that is
// not needed any more is forgotten when the last task has ended.
//
// Nothing to do: the body runs, and next() gives nullopt. Cancellation point on entry, unless there
// is nothing to do. If the caller is cancelled, tasks and body both are. Starts when awaited;
// resumes where it was awaited. The body is moved in (or referenced, if an lvalue) and lives until
// the block has ended; so a capturing lambda is safe there.

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/body.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/children.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/timer.h>
#include <magpie/errors.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/result.h>

namespace magpie {

template <class T>
class CompletionStream;

namespace detail {

struct StreamWaiter;

/// Has ended, and waits to be given out.
struct Finished {
  Finished* next_finished;
};

/// What has finished, who waits for it, and until when. The page: combinators/DESIGN.md, "Streams
/// of completions".
class MAGPIE_EXPORT StreamCore : private Timer {
 public:
  StreamCore() = default;
  StreamCore(const StreamCore&) = delete;
  StreamCore& operator=(const StreamCore&) = delete;

  /// Before anything is started.
  void open(std::uint32_t tasks) noexcept { running_ = tasks; }
  void limit(Duration duration) noexcept;
  /// A task has ended, its outcome in its slot; its unit is not handed in yet.
  void finished(Finished& item) noexcept;
  /// Whether something still runs.
  bool busy() const noexcept;
  /// Afterwards the timer touches nothing any more.
  void stop_timer() noexcept;

 private:
  friend struct StreamWaiter;
  void expire() noexcept;
  Finished& take_first() noexcept;

  mutable SpinLock<StdEnv> lock_;
  std::uint32_t running_ = 0;  // all up to the waiters under lock_
  bool expired_ = false;
  Finished* first_ = nullptr;  // and not given out
  Finished* last_ = nullptr;
  BasicWaitQueue<StdEnv> waiters_;
  TimerWord<StdEnv> word_;
};

/// One next() that waits. It takes its item in the step that completes it.
struct MAGPIE_EXPORT StreamWaiter : OperationBase {
  static constexpr bool kTakes = true;
  static constexpr const char* kWhat = "the next of several tasks";

 protected:
  using OperationBase::OperationBase;
  StreamWaiter(StreamWaiter&& other) noexcept
      : OperationBase(std::move(other)), core_(other.core_) {}
  ~StreamWaiter() = default;
  bool enqueue() noexcept;
  void dequeue() noexcept;

  StreamCore* core_ = nullptr;
  Finished* item_ = nullptr;  // null: the stream has ended,
  bool too_late_ = false;     // or its time is over

 private:
  friend class StreamCore;
};

MAGPIE_EXPORT std::exception_ptr make_stream_timed_out() noexcept;

template <class T>
class [[nodiscard("co_await it")]] NextOperation
    : public Operation<NextOperation<T>, std::optional<Indexed<Result<T>>>, StreamWaiter> {
  using Base = Operation<NextOperation<T>, std::optional<Indexed<Result<T>>>, StreamWaiter>;

 public:
  /// The child, and its outcome.
  struct Seen {
    Rec& rec;
    Slot<T>& slot;
  };
  using Slots = Seen (*)(Finished&) noexcept;
  NextOperation(StreamCore& core, Slots slots) noexcept : slots_(slots) { this->core_ = &core; }
  NextOperation(NextOperation&& other) noexcept : Base(std::move(other)), slots_(other.slots_) {}

  bool start() noexcept { return this->enqueue(); }
  void unqueue() noexcept { this->dequeue(); }
  void deposit(Slot<std::optional<Indexed<Result<T>>>>& slot) {
    if (this->too_late_) return slot.set_error(make_stream_timed_out());
    if (this->item_ == nullptr) return slot.emplace(std::nullopt);
    const Seen seen = slots_(*this->item_);
    // Never started: its block was cancelled before.
    if (seen.slot.empty()) seen.slot.set_cancelled(seen.rec.join->scope.reason());
    slot.emplace(Indexed<Result<T>>{seen.rec.index, Result<T>(std::move(seen.slot))});
    seen.slot.reset();
  }

 private:
  Slots slots_;
};

}  // namespace detail

/// The body's view of its tasks: valid until the block ends. next() may be awaited by several
/// coroutines at once, on any threads.
template <class T>
class CompletionStream {
 public:
  CompletionStream(const CompletionStream&) = delete;
  CompletionStream& operator=(const CompletionStream&) = delete;

  /// The next task to have ended, its number and its Result; nullopt once all have been given out.
  /// First come, first served; each is given out once. Cancellation point; in a race it takes one
  /// only if it wins. TimeoutError: see the head of the file.
  detail::NextOperation<T> next() noexcept { return detail::NextOperation<T>(core_, slots_); }

  /// For the library.
  explicit CompletionStream(typename detail::NextOperation<T>::Slots slots) noexcept
      : slots_(slots) {}
  detail::StreamCore& core() noexcept { return core_; }

 private:
  detail::StreamCore core_;
  const typename detail::NextOperation<T>::Slots slots_;
};

namespace detail {

/// A child that is listed when it has ended, its outcome in its slot.
template <class Child>
struct StreamChild : Child, Finished {
  template <class A>
  requires(!std::same_as<std::remove_cvref_t<A>, StreamChild>)
  explicit StreamChild(A&& given) : Child(std::forward<A>(given)) {}
  StreamChild(StreamChild&& other) : Child(static_cast<Child&&>(other)) {}
};

/// Everything but the body, whose type is another one for each lambda.
template <class Made>
class StreamOf : public CombinatorBase, protected Join, protected EndSink {
  using Child = StreamChild<Made>;
  using T = typename Child::value_type;
  using Children = ChildVector<Child>;

 protected:
  template <class R>
  StreamOf(std::in_place_t, R&& range, std::optional<Duration> limit)
      : children_(std::in_place, std::forward<R>(range)), limit_(limit), stream_(slot_of) {}
  StreamOf(StreamOf&& other)
      : children_(std::move(other.children_)), limit_(other.limit_), stream_(slot_of) {}
  ~StreamOf() { destroy_scope(); }

  void require_unspent() const {
    if (children_.spent()) [[unlikely]]
      throw_awaited_twice();
  }
  /// Before the body is called. True: nothing may be started.
  bool refuse(Scope& outer) noexcept {
    outer_ = &outer;
    if (children_.size() != 0 && outer.cancelled()) [[unlikely]] {
      refuse_children(children_);
      phase_ = Phase::refused;
      return true;
    }
    this->ended = body_ended;
    this->waits_at = current_executor();
    return false;
  }
  Continuation continuation() noexcept { return Continuation::to(static_cast<EndSink*>(this)); }
  /// There is a body, and it runs next.
  void begin(std::coroutine_handle<> awaiting) noexcept {
    phase_ = Phase::started;
    scope.enter(outer_, outer_->task());
    kind = &kKind;
    parent = awaiting;
    start_children();
  }
  /// After the join.
  void leave() {
    if (phase_ == Phase::refused) throw CancelledError(outer_->reason());
    if (phase_ == Phase::started) {
      stream_.core().stop_timer();
      leave_scope(scope);
    }
  }
  CompletionStream<T>& stream() noexcept { return stream_; }

 private:
  enum class Phase : std::uint8_t { unstarted, refused, started };

  // One unit for each child and one for the body, which also bears those of children that end at
  // once.
  void start_children() noexcept {
    ThreadState* const thread = thread_state();
    const auto count = static_cast<std::uint32_t>(children_.size());
    start_counting(count + 1);
    home = thread->executor;
    std::uint32_t index = 0;
    children_.for_each([&](Child& child) {
      child.index = index++;
      if constexpr (Child::kForked) child.template arm<true>(*this, detail::frame_of<Made>(child));
    });
    stream_.core().open(count);
    if (count == 0) return;
    if (limit_) stream_.core().limit(*limit_);
    if constexpr (Child::kForked) {
      push_forks_slowly(thread->queue, children_);
    } else {
      body_units_ += start_operations(*this, children_, false);
    }
  }

  static std::coroutine_handle<> body_ended(EndSink* sink, SlotState) noexcept {
    auto* const self = static_cast<StreamOf*>(sink);
    if (self->stream_.core().busy())
      cancel_scope_now(self->scope, ReasonRef::of_kind(CancelKind::group_cancelled));
    return detail::advance(self,
                           self->body_units_);  // not std::advance, which T may bring into view
  }

  static void settle(Join* join, Rec* rec, SlotState) noexcept {
    static_cast<StreamOf*>(join)->stream_.core().finished(static_cast<Child&>(*rec));
  }
  static typename NextOperation<T>::Seen slot_of(Finished& item) noexcept {
    auto& child = static_cast<Child&>(item);
    return {child, child.slot()};
  }
  static constexpr JoinKind kKind{&StreamOf::settle, nullptr, true, Children::kStride,
                                  1 /* the body's */};

  Children children_;
  std::optional<Duration> limit_;
  CompletionStream<T> stream_;
  Scope* outer_ = nullptr;
  std::uint32_t body_units_ = 1;
  Phase phase_ = Phase::unstarted;
};

template <class Child, class F>
class [[nodiscard("co_await it")]] AsCompleted : public StreamOf<Child> {
  using Stream = CompletionStream<typename Child::value_type>;
  using Base = StreamOf<Child>;

 public:
  using value_type = typename Body<F, Stream>::value_type;

  template <class R>
  AsCompleted(R&& range, std::optional<Duration> limit, F&& body)
      : Base(std::in_place, std::forward<R>(range), limit), body_(std::forward<F>(body)) {}
  AsCompleted(AsCompleted&& other) : Base(std::move(other)), body_(std::move(other.body_)) {}

  bool await_ready() const {
    body_.require();
    this->require_unspent();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    if (this->refuse(outer)) [[unlikely]]
      return detail::transfer(awaiting);
    // The body first: if there is none, because the callable threw, nothing is started.
    const std::coroutine_handle<> body = body_.start(this->stream(), outer, this->continuation());
    if (!body) return detail::transfer(awaiting);
    this->begin(awaiting);
    return detail::transfer(body);
  }
  value_type await_resume() {
    this->leave();
    return body_.slot.take();
  }

 private:
  Body<F, Stream> body_;
};

template <class R>
using stream_of_t = CompletionStream<typename RangeChild<R>::type::value_type>;

}  // namespace detail

/// Runs body(CompletionStream<T>&) -> Task<R> beside the tasks and gives its R; see the head of the
/// file.
template <class R, class F>
requires(detail::ChildRange<R> && detail::BodyOf<F, detail::stream_of_t<R>>)
auto as_completed(R&& tasks, F&& body) {
  return detail::AsCompleted<typename detail::RangeChild<R>::type, F>(
      std::forward<R>(tasks), std::nullopt, std::forward<F>(body));
}

/// The same with a timeout for the stream.
template <class R, class F>
requires(detail::ChildRange<R> && detail::BodyOf<F, detail::stream_of_t<R>>)
auto as_completed(R&& tasks, std::optional<Duration> timeout, F&& body) {
  return detail::AsCompleted<typename detail::RangeChild<R>::type, F>(
      std::forward<R>(tasks), timeout, std::forward<F>(body));
}

}  // namespace magpie
