# SPDX-License-Identifier: Apache-2.0
"""see-other-host (RFC 6120 4.9.3.19): followed once, before the client has seen anything, with the line's TLS."""

import re
import socket

import pytest
import xmltool as X
from bosh_env import wait_for
from certs import Authority, context
from client import TB
from stub import StubServer, stream_error

pytestmark = pytest.mark.rows("X-084")


class Stub6(StubServer):
    """At ::1."""

    def listen(self):
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("::1", self.port))
        s.listen(64)
        s.setblocking(False)
        self.port, self._listener = s.getsockname()[1], s
        self._call(lambda: self._selector.register(s, 1, "listen"))


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def good(ca):
    return context(ca.issue("x", ["DNS:starttls.example", "DNS:direct.example", "DNS:optional.example"]))


@pytest.fixture(scope="module")
def other_server():
    made = StubServer()
    yield made
    made.stop()


@pytest.fixture
def other(other_server):
    other_server.reset()
    return other_server


@pytest.fixture(scope="module")
def server(httpd, stub_server, ca):
    at = stub_server.address
    return httpd(children=1, upstreams=[
        f"example.com {at}", f"far.example {at} tls=off", f"proxy.example {at} proxyprotocol=v1",
        *(f"{mode}.example {at} tls={mode} ca={ca.pem}" for mode in ("starttls", "direct", "optional"))])


def redirect(stub, where, header=True):
    """New connections are sent there, instead of features or behind nothing but the header."""
    error = stream_error("see-other-host", "moved").replace("<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>",
                                                            f"<see-other-host xmlns='{X.NS_STREAM_ERRORS}'>{where}"
                                                            "</see-other-host>")
    assert where in error
    stub.script.header = lambda session: StubServerHeader(session) + (error + "</stream:stream>" if header else "")
    stub.script.features = [None]
    return error


def StubServerHeader(session):
    return "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' " \
           f"version='1.0' id='old-{session.number}' from='example.com'>"


def chat(session, upstream):
    session.send_next(X.message("down"))
    assert upstream.wait_bodies(1) == ["down"]
    upstream.send_message("up")
    assert session.texts(1) == ["up"]


def left(upstream):
    """Properly, and without a word of the client's."""
    upstream.wait_end()
    upstream.wait_closed()
    assert upstream.stanzas == [] or all(e.tag.endswith("starttls") for e in upstream.stanzas)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", " 127.0.0.1:{}\n", "localhost:{}"])
def test_followed(client, stub, other, form):
    redirect(stub, form.format(other.port))
    session, upstream = client.login(other, "alice")
    assert upstream.user == "alice"
    assert session.creation.attr("authid") in (None, f"stub-{upstream.number}-1")
    left(stub.accept())
    chat(session, upstream)


def test_to_ipv6(client, stub):
    six = Stub6()
    try:
        redirect(stub, f"[::1]:{six.port}")
        session, upstream = client.start(six)
        chat(session, upstream)
    finally:
        six.stop()


def test_the_header_came_long_before(server, client, stub, other):
    error = redirect(stub, other.address, header=False)
    creation = client.new_async()
    first = stub.accept()
    first.wait_header()
    first.wait(lambda s: s.chunks_out)
    first.wait_read()
    wait_for(lambda: any("features" in line or "connected" in line for line in server.log_lines()), 5)
    cut = error.index(other.address) + 7  # in the middle of the address
    first.send(error[:cut])
    first.wait_read()
    first.send(error[cut:])
    session, upstream = client.start(other, creation=creation)
    left(first)
    chat(session, upstream)


def test_a_port_need_not_be_named(server, client, stub):
    server.expect_log(r"127\.0\.0\.2:5222: BH201")
    redirect(stub, "127.0.0.2")  # where nobody listens
    TB(client.new_async().answer(), "remote-connection-failed")
    assert any("sends us to 127.0.0.2, port 5222" in line for line in server.log_lines())


def test_only_once(server, client, stub, other):
    server.expect_log("BH201.*stream error from the server: see-other-host")
    redirect(stub, other.address)
    third = StubServer()
    try:
        redirect(other, third.address)
        answer = client.new_async().answer()
        TB(answer, "remote-stream-error")
        error = answer.find("error", X.NS_STREAMS)
        assert error.find(X.tag("see-other-host", X.NS_STREAM_ERRORS)).text == third.address
        left(stub.accept())
        other.accept().wait_closed()
        assert third.new_connections() == 0
    finally:
        third.stop()


