# SPDX-License-Identifier: Apache-2.0
"""The two connections of a client like Tsung: the next request is sent microseconds behind one that is to be held, over
another connection and so, mostly, to another child. Neither may be left waiting."""

import re
import selectors
import socket
import time

import pytest
from bosh_env import BIND_PATH, VALGRIND
from client import new_body

pytestmark = [pytest.mark.skipif(VALGRIND, reason="one process under valgrind"), pytest.mark.limit(240)]

SESSIONS, PAIRS = 24, 10000
STALL = 30  # seconds, of the 55 that a request may be held
HTTPBIND = "http://jabber.org/protocol/httpbind"
HEADER = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>" \
         b"<stream:features/>"
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.I)


class Loop:
    def __init__(self):
        self.selector = selectors.DefaultSelector()

    def add(self, sock, ready):
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, ready)

    def turn(self):
        for key, _ in self.selector.select(1):
            key.data(key.fileobj)


class Echo:
    """An XMPP server that knows one sentence: a message comes back."""

    def __init__(self, loop):
        self.loop, self.rest = loop, {}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        loop.add(self.listener, self.accept)

    def accept(self, listener):
        conn, _ = listener.accept()
        self.rest[conn] = None
        self.loop.add(conn, self.read)

    def read(self, conn):
        data = conn.recv(65536)
        if not data:
            self.loop.selector.unregister(conn)
            conn.close()
        elif self.rest[conn] is None:
            conn.sendall(HEADER)
            self.rest[conn] = b""
        else:
            *whole, self.rest[conn] = (self.rest[conn] + data).split(b"</message>")
            conn.sendall(b"".join(message[message.index(b"<message"):] + b"</message>" for message in whole))


class Session:
    def __init__(self, loop, port, number):
        self.number, self.port = number, port
        self.conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        self.buffers = {conn: b"" for conn in self.conns}
        self.sid, self.rid, self.done, self.slowest = None, 1000 * (number + 1), 0, 0.0
        for conn in self.conns:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            loop.add(conn, self.read)
        self.open, self.missing = 1, 0
        self.send(0, new_body(to="example.com", rid=self.rid, wait=55, hold=1).encode())

    def send(self, which, body):
        self.conns[which].sendall(f"POST {BIND_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\n"
                                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.rid += 1

    def pair(self):
        self.start, self.open, self.missing = time.monotonic(), 2, 1
        body = f"<body xmlns='{HTTPBIND}' sid='{self.sid}' rid='%d'%s".encode()
        message = f"><message xmlns='jabber:client'><body>{self.done}</body></message></body>".encode()
        first = self.done % 2
        self.send(first, body % (self.rid, b"/>"))
        self.send(1 - first, body % (self.rid, message))

    def read(self, conn):
        data = conn.recv(65536)
        assert data, "httpd closed a connection"
        self.buffers[conn] += data
        head, end, body = self.buffers[conn].partition(b"\r\n\r\n")
        if not end or len(body) < (length := int(LENGTH.search(head + b"\r\n").group(1))):
            return
        assert head.startswith(b"HTTP/1.1 200 ") and len(body) == length and b"type=" not in body.split(b">")[0], body
        self.buffers[conn] = b""
        self.open -= 1
        if self.sid is None:
            self.sid = re.search(rb" sid='([^']+)'", body).group(1).decode()
            self.pair()
            return
        self.missing -= body.count(f"<body>{self.done}</body>".encode())
        if self.open == 0:
            assert self.missing == 0, f"the echo of {self.done} did not come: {body}"
            self.done += 1
            self.slowest = max(self.slowest, time.monotonic() - self.start)
            self.pair()


def test_pairs_of_requests_never_stall(httpd):
    loop = Loop()
    echo = Echo(loop)
    server = httpd(children=3, upstreams=[f"example.com 127.0.0.1:{echo.port} tls=off"], polling=None,
                   directives="BoshLoginSize 0\n")
    sessions = [Session(loop, server.port, i) for i in range(SESSIONS)]
    start = time.monotonic()
    while sum(s.done for s in sessions) < PAIRS:
        loop.turn()
        now = time.monotonic()
        stalled = [s.number for s in sessions if s.sid and now - s.start > STALL]
        assert not stalled and (now - start < STALL or all(s.sid for s in sessions)), f"stalled: {stalled}"
    took = time.monotonic() - start
    children = {line.split()[0] for line in server.access_log.read_text().splitlines()}
    assert len(children) == 3
    print(f"\n{PAIRS} pairs of {SESSIONS} sessions over 3 children in {took:.1f} s, "
          f"slowest {max(s.slowest for s in sessions) * 1000:.0f} ms")
    for session in sessions:
        for conn in session.conns:
            conn.close()
