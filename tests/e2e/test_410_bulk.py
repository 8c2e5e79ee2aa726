# SPDX-License-Identifier: Apache-2.0
"""Much at once: bursts of 500 stanzas each way, and messages of 256 KiB that arrive as they were, by canonical XML."""

import re
from xml.etree.ElementTree import canonicalize

import pytest
import xmltool as X
from bosh_env import SLOW, VALGRIND, wait_for
from client import E, RB
from prosody import Prosody
from test_950_real_prosody import available, plain_login

BURST = 500
NS_A, NS_B = "urn:example:a", "urn:example:b"
BIG = 256 * 1024

pytestmark = pytest.mark.skipif(VALGRIND, reason="much at once takes too long there")


def numbers(n, first=0):
    return [f"m{i}" for i in range(first, first + n)]


def collect(session, n, answer=None):
    """Texts until n have come; each answer is fetched a second time, and is the same."""
    texts = []
    while len(texts) < n:
        answer = answer or session.next()
        assert answer.attr("type") is None, f"the session ended: {answer}"
        assert session.send(session.rid).answer().body == answer.body
        texts += answer.texts()
        answer = None
    return texts


@pytest.mark.rows("B-111", "B-119", "B-123", "B-161")
def test_500_stanzas_to_the_client_in_one_go(client, stub):
    session, upstream = client.start(stub)
    want = numbers(BURST)
    held = session.send_next().held()
    upstream.send("".join(X.message(t, to="alice@example.com") for t in want))
    assert collect(session, BURST, held.answer()) == want


@pytest.mark.rows("B-111", "B-163")
def test_500_stanzas_to_the_server_in_one_go(client, stub):
    session, upstream = client.start(stub)
    want = numbers(BURST)
    waiting = session.send_next("".join(map(X.message, want)))
    assert upstream.wait_bodies(BURST, 20) == want
    waiting.held()
    # The same again is no second burst.
    again = session.send(session.rid, "".join(map(X.message, want)))
    RB(waiting.answer())
    upstream.send_message("done")
    assert again.answer().texts() == ["done"]
    assert upstream.bodies() == want


def the_one_that_waits(first, second):
    """Of two equal requests on two connections; the other one is told so. Either may come first."""
    wait_for(lambda: first.event.is_set() or second.event.is_set(), 10, "one of them is released")
    if second.event.is_set():
        first, second = second, first
    RB(first.answer())
    return second


