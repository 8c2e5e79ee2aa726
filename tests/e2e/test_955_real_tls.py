# SPDX-License-Identifier: Apache-2.0
"""Real Prosody and real ejabberd over STARTTLS and direct TLS, with certificates of an authority of the tests."""

from types import SimpleNamespace

import pytest
import xmltool as X
from bosh_env import VALGRIND
from certs import Authority
from client import TB
from ejabberd import Ejabberd
from prosody import Prosody
from test_950_real_prosody import available, plain_login, scram_login
from test_browser import docroot, page_policy, run_browser  # docroot is a fixture

SERVERS = {"prosody": Prosody, "ejabberd": Ejabberd}
MODULES = {"prosody": ("carbons", "offline"), "ejabberd": ""}
MODES = ["starttls", "direct"]


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module", params=list(SERVERS))
def xmpp_server(request, ca):
    names = [f"DNS:{d}" for d in (Prosody.HOST, Prosody.ANON_HOST)]
    made = SERVERS[request.param](pair=ca.issue("x", names), modules=MODULES[request.param])
    made.start()
    yield made
    made.stop()


def lines(xmpp_server, mode, options):
    port = xmpp_server.port if mode == "starttls" else xmpp_server.tls_port
    return [f"{domain} 127.0.0.1:{port} tls={mode} {options}" for domain in (Prosody.HOST, Prosody.ANON_HOST)]


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def server(httpd, xmpp_server, mode, ca):
    return httpd(children=2, upstreams=lines(xmpp_server, mode, f"ca={ca.pem}"))


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
    for text in ("hello", "x" * 60000):
        waiting = alice.send_next()
        bob.send_next(X.message(text, to=alice.jid))
        got = alice.until("message", exchange=waiting)  # behind the presence of contacts
        assert X.text_of(got, "body") == text


def test_anonymous(client):
    session = client.new(to=Prosody.ANON_HOST)
    session.authenticate()
    assert session.jid.partition("/")[0].endswith(f"@{Prosody.ANON_HOST}")


@pytest.mark.skipif(VALGRIND, reason="the browser does not wait for valgrind")
@pytest.mark.limit(240)
@pytest.mark.rows("U-021", "U-040")
def test_the_web_page(httpd, xmpp_server, mode, ca, docroot):
    """Two people log in with a password and chat, in Chromium."""
    server = httpd(children=2, docroot=docroot, polling=None, upstreams=lines(xmpp_server, mode, f"ca={ca.pem}"),
                   directives=f"<Directory {docroot}>\n{page_policy()}\n</Directory>")
    port = xmpp_server.port if mode == "starttls" else xmpp_server.tls_port
    run_browser("page.mjs", "chat", server, SimpleNamespace(port=port, ROOMS=Prosody.ROOMS, PASSWORDS=Prosody.PASSWORDS))
    server.stop()


@pytest.mark.rows("U-043", "U-051")
def test_a_certificate_that_is_not_trusted(httpd, xmpp_server, mode):
    server = httpd(children=1, upstreams=lines(xmpp_server, mode, ""))
    server.expect_log("BH201.*certificate is refused")
    client = server.client()
    TB(client.new_async(to=Prosody.HOST).answer(), "remote-connection-failed")
    client.close()
    server.stop()
