# SPDX-License-Identifier: Apache-2.0
"""TLS to the XMPP server: checklist section 19, as far as it is about TLS. What restarts mean to it: test_945_linger.py."""

import re
import ssl
import threading
import time

import pytest
import xmltool as X
from bosh_env import SLOW, Httpd, wait_for
from certs import Authority, context, srv_name, xmpp_addr
from client import TB, auth, new_body
from prosody import Prosody
from stub import MECHANISMS, PROCEED, STARTTLS, STARTTLS_REQUIRED, TLS_FAILURE, stream_error
from test_950_real_prosody import available, plain_login, scram_login

MODES = ["starttls", "direct"]
REMOTE = "remote-connection-failed"


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def good(ca):
    """The server's context with the right certificate for most domains of these tests."""
    domains = [f"{d}.example" for d in (*MODES, "optional", "off", "mine", "short", "remote")]
    return context(ca.issue("some server", [f"DNS:{d}" for d in domains]))


@pytest.fixture(scope="module")
def server(httpd, stub_server, ca):
    """A domain for each policy. One child, so that there is one cache of sessions."""
    at, trust = stub_server.address, f"ca={ca.pem}"
    mine = ca.issue("mod_bosh", usage="clientAuth")
    return httpd(children=1, threads=48, directives="BoshMaxStanza 400K\nBoshQueueSize 600K\n", upstreams=[
        f"starttls.example {at} tls=starttls {trust}", f"direct.example {at} tls=direct {trust}",
        f"optional.example {at} tls=optional {trust}", f"off.example {at} tls=off",
        f"any-starttls.example {at} tls=starttls verify=off", f"any-direct.example {at} tls=direct verify=off",
        f"mine.example {at} tls=direct {trust} cert={mine.cert} key={mine.key}",
        f"short.example {at} tls=direct timeout=2s {trust}", f"short-starttls.example {at} tls=starttls timeout=2s {trust}",
        f"a.wild-starttls.example {at} tls=starttls {trust}", f"a.wild-direct.example {at} tls=direct {trust}",
        f"a.b.wild-starttls.example {at} tls=starttls {trust}", f"a.b.wild-direct.example {at} tls=direct {trust}",
        f"system.example {at} tls=direct",
        # This host, but not by one of the names that are taken for it.
        f"remote.example {at.replace('127.0.0.1', '0x7f000001')} {trust}"])


def speak(stub, mode, with_context):
    stub.script.tls, stub.script.tls_context = mode, with_context


def domain(mode):
    return f"{mode}.example"


def refused(server, client, stub, to, reason, secured=False):
    """A session that brings its password along: it is told remote-connection-failed, and nothing of it has left."""
    before = len(server.log_lines())
    server.expect_log(r"BH201: no stream to the XMPP server")
    exchange = client.new_async(auth("alice", "sesame"), to=to, wait=20)
    upstream = stub.accept()
    answer = exchange.answer()
    if answer.attr("type") is None:
        answer = client.session(exchange).next()
    TB(answer, REMOTE)
    if not upstream.closed_by_us:
        upstream.wait_closed()
    assert b"<auth" not in upstream.received and b"sesame" not in upstream.received
    assert (upstream.shaken is not None) == secured

    def told():
        return [line for line in server.log_lines()[before:] if to in line and re.search(reason, line)]
    wait_for(told, 5, f"the reason in the log: {reason}")
    return upstream


def chat(session, upstream):
    session.send_next(X.message("down"))
    assert upstream.wait_bodies(1) == ["down"]
    upstream.send_message("up")
    assert session.texts(1) == ["up"]


# ---- what the server gets to see ----

