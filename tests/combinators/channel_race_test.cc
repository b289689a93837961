// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (more of what channel_test shows)

// Channels as contestants of races, in every order, and between many threads: each item arrives
// once, or stays where it was.

#include <magpie/channel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class ChannelRaceTest : public OnMachine {};

TEST_ON_THREADS(ChannelRaceTest, ALoserSendsAndReceivesNothing) {  // B138
  Channel<int> full(1);
  Channel<int> empty(1);
  machine.run([&]() -> Task<> {
    co_await full.send(1);
    auto timed_out = co_await race(full.send(2), empty.receive(), sleep_for(1ms));
    EXPECT_EQ(timed_out.index, 2u);
    EXPECT_EQ(full.size(), 1u);
    co_await empty.send(5);
    // Both can: one does.
    auto first = co_await race(full.receive(), empty.receive());
    EXPECT_EQ(first.value, first.index == 0 ? 1 : 5);
    EXPECT_EQ(full.size(), first.index == 0 ? 0u : 1u);
    EXPECT_EQ(empty.size(), first.index == 1 ? 0u : 1u);
    Channel<int> a(1);
    Channel<int> b(1);
    auto sent = co_await race(a.send(1), b.send(2));
    EXPECT_EQ(a.size() + b.size(), 1u);
    EXPECT_EQ(a.size(), sent.index == 0 ? 1u : 0u);
  });
}

TEST_ON_THREADS(ChannelRaceTest, WhoWaitsInARaceIsServedOnlyIfItWins) {  // B138
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1}) {
    Channel<int> a(capacity);
    Channel<int> b(capacity);
    machine.run([&]() -> Task<> {
      auto receive = [&]() -> Task<std::size_t> {
        auto first = co_await race(a.receive(), b.receive());
        co_return first.index;
      };
      JoinHandle<std::size_t> receiver = executor.spawn(receive());
      co_await sleep_for(1us);
      int one = 1;
      int two = 2;
      EXPECT_TRUE(b.try_send(one));
      EXPECT_EQ(a.try_send(two), capacity == 1);  // the race is won: nobody receives here any more
      EXPECT_EQ(a.size(), capacity);
      EXPECT_EQ(co_await receiver, 1u);
    });
  }
}

TEST_ON_THREADS(ChannelRaceTest, TwoRacesMeet) {
  Channel<int> channel(0);
  machine.run([&]() -> Task<> {
    auto send = [&]() -> Task<bool> {
      auto first = co_await race(channel.send(6), sleep_for(1s));
      co_return first.index == 0;
    };
    auto receive = [&]() -> Task<int> {
      auto first = co_await race(sleep_for(1s), channel.receive());
      co_return first.index == 1 ? *std::get<1>(first.value) : -1;
    };
    JoinHandle<bool> sender = executor.spawn(send());
    JoinHandle<int> receiver = executor.spawn(receive());
    EXPECT_TRUE(co_await sender);
    EXPECT_EQ(co_await receiver, 6);
  });
}

TEST_ON_THREADS(ChannelRaceTest, ContestantsOfOneRaceDoNotMeetEachOther) {
  Channel<int> channel(0);
  machine.run([&]() -> Task<> {
    auto alone = co_await race(channel.send(1), channel.receive(), sleep_for(1ms));
    EXPECT_EQ(alone.index, 2u);
    auto other_way = co_await race(channel.receive(), channel.send(1), sleep_for(1ms));
    EXPECT_EQ(other_way.index, 2u);
    // A third one meets either of them.
    auto exchange = [&]() -> Task<std::size_t> {
      auto first = co_await race(channel.send(1), channel.receive());
      co_return first.index;
    };
    JoinHandle<std::size_t> one = executor.spawn(exchange());
    JoinHandle<std::size_t> two = executor.spawn(exchange());
    const std::size_t a = co_await one;
    const std::size_t b = co_await two;
    EXPECT_EQ(a + b, 1u);  // one sent, the other received
  });
}

TEST_ON_THREADS(ChannelRaceTest, ClosingIsAFailureOfSendersAndAValueOfReceivers) {
  Channel<int> channel(1);
  Channel<int> other(1);
  machine.run([&]() -> Task<> {
    co_await channel.send(1);
    auto send = [&]() -> Task<std::size_t> {
      auto first = co_await any(channel.send(2), other.receive());
      co_return first.index;
    };
    JoinHandle<std::size_t> sender = executor.spawn(send());
    co_await sleep_for(1us);
    channel.close();
    co_await sleep_for(1us);
    EXPECT_FALSE(sender.done());  // the failed send has won nothing
    co_await other.send(3);
    EXPECT_EQ(co_await sender, 1u);
    EXPECT_EQ(other.size(), 0u);
    const Result<Indexed<void>> failed = co_await as_result(race(channel.send(2), sleep_for(1h)));
    EXPECT_TRUE(is<ChannelClosedError>(failed.error()));
    auto drained = co_await any(channel.receive(), sleep_for(1h));
    EXPECT_EQ(std::get<0>(drained.value), 1);
    auto ended = co_await any(channel.receive(), sleep_for(1h));
    EXPECT_EQ(std::get<0>(ended.value), std::nullopt);
  });
}

