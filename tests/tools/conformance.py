#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which row of the protocol checklist is proven by which test, and whether that test ran and passed.

    conformance.py            writes docs/CONFORMANCE.md, adds rows that have got a test to done.txt, prints row,
                              state, result and tests, and the counts. Results are those on hand in
                              BUILD/check from the last runs; a test that has none, or has been changed
                              since, is shown as such and is no fault.
    conformance.py --strict   the last step of `make check`: every test that a row claims must have run there and
                              passed. A test that was skipped has not. Writes nothing.
    conformance.py --check    for lint: fails when document or done.txt are stale or an id is wrong. Writes nothing.

What it reads: rows.tsv (the checklist), done.txt (the rows that are done; they may not lose their test, so
once all rows are in it, none may be without), the tests, and the results. A test names the rows it covers in
one of these ways:

    START_TEST(test_B_165_...)                 in C and in Python, an id within the name
    /* rows: B-165 B-166 */                    before the test or in it; in Python: # rows: B-165
    @pytest.mark.rows("B-165", "B-166")        on a test, a class or (as pytestmark) a file

A test that is always skipped, or is expected to fail, covers nothing.
"""

import ast
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "docs/CONFORMANCE.md"
DONE = "tests/tools/done.txt"
STATES = ("done and tested", "not yet")
SHOWN = 3  # tests named in a row; the rest is counted

ID = re.compile(r"\b[A-Z]-\d{2,3}\b")
IN_NAME = re.compile(r"(?<![A-Za-z0-9])([BSUX]_\d{3}|R_\d{2})(?![A-Za-z0-9])", re.IGNORECASE)
COMMENT = re.compile(r"\brows?:((?:[\s,*]*[A-Z]-\d{2,3}\b)+)")
TEST_START = re.compile(r"\bSTART_TEST\s*\(\s*(\w+)")
TAP = re.compile(r"^(ok|not ok) \d+ - [^:]*:[^:]*:(\w+):")

HEAD = """# Conformance

<!-- Written by `make conformance` from tests/tools/rows.tsv and the tests. -->

What mod_bosh does of the protocol, row by row: B rows are XEP-0124, X rows XEP-0206, S rows XEP-0252
(script syntax), U rows the way to the XMPP server (RFC 6120, XEP-0368, RFC 8305), R rows the project's own rulings
where those are silent or contradict themselves. *Level* is
the word of the specification (REC: it says nothing, and this is what mod_bosh does); *what holds* is the
behavior of a manager that conforms.

- **done and tested**: implemented, and the tests named fail when it breaks; `make check` fails unless each of them
  ran and passed;
- **not yet**: not claimed.

Where mod_bosh departs from the letter:

- S-013: `content` of a session in script syntax does not become the Content-Type when it names an XML type. XEP-0252 2.3
  leaves open what is sent to a client with `content`, and its own example answers `content='text/xml; charset=utf-8'`
  with `text/javascript`. The answer is no XML, and no browser runs a script that is labeled so together with
  `X-Content-Type-Options: nosniff`, which B-020 wants.
- S-002: what came in the wrong syntax is answered in the syntax of its own request, not of the session: else the client
  could not read why.
