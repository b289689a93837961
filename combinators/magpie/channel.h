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
// and are moved outside of it; but by try_send(), which to a waiting receiver moves them under it,
// so that these moves, too, must use neither the channel nor what wakes tasks. What a move throws
// reaches whoever sends or receives just then; the channel stays as it was, except that an item is
// lost whose move to its receiver throws. std::bad_alloc from sends.
//
// Threads: all members from any thread; the channel must outlive its waiters.

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/item_ring.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/pact.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/wake_list.h>
#include <magpie/errors.h>

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
class [[nodiscard("co_await it")]] SendOperation : public Operation<SendOperation<T>, void> {
  using Base = Operation<SendOperation<T>, void>;
  using Item = ChannelItem<T>;

 public:
  static constexpr bool kTakes = true;
  SendOperation(Channel<T> & channel, T && value)
      : channel_(&channel), item_(typename Item::Maker().make(value)) {
    this->what = "room in a channel";
  }
  SendOperation(SendOperation && other) noexcept
      : Base(std::move(other)),
        channel_(other.state.phase() == WaitPhase::idle ? std::exchange(other.channel_, nullptr)
                                                        : nullptr),
        item_(std::move(other.item_)) {}

  bool start() {
    // The item goes away once.
    if (channel_ == nullptr || this->state.phase() != WaitPhase::idle) [[unlikely]]
      throw_awaited_twice();
    return !this->refused() && channel_->start_send(*this);
  }
  void unqueue() noexcept {
    channel_->forget(*this);
  }
  void deposit(Slot<void> & slot) noexcept {
    closed_ ? slot.set_error(make_channel_closed()) : slot.emplace();
  }

 private:
  friend class Channel<T>;
  Channel<T>* channel_;
  typename Item::type item_;  // until it is sent
  bool closed_ = false;
};

