// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

// The version, and the few things that differ between compilers.
//
// Not a place for options: nothing in here can be configured, and a program that mixes translation
// units with and without NDEBUG or a sanitizer still sees the same layouts.

#define MAGPIE_VERSION_MAJOR 0
#define MAGPIE_VERSION_MINOR 1
#define MAGPIE_VERSION_PATCH 0
#define MAGPIE_VERSION "0.1.0"

// The libraries are compiled with hidden visibility. What other binaries link against, throw or
// catch says so: an exception class whose type information is hidden cannot be caught elsewhere.
#define MAGPIE_EXPORT __attribute__((visibility("default")))

#define MAGPIE_NOINLINE __attribute__((noinline))
#define MAGPIE_ALWAYS_INLINE inline __attribute__((always_inline))
// Out of line and away from the hot code; branches that lead here are taken as unlikely.
#define MAGPIE_COLD __attribute__((noinline, cold))
#define MAGPIE_LIKELY(condition) __builtin_expect(static_cast<bool>(condition), 1)
#define MAGPIE_UNLIKELY(condition) __builtin_expect(static_cast<bool>(condition), 0)

// A rare call in the middle of hot code: the callee saves every register, so the hot code need not
// keep its own where a call leaves them alone, which means to push and pop them each time it runs.
// Only for inline functions that do not throw: unwinding restores no more than an ordinary call.
// Elsewhere such a function is part of its caller: g++ may not emit one of the same name, which
// would be called in the other way when both compilers' objects are linked. And clang before 16
// loses the result of one (llvm 48789).
#if defined(__clang__) && (defined(__x86_64__) || defined(__aarch64__))
#if __clang_major__ >= 19
#define MAGPIE_HAS_SPARING 1
#endif
#endif
#ifdef MAGPIE_HAS_SPARING
#define MAGPIE_SPARING inline __attribute__((preserve_most, noinline, cold, visibility("hidden")))
#else
#define MAGPIE_SPARING inline __attribute__((always_inline))
#endif

// With MAGPIE_TASKS_IN_REGISTERS, a choice for a whole program (BUILD.md), and clang++ 19: a class
// that is one pointer and may be moved by copying its bits is passed and returned in a register,
// and a parameter of its type ends with the function that it was given to: no place in a
// coroutine's frame, and no look whether anything is left in it. Elsewhere it is passed by address:
// the tag keeps the two apart by name, so that objects of both kinds do not link; nothing that a
// library exports is passed so.
//
// Not where moves are no part of the code around them (-O0, -Oz, -fno-inline): when the move of a
// later parameter into a coroutine's frame throws, clang 19 then destroys the one that was moved
// there before, and once more what that was moved from, as it was before (task_test has the case).
// Elsewhere they are inlined always.
#if defined(MAGPIE_TASKS_IN_REGISTERS) && defined(MAGPIE_HAS_SPARING)
#if !defined(__OPTIMIZE__) || defined(__OPTIMIZE_SIZE__) || defined(__NO_INLINE__)
#error \
    "magpie was configured with MAGPIE_TASKS_IN_REGISTERS, which needs -O1, -O2 or -O3: clang 19 miscompiles it elsewhere. Optimise this file too, or configure magpie without"
#endif
#define MAGPIE_IN_REGISTER clang::trivial_abi
#define MAGPIE_IN_REGISTER_TAG __attribute__((abi_tag("r")))
#define MAGPIE_HAS_IN_REGISTER 1
#else
#define MAGPIE_IN_REGISTER
#define MAGPIE_IN_REGISTER_TAG
#endif

// Before a loop whose body is a handful of instructions: it begins a cache line. One that lies
// across two takes a quarter more time, and which it does changes with any line of code before it.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::code_align)
#define MAGPIE_ALIGNED_LOOP [[clang::code_align(64)]]
#endif
#endif
#ifndef MAGPIE_ALIGNED_LOOP
#define MAGPIE_ALIGNED_LOOP
#endif

// Defined (as 1) only in builds with the sanitizer, so that #if and #ifdef mean the same.
// MAGPIE_TRACED: compiled with -fsanitize=thread, but what its calls reach is not ThreadSanitizer.
#if defined(__SANITIZE_THREAD__) && !defined(MAGPIE_TRACED)
#define MAGPIE_TSAN 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MAGPIE_ASAN 1
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) && !defined(MAGPIE_TSAN) && !defined(MAGPIE_TRACED)
#define MAGPIE_TSAN 1
#endif
#if __has_feature(address_sanitizer) && !defined(MAGPIE_ASAN)
#define MAGPIE_ASAN 1
#endif
#if __has_feature(memory_sanitizer) || __has_feature(hwaddress_sanitizer)
#define MAGPIE_SHADOWED 1
#endif
#endif
#if defined(MAGPIE_TSAN) || defined(MAGPIE_ASAN)
#define MAGPIE_SHADOWED 1  // each access to memory is looked at by its address
#endif
