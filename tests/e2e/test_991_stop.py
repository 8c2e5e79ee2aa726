# SPDX-License-Identifier: Apache-2.0
"""httpd stops, at once or gracefully, and comes back: what held requests, sessions and servers are told."""

import os
import signal
import socket
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import E, TB

pytestmark = pytest.mark.skipif(VALGRIND, reason="one process under valgrind")

MPMS = {"event": {"children": 3, "threads": 16}, "event-blocking": {"children": 2, "threads": 16,
        "directives": "BoshAsync Off\n"}, "worker": {"children": 2, "threads": 16}, "prefork": {"children": 10}}


def start(httpd, stub, kind, directives=""):
    options = dict(MPMS[kind])
    options["directives"] = options.get("directives", "") + directives
    return httpd(mpm=kind.split("-")[0], upstreams=[stub.upstream()], name=kind, **options)


def hold(client, stub, n):
    """[(session, its stream, its held request)]"""
    sessions = [client.start(stub, wait=60) for _ in range(n)]
    return [(session, upstream, session.send_next().held(0.1)) for session, upstream in sessions]


def refuses(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), 1).close()
    except OSError:
        return True
    return False


def told(server, sessions):
    """Every held request has the answer that says so, every stream was closed properly, nothing new begins."""
    for session, upstream, held in sessions:
        TB(held.answer(15), "system-shutdown")
        session.over = True
        upstream.wait_closed(10)
        assert upstream.ended, "the stream was not closed properly"
    wait_for(lambda: refuses(server), 5, "nobody accepts connections")


def gone(server, within):
    """httpd ends, all of it."""
    server.process.wait(within * SLOW)
    assert server.process.returncode == 0 and refuses(server)
    server.forget()


@pytest.mark.limit(90)
@pytest.mark.parametrize("kind", list(MPMS))
@pytest.mark.rows("B-309", "R-08")
def test_graceful_stop_tells_every_held_request(httpd, stub, kind):
    server = start(httpd, stub, kind, "GracefulShutdownTimeout 30\n")
    client = server.client()
    sessions = hold(client, stub, 6)
    server.graceful_stop()
    told(server, sessions)
    gone(server, 15)
    assert "no other child" not in "".join(server.log_lines()), "the pid file was not seen to go"


@pytest.fixture
def unseen(tmp_path):
    """A place for the pid file that children cannot look into, if they run as somebody else."""
    tmp_path.chmod(0o700)
    return f"PidFile {tmp_path}/httpd.pid\n"


@pytest.mark.limit(90)
@pytest.mark.parametrize("kind", list(MPMS))
@pytest.mark.rows("B-309")
def test_graceful_stop_where_the_pid_file_cannot_be_read(httpd, stub, unseen, kind):
    """Then nothing tells it from recycling but that nobody comes to take over."""
    server = start(httpd, stub, kind, "GracefulShutdownTimeout 30\n" + unseen)
    client = server.client()
    sessions = hold(client, stub, 6)
    server.graceful_stop()
    told(server, sessions)
    gone(server, 20)
    if os.getuid() == 0:
        assert "so the server is stopping" in "".join(server.log_lines())


@pytest.mark.limit(60)
@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_the_time_of_a_graceful_stop_is_kept(httpd, stub, unseen, mpm):
    """GracefulShutdownTimeout runs out while the children still wait for somebody to take over."""
    server = start(httpd, stub, mpm, "GracefulShutdownTimeout 1\n" + unseen)
    client = server.client()
    sessions = [client.start(stub) for _ in range(6)]
    server.graceful_stop()
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed(10)
        assert upstream.ended, "the stream was not closed properly"
    gone(server, 10)
    if os.getuid() == 0:
        log = "".join(server.log_lines())
        assert "stopped: " in log and "so the server is stopping" not in log


