// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What few tasks have. In a header of its own, so that programs need not compile it.

#include <memory>
#include <optional>
#include <string>

#include <magpie/cancellation_token.h>
#include <magpie/config.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/task_record.h>

namespace magpie::detail {

/// A copy that owns itself: what a spawned task inherits.
class LocalsSnapshot {
 public:
  LocalsSnapshot() = default;
  MAGPIE_EXPORT explicit LocalsSnapshot(const LocalsFrame* innermost);
  const LocalsFrame* head() const noexcept { return frames_.get(); }

 private:
  std::unique_ptr<LocalsFrame[]> frames_;
};

struct TaskExtras {
  // These two are there before the task can start.
  std::unique_ptr<LocalsSnapshot> locals;
  std::unique_ptr<TokenLink> token_link;
  TaskOwner* owner = nullptr;       // told instead of the group's own
  std::optional<std::string> name;  // under the record's lock_; none: "task-<id>"
};

}  // namespace magpie::detail
