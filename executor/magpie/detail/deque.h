// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>
#include <magpie/detail/rings.h>

#include <new>
#include <optional>

// The queue of one worker: the owner pushes and pops at one end without a locked instruction or a
// fence, thieves take from the other end, one item at a time. It is a Chase-Lev deque that is
// biased towards its owner until the first thief comes: DEQUE.md has the states, the steps (their
// numbers stand in the comments below) and the proof sketch.
//
// Not a general container: items are non-zero words, and nothing is destroyed with the deque.
//
//     Deque<> deque;
//     if (!deque.owner().push(item)) run_it_now(item);
//     std::uintptr_t newest = deque.owner().pop();
//     Deque<>::Stolen oldest = other.thief(mark).steal();
//
// Threads: owner() for one thread, at any one time; thief(), with a mark of the thread's own, and
// size_hint() for all. Destruction when nobody uses it any more. No cancellation. Errors: the
// constructor throws std::bad_alloc; push() returns false, with the deque unchanged, when it had to
// grow and memory was short.

namespace magpie::detail {

template <class Env = StdEnv>
class Deque {
 public:
  enum class Steal : std::uint8_t {
    stolen,
    empty,
    retry,  // there may be items, somebody else was faster: ask again, and do not park on it
  };
  struct Stolen {
    Steal outcome;
    std::uintptr_t item;  // 0 unless stolen
  };

  // What pop_biased_if() did.
  enum class Popped : std::uint8_t { yes, not_wanted, contended };

  class Owner;
  class Thief;

  explicit Deque(std::size_t capacity = 256) : Deque(capacity, kFirstIndex) {}
  Deque(const Deque&) = delete;
  Deque& operator=(const Deque&) = delete;
  ~Deque() = default;

  [[nodiscard("a handle does nothing by itself")]] Owner owner() noexcept { return Owner(*this); }
  [[nodiscard("a handle does nothing by itself")]] Thief thief(ThiefMark<Env>& mark) noexcept {
    return Thief(*this, mark);
  }

  // How many items there were a moment ago.
  std::size_t size_hint() const noexcept {
    const std::uint64_t top = index_of(top_.load(std::memory_order_relaxed));
    const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
    return bottom > top ? static_cast<std::size_t>(bottom - top) : 0;
  }

 private:
  friend class DequeTestAccess;
  using Slot = typename Rings<Env>::Slot;
  using Word = std::uint64_t;  // {mode:2, epoch:18, index:44}, the mode in the highest bits

  enum class Mode : std::uint8_t { biased = 0, revoking = 1, fenced = 2 };

  static constexpr int kIndexBits = 44;
  static constexpr int kEpochBits = 18;
  static constexpr Word kIndexMask = (Word{1} << kIndexBits) - 1;
  static constexpr Word kEpochMask = (Word{1} << kEpochBits) - 1;

  // Indices start at 1, so that the key of "one below empty" never wraps below zero.
  static constexpr std::uint64_t kFirstIndex = 1;
  // A deque that is empty between two operations starts over at the first index once it passed
  // this one; the index moves only by steals and fenced last pops, some ten days at full speed.
  static constexpr std::uint64_t kRestartIndex =
      Env::kModel ? 4 : std::uint64_t{1} << (kIndexBits - 1);
  // A fenced pop costs about 8 ns more, a revocation about 1.3 us and an interrupt for every core:
  // as one rents skis until the rents add up to their price, the bias comes back once so many pops
  // were fenced, without one steal, in at least a dwell. A power of two: pops look at the clock so
  // often.
  static constexpr std::uint32_t kPopsBeforeBias = Env::kModel ? 1 : 1024;
  // The dwell doubles whenever the bias did not last as long as it had been waited for.
  static constexpr std::uint64_t kShortestDwell = Env::kModel ? 0 : 64'000;
  static constexpr std::uint64_t kLongestDwell = Env::kModel ? 0 : 64'000'000;
  // A ring larger than the first goes back when the first would have done for so long; it is asked
  // so often. Who needs it again then makes it anew, for some 10 ns an item.
  static constexpr std::uint64_t kRoomyFor = Env::kModel ? 0 : 100'000'000;

