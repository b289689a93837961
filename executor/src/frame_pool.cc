// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstdint>
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

struct DepotBounds {
  static constexpr std::size_t kClasses = kFrameClasses;
  static std::size_t chain_bytes(std::size_t index) noexcept {
    return shelf_bound(index) * frame_memory_bytes(index);
  }
  static std::size_t bytes(std::size_t threads) noexcept {
    return std::min(threads * kDepotBytesPerThread, kDepotBytes);
  }
};
static_assert(sizeof(FrameChain) <= frame_class_bytes(0));

void free_chain(FreeFrame* frame) noexcept {
  free_frames<StdEnv>(frame);
}

// Never destroyed: threads may end after everything else.
constinit FrameDepot<StdEnv, DepotBounds> depot;

// Empties the cache when its thread ends; frames that are freed even later go straight to the
// allocator.
struct ShelfCleaner {
  ~ShelfCleaner() {
    ThreadState* const state = thread_state();
    if (!state->frames_open) return;
    state->frames_open = false;
    state->frames_closed = true;
    for (std::size_t i = 0; i < kFrameClasses; ++i) {
      free_chain(std::exchange(state->shelves[i].head, nullptr));
      free_chain(std::exchange(state->spares[i], nullptr));
      state->shelves[i].room = 0;
    }
    depot.thread_ends();
  }
  // The call makes sure that this object exists.
  void open() noexcept {
    ThreadState* const state = thread_state();
    state->frames_open = true;
    for (std::size_t i = 0; i < kFrameClasses; ++i) state->shelves[i].room = shelf_bound(i);
    depot.thread_opens();
  }
};

thread_local ShelfCleaner shelf_cleaner;

void open_shelves() noexcept {
  ThreadState* const state = thread_state();
  if (!state->frames_open && !state->frames_closed) shelf_cleaner.open();
}

// The spare chain, or one from the depot, is the shelf from here on.
[[maybe_unused]] FreeFrame* take_from_chain(ThreadState& state, std::size_t index) noexcept {
  FreeFrame* const first = state.spares[index] != nullptr
                               ? std::exchange(state.spares[index], nullptr)
                               : depot.take(index);
  if (first == nullptr) return nullptr;
  state.shelves[index].head = first->next;
  state.shelves[index].room = 1;
  return first;
}

// The shelf is full: it becomes the spare chain, and what that was goes to the depot. False: that
// has enough, and all is as it was.
[[maybe_unused]] bool make_room(ThreadState& state, std::size_t index) noexcept {
  FreeFrame*& spare = state.spares[index];
  if (spare != nullptr && !depot.put(index, spare)) return false;
  spare = std::exchange(state.shelves[index].head, nullptr);
  state.shelves[index].room = shelf_bound(index);
  return true;
}

// What a frame of that size takes of the allocator.
std::size_t memory_bytes(std::size_t size) noexcept {
  const std::size_t index = frame_class(size);
  return index < kFrameClasses ? frame_memory_bytes(index) : size;
}

}  // namespace

// Code that is compiled with a sanitizer comes here with every frame, also where the library is not
// compiled with it: then the shelf is not empty, or has room, and is none of its business.
void* allocate_frame_slow(std::size_t size) {
#if !defined(MAGPIE_ASAN) && !defined(MAGPIE_TSAN)
  const std::size_t index = frame_class(size);
  if (ThreadState* const state = thread_state();
      index < kFrameClasses && state->frames_open && state->shelves[index].head == nullptr) {
    if (void* const frame = take_from_chain(*state, index); frame != nullptr) return frame;
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
                                                 state->shelves[index].room == 0 &&
                                                 make_room(*state, index)) {
    auto* const freed = static_cast<FreeFrame*>(frame);
    freed->next = nullptr;
    state->shelves[index].head = freed;
    --state->shelves[index].room;
    return;
  }
#endif
  ::operator delete(frame, memory_bytes(size));
  open_shelves();
}

}  // namespace magpie::detail
