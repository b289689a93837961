// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Cancellation from outside the task tree: sources, tokens and callbacks, and the bridges to
// std::stop_token.
//
// A token does not cancel anything by itself: give it to spawn (SpawnOptions::token) or to
// with_token, or ask it. Inside tasks, scopes do the work; `this_task::token()` shows the current
// one as a token.
//
//     CancellationSource source;
//     auto handle = executor.spawn(work(), SpawnOptions().token(source.token()));
//     source.cancel("the user went away");
//
// Threads: all members from any thread, with any other call running. Callbacks run on the
// cancelling thread.

#include <concepts>
#include <memory>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/errors.h>

namespace magpie {

namespace detail {

class StateRef {  // a counted reference to a CancelState
 public:
  StateRef() = default;
  static StateRef adopt(CancelState* state) noexcept {
    StateRef ref;
    ref.state_ = state;
    return ref;
  }
  StateRef(const StateRef& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->add_ref();
  }
  StateRef(StateRef&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  StateRef& operator=(StateRef other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~StateRef() {
    if (state_ != nullptr) state_->release();
  }
  CancelState* get() const noexcept { return state_; }
  CancelState* operator->() const noexcept { return state_; }
  explicit operator bool() const noexcept { return state_ != nullptr; }

 private:
  CancelState* state_ = nullptr;
};

}  // namespace detail

/// Sees whether something was cancelled. Copyable; a default one can never be cancelled and costs
/// nothing. May outlive sources, tasks and executors.
class CancellationToken {
 public:
  CancellationToken() = default;
  explicit CancellationToken(detail::StateRef state) noexcept : state_(std::move(state)) {}

  [[nodiscard]] bool cancelled() const noexcept { return state_ && state_->cancelled(); }
  /// False once no source is left and nothing was cancelled.
  [[nodiscard]] bool can_be_cancelled() const noexcept {
    return state_ && state_->can_be_cancelled();
  }
  /// Throws CancelledError with the source's reason.
  void throw_if_cancelled() const {
    if (cancelled()) throw CancelledError(state_->reason());
  }
  friend bool operator==(const CancellationToken& a, const CancellationToken& b) noexcept {
    return a.state_.get() == b.state_.get();
  }

  /// For the library.
  const detail::StateRef& state() const noexcept { return state_; }

 private:
  detail::StateRef state_;
};

/// Cancels what its tokens were given to. Copies share one state; when the last copy dies
/// uncancelled, the tokens can never be cancelled any more.
class CancellationSource {
 public:
  CancellationSource() : state_(detail::StateRef::adopt(new detail::CancelState())) {
    state_->add_source();
  }
  CancellationSource(const CancellationSource& other) noexcept : state_(other.state_) {
    if (state_) state_->add_source();
  }
  CancellationSource(CancellationSource&& other) noexcept = default;
  CancellationSource& operator=(CancellationSource other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~CancellationSource() {
    if (state_) state_->drop_source();
  }

  /// Runs the callbacks on this thread. True for the first call, false for later ones, which change
  /// nothing.
  bool cancel(std::string reason = {}) {
    return state_ &&
           state_->cancel(detail::ReasonRef::make(CancelKind::requested, std::move(reason)));
  }
  [[nodiscard]] bool cancelled() const noexcept { return state_ && state_->cancelled(); }
  [[nodiscard]] CancellationToken token() const noexcept { return CancellationToken(state_); }

 private:
  detail::StateRef state_;
};

namespace detail {

/// A callback that lives in the object that registers it.
class MAGPIE_EXPORT CallbackBase : public CallbackNode {
 public:
  CallbackBase(const CallbackBase&) = delete;
  CallbackBase& operator=(const CallbackBase&) = delete;

 protected:
  CallbackBase() = default;
  ~CallbackBase() = default;
  void attach(const StateRef& state) noexcept {
    if (!state) return;
    state_ = state;
    if (!state->can_be_cancelled() || !state->add(*this)) {
      const bool cancelled = state->cancelled();
      state_ = StateRef();
      if (cancelled) this->invoke(this);
    }
  }
  void detach() noexcept {
    if (state_) state_->remove(*this);
  }

