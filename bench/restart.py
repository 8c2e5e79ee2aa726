#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What clients notice when httpd restarts, recycles or loses children. `make bench-restart` runs it.

    restart.py [SCENARIO...]        all scenarios without an argument (--list names them)

Environment: QUICK=1 (a small version of each, two minutes in all), SCENARIO=NAME (as the argument),
BOSH_LOAD (the load generator, default build/bench/bosh-load), and what tests/e2e/bosh_env.py has.

Each figure is printed with its bar. A bar on loss, order or crashes that is missed makes the exit status 1;
a bar on time that is missed is only said, for machines are shared. docs/BENCHMARKS.md defines the figures.
"""

import json
import os
import random
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from bosh_env import HARMLESS, Httpd, free_port, is_problem, raise_file_limit, wait_for  # noqa: E402
from loader import Load  # noqa: E402

QUICK = os.environ.get("QUICK", "") not in ("", "0")

GAVE = re.compile(r"gave (\d+) streams to \d+ peers in (\d+) ms, (\d+) came back"
                  r"(?:; pause of a stream (\d+) us .*?, (\d+) us .*?, (\d+) us)?")
DIED = re.compile(r"BH204: .*: (\d+) streams were rescued, (\d+) upstream streams were lost")
REPAIRED = re.compile(r"BH203: .*repaired, (\d+) sessions lost")
LOSSES = {"lost_sessions": "sessions lost", "lost": "stanzas lost", "lost_with_session": "stanzas lost with a session",
          "doubled": "stanzas doubled", "disordered": "stanzas out of order", "misrouted": "stanzas at the wrong client",
          "http_errors": "answers that are none", "hung": "requests never answered",
          "unanswered": "held requests not answered at logout"}


def size(full, quick):
    return quick if QUICK else full


# --- the table -----------------------------------------------------------------------------------

class Table:
    def __init__(self):
        self.failed, self.missed, self.count = [], [], 0
        print(f"{'scenario':18} {'figure':50} {'measured':>26}  {'bar':>10}", flush=True)

    def row(self, scenario, what, value, bar=None, ok=True, hard=False):
        verdict = ""
        self.count += 1
        if bar is not None:
            verdict = "ok" if ok else "FAILED" if hard else "MISSED"
            if not ok:
                (self.failed if hard else self.missed).append(f"{scenario}: {what}: {value}")
        print(f"{scenario:18} {what:50} {value:>26}  {bar if bar is not None else '':>10}  {verdict}", flush=True)

    def none(self, scenario, what, count):
        self.row(scenario, what, str(count), "0", count == 0, hard=True)

    def most(self, scenario, what, value, limit, unit, shown=None):
        self.row(scenario, what, shown or f"{value:.1f} {unit}", f"{limit} {unit}", value <= limit)

    def end(self):
        print(f"\n{self.count} figures, {len(self.missed)} bars on time missed, {len(self.failed)} on loss failed")
        for line in self.failed:
            print(f"FAILED  {line}")
        return 1 if self.failed else 0


def ms(us):
    return f"{us / 1000:.1f}"


def spread(hist):
    """p50 / p99 / max of a histogram of the load generator."""
    return f"{ms(hist['p50'])} / {ms(hist['p99'])} / {ms(hist['max'])} ms"


# --- httpd ---------------------------------------------------------------------------------------

STATUS = "<Location /bosh-status>\n  SetHandler bosh-status\n</Location>\n"


class Server(Httpd):
    """An httpd in front of a load generator."""

    def __init__(self, load, directives="", **options):
        options.setdefault("log_level", "info")
        super().__init__(upstreams=[f"example.com 127.0.0.1:{load.port}"], name="bench",
                         directives=STATUS + "ListenBacklog 4096\n" + directives, **options)
        self.log_at = 0
        self.killed = 0

    def fresh_log(self):
        lines = self.log_lines()
        fresh, self.log_at = lines[self.log_at:], len(lines)
        return fresh

    def status(self, timeout=5):
        """/bosh-status over a connection of its own, and the process that answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as s:
            s.sendall(b"GET /bosh-status?format=json HTTP/1.0\r\n\r\n")
            data = b""
            while piece := s.recv(65536):
                data += piece
        found = json.loads(data.partition(b"\r\n\r\n")[2])
        pids = {p["peer"]: p["pid"] for p in found["peers"]}
        return found, pids.get(found["peer"])

    def first_answer(self, old, since, limit=10):
        """Seconds until a process that was not there before has answered a new client."""
        while time.monotonic() < since + limit:
            try:
                if self.status()[1] not in old:
                    break
            except (OSError, ValueError):
                pass  # the child that had accepted it is going
            time.sleep(0.001)
        return time.monotonic() - since

    def complete(self):
        return len(self.children()) >= self.children_wanted

    def problems(self):
        """Lines of the error log that no healthy run would have, less the children that we killed."""
        killed = [line for line in self.log_lines() if "AH00052" in line and "signal Killed" in line]
        known = (DIED, REPAIRED, re.compile(r"AH00052.*signal Killed"), re.compile(r"BH206"))
        bad = [line.rstrip() for line in self.log_lines()
               if is_problem(line) and not any(p.search(line) for p in (*HARMLESS, *known))]
        if len(killed) > self.killed:
            bad.append(f"{len(killed)} children were killed, {self.killed} of them by us")
        return bad


