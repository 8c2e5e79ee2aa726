# SPDX-License-Identifier: Apache-2.0
"""XMPP over BOSH: checklist section 16 (XEP-0206), and the namespaces both ways."""

import random
import re

import pytest
import xmltool as X
from client import E, T, TB, auth
from stub import BIND_FEATURE, MECHANISMS, SUCCESS, StubServer, stream_error

NS = f"xmlns='{X.NS_BOSH}'"


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], directives="BoshPolling 0\n")


def to_client(client, stub, text, **attrs):
    """The one element that reaches the client when the stub sends this text, and its answer."""
    session, upstream = client.start(stub, **attrs)
    upstream.send(text)
    answer = session.next()
    assert len(answer.kids) == 1, answer
    return answer.kids[0], answer


def to_server(client, stub, payload, **attrs):
    """The one element that reaches the stub."""
    session, upstream = client.start(stub)
    session.send(1001, payload, **attrs)
    return upstream.wait_stanza()


def declared(answer, prefix):
    """The namespace a prefix has on the body's start tag."""
    start = re.match(rb"(?:<\?xml[^>]*>\s*)?<body[^>]*>", answer.body).group(0)
    found = re.search(rb"xmlns:" + prefix.encode() + rb"=['\"]([^'\"]*)['\"]", start)
    return found and found.group(1).decode()


# ---- 2: content of the body ----

@pytest.mark.parametrize("prefix", ["stream", "s", "foo"])
def test_X_001_features_with_the_prefix_stream(client, stub, prefix):
    stub.script.prefix = prefix
    session = client.new()
    answer = session.creation
    if answer.find("features", X.NS_STREAMS) is None:
        answer = session.next()
    assert declared(answer, "stream") == X.NS_STREAMS, answer
    assert b"<stream:features" in answer.body, answer
    X.assert_same(answer.find("features", X.NS_STREAMS),
                  f"<features xmlns='{X.NS_STREAMS}'>{MECHANISMS}</features>")


def test_X_001_features_in_the_default_namespace_of_streams(client, stub):
    stub.script.header = lambda s: f"<stream xmlns='{X.NS_STREAMS}' from='example.com' id='i' version='1.0'>"
    stub.script.features, stub.script.end = [None], False
    exchange = client.new_async()
    upstream = stub.accept()
    upstream.wait_header()
    upstream.send(f"<features xmlns='{X.NS_STREAMS}'>{MECHANISMS}</features>")
    answer = client.session(exchange).creation
    if answer.find("features", X.NS_STREAMS) is None:
        answer = client.sessions[-1].next()
    assert b"<stream:features" in answer.body, answer


def test_X_002_one_kind_of_content_in_a_body(client, stub):
    stub.script.sasl = None
    session, upstream = client.start(stub)
    exchange = session.send(1001, auth("alice")).held()
    # success and what follows it in one write: a body each
    upstream.send(SUCCESS + X.message("early", to="a@example.com"))
    answers = [exchange.answer(), session.next()]
    assert [[k.tag for k in a.kids] for a in answers] == [[X.tag("success", X.NS_SASL)], [X.tag("message")]]


def test_X_003_jabber_client_on_stanzas(client, stub):
    got, answer = to_client(client, stub, "<message from='a@example.com'><body>x</body></message>")
    X.assert_same(got, "<message xmlns='jabber:client' from='a@example.com'><body>x</body></message>")
    assert b"<body>x" in answer.body  # in jabber:client by inheritance and not by declarations of its own


UNCHANGED = ["<message xmlns='jabber:client'><body>x</body></message>",
             "<r xmlns='urn:xmpp:sm:3'/>",
             "<json:json xmlns:json='http://json.org/' json:a='b'>{}</json:json>",
             "<message xmlns=\"jabber:client\" a='\"'><x xmlns='urn:x'><y xmlns=''/><z/></x></message>"]


@pytest.mark.parametrize("text", UNCHANGED, ids=range(len(UNCHANGED)))
def test_X_004_payloads_with_their_own_namespace_are_untouched(client, stub, text):
    got, answer = to_client(client, stub, text)
    X.assert_same(got, text)
    assert answer.body.count(b"xmlns='jabber:client'") + answer.body.count(b'xmlns="jabber:client"') <= 1


