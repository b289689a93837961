// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "relacy_env.h"

#include <magpie/detail/job.h>
#include <magpie/detail/job_wait.h>

#include <optional>

// The end of a stolen job under the C++ memory model: its owner sees what the thief wrote, and is
// woken.

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

}  // namespace
}  // namespace magpie::model
