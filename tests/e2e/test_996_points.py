# SPDX-License-Identifier: Apache-2.0
"""Processes that die at the worst moments, one after the other: bosh_point.h says how a test chooses one.

The module that these tests load checks the whole shared memory at each unlock and aborts when something in it
does not hold together, which no test here would overlook.
"""

import random
import re
import signal

import pytest
import xmltool as X
from bosh_env import VALGRIND, wait_for
from client import BIND_IQ, auth
from test_990_restart import Traffic, insist, old_ones_end
from test_995_crash import DIED, deaths

pytestmark = [pytest.mark.skipif(VALGRIND, reason="one process under valgrind"), pytest.mark.limit(120)]

REPAIRED = re.compile(r"BH203: ")

# Under the lock, in the middle of a change; traffic alone leads there.
LOCKED = ["request-stored", "payload-moved", "up-appended", "answer-half", "answer-printed", "read-committed",
          "write-consumed", "chunk-taken", "chunk-freed", "mail-put", "touching", "committing"]
# By the next one who gets the lock.
REPAIR = ["undone", "repaired"]
# Between two sections of the lock.
UNLOCKED = ["unlocked", "read", "written", "answer-unsent", "answer-fetched"]
# In a hand-over, by the giver or the heir; those of the first list under the lock.
HANDOVER_LOCKED = ["giver-signing", "heir-taking"]
HANDOVER = ["giver-signed", "giver-sent", "heir-received", "heir-parked", "heir-took", "leaving", "emptied", "exit"]
# While somebody clears up after another death, or joins.
RESCUE_LOCKED = ["rescue-taking"]
# In a login; the first under the lock.
LOGIN_LOCKED = ["session-made"]
LOGIN = ["login-connected", "login-parked", "login-unsaid", "restart-unsaid"]
RESCUE = ["clearing-up", "rescue-parked", "rescue-took", "cleared-up", "joining"]


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    # Room for more children than there are: httpd tells MaxRequestWorkers / ThreadsPerChild of them to stop, and may
    # have one more while it replaces a dead one.
    return httpd(children=3, threads=32, upstreams=[stub_server.upstream()], points=True, max_spare=160,
                 directives="MaxRequestWorkers 288\nBoshInactivity 5\n")


def expect_deaths(server):
    server.expect_log(r"AH00052: child pid \d+ exit signal Killed")
    server.expect_log(r"AH1039[23]: children are killed successively")


def repairs(server):
    return sum(bool(REPAIRED.search(line)) for line in server.log_lines())


class Ward:
    """Traffic whose sessions must outlive everything."""

    def __init__(self, server, stub, sessions=20):
        expect_deaths(server)
        self.server, self.stub = server, stub
        self.fds = server.fds_of(server.process.pid)
        self.client = server.client()
        self.traffic = Traffic(self.client, stub, sessions, pause=0.02, wait=2)

    def lead_to(self, point, provoke=lambda: None, locked=False, children=3):
        """Has a process die at this point, while there are so many."""
        server, errors = self.server, self.traffic.errors
        wait_for(lambda: len(server.children()) >= children, 10, "there are children enough")
        died, repaired = len(deaths(server)), repairs(server)
        server.arm(point)
        provoke()
        wait_for(lambda: not server.armed(point) or errors, 30, f"a process comes to {point}", interval=0.002)
        wait_for(lambda: len(deaths(server)) > died or errors, 10, "somebody clears up after it")
        if locked:
            wait_for(lambda: repairs(server) > repaired or errors, 10, "the lock is repaired")
        self.progress()

    def progress(self):
        """Each session goes on, in both directions."""
        traffic = self.traffic
        sent, got = ([len(x) for x in each] for each in (traffic.sent, traffic.got))

        def all_go_on():
            return all(len(x) > n + 1 for x, n in zip(traffic.sent, sent)) and \
                all(len(x) > n + 1 for x, n in zip(traffic.got, got))
        wait_for(lambda: all_go_on() or traffic.errors, 20, "all sessions go on")
        assert not traffic.errors, traffic.errors[:3]

    def check(self):
        """Nothing lost, doubled or out of order; nothing left behind."""
        self.traffic.finish()
        self.client.close()
        for _, upstream in self.traffic.sessions:
            upstream.wait_closed()
            assert upstream.ended, "the stream was not closed properly"
        wait_for(lambda: not self.stub.live(), 20, "no connection of an ended session is left")
        assert self.server.fds_of(self.server.process.pid) <= self.fds, "the parent's descriptors grow"

    def kill_one(self):
        """A child that has a stream, so that the others have something to rescue."""
        self.server.kill_child(wait_for(
            lambda: self.server.owner_of(random.choice(self.traffic.sessions)[1].peer_port), 5, "an owner"))

    def restart(self):
        self.server.process.send_signal(signal.SIGUSR1)


