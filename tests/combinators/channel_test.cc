// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// Channel: what api.md, sections 0 and 7, says of it. Races over channels, and many threads:
// channel_race_test.cc.

#include <magpie/channel.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class ChannelTest : public OnMachine {};

Task<> send_all(Channel<int>& channel, int from, int to) {
  for (int i = from; i < to; ++i) co_await channel.send(i);
}

Task<std::vector<int>> receive_all(Channel<int>& channel) {
  std::vector<int> values;
  while (true) {
    std::optional<int> value = co_await channel.receive();
    if (!value) break;
    values.push_back(*value);
  }
  co_return values;
}

std::vector<int> numbers(int from, int to) {
  std::vector<int> values(static_cast<std::size_t>(to - from));
  std::iota(values.begin(), values.end(), from);
  return values;
}

TEST_ON_THREADS(ChannelTest, ValuesComeOutInTheOrderInWhichTheyWentIn) {
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1, 2, 3, 16, 17, 1000}) {
    Channel<int> channel(capacity);
    EXPECT_EQ(channel.capacity(), capacity);
    machine.run([&]() -> Task<> {
      auto produce = [&]() -> Task<> {
        co_await send_all(channel, 0, 300);
        channel.close();
      };
      JoinHandle<void> producer = executor.spawn(produce());
      std::vector<int> values = co_await receive_all(channel);
      EXPECT_EQ(values, numbers(0, 300));
      co_await producer;
    });
    EXPECT_EQ(channel.size(), 0u);
  }
}

TEST_ON_THREADS(ChannelTest, SendersWaitWhileItIsFullReceiversWhileItIsEmpty) {
  Channel<int> channel(2);
  machine.run([&]() -> Task<> {
    JoinHandle<void> producer = executor.spawn(send_all(channel, 0, 4));
    co_await sleep_for(1ms);
    EXPECT_FALSE(producer.done());
    EXPECT_EQ(channel.size(), 2u);
    EXPECT_EQ(co_await channel.receive(), 0);
    co_await sleep_for(1ms);
    EXPECT_EQ(channel.size(), 2u);
    EXPECT_FALSE(producer.done());
    EXPECT_EQ(co_await channel.receive(), 1);
    co_await producer;
    EXPECT_EQ(co_await channel.receive(), 2);
    EXPECT_EQ(co_await channel.receive(), 3);
    JoinHandle<std::optional<int>> consumer = executor.spawn(channel.receive());
    co_await sleep_for(1ms);
    EXPECT_FALSE(consumer.done());
    co_await channel.send(4);
    EXPECT_EQ(co_await consumer, 4);
  });
}

TEST_ON_THREADS(ChannelTest, ARendezvousEndsWhenTheReceiverHasTheItem) {
  Channel<int> channel(0);
  machine.run([&]() -> Task<> {
    int no = 7;
    EXPECT_FALSE(channel.try_send(no));
    EXPECT_FALSE(channel.try_receive().has_value());
    JoinHandle<void> producer = executor.spawn(send_all(channel, 0, 2));
    co_await sleep_for(1ms);
    EXPECT_FALSE(producer.done());
    EXPECT_EQ(channel.size(), 0u);
    EXPECT_EQ(co_await channel.receive(), 0);
    co_await sleep_for(1ms);
    EXPECT_FALSE(producer.done());
    EXPECT_EQ(channel.try_receive(), 1);
    co_await producer;
    JoinHandle<std::optional<int>> consumer = executor.spawn(channel.receive());
    co_await sleep_for(1ms);
    EXPECT_TRUE(channel.try_send(no));
    EXPECT_EQ(co_await consumer, 7);
    consumer = executor.spawn(channel.receive());
    co_await sleep_for(1ms);
    co_await channel.send(8);
    EXPECT_EQ(co_await consumer, 8);
  });
}

