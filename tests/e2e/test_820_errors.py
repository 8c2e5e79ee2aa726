# SPDX-License-Identifier: Apache-2.0
"""Errors: checklist section 11 (XEP-0124 section 17)."""

import re

import pytest
import xmltool as X
from bosh_env import ROOT
from client import CONDITIONS, E, TB, check_answer, new_body, wrap

IMPROPER = "improper-addressing"


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], directives="BoshPolling 0\nBoshMaxPause 30\n")


# ---- ways to fail: each gives a response and the condition that was due ----

def malformed(client, stub, **attrs):
    session, _ = client.start(stub, **attrs)
    session.over = True
    return session.post(f"<body xmlns='{X.NS_BOSH}' sid='{session.sid}' rid='1001'><x></body>").raw(), "bad-request"


def bad_creation(client, _stub, **attrs):
    return client.post(new_body(content="no type\r\nX: y", **attrs)).raw(), "bad-request"


def pause_too_long(client, stub, **attrs):
    session, _ = client.start(stub, **attrs)
    session.over = True
    return session.send(1001, pause=31).raw(), "policy-violation"


def beyond_the_window(client, stub, **attrs):
    session, _ = client.start(stub, **attrs)
    session.over = True
    return session.send(1009).raw(), "item-not-found"


def ended_by_another(client, stub, **attrs):
    session, _ = client.start(stub, **attrs)
    session.over = True
    held = session.send(1001).held(0.1)
    session.send(1009).raw()
    return held.raw(), "other-request"


def unknown_domain(client, _stub, **attrs):
    return client.post(new_body(to="nope.invalid", **attrs)).raw(), "host-unknown"


def no_domain(client, _stub, **attrs):
    return client.post(new_body(to=None, **attrs)).raw(), IMPROPER


def server_is_lost(client, stub, **attrs):
    session, upstream = client.start(stub, **attrs)
    session.over = True
    held = session.send(1001).held(0.1)
    upstream.rst()
    return held.raw(), "remote-connection-failed"


def server_fails(client, stub, **attrs):
    session, upstream = client.start(stub, **attrs)
    session.over = True
    held = session.send(1001).held(0.1)
    upstream.send_stream_error("policy-violation")
    return held.raw(), "remote-stream-error"


WAYS = [malformed, bad_creation, pause_too_long, beyond_the_window, ended_by_another, unknown_domain, no_domain,
        server_is_lost, server_fails]
CODES = {"bad-request": 400, "policy-violation": 403, "item-not-found": 404}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.rows("B-300", "B-013")
def test_B_300_conditions(client, server, stub, way):
    server.expect_log("BH201")
    answer, condition = way(client, stub)
    check_answer(answer, content=None)
    TB(answer, condition)
    assert condition in CONDITIONS
    # Nothing but what the schema gives a terminal body.
    assert set(answer.root.keys()) <= {"type", "condition", X.LANG, "ack"}, answer


