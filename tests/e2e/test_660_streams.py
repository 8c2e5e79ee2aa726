# SPDX-License-Identifier: Apache-2.0
"""Several XMPP streams in one session: checklist section 16 (XEP-0124 section 16), BoshMaxStreams."""

import random
import re
import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import E, T, TB
from stub import stream_error
from test_990_restart import hand_overs, insist, old_ones_end
from test_995_crash import deaths, given_up, kill_owner

DOMAINS = ["example.com", "b.example", "c.example"]
GONE = 'dead.example 127.0.0.1:1 tls=off'


def upstreams(stub):
    return [stub.upstream(domain) for domain in DOMAINS]


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[*upstreams(stub_server), GONE], directives="BoshMaxStreams 3\n")


class Multi:
    """A session with several streams: .names and .upstreams, the first stream's first."""

    def __init__(self, client, stub, n=2, **attrs):
        self.stub = stub
        self.session, upstream = client.start(stub, **attrs)
        self.names, self.upstreams = [self.session.creation.attr("stream")], [upstream]
        self.got = {self.names[0]: []}
        self.answers = []  # to adds
        for domain in DOMAINS[1:n]:
            self.add(domain)

    def add(self, domain, **attrs):
        exchange = self.session.send_next(to=domain, xml_lang="en", xmpp_version="1.0", **attrs)
        upstream = self.stub.accept()
        answer = exchange.answer()
        name = answer.attr("stream")
        assert name and name not in self.names and answer.attr("type") is None, answer
        self.answers.append(answer)
        self.names.append(name)
        self.upstreams.append(upstream)
        self.got[name] = []
        while answer.find("features", X.NS_STREAMS) is None:
            answer = self.session.poll()
            assert answer.attr("stream") in ((name,) if answer.kids else (None, name)), answer
        return upstream

    def take(self, answer):
        """Sorts the texts of an answer, which must say whose they are."""
        if answer.kids:
            assert answer.attr("stream") in self.names, answer  # B-333
            self.got[answer.attr("stream")] += answer.texts()
        return answer

    def texts(self, *want):
        """Polls until each stream has brought these texts, in this order."""
        deadline = time.monotonic() + 10 * SLOW
        while [self.got[n] for n in self.names] != list(want) and time.monotonic() < deadline:
            assert self.take(self.session.poll()).attr("type") is None
        assert [self.got[n] for n in self.names] == list(want)


def is_open(upstream):
    return upstream.ended is None and upstream.eof is None


@pytest.mark.rows("B-326", "B-328", "B-330", "B-331", "B-332", "X-037")
def test_B_328_two_servers_in_one_session(client, stub):
    multi = Multi(client, stub, n=1)
    assert re.fullmatch("[0-9a-f]{32}", multi.names[0])
    upstream = multi.add("b.example")
    attrs = upstream.wait_header()["attrs"]
    assert attrs["to"] == "b.example" and attrs["version"] == "1.0", attrs
    answer = multi.answers[0]
    assert answer.attr("from") in (None, "b.example"), answer
    for name in ("sid", "requests", "polling", "hold", "inactivity", "maxpause", "accept", "ver", "wait"):
        assert answer.attr(name) is None, answer
    assert stub.new_connections() == 0


@pytest.mark.rows("B-329", "B-347", "R-10")
def test_B_347_restarts(client, stub):
    multi = Multi(client, stub)
    held = multi.session.send_next(to="b.example", xmpp_restart="true", stream=multi.names[1])
    assert multi.upstreams[1].wait_header(2)["attrs"]["to"] == "b.example"
    assert held.answer().attr("stream") == multi.names[1]
    assert len(multi.upstreams[0].headers) == 1
    multi.session.send_next(to="example.com", xmpp_restart="true")
    assert multi.upstreams[0].wait_header(2)["attrs"]["to"] == "example.com"
    assert multi.upstreams[1].wait_header(3)["attrs"]["to"] == "b.example"
    assert stub.new_connections() == 0


