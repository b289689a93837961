// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Random scripts over the primitives: tasks that share one of each kind, and do one operation after
// the other, with a pause after each. And an oracle that says what becomes of each operation, and
// at which instant: it goes through the events in the order of their times, with plain queues. No
// executor and no code of the library takes part.
//
// The pauses are random to the nanosecond. So at any instant one task acts, or one limit expires,
// or one task is cancelled; whatever that sets free only notes its result and begins its pause. The
// outcome is therefore the same in every order of the ready.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "oracle.h"

namespace magpie::test {

// --- scripts ---

enum class Verb {
  acquire,
  try_acquire,
  release,  // the oldest permit that the task holds
  lock,
  try_lock,
  unlock,
  wait_notified,  // Condition::wait
  wait_token,     // with a predicate: takes a token
  give_token,     // with the lock held; notifies one
  notify_one,
  notify_all,
  set,
  clear,
  wait_event,
  count_down,
  wait_latch,
  arrive,  // at the latch
  meet,    // at the barrier
  send,
  try_send,
  receive,
  try_receive,
  close,
  rate,
  try_rate,
  fulfil,
  fail,
  abandon,
  await,    // a future
  cancel,   // another task, or itself
  first,    // a race of operations, which it is given directly
  any_one,  // likewise any
  verbs,
};
inline constexpr const char* kVerbs[] = {
    "acquire",     "try_acquire", "release",    "lock",       "try_lock", "unlock",   "wait",
    "wait_token",  "give_token",  "notify_one", "notify_all", "set",      "clear",    "event.wait",
    "count_down",  "latch.wait",  "arrive",     "barrier",    "send",     "try_send", "receive",
    "try_receive", "close",       "rate",       "try_rate",   "fulfil",   "fail",     "abandon",
    "await",       "cancel",      "race",       "any"};
static_assert(std::size(kVerbs) == static_cast<std::size_t>(Verb::verbs));

inline constexpr std::size_t kScriptPermits = 3;
inline constexpr std::size_t kScriptCount = 3;    // of the latch
inline constexpr std::size_t kScriptParties = 2;  // of the barrier
inline constexpr std::size_t kScriptPromises = 2;
inline constexpr std::size_t kCapacities[] = {0, 1, 3};
inline constexpr std::size_t kScriptChannels = std::size(kCapacities);
inline constexpr std::int64_t kTokenTime = 100'000'000'000'000;  // nanoseconds
inline constexpr double kTokensPerSecond = 1e-5;
inline constexpr std::size_t kScriptBurst = 2;

struct Op {
  Verb verb = Verb::set;
  std::size_t which = 0;  // channel, promise, task, kind of race
  std::size_t count = 1;
  int number = 0;  // what is sent or set
  std::int64_t pause = 1;
  std::int64_t limit = kNever;
  bool masked = false;  // the operation with its limit is uncancellable
};

/// What the races are between: never twice the same primitive, nor the mutex and the semaphore,
/// which one task may let go of at one instant. What takes nothing, or may fail, decides its race
/// only when the task goes on; another that leaves a line at that instant must not make way for it
/// there: so no such thing stands beside the semaphore and the rate.
struct Contest {
  Verb verb;
  std::size_t channel;
};
inline constexpr std::size_t kContestants = 3;
inline constexpr Contest kRaces[][kContestants] = {
    {{Verb::acquire, 0}, {Verb::receive, 2}, {Verb::meet, 0}},
    {{Verb::lock, 0}, {Verb::wait_event, 0}, {Verb::send, 1}},
    {{Verb::send, 0}, {Verb::receive, 1}, {Verb::meet, 0}},
    {{Verb::meet, 0}, {Verb::wait_latch, 0}, {Verb::await, 0}},
    {{Verb::lock, 0}, {Verb::receive, 0}, {Verb::rate, 0}},
};
inline constexpr Contest kAny[kContestants] = {
    {Verb::send, 2}, {Verb::lock, 0}, {Verb::wait_event, 0}};

struct Part {
  std::int64_t start = 1;  // the pause before its first operation
  std::int64_t end = 1;    // when it is cancelled, if it has not ended by then
  std::vector<Op> ops;
};
struct Script {
  std::vector<Part> parts;
};

inline std::ostream& operator<<(std::ostream& out, const Script& script) {
  for (std::size_t i = 0; i < script.parts.size(); ++i) {
    const Part& part = script.parts[i];
    out << "task " << i << ": start " << part.start << ", cancelled " << part.end << "\n";
    for (const Op& op : part.ops) {
      out << "  " << kVerbs[static_cast<int>(op.verb)] << " " << op.which << " x" << op.count
          << " #" << op.number;
      if (op.limit != kNever) out << (op.masked ? ", masked limit " : ", limit ") << op.limit;
      out << ", pause " << op.pause << "\n";
    }
  }
  return out;
}

/// Makes scripts out of choices, as Author does programs.
template <class Choices>
class ScriptAuthor {
 public:
  explicit ScriptAuthor(Choices choices) : random_(choices) {}
  Script script() {
    Script made;
    made.parts.resize(2 + random_.below(5));
    for (std::size_t i = 0; i < made.parts.size(); ++i) {
      Part& part = made.parts[i];
      part.start = pause();
      part.end = random_.below(4) == 0 ? pause() : last_end();
      bool locked = false;
      std::size_t permits = 0;
      const std::size_t ops = 1 + random_.below(12);
      for (std::size_t k = 0; k < ops; ++k) {
        part.ops.push_back(op(made.parts.size()));
        Op& made_op = part.ops.back();
        made_op.number = static_cast<int>(100 * i + k);
        // Mostly it has in its hands what it needs.
        const Verb verb = made_op.verb;
        const bool needs_lock = verb == Verb::unlock || verb == Verb::wait_notified ||
                                verb == Verb::wait_token || verb == Verb::give_token;
        if (needs_lock && !locked) made_op.verb = Verb::lock;
        if (verb == Verb::release && permits == 0) made_op.verb = Verb::acquire;
        if (made_op.verb == Verb::lock || made_op.verb == Verb::try_lock) locked = true;
        if (made_op.verb == Verb::unlock) locked = false;
        if (made_op.verb == Verb::acquire || made_op.verb == Verb::try_acquire) ++permits;
        if (made_op.verb == Verb::release) --permits;
      }
    }
    return made;
  }

