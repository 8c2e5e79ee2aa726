# SPDX-License-Identifier: Apache-2.0
"""The HTTP layer: checklist section 1 (XEP-0124 section 5)."""

import gzip
import re

import pytest
import xmltool as X
from bosh_env import VALGRIND
from client import E, T, TB, auth, check_answer, new_body, wrap

LIMIT = 64 * 1024
GOOD, BAD = "https://chat.example.com", "https://evil.example"


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(children=4, upstreams=[stub_server.upstream()],
                 directives=f"BoshMaxBody {LIMIT}\nBoshAllowOrigin {GOOD}\n")


def echoing(client, stub, **attrs):
    """A session whose messages come back."""
    stub.script.echo = True
    return client.start(stub, **attrs)


def roundtrip(session, text, **options):
    answer = session.send_next(X.message(text), **options).answer()
    assert answer.texts() == [text], answer
    return answer


@pytest.mark.valgrind
def test_B_001_post_is_answered_with_200_and_one_body(client, stub):
    session, _ = client.start(stub)
    assert session.creation.status == 200
    assert session.creation.root.tag == X.tag("body", X.NS_BOSH)


def test_B_002_http_1_0_without_keep_alive(client, stub):
    stub.script.echo = True
    first = client.new_async(version="1.0")
    session = client.session(first)
    for text in ("one", "two", "three"):
        exchange = session.send_next(X.message(text), version="1.0", conn=client.connect())
        assert exchange.answer().texts() == [text]
        exchange.conn.wait_eof()


def test_B_002_http_1_0_with_keep_alive_on_one_socket(client, stub):
    stub.script.echo = True
    conn = client.connect()
    keep = {"Connection": "keep-alive"}
    session = client.session(client.new_async(version="1.0", headers=keep, conn=conn))
    for text in ("one", "two", "three"):
        roundtrip(session, text, conn=conn, version="1.0", headers=keep)
    assert not conn.eof.is_set()


@pytest.mark.parametrize("coding", [None, "gzip", "gzip, deflate, br"])
def test_B_003_never_chunked(client, stub, coding):
    session, _ = echoing(client, stub)
    # A longer text tempts whatever compresses more; short ones are in check_answer().
    answer = session.send_next(X.message("x" * 20000), headers={"Accept-Encoding": coding}, check=False).raw()
    assert answer.get("Transfer-Encoding") is None and answer.get("Content-Length") == str(len(answer.body)), answer
    assert ("x" * 20000).encode() in (gzip.decompress(answer.body) if coding else answer.body)


def test_B_004_chunked_request_bodies_are_decoded(client, stub):
    session, upstream = client.start(stub)
    upstream.script.echo = True
    conn = client.connect()
    exchange = conn.expect(session=session)
    data = session.body(1001, X.message("in pieces")).encode()
    conn.send(client.head(headers={"Transfer-Encoding": "chunked"}))
    for i in range(len(data)):
        conn.send(b"1\r\n" + data[i:i + 1] + b"\r\n")
    conn.send(b"0\r\n\r\n")
    session.rid = 1001
    assert exchange.answer().texts() == ["in pieces"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json",
                                  "multipart/form-data; boundary=x", None])
def test_B_005_content_type_of_requests_is_ignored(client, stub, kind):
    session, _ = echoing(client, stub)
    roundtrip(session, "a+b=%41&c", headers={"Content-Type": kind})


def test_B_007_unknown_headers_are_ignored(client, stub):
    session, _ = echoing(client, stub)
    roundtrip(session, "hi", headers={"X-Foo": "bar", "Cookie": "c=" + "x" * 4000, "If-Modified-Since": "0",
                                      "If-Match": "x", "If-None-Match": "*"})


def test_B_007_a_range_is_no_range_of_a_post(client, stub):
    # Range means something with GET alone (RFC 9110 14.2): an answer is never partial (B-013).
    session, _ = echoing(client, stub)
    roundtrip(session, "hi", headers={"Range": "bytes=0-3"})


@pytest.mark.limit(120)
def test_B_008_no_connection_affinity(client, server, stub):
    session, upstream = echoing(client, stub)
    children = server.children()
    assert len(children) >= 4 or VALGRIND
    for i, pid in enumerate(children):
        exchange = server.taken_by(pid, lambda: session.send_next(X.message(f"m{i}")))
        assert exchange.answer().texts() == [f"m{i}"]
    for i in range(len(children), 200):
        roundtrip(session, f"m{i}")
    assert upstream.bodies() == [f"m{i}" for i in range(200)]


