// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdio>
#include <exception>

#include <magpie/detail/executor_services.h>
#include <magpie/detail/worker.h>
#include <magpie/work_stealing_executor.h>

namespace magpie {

WorkStealingExecutor::WorkStealingExecutor(ExecutorOptions options)
    : Executor(std::make_unique<detail::ExecutorServices>(
          options, options.clock != nullptr ? *options.clock : system_steady_clock())) {
  machine_ = new detail::WorkStealingMachine(*this, services(), options);
  is_made();
}

WorkStealingExecutor::~WorkStealingExecutor() {
  if (detail::current_executor() == this) {
    std::fputs(
        "magpie: an executor was destroyed by one of its own tasks, which it would have to wait "
        "for: destroy it elsewhere\n",
        stderr);
    std::terminate();
  }
  services().shutdown(Duration(), true);
  services().wait_for_entrants();
  services().blocking.stop();
  services().timers.stop_monitor();
  machine_->stop();
  is_unmade();
  delete machine_;
}

void WorkStealingExecutor::schedule(detail::Runnable& work) noexcept {
  machine_->schedule(work);
}
void WorkStealingExecutor::schedule_behind(detail::Runnable& work) noexcept {
  machine_->schedule_behind(work);
}
std::size_t WorkStealingExecutor::thread_count() const {
  return machine_->thread_count();
}

ExecutorStats WorkStealingExecutor::stats() const {
  ExecutorStats stats = Executor::stats();
  machine_->add_stats(stats);
  return stats;
}

void WorkStealingExecutor::resize(std::size_t threads) {
  machine_->resize(threads);
}

ShutdownReport WorkStealingExecutor::shutdown(Duration drain) {
  detail::refuse_on_worker("shutdown()");
  return services().shutdown(drain, false);
}

}  // namespace magpie
