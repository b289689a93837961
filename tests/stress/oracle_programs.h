// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The programs of oracle.h as coroutines, and what became of them on an executor.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include "oracle.h"

namespace magpie::test {

// --- the programs themselves ---

class OracleError : public std::runtime_error {
 public:
  explicit OracleError(int id) : std::runtime_error("oracle"), id_(id) {}
  int id() const { return id_; }

 private:
  int id_;
};

inline std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const OracleError& e) {
    return "e" + std::to_string(e.id());
  } catch (const TimeoutError&) {
    return "T";
  } catch (const CancelledError&) {
    return "c";
  } catch (const ExceptionGroup& group) {
    std::string text;
    for (const std::exception_ptr& inner : group.exceptions())
      text += (text.empty() ? "" : " ") + text_of(inner);
    return "G{" + text + "}";
  } catch (const std::exception& e) {
    return e.what();
  }
}
inline std::string text_of(const Result<int>& result) {
  return result.has_value() ? value(result.value()) : text_of(result.error());
}

inline Task<int> perform(const Node& node);

inline std::vector<Task<int>> children_of(const Node& node) {
  std::vector<Task<int>> tasks;
  for (const Node& child : node.children) tasks.push_back(perform(child));
  return tasks;
}
inline int code_of(const std::vector<int>& values) {
  std::string text;
  for (const int n : values) text += value(n) + ";";
  return code(text);
}
inline int code_of(const Indexed<int>& won) {
  return code(std::to_string(won.index) + ":" + value(won.value));
}

inline Task<> cancel_after(CancellationSource source, Duration pause) {
  co_await sleep_for(pause);
  source.cancel("after a pause");
}
inline Task<> masked_pause(std::int64_t pause) {
  auto slept = uncancellable(sleep_for(std::chrono::nanoseconds(pause)));
  co_await std::move(slept);
}

inline Task<int> perform_several(const Node& node) {
  switch (node.kind) {
    case Kind::all:
      co_return code_of(co_await gather(children_of(node)));
    case Kind::all_keep_going:
      co_return code_of(co_await gather(keep_going, children_of(node)));
    case Kind::all_results: {
      std::string text;
      auto results = co_await gather(return_exceptions, children_of(node));
      for (const Result<int>& result : results) text += text_of(result) + ";";
      co_await masked_pause(node.pause);
      co_return code(text);
    }
    case Kind::all_limited:
      co_return code_of(co_await gather_limited(node.limit, children_of(node)));
    case Kind::first:
      co_return code_of(co_await race(children_of(node)));
    case Kind::first_good:
      co_return code_of(co_await any(children_of(node)));
    case Kind::staggered: {
      std::vector<TaskFactory<int>> factories;
      for (const Node& child : node.children)
        factories.emplace_back([&child] { return perform(child); });
      co_return code_of(
          co_await staggered_race(std::move(factories), std::chrono::nanoseconds(node.pause)));
    }
    case Kind::retried: {
      std::size_t next = 0;
      auto factory = [&] { return perform(node.children[next++]); };
      RetryPolicy policy;
      policy.max_attempts(node.children.size())
          .backoff(Backoff::constant(std::chrono::nanoseconds(node.pause)));
      co_return co_await retry(factory, policy);
    }
    case Kind::group: {
      auto body = [&](TaskGroup& group) -> Task<int> {
        for (std::size_t i = 1; i < node.children.size(); ++i)
          group.spawn(perform(node.children[i]));
        co_return co_await perform(node.children[0]);
      };
      co_return co_await task_group(body);
    }
    default: {
      auto body = [](CompletionStream<int>& stream) -> Task<int> {
        std::string text;
        for (;;) {
          auto next = co_await stream.next();
          if (!next) break;
          text += std::to_string(next->index) + ":" + text_of(next->value) + ";";
        }
        co_return code(text);
      };
      co_return co_await as_completed(children_of(node), body);
    }
  }
}

