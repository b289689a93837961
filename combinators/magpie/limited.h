// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// gather_limited and map_concurrent: many pieces of work, only so many at a time.
//
//     std::vector<Page> pages = co_await gather_limited(10, std::move(tasks));
//     auto fetch_one = [](const Url& url) { return fetch(url); };
//     std::vector<Page> pages = co_await map_concurrent(urls, 10, fetch_one);
//
//   gather_limited(limit, tasks)      gather with at most `limit` of them running; they start in
//                                     the order of the input. Takes what gather takes, a pack or a
//                                     range, and gather's policies before the limit
//   map_concurrent(range, limit, fn)  fn(item) -> Task<R> for each item; the results in the order
//                                     of the items. At most `limit` tasks exist at a time, so the
//                                     range may be as long as it likes
//
// Failures and cancellation are gather's: the first failure cancels what runs, which is waited for,
// nothing more is started, and it is rethrown; a child that ended cancelled on its own counts as
// one, a real error goes before a cancellation. If the caller is cancelled, so is what runs; if
// everything has given its value nevertheless, these are returned, else CancelledError. A limit of
// 0: std::invalid_argument. Nothing to do, in a range that knows its size: an empty result
// without suspending, and no cancellation point; else one on entry.
//
// The range of map_concurrent is referenced if it is an lvalue, moved in if it is an rvalue. Each
// item lives until its task has ended: the elements of a range that can be read again stay where
// they are; what a range makes on the way, or reads just once, is kept beside its task. fn gets an
// element as it is; as an rvalue, where it can take one, if nobody else has it: of a container that
// was moved in, or made on the way. The range is read, and fn called, by one thread at a time, in
// order, just when the next task may start; not always by the same thread. A range that throws, or
// an fn that does, counts as a failure. fn is moved in, or referenced if an lvalue.
//
// Starts when awaited; resumes where it was awaited. A task that ends hands over to the next one
// without a queue.

#include <cstddef>
#include <utility>

#include <magpie/detail/gather_limited.h>
#include <magpie/detail/gathered.h>
#include <magpie/detail/map_concurrent.h>

namespace magpie {

/// gather with at most `limit` running at a time; see the head of the file.
template <class... A>
requires detail::Gatherable<A...>
auto gather_limited(std::size_t limit, A&&... tasks) {
  return detail::gather_limited_as<detail::FailFast>(limit, std::forward<A>(tasks)...);
}
/// Lets the others go on after a failure, then throws the first one.
template <class... A>
requires detail::Gatherable<A...>
auto gather_limited(KeepGoing, std::size_t limit, A&&... tasks) {
  return detail::gather_limited_as<KeepGoing>(limit, std::forward<A>(tasks)...);
}
/// A Result<T> for each, in input order; what a cancellation of the caller kept from starting is
/// cancelled.
template <class... A>
requires detail::Gatherable<A...>
auto gather_limited(ReturnExceptions, std::size_t limit, A&&... tasks) {
  return detail::gather_limited_as<ReturnExceptions>(limit, std::forward<A>(tasks)...);
}

/// fn(item) -> Task<R> for each item of the range, at most `limit` at a time; see the head of the
/// file.
template <class R, class F>
requires detail::Mappable<R, F>
auto map_concurrent(R&& range, std::size_t limit, F&& fn) {
  return detail::MapConcurrent<R, F>(std::forward<R>(range), limit, std::forward<F>(fn));
}

}  // namespace magpie
