// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Plain functions that workers take from one another: what fork_join is made of.
//
// A job lies in the stack frame of the function that offers it, its owner. Each worker has a deque
// for jobs, beside the one for coroutines: the owner pushes its job there, does its own half, and
// takes the job back, unless a thief was faster. Then it waits, and meanwhile runs other workers'
// jobs, never a coroutine. executor/FORK_JOIN.md has the steps (F1 to F11 in the comments) and why
// nothing is lost, deadlocked or used after its end.
//
// Jobs are nested: what is offered last is taken back first, on the thread that offered it. Not a
// queue for anything else.

#include <atomic>
#include <cstdint>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/local_queue.h>

namespace magpie::detail {

struct LocalsFrame;

/// How far a job is: one word, apart from everything else so that the model checkers can run it. It
/// is the job's function while nobody has stolen it, whoever runs it while a thief does, and 0 when
/// it is done.
template <class Env>
class BasicJobState {
 public:
  explicit BasicJobState(std::uintptr_t function) noexcept : word_(function) {}

  /// F5, by the thief. Relaxed: it has the job from the deque, which orders what the owner wrote;
  /// the owner reads a hint.
  std::uintptr_t begin(std::uintptr_t thief) noexcept {
    const std::uintptr_t function = word_.load(std::memory_order_relaxed);
    word_.store(thief, std::memory_order_relaxed);
    return function;
  }
  /// F6, by the thief: the last touch of the job. Release: pairs with done().
  void finish() noexcept {
    word_.store(0, Env::mutant(Mutant::job_relaxed_end) ? std::memory_order_relaxed
                                                        : std::memory_order_release);
  }
  /// By the owner. Acquire: pairs with finish().
  bool done() const noexcept { return word_.load(std::memory_order_acquire) == 0; }
  /// By the owner, while the job is not done: the thief, or still the function. A hint.
  std::uintptr_t thief() const noexcept { return word_.load(std::memory_order_relaxed); }

 private:
  typename Env::template Atomic<std::uintptr_t> word_;
};

struct Job {
  using Function = void (*)(Job*) noexcept;

  Job(Function function, LocalsFrame* the_locals) noexcept
      : state(reinterpret_cast<std::uintptr_t>(function)), locals(the_locals) {}

  BasicJobState<StdEnv> state;
  LocalsFrame* locals;  // the owner's, for what a thief's call spawns
};
static_assert(alignof(Job) > kTagMask);

/// Somebody may want to hear of a job that was just offered: wakes at most one worker.
MAGPIE_EXPORT MAGPIE_COLD void announce_job(LocalQueue* queue) noexcept;
/// offer_job() where the deque has to grow.
MAGPIE_EXPORT MAGPIE_COLD bool offer_job_slowly(LocalQueue* queue, Job* job) noexcept;
/// take_back() where a thief has been near. False: a thief has run the job, and it is done.
MAGPIE_EXPORT MAGPIE_NOINLINE bool take_back_or_wait(LocalQueue* queue, Job* job) noexcept;

/// F1, F2. False: there is no memory, and nobody has the job.
MAGPIE_ALWAYS_INLINE bool offer_job(LocalQueue* queue, Job* job) noexcept {
  return queue->jobs.owner().with_room_for(
      1,
      [&](auto batch) __attribute__((always_inline)) {
        batch.add(reinterpret_cast<std::uintptr_t>(job));
        batch.commit();
        StdEnv::compiler_barrier();  // D3; where that is not enough, attention is never zero
        if ((queue->attention->load(std::memory_order_relaxed) & attention::kForJobs) != 0)
            [[unlikely]]
          announce_job(queue);
        return true;
      },
      [&] { return offer_job_slowly(queue, job); });
}

/// F3. True: the newest job is the caller's again, and it is the one that it offered last. False: a
/// thief has run it.
MAGPIE_ALWAYS_INLINE bool take_back(LocalQueue* queue, Job* job) noexcept {
  return queue->jobs.owner().pop_biased() || take_back_or_wait(queue, job);
}

}  // namespace magpie::detail
