// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything but status.h, tbb_executor.h, asio.h and testing/, which a program includes where it
// needs them. And <thread>, which costs next to nothing beside them: most programs have threads of
// their own, too.

#include <thread>

#include <magpie/as_completed.h>
#include <magpie/as_result.h>
#include <magpie/barrier.h>
#include <magpie/batch.h>
#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/cancellation_token.h>
#include <magpie/chain.h>
#include <magpie/channel.h>
#include <magpie/clock.h>
#include <magpie/condition.h>
#include <magpie/config.h>
#include <magpie/errors.h>
#include <magpie/event.h>
#include <magpie/executor.h>
#include <magpie/gather.h>
#include <magpie/hedge.h>
#include <magpie/join_handle.h>
#include <magpie/latch.h>
#include <magpie/limited.h>
#include <magpie/mutex.h>
#include <magpie/parallel.h>
#include <magpie/promise.h>
#include <magpie/race.h>
#include <magpie/rate_limiter.h>
#include <magpie/result.h>
#include <magpie/resume_on.h>
#include <magpie/retry.h>
#include <magpie/semaphore.h>
#include <magpie/signals.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/stats.h>
#include <magpie/task.h>
#include <magpie/task_group.h>
#include <magpie/task_local.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/topology.h>
#include <magpie/trace.h>
#include <magpie/wait.h>
#include <magpie/work_stealing_executor.h>
