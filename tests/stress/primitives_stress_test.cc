// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 86400

// Random use of all primitives at once, alone and against each other in races, timeouts and blocks,
// cancelled from other threads at random moments. Nothing hangs (a watchdog ends the process); no
// permit, lock or notification is lost; every item that was sent is received once; parties of a
// barrier pass in full numbers; promises are kept or broken. The seed is printed, and SEED= replays
// the programs (not the schedule). MAGPIE_SOAK_MINUTES makes it last.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>

#include <support/ledger.h>
#include <support/scale.h>
#include <support/soak.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using detail::Random;
using test::Ledger;
using test::Tracked;

constexpr std::size_t kPermits = 3;
constexpr std::size_t kParties = 2;
constexpr std::size_t kChannels = 3;

/// What goes through the channels.
struct Item {
  std::uint64_t number;
  Tracked tracked;
};

/// Everything that the programs of one round share.
struct World {
  explicit World(std::size_t threads)
      : executor({.threads = threads,
                  .on_unobserved_error = [](std::string_view, std::exception_ptr) {}}) {}

  Ledger ledger;
  Semaphore semaphore{kPermits};
  std::atomic<long> permits_held{0};

  Mutex mutex;
  // Under the mutex: no atomics.
  long entries = 0;
  long tokens = 0;
  std::atomic<long> entered{0};
  std::atomic<long> tokens_given{0};
  std::atomic<long> tokens_taken{0};
  Condition token_there;

  Event event;
  Barrier barrier{kParties};
  std::atomic<long> passes{0};
  std::atomic<long> chosen{0};

  Channel<Item> channels[kChannels] = {Channel<Item>(0), Channel<Item>(1), Channel<Item>(5)};
  std::atomic<std::uint64_t> next_number{1};
  std::atomic<std::uint64_t> sent{0};
  std::atomic<std::uint64_t> received{0};

  std::atomic<std::uint64_t>* operations = nullptr;
  WorkStealingExecutor executor;  // dies first

  Item make_item() { return Item{next_number.fetch_add(1), Tracked(ledger)}; }
  void note_received(const std::optional<Item>& item) {
    if (item) received.fetch_add(item->number);
  }
  void note_passed(bool mine) {
    ++passes;
    if (mine) ++chosen;
  }
  void hold(const Permit& permit) {
    const long n = static_cast<long>(permit.count());
    const long now = permits_held.fetch_add(n) + n;
    if (now > static_cast<long>(kPermits)) ADD_FAILURE() << now << " permits are held";
    permits_held.fetch_sub(n);
  }
  void enter() {  // with the mutex held
    ++entries;
    ++entered;
  }
};

std::chrono::microseconds moment(Random& random) {
  return std::chrono::microseconds(random.below(40));
}

Channel<Item>& some_channel(World& world, Random& random) {
  return world.channels[random.below(kChannels)];
}

Task<> use_mutex(World& world, Random& random) {
  Mutex::Lock lock = co_await world.mutex.lock();
  world.enter();
  if (random.below(3) == 0) co_await this_task::yield();
}

Task<> give_token(World& world, Random& random) {
  Mutex::Lock lock = co_await world.mutex.lock();
  world.enter();
  ++world.tokens;
  ++world.tokens_given;
  if (random.below(2) == 0) lock.unlock();
  random.below(8) == 0 ? world.token_there.notify_all() : world.token_there.notify_one();
}

// Waits for a token, for a while or in a race; the lock is held afterwards, whatever happened.
Task<> take_token(World& world, Random& random) {
  Mutex::Lock lock = co_await world.mutex.lock();
  world.enter();
  auto there = [&world] { return world.tokens > 0; };
  bool got = false;
  switch (random.below(4)) {
    case 0: {
      const Result<void> r =
          co_await as_result(timeout(world.token_there.wait(lock, there), moment(random)));
      got = r.has_value();
      break;
    }
    case 1: {
      auto first = co_await race(world.token_there.wait(lock, there), sleep_for(moment(random)));
      got = first.index == 0;
      break;
    }
    case 2: {
      const Result<void> r =
          co_await as_result(timeout(world.token_there.wait(lock), moment(random)));
      got = r.has_value() && world.tokens > 0;
      break;
    }
    default: {
      auto first =
          co_await any(world.token_there.wait(lock), world.event.wait(), sleep_for(moment(random)));
      got = first.index == 0 && world.tokens > 0;
    }
  }
  if (!lock) {
    ADD_FAILURE() << "wait() ended without the lock";
    co_return;
  }
  if (!got) co_return;
  --world.tokens;
  ++world.tokens_taken;
}

