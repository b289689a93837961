// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <array>
#include <cstdio>
#include <locale>
#include <ostream>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <pthread.h>
#include <unistd.h>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/executor_services.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/trace_log.h>
#include <magpie/trace.h>

namespace magpie {
namespace detail {
namespace {

void append(TraceLog& log, TraceLog::Shard& shard, TraceEvent&& event) noexcept {
  if (log.room_taken.fetch_add(1, std::memory_order_relaxed) >= log.most_events) {
    ++shard.dropped;
    return;
  }
  try {
    const auto known = [&](const auto& thread) { return thread.first == event.thread; };
    if (std::none_of(shard.threads.begin(), shard.threads.end(), known)) {
      std::array<char, 16> name{};
      pthread_getname_np(pthread_self(), name.data(), name.size());
      shard.threads.emplace_back(event.thread, name.data());
    }
    shard.events.push_back(std::move(event));
  } catch (...) {
    ++shard.dropped;  // no memory
  }
}

}  // namespace

void ExecutorServices::trace(TraceEvent event) noexcept {
  event.thread = thread_index();
  RegistryShard& shard = shard_here();
  std::lock_guard guard(shard.trace_lock);
  // Acquire: pairs with attach(). Whoever sees the log here has the lock that detach() waits for.
  TraceLog* const log = trace_.load(std::memory_order_acquire);
  if (log == nullptr) return;
  append(*log, log->shards[static_cast<std::size_t>(&shard - shards_.get())], std::move(event));
}

void ExecutorServices::trace_task(TraceEvent::Kind kind, const TaskRecord& record) noexcept {
  TraceEvent event{
      .kind = kind, .at_ns = StdEnv::now_ns(), .task = static_cast<std::uint64_t>(record.id())};
  if (kind == TraceEvent::Kind::task_begins) {
    try {
      event.name = record.name();
    } catch (...) {
      // Without memory the task has no name.
    }
  }
  trace(std::move(event));
}

void ExecutorServices::attach(std::shared_ptr<TraceLog> log) {
  std::lock_guard guard(trace_mutex_);
  if (trace_owner_ != nullptr) {
    throw std::logic_error(
        "this executor is being recorded by another TraceRecorder: stop() that one first");
  }
  log->services = this;
  trace_owner_ = std::move(log);
  trace_.store(trace_owner_.get(), std::memory_order_release);  // pairs with trace()
}

// With the log's mutex held: the services are alive.
void ExecutorServices::detach() noexcept {
  trace_.store(nullptr, std::memory_order_relaxed);  // the locks order it
  for (std::size_t i = 0; i < kShards; ++i) {
    std::lock_guard guard(shards_[i].trace_lock);  // who is appending there has done so
  }
  std::lock_guard guard(trace_mutex_);
  trace_owner_.reset();
}

// In the destructor: nobody is left who would append.
void ExecutorServices::end_trace() noexcept {
  std::shared_ptr<TraceLog> log;
  {
    std::lock_guard guard(trace_mutex_);
    log = trace_owner_;
  }
  if (log == nullptr) return;
  std::lock_guard guard(log->mutex);
  log->services = nullptr;
}

}  // namespace detail

namespace {

// How many bytes of the text are its first character in UTF-8; 0: it begins with none. Neither
// overlong forms, nor surrogates, nor what lies beyond Unicode.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first < 0xc2   ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return 0;
  }
  const unsigned second = byte(1);
  const bool wrong = (first == 0xe0 && second < 0xa0) || (first == 0xed && second >= 0xa0) ||
                     (first == 0xf0 && second < 0x90) || (first == 0xf4 && second >= 0x90);
  return wrong ? 0 : length;
}

// JSON's, which is UTF-8 throughout: a byte of a name that is not shows as U+FFFD.
void write_string(std::ostream& out, std::string_view text) {
  out << '"';
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view rest = text.substr(i);
    const std::size_t length = utf8_length(rest);
    const char c = rest.front();
    i += std::max<std::size_t>(length, 1);
    if (length == 0) {
      out << "\\ufffd";
    } else if (length > 1) {
      out << rest.substr(0, length);
    } else if (c == '"' || c == '\\') {
      out << '\\' << c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "\\u%04x", static_cast<unsigned>(c));
      out << code.data();
    } else {
      out << c;
    }
  }
  out << '"';
}

