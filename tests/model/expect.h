// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <gtest/gtest.h>

#include <cstdio>

#include "sim.h"

// What a model test expects of an exploration.

namespace magpie::model {

/// Every schedule within the bound was run, and none failed.
inline void expect_clean(const Report& report) {
  EXPECT_TRUE(report.passed() && report.exhausted) << report;
  std::printf("%llu executions\n", static_cast<unsigned long long>(report.executions));
}

/// A mutant: some schedule failed.
inline void hunt(const Report& report) {
  EXPECT_TRUE(report.failed) << report;
  std::printf("after %llu executions: %s\n", static_cast<unsigned long long>(report.executions),
              report.message.c_str());
}

}  // namespace magpie::model
