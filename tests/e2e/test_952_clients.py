# SPDX-License-Identifier: Apache-2.0
"""The BOSH clients that people use, through mod_bosh, against the servers that people use.

strophe.js 5 (npm) and 1.2.14 (Debian), and Converse.js 14 (npm) in Chromium; stanza 12 (npm) in node; gloox (Debian) in
a small program. Prosody and ejabberd. What each client is like is in tests/clients; agents.py drives them all alike.
"""

import json
import os
import shutil
import subprocess
import threading

import pytest
from agents import CLIENTS, MODULES, Agent, Host
from bosh_env import ROOT, VALGRIND, private_dir, wait_for
from ejabberd import Ejabberd
from prosody import Prosody

pytestmark = [pytest.mark.skipif(VALGRIND, reason="one process under valgrind"), pytest.mark.limit(180)]

STROPHE_5 = ROOT / "node_modules" / "strophe.js" / "dist" / "strophe.umd.min.js"
STROPHE_1 = "/usr/share/javascript/strophe/strophe.min.js"
CLIENTS_IN_PAGES = {"strophe5": "strophe5.html", "strophe1": "strophe1.html", "converse": "converse.html"}
ALL = [*CLIENTS_IN_PAGES, "stanza", "gloox"]

STATUS = '<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n'
PROSODY_MODULES = ("carbons", "offline", "smacks", "pep", "vcard4", "vcard_legacy", "blocklist", "private",
                   "bookmarks")
# Converse sends no message before it has looked at somebody's devices, which only a server with PEP ends.
EJABBERD_MODULES = """
  mod_privacy: {}
  mod_blocking: {}
  mod_caps: {}
  mod_private: {}
  mod_pubsub:
    plugins: [ flat, pep ]
  mod_vcard: {}
"""
BURST = 20
LARGE = "<&>\"' \U0001f600 \u4f60\u597d " + "x" * 40000


@pytest.fixture(scope="module")
def docroot():
    root = private_dir("clients") / "page"
    root.mkdir()
    for name, source in (("strophe5", STROPHE_5), ("strophe1", STROPHE_1)):
        shutil.copy(source, root / f"{name}.js")
        (root / f"{name}.html").write_text((CLIENTS / "strophe.html").read_text().replace("@STROPHE@", f"{name}.js"))
    for name in ("strophe-agent.js", "converse.html", "converse-agent.js"):
        shutil.copy(CLIENTS / name, root)
    shutil.copytree(MODULES / "converse.js" / "dist", root / "converse",
                    ignore=shutil.ignore_patterns("*.map", "converse.js", "converse.css", "website*"))
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    yield root
    shutil.rmtree(root.parent, ignore_errors=True)


@pytest.fixture(scope="module", params=["prosody", "ejabberd"])
def xmpp(request):
    server = Prosody(PROSODY_MODULES) if request.param == "prosody" else Ejabberd(EJABBERD_MODULES)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(httpd, xmpp, docroot):
    """With the limits that administrators get."""
    return httpd(docroot=docroot, upstreams=xmpp.upstreams(), polling=None, directives=STATUS + "BoshLoginSize 64K\n")


@pytest.fixture(scope="module")
def chromium():
    program = os.environ.get("BOSH_CHROMIUM") or shutil.which("chromium")
    assert program and shutil.which("node"), "chromium and node are needed: run make deps"
    host = Host(["node", CLIENTS / "browser.mjs"], shared=True, BOSH_CHROMIUM=program)
    yield host
    host.stop()


@pytest.fixture(scope="module")
def gloox():
    directory = private_dir("gloox")
    program = directory / "gloox"
    libs = subprocess.run(["pkg-config", "--cflags", "--libs", "gloox"], check=True, capture_output=True, text=True)
    subprocess.run(["g++", "-std=c++11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-o", program,
                    CLIENTS / "gloox.cpp", *libs.stdout.split()], check=True)
    yield program
    shutil.rmtree(directory)


class Users:
    """Makes the agents of a test, and ends them after it."""

    def __init__(self, kind, server, xmpp, command):
        self.kind, self.server, self.xmpp, self.command = kind, server, xmpp, command
        self.agents = []

    def agent(self, name, query=""):
        shared = isinstance(self.command, Host)
        url = self.server.url("/" + CLIENTS_IN_PAGES[self.kind] + query) if shared else self.server.url()
        agent = Agent(self.command if shared else Host(self.command), name, url)
        self.agents.append(agent)
        return agent

    def login(self, name):
        agent = self.agent(name)
        agent.login(f"{name}@{self.xmpp.HOST}", self.xmpp.PASSWORDS[name])
        return agent

    def vanish(self, agent):
        agent.vanish()
        self.agents.remove(agent)

    def status(self):
        client = self.server.client()
        answer = client.request("GET", "/bosh-status?format=json")
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def none_left(self):
        """The module has no session any more, and has lost none."""
        wait_for(lambda: self.status()["sessions"]["live"] == 0, 20, "all sessions have ended")

    def end(self):
        for agent in self.agents:
            agent.vanish()


@pytest.fixture
def users(request, server, xmpp):
    kind = request.param
    if kind in CLIENTS_IN_PAGES:
        command = request.getfixturevalue("chromium")
    elif kind == "stanza":
        command = ["node", CLIENTS / "stanza.mjs"]
    else:
        command = [request.getfixturevalue("gloox")]
    made = Users(kind, server, xmpp, command)
    yield made
    made.end()


