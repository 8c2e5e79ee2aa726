# SPDX-License-Identifier: Apache-2.0
"""A scripted XMPP server: answers what a script says and records every byte with its time.

One thread accepts, reads and runs the scripts of all connections; a test sends from its own thread.
What a connection received is parsed incrementally, namespace-aware and strictly: session.headers,
session.stanzas (ElementTree elements, with .time in session.times), session.ended, session.eof.

With script.tls set it speaks TLS, directly or after STARTTLS; then session.tls is the ssl.SSLObject,
session.sni the name that was asked for, session.tls_error a handshake's failure, and session.received holds
what came in the clear and what was inside TLS. .secured: from which header on there was TLS.

With script.proxy it expects the PROXY protocol: session.introduction is its header, and no part of session.received.

    s = stub.accept()                       the next new connection
    s.wait_stanza("message")                the next stanza of that name that no wait took yet
    s.send("<message xmlns='jabber:client'>...")      any bytes, when the test wants
    stub.script.features[0] = ""            change what new connections do (reset before each test)
"""

import base64
import heapq
import itertools
import selectors
import socket
import ssl
import struct
import threading
import time
import xml.etree.ElementTree as ET

import xmltool as X
from bosh_env import SLOW, tcp_queues, wait_for

MECHANISMS = ("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism>"
              "<mechanism>ANONYMOUS</mechanism></mechanisms>")
BIND_FEATURE = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
STARTTLS_REQUIRED = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"
PROCEED = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
TLS_FAILURE = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
SUCCESS = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"


class Script:
    """What a connection does by itself. A test changes attributes of stub.script before it connects."""

    def __init__(self):
        self.auto = True          # False: only what the test sends
        self.header = None        # callable(session) -> header text, instead of the default
        self.header_attrs = {}    # attributes of the default header: changed, or removed when None
        self.header_delay = 0.0   # seconds between the client's header and ours
        self.features_delay = 0.0
        # Inner XML of stream:features of the first, second, ... stream; None: send no features.
        self.features = [MECHANISMS, BIND_FEATURE]
        self.sasl = SUCCESS       # the answer to <auth/>; None: nothing
        self.iq = True            # answer bind, and empty results to other iq get and set
        self.end = True           # answer </stream:stream> and close
        self.on_stanza = None     # callable(session, element) -> True when it is done with it
        self.prefix = "stream"    # prefix of the streams namespace
        self.echo = False         # send messages back to their sender
        self.proxy = False        # a PROXY header comes first
        self.tls = None           # "direct" or "starttls"
        self.tls_context = None   # ssl.SSLContext of the server (certs.context)
        self.tls_features = STARTTLS  # features of the stream before STARTTLS
        self.proceed = PROCEED    # the answer to <starttls/>; TLS begins after it. None: nothing