@pytest.mark.limit(60)
@pytest.mark.parametrize("kind", list(MPMS))
@pytest.mark.rows("B-309")
def test_stop_with_held_requests(httpd, stub, kind):
    """SIGTERM: no client is left hanging, every stream is closed properly, nothing crashes."""
    server = start(httpd, stub, kind)
    client = server.client()
    sessions = hold(client, stub, 6)
    server.process.send_signal(signal.SIGTERM)
    for session, upstream, held in sessions:
        session.over = True
        assert held.event.wait(10 * SLOW), "a connection is left hanging"
        upstream.wait_closed(10)
        assert upstream.ended, "the stream was not closed properly"
    gone(server, 10)


@pytest.mark.limit(60)
@pytest.mark.parametrize("kind", ["event", "worker", "prefork"])
def test_restart(httpd, stub, kind):
    """SIGHUP: the sessions end, are still known afterwards, and new ones begin."""
    server = start(httpd, stub, kind)
    client = server.client()
    sessions = hold(client, stub, 4)
    before = server.children()
    server.process.send_signal(signal.SIGHUP)
    for session, upstream, held in sessions:
        assert held.event.wait(10 * SLOW), "a connection is left hanging"
        upstream.wait_closed(10)
        assert upstream.ended, "the stream was not closed properly"
    wait_for(lambda: server.children() and not set(before) & set(server.children()), 15, "new children")
    for session, _, held in sessions:
        answer = held.answer() if held.result else session.send(session.rid).answer(10)
        if answer.attr("type") is None:  # it was answered just before its process went
            answer = E(answer) and session.next()
        TB(answer, "system-shutdown")
        session.over = True
    session, upstream = client.start(stub)
    session.send_next(X.message("new"))
    assert upstream.wait_bodies(1) == ["new"]
    client.close()
    server.stop()


@pytest.mark.limit(90)
@pytest.mark.parametrize("kind", ["event", "event-blocking", "worker"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_the_only_child_is_recycled(httpd, stub, unseen, kind, seen):
    """To the child the same as a graceful-stop; but another comes. (prefork does not hold meanwhile.)"""
    # worker puts the next child into a free slot, or into that of the old one if it has seen one of its threads end:
    # they may all end before the listener has said that the child is dying, and then only "scoreboard is full" (AH00288)
    # is heard until the old one is gone. So there is a free slot.
    server = httpd(mpm=kind.split("-")[0], children=1, threads=16, upstreams=[stub.upstream()], name=kind,
                   directives=MPMS[kind].get("directives", "") + "MaxConnectionsPerChild 12\n" +
                   "MinSpareThreads 1\nMaxRequestWorkers 32\n" +
                   ("" if seen else unseen))
    client = server.client()
    sessions = hold(client, stub, 3)
    first = server.children()
    until = time.monotonic() + 20 * SLOW
    while first == server.children() and time.monotonic() < until:
        try:
            client.request("GET")
        except (OSError, AssertionError):
            time.sleep(0.05)
    for i, (session, upstream, held) in enumerate(sessions):
        E(held.answer(10))
        session.send_next(X.message(f"up{i}"))
        assert upstream.wait_bodies(1) == [f"up{i}"]
        upstream.send_message(f"down{i}")
        assert session.texts(1) == [f"down{i}"]
    wait_for(lambda: not set(first) & set(server.children()), 10, "the old child ends")
    assert "system-shutdown" not in "".join(server.log_lines())
    client.close()


@pytest.mark.limit(60)
@pytest.mark.rows("B-309")
def test_after_a_full_restart(httpd, stub):
    """Stop and start: nobody knows the old sessions, says so at once, and makes new ones."""
    old = start(httpd, stub, "event")
    client = old.client()
    sessions = [client.login(stub, f"u{i}") for i in range(3)]
    old.stop()
    server = httpd(upstreams=[stub.upstream()], port=old.port)
    for i, (session, _) in enumerate(sessions):
        session.over = True
        answer = session.send_next(X.message("still there?")).at_once()
        TB(answer, "item-not-found")
        again, upstream = client.login(stub, f"u{i}")
        again.send_next(X.message("back"))
        assert upstream.wait_bodies(1) == ["back"]
    client.close()
    server.stop()
