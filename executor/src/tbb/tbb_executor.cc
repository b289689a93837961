// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/task_arena.h>

#include <magpie/detail/executor_services.h>
#include <magpie/detail/injection_queue.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/worker.h>
#include <magpie/tbb_executor.h>

namespace magpie {
namespace detail {

// oneTBB has as many threads as the machine has processors unless it is allowed more, process-wide,
// and of several permissions the smallest counts. So there is one, for the largest of our arenas,
// and none where that needs none.
class ArenaThreads {
 public:
  explicit ArenaThreads(std::size_t wanted) {
    std::lock_guard guard(all().mutex);
    place_ = all().wanted.insert(wanted);
    try {
      allow();
    } catch (...) {
      all().wanted.erase(place_);
      throw;
    }
  }
  ~ArenaThreads() {
    std::lock_guard guard(all().mutex);
    all().wanted.erase(place_);
    try {
      allow();
    } catch (...) {
      // Without memory oneTBB goes back to as many threads as there are processors.
    }
  }
  ArenaThreads(const ArenaThreads&) = delete;
  ArenaThreads& operator=(const ArenaThreads&) = delete;

 private:
  struct All {
    std::mutex mutex;
    std::multiset<std::size_t> wanted;
    std::size_t allowed = 0;
    std::unique_ptr<tbb::global_control> control;
  };
  static All& all() {
    static All* const all = new All();  // executors may end after static objects
    return *all;
  }
  static void allow() {
    const auto enough = static_cast<std::size_t>(tbb::info::default_concurrency());
    const std::size_t most = all().wanted.empty() ? 0 : *all().wanted.rbegin();
    const std::size_t needed = most > enough ? most : 0;
    if (needed == all().allowed) return;
    all().control.reset();
    all().allowed = 0;
    if (needed == 0) return;
    all().control =
        std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism, needed);
    all().allowed = needed;
  }

  std::multiset<std::size_t>::iterator place_;
};

// Pumps take ready work from the queue; as many are enqueued in the arena as there is use for, up
// to its number of threads. Each is an entrant of the executor from the moment it is enqueued, so
// the destructor waits for it.
class TbbMachine {
 public:
  TbbMachine(Executor& executor, ExecutorServices& services, std::size_t threads)
      : executor_(executor),
        services_(services),
        allow_(std::in_place, threads + 1),
        own_(std::in_place, static_cast<int>(threads), 0u),
        arena_(*own_),
        most_pumps_(threads) {
    own_->initialize();
  }
  TbbMachine(Executor& executor, ExecutorServices& services, tbb::task_arena& arena)
      : executor_(executor), services_(services), arena_(arena) {
    arena_.initialize();
    most_pumps_ = static_cast<std::size_t>(std::max(1, arena_.max_concurrency()));
  }

  void schedule(Runnable& work) noexcept {
    services_.enter();  // until this is over the executor stays, whatever the work ends
    if (VirtualTime* const time = services_.virtual_time(); time != nullptr) time->work_begins();
    scheduled_.fetch_add(1, std::memory_order_relaxed);
    queue_.push(work);
    StdEnv::fence_seq_cst();  // the push before the look; pairs with the end of pump()
    add_pump();
    services_.leave();
  }

  std::size_t threads() const noexcept { return most_pumps_; }

  // All work comes through the one queue.
  void add_stats(ExecutorStats& stats) const noexcept {
    const std::uint64_t run = tasks_run_.load(std::memory_order_relaxed);
    const std::uint64_t scheduled = scheduled_.load(std::memory_order_relaxed);
    stats.total.tasks_run = run;
    stats.total.injected = run;
    stats.total.queue_depth = scheduled > run ? static_cast<std::size_t>(scheduled - run) : 0;
  }

 private:
  // What is enqueued. The closure travels through oneTBB, whose synchronisation ThreadSanitizer
  // cannot see; the work itself travels through queue_, which it can.
  struct Thunk {
    TbbMachine* machine;
    __attribute__((no_sanitize("thread"))) void operator()() const { machine->pump(); }
  };

  bool claim_pump() noexcept {
    std::size_t pumps = pumps_.load(std::memory_order_seq_cst);
    do {
      if (pumps >= most_pumps_)
        return false;  // one of them looks at the queue once more before it ends
    } while (!pumps_.compare_exchange_weak(pumps, pumps + 1, std::memory_order_seq_cst));
    return true;
  }

