// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a TraceRecorder has recorded. Each thread appends to the shard that it also counts in; the
// executor's services hold that shard's lock meanwhile, and stop a recording by taking each lock
// once.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <magpie/config.h>

namespace magpie::detail {

class ExecutorServices;

struct TraceEvent {
  enum class Kind : std::uint8_t { task_begins, task_ends, piece, sleep, steal };
  Kind kind{};
  std::uint32_t thread = 0;
  std::uint64_t at_ns = 0;
  std::uint64_t for_ns = 0;  // of a piece, a sleep
  std::uint64_t task = 0;    // of the tasks' events
  std::string name = {};     // of a task that begins
};

struct TraceLog {
  struct Shard {
    std::deque<TraceEvent> events;                               // not moved while it grows
    std::vector<std::pair<std::uint32_t, std::string>> threads;  // index and name
    std::size_t dropped = 0;
  };

  TraceLog(std::size_t most, std::size_t count) : most_events(most), shards(count) {}

  const std::size_t most_events;
  std::atomic<std::size_t> room_taken{0};
  std::vector<Shard> shards;

  std::mutex mutex;  // of the line below
  ExecutorServices* services =
      nullptr;  // null: the recording has been stopped, or the executor is gone
};

}  // namespace magpie::detail
