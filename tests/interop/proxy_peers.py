"""Has nginx and HAProxy speak the PROXY protocol to the example `whoami`, which must name the client behind them:

    python3 proxy_peers.py tcp://127.0.0.1:9000 unix:///tmp/who.sock

Both must be installed; openssl makes the certificate. They run in the foreground, in a folder of their own.
"""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

from peer import DEADLINE, expect


def free_ports(count):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def wait_for(port, process, log):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    with open(log) as text:
        sys.exit(f"nobody listens on port {port}:\n{text.read()}")


def ask(port, tls=None):
    """What the server says to a client, and the client's own address."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    sock = tls.wrap_socket(raw, server_hostname="who.example") if tls else raw
    with sock:
        us = "{}:{}".format(*raw.getsockname()) if not tls else "{}:{}".format(*sock.getsockname())
        answers = []
        reader = sock.makefile("r", encoding="utf-8", newline="\n")
        for line in ("one\n", "two\n"):
            sock.sendall(line.encode())
            answers.append(reader.readline().rstrip("\n"))
        expect(answers[0], answers[1], "the same answer twice")
        return answers[0], us


def main(tcp, unix):
    target = urlsplit(tcp)
    backend, path = f"{target.hostname}:{target.port}", urlsplit(unix).path
    work = tempfile.mkdtemp()
    started = []

    def start(name, *command):
        log = os.path.join(work, name + ".log")
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=work)
        started.append(process)
        return process, log

    try:
        n_tcp, n_unix, v1, v2, v2_unix, v2_tls = free_ports(6)

        modules = "/usr/lib/nginx/modules/ngx_stream_module.so"
        with open(os.path.join(work, "nginx.conf"), "w") as conf:
            conf.write(f"""
{f"load_module {modules};" if os.path.exists(modules) else ""}
daemon off; master_process off; pid {work}/nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
stream {{
    proxy_protocol on;
    server {{ listen 127.0.0.1:{n_tcp}; proxy_pass {backend}; }}
    server {{ listen 127.0.0.1:{n_unix}; proxy_pass unix:{path}; }}
}}
""")
        nginx = start("nginx", shutil.which("nginx") or "/usr/sbin/nginx", "-p", work, "-c", f"{work}/nginx.conf")

        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", f"{work}/key.pem", "-out", f"{work}/cert.pem", "-days", "2", "-subj", "/CN=who.example"],
            check=True, capture_output=True, timeout=60)
        with open(f"{work}/both.pem", "w") as both:
            for part in ("cert.pem", "key.pem"):
                with open(f"{work}/{part}") as text:
                    both.write(text.read())
        with open(os.path.join(work, "haproxy.cfg"), "w") as conf:
            conf.write(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    unique-id-format %ci-%cp
listen v1
    bind 127.0.0.1:{v1}
    server s {backend} send-proxy
listen v2
    bind 127.0.0.1:{v2}
    server s {backend} send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 100ms
listen v2unix
    bind 127.0.0.1:{v2_unix}
    server s unix@{path} send-proxy-v2 proxy-v2-options crc32c
listen v2tls
    bind 127.0.0.1:{v2_tls} ssl crt {work}/both.pem
    server s {backend} send-proxy-v2-ssl proxy-v2-options crc32c,ssl,ssl-cipher,authority
""")
        haproxy = start("haproxy", shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", f"{work}/haproxy.cfg")

        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        for name, port, server, context, says in [
            ("nginx, version 1", n_tcp, nginx, None, r", through a proxy that speaks version 1"),
            ("nginx over a Unix socket", n_unix, nginx, None, r", through a proxy that speaks version 1"),
            ("HAProxy, version 1", v1, haproxy, None, r", through a proxy that speaks version 1"),
            ("HAProxy, version 2", v2, haproxy, None,
             r', through a proxy that speaks version 2, with the id "127\.0\.0\.1-\d+", with a checksum'),
            ("HAProxy over a Unix socket", v2_unix, haproxy, None,
             r", through a proxy that speaks version 2, with a checksum"),
            ("HAProxy with TLS", v2_tls, haproxy, tls,
             r', through a proxy that speaks version 2, asked for "who\.example", with a checksum, '
             r"over TLSv1\.[23] with TLS_\w+"),
        ]:
            wait_for(port, *server)
            for _ in range(20):
                answer, us = ask(port, context)
                wanted = rf"you are tcp://{re.escape(us)}{says}"
                if not re.fullmatch(wanted, answer):
                    sys.exit(f"{name}: got {answer!r}, wanted {wanted}")
            print(f"{name}: {answer}")

        # who is no proxy hears nothing
        with socket.create_connection((target.hostname, target.port), timeout=DEADLINE) as sock:
            sock.sendall(b"hello\n")
            try:
                expect(sock.recv(100), b"", "a peer without a header")
            except ConnectionResetError:
                pass
        print("without a header: turned away")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=DEADLINE)
        shutil.rmtree(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
