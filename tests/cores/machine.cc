// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "machine.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bitset>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace magpie::cores {
namespace {

constexpr std::size_t kMostCores = 256;
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

[[noreturn]] void give_up(const std::string& sentence) {
  std::fprintf(stderr, "cores: %s\n", sentence.c_str());
  std::abort();
}

// The C library's own, under a name that is defined below. Looked up when first called, which may
// be before this file's variables are initialised, and without a lock.
template <class Function>
class Original {
 public:
  constexpr explicit Original(const char* name) : name_(name) {}

  template <class... Arguments>
  auto operator()(Arguments... arguments) {
    // Relaxed: the function is older than the program.
    Function* function = function_.load(std::memory_order_relaxed);
    if (function == nullptr) {
      function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name_));
      function_.store(function, std::memory_order_relaxed);
    }
    return function(arguments...);
  }

 private:
  const char* const name_;
  std::atomic<Function*> function_{nullptr};
};

#define MAGPIE_ORIGINAL(name) constinit Original<decltype(::name)> name(#name);
namespace original {
MAGPIE_ORIGINAL(syscall)
MAGPIE_ORIGINAL(clock_gettime)
MAGPIE_ORIGINAL(nanosleep)
MAGPIE_ORIGINAL(sysconf)
MAGPIE_ORIGINAL(sched_getaffinity)
MAGPIE_ORIGINAL(sched_setaffinity)
MAGPIE_ORIGINAL(sched_yield)
MAGPIE_ORIGINAL(fopen)
MAGPIE_ORIGINAL(pthread_create)
MAGPIE_ORIGINAL(pthread_join)
MAGPIE_ORIGINAL(pthread_detach)
MAGPIE_ORIGINAL(pthread_once)
MAGPIE_ORIGINAL(pthread_mutex_lock)
MAGPIE_ORIGINAL(pthread_mutex_trylock)
MAGPIE_ORIGINAL(pthread_mutex_unlock)
MAGPIE_ORIGINAL(pthread_cond_wait)
MAGPIE_ORIGINAL(pthread_cond_timedwait)
MAGPIE_ORIGINAL(pthread_cond_clockwait)
MAGPIE_ORIGINAL(pthread_cond_signal)
MAGPIE_ORIGINAL(pthread_cond_broadcast)
}  // namespace original

// --- Whose turn it is ----------------------------------------------------------------------------

enum class State : std::uint8_t { ready, asleep, gone };

// A thread, which has a processor of its own.
struct Core {
  Core(std::size_t the_index, std::uint64_t the_clock) : index(the_index), clock(the_clock) {
    sem_init(&turn, 0, 0);
  }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() { sem_destroy(&turn); }

  const std::size_t index;
  State state = State::ready;
  std::uint64_t clock;
  std::uint64_t slice_end = kNever;
  const void* sleeps_on = nullptr;
  std::uint64_t deadline = kNever;
  std::uint64_t asleep_since = 0;  // for the order of those who sleep on one word
  bool woken = false;
  pthread_t thread{};
  void* result = nullptr;
  sem_t turn;
};

// Only the thread whose turn it is touches any of this, and whatever the other functions here are
// about. It gives the turn away by a semaphore of the C library, which orders what the one did
// before what the other does, and is not simulated.
struct Turns {
  std::vector<std::unique_ptr<Core>> cores;
  std::uint64_t sleeps = 0;
};

Turns turns;
Traffic traffic;
thread_local constinit Core* self __attribute__((tls_model("initial-exec"))) = nullptr;

Core& add_core(std::uint64_t clock) {
  if (turns.cores.size() == kMostCores)
    give_up("more threads than " + std::to_string(kMostCores) + " in one simulation");
  turns.cores.push_back(std::make_unique<Core>(turns.cores.size(), clock));
  return *turns.cores.back();
}

// The one whose clock is behind, or whose deadline comes first.
Core& next_core() {
  Core* first = nullptr;
  std::uint64_t at = kNever;
  std::uint64_t second = kNever;
  for (const auto& core : turns.cores) {
    std::uint64_t when = kNever;
    if (core->state == State::ready) when = core->clock;
    if (core->state == State::asleep) when = core->deadline;
    if (when < at) {
      second = std::exchange(at, when);
      first = core.get();
    } else {
      second = std::min(second, when);
    }
  }
  if (first == nullptr) give_up("every thread sleeps and nobody is left to wake one");
  if (first->state == State::asleep) {
    first->state = State::ready;
    first->clock = std::max(first->clock, first->deadline);
    first->woken = false;
  }
  first->slice_end = second == kNever ? kNever : std::max(second, first->clock) + Costs::kSlice;
  return *first;
}

