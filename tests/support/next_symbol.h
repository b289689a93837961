// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// For a program that defines a function of a library's itself: the library's own.

#include <dlfcn.h>

namespace magpie::test {

template <class Function>
Function* next_symbol(const char* name) noexcept {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace magpie::test
