# SPDX-License-Identifier: Apache-2.0
"""Key sequencing on a real httpd: checklist section 10 (XEP-0124 15). The rules are in tests/unit/test_keys.c."""

import hashlib

import pytest
from client import E, TB
import xmltool as X


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()])


class Keys:
    """A chain of n keys, used from its end (15.2)."""

    def __init__(self, secret, n=20):
        self.keys = [secret]
        for _ in range(n):
            self.keys.append(hashlib.sha1(self.keys[-1].encode()).hexdigest())

    def take(self):
        return self.keys.pop()


def test_B_270_a_session_with_keys(client, stub):
    keys = Keys("a secret")
    session, upstream = client.start(stub, newkey=keys.take())
    key = keys.take()
    exchange = session.send(1001, X.message("first"), key=key)
    upstream.wait_bodies(1)
    upstream.send_message("reply")
    answer = exchange.answer()
    assert answer.texts() == ["reply"]
    assert session.send(1001, X.message("first"), key=key).answer().body == answer.body
    more = Keys("another secret")
    held = session.send(1002, X.message("second"), key=keys.take(), newkey=more.take())
    upstream.wait_bodies(2)
    last = session.send(1003, X.message("third"), key=more.take())
    E(held.answer())
    upstream.wait_bodies(3)
    TB(session.send(1004, X.message("injected"), key=keys.take()).answer(), "item-not-found")
    TB(last.answer(), "other-request")
    session.over = True
    upstream.wait_end()
    assert upstream.bodies() == ["first", "second", "third"]


def test_B_277_nobody_else_gets_a_kept_answer(client, stub):
    keys = Keys("a secret")
    session, upstream = client.start(stub, newkey=keys.take())
    exchange = session.send(1001, key=keys.take())
    upstream.send_message("private")
    assert exchange.answer().texts() == ["private"]
    TB(session.send(1001, key=Keys("guess").take()).answer(), "item-not-found")
    session.over = True


def test_B_278_the_administrator_turns_it_off(httpd, stub):
    server = httpd(children=1, upstreams=[stub.upstream()], directives="BoshKeys Off\n")
    client = server.client()
    session, upstream = client.start(stub, newkey="what the client likes")
    session.send(1001, X.message("taken"), key="wrong")
    assert upstream.wait_bodies(1) == ["taken"]
    client.close()
