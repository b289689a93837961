// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Replaces the global operator new of the program that includes this, in one of its files, by one
// that counts, and fails once if it is told to. Works under AddressSanitizer, which sees malloc and
// free; clang's ThreadSanitizer always links its own, so nothing is counted there.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <magpie/config.h>

namespace magpie::test {
inline std::atomic<std::size_t> allocation_count{0};
/// How often this program has allocated so far.
inline std::size_t allocations() noexcept {
  return allocation_count.load(std::memory_order_relaxed);
}

inline std::atomic<std::size_t> allocated_byte_count{0};
/// How many bytes it has asked for so far.
inline std::size_t allocated_bytes() noexcept {
  return allocated_byte_count.load(std::memory_order_relaxed);
}

/// Whether freed_bytes() counts: one locked instruction more for who counts those.
inline std::atomic<bool> counts_freed{false};
inline std::atomic<std::size_t> freed_byte_count{0};
/// How many of them it has given back, as far as it said how many: containers do, and classes.
inline std::size_t freed_bytes() noexcept {
  return freed_byte_count.load(std::memory_order_relaxed);
}
inline void count_freed(std::size_t size) noexcept {
  if (counts_freed.load(std::memory_order_relaxed))
    freed_byte_count.fetch_add(size, std::memory_order_relaxed);
}

inline std::atomic<std::size_t> failing_allocation{0};
/// The allocation after so many more fails, by std::bad_alloc; the others succeed.
inline void fail_allocation_after(std::size_t more) noexcept {
  failing_allocation.store(allocations() + more + 1, std::memory_order_relaxed);
}
inline std::atomic<std::size_t> failing_from{0};
/// All allocations after so many more fail, until failing_from is 0 again.
inline void fail_allocations_after(std::size_t more) noexcept {
  failing_from.store(allocations() + more + 1, std::memory_order_relaxed);
}
inline void count_allocation(std::size_t size) {
  allocated_byte_count.fetch_add(size, std::memory_order_relaxed);
  const std::size_t number = allocation_count.fetch_add(1, std::memory_order_relaxed) + 1;
  if (number == failing_allocation.load(std::memory_order_relaxed)) throw std::bad_alloc();
  const std::size_t from = failing_from.load(std::memory_order_relaxed);
  if (from != 0 && number >= from) throw std::bad_alloc();
}
}  // namespace magpie::test

#if !defined(MAGPIE_TSAN)

// Not inlined: g++ 12 would see malloc or free of a pair, and take them for a mismatch.
MAGPIE_NOINLINE void* operator new(std::size_t size) {
  magpie::test::count_allocation(size);
  if (void* const memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
MAGPIE_NOINLINE void* operator new(std::size_t size, std::align_val_t alignment) {
  magpie::test::count_allocation(size);
  const auto step = static_cast<std::size_t>(alignment);
  if (void* const memory = std::aligned_alloc(step, (size + step - 1) / step * step)) return memory;
  throw std::bad_alloc();
}
// Every form, or the linker takes a sanitizer's own for the rest, and finds two of these.
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return operator new(size, alignment);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (...) {
    return nullptr;
  }
}
void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  try {
    return operator new(size, alignment);
  } catch (...) {
    return nullptr;
  }
}
void* operator new[](std::size_t size, std::align_val_t alignment,
                     const std::nothrow_t& tag) noexcept {
  return operator new(size, alignment, tag);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t size) noexcept {
  magpie::test::count_freed(size);
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t size, std::align_val_t) noexcept {
  magpie::test::count_freed(size);
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}
MAGPIE_NOINLINE void operator delete(void* memory) noexcept {
  std::free(memory);
}
MAGPIE_NOINLINE void operator delete(void* memory, std::size_t size) noexcept {
  magpie::test::count_freed(size);
  std::free(memory);
}
MAGPIE_NOINLINE void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
MAGPIE_NOINLINE void operator delete(void* memory, std::size_t size, std::align_val_t) noexcept {
  magpie::test::count_freed(size);
  std::free(memory);
}

#endif
