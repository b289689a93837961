// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (most of it are Asio's templates; packaging.other_compiler has the header)

// Asio's operations as awaitables, and tasks as its operations. Sockets and their timers know real
// time alone: what waits for it here waits for milliseconds.

// Else Asio does not allocate by operator new.
#define ASIO_DISABLE_STD_ALIGNED_ALLOC
#include <magpie/asio.h>

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <semaphore>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/buffer.hpp>
#include <asio/execution/blocking.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/local/connect_pair.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/read.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/use_future.hpp>
#include <asio/write.hpp>

#include <gtest/gtest.h>

#include <magpie/errors.h>
#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

#include <support/counting_new.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using Socket = asio::local::stream_protocol::socket;

// Keeps the thread of an io_context busy until it is let go.
class Blocked {
 public:
  explicit Blocked(IoThread& io) {
    std::promise<void> there;
    std::future<void> is_there = there.get_future();
    asio::post(io.context(), [this, there = std::move(there)]() mutable {
      there.set_value();
      go_.acquire();
    });
    is_there.wait();
  }
  void let_go() { go_.release(); }

 private:
  std::binary_semaphore go_{0};
};

// A handler whose type is forgotten: then Asio's templates are made once for each signature, and
// not for each test. It is dropped with the last copy.
template <class Signature>
class Completion;
template <class... Args>
class Completion<void(Args...)> {
 public:
  template <class Handler>
  explicit Completion(std::shared_ptr<Handler> handler)
      : slot(asio::get_associated_cancellation_slot(*handler)),
        complete_([handler](Args... args) { std::move (*handler)(std::move(args)...); }) {}
  void operator()(Args... args) const { complete_(std::move(args)...); }
  asio::cancellation_slot slot;

 private:
  std::function<void(Args...)> complete_;
};

// An operation of a user's: `start` gets the handler.
template <class Signature>
struct Initiation {
  template <class Handler>
  void operator()(Handler handler) {
    start(Completion<Signature>(std::make_shared<Handler>(std::move(handler))));
  }
  std::function<void(Completion<Signature>)> start;
};
template <class Signature, class Token = const UseTask>
auto operation(std::function<void(Completion<Signature>)> start, Token& token = use_task) {
  return asio::async_initiate<Token&, Signature>(Initiation<Signature>{std::move(start)}, token);
}
// The same on an executor.
template <class Signature>
struct InitiationOnThread : Initiation<Signature> {
  using executor_type = asio::io_context::executor_type;
  executor_type get_executor() const noexcept { return executor; }
  executor_type executor;
};
template <class Signature>
auto operation_on(asio::io_context& context, std::function<void(Completion<Signature>)> start) {
  return asio::async_initiate<const UseTask&, Signature>(
      InitiationOnThread<Signature>{{std::move(start)}, context.get_executor()}, use_task);
}

// An executor that runs nothing before it is told to, and may refuse.
class Manual {
 public:
  struct Moods {
    std::mutex mutex;
    std::deque<std::function<void()>> queue;
    int refusals = 0;           // so many of the next it throws at
    std::exception_ptr behind;  // thrown at the next, which is queued all the same
  };
  explicit Manual(Moods& moods) noexcept : moods_(&moods) {}
  bool operator==(const Manual&) const noexcept = default;
  Manual require(asio::execution::blocking_t::never_t) const noexcept { return *this; }

  template <class F>
  void execute(F function) const {
    std::lock_guard guard(moods_->mutex);
    if (moods_->refusals > 0) {
      --moods_->refusals;
      throw std::domain_error("refused");
    }
    moods_->queue.push_back(
        [kept = std::make_shared<F>(std::move(function))] { std::move (*kept)(); });
    if (moods_->behind) std::rethrow_exception(std::exchange(moods_->behind, nullptr));
  }
  std::size_t queued() const {
    std::lock_guard guard(moods_->mutex);
    return moods_->queue.size();
  }
  void run_newest() const {
    std::function<void()> newest;
    {
      std::lock_guard guard(moods_->mutex);
      newest = std::move(moods_->queue.back());
      moods_->queue.pop_back();
    }
    newest();
  }

 private:
  Moods* moods_;
};

