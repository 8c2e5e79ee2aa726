# SPDX-License-Identifier: Apache-2.0
"""Hostile and broken input: the protocol's answer, the server alive, other sessions untouched."""

import random
import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW
from client import TB, check_answer, new_body, wrap


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], directives="BoshPolling 0\n")


@pytest.fixture
def bystander(client, server, stub):
    """A session that must not notice what happens in the test, and a server that must not lose a process."""
    session, upstream = client.start(stub)
    held = session.send_next().held(0.1)
    children = server.children()
    yield session
    upstream.send_message("still here")
    assert held.answer().texts() == ["still here"]
    session.send_next(X.message("and back"))
    assert upstream.wait_bodies(1) == ["and back"]
    assert server.children() == children, "a child died"


DEEP = "<a>" * 200000
BOMB = ("<!DOCTYPE b [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {y} '{f'&{x};' * 10}'>" for x, y in zip("abcdefghi", "bcdefghij")) + "]>")

GARBAGE = {
    "empty": "", "spaces": "   \r\n", "words": "hello world", "json": '{"a": 1}', "form": "a=b&c=d",
    "html": "<!DOCTYPE html><html><body>x</body></html>", "nul": "\0" * 1000,
    "binary": bytes(range(256)) * 40, "utf16": new_body().encode("utf-16"),
    "truncated tag": new_body()[:-5], "truncated attribute": new_body()[:60], "open": new_body("<message>")[:-7],
    "one byte": "<", "deep": f"<body xmlns='{X.NS_BOSH}' rid='1' to='example.com'>{DEEP}",
    "bomb": BOMB + new_body("<message xmlns='jabber:client'>&j;</message>"),
    "external": "<!DOCTYPE b SYSTEM 'file:///etc/passwd'>" + new_body(),
    "external entity": "<!DOCTYPE b [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + new_body("<m>&x;</m>"),
    "parameter entity": "<!DOCTYPE b [<!ENTITY % x SYSTEM 'http://127.0.0.1:1/'> %x;]>" + new_body(),
    "long name": f"<body xmlns='{X.NS_BOSH}' rid='1' to='example.com'><{'n' * 500000}/></body>",
    "long attribute": new_body(**{"from": "f" * 500000}),
    "long domain": new_body(to="d" * 500000),
    "attributes": f"<body xmlns='{X.NS_BOSH}' " + " ".join(f"a{i}='1'" for i in range(20000)) + "/>",
    "namespaces": f"<body xmlns='{X.NS_BOSH}' " + " ".join(f"xmlns:a{i}='u{i}'" for i in range(20000)) + "/>",
    "stream header": f"<stream:stream xmlns:stream='{X.NS_STREAMS}' to='example.com'>",
}
TERMINAL = ("bad-request", "policy-violation", "host-unknown", "improper-addressing")


@pytest.mark.valgrind
@pytest.mark.parametrize("what", list(GARBAGE))
def test_garbage_without_a_session(client, bystander, what):
    start = time.monotonic()
    answer = client.post(GARBAGE[what], creation=True).raw()
    if answer.status != 413:
        check_answer(answer, creation=True)
        # A long name is well-formed, and an overlong `from` may be ignored: then there is a session.
        if what in ("long name", "long attribute") and answer.attr("sid"):
            client.session(answer.exchange)
        else:
            TB(answer, *TERMINAL)
    assert time.monotonic() - start < 10 * SLOW


@pytest.mark.parametrize("what", ["truncated", "binary", "bomb", "deep", "wrong rid"])
def test_garbage_in_a_session_ends_that_session_only(client, stub, bystander, what):
    session, upstream = client.start(stub)
    start = f"<body xmlns='{X.NS_BOSH}' sid='{session.sid}' rid='1001'>"
    text = {"truncated": start + "<message", "binary": start.encode() + bytes(range(128, 256)),
            "bomb": start + "<message>&j;</message></body>", "deep": start + DEEP,
            "wrong rid": start.replace("1001", "5")}[what]
    if what == "wrong rid":
        text = text.replace("'5'>", "'5'/>")
    session.over = True
    TB(session.post(text).answer(), "bad-request", "policy-violation", "item-not-found")
    upstream.wait_closed()
    assert upstream.stanzas == []


def test_a_body_of_10_megabytes(client, bystander):
    for text in ("x" * 10_000_000, new_body("<message xmlns='jabber:client'>" + "y" * 10_000_000 + "</message>")):
        answer = client.post(text, creation=True).raw(20)
        assert answer.status == 413, answer


def test_a_content_length_that_lies(client, bystander):
    for length in (10**12, 2**63, 2**64, -1):
        conn = client.connect()
        exchange = conn.expect()
        conn.send(client.head(length) + b"<body")
        if length in (2**63, 2**64, -1):
            assert exchange.raw().status in (400, 413)
        else:
            exchange.event.wait(0.5)
            assert exchange.result is None or exchange.result.status == 413
        conn.close()


@pytest.mark.parametrize("sid", ["", "0" * 32, "nonsense", "\u4f60", "%00", "' or 1=1", "a" * 100000])
def test_wrong_sid(client, bystander, sid):
    TB(client.post(wrap(X.message("x"), sid=sid, rid=1001)).answer(), "item-not-found")


