// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: for attempt in range(max_retries): try: return await asyncio.wait_for(coro(), timeout)
//          except asyncio.TimeoutError: if attempt == max_retries - 1: raise; await
//          asyncio.sleep(1)
// What is retried is a factory: a coroutine can be awaited once. Below it, a policy with growing
// pauses.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

struct Server {
  int calls = 0;
  int good_from;  // the calls before are too slow

  Task<std::string> answer() {
    const int call = ++calls;
    tour::print("call %d", call);
    co_await sleep_for(call < good_from ? 10s : 1s);
    co_return "answer " + std::to_string(call);
  }
};

Task<void> program() {
  Server recovers{.good_from = 3};
  auto ask = [&] { return recovers.answer(); };
  const std::string answer = co_await retry_with_timeout(ask, 3, 5s);
  tour::print("%s", answer.c_str());

  Server down{.good_from = 100};
  auto ask_in_vain = [&] { return down.answer(); };
  try {
    co_await retry_with_timeout(ask_in_vain, 3, 5s);
  } catch (const TimeoutError&) {
    tour::print("gave up after %d calls", down.calls);
  }

  Server slow{.good_from = 4};
  auto ask_slow = [&] { return slow.answer(); };
  const std::string late =
      co_await retry(ask_slow, RetryPolicy()
                                   .max_attempts(5)
                                   .attempt_timeout(2s)
                                   .backoff(Backoff::exponential(1s, 2, 10s))
                                   .on_retry([](const RetryEvent& event) {
                                     tour::print("attempt %zu failed, the next one in %.0f s",
                                                 event.attempt, tour::Seconds(event.delay).count());
                                   }));
  tour::print("%s", late.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
