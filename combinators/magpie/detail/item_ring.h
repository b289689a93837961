// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Items first in, first out, in a ring that grows in two steps: the memory is got while no lock is
// held, the items change over under the lock. Never shrinks: a queue that was full once has room
// for as many again.

#include <bit>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace magpie::detail {

template <class Item>
class ItemRing {
  static_assert(std::is_nothrow_move_constructible_v<Item>,
                "what is moved under a lock must not throw");

 public:
  /// Memory for items, none of them in it.
  class Room {
   public:
    Room() noexcept = default;
    explicit Room(std::size_t count)
        : slots_(static_cast<Item*>(::operator new(count * sizeof(Item), kAlign))), count_(count) {}
    Room(Room&& other) noexcept
        : slots_(std::exchange(other.slots_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    Room& operator=(Room other) noexcept {
      swap(other);
      return *this;
    }
    ~Room() {
      if (slots_ != nullptr) ::operator delete(slots_, count_ * sizeof(Item), kAlign);
    }
    void swap(Room& other) noexcept {
      std::swap(slots_, other.slots_);
      std::swap(count_, other.count_);
    }
    std::size_t count() const noexcept { return count_; }
    Item* at(std::size_t index) const noexcept { return slots_ + (index & (count_ - 1)); }

   private:
    static constexpr std::align_val_t kAlign{alignof(Item)};
    Item* slots_ = nullptr;
    std::size_t count_ = 0;  // a power of two, or 0
  };

  ItemRing() noexcept = default;
  ItemRing(const ItemRing&) = delete;
  ItemRing& operator=(const ItemRing&) = delete;
  ~ItemRing() {
    while (size_ != 0) drop_front();
  }

  std::size_t size() const noexcept { return size_; }
  std::size_t room() const noexcept { return room_.count(); }
  bool has_room() const noexcept { return size_ < room_.count(); }
  /// How much room to get next, if there may be up to `most` items.
  std::size_t next_room(std::size_t most) const noexcept {
    if (room_.count() != 0) return 2 * room_.count();
    return most < kFirstRoom ? std::bit_ceil(most) : kFirstRoom;
  }
  /// Moves into a larger room; leaves the old one in its place, to be freed without the lock.
  void move_to(Room& larger) noexcept {
    for (std::size_t i = 0; i < size_; ++i) {
      Item* const from = room_.at(first_ + i);
      std::construct_at(larger.at(i), std::move(*from));
      std::destroy_at(from);
    }
    first_ = 0;
    room_.swap(larger);
  }

  /// There must be room.
  void push(Item&& item) noexcept {
    std::construct_at(room_.at(first_ + size_), std::move(item));
    ++size_;
  }
  /// There must be an item.
  void pop_into(std::optional<Item>& target) noexcept {
    target.emplace(std::move(*room_.at(first_)));
    drop_front();
  }

 private:
  static constexpr std::size_t kFirstRoom = 16;

  void drop_front() noexcept {
    std::destroy_at(room_.at(first_));
    ++first_;
    --size_;
  }

  Room room_;
  std::size_t first_ = 0;  // counts on and on; its low bits are the place
  std::size_t size_ = 0;
};

}  // namespace magpie::detail
