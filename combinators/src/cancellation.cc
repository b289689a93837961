// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/cancellation.h>

namespace magpie::detail {

void throw_both(std::exception_ptr task, std::exception_ptr cleanup) {
  std::vector<std::exception_ptr> both;
  both.reserve(2);
  both.push_back(std::move(task));
  both.push_back(std::move(cleanup));
  throw ExceptionGroup("a task failed, and so did its cleanup", std::move(both));
}

}  // namespace magpie::detail