class StubSession:
    """One connection."""

    _ids = itertools.count(1)

    def __init__(self, stub, sock, peer):
        self.stub, self.sock, self.peer_port = stub, sock, peer[1]
        self.script = stub.script
        self.number = next(self._ids)
        self.opened = time.monotonic()
        self.received = bytearray()
        self.chunks_in, self.chunks_out = [], []   # (time, bytes)
        self.headers = []    # per stream: {"attrs": ..., "declared": ..., "time": ..., "tag": ...}
        self.stanzas, self.times = [], []
        self.seen = []       # ("header"|"stanza"|"end"|"eof"|"reset", value) in order of arrival
        self.ended = self.eof = self.reset_by_peer = None  # times
        self.error = None    # the exception of our parser
        self.user = None     # authcid of SASL PLAIN
        self.jid = None
        self.closed_by_us = False
        self.tls = self.tls_error = self.sni = None
        self.shaken = self.close_notify = None  # times
        self.secured = None
        self.introduction = None
        self._taken = 0
        self._raw = bytearray()
        self._builder, self._in_tag = None, False
        self._write_lock = threading.Lock()
        self._tls_lock = threading.RLock()

    def __repr__(self):
        return f"<stub session {self.number} headers={len(self.headers)} stanzas={len(self.stanzas)}>"

    # ---- writing ----

    def send(self, data):
        """Any bytes. Blocks when the peer does not read."""
        if isinstance(data, str):
            data = data.encode()
        with self._write_lock:
            self.chunks_out.append((time.monotonic(), data))
            if self.tls is None:
                self.sock.sendall(data)
                return
            for at in range(0, len(data), 16384):
                with self._tls_lock:
                    self.tls.write(data[at:at + 16384])
                    wire = self._tls_out.read()
                self.sock.sendall(wire)

    def send_slowly(self, data, delay=0.0):
        """One byte at a time, each in a segment of its own."""
        if isinstance(data, str):
            data = data.encode()
        for i in range(len(data)):
            self.send(data[i:i + 1])
            if delay:
                time.sleep(delay)

    def send_message(self, text, **attrs):
        self.send(X.message(text, to=attrs.pop("to", "alice@example.com"), **attrs))

    def header(self):
        if self.script.header:
            return self.script.header(self)
        attrs = {"xmlns": "jabber:client", f"xmlns:{self.script.prefix}": X.NS_STREAMS, "version": "1.0",
                 "from": self.headers[-1]["attrs"].get("to", "example.com") if self.headers else "example.com",
                 "id": f"stub-{self.number}-{len(self.headers)}", "xml:lang": "en", **self.script.header_attrs}
        text = "".join(f" {k}='{X.escape(v)}'" for k, v in attrs.items() if v is not None)
        return f"<?xml version='1.0'?><{self.script.prefix}:stream{text}>"

    def send_header(self):
        self.send(self.header())

    def send_features(self, inner=None):
        """Features of the current stream, or these."""
        if inner is None:
            which = self.script.features
            inner = which[min(len(self.headers) - (self.secured or 0), len(which)) - 1]
            if self.script.tls == "starttls" and self.tls is None:
                inner = self.script.tls_features
            if inner is None:
                return
        p = self.script.prefix
        self.send(f"<{p}:features>{inner}</{p}:features>")

    def send_stream_error(self, condition, text=None, extra="", close=True):
        self.send(stream_error(condition, text, extra, self.script.prefix)
                  + (f"</{self.script.prefix}:stream>" if close else ""))

    def end_stream(self):
        self.send(f"</{self.script.prefix}:stream>")

    def start_tls(self):
        """What comes from now on is TLS. On the stub's thread."""
        self._tls_in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = self.script.tls_context
        context.sni_callback = lambda tls, name, _: setattr(tls.stub_session, "sni", name)
        self.secured = len(self.headers)
        self._builder, self._in_tag = None, False
        made = context.wrap_bio(self._tls_in, self._tls_out, server_side=True)
        made.stub_session = self
        self.tls = made

    def _end_tls(self):
        """close_notify."""
        with self._tls_lock:
            try:
                self.tls.unwrap()
            except (ssl.SSLError, OSError):
                pass
            wire = self._tls_out.read()
        self.sock.sendall(wire)

    def _decrypt(self, data):
        """What is in these bytes; [] when the handshake goes on, has failed, or the other side says goodbye."""
        plain = bytearray()
        with self._tls_lock:
            self._tls_in.write(data)
            try:
                if self.shaken is None:
                    self.tls.do_handshake()
                    self.shaken = time.monotonic()
                while True:
                    piece = self.tls.read(65536)
                    if not piece:
                        raise ssl.SSLZeroReturnError
                    plain += piece
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self.close_notify = time.monotonic()
                self._note("close_notify", None)
            except ssl.SSLError as err:
                self.tls_error = err
                self._note("tls_error", str(err))
            wire = self._tls_out.read()
        if wire:
            self.sock.sendall(wire)
        return bytes(plain)

    def close(self):
        """FIN."""
        if not self.closed_by_us:
            self.closed_by_us = True
            self.stub.drop(self)

    def rst(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def read_no_more(self):
        """What comes is left in the socket, until read_on()."""
        self.stub._call(lambda: self.stub._selector.unregister(self.sock))

    def read_on(self):
        self.stub._call(lambda: self.stub._selector.register(self.sock, selectors.EVENT_READ, self))

    # ---- waiting ----

    def wait(self, predicate, timeout=5.0, what=None):
        """Until predicate(self) is true; its value."""
        with self.stub.changed:
            value = self.stub.changed.wait_for(lambda: predicate(self), timeout * SLOW)
            assert value, f"stub: not within {timeout} s: {what or predicate}; {self}, " \
                          f"seen {self.summary()}, error {self.error}"
            return value

    def wait_stanza(self, name=None, timeout=5.0, ns=X.NS_CLIENT):
        """The next stanza that was not yet returned; with a name, others are skipped."""
        def find(_):
            for i in range(self._taken, len(self.stanzas)):
                if name is None or self.stanzas[i].tag == X.tag(name, ns):
                    return i + 1
            return 0
        self._taken = self.wait(find, timeout, f"a stanza {name or ''}")
        return self.stanzas[self._taken - 1]

    def wait_header(self, n=1, timeout=5.0):
        self.wait(lambda s: len(s.headers) >= n, timeout, f"stream header {n}")
        return self.headers[n - 1]

    def wait_end(self, timeout=5.0):
        """</stream:stream>: its time."""
        return self.wait(lambda s: s.ended, timeout, "the end of the stream")

    def wait_closed(self, timeout=5.0):
        """FIN or reset from the other side: its time."""
        return self.wait(lambda s: s.eof or s.reset_by_peer, timeout, "the end of the connection")

    def bodies(self):
        """Texts of the messages received so far, in order."""
        with self.stub.changed:
            return [X.text_of(e, "body") for e in self.stanzas if e.tag == X.tag("message")]

    def wait_bodies(self, n, timeout=5.0):
        self.wait(lambda s: len(s.bodies()) >= n, timeout, f"{n} messages")
        return self.bodies()

    def wait_read(self, timeout=5.0):
        """Until the other side has read everything we sent: no byte is left in either socket's queue."""
        def empty():
            queues = tcp_queues(self.peer_port, self.stub.port)
            return queues is not None and sum(queues) == 0
        wait_for(empty, timeout, "the peer reads what was sent to it", interval=0.002)

    def summary(self):
        return [(kind, value if isinstance(value, str) else getattr(value, "tag", value))
                for kind, value in self.seen][-12:]

    # ---- reading: the stub's thread ----

    def feed(self, data):
        if self.script.proxy and self.introduction is None:
            data = self._take_introduction(data)
            if not data:
                return
        if self.tls is not None:
            data = self._decrypt(data)
            if not data:
                return
        now = time.monotonic()
        self.received += data
        self.chunks_in.append((now, data))
        self._raw += data
        if self.error:
            return
        try:
            self._parse()
        except Exception as err:  # a fault of the peer that tests look at: session.error
            self.error = err

    def _take_introduction(self, data):
        """The bytes behind the PROXY header, once that is complete."""
        self._raw += data
        text = bytes(self._raw)
        if text.startswith(PROXY_V2):
            end = 16 + int.from_bytes(text[14:16], "big") if len(text) >= 16 else len(text) + 1
        elif PROXY_V2.startswith(text):
            return b""
        else:
            end = text.find(b"\r\n") + 2
            if end == 1:
                end = len(text) + 1
        if len(text) < end:
            return b""
        self.introduction, data = text[:end], text[end:]
        self._raw.clear()
        self._note("introduction", None)
        return data

    def _parse(self):
        while self._raw:
            boundary = not self._in_tag and (self._builder is None or self._builder.depth <= 1)
            if boundary and self._between_stanzas():
                return
            cut = self._raw.find(b">") + 1
            if not cut and boundary:
                return  # a tag that is not complete: it may become a new header
            piece = bytes(self._raw[:cut] if cut else self._raw)
            del self._raw[:len(piece)]
            builder = self._builder
            events = builder.events
            builder.parser.Parse(piece, False)
            # No event: the '>' was in an attribute's value. Another builder: TLS has begun.
            self._in_tag = builder is self._builder and builder.events == events

    def _between_stanzas(self):
        """At a stanza boundary: True when more bytes are needed; makes a new parser for a new header."""
        text = bytes(self._raw).lstrip(b" \t\r\n")
        if not text:
            self._raw.clear()
            return True
        starts = (b"<?xml", b"<stream:stream")
        if any(text.startswith(s) for s in starts):
            self._raw[:] = text
            after_declaration = self._builder is not None and self._builder.root is None
            if not (after_declaration and text.startswith(b"<stream:stream")):
                self._builder = X.Builder(self._opened, self._closed, keep=False)
            return False
        if any(s.startswith(text) for s in starts):
            return True
        if self._builder is None:
            raise ValueError(f"no stream header: {text[:60]!r}")
        return False

    def _opened(self, elem, depth, declared):
        if depth == 0:
            header = {"attrs": dict(elem.attrib), "declared": declared, "tag": elem.tag,
                      "time": time.monotonic(), "lang": elem.get(X.LANG)}
            self.headers.append(header)
            self._note("header", header)
            self._react_header()

    def _closed(self, elem, depth):
        now = time.monotonic()
        if depth == 0:
            self.ended = now
            self._note("end", now)
            if self.script.auto and self.script.end and not self.closed_by_us:
                try:  # and wait for the other side's FIN, which tests look for
                    self.end_stream()
                    if self.tls is not None:
                        self._end_tls()
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
        elif depth == 1:
            elem.tail = None
            self.stanzas.append(elem)
            self.times.append(now)
            self._note("stanza", elem)
            self._react_stanza(elem)

    def _note(self, kind, value):
        with self.stub.changed:
            self.seen.append((kind, value))
            self.stub.changed.notify_all()

    # ---- the script: the stub's thread ----

    def _react_header(self):
        if not self.script.auto:
            return
        self.stub.later(self.script.header_delay, self.send_header)
        self.stub.later(self.script.header_delay + self.script.features_delay, self.send_features)

    def _react_stanza(self, elem):
        if self.script.on_stanza and self.script.on_stanza(self, elem):
            return
        if not self.script.auto:
            return
        if elem.tag == X.tag("starttls", X.NS_TLS):
            if self.script.proceed is not None:
                self.send(self.script.proceed)
                if "<proceed" in self.script.proceed:
                    self.start_tls()
        elif elem.tag == X.tag("auth", X.NS_SASL) and self.script.sasl:
            if elem.get("mechanism") == "PLAIN" and elem.text:
                self.user = base64.b64decode(elem.text).split(b"\0")[1].decode()
            self.send(self.script.sasl)
        elif elem.tag == X.tag("iq") and self.script.iq and elem.get("type") in ("get", "set"):
            self._answer_iq(elem)
        elif elem.tag == X.tag("message") and self.script.echo:
            self.send_message(X.text_of(elem, "body") or "")

    def _answer_iq(self, elem):
        inner = ""
        if elem.find(X.tag("bind", X.NS_BIND)) is not None:
            self.jid = f"{self.user or f'anon{self.number}'}@example.com/r{self.number}"
            inner = f"<bind xmlns='{X.NS_BIND}'><jid>{self.jid}</jid></bind>"
        self.send(f"<iq xmlns='jabber:client' type='result' id='{X.escape(elem.get('id', ''))}'>{inner}</iq>")


def stream_error(condition, text=None, extra="", prefix="stream"):
    note = f"<text xmlns='{X.NS_STREAM_ERRORS}' xml:lang='en'>{X.escape(text)}</text>" if text else ""
    return f"<{prefix}:error><{condition} xmlns='{X.NS_STREAM_ERRORS}'/>{note}{extra}</{prefix}:error>"


class StubServer:
    """Listens on host:port; port 0: a free one."""

    def __init__(self, host="127.0.0.1", port=0):
        self.host, self._family = host, socket.AF_INET6 if ":" in host else socket.AF_INET
        self.script = Script()
        self.changed = threading.Condition(threading.RLock())
        self.sessions, self._accepted = [], 0
        self._timers, self._order = [], itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._todo = []
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)
        self._listener = None
        self.port = port
        self.listen()
        self._thread = threading.Thread(target=self._run, name="stub", daemon=True)
        self._running = True
        self._thread.start()

    @property
    def address(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def upstream(self, domain="example.com", options="tls=off"):
        """A line for BoshUpstream."""
        return f"{domain} {self.address} {options}"

    # ---- for tests ----

    def accept(self, timeout=5.0):
        """The next new connection; each is returned once, in the order of their arrival."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sessions) > self._accepted, timeout * SLOW), \
                f"stub: no new connection within {timeout} s"
            self._accepted += 1
            return self.sessions[self._accepted - 1]

    def wait(self, predicate, timeout=5.0, what=None):
        with self.changed:
            value = self.changed.wait_for(predicate, timeout * SLOW)
            assert value, f"stub: not within {timeout} s: {what or predicate}"
            return value

    def new_connections(self):
        """How many connections accept() has not returned yet."""
        with self.changed:
            return len(self.sessions) - self._accepted

    def live(self):
        with self.changed:
            return [s for s in self.sessions if not (s.eof or s.reset_by_peer or s.closed_by_us)]

    def reset(self):
        """Before each test: the default script, all connections closed and forgotten."""
        self.script = Script()
        for s in self.live():
            s.close()
        with self.changed:
            self.sessions, self._accepted = [], 0
        if self._listener is None:
            self.listen()

    def refuse(self):
        """Stops listening: connections to the port are refused, until listen()."""
        listener, self._listener = self._listener, None
        self._call(lambda: self._forget(listener))

    def listen(self):
        s = socket.socket(self._family)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((self.host, self.port))
        s.listen(4096)
        s.setblocking(False)
        self.port, self._listener = s.getsockname()[1], s
        self._call(lambda: self._selector.register(s, selectors.EVENT_READ, "listen"))

    def stop(self):
        for s in self.live():
            s.close()
        self._call(lambda: setattr(self, "_running", False))
        self._thread.join(5)

    # ---- the thread ----

    def later(self, delay, call):
        """Runs call() on the stub's thread after delay seconds."""
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), call))

    def drop(self, session):
        self._call(lambda: self._forget(session.sock))

    def _call(self, function):
        """Has the stub's thread run function() soon."""
        with self.changed:
            self._todo.append(function)
        self._wake_w.send(b"x")

    def _forget(self, sock):
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):
            pass
        sock.close()

    def _run(self):
        while self._running:
            timeout = max(0, self._timers[0][0] - time.monotonic()) if self._timers else 1.0
            for key, _ in self._selector.select(timeout):
                if key.data is None:
                    self._drain_calls()
                elif key.data == "listen":
                    self._take(key.fileobj)
                else:
                    self._read(key.data)
            self._run_timers()

    def _drain_calls(self):
        try:
            self._wake_r.recv(4096)
        except BlockingIOError:
            pass
        with self.changed:
            todo, self._todo = self._todo, []
        for function in todo:
            function()

    def _run_timers(self):
        while self._timers and self._timers[0][0] <= time.monotonic():
            call = heapq.heappop(self._timers)[2]
            try:
                call()
            except OSError:
                pass  # the connection has gone meanwhile

    def _take(self, listener):
        while True:
            try:
                sock, peer = listener.accept()
            except OSError:
                return
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = StubSession(self, sock, peer)
            if session.script.tls == "direct":
                session.start_tls()
            self._selector.register(sock, selectors.EVENT_READ, session)
            with self.changed:
                self.sessions.append(session)
                self.changed.notify_all()

    def _read(self, session):
        try:
            data = session.sock.recv(262144)
        except ConnectionResetError:
            self._gone(session, "reset", "reset_by_peer")
            return
        except OSError:
            self._gone(session, "eof", "eof")
            return
        if not data:
            self._gone(session, "eof", "eof")
            return
        try:
            session.feed(data)
        except OSError:
            pass  # an automatic answer met a closed connection
        with self.changed:
            self.changed.notify_all()

    def _gone(self, session, kind, field):
        try:
            self._selector.unregister(session.sock)
        except (KeyError, ValueError):
            pass
        with self.changed:
            setattr(session, field, time.monotonic())
            session.seen.append((kind, None))
            self.changed.notify_all()
        if session.script.auto and not session.closed_by_us:
            session.closed_by_us = True
            session.sock.close()


def bodies_of(elements):
    return [X.text_of(e, "body") for e in elements if isinstance(e, ET.Element) and e.tag == X.tag("message")]
