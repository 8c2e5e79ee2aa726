# SPDX-License-Identifier: Apache-2.0
"""Repeated rids, the cache of answers, acknowledgements: checklist section 6 (XEP-0124 14.3, 9)."""

import pytest
import xmltool as X
from bosh_env import INSTRUMENTED, VALGRIND, wait_for
from client import E, RB, T, TB


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()],
                 directives="BoshPolling 0\nBoshMaxHold 3\nBoshMaxRequests 4\n")


def answered(session, upstream, n):
    """n requests, each answered with a message of its own: {rid: answer}."""
    answers = {}
    for _ in range(n):
        exchange = session.send_next()
        upstream.send_message(f"for {session.rid}")
        answers[session.rid] = exchange.answer()
        assert answers[session.rid].texts() == [f"for {session.rid}"]
    return answers


@pytest.mark.valgrind
@pytest.mark.rows("B-160", "B-161")
def test_B_160_B_161_the_last_q_answers_are_kept_unchanged(client, stub):
    session, upstream = client.start(stub)
    answers = answered(session, upstream, 10)
    for rid in (1009, 1010, 1009):
        assert session.send(rid).answer().body == answers[rid].body


def test_B_160_more_of_them_with_a_wider_window(client, stub):
    session, upstream = client.start(stub, hold=3)
    answers = answered(session, upstream, 10)
    for rid in (1007, 1008, 1009, 1010):
        assert session.send(rid).answer().body == answers[rid].body


def test_B_161_an_empty_answer_is_kept_too(client, stub):
    session, upstream = client.start(stub, wait=1)
    answer = E(session.send(1001).answer())
    upstream.send_message("later")
    assert session.send(1001).at_once().body == answer.body
    assert session.send(1002).answer().texts() == ["later"]


def test_B_161_the_creation_answer_is_not_resent_as_a_new_session(client, stub):
    # The creation request has no sid, so R0 can only be repeated with it: the cached answer or an error.
    session, _ = client.start(stub)
    answer = session.send(1000, check=False).raw()
    if answer.attr("type"):
        TB(answer, "item-not-found")
        session.over = True
    else:
        assert answer.body == session.creation.body
    assert stub.new_connections() == 0


def test_B_162_an_answer_that_is_no_longer_kept(client, stub):
    session, upstream = client.start(stub)
    answered(session, upstream, 10)
    session.over = True
    TB(session.send(1001).answer(), "item-not-found")
    upstream.wait_closed()
    TB(session.send(1011).answer(), "item-not-found")


