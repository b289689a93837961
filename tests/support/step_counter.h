// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Counts the instructions that the calling thread executes, and the locked ones among them: x86-64
// with the trap flag set raises SIGTRAP after each instruction, and the handler looks at the next
// one. No clock takes part, so the count is the same on a busy machine. A microsecond or two per
// instruction: for a few hundred thousand of them.
//
//     StepCounter counter;      // installs the handler
//     counter.start();
//     work();                   // on this thread; other threads are not counted
//     const Steps steps = counter.stop();
//
// One at a time in a process. Where there is no such flag, available() is false.

#include <cstddef>

#if defined(__x86_64__) && defined(__linux__)
#define MAGPIE_TEST_COUNTS_STEPS 1
#include <signal.h>
#include <ucontext.h>
#endif

#include <magpie/config.h>

namespace magpie::test {

struct Steps {
  std::size_t instructions = 0;
  std::size_t locked = 0;
};

/// Whether this instruction locks the bus or drains the store buffer: a lock prefix, an exchange
/// with memory (which locks without saying so), mfence.
inline bool is_locked(const unsigned char* code) noexcept {
  for (;; ++code) {
    const unsigned char byte = *code;
    if (byte == 0xf0) return true;
    const bool prefix = byte == 0x66 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e ||
                        byte == 0x36 || byte == 0x3e || byte == 0x26 || byte == 0x64 ||
                        byte == 0x65 || (byte & 0xf0) == 0x40;
    if (!prefix) break;
  }
  if (code[0] == 0x86 || code[0] == 0x87) return (code[1] & 0xc0) != 0xc0;
  return code[0] == 0x0f && code[1] == 0xae && code[2] == 0xf0;
}

#if defined(MAGPIE_TEST_COUNTS_STEPS)

class StepCounter {
 public:
  static constexpr bool available() noexcept { return true; }

  StepCounter() {
    struct sigaction action{};
    action.sa_sigaction = &StepCounter::trapped;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTRAP, &action, &previous_);
  }
  StepCounter(const StepCounter&) = delete;
  StepCounter& operator=(const StepCounter&) = delete;
  ~StepCounter() { sigaction(SIGTRAP, &previous_, nullptr); }

  void start() {
    // A trap that is blocked kills.
    sigset_t trap;
    sigemptyset(&trap);
    sigaddset(&trap, SIGTRAP);
    pthread_sigmask(SIG_UNBLOCK, &trap, nullptr);
    instructions_ = 0;
    locked_ = 0;
    counting_ = true;
    resume();
  }
  Steps stop() {
    suspend();
    counting_ = false;
    return {instructions_, locked_};
  }

  /// Between the two nothing is counted, on a thread that counts; on others they do nothing.
  MAGPIE_NOINLINE static void suspend() {
    if (!counting_) return;
    // Past the red zone, where the compiler may have put something.
    asm volatile(
        "leaq -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\tleaq 128(%%rsp), "
        "%%rsp" ::
            : "memory", "cc");
  }
  MAGPIE_NOINLINE static void resume() {
    if (!counting_) return;
    asm volatile(
        "leaq -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tleaq 128(%%rsp), "
        "%%rsp" ::
            : "memory", "cc");
  }

 private:
  static void trapped(int, siginfo_t*, void* context) {
    const auto next = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
    instructions_ = instructions_ + 1;
    if (is_locked(reinterpret_cast<const unsigned char*>(next))) locked_ = locked_ + 1;
  }

  // Written by the handler, on the thread that reads them.
  static inline volatile std::size_t instructions_ = 0;
  static inline volatile std::size_t locked_ = 0;
  static inline thread_local bool counting_ = false;
  struct sigaction previous_{};
};

#else

class StepCounter {
 public:
  static constexpr bool available() noexcept { return false; }
  void start() {}
  Steps stop() { return {}; }
};

#endif

}  // namespace magpie::test
