// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>

// The ground under every lock-free structure: atomics, fences, pauses, parking, memory and the
// clock that limits rates, gathered in one environment, so that a model checker can take its place.
//
// It is the only file with fences and pause instructions. It is not a portability layer: Linux.
//
//     template <class Env = StdEnv>
//     class Flag {
//       typename Env::template Atomic<bool> set_{false};
//     };
//
// Threads: every function may be called from any thread at any time, but for prepare() and the test
// hook, which say when. Cancellation: none of it is aware of it. Errors: see heavy_fence().

namespace magpie::detail {

// What two threads write is kept this far apart. 64 is the line of x86-64 and of most ARM cores;
// std::hardware_destructive_interference_size varies with the compiler's flags, so it may not
// decide the layout of a type that several translation units share.
inline constexpr std::size_t kCacheLine = 64;

// Steps that tests leave out on purpose, to see that the models notice. Only an environment of the
// model checks answers true; with StdEnv each question folds away.
enum class Mutant : std::uint8_t {
  none,
  deque_no_revoking_state,  // a thief goes from biased straight to fenced, then makes its barrier
  deque_no_epoch,           // mode changes leave the epoch as it was
  deque_steal_two,          // a thief takes two items with one compare-and-swap
  deque_no_fence_in_pop,    // a fenced pop without its fence
  deque_no_fence_in_steal,  // a fenced steal without its fence
  deque_no_barrier,         // a thief revokes the bias without the heavy fence
  deque_relaxed_push,       // bottom is published with a relaxed store
  deque_last_pop_without_cas,  // a fenced pop takes the last item by a plain store
  rings_no_mark,               // a thief reads a ring without a mark
  rings_late_mark,             // ... or with one that it sets when it has the ring
  rings_early_unmark,          // ... or takes away before it has read the slot
  rings_relaxed_mark,          // marks are set and taken away with relaxed stores
  rings_no_fence,              // an owner looks at the marks without a fence
  rings_plain_fence,           // ... or behind an ordinary one
  event_count_counts_all,      // notify_all() wakes as many in the kernel as were counted in
  event_count_no_epoch,        // a notification does not move the epoch
  event_count_loose_census,    // waiters are counted by a relaxed load
  spin_lock_relaxed_unlock,    // the lock is released with a relaxed store
  spin_lock_plain_lock,        // the lock is taken by a load and a store
  timer_word_no_wait,          // disarm() does not wait for a callback that is running
  timer_word_relaxed_end,      // end_fire() publishes with a relaxed store
  timer_word_plain_end,        // ... or ends by a load and a store
  timer_relaxed_earliest,      // a new deadline is shown with a relaxed store
  timer_relaxed_plan,          // so is the monitor's plan
  timer_single_look,           // the monitor does not look again after it has planned
  timer_firings_no_wait,       // an owner does not wait for who has claimed his timer
  injection_no_lock,           // who takes does so without the lock
  injection_relaxed_push,      // a node is made the last one with relaxed orders
  injection_release_push,      // ... or without an acquire
  injection_relaxed_link,      // it is linked to the one before by a relaxed store
  injection_relaxed_walk,      // ... and that is read by a relaxed load
  injection_one_end,           // one end mark is put behind itself
  injection_takes_mark,        // a mark that somebody has left as the first is taken for a node
  injection_first_first,       // who asks whether all is taken looks at the last one last
  injection_any_end,           // a node that is the first and the last is taken for an end mark
  depot_no_lock,               // a chain is taken without the lock
  depot_single_look,           // who puts a chain does not look at the bound when it has counted it
  depot_kept_count,            // a chain that is refused stays counted
  waiter_plain_decide,         // a waiter's state is decided by a load and a store
  scope_early_check,       // park() asks whether the scope is cancelled before it takes the lock
  scope_no_link,           // a scope that links itself stays out of its parent's list
  scope_relaxed_link,      // that a scope is linked is read with a relaxed load
  scope_late_count,        // a cancellation counts itself in after its traversal
  scope_uncounted_task,    // a traversal does not count itself in at the tasks that it enters
  scope_unpinned_exit,     // a scope is left while a traversal is below it
  scope_unawaited_cancel,  // a scope is left while its cancellation is under way
  scope_link_untold,       // a scope that links itself does not ask what has reached its parent
  scope_unmarked,          // a traversal does not say what it has reached
  scope_relaxed_cause,     // ... or says and reads it with relaxed orders
  scope_unawaited_rival,   // who is told that another one cancels the scope goes on before that one
  scope_unawaited_outer,   // ... or who finds that a cancellation from outside has reached it
  scope_unawaited_inner,   // a traversal does not wait for one that is under way further in
  scope_early_end,         // a cancellation says that it is through before it waits for that one
  scope_relaxed_end,       // ... or says so with a relaxed store
  scope_linking_cancel,    // a scope is linked by who cancels it
  scope_open_end,          // the root of a task that ends is not closed
  scope_plain_close,       // ... or by a load and a store without the lock
  scope_unasked_tokens,    // tokens go to the parent, also if that is cancelled already
  scope_annex_asked,       // who is listed in an annex asks what has reached that
  scope_annex_unlisted,    // an annex is not in its scope's list
  scope_relaxed_annexes,   // ... or is found with a relaxed load
  scope_annexes_seen_once,   // whoever has found no annexes does not look again under the lock
  scope_annexes_twice,       // annexes are opened where there are some
  scope_annex_unpinned,      // a scope is left while a traversal is in one of its annexes
  scope_early_annexes,       // no fault: whoever is the first to leave a list opens them, as with
                             // each of the other mutants of annexes
  row_open_end,              // the last of a row is still linked to what was claimed after it
  row_of_the_completed,      // a completed child goes on with what follows it in its scope's list
  deliver_waiters_first,     // a cancellation schedules the waiters, then tells the tokens
  stop_state_no_wait,        // remove() does not wait for a callback that is running
  stop_state_late_end,       // the end is noted in a node that its callback has destroyed
  stop_state_relaxed_end,    // the end of a callback is published with a relaxed store
  stop_state_loose_block,    // who will sleep until it has ended says so without the lock
  join_plain_counter,        // units are handed in by a load and a store
  join_relaxed_counter,      // units are handed in with a relaxed subtraction
  job_relaxed_end,           // the end of a job is published with a relaxed store
  job_no_fence_at_end,       // between the end of a job and the look for its owner
  job_no_heavy_fence,        // whoever waits for a job sleeps after an ordinary fence
  job_no_look,               // ... without a look after it was counted in
  job_no_passing_on,         // ... and does not pass on the notification that woke it
  job_no_heavy_passing_on,   // ... or does so without a heavy fence
  nap_late_bit,              // who naps says so when it has looked for new work
  nap_no_look,               // ... or does not look
  loop_plain_meeting,        // whether the neighbour was there is found by a load and a store
  loop_relaxed_meeting,      // ... with relaxed orders
  loop_late_list,            // a neighbour leaves its list after the meeting
  loop_absorbed_in_list,     // one that is taken back stays in its list
  lifecycle_late_count,      // work from outside is counted after the look at the phase
  lifecycle_started_first,   // what started is summed before what ended
  lifecycle_no_heavy_fence,  // whoever waits for the end looks without a heavy fence
  lifecycle_early_question,  // who waits asks before he is counted in
  lifecycle_light_phase,     // a phase is set without a heavy fence
  lifecycle_no_light_fence,  // a thread with counters of its own looks at the phase without a fence
  registry_no_light_fence,   // whoever takes a task out of the list looks for readers without a
                             // fence
  registry_no_wait,          // ... and does not wait for them
  registry_no_heavy_fence,   // a reader of the list looks at it without a heavy fence
  registry_relaxed_reading,  // ... and says with relaxed orders that he has his references
  outcome_done_after_lock,   // an outcome is done when its waiters were claimed, after the lock
  outcome_movers_at_once,    // movers go on while callbacks look at the value
  outcome_late_mover,        // a mover that comes while others still look does not wait
  outcome_block_unlocked,    // a thread that will sleep says so without the lock
  outcome_weak_error,        // an error is published with a release store
  outcome_relaxed_done,      // ... a value with a relaxed one
  outcome_early_release,     // a handle's reference is dropped before its last look
  outcome_relaxed_release,   // references are dropped with relaxed orders
  outcome_relaxed_alone,     // whether a handle is alone is asked with relaxed loads
  outcome_handle_before_reference,  // the first handle counts itself, then takes its reference
  outcome_handles_first,  // whether a handle is alone is asked of the handles, then of the rest
  outcome_alone_among_handles,  // ... of the handles only
  outcome_plain_beside,         // the end of a task beside its waiter does not look for others
  outcome_relaxed_beside,       // ... or with a relaxed load
  outcome_weak_taking,          // readers and movers of a value without sequential consistency
  outcome_relaxed_reader,       // the end of a reading is noted with a relaxed subtraction
  outcome_plain_take,           // a value is taken by a load and a store
  outcome_take_at_once,         // ... while others read it
  arbiter_plain_win,            // a race is decided by a load and a store
  arbiter_relaxed_win,          // a race is decided with relaxed orders
  arbiter_win_while_held,       // a verdict is won while somebody holds it
  pact_no_lock,                 // several verdicts are held without the lock for that
  pact_win_first,  // of two that complete together, one wins its race before the other's state is
                   // decided
  permit_barging,  // an attempt overtakes those who wait
  permit_plain_take,          // permits are taken by a load and a store
  permit_relaxed_take,        // ... or with a relaxed order
  permit_relaxed_return,      // ... given back with one
  permit_relaxed_close,       // ... the core closed with one
  permit_back_to_the_closed,  // permits come back to a closed core past its lock
  permit_late_close,          // who will wait closes the core when he has looked at it
  permit_early_return,        // permits are given back before the lock is released
  permit_stays_closed,        // who leaves the queue empty leaves the core closed
  permit_for_the_cancelled,   // a waiter that was cancelled, or lost its race, is counted as served
  permit_serves_one,          // of those that can be served, the first is
  permit_leave_unlocked,      // who was cancelled leaves the queue without the lock
  permit_leave_unserved,      // ... and those behind him stay where they are
  semaphore_plain_add,        // how many there are is counted by a load and a store
  semaphore_adds_to_the_free,    // how many may come is asked of the free ones only
  rate_barging,                  // an attempt overtakes those who wait
  rate_token_for_the_cancelled,  // a waiter that was cancelled, or lost its race, is counted as
                                 // served
  rate_leave_unlocked,           // who was cancelled leaves the queue without the lock
  rate_leave_unserved,           // ... and the next head has no timer
  rate_armed_for_ever,           // a timer that came too early is not armed again
  rate_fired_too_early,          // a timer is through with its operation before it looks
  batch_full_stays_open,         // a full call takes more members
  batch_leaves_started,          // who was cancelled leaves a call that has started
  batch_empty_stays_open,        // a call that nobody is left in takes new members
  batch_started_stays_open,      // ... or one that has started
  batch_dropped_unsaid,          // that a call's task is gone is not said to who has made it
  event_wakes_one,               // of those who wait, set() wakes the first
  event_early_look,              // who waits looks at the flag before he takes the lock
  event_leave_unlocked,          // who was cancelled leaves the queue without the lock
  latch_wakes_one,               // of those who wait, the last arrival wakes the first
  latch_parks_late,              // between the look at the count and the queue the lock is free
  latch_leave_unlocked,          // who was cancelled leaves the queue without the lock
  barrier_no_pact,               // several verdicts are held without the lock for that
  barrier_keeps_verdicts,        // ... and kept, although there are not enough parties
  barrier_forgets_passed,        // who was cancelled does not hear that a phase was completed
  barrier_leave_unlocked,        // ... and leaves the queue without the lock
  condition_early_release,       // who waits gives the mutex back before he is in the queue
  condition_no_mask,             // who waits for the mutex does so in the scope of his first stage
  condition_stays_in_its_scope,  // who is notified stays in the list of that scope
  condition_stays_in_its_race,   // ... and asks its race once more when he gets the mutex
  condition_spends_on_the_cancelled,  // a notification that meets a cancelled waiter is spent
  condition_leave_unlocked,           // who was cancelled leaves the queue without the lock
  condition_forgets_its_executor,     // who waits for the mutex after he has run does not say where
  channel_leave_unlocked,             // who was cancelled leaves the queue without the lock
  channel_no_refill,                  // a free place is not filled with a waiting sender's item
  channel_forgotten_item,           // what was handed over in the moment of a cancellation is lost
  channel_close_wakes_cancelled,    // the end wakes a sender that a cancellation has claimed
  channel_close_forgets_receivers,  // the end leaves those who wait for an item
};

// What StdEnv asks of the kernel. Not inline: system headers stay out of this one.
struct [[gnu::visibility("default")]] Kernel {
  static bool register_membarrier() noexcept;
  static void membarrier() noexcept;
  static std::uint64_t membarriers() noexcept;
  static bool may_barrier(std::uint64_t now_ns) noexcept;
  static bool futex_wait(const void* word, std::uint32_t expected,
                         std::optional<std::uint64_t> deadline_ns) noexcept;
  static void futex_wake(const void* word, int count) noexcept;
  static void yield() noexcept;
  static void doze() noexcept;
  static std::uint64_t now_ns() noexcept;

