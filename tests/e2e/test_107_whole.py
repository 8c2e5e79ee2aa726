# SPDX-License-Identifier: Apache-2.0
"""How a response is written: at once, and never by a worker that waits for its client."""

import json
import socket

import pytest
import xmltool as X
from bosh_env import wait_for

THREADS = 4
REPEATS = 1200  # of an answer of 3 KB: more than the sockets of both ends take


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(children=1, threads=THREADS, upstreams=[stub_server.upstream()],
                 directives='<Location "/bosh-status">\nSetHandler bosh-status\n</Location>\n')


def resends(client):
    answer = client.request("GET", "/bosh-status?format=json")
    assert answer.status == 200, answer
    return json.loads(answer.body)["counters"]["resends"]


def test_clients_that_do_not_read_keep_no_worker(server, client, stub):
    """More of them than workers ask for answers without end and read none: others are served as ever."""
    stub.script.echo = True
    session, _ = client.start(stub)
    text = X.message("x" * 3000)
    assert len(session.next(text).texts()[0]) == 3000
    body = session.body(session.rid, text).encode()
    request = client.head(len(body)) + body
    deaf = []
    try:
        for _ in range(2 * THREADS):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            deaf.append(s)
        for s in deaf:
            s.setblocking(False)
            for _ in range(REPEATS):
                try:
                    s.sendall(request)
                except BlockingIOError:  # that much is waiting there
                    break
        counts = []

        def full():
            counts.append(resends(client))
            return counts[-1] == counts[-10] if len(counts) >= 10 else False
        wait_for(full, 60, "none of them is given any more", interval=0.1)
        assert counts[-1] < 2 * THREADS * REPEATS
        assert session.next(X.message("still here")).texts() == ["still here"]
    finally:
        for s in deaf:
            s.close()
