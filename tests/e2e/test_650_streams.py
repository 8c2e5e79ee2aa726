# SPDX-License-Identifier: Apache-2.0
"""Several XMPP streams in one session: XEP-0124 section 16, through a real httpd, its restarts and its crashes."""

import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import T, TB

NAMES = ["example.com", "b.example", "c.example"]


@pytest.fixture
def several(httpd, stub_server):
    """several(...): a server whose sessions may have three streams, and a client of it."""
    clients = []

    def start(directives="BoshMaxStreams 3\n", **options):
        lines = [f"{name} {stub_server.address}" for name in NAMES]
        server = httpd(threads=32, upstreams=lines, directives=directives, **options)
        clients.append(server.client())
        return server, clients[-1]
    yield start
    for client in clients:
        client.close()


class Multi:
    """A session with streams, named as the server names them."""

    def __init__(self, client, stub, n=2, **attrs):
        self.stub = stub
        self.session, first = client.start(stub, **attrs)
        self.upstreams = [first]
        self.names = [self.session.creation.attr("stream")]
        self.got = {name: [] for name in self.names}
        self.ended = {}
        while len(self.names) < n:
            self.add(NAMES[len(self.names)])

    def add(self, to, **attrs):
        exchange = self.request(to=to, **attrs)
        upstream = self.stub.accept()
        answer = self.take(exchange.answer())
        name = answer.attr("stream")
        assert name and name not in self.names, answer
        self.names.append(name)
        self.got.setdefault(name, [])
        self.upstreams.append(upstream)
        while not self.features(name):
            self.next()
        return answer

    def features(self, name):
        return [k for k in self.got[name] if k.tag == X.tag("features", X.NS_STREAMS)]

    def request(self, payload="", **attrs):
        return self.session.send(self.session.rid + 1, payload, **attrs)

    def take(self, answer):
        """Notes what an answer brought."""
        name = answer.attr("stream")
        if answer.attr("type") == "terminate":
            self.ended[name] = answer.attr("condition")
            self.session.over = name is None
        if answer.kids:
            assert name, f"payload of no stream: {answer}"
        if name:
            self.got.setdefault(name, []).extend(answer.kids)
        return answer

    def next(self, payload="", timeout=20, **attrs):
        """One more request; takes its answer, and those of the ones before it. Sent again when its connection breaks."""
        self.session.rid += 1
        for exchange in [x for x in self.session.exchanges if not x.taken]:
            self.take(exchange.answer(timeout))
        deadline = time.monotonic() + timeout * SLOW
        while time.monotonic() < deadline:
            try:
                exchange = self.session.send(self.session.rid, payload, **attrs)
                exchange.event.wait(timeout)
            except OSError:
                time.sleep(0.02)  # between two generations nobody accepts
                continue
            if exchange.result:
                return self.take(exchange.answer())
            exchange.taken = True
        raise AssertionError(f"no answer within {timeout} s")

    def texts(self, i):
        return [k.findtext(X.tag("body", X.NS_CLIENT)) for k in self.got.get(self.names[i], [])
                if k.tag == X.tag("message", X.NS_CLIENT)]

    def until(self, condition, what):
        deadline = time.monotonic() + 20 * SLOW
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}"
            self.next()


@pytest.mark.rows("B-326", "B-328", "B-330", "B-332", "X-037")
def test_two_streams(several, stub):
    _, client = several()
    multi = Multi(client, stub, 1, wait=5)
    answer = multi.add("b.example", **{"xml:lang": "fr", "xmpp:version": "1.0"})
    assert answer.attr("from") == "b.example" and answer.attr(X.tag("version", X.NS_XBOSH)) == "1.0"
    assert all(answer.attr(a) is None for a in ("sid", "wait", "hold", "requests", "inactivity", "ver", "polling"))
    header = multi.upstreams[1].headers[0]
    assert header["attrs"]["to"] == "b.example" and header["lang"] == "fr"
    multi.request(X.message("to b"), stream=multi.names[1])
    assert multi.upstreams[1].wait_bodies(1) == ["to b"]
    assert multi.upstreams[0].bodies() == []


@pytest.mark.rows("B-333", "B-335", "B-336")
def test_each_stream_has_its_own(several, stub):
    _, client = several(children=3)
    multi = Multi(client, stub, 3, wait=5)
    multi.request(X.message("to all"))
    for upstream in multi.upstreams:
        assert upstream.wait_bodies(1) == ["to all"]
    for i, upstream in enumerate(multi.upstreams):
        for k in range(20):
            upstream.send_message(f"{i}.{k}")
    multi.until(lambda: all(len(multi.texts(i)) == 20 for i in range(3)), "all messages")
    for i in range(3):
        assert multi.texts(i) == [f"{i}.{k}" for k in range(20)]


