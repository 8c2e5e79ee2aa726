# SPDX-License-Identifier: Apache-2.0
"""The rid window and requests out of order: checklist section 5 (XEP-0124 section 14)."""

import random
import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND
from client import E, RB, TB


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()],
                 directives="BoshPolling 0\nBoshMaxHold 3\nBoshMaxRequests 4\n")


@pytest.mark.valgrind
@pytest.mark.parametrize("order", [(1001, 1002), (1002, 1001)])
def test_B_140_the_window_takes_any_order(client, stub, order):
    session, upstream = client.start(stub)
    exchanges = {rid: session.send(rid, X.message(str(rid))) for rid in order}
    assert upstream.wait_bodies(2) == ["1001", "1002"]
    E(exchanges[1001].answer())
    exchanges[1002].held()


def test_B_141_above_the_window(client, stub):
    session, upstream = client.start(stub)
    session.over = True
    TB(session.send(1003, X.message("no")).answer(), "item-not-found")
    TB(session.send(1001).answer(), "item-not-found")
    upstream.wait_end()
    upstream.wait_closed()
    assert upstream.stanzas == []


@pytest.mark.rows("B-142", "B-231")
def test_B_142_terminate_may_be_one_beyond(client, stub):
    session, upstream = client.start(stub)
    end = session.send(1003, X.message("3"), type="terminate").held()
    first = session.send(1001, X.message("1"))
    second = session.send(1002, X.message("2"))
    assert upstream.wait_bodies(3) == ["1", "2", "3"]
    upstream.wait_end()
    answers = [x.answer() for x in (first, second, end)]
    assert [a.attr("type") for a in answers].count("terminate") == 1
    assert all(a.attr("condition") is None for a in answers)


def test_B_143_the_window_scales(client, stub):
    session, upstream = client.start(stub, hold=3)
    assert session.requests == 4
    exchanges = [session.send(rid, X.message(str(rid))).held() for rid in (1004, 1003, 1002)]
    assert upstream.bodies() == []
    exchanges.append(session.send(1001, X.message("1001")))
    assert upstream.wait_bodies(4) == ["1001", "1002", "1003", "1004"]
    E(exchanges[3].answer())  # one more than hold
    for x in exchanges[:3]:
        assert not x.done()


def test_B_143_and_ends_there(client, stub):
    session, _ = client.start(stub, hold=3)
    session.over = True
    TB(session.send(1005).answer(), "item-not-found")


@pytest.mark.valgrind
def test_B_144_nothing_happens_behind_a_gap(client, stub):
    session, upstream = client.start(stub)
    second = session.send(1002, X.message("2")).held(1.0)
    assert upstream.bodies() == []
    first = session.send(1001, X.message("1"))
    assert upstream.wait_bodies(2) == ["1", "2"]
    E(first.answer())
    second.held()


def test_B_145_a_gap_is_not_for_ever(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives="BoshInactivity 2\n")
    client = server.client()
    session, upstream = client.start(stub)
    session.over = True
    sent = time.monotonic()
    second = session.send(1002, X.message("never"))
    answer = second.answer()
    assert answer.attr("type") == "terminate", answer
    assert 1.5 < answer.time - sent < 4
    upstream.wait_closed()
    assert upstream.bodies() == []


def test_B_145_a_deferred_request_is_answered_after_wait(client, stub):
    # type=error, and its payload stays stored.
    session, upstream = client.start(stub, wait=1)
    second = session.send(1002, X.message("2"))
    answer = RB(second.answer())
    assert 0.7 < answer.took < 5
    session.send(1001, X.message("1"))
    assert upstream.wait_bodies(2) == ["1", "2"]


def test_B_146_the_window_counts_received_rids(client, stub):
    session, _ = client.start(stub)
    exchanges = [session.send(1001).held()]
    for rid in range(1002, 1012):
        exchanges.append(session.send(rid))
        E(exchanges[-2].at_once())
    exchanges[-1].held()


def test_B_147_too_small_is_like_too_large(client, stub):
    answers = []
    for rid in (999, 1013):
        session, upstream = client.start(stub)
        for _ in range(10):
            upstream.send_message("x")
            session.next()
        session.over = True
        answers.append(TB(session.send(rid).answer(), "item-not-found").body)
    assert answers[0] == answers[1]


