// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "machine.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <unordered_map>
#include <utility>

namespace magpie::cores {
namespace {

constexpr std::size_t kMostCores = 256;
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kBaseNs = 1'000'000'000'000;

using Sharers = std::bitset<kMostCores>;

// One line of memory. `writer` has changed it since it was last read by another.
struct Line {
  std::uintptr_t number = 0;
  std::int16_t writer = -1;
  bool changed = false;
  Sharers readers;
  std::uint64_t busy_until = 0;
};

// The lines, by their number; open addressing, never smaller.
class Directory {
 public:
  Line& at(std::uintptr_t number) {
    for (std::size_t i = slot(number);; i = (i + 1) & (lines_.size() - 1)) {
      Line& line = lines_[i];
      if (line.number == number) return line;
      if (line.number == 0) return insert(line, number);
    }
  }
  void clear() {
    lines_.assign(kFirst, Line());
    used_ = 0;
  }

 private:
  static constexpr std::size_t kFirst = std::size_t{1} << 16;

  std::size_t slot(std::uintptr_t number) const {
    return (number * 0x9e3779b97f4a7c15) >> 20 & (lines_.size() - 1);
  }
  Line& insert(Line& free, std::uintptr_t number) {
    if (++used_ * 2 <= lines_.size()) {
      free.number = number;
      return free;
    }
    std::vector<Line> before = std::exchange(lines_, std::vector<Line>(lines_.size() * 2));
    for (const Line& line : before) {
      if (line.number == 0) continue;
      std::size_t i = slot(line.number);
      while (lines_[i].number != 0) i = (i + 1) & (lines_.size() - 1);
      lines_[i] = line;
    }
    return at(number);
  }