// An item whose last move throws is lost, and any() neither hangs nor hides it.
TEST_ON_THREADS(ChannelRaceTest, AWinnerWhoseItemCannotBeMovedFails) {
  struct Stubborn {
    explicit Stubborn(int) {}
    Stubborn(Stubborn&& other) noexcept(false) : moves(other.moves + 1) {
      if (moves > 2) throw std::runtime_error("moved too often");
    }
    int moves = 0;
  };
  Channel<Stubborn> channel(1);
  machine.run([&]() -> Task<> {
    EXPECT_TRUE(channel.try_send(Stubborn(1)));
    std::string what;
    try {
      auto first = co_await any(channel.receive(), sleep_for(24h * 365));
      ADD_FAILURE() << first.index;
    } catch (const std::runtime_error& error) {
      what = error.what();
    }
    EXPECT_EQ(what, "moved too often");
  });
  EXPECT_LT(machine.elapsed(), 1h);
}

// In every order: senders and receivers of a rendezvous or a buffer, racing, timing out, cancelled,
// and the channel closing.
TEST(ChannelInEveryOrder, NothingIsLostOrArrivesTwice) {
  testing::explore(scaled(20'000), [](testing::SimulatedExecutor& simulator) {
    detail::Random random(simulator.seed());
    const auto capacity = static_cast<std::size_t>(random.below(3));
    Channel<std::pair<int, Tracked>> channel(capacity);
    Ledger ledger;
    std::vector<int> sent(8, 0);
    std::vector<int> received(8, 0);
    auto send = [&](int name, std::uint64_t how) -> Task<> {
      auto item = std::make_pair(name, Tracked(ledger));
      bool went = false;
      switch (how) {
        case 0: {
          co_await channel.send(std::move(item));
          went = true;
          break;
        }
        case 1: {
          auto first = co_await race(channel.send(std::move(item)), this_task::yield());
          went = first.index == 0;
          break;
        }
        case 2: {
          const Result<void> r = co_await try_timeout(channel.send(std::move(item)), 1us);
          went = r.has_value();
          break;
        }
        default: {
          co_await this_task::yield();
          went = channel.try_send(item);
        }
      }
      if (went) ++sent[static_cast<std::size_t>(name)];
    };
    auto note = [&](const std::optional<std::pair<int, Tracked>>& item) {
      if (item) ++received[static_cast<std::size_t>(item->first)];
    };
    auto receive = [&](std::uint64_t how) -> Task<> {
      switch (how) {
        case 0: {
          auto item = co_await channel.receive();
          note(item);
          break;
        }
        case 1: {
          auto first = co_await race(channel.receive(), this_task::yield(), channel.receive());
          if (first.index == 0) note(std::get<0>(first.value));
          if (first.index == 2) note(std::get<2>(first.value));
          break;
        }
        case 2: {
          auto r = co_await try_timeout(channel.receive(), 1us);
          if (r) note(r.value());
          break;
        }
        default: {
          co_await this_task::yield();
          note(channel.try_receive());
        }
      }
    };
    auto body = [&]() -> Task<> {
      std::vector<JoinHandle<void>> tasks;
      for (int i = 0; i < 8; ++i) {
        tasks.push_back(spawn(send(i, random.below(4))));
        tasks.push_back(spawn(receive(random.below(4))));
      }
      for (std::uint64_t i = random.below(4); i > 0; --i) co_await this_task::yield();
      for (int i = 0; i < 3; ++i) tasks[random.below(tasks.size())].cancel();
      if (random.below(2) == 0) co_await sleep_for(2us);
      channel.close();
      for (auto& t : tasks) {
        const Result<void> r = co_await as_result(t);
        if (r.is_error() && !is<ChannelClosedError>(r.error()))
          throw std::logic_error("another error");
      }
      while (true) {
        auto rest = co_await channel.receive();
        if (!rest) break;
        note(rest);
      }
    };
    simulator.run(body());
    for (std::size_t i = 0; i < sent.size(); ++i) {
      if (sent[i] > 1 || received[i] > 1) throw std::logic_error("an item went twice");
      if (received[i] != sent[i]) throw std::logic_error("an item was lost, or came from nowhere");
    }
    if (ledger.alive() != 0) throw std::logic_error("an object is left");
  });
}

