# SPDX-License-Identifier: Apache-2.0
"""What administrators and monitoring see: SetHandler bosh-status in its formats, and the page of mod_status."""

import json
import os
import re
import signal
from html.parser import HTMLParser

import pytest
import xmltool as X
from bosh_env import Httpd, VALGRIND, wait_for

STATUS = "/bosh-status"
LOCATION = f'<Location "{STATUS}">\n  SetHandler bosh-status\n</Location>\n'
FORMATS = [STATUS, f"{STATUS}?format=json", f"{STATUS}?format=prometheus", "/server-status", "/server-status?auto"]


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], directives=LOCATION)


def fetch(client, path):
    answer = client.request("GET", path)
    assert answer.status == 200, answer
    return answer


def status(client):
    return json.loads(fetch(client, f"{STATUS}?format=json").body)


def lost(counters):
    """Sessions lost, by reason."""
    return {reason: counters[f"lost_{reason}"] for reason in ("crash", "repair", "drain", "stop")}


def text(client, path):
    return fetch(client, path).body.decode()


def settled(client):
    """The numbers once nothing of earlier tests is under way."""
    def quiet():
        now = status(client)
        return now if now["sessions"]["live"] == now["sessions"]["held"] == now["sessions"]["ending"] == 0 else None
    return wait_for(quiet, 10, "no live session is left")


class Page(HTMLParser):
    """{th: td} of the rows with one cell, all tags, and whether they are nested properly."""

    VOID = {"meta"}

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self.open, self.cells = {}, [], [], []
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells = []
        if tag in ("th", "td"):
            self.cells.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"
        if tag == "tr" and len(self.cells) == 2:
            self.rows[self.cells[0]] = self.cells[1]

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1] += data


SAMPLE = re.compile(r'(?P<name>bosh_[a-z_]+)(?:\{(?P<labels>[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*)\})?'
                    r' (?P<value>\d+(?:\.\d+)?)')


def prometheus(page):
    """{sample with its labels: value}; checks every line against the text format 0.0.4."""
    assert page.endswith("\n") and "\r" not in page
    samples, types, helped, current = {}, {}, [], None
    for line in page.splitlines():
        if line.startswith("# HELP "):
            current, text_of = line[7:].split(" ", 1)
            assert current not in helped and text_of.strip() and "\\" not in text_of, line
            helped.append(current)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == current and name not in types, f"TYPE does not follow its HELP: {line}"
            assert kind == ("counter" if name.endswith("_total") else "gauge"), line
            types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            assert match["name"] == current and current in types, f"not under its family: {line}"
            key = line.rsplit(" ", 1)[0]
            assert key not in samples, f"twice: {line}"
            samples[key] = float(match["value"])
    return samples


def fields(page):
    """{name: value} of ?auto."""
    return dict(line.split(": ", 1) for line in page.splitlines() if line.startswith("Bosh"))


# ---- the numbers ----

@pytest.mark.valgrind
def test_numbers_move_as_sessions_come_and_go(client, stub):
    before = settled(client)
    assert before["sessions"]["capacity"] == 10000
    first, upstream = client.login(stub, "romeo")
    client.login(stub, "juliet")
    now = status(client)
    assert now["sessions"]["live"] == 2 and now["sessions"]["held"] == 0, now
    assert now["counters"]["created"] == before["counters"]["created"] + 2
    assert now["counters"]["requests"] > before["counters"]["requests"]
    assert sum(p["streams"] for p in now["peers"]) >= 2

    base = now["counters"]
    exchange = first.send_next(X.message("down"))
    upstream.wait_bodies(1)
    upstream.send_message("up")
    assert exchange.answer().texts() == ["up"]
    now = status(client)["counters"]
    for name in ("requests", "stanzas_down", "stanzas_up"):
        assert now[name] == base[name] + 1, f"{name}: {base[name]} -> {now[name]}"
    again = first.send(first.rid).answer()
    assert again.texts() == ["up"]
    now = status(client)["counters"]
    assert now["resends"] == base["resends"] + 1 and now["requests"] == base["requests"] + 2

    for session in client.sessions:
        session.terminate()
    after = settled(client)["counters"]
    assert after["ended"] == before["counters"]["ended"] + 2 and lost(after) == lost(before["counters"])


