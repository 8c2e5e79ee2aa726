# SPDX-License-Identifier: Apache-2.0
"""Compression and character sets of requests and answers: XEP-0124 sections 5 and 7.2."""

import gzip
import re
import time
import zlib

import pytest
import xmltool as X
from bosh_env import INSTRUMENTED
from client import TB, check_answer, new_body

LIMIT = 256 * 1024
LONG = "long and wide " * 2000


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], modules=["deflate", "filter"],
                 location="SetOutputFilter DEFLATE", directives=f"BoshPolling 0\nBoshMaxBody {LIMIT}\n")


def raw_deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


PACKERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "GZIP": gzip.compress}


# ---- answers ----

# Who compresses: the module, the module in front of filters that would, or a filter.
PACKING = {
    "own": {},
    "before filters": {"modules": ["deflate", "brotli", "filter"], "location": "SetOutputFilter BROTLI_COMPRESS;DEFLATE"},
    "filter": {"modules": ["deflate", "filter"], "location": "SetOutputFilter DEFLATE", "directives": "BoshDeflate Off\n"},
}
EXTRA = "BoshPolling 0\nSetEnvIf User-Agent ^Old no-gzip\nBoshAllowOrigin https://chat.example\n"


@pytest.fixture(scope="module", params=PACKING)
def packer(request, httpd, stub_server):
    options = dict(PACKING[request.param])
    made = httpd(upstreams=[stub_server.upstream()], children=1, location=options.get("location", ""),
                 modules=["setenvif", *options.get("modules", [])], directives=options.get("directives", "") + EXTRA)
    made.packing = request.param
    return made


@pytest.fixture
def asker(packer, stub):
    made = packer.client()
    yield made
    made.close()


def long_answer(client, stub, accept, text=LONG, **headers):
    """The raw answer with this text in it, to a request that was held for a moment."""
    session, upstream = client.start(stub)
    exchange = session.send_next(headers={"Accept-Encoding": accept, **headers}, check=False).held(0.1)
    upstream.send_message(text)
    return exchange.raw()


def varies(answer):
    return "accept-encoding" in answer.get("Vary", "").lower()


def check_packed(answer, packing, texts):
    """Packed once, by whom it should be: gzip's header tells the module's level 1 from mod_deflate's."""
    assert answer.get("Content-Encoding") == "gzip" and varies(answer), answer
    # And not chunked: what came has the length that was said, and nothing else.
    assert answer.get("Transfer-Encoding") is None
    assert answer.get("Content-Length") == str(len(answer.body)), answer
    assert answer.body[8] == (0 if packing == "filter" else 4), answer.body[:10]
    plain = gzip.decompress(answer.body)
    assert len(answer.body) < len(plain) / 2
    assert [X.text_of(e, "body") for e in X.parse(plain)] == texts
    return plain


def check_plain(answer, texts):
    assert check_answer(answer).get("Content-Encoding") is None, answer
    assert answer.texts() == texts
    return answer


@pytest.mark.parametrize("accept", ["gzip", "gzip, deflate, br", "deflate, gzip;q=0.5", "br;q=1, gzip;q=1.0", "*"])
@pytest.mark.rows("B-006", "B-003")
def test_B_006_an_answer_is_compressed_for_who_can_read_it(asker, packer, stub, accept):
    answer = long_answer(asker, stub, accept)
    if accept == "*" and packer.packing == "filter":
        check_plain(answer, [LONG])  # mod_deflate does not know it
    else:
        check_packed(answer, packer.packing, [LONG])


@pytest.mark.parametrize("accept", [None, "identity", "gzip;q=0", "gzip; q=0.000, identity", "GZIP;q=0, *", "*;q=0, identity",
                                    "deflate", "br", "gzip;q=0, br;q=0", "identity, gzip;q=0.5"])
