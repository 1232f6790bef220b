"""Talks to the example `echo`, over each endpoint given: python3 echo_peer.py tcp://127.0.0.1:9000 ...

Python 3 and its standard library only.
"""

import socket
import struct
import sys
import threading

from peer import connect, expect

MIB = 1 << 20
SIZES = [0, 1, 64 << 10, MIB - 4, MIB]
DATAGRAMS = [0, 1, 1200, 9000, 60_000]


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


def exactly(sock, size):
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(size - len(data), 1 << 16))
        if not part:
            sys.exit(f"the server ended after {len(data)} of {size} bytes")
        data += part
    return bytes(data)


def message(sock):
    (size,) = struct.unpack(">I", exactly(sock, 4))
    return exactly(sock, size)


def pattern(size):
    return bytes(i * 7 % 251 for i in range(min(size, 5020))) * (size // 5020 + 1)


def stream(endpoint):
    with connect(endpoint) as sock:
        for size in SIZES:
            payload = pattern(size)[:size]
            sock.sendall(frame(payload))
            expect(message(sock), payload, f"{endpoint}, {size} bytes")

    # a hundred messages at once, then the end of this side: the replies come all the same
    payloads = [f"message {i} ".encode() * i for i in range(100)]
    with connect(endpoint) as sock:
        sock.sendall(b"".join(map(frame, payloads)))
        sock.shutdown(socket.SHUT_WR)
        for payload in payloads:
            expect(message(sock), payload, f"{endpoint}, pipelined")
        expect(sock.recv(1), b"", f"{endpoint}, after the half close")

    # byte by byte
    with connect(endpoint) as sock:
        for byte in frame(b"slowly"):
            sock.sendall(bytes([byte]))
        expect(message(sock), b"slowly", f"{endpoint}, byte by byte")

    # a claim of 4 GiB ends this connection, and no other
    with connect(endpoint) as sock, connect(endpoint) as other:
        sock.sendall(b"\xff\xff\xff\xff")
        expect(sock.recv(1), b"", f"{endpoint}, after a claim of 4 GiB")
        other.sendall(frame(b"still here"))
        expect(message(other), b"still here", f"{endpoint}, the other connection")


def datagrams(endpoint):
    with connect(endpoint) as sock:
        for size in DATAGRAMS:
            payload = pattern(size)[:size]
            for _ in range(3):  # a datagram may get lost
                sock.send(payload)
                sock.settimeout(5)
                try:
                    reply = sock.recv(1 << 16)
                    break
                except TimeoutError:
                    continue
            else:
                sys.exit(f"{endpoint}: no reply to {size} bytes")
            expect(reply, payload, f"{endpoint}, {size} bytes")


def main():
    endpoints = sys.argv[1:]
    if not endpoints:
        sys.exit(__doc__)
    for endpoint in endpoints:
        (datagrams if endpoint.startswith("udp:") else stream)(endpoint)
        print(f"ok: {endpoint}")

    # and all at once
    failed = []

    def run(endpoint):
        try:
            (datagrams if endpoint.startswith("udp:") else stream)(endpoint)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=[endpoint]) for endpoint in endpoints for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit(str(failed[0]))
    print(f"ok: {len(threads)} peers at once")


main()