def test_chunks_add_up_and_fill(client, stub):
    def memory():
        now = status(client)["memory"]
        assert now["chunks_used"] + now["chunks_free"] == now["chunks_total"] > 0, now
        return now
    assert memory()["arena_bytes"] > memory()["chunks_total"] * 512
    before = memory()["chunks_used"]
    _, upstream = client.login(stub)
    idle = memory()["chunks_used"]
    upstream.send_message("x" * 100000)
    wait_for(lambda: memory()["chunks_used"] >= idle + 97, 5, "100 KB that wait for the client occupy chunks")
    client.close()
    # They went out with the answer to the terminate, which is kept for a resend for 15 seconds.
    wait_for(lambda: memory()["chunks_used"] <= before + 8, 25, "they are given back")


def test_held_requests_are_counted_where_they_wait(client, server, stub):
    settled(client)
    session, _ = client.login(stub, hold=2, wait=30)
    exchange = session.send_next()
    exchange.held()
    behind = session.send(session.rid + 2)  # waits for the one between
    behind.held()
    now = status(client)
    assert now["sessions"]["held"] == 2 == sum(p["held"] for p in now["peers"]), now

    holder = server.owner_of_connection(exchange.conn.local_port)
    now = server.taken_by(holder, lambda: client.request_async("GET", f"{STATUS}?format=json"))
    now = json.loads(now.raw().body)
    assert now["child"]["held_blocked"] == 0
    mine = next(p for p in now["peers"] if p["peer"] == now["peer"])
    assert now["child"]["held_async"] == mine["held"] > 0
    behind.cut()
    wait_for(lambda: status(client)["sessions"]["held"] == 1, 5, "a request whose client is gone does not count")
    exchange.cut()
    wait_for(lambda: status(client)["sessions"]["held"] == 0, 5, "none is held")


def test_blocked_requests_are_told_apart(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives=LOCATION + "BoshAsync Off\n", children=1)
    client = server.client()
    session, _ = client.login(stub, wait=30)
    session.send_next().held()
    now = status(client)
    assert now["child"]["held_blocked"] == 1 and now["child"]["held_async"] == 0 and now["sessions"]["held"] == 1
    client.close()
    server.stop()


def test_a_session_whose_stream_is_over_is_ending(client, stub):
    settled(client)
    session, upstream = client.login(stub)
    upstream.end_stream()
    wait_for(lambda: status(client)["sessions"]["ending"] == 1, 5, "one session is ending")
    assert status(client)["sessions"]["live"] == 0
    assert session.next().attr("type") == "terminate"
    session.over = True
    now = status(client)["sessions"]
    assert now["ending"] == 0 and now["tomb"] >= 1, now


@pytest.mark.skipif(VALGRIND, reason="too many sessions for it")
def test_more_sessions_than_one_look_takes(client, stub):
    settled(client)
    n = 2 * 256 + 3
    under_way = []
    for _ in range(n):
        under_way.append(client.new_async(wait=5))
        if len(under_way) == 50:
            for exchange in under_way:
                client.session(exchange)
            under_way = []
    for exchange in under_way:
        client.session(exchange)
    now = status(client)
    assert now["sessions"]["live"] == n and sum(p["streams"] for p in now["peers"]) >= n, now
    assert fields(text(client, "/server-status?auto"))["BoshSessions"] == str(n)
    client.close()
    settled(client)


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
def test_peers_and_a_hand_over(client, stub, server):
    session, upstream = client.login(stub)
    before = status(client)
    live = [p for p in before["peers"] if p["state"] == "live"]
    assert {p["pid"] for p in live} == set(server.children())
    assert all(p["heartbeat_age_ms"] < 5000 and p["mailbox"] < 1024 for p in live), live
    server.graceful()
    wait_for(lambda: status(client)["counters"]["moved"] > before["counters"]["moved"], 10, "the stream has moved")

    def renewed():
        now = status(client)
        return now if {p["pid"] for p in now["peers"]} == set(server.children()) and len(now["peers"]) == 3 else None
    after = wait_for(renewed, 15, "the old children are gone, and their peers with them")
    assert {p["generation"] for p in after["peers"]} == {live[0]["generation"] + 1}
    assert lost(after["counters"]) == lost(before["counters"])
    exchange = session.send_next()
    upstream.send_message("still here")
    assert exchange.answer().texts() == ["still here"]


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
def test_sessions_lost_with_a_process_that_died(httpd, stub):
    server = httpd(upstreams=[stub.upstream()], directives=LOCATION + "BoshEscrow Off\n", children=2)
    client = server.client()
    sessions = [client.start(stub) for _ in range(8)]
    owners = [server.owner_of(upstream.peer_port) for _, upstream in sessions]
    victim, n = owners[0], owners.count(owners[0])
    server.expect_log(rf"BH204: .* {n} upstream streams were lost")
    server.kill_child(victim)
    wait_for(lambda: len(server.children()) == 2 and victim not in server.children(), 10, "a new child")
    wait_for(lambda: lost(status(client)["counters"])["crash"] == n, 10, "they are counted")
    assert lost(status(client)["counters"]) == {"crash": n, "repair": 0, "drain": 0, "stop": 0}
    samples = prometheus(text(client, f"{STATUS}?format=prometheus"))
    assert {reason: samples[f'bosh_sessions_lost_total{{reason="{reason}"}}']
            for reason in ("crash", "repair", "drain", "stop")} == lost(status(client)["counters"])
    assert fields(text(client, "/server-status?auto"))["BoshSessionsLostCrash"] == str(n)
    for (session, _), owner in zip(sessions, owners):
        session.over = owner == victim
    client.close()
    server.stop()


