# SPDX-License-Identifier: Apache-2.0
"""Sessions outlive the child that owns their stream: restarts, recycling, idle reaping, and what a stop is."""

import re
import signal
import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import TB, new_body

pytestmark = pytest.mark.skipif(VALGRIND, reason="one process under valgrind")

STOP = 7  # seconds: httpd kills children that do not end after ten

GAVE = re.compile(r"gave (\d+) streams to (\d+) peers in (\d+) ms, (\d+) came back")


def insist(send, patience=20):
    """(answer, how often it was sent again): what send() sends is sent again, as clients do, when its connection
    breaks or nothing comes for so long."""
    deadline = time.monotonic() + 30 * SLOW
    repeats = 0
    while time.monotonic() < deadline:
        try:
            exchange = send()
            exchange.event.wait(patience)
        except OSError:
            time.sleep(0.02)  # between two generations nobody accepts
            continue
        if exchange.result:
            return exchange.answer(), repeats
        repeats += 1
        time.sleep(0.02)
    raise AssertionError("no answer within 30 s")


class Traffic:
    """Sessions that all talk at once, both ways, numbered; a thread for each client, one for the server."""

    def __init__(self, client, stub, n, pause=0.05, wait=5, patience=20):
        self.client, self.stub, self.pause, self.patience = client, stub, pause, patience
        self.sessions = [client.login(stub, f"u{i}", wait=wait) for i in range(n)]
        self.sent, self.got = [[] for _ in range(n)], [[] for _ in range(n)]
        self.pushed = [0] * n
        self.errors, self.slowest, self.repeats = [], 0.0, 0
        self.running = True
        self.threads = [threading.Thread(target=self._guard, args=(self._talk, i), daemon=True) for i in range(n)]
        self.threads.append(threading.Thread(target=self._guard, args=(self._push,), daemon=True))
        for thread in self.threads:
            thread.start()

    def _guard(self, function, *args):
        try:
            function(*args)
        except BaseException as err:  # told by finish()
            self.errors.append((args, repr(err)[:600]))

    def _answer(self, session, payload):
        """The answer to the next request."""
        session.rid += 1
        start = time.monotonic()
        answer, repeats = insist(lambda: session.send(session.rid, payload), self.patience)
        assert answer.attr("type") is None, f"the session ended: {answer}"
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.repeats += repeats
        return answer

    def _talk(self, i):
        session, _ = self.sessions[i]
        while self.running:
            text = f"c{len(self.sent[i])}"
            self.sent[i].append(text)
            self.got[i] += self._answer(session, X.message(text)).texts()

    def _push(self):
        """Each message in two pieces, so that at any moment some stream is in the middle of one."""
        while self.running:
            cut = {}
            for i, (_, upstream) in enumerate(self.sessions):
                data = X.message(f"s{self.pushed[i]}", to="alice@example.com").encode()
                self.pushed[i] += 1
                at = 1 + (self.pushed[i] * 37 + i * 11) % (len(data) - 2)
                upstream.send(data[:at])
                cut[i] = data[at:]
            time.sleep(self.pause)
            for i, (_, upstream) in enumerate(self.sessions):
                upstream.send(cut[i])

    def finish(self):
        """Stops, fetches what is left, and checks that each side got just what the other sent."""
        self.running = False
        for thread in self.threads:
            thread.join(60)
        assert not self.errors, self.errors[:3]
        for i, (session, upstream) in enumerate(self.sessions):
            deadline = time.monotonic() + 20
            while len(self.got[i]) < self.pushed[i] and time.monotonic() < deadline:
                self.got[i] += self._answer(session, "").texts()
            assert self.got[i] == [f"s{k}" for k in range(self.pushed[i])], f"session {i}, to the client"
            assert upstream.wait_bodies(len(self.sent[i])) == self.sent[i], f"session {i}, to the server"
        return sum(self.pushed) + sum(map(len, self.sent))


def old_ones_end(server, before, timeout=15):
    wait_for(lambda: not set(before) & set(server.children()), timeout, "the old children end")


def hand_overs(server):
    """(streams, came back) of each line in the error log."""
    return [(int(m.group(1)), int(m.group(4))) for m in map(GAVE.search, server.log_lines()) if m]