def test_X_005_payloads_without_a_namespace_are_jabber_client(client, stub):
    got = to_server(client, stub, "<message to='b@example.com'><body>hi</body><x/></message>")
    X.assert_same(got, "<message xmlns='jabber:client' to='b@example.com'><body>hi</body><x/></message>")


def test_X_005_also_when_they_say_httpbind_themselves(client, stub):
    got = to_server(client, stub, f"<message xmlns='{X.NS_BOSH}'><body>hi</body></message>")
    assert got.tag in (X.tag("message"), X.tag("message", X.NS_BOSH))


KEPT = ["<message xmlns='jabber:client' id='1'><body>hi</body><active xmlns='urn:a'/></message>",
        "<iq xmlns='jabber:client' type='get' id='\u00e9'><q:query xmlns:q='urn:q' q:x='&amp;&lt;' y='&quot;'/></iq>",
        "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
        "<a:b xmlns:a='urn:a'><b xmlns='urn:b' a:c='1'><c xmlns=''/></b></a:b>"]


@pytest.mark.parametrize("text", KEPT, ids=range(len(KEPT)))
@pytest.mark.rows("X-006", "U-050")
def test_X_006_explicit_namespaces_are_kept(client, stub, text):
    X.assert_same(to_server(client, stub, text), text)


def test_X_007_httpbind_inside_another_namespace_is_kept(client, stub):
    text = f"<message xmlns='jabber:client'><x xmlns='{X.NS_BOSH}'><y/></x></message>"
    X.assert_same(to_server(client, stub, text), text)


def test_X_008_prefixes_of_the_wrapper(client, stub):
    session, upstream = client.start(stub)
    session.send(1001, "<message xmlns='jabber:client'><f:x f:a='1' g='1'/></message>", xmlns_f="urn:f",
                 xmlns_g="urn:g")
    X.assert_same(upstream.wait_stanza(),
                  "<message xmlns='jabber:client'><f:x xmlns:f='urn:f' f:a='1' g='1'/></message>")
    assert upstream.error is None


def test_X_008_prefixes_on_the_payload_itself_and_shadowed(client, stub):
    session, upstream = client.start(stub)
    session.send(1001, "<f:x f:a='1'><y xmlns:f='urn:inner' f:a='2'/></f:x>"
                       "<message xmlns='jabber:client' xmlns:f='urn:own'><f:x/></message>", xmlns_f="urn:f")
    X.assert_same(upstream.wait_stanza(),
                  "<f:x xmlns:f='urn:f' f:a='1'><y xmlns='jabber:client' xmlns:f='urn:inner' f:a='2'/></f:x>")
    X.assert_same(upstream.wait_stanza(), "<message xmlns='jabber:client'><f:x xmlns:f='urn:own'/></message>")


def test_X_008_prefixes_with_odd_values(client, stub):
    session, upstream = client.start(stub)
    session.post(f"<body {NS} xmlns:f='urn:&amp;&lt;\"' rid='1001' sid='{session.sid}'><f:x/></body>")
    session.rid = 1001
    assert upstream.wait_stanza().tag == X.tag("x", "urn:&<\"")


@pytest.mark.parametrize("default, namespace", [("xmlns='jabber:client'", "jabber:client"), ("", "jabber:client"),
                                                ("xmlns='urn:other'", "urn:other")])
def test_X_009_default_namespace_of_a_prefixed_wrapper(client, stub, default, namespace):
    session, upstream = client.start(stub)
    session.post(f"<b:body xmlns:b='{X.NS_BOSH}' {default} rid='1001' sid='{session.sid}'>"
                 "<message><body>x</body></message></b:body>")
    session.rid = 1001
    X.assert_same(upstream.wait_stanza(), f"<message xmlns='{namespace}'><body>x</body></message>")


@pytest.mark.parametrize("text", ["<message><foo:x foo:a='1'/></message>", "<foo:x><message foo:b='2'/></foo:x>"])
@pytest.mark.rows("X-010", "B-050")
def test_X_010_B_050_prefixes_of_the_stream_header(client, stub, text):
    stub.script.header_attrs = {"xmlns:foo": "urn:foo", "xmlns:bar": "urn:bar"}
    got, _ = to_client(client, stub, text)
    names = {got.tag, got[0].tag, *got.attrib, *got[0].attrib}
    assert any("{urn:foo}" in n for n in names)
    X.assert_same(got, text.replace("<message", "<message xmlns='jabber:client'", 1)
                  .replace("<foo:x", "<foo:x xmlns:foo='urn:foo'", 1)
                  if text.startswith("<message") else
                  "<foo:x xmlns:foo='urn:foo'><message xmlns='jabber:client' foo:b='2'/></foo:x>")


