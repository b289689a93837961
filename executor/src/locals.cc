// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstddef>
#include <cstdint>
#include <memory>

#include <magpie/detail/locals.h>
#include <magpie/detail/task_extras.h>

// The steps are those of executor/LOCALS.md.

namespace magpie::detail {

constinit std::atomic<bool> locals_in_use{false};

LocalsSnapshot::LocalsSnapshot(const LocalsFrame* innermost) {
  std::size_t count = 0;
  for (const LocalsFrame* f = innermost; f != nullptr; f = f->outer) ++count;
  if (count == 0) return;
  frames_ = std::make_unique<LocalsFrame[]>(count);
  std::size_t i = 0;
  for (const LocalsFrame* f = innermost; f != nullptr; f = f->outer, ++i) {
    frames_[i].key = f->key;
    frames_[i].value = f->value;
    frames_[i].outer = i + 1 < count ? &frames_[i + 1] : nullptr;
  }
}

const LocalsFrame* find_locals(const Scope& scope) noexcept {
  for (const Scope* s = &scope;; s = s->parent()) {
    if (s->baggage() == ScopeBaggage::task_local) return &static_cast<const LocalsScope*>(s)->frame;
    // Tasks have a snapshot; a group's child without one sees the group's bindings.
    if (s->kind() != ScopeKind::task_root) continue;
    const TaskRecord& record = TaskRecord::of(*s);
    if (record.own_locals() || s->parent() == nullptr) return record.locals();
  }
}

namespace {

constexpr std::uintptr_t kScope = 1;  // in ThreadState::locals, beside a scope to look from

LocalsFrame* look_from(const Scope& scope) noexcept {
  return reinterpret_cast<LocalsFrame*>(reinterpret_cast<std::uintptr_t>(&scope) | kScope);
}

// What a thread notes for who stands there. Never the root of a task: what is left of a task may
// be destroyed by the thread that ended it, when the root is gone.
LocalsFrame* note_for(const Scope& scope) noexcept {
  const bool at_hand =
      scope.kind() == ScopeKind::task_root || scope.baggage() == ScopeBaggage::task_local;
  return at_hand ? const_cast<LocalsFrame*>(find_locals(scope)) : look_from(scope);
}

}  // namespace

// N3.
const LocalsFrame* locals_here() noexcept {
  ThreadState* const thread = thread_state();
  const auto word = reinterpret_cast<std::uintptr_t>(thread->locals);
  if ((word & kScope) != 0) {
    thread->locals =
        const_cast<LocalsFrame*>(find_locals(*reinterpret_cast<const Scope*>(word - kScope)));
  }
  return thread->locals;
}

// N7.
LocalsCopy::LocalsCopy() {
  const LocalsFrame* const own = locals_here();
  if (own == nullptr) return;
  copy_ = std::make_unique<LocalsSnapshot>(own);
  own_ = own;
  thread_state()->locals = const_cast<LocalsFrame*>(copy_->head());
}

LocalsCopy::~LocalsCopy() {
  thread_state()->locals = stays_ ? const_cast<LocalsFrame*>(own_) : nullptr;
}

// N1.
void stand_in(Scope& scope) noexcept {
  scope.link();  // so that it is not left without a word
  thread_state()->locals = note_for(scope);
}

// N4.
void stand_no_longer_in(const Scope& scope) noexcept {
  ThreadState* const thread = thread_state();
  if (thread->locals == look_from(scope)) thread->locals = note_for(*scope.parent());
}

}  // namespace magpie::detail
