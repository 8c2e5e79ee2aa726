#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What XMPP servers in trouble do to the sessions of others, and what TLS to them costs. `make bench-upstream` and
`make bench-tls` run it.

    upstream.py [SCENARIO...]       all scenarios without an argument (--list names them)

Environment: QUICK=1 (a small version of each), SCENARIO=NAME (as the argument), BOSH_FLOOD_MB (1024), and what
restart.py beside it has. Loss, disorder and memory beyond its bound make the exit status 1; times are only printed.
"""

import os
import re
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(Path(__file__).resolve().parent)]

import certs  # noqa: E402
import xmltool as X  # noqa: E402
from blackhole import BlackHole  # noqa: E402
from bosh_env import BIND_PATH, Httpd, raise_file_limit, wait_for  # noqa: E402
from client import BoshClient, new_body  # noqa: E402
from restart import Run, Table, anon_kb, ms, size  # noqa: E402
from stub import StubServer  # noqa: E402

HTTPD = {"children": 3, "threads": 32}
CHUNK = 512  # bytes of shared memory that a chunk takes
QUEUE = 4 * 1024 * 1024  # BoshQueueSize
PIECE = 16 * 1024  # of the flood
LONG = 3600  # seconds: windows end with their report


# --- servers that never answer -------------------------------------------------------------------

class Waiting:
    """Clients whose XMPP server says nothing. (After twenty seconds they are told their session's id at least.)"""

    def __init__(self, server, domain, n):
        body = new_body(to=domain, wait=55).encode()
        head = f"POST {BIND_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\n" \
               f"Content-Length: {len(body)}\r\n\r\n"
        before = server.status()[0]["sessions"]["live"]
        self.sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(n)]
        for sock in self.sockets:
            sock.sendall(head.encode() + body)
        wait_for(lambda: server.status()[0]["sessions"]["live"] >= before + n, 20, f"{n} sessions wait")

    def close(self):
        for sock in self.sockets:
            sock.close()


def both_ways(table, name, what, alone, troubled):
    """A row for each direction: the same figures without and with the trouble."""
    for key, direction in (("window_up_us", "to servers"), ("window_down_us", "to clients")):
        a, b = alone[key], troubled[key]
        table.row(name, f"{direction}, p50 / p99 / max ms, alone",
                  f"{ms(a['p50'])} / {ms(a['p99'])} / {ms(a['max'])}")
        table.row(name, f"{direction}, p50 / p99 / max ms, {what}",
                  f"{ms(b['p50'])} / {ms(b['p99'])} / {ms(b['max'])}")


def black_hole(table, name, sessions, seconds, rate=1):
    """So many sessions wait for a server that swallows everything, while as many others talk."""
    hole = BlackHole()
    options = dict(HTTPD, directives=f"BoshUpstream hole.example {hole.address} timeout=300s\n")
    try:
        with Run(table, name, {"talkers": sessions, "rate": rate, "wait": 20, "window": LONG}, options) as run:
            windows = []
            for trouble in (False, True):
                if trouble:
                    waiting = Waiting(run.server, "hole.example", sessions)
                time.sleep(1)
                run.load.mark(0)
                time.sleep(seconds)
                windows.append(run.load.report())
            both_ways(table, name, f"{sessions} in the dark", *windows)
            table.none(name, "of those in the dark, no longer", 2 * sessions - run.server.status()[0]["sessions"]["live"])
            waiting.close()
            run.finish()
            return windows
    finally:
        hole.close()


# --- a server that never stops -------------------------------------------------------------------