Task<> send_something(World& world, Random& random) {
  Item item = world.make_item();
  const std::uint64_t number = item.number;
  bool went = false;
  switch (random.below(4)) {
    case 0:
      went = some_channel(world, random).try_send(item);
      break;
    case 1: {
      auto first = co_await race(some_channel(world, random).send(std::move(item)),
                                 sleep_for(moment(random)));
      went = first.index == 0;
      break;
    }
    case 2: {
      Item spare{number, item.tracked};
      auto first = co_await race(some_channel(world, random).send(std::move(item)),
                                 some_channel(world, random).send(std::move(spare)),
                                 world.event.wait(), sleep_for(moment(random)));
      went = first.index < 2;
      break;
    }
    default: {
      const Result<void> r = co_await as_result(
          timeout(some_channel(world, random).send(std::move(item)), moment(random)));
      went = r.has_value();
    }
  }
  if (went) world.sent.fetch_add(number);
}

Task<> receive_something(World& world, Random& random) {
  switch (random.below(4)) {
    case 0:
      world.note_received(some_channel(world, random).try_receive());
      break;
    case 1: {
      auto first = co_await race(some_channel(world, random).receive(),
                                 some_channel(world, random).receive(), sleep_for(moment(random)));
      if (first.index == 0) world.note_received(std::get<0>(first.value));
      if (first.index == 1) world.note_received(std::get<1>(first.value));
      break;
    }
    case 2: {
      auto r = co_await as_result(timeout(some_channel(world, random).receive(), moment(random)));
      if (r) world.note_received(r.value());
      break;
    }
    default: {
      // A select over everything that can be received, taken or passed.
      auto first = co_await race(some_channel(world, random).receive(), world.semaphore.acquire(),
                                 world.mutex.lock(), world.barrier.arrive_and_wait(),
                                 some_channel(world, random).receive(), sleep_for(moment(random)));
      switch (first.index) {
        case 0:
          world.note_received(std::get<0>(first.value));
          break;
        case 1:
          world.hold(std::get<1>(first.value));
          break;
        case 2:
          world.enter();
          break;
        case 3:
          world.note_passed(std::get<3>(first.value));
          break;
        case 4:
          world.note_received(std::get<4>(first.value));
          break;
        default:
          break;
      }
    }
  }
}

Task<> use_barrier(World& world, Random& random) {
  if (random.below(2) == 0) {
    const Result<bool> r =
        co_await as_result(timeout(world.barrier.arrive_and_wait(), moment(random)));
    if (r) world.note_passed(r.value());
  } else {
    auto first = co_await race(sleep_for(moment(random)), world.barrier.arrive_and_wait(),
                               world.barrier.arrive_and_wait());
    if (first.index == 1) world.note_passed(std::get<1>(first.value));
    if (first.index == 2) world.note_passed(std::get<2>(first.value));
  }
}

Task<> keep_promise(Promise<Tracked> promise, World& world, bool keeps, Duration after) {
  co_await sleep_for(after);
  if (keeps) promise.set_value(world.ledger);
}

Task<> use_promise(World& world, Random& random) {
  Promise<Tracked> promise;
  Future<Tracked> future = promise.future();
  JoinHandle<void> keeper =
      spawn(keep_promise(std::move(promise), world, random.below(4) != 0, moment(random)));
  if (random.below(4) == 0) keeper.cancel();
  switch (random.below(3)) {
    case 0: {
      const Result<Tracked> r = co_await as_result(timeout(future, moment(random)));
      break;
    }
    case 1: {
      auto first = co_await race(future, sleep_for(moment(random)), std::move(future));
      break;
    }
    default: {
      const Result<Tracked> r = co_await as_result(std::move(future));
      if (r.is_error()) {
        try {
          r.value();
        } catch (const BrokenPromiseError&) {
        }
      }
    }
  }
}

Task<> use_latch(World& world, Random& random) {
  Latch latch(2);
  auto arrive = [&]() -> Task<> {
    co_await sleep_for(moment(random));
    co_await latch.arrive_and_wait();
  };
  Latch* const raw = &latch;
  world.executor.post([raw] { raw->count_down(); });
  // Masked: the latch lies here, and the posted function arrives in any case.
  co_await uncancellable(gather(arrive(), latch.wait()));
}

Task<> step(World& world, Random& random) {
  world.operations->fetch_add(1, std::memory_order_relaxed);
  switch (random.below(12)) {
    case 0:
      co_await use_mutex(world, random);
      break;
    case 1:
      co_await give_token(world, random);
      break;
    case 2:
      co_await take_token(world, random);
      break;
    case 3:
    case 4:
      co_await send_something(world, random);
      break;
    case 5:
    case 6:
      co_await receive_something(world, random);
      break;
    case 7:
      co_await use_barrier(world, random);
      break;
    case 8:
      co_await use_promise(world, random);
      break;
    case 9:
      co_await use_latch(world, random);
      break;
    case 10: {
      const Result<Permit> permit =
          co_await try_timeout(world.semaphore.acquire(1 + random.below(2)), moment(random));
      if (permit) world.hold(permit.value());
      break;
    }
    default:
      co_await as_result(timeout(world.event.wait(), moment(random)));
  }
}

