// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/trace.h>

#include <atomic>
#include <cctype>
#include <locale>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/detail/trace_log.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;

// Whether a text is JSON, by its grammar (RFC 8259), numbers a little wider.
class Json {
 public:
  static bool valid(std::string_view text) {
    Json json(text);
    return json.value() && json.skip() == text.size();
  }

 private:
  explicit Json(std::string_view text) : text_(text) {}
  std::size_t skip() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    return at_;
  }
  bool take(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool string() {
    if (!take('"')) return false;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] == '\\') ++at_;
    }
    return take('"');
  }
  template <class Element>
  bool list(char close, Element&& element) {
    if (take(close)) return true;
    do {
      if (!element()) return false;
    } while (take(','));
    return take(close);
  }
  bool value() {
    if (take('{')) return list('}', [&] { return string() && take(':') && value(); });
    if (take('[')) return list(']', [&] { return value(); });
    if (skip() < text_.size() && text_[at_] == '"') return string();
    const std::size_t from = at_;
    while (at_ < text_.size() &&
           (std::isdigit(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '.'))
      ++at_;
    return at_ > from;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::string written(TraceRecorder& recorder) {
  std::ostringstream out;
  recorder.write(out);
  EXPECT_TRUE(Json::valid(out.str())) << out.str().substr(0, 2000);
  return out.str();
}

Task<> nap() {
  co_await sleep_for(1ms);
}

// A sleep that is over before its worker lets go of the task needs no second piece; a yield does.
Task<> goes_on() {
  co_await sleep_for(1ms);
  co_await this_task::yield();
}

TEST(TraceRecorder, ShowsTasksAndWhatTheWorkersDo) {
  std::optional<WorkStealingExecutor> executor(std::in_place,
                                               ExecutorOptions{.threads = 2, .name = "traced"});
  TraceRecorder recorder(*executor);
  const auto parks = executor->stats().total.parks;
  for (int i = 0; i < 5; ++i) executor->spawn(goes_on(), "a \"nap\"\n").wait();
  executor->run(goes_on());
  // Nothing to do any more: sooner or later who ran a nap sleeps, until the end wakes it.
  EXPECT_TRUE(test::eventually([&] { return executor->stats().total.parks > parks; }));
  executor.reset();  // a piece is recorded when it is over, which its task's joiner need not see
  const std::string text = written(recorder);
  EXPECT_EQ(count(text, R"("ph":"b")"), 6u);
  EXPECT_EQ(count(text, R"("ph":"e")"), 6u);
  EXPECT_EQ(count(text, R"("name":"a \"nap\"\u000a")"), 5u);
  EXPECT_GE(count(text, R"("ph":"X","name":"run")"), 12u);  // each task begins, and goes on
  EXPECT_GE(count(text, R"("ph":"X","name":"sleep")"), 1u);
  EXPECT_GE(count(text, R"("args":{"name":"traced-)"), 1u);
  EXPECT_EQ(recorder.dropped(), 0u);
  EXPECT_EQ(written(recorder), text);  // once it has stopped it stays as it is
}

TEST(TraceRecorder, ShowsSteals) {
  WorkStealingExecutor executor({.threads = 2});
  TraceRecorder recorder(executor);
  std::atomic<bool> stolen{false};
  auto other = [&]() -> Task<> {
    stolen = true;
    co_return;
  };
  auto body = [&]() -> Task<> {
    auto handle = spawn(other());
    while (!stolen) std::this_thread::yield();
    co_await handle;
  };
  executor.run(body());
  EXPECT_GE(count(written(recorder), R"("name":"steal")"), 1u);
}

TEST(TraceRecorder, CountsWhatThereIsNoRoomFor) {
  WorkStealingExecutor executor({.threads = 1});
  TraceRecorder recorder(executor, 10);
  for (int i = 0; i < 20; ++i) executor.run(nap());
  EXPECT_EQ(recorder.events(), 10u);
  EXPECT_GE(recorder.dropped(), 30u);
  written(recorder);
}

TEST(TraceRecorder, OneAtATimeAndOneAfterTheOther) {
  WorkStealingExecutor executor({.threads = 1});
  TraceRecorder first(executor);
  EXPECT_THROW(TraceRecorder second(executor), std::logic_error);
  executor.run(nap());
  first.stop();
  executor.run(nap());  // nobody sees it
  TraceRecorder third(executor);
  executor.run(nap());
  executor.shutdown(1s);
  EXPECT_EQ(count(written(first), R"("ph":"b")"), 1u);
  EXPECT_EQ(count(written(third), R"("ph":"b")"), 1u);
}

TEST(TraceRecorder, MayOutliveTheExecutor) {
  std::optional<WorkStealingExecutor> executor(std::in_place, ExecutorOptions{.threads = 1});
  TraceRecorder recorder(*executor);
  executor->run(nap());
  executor.reset();
  const std::string text = written(recorder);
  EXPECT_EQ(count(text, R"("ph":"b")"), 1u);
  EXPECT_EQ(count(text, R"("ph":"e")"), 1u);
}

TEST(TraceRecorder, OfNothingIsATraceToo) {
  WorkStealingExecutor executor({.threads = 1});
  TraceRecorder recorder(executor, 0);
  EXPECT_EQ(recorder.events(), 0u);
  written(recorder);
}

TEST(TraceRecorder, OtherExecutorsShowTheirTasks) {
  testing::SimulatedExecutor simulator(1);
  TraceRecorder simulated(simulator);
  simulator.run(nap());
  EXPECT_EQ(count(written(simulated), R"("ph":"b")"), 1u);
  TbbExecutor tbb({.threads = 2});
  TraceRecorder of_tbb(tbb);
  tbb.run(nap());
  EXPECT_EQ(count(written(of_tbb), R"("ph":"b")"), 1u);
}

TEST(TraceRecorder, ComesAndGoesWhileWorkersAreBusy) {
  WorkStealingExecutor executor({.threads = 3});
  std::atomic<bool> stop{false};
  auto busy = [&]() -> Task<> {
    while (!stop) {
      auto handle = spawn(nap());
      for (int i = 0; i < 10; ++i) co_await this_task::yield();
      co_await handle;
    }
  };
  std::vector<JoinHandle<void>> tasks;
  for (int i = 0; i < 4; ++i) tasks.push_back(executor.spawn(busy()));
  std::size_t events = 0;
  for (int round = 0; round < 50 || events == 0; ++round) {
    TraceRecorder recorder(executor, 1000);
    std::this_thread::sleep_for(200us);
    events += recorder.events();
    written(recorder);
  }
  stop = true;
  for (auto& task : tasks) task.wait();
}

TEST(TraceRecorder, WritesNamesAsUtf8WhateverBytesTheyHave) {
  // Names that are UTF-8 to their last byte, and what a name with a wrong byte becomes.
  const std::vector<std::pair<std::string, std::string>> names = {
      {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa6", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xa6"},
      {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
      {"\xff!", "\\ufffd!"},
      {"\xc0\xaf", "\\ufffd\\ufffd"},                        // overlong
      {"\xe0\x9f\xbf", "\\ufffd\\ufffd\\ufffd"},             // overlong
      {"\xf0\x8f\xbf\xbf", "\\ufffd\\ufffd\\ufffd\\ufffd"},  // overlong
      {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},             // a surrogate
      {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"},  // beyond Unicode
      {"\xe2\x82", "\\ufffd\\ufffd"},                        // cut short
      {"\xe2\x82\xc3\xa9", "\\ufffd\\ufffd\xc3\xa9"},
  };
  WorkStealingExecutor executor({.threads = 1});
  for (const auto& [name, shown] : names) {
    TraceRecorder recorder(executor);
    executor.spawn(nap(), name).wait();
    EXPECT_NE(written(recorder).find('"' + shown + '"'), std::string::npos) << shown;
  }
}

TEST(TraceRecorder, WritesNumbersAsJsonDoesWhateverTheStreamHas) {
  struct Grouping : std::numpunct<char> {
    char do_thousands_sep() const override { return ','; }
    std::string do_grouping() const override { return "\1"; }
  };
  WorkStealingExecutor executor({.threads = 1});
  TraceRecorder recorder(executor);
  for (int i = 0; i < 20; ++i) executor.run(nap());
  std::ostringstream out;
  const std::locale grouping(std::locale::classic(), new Grouping());
  out.imbue(grouping);
  out << std::hex;
  recorder.write(out);
  EXPECT_TRUE(Json::valid(out.str())) << out.str();
  EXPECT_EQ(out.getloc(), grouping);
  EXPECT_TRUE(out.flags() & std::ios::hex);
}

}  // namespace
}  // namespace magpie
