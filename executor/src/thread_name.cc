// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>

#include <pthread.h>
#include <sched.h>

#include <magpie/detail/thread_name.h>

namespace magpie::detail {

std::string thread_name(const std::string& name, std::string_view kind, std::size_t index) {
  constexpr std::size_t kMost = 15;
  std::string suffix(kind);
  suffix += '-';  // "-" + ... is a false alarm of g++ 12 (-Wrestrict)
  suffix += std::to_string(index);
  return name.substr(0, std::min(kMost - suffix.size(), name.find('\0'))) + suffix;
}

void name_this_thread(const std::string& name, std::string_view kind, std::size_t index) noexcept {
  try {
    pthread_setname_np(pthread_self(), thread_name(name, kind, index).c_str());
  } catch (...) {
    // Without memory a thread keeps its old name.
  }
}

void keep_this_thread_on(std::span<const int> processors) noexcept {
  if (processors.empty()) return;
  const auto count = static_cast<std::size_t>(*std::ranges::max_element(processors)) + 1;
  const std::size_t bytes = CPU_ALLOC_SIZE(count);
  cpu_set_t* const set = CPU_ALLOC(count);
  if (set == nullptr) return;
  CPU_ZERO_S(bytes, set);
  for (const int processor : processors) CPU_SET_S(static_cast<std::size_t>(processor), bytes, set);
  sched_setaffinity(0, bytes, set);
  CPU_FREE(set);
}

}  // namespace magpie::detail
