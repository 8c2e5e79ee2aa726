#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/CONFORMANCE.md: every row of the protocol checklist with its state.

    conformance.py            prints the table and the counts, rewrites the document
    conformance.py --check    fails, and changes nothing, when the document is stale or an id is wrong

What it reads: rows.tsv (the checklist), done.txt (rows implemented without a test), and the tests. A test
names the rows it covers in one of these ways:

    START_TEST(test_B_165_...)                 in C and in Python, an id within the name
    /* rows: B-165 B-166 */                    before the test or in it; in Python: # rows: B-165
    @pytest.mark.rows("B-165", "B-166")        on a test, a class or (as pytestmark) a file

A test that is always skipped, or is expected to fail, covers nothing.
"""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "docs/CONFORMANCE.md"
STATES = ("done and tested", "done", "not yet")
SHOWN = 3  # tests named in a row; the rest is counted

ID = re.compile(r"\b[A-Z]-\d{2,3}\b")
IN_NAME = re.compile(r"(?<![A-Za-z0-9])([BSX]_\d{3}|R_\d{2})(?![A-Za-z0-9])", re.IGNORECASE)
COMMENT = re.compile(r"\brows?:((?:[\s,*]*[A-Z]-\d{2,3}\b)+)")
TEST_START = re.compile(r"\bSTART_TEST\s*\(\s*(\w+)")

HEAD = """# Conformance

<!-- Written by `make conformance` from tests/tools/rows.tsv, tests/tools/done.txt and the tests. -->

What mod_bosh does of the protocol, row by row: B rows are XEP-0124, X rows XEP-0206, S rows XEP-0252
(script syntax), R rows the project's own rulings where those are silent or contradict themselves. *Level* is
the word of the specification (REC: it says nothing, and this is what mod_bosh does); *what holds* is the
behavior of a manager that conforms.

- **done and tested**: implemented, and the tests named fail when it breaks;
- **done**: implemented, without a test of its own;
- **not yet**: neither is claimed.
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
    path = root / "tests/tools/done.txt"
    if not path.exists():
        return []
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [words[0] for words in lines if words]


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
            errors.append(f"tests/tools/done.txt: there is no row {row} in tests/tools/rows.tsv")
        elif row in found.tests:
            errors.append(f"tests/tools/done.txt: {row} has a test now ({found.tests[row][0]}): take it out")
    table = []
    for row, section, level, text in rows:
        tests = found.tests.get(row, [])
        state = STATES[0] if tests else STATES[1] if row in done else STATES[2]
        table.append((row, section, level, text, state, tests))
    return table, errors


def counts(table):
    by_state = Counter(entry[4] for entry in table)
    return ", ".join(f"{by_state[state]} {state}" for state in STATES) + f", {len(table)} rows"


def document(table):
    out = [HEAD, "", f"{counts(table)}.", ""]
    out += ["| Chapter | " + " | ".join(STATES) + " | rows |", "|---|" + "---:|" * 4]
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
    """What lint reports: wrong ids, a stale document."""
    table, errors = evaluate(root)
    path = root / DOCUMENT
    if not path.exists() or path.read_text(encoding="utf-8") != document(table):
        errors.append(f"{DOCUMENT}: stale; run: make conformance")
    return errors


def main():
    if sys.argv[1:] == ["--check"]:
        errors = problems()
    elif sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    else:
        table, errors = evaluate()
        path = ROOT / DOCUMENT
        path.parent.mkdir(exist_ok=True)
        path.write_text(document(table), encoding="utf-8")
        for row, _, level, text, state, tests in table:
            print(f"{row:6} {state:16} {level:16} {text}" + (f"  [{len(tests)}]" if tests else ""))
        print(f"conformance: {counts(table)}")
    for error in errors:
        print(f"conformance: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
