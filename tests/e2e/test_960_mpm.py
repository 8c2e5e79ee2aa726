# SPDX-License-Identifier: Apache-2.0
"""Processes: the MPMs, several children, restart, stop, the death of a child, HTTP/2."""

import gzip
import json
import re
import shutil
import subprocess
import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import E, RB, T, TB, new_body

MPMS = {"event": {}, "event-blocking": {"directives": "BoshAsync Off\n", "threads": 16}, "worker": {"threads": 16},
        "prefork": {"children": 8}}


@pytest.fixture(scope="module", params=list(MPMS))
def any_mpm(request, httpd, stub_server):
    """A server for each way of holding requests."""
    options = dict(MPMS[request.param])
    mpm = request.param.split("-")[0]
    yield httpd(mpm=mpm, upstreams=[stub_server.upstream()], name=request.param, **options)


@pytest.fixture
def mpm_client(any_mpm, stub):
    made = any_mpm.client()
    yield made
    made.close()


def test_login_hold_both_ways_resend_terminate(mpm_client, stub):
    session, upstream = mpm_client.login(stub, "alice")
    assert upstream.user == "alice"
    held = session.send_next().held()
    upstream.send_message("down")
    assert held.answer().texts() == ["down"]
    exchange = session.send_next(X.message("up"))
    assert upstream.wait_bodies(1) == ["up"]
    exchange.held()
    # A repeat of the held request: the old connection gets an error, the new one the answer.
    again = session.send(session.rid, X.message("up"))
    RB(exchange.at_once())
    upstream.send_message("answer")
    answer = again.answer()
    assert answer.texts() == ["answer"]
    assert session.send(session.rid, X.message("up")).answer().body == answer.body
    assert upstream.bodies() == ["up"]
    T(session.terminate())
    upstream.wait_closed()


def test_lost_connection(mpm_client, stub):
    session, upstream = mpm_client.start(stub)
    session.send(1001).held().rst()
    upstream.send_message("precious")
    upstream.wait_read()
    assert session.send(1001).answer().texts() == ["precious"]


def test_wait_runs_out(mpm_client, stub):
    session, _ = mpm_client.start(stub, wait=2)
    assert 1.5 < E(session.send(1001).answer()).took < 5


def test_bursts_of_100_stanzas_each_way(mpm_client, stub):
    session, upstream = mpm_client.start(stub)
    want = [f"m{i}" for i in range(100)]
    held = session.send_next("".join(X.message(t) for t in want))
    assert upstream.wait_bodies(100) == want
    for text in want:
        upstream.send_message(text)
    texts = held.answer().texts()
    while len(texts) < 100:
        texts += session.next().texts()
    assert texts == want


def test_bursts_both_ways_at_once(mpm_client, stub):
    session, upstream = mpm_client.start(stub)
    stub.script.echo = upstream.script.echo = True
    want, texts = [f"{i}" for i in range(300)], []
    pending = None
    for i in range(0, 300, 10):
        exchange = session.send_next("".join(X.message(t) for t in want[i:i + 10]))
        if pending:
            texts += pending.answer().texts()
        pending = exchange
    texts += pending.answer().texts()
    while len(texts) < 300:
        texts += session.next().texts()
    assert texts == want and upstream.bodies() == want


def test_requests_on_several_children(any_mpm, mpm_client, stub):
    """Requests of one session, each on a new connection: one on each child, then 200 on whatever child takes them."""
    stub.script.echo = True
    session, upstream = mpm_client.start(stub)
    for pid in any_mpm.children():
        exchange = any_mpm.taken_by(pid, lambda: session.send_next(X.message(f"for {pid}")))
        assert exchange.answer().texts() == [f"for {pid}"]
    for i in range(200):
        assert session.send_next(X.message(str(i))).answer().texts() == [str(i)]


def test_simultaneous_sessions(mpm_client, stub):
    sessions = [mpm_client.start(stub) for _ in range(4)]
    held = [(s.send_next().held(), u) for s, u in sessions]
    for i, (_, upstream) in enumerate(held):
        upstream.send_message(str(i))
    for i, (exchange, _) in enumerate(held):
        assert exchange.answer().texts() == [str(i)]