def gone(pids, since, limit):
    """Seconds until all these processes have ended, or None."""
    poll, left = select.poll(), 0
    for pid in pids:
        try:
            poll.register(os.pidfd_open(pid), select.POLLIN)
            left += 1
        except ProcessLookupError:
            pass
    fds = []
    while left > 0 and time.monotonic() < since + limit:
        for fd, _ in poll.poll(max(1, (since + limit - time.monotonic()) * 1000)):
            poll.unregister(fd)
            fds.append(fd)
            left -= 1
    for fd in fds:
        os.close(fd)
    return None if left else time.monotonic() - since


def anon_kb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    return 0


class Run:
    """A load and a server under one name; what every scenario prints at its end."""

    def __init__(self, table, name, load, httpd=None):
        self.table, self.name = table, name
        self.load = Load(**load)
        self.server = Server(self.load, **(httpd or {}))
        self.pauses = []  # of each hand-over: (streams, p50, p99, longest)
        self.came_back = self.streams = self.rescued = self.lost = self.given_up = 0
        self.said = False

    def __enter__(self):
        self.server.start()
        self.load.go(self.server.port)
        return self

    def __exit__(self, kind, *_):
        self.load.kill()
        if self.server.alive():
            if kind:
                self.server.kill()
            else:
                self.server.stop()
        self.server.cleanup()

    def row(self, *args, **options):
        self.table.row(self.name, *args, **options)

    def read_log(self):
        """What was handed over, and rescued, since the last call."""
        found = []
        for line in self.server.fresh_log():
            if m := GAVE.search(line):
                n, _, back, *pause = m.groups()
                self.streams += int(n)
                self.came_back += int(back)
                if pause[0] is not None:
                    found.append((int(n), *map(int, pause)))
            if m := DIED.search(line):
                self.rescued += int(m.group(1))
                self.lost += int(m.group(2))
            if m := REPAIRED.search(line):
                self.given_up += int(m.group(1))
        self.pauses += found
        return found

    def finish(self):
        """Everything arrives, everybody leaves; the rows about loss."""
        figures = self.load.stop()
        self.read_log()
        for key, what in LOSSES.items():
            self.table.none(self.name, what, figures[key])
        problems = self.server.problems()
        self.table.none(self.name, "crashes, warnings in the error log", len(problems))
        for line in problems[:5]:
            print(f"    {line}")
        self.row("messages to servers / to clients, logins",
                 f"{figures['up']} / {figures['down']}, {figures['logins']}")
        self.row("requests, of them sent again; answers overtaken",
                 f"{figures['requests']}, {figures['resent']}; {figures['overtaken']}")
        return figures

    def pause_rows(self):
        """Hand-over as the error log tells it; of each restart the worst of the children that gave."""
        if not self.pauses:
            self.row("streams handed over", "0", "some", ok=False, hard=True)
            return
        streams = sum(p[0] for p in self.pauses)
        self.row("streams handed over, came back", f"{self.streams}, {self.came_back}")
        half, most = (sorted(p[i] for p in self.pauses) for i in (1, 2))
        self.table.most(self.name, "pause of a stream, p50 (median of hand-overs, worst)", statistics.median(half) / 1000,
                        2, "ms", f"{ms(statistics.median(half))}, {ms(half[-1])} ms")
        self.table.most(self.name, "pause of a stream, p99 (median of hand-overs, worst)", statistics.median(most) / 1000,
                        25, "ms", f"{ms(statistics.median(most))}, {ms(most[-1])} ms")
        self.row("pause of a stream, the longest of all", f"{ms(max(p[3] for p in self.pauses))} ms")
        assert streams > 0

    def window_rows(self, figures):
        self.row("messages under way, to servers p50 / p99 / max", spread(figures["windows_up_us"]))
        self.row("messages under way, to clients p50 / p99 / max", spread(figures["windows_down_us"]))
        self.row("worst of a session in each event p50 / p99 / max", spread(figures["windows_session_us"]))
        self.row("all messages, to servers p50 / p99 / max", spread(figures["up_us"]))
        self.row("all messages, to clients p50 / p99 / max", spread(figures["down_us"]))


