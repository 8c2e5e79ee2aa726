# SPDX-License-Identifier: Apache-2.0
"""Overactivity and page reloads at the module's own settings: checklist section 8 (XEP-0124 11, 12).

The rules are in tests/unit/test_pace.c; here it is whether the end of a connection is noticed in time.
"""

import shutil
import subprocess
import time

import pytest
import xmltool as X
from bosh_env import VALGRIND, wait_for
from client import E, TB

CURL = shutil.which("curl")


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], polling=None)


@pytest.fixture(scope="module")
def blocking(httpd, stub_server):
    return httpd(mpm="worker", children=2, upstreams=[stub_server.upstream()], polling=None)


@pytest.fixture(scope="module")
def h2_server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()], polling=None, h2=True)


def test_B_233_a_poll_behind_a_held_request(client, stub):
    session, upstream = client.start(stub)
    assert session.creation.attr("polling") == "5"
    held = session.send(1001).held()
    TB(session.send(1002).answer(), "policy-violation")
    TB(held.answer(), "other-request")
    session.over = True
    upstream.wait_end()


def test_B_234_data_behind_a_held_request(client, stub):
    session, upstream = client.start(stub)
    held = session.send(1001)
    for i in range(10):
        following = session.send_next(X.message(f"m{i}"))
        E(held.answer())
        held = following
    assert upstream.wait_bodies(10) == [f"m{i}" for i in range(10)]
    upstream.send_message("still there")
    assert held.answer().texts() == ["still there"]


def test_B_241_polling_too_fast(client, stub):
    session, upstream = client.start(stub, hold=0)
    E(session.next(X.message("x")))
    E(session.next())
    TB(session.next(), "policy-violation")
    session.over = True
    upstream.wait_end()


def aborted(session, upstream, n, end):
    """A page that goes away: its request, the nth with a message, is held and then its connection ends."""
    held = session.send_next(X.message(f"up {n}"))
    upstream.wait_bodies(n)
    if end == "rst":
        held.rst()
    else:
        held.cut()


def reloads(session, upstream, times, leave, patience=0):
    """Each time the next page asks at once, on a connection of its own, and gets what comes."""
    for n in range(1, times + 1):
        leave(n)
        answer = session.send_next()
        if patience:
            answer.held(patience)
        upstream.send_message(f"after {n}")
        assert answer.answer().texts() == [f"after {n}"]


@pytest.mark.valgrind
@pytest.mark.rows("R-19")
@pytest.mark.parametrize("end", ["rst", "fin"])
def test_R_19_reloads(client, stub, end):
    session, upstream = client.start(stub)
    reloads(session, upstream, 3 if VALGRIND else 15, lambda n: aborted(session, upstream, n, end))


def test_R_19_reloads_when_each_request_blocks_a_worker(blocking, stub):
    client = blocking.client()
    session, upstream = client.start(stub)
    reloads(session, upstream, 10, lambda n: aborted(session, upstream, n, "fin"))
    client.close()


def h2_page(server, session, upstream, n):
    """Holds a request, the nth with a message, over HTTP/2 until it is terminated."""
    session.rid += 1
    page = subprocess.Popen([CURL, "-sS", "--http2-prior-knowledge", "--max-time", "20", "-o", "/dev/null",
                             "-H", "Content-Type: text/xml", "--data-binary",
                             session.body(session.rid, X.message(f"up {n}")), server.url()])
    upstream.wait_bodies(n)
    return page


@pytest.mark.skipif(not CURL, reason="no curl")
def test_R_19_reloads_over_http2(h2_server, stub):
    client = h2_server.client()
    session, upstream = client.start(stub)

    def leave(n):
        page = h2_page(h2_server, session, upstream, n)
        page.terminate()
        page.wait()
    # What is sent while mod_http2 has not seen the end of the connection would go there.
    reloads(session, upstream, 3, leave, patience=1.3)
    client.close()


@pytest.mark.skipif(not CURL, reason="no curl")
def test_R_19_a_reload_over_http2_that_shows_later(h2_server, stub):
    """The end of the page's connection comes behind the next page's request, as on a busy server."""
    client = h2_server.client()
    session, upstream = client.start(stub)
    page = h2_page(h2_server, session, upstream, 1)
    answer = session.send_next()
    answer.held(0.1)
    before = h2_server.access_log.read_text().count("HTTP/2.0")
    page.terminate()
    page.wait()
    # Not only when the new request is convicted, a second after it came (BOSH_PACE_GRACE).
    wait_for(lambda: h2_server.access_log.read_text().count("HTTP/2.0") > before, what="the page's request ends")
    assert time.monotonic() - answer.sent_at < 0.9
    answer.held(1.3)
    upstream.send_message("after")
    assert answer.answer().texts() == ["after"]
    client.close()