void wait_for_turn(Core& core) {
  const int saved = errno;  // the caller may be about to read its own
  while (sem_wait(&core.turn) != 0) {
  }
  errno = saved;
}

// The turn goes round; comes back when it is this core's again.
void pass_on(Core& core) {
  Core& next = next_core();
  if (&next == &core) return;
  sem_post(&next.turn);
  wait_for_turn(core);
}

// Before each thing that others can see: those who are behind do first what they do.
void let_others_catch_up(Core& core) {
  if (core.clock >= core.slice_end) [[unlikely]]
    pass_on(core);
}

void spend(Core& core, std::uint64_t cycles) {
  core.clock += cycles;
  let_others_catch_up(core);
}

// Nothing happens between the call and the sleep. False: the deadline has come.
bool sleep_on(Core& core, const void* word, std::uint64_t deadline) {
  core.state = State::asleep;
  core.sleeps_on = word;
  core.deadline = deadline;
  core.asleep_since = ++turns.sleeps;
  core.woken = false;
  pass_on(core);
  return core.woken;
}

// Whoever has slept longest comes first. The turn stays where it is.
long wake(Core& core, const void* word, long count) {
  long woken = 0;
  for (; woken < count; ++woken) {
    Core* first = nullptr;
    for (const auto& other : turns.cores) {
      if (other->state == State::asleep && other->sleeps_on == word &&
          (first == nullptr || other->asleep_since < first->asleep_since))
        first = other.get();
    }
    if (first == nullptr) break;
    first->state = State::ready;
    first->woken = true;
    first->clock = std::max(first->clock, core.clock + Costs::kWake);
    core.slice_end = std::min(core.slice_end, first->clock + Costs::kSlice);
    ++traffic.wakes;
  }
  return woken;
}
constexpr long kAll = std::numeric_limits<long>::max();

// --- Memory --------------------------------------------------------------------------------------

// One line of memory. `changed`: by `writer`, since others read it last.
struct Line {
  std::uintptr_t number = 0;
  std::int16_t writer = -1;
  bool changed = false;
  std::bitset<kMostCores> readers;
  std::uint64_t busy_until = 0;
};

// The lines, by their number; open addressing, never smaller.
class Directory {
 public:
  Line& at(std::uintptr_t number) {
    Line* line = &find(number);
    if (line->number == number) return *line;
    if (++used_ * 2 > lines_.size()) {
      grow();
      line = &find(number);
    }
    line->number = number;
    return *line;
  }
  void clear() {
    lines_.assign(kFirst, Line());
    used_ = 0;
  }

 private:
  static constexpr std::size_t kFirst = std::size_t{1} << 16;

  // The line, or where it belongs.
  Line& find(std::uintptr_t number) {
    std::size_t i = (number * 0x9e3779b97f4a7c15) >> 20 & (lines_.size() - 1);
    while (lines_[i].number != number && lines_[i].number != 0) i = (i + 1) & (lines_.size() - 1);
    return lines_[i];
  }
  void grow() {
    const std::vector<Line> before = std::exchange(lines_, std::vector<Line>(lines_.size() * 2));
    for (const Line& line : before)
      if (line.number != 0) find(line.number) = line;
  }

  std::vector<Line> lines_{kFirst};
  std::size_t used_ = 0;
};

struct Place {
  std::uint64_t times = 0;
  std::uint64_t cycles = 0;
};

Directory lines;
std::unordered_map<const void*, Place> places;

void wait_for_line(Core& core, std::uint64_t until, const void* place) {
  const std::uint64_t cycles = until - std::exchange(core.clock, until);
  traffic.waited += cycles;
  Place& here = places[place];
  ++here.times;
  here.cycles += cycles;
}

// From the one core that has it, after those who have asked before.
void travel(Core& core, Line& line, const void* place) {
  line.busy_until = std::max(core.clock, line.busy_until) + Costs::kMove;
  wait_for_line(core, line.busy_until, place);
}