def test_B_009_many_requests_on_one_persistent_connection(client, stub):
    session, _ = echoing(client, stub)
    conn = client.connect()
    for i in range(50):
        roundtrip(session, f"m{i}", conn=conn)
    assert not conn.eof.is_set()


@pytest.mark.valgrind
def test_B_010_pipelined_requests_do_not_hang(client, stub):
    session, upstream = client.start(stub, wait=3)
    conn = client.connect()
    first, second = conn.expect(session=session), conn.expect(session=session)
    one, two = session.body(1001), session.body(1002, X.message("hi"))
    conn.send(client.head(len(one)) + one.encode() + client.head(len(two)) + two.encode())
    session.rid = 1002
    assert E(first.answer()).took < 10
    assert upstream.wait_bodies(1) == ["hi"]
    assert second.t_first is None or second.t_first > first.t_done
    E(second.answer())
    upstream.send_message("later")
    assert session.send(1003, conn=conn).answer().texts() == ["later"]


def half_sent(client, session, rid, payload):
    """A request whose second half is still to come: (connection, exchange, rest)."""
    data = session.body(rid, payload).encode()
    conn = client.connect()
    exchange = conn.expect(session=session)
    cut = len(data) // 2
    conn.send(client.head(len(data)) + data[:cut])
    return conn, exchange, data[cut:]


def test_B_012_a_request_counts_when_its_whole_body_is_there(client, stub):
    session, upstream = client.start(stub)
    conn, first, rest = half_sent(client, session, 1001, X.message("one"))
    second = session.send(1002, X.message("two")).held()
    assert upstream.bodies() == []
    conn.send(rest)
    assert upstream.wait_bodies(2) == ["one", "two"]
    E(first.answer())
    second.cut()


def test_B_012_an_aborted_half_request_was_never_seen(client, stub):
    session, upstream = client.start(stub)
    conn, _, _ = half_sent(client, session, 1001, X.message("aborted"))
    second = session.send(1002, X.message("two")).held()
    conn.rst()
    first = session.send(1001, X.message("whole"))
    assert upstream.wait_bodies(2) == ["whole", "two"]
    E(first.answer())
    second.cut()