  static constexpr Word pack(Mode mode, Word epoch, Word index) noexcept {
    return (static_cast<Word>(mode) << (kIndexBits + kEpochBits)) |
           ((epoch & kEpochMask) << kIndexBits) | index;
  }
  static constexpr Mode mode_of(Word word) noexcept {
    return static_cast<Mode>(word >> (kIndexBits + kEpochBits));
  }
  static constexpr Word epoch_of(Word word) noexcept { return (word >> kIndexBits) & kEpochMask; }
  static constexpr std::uint64_t index_of(Word word) noexcept { return word & kIndexMask; }
  static constexpr Word with_index(Word word, std::uint64_t index) noexcept {
    return (word & ~kIndexMask) | index;
  }
  static constexpr Word next_epoch(Word word) noexcept {
    return Env::mutant(Mutant::deque_no_epoch) ? epoch_of(word) : epoch_of(word) + 1;
  }

  Deque(std::size_t capacity, std::uint64_t first_index);

  // The owner's.
  bool push(std::uintptr_t item) noexcept;
  std::uintptr_t pop() noexcept;
  std::uintptr_t pop_carefully(std::uint64_t bottom, Word top) noexcept;
  std::uintptr_t peek() const noexcept;
  std::uintptr_t take_oldest() noexcept;
  void between_operations(std::uint64_t now_ns) noexcept;
  bool push_after_making_room(std::uintptr_t item) noexcept;
  bool make_room(std::uint64_t bottom, std::uint64_t count = 1) noexcept;
  void consider_bias(Word top, std::uint64_t now_ns) noexcept;
  void restart_indices(Word top) noexcept;
  bool move_to_ring(std::uint64_t capacity, std::uint64_t top, std::uint64_t bottom) noexcept;
  bool has_more_than_first_ring() const noexcept { return mask_ >= smallest_ || rings_.outgrown(); }
  bool consider_ring(std::uint64_t now_ns) noexcept;
  void shrink() noexcept;
  // How many items it may hold before it is looked at more closely.
  std::uint64_t room() const noexcept { return roomy_ ? smallest_ : mask_ + 1; }

  // Anybody's.
  Stolen steal(ThiefMark<Env>& mark) noexcept;
  std::uintptr_t peek_oldest(ThiefMark<Env>& mark) noexcept;
  bool revoke(Word top) noexcept;

  // Read by all, written by thieves, and by the owner in fenced mode.
  alignas(kCacheLine) typename Env::template Atomic<Word> top_;
  Rings<Env> rings_;

  // Written by the owner in every operation; thieves read bottom_.
  alignas(kCacheLine) typename Env::template Atomic<std::uint64_t> bottom_;
  Slot* slots_ = nullptr;        // of the newest ring
  std::uint64_t mask_ = 0;       // of the newest ring
  std::uint64_t limit_ = 0;      // bottom may rise to this without a look at top
  Word key_base_ = 0;            // {biased, epoch of the latest bias, 0}
  std::uint64_t own_takes_ = 0;  // how often the owner moved top's index

  // The owner's books about the bias, read between operations only.
  std::uint64_t stolen_seen_ = 0;   // steals up to the start of the quiet stretch
  std::uint64_t quiet_since_ = 0;   // when it started
  std::uint64_t biased_since_ = 0;  // when the bias came back last
  std::uint64_t dwell_ = kShortestDwell;
  std::uint32_t fenced_pops_ = 0;  // within the quiet stretch
  bool fenced_noted_ = false;      // whether a quiet stretch has been started since the revocation

  // The owner's books about the ring.
  std::uint64_t smallest_;      // slots of the first one
  std::uint64_t ring_due_ = 0;  // when it is asked next whether the first would do
  bool roomy_ = false;          // it would have done since it was asked last
};

// What only the owning thread may do.
template <class Env>
class Deque<Env>::Owner {
 public:
  // False: no memory to grow, and nothing was pushed. Ends with the light fence, so that a relaxed
  // look at the word of attention may follow (PARKING.md, step P6).
  [[nodiscard("an item that was not pushed must run elsewhere")]] bool push(
      std::uintptr_t item) const noexcept {
    return deque_->push(item);
  }
  // For forks, which push several items at once and know which one they want to pop:

