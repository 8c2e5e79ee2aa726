# SPDX-License-Identifier: Apache-2.0
"""Children that stand still for a while, and children whose parent is gone."""

import ctypes
import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, stands_still, wait_for
from test_990_restart import Traffic, old_ones_end
from test_995_crash import deaths

pytestmark = pytest.mark.skipif(VALGRIND, reason="one process under valgrind")

STATUS = '<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n'
PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


def status(server, timeout=3):
    """The status page of some child; None when there is no answer: somebody keeps the lock."""
    try:
        with urllib.request.urlopen(server.url("/bosh-status?format=json"), timeout=timeout * SLOW) as answer:
            return json.load(answer)
    except OSError:
        return None


def freeze(server, pid):
    """SIGSTOP, not while it has the lock: then all would wait for it."""
    for _ in range(20):
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: stands_still(pid), 5, "all its threads stand still")
        if status(server):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)  # to another moment
    raise AssertionError("it had the lock each time")


def counts(traffic, which):
    return {i: (len(traffic.sent[i]), len(traffic.got[i])) for i in which}


def both_ways(traffic, before):
    """True when each of these sessions has sent and got something since."""
    return all(len(traffic.sent[i]) > sent and len(traffic.got[i]) > got for i, (sent, got) in before.items())


def go_on(traffic, which=None, timeout=20):
    """Each of these sessions (all of them) sends and gets something."""
    before = counts(traffic, which if which is not None else range(len(traffic.sessions)))
    wait_for(lambda: traffic.errors or both_ways(traffic, before), timeout, "these sessions go on")
    assert not traffic.errors, traffic.errors[:3]


@pytest.mark.limit(150)
def test_a_child_is_stopped_for_30_s(httpd, stub):
    """Nobody takes it for dead. What it has waits for it, the rest goes on."""
    server = httpd(children=3, threads=32, upstreams=[stub.upstream()], directives=STATUS)
    client = server.client()
    traffic = Traffic(client, stub, 20, wait=2, patience=4)
    owners = [server.owner_of(upstream.peer_port) for _, upstream in traffic.sessions]
    victim, children = owners[0], server.children()
    its = [i for i, owner in enumerate(owners) if owner == victim]
    others = [i for i, owner in enumerate(owners) if owner != victim]
    freeze(server, victim)
    try:
        until = time.monotonic() + 30
        # Whatever requests the stopped child holds are sent again by their clients. Then the other sessions go on.
        go_on(traffic, others)
        # The requests of its own sessions are taken by the others, and answered when their time is over: with what
        # it had read, once, then with nothing.
        before = counts(traffic, its)
        wait_for(lambda: traffic.errors or all(len(traffic.sent[i]) > sent + 2 for i, (sent, _) in before.items()),
                 25, "requests of its sessions are answered")
        mine = counts(traffic, its)
        while time.monotonic() < until:
            go_on(traffic, others, 5)
            time.sleep(0.5)
        assert {i: got for i, (_, got) in counts(traffic, its).items()} == {i: got for i, (_, got) in mine.items()}
        assert stands_still(victim) and server.children() == children
    finally:
        os.kill(victim, signal.SIGCONT)
    go_on(traffic)
    traffic.finish()
    assert not deaths(server)
    assert server.children() == children
    client.close()


def test_stopped_while_it_has_the_lock(httpd, stub):
    """Everything waits, and then goes on."""
    server = httpd(children=3, threads=32, upstreams=[stub.upstream()], directives=STATUS, points=True)
    client = server.client()
    traffic = Traffic(client, stub, 10)
    server.arm("payload-moved.stop")
    wait_for(lambda: not server.armed("payload-moved.stop"), 10, "a child stops")
    victim = wait_for(lambda: [pid for pid in server.children() if stands_still(pid)], 5, "all its threads stop")
    try:
        assert status(server, 1) is None, "it has the lock"
        before = counts(traffic, range(10))
        time.sleep(1)
        assert counts(traffic, range(10)) == before, "nobody gets past the lock"
    finally:
        os.kill(victim[0], signal.SIGCONT)
    go_on(traffic)
    traffic.finish()
    assert not deaths(server)
    client.close()


