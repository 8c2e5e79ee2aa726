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
    """Descriptors that httpd has open for one idle session."""
    with Fleet(200, 1, rate=0, wait=60) as fleet:
        before = files_of(fleet.contender.processes())
        fleet.fill()
        return round((files_of(fleet.contender.processes()) - before) / 200, 1)


class Fleet:
    """An httpd with mod_bosh and as many load generators as its sessions need."""

    def __init__(self, sessions, children, threads=64, more=0, **options):
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

    def fill(self):
        """Logs all sessions in. How many are there in the end."""
        n, left = len(self.addresses), self.sessions
        for i in range(n):
            self.extra(listeners=left // (n - i), at_once=max(4, 48 // n), **self.options)
            left -= left // (n - i)
        for load in self.loads:
            load.start(self.contender.port)
        return wait_until_live(self.loads, self.sessions)

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


def point(sessions, children, wrong):
    """One line of the table: a hundred sessions ping in a closed loop beside the others, then all are pushed to."""
    seconds, listeners = size(10, 2), max(1, sessions - 100)
    if listeners * files_each() > children * FILES * 9 // 10:
        return {"sessions": sessions, "children": children, "stopped": "files"}
    with Fleet(listeners, children, more=1, rate=0, window=seconds, wait=60) as fleet:
        live = fleet.fill()
        if live < listeners:
            wrong.append(f"{sessions} sessions, {children} children: {live} of {listeners} came")
            return {"sessions": sessions, "children": children, "stopped": f"at {live}"}
        pinging = fleet.extra(pingers=100, wait=60)
        pinging.go(fleet.contender.port)
        time.sleep(size(12, 1))
        found = {"sessions": sessions, "children": children,
                 "memory_kb": (pss_kb(fleet.contender.processes()) - fleet.empty) / sessions,
                 "files": files_of(fleet.contender.processes())}
        lock, before, meter = fleet.contender.status()["counters"], pinging.look()["pings"], Meter(fleet.contender)
        time.sleep(seconds)
        us, pings = meter.us(), pinging.look()["pings"] - before
        after = fleet.contender.status()["counters"]
        found["ping_us"] = us / max(1, pings)
        found["ping_waits"] = (after["lock_contended"] - lock["lock_contended"]) / max(1, pings)
        found["ping_wait_us"] = (after["lock_waited_ns"] - lock["lock_waited_ns"]) / 1000 / max(1, pings)
        wrong += [said for said in [faults(pinging.stop())] if said]
        fleet.loads.remove(pinging)
        lock = after = fleet.contender.status()["counters"]
        count, us, found["push_p50"], found["push_p99"], _ = fleet.push_window(seconds, size(1000, 300))
        after = fleet.contender.status()["counters"]
        found["push_us"] = us / max(1, count)
        found["push_wait_us"] = (after["lock_waited_ns"] - lock["lock_waited_ns"]) / 1000 / max(1, count)
        wrong += fleet.stop()
    return found


HEADS = {"ping_us": ("CPU us per round trip", 1), "ping_waits": ("waits for the lock", 3),
         "ping_wait_us": ("... us of waiting", 2), "push_us": ("CPU us per pushed message", 1), "push_wait_us": ("us of waiting", 2),
         "push_p50": ("p50 us", 0), "push_p99": ("p99 us", 0), "memory_kb": ("KB per session", 1),
         "files": ("files of the fullest child", 0)}


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
    lines += ["", *ratios(points), f"{files_each()} descriptors of httpd for each idle session", f"{v['date']}, {v['machine']}, commit {v['commit']}; load average {load}, "
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


def available_mb():
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) >> 10


def trial(wanted):
    """As many live sessions as this machine bears, each with a message and a poll a minute, for some minutes."""
    minutes, children = size(3, 1), max(2, int(wanted * files_each() / (FILES * 3 // 4)) + 1)
    memory, began, found = available_mb(), time.monotonic(), {"wanted": wanted, "children": children, "files_each": files_each()}
    with Fleet(wanted, children, threads=32, rate=0, window=60, wait=60) as fleet:
        found["live"], found["login_seconds"] = fleet.fill(), round(time.monotonic() - began)
        print(f"{found['live']} sessions after {found['login_seconds']} s", flush=True)
        pids = fleet.contender.processes()
        found["files"] = files_of(pids)
        for minute in range(minutes):
            for load in fleet.loads:
                load.say(f"rate {1 / 60}")
                load.mark(time.monotonic())
            before, meter = fleet.sum("down"), Meter(fleet.contender)
            time.sleep(60)
            found["httpd_cores"] = meter.us() / 60e6
            found["messages"] = fleet.sum("down") - before
            windows = [load.report()["window_down_us"] for load in fleet.loads]
            found.update({key: max(w[key] for w in windows) for key in ("p50", "p99", "max")})
            looks = [load.look() for load in fleet.loads]
            found["lost"] = sum(f["lost_sessions"] + f["http_errors"] + f["hung"] + f["doubled"] + f["disordered"] for f in looks)
            print(f"minute {minute + 1}: {found}", flush=True)
        found["memory_kb"] = (pss_kb(pids) - fleet.empty) / max(1, found["live"])
        found["machine_mb"] = memory - available_mb()
        found["status"] = fleet.contender.status()["sessions"]
        found["counters"] = fleet.contender.status()["counters"]
        found["faults"] = fleet.stop()
    found["log"] = fleet.contender.problems[:10]
    found.update(versions=versions(), load=os.getloadavg())
    (OUT / "trial.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    return 1 if found["faults"] or found["live"] < wanted else 0


def main(args):
    raise_file_limit()
    OUT.mkdir(parents=True, exist_ok=True)
    if args[:1] == ["trial"]:
        return trial(int(args[1]) if args[1:] else size(100000, 3000))
    return growth()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
