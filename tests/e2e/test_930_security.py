# SPDX-License-Identifier: Apache-2.0
"""Who may use the endpoint, and how: checklist section 13 (XEP-0124 section 19)."""

import subprocess
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, make_certificate, private_dir, wait_for
from client import E, TB, check_answer, new_body, wrap

GOOD, BAD = "https://chat.example.com", "https://evil.example"
HTTPS = {"X-Forwarded-Proto": "https"}


def elsewhere(answer):
    """The URI of a see-other-uri."""
    TB(check_answer(answer), "see-other-uri")
    assert [kid.tag for kid in answer.kids] == [X.tag("uri", X.NS_BOSH)], answer
    return answer.kids[0].text


# ---- TLS ----

@pytest.mark.rows("B-360", "B-308")
def test_B_360_B_308_sessions_over_tls_alone(httpd, stub):
    server = httpd(children=1, tls=True, upstreams=[stub.upstream()], directives="BoshRequireTLS On\n")
    plain, secure = server.client(), server.client(tls=True)
    exchange = plain.post(new_body(X.message("secret")))
    assert elsewhere(exchange.answer()) == "https://localhost/http-bind"
    assert stub.new_connections() == 0
    session, upstream = secure.start(stub)
    session.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]
    # Other requests are told nothing they did not know.
    TB(plain.post(wrap(sid="0" * 32, rid=1)).answer(), "item-not-found")
    secure.close()


@pytest.mark.parametrize("uri", ["https://xmpp.example.com:5281/bind?a=1&b='2'"])
@pytest.mark.rows("B-308")
def test_B_308_the_uri_of_the_directive(httpd, stub, uri):
    server = httpd(children=1, upstreams=[stub.upstream()], directives=f'BoshRequireTLS "{uri}"\n')
    assert elsewhere(server.client().post(new_body()).answer()) == uri


@pytest.mark.rows("B-364")
def test_B_364_a_header_is_no_tls(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshRequireTLS On\n")
    for headers in (HTTPS, {"HTTPS": "on"}, {"Forwarded": "proto=https"}, {"X-Forwarded-Ssl": "on"}):
        elsewhere(server.client().post(new_body(), headers=headers).answer())


@pytest.mark.rows("B-364", "B-361")
def test_B_364_a_proxy_that_is_trusted(httpd, stub):
    """TLS ends at the proxy: its requests count as secure, and a session's others must have come that way."""
    server = httpd(children=1, upstreams=[stub.upstream()], modules=["setenvif"], directives=(
        "BoshRequireTLS On\n"
        "SetEnvIfExpr \"%{HTTP:X-Forwarded-Proto} == 'https' && %{CONN_REMOTE_ADDR} == '127.0.0.1'\" HTTPS=on\n"))
    client = server.client()
    session = client.session(client.new_async(headers=HTTPS))
    upstream = stub.accept()
    session.send(1001, X.message("spoofed")).closed()
    held = session.send(1001, X.message("real"), headers=HTTPS)
    assert upstream.wait_bodies(1) == ["real"]
    E(session.send(1002, headers=HTTPS) and held.answer())
    session.over = True
    session.send(1003, type="terminate", headers=HTTPS).raw()


@pytest.fixture(scope="module")
def certificates():
    """Two of clients: (certificate, key)."""
    made = []
    for name in "ab":
        directory = private_dir(f"client-{name}")
        made.append(make_certificate(directory))
    yield made
    for cert, _ in made:
        subprocess.run(["rm", "-rf", cert.parent], check=True)


@pytest.mark.rows("B-363", "B-362")
def test_B_363_another_client_certificate(httpd, stub, certificates):
    server = httpd(tls=True, upstreams=[stub.upstream()], tls_lines=["SSLVerifyClient optional_no_ca"])
    client = server.client(tls=True, certificate=certificates[0])
    session, upstream = client.start(stub)
    for other in (certificates[1], None):
        client.certificate = other
        session.send(1001, X.message("foreign")).closed()
        session.post(session.body(1001, "<x>")[:-7]).closed()  # cannot be read, and ends nothing
    plain = server.client()
    plain.post(session.body(1001, X.message("plain"))).closed()
    client.certificate = certificates[0]
    for i in range(5):  # in any child
        session.send(1001 + i, X.message(f"mine {i}"))
        assert upstream.wait_bodies(i + 1) == [f"mine {k}" for k in range(i + 1)]
    client.close()


@pytest.mark.rows("B-363")
def test_B_363_certificates_are_not_needed(httpd, stub, certificates):
    server = httpd(children=1, tls=True, upstreams=[stub.upstream()], tls_lines=["SSLVerifyClient optional_no_ca"])
    client = server.client(tls=True)
    session, upstream = client.start(stub)
    client.certificate = certificates[0]
    session.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]
    client.close()