# ---- restart and stop ----

ENDED = ("system-shutdown", "remote-connection-failed")  # how a stream that could not be kept is reported


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.parametrize("open_request", [True, False], ids=["held", "idle"])
@pytest.mark.limit(90)
@pytest.mark.rows("B-128", "R-08")
def test_B_128_graceful_restart(httpd, stub, mpm, open_request):
    server = httpd(mpm=mpm, children=4 if mpm == "prefork" else 2, threads=8, upstreams=[stub.upstream()])
    client = server.client()
    session, upstream = client.start(stub)
    held = session.send(1001).held()
    upstream.send_message("first")
    assert held.answer().texts() == ["first"]
    if open_request:
        held = session.send(1002).held()
    server.graceful()
    answer = None
    if open_request:
        answer = held.answer(5)  # released: no held request outlives its process
        assert answer.texts() == []
    if answer is None or answer.attr("type") is None:
        exchange = session.send_next(X.message("after"))
        wait_for(lambda: exchange.done() or upstream.bodies(), 5, "the request has an effect")
        if exchange.done():
            answer = exchange.answer()
        else:  # the session goes on
            assert upstream.bodies() == ["after"]
            upstream.send_message("and back")
            assert session.texts(1) == ["and back"]
    if answer is not None and answer.attr("type"):  # the client knows what happened, and starts again
        TB(answer, *ENDED)
        session.over = True
    other, upstream = client.start(stub)
    other.send_next(X.message("new"))
    assert upstream.wait_bodies(1) == ["new"]
    client.close()
    server.stop()


def test_B_084_a_domain_removed_by_reconfiguration(httpd, stub):
    server = httpd(upstreams=[stub.upstream(), stub.upstream("gone.example")])
    client = server.client()
    client.new(to="gone.example")
    server.upstreams = server.upstreams[:1]
    server.write_config()
    server.graceful()
    TB(client.post(new_body(to="gone.example")).answer(), "host-gone", "host-unknown")
    client.close()


@pytest.mark.rows("B-128", "B-309")
def test_stop_with_held_requests(httpd, stub):
    server = httpd(upstreams=[stub.upstream()])
    client = server.client()
    sessions = [client.start(stub) for _ in range(5)]
    held = [s.send_next().held() for s, _ in sessions]
    start = time.monotonic()
    server.stop(10)
    assert time.monotonic() - start < 8 * SLOW
    for exchange in held:
        assert exchange.event.wait(5), "a connection is left hanging"
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed()


@pytest.mark.rows("B-309")
def test_graceful_stop_ends_the_sessions(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives="GracefulShutdownTimeout 15\n")
    client = server.client()
    session, upstream = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    server.graceful_stop()
    TB(held.answer(10), "system-shutdown")
    upstream.wait_closed(15)
    wait_for(lambda: not server.alive(), 20, "httpd ends")
    assert server.process.returncode == 0
    server.forget()


def send_until_answered(session, payload):
    """As clients do: the same rid again when a connection broke."""
    session.rid += 1
    for _ in range(50):
        try:
            exchange = session.send(session.rid, payload)
        except OSError:
            time.sleep(0.05)  # between two generations nobody accepts
            continue
        exchange.event.wait(10)
        if exchange.result:
            return exchange.answer()
    raise AssertionError("no answer to 50 attempts")


@pytest.mark.limit(90)
@pytest.mark.rows("B-128", "B-164", "R-08")
def test_restarts_under_traffic(httpd, stub):
    """Sessions that talk all the time go on, or are told that they ended; nothing is lost or comes twice."""
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()])
    stub.script.echo = True
    client = server.client()
    sessions = [(*client.start(stub), []) for _ in range(5)]
    for restart in range(3):
        for i in range(10):
            if i == 3:
                server.graceful()
            for n, (session, _, sent) in enumerate(sessions):
                text = f"{restart}-{i}-{n}"
                answer = send_until_answered(session, X.message(text))
                if answer.attr("type"):
                    TB(answer, *ENDED)
                    session.over = True
                    sessions[n] = (*client.start(stub), [])
                    continue
                sent.append(text)
                texts = answer.texts()
                while not texts and not session.over:
                    answer = session.next()
                    texts = answer.texts()
                    if answer.attr("type"):
                        TB(answer, *ENDED)
                        session.over = True
                        sessions[n] = (*client.start(stub), [])
                assert texts == [text] or session.over
    for session, upstream, sent in sessions:
        assert upstream.bodies() == sent
    client.close()