TEST_ON_THREADS(ChannelTest, WaitingSendersAndReceiversAreServedInTheirOrder) {  // B182
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1}) {
    Channel<int> channel(capacity);
    std::vector<int> sent;
    std::vector<int> received;
    machine.run([&]() -> Task<> {
      auto send = [&](int value) -> Task<> {
        co_await channel.send(value);
        sent.push_back(value);
      };
      std::vector<JoinHandle<void>> handles;
      for (int i = 0; i < 6; ++i) {
        handles.push_back(executor.spawn(send(i)));
        co_await sleep_for(1us);
      }
      for (int i = 0; i < 6; ++i) {
        EXPECT_EQ(co_await channel.receive(), i);
        co_await sleep_for(1us);
      }
      EXPECT_EQ(sent, numbers(0, 6));
      auto receive = [&](int name) -> Task<> {
        std::optional<int> value = co_await channel.receive();
        EXPECT_EQ(value, name);
        received.push_back(name);
      };
      for (int i = 0; i < 6; ++i) {
        handles.push_back(executor.spawn(receive(i)));
        co_await sleep_for(1us);
      }
      for (int i = 0; i < 6; ++i) {
        co_await channel.send(i);
        co_await sleep_for(1us);
      }
      EXPECT_EQ(received, numbers(0, 6));
      for (auto& h : handles) co_await h;
    });
  }
}

TEST_ON_THREADS(ChannelTest, NobodyOvertakesAWaitingSender) {  // B182
  Channel<int> channel(1);
  machine.run([&]() -> Task<> {
    JoinHandle<void> producer = executor.spawn(send_all(channel, 0, 2));
    co_await sleep_for(1ms);
    EXPECT_EQ(channel.try_receive(), 0);
    // The place belongs to the sender that waited, although it has not run yet.
    int mine = 9;
    EXPECT_FALSE(channel.try_send(mine));
    EXPECT_EQ(channel.try_receive(), 1);
    EXPECT_TRUE(channel.try_send(mine));
    co_await producer;
  });
}

TEST_ON_THREADS(ChannelTest, ClosingLetsReceiversDrainAndSendersFail) {  // B196
  for (const std::size_t capacity : std::vector<std::size_t>{0, 2}) {
    Channel<int> channel(capacity);
    machine.run([&]() -> Task<> {
      for (int i = 0; i < static_cast<int>(capacity); ++i) co_await channel.send(i);
      JoinHandle<void> waiting = executor.spawn(channel.send(99));
      co_await sleep_for(1ms);
      EXPECT_FALSE(channel.closed());
      channel.close();
      channel.close();
      EXPECT_TRUE(channel.closed());
      const Result<void> failed = co_await as_result(waiting);
      EXPECT_TRUE(is<ChannelClosedError>(failed.error()));
      const Result<void> late = co_await as_result(channel.send(98));
      EXPECT_TRUE(is<ChannelClosedError>(late.error()));
      auto plainly = [&]() -> Task<> { co_await channel.send(97); };
      const Result<void> thrown = co_await as_result(plainly());
      EXPECT_TRUE(is<ChannelClosedError>(thrown.error()));
      int value = 5;
      EXPECT_FALSE(channel.try_send(value));
      EXPECT_EQ(value, 5);
      for (int i = 0; i < static_cast<int>(capacity); ++i) EXPECT_EQ(co_await channel.receive(), i);
      EXPECT_EQ(co_await channel.receive(), std::nullopt);
      EXPECT_EQ(co_await channel.receive(), std::nullopt);
      EXPECT_EQ(channel.try_receive(), std::nullopt);
    });
  }
}

TEST_ON_THREADS(ChannelTest, ClosingWakesWaitingReceivers) {  // B196
  Channel<int> channel(4);
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<std::optional<int>>> waiting;
    for (int i = 0; i < 5; ++i) waiting.push_back(executor.spawn(channel.receive()));
    co_await sleep_for(1ms);
    co_await channel.send(1);
    channel.close();
    int values = 0;
    for (auto& w : waiting) {
      std::optional<int> value = co_await w;
      values += value.has_value() ? 1 : 0;
    }
    EXPECT_EQ(values, 1);
  });
}

