// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>
#include <magpie/detail/rings.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "sim_fiber.h"

// A model checker for what the library builds over an environment: simulated threads under a
// scheduler that decides at every operation who goes on, with the store buffers of a TSO machine
// (x86) made explicit, so that membarrier and the compiler barrier that it pairs with can be told
// from full fences.
//
// How to write a model:
//
//     Report report = explore(Options{.preemptions = 2}, [](Sim& sim) {
//       SpinLock<SimEnv<>> lock;                    // the real structure over the model's atomics
//       int inside = 0;
//       for (int i = 0; i < 2; ++i) {
//         sim.spawn([&] {                           // a thread; captures may refer to locals
//           lock.lock();
//           sim.check(++inside == 1, "two threads inside");
//           sim.pass();                             // let others run here, too
//           --inside;
//           lock.unlock();
//         });
//       }
//       sim.run();                                  // until all have ended; then look at the
//       result
//     });
//     EXPECT_TRUE(report.passed()) << report;
//
// - The body runs once per execution and must be deterministic: no clocks, no addresses in
//   decisions. Threads must not own memory: when a check fails their stacks are abandoned.
// - Every load, read-modify-write, fence, futex call and pass() is a point where the scheduler may
//   switch. Plain variables are not watched (Relacy's are); between two points a thread is alone.
// - A store that is not sequentially consistent waits in its thread's buffer. It reaches memory
// when
//   the thread makes a read-modify-write or a fence, when it ends, when a heavy fence reaches the
//   thread, or at any moment in which somebody else could tell the difference.
//   Options::store_buffers = false does without: protocols whose every step holds a lock gain
//   nothing from the buffers, and explode with them.
// - A thread in a loop must call pause-and-yield through the environment (Backoff does): it then
//   waits until memory has changed. Nobody able to go on is a deadlock and fails the execution.
//   A loop that takes a lock each time changes memory itself: after a few rounds of such loops,
//   threads that are in none go first, and then the one that has waited longest.
// - A timed wait may end by its deadline at any point; time stands still otherwise.
// - Orders weaker than TSO's do not show here. For them there is relacy_env.h.
// - What SimEnv::deallocate() gets is not used again in the same execution, so that a thread which
//   still looks at an atomic there is found out.
// - Mutants: SimEnv<Mutant::x> answers true to Env::mutant(Mutant::x). A mutant's test demands that
//   the report says failed.
//
// Strategies: exhaustive tries every schedule with at most `preemptions` switches away from a
// thread that could have gone on (switches at the end of a thread, in a wait or a yield are free,
// and so are the moments at which stores arrive). random and pct run `executions` schedules, each
// from a seed of its own; a failure prints it, and SEED=<it> in the environment runs that schedule
// alone.

namespace magpie::model {

using detail::Mutant;

enum class Strategy : std::uint8_t { exhaustive, random, pct };

// Under the sanitizers an execution takes ten times as long: there, a lower bound.
constexpr unsigned bound(unsigned preemptions) {
#if defined(MAGPIE_ASAN) || defined(MAGPIE_TSAN)
  return preemptions > 2 ? 2 : preemptions;
#else
  return preemptions;
#endif
}

struct Options {
  Strategy strategy = Strategy::exhaustive;
  unsigned preemptions = 2;               // exhaustive
  std::uint64_t executions = 20'000'000;  // an upper bound for exhaustive
  std::uint64_t seed = 1;                 // random, pct
  unsigned pct_depth = 3;                 // pct: one less is the number of priority changes
  unsigned pct_length = 100;              // pct: changes come within so many steps
  unsigned longest = 5'000;               // steps in one execution; more is a livelock
  bool store_buffers = true;
};

struct Report {
  bool failed = false;
  bool exhausted = false;  // exhaustive: every schedule within the bound was run
  std::uint64_t executions = 0;
  std::uint64_t seed = 0;  // of the failing execution
  std::string message;
  std::string trace;

  bool passed() const { return !failed; }

  template <class Stream>
  friend Stream& operator<<(Stream& out, const Report& report) {
    out << report.executions << " executions" << (report.exhausted ? ", exhaustive" : "");
    if (report.failed) {
      out << "\n" << report.message << "\nreplay with SEED=" << report.seed << "\n" << report.trace;
    }
    return out;
  }
};

class Sim;

// A word of simulated memory.
struct Cell {
  std::uint64_t value = 0;
  unsigned id = 0;
  std::uint32_t alive = 0;
};

class Sim {
 public:
  static constexpr std::size_t kMostThreads = 8;

