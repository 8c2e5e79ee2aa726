# SPDX-License-Identifier: Apache-2.0
"""One session's trouble is nobody else's: servers that answer nothing, and one that sends without end. Small versions
of what `make bench-upstream` measures, with bounds that say "not stuck"; the tools of `make bench-tls`, too.

BOSH_FLOOD_MB: how much the flood brings (64)."""

import os
import subprocess
import sys

import pytest
from bosh_env import INSTRUMENTED, ROOT, VALGRIND

sys.path.insert(0, str(ROOT / "bench"))

import restart
import upstream

pytestmark = [pytest.mark.skipif(VALGRIND, reason="measures latency and memory")]

LIMIT_US = 10_000_000  # of latency
MEGABYTES = int(os.environ.get("BOSH_FLOOD_MB") or 64)


@pytest.fixture(scope="module", autouse=True)
def bosh_load():
    done = subprocess.run(["make", "-s", "build/bench/bosh-load"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def check(table, windows):
    assert table.failed == []
    for window in windows:
        for key in ("window_up_us", "window_down_us"):
            assert window[key]["n"] > 20 and window[key]["p99"] < LIMIT_US, window


@pytest.mark.limit(120)
@pytest.mark.rows("U-010", "U-012")
def test_a_black_hole_stalls_nobody_else():
    table = restart.Table()
    check(table, upstream.black_hole(table, "black hole", 50, 3, rate=2))


@pytest.mark.skipif(INSTRUMENTED, reason="sizes mean nothing under a sanitizer")
@pytest.mark.limit(120 + 2 * MEGABYTES)
def test_a_flood_meets_back_pressure():
    """Memory is bounded, nothing is lost, nobody else notices."""
    table = restart.Table()
    check(table, upstream.flood(table, "flood", MEGABYTES, 20, 40_000_000))


@pytest.mark.limit(120)
def test_sessions_of_tls_are_resumed_or_not():
    table = restart.Table()
    results = upstream.logins(table, "tls", 10)
    assert table.failed == [] and len(results) == 5
