// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Replaces the global operator new of the program that includes this, in one of its files, by one that counts. Works under the
// sanitizers, which see malloc and free.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace magpie::test {
inline std::atomic<std::size_t> allocation_count{0};
/// How often this program has allocated so far.
inline std::size_t allocations() noexcept { return allocation_count.load(std::memory_order_relaxed); }
}  // namespace magpie::test

void* operator new(std::size_t size) {
  magpie::test::allocation_count.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  magpie::test::allocation_count.fetch_add(1, std::memory_order_relaxed);
  const auto step = static_cast<std::size_t>(alignment);
  if (void* const memory = std::aligned_alloc(step, (size + step - 1) / step * step)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
