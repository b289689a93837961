// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <pthread.h>

#include <magpie/detail/thread_name.h>

namespace magpie::detail {

std::string thread_name(const std::string& name, std::string_view kind, std::size_t index) {
  constexpr std::size_t kMost = 15;
  std::string suffix(kind);
  suffix += '-';  // "-" + ... is a false alarm of g++ 12 (-Wrestrict)
  suffix += std::to_string(index);
  return name.substr(0, kMost - suffix.size()) + suffix;
}

void name_this_thread(const std::string& name, std::string_view kind, std::size_t index) noexcept {
  try {
    pthread_setname_np(pthread_self(), thread_name(name, kind, index).c_str());
  } catch (...) {
    // Without memory a thread keeps its old name.
  }
}

}  // namespace magpie::detail
