// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (one thread, no coroutine)

#include <magpie/detail/look_note.h>

#include <gtest/gtest.h>

namespace magpie::detail {
namespace {

constexpr std::uint64_t kNow = 5'000'000'000;

// A note that was made at `now`, during piece `runs`.
LookNote made(std::uint64_t runs, std::uint64_t now) {
  return LookNote(LookNote(0).judge(runs, now).next);
}

TEST(LookNote, AWorkerThatGetsOnKeepsItsStrandForSevenLooks) {
  LookNote note(0);
  for (unsigned look = 1; look <= 16; ++look) {
    const auto verdict = note.judge(look, kNow + look * LookNote::kIntervalNs);
    EXPECT_EQ(verdict.leave, look % LookNote::kMostLooks != 0) << look;
    note = LookNote(verdict.next);
    EXPECT_EQ(note.looks(), look % LookNote::kMostLooks);
  }
}

TEST(LookNote, AWorkerThatIsStuckKeepsItForThePatience) {
  const LookNote note = made(7, kNow);
  for (const std::uint64_t age : {std::uint64_t{0}, LookNote::kPatienceNs - 1}) {
    EXPECT_TRUE(note.judge(7, kNow + age).leave) << age;
    EXPECT_EQ(note.judge(7, kNow + age).next, note.word()) << "the patience does not begin anew";
  }
  EXPECT_FALSE(note.judge(7, kNow + LookNote::kPatienceNs).leave);
  EXPECT_FALSE(note.judge(7, kNow + 1'000'000'000).leave);
}

TEST(LookNote, LooksAtTheSameTimeCountAsOne) {
  const LookNote note = made(7, kNow);
  EXPECT_TRUE(note.judge(8, kNow + LookNote::kIntervalNs - 1).leave);
  EXPECT_EQ(note.judge(8, kNow + LookNote::kIntervalNs - 1).next, note.word());
  EXPECT_NE(note.judge(8, kNow + LookNote::kIntervalNs).next, note.word());
}

TEST(LookNote, AStrandOfAWorkerThatHasRunNothingYetIsTaken) {
  EXPECT_FALSE(LookNote(0).judge(0, kNow).leave);
}

TEST(LookNote, WhatComesRoundOrFromTheFutureCostsAtMostATheft) {
  const std::uint64_t round = std::uint64_t{1} << 20;
  EXPECT_FALSE(made(7, kNow).judge(7 + round, kNow + 1'000'000).leave);  // taken for the same piece
  EXPECT_FALSE(made(7, kNow).judge(7, kNow - 1).leave);
  EXPECT_TRUE(made(7, kNow).judge(8, kNow - 1).leave);  // one more look, no endless patience
  EXPECT_EQ(LookNote(made(7, kNow).judge(8, kNow - 1).next).looks(), 2u);
  const std::uint64_t end_of_time = (std::uint64_t{1} << 40) - 1;
  EXPECT_TRUE(made(7, end_of_time).judge(7, end_of_time + 2'000).leave);
  EXPECT_FALSE(made(7, end_of_time).judge(7, end_of_time + 3'000).leave);
}

}  // namespace
}  // namespace magpie::detail