def scope_of_lang(answer, kid):
    return kid.get(X.LANG) or answer.root.get(X.LANG)


def test_X_011_language_of_the_server(client, stub):
    stub.script.header_attrs = {"xml:lang": "fr"}
    got, answer = to_client(client, stub, "<message from='a@example.com'><body>x</body></message>")
    assert scope_of_lang(answer, got) == "fr"


def test_X_011_language_of_a_stanza_of_the_server(client, stub):
    got, _ = to_client(client, stub, "<message xml:lang='it'><body>x</body></message>")
    assert got.get(X.LANG) == "it"


def test_X_011_language_of_the_wrapper(client, stub):
    session, upstream = client.start(stub)
    session.send(1001, X.message("a") + "<message xmlns='jabber:client' xml:lang='it'/>", xml_lang="de")
    assert upstream.wait_stanza().get(X.LANG) == "de"
    assert upstream.wait_stanza().get(X.LANG) == "it"


def random_text(rng):
    pool = "ab \t\n<>&'\"]]>" + "\u00e9\u4f60\U0001f600\u2028\u00a0\ufeff"
    return "".join(rng.choice(pool) for _ in range(rng.randrange(12)))


def random_element(rng, depth=0):
    name, ns = rng.choice("abcd"), rng.choice(["urn:1", "urn:2", ""])
    value = X.escape(random_text(rng)).replace("\n", "&#10;").replace("\t", "&#9;")
    kids = "".join(random_element(rng, depth + 1) for _ in range(rng.randrange(3))) if depth < 3 else ""
    text = X.escape(random_text(rng))
    if rng.random() < 0.3:
        text += "<![CDATA[" + random_text(rng).replace("]]>", "") + "]]>"
    quote = rng.choice("'\"")
    return f"<{name} xmlns={quote}{ns}{quote} v='{value}'>{text}{kids}{X.escape(random_text(rng))}</{name}>"


def test_X_012_contents_survive_both_ways(client, stub):
    session, upstream = client.start(stub)
    rng = random.Random(12)
    for _ in range(60):
        text = f"<message xmlns='jabber:client'>{random_element(rng)}</message>"
        exchange = session.send_next(text)
        X.assert_same(upstream.wait_stanza(), text)
        upstream.send(text)
        answer = exchange.answer()
        assert len(answer.kids) == 1
        X.assert_same(answer.kids[0], text)


def test_X_012_line_ends_in_attributes(client, stub):
    text = "<message xmlns='jabber:client' a='1&#10;2&#9;3&#13;4'>x&#13;y</message>"
    session, upstream = client.start(stub)
    exchange = session.send_next(text)
    X.assert_same(upstream.wait_stanza(), text)
    upstream.send(text)
    X.assert_same(exchange.answer().kids[0], text)


FORBIDDEN = {"starttls": f"<starttls xmlns='{X.NS_TLS}'/>",
             "compress": "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
             "stream": f"<stream:stream xmlns:stream='{X.NS_STREAMS}' to='example.com'/>",
             "error": f"<stream:error xmlns:stream='{X.NS_STREAMS}'><x/></stream:error>",
             "features": f"<features xmlns='{X.NS_STREAMS}'/>"}


@pytest.mark.parametrize("what", list(FORBIDDEN))
@pytest.mark.rows("X-013", "X-014", "X-015")
def test_X_013_X_014_X_015_never_forwarded(client, stub, what):
    session, upstream = client.start(stub)
    answer = session.next(FORBIDDEN[what])
    if answer.attr("type"):
        session.over = True
        TB(answer, "bad-request")
        upstream.wait_closed()
    else:
        assert what in ("starttls", "compress"), answer
        assert answer.kids and answer.kids[0].tag.endswith("}failure"), answer
        session.send_next(X.message("barrier"))
        assert upstream.wait_bodies(1) == ["barrier"]
    assert [e for e in upstream.stanzas if e.tag != X.tag("message")] == []
    assert len(upstream.headers) == 1


# ---- 3 and 4: creation ----

