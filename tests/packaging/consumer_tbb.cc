// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A service that already uses oneTBB and links magpie::tbb.
#include <magpie/task.h>
#include <magpie/tbb_executor.h>

namespace {

magpie::Task<int> answer() {
  co_return 42;
}

}  // namespace

int main() {
  magpie::TbbExecutor executor;
  return executor.run(answer()) == 42 ? 0 : 1;
}