TEST_ON_THREADS(ChannelTest, TrySendLeavesTheValueWhenItIsRefused) {
  Channel<std::unique_ptr<int>> channel(1);
  auto first = std::make_unique<int>(1);
  auto second = std::make_unique<int>(2);
  EXPECT_TRUE(channel.try_send(first));
  EXPECT_EQ(first, nullptr);
  EXPECT_FALSE(channel.try_send(second));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*second, 2);
  std::optional<std::unique_ptr<int>> out = channel.try_receive();
  ASSERT_TRUE(out.has_value());
  EXPECT_EQ(**out, 1);
  channel.close();
  EXPECT_FALSE(channel.try_send(second));
  ASSERT_NE(second, nullptr);
  Channel<std::string> texts(1);
  EXPECT_TRUE(texts.try_send("temporary"));
  EXPECT_EQ(texts.try_receive(), "temporary");
}

TEST_ON_THREADS(ChannelTest, ItemsOfAwkwardTypes) {
  struct alignas(64) Aligned {
    explicit Aligned(int v) : value(v) {}
    int value;
  };
  struct Large {
    explicit Large(int v) { bytes.fill(static_cast<char>(v)); }
    std::array<char, 1000> bytes;
  };
  Channel<MoveOnly> move_only(2);
  Channel<NoDefault> no_default(2);
  Channel<Aligned> aligned(2);
  Channel<Large> large(2);
  machine.run([&]() -> Task<> {
    for (int round = 0; round < 5; ++round) {
      co_await move_only.send(MoveOnly(round));
      std::optional<MoveOnly> a = co_await move_only.receive();
      EXPECT_EQ(a->value(), round);
      co_await no_default.send(NoDefault(round));
      std::optional<NoDefault> b = co_await no_default.receive();
      EXPECT_EQ(b->value, round);
      co_await aligned.send(Aligned(round));
      std::optional<Aligned> c = co_await aligned.receive();
      EXPECT_EQ(c->value, round);
      co_await large.send(Large(round));
      std::optional<Large> d = large.try_receive();
      EXPECT_EQ(d->bytes.back(), round);
    }
  });
}

TEST_ON_THREADS(ChannelTest, WhatIsLeftInItDiesWithIt) {
  Ledger ledger;
  {
    Channel<Tracked> channel(100);
    for (int i = 0; i < 40; ++i) EXPECT_TRUE(channel.try_send(Tracked(ledger)));
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(channel.try_receive().has_value());
    EXPECT_EQ(ledger.alive(), 37);
  }
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(ChannelTest,
                ACancelledSendHasSentNothingACancelledReceiveTakenNothing) {  // B045, B195
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1}) {
    Ledger ledger;
    auto channel = std::make_unique<Channel<Tracked>>(capacity);
    machine.run([&]() -> Task<> {
      if (capacity == 1) co_await channel->send(Tracked(ledger));
      const Result<void> sent = co_await as_result(timeout(channel->send(Tracked(ledger)), 1ms));
      EXPECT_TRUE(sent.is_timeout());
      EXPECT_EQ(ledger.alive(), capacity == 1 ? 1 : 0);
      if (capacity == 1) {
        std::optional<Tracked> item = co_await channel->receive();
        EXPECT_TRUE(item.has_value());
      }
      const Result<std::optional<Tracked>> received = co_await try_timeout(channel->receive(), 1ms);
      EXPECT_TRUE(received.is_timeout());
      channel.reset();  // nobody is left in its queues
    });
    EXPECT_EQ(ledger.alive(), 0);
  }
}

TEST_ON_THREADS(ChannelTest, ACancelledWaiterIsSkipped) {  // B183
  for (const std::size_t capacity : std::vector<std::size_t>{0, 1}) {
    Channel<int> channel(capacity);
    machine.run([&]() -> Task<> {
      JoinHandle<std::optional<int>> first = executor.spawn(channel.receive());
      co_await sleep_for(1us);
      JoinHandle<std::optional<int>> second = executor.spawn(channel.receive());
      co_await sleep_for(1us);
      first.cancel();
      int value = 5;
      EXPECT_TRUE(channel.try_send(value));
      EXPECT_EQ(co_await second, 5);
      const Result<std::optional<int>> r = co_await as_result(first);
      EXPECT_TRUE(r.is_cancelled());
      // The same for senders.
      if (capacity == 1) co_await channel.send(0);
      JoinHandle<void> one = executor.spawn(channel.send(1));
      co_await sleep_for(1us);
      JoinHandle<void> two = executor.spawn(channel.send(2));
      co_await sleep_for(1us);
      one.cancel();
      if (capacity == 1) {
        EXPECT_EQ(channel.try_receive(), 0);
      }
      EXPECT_EQ(channel.try_receive(), 2);
      co_await two;
      const Result<void> s = co_await as_result(one);
      EXPECT_TRUE(s.is_cancelled());
      EXPECT_EQ(channel.try_receive(), std::nullopt);
    });
  }
}