  std::vector<Line> lines_{kFirst};
  std::size_t used_ = 0;
};

enum class State : std::uint8_t { ready, asleep, away, gone };

// A thread, which has a processor of its own.
struct Core {
  std::size_t index = 0;
  State state = State::ready;
  std::uint64_t clock = 0;
  std::uint64_t slice_end = 0;
  const void* sleeps_on = nullptr;
  std::uint64_t deadline = kNever;
  std::uint64_t asleep_since = 0;  // for the order of those who sleep on one word
  bool woken = false;
  Traffic traffic;
  sem_t turn;
};

struct Place {
  std::uint64_t times = 0;
  std::uint64_t cycles = 0;
};

// Everything but `active` and the lock's part is only touched by the core whose turn it is.
struct Machine {
  std::size_t processors = 1;
  std::vector<std::unique_ptr<Core>> cores;
  Core* running = nullptr;
  Directory lines;
  std::unordered_map<const void*, Place> places;
  std::uint64_t latest_ns = 0;
  std::uint64_t sleeps = 0;
  pthread_mutex_t lock;  // who has the turn, while threads come back from elsewhere
};

Machine machine;
bool active = false;
thread_local constinit Core* self __attribute__((tls_model("initial-exec"))) = nullptr;
pthread_key_t last_words;

// The C library's own, under the names that are defined below.
template <class Function>
Function* original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
const auto real_lock = original<int(pthread_mutex_t*)>("pthread_mutex_lock");
const auto real_unlock = original<int(pthread_mutex_t*)>("pthread_mutex_unlock");

[[noreturn]] void give_up(const char* sentence) {
  std::fprintf(stderr, "cores: %s\n", sentence);
  std::abort();
}

// --- Whose turn it is ----------------------------------------------------------------------------

// The one whose clock is behind, or whose deadline comes first; null: everybody sleeps.
Core* next_core() {
  Core* first = nullptr;
  std::uint64_t at = kNever;
  std::uint64_t second = kNever;
  for (const auto& core : machine.cores) {
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
  if (first == nullptr) return nullptr;
  if (first->state == State::asleep) {
    first->state = State::ready;
    first->clock = std::max(first->clock, first->deadline);
    first->woken = false;
  }
  first->slice_end = second == kNever ? kNever : std::max(second, first->clock) + Costs::kSlice;
  return first;
}

bool somebody_is_away() {
  return std::any_of(machine.cores.begin(), machine.cores.end(),
                     [](const auto& core) { return core->state == State::away; });
}

// With the lock: the turn goes to whoever is next. Null: to whoever comes back first.
void hand_turn_on() {
  Core* const next = next_core();
  machine.running = next;
  if (next != nullptr) {
    if (next != self) sem_post(&next->turn);
  } else if (!somebody_is_away()) {
    give_up("every thread sleeps and nobody is left to wake one");
  }
}

void wait_for_turn(Core& core) {
  while (sem_wait(&core.turn) != 0) {
  }
}

// The turn goes round; comes back when it is this core's again.
void pass_on(Core& core) {
  real_lock(&machine.lock);
  hand_turn_on();
  const bool mine = machine.running == &core;
  real_unlock(&machine.lock);
  if (!mine) wait_for_turn(core);
}

void spend(Core& core, std::uint64_t cycles) {
  core.clock += cycles;
  if (core.clock >= core.slice_end) [[unlikely]]
    pass_on(core);
}

// This thread is about to block where the simulation does not see it.
void go_away(Core& core) {
  real_lock(&machine.lock);
  core.state = State::away;
  hand_turn_on();
  real_unlock(&machine.lock);
}

void come_back(Core& core) {
  real_lock(&machine.lock);
  core.state = State::ready;
  for (const auto& other : machine.cores)
    if (other->state == State::ready) core.clock = std::max(core.clock, other->clock);
  const bool nobody = machine.running == nullptr;
  if (nobody) hand_turn_on();
  const bool mine = machine.running == &core;
  real_unlock(&machine.lock);
  if (!mine) wait_for_turn(core);
}

Core& add_core(std::uint64_t clock) {
  if (machine.cores.size() == kMostCores) give_up("more threads than it has cores");
  machine.cores.push_back(std::make_unique<Core>());
  Core& core = *machine.cores.back();
  core.index = machine.cores.size() - 1;
  core.clock = clock;
  sem_init(&core.turn, 0, 0);
  return core;
}

// --- Memory --------------------------------------------------------------------------------------

void travel(Core& core, Line& line, std::uint64_t cost, const void* place) {
  const std::uint64_t before = core.clock;
  core.clock = std::max(core.clock, line.busy_until) + cost;
  line.busy_until = core.clock;
  core.traffic.waited += core.clock - before;
  Place& here = machine.places[place];
  ++here.times;
  here.cycles += core.clock - before;
}

void read_line(Core& core, std::uintptr_t number, const void* place) {
  Line& line = machine.lines.at(number);
  core.clock += Costs::kHit;
  if (line.readers[core.index]) return;
  const bool first = line.writer < 0 && line.readers.none();
  line.readers.set(core.index);
  if (first) return;
  if (line.changed) {
    line.changed = false;
    ++core.traffic.moves;
    travel(core, line, Costs::kMove, place);
  } else {
    ++core.traffic.shared;
    core.clock += Costs::kShared;
    core.traffic.waited += Costs::kShared;
  }
}

void write_line(Core& core, std::uintptr_t number, const void* place) {
  Line& line = machine.lines.at(number);
  core.clock += Costs::kHit;
  const auto me = static_cast<std::int16_t>(core.index);
  if (line.changed && line.writer == me) return;
  const bool others = line.readers.count() > (line.readers[core.index] ? 1U : 0U);
  if (line.changed) {
    ++core.traffic.moves;
    travel(core, line, Costs::kMove, place);
  } else if (others) {
    ++core.traffic.claims;
    travel(core, line, Costs::kMove, place);
  }
  line.writer = me;
  line.changed = true;
  line.readers.reset();
  line.readers.set(core.index);
}

void touch(const volatile void* memory, std::size_t bytes, bool write, const void* place) {
  Core* const core = self;
  if (core == nullptr) return;
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t last = (address + bytes - 1) / 64;
  for (std::uintptr_t number = address / 64; number <= last; ++number) {
    ++core->traffic.accesses;
    write ? write_line(*core, number, place) : read_line(*core, number, place);
  }
  if (core->clock >= core->slice_end) [[unlikely]]
    pass_on(*core);
}

void touch_locked(const volatile void* memory, std::size_t bytes, const void* place) {
  if (Core* const core = self; core != nullptr) {
    ++core->traffic.locked;
    core->clock += Costs::kLocked;
  }
  touch(memory, bytes, true, place);
}

Traffic sum() {
  Traffic all;
  for (const auto& core : machine.cores) {
    const Traffic& one = core->traffic;
    all.accesses += one.accesses;
    all.moves += one.moves;
    all.shared += one.shared;
    all.claims += one.claims;
    all.locked += one.locked;
    all.wakes += one.wakes;
    all.barriers += one.barriers;
    all.waited += one.waited;
  }
  return all;
}

// --- The kernel ----------------------------------------------------------------------------------

std::uint64_t now_ns(Core& core) {
  spend(core, Costs::kClock);
  // Cores are ahead of each other by a slice; the time that programs see never goes back.
  machine.latest_ns = std::max(machine.latest_ns, kBaseNs + core.clock / Costs::kPerNs);
  return machine.latest_ns;
}

std::uint64_t to_clock(const timespec& time) {
  const auto ns = static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
                  static_cast<std::uint64_t>(time.tv_nsec);
  return ns <= kBaseNs ? 0 : (ns - kBaseNs) * Costs::kPerNs;
}

bool sleep_on(Core& core, const void* word, std::uint64_t deadline) {
  core.state = State::asleep;
  core.sleeps_on = word;
  core.deadline = deadline;
  core.asleep_since = ++machine.sleeps;
  core.woken = false;
  pass_on(core);
  core.sleeps_on = nullptr;
  return core.woken;
}

long futex_wait(Core& core, const void* word, std::uint32_t expected, std::uint64_t deadline) {
  spend(core, Costs::kCall);
  if (__atomic_load_n(static_cast<const std::uint32_t*>(word), __ATOMIC_SEQ_CST) != expected) {
    errno = EAGAIN;
    return -1;
  }
  if (sleep_on(core, word, deadline)) return 0;
  errno = ETIMEDOUT;
  return -1;
}

long futex_wake(Core& core, const void* word, long count) {
  spend(core, Costs::kCall);
  long woken = 0;
  while (woken < count) {
    Core* first = nullptr;
    for (const auto& other : machine.cores) {
      if (other->state == State::asleep && other->sleeps_on == word &&
          (first == nullptr || other->asleep_since < first->asleep_since))
        first = other.get();
    }
    if (first == nullptr) break;
    first->state = State::ready;
    first->woken = true;
    first->clock = std::max(first->clock, core.clock + Costs::kWake);
    core.slice_end = std::min(core.slice_end, first->clock + Costs::kSlice);
    ++core.traffic.wakes;
    ++woken;
  }
  return woken;
}

long membarrier(Core& core, long command) {
  if (command == MEMBARRIER_CMD_QUERY) return MEMBARRIER_CMD_PRIVATE_EXPEDITED;
  if (command == MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
    ++core.traffic.barriers;
    for (const auto& other : machine.cores)
      if (other->state == State::ready) other->clock += Costs::kInterrupt;
    spend(core, Costs::kCall);
  }
  return 0;
}

void retire(void* core) {
  real_lock(&machine.lock);
  static_cast<Core*>(core)->state = State::gone;
  self = nullptr;
  hand_turn_on();
  real_unlock(&machine.lock);
}

struct Start {
  void* (*function)(void*);
  void* argument;
  Core* core;
};

void* start(void* raw) {
  const std::unique_ptr<Start> given(static_cast<Start*>(raw));
  pthread_setspecific(last_words, given->core);  // after the destructors of thread-local variables
  wait_for_turn(*given->core);
  self = given->core;
  return given->function(given->argument);
}

}  // namespace

Traffic Traffic::operator-(const Traffic& before) const {
  return {accesses - before.accesses, moves - before.moves,   shared - before.shared,
          claims - before.claims,     locked - before.locked, wakes - before.wakes,
          barriers - before.barriers, waited - before.waited};
}

void Meter::measure(const std::function<void()>& function) {
  machine.places.clear();
  const Traffic traffic = sum();
  const std::uint64_t clock = self->clock;
  function();
  run_.ns = static_cast<double>(self->clock - clock) / Costs::kPerNs;
  run_.traffic = sum() - traffic;
}

Reading simulate(std::size_t cores, const std::function<void(Meter&)>& program) {
  if (active) give_up("a simulation runs already");
  static const bool once = [] {
    pthread_key_create(&last_words, retire);
    pthread_mutex_init(&machine.lock, nullptr);
    return true;
  }();
  static_cast<void>(once);
  // The turn goes from thread to thread at a third of the cost, if they are all in one place.
  cpu_set_t before;
  sched_getaffinity(0, sizeof before, &before);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  sched_setaffinity(0, sizeof one, &one);

  machine.processors = cores;
  machine.lines.clear();
  machine.places.clear();
  machine.latest_ns = 0;
  Core& core = add_core(0);
  core.slice_end = kNever;
  machine.running = &core;
  active = true;
  self = &core;
  Meter meter;
  program(meter);
  self = nullptr;
  active = false;
  for (const auto& other : machine.cores) sem_destroy(&other->turn);
  machine.cores.clear();
  sched_setaffinity(0, sizeof before, &before);
  return meter.run();
}

std::string busiest_places(std::size_t count) {
  std::vector<std::pair<const void*, Place>> sorted(machine.places.begin(), machine.places.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.cycles > b.second.cycles; });
  sorted.resize(std::min(sorted.size(), count));
  std::string text;
  for (const auto& [pc, place] : sorted) {
    Dl_info info{};
    dladdr(pc, &info);
    const auto offset =
        reinterpret_cast<std::uintptr_t>(pc) - reinterpret_cast<std::uintptr_t>(info.dli_fbase) - 1;
    std::array<char, 512> line{};
    std::snprintf(line.data(), line.size(), "llvm-symbolizer-19 -C -s -p --obj=%s 0x%zx",
                  info.dli_fname, offset);
    std::string where;
    if (FILE* const pipe = popen(line.data(), "r"); pipe != nullptr) {
      while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr)
        where += std::string("    ") + line.data();
      pclose(pipe);
    }
    text += std::to_string(place.times) + " times, " + std::to_string(place.cycles) + " cycles:\n" +
            where;
  }
  return text;
}

}  // namespace magpie::cores