@pytest.mark.rows("B-006")
def test_B_006_and_not_for_others(asker, packer, stub, accept):
    answer = long_answer(asker, stub, accept)
    assert varies(answer) or (packer.packing == "filter" and "gzip" in (accept or "").lower()), answer
    if accept == "br" and packer.packing == "before filters":
        assert answer.get("Content-Encoding") == "br", answer  # that is mod_brotli's to do
    elif accept == "identity, gzip;q=0.5" and packer.packing == "filter":
        check_packed(answer, packer.packing, [LONG])  # mod_deflate does not weigh
    else:
        check_plain(answer, [LONG])


@pytest.mark.rows("B-006")
def test_B_006_a_repeat_is_coded_as_it_asks(asker, packer, stub):
    """The stored answer is the same, whatever its first reader could unpack (B-161)."""
    session, upstream = asker.start(stub)
    exchange = session.send(1001, headers={"Accept-Encoding": "gzip"}, check=False).held(0.1)
    upstream.send_message(LONG)
    packed = exchange.raw()
    plain = check_packed(packed, packer.packing, [LONG])
    assert check_plain(session.send(1001).answer(), [LONG]).body == plain
    again = session.send(1001, headers={"Accept-Encoding": "gzip"}, check=False).raw()
    assert again.body == packed.body and again.get("Content-Encoding") == "gzip"


def test_an_answer_that_does_not_wait(asker, packer, stub):
    """What is there already, or comes within milliseconds, is sent by the worker that has read the request."""
    session, upstream = asker.start(stub)
    upstream.send_message(LONG)
    upstream.wait_read()
    check_packed(session.send_next(headers={"Accept-Encoding": "gzip"}, check=False).raw(), packer.packing, [LONG])
    stub.script.on_stanza = lambda upstream, elem: upstream.send_message("at once " * 1000) or True
    iq = "<iq xmlns='jabber:client' type='get' id='q'><q xmlns='urn:example:q'/></iq>"
    answer = session.send_next(iq, headers={"Accept-Encoding": "gzip"}, check=False).raw()
    check_packed(answer, packer.packing, ["at once " * 1000])


def test_large_ones_are_compressed_once(asker, packer, stub):
    """Compressed it is still so large that a filter would like to do something about it."""
    text = "".join(f"{i * 7919 % 100003:06} " for i in range(5000))
    answer = long_answer(asker, stub, "gzip, br", text=text)
    check_packed(answer, packer.packing, [text])
    assert len(answer.body) > 2048


def test_from_2_kb_up(asker, packer, stub):
    session, upstream = asker.start(stub)
    upstream.send_message("x")
    rest = len(session.next().body) - 1  # of an answer but its text
    for size in (2047, 2048, 2049):
        exchange = session.send_next(headers={"Accept-Encoding": "gzip"}, check=False)
        upstream.send_message("y" * (size - rest))
        answer = exchange.raw()
        if size < 2048:
            assert len(check_plain(answer, ["y" * (size - rest)]).body) == size
            assert not varies(answer)
        else:
            assert len(check_packed(answer, packer.packing, ["y" * (size - rest)])) == size


@pytest.mark.valgrind
def test_many_at_once(asker, packer, stub):
    """Packers are shared by workers, one after another."""
    pairs = [asker.start(stub) for _ in range(12)]
    for i in range(6):
        held = [session.send_next(headers={"Accept-Encoding": "gzip"}, check=False) for session, _ in pairs]
        for n, (_, upstream) in enumerate(pairs):
            upstream.send_message(f"{i} of {n} " * (300 * (1 + n * i)))
        for n, exchange in enumerate(held):
            check_packed(exchange.raw(), packer.packing, [f"{i} of {n} " * (300 * (1 + n * i))])


def test_an_administrators_no_gzip(asker, packer, stub):
    answer = check_plain(long_answer(asker, stub, "gzip", **{"User-Agent": "Old/1.0"}), [LONG])
    assert packer.packing == "before filters" or not varies(answer), answer  # mod_brotli would still have done it
    check_packed(long_answer(asker, stub, "gzip", **{"User-Agent": "New/1.0"}), packer.packing, [LONG])