# --- scenarios -----------------------------------------------------------------------------------

TRAFFIC = {"rate": 1, "split": 0.3, "wait": 20}


def traffic(sessions, guests):
    return dict(TRAFFIC, talkers=sessions, guests=guests)


def restarts(table, name, load, httpd, count, every=2.0):
    """Graceful restarts under traffic, one every two seconds or as fast as httpd allows."""
    with Run(table, name, load, httpd) as run:
        server, answers, ends, fds, chunks, memory = run.server, [], [], [], [], []
        wait_for(server.complete, 20)
        time.sleep(1)
        for _ in range(count):
            old, at = server.children(), time.monotonic()
            run.load.mark(at)
            server.process.send_signal(signal.SIGUSR1)
            answers.append(server.first_answer(old, at))
            ends.append(gone(old, at, 20))
            wait_for(server.complete, 20)
            time.sleep(max(0, at + every - time.monotonic()))
            fds.append(server.fds_of(server.process.pid))
            memory.append(anon_kb(server.process.pid))
            chunks.append(server.status()[0]["memory"]["chunks_used"])
            run.load.report()
            run.read_log()
        figures = run.finish()
        table.none(name, f"of {count} restarts, those whose old children stayed 20 s", ends.count(None))
        ended = sorted(e for e in ends if e is not None)
        run.row("old children gone after p50, longest", f"{statistics.median(ended):.2f}, {ended[-1]:.2f} s")
        answers.sort()
        table.most(name, "first answer of the new generation (median, longest)", statistics.median(answers) * 1000, 150,
                   "ms", f"{statistics.median(answers) * 1000:.0f}, {answers[-1] * 1000:.0f} ms")
        run.pause_rows()
        run.window_rows(figures)
        run.row("descriptors of the parent, first and last", f"{fds[0]}, {fds[-1]}", "flat", fds[-1] <= fds[0], hard=True)
        run.row("memory of the parent, first and last", f"{memory[0]}, {memory[-1]} KB")
        run.row("chunks of the arena in use, first and last", f"{chunks[0]}, {chunks[-1]}", "flat",
                chunks[-1] <= 2 * max(chunks[0], 500))


def event(table):
    restarts(table, "event", traffic(size(500, 100), size(10, 5)), {"children": 3, "threads": 64}, size(100, 4))


def worker(table):
    """A held request and an idle connection occupy a thread each: fewer sessions."""
    restarts(table, "worker", traffic(size(100, 30), size(4, 2)), {"mpm": "worker", "children": 3, "threads": 128},
             size(20, 3))


def prefork(table):
    """... and here a process."""
    restarts(table, "prefork", traffic(size(24, 12), 1),
             {"mpm": "prefork", "children": 60, "directives": "MaxRequestWorkers 120\n"}, size(20, 3))


