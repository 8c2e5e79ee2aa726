# SPDX-License-Identifier: Apache-2.0
"""tests/tools/conformance.py and the records it reads, with made-up rows: it fails when it has to."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bosh_env import ROOT

sys.path.insert(0, str(ROOT / "tests/tools"))

import conformance

ROWS = """# made up
Z-001\tOne\tMUST\tthe first
Z-002\tOne\tMUST\tthe second
Z-003\tTwo\tMAY\tthe third
"""
C_TEST = """
/* rows: Z-001 */
START_TEST(test_first)
{
}
END_TEST
void add(void) { tcase_add_test(tc, test_first); }
"""
PY_TEST = """
import pytest

@pytest.mark.rows("Z-002")
@pytest.mark.parametrize("n", [1, 2])
def test_second(n):
    pass
"""


class Tree:
    """A checkout with three rows; the first two have a test, which ran and passed."""

    def __init__(self, root):
        self.root, self.build = root, root / "build"
        for name in ("tests/tools", "tests/unit/upstream", "tests/e2e", "docs", "build/check/unit"):
            (root / name).mkdir(parents=True)
        self.write("tests/tools/rows.tsv", ROWS)
        self.write("tests/unit/upstream/test_made.c", C_TEST)
        self.write("tests/e2e/test_900_made.py", PY_TEST)
        self.done("Z-001", "Z-002")
        self.unit("ok 1 - a.c:made:test_first: Passed", "1..1")
        self.e2e(test_second="passed")

    def write(self, name, text):
        path = self.root / name
        path.write_text(text)
        os.utime(path, (time.time() - 100,) * 2)  # before the results

    def done(self, *rows):
        self.write("tests/tools/done.txt", "# rows\n" + "".join(row + "\n" for row in rows))

    def unit(self, *lines):
        (self.build / "check/unit/test_made.tap").write_text("\n".join(lines) + "\n")

    def e2e(self, **outcomes):
        record = {"test_900_made.py": {test: (outcome, time.time()) for test, outcome in outcomes.items()}}
        (self.build / "check/e2e.json").write_text(json.dumps(record))

    def run(self, capsys, *arguments):
        """(exit code, what it said)"""
        code = conformance.main(list(arguments), self.root, self.build)
        said = capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_all_in_order(tree, capsys):
    code, said = tree.run(capsys)
    assert code == 0, said
    assert "Z-001  done and tested  passed   test_made.c: test_first" in said
    assert "Z-003  not yet                   the third" in said
    assert "2 rows proven by tests that passed, 0 by tests without such a result, 1 without a test; 3 rows" in said
    assert tree.run(capsys, "--check") == (0, "")
    code, said = tree.run(capsys, "--strict")
    assert code == 0 and said.endswith("conformance: 1 passed, 0 failed, 0 skipped\n"), said
    assert "Z-003" in said and "Z-001" not in said  # only what is not proven is listed


def test_no_results(tree, capsys):
    (tree.build / "check/unit/test_made.tap").unlink()
    (tree.build / "check/e2e.json").unlink()
    code, said = tree.run(capsys)
    assert code == 0 and "0 rows proven by tests that passed, 2 by tests without such a result" in said, said
    code, said = tree.run(capsys, "--strict")
    assert code == 1 and "conformance: 0 passed, 2 failed, 0 skipped" in said
    assert "test_made.c: test_first did not run: it is to prove Z-001" in said
    assert "test_900_made.py: test_second did not run: it is to prove Z-002" in said


@pytest.mark.parametrize("lines", [
    ["not ok 1 - a.c:made:test_first: Assertion failed"],
    ["ok 1 - a.c:made:test_first: Passed", "not ok 2 - a.c:made:test_first: in a loop"],
    ["not ok 1 - a.c:made:test_first: in a loop", "ok 2 - a.c:made:test_first: Passed"]])
def test_a_unit_test_that_failed(tree, capsys, lines):
    tree.unit(*lines)
    for arguments in ([], ["--strict"]):
        code, said = tree.run(capsys, *arguments)
        assert code == 1 and "test_made.c: test_first failed: it is to prove Z-001" in said


def test_a_unit_test_of_another_name(tree, capsys):
    tree.unit("ok 1 - a.c:made:test_first_of_all: Passed")
    code, said = tree.run(capsys, "--strict")
    assert code == 1 and "test_first did not run" in said


@pytest.mark.parametrize("outcome, what", [("failed", "failed"), ("skipped", "was skipped, which proves nothing")])
def test_an_end_to_end_test_that_did_not_pass(tree, capsys, outcome, what):
    tree.e2e(test_second=outcome)
    for arguments in ([], ["--strict"]):
        code, said = tree.run(capsys, *arguments)
        assert code == 1 and f"test_900_made.py: test_second {what}: it is to prove Z-002" in said


def test_some_cases_are_not_enough(tree, capsys):
    tree.e2e(test_second="part")
    assert tree.run(capsys)[0] == 0
    code, said = tree.run(capsys, "--strict")
    assert code == 1 and "test_second ran with some of its cases only" in said


@pytest.mark.parametrize("name, test", [("unit/upstream/test_made.c", "first"), ("e2e/test_900_made.py", "second")])
def test_a_test_that_changed_since(tree, capsys, name, test):
    os.utime(tree.root / "tests" / name, (time.time() + 100,) * 2)
    code, said = tree.run(capsys)
    assert code == 0 and "1 rows proven by tests that passed, 1 by tests without such a result" in said
    code, said = tree.run(capsys, "--strict")
    assert code == 1 and f"test_{test} did not run" in said


@pytest.mark.parametrize("rows", [("Z-001", "Z-002"), ("Z-001", "Z-002", "Z-003")])
def test_a_row_that_has_lost_its_test(tree, capsys, rows):
    """With all rows in done.txt the table is complete, and none may be without."""
    tree.write("tests/e2e/test_900_made.py", PY_TEST.replace("Z-002", "Z-003"))
    tree.done(*rows)
    for arguments in ([], ["--strict"], ["--check"]):
        code, said = tree.run(capsys, *arguments)
        assert code == 1 and "Z-002 is done, and no test covers it" in said


def test_a_row_that_never_had_one(tree, capsys):
    tree.done("Z-001", "Z-002", "Z-003")
    code, said = tree.run(capsys, "--strict")
    assert code == 1 and "Z-003 is done, and no test covers it" in said


def test_rows_are_added_and_never_taken_out(tree, capsys):
    tree.done("Z-003")
    assert "Z-001 has a test and is not there" in tree.run(capsys, "--check")[1]
    tree.run(capsys)
    assert (tree.root / "tests/tools/done.txt").read_text() == "# rows\nZ-001\nZ-002\nZ-003\n"


@pytest.mark.parametrize("mark", ["pytest.mark.skip", "pytest.mark.xfail(reason='x')"])
def test_what_is_always_skipped_covers_nothing(tree, capsys, mark):
    tree.write("tests/e2e/test_900_made.py", PY_TEST.replace("@pytest.mark.param", f"@{mark}\n@pytest.mark.param"))
    code, said = tree.run(capsys)
    assert code == 1 and "Z-002 is done, and no test covers it" in said


def test_wrong_ids(tree, capsys):
    tree.write("tests/e2e/test_900_made.py", PY_TEST.replace("Z-002", "Z-004"))
    tree.done("Z-001", "Z-009")
    code, said = tree.run(capsys)
    assert code == 1 and "there is no row Z-004" in said and "there is no row Z-009" in said


def test_a_test_in_no_suite(tree, capsys):
    tree.write("tests/unit/upstream/test_made.c", C_TEST.replace("tcase_add_test(tc, test_first);", ""))
    code, said = tree.run(capsys)
    assert code == 1 and "test_first is in no suite" in said


def test_a_stale_document(tree, capsys):
    tree.run(capsys)
    tree.write("tests/unit/upstream/test_made.c", C_TEST.replace("Z-001", "Z-001 Z-003"))
    tree.done("Z-001", "Z-002", "Z-003")
    code, said = tree.run(capsys, "--check")
    assert code == 1 and "docs/CONFORMANCE.md: stale" in said


# ---- the records ----

CASES = """
import pytest

