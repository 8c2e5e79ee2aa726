# SPDX-License-Identifier: Apache-2.0
"""Many sessions: holding costs no thread, and a plain page is served meanwhile."""

import json
import statistics
import time

import pytest
import xmltool as X
from bosh_env import INSTRUMENTED, SLOW, VALGRIND, wait_for
from client import BIND_IQ, T, auth

COUNT = 50 if VALGRIND else 1000
BATCH = 50


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    # No debug lines: a thousand sessions would measure the log.
    return httpd(upstreams=[stub_server.upstream()], directives="BoshPolling 0\n", log_level="info")


@pytest.fixture(scope="module")
def threads_before(server):
    """Threads of each child, once all have been started (a child starts its workers one after the other)."""
    def complete():
        counts = {pid: server.threads_of(pid) for pid in server.children()}
        return counts if min(counts.values()) > server.threads + 1 and len(set(counts.values())) == 1 else None
    return wait_for(complete, 10, "the children have started all their threads")


def in_batches(items, start):
    """start(item) -> exchange, for BATCH of them at a time; the answers in order."""
    answers = []
    for i in range(0, len(items), BATCH):
        exchanges = [start(item) for item in items[i:i + BATCH]]
        answers += [x.answer(20) for x in exchanges]
    return answers


def log_in_all(client):
    """COUNT sessions, each logged in as a user of its own."""
    numbers = list(range(COUNT))
    for answer in in_batches(numbers, lambda i: client.new_async(wait=50)):
        session = client.session(answer.exchange)
        assert session.creation.find("features", X.NS_STREAMS) is not None, answer
    sessions = client.sessions
    for answer in in_batches(numbers, lambda i: sessions[i].send_next(auth(f"user{i}"))):
        assert answer.find("success", X.NS_SASL) is not None, answer
    for answer in in_batches(numbers, lambda i: sessions[i].restart()):
        assert answer.find("features", X.NS_STREAMS) is not None, answer
    for answer in in_batches(numbers, lambda i: sessions[i].send_next(BIND_IQ)):
        assert answer.find("iq").get("type") == "result"
    return sessions


def plain_page(client, n=100):
    """Seconds that a plain page took, each on a new connection."""
    times = []
    for _ in range(n):
        start = time.monotonic()
        answer = client.request("GET", "/index.html")
        times.append(time.monotonic() - start)
        assert answer.status == 200 and b"plain page" in answer.body
    return times


def child_status(client):
    return json.loads(client.request("GET", "/bosh-status?format=json").body)["child"]


@pytest.mark.limit(150)
def test_a_thousand_sessions_logged_in_and_held(client, server, stub, threads_before):
    sessions = log_in_all(client)
    by_user = {u.user: u for u in (stub.accept() for _ in range(COUNT))}
    assert len(by_user) == COUNT
    held = [s.send_next() for s in sessions]
    wait_for(lambda: time.monotonic() - held[-1].sent_at > 0.5, 5)
    assert not any(x.done() for x in held)
    times = plain_page(client)
    assert statistics.median(times) < 0.05 * SLOW, f"median {statistics.median(times) * 1000:.1f} ms"
    assert max(times) < 1.0 * SLOW, f"slowest {max(times) * 1000:.0f} ms"
    assert not any(x.done() for x in held)
    if not VALGRIND:
        assert {pid: server.threads_of(pid) for pid in server.children()} == threads_before
    # Each gets its own message, on the connection that is held.
    start = time.monotonic()
    for i in range(COUNT):
        by_user[f"user{i}"].send_message(f"for user{i}")
    for i, exchange in enumerate(held):
        assert exchange.answer(30).texts() == [f"for user{i}"]
    assert time.monotonic() - start < 20 * SLOW
    # And again, now with the sending side at work too.
    held = [s.send_next(X.message(f"from user{i}")) for i, s in enumerate(sessions)]
    for i in range(COUNT):
        assert by_user[f"user{i}"].wait_bodies(1, 20) == [f"from user{i}"]
    ends = in_batches(list(range(COUNT)), lambda i: sessions[i].send_next(type="terminate"))
    for exchange, end in zip(held, ends):
        T(exchange.answer())
        assert end.attr("type") is None
    stub.wait(lambda: not stub.live(), 20, "all streams are closed")
    if not VALGRIND:
        assert {pid: server.threads_of(pid) for pid in server.children()} == threads_before


@pytest.mark.skipif(VALGRIND, reason="too slow for as many sessions as this is about")
@pytest.mark.limit(120)
def test_what_a_session_costs_its_child_in_descriptors(httpd, stub):
    """Three: the connection, what stands in for it while a request waits, and the stream. More than 500 in one child, which
    is as many as the kernel lets share what wakes them."""
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshPolling 0\n", log_level="info",
                   vhost='<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n')
    client, n = server.client(), 600
    before = server.fds()
    for answer in in_batches(list(range(n)), lambda i: client.new_async(wait=50)):
        client.session(answer.exchange)
    streams = [stub.accept() for _ in range(n)]
    held = [s.send_next() for s in client.sessions]
    wait_for(lambda: child_status(client)["held_async"] == n, 10, "all of them wait without a thread")
    assert server.fds() - before < 3.25 * n
    for stream in streams:
        stream.send_message("x")
    assert [x.answer(20).texts() for x in held] == [["x"]] * n
    client.close()


@pytest.mark.limit(120)
@pytest.mark.rows("B-008")
def test_200_requests_of_one_session_between_others(client, server, stub):
    """B-008 with the default three children, while other sessions are held."""
    others = [client.start(stub, wait=50) for _ in range(30)]
    held = [s.send_next() for s, _ in others]
    stub.script.echo = True
    session, upstream = client.start(stub)
    for pid in server.children():
        exchange = server.taken_by(pid, lambda: session.send_next(X.message(f"for {pid}")))
        assert exchange.answer().texts() == [f"for {pid}"]
    for i in range(200):
        answer = session.send_next(X.message(str(i))).answer()
        assert answer.texts() == [str(i)], answer
    assert not any(x.done() for x in held)
    for _, other in others:
        other.send_message("x")
    for exchange in held:
        assert exchange.answer().texts() == ["x"]


@pytest.mark.skipif(INSTRUMENTED, reason="sizes mean nothing under valgrind or a sanitizer")
@pytest.mark.limit(150)
def test_memory_does_not_grow_with_sessions(client, server, stub):
    def lives(n):
        for _ in range(n // 20):
            batch = [client.new_async() for _ in range(20)]
            sessions = [client.session(x) for x in batch]
            for s in sessions:
                s.send_next(X.message("x"))
            for s in sessions:
                assert s.terminate().attr("condition") is None
            client.sessions.clear()
            stub.wait(lambda: not stub.live(), 20, "streams are closed")
            stub.reset()
    lives(600)
    first = server.rss_kb()
    lives(1200)
    assert server.rss_kb() - first < 3000, f"{server.rss_kb() - first} KB more after 1200 sessions"
