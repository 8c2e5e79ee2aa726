# SPDX-License-Identifier: Apache-2.0
"""A scripted name server: UDP and TCP on one port of 127.0.0.1, with whatever faults a test wants.

    ns = NameServer()
    ns.srv("_xmpp-client._tcp.a.example", 10, 0, 5222, "host.a.example")
    ns.add("host.a.example", "A", "127.0.0.1", ttl=5)
    ns.add("alias.example", "CNAME", "host.a.example")
    ns.fault("b.example", rcode=SERVFAIL)             every question about that name (or qtype="A" alone)
    ns.fault("b.example", drop=2)                     the first two packets are lost; drop=True: all
    ns.fault("b.example", delay=1.0)                  answered later
    ns.fault("b.example", truncate=True)              by UDP only that TCP is to be asked
    ns.fault("b.example", raw=lambda query: b"...")   any bytes
    ns.asked("host.a.example", "A")                   how often that was asked; asked(name): of any type

Names that nobody has added do not exist (NXDOMAIN).
"""

import heapq
import itertools
import selectors
import socket
import struct
import threading
import time

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28, "SRV": 33}
NAMES = {number: name for name, number in TYPES.items()}
SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 2, 3, 4, 5


def encode_name(name):
    labels = [part.encode() for part in name.rstrip(".").split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in labels) + b"\0"


def read_name(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 1


def encode_data(qtype, data):
    if qtype == "A":
        return socket.inet_pton(socket.AF_INET, data)
    if qtype == "AAAA":
        return socket.inet_pton(socket.AF_INET6, data)
    if qtype == "CNAME":
        return encode_name(data)
    priority, weight, port, target = data
    return struct.pack("!HHH", priority, weight, port) + encode_name(target)


class Fault:
    def __init__(self, qtype=None, rcode=None, drop=0, delay=0.0, truncate=False, raw=None):
        self.qtype, self.rcode, self.drop, self.delay = qtype, rcode, drop, delay
        self.truncate, self.raw = truncate, raw


class NameServer:
    def __init__(self):
        self._lock = threading.Lock()
        self._records, self._faults = {}, {}  # by name: [(type, data, ttl)], [Fault]
        self.questions = []  # (time, name, type, "udp" | "tcp")
        self._selector = selectors.DefaultSelector()
        self._late, self._order = [], itertools.count()
        self._open()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="nameserver", daemon=True)
        self._thread.start()

    def _open(self):
        for _ in range(50):  # until a port is free for both
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind(("127.0.0.1", 0))
            self.port = self._udp.getsockname()[1]
            self._tcp = socket.socket()
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._tcp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self._udp.close()
                self._tcp.close()
        self._tcp.listen(64)
        self._selector.register(self._udp, selectors.EVENT_READ, "udp")
        self._selector.register(self._tcp, selectors.EVENT_READ, "listen")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    # ---- for tests ----

    def add(self, name, qtype, data, ttl=60):
        with self._lock:
            self._records.setdefault(name.lower().rstrip("."), []).append((qtype, data, ttl))

    def srv(self, name, priority, weight, port, target, ttl=60):
        self.add(name, "SRV", (priority, weight, port, target), ttl)

    def remove(self, name):
        with self._lock:
            self._records.pop(name.lower(), None)
            self._faults.pop(name.lower(), None)

    def fault(self, name, **what):
        with self._lock:
            self._faults.setdefault(name.lower(), []).append(Fault(**what))

    def asked(self, name, qtype=None, proto=None):
        with self._lock:
            return sum(1 for _, n, t, p in self.questions
                       if n == name.lower() and qtype in (None, t) and proto in (None, p))

    def stop(self):
        self._running = False
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()

    # ---- answers ----

    def _find(self, name, qtype):
        """[(owner, type, data, ttl)] with the CNAMEs that lead there, and whether the name exists."""
        found, seen = [], set()
        while name in self._records and name not in seen:
            seen.add(name)
            own = [(name, t, d, ttl) for t, d, ttl in self._records[name] if t == qtype]
            if own:
                return found + own, True
            alias = [(name, t, d, ttl) for t, d, ttl in self._records[name] if t == "CNAME"]
            if not alias:
                return found, True
            found += alias
            name = alias[0][2].lower().rstrip(".")
        return found, bool(seen)

    @staticmethod
    def _message(query, answers, rcode=0, truncated=False):
        ident, flags = struct.unpack("!HH", query[:4])
        end = read_name(query, 12)[1] + 4
        flags = 0x8080 | (flags & 0x0100) | rcode | (0x0200 if truncated else 0)
        out = struct.pack("!HHHHHH", ident, flags, 1, len(answers), 0, 0) + query[12:end]
        for owner, qtype, data, ttl in answers:
            rdata = encode_data(qtype, data)
            out += encode_name(owner) + struct.pack("!HHIH", TYPES[qtype], 1, ttl, len(rdata)) + rdata
        return out

    def _answer(self, query, proto):
        """(delay, bytes), or None: nothing is said."""
        name, at = read_name(query, 12)
        qtype = NAMES.get(struct.unpack("!H", query[at:at + 2])[0], "?")
        with self._lock:
            self.questions.append((time.monotonic(), name, qtype, proto))
            delay = 0.0
            for fault in self._faults.get(name, []):
                if fault.qtype not in (None, qtype):
                    continue
                if fault.drop:
                    if fault.drop is not True:
                        fault.drop -= 1
                    return None
                delay = fault.delay
                if fault.raw:
                    return delay, fault.raw(query)
                if fault.rcode:
                    return delay, self._message(query, [], fault.rcode)
                if fault.truncate and proto == "udp":
                    return delay, self._message(query, [], truncated=True)
            answers, exists = self._find(name, qtype)
        text = self._message(query, answers, 0 if exists else NXDOMAIN)
        if proto == "udp" and len(text) > 512:
            text = self._message(query, [], truncated=True)
        return delay, text

    # ---- the thread ----

    def _send(self, delay, send):
        heapq.heappush(self._late, (time.monotonic() + delay, next(self._order), send))

    def _run(self):
        while self._running:
            wait = min(0.1, max(0, self._late[0][0] - time.monotonic())) if self._late else 0.1
            for key, _ in self._selector.select(wait):
                if key.data == "udp":
                    self._read_udp()
                elif key.data == "listen":
                    sock = self._tcp.accept()[0]
                    self._selector.register(sock, selectors.EVENT_READ, bytearray())
                else:
                    self._read_tcp(key.fileobj, key.data)
            while self._late and self._late[0][0] <= time.monotonic():
                try:
                    heapq.heappop(self._late)[2]()
                except OSError:
                    pass  # nobody waits for it any more

    def _read_udp(self):
        query, peer = self._udp.recvfrom(4096)
        answer = self._answer(query, "udp")
        if answer:
            self._send(answer[0], lambda: self._udp.sendto(answer[1], peer))

    def _read_tcp(self, sock, have):
        try:
            data = sock.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            sock.close()
            return
        have += data
        while len(have) >= 2 and len(have) >= 2 + struct.unpack("!H", have[:2])[0]:
            n = struct.unpack("!H", have[:2])[0]
            answer = self._answer(bytes(have[2:2 + n]), "tcp")
            del have[:2 + n]
            if answer:
                text = struct.pack("!H", len(answer[1])) + answer[1]
                self._send(answer[0], lambda text=text: sock.sendall(text))