def test_no_sid_and_no_to(client, stub, bystander):
    TB(client.post(wrap(rid=1001)).answer(), "improper-addressing")
    TB(client.post(wrap(X.message("x"), rid=1001)).answer(), "improper-addressing")
    assert stub.new_connections() == 0


def test_sids_close_to_a_live_one(client, stub, bystander):
    """Sids that differ in one place from a live one are unknown."""
    session, upstream = client.start(stub)
    rng = random.Random(7)
    for _ in range(20):
        i = rng.randrange(len(session.sid))
        wrong = session.sid[:i] + ("0" if session.sid[i] != "0" else "1") + session.sid[i + 1:]
        for sid in (wrong, wrong[:-1], wrong + "0", session.sid + "0", session.sid[:-1], session.sid + " "):
            TB(client.post(wrap(X.message("x"), sid=sid, rid=1001)).answer(), "item-not-found")
    session.send_next(X.message("mine"))
    assert upstream.wait_bodies(1) == ["mine"]


@pytest.mark.valgrind
def test_mutations_of_valid_requests(client, stub, bystander):
    """Bytes of a good request changed at random: whatever it then means, an answer comes."""
    rng = random.Random(42)
    for _ in range(150):
        data = bytearray(new_body(X.message("hello"), wait=0).encode())
        for _ in range(rng.randrange(1, 4)):
            i = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[i] = rng.randrange(256)
            elif kind == 1:
                del data[i]
            else:
                data.insert(i, rng.choice(b"<>&'\"/ =:;]!?-\x00\xff"))
        answer = client.post(bytes(data), content=None, creation=True).answer()
        if answer.attr("sid"):
            client.secrets.add(answer.attr("sid"))
        else:
            TB(answer, "bad-request", "host-unknown", "improper-addressing")
    for upstream in stub.live():
        assert upstream.error is None, "what the server was sent is not XML"


def test_connections_that_say_nothing_or_half(client, bystander):
    # Fewer than workers: a worker of httpd waits for the rest of a request, whatever the module does.
    conns = [client.connect() for _ in range(40)]
    for i, conn in enumerate(conns):
        conn.send((client.head(1000) + b"<body")[:i * 5])
    TB(client.post(wrap(rid=1)).at_once(1.0), "improper-addressing")
    for i, conn in enumerate(conns):
        if i % 2:
            conn.rst()
        else:
            conn.close()


def test_resets_at_every_moment(client, stub, bystander):
    """Requests whose connection is reset right after they were sent, some before they were complete."""
    rng = random.Random(3)
    for _ in range(60):
        session, upstream = client.start(stub)
        data = session.body(1001, X.message("x")).encode()
        conn = client.connect()
        conn.send((client.head(len(data)) + data)[:rng.choice([50, 200, 10000])])
        conn.rst()
        session.send(1001, X.message("x"))
        assert upstream.wait_bodies(1) == ["x"]
        assert len(upstream.stanzas) == 1
        session.rid = 1001


def test_floods_of_one_session_do_not_stop_another(client, stub, bystander):
    """A client that repeats one request as fast as it can."""
    session, upstream = client.start(stub)
    session.over = True
    exchanges = [session.send(1001) for _ in range(200)]
    session.send(1001)
    last = exchanges[-1]
    last.event.wait(2)
    other, up_other = client.start(stub)
    start = time.monotonic()
    other.send_next(X.message("quick"))
    up_other.wait_bodies(1)
    assert time.monotonic() - start < 5 * SLOW
    for exchange in exchanges:
        exchange.conn.close()


def test_shared_memory_that_is_full(httpd, stub):
    """More waits for the clients than there is memory: new sessions are refused, running ones lose nothing."""
    server = httpd(upstreams=[stub.upstream()], directives="BoshMaxSessions 100\nBoshMemory 4M\nBoshPolling 0\n")
    server.expect_log(r"BH00[24]:")
    client = server.client()
    sessions = [client.start(stub) for _ in range(10)]
    want = [f"{i}:" + "x" * 9000 for i in range(100)]  # 9 MB in all

    def flood(upstream):
        for text in want:
            upstream.send_message(text)
    threads = [threading.Thread(target=flood, args=(u,), daemon=True) for _, u in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(1)
    refused = client.new_async(wait=5).raw()
    if refused.status == 200 and refused.attr("sid"):
        client.session(refused.exchange)  # there was still room for one that has nothing in it
    else:
        assert refused.status == 503 or refused.attr("condition") == "internal-server-error", refused
    # All clients poll at the same time, as they do: what one takes makes room for what the others wait for.
    under_way = {session: session.send(1001, check=False) for session, _ in sessions}
    texts = {session: [] for session in under_way}
    while under_way:
        for session, exchange in list(under_way.items()):
            if not exchange.event.wait(0.01):
                continue
            answer = exchange.raw()
            if answer.status == 503:  # the same rid again
                under_way[session] = session.send(session.rid, check=False)
                continue
            check_answer(answer)
            assert answer.attr("type") is None, answer
            texts[session] += answer.texts()
            if len(texts[session]) < 100:
                under_way[session] = session.send_next(check=False)
            else:
                del under_way[session]
    assert all(got == want for got in texts.values())
    for thread in threads:
        thread.join(10)
    server.expect_log(r"BH00[24]:")
    client.close()