  // Items in the order of add(); they are there after commit(), the fence (D3) is the caller's.
  class Batch {
   public:
    [[gnu::always_inline]] void add(std::uintptr_t item) noexcept {
      slots_[bottom_++ & mask_].store(item, std::memory_order_relaxed);  // D1
    }
    [[gnu::always_inline]] void commit() const noexcept {
      deque_->bottom_.store(bottom_, std::memory_order_release);  // D2
    }

   private:
    friend class Owner;
    [[gnu::always_inline]] Batch(Deque& deque, std::uint64_t bottom) noexcept
        : deque_(&deque), slots_(deque.slots_), mask_(deque.mask_), bottom_(bottom) {}
    Deque* deque_;
    Slot* slots_;
    std::uint64_t mask_;
    std::uint64_t bottom_;
  };
  // Before so many pushes, to grow at most once. Where there is no memory for all of them the
  // pushes do what they can.
  void make_room_for(std::size_t count) const noexcept {
    static_cast<void>(deque_->make_room(deque_->bottom_.load(std::memory_order_relaxed), count));
  }
  // Where `count` items fit without growing; else `otherwise()`, whose result is returned.
  template <class Then, class Otherwise>
  [[gnu::always_inline]] auto with_room_for(std::size_t count, Then&& then,
                                            Otherwise&& otherwise) const noexcept {
    const std::uint64_t bottom = deque_->bottom_.load(std::memory_order_relaxed);
    if (deque_->limit_ - bottom < count) [[unlikely]] {
      return otherwise();
    }
    return then(Batch(*deque_, bottom));
  }
  // pop() of the newest item if `wanted(item)`, as long as no thief has been near; else the deque
  // is as it was. The item may be stale, so `wanted` looks at its value only.
  template <class Wanted>
  [[gnu::always_inline]] Popped pop_biased_if(Wanted&& wanted,
                                              std::uintptr_t& item) const noexcept {
    const std::uint64_t bottom = deque_->bottom_.load(std::memory_order_relaxed) - 1;
    item = deque_->slots_[bottom & deque_->mask_].load(std::memory_order_relaxed);
    if (!wanted(item)) return Popped::not_wanted;
    deque_->bottom_.store(bottom, std::memory_order_release);       // O1; release: see D2
    Env::compiler_barrier();                                        // O2
    const Word top = deque_->top_.load(std::memory_order_relaxed);  // O3; relaxed: see pop()
    if (top <= deque_->key_base_ + bottom) [[likely]]
      return Popped::yes;                                          // O4
    deque_->bottom_.store(bottom + 1, std::memory_order_release);  // as O5; release: see D2
    return Popped::contended;
  }

  // pop() as long as no thief has been near, for an owner that knows what the newest item is;
  // false: the deque is as it was.
  [[gnu::always_inline]] bool pop_biased() const noexcept {
    const std::uint64_t bottom = deque_->bottom_.load(std::memory_order_relaxed) - 1;
    deque_->bottom_.store(bottom, std::memory_order_release);       // O1; release: see D2
    Env::compiler_barrier();                                        // O2
    const Word top = deque_->top_.load(std::memory_order_relaxed);  // O3; relaxed: see pop()
    if (top <= deque_->key_base_ + bottom) [[likely]]
      return true;                                                 // O4
    deque_->bottom_.store(bottom + 1, std::memory_order_release);  // as O5; release: see D2
    return false;
  }

