// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A service that speaks Asio and links magpie::asio.
#include <magpie/asio.h>
#include <asio/steady_timer.hpp>

int main() {
  magpie::IoThread io;
  asio::steady_timer timer(io.context(), std::chrono::milliseconds(1));
  magpie::WorkStealingExecutor workers({.threads = 1});
  workers.run(timer.async_wait(magpie::use_task));
}
