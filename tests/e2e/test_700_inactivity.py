# SPDX-License-Identifier: Apache-2.0
"""Inactivity: checklist rows B-200 to B-210 (XEP-0124 section 10). These rows are about elapsed time."""

import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW
from client import E, Session, TB, new_body

INACTIVITY = 2


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], tls=True,
                 directives=f"BoshInactivity {INACTIVITY}\nBoshPolling 0\n")


def expired(upstream, start, after=INACTIVITY):
    """The stream ended this long after start: to about a second (B-210), and not before."""
    upstream.wait_end(after + 3)
    took = upstream.ended - start
    assert after - 0.1 < took < (after + 1.7) * SLOW, f"ended after {took:.2f} s instead of {after}"


@pytest.mark.rows("B-200", "B-201", "B-210")
def test_B_200_B_201_B_210_a_silent_session_ends(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send(1001)
    upstream.send_message("x")
    answer = exchange.answer()
    # No request reaches the server meanwhile (B-210).
    expired(upstream, answer.time)
    upstream.wait_closed()
    TB(session.send(1002).answer(), "item-not-found")
    session.over = True


def test_B_202_no_timer_while_a_request_is_held(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send(1001)
    exchange.held(3 * INACTIVITY)
    upstream.send_message("x")
    assert exchange.answer().texts() == ["x"]


def test_B_203_the_timer_starts_at_the_last_answer(client, stub):
    session, upstream = client.start(stub, wait=INACTIVITY + 1)
    answer = E(session.send(1001).answer())
    session.over = True
    expired(upstream, answer.time)


@pytest.mark.parametrize("how", ["resend", "request"])
def test_B_204_valid_requests_reset_the_timer(client, stub, how):
    session, upstream = client.start(stub)
    exchange = session.send(1001)
    upstream.send_message("x")
    answer = exchange.answer()
    time.sleep(INACTIVITY * 0.75)
    if how == "resend":
        again = session.send(1001).answer()
        assert again.body == answer.body
    else:
        exchange = session.send(1002)
        upstream.send_message("y")
        again = exchange.answer()
    session.over = True
    expired(upstream, again.time)


def test_B_205_the_timer_starts_after_creation(client, stub):
    session, upstream = client.start(stub)
    session.over = True
    expired(upstream, session.creation.time)


def test_B_206_traffic_of_the_server_is_no_activity(client, stub):
    session, upstream = client.start(stub)
    session.over = True

    def talk():
        while not upstream.ended:
            try:
                upstream.send_message("tick")
            except OSError:
                return
            time.sleep(0.3)
    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    expired(upstream, session.creation.time)
    thread.join(2)


@pytest.mark.parametrize("how", ["rst", "cut"])
@pytest.mark.rows("B-207", "R-04")
def test_B_207_the_timer_runs_when_the_held_connection_is_broken(client, stub, how):
    session, upstream = client.start(stub, wait=50)
    exchange = session.send(1001).held()
    session.over = True
    broken = time.monotonic()
    getattr(exchange, how)()
    expired(upstream, broken)


def test_B_207_not_when_another_one_is_held(client, stub):
    session, upstream = client.start(stub, wait=50, hold=2)
    first, second = session.send(1001).held(), session.send(1002).held()
    first.rst()
    second.held(INACTIVITY + 2)
    upstream.send_message("for one of them")
    # Whether 1001, whose client is away, still takes the stanza or 1002 does: it comes, once, and in rid order.
    texts = session.send(1001).answer().texts()
    if not texts:
        texts = second.answer().texts()
    assert texts == ["for one of them"]


@pytest.mark.rows("B-208", "B-361", "B-362")
def test_B_208_refused_requests_do_not_reset_the_timer(server, client, stub):
    over_tls = server.client(tls=True)
    session = over_tls.session(over_tls.new_async())
    upstream = stub.accept()
    plain = Session(client, session.creation, {})
    session.over = True
    while not upstream.ended and time.monotonic() < session.creation.time + 3 * INACTIVITY * SLOW:
        plain.post(plain.body(1001, X.message("injected"))).closed()
        time.sleep(0.3)
    expired(upstream, session.creation.time)
    assert upstream.stanzas == []


@pytest.mark.rows("B-361", "B-362")
def test_B_361_B_362_plain_requests_do_not_harm_a_session_over_tls(server, client, stub):
    over_tls = server.client(tls=True)
    session = over_tls.session(over_tls.new_async())
    upstream = stub.accept()
    plain = Session(client, session.creation, {})
    plain.post(plain.body(1001, X.message("injected"))).closed()
    session.send(1001, X.message("mine"))
    assert upstream.wait_bodies(1) == ["mine"]
    over_tls.close()


def test_B_209_without_inactivity_any_silence_is_allowed(httpd, stub):
    client = httpd(upstreams=[stub.upstream()], directives="BoshInactivity 0\n").client()
    session, upstream = client.start(stub)
    assert session.creation.attr("inactivity") is None
    time.sleep(3)
    session.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]
    client.close()


def test_B_210_many_at_once(client, stub):
    """All of a crowd expire in time, and nothing is left of them."""
    pending = [client.new_async() for _ in range(40)]
    last = max(client.session(x).creation.time for x in pending)
    for session in client.sessions:
        session.over = True
    upstreams = [stub.accept() for _ in range(40)]
    for upstream in upstreams:
        upstream.wait_closed(INACTIVITY + 4)
    assert time.monotonic() - last < (INACTIVITY + 2) * SLOW
    assert all(u.ended for u in upstreams)
    TB(client.post(new_body(to="nope.invalid")).answer(), "host-unknown")
