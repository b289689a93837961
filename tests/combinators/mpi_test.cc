// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// MPI's operations as awaitables, in one process that sends to itself. examples/halo.cc has
// several.

#include <magpie/mpi.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/config.h>
#include <magpie/errors.h>
#include <magpie/gather.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

#include <support/counting_new.h>
#include <support/scale.h>

#if defined(MAGPIE_ASAN)
#include <sanitizer/lsan_interface.h>
#endif

namespace magpie {
namespace {

using namespace std::chrono_literals;

// Why there could be no MpiThread before MPI was initialised: main() tries.
std::string refusal_at_first;

class Mpi : public testing::Test {
 public:
  Mpi() {
    MPI_Comm_dup(MPI_COMM_SELF, &self);
    MPI_Comm_set_errhandler(self, MPI_ERRORS_RETURN);
  }
  ~Mpi() override { MPI_Comm_free(&self); }

  // By a call that waits for the receiver: it has been received when this returns.
  void send_by_hand(int value) { MPI_Ssend(&value, 1, MPI_INT, 0, kTag, self); }
  // Waits until it has been received, as no buffer of MPI's holds the value.
  Task<MPI_Status> send(const int& value) {
    return mpi.complete(MPI_Issend, &value, 1, MPI_INT, 0, kTag, self);
  }
  Task<MPI_Status> receive(int& value) { return mpi.receive(&value, 1, MPI_INT, 0, kTag, self); }

