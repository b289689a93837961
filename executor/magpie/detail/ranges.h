// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The concepts and the access of std::ranges, without the views: <ranges> is the dearest header
// of the standard library for a compiler, and what takes a range needs no adaptor. libstdc++ needs
// them for <string_view>, and has them from there.

#include <iterator>
#include <string_view>
#if !defined(_GLIBCXX_RELEASE) || _GLIBCXX_RELEASE < 12
#include <ranges>
#endif
