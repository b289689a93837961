// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/error_node.h>

#include <utility>

namespace magpie::detail {
namespace {

struct Doomed {
  unsigned nested = 0;  // nodes that this thread is destroying, one within the other
  const ErrorNode* first = nullptr;
};
constinit thread_local Doomed doomed_here;

}  // namespace

void ErrorNode::destroy(const ErrorNode* node) noexcept {
  constexpr unsigned kNested = 64;  // a few hundred bytes of stack each
  Doomed& doomed = doomed_here;     // no suspension below: it stays this thread's
  if (doomed.nested == kNested) {
    node->doomed_ = std::exchange(doomed.first, node);
    return;
  }
  ++doomed.nested;
  delete node;
  while (doomed.nested == 1 && doomed.first != nullptr) {
    delete std::exchange(doomed.first, doomed.first->doomed_);
  }
  --doomed.nested;
}

}  // namespace magpie::detail