@pytest.mark.rows("B-333", "B-334", "B-335", "B-336", "B-339", "B-346")
def test_B_335_three_streams(client, stub):
    multi = Multi(client, stub, n=3)
    session = multi.session
    session.send_next(X.message("all"))
    for i, name in enumerate(multi.names):
        session.send_next(X.message(f"only {i}"), stream=name)
        E(session.poll())  # the one before
    for i, upstream in enumerate(multi.upstreams):
        assert upstream.wait_bodies(2) == ["all", f"only {i}"]
    for k in range(3):
        for i, upstream in enumerate(multi.upstreams):
            upstream.send_message(f"{i}.{k}")
    multi.texts(*[[f"{i}.{k}" for k in range(3)] for i in range(3)])


@pytest.mark.rows("B-337", "B-344")
def test_B_337_an_unknown_stream(client, stub):
    multi = Multi(client, stub)
    TB(multi.session.send_next(X.message("x"), stream="f" * 32).answer(), "item-not-found")
    multi.session.over = True
    for upstream in multi.upstreams:
        upstream.wait_end()
        assert upstream.bodies() == []


def test_a_streams_name_is_no_session_id(client, stub):
    multi = Multi(client, stub)
    for name in multi.names:
        TB(client.post(f"<body xmlns='{X.NS_BOSH}' rid='1001' sid='{name}'/>").answer(), "item-not-found")
    multi.upstreams[1].send_message("still")
    multi.texts([], ["still"])


@pytest.mark.rows("B-340")
def test_B_340_a_flood_and_one_message(client, stub):
    multi = Multi(client, stub)
    for i in range(200):
        multi.upstreams[0].send_message(f"{i} " + "x" * 20000)
    multi.upstreams[1].send_message("rare")
    for n in range(1, 100):
        multi.take(multi.session.poll())
        if multi.got[multi.names[1]]:
            break
    assert multi.got[multi.names[1]] == ["rare"] and n <= 10, n


@pytest.mark.rows("B-341", "B-338", "B-342")
@pytest.mark.parametrize("which", [0, 1])
def test_B_341_one_is_closed_then_the_other(client, stub, which):
    multi = Multi(client, stub)
    session, name, upstream = multi.session, multi.names[which], multi.upstreams[which]
    other, living = multi.names[1 - which], multi.upstreams[1 - which]
    answer = session.send_next(X.message("bye"), type="terminate", stream=name).answer()
    T(answer)
    assert answer.attr("stream") == name
    session.over = False
    upstream.wait_end()
    assert upstream.bodies() == ["bye"]
    upstream.wait_closed()
    held = session.send_next(X.message("late"), stream=name).held()  # dropped
    living.send_message("alive")
    answer = held.answer()
    assert answer.attr("stream") == other and answer.texts() == ["alive"], answer
    assert living.bodies() == [] and is_open(living)
    T(session.send_next(X.message("bye, too"), type="terminate", stream=other).answer())
    living.wait_end()
    assert living.bodies() == ["bye, too"]
    session.gone()


@pytest.mark.rows("B-342")
def test_B_342_terminate_closes_all(client, stub):
    multi = Multi(client, stub, n=3)
    T(multi.session.terminate(X.message("bye")))
    for upstream in multi.upstreams:
        upstream.wait_end()
        assert upstream.bodies() == ["bye"]


@pytest.mark.rows("B-343")
@pytest.mark.parametrize("how", ["end", "error", "reset"])
@pytest.mark.parametrize("which", [0, 1])
def test_B_343_a_server_ends_one(client, stub, which, how):
    multi = Multi(client, stub)
    held = multi.session.send_next()
    upstream, living = multi.upstreams[which], multi.upstreams[1 - which]
    if how == "end":
        upstream.end_stream()
    elif how == "error":
        upstream.send(stream_error("conflict") + "</stream:stream>")
    else:
        upstream.rst()
    answer = held.answer()
    assert answer.attr("type") == "terminate" and answer.attr("stream") == multi.names[which], answer
    assert answer.attr("condition") == {"end": None, "error": "remote-stream-error",
                                        "reset": "remote-connection-failed"}[how], answer
    assert (answer.find("error", X.NS_STREAMS) is not None) == (how == "error"), answer
    held = multi.session.send_next(X.message("on"))
    assert living.wait_bodies(1) == ["on"]
    living.send_message("alive")
    answer = held.answer()
    assert answer.attr("stream") == multi.names[1 - which] and answer.texts() == ["alive"], answer
    # When the last one goes the session goes.
    held = multi.session.send_next()
    living.end_stream()
    assert held.answer().attr("type") == "terminate"
    multi.session.gone()


