# SPDX-License-Identifier: Apache-2.0
"""A plugin for pytest that keeps what became of each test function, for tests/tools/conformance.py.

{"test_x.py": {"test_one": ["passed", TIME]}}: a function with several cases is as good as the worst of them, and
"part" when some did not run. What is not run this time stays as it was.
"""

import json
import os
import time
from pathlib import Path

WORST = ("failed", "skipped", "part", "passed")


def names(nodeid):
    """a/test_x.py::TestY::test_z[1] -> test_x.py, test_z"""
    file, _, test = nodeid.partition("::")
    return Path(file).name, test.partition("[")[0].rpartition("::")[2]


class Record:
    def __init__(self, path):
        self.path = path
        self.outcomes, self.ran, self.left_out = {}, set(), []

    def note(self, nodeid, outcome):
        known = self.outcomes.get(names(nodeid), outcome)
        self.outcomes[names(nodeid)] = min(known, outcome, key=WORST.index)

    def pytest_deselected(self, items):
        self.left_out += [item.nodeid for item in items]

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.note(report.nodeid, "failed")
        elif report.skipped:  # an expected failure as well
            self.note(report.nodeid, "skipped")
        elif report.when == "call":
            self.note(report.nodeid, "failed" if hasattr(report, "wasxfail") else "passed")
        if report.when == "call" or not report.passed:
            self.ran.add(report.nodeid)

    def pytest_sessionfinish(self, session):
        for nodeid in self.left_out + [item.nodeid for item in getattr(session, "items", ())]:
            if nodeid not in self.ran and names(nodeid) in self.outcomes:
                self.note(nodeid, "part")
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        for (file, test), outcome in self.outcomes.items():
            known.setdefault(file, {})[test] = (outcome, time.time())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(known, indent=0, sort_keys=True))
        new.replace(self.path)
