// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// The cache of coroutine frames: sizes, threads, and the end of a thread.

#include <magpie/detail/frame_pool.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <malloc.h>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/counting_new.h>
#include <support/scale.h>

namespace {

std::atomic<bool> no_aligned_memory{false};

}  // namespace

#if defined(MAGPIE_ASAN) || defined(MAGPIE_TSAN)
static constexpr bool kCaches = false;
#else
static constexpr bool kCaches = true;

// The one of the C library is not called then: what the cache makes its shelves of.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* memory = nullptr;
  if (no_aligned_memory || posix_memalign(&memory, alignment, size) != 0) return nullptr;
  return memory;
}
#endif

namespace magpie {
namespace {

TEST(FramePool, GivesDistinctAlignedWritableMemoryOfEverySize) {
  std::vector<std::pair<void*, std::size_t>> frames;
  std::set<void*> seen;
  for (std::size_t size = 1; size <= 5000; size += 7) {
    void* const frame = detail::allocate_frame(size);
    EXPECT_TRUE(seen.insert(frame).second);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(frame) % __STDCPP_DEFAULT_NEW_ALIGNMENT__, 0U);
    std::memset(frame, 0x5a, size);
    frames.emplace_back(frame, size);
  }
  for (auto [frame, size] : frames) {
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(static_cast<unsigned char*>(frame)[i], 0x5a);
    detail::free_frame(frame, size);
  }
}

TEST(FramePool, AFreedFrameIsUsedAgain) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  void* const first = detail::allocate_frame(100);
  detail::free_frame(first, 100);
  void* const second = detail::allocate_frame(112);  // of the same class
  EXPECT_EQ(first, second);
  detail::free_frame(second, 112);
}

// As code with a sanitizer does, which is linked with a library without one.
TEST(FramePool, NothingIsLostWhereAllFramesTakeTheLongWay) {
  if (!kCaches) GTEST_SKIP() << "nothing is kept there";
  std::vector<void*> frames(3000);  // more than shelf and spare hold
  const auto round = [&] {
    for (void*& frame : frames) frame = detail::allocate_frame_slow(100);
    for (void* const frame : frames) detail::free_frame_slow(frame, 100);
    for (int i = 0; i < 1000; ++i) detail::free_frame_slow(detail::allocate_frame_slow(100), 100);
  };
  round();
  round();
  const std::size_t before = mallinfo2().uordblks;
  for (int i = 0; i < 5; ++i) round();
  EXPECT_LE(mallinfo2().uordblks, before + 64 * 1024);  // less than each round would lose
}

TEST(FramePool, EveryClassHoldsTheSizesAboveTheClassBelow) {
  for (std::size_t size = 1; size <= 4096; ++size) {
    const std::size_t index = detail::frame_class(size);
    ASSERT_LT(index, detail::kFrameClasses);
    ASSERT_GE(detail::frame_class_bytes(index), size);
    ASSERT_TRUE(index == 0 || detail::frame_class_bytes(index - 1) < size);
  }
}

std::vector<void*> allocate_many(std::size_t count, std::size_t size) {
  std::vector<void*> frames(count);
  for (void*& frame : frames) frame = detail::allocate_frame(size);
  return frames;
}
void free_all(const std::vector<void*>& frames, std::size_t size) {
  for (void* frame : frames) detail::free_frame(frame, size);
}

// On a thread of its own, whose cache is empty.
template <class F>
void on_a_thread(F function) {
  std::thread(std::move(function)).join();
}

TEST(FramePool, AShelfAndItsSpareHoldWhatTheirClassAllows) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  on_a_thread([] {
    for (std::size_t index = 0; index < detail::kFrameClasses; ++index) {
      const std::size_t size = detail::frame_class_bytes(index);
      const std::size_t kept = 2 * detail::shelf_bound(index);
      EXPECT_LE(detail::shelf_bound(index) * size, 64U * 1024);
      std::vector<void*> frames = allocate_many(kept, size);
      free_all(frames, size);
      const std::size_t before = test::allocations();
      for (void*& frame : frames) frame = detail::allocate_frame(size);
      EXPECT_EQ(test::allocations(), before) << "of " << size << " bytes";
      EXPECT_EQ(std::set<void*>(frames.begin(), frames.end()).size(), kept);
      free_all(frames, size);
    }
  });
}

TEST(FramePool, NothingIsAllocatedAtTheEdgeOfAShelf) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  constexpr std::size_t kSize = 128;
  constexpr std::size_t kBound = detail::shelf_bound(detail::frame_class(kSize));
  on_a_thread([] {
    std::vector<void*> frames = allocate_many(2 * kBound, kSize);
    const auto free_some = [&](std::size_t count) {
      for (std::size_t i = 0; i < count; ++i) detail::free_frame(frames[i], kSize);
    };
    const auto take_some = [&](std::size_t count) {
      for (std::size_t i = count; i > 0;) frames[--i] = detail::allocate_frame(kSize);
    };
    free_some(kBound + 2);  // the spare is full, and two lie on the shelf
    const std::size_t before = test::allocations();
    for (int round = 0; round < 100; ++round) {
      take_some(4);  // two of what was the spare
      free_some(4);
    }
    EXPECT_EQ(test::allocations(), before);
    take_some(kBound + 2);
    free_all(frames, kSize);
  });
}

