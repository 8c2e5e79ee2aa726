# SPDX-License-Identifier: Apache-2.0
"""What a request that waits for long costs in memory."""

from pathlib import Path

import pytest
import xmltool as X
from bosh_env import INSTRUMENTED, wait_for

COUNT = 120
ROUNDS = 4
GIVEN_BACK_KB = 12  # of each connection, at the least; 24 on Debian 12


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    # Threads for all of them at once: event closes idle connections when it has none to spare.
    return httpd(children=1, threads=2 * COUNT, upstreams=[stub_server.upstream()], log_level="info",
                 directives="KeepAliveTimeout 60\n")


def private_kb(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise AssertionError("no Private_Dirty in smaps_rollup")


@pytest.mark.skipif(INSTRUMENTED, reason="sizes of processes mean nothing here")
def test_an_old_hold_gives_memory_back(server, client, stub):
    """Each connection has served a few requests; then one waits on each, and goes on waiting."""
    stub.script.echo = True
    child = server.children()[0]
    sessions = [client.start(stub, wait=50)[0] for _ in range(COUNT)]
    conns = [client.connect() for _ in sessions]
    for _ in range(ROUNDS):
        for exchange in [s.send_next(X.message("x" * 600), conn=c) for s, c in zip(sessions, conns)]:
            exchange.answer(20)
    held = [s.send_next(conn=c) for s, c in zip(sessions, conns)]
    held[-1].held()
    assert not any(x.done() for x in held)
    young = private_kb(child)
    wait_for(lambda: young - private_kb(child) >= COUNT * GIVEN_BACK_KB, 30,
             f"{COUNT} old holds give back {GIVEN_BACK_KB} KB each, of {young} KB in all")
    # They are answered as ever.
    for session in sessions:
        session.send_next(X.message("late"))
    assert all(x.answer(20).status == 200 for x in held)