  static Sim& current() { return *running; }

  // Adds a thread; before run().
  void spawn(std::function<void()> body) {
    Thread& thread = threads_[count_++];
    thread.body = std::move(body);
    become(thread, State::ready);
  }

  // Adds so many that do the same, each with its number, on objects that differ in nothing: they
  // begin in that order. With two of them exchanged a schedule is the same once more.
  template <class Body>
  void spawn_alike(std::size_t threads, Body body) {
    for (std::size_t i = 0; i < threads; ++i) {
      if (i != 0) alike_ |= Set{1} << static_cast<unsigned>(count_);
      spawn([body, i] { body(i); });
    }
  }

  // Runs all threads to their ends. Afterwards all stores have arrived.
  void run() {
    for (std::size_t i = 0; i < count_; ++i) threads_[i].fiber.restart(&Sim::enter);
    if (options_.strategy == Strategy::pct) draw_priorities();
    leave_current(false);
    if (failed_) throw Abandoned{};
  }

  void check(bool holds, const char* message) {
    if (!holds) [[unlikely]] {
      fail(message);
    }
  }

  // A literal: strings would be lost with the stack that is left here.
  void fail(const char* message) {
    if (failed_) return;
    failed_ = true;
    message_ = message;
    if (on_main()) throw Abandoned{};
    Fiber& here = threads_[static_cast<std::size_t>(current_)].fiber;
    current_ = kMain;
    Fiber::switch_over(here, main_);  // not to come back
  }

  // Which of the threads that were spawned calls this.
  std::size_t this_thread() const { return static_cast<std::size_t>(current_); }

  // A point where the scheduler may switch.
  void pass() { step(); }

  // An arbitrary decision of the model: 0 to count - 1.
  unsigned decide(unsigned count) {
    if (count <= 1) return 0;
    if (auto replayed = replay(count)) return *replayed;
    const unsigned chosen =
        options_.strategy == Strategy::exhaustive ? 0 : static_cast<unsigned>(random() % count);
    path_.push_back({chosen, count});
    ++at_;
    return chosen;
  }

  std::uint64_t now_ns() const { return now_; }
  void let_time_pass(std::uint64_t ns) { now_ += ns; }

  // ---- what SimEnv and SimAtomic are made of ----

  void create(Cell& cell, std::uint64_t value) {
    cell.value = value;
    cell.id = next_cell_++;
    cell.alive = kAlive;
  }

  void destroy(Cell& cell) {
    if (!failed_) {
      inspect(cell);
      for (Set others = storing_ & ~current_set(); others != 0; others &= others - 1) {
        for (const Pending& store : first_of(others).buffer) {
          if (store.cell == &cell) fail("a store is under way to an atomic that is destroyed");
        }
      }
      if (!on_main()) flush(self());
    }
    cell.alive = 0;
  }

  std::uint64_t load(Cell& cell) {
    step();
    inspect(cell);
    if (on_main()) return cell.value;
    const std::vector<Pending>& own = self().buffer;
    for (auto store = own.rbegin(); store != own.rend(); ++store) {
      if (store->cell == &cell) return note("load", cell, store->value);
    }
    let_stores_arrive(cell);
    return note("load", cell, cell.value);
  }

  void store(Cell& cell, std::uint64_t value, bool buffered) {
    buffered = buffered && options_.store_buffers;
    if (!buffered) step();
    inspect(cell);
    if (on_main()) {
      commit(cell, value);
      return;
    }
    note(buffered ? "store" : "store and flush", cell, value);
    self().buffer.push_back({&cell, value});
    storing_ |= current_set();
    if (!buffered) flush(self());
  }

  // `change` maps the old value to the new one, or to nothing.
  template <class Change>
  std::uint64_t modify(Cell& cell, Change change) {
    step();
    inspect(cell);
    if (!on_main()) {
      flush(self());
      let_stores_arrive(cell);
    }
    const std::uint64_t old = cell.value;
    note("modify from", cell, old);
    if (std::optional<std::uint64_t> next = change(old)) {
      note("modify to", cell, *next);
      commit(cell, *next);
    }
    return old;
  }

  void fence() {
    step();
    if (!on_main()) flush(self());
  }