@pytest.mark.parametrize("ver", [None, "1.5"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.rows("B-320", "B-321", "B-322", "B-324")
def test_B_320_B_321_B_322_legacy_clients(client, server, stub, way, ver):
    """HTTP codes for three conditions and for no other; terminal bodies for the rest."""
    server.expect_log("BH201")
    answer, condition = way(client, stub, ver=ver)
    assert answer.status == CODES.get(condition, 200), answer
    if answer.status == 200:
        TB(check_answer(answer, content=None), condition)


@pytest.mark.rows("B-320")
def test_B_320_an_error_that_waits_for_its_client(httpd, stub):
    """Stored, because its request was held when the session ended."""
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshLoginTimeout 1\n")
    client = server.client()
    for ver, status in ((None, 403), ("1.6", 200)):
        session, upstream = client.start(stub, ver=ver)
        session.over = True
        answer = session.send(1001).raw()
        assert answer.status == status, answer
        if status == 200:
            TB(answer, "policy-violation")
        upstream.wait_closed()


BROKEN = {"not xml": "x", "no rid": wrap(to="example.com"), "bad rid": new_body(rid="x"), "bad wait": new_body(wait="x"),
          "bad version": new_body(ver="x"), "wrong root": "<x xmlns='" + X.NS_BOSH + "' rid='1'/>",
          "comment": new_body("<!-- -->"), "two roots": new_body() + new_body(), "text": new_body("x"),
          "stream header": new_body(f"<s:stream xmlns:s='{X.NS_STREAMS}'/>")}


@pytest.mark.parametrize("what", list(BROKEN))
def test_B_301_malformed_creation(client, stub, what):
    TB(client.post(BROKEN[what]).answer(), "bad-request")
    assert stub.new_connections() == 0


@pytest.mark.parametrize("what", ["rid='x'", "rid='1001' pause='x'", "rid='1001' ack='-1'", ""])
def test_B_301_malformed_requests(client, stub, what):
    session, upstream = client.start(stub)
    session.over = True
    TB(session.post(f"<body xmlns='{X.NS_BOSH}' sid='{session.sid}' {what}>{X.message('x')}</body>").answer(),
       "bad-request")
    upstream.wait_closed()
    assert upstream.stanzas == []


@pytest.mark.parametrize("to,condition", [("nope.invalid", "host-unknown"), ("", IMPROPER), (None, IMPROPER),
                                          (".", IMPROPER)])
def test_B_302_addresses(client, stub, to, condition):
    TB(client.post(new_body(to=to)).answer(), condition)
    assert stub.new_connections() == 0


def test_B_303_item_not_found(client, stub):
    TB(client.post(wrap(sid="", rid=1001)).answer(), "item-not-found")
    TB(client.post(wrap(sid="0" * 32, rid=1001)).answer(), "item-not-found")
    answer, condition = beyond_the_window(client, stub)
    TB(answer, condition)
    # A session that was is no session.
    session = client.sessions[-1]
    for rid in (1001, 1002, 1009):
        TB(session.send(rid).answer(), "item-not-found")


@pytest.mark.rows("B-310")
def test_B_310_no_condition_without_a_meaning():
    """Each end has one of the other conditions: nothing in the sources ends a session with this one."""
    users = [path.name for path in sorted(ROOT.glob("src/**/*.c")) + sorted(ROOT.glob("*.c"))
             if re.search(r"\bBOSH_COND_UNDEFINED_CONDITION\b", path.read_text())]
    assert users == []


@pytest.mark.rows("B-316")
def test_B_316_stanza_errors_pass_untouched(client, stub):
    session, upstream = client.login(stub)
    held = session.send_next().held(0.1)
    error = ("<iq xmlns='jabber:client' type='error' id='q1' from='example.com'><query xmlns='jabber:iq:roster'/>"
             "<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
             "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no &lt;such&gt; thing</text>"
             "<own xmlns='urn:example:own'/></error></iq>")
    upstream.send(error)
    answer = held.answer()
    assert answer.attr("type") is None and len(answer.kids) == 1
    X.assert_same(answer.kids[0], error)
    # And from the client.
    session.send_next(error.replace("from=", "to="))
    upstream.wait(lambda u: u.stanzas[-1].get("type") == "error")
    X.assert_same(upstream.stanzas[-1], error.replace("from=", "to="))


@pytest.mark.rows("B-323", "R-09")
def test_B_323_an_unknown_sid_has_no_version(client):
    answer = client.post(wrap(X.message("x"), sid="f" * 32, rid=1001)).raw()
    assert answer.status == 200
    TB(check_answer(answer), "item-not-found")
    # What cannot be read has none either.
    assert client.post("<body").raw().status == 200


@pytest.mark.parametrize("ver", [None, "1.5", "1.0"])
@pytest.mark.rows("B-325", "R-12")
def test_B_325_a_legacy_client_lives(client, stub, ver):
    stub.script.echo = True
    session, _ = client.start(stub, ver=ver)
    for name in ("sid", "wait", "requests", "inactivity"):
        assert session.creation.attr(name), session.creation
    assert session.creation.attr("ver") == ver
    session.authenticate("alice")
    session.send_next(X.message("hi"))
    assert session.texts(1) == ["hi"]
    session.terminate()


# ---- where a row needs no more than to be left alone ----

@pytest.mark.parametrize("mechanisms", ["<mechanism>PLAIN</mechanism>",
                                        "<mechanism>PLAIN</mechanism><mechanism>EXTERNAL</mechanism>"])
@pytest.mark.rows("X-050", "X-036")
def test_X_050_external_is_neither_added_nor_taken_away(client, stub, mechanisms):
    """The server cannot be told who logged in to httpd, so its own list stands, whatever HTTP knows."""
    stub.script.features[0] = f"<mechanisms xmlns='{X.NS_SASL}'>{mechanisms}</mechanisms>"
    exchange = client.new_async(headers={"Authorization": "Basic YWxpY2U6cHc="})
    session = client.session(exchange)
    stub.accept()
    features = session.creation.find("features", X.NS_STREAMS)
    features = session.until("features", X.NS_STREAMS) if features is None else features
    offered = [m.text for m in features.iter(X.tag("mechanism", X.NS_SASL))]
    assert offered == re.findall("<mechanism>(.*?)<", mechanisms)


@pytest.mark.rows("R-16", "B-327")
def test_R_16_a_poll_with_a_to_is_a_poll(client, stub):
    session, upstream = client.start(stub)
    assert session.creation.attr("stream") is None
    held = session.send(1001, to="b.example", xml_lang="de").held(0.3)
    session.send(1002, X.message("x"), stream="x")
    E(held.answer())
    assert upstream.wait_bodies(1) == ["x"]
    assert stub.new_connections() == 0