 private:
  std::int64_t pause() {
    return 1 + static_cast<std::int64_t>(
                   random_.below(std::uint64_t{1} << (42 + 3 * random_.below(3))));
  }
  std::int64_t last_end() {
    return (std::int64_t{1} << 53) +
           static_cast<std::int64_t>(random_.below(std::uint64_t{1} << 50));
  }
  Op op(std::size_t tasks) {
    Op made;
    made.verb = static_cast<Verb>(random_.below(static_cast<std::uint64_t>(Verb::verbs)));
    std::size_t choices = kScriptChannels;
    if (made.verb == Verb::cancel) choices = tasks;
    if (made.verb == Verb::first) choices = std::size(kRaces);
    if (made.verb >= Verb::fulfil && made.verb <= Verb::await) choices = kScriptPromises;
    made.which = random_.below(choices);
    made.count = 1 + random_.below(3);
    made.pause = pause();
    if (random_.below(3) != 0) {
      made.limit = pause();
      made.masked = random_.below(4) == 0;
    }
    return made;
  }

  Choices random_;
};

// --- the oracle ---

/// A line for each task, and one for what is left. Of an operation's result: + and what it gave, t
/// (its limit came), or an error: x (closed), b (broken), s (set before), m (misuse), e<number>,
/// G{...} (any's). "-": there was nothing to do it with. At last "." or "c" (cancelled).
using Story = std::vector<std::string>;

class ScriptOracle {
 public:
  explicit ScriptOracle(const Script& script) : actors_(script.parts.size()) {
    for (std::size_t i = 0; i < actors_.size(); ++i) {
      actors_[i].part = &script.parts[i];
      actors_[i].wake = script.parts[i].start;
    }
  }

  Story tell() {
    while (step()) {
      for (settle(); !ready_.empty(); settle()) {
        const auto [who, text] = ready_.front();
        ready_.pop_front();
        if (text == kLooks) {
          look(who);
          continue;
        }
        note(who, text);
        rest_a_while(who);
      }
    }
    Story story;
    for (const Actor& actor : actors_) story.push_back(actor.log);
    story.push_back(rest());
    return story;
  }

