# SPDX-License-Identifier: Apache-2.0
"""Sessions outlive the child that owns their stream, killed without warning."""

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import TB
from test_990_restart import Traffic, insist

pytestmark = pytest.mark.skipif(VALGRIND, reason="one process under valgrind")

DIED = re.compile(r"BH204: .*: (\d+) streams were rescued, (\d+) upstream streams were lost")
GAVE_UP = re.compile(r"BH203: .*repaired, (\d+) sessions lost")


def deaths(server):
    """(streams rescued, streams lost) of each death in the error log."""
    return [(int(m.group(1)), int(m.group(2))) for m in map(DIED.search, server.log_lines()) if m]


def given_up(server):
    """Sessions that were being changed when the lock's holder died."""
    return sum(int(m.group(1)) for m in map(GAVE_UP.search, server.log_lines()) if m)


def kill_owner(server, upstream):
    """Kills the child that has this stream."""
    victim = server.owner_of(upstream.peer_port)
    before = len(deaths(server))
    server.kill_child(victim)
    wait_for(lambda: len(deaths(server)) > before, 10, "somebody clears up after the dead child", interval=0.005)
    wait_for(lambda: victim not in server.children() and len(server.children()) >= server.children_wanted, 10,
             "a new child")


def kill_under_traffic(server, stub, sessions, kills):
    server.expect_log(r"BH204: .* 0 upstream streams were lost")
    client = server.client()
    traffic = Traffic(client, stub, sessions)
    fds = None
    for _ in range(kills):
        done = sum(map(len, traffic.sent))
        kill_owner(server, random.choice(traffic.sessions)[1])
        wait_for(lambda: sum(map(len, traffic.sent)) > done + sessions or traffic.errors, 20, "traffic goes on")
        assert not traffic.errors, traffic.errors[:3]
        fds = fds or server.fds_of(server.process.pid)
        assert server.fds_of(server.process.pid) <= fds, "the parent's descriptors grow"
    stanzas = traffic.finish()
    found = deaths(server)
    assert len(found) >= kills and sum(lost for _, lost in found) == 0, found
    assert all(rescued > 0 for rescued, _ in found), found
    assert given_up(server) == 0
    print(f"\n{server.mpm}: {kills} children killed, {sum(n for n, _ in found)} streams rescued, none lost, "
          f"{stanzas} stanzas, slowest answer {traffic.slowest * 1000:.0f} ms, {traffic.repeats} requests sent again")
    client.close()


@pytest.mark.limit(240)
def test_10_children_killed_on_event(httpd, stub):
    server = httpd(children=3, threads=32, upstreams=[stub.upstream()])
    kill_under_traffic(server, stub, 60, 10)


@pytest.mark.limit(120)
def test_the_only_child_is_killed(httpd, stub):
    server = httpd(children=1, threads=64, upstreams=[stub.upstream()])
    kill_under_traffic(server, stub, 20, 3)


@pytest.mark.limit(120)
def test_children_killed_on_worker(httpd, stub):
    server = httpd(mpm="worker", children=2, threads=32, upstreams=[stub.upstream()])
    kill_under_traffic(server, stub, 20, 3)


@pytest.mark.limit(120)
def test_children_killed_on_prefork(httpd, stub):
    server = httpd(mpm="prefork", children=12, upstreams=[stub.upstream()])
    kill_under_traffic(server, stub, 6, 3)


def kill_any(server):
    while True:
        victim = random.choice(wait_for(server.children, 10, "a child"))  # in a restart there may be none
        try:
            os.kill(victim, signal.SIGKILL)
            return victim
        except ProcessLookupError:
            pass  # it has just ended by itself


@pytest.mark.limit(120)
def test_killed_in_the_middle_of_a_restart(httpd, stub):
    """A random child of either generation, at a random moment of the hand-over."""
    # Room for more children than there are: httpd tells MaxRequestWorkers / ThreadsPerChild of them to stop, and may
    # have one more while it replaces a dead one.
    server = httpd(children=2, threads=32, upstreams=[stub.upstream()], directives="MaxRequestWorkers 192\n")
    server.expect_log(r"BH20[46]: .* 0 upstream streams were lost")
    server.expect_log(r"AH00052: child pid \d+ exit signal Killed")
    client = server.client()
    traffic = Traffic(client, stub, 40)
    for _ in range(5):
        old = server.children()
        server.process.send_signal(signal.SIGUSR1)
        time.sleep(random.uniform(0.05, 0.15))  # whatever it hits: that is the test
        victim = kill_any(server)
        wait_for(lambda: not {victim, *old} & set(server.children()), 20, "the old children end")
        wait_for(lambda: len(server.children()) >= 2, 10, "there are new ones")
        assert not traffic.errors, traffic.errors[:3]
    traffic.finish()
    assert sum(lost for _, lost in deaths(server)) == 0
    client.close()