@pytest.mark.valgrind
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.rows("U-021", "U-022", "U-023", "U-030", "U-031", "U-040", "U-046", "B-365")
def test_login_with_tls(server, client, stub, good, mode):
    speak(stub, mode, good)
    session, upstream = client.login(stub, "alice", to=domain(mode))
    assert upstream.sni == domain(mode)
    assert upstream.tls.selected_alpn_protocol() == ("xmpp-client" if mode == "direct" else None)
    assert upstream.tls.version() in ("TLSv1.2", "TLSv1.3")
    assert len(upstream.headers) == (3 if mode == "starttls" else 2)
    for header in upstream.headers:
        attrs = header["attrs"]
        assert "from" not in attrs and attrs["to"] == domain(mode) and attrs["version"] == "1.0"
        assert header["lang"] == "en" and header["tag"] == X.tag("stream", X.NS_STREAMS)
        assert header["declared"] == {"": X.NS_CLIENT, "stream": X.NS_STREAMS}
    assert upstream.secured == (1 if mode == "starttls" else 0)
    chat(session, upstream)
    session.terminate()


@pytest.mark.rows("U-041")
def test_what_was_said_before_tls_is_thrown_away(client, stub, good):
    speak(stub, "starttls", good)
    stub.script.tls_features = STARTTLS + "<old xmlns='urn:example:old'/>" + MECHANISMS.replace("PLAIN", "OLD")
    stub.script.features = ["<new xmlns='urn:example:new'/>"]
    session = client.new(to="starttls.example")
    answer = session.creation
    upstream = stub.accept()
    while answer.find("features", X.NS_STREAMS) is None:
        answer = session.next()
    X.assert_same(answer.find("features", X.NS_STREAMS),
                  f"<features xmlns='{X.NS_STREAMS}'><new xmlns='urn:example:new'/></features>")
    assert answer.attr("authid") == f"stub-{upstream.number}-2"
    assert b"urn:example:old" not in session.creation.body
    upstream.send_message("next")
    assert session.texts(1) == ["next"]


@pytest.mark.rows("U-024")
@pytest.mark.parametrize("offer", [STARTTLS, STARTTLS_REQUIRED])
@pytest.mark.parametrize("mode", MODES)
def test_an_offer_of_more_tls_is_passed_over_and_hidden(client, stub, good, mode, offer):
    speak(stub, mode, good)
    stub.script.features = [offer + MECHANISMS, offer + "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"]
    session, upstream = client.login(stub, to=domain(mode))
    assert not any(b"<starttls" in x.result.body for x in session.exchanges if x.result)
    assert b"<starttls" not in session.creation.body
    assert upstream.received.count(b"<starttls") == (1 if mode == "starttls" else 0)
    chat(session, upstream)


@pytest.mark.rows("U-033")
@pytest.mark.parametrize("mode", MODES)
def test_end_then_close_notify_then_tcp(client, stub, good, mode):
    speak(stub, mode, good)
    session, upstream = client.start(stub, to=domain(mode))
    session.terminate()
    upstream.wait_closed()
    kinds = [kind for kind, _ in upstream.seen if kind in ("end", "close_notify", "eof", "reset")]
    assert kinds == ["end", "close_notify", "eof"], kinds


@pytest.mark.rows("U-032")
@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_header_inside_tls(server, client, stub, good, mode):
    speak(stub, mode, good)
    stub.script.header = lambda s: s.tls is None and f"<stream:stream xmlns='jabber:client' version='1.0' id='x' " \
        f"xmlns:stream='{X.NS_STREAMS}'>" or "<stream:stream xmlns:stream='urn:wrong' version='1.0' id='x'>"
    refused(server, client, stub, domain(mode), "no stream of etherx", secured=True)


@pytest.mark.rows("U-034")
def test_a_stream_error_inside_tls(client, stub, good):
    speak(stub, "direct", good)
    session, upstream = client.start(stub, to="direct.example")
    held = session.send_next().held()
    upstream.send(stream_error("policy-violation") + X.message("too late"))
    answer = TB(held.answer(), "remote-stream-error")
    assert answer.texts() == []
    upstream.wait_end()
    session.over = True


# ---- certificates ----

def names(mode):
    """What may stand in a good certificate: (domain asked for, names)."""
    return {"dnsname": (domain(mode), [f"DNS:{domain(mode)}"]),
            "one of many": (domain(mode), ["DNS:a.example", f"DNS:{domain(mode)}", "DNS:z.example"]),
            "upper case": (domain(mode), [f"DNS:{domain(mode).upper()}"]),
            "wildcard": (f"a.wild-{mode}.example", [f"DNS:*.wild-{mode}.example"]),
            "srvname": (domain(mode), [srv_name(domain(mode))]),
            "xmppaddr": (domain(mode), [xmpp_addr(domain(mode))])}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", list(names("direct")))