@pytest.mark.limit(90)
@pytest.mark.parametrize("point", ["giver-sent", "heir-received", "rescue-parked"])
def test_stopped_in_the_middle_of_a_move(httpd, stub, point):
    """What is on its way waits, however long that takes."""
    server = httpd(children=3, threads=32, upstreams=[stub.upstream()], directives="MaxRequestWorkers 288\n",
                   max_spare=160, points=True)
    client = server.client()
    traffic = Traffic(client, stub, 12, wait=2, patience=4)
    old = server.children()
    server.arm(point + ".stop")
    if point == "rescue-parked":
        server.kill_child(server.owner_of(traffic.sessions[0][1].peer_port))
    else:
        server.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: not server.armed(point + ".stop"), 10, "a child stops")
    victim, = wait_for(lambda: [pid for pid in server.children() if stands_still(pid)], 5, "all its threads stop")
    # A sweep of the others; longer than a giver waits when there is no heir at all.
    time.sleep(3.5 if point == "heir-received" else 1.2)
    os.kill(victim, signal.SIGCONT)
    go_on(traffic)
    if point != "rescue-parked":
        old_ones_end(server, old)
    traffic.finish()
    assert not any(lost for _, lost in deaths(server))
    client.close()


def test_what_came_meanwhile_is_not_late(httpd, stub):
    """A server that answered in time is not blamed for a child that stood still."""
    server = httpd(children=1, upstreams=[stub.upstream(options="tls=off timeout=1s")])
    client = server.client()
    stub.script.auto = False
    creation = client.new_async(wait=10)
    upstream = stub.accept()
    upstream.wait_header()
    with server.stopped(server.children()):
        upstream.send_header()
        upstream.send_features()
        time.sleep(1.5)  # beyond the timeout
    session = client.session(creation)
    if not any(kid.tag == X.tag("features", X.NS_STREAMS) for kid in session.creation.kids):
        session.until("features", X.NS_STREAMS)
    client.close()


# ---- without a parent ----

@pytest.fixture
def adoption():
    """Orphans become children of this process, which can reap them."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def kill_all(server):
    for pid in server.children():
        os.kill(pid, signal.SIGKILL)
    for pid in server.orphans or ():
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # reaped already


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_the_parent_is_killed(httpd, stub, adoption, mpm):
    """The children go on serving without it, also when one of them dies."""
    server = httpd(mpm=mpm, children=12 if mpm == "prefork" else 3, threads=32, upstreams=[stub.upstream()])
    client = server.client()
    traffic = Traffic(client, stub, 5)
    server.kill_parent()
    try:
        go_on(traffic)
        victim = server.owner_of(traffic.sessions[0][1].peer_port)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        wait_for(lambda: deaths(server), 10, "somebody clears up after it")
        go_on(traffic)
        client.login(stub)
        traffic.finish()
        assert [lost for _, lost in deaths(server)] == [0]
        used = {pid: cpu_seconds(pid) for pid in server.children()}
        time.sleep(1.5)
        assert list(used) == server.children()
        for pid, seconds in used.items():
            assert cpu_seconds(pid) - seconds < 0.5, f"{pid} is busy although there is nothing to do"
        client.close()
    finally:
        kill_all(server)
    for _, upstream in traffic.sessions:
        upstream.wait_closed()


@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_the_parent_is_killed_while_children_drain(httpd, stub, adoption, mpm):
    """Nobody will ever take over: they end their sessions, and themselves."""
    server = httpd(mpm=mpm, children=2, threads=16, upstreams=[stub.upstream()], directives="BoshQuickRestart Off\n")
    client = server.client()
    sessions = [client.login(stub) for _ in range(4)]
    children, owners = server.children(), {server.owner_of(upstream.peer_port) for _, upstream in sessions}
    threads = {pid: server.threads_of(pid) for pid in children}
    server.process.send_signal(signal.SIGUSR1)
    # It tells them all in one go and then sleeps for a second: time to stop it before there are new ones.
    wait_for(lambda: any(server.threads_of(pid) < n for pid, n in threads.items()), 10, "the children are told",
             interval=0.001)
    server.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: all(server.threads_of(pid) == 2 for pid in owners), 10, "all but main thread and loop are gone")
    server.kill_parent()
    try:
        assert set(server.children()) <= set(children), "there are new ones already"
        wait_for(lambda: not server.children(), 10, "the children end")
    finally:
        kill_all(server)
    for session, upstream in sessions:
        session.over = True
        upstream.wait_closed()
        assert upstream.ended, "the stream was not closed properly"
    client.close()
