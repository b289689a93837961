// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whom errors are told that nobody has seen.

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <string_view>

#include <magpie/config.h>

namespace magpie::detail {

using UnobservedHandler = std::function<void(std::string_view, std::exception_ptr)>;
/// It outlives its executor while a task has ended there whose error nobody has seen.
struct CountedHandler {
  explicit CountedHandler(const UnobservedHandler& handler) : call(handler) {}
  const UnobservedHandler call;

  void add_ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    // acq_rel: whoever destroys it comes after all calls.
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  std::atomic<std::uint32_t> refs_{1};
};
/// To the handler, or without one to stderr.
MAGPIE_EXPORT void report_unobserved(const UnobservedHandler* handler, std::string_view name,
                                     std::exception_ptr error) noexcept;

}  // namespace magpie::detail
