// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A callable whose type is forgotten: so a coroutine that calls it is compiled once for what it
// makes, and not for each lambda. Not a std::function: what it holds need not be copyable, and an
// lvalue is referenced.

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace magpie::detail {

template <class Made>
class AnyFactory {
 public:
  /// `Make::make(F&)` gives a Made. An lvalue is referenced and must outlive this; else the
  /// callable is moved in, to a place of its own unless it is as small as two references.
  template <class Make, class F>
  AnyFactory(std::type_identity<Make>, F&& function) {
    using Plain = std::remove_reference_t<F>;
    if constexpr (std::is_function_v<Plain>) {
      place_.function = reinterpret_cast<void (*)()>(std::addressof(function));
      make_ = [](Place& place) -> Made {
        return Make::make(*reinterpret_cast<Plain*>(place.function));
      };
    } else if constexpr (std::is_lvalue_reference_v<F>) {
      place_.object = const_cast<void*>(static_cast<const void*>(std::addressof(function)));
      make_ = call<Make, Plain>;
    } else if constexpr (sizeof(Plain) <= sizeof(Place) && alignof(Plain) <= alignof(Place) &&
                         std::is_trivially_copyable_v<Plain>) {
      ::new (static_cast<void*>(place_.room)) Plain(std::forward<F>(function));
      make_ = [](Place& place) -> Made {
        return Make::make(*std::launder(reinterpret_cast<Plain*>(place.room)));
      };
    } else {
      place_.object =
          const_cast<void*>(static_cast<const void*>(new Plain(std::forward<F>(function))));
      make_ = call<Make, Plain>;
      destroy_ = [](void* object) noexcept { delete static_cast<Plain*>(object); };
    }
  }
  AnyFactory(AnyFactory&& other) noexcept
      : make_(other.make_),
        destroy_(std::exchange(other.destroy_, nullptr)),
        place_(other.place_) {}
  AnyFactory& operator=(AnyFactory&&) = delete;
  ~AnyFactory() {
    if (destroy_ != nullptr) destroy_(place_.object);
  }

  Made operator()() { return make_(place_); }

 private:
  union Place {
    void* object;
    void (*function)();
    alignas(void*) std::byte room[2 * sizeof(void*)];
  };
  template <class Make, class Plain>
  static Made call(Place& place) {
    return Make::make(*static_cast<Plain*>(place.object));
  }

  Made (*make_)(Place&);
  void (*destroy_)(void*) noexcept = nullptr;  // null: nothing to destroy
  Place place_;
};

}  // namespace magpie::detail