@pytest.mark.parametrize("where", ["", "a b", "host:port", "http://example.org/", "[::1", "a&lt;b", "x" * 256])
def test_no_address(server, client, stub, where):
    server.expect_log("BH201.*stream error from the server: see-other-host")
    redirect(stub, where)
    answer = client.new_async().answer()
    TB(answer, "remote-stream-error")
    error = answer.find("error", X.NS_STREAMS)
    assert error.find(X.tag("see-other-host", X.NS_STREAM_ERRORS)) is not None


def test_not_behind_the_features(client, stub, other):
    """The client has seen them: it is its own affair now."""
    session, upstream = client.start(stub)
    held = session.send_next().held()
    upstream.send(stream_error("see-other-host").replace("/>", f">{other.address}</see-other-host>", 1) + "</stream:stream>")
    TB(held.answer(), "remote-stream-error")
    session.over = True
    assert other.new_connections() == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "127.1", "127.0.0.1.example"])
def test_no_further_than_this_host_without_tls(server, client, stub, host):
    """A line without tls= means a server on this host. What only looks like its address is a name in DNS."""
    server.expect_log("BH201.*stream error from the server: see-other-host")
    redirect(stub, f"{host}:5222")
    TB(client.new_async().answer(), "remote-stream-error")
    assert any(f"{host}, port 5222, without TLS" in line for line in server.log_lines())


def test_as_far_as_the_line_says(server, client, stub, other):
    redirect(stub, other.address)
    session, upstream = client.start(other, to="far.example")
    chat(session, upstream)


@pytest.mark.rows("U-047")
def test_each_connection_introduces_the_client(client, stub, other):
    stub.script.proxy = other.script.proxy = True
    redirect(stub, other.address)
    session, upstream = client.start(other, to="proxy.example")
    first = stub.accept()
    assert first.introduction.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    assert upstream.introduction.endswith(f" {other.port}\r\n".encode())
    chat(session, upstream)


# ---- TLS ----

@pytest.mark.parametrize("when", ["before", "inside"])
@pytest.mark.parametrize("mode", ["starttls", "direct", "optional"])
def test_with_tls(client, stub, other, good, mode, when):
    """Sent on in the clear, or from inside TLS: there is TLS at the other host."""
    if mode == "direct" and when == "before":
        return  # nothing is said before
    if when == "inside":
        stub.script.tls, stub.script.tls_context = "direct" if mode == "direct" else "starttls", good
    other.script.tls, other.script.tls_context = "direct" if mode == "direct" else "starttls", good
    if when == "inside" and mode != "direct":
        header = stub.script.header
        redirect(stub, other.address)
        late = stub.script.header
        stub.script.features = [None]
        stub.script.header = lambda session: late(session) if session.tls else StubServerHeader(session)
        assert header is None
    else:
        redirect(stub, other.address)
    session, upstream = client.login(other, "alice", to=f"{mode}.example")
    assert upstream.shaken and upstream.sni == f"{mode}.example"
    left(stub.accept())
    chat(session, upstream)


@pytest.mark.parametrize("mode", ["starttls", "direct"])
def test_the_certificate_must_be_one_for_the_domain(server, client, stub, other, ca, good, mode):
    """... not for the host that we are sent to."""
    server.expect_log("BH201.*certificate")
    if mode == "direct":
        stub.script.tls, stub.script.tls_context = "direct", good
    redirect(stub, f"localhost:{other.port}")
    other.script.tls, other.script.tls_context = mode, context(ca.issue("localhost", ["DNS:localhost"]))
    TB(client.new_async("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHNlc2FtZQ==</auth>",
                        to=f"{mode}.example").answer(), "remote-connection-failed")
    upstream = other.accept()
    upstream.wait_closed()
    assert b"AHNlc2FtZQ" not in upstream.received


def test_tls_is_required_there_too(server, client, stub, other):
    server.expect_log("BH201.*does not offer STARTTLS")
    redirect(stub, other.address)
    TB(client.new_async(to="starttls.example").answer(), "remote-connection-failed")
    upstream = other.accept()
    upstream.wait_closed()
    assert re.search(rb"<stream:stream .*</stream:stream>$", bytes(upstream.received)) and upstream.stanzas == []


def test_only_once_before_tls(server, client, stub, other):
    server.expect_log("BH201.*a stream error from the server instead of TLS")
    redirect(stub, other.address)
    redirect(other, stub.address)
    TB(client.new_async(to="starttls.example").answer(), "remote-connection-failed")
    other.accept().wait_closed()
    stub.accept()
    assert stub.new_connections() == 0