  static constexpr int kTag = 7;
  MPI_Comm self = MPI_COMM_NULL;
  MpiThread mpi;
  WorkStealingExecutor workers{{.threads = 2}};
};

template <class Condition>
void until(Condition&& condition) {
  while (!condition()) std::this_thread::yield();
}

TEST(MpiThread, SaysThatMpiMustBeInitialised) {
  EXPECT_NE(refusal_at_first.find("call MPI_Init_thread before"), std::string::npos)
      << refusal_at_first;
}

TEST_F(Mpi, AMessageAndItsStatusArrive) {
  const int value = 42;
  int received = 0;
  auto [sent, status] = workers.run(gather(send(value), receive(received)));
  EXPECT_EQ(received, 42);
  EXPECT_EQ(status.MPI_SOURCE, 0);
  EXPECT_EQ(status.MPI_TAG, kTag);
  int count = 0;
  MPI_Get_count(&status, MPI_INT, &count);
  EXPECT_EQ(count, 1);
}

TEST_F(Mpi, WhatEndsAtOnceNeedsNobodyElse) {
  const int value = 1;
  int received = 0;
  workers.run(mpi.complete(MPI_Isend, &value, 1, MPI_INT, MPI_PROC_NULL, kTag, self));
  workers.run(mpi.receive(&received, 1, MPI_INT, MPI_PROC_NULL, kTag, self));
  EXPECT_EQ(received, 0);
}

TEST_F(Mpi, CollectiveOperationsAreAwaited) {
  const int mine = 3;
  int sum = 0;
  workers.run(mpi.complete(MPI_Iallreduce, &mine, &sum, 1, MPI_INT, MPI_SUM, self));
  EXPECT_EQ(sum, 3);
  workers.run(mpi.complete(MPI_Ibarrier, self));
}

TEST_F(Mpi, APersistentRequestIsStartedAgainAndAgain) {
  int received = 0;
  MPI_Request persistent = MPI_REQUEST_NULL;
  MPI_Recv_init(&received, 1, MPI_INT, 0, kTag, self, &persistent);
  for (int value = 1; value < 4; ++value) {
    auto again = [&](MPI_Request* request) {
      *request = persistent;
      return MPI_Start(request);
    };
    workers.run(gather(mpi.complete(again), send(value)));
    EXPECT_EQ(received, value);
  }
  MPI_Request_free(&persistent);
}

TEST_F(Mpi, ThousandsAreUnderWayAtOnce) {
  constexpr int kMessages = 3000;
  std::vector<int> values(kMessages);
  std::vector<int> received(kMessages);
  std::vector<Task<MPI_Status>> operations;
  for (int i = 0; i < kMessages; ++i) {
    const auto at = static_cast<std::size_t>(i);
    values[at] = i;
    operations.push_back(mpi.complete(MPI_Issend, &values[at], 1, MPI_INT, 0, i, self));
  }
  for (int i = kMessages; i-- > 0;) {
    int& value = received[static_cast<std::size_t>(i)];
    operations.push_back(mpi.receive(&value, 1, MPI_INT, 0, i, self));
  }
  workers.run(gather(std::move(operations)));
  EXPECT_EQ(received, values);
}

TEST_F(Mpi, WhatIsStillUnderWayAfterAWhileEnds) {
  for (const Duration poll_every : {Duration(), Duration(1ms)}) {
    MpiThread patient(poll_every);
    int received = 0;
    auto handle = workers.spawn(patient.receive(&received, 1, MPI_INT, 0, kTag, self));
    std::this_thread::sleep_for(5ms);  // until it is asked now and then only
    EXPECT_FALSE(handle.done());
    send_by_hand(8);
    handle.wait();
    EXPECT_EQ(received, 8);
  }
}

TEST_F(Mpi, ACancelledReceiveEndsAndTakesNoMessage) {
  int abandoned = 0;
  auto handle = workers.spawn(receive(abandoned));
  handle.cancel();
  EXPECT_TRUE(handle.wait().is_cancelled());
  EXPECT_THROW(workers.run(timeout(receive(abandoned), 1ms)), TimeoutError);

  const int value = 5;
  int received = 0;
  workers.run(gather(send(value), receive(received)));
  EXPECT_EQ(received, 5);
  EXPECT_EQ(abandoned, 0);
}

TEST_F(Mpi, AReceiveIsCancelledWhenItsSiblingFails) {
  int abandoned = 0;
  auto fail = []() -> Task<int> {
    throw std::domain_error("the sibling");
    co_return 0;
  };
  EXPECT_THROW(workers.run(gather(receive(abandoned), fail())), std::domain_error);
}

TEST_F(Mpi, WhatCannotBeCancelledIsWaitedForAndDelivered) {
  const int value = 6;
  std::atomic<bool> started{false};
  auto handle = workers.spawn(mpi.complete([&](MPI_Request* request) {
    const int code = MPI_Issend(&value, 1, MPI_INT, 0, kTag, self, request);
    started = true;
    return code;
  }));
  until([&] { return started.load(); });
  handle.cancel();
  std::this_thread::sleep_for(5ms);  // a wait that ended early would have had time for it
  EXPECT_FALSE(handle.done());
  int received = 0;
  MPI_Recv(&received, 1, MPI_INT, 0, kTag, self, MPI_STATUS_IGNORE);
  EXPECT_TRUE(handle.wait().has_value());
  EXPECT_EQ(received, 6);
}

TEST_F(Mpi, WhatIsCancelledBeforeItBeginsDoesNotBegin) {
  bool started = false;
  auto body = [&]() -> Task<> {
    auto operation = mpi.complete([&](MPI_Request*) {
      started = true;
      return MPI_SUCCESS;
    });
    co_await timeout(std::move(operation), 0s);
  };
  EXPECT_THROW(workers.run(body()), TimeoutError);
  EXPECT_FALSE(started);
}

// Each message is received once, whether the receive that it races with was told in time or not.
TEST_F(Mpi, ACancellationThatRacesWithAMessageLosesNone) {
  const int rounds = static_cast<int>(test::scaled(3000));
  int cancelled = 0;
  for (int round = 0; round < rounds; ++round) {
    int received = -1;
    int sent = round;
    auto receiver = workers.spawn(receive(received));
    auto sender = workers.spawn(send(sent));
    for (int yields = round % 8; yields > 0; --yields) std::this_thread::yield();
    receiver.cancel();
    if (receiver.wait().is_cancelled()) {
      ++cancelled;
      EXPECT_EQ(received, -1);
      workers.run(receive(received));
    }
    EXPECT_EQ(received, round);
    EXPECT_TRUE(sender.wait().has_value());
  }
  RecordProperty("cancelled", cancelled);
}

TEST_F(Mpi, AnOperationThatIsRefusedThrows) {
  const int value = 1;
  try {
    workers.run(mpi.complete(MPI_Isend, &value, 1, MPI_INT, 1, kTag, self));  // there is but rank 0
    FAIL();
  } catch (const MpiError& error) {
    EXPECT_EQ(error.error_class(), MPI_ERR_RANK);
    EXPECT_NE(error.code(), MPI_SUCCESS);
    EXPECT_NE(std::string(error.what()).find("rank"), std::string::npos) << error.what();
  }
}

// An operation that the test ends, as MPI lets programs have their own.
struct OwnOperation {
  static int query(void* state, MPI_Status* status) {
    MPI_Status_set_elements(status, MPI_INT, 0);
    MPI_Status_set_cancelled(status, 0);
    return static_cast<OwnOperation*>(state)->code;
  }
  static int free(void*) { return MPI_SUCCESS; }
  static int cancel(void*, int) { return MPI_SUCCESS; }
  int start(MPI_Request* into) {
    MPI_Grequest_start(query, free, cancel, this, &request);
    *into = request;
    started = true;
    return MPI_SUCCESS;
  }

