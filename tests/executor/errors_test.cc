// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/errors.h>

#include <gtest/gtest.h>

#include <support/scale.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
// Below zero: every allocation works. Else the number that still do, on this thread.
thread_local int allocations_left = -1;
}  // namespace

// Replaced for this program, to run out of memory on purpose; not with ThreadSanitizer, whose own
// cannot be. Not inlined: compilers would see new and free, and warn.
#if !defined(MAGPIE_TSAN)
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (...) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
#endif

namespace magpie {
namespace {

using detail::ReasonRef;
using test::scaled;

class NoMemory {
 public:
  NoMemory() { allocations_left = 0; }
  ~NoMemory() { allocations_left = -1; }
};

template <class E, class... A>
std::exception_ptr error(A&&... arguments) {
  return std::make_exception_ptr(E(std::forward<A>(arguments)...));
}

std::exception_ptr oops() {
  return error<std::runtime_error>("oops");
}

template <class E>
std::string caught(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const E& e) {
    return e.what();
  }
}

struct Plain {};
struct Left : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Right : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Both : Left, Right {  // std::runtime_error is ambiguous
  Both() : Left("left"), Right("right") {}
};
struct Tag {
  int number = 7;
};
struct Tagged : std::logic_error, Tag {  // Tag is not at the start of the object
  Tagged() : std::logic_error("tagged") {}
};
struct Hidden : private std::runtime_error {
  Hidden() : std::runtime_error("hidden") {}
};

template <class F>
concept SeesEachError = requires(const ExceptionGroup& group, F function) {
  group.for_each<std::runtime_error>(function);
};
static_assert(SeesEachError<void (*)(const std::exception&)>);
static_assert(!SeesEachError<void (*)(const std::logic_error&)>);
static_assert(!SeesEachError<decltype(&std::runtime_error::what)>);  // is called, not invoked

TEST(Errors, HaveTheBasesOfTheContract) {
  static_assert(!std::is_base_of_v<std::exception, CancelledError>);
  static_assert(std::is_base_of_v<std::runtime_error, TimeoutError>);
  static_assert(std::is_base_of_v<std::runtime_error, ExceptionGroup>);
  static_assert(std::is_base_of_v<std::logic_error, InvalidStateError>);
  static_assert(std::is_base_of_v<std::runtime_error, ChannelClosedError>);
  static_assert(std::is_base_of_v<std::runtime_error, BrokenPromiseError>);
  static_assert(std::is_base_of_v<std::runtime_error, ExecutorShutdownError>);
  static_assert(!std::is_convertible_v<CancelReason, CancelledError>);
}

TEST(Errors, CopyWithoutThrowing) {
  static_assert(std::is_nothrow_copy_constructible_v<CancelledError>);
  static_assert(std::is_nothrow_copy_constructible_v<TimeoutError>);
  static_assert(std::is_nothrow_copy_constructible_v<ExceptionGroup>);
  static_assert(std::is_nothrow_move_constructible_v<ExceptionGroup>);
  static_assert(std::is_nothrow_copy_assignable_v<ExceptionGroup>);
  static_assert(std::is_nothrow_copy_constructible_v<InvalidStateError>);
}

TEST(CancelledError, IsNotSwallowedByAHandlerForStdException) {
  bool reached = false;
  try {
    try {
      throw CancelledError();
    } catch (const std::exception&) {
      FAIL() << "a CancelledError must not be a std::exception";
    }
  } catch (const CancelledError& cancelled) {
    reached = true;
    EXPECT_EQ(cancelled.reason().kind, CancelKind::requested);
    EXPECT_EQ(cancelled.reason().message, "");
  }
  EXPECT_TRUE(reached);
}

TEST(CancelledError, KeepsTheReasonOfTheUser) {
  const CancelledError cancelled({CancelKind::shutdown, "a message that is too long to be short"});
  const CancelledError copy = cancelled;
  EXPECT_EQ(copy.reason().kind, CancelKind::shutdown);
  EXPECT_EQ(copy.reason().message, "a message that is too long to be short");
  EXPECT_EQ(&copy.reason(), &cancelled.reason());
}

TEST(CancelledError, OutlivedByACopyKeepsItsReason) {
  auto first = std::make_unique<CancelledError>(CancelReason{CancelKind::requested, "why not"});
  const CancelledError copy(*first);
  first.reset();
  EXPECT_EQ(copy.reason().message, "why not");
}

TEST(CancelledError, MadeOfANullReasonIsARequest) {
  EXPECT_EQ(CancelledError(ReasonRef()).reason().kind, CancelKind::requested);
}

TEST(Reason, OfAKindHasASentenceButForRequests) {
  for (CancelKind kind : {CancelKind::timeout, CancelKind::sibling_failed, CancelKind::lost_race,
                          CancelKind::group_cancelled, CancelKind::shutdown}) {
    const ReasonRef reason = ReasonRef::of_kind(kind);
    EXPECT_EQ(reason.kind(), kind);
    EXPECT_EQ(reason.get().kind, kind);
    EXPECT_TRUE(reason.get().message.starts_with("cancelled")) << to_string(kind);
    EXPECT_EQ(reason, ReasonRef::make(kind)) << "no message, no node of its own";
  }
  EXPECT_EQ(ReasonRef::of_kind(CancelKind::requested).get().message, "");
}

TEST(Reason, NamesTheFailedSiblingAndItsError) {
  EXPECT_EQ(ReasonRef::sibling_failed("task-3", oops()).get().message,
            "cancelled because task-3 failed: oops");
  EXPECT_EQ(ReasonRef::sibling_failed("", oops()).get().message,
            "cancelled because a sibling failed: oops");
  EXPECT_EQ(ReasonRef::sibling_failed("task-3", error<CancelledError>()).get().message,
            "cancelled because task-3 was cancelled");
  EXPECT_EQ(ReasonRef::sibling_failed("x", nullptr).kind(), CancelKind::sibling_failed);
}

TEST(Reason, AsksTheErrorForItsTextOnlyWhenSomebodyWantsIt) {
  static int asked = 0;
  struct Curious : std::exception {
    const char* what() const noexcept override {
      ++asked;
      return "curious";
    }
  };
  asked = 0;
  const ReasonRef reason = ReasonRef::sibling_failed("t", std::make_exception_ptr(Curious()));
  const ReasonRef copy = reason;
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(copy.get().message, "cancelled because t failed: curious");
  EXPECT_EQ(&reason.get(), &copy.get());
  EXPECT_EQ(asked, 1);
}

TEST(Reason, FreesTheCauseWithTheLastHandle) {
  struct Holder {
    std::shared_ptr<int> held;
  };
  const auto held = std::make_shared<int>(1);
  ReasonRef reason = ReasonRef::sibling_failed("t", std::make_exception_ptr(Holder{held}));
  ReasonRef copy = reason;
  reason = ReasonRef();
  EXPECT_EQ(held.use_count(), 2);
  copy = ReasonRef();
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Reason, GoesThroughAWordAndBack) {
  ReasonRef reason = ReasonRef::make(CancelKind::timeout, "word");
  void* const word = reason.release();
  EXPECT_FALSE(reason);
  const ReasonRef back = ReasonRef::adopt(word);
  ASSERT_TRUE(back);
  EXPECT_EQ(back.get().message, "word");
  EXPECT_FALSE(ReasonRef::adopt(ReasonRef().release()));
}

TEST(Reason, SurvivesAssignmentToItself) {
  ReasonRef reason = ReasonRef::make(CancelKind::timeout, "self");
  const ReasonRef& alias = reason;
  reason = alias;
  EXPECT_EQ(reason.get().message, "self");
}

TEST(Reason, IsThereWithoutMemory) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "ThreadSanitizer does not let memory run out";
#endif
  std::string text = "a message that is too long to be short";
  const std::exception_ptr cause = oops();
  ReasonRef made;
  ReasonRef sibling;
  {
    const NoMemory none;
    sibling = ReasonRef::sibling_failed("a label that is too long to be short", cause);
  }
  EXPECT_EQ(sibling, ReasonRef::of_kind(CancelKind::sibling_failed));
  {
    const NoMemory none;
    made = ReasonRef::make(CancelKind::timeout, std::move(text));
  }
  EXPECT_EQ(made, ReasonRef::of_kind(CancelKind::timeout));
}

