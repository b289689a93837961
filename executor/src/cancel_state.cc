// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/cancel_state.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

CancelState::~CancelState() = default;

MAGPIE_NOINLINE std::uintptr_t thread_tag() noexcept {
  return reinterpret_cast<std::uintptr_t>(thread_state());
}

void deliver(const BasicCancelEffects<StdEnv>& effects, const ReasonRef& reason) noexcept {
  deliver_in_order(
      effects,
      [&reason](ScopeToken* token) {
        auto* const state = static_cast<CancelState*>(token);
        state->cancel(reason);
        state->drop_source();
        state->release();
      },
      [](Waiter& waiter) { waiter.executor->schedule(waiter); });
}

bool cancel_scope_now(Scope& scope, ReasonRef reason) noexcept {
  BasicCancelEffects<StdEnv> effects;
  const ReasonRef told = reason;
  if (!scope.cancel(std::move(reason), effects)) return false;
  deliver(effects, told);
  return true;
}

void leave_scope_slow(Scope& scope) noexcept {
  if (thread_state()->locals != nullptr) [[unlikely]]
    stand_no_longer_in(scope);
  const auto effects = scope.exit();
  if (effects.tokens != nullptr) deliver(effects, scope.parent()->reason());
  detach_tokens(effects.dropped);
}

void detach_tokens(ScopeToken* tokens) noexcept {
  while (tokens != nullptr) {
    auto* const state = static_cast<CancelState*>(tokens);
    tokens = tokens->next_token;
    state->drop_source();
    state->release();
  }
}

CancelState* token_state_of(Scope& scope) {
  auto* spare = new CancelState();  // made before the scope's lock is taken
  spare->add_source();
  spare->unused = [](const ScopeToken* t) noexcept {
    return static_cast<const CancelState*>(t)->sole_owner();
  };
  bool dead = false;
  auto* const state = static_cast<CancelState*>(scope.own_token(
      [&](bool cancelled) -> ScopeToken* {
        dead = cancelled;
        spare->add_ref();  // the scope's
        return spare;
      },
      [](ScopeToken* t) { static_cast<CancelState*>(t)->add_ref(); }));
  if (state != spare) {
    spare->release();
    return state;
  }
  if (dead) {
    spare->cancel(scope.reason());
    spare->release();  // the scope kept none
  }
  return spare;
}

}  // namespace magpie::detail