// --- What the C library would do -----------------------------------------------------------------

using magpie::cores::Core;
using magpie::cores::Costs;
namespace sim = magpie::cores;

extern "C" {

long syscall(long number, ...) noexcept {
  std::va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  Core* const core = sim::self;
  if (core != nullptr && number == SYS_futex) {
    const void* const word = reinterpret_cast<const void*>(a[0]);
    const auto* const until = reinterpret_cast<const timespec*>(a[3]);
    switch (a[1] & FUTEX_CMD_MASK) {
      case FUTEX_WAIT_BITSET:
        return sim::futex_wait(*core, word, static_cast<std::uint32_t>(a[2]),
                               until != nullptr ? sim::to_clock(*until) : sim::kNever);
      case FUTEX_WAIT:
        if (until != nullptr) sim::give_up("a futex with a relative deadline");
        return sim::futex_wait(*core, word, static_cast<std::uint32_t>(a[2]), sim::kNever);
      case FUTEX_WAKE:
        return sim::futex_wake(*core, word, a[2]);
      default:
        sim::give_up("an operation of futexes that it does not know");
    }
  }
  if (core != nullptr && number == SYS_membarrier) return sim::membarrier(*core, a[0]);
  long result;
  register long r10 asm("r10") = a[3];
  register long r8 asm("r8") = a[4];
  register long r9 asm("r9") = a[5];
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  if (result < 0) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static const auto real = sim::original<int(clockid_t, timespec*)>("clock_gettime");
  Core* const core = sim::self;
  if (core == nullptr || (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE))
    return real(clock, time);
  const std::uint64_t ns = sim::now_ns(*core);
  time->tv_sec = static_cast<time_t>(ns / 1'000'000'000);
  time->tv_nsec = static_cast<long>(ns % 1'000'000'000);
  return 0;
}

int nanosleep(const timespec* time, timespec* left) {
  static const auto real = sim::original<int(const timespec*, timespec*)>("nanosleep");
  Core* const core = sim::self;
  if (core == nullptr) return real(time, left);
  const auto ns = static_cast<std::uint64_t>(time->tv_sec) * 1'000'000'000 +
                  static_cast<std::uint64_t>(time->tv_nsec);
  sim::sleep_on(*core, nullptr, core->clock + ns * Costs::kPerNs);
  return 0;
}

int sched_yield() noexcept {
  if (Core* const core = sim::self; core != nullptr) sim::spend(*core, Costs::kCall);
  return 0;
}

int get_nprocs() noexcept {
  return sim::active ? static_cast<int>(sim::machine.processors)
                     : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*function)(void*),
                   void* argument) noexcept {
  static const auto real =
      sim::original<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>(
          "pthread_create");
  Core* const core = sim::self;
  if (core == nullptr) return real(thread, attributes, function, argument);
  Core& started = sim::add_core(core->clock + Costs::kWake);
  core->slice_end = std::min(core->slice_end, started.clock + Costs::kSlice);
  return real(thread, attributes, sim::start, new sim::Start{function, argument, &started});
}

int pthread_join(pthread_t thread, void** result) {
  static const auto real = sim::original<int(pthread_t, void**)>("pthread_join");
  Core* const core = sim::self;
  if (core == nullptr) return real(thread, result);
  sim::go_away(*core);
  const int status = real(thread, result);
  sim::come_back(*core);
  return status;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  Core* const core = sim::self;
  if (core == nullptr) {
    static const auto real = sim::original<int(pthread_mutex_t*)>("pthread_mutex_lock");
    return real(mutex);
  }
  sim::touch_locked(mutex, 4, __builtin_return_address(0));
  while (pthread_mutex_trylock(mutex) == EBUSY) sim::spend(*core, Costs::kCall);
  return 0;
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  static const auto real =
      sim::original<int(pthread_cond_t*, pthread_mutex_t*)>("pthread_cond_wait");
  Core* const core = sim::self;
  if (core == nullptr) return real(condition, mutex);
  pthread_mutex_unlock(mutex);
  sim::sleep_on(*core, condition, sim::kNever);
  return pthread_mutex_lock(mutex);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* until) {
  static const auto real =
      sim::original<int(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*)>(
          "pthread_cond_clockwait");
  Core* const core = sim::self;
  if (core == nullptr) return real(condition, mutex, clock, until);
  pthread_mutex_unlock(mutex);
  const bool woken = sim::sleep_on(*core, condition, sim::to_clock(*until));
  pthread_mutex_lock(mutex);
  return woken ? 0 : ETIMEDOUT;
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  static const auto real = sim::original<int(pthread_cond_t*)>("pthread_cond_signal");
  Core* const core = sim::self;
  if (core == nullptr) return real(condition);
  sim::futex_wake(*core, condition, 1);
  return 0;
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  static const auto real = sim::original<int(pthread_cond_t*)>("pthread_cond_broadcast");
  Core* const core = sim::self;
  if (core == nullptr) return real(condition);
  sim::futex_wake(*core, condition, std::numeric_limits<int>::max());
  return 0;
}

}  // extern "C"

// --- What the compiler calls ---------------------------------------------------------------------

#define MAGPIE_HERE __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define MAGPIE_ACCESS(bytes)                    \
  void __tsan_read##bytes(void* p) {            \
    sim::touch(p, bytes, false, MAGPIE_HERE);   \
  }                                             \
  void __tsan_write##bytes(void* p) {           \
    sim::touch(p, bytes, true, MAGPIE_HERE);    \
  }                                             \
  void __tsan_unaligned_read##bytes(void* p) {  \
    sim::touch(p, bytes, false, MAGPIE_HERE);   \
  }                                             \
  void __tsan_unaligned_write##bytes(void* p) { \
    sim::touch(p, bytes, true, MAGPIE_HERE);    \
  }