void read_line(Core& core, Line& line, const void* place) {
  if (line.readers[core.index]) return;
  const bool first = line.readers.none();
  line.readers.set(core.index);
  if (first) return;
  if (line.changed) {
    line.changed = false;
    ++traffic.moves;
    travel(core, line, place);
  } else {
    ++traffic.shared;
    wait_for_line(core, core.clock + Costs::kShared, place);
  }
}

void write_line(Core& core, Line& line, const void* place) {
  const auto me = static_cast<std::int16_t>(core.index);
  if (line.changed && line.writer == me) return;
  const bool others = line.readers.count() > (line.readers[core.index] ? 1U : 0U);
  if (line.changed) {
    ++traffic.moves;
    travel(core, line, place);
  } else if (others) {
    ++traffic.claims;
    travel(core, line, place);
  }
  line.writer = me;
  line.changed = true;
  line.readers.reset();
  line.readers.set(core.index);
}

enum class Access : std::uint8_t { read, write, locked };

// The access itself follows before the turn goes on.
void touch(const volatile void* memory, std::size_t bytes, Access access, const void* place) {
  Core* const core = self;
  if (core == nullptr || bytes == 0) return;
  let_others_catch_up(*core);
  if (access == Access::locked) {
    ++traffic.locked;
    core->clock += Costs::kLocked;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t last = (address + bytes - 1) / 64;
  for (std::uintptr_t number = address / 64; number <= last; ++number) {
    ++traffic.accesses;
    core->clock += Costs::kHit;
    Line& line = lines.at(number);
    access == Access::read ? read_line(*core, line, place) : write_line(*core, line, place);
  }
}

// --- The kernel ----------------------------------------------------------------------------------

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr std::uint64_t kBase = 1'000 * kNsPerSecond * Costs::kPerNs;  // the time at the beginning

std::size_t processors = 1;
std::uint64_t latest = 0;

// In cycles; never, if that is further away than they can say.
std::uint64_t cycles_of(const timespec& time) {
  const auto seconds = static_cast<std::uint64_t>(time.tv_sec);
  if (seconds >= kNever / (kNsPerSecond * Costs::kPerNs)) return kNever;
  return (seconds * kNsPerSecond + static_cast<std::uint64_t>(time.tv_nsec)) * Costs::kPerNs;
}

std::uint64_t deadline_of(const timespec& time) {
  const std::uint64_t at = cycles_of(time);
  return at == kNever ? kNever : at - std::min(at, kBase);
}

timespec now(Core& core) {
  spend(core, Costs::kClock);
  // Cores are ahead of each other by a slice; the time that programs see never goes back.
  latest = std::max(latest, core.clock);
  const std::uint64_t ns = (kBase + latest) / Costs::kPerNs;
  return {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
}

long futex_wait(Core& core, const void* word, std::uint32_t expected, const timespec* until) {
  spend(core, Costs::kCall);
  if (__atomic_load_n(static_cast<const std::uint32_t*>(word), __ATOMIC_SEQ_CST) != expected) {
    errno = EAGAIN;
    return -1;
  }
  if (sleep_on(core, word, until != nullptr ? deadline_of(*until) : kNever)) return 0;
  errno = ETIMEDOUT;
  return -1;
}

// The arguments are those of the system call.
long futex(Core& core, const std::array<long, 6>& a) {
  const void* const word = reinterpret_cast<const void*>(a[0]);
  const auto expected = static_cast<std::uint32_t>(a[2]);
  const auto* const until = reinterpret_cast<const timespec*>(a[3]);
  switch (a[1] & FUTEX_CMD_MASK) {
    case FUTEX_WAIT_BITSET:
      return futex_wait(core, word, expected, until);
    case FUTEX_WAIT:
      if (until != nullptr) give_up("a futex with a relative deadline");
      return futex_wait(core, word, expected, nullptr);
    case FUTEX_WAKE:
      spend(core, Costs::kCall);
      return wake(core, word, a[2]);
    default:
      give_up("an operation of futexes that it does not know");
  }
}

long membarrier(Core& core, long command) {
  spend(core, Costs::kCall);
  switch (command) {
    case MEMBARRIER_CMD_QUERY:
      return MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
      return 0;
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
      ++traffic.barriers;
      for (const auto& other : turns.cores)
        if (other->state == State::ready && other.get() != &core) other->clock += Costs::kInterrupt;
      return 0;
    default:
      give_up("a membarrier that it does not know");
  }
}

// --- Threads -------------------------------------------------------------------------------------

pthread_key_t last_words;

// After the destructors of thread-local variables. The C library ends threads in an order of its
// own, which decides where the next ones have their memory: so the rest of it is for the end of the
// simulation, which is where the program's own thread, the first, ends.
void retire(void* raw) {
  Core& core = *static_cast<Core*>(raw);
  core.state = State::gone;
  wake(core, &core, kAll);
  if (core.index != 0) pass_on(core);
  self = nullptr;
}

struct Start {
  void* (*function)(void*);
  void* argument;
  Core* core;
};

void* start(void* raw) {
  const std::unique_ptr<Start> given(static_cast<Start*>(raw));
  pthread_setspecific(last_words, given->core);
  wait_for_turn(*given->core);
  self = given->core;
  return given->core->result = given->function(given->argument);
}

pthread_t start_thread(Core& core, const pthread_attr_t* attributes, void* (*function)(void*),
                       void* argument) {
  const int status = original::pthread_create(&core.thread, attributes, start,
                                              new Start{function, argument, &core});
  if (status != 0) give_up(std::string("a thread cannot be started: ") + strerror(status));
  return core.thread;
}

Core& core_of(pthread_t thread) {
  for (const auto& core : turns.cores)
    if (pthread_equal(core->thread, thread) != 0) return *core;
  give_up("a thread that is not simulated is waited for");
}

// False: at the deadline it is still there.
bool wait_for_end(Core& core, const Core& other, std::uint64_t deadline) {
  while (other.state != State::gone)
    if (!sleep_on(core, &other, deadline)) return false;
  return true;
}

struct Program {
  const std::function<void(Meter&)>& function;
  Meter meter;
  std::exception_ptr error;
};

void* run_program(void* raw) {
  Program& program = *static_cast<Program*>(raw);
  try {
    program.function(program.meter);
  } catch (...) {
    program.error = std::current_exception();
  }
  // Threads that nobody waits for may have their last steps to do.
  Core& core = *self;
  const std::uint64_t patience = core.clock + 10'000'000 * Costs::kPerNs;
  for (const auto& other : turns.cores)
    if (other.get() != &core && !wait_for_end(core, *other, patience))
      give_up("a thread outlives the simulation");
  return nullptr;
}

// The turn goes from thread to thread at a third of the cost, if they are all in one place.
class OnOneProcessor {
 public:
  OnOneProcessor() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
      if (CPU_ISSET(i, &before_)) CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
  }
  OnOneProcessor(const OnOneProcessor&) = delete;
  OnOneProcessor& operator=(const OnOneProcessor&) = delete;
  ~OnOneProcessor() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_{};
};

}  // namespace