@pytest.mark.rows("B-343")
@pytest.mark.parametrize("domain, condition", [("nobody.example", "host-unknown"),
                                               ("dead.example", "remote-connection-failed")])
def test_B_343_one_that_cannot_be(server, client, stub, domain, condition):
    if domain == "dead.example":
        server.expect_log("BH201:")
    multi = Multi(client, stub)
    answer = multi.session.send_next(to=domain).answer()
    if answer.attr("type") is None:  # the name first
        name, answer = answer.attr("stream"), multi.session.poll()
        assert answer.attr("stream") == name, answer
    TB(answer, condition)
    assert answer.attr("stream") not in (None, *multi.names), answer
    for i, upstream in enumerate(multi.upstreams):
        upstream.send_message(str(i))
    multi.texts(["0"], ["1"])


@pytest.mark.rows("B-345")
def test_B_345_one_too_many(client, stub):
    multi = Multi(client, stub, n=3)
    TB(multi.session.send_next(to="example.com").answer(), "policy-violation")
    multi.session.over = True
    assert stub.new_connections() == 0


@pytest.mark.rows("B-326", "B-327")
def test_B_326_switched_off(httpd, stub):
    server = httpd(upstreams=upstreams(stub))
    client = server.client()
    session, upstream = client.start(stub)
    assert session.creation.attr("stream") is None
    held = session.send_next(to="b.example").held()
    upstream.send_message("x")
    answer = held.answer()
    assert answer.texts() == ["x"] and answer.attr("stream") is None, answer
    assert stub.new_connections() == 0
    client.close()


def test_one_user_who_logs_in_on_both(client, stub):
    multi = Multi(client, stub)
    for i, name in enumerate(multi.names):
        answer = multi.session.send_next(f"<auth xmlns='{X.NS_SASL}' mechanism='ANONYMOUS'/>", stream=name).answer()
        assert answer.attr("stream") == name and answer.find("success", X.NS_SASL) is not None, answer
        answer = multi.session.send_next(to=DOMAINS[i], xmpp_restart="true", stream=name).answer()
        assert answer.attr("stream") == name and answer.find("features", X.NS_STREAMS) is not None, answer
    assert [len(u.headers) for u in multi.upstreams] == [2, 2]


# ---- children that go ----

