#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of this source tree that a program can check. `make lint` runs all of them.

    lint.py [NAME...]       only the named checks (lint.py --list names them)

Each check returns a list of findings, "file:line: what, and what to do"; none means passed. A check that
cannot be made here raises Skip. The last line is counted by `make check`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import conformance

ROOT = Path(__file__).resolve().parents[2]

MAX_FILE = 600
MAX_FUNCTION = 80
CLANG_FORMAT = 14  # another version breaks lines in other places

LAYERS = ("core", "upstream", "httpd", "module")  # each may include itself and what stands before it

# What core may have: libc without clock, locks, sockets and processes; types and helpers of APR; expat, zlib.
CORE_SYSTEM = {
    "assert.h", "ctype.h", "errno.h", "inttypes.h", "limits.h", "stdarg.h", "stdbool.h", "stddef.h",
    "stdint.h", "stdio.h", "stdlib.h", "string.h",
    "apr.h", "apr_errno.h", "apr_hash.h", "apr_lib.h", "apr_pools.h", "apr_sha1.h", "apr_strings.h",
    "apr_tables.h", "apr_time.h", "expat.h", "zlib.h",
}
HTTPD_SYSTEM = re.compile(r"^(httpd|http_\w+|ap_\w+|util_\w+|mod_\w+|mpm_\w+|scoreboard|unixd)\.h$")
# Core is given time, randomness, lock and log by its caller.
CORE_CALLS = re.compile(
    r"(?<![\w.>])(time|clock|clock_gettime|gettimeofday|apr_time_now|rand|random|getrandom|"
    r"apr_generate_random_bytes|pthread_\w+|apr_thread_\w+|apr_socket_\w+|apr_pollset_\w+|socket|send|"
    r"recv|poll|getpid|fork|getenv|printf|fprintf|puts|ap_\w+|u?sleep|nanosleep|apr_sleep)\s*\(")
