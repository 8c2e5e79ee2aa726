#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What more sessions cost, and how many there can be.

    growth.py               100 to 20,000 sessions at 1, 2 and 4 children: `make bench-growth` (QUICK=1)
    growth.py trial [N]     N live sessions (100,000), each polled and sent a message once a minute: `make bench-100k`

docs/BENCHMARKS.md defines the figures. Writes build/bench/growth.json and growth.md, or trial.json. The exit status
is 1 when anything was lost, doubled or out of order.
"""

import functools
import json
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from bench import OUT, QUICK, Meter, pss_kb, size, wait_until_live  # noqa: E402
from bosh_env import free_port, raise_file_limit  # noqa: E402
from contenders import ModBosh, versions  # noqa: E402
from loader import Load, faults  # noqa: E402

PER_LOADER = 9000  # two descriptors for each session, client's and server's
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def files_of(pids):
    """Of the fullest of these processes."""
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


@functools.cache
def files_each():
    """Descriptors that httpd has open for one idle session; of many, for its workers have some of their own."""
    many = 1000
    with Fleet(many, 1, rate=0, wait=60) as fleet:
        before = files_of(fleet.contender.processes())
        fleet.fill()
        return round((files_of(fleet.contender.processes()) - before) / many, 1)


class Fleet:
    """An httpd with mod_bosh and as many load generators as its sessions need."""

    def __init__(self, sessions, children, threads=128, more=0, **options):
        """more: load generators beside those of `sessions`, for what the caller starts with extra()."""
        n = -(-sessions // PER_LOADER)
        self.sinks = [free_port() for _ in range(n + more)]
        self.addresses = [f"127.0.0.{i + 1}" for i in range(n)]
        self.contender = ModBosh(sessions=sessions, children=children, threads=threads, addresses=self.addresses)
        self.sessions, self.options, self.loads = sessions, options, []
        self.log = open(OUT / "load.log", "ab")

    def __enter__(self):
        self.contender.start(self.sinks)
        self.empty = pss_kb(self.contender.processes())
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.kill()
        self.log.close()
        self.contender.stop()

    def extra(self, **options):
        i = len(self.loads)
        load = Load(log=self.log, sink_port=self.sinks[i], **self.contender.options_of(i),
                    address=self.addresses[i % len(self.addresses)], **options)
        self.loads.append(load)
        return load

    def fill(self, part=1.0):
        """Starts load generators until this part of the sessions is there, or no more come. How many there are."""
        n = len(self.addresses)
        share = [self.sessions * (i + 1) // n - self.sessions * i // n for i in range(n)]
        first, last = len(self.loads), max(len(self.loads) + 1, round(n * part))
        for i in range(first, last):
            self.extra(listeners=share[i], at_once=max(4, 48 // (last - first)), **self.options)
        for load in self.loads[first:]:
            load.start(self.contender.port)
        return wait_until_live(self.loads, sum(share[:last])), sum(share[:last])

    def sum(self, key):
        return sum(load.look()[key] for load in self.loads)

    def push_window(self, seconds, rate):
        """Messages at this rate to all together for so long: (messages, p50, p99, longest)."""
        for load in self.loads:
            load.say(f"rate {rate / self.sessions}")
        time.sleep(1)
        before, meter = self.sum("down"), Meter(self.contender)
        for load in self.loads:
            load.mark(time.monotonic())
        time.sleep(seconds)
        us, count = meter.us(), self.sum("down") - before
        for load in self.loads:
            load.say("rate 0")
        time.sleep(0.5)
        windows = [load.report()["window_down_us"] for load in self.loads]
        return count, us, max(w["p50"] for w in windows), max(w["p99"] for w in windows), max(w["max"] for w in windows)

    def stop(self):
        """Everybody leaves; what went wrong."""
        return [said for load in self.loads if (said := faults(load.stop()))]


class Lock:
    """What happens at the arena's lock from now on."""

    def __init__(self, contender):
        self.contender, self.before, self.began = contender, contender.status()["counters"], time.monotonic()

    def figures(self, prefix, count):
        after = self.contender.status()["counters"]
        taken, contended, waited, held = (after[key] - self.before[key] for key in (
            "lock_taken", "lock_contended", "lock_waited_ns", "lock_held_ns"))
        return {f"{prefix}_locks": taken / max(1, count), f"{prefix}_lock_us": held / max(1, taken) / 1000,
                f"{prefix}_lock_busy": held / 1e9 / (time.monotonic() - self.began),
                f"{prefix}_waits": contended / max(1, count), f"{prefix}_wait_us": waited / max(1, count) / 1000}