  // The barrier reaches the threads one after another, and each goes on meanwhile.
  void heavy_fence() {
    fence();
    for (std::size_t i = 0; i < count_; ++i) {
      if (static_cast<int>(i) == current_) continue;
      if (!threads_[i].buffer.empty()) {
        step();
        flush(threads_[i]);
      }
    }
    fence();
  }

  void yield() {
    // After a failure, what is destroyed may wait for a lock that an abandoned thread holds: it
    // goes on.
    if (on_main()) return leave_current(false);
    Thread& thread = self();
    thread.steps_since_yield = 0;
    thread.yielded_at = steps_;
    // By priorities alone a loop that changes memory, as a worker's that looks for work, would go
    // round for ever. So whoever has yielded often comes last, for once.
    if (options_.strategy == Strategy::pct && ++thread.yields % kYieldsOfLoop == 0)
      thread.priority = kLowest - ++demotions_;
    // Stores do not stay under way for ever.
    if (++rounds_of_loops_ > kMostRounds) flush(thread);
    become(thread, State::yielded);
    leave_current(true);
  }

  // While the half of the word that `shift` makes the low one is `expected`. True: woken, or it
  // differed; false: timed out.
  bool sleep(Cell& cell, std::uint32_t expected, std::optional<std::uint64_t> deadline,
             unsigned shift = 32) {
    step();
    inspect(cell);
    flush(self());
    let_stores_arrive(cell);
    if (static_cast<std::uint32_t>(cell.value >> shift) != expected) return true;
    note("sleeps on", cell, cell.value);
    Thread& thread = self();
    thread.sleeps_on = &cell;
    thread.deadline = deadline;
    thread.timed_out = false;
    become(thread, State::asleep);
    leave_current(false);
    return !thread.timed_out;
  }

  void wake(const Cell& cell, int most) {
    step();
    flush(self());
    for (int i = 0; i < most; ++i) {
      std::array<std::size_t, kMostThreads> sleepers;
      unsigned found = 0;
      for (std::size_t t = 0; t < count_; ++t) {
        if (threads_[t].state == State::asleep && threads_[t].sleeps_on == &cell) {
          sleepers[found++] = t;
        }
      }
      if (found == 0) return;
      Thread& woken = threads_[sleepers[decide(found)]];
      become(woken, State::ready);
      note("wakes a sleeper on", cell, static_cast<std::uint64_t>(&woken - threads_.data()));
    }
  }

  // Memory that was freed: it stays as it is until the execution is over.
  void bury(void* memory) { buried_.push_back(memory); }

  bool asymmetric() const { return asymmetric_; }
  void set_asymmetric(bool asymmetric) { asymmetric_ = asymmetric; }

  template <class Body>
  friend Report explore(Options options, Body body);

 private:
  struct Abandoned {};
  struct Pending {
    Cell* cell;
    std::uint64_t value;
  };
  struct Choice {
    unsigned chosen;
    unsigned count;
  };
  enum class State : std::uint8_t { ready, yielded, asleep, ended };
  using Set = unsigned;  // of threads: a bit for each
  struct Thread {
    Fiber fiber;
    std::function<void()> body;
    std::vector<Pending> buffer;  // the oldest first; mostly one or two
    State state = State::ended;
    const Cell* sleeps_on = nullptr;
    std::optional<std::uint64_t> deadline;
    bool timed_out = false;
    // The state of memory at this thread's first look after its last yield: a loop may go round
    // again once memory has changed since then.
    std::uint64_t looked_at = 0;
    bool looked = false;
    unsigned steps_since_yield = 0;
    unsigned yielded_at = 0;
    std::uint64_t priority = 0;
    unsigned yields = 0;
  };

  static constexpr int kMain = -1;
  static constexpr std::uint32_t kAlive = 0x5eed5eed;
  // A thread that has made so many steps since its last yield is in no loop.
  static constexpr unsigned kStepsOfLoop = 6;
  static constexpr unsigned kMostRounds = 1;
  // pct: from above down, the first priorities, those after a change, and those of loops.
  static constexpr std::uint64_t kLowest = 1'000'000;
  static constexpr unsigned kYieldsOfLoop = 8;

  static inline Sim* running = nullptr;

  explicit Sim(const Options& options) : options_(options) {}

  bool on_main() const { return current_ == kMain; }
  Thread& self() { return threads_[static_cast<std::size_t>(current_)]; }