def test_B_148_the_same_future_rid_twice(client, stub):
    session, upstream = client.start(stub)
    old = session.send(1002, X.message("2")).held()
    new = session.send(1002, X.message("2"))
    RB(old.answer())
    new.held()
    first = session.send(1001, X.message("1"))
    assert upstream.wait_bodies(2) == ["1", "2"]
    E(first.answer())
    new.held()
    upstream.send_message("x")
    assert new.answer().texts() == ["x"]
    assert upstream.bodies() == ["1", "2"]


@pytest.mark.limit(90)
def test_B_149_rids_near_the_end_of_their_range(client, stub):
    first = 9007199254740000
    stub.script.echo = True
    session, upstream = client.start(stub, rid=first)
    conn = client.connect()
    for i in range(900):
        assert session.send_next(X.message(str(i)), conn=conn).answer().texts() == [str(i)]
    assert session.rid == first + 900
    assert len(upstream.stanzas) == 900


@pytest.mark.limit(120)
def test_B_150_pairs_that_arrive_at_the_same_instant(client, server, stub):
    """Two requests of a session are sent by two threads at once, in random order, to different children."""
    count, rounds = (20, 2) if VALGRIND else (200, 5)
    sessions = []
    for i in range(count):
        session, upstream = client.start(stub, hold=1)
        sessions.append((session, upstream))
    children = [] if VALGRIND else server.children()
    rng = random.Random(150)

    def send_all(batch, barrier):
        for conn, data in batch:
            barrier.wait(30 * SLOW)
            conn.send(data)

    for round_number in range(rounds):
        barrier, batches, exchanges = threading.Barrier(2), ([], []), []
        for session, _ in sessions:
            pair = []
            for _ in range(2):
                session.rid += 1
                data = session.body(session.rid, X.message(str(session.rid))).encode()
                conn = client.connect()
                exchange = conn.expect(session=session)
                exchanges.append(exchange)
                pair.append((conn, client.head(len(data)) + data))
            rng.shuffle(pair)
            for batch, item in zip(batches, pair):
                batch.append(item)
        first = next(x for x in exchanges if x.conn is batches[0][0][0])
        threads = [threading.Thread(target=send_all, args=(b, barrier)) for b in batches]
        # One child stands still until another has begun: no child can be the one that takes everything.
        with server.stopped(children[round_number % 3:][:1]):
            for t in threads:
                t.start()
            server.taken(first)
        for t in threads:
            t.join()
        for session, upstream in sessions:
            want = [str(r) for r in range(1001, session.rid + 1)]
            assert upstream.wait_bodies(len(want), 20) == want, f"round {round_number}: order lost"
        # Of each pair the first was over hold and is answered; the second is answered by a stanza.
        for session, upstream in sessions:
            upstream.send_message("go")
        for exchange in exchanges:
            exchange.answer(20)
            exchange.conn.close()
    for session, upstream in sessions:
        assert upstream.bodies() == [str(r) for r in range(1001, session.rid + 1)], "a payload came twice"


def test_B_151_the_others_are_told(client, stub):
    session, _ = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    TB(session.send(1004).answer(), "item-not-found")
    TB(held.answer(), "other-request")


def test_B_151_also_those_behind_a_gap(client, stub):
    session, _ = client.start(stub, hold=3)
    session.over = True
    deferred = session.send(1003).held()
    TB(session.send(1009).answer(), "item-not-found")
    TB(deferred.answer(), "other-request")


def test_window_after_many_requests_out_of_order(client, stub):
    """A long run in shuffled groups of four (q = 4): the stub sees one ordered sequence."""
    session, upstream = client.start(stub, hold=3)
    rng, rid = random.Random(1), 1001
    for _ in range(30):
        group = [rid, rid + 1, rid + 2, rid + 3]
        exchanges = {r: session.send(r, X.message(str(r))) for r in rng.sample(group, 4)}
        rid += 4
        assert upstream.wait_bodies(rid - 1001) == [str(r) for r in range(1001, rid)]
        E(exchanges[group[0]].answer())  # one more than hold
        for r in group[1:]:
            upstream.send_message(f"for {r}")
            assert exchanges[r].answer().texts() == [f"for {r}"]
