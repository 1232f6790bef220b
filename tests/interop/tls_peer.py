"""Talks to the example `tls` with Python's ssl and with curl:

    python3 tls_peer.py chain.pem tls://127.0.0.1:9443 tcp://127.0.0.1:9025
"""

import socket
import ssl
import subprocess
import sys
from urllib.parse import urlsplit

from peer import DEADLINE, expect

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def context(chain, version):
    tls = ssl.create_default_context(cafile=chain)
    tls.minimum_version = tls.maximum_version = version
    return tls


def echoes(sock, reader):
    for line in ("hello\n", "x" * 10_000 + "\n", "\n"):
        sock.sendall(line.encode())
        expect(reader.readline(), line, "the echo")


def direct(chain, port):
    for name, version in VERSIONS.items():
        raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        with context(chain, version).wrap_socket(raw, server_hostname="localhost") as sock:
            expect(sock.version(), name, "the version")
            echoes(sock, sock.makefile("r", encoding="utf-8", newline="\n"))
            # says close_notify, and waits for the server's
            sock.unwrap().close()
        print(f"ok: {name}, and a clean end")


def upgraded(chain, port):
    for name, version in VERSIONS.items():
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw:
            raw.sendall(b"STARTTLS\n")
            expect(raw.recv(100), b"go ahead\n", "the answer to STARTTLS")
            with context(chain, version).wrap_socket(raw, server_hostname="localhost") as sock:
                echoes(sock, sock.makefile("r", encoding="utf-8", newline="\n"))
        print(f"ok: {name} after STARTTLS")


def refused(chain, port):
    # another authority, and another name
    for tls, host in ((ssl.create_default_context(), "localhost"), (ssl.create_default_context(cafile=chain), "other")):
        raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        try:
            tls.wrap_socket(raw, server_hostname=host)
            sys.exit(f"a client took a certificate that is not for {host}")
        except ssl.SSLCertVerificationError:
            raw.close()
    print("ok: a client that does not trust the certificate goes away")


def curl(chain, port):
    # it is no HTTP server: it says what curl has said, line by line, and keeps the connection
    run = subprocess.run(
        ["curl", "--silent", "--http0.9", "--cacert", chain, "--max-time", "3", "--resolve", f"localhost:{port}:127.0.0.1",
         f"https://localhost:{port}/hello"], capture_output=True, timeout=60)
    expect(run.stdout.split(b"\n")[0].rstrip(b"\r"), b"GET /hello HTTP/1.1", "what curl heard")
    print("ok: curl")


def main(chain, tls, tcp):
    direct(chain, urlsplit(tls).port)
    upgraded(chain, urlsplit(tcp).port)
    refused(chain, urlsplit(tls).port)
    curl(chain, urlsplit(tls).port)


if __name__ == "__main__":
    main(*sys.argv[1:])