# ---- the death of a child ----

@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.limit(90)
def test_kill_of_a_child_in_the_middle_of_traffic(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives="BoshEscrow Off\n")
    client = server.client()
    sessions, owner = [], {}
    for pid in 4 * server.children():
        session, upstream = client.start(stub, server.taken_by(pid, client.new_async))
        assert server.owner_of(upstream.peer_port) == pid
        sessions.append((session, upstream))
        owner[session] = pid
    victim = server.children()[0]
    held = {session: session.send_next().held(0.1) for session, _ in sessions}
    for _, upstream in sessions[::2]:  # some of each child
        upstream.send_message("traffic")
    server.expect_log(r"BH20[134]")
    killed = time.monotonic()
    server.kill_child(victim)
    victims = [upstream for session, upstream in sessions if owner[session] == victim]
    while any(map(lives, victims)) and time.monotonic() < killed + 2:
        time.sleep(0.05)  # a stream may be rescued: then nothing happens to it
    for session, upstream in sessions:
        if lives(upstream):
            upstream.send_message("alive")
            texts = fetch(session, held[session]).texts()
            for _ in range(3):
                texts += [] if "alive" in texts else session.next().texts()
            assert texts == ["traffic", "alive"][-len(texts):] and texts[-1] == "alive"
        else:
            assert owner[session] == victim, "a stream of another child was lost"
            session.over = True
            answer = fetch(session, held[session])
            while answer.attr("type") is None and time.monotonic() < killed + 10:
                answer = session.next()
            TB(answer, "remote-connection-failed")
    # httpd has a full set of children again and takes new sessions.
    wait_for(lambda: len(server.children()) >= 3 and victim not in server.children(), 10, "a new child")
    for _ in range(10):
        session, upstream = client.start(stub)
        session.send_next(X.message("new"))
        assert upstream.wait_bodies(1) == ["new"]
    client.close()


def fetch(session, exchange):
    """The answer to a request; sent again when its connection went with the child that held it."""
    exchange.event.wait(3)
    return exchange.answer() if exchange.result else session.send(session.rid).answer(3)


def lives(upstream):
    return not (upstream.eof or upstream.reset_by_peer)


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.limit(120)
def test_clients_of_a_dead_child_are_told_within_3_seconds(httpd, stub):
    """The same, seen by the clock: held requests on living children, streams owned by the dead one."""
    server = httpd(upstreams=[stub.upstream()], directives="BoshEscrow Off\n")
    client = server.client()
    for _ in range(5):
        session, upstream = client.start(stub)
        owner = server.owner_of(upstream.peer_port)
        holder = next(pid for pid in server.children() if pid != owner)
        held = server.taken_by(holder, lambda: session.send_next(X.message("x")))
        upstream.wait_stanza("message")
        server.expect_log(r"BH20[134]")
        killed = time.monotonic()
        server.kill_child(owner)
        held.event.wait(3)
        if held.done():
            answer = TB(held.answer(), "remote-connection-failed")
            assert answer.time - killed < 3
            session.over = True
        else:
            assert lives(upstream), "the stream is lost and the client was not told within 3 s"
            upstream.send_message("alive")  # the stream was rescued
            assert held.answer().texts() == ["alive"]
        wait_for(lambda: owner not in server.children() and len(server.children()) == 3, 10, "a new child")
    client.close()


# ---- HTTP/2 ----

CURL = shutil.which("curl")


@pytest.fixture(scope="module")
def h2_server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], h2=True, directives="BoshPolling 0\n")


def curl(server, *bodies, options=()):
    """POSTs these bodies in this order over one HTTP/2 connection, all streams open at once."""
    command = [CURL, "-sS", "--http2-prior-knowledge", "--parallel", "--parallel-immediate", "--max-time", "20"]
    for i, text in enumerate(bodies):
        if i:
            command += ["--next", "-sS", "--http2-prior-knowledge"]
        command += ["-o", f"{server.dir}/h2-{i}", "-w", "%{http_version} %{http_code} %{time_total}\n", "-H",
                    "Content-Type: text/xml", *options, "--data-binary", text, server.url()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not CURL, reason="no curl")
