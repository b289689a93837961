// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bridge to MPI: its nonblocking operations as awaitables.
//
//     MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
//     {
//       MpiThread mpi;
//       WorkStealingExecutor workers;
//       ...
//       auto [sent, received] = co_await gather(                                  // within a task
//           mpi.complete(MPI_Isend, halo.data(), 64, MPI_DOUBLE, left, kTag, MPI_COMM_WORLD),
//           timeout(mpi.receive(next.data(), 64, MPI_DOUBLE, right, kTag, MPI_COMM_WORLD), 5s));
//       co_await mpi.complete(MPI_Iallreduce, &mine, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
//     }
//     MPI_Finalize();
//
// An operation starts when it is awaited, on the MpiThread, which asks MPI for it until it has
// ended: no worker waits within MPI, and MPI is called by one thread.
//
// Cancellation: an operation that has not started then does not start. Afterwards its buffers are
// MPI's until it has ended, so CancelledError, or TimeoutError, is thrown then and not before. A
// receive() is told to end (MPI_Cancel); what arrives all the same is its value. Everything else
// MPI cannot cancel: it is waited for, and its value is delivered, the cancellation being seen at
// the next cancellation point.
//
// Errors: MPI ends the process at most of them, unless the communicator's error handler is
// MPI_ERRORS_RETURN; then they are thrown, as MpiError.
//
// Not in <magpie/magpie.h>, as it includes MPI (3.0 or later): link magpie::mpi.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include <mpi.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/clock.h>
#include <magpie/promise.h>
#include <magpie/result.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace magpie {

/// An operation of MPI has failed; what() is MPI's own sentence.
class MpiError : public std::runtime_error {
 public:
  explicit MpiError(int code) : std::runtime_error(text_of(code)), code_(code) {
    MPI_Error_class(code, &class_);
  }
  /// What the function has returned, or the operation's status has said.
  [[nodiscard]] int code() const noexcept { return code_; }
  /// Of the standard's classes that code's: MPI_ERR_TRUNCATE, say.
  [[nodiscard]] int error_class() const noexcept { return class_; }

 private:
  static std::string text_of(int code) {
    std::string text(MPI_MAX_ERROR_STRING, '\0');
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    text.resize(static_cast<std::size_t>(length));
    return text;
  }

  int code_;
  int class_ = MPI_ERR_UNKNOWN;
};

namespace detail {

/// One operation, in the frame of the coroutine that waits for it.
struct MpiOperation {
  explicit MpiOperation(bool is_cancellable) : cancellable(is_cancellable) {}
  /// What MPI returns.
  virtual int start() = 0;

  const bool cancellable;
  std::atomic<bool> told{false};  // that it is cancelled
  MpiOperation* next = nullptr;
  MPI_Request request = MPI_REQUEST_NULL;
  Promise<> ended;  // set after all others, which nobody touches then; may have no memory

  MPI_Status status{};
  bool cancelled = false;
  std::exception_ptr error;

 protected:
  ~MpiOperation() = default;
};
template <class Start>
struct MpiOperationOf final : MpiOperation {
  MpiOperationOf(Start& how, bool is_cancellable) : MpiOperation(is_cancellable), start_it(how) {}
  int start() override { return start_it(&request); }
  Start& start_it;
};

}  // namespace detail

/// The thread that calls MPI for tasks. One is enough for a process. MPI must have been initialised
/// before, with MPI_THREAD_SERIALIZED or MPI_THREAD_MULTIPLE, and be finalised after it. With the
/// former nobody else calls MPI while operations are under way here; with the latter anybody may,
/// though with Open MPI, at least until 4.1, not while a receive() is being cancelled: a message
/// that another thread's call receives then may be lost.
///
/// Its functions may be called by any thread; what they return is awaited by tasks, of any
/// executor. Make it before the executors, whose destructors wait for tasks that use it; its own
/// waits for operations under way.
class MpiThread {
 public:
  /// MPI has no wake-up, so it is asked: all the time while something has started or ended within
  /// the last 50 us, then every `poll_every`, which is how long a message may lie there, and a long
  /// one may stand still; zero: all the time, at the cost of a processor. Nothing is asked, and no
  /// time spent, while nothing is under way. std::logic_error if MPI is not as it must be.
  explicit MpiThread(Duration poll_every = std::chrono::microseconds(50))
      : poll_every_(std::min(poll_every, Duration(std::chrono::hours(1))).to_chrono()) {
    require_initialised();
    thread_ = std::thread([this] { run(); });
  }
  MpiThread(const MpiThread&) = delete;
  MpiThread& operator=(const MpiThread&) = delete;
  ~MpiThread() {
    tell([this] { ending_ = true; });
    thread_.join();
  }

  /// `start(arguments..., &request)` starts an operation, as MPI_Isend, MPI_Ibarrier or a function
  /// of one's own do, and returns MPI's code; it is called by the MpiThread, and must not wait. The
  /// task gives the operation's status once it has ended. Arguments are copied, what they point to
  /// is not. A persistent request is started by
  /// `[&](MPI_Request* request) { *request = mine; return MPI_Start(request); }`. What the function
  /// throws, the task throws.
  template <class Start, class... Arguments>
  requires std::is_invocable_r_v<int, Start&, Arguments&..., MPI_Request*>
  [[nodiscard]] Task<MPI_Status> complete(Start start, Arguments... arguments) {
    return run_operation([start = std::move(start), ... arguments = std::move(arguments)](
                             MPI_Request* request) mutable { return start(arguments..., request); },
                         false);
  }

  /// Receives a message, as MPI_Irecv does; may be cancelled.
  [[nodiscard]] Task<MPI_Status> receive(void* buffer, int count, MPI_Datatype type, int source,
                                         int tag, MPI_Comm communicator) {
    return run_operation(
        [=](MPI_Request* request) {
          return MPI_Irecv(buffer, count, type, source, tag, communicator, request);
        },
        true);
  }