# ---- sids ----

@pytest.mark.rows("B-366")
def test_B_366_sids_say_nothing(client, stub):
    """128 bits, as good as random whatever the request: nothing of time, rid or process repeats in them."""
    sids = [client.new(rid=1000).sid for _ in range(64)]
    assert all(len(sid) == 32 and set(sid) <= set("0123456789abcdef") for sid in sids)
    assert len(set(sids)) == 64
    for place in range(32):
        assert len({sid[place] for sid in sids}) >= 8, f"digit {place} hardly changes: {sids}"
    bits = sum(bin(int(sid, 16)).count("1") for sid in sids)
    assert abs(bits - 64 * 64) < 6 * 45  # six standard deviations


# ---- limits ----

@pytest.fixture(scope="module")
def limited(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], modules=["remoteip"], directives=(
        "BoshMaxSessionsPerAddress 5\nRemoteIPHeader X-Client\nRemoteIPInternalProxy 127.0.0.1\n"))


@pytest.mark.rows("B-367")
def test_B_367_sessions_of_one_address(limited, stub):
    client = limited.client()
    sessions = [client.new() for _ in range(5)]
    for _ in range(5):  # whichever child is asked
        TB(client.post(new_body()).answer(), "policy-violation")
    assert client.post(new_body(ver=None)).raw().status == 403
    # The proxy names the client: others are not concerned, and each has its own count.
    for ip in ("192.0.2.1", "192.0.2.2", "2001:db8:1::1"):
        for _ in range(5):
            client.session(client.new_async(headers={"X-Client": ip}))
        TB(client.post(new_body(), headers={"X-Client": ip}).answer(), "policy-violation")
    # An IPv6 client has 2^64 addresses.
    TB(client.post(new_body(), headers={"X-Client": "2001:db8:1::2"}).answer(), "policy-violation")
    client.session(client.new_async(headers={"X-Client": "2001:db8:2::1"}))
    # Those who are there stay.
    sessions[0].send_next(X.message("x"))
    stub.wait(lambda: any(u.bodies() == ["x"] for u in stub.sessions))
    client.close()


@pytest.mark.rows("B-367")
def test_B_367_a_thousand_creations(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], log_level="warn", directives="BoshMaxSessionsPerAddress 20\n")
    client = server.client()
    sessions = [client.new() for _ in range(20)]
    conns = [client.connect() for _ in range(10)]
    for _ in range(100):
        for exchange in [client.post(new_body(), conn=conn) for conn in conns]:
            TB(exchange.answer(), "policy-violation")
    assert len(stub.sessions) == len(sessions)
    client.close()


