// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the scenarios of tests/fault share: primitives, books about them, and points in the user's
// code at which a test may have something happen.
//
// A scenario is a short coroutine that uses one combinator or primitive the way a program would.
// The tests run each of them over and over, and at the k-th step, point, move or allocation, for
// every k, they cancel it, or have it fail. What every scenario must keep to is in World::settle().

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/magpie.h>

#include <support/ledger.h>

namespace magpie::test {

using namespace std::chrono_literals;

/// What a scenario throws by itself.
class ScenarioError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// What a test has a point or a move throw.
class Injected : public std::runtime_error {
 public:
  Injected() : std::runtime_error("injected") {}
};

class World;

/// A value whose making, copies and moves are points, too, and so may throw.
class Item {
 public:
  explicit Item(World& world);
  Item(const Item& other);
  Item(Item&& other);  // NOLINT: it throws, that is what it is for
  Item& operator=(const Item&) = delete;
  Item& operator=(Item&&) = delete;
  ~Item();

 private:
  World* world_;
};

/// Points are counted from any thread; `at` and `act` are set before anything runs.
struct Points {
  std::atomic<long> count{0};
  long at = -1;
  std::function<void()> act;

  void pass() {
    if (count.fetch_add(1, std::memory_order_relaxed) == at) act();
  }
};

class World {
 public:
  static constexpr std::size_t kPermits = 2;

  Ledger ledger;
  Points points;  // in the code of tasks, bodies, functors
  Points moves;   // in the moves and copies of items

  Semaphore semaphore{kPermits};
  Mutex mutex;
  Condition condition;
  Event event;
  Channel<Item> channel{1};        // its items travel in boxes, since their moves may throw
  Channel<Tracked> rendezvous{0};  // and these in place
  TaskLocal<int> local{7};
  int shared = 0;  // under the mutex

  // The books.
  std::atomic<long> held{0};  // permits
  std::atomic<long> in_mutex{0};
  std::atomic<long> sent{0};
  std::atomic<long> received{0};
  std::atomic<long> begun{0};    // blocks with a cleanup that have been entered
  std::atomic<long> cleaned{0};  // and cleanups that have run

  /// A point in the user's code. In some tests it throws.
  void point() { points.pass(); }

  void hold(long n) {
    const long now = held.fetch_add(n) + n;
    EXPECT_LE(now, static_cast<long>(kPermits)) << "more permits are held than there are";
  }
  void drop(long n) { held.fetch_sub(n); }

