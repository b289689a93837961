// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A stranger's program: it knows the installed headers and the one library, nothing of the tree. It
// may be compiled by another compiler than the library was, and the library may be a shared one, so
// it uses what goes to and fro between a program and the library's binary, exceptions among it. As
// a plugin it has no main of its own that is called: plugin_host.cc calls use_magpie.
#include <magpie/magpie.h>

#include <cstddef>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

magpie::Task<int> twice(int x) {
  co_return 2 * x;
}

magpie::Task<int> sum() {
  auto [a, b] = co_await magpie::gather(twice(20), twice(1));
  co_return a + b;
}

magpie::Task<int> held(magpie::Task<int> inner) {
  int x = co_await std::move(inner);
  co_return x;
}

magpie::Task<void> is_ready(magpie::ReadySignal<int> ready) {
  ready.set(5);
  co_await magpie::sleep_for(std::chrono::milliseconds(1));
}

magpie::Task<int> group() {
  co_return co_await magpie::task_group([](magpie::TaskGroup& group) -> magpie::Task<int> {
    int started = co_await group.start<int>(is_ready);
    co_return started;
  });
}

magpie::Task<void> nothing() {
  co_return;
}

magpie::Task<std::size_t> everything() {
  std::vector<magpie::Task<int>> tasks;
  for (int i = 0; i < 10; ++i) tasks.push_back(held(twice(i)));
  auto gathered = co_await magpie::gather_limited(3, std::move(tasks));
  std::vector<magpie::TaskFactory<int>> ways;
  ways.push_back([] { return twice(9); });
  auto raced = co_await magpie::staggered_race(std::move(ways), std::chrono::seconds(1));
  auto mapped = co_await magpie::map_concurrent(gathered, 2, twice);
  auto batched = co_await magpie::batch(gathered, 4, twice);
  auto handle = magpie::spawn(magpie::finally(group(), nothing), "named");
  int started = co_await handle;
  auto again = [] { return twice(7); };
  int retried = co_await magpie::retry(again, magpie::RetryPolicy());
  auto in_time = co_await magpie::try_timeout(magpie::shield(twice(1)), std::chrono::hours(1));
  auto late = co_await magpie::try_timeout(magpie::sleep_for(std::chrono::hours(1)),
                                           std::chrono::milliseconds(1));
  auto text = co_await magpie::to_thread([] { return std::string("blocking"); });
  co_return gathered.size() + mapped.size() + batched.size() + text.size() +
      static_cast<std::size_t>(raced.value + started + retried + in_time.value()) +
      (late.is_timeout() ? 1 : 0);
}

int fib(int n) {
  if (n < 2) return n;
  auto [a, b] = magpie::fork_join([=] { return fib(n - 1); }, [=] { return fib(n - 2); });
  return a + b;
}

magpie::Task<int> forks() {
  co_return fib(15);
}

magpie::Task<void> produce(magpie::Channel<std::string>& channel) {
  for (int i = 0; i < 100; ++i) co_await channel.send("x");
  channel.close();
}

magpie::Task<std::size_t> consume(magpie::Channel<std::string>& channel) {
  std::size_t length = 0;
  for (;;) {
    const std::optional<std::string> item = co_await channel.receive();
    if (!item) co_return length;
    length += item->size();
  }
}

magpie::Task<std::size_t> stream() {
  magpie::Channel<std::string> channel(1);
  auto [nothing_more, length] = co_await magpie::gather(produce(channel), consume(channel));
  co_return length;
}

magpie::Task<void> late() {
  co_await magpie::timeout(magpie::sleep_for(std::chrono::hours(1)), std::chrono::milliseconds(1));
}

magpie::Task<void> closed() {
  magpie::Channel<int> channel(1);
  channel.close();
  co_await channel.send(1);
}

magpie::Task<void> failing_group() {
  co_await magpie::task_group([](magpie::TaskGroup& group) -> magpie::Task<void> {
    group.spawn(closed());
    co_return;
  });
}

magpie::Task<void> cancelled() {
  auto handle = magpie::spawn(magpie::sleep_for(std::chrono::hours(1)));
  handle.cancel("by the program");
  co_await handle;
}

// Errors that the library throws, or makes and the program throws, are caught by their types in the
// program: outside of any task, and in one.
template <class Error>
bool ends_with(magpie::Task<void> task) {
  try {
    magpie::run(std::move(task));
  } catch (const Error&) {
    return true;
  }
  return false;
}

magpie::Task<bool> catches_its_own_cancellation() {
  try {
    co_await cancelled();
  } catch (const magpie::CancelledError& error) {
    co_return error.reason().message == "by the program";
  }
  co_return false;
}

bool errors_keep_their_types() {
  return ends_with<magpie::TimeoutError>(late()) &&
         ends_with<magpie::CancelledError>(cancelled()) &&
         ends_with<magpie::ChannelClosedError>(closed()) &&
         ends_with<magpie::ExceptionGroup>(failing_group()) &&
         magpie::run(catches_its_own_cancellation());
}

}  // namespace

extern "C" int use_magpie() {
  const int result = magpie::run(sum());
  const std::size_t all = magpie::run(everything());
  const int forked = magpie::run(forks());
  const std::size_t streamed = magpie::run(stream());
  const bool typed = errors_keep_their_types();
  std::printf("%d %zu %d %zu %d\n", result, all, forked, streamed, typed);
  return result == 42 && all == 78 && forked == 610 && streamed == 100 && typed ? 0 : 1;
}

int main() {
  return use_magpie();
}
