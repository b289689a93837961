// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The scripts of script.h on the primitives of the library, and what became of them.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include "oracle_programs.h"
#include "script.h"

namespace magpie::test {

/// An item that travels in a box: its moves might throw.
class Boxed {
 public:
  explicit Boxed(int number) : number_(number) {}
  Boxed(Boxed&& other) noexcept(false) : number_(std::exchange(other.number_, -1)) {}
  Boxed& operator=(Boxed&&) = delete;
  ~Boxed() = default;
  int number() const { return number_; }

 private:
  int number_;
};

/// What the tasks of a script share.
struct Props {
  explicit Props(std::size_t tasks) : logs(tasks) {
    for (std::size_t i = 0; i < kScriptPromises; ++i) futures.push_back(promises[i].future());
  }
  Semaphore semaphore{kScriptPermits};
  Mutex mutex;
  Condition condition;
  int tokens = 0;  // under the mutex
  Event event;
  Latch latch{kScriptCount};
  Barrier barrier{kScriptParties};
  Channel<int> rendezvous{kCapacities[0]};
  Channel<int> single{kCapacities[1]};
  Channel<Boxed> several{kCapacities[2]};
  RateLimiter limiter{kTokensPerSecond, kScriptBurst};
  Promise<int> promises[kScriptPromises];
  std::vector<Future<int>> futures;
  std::vector<JoinHandle<>> tasks;
  Story logs;
};

inline std::string error_text(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ChannelClosedError&) {
    return "x";
  } catch (const BrokenPromiseError&) {
    return "b";
  } catch (const InvalidStateError&) {
    return "s";
  } catch (const std::invalid_argument&) {
    return "m";
  } catch (const TimeoutError&) {
    return "t";
  } catch (const ExceptionGroup& group) {
    std::string text;
    for (const std::exception_ptr& inner : group.exceptions()) text += error_text(inner);
    return "G{" + text + "}";
  } catch (...) {
    return text_of(std::current_exception());
  }
}

/// What a task of a script has in its hands.
class Hands {
 public:
  std::vector<Permit> permits;
  Mutex::Lock lock;

  std::string take(Permit&& permit) {
    permits.push_back(std::move(permit));
    return "+";
  }
  std::string take(Mutex::Lock&& taken) {
    lock = std::move(taken);
    return "+";
  }
  std::string take(bool last) { return last ? "+1" : "+0"; }
  std::string take(int number) { return "+" + std::to_string(number); }
  std::string take(std::optional<int>&& number) {
    return number ? take(*number) : std::string("+-");
  }
  std::string take(std::optional<Boxed>&& item) {
    return item ? take(item->number()) : std::string("+-");
  }
  std::string take(std::monostate) { return "+"; }
  template <class... T>
  std::string take(Indexed<std::variant<T...>>&& first) {
    return std::to_string(first.index) +
           std::visit([this](auto&& value) { return this->take(std::move(value)); },
                      std::move(first.value));
  }
};

/// The operation as it is, or with a limit. Its result as a text, errors too; a cancellation is
/// thrown.
template <class A>
Task<std::string> result_of(Hands& hands, A operation, std::int64_t limit) {
  using T = detail::awaited_t<A>;
  if (limit != kNever) {
    auto limited = try_timeout(std::forward<A>(operation), std::chrono::nanoseconds(limit));
    auto result = co_await std::move(limited);
    if (result.is_timeout()) co_return "t";
    if (!result.has_value()) co_return error_text(result.error());
    if constexpr (std::is_void_v<T>) {
      co_return "+";
    } else {
      co_return hands.take(std::move(result).value());
    }
  }
  try {
    if constexpr (std::is_void_v<T>) {
      co_await std::forward<A>(operation);
      co_return "+";
    } else {
      co_return hands.take(co_await std::forward<A>(operation));
    }
  } catch (const CancelledError&) {
    throw;
  } catch (...) {
    co_return error_text(std::current_exception());
  }
}