def test_X_020_version_by_namespace_and_not_by_prefix(client, stub):
    client.session(client.post(
        f"<body {NS} xmlns:v='{X.NS_XBOSH}' xmlns:xmpp='urn:other' rid='1000' to='example.com' hold='1' wait='5' "
        "ver='1.6' v:version='1.0' xmpp:version='9.9'/>", creation=True))
    assert stub.accept().wait_header()["attrs"]["version"] == "1.0"


def test_X_021_without_a_version(client, stub):
    client.new(xmpp_version=None)
    assert stub.accept().wait_header()["attrs"].get("version") in (None, "1.0")


@pytest.mark.rows("X-022", "X-023", "U-030", "U-031")
def test_X_023_the_stream_header(client, stub):
    _, upstream = client.start(stub, xml_lang="en")
    header = upstream.wait_header()
    assert header["tag"] == X.tag("stream", X.NS_STREAMS)
    assert header["declared"].get("") == "jabber:client"
    assert X.NS_STREAMS in header["declared"].values()
    attributes = header["attrs"]
    assert attributes["to"] == "example.com" and attributes["version"] == "1.0" and header["lang"] == "en"
    assert "from" not in attributes  # the stream is not protected
    assert bytes(upstream.received).count(b"<stream:stream") == 1


def test_X_023_header_values_are_escaped(client, stub):
    answer = client.new_async(xml_lang="a'><evil/>").answer()
    if answer.attr("type"):
        TB(answer, "bad-request")
        return
    client.secrets.add(answer.attr("sid"))
    upstream = stub.accept()
    upstream.wait_header()
    assert upstream.error is None and b"<evil" not in bytes(upstream.received)


@pytest.mark.rows("X-030", "B-099")
def test_X_030_features_come_as_soon_as_known(client, stub):
    stub.script.features_delay = 2
    session = client.new()
    answer = session.creation
    if answer.find("features", X.NS_STREAMS) is None:
        answer = session.next()
    assert answer.find("features", X.NS_STREAMS) is not None
    upstream = stub.accept()
    sent = [t for t, data in upstream.chunks_out if b"features" in data][0]
    assert answer.time - sent < 0.5
    assert answer.attr("version", X.NS_XBOSH) == "1.0" or session.creation.attr("version", X.NS_XBOSH) == "1.0"


@pytest.mark.rows("X-031", "X-032")
def test_X_031_X_032_restartlogic_and_authid(client, stub):
    stub.script.header_attrs = {"id": "stream-<1>&"}
    session, _ = client.start(stub)
    assert session.creation.attr("restartlogic", X.NS_XBOSH) in ("true", "1")
    assert session.creation.attr("authid") == "stream-<1>&"


TLS_FEATURE = f"<starttls xmlns='{X.NS_TLS}'/>"
TLS_REQUIRED = f"<starttls xmlns='{X.NS_TLS}'><required/></starttls>"
COMPRESSION = "<compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression>"


def features_seen(client, stub, inner):
    stub.script.features = [inner]
    session = client.new()
    found = session.creation.find("features", X.NS_STREAMS)
    return found if found is not None else session.until("features", X.NS_STREAMS)


@pytest.mark.parametrize("inner", [TLS_FEATURE + MECHANISMS, MECHANISMS + COMPRESSION,
                                   COMPRESSION + MECHANISMS + TLS_FEATURE], ids=["tls", "compression", "both"])
@pytest.mark.rows("X-033", "X-034")
def test_X_033_X_034_hidden_features(client, stub, inner):
    X.assert_same(features_seen(client, stub, inner), f"<features xmlns='{X.NS_STREAMS}'>{MECHANISMS}</features>")


OTHERS = ("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1-PLUS</mechanism>"
          "<mechanism>SCRAM-SHA-1</mechanism><mechanism>X-UNKNOWN</mechanism></mechanisms>"
          "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline>"
          "<bind xmlns='urn:xmpp:bind:0'/></inline></authentication>" + BIND_FEATURE +
          "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session><sm xmlns='urn:xmpp:sm:3'/>"
          "<csi xmlns='urn:xmpp:csi:0'/><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v='/>"
          "<register xmlns='http://jabber.org/features/iq-register'/><u:unknown xmlns:u='urn:u' u:a='1'>t</u:unknown>")