TEST(Reason, WithoutMemoryForItsMessageHasItLater) {
#if defined(MAGPIE_TSAN)
  GTEST_SKIP() << "ThreadSanitizer does not let memory run out";
#endif
  const ReasonRef reason = ReasonRef::sibling_failed("task-1", oops());
  std::size_t length = 1;
  CancelKind kind = CancelKind::requested;
  {
    const NoMemory none;
    length = reason.get().message.size();
    kind = reason.get().kind;
  }
  EXPECT_EQ(length, 0u);
  EXPECT_EQ(kind, CancelKind::sibling_failed);
  EXPECT_EQ(reason.get().message, "cancelled because task-1 failed: oops");
}

TEST(Reason, IsBuiltOnceWhenManyThreadsAsk) {
  constexpr int threads = 4;
  for (int round = 0; round < 200; ++round) {
    const ReasonRef reason = ReasonRef::sibling_failed("task-1", oops());
    std::atomic<int> waiting{threads};
    std::vector<const CancelReason*> seen(threads);
    std::vector<std::thread> readers;
    for (int i = 0; i < threads; ++i) {
      readers.emplace_back([&, i, mine = reason] {
        waiting.fetch_sub(1);
        while (waiting.load() > 0) std::this_thread::yield();
        seen[static_cast<std::size_t>(i)] = &mine.get();
      });
    }
    for (std::thread& reader : readers) reader.join();
    for (const CancelReason* one : seen) ASSERT_EQ(one, seen[0]);
    ASSERT_EQ(seen[0]->message, "cancelled because task-1 failed: oops");
  }
}