def point(sessions, children, wrong):
    """One line of the table: a hundred more sessions ping in a closed loop beside these; then these are pushed to."""
    seconds = size(10, 2)
    if (sessions + 100) * files_each() > children * FILES * 9 // 10:
        return {"sessions": sessions, "children": children, "stopped": "files"}
    with Fleet(sessions, children, more=1, rate=0, window=seconds, wait=60) as fleet:
        live, _ = fleet.fill()
        if live < sessions:
            wrong.append(f"{sessions} sessions, {children} children: {live} of {sessions} came")
            return {"sessions": sessions, "children": children, "stopped": f"at {live}"}
        pinging = fleet.extra(pingers=100, wait=60)
        pinging.go(fleet.contender.port)
        time.sleep(size(12, 1))
        found = {"sessions": sessions, "children": children,
                 "memory_kb": (pss_kb(fleet.contender.processes()) - fleet.empty) / (sessions + 100),
                 "files": files_of(fleet.contender.processes())}
        before, lock, meter = pinging.look()["pings"], Lock(fleet.contender), Meter(fleet.contender)
        time.sleep(seconds)
        us, pings = meter.us(), pinging.look()["pings"] - before
        found.update(lock.figures("ping", pings), ping_us=us / max(1, pings))
        wrong += [said for said in [faults(pinging.stop())] if said]
        fleet.loads.remove(pinging)
        lock = Lock(fleet.contender)
        count, us, found["push_p50"], found["push_p99"], _ = fleet.push_window(seconds, size(1000, 300))
        found.update(lock.figures("push", count), push_us=us / max(1, count))
        wrong += fleet.stop()
    return found


HEADS = {"ping_us": ("CPU us per round trip", 1), "ping_locks": ("takings of the lock", 1),
         "ping_lock_us": ("us held each", 2), "ping_lock_busy": ("lock busy", 3), "ping_waits": ("waits", 3),
         "ping_wait_us": ("us of waiting", 2), "push_us": ("CPU us per pushed message", 1), "push_locks": ("takings", 1),
         "push_wait_us": ("us of waiting", 2), "push_p50": ("p50 us", 0), "push_p99": ("p99 us", 0),
         "memory_kb": ("KB per session", 1), "files": ("files of the fullest child", 0)}


def growth():
    wrong, points, load = [], [], os.getloadavg()[0]
    for children in (1, 2, 4):
        for sessions in size((100, 1000, 5000, 10000, 20000), (100, 1000, 2000)):
            points.append(point(sessions, children, wrong))
            print(json.dumps(points[-1]), flush=True)
    v = versions()
    lines = ["| sessions | children | " + " | ".join(h for h, _ in HEADS.values()) + " |", "|---" * (len(HEADS) + 2) + "|"]
    for p in points:
        cells = [p["stopped"]] if "stopped" in p else [f"{p[k]:.{d}f}" for k, (_, d) in HEADS.items()]
        lines.append(f"| {p['sessions']:,} | {p['children']} | " + " | ".join(cells) + " |")
    lines += ["", *ratios(points), "", *scaling(points), "", f"{files_each()} descriptors of httpd for each idle session", f"{v['date']}, {v['machine']}, commit {v['commit']}; load average {load}, "
              f"{os.getloadavg()[0]}" + (", QUICK" if QUICK else ""), *(f"Fault: {said}" for said in wrong)]
    text = "\n".join(lines) + "\n"
    (OUT / "growth.json").write_text(json.dumps({"versions": v, "load": load, "quick": QUICK, "points": points, "faults": wrong}, indent=1))
    (OUT / "growth.md").write_text(text)
    print(text)
    return 1 if wrong else 0


def ratios(points):
    """From the smallest to the largest number of sessions at each number of children; the bar is 1.2 from 100 to 10,000."""
    for children in sorted({p["children"] for p in points}):
        of = [p for p in points if p["children"] == children and "ping_us" in p and p["sessions"] <= 10000]
        if len(of) > 1:
            yield (f"{children} children, {of[0]['sessions']:,} to {of[-1]['sessions']:,} sessions: round trip "
                   f"x {of[-1]['ping_us'] / of[0]['ping_us']:.2f}, pushed message x {of[-1]['push_us'] / of[0]['push_us']:.2f}")