@pytest.mark.rows("X-035", "X-036")
def test_X_035_X_036_other_features_are_untouched(client, stub):
    X.assert_same(features_seen(client, stub, OTHERS), f"<features xmlns='{X.NS_STREAMS}'>{OTHERS}</features>")


def test_X_033_empty_features(client, stub):
    X.assert_same(features_seen(client, stub, ""), f"<features xmlns='{X.NS_STREAMS}'/>")


@pytest.mark.rows("X-033", "U-045")
def test_U_045_required_tls_fails_clearly(client, server, stub):
    server.expect_log(r"BH201")
    stub.script.features = [TLS_REQUIRED]
    exchange = client.new_async()
    answer = exchange.answer(15)
    if answer.attr("sid"):
        answer = client.session(exchange).next()
    TB(answer, "remote-connection-failed")


def test_X_038_a_server_before_xmpp_1_0(client, stub):
    stub.script.header_attrs = {"version": None, "id": "old"}
    stub.script.features = [None]
    session = client.new()
    assert session.creation.took < 5
    assert session.creation.attr("authid") == "old"
    upstream = stub.accept()
    session.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]


# ---- 5: restart ----

@pytest.mark.valgrind
@pytest.mark.rows("X-040", "X-044", "X-045", "X-049")
def test_X_040_X_044_X_045_restart(client, stub):
    session, upstream = client.start(stub)
    session.until("success", X.NS_SASL, session.send_next(auth("alice")))
    answer = session.restart().answer()
    upstream.wait_header(2)
    assert not upstream.ended and len(upstream.headers) == 2
    got = answer.find("features", X.NS_STREAMS)
    if got is None:
        got = session.until("features", X.NS_STREAMS)
    X.assert_same(got, f"<features xmlns='{X.NS_STREAMS}'>{BIND_FEATURE}</features>")
    second = upstream.headers[1]
    assert second["attrs"]["to"] == "example.com" and second["declared"].get("") == "jabber:client"
    # The cache of answers and the sequence go on; check_answer() looks for creation attributes.
    assert session.send(session.rid).answer().body
    iq = "<iq xmlns='jabber:client' type='set' id='b&apos;1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
    exchange = session.send_next(iq)
    X.assert_same(upstream.wait_stanza("iq"), iq)
    assert session.until("iq", exchange=exchange).get("id") == "b'1"


@pytest.mark.parametrize("value", ["true", "1"])
def test_X_041_restart_with_any_prefix(client, stub, value):
    session, upstream = client.start(stub)
    session.post(f"<body {NS} rid='1001' sid='{session.sid}' xmlns:z='{X.NS_XBOSH}' z:restart='{value}'/>")
    session.rid = 1001
    upstream.wait_header(2)


@pytest.mark.parametrize("attribute", ["restart='true'", "xmlns:xmpp='urn:other' xmpp:restart='true'",
                                       f"xmlns:xmpp='{X.NS_XBOSH}' xmpp:restart='false'",
                                       f"xmlns:xmpp='{X.NS_XBOSH}' xmpp:restart='0'",
                                       f"xmlns:xmpp='{X.NS_XBOSH}' xmpp:restart=''"], ids=range(5))
@pytest.mark.rows("X-041", "X-047")
def test_X_041_X_047_no_restart(client, stub, attribute):
    session, upstream = client.start(stub)
    session.rid = 1001
    session.post(f"<body {NS} rid='1001' sid='{session.sid}' {attribute}>{X.message('x')}</body>").held()
    assert upstream.wait_bodies(1) == ["x"]
    assert len(upstream.headers) == 1


def test_X_042_attributes_of_the_restart(client, stub):
    session, upstream = client.start(stub, xml_lang="en")
    session.send_next(xmpp_restart="true", xml_lang="fr", to="example.com").answer()
    assert upstream.wait_header(2)["lang"] == "fr"
    session.send_next(xmpp_restart="true").answer()
    header = upstream.wait_header(3)
    assert header["attrs"]["to"] == "example.com" and header["attrs"]["version"] == "1.0"


def test_X_043_payload_of_a_restart_is_ignored(client, stub):
    session, upstream = client.start(stub)
    session.send_next("<iq xmlns='jabber:client' type='get' id='no'><x/></iq>", xmpp_restart="true").answer()
    upstream.wait_header(2)
    session.send_next(X.message("barrier"))
    assert upstream.wait_bodies(1) == ["barrier"]
    assert len(upstream.stanzas) == 1


