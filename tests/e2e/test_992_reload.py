# SPDX-License-Identifier: Apache-2.0
"""A graceful restart with another configuration, with a wrong one, and where httpd has no room for it."""

import json
import os
import signal
import subprocess
import time

import pytest
import xmltool as X
from bosh_env import APACHE, PRELOAD, SLOW, VALGRIND, proc_ppid, wait_for
from client import E, TB, new_body
from stub import StubServer

pytestmark = pytest.mark.skipif(VALGRIND or bool(PRELOAD), reason="several processes, and a plain apache2 -k")

STATUS = '<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n'


def status(client):
    answer = client.request("GET", "/bosh-status?format=json")
    assert answer.status == 200, answer
    return json.loads(answer.body)


def lives(session, upstream):
    """A stanza each way."""
    seen = len(upstream.bodies())
    session.send_next(X.message("up"))
    upstream.wait_bodies(seen + 1)
    upstream.send_message("down")
    assert session.texts(1) == ["down"]


def new_generation(server):
    before = server.children()
    server.graceful()
    wait_for(lambda: not set(before) & set(server.children()), 15, "the old children end")


def dash_k(server, what):
    """As apachectl does it."""
    return subprocess.run([APACHE, "-f", server.conf, "-k", what], capture_output=True, text=True)


# ---- another configuration ----

def test_a_changed_upstream_is_for_new_sessions(httpd, stub):
    elsewhere = StubServer()
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    old = client.start(stub)
    server.upstreams = [elsewhere.upstream()]
    server.write_config()
    new_generation(server)
    new = client.start(elsewhere)
    lives(*old)
    lives(*new)
    client.close()
    server.stop()
    elsewhere.stop()


@pytest.mark.rows("B-084")
def test_a_domain_comes_and_goes(httpd, stub):
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    TB(client.post(new_body(to="other.example")).answer(), "host-unknown")
    first = client.start(stub)
    server.upstreams = [stub.upstream("other.example")]
    server.write_config()
    new_generation(server)
    TB(client.post(new_body(to="example.com")).answer(), "host-unknown", "host-gone")
    second = client.start(stub, to="other.example")
    server.upstreams = [stub.upstream()]
    server.write_config()
    new_generation(server)
    TB(client.post(new_body(to="other.example")).answer(), "host-unknown", "host-gone")
    third = client.start(stub)
    for session, upstream in (first, second, third):
        lives(session, upstream)
    client.close()
    server.stop()


@pytest.mark.parametrize("line", ["BoshMaxSessions 64", "BoshMemory 128M", "BoshMaxRequests 9"])
def test_the_shared_memory_keeps_its_size(httpd, stub, line):
    sizes = "BoshMaxSessions 100\nBoshMemory 64M\nBoshMaxRequests 4\n"
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()], directives=STATUS + sizes)
    client = server.client()
    session, upstream = client.start(stub)
    before = status(client)
    server.directives += line + "\n"
    server.write_config()
    new_generation(server)
    after = status(client)
    for group, key in (("sessions", "capacity"), ("memory", "chunks_total"), ("memory", "arena_bytes")):
        assert after[group][key] == before[group][key], key
    assert after["counters"]["created"] == before["counters"]["created"] == 1, "the table is another one"
    said = [text for text in server.log_lines() if "change when httpd is stopped and started" in text]
    assert len(said) == 1 and ":notice]" in said[0] and "100 sessions" in said[0], said
    lives(session, upstream)
    lives(*client.start(stub))
    client.close()
    server.stop()


# ---- a wrong configuration ----

def test_apachectl_refuses_a_wrong_configuration(httpd, stub):
    """It reads the file before it sends the signal: nothing happens to what runs, the held request included."""
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    session, upstream = client.start(stub, wait=60)
    held = session.send_next().held()
    children = server.children()
    server.directives = "BoshMaxWait nonsense\n"
    server.write_config()
    for what in ("graceful", "restart", "graceful-stop"):
        done = dash_k(server, what)
        assert done.returncode != 0 and "BoshMaxWait" in done.stderr + done.stdout, done
    held.held(1)
    assert server.children() == children
    upstream.send_message("down")
    assert held.answer().texts() == ["down"]
    server.directives = ""
    server.write_config()
    done = dash_k(server, "graceful")
    assert done.returncode == 0, done
    wait_for(lambda: not set(children) & set(server.children()) and len(server.children()) >= 2, 20, "new children")
    lives(session, upstream)
    client.close()
    server.stop()