// Completes at once when it is told, and then only.
void complete_when_told(Completion<void(asio::error_code)> handler, asio::error_code error) {
  handler.slot.assign([handler, error](asio::cancellation_type type) {
    EXPECT_EQ(type, asio::cancellation_type::all);
    handler(error);
  });
}

class AsioTest : public ::testing::Test {
 protected:
  AsioTest() { asio::local::connect_pair(near, far); }

  void send(const std::string& text) { asio::write(far, asio::buffer(text)); }
  auto read_some() { return near.async_read_some(asio::buffer(buffer), use_task); }
  std::string text(std::size_t size) const { return std::string(buffer.data(), size); }
  template <class Signature>
  auto on_thread(std::function<void(Completion<Signature>)> start) {
    return operation_on<Signature>(io.context(), std::move(start));
  }

  // The only task.
  void wait_until_it_waits() const {
    for (std::string tasks; tasks.find("a future") == std::string::npos;) {
      std::ostringstream out;
      workers.dump_tasks(out);
      tasks = out.str();
    }
  }

  asio::io_context own;  // which each test runs itself
  IoThread io;
  Socket near{io.context()};
  Socket far{io.context()};
  std::array<char, 64> buffer{};
  WorkStealingExecutor workers{{.threads = 2}};
};

template <class A>
std::error_code code_of(WorkStealingExecutor& workers, A&& task) {
  try {
    workers.run(std::forward<A>(task));
  } catch (const asio::system_error& error) {
    return error.code();
  }
  return {};
}

TEST_F(AsioTest, AnOperationGivesItsValueToTheTaskOnItsWorker) {
  auto task = [&]() -> Task<> {
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(co_await asio::async_write(far, asio::buffer("hello", 5), use_task), 5u);
    EXPECT_EQ(text(co_await read_some()), "hello");
    EXPECT_EQ(&co_await this_task::executor(), &here);
    EXPECT_EQ(detail::current_executor(), &workers);
  };
  workers.run(task());
}

TEST_F(AsioTest, AnOperationStartsWhenItIsAwaited) {
  send("early");
  std::atomic<int> begun{0};
  auto start = [&](auto handler) {
    ++begun;
    handler();
  };
  {
    auto never = on_thread<void()>(start);
  }
  auto later = on_thread<void()>(start);
  EXPECT_EQ(begun, 0);
  workers.run(std::move(later));
  EXPECT_EQ(begun, 1);
}

TEST_F(AsioTest, AnErrorIsThrown) {
  far.close();
  EXPECT_EQ(code_of(workers, read_some()), asio::error::eof);
}

TEST_F(AsioTest, WhatACompletionSaysDecidesTheTaskType) {
  using Several = void(std::error_code, int, std::string);
  auto both = [](auto handler) { handler(std::error_code(), 7, "seven"); };
  EXPECT_EQ(workers.run(on_thread<Several>(both)), std::make_tuple(7, std::string("seven")));
  using Pointer = void(std::error_code, std::unique_ptr<int>);
  auto moved = [](auto handler) { handler({}, std::make_unique<int>(8)); };
  EXPECT_EQ(*workers.run(on_thread<Pointer>(moved)), 8);
  auto plain = [](auto handler) { handler(9); };
  EXPECT_EQ(workers.run(on_thread<void(int)>(plain)), 9);
  static_assert(std::is_same_v<decltype(asio::post(io.context(), use_task)), Task<>>);
  workers.run(asio::post(io.context(), use_task));
  workers.run(asio::post(use_task));
}

TEST_F(AsioTest, AnExceptionOfACompletionIsThrown) {
  auto failing = [](auto handler) { handler(std::make_exception_ptr(std::domain_error("no")), 0); };
  EXPECT_THROW(workers.run(on_thread<void(std::exception_ptr, int)>(failing)), std::domain_error);
  auto fine = [](auto handler) { handler(nullptr, 5); };
  EXPECT_EQ(workers.run(on_thread<void(std::exception_ptr, int)>(fine)), 5);
}

