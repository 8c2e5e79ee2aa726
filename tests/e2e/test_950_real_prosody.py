# SPDX-License-Identifier: Apache-2.0
"""Against a real XMPP server: Prosody 0.12."""

import pytest
import xmltool as X
from client import BIND_IQ, T, auth
from prosody import Prosody, Scram

HOST = Prosody.HOST
NS_ROSTER = "jabber:iq:roster"
NS_MUC = "http://jabber.org/protocol/muc"


@pytest.fixture(scope="module")
def server(httpd, prosody):
    return httpd(upstreams=prosody.upstreams())


@pytest.fixture
def client(server):
    made = server.client()
    yield made
    made.close()


def scram_login(client, name):
    session = client.new(to=HOST)
    scram = Scram(name, Prosody.PASSWORDS[name])
    first = f"<auth xmlns='{X.NS_SASL}' mechanism='SCRAM-SHA-1'>{scram.first()}</auth>"
    challenge = session.until("challenge", X.NS_SASL, session.send_next(first))
    final = f"<response xmlns='{X.NS_SASL}'>{scram.final(challenge.text)}</response>"
    success = session.until("success", X.NS_SASL, session.send_next(final))
    assert scram.verify(success.text)
    bind(session)
    return session


def plain_login(client, name):
    session = client.new(to=HOST)
    session.until("success", X.NS_SASL, session.send_next(auth(name, Prosody.PASSWORDS[name])))
    bind(session)
    return session


def bind(session):
    features = session.until("features", X.NS_STREAMS, session.restart())
    assert features.find(X.tag("bind", X.NS_BIND)) is not None
    result = session.until("iq", exchange=session.send_next(BIND_IQ))
    session.jid = result.find(f"{X.tag('bind', X.NS_BIND)}/{X.tag('jid', X.NS_BIND)}").text


def available(session):
    session.until("presence", exchange=session.send_next("<presence xmlns='jabber:client'/>"))


@pytest.mark.parametrize("login", [scram_login, plain_login])
def test_login_and_bind(client, login):
    session = login(client, "alice")
    assert session.jid.startswith("alice@localhost/")
    T(session.terminate("<presence xmlns='jabber:client' type='unavailable'/>"))


@pytest.mark.valgrind
def test_login_hold_message_and_end(client):
    alice = scram_login(client, "alice")
    available(alice)
    held = alice.send_next().held()
    bob = plain_login(client, "bob")
    bob.send_next(X.message("hello alice", to=alice.jid))
    assert held.answer().texts() == ["hello alice"]
    T(alice.terminate())


def test_wrong_password(client):
    session = client.new(to=HOST)
    failure = session.until("failure", X.NS_SASL, session.send_next(auth("alice", "wrong")))
    assert failure.find(X.tag("not-authorized", X.NS_SASL)) is not None
    session.until("success", X.NS_SASL, session.send_next(auth("alice", Prosody.PASSWORDS["alice"])))


def test_roster_and_presence(client):
    alice, bob = scram_login(client, "alice"), scram_login(client, "bob")
    available(alice)
    available(bob)
    get = f"<iq xmlns='jabber:client' type='get' id='r1'><query xmlns='{NS_ROSTER}'/></iq>"
    result = alice.until("iq", exchange=alice.send_next(get))
    assert result.get("type") == "result" and result.get("id") == "r1"
    # A subscription both ways, answered by the other side.
    alice.send_next("<presence xmlns='jabber:client' type='subscribe' to='bob@localhost'/>")
    asked = bob.until("presence")
    assert asked.get("type") == "subscribe" and asked.get("from") == "alice@localhost"
    held = alice.send_next()
    bob.send_next("<presence xmlns='jabber:client' type='subscribed' to='alice@localhost'/>")
    for _ in range(8):
        presence = alice.until("presence", exchange=held)
        held = None
        if presence.get("type") is None and presence.get("from", "").startswith("bob@localhost/"):
            break
    else:
        raise AssertionError("bob's presence did not come")
    alice.send_next("<iq xmlns='jabber:client' type='set' id='r2'>"
                    f"<query xmlns='{NS_ROSTER}'><item jid='bob@localhost' subscription='remove'/></query></iq>")