 private:
  enum class State { sleeping, waiting, completed, ended };
  struct Actor {
    const Part* part = nullptr;
    std::size_t next = 0;
    State state = State::sleeping;
    std::int64_t wake = 0;      // sleeping
    std::int64_t due = kNever;  // the limit of what it waits for
    bool cancelled = false;
    bool expired = false;    // that limit has come
    bool relocking = false;  // in the mutex's queue on its way back from the condition
    bool gave_up = false;    // it is, but was not notified
    bool failed = false;     // one of any's contestants
    bool locked = false;
    std::vector<std::size_t> permits;
    std::string log;

    const Op& op() const { return part->ops[next]; }
    bool seen_cancelled() const { return cancelled && !op().masked; }
  };
  static constexpr const char* kLooks = "?";
  struct Place {
    std::size_t who;
    int contestant;     // -1: alone
    std::size_t count;  // permits, tokens
    int number;         // of an item
  };
  using Line = std::deque<Place>;
  struct Pipe {
    std::deque<int> items;
    Line senders;
    Line receivers;
    bool closed = false;
  };
  struct Pledge {
    std::string result;  // empty: none yet
    bool gone = false;   // abandoned: nobody can set it
    Line waiters;
  };

  // The next thing that happens by itself.
  bool step() {
    std::int64_t when = kNever;
    std::function<void()> what;
    const auto consider = [&](std::int64_t at, auto fn) {
      if (at < when) when = at, what = fn;
    };
    for (std::size_t i = 0; i < actors_.size(); ++i) {
      Actor& actor = actors_[i];
      if (actor.state == State::ended) continue;
      if (!actor.cancelled) consider(actor.part->end, [this, i] { cancel(i); });
      if (actor.state == State::sleeping) consider(actor.wake, [this, i] { act(i); });
      if (actor.state == State::waiting && !actor.expired)
        consider(actor.due, [this, i] { expire(i); });
    }
    if (!bucket_line_.empty()) {
      const std::int64_t missing = needed(bucket_line_.front().count) - level_;
      consider(level_at_ + missing, [] {});
    }
    if (when == kNever) return false;
    now_ = when;
    what();
    return true;
  }

  // --- tasks ---

  void note(std::size_t who, const std::string& text) {
    actors_[who].log += text + "@" + std::to_string(now_) + " ";
  }
  void end(std::size_t who, const std::string& text) {
    Actor& actor = actors_[who];
    note(who, text);
    actor.state = State::ended;
    leave_lines(who);
    if (actor.locked) free_mutex();
    actor.locked = false;
    for (const std::size_t n : actor.permits) permits_ += n;
    actor.permits.clear();
  }
  void rest_a_while(std::size_t who) {
    Actor& actor = actors_[who];
    actor.state = State::sleeping;
    actor.wake = now_ + actor.op().pause;
    ++actor.next;
    if (actor.cancelled) end(who, "c");
  }
  void act(std::size_t who) {
    Actor& actor = actors_[who];
    if (actor.next == actor.part->ops.size()) return end(who, ".");
    const Op& op = actor.op();
    actor.state = State::waiting;
    actor.expired = actor.relocking = actor.gave_up = actor.failed = false;
    if (op.verb == Verb::first || op.verb == Verb::any_one) {
      const Contest* const contest = op.verb == Verb::first ? kRaces[op.which] : kAny;
      for (std::size_t k = 0; k < kContestants && actor.state == State::waiting; ++k) {
        Op single = op;
        single.verb = contest[k].verb;
        single.which = contest[k].channel;
        single.count = std::min<std::size_t>(op.count, kScriptBurst);
        start(who, static_cast<int>(k), single);
      }
    } else {
      start(who, -1, op);
    }
    actor.due = op.limit == kNever ? kNever : now_ + op.limit;
  }
  void start(std::size_t who, int contestant, const Op& op) {
    const std::string text = attempt({who, contestant, op.count, op.number}, op);
    if (!text.empty()) complete({who, contestant, 0, 0}, text);
  }
  // One operation has its result, and whatever stood beside it in a race is withdrawn.
  void complete(const Place& place, std::string text) {
    Actor& actor = actors_[place.who];
    if (actor.state != State::waiting) throw std::logic_error("completed twice");
    if (actor.op().verb == Verb::any_one && text[0] != '+') {
      actor.failed = true;
      return;
    }
    if (place.contestant >= 0 && text[0] == '+') text = std::to_string(place.contestant) + text;
    leave_lines(place.who);
    actor.state = State::completed;
    ready_.emplace_back(place.who, text);
  }
  bool cancel(std::size_t who) {
    Actor& actor = actors_[who];
    if (actor.state == State::ended || actor.cancelled) return false;
    actor.cancelled = true;
    if (actor.state == State::sleeping) end(who, "c");
    if (actor.state == State::waiting && !actor.op().masked) interrupt(who);
    return true;
  }
  void expire(std::size_t who) {
    actors_[who].expired = true;
    interrupt(who);
  }
  void interrupt(std::size_t who) {
    Actor& actor = actors_[who];
    const Verb verb = actor.op().verb;
    if (verb == Verb::wait_notified || verb == Verb::wait_token) {
      if (actor.relocking) return;
      leave_lines(who);
      actor.gave_up = true;
      return take_mutex_back(who);
    }
    leave_lines(who);
    settle();  // whoever stood behind it, before it lets go of anything
    if (actor.failed) {
      actor.state = State::completed;
      ready_.emplace_back(who, "G{x}");
    } else {
      withdrawn(who);
    }
  }
  // What it waited for was cancelled, by its limit or with the task.
  void withdrawn(std::size_t who) {
    Actor& actor = actors_[who];
    if (actor.seen_cancelled()) return end(who, "c");
    actor.state = State::completed;
    ready_.emplace_back(who, "t");
  }

