# SPDX-License-Identifier: Apache-2.0
"""The end of a session: checklist section 9 (XEP-0124 sections 13 and 17)."""

import time

import pytest
import xmltool as X
from bosh_env import wait_for
from client import E, T, TB

BYE = "<presence xmlns='jabber:client' type='unavailable'/>"


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()],
                 directives="BoshPolling 0\nBoshMaxHold 3\nBoshMaxRequests 4\n")


def order(upstream):
    return [kind for kind, _ in upstream.seen if kind != "header"]


@pytest.mark.valgrind
def test_B_250_payload_then_end_of_stream_then_fin(client, stub):
    session, upstream = client.start(stub)
    T(session.send(1001, BYE, type="terminate").answer())
    upstream.wait_closed()
    assert order(upstream) == ["stanza", "end", "eof"]
    X.assert_same(upstream.stanzas[0], BYE)


@pytest.mark.valgrind
@pytest.mark.rows("B-251", "R-02")
def test_B_251_the_oldest_request_gets_the_terminate(client, stub):
    session, _ = client.start(stub)
    held = session.send(1001).held()
    end = session.send(1002, type="terminate")
    T(held.at_once())
    E(end.at_once())


def test_B_251_with_several_held(client, stub):
    session, _ = client.start(stub, hold=3)
    held = [session.send(1001 + i).held() for i in range(3)]
    end = session.send(1004, BYE, type="terminate")
    T(held[0].at_once())
    for exchange in held[1:] + [end]:
        E(exchange.at_once())


def test_B_252_terminate_alone(client, stub):
    session, _ = client.start(stub)
    T(session.send(1001, type="terminate").at_once())


def test_B_253_the_answer_does_not_wait_for_the_server(client, stub):
    stub.script.end = False
    session, upstream = client.start(stub)
    start = time.monotonic()
    T(session.send(1001, type="terminate").answer())
    assert time.monotonic() - start < 10
    upstream.wait_end()
    upstream.wait_closed(15)  # after a grace time, although the stub never closed


def test_B_254_queued_stanzas_come_with_the_terminate(client, stub):
    session, upstream = client.start(stub)
    upstream.send_message("one")
    upstream.send_message("two")
    upstream.wait_read()
    answer = T(session.send(1001, type="terminate").answer())
    assert answer.texts() == ["one", "two"]


def test_B_255_the_sid_is_dead_afterwards(client, stub):
    session, upstream = client.start(stub)
    T(session.terminate())
    TB(session.send(1002, X.message("x")).answer(), "item-not-found")
    upstream.wait_closed()
    assert upstream.bodies() == []


@pytest.mark.valgrind
@pytest.mark.rows("B-256", "R-07")
def test_B_256_a_repeat_of_the_terminate(client, stub):
    session, upstream = client.start(stub)
    first = T(session.send(1001, BYE, type="terminate").answer())
    again = session.send(1001, BYE, type="terminate").at_once()
    assert again.body == first.body
    upstream.wait_closed()
    assert len(upstream.stanzas) == 1


def test_B_256_a_terminate_whose_answer_was_lost(client, stub):
    session, upstream = client.start(stub)
    session.send(1001, BYE, type="terminate").rst()
    answer = session.send(1001, BYE, type="terminate").answer()
    if answer.attr("condition"):
        TB(answer, "item-not-found")
    else:
        T(answer)
    upstream.wait_closed()
    assert order(upstream) == ["stanza", "end", "eof"]


def test_B_258_terminate_with_a_condition_of_the_client(client, stub):
    session, upstream = client.start(stub)
    T(session.send(1001, BYE, type="terminate", condition="bad-request").answer())
    upstream.wait_closed()
    assert order(upstream) == ["stanza", "end", "eof"]


@pytest.mark.parametrize("kind", ["error", "set", ""])
def test_B_259_other_types_mean_nothing(client, stub, kind):
    session, upstream = client.start(stub)
    exchange = session.send(1001, X.message("x"), type=kind).held()
    assert upstream.wait_bodies(1) == ["x"]
    upstream.send_message("y")
    assert exchange.answer().texts() == ["y"]


@pytest.mark.rows("B-261", "X-083", "R-08")
def test_B_261_X_083_the_error_waits_for_the_next_request(client, stub):
    session, upstream = client.start(stub)
    upstream.send_stream_error("conflict", "replaced")
    upstream.close()
    upstream.wait(lambda s: s.closed_by_us)
    answer = TB(session.send(1001).answer(), "remote-stream-error")
    error = answer.find("error", X.NS_STREAMS)
    assert error is not None and error.find(X.tag("conflict", X.NS_STREAM_ERRORS)) is not None
    TB(session.send(1002).answer(), "item-not-found")
    session.over = True


@pytest.mark.rows("B-261", "B-306", "R-08")
def test_B_261_a_lost_server_waits_too(client, server, stub):
    server.expect_log(r"BH201")
    session, upstream = client.start(stub)
    upstream.rst()
    TB(session.send(1001).answer(), "remote-connection-failed")
    TB(session.send(1002).answer(), "item-not-found")
    session.over = True


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.rows("B-262", "B-306", "X-082", "X-085")
def test_B_262_every_open_request_is_answered(client, server, stub, how):
    server.expect_log(r"BH201")
    session, upstream = client.start(stub, hold=2)
    first, second = session.send(1001).held(), session.send(1002).held()
    session.over = True
    if how == "rst":
        upstream.rst()
    else:
        upstream.close()
    TB(first.at_once(1.0), "remote-connection-failed")
    answer = second.at_once(1.0)
    if answer.attr("type"):
        TB(answer, "other-request", "remote-connection-failed")
    else:
        E(answer)


@pytest.mark.rows("B-312", "B-141")
def test_B_312_a_terminal_error_closes_the_stream(client, stub):
    session, upstream = client.start(stub)
    session.over = True
    TB(session.send(1009).answer(), "item-not-found")
    upstream.wait_closed()
    assert order(upstream) == ["end", "eof"]


def test_terminate_right_after_creation(client, stub):
    stub.script.features_delay = 0.5
    for _ in range(5):
        session = client.new(wait=1)
        upstream = stub.accept()
        T(session.terminate())
        upstream.wait_closed()


def test_descriptors_come_back(client, server, stub):
    """A hundred whole lives leave nothing behind."""
    for _ in range(5):
        session, upstream = client.start(stub)
        session.terminate()
        upstream.wait_closed()
    before = server.fds()
    for i in range(100):
        session, upstream = client.start(stub)
        session.send(1001, X.message("x"))
        if i % 2:
            session.send(1002, type="terminate").answer()
        else:
            upstream.end_stream()
            session.over = True
            session.send(1002).answer()
        upstream.wait_closed()
    # Idle keep-alive connections of the last requests may still be there for a moment.
    wait_for(lambda: server.fds() <= before + 3, 15, "the descriptors of ended sessions are closed")