@pytest.mark.skipif(VALGRIND, reason="one process under valgrind")
def test_sessions_lost_with_a_process_that_was_stopped(httpd, stub):
    """SIGTERM to a child that is not idle: prefork alone heeds that."""
    server = httpd(mpm="prefork", upstreams=[stub.upstream()], directives=LOCATION, children=4)
    client = server.client()
    sessions = [client.start(stub) for _ in range(8)]
    owners = [server.owner_of(upstream.peer_port) for _, upstream in sessions]
    victim, n = owners[0], owners.count(owners[0])
    os.kill(victim, signal.SIGTERM)
    wait_for(lambda: victim not in server.children(), 10, "it ends")
    if any(re.search(rf"gave {n} streams to \d+ peers", line) for line in server.log_lines()):
        # It was between two looks for a connection, where a signal does not end it at once: nothing is lost.
        assert not any(lost(status(client)["counters"]).values())
        for session, upstream in sessions:
            upstream.send_message("still here")
            assert session.next().texts() == ["still here"]
        client.close()
        server.stop()
        return
    wait_for(lambda: lost(status(client)["counters"])["stop"] == n, 10, "they are counted")
    assert lost(status(client)["counters"]) == {"crash": 0, "repair": 0, "drain": 0, "stop": n}
    assert f"stopped: {n} sessions ended with system-shutdown" in "".join(server.log_lines())
    for (session, upstream), owner in zip(sessions, owners):
        if owner == victim:
            session.over = True
            upstream.wait_closed()
            assert upstream.ended
    client.close()
    server.stop()


# ---- the formats ----

@pytest.mark.valgrind
def test_all_formats_say_the_same(client, stub):
    settled(client)
    session, _ = client.login(stub)
    session.send_next().held()
    now = status(client)
    samples = prometheus(text(client, f"{STATUS}?format=prometheus"))
    rows = Page(text(client, STATUS)).rows
    auto = fields(text(client, "/server-status?auto"))
    page = text(client, "/server-status")
    assert page.index("mod_bosh") < page.index("</body>")
    assert now["sessions"]["live"] == 1 and now["counters"]["created"] > 0
    for group, key, sample, row, name in [
            ("sessions", "live", 'bosh_sessions{state="live"}', "Live sessions", "BoshSessions"),
            ("sessions", "tomb", 'bosh_sessions{state="tomb"}',
             "Sessions that are over, answers kept for repeated requests", "BoshSessionsEnded"),
            ("sessions", "held", "bosh_held_requests", "Requests held, in all processes", "BoshRequestsHeld"),
            ("sessions", "capacity", "bosh_sessions_capacity", "Room for sessions (BoshMaxSessions)", "BoshSessionsMax"),
            ("memory", "chunks_used", 'bosh_chunks{state="used"}', "Chunks of memory in use", "BoshChunksUsed"),
            ("counters", "created", "bosh_sessions_created_total", "Sessions created", "BoshSessionsCreated"),
            ("counters", "requests", "bosh_requests_total", "Requests", "BoshRequests"),
            ("counters", "stanzas_down", 'bosh_stanzas_total{direction="to_server"}', "Stanzas to servers",
             "BoshStanzasToServer"),
            ("counters", "stanzas_up", 'bosh_stanzas_total{direction="to_client"}', "Stanzas to clients",
             "BoshStanzasToClient")]:
        value = now[group][key]
        assert samples[sample] == value, f"{sample} is {samples[sample]}, {value} in JSON"
        assert rows[row] == str(value), f"{row}: {rows[row]}, {value} in JSON"
        assert auto[name] == str(value), f"{name}: {auto[name]}, {value} in JSON"
        assert f"{row}: {value}<" in page, f"{row}: {value} is not on the page of mod_status"
    for peer in now["peers"]:
        number = f'peer="{peer["peer"]}"'
        assert samples[f"bosh_peer_pid{{{number}}}"] == peer["pid"]
        assert samples[f'bosh_peer_state{{{number},state="{peer["state"]}"}}'] == 1
        assert samples[f"bosh_peer_held_requests{{{number}}}"] == peer["held"]
        assert f"bosh_peer_heartbeat_age_seconds{{{number}}}" in samples


