// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/channel.h>
#include <magpie/detail/exception_ptr.h>

namespace magpie::detail {

std::exception_ptr make_channel_closed() noexcept {
  return make_error<ChannelClosedError>();
}

}  // namespace magpie::detail