  Set set_of(const Thread& thread) const {
    return Set{1} << static_cast<unsigned>(&thread - threads_.data());
  }
  Set current_set() const { return on_main() ? 0 : Set{1} << static_cast<unsigned>(current_); }
  Thread& first_of(Set threads) {
    return threads_[static_cast<std::size_t>(std::countr_zero(threads))];
  }

  void become(Thread& thread, State state) {
    const Set mine = set_of(thread);
    ready_ &= ~mine;
    yielded_ &= ~mine;
    timed_ &= ~mine;
    if (state == State::ready) ready_ |= mine;
    if (state == State::yielded) yielded_ |= mine;
    if (state == State::asleep && thread.deadline) timed_ |= mine;
    thread.state = state;
  }

  static void enter() {
    Sim& sim = current();
    Thread& thread = sim.self();
    thread.fiber.arrived();
    sim.begun_ |= sim.current_set();
    thread.body();
    // Others may go on before its last stores arrive. If there are none, its end changes nothing.
    if (!thread.buffer.empty()) sim.step();
    sim.flush(thread);
    sim.become(thread, State::ended);
    sim.leave_current(false);
  }

  // ---- memory ----

  void inspect(const Cell& cell) {
    if (cell.alive != kAlive) fail("an atomic is used after its destruction");
  }

  void commit(Cell& cell, std::uint64_t value) {
    if (cell.alive != kAlive) fail("a store arrives at an atomic that was destroyed");
    if (cell.value != value) ++memory_version_;
    cell.value = value;
  }

  void commit_oldest(Thread& thread) {
    const Pending store = thread.buffer.front();
    if (thread.buffer.size() == 1) {
      thread.buffer.clear();
    } else {
      thread.buffer.erase(thread.buffer.begin());
    }
    if (thread.buffer.empty()) storing_ &= ~set_of(thread);
    note("arrives at", *store.cell, store.value);
    commit(*store.cell, store.value);
  }

  void flush(Thread& thread) {
    while (!thread.buffer.empty()) {
      // Whether another thread's store to the same word arrives before this one shows in the end.
      let_stores_arrive(*thread.buffer.front().cell, &thread);
      commit_oldest(thread);
    }
  }

  // Somebody is about to look at `cell` or to write it: which stores of others were there before?
  void let_stores_arrive(const Cell& cell, const Thread* but = nullptr) {
    const Set not_asked = current_set() | (but != nullptr ? set_of(*but) : 0);
    while ((storing_ & ~not_asked) != 0) {
      std::array<Thread*, kMostThreads> others;
      unsigned found = 0;
      for (Set left = storing_ & ~not_asked; left != 0; left &= left - 1) {
        Thread& thread = first_of(left);
        for (const Pending& store : thread.buffer) {
          if (store.cell == &cell) {
            others[found++] = &thread;
            break;
          }
        }
      }
      if (found == 0) return;
      const unsigned chosen = decide(found + 1);
      if (chosen == 0) return;
      Thread& thread = *others[chosen - 1];
      bool arrived = false;
      while (!arrived) {
        arrived = thread.buffer.front().cell == &cell;
        commit_oldest(thread);
      }
    }
  }

  bool flush_everybody() {
    const bool any = storing_ != 0;
    while (storing_ != 0) commit_oldest(first_of(storing_));
    return any;
  }

  // ---- scheduling ----

  void step() {
    if (on_main()) return;
    if (++steps_ > options_.longest) fail("too many steps: a livelock, or too long a model");
    leave_current(true);
    Thread& thread = self();
    if (++thread.steps_since_yield > kStepsOfLoop) rounds_of_loops_ = 0;
    if (!thread.looked) {
      thread.looked = true;
      thread.looked_at = memory_version_;
    }
  }

  bool can_run(const Thread& thread) const {
    return thread.state == State::ready ||
           (thread.state == State::yielded && thread.looked_at != memory_version_);
  }

  Set those_that_can_run(Set threads) {
    Set found = 0;
    for (; threads != 0; threads &= threads - 1) {
      if (can_run(first_of(threads))) found |= threads & -threads;
    }
    return found;
  }

