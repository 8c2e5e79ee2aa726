# SPDX-License-Identifier: Apache-2.0
"""Streams with TLS when their child stops: they stay with it, for a time, and are in nobody's way."""

import re
import signal
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from certs import Authority, context
from client import TB
from stub import PROCEED, STARTTLS

pytestmark = pytest.mark.skipif(VALGRIND, reason="one process under valgrind")

MPMS = ["event", "worker", "prefork"]
REMOTE = "remote-connection-failed"
STAYED = re.compile(r"(\d+) streams with TLS stayed for up to (\d+) s; (\d+) ended by themselves, (\d+) sessions were "
                    r"ended by BoshDrainTimeout, (\d+) to make room")


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def secure(ca):
    return context(ca.issue("x", ["DNS:example.com"]))


@pytest.fixture
def tls(stub, secure):
    """The stub speaks direct TLS."""
    stub.script.tls, stub.script.tls_context = "direct", secure
    return stub


@pytest.fixture
def started(httpd, stub_server, ca):
    """started(mpm, directives, ...): a server whose upstream has TLS, and a client of it."""
    clients = []

    def start(mpm="event", directives="", children=None, slack=True, **options):
        prefork = mpm == "prefork"
        children = children or (6 if prefork else 2)
        if prefork and slack:
            directives += f"MaxRequestWorkers {3 * children}\nServerLimit {3 * children}\n"
        if mpm == "worker" and slack:  # why: test_991_stop.py, test_the_only_child_is_recycled
            directives += (f"MaxRequestWorkers {3 * 16 * children}\nServerLimit {3 * children}\n"
                           f"MinSpareThreads {16 * (children - 1) + 1}\n")
        lines = [f"example.com {stub_server.address} tls={options.pop('policy', 'direct')} ca={ca.pem}",
                 f"plain.example {stub_server.address} tls=off"]
        server = httpd(mpm=mpm, children=children, threads=16, upstreams=lines, directives=directives, **options)
        clients.append(server.client())
        return server, clients[-1]
    yield start
    for client in clients:
        client.close()


def chat(session, upstream, i=0):
    """A message each way. A request meets a restart now and then: it is sent again when its connection breaks."""
    done = len(upstream.bodies())
    upstream.send_message(f"up{i}")
    got = [text for x in session.exchanges if not x.taken for text in x.answer(15).texts()]
    got += answer_of(session, X.message(f"down{i}")).texts()
    while not got:
        got += answer_of(session).texts()
    assert got == [f"up{i}"]
    assert upstream.wait_bodies(done + 1)[-1] == f"down{i}"


def answer_of(session, payload="", timeout=15):
    """The answer to the next request, sent again when its connection breaks."""
    session.rid += 1
    deadline = time.monotonic() + timeout * SLOW
    while time.monotonic() < deadline:
        try:
            exchange = session.send(session.rid, payload)
            exchange.event.wait(timeout)
        except OSError:
            time.sleep(0.02)  # between two generations nobody accepts
            continue
        if exchange.result:
            return exchange.answer()
        exchange.taken = True
        time.sleep(0.02)
    raise AssertionError(f"no answer within {timeout} s")


def wait_for_end(session, condition, timeout=15):
    deadline = time.monotonic() + timeout * SLOW
    answer = answer_of(session)
    while answer.attr("type") is None and time.monotonic() < deadline:
        answer = answer_of(session)
    TB(answer, condition)
    session.over = True


def stayed(server):
    """(streams, seconds, by themselves, by the time-out, for want of room) of each child that has lingered."""
    return [tuple(map(int, m.groups())) for m in map(STAYED.search, server.log_lines()) if m]


def total(server, field):
    return sum(entry[field] for entry in stayed(server))


@pytest.mark.limit(120)
@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.rows("B-128")
def test_sessions_go_on_with_the_old_child(started, tls, mpm):
    server, client = started(mpm)
    sessions = [client.login(tls, f"u{i}", wait=5) for i in range(5)]
    owners = {server.owner_of(upstream.peer_port) for _, upstream in sessions}
    for i in range(2):
        server.graceful()
        for session, upstream in sessions:
            chat(session, upstream, i)
    assert owners <= set(server.children())
    new = client.login(tls, "late", wait=5)
    assert server.owner_of(new[1].peer_port) not in owners
    chat(*new)
    assert tls.new_connections() == 0, "somebody connected anew"
    for session, upstream in sessions:
        assert not (upstream.eof or upstream.reset_by_peer)
        session.terminate()
        upstream.wait_closed()
        assert upstream.close_notify
    wait_for(lambda: not owners & set(server.children()), 15, "the old children end with their last stream")
    wait_for(lambda: total(server, 0) == 5, 5, "lines in the log")
    assert total(server, 2) == 5 and total(server, 3) == total(server, 4) == 0