def clients(*without):
    return pytest.mark.parametrize("users", [kind for kind in ALL if kind not in without], indirect=True)


def numbered(name, count, first=0):
    return [f"{name} {i}" for i in range(first, first + count)]


@clients()
def test_messages_and_logout(users):
    """Login, twenty messages each way in order, 40 kB each way, logout."""
    alice, bob = users.login("alice"), users.login("bob")
    for i in range(BURST):
        alice.say(bob, f"to bob {i}")
        bob.say(alice, f"to alice {i}")
    assert burst(users, bob) == numbered("to bob", BURST)
    assert burst(users, alice) == numbered("to alice", BURST)
    alice.say(bob, LARGE)
    assert bob.receive(1) == [LARGE]
    bob.say(alice, LARGE)
    assert alice.receive(1) == [LARGE]
    alice.logout()
    bob.logout()
    users.none_left()


@clients(*CLIENTS_IN_PAGES)
def test_a_message_never_waits_for_a_held_request(users):
    """These two ask for hold=2, and have no third connection to send over when two requests are held."""
    alice, bob = users.login("alice"), users.login("bob")
    for i in range(3):
        alice.say(bob, f"to bob {i}")
        assert bob.receive(1, timeout=20) == [f"to bob {i}"]
    alice.logout()
    bob.logout()
    users.none_left()


@clients("gloox")
def test_reattach(users):
    """The page is loaded anew, or the process dies and another one takes the session: what came meanwhile is there.
    gloox has nothing to attach with."""
    alice, bob = users.login("alice"), users.login("bob")
    alice.say(bob, "before")
    assert bob.receive(1) == ["before"]
    texts = numbered("while away", 5)
    if users.kind in CLIENTS_IN_PAGES:
        alice.tell("reload")
        for text in texts:
            bob.say(alice, text)
        assert alice.wait("online") == [alice.jid]
    else:
        jid, (sid, rid) = alice.jid, alice.session()
        users.vanish(alice)
        alice.jid = jid
        for text in texts:
            bob.say(alice, text)
        alice = users.agent("alice")
        alice.attach(jid, sid, rid)
    assert alice.receive(len(texts)) == texts
    for i in range(BURST):
        alice.say(bob, f"after {i}")
    assert burst(users, bob) == numbered("after", BURST)
    assert users.status()["sessions"]["live"] == 2
    alice.logout()
    bob.logout()
    users.none_left()


@clients("gloox")
def test_a_graceful_restart_in_the_middle_of_a_burst(users, server):
    """Bursts go on until the old children are gone; nothing is lost, doubled or out of order. Not gloox: it goes on
    writing to a kept-alive connection that the server has closed, and sends nothing again, so a restart of any
    server leaves it standing."""
    alice, bob = users.login("alice"), users.login("bob")
    before = set(server.children())
    restart = threading.Thread(target=server.graceful)
    count = 0
    while count < 100 * BURST and (not count or restart.is_alive() or before & set(server.children())):
        for i in range(count, count + BURST):
            if i == BURST // 2:
                restart.start()
            alice.say(bob, f"to bob {i}")
            bob.say(alice, f"to alice {i}")
        assert burst(users, bob) == numbered("to bob", BURST, count)
        assert burst(users, alice) == numbered("to alice", BURST, count)
        count += BURST
    restart.join()
    assert not before & set(server.children())
    assert {key: n for key, n in users.status()["counters"].items() if key.startswith("lost_") and n} == {}
    alice.logout()
    bob.logout()
    users.none_left()


def burst(users, agent):
    """The messages of a burst. Two answers on two connections reach a client in either order, and but for stanza's, whose
    agent waits for that of the lower rid, these clients take them as they come: nothing lost and nothing twice is what
    they can tell. That answers are in order by their rids, others show (test_410, the load generator)."""
    texts = agent.receive(BURST)
    return texts if users.kind == "stanza" else sorted(texts, key=lambda text: int(text.rsplit(" ", 1)[1]))


def prebind(server, xmpp, name):
    script = ROOT / "docs" / "examples" / "prebind.py"
    done = subprocess.run(["/usr/bin/python3", script, server.url(), f"{name}@{xmpp.HOST}"], capture_output=True, text=True,
                          env=dict(os.environ, PREBIND_PASSWORD=xmpp.PASSWORDS[name]), timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@clients("gloox")
def test_prebind(users, server, xmpp, docroot):
    """A script logs in, the client attaches with sid and rid. gloox cannot attach."""
    made = prebind(server, xmpp, "alice")
    bob = users.login("bob")
    if users.kind == "converse":  # it fetches what it attaches to
        (docroot / "prebind.json").write_text(json.dumps(made))
        alice = users.agent("alice", "?prebind=/prebind.json")
    else:
        alice = users.agent("alice")
    alice.attach(made["jid"], made["sid"], made["rid"])
    assert alice.jid == made["jid"]
    for i in range(BURST):
        alice.say(bob, f"to bob {i}")
        bob.say(alice, f"to alice {i}")
    assert burst(users, bob) == numbered("to bob", BURST)
    assert burst(users, alice) == numbered("to alice", BURST)
    assert users.status()["sessions"]["live"] == 2
    alice.logout()
    bob.logout()
    users.none_left()