TEST(Reason, ChainOfManyCancellationsDoesNotGrowWithoutBound) {
  ReasonRef reason = ReasonRef::sibling_failed("first", oops());
  for (std::size_t i = 0; i < scaled(1'000'000); ++i) {
    reason = ReasonRef::sibling_failed("t", std::make_exception_ptr(CancelledError(reason)));
  }
  EXPECT_LT(reason.get().message.size(), 1000u);
}

TEST(ExceptionCast, FindsTheClassItsBasesAndNothingElse) {
  const std::exception_ptr timeout = error<TimeoutError>("late");
  ASSERT_NE(detail::exception_cast<TimeoutError>(timeout), nullptr);
  EXPECT_STREQ(detail::exception_cast<TimeoutError>(timeout)->what(), "late");
  EXPECT_NE(detail::exception_cast<std::runtime_error>(timeout), nullptr);
  EXPECT_NE(detail::exception_cast<std::exception>(timeout), nullptr);
  EXPECT_EQ(detail::exception_cast<std::logic_error>(timeout), nullptr);
  EXPECT_EQ(detail::exception_cast<CancelledError>(timeout), nullptr);
  EXPECT_EQ(detail::exception_cast<TimeoutError>(oops()), nullptr);
  EXPECT_EQ(detail::exception_cast<std::exception>(nullptr), nullptr);
}

TEST(ExceptionCast, MovesThePointerToTheBase) {
  const std::exception_ptr tagged = error<Tagged>();
  const Tag* tag = detail::exception_cast<Tag>(tagged);
  ASSERT_NE(tag, nullptr);
  EXPECT_EQ(tag->number, 7);
  EXPECT_STREQ(detail::exception_cast<std::exception>(tagged)->what(), "tagged");
}

TEST(ExceptionCast, TakesWhatAHandlerWouldTake) {
  EXPECT_EQ(detail::exception_cast<std::runtime_error>(error<Both>()), nullptr) << "ambiguous";
  EXPECT_NE(detail::exception_cast<Right>(error<Both>()), nullptr);
  EXPECT_EQ(detail::exception_cast<std::runtime_error>(error<Hidden>()), nullptr) << "private";
  EXPECT_NE(detail::exception_cast<Plain>(error<Plain>()), nullptr);
  EXPECT_EQ(*detail::exception_cast<int>(std::make_exception_ptr(42)), 42);
  EXPECT_EQ(detail::exception_cast<Plain>(std::make_exception_ptr("text")), nullptr);
}

TEST(ExceptionCast, GivesTheObjectThatAHandlerGets) {
  const std::exception_ptr thrown = oops();
  try {
    std::rethrow_exception(thrown);
  } catch (const std::runtime_error& e) {
    EXPECT_EQ(&e, detail::exception_cast<std::runtime_error>(thrown));
  }
}

TEST(Describe, SaysWhatAPersonWouldAsk) {
  EXPECT_EQ(detail::describe(oops()), "oops");
  EXPECT_EQ(detail::describe(error<CancelledError>()), "cancelled");
  EXPECT_EQ(detail::describe(error<CancelledError>(CancelReason{CancelKind::requested, "stop"})),
            "cancelled: stop");
  EXPECT_EQ(detail::describe(error<CancelledError>(ReasonRef::sibling_failed("t", oops()))),
            "cancelled because t failed: oops");
  EXPECT_EQ(detail::describe(std::make_exception_ptr(42)), "an exception of type int");
  EXPECT_NE(detail::describe(error<Plain>()).find("Plain"), std::string::npos);
  EXPECT_EQ(detail::describe(nullptr), "no exception");
  const ExceptionGroup group("two", {oops(), oops()});
  EXPECT_EQ(detail::describe(std::make_exception_ptr(group)), group.what());
}

