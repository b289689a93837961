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
  if (ended.is_task()) {
    const std::coroutine_handle<> waiter = ended.task()->has_ended(outcome);
    return waiter ? waiter : std::noop_coroutine();
  }
  EndSink* const sink = ended.sink();
  return sink->ended(sink, outcome);
}

// Either the simulator destroys what would be resumed, or a coroutine has ended and destructors of
// its parameters resume another: the thread goes on with what the former noted afterwards.
MAGPIE_COLD void resume_in_between(ThreadState& state, std::coroutine_handle<> coroutine) noexcept {
  if (auto* const divert = state.divert; divert != nullptr) return divert(coroutine);
  const std::uintptr_t noted = std::exchange(state.next, 0);
  const SlotState noted_as = state.ended_as;
  resume_here(coroutine);
  state.next = noted;
  state.ended_as = noted_as;
}

// A coroutine has ended, and whoever it tells goes on, until one waits.
MAGPIE_NOINLINE void go_on_after_end(ThreadState& state) noexcept {
  // Whoever changes it while something runs here puts it back before it returns.
  LocalQueue* const queue = state.queue;
  for (;;) {
    const Continuation ended = Continuation::of_word(std::exchange(state.next, 0));
    std::coroutine_handle<> coroutine;
    if (ended.is_plain_rec()) [[likely]] {
      Fork* const rec = ended.plain_rec();
      coroutine = queue != nullptr ? advance_on_worker(rec->join, rec->carry + 1, queue)
                                   : deliver_to(rec->join, rec->carry + 1);
    } else if (ended.is_coroutine()) [[likely]] {
      if (ended.word() == 0) return;
      coroutine = ended.coroutine();
    } else if (ended.is_plain_task()) {
      coroutine = ended.plain_task()->has_ended(SlotState::value);
      if (!coroutine) return;
    } else {
      coroutine = go_on_asked(ended, state.ended_as);
    }
    coroutine.resume();
  }
}

// The same where that is a task's body. Whoever waits for it mostly waits again, so this is short.
MAGPIE_NOINLINE void go_on_after_task(ThreadState& state) noexcept {
  const Continuation ended = Continuation::of_word(std::exchange(state.next, 0));
  const std::coroutine_handle<> waiter = ended.plain_task()->has_ended(SlotState::value);
  if (!waiter) return;
  waiter.resume();
  if (state.next != 0) go_on_after_end(state);
}

}  // namespace

void note_asked_end(const PromiseBase& promise) noexcept {
  ThreadState* const state = thread_state();
  state->next = promise.continuation.word();
  state->ended_as = promise.slot->state();
}

void resume_here(std::coroutine_handle<> coroutine) noexcept {
  ThreadState* const state = thread_state();  // this function stays on its thread
  if ((state->next | reinterpret_cast<std::uintptr_t>(state->divert)) != 0) [[unlikely]]
    return resume_in_between(*state, coroutine);
  coroutine.resume();
  if (state->next == 0) return;
  if (Continuation::of_word(state->next).is_plain_task()) return go_on_after_task(*state);
  go_on_after_end(*state);
}

}  // namespace magpie::detail