TEST(FramePool, WithoutMemoryForAShelfFramesGoToTheAllocator) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  constexpr std::size_t kSize = 100;
  constexpr std::size_t kBound = detail::shelf_bound(detail::frame_class(kSize));
  on_a_thread([] {
    detail::free_frame(detail::allocate_frame(kSize), kSize);  // the cache is open
    std::vector<void*> frames = allocate_many(3 * kBound, kSize);
    no_aligned_memory = true;
    free_all(frames, kSize);
    no_aligned_memory = false;
    // One shelf was there.
    const std::size_t before = test::allocations();
    for (void*& frame : frames) frame = detail::allocate_frame(kSize);
    EXPECT_EQ(test::allocations() - before, 2 * kBound);
    EXPECT_EQ(std::set<void*>(frames.begin(), frames.end()).size(), frames.size());
    free_all(frames, kSize);
  });
}

TEST(FramePool, KeepsABoundedNumber) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  constexpr std::size_t kSize = 4096;
  constexpr std::size_t kCount = 4000;
  constexpr std::size_t kKept =
      detail::kDepotBytesPerThread / kSize + 2 * detail::shelf_bound(detail::frame_class(kSize));
  static_assert(kKept < kCount);
  free_all(allocate_many(kCount, kSize), kSize);
  const std::size_t before = test::allocations();
  const std::vector<void*> frames = allocate_many(kCount, kSize);
  EXPECT_GE(test::allocations() - before, kCount - kKept);
  free_all(frames, kSize);
}

TEST(FramePool, AHundredThousandFreedFramesAreUsedAgain) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  constexpr std::size_t kCount = 100'000;
  std::thread([=] {  // a cache, and a depot, without what other tests have left
    free_all(allocate_many(kCount, 64), 64);
    const std::size_t before = test::allocations();
    const std::vector<void*> frames = allocate_many(kCount, 64);
    EXPECT_EQ(test::allocations() - before, 1U);  // the vector
    EXPECT_EQ(std::set<void*>(frames.begin(), frames.end()).size(), kCount);
    free_all(frames, 64);
  })
      .join();
}

// One thread only makes frames, another only frees them: they come back in magazines.
TEST(FramePool, FramesGoRoundBetweenThreads) {
  constexpr std::size_t kSize = 128;
  constexpr std::size_t kCount = 5000;
  const std::size_t rounds = test::scaled(100);
  std::vector<void*> frames;
  std::atomic<std::size_t> turn{0};  // even: the maker's
  std::size_t made = 0;
  std::thread maker([&] {
    for (std::size_t round = 0; round < rounds; ++round) {
      while (turn.load() != 2 * round) std::this_thread::yield();
      const std::size_t before = test::allocations();
      frames = allocate_many(kCount, kSize);
      if (round != 0) made += test::allocations() - before - 1;  // the vector
      for (std::size_t i = 0; i < kCount; ++i)
        std::memset(frames[i], static_cast<int>((round + i) % 251), kSize);
      turn.store(2 * round + 1);
    }
  });
  std::thread freer([&] {
    for (std::size_t round = 0; round < rounds; ++round) {
      while (turn.load() != 2 * round + 1) std::this_thread::yield();
      for (std::size_t i = 0; i < kCount; ++i) {
        const auto* const bytes = static_cast<const unsigned char*>(frames[i]);
        EXPECT_TRUE(bytes[0] == (round + i) % 251 && bytes[kSize - 1] == (round + i) % 251);
      }
      free_all(frames, kSize);
      turn.store(2 * round + 2);
    }
  });
  maker.join();
  freer.join();
  // What the freer's shelf and spare keep is made anew once.
  if (!kCaches) return;
  EXPECT_LE(made, 2 * detail::shelf_bound(detail::frame_class(kSize)) + kCount);
}

TEST(FramePool, FramesAreFreedByOtherThreadsAndAfterTheirThreadHasEnded) {
  for (std::size_t round = 0; round < test::scaled(200); ++round) {
    std::vector<void*> frames;
    std::thread maker([&] {
      for (int i = 0; i < 300; ++i) frames.push_back(detail::allocate_frame(200));
      void* const own = detail::allocate_frame(200);
      detail::free_frame(own, 200);  // stays in the cache of a thread that ends: no leak
    });
    maker.join();
    std::thread freer([&] {
      for (void* frame : frames) detail::free_frame(frame, 200);
    });
    freer.join();
  }
}

struct AtThreadEnd {
  ~AtThreadEnd() {
    // After the cache's own clean-up, if it was made later than this: goes straight to the
    // allocator.
    for (int i = 0; i < 10; ++i) {
      void* const frame = detail::allocate_frame(300);
      detail::free_frame(frame, 300);
    }
  }
  int value = 0;
};
thread_local AtThreadEnd at_thread_end;

TEST(FramePool, MayBeUsedWhileAThreadEnds) {
  std::thread thread([] {
    at_thread_end.value = 1;
    void* const frame = detail::allocate_frame(300);
    detail::free_frame(frame, 300);
  });
  thread.join();
}

Task<int> one() {
  co_return 1;
}

TEST(FramePool, AwaitsInALoopAllocateNothing) {
  if (!kCaches) GTEST_SKIP() << "sanitized builds give every frame back at once";
  auto body = []() -> Task<std::size_t> {
    int sum = co_await one();
    co_await gather(one(), one());
    const std::size_t before = test::allocations();
    for (int i = 0; i < 10'000; ++i) {
      sum += co_await one();
      auto [a, b] = co_await gather(one(), one());
      sum += a + b;
    }
    EXPECT_EQ(sum, 30'001);
    co_return test::allocations() - before;
  };
  EXPECT_EQ(run(body(), {.threads = 1}), 0U);
}

}  // namespace
}  // namespace magpie
