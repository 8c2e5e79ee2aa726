# SPDX-License-Identifier: Apache-2.0
"""make tsung: Debian's Tsung with its BOSH transport against a private httpd with mod_bosh and a private Prosody.

USERS=400 users arrive at RATE=20 a second; each logs in, sends ten messages to others, and logs out. The exit status is
1 when Tsung counts any error, a user is missing at the end, or the module has lost or kept a session.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from bosh_env import WITH_US, Httpd, free_port, private_dir, raise_file_limit, wait_for
from prosody import Prosody

USERS, RATE = int(os.environ.get("USERS") or 400), int(os.environ.get("RATE") or 20)
STATUS = '<Location "/bosh-status">\n  SetHandler bosh-status\n</Location>\n'


class Crowd(Prosody):
    PASSWORDS = {f"tsung{i}": f"secret{i}" for i in range(1, USERS + 1)}


def status(server):
    return json.loads(server.client().request("GET", "/bosh-status?format=json").body)


def run_tsung(directory, server):
    """Tsung's log. Its name server is ours, and ends with us."""
    scenario = (ROOT / "bench" / "tsung.xml.in").read_text()
    for name, value in (("PORT", server.port), ("SECONDS", USERS // RATE + 60), ("RATE", RATE), ("USERS", USERS),
                        ("DOMAIN", Prosody.HOST)):
        scenario = scenario.replace(f"@{name}@", str(value))
    (directory / "tsung.xml").write_text(scenario)
    env = dict(os.environ, HOME=str(directory), ERL_EPMD_PORT=str(free_port()), ERL_EPMD_ADDRESS="127.0.0.1")
    with open(directory / "output", "wb") as out:
        names = subprocess.Popen([*WITH_US, "epmd"], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            done = subprocess.run([*WITH_US, "tsung", "-n", "-I", "127.0.0.1", "-f", directory / "tsung.xml",
                                   "-l", directory / "log", "start"], env=env, cwd=directory, stdin=subprocess.DEVNULL,
                                  stdout=out, stderr=out, timeout=USERS // RATE + 300, check=False)
        finally:
            names.terminate()
            names.wait()
    logs = list((directory / "log").glob("*/tsung.log"))
    assert done.returncode == 0 and logs, (directory / "output").read_text()
    return logs[0].read_text(), "".join(path.read_text() for path in logs[0].parent.glob("ts_*.log"))


def totals(log):
    """{name: sum of its counts over all intervals}, {name: weighted mean in ms}"""
    counts, time_of = Counter(), Counter()
    for kind, rest in re.findall(r"^stats: (\S+) (.*)$", log, re.M):
        numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", rest)]
        if len(numbers) > 2:  # count, mean, ...: of this interval
            counts[kind] += int(numbers[0])
            time_of[kind] += numbers[0] * numbers[1]
        elif numbers:
            counts[kind] += int(numbers[0])
    return counts, {kind: total / counts[kind] for kind, total in time_of.items() if counts[kind]}


def main():
    raise_file_limit()
    directory = private_dir("tsung")
    prosody = Crowd(("offline",)).start()
    server = Httpd(children=3, threads=32, upstreams=prosody.upstreams(), polling=None, log_level="warn", name="tsung",
                   directives=STATUS + "BoshLoginSize 64K\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\n").start()
    try:
        begun = time.monotonic()
        log, complaints = run_tsung(directory, server)
        wait_for(lambda: status(server)["sessions"]["live"] == 0, 60, "all sessions have ended")
        counters = status(server)["counters"]
        problems = [line.strip() for line in server.new_problems()]
    finally:
        server.stop()
        prosody.stop()
        server.cleanup()
    counts, means = totals(log)
    print(f"tsung: {USERS} users, {RATE} a second, {time.monotonic() - begun:.0f} s; "
          f"{counts['bosh_http_req']} requests, {counters['stanzas_down']} stanzas down, {counters['stanzas_up']} up")
    for kind in ("tr_login", "tr_roster", "tr_logout", "request", "connect"):
        if kind in means:
            print(f"  {kind:10} {counts[kind]:7}   mean {means[kind]:8.2f} ms")
    problems += [f"{kind}: {n}" for kind, n in counts.items() if kind.startswith("error") and n]
    problems += [f"{kind}: {n} (want {USERS})" for kind, n in
                 (("users_count", counts["users_count"]), ("finish_users_count", counts["finish_users_count"]),
                  ("tr_logout", counts["tr_logout"]), ("sessions created", counters["created"])) if n != USERS]
    problems += [f"{key}: {n}" for key, n in counters.items() if key.startswith("lost_") and n]
    problems += re.findall(r"^.*(?:ERR|CRITICAL|closed by server).*$", complaints, re.M)[:5]
    for line in problems:
        print(f"  BAD  {line}")
    print(f"tsung: {len(problems)} errors; Tsung's logs: {directory}/log")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
