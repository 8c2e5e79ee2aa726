#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mod_bosh beside other connection managers and the floor. `make bench` runs it; docs/BENCHMARKS.md defines the figures.

    bench.py [CONTENDER...]        all contenders without an argument (--list names them)

Environment: QUICK=1 (two minutes), ONLY="NAME..." (as the arguments), ROUNDS=N, HELD=0 (without the 20,000 sessions),
and what tests/e2e/bosh_env.py has. Writes build/bench/bench.json and build/bench/bench.md.

The exit status is 1 when mod_bosh, or the floor, lost, doubled or reordered anything; what others did wrong stands
in the table. A bar that is missed is said there, and is no error: machines differ.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from bosh_env import free_port, raise_file_limit  # noqa: E402
from contenders import ALL, missing, versions  # noqa: E402
from loader import Load, faults  # noqa: E402

OUT = ROOT / "build" / "bench"
QUICK = os.environ.get("QUICK", "") not in ("", "0")


def size(full, quick):
    return quick if QUICK else full


# Sessions that wait, and that are pushed to; clients in a closed loop; seconds that are measured, and before memory is.
SIZES = {"sessions": size(5000, 500), "listeners": size(1000, 300), "loop": 100, "seconds": size(12, 2), "settle": size(12, 4)}


# --- figures of processes ------------------------------------------------------------------------

def cpu_ns(pids):
    """User and system time of these processes, threads that have ended included: their CPU clocks."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def pss_kb(pids):
    """Proportional set size: what is shared counts once in all."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


class Meter:
    """CPU time of a contender's processes from now on."""

    def __init__(self, contender):
        self.pids = contender.processes()
        self.before = cpu_ns(self.pids)

    def us(self):
        return (cpu_ns(self.pids) - self.before) / 1000


# --- measuring one contender ---------------------------------------------------------------------

class Bench:
    """A contender that runs, and what was found."""

    def __init__(self, contender):
        self.contender, self.found, self.faults = contender, {}, []
        self.sink = free_port()
        self.log = open(OUT / "load.log", "ab")

    def __enter__(self):
        self.contender.start([self.sink])
        return self

    def __exit__(self, *_):
        self.log.close()
        self.contender.stop()

    def restart(self):
        """What was there before is not to be paid for by what comes now."""
        self.contender.stop()
        self.contender.start([self.sink])

    def load(self, **options):
        return Load(log=self.log, sink_port=self.sink, wait=60, patience=30 if self.contender.ours else 2, **self.contender.options_of(0), **options)

    def end(self, load):
        """After the load has ended, whatever became of it."""
        try:
            if said := faults(load.stop()):
                self.faults.append(said)
        finally:
            load.kill()

    def warm_up(self):
        load = self.load(parallel=8, logins=size(200, 20), silent=True)
        load.go(self.contender.port)
        load.finish()

    def idle(self):
        """Logins, and the memory of sessions that only wait."""
        n = SIZES["sessions"]
        load = self.load(idlers=n, idle_wait=60)
        memory, meter = pss_kb(self.contender.processes()), Meter(self.contender)
        load.go(self.contender.port)
        self.found["login_ms"] = meter.us() / n / 1000
        time.sleep(SIZES["settle"])
        self.found["memory_kb"] = (pss_kb(self.contender.processes()) - memory) / n
        self.end(load)

    def closed_loop(self, kind, count):
        """CPU time for each round trip of 100 clients."""
        load = self.load(**{kind: SIZES["loop"]})
        load.go(self.contender.port)
        time.sleep(size(2, 0.5))
        meter, before = Meter(self.contender), load.look()
        time.sleep(SIZES["seconds"])
        after, us = load.look(), meter.us()
        self.found["ping_us"] = us / max(1, after[count] - before[count])
        self.found["ping_rate"] = (after[count] - before[count]) / SIZES["seconds"]
        self.end(load)

    def push(self):
        """One message a second to each session: latency, and CPU time for each."""
        seconds = SIZES["seconds"]
        load = self.load(listeners=SIZES["listeners"], rate=1, window=seconds)
        load.go(self.contender.port)
        time.sleep(size(2, 1))
        meter, before = Meter(self.contender), load.look()
        load.mark(time.monotonic())
        time.sleep(seconds)
        after, us = load.look(), meter.us()
        self.found["push_us"] = us / max(1, after["down"] - before["down"])
        time.sleep(0.5)
        window = load.report()["window_down_us"]
        self.found["push_p50"], self.found["push_p99"] = window["p50"], window["p99"]
        self.end(load)

    def paced(self):
        """POSTs at the rate at which others get messages: what one request costs when nothing comes in batches."""
        load = self.load(posters=SIZES["listeners"], rate=1, paced=True)
        load.go(self.contender.port)
        time.sleep(size(3, 1))
        meter, before = Meter(self.contender), load.look()
        time.sleep(SIZES["seconds"])
        after, us = load.look(), meter.us()
        self.found["push_us"] = us / max(1, after["posts"] - before["posts"])
        self.end(load)

    def run(self):
        if self.contender.name == "floor":
            self.closed_loop("posters", "posts")
            self.found["login_ms"] = 6 * self.found["ping_us"] / 1000
            self.paced()
        else:
            self.warm_up()
            self.closed_loop("pingers", "pings")
            self.push()
            self.restart()
            self.warm_up()
            self.idle()