"""


class Found:
    """The tests of each row, and what is wrong with the ids."""

    def __init__(self):
        self.tests = {}
        self.errors = []

    def add(self, ids, test):
        for row in ids:
            names = self.tests.setdefault(row, [])
            if test not in names:
                names.append(test)


def read_rows(root):
    rows = []
    for line in (root / "tests/tools/rows.tsv").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            row, section, level, text = line.split("\t")
            rows.append((row, section, level, text))
    return rows


def read_done(root):
    path = root / DONE
    if not path.exists():
        return []
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [words[0] for words in lines if words]


def write_done(root, table):
    """The comments at its top, then the rows in the order of rows.tsv. Adds what has a test, takes nothing out."""
    path, kept = root / DONE, set(read_done(root))
    top = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")] if path.exists() else []
    rows = [entry[0] for entry in table if entry[0] in kept or entry[5]]
    rows += sorted(kept - set(rows))  # wrong ones, which are reported
    path.write_text("\n".join(top + rows) + "\n", encoding="utf-8")


def in_name(name):
    return [m.group(1).upper().replace("_", "-") for m in IN_NAME.finditer(name)]


def in_comments(text):
    return [row for m in COMMENT.finditer(text) for row in ID.findall(m.group(1))]


def scan_c(path, label, found):
    """rows: before a START_TEST belongs to it, after it (up to END_TEST) too."""
    text = path.read_text(encoding="utf-8", errors="replace")
    marks = [(m.start(), "start", m.group(1)) for m in TEST_START.finditer(text)]
    marks += [(m.start(), "end", None) for m in re.finditer(r"\bEND_TEST\b", text)]
    marks += [(m.start(), "rows", ID.findall(m.group(1))) for m in COMMENT.finditer(text)]
    test, pending = None, []
    for _, kind, value in sorted(marks, key=lambda mark: mark[0]):
        if kind == "start":
            test = f"{label}: {value}"
            found.add(in_name(value) + pending, test)
            pending = []
            if len(re.findall(rf"\b{value}\b", text)) < 2:
                found.errors.append(f"{test} is in no suite: it never runs")
        elif kind == "end":
            test = None
        elif test:
            found.add(value, test)
        else:
            pending += value
    if pending:
        found.errors.append(f"{label}: rows {' '.join(pending)} belong to no test")


def dotted(node):
    """pytest.mark.skip(...) -> 'pytest.mark.skip'"""
    if isinstance(node, ast.Call):
        node = node.func
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def marked(nodes, label, found):
    """Ids of the rows() marks anywhere in these expressions, and whether the test never counts."""
    ids, void = [], False
    for node in nodes:
        void = void or dotted(node) in ("pytest.mark.skip", "pytest.mark.xfail")
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and dotted(call).endswith("mark.rows"):
                for arg in call.args:
                    if isinstance(arg, ast.Constant) and isinstance(arg.value, str):
                        ids.append(arg.value)
                    else:
                        found.errors.append(f"{label}:{call.lineno}: rows() takes literal ids only")
    return ids, void


def scan_python(path, label, found):
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as err:
        found.errors.append(f"{label}:{err.lineno}: {err.msg}")
        return
    lines = text.splitlines()
    file_marks = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(dotted(t) == "pytestmark" for t in node.targets):
            value = node.value
            file_marks += value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]

    def visit(body, marks):
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                visit(node.body, marks + node.decorator_list)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
                ids, void = marked(marks + node.decorator_list, label, found)
                first = min([node.lineno] + [d.lineno for d in node.decorator_list])
                # The comment lines right above it, and everything in it.
                while first > 1 and lines[first - 2].lstrip().startswith("#"):
                    first -= 1
                source = "\n".join(lines[first - 1:node.end_lineno])
                if not void:
                    found.add(in_name(node.name) + ids + in_comments(source), f"{label}: {node.name}")

    visit(tree.body, file_marks)


def scan(root=ROOT):
    found = Found()
    for path in sorted((root / "tests/unit").rglob("*.c")):
        scan_c(path, path.name, found)
    for path in sorted((root / "tests/e2e").glob("*.py")):
        scan_python(path, path.name, found)
    return found


# --- results -------------------------------------------------------------------------------------

class Results:
    """What became of the tests: of(test) is passed, failed, skipped, part (only some of its cases ran), or none.

    Unit tests: Check's own record in unit/PROGRAM.tap, one for each program. End-to-end tests: e2e.json, written by
    tests/e2e/conftest.py. A record that is older than the file of its test says nothing about it.
    """

    def __init__(self, root=ROOT, build=None):
        build = Path(build or os.environ.get("BUILD") or "build")
        self.records = {}
        directory = root / build / "check"
        sources = {path.name: path for pattern in ("tests/unit/**/*.c", "tests/e2e/*.py") for path in root.glob(pattern)}
        for path in sorted(directory.glob("unit/*.tap")):
            source = sources.get(path.stem + ".c")
            if source and path.stat().st_mtime >= source.stat().st_mtime:
                self.read_tap(source.name, path)
        if (directory / "e2e.json").exists():
            self.read_e2e(json.loads((directory / "e2e.json").read_text(encoding="utf-8")), sources)

    def read_tap(self, name, path):
        """A test in a loop has a line for each round."""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            m = TAP.match(line)
            if m:
                key = f"{name}: {m.group(2)}"
                passed = m.group(1) == "ok" and self.records.get(key, "passed") == "passed"
                self.records[key] = "passed" if passed else "failed"

    def read_e2e(self, files, sources):
        for name, tests in files.items():
            changed = sources[name].stat().st_mtime if name in sources else float("inf")
            for test, (outcome, at) in tests.items():
                if at >= changed:
                    self.records[f"{name}: {test}"] = outcome

    def of(self, test):
        return self.records.get(test, "none")


WORST = ("failed", "skipped", "part", "none", "passed")


def result_of(tests, results):
    """The worst one of a row; '' for a row without tests."""
    return min((results.of(test) for test in tests), key=WORST.index, default="")


def faults(table, results, strict):
    """Claims that the results do not bear out. Not strict: what has no result is no fault."""
    said = {"failed": "failed", "skipped": "was skipped, which proves nothing", "part": "ran with some of its cases only",
            "none": "did not run"}
    bad = ("failed", "skipped", "part", "none") if strict else ("failed", "skipped")
    claims = {}
    for row, _, _, _, _, tests in table:
        for test in tests:
            if results.of(test) in bad:
                claims.setdefault(test, []).append(row)
    return [f"{test} {said[results.of(test)]}: it is to prove {' '.join(rows)}" for test, rows in sorted(claims.items())]


# --- the table -----------------------------------------------------------------------------------

def evaluate(root=ROOT):
    """([(row, section, level, text, state, [tests])], [errors])"""
    rows, done, found = read_rows(root), read_done(root), scan(root)
    known = {row[0] for row in rows}
    kinds = {row[0] for row in known}
    errors = list(found.errors)
    for row in sorted(found.tests):
        # Rows of other chapters of the checklist (U, W, D) may be named; they are not in this table.
        if row not in known and row[0] in kinds:
            errors.append(f"{found.tests[row][0]}: there is no row {row} in tests/tools/rows.tsv")
    for row in done:
        if row not in known:
            errors.append(f"{DONE}: there is no row {row} in tests/tools/rows.tsv")
        elif row not in found.tests:
            errors.append(f"{DONE}: {row} is done, and no test covers it (any more)")
    table = []
    for row, section, level, text in rows:
        tests = found.tests.get(row, [])
        table.append((row, section, level, text, STATES[0] if tests else STATES[1], tests))
    return table, errors


def counts(table):
    by_state = Counter(entry[4] for entry in table)
    return ", ".join(f"{by_state[state]} {state}" for state in STATES) + f", {len(table)} rows"


def document(table):
    out = [HEAD, "", f"{counts(table)}.", ""]
    out += ["| Chapter | " + " | ".join(STATES) + " | rows |", "|---|" + "---:|" * (len(STATES) + 1)]
    for section in dict.fromkeys(entry[1] for entry in table):
        part = Counter(entry[4] for entry in table if entry[1] == section)
        cells = " | ".join(str(part[state]) for state in STATES)
        out.append(f"| {section} | {cells} | {sum(part.values())} |")
    out += ["", "| Row | Chapter | Level | What holds | State | Test |", "|---|---|---|---|---|---|"]
    for row, section, level, text, state, tests in table:
        shown = [f"`{t}`" for t in tests[:SHOWN]]
        if len(tests) > SHOWN:
            shown.append(f"and {len(tests) - SHOWN} more")
        out.append(f"| {row} | {section} | {level} | {text} | {state} | {', '.join(shown)} |")
    return "\n".join(out).replace("\n\n\n", "\n\n") + "\n"


def problems(root=ROOT):
    """What lint reports: wrong ids, rows that have lost their test, stale lists."""
    table, errors = evaluate(root)
    done = set(read_done(root))
    path = root / DOCUMENT
    errors += [f"{DONE}: {entry[0]} has a test and is not there; run: make conformance"
               for entry in table if entry[5] and entry[0] not in done]
    if not path.exists() or path.read_text(encoding="utf-8") != document(table):
        errors.append(f"{DOCUMENT}: stale; run: make conformance")
    return errors


def report(table, results, every=True):
    """The lines of the table: all rows, or those that are not proven."""
    out = []
    for row, _, _, text, state, tests in table:
        result = result_of(tests, results)
        if every or result != "passed":
            shown = ", ".join(tests) or text
            out.append(f"{row:6} {state:16} {result:8} {shown}")
    proven = sum(result_of(entry[5], results) == "passed" for entry in table)
    untested = sum(not entry[5] for entry in table)
    waiting = len(table) - proven - untested
    out.append(f"conformance: {proven} rows proven by tests that passed, {waiting} by tests without such a result, "
               f"{untested} without a test; {len(table)} rows")
    return out


def main(arguments, root=ROOT, build=None):
    if arguments not in ([], ["--check"], ["--strict"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments == ["--check"]:
        errors = problems(root)
    else:
        strict, results = bool(arguments), Results(root, build)
        if not strict:
            table, _ = evaluate(root)
            write_done(root, table)
            (root / DOCUMENT).parent.mkdir(exist_ok=True)
            (root / DOCUMENT).write_text(document(table), encoding="utf-8")
        table, errors = evaluate(root)
        errors += faults(table, results, strict)
        print("\n".join(report(table, results, every=not strict)))
        if strict:  # the form in which `make check` counts
            print(f"conformance: {0 if errors else 1} passed, {len(errors)} failed, 0 skipped")
    for error in errors:
        print(f"conformance: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