@pytest.mark.limit(60)
@pytest.mark.parametrize("kind", ["event", "worker", "prefork"])
def test_a_signal_with_a_wrong_configuration(httpd, stub, kind):
    """Whoever sends USR1 without looking first ends httpd: its parent reads the file, says why, and exits.
    The children close what they have properly, and none stays."""
    server = httpd(mpm=kind, children=6 if kind == "prefork" else 2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    sessions = [client.start(stub, wait=60) for _ in range(4)]
    held = [session.send_next().held(0.1) for session, _ in sessions]
    children = server.children()
    server.directives = "BoshMaxWait nonsense\n"
    server.write_config()
    server.expect_log(r"AH00526|BoshMaxWait")
    server.process.send_signal(signal.SIGUSR1)
    server.process.wait(10 * SLOW)
    assert server.process.returncode == 1
    said = (server.dir / "stderr.log").read_text() + "".join(server.log_lines())
    assert "BoshMaxWait" in said, said
    for (session, upstream), exchange in zip(sessions, held):
        answer = exchange.answer(10)
        if answer.attr("type"):
            TB(answer, "system-shutdown")
        else:  # as at every restart: it comes again, and finds nobody
            E(answer)
        session.over = True
        upstream.wait_closed(10)
        assert upstream.ended, "the stream was not closed properly"
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") and proc_ppid(pid) for pid in children), 10,
             "no child stays")
    server.forget()


# ---- no room ----

FULL = "AH03490"


@pytest.mark.limit(90)
def test_a_full_scoreboard(httpd, stub):
    """ServerLimit leaves no slot: the old child goes, and its streams wait for the new one in escrow. httpd
    complains once a second, as it always does, and not each time the parent is woken."""
    server = httpd(children=1, threads=16, upstreams=[stub.upstream()], directives=STATUS + "ServerLimit 1\n")
    server.expect_log("BH011")
    client = server.client()
    sessions = [client.start(stub, wait=60) for _ in range(8)]
    held = [session.send_next().held(0.1) for session, _ in sessions]
    before = server.children()
    server.expect_log(FULL)
    start = time.monotonic()
    server.process.send_signal(signal.SIGUSR1)
    for exchange in held:
        E(exchange.answer(10))
    wait_for(lambda: server.children() and not set(before) & set(server.children()), 20, "a new child")
    seconds = time.monotonic() - start
    lines = sum(FULL in line for line in server.log_lines())
    assert lines <= seconds + 2, f"{lines} complaints in {seconds:.1f} s"
    for session, upstream in sessions:
        lives(session, upstream)
    counters = status(client)["counters"]
    assert counters["rescued"] == len(sessions), counters
    assert not any(counters[f"lost_{reason}"] for reason in ("crash", "repair", "drain", "stop")), counters
    client.close()
    server.stop()


@pytest.mark.limit(90)
def test_a_full_scoreboard_without_escrow(httpd, stub):
    """Then the sessions end before their child goes, and are counted."""
    server = httpd(children=1, threads=16, upstreams=[stub.upstream()],
                   directives=STATUS + "ServerLimit 1\nBoshEscrow Off\n")
    server.expect_log("BH011")
    client = server.client()
    sessions = [client.start(stub, wait=60) for _ in range(5)]
    before = server.children()
    server.expect_log(FULL)
    server.process.send_signal(signal.SIGUSR1)
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed(15)
        assert upstream.ended, "the stream was not closed properly"
    wait_for(lambda: server.children() and not set(before) & set(server.children()), 20, "a new child")
    wait_for(lambda: status(client)["counters"]["lost_drain"] == len(sessions), 10, "they are counted")
    for session, _ in sessions:
        TB(session.send_next().at_once(1), "system-shutdown")
    lives(*client.start(stub))
    client.close()
    server.stop()


@pytest.mark.limit(90)
def test_the_only_child_is_recycled_in_the_only_slot(httpd, stub):
    server = httpd(children=1, threads=16, upstreams=[stub.upstream()],
                   directives=STATUS + "ServerLimit 1\nMaxConnectionsPerChild 20\n")
    server.expect_log("BH011")
    client = server.client()
    sessions = [client.start(stub) for _ in range(4)]
    server.expect_log(FULL)
    first = server.children()
    until = time.monotonic() + 30 * SLOW
    while set(first) & set(server.children()) and time.monotonic() < until:
        try:
            client.request("GET")
        except (OSError, AssertionError):
            time.sleep(0.05)
    wait_for(lambda: server.children() and not set(first) & set(server.children()), 20, "a new child")
    for session, upstream in sessions:
        lives(session, upstream)
    client.close()
    server.stop()


# ---- another version of the module ----

@pytest.mark.limit(120)
def test_an_upgrade_that_lays_the_memory_out_anew(httpd, stub):
    """The memory of the old version is left alone: 503 until a stop and a start, and the old sessions are ended."""
    server = httpd(children=2, threads=16, upstreams=[stub.upstream()])
    client = server.client()
    session, upstream = client.start(stub)
    held = session.send_next().held()
    before = server.children()
    server.expect_log("BH005|BH204|BH206")
    server.points = server._points_dir()  # the module with kill points has a layout of its own
    server.write_config()
    server.process.send_signal(signal.SIGUSR1)
    session.over = True
    wait_for(lambda: not set(before) & set(server.children()), 60, "the old children end")
    upstream.wait_closed()
    assert upstream.ended, "the stream was not closed properly"
    TB(held.answer(), "system-shutdown")
    answer = client.post(new_body()).raw()
    assert answer.status == 503, answer
    assert sum("BH005" in line and "stopped and started" in line for line in server.log_lines()) == 1
    client.close()
    server.stop()
    server.start()
    client = server.client()
    lives(*client.start(stub))
    client.close()
    server.stop()
