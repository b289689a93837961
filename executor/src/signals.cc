// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <magpie/signals.h>

namespace magpie {
namespace {

constexpr int kSignals = 65;  // Linux has 1 to 64

// The handler's only tool: a pipe to the thread. Written once, before the first handler is set.
std::atomic<int> pipe_write{-1};
static_assert(std::atomic<int>::is_always_lock_free, "the signal handler reads it");

extern "C" void handle_signal(int number) {
  const int saved = errno;
  const auto byte = static_cast<unsigned char>(number);
  // A full pipe means that plenty of signals wait already.
  [[maybe_unused]] const auto written = ::write(pipe_write.load(std::memory_order_relaxed), &byte, 1);
  errno = saved;
}

class SignalDesk {
 public:
  // Never destroyed: signals come until the process ends.
  static SignalDesk& instance() {
    static SignalDesk* const desk = new SignalDesk();
    return *desk;
  }

  CancellationToken watch(const std::vector<int>& numbers) {
    std::lock_guard guard(mutex_);
    CancellationSource source;
    CancellationToken token = source.token();
    for (const int number : numbers) waiting_[number].push_back(source);
    for (const int number : numbers) {
      struct sigaction action{};
      action.sa_handler = handle_signal;
      action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);  // the second one has its default effect
      sigemptyset(&action.sa_mask);
      if (::sigaction(number, &action, nullptr) != 0) {
        throw std::system_error(errno, std::generic_category(), "on_signal: cannot handle signal " + std::to_string(number));
      }
    }
    return token;
  }

 private:
  SignalDesk() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "on_signal: no pipe");
    ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    pipe_write.store(ends[1], std::memory_order_relaxed);
    // The thread takes no signals itself: they belong to the program's threads.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this, end = ends[0]] { serve(end); }).detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      ::close(ends[0]);
      ::close(ends[1]);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void serve(int end) noexcept {
    pthread_setname_np(pthread_self(), "magpie-signals");
    for (;;) {
      unsigned char number = 0;
      const auto got = ::read(end, &number, 1);
      if (got < 0 && errno == EINTR) continue;
      if (got != 1) return;
      std::vector<CancellationSource> sources;
      {
        std::lock_guard guard(mutex_);
        if (number < kSignals) sources.swap(waiting_[number]);
      }
      for (CancellationSource& source : sources) {
        const char* const name = sigabbrev_np(number);
        source.cancel(name != nullptr ? "SIG" + std::string(name) : "signal " + std::to_string(number));
      }
    }
  }

  std::mutex mutex_;
  std::vector<CancellationSource> waiting_[kSignals];
};

}  // namespace

CancellationToken on_signal(std::initializer_list<int> signals) {
  if (signals.size() == 0) throw std::invalid_argument("on_signal() needs at least one signal");
  for (const int number : signals) {
    if (number <= 0 || number >= kSignals) {
      throw std::invalid_argument("on_signal(): there is no signal " + std::to_string(number));
    }
  }
  return SignalDesk::instance().watch(std::vector<int>(signals));
}

}  // namespace magpie