@pytest.mark.limit(90)
@pytest.mark.parametrize("mpm", MPMS)
def test_the_time_out(started, tls, mpm):
    server, client = started(mpm, "BoshDrainTimeout 6\n")
    sessions = [client.login(tls, f"u{i}", wait=5) for i in range(3)]
    owners = {server.owner_of(upstream.peer_port) for _, upstream in sessions}
    before = set(server.children())
    start = time.monotonic()
    server.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: set(server.children()) - before, 20, "a child of the new generation")  # its last one may be late
    for session, upstream in sessions:
        chat(session, upstream)
    for session, upstream in sessions:
        wait_for_end(session, REMOTE)
        upstream.wait_closed()
        assert upstream.ended and upstream.close_notify, "the stream was not closed properly"
    assert 5 < time.monotonic() - start < 30 * SLOW
    wait_for(lambda: not owners & set(server.children()), 10, "the old children end")
    wait_for(lambda: total(server, 3) == 3, 5, "lines in the log")
    chat(*client.login(tls, "again", wait=5))


@pytest.mark.limit(60)
def test_no_time_at_all(started, tls):
    server, client = started(directives="BoshDrainTimeout 0\n")
    session, upstream = client.login(tls, wait=5)
    start = time.monotonic()
    server.graceful()
    wait_for_end(session, REMOTE)
    upstream.wait_closed()
    assert time.monotonic() - start < 10 * SLOW


@pytest.mark.limit(60)
def test_plain_streams_move_meanwhile(started, tls):
    server, client = started(children=1)
    secure = client.login(tls, wait=5)
    tls.script = type(tls.script)()
    plain = client.login(tls, wait=5, to="plain.example")
    old = server.owner_of(secure[1].peer_port)
    assert server.owner_of(plain[1].peer_port) == old
    server.graceful()
    wait_for(lambda: server.owner_of(plain[1].peer_port) not in (old, None), 10, "the plain stream moves")
    assert server.owner_of(secure[1].peer_port) == old
    for i in range(2):
        chat(*secure, i)
        chat(*plain, i)


@pytest.mark.limit(90)
def test_a_child_that_is_recycled(started, tls):
    """Nor does it keep a connection that it accepted last of all."""
    server, client = started(directives="MaxConnectionsPerChild 30\n")
    tls.script.echo = True  # so that each request is answered at once
    sessions = [client.login(tls, f"u{i}", wait=2) for i in range(3)]
    owners = {server.owner_of(upstream.peer_port) for _, upstream in sessions}
    seen = set(server.children())
    for i in range(200):
        for session, upstream in sessions:
            answer = answer_of(session, X.message(f"{i}"))
            assert answer.attr("type") is None, answer
            assert upstream.wait_bodies(i + 1)[-1] == f"{i}"
        seen |= set(server.children())
        if len(seen) >= 8:
            break
    assert len(seen) >= 8, "no child was recycled"
    assert owners <= set(server.children()) and tls.new_connections() == 0


@pytest.mark.limit(60)
@pytest.mark.parametrize("mpm", MPMS)
def test_stop_while_they_linger(started, tls, mpm):
    server, client = started(mpm)
    sessions = [client.login(tls, wait=5) for _ in range(3)]
    server.graceful()
    for session, upstream in sessions:
        chat(session, upstream)
        session.over = True
    server._settle()
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(12)
    took = time.monotonic() - start
    for _, upstream in sessions:
        upstream.wait_closed()
        assert upstream.ended, "the stream was not closed properly"
    server.forget()
    assert took < 10, f"{took:.2f} s"


@pytest.mark.limit(60)
def test_graceful_stop_with_tls(started, tls):
    server, client = started(directives="GracefulShutdownTimeout 20\n")
    session, upstream = client.login(tls, wait=5)
    session.over = True
    start = time.monotonic()
    server.graceful_stop()
    server.process.wait(15)
    took = time.monotonic() - start
    upstream.wait_closed()
    assert upstream.ended
    assert "system-shutdown" in "".join(server.log_lines())
    server.forget()
    assert took < 14, f"{took:.2f} s"