void Meter::measure(const std::function<void()>& function) {
  places.clear();
  traffic = Traffic();
  const std::uint64_t clock = self->clock;
  function();
  run_.ns = static_cast<double>(self->clock - clock) / Costs::kPerNs;
  run_.traffic = traffic;
}

Reading simulate(std::size_t processors_of_it, const std::function<void(Meter&)>& function) {
  static std::atomic_flag busy;
  if (busy.test_and_set(std::memory_order_acquire))  // pairs with clear() below
    give_up("a simulation runs already");
  static const int key = pthread_key_create(&last_words, retire);
  if (key != 0) give_up("no key for what is specific to a thread");
  const OnOneProcessor here;
  // As many as the C library's allocator has by itself on such a computer; else threads that have
  // nothing to do with each other would have memory side by side.
  mallopt(M_ARENA_MAX, static_cast<int>(8 * processors_of_it));

  processors = processors_of_it;
  latest = 0;
  lines.clear();
  Program program{function, Meter(), nullptr};
  start_thread(add_core(0), nullptr, run_program, &program);
  for (std::size_t i = 0; i < turns.cores.size(); ++i) {  // the first starts the others
    sem_post(&turns.cores[i]->turn);
    original::pthread_join(turns.cores[i]->thread, nullptr);
  }
  turns.cores.clear();
  busy.clear(std::memory_order_release);  // pairs with test_and_set() above
  if (program.error) std::rethrow_exception(program.error);
  return program.meter.run();
}