  // The newest item, or 0.
  [[nodiscard("the item has left the deque")]] std::uintptr_t pop() const noexcept {
    return deque_->pop();
  }
  // What the slot of the newest item holds: the item that pop() would return, if nobody steals it,
  // or a stale one if the deque is empty (0 if it always was).
  [[nodiscard("looking changes nothing")]] std::uintptr_t peek() const noexcept {
    return deque_->peek();
  }
  // The item that thieves would take next; 0 if there is none or a thief was faster.
  [[nodiscard("the item has left the deque")]] std::uintptr_t take_oldest() const noexcept {
    return deque_->take_oldest();
  }
  // To be called now and then, with the steady clock: the deque goes back to its bias when it pays.
  void between_operations(std::uint64_t now_ns) const noexcept {
    deque_->between_operations(now_ns);
  }
  // To be called now and then, too, and before a long sleep: outgrown rings are freed, and a ring
  // that has long been larger than needed gives way to one as at first. `any(shows)` says whether
  // shows(mark) holds for the mark of any thief.
  template <class Any>
  void tend_rings(std::uint64_t now_ns, Any&& any) const noexcept {
    // A thief that stands still while it reads costs no fence each time.
    if (deque_->consider_ring(now_ns) && !deque_->rings_.seem_read(any) &&
        (!Env::asymmetric() || Env::may_barrier(now_ns)))
      deque_->rings_.free_outgrown(any);
  }
  // When tend_rings() may have something to do again; never: nothing.
  [[nodiscard("looking changes nothing")]] std::optional<std::uint64_t> rings_due() const noexcept {
    if (!deque_->has_more_than_first_ring()) return std::nullopt;
    return deque_->ring_due_;
  }
  // All that can be spared, at once, by an owner that leaves.
  template <class Any>
  void give_back_rings(Any&& any) const noexcept {
    deque_->shrink();
    if (deque_->rings_.outgrown()) deque_->rings_.free_outgrown(any);
  }
  [[nodiscard("looking changes nothing")]] std::size_t size_hint() const noexcept {
    return deque_->size_hint();
  }

 private:
  friend class Deque;
  // Inlined also where a translation unit instantiates the whole class explicitly.
  [[gnu::always_inline]] explicit Owner(Deque& deque) noexcept : deque_(&deque) {}
  Deque* deque_;
};

// What any thread may do.
template <class Env>
class Deque<Env>::Thief {
 public:
  // The oldest item. May make a heavy fence, if the deque is biased.
  [[nodiscard("the item has left the deque")]] Stolen steal() const noexcept {
    return deque_->steal(*mark_);
  }
  // What the slot of the oldest item holds, or held a moment ago: a hint.
  [[nodiscard("looking changes nothing")]] std::uintptr_t peek() const noexcept {
    return deque_->peek_oldest(*mark_);
  }
  [[nodiscard("looking changes nothing")]] std::size_t size_hint() const noexcept {
    return deque_->size_hint();
  }

 private:
  friend class Deque;
  [[gnu::always_inline]] Thief(Deque& deque, ThiefMark<Env>& mark) noexcept
      : deque_(&deque), mark_(&mark) {}
  Deque* deque_;
  ThiefMark<Env>* mark_;
};

template <class Env>
Deque<Env>::Deque(std::size_t capacity, std::uint64_t first_index)
    // Without asymmetric fences the deque is fenced for good.
    : top_(pack(Env::asymmetric() ? Mode::biased : Mode::fenced, 0, first_index)),
      bottom_(first_index),
      smallest_(2) {
  while (smallest_ < capacity) smallest_ *= 2;
  if (!move_to_ring(smallest_, first_index, first_index)) throw std::bad_alloc();
  limit_ = first_index + smallest_;
}

template <class Env>
bool Deque<Env>::move_to_ring(std::uint64_t capacity, std::uint64_t top,
                              std::uint64_t bottom) noexcept {
  if (!rings_.replace(capacity, top, bottom)) return false;
  slots_ = rings_.newest()->slots();
  mask_ = capacity - 1;
  return true;
}

template <class Env>
inline bool Deque<Env>::push(std::uintptr_t item) noexcept {
  const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
  if (bottom == limit_) [[unlikely]] {
    return push_after_making_room(item);
  }
  slots_[bottom & mask_].store(item, std::memory_order_relaxed);  // D1
  // D2. Release: pairs with the acquire load of bottom_ in step S4, for the slot and for what the
  // item refers to. Every store to bottom_ is a release, also those that lower it: a thief may read
  // any of them, and a relaxed store would not pass on the pushes that came before it.
  bottom_.store(bottom + 1, Env::mutant(Mutant::deque_relaxed_push) ? std::memory_order_relaxed
                                                                    : std::memory_order_release);
  Env::light_fence();  // D3
  return true;
}

template <class Env>
inline std::uintptr_t Deque<Env>::pop() noexcept {
  const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed) - 1;
  bottom_.store(bottom, std::memory_order_release);  // O1; release: see D2
  Env::compiler_barrier();                           // O2, half of the heavy fence in step S2
  // O3. Relaxed: a word that O4 accepts is biased, and those the owner alone has written; the item,
  // too. An acquire load would be the fence in disguise that O2 does without: on AArch64 it waits
  // until the store of O1 is seen by all.
  const Word top = top_.load(std::memory_order_relaxed);
  // O4. Any mode but biased makes the word greater than the key; within the bias, the key is that
  // of this epoch, and the comparison is one of indices.
  if (top <= key_base_ + bottom) [[likely]] {
    return slots_[bottom & mask_].load(std::memory_order_relaxed);
  }
  return pop_carefully(bottom, top);
}

