// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/callee.h>

namespace magpie::detail {

void Awaiting::go_home() noexcept {
  static constexpr RunKind kGoOn{[](Runnable* node) noexcept {
    auto* const self = static_cast<Awaiting*>(node);
    resume_strand(self->parent_, self->scope_);
  }};
  how = &kGoOn;
  Executor& home = *home_;
  const ComingHome trip(*scope_, home);
  home.schedule(*this);
}

}  // namespace magpie::detail
