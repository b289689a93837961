// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <stdexcept>

#include <magpie/batch.h>

namespace magpie::detail {

void throw_empty_batches() {
  throw std::invalid_argument(
      "batch() with a size of 0 would never come to an end: give at least 1");
}

}  // namespace magpie::detail