@pytest.mark.rows("B-011")
def test_B_011_http2(h2_server, stub):
    """A held stream is answered by a stanza; a second request on the connection releases the first."""
    client = h2_server.client()
    session, upstream = client.start(stub)
    one = curl(h2_server, session.body(1001))
    time.sleep(0.5)  # curl says nothing until it is done
    assert one.poll() is None, one.communicate()
    upstream.send_message("over h2")
    out, err = one.communicate(timeout=10)
    assert out.split()[:2] == ["2", "200"], (out, err)
    body = X.parse((h2_server.dir / "h2-0").read_bytes())
    assert X.text_of(body.find(X.tag("message")), "body") == "over h2"
    session.rid = 1001
    two = curl(h2_server, session.body(1002), session.body(1003, X.message("second")))
    assert upstream.wait_bodies(1) == ["second"]
    session.rid = 1003
    upstream.send_message("for the held one")
    out, err = two.communicate(timeout=10)
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines] == [["2", "200"]] * 2, (out, err)
    assert X.parse((h2_server.dir / "h2-0").read_bytes()).find(X.tag("message")) is None
    body = X.parse((h2_server.dir / "h2-1").read_bytes())
    assert X.text_of(body.find(X.tag("message")), "body") == "for the held one"
    client.close()


@pytest.mark.skipif(not CURL, reason="no curl")
@pytest.mark.rows("B-011", "B-006")
def test_B_006_compressed_over_http2(h2_server, stub):
    client = h2_server.client()
    session, upstream = client.start(stub)
    headers = h2_server.dir / "h2-headers"
    one = curl(h2_server, session.body(1001), options=["-H", "Accept-Encoding: gzip", "-D", headers])
    session.rid = 1001
    upstream.send_message("over h2 " * 1000)
    out, err = one.communicate(timeout=10)
    assert out.split()[:2] == ["2", "200"], (out, err)
    packed = (h2_server.dir / "h2-0").read_bytes()
    said = dict(line.split(": ", 1) for line in headers.read_text().lower().splitlines() if ": " in line)
    assert (said["content-encoding"], said["vary"]) == ("gzip", "accept-encoding"), said
    assert int(said["content-length"]) == len(packed) < 1000
    body = X.parse(gzip.decompress(packed))
    assert X.text_of(body.find(X.tag("message")), "body") == "over h2 " * 1000
    client.close()


# ---- a worker that stays with a connection ----

STATUS = '<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n'


def numbers(server):
    """Those of the only child."""
    with_it = server.client()
    child = with_it.request("GET", "/bosh-status?format=json")
    with_it.close()
    return json.loads(child.body)["child"]


def test_an_old_hold_is_trimmed_where_that_lasts(httpd, stub):
    """After three seconds; after six when the answer came soon after that."""
    server = httpd(children=1, upstreams=[stub.upstream()], directives=STATUS, name="trim")
    client = server.client()
    session, upstream = client.start(stub)
    trims, conn = numbers(server)["trims"], client.connect()
    for n, (seconds, trimmed) in enumerate([(3.5, 1), (3.5, 1), (6.5, 2)]):
        answer = session.send_next(conn=conn).held(seconds)
        # By the machine's load it may come late, never too early.
        wait_for(lambda: numbers(server)["trims"] == trims + trimmed, 2, f"hold {n} is trimmed or not")
        upstream.send_message(f"m{n}")
        assert answer.answer().texts() == [f"m{n}"]
    client.close()
    server.stop()


def stays(server):
    """(waits of workers for a client's next request, those in vain) of the only child."""
    child = numbers(server)
    return child["stays"], child["stays_in_vain"]


def reading(server):
    """Workers that have a request of the endpoint: they write its answer, says httpd, from its headers on."""
    with_it = server.client()
    page = with_it.request("GET", "/server-status?auto").body.decode()
    with_it.close()
    return re.search(r"^Scoreboard: (.*)$", page, re.MULTILINE).group(1).count("W") - 1  # whoever asks