inline Task<std::string> act_race(Props& props, Hands& hands, const Op& op) {
  const std::size_t count = std::min<std::size_t>(op.count, kScriptBurst);
  if (op.verb == Verb::any_one) {
    co_return co_await result_of(
        hands, any(props.several.send(Boxed(op.number)), props.mutex.lock(), props.event.wait()),
        op.limit);
  }
  switch (op.which) {
    case 0:
      co_return co_await result_of(hands,
                                   race(props.semaphore.acquire(count), props.several.receive(),
                                        props.barrier.arrive_and_wait()),
                                   op.limit);
    case 1:
      co_return co_await result_of(
          hands, race(props.mutex.lock(), props.event.wait(), props.single.send(op.number)),
          op.limit);
    case 2:
      co_return co_await result_of(hands,
                                   race(props.rendezvous.send(op.number), props.single.receive(),
                                        props.barrier.arrive_and_wait()),
                                   op.limit);
    case 3:
      co_return co_await result_of(
          hands, race(props.barrier.arrive_and_wait(), props.latch.wait(), props.futures[0]),
          op.limit);
    default:
      co_return co_await result_of(
          hands, race(props.mutex.lock(), props.rendezvous.receive(), props.limiter.acquire(count)),
          op.limit);
  }
}

/// With the channel of that number.
template <class F>
auto with_channel(Props& props, std::size_t which, F&& f) {
  if (which == 0) return f(props.rendezvous);
  if (which == 1) return f(props.single);
  return f(props.several);
}

/// What waits for nothing.
inline std::string act_now(Props& props, Hands& hands, const Op& op) {
  const auto done = [](bool b) { return std::string(b ? "+" : "t"); };
  switch (op.verb) {
    case Verb::try_acquire: {
      std::optional<Permit> permit = props.semaphore.try_acquire(op.count);
      return permit ? hands.take(std::move(*permit)) : "t";
    }
    case Verb::release:
      if (hands.permits.empty()) return "-";
      hands.permits.erase(hands.permits.begin());
      return "+";
    case Verb::try_lock: {
      if (hands.lock) return "-";
      std::optional<Mutex::Lock> lock = props.mutex.try_lock();
      return lock ? hands.take(std::move(*lock)) : "t";
    }
    case Verb::unlock:
      if (!hands.lock) return "-";
      hands.lock.unlock();
      return "+";
    case Verb::give_token:
      if (!hands.lock) return "-";
      ++props.tokens;
      props.condition.notify_one();
      return "+";
    case Verb::notify_one:
      props.condition.notify_one();
      return "+";
    case Verb::notify_all:
      props.condition.notify_all();
      return "+";
    case Verb::set:
      props.event.set();
      return "+";
    case Verb::clear:
      props.event.clear();
      return "+";
    case Verb::count_down:
      props.latch.count_down();
      return "+";
    case Verb::try_send:
      return with_channel(props, op.which, [&](auto& channel) {
        typename std::remove_reference_t<decltype(channel)>::value_type item(op.number);
        return done(channel.try_send(item));
      });
    case Verb::try_receive:
      return with_channel(props, op.which,
                          [&](auto& channel) { return hands.take(channel.try_receive()); });
    case Verb::close:
      with_channel(props, op.which, [](auto& channel) { channel.close(); });
      return "+";
    case Verb::try_rate:
      return done(props.limiter.try_acquire(op.count));
    case Verb::fulfil:
      props.promises[op.which].set_value(op.number);
      return "+";
    case Verb::fail:
      props.promises[op.which].set_exception(std::make_exception_ptr(OracleError(op.number)));
      return "+";
    case Verb::abandon: {
      const Promise<int> dies = std::move(props.promises[op.which]);
      return "+";
    }
    case Verb::cancel:
      return props.tasks[op.which % props.tasks.size()].cancel() ? "+1" : "+0";
    default:
      throw std::logic_error("no such verb");
  }
}