def test_messages_both_ways(client):
    alice, bob = scram_login(client, "alice"), scram_login(client, "bob")
    for session in (alice, bob):
        available(session)
    for i in range(20):
        a, b = (alice, bob) if i % 2 else (bob, alice)
        waiting = b.send_next()
        a.send_next(X.message(f"message {i}", to=b.jid))
        got = b.until("message", exchange=waiting)
        assert X.text_of(got, "body") == f"message {i}" and got.get("from") == a.jid


@pytest.mark.parametrize("text", ["\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d <&>\"'",
                                  "x" * 40000, "\U0001f600" * 10000, "line 1\nline 2\ttab"],
                         ids=["emoji", "40kB", "40kB of emoji", "lines"])
def test_contents(client, text):
    alice, bob = scram_login(client, "alice"), scram_login(client, "bob")
    available(bob)
    waiting = bob.send_next()
    alice.send_next(X.message(text, to=bob.jid))
    got = bob.until("message", exchange=waiting)
    assert X.text_of(got, "body") == text


def test_a_burst_in_order(client):
    alice, bob = scram_login(client, "alice"), scram_login(client, "bob")
    available(bob)
    waiting = bob.send_next()
    alice.send_next("".join(X.message(f"{i}", to=bob.jid) for i in range(100)))
    texts = waiting.answer().texts()
    while len(texts) < 100:
        texts += bob.next().texts()
    assert texts == [str(i) for i in range(100)]


def test_anonymous(client):
    session = client.new(to=Prosody.ANON_HOST)
    session.authenticate()
    assert session.jid.endswith("@anon.localhost/" + session.jid.rpartition("/")[2])
    other = client.new(to=Prosody.ANON_HOST)
    other.authenticate()
    available(other)
    waiting = other.send_next()
    session.send_next(X.message("hi", to=other.jid))
    assert other.until("message", exchange=waiting).get("from") == session.jid


def test_a_room(client):
    alice, bob = scram_login(client, "alice"), scram_login(client, "bob")
    room = f"tea@{Prosody.ROOMS}"
    for session, nick in ((alice, "Alice"), (bob, "Bob")):
        join = f"<presence xmlns='jabber:client' to='{room}/{nick}'><x xmlns='{NS_MUC}'/></presence>"
        session.until("presence", exchange=session.send_next(join))
        # A new room is locked until its owner accepts the defaults.
        if nick == "Alice":
            session.until("iq", exchange=session.send_next(
                f"<iq xmlns='jabber:client' type='set' id='c1' to='{room}'><query xmlns='{NS_MUC}#owner'>"
                "<x xmlns='jabber:x:data' type='submit'/></query></iq>"))
    bob.send_next(f"<message xmlns='jabber:client' type='groupchat' to='{room}'><body>hi all</body></message>")
    for _ in range(6):
        got = alice.until("message")
        if X.text_of(got, "body") == "hi all":
            break
    assert got.get("from") == f"{room}/Bob" and X.text_of(got, "body") == "hi all"
    for session in (alice, bob):
        session.terminate(f"<presence xmlns='jabber:client' type='unavailable' to='{room}/x'/>")


def test_conflict_is_a_stream_error(client):
    """The same resource twice: the server ends the older stream with an error, which reaches its client."""
    bind_same = BIND_IQ.replace(f"<bind xmlns='{X.NS_BIND}'/>",
                                f"<bind xmlns='{X.NS_BIND}'><resource>same</resource></bind>")
    sessions = []
    for _ in range(2):
        session = client.new(to=HOST)
        session.until("success", X.NS_SASL, session.send_next(auth("alice", Prosody.PASSWORDS["alice"])))
        session.until("features", X.NS_STREAMS, session.restart())
        result = session.until("iq", exchange=session.send_next(bind_same))
        session.jid = result.find(f"{X.tag('bind', X.NS_BIND)}/{X.tag('jid', X.NS_BIND)}").text
        sessions.append(session)
    if sessions[0].jid == sessions[1].jid:
        answer = sessions[0].next()
        assert answer.attr("condition") == "remote-stream-error", answer
        error = answer.find("error", X.NS_STREAMS)
        assert error.find(X.tag("conflict", X.NS_STREAM_ERRORS)) is not None
        sessions[0].over = True
    else:  # the server chose another resource for the second
        assert not sessions[0].send_next().held().done()