def scaling(points):
    """What the figures of the largest run come to: sessions with a message each way a minute, processors and lock half
    busy. docs/SCALING.md says how it is meant."""
    p = max((p for p in points if "ping_us" in p), key=lambda p: (p["sessions"], p["children"]))
    cpu = p["ping_us"] + p["push_us"]
    lock = p["ping_locks"] * p["ping_lock_us"] + p["push_locks"] * p["push_lock_us"]
    yield f"| at {p['sessions']:,} sessions, {p['children']} children | each session, a minute | 2 cores | 16 cores | 64 cores |"
    yield "|---|---|---|---|---|"
    yield f"| processors half busy | {cpu:.0f} us | " + " | ".join(f"{n * 30e6 / cpu:,.0f}" for n in (2, 16, 64)) + " |"
    yield f"| the lock half busy | {lock:.1f} us | " + " | ".join([f"{30e6 / lock:,.0f}"] * 3) + " |"
    yield f"| memory of httpd, sessions in a GB | {p['memory_kb']:.0f} KB | " + " | ".join([f"{1e6 / p['memory_kb']:,.0f}"] * 3) + " |"
    yield f"| files, sessions in a child with a limit of {FILES:,} | {files_each()} | " + \
        " | ".join([f"{FILES * 0.75 / files_each():,.0f}"] * 3) + " |"


def available_mb():
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) >> 10


def minute(fleet):
    """A message a minute to each session, for a minute."""
    sessions = fleet.sum("live")
    for load in fleet.loads:
        load.say(f"rate {1 / 60}")
        load.mark(time.monotonic())
    before, meter = fleet.sum("down"), Meter(fleet.contender)
    time.sleep(60)
    found = {"sessions": sessions, "httpd_cores": round(meter.us() / 60e6, 3), "messages": fleet.sum("down") - before}
    for load in fleet.loads:
        load.say("rate 0")
    time.sleep(1)
    windows = [load.report()["window_down_us"] for load in fleet.loads]
    found.update({key: max(w[key] for w in windows) for key in ("p50", "p99", "max")})
    found["faults"] = [said for load in fleet.loads if (said := faults(load.look()))]
    return found


def trial(wanted):
    """More and more live sessions, each with a poll and a message a minute, until there are as many as were asked for,
    or something is lost."""
    children = int(wanted * files_each() / (FILES * 3 // 4)) + 1
    memory, record = available_mb(), {"wanted": wanted, "children": children, "files_each": files_each(), "steps": []}
    load = os.getloadavg()
    with Fleet(wanted, children, threads=32, rate=0, window=60, wait=60, patience=60) as fleet:
        for step in range(1, 7):
            began = time.monotonic()
            live, expected = fleet.fill(step / 6)
            found = {"logins_took": round(time.monotonic() - began, 1), **minute(fleet)}
            found["memory_kb"] = round((pss_kb(fleet.contender.processes()) - fleet.empty) / max(1, live), 1)
            found["machine_mb"], found["files"] = memory - available_mb(), files_of(fleet.contender.processes())
            record["steps"].append(found)
            print(json.dumps(found), flush=True)
            if found["faults"] or live < expected:
                record["stopped"] = f"at {live} of {expected} sessions: " + "; ".join(found["faults"])
                break
            if expected == wanted:
                break
        record["counters"] = fleet.contender.status()["counters"]
        if "stopped" not in record:
            record["faults"] = fleet.stop()
    record["log"] = [line.rstrip() for line in fleet.contender.problems[:10]]
    record.update(versions=versions(), load=[*load, *os.getloadavg()])
    (OUT / "trial.json").write_text(json.dumps(record, indent=1))
    print(json.dumps(record, indent=1))
    return 1 if "stopped" in record or record["faults"] else 0


def main(args):
    raise_file_limit()
    OUT.mkdir(parents=True, exist_ok=True)
    if args[:1] == ["trial"]:
        return trial(int(args[1]) if args[1:] else size(100000, 3000))
    return growth()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
