// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/channel.h>

namespace magpie::detail {

std::exception_ptr make_channel_closed() noexcept {
  return std::make_exception_ptr(ChannelClosedError());
}

}  // namespace magpie::detail