  // Lets the scheduler choose, and returns when the caller is chosen again. `could_go_on`: leaving
  // a ready caller counts as a preemption.
  void leave_current(bool could_go_on) {
    const int here = current_;
    const int next = choose_thread(could_go_on);
    if (next == here) {
      if (here != kMain) resume(self());
      return;
    }
    Fiber& from = here == kMain ? main_ : threads_[static_cast<std::size_t>(here)].fiber;
    current_ = next;
    if (next != kMain) resume(self());
    Fiber& to = next == kMain ? main_ : self().fiber;
    if (here != kMain && threads_[static_cast<std::size_t>(here)].state == State::ended) {
      Fiber::leave_for_good(from, to);
    } else {
      Fiber::switch_over(from, to);
    }
  }

  void resume(Thread& thread) {
    if (thread.state == State::yielded) {
      become(thread, State::ready);
      thread.looked = false;
    }
  }

  int choose_thread(bool could_go_on) {
    const bool keeps = could_go_on && (ready_ & current_set()) != 0;
    if (keeps && options_.strategy == Strategy::exhaustive &&
        preemptions_ >= options_.preemptions) {
      return current_;
    }
    std::array<int, 2 * kMostThreads> options;
    unsigned found = 0;
    const auto add = [&](Set threads) {
      for (; threads != 0; threads &= threads - 1) options[found++] = std::countr_zero(threads);
    };
    const Set too_early = alike_ & ~(begun_ << 1);
    bool loops_wait = rounds_of_loops_ > kMostRounds;
    for (;;) {
      // The present one first: the default is to go on.
      if (keeps) options[found++] = current_;
      add((ready_ & ~current_set() & ~too_early) | (loops_wait ? 0 : those_that_can_run(yielded_)));
      if (found == 0 && loops_wait) {
        loops_wait = false;
        if (const int longest = longest_in_loop(); longest != kMain) options[found++] = longest;
      }
      add(timed_);
      if (found != 0) break;
      if (!flush_everybody()) return nobody_can_run();
    }
    const int chosen = options[pick(options.data(), found, keeps)];
    if (keeps && chosen != current_) ++preemptions_;
    Thread& thread = threads_[static_cast<std::size_t>(chosen)];
    if (thread.state == State::asleep) {
      if (*thread.deadline > now_) now_ = *thread.deadline;
      thread.timed_out = true;
      become(thread, State::ready);
    }
    return chosen;
  }

  int longest_in_loop() const {
    int longest = kMain;
    for (std::size_t i = 0; i < count_; ++i) {
      if (threads_[i].state != State::yielded || !can_run(threads_[i])) continue;
      if (longest == kMain ||
          threads_[i].yielded_at < threads_[static_cast<std::size_t>(longest)].yielded_at) {
        longest = static_cast<int>(i);
      }
    }
    return longest;
  }

  int nobody_can_run() {
    std::string stuck;
    for (std::size_t i = 0; i < count_; ++i) {
      if (threads_[i].state == State::ended) continue;
      stuck += " thread " + std::to_string(i) +
               (threads_[i].state == State::asleep ? " sleeps;" : " waits in a loop;");
    }
    if (!stuck.empty() && !failed_) {
      failed_ = true;
      message_ = "deadlock:" + stuck;
    }
    return kMain;
  }

  unsigned pick(const int* options, unsigned count, bool keeps) {
    if (count == 1) return 0;
    if (auto replayed = replay(count)) return *replayed;
    unsigned chosen = 0;
    switch (options_.strategy) {
      case Strategy::exhaustive:
        break;
      case Strategy::random:
        // Mostly go on, or every execution is the same fine mixture.
        if (!keeps || random() % 4 == 0) chosen = static_cast<unsigned>(random() % count);
        break;
      case Strategy::pct:
        for (unsigned& change : changes_) {
          if (change != steps_ || !keeps) continue;
          self().priority = kLowest + static_cast<std::uint64_t>(&change - changes_.data());
          change = 0;
        }
        for (unsigned i = 1; i < count; ++i) {
          if (priority(options[i]) > priority(options[chosen])) chosen = i;
        }
        break;
    }
    path_.push_back({chosen, count});
    ++at_;
    return chosen;
  }

  std::uint64_t priority(int thread) const {
    return threads_[static_cast<std::size_t>(thread)].priority;
  }

  void draw_priorities() {
    for (std::size_t i = 0; i < count_; ++i) {
      threads_[i].priority = 2 * kLowest + random() % kLowest;
      threads_[i].yields = 0;
    }
    demotions_ = 0;
    changes_.assign(options_.pct_depth > 0 ? options_.pct_depth - 1 : 0, 0);
    for (unsigned& change : changes_) {
      change = 1 + static_cast<unsigned>(random() % options_.pct_length);
    }
  }