template <class T>
class [[nodiscard("co_await it")]] ReceiveOperation
    : public Operation<ReceiveOperation<T>, std::optional<T>> {
  using Base = Operation<ReceiveOperation<T>, std::optional<T>>;
  using Item = ChannelItem<T>;

 public:
  static constexpr bool kTakes = true;
  explicit ReceiveOperation(Channel<T> & channel) noexcept : channel_(&channel) {
    this->what = "an item of a channel";
  }
  ReceiveOperation(ReceiveOperation && other) noexcept
      : Base(std::move(other)), channel_(other.channel_) {}

  bool start() {
    item_.reset();  // of an await before this one
    return !this->refused() && channel_->start_receive(*this);
  }
  /// True: try_send() has handed an item over in the moment of the cancellation.
  bool unqueue() noexcept {
    channel_->forget(*this);
    return item_.has_value();
  }
  void deposit(Slot<std::optional<T>> & slot) {
    item_ ? slot.emplace(std::in_place, Item::open(*item_)) : slot.emplace();
  }

 private:
  friend class Channel<T>;
  Channel<T>* channel_;
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
  explicit Channel(std::size_t capacity) noexcept : capacity_(capacity) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  /// Waits for room and sends. ChannelClosedError.
  Send send(T value) { return Send(*this, std::move(value)); }
  /// Waits for an item; nullopt when the channel is closed and empty.
  Receive receive() noexcept { return Receive(*this); }
  /// Sends if that is possible without waiting: takes the value, or leaves it where it is and gives
  /// false (full, closed, or nobody receives).
  bool try_send(T& value);
  bool try_send(T&& value) { return try_send(value); }
  /// Receives if that is possible without waiting; nullopt: nothing there, or closed.
  std::optional<T> try_receive();
  /// No more sends; see the head of the file. A second call does nothing.
  void close() noexcept;
  [[nodiscard]] bool closed() const noexcept {
    std::lock_guard guard(lock_);
    return closed_;
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  /// How many items are in it now.
  [[nodiscard]] std::size_t size() const noexcept {
    std::lock_guard guard(lock_);
    return items_.size();
  }

 private:
  friend class detail::SendOperation<T>;
  friend class detail::ReceiveOperation<T>;
  using Ring = detail::ItemRing<typename Item::type>;
  using Queue = detail::BasicWaitQueue<detail::StdEnv>;

  static Send& sender(detail::Waiter& w) noexcept {
    return static_cast<Send&>(static_cast<detail::OperationBase&>(w));
  }
  static Receive& receiver(detail::Waiter& w) noexcept {
    return static_cast<Receive&>(static_cast<detail::OperationBase&>(w));
  }

  bool start_send(Send& op);
  bool start_receive(Receive& op);
  void forget(Send& op) noexcept {
    std::lock_guard guard(lock_);
    senders_.forget(op);
  }
  void forget(Receive& op) noexcept {
    std::lock_guard guard(lock_);
    receivers_.forget(op);
  }

  // The rest is under the lock. With a buffer: whoever waits to receive, it is empty; whoever waits
  // to send, it is full.
  void hand_on(typename Item::type&& item, detail::WakeList& woken) noexcept;
  void refill(detail::WakeList& woken) noexcept;
  bool give_to_receiver(typename Item::Maker& maker, T& value, detail::WakeList& woken);
  template <class Take>
  detail::Met meet_one_of(Queue& queue, const detail::Contestant<detail::StdEnv>& active,
                          detail::WakeList& woken, Take&& take) noexcept;

  mutable detail::SpinLock<detail::StdEnv> lock_;
  bool closed_ = false;
  const std::size_t capacity_;
  Ring items_;
  Queue senders_;
  Queue receivers_;
};

// To the oldest receiver, or into the buffer, where there is room.
template <class T>
void Channel<T>::hand_on(typename Item::type&& item, detail::WakeList& woken) noexcept {
  while (!receivers_.empty()) {
    Receive& first = receiver(*receivers_.front());
    if (!woken.claim_front(receivers_)) continue;
    first.item_.emplace(std::move(item));
    return;
  }
  items_.push(std::move(item));
}

// A place that has become free belongs to the oldest sender.
template <class T>
void Channel<T>::refill(detail::WakeList& woken) noexcept {
  while (!senders_.empty() && items_.size() < capacity_) {
    Send& first = sender(*senders_.front());
    if (woken.claim_front(senders_)) items_.push(std::move(first.item_));
  }
}

// Without a buffer: completes `active` together with the oldest of the queue that can be; take(that
// one) moves the item.
template <class T>
template <class Take>
detail::Met Channel<T>::meet_one_of(Queue& queue, const detail::Contestant<detail::StdEnv>& active,
                                    detail::WakeList& woken, Take&& take) noexcept {
  detail::Waiter* next = nullptr;
  for (detail::Waiter* w = queue.front(); w != nullptr; w = next) {
    next = w->queue_next;
    const detail::Met met = detail::meet(
        detail::pact_lock(), active, detail::contestant(static_cast<detail::OperationBase&>(*w)));
    if (met == detail::Met::not_he) continue;  // he leaves the queue by himself
    if (met == detail::Met::both) {
      queue.remove(*w);
      take(*w);
      woken.add(*w);
    }
    return met;
  }
  return detail::Met::not_he;
}

template <class T>
bool Channel<T>::start_send(Send& op) {
  detail::WakeList woken;
  typename Ring::Room room;  // outlives the lock: the old one is freed in the end
  bool parked = false;
  for (;;) {
    std::size_t more = 0;
    {
      std::lock_guard guard(lock_);
      if (room.count() > items_.room()) items_.move_to(room);
      if (closed_) {
        op.closed_ = true;
        op.state.set(detail::WaitPhase::done_at_once);
        break;
      }
      if (capacity_ == 0) {
        const detail::Met met = meet_one_of(
            receivers_, detail::contestant(op), woken,
            [&](detail::Waiter& w) noexcept { receiver(w).item_.emplace(std::move(op.item_)); });
        if (met == detail::Met::both) break;
        if (met == detail::Met::too_late) {
          op.state.set(detail::WaitPhase::cancelled_at_once);
          break;
        }
      }
      if (items_.size() >= capacity_) {
        parked = op.park();
        if (parked) senders_.push_back(op);
        break;
      }
      if (items_.has_room()) {
        if (op.complete_at_once()) hand_on(std::move(op.item_), woken);
        break;
      }
      more = items_.next_room(capacity_);
    }
    room = typename Ring::Room(more);
  }
  woken.wake_all();
  return parked;
}

template <class T>
bool Channel<T>::start_receive(Receive& op) {
  detail::WakeList woken;
  bool parked = false;
  {
    std::lock_guard guard(lock_);
    detail::Met met = detail::Met::not_he;
    if (capacity_ == 0) {
      met = meet_one_of(senders_, detail::contestant(op), woken, [&](detail::Waiter& w) noexcept {
        op.item_.emplace(std::move(sender(w).item_));
      });
    }
    if (met == detail::Met::too_late) {
      op.state.set(detail::WaitPhase::cancelled_at_once);
    } else if (items_.size() != 0) {
      if (op.complete_at_once()) {
        items_.pop_into(op.item_);
        refill(woken);
      }
    } else if (met == detail::Met::not_he) {
      if (closed_) {
        op.complete_at_once();
      } else {
        parked = op.park();
        if (parked) receivers_.push_back(op);
      }
    }
  }
  woken.wake_all();
  return parked;
}

// What cannot be undone comes last: the value is moved once it is sure that somebody gets it, and
// if that throws, nothing has happened.
template <class T>
bool Channel<T>::give_to_receiver(typename Item::Maker& maker, T& value, detail::WakeList& woken) {
  for (detail::Waiter* w = receivers_.front(); w != nullptr; w = w->queue_next) {
    Receive& oldest = receiver(*w);
    detail::Arbiter* const race = oldest.arbiter();
    if (oldest.state.phase() != detail::WaitPhase::waiting)
      continue;  // cancelled: he leaves the queue by himself
    if (race != nullptr && race->hold() != detail::Arbiter::Hold::held) continue;
    try {
      oldest.item_.emplace(maker.make(value));
    } catch (...) {
      if (race != nullptr) race->let_go();
      throw;
    }
    if (race != nullptr) race->decide(oldest.contestant());
    receivers_.remove(*w);
    // If a cancellation claims him in this very moment, he finds the item when he wants to leave
    // the queue: Receive::unqueue().
    if (oldest.state.try_complete()) woken.add(*w);
    return true;
  }
  return false;
}

template <class T>
bool Channel<T>::try_send(T& value) {
  typename Item::Maker maker;
  detail::WakeList woken;
  typename Ring::Room room;
  bool sent = false;
  for (;;) {
    std::size_t more = 0;
    {
      std::lock_guard guard(lock_);
      if (room.count() > items_.room()) items_.move_to(room);
      if (closed_) break;
      if (capacity_ == 0) {
        sent = give_to_receiver(maker, value, woken);
        break;
      }
      if (items_.size() >= capacity_) break;
      if (items_.has_room()) {
        hand_on(maker.make(value), woken);
        sent = true;
        break;
      }
      more = items_.next_room(capacity_);
    }
    room = typename Ring::Room(more);
  }
  woken.wake_all();
  return sent;
}

template <class T>
std::optional<T> Channel<T>::try_receive() {
  detail::WakeList woken;
  std::optional<typename Item::type> item;
  {
    std::lock_guard guard(lock_);
    if (items_.size() != 0) {
      items_.pop_into(item);
      refill(woken);
    } else if (capacity_ == 0) {
      detail::BasicWaitState<detail::StdEnv> state;
      meet_one_of(senders_, {state, nullptr, 0}, woken,
                  [&](detail::Waiter& w) noexcept { item.emplace(std::move(sender(w).item_)); });
    }
  }
  woken.wake_all();
  if (!item) return std::nullopt;
  return std::optional<T>(std::in_place, Item::open(*item));
}

// Senders fail, which wins no race; receivers wait only if there is nothing left for them.
template <class T>
void Channel<T>::close() noexcept {
  detail::WakeList woken;
  {
    std::lock_guard guard(lock_);
    closed_ = true;
    while (!senders_.empty()) {
      Send& first = sender(*senders_.front());
      senders_.remove(first);
      if (!first.state.try_complete()) continue;
      first.closed_ = true;
      woken.add(first);
    }
    while (!receivers_.empty()) woken.claim_front(receivers_);
  }
  woken.wake_all();
}

}  // namespace magpie
