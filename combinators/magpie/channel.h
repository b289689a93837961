// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Channel: a queue of bounded length between tasks. Senders wait while it is full, receivers while
// it is empty.
//
//     Channel<Page> channel(64);
//     co_await channel.send(page);        // a producer; channel.close() when there is no more
//     while (true) {                      // a consumer
//       std::optional<Page> page = co_await channel.receive();
//       if (!page) break;                 // closed, and drained
//       ...
//     }
//
// Any number of senders and receivers. First in, first out: items come out in the order in which
// they went in, so each producer's in its own; waiting senders and receivers are served in the
// order in which they came, and nobody overtakes them, try_send and try_receive included. Capacity
// 0 is a rendezvous: a send ends when a receiver has the item.
//
// close(): sends fail with ChannelClosedError, waiting ones too (their items are destroyed with
// them); receivers get what is there, then nullopt.
//
// send and receive are cancellation points; in a cancelled scope nothing is sent or received. A
// cancelled send has sent nothing, a cancelled receive has taken nothing; what was handed over
// before the cancellation is delivered. Given directly to race or any, a send or receive takes
// place only if it wins: at a rendezvous of two races both win or neither, and contestants of one
// race do not meet each other.
//
// Items need only be movable. Those that move without throwing (and are not large) are moved under
// the channel's lock, so their moves must not use the channel; others lie in memory of their own
// and are moved outside of it; but by try_send(), which moves them under it, so that these moves,
// too, must use neither the channel nor what wakes tasks. What a move throws
// reaches whoever sends or receives just then; the channel stays as it was, except that an item is
// lost whose move to its receiver throws. std::bad_alloc from sends.
//
// Threads: all members from any thread; the channel must outlive its waiters.

#include <cstddef>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/channel_core.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/pact.h>
#include <magpie/detail/wake_list.h>
#include <magpie/errors.h>
#include <magpie/task.h>

namespace magpie {

template <class T>
class Channel;

namespace detail {

MAGPIE_EXPORT MAGPIE_COLD std::exception_ptr make_channel_closed() noexcept;

/// What travels through a channel for a T: itself, or a box that is made and opened without the
/// lock.
template <class T>
struct ChannelItem {
  static constexpr std::size_t kLarge = 256;  // bytes that a lock may be held for copying
  static constexpr bool kInPlace = std::is_nothrow_move_constructible_v<T> && sizeof(T) <= kLarge;
  using Box = std::unique_ptr<std::optional<T>>;
  using type = std::conditional_t<kInPlace, T, Box>;

  static T&& open(type& item) noexcept {
    if constexpr (kInPlace) {
      return std::move(item);
    } else {
      return std::move(**item);
    }
  }

  /// Everything that making an item needs besides the value.
  struct Maker {
    std::conditional_t<kInPlace, Nothing, Box> box;
    Maker() {
      if constexpr (!kInPlace) box = std::make_unique<std::optional<T>>();
    }
    type make(T& value) noexcept(std::is_nothrow_move_constructible_v<T>) {
      if constexpr (kInPlace) {
        return std::move(value);
      } else {
        box->emplace(std::move(value));
        return std::move(box);
      }
    }
  };
};

template <class T>
class SendOperation;
template <class T>
class ReceiveOperation;

/// What a Channel<T> is made of, for ChannelCore.
template <class T>
struct ChannelTraits : OperationTraits {
  using Item = typename ChannelItem<T>::type;
  using Send = SendOperation<T>;
  using Receive = ReceiveOperation<T>;

  static Send& sender(Waiter& w) noexcept {
    return static_cast<Send&>(static_cast<OperationBase&>(w));
  }
  static Receive& receiver(Waiter& w) noexcept {
    return static_cast<Receive&>(static_cast<OperationBase&>(w));
  }
  static Contestant<StdEnv> contestant(Waiter& w) noexcept {
    return detail::contestant(static_cast<OperationBase&>(w));
  }
  static SpinLock<StdEnv>& pact_lock() noexcept { return detail::pact_lock(); }
  template <class Op>
  static auto& item(Op& op) noexcept {
    return op.item_;
  }
  static void fail(Send& op) noexcept { op.closed_ = true; }
};

template <class T>
class [[nodiscard("co_await it")]] SendOperation : public Operation<SendOperation<T>, void> {
  using Base = Operation<SendOperation<T>, void>;
  using Item = ChannelItem<T>;