def restart_under_traffic(server, stub, sessions, restarts, may_come_back=False):
    client = server.client()
    traffic = Traffic(client, stub, sessions)
    flat = None
    for _ in range(restarts):
        before = server.children()
        done = sum(map(len, traffic.sent))
        server.graceful()
        wait_for(lambda: sum(map(len, traffic.sent)) > done + sessions or traffic.errors, 20, "traffic goes on")
        assert not traffic.errors, traffic.errors[:3]
        old_ones_end(server, before)
        fds = server.fds_of(server.process.pid)
        flat = fds if flat is None else flat
        assert fds <= flat, "the parent's descriptors grow"
    stanzas = traffic.finish()
    moves = hand_overs(server)
    assert sum(n for n, _ in moves) >= sessions * restarts, moves
    assert may_come_back or sum(back for _, back in moves) == 0, moves
    print(f"\n{server.mpm}: {restarts} restarts, {sessions} sessions, {stanzas} stanzas, "
          f"slowest answer {traffic.slowest * 1000:.0f} ms, {traffic.repeats} requests sent again")
    client.close()


@pytest.mark.limit(240)
@pytest.mark.rows("B-128")
def test_20_graceful_restarts_on_event(httpd, stub):
    server = httpd(children=2, threads=32, upstreams=[stub.upstream()])
    restart_under_traffic(server, stub, 50, 20)


@pytest.mark.limit(120)
def test_5_graceful_restarts_on_worker(httpd, stub):
    server = httpd(mpm="worker", children=2, threads=32, upstreams=[stub.upstream()])
    restart_under_traffic(server, stub, 20, 5)


@pytest.mark.limit(120)
@pytest.mark.parametrize("slack", [12, 0], ids=["slack", "full"])
def test_5_graceful_restarts_on_prefork(httpd, stub, slack):
    """Full: no new child can start before an old one has gone, so the old ones gather the streams first; one
    that has just gone itself does not take them, and they come back to be given to another."""
    server = httpd(mpm="prefork", children=12, upstreams=[stub.upstream()],
                   directives=f"MaxRequestWorkers {12 + slack}\n")
    restart_under_traffic(server, stub, 6, 5, may_come_back=slack == 0)


@pytest.mark.limit(120)
@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_children_are_recycled(httpd, stub, mpm):
    """MaxConnectionsPerChild: the same generation takes over."""
    prefork = mpm == "prefork"
    server = httpd(mpm=mpm, children=8 if prefork else 2, threads=16, upstreams=[stub.upstream()],
                   directives="MaxConnectionsPerChild 40\n" + ("MaxRequestWorkers 16\n" if prefork else ""))
    client = server.client()
    first = set(server.children())
    traffic = Traffic(client, stub, 5)
    wait_for(lambda: not first & set(server.children()) or traffic.errors, 60, "all children are replaced")
    traffic.finish()
    assert hand_overs(server)
    client.close()


@pytest.mark.limit(120)
def test_idle_children_are_reaped(httpd, stub):
    server = httpd(children=1, threads=8, max_spare=12, upstreams=[stub.upstream()],
                   directives="MinSpareThreads 4\nMaxRequestWorkers 16\n")
    client = server.client()
    one, = server.children()
    sessions = [client.start(stub, wait=30)]
    busy = [client.connect() for _ in range(8)]
    for conn in busy:  # half a request keeps a worker: fewer than four are idle, so another child comes
        conn.send(client.head(1000) + b"<body")
    other, = wait_for(lambda: set(server.children()) - {one}, 20, "another child")
    sessions.append(client.start(stub, server.taken_by(other, lambda: client.new_async(wait=30))))
    owners = {server.owner_of(upstream.peer_port) for _, upstream in sessions}
    assert owners == {one, other}
    for conn in busy:  # now twelve and more are, so a child has to go
        conn.close()
    wait_for(lambda: owners - set(server.children()), 60, "a child is reaped")
    for i, (session, upstream) in enumerate(sessions):
        session.send_next(X.message(f"up{i}"))
        assert upstream.wait_bodies(1) == [f"up{i}"]
        upstream.send_message(f"down{i}")
        assert session.texts(1) == [f"down{i}"]
    assert hand_overs(server)
    client.close()