@pytest.mark.rows("U-025", "U-043")
def test_good_names(client, stub, ca, mode, kind):
    to, sans = names(mode)[kind]
    speak(stub, mode, context(ca.issue("x", sans)))
    session, upstream = client.start(stub, to=to)
    chat(session, upstream)
    session.terminate()


def self_signed(_ca, mode):
    return Authority(domain(mode)), []


def bad_certificates(mode):
    """(domain asked for, how issue() is called, what the log says)."""
    d = domain(mode)
    return {
        "expired": (d, dict(names=[f"DNS:{d}"], days=-1), "certificate has expired"),
        "another name": (d, dict(names=["DNS:other.example"]), "not for .* but for other.example"),
        "the target's name": (d, dict(names=["DNS:xmpp.hosting.example", "IP:127.0.0.1"]), "not for .* but for xmpp.hosting"),
        "only the common name": (d, dict(common_name=d), "not for .* but for no name at all"),
        "a subdomain": (d, dict(names=[f"DNS:www.{d}"]), "not for"),
        "wildcard, one label too many": (f"a.b.wild-{mode}.example", dict(names=[f"DNS:*.wild-{mode}.example"]), "not for"),
        "wildcard, not left-most": (f"a.b.wild-{mode}.example", dict(names=[f"DNS:a.*.wild-{mode}.example"]), "not for"),
        "wildcard, a part of a label": (f"a.wild-{mode}.example", dict(names=[f"DNS:a*.wild-{mode}.example"]), "not for"),
        "a wildcard for the domain itself": (d, dict(names=["DNS:*.example"], common_name=d), "not for"),
        "srvname of another service": (d, dict(names=[srv_name(d, "_xmpp-server")]), "not for"),
        "srvname of another domain": (d, dict(names=[srv_name("other.example")]), "not for"),
        "not for servers": (d, dict(names=[f"DNS:{d}"], usage="clientAuth"), "certificate is refused"),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", list(bad_certificates("direct")))
@pytest.mark.rows("U-025", "U-043")
def test_bad_certificates(server, client, stub, ca, mode, kind):
    to, how, reason = bad_certificates(mode)[kind]
    speak(stub, mode, context(ca.issue(**{"common_name": "x", **how})))
    refused(server, client, stub, to, reason)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.rows("U-025", "U-043")
def test_an_unknown_authority(server, client, stub, mode):
    other = Authority("Test Authority")  # the same name, another key
    try:
        speak(stub, mode, context(other.issue("x", [f"DNS:{domain(mode)}"])))
        refused(server, client, stub, domain(mode), "certificate is refused")
        speak(stub, "direct", context(other.issue("x", ["DNS:system.example"])))
        refused(server, client, stub, "system.example", "certificate is refused")
    finally:
        other.remove()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.rows("U-025", "U-043")
def test_self_signed(server, client, stub, tmp_path, mode):
    from bosh_env import make_certificate
    from certs import Pair
    speak(stub, mode, context(Pair(*make_certificate(tmp_path))))
    refused(server, client, stub, domain(mode), "certificate is refused: self-signed")


@pytest.mark.rows("U-043")
def test_the_domain_asked_for_counts_where_clients_choose_the_server(httpd, stub, stub_server, ca):
    """BoshRoute: another line's server, the same name to be proven, and no session of that line is resumed."""
    port = stub_server.port
    server = httpd(children=1, directives="BoshRoute On\n", upstreams=[
        f"a.example 127.0.0.1:{port} tls=direct ca={ca.pem}", f"b.example localhost:{port} tls=direct ca={ca.pem}"])
    client = server.client()
    route = f"xmpp:localhost:{port}"
    speak(stub, "direct", context(ca.issue("x", ["DNS:b.example"])))
    session, upstream = client.start(stub, to="b.example")
    chat(session, upstream)
    server.expect_log("BH201.* not for a.example but for b.example")
    exchange = client.new_async(to="a.example", route=route)
    TB(exchange.answer(), REMOTE)
    assert stub.accept().sni == "a.example"
    speak(stub, "direct", context(ca.issue("x", ["DNS:a.example"])))
    session, upstream = client.start(stub, to="a.example", route=route)
    assert upstream.sni == "a.example" and not upstream.tls.session_reused
    chat(session, upstream)
    client.close()


@pytest.mark.parametrize("mode", MODES)
def test_verify_off_takes_any(client, stub, ca, mode):
    speak(stub, mode, context(ca.issue("x", ["DNS:other.example"], days=-1)))
    session, upstream = client.start(stub, to=f"any-{mode}.example")
    chat(session, upstream)


# ---- STARTTLS ----

@pytest.mark.rows("U-041")
@pytest.mark.parametrize("apart", [False, True])
def test_bytes_in_the_clear_behind_proceed(server, client, stub, good, apart):
    speak(stub, "starttls", good)
    injected = "<iq xmlns='jabber:client' type='set' id='evil'><query xmlns='urn:example:evil'/></iq>"

    def on_stanza(upstream, elem):
        if elem.tag == X.tag("starttls", X.NS_TLS):
            upstream.send(PROCEED + ("" if apart else injected))
            if apart:
                upstream.send(injected)
            return True
        return False
    stub.script.on_stanza = on_stanza
    refused(server, client, stub, "starttls.example", "behind <proceed/>|TLS failed: ")


@pytest.mark.rows("U-042")
def test_starttls_is_refused(server, client, stub, good):
    speak(stub, "starttls", good)
    stub.script.proceed = TLS_FAILURE
    upstream = refused(server, client, stub, "starttls.example", "refuses STARTTLS")
    assert upstream.ended


@pytest.mark.rows("U-044", "B-365")
@pytest.mark.parametrize("to", ["starttls.example", "remote.example"], ids=["written", "default of another host"])
def test_required_and_not_offered(server, client, stub, to):
    upstream = refused(server, client, stub, to, "does not offer STARTTLS")
    assert upstream.ended and len(upstream.headers) == 1


@pytest.mark.rows("U-044")
@pytest.mark.parametrize("offered", [True, False])
def test_optional(client, stub, good, offered):
    if offered:
        speak(stub, "starttls", good)
    session, upstream = client.login(stub, to="optional.example")
    assert (upstream.tls is not None) == offered
    assert len(upstream.headers) == (3 if offered else 2)
    chat(session, upstream)


@pytest.mark.rows("U-044")
def test_optional_does_not_mean_unverified(server, client, stub, ca):
    speak(stub, "starttls", context(ca.issue("x", ["DNS:other.example"])))
    refused(server, client, stub, "optional.example", "not for optional.example")


@pytest.mark.rows("U-045")
def test_off_and_the_server_requires_it(server, client, stub):
    stub.script.features = [STARTTLS_REQUIRED + MECHANISMS]
    refused(server, client, stub, "off.example", "requires STARTTLS")


@pytest.mark.rows("U-045")
def test_off_and_the_server_offers_it(client, stub):
    stub.script.features[0] = STARTTLS + MECHANISMS
    session, upstream = client.login(stub, to="off.example")
    assert upstream.tls is None and b"<starttls" not in session.creation.body
    chat(session, upstream)


@pytest.mark.parametrize("what", [stream_error("host-unknown") + "</stream:stream>", "</stream:stream>", X.message("x"),
                                  "<stream:features/>", "<!-- no -->", TLS_FAILURE, "&nonsense;", "FIN"])
def test_something_else_instead_of_proceed(server, client, stub, good, what):
    speak(stub, "starttls", good)

    def on_stanza(upstream, elem):
        if elem.tag == X.tag("starttls", X.NS_TLS):
            if what == "FIN":
                upstream.close()
            else:
                upstream.send(what)
            return True
        return False
    stub.script.on_stanza = on_stanza
    refused(server, client, stub, "starttls.example", "starttls")


def test_the_server_talks_without_end_before_tls(server, client, stub):
    stub.script.auto = False
    server.expect_log("BH201")
    exchange = client.new_async(to="short-starttls.example")
    upstream = stub.accept()
    upstream.wait_header()
    try:
        upstream.send(upstream.header())
        for _ in range(40):
            upstream.send(" " * 4096)
    except OSError:
        pass  # it has hung up
    TB(exchange.answer(), REMOTE)
    upstream.wait_closed()


# ---- handshakes ----

@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.rows("U-046")
@pytest.mark.parametrize("mode", MODES)
def test_a_server_with_tls_1_1_only(server, client, stub, ca, mode):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    old.load_cert_chain(*ca.issue("x", [f"DNS:{domain(mode)}"]))
    speak(stub, mode, old)
    refused(server, client, stub, domain(mode), "TLS failed: .*(protocol|version)")


@pytest.mark.rows("U-046")
@pytest.mark.parametrize("mode", MODES)
def test_tls_1_2(client, stub, ca, mode):
    speak(stub, mode, context(ca.issue("x", [f"DNS:{domain(mode)}"]), maximum_version=ssl.TLSVersion.TLSv1_2))
    session, upstream = client.start(stub, to=domain(mode))
    assert upstream.tls.version() == "TLSv1.2"
    chat(session, upstream)


def test_direct_tls_to_a_port_that_speaks_plain(server, client, stub):
    stub.script.auto = False
    server.expect_log("BH201")
    exchange = client.new_async(to="direct.example")
    upstream = stub.accept()
    upstream.wait(lambda s: s.received, 5, "a ClientHello")
    upstream.send("<?xml version='1.0'?><stream:error/>")
    TB(exchange.answer(), REMOTE)
    upstream.wait_closed()


@pytest.mark.rows("U-012")
@pytest.mark.parametrize("silent_after", ["connect", "header", "features", "proceed"])
def test_a_handshake_that_never_ends(server, client, stub, good, silent_after):
    """Only its own session waits for it, and that one not for ever."""
    speak(stub, "starttls", good)
    other, other_upstream = client.login(stub, to="starttls.example")
    stub.script = type(stub.script)()
    stub.script.auto = False
    to = "short.example" if silent_after == "connect" else "short-starttls.example"
    server.expect_log("BH201.*in time|BH201")
    start = time.monotonic()
    exchange = client.new_async(to=to, wait=30)
    upstream = stub.accept()
    if silent_after != "connect":
        upstream.wait_header()
    if silent_after in ("features", "proceed"):
        upstream.send_header()
        upstream.send_features(STARTTLS)
        upstream.wait_stanza("starttls", ns=X.NS_TLS)
    if silent_after == "proceed":
        upstream.send(PROCEED)
    for i in range(3):
        other.send_next(X.message(f"{i}"))
        assert other_upstream.wait_bodies(i + 1)[-1] == f"{i}"
    answer = exchange.answer()
    TB(answer, REMOTE)
    assert answer.time - start > 1.5
    upstream.wait_closed()
    assert re.search(r"BH201: no stream .* in time|in time", "".join(server.log_lines()))


@pytest.mark.rows("U-048")
def test_our_own_certificate(client, stub, ca, good):
    asks = context(ca.issue("x", ["DNS:mine.example"]), verify_mode=ssl.CERT_REQUIRED)
    asks.load_verify_locations(ca.pem)
    speak(stub, "direct", asks)
    session, upstream = client.login(stub, to="mine.example")
    subject = dict(pair for part in upstream.tls.getpeercert()["subject"] for pair in part)
    assert subject["commonName"] == "mod_bosh"
    chat(session, upstream)


@pytest.mark.rows("U-048")
def test_no_certificate_of_our_own(server, client, stub, ca):
    asks = context(ca.issue("x", ["DNS:direct.example"]), verify_mode=ssl.CERT_REQUIRED,
                   maximum_version=ssl.TLSVersion.TLSv1_2)
    asks.load_verify_locations(ca.pem)
    speak(stub, "direct", asks)
    refused(server, client, stub, "direct.example", "TLS failed: .*alert")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("mode", MODES)
def test_sessions_are_resumed(server, client, stub, ca, mode, version):
    speak(stub, mode, context(ca.issue("x", [f"DNS:{domain(mode)}"]), maximum_version=version, minimum_version=version))
    reused = []
    for _ in range(4):
        session, upstream = client.start(stub, to=domain(mode))
        chat(session, upstream)
        reused.append(upstream.tls.session_reused)
        session.terminate()
        upstream.wait_closed()
    assert reused == [False, True, True, True]


@pytest.mark.parametrize("mode", MODES)
def test_a_session_that_the_server_has_forgotten(client, stub, ca, mode):
    pair = ca.issue("x", [f"DNS:{domain(mode)}"])
    for _ in range(2):  # a new context: new keys
        speak(stub, mode, context(pair))
        session, upstream = client.start(stub, to=domain(mode))
        chat(session, upstream)
        assert not upstream.tls.session_reused
        session.terminate()


# ---- bytes ----

@pytest.mark.parametrize("mode", MODES)
def test_large_stanzas_both_ways(client, stub, good, mode):
    speak(stub, mode, good)
    session, upstream = client.login(stub, to=domain(mode))
    text = "".join(f"{i:07d} " for i in range(32768))  # 256 KiB
    session.send_next(X.message(text))
    assert upstream.wait_bodies(1, 15) == [text]
    for part in (text, "small"):
        upstream.send_message(part)
    assert session.texts(2) == [text, "small"]


def test_bytes_one_by_one(client, stub, good):
    speak(stub, "direct", good)
    session, upstream = client.start(stub, to="direct.example")
    upstream.send_slowly(X.message("one by one", to="a@b"))
    assert session.texts(1) == ["one by one"]


def test_a_server_that_reads_slowly(client, stub, good):
    """What the socket does not take is offered again as TLS wants it, and the stream goes on in between."""
    speak(stub, "direct", good)
    session, upstream = client.login(stub, to="direct.example")
    upstream.read_no_more()
    texts = [f"{i} " + "x" * 100000 for i in range(60)]  # more than the sockets hold
    waiting = []
    for text in texts:
        waiting.append(session.send_next(X.message(text)))
        if len(waiting) > 1 and not waiting[-2].event.wait(3 * SLOW):
            break  # nothing is taken from us any more: there is back-pressure
    assert len(waiting) < len(texts), "no back-pressure"
    upstream.send_message("meanwhile")
    upstream.read_on()
    n = len(waiting)
    assert upstream.wait_bodies(n, 20) == texts[:n]
    got = [t for x in waiting for t in x.answer(15).texts()]
    while "meanwhile" not in got:
        got += session.next().texts()
    chat(session, upstream_tail(upstream, n))


class upstream_tail:
    """A stub's session without its first n messages."""

    def __init__(self, upstream, n):
        self.upstream, self.n = upstream, n

    def wait_bodies(self, n):
        return self.upstream.wait_bodies(self.n + n)[self.n:]

    def send_message(self, text):
        self.upstream.send_message(text)


def test_a_client_that_reads_slowly(client, stub, good):
    speak(stub, "direct", good)
    session, upstream = client.login(stub, to="direct.example")
    texts = [f"{i} " + "y" * 10000 for i in range(300)]

    def flood():
        for text in texts:
            upstream.send_message(text)
    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    assert session.texts(len(texts), 40) == texts
    thread.join(10)
    assert not thread.is_alive()


def test_a_stream_that_breaks(client, stub, good):
    speak(stub, "direct", good)
    for end in ("close", "rst"):
        session, upstream = client.login(stub, to="direct.example")
        held = session.send_next().held()
        upstream.send_message("last words")
        assert held.answer().texts() == ["last words"]
        held = session.send_next().held()
        getattr(upstream, end)()
        TB(held.answer(), REMOTE)
        session.over = True


# ---- a real server ----

@pytest.fixture(scope="module")
def secure_prosody(ca):
    made = Prosody(pair=ca.issue("x", [f"DNS:{Prosody.HOST}", f"DNS:{Prosody.ANON_HOST}"]))
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.rows("U-040", "U-021")
def test_prosody(httpd, secure_prosody, ca, mode):
    port = secure_prosody.tls_port if mode == "direct" else secure_prosody.port
    server = httpd(children=2, upstreams=[f"{Prosody.HOST} 127.0.0.1:{port} tls={mode} ca={ca.pem}"])
    client = server.client()
    alice, bob = scram_login(client, "alice"), plain_login(client, "bob")
    available(alice)
    held = alice.send_next().held()
    bob.send_next(X.message("hello alice", to=alice.jid))
    assert held.answer().texts() == ["hello alice"]
    for _ in range(4):
        plain_login(client, "bob").terminate()
    client.close()


@pytest.mark.rows("U-043")
def test_prosody_with_a_certificate_that_is_not_trusted(httpd, secure_prosody):
    server = httpd(children=1, upstreams=[f"{Prosody.HOST} 127.0.0.1:{secure_prosody.port} tls=starttls"])
    server.expect_log("BH201.*certificate is refused")
    client = server.client()
    TB(client.new_async(to=Prosody.HOST).answer(), REMOTE)
    client.close()


# ---- configuration ----

def checked(line):
    server = Httpd(name="config", directives=f"BoshUpstream example.com {line}")
    try:
        return server.check_config()
    finally:
        server.cleanup()


def test_wrong_options(ca, tmp_path):
    pair, other = ca.issue("x"), ca.issue("y")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate\n")
    locked = tmp_path / "locked.key"
    from certs import openssl
    openssl("pkey", "-in", pair.key, "-aes128", "-passout", "pass:secret", "-out", locked)
    far, here = "192.0.2.1:5222", "127.0.0.1:5222"
    for line, expected in (
            (f"{far} tls=maybe", "starttls, direct, optional and off"), (f"{far} tls=", "starttls, direct"),
            (f"{far} ca=/nonexistent.pem", "/nonexistent.pem"), (f"{far} ca={garbage}", str(garbage)),
            (f"{far} ca=", "ca="), (f"{far} cert=/nonexistent.pem", "/nonexistent.pem"),
            (f"{far} cert={garbage}", str(garbage)), (f"{far} cert={pair.cert}", "key="),
            (f"{far} cert={pair.cert} key={garbage}", str(garbage)), (f"{far} cert={pair.cert} key={other.key}", "fits"),
            (f"{far} cert={pair.cert} key={locked}", "passphrase"), (f"{far} key={pair.key}", "cert="),
            (f"{far} verify=maybe", "unknown word"), (f"{far} verify=off ca={ca.pem}", "leave one"),
            (f"{far} tls=off ca={ca.pem}", "without TLS"), (f"{far} tls=off verify=off", "without TLS"),
            (f"{here} ca={ca.pem}", "tls=starttls"), (f"{here} verify=off", "for this host")):
        code, said = checked(line)
        assert code != 0 and "BoshUpstream example.com" in said and expected in said, (line, said)
        assert "Syntax error on line" in said and len(said.strip().splitlines()) <= 4, said


def test_right_options(ca):
    pair = ca.issue("x")
    both = ca.dir / "both.pem"
    both.write_text(pair.cert.read_text() + pair.key.read_text())
    for line in ("192.0.2.1:5222", "192.0.2.1:5223 tls=direct", "192.0.2.1:5222 tls=optional verify=off",
                 f"127.0.0.1:5222 tls=starttls ca={ca.pem}", "unix:/tmp/xmpp.sock tls=direct",
                 f"192.0.2.1:5222 ca={ca.dir} cert={both}", f"192.0.2.1:5222 cert={pair.cert} key={pair.key}",
                 "192.0.2.1:5222 TLS=Direct verify=on"):
        code, said = checked(line)
        assert code == 0 and "Syntax OK" in said, (line, said)


def test_each_option_keeps_to_its_line(client, stub, ca):
    """The same server, trusted by one domain's line and not by another's."""
    speak(stub, "direct", context(ca.issue("x", ["DNS:direct.example"])))
    session, upstream = client.start(stub, to="direct.example")
    chat(session, upstream)
    assert new_body(to="direct.example")