def test_vary_names_both(asker, packer, stub):
    """Vary: Origin of CORS is not lost."""
    answer = long_answer(asker, stub, "gzip", Origin="https://chat.example")
    assert {name.strip() for name in answer.get("Vary").split(",")} == {"Origin", "Accept-Encoding"}, answer


@pytest.mark.rows("B-006")
def test_off_without_a_filter(httpd, stub):
    """Off in one virtual host, in the other not."""
    server = httpd(children=1, tls=True, upstreams=[stub.upstream()], directives="BoshDeflate Off\n",
                   tls_lines=["BoshDeflate On"])
    off, on = server.client(), server.client(tls=True)
    assert not varies(check_plain(long_answer(off, stub, "gzip"), [LONG]))
    check_packed(long_answer(on, stub, "gzip"), "own", [LONG])
    off.close()
    on.close()


def test_nothing_at_all(httpd, stub):
    """What docs/DIRECTIVES.md says to who wants no compression."""
    server = httpd(children=1, upstreams=[stub.upstream()], modules=["env", "deflate", "brotli", "filter"],
                   location="SetOutputFilter BROTLI_COMPRESS;DEFLATE\nSetEnv no-gzip 1\nSetEnv no-brotli 1")
    client = server.client()
    assert not varies(check_plain(long_answer(client, stub, "gzip, br"), [LONG]))
    client.close()


def test_small_answers_are_left_alone(client, stub):
    answer = client.new_async(headers={"Accept-Encoding": "gzip"}).answer()
    assert answer.get("Content-Encoding") is None
    client.session(answer.exchange)


# ---- requests ----

@pytest.mark.rows("B-091", "B-092")
def test_B_091_accept_names_what_can_be_read(client, stub):
    session, upstream = client.start(stub)
    offered = session.creation.attr("accept").split(",")
    assert offered
    for i, coding in enumerate(offered):
        data = PACKERS[coding](session.body(1001 + i, X.message(coding)).encode())
        session.rid = 1001 + i
        session.post(data, headers={"Content-Encoding": coding})
        assert upstream.wait_bodies(i + 1)[-1] == coding
    # A session can begin with such a request.
    client.session(client.post(gzip.compress(new_body().encode()), headers={"Content-Encoding": "gzip"}, creation=True))


@pytest.mark.parametrize("coding,pack", [*PACKERS.items(), ("deflate", raw_deflate), ("identity", lambda data: data)])
def test_B_092_all_forms(client, stub, coding, pack):
    session, upstream = client.start(stub)
    text = "häufig \U0001f600 " * 1500
    for rid, part in ((1001, "x"), (1002, text)):
        session.post(pack(session.body(rid, X.message(part)).encode()), headers={"Content-Encoding": coding})
        upstream.wait_bodies(rid - 1000)
    session.rid = 1002
    assert upstream.bodies() == ["x", text]