  int code = MPI_SUCCESS;
  MPI_Request request = MPI_REQUEST_NULL;
  std::atomic<bool> started{false};
};

TEST_F(Mpi, AnOperationThatFailsLaterThrowsAndTheOthersGoOn) {
  OwnOperation failing{.code = MPI_ERR_TRUNCATE};
  OwnOperation unharmed;
  auto start = [](OwnOperation* own, MPI_Request* request) { return own->start(request); };
  auto first = workers.spawn(mpi.complete(start, &failing));
  auto second = workers.spawn(mpi.complete(start, &unharmed));
  until([&] { return failing.started && unharmed.started; });
  MPI_Grequest_complete(failing.request);
  try {
    std::rethrow_exception(first.wait().error());
  } catch (const MpiError& error) {
    EXPECT_EQ(error.error_class(), MPI_ERR_TRUNCATE);
  }
  EXPECT_FALSE(second.done());
  MPI_Grequest_complete(unharmed.request);
  EXPECT_TRUE(second.wait().has_value());
}

TEST_F(Mpi, AnExceptionOfWhoStartsPassesThrough) {
  auto start = [](MPI_Request*) -> int { throw std::domain_error("not started"); };
  EXPECT_THROW(workers.run(mpi.complete(start)), std::domain_error);
}

TEST(MpiThread, ItsEndWaitsForWhatIsUnderWay) {
  WorkStealingExecutor workers({.threads = 1});
  int received = 0;
  std::optional<MpiThread> mpi(std::in_place);
  std::atomic<bool> started{false};
  auto handle = workers.spawn(mpi->complete([&](MPI_Request* request) {
    const int code = MPI_Irecv(&received, 1, MPI_INT, 0, 1, MPI_COMM_SELF, request);
    started = true;
    return code;
  }));
  until([&] { return started.load(); });
  std::this_thread::sleep_for(1ms);  // until the thread has it
  std::thread ends([&] { mpi.reset(); });
  const int value = 4;
  MPI_Ssend(&value, 1, MPI_INT, 0, 1, MPI_COMM_SELF);
  ends.join();
  EXPECT_TRUE(handle.wait().has_value());
  EXPECT_EQ(received, 4);
}

#if !defined(MAGPIE_TSAN)  // nothing is counted there
TEST_F(Mpi, WithoutMemoryAnOperationHasBegunAndIsWaitedForOrHasNot) {
  int done = 0;
  for (std::size_t more = 0; done < 3; ++more) {
    const int value = 3;
    int received = 0;
    std::atomic<int> started{0};
    auto counted = [&](MPI_Request* request) {
      ++started;
      return MPI_Irecv(&received, 1, MPI_INT, 0, kTag, self, request);
    };
    test::fail_allocation_after(more);
    std::optional<JoinHandle<MPI_Status>> handle;
    try {
      handle = workers.spawn(mpi.complete(counted));
    } catch (const std::bad_alloc&) {
      done = 0;
      continue;
    }
    until([&] { return started != 0 || handle->done(); });
    test::failing_allocation = 0;
    if (started != 0) {
      send_by_hand(value);
      EXPECT_TRUE(handle->wait().has_value());
      EXPECT_EQ(received, 3);
      ++done;
    } else {
      EXPECT_TRUE(handle->wait().is_error());
      done = 0;
    }
  }
}
#endif

}  // namespace
}  // namespace magpie

#if defined(MAGPIE_ASAN)
// What Open MPI never frees in its threads: known by its libraries, so until these are unloaded.
const char* __lsan_default_suppressions() {
  return "leak:libmpi\nleak:libopen-\nleak:libpmix\nleak:mca_\n";
}
#endif

int main(int argc, char** argv) {
  try {
    magpie::MpiThread too_early;
  } catch (const std::logic_error& error) {
    magpie::refusal_at_first = error.what();
  }
  int provided = MPI_THREAD_SINGLE;
  {
#if defined(MAGPIE_ASAN)
    const __lsan::ScopedDisabler others;
#endif
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  }
  // Whose handler is asked of an operation that belongs to no communicator.
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
  testing::InitGoogleTest(&argc, argv);
  const int result = RUN_ALL_TESTS();
#if defined(MAGPIE_ASAN)
  __lsan_do_leak_check();
#endif
  MPI_Finalize();
  return result;
}