SLEEPS = re.compile(r"(?<!\w)(u?sleep|nanosleep|clock_nanosleep|apr_sleep)\s*\(")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
NOT_CODE = re.compile(r'("(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')|(/\*.*?\*/|//[^\n]*)', re.DOTALL)
TAG = re.compile(r"\bBH\d{3}\b")
LOUD = re.compile(r"\bap_log_\w*error\s*\([^;]*?\bAPLOG_(?:EMERG|ALERT|CRIT|ERR|WARNING)\b[^;]*;")


class Skip(Exception):
    """The check cannot be made here; the text says why."""


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def name(path):
    return str(path.relative_to(ROOT))


def files(*patterns):
    return sorted({p for pattern in patterns for p in ROOT.glob(pattern)})


def sources():
    return files("mod_bosh.c", "src/**/*.c", "src/**/*.h", "include/*.h")


def without_comments(text, strings=True):
    """The same text with comments (and strings, when strings is False) blanked; lines stay where they are."""
    def blank(m):
        if m.group(1) is not None:
            return m.group(1) if strings else '""'
        return " " + "\n" * m.group(2).count("\n")
    return NOT_CODE.sub(blank, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


# --- layers --------------------------------------------------------------------------------------

def folder_layer(path):
    if path.name == "mod_bosh.c":
        return "module"
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "src" and parts[1] in LAYERS else None


def includes(path):
    """[(line, header)]; whether <> or quotes stand round it says nothing, httpd's own are written both ways."""
    text = without_comments(read(path))
    return [(line_of(text, m.start()), m.group(1)) for m in INCLUDE.finditer(text)]


def system_layer(header):
    """The lowest layer that may include this header of the system."""
    if header in CORE_SYSTEM:
        return "core"
    return "httpd" if HTTPD_SYSTEM.match(header) else "upstream"


def header_layers():
    """Layer of each header: that of the .c file of its name; without one, that of what it includes."""
    own = {path.stem: folder_layer(path) for path in sources() if path.suffix == ".c"}
    headers = {path.name: path for path in sources() if path.suffix == ".h"}
    known = {"bosh.h": "core"}

    def find(header, seen=()):
        if header in known or header not in headers or header in seen:
            return known.get(header, "core")
        path = headers[header]
        layer = own.get(path.stem) or folder_layer(path)
        if layer is None:
            used = [find(h, (*seen, header)) if h in headers else system_layer(h) for _, h in includes(path)]
            layer = max(["core", *used], key=LAYERS.index)
        known[header] = layer
        return layer

    for header in headers:
        find(header)
    return known


def check_layers():
    found, headers = [], header_layers()
    for path in sources():
        layer = headers.get(path.name) if path.suffix == ".h" else folder_layer(path)
        if layer is None:
            found.append(f"{name(path)}:1: is in no layer; sources are in {', '.join('src/' + s for s in LAYERS[:3])}")
            continue
        for line, header in includes(path):
            wants = headers.get(header) or system_layer(header)
            if LAYERS.index(wants) > LAYERS.index(layer):
                what = f"{header} (layer {wants})" if header in headers else f"<{header}>"
                found.append(f"{name(path)}:{line}: layer {layer} may not include {what}")
        if layer == "core":
            code = without_comments(read(path), strings=False)
            for m in CORE_CALLS.finditer(code):
                found.append(f"{name(path)}:{line_of(code, m.start())}: core may not call {m.group(1)}(): "
                             "time, randomness, lock, log and input are arguments")
    return found


# --- sizes and style -----------------------------------------------------------------------------

def check_length():
    """WebKit braces: a function is what stands between { and } in the first column."""
    found = []
    for path in sources() + files("bench/*.c", "bench/*.h"):
        lines = read(path).splitlines()
        if len(lines) > MAX_FILE:
            found.append(f"{name(path)}:{len(lines)}: {len(lines)} lines, {MAX_FILE} is the limit: split it by topic")
        start = None
        for number, line in enumerate(lines, 1):
            if line.rstrip() == "{":
                start = number
            elif line.rstrip() == "}" and start is not None:
                if number - start + 1 > MAX_FUNCTION:
                    found.append(f"{name(path)}:{start}: function of {number - start + 1} lines, "
                                 f"{MAX_FUNCTION} is the limit: split it")
                start = None
    return found


def check_format():
    program = shutil.which(f"clang-format-{CLANG_FORMAT}") or shutil.which("clang-format")
    if not program:
        raise Skip("clang-format is not installed")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.search(r"version (\d+)", version)
    if not major or int(major.group(1)) != CLANG_FORMAT:
        raise Skip(f"clang-format {CLANG_FORMAT} is what the sources are formatted with; here is {version.strip()}")
    paths = sources() + files("tests/**/*.c", "tests/**/*.h", "bench/*.c", "bench/*.h")
    done = subprocess.run([program, "--dry-run", "-Werror", "--style=file", *map(str, paths)], cwd=ROOT,
                          capture_output=True, text=True)
    out = [line.replace(f"{ROOT}/", "") for line in done.stderr.splitlines() if ": error: " in line]
    where = sorted({line.split(":")[0] for line in out})
    if done.returncode and not out:
        return [done.stderr.strip()]
    return out[:20] + ([f"run: clang-format -i {' '.join(where)}"] if out else [])


def check_cppcheck():
    program = shutil.which("cppcheck")
    if not program:
        raise Skip("cppcheck is not installed")
    cache = Path(os.environ.get("BUILD") or ROOT / "build") / "cppcheck"
    cache.mkdir(parents=True, exist_ok=True)
    targets = [name(path) for path in sources() if path.suffix == ".c"]
    if not targets:
        raise Skip("no sources yet")
    done = subprocess.run(
        [program, "--quiet", "--std=c99", "--language=c", "--library=posix", "--inline-suppr",
         "--enable=warning,performance,portability", "--suppress=missingIncludeSystem",
         "--error-exitcode=1", "--template=gcc", "-Iinclude", f"--cppcheck-build-dir={cache}",
         "-DLINUX", "-D_GNU_SOURCE", "-DAP_MODULE_DECLARE_DATA=",
         "-DAP_DECLARE_MODULE(m)=module m##_module", "-DAPLOG_USE_MODULE(m)=",
         "-DSTANDARD20_MODULE_STUFF=0,0,0,0,0,0,0,0", *targets],
        cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return []
    return [line for line in (done.stdout + done.stderr).splitlines() if re.match(r"\S.*: (?!note:)\w+:", line)] \
        or [f"cppcheck failed ({done.returncode}): {(done.stdout + done.stderr).strip()}"]


def check_sleep():
    found = []
    for path in files("tests/unit/**/*.c", "tests/unit/**/*.h"):
        code = without_comments(read(path), strings=False)
        found += [f"{name(path)}:{line_of(code, m.start())}: {m.group(1)}() in a unit test: time is an argument, "
                  "threads wait on a condition" for m in SLEEPS.finditer(code)]
    return found


# --- lists that must agree -----------------------------------------------------------------------

def compare(kind, lists):
    """lists: {where: set}. Every name must be in each of them."""
    every = set().union(*lists.values())
    return [f"{where}: {kind} {item} is missing here, it is in {', '.join(w for w in lists if item in lists[w])}"
            for where, have in lists.items() for item in sorted(every - have)]


def check_directives():
    """Table == conf/ == docs, both ways."""
    table, conf, docs = (ROOT / p for p in ("src/httpd/bosh_config.c", "conf/bosh.conf", "docs/DIRECTIVES.md"))
    if not table.exists():
        raise Skip(f"no {name(table)} yet")
    lists = {name(table): set(re.findall(r'\b[A-Z][A-Z0-9_]*\(\s*"(Bosh\w+)"', without_comments(read(table))))}
    lists[name(conf)] = set(re.findall(r"^[ \t]*#?[ \t]*(Bosh[A-Z]\w*)\b", read(conf), re.MULTILINE)) \
        if conf.exists() else set()
    headings = re.findall(r"^#+[ \t].*$", read(docs), re.MULTILINE) if docs.exists() else []
    lists[name(docs)] = {d for heading in headings for d in re.findall(r"\bBosh[A-Z]\w*\b", heading)}
    return compare("directive", lists)


def check_tags():
    """Log tags: each in one place, documented, and on every message from a warning up."""
    places, found = {}, []
    for path in sources():
        text = without_comments(read(path))
        for m in TAG.finditer(text):
            places.setdefault(m.group(), []).append(f"{name(path)}:{line_of(text, m.start())}")
        found += [f"{name(path)}:{line_of(text, m.start())}: a message at this level needs a BHnnn tag"
                  for m in LOUD.finditer(text) if not TAG.search(m.group())]
    found += [f"{where[1]}: {tag} is used at {where[0]} already: take the next free number"
              for tag, where in sorted(places.items()) if len(where) > 1]
    docs = ROOT / "docs/ERRORS.md"
    if docs.exists():
        found += compare("log tag", {"the sources": set(places), name(docs): set(TAG.findall(read(docs)))})
    return found


def check_lockfile():
    """A lock that names a registry's host works on one machine only."""
    found = []
    for path in (ROOT / "package-lock.json", ROOT / "tests/clients/package-lock.json"):
        packages = json.loads(read(path)).get("packages", {})
        found += [f'{name(path)}: "resolved" of {key} names a registry: remove the line, "integrity" is enough'
                  for key, value in packages.items() if "://" in value.get("resolved", "")]
    return found


def check_conformance():
    return conformance.problems(ROOT)


CHECKS = {
    "layers": check_layers,
    "format": check_format,
    "length": check_length,
    "cppcheck": check_cppcheck,
    "sleep": check_sleep,
    "directives": check_directives,
    "tags": check_tags,
    "lockfile": check_lockfile,
    "conformance": check_conformance,
}


def main(names):
    if names == ["--list"]:
        print(*CHECKS)
        return 0
    unknown = [n for n in names if n not in CHECKS]
    if unknown:
        print(f"lint.py: no check {' '.join(unknown)}; there are: {' '.join(CHECKS)}", file=sys.stderr)
        return 2
    passed = failed = skipped = 0
    for check in names or CHECKS:
        try:
            found = CHECKS[check]()
        except Skip as why:
            skipped += 1
            print(f"skip  {check}: {why}")
            continue
        passed, failed = (passed, failed + 1) if found else (passed + 1, failed)
        print(f"{'FAIL' if found else 'ok  '}  {check}")
        for line in found:
            print(f"      {line}")
    print(f"lint: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
