#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What lines of httpd's configuration, and of ours, cost or save. `make bench-conf` runs it.

    conf.py [KIND...]       ping, idle, paced, large, burst, held; all without an argument

Each variant differs from its base by what its row says. Both run side by side, on the same machine at the same time, and are
measured by turns of a tenth of a second, or together where they mostly wait. The first figure of a row is the median of
all turns, the second one the mean; the ratio is the median of those of a turn to the turn of the base beside it, and last
comes that of each round. Rows "the same again" say what the noise is.

Environment: QUICK=1 (one short round), ROUNDS=N (3; of idle and paced a third), and what tests/e2e/bosh_env.py has. Writes
build/bench/conf.json and conf.md. The exit status is 1 when anything was lost, doubled or out of order.
"""

import functools
import gzip
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import bench  # noqa: E402
import xmltool as X  # noqa: E402
from bench import OUT, QUICK, Bench, Meter, size, wait_until_live  # noqa: E402
from bosh_env import WITH_US, free_port, private_dir, raise_file_limit, wait_for  # noqa: E402
from certs import Authority  # noqa: E402
from client import BoshClient  # noqa: E402
from contenders import DEBIAN_MODULES, Floor, ModBosh, Server, domain_of, versions  # noqa: E402
from stub import StubServer  # noqa: E402

STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

SIZES = {"sessions": size(2000, 200), "listeners": size(1000, 200), "loop": 100, "turns": size(30, 10), "turn": 0.1,
         "window": size(20, 10), "settle": size(12, 4), "answers": 10, "held": 1000, "burst": 2000}


# --- variants ------------------------------------------------------------------------------------

# Lines of the base that go with a module.
LINES_OF = {"reqtimeout": "RequestReadTimeout", "setenvif": "BrowserMatch", "mime": "TypesConfig",
            "dir": "DirectoryIndex", "filter": "AddOutputFilterByType", "deflate": "AddOutputFilterByType"}


def without(*modules):
    """Edits that take modules out of the base, with their lines."""
    edits = [(rf"^LoadModule ({'|'.join(modules)})_module .*\n", "")]
    return edits + [(rf"^{line} .*\n", "") for line in sorted({LINES_OF[m] for m in modules if m in LINES_OF})]


class Variant:
    """what: the row's name. add: lines at the end of the configuration. edits: [(pattern, replacement)] for it; each
    must match. children, threads: instead of two of 64. base: another variant than the base of this kind. front: behind
    an nginx that passes connections on, "plain" or "tls". load: options of bosh-load. of: the class of the contender.
    Of the client in Large: takes_gzip; up: it sends what is large, and packs it."""

    def __init__(self, what, add="", edits=(), children=2, threads=64, base=None, front=None, load=None, of=ModBosh,
                 takes_gzip=False, up=False, packs=False):
        self.what, self.add, self.edits, self.children, self.threads = what, add, edits, children, threads
        self.base, self.front, self.load, self.of = base, front, load or {}, of
        self.takes_gzip, self.up, self.packs = takes_gzip, up, packs

    def edit(self, text):
        for pattern, replacement in self.edits:
            text, n = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert n, f"{self.what}: the configuration has no {pattern}"
        add = self.add
        if self.front == "tls":
            add += tls_lines(re.search(r"^LoadModule \S+ (.*)/", text, re.MULTILINE).group(1))
        root = re.search(r"^DocumentRoot (.*)$", text, re.MULTILINE).group(1)
        Path(root).mkdir(parents=True, exist_ok=True)
        return f"{text}\n{add}\n"

    def contender(self, sessions):
        """One that can be started again and again."""
        variant = self

        class Edited(self.of):
            def edit(self, text):
                return variant.edit(text)

            def options_of(self, i):
                return {**super().options_of(i), **variant.load}

            def start(self, load_ports):
                super().start(load_ports)
                self.front = Front(self.port, variant.front == "tls") if variant.front else None
                self.port = self.front.port if self.front else self.port

            def stop(self):
                if self.front:
                    self.front.stop()
                super().stop()

        return Edited(sessions=sessions, children=self.children, threads=self.threads)


@functools.cache
def tls_lines(libexec):
    """mod_ssl as Debian sets it up, a certificate on P-256."""
    pair = Authority().issue("localhost", ["DNS:localhost"])
    return (f"\nLoadModule socache_shmcb_module {libexec}/mod_socache_shmcb.so\nLoadModule ssl_module {libexec}/mod_ssl.so\n"
            "SSLEngine on\nSSLSessionCache shmcb:ssl_scache(512000)\nSSLSessionCacheTimeout 300\n"
            f"SSLCipherSuite HIGH:!aNULL\nSSLProtocol all -SSLv3\nSSLCertificateFile {pair.cert}\n"
            f"SSLCertificateKeyFile {pair.key}\n")


FRONT = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
daemon off;
user www-data;
events {{ worker_connections 19900; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{upstream};
        proxy_timeout 300s;
        tcp_nodelay on;
        {tls}
    }}
}}
"""