TEST_ON_THREADS(ChannelTest, AnItemHandedOverBeforeTheCancellationIsDelivered) {  // B006, B195
  Channel<int> channel(1);
  machine.run([&]() -> Task<> {
    JoinHandle<std::optional<int>> receiver = executor.spawn(channel.receive());
    co_await sleep_for(1us);
    int value = 5;
    EXPECT_TRUE(channel.try_send(value));
    receiver.cancel();
    const Result<std::optional<int>> r = co_await as_result(receiver);
    EXPECT_TRUE(r.has_value());
    EXPECT_EQ(r.value(), 5);
  });
}

TEST_ON_THREADS(ChannelTest, InACancelledScopeNothingIsSentOrReceived) {  // B186
  Channel<int> channel(2);
  machine.run([&]() -> Task<> {
    co_await channel.send(1);
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      const Result<std::optional<int>> r = co_await as_result(channel.receive());
      EXPECT_TRUE(r.is_cancelled());
      co_await channel.send(2);
    };
    const Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(channel.size(), 1u);
  });
}

TEST_ON_THREADS(ChannelTest, GivenToCombinatorsDirectly) {
  Channel<int> channel(2);
  machine.run([&]() -> Task<> {
    auto both =
        co_await gather(channel.send(1), channel.send(2), channel.receive(), channel.receive());
    EXPECT_EQ(std::get<2>(both), 1);
    EXPECT_EQ(std::get<3>(both), 2);
    CancellationSource source;
    co_await with_token(source.token(), channel.send(3));
    source.cancel();
    const Result<std::optional<int>> refused =
        co_await as_result(with_token(source.token(), channel.receive()));
    EXPECT_TRUE(refused.is_cancelled());
    EXPECT_EQ(co_await timeout(channel.receive(), 1ms), 3);
    JoinHandle<void> spawned = executor.spawn(channel.send(4));
    co_await spawned;
    EXPECT_EQ(co_await uncancellable(channel.receive()), 4);
  });
}

