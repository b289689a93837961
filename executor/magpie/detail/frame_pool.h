// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory for coroutine frames: a bounded cache of size classes in each thread, over the global
// operator new.
//
// A frame may be freed by another thread than the one that made it: it then goes to that thread's
// cache, and what exceeds the bound goes back to the allocator. Under AddressSanitizer and
// ThreadSanitizer every frame goes to the allocator, so that a use after the end is seen. Throws
// std::bad_alloc like the global operator new.

#include <cstddef>
#include <new>

#include <magpie/config.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

MAGPIE_EXPORT void* allocate_frame_slow(std::size_t size);
MAGPIE_EXPORT void free_frame_slow(void* frame, std::size_t size) noexcept;

// A shelf holds at most 128 KiB, 2048 frames of 64 bytes to 128 of 1 KiB: enough for the children
// of a wide gather, and at most 2 MiB for a thread that has had so many frames of every size at
// once.
inline constexpr std::uint32_t shelf_bound(std::size_t index) noexcept {
  return static_cast<std::uint32_t>(2048 / (index + 1));
}

inline void* allocate_frame(std::size_t size) {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = (size - 1) / kFrameGranule;
  if (index < kFrameClasses) [[likely]] {
    FrameShelf& shelf = thread_state()->shelves[index];
    if (FreeFrame* const frame = shelf.head; frame != nullptr) [[likely]] {
      shelf.head = frame->next;
      --shelf.count;
      return frame;
    }
  }
#endif
  return allocate_frame_slow(size);
}

inline void free_frame(void* memory, std::size_t size) noexcept {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = (size - 1) / kFrameGranule;
  if (index < kFrameClasses) [[likely]] {
    ThreadState* const state = thread_state();
    FrameShelf& shelf = state->shelves[index];
    if (shelf.count < shelf_bound(index) && state->frames_open) [[likely]] {
      auto* const frame = static_cast<FreeFrame*>(memory);
      frame->next = shelf.head;
      shelf.head = frame;
      ++shelf.count;
      return;
    }
  }
#endif
  free_frame_slow(memory, size);
}

}  // namespace magpie::detail