// Microseconds, the unit of the format, to the nanosecond.
void write_time(std::ostream& out, std::string_view key, std::uint64_t ns) {
  std::array<char, 32> digits{};
  std::snprintf(digits.data(), digits.size(), "%llu.%03u",
                static_cast<unsigned long long>(ns / 1000), static_cast<unsigned>(ns % 1000));
  out << ",\"" << key << "\":" << digits.data();
}

void write_event(std::ostream& out, const detail::TraceEvent& event, std::uint64_t origin_ns) {
  using Kind = detail::TraceEvent::Kind;
  const auto slice = [&](const char* name) {
    out << "\"ph\":\"X\",\"name\":\"" << name << '"';
    write_time(out, "dur", event.for_ns);
  };
  switch (event.kind) {
    case Kind::task_begins:
      out << R"("ph":"b","cat":"task","id":)" << event.task << ",\"name\":";
      write_string(out, event.name);
      break;
    case Kind::task_ends:
      out << R"("ph":"e","cat":"task","name":"","id":)" << event.task;
      break;
    case Kind::piece:
      slice("run");
      break;
    case Kind::sleep:
      slice("sleep");
      break;
    case Kind::steal:
      out << R"("ph":"i","s":"t","name":"steal")";
      break;
  }
  out << ",\"tid\":" << event.thread;
  write_time(out, "ts", event.at_ns - origin_ns);
}

// JSON knows one way to write a number, whatever locale and flags the stream has.
class PlainNumbers {
 public:
  explicit PlainNumbers(std::ostream& out)
      : out_(out), locale_(out.imbue(std::locale::classic())), flags_(out.flags(std::ios::dec)) {}
  ~PlainNumbers() {
    out_.flags(flags_);
    out_.imbue(locale_);
  }
  PlainNumbers(const PlainNumbers&) = delete;
  PlainNumbers& operator=(const PlainNumbers&) = delete;

 private:
  std::ostream& out_;
  const std::locale locale_;
  const std::ios::fmtflags flags_;
};

}  // namespace

TraceRecorder::TraceRecorder(Executor& executor, std::size_t max_events)
    : log_(std::make_shared<detail::TraceLog>(max_events, detail::ExecutorServices::kShards)) {
  detail::ExecutorAccess::services(executor).attach(log_);
}

TraceRecorder::~TraceRecorder() {
  stop();
}

void TraceRecorder::stop() noexcept {
  std::lock_guard guard(log_->mutex);
  if (log_->services == nullptr) return;
  log_->services->detach();
  log_->services = nullptr;
}

void TraceRecorder::write(std::ostream& out) {
  stop();
  std::vector<const detail::TraceEvent*> events;
  for (const auto& shard : log_->shards) {
    for (const auto& event : shard.events) events.push_back(&event);
  }
  const auto earlier = [](const auto* a, const auto* b) { return a->at_ns < b->at_ns; };
  std::sort(events.begin(), events.end(), earlier);
  const std::uint64_t origin_ns = events.empty() ? 0 : events.front()->at_ns;

  const PlainNumbers plain(out);
  const auto process = getpid();
  out << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{\"ph\":\"M\",\"name\":\"process_name\","
         "\"pid\":"
      << process << ",\"args\":{\"name\":\"magpie\"}}";
  for (const auto& shard : log_->shards) {
    for (const auto& [index, name] : shard.threads) {
      out << ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":" << process << ",\"tid\":" << index
          << ",\"args\":{\"name\":";
      write_string(out, name);
      out << "}}";
    }
  }
  for (const auto* event : events) {
    out << ",\n{\"pid\":" << process << ',';
    write_event(out, *event, origin_ns);
    out << '}';
  }
  out << "\n]}\n";
}

std::size_t TraceRecorder::events() noexcept {
  stop();
  std::size_t count = 0;
  for (const auto& shard : log_->shards) count += shard.events.size();
  return count;
}

std::size_t TraceRecorder::dropped() noexcept {
  stop();
  std::size_t count = 0;
  for (const auto& shard : log_->shards) count += shard.dropped;
  return count;
}

}  // namespace magpie