template <class Env>
inline std::uintptr_t Deque<Env>::peek() const noexcept {
  const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
  return slots_[(bottom - 1) & mask_].load(std::memory_order_relaxed);
}

template <class Env>
inline std::uintptr_t Deque<Env>::peek_oldest(ThiefMark<Env>& mark) noexcept {
  const typename Rings<Env>::Reading reading(rings_, mark);  // R1, R2
  Env::light_fence();                                        // pairs with R4
  return reading.slot(index_of(top_.load(std::memory_order_relaxed)));
}

// Empty, revoking or fenced.
template <class Env>
[[gnu::noinline]] std::uintptr_t Deque<Env>::pop_carefully(std::uint64_t bottom,
                                                           Word top) noexcept {
  if (mode_of(top) == Mode::biased) {
    bottom_.store(bottom + 1, std::memory_order_release);  // O5; release: see D2
    return 0;
  }
  ++fenced_pops_;
  // O6. Pairs with the fence in S3: of this pop's store to bottom_ and a thief's load of top_, both
  // before their fences, at least one is seen by the other side's load after its own fence.
  if constexpr (!Env::mutant(Mutant::deque_no_fence_in_pop)) Env::fence_seq_cst();
  for (;;) {
    // O7. Acquire: pairs with the compare-and-swap in S6: the thief is done with its slot.
    top = top_.load(std::memory_order_acquire);
    if (index_of(top) < bottom) {
      const std::uintptr_t item = slots_[bottom & mask_].load(std::memory_order_relaxed);
      // The pop is complete here. A deep tree of forks may not come to its loop for long.
      if (fenced_pops_ % kPopsBeforeBias == 0) [[unlikely]]
        consider_bias(top, Env::now_ns());
      return item;
    }
    if (index_of(top) > bottom) break;
    if constexpr (Env::mutant(Mutant::deque_last_pop_without_cas)) {
      top_.store(with_index(top, bottom + 1), std::memory_order_seq_cst);
      bottom_.store(bottom + 1, std::memory_order_release);
      return slots_[bottom & mask_].load(std::memory_order_relaxed);
    }
    // O8. The last item belongs to who moves top. Pairs with S6. It fails if a thief was faster, or
    // if the mode changed meanwhile: then once more.
    if (top_.compare_exchange_strong(top, with_index(top, bottom + 1), std::memory_order_seq_cst,
                                     std::memory_order_acquire)) {
      ++own_takes_;
      bottom_.store(bottom + 1, std::memory_order_release);  // release: see D2
      return slots_[bottom & mask_].load(std::memory_order_relaxed);
    }
  }
  bottom_.store(bottom + 1, std::memory_order_release);  // O9; release: see D2
  return 0;
}

template <class Env>
std::uintptr_t Deque<Env>::take_oldest() noexcept {
  // The owner's own bottom cannot move meanwhile, so no fence is needed in any mode: who moves top
  // from this word has the item.
  const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
  Word top = top_.load(std::memory_order_acquire);  // acquire: see O7
  const std::uint64_t index = index_of(top);
  // The only one, as of a strand that yields to nobody: without a locked instruction.
  if (index + 1 == bottom && mode_of(top) == Mode::biased) return pop();
  while (index < bottom && index_of(top) == index) {
    const std::uintptr_t item = slots_[index & mask_].load(std::memory_order_relaxed);
    // T1. Pairs with S6; tried again only if a thief changed the mode.
    if (top_.compare_exchange_strong(top, with_index(top, index + 1), std::memory_order_seq_cst,
                                     std::memory_order_acquire)) {
      ++own_takes_;
      return item;
    }
  }
  return 0;
}