def stranger(client, conn):
    """A request on this connection that is answered at once: of no session."""
    return client.post(f"<body xmlns='{X.NS_BOSH}' sid='{'0' * 32}' rid='1'/>", conn=conn).raw()


def test_a_worker_stays_with_a_quick_client_and_not_with_a_slow_one(httpd):
    server = httpd(children=1, threads=8, directives=STATUS, name="stay")
    client = server.client()
    conn = client.connect()

    def ten():
        """A request, and a look at the numbers, in which time its worker gets as far as to wait for the next one."""
        assert stranger(client, conn).status == 200
        return stays(server)[0] >= 10
    wait_for(ten, 10, "workers stay")
    worth, _ = stays(server)
    wait_for(lambda: stays(server)[1] >= 1, 5, "nothing comes any more")
    before = stays(server)[1]
    # Ten times as slow as a worker ever waits for. One answer is not waited after, then three.
    for _ in range(5):
        time.sleep(0.5)
        stranger(client, conn)
    wait_for(lambda: stays(server)[1] > before, 5, "the second was waited after")
    assert stays(server) == (worth, before + 1)
    client.close()
    server.stop()


def test_workers_are_left_to_others(httpd):
    """Of eight workers two must be free, and here six read requests that never end."""
    server = httpd(children=1, threads=8, directives=STATUS, name="spare")
    client = server.client()
    slow, quick = [client.connect() for _ in range(6)], client.connect()
    for conn in slow:
        conn.send(client.head(length=1000))
    wait_for(lambda: reading(server) == 6, 5, "each slow client has a worker")
    for _ in range(10):
        assert stranger(client, quick).status == 200
    assert stays(server) == (0, 0)
    for conn in slow:
        conn.rst()
    wait_for(lambda: reading(server) == 0, 5, "the workers are free")
    client.close()
    server.stop()


# ---- answers on the spot ----

def test_an_answer_is_sent_while_its_worker_waits_for_it(httpd, stub):
    """Who asks the server something has a worker that waits for a moment, and then for the next request."""
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], directives=STATUS, name="ask")
    client = server.client()
    session, _ = client.start(stub)
    conn, before = client.connect(), numbers(server)
    for i in range(40):
        answer = session.send_next(f"<iq xmlns='{X.NS_CLIENT}' type='get' id='{i}'><q xmlns='x'/></iq>", conn=conn).answer()
        assert [kid.get("id") for kid in answer.kids] == [f"{i}"]
    now = numbers(server)
    assert now["on_the_spot"] - before["on_the_spot"] >= 10 and now["stays"] - before["stays"] >= 10, (before, now)
    client.close()
    server.stop()


def held_on(session, conn):
    """The next request of the session, on this connection; it waits."""
    return session.send_next(conn=conn).held()


@pytest.mark.parametrize("tls", [False, True])
def test_an_answer_is_sent_on_the_spot(httpd, stub, tls):
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], directives=STATUS, name="spot", tls=tls)
    client = server.client(tls=tls)
    session, upstream = client.start(stub)
    conn = client.connect()
    for i in range(20):
        exchange = held_on(session, conn)
        upstream.send_message(f"{i}")
        assert exchange.answer().texts() == [f"{i}"]
    assert numbers(server)["on_the_spot"] >= 15, "all 20, unless something else had happened on the connection"

    # Too long for that: a worker does it.
    exchange, before = held_on(session, conn), numbers(server)["on_the_spot"]
    upstream.send_message("long " * 1000)
    assert exchange.answer().texts() == ["long " * 1000]
    assert numbers(server)["on_the_spot"] == before
    client.close()
    server.stop()