std::string busiest_places(std::size_t count) {
  std::vector<std::pair<const void*, Place>> sorted(places.begin(), places.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.cycles > b.second.cycles; });
  sorted.resize(std::min(sorted.size(), count));
  std::string text;
  for (const auto& [pc, place] : sorted) {
    text += std::to_string(place.times) + " times, " + std::to_string(place.cycles) + " cycles:\n";
    Dl_info info{};
    if (dladdr(pc, &info) == 0) continue;
    const auto offset =
        reinterpret_cast<std::uintptr_t>(pc) - reinterpret_cast<std::uintptr_t>(info.dli_fbase) - 1;
    std::array<char, 512> line{};
    std::snprintf(line.data(), line.size(), "llvm-symbolizer-19 -C -s -p --obj=%s 0x%zx",
                  info.dli_fname, offset);
    FILE* const pipe = popen(line.data(), "r");
    if (pipe == nullptr) continue;
    while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr)
      text += std::string("    ") + line.data();
    pclose(pipe);
  }
  return text;
}

namespace {

// --- What the C library would do -----------------------------------------------------------------

// What sleeps, costs a call of the kernel to wake.
void rouse(Core& core, const void* word, long count) {
  if (wake(core, word, count) != 0) core.clock += Costs::kCall;
}

int lock(Core& core, pthread_mutex_t* mutex, const void* place) {
  for (;;) {
    touch(mutex, sizeof(int), Access::locked, place);
    const int status = original::pthread_mutex_trylock(mutex);
    if (status != EBUSY) return status;
    core.clock += Costs::kCall;
    sleep_on(core, mutex, kNever);
  }
}

int unlock(Core& core, pthread_mutex_t* mutex, const void* place) {
  touch(mutex, sizeof(int), Access::locked, place);
  const int status = original::pthread_mutex_unlock(mutex);
  rouse(core, mutex, 1);
  return status;
}

int wait(Core& core, pthread_cond_t* condition, pthread_mutex_t* mutex, std::uint64_t deadline,
         const void* place) {
  touch(condition, sizeof(int), Access::locked, place);
  unlock(core, mutex, place);  // the turn stays here from then to the sleep
  core.clock += Costs::kCall;
  const bool woken = sleep_on(core, condition, deadline);
  lock(core, mutex, place);
  return woken ? 0 : ETIMEDOUT;
}

int notify(Core& core, pthread_cond_t* condition, long count, const void* place) {
  touch(condition, sizeof(int), Access::read, place);
  rouse(core, condition, count);
  return 0;
}

// The words are those of the C library, which may have been here before.
void once(Core& core, pthread_once_t* control, void (*function)(), const void* place) {
  constexpr int kNew = 0;
  constexpr int kUnderWay = 1;
  constexpr int kDone = 2;
  for (;;) {
    touch(control, sizeof *control, Access::read, place);
    if (*control == kDone) return;
    if (*control == kNew) break;
    sleep_on(core, control, kNever);
  }
  const auto becomes = [&](int state) {
    touch(control, sizeof *control, Access::locked, place);
    *control = state;
    rouse(core, control, kAll);
  };
  *control = kUnderWay;
  try {
    function();
  } catch (...) {
    becomes(kNew);
    throw;
  }
  becomes(kDone);
}

}  // namespace
}  // namespace magpie::cores

namespace sim = magpie::cores;
using sim::Access;
using sim::Core;
using sim::Costs;

#define MAGPIE_HERE __builtin_return_address(0)