def test_good(): pass
def test_bad(): assert 0
def test_skips(): pytest.skip("x")
@pytest.mark.skip(reason="x")
def test_marked(): pass
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.mark.xfail
def test_unexpected(): pass
@pytest.fixture
def broken(): assert 0
@pytest.fixture
def leaves(): yield; assert 0
def test_setup(broken): pass
def test_teardown(leaves): pass
@pytest.mark.parametrize("n", [1, 2, 3])
def test_cases(n): assert n != 2
@pytest.mark.parametrize("n", ["a::b", "c[d]"])
def test_odd_names(n): pass
class TestClass:
    def test_method(self): pass
"""
OUTCOMES = {"test_good": "passed", "test_bad": "failed", "test_skips": "skipped", "test_marked": "skipped",
            "test_expected": "skipped", "test_unexpected": "failed", "test_setup": "failed", "test_teardown": "failed",
            "test_cases": "failed", "test_odd_names": "passed", "test_method": "passed"}
CONFTEST = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from record import Record
def pytest_configure(config):
    config.pluginmanager.register(Record(Path(__file__).parent / "check/e2e.json"))
"""


def test_what_pytest_records(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_x.py").write_text(CASES)

    def run(*arguments):
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], cwd=tmp_path,
                       capture_output=True, check=False)
        record = json.loads((tmp_path / "check/e2e.json").read_text())
        assert list(record) == ["test_x.py"]
        return {test: outcome for test, (outcome, _) in record["test_x.py"].items()}
    assert run() == OUTCOMES
    assert run("-k", "test_cases and 1") == {**OUTCOMES, "test_cases": "part"}  # the others stay as they were
    assert run("test_x.py::test_cases") == OUTCOMES
    assert run("-x", "-k", "test_cases") == OUTCOMES  # ended by the second case


def test_what_unit_tests_record(tmp_path):
    def run(script):
        program = tmp_path / "test_made"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        subprocess.run(["tests/tools/check.sh", "unit", program], cwd=ROOT, env=dict(os.environ, BUILD=str(tmp_path)),
                       capture_output=True, check=False)
        path = tmp_path / "check/unit/test_made.tap"
        return path.read_text() if path.exists() else None
    counted = "echo '100%: Checks: 1, Failures: 0, Errors: 0'\n"
    assert run('echo "ok 1" > "$CK_TAP_LOG_FILE_NAME"\n' + counted) == "ok 1\n"
    assert run(counted) is None  # nothing of an earlier run is left
