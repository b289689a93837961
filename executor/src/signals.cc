// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <list>
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
// Whose pipe it is: a child of fork() has it, too, and the handler.
std::atomic<pid_t> pipe_owner{0};
// How many calls of on_signal() there were, to tell who asked before a signal came.
std::atomic<std::uint64_t> calls{0};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<pid_t>::is_always_lock_free &&
                  std::atomic<std::uint64_t>::is_always_lock_free,
              "the signal handler reads them");

// What goes through the pipe; small enough to be written as a whole or not at all.
struct Note {
  std::uint64_t number;
  std::uint64_t calls;  // that had come before the signal
};

extern "C" void handle_signal(int number) {
  const int saved = errno;
  if (::getpid() != pipe_owner.load(std::memory_order_relaxed)) {
    ::raise(number);  // when this returns, with the effect it has by default: SA_RESETHAND
    errno = saved;
    return;
  }
  const Note note{static_cast<std::uint64_t>(number), calls.load(std::memory_order_relaxed)};
  // A full pipe means that plenty of signals wait already.
  [[maybe_unused]] const auto written =
      ::write(pipe_write.load(std::memory_order_relaxed), &note, sizeof note);
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
    // Counted before the handler is there, which reads it: its signal is this call's, too.
    const std::uint64_t call = calls.fetch_add(1, std::memory_order_relaxed) + 1;
    std::list<Watcher> watcher;
    watcher.push_back(Watcher{CancellationSource(), numbers, call});
    CancellationToken token = watcher.front().source.token();
    std::vector<struct sigaction> before(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      struct sigaction action{};
      action.sa_handler = handle_signal;
      action.sa_flags =
          static_cast<int>(SA_RESTART | SA_RESETHAND);  // the second one has its default effect
      sigemptyset(&action.sa_mask);
      if (::sigaction(numbers[i], &action, &before[i]) == 0) continue;
      const int why = errno;
      while (i > 0) {
        --i;
        ::sigaction(numbers[i], &before[i], nullptr);
      }
      throw std::system_error(why, std::generic_category(),
                              "on_signal: one of these signals cannot be handled");
    }
    watchers_.splice(watchers_.end(), watcher);
    return token;
  }

 private:
  struct Watcher {
    CancellationSource source;
    std::vector<int> numbers;
    std::uint64_t call;
  };

  SignalDesk() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      throw std::system_error(errno, std::generic_category(), "on_signal: no pipe");
    ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    pipe_write.store(ends[1], std::memory_order_relaxed);
    pipe_owner.store(::getpid(), std::memory_order_relaxed);
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
      Note note{};
      const auto got = ::read(end, &note, sizeof note);
      if (got < 0 && errno == EINTR) continue;
      if (got != sizeof note) return;
      const auto number = static_cast<int>(note.number);
      for (Watcher& watcher : take_watchers(number, note.calls)) {
        const char* const name = sigabbrev_np(number);
        watcher.source.cancel(name != nullptr ? "SIG" + std::string(name)
                                              : "signal " + std::to_string(number));
      }
    }
  }

  // Those who waited for this signal when it came. It was the first of theirs, so their signals get
  // their default effect back, unless somebody else waits for them: also this one, which may have
  // come while one of them was setting the handler once more. Takes no memory: a program that has
  // run out of it still hears of its signals.
  std::list<Watcher> take_watchers(int number, std::uint64_t calls_before) noexcept {
    std::lock_guard guard(mutex_);
    const auto waits_for = [](const Watcher& w, int n) {
      return std::find(w.numbers.begin(), w.numbers.end(), n) != w.numbers.end();
    };
    const auto is_meant = [&](const Watcher& w) {
      return w.call <= calls_before && waits_for(w, number);
    };
    std::list<Watcher> taken;
    for (auto watcher = watchers_.begin(); watcher != watchers_.end();) {
      const auto next = std::next(watcher);
      if (is_meant(*watcher)) taken.splice(taken.end(), watchers_, watcher);
      watcher = next;
    }
    for (const Watcher& watcher : taken) {
      for (const int n : watcher.numbers) {
        if (std::any_of(watchers_.begin(), watchers_.end(),
                        [&](const Watcher& w) { return waits_for(w, n); }))
          continue;
        struct sigaction now{};
        if (::sigaction(n, nullptr, &now) == 0 && now.sa_handler == handle_signal)
          ::signal(n, SIG_DFL);
      }
    }
    return taken;
  }

  std::mutex mutex_;
  std::list<Watcher> watchers_;
};

}  // namespace

CancellationToken on_signal(SignalSet signals) {
  if (signals.numbers().empty())
    throw std::invalid_argument("on_signal() needs at least one signal");
  for (const int number : signals.numbers()) {
    if (number <= 0 || number >= kSignals) {
      throw std::invalid_argument("on_signal(): there is no signal " + std::to_string(number));
    }
  }
  return SignalDesk::instance().watch(signals.numbers());
}

}  // namespace magpie
