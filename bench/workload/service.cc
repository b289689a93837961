// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A service under load. Clients send one request after the other; 64 of them are more than the
// workers can serve at once, so a request's latency is that of the queue and of whoever is in front
// of it. What comes is drawn from a seed:
//
//   82 %  short: 4 us of work under a deadline that is far away
//   12 %  guarded: the same while it holds one of 4 permits, with a yield in between
//    4 %  long: 400 us of work, with a yield every 4 us
//    1 %  hopeless: works, with a yield every 4 us, until its deadline of 200 us strikes
//    1 %  withdrawn: works, with a yield every 4 us, until its client cancels it from another task
//
// Asio beside it (versus/asio.cc) has timers and cancellation, and a channel for the permits. There
// a client has a strand of its own, as a request and its timer must not run at the same time.

#include <support/service.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/semaphore.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

namespace bench {
namespace {

using namespace service;
using magpie::Task;

Task<void> plain() {
  work();
  co_return;
}

Task<void> guarded(magpie::Semaphore& permits) {
  const magpie::Permit permit = co_await permits.acquire();
  co_await magpie::this_task::yield();
  work();
}

Task<void> lengthy() {
  for (std::size_t i = 0; i < kSlices; ++i) {
    work();
    co_await magpie::this_task::yield();
  }
}

Task<void> endless() {
  for (;;) {
    work();
    co_await magpie::this_task::yield();
  }
}

Task<void> cancel_it(magpie::CancellationSource& source) {
  source.cancel();
  co_return;
}

Task<void> withdrawn() {
  magpie::CancellationSource source;
  co_await magpie::gather(magpie::with_token(source.token(), endless()), cancel_it(source));
}

Task<void> request(Kind kind, magpie::Semaphore& permits) {
  switch (kind) {
    case Kind::plain:
      return plain();
    case Kind::guarded:
      return guarded(permits);
    case Kind::lengthy:
      return lengthy();
    case Kind::hopeless:
      return endless();
    case Kind::withdrawn:
      return withdrawn();
  }
  return plain();
}

Task<void> client(std::size_t number, Ledger& ledger, magpie::Semaphore& permits) {
  for (std::size_t i = 0; i < kRequests; ++i) {
    const Kind kind = ledger.kinds[number][i];
    const magpie::Duration deadline =
        kind == Kind::hopeless ? magpie::Duration(kShortDeadline) : magpie::Duration(1h);
    const SteadyTime sent = now();
    co_await magpie::this_task::yield();  // behind those that were there before
    const magpie::Result<void> result =
        co_await magpie::as_result(magpie::timeout(request(kind, permits), deadline));
    ledger.took[number * kRequests + i] = now() - sent;
    ledger.count(result.is_timeout() ? 1 : result.is_cancelled() ? 2 : 0);
  }
}

Task<void> serve(Ledger& ledger) {
  magpie::Semaphore permits(kPermits);
  std::vector<Task<void>> clients;
  for (std::size_t i = 0; i < kClients; ++i) clients.push_back(client(i, ledger, permits));
  co_await magpie::gather(std::move(clients));
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add("service", "magpie", threads, [=](benchmark::State& state) {
      magpie::WorkStealingExecutor executor({.threads = threads});
      Ledger ledger;
      measure_service(state, ledger, [&] { executor.run(serve(ledger)); });
    });
  }
}

}  // namespace bench