TEST_F(AsioTest, AnAcceptedSocketIsMovedOut) {
  using asio::ip::tcp;
  tcp::acceptor acceptor(io.context(), tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  tcp::socket client(io.context());
  auto accept = [&]() -> Task<> {
    auto [server, nothing] = co_await gather(
        acceptor.async_accept(use_task), client.async_connect(acceptor.local_endpoint(), use_task));
    EXPECT_EQ(server.local_endpoint(), acceptor.local_endpoint());
  };
  workers.run(accept());
}

TEST_F(AsioTest, ItIsTheDefaultTokenOfAnObjectThatSaysSo) {
  auto timer = UseTask::as_default_on(asio::steady_timer(io.context(), 1ms));
  workers.run(timer.async_wait());
}

TEST_F(AsioTest, AsTupleMakesTheErrorAValue) {
  far.close();
  auto [error, n] = workers.run(
      near.async_read_some(asio::buffer(buffer), asio::experimental::as_tuple(use_task)));
  EXPECT_EQ(error, asio::error::eof);
  EXPECT_EQ(n, 0u);
}

// --- cancellation --------------------------------------------------------------------------------

TEST_F(AsioTest, ACancelledOperationIsOverWhenItsTaskGoesOn) {
  auto give_up = [&]() -> Task<> {
    auto short_lived = std::make_unique<std::array<char, 64>>();
    auto mutable_buffer = asio::buffer(*short_lived);
    co_await timeout(near.async_read_some(mutable_buffer, use_task), 2ms);
  };
  EXPECT_THROW(workers.run(give_up()), TimeoutError);
  send("whole");
  EXPECT_EQ(text(workers.run(read_some())), "whole");
}

TEST_F(AsioTest, ASuccessThatMeetsACancellationKeepsItsValue) {
  send("kept");
  Blocked blocked(io);
  std::atomic<bool> seen = false;
  auto task = [&]() -> Task<> {
    EXPECT_EQ(text(co_await read_some()), "kept");
    seen = true;
    co_await this_task::checkpoint();
    ADD_FAILURE() << "the cancellation was not seen";
  };
  JoinHandle<> handle = workers.spawn(task());
  wait_until_it_waits();
  handle.cancel();
  blocked.let_go();
  EXPECT_TRUE(handle.wait().is_cancelled());
  EXPECT_TRUE(seen);
}

TEST_F(AsioTest, NothingBeginsInACancelledScope) {
  std::atomic<int> begun{0};
  auto task = [&]() -> Task<> {
    auto body = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await on_thread<void()>([&](auto handler) {
        ++begun;
        handler();
      });
    };
    EXPECT_TRUE((co_await cancel_scope(body)).is_cancelled());
  };
  workers.run(task());
  EXPECT_EQ(begun, 0);
}

TEST_F(AsioTest, WhatWasReadBeforeTheCancellationIsToldAsATuple) {
  send("abc");
  auto task = [&]() -> Task<std::size_t> {
    std::size_t read = 0;
    auto body = [&](CancelScope&) -> Task<> {
      auto all =
          asio::async_read(near, asio::buffer(buffer), asio::experimental::as_tuple(use_task));
      auto [error, n] = co_await std::move(all);
      EXPECT_EQ(error, asio::error::operation_aborted);
      read = n;
      co_await this_task::checkpoint();
      ADD_FAILURE() << "the cancellation was not seen";
    };
    auto scoped = [&]() -> Task<> { (void)co_await cancel_scope(body); };
    EXPECT_TRUE((co_await try_timeout(scoped(), 2ms)).is_timeout());
    co_return read;
  };
  EXPECT_EQ(workers.run(task()), 3u);
}

TEST_F(AsioTest, ATokenThatAdaptsItKeepsTheExecutor) {
  asio::error_code error;
  auto token = asio::redirect_error(asio::experimental::as_tuple(use_task), error);
  auto task = [&]() -> Task<> {
    auto body = [&]() -> Task<> {
      (void)co_await near.async_read_some(asio::buffer(buffer), token);
      EXPECT_EQ(error, asio::error::operation_aborted);
    };
    co_await timeout(body(), 2ms);
  };
  workers.run(task());
}

TEST_F(AsioTest, AnAbortThatIsNotTheTasksOwnIsAnError) {
  asio::steady_timer timer(io.context(), 1h);
  JoinHandle<> handle = workers.spawn(timer.async_wait(use_task));
  std::atomic<std::size_t> cancelled{0};
  while (cancelled == 0) asio::post(io.context(), [&] { cancelled += timer.cancel(); });
  try {
    handle.wait().value();
    ADD_FAILURE() << "no error";
  } catch (const asio::system_error& error) {
    EXPECT_EQ(error.code(), asio::error::operation_aborted);
  }
  std::promise<void> all_posted;
  asio::post(io.context(), [&] { all_posted.set_value(); });
  all_posted.get_future().wait();
}