@pytest.mark.rows("B-092", "B-004")
def test_B_092_in_chunks(client, stub):
    session, upstream = client.start(stub)
    data = gzip.compress(session.body(1001, X.message("in pieces")).encode())
    conn = client.connect()
    conn.expect(session=session)
    conn.send(client.head(headers={"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}))
    for i in range(0, len(data), 7):
        piece = data[i:i + 7]
        conn.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    conn.send(b"0\r\n\r\n")
    session.rid = 1001
    assert upstream.wait_bodies(1) == ["in pieces"]
    conn.close()


@pytest.mark.parametrize("damage", ["cut", "more", "byte", "none", "empty"])
def test_B_092_what_cannot_be_unpacked(client, stub, damage):
    """Nobody can tell whose it was: bad-request, and the session lives."""
    session, upstream = client.start(stub)
    text = session.body(1001, X.message("x" * 3000)).encode()
    data = bytearray(gzip.compress(text))
    if damage == "cut":
        del data[-20:]
    elif damage == "more":
        data += b"x"
    elif damage == "byte":
        data[len(data) // 2] ^= 4
    elif damage == "none":
        data = text
    else:
        data = b""
    TB(client.post(bytes(data), headers={"Content-Encoding": "gzip"}).answer(), "bad-request")
    session.send_next(X.message("y"))
    assert upstream.wait_bodies(1) == ["y"]


@pytest.mark.rows("B-093", "B-091")
def test_B_093_turned_off(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshInflate Off\n")
    client = server.client()
    session, _ = client.start(stub)
    assert session.creation.attr("accept") is None
    answer = client.post(gzip.compress(session.body(1001).encode()), headers={"Content-Encoding": "gzip"}).answer()
    TB(answer, "bad-request")
    client.close()


@pytest.mark.parametrize("coding,pack", [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)])
def test_B_094_bombs(client, server, stub, coding, pack):
    session, upstream = client.start(stub)
    stays = [client.new() for _ in range(2)]
    packed = pack(b"\0" * 10_000_000)
    before = server.rss_kb()
    start = time.monotonic()
    for _ in range(20):
        assert client.post(packed, headers={"Content-Encoding": coding}).raw().status == 413
    assert time.monotonic() - start < 20
    if not INSTRUMENTED:  # twenty threads may each keep as much as a request may be; one bomb is more than that
        assert server.rss_kb() - before < 9000, "unpacked into memory"
    session.send_next(X.message("x"))
    assert upstream.wait_bodies(1) == ["x"]
    stays[0].send_next().held(0.1)


@pytest.mark.rows("B-094", "B-019")
def test_B_094_the_limit_is_that_of_any_body(client, stub):
    session, upstream = client.start(stub)
    empty = len(session.body(1001, X.message("")))
    # A text that packs to a tenth or so, unlike what the ratio is there for.
    words = "".join(f"{i * 7919 % 100003:06} " for i in range(LIMIT // 7 + 1))
    text = session.body(1001, X.message(words[:LIMIT - empty + 1])).encode()
    assert len(text) == LIMIT + 1
    assert client.post(gzip.compress(text), headers={"Content-Encoding": "gzip"}).raw().status == 413
    text = session.body(1001, X.message(words[:LIMIT - empty])).encode()
    session.rid = 1001
    session.post(gzip.compress(text), headers={"Content-Encoding": "gzip"})
    assert upstream.wait_bodies(1) == [words[:LIMIT - empty]]


@pytest.mark.rows("B-092", "B-094")
def test_a_filter_of_httpd_may_do_it_instead(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], modules=["deflate"],
                   location="SetInputFilter DEFLATE", directives=f"BoshMaxBody {LIMIT}\n")
    client = server.client()
    session, upstream = client.start(stub)
    session.post(gzip.compress(session.body(1001, X.message("x")).encode()), headers={"Content-Encoding": "gzip"})
    assert upstream.wait_bodies(1) == ["x"]
    session.rid = 1001
    session.post(zlib.compress(session.body(1002, X.message("y")).encode()), headers={"Content-Encoding": "deflate"})
    assert upstream.wait_bodies(2) == ["x", "y"]
    session.rid = 1002
    client.close()


# ---- character sets ----

@pytest.mark.rows("B-053", "B-052")
def test_B_053_utf8_alone(client, stub):
    """No other encoding is offered; `charsets`, if it were sent, would have to name some."""
    session, _ = client.start(stub)
    charsets = session.creation.attr("charsets")
    assert charsets is None or re.fullmatch(r"[\w.:-]+( [\w.:-]+)*", charsets), charsets
    names = (charsets or "UTF-8").upper().split()
    assert names == ["UTF-8"], "an encoding that is not understood"
    session.over = True
    body = session.body(1001, X.message("caf\u00e9")).encode("latin-1")
    TB(session.post(body, headers={"Content-Type": "text/xml; charset=iso-8859-1"}).answer(), "bad-request")
