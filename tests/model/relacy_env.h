// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

// Relacy defines `new`, `delete`, `assert`, the memory orders and more as macros: standard headers
// come before it, and its macros go right after it.
#include <array>
#include <atomic>
#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <optional>
#include <ostream>
#include <streambuf>
#include <string>
#include <type_traits>

#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#elif defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#endif
#include <relacy/relacy.hpp>
#undef new
#undef delete
// Relacy replaces the global operators new and delete, but not those that compilers prefer;
// used: what is linked from elsewhere calls them, too.
[[gnu::used]] inline void operator delete(void* memory, std::size_t) noexcept {
  ::operator delete(memory);
}
[[gnu::used]] inline void operator delete[](void* memory, std::size_t) noexcept {
  ::operator delete[](memory);
}
#if defined(__clang__)
#pragma clang diagnostic pop
#elif defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef $
#undef VAR
#undef VAR_T
#undef TLS_T
#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst

#include <magpie/detail/atomic.h>

// The environment of Relacy, which checks C++11's memory model: relaxed loads return old values,
// plain data that two threads touch without order is a data race.
//
// How to write a model:
//
//     template <Mutant kMutant>
//     struct Handover : RelacyTest<Handover<kMutant>, 2> {        // 2 threads
//       RelacyEnv<kMutant>::template Atomic<int> ready{0};
//       RelacyData<int> data{0};                                  // a plain variable, watched
//       void thread(unsigned index) {
//         if (index == 0) { data.write(1); ready.store(1, std::memory_order_release); }
//         else if (ready.load(std::memory_order_acquire)) relacy_check(data.read() == 1);
//       }
//       void after() {}                                           // when all have ended
//     };
//     RelacyReport report = explore_relacy<Handover<Mutant::none>>({.bound = 3});
//     EXPECT_TRUE(report.passed) << report.text;
//
// - The test object is made anew for each execution; the structures under test are its members.
// - It cannot tell membarrier's fences: asymmetric() is false, light and heavy fences are full
// ones.
//   Protocols that rest on membarrier are models of sim.h.
// - Loops call pause-and-yield through the environment. A loop that only others can end is then run
//   a bounded number of times.
// - Mutants: RelacyEnv<Mutant::x>; their tests demand that the report has not passed.
// - Relacy's own switching of stacks confuses the sanitizers: tests call MAGPIE_SKIP_RELACY()
// first.

#if defined(MAGPIE_TSAN) || defined(__SANITIZE_ADDRESS__)
#define MAGPIE_SKIP_RELACY() GTEST_SKIP() << "not under sanitizers"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MAGPIE_SKIP_RELACY() GTEST_SKIP() << "not under sanitizers"
#endif
#endif
#ifndef MAGPIE_SKIP_RELACY
#define MAGPIE_SKIP_RELACY() static_cast<void>(0)
#endif

namespace magpie::model {

using detail::Mutant;

inline rl::memory_order relacy_order(std::memory_order order) {
  switch (order) {
    case std::memory_order_relaxed:
      return rl::mo_relaxed;
    case std::memory_order_consume:
      return rl::mo_consume;
    case std::memory_order_acquire:
      return rl::mo_acquire;
    case std::memory_order_release:
      return rl::mo_release;
    case std::memory_order_acq_rel:
      return rl::mo_acq_rel;
    case std::memory_order_seq_cst:
      break;
  }
  return rl::mo_seq_cst;
}

// Relacy prints what it keeps, so enumerations are kept as numbers.
template <class T, bool = std::is_enum_v<T>>
struct RelacyWord {
  using type = T;
};
template <class T>
struct RelacyWord<T, true> {
  using type = std::underlying_type_t<T>;
};

template <class T>
class RelacyAtomic {
  using Word = typename RelacyWord<T>::type;

 public:
  RelacyAtomic() : RelacyAtomic(T()) {}
  RelacyAtomic(T value) : atomic_(static_cast<Word>(value)) {}
  RelacyAtomic(const RelacyAtomic&) = delete;
  RelacyAtomic& operator=(const RelacyAtomic&) = delete;

  T load(std::memory_order order) const {
    return static_cast<T>(atomic_.load(relacy_order(order), RL_INFO));
  }
  void store(T value, std::memory_order order) {
    atomic_.store(static_cast<Word>(value), relacy_order(order), RL_INFO);
  }
  T exchange(T value, std::memory_order order) {
    return static_cast<T>(atomic_.exchange(static_cast<Word>(value), relacy_order(order), RL_INFO));
  }
  T fetch_add(T by, std::memory_order order) {
    return atomic_.fetch_add(by, relacy_order(order), RL_INFO);
  }
  T fetch_sub(T by, std::memory_order order) {
    return atomic_.fetch_sub(by, relacy_order(order), RL_INFO);
  }
  T fetch_or(T by, std::memory_order order) {
    return atomic_.fetch_or(by, relacy_order(order), RL_INFO);
  }
  T fetch_and(T by, std::memory_order order) {
    return atomic_.fetch_and(by, relacy_order(order), RL_INFO);
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                               std::memory_order failure) {
    return exchanged(expected, [&](Word& word) {
      return atomic_.compare_exchange_strong(word, static_cast<Word>(desired),
                                             relacy_order(success), RL_INFO, relacy_order(failure),
                                             RL_INFO);
    });
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                             std::memory_order failure) {
    return exchanged(expected, [&](Word& word) {
      return atomic_.compare_exchange_weak(word, static_cast<Word>(desired), relacy_order(success),
                                           RL_INFO, relacy_order(failure), RL_INFO);
    });
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order order) {
    return exchanged(expected, [&](Word& word) {
      return atomic_.compare_exchange_strong(word, static_cast<Word>(desired), relacy_order(order),
                                             RL_INFO);
    });
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order order) {
    return exchanged(expected, [&](Word& word) {
      return atomic_.compare_exchange_weak(word, static_cast<Word>(desired), relacy_order(order),
                                           RL_INFO);
    });
  }

