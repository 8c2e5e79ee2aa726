# SPDX-License-Identifier: Apache-2.0
"""Script syntax on a real httpd: checklist section 15 (XEP-0252). What is text alone is in tests/unit/test_script.c,
how the pieces of a stanza come together in tests/unit/test_join.c, pages on other origins in test_browser.py."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import time
import unicodedata
from urllib.parse import quote

import pytest
import xmltool as X
from bosh_env import BIND_PATH, Httpd, wait_for
from client import E, RB, T, TB, Answer, BoshClient, Conn, Exchange, auth, check_answer, new_body, wrap

PAGE = "https://page.example"
ON = f"BoshScriptSyntax On\nBoshAllowOrigin {PAGE} http://other.example:8080"
UNESCAPED = "-._~!$&'()*+,;=:@/?"
SCRIPT_TYPE = "text/javascript; charset=utf-8"
CALL = re.compile(rb'_BOSH_\(("[^\r\n]*")\)')
NODE = shutil.which("node")


def evaluate(script):
    """The argument of the call (S-008): of what may be in it, JSON's strings are JavaScript's."""
    match = CALL.fullmatch(script)
    assert match, f"not the call alone: {script!r}"
    text = json.loads(match.group(1), strict=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16").encode()


class ScriptExchange(Exchange):
    """A GET, whose answer is looked at as if it had come by POST; answer().script is what came."""

    def answer(self, timeout=10.0):
        script = self.raw(timeout)
        assert script.status == 200, f"{script}"  # S-017
        assert script.get("Content-Length") == str(len(script.body)) and not script.get("Transfer-Encoding"), f"{script}"
        caching = [word.strip() for word in script.get("Cache-Control").split(",")]
        assert "no-store" in caching and "no-cache" in caching and script.get("Pragma") == "no-cache"  # S-014
        body = evaluate(script.body)
        headers = [(k, str(len(body)) if k.lower() == "content-length" else v) for k, v in script.headers]
        plain = Answer(script.status, script.reason, headers, body, self)
        plain.script = script.body
        return check_answer(plain, self.content, self.creation) if self.check else plain


class ScriptClient(BoshClient):
    """A BoshClient that sends everything in script syntax, as from PAGE."""

    def post(self, text, conn=None, headers=(), version="1.1", **options):
        return self.get(quote(text, safe=UNESCAPED), conn, headers, version, **options)

    def get(self, query, conn=None, headers=(), version="1.1", data=b"", **options):
        if options.get("content", "text/xml").startswith("text/xml"):
            options["content"] = SCRIPT_TYPE
        own = conn is None
        conn = conn or self.connect()
        conn.close_after = conn.close_after or own
        exchange = ScriptExchange(conn, **options)
        with conn.lock:
            conn.queue.append(exchange)
        exchange.sent_at = time.monotonic()
        conn.send(self.head(len(data) if data else None, "GET", {"Referer": PAGE + "/chat", **dict(headers)}, version,
                            f"{self.path}?{query}") + data)
        return exchange


def script_server(httpd, stub_server, **options):
    server = httpd(upstreams=[stub_server.upstream()], directives=ON + "\n" + options.pop("directives", ""), **options)
    server.expect_log("BH013")  # plain HTTP
    return server


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return script_server(httpd, stub_server)


@pytest.fixture
def client(server, stub):
    made = ScriptClient(server.port, secrets=server.secrets)
    yield made
    made.close()


@pytest.fixture
def pure(server, stub):
    made = BoshClient(server.port, secrets=server.secrets)
    yield made
    made.close()


def no_more_upstream(client, stub):
    """Nothing before this has made a session."""
    client.start(stub)
    assert stub.new_connections() == 0


def send_all(session, pieces):
    """One request for each, when the one before has made room; the last is returned."""
    held = None
    for piece in pieces:
        following = session.send_next(piece)
        if held:
            E(held.answer())
        held = following
    return held


# ---- off, and what is no request ----

@pytest.mark.parametrize("query", [quote(new_body()), "callback=alert(1)", "callback=x&data=" + quote(new_body()),
                                   "isBoshAvailable"])
def test_S_001_S_019_off(httpd, stub_server, stub, query):
    if not hasattr(stub_server, "without_script"):
        stub_server.without_script = httpd(upstreams=[stub_server.upstream()])
    client = BoshClient(stub_server.without_script.port)
    for method in ("GET", "HEAD"):
        answer = client.request(method, f"{BIND_PATH}?{query}", headers={"Referer": PAGE + "/"})
        assert answer.status == 404 and b"sid" not in answer.body
        assert "no-store" in answer.get("Cache-Control")
    no_more_upstream(client, stub)
    client.close()


@pytest.mark.parametrize("query", ["callback=alert(1)", "callback=x&data=" + quote(new_body()), "x", "%20", "data",
                                   "%253Cbody/%253E"])
def test_S_019_no_jsonp(client, stub, query):
    answer = client.request("GET", f"{BIND_PATH}?{query}", headers={"Referer": PAGE + "/"})
    assert answer.status == 404 and answer.get("Content-Type").startswith("text/plain")
    assert b"alert" not in answer.body
    no_more_upstream(client, stub)


def test_what_openfire_clients_ask_first(client, stub):
    answer = client.request("GET", f"{BIND_PATH}?isBoshAvailable", headers={"Referer": PAGE + "/"})
    assert (answer.status, answer.body, answer.get("Content-Type")) == (200, b"", SCRIPT_TYPE)
    assert client.request("GET", BIND_PATH).status == 200  # the page for people is there, too


def test_head_has_no_effect(client, stub):
    session, upstream = client.start(stub)
    text = session.body(1001, X.message("by HEAD"))
    for query in (new_body(), text):
        answer = client.request("HEAD", f"{BIND_PATH}?{quote(query)}", headers={"Referer": PAGE + "/"})
        assert answer.status == 200
    session.send(1001, X.message("by GET")).held()
    assert upstream.wait_bodies(1) == ["by GET"] and stub.new_connections() == 0


# ---- sessions ----

@pytest.mark.parametrize("mpm", ["event", "worker", "prefork", "blocking event"])
def test_S_002_S_008_S_013_S_014_a_session(httpd, stub_server, stub, mpm):
    options = {"directives": "BoshAsync Off"} if mpm == "blocking event" else {"mpm": mpm}
    server = script_server(httpd, stub_server, **options, children=4 if mpm == "prefork" else 2)
    client = ScriptClient(server.port, secrets=server.secrets)
    session, upstream = client.login(stub)
    held = session.send_next()
    held.held()
    upstream.send_message("to the client")
    answer = held.answer()
    assert answer.texts() == ["to the client"]
    assert answer.script.startswith(b'_BOSH_("\\u003cbody ') and answer.script.endswith(b'\\u003c\\/body>")')
    # A resend, held requests that make room, one answered empty, and the end.
    assert session.send(session.rid).answer().script == answer.script
    first = session.send_next(X.message("one"))
    second = session.send_next(X.message("two"))
    E(first.answer())
    assert upstream.wait_bodies(2) == ["one", "two"]
    again = session.send(session.rid, X.message("two"))
    RB(second.answer())
    last = session.send_next(type="terminate")
    T(again.answer())
    E(last.answer())
    session.over = True
    upstream.wait_end()
    assert upstream.bodies() == ["one", "two"]
    client.close()
    server.stop()


def test_S_002_no_post_in_a_script_session(client, pure, stub):
    session, upstream = client.start(stub)
    held = session.send(1001).held()
    TB(pure.post(session.body(1002, X.message("x"))).answer(), "bad-request")  # in the syntax of the request
    TB(held.answer(), "other-request")
    session.over = True
    upstream.wait_end()
    assert upstream.bodies() == []


def test_S_002_no_get_in_another_session(client, pure, stub):
    session, upstream = pure.start(stub)
    TB(client.post(session.body(1001, X.message("x"))).answer(), "bad-request")
    session.over = True
    upstream.wait_end()
    assert upstream.bodies() == []


def test_S_003_S_004_S_005_text_of_the_query(client, stub):
    session, upstream = client.login(stub)
    odd = "1+1=2 & more? é \U0001F600 %41 %25 \" \\ ' #"
    session.send_next(X.message(odd))
    plain = "~!$'()*+,;=:@/?-._"
    # By hand: percent signs of either case, nothing escaped that need not be.
    text = session.body(session.rid + 1, X.message(plain))
    session.rid += 1
    for char in '<> "':
        text = text.replace(char, f"%{ord(char):02x}")
    client.get(text)
    assert upstream.wait_bodies(2) == [odd, plain]


@pytest.mark.parametrize("query", ["%3Cbody%2", "%3Cbody%zz/%3E", "%3Cbody", "%3Cbody%00/%3E", "%3Cbody/%3E%FF"])
def test_S_003_malformed(client, stub, query):
    TB(client.get(query).answer(), "bad-request")


def test_S_006_a_stanza_over_requests(client, stub):
    session, upstream = client.login(stub)
    message = X.message("in <pieces> é")
    send_all(session, message)
    assert upstream.wait_bodies(1) == ["in <pieces> é"]


def test_S_006_pieces_out_of_order(client, stub):
    session, upstream = client.login(stub)
    rid, message = session.rid, X.message("put together")
    late = session.send(rid + 2, message[20:])
    late.held()
    E(session.send(rid + 1, message[:20]).answer())
    assert upstream.wait_bodies(1) == ["put together"]
    upstream.send_message("reply")
    assert late.answer().texts() == ["reply"]


def test_S_006_S_016_a_stanza_of_100_kb(client, stub):
    session, upstream = client.login(stub)
    message = X.message("0123456789" * 10000)
    send_all(session, [message[at:at + 7000] for at in range(0, len(message), 7000)])
    assert upstream.wait_bodies(1) == ["0123456789" * 10000]


def test_S_006_the_size_of_a_stanza(httpd, stub_server, stub):
    server = script_server(httpd, stub_server, directives="BoshMaxBody 10000")
    client = ScriptClient(server.port, secrets=server.secrets)
    session, upstream = client.login(stub)
    send_all(session, ["<message xmlns='jabber:client'><body>" + 4000 * "x", 4000 * "y"])
    TB(session.send_next(4000 * "z").answer(), "policy-violation")
    session.over = True
    upstream.wait_end()
    client.close()


def test_S_007_a_comment_in_two_pieces(client, stub):
    session, upstream = client.login(stub)
    held = session.send_next("<message xmlns='jabber:client'><!-")
    TB(session.send_next("- x --></message>").answer(), "bad-request")
    TB(held.answer(), "other-request")
    session.over = True
    upstream.wait_end()
    assert upstream.bodies() == []


# ---- answers ----

def test_S_009_S_010_S_011_S_012_escapes(client, stub):
    """Evaluated by a JavaScript engine; that nothing was left as it is, in the bytes."""
    session, upstream = client.login(stub)
    formats = "".join(chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Cf")
    text = "\"quoted\" \\back\\ line\nend\ttab \u2028\u2029 </script><!-- ]]> é \U0001F600 " + formats
    held = session.send_next()
    upstream.send(f"<message xmlns='jabber:client' to='a@example.com'><body>{X.escape(text)}&#13;</body></message>"
                  .replace("&lt;/script>", "<![CDATA[</script>]]>"))
    answer = held.answer()
    script = answer.script.decode()
    assert answer.texts() == [text + "\r"]
    assert not [c for c in script if c in "\n\r\u2028\u2029<" or unicodedata.category(c) == "Cf"]
    assert "\u00e9 \U0001F600" in script  # what need not be escaped is not
    evaluated = subprocess.run([NODE, "-e", "_BOSH_ = (text) => process.stdout.write(text);" + script],
                               capture_output=True, check=True)
    assert evaluated.stdout == answer.body


def test_S_013_content(client, stub):
    session, _ = client.start(stub, content="application/x-javascript; charset=utf-8")  # checked with each answer
    session.terminate()
    for xml in ("text/xml; charset=utf-8", "application/xml", "application/soap+xml"):
        session = client.session(client.post(new_body(content=xml), creation=True, content=SCRIPT_TYPE))
        assert session.creation.get("Content-Type") == SCRIPT_TYPE
        session.content = SCRIPT_TYPE


def test_S_015_only_complete_stanzas(client, stub):
    session, upstream = client.login(stub)
    held = session.send_next()
    upstream.send("<message xmlns='jabber:client'><body>in two")
    held.held()
    upstream.send(" parts</body></message><presence")
    answer = held.answer()
    assert answer.texts() == ["in two parts"] and len(answer.kids) == 1


def test_S_016_long_queries(client, stub):
    session, upstream = client.login(stub)
    room = 8190 - len(f"GET {BIND_PATH}? HTTP/1.1") - len(quote(session.body(99999999, X.message("")), safe=UNESCAPED))
    session.send_next(X.message(room * "x"))
    assert upstream.wait_bodies(1) == [room * "x"]
    text = session.body(session.rid + 1, X.message(8200 * "y"))
    assert client.get(quote(text, safe=UNESCAPED)).raw().status == 414
    session.send_next(X.message("the session goes on"))
    assert upstream.wait_bodies(2)[1:] == ["the session goes on"]


def test_S_016_larger_than_a_body_may_be(httpd, stub_server, stub):
    server = script_server(httpd, stub_server, directives="BoshMaxBody 2000")
    client = ScriptClient(server.port, secrets=server.secrets)
    session, upstream = client.login(stub)
    text = session.body(session.rid + 1, X.message(2000 * "x"))
    assert client.post(text).raw().status == 413  # B-019
    session.send_next(X.message("the session goes on"))
    assert upstream.wait_bodies(1) == ["the session goes on"]
    client.close()


def test_S_017_errors_are_scripts(client, stub):
    TB(client.post(new_body(to="unknown.example")).answer(), "host-unknown")
    TB(client.post(wrap(rid=7, sid="nothing")).answer(), "item-not-found")
    TB(client.post(new_body(rid="x", ver=None)).answer(), "bad-request")
    session, upstream = client.start(stub, ver=None)  # clients from before 1.6 would get 404 for a POST
    TB(session.send(1009).answer(), "item-not-found")
    session.over = True
    upstream.wait_end()


def test_S_017_the_servers_error(client, stub):
    session, upstream = client.login(stub)
    held = session.send_next()
    upstream.send_stream_error("conflict")
    TB(held.answer(), "remote-stream-error")
    session.over = True


# ---- strangers ----

@pytest.mark.parametrize("headers", [
    {"Referer": PAGE + "/a/b?c"}, {"Referer": PAGE}, {"Referer": PAGE + "?c"}, {"Referer": PAGE + "#c"},
    {"Referer": "http://other.example:8080/"}, {"Origin": PAGE},
    {"Referer": "http://localhost/"}, {"Referer": None, "Sec-Fetch-Site": "same-origin"},
    {"Referer": PAGE + "/", "Sec-Fetch-Site": "cross-site"}])
def test_S_018_pages_that_may(client, stub, headers):
    session = client.session(client.post(new_body(), headers=headers, creation=True))
    assert session.sid


@pytest.mark.parametrize("headers", [
    {"Referer": "https://evil.example/"}, {"Referer": None}, {"Referer": "https://page.example.evil.example/"},
    {"Referer": "https://evil.example/" + PAGE}, {"Referer": "http://page.example/"}, {"Referer": "page.example"},
    {"Referer": PAGE + ":8443/"}, {"Referer": "https://evil.example?" + PAGE}, {"Referer": "https://localhost:1/"},
    {"Referer": "https://evil.example#localhost"}, {"Referer": PAGE + "@evil.example/"},
    {"Referer": PAGE + "/", "Origin": "https://evil.example"}, {"Origin": "null"}, {"Referer": ""},
    {"Referer": None, "Sec-Fetch-Site": "cross-site"}, {"Referer": None, "Sec-Fetch-Site": "same-site"},
    {"Referer": None, "Sec-Fetch-Site": "none"},
    {"Referer": "https://evil.example/", "Sec-Fetch-Site": "same-origin"}])
def test_S_018_pages_that_may_not(client, stub, headers):
    answer = client.post(new_body(), headers=headers).raw()
    assert answer.status == 403 and answer.get("Content-Type").startswith("text/plain")
    no_more_upstream(client, stub)


def test_S_018_any_page_when_all_may(httpd, stub_server, stub):
    server = httpd(upstreams=[stub_server.upstream()], directives="BoshScriptSyntax On\nBoshAllowOrigin *")
    server.expect_log("BH013")
    client = ScriptClient(server.port, secrets=server.secrets)
    for headers in ({"Referer": "https://evil.example/"}, {"Referer": None}):
        assert client.session(client.post(new_body(), headers=headers, creation=True)).sid
    client.close()


def checked(*lines):
    server = Httpd(name="config", directives="\n".join(lines))
    try:
        return server.check_config()
    finally:
        server.cleanup()


def test_S_018_configuration():
    code, said = checked("BoshScriptSyntax On", "BoshRequireTLS On")
    assert code != 0 and "BH012" in said and "BoshAllowOrigin" in said, said
    code, said = checked("BoshScriptSyntax On", f"BoshAllowOrigin {PAGE}")
    assert code == 0 and "BH013" in said and "BoshRequireTLS" in said, said
    code, said = checked("BoshScriptSyntax On", f"BoshAllowOrigin {PAGE}", "BoshRequireTLS On")
    assert code == 0 and "BH01" not in said, said
    code, said = checked("<VirtualHost *:1>", "BoshScriptSyntax On", "</VirtualHost>")
    assert code != 0 and "BH012" in said, said
    code, said = checked(f"BoshAllowOrigin {PAGE}", "<VirtualHost *:1>", "BoshScriptSyntax On", "</VirtualHost>")
    assert code == 0 and "BH013" in said, said
    code, said = checked("BoshScriptSyntax Off")
    assert code == 0 and "BH01" not in said, said


def test_S_018_over_tls_only(httpd, stub_server, stub):
    server = httpd(upstreams=[stub_server.upstream()], directives=ON + "\nBoshRequireTLS On", tls=True)
    client = ScriptClient(server.port)
    TB(client.post(new_body()).answer(), "see-other-uri")
    client = ScriptClient(server.tls_port, tls=True, secrets=server.secrets)
    session, _ = client.start(stub)
    session.terminate()


def test_B_020_B_017_headers(client, stub):
    session, _ = client.start(stub)
    answer = session.send(1001, headers={"Origin": PAGE}, type="terminate").answer()
    assert answer.get("X-Content-Type-Options") == "nosniff"
    assert answer.get("Access-Control-Allow-Origin") == PAGE and "Origin" in answer.get("Vary")
    assert "default-src 'none'" in answer.get("Content-Security-Policy")


def test_B_103_nothing_in_logs(httpd, stub_server, stub):
    """Session id, password and messages are in the request line, which httpd logs and mod_status shows, the longest
    of a worker that waits."""
    server = script_server(httpd, stub_server, directives="BoshAsync Off")
    client = ScriptClient(server.port, secrets=server.secrets)
    session, upstream = client.login(stub, user="alice")
    held = session.send_next(X.message("a-secret-message"))
    upstream.wait_bodies(1)
    # mod_status shows 63 characters, in which this one has its session id.
    more = client.get(f"%3Cbody%20sid='{session.sid}'%20rid='{session.rid + 1}'%20xmlns='{X.NS_BOSH}'/%3E")
    session.rid += 1
    E(held.answer())
    held = more
    status = client.request("GET", "/server-status").body.decode()
    assert f"GET {BIND_PATH} HTTP/1.1" in status
    upstream.send_message("reply")
    held.answer()
    client.get("%3Cbody%20sid='" + session.sid, headers={"Referer": "https://evil.example/"}).raw()
    wait_for(lambda: server.access_log.read_text().count(f'"GET {BIND_PATH} HTTP/1.1"') >= 6, what="the access log")
    for text in (status, server.access_log.read_text(), "".join(server.log_lines())):
        for secret in (session.sid, "a-secret-message", auth("alice").split(">")[1].split("<")[0]):
            assert secret not in text
    client.close()


def test_B_103_nothing_in_logs_of_a_rewritten_path(httpd, stub_server, stub):
    """A rewriting in <Location> redirects internally, and it is the first of the two requests that is logged."""
    rules = "<Location /old-bind>\nRewriteEngine On\nRewriteRule ^ /http-bind [L]\n</Location>"
    server = script_server(httpd, stub_server, directives=rules, modules=["rewrite"])
    client = ScriptClient(server.port, path="/old-bind", secrets=server.secrets)
    TB(client.get(f"%3Cbody%20sid='a-secret-sid'%20rid='1'%20xmlns='{X.NS_BOSH}'/%3E").answer(), "item-not-found")
    client.close()
    wait_for(lambda: '"GET /old-bind HTTP/1.1"' in server.access_log.read_text(), what="the access log")
    assert "a-secret-sid" not in server.access_log.read_text() + "".join(server.log_lines())


# ---- with all the rest ----

def test_S_006_B_233_overactivity(httpd, stub_server, stub):
    server = script_server(httpd, stub_server, polling=None)
    client = ScriptClient(server.port, secrets=server.secrets)
    session, upstream = client.start(stub)
    held = session.send(1001)
    for i in range(5):  # data may come at any time, in pieces as well
        following = session.send_next(X.message(f"m{i}")[:30])
        E(held.answer())
        held = session.send_next(X.message(f"m{i}")[30:])
        E(following.answer())
    assert upstream.wait_bodies(5) == [f"m{i}" for i in range(5)]
    TB(session.send_next().answer(), "policy-violation")
    TB(held.answer(), "other-request")
    session.over = True
    client.close()


@pytest.mark.parametrize("by", ["BoshDeflate On", "BoshDeflate Off"])
def test_B_003_B_006_compressed(httpd, stub_server, stub, by):
    server = script_server(httpd, stub_server, modules=("filter", "deflate"), directives=by,
                           location="AddOutputFilterByType DEFLATE text/javascript")
    client = ScriptClient(server.port, secrets=server.secrets)
    session, upstream = client.login(stub)
    held = session.send_next(headers={"Accept-Encoding": "gzip"})
    upstream.send_message("long " * 2000)
    script = held.raw()
    assert script.get("Content-Encoding") == "gzip" and script.get("Content-Length") == str(len(script.body))
    assert "long " * 2000 in evaluate(gzip.decompress(script.body)).decode()
    assert evaluate(gzip.decompress(script.body)) == session.send(session.rid).answer().body
    client.close()


def test_a_get_with_a_body(client, server, stub):
    """What follows the headers is read away, and does not pass for the next request."""
    session, upstream = client.login(stub)
    conn = Conn(server.port)
    held = client.get(quote(session.body(session.rid + 1), safe=UNESCAPED), conn=conn, data=b"x" * 3000)
    session.rid += 1
    held.held()
    upstream.send_message("reply")
    assert held.answer().texts() == ["reply"]
    assert session.send_next(X.message("next"), conn=conn).held()
    conn.close()


def test_a_graceful_restart(client, server, stub):
    """Half a stanza and a held request: both are in the shared memory."""
    session, upstream = client.login(stub)
    message = X.message("across a restart")
    held = session.send_next(message[:40])
    server.graceful()
    server.expect_log("BH013")
    answer = held.answer(20)
    assert answer.attr("type") is None
    session.send_next(message[40:])
    assert upstream.wait_bodies(1, timeout=10) == ["across a restart"]