TEST_ON_THREADS(ChannelTest, AHundredThousandSendersWait) {
  const std::size_t n = scaled(100'000);
  for (const std::size_t capacity : std::vector<std::size_t>{0, 3}) {
    Channel<std::size_t> channel(capacity);
    std::size_t sum = 0;
    machine.run([&]() -> Task<> {
      std::vector<detail::SendOperation<std::size_t>> sends;
      for (std::size_t i = 0; i < n; ++i) sends.push_back(channel.send(i));
      JoinHandle<void> all = executor.spawn(gather(std::move(sends)));
      co_await sleep_for(1ms);
      for (std::size_t i = 0; i < n; ++i) {
        std::optional<std::size_t> value = co_await channel.receive();
        EXPECT_EQ(value, i);
        sum += value.value_or(0);
      }
      co_await all;
    });
    EXPECT_EQ(sum, n * (n - 1) / 2);
  }
}

TEST_ON_THREADS(ChannelTest, ManyItemsWithoutABound) {
  const std::size_t n = scaled(200'000);
  Channel<std::size_t> channel(SIZE_MAX);
  machine.run([&]() -> Task<> {
    for (std::size_t i = 0; i < n; ++i) co_await channel.send(i);
    EXPECT_EQ(channel.size(), n);
    for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(co_await channel.receive(), i);
  });
}

TEST_ON_THREADS(ChannelTest, DumpsNameIt) {
  Channel<int> channel(1);
  machine.run([&]() -> Task<> {
    const auto dump = [&] {
      std::ostringstream out;
      executor.dump_tasks(out);
      return out.str();
    };
    JoinHandle<std::optional<int>> receiver = executor.spawn(channel.receive());
    co_await sleep_for(1us);
    EXPECT_NE(dump().find("waiting for an item of a channel"), std::string::npos) << dump();
    JoinHandle<void> sender = executor.spawn(send_all(channel, 0, 3));
    co_await sleep_for(1us);
    EXPECT_NE(dump().find("waiting for room in a channel"), std::string::npos) << dump();
    channel.close();
    co_await as_result(sender);
    co_await receiver;
  });
}

// --- items whose moves throw ---------------------------------------------------------------------

/// Its moves throw when told to.
class Fragile {
 public:
  static inline int moves_left = -1;  // -1: all succeed
  explicit Fragile(int v) : value(v) { ++alive; }
  Fragile(Fragile&& other) : value(other.value) {  // NOLINT: may throw
    if (moves_left == 0) throw std::runtime_error("moved");
    if (moves_left > 0) --moves_left;
    other.value = -1;
    ++alive;
  }
  ~Fragile() { --alive; }
  int value;
  static inline int alive = 0;
};

class FragileItems : public OnMachine {
 protected:
  void SetUp() override { Fragile::moves_left = -1; }
  void TearDown() override {
    Fragile::moves_left = -1;
    EXPECT_EQ(Fragile::alive, 0);
  }
};

TEST_ON_A_THREAD(FragileItems, TravelLikeOthers) {
  for (const std::size_t capacity : std::vector<std::size_t>{0, 2}) {
    Channel<Fragile> channel(capacity);
    machine.run([&]() -> Task<> {
      auto produce = [&]() -> Task<> {
        for (int i = 0; i < 10; ++i) co_await channel.send(Fragile(i));
        channel.close();
      };
      JoinHandle<void> producer = executor.spawn(produce());
      for (int i = 0; i < 10; ++i) {
        std::optional<Fragile> item = co_await channel.receive();
        EXPECT_EQ(item->value, i);
      }
      std::optional<Fragile> end = co_await channel.receive();
      EXPECT_FALSE(end.has_value());
      co_await producer;
    });
  }
}

TEST_ON_A_THREAD(FragileItems, AMoveThatFailsInTrySendLeavesTheChannelAsItWas) {
  for (const std::size_t capacity : std::vector<std::size_t>{0, 2}) {
    Channel<Fragile> channel(capacity);
    machine.run([&]() -> Task<> {
      auto receive = [&]() -> Task<int> {
        std::optional<Fragile> item = co_await channel.receive();
        co_return item ? item->value : -2;
      };
      JoinHandle<int> receiver = executor.spawn(receive());
      co_await sleep_for(1us);
      Fragile item(3);
      Fragile::moves_left = 0;
      EXPECT_THROW(channel.try_send(item), std::runtime_error);
      Fragile::moves_left = -1;
      EXPECT_EQ(item.value, 3);
      EXPECT_FALSE(receiver.done());
      co_await sleep_for(1us);
      EXPECT_FALSE(receiver.done());  // it waits as before
      EXPECT_TRUE(channel.try_send(item));
      EXPECT_EQ(co_await receiver, 3);
    });
  }
}

TEST_ON_A_THREAD(FragileItems, AMoveThatFailsOnTheWayOutReachesTheReceiver) {
  Channel<Fragile> channel(4);
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(channel.try_send(Fragile(i)));
    Fragile::moves_left = 0;
    EXPECT_THROW(channel.try_receive(), std::runtime_error);
    Fragile::moves_left = 0;
    const Result<std::optional<Fragile>> lost = co_await as_result(channel.receive());
    EXPECT_EQ(what_of(lost.error()), "moved");
    Fragile::moves_left = -1;
    std::optional<Fragile> next = co_await channel.receive();
    EXPECT_EQ(next->value, 2);
    EXPECT_EQ(channel.size(), 1u);
    // send() moves its value before anything else happens.
    Fragile item(9);
    Fragile::moves_left = 1;
    EXPECT_THROW((void)channel.send(std::move(item)), std::runtime_error);
    Fragile::moves_left = -1;
    EXPECT_EQ(channel.size(), 1u);
  });
}

}  // namespace
}  // namespace magpie
