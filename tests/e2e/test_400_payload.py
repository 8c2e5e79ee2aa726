# SPDX-License-Identifier: Apache-2.0
"""Payloads, hold and wait: checklist section 4 (XEP-0124 section 8)."""

import socket
import time

import pytest
import xmltool as X
from bosh_env import INSTRUMENTED
from client import E, T, TB, auth

AT_ONCE = 0.3  # the rows say 100 ms; a shared machine is no stop watch


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    # Without polling, so that empty requests may follow each other (section 11 is not the topic here).
    return httpd(upstreams=[stub_server.upstream()], directives="BoshPolling 0\n")


@pytest.mark.rows("B-110", "B-117")
def test_B_110_payloads_are_forwarded_though_the_answer_is_held(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send(1001, X.message("hi"))
    assert upstream.wait_bodies(1) == ["hi"]
    assert upstream.times[-1] - exchange.sent_at < AT_ONCE
    exchange.held()


def test_B_111_rid_order_and_document_order(client, stub):
    session, upstream = client.start(stub)
    session.send(1002, X.message("m2") + X.message("m3")).held()
    session.send(1001, X.message("m1"))
    assert upstream.wait_bodies(3) == ["m1", "m2", "m3"]


def test_B_112_every_request_has_one_answer(client, stub):
    session, upstream = client.start(stub)
    exchanges = [session.send(1001)]
    for i in range(20):
        exchanges.append(session.send_next(X.message(str(i))))
        exchanges[-2].answer()
    upstream.send_message("last")
    exchanges[-1].answer()
    assert all(x.done() and x.result.status == 200 for x in exchanges)
    assert sum(len(x.result.texts()) for x in exchanges) == 1


def test_B_113_answers_in_rid_order(client, stub):
    session, upstream = client.start(stub, hold=2)
    second = session.send(1002).held()
    first = session.send(1001).held()
    upstream.send_message("x")
    assert first.answer().texts() == ["x"]
    assert not second.done()
    upstream.send_message("y")
    assert second.answer().texts() == ["y"]


@pytest.mark.rows("B-113", "B-144")
def test_B_113_an_answer_does_not_overtake_a_gap(client, stub):
    session, upstream = client.start(stub)
    second = session.send(1002).held()
    upstream.send_message("x")
    second.held(1.0)  # the stanza waits for 1001: 1002 may not be answered before it
    assert session.send(1001).answer().texts() == ["x"]


@pytest.mark.valgrind
@pytest.mark.parametrize("payload", ["", X.message("hi")], ids=["empty", "message"])
@pytest.mark.rows("B-114", "B-117")
def test_B_114_B_117_requests_are_held(client, stub, payload):
    session, upstream = client.start(stub)
    exchange = session.send(1001, payload).held(1.0)
    upstream.send_message("x")
    assert exchange.answer().texts() == ["x"]


@pytest.mark.parametrize("payload", ["", X.message("hi")], ids=["empty", "message"])
def test_B_115_a_held_request_is_answered_after_wait(client, stub, payload):
    session, _ = client.start(stub, wait=2)
    answer = E(session.send(1001, payload).answer())
    assert 1.5 < answer.took < 5


def test_B_116_at_most_hold_requests_wait(client, stub):
    session, _ = client.start(stub)
    first = session.send(1001).held()
    second = session.send(1002)
    E(first.at_once(AT_ONCE))
    second.held()


def test_B_116_hold_two(client, stub):
    session, _ = client.start(stub, hold=2)
    first = session.send(1001).held()
    second = session.send(1002).held()
    assert not first.done()
    third = session.send(1003)
    E(first.at_once(AT_ONCE))
    third.held()
    assert not second.done()


@pytest.mark.valgrind
def test_B_118_stanzas_come_at_once(client, stub):
    session, upstream = client.start(stub)
    for i in range(5):
        exchange = session.send_next().held()
        sent = time.monotonic()
        upstream.send_message(f"m{i}")
        answer = exchange.answer()
        assert answer.texts() == [f"m{i}"] and answer.time - sent < AT_ONCE


@pytest.mark.valgrind
def test_B_119_queued_stanzas_come_with_the_next_request(client, stub):
    session, upstream = client.start(stub)
    for i in range(5):
        upstream.send_message(f"m{i}")
    upstream.wait_read()
    answer = session.send(1001).at_once()
    assert answer.texts() == [f"m{i}" for i in range(5)]


def test_B_120_the_oldest_held_request_is_used_first(client, stub):
    session, upstream = client.start(stub, hold=2)
    first = session.send(1001).held()
    second = session.send(1002).held()
    upstream.send_message("x")
    assert first.answer().texts() == ["x"]
    second.held(1.2)
    upstream.send_message("y")
    assert second.answer().texts() == ["y"]


def test_B_121_one_wait_timer_for_each_request(client, stub):
    session, _ = client.start(stub, hold=2, wait=4)
    first = session.send(1001)
    first.held(2.0)
    second = session.send(1002)
    assert 3.5 < E(first.answer()).took < 8
    assert 3.5 < E(second.answer()).took < 8


def test_B_122_a_burst_is_batched_and_prompt(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send_next().held()
    sent = time.monotonic()
    upstream.send("".join(X.message(f"m{i}", to="a@example.com") for i in range(50)))
    texts, answers = exchange.answer().texts(), 1
    assert exchange.t_done - sent < AT_ONCE
    while len(texts) < 50:
        texts += session.next().texts()
        answers += 1
    assert texts == [f"m{i}" for i in range(50)]
    assert answers <= 5


@pytest.mark.limit(90)
def test_B_123_a_large_backlog_is_split_between_stanzas(client, stub):
    session, upstream = client.start(stub)
    texts = [f"{i}:" + chr(97 + i % 26) * 50000 for i in range(40)]
    for text in texts:
        upstream.send_message(text)
    upstream.wait_read(20)
    got, answers = [], 0
    while len(got) < 40:
        answer = session.next(timeout=20)
        assert len(answer.body) < 1024 * 1024
        got += answer.texts()
        answers += 1
    assert got == texts
    assert answers > 1


@pytest.mark.rows("B-096", "B-124")
def test_B_124_payloads_wait_until_the_server_is_ready(client, stub):
    stub.script.features_delay = 1.5
    session = client.new(wait=1)  # answered before the features are there, or with them
    upstream = stub.accept()
    session.send_next(auth("alice"))
    upstream.wait_stanza("auth", ns=X.NS_SASL)
    ready = [t for t, data in upstream.chunks_out if b"features" in data]
    assert ready and upstream.times[0] >= ready[0]
    assert upstream.error is None


@pytest.mark.limit(90)
def test_B_125_a_flood_is_stopped_by_back_pressure(client, server, stub):
    session, upstream = client.start(stub)
    before = server.rss_kb()
    upstream.sock.settimeout(2)
    count = 0
    try:
        while count < 3000:  # 60 MB
            upstream.send_message(f"{count}:" + "x" * 20000)
            count += 1
    except (TimeoutError, socket.timeout, OSError):
        pass
    assert count < 3000, "60 MB went into a session that nobody reads"
    if not INSTRUMENTED:
        grown = server.rss_kb() - before
        assert grown < 40000, f"the children grew by {grown} KB"
    # The stream stalled: what was taken comes out in order and whole.
    got = []
    while len(got) < count // 2:
        answer = session.next(timeout=20)
        assert answer.attr("type") is None, answer
        got += [int(t.split(":")[0]) for t in answer.texts()]
    assert got == list(range(len(got)))


@pytest.mark.valgrind
@pytest.mark.rows("B-126", "B-180")
def test_B_126_B_180_a_message_on_a_dead_connection_is_not_lost(client, stub):
    for how in ("rst", "cut"):
        session, upstream = client.start(stub)
        exchange = session.send(1001).held()
        getattr(exchange, how)()
        upstream.send_message("precious")
        upstream.wait_read()
        assert session.send(1001).answer().texts() == ["precious"]
        upstream.send_message("next")
        assert session.send(1002).answer().texts() == ["next"]


@pytest.mark.rows("B-127", "B-257", "X-043")
def test_B_127_B_257_terminate_waits_for_its_turn(client, stub):
    session, upstream = client.start(stub)
    end = session.send(1002, type="terminate").held()
    assert not upstream.ended
    first = session.send(1001, X.message("before"))
    upstream.wait_end()
    assert [kind for kind, _ in upstream.seen if kind != "header"][:2] == ["stanza", "end"]
    T(first.answer())  # the oldest open request
    E(end.answer())


def test_B_127_restart_waits_for_its_turn(client, stub):
    session, upstream = client.start(stub)
    second = session.send(1002, xmpp_restart="true", to="example.com").held()
    session.send(1001, X.message("before"))
    upstream.wait_header(2)
    assert [kind for kind, _ in upstream.seen] == ["header", "stanza", "header"]
    assert second.conn is not None


def test_B_013_B_112_errors_are_answers_too(client, stub):
    session, _ = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    TB(session.send(1005).answer(), "item-not-found")
    TB(held.answer(), "other-request")


def test_a_large_stanza_each_way(client, stub):
    session, upstream = client.start(stub)
    text = "".join(chr(0x4e00 + i % 5000) for i in range(100000))  # 300 KB of UTF-8
    session.send_next(X.message(text))
    assert upstream.wait_bodies(1, 20) == [text]
    upstream.send_message(text)
    assert session.texts(1, 20) == [text]