class SlowBrowser:
    """One connection that reads so many bytes a second, through a small window."""

    def __init__(self, port, rate):
        self.rate = rate
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        self.sock.settimeout(30)
        self.sock.connect(("127.0.0.1", port))
        self.buffer = bytearray()
        self.begun, self.got = time.monotonic(), 0

    def _more(self):
        data = self.sock.recv(16384)
        assert data, "the connection was closed"
        self.buffer += data
        self.got += len(data)
        time.sleep(max(0, self.begun + self.got / self.rate - time.monotonic()))

    def post(self, text):
        data = text.encode()
        self.sock.sendall(f"POST {BIND_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\n"
                          f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
        self.buffer = bytearray(rest)
        while len(self.buffer) < length:
            self._more()
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body


class Flood:
    """Numbered messages, as fast as the connection takes them. On a thread."""

    def __init__(self, upstream, count):
        self.upstream, self.count, self.sent, self.error = upstream, count, 0, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        padding = "x" * PIECE
        try:
            for i in range(self.count):
                self.upstream.sock.sendall(X.message(f"{i} {padding}", to="a@b").encode())
                self.sent = i + 1
        except OSError as err:
            self.error = err


def flood(table, name, megabytes, others, rate):
    """One session is sent so much while its browser reads `rate` bytes a second."""
    stub = StubServer()
    options = dict(HTTPD, directives=f"BoshPolling 0\nBoshUpstream flood.example {stub.address} tls=off\n")
    try:
        with Run(table, name, {"talkers": others, "rate": 2, "wait": 20, "window": LONG}, options) as run:
            server = run.server

            def used():
                return server.status()[0]["memory"]["chunks_used"] * CHUNK

            def private():
                return sum(map(anon_kb, server.children()))
            time.sleep(1)
            run.load.mark(0)
            time.sleep(3)
            alone = run.load.report()
            client = server.client()
            session, upstream = client.login(stub, to="flood.example")
            before, private_before = used(), private()
            run.load.mark(0)
            messages = Flood(upstream, megabytes * 1024 * 1024 // PIECE)
            wait_for(lambda: used() >= before + QUEUE * 9 // 10, 60, "the queue is full")
            sent = [-1, messages.sent]
            while sent[-1] != sent[-2]:  # what is in sockets and on its way
                time.sleep(0.3)
                sent.append(messages.sent)
            table.row(name, "sent while nobody reads", f"{sent[-1] * PIECE / 1e6:.1f} MB")
            stalled = sent[-1] < messages.count
            table.row(name, "back-pressure", "yes" if stalled else "no", "yes", stalled, hard=True)
            browser = SlowBrowser(server.port, rate)
            most, most_private, numbers, answers = used(), private(), [], 0
            while len(numbers) < messages.count:
                session.rid += 1
                body = browser.post(session.body(session.rid))
                assert b"type='terminate'" not in body, body[:300]
                numbers += map(int, re.findall(rb"<body>(\d+) x", body))
                answers += 1
                if answers % 50 == 0:
                    most, most_private = max(most, used()), max(most_private, private())
            troubled = run.load.report()
            seconds = time.monotonic() - browser.begun
            table.row(name, "read by the browser", f"{browser.got / 1e6:.0f} MB in {seconds:.1f} s")
            table.none(name, "messages lost, doubled or out of order",
                       sum(a != b for a, b in zip(numbers, range(messages.count))) + abs(len(numbers) - messages.count))
            grown, limit = (most - before) / 1e6, 1.5 * QUEUE / 1e6
            table.row(name, "shared memory, at most", f"{grown:.1f} MB", f"{limit:.1f} MB", grown <= limit, hard=True)
            grown = (most_private - private_before) / 1e3
            table.row(name, "memory of the processes, grown by at most", f"{grown:.1f} MB", "32 MB", grown <= 32, hard=True)
            both_ways(table, name, "during the flood", alone, troubled)
            messages.thread.join(10)
            client.close()
            run.finish()
            return alone, troubled
    finally:
        stub.stop()


# --- TLS -----------------------------------------------------------------------------------------

class Tls:
    """What a stub's script needs: a context for all connections, or a new one for each, which knows no session."""

    def __init__(self, pair, version, resumes):
        self.make = lambda: certs.context(pair, minimum_version=version, maximum_version=version)
        self.context = self.make() if resumes else None

    def get(self):
        return self.context or self.make()


def cpu_seconds(server):
    """Of all children, so far."""
    ticks = 0
    for pid in server.children():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def log_in_and_out(client, stub, n):
    for _ in range(n):
        session, _ = client.login(stub, to="tls.example")
        session.terminate()
        client.sessions.clear()


def logins(table, name, n):
    """What a login costs httpd: session, SASL, restart, resource, end; by kind of TLS."""
    ca = certs.Authority()
    pair = ca.issue("x", ["DNS:tls.example"])
    cases = [("without TLS", None, None, False)]
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        for resumes in (False, True):
            cases.append((f"{version.name.replace('_', '.', 1).replace('_', '.')}, "
                          f"{'resumed' if resumes else 'each a full handshake'}", version, "direct", resumes))
    results = {}
    try:
        for what, version, mode, *rest in cases:
            stub = StubServer()
            resumes = bool(rest and rest[0])
            line = f"tls.example {stub.address} " + (f"tls=direct ca={ca.pem}" if mode else "tls=off")
            server = Httpd(children=1, threads=32, upstreams=[line], log_level="info", name="tls")
            server.start()
            client = BoshClient(server.port)
            try:
                stub.script.tls = mode
                if mode:
                    kind = Tls(pair, version, resumes)
                    type(stub.script).tls_context = property(lambda _, k=kind: k.get(), lambda *_: None)
                log_in_and_out(client, stub, 20)
                begun = cpu_seconds(server)
                log_in_and_out(client, stub, n)
                results[what] = (cpu_seconds(server) - begun) / n
                with stub.changed:
                    reused = sum(bool(s.tls and s.tls.session_reused) for s in stub.sessions[20:])
            finally:
                if mode:
                    del type(stub.script).tls_context
                client.close()
                server.stop()
                server.cleanup()
                stub.stop()
            table.row(name, f"CPU of a login, {what}", f"{results[what] * 1000:.2f} ms")
            if mode:
                wanted = n if resumes else 0
                table.row(name, "    resumed", f"{reused} of {n}", str(wanted), reused == wanted, hard=True)
    finally:
        ca.remove()
    return results


# --- all of them ---------------------------------------------------------------------------------

SCENARIOS = {
    "blackhole": lambda table: black_hole(table, "blackhole", size(500, 50), size(15, 5)),  # in which all of them wait
    "flood": lambda table: flood(table, "flood", int(os.environ.get("BOSH_FLOOD_MB") or size(1024, 64)), size(100, 20),
                                 size(40, 20) * 1_000_000),
    "tls": lambda table: logins(table, "tls", size(1000, 100)),
}


def main():
    wanted = sys.argv[1:] or os.environ.get("SCENARIO", "").split() or list(SCENARIOS)
    if wanted == ["--list"]:
        print("\n".join(SCENARIOS))
        return 0
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        print(f"unknown scenario {unknown[0]}; there are: {' '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    raise_file_limit()
    table = Table()
    for name in wanted:
        SCENARIOS[name](table)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
