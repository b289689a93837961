// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>

#include <magpie/detail/frame_pool.h>

namespace magpie::detail {
namespace {

// Empties the cache when its thread ends; frames that are freed even later go straight to the
// allocator.
struct ShelfCleaner {
  ~ShelfCleaner() {
    ThreadState* const state = thread_state();
    state->frames_open = false;
    state->frames_closed = true;
    for (FrameShelf& shelf : state->shelves) {
      while (shelf.head != nullptr) {
        FreeFrame* const frame = shelf.head;
        shelf.head = frame->next;
        ::operator delete(frame);
      }
      shelf.room = 0;
    }
  }
  // The call makes sure that this object exists.
  void open() noexcept {
    ThreadState* const state = thread_state();
    state->frames_open = true;
    for (std::size_t i = 0; i < kFrameClasses; ++i) state->shelves[i].room = shelf_bound(i);
  }
};

thread_local ShelfCleaner shelf_cleaner;

void open_shelves() noexcept {
  ThreadState* const state = thread_state();
  if (!state->frames_open && !state->frames_closed) shelf_cleaner.open();
}

constexpr std::size_t rounded(std::size_t size) noexcept {
  const std::size_t index = frame_class(size);
  return index < kFrameClasses ? frame_class_bytes(index) : size;
}

}  // namespace

void* allocate_frame_slow(std::size_t size) {
  void* const memory = ::operator new(rounded(size));
  open_shelves();
  return memory;
}

void* try_allocate_frame_slow(std::size_t size) noexcept {
  try {
    return allocate_frame_slow(size);
  } catch (...) {
    return nullptr;
  }
}

void throw_no_memory() {
  throw std::bad_alloc();
}

void free_frame_slow(void* frame, std::size_t) noexcept {
  ::operator delete(frame);
  open_shelves();
}

}  // namespace magpie::detail