inline Task<int> perform(const Node& node) {
  const auto pause = std::chrono::nanoseconds(node.pause);
  if (node.yields) co_await this_task::yield();
  switch (node.kind) {
    case Kind::give:
      co_await sleep_for(pause);
      co_return node.id;
    case Kind::fail:
      co_await sleep_for(pause);
      throw OracleError(node.id);
    case Kind::give_up:
      co_await sleep_for(pause);
      throw CancelledError();
    case Kind::stubborn:
      co_await masked_pause(node.pause);
      co_return node.id;
    case Kind::in_turn: {
      const int one = co_await perform(node.children[0]);
      const int two = co_await perform(node.children[1]);
      co_return code(value(one) + "," + value(two));
    }
    case Kind::swallow:
    case Kind::bitter: {
      Result<int> result = co_await as_result(perform(node.children[0]));
      if (result.has_value()) co_return result.value();
      co_await masked_pause(node.pause);
      if (node.kind == Kind::bitter) throw OracleError(node.id);
      co_return node.id;
    }
    case Kind::mask:
      co_return co_await uncancellable(perform(node.children[0]));
    case Kind::shielded:
      co_return co_await shield(perform(node.children[0]));
    case Kind::spawned:
      co_return co_await spawn(perform(node.children[0]));
    case Kind::cleaned: {
      auto cleanup = [&]() -> Task<> {
        co_await sleep_for(std::chrono::nanoseconds(node.pause));
        if (node.throws) throw OracleError(node.id);
      };
      co_return co_await finally(perform(node.children[0]), cleanup);
    }
    case Kind::cancelled: {
      CancellationSource source;
      spawn(cancel_after(source, pause));
      co_return co_await with_token(source.token(), perform(node.children[0]));
    }
    case Kind::scope: {
      auto body = [&](CancelScope& scope) -> Task<int> {
        CancellationSource source;
        spawn(cancel_after(source, std::chrono::nanoseconds(node.pause)));
        auto cancel = [&] { scope.cancel("by a callback"); };
        const CancellationCallback callback(source.token(), cancel);
        co_return co_await perform(node.children[0]);
      };
      Result<int> result = co_await cancel_scope(body);
      co_return code(text_of(result));
    }
    case Kind::bounded:
      co_return co_await timeout(perform(node.children[0]), pause);
    case Kind::bounded_or:
      co_return co_await with_timeout(perform(node.children[0]), pause, node.id);
    case Kind::bounded_try: {
      Result<int> result = co_await try_timeout(perform(node.children[0]), pause);
      if (result.is_timeout()) co_return 7777;
      if (result.is_cancelled()) co_return 8888;
      co_return std::move(result).value();
    }
    default:
      co_return co_await perform_several(node);
  }
}

struct Program {
  explicit Program(std::uint64_t seed) {
    Author<Random> author{Random(seed)};
    Random random(seed + 1);
    root = author.node(2 + static_cast<int>(random.below(4)));
    if (random.below(2) == 0)
      cancel = 1 + static_cast<std::int64_t>(
                       random.below(std::uint64_t{1} << (42 + 3 * random.below(5))));
    expected = fate_of(root, 0, cancel);
  }
  Program(Node node, std::int64_t at)
      : root(std::move(node)), cancel(at), expected(fate_of(root, 0, cancel)) {}
  Node root;
  std::int64_t cancel = kNever;
  Fate expected;
};

inline Task<> cancel_the(JoinHandle<int> handle, std::int64_t pause) {
  co_await sleep_for(std::chrono::nanoseconds(pause));
  handle.cancel("by the test");
}

inline Task<std::int64_t> watched(JoinHandle<int> handle, std::int64_t cancel) {
  const Deadline start = co_await this_task::now();
  if (cancel != kNever) spawn(cancel_the(handle, cancel));
  co_await as_result(handle);
  co_return (co_await this_task::now() - start).count();
}

/// The outcome on this executor, and when it came.
inline Fate run_on(Executor& executor, const Program& program,
                   const std::function<std::int64_t(Task<std::int64_t>)>& run) {
  JoinHandle<int> handle = executor.spawn(perform(program.root));
  const std::int64_t end = run(watched(handle, program.cancel));
  return {text_of(handle.result()), end};
}

inline Fate simulate(const Program& program, std::uint64_t order) {
  testing::SimulatedExecutor executor(order);
  return run_on(executor, program,
                [&](Task<std::int64_t> task) { return executor.run(std::move(task)); });
}
inline Fate work(const Program& program) {
  ManualClock clock;
  WorkStealingExecutor executor({.threads = 3,
                                 .on_unobserved_error = [](std::string_view, std::exception_ptr) {},
                                 .clock = &clock});
  return run_on(executor, program,
                [&](Task<std::int64_t> task) { return executor.run(std::move(task)); });
}

}  // namespace magpie::test
