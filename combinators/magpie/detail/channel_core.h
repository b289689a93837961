// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A channel's state and steps, over what its users are made of: the library's operations, or the
// models' (tests/model/channel_model_test.cc).
//
// `Traits` has
//   Env, Item                     Item moves without throwing
//   Waiter, Send, Receive         operations; sender(waiter) and receiver(waiter) give them back
//   WakeList                      as <magpie/detail/wake_list.h>
//   contestant(operation)         its state and its race
//   pact_lock()
//   park(operation), complete_at_once(operation)   as OperationBase
//   item(send): Item&             until it is sent
//   item(receive): optional<Item>&   what was received
//   fail(send)                    it will end with the channel's end as its error
//
// With a buffer: whoever waits to receive, it is empty; whoever waits to send, it is full.

#include <cstddef>
#include <mutex>
#include <optional>
#include <utility>

#include <magpie/detail/item_ring.h>
#include <magpie/detail/pact.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

template <class Traits>
class ChannelCore {
  using Env = typename Traits::Env;
  using Item = typename Traits::Item;
  using Node = typename Traits::Waiter;
  using Send = typename Traits::Send;
  using Receive = typename Traits::Receive;
  using WakeList = typename Traits::WakeList;
  using Ring = ItemRing<Item>;
  using Queue = BasicWaitQueue<Env>;

 public:
  explicit ChannelCore(std::size_t capacity) noexcept : capacity_(capacity) {}

  /// True: parked, and not to be touched any more.
  bool start(Send& op);
  bool start(Receive& op);
  /// A cancelled operation leaves its queue.
  void leave(Send& op) noexcept {
    std::lock_guard guard(lock_);
    senders_.forget(op);
  }
  /// True: try_send() has handed an item over in the moment of the cancellation.
  bool leave(Receive& op) noexcept {
    std::unique_lock guard(lock_, std::defer_lock);
    if (!Env::mutant(Mutant::channel_leave_unlocked)) guard.lock();
    receivers_.forget(op);
    return Traits::item(op).has_value() && !Env::mutant(Mutant::channel_forgotten_item);
  }

  /// make() gives the item, if it can be sent; it may throw, and then nothing has happened.
  template <class Make>
  bool try_send(Make&& make);
  void try_receive(std::optional<Item>& item);
  void close() noexcept;

  bool closed() const noexcept {
    std::lock_guard guard(lock_);
    return closed_;
  }
  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t size() const noexcept {
    std::lock_guard guard(lock_);
    return items_.size();
  }

 private:
  // Under the lock.
  void hand_on(Item&& item, WakeList& woken) noexcept;
  void refill(WakeList& woken) noexcept;
  template <class Make>
  bool give_to_receiver(Make& make, WakeList& woken);
  template <class Take>
  Met meet_one_of(Queue& queue, const Contestant<Env>& active, WakeList& woken,
                  Take&& take) noexcept;

  mutable SpinLock<Env> lock_;
  bool closed_ = false;
  const std::size_t capacity_;
  Ring items_;
  Queue senders_;
  Queue receivers_;
};

// To the oldest receiver, or into the buffer, where there is room.
template <class Traits>
void ChannelCore<Traits>::hand_on(Item&& item, WakeList& woken) noexcept {
  while (!receivers_.empty()) {
    Receive& first = Traits::receiver(*receivers_.front());
    if (!woken.claim_front(receivers_)) continue;
    Traits::item(first).emplace(std::move(item));
    return;
  }
  items_.push(std::move(item));
}

// A place that has become free belongs to the oldest sender.
template <class Traits>
void ChannelCore<Traits>::refill(WakeList& woken) noexcept {
  if (Env::mutant(Mutant::channel_no_refill)) return;
  while (!senders_.empty() && items_.size() < capacity_) {
    Send& first = Traits::sender(*senders_.front());
    if (woken.claim_front(senders_)) items_.push(std::move(Traits::item(first)));
  }
}

// Without a buffer: completes `active` together with the oldest of the queue that can be; take(that
// one) moves the item.
template <class Traits>
template <class Take>
Met ChannelCore<Traits>::meet_one_of(Queue& queue, const Contestant<Env>& active, WakeList& woken,
                                     Take&& take) noexcept {
  Node* next = nullptr;
  for (Node* w = queue.front(); w != nullptr; w = next) {
    next = w->queue_next;
    const Met met = meet(Traits::pact_lock(), active, Traits::contestant(*w));
    if (met == Met::not_he) continue;  // he leaves the queue by himself
    if (met == Met::both) {
      queue.remove(*w);
      take(*w);
      woken.add(*w);
    }
    return met;
  }
  return Met::not_he;
}

