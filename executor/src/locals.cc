// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstddef>

#include <magpie/detail/locals.h>
#include <magpie/detail/task_extras.h>

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

}  // namespace magpie::detail
