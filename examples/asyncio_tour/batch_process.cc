// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: for i in range(0, len(items), batch_size):
//              results += await asyncio.gather(*[process_item(item) for item in batch])
//              await asyncio.sleep(0.1)
// Seven items, three at a time. There is no pause after the last batch.

#include <string>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<std::string> process_item(int item) {
  if (item % 3 == 0) tour::print("a batch begins with item %d", item);
  co_await sleep_for(400ms);
  co_return "item " + std::to_string(item);
}

Task<void> program() {
  const std::vector<int> items = {0, 1, 2, 3, 4, 5, 6};
  const std::vector<std::string> results =
      co_await batch(items, 3, process_item, BatchOptions().pause(100ms));
  for (const std::string& result : results) tour::print("%s", result.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