// Steps one after the other; a step that fails or is cancelled does not end the program unless the
// task itself is cancelled.
Task<> program(World& world, std::uint64_t seed) {
  const Tracked tracked(world.ledger);
  Random random(seed);
  for (std::uint64_t i = 5 + random.below(20); i > 0; --i) {
    switch (random.below(6)) {
      case 0:
        co_await as_result(timeout(step(world, random), moment(random)));
        break;
      case 1: {
        auto body = [&](CancelScope& scope) -> Task<> {
          if (random.below(4) == 0) scope.cancel();
          co_await step(world, random);
        };
        co_await cancel_scope(body);
        break;
      }
      default:
        co_await as_result(step(world, random));
    }
    co_await this_task::checkpoint();
  }
}

TEST(PrimitivesStress, RandomCancellationLosesNoPermitLockOrItem) {
  const std::uint64_t seed = test::seed_or(20261122);
  std::cout << "seed " << seed << "\n";
  Random random(seed);
  std::atomic<std::uint64_t> operations{0};
  std::atomic<World*> current{nullptr};
  const test::Watchdog watchdog(operations, seed, [&current](std::ostream& out) {
    if (World* const stuck = current.load(); stuck != nullptr) test::show_all(out, stuck->executor);
  });
  const auto end =
      std::chrono::steady_clock::now() + test::soak_time(test::kScale == 1 ? 4s : 2500ms);
  std::size_t rounds = 0;
  std::uint64_t items = 0;
  long passes = 0;
  long tokens = 0;
  // On a slow machine until something of each kind has happened, for a while.
  const auto goes_on = [&] {
    const auto now = std::chrono::steady_clock::now();
    return now < end || ((passes == 0 || tokens == 0) && now < end + 60s);
  };
  while (goes_on() && !testing::Test::HasFailure()) {
    ++rounds;
    auto world = std::make_unique<World>(test::soak_threads(rounds));
    world->operations = &operations;
    current = world.get();
    std::vector<JoinHandle<void>> roots;
    for (int i = 0; i < 40; ++i) roots.push_back(world->executor.spawn(program(*world, random())));
    std::atomic<bool> stop{false};
    std::thread meddler([&, mine = Random(random())]() mutable {
      while (!stop.load()) {
        switch (mine.below(8)) {
          case 0:
            if (mine.below(4) == 0) roots[mine.below(roots.size())].cancel();
            break;
          case 1:
            world->event.set();
            break;
          case 2:
            world->event.clear();
            break;
          case 3:
            if (auto permit = world->semaphore.try_acquire()) world->hold(*permit);
            break;
          case 4:
            if (auto lock = world->mutex.try_lock()) world->enter();
            break;
          case 5: {
            Item item = world->make_item();
            if (some_channel(*world, mine).try_send(item)) world->sent.fetch_add(item.number);
            break;
          }
          case 6:
            world->note_received(some_channel(*world, mine).try_receive());
            break;
          default:
            std::this_thread::sleep_for(std::chrono::microseconds(mine.below(20)));
        }
      }
    });
    for (auto& root : roots) EXPECT_FALSE(root.wait().is_error());
    stop = true;
    meddler.join();
    roots.clear();
    if (random.below(2) == 0)
      world->executor.shutdown(1h);  // else the promises' keepers are cancelled
    world->executor.shutdown(0s);
    for (auto& channel : world->channels) {
      channel.close();
      while (true) {
        std::optional<Item> item = channel.try_receive();
        if (!item) break;
        world->note_received(item);
      }
    }
    EXPECT_EQ(world->executor.stats().live_tasks, 0u);
    EXPECT_EQ(world->executor.stats().pending_timers, 0u);
    EXPECT_EQ(world->semaphore.available(), kPermits);
    EXPECT_TRUE(world->mutex.try_lock().has_value());
    EXPECT_EQ(world->entries, world->entered.load());
    EXPECT_EQ(world->tokens, world->tokens_given.load() - world->tokens_taken.load());
    EXPECT_GE(world->tokens, 0);
    EXPECT_EQ(world->sent.load(), world->received.load());
    EXPECT_EQ(world->passes.load(), world->chosen.load() * static_cast<long>(kParties));
    EXPECT_EQ(world->ledger.alive(), 0);
    items += world->next_number.load();
    passes += world->passes.load();
    tokens += world->tokens_taken.load();
    current = nullptr;
  }
  std::cout << rounds << " rounds, " << operations.load() << " operations, " << items << " items, "
            << passes << " passes, " << tokens << " tokens\n";
  EXPECT_GT(passes, 0);
  EXPECT_GT(tokens, 0);
}

}  // namespace
}  // namespace magpie
