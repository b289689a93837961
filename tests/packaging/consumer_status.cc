// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A service that speaks Abseil and links magpie::status.
#include <magpie/status.h>

int main() {
  return magpie::value_or_throw(absl::StatusOr<int>(42)) == 42 ? 0 : 1;
}
