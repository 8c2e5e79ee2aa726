# SPDX-License-Identifier: Apache-2.0
"""The body element and the XML subset: checklist section 2 (XEP-0124 section 6)."""

import time

import pytest
import xmltool as X
from bosh_env import SLOW
from client import E, TB, new_body, wrap

RID_MAX = 9007199254740991
NS = f"xmlns='{X.NS_BOSH}'"


def refused(client, text):
    """A creation request that is no good."""
    return TB(client.post(text).answer(), "bad-request")


def refused_in_session(client, stub, payload=None, text=None):
    """The same within a session: bad-request, and nothing of it reaches the XMPP server (B-032)."""
    session, upstream = client.start(stub)
    text = text or session.body(1001, payload)
    session.rid, session.over = 1001, True
    TB(session.post(text.replace("SID", session.sid) if isinstance(text, str)
                    else text.replace(b"SID", session.sid.encode())).answer(), "bad-request")
    # The bad request ended the session (17.2), so the end of the stream is the barrier.
    upstream.wait_closed()
    assert upstream.stanzas == [], upstream.summary()
    return session


@pytest.mark.parametrize("text", [
    "<foo/>", "<body/>", "<body xmlns='jabber:client'/>", new_body() + new_body(), "", "   ", "hello",
    f"<Body {NS} rid='1000' to='example.com'/>", f"<body xmlns='{X.NS_BOSH}/' rid='1000' to='example.com'/>",
    f"<x>{new_body()}</x>",
], ids=range(10))
def test_B_030_exactly_one_body_in_the_right_namespace(client, text):
    refused(client, text)


@pytest.mark.parametrize("prefix", ["b", "xmpp"])
def test_B_031_the_wrapper_may_have_a_prefix(client, stub, prefix):
    session = client.session(client.post(
        f"<{prefix}:body xmlns:{prefix}='{X.NS_BOSH}' rid='1000' to='example.com' wait='10' hold='1' ver='1.6'/>",
        creation=True))
    upstream = stub.accept()
    session.rid = 1001
    session.post(f"<{prefix}:body xmlns:{prefix}='{X.NS_BOSH}' rid='1001' sid='{session.sid}'>"
                 f"{X.message('hi')}</{prefix}:body>")
    assert upstream.wait_bodies(1) == ["hi"]


MALFORMED = [
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'><body>x</body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'/></bodi>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'></iq></body>",
    f"<body {NS} rid='1001' sid='SID'><f:x/></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client' a='1' a='2'/></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client' f:a='1'/></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'>a & b</message></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client' a='<'/></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'>]]></message></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client' a=1/></body>",
    f"<body {NS} rid='1001' sid='SID'></body><more/>",
    f"<body {NS} rid='1001' sid='SID'></body>more",
    f"<body {NS} rid='1001' sid='SID'><p:x xmlns:p='u' xmlns:q='u' p:a='1' q:a='2'/></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'>\x01</message></body>",
    f"<body {NS} rid='1001' sid='SID'><message xmlns='jabber:client'>\x00</message></body>",
    f"<body {NS} rid='1001' sid='SID'><1/></body>",
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_B_032_malformed_xml(client, stub, text):
    refused_in_session(client, stub, text=text)


PLACES = ["{x}<body " + NS + " rid='1001' sid='SID'/>",
          "<body " + NS + " rid='1001' sid='SID'>{x}<message xmlns='jabber:client'/></body>",
          "<body " + NS + " rid='1001' sid='SID'><message xmlns='jabber:client'><a><b>{x}</b></a></message></body>",
          "<body " + NS + " rid='1001' sid='SID'/>{x}"]


@pytest.mark.parametrize("what", ["<!-- c -->", "<?foo bar?>", "<?xml-stylesheet href='x'?>"])
@pytest.mark.parametrize("place", range(4), ids=["before", "inside", "deep", "after"])
@pytest.mark.rows("B-033", "B-034")
def test_B_033_B_034_comments_and_processing_instructions(client, stub, place, what):
    text = PLACES[place].format(x=what)
    if place == 0:  # the session is not known yet when it is refused
        session, _ = client.start(stub)
        TB(client.post(text.replace("SID", session.sid)).answer(), "bad-request")
    else:
        refused_in_session(client, stub, text=text)


BOMB = "<!DOCTYPE body [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefghi", "bcdefghij")) + "]>"


@pytest.mark.parametrize("dtd", ["<!DOCTYPE body>", "<!DOCTYPE body [<!ELEMENT body ANY>]>",
                                 "<!DOCTYPE body SYSTEM 'http://127.0.0.1:1/x.dtd'>",
                                 "<!DOCTYPE body PUBLIC '-//x//y' 'x'>",
                                 "<!DOCTYPE body [<!ENTITY x 'y'>]>"], ids=range(5))