def plain_tcp():
    """The latency of a message from the sink to a client, with nothing between them but a socket."""
    with open(OUT / "load.log", "ab") as log:
        seconds = SIZES["seconds"]
        load = Load(log=log, tcp=True, listeners=SIZES["listeners"], rate=1, window=seconds)
        load.go(load.port)
        time.sleep(1)
        load.mark(time.monotonic())
        time.sleep(seconds + 0.5)
        window = load.report()["window_down_us"]
        load.stop()
    return {"push_p50": window["p50"], "push_p99": window["p99"]}


def children_for(kind, wanted):
    """Three, or as many as the limit of open files demands of httpd. Other managers have as many processes as they have."""
    from growth import FILES, files_each  # which is built upon this module
    return max(3, int(wanted * files_each() * 1.2 / FILES) + 1) if kind is ALL["mod_bosh"] else 3


def held(kind, wanted, loaders=3, children=3, settle=size(10, 3)):
    """How many sessions one manager holds at once, and whether each of them still gets a message."""
    sinks = [free_port() for _ in range(loaders)]
    contender = kind(sessions=wanted, children=children)
    contender.start(sinks)
    loads, failed = [], 0
    with open(OUT / "load.log", "ab") as log:
        try:
            loads = [Load(log=log, sink_port=sink, idlers=wanted // loaders + (i < wanted % loaders), idle_wait=60, wait=60,
                          at_once=16, patience=10, **contender.options_of(i)) for i, sink in enumerate(sinks)]
            for load in loads:
                load.start(contender.port)
            live = wait_until_live(loads, wanted)
            for load in loads:
                load.say(f"poke {settle}")
            time.sleep(settle * 1.5)
            looks = [load.look() for load in loads]
            reached = sum(f["down"] for f in looks)
            failed = sum(f["lost_sessions"] + f["http_errors"] + f["hung"] for f in looks)
            live -= sum(f["lost_sessions"] for f in looks)
        finally:
            for load in loads:
                load.kill()
            contender.stop()
    return {"held": live, "reached": reached, "failures": failed + wanted - min(live, reached), "children": children}


def wait_until_live(loads, wanted, patience=20):
    """Until all are there, or none has come for a while, or it takes far too long."""
    live, changed = 0, time.monotonic()
    end = changed + 60 + wanted / 100
    while live < wanted and time.monotonic() < min(changed + patience, end):
        time.sleep(1)
        now = sum(load.look()["live"] for load in loads)
        if now > live:
            live, changed = now, time.monotonic()
    return live


# --- the table -----------------------------------------------------------------------------------

COLUMNS = {  # figure: heading, digits
    "ping_us": ("CPU us per ping round trip, 100 sessions", 1),
    "login_ms": ("CPU ms per login", 3),
    "memory_kb": ("memory KB per idle session", 1),
    "push_p50": ("push latency p50 us", 0),
    "push_p99": ("push latency p99 us", 0),
    "push_us": ("CPU us per pushed message", 1),
}
OWN = ("ping_us", "login_ms", "memory_kb", "push_us")  # from which the server's own share is taken off


def medians(runs):
    return {key: statistics.median(r[key] for r in runs if key in r) for key in {k for r in runs for k in r}}


def own(name, figures):
    """What the manager costs: less what the server does for the same load over plain TCP."""
    mine, base = figures[name], ALL[name].base if name in ALL else None
    if not base or base.name not in figures:
        return mine
    return {key: value - figures[base.name].get(key, 0) if key in OWN else value for key, value in mine.items()}