  /// Asked when everything has ended, before the executor goes. `exact`: nothing threw in a move,
  /// so items are counted to the last. `refused`: the memory for the frames of so many cleanups may
  /// have been.
  void settle(bool exact, long refused = 0) {
    EXPECT_EQ(semaphore.available(), kPermits) << "a permit was lost, or came twice";
    EXPECT_EQ(held.load(), 0);
    EXPECT_TRUE(mutex.try_lock().has_value()) << "the mutex stayed locked";
    EXPECT_EQ(in_mutex.load(), 0);
    const long not_cleaned = begun.load() - cleaned.load();
    EXPECT_TRUE(not_cleaned >= 0 && not_cleaned <= refused)
        << not_cleaned << " cleanups did not run, or ran twice";
    long left = 0;
    while (channel.try_receive().has_value()) ++left;
    while (rendezvous.try_receive().has_value()) ++left;
    if (exact) {
      EXPECT_EQ(sent.load(), received.load() + left) << "an item was lost, or came twice";
    }
  }
};

inline Item::Item(World& world) : world_(&world) {
  world_->moves.pass();
  world_->ledger.made();
}
inline Item::Item(const Item& other) : Item(*other.world_) {}
inline Item::Item(Item&& other) : Item(*other.world_) {}
inline Item::~Item() {
  world_->ledger.destroyed();
}

/// A child: a few suspensions, then an item. Its parameter is counted, so a frame that is lost or
/// destroyed twice shows.
inline Task<Item> work(World& world, int steps, Tracked) {
  world.point();
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
  world.point();
  co_return Item(world);
}
inline Task<Item> work(World& world, int steps) {
  return work(world, steps, Tracked(world.ledger));
}

inline Task<> toil(World& world, int steps, Tracked) {
  world.point();
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
  world.point();
}
inline Task<> toil(World& world, int steps) {
  return toil(world, steps, Tracked(world.ledger));
}

inline Task<Item> failing(World& world, int steps, Tracked) {
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
  world.point();
  throw ScenarioError("failing");
  co_return Item(world);
}
inline Task<Item> failing(World& world, int steps) {
  return failing(world, steps, Tracked(world.ledger));
}

/// Gives its item although it was cancelled.
inline Task<Item> stubborn_work(World& world, int steps) {
  auto inner = uncancellable(work(world, steps));
  co_return co_await std::move(inner);
}

inline Task<Item> slow_work(World& world, Duration pause, Tracked) {
  world.point();
  co_await sleep_for(pause);
  co_return Item(world);
}
inline Task<Item> slow_work(World& world, Duration pause) {
  return slow_work(world, pause, Tracked(world.ledger));
}

/// Cleans up when it is cancelled, and that takes a while.
inline Task<Item> careful_work(World& world, int steps) {
  auto cleanup = [&world]() -> Task<> {
    world.cleaned.fetch_add(1);
    co_await this_task::yield();
  };
  auto inner = work(world, steps);
  auto guarded = finally(std::move(inner), cleanup);
  world.begun.fetch_add(1);
  co_return co_await std::move(guarded);
}

inline Task<> with_permits(World& world, std::size_t n, int steps) {
  Permit permit = co_await world.semaphore.acquire(n);
  struct Holding {
    Holding(World& w, long count) : world(w), n(count) { world.hold(n); }
    ~Holding() { world.drop(n); }
    World& world;
    long n;
  } holding(world, static_cast<long>(n));
  world.point();
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
}

inline Task<> locked(World& world, int steps) {
  Mutex::Lock lock = co_await world.mutex.lock();
  EXPECT_EQ(world.in_mutex.fetch_add(1), 0) << "two tasks are in the mutex";
  struct Inside {
    explicit Inside(World& w) : world(w) {}
    ~Inside() { world.in_mutex.fetch_sub(1); }
    World& world;
  } inside(world);
  world.point();
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
  ++world.shared;
}

inline Task<> send_items(World& world, int n) {
  for (int i = 0; i < n; ++i) {
    world.point();
    auto send = world.channel.send(Item(world));
    co_await std::move(send);
    world.sent.fetch_add(1);
  }
}
inline Task<> receive_items(World& world, int n) {
  for (int i = 0; i < n; ++i) {
    std::optional<Item> item = co_await world.channel.receive();
    if (!item) co_return;
    world.received.fetch_add(1);
    world.point();
  }
}
inline Task<> meet_to_send(World& world, int n) {
  for (int i = 0; i < n; ++i) {
    world.point();
    auto send = world.rendezvous.send(Tracked(world.ledger));
    co_await std::move(send);
    world.sent.fetch_add(1);
  }
}
inline Task<> meet_to_receive(World& world, int n) {
  for (int i = 0; i < n; ++i) {
    std::optional<Tracked> item = co_await world.rendezvous.receive();
    if (!item) co_return;
    world.received.fetch_add(1);
    world.point();
  }
}

enum class Ends {
  value,   // if it is not cancelled
  error,   // ScenarioError, TimeoutError or BrokenPromiseError, or a group of them
  absorb,  // a value, if it is not cancelled; else perhaps an error that it would have absorbed
           // (errors win over cancellations)
};

/// One line per scenario. `headers`: the public headers that it is there for, with a blank between
/// them.
struct Scenario {
  const char* name;
  const char* headers;
  Ends ends;
  Task<> (*run)(World&);
};

}  // namespace magpie::test
