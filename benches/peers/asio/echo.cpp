// Boost.Asio, C++20 coroutines on one thread: whole messages of a read leave in one write. echo MODE PATH
#include <utility> // which Boost 1.74 forgets

#include <boost/asio.hpp>
#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace asio = boost::asio;
using asio::awaitable, asio::use_awaitable;

constexpr std::size_t read_size = 64 << 10, longest = 1 << 20;
constexpr int backlog = 4096;

// Bytes of whole messages at the start.
std::size_t whole(const char *bytes, std::size_t length) {
    std::size_t end = 0;
    while (length - end >= 4) {
        std::uint32_t prefix;
        std::memcpy(&prefix, bytes + end, 4);
        prefix = ntohl(prefix);
        if (prefix > longest) throw std::length_error("a message that is too long");
        if (length - end - 4 < prefix) break;
        end += 4 + prefix;
    }
    return end;
}

template <typename Socket>
awaitable<void> echo(Socket socket) try {
    std::size_t size = read_size, filled = 0;
    std::unique_ptr<char[]> input(new char[size]); // not zeroed: no memory before it is used
    std::vector<char> output;
    for (;;) {
        if (filled == size) {
            std::unique_ptr<char[]> larger(new char[size *= 2]);
            std::memcpy(&larger[0], &input[0], filled);
            input = std::move(larger);
        }
        filled += co_await socket.async_read_some(asio::buffer(&input[filled], size - filled), use_awaitable);
        std::size_t end = whole(&input[0], filled);
        if (end == 0) continue;
        output.assign(&input[0], &input[end]);
        std::memmove(&input[0], &input[end], filled - end);
        filled -= end;
        co_await asio::async_write(socket, asio::buffer(output), use_awaitable);
    }
} catch (const std::exception &) {
    // the peer is gone
}

template <typename Acceptor>
awaitable<void> serve(Acceptor acceptor) {
    for (;;) {
        auto socket = co_await acceptor.async_accept(use_awaitable);
        if constexpr (std::is_same_v<Acceptor, asio::ip::tcp::acceptor>)
            socket.set_option(asio::ip::tcp::no_delay(true));
        asio::co_spawn(acceptor.get_executor(), echo(std::move(socket)), asio::detached);
    }
}

template <typename Acceptor>
Acceptor listener(asio::io_context &context, const typename Acceptor::endpoint_type &endpoint) {
    Acceptor acceptor(context);
    acceptor.open(endpoint.protocol());
    acceptor.bind(endpoint);
    acceptor.listen(backlog);
    return acceptor;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    asio::io_context context(1);
    if (std::string(arguments[1]) == "unix") {
        using local = asio::local::stream_protocol;
        auto acceptor = listener<local::acceptor>(context, local::endpoint(arguments[2]));
        std::cout << arguments[2] << std::endl;
        asio::co_spawn(context, serve(std::move(acceptor)), asio::detached);
    } else {
        using asio::ip::tcp;
        auto acceptor = listener<tcp::acceptor>(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
        std::cout << acceptor.local_endpoint() << std::endl;
        asio::co_spawn(context, serve(std::move(acceptor)), asio::detached);
    }
    // it ends with its standard input
    std::thread([] {
        char byte;
        if (read(0, &byte, 1) <= 0) _exit(0);
    }).detach();
    context.run();
}
