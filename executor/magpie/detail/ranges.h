// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The concepts and the access of std::ranges, without the views: <ranges> is the dearest header
// of the standard library for a compiler, and what takes a range needs no adaptor. libstdc++ keeps
// them in a header of their own, which <string> and <vector> have read already.

#include <iterator>
#if __has_include(<bits/ranges_base.h>)
#include <bits/ranges_base.h>
#else
#include <ranges>
#endif
