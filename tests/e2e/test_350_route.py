# SPDX-License-Identifier: Apache-2.0
"""Routes: a client chooses between the servers of the configuration (XEP-0124 section 7.1)."""

import socket

import pytest
from bosh_env import free_port
from client import TB, new_body
from stub import StubServer


@pytest.fixture(scope="module")
def other_stub():
    other = StubServer()
    yield other
    other.stop()


@pytest.fixture
def other(other_stub):
    other_stub.reset()
    return other_stub


@pytest.fixture(scope="module")
def server(httpd, stub_server, other_stub):
    return httpd(upstreams=[stub_server.upstream(), other_stub.upstream("node2")], directives="BoshRoute On\n")


@pytest.mark.rows("B-085", "B-086")
def test_B_085_a_route_that_is_allowed(client, stub, other):
    session = client.new(route=f"xmpp:127.0.0.1:{other.port}")
    upstream = other.accept()
    assert upstream.wait_header()["attrs"]["to"] == "example.com"  # and still that domain
    assert stub.new_connections() == 0
    session.terminate()
    client.start(stub)  # without one
    client.new(route=stub_route(stub))
    stub.accept()


def stub_route(stub):
    return f"xmpp:127.0.0.1:{stub.port}"


@pytest.mark.rows("B-085")
def test_B_085_ignored_by_default(httpd, stub, other):
    server = httpd(children=1, upstreams=[stub.upstream(), other.upstream("node2")])
    client = server.client()
    for route in (f"xmpp:127.0.0.1:{other.port}", "xmpp:127.0.0.1:25", "nonsense", "xmpp://host:5222"):
        client.new(route=route)
        stub.accept()
    assert other.new_connections() == 0
    client.close()


@pytest.mark.parametrize("route", ["xmpp://127.0.0.1:{port}", "http:127.0.0.1:{port}", "xmpp:127.0.0.1", "xmpp:127.0.0.1:0",
                                   "xmpp:127.0.0.1:99999", "xmpp:127.0.0.1:{port}/", "xmpp:x@127.0.0.1:{port}", ""])
@pytest.mark.rows("B-086")
def test_B_086_routes_that_are_none(client, stub, other, route):
    TB(client.post(new_body(route=route.format(port=other.port))).answer(), "bad-request")
    assert stub.new_connections() == 0 and other.new_connections() == 0


@pytest.mark.rows("B-087", "B-086")
def test_B_087_no_open_relay(client, stub, other):
    """Neither another port of an allowed host nor another name of it, nor anything else that listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        port = listener.getsockname()[1]
        for route in (f"xmpp:127.0.0.1:{port}", f"xmpp:localhost:{other.port}", f"xmpp:[::1]:{other.port}",
                      f"xmpp:127.1:{other.port}", "xmpp:127.0.0.1:25", f"xmpp:127.0.0.1:{free_port()}"):
            TB(client.post(new_body(route=route)).answer(), "host-unknown")
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert stub.new_connections() == 0 and other.new_connections() == 0


@pytest.mark.rows("B-087")
def test_B_087_the_domain_is_limited_as_well(client, stub, other):
    TB(client.post(new_body(to="elsewhere.example", route=f"xmpp:127.0.0.1:{other.port}")).answer(), "host-unknown")
    assert other.new_connections() == 0