 private:
  using Operation = detail::MpiOperation;
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kBusy{50};

  static void require_initialised() {
    int initialised = 0;
    int finalised = 0;
    int level = MPI_THREAD_SINGLE;
    MPI_Initialized(&initialised);
    MPI_Finalized(&finalised);
    if (initialised == 0 || finalised != 0) {
      throw std::logic_error(
          "MpiThread: MPI is not initialised; it must outlive this object, so call MPI_Init_thread "
          "before and MPI_Finalize after it");
    }
    MPI_Query_thread(&level);
    if (level < MPI_THREAD_SERIALIZED) {
      throw std::logic_error(
          "MpiThread: MPI was initialised for the main thread alone; call MPI_Init_thread with "
          "MPI_THREAD_SERIALIZED or MPI_THREAD_MULTIPLE, and look at what it provides");
    }
  }

  template <class Start>
  Task<MPI_Status> run_operation(Start start, bool cancellable) {
    co_await this_task::checkpoint();
    detail::MpiOperationOf<Start> operation(start, cancellable);
    const Future<> ended = operation.ended.future();
    // From here on nothing may throw before it has ended.
    add(operation);
    Result<void> waited = co_await as_result(ended);
    if (!waited.has_value()) {
      cancel(operation);
      co_await uncancellable(ended);
    }
    if (operation.cancelled) std::move(waited).value();  // throws CancelledError
    if (operation.error) std::rethrow_exception(std::move(operation.error));
    co_return operation.status;
  }

  void add(Operation& operation) noexcept {
    tell([&] { operation.next = std::exchange(arrived_, &operation); });
  }
  void cancel(Operation& operation) noexcept {
    operation.told.store(true, std::memory_order_relaxed);  // ordered by the lock
    tell([this] { some_cancelled_ = true; });
  }
  template <class News>
  void tell(News news) noexcept {
    {
      const std::lock_guard lock(mutex_);
      news();
    }
    news_.notify_one();
  }

  // The thread.

  void run() noexcept {
    Operation* under_way = nullptr;
    Clock::time_point busy_until{};
    for (;;) {
      Operation* arrived = wait_for_news(under_way != nullptr, busy_until);
      if (arrived == nullptr && under_way == nullptr) return;
      const bool busy = arrived != nullptr;
      start_all(arrived, under_way);
      if (end_some(under_way) || busy) {
        busy_until = Clock::now() + kBusy;
      } else {
        std::this_thread::yield();
      }
    }
  }

  // Not for long while something is under way. Gives what has arrived, the newest first; if nothing
  // is under way, nothing is the end.
  Operation* wait_for_news(bool some_under_way, Clock::time_point busy_until) noexcept {
    std::unique_lock lock(mutex_);
    if (!some_under_way) {
      news_.wait(lock, [this] { return arrived_ != nullptr || ending_; });
    } else if (poll_every_.count() != 0 && Clock::now() > busy_until) {
      news_.wait_for(lock, poll_every_, [this] { return arrived_ != nullptr || some_cancelled_; });
    }
    some_cancelled_ = false;
    return std::exchange(arrived_, nullptr);
  }

  // In the order in which they have arrived, as messages do not overtake each other.
  static void start_all(Operation* arrived, Operation*& under_way) noexcept {
    Operation* oldest = nullptr;
    while (arrived != nullptr) {
      Operation& operation = *std::exchange(arrived, arrived->next);
      operation.next = std::exchange(oldest, &operation);
    }
    while (oldest != nullptr) {
      Operation& operation = *std::exchange(oldest, oldest->next);
      if (begin(operation)) {
        operation.next = std::exchange(under_way, &operation);
      } else {
        operation.ended.set_value();
      }
    }
  }
  static bool begin(Operation& operation) noexcept {
    operation.cancelled = operation.told.load(std::memory_order_relaxed);
    return !operation.cancelled && succeeds(operation, [&] { return operation.start(); });
  }

  // Asked for one by one: of several at once, MPI_Testsome, MPICH asks MPI_COMM_WORLD's error
  // handler what to do if one has failed, not its communicator's.
  static bool end_some(Operation*& under_way) noexcept {
    bool some = false;
    for (Operation** link = &under_way; *link != nullptr;) {
      Operation& operation = **link;
      if (operation.told.load(std::memory_order_relaxed)) {
        operation.told.store(false, std::memory_order_relaxed);
        if (operation.cancellable) MPI_Cancel(&operation.request);
      }
      if (has_ended(operation)) {
        *link = operation.next;
        operation.ended.set_value();  // its frame may go
        some = true;
      } else {
        link = &operation.next;
      }
    }
    return some;
  }
  static bool has_ended(Operation& operation) noexcept {
    int done = 0;
    const auto test = [&] { return MPI_Test(&operation.request, &done, &operation.status); };
    if (!succeeds(operation, test)) return true;
    if (done != 0 && operation.cancellable) {
      int cancelled = 0;
      MPI_Test_cancelled(&operation.status, &cancelled);
      operation.cancelled = cancelled != 0;
    }
    return done != 0;
  }

  template <class Call>
  static bool succeeds(Operation& operation, Call call) noexcept {
    try {
      const int code = call();
      if (code != MPI_SUCCESS) throw MpiError(code);
      return true;
    } catch (...) {
      operation.error = std::current_exception();
      return false;
    }
  }

  const std::chrono::nanoseconds poll_every_;
  std::mutex mutex_;
  std::condition_variable news_;
  Operation* arrived_ = nullptr;  // under the lock, as are the next two
  bool some_cancelled_ = false;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace magpie