  // --- primitives ---

  void leave_lines(std::size_t who) {
    const auto leave = [who](Line& line) {
      std::erase_if(line, [who](const Place& place) { return place.who == who; });
    };
    for (Line* line : {&permit_line_, &mutex_line_, &condition_line_, &event_line_, &latch_line_,
                       &barrier_line_, &bucket_line_})
      leave(*line);
    for (Pipe& pipe : pipes_) leave(pipe.senders), leave(pipe.receivers);
    for (Pledge& pledge : pledges_) leave(pledge.waiters);
  }
  void wake_all(Line& line, const std::string& text) {
    while (!line.empty()) {
      const Place place = line.front();
      line.pop_front();
      complete(place, text);
    }
  }
  // Gives what is there to those who have waited longest.
  void settle() {
    while (!permit_line_.empty() && permit_line_.front().count <= permits_) {
      const Place place = permit_line_.front();
      permits_ -= place.count;
      actors_[place.who].permits.push_back(place.count);
      complete(place, "+");
    }
    flow();
    while (!bucket_line_.empty() && needed(bucket_line_.front().count) <= level_) {
      const Place place = bucket_line_.front();
      level_ -= needed(place.count);
      complete(place, "+");
    }
  }

  void free_mutex() {
    mutex_held_ = false;
    if (mutex_line_.empty()) return;
    const Place place = mutex_line_.front();
    mutex_line_.pop_front();
    mutex_held_ = actors_[place.who].locked = true;
    if (actors_[place.who].relocking) return regained(place.who);
    complete(place, "+");
  }
  void take_mutex_back(std::size_t who) {
    actors_[who].relocking = true;
    if (mutex_held_) return mutex_line_.push_back({who, -1, 0, 0});
    mutex_held_ = actors_[who].locked = true;
    regained(who);
  }
  // It has the mutex back; what that leads to is a step of its own.
  void regained(std::size_t who) {
    actors_[who].state = State::completed;
    ready_.emplace_back(who, kLooks);
  }
  void look(std::size_t who) {
    Actor& actor = actors_[who];
    actor.state = State::waiting;
    if (actor.gave_up) return withdrawn(who);
    if (actor.op().verb == Verb::wait_token) {
      if (tokens_ == 0) {
        if (actor.expired || actor.seen_cancelled()) return withdrawn(who);
        return wait_for_condition(who);
      }
      --tokens_;
    }
    complete({who, -1, 0, 0}, "+");
  }
  void wait_for_condition(std::size_t who) {
    actors_[who].relocking = actors_[who].locked = false;
    condition_line_.push_back({who, -1, 0, 0});
    free_mutex();
  }
  void notify() {
    if (condition_line_.empty()) return;
    const std::size_t who = condition_line_.front().who;
    condition_line_.pop_front();
    take_mutex_back(who);
  }