template <class Traits>
bool ChannelCore<Traits>::start(Send& op) {
  WakeList woken;
  typename Ring::Room room;  // outlives the lock: the old one is freed in the end
  bool parked = false;
  for (;;) {
    std::size_t more = 0;
    {
      std::lock_guard guard(lock_);
      if (room.count() > items_.room()) items_.move_to(room);
      if (closed_) {
        Traits::fail(op);
        op.state.set(WaitPhase::done_at_once);
        break;
      }
      if (capacity_ == 0) {
        const Met met =
            meet_one_of(receivers_, Traits::contestant(op), woken, [&](Node& w) noexcept {
              Traits::item(Traits::receiver(w)).emplace(std::move(Traits::item(op)));
            });
        if (met == Met::both) break;
        if (met == Met::too_late) {
          op.state.set(WaitPhase::cancelled_at_once);
          break;
        }
      }
      if (items_.size() >= capacity_) {
        parked = Traits::park(op);
        if (parked) senders_.push_back(op);
        break;
      }
      if (items_.has_room()) {
        if (Traits::complete_at_once(op)) hand_on(std::move(Traits::item(op)), woken);
        break;
      }
      more = items_.next_room(capacity_);
    }
    room = typename Ring::Room(more);
  }
  woken.wake_all();
  return parked;
}

template <class Traits>
bool ChannelCore<Traits>::start(Receive& op) {
  WakeList woken;
  bool parked = false;
  {
    std::lock_guard guard(lock_);
    Met met = Met::not_he;
    if (capacity_ == 0) {
      met = meet_one_of(senders_, Traits::contestant(op), woken, [&](Node& w) noexcept {
        Traits::item(op).emplace(std::move(Traits::item(Traits::sender(w))));
      });
    }
    if (met == Met::too_late) {
      op.state.set(WaitPhase::cancelled_at_once);
    } else if (items_.size() != 0) {
      if (Traits::complete_at_once(op)) {
        items_.pop_into(Traits::item(op));
        refill(woken);
      }
    } else if (met == Met::not_he) {
      if (closed_) {
        Traits::complete_at_once(op);
      } else {
        parked = Traits::park(op);
        if (parked) receivers_.push_back(op);
      }
    }
  }
  woken.wake_all();
  return parked;
}

// What cannot be undone comes last: the value is moved once it is sure that somebody gets it, and
// if that throws, nothing has happened.
template <class Traits>
template <class Make>
bool ChannelCore<Traits>::give_to_receiver(Make& make, WakeList& woken) {
  using Hold = typename BasicArbiter<Env>::Hold;
  for (Node* w = receivers_.front(); w != nullptr; w = w->queue_next) {
    const Contestant<Env> oldest = Traits::contestant(*w);
    if (oldest.state.phase() != WaitPhase::waiting)
      continue;  // cancelled: he leaves the queue by himself
    if (oldest.arbiter != nullptr && oldest.arbiter->hold() != Hold::held) continue;
    try {
      Traits::item(Traits::receiver(*w)).emplace(make());
    } catch (...) {
      if (oldest.arbiter != nullptr) oldest.arbiter->let_go();
      throw;
    }
    if (oldest.arbiter != nullptr) oldest.arbiter->decide(oldest.index);
    receivers_.remove(*w);
    // If a cancellation claims him in this very moment, he finds the item when he wants to leave
    // the queue: leave().
    if (oldest.state.try_complete()) woken.add(*w);
    return true;
  }
  return false;
}

template <class Traits>
template <class Make>
bool ChannelCore<Traits>::try_send(Make&& make) {
  WakeList woken;
  typename Ring::Room room;
  bool sent = false;
  for (;;) {
    std::size_t more = 0;
    {
      std::lock_guard guard(lock_);
      if (room.count() > items_.room()) items_.move_to(room);
      if (closed_) break;
      if (capacity_ == 0) {
        sent = give_to_receiver(make, woken);
        break;
      }
      if (items_.size() >= capacity_) break;
      if (items_.has_room()) {
        hand_on(make(), woken);
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

template <class Traits>
void ChannelCore<Traits>::try_receive(std::optional<Item>& item) {
  WakeList woken;
  {
    std::lock_guard guard(lock_);
    if (items_.size() != 0) {
      items_.pop_into(item);
      refill(woken);
    } else if (capacity_ == 0) {
      BasicWaitState<Env> state;
      meet_one_of(senders_, {state, nullptr, 0}, woken, [&](Node& w) noexcept {
        item.emplace(std::move(Traits::item(Traits::sender(w))));
      });
    }
  }
  woken.wake_all();
}

// Senders fail, which wins no race; receivers wait only if there is nothing left for them.
template <class Traits>
void ChannelCore<Traits>::close() noexcept {
  WakeList woken;
  {
    std::lock_guard guard(lock_);
    closed_ = true;
    while (!senders_.empty()) {
      Send& first = Traits::sender(*senders_.front());
      senders_.remove(first);
      const bool claimed = first.state.try_complete();
      if (!claimed && !Env::mutant(Mutant::channel_close_wakes_cancelled)) continue;
      Traits::fail(first);
      woken.add(first);
    }
    while (!receivers_.empty() && !Env::mutant(Mutant::channel_close_forgets_receivers))
      woken.claim_front(receivers_);
  }
  woken.wake_all();
}

}  // namespace magpie::detail