  std::optional<unsigned> replay(unsigned count) {
    if (at_ >= path_.size()) return std::nullopt;
    if (path_[at_].count != count) {
      std::abort();  // the body is not deterministic
    }
    return path_[at_++].chosen;
  }

  // splitmix64
  std::uint64_t random() {
    random_state_ += 0x9e3779b97f4a7c15;
    std::uint64_t z = random_state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // ---- executions ----

  template <class Body>
  void execute(Body& body, std::uint64_t seed) {
    running = this;
    at_ = 0;
    random_state_ = seed;
    count_ = 0;
    current_ = kMain;
    failed_ = false;
    asymmetric_ = true;
    steps_ = preemptions_ = rounds_of_loops_ = 0;
    next_cell_ = 0;
    memory_version_ = now_ = 1;
    for (Thread& thread : threads_) {
      thread.buffer.clear();
      thread.looked = false;
      thread.steps_since_yield = kStepsOfLoop;
      thread.state = State::ended;
    }
    ready_ = yielded_ = timed_ = storing_ = begun_ = alike_ = 0;
    try {
      body(*this);
    } catch (const Abandoned&) {
    }
    running = nullptr;
    for (void* const memory : buried_) ::operator delete(memory);
    buried_.clear();
  }

  bool next_path() {
    while (!path_.empty() && path_.back().chosen + 1 == path_.back().count) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().chosen;
    return true;
  }

  std::uint64_t note(const char* what, const Cell& cell, std::uint64_t value) {
    if (tracing_) [[unlikely]]
      write_down(what, cell, value);
    return value;
  }
  [[gnu::noinline, gnu::cold]] void write_down(const char* what, const Cell& cell,
                                               std::uint64_t value) {
    trace_ += "  " + (on_main() ? std::string("main") : "thread " + std::to_string(current_)) +
              ": " + what + " #" + std::to_string(cell.id) + " " + std::to_string(value) + "\n";
  }

  Options options_;
  std::array<Thread, kMostThreads> threads_;
  Fiber main_;
  std::size_t count_ = 0;
  Set ready_ = 0;
  Set yielded_ = 0;
  Set timed_ = 0;    // asleep, with a deadline
  Set storing_ = 0;  // whose buffer holds something
  Set begun_ = 0;
  Set alike_ = 0;  // those that do what the thread before them does
  int current_ = kMain;
  bool failed_ = false;
  bool asymmetric_ = true;
  bool tracing_ = false;
  std::string message_;
  std::string trace_;
  unsigned steps_ = 0;
  unsigned preemptions_ = 0;
  unsigned rounds_of_loops_ = 0;
  unsigned next_cell_ = 0;
  std::uint64_t memory_version_ = 1;
  std::uint64_t now_ = 1;
  std::uint64_t random_state_ = 0;
  std::vector<void*> buried_;
  std::vector<Choice> path_;
  std::size_t at_ = 0;
  std::vector<unsigned> changes_;
  std::uint64_t demotions_ = 0;
};

template <class Body>
Report explore(Options options, Body body) {
  Report report;
  const char* given = std::getenv("SEED");
  const bool exhaustive = options.strategy == Strategy::exhaustive;
  if (given != nullptr && !exhaustive) {
    options.seed = std::strtoull(given, nullptr, 10);
    options.executions = 1;
  }
  [[maybe_unused]] const PlainStacks plain_stacks;
  Sim sim(options);
  for (;;) {
    if (!exhaustive) sim.path_.clear();
    const std::uint64_t seed = options.seed + report.executions;
    sim.execute(body, seed);
    ++report.executions;
    if (sim.failed_) {
      report.failed = true;
      report.seed = seed;
      report.message = sim.message_;
      sim.tracing_ = true;
      sim.execute(body, seed);  // along the recorded path
      report.trace = sim.trace_;
      return report;
    }
    if (exhaustive && !sim.next_path()) {
      report.exhausted = true;
      return report;
    }
    if (report.executions >= options.executions) return report;
  }
}

template <class T>
class SimAtomic {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));

 public:
  SimAtomic() : SimAtomic(T()) {}
  SimAtomic(T value) { sim().create(cell_, to_word(value)); }
  SimAtomic(const SimAtomic&) = delete;
  SimAtomic& operator=(const SimAtomic&) = delete;
  ~SimAtomic() { sim().destroy(cell_); }