def test_a_request_answered_on_the_spot_ends_when_its_client_stays_away(httpd, stub):
    """It is in the access log then, it does not count as held, and its connection is kept for the next one."""
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], directives=STATUS, name="away")
    client = server.client()
    session, upstream = client.start(stub)
    conn = client.connect()
    exchange = held_on(session, conn)
    logged, before = server.access_log.read_text().count("POST"), numbers(server)["on_the_spot"]
    upstream.send_message("one")
    assert exchange.answer().texts() == ["one"]

    def counts():
        now = numbers(server)
        return (now["on_the_spot"], now["held_async"]) == (before + 1, 0)
    wait_for(counts, 5, "it is counted, after it was written")
    wait_for(lambda: server.access_log.read_text().count("POST") == logged + 1, 10, "it is logged")
    exchange = held_on(session, conn)
    upstream.send_message("two")
    assert exchange.answer().texts() == ["two"]
    client.close()
    server.stop()


def test_a_connection_that_is_to_close_closes_at_once(httpd, stub):
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], directives=STATUS, name="closing")
    client = server.client()
    session, upstream = client.start(stub)
    exchange = session.send_next(conn=client.connect(), headers={"Connection": "close"}).held()
    before = numbers(server)["on_the_spot"]
    upstream.send_message("last")
    assert exchange.answer().texts() == ["last"]
    exchange.conn.wait_eof(0.9)  # before it would end anyway
    assert numbers(server)["on_the_spot"] == before + 1
    client.close()
    server.stop()


def test_workers_stay_free_after_answers_on_the_spot(httpd, stub):
    """More connections than workers: each is answered on the spot, and is read again without a worker's waiting."""
    server = httpd(children=1, threads=4, upstreams=[stub.upstream()], directives=STATUS + "AsyncRequestWorkerFactor 20\n",
                   name="many")
    client = server.client()
    sessions = [(*client.start(stub), client.connect()) for _ in range(12)]
    for turn in range(4):
        held = [session.send_next(conn=conn) for session, _, conn in sessions]
        for exchange in held:
            exchange.held()
        for i, (_, upstream, _) in enumerate(sessions):
            upstream.send_message(f"{turn} {i}")
        for i, exchange in enumerate(held):
            assert exchange.answer().texts() == [f"{turn} {i}"]
    assert numbers(server)["on_the_spot"] >= 40
    client.close()
    server.stop()


def test_filters_that_are_not_known_get_a_worker(httpd, stub):
    """One that sleeps, for instance, would stop all other sessions."""
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], modules=("env", "ratelimit"), name="limited",
                   directives=STATUS + '<Location "/http-bind">\n  SetOutputFilter RATE_LIMIT\n  SetEnv rate-limit 400\n</Location>\n')
    client = server.client()
    session, upstream = client.start(stub)
    conn = client.connect()
    exchange = held_on(session, conn)
    upstream.send_message("slowly")
    assert exchange.answer().texts() == ["slowly"]
    assert numbers(server)["on_the_spot"] == 0
    client.close()
    server.stop()


def test_what_came_before_the_message_goes_first(httpd, stub):
    """A client that has hung up, or sent the next request, is a worker's; nothing is written to it on the spot."""
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], directives=STATUS, name="gone")
    client = server.client()
    session, upstream = client.start(stub)
    for i in range(20):
        exchange = held_on(session, client.connect())
        exchange.rst()
        upstream.send_message(f"{i}")
        upstream.wait_read()
        assert session.send(session.rid).answer().texts() == [f"{i}"], "it waits for the repeat"
    client.close()
    server.stop()


def test_clients_that_are_stayed_with_do_not_keep_others_out(httpd, stub):
    """Event accepts connections by the number of idle workers: who stays must not be missing there."""
    server = httpd(children=1, threads=8, upstreams=[stub.upstream()], directives="AsyncRequestWorkerFactor 2\n", name="door")
    client = server.client()
    held = [client.start(stub)[0].send_next(conn=client.connect()).held(0) for _ in range(15)]
    stop, failed = threading.Event(), []

    def chat():
        try:
            conn = client.connect()
            while not stop.is_set():
                stranger(client, conn)
        except AssertionError as err:
            failed.append(err)
    quick = [threading.Thread(target=chat, daemon=True) for _ in range(6)]
    for thread in quick:
        thread.start()
    try:
        for _ in range(3):
            assert client.post(new_body()).raw(8).status == 200  # else those who chat give up, after 10
    finally:
        stop.set()
        for thread in quick:
            thread.join(20)
    assert not failed and len(held) == 15, failed
    client.close()
    server.stop()