TEST_F(AsioTest, AnOperationThatKnowsNoExecutorStartsOnTheWorkerAndCannotBeTold) {
  auto start = [](auto handler) {
    EXPECT_NE(detail::current_executor(), nullptr);
    EXPECT_FALSE(handler.get_cancellation_slot().is_connected());
    // Else Asio would run the steps of other operations there.
    static_assert(!requires { typename decltype(handler)::executor_type; });
    std::thread([kept = std::move(handler)]() mutable {
      std::this_thread::sleep_for(3ms);
      std::move(kept)(asio::error_code(), 5);
    }).detach();
  };
  using Signature = void(asio::error_code, int);
  auto late = asio::async_initiate<const UseTask&, Signature>(start, use_task);
  EXPECT_EQ(workers.run(timeout(std::move(late), 1ms)), 5);
}

TEST_F(AsioTest, AnExecutorThatIsBoundToTheTokenIsTheOperations) {
  const auto strand = asio::make_strand(io.context());
  auto start = [&](auto handler) {
    EXPECT_TRUE(strand.running_in_this_thread());
    complete_when_told(std::move(handler), asio::error::operation_aborted);
  };
  auto token = asio::bind_executor(strand, use_task);
  auto bound = operation<void(asio::error_code)>(start, token);
  EXPECT_THROW(workers.run(timeout(std::move(bound), 2ms)), TimeoutError);

  auto adapted = asio::bind_executor(strand, asio::experimental::as_tuple(use_task));
  auto tuple = operation<void(asio::error_code)>(start, adapted);
  auto [error] = workers.run(timeout(std::move(tuple), 2ms));
  EXPECT_EQ(error, asio::error::operation_aborted);
}

TEST_F(AsioTest, EveryErrorThatSaysSoIsItsCancellation) {
  for (const asio::error_code error :
       {asio::error_code(asio::error::operation_aborted),
        std::make_error_code(std::errc::operation_canceled),
        asio::error_code(asio::experimental::error::channel_cancelled)}) {
    auto waits = on_thread<void(asio::error_code)>(
        [&](auto handler) { complete_when_told(std::move(handler), error); });
    EXPECT_THROW(workers.run(timeout(std::move(waits), 1ms)), TimeoutError);
  }
}

TEST_F(AsioTest, ACancellationThatComesBeforeTheStartIsNotLost) {
  Manual::Moods moods;
  const Manual manual(moods);
  auto token = asio::bind_executor(manual, use_task);
  auto start = [](auto handler) {
    complete_when_told(std::move(handler), asio::error::operation_aborted);
  };
  auto task = operation<void(asio::error_code)>(start, token);
  JoinHandle<> handle = workers.spawn(std::move(task));
  while (manual.queued() < 1) std::this_thread::yield();
  handle.cancel();
  while (manual.queued() < 2) std::this_thread::yield();
  manual.run_newest();
  manual.run_newest();
  EXPECT_TRUE(handle.wait().is_cancelled());
}

TEST_F(AsioTest, AnOperationThatWillNotBeCancelledIsWaitedFor) {
  std::promise<void> waiting;
  std::function<void()> finish;
  auto stubborn = on_thread<void(int)>([&](auto handler) {
    finish = [handler] { handler(4); };
    waiting.set_value();
  });
  JoinHandle<int> handle = workers.spawn(std::move(stubborn));
  waiting.get_future().wait();
  handle.cancel();
  EXPECT_FALSE(handle.done());
  asio::post(io.context(), finish);
  EXPECT_EQ(handle.wait().value(), 4);
  finish = nullptr;
}

// --- what goes wrong -----------------------------------------------------------------------------

TEST_F(AsioTest, WhatTheStartThrowsIsThrown) {
  auto before = on_thread<void(int)>([](auto) { throw std::domain_error("before"); });
  EXPECT_THROW(workers.run(std::move(before)), std::domain_error);
  auto behind = on_thread<void(int)>([](auto handler) {
    {
      const auto taken = std::move(handler);
    }
    throw std::domain_error("behind");
  });
  EXPECT_THROW(workers.run(std::move(behind)), std::domain_error);
}