extern "C" {

long syscall(long number, ...) noexcept {
  std::va_list list;
  va_start(list, number);
  std::array<long, 6> a{};
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  if (Core* const core = sim::self; core != nullptr) {
    if (number == SYS_futex) return sim::futex(*core, a);
    if (number == SYS_membarrier) return sim::membarrier(*core, a[0]);
  }
  return sim::original::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (Core* const core = sim::self; core != nullptr) {
    *time = sim::now(*core);
    return 0;
  }
  return sim::original::clock_gettime(clock, time);
}

int nanosleep(const timespec* time, timespec* left) {
  if (Core* const core = sim::self; core != nullptr) {
    const std::uint64_t cycles = sim::cycles_of(*time);
    const std::uint64_t most = sim::kNever - core->clock;
    sim::sleep_on(*core, nullptr, core->clock + std::min(cycles, most));
    return 0;
  }
  return sim::original::nanosleep(time, left);
}

int sched_yield() noexcept {
  if (Core* const core = sim::self; core != nullptr) {
    sim::spend(*core, Costs::kCall);
    return 0;
  }
  return sim::original::sched_yield();
}

long sysconf(int name) noexcept {
  if (sim::self != nullptr && (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF))
    return static_cast<long>(sim::processors);
  return sim::original::sysconf(name);
}

int get_nprocs() noexcept {
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

int sched_getaffinity(pid_t thread, std::size_t bytes, cpu_set_t* set) noexcept {
  if (sim::self == nullptr) return sim::original::sched_getaffinity(thread, bytes, set);
  if (bytes * 8 < sim::processors) {
    errno = EINVAL;
    return -1;
  }
  CPU_ZERO_S(bytes, set);
  for (std::size_t i = 0; i < sim::processors; ++i) CPU_SET_S(i, bytes, set);
  return 0;
}

int sched_setaffinity(pid_t thread, std::size_t bytes, const cpu_set_t* set) noexcept {
  if (sim::self != nullptr) return 0;  // each thread has its core
  return sim::original::sched_setaffinity(thread, bytes, set);
}

FILE* fopen(const char* path, const char* mode) {
  const std::string_view name(path);
  if (sim::self != nullptr && (name.starts_with("/proc/") || name.starts_with("/sys/"))) {
    errno = ENOENT;  // the host's processors, and how much of them this process may use
    return nullptr;
  }
  return sim::original::fopen(path, mode);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*function)(void*),
                   void* argument) noexcept {
  Core* const core = sim::self;
  if (core == nullptr) return sim::original::pthread_create(thread, attributes, function, argument);
  sim::spend(*core, Costs::kCall);
  Core& started = sim::add_core(core->clock + Costs::kWake);
  core->slice_end = std::min(core->slice_end, started.clock + Costs::kSlice);
  *thread = sim::start_thread(started, attributes, function, argument);
  return 0;
}

int pthread_join(pthread_t thread, void** result) {
  if (Core* const core = sim::self; core != nullptr) {
    sim::spend(*core, Costs::kCall);
    const Core& other = sim::core_of(thread);
    sim::wait_for_end(*core, other, sim::kNever);
    if (result != nullptr) *result = other.result;
    return 0;
  }
  return sim::original::pthread_join(thread, result);
}

int pthread_detach(pthread_t thread) noexcept {
  return sim::self != nullptr ? 0 : sim::original::pthread_detach(thread);
}

int pthread_once(pthread_once_t* control, void (*function)()) {
  Core* const core = sim::self;
  if (core == nullptr) return sim::original::pthread_once(control, function);
  sim::once(*core, control, function, MAGPIE_HERE);
  return 0;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  Core* const core = sim::self;
  return core != nullptr ? sim::lock(*core, mutex, MAGPIE_HERE)
                         : sim::original::pthread_mutex_lock(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  sim::touch(mutex, sizeof(int), Access::locked, MAGPIE_HERE);
  return sim::original::pthread_mutex_trylock(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  Core* const core = sim::self;
  return core != nullptr ? sim::unlock(*core, mutex, MAGPIE_HERE)
                         : sim::original::pthread_mutex_unlock(mutex);
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  Core* const core = sim::self;
  return core != nullptr ? sim::wait(*core, condition, mutex, sim::kNever, MAGPIE_HERE)
                         : sim::original::pthread_cond_wait(condition, mutex);
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* until) {
  Core* const core = sim::self;
  return core != nullptr ? sim::wait(*core, condition, mutex, sim::deadline_of(*until), MAGPIE_HERE)
                         : sim::original::pthread_cond_timedwait(condition, mutex, until);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* until) {
  Core* const core = sim::self;
  return core != nullptr ? sim::wait(*core, condition, mutex, sim::deadline_of(*until), MAGPIE_HERE)
                         : sim::original::pthread_cond_clockwait(condition, mutex, clock, until);
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  Core* const core = sim::self;
  return core != nullptr ? sim::notify(*core, condition, 1, MAGPIE_HERE)
                         : sim::original::pthread_cond_signal(condition);
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  Core* const core = sim::self;
  return core != nullptr ? sim::notify(*core, condition, sim::kAll, MAGPIE_HERE)
                         : sim::original::pthread_cond_broadcast(condition);
}

}  // extern "C"

// --- What the compiler calls ---------------------------------------------------------------------

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define MAGPIE_ACCESS(bytes)                          \
  void __tsan_read##bytes(void* p) {                  \
    sim::touch(p, bytes, Access::read, MAGPIE_HERE);  \
  }                                                   \
  void __tsan_write##bytes(void* p) {                 \
    sim::touch(p, bytes, Access::write, MAGPIE_HERE); \
  }                                                   \
  void __tsan_unaligned_read##bytes(void* p) {        \
    sim::touch(p, bytes, Access::read, MAGPIE_HERE);  \
  }                                                   \
  void __tsan_unaligned_write##bytes(void* p) {       \
    sim::touch(p, bytes, Access::write, MAGPIE_HERE); \
  }
