# SPDX-License-Identifier: Apache-2.0
"""The PROXY protocol to the XMPP server: who the client really is, as the first thing on each connection."""

import ipaddress
import re
import struct

import pytest
import xmltool as X
from bosh_env import VALGRIND, Httpd, wait_for
from certs import Authority, context
from client import BoshClient, auth
from ejabberd import Ejabberd
from prosody import Prosody
from stub import PROXY_V2
from test_995_crash import kill_owner

VERSIONS = ["v1", "v2"]
MODES = ["off", "starttls", "direct"]
REMOTE_IP = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n"


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def good(ca):
    return context(ca.issue("x", [f"DNS:{v}-{m}.example" for v in VERSIONS for m in MODES]))


@pytest.fixture(scope="module")
def server(httpd, stub_server, ca):
    return httpd(children=2, modules=("remoteip",), directives=REMOTE_IP, upstreams=[
        f"{v}-{m}.example {stub_server.address} proxyprotocol={v} tls={m}" + (f" ca={ca.pem}" if m != "off" else "")
        for v in VERSIONS for m in MODES])


def read_header(text):
    """(source address, source port, destination port) of a PROXY header; None: unknown."""
    if text.startswith(PROXY_V2):
        command, family, length = struct.unpack("!BBH", text[12:16])
        if command == 0x20:
            return None
        assert command == 0x21 and (family, length) in ((0x11, 12), (0x21, 36)), text
        n = 4 if family == 0x11 else 16
        return (str(ipaddress.ip_address(text[16:16 + n])), *struct.unpack("!HH", text[16 + 2 * n:]))
    words = text.decode("ascii").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN\r\n"]:
        return None
    assert words[0] == "PROXY" and len(words) == 6 and words[1] in ("TCP4", "TCP6") and words[5].endswith("\r\n"), text
    assert ipaddress.ip_address(words[2]).version == ipaddress.ip_address(words[3]).version == int(words[1][3])
    return words[2], int(words[4]), int(words[5])


def chat(session, upstream):
    session.send_next(X.message("down"))
    wait_for(lambda: "down" in upstream.bodies(), 10, "the message")
    upstream.send_message("up")
    assert session.texts(1) == ["up"]


@pytest.mark.valgrind
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.rows("U-047")
def test_the_header_comes_first(client, stub, good, version, mode):
    stub.script.proxy = True
    stub.script.tls, stub.script.tls_context = None if mode == "off" else mode, good
    creation = client.new_async(to=f"{version}-{mode}.example")
    session, upstream = client.start(stub, creation=creation, to=f"{version}-{mode}.example")
    kinds = [kind for kind, _ in upstream.seen]
    assert kinds[0] == "introduction" and kinds.count("introduction") == 1
    assert upstream.introduction.startswith(PROXY_V2 if version == "v2" else b"PROXY ")
    assert read_header(upstream.introduction) == ("127.0.0.1", creation.conn.local_port, stub.port)
    if mode == "direct":
        assert upstream.tls.selected_alpn_protocol() == "xmpp-client"
    chat(session, upstream)
    assert upstream.error is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9"])
@pytest.mark.rows("U-047")
def test_the_client_behind_a_proxy_of_ours(client, stub, version, address):
    stub.script.proxy = True
    to = f"{version}-off.example"
    creation = client.new_async(to=to, headers={"X-Forwarded-For": address})
    session, upstream = client.start(stub, creation=creation, to=to)
    found = read_header(upstream.introduction)
    assert found[:2] == (address, 0)
    chat(session, upstream)


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.parametrize("version", VERSIONS)
def test_streams_move_and_are_rescued_as_ever(server, client, stub, version):
    """The header is none of the stream's bytes, which are counted to rescue it."""
    server.expect_log("BH204: .* 0 upstream streams were lost")
    stub.script.proxy = True
    session, upstream = client.start(stub, to=f"{version}-off.example")
    chat(session, upstream)
    server.graceful()
    chat(session, upstream)
    kill_owner(server, upstream)
    chat(session, upstream)
    assert stub.new_connections() == 0 and upstream.error is None


def test_wrong_options():
    for word, expected in (("proxyprotocol=v3", "one of v1, v2 and off"), ("proxyprotocol=", "one of v1, v2 and off"),
                           ("proxyprotocol", "unknown word")):
        server = Httpd(name="config", directives=f"BoshUpstream example.com 127.0.0.1:5222 {word}")
        code, said = server.check_config()
        server.cleanup()
        assert code != 0 and "BoshUpstream example.com" in said and expected in said, said


# ---- ejabberd ----

@pytest.fixture(scope="module")
def ejabberd(ca):
    made = Ejabberd(pair=ca.issue("x", [f"DNS:{d}" for d in (Prosody.HOST, Prosody.ANON_HOST)]))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module", params=VERSIONS)
def before_ejabberd(request, httpd, ejabberd, ca):
    """localhost by STARTTLS, anon.localhost by direct TLS."""
    options = f"proxyprotocol={request.param} ca={ca.pem}"
    return httpd(children=1, modules=("remoteip",), directives=REMOTE_IP, upstreams=[
        f"{Prosody.HOST} 127.0.0.1:{ejabberd.proxy_port} tls=starttls {options}",
        f"{Prosody.ANON_HOST} 127.0.0.1:{ejabberd.proxy_tls_port} tls=direct {options}"])


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9"])
@pytest.mark.rows("U-047")
def test_ejabberd_knows_the_client(before_ejabberd, ejabberd, address):
    for domain, user in ((Prosody.HOST, "alice"), (Prosody.ANON_HOST, None)):
        before = len(ejabberd.log())
        client = BoshClient(before_ejabberd.port, secrets=before_ejabberd.secrets)
        session = client.session(client.new_async(to=domain, headers={"X-Forwarded-For": address}))
        session.until("success", X.NS_SASL, session.send_next(auth(user, Prosody.PASSWORDS.get(user))))
        wait_for(lambda: re.search(rf"Accepted c2s \w+ authentication for .*@{domain} by .* from (::ffff:)?{address}\n",
                                   ejabberd.log()[before:]), 10, "ejabberd's log names the client")
        client.close()
