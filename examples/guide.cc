// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// The code of docs/guide.md: every block there stands here as it does there (tests/readme.py).

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

using namespace magpie;
using namespace std::chrono_literals;

namespace {

struct Request {
  int user = 0;
};
struct Reply {
  std::uint64_t sum = 0;
  std::string profile;
};

std::vector<std::uint64_t> rows_of(int user) {
  std::vector<std::uint64_t> rows(10'000);
  std::iota(rows.begin(), rows.end(), static_cast<std::uint64_t>(user));
  return rows;
}
std::string read_profile(int user) {
  return "profile of " + std::to_string(user);
}

Task<std::uint64_t> sum_of(std::span<const std::uint64_t> rows) {
  if (rows.size() <= 1'000) co_return std::accumulate(rows.begin(), rows.end(), std::uint64_t{0});
  const std::size_t half = rows.size() / 2;
  auto [left, right] = co_await gather(sum_of(rows.first(half)), sum_of(rows.subspan(half)));
  co_return left + right;
}

Task<std::uint64_t> checksum(std::span<const std::uint64_t> rows) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i % 4'096 == 0) co_await this_task::checkpoint();
    sum = sum * 31 + rows[i];
  }
  co_return sum;
}

void scale(std::span<std::uint64_t> rows, std::uint64_t factor) {
  if (rows.size() <= 1'000) {
    for (std::uint64_t& row : rows) row *= factor;
    return;
  }
  const std::size_t half = rows.size() / 2;
  fork_join([&] { scale(rows.first(half), factor); }, [&] { scale(rows.subspan(half), factor); });
}

Task<Reply> answer(Request request) {
  const std::vector<std::uint64_t> rows = rows_of(request.user);
  auto [sum, profile] = co_await gather(
      sum_of(rows), to_thread([&] { return read_profile(request.user); }));  // a blocking call
  co_return Reply{sum, std::move(profile)};
}

Task<Result<Reply>> serve(Request request, CancellationToken connection) {
  co_return co_await as_result(with_token(connection, timeout(answer(request), 200ms)));
}

Task<void> worker(Channel<Request>& requests, CancellationToken connection,
                  std::atomic<int>& served) {
  for (;;) {
    const std::optional<Request> request = co_await requests.receive();
    if (!request) co_return;  // closed, and empty
    const Result<Reply> reply = co_await serve(*request, connection);
    if (reply.is_error()) std::cerr << "a request failed\n";
    ++served;
  }
}

Task<void> pipeline(Channel<Request>& requests, std::atomic<int>& served) {
  const CancellationSource connection;  // cancelled when its client goes away
  co_await task_group([&](TaskGroup& group) -> Task<void> {
    for (int i = 0; i < 4; ++i) group.spawn(worker(requests, connection.token(), served));
    co_return;  // the block ends when its tasks have
  });
}

void foreign_lookup(int key, std::function<void(int value)> done) {
  std::thread([key, done = std::move(done)] { done(key * 2); }).detach();
}

Task<int> lookup(int key) {
  auto promise = std::make_shared<Promise<int>>();  // std::function copies what it holds
  Future<int> found = promise->future();
  foreign_lookup(key, [promise](int value) { promise->set_value(value); });
  co_return co_await std::move(found);
}

Task<void> report(Executor& executor, std::ostream& out) {
  for (;;) {
    co_await sleep_for(10s);
    out << to_prometheus(executor.stats(), "service");
  }
}

// The service's clients; the last of them is an operator who stops it.
Task<void> feed(Channel<Request>& requests) {
  for (int user = 0; user < 100; ++user) co_await requests.send(Request{user});
  std::raise(SIGTERM);
}

void every_order_is_right() {
  testing::explore(200, [](testing::SimulatedExecutor& executor) {
    Channel<Request> requests(2);
    std::atomic<int> served{0};
    executor.run(gather(pipeline(requests, served), [&]() -> Task<void> {
      for (int user = 0; user < 3; ++user) co_await requests.send(Request{user});
      requests.close();
    }));
    if (served != 3) throw std::runtime_error("a request was lost");
  });
}

void an_hour_takes_no_time() {
  ManualClock clock;
  WorkStealingExecutor executor({.threads = 4, .clock = &clock});
  const Deadline before = clock.now();
  const Result<void> slow = executor.run(try_timeout(sleep_for(24h), 1h));
  if (!slow.is_timeout() || clock.now() - before != 1h) throw std::runtime_error("time is off");
}

void run_service() {
  Channel<Request> requests(64);  // bounded: who sends waits while the workers are behind
  std::atomic<int> served{0};
  WorkStealingExecutor executor;  // one for the process; after what its tasks use
  const CancellationToken stop = on_signal({SIGINT, SIGTERM});

  const JoinHandle<void> server = executor.spawn(pipeline(requests, served), "server");
  const JoinHandle<void> metrics =
      executor.spawn(report(executor, std::cout), SpawnOptions().name("metrics").token(stop));
  const CancellationCallback close_at_the_end(stop, [&] { requests.close(); });

  executor.run(feed(requests));
  server.wait();          // until stop: then what was taken in has been answered
  executor.shutdown(5s);  // what else runs gets 5 s, then it is cancelled, and waited for
  std::printf("%d requests served\n", served.load());
}

}  // namespace

int main() {
  run_service();
  const std::vector<std::uint64_t> rows = rows_of(1);
  std::vector<std::uint64_t> scaled = rows;
  WorkStealingExecutor executor({.threads = 2});
  const std::uint64_t sum = executor.run(sum_of(rows));
  executor.run([&]() -> Task<void> {
    scale(scaled, 2);
    co_return;
  }());
  if (executor.run(sum_of(scaled)) != 2 * sum) return 1;
  if (executor.run(checksum(rows)) == executor.run(checksum(scaled))) return 1;
  std::printf("lookup: %d\n", executor.run(lookup(21)));
  every_order_is_right();
  an_hour_takes_no_time();
}
