// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: what is sent through a channel is an object that can be moved

#include <magpie/channel.h>

#ifdef MAGPIE_COMPILE_FAIL
magpie::Channel<int&> channel(1);
#else
magpie::Channel<int*> channel(1);
#endif