class Stubborn:
    """A client that logs in, talks and ends its session, and sends again whatever breaks."""

    def __init__(self, client, stub):
        answer, _ = insist(lambda: client.new_async(wait=2))
        self.session = client.session(answer.exchange)
        self._until("features", X.NS_STREAMS, answer)
        self._until("success", X.NS_SASL, self._ask(auth()))
        self._until("features", X.NS_STREAMS,
                    self._ask(xmpp_restart="true", to=self.session.to, xml_lang="en"))
        jid = self._until("iq", X.NS_CLIENT, self._ask(BIND_IQ)).find(
            f"{X.tag('bind', X.NS_BIND)}/{X.tag('jid', X.NS_BIND)}").text
        self.upstream = next(s for s in stub.live() if s.jid == jid)

    def _ask(self, payload="", **attrs):
        self.session.rid += 1
        return insist(lambda: self.session.send(self.session.rid, payload, **attrs))[0]

    def _until(self, local, ns, answer):
        for _ in range(8):
            assert answer.attr("type") is None, f"the session ended: {answer}"
            found = answer.find(local, ns)
            if found is not None:
                return found
            answer = self._ask()
        raise AssertionError(f"{local} did not come")

    def talk(self):
        self.upstream.send_message("down")
        assert X.text_of(self._until("message", X.NS_CLIENT, self._ask(X.message("up"))), "body") == "down"
        assert self.upstream.wait_bodies(1) == ["up"]

    def end(self):
        assert self._ask(type="terminate").attr("type") == "terminate"
        self.upstream.wait_closed()
        assert self.upstream.ended, "the stream was not closed properly"


@pytest.fixture
def ward(server, stub):
    ward = Ward(server, stub)
    yield ward
    server.disarm()
    ward.traffic.running = False
    ward.client.close()


@pytest.mark.parametrize("point", LOCKED + UNLOCKED)
def test_in_traffic(ward, point):
    for _ in range(2):
        ward.lead_to(point, locked=point in LOCKED, children=2)
    ward.check()


@pytest.mark.parametrize("point", REPAIR)
def test_in_a_repair(ward, point):
    ward.lead_to(point, lambda: ward.server.arm("payload-moved"), locked=True)
    ward.check()


@pytest.mark.parametrize("point", HANDOVER_LOCKED + HANDOVER)
def test_in_a_restart(ward, point):
    old = ward.server.children()
    ward.lead_to(point, ward.restart, locked=point in HANDOVER_LOCKED)
    old_ones_end(ward.server, old)
    ward.progress()
    ward.check()


@pytest.mark.parametrize("point", RESCUE_LOCKED + RESCUE)
def test_in_a_rescue(ward, point):
    ward.lead_to(point, ward.kill_one, locked=point in RESCUE_LOCKED)
    ward.check()


def test_in_a_login(ward):
    """An attempt that dies with its process is repeated by the client; what is left of it ends by itself."""
    for point in LOGIN_LOCKED + LOGIN:
        made = []
        ward.lead_to(point, lambda: made.append(Stubborn(ward.client, ward.stub)), locked=point in LOGIN_LOCKED)
        made[0].talk()
        made[0].end()
    ward.check()


@pytest.mark.parametrize("point", ["end-unsaid", "session-freed"])
def test_at_the_end_of_a_session(ward, point):
    other = Stubborn(ward.client, ward.stub)
    ward.lead_to(point, other.end, locked=point == "session-freed")
    ward.check()


@pytest.mark.parametrize("mpm", ["worker", "prefork"])
def test_on_other_mpms(httpd, stub, mpm):
    """Where the loop and the ways out of a child are the same, but who calls them is not."""
    prefork = mpm == "prefork"
    server = httpd(mpm=mpm, children=12 if prefork else 3, threads=32, upstreams=[stub.upstream()], points=True,
                   max_spare=160, directives=f"MaxRequestWorkers {24 if prefork else 288}\n")
    ward = Ward(server, stub, 5)
    ward.lead_to("answer-unsent")
    ward.lead_to("payload-moved", locked=True)
    for point in ("heir-parked", "exit"):
        old = server.children()
        ward.lead_to(point, ward.restart)
        old_ones_end(server, old)
    ward.check()
