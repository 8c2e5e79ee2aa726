# SPDX-License-Identifier: Apache-2.0
"""A BOSH client on raw sockets: it can cut, reset, half send, pipeline, and holds many requests at once.

    client = BoshClient(port)
    s = client.new(hold="1")            # new(...) of the checklist: a Session, s.creation is the answer
    x = s.send(1001, X.message("hi"))   # req(1001, message): an Exchange under way
    x.held()                            # no byte within 500 ms
    s.next()                            # sends the next rid and returns its answer
    E(x.answer()), TB(x.answer(), "item-not-found"), T(...), RB(...)

Every answer is parsed strictly and checked against the rows that hold for all of them (check_answer).
One thread (Reactor) reads all sockets and notes when the bytes came.
"""

import base64
import re
import selectors
import socket
import ssl
import struct
import threading
import time
from xml.parsers import expat

import xmltool as X
from bosh_env import BIND_PATH, SLOW

HELD = 0.5
CREATION_ONLY = ("sid", "wait", "requests", "ver", "polling", "inactivity", "hold", "maxpause", "accept",
                 "charsets")
CONDITIONS = ("bad-request", "host-gone", "host-unknown", "improper-addressing", "internal-server-error",
              "item-not-found", "other-request", "policy-violation", "remote-connection-failed",
              "remote-stream-error", "see-other-uri", "system-shutdown", "undefined-condition")
PREFIXES = {"xmpp": X.NS_XBOSH, "x": "urn:example:x"}


# ---- bodies ----

def wrap(payload="", **attrs):
    """<body/> text. xml_lang, xmpp_version, ... become xml:lang, xmpp:version; None leaves one out."""
    out = [f"<body xmlns='{X.NS_BOSH}'"]
    names = {k.replace("_", ":", 1) if k.split("_")[0] in ("xml", "xmpp", "x", "xmlns") else k: v
             for k, v in attrs.items() if v is not None}
    for prefix, uri in PREFIXES.items():
        if any(n.startswith(prefix + ":") for n in names) and f"xmlns:{prefix}" not in names:
            out.append(f" xmlns:{prefix}='{uri}'")
    out += [f" {k}='{X.escape(str(v))}'" for k, v in names.items()]
    return "".join(out) + (f">{payload}</body>" if payload else "/>")


def new_body(payload="", **attrs):
    defaults = {"rid": 1000, "to": "example.com", "wait": 10, "hold": 1, "ver": "1.6", "xml_lang": "en",
                "xmpp_version": "1.0"}
    return wrap(payload, **{**defaults, **attrs})


def auth(user=None, password="pw"):
    if user is None:
        return f"<auth xmlns='{X.NS_SASL}' mechanism='ANONYMOUS'/>"
    blob = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    return f"<auth xmlns='{X.NS_SASL}' mechanism='PLAIN'>{blob}</auth>"


BIND_IQ = f"<iq xmlns='jabber:client' type='set' id='bind1'><bind xmlns='{X.NS_BIND}'/></iq>"


# ---- answers ----

class Answer:
    """An HTTP response."""

    def __init__(self, status, reason, headers, body, exchange):
        self.status, self.reason, self.headers, self.body = status, reason, headers, body
        self.exchange = exchange
        self.time = exchange.t_done     # when its last byte came
        self.sent_at = exchange.sent_at
        self._root = None

    def get(self, name, default=None):
        values = [v for k, v in self.headers if k.lower() == name.lower()]
        return ", ".join(values) if values else default

    @property
    def took(self):
        return self.time - self.sent_at

    @property
    def root(self):
        if self._root is None:
            try:
                self._root = X.parse(self.body)
            except (expat.ExpatError, X.Restricted) as err:
                raise AssertionError(f"not the XML subset ({err}): {self}") from None
        return self._root

    @property
    def kids(self):
        return list(self.root)

    def attr(self, name, ns=None):
        return self.root.get(X.tag(name, ns) if ns else name)

    def find(self, local, ns=X.NS_CLIENT):
        return self.root.find(X.tag(local, ns))

    def texts(self):
        """Texts of the messages in it."""
        return [X.text_of(e, "body") for e in self.kids if e.tag == X.tag("message")]

    def __repr__(self):
        text = self.body[:1500].decode("utf-8", "replace")
        return f"<HTTP {self.status} {self.reason}; {self.headers}; {text}>"


