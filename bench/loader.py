# SPDX-License-Identifier: Apache-2.0
"""bosh-load (load.c) as the programs beside it use it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from bosh_env import WITH_US  # noqa: E402

LOAD = os.environ.get("BOSH_LOAD") or ROOT / "build" / "bench" / "bosh-load"

# What a run must not have, of each report.
FAULTS = {"lost_sessions": "sessions lost", "lost": "lost", "lost_with_session": "lost with a session",
          "doubled": "doubled", "disordered": "out of order", "misrouted": "at the wrong client",
          "http_errors": "answers that are none", "hung": "requests never answered",
          "unanswered": "held requests not answered at logout"}


class Load:
    """One bosh-load: the clients, and the XMPP server that the connection manager is told to connect to.
    log: where its complaints go, a file object; default: standard error."""

    def __init__(self, log=None, **options):
        args = []
        for name, value in options.items():
            args += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        self.process = subprocess.Popen(WITH_US + [str(LOAD), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=log, text=True, bufsize=1)
        self.port = self.read()["port"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bosh-load ended with {self.process.wait()}")
        return json.loads(line)

    def say(self, command):
        self.process.stdin.write(command + "\n")

    def start(self, port):
        """Without waiting for its sessions."""
        self.say(f"go {port}")

    def go(self, port):
        self.start(port)
        return self.read()

    def mark(self, at):
        self.say(f"mark {at:.6f}")

    def report(self):
        self.say("report")
        return self.read()

    def look(self):
        """The figures so far; the window goes on. What it has said on its own before is passed over."""
        self.say("look")
        while (figures := self.read())["event"] != "look":
            pass
        return figures

    def stop(self):
        """Whatever is under way arrives, everybody leaves: the final figures."""
        self.say("stop")
        return self.finish()

    def finish(self):
        figures = self.read()
        figures["status"] = self.process.wait(60)
        return figures

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def faults(figures):
    """What went wrong, in words; "" when nothing did."""
    return ", ".join(f"{figures[key]} {what}" for key, what in FAULTS.items() if figures[key])