@pytest.mark.limit(90)
def test_without_escrow_the_clients_are_told(httpd, stub):
    server = httpd(children=3, upstreams=[stub.upstream()], directives="BoshEscrow Off\n")
    client = server.client()
    sessions = [client.start(stub) for _ in range(12)]
    owner = {session: server.owner_of(upstream.peer_port) for session, upstream in sessions}
    victim = owner[sessions[0][0]]
    server.expect_log(r"BH204")
    killed = time.monotonic()
    server.kill_child(victim)
    for session, upstream in sessions:
        if owner[session] == victim:
            session.over = True
            exchange = session.send_next()
            exchange.event.wait(3)
            answer = exchange.answer() if exchange.result else session.send(session.rid).answer(3)
            while answer.attr("type") is None and time.monotonic() < killed + 10 * SLOW:
                answer = session.next()
            TB(answer, "remote-connection-failed")
            upstream.wait_closed()
    assert time.monotonic() - killed < 10 * SLOW
    for session, upstream in sessions:
        if owner[session] != victim:
            upstream.send_message("alive")
            assert session.texts(1) == ["alive"]
    client.close()


def test_an_ended_stream_is_closed_although_it_is_parked(httpd, stub):
    server = httpd(children=2, upstreams=[stub.upstream()])
    client = server.client()
    for _ in range(5):
        session, upstream = client.start(stub)
        session.send_next(X.message("hello"))
        assert upstream.wait_bodies(1) == ["hello"]
        session.terminate()
        upstream.wait_closed()
    client.close()


def connections_to(port):
    """TCP connections of this machine to this port that are more than a memory of the kernel's."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(int(f[2].rsplit(":", 1)[1], 16) == port and f[3] != "06" for f in fields)  # TIME_WAIT


def test_an_ended_stream_is_closed_after_rescues(httpd, stub):
    """Each stream has been parked by several children, all of them dead."""
    server = httpd(children=3, upstreams=[stub.upstream()])
    client = server.client()
    sessions = [client.login(stub) for _ in range(15)]
    for _ in range(2):
        kill_owner(server, sessions[0][1])
    for _, upstream in sessions[:5]:
        upstream.end_stream()
        upstream.wait_end()
        upstream.close()
    server.kill_child(server.owner_of(sessions[5][1].peer_port))
    for session, _ in sessions[5:]:  # some of them before anybody clears up after their owner
        insist(lambda s=session: s.send(s.rid + 1, type="terminate"))
    for session, upstream in sessions[5:]:
        upstream.wait_closed()
        assert upstream.ended, "the stream was not closed properly"
    wait_for(lambda: connections_to(stub.port) == 0, 10, "nobody has an end of them")
    for session, _ in sessions:
        session.over = True
    wait_for(lambda: len(deaths(server)) == 3, 10, "somebody clears up")
    assert sum(lost for _, lost in deaths(server)) == 0
    client.close()


@pytest.mark.limit(120)
def test_more_streams_than_may_be_parked(httpd, stub):
    """Four fifths of the limit of open files may be parked. What goes beyond is reported, and lost with its child."""
    # The kernel counts what is parked by all processes of a user: one of its own, as far as that can be had.
    server = httpd(children=1, threads=16, upstreams=[stub.upstream()], nofile=620,
                   directives='<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n'
                   + "User nobody\n" * (os.getuid() == 0))
    client = server.client()
    server.expect_log(r"BH207: ")
    sessions = [client.start(stub) for _ in range(510)]
    wait_for(lambda: any("BH207: " in line for line in server.log_lines()), 5, "a report")
    page = client.request("GET", "/bosh-status?format=json")
    parked = sum(peer["parked"] for peer in json.loads(page.body)["peers"])
    assert 0 < parked <= 620 * 8 // 10
    server.expect_log(r"BH204: ")
    kill_owner(server, sessions[0][1])
    (rescued, lost), = deaths(server)
    assert rescued + lost == len(sessions) and rescued >= parked and lost > 0, (parked, rescued, lost)
    wait_for(lambda: len(stub.live()) == rescued, 5, "the others are closed")
    gone = [s for s, u in sessions if u not in stub.live()]
    TB(gone[0].next(), "remote-connection-failed")
    session, upstream = next((s, u) for s, u in sessions if s not in gone)
    session.send_next(X.message("still"))
    assert upstream.wait_bodies(1) == ["still"]
    upstream.send_message("here")
    assert session.texts(1) == ["here"]
    session.terminate()
    for session, _ in sessions:
        session.over = True
    client.close()
