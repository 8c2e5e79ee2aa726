# SPDX-License-Identifier: Apache-2.0
"""Session creation: checklist section 3 (XEP-0124 section 7)."""

import time

import pytest
import xmltool as X
from client import T, TB, auth, check_answer, new_body

MAX_WAIT, MAX_HOLD, MAX_REQUESTS = 55, 1, 3  # the documented defaults


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], polling=None)


def creation(client, **attrs):
    """The creation answer's attributes."""
    return client.new(**attrs).creation.root.attrib


def number(attributes, name):
    assert name in attributes, f"no {name}: {attributes}"
    assert attributes[name].isdigit(), attributes
    return int(attributes[name])


def test_B_060_B_063_creation_answer(client, stub):
    attributes = creation(client)
    for name in ("sid", "wait", "requests"):
        assert name in attributes


@pytest.mark.parametrize("sid", ["", "x", "0" * 32, "f" * 32, "../../etc", "a" * 5000])
def test_B_061_unknown_sid(client, sid):
    answer = client.post(new_body(sid=sid)).answer()
    TB(answer, "item-not-found")


def test_B_062_sids_are_unique_and_unpredictable(client, server, stub):
    # Requests under way at the same time spread over the children (test_960 proves that they do).
    stub.script.features = [None]
    stub.script.header = lambda s: "<stream:stream xmlns='jabber:client' " \
        f"xmlns:stream='{X.NS_STREAMS}' id='i' from='example.com'>"
    sids = []
    for _ in range(10):
        batch = [client.new_async(wait=1) for _ in range(30)]
        sids += [client.session(x).sid for x in batch]
    assert len(set(sids)) == 300
    assert all(len(s) * 4 >= 128 for s in sids)
    # As random hex: each position takes many values; a counter, a pid or a clock would leave constants.
    for position in range(min(map(len, sids))):
        values = [s[position] for s in sids]
        most = max(values.count(v) for v in set(values))
        assert most < 60, f"position {position} of the sid is not random"


@pytest.mark.parametrize("asked, least, most", [(5, 5, 5), (0, 0, 0), (100000, 1, MAX_WAIT), (55, 55, 55), (1, 1, 1),
                                                (99999999999999999999, 1, MAX_WAIT)])
@pytest.mark.rows("B-064", "B-247")
def test_B_064_wait(client, asked, least, most, stub):
    assert least <= number(creation(client, wait=asked), "wait") <= most


def test_B_065_default_wait(client, stub):
    assert 1 <= number(creation(client, wait=None), "wait") <= MAX_WAIT


@pytest.mark.parametrize("asked", [0, 1, 2, 3, 5, 200, 255, 256, 100000])
@pytest.mark.rows("B-066", "B-067", "B-068", "B-246", "B-247")
def test_B_066_B_067_B_068_hold_and_requests(client, asked, stub):
    # requests = max(hold + 1, min(asked + 1, the limit))
    attributes = creation(client, hold=asked)
    hold, requests = number(attributes, "hold"), number(attributes, "requests")
    assert hold == min(asked, MAX_HOLD)
    assert requests == max(hold + 1, min(asked + 1, MAX_REQUESTS))
    assert requests <= 255 and hold < requests


def test_B_067_default_hold(client, stub):
    attributes = creation(client, hold=None)
    assert number(attributes, "hold") == 1 and number(attributes, "requests") == 2


def test_B_068_ranges(client, stub):
    attributes = creation(client, wait=65536, hold=255)
    for name in ("wait", "inactivity", "polling", "maxpause", "time"):
        assert 0 <= int(attributes.get(name, 0)) <= 65535


@pytest.mark.parametrize("asked, answer", [("1.6", "1.6"), ("1.8", "1.8"), ("1.11", "1.11"), ("2.0", "1.11"),
                                           ("1.10", "1.10"), ("1.9", "1.9"), ("1.100", "1.11"), ("10.1", "1.11")])
@pytest.mark.rows("B-069", "B-070")
def test_B_069_B_070_version_negotiation(client, stub, asked, answer):
    assert creation(client, ver=asked).get("ver") == answer


@pytest.mark.parametrize("ver", ["1", "x.y", "1.", ".6", "", "99999999999.1", "1.6.1", "-1.6", "1.99999999999999999999"])
def test_B_071_malformed_version(client, stub, ver):
    answer = client.post(new_body(ver=ver), creation=True).raw()
    if answer.status == 200 and answer.attr("type"):
        TB(check_answer(answer), "bad-request")
    elif answer.status == 200:
        client.secrets.add(answer.attr("sid"))
        assert answer.attr("ver") in (None, "1.11"), answer
    else:
        assert answer.status == 400  # a client without a version gets HTTP codes (17.1)
    assert creation(client)["sid"]  # the server still works


def test_B_072_B_073_polling_and_inactivity(client, stub):
    attributes = creation(client)
    assert number(attributes, "polling") == 5 and number(attributes, "inactivity") == 60