// --- many threads --------------------------------------------------------------------------------

struct Numbered {
  std::uint64_t producer = 0;
  std::uint64_t number = 0;
};

// Producers' items arrive in each producer's order, whoever receives them; every item once.
TEST(ChannelAcrossThreads, EachProducersItemsComeInItsOrder) {
  constexpr std::size_t kProducers = 4;
  const std::size_t n = scaled(200'000);
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1, 64}) {
    WorkStealingExecutor workers({.threads = 3});
    Channel<Numbered> channel(capacity);
    auto produce = [&](std::uint64_t name) -> Task<> {
      for (std::uint64_t i = 0; i < n; ++i) co_await channel.send(Numbered{name, i});
    };
    auto consume = [&]() -> Task<std::size_t> {
      std::vector<std::uint64_t> next(kProducers, 0);
      std::size_t count = 0;
      while (true) {
        std::optional<Numbered> item = co_await channel.receive();
        if (!item) break;
        EXPECT_GE(item->number, next[item->producer]);
        next[item->producer] = item->number + 1;
        ++count;
      }
      co_return count;
    };
    std::vector<JoinHandle<void>> producers;
    std::vector<JoinHandle<std::size_t>> consumers;
    for (std::uint64_t i = 0; i < kProducers; ++i) producers.push_back(workers.spawn(produce(i)));
    for (int i = 0; i < 3; ++i) consumers.push_back(workers.spawn(consume()));
    for (auto& p : producers) EXPECT_TRUE(p.wait().has_value());
    channel.close();
    std::size_t total = 0;
    for (auto& c : consumers) total += c.wait().value();
    EXPECT_EQ(total, kProducers * n);
  }
}

// Races, timeouts, cancellations and outside threads on both ends: what was sent and what was
// received add up, item by item.
TEST(ChannelAcrossThreads, WhatWasSentIsReceivedOnce) {
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1, 8}) {
    Ledger ledger;
    {
      using Item = std::pair<std::uint64_t, Tracked>;
      WorkStealingExecutor workers({.threads = 3});
      Channel<Item> channel(capacity);
      Channel<Item> second(capacity);
      std::atomic<std::uint64_t> sent{0};
      std::atomic<std::uint64_t> received{0};
      std::atomic<std::uint64_t> next{1};
      std::atomic<bool> stop{false};
      auto note = [&](const std::optional<Item>& item) {
        if (item) received.fetch_add(item->first);
      };
      auto send = [&](std::uint64_t seed) -> Task<> {
        detail::Random random(seed);
        for (std::size_t i = 0; i < scaled(40'000); ++i) {
          const std::uint64_t number = next.fetch_add(1);
          Item item(number, Tracked(ledger));
          Item spare(number, Tracked(ledger));
          const auto limit = std::chrono::microseconds(random.below(30));
          bool went = false;
          switch (random.below(3)) {
            case 0: {
              const Result<void> r = co_await try_timeout(channel.send(std::move(item)), limit);
              went = r.has_value();
              break;
            }
            case 1: {
              auto first = co_await race(channel.send(std::move(item)),
                                         second.send(std::move(spare)), sleep_for(limit));
              went = first.index != 2;
              break;
            }
            default:
              went = channel.try_send(item);
          }
          if (went) sent.fetch_add(number);
        }
      };
      auto receive = [&](std::uint64_t seed) -> Task<> {
        detail::Random random(seed);
        while (true) {
          const auto limit = std::chrono::microseconds(random.below(30));
          switch (random.below(3)) {
            case 0: {
              auto r = co_await try_timeout(channel.receive(), limit);
              if (r) note(r.value());
              break;
            }
            case 1: {
              auto first = co_await any(channel.receive(), second.receive(), sleep_for(limit));
              if (first.index == 0) note(std::get<0>(first.value));
              if (first.index == 1) note(std::get<1>(first.value));
              break;
            }
            default:
              note(second.try_receive());
          }
          if (channel.closed() && second.closed() && channel.size() == 0 && second.size() == 0)
            break;
        }
      };
      std::thread outsider([&] {
        while (!stop.load()) {
          note(channel.try_receive());
          const std::uint64_t number = next.fetch_add(1);
          Item item(number, Tracked(ledger));
          if (second.try_send(item)) sent.fetch_add(number);
          std::this_thread::yield();
        }
      });
      std::vector<JoinHandle<void>> senders;
      std::vector<JoinHandle<void>> receivers;
      for (std::uint64_t i = 0; i < 4; ++i) {
        senders.push_back(workers.spawn(send(i)));
        receivers.push_back(workers.spawn(receive(i + 100)));
      }
      for (auto& s : senders) EXPECT_TRUE(s.wait().has_value());
      stop = true;
      outsider.join();
      channel.close();
      second.close();
      for (auto& r : receivers) EXPECT_TRUE(r.wait().has_value());
      EXPECT_EQ(sent.load(), received.load());
      EXPECT_GT(sent.load(), 0u);
    }
    EXPECT_EQ(ledger.alive(), 0);
  }
}