TEST_F(AsioTest, AnExecutorThatRefusesTheStartIsHeard) {
  Manual::Moods moods;
  moods.refusals = 1;
  const Manual manual(moods);
  auto token = asio::bind_executor(manual, use_task);
  auto start = [](auto) { ADD_FAILURE() << "refused, and started"; };
  auto task = operation<void()>(start, token);
  EXPECT_THROW(workers.run(std::move(task)), std::domain_error);
}

TEST_F(AsioTest, AnExecutorThatQueuesTheStartAndThrowsIsWaitedFor) {
  Manual::Moods moods;
  moods.behind = std::make_exception_ptr(std::domain_error("queued"));
  const Manual manual(moods);
  auto token = asio::bind_executor(manual, use_task);
  auto start = [](auto handler) { handler(3); };
  auto task = operation<void(int)>(start, token);
  JoinHandle<int> handle = workers.spawn(std::move(task));
  while (manual.queued() < 1) std::this_thread::yield();
  wait_until_it_waits();
  manual.run_newest();
  EXPECT_EQ(handle.wait().value(), 3);
}

TEST_F(AsioTest, AnOperationWhoseExecutorRefusesTheCancellationIsWaitedFor) {
  Manual::Moods moods;
  const Manual manual(moods);
  auto token = asio::bind_executor(manual, use_task);
  std::function<void()> finish;
  auto start = [&](auto handler) { finish = [handler] { handler(4); }; };
  auto task = operation<void(int)>(start, token);
  JoinHandle<int> handle = workers.spawn(std::move(task));
  while (manual.queued() < 1) std::this_thread::yield();
  manual.run_newest();
  {
    std::lock_guard guard(moods.mutex);
    moods.refusals = 1;
  }
  handle.cancel();
  for (bool refused = false; !refused;) {
    std::lock_guard guard(moods.mutex);
    refused = moods.refusals == 0;
  }
  finish();
  EXPECT_EQ(handle.wait().value(), 4);
}

TEST_F(AsioTest, ACancellationThatIsQueuedAndThrownForIsNotQueuedTwice) {
  Manual::Moods moods;
  const Manual manual(moods);
  auto token = asio::bind_executor(manual, use_task);
  std::function<void()> finish;
  int cancellations = 0;
  auto start = [&](auto handler) {
    handler.slot.assign([&](asio::cancellation_type) { ++cancellations; });
    finish = [handler] { handler(4); };
  };
  auto task = operation<void(int)>(start, token);
  JoinHandle<int> handle = workers.spawn(std::move(task));
  while (manual.queued() < 1) std::this_thread::yield();
  manual.run_newest();
  {
    std::lock_guard guard(moods.mutex);
    moods.behind = std::make_exception_ptr(std::bad_alloc());
  }
  handle.cancel();
  while (manual.queued() < 1) std::this_thread::yield();
  wait_until_it_waits();
  EXPECT_EQ(manual.queued(), 1u);
  manual.run_newest();
  EXPECT_EQ(cancellations, 1);
  finish();
  EXPECT_EQ(handle.wait().value(), 4);
  EXPECT_EQ(manual.queued(), 0u) << "it names an operation that has ended";
}

TEST_F(AsioTest, AnOperationThatHasCompletedIsNotToldOfItsCancellation) {
  Manual::Moods moods;
  const Manual manual(moods);
  auto token = asio::bind_executor(manual, use_task);
  std::function<void()> finish;
  auto start = [&](auto handler) {
    handler.slot.assign([&](asio::cancellation_type) { ADD_FAILURE() << "it has completed"; });
    finish = [handler] { handler(4); };
  };
  auto task = operation<void(int)>(start, token);
  JoinHandle<int> handle = workers.spawn(std::move(task));
  while (manual.queued() < 1) std::this_thread::yield();
  manual.run_newest();
  handle.cancel();
  while (manual.queued() < 1) std::this_thread::yield();
  finish();
  manual.run_newest();
  EXPECT_EQ(handle.wait().value(), 4);
}

TEST_F(AsioTest, AHandlerThatIsDroppedEndsTheOperation) {
  EXPECT_EQ(code_of(workers, on_thread<void(int)>([](auto) {})), asio::error::operation_aborted);
}

