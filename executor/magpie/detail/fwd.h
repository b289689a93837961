// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Names that headers mention before they are defined.

#include <cstdint>

#include <magpie/config.h>

namespace magpie {

template <class T = void>
class MAGPIE_IN_REGISTER_TAG
    [[nodiscard("a task does nothing until it is awaited, spawned or run")]] Task;
template <class T = void>
class JoinHandle;
class Executor;
class Clock;
class SpawnOptions;

/// Names a task within the process; ids start at 1 and are never reused. 0 names none.
enum class TaskId : std::uint64_t {};

/// Writes the number.
template <class Stream>
auto operator<<(Stream& out, TaskId id) -> decltype(out << static_cast<std::uint64_t>(id)) {
  return out << static_cast<std::uint64_t>(id);
}

namespace detail {
struct StdEnv;
template <class Env>
class BasicScope;
template <class Env>
struct BasicWaiter;
using Scope = BasicScope<StdEnv>;
using Waiter = BasicWaiter<StdEnv>;
class TaskRecord;
struct Rec;
struct Fork;
struct Join;
struct LocalQueue;
struct Job;
struct Spawner;
enum class SlotState : std::uint8_t;
}  // namespace detail
}  // namespace magpie
