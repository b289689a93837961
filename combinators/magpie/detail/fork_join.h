// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The types behind fork_join: the job that shares a function out, and what becomes of its result.
// How workers take jobs from one another is the executor's: <magpie/detail/job.h>.

#include <exception>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/job.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

/// What fork_join gives for a function: void as std::monostate, a reference as it is, unless it
/// refers to what dies with the call.
template <class T>
struct ForkValue {
  using type = std::remove_cvref_t<T>;
};
template <class T>
struct ForkValue<T&> {
  using type = T&;
};
template <class T>
requires std::is_void_v<T>
struct ForkValue<T> {
  using type = std::monostate;
};
template <class F>
using fork_value_t = typename ForkValue<once_result_t<F>>::type;

/// Calls a function of fork_join; F is its type as deduced.
template <class F>
MAGPIE_ALWAYS_INLINE fork_value_t<F> call_half(std::remove_reference_t<F>& f) {
  if constexpr (std::is_void_v<once_result_t<F>>) {
    std::invoke(static_cast<once_t<F>>(f));
    return {};
  } else {
    return std::invoke(static_cast<once_t<F>>(f));
  }
}

/// The half that is offered. It lies in fork_join's frame; nothing of the slot is touched unless it
/// is stolen.
template <class G>
class ForkedHalf : public Job {
 public:
  using Value = fork_value_t<G>;

  MAGPIE_ALWAYS_INLINE ForkedHalf(std::remove_reference_t<G>& g, LocalsFrame* its_locals) noexcept
      : Job(&run, its_locals), function_(std::addressof(g)) {}
  MAGPIE_ALWAYS_INLINE ~ForkedHalf() {}
  ForkedHalf(const ForkedHalf&) = delete;
  ForkedHalf& operator=(const ForkedHalf&) = delete;

  /// Once a thief has run it: the value, or its exception.
  Value take() {
    const Slots slots{this};
    return slot_.take();
  }
  /// Once a thief has run it, and nobody wants to know.
  void drop() noexcept { std::destroy_at(&slot_); }

 private:
  struct Slots {
    ForkedHalf* half;
    ~Slots() { half->drop(); }
  };

  static void run(Job* job) noexcept {
    auto* const self = static_cast<ForkedHalf*>(job);
    std::construct_at(&self->slot_);
    try {
      self->slot_.emplace(call_half<G>(*self->function_));
    } catch (...) {
      self->slot_.set_error(std::current_exception());
    }
  }

  std::remove_reference_t<G>* function_;
  union {
    Slot<Value> slot_;
  };
};

/// f has thrown: g ends all the same, and its exception, if any, gives way.
template <class G>
void end_other_half(LocalQueue* queue, ForkedHalf<G>* half,
                    std::remove_reference_t<G>& g) noexcept {
  if (half != nullptr && !detail::take_back(queue, half)) return half->drop();
  try {
    static_cast<void>(call_half<G>(g));
  } catch (...) {
  }
}

template <class F, class G>
MAGPIE_ALWAYS_INLINE fork_value_t<F> own_half(std::remove_reference_t<F>& f, LocalQueue* queue,
                                              ForkedHalf<G>* half, std::remove_reference_t<G>& g) {
  try {
    return call_half<F>(f);
  } catch (...) {
    end_other_half<G>(queue, half, g);
    throw;
  }
}

/// Off the workers.
template <class F, class G>
MAGPIE_NOINLINE std::pair<fork_value_t<F>, fork_value_t<G>> both_in_turn(
    std::remove_reference_t<F>& f, std::remove_reference_t<G>& g) {
  fork_value_t<F> first = own_half<F, G>(f, nullptr, nullptr, g);
  return {static_cast<fork_value_t<F>&&>(first), call_half<G>(g)};
}

}  // namespace magpie::detail
