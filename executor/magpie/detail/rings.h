// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>

#include <new>

// The memory of a deque: a ring of slots, which the owner replaces by another, larger or smaller,
// while thieves read. Rings that were replaced are freed when no thief can still read them: the
// steps R1 to R6 of DEQUE.md, where the proof sketch is.
//
// Not a reclamation scheme for everybody: there is one thing to protect, and who reads says so by a
// mark of his own.
//
//     typename Rings<Env>::Reading reading(rings, mark);            // the thief, with its mark
//     Env::light_fence();                                           // ... or a stronger one
//     item = reading.slot(index);
//
//     if (rings.replace(capacity, top, bottom)) ...                 // the owner, and later
//     rings.free_outgrown([&](auto&& shows) { return shows(mark_of_one) || shows(mark_of_another);
//     });
//
// Threads: Reading for all, the rest for the owner. No cancellation. Errors: false where there is
// no memory.

namespace magpie::detail {

template <class Env>
class Rings;

// Where a thief says which rings it reads. One for each thief, and for one reading at a time; the
// owners of all deques that the thief comes to are shown it. A line that only the thief writes is
// the place for it.
template <class Env = StdEnv>
class ThiefMark {
 public:
  ThiefMark() = default;
  ThiefMark(const ThiefMark&) = delete;
  ThiefMark& operator=(const ThiefMark&) = delete;

 private:
  friend class Rings<Env>;
  // Every store is a release, also those that set a mark: the owner may read any of them, and a
  // relaxed one would not pass on that the reading before it has ended.
  typename Env::template Atomic<Rings<Env>*> reads_{nullptr};
};

template <class Env>
class Rings {
 public:
  using Slot = typename Env::template Atomic<std::uintptr_t>;

  struct Ring {
    Ring* previous;  // outgrown, and not freed yet
    std::uint64_t mask;

    Slot* slots() noexcept { return reinterpret_cast<Slot*>(this + 1); }
  };

  class Reading;

  Rings() noexcept : newest_(nullptr) {}
  Rings(const Rings&) = delete;
  Rings& operator=(const Rings&) = delete;
  ~Rings() { destroy_from(newest_.load(std::memory_order_relaxed)); }

  // The owner's.

  Ring* newest() const noexcept { return newest_.load(std::memory_order_relaxed); }
  bool outgrown() const noexcept { return newest()->previous != nullptr; }

  // R3. Another ring, with the items from `top` to `bottom`, which fit; a power of two. False: no
  // memory.
  bool replace(std::uint64_t capacity, std::uint64_t top, std::uint64_t bottom) noexcept {
    Ring* const old = newest();
    Ring* const ring = create(capacity, old);
    if (ring == nullptr) return false;
    for (std::uint64_t i = top; i != bottom; ++i) {
      ring->slots()[i & ring->mask].store(
          old->slots()[i & old->mask].load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
    newest_.store(ring, std::memory_order_release);  // pairs with S5
    return true;
  }

  // Whether a thief reads here, as far as one can tell without a fence: then they cannot be freed.
  template <class Any>
  bool seem_read(Any&& any) const noexcept {
    return any([this](const ThiefMark<Env>& mark) noexcept {
      return mark.reads_.load(std::memory_order_relaxed) == this;
    });
  }

  // R4 to R6. `any(shows)` says whether shows(mark) holds for the mark of any thief.
  template <class Any>
  void free_outgrown(Any&& any) noexcept {
    // R4. Of the newest ring here and a mark, both set before their fences, at least one is seen by
    // the other side behind its own: pairs with S3, and with the light fence of a look.
    if constexpr (Env::mutant(Mutant::rings_plain_fence)) {
      Env::fence_seq_cst();
    } else if constexpr (!Env::mutant(Mutant::rings_no_fence)) {
      Env::heavy_fence();
    }
    // R5. Acquire: pairs with R2, the thief is done with its slot.
    if (any([this](const ThiefMark<Env>& mark) noexcept {
          return mark.reads_.load(std::memory_order_acquire) == this;
        })) {
      return;
    }
    Ring* const ring = newest();
    destroy_from(ring->previous);  // R6
    ring->previous = nullptr;
  }

 private:
  static Ring* create(std::uint64_t capacity, Ring* previous) noexcept {
    static_assert(sizeof(Ring) % alignof(Slot) == 0);
    void* const memory = Env::allocate(bytes_of(capacity));
    if (memory == nullptr) return nullptr;
    auto* const ring = ::new (memory) Ring{previous, capacity - 1};
    for (std::uint64_t i = 0; i < capacity; ++i) ::new (ring->slots() + i) Slot(0);
    return ring;
  }
  static void destroy_from(Ring* ring) noexcept {
    while (ring != nullptr) {
      Ring* const previous = ring->previous;
      const std::size_t bytes = bytes_of(ring->mask + 1);
      for (std::uint64_t i = 0; i <= ring->mask; ++i) ring->slots()[i].~Slot();
      Env::deallocate(ring, bytes);
      ring = previous;
    }
  }
  static constexpr std::size_t bytes_of(std::uint64_t capacity) noexcept {
    return sizeof(Ring) + static_cast<std::size_t>(capacity) * sizeof(Slot);
  }

  typename Env::template Atomic<Ring*> newest_;
};

// As long as it lives, the ring that slot() finds is not freed, provided that a fence lies between
// the construction and slot().
template <class Env>
class Rings<Env>::Reading {
 public:
  [[gnu::always_inline]] Reading(Rings& rings, ThiefMark<Env>& mark) noexcept
      : rings_(rings), mark_(mark) {
    if constexpr (!Env::mutant(Mutant::rings_no_mark) && !Env::mutant(Mutant::rings_late_mark))
      show(&rings);  // R1
  }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  [[gnu::always_inline]] ~Reading() { show(nullptr); }  // R2

  [[gnu::always_inline]] std::uintptr_t slot(std::uint64_t index) const noexcept {
    Ring* const ring = rings_.newest_.load(std::memory_order_acquire);  // S5; pairs with R3
    if constexpr (Env::mutant(Mutant::rings_late_mark)) {
      Env::fence_seq_cst();
      show(&rings_);
    }
    if constexpr (Env::mutant(Mutant::rings_early_unmark)) show(nullptr);
    return ring->slots()[index & ring->mask].load(std::memory_order_relaxed);
  }

 private:
  [[gnu::always_inline]] void show(Rings* reads) const noexcept {
    mark_.reads_.store(reads, Env::mutant(Mutant::rings_relaxed_mark) ? std::memory_order_relaxed
                                                                      : std::memory_order_release);
  }

  Rings& rings_;
  ThiefMark<Env>& mark_;
};

}  // namespace magpie::detail