class Front:
    """An nginx that passes each connection on, with TLS or without: bosh-load has none. It is not counted."""

    def __init__(self, upstream, tls):
        self.port, self.dir = free_port(), private_dir("front")
        conf = self.dir / "nginx.conf"
        conf.write_text(FRONT.format(module=STREAM, dir=self.dir, port=self.port, upstream=upstream,
                                     tls="proxy_ssl on; proxy_ssl_session_reuse off;" if tls else ""))
        self.out = open(self.dir / "output.log", "wb")
        self.process = subprocess.Popen([*WITH_US, "nginx", "-c", str(conf), "-p", str(self.dir), "-e",
                                         str(self.dir / "error.log")], stdin=subprocess.DEVNULL, stdout=self.out,
                                        stderr=self.out, start_new_session=True)
        self.name = "nginx"
        wait_for(lambda: Server.listens(self, self.port), 10, "nginx listens")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.out.close()
        shutil.rmtree(self.dir, ignore_errors=True)


# What nobody needs for the endpoint. mod_authz_core is for Require.
NEEDED = ("authz_core",)
NEEDLESS = [m for m in DEBIAN_MODULES if m not in NEEDED]
AUTH = ("access_compat", "auth_basic", "authn_core", "authn_file", "authz_host", "authz_user")
FILES = ("alias", "autoindex", "dir", "env", "negotiation", "mime")
NO_LOG = [(r"^CustomLog .*\n", "")]
DEEP = [(r"AllowOverride None", "AllowOverride All"), (r"^(DocumentRoot .*)$", r"\1/a/b/c/d/e/f")]
# As Debian has it, with its mpm_event.conf: children come and go.
AS_DEBIAN = [(r"^MaxKeepAliveRequests .*$", "MaxKeepAliveRequests 100"), (r"^ListenBacklog .*$", ""),
             (r"^ServerLimit .*$", "ServerLimit 16"), (r"^ThreadLimit .*$", "ThreadLimit 64"),
             (r"^MinSpareThreads .*$", "MinSpareThreads 25"), (r"^MaxSpareThreads .*$", "MaxSpareThreads 75"),
             (r"^MaxRequestWorkers .*$", "MaxRequestWorkers 150"), (r"^AsyncRequestWorkerFactor .*$", "")]


def factor(n):
    return [(r"^AsyncRequestWorkerFactor .*$", f"AsyncRequestWorkerFactor {n}")]


BASE = Variant("base")
DEBIAN = Variant("Debian's settings: 2 to 6 children of 25", edits=AS_DEBIAN, threads=25)
TUNED = Variant("with conf/tuning.conf behind them", (ROOT / "conf" / "tuning.conf").read_text(), AS_DEBIAN, threads=25, base=DEBIAN)
FLOOR = Variant("trivial handler", of=Floor)
PLAIN = Variant("through an nginx that passes connections on", front="plain")
TLS = Variant("the same with TLS, mod_ssl", front="tls", base=PLAIN)