TEST_F(AsioTest, AnIoContextThatIsDestroyedEndsItsOperations) {
  std::optional<asio::io_context> context(std::in_place);
  JoinHandle<> waiting = workers.spawn(asio::post(*context, use_task));
  wait_until_it_waits();
  context.reset();
  EXPECT_THROW(waiting.wait().value(), asio::system_error);
}

#if !defined(MAGPIE_TSAN)
TEST_F(AsioTest, WhicheverAllocationFailsTheOperationEnds) {
  bool reached = true;
  std::size_t failed = 0;
  for (std::size_t n = 0; reached; ++n) {
    auto task = [&]() -> Task<> {
      test::fail_allocation_after(n);
      try {
        co_await timeout(read_some(), 100us);
        ADD_FAILURE() << "nothing was sent";
      } catch (const TimeoutError&) {
      } catch (const std::bad_alloc&) {
        ++failed;
      }
      reached = test::allocations() >= test::failing_allocation.exchange(0);
    };
    workers.run(task());
  }
  EXPECT_GT(failed, 0u);
  send("still there");
  EXPECT_EQ(text(workers.run(read_some())), "still there");
}
#endif

// --- many at once --------------------------------------------------------------------------------

TEST_F(AsioTest, ASocketIsReadAndWrittenAtOnce) {
  constexpr std::size_t kBytes = 100'000;
  auto write = [&](Socket& socket) -> Task<> {
    std::array<char, 100> some{};
    for (std::size_t n = 0; n < kBytes; n += some.size()) {
      auto all = asio::async_write(socket, asio::buffer(some), use_task);
      co_await std::move(all);
    }
  };
  auto read = [&](Socket& socket) -> Task<> {
    std::array<char, 70> some{};
    for (std::size_t n = 0; n < kBytes;) {
      auto next = socket.async_read_some(asio::buffer(some), use_task);
      n += co_await std::move(next);
    }
  };
  auto all = [&]() -> Task<> { co_await gather(write(near), read(near), write(far), read(far)); };
  workers.run(all());
}

// Deadlines that come while the answer does: no byte is lost or comes twice.
TEST_F(AsioTest, CancellationsRaceWithCompletions) {
  constexpr int kBytes = 2'000;
  auto sender = [&]() -> Task<> {
    for (int i = 0; i < kBytes; ++i) {
      const char byte = static_cast<char>(1 + i % 100);
      auto one = asio::async_write(far, asio::buffer(&byte, 1), use_task);
      co_await std::move(one);
      if (i % 3 == 0) co_await sleep_for(std::chrono::microseconds(i % 50));
    }
  };
  int timeouts = 0;
  auto receiver = [&]() -> Task<> {
    for (int received = 0; received < kBytes;) {
      char byte = 0;
      auto one = near.async_read_some(asio::buffer(&byte, 1), use_task);
      try {
        co_await timeout(std::move(one), std::chrono::microseconds((received + timeouts) % 40));
      } catch (const TimeoutError&) {
        ++timeouts;
        EXPECT_EQ(byte, 0) << "taken, and not given";
        continue;
      }
      EXPECT_EQ(byte, static_cast<char>(1 + received % 100));
      ++received;
    }
  };
  auto both = [&]() -> Task<> { co_await gather(sender(), receiver()); };
  workers.run(both());
  EXPECT_GT(timeouts, 0);
}

// The io_context is run by a task, so its steps lie anywhere among the others'.
TEST(AsioInASimulation, AnOperationEndsOnceWhateverIsCancelledWhen) {
  std::size_t values = 0;
  std::size_t cancellations = 0;
  testing::explore(test::scaled(1000), [&](testing::SimulatedExecutor& executor) {
    asio::io_context io;
    detail::Random random(executor.seed());
    bool over = false;
    auto run_io = [&]() -> Task<> {
      while (!over) {
        io.restart();
        if (random.below(2) == 0) io.poll_one();
        co_await this_task::yield();
      }
    };
    // Completes after some turns of the io_context, or at its cancellation.
    auto start = [&](auto handler) {
      auto complete = [handler, done = std::make_shared<bool>(false)](asio::error_code error) {
        if (!std::exchange(*done, true)) handler(error);
      };
      handler.slot.assign(
          [complete](asio::cancellation_type) { complete(asio::error::operation_aborted); });
      asio::post(io, [&io, complete, twice = random.below(2) == 0] {
        if (!twice) return complete({});
        asio::post(io, [complete] { complete({}); });
      });
    };
    auto cancels = [&](CancelScope& scope) -> Task<> {
      for (auto turns = random.below(12); turns > 0; --turns) co_await this_task::yield();
      scope.cancel();
    };
    auto one = [&]() -> Task<> {
      auto body = [&](CancelScope& scope) -> Task<> {
        co_await gather(operation_on<void(asio::error_code)>(io, start), cancels(scope));
      };
      const Result<void> result = co_await cancel_scope(body);
      ++(result.is_cancelled() ? cancellations : values);
      EXPECT_FALSE(result.is_error());
    };
    auto all = [&]() -> Task<> {
      co_await gather(one(), one());
      co_await one();
      over = true;
    };
    executor.run(gather(run_io(), all()));
  });
  EXPECT_GT(values, 0u);
  EXPECT_GT(cancellations, 0u);
}