def recycle(table):
    """MaxConnectionsPerChild. Each child that goes drops its connections, which the others have to take."""
    name, seconds = "recycle", size(60, 10)
    with Run(table, name, traffic(size(500, 100), size(10, 5)),
             {"children": 3, "threads": 64, "directives": f"MaxConnectionsPerChild {size(200, 50)}\n"}) as run:
        seen, end = set(run.server.children()), time.monotonic() + seconds
        run.load.mark(time.monotonic())
        while time.monotonic() < end:
            seen |= set(run.server.children())
            time.sleep(0.2)
        figures = run.finish()
        wait_for(run.server.complete, 20)
        run.row(f"children replaced in {seconds} s", str(len(seen) - 3), "some", len(seen) > 3, hard=True)
        run.pause_rows()
        run.window_rows(figures)


def reap(table):
    """MaxSpareThreads: httpd starts with more children than it wants to keep, and again at each graceful restart."""
    name, wanted, reaped, keep = "reap", size(20, 3), 0, 3
    with Run(table, name, dict(traffic(size(500, 100), size(10, 5)), window=10),
             {"children": 8, "threads": 32, "max_spare": keep * 32, "directives": "MinSpareThreads 32\n"}) as run:
        server, rounds = run.server, 0
        while reaped < wanted and rounds < 10:
            if rounds > 0:
                old, at = server.children(), time.monotonic()
                server.process.send_signal(signal.SIGUSR1)
                gone(old, at, 20)
            rounds += 1
            before = set(server.children())
            run.load.mark(time.monotonic())
            deadline = time.monotonic() + 15
            while len(server.children()) > keep and reaped < wanted and time.monotonic() < deadline:
                time.sleep(0.2)
                left = set(server.children())
                reaped += len(before - left)
                before = left
            run.load.report()
        figures = run.finish()
        run.row("children reaped", str(reaped), f">= {wanted}", reaped >= wanted, hard=True)
        run.row("graceful restarts between, to have more children again", str(rounds - 1))
        run.pause_rows()
        run.window_rows(figures)


def idle(table):
    """Thousands of sessions that only poll. Each is sent a message at some moment of the three seconds after the signal."""
    name, sessions = "idle", size(5000, 500)
    with Run(table, name, {"idlers": sessions, "idle_wait": 60, "window": 4, "at_once": 48},
             {"children": 3, "threads": 64}) as run:
        server = run.server
        wait_for(lambda: server.status()[0]["sessions"]["held"] >= sessions, 30, "all polls are held")
        for what, restart in (("without a restart, to compare", False), ("after a graceful restart", True)):
            start = run.load.report()
            old, at = server.children(), time.monotonic()
            run.load.mark(at)
            run.load.say("poke 3")
            if restart:
                server.process.send_signal(signal.SIGUSR1)
                first = server.first_answer(old, at)
                took = gone(old, at, 30)
            wait_for(lambda s=start: run.load.look()["down"] - s["down"] >= sessions or
                     time.monotonic() > at + 60, 70, interval=1)
            found = run.load.report()
            alive = found["down"] - start["down"]
            run.row(f"of {sessions} sessions alive {what}", str(alive), str(sessions), alive == sessions, hard=True)
            run.row("pause that a client saw p50 / p99 / max", spread(found["window_session_us"]))
            if restart:
                table.row(name, "old children gone after", f"{took or 30:.1f} s", "10 s", took is not None and took <= 10)
                run.row("first answer of the new generation", f"{first * 1000:.0f} ms")
            time.sleep(1)
        figures = run.finish()
        run.pause_rows()
        run.row("connecting p50 / p99 / max", spread(figures["connect_us"]))


def kills(table, name, load, httpd, count, hit):
    with Run(table, name, load, httpd) as run:
        server, fds = run.server, []
        wait_for(server.complete, 20)
        time.sleep(1)
        for _ in range(count):
            run.load.mark(time.monotonic())
            victim = hit(server)
            server.killed += 1
            gone([victim], time.monotonic(), 5)
            wait_for(lambda v=victim: v not in server.children() and server.complete(), 20, "httpd has its children")
            time.sleep(0.5)
            run.load.report()
            fds.append(server.fds_of(server.process.pid))
        time.sleep(1)
        figures = run.finish()
        run.row("children killed, streams rescued", f"{count}, {run.rescued}")
        table.none(name, "streams not rescued", run.lost)
        table.none(name, "sessions given up in a repair of the arena (BH203)", run.given_up)
        run.row("descriptors of the parent, first and last", f"{fds[0]}, {fds[-1]}", "flat", fds[-1] <= fds[0], hard=True)
        run.window_rows(figures)