PING = [
    Variant("the same again"),
    Variant("no CustomLog", edits=NO_LOG),
    Variant("BufferedLogs On", "BufferedLogs On"),
    Variant("ExtendedStatus Off", "ExtendedStatus Off"),
    Variant("LogLevel bosh:debug", "LogLevel bosh:debug"),
    Variant("without mod_reqtimeout", edits=without("reqtimeout")),
    Variant("without mod_setenvif", edits=without("setenvif")),
    Variant("without mod_" + ", ".join(AUTH), edits=without(*AUTH)),
    Variant("without mod_" + ", ".join(FILES), edits=without(*FILES)),
    Variant("without mod_deflate, filter", edits=without("deflate", "filter")),
    Variant("no module but mod_authz_core", edits=without(*NEEDLESS)),
    Variant("no module but mod_authz_core, no CustomLog", edits=without(*NEEDLESS) + NO_LOG),
    Variant("clients that take gzip", load={"gzip": True}),
    Variant("MaxKeepAliveRequests 100", "MaxKeepAliveRequests 100"),
    Variant("ThreadsPerChild 25", threads=25),
    Variant("ThreadsPerChild 128", threads=128),
    Variant("1 child of 128 threads", children=1, threads=128),
    Variant("4 children of 32 threads", children=4, threads=32),
    Variant("AsyncRequestWorkerFactor 2", edits=factor(2)),
    Variant("AsyncRequestWorkerFactor 400", edits=factor(400)),
    Variant("MaxMemFree 0", "MaxMemFree 0"),
    Variant("MaxMemFree 32", "MaxMemFree 32"),
    Variant("MaxMemFree 8", "MaxMemFree 8"),
    Variant("document root 6 levels deeper, AllowOverride All", edits=DEEP),
    Variant("BoshAsync Off", "BoshAsync Off"),
    Variant("BoshEscrow Off", "BoshEscrow Off"),
    Variant("BoshInflate Off", "BoshInflate Off"),
    Variant("BoshKeys Off", "BoshKeys Off"),
    Variant("BoshReturnUndelivered Off", "BoshReturnUndelivered Off"),
    Variant("document root 6 levels deeper, AllowOverride All: trivial handler", edits=DEEP, of=Floor, base=FLOOR),
    TLS,
    TUNED,
]

IDLE = [
    Variant("the same again"),
    Variant("no module but mod_authz_core", edits=without(*NEEDLESS)),
    Variant("MaxMemFree 0", "MaxMemFree 0"),
    Variant("MaxMemFree 32", "MaxMemFree 32"),
    Variant("MaxMemFree 8", "MaxMemFree 8"),
    Variant("1 child of 128 threads", children=1, threads=128),
    Variant("4 children of 32 threads", children=4, threads=32),
    Variant("BoshEscrow Off", "BoshEscrow Off"),
    Variant("conf/tuning.conf", TUNED.add),
    TLS,
]

PACED = [
    Variant("the same again"),
    Variant("KeepAliveTimeout 1", "KeepAliveTimeout 1"),
    Variant("KeepAliveTimeout 15", "KeepAliveTimeout 15"),
    Variant("KeepAliveTimeout 60", "KeepAliveTimeout 60"),
    Variant("KeepAliveTimeout 60, with TLS both times", "KeepAliveTimeout 60", front="tls",
            base=Variant("with TLS, mod_ssl", front="tls")),
]

ANSWERS = Variant("answers")
LARGE = [
    Variant("the same again"),
    Variant("answers to a client that takes gzip", takes_gzip=True),
    Variant("... BoshDeflate Off: mod_deflate", "BoshDeflate Off", takes_gzip=True),
    Variant("... BoshDeflate Off, DeflateCompressionLevel 1", "BoshDeflate Off\nDeflateCompressionLevel 1", takes_gzip=True),
    Variant("requests, compressed by the client", up=True, packs=True, base=Variant("requests", up=True)),
]

