// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Random programs over the combinators, and an oracle that computes what becomes of one: which
// outcome, at which instant. It reads the program alone, one child after the other, in virtual
// time; no executor and no task of the library takes part.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <magpie/detail/random.h>

namespace magpie::test {

using detail::Random;

// --- programs ---

enum class Kind {
  give,         // a value, after a pause
  fail,         // an error, after a pause
  give_up,      // ends cancelled by itself, after a pause
  stubborn,     // as give, but sees no cancellation
  in_turn,      // two, one after the other
  swallow,      // an error or a cancellation of the child becomes a value, after a masked pause
  bitter,       // likewise an error
  mask,         // uncancellable
  shielded,     // shield
  spawned,      // spawn, and await the handle
  cleaned,      // finally
  cancelled,    // with_token; the token is cancelled after a pause
  scope,        // cancel_scope, whose result becomes a value
  bounded,      // timeout
  bounded_or,   // with_timeout
  bounded_try,  // try_timeout, whose result becomes a value, or its error is thrown
  all,          // gather
  all_keep_going,
  all_results,  // gather(return_exceptions), then a masked pause
  all_limited,  // gather_limited
  first,        // race
  first_good,   // any
  staggered,    // staggered_race
  retried,      // retry: the children are the attempts
  group,        // task_group: the first child is the body
  stream,       // as_completed
  kinds,
};
inline constexpr const char* kNames[] = {"give",           "fail",
                                         "give_up",        "stubborn",
                                         "in_turn",        "swallow",
                                         "bitter",         "mask",
                                         "shield",         "spawn",
                                         "finally",        "with_token",
                                         "cancel_scope",   "timeout",
                                         "with_timeout",   "try_timeout",
                                         "gather",         "gather_keep_going",
                                         "gather_results", "gather_limited",
                                         "race",           "any",
                                         "staggered_race", "retry",
                                         "task_group",     "as_completed"};
static_assert(std::size(kNames) == static_cast<std::size_t>(Kind::kinds));

struct Node {
  Kind kind = Kind::give;
  int id = 0;
  std::int64_t pause = 0;  // nanoseconds
  bool throws = false;     // what answers, or cleans up
  bool yields = false;     // before it begins
  std::size_t limit = 1;
  std::vector<Node> children;
};

inline std::ostream& operator<<(std::ostream& out, const Node& node) {
  out << kNames[static_cast<int>(node.kind)] << "#" << node.id << "(" << node.pause
      << (node.throws ? "!" : "");
  if (node.kind == Kind::all_limited) out << ", limit " << node.limit;
  for (const Node& child : node.children) out << ", " << child;
  return out << ")";
}

/// These answer a cancellation at once with an error that came before, so two of them could do so
/// at one instant.
inline bool answers_at_once(Kind kind) {
  return kind == Kind::all_keep_going || kind == Kind::first_good || kind == Kind::staggered;
}
/// Hence they stand within a `finally` only.
inline bool is_definite(const Node& node, const Node* parent = nullptr) {
  if (answers_at_once(node.kind) && (parent == nullptr || parent->kind != Kind::cleaned))
    return false;
  return std::all_of(node.children.begin(), node.children.end(),
                     [&](const Node& child) { return is_definite(child, &node); });
}

/// Makes programs out of choices: those of a generator, or of a fuzzer.
template <class Choices>
class Author {
 public:
  explicit Author(Choices choices) : random_(choices) {}
  Node node(int depth) {
    Node made = any_node(depth);
    if (!answers_at_once(made.kind)) return made;
    Node cleaned;
    cleaned.kind = Kind::cleaned;
    cleaned.id = ++ids_;
    cleaned.pause = pause();
    cleaned.children.push_back(std::move(made));
    return cleaned;
  }

 private:
  // Long ones and short ones, so that each may be the longer one.
  std::int64_t pause() {
    return 1 + static_cast<std::int64_t>(
                   random_.below(std::uint64_t{1} << (42 + 3 * random_.below(5))));
  }
  Node any_node(int depth) {
    Node made;
    made.id = ++ids_;
    made.pause = pause();
    made.throws = random_.below(4) == 0;
    made.yields = random_.below(4) == 0;
    made.limit = 1 + random_.below(3);
    made.kind = depth == 0 || random_.below(8) == 0
                    ? (random_.below(2) == 0 ? Kind::give : static_cast<Kind>(random_.below(4)))
                    : static_cast<Kind>(random_.below(static_cast<std::uint64_t>(Kind::kinds)));
    if (made.kind <= Kind::stubborn) return made;
    std::size_t children = 1;
    if (made.kind == Kind::in_turn) children = 2;
    if (made.kind >= Kind::all) children = 1 + random_.below(4);
    for (std::size_t i = 0; i < children; ++i) made.children.push_back(node(depth - 1));
    if (made.kind == Kind::group) {  // the body: a leaf that does not give up by itself
      Node body = node(0);
      if (body.kind == Kind::give_up) body.kind = Kind::give;
      made.children.insert(made.children.begin(), body);
    }
    return made;
  }

