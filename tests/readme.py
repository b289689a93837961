#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""The code of the documents is code that the tests run: the README's first program, with its output, and the guide's blocks."""

import pathlib
import re
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
guide = "".join((root / "examples" / name).read_text() for name in ("guide.cc", "network.cc", "halo.cc"))
blocks = re.findall(r"```cpp\n(.*?)```", (root / "docs" / "guide.md").read_text(), re.DOTALL)
if not blocks:
    missing.append("docs/guide.md has no code")
for block in blocks:
    if block not in guide:
        missing.append("docs/guide.md has code that none of examples/guide.cc, network.cc and halo.cc has as it is:\n" + block)
print("\n".join(missing) or "the documents quote what is tested")
sys.exit(bool(missing))