// --- tasks as operations -------------------------------------------------------------------------

// A handler that notes how it was called.
struct Told {
  std::exception_ptr error;
  int value = -1;
  std::thread::id thread;
};
auto note(std::promise<Told>& told) {
  return [&told](std::exception_ptr error, int value) {
    told.set_value({std::move(error), value, std::this_thread::get_id()});
  };
}
std::error_code code_in(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const asio::system_error& failure) {
    return failure.code();
  }
  return {};
}

Task<int> returns(int value) {
  co_return value;
}
Task<int> sleeps() {
  co_await sleep_for(1h);
  co_return 0;
}

TEST_F(AsioTest, ATaskGivesItsValueToTheHandlerOnItsExecutor) {
  std::promise<std::thread::id> id;
  asio::post(io.context(), [&] { id.set_value(std::this_thread::get_id()); });
  std::promise<Told> promise;
  async_spawn(workers, returns(6), asio::bind_executor(io.get_executor(), note(promise)));
  const Told told = promise.get_future().get();
  EXPECT_FALSE(told.error);
  EXPECT_EQ(told.value, 6);
  EXPECT_EQ(told.thread, id.get_future().get());
}

TEST_F(AsioTest, ATaskIsAnOperationForEveryToken) {
  EXPECT_EQ(async_spawn(workers, returns(6), asio::use_future).get(), 6);
  auto nothing = []() -> Task<> { co_return; };
  async_spawn(workers, nothing(), asio::use_future).get();
  auto fails = []() -> Task<> {
    co_await this_task::yield();
    throw std::domain_error("no");
  };
  EXPECT_THROW(async_spawn(workers, fails(), asio::use_future).get(), std::domain_error);
}

TEST_F(AsioTest, TheSignalOfAHandlerCancelsItsTask) {
  asio::cancellation_signal signal;
  std::promise<Told> promise;
  async_spawn(workers, sleeps(), asio::bind_cancellation_slot(signal.slot(), note(promise)));
  signal.emit(asio::cancellation_type::terminal);
  EXPECT_EQ(code_in(promise.get_future().get().error), asio::error::operation_aborted);
  signal.emit(asio::cancellation_type::terminal);
}

TEST_F(AsioTest, ATaskIsWorkForTheContextOfItsHandler) {
  std::promise<Told> promise;
  auto slow = []() -> Task<int> {
    co_await sleep_for(2ms);
    co_return 1;
  };
  async_spawn(workers, slow(), asio::bind_executor(own, note(promise)));
  own.run();
  EXPECT_EQ(promise.get_future().get().thread, std::this_thread::get_id());
}

TEST_F(AsioTest, ATaskThatNeverBeginsIsToldToItsHandler) {
  int told = 0;
  auto handler = [&](std::exception_ptr error, int) {
    ++told;
    EXPECT_EQ(code_in(error), asio::error::operation_aborted);
  };
  workers.shutdown(0ns);
  asio::dispatch(own, [&] {
    async_spawn(workers, returns(1), asio::bind_executor(own, handler));
    EXPECT_EQ(told, 0) << "called by the initiating function";
  });
  own.run();
  EXPECT_EQ(told, 1);
}

