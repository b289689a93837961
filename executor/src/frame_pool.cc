// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include <magpie/detail/frame_depot.h>
#include <magpie/detail/frame_pool.h>

namespace magpie::detail {
namespace {

// The frames of coroutines that fork are used at both ends all the time, and lie side by side in
// the allocator's memory: without room between them the end of one and the beginning of the next
// share a cache line, and two workers have one of these each after some steals. Then the line
// travels with every call. (The smaller classes are for what waits.)
constexpr std::size_t frame_memory_bytes(std::size_t index) noexcept {
  return frame_class_bytes(index) + (index < 16 ? 0 : kCacheLine - 16);
}

// --- a magazine ----------------------------------------------------------------------------------

void** begin_of(Magazine* magazine) noexcept {
  return reinterpret_cast<void**>(magazine) + 1;
}
void** last_of(Magazine* magazine, std::size_t index) noexcept {
  return begin_of(magazine) + shelf_bound(index) - 1;
}

// Not by operator new: whoever gives a frame back has no use for a program's own code there, nor
// for its new handler.
Magazine* make_magazine(std::size_t index) noexcept {
  const std::size_t bytes = kShelfBytes[index];
  void* const memory = std::aligned_alloc(bytes, bytes);
  return memory != nullptr ? ::new (memory) Magazine{nullptr} : nullptr;
}
void free_magazine(Magazine* magazine) noexcept {
  std::free(magazine);
}
// The frames up to `last`, and the magazine.
void dispose_of(Magazine* magazine, void** last) noexcept {
  for (void** frame = begin_of(magazine); frame <= last; ++frame) ::operator delete(*frame);
  free_magazine(magazine);
}

struct DepotBounds {
  static constexpr std::size_t kClasses = kFrameClasses;
  static std::size_t bytes_of(std::size_t index) noexcept {
    return shelf_bound(index) * frame_memory_bytes(index) + kShelfBytes[index];
  }
  static std::size_t bytes(std::size_t threads) noexcept {
    return std::min(threads * kDepotBytesPerThread, kDepotBytes);
  }
  static void dispose(std::size_t index, Magazine* full) noexcept {
    dispose_of(full, last_of(full, index));
  }
};

// Never destroyed: threads may end after everything else.
constinit FrameDepot<StdEnv, DepotBounds> depot;

// --- a thread's ----------------------------------------------------------------------------------

// That of the shelf; null: it has none yet.
Magazine* magazine_of(void** shelf, std::size_t index) noexcept {
  if (is_full_shelf(shelf, index) && *shelf == nullptr) return nullptr;
  const auto last = reinterpret_cast<std::uintptr_t>(shelf);
  return reinterpret_cast<Magazine*>(last - last % kShelfBytes[index]);
}

// A spare that is full has itself below.
void mark_full(Magazine* spare) noexcept {
  spare->below = spare;
}
bool marked_full(const Magazine* spare) noexcept {
  return spare->below != nullptr;
}

// Empties the cache when its thread ends; frames that are freed even later go straight to the
// allocator.
struct ShelfCleaner {
  ~ShelfCleaner() {
    ThreadState* const state = thread_state();
    if (!state->frames_open) return;
    state->frames_open = false;
    state->frames_closed = true;
    for (std::size_t i = 0; i < kFrameClasses; ++i) {
      void** const shelf = std::exchange(state->shelves[i], no_shelf());
      if (Magazine* const magazine = magazine_of(shelf, i); magazine != nullptr)
        dispose_of(magazine, shelf);
      if (Magazine* const spare = std::exchange(state->spares[i], nullptr); spare != nullptr)
        dispose_of(spare, marked_full(spare) ? last_of(spare, i) : begin_of(spare) - 1);
    }
    depot.thread_ends();
  }
  // The call makes sure that this object exists.
  void open() noexcept {
    thread_state()->frames_open = true;
    depot.thread_opens();
  }
};

thread_local ShelfCleaner shelf_cleaner;

void open_shelves() noexcept {
  ThreadState* const state = thread_state();
  if (!state->frames_open && !state->frames_closed) shelf_cleaner.open();
}

// The shelf is empty: the spare, or one from the depot, is the shelf from here on. Null: there is
// none; else a frame of it.
[[maybe_unused]] void* take_from_full(ThreadState& state, std::size_t index) noexcept {
  Magazine*& spare = state.spares[index];
  const bool ready = spare != nullptr && marked_full(spare);
  Magazine* const full = ready ? std::exchange(spare, nullptr) : depot.take(index);
  if (full == nullptr) return nullptr;
  if (Magazine* const empty = magazine_of(state.shelves[index], index); empty != nullptr) {
    if (spare == nullptr) {
      spare = empty;
    } else {
      free_magazine(empty);
    }
  }
  full->below = nullptr;
  void** const last = last_of(full, index);
  state.shelves[index] = last - 1;
  return *last;
}

// The shelf is full, or not there: it becomes the spare, and what that was goes to the depot.
// False: that has enough, or there is no memory, and the shelf is as it was.
[[maybe_unused]] bool make_room(ThreadState& state, std::size_t index) noexcept {
  Magazine* const full = magazine_of(state.shelves[index], index);
  Magazine*& spare = state.spares[index];
  Magazine* empty = nullptr;
  if (spare != nullptr && !marked_full(spare)) {
    empty = std::exchange(spare, nullptr);
  } else if (spare != nullptr && full != nullptr) {
    if (!depot.put(index, spare)) return false;
    spare = nullptr;
  }
  if (empty == nullptr) empty = make_magazine(index);
  if (empty == nullptr) return false;
  if (full != nullptr) {
    mark_full(full);
    spare = full;
  }
  state.shelves[index] = begin_of(empty) - 1;
  return true;
}

// What a frame of that size takes of the allocator.
std::size_t memory_bytes(std::size_t size) noexcept {
  const std::size_t index = frame_class(size);
  return index < kFrameClasses ? frame_memory_bytes(index) : size;
}

}  // namespace

// Code that is compiled with a sanitizer comes here with every frame, also where the library is not
// compiled with it: then the shelf may be neither empty nor full, and is none of its business.
void* allocate_frame_slow(std::size_t size) {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = frame_class(size);
  if (ThreadState* const state = thread_state();
      index < kFrameClasses && state->frames_open && *state->shelves[index] == nullptr) {
    if (void* const frame = take_from_full(*state, index); frame != nullptr) return frame;
  }
#endif
  void* const memory = ::operator new(memory_bytes(size));
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

void free_frame_slow(void* frame, std::size_t size) noexcept {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = frame_class(size);
  if (ThreadState* const state = thread_state(); index < kFrameClasses && state->frames_open &&
                                                 is_full_shelf(state->shelves[index], index) &&
                                                 make_room(*state, index)) {
    *++state->shelves[index] = frame;
    return;
  }
#endif
  ::operator delete(frame, memory_bytes(size));
  open_shelves();
}

}  // namespace magpie::detail