MAGPIE_ACCESS(1)
MAGPIE_ACCESS(2)
MAGPIE_ACCESS(4)
MAGPIE_ACCESS(8)
MAGPIE_ACCESS(16)

void __tsan_vptr_update(void** p, void*) {
  sim::touch(p, 8, Access::write, MAGPIE_HERE);
}
void __tsan_vptr_read(void** p) {
  sim::touch(p, 8, Access::read, MAGPIE_HERE);
}

void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  sim::touch(from, bytes, Access::read, MAGPIE_HERE);
  sim::touch(to, bytes, Access::write, MAGPIE_HERE);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  sim::touch(from, bytes, Access::read, MAGPIE_HERE);
  sim::touch(to, bytes, Access::write, MAGPIE_HERE);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  sim::touch(to, bytes, Access::write, MAGPIE_HERE);
  return std::memset(to, value, bytes);
}

#define MAGPIE_UPDATE(bits, T, name, builtin)                   \
  T __tsan_atomic##bits##_##name(volatile T* p, T value, int) { \
    sim::touch(p, sizeof(T), Access::locked, MAGPIE_HERE);      \
    return builtin(p, value, __ATOMIC_SEQ_CST);                 \
  }
#define MAGPIE_ATOMICS(bits, T)                                                                    \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    sim::touch(p, sizeof(T), Access::read, MAGPIE_HERE);                                           \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int order) {                            \
    sim::touch(p, sizeof(T), order == __ATOMIC_SEQ_CST ? Access::locked : Access::write,           \
               MAGPIE_HERE);                                                                       \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                \
  MAGPIE_UPDATE(bits, T, exchange, __atomic_exchange_n)                                            \
  MAGPIE_UPDATE(bits, T, fetch_add, __atomic_fetch_add)                                            \
  MAGPIE_UPDATE(bits, T, fetch_sub, __atomic_fetch_sub)                                            \
  MAGPIE_UPDATE(bits, T, fetch_and, __atomic_fetch_and)                                            \
  MAGPIE_UPDATE(bits, T, fetch_or, __atomic_fetch_or)                                              \
  MAGPIE_UPDATE(bits, T, fetch_xor, __atomic_fetch_xor)                                            \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected, T desired, int, int) {   \
    sim::touch(p, sizeof(T), Access::locked, MAGPIE_HERE);                                         \
    __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    return expected;                                                                               \
  }
MAGPIE_ATOMICS(8, std::uint8_t)
MAGPIE_ATOMICS(16, std::uint16_t)
MAGPIE_ATOMICS(32, std::uint32_t)
MAGPIE_ATOMICS(64, std::uint64_t)

void __tsan_atomic_thread_fence(int order) {
  if (Core* const core = sim::self; core != nullptr && order == __ATOMIC_SEQ_CST) {
    ++sim::traffic.locked;
    core->clock += Costs::kLocked;
  }
}
void __tsan_atomic_signal_fence(int) {}

void magpie_cores_pause() noexcept {
  if (Core* const core = sim::self; core != nullptr) sim::spend(*core, Costs::kPause);
}

}  // extern "C"
