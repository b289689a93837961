// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <utility>

#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/thread_state.h>
#include <magpie/retry.h>
#include <magpie/testing/simulated_executor.h>

namespace magpie {
namespace {

constexpr std::uint64_t kOne = 1'000'000'000;  // of a budget, in billionths
constexpr std::uint64_t kMostHeld = 9'000'000'000 * kOne;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();  // of nanoseconds: never

std::uint64_t billionths(double ratio) {
  if (!std::isfinite(ratio) || ratio < 0) {
    throw std::invalid_argument(
        "a RetryBudget's ratio is a number of retries for each first attempt, such as 0.1: not " +
        std::to_string(ratio));
  }
  const double scaled = ratio * static_cast<double>(kOne);
  return scaled < static_cast<double>(kMostHeld) ? static_cast<std::uint64_t>(std::llround(scaled))
                                                 : kMostHeld;
}

std::uint64_t billionths(std::size_t reserve) noexcept {
  return reserve < kMostHeld / kOne ? reserve * kOne : kMostHeld;
}

// Of a process: from what is different each time, as far as that can be had.
std::uint64_t entropy() noexcept {
  std::uint64_t seed =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  try {
    std::random_device device;
    seed ^= (std::uint64_t{device()} << 32) | device();
  } catch (const std::exception&) {
    // No such device: the time has to do.
  }
  return seed;
}

// Another one for each call. In a simulation it follows from the seed and from when the call is
// made, so that a replay is one.
std::uint64_t fresh_seed() noexcept {
  if (const auto* const simulated =
          dynamic_cast<const testing::SimulatedExecutor*>(detail::current_executor())) {
    std::uint64_t mixed = simulated->seed();
    mixed = detail::splitmix64(mixed) ^ simulated->steps();
    return detail::splitmix64(mixed);
  }
  static std::atomic<std::uint64_t> calls{entropy()};
  return calls.fetch_add(1, std::memory_order_relaxed);  // Random mixes it
}

Deadline now() {
  return detail::current_executor()->clock().now();
}

}  // namespace

// --- pauses --------------------------------------------------------------------------------------

Backoff Backoff::exponential(Duration base, double factor, Duration max) {
  if (!std::isfinite(factor) || factor < 1) {
    throw std::invalid_argument(
        "Backoff::exponential(base, factor, max): the factor is at least 1, not " +
        std::to_string(factor));
  }
  return Backoff(Kind::exponential, base, factor, max);
}

Backoff& Backoff::jitter(Jitter kind) {
  if (kind == Jitter::decorrelated && kind_ != Kind::exponential) {
    throw std::invalid_argument(
        "Jitter::decorrelated draws from a base up to a maximum: it goes with "
        "Backoff::exponential(base, factor, max) only");
  }
  jitter_ = kind;
  return *this;
}

Duration Backoff::pause_after(std::size_t failures) const noexcept {
  if (base_ == Duration() || failures == 0) return {};
  switch (kind_) {
    case Kind::constant:
      break;
    case Kind::linear: {
      std::int64_t product = 0;
      const bool too_large = __builtin_mul_overflow(base_.count(), failures, &product);
      return std::chrono::nanoseconds(too_large ? kMost : product);
    }
    case Kind::exponential: {
      // In long double: 64 bits of mantissa, so what fits into nanoseconds is right to a fraction
      // of one.
      const long double pause =
          static_cast<long double>(base_.count()) *
          std::pow(static_cast<long double>(factor_), static_cast<long double>(failures - 1));
      if (!(pause < static_cast<long double>(max_.count()))) return max_;
      return std::chrono::nanoseconds(std::llround(pause));
    }
  }
  return base_;
}

std::int64_t Backoff::draw(std::size_t failures, std::int64_t previous,
                           detail::Random& random) const noexcept {
  const auto between = [&random](std::int64_t least, std::int64_t most) noexcept {
    return least +
           static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(most - least) + 1));
  };
  if (jitter_ == Jitter::decorrelated) {
    std::int64_t most = 0;
    if (base_.is_never() || __builtin_mul_overflow(previous, 3, &most)) most = kMost;
    return std::min(max_.count(), between(base_.count(), std::max(base_.count(), most)));
  }
  const std::int64_t pause = pause_after(failures).count();
  if (pause == kMost) return pause;  // "never" has no half
  switch (jitter_) {
    case Jitter::full:
      return between(0, pause);
    case Jitter::equal:
      return between(pause - pause / 2, pause);
    default:
      return pause;
  }
}

// --- the budget ----------------------------------------------------------------------------------

RetryBudget::RetryBudget(double ratio, std::size_t reserve)
    : ratio_(billionths(ratio)), cap_(billionths(reserve)), level_(cap_) {}

std::size_t RetryBudget::available() const noexcept {
  return static_cast<std::size_t>(level_.load(std::memory_order_relaxed) / kOne);
}