TEST(CurrentException, IsSortedIntoErrorsAndCancellations) {
  ReasonRef reason;
  std::exception_ptr stored;
  try {
    throw CancelledError({CancelKind::lost_race, "slow"});
  } catch (...) {
    EXPECT_TRUE(detail::current_exception_is_cancelled(reason, stored));
  }
  EXPECT_EQ(reason.get().message, "slow");
  try {
    throw std::runtime_error("oops");
  } catch (...) {
    EXPECT_FALSE(detail::current_exception_is_cancelled(reason, stored));
    EXPECT_FALSE(detail::current_exception_is_cancelled(reason));
  }
  EXPECT_EQ(caught<std::runtime_error>(stored), "oops");
}

TEST(CurrentException, OutsideOfAHandlerIsABadException) {
  ReasonRef reason;
  std::exception_ptr stored;
  EXPECT_FALSE(detail::current_exception_is_cancelled(reason, stored));
  EXPECT_NE(detail::exception_cast<std::bad_exception>(stored), nullptr);
}

// group(oops, group(timeout, logic), cancelled)
ExceptionGroup nested() {
  return ExceptionGroup(
      "outer", {oops(),
                error<ExceptionGroup>(
                    "inner", std::vector<std::exception_ptr>{error<TimeoutError>("late"),
                                                             error<std::logic_error>("logic")}),
                error<CancelledError>(CancelReason{CancelKind::requested, "stop"})});
}

TEST(ExceptionGroup, NamesTheCountAndTheFirstMessages) {
  EXPECT_STREQ(ExceptionGroup("", {oops()}).what(), "1 failure: oops");
  EXPECT_STREQ(ExceptionGroup("tasks failed", {oops(), error<TimeoutError>("late")}).what(),
               "tasks failed (2 failures: oops; late)");
  EXPECT_STREQ(ExceptionGroup("", std::vector<std::exception_ptr>(3, oops())).what(),
               "3 failures: oops; oops; oops");
  EXPECT_STREQ(ExceptionGroup("", std::vector<std::exception_ptr>(5, oops())).what(),
               "5 failures: oops; oops; oops; and 2 more");
  EXPECT_EQ(ExceptionGroup("tasks failed", {oops()}).message(), "tasks failed");
  const std::vector<std::exception_ptr> two{oops(), error<TimeoutError>("late")};
  EXPECT_STREQ(ExceptionGroup(two).what(), "2 failures: oops; late");
}