def check_answer(answer, content="text/xml; charset=utf-8", creation=False):
    """What holds for every BOSH answer: B-001 B-003 B-013 B-018 B-020 B-049 B-050 B-077 B-078 B-300."""
    assert answer.status == 200, f"status {answer.status}: {answer}"
    assert answer.get("Transfer-Encoding") is None, f"chunked: {answer}"
    assert answer.get("Content-Length") == str(len(answer.body)), f"Content-Length: {answer}"
    assert "no-store" in answer.get("Cache-Control", ""), f"Cache-Control: {answer}"
    assert answer.get("X-Content-Type-Options") == "nosniff", f"nosniff: {answer}"
    if content:
        assert answer.get("Content-Type", "").lower().replace("; ", ";") == content.lower().replace("; ", ";"), \
            f"Content-Type {answer.get('Content-Type')!r} instead of {content!r}: {answer}"
    root = answer.root
    assert root.tag == X.tag("body", X.NS_BOSH), f"root: {answer}"
    text = (root.text or "") + "".join(kid.tail or "" for kid in root)
    assert not text.strip(), f"text of its own in the body: {answer}"
    kind, condition = root.get("type"), root.get("condition")
    assert kind in (None, "terminate", "error"), f"type {kind}: {answer}"
    assert condition is None or (kind == "terminate" and condition in CONDITIONS), f"condition: {answer}"
    if not creation:
        repeated = [n for n in CREATION_ONLY if root.get(n) is not None]
        assert not repeated, f"creation attributes repeated: {repeated} in {answer}"
    return answer


def E(answer):
    assert answer.attr("type") is None and not answer.kids, f"not empty: {answer}"
    return answer


def TB(answer, *conditions):
    """type=terminate with this condition (or one of several the checklist allows)."""
    assert answer.status == 200, f"{answer}"
    assert answer.attr("type") == "terminate" and answer.attr("condition") in conditions, \
        f"not terminate with {' or '.join(conditions)}: {answer}"
    return answer


def T(answer):
    assert answer.attr("type") == "terminate" and answer.attr("condition") is None, f"no clean terminate: {answer}"
    return answer


def RB(answer):
    assert answer.attr("type") == "error", f"not type=error: {answer}"
    return answer


# ---- sockets ----

class Reactor:
    """The thread that reads all connections."""

    instance = None

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.wake_r, self.wake_w = socket.socketpair()
        self.wake_r.setblocking(False)
        self.selector.register(self.wake_r, selectors.EVENT_READ, None)
        self.todo, self.lock = [], threading.Lock()
        threading.Thread(target=self._run, name="reactor", daemon=True).start()

    @classmethod
    def get(cls):
        if cls.instance is None:
            cls.instance = cls()
        return cls.instance

    def call(self, function):
        with self.lock:
            self.todo.append(function)
        self.wake_w.send(b"x")

    def add(self, conn):
        self.call(lambda: self.selector.register(conn.sock, selectors.EVENT_READ, conn))

    def remove(self, conn):
        """Takes the socket out and closes it, in that order, on the reactor's thread; waits for it."""
        done = threading.Event()

        def function():
            self._forget(conn)
            done.set()
        if threading.current_thread().name == "reactor":
            function()
        else:
            self.call(function)
            done.wait(5)

    def _forget(self, conn):
        try:
            self.selector.unregister(conn.sock)
        except (KeyError, ValueError):
            pass
        conn.sock.close()

    def _run(self):
        while True:
            for key, _ in self.selector.select():
                if key.data is not None:
                    key.data.on_readable()
                    continue
                try:
                    self.wake_r.recv(4096)
                except BlockingIOError:
                    pass
                with self.lock:
                    todo, self.todo = self.todo, []
                for function in todo:
                    try:
                        function()
                    except (KeyError, ValueError, OSError):
                        pass  # closed before it was registered


