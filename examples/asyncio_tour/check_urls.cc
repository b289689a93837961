// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: aiohttp in a TaskGroup: check_urls([...]), which gives up at the first failure
// A failed request cancels the others. The handles still tell how each of them ended.

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

// Stands for the network: /delay/<n> answers after n seconds, /status/<code> soon.
Task<std::string> get(std::string url) {
  const std::string last = url.substr(url.rfind('/') + 1);
  if (url.find("/status/") != std::string::npos) {
    co_await sleep_for(300ms);
    throw std::runtime_error("HTTP " + last);
  }
  co_await sleep_for(Seconds(std::stod(last)));
  co_return "{\"url\": \"" + url + "\"}";
}

Task<std::string> fetch_url(std::string url) {
  co_return co_await timeout(get(url), 5s);
}

Task<void> check_urls(std::vector<std::string> urls) {
  std::vector<JoinHandle<std::string>> tasks;
  try {
    co_await task_group([&](TaskGroup& group) -> Task<void> {
      for (const std::string& url : urls) tasks.push_back(group.spawn(fetch_url(url), url));
      co_return;
    });
  } catch (const ExceptionGroup& errors) {
    tour::print("gave up: %s", errors.what());
  }
  for (const auto& task : tasks) {
    const Result<std::string>& result = task.result();
    tour::print(
        "%s: %s", task.name().c_str(),
        result ? result.value().c_str() : ("Failed: " + tour::what(result.error())).c_str());
  }
}

Task<void> program() {
  std::vector<std::string> good{"https://example.org/delay/2", "https://example.org/delay/1"};
  co_await check_urls(std::move(good));
  std::vector<std::string> bad{"https://example.org/delay/0.1",
                               "https://example.org/delay/10",  // would time out
                               "https://example.org/status/500"};
  co_await check_urls(std::move(bad));
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