TEST(ExceptionGroup, KeepsWhatShort) {
  std::exception_ptr deep = error<std::runtime_error>(std::string(100'000, 'x'));
  for (int i = 0; i < 50; ++i) {
    deep = error<ExceptionGroup>("g", std::vector<std::exception_ptr>(4, deep));
  }
  EXPECT_LT(std::string(detail::exception_cast<ExceptionGroup>(deep)->what()).size(), 1000u);
  // 100 characters of two bytes each behind one byte: the cut is between two of them.
  std::string umlauts = "x";
  for (int i = 0; i < 200; ++i) umlauts += "\xc3\xbc";
  const std::string text = ExceptionGroup("", {error<std::runtime_error>(umlauts)}).what();
  EXPECT_TRUE(text.ends_with("\xc3\xbc...")) << text;
}

// A call for each level would overflow the stack, and steps in proportion to the square of the
// depth would take a day.
constexpr std::size_t kDeep = scaled(300'000);

// Levels of group(logic, group(...), timeout), with the error in the innermost.
std::exception_ptr group_around(std::exception_ptr inner, std::size_t depth, bool alone) {
  const std::exception_ptr before = error<std::logic_error>("before");
  const std::exception_ptr after = error<TimeoutError>("after");
  for (std::size_t i = 0; i < depth; ++i) {
    std::vector<std::exception_ptr> failures{std::move(inner)};
    if (!alone) failures = {before, std::move(failures.front()), after};
    inner = error<ExceptionGroup>("a level", std::move(failures));
  }
  return inner;
}

std::size_t groups_in(const ExceptionGroup& outermost) {
  std::size_t groups = 0;
  for (const ExceptionGroup* group = &outermost; group != nullptr; ++groups) {
    const ExceptionGroup* nested = nullptr;
    for (const std::exception_ptr& failure : group->exceptions())
      if (nested == nullptr) nested = detail::exception_cast<ExceptionGroup>(failure);
    group = nested;
  }
  return groups;
}

TEST(ExceptionGroup, IsAskedAndSplitVeryDeep) {
  for (const bool alone : {true, false}) {
    std::exception_ptr deep = group_around(error<Tagged>(), kDeep, alone);
    const auto& group = *detail::exception_cast<ExceptionGroup>(deep);
    EXPECT_LT(std::string(group.what()).size(), 1000u);
    EXPECT_TRUE(group.contains<Tag>());
    EXPECT_FALSE(group.contains<std::bad_alloc>());
    std::size_t failures = 0;
    group.for_each<std::exception>([&](const std::exception&) { ++failures; });
    EXPECT_EQ(failures, alone ? 1 : 2 * kDeep + 1);
    const auto [tags, rest] = group.split<Tag>();
    ASSERT_TRUE(tags);
    EXPECT_EQ(groups_in(*tags), kDeep);
    ASSERT_EQ(rest.has_value(), !alone);
    if (!alone) {
      EXPECT_EQ(groups_in(*rest), kDeep);
      EXPECT_FALSE(rest->contains<Tag>());
    }
  }
}

struct Counted {
  explicit Counted(std::shared_ptr<int> the_alive) : alive(std::move(the_alive)) {}
  std::shared_ptr<int> alive;
};

TEST(ExceptionGroup, TheLastReleaseFreesAllThatIsInside) {
  const auto alive = std::make_shared<int>(0);
  std::exception_ptr deep = error<Counted>(alive);
  for (std::size_t i = 0; i < kDeep; ++i) {
    deep = error<ExceptionGroup>(
        "", std::vector<std::exception_ptr>{std::move(deep), error<Counted>(alive)});
  }
  EXPECT_EQ(alive.use_count(), static_cast<long>(kDeep) + 2);
  std::exception_ptr other = deep;
  deep = nullptr;
  EXPECT_EQ(alive.use_count(), static_cast<long>(kDeep) + 2) << "there is another owner";
  other = nullptr;
  EXPECT_EQ(alive.use_count(), 1);
}

// An error of a user's that holds what it was cancelled with, and is the cause of the next one.
struct Remembers {
  CancelledError inner;
};

TEST(ExceptionGroup, AndReasonsNestVeryDeepInEachOther) {
  const auto alive = std::make_shared<int>(0);
  std::exception_ptr deep = error<Counted>(alive);
  for (std::size_t i = 0; i < kDeep; ++i) {
    const CancelledError cancelled(ReasonRef::sibling_failed("a task", std::move(deep)));
    deep = std::make_exception_ptr(Remembers{cancelled});
    if (i % 3 == 0) deep = error<ExceptionGroup>(std::vector<std::exception_ptr>{std::move(deep)});
  }
  EXPECT_EQ(alive.use_count(), 2);
  deep = nullptr;
  EXPECT_EQ(alive.use_count(), 1);
}

TEST(ExceptionGroup, RefusesToBeEmptyOrToHoldNothing) {
  EXPECT_THROW(ExceptionGroup("", {}), std::invalid_argument);
  EXPECT_THROW(ExceptionGroup("", {oops(), nullptr}), std::invalid_argument);
  std::vector<std::exception_ptr> last_is_null(20, oops());
  last_is_null.back() = nullptr;
  EXPECT_THROW(ExceptionGroup("", last_is_null), std::invalid_argument);
}

TEST(ExceptionGroup, KeepsTheOrderOfItsExceptions) {
  const std::exception_ptr a = oops();
  const std::exception_ptr b = oops();
  EXPECT_EQ(ExceptionGroup("", {a, b}).exceptions(), (std::vector<std::exception_ptr>{a, b}));
}

TEST(ExceptionGroup, ContainsWhatIsInNestedGroupsAndDerivedClasses) {
  const ExceptionGroup group = nested();
  EXPECT_TRUE(group.contains<TimeoutError>());
  EXPECT_TRUE(group.contains<std::logic_error>());
  EXPECT_TRUE(group.contains<std::exception>());
  EXPECT_TRUE(group.contains<CancelledError>());
  EXPECT_TRUE(group.contains<ExceptionGroup>());
  EXPECT_FALSE(group.contains<std::invalid_argument>());
  EXPECT_FALSE(ExceptionGroup("", {oops()}).contains<ExceptionGroup>());
}

TEST(ExceptionGroup, DoesNotCountANestedGroupAsOneOfItsBases) {
  const ExceptionGroup group(
      "",
      {error<ExceptionGroup>("", std::vector<std::exception_ptr>{error<std::logic_error>("l")})});
  EXPECT_FALSE(group.contains<std::runtime_error>());
  int visits = 0;
  group.for_each<std::exception>([&](const std::exception&) { ++visits; });
  EXPECT_EQ(visits, 1);
}

TEST(ExceptionGroup, VisitsEachMatchInOrder) {
  std::vector<std::string> seen;
  nested().for_each<std::exception>([&](const std::exception& e) { seen.emplace_back(e.what()); });
  EXPECT_EQ(seen, (std::vector<std::string>{"oops", "late", "logic"}));
  seen.clear();
  nested().for_each<std::runtime_error>([&](const auto& e) { seen.emplace_back(e.what()); });
  EXPECT_EQ(seen, (std::vector<std::string>{"oops", "late"}));
  nested().for_each<CancelledError>(
      [&](const CancelledError& e) { EXPECT_EQ(e.reason().message, "stop"); });
  EXPECT_THROW(nested().for_each<TimeoutError>([](const TimeoutError& e) { throw e; }),
               TimeoutError);
}

TEST(ExceptionGroup, SubgroupKeepsTheStructure) {
  const std::optional<ExceptionGroup> part = nested().subgroup<TimeoutError>();
  ASSERT_TRUE(part);
  EXPECT_EQ(part->message(), "outer");
  ASSERT_EQ(part->exceptions().size(), 1u);
  const auto* inner = detail::exception_cast<ExceptionGroup>(part->exceptions()[0]);
  ASSERT_NE(inner, nullptr);
  EXPECT_EQ(inner->message(), "inner");
  ASSERT_EQ(inner->exceptions().size(), 1u);
  EXPECT_EQ(caught<TimeoutError>(inner->exceptions()[0]), "late");
  EXPECT_FALSE(nested().subgroup<std::bad_alloc>());
}

TEST(ExceptionGroup, SplitGivesEachFailureToExactlyOneSide) {
  const auto [timeouts, rest] = nested().split<TimeoutError>();
  ASSERT_TRUE(timeouts && rest);
  EXPECT_TRUE(timeouts->contains<TimeoutError>());
  EXPECT_FALSE(rest->contains<TimeoutError>());
  ASSERT_EQ(rest->exceptions().size(), 3u);
  EXPECT_EQ(caught<std::runtime_error>(rest->exceptions()[0]), "oops");
  const auto* inner = detail::exception_cast<ExceptionGroup>(rest->exceptions()[1]);
  ASSERT_NE(inner, nullptr);
  EXPECT_EQ(caught<std::logic_error>(inner->exceptions()[0]), "logic");
  EXPECT_NE(detail::exception_cast<CancelledError>(rest->exceptions()[2]), nullptr);
}

TEST(ExceptionGroup, SplitLeavesASideOutThatHasNothing) {
  const auto all = ExceptionGroup("", {oops()}).split<std::exception>();
  EXPECT_TRUE(all.first);
  EXPECT_FALSE(all.second);
  const auto none = ExceptionGroup("", {oops()}).split<TimeoutError>();
  EXPECT_FALSE(none.first);
  EXPECT_TRUE(none.second);
}

TEST(ExceptionGroup, SplitKeepsANestedGroupThatIsOnOneSideAsItIs) {
  const ExceptionGroup group = nested();
  const auto [errors, rest] = group.split<std::exception>();
  ASSERT_TRUE(errors && rest);
  EXPECT_EQ(errors->exceptions()[1], group.exceptions()[1]) << "the same exception, not a copy";
  EXPECT_EQ(rest->exceptions().size(), 1u);
}

TEST(ExceptionGroup, AskedForGroupsGivesThemWhole) {
  const auto [groups, rest] = nested().split<ExceptionGroup>();
  ASSERT_TRUE(groups && rest);
  ASSERT_EQ(groups->exceptions().size(), 1u);
  EXPECT_EQ(detail::exception_cast<ExceptionGroup>(groups->exceptions()[0])->exceptions().size(),
            2u);
  EXPECT_EQ(rest->exceptions().size(), 2u);
}

TEST(ExceptionGroup, ThatWasMovedFromStillHasItsExceptions) {
  ExceptionGroup group = nested();
  const ExceptionGroup other = std::move(group);
  EXPECT_EQ(group.exceptions().size(), other.exceptions().size());
}

}  // namespace
}  // namespace magpie