// A tail call, so that push() itself saves no registers.
template <class Env>
[[gnu::noinline]] bool Deque<Env>::push_after_making_room(std::uintptr_t item) noexcept {
  return make_room(bottom_.load(std::memory_order_relaxed)) && push(item);
}

template <class Env>
bool Deque<Env>::make_room(std::uint64_t bottom, std::uint64_t count) noexcept {
  // Acquire: pairs with S6; a slot is written again only after its thief has read it.
  const std::uint64_t top = index_of(top_.load(std::memory_order_acquire));
  const std::uint64_t needed = bottom - top + count;
  if (needed > smallest_) roomy_ = false;
  if (needed > mask_ + 1) {
    std::uint64_t capacity = mask_ + 1;
    while (capacity < needed) capacity *= 2;
    if (!move_to_ring(capacity, top, bottom)) return false;
  }
  limit_ = top + room();
  return true;
}

// Whether there are outgrown rings. To see whether the first ring would do, `limit_` is put where
// it would stand in that: a push beyond it comes by make_room(), the others need note nothing.
template <class Env>
bool Deque<Env>::consider_ring(std::uint64_t now_ns) noexcept {
  if (!has_more_than_first_ring()) return false;
  if (now_ns >= ring_due_) {
    ring_due_ = now_ns + kRoomyFor;
    // Not while others are kept: each burst would leave as many again.
    if (roomy_ && !rings_.outgrown()) shrink();
    const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
    const std::uint64_t top = index_of(top_.load(std::memory_order_acquire));  // as in make_room()
    roomy_ = mask_ >= smallest_ && bottom - top <= smallest_;
    limit_ = top + room();
  }
  return rings_.outgrown();
}

template <class Env>
[[gnu::noinline]] void Deque<Env>::shrink() noexcept {
  const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
  const std::uint64_t top = index_of(top_.load(std::memory_order_acquire));  // as in make_room()
  if (mask_ < smallest_ || bottom - top > smallest_) return;
  if (!move_to_ring(smallest_, top, bottom)) return;
  roomy_ = false;
  limit_ = top + smallest_;
}

template <class Env>
inline void Deque<Env>::between_operations(std::uint64_t now_ns) noexcept {
  // Relaxed: only the owner enters the bias, and a revocation that is missed now is seen next time.
  consider_bias(top_.load(std::memory_order_relaxed), now_ns);
  const Word top = top_.load(std::memory_order_relaxed);
  if (index_of(top) >= kRestartIndex) [[unlikely]]
    restart_indices(top);
}

template <class Env>
[[gnu::noinline]] void Deque<Env>::consider_bias(Word top, std::uint64_t now_ns) noexcept {
  if (mode_of(top) != Mode::fenced || !Env::asymmetric()) return;
  const std::uint64_t stolen = index_of(top) - own_takes_;
  if (!fenced_noted_ || stolen != stolen_seen_) {
    if (!fenced_noted_ && biased_since_ != 0) {
      const bool soon = now_ns - biased_since_ < dwell_;
      dwell_ = soon ? dwell_ * 2 : dwell_ / 2;
      if (dwell_ > kLongestDwell) dwell_ = kLongestDwell;
      if (dwell_ < kShortestDwell) dwell_ = kShortestDwell;
    }
    fenced_noted_ = true;
    stolen_seen_ = stolen;
    quiet_since_ = now_ns;
    fenced_pops_ = 0;
    return;
  }
  if (fenced_pops_ < kPopsBeforeBias || now_ns - quiet_since_ < dwell_) return;
  if (!Env::may_barrier(now_ns)) return;
  // B1. A new epoch: a thief that is still on its way with the old word fails in S6.
  const Word biased = pack(Mode::biased, next_epoch(top), index_of(top));
  if (top_.compare_exchange_strong(top, biased, std::memory_order_seq_cst,
                                   std::memory_order_relaxed)) {
    key_base_ = with_index(biased, 0);
    biased_since_ = now_ns;
    fenced_noted_ = false;
  }
}

