// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Values whose lives are counted, and values that are awkward to carry about: for tests that ask
// whether something was destroyed once, and before what. Threads: the ledger may be written and
// read from any.

#include <atomic>
#include <stdexcept>
#include <utility>

namespace magpie::test {

/// How many objects were made and destroyed.
class Ledger {
 public:
  Ledger() = default;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  void made() noexcept { made_.fetch_add(1, std::memory_order_relaxed); }
  void destroyed() noexcept { destroyed_.fetch_add(1, std::memory_order_relaxed); }

  long total() const noexcept { return made_.load(std::memory_order_relaxed); }
  long alive() const noexcept {
    return made_.load(std::memory_order_relaxed) - destroyed_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<long> made_{0};
  std::atomic<long> destroyed_{0};
};

/// Counts itself, and every copy, in a ledger.
class Tracked {
 public:
  explicit Tracked(Ledger& ledger) noexcept : ledger_(&ledger) { ledger_->made(); }
  Tracked(const Tracked& other) noexcept : ledger_(other.ledger_) { ledger_->made(); }
  Tracked(Tracked&& other) noexcept : ledger_(other.ledger_) { ledger_->made(); }
  Tracked& operator=(const Tracked&) noexcept = default;
  Tracked& operator=(Tracked&&) noexcept = default;
  ~Tracked() { ledger_->destroyed(); }

  void touch() const noexcept {}

 private:
  Ledger* ledger_;
};

/// Neither copyable nor default-constructible.
class MoveOnly {
 public:
  explicit MoveOnly(int value) noexcept : value_(value) {}
  MoveOnly(MoveOnly&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  MoveOnly& operator=(MoveOnly&& other) noexcept {
    value_ = std::exchange(other.value_, -1);
    return *this;
  }
  ~MoveOnly() = default;

  int value() const noexcept { return value_; }

 private:
  int value_;
};

/// Copyable, not default-constructible, not assignable.
class NoDefault {
 public:
  explicit NoDefault(int v) noexcept : value(v) {}
  const int value;
};

/// Its copies throw.
class ThrowsOnCopy {
 public:
  explicit ThrowsOnCopy(int v) noexcept : value(v) {}
  ThrowsOnCopy(const ThrowsOnCopy&) : value(0) { throw std::runtime_error("copied"); }
  ThrowsOnCopy(ThrowsOnCopy&& other) noexcept : value(other.value) {}
  int value;
};

}  // namespace magpie::test
