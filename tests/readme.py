#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""The README's first program is examples/hello.cc, and its output the one that the tests compare."""

import pathlib
import sys

root = pathlib.Path(sys.argv[1])
readme = (root / "README.md").read_text()
source = (root / "examples" / "hello.cc").read_text().split("// [readme]\n")[1]
output = (root / "examples" / "hello.expected").read_text()
missing = []
if "```cpp\n" + source + "```\n" not in readme:
    missing.append("README.md does not quote examples/hello.cc between its [readme] markers as it is")
if "```\n" + output + "```\n" not in readme:
    missing.append("README.md does not quote examples/hello.expected as it is")
print("\n".join(missing) or "README.md quotes what is tested")
sys.exit(bool(missing))
