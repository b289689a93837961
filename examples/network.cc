// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A service behind sockets: one thread does its I/O, by Asio, and all cores answer the requests.
// Each connection is a task; the service is a group of them, and ends by a cancellation. Link
// magpie::asio.

#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read_until.hpp>
#include <asio/write.hpp>

#include <magpie/asio.h>
#include <magpie/magpie.h>

namespace {

using namespace magpie;
using namespace std::chrono_literals;

using asio::ip::tcp;

bool is_prime(std::uint64_t n) {
  for (std::uint64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return n >= 2;
}

Task<std::uint64_t> primes_below(std::uint64_t limit) {
  auto count = [](std::uint64_t n) { return is_prime(n) ? std::uint64_t{1} : std::uint64_t{0}; };
  co_return co_await parallel_reduce(std::uint64_t{0}, limit, 0, std::uint64_t{0}, count,
                                     std::plus<>());
}

Task<std::string> answer(std::string request) {
  auto primes = timeout(primes_below(std::stoull(request)), 5s);
  co_return std::to_string(co_await std::move(primes)) + "\n";
}

Task<void> serve(tcp::socket client) {
  try {
    for (std::string received;;) {
      auto buffer = asio::dynamic_buffer(received, 4096);  // longer lines are refused
      auto line = asio::async_read_until(client, buffer, '\n', use_task);
      const std::size_t size = co_await timeout(std::move(line), 60s);
      const std::string reply = co_await answer(received.substr(0, size));
      received.erase(0, size);
      auto written = asio::async_write(client, asio::buffer(reply), use_task);
      co_await timeout(std::move(written), 60s);
    }
  } catch (const std::exception& error) {  // the end of this connection, not of the service
    std::fprintf(stderr, "a client is gone: %s\n", error.what());
  }
}

Task<void> accept(tcp::acceptor acceptor) {
  co_await task_group([&](TaskGroup& clients) -> Task<void> {
    for (;;) {
      tcp::socket client = co_await acceptor.async_accept(use_task);
      clients.spawn(serve(std::move(client)));
    }
  });
}

Task<std::string> ask(tcp::endpoint service, tcp::socket socket, std::string question) {
  co_await socket.async_connect(service, use_task);
  co_await asio::async_write(socket, asio::buffer(question), use_task);
  std::string reply;
  co_await asio::async_read_until(socket, asio::dynamic_buffer(reply), '\n', use_task);
  co_return question.substr(0, question.size() - 1) + ": " + reply;
}

}  // namespace

int main() {
  IoThread io;                   // before the executor, which ends its tasks first
  WorkStealingExecutor workers;  // as many as there are cores
  tcp::acceptor acceptor(io.context(), tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const tcp::endpoint service = acceptor.local_endpoint();
  JoinHandle<> server = workers.spawn(accept(std::move(acceptor)), "server");

  auto socket = [&] { return tcp::socket(io.context()); };
  auto [few, many] =
      workers.run(gather(ask(service, socket(), "100\n"), ask(service, socket(), "1000000\n")));
  std::printf("primes below %sprimes below %s", few.c_str(), many.c_str());

  server.cancel();  // and so its connections, and their reads
  std::printf("the server was cancelled: %s\n", server.wait().is_cancelled() ? "yes" : "no");
}
