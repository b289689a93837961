// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// on_signal({SIGINT, SIGTERM}): a token that the first of these signals cancels; a second one,
// whichever of them it is, has its default effect, so that an impatient user can still end a
// program that does not end by itself.
//
// A program that sends a signal to a process and then to its group, as timeout(1) does without
// --foreground, sends two.
//
// The reason names the signal. Callbacks run on a thread of the library's own, never in the signal
// handler. The handlers stay for the rest of the process; a signal that is asked for again gets a
// fresh first time. Errors: std::system_error if a handler or the thread cannot be set up;
// std::invalid_argument without signals.

#include <concepts>
#include <csignal>
#include <utility>
#include <vector>

#include <magpie/cancellation_token.h>
#include <magpie/config.h>

namespace magpie {

/// The numbers of signals, written as {SIGINT, SIGTERM}. A class of its own: g++ 12 compiles no
/// std::initializer_list within a co_await expression.
class SignalSet {
 public:
  template <std::same_as<int>... N>
  SignalSet(N... numbers) : numbers_{numbers...} {}
  SignalSet(std::vector<int> numbers) noexcept : numbers_(std::move(numbers)) {}

  [[nodiscard]] const std::vector<int>& numbers() const noexcept { return numbers_; }

 private:
  std::vector<int> numbers_;
};

/// A token that the first of these signals cancels; see the head of the file.
MAGPIE_EXPORT CancellationToken on_signal(SignalSet signals);

}  // namespace magpie