class Exchange:
    """A request and the answer it will get."""

    def __init__(self, conn, session=None, content="text/xml; charset=utf-8", check=True, creation=False,
                 head=False):
        self.conn, self.session, self.content, self.check, self.creation = conn, session, content, check, creation
        self.head = head
        self.sent_at = time.monotonic()
        self.t_first = self.t_done = self.closed_at = None
        self.taken = False  # somebody looked at the answer, or does not want it any more
        self.result = None
        self.error = None
        self.event = threading.Event()

    def done(self):
        return self.event.is_set()

    def held(self, seconds=HELD):
        """No byte within 500 ms of the request."""
        deadline = self.sent_at + seconds
        while time.monotonic() < deadline and not self.event.is_set() and self.t_first is None:
            self.event.wait(min(0.05, max(0, deadline - time.monotonic())))
        assert self.t_first is None and not self.event.is_set(), \
            f"not held: bytes after {(self.t_first or self.closed_at or 0) - self.sent_at:.3f} s: " \
            f"{self.result or self.conn.buffer[:300]}"
        return self

    def raw(self, timeout=10.0):
        """The response without the checks of BOSH answers."""
        self.taken = True
        assert self.event.wait(timeout * SLOW), \
            f"no answer within {timeout} s (so far {bytes(self.conn.buffer[:300])!r})"
        assert self.result is not None, f"connection closed without an answer ({self.error})"
        return self.result

    def answer(self, timeout=10.0):
        result = self.raw(timeout)
        if self.check:
            check_answer(result, self.content, self.creation)
        return result

    def at_once(self, limit=0.8):
        """The answer, from now on in much less than a wait. (A hint of lateness beyond 100 ms is no proof on
        a busy machine, so the bound is generous.)"""
        start = time.monotonic()
        result = self.answer(max(limit, 2.0))
        late = result.time - max(start, self.sent_at)
        assert late < limit * SLOW, f"answered only after {late:.3f} s: {result}"
        return result

    def closed(self, timeout=5.0):
        """The server closed the connection without an answer."""
        assert self.event.wait(timeout * SLOW), "connection still open"
        assert self.result is None, f"answered: {self.result}"

    def cut(self):
        """FIN from our side, in the middle of it."""
        self.taken = True
        self.conn.close()

    def rst(self):
        self.taken = True
        self.conn.rst()