 private:
  StateRef state_;
};

/// Cancels a task when a token is.
class TokenLink final : public CallbackBase {
 public:
  TokenLink(TaskRecord& record, const CancellationToken& token);
  ~TokenLink() { detach(); }
  /// Only after the record is set up.
  void arm() noexcept;

 private:
  TaskRecord& record_;
  StateRef source_;
};

}  // namespace detail

/// Calls a function when the token is cancelled, at once and on this thread if it is already. The
/// destructor waits for a call that is running on another thread, and not for one on this thread.
/// What the function throws ends the program. As with std::stop_callback an object of type F is
/// called as an rvalue, so that one that can be called just once will do.
///
/// Callbacks of one token run one after the other, the latest first. Those of a task's own token
/// (`this_task::token()`) have returned before a wait of the task that the same cancellation ends
/// goes on, so that such a callback may live in the waiting frame.
/// A callback must not wait for a task, nor for anything that an executor has yet to run: tasks
/// that end, and the cancellation itself, wait for it. One that is destroyed before the cancelling
/// thread comes to it is not called, as with std::stop_callback: a task that was running just then
/// may be the quicker one.
template <class F>
class [[nodiscard("the callback is registered only while the object lives")]] CancellationCallback
    : private detail::CallbackBase {
 public:
  template <class G = F>
  requires std::constructible_from<F, G&&>
  CancellationCallback(const CancellationToken& token, G&& function)
      : function_(std::forward<G>(function)) {
    this->invoke = [](detail::CallbackNode* node) noexcept {
      auto* const self =
          static_cast<CancellationCallback*>(static_cast<detail::CallbackBase*>(node));
      std::forward<F>(self->function_)();
    };
    this->attach(token.state());
  }
  ~CancellationCallback() { this->detach(); }

 private:
  F function_;
};
template <class F>
CancellationCallback(CancellationToken, F) -> CancellationCallback<F>;

/// A token that is cancelled when any of the given ones is, with that one's reason.
MAGPIE_EXPORT CancellationToken any_of(std::vector<CancellationToken> tokens);
MAGPIE_EXPORT CancellationToken any_of();
MAGPIE_EXPORT CancellationToken any_of(CancellationToken a);
MAGPIE_EXPORT CancellationToken any_of(CancellationToken a, CancellationToken b);
MAGPIE_EXPORT CancellationToken any_of(CancellationToken a, CancellationToken b,
                                       CancellationToken c);
MAGPIE_EXPORT CancellationToken any_of(CancellationToken a, CancellationToken b,
                                       CancellationToken c, CancellationToken d);
MAGPIE_EXPORT CancellationToken any_of(CancellationToken a, CancellationToken b,
                                       CancellationToken c, CancellationToken d,
                                       CancellationToken e);
MAGPIE_EXPORT CancellationToken any_of(CancellationToken a, CancellationToken b,
                                       CancellationToken c, CancellationToken d,
                                       CancellationToken e, CancellationToken f);
// std::any_of has no such overload that this one could interfere with.
template <std::same_as<CancellationToken>... More>
requires(sizeof...(More) > 0)
CancellationToken any_of(CancellationToken a, CancellationToken b, CancellationToken c,
                         CancellationToken d, CancellationToken e, CancellationToken f,
                         More... more) {
  std::vector<CancellationToken> tokens{std::move(a), std::move(b), std::move(c),
                                        std::move(d), std::move(e), std::move(f)};
  (tokens.push_back(std::move(more)), ...);
  return any_of(std::move(tokens));
}

/// A token that follows a std::stop_token.
MAGPIE_EXPORT CancellationToken from(std::stop_token token);
/// A std::stop_token that follows a token; the same one for every call with tokens of the same
/// state, and for one of from() that which it was made of. It follows for as long as a source, a
/// token or the scope of the state is there: who takes one of this_task::token() out of the block,
/// or makes one of any_of(), takes the token along.
MAGPIE_EXPORT std::stop_token to_stop_token(const CancellationToken& token);

}  // namespace magpie
