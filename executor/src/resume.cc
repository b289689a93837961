// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <utility>

#include <magpie/detail/join.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/task_record.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {
namespace {

MAGPIE_NOINLINE std::coroutine_handle<> go_on_asked(Continuation ended,
                                                    SlotState outcome) noexcept {
  if (ended.is_rec()) return child_ended(ended.rec(), outcome);
  if (ended.is_task()) return ended.task()->has_ended(outcome);
  EndSink* const sink = ended.sink();
  return sink->ended(sink, outcome);
}

}  // namespace

void note_asked_end(const PromiseBase& promise) noexcept {
  ThreadState* const state = thread_state();
  state->next = promise.continuation.word();
  state->ended_as = promise.slot->state();
}

void resume_here(std::coroutine_handle<> coroutine) noexcept {
  ThreadState* const state = thread_state();  // this function stays on its thread
  if (auto* const divert = state->divert; divert != nullptr) [[unlikely]]
    return divert(coroutine);
  const std::uintptr_t outer = std::exchange(state->next, 0);
  const SlotState outer_as = state->ended_as;
  for (;;) {
    coroutine.resume();
    const Continuation ended = Continuation::of_word(std::exchange(state->next, 0));
    if (ended.tag() == Continuation::kRec) [[likely]] {
      Fork* const rec = ended.rec();
      coroutine = advance(rec->join, rec->carry + 1, state->queue);
    } else if (ended.tag() == Continuation::kCoroutine) {
      if (ended.word() == 0) break;
      coroutine = ended.coroutine();
    } else if (ended.tag() == Continuation::kTask) {
      coroutine = ended.task()->has_ended(SlotState::value);
    } else {
      coroutine = go_on_asked(ended, state->ended_as);
    }
  }
  state->next = outer;
  state->ended_as = outer_as;
}

}  // namespace magpie::detail