@pytest.mark.valgrind
def test_B_163_a_repeated_payload_is_not_forwarded_again(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send(1001, X.message("once"))
    upstream.send_message("x")
    answer = exchange.answer()
    assert session.send(1001, X.message("once")).answer().body == answer.body
    session.send(1002, X.message("barrier"))
    assert upstream.wait_bodies(2) == ["once", "barrier"]


def test_B_164_a_repeat_with_another_payload(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send(1001, X.message("m1"))
    upstream.send_message("x")
    answer = exchange.answer()
    assert session.send(1001, X.message("m2")).answer().body == answer.body
    session.send(1002, X.message("barrier"))
    assert upstream.wait_bodies(2) == ["m1", "barrier"]


@pytest.mark.valgrind
@pytest.mark.parametrize("payload", ["", X.message("once")], ids=["empty", "message"])
@pytest.mark.rows("B-112", "B-165", "B-166", "B-167", "B-314", "B-315")
def test_B_165_B_166_B_167_a_repeat_of_an_unanswered_rid(client, stub, payload):
    session, upstream = client.start(stub)
    old = session.send(1001, payload).held()
    new = session.send(1001, payload)
    RB(old.at_once())
    new.held()
    upstream.send_message("x")
    answer = new.answer()
    assert answer.texts() == ["x"]
    assert session.send(1001, payload).answer().body == answer.body  # B-167
    session.send(1002, X.message("barrier"))
    upstream.wait(lambda s: "barrier" in s.bodies())
    assert upstream.bodies() == (["once"] if payload else []) + ["barrier"]


def test_B_165_several_times(client, stub):
    session, upstream = client.start(stub)
    old = session.send(1001).held()
    for _ in range(5):
        new = session.send(1001)
        RB(old.at_once())
        old = new
    old.held()
    upstream.send_message("x")
    assert old.answer().texts() == ["x"]


@pytest.mark.rows("B-165", "R-05")
def test_B_165_a_repeat_behind_a_held_request(client, stub):
    session, upstream = client.start(stub, hold=2)
    first = session.send(1001).held()
    second = session.send(1002).held()
    again = session.send(1002)
    RB(second.at_once())
    assert not first.done()
    upstream.send_message("a")
    assert first.answer().texts() == ["a"]
    upstream.send_message("b")
    assert again.answer().texts() == ["b"]


def test_B_168_too_many_repeats(client, stub):
    session, upstream = client.start(stub)
    session.over = True
    exchanges = [session.send(1001).held()]  # in, so that the next one is the repeat
    for _ in range(60):
        exchanges.append(session.send(1001))
        exchanges[-2].answer()
        if exchanges[-2].result.attr("type") == "terminate" or exchanges[-1].done():
            break
    ends = [x.answer() for x in exchanges[-2:] if x.answer().attr("type") == "terminate"]
    assert 10 < len(exchanges) < 55, f"{len(exchanges)} repeats"
    assert "policy-violation" in [a.attr("condition") for a in ends], ends
    upstream.wait_closed()


def test_B_173_without_ack_everything_counts_as_received(client, server, stub):
    """A long acking session that sends no ack: memory does not grow."""
    session, upstream = client.start(stub, ack="1")
    conn = client.connect()
    sizes = []
    for i in range(300 if VALGRIND else 3000):
        upstream.send_message("x" * 500)
        session.send_next(conn=conn).answer()
        if i % 1000 == 500:
            sizes.append(server.rss_kb())
    if not INSTRUMENTED:
        assert sizes[-1] - sizes[0] < 3000, f"RSS over the run, in KB: {sizes}"


def test_B_171_unacknowledged_answers_are_kept(client, stub):
    session, upstream = client.start(stub, ack="1", hold=1)
    answers = {}
    for _ in range(5):
        exchange = session.send_next(ack="1000")
        upstream.send_message(f"for {session.rid}")
        answers[session.rid] = exchange.answer()
    # q is 2; without acks 1003 and older are gone. With them it is available.
    got = session.send(1002, ack="1000", check=False).raw()
    assert got.body == answers[1002].body, got


def test_B_172_acknowledged_answers_may_go(client, stub):
    session, upstream = client.start(stub, ack="1")
    answers = {}
    for i in range(6):
        exchange = session.send_next(ack=str(session.rid))
        upstream.send_message(f"for {session.rid}")
        answers[session.rid] = exchange.answer()
    # The last one is not acknowledged by anything: it must be there.
    assert session.send(1006, ack="1005").answer().body == answers[1006].body
    old = session.send(1001, ack="1000", check=False).raw()
    assert old.body == answers[1001].body or TB(old, "item-not-found")
    session.over = old.attr("type") is not None


def test_B_174_a_client_that_never_acknowledges(client, stub):
    session, upstream = client.start(stub, ack="1")
    session.over = True
    end = None
    for _ in range(400):
        upstream.send_message("x" * 50000)
        answer = session.send_next(ack="1000").answer()
        if answer.attr("type"):
            end = answer
            break
    assert end is not None, "20 MB of unacknowledged answers are kept"
    TB(end, "policy-violation")


@pytest.mark.parametrize("ack", ["99999", "1001", "1002", "9007199254740991"])
def test_B_175_impossible_acks(client, stub, ack):
    session, upstream = client.start(stub, ack="1")
    held = session.send(1001, ack="1000").held()
    answer = session.send(1002, X.message("x"), ack=ack, check=False)
    first = held.answer()
    if first.attr("type"):
        TB(first, "other-request")
        session.over = True
        TB(answer.raw(), "bad-request")
    else:
        E(first)
        upstream.send_message("y")
        assert answer.raw().texts() == ["y"]


@pytest.mark.rows("B-176", "B-177", "B-178")
def test_B_176_B_178_ack_of_the_connection_manager(client, stub):
    session, upstream = client.start(stub, ack="1")
    assert session.creation.attr("ack") == "1000"
    alone = session.send(1001, ack="1000").held()
    upstream.send_message("x")
    assert alone.answer().attr("ack") is None  # its own rid
    first = session.send(1002, ack="1001").held()
    second = session.send(1003, ack="1001")
    assert E(first.answer()).attr("ack") == "1003"
    second.held()


def test_B_177_ack_does_not_go_beyond_a_gap(client, stub):
    session, upstream = client.start(stub, ack="1", hold=2)
    first = session.send(1001, ack="1000").held()
    third = session.send(1003, ack="1000").held()
    upstream.send_message("x")
    answer = first.answer()
    assert answer.texts() == ["x"] and answer.attr("ack") is None
    assert not third.done()


def test_B_161_the_ack_of_a_resent_answer_is_the_old_one(client, stub):
    session, upstream = client.start(stub, ack="1")
    first = session.send(1001, ack="1000").held()
    second = session.send(1002, ack="1000")
    answer = first.answer()
    upstream.send_message("x")
    second.answer()
    assert session.send(1001, ack="1000").answer().body == answer.body


@pytest.mark.rows("B-179", "B-182")
def test_B_179_no_ack_for_clients_without(client, stub):
    session, upstream = client.start(stub)
    assert session.creation.attr("ack") is None
    first = session.send(1001)
    second = session.send(1002)
    answers = [first.answer()]
    upstream.send_message("x")
    answers += [second.answer(), T(session.terminate())]
    for answer in answers:
        assert answer.attr("ack") is None and answer.attr("report") is None and answer.attr("time") is None


@pytest.mark.parametrize("how", ["rst", "cut"])
def test_B_180_exactly_once(client, stub, how):
    """A message sent while the held request's connection is cut arrives exactly once."""
    session, upstream = client.start(stub)
    texts = []
    for i in range(20):
        exchange = session.send_next().held(0.1)
        if i % 2:
            getattr(exchange, how)()
            upstream.send_message(f"m{i}")
        else:  # the message first: the answer may be on its way already
            upstream.send_message(f"m{i}")
            getattr(exchange, how)()
        answer = session.send(session.rid).answer()
        assert answer.attr("type") is None, answer
        texts += answer.texts()
        if not answer.texts():  # the answer was made before the message came
            texts += session.next().texts()
    assert texts == [f"m{i}" for i in range(20)]


def test_R_04_a_repeat_after_the_connection_broke_gets_no_error(client, server, stub):
    session, upstream = client.start(stub)
    before = server.fds()
    exchange = session.send(1001, X.message("once")).held()
    exchange.rst()
    wait_for(lambda: server.fds() <= before, what="the server closes its side of the broken connection")
    again = session.send(1001, X.message("once")).held()
    upstream.send_message("x")
    assert again.answer().texts() == ["x"]
    session.send(1002, X.message("barrier"))
    assert upstream.wait_bodies(2) == ["once", "barrier"]
