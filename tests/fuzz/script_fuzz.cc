// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// The bytes are the choices from which a script is made: tasks that use the primitives, time out
// and cancel each other (tests/stress/script.h). It must end as the oracle says, in two orders.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>

#include <stress/script_programs.h>

#include "bytes.h"

namespace magpie::test {
namespace {

void print(const char* who, const Story& story) {
  std::cerr << who << "\n";
  for (const std::string& line : story) std::cerr << "  " << line << "\n";
}

void check(const Script& script) {
  const Story expected = ScriptOracle(script).tell();
  for (std::uint64_t order = 1; order <= 2; ++order) {
    const Story seen = simulate_script(script, order);
    if (seen == expected) continue;
    print("what happened:", seen);
    print("what the oracle says:", expected);
    std::cerr << script;
    std::abort();
  }
}

}  // namespace
}  // namespace magpie::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace magpie::test;
  Bytes bytes(data, size);
  ScriptAuthor<Bytes&> author(bytes);
  check(author.script());
  return 0;
}