  Choices random_;
  int ids_ = 0;
};

inline int code(const std::string& text) {
  std::uint32_t hash = 2166136261U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return static_cast<int>(hash & 0xffffff);
}
inline std::string value(int n) {
  return "v" + std::to_string(n);
}

// --- the oracle ---

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

/// What becomes of a node. The text: v<number>, e<number>, T (a timeout), c (cancelled), G{...} (a
/// group).
struct Fate {
  std::string text;
  std::int64_t end = 0;

  bool good() const { return text[0] == 'v'; }
  bool cancelled() const { return text[0] == 'c'; }
  bool error() const { return !good() && !cancelled(); }
  int number() const { return std::stoi(text.substr(1)); }
};

inline Fate fate_of(const Node& node, std::int64_t start, std::int64_t cancel);

inline std::vector<Fate> fates_of(const std::vector<Node>& children, std::int64_t start,
                                  std::int64_t cancel) {
  std::vector<Fate> fates;
  for (const Node& child : children) fates.push_back(fate_of(child, start, cancel));
  return fates;
}
inline std::int64_t last_end(const std::vector<Fate>& fates, std::int64_t start) {
  for (const Fate& fate : fates) start = std::max(start, fate.end);
  return start;
}
inline std::vector<const Fate*> by_completion(const std::vector<Fate>& fates) {
  std::vector<const Fate*> sorted;
  for (const Fate& fate : fates) sorted.push_back(&fate);
  std::sort(sorted.begin(), sorted.end(), [](const Fate* a, const Fate* b) {
    return std::pair(a->end, a) < std::pair(b->end, b);
  });
  return sorted;
}
/// The first error, else a cancellation, else null.
inline const Fate* first_failure(const std::vector<Fate>& fates) {
  const Fate* found = nullptr;
  for (const Fate* fate : by_completion(fates)) {
    if (fate->error()) return fate;
    if (fate->cancelled() && found == nullptr) found = fate;
  }
  return found;
}
inline std::string group_of(const std::vector<const Fate*>& fates) {
  std::string text;
  for (const Fate* fate : fates) {
    if (fate->error()) text += (text.empty() ? "" : " ") + fate->text;
  }
  return "G{" + text + "}";
}
inline std::string joined(const std::vector<Fate>& fates) {
  std::string text;
  for (const Fate& fate : fates) text += fate.text + ";";
  return text;
}

inline Fate gathered(const Node& node, std::int64_t start, std::int64_t cancel) {
  std::vector<Fate> fates = fates_of(node.children, start, cancel);
  if (node.kind == Kind::all_results)
    return {value(code(joined(fates))), last_end(fates, start) + node.pause};
  if (node.kind == Kind::all) {
    std::int64_t stop = cancel;
    for (const Fate& fate : fates) {
      if (!fate.good()) stop = std::min(stop, fate.end);
    }
    for (std::size_t i = 0; i < fates.size(); ++i) {
      if (fates[i].end > stop) fates[i] = fate_of(node.children[i], start, stop);
    }
  }
  const Fate* const failure = first_failure(fates);
  return {failure != nullptr ? failure->text : value(code(joined(fates))), last_end(fates, start)};
}

inline Fate gathered_limited(const Node& node, std::int64_t start, std::int64_t cancel) {
  struct Run {
    const Node* node;
    std::int64_t start;
  };
  std::vector<Run> runs;
  std::vector<Fate> fates;
  std::vector<std::int64_t> slots;
  for (const Node& child : node.children) {
    std::int64_t begin = start;
    if (slots.size() == node.limit) {
      const auto free = std::min_element(slots.begin(), slots.end());
      begin = *free;
      slots.erase(free);
    }
    if (begin >= cancel) break;
    runs.push_back({&child, begin});
    fates.push_back(fate_of(child, begin, cancel));
    slots.push_back(fates.back().end);
  }
  std::int64_t stop = cancel;
  for (const Fate& fate : fates) {
    if (!fate.good()) stop = std::min(stop, fate.end);
  }
  std::vector<Fate> begun;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].start >= stop) continue;
    begun.push_back(fates[i].end > stop ? fate_of(*runs[i].node, runs[i].start, stop) : fates[i]);
  }
  const std::int64_t end = last_end(begun, start);
  const Fate* const failure = first_failure(begun);
  if (failure != nullptr) return {failure->text, end};
  if (begun.size() < node.children.size()) return {"c", end};
  return {value(code(joined(begun))), end};
}