MAGPIE_ACCESS(1)
MAGPIE_ACCESS(2)
MAGPIE_ACCESS(4)
MAGPIE_ACCESS(8)
MAGPIE_ACCESS(16)

void __tsan_vptr_update(void** p, void*) {
  sim::touch(p, 8, true, MAGPIE_HERE);
}
void __tsan_vptr_read(void** p) {
  sim::touch(p, 8, false, MAGPIE_HERE);
}

void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  if (bytes != 0) {
    sim::touch(from, bytes, false, MAGPIE_HERE);
    sim::touch(to, bytes, true, MAGPIE_HERE);
  }
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  if (bytes != 0) {
    sim::touch(from, bytes, false, MAGPIE_HERE);
    sim::touch(to, bytes, true, MAGPIE_HERE);
  }
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  if (bytes != 0) sim::touch(to, bytes, true, MAGPIE_HERE);
  return std::memset(to, value, bytes);
}

#define MAGPIE_UPDATE(bits, T, name, builtin)                   \
  T __tsan_atomic##bits##_##name(volatile T* p, T value, int) { \
    sim::touch_locked(p, sizeof(T), MAGPIE_HERE);               \
    return builtin(p, value, __ATOMIC_SEQ_CST);                 \
  }
#define MAGPIE_ATOMICS(bits, T)                                                                    \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    sim::touch(p, sizeof(T), false, MAGPIE_HERE);                                                  \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int order) {                            \
    if (order == __ATOMIC_SEQ_CST)                                                                 \
      sim::touch_locked(p, sizeof(T), MAGPIE_HERE);                                                \
    else                                                                                           \
      sim::touch(p, sizeof(T), true, MAGPIE_HERE);                                                 \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                \
  MAGPIE_UPDATE(bits, T, exchange, __atomic_exchange_n)                                            \
  MAGPIE_UPDATE(bits, T, fetch_add, __atomic_fetch_add)                                            \
  MAGPIE_UPDATE(bits, T, fetch_sub, __atomic_fetch_sub)                                            \
  MAGPIE_UPDATE(bits, T, fetch_and, __atomic_fetch_and)                                            \
  MAGPIE_UPDATE(bits, T, fetch_or, __atomic_fetch_or)                                              \
  MAGPIE_UPDATE(bits, T, fetch_xor, __atomic_fetch_xor)                                            \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected, T desired, int, int) {   \
    sim::touch_locked(p, sizeof(T), MAGPIE_HERE);                                                  \
    __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    return expected;                                                                               \
  }
MAGPIE_ATOMICS(8, std::uint8_t)
MAGPIE_ATOMICS(16, std::uint16_t)
MAGPIE_ATOMICS(32, std::uint32_t)
MAGPIE_ATOMICS(64, std::uint64_t)

void __tsan_atomic_thread_fence(int order) {
  if (Core* const core = sim::self; core != nullptr && order == __ATOMIC_SEQ_CST) {
    ++core->traffic.locked;
    sim::spend(*core, Costs::kLocked);
  }
}
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"
