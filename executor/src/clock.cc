// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/clock.h>

namespace magpie {

Clock::~Clock() = default;

namespace detail {

void throw_nan_duration() {
  throw std::invalid_argument("a duration is NaN: give a number, or Duration::never()");
}

namespace {

class SystemSteadyClock final : public Clock {
 public:
  [[nodiscard]] Deadline now() const noexcept override { return std::chrono::steady_clock::now(); }
};

// Never destroyed: executors that are static objects ask for the time until the very end.
union Immortal {
  Immortal() : clock() {}
  ~Immortal() {}
  SystemSteadyClock clock;
};

}  // namespace
}  // namespace detail

Clock& system_steady_clock() noexcept {
  static detail::Immortal immortal;
  return immortal.clock;
}

}  // namespace magpie
