# SPDX-License-Identifier: Apache-2.0
"""The configurations of docs/SERVERS.md, as they stand there: only ports, directories and the address of the host
are replaced."""

import re
import shutil

import pytest
import xmltool as X
from bosh_env import ROOT, free_port, wait_for
from certs import Authority
from ejabberd import Ejabberd
from prosody import Prosody
from client import BIND_IQ, auth

HOST, GUESTS = "example.com", "guest.example.com"
TEXT = (ROOT / "docs" / "SERVERS.md").read_text()
BLOCKS = {name: body for name, body in re.findall(r"<!-- test: ([\w ]+) -->\n```\w+\n(.*?)```", TEXT, re.S)}
SETUPS = ["prosody loopback", "prosody tls", "ejabberd local", "ejabberd tls"]


class DocumentedProsody(Prosody):
    HOST, ANON_HOST = HOST, GUESTS

    def __init__(self, text, replace):
        super().__init__()
        self.text, self.replace = text, replace

    def config(self, _ssl):
        text = self.replace(self.text, self)
        return f"""pidfile = "{self.dir}/prosody.pid"
data_path = "{self.dir}/data"
log = {{ debug = "{self.dir}/prosody.log" }}
s2s_ports = {{ }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping" }}
modules_disabled = {{ "s2s" }}
authentication = "internal_plain"
{text}"""


class DocumentedEjabberd(Ejabberd):
    HOST, ANON_HOST = HOST, GUESTS
    umask = 0  # as the page says

    def __init__(self, text, replace):
        super().__init__()
        self.text, self.replace = text, replace

    def config(self):
        return f"loglevel: info\ns2s_access: none\n{self.replace(self.text, self)}modules:\n  mod_roster: {{}}\n"


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


class Setup:
    """A server that runs as written, and what became of its ports."""

    def __init__(self, name, ca):
        self.name, self.ca = name, ca
        self.ports = {port: free_port() for port in ("5222", "5223", "5225", "5226")}
        self.pair = ca.issue(HOST, [f"DNS:{HOST}", f"DNS:{GUESTS}"])
        kind = DocumentedProsody if name.startswith("prosody") else DocumentedEjabberd
        self.server = kind(BLOCKS[f"{name} server"], self.replace)
        first = re.search(r"\b(522\d)\b", self.server.text).group(1)
        self.server.port = self.ports[first]
        self.server.start()

    def replace(self, text, server):
        for old, new in self.ports.items():
            text = re.sub(rf"\b{old}\b", str(new), text)
        text = text.replace("/etc/prosody/certs/example.com.crt", f"{server.dir}/x.crt")
        text = text.replace("/etc/prosody/certs/example.com.key", f"{server.dir}/x.key")
        text = text.replace("/etc/ejabberd/example.com.pem", f"{server.dir}/x.pem")
        for path, suffix in zip(self.pair, (".crt", ".key")):
            shutil.copy(path, server.dir / f"x{suffix}")
        (server.dir / "x.pem").write_text("".join(path.read_text() for path in self.pair))
        return text.replace("/run/ejabberd/", f"{server.dir}/")

    def upstreams(self, block):
        """Lines for BoshUpstream: they trust the tests' authority, which an administrator's system need not do."""
        text = self.replace(BLOCKS[f"{self.name} {block}"], self.server).replace("xmpp.example.com:", "127.0.0.1:")
        lines = [line.removeprefix("BoshUpstream ").strip() for line in text.splitlines()]
        return [f"{line} ca={self.ca.pem}" if "tls=" in line else line for line in lines]


@pytest.fixture(scope="module", params=SETUPS)
def setup(request, ca):
    made = Setup(request.param, ca)
    yield made
    made.server.stop()


def test_each_setup(httpd, setup):
    """Each way that the page describes into that server: an account and a guest."""
    ways = [block.removeprefix(setup.name).strip() for block in BLOCKS
            if block.startswith(f"{setup.name} httpd")]
    assert ways
    for way in ways:
        server = httpd(children=1, upstreams=setup.upstreams(way))
        client = server.client()
        for to, user in ((HOST, "alice"), (GUESTS, None)):
            before = len(setup.server.log())
            session = client.new(to=to)
            session.until("success", X.NS_SASL, session.send_next(auth(user, Prosody.PASSWORDS.get(user))))
            session.until("features", X.NS_STREAMS, session.restart())
            bound = session.until("iq", exchange=session.send_next(BIND_IQ))
            jid = bound.find(f"{X.tag('bind', X.NS_BIND)}/{X.tag('jid', X.NS_BIND)}").text
            assert jid.partition("/")[0].endswith(f"@{to}") and (user is None or jid.startswith(f"{user}@"))
            if "proxy" in way:
                wait_for(lambda: "from 127.0.0.1" in setup.server.log()[before:], 10, "the client's address in its log")
        client.close()
        server.stop()


def test_every_configuration_of_the_page_is_run():
    assert BLOCKS and all(any(name.startswith(setup) for setup in SETUPS) for name in BLOCKS)
    fences = re.findall(r"```(lua|yaml)\n", TEXT)
    assert len(fences) == sum(name.endswith(" server") for name in BLOCKS), "a configuration without a test"