@pytest.mark.rows("B-013", "B-367")  # a stored condition that was an HTTP code once
def test_B_367_time_to_log_in(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshLoginTimeout 2\n")
    client = server.client()
    known, _ = client.login(stub, "alice")
    stranger, upstream = client.start(stub)
    stranger.over = True
    TB(stranger.send(1001).answer(), "policy-violation")
    assert upstream.wait_closed() - stranger.creation.sent_at > 1.5
    silent, upstream = client.start(stub)
    silent.over = True
    upstream.wait_closed()
    known.send_next().held(0.5)
    client.close()


@pytest.mark.rows("B-367")
def test_B_367_time_to_log_in_is_the_virtual_host_s(httpd, stub):
    """... whoever's the BoshUpstream line is: that one is inherited."""
    server = httpd(children=1, tls=True, upstreams=[stub.upstream()], directives="BoshLoginTimeout 1min\n",
                   tls_lines=["BoshLoginTimeout 1"])
    plain, own = server.client(), server.client(tls=True)
    patient, _ = plain.start(stub)
    hasty, upstream = own.start(stub)
    hasty.over = True
    TB(hasty.send(1001).answer(), "policy-violation")
    upstream.wait_closed()
    patient.send_next().held(0.5)
    plain.close()
    own.close()


@pytest.mark.rows("B-367")
def test_B_367_payload_before_login(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshLoginSize 10K\n")
    client = server.client()
    TB(client.post(new_body(X.message("x" * 20000))).answer(), "policy-violation")
    session, upstream = client.start(stub)
    session.over = True
    TB(session.send(1001, X.message("x" * 20000)).answer(), "policy-violation")
    upstream.wait_closed()
    assert upstream.stanzas == []
    session, upstream = client.login(stub, "alice")
    session.send_next(X.message("x" * 20000))
    upstream.wait_bodies(1)
    client.close()


# ---- held requests cost no worker ----

@pytest.mark.skipif(VALGRIND, reason="one process with few connections")
@pytest.mark.limit(120)
@pytest.mark.rows("B-369")
def test_B_369_many_more_held_requests_than_workers(httpd, stub):
    """Held by 16 workers in two children: 600. A new session is made at once all the same."""
    server = httpd(children=2, threads=8, upstreams=[stub.upstream()], log_level="info",
                   directives="BoshMaxSessions 1000\n")
    client = server.client()
    held = []
    for _ in range(20):
        exchanges = [client.new_async(wait=50) for _ in range(30)]
        held += [client.session(x).send_next() for x in exchanges]
    wait_for(lambda: time.monotonic() - held[-1].sent_at > 0.5, 5)
    assert not any(x.done() for x in held)
    start = time.monotonic()
    for _ in range(5):
        client.new()
    assert time.monotonic() - start < 5 * SLOW
    assert not any(x.done() for x in held)
    # They are answered when there is something to say.
    for upstream in list(stub.sessions):
        upstream.send_message("x")
    for exchange in held:
        assert exchange.answer(30).texts() == ["x"]
    client.close()


# ---- pages of others ----

@pytest.mark.rows("B-370")
def test_B_370_posts_of_foreign_pages(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives=f"BoshAllowOrigin {GOOD}\n")
    client = server.client()
    session, upstream = client.start(stub)
    form = {"Content-Type": "text/plain"}
    for origin in (BAD, "null", GOOD + ".evil.example", "http://chat.example.com", "https://localhost.evil.example"):
        answer = client.post(session.body(1001, X.message("x")), headers={**form, "Origin": origin}).raw()
        assert answer.status == 403 and answer.get("Access-Control-Allow-Origin") is None, answer
        assert client.post(new_body(), headers={**form, "Origin": origin}).raw().status == 403
    assert stub.new_connections() == 0 and upstream.stanzas == []
    # The origins that were named, this host's own pages, and whoever is no browser.
    for i, headers in enumerate([{"Origin": GOOD}, {"Origin": "http://localhost"}, {"Origin": "https://front.example",
                                 "X-Forwarded-Host": "front.example"}, {}]):
        session.send_next(X.message(str(i)), headers=headers)
        upstream.wait_bodies(i + 1)
    client.close()


@pytest.mark.rows("B-370")
def test_B_370_without_a_list_nothing_is_refused(client, stub):
    client.session(client.new_async(headers={"Origin": BAD}))
