// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A place for an object that is made later, or never. It is what the library needs of a
// std::optional, which takes a compiler ten times as long for each type: no copies, no moves, no
// comparisons.

#include <memory>
#include <new>
#include <utility>

namespace magpie::detail {

template <class T>
class Late {
 public:
  Late() noexcept {}
  Late(const Late&) = delete;
  Late& operator=(const Late&) = delete;
  ~Late() { reset(); }

  /// If the constructor throws, there is none.
  template <class... A>
  T& emplace(A&&... args) {
    reset();
    ::new (static_cast<void*>(std::addressof(value_))) T(std::forward<A>(args)...);
    made_ = true;
    return value_;
  }
  void reset() noexcept {
    if (made_) {
      made_ = false;
      value_.~T();
    }
  }

  explicit operator bool() const noexcept { return made_; }
  T& operator*() noexcept { return value_; }
  T* operator->() noexcept { return std::addressof(value_); }

 private:
  union {
    T value_;
  };
  bool made_ = false;
};

}  // namespace magpie::detail
