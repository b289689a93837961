// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whether this program can start itself anew, as death tests of the style "threadsafe" do: not
// where an emulator runs it of which the kernel does not know (qemu-user without binfmt_misc).
//
//     if (!test::can_start_anew()) GTEST_SKIP() << "cannot start itself anew";

#include <sys/wait.h>
#include <unistd.h>

namespace magpie::test {

inline bool can_start_anew() {
  static const bool can = [] {
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(STDOUT_FILENO);
      ::execl("/proc/self/exe", "anew", "--gtest_list_tests", nullptr);
      ::_exit(127);
    }
    int status = 0;
    return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }();
  return can;
}

}  // namespace magpie::test
