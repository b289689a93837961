#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""Rules of this tree that no compiler checks.

lint.py ROOT         checks the tree, prints file:line: rule: what to do, ends with 1 if anything was found
lint.py --self-test  checks that each rule finds what it must and leaves alone what it must

A line of a test, an example or a benchmark may break a rule on purpose: `// lint-allow: RULE` on it or on the line
before. In executor/ and combinators/ there are no exceptions.
"""

import os
import re
import sys

FOLDERS = ("executor", "combinators", "bench", "tests", "examples", "cmake", ".ci")
SINGLE_FILES = ("CMakeLists.txt", "dev", "README.md", "BUILD.md", "CHANGELOG.md")
CODE = (".h", ".cc")
WITH_HEAD = CODE + (".cmake", ".py", ".sh", ".supp")
CHECKED = WITH_HEAD + (".md",)
ATOMIC_HEADER = "executor/magpie/detail/atomic.h"
PEER_HEADERS = ("tbb_executor.h", "status.h", "asio.h", "asio_operation.h", "asio_spawn.h", "mpi.h")

STD_HEADERS = set(
    """algorithm any array atomic barrier bit bitset charconv chrono compare complex concepts condition_variable
    coroutine deque exception execution filesystem format forward_list fstream functional future initializer_list
    iomanip ios iosfwd iostream istream iterator latch limits list locale map memory memory_resource mutex new
    numbers numeric optional ostream queue random ranges ratio regex scoped_allocator semaphore set shared_mutex
    source_location span sstream stack stdexcept stop_token streambuf string string_view strstream syncstream
    system_error thread tuple type_traits typeindex typeinfo unordered_map unordered_set utility valarray variant
    vector version cassert cctype cerrno cfenv cfloat cinttypes climits clocale cmath csetjmp csignal cstdarg cstddef
    cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype""".split()
)

# What the public headers do without, as each makes <magpie/magpie.h> up to a tenth dearer, and the headers that no
# public one includes (or that include it only where they must).
DEAR_HEADERS = frozenset("algorithm condition_variable filesystem future iostream random ranges regex sstream".split())
MAY_BE_DEAR = frozenset(
    f"executor/magpie/{name}.h"
    for name in ("detail/ranges", "detail/blocking_pool", "detail/timers", "testing/simulated_executor")
)

FENCE = re.compile(
    r"""(?<!rl::)\batomic_(thread|signal)_fence\b      # rl:: is Relacy's model of one
    | _mm_pause\b | _mm_[lms]fence\b | __builtin_ia32_\w*(pause|fence)\b | __builtin_arm_(yield|dmb|dsb|isb)\b
    | __sync_synchronize\b | __atomic_(thread|signal)_fence\b | __yield\s*\(
    | \basm\b[^;]*"[^"]*\b(pause|yield|[lms]fence|dmb|isb)\b""",
    re.VERBOSE,
)
CONDITION = re.compile(r"\b(if(?:\s+constexpr)?|while|switch)\s*\(")


def without_comments_and_strings(text, keep_strings=False):
    """The same text, same line breaks, with comments (and the insides of string literals) blanked out."""

    def blank(match):
        token = match.group(0)
        if token.startswith('"') or token.startswith("'"):
            return token if keep_strings else token[0] + " " * (len(token) - 2) + token[-1]
        return re.sub(r"[^\n]", " ", token)

    return re.sub(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""", blank, text,
                  flags=re.DOTALL)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def co_await_conditions(code):
    """Lines where the condition of an if, while or switch holds a co_await: g++ before 13 miscompiles them."""
    for match in CONDITION.finditer(code):
        depth, end = 1, match.end()
        while end < len(code) and depth:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        inside = re.search(r"\bco_await\b", code[match.end():end])
        if inside:
            yield line_of(code, match.end() + inside.start())


def findings(path, text):
    """(line, rule, advice) for one file; path is relative to the root, with '/'."""
    extension = os.path.splitext(path)[1]
    name = os.path.basename(path)
    library = path.startswith(("executor/", "combinators/"))

    if extension in WITH_HEAD or name == "CMakeLists.txt" or path == "dev":
        head = "\n".join(text.splitlines()[:3])
        if "SPDX-FileCopyrightText:" not in head or "SPDX-License-Identifier: Apache-2.0" not in head:
            yield 1, "spdx", "the file must begin with the two SPDX lines"
    for match in re.finditer(r"^(<<<<<<<|>>>>>>>) ", text, re.MULTILINE):
        yield line_of(text, match.start()), "conflict", "a merge left its markers: choose, and remove them"
    if extension not in CODE:
        return

    code = without_comments_and_strings(text)
    if extension == ".h" and not re.search(r"^#pragma once$", text, re.MULTILINE):
        yield 1, "pragma-once", "a header needs #pragma once"
    for line in co_await_conditions(code):
        yield line, "co-await-condition", "g++ before 13 miscompiles this: bool b = co_await f(); if (b) ..."
    for match in re.finditer(r"\bcoro_only_destroy_when_complete\b", code):
        yield line_of(code, match.start()), "coro-attribute", "it skips the destructors of a destroyed frame's locals"
    if path != ATOMIC_HEADER:
        for match in FENCE.finditer(without_comments_and_strings(text, keep_strings=True)):
            yield line_of(text, match.start()), "fence", "fences and pauses only through <magpie/detail/atomic.h>"
    if library and extension == ".h" and "/magpie/" in path and name not in PEER_HEADERS:
        for match in re.finditer(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.MULTILINE):
            kind, header = match.groups()
            if header in DEAR_HEADERS and path not in MAY_BE_DEAR:
                advice = f"users' compilers pay for <{header}>: in a .cc file, or as <magpie/detail/ranges.h> does it"
                yield line_of(text, match.start(2)), "dear-include", advice
            if kind == "<" and (header in STD_HEADERS or header.startswith(("magpie/", "sanitizer/"))):
                if os.path.basename(header) not in PEER_HEADERS:
                    continue
            advice = f"a core header includes only the standard library and <magpie/...>, not {header}"
            yield line_of(text, match.start(2)), "core-include", advice


