// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A semaphore's state and steps: permits, and how many there may be. `Traits` as for PermitCore.

#include <magpie/detail/permit_core.h>

namespace magpie::detail {

template <class Traits>
class SemaphoreCore : public PermitCore<Traits> {
  using Env = typename Traits::Env;

 public:
  using typename PermitCore<Traits>::Word;

  SemaphoreCore(Word permits, Word most) noexcept
      : PermitCore<Traits>(permits), most_(most), all_(permits) {}

  /// How many there may be: free and held.
  Word most() const noexcept { return most_; }

  /// False, and nothing has happened: there would be too many.
  bool add(Word n) noexcept;

 private:
  const Word most_;
  // Free and held. Only numbers: what belongs to the permits goes with the core's word.
  typename Env::template Atomic<Word> all_;
};

template <class Traits>
bool SemaphoreCore<Traits>::add(Word n) noexcept {
  Word all = Env::mutant(Mutant::semaphore_adds_to_the_free) ? this->available()
                                                             : all_.load(std::memory_order_relaxed);
  do {
    if (n > most_ - all) return false;
    if constexpr (Env::mutant(Mutant::semaphore_plain_add) ||
                  Env::mutant(Mutant::semaphore_adds_to_the_free)) {
      all_.store(static_cast<Word>(all + n), std::memory_order_relaxed);
      break;
    }
  } while (!all_.compare_exchange_weak(all, static_cast<Word>(all + n), std::memory_order_relaxed,
                                       std::memory_order_relaxed));
  this->give_back(n);  // as if they had been held
  return true;
}

}  // namespace magpie::detail