inline Fate raced(const Node& node, std::int64_t start, std::int64_t cancel) {
  const bool good_only = node.kind == Kind::first_good;
  std::vector<Fate> fates = fates_of(node.children, start, cancel);
  const Fate* winner = nullptr;
  for (const Fate& fate : fates) {
    const bool may_win = fate.good() || (!good_only && (fate.error() || fate.end < cancel));
    if (may_win && (winner == nullptr || fate.end < winner->end)) winner = &fate;
  }
  if (winner != nullptr) {
    for (std::size_t i = 0; i < fates.size(); ++i) {
      if (fates[i].end > winner->end)
        fates[i] = fate_of(node.children[i], start, std::min(cancel, winner->end));
    }
  }
  const std::int64_t end = last_end(fates, start);
  if (winner != nullptr && winner->good())
    return {value(code(std::to_string(winner - fates.data()) + ":" + winner->text)), end};
  if (winner != nullptr && winner->error()) return {winner->text, end};
  const Fate* const failure = first_failure(fates);
  if (!failure->error()) return {"c", end};
  return {good_only ? group_of(by_completion(fates)) : failure->text, end};
}

inline Fate staggered(const Node& node, std::int64_t start, std::int64_t cancel) {
  std::vector<std::int64_t> starts;
  std::vector<Fate> fates;
  std::vector<bool> seen;
  std::size_t winner = node.children.size();
  std::int64_t latest = start;
  const auto begin = [&](std::int64_t now) {
    const Node& child = node.children[starts.size()];
    starts.push_back(now);
    fates.push_back(fate_of(child, now, cancel));
    seen.push_back(false);
    latest = now;
  };
  begin(start);
  for (;;) {
    std::size_t next = fates.size();
    for (std::size_t i = 0; i < fates.size(); ++i) {
      if (!seen[i] && (next == fates.size() || fates[i].end < fates[next].end)) next = i;
    }
    const bool more = fates.size() < node.children.size();
    const std::int64_t ended = next < fates.size() ? fates[next].end : kNever;
    const std::int64_t due = more ? latest + node.pause : kNever;
    if (ended == kNever && due == kNever) break;
    if (std::min(ended, due) >= cancel) {
      if (ended == kNever) break;
      seen[next] = true;
      if (fates[next].good()) {
        winner = next;
        break;
      }
      if (std::all_of(seen.begin(), seen.end(), [](bool b) { return b; })) break;
      continue;
    }
    if (due < ended) {
      begin(due);
      continue;
    }
    seen[next] = true;
    if (fates[next].good()) {
      winner = next;
      break;
    }
    if (more) begin(ended);
  }
  const std::int64_t won = winner < fates.size() ? fates[winner].end : kNever;
  for (std::size_t i = 0; i < fates.size(); ++i) {
    if (fates[i].end > won) fates[i] = fate_of(node.children[i], starts[i], std::min(cancel, won));
  }
  const std::int64_t end = last_end(fates, start);
  if (winner < fates.size())
    return {value(code(std::to_string(winner) + ":" + fates[winner].text)), end};
  std::vector<const Fate*> in_order;
  bool failed = false;
  for (const Fate& fate : fates) {
    in_order.push_back(&fate);
    failed = failed || fate.error();
  }
  return {failed ? group_of(in_order) : "c", end};
}

inline Fate retried(const Node& node, std::int64_t start, std::int64_t cancel) {
  for (std::size_t i = 0;; ++i) {
    const Fate fate = fate_of(node.children[i], start, cancel);
    if (!fate.error() || i + 1 == node.children.size() || cancel <= fate.end) return fate;
    start = fate.end + node.pause;
    if (cancel <= start) return {"c", cancel};
  }
}

inline Fate grouped(const Node& node, std::int64_t start, std::int64_t cancel) {
  std::vector<Fate> fates = fates_of(node.children, start, cancel);
  std::int64_t stop = cancel;
  for (const Fate& fate : fates) {
    if (fate.error()) stop = std::min(stop, fate.end);
  }
  bool failed = false;
  bool interrupted = false;
  for (std::size_t i = 0; i < fates.size(); ++i) {
    if (fates[i].end > stop) fates[i] = fate_of(node.children[i], start, stop);
    failed = failed || fates[i].error();
    interrupted = interrupted || (fates[i].cancelled() && fates[i].end >= cancel);
  }
  const std::int64_t end = last_end(fates, start);
  if (failed) return {group_of(by_completion(fates)), end};
  if (interrupted) return {"c", end};
  return {fates[0].text, end};
}

