// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory for coroutine frames: a bounded cache of size classes in each thread, a bounded depot that
// they share, and the global operator new.
//
// Of each class a thread has a shelf and a spare. Full ones go to the depot as a whole, and come
// back so: one lock for hundreds of small frames (the magazines of Bonwick and Adams, 2001; the
// spare is what keeps a thread that frees and takes one frame at the edge from going there each
// time). A frame may be freed by another thread than the one that made it: it then goes to that
// thread's shelf. What exceeds the bounds goes back to the allocator, and
// when a thread ends all that it kept and its part of the depot. Under AddressSanitizer and
// ThreadSanitizer every frame goes to the allocator, so that a use after the end is seen. Throws
// std::bad_alloc like the global operator new; a plain one, also where a new handler of the
// program's throws something of its own.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

#include <magpie/config.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

MAGPIE_EXPORT void* allocate_frame_slow(std::size_t size);
/// The same; null when memory is short.
MAGPIE_EXPORT void* try_allocate_frame_slow(std::size_t size) noexcept;
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_no_memory();
MAGPIE_EXPORT void free_frame_slow(void* frame, std::size_t size) noexcept;
/// What a thread has instead of a shelf, until it has one: both empty and full.
void** no_shelf() noexcept;
#ifdef MAGPIE_HAS_SPARING
MAGPIE_SPARING void* try_allocate_frame_sparing(std::size_t size) noexcept {
  return try_allocate_frame_slow(size);
}
MAGPIE_SPARING void free_frame_sparing(void* frame, std::size_t size) noexcept {
  free_frame_slow(frame, size);
}
#endif

// The classes are the multiples of 16 bytes up to 256, where most of what waits lies, of 64 up to
// 1 KiB and of 256 up to 4 KiB: a gather of ten is in a frame of 600 to 1,300 bytes, depending on
// the compiler. Larger frames are not kept.
MAGPIE_ALWAYS_INLINE constexpr std::size_t frame_class(std::size_t size) noexcept {
  return size <= 256    ? (size - 1) / 16
         : size <= 1024 ? 12 + (size - 1) / 64
                        : 28 + (size - 1025) / 256;
}
inline constexpr std::size_t frame_class_bytes(std::size_t index) noexcept {
  return index < 16 ? (index + 1) * 16 : index < 28 ? (index - 11) * 64 : 1024 + (index - 27) * 256;
}
static_assert(frame_class(4096) == kFrameClasses - 1 && frame_class(4097) == kFrameClasses);

// A shelf is a magazine, an array of words as large as it is aligned: the first word is null, the
// free frames follow, and the thread points to the one that is taken next. So the shelf is empty
// where the pointer leads to null, and full where the next word would be aligned. Neither asks for
// a count, and the memory of a free frame is not touched. (And the pointer is always one into the
// array, as those who look for leaks expect.)
//
// A magazine takes at most 2 KiB, and holds at most 64 KiB of frames (and the room between larger
// ones): 255 of up to 256 bytes to 15 of 4 KiB, shelves and spares together less than 4 MiB for a
// thread that has had so many frames of every size at once.
inline constexpr std::size_t kMostShelfBytes = 2048;
inline constexpr auto kShelfBytes = [] {
  std::array<std::uint16_t, kFrameClasses> bytes{};
  for (std::size_t i = 0; i < kFrameClasses; ++i) {
    const std::size_t words = std::bit_floor(64 * 1024 / frame_class_bytes(i));
    const bool is_most = words * sizeof(void*) > kMostShelfBytes;
    bytes[i] = static_cast<std::uint16_t>(is_most ? kMostShelfBytes : words * sizeof(void*));
  }
  return bytes;
}();
inline constexpr std::uint32_t shelf_bound(std::size_t index) noexcept {
  return static_cast<std::uint32_t>(kShelfBytes[index] / sizeof(void*) - 1);
}
MAGPIE_ALWAYS_INLINE bool is_full_shelf(void** shelf, std::size_t index) noexcept {
  return (reinterpret_cast<std::uintptr_t>(shelf + 1) & (kShelfBytes[index] - 1U)) == 0;
}
// The depot holds so much for each thread that has a cache, 100,000 frames of 64 bytes, and so much
// at most.
inline constexpr std::size_t kDepotBytesPerThread = 8 * 1024 * 1024;
inline constexpr std::size_t kDepotBytes = 64 * 1024 * 1024;

MAGPIE_ALWAYS_INLINE void* allocate_frame(std::size_t size) {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = frame_class(size);
  if (index < kFrameClasses) [[likely]] {
    auto& shelf = this_thread()->shelves[index];
    void** const next = shelf;
    if (void* const frame = *next; frame != nullptr) [[likely]] {
      shelf = next - 1;
      return frame;
    }
  }
#endif
#ifdef MAGPIE_HAS_SPARING
  void* const frame = try_allocate_frame_sparing(size);
  if (frame == nullptr) [[unlikely]]
    throw_no_memory();
  return frame;
#else
  return allocate_frame_slow(size);
#endif
}

MAGPIE_ALWAYS_INLINE void free_frame(void* memory, std::size_t size) noexcept {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = frame_class(size);
  if (index < kFrameClasses) [[likely]] {
    auto& shelf = this_thread()->shelves[index];
    void** const next = shelf;
    if (!is_full_shelf(next, index)) [[likely]] {
      next[1] = memory;
      shelf = next + 1;
      return;
    }
  }
#endif
#ifdef MAGPIE_HAS_SPARING
  free_frame_sparing(memory, size);
#else
  free_frame_slow(memory, size);
#endif
}

/// Base of what comes from the cache of frames, or from the allocator if it is over-aligned.
struct FrameAllocated {
  MAGPIE_ALWAYS_INLINE static void* operator new(std::size_t size) { return allocate_frame(size); }
  MAGPIE_ALWAYS_INLINE static void operator delete(void* memory, std::size_t size) noexcept {
    free_frame(memory, size);
  }
  // For a coroutine clang++ asks these, with whatever alignment (-fcoro-aligned-allocation).
  MAGPIE_ALWAYS_INLINE static void* operator new(std::size_t size, std::align_val_t align) {
    return is_over(align) ? ::operator new(size, align) : allocate_frame(size);
  }
  MAGPIE_ALWAYS_INLINE static void operator delete(void* memory, std::size_t size,
                                                   std::align_val_t align) noexcept {
    is_over(align) ? ::operator delete(memory, align) : free_frame(memory, size);
  }

 private:
  static constexpr bool is_over(std::align_val_t align) noexcept {
    return static_cast<std::size_t>(align) > __STDCPP_DEFAULT_NEW_ALIGNMENT__;
  }
};

}  // namespace magpie::detail
