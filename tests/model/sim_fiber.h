// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstddef>
#include <cstdint>
#include <memory>

#ifdef MAGPIE_ASAN
#include <sanitizer/asan_interface.h>
// What instrumented functions ask when they are entered.
extern "C" int __asan_option_detect_stack_use_after_return;
#endif
#ifdef MAGPIE_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace magpie::model {

// While it lives, AddressSanitizer keeps locals on the stacks where they belong. Its second stack
// for each fiber, mapped and unmapped a hundred thousand times a second, is more than the search
// for uses of dead locals is worth here.
class PlainStacks {
 public:
#ifdef MAGPIE_ASAN
  PlainStacks() : before_(__asan_option_detect_stack_use_after_return) {
    __asan_option_detect_stack_use_after_return = 0;
  }
  ~PlainStacks() { __asan_option_detect_stack_use_after_return = before_; }
  PlainStacks(const PlainStacks&) = delete;
  PlainStacks& operator=(const PlainStacks&) = delete;

 private:
  int before_;
#endif
};

// A stack with a function on it, for the simulated threads of sim.h: all of them take turns on one
// real thread. The sanitizers are told of each change of stacks.
//
// A fiber may be abandoned in the middle and started anew: what lay on its stack is forgotten, no
// destructor runs.
//
// On x86-64 a change of stacks is a few instructions of our own. swapcontext() also changes the
// mask of signals, which takes two calls to the kernel and half of a model's time.
class Fiber {
 public:
  using Entry = void (*)();

  Fiber() = default;  // the real thread's own stack
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
#ifdef MAGPIE_TSAN
    if (stack_ != nullptr && tsan_ != nullptr) __tsan_destroy_fiber(tsan_);
#endif
  }

  void restart(Entry entry) {
    if (stack_ == nullptr) stack_ = std::make_unique_for_overwrite<std::byte[]>(kStackSize);
#ifdef MAGPIE_TSAN
    if (tsan_ != nullptr) __tsan_destroy_fiber(tsan_);
    tsan_ = __tsan_create_fiber(0);
#endif
#ifdef MAGPIE_ASAN
    // The red zones of the frames that were abandoned are no longer red.
    if (!ended_) __asan_unpoison_memory_region(stack_.get(), kStackSize);
    ended_ = false;
#endif
    prepare(entry);
    asan_fake_stack_ = nullptr;
  }

  // From `from`, which runs now, to `to`. Returns when somebody switches back.
  static void switch_over(Fiber& from, Fiber& to) { switch_over(from, to, false); }

  // The same from a fiber whose function is at its end.
  static void leave_for_good(Fiber& from, Fiber& to) {
    from.ended_ = true;
    switch_over(from, to, true);
  }

  // The first thing that an entry function does.
  void arrived() {
#ifdef MAGPIE_ASAN
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(asan_fake_stack_, &bottom, &size);
    if (previous != nullptr && previous->stack_ == nullptr) {
      previous->real_bottom_ = bottom;
      previous->real_size_ = size;
    }
#endif
  }

 private:
  static void switch_over(Fiber& from, Fiber& to, [[maybe_unused]] bool last) {
#ifdef MAGPIE_TSAN
    if (from.tsan_ == nullptr) from.tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.tsan_, 0);
#endif
#ifdef MAGPIE_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &from.asan_fake_stack_, to.bottom(), to.size());
#endif
    previous = &from;
    change(from, to);
    from.arrived();
  }

#if defined(__x86_64__)
  // The new stack holds what change() takes from it: six registers and where to go on; above that,
  // where a return address would lie, nothing: it is aligned as for a call.
  void prepare(Entry entry) {
    auto* const top = reinterpret_cast<void**>(
        reinterpret_cast<std::uintptr_t>(stack_.get() + kStackSize) & ~std::uintptr_t{15});
    for (int i = 1; i <= 8; ++i) top[-i] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    stack_pointer_ = top - 8;
  }
  static void change(Fiber& from, Fiber& to) {
    change_stacks(&from.stack_pointer_, to.stack_pointer_);
  }
  // The registers that a function must preserve; the caller has saved the others.
  [[gnu::naked, gnu::noinline]] static void change_stacks(void**, void*) {
    asm(R"(
      pushq %rbp
      pushq %rbx
      pushq %r12
      pushq %r13
      pushq %r14
      pushq %r15
      movq %rsp, (%rdi)
      movq %rsi, %rsp
      popq %r15
      popq %r14
      popq %r13
      popq %r12
      popq %rbx
      popq %rbp
      ret
    )");
  }

  void* stack_pointer_ = nullptr;
#else
  void prepare(Entry entry) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStackSize;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  static void change(Fiber& from, Fiber& to) { swapcontext(&from.context_, &to.context_); }

  ucontext_t context_{};
#endif

  static constexpr std::size_t kStackSize = 256 * 1024;

  const void* bottom() const { return stack_ != nullptr ? stack_.get() : real_bottom_; }
  std::size_t size() const { return stack_ != nullptr ? kStackSize : real_size_; }

  static inline Fiber* previous = nullptr;

  std::unique_ptr<std::byte[]> stack_;
  void* asan_fake_stack_ = nullptr;
  bool ended_ = true;  // it has left for good, or was never started
  const void* real_bottom_ = nullptr;
  std::size_t real_size_ = 0;
  [[maybe_unused]] void* tsan_ = nullptr;
};

}  // namespace magpie::model
