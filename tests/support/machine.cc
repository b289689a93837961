// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <support/machine.h>

#include <string>

namespace magpie::test {

bool OnThreads::add(const char* suite, const char* name, const char* file, int line,
                    std::initializer_list<std::size_t> threads, Make make) {
  for (const std::size_t n : threads) {
    const std::string number = std::to_string(n);
    ::testing::RegisterTest(suite, (std::string(name) + "/" + number).c_str(), nullptr,
                            number.c_str(), file, line, [n, make] {
                              next_ = n;
                              return make();
                            });
  }
  return true;
}

Task<int> give(int value) {
  co_return value;
}

Task<std::string> give_text(std::string value) {
  co_return value;
}

Task<> nothing() {
  co_return;
}

Task<int> give_after(Duration pause, int value) {
  co_await sleep_for(pause);
  co_return value;
}

Task<> nothing_after(Duration pause) {
  co_await sleep_for(pause);
}

Task<int> fail(std::string what) {
  throw std::runtime_error(what);
  co_return 0;
}

Task<int> fail_after(Duration pause, std::string what) {
  co_await sleep_for(pause);
  throw std::runtime_error(what);
}

Task<int> never() {
  co_await sleep_for(24h * 365);
  co_return -1;
}

Task<int> stubborn(Duration pause, int value) {
  co_await uncancellable(sleep_for(pause));
  co_return value;
}

Task<int> forgiving(int value) {
  Result<int> waited = co_await as_result(never());
  EXPECT_TRUE(waited.is_cancelled());
  co_return value;
}

Task<int> bitter(std::string what, Duration pause) {
  Result<int> waited = co_await as_result(never());
  EXPECT_TRUE(waited.is_cancelled());
  co_await uncancellable(sleep_for(pause));
  throw std::runtime_error(what);
}

Task<int> cancel_itself(std::string why) {
  throw CancelledError(CancelReason{CancelKind::requested, why});
  co_return 0;
}

Task<int> watched(bool& ended, CancelKind& reason) {
  try {
    co_await sleep_for(24h * 365);
  } catch (const CancelledError& e) {
    ended = true;
    reason = e.reason().kind;
    throw;
  }
  ended = true;
  co_return -1;
}

Task<int> started(bool& flag, int value) {
  flag = true;
  co_return value;
}

std::string what_of(const std::exception_ptr& error) {
  if (!error) return {};
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (const CancelledError& e) {
    return e.reason().message;
  } catch (...) {
    return "?";
  }
}

CancelReason reason_of(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const CancelledError& e) {
    return e.reason();
  } catch (...) {
  }
  ADD_FAILURE() << "this was not cancelled: " << what_of(error);
  return {};
}

ExceptionGroup group_of(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const ExceptionGroup& group) {
    return group;
  } catch (...) {
  }
  ADD_FAILURE() << "this is no ExceptionGroup: " << what_of(error);
  return ExceptionGroup("none", {});
}

}  // namespace magpie::test