TEST_F(AsioTest, ATaskOfAnotherExecutorIsAnOperationToo) {
  WorkStealingExecutor others({.threads = 1});
  auto there = [](Executor& executor) -> Task<int> {
    EXPECT_EQ(&co_await this_task::executor(), &executor);
    co_return 3;
  };
  EXPECT_EQ(workers.run(async_spawn(others, there(others), use_task)), 3);
  EXPECT_THROW(workers.run(timeout(async_spawn(others, sleeps(), use_task), 2ms)), TimeoutError);
  auto adapted = async_spawn(others, sleeps(), asio::experimental::as_tuple(use_task));
  auto [error, value] = workers.run(timeout(std::move(adapted), 2ms));
  EXPECT_EQ(code_in(error), asio::error::operation_aborted);
  // Cancelled while they end.
  auto brief = [&]() -> Task<> {
    for (int i = 0; i < 300; ++i) {
      auto spawned = async_spawn(others, sleep_for(std::chrono::microseconds(i % 30)), use_task);
      (void)co_await with_timeout(std::move(spawned), std::chrono::microseconds(i % 40));
    }
  };
  workers.run(brief());
}

TEST_F(AsioTest, NothingOfAHandlerIsLeftWithTheWorker) {
  for (int i = 0; i < 300; ++i) {
    std::atomic<bool> done = false;
    auto held = std::shared_ptr<int>(new int(i), [thread = std::this_thread::get_id()](int* value) {
      EXPECT_EQ(std::this_thread::get_id(), thread);
      delete value;
    });
    async_spawn(
        workers, returns(i),
        asio::bind_executor(own, [&, held = std::move(held)](std::exception_ptr, int value) {
          EXPECT_EQ(value, *held);
          done = true;
        }));
    own.restart();
    own.run();
    EXPECT_TRUE(done);
  }
}

TEST_F(AsioTest, AHandlerWhoseExecutorQueuesAndThrowsIsToldOnce) {
  Manual::Moods moods;
  moods.behind = std::make_exception_ptr(std::bad_alloc());
  const Manual manual(moods);
  int told = 0;
  auto handler = [&](std::exception_ptr error, int value) {
    ++told;
    EXPECT_FALSE(error);
    EXPECT_EQ(value, 7);
  };
  async_spawn(workers, returns(7), asio::bind_executor(manual, handler));
  while (manual.queued() < 2) std::this_thread::yield();
  manual.run_newest();
  EXPECT_EQ(told, 1);
  manual.run_newest();
  EXPECT_EQ(told, 1);
}

#if !defined(MAGPIE_TSAN)
TEST_F(AsioTest, WhicheverAllocationFailsAHandlerIsToldOnceOrItsSpawnThrows) {
  for (std::size_t n = 0; n < 40; ++n) {
    int told = 0;
    auto handler = [&](std::exception_ptr, int) { ++told; };
    test::fail_allocation_after(n);
    try {
      async_spawn(workers, returns(1), asio::bind_executor(own, handler));
      own.restart();
      own.run();
      EXPECT_EQ(told, 1) << n;
    } catch (const std::bad_alloc&) {
      EXPECT_EQ(told, 0) << n;
    }
    test::failing_allocation = 0;
  }
}
#endif

// --- the thread ----------------------------------------------------------------------------------

TEST(IoThreadTest, ReportsWhatHandlersThrowAndGoesOn) {
  std::promise<std::string> reported;
  IoThread io([&](std::string_view, std::exception_ptr error) {
    try {
      std::rethrow_exception(std::move(error));
    } catch (const std::exception& thrown) {
      reported.set_value(thrown.what());
    }
  });
  asio::post(io.context(), [] { throw std::domain_error("of a handler"); });
  EXPECT_EQ(reported.get_future().get(), "of a handler");
  asio::post(io.context(), asio::use_future).get();
}

// Goes round in its context for ever.
template <class Handler>
struct Round {
  void operator()() { asio::post(context, Round{context, std::move(handler)}); }
  asio::io_context& context;
  Handler handler;
};

TEST(IoThreadTest, EndsTheOperationsThatAreUnderWay) {
  std::optional<IoThread> io(std::in_place);
  WorkStealingExecutor workers({.threads = 1});
  std::promise<void> begun;
  auto start = [&](auto handler) {
    Round{io->context(), std::move(handler)}();
    begun.set_value();
  };
  JoinHandle<> never = workers.spawn(operation_on<void()>(io->context(), start));
  begun.get_future().wait();
  io.reset();
  EXPECT_THROW(never.wait().value(), asio::system_error);
}

}  // namespace
}  // namespace magpie