  T load(std::memory_order) const { return to_value(sim().load(cell_)); }

  void store(T value, std::memory_order order) {
    sim().store(cell_, to_word(value), order != std::memory_order_seq_cst);
  }

  T exchange(T value, std::memory_order) {
    return modify([&](T) { return value; });
  }
  T fetch_add(T by, std::memory_order) {
    return modify([&](T old) { return static_cast<T>(old + by); });
  }
  T fetch_sub(T by, std::memory_order) {
    return modify([&](T old) { return static_cast<T>(old - by); });
  }
  T fetch_or(T by, std::memory_order) {
    return modify([&](T old) { return static_cast<T>(old | by); });
  }
  T fetch_and(T by, std::memory_order) {
    return modify([&](T old) { return static_cast<T>(old & by); });
  }

  bool compare_exchange_strong(T& expected, T desired, std::memory_order,
                               std::memory_order = std::memory_order_seq_cst) {
    const std::uint64_t wanted = to_word(expected);
    const std::uint64_t old =
        sim().modify(cell_, [&](std::uint64_t now) -> std::optional<std::uint64_t> {
          if (now != wanted) return std::nullopt;
          return to_word(desired);
        });
    expected = to_value(old);
    return old == wanted;
  }
  // On x86 it does not fail without cause.
  bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                             std::memory_order failure = std::memory_order_seq_cst) {
    return compare_exchange_strong(expected, desired, success, failure);
  }

  Cell& cell() { return cell_; }

 private:
  static Sim& sim() { return Sim::current(); }
  static std::uint64_t to_word(T value) {
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    return word;
  }
  static T to_value(std::uint64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof(T));
    return value;
  }
  template <class Change>
  T modify(Change change) {
    return to_value(sim().modify(cell_, [&](std::uint64_t old) -> std::optional<std::uint64_t> {
      return to_word(change(to_value(old)));
    }));
  }

  mutable Cell cell_;
};

template <Mutant kMutant = Mutant::none>
struct SimEnv {
  template <class T>
  using Atomic = SimAtomic<T>;

  static constexpr bool kModel = true;
  static constexpr bool mutant(Mutant asked) noexcept {
    return kMutant != Mutant::none && asked == kMutant;
  }

  static bool prepare() noexcept { return asymmetric(); }
  static bool asymmetric() noexcept { return Sim::current().asymmetric(); }
  static void compiler_barrier() noexcept {}
  static void fence_seq_cst() noexcept { Sim::current().fence(); }
  static void light_fence() noexcept {
    if (!asymmetric()) fence_seq_cst();
  }
  static void heavy_fence() noexcept {
    if (asymmetric()) {
      Sim::current().heavy_fence();
    } else {
      fence_seq_cst();
    }
  }
  static bool may_barrier(std::uint64_t) noexcept { return true; }
  static void* allocate(std::size_t bytes) noexcept { return ::operator new(bytes, std::nothrow); }
  static void deallocate(void* memory) noexcept { Sim::current().bury(memory); }
  static void deallocate(void* memory, std::size_t) noexcept { deallocate(memory); }
  static void pause() noexcept {}
  static void yield_thread() noexcept { Sim::current().yield(); }
  static std::uint64_t now_ns() noexcept { return Sim::current().now_ns(); }
  static bool futex_wait(Atomic<std::uint64_t>& word, std::uint32_t expected,
                         std::optional<std::uint64_t> deadline_ns) noexcept {
    return Sim::current().sleep(word.cell(), expected, deadline_ns);
  }
  static void futex_wake(Atomic<std::uint64_t>& word, int count) noexcept {
    Sim::current().wake(word.cell(), count);
  }
  static void futex_wait(Atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
    Sim::current().sleep(word.cell(), expected, std::nullopt, 0);
  }
  static void futex_wake(Atomic<std::uint32_t>& word) noexcept {
    Sim::current().wake(word.cell(), static_cast<int>(Sim::kMostThreads));
  }
};

// For each simulated thread the mark with which it comes to deques. Not among the thread's own
// variables: the destruction of an atomic is a point where all stores of its thread arrive.
template <class Env>
using ThiefMarks = std::array<detail::ThiefMark<Env>, Sim::kMostThreads>;

}  // namespace magpie::model