@pytest.mark.parametrize("stray", ["\n", "  \r\n\t ", ""], ids=["newline", "spaces", "nothing"])
def test_X_046_the_parser_is_reset_at_the_restart(client, stub, stray):
    stub.script.sasl = SUCCESS + stray
    stub.script.header_attrs = {"xmlns:p": "urn:p"}
    session, upstream = client.start(stub)
    session.authenticate("alice")
    upstream.send("<message><p:x/></message>")
    X.assert_same(session.until("message"), "<message xmlns='jabber:client'><p:x xmlns:p='urn:p'/></message>")


def test_X_046_the_new_header_counts(client, stub):
    def header(session):
        n = len(session.headers)
        return f"<?xml version='1.0'?><s{n}:stream xmlns='jabber:client' xmlns:s{n}='{X.NS_STREAMS}' version='1.0' " \
               f"xmlns:p='urn:{n}' from='example.com' id='i{n}'>"
    stub.script.header, stub.script.features, stub.script.end = header, [None, None], False
    exchange = client.new_async()
    upstream = stub.accept()
    upstream.wait_header()
    upstream.send(f"<s1:features>{MECHANISMS}</s1:features>")
    session = client.session(exchange)
    if session.creation.find("features", X.NS_STREAMS) is None:
        session.until("features", X.NS_STREAMS)
    restart = session.restart()
    upstream.wait_header(2)
    upstream.send(f"<s2:features>{BIND_FEATURE}</s2:features>")
    session.until("features", X.NS_STREAMS, restart)
    upstream.send("<message><p:x/></message>")
    X.assert_same(session.until("message"), "<message xmlns='jabber:client'><p:x xmlns:p='urn:2'/></message>")


def test_X_048_no_restart_without_the_client(client, stub):
    session, upstream = client.start(stub)
    session.until("success", X.NS_SASL, session.send_next(auth("alice")))
    session.send_next(X.message("not yet restarted"))
    assert upstream.wait_bodies(1)
    assert len(upstream.headers) == 1


def test_X_051_sasl_failure_is_an_ordinary_payload(client, stub):
    failure = f"<failure xmlns='{X.NS_SASL}'><not-authorized/><text xml:lang='en'>no &amp; no</text></failure>"
    stub.script.sasl = failure
    session, upstream = client.start(stub)
    X.assert_same(session.until("failure", X.NS_SASL, session.send_next(auth("alice"))), failure)
    stub.script.sasl = upstream.script.sasl = SUCCESS
    session.until("success", X.NS_SASL, session.send_next(auth("alice")))


# ---- 6: errors ----

@pytest.mark.parametrize("prefix", ["stream", "s"])
@pytest.mark.rows("X-080", "B-307", "B-313")
def test_X_080_stream_error(client, stub, prefix):
    stub.script.prefix = prefix
    session, upstream = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    extra = "<app xmlns='urn:app'>why</app>"
    upstream.send_stream_error("policy-violation", "too much", extra)
    answer = TB(held.answer(), "remote-stream-error")
    assert declared(answer, "stream") == X.NS_STREAMS
    wanted = stream_error("policy-violation", "too much", extra).replace(
        "<stream:error", f"<stream:error xmlns:stream='{X.NS_STREAMS}'")
    X.assert_same(answer.find("error", X.NS_STREAMS), wanted)
    upstream.wait_closed()


def test_X_081_stanzas_before_the_error(client, stub):
    session, upstream = client.start(stub, hold=2)
    session.over = True
    first, second = session.send(1001).held(), session.send(1002).held()
    upstream.send(X.message("last words", to="a@example.com") + stream_error("conflict") + "</stream:stream>")
    answers = [first.answer(), second.answer()]
    assert answers[0].texts() == ["last words"], answers
    ends = [a for a in answers if a.attr("condition") == "remote-stream-error"]
    assert len(ends) == 1 and ends[0].find("error", X.NS_STREAMS) is not None, answers
    assert [k.tag for k in ends[0].kids][-1] == X.tag("error", X.NS_STREAMS)


def test_X_081_stanzas_before_the_error_with_one_request(client, stub):
    session, upstream = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    upstream.send(X.message("last words", to="a@example.com") + stream_error("conflict") + "</stream:stream>")
    answers = [held.answer()]
    if not answers[0].attr("type"):
        answers.append(session.send(1002).answer())
    assert [t for a in answers for t in a.texts()] == ["last words"]
    TB(answers[-1], "remote-stream-error")


