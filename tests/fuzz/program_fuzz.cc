// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// The bytes are the choices from which a program over the combinators is made
// (tests/stress/oracle.h). It must end as the oracle says, in two orders.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>

#include <stress/oracle_programs.h>

#include "bytes.h"

namespace magpie::test {
namespace {

void check(const Program& program) {
  for (std::uint64_t order = 1; order <= 2; ++order) {
    const Fate seen = simulate(program, order);
    if (seen.text == program.expected.text && seen.end == program.expected.end) continue;
    std::cerr << seen.text << " at " << seen.end << ", but the oracle says "
              << program.expected.text << " at " << program.expected.end << "\ncancelled at "
              << (program.cancel == kNever ? -1 : program.cancel) << ": " << program.root << "\n";
    std::abort();
  }
}

}  // namespace
}  // namespace magpie::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace magpie::test;
  Bytes bytes(data, size);
  std::int64_t cancel = kNever;
  if (bytes.below(2) == 0) {
    cancel =
        1 + static_cast<std::int64_t>(bytes.below(std::uint64_t{1} << (42 + 3 * bytes.below(5))));
  }
  Author<Bytes&> author(bytes);
  check(Program(author.node(4), cancel));
  return 0;
}
