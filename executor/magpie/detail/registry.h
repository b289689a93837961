// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where an executor lists its live tasks, for dumps and for the sweep that cancels them all:
// executor/SHUTDOWN.md, "The list of what is live", has the steps L1 to L4 and the proof sketch.
//
// A table has a place for each task that is live. One thread adds to it, a worker to its own, so
// that listing a task and taking it out again there are plain stores. Any other thread may take a
// task out, too: the place then comes back to the table through a stack.
//
// Errors: no memory for another place is a null pointer.

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

/// `Record` is counted: add_ref(), release().
template <class Env, class Record>
class BasicRegistry {
 public:
  /// A record; or a link to the next free place, with the lowest bit set; 0: never used.
  using Place = typename Env::template Atomic<std::uintptr_t>;

  class Table {
   public:
    Table() = default;
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    ~Table() {
      for (Chunk* chunk = chunks_.load(std::memory_order_relaxed); chunk != nullptr;)
        delete std::exchange(chunk, chunk->older);
    }

    /// L1. By the one thread that adds. A place for the record; null: no memory. A light fence of
    /// the caller's pairs with the heavy one in for_each().
    Place* list(Record& record) noexcept {
      Place* const place = take();
      // Release: pairs with the load in for_each().
      if (place != nullptr) place->store(word_of(&record), std::memory_order_release);
      return place;
    }

   private:
    friend class BasicRegistry;

    static constexpr std::size_t kBytes = Env::kModel ? 1024 : 4096;
    static constexpr std::size_t kPlaces = Env::kModel ? 2 : kBytes / sizeof(Place) - 2;

    // Its address tells the table of a place.
    struct alignas(kBytes) Chunk {
      explicit Chunk(Table& its_table) noexcept : table(its_table) {}
      Table& table;
      Chunk* older = nullptr;
      Place places[kPlaces]{};
    };
    static_assert(sizeof(Chunk) == kBytes);

    static Table& of(const Place* place) noexcept {
      return reinterpret_cast<Chunk*>(reinterpret_cast<std::uintptr_t>(place) & ~(kBytes - 1))
          ->table;
    }
    static std::uintptr_t word_of(const Record* record) noexcept {
      return reinterpret_cast<std::uintptr_t>(record);
    }
    static std::uintptr_t link_to(const Place* next) noexcept {
      return reinterpret_cast<std::uintptr_t>(next) | kFree;
    }
    static Place* next_of(const Place* place) noexcept {
      return reinterpret_cast<Place*>(place->load(std::memory_order_relaxed) & ~kFree);
    }

    Place* take() noexcept {
      if (Place* const place = free_; place != nullptr) [[likely]] {
        free_ = next_of(place);
        return place;
      }
      return take_slow();
    }
    MAGPIE_COLD Place* take_slow() noexcept {
      if (returned_.load(std::memory_order_relaxed) != nullptr) {
        // Acquire: pairs with give_back().
        Place* const place = returned_.exchange(nullptr, std::memory_order_acquire);
        free_ = next_of(place);
        return place;
      }
      if (fresh_ == 0) {
        auto* const chunk = new (std::nothrow) Chunk(*this);
        if (chunk == nullptr) return nullptr;
        chunk->older = chunks_.load(std::memory_order_relaxed);
        // Release: pairs with for_each().
        chunks_.store(chunk, std::memory_order_release);
        fresh_ = kPlaces;
      }
      return &chunks_.load(std::memory_order_relaxed)->places[--fresh_];
    }
    void give_back_here(Place* place) noexcept {
      place->store(link_to(free_), std::memory_order_release);
      free_ = place;
    }
    // By any thread. Only pushed singly and taken all at once: no ABA.
    void give_back(Place* place) noexcept {
      Place* top = returned_.load(std::memory_order_relaxed);
      do {
        place->store(link_to(top), std::memory_order_release);
        // Release: pairs with take_slow(), which reads the links.
      } while (!returned_.compare_exchange_weak(top, place, std::memory_order_release,
                                                std::memory_order_relaxed));
    }

    Place* free_ = nullptr;  // these two belong to who adds
    std::size_t fresh_ = 0;  // places of the newest chunk that were never used
    typename Env::template Atomic<Chunk*> chunks_{nullptr};
    typename Env::template Atomic<Place*> returned_{nullptr};
  };

  /// The table of a place in which a record lies.
  static Table& table_of(const Place* place) noexcept { return Table::of(place); }

  /// L2. Takes a record out, before its last reference may fall: nobody finds it any more.
  /// `own`: the table that the calling thread adds to; null if it has none.
  void unlist(Place* place, Table* own) noexcept {
    if (own == &Table::of(place)) [[likely]] {
      own->give_back_here(place);
    } else {
      Table::of(place).give_back(place);
    }
    if constexpr (!Env::mutant(Mutant::registry_no_light_fence)) Env::light_fence();
    // Pairs with the heavy fence in for_each(): the reader sees that the place is free, or this
    // sees the reader, and waits until he has his references. Acquire: pairs with the end of the
    // reading, if this sees that; the references come before.
    if (reading_.load(kAcquire) != 0 && !Env::mutant(Mutant::registry_no_wait)) [[unlikely]] {
      std::lock_guard until_he_has_them(lock_);
    }
  }

  /// L3, L4. Calls fn(Record&) for what the table lists, with a reference and without a lock.
  template <class F>
  void for_each(const Table& table, F&& fn) const {
    // Acquire: pairs with take_slow().
    for (const auto* chunk = table.chunks_.load(std::memory_order_acquire); chunk != nullptr;
         chunk = chunk->older) {
      Held held;
      {
        std::lock_guard guard(lock_);
        reading_.store(1, std::memory_order_relaxed);
        // With the light one in unlist(), and with that of whoever adds: the phase of the executor
        // that the caller has set is seen there, or the record is seen here.
        if constexpr (!Env::mutant(Mutant::registry_no_heavy_fence)) Env::heavy_fence();
        for (const Place& place : chunk->places) {
          const std::uintptr_t word = place.load(std::memory_order_acquire);  // pairs with list()
          if (word == 0 || (word & kFree) != 0) continue;
          auto* const record = reinterpret_cast<Record*>(word);
          record->add_ref();
          held.records[held.count++] = record;
        }
        reading_.store(0, kRelease);  // pairs with unlist()
      }
      for (std::size_t i = 0; i < held.count; ++i) fn(*held.records[i]);
    }
  }

 private:
  static constexpr std::uintptr_t kFree = 1;
  static constexpr bool kWeak = Env::mutant(Mutant::registry_relaxed_reading);
  static constexpr auto kAcquire = kWeak ? std::memory_order_relaxed : std::memory_order_acquire;
  static constexpr auto kRelease = kWeak ? std::memory_order_relaxed : std::memory_order_release;

  // References that are given up whatever fn() throws.
  struct Held {
    Held() noexcept {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() {
      for (std::size_t i = 0; i < count; ++i) records[i]->release();
    }
    std::size_t count = 0;
    Record* records[Table::kPlaces];
  };

  mutable SpinLock<Env> lock_;  // of the readers
  mutable typename Env::template Atomic<std::uint32_t> reading_{0};
};

}  // namespace magpie::detail