def test_B_035_no_dtd(client, dtd):
    refused(client, dtd + new_body())


def test_B_035_entities_are_never_expanded(client):
    start = time.monotonic()
    refused(client, BOMB + new_body(f"<message xmlns='jabber:client'>&j;</message>"))
    refused(client, BOMB + new_body().replace("example.com", "&j;"))
    assert time.monotonic() - start < 10 * SLOW


@pytest.mark.parametrize("text", ["&nbsp;", "&foo;", "&;", "&amp"])
def test_B_036_other_entities_are_refused(client, stub, text):
    refused_in_session(client, stub, f"<message xmlns='jabber:client'><body>{text}</body></message>")


def test_B_036_the_five_predefined_entities(client, stub):
    session, upstream = client.start(stub)
    session.send_next("<message xmlns='jabber:client'><body>&lt;&gt;&amp;&quot;&apos;</body></message>")
    assert upstream.wait_bodies(1) == ["<>&\"'"]


def test_B_037_character_references(client, stub):
    session, upstream = client.start(stub)
    session.send_next("<message xmlns='jabber:client'><body>&#233;&#x1F600;&#9;&#xA;</body></message>")
    assert upstream.wait_bodies(1) == ["\u00e9\U0001f600\t\n"]


@pytest.mark.parametrize("text", ["&#0;", "&#x1F;", "&#xD800;", "&#xFFFE;", "&#x110000;", "&#;", "&#x;"])
def test_B_037_illegal_character_references(client, stub, text):
    refused_in_session(client, stub, f"<message xmlns='jabber:client'><body>{text}</body></message>")


def test_B_038_cdata(client, stub):
    session, upstream = client.start(stub)
    session.send_next("<message xmlns='jabber:client'><body><![CDATA[a<b]]>&amp;<![CDATA[]]]]></body></message>")
    assert upstream.wait_bodies(1) == ["a<b&]]"]


@pytest.mark.parametrize("text", ["hello", "<![CDATA[x]]>", "&#65;", "\u00a0", "<message xmlns='jabber:client'/>x"])
def test_B_039_text_in_the_wrapper(client, stub, text):
    refused_in_session(client, stub, text)


def test_B_040_white_space_between_payloads_is_dropped(client, stub):
    session, upstream = client.start(stub)
    before = len(upstream.received)
    session.send_next(f"\n\t  {X.message('a')}\r\n\n {X.message('b')}\n")
    assert upstream.wait_bodies(2) == ["a", "b"]
    sent = bytes(upstream.received[before:])
    assert sent == sent.strip() and b"\n" not in sent and b"\t" not in sent and b"> <" not in sent, \
        f"white space was forwarded: {sent!r}"


@pytest.mark.parametrize("text", ["<?xml version='1.0'?>", '<?xml version="1.0" encoding="UTF-8"?>\n',
                                  "<?xml version='1.0' encoding='utf-8' standalone='yes'?>", "\ufeff",
                                  "\ufeff<?xml version='1.0'?>"], ids=range(5))
def test_B_041_declaration_and_byte_order_mark(client, stub, text):
    client.session(client.post(text + new_body(), creation=True))


@pytest.mark.parametrize("text", ["<?xml version='1.1'?>", "<?xml version='1.0' encoding='iso-8859-1'?>",
                                  "<?xml version='1.0' encoding='utf-16'?>", " <?xml version='1.0'?>"], ids=range(4))
def test_B_041_other_declarations(client, text):
    refused(client, text + new_body())


def test_B_041_utf_16_is_refused(client):
    refused(client, new_body().encode("utf-16"))


def test_B_042_the_immediate_children_in_their_order(client, stub):
    session, upstream = client.start(stub)
    session.send_next("".join(X.message(t) for t in "abc"))
    assert upstream.wait_bodies(3) == ["a", "b", "c"]
    session.send_next()  # no payload: nothing
    session.send_next(X.message("d"))
    assert upstream.wait_bodies(4) == ["a", "b", "c", "d"]
    assert len(upstream.stanzas) == 4


def test_B_043_payloads_in_any_namespace(client, stub):
    session, upstream = client.start(stub)
    payload = "<json:json xmlns:json='http://json.org/' json:a='1'>{\"a\": [1]}</json:json>"
    session.send_next(payload)
    X.assert_same(upstream.wait_stanza(), payload)


def test_B_044_rid_is_required(client, stub):
    refused(client, new_body(rid=None))
    refused_in_session(client, stub, text=f"<body {NS} sid='SID'>{X.message('x')}</body>")


