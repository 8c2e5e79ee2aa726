# SPDX-License-Identifier: Apache-2.0
"""Stanzas that a client did not get before its session ended: XEP-0206 section 7."""

import socket

import pytest
import xmltool as X
from client import E, T, TB

NS_STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
NS_SM = "urn:xmpp:sm:3"
PING = "<iq xmlns='jabber:client' type='get' id='p1' from='bob@example.com/x' to='alice@example.com/r'>" \
       "<ping xmlns='urn:xmpp:ping'/></iq>"
PRESENCE = "<presence xmlns='jabber:client' from='bob@example.com/x' to='alice@example.com/r'/>"


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], directives="BoshPolling 0\nBoshInactivity 2\n")


def chat(n, kind="chat", sender="bob@example.com/x"):
    return f"<message xmlns='jabber:client' type='{kind}' id='m{n}' from='{sender}' to='alice@example.com/r'>" \
           f"<body>text {n}</body></message>"


def logged_in(client, stub):
    session, upstream = client.login(stub, "alice")
    upstream.before = len(upstream.stanzas)
    return session, upstream


def returned(upstream):
    """Once its stream has ended: what came back, as (name, type, to, id, condition); the end is the last of all."""
    upstream.wait_closed(20)
    assert [kind for kind, _ in upstream.seen][-2:] == ["end", "eof"], upstream.summary()
    assert upstream.error is None
    found = []
    for elem in upstream.stanzas[upstream.before:]:
        error = elem.find(X.tag("error"))
        assert elem.get("from") is None and len(elem) == 1
        found.append((elem.tag.split("}")[1], elem.get("type"), elem.get("to"), elem.get("id"),
                      [kid.tag for kid in error]))
    return found


def error(name, n, to="bob@example.com/x"):
    condition = "service-unavailable" if name == "iq" else "recipient-unavailable"
    return name, "error", to, n, [X.tag(condition, NS_STANZAS)]


@pytest.mark.rows("B-290", "B-291", "B-292", "B-293")
def test_a_session_that_dies_of_silence(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    upstream.send(PRESENCE + chat(1) + PING + chat(2, "groupchat") + chat(3, "error") + chat(4, "headline")
                  + PING.replace("get", "result") + PING.replace("'get' id='p1'", "'set' id='p2'") + chat(5))
    assert returned(upstream) == [error("message", "m1"), error("iq", "p1"), error("iq", "p2"), error("message", "m5")]


@pytest.mark.valgrind
@pytest.mark.rows("B-291", "B-292")
def test_a_session_that_is_ended_for_a_fault(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    upstream.send(PING + chat(1))
    upstream.wait_read()
    TB(session.send(session.rid + 9).answer(), "item-not-found")
    assert returned(upstream) == [error("iq", "p1"), error("message", "m1")]


@pytest.mark.rows("B-293")
def test_B_293_a_held_request_was_cut(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    session.send_next().held(0.2).rst()
    upstream.send(chat(1))
    assert returned(upstream) == [error("message", "m1")]


@pytest.mark.rows("B-293")
def test_B_293_an_answer_that_could_not_be_written(httpd, stub):
    """The client is there until the answer is on its way, takes a little of it, and breaks the connection."""
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshInactivity 2\nSendBufferSize 8192\n")
    client = server.client()
    session, upstream = logged_in(client, stub)
    session.over = True
    data = session.body(session.rid + 1).encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(client.head(len(data)) + data)
    texts = [chat(n).replace("text", "x" * 60000) for n in (1, 2, 3)]
    upstream.send("".join(texts))
    assert b"HTTP/1.1 200" in sock.recv(100)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    ids = [item[3] for item in returned(upstream)]
    assert ids == ["m1", "m2", "m3"]
    client.close()


@pytest.mark.rows("B-293")
def test_B_293_what_was_delivered_is_not_returned(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    held = session.send_next().held(0.1)
    upstream.send(chat(1))
    assert held.answer().texts() == ["text 1"]
    assert returned(upstream) == []


def test_a_client_that_ends_its_session_takes_it_along(client, stub):
    session, upstream = logged_in(client, stub)
    upstream.send(chat(1))
    upstream.wait_read()
    assert T(session.terminate()).texts() == ["text 1"]
    assert returned(upstream) == []


@pytest.mark.limit(90)
@pytest.mark.rows("B-293", "B-290", "B-292")
def test_a_large_backlog(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    for n in range(2000):
        upstream.send(chat(n) + PRESENCE)
    upstream.send(chat("last").replace("text", "y" * 300000))
    assert [item[3] for item in returned(upstream)] == [f"m{n}" for n in range(2000)] + ["mlast"]


@pytest.mark.rows("B-294")
def test_B_294_stream_management_knows_better(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    stub.script.on_stanza = lambda s, elem: elem.tag == X.tag("enable", NS_SM) and \
        (s.send(f"<enabled xmlns='{NS_SM}'/>") or True)
    upstream.script.on_stanza = stub.script.on_stanza
    session.until("enabled", NS_SM, session.send_next(f"<enable xmlns='{NS_SM}'/>"))
    upstream.before = len(upstream.stanzas)
    upstream.send(chat(1) + PING)
    assert returned(upstream) == []


@pytest.mark.rows("B-294")
def test_B_294_a_message_that_only_says_so(client, stub):
    session, upstream = logged_in(client, stub)
    session.over = True
    held = session.send_next().held(0.1)
    upstream.send(chat(0).replace("<body>", f"<enabled xmlns='{NS_SM}'/><body>"))
    assert held.answer().texts() == ["text 0"]
    upstream.send(chat(1))
    assert returned(upstream) == [error("message", "m1")]


def test_turned_off(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshInactivity 1\nBoshReturnUndelivered Off\n")
    client = server.client()
    session, upstream = logged_in(client, stub)
    session.over = True
    upstream.send(chat(1) + PING)
    assert returned(upstream) == []
    client.close()


def test_httpd_stops(httpd, stub):
    server = httpd(upstreams=[stub.upstream()])
    client = server.client()
    sessions = [logged_in(client, stub) for _ in range(5)]
    for session, upstream in sessions:
        session.over = True
        upstream.send(chat(1))
        upstream.wait_read()
    server.stop()
    for _, upstream in sessions:
        assert returned(upstream) == [error("message", "m1")]


def test_the_next_session_starts_afresh(client, stub):
    """Nothing of all this is seen by a session that lives."""
    session, upstream = logged_in(client, stub)
    upstream.send(chat(1))
    upstream.wait_read()
    assert session.next().texts() == ["text 1"]
    held = session.send_next().held(0.2)
    session.send_next(X.message("x"))
    E(held.answer())
    upstream.wait_bodies(1)
    assert [X.text_of(e, "body") for e in upstream.stanzas[upstream.before:]] == ["x"]
