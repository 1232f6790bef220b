"""asyncio, on its own loop or on uvloop's: a protocol that answers all whole messages of a read in one write.

echo.py asyncio|uvloop MODE PATH
"""

import asyncio
import os
import socket
import struct
import sys
import threading

LONGEST = 1 << 20


class Echo(asyncio.Protocol):
    def __init__(self):
        self.part = b""

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

    def messages(self, data):
        """The whole ones; keeps what is left."""
        start = 0
        while len(data) - start >= 4:
            (length,) = struct.unpack_from(">I", data, start)
            if length > LONGEST:
                self.transport.abort()
                return
            end = start + 4 + length
            if end > len(data):
                break
            yield data[start + 4 : end]
            start = end
        self.part = data[start:]

    def data_received(self, data):
        answers = []
        for message in self.messages(self.part + data):
            answers += (struct.pack(">I", len(message)), message)
        if answers:
            self.transport.write(b"".join(answers))


class EchoDatagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


def ready(address):
    """Tells where it listens. From now on it ends with its standard input."""
    print(address, flush=True)
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()


async def serve(mode, path):
    loop = asyncio.get_running_loop()
    if mode == "unix":
        await loop.create_unix_server(Echo, path, backlog=4096)
        ready(path)
    elif mode == "udp":
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        datagrams.bind(("127.0.0.1", 0))
        datagrams.setblocking(False)
        await loop.create_datagram_endpoint(EchoDatagrams, sock=datagrams)
        ready("%s:%d" % datagrams.getsockname())
    else:
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        await loop.create_server(Echo, sock=listener, backlog=4096)
        ready("%s:%d" % listener.getsockname())
    await asyncio.Event().wait()


if __name__ == "__main__":
    which, mode, path = sys.argv[1:]
    if which == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(serve(mode, path))