@pytest.mark.limit(90)
@pytest.mark.parametrize("mpm, limits", [("event", "ServerLimit 2\n"), ("prefork", "MaxRequestWorkers 6\nServerLimit 6\n")])
def test_they_yield_when_the_scoreboard_is_full(started, tls, mpm, limits):
    """Without it nobody would be served until the last of them has ended."""
    server, client = started(mpm, limits, slack=False)
    server.expect_log("BH011|AH03490|AH00161|AH00484")
    sessions = [client.login(tls, f"u{i}", wait=5) for i in range(8)]
    owners = {server.owner_of(upstream.peer_port) for _, upstream in sessions}
    start = time.monotonic()
    server.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: total(server, 4) > 0, 20, "a child yields")
    wait_for(lambda: set(server.children()) - owners, 20, "a new child")
    ended = 0
    for session, upstream in sessions:
        answer = answer_of(session)
        if answer.attr("type") is not None:
            TB(answer, REMOTE)
            session.over = True
            upstream.wait_closed()
            ended += 1
    # As many as stood in the way, so perhaps not all.
    assert ended > 0 and total(server, 3) == 0
    chat(*client.login(tls, "again", wait=5))
    took = time.monotonic() - start
    assert took < 30 * SLOW, f"{took:.1f} s"
    for session, _ in sessions:
        if not session.over:
            session.terminate()
    wait_for(lambda: not owners & set(server.children()), 15, "the old children end")


@pytest.mark.limit(60)
def test_the_start_tells_that_there_is_no_room(started, httpd, tls):
    server, _ = started(directives="ServerLimit 3\n")
    assert any("BH011" in line and "set it to 4" in line for line in server.log_lines())
    server.expect_log("BH011")
    quiet, _ = started(directives="ServerLimit 3\nBoshDrainTimeout 0\n")
    assert not any("BH011" in line for line in quiet.log_lines())


@pytest.mark.limit(60)
def test_a_killed_child_takes_its_tls_streams_along(started, tls):
    server, client = started(children=3)
    sessions = [client.login(tls, f"u{i}", wait=5) for i in range(9)]
    owner = {session: server.owner_of(upstream.peer_port) for session, upstream in sessions}
    victim = owner[sessions[0][0]]
    server.expect_log(r"BH204")
    killed = time.monotonic()
    server.kill_child(victim)
    for session, upstream in sessions:
        if owner[session] == victim:
            wait_for_end(session, REMOTE)
            upstream.wait_closed()
    assert time.monotonic() - killed < 10 * SLOW
    for i, (session, upstream) in enumerate(sessions):
        if owner[session] != victim:
            chat(session, upstream, i)


@pytest.mark.limit(60)
@pytest.mark.parametrize("when", ["features", "proceed", "handshake"])
def test_killed_before_tls_is_there(started, tls, when):
    """Nothing of the client's was said yet: another child connects anew, and the client notices nothing."""
    server, client = started(policy="starttls")
    tls.script.tls = "starttls"
    tls.script.auto = False
    exchange = client.new_async(wait=30)
    upstream = tls.accept()
    upstream.wait_header()
    upstream.send_header()
    if when != "features":
        upstream.send(f"<stream:features>{STARTTLS}</stream:features>")
        upstream.wait_stanza("starttls", ns=X.NS_TLS)
    if when == "handshake":
        upstream.send(PROCEED)
        wait_for(lambda: b"\x16\x03" in upstream.received, 5, "a ClientHello")
    # The child that has the stream may hold the request, too: its client sends it again.
    server.expect_log("BH204")
    secure = tls.script.tls_context
    tls.script = type(tls.script)()
    tls.script.tls, tls.script.tls_context = "starttls", secure
    victim = server.owner_of(upstream.peer_port)
    holder = server.owner_of_connection(exchange.conn.local_port)
    server.kill_child(victim)
    second = tls.accept(10)
    second.wait_header(2, 10)
    assert second.tls is not None
    if holder != victim:
        session = client.session(exchange)
        if not any(k.tag == X.tag("features", X.NS_STREAMS) for k in session.creation.kids):
            session.until("features", X.NS_STREAMS)
        session.authenticate()
        chat(session, second)
    else:
        exchange.taken = True


@pytest.mark.limit(60)
def test_a_restart_in_the_middle_of_starttls(started, tls):
    server, client = started(policy="starttls", children=1)
    tls.script.tls = "starttls"
    tls.script.auto = False
    exchange = client.new_async(wait=30)
    upstream = tls.accept()
    upstream.wait_header()
    server.graceful()
    upstream.script.auto = True
    upstream.send_header()
    upstream.send(f"<stream:features>{STARTTLS}</stream:features>")
    session = client.session(exchange)
    if not any(k.tag == X.tag("features", X.NS_STREAMS) for k in session.creation.kids):
        session.until("features", X.NS_STREAMS)
    session.authenticate()
    chat(session, upstream)
    assert tls.new_connections() == 0 and upstream.tls is not None
