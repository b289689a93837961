// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Awaitables as another library would have them, and waiting for a moment without hanging for ever.

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/types.h>

namespace magpie::test {

/// Polls until the condition holds; false after two minutes: a machine may be slow. For what has no
/// event to wait for.
template <class Condition>
bool eventually(Condition&& condition) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Whether a thread of this process (its gettid()) sleeps in the kernel just now, rather than
/// spins.
inline bool sleeps(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_ends = text.rfind(')');
  return name_ends != std::string::npos && text.substr(name_ends, 3) == ") S";
}

/// Starts a thread that nobody waits for. Detached from the start: glibc's pthread_detach() may
/// look at a thread that is gone by then (its bug 19951), and these end at once.
template <class F>
void start_detached(F function) {
  auto boxed = std::make_unique<F>(std::move(function));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const int error = pthread_create(
      &thread, &attributes,
      [](void* given) -> void* {
        (*std::unique_ptr<F>(static_cast<F*>(given)))();
        return nullptr;
      },
      boxed.get());
  pthread_attr_destroy(&attributes);
  if (error != 0) throw std::system_error(error, std::generic_category(), "no thread");
  (void)boxed.release();
}

/// Resumes on a thread of its own, and gives a value.
class OnForeignThread {
 public:
  explicit OnForeignThread(int value) noexcept : value_(value) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> awaiting) const {
    start_detached([awaiting] { awaiting.resume(); });
  }
  int await_resume() const noexcept { return value_; }

 private:
  int value_;
};

/// Ready at once; gives its member as an rvalue, as some libraries' tasks do.
class ReadyRvalue {
 public:
  explicit ReadyRvalue(std::size_t size) : values_(size) {}
  bool await_ready() const noexcept { return true; }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  std::vector<int>&& await_resume() noexcept { return std::move(values_); }

 private:
  std::vector<int> values_;
};

/// An event that resumes its waiters inside set(), holding its mutex no longer.
class ForeignEvent {
 public:
  void set() {
    std::vector<std::coroutine_handle<>> ready;
    {
      std::lock_guard guard(mutex_);
      set_ = true;
      ready.swap(waiters_);
    }
    for (auto handle : ready) handle.resume();
  }
  std::size_t waiters() {
    std::lock_guard guard(mutex_);
    return waiters_.size();
  }

  class Awaiter {
   public:
    explicit Awaiter(ForeignEvent& event) noexcept : event_(event) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting) {
      std::lock_guard guard(event_.mutex_);
      if (event_.set_) return false;
      event_.waiters_.push_back(awaiting);
      return true;
    }
    void await_resume() const noexcept {}

   private:
    ForeignEvent& event_;
  };
  Awaiter operator co_await() noexcept { return Awaiter(*this); }

 private:
  std::mutex mutex_;
  bool set_ = false;
  std::vector<std::coroutine_handle<>> waiters_;
};

}  // namespace magpie::test