def test_B_014_post_without_content(client):
    TB(client.post("").answer(), "bad-request")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_B_015_other_methods_get_405(client, method):
    answer = client.request(method)
    assert answer.status == 405
    allowed = {m.strip() for m in answer.get("Allow", "").split(",")}
    assert allowed == {"GET", "HEAD", "POST", "OPTIONS"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_B_016_get_makes_no_session(client, stub, method):
    query = new_body().replace(" ", "%20").replace("<", "%3C").replace(">", "%3E")
    for path in ("/http-bind", "/http-bind?" + query):
        answer = client.request(method, path)
        assert answer.status in (200, 404), answer
        assert b"sid=" not in answer.body
    client.start(stub)
    assert stub.new_connections() == 0, "a GET made a connection to the XMPP server"


def preflight(client, origin):
    return client.request("OPTIONS", headers={"Origin": origin, "Access-Control-Request-Method": "POST",
                                              "Access-Control-Request-Headers": "content-type"})


def test_B_017_cors_preflight(client):
    answer = preflight(client, GOOD)
    assert answer.status in (200, 204), answer
    assert answer.get("Access-Control-Allow-Origin") == GOOD
    assert "POST" in answer.get("Access-Control-Allow-Methods", "")
    assert "content-type" in answer.get("Access-Control-Allow-Headers", "").lower()
    assert int(answer.get("Access-Control-Max-Age", "0")) > 0
    assert "origin" in answer.get("Vary", "").lower()


def test_B_017_cors_headers_are_on_every_answer(client, stub):
    from_good = {"Origin": GOOD}
    session = client.session(client.new_async(headers=from_good))
    answers = [session.creation, session.next(X.message("x"), type="terminate", headers=from_good),
               client.post("<nonsense", headers=from_good).answer(),
               client.post(new_body(to="nope.invalid"), headers=from_good).answer(),
               client.post("x" * (LIMIT + 1), headers=from_good).raw(),
               client.request("PUT", headers=from_good)]
    for answer in answers:
        assert answer.get("Access-Control-Allow-Origin") == GOOD, answer
        assert "origin" in answer.get("Vary", "").lower(), answer


def test_B_017_other_origins_get_no_permission(client, stub):
    assert preflight(client, BAD).get("Access-Control-Allow-Origin") is None
    answer = client.new_async(headers={"Origin": BAD}).raw()
    assert answer.get("Access-Control-Allow-Origin") is None
    assert "origin" in answer.get("Vary", "").lower()
    assert client.new().creation.get("Access-Control-Allow-Origin") in (None, GOOD)


def test_B_017_any_origin_and_the_default(httpd, stub):
    anyone = httpd(upstreams=[stub.upstream()], directives="BoshAllowOrigin *")
    assert preflight(anyone.client(), BAD).get("Access-Control-Allow-Origin") in ("*", BAD)
    nobody = httpd(upstreams=[stub.upstream()])
    assert preflight(nobody.client(), BAD).get("Access-Control-Allow-Origin") is None
    assert nobody.client().post("", headers={"Origin": BAD}).answer().get("Access-Control-Allow-Origin") is None


def test_B_018_B_020_headers_of_every_answer(client, stub):
    session, _ = client.start(stub)
    answers = [session.creation, client.post("").answer(), client.post("<x/>").answer(), session.terminate()]
    for answer in answers:
        check_answer(answer, creation=True)
        policy = answer.get("Content-Security-Policy", "")
        assert "default-src 'none'" in policy and "sandbox" in policy, answer
        assert "no-store" in answer.get("Cache-Control")


def test_B_019_too_large_a_body_gets_413_and_the_session_lives(client, stub):
    session, upstream = echoing(client, stub)
    small = X.message("x")
    answer = session.send(1001, X.message("x" * LIMIT), check=False).raw()
    assert answer.status == 413
    room = LIMIT - len(session.body(1001, small)) + 1
    text = "y" * room
    assert len(session.body(1001, X.message(text))) == LIMIT
    assert session.send(1001, X.message(text + "y"), check=False).raw().status == 413  # one byte too many
    assert session.send(1001, X.message(text)).answer().texts() == [text]
    assert upstream.bodies() == [text]


def test_B_019_too_large_a_chunked_body(client, stub):
    session, _ = echoing(client, stub)
    conn = client.connect()
    exchange = conn.expect(session=session)
    conn.send(client.head(headers={"Transfer-Encoding": "chunked"}))
    piece = b"x" * 4096
    try:
        conn.send(b"1000\r\n" + session.body(1001, "<x>").encode()[:-7].ljust(4096) + b"\r\n")
        for _ in range(LIMIT // 4096 + 1):
            conn.send(b"1000\r\n" + piece + b"\r\n")
        conn.send(b"0\r\n\r\n")
    except OSError:
        pass  # refused before everything was sent
    assert exchange.raw().status == 413
    roundtrip(session, "still there")


def test_B_020_chosen_content_type_is_sandboxed(client, stub):
    session, _ = client.start(stub, content="text/html")
    answer = session.creation
    assert answer.get("X-Content-Type-Options") == "nosniff"
    policy = answer.get("Content-Security-Policy", "")
    assert "default-src 'none'" in policy and "sandbox" in policy


def test_B_021_no_header_carries_protocol_state(client, stub):
    stub.script.echo = True

    def bare(text):
        conn = client.connect()
        exchange = conn.expect(creation=True)
        conn.send(f"POST {client.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}")
        root = exchange.answer().root
        conn.close()
        return root
    sid = bare(new_body()).get("sid")
    client.secrets.add(sid)
    # Nothing but the body of the answer was used.
    root = bare(wrap(auth(), sid=sid, rid=1001))
    assert root.find(X.tag("success", X.NS_SASL)) is not None
    root = bare(wrap(X.message("hi"), sid=sid, rid=1002))
    assert X.text_of(root.find(X.tag("message")), "body") == "hi"
    assert bare(wrap(sid=sid, rid=1003, type="terminate")).get("type") == "terminate"


def test_B_022_nothing_is_sent_before_the_answer_is_complete(client, stub):
    session, upstream = client.start(stub)
    exchange = session.send(1001).held(1.0)
    upstream.send_message("x" * 1000)
    answer = exchange.answer()
    assert exchange.conn.interim == []
    assert exchange.t_done - exchange.t_first < 0.2
    assert re.match(rb"<(\?xml|body)", answer.body)


def test_terminate_is_clean(client, stub):
    # The simplest whole life of a session, for the valgrind subset and the reader.
    session, upstream = client.login(stub, user="alice")
    held = session.send_next().held()
    upstream.send_message("hello")
    assert held.answer().texts() == ["hello"]
    T(session.terminate("<presence xmlns='jabber:client' type='unavailable'/>"))
    upstream.wait_end()
    session.gone()