  rl::atomic<Word>& relacy() { return atomic_; }

 private:
  template <class Exchange>
  static bool exchanged(T& expected, Exchange exchange) {
    Word word = static_cast<Word>(expected);
    const bool done = exchange(word);
    expected = static_cast<T>(word);
    return done;
  }

  rl::atomic<Word> atomic_;
};

// A plain variable whose unordered accesses Relacy reports.
template <class T>
class RelacyData {
 public:
  explicit RelacyData(T value = T()) : data_(value) {}
  T read() const { return data_(RL_INFO).load(); }
  void write(T value) { data_(RL_INFO).store(value); }

 private:
  rl::var<T> data_;
};

// A check inside a thread or in after().
inline void relacy_check(bool holds) {
  if (!holds) rl::ctx().fail_test("a check failed", rl::test_result_user_assert_failed, RL_INFO);
}

template <Mutant kMutant = Mutant::none>
struct RelacyEnv {
  template <class T>
  using Atomic = RelacyAtomic<T>;

  static constexpr bool kModel = true;
  static constexpr bool mutant(Mutant asked) noexcept {
    return kMutant != Mutant::none && asked == kMutant;
  }

  static bool prepare() noexcept { return false; }
  static bool asymmetric() noexcept { return false; }
  static void compiler_barrier() noexcept {}
  static void fence_seq_cst() noexcept { rl::atomic_thread_fence(rl::mo_seq_cst, RL_INFO); }
  static void light_fence() noexcept { fence_seq_cst(); }
  static void heavy_fence() noexcept { fence_seq_cst(); }
  static bool may_barrier(std::uint64_t) noexcept { return true; }
  // Relacy replaces the global operators and watches over what they hand out.
  static void* allocate(std::size_t bytes) noexcept { return ::operator new(bytes); }
  static void deallocate(void* memory) noexcept { ::operator delete(memory); }
  static void deallocate(void* memory, std::size_t) noexcept { deallocate(memory); }
  static void pause() noexcept {}
  static void yield_thread() noexcept { rl::yield(1, RL_INFO); }
  static std::uint64_t now_ns() noexcept { return 1; }

  static bool futex_wait(Atomic<std::uint64_t>& word, std::uint32_t expected,
                         std::optional<std::uint64_t> deadline_ns) noexcept {
    rl::context& context = rl::ctx();
    context.sched();
    context.atomic_thread_fence_seq_cst();
    std::uint64_t value = 0;
    {
      rl::preemption_disabler alone(context);
      value = word.load(std::memory_order_acquire);
    }
    if (static_cast<std::uint32_t>(value >> 32) != expected) return true;
    return word.relacy().wait(context, deadline_ns.has_value(), false, RL_INFO) !=
           rl::unpark_reason_timeout;
  }
  static void futex_wake(Atomic<std::uint64_t>& word, int count) noexcept {
    rl::context& context = rl::ctx();
    context.sched();
    context.atomic_thread_fence_seq_cst();
    word.relacy().wake(context, count, RL_INFO);
  }
  // What sleeps in a model of Relacy's goes round in a loop instead.
  static void futex_wait(Atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
    if (word.load(std::memory_order_relaxed) == expected) yield_thread();
  }
  static void futex_wake(Atomic<std::uint32_t>&) noexcept {}
};

template <class Test, int kThreads>
using RelacyTest = rl::test_suite<Test, kThreads>;

struct RelacyOptions {
  unsigned bound = 3;  // of context switches; 0: random schedules
  unsigned executions = 10'000'000;
};

struct RelacyReport {
  bool passed = false;
  unsigned long long executions = 0;
  std::string text;
};

// Keeps the beginning of what is written, in memory of its own: Relacy replaces the operators new
// and delete while it runs, so that a string that grows then would be freed by the wrong one.
class RelacyText : public std::streambuf {
 public:
  RelacyText() { setp(text_.data(), text_.data() + text_.size()); }
  std::string str() const { return {pbase(), pptr()}; }

 protected:
  int_type overflow(int_type c) override { return traits_type::not_eof(c); }

 private:
  std::array<char, 32 * 1024> text_;
};

// Exhaustive within the bound.
template <class Test>
RelacyReport explore_relacy(RelacyOptions options = {}) {
  RelacyText text;
  std::ostream stream(&text);
  rl::test_params params;
  params.search_type = options.bound == 0 ? rl::sched_random : rl::sched_bound;
  params.context_bound = options.bound;
  params.iteration_count = options.executions;
  params.execution_depth_limit = 2'000;
  params.output_stream = &stream;
  params.progress_stream = &stream;
  RelacyReport report;
  report.passed = rl::simulate<Test>(params);
  report.executions = params.stop_iteration;
  report.text = text.str();
  return report;
}

}  // namespace magpie::model