 public:
  static constexpr const char* kWhat = "room in a channel";
  static constexpr bool kTakes = true;
  SendOperation(ChannelCore<ChannelTraits<T>>& channel, T&& value)
      : channel_(&channel), item_(typename Item::Maker().make(value)) {}
  SendOperation(SendOperation&& other) noexcept
      : Base(std::move(other)),
        channel_(other.state.phase() == WaitPhase::idle ? std::exchange(other.channel_, nullptr)
                                                        : nullptr),
        item_(std::move(other.item_)) {}

  bool start() {
    // The item goes away once.
    if (channel_ == nullptr || this->state.phase() != WaitPhase::idle) [[unlikely]]
      throw_awaited_twice();
    return !this->refused() && channel_->start(*this);
  }
  void unqueue() noexcept { channel_->leave(*this); }
  void deposit(Slot<void>& slot) noexcept {
    closed_ ? slot.set_error(make_channel_closed()) : slot.emplace();
  }

 private:
  friend struct ChannelTraits<T>;
  ChannelCore<ChannelTraits<T>>* channel_;
  typename Item::type item_;  // until it is sent
  bool closed_ = false;
};

template <class T>
class [[nodiscard("co_await it")]] ReceiveOperation
    : public Operation<ReceiveOperation<T>, std::optional<T>> {
  using Base = Operation<ReceiveOperation<T>, std::optional<T>>;
  using Item = ChannelItem<T>;

 public:
  static constexpr const char* kWhat = "an item of a channel";
  static constexpr bool kTakes = true;
  explicit ReceiveOperation(ChannelCore<ChannelTraits<T>>& channel) noexcept : channel_(&channel) {}
  ReceiveOperation(ReceiveOperation&& other) noexcept
      : Base(std::move(other)), channel_(other.channel_) {}

  bool start() {
    item_.reset();  // of an await before this one
    return !this->refused() && channel_->start(*this);
  }
  bool unqueue() noexcept { return channel_->leave(*this); }
  void deposit(Slot<std::optional<T>>& slot) {
    item_ ? slot.emplace(std::in_place, Item::open(*item_)) : slot.emplace();
  }

 private:
  friend struct ChannelTraits<T>;
  ChannelCore<ChannelTraits<T>>* channel_;
  std::optional<typename Item::type> item_;  // what was received; nothing: closed
};

}  // namespace detail

template <class T>
class Channel {
  static_assert(std::is_object_v<T> && !std::is_array_v<T> && std::is_move_constructible_v<T>,
                "what is sent through a channel is an object that can be moved: of a reference or "
                "an array send a pointer or std::array");
  using Item = detail::ChannelItem<T>;
  using Send = detail::SendOperation<T>;
  using Receive = detail::ReceiveOperation<T>;

 public:
  using value_type = T;

  /// Of so many items; 0: senders and receivers meet. Memory is got as items come.
  explicit Channel(std::size_t capacity) noexcept : core_(capacity) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  /// Waits for room and sends. ChannelClosedError.
  Send send(T value) { return Send(core_, std::move(value)); }
  /// Waits for an item; nullopt when the channel is closed and empty.
  Receive receive() noexcept { return Receive(core_); }
  /// Sends if that is possible without waiting: takes the value, or leaves it where it is and gives
  /// false (full, closed, or nobody receives).
  bool try_send(T& value) {
    typename Item::Maker maker;
    return core_.try_send([&] { return maker.make(value); });
  }
  bool try_send(T&& value) { return try_send(value); }
  /// Receives if that is possible without waiting; nullopt: nothing there, or closed.
  std::optional<T> try_receive() {
    std::optional<typename Item::type> item;
    core_.try_receive(item);
    if (!item) return std::nullopt;
    return std::optional<T>(std::in_place, Item::open(*item));
  }
  /// No more sends; see the head of the file. A second call does nothing.
  void close() noexcept { core_.close(); }
  [[nodiscard]] bool closed() const noexcept { return core_.closed(); }

  [[nodiscard]] std::size_t capacity() const noexcept { return core_.capacity(); }
  /// How many items are in it now.
  [[nodiscard]] std::size_t size() const noexcept { return core_.size(); }

 private:
  detail::ChannelCore<detail::ChannelTraits<T>> core_;
};

}  // namespace magpie
