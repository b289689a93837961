// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/error_node.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/slot.h>
#include <magpie/errors.h>
#include <magpie/result.h>

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace magpie {

// Out of line, so that there is one copy of each class's type information.
TimeoutError::~TimeoutError() = default;
InvalidStateError::~InvalidStateError() = default;
ChannelClosedError::~ChannelClosedError() = default;
BrokenPromiseError::~BrokenPromiseError() = default;
ExecutorShutdownError::~ExecutorShutdownError() = default;
ExceptionGroup::~ExceptionGroup() = default;

namespace {

// what() is for a line in a log: a few failures tell what is going on, and groups of groups must
// not multiply.
constexpr std::size_t failures_named = 3;
constexpr std::size_t longest_failure = 200;

// Not in the middle of a character: the continuation bytes of UTF-8 are 10xxxxxx.
void shorten(std::string& text) {
  if (text.size() <= longest_failure) return;
  std::size_t end = longest_failure;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
  text.resize(end);
  text += "...";
}

std::string group_text(const std::string& message,
                       const std::vector<std::exception_ptr>& exceptions) {
  if (exceptions.empty()) {
    throw std::invalid_argument(
        "ExceptionGroup needs at least one exception: throw the group only if something failed");
  }
  std::string text = message.empty() ? std::string() : message + " (";
  text += std::to_string(exceptions.size());
  text += exceptions.size() == 1 ? " failure: " : " failures: ";
  for (std::size_t i = 0; i < exceptions.size(); ++i) {
    if (!exceptions[i]) {
      throw std::invalid_argument(
          "ExceptionGroup was given a null exception_ptr: leave out what did not fail");
    }
    if (i > failures_named) continue;
    if (i > 0) text += "; ";
    if (i == failures_named) {
      text += "and " + std::to_string(exceptions.size() - i) + " more";
    } else {
      std::string failure = detail::describe(exceptions[i]);
      shorten(failure);
      text += failure;
    }
  }
  if (!message.empty()) text += ")";
  return text;
}

}  // namespace

struct ExceptionGroup::Content : detail::ErrorNode {
  Content(std::string the_message, std::vector<std::exception_ptr> the_exceptions) noexcept
      : message(std::move(the_message)), exceptions(std::move(the_exceptions)) {}

  const std::string message;
  const std::vector<std::exception_ptr> exceptions;
};

ExceptionGroup::ExceptionGroup(std::string message, std::vector<std::exception_ptr> exceptions)
    : std::runtime_error(group_text(message, exceptions)),
      content_(new Content(std::move(message), std::move(exceptions)),
               &detail::ErrorNode::destroy) {}

const std::vector<std::exception_ptr>& ExceptionGroup::exceptions() const noexcept {
  return content_->exceptions;
}

const std::string& ExceptionGroup::message() const noexcept {
  return content_->message;
}

const std::exception_ptr* ExceptionGroup::Walk::next() {
  while (here_.next == here_.end) {
    if (outer_.empty()) return nullptr;
    here_ = outer_.back();
    outer_.pop_back();
  }
  const std::exception_ptr* const error = here_.next++;
  if (const ExceptionGroup* nested = as_group(*error)) {
    if (here_.next != here_.end) outer_.push_back(here_);
    here_ = Rest(*nested);
  }
  return error;
}

std::pair<std::optional<ExceptionGroup>, std::optional<ExceptionGroup>> ExceptionGroup::split_by(
    bool (*is_one)(const std::exception_ptr&) noexcept) const {
  struct Level {
    const ExceptionGroup* group;
    std::size_t next = 0;
    std::vector<std::exception_ptr> matching = {};
    std::vector<std::exception_ptr> rest = {};
  };
  std::vector<Level> levels;  // one in the other, the group itself first
  levels.push_back({this});
  for (;;) {
    Level& level = levels.back();
    if (level.next < level.group->exceptions().size()) {
      const std::exception_ptr& error = level.group->exceptions()[level.next++];
      if (is_one(error)) {
        level.matching.push_back(error);
      } else if (const ExceptionGroup* nested = as_group(error)) {
        levels.push_back({nested});
      } else {
        level.rest.push_back(error);
      }
      continue;
    }
    Level done = std::move(level);
    levels.pop_back();
    if (levels.empty())
      return {done.group->part(std::move(done.matching)), done.group->part(std::move(done.rest))};
    Level& outer = levels.back();
    // A group that is on one side as a whole is the same exception, not a copy of it.
    const std::exception_ptr& whole = outer.group->exceptions()[outer.next - 1];
    if (done.rest.empty()) {
      outer.matching.push_back(whole);
    } else if (done.matching.empty()) {
      outer.rest.push_back(whole);
    } else {
      outer.matching.push_back(
          std::make_exception_ptr(*done.group->part(std::move(done.matching))));
      outer.rest.push_back(std::make_exception_ptr(*done.group->part(std::move(done.rest))));
    }
  }
}

std::optional<ExceptionGroup> ExceptionGroup::part(
    std::vector<std::exception_ptr> exceptions) const {
  if (exceptions.empty()) return std::nullopt;
  return ExceptionGroup(content_->message, std::move(exceptions));
}

namespace detail {

#if defined(__GLIBCXX__)
const void* find_in_exception(const std::exception_ptr& error,
                              const std::type_info& wanted) noexcept {
  if (!error) return nullptr;
  // The pointer is all that libstdc++ keeps in an exception_ptr: it leads to the exception object.
  static_assert(sizeof(std::exception_ptr) == sizeof(void*));
  void* object = nullptr;
  std::memcpy(&object, &error, sizeof object);
  // 1: the outermost level of the type, as a handler asks (the other levels are for pointers).
  return wanted.__do_catch(error.__cxa_exception_type(), &object, 1) ? object : nullptr;
}
#endif

std::string describe(const std::exception_ptr& error) {
  if (!error) return "no exception";
  if (const auto* standard = exception_cast<std::exception>(error)) {
    const char* text = standard->what();  // a user's class may return null
    return text != nullptr ? text : "";
  }
  if (const auto* cancelled = exception_cast<CancelledError>(error)) {
    const std::string& message = cancelled->reason().message;
    if (message.starts_with("cancelled")) return message;
    return message.empty() ? "cancelled" : "cancelled: " + message;
  }
#if defined(__GLIBCXX__)
  const char* name = error.__cxa_exception_type()->name();
  if (*name == '*') ++name;  // marks types that are local to one binary
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> readable(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return std::string("an exception of type ") + (readable ? readable.get() : name);
#else
  return "an exception of an unknown type";
#endif
}

bool current_exception_is_cancelled(ReasonRef& reason, std::exception_ptr& error) noexcept {
  error = std::current_exception();
  if (!error) {
    error = std::make_exception_ptr(std::bad_exception());
    return false;
  }
  if (const auto* cancelled = exception_cast<CancelledError>(error)) {
    reason = cancelled->reason_ref();
    return true;
  }
  return false;
}

bool current_exception_is_cancelled(ReasonRef& reason) noexcept {
  std::exception_ptr ignored;
  return current_exception_is_cancelled(reason, ignored);
}

void SlotBase::throw_failure(SlotState state, const void* failure) {
  switch (state) {
    case SlotState::error:
      std::rethrow_exception(*static_cast<const std::exception_ptr*>(failure));
    case SlotState::cancelled:
      throw CancelledError(*static_cast<const ReasonRef*>(failure));
    case SlotState::empty:
    case SlotState::value:
      break;
  }
  throw InvalidStateError("there is no result yet: await the task, or wait until it is done");
}

void SlotBase::keep_for_ever(const std::exception_ptr& error) noexcept {
  [[maybe_unused]] auto* const kept = new (std::nothrow) std::exception_ptr(error);
}

void SlotBase::destroy_failure(SlotState state, void* failure) noexcept {
  if (state == SlotState::error) std::destroy_at(static_cast<std::exception_ptr*>(failure));
  if (state == SlotState::cancelled) std::destroy_at(static_cast<ReasonRef*>(failure));
}

void SlotBase::copy_failure(SlotState state, void* to, const void* from) noexcept {
  if (state == SlotState::error) {
    ::new (to) std::exception_ptr(*static_cast<const std::exception_ptr*>(from));
  } else if (state == SlotState::cancelled) {
    ::new (to) ReasonRef(*static_cast<const ReasonRef*>(from));
  }
}

bool is_timeout(TimeoutMark mark, const std::exception_ptr& error) noexcept {
  if (mark == TimeoutMark::by_type) return exception_cast<TimeoutError>(error) != nullptr;
  return mark == TimeoutMark::always;
}

std::exception_ptr make_cancelled(const ReasonRef& reason) noexcept {
  return std::make_exception_ptr(CancelledError(reason));
}

}  // namespace detail
}  // namespace magpie