@pytest.mark.rows("B-111", "B-113", "B-140", "B-144", "B-148", "B-166")
def test_500_stanzas_through_a_shuffled_window(client, stub):
    """Each window of requests arrives from its end, and each request that had to wait comes twice."""
    session, upstream = client.start(stub, hold="2")
    window, share = session.requests, 10
    assert window == 3
    want, sent, waiting = numbers(BURST), 0, {}
    for first in range(1001, 1001 + -(-BURST // share), window):
        rids = [rid for rid in range(first, first + window) if (rid - 1001) * share < BURST]
        texts = {rid: want[(rid - 1001) * share:(rid - 1000) * share] for rid in rids}
        for rid in reversed(rids):
            payload = "".join(map(X.message, texts[rid]))
            waiting[rid] = session.send(rid, payload)
            if rid != first:
                waiting[rid] = the_one_that_waits(waiting[rid], session.send(rid, payload))
        sent += sum(map(len, texts.values()))
        assert upstream.wait_bodies(sent, 20) == want[:sent]
        upstream.send_message(f"window {first}")
        # The oldest ones are answered without payload: hold is 2. What was said goes to the first that can take it.
        got = []
        while not got:
            rid = min(waiting)
            answer = waiting.pop(rid).answer()
            got = answer.texts()
            assert got or E(answer)
        assert got == [f"window {first}"]
        for rid in sorted(waiting):  # the next window needs all of this one
            upstream.send_message(f"rid {rid}")
            assert waiting.pop(rid).answer().texts() == [f"rid {rid}"]
    assert sent == BURST and upstream.bodies() == want


@pytest.mark.rows("B-111", "B-119", "B-126", "B-161", "B-163")
def test_500_stanzas_each_way_over_connections_that_break(client, stub):
    """Every other connection is reset while its request waits; what it carried is sent again on the next one."""
    session, upstream = client.start(stub)
    want, texts, share = numbers(BURST), [], 50
    for i in range(0, BURST, share):
        payload = "".join(map(X.message, want[i:i + share]))
        lost = session.send_next(payload)
        upstream.wait_bodies(i + share, 20)
        lost.rst()
        upstream.send("".join(X.message(t, to="alice@example.com") for t in want[i:i + share]))
        upstream.wait_read()
        texts += collect(session, share, session.send(session.rid, payload).answer())
    assert texts == want and upstream.bodies() == want


@pytest.mark.rows("B-111", "B-119")
def test_500_stanzas_each_way_at_the_same_time(client, stub):
    session, upstream = client.start(stub)
    want = numbers(BURST)
    held = session.send_next().held()
    session.send_next("".join(map(X.message, want)))
    upstream.send("".join(X.message(t, to="alice@example.com") for t in want))
    texts = held.answer(20).texts()
    while len(texts) < BURST:
        texts += session.poll().texts()
    assert texts == want
    assert upstream.wait_bodies(BURST, 20) == want


# ---- canonical XML ----

def big_payload():
    """Children of a message, more than 256 KiB: all that XML has to write one thing in several ways."""
    piece = ("\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d \u00e9e\u0301 "
             "&lt;&amp;&gt;&quot;&apos; &#x1F600;&#233;&#x09;&#10; "
             "<![CDATA[<not> & a </tag> ]]]]><![CDATA[> \U0001f601]]>\n\t")
    inner = (f"<a:x b:y='1 &lt; 2 &amp; \"3\" \U0001f602&#10;&#9;' z='&gt;'><b:empty/><plain/>"
             f"<own xmlns='urn:example:own' xmlns:a='urn:example:other'><a:x>{piece}</a:x></own></a:x>")
    times = BIG // len((piece + inner).encode()) + 1
    return f"<body>{piece * times}</body>{inner * times}"


def message(payload, ns=" xmlns='jabber:client'"):
    return f"<message{ns} to='bob@example.com' id='big'  type = \"chat\" >{payload}</message >"


def canonical(text, wrapper):
    """The message in a wrapper that does not use its prefixes, by C14N 2.0: declared where they are used."""
    whole = canonicalize(f"<{wrapper}>{text}</{wrapper.split()[0]}>")
    return whole[whole.index(">") + 1:whole.rindex("<")]


def raw_message(data):
    return re.search(rb"<message.*</message *>", bytes(data), re.DOTALL).group().decode()


DECLARED = f"xmlns:a='{NS_A}' xmlns:b=\"{NS_B}\""


@pytest.mark.rows("X-005", "X-008", "X-012")
@pytest.mark.parametrize("ns", [" xmlns='jabber:client'", ""], ids=["of its own", "inherited"])
def test_256_KiB_to_the_server_in_canonical_XML(client, stub, ns):
    session, upstream = client.start(stub)
    payload = big_payload()
    assert len(payload.encode()) > BIG
    session.post(f"<body rid='{session.rid + 1}' sid='{session.sid}' xmlns='{X.NS_BOSH}' {DECLARED}>"
                 f"{message(payload, ns)}</body>")
    session.rid += 1
    upstream.wait_stanza("message", 20)
    want = canonical(message(payload), f"w:w xmlns:w='urn:w' {DECLARED}")
    assert canonical(raw_message(upstream.received), "w:w xmlns:w='urn:w' xmlns='jabber:client'") == want


@pytest.mark.rows("X-003", "X-010", "X-012")
@pytest.mark.parametrize("step", [None, 1000], ids=["at once", "in pieces"])
def test_256_KiB_to_the_client_in_canonical_XML(client, stub, step):
    stub.script.header_attrs = {"xmlns:a": NS_A, "xmlns:b": NS_B}
    session, upstream = client.start(stub)
    data = message(big_payload(), "").encode()
    held = session.send_next().held()
    for at in range(0, len(data), step or len(data)):
        upstream.send(data[at:at + (step or len(data))])
    answer = held.answer(20)
    assert [kid.tag for kid in answer.kids] == [X.tag("message")]
    want = canonical(message(big_payload()), f"w:w xmlns:w='urn:w' {DECLARED}")
    whole = canonicalize(answer.body.decode())
    assert whole[whole.index(">") + 1:whole.rindex("<")] == want


@pytest.fixture(scope="module")
def prosody_server(httpd, prosody):
    return httpd(upstreams=prosody.upstreams(), name="bulk-prosody")


@pytest.mark.rows("X-008", "X-012")
def test_a_big_message_by_way_of_prosody_in_canonical_XML(prosody_server):
    """Prosody takes stanzas up to 256 KiB, chooses its own prefixes and adds its attributes to the message."""
    client = prosody_server.client()
    alice, bob = plain_login(client, "alice"), plain_login(client, "bob")
    available(bob)
    payload = big_payload().replace("&#10;&#9;'", "'")  # it writes those into attributes as they are
    first = payload[:50000]
    first = first[:first.rindex("&lt;")] + "</body>"
    inner = payload[payload.index("</body>") + 7:]
    inner = inner[:inner.index("</a:x>", 60000) + 6]
    inner = inner[:inner.rindex("</own></a:x>") + 12]
    waiting = bob.send_next()
    alice.post(f"<body rid='{alice.rid + 1}' sid='{alice.sid}' xmlns='{X.NS_BOSH}' {DECLARED}>"
               f"<message xmlns='jabber:client' to='{bob.jid}'>{first}{inner}</message></body>")
    alice.rid += 1
    answer = waiting.answer(20 * SLOW)
    got = re.search(r"<message[^>]*>(.*)</message>", answer.body.decode(), re.DOTALL).group(1)

    def plain(text):
        return canonicalize(f"<message xmlns='jabber:client' {DECLARED}>{text}</message>", rewrite_prefixes=True)
    got, want = plain(got), plain(first + inner)
    at = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
    assert len(got) == len(want) == at, f"{got[at - 80:at + 80]!r} is not {want[at - 80:at + 80]!r}"
    assert alice.jid.startswith(f"alice@{Prosody.HOST}/")
    client.close()