class Talk:
    """Sessions of several streams that all talk at once, both ways, numbered; a thread for each session and one for
    the servers, which cut each message in two."""

    def __init__(self, client, stub, sessions, streams):
        self.multis = [Multi(client, stub, n=streams, wait=5) for _ in range(sessions)]
        self.sent = [[[] for _ in range(streams)] for _ in range(sessions)]
        self.pushed = [[0] * streams for _ in range(sessions)]
        self.errors, self.running = [], True
        self.threads = [threading.Thread(target=self._guard, args=(self._talk, i), daemon=True)
                        for i in range(sessions)]
        self.threads.append(threading.Thread(target=self._guard, args=(self._push,), daemon=True))
        for thread in self.threads:
            thread.start()

    def _guard(self, function, *args):
        try:
            function(*args)
        except BaseException as err:  # told by finish()
            self.errors.append((args, repr(err)[:600]))

    def _answer(self, multi, payload="", **attrs):
        session = multi.session
        session.rid += 1
        answer, _ = insist(lambda: session.send(session.rid, payload, **attrs))
        assert answer.attr("type") is None, f"the session ended: {answer}"
        multi.take(answer)

    def _talk(self, i):
        multi, n = self.multis[i], 0
        while self.running:
            # Each in its turn, then all of them at once.
            k = n % (len(multi.names) + 1)
            targets = [k] if k < len(multi.names) else range(len(multi.names))
            for t in targets:
                self.sent[i][t].append(f"c{n}")
            self._answer(multi, X.message(f"c{n}"), stream=multi.names[k] if k < len(multi.names) else None)
            n += 1

    def _push(self):
        while self.running:
            cut = []
            for i, multi in enumerate(self.multis):
                for k, upstream in enumerate(multi.upstreams):
                    data = X.message(f"s{self.pushed[i][k]}", to="alice@example.com").encode()
                    self.pushed[i][k] += 1
                    at = random.randrange(1, len(data) - 1)
                    upstream.send(data[:at])
                    cut.append((upstream, data[at:]))
            time.sleep(0.05)
            for upstream, rest in cut:
                upstream.send(rest)

    def goes_on(self):
        """Until every session has said something more."""
        before = [sum(map(len, s)) for s in self.sent]
        wait_for(lambda: self.errors or all(sum(map(len, s)) > b + 2 for s, b in zip(self.sent, before)), 20,
                 "traffic goes on")
        assert not self.errors, self.errors[:3]

    def finish(self):
        self.running = False
        for thread in self.threads:
            thread.join(60)
        assert not self.errors, self.errors[:3]
        for i, multi in enumerate(self.multis):
            deadline = time.monotonic() + 20 * SLOW
            while [len(multi.got[n]) for n in multi.names] != self.pushed[i] and time.monotonic() < deadline:
                self._answer(multi)
            for k, name in enumerate(multi.names):
                assert multi.got[name] == [f"s{n}" for n in range(self.pushed[i][k])], f"{i}.{k}, to the client"
                assert multi.upstreams[k].wait_bodies(len(self.sent[i][k])) == self.sent[i][k], \
                    f"{i}.{k}, to the server"


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.limit(120)
@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_graceful_restarts(httpd, stub, mpm):
    prefork = mpm == "prefork"
    server = httpd(mpm=mpm, children=10 if prefork else 2, threads=32, upstreams=upstreams(stub),
                   directives="BoshMaxStreams 3\n" + ("MaxRequestWorkers 20\n" if prefork else ""))
    client = server.client()
    talk = Talk(client, stub, 4, 3)
    for _ in range(3):
        before = server.children()
        server.graceful()
        talk.goes_on()
        old_ones_end(server, before)
    talk.finish()
    assert sum(n for n, _ in hand_overs(server)) >= 4 * 3 * 3, hand_overs(server)
    client.close()


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.limit(120)
def test_killed_children(httpd, stub):
    server = httpd(children=3, threads=32, upstreams=upstreams(stub), directives="BoshMaxStreams 3\n")
    server.expect_log(r"BH204: .* 0 upstream streams were lost")
    client = server.client()
    talk = Talk(client, stub, 4, 3)
    for _ in range(4):
        kill_owner(server, random.choice(random.choice(talk.multis).upstreams))
        talk.goes_on()
    talk.finish()
    assert sum(lost for _, lost in deaths(server)) == 0 and given_up(server) == 0
    client.close()


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.rows("B-343")
def test_a_child_that_dies_without_escrow(httpd, stub):
    """Streams of one session may be with different children: what dies with one of them is its own."""
    server = httpd(children=3, threads=32, upstreams=upstreams(stub), directives="BoshMaxStreams 3\nBoshEscrow Off\n")
    server.expect_log(r"BH204:")
    client = server.client()
    for _ in range(20):
        multi = Multi(client, stub)
        owners = [server.owner_of(u.peer_port) for u in multi.upstreams]
        if owners[0] != owners[1]:
            break
    assert owners[0] != owners[1]
    server.kill_child(owners[1])
    answer = multi.session.poll()
    while answer.attr("type") is None:
        answer = multi.session.poll()
    TB(answer, "remote-connection-failed")
    assert answer.attr("stream") == multi.names[1], answer
    multi.upstreams[0].send_message("alive")
    answer = multi.session.poll()
    assert answer.attr("stream") == multi.names[0] and answer.texts() == ["alive"], answer
    client.close()


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
def test_a_stop_ends_all(httpd, stub):
    server = httpd(children=2, threads=32, upstreams=upstreams(stub), directives="BoshMaxStreams 3\n")
    client = server.client()
    multi = Multi(client, stub, n=3)
    server.graceful_stop()
    for upstream in multi.upstreams:
        upstream.wait_end(10)
    multi.session.over = True