class Conn:
    """One TCP connection. Answers are matched to the exchanges in their order."""

    def __init__(self, port, tls=False, host="127.0.0.1", certificate=None):
        self.sock = socket.create_connection((host, port), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if certificate:
                context.load_cert_chain(*certificate)
            self.sock = context.wrap_socket(self.sock)
        self.tls, self.tls_lock = tls, threading.Lock()
        self.local_port = self.sock.getsockname()[1]
        self.buffer, self.queue = bytearray(), []
        self.lock = threading.Lock()
        self.eof = threading.Event()
        self.closed, self.close_after = False, False
        self.interim = []  # 1xx responses
        Reactor.get().add(self)

    def send(self, data):
        with self.tls_lock:  # two threads may not use one TLS connection at the same time
            self.sock.settimeout(30)
            self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def expect(self, **options):
        exchange = Exchange(self, **options)
        with self.lock:
            self.queue.append(exchange)
        return exchange

    def close(self):
        if not self.closed:
            self.closed = True
            Reactor.get().remove(self)

    def rst(self):
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # already answered and closed
        self.close()

    def wait_eof(self, timeout=5.0):
        assert self.eof.wait(timeout * SLOW), "the server keeps the connection open"

    # ---- the reactor's thread ----

    def on_readable(self):
        try:
            if self.tls:
                with self.tls_lock:
                    self.sock.settimeout(0.0)
                    data = self.sock.recv(262144)
                    while self.sock.pending():
                        data += self.sock.recv(262144)
            else:
                data = self.sock.recv(262144, socket.MSG_DONTWAIT)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as err:
            self._ended(err)
            return
        if not data:
            self._ended(None)
            return
        with self.lock:
            if self.queue and self.queue[0].t_first is None:
                self.queue[0].t_first = time.monotonic()
            self.buffer += data
            while self.queue and self._take():
                pass
        if self.close_after and not self.queue:
            self.close()

    def _ended(self, err):
        with self.lock:
            if self.queue and self.buffer:
                self._take(eof=True)
            queue, self.queue = self.queue, []
        for exchange in queue:
            exchange.closed_at, exchange.error = time.monotonic(), err
            exchange.event.set()
        self.closed = True
        Reactor.get().remove(self)
        self.eof.set()

    def _take(self, eof=False):
        """One complete response out of the buffer."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        match = re.match(r"HTTP/1\.[01] (\d{3}) ?(.*)$", lines[0])
        if not match:
            return False
        status, headers = int(match.group(1)), [tuple(p.strip() for p in line.split(":", 1)) for line in lines[1:]]
        start = end + 4
        if status < 200:
            self.interim.append(status)
            del self.buffer[:start]
            return True
        fields = {k.lower(): v for k, v in headers}
        exchange = self.queue[0]
        if exchange.head or status in (204, 304):
            body, stop = b"", start
        elif fields.get("transfer-encoding", "").lower() == "chunked":
            body, stop = dechunk(self.buffer, start)
        elif "content-length" in fields:
            stop = start + int(fields["content-length"])
            body = bytes(self.buffer[start:stop]) if len(self.buffer) >= stop else None
        else:
            body, stop = (bytes(self.buffer[start:]), len(self.buffer)) if eof else (None, 0)
        if body is None:
            return False
        del self.buffer[:stop]
        self.queue.pop(0)
        exchange.t_done = time.monotonic()
        exchange.result = Answer(status, match.group(2), headers, body, exchange)
        exchange.event.set()
        if self.queue and self.buffer:
            self.queue[0].t_first = time.monotonic()
        return True


def dechunk(data, pos):
    body = bytearray()
    while True:
        eol = data.find(b"\r\n", pos)
        if eol < 0:
            return None, 0
        size = int(bytes(data[pos:eol]).split(b";")[0], 16)
        pos = eol + 2
        if len(data) < pos + size + 2:
            return None, 0
        body += data[pos:pos + size]
        pos += size + 2
        if size == 0:
            return bytes(body), pos


# ---- BOSH ----

class BoshClient:
    """certificate: (certificate, key) files that it shows over TLS; may be changed between requests."""

    def __init__(self, port, path=BIND_PATH, tls=False, secrets=None, certificate=None):
        self.port, self.path, self.tls, self.certificate = port, path, tls, certificate
        self.sessions = []
        self.secrets = secrets if secrets is not None else set()

    def connect(self):
        return Conn(self.port, self.tls, certificate=self.certificate)

    def head(self, length=None, method="POST", headers=(), version="1.1", path=None, host="localhost"):
        """The request line and headers."""
        lines = [f"{method} {path or self.path} HTTP/{version}", f"Host: {host}"]
        headers = dict(headers)
        if method == "POST" and not any(k.lower() == "content-type" for k in headers):
            headers["Content-Type"] = "text/xml; charset=utf-8"
        if length is not None:
            lines.append(f"Content-Length: {length}")
        lines += [f"{k}: {v}" for k, v in headers.items() if v is not None]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def post(self, text, conn=None, headers=(), version="1.1", **options):
        """Sends one request: an Exchange. On a connection of its own unless conn is given."""
        data = text.encode() if isinstance(text, str) else text
        own = conn is None
        conn = conn or self.connect()
        conn.close_after = conn.close_after or own
        exchange = conn.expect(**options)
        message = self.head(len(data), headers=headers, version=version) + data
        exchange.sent_at = time.monotonic()
        try:
            conn.send(message)
        except OSError as err:  # an early answer may still be there to be read
            exchange.error = err
        return exchange

    def request_async(self, method, path=None, headers=(), data=b"", version="1.1"):
        """Sends any HTTP request: an Exchange."""
        conn = self.connect()
        conn.close_after = True
        exchange = conn.expect(head=method == "HEAD")
        conn.send(self.head(len(data) if data or method in ("PUT", "PATCH") else None, method, headers, version,
                            path) + data)
        return exchange

    def request(self, method, path=None, **options):
        """Any HTTP request, and its response without checks."""
        return self.request_async(method, path, **options).raw()

    def new_async(self, payload="", conn=None, headers=(), version="1.1", **attrs):
        content = attrs.get("content") or "text/xml; charset=utf-8"
        return self.post(new_body(payload, **attrs), conn=conn, headers=headers, version=version, creation=True,
                         content=content)

    def new(self, payload="", timeout=10.0, **attrs):
        """A session. Its creation must succeed."""
        return self.session(self.new_async(payload, **attrs), attrs, timeout)

    def session(self, exchange, attrs=None, timeout=10.0):
        """The session that a creation request under way makes."""
        answer = exchange.answer(timeout)
        assert answer.attr("sid"), f"no session: {answer}"
        self.secrets.add(answer.attr("sid"))
        session = Session(self, answer, attrs or {})
        self.sessions.append(session)
        return session

    def start(self, stub, creation=None, **attrs):
        """A session and the stub's end of it; features were announced, nobody logged in. creation: the Exchange
        that makes it, when it is under way already."""
        session = self.session(creation or self.new_async(**attrs), attrs)
        upstream = stub.accept()
        if not any(k.tag == X.tag("features", X.NS_STREAMS) for k in session.creation.kids):
            session.until("features", X.NS_STREAMS)
        return session, upstream

    def login(self, stub, user=None, **attrs):
        """As start(), logged in and with a resource."""
        session, upstream = self.start(stub, **attrs)
        session.authenticate(user)
        return session, upstream

    def close(self):
        """Ends what is left of the sessions: politely, else (behind a gap) with a rid that ends them."""
        live = [s for s in self.sessions if not s.over]
        for distance, seconds in ((1, 0.5), (1000, 2)):
            exchanges = []
            for session in live:
                try:
                    exchanges.append((session, session.send(session.rid + distance, type="terminate", check=False)))
                except OSError:
                    pass  # the server is gone
            deadline = time.monotonic() + seconds * SLOW
            live = [s for s, x in exchanges if not x.event.wait(max(0, deadline - time.monotonic()))]
            for _, exchange in exchanges:
                exchange.conn.close()
        self.sessions = []


class Session:
    """What a client knows of its session. rid is the highest one sent."""

    def __init__(self, client, creation, attrs):
        self.client, self.creation = client, creation
        self.sid = creation.attr("sid")
        self.rid = int(attrs.get("rid", 1000))
        self.to = attrs.get("to", "example.com")
        self.content = attrs.get("content") or "text/xml; charset=utf-8"
        self.requests = int(creation.attr("requests"))
        self.wait = int(creation.attr("wait"))
        self.hold = int(creation.attr("hold") or 1)
        self.inactivity = int(creation.attr("inactivity") or 0)
        self.over = False
        self.backlog = []  # stanzas that came while until() looked for another one
        self.exchanges = []

    def body(self, rid, payload="", **attrs):
        return wrap(payload, rid=rid, **{"sid": self.sid, **attrs})

    def send(self, rid, payload="", conn=None, headers=(), version="1.1", check=True, **attrs):
        """req(rid, ...): an Exchange under way."""
        self.rid = max(self.rid, rid)
        if attrs.get("type") == "terminate":
            self.over = True
        exchange = self.client.post(self.body(rid, payload, **attrs), conn=conn, headers=headers, version=version,
                                    session=self, content=self.content, check=check)
        self.exchanges = [x for x in self.exchanges if not x.taken] + [exchange]
        return exchange

    def post(self, text, conn=None, **options):
        """A hand-written body."""
        return self.client.post(text, conn=conn, session=self, content=self.content, **options)

    def send_next(self, payload="", **attrs):
        return self.send(self.rid + 1, payload, **attrs)

    def next(self, payload="", timeout=15.0, **attrs):
        return self.send_next(payload, **attrs).answer(timeout)

    def restart(self, **attrs):
        return self.send_next(xmpp_restart="true", to=self.to, xml_lang="en", **attrs)

    def poll(self, timeout=15.0):
        """The answer to the oldest request whose answer nobody has looked at, or to a new one."""
        waiting = [x for x in self.exchanges if not x.taken]
        return (waiting[0] if waiting else self.send_next()).answer(timeout)

    def until(self, local, ns=X.NS_CLIENT, exchange=None, rounds=6):
        """Polls until an element of this name comes; other stanzas go to .backlog, where it looks first."""
        for i, elem in enumerate(self.backlog):
            if elem.tag == X.tag(local, ns):
                return self.backlog.pop(i)
        for _ in range(rounds):
            answer = exchange.answer(15) if exchange else self.poll()
            exchange = None
            assert answer.attr("type") is None, f"the session ended: {answer}"
            found = None
            for kid in answer.kids:
                if found is None and kid.tag == X.tag(local, ns):
                    found = kid
                else:
                    self.backlog.append(kid)
            if found is not None:
                return found
        raise AssertionError(f"{local} did not come in {rounds} answers")

    def authenticate(self, user=None, password="pw"):
        self.until("success", X.NS_SASL, self.send_next(auth(user, password)))
        self.until("features", X.NS_STREAMS, self.restart())
        bind = self.until("iq", exchange=self.send_next(BIND_IQ))
        self.jid = bind.find(f"{X.tag('bind', X.NS_BIND)}/{X.tag('jid', X.NS_BIND)}").text
        return self.jid

    def texts(self, n, timeout=10.0):
        """Polls until n message texts have come; all of them in order."""
        got = [X.text_of(e, "body") for e in self.backlog if e.tag == X.tag("message")]
        self.backlog = [e for e in self.backlog if e.tag != X.tag("message")]
        deadline = time.monotonic() + timeout * SLOW
        while len(got) < n and time.monotonic() < deadline:
            answer = self.poll()
            assert answer.attr("type") is None, f"the session ended: {answer}"
            got += answer.texts()
        assert len(got) >= n, f"{len(got)} of {n} messages: {got}"
        return got

    def terminate(self, payload="", **attrs):
        return self.next(payload, type="terminate", **attrs)

    def gone(self):
        """The server does not know the session any more."""
        TB(self.send(self.rid + 1).answer(), "item-not-found")
        self.over = True