def kill_any(server):
    victim = random.choice(server.children())
    os.kill(victim, signal.SIGKILL)
    return victim


def kill_in_restart(server):
    old = server.children()
    server.process.send_signal(signal.SIGUSR1)
    time.sleep(random.uniform(0, 0.15))
    victim = kill_any(server)
    gone(old, time.monotonic(), 20)
    return victim


def kill(table):
    kills(table, "kill", traffic(size(500, 100), size(10, 5)), {"children": 3, "threads": 64}, size(50, 3), kill_any)


def kill_only(table):
    kills(table, "kill-only", traffic(size(500, 50), size(10, 5)), {"children": 1, "threads": 128}, size(10, 2), kill_any)


def kill_restart(table):
    """Giver or receiver dies in the middle: a random child, up to 150 ms after the signal."""
    kills(table, "kill-restart", traffic(size(500, 100), size(10, 5)),
          {"children": 3, "threads": 64, "directives": "MaxRequestWorkers 320\n"}, size(20, 2), kill_in_restart)


def cpu_ns(server, only=None):
    """Time on a processor of all threads of all children, or of those of one name."""
    total = 0
    for pid in server.children():
        for task in Path(f"/proc/{pid}/task").iterdir():
            if only is None or (task / "comm").read_text().strip() == only:
                total += int((task / "schedstat").read_text().split()[0])
    return total


def escrow(table):
    """CPU time of httpd for a login and logout, with escrow and without, by turns. What escrow does is done on the
    loop threads, whose time is a tenth of the whole and varies less."""
    name, runs, logins = "escrow", size(11, 2), size(2000, 300)
    servers, costs = {}, {(t, what): [] for t in ("on", "off") for what in (None, "bosh-loop")}
    options = {"parallel": 8, "silent": True, "sink_port": free_port()}
    failed = 0
    try:
        for i in range(-1, runs):  # the first one warms up
            for turn in (("on", "off"), ("off", "on"))[i % 2]:
                load = Load(**options, logins=logins if i >= 0 else 200)
                if turn not in servers:
                    servers[turn] = Server(load, children=3, threads=32, directives=f"BoshEscrow {turn}\n").start()
                before = {what: cpu_ns(servers[turn], what) for what in (None, "bosh-loop")}
                load.go(servers[turn].port)
                figures = load.finish()
                failed += figures["status"] != 0
                for what, ns in before.items():
                    if i >= 0:
                        costs[turn, what].append((cpu_ns(servers[turn], what) - ns) / figures["logins"] / 1000)
    finally:
        for server in servers.values():
            server.stop()
            server.cleanup()
    table.none(name, "runs with a login that failed", failed)
    for what, title in ((None, "CPU of a login and logout"), ("bosh-loop", "of that, the loop threads")):
        on, off = costs["on", what], costs["off", what]
        table.row(name, f"{title}, with / without (medians of {runs})",
                  f"{statistics.median(on):.1f} / {statistics.median(off):.1f} us")
        table.row(name, "... spread", f"{min(on):.0f}-{max(on):.0f} / {min(off):.0f}-{max(off):.0f} us")
    pairs = [a - b for a, b in zip(on, off)]
    cost, noise = statistics.median(pairs), 1.25 * statistics.stdev(pairs) / len(pairs) ** 0.5
    shown = f"{cost:.1f} +- {noise:.1f} us"
    if noise > 2.5:
        table.row(name, "escrow per login: too much noise to tell (bar 5 us)", shown)
    else:
        table.most(name, "escrow per login (loop threads, pairs)", cost, 5, "us", shown)


SCENARIOS = {f.__name__.replace("_", "-"): f for f in (
    event, recycle, reap, worker, prefork, idle, kill, kill_only, kill_restart, escrow)}


def main(names):
    if names == ["--list"]:
        print(*SCENARIOS)
        return 0
    names = names or os.environ.get("SCENARIO", "").split() or list(SCENARIOS)
    unknown = [n for n in names if n not in SCENARIOS]
    if unknown:
        print(f"restart.py: no scenario {' '.join(unknown)}; there are: {' '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    raise_file_limit()
    table = Table()
    for name in names:
        SCENARIOS[name](table)
    return table.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