  static inline std::atomic<bool> membarrier_in_use{false};
  // The word that fences write under ThreadSanitizer, which does not understand fences.
  static inline std::atomic<std::uint32_t> fence_word{0};
};

struct StdEnv {
  template <class T>
  using Atomic = std::atomic<T>;

  // Smaller limits wherever a structure counts something, so that a model reaches them.
  static constexpr bool kModel = false;
  static constexpr bool mutant(Mutant) noexcept { return false; }

  // Settles once and for all how asymmetric fences are made. Call it before the process has a
  // second thread that uses these structures: the kernel registers a single-threaded process at
  // once, and needs some 20 ms for another. Deques that were made before stay fenced.
  // MAGPIE_NO_MEMBARRIER=1 in the environment refuses membarrier (a diagnostic).
  static bool prepare() noexcept { return Kernel::register_membarrier(); }

  // Whether light_fence() is a compiler barrier, because heavy_fence() pays for both sides.
  static bool asymmetric() noexcept {
#ifdef MAGPIE_TSAN
    return false;
#else
    // Relaxed: prepare() comes before the threads that ask, and those are started after it.
    return Kernel::membarrier_in_use.load(std::memory_order_relaxed);
#endif
  }

  static void compiler_barrier() noexcept { asm volatile("" ::: "memory"); }

