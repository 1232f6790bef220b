"""What the peers share: endpoints as the examples print them, and waiting that ends."""

import socket
import sys
from urllib.parse import urlsplit

DEADLINE = 20.0


def connect(endpoint):
    """A connected socket for tcp://, udp:// or unix://."""
    url = urlsplit(endpoint)
    if url.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(url.path)
        return sock
    if url.scheme == "tcp":
        return socket.create_connection((url.hostname, url.port), timeout=DEADLINE)
    if url.scheme == "udp":
        family = socket.AF_INET6 if ":" in url.hostname else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.settimeout(DEADLINE)
        sock.connect((url.hostname, url.port))
        return sock
    raise SystemExit(f"no such transport: {endpoint}")


def expect(seen, wanted, what):
    """Ends the program where something is not as it has to be."""
    if seen != wanted:
        short = [repr(value)[:120] for value in (seen, wanted)]
        sys.exit(f"{what}: got {short[0]}, wanted {short[1]}")
