// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an executor does, as a picture: which tasks live when, what each worker runs, steals, and
// when it sleeps.
//
//     magpie::TraceRecorder recorder(executor);
//     executor.run(program());
//     std::ofstream out("trace.json");
//     recorder.write(out);  // for ui.perfetto.dev, or chrome://tracing
//
// The format is the Trace Event Format of Chrome (JSON). A task is an asynchronous slice from its
// spawn to its end, with its name and id; on each worker's line there are the pieces that it took
// up
// ("run"), its sleeps ("sleep") and its finds in others' deques ("steal"). What a worker does
// without going through its loop, such as children of a gather that nobody has stolen, is part of
// the piece that it belongs to. Workers of a TbbExecutor are oneTBB's: there one sees the tasks
// only.
//
// Without a recorder it costs a load for each piece. With one, each event takes some tens of
// nanoseconds, and memory (a hundred bytes).

#include <cstddef>
#include <iosfwd>
#include <memory>

#include <magpie/config.h>

namespace magpie {

class Executor;

namespace detail {
struct TraceLog;
}

/// Records what an executor does from its construction until stop().
///
/// Threads: one at a time, any. The executor may be destroyed first: then the recording ends with
/// it. Cancellation: not aware.
class MAGPIE_EXPORT TraceRecorder {
 public:
  /// Records at most `max_events` events; what comes then is counted as dropped. std::logic_error
  /// if the executor is being recorded already; std::bad_alloc.
  explicit TraceRecorder(Executor& executor, std::size_t max_events = 1'000'000);
  ~TraceRecorder();  ///< stops
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  /// Ends the recording. When it has returned, nobody appends any more.
  void stop() noexcept;

  /// Stops, and writes the trace. Errors are the stream's.
  void write(std::ostream& out);

  /// Stops; how many events there are.
  [[nodiscard]] std::size_t events() noexcept;
  /// Stops; how many there was no room or no memory for.
  [[nodiscard]] std::size_t dropped() noexcept;

 private:
  std::shared_ptr<detail::TraceLog> log_;
};

}  // namespace magpie