  static void fence_seq_cst() noexcept {
#ifdef MAGPIE_TSAN
    // All fences meet on one word: the order that fences have among themselves.
    Kernel::fence_word.fetch_add(1, std::memory_order_seq_cst);
#elif defined(__clang__) && defined(__x86_64__)
    // Clang would emit mfence, which takes about 10 ns longer than a locked instruction.
    asm volatile("lock; orq $0, (%%rsp)" ::: "memory", "cc");
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
  }

  // The two halves of one fence. A thread that made a store, a light fence and a load, and another
  // that made a store, a heavy fence and a load: at least one of them sees the other's store.
  static void light_fence() noexcept {
    if (asymmetric()) [[likely]] {
      compiler_barrier();
    } else {
      fence_seq_cst();
    }
  }

  // About 1.3 us with membarrier, and an interrupt for every core that runs this process. If the
  // kernel takes back what it granted at registration (a sandbox entered later), no sound fallback
  // exists, since other threads rely on it: the process ends with a message that names the remedy.
  static void heavy_fence() noexcept {
    if (asymmetric()) {
      Kernel::membarrier();
    } else {
      fence_seq_cst();
    }
  }

  // How many barriers went to the kernel so far.
  static std::uint64_t heavy_fences() noexcept { return Kernel::membarriers(); }

