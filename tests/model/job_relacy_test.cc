// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "relacy_env.h"

#include <magpie/detail/job.h>
#include <magpie/detail/job_wait.h>
#include <magpie/detail/loop.h>

#include <atomic>
#include <optional>

// The end of a stolen job under the C++ memory model: its owner sees what the thief wrote, and is
// woken. And the meeting of two pieces of a loop: who goes on sees what the other one did.

namespace magpie::model {
namespace {

using detail::BasicBed;
using detail::BasicJobState;
using detail::BasicJobWaiters;

template <Mutant kMutant>
struct EndOfAJob : RelacyTest<EndOfAJob<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  BasicJobState<Env> job{1};
  BasicBed<Env> bed;
  BasicJobWaiters<Env> waiters;
  typename Env::template Atomic<std::uint32_t> attention{0};
  RelacyData<int> frame{0};

  void thread(unsigned index) {
    if (index == 0) {
      static_cast<void>(job.begin(2));
      frame.write(7);
      job.finish();
      bed.job_done();
      return;
    }
    while (!job.done()) {
      waiters.sleep(bed, attention, false, false, std::nullopt, [&] { return job.done(); });
    }
    relacy_check(frame.read() == 7);
    frame.write(8);  // as whoever gets the memory next
  }
};

TEST(JobRelacy, TheOwnerSeesAllThatTheThiefDid) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = explore_relacy<EndOfAJob<Mutant::none>>({.bound = 4});
  EXPECT_TRUE(report.passed) << report.text;
  std::printf("%llu executions\n", report.executions);
}

TEST(JobRelacyMutant, ARelaxedEndTellsNothing) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = explore_relacy<EndOfAJob<Mutant::job_relaxed_end>>({.bound = 3});
  EXPECT_FALSE(report.passed);
  std::printf("after %llu executions\n", report.executions);
}

TEST(JobRelacyMutant, WithoutTheFenceTheOwnerSleepsOn) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = explore_relacy<EndOfAJob<Mutant::job_no_fence_at_end>>({.bound = 3});
  EXPECT_FALSE(report.passed);
  std::printf("after %llu executions\n", report.executions);
}

template <Mutant kMutant>
struct TwoPieces : RelacyTest<TwoPieces<kMutant>, 2> {
  detail::BasicMeeting<RelacyEnv<kMutant>> meeting;
  RelacyData<int> values[2];
  std::atomic<int> went_on{0};

  void thread(unsigned index) {
    values[index].write(7);
    if (!meeting.come()) return;
    ++went_on;
    relacy_check(values[1 - index].read() == 7);
    values[1 - index].write(8);
  }
  void after() { relacy_check(went_on == 1); }
};

TEST(MeetingRelacy, WhoGoesOnSeesWhatTheOtherDid) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = explore_relacy<TwoPieces<Mutant::none>>({.bound = 4});
  EXPECT_TRUE(report.passed) << report.text;
}

TEST(MeetingRelacyMutant, RelaxedOrdersTellNothing) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = explore_relacy<TwoPieces<Mutant::loop_relaxed_meeting>>({.bound = 3});
  EXPECT_FALSE(report.passed);
}

}  // namespace
}  // namespace magpie::model