// Relaxed throughout: the number stands for itself.
void RetryBudget::add(std::uint64_t amount) noexcept {
  std::uint64_t level = level_.load(std::memory_order_relaxed);
  while (level < cap_ &&
         !level_.compare_exchange_weak(level, amount < cap_ - level ? level + amount : cap_,
                                       std::memory_order_relaxed)) {
  }
}

bool RetryBudget::withdraw() noexcept {
  std::uint64_t level = level_.load(std::memory_order_relaxed);
  while (level >= kOne) {
    if (level_.compare_exchange_weak(level, level - kOne, std::memory_order_relaxed)) return true;
  }
  return false;
}

// --- the policy ----------------------------------------------------------------------------------

RetryPolicy::RetryPolicy() noexcept = default;
RetryPolicy::RetryPolicy(const RetryPolicy& other) = default;
RetryPolicy::RetryPolicy(RetryPolicy&& other) noexcept = default;
RetryPolicy& RetryPolicy::operator=(const RetryPolicy& other) = default;
RetryPolicy& RetryPolicy::operator=(RetryPolicy&& other) noexcept = default;
RetryPolicy::~RetryPolicy() = default;

RetryPolicy& RetryPolicy::retry_if(std::function<bool(const std::exception_ptr&)> fn) noexcept {
  retry_if_ = std::move(fn);
  return *this;
}

RetryPolicy& RetryPolicy::on_retry(std::function<void(const RetryEvent&)> fn) noexcept {
  on_retry_ = std::move(fn);
  return *this;
}

// --- the loop ------------------------------------------------------------------------------------

namespace detail {

void RetryLoop::begin(Scope& scope) {
  scope_ = &scope;
  if (policy_.max_attempts_ == 0) {
    throw std::invalid_argument(
        "retry() of at most 0 attempts can do nothing: give max_attempts() at least 1");
  }
  if (scope.cancelled()) throw CancelledError(scope.reason());
  if (!policy_.total_timeout_.is_never()) {
    if (policy_.total_timeout_ == Duration()) throw_timed_out();
    end_ = deadline_after(now(), policy_.total_timeout_);
  }
  previous_pause_ = policy_.backoff_.base_.count();
  if (policy_.budget_ != nullptr) policy_.budget_->add(policy_.budget_->ratio_);
}

TimeLimit RetryLoop::next_limit() noexcept {
  Deadline limit = Deadline::max();
  if (!policy_.attempt_timeout_.is_never()) limit = deadline_after(now(), policy_.attempt_timeout_);
  limited_by_end_ = end_ <= limit;
  return TimeLimit::at(limited_by_end_ ? end_ : limit);
}

Duration RetryLoop::failed(std::exception_ptr error, bool timed_out) {
  if (exception_cast<CancelledError>(error) != nullptr) std::rethrow_exception(std::move(error));
  if (timed_out && limited_by_end_) {
    if (last_) give_up();
    std::rethrow_exception(std::move(error));
  }
  last_ = std::move(error);
  ++failures_;
  if (failures_ == policy_.max_attempts_) give_up();
  if (scope_->cancelled())
    give_up();  // a real error goes before the cancellation, which stays pending
  if (policy_.retry_if_ && !policy_.retry_if_(last_)) give_up();
  const Duration pause = draw_pause();
  if (end_ != Deadline::max() && deadline_after(now(), pause) > end_) give_up();
  if (policy_.budget_ != nullptr && !policy_.budget_->withdraw()) give_up();
  if (!policy_.on_retry_) return pause;
  try {
    policy_.on_retry_(RetryEvent{failures_, last_, pause.to_chrono()});
  } catch (...) {
    if (policy_.budget_ != nullptr) policy_.budget_->add(kOne);  // nothing is tried again
    throw;
  }
  return pause;
}

void RetryLoop::rested(Result<void>&& pause) {
  const bool too_late = end_ != Deadline::max() && now() >= end_;
  if (pause.has_value() && !too_late) return;
  if (policy_.budget_ != nullptr) policy_.budget_->add(kOne);  // nothing was tried again
  std::move(pause).value();
  give_up();
}

Duration RetryLoop::draw_pause() {
  const auto& backoff = policy_.backoff_;
  if (backoff.jitter_ == Jitter::none) return backoff.pause_after(failures_);
  if (!random_) random_.emplace(policy_.seed_ ? *policy_.seed_ : fresh_seed());
  previous_pause_ = backoff.draw(failures_, previous_pause_, *random_);
  return std::chrono::nanoseconds(previous_pause_);
}

void RetryLoop::give_up() {
  std::rethrow_exception(std::move(last_));
}

bool is_timeout_error(const std::exception_ptr& error) noexcept {
  return exception_cast<TimeoutError>(error) != nullptr;
}

}  // namespace detail
}  // namespace magpie
