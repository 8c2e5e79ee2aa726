# SPDX-License-Identifier: Apache-2.0
"""Real Prosody and real ejabberd over STARTTLS and direct TLS, with certificates of an authority of the tests."""

import pytest
import xmltool as X
from certs import Authority
from client import TB
from ejabberd import Ejabberd
from prosody import Prosody
from test_950_real_prosody import available, plain_login, scram_login

SERVERS = {"prosody": Prosody, "ejabberd": Ejabberd}
MODES = ["starttls", "direct"]


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module", params=list(SERVERS))
def xmpp_server(request, ca):
    names = [f"DNS:{d}" for d in (Prosody.HOST, Prosody.ANON_HOST)]
    made = SERVERS[request.param](pair=ca.issue("x", names))
    made.start()
    yield made
    made.stop()


def lines(xmpp_server, mode, options):
    port = xmpp_server.port if mode == "starttls" else xmpp_server.tls_port
    return [f"{domain} 127.0.0.1:{port} tls={mode} {options}" for domain in (Prosody.HOST, Prosody.ANON_HOST)]


@pytest.fixture(scope="module", params=MODES)
def server(request, httpd, xmpp_server, ca):
    return httpd(children=2, upstreams=lines(xmpp_server, request.param, f"ca={ca.pem}"))


@pytest.fixture
def client(server):
    made = server.client()
    yield made
    made.close()


@pytest.mark.rows("U-021", "U-025", "U-040")
def test_login_and_chat(client):
    alice, bob = scram_login(client, "alice"), plain_login(client, "bob")
    available(alice)
    available(bob)
    held = alice.send_next().held()
    bob.send_next(X.message("hello alice", to=alice.jid))
    assert held.answer().texts() == ["hello alice"]
    alice.send_next(X.message("x" * 60000, to=bob.jid))
    assert bob.texts(1) == ["x" * 60000]


def test_anonymous(client):
    session = client.new(to=Prosody.ANON_HOST)
    session.authenticate()
    assert session.jid.partition("/")[0].endswith(f"@{Prosody.ANON_HOST}")


@pytest.mark.rows("U-043", "U-051")
@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_that_is_not_trusted(httpd, xmpp_server, mode):
    server = httpd(children=1, upstreams=lines(xmpp_server, mode, ""))
    server.expect_log("BH201.*certificate is refused")
    client = server.client()
    TB(client.new_async(to=Prosody.HOST).answer(), "remote-connection-failed")
    client.close()
    server.stop()