BURST = [
    Variant("the same again"),
    Variant("ListenBacklog 511", "ListenBacklog 511"),
]

HELD = [
    Variant("AsyncRequestWorkerFactor 2", edits=factor(2)),
    Variant("AsyncRequestWorkerFactor 10", edits=factor(10)),
    TUNED,
]


# --- measuring one beside its base ---------------------------------------------------------------

@functools.cache
def chat(n=8192):
    """Words as they come in chats: not the same ones again and again, and no noise either."""
    dice = random.Random(1)
    words = ["".join(dice.choice("etaoinshrdlucmfw") for _ in range(dice.randint(2, 9))) for _ in range(600)]
    return " ".join(dice.choice(words) for _ in range(n // 4))[:n]


class Run(Bench):
    """A variant that runs, and what was found."""

    def __init__(self, variant, sessions):
        super().__init__(variant.contender(sessions))
        self.variant, self.slices = variant, []


class Pinging(Run):
    def begin(self):
        kind, self.count = ("posters", "posts") if issubclass(self.variant.of, Floor) else ("pingers", "pings")
        self.generator = self.load(**{kind: SIZES["loop"]})
        self.generator.go(self.contender.port)
        wait_for(lambda: self.generator.look()[self.count] > 20 * SIZES["loop"], 30, "all have their connections")
        self.generator.say("pause")
        self.first = self.generator.look()

    def turn(self):
        self.generator.say("resume")
        try:
            time.sleep(0.03)
            meter, before = Meter(self.contender), self.generator.look()
            time.sleep(SIZES["turn"])
            after, us = self.generator.look(), meter.us()
        finally:
            self.generator.say("pause")
        return {"ping_us": us / max(1, after[self.count] - before[self.count])}

    def finish(self):
        now = self.generator.look()
        connects = 1000 * (now["connects"] - self.first["connects"]) / max(1, now[self.count] - self.first[self.count])
        self.slices = [{**figures, "connects": connects} for figures in self.slices]
        self.end(self.generator)


class Large(Run):
    """One session, one large message after the other, in answers or in requests."""

    def begin(self):
        self.stub, self.client = StubServer(port=self.sink), BoshClient(self.contender.port)
        self.session, self.stream = self.client.login(self.stub, to=domain_of(0))
        self.conn = self.client.connect()
        self.exchange()

    def exchange(self):
        """One request and its answer; bytes of the body of the larger one."""
        how, message = self.variant, X.message(chat(), to="alice@example.com")
        headers = {"Accept-Encoding": "gzip"} if how.takes_gzip else {}
        self.session.rid += 1
        data = self.session.body(self.session.rid, message if how.up else "").encode()
        if how.packs:
            data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
        waiting = self.session.post(data, conn=self.conn, headers=headers, check=False)
        self.stream.send(X.message("ok", to="alice@example.com") if how.up else message)
        answer = waiting.raw()
        assert answer.status == 200 and (answer.get("Content-Encoding") == "gzip") == how.takes_gzip, answer
        return len(data if how.up else answer.body)

    def turn(self):
        meter = Meter(self.contender)
        size = sum(self.exchange() for _ in range(SIZES["answers"]))
        return {"large_us": meter.us() / SIZES["answers"], "bytes": size / SIZES["answers"]}

    def finish(self):
        self.client.close()
        self.stub.stop()


def in_turns(runs):
    for run in runs:
        run.begin()
    for i in range(SIZES["turns"]):
        try:
            figures = [(run, run.turn()) for run in (runs if i % 2 else reversed(runs))]
        except OSError:  # a child has gone, as Debian's settings have it, and its CPU time with it
            continue
        for run, found in figures:
            run.slices.append(found)
    for run in runs:
        run.finish()


def paced(runs):
    """At the same time: sessions with a message each way every ten seconds, so that connections lie idle."""
    n, memory = SIZES["listeners"], [bench.pss_kb(run.contender.processes()) for run in runs]
    loads = [run.load(talkers=n, rate=0.1) for run in runs]
    for run, load in zip(runs, loads):
        load.go(run.contender.port)
    time.sleep(11)
    before = [(Meter(run.contender), load.look()) for run, load in zip(runs, loads)]
    time.sleep(SIZES["window"])
    for run, load, (meter, then), empty in zip(runs, loads, before, memory):
        us, now = meter.us(), load.look()
        done = max(1, sum(now[way] - then[way] for way in ("up", "down")))
        run.found = {"message_us": us / done, "connects": 1000 * (now["connects"] - then["connects"]) / done,
                     "memory_kb": (bench.pss_kb(run.contender.processes()) - empty) / n}
    for run, load in zip(runs, loads):
        run.end(load)


def idle(runs):
    """Logins, one server's after the other's, and the memory of sessions that only wait."""
    n, loads = SIZES["sessions"], []
    for run in runs:
        run.warm_up()
    memory = [bench.pss_kb(run.contender.processes()) for run in runs]
    for run in runs:
        load, meter = run.load(idlers=n, idle_wait=60), Meter(run.contender)
        load.go(run.contender.port)
        run.found["login_ms"] = meter.us() / n / 1000
        loads.append(load)
    time.sleep(SIZES["settle"])
    for run, before in zip(runs, memory):
        run.found["memory_kb"] = (bench.pss_kb(run.contender.processes()) - before) / n
    for run, load in zip(runs, loads):
        run.end(load)


def held(runs):
    """How many sessions come."""
    for run in runs:
        load = run.load(idlers=SIZES["held"], idle_wait=60)
        load.start(run.contender.port)
        run.found["held"] = wait_until_live([load], SIZES["held"], patience=5)
        load.kill()


def burst(runs):
    """All come at once, as after a restart: how long the slowest of a hundred takes to get connected."""
    for run in runs:
        load = run.load(idlers=SIZES["burst"], at_once=SIZES["burst"], idle_wait=60)
        load.go(run.contender.port)
        run.found["connect_ms"] = load.look()["connect_us"]["p99"] / 1000
        run.end(load)


# --- all of them ---------------------------------------------------------------------------------

KINDS = {  # kind: variants, how, class of runs, sessions, heading, [(figure, its heading, digits)]; the first is compared
    "ping": (PING, in_turns, Pinging, "loop", f"{SIZES['loop']} clients in a closed loop of pings",
             [("ping_us", "CPU us per round trip", 1), ("connects", "new connections, of 1,000", 1)]),
    "idle": (IDLE, idle, Run, "sessions", f"{SIZES['sessions']:,} sessions with one poll held",
             [("memory_kb", "KB per session", 1), ("login_ms", "CPU ms per login", 3)]),
    "paced": (PACED, paced, Run, "listeners", f"{SIZES['listeners']:,} sessions with a message each way every ten seconds",
              [("message_us", "CPU us per message", 1), ("connects", "new connections, of 1,000", 0), ("memory_kb", "KB per session", 1)]),
    "large": (LARGE, in_turns, Large, "loop", "Messages of 8 KB, one session",
              [("large_us", "CPU us per round trip", 0), ("bytes", "bytes", 0)]),
    "burst": (BURST, burst, Run, "burst", f"{SIZES['burst']:,} clients connect at once",
              [("connect_ms", "ms to connect, p99", 1)]),
    "held": (HELD, held, Run, "held", f"Of {SIZES['held']:,} sessions, so many come", [("held", "sessions", 0)]),
}


def base_of(kind, variant):
    return variant.base or (ANSWERS if kind == "large" else BASE)


def measure(kind, variant, wrong):
    """[(figures of the base, figures of the variant)], one for each turn"""
    _, how, run_class, sessions, _, _ = KINDS[kind]
    with run_class(base_of(kind, variant), SIZES[sessions]) as base, run_class(variant, SIZES[sessions]) as run:
        how([base, run])
    wrong += [f"{r.variant.what}: {said}" for r in (base, run) for said in r.faults]
    return list(zip(base.slices or [base.found], run.slices or [run.found]))


def round_of(kind, runs, wrong):
    """runs: {what: [measure()]}, to which each variant's are added."""
    for variant in KINDS[kind][0]:
        pairs = measure(kind, variant, wrong)
        runs.setdefault(variant.what, []).append(pairs)
        print(f"{kind:6} {variant.what:64} " + "; ".join(
            ", ".join(f"{statistics.median(pair[i][key] for pair in pairs):.{digits}f}" for key, _, digits in KINDS[kind][-1])
            for i in (0, 1)) + f"; x {ratio(kind, pairs):.3f}", flush=True)


def ratio(kind, pairs):
    main = KINDS[kind][-1][0][0]
    return statistics.median(figures[main] / max(1e-9, of_base[main]) for of_base, figures in pairs)


def table(kind, runs):
    """Markdown: each base, and its variants below it."""
    variants, *_, heading, columns = KINDS[kind]
    shown = None
    middle = [statistics.median] + [statistics.mean] * (len(columns) - 1)
    lines = [f"### {heading}", "", "| | " + " | ".join(h for _, h, _ in columns) + " | times the base | in each round |",
             "|---" * (len(columns) + 3) + "|"]

    def row(what, figures, *more):
        cells = [f"{of(f[key] for f in figures):,.{digits}f}" for of, (key, _, digits) in zip(middle, columns)]
        lines.append(f"| {what} | " + " | ".join([*cells, *more]) + " |")
    for variant in variants:
        base, rounds = base_of(kind, variant).what, runs[variant.what]
        if base != shown:
            row(f"**{base}**", [pair[0] for v in variants if base_of(kind, v).what == base for pairs in runs[v.what] for pair in pairs],
                "1", "")
            shown = base
        every = [pair for pairs in rounds for pair in pairs]
        row(variant.what, [figures for _, figures in every], f"{ratio(kind, every):.2f}",
            " ".join(f"{ratio(kind, pairs):.2f}" for pairs in rounds))
    return "\n".join(lines) + "\n"


def report(record):
    v = record["versions"]
    text = [f"{v['date']}, {v['machine']}, {v['kernel']}, commit {v['commit']}, apache2-bin {v['packages'].get('apache2-bin')}; "
            f"load average at the start {record['load'][0]:.1f}, at the end {record['load'][1]:.1f}; {record['rounds']} rounds"
            + (", QUICK" if record["quick"] else ""), "", *(table(kind, runs) for kind, runs in record["runs"].items())]
    return "\n".join(text + [f"Fault: {said}" for said in record["faults"]]) + "\n"


def rounds_of(kind, rounds):
    """What takes long is measured less often."""
    return {"idle": -(-rounds // 3), "paced": -(-rounds // 3), "held": 1}.get(kind, rounds)


def main(kinds):
    unknown = [k for k in kinds if k not in KINDS]
    if unknown:
        print(f"conf.py: no kind {' '.join(unknown)}; there are: {' '.join(KINDS)}", file=sys.stderr)
        return 2
    if not STREAM.exists():
        print(f"conf.py: {STREAM} is missing (libnginx-mod-stream): tests/tools/need.sh bench installs it", file=sys.stderr)
        return 2
    raise_file_limit()
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "load.log").write_text("")
    rounds, load, wrong = int(os.environ.get("ROUNDS") or size(3, 1)), [os.getloadavg()[0]], []
    runs = {}
    for kind in kinds or KINDS:
        for i in range(rounds_of(kind, rounds)):
            print(f"--- {kind}, round {i + 1} of {rounds_of(kind, rounds)}, load average {os.getloadavg()[0]}", flush=True)
            round_of(kind, runs.setdefault(kind, {}), wrong)
    record = {"versions": versions(), "quick": QUICK, "rounds": rounds, "load": [*load, os.getloadavg()[0]], "runs": runs,
              "faults": wrong}
    (OUT / "conf.json").write_text(json.dumps(record, indent=1))
    (OUT / "conf.md").write_text(report(record))
    print(report(record))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
