// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// [readme]
#include <magpie/magpie.h>

#include <cstdio>

using namespace std::chrono_literals;

magpie::Task<int> fetch(int user, magpie::Duration takes) {
  co_await magpie::sleep_for(takes);  // a cancellation point
  co_return user * 100;
}

magpie::Task<void> program() {
  // Side by side, on all cores; one of them may time out without harming the others.
  auto [a, b, c] = co_await magpie::gather(fetch(1, 20ms), fetch(2, 30ms),
                                           magpie::with_timeout(fetch(3, 10s), 50ms, -1));
  std::printf("users %d %d %d\n", a, b, c);

  // The first answer counts; the loser is cancelled, and waited for.
  auto first = co_await magpie::race(fetch(4, 10s), fetch(5, 10ms));
  std::printf("server %zu answered %d\n", first.index, first.value);
}

int main() {
  magpie::run(program());
}
// [readme]