@pytest.mark.rows("B-343")
def test_one_server_ends_its_stream(several, stub):
    _, client = several()
    multi = Multi(client, stub, 2, wait=5)
    multi.upstreams[1].end_stream()
    multi.until(lambda: multi.names[1] in multi.ended, "the end of the second")
    assert not multi.session.over
    multi.request(X.message("still here"), stream=multi.names[0])
    assert multi.upstreams[0].wait_bodies(1) == ["still here"]
    multi.upstreams[0].send_message("yes")
    multi.until(lambda: multi.texts(0) == ["yes"], "an answer")


@pytest.mark.rows("B-341", "B-342")
def test_the_client_ends_one_and_then_all(several, stub):
    _, client = several()
    multi = Multi(client, stub, 3, wait=5)
    multi.next(X.message("bye"), type="terminate", stream=multi.names[1])
    multi.until(lambda: multi.names[1] in multi.ended, "the end of the second")
    assert multi.upstreams[1].wait_bodies(1) == ["bye"]
    multi.upstreams[1].wait_closed()
    assert multi.upstreams[1].ended
    T(multi.request(X.message("to the rest"), type="terminate").answer())
    multi.session.over = True
    for i in (0, 2):
        assert multi.upstreams[i].wait_bodies(1) == ["to the rest"]
        multi.upstreams[i].wait_closed()
        assert multi.upstreams[i].ended
    assert multi.upstreams[1].bodies() == ["bye"]


@pytest.mark.rows("B-345")
def test_one_too_many(several, stub):
    _, client = several()
    multi = Multi(client, stub, 3, wait=5)
    TB(multi.request(to="b.example").answer(), "policy-violation")
    multi.session.over = True
    for upstream in multi.upstreams:
        upstream.wait_closed()


def test_a_domain_that_nobody_serves(several, stub):
    _, client = several()
    multi = Multi(client, stub, 1, wait=5)
    answer = multi.next(to="nowhere.example")
    assert answer.attr("condition") == "host-unknown" and answer.attr("stream")
    multi.request(X.message("on"), stream=multi.names[0])
    assert multi.upstreams[0].wait_bodies(1) == ["on"]


@pytest.mark.skipif(VALGRIND, reason="several processes")
@pytest.mark.limit(90)
@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_all_streams_go_on_through_a_restart(several, stub, mpm):
    server, client = several(mpm=mpm, children=6 if mpm == "prefork" else 2)
    multi = Multi(client, stub, 3, wait=3)
    for round_ in range(2):
        for i, upstream in enumerate(multi.upstreams):
            upstream.send_message(f"{round_}.{i}.before")
        server.graceful()
        for i, upstream in enumerate(multi.upstreams):
            upstream.send_message(f"{round_}.{i}.after")
            multi.next(X.message(f"{round_}.{i}.up"), stream=multi.names[i])
    multi.until(lambda: all(len(multi.texts(i)) == 4 for i in range(3)), "all messages")
    for i, upstream in enumerate(multi.upstreams):
        assert multi.texts(i) == [f"{r}.{i}.{w}" for r in range(2) for w in ("before", "after")]
        assert upstream.wait_bodies(2) == [f"{r}.{i}.up" for r in range(2)]
    assert stub.new_connections() == 0, "somebody connected anew"
    assert multi.ended == {}


@pytest.mark.skipif(VALGRIND, reason="several processes")
@pytest.mark.limit(90)
def test_all_streams_outlive_their_child(several, stub):
    server, client = several(children=3)
    server.expect_log("BH20")
    multi = Multi(client, stub, 3, wait=3)
    for k in range(2):
        owners = {server.owner_of(upstream.peer_port) for upstream in multi.upstreams}
        for i, upstream in enumerate(multi.upstreams):
            upstream.send_message(f"{k}.{i}.before")
        for owner in owners:
            server.kill_child(owner)
        wait_for(lambda: len(server.children()) >= 3, 20, "new children")
        for i, upstream in enumerate(multi.upstreams):
            upstream.send_message(f"{k}.{i}.after")
            multi.next(X.message(f"{k}.{i}.up"), stream=multi.names[i])
    multi.until(lambda: all(len(multi.texts(i)) == 4 for i in range(3)), "all messages")
    for i, upstream in enumerate(multi.upstreams):
        assert multi.texts(i) == [f"{k}.{i}.{w}" for k in range(2) for w in ("before", "after")]
        assert upstream.wait_bodies(2) == [f"{k}.{i}.up" for k in range(2)]
    assert multi.ended == {}
