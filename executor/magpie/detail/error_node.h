// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

// What errors are made of and other errors hang from: what is in an ExceptionGroup, a reason with
// its cause. They nest as deep as the tasks that fail, so the last release of the outermost error
// may be that of a million others; a call for each would overflow the stack.

namespace magpie::detail {

class ErrorNode {
 public:
  ErrorNode() noexcept = default;
  ErrorNode(const ErrorNode&) = delete;
  ErrorNode& operator=(const ErrorNode&) = delete;
  virtual ~ErrorNode() = default;

  // Instead of delete: in the natural order as far as a stack easily carries it; what lies deeper
  // is destroyed before the outermost call on this thread returns. Allocates nothing.
  static void destroy(const ErrorNode* node) noexcept;

 private:
  mutable const ErrorNode* doomed_ = nullptr;  // the next to be destroyed by the outermost call
};

}  // namespace magpie::detail
