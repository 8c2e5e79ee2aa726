#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of the session machine for a fixed script, and compares with what is stored.

    budget.py PROGRAM             prints the figures; fails when one is more than 10 % above the stored one
    budget.py PROGRAM --update    stores them (tests/budget/budget.txt): in the commit that changes them

PROGRAM is tests/budget/script.c, run under callgrind. Only instructions in the program's own code count: what
expat does depends on its version, and libc chooses its string functions by the processor. So the figures are the
same on every machine with the same compiler, whose version is stored with them; with another one nothing is
compared, and that counts as skipped.
"""

import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests/budget/budget.txt"
PARTS = ("parse", "apply", "append", "collect", "print")
GROWTH = 1.10
WORTH_TELLING = 0.97

HEAD = """\
# Instructions of the project's own code for the script of tests/budget/script.c. Written by `make budget-update`.
"""


def count(profile, program):
    """Self cost in `program` and in everything else, of a callgrind profile."""
    names, own, other, calls, inside = {}, 0, 0, False, False
    for line in profile.splitlines():
        if m := re.match(r"ob=\((\d+)\)(?: (.*))?", line):
            if m.group(2):
                names[m.group(1)] = m.group(2)
            inside = names[m.group(1)] == program
        elif m := re.match(r"cob=\((\d+)\) (.*)", line):
            names[m.group(1)] = m.group(2)
        elif line.startswith("calls="):
            calls = True  # the next line is what was spent in there
        elif m := re.match(r"[+\-*\d]\S* (\d+)$", line):
            if not calls and inside:
                own += int(m.group(1))
            elif not calls:
                other += int(m.group(1))
            calls = False
    return own, other


def measure(program, part, where):
    profile = Path(where) / part
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", f"--toggle-collect=part_{part}", "--collect-atstart=no",
         f"--callgrind-out-file={profile}", program], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"budget.py: {program} under callgrind: {done.stderr.strip()}")
    return count(profile.read_text(), program)


def compiler(program):
    """What the program says of the compiler that made it, and the processor's architecture."""
    comment = subprocess.run(["readelf", "-p", ".comment", program], capture_output=True, text=True).stdout
    found = sorted(set(re.findall(r"\]\s+(.*)", comment)))
    return f"{platform.machine()}: {'; '.join(found) or 'unknown'}"


def read_stored():
    figures, made_by = {}, None
    for line in STORED.read_text().splitlines() if STORED.exists() else []:
        if line.startswith("compiler "):
            made_by = line.removeprefix("compiler ")
        elif line and not line.startswith("#"):
            part, figure = line.split()
            figures[part] = int(figure)
    return figures, made_by


def main(args):
    program = str(Path(args[0]).resolve())
    with tempfile.TemporaryDirectory() as where:
        counted = {part: measure(program, part, where) for part in PARTS}
    made_by = compiler(program)
    if "--update" in args:
        lines = [f"{part} {own}\n" for part, (own, _) in counted.items()]
        STORED.write_text(HEAD + f"compiler {made_by}\n" + "".join(lines))
        print(f"stored in {STORED.relative_to(ROOT)}")
        return 0
    stored, stored_by = read_stored()
    passed = failed = skipped = 0
    print(f"      {'':8}{'now':>10}{'stored':>10}{'':10}{'beside':>10}   (instructions; beside: in libraries)")
    for part, (own, other) in counted.items():
        was = stored.get(part, 0)
        change = f"{100 * (own - was) / was:+.1f} %" if was else ""
        verdict, why = "ok", ""
        if own == 0:
            verdict, why = "FAIL", "nothing was counted"
        elif made_by != stored_by:
            verdict, why = "skip", f"stored with another compiler ({stored_by}), this is {made_by}"
        elif not was or own > was * GROWTH:
            verdict, why = "FAIL", "make it cheaper, or say why it is dearer in a commit with: make budget-update"
        elif own < was * WORTH_TELLING:
            why = "cheaper: keep that with make budget-update"
        passed, failed, skipped = passed + (verdict == "ok"), failed + (verdict == "FAIL"), skipped + (verdict == "skip")
        print(f"{verdict:4}  {part:8}{own:10}{was:10}{change:>10}{other:10}   {why}".rstrip())
    print(f"budget: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
