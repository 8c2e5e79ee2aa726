# SPDX-License-Identifier: Apache-2.0
"""What servers do that not every client of theirs expects: keep-alives, headers, features, idle streams."""

import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, Httpd, wait_for
from client import BIND_IQ, T, auth
from stub import BIND_FEATURE, MECHANISMS

QUIET = 1  # keepalive= of quiet.example, in seconds


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(children=2, upstreams=[stub_server.upstream(),
                                        stub_server.upstream("quiet.example", f"tls=off keepalive={QUIET}"),
                                        stub_server.upstream("never.example", "tls=off keepalive=0")])


def spaces(upstream):
    """The times of keep-alives."""
    with upstream.stub.changed:
        return [at for at, data in upstream.chunks_in if data == b" "]


# ---- keep-alives ----

@pytest.mark.rows("U-035")
def test_a_quiet_stream_is_kept_alive(client, stub):
    quiet, upstream = client.login(stub, to="quiet.example")
    never, other = client.login(stub, to="never.example")
    upstream.wait(lambda _: len(spaces(upstream)) >= 3, 3 * QUIET + 10, "keep-alives")
    times = spaces(upstream)
    assert all(b - a >= QUIET - 0.1 for a, b in zip(times, times[1:])), times
    assert spaces(other) == []
    # Traffic of the client makes them superfluous, and they are no part of it.
    quiet.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]
    said = upstream.times[-1]
    upstream.wait(lambda _: spaces(upstream)[-1] > said, QUIET + 10, "the next one")
    assert spaces(upstream)[-1] - said >= QUIET - 0.1
    assert upstream.error is None and never.send_next().held()


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
@pytest.mark.rows("U-035")
def test_they_are_not_forgotten_at_restarts(server, client, stub):
    """Restarts follow one another faster than keep-alives: each process goes on where the last one was."""
    _, upstream = client.login(stub, to="quiet.example")
    begun = time.monotonic()
    owners = set()
    while len(spaces(upstream)) < 3 or len(owners) < 3:
        owners.add(wait_for(lambda: server.owner_of(upstream.peer_port), 10, "an owner"))
        server.graceful()
        assert time.monotonic() - begun < 60 * SLOW, f"{len(spaces(upstream))} keep-alives, {len(owners)} processes"
    assert upstream.error is None and upstream.eof is None


def test_wrong_times():
    for word in ("keepalive=", "keepalive=soon", "keepalive=-1", "keepalive=10ms", "keepalive=2h"):
        server = Httpd(name="config", directives=f"BoshUpstream example.com 127.0.0.1:5222 {word}")
        code, said = server.check_config()
        server.cleanup()
        assert code != 0 and "BoshUpstream example.com" in said and "keepalive= takes" in said, said


# ---- what is never written down ----

@pytest.mark.rows("U-051", "B-103")
def test_no_password_and_no_message_in_any_log(httpd, stub):
    server = httpd(children=1, log_level="trace8", upstreams=[stub.upstream()])
    client = server.client()
    session, upstream = client.login(stub, "alice")
    session.send_next(X.message("a word in confidence"))
    assert upstream.wait_bodies(1) == ["a word in confidence"]
    upstream.send_message("another word in confidence")
    assert session.texts(1) == ["another word in confidence"]
    session.terminate()
    client.close()
    wait_for(lambda: any("closing the stream" in line for line in server.log_lines()), 5, "debug lines are written")
    log = "".join(line for line in server.log_lines() if "[bosh:" in line)
    for secret in (auth("alice"), auth("alice").partition(">")[2].partition("<")[0], "in confidence", session.sid):
        assert secret and secret not in log


# ---- servers with habits of their own ----

@pytest.mark.rows("U-030", "U-050", "X-033", "X-034")
def test_a_server_like_openfire(client, stub):
    """It wants nothing before <stream:stream, keeps its stream id, offers zlib, leaves out namespaces, asks after
    a while whether anybody is there, and hangs up on the silent with a bare end."""
    zlib = "<compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression>"
    old_auth = "<auth xmlns='http://jabber.org/features/iq-auth'/>"
    stub.script.header_attrs = {"id": "3f6b3d1d"}
    stub.script.features = [MECHANISMS + zlib + old_auth, zlib + BIND_FEATURE]
    session, upstream = client.start(stub)
    assert bytes(upstream.received).startswith(b"<stream:stream ")
    features = session.creation.find("features", X.NS_STREAMS)
    assert [kid.tag for kid in features] == [X.tag("mechanisms", X.NS_SASL),
                                             X.tag("auth", "http://jabber.org/features/iq-auth")]
    session.until("success", X.NS_SASL, session.send_next("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' "
                                                          "mechanism='ANONYMOUS'/>"))
    features = session.until("features", X.NS_STREAMS, session.restart())
    assert [kid.tag for kid in features] == [X.tag("bind", X.NS_BIND)]
    second = bytes(upstream.received).rindex(b"<stream:stream ")
    assert bytes(upstream.received)[:second].endswith(b">"), "a declaration or white space before the second header"
    session.until("iq", exchange=session.send_next(BIND_IQ))
    # Stanzas that inherit everything from the header.
    waiting = session.send_next()
    upstream.send("<iq type='get' id='ping-1' from='example.com'><ping xmlns='urn:xmpp:ping'/></iq>"
                  "<message from='bob@example.com' type='chat'><body>x</body></message>")
    answer = waiting.answer()
    assert [kid.tag for kid in answer.kids] == [X.tag("iq"), X.tag("message")] and answer.texts() == ["x"]
    pong = "<iq xmlns='jabber:client' type='result' id='ping-1' to='example.com'/>"
    waiting = session.send_next(pong)
    upstream.wait(lambda s: any(e.get("id") == "ping-1" for e in s.stanzas), 10, "the answer to its ping")
    X.assert_same(next(e for e in upstream.stanzas if e.get("id") == "ping-1"), X.parse(pong))
    upstream.end_stream()
    T(waiting.answer())
    session.over = True
    upstream.wait_end()
    upstream.wait_closed()
    assert upstream.error is None