@pytest.mark.parametrize("attrs", [{"hold": 0}, {"wait": 0}])
def test_B_074_polling_sessions_may_be_silent_for_longer(client, stub, attrs):
    normal, polling = creation(client), creation(client, **attrs)
    assert number(polling, "inactivity") - number(normal, "inactivity") > number(polling, "polling")


def test_B_075_from(client, stub):
    session, _ = client.start(stub)
    answers = [session.creation]
    assert any(a.attr("from") == "example.com" for a in answers), answers


def test_B_075_from_of_the_server(client, stub):
    # The identity is what the XMPP server says, when it says so.
    stub.script.header_attrs = {"from": "server.example.com"}
    assert client.new().creation.attr("from") in ("server.example.com", "example.com")


CONTENT = "text/html; charset=utf-8"


def test_B_078_content_type_on_every_answer(client, stub):
    session, upstream = client.start(stub, content=CONTENT)  # each answer is compared by check_answer()
    assert session.creation.get("Content-Type").replace("; ", ";") == CONTENT.replace("; ", ";")
    held = session.send_next().held()
    upstream.send_message("x")
    held.answer()
    session.send(1001).answer()  # from the cache
    T(session.terminate())


def test_B_078_content_type_of_a_terminal_error(client, stub):
    session, upstream = client.start(stub, content=CONTENT)
    session.over = True
    held = session.send(1001).held()
    bad = session.send(1009)
    TB(bad.answer(), "item-not-found")
    TB(held.answer(), "other-request")


@pytest.mark.parametrize("value", ["text/xml&#13;&#10;X-Evil: 1", "text/xml&#10;X-Evil: 1", "text/xml&#9;x", "a" * 5000,
                                   "text/xml\u00e9", "text"], ids=range(6))
def test_B_079_no_header_injection(client, value):
    text = new_body().replace("rid=", f"content='{value}' rid=")
    answer = client.post(text, content=None, creation=True).answer()
    assert answer.get("X-Evil") is None
    TB(answer, "bad-request")


def test_B_080_language_goes_upstream(client, stub):
    _, upstream = client.start(stub, xml_lang="de")
    assert upstream.wait_header()["lang"] == "de"


@pytest.mark.parametrize("to", ["EXAMPLE.com", "Example.Com"])
def test_B_081_domain_is_prepared(client, stub, to):
    _, upstream = client.start(stub, to=to)
    assert upstream.wait_header()["attrs"]["to"] == "example.com"


@pytest.mark.parametrize("to", [None, ""])
def test_B_082_no_domain(client, to):
    TB(client.post(new_body(to=to)).answer(), "improper-addressing")


@pytest.mark.parametrize("to", ["nope.invalid", "example.co", "xexample.com", "sub.example.com", "a" * 2000,
                                "example.com/x", "user@example.com", "example.com:80", "127.0.0.1", "x y"])
def test_B_083_domain_that_is_not_served(client, stub, to):
    TB(client.post(new_body(to=to)).answer(), "host-unknown", "improper-addressing", "bad-request")
    assert stub.new_connections() == 0


def test_B_083_host_unknown(client):
    TB(client.post(new_body(to="nope.invalid")).answer(), "host-unknown")


def test_B_088_from_is_accepted(client, stub):
    client.new(**{"from": "u@example.com"})


@pytest.mark.parametrize("attrs", [{"secure": "true"}, {"secure": "1"}, {"route": "xmpp:127.0.0.1:1"}])
def test_B_095_secure_and_route_change_nothing(client, stub, attrs):
    client.new(**attrs)
    stub.accept().wait_header()


def test_B_089_B_090_acks_are_used_when_the_client_asks(client, stub):
    #
    assert creation(client, ack="1").get("ack") == "1000"
    assert creation(client).get("ack") is None


@pytest.mark.parametrize("coding", ["br", "zstd", "x-unknown"])
def test_B_093_content_codings_that_are_not_advertised(client, coding):
    answer = client.post(b"\x0b\x02\x80" + b"x" * 100, headers={"Content-Encoding": coding}).raw()
    if answer.status != 415:
        TB(check_answer(answer), "bad-request")


def test_B_096_payload_of_the_creation_request(client, stub):
    stub.script.features_delay = 0.3
    session = client.new(auth("alice") + X.message("after it"))
    upstream = stub.accept()
    assert upstream.wait_bodies(1) == ["after it"]
    assert [e.tag for e in upstream.stanzas] == [X.tag("auth", X.NS_SASL), X.tag("message")]
    sent_features = next(t for t, data in upstream.chunks_out if b"features" in data)
    assert upstream.times[0] >= sent_features
    # Its answer is not lost either, wherever it comes.
    if session.creation.find("success", X.NS_SASL) is None:
        session.until("success", X.NS_SASL)