BAD_RIDS = ["0", "-1", "1.5", "1e3", "abc", "", "9007199254740992", "99999999999999999999", "+5", "0x10", " ",
            "18446744073709552616", "1001 x"]


@pytest.mark.parametrize("rid", BAD_RIDS)
def test_B_045_bad_rids(client, stub, rid):
    refused(client, new_body(rid=rid))
    refused_in_session(client, stub, text=f"<body {NS} sid='SID' rid='{rid}'>{X.message('x')}</body>")


def test_B_045_the_highest_rid(client, stub):
    session, upstream = client.start(stub, rid=RID_MAX - 1)
    stub.script.echo = True
    upstream.send_message("last")
    assert session.next().texts() == ["last"]
    assert session.rid == RID_MAX
    TB(session.next(), "bad-request")


def test_B_046_unknown_attributes(client, stub):
    session = client.session(client.post(new_body(foo="1", x_y="2"), creation=True))
    upstream = stub.accept()
    session.send_next(X.message("x"), bar="2", x_z="3")
    assert upstream.wait_bodies(1) == ["x"]


def test_B_047_creation_attributes_on_later_requests(client, stub):
    session, upstream = client.start(stub, wait=4)
    exchange = session.send(1001, wait="1", hold="9", ver="9.9", content="text/plain", **{"from": "x@y"})
    exchange.held(1.8)  # neither wait nor hold of this request count
    upstream.send_message("x")
    assert exchange.answer().texts() == ["x"]  # and content neither: check_answer() looks at it
    first = session.send(1002, X.message("a"))
    second = session.send(1003, X.message("b"))
    E(first.at_once())  # hold is still 1
    second.held()


@pytest.mark.parametrize("name", ["wait", "hold"])
@pytest.mark.parametrize("value", ["abc", "-1", "", "1.5", " ", "0x1"])
def test_B_048_malformed_integers_at_creation(client, name, value):
    refused(client, new_body(**{name: value}))


@pytest.mark.parametrize("name", ["pause", "ack"])
@pytest.mark.parametrize("value", ["x", "-1", ""])
def test_B_048_malformed_integers_later(client, stub, name, value):
    refused_in_session(client, stub,
                       text=f"<body {NS} sid='SID' rid='1001' {name}='{value}'>{X.message('x')}</body>")


INVALID_UTF8 = [b"\xc0\xaf", b"\xed\xa0\x80", b"\xff", b"\xc3", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\x80"]


@pytest.mark.parametrize("data", INVALID_UTF8, ids=[d.hex() for d in INVALID_UTF8])
def test_B_051_invalid_utf8(client, stub, data):
    text = wrap("<message xmlns='jabber:client'><body>@@</body></message>", sid="SID", rid=1001)
    refused_in_session(client, stub, text=text.encode().replace(b"@@", data))


def test_B_051_utf8_both_ways(client, stub):
    session, upstream = client.start(stub)
    text = "\u00e9 \u4f60\u597d \U0001f600 \u202e \ufeff \ufffd"
    stub.script.echo = True
    session.send_next(X.message(text))
    assert upstream.wait_bodies(1) == [text]
    assert session.texts(1) == [text]


def test_B_052_charset_of_the_content_type_changes_nothing(client, stub):
    session, upstream = client.start(stub)
    data = session.body(1001, X.message("@@")).encode().replace(b"@@", b"\xe9")
    session.over = True
    TB(session.post(data, headers={"Content-Type": "text/xml; charset=iso-8859-1"}).answer(), "bad-request")
    upstream.wait_closed()
    assert upstream.stanzas == []


def nested(depth):
    return "<message xmlns='jabber:client'>" + "<a>" * depth + "</a>" * depth + "</message>"


def many_attributes(n):
    return "<message xmlns='jabber:client' " + " ".join(f"a{i}='1'" for i in range(n)) + "/>"


@pytest.mark.parametrize("payload", [nested(10000), many_attributes(10000)], ids=["depth", "attributes"])
def test_B_054_depth_and_attributes_are_bounded(client, stub, payload):
    session, upstream = client.start(stub)
    session.over = True
    TB(session.next(payload), "policy-violation", "bad-request")
    upstream.wait_closed()
    assert upstream.stanzas == []


@pytest.mark.parametrize("payload", [nested(60), many_attributes(60)], ids=["depth", "attributes"])
def test_B_054_reasonable_depth_and_attributes_pass(client, stub, payload):
    session, upstream = client.start(stub)
    session.send_next(payload)
    X.assert_same(upstream.wait_stanza(), payload)