  // A budget that all deques share: whether one of them may do what costs a heavy fence, now or
  // when it is revoked, and can be left undone.
  static bool may_barrier(std::uint64_t now_ns) noexcept { return Kernel::may_barrier(now_ns); }

  // Null if memory is short.
  static void* allocate(std::size_t bytes) noexcept { return ::operator new(bytes, std::nothrow); }
  static void deallocate(void* memory) noexcept { ::operator delete(memory); }
  static void deallocate(void* memory, std::size_t bytes) noexcept {
    ::operator delete(memory, bytes);
  }

  static void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#else
    compiler_barrier();
#endif
  }

  static void yield_thread() noexcept { Kernel::yield(); }

  // Steady, for rate limits and deadlines of parked threads.
  static std::uint64_t now_ns() noexcept { return Kernel::now_ns(); }

  // Sleeps while the high half of `word` is `expected`. True: woken, or the half had changed;
  // false: the deadline (of the steady clock) passed first. Signals do not end the sleep.
  static bool futex_wait(Atomic<std::uint64_t>& word, std::uint32_t expected,
                         std::optional<std::uint64_t> deadline_ns) noexcept {
    return Kernel::futex_wait(high_half(word), expected, deadline_ns);
  }

  // Wakes up to `count` sleepers. `word` may be gone by now: only its address is used.
  static void futex_wake(Atomic<std::uint64_t>& word, int count) noexcept {
    Kernel::futex_wake(high_half(word), count);
  }

  // The same for a word of 32 bits, without a deadline; wakes everybody.
  static void futex_wait(Atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
#ifdef MAGPIE_TSAN
    // ThreadSanitizer keeps signals back from a thread until it makes a call that it knows: in a
    // futex the main thread would never hear of one.
    if (word.load(std::memory_order_relaxed) == expected) Kernel::doze();
#else
    Kernel::futex_wait(&word, expected, std::nullopt);
#endif
  }
  static void futex_wake(Atomic<std::uint32_t>& word) noexcept {
    Kernel::futex_wake(&word, 0x7fffffff);
  }

 private:
  static const void* high_half(const Atomic<std::uint64_t>& word) noexcept {
    static_assert(sizeof(Atomic<std::uint64_t>) == sizeof(std::uint64_t));
    const auto* half = reinterpret_cast<const std::uint32_t*>(&word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return half + 1;
#else
    return half;
#endif
  }
};

// Pins fences to the fallback for tests, or lets them go again. Only while no Deque and no parked
// thread exists: they chose their side of the fence already.
class [[gnu::visibility("default")]] MembarrierForTests {
 public:
  static void refuse() noexcept;
  static void restore() noexcept;
};

}  // namespace magpie::detail