def test_B_097_creation_with_terminate(client, stub):
    answer = client.post(new_body(type="terminate"), creation=True).answer()
    if answer.attr("condition"):
        TB(answer, "bad-request")
    else:
        T(answer)
    if stub.new_connections():
        stub.accept().wait_closed()
    client.start(stub)
    assert len(stub.live()) == 1


def test_B_098_repeated_creation_makes_a_second_session(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives="BoshInactivity 2\n")
    client = server.client()
    first = client.new()
    upstream = stub.accept()
    second = client.new()
    assert first.sid != second.sid
    other = stub.accept()
    held = second.send_next()
    ended = upstream.wait_closed(6)
    assert ended - first.creation.time > 1.5
    assert not held.done() and not other.ended
    client.close()


def test_B_099_the_server_is_slow(client, stub):
    stub.script.header_delay = 3
    exchange = client.new_async()
    session = client.session(exchange)
    assert session.creation.took < session.wait
    if session.creation.find("features", X.NS_STREAMS) is None:
        session.until("features", X.NS_STREAMS)
    upstream = stub.accept()
    session.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]


@pytest.mark.limit(40)
def test_B_099_the_server_says_nothing(client, stub):
    stub.script.auto = False
    exchange = client.new_async(wait=3)
    answer = exchange.answer(30)
    # A sid within wait; or, when the connection manager insists on the stream, a failure.
    if answer.attr("sid"):
        client.secrets.add(answer.attr("sid"))
        assert answer.took < 10
    else:
        TB(answer, "remote-connection-failed")


def after_creation(client, exchange):
    """The answer to creation, or to the first request when creation gave a sid."""
    answer = exchange.answer(30)
    if answer.attr("sid"):
        answer = client.session(exchange).next(timeout=30)
    return answer


@pytest.mark.rows("B-100", "B-306")
def test_B_100_upstream_refuses(client, server, stub):
    stub.refuse()
    server.expect_log(r"BH201")
    start = time.monotonic()
    TB(after_creation(client, client.new_async()), "remote-connection-failed")
    assert time.monotonic() - start < 20
    stub.listen()
    client.start(stub)


@pytest.mark.parametrize("what", ["fin", "rst", "not-xml", "wrong-namespace"])
@pytest.mark.rows("B-100", "U-032")
def test_B_100_upstream_fails_before_features(client, server, stub, what):
    server.expect_log(r"BH201")
    stub.script.auto = False
    exchange = client.new_async()
    upstream = stub.accept()
    upstream.wait_header()
    if what == "fin":
        upstream.close()
    elif what == "rst":
        upstream.rst()
    elif what == "not-xml":
        upstream.send("HTTP/1.1 400 Bad Request\r\n\r\n")
    else:
        upstream.send("<stream:stream xmlns='jabber:client' xmlns:stream='urn:wrong' version='1.0' id='x'>")
    TB(after_creation(client, exchange), "remote-connection-failed", "undefined-condition", "remote-stream-error")
    if what in ("not-xml", "wrong-namespace"):
        upstream.wait_closed()


def test_B_101_no_room_for_another_session(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives="BoshMaxSessions 5\n")
    server.expect_log(r"BH004")
    client = server.client()
    sessions = []
    for _ in range(40):
        answer = client.new_async().answer()
        if not answer.attr("sid"):
            break
        sessions.append(client.session(answer.exchange))
    TB(answer, "internal-server-error")
    assert len(sessions) == 5
    # The others live, and room that becomes free can be used.
    for session in sessions:
        upstream = stub.accept()
        session.send_next(X.message("x"))
        assert upstream.wait_bodies(1) == ["x"]
    assert sessions.pop().terminate().attr("condition") is None
    for _ in range(100):  # the record may be kept for a while for repeats of its last request
        exchange = client.new_async()
        if exchange.answer().attr("sid"):
            break
        time.sleep(0.25)
    assert exchange.answer().attr("sid"), "the room of an ended session is not used again"
    client.session(exchange)
    client.close()


def test_B_103_no_session_id_in_the_logs(client, server, stub):
    # Every file's logs are checked when its server stops; here for a session that met errors.
    session, _ = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    TB(session.send(1009, X.message("secret body")).answer(), "item-not-found")
    TB(held.answer(), "other-request")
    session.gone()
    text = "".join(server.log_lines())
    assert session.sid not in text and "secret body" not in text
    assert text, "nothing was logged at all"


def test_two_clients_at_once(client, stub):
    one, up_one = client.start(stub)
    two, up_two = client.start(stub, rid=5000)
    one.send_next(X.message("1"))
    two.send_next(X.message("2"))
    assert up_one.wait_bodies(1) == ["1"] and up_two.wait_bodies(1) == ["2"]
    up_one.send_message("for one")
    up_two.send_message("for two")
    assert one.texts(1) == ["for one"] and two.texts(1) == ["for two"]
