// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <optional>

#include <magpie/cancellation_token.h>
#include <magpie/detail/task_record.h>

namespace magpie {
namespace detail {
namespace {

// Follows one upstream state for a merged one. The merged state owns its links, and they go when it
// does.
class MergeLink final : public CallbackBase {
 public:
  MergeLink(CancelState& merged, StateRef upstream)
      : merged_(merged), upstream_(std::move(upstream)) {
    invoke = [](CallbackNode* node) noexcept {
      auto* const self = static_cast<MergeLink*>(static_cast<CallbackBase*>(node));
      if (!self->merged_.try_add_ref()) return;  // it is dying: its destructor waits for this call
      const StateRef keep = StateRef::adopt(&self->merged_);
      keep->cancel(self->upstream_->reason());
    };
  }
  ~MergeLink() { detach(); }
  void arm() noexcept { attach(upstream_); }
  bool can_be_cancelled() const noexcept { return upstream_->can_be_cancelled(); }

 private:
  CancelState& merged_;
  const StateRef upstream_;
};

class MergedState final : public CancelState {
 public:
  explicit MergedState(std::vector<StateRef> upstream) {
    links_.reserve(upstream.size());
    for (StateRef& state : upstream)
      links_.push_back(std::make_unique<MergeLink>(*this, std::move(state)));
  }
  void arm() noexcept {
    for (const auto& link : links_) link->arm();
  }
  bool can_be_cancelled() const noexcept override {
    return cancelled() || std::any_of(links_.begin(), links_.end(),
                                      [](const auto& link) { return link->can_be_cancelled(); });
  }

 private:
  std::vector<std::unique_ptr<MergeLink>> links_;
};

class StopState final : public CancelState {
 public:
  explicit StopState(std::stop_token token) : token_(std::move(token)) {}
  void arm() { callback_.emplace(token_, Cancel{this}); }
  const std::stop_token& token() const noexcept { return token_; }
  bool can_be_cancelled() const noexcept override { return cancelled() || token_.stop_possible(); }

 private:
  struct Cancel {
    StopState* state;
    void operator()() const noexcept {
      if (!state->try_add_ref()) return;
      const StateRef keep = StateRef::adopt(state);
      keep->cancel(ReasonRef::of_kind(CancelKind::requested));
    }
  };
  std::stop_token token_;
  std::optional<std::stop_callback<Cancel>> callback_;
};

// The other way round: a stop_source that a state's cancellation stops. It belongs to the state and
// dies with it, so it refers to the state without owning it.
class StopBridge final : public CallbackNode {
 public:
  explicit StopBridge(CancelState& state) {
    invoke = [](CallbackNode* node) noexcept {
      static_cast<StopBridge*>(node)->source_.request_stop();
    };
    if (!state.add(*this)) source_.request_stop();
  }
  std::stop_token token() const noexcept { return source_.get_token(); }

 private:
  std::stop_source source_;
};

}  // namespace

TokenLink::TokenLink(TaskRecord& record, const CancellationToken& token)
    : record_(record), source_(token.state()) {
  invoke = [](CallbackNode* node) noexcept {
    auto* const self = static_cast<TokenLink*>(static_cast<CallbackBase*>(node));
    self->record_.cancel(self->source_->reason());
  };
}

void TokenLink::arm() noexcept {
  attach(source_);
}

}  // namespace detail

CancellationToken any_of(std::vector<CancellationToken> tokens) {
  std::vector<detail::StateRef> states;
  for (const CancellationToken& token : tokens) {
    if (!token.state()) continue;
    const bool known = std::any_of(states.begin(), states.end(), [&](const detail::StateRef& s) {
      return s.get() == token.state().get();
    });
    if (!known) states.push_back(token.state());
  }
  if (states.empty()) return {};
  if (states.size() == 1) return CancellationToken(std::move(states.front()));
  auto* const merged = new detail::MergedState(std::move(states));
  CancellationToken token(detail::StateRef::adopt(merged));
  merged->arm();
  return token;
}

CancellationToken any_of() {
  return {};
}
CancellationToken any_of(CancellationToken a) {
  return a;
}
CancellationToken any_of(CancellationToken a, CancellationToken b) {
  return any_of(std::vector{std::move(a), std::move(b)});
}
CancellationToken any_of(CancellationToken a, CancellationToken b, CancellationToken c) {
  return any_of(std::vector{std::move(a), std::move(b), std::move(c)});
}
CancellationToken any_of(CancellationToken a, CancellationToken b, CancellationToken c,
                         CancellationToken d) {
  return any_of(std::vector{std::move(a), std::move(b), std::move(c), std::move(d)});
}
CancellationToken any_of(CancellationToken a, CancellationToken b, CancellationToken c,
                         CancellationToken d, CancellationToken e) {
  return any_of(std::vector{std::move(a), std::move(b), std::move(c), std::move(d), std::move(e)});
}
CancellationToken any_of(CancellationToken a, CancellationToken b, CancellationToken c,
                         CancellationToken d, CancellationToken e, CancellationToken f) {
  return any_of(std::vector{std::move(a), std::move(b), std::move(c), std::move(d), std::move(e),
                            std::move(f)});
}

CancellationToken from(std::stop_token stop) {
  if (!stop.stop_possible()) return {};
  auto* const state = new detail::StopState(std::move(stop));
  CancellationToken token(detail::StateRef::adopt(state));
  state->arm();
  return token;
}

std::stop_token to_stop_token(const CancellationToken& token) {
  if (!token.can_be_cancelled()) return {};
  if (const auto* const stop = dynamic_cast<const detail::StopState*>(token.state().get())) {
    return stop->token();
  }
  return token.state()
      ->attachment<detail::StopBridge>(
          [&] { return std::make_shared<detail::StopBridge>(*token.state().get()); })
      .token();
}

}  // namespace magpie