inline Fate timed(const Node& node, std::int64_t start, std::int64_t cancel) {
  const std::int64_t due = start + node.pause;
  Fate fate = fate_of(node.children[0], start, std::min(cancel, due));
  const bool own = fate.cancelled() && fate.end >= due && cancel > fate.end;
  if (node.kind == Kind::bounded) return {own ? "T" : fate.text, fate.end};
  if (node.kind == Kind::bounded_or) return {own ? value(node.id) : fate.text, fate.end};
  if (own) return {value(7777), fate.end};
  if (fate.cancelled() && cancel > fate.end) return {value(8888), fate.end};
  return fate;
}

inline Fate fate_of(const Node& node, std::int64_t start, std::int64_t cancel) {
  const auto child = [&](std::size_t i) -> const Node& { return node.children[i]; };
  const bool is_point = node.kind <= Kind::give_up || node.kind >= Kind::bounded ||
                        node.kind == Kind::shielded || node.kind == Kind::spawned ||
                        node.kind == Kind::cancelled || node.kind == Kind::scope || node.yields;
  if (is_point && cancel <= start) return {"c", start};
  switch (node.kind) {
    case Kind::give:
    case Kind::fail:
    case Kind::give_up: {
      const std::int64_t end = start + node.pause;
      if (cancel <= end) return {"c", cancel};
      if (node.kind == Kind::give_up) return {"c", end};
      return {(node.kind == Kind::give ? "v" : "e") + std::to_string(node.id), end};
    }
    case Kind::stubborn:
      return {value(node.id), start + node.pause};
    case Kind::in_turn: {
      const Fate one = fate_of(child(0), start, cancel);
      if (!one.good()) return one;
      const Fate two = fate_of(child(1), one.end, cancel);
      if (!two.good()) return two;
      return {value(code(one.text + "," + two.text)), two.end};
    }
    case Kind::swallow:
    case Kind::bitter: {
      const Fate fate = fate_of(child(0), start, cancel);
      if (fate.good()) return fate;
      return {(node.kind == Kind::swallow ? "v" : "e") + std::to_string(node.id),
              fate.end + node.pause};
    }
    case Kind::mask:
      return fate_of(child(0), start, kNever);
    case Kind::shielded:
    case Kind::spawned: {
      const Fate fate = fate_of(child(0), start, kNever);
      return fate.end < cancel ? fate : Fate{"c", cancel};
    }
    case Kind::cleaned: {
      const Fate fate = fate_of(child(0), start, cancel);
      const std::int64_t end = fate.end + node.pause;
      if (!node.throws) return {fate.text, end};
      const std::string thrown = "e" + std::to_string(node.id);
      return {fate.error() ? "G{" + fate.text + " " + thrown + "}" : thrown, end};
    }
    case Kind::cancelled:
      return fate_of(child(0), start, std::min(cancel, start + node.pause));
    case Kind::scope: {
      const Fate fate = fate_of(child(0), start, std::min(cancel, start + node.pause));
      if (fate.cancelled() && cancel <= fate.end) return fate;
      return {value(code(fate.text)), fate.end};
    }
    case Kind::bounded:
    case Kind::bounded_or:
    case Kind::bounded_try:
      return timed(node, start, cancel);
    case Kind::all:
    case Kind::all_keep_going:
    case Kind::all_results:
      return gathered(node, start, cancel);
    case Kind::all_limited:
      return gathered_limited(node, start, cancel);
    case Kind::first:
    case Kind::first_good:
      return raced(node, start, cancel);
    case Kind::staggered:
      return staggered(node, start, cancel);
    case Kind::retried:
      return retried(node, start, cancel);
    case Kind::group:
      return grouped(node, start, cancel);
    case Kind::stream: {
      const std::vector<Fate> fates = fates_of(node.children, start, cancel);
      const std::int64_t end = last_end(fates, start);
      if (cancel <= end) return {"c", end};
      std::string text;
      for (const Fate* fate : by_completion(fates))
        text += std::to_string(fate - fates.data()) + ":" + fate->text + ";";
      return {value(code(text)), end};
    }
    default:
      throw std::logic_error("no such kind");
  }
}

/// Programs with a part less.
inline std::vector<Node> smaller(const Node& node) {
  std::vector<Node> found = node.children;
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    if (node.kind >= Kind::all && node.children.size() > 1 && (node.kind != Kind::group || i > 0)) {
      found.push_back(node);
      found.back().children.erase(found.back().children.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (node.kind == Kind::group && i == 0) continue;  // the body stays a leaf
    for (Node& child : smaller(node.children[i])) {
      found.push_back(node);
      found.back().children[i] = std::move(child);
    }
  }
  return found;
}

}  // namespace magpie::test
