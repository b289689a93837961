// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core.h"
#include "machine.h"
#include "memory.h"
#include "traced.h"

// What the compiler calls before each access of code that is traced.

namespace magpie::cores {

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define MAGPIE_ACCESS(bytes)                     \
  void __tsan_read##bytes(void* p) {             \
    touch(p, bytes, Access::read, MAGPIE_HERE);  \
  }                                              \
  void __tsan_write##bytes(void* p) {            \
    touch(p, bytes, Access::write, MAGPIE_HERE); \
  }                                              \
  void __tsan_unaligned_read##bytes(void* p) {   \
    touch(p, bytes, Access::read, MAGPIE_HERE);  \
  }                                              \
  void __tsan_unaligned_write##bytes(void* p) {  \
    touch(p, bytes, Access::write, MAGPIE_HERE); \
  }
MAGPIE_ACCESS(1)
MAGPIE_ACCESS(2)
MAGPIE_ACCESS(4)
MAGPIE_ACCESS(8)
MAGPIE_ACCESS(16)

void __tsan_vptr_update(void** p, void*) {
  touch(p, 8, Access::write, MAGPIE_HERE);
}
void __tsan_vptr_read(void** p) {
  touch(p, 8, Access::read, MAGPIE_HERE);
}

void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, Access::read, MAGPIE_HERE);
  touch(to, bytes, Access::write, MAGPIE_HERE);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, Access::read, MAGPIE_HERE);
  touch(to, bytes, Access::write, MAGPIE_HERE);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  touch(to, bytes, Access::write, MAGPIE_HERE);
  return std::memset(to, value, bytes);
}

#define MAGPIE_UPDATE(bits, T, name, builtin)                   \
  T __tsan_atomic##bits##_##name(volatile T* p, T value, int) { \
    touch(p, sizeof(T), Access::locked, MAGPIE_HERE);           \
    return builtin(p, value, __ATOMIC_SEQ_CST);                 \
  }
#define MAGPIE_ATOMICS(bits, T)                                                                    \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    touch(p, sizeof(T), Access::read, MAGPIE_HERE);                                                \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int order) {                            \
    touch(p, sizeof(T), order == __ATOMIC_SEQ_CST ? Access::locked : Access::write, MAGPIE_HERE);  \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                \
  MAGPIE_UPDATE(bits, T, exchange, __atomic_exchange_n)                                            \
  MAGPIE_UPDATE(bits, T, fetch_add, __atomic_fetch_add)                                            \
  MAGPIE_UPDATE(bits, T, fetch_sub, __atomic_fetch_sub)                                            \
  MAGPIE_UPDATE(bits, T, fetch_and, __atomic_fetch_and)                                            \
  MAGPIE_UPDATE(bits, T, fetch_or, __atomic_fetch_or)                                              \
  MAGPIE_UPDATE(bits, T, fetch_xor, __atomic_fetch_xor)                                            \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected, T desired, int, int) {   \
    touch(p, sizeof(T), Access::locked, MAGPIE_HERE);                                              \
    __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    return expected;                                                                               \
  }
MAGPIE_ATOMICS(8, std::uint8_t)
MAGPIE_ATOMICS(16, std::uint16_t)
MAGPIE_ATOMICS(32, std::uint32_t)
MAGPIE_ATOMICS(64, std::uint64_t)

void __tsan_atomic_thread_fence(int order) {
  if (Core* const core = self; core != nullptr && order == __ATOMIC_SEQ_CST) {
    ++traffic.locked;
    core->clock += Costs::kLocked;
  }
}
void __tsan_atomic_signal_fence(int) {}

void magpie_cores_pause() noexcept {
  if (Core* const core = self; core != nullptr) spend(*core, Costs::kPause);
}

}  // extern "C"

}  // namespace magpie::cores