template <class Env>
[[gnu::noinline]] void Deque<Env>::restart_indices(Word top) noexcept {
  const std::uint64_t bottom = bottom_.load(std::memory_order_relaxed);
  if (index_of(top) != bottom || mode_of(top) == Mode::revoking) return;
  // B2. Bottom first: with an old top, thieves find the deque empty; then a new epoch, so that they
  // fail in S6 if they come with an old word.
  bottom_.store(kFirstIndex, std::memory_order_release);  // release: see D2
  const Word restarted = pack(mode_of(top), next_epoch(top), kFirstIndex);
  if (!top_.compare_exchange_strong(top, restarted, std::memory_order_seq_cst,
                                    std::memory_order_relaxed)) {
    bottom_.store(bottom, std::memory_order_release);  // a thief revokes just now: next time
    return;
  }
  if (mode_of(restarted) == Mode::biased) key_base_ = with_index(restarted, 0);
  limit_ = kFirstIndex + room();
  own_takes_ = 0;
  stolen_seen_ = kFirstIndex;
}

// S1, S2: from biased over revoking to fenced. False: somebody else moved top.
template <class Env>
[[gnu::noinline]] bool Deque<Env>::revoke(Word top) noexcept {
  if constexpr (Env::mutant(Mutant::deque_no_revoking_state)) {
    const Word at_once = pack(Mode::fenced, next_epoch(top), index_of(top));
    const bool mine = top_.compare_exchange_strong(top, at_once, std::memory_order_seq_cst,
                                                   std::memory_order_relaxed);
    if (mine) Env::heavy_fence();
    return mine;
  }
  // S1. From here on the owner is careful, if it sees it; nobody steals yet.
  Word seen = pack(Mode::revoking, next_epoch(top), index_of(top));
  if (!top_.compare_exchange_strong(top, seen, std::memory_order_seq_cst,
                                    std::memory_order_relaxed)) {
    return false;
  }
  // S2. Pairs with O2: a pop that did not see S1 has its bottom_ written out now; every later one
  // sees S1.
  if constexpr (!Env::mutant(Mutant::deque_no_barrier)) Env::heavy_fence();
  // The owner may move the index meanwhile, nobody the rest. Release: pairs with the acquire of top
  // in steal(), and passes on what the barrier made visible.
  while (!top_.compare_exchange_strong(seen, pack(Mode::fenced, epoch_of(seen), index_of(seen)),
                                       std::memory_order_seq_cst, std::memory_order_acquire)) {
  }
  return true;
}

template <class Env>
typename Deque<Env>::Stolen Deque<Env>::steal(ThiefMark<Env>& mark) noexcept {
  for (;;) {
    const Word top = top_.load(std::memory_order_acquire);  // S0; pairs with S2, S6, O8, T1, B1, B2
    const std::uint64_t index = index_of(top);
    if (bottom_.load(std::memory_order_relaxed) <= index) return {Steal::empty, 0};
    if (mode_of(top) == Mode::biased) {
      if (!revoke(top)) return {Steal::retry, 0};
      continue;
    }
    if (mode_of(top) == Mode::revoking) return {Steal::retry, 0};  // not on somebody else's barrier
    std::uint64_t bottom = 0;
    std::uintptr_t item = 0;
    {
      const typename Rings<Env>::Reading reading(rings_, mark);                           // R1, R2
      if constexpr (!Env::mutant(Mutant::deque_no_fence_in_steal)) Env::fence_seq_cst();  // S3
      bottom = bottom_.load(std::memory_order_acquire);  // S4; pairs with D2
      if (bottom <= index) return {Steal::empty, 0};
      item = reading.slot(index);  // S5
    }
    const bool two = Env::mutant(Mutant::deque_steal_two) && bottom - index > 1;
    Word expected = top;
    // S6. Moves top only if neither index, mode nor epoch changed since S0. Release: pairs with O7
    // and the load of top_ in make_room().
    if (!top_.compare_exchange_strong(expected, with_index(top, index + (two ? 2 : 1)),
                                      std::memory_order_seq_cst, std::memory_order_relaxed)) {
      return {Steal::retry, 0};
    }
    return {Steal::stolen, item};
  }
}

}  // namespace magpie::detail