// Races that meet each other at rendezvous points, all of them decided by other threads at the same
// time: pairs, or nothing.
TEST(ChannelAcrossThreads, RacesMeetInPairs) {
  WorkStealingExecutor workers({.threads = 4});
  Channel<int> channels[3] = {Channel<int>(0), Channel<int>(0), Channel<int>(0)};
  std::atomic<long> sent{0};
  std::atomic<long> received{0};
  auto exchange = [&](std::uint64_t seed) -> Task<> {
    detail::Random random(seed);
    for (std::size_t i = 0; i < scaled(200'000); ++i) {
      Channel<int>& a = channels[random.below(3)];
      Channel<int>& b = channels[random.below(3)];
      auto first = co_await race(a.send(1), b.receive(), a.receive(), this_task::yield());
      if (first.index == 0) ++sent;
      if (first.index == 1 || first.index == 2) ++received;
    }
  };
  std::vector<JoinHandle<void>> tasks;
  for (std::uint64_t i = 0; i < 6; ++i) tasks.push_back(workers.spawn(exchange(i)));
  for (auto& t : tasks) EXPECT_TRUE(t.wait().has_value());
  EXPECT_EQ(sent.load(), received.load());
  EXPECT_GT(sent.load(), 0);
}

TEST(ChannelAcrossThreads, AnExecutorEndsUnderItsWaiters) {
  for (std::size_t round = 0; round < scaled(400); ++round) {
    Channel<int> channel(round % 2);
    std::optional<WorkStealingExecutor> there(std::in_place, ExecutorOptions{.threads = 2});
    std::vector<JoinHandle<std::optional<int>>> receivers;
    std::vector<JoinHandle<void>> senders;
    for (int i = 0; i < 3; ++i) receivers.push_back(there->spawn(channel.receive()));
    std::thread meddler([&] {
      int value = 1;
      channel.try_send(value);
      if (round % 3 == 0) channel.close();
    });
    there.reset();
    for (auto& r : receivers) EXPECT_TRUE(r.done());
    meddler.join();
  }
}

// Cancels a task in the very moment in which an item is moved to it.
struct Meddler {
  explicit Meddler(std::function<void()> f) : on_move(std::move(f)) {}
  Meddler(Meddler&& other) noexcept(false) : on_move(std::exchange(other.on_move, nullptr)) {
    if (on_move) std::exchange(on_move, nullptr)();
  }
  std::function<void()> on_move;
};

TEST(ChannelRace, AReceiverThatIsCancelledWhileItGetsAnItemHasIt) {
  testing::SimulatedExecutor simulator(1);
  auto body = []() -> Task<> {
    Channel<Meddler> channel(0);
    JoinHandle<std::optional<Meddler>> receiver = spawn(channel.receive());
    co_await sleep_for(1ms);
    bool cancelled = false;
    Meddler item([&] { cancelled = receiver.cancel(); });
    const bool sent = channel.try_send(item);
    EXPECT_TRUE(cancelled);
    EXPECT_TRUE(sent);
    const Result<std::optional<Meddler>> got = co_await as_result(std::move(receiver));
    EXPECT_TRUE(got.has_value() && got.value().has_value());
  };
  simulator.run(body());
}

// Whoever gets the last item may destroy the channel, while the sender is still on its way out.
TEST(ChannelAcrossThreads, ItsReceiverMayDestroyIt) {
  WorkStealingExecutor workers({.threads = 2});
  for (std::size_t round = 0; round < scaled(3000); ++round) {
    auto channel = std::make_unique<Channel<int>>(round % 2);
    Channel<int>* const raw = channel.get();
    auto receive = [&]() -> Task<int> {
      std::optional<int> value = co_await channel->receive();
      channel.reset();
      co_return *value;
    };
    auto send = [raw]() -> Task<> { co_await raw->send(4); };
    JoinHandle<int> receiver = workers.spawn(receive());
    JoinHandle<void> sender = workers.spawn(send());
    EXPECT_EQ(receiver.wait().value(), 4);
    EXPECT_TRUE(sender.wait().has_value());
  }
}

}  // namespace
}  // namespace magpie