def test_every_number_is_in_every_format(client):
    now = status(client)
    assert now["version"] and f'bosh_info{{version="{now["version"]}"}}' in prometheus(
        text(client, f"{STATUS}?format=prometheus"))
    numbers = sum(len(now[group]) for group in ("sessions", "memory", "counters", "child"))
    samples = prometheus(text(client, f"{STATUS}?format=prometheus"))
    assert len(Page(text(client, STATUS)).rows) == numbers > 25
    assert len([k for k in samples if not k.startswith(("bosh_info", "bosh_peer_"))]) == numbers
    assert all(isinstance(v, int) for group in ("sessions", "memory", "counters", "child")
               for v in now[group].values())


@pytest.mark.parametrize("path,kind", [(STATUS, "text/html; charset=utf-8"), (f"{STATUS}?format=html", None),
                                       (f"{STATUS}?x=1&format=json", "application/json"),
                                       (f"{STATUS}?format=prometheus", "text/plain; version=0.0.4; charset=utf-8")])
def test_headers(client, path, kind):
    answer = fetch(client, path)
    assert answer.get("Content-Type").lower() == (kind or "text/html; charset=utf-8")
    assert answer.get("Cache-Control") == "no-store" and answer.get("X-Content-Type-Options") == "nosniff"
    assert answer.get("Content-Security-Policy").startswith("default-src 'none'")
    assert "unsafe" not in answer.get("Content-Security-Policy")
    assert answer.get("Content-Length") == str(len(answer.body))


def test_the_page_is_plain_and_accessible(client):
    page = Page(text(client, STATUS))
    names = [tag for tag, _ in page.tags]
    assert not {"script", "style", "img", "iframe", "form", "link"} & set(names)
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on") or a == "style"]
    assert dict(page.tags[0][1]) == {"lang": "en"} and names.count("h1") == 1 and "main" in names and "title" in names
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")


def test_nothing_of_a_session_is_shown(client, stub):
    session, upstream = client.login(stub, "mercutio")
    session.send_next(X.message("plague-down")).held()
    upstream.send_message("plague-up")
    session.texts(1)
    session.send_next().held()
    upstream.wait_bodies(1)
    pages = {path: text(client, path).lower() for path in FORMATS if path.startswith(STATUS) or "auto" in path}
    full = text(client, "/server-status").lower()
    pages["mod_status"] = full[full.index("mod_bosh"):]
    for path, page in pages.items():
        for secret in (session.sid, "mercutio", "plague", "example.com", "127.0.0.1"):
            if path == "/server-status?auto":
                page = "\n".join(line for line in page.splitlines() if line.startswith("bosh"))
            assert secret not in page, f"{secret} is shown by {path}"


# ---- requests ----

@pytest.mark.parametrize("path", FORMATS[:3])
def test_head_is_get_without_the_body(client, path):
    answer = client.request("HEAD", path)
    assert answer.status == 200 and answer.body == b"", answer
    assert int(answer.get("Content-Length")) > 500
    assert answer.get("Content-Type") == fetch(client, path).get("Content-Type")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_allowed(client, method):
    answer = client.request(method, STATUS, data=b"x" if method in ("POST", "PUT") else b"")
    assert answer.status == 405 and answer.get("Allow") == "GET, HEAD", answer


def test_an_unknown_format_is_refused(client):
    answer = client.request("GET", f"{STATUS}?format=%3Cxml%3E")
    assert answer.status == 400 and b"prometheus" in answer.body and b"xml" not in answer.body.lower(), answer


def test_no_status_where_none_is_configured(client):
    assert client.request("GET", "/elsewhere").status == 404


class WithoutModStatus(Httpd):
    def config(self):
        text_of = re.sub(r"LoadModule status_module .*\n", "", super().config())
        return re.sub(r"<Location /server-status>.*?</Location>\n", "", text_of, flags=re.DOTALL)


def test_without_mod_status(stub):
    server = WithoutModStatus(name="nostatus", upstreams=[stub.upstream()], directives=LOCATION, children=1)
    try:
        server.start()
        client = server.client()
        client.login(stub)
        assert status(client)["sessions"]["live"] == 1
        assert client.request("GET", "/server-status").status == 404
        client.close()
        server.stop()
        assert not server.new_problems()
    finally:
        server.kill() if server.alive() else None
        server.cleanup()