@pytest.mark.rows("X-082", "U-034")
def test_X_082_oldest_request_gets_the_error(client, stub):
    for _ in range(10):  # the error and the end of the stream must take effect together, always
        session, upstream = client.start(stub, hold=2)
        session.over = True
        first, second = session.send(1001).held(0.05), session.send(1002).held(0.05)
        upstream.send_stream_error("system-shutdown")
        TB(first.answer(), "remote-stream-error")
        other = second.answer()
        if other.attr("type"):
            TB(other, "other-request", "remote-stream-error")
        else:
            E(other)
        upstream.wait_closed()


def test_X_080_with_one_request(client, stub):
    for _ in range(10):
        session, upstream = client.start(stub)
        session.over = True
        held = session.send(1001).held(0.05)
        upstream.send_stream_error("system-shutdown")
        answer = TB(held.answer(), "remote-stream-error")
        assert answer.find("error", X.NS_STREAMS) is not None


def test_X_085_clean_end_of_the_stream(client, stub):
    session, upstream = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    upstream.end_stream()
    T(held.answer())
    upstream.wait_end()
    upstream.wait_closed()


def test_X_085_connection_lost(client, server, stub):
    server.expect_log(r"BH201")
    session, upstream = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    upstream.close()
    TB(held.answer(), "remote-connection-failed")


BROKEN = ["<a><b></a>", "<message><!-- no --></message>", "<?pi no?>", "<message>&undefined;</message>", "text",
          "<message a='1' a='2'/>", "<foo:x/>", "<message>\xff</message>", "</wrong>"]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.rows("X-086", "U-037")
def test_X_086_the_server_sends_what_is_not_xmpp(client, server, stub, text):
    server.expect_log(r"BH201")
    session, upstream = client.start(stub)
    session.over = True
    held = session.send(1001).held()
    upstream.send(text.encode("latin-1"))
    TB(held.answer(), "remote-connection-failed", "undefined-condition")
    upstream.wait_closed()
    assert any(e.tag == X.tag("error", X.NS_STREAMS) for e in upstream.stanzas), "no stream error was sent upstream"


@pytest.mark.limit(60)
def test_X_087_white_space_of_the_server(client, stub):
    session, upstream = client.start(stub)
    held = session.send(1001)
    for _ in range(6):
        upstream.send(" \n")
        upstream.wait_read()
    held.held(1.0)
    upstream.send(" " + X.message("x", to="a@example.com") + "\n")
    answer = held.answer()
    assert answer.texts() == ["x"]
    session.send(1002).held()


@pytest.mark.rows("U-036", "X-012")
def test_U_036_the_server_writes_byte_by_byte(client, stub):
    stub.script.auto = False
    exchange = client.new_async()
    upstream = stub.accept()
    upstream.wait_header()
    upstream.send_slowly(upstream.header() + f"<stream:features>{MECHANISMS}</stream:features>")
    session = client.session(exchange)
    if session.creation.find("features", X.NS_STREAMS) is None:
        session.until("features", X.NS_STREAMS)
    text = X.message("\u00e9\u4f60\U0001f600 &", to="a@example.com") + X.message("two", to="a@example.com")
    upstream.send_slowly(text)
    assert session.texts(2) == ["\u00e9\u4f60\U0001f600 &", "two"]


def test_later_requests_with_to_are_polls(client, stub):
    # B-327: several streams in a session are off.
    session, upstream = client.start(stub)
    held = session.send(1001, to="example.com").held()
    assert stub.new_connections() == 0
    upstream.send_message("x")
    assert held.answer().texts() == ["x"]


@pytest.mark.rows("U-038", "B-054")
def test_U_038_a_stanza_that_is_too_large(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives="BoshMaxStanza 20000\n")
    client = server.client()
    session, upstream = client.start(stub)
    upstream.send_message("x" * 15000)
    assert session.texts(1) == ["x" * 15000]
    held = session.send_next()
    session.over = True
    upstream.send_message("x" * 30000)
    answer = held.answer()
    assert answer.attr("type") == "terminate" and answer.attr("condition"), answer
    upstream.wait_closed()
    client.close()
