// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: chain: a step is called with the value of the one before it

#include <string>

#include <magpie/chain.h>
#include <magpie/task.h>

magpie::Task<int> one() {
  co_return 1;
}

magpie::Task<int> both() {
#ifdef MAGPIE_COMPILE_FAIL
  auto step = [](const std::string& text) { return static_cast<int>(text.size()); };
#else
  auto step = [](int number) { return number + 1; };
#endif
  co_return co_await magpie::chain(one(), step);
}