  void add_pump() noexcept {
    if (claim_pump()) enqueue();
  }

  void enqueue() noexcept {
    services_.enter();
    enqueued_.fetch_add(1, std::memory_order_release);  // pairs with pump()
    for (;;) {
      try {
        arena_.enqueue(Thunk{this});
        return;
      } catch (const std::bad_alloc&) {
        StdEnv::yield_thread();  // work must not be lost: wait for memory
      }
    }
  }

  // oneTBB orders an enqueue before its run, but ThreadSanitizer cannot see inside it: this edge is
  // for its eyes.
  static inline std::atomic<std::uint32_t> enqueued_{0};

  void pump() noexcept {
    enqueued_.load(std::memory_order_acquire);  // pairs with enqueue()
    constexpr int kTurn = 64;                   // then the arena's other work has its turn
    const ExecutorThreadScope on_executor(&executor_, nullptr);
    bool again = false;
    for (;;) {
      int ran = 0;
      for (; ran < kTurn; ++ran) {
        Runnable* const work = queue_.pop();
        if (work == nullptr) break;
        tasks_run_.fetch_add(1, std::memory_order_relaxed);
        work->run();
        forget_locals();
        if (VirtualTime* const time = services_.virtual_time(); time != nullptr) time->work_ends();
      }
      if (ran == kTurn) {
        again = true;
        break;
      }
      pumps_.fetch_sub(1, std::memory_order_seq_cst);  // pairs with the fence in schedule()
      if (queue_.still_empty() || !claim_pump()) break;
    }
    if (again) enqueue();
    services_.leave();
  }

  Executor& executor_;
  ExecutorServices& services_;
  std::optional<ArenaThreads> allow_;
  std::optional<tbb::task_arena> own_;
  tbb::task_arena& arena_;
  std::size_t most_pumps_ = 1;
  InjectionQueue<StdEnv> queue_;
  alignas(kCacheLine) std::atomic<std::size_t> pumps_{0};
  // For stats(): pieces of work that came, and that were taken from the queue.
  std::atomic<std::uint64_t> scheduled_{0};
  std::atomic<std::uint64_t> tasks_run_{0};
};

}  // namespace detail

namespace {

std::unique_ptr<detail::ExecutorServices> make_services(const ExecutorOptions& options) {
  if (options.pin_threads) {
    throw std::invalid_argument(
        "TbbExecutor cannot pin threads: they are oneTBB's; constrain the arena instead");
  }
  auto services = std::make_unique<detail::ExecutorServices>(
      options, options.clock != nullptr ? *options.clock : system_steady_clock());
  services->timers.serve_without_grace();
  return services;
}

}  // namespace

TbbExecutor::TbbExecutor(ExecutorOptions options) : Executor(make_services(options)) {
  machine_ = std::make_unique<detail::TbbMachine>(
      *this, services(), detail::WorkStealingMachine::wanted_threads(options.threads));
  is_made();
}

TbbExecutor::TbbExecutor(tbb::task_arena& arena, ExecutorOptions options)
    : Executor(make_services(options)) {
  machine_ = std::make_unique<detail::TbbMachine>(*this, services(), arena);
  is_made();
}

TbbExecutor::~TbbExecutor() {
  if (detail::current_executor() == this) {
    std::fputs(
        "magpie: an executor was destroyed by one of its own tasks, which it would have to wait "
        "for: destroy it elsewhere\n",
        stderr);
    std::terminate();
  }
  services().shutdown(Duration(), true);
  services().blocking.stop();
  services().timers.stop_monitor();
  services().wait_for_entrants();
  is_unmade();
}

void TbbExecutor::schedule(detail::Runnable& work) noexcept {
  machine_->schedule(work);
}
std::size_t TbbExecutor::thread_count() const {
  return machine_->threads();
}

ExecutorStats TbbExecutor::stats() const {
  ExecutorStats stats = Executor::stats();
  machine_->add_stats(stats);
  return stats;
}

ShutdownReport TbbExecutor::shutdown(Duration drain) {
  detail::refuse_on_worker("shutdown()");
  return services().shutdown(drain, false);
}

}  // namespace magpie