  static std::int64_t needed(std::size_t count) {
    return static_cast<std::int64_t>(count) * kTokenTime;
  }
  void flow() {
    level_ = std::min(needed(kScriptBurst), level_ + (now_ - level_at_));
    level_at_ = now_;
  }
  bool take_tokens(std::size_t count) {
    flow();
    if (!bucket_line_.empty() || needed(count) > level_) return false;
    level_ -= needed(count);
    return true;
  }

  bool try_send(std::size_t which, int number) {
    Pipe& pipe = pipes_[which];
    if (pipe.closed) return false;
    if (!pipe.receivers.empty()) {
      const Place place = pipe.receivers.front();
      pipe.receivers.pop_front();
      complete(place, "+" + std::to_string(number));
      return true;
    }
    if (pipe.items.size() >= kCapacities[which]) return false;
    pipe.items.push_back(number);
    return true;
  }
  std::optional<int> try_receive(std::size_t which) {
    Pipe& pipe = pipes_[which];
    if (kCapacities[which] > 0 && pipe.items.empty()) return std::nullopt;
    if (!pipe.senders.empty()) {
      const Place place = pipe.senders.front();
      pipe.senders.pop_front();
      pipe.items.push_back(place.number);
      complete(place, "+");
    }
    if (pipe.items.empty()) return std::nullopt;
    const int number = pipe.items.front();
    pipe.items.pop_front();
    return number;
  }
  std::string settle_pledge(std::size_t which, const std::string& result) {
    Pledge& pledge = pledges_[which];
    if (pledge.gone || !pledge.result.empty()) return "s";
    pledge.result = result;
    wake_all(pledge.waiters, result);
    return "+";
  }
  bool count_down() {
    if (count_ == 0) return false;
    if (--count_ == 0) wake_all(latch_line_, "+");
    return true;
  }

  // Its result, or nothing: it stands in a line now.
  std::string attempt(const Place& place, const Op& op) {
    Actor& actor = actors_[place.who];
    const auto wait_in = [&place](Line& line) {
      line.push_back(place);
      return std::string();
    };
    switch (op.verb) {
      case Verb::acquire:
      case Verb::try_acquire:
        if (permit_line_.empty() && op.count <= permits_) {
          permits_ -= op.count;
          actor.permits.push_back(op.count);
          return "+";
        }
        return op.verb == Verb::acquire ? wait_in(permit_line_) : "t";
      case Verb::release:
        if (actor.permits.empty()) return "-";
        permits_ += actor.permits.front();
        actor.permits.erase(actor.permits.begin());
        return "+";
      case Verb::lock:
      case Verb::try_lock:
        if (actor.locked && place.contestant < 0) return "-";
        if (mutex_held_) return op.verb == Verb::lock ? wait_in(mutex_line_) : "t";
        mutex_held_ = actor.locked = true;
        return "+";
      case Verb::unlock:
        if (!actor.locked) return "-";
        actor.locked = false;
        free_mutex();
        return "+";
      case Verb::wait_notified:
      case Verb::wait_token:
        if (!actor.locked) return "-";
        if (op.verb == Verb::wait_token && tokens_ > 0) {
          --tokens_;
          return "+";
        }
        wait_for_condition(place.who);
        return {};
      case Verb::give_token:
        if (!actor.locked) return "-";
        ++tokens_;
        notify();
        return "+";
      case Verb::notify_one:
        notify();
        return "+";
      case Verb::notify_all:
        for (std::size_t n = condition_line_.size(); n > 0; --n) notify();
        return "+";
      case Verb::set:
        event_ = true;
        wake_all(event_line_, "+");
        return "+";
      case Verb::clear:
        event_ = false;
        return "+";
      case Verb::wait_event:
        return event_ ? "+" : wait_in(event_line_);
      case Verb::count_down:
        return count_down() ? "+" : "m";
      case Verb::arrive:
        if (!count_down()) return "m";
        return count_ == 0 ? "+" : wait_in(latch_line_);
      case Verb::wait_latch:
        return count_ == 0 ? "+" : wait_in(latch_line_);
      case Verb::meet:
        if (barrier_line_.size() + 1 < kScriptParties) return wait_in(barrier_line_);
        wake_all(barrier_line_, "+0");
        return "+1";
      case Verb::send:
        if (pipes_[op.which].closed) return "x";
        return try_send(op.which, op.number) ? "+" : wait_in(pipes_[op.which].senders);
      case Verb::try_send:
        return try_send(op.which, op.number) ? "+" : "t";
      case Verb::receive: {
        if (const auto number = try_receive(op.which)) return "+" + std::to_string(*number);
        return pipes_[op.which].closed ? "+-" : wait_in(pipes_[op.which].receivers);
      }
      case Verb::try_receive: {
        const auto number = try_receive(op.which);
        return number ? "+" + std::to_string(*number) : "+-";
      }
      case Verb::close:
        pipes_[op.which].closed = true;
        wake_all(pipes_[op.which].receivers, "+-");
        wake_all(pipes_[op.which].senders, "x");
        return "+";
      case Verb::rate:
      case Verb::try_rate:
        if (op.count > kScriptBurst) return "m";
        if (take_tokens(op.count)) return "+";
        return op.verb == Verb::rate ? wait_in(bucket_line_) : "t";
      case Verb::fulfil:
        return settle_pledge(op.which, "+" + std::to_string(op.number));
      case Verb::fail:
        return settle_pledge(op.which, "e" + std::to_string(op.number));
      case Verb::abandon:
        settle_pledge(op.which, "b");
        pledges_[op.which].gone = true;
        return "+";
      case Verb::await:
        return pledges_[op.which].result.empty() ? wait_in(pledges_[op.which].waiters)
                                                 : pledges_[op.which].result;
      case Verb::cancel:
        return cancel_by(place.who, op.which % actors_.size()) ? "+1" : "+0";
      default:
        throw std::logic_error("no such verb");
    }
  }
  // One that cancels itself goes on to its pause.
  bool cancel_by(std::size_t who, std::size_t whom) {
    if (who != whom) return cancel(whom);
    return !std::exchange(actors_[who].cancelled, true);
  }