inline Task<std::string> act(Props& props, Hands& hands, const Op& op) {
  switch (op.verb) {
    case Verb::acquire:
      co_return co_await result_of(hands, props.semaphore.acquire(op.count), op.limit);
    case Verb::lock:
      if (hands.lock) co_return "-";
      co_return co_await result_of(hands, props.mutex.lock(), op.limit);
    case Verb::wait_notified:
      if (!hands.lock) co_return "-";
      co_return co_await result_of(hands, props.condition.wait(hands.lock), op.limit);
    case Verb::wait_token: {
      if (!hands.lock) co_return "-";
      auto there = [&props] { return props.tokens > 0; };
      const std::string text =
          co_await result_of(hands, props.condition.wait(hands.lock, there), op.limit);
      if (text == "+") --props.tokens;
      co_return text;
    }
    case Verb::wait_event:
      co_return co_await result_of(hands, props.event.wait(), op.limit);
    case Verb::wait_latch:
      co_return co_await result_of(hands, props.latch.wait(), op.limit);
    case Verb::arrive:
      co_return co_await result_of(hands, props.latch.arrive_and_wait(), op.limit);
    case Verb::meet:
      co_return co_await result_of(hands, props.barrier.arrive_and_wait(), op.limit);
    case Verb::send:
      co_return co_await with_channel(props, op.which, [&](auto& channel) {
        using Value = typename std::remove_reference_t<decltype(channel)>::value_type;
        return result_of(hands, channel.send(Value(op.number)), op.limit);
      });
    case Verb::receive:
      co_return co_await with_channel(props, op.which, [&](auto& channel) {
        return result_of(hands, channel.receive(), op.limit);
      });
    case Verb::rate:
      co_return co_await result_of(hands, props.limiter.acquire(op.count), op.limit);
    case Verb::await:
      co_return co_await result_of<Future<int>&>(hands, props.futures[op.which], op.limit);
    case Verb::first:
    case Verb::any_one:
      co_return co_await act_race(props, hands, op);
    default:
      break;
  }
  try {
    co_return act_now(props, hands, op);
  } catch (...) {
    co_return error_text(std::current_exception());
  }
}

inline void note(Props& props, const Clock& clock, Deadline start, std::size_t who,
                 const std::string& text) {
  props.logs[who] += text + "@" + std::to_string((clock.now() - start).count()) + " ";
}

inline Task<> perform(Props& props, const Part& part, std::size_t who, const Clock& clock,
                      Deadline start) {
  try {
    Hands hands;
    co_await sleep_for(std::chrono::nanoseconds(part.start));
    for (const Op& op : part.ops) {
      const std::string text = op.masked ? co_await uncancellable(act(props, hands, op))
                                         : co_await act(props, hands, op);
      note(props, clock, start, who, text);
      co_await sleep_for(std::chrono::nanoseconds(op.pause));
    }
    note(props, clock, start, who, ".");
  } catch (const CancelledError&) {
    note(props, clock, start, who, "c");
    throw;
  }
}

inline Task<> cancel_all(Props& props, const Script& script) {
  std::vector<Task<>> ends;
  const auto end = [](JoinHandle<> task, std::int64_t at) -> Task<> {
    co_await sleep_for(std::chrono::nanoseconds(at));
    task.cancel();
    co_await as_result(task);
  };
  for (std::size_t i = 0; i < script.parts.size(); ++i)
    ends.push_back(end(props.tasks[i], script.parts[i].end));
  co_await gather(std::move(ends));
}

inline std::string rest_of(Props& props) {
  std::string text = std::to_string(props.semaphore.available()) + " permits, " +
                     (props.mutex.try_lock() ? "free" : "held") + ", " +
                     std::to_string(props.tokens) + " tokens, " +
                     (props.event.is_set() ? "set" : "clear") + ", " +
                     (props.latch.try_wait() ? "open" : "closed");
  for (std::size_t i = 0; i < kScriptChannels; ++i) {
    text += with_channel(props, i, [](auto& channel) {
      std::string items = ";";
      while (auto item = channel.try_receive()) {
        if constexpr (std::is_same_v<decltype(item), std::optional<int>>) {
          items += " " + std::to_string(*item);
        } else {
          items += " " + std::to_string(item->number());
        }
      }
      return items;
    });
  }
  return text;
}

/// The script on this executor; `run` runs a task there.
template <class E>
Story run_script(E& executor, const Script& script) {
  Props props(script.parts.size());
  const Clock& clock = executor.clock();
  const Deadline start = clock.now();
  // Kept from beginning until all of them have a handle.
  auto all = [&]() -> Task<> {
    for (std::size_t i = 0; i < script.parts.size(); ++i)
      props.tasks.push_back(spawn(perform(props, script.parts[i], i, clock, start)));
    co_await cancel_all(props, script);
  };
  executor.run(all());
  Story story = props.logs;
  story.push_back(rest_of(props));
  return story;
}

inline Story simulate_script(const Script& script, std::uint64_t order) {
  testing::SimulatedExecutor executor(order);
  return run_script(executor, script);
}
inline Story work_script(const Script& script) {
  ManualClock clock;
  WorkStealingExecutor executor({.threads = 3, .clock = &clock});
  return run_script(executor, script);
}

}  // namespace magpie::test