def allowed(path, lines, line, rule):
    if path.startswith(("executor/", "combinators/")):
        return False
    near = lines[max(line - 2, 0):line]
    return any(re.search(r"//\s*lint-allow:\s*" + re.escape(rule) + r"\b", text) for text in near)


def check(path, text):
    lines = text.splitlines()
    return [f for f in findings(path, text) if not allowed(path, lines, f[0], f[1])]


def check_tree(root):
    paths = [path for path in SINGLE_FILES if os.path.exists(os.path.join(root, path))]
    for folder in FOLDERS:
        for parent, _, names in os.walk(os.path.join(root, folder)):
            paths += [os.path.relpath(os.path.join(parent, name), root).replace(os.sep, "/") for name in names]
    found = 0
    for path in sorted(paths):
        if not path.endswith(CHECKED) and os.path.basename(path) not in SINGLE_FILES:
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            for line, rule, advice in check(path, file.read()):
                print(f"{path}:{line}: {rule}: {advice}")
                found += 1
    print(f"{len(paths)} files, {found} findings")
    return 1 if found or not paths else 0


HEAD = "// SPDX-FileCopyrightText: 2026 The magpie authors\n// SPDX-License-Identifier: Apache-2.0\n"
SAMPLES = [  # path, text below the head, the rules that must speak
    ("executor/src/a.cc", "Task f() { if (co_await g()) co_return; }", ["co-await-condition"]),
    ("executor/src/a.cc", "Task f() { while (!(x && \n co_await g())) {} }", ["co-await-condition"]),
    ("executor/src/a.cc", "Task f() { switch (co_await g()) {} }", ["co-await-condition"]),
    ("executor/src/a.cc", "Task f() { if (x) co_await g(); }", []),
    ("executor/src/a.cc", "// if (co_await g())\n", []),
    ("executor/src/a.cc", 'auto s = "if (co_await g())";', []),
    ("tests/a/a_test.cc", "// lint-allow: co-await-condition\nif (co_await g()) {}", []),
    ("executor/src/a.cc", "// lint-allow: co-await-condition\nif (co_await g()) {}", ["co-await-condition"]),
    ("executor/src/a.cc", "std::atomic_thread_fence(x);", ["fence"]),
    ("executor/src/a.cc", "_mm_pause();", ["fence"]),
    ("combinators/src/a.cc", "__builtin_ia32_pause();", ["fence"]),
    ("bench/micro/a.cc", 'asm volatile("pause" ::: "memory");', ["fence"]),
    ("executor/src/a.cc", 'asm volatile("");', []),
    ("tests/model/a_test.cc", "rl::atomic_thread_fence(rl::mo_seq_cst);", []),
    (ATOMIC_HEADER, "#pragma once\nstd::atomic_thread_fence(x); __builtin_ia32_pause();", []),
    ("executor/magpie/a.h", "#pragma once\n#include <vector>\n#include <magpie/task.h>", []),
    ("executor/magpie/a.h", "#pragma once\n#include <tbb/task_arena.h>", ["core-include"]),
    ("combinators/magpie/detail/a.h", "#pragma once\n#include <algorithm>", ["dear-include"]),
    ("executor/magpie/detail/ranges.h", "#pragma once\n#include <ranges>", []),
    ("combinators/src/a.cc", "#include <algorithm>", []),
    ("combinators/magpie/detail/a.h", "#pragma once\n#include <absl/status/status.h>", ["core-include"]),
    ("executor/magpie/a.h", "#pragma once\n#include <pthread.h>", ["core-include"]),
    ("executor/magpie/a.h", '#pragma once\n#include "task.h"', ["core-include"]),
    ("executor/magpie/a.h", "#pragma once\n#include <magpie/status.h>", ["core-include"]),
    ("executor/magpie/tbb_executor.h", "#pragma once\n#include <tbb/task_arena.h>", []),
    ("executor/src/a.cc", "#include <pthread.h>", []),
    ("executor/magpie/a.h", "#include <vector>", ["pragma-once"]),
    ("executor/magpie/a.h", "#pragma once\nstruct [[clang::coro_only_destroy_when_complete]] A;", ["coro-attribute"]),
]


def self_test():
    failures = 0
    samples = [(path, HEAD + text, rules) for path, text, rules in SAMPLES]
    samples += [("executor/src/a.cc", "int x;\n", ["spdx"]), ("cmake/a.cmake", "set(x 1)\n", ["spdx"])]
    samples += [("bench/a.md", "a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> d\n", ["conflict", "conflict"]), ("a.md", "b\n=======\n", [])]
    for path, text, expected in samples:
        rules = [rule for _, rule, _ in check(path, text)]
        if rules != expected:
            print(f"{path}: expected {expected}, found {rules} in:\n{text}")
            failures += 1
    print(f"{len(samples)} samples, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(self_test() if sys.argv[1] == "--self-test" else check_tree(sys.argv[1]))