@pytest.mark.limit(90)
def test_every_phase_moves(httpd, stub):
    """Before the header, before the features, in the middle of SASL, in the middle of a restart, half a stanza."""
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    stub.script.auto = False
    header = client.new_async(wait=30)
    in_header = stub.accept()
    in_header.wait_header()
    features = client.new_async(wait=30)
    in_features = stub.accept()
    in_features.wait_header()
    in_features.send_header()
    in_features.wait_read()
    stub.script = type(stub.script)()
    stub.script.sasl = None
    sasl, in_sasl = client.start(stub)
    sasl.send_next("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
    in_sasl.wait_stanza("auth", ns=X.NS_SASL)
    stub.script = type(stub.script)()
    again, in_restart = client.start(stub)
    in_restart.script.auto = False
    again.restart()
    in_restart.wait_header(2)
    stub.script = type(stub.script)()
    half, in_half = client.start(stub)
    in_half.send("<message xmlns='jabber:client'><body>ha")
    in_half.wait_read()
    before = server.children()
    server.graceful()
    old_ones_end(server, before)
    for upstream in (in_header, in_features):
        upstream.script = stub.script
    in_header.send_header()
    in_header.send_features("<a xmlns='a'/>")
    in_features.send_features("<a xmlns='a'/>")
    for exchange in (header, features):  # answered empty when its child stopped, or with the features
        session = client.session(exchange)
        if not any(k.tag == X.tag("features", X.NS_STREAMS) for k in session.creation.kids):
            session.until("features", X.NS_STREAMS)
    in_sasl.send("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
    sasl.until("success", X.NS_SASL)
    in_restart.send_header()
    in_restart.send_features("<b xmlns='b'/>")
    again.until("features", X.NS_STREAMS)
    in_half.send("lf</body></message>")
    assert half.texts(1) == ["half"]
    client.close()


@pytest.mark.rows("B-084")
def test_a_domain_removed_lives_on_in_its_sessions(httpd, stub):
    server = httpd(children=2, upstreams=[stub.upstream("gone.example"), stub.upstream()])
    client = server.client()
    session, upstream = client.start(stub, to="gone.example")
    other, other_upstream = client.start(stub)
    server.upstreams = server.upstreams[1:]
    server.write_config()
    before = server.children()
    server.graceful()
    old_ones_end(server, before)
    TB(client.post(new_body(to="gone.example")).answer(), "host-gone", "host-unknown")
    for s, u in ((session, upstream), (other, other_upstream)):
        s.send_next(X.message("still"))
        assert u.wait_bodies(1) == ["still"]
        u.send_message("here")
        assert s.texts(1) == ["here"]
    client.close()


def test_a_wrong_configuration_changes_nothing(httpd, stub):
    """apachectl asks httpd -t before it sends the signal; that touches nothing that runs."""
    server = httpd(children=2, upstreams=[stub.upstream()])
    client = server.client()
    session, upstream = client.start(stub)
    server.directives = "BoshMaxWait nonsense\n"
    code, said = server.check_config()
    assert code != 0 and "BoshMaxWait" in said
    server.directives = ""
    session.send_next(X.message("still"))
    assert upstream.wait_bodies(1) == ["still"]
    client.close()


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_stop_is_fast(httpd, stub, mpm):
    server = httpd(mpm=mpm, children=6 if mpm == "prefork" else 2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    sessions = [client.start(stub) for _ in range(4)]
    server._settle()
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    took = time.monotonic() - start
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed()
        assert upstream.ended, "the stream was not closed properly"
    server.forget()
    assert took < STOP, f"{took:.2f} s"


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.rows("B-309")
def test_stop_in_the_middle_of_draining(httpd, stub, mpm):
    """A child that waits for its successor takes SIGTERM itself."""
    server = httpd(mpm=mpm, children=6 if mpm == "prefork" else 2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    sessions = [client.start(stub) for _ in range(4)]
    server.graceful_stop()  # nobody comes to take over: five seconds of waiting
    time.sleep(1)
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    took = time.monotonic() - start
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed()
    server.forget()
    assert took < STOP, f"{took:.2f} s"


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.rows("B-309", "R-08")
def test_graceful_stop(httpd, stub, mpm):
    server = httpd(mpm=mpm, children=6 if mpm == "prefork" else 2, threads=16, upstreams=[stub.upstream()],
                   directives="GracefulShutdownTimeout 15\n")
    client = server.client()
    sessions = [client.start(stub) for _ in range(4)]
    start = time.monotonic()
    server.graceful_stop()
    server.process.wait(20)
    took = time.monotonic() - start
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed()
        assert upstream.ended, "the stream was not closed properly"
    assert "system-shutdown" in "".join(server.log_lines())
    server.forget()
    assert took < 12, f"{took:.2f} s"  # not only because GracefulShutdownTimeout has passed


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_the_parent_does_not_sleep(httpd, stub, mpm):
    """BoshQuickRestart: from the signal to the first answer of the new generation."""
    server = httpd(mpm=mpm, children=4 if mpm == "prefork" else 2, threads=16, upstreams=[stub.upstream()],
                   directives="MaxRequestWorkers 8\n" if mpm == "prefork" else "")
    client = server.client()
    client.start(stub)
    took = []
    for _ in range(4):
        before = set(server.children())
        start = time.monotonic()
        server.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: set(server.children()) - before, 5, "a new child", interval=0.002)
        took.append(time.monotonic() - start)
        old_ones_end(server, before)
    print(f"\n{mpm}: new children after {[f'{t * 1000:.0f} ms' for t in took]}")
    assert min(took) < 0.9, took  # a parent that sleeps takes a second each time
    client.close()