  std::string rest() const {
    std::string text = std::to_string(permits_) + " permits, " + (mutex_held_ ? "held" : "free") +
                       ", " + std::to_string(tokens_) + " tokens, " + (event_ ? "set" : "clear") +
                       ", " + (count_ == 0 ? "open" : "closed");
    for (const Pipe& pipe : pipes_) {
      text += ";";
      for (const int number : pipe.items) text += " " + std::to_string(number);
    }
    return text;
  }

  std::int64_t now_ = 0;
  std::vector<Actor> actors_;
  std::deque<std::pair<std::size_t, std::string>> ready_;

  std::size_t permits_ = kScriptPermits;
  Line permit_line_;
  bool mutex_held_ = false;
  Line mutex_line_;
  Line condition_line_;
  int tokens_ = 0;
  bool event_ = false;
  Line event_line_;
  std::size_t count_ = kScriptCount;
  Line latch_line_;
  Line barrier_line_;
  Pipe pipes_[kScriptChannels];
  std::int64_t level_ = needed(kScriptBurst);  // of the bucket, as the time that it took to flow in
  std::int64_t level_at_ = 0;
  Line bucket_line_;
  Pledge pledges_[kScriptPromises];
};

/// Scripts with a part less.
inline std::vector<Script> smaller(const Script& script) {
  std::vector<Script> found;
  const auto less = [&](auto change) {
    found.push_back(script);
    change(found.back());
  };
  for (std::size_t i = 0; i < script.parts.size(); ++i) {
    if (i + 1 == script.parts.size() && i > 0) less([](Script& s) { s.parts.pop_back(); });
    for (std::size_t k = 0; k < script.parts[i].ops.size(); ++k) {
      less([&](Script& s) {
        s.parts[i].ops.erase(s.parts[i].ops.begin() + static_cast<std::ptrdiff_t>(k));
      });
      if (script.parts[i].ops[k].limit != kNever)
        less(
            [&](Script& s) { s.parts[i].ops[k].limit = kNever, s.parts[i].ops[k].masked = false; });
    }
  }
  return found;
}

}  // namespace magpie::test
