// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stacks that overflow soon.

#include <thread>

#include <pthread.h>

#include <gtest/gtest.h>

namespace magpie::test {

/// Runs `body` on a thread that has a stack of 256 KiB, as have those that are started meanwhile.
template <class F>
void on_small_stacks(F body) {
  pthread_attr_t before;
  pthread_attr_t small;
  ASSERT_EQ(pthread_getattr_default_np(&before), 0);
  ASSERT_EQ(pthread_attr_init(&small), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&small, 256 * 1024), 0);
  ASSERT_EQ(pthread_setattr_default_np(&small), 0);
  std::thread(body).join();
  EXPECT_EQ(pthread_setattr_default_np(&before), 0);
  pthread_attr_destroy(&small);
  pthread_attr_destroy(&before);
}

}  // namespace magpie::test
