# SPDX-License-Identifier: Apache-2.0
"""The tools of `make bench-restart` do what they say: a tiny run of each kind, and one that must be found bad."""

import subprocess
import sys

import pytest
from bosh_env import ROOT, VALGRIND, wait_for

sys.path.insert(0, str(ROOT / "bench"))

import restart

pytestmark = [pytest.mark.skipif(VALGRIND, reason="one process under valgrind"), pytest.mark.limit(120)]


@pytest.fixture(scope="module", autouse=True)
def bosh_load():
    done = subprocess.run(["make", "-s", "build/bench/bosh-load"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_restarts_under_load():
    table = restart.Table()
    restart.restarts(table, "smoke", restart.traffic(15, 2), {"children": 2, "threads": 16}, 2)
    assert table.failed == []
    assert table.count > 20


def test_a_kill_under_load():
    table = restart.Table()
    restart.kills(table, "smoke", restart.traffic(15, 2), {"children": 2, "threads": 16}, 1, restart.kill_any)
    assert table.failed == []


def test_loss_is_found():
    """Without escrow the sessions of a killed child end, and what was on its way is lost."""
    table = restart.Table()
    load = dict(restart.traffic(15, 0), rate=20)
    with restart.Run(table, "smoke", load, {"children": 1, "threads": 32, "directives": "BoshEscrow Off\n"}) as run:
        run.load.mark(0)
        restart.kill_any(run.server)
        run.server.killed += 1
        wait_for(lambda: run.load.look()["lost_sessions"] == 15, 20, "all sessions are lost")
        figures = run.finish()
    assert figures["lost_sessions"] == 15 and figures["status"] == 1
    assert any("sessions lost" in line for line in table.failed), table.failed
