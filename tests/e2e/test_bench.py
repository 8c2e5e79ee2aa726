# SPDX-License-Identifier: Apache-2.0
"""The tools of `make bench-restart` and `make bench` do what they say: tiny runs, and some that must be found bad."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from bosh_env import ROOT, VALGRIND, wait_for

sys.path.insert(0, str(ROOT / "bench"))

import bench
import conf
import contenders
import loader
import restart

pytestmark = [pytest.mark.skipif(VALGRIND, reason="one process under valgrind"), pytest.mark.limit(120)]


@pytest.fixture(scope="module", autouse=True)
def bosh_load():
    done = subprocess.run(["make", "-s", "build/bench/bosh-load", "build/bench/mod_floor.so"], cwd=ROOT, capture_output=True, text=True)
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


# --- make bench ----------------------------------------------------------------------------------

PINGS, PUSHES = {"pingers": 3}, {"listeners": 5, "rate": 200}


def load_without_httpd(fault, options):
    """bosh-load with its own sink at the other end, over plain TCP, for some hundred messages or pings."""
    load = loader.Load(log=subprocess.DEVNULL, tcp=True, fault=fault, patience=1, **options)
    key, count = "down", 300
    if "pingers" in options:
        # Every 50th answer is wrong, the first ones are those of the logins. A client whose ping is lost stands still.
        key, count = "pings", 3 * 50 - 3 - 3
    try:
        load.go(load.port)
        wait_for(lambda: load.look()[key] >= count, 20, "the sink is at it")
        return load.stop()
    finally:
        load.kill()


@pytest.mark.parametrize("options", [PINGS, PUSHES], ids=["pings", "pushes"])
def test_a_run_without_faults(options):
    figures = load_without_httpd("none", options)
    assert figures["status"] == 0 and loader.faults(figures) == "", figures


@pytest.mark.parametrize("fault, options, counted", [
    ("lose", PINGS, "lost"), ("lose", PUSHES, "lost"), ("double", PINGS, "doubled"), ("double", PUSHES, "doubled"),
    ("swap", PUSHES, "disordered")], ids=lambda v: v if isinstance(v, str) else next(iter(v)))
def test_faults_are_found(fault, options, counted):
    figures = load_without_httpd(fault, options)
    assert figures["status"] == 1 and figures[counted] > 0, figures
    assert loader.faults(figures) != ""


def test_figures_of_a_small_run(monkeypatch, tmp_path):
    """mod_bosh and the floor, all figures of the table, none of them nonsense."""
    monkeypatch.setattr(bench, "QUICK", True)
    monkeypatch.setattr(bench, "OUT", tmp_path)
    monkeypatch.setattr(bench, "SIZES", {"sessions": 20, "listeners": 20, "loop": 10, "seconds": 0.5, "settle": 0.5})
    runs, wrong = {}, []
    bench.round_of(["mod_bosh", "floor"], runs, wrong)
    assert wrong == []
    mine, floor = runs["mod_bosh"][0], runs["floor"][0]
    assert set(mine) >= set(bench.COLUMNS)
    assert all(mine[key] > 0 for key in bench.COLUMNS if key != "memory_kb"), mine  # 20 sessions drown in the noise
    assert floor["ping_us"] > 0
    record = {"versions": contenders.versions(), "quick": True, "rounds": 1, "load": [0, 0], "runs": runs, "faults": [],
              "medians": {name: bench.medians(found) for name, found in runs.items()},
              "held": {"mod_bosh": bench.held(contenders.ModBosh, 60, settle=1)}}
    assert record["held"]["mod_bosh"] == {"held": 60, "reached": 60, "failures": 0, "children": 3}
    text = bench.report(record)
    assert "| mod_bosh |" in text and "| trivial handler |" in text and "bars missed" in text


# --- make bench-conf -----------------------------------------------------------------------------

def test_variants_are_configurations(monkeypatch):
    """Each edit meets its line, and httpd takes what comes out."""
    checked = []

    def check(httpd):
        checked.append(httpd.check_config())
        httpd.cleanup()
    monkeypatch.setattr(contenders.Apache, "start", check)
    monkeypatch.setattr(conf, "Front", lambda port, tls: SimpleNamespace(port=port))
    variants = [v for variants, *_ in conf.KINDS.values() for v in variants]
    for variant in variants:
        variant.contender(100).start([5222])
        assert checked[-1][0] == 0, (variant.what, checked[-1][1])
    assert len(checked) == len(variants) > 40


def test_a_variant_beside_its_base(monkeypatch, tmp_path):
    """What a line does is seen, and what it does not do is not."""
    monkeypatch.setattr(bench, "OUT", tmp_path)
    monkeypatch.setattr(conf, "SIZES", {**conf.SIZES, "loop": 10, "turns": 2, "turn": 0.2, "answers": 5})
    ping, large = conf.Variant("MaxKeepAliveRequests 5", "MaxKeepAliveRequests 5"), conf.Variant("gzip", takes_gzip=True)
    monkeypatch.setattr(conf, "KINDS", {"ping": ([ping], *conf.KINDS["ping"][1:]), "large": ([large], *conf.KINDS["large"][1:])})
    runs, wrong = {"ping": {}, "large": {}}, []
    for kind in runs:
        conf.round_of(kind, runs[kind], wrong)
    assert wrong == []
    pairs = runs["ping"][ping.what][0]
    assert len(pairs) == 2 and all(base["ping_us"] > 0 and of["ping_us"] > 0 for base, of in pairs)
    assert all(base["connects"] < 50 < of["connects"] for base, of in pairs), pairs
    assert all(base["bytes"] > 8192 and of["bytes"] < 5000 for base, of in runs["large"][large.what][0])
    text = conf.report({"versions": contenders.versions(), "load": [0, 0], "rounds": 1, "quick": True, "runs": runs, "faults": []})
    assert "| **base** |" in text and f"| {ping.what} |" in text and "| **answers** |" in text