def shown(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def table(figures, kept):
    """Markdown: one line for each contender, and the ratios to mod_bosh and to the floor."""
    heads = ["", *(h for h, _ in COLUMNS.values()), "sessions held"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in figures:
        title = ALL[name].title if name in ALL else "a socket alone"
        if name in ALL and ALL[name].base and ALL[name].base.name in figures:
            title += ", own cost"
        if name in ALL and ALL[name].over:
            title += ", on top of its"
        mine = own(name, figures)
        cells = [shown(mine.get(key), digits) for key, (_, digits) in COLUMNS.items()]
        k = kept.get(name)
        cells.append(f"{k['held']:,}, {k['failures']:,} failures" + (f", {k['children']} children" if name == "mod_bosh" else "")
                     if k else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bars(figures, kept):
    """[(what, measured, bar, reached)]"""
    mine, found = figures.get("mod_bosh", {}), []

    def bar(what, value, limit, unit):
        if value is not None:
            found.append((what, f"{value:.3g} {unit}", f"{limit:g} {unit}", value <= limit))
    if "floor" in figures and mine:
        bar("ping round trip / floor", mine["ping_us"] / figures["floor"]["ping_us"], 1.0, "x")
    bar("login", mine.get("login_ms"), 0.45, "ms")
    bar("idle session", mine.get("memory_kb"), 24, "KB")
    bar("push latency p50", mine.get("push_p50"), 100, "us")
    bar("push latency p99", mine.get("push_p99"), 2000, "us")
    bar("pushed message", mine.get("push_us"), 80, "us")
    if "mod_bosh" in kept:
        bar("failures of held sessions", kept["mod_bosh"]["failures"], 0, "")
        bar("children that they take", kept["mod_bosh"]["children"], 3, "")
    return found


def ratios(figures):
    """Each manager's own cost in units of mod_bosh's."""
    mine, lines = figures.get("mod_bosh"), []
    for name in figures:
        if not mine or name == "mod_bosh":
            continue
        theirs = own(name, figures)
        parts = [f"{heading.split(',')[0]} {theirs[key] / mine[key]:.2f}" for key, (heading, _) in COLUMNS.items()
                 if theirs.get(key, 0) > 0 and mine.get(key)]  # less than nothing is noise
        lines.append(f"- {name}: " + ", ".join(parts))
    return "\n".join(lines)


def report(record):
    figures, kept = record["medians"], record["held"]
    spread = "\n".join(f"- {name}: " + ", ".join(
        f"{key} {min(v):.4g}-{max(v):.4g}" for key in COLUMNS if (v := [r[key] for r in runs if key in r]))
        for name, runs in record["runs"].items())
    v = record["versions"]
    missed = [b for b in bars(figures, kept) if not b[3]]
    text = [f"{v['date']}, {v['machine']}, {v['kernel']}, commit {v['commit']}; "
            + ", ".join(f"{p} {n}" for p, n in v["packages"].items()),
            f"Load average at the start {record['load'][0]}, at the end {record['load'][1]}; {record['rounds']} rounds"
            + (", QUICK" if record["quick"] else ""), "",
            table(figures, kept), "", "In units of mod_bosh's:", "", ratios(figures), "",
            "| bar | measured | must be | |", "|---|---|---|---|",
            *(f"| {what} | {value} | <= {limit} | {'reached' if ok else 'MISSED'} |"
              for what, value, limit, ok in bars(figures, kept)), "", "Spread of the runs:", "", spread, ""]
    if record["faults"]:
        text += ["Faults:", "", *(f"- {name}: {said}" for name, said in record["faults"]), ""]
    text.append(f"{len(missed)} bars missed")
    return "\n".join(text) + "\n"


# --- all of it -----------------------------------------------------------------------------------

def round_of(names, runs, wrong):
    for name in names:
        if name == "tcp":
            found = plain_tcp()
        else:
            with Bench(ALL[name](sessions=SIZES["sessions"])) as bench:
                bench.run()
            found = bench.found
            wrong += [(name, said) for said in bench.faults]
        runs.setdefault(name, []).append(found)
        print(f"{name:14} " + "  ".join(f"{key} {shown(found.get(key), digits)}" for key, (_, digits) in COLUMNS.items()
                                        if key in found), flush=True)


def main(names):
    known = [*ALL, "tcp"]
    if names == ["--list"]:
        print(*known)
        return 0
    names = names or os.environ.get("ONLY", "").split() or known
    unknown = [n for n in names if n not in known]
    if unknown:
        print(f"bench.py: no contender {' '.join(unknown)}; there are: {' '.join(known)}", file=sys.stderr)
        return 2
    for name in [n for n in names if missing(n)]:
        print(f"{name}: without {missing(name)} it is left out; tests/tools/need.sh run check bench installs it")
        names = [n for n in names if n != name]
    raise_file_limit()
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "load.log").write_text("")
    rounds, runs, wrong, kept = int(os.environ.get("ROUNDS") or size(3, 1)), {}, [], {}
    load = [os.getloadavg()[0]]
    for i in range(rounds):
        print(f"--- round {i + 1} of {rounds}, load average {os.getloadavg()[0]}", flush=True)
        round_of(names, runs, wrong)
    if os.environ.get("HELD", "1") != "0":
        for name in names if not QUICK else [n for n in names if n == "mod_bosh"]:
            if name in ("mod_bosh", "ejabberd", "prosody", "nginx"):
                wanted = size(20000, 1500)
                kept[name] = held(ALL[name], wanted, children=children_for(ALL[name], wanted))
                print(f"{name:14} held {kept[name]}", flush=True)
    record = {"versions": versions(), "quick": QUICK, "rounds": rounds, "load": [*load, os.getloadavg()[0]], "runs": runs,
              "medians": {name: medians(found) for name, found in runs.items()}, "held": kept, "faults": wrong}
    (OUT / "bench.json").write_text(json.dumps(record, indent=1))
    (OUT / "bench.md").write_text(report(record))
    print(report(record))
    ours = [said for name, said in wrong if name == "tcp" or ALL[name].ours]
    return 1 if ours or kept.get("mod_bosh", {}).get("failures") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
