// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A stranger's program: it knows the installed headers and the one library, nothing of the tree.
#include <magpie/magpie.h>

#include <cstdio>

namespace {

magpie::Task<int> twice(int x) {
  co_return 2 * x;
}

magpie::Task<int> sum() {
  auto [a, b] = co_await magpie::gather(twice(20), twice(1));
  co_return a + b;
}

}  // namespace

int main() {
  const int result = magpie::run(sum());
  std::printf("%d\n", result);
  return result == 42 ? 0 : 1;
}
