# SPDX-License-Identifier: Apache-2.0
"""A private Apache httpd with mod_bosh, and what the end-to-end tests share.

Fixtures (conftest.py) for whoever writes a test:

  httpd        Factory, module scoped: httpd(**options) starts a server with the options of class Httpd
               below and returns it. All servers are stopped when the module's tests are over. After every
               test the new lines of every error log are looked at: a warning (or worse) and a crash of a
               child fail the test, unless server.expect_log(REGEX) declared the line.
  stub         stub.StubServer, module scoped: a scripted XMPP server that records every byte. Its script
               and its connections are reset before every test.
  server       The server of a file: event, 3 children of 32 threads, upstream example.com -> stub. A file
               that needs other options overrides this fixture (scope="module") with its own.
  client       client.BoshClient for `server`; ends the test's sessions afterwards. For another server:
               client.BoshClient(that_server.port), or that_server.client().
  prosody      prosody.Prosody, session scoped: a real Prosody with users alice and bob (prosody.PASSWORDS),
               hosts prosody.HOST and prosody.ANON_HOST (SASL ANONYMOUS), rooms at prosody.ROOMS. Its c2s
               port is .port, e.g. httpd(upstreams=prosody.upstreams()).

A server's address is server.port (plain), server.tls_port (tls=True); server.url() gives an URL. The
document root is server.docroot (a directory of the test's own, or docroot=PATH).

Environment:
  BOSH_MODULE    the module to load (default: build/mod_bosh.so of this source tree)
  BOSH_VALGRIND  1: httpd runs as one process (-X) under memcheck, errors and definite leaks fail
  BOSH_PRELOAD   LD_PRELOAD for httpd (a sanitizer's runtime); its reports fail the test
  BOSH_KEEP      1: keep the servers' directories and print where they are
"""

import contextlib
import functools
import grp
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = Path(os.environ.get("BOSH_MODULE") or ROOT / "build" / "mod_bosh.so")
APACHE = os.environ.get("BOSH_APACHE") or "/usr/sbin/apache2"
VALGRIND = os.environ.get("BOSH_VALGRIND", "") not in ("", "0")
PRELOAD = os.environ.get("BOSH_PRELOAD", "")
KEEP = os.environ.get("BOSH_KEEP", "") not in ("", "0")

# Sizes of processes mean nothing under these.
INSTRUMENTED = VALGRIND or bool(PRELOAD)

# Under valgrind everything is some twenty times slower: deadlines that only guard against hanging, and
# "at once", are stretched by this; durations that a row is about are not.
SLOW = 10 if VALGRIND else 1

BIND_PATH = "/http-bind"
LOG_LINE = re.compile(r"^\[[^\]]+\] \[([\w-]*):(\w+)\] \[pid (\d+)(?::tid \d+)?\] (.*)$")
BAD_LEVELS = ("emerg", "alert", "crit", "error", "warn")
CRASH = re.compile(r"AH0005[012]\b")
HARMLESS = [
    re.compile(p)
    for p in (
        r"AH01906:|AH01909:|AH02292:|AH01873:",  # mod_ssl about a self-signed certificate, no session cache
        r"AH10034:",  # mod_http2 does not like prefork
        r"AH10159:|AH00484:|AH00286:|AH00287:|AH00161:",  # the number of workers is at its maximum, as configured here
        r"AH00288:",  # worker: the same, while threads of the last generation finish
        r"BH202:",  # the sum of failures whose first one (BH201) somebody had to declare
    )
]


# Before a server's command: the kernel stops it when the runner dies, however that dies.
WITH_US = ["setpriv", "--pdeathsig", "TERM", "--"]


def raise_file_limit():
    """Both sides of thousands of connections live in the runner and in httpd: use what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(predicate, timeout=5.0, what=None, interval=0.01):
    """Polls until predicate() is true and returns its value; fails the test at the deadline."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or predicate}")
        time.sleep(interval)


def private_dir(name, user=None):
    """A fresh directory that servers running as another user can get at."""
    path = Path(tempfile.mkdtemp(prefix=f"bosh-{name}-"))
    path.chmod(0o755)
    if user and os.getuid() == 0:
        shutil.chown(path, user)
    return path


def proc_ppid(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def stands_still(pid):
    """All threads of the process have followed SIGSTOP."""
    try:
        lines = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread has just ended
        return False
    return all(line.rsplit(")", 1)[1].split()[0] in "Tt" for line in lines)


def process_state(task):
    """R, S, T, Z, ... of a process or thread, by its directory in /proc; None: it is gone."""
    try:
        return (Path(task) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def tcp_inodes(local_port, remote_port=None, closing=False):
    """Inodes of the TCP sockets with this local port (and remote port); closing: those the peer has closed."""
    found = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            if f":{local_port:04X} " not in line:
                continue
            fields = line.split()
            local, remote = (int(f.rsplit(":", 1)[1], 16) for f in fields[1:3])
            if local == local_port and remote_port in (None, remote) and fields[9] != "0" \
                    and (not closing or fields[3] == "08"):  # CLOSE_WAIT
                found.add(fields[9])
    return found


def tcp_queues(port, other):
    """Bytes waiting in the loopback connection between two ports: unread at `port`, unsent at `other`.
    None when there is no such connection."""
    unread = unsent = None
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(f.rsplit(":", 1)[1], 16) for f in fields[1:3])
        out, into = (int(f, 16) for f in fields[4].split(":"))
        if (local, remote) == (port, other):
            unread = into
        elif (local, remote) == (other, port):
            unsent = out
    return None if unread is None or unsent is None else (unread, unsent)


def make_certificate(directory):
    cert, key = directory / "server.crt", directory / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True)
    return cert, key


@functools.cache
def points_module():
    """The module with the points at which its processes can be killed, made if need be."""
    made = subprocess.run(["make", "-s", "points", "SANITIZE=" + os.environ.get("BOSH_SANITIZE", "")], cwd=ROOT,
                          env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")},
                          capture_output=True, text=True)
    assert made.returncode == 0, f"make points failed:\n{made.stdout}{made.stderr}"
    return ROOT / "build" / os.environ.get("BOSH_SANITIZE", "") / "points" / "mod_bosh.so"


class Httpd:
    """One private httpd.

    mpm          event | worker | prefork
    children     child processes, kept constant (1 under valgrind); threads: workers in each
    upstreams    lines for BoshUpstream without the directive's name
    polling      BoshPolling: 0 lets tests poll as fast as they like; None leaves the module's default
    directives   server-wide configuration; vhost: the same, put at the end; location: within the Location
    docroot      document root (default: one of its own with index.html)
    tls          also listens on tls_port, in a virtual host (tls_lines: more lines for it); h2: HTTP/2 by prior knowledge and ALPN
    handler      False leaves out the Location of the module
    nofile       limit of open files, soft and hard
    points       loads the module whose processes can be killed at named points (bosh_point.h): see arm()
    """

    all = []  # servers that run, for the log check after each test

    def __init__(self, mpm="event", children=3, threads=32, upstreams=(), directives="", vhost="", location="",
                 docroot=None, tls=False, h2=False, handler=True, log_level="info bosh:debug", modules=(),
                 port=None, name=None, max_spare=None, tls_lines=(), polling=0, nofile=None, points=False):
        self.mpm, self.threads = mpm, threads
        self.children_wanted = 1 if VALGRIND else children
        self.upstreams, self.directives, self.vhost, self.location = upstreams, directives, vhost, location
        self.tls, self.h2, self.handler, self.log_level, self.modules = tls, h2, handler, log_level, modules
        self.max_spare, self.tls_lines, self.polling, self.nofile = max_spare, tls_lines, polling, nofile
        self.dir = private_dir(name or mpm)
        self.port = port or free_port()
        self.tls_port = free_port() if tls else None
        self.points = self._points_dir() if points else None
        self.docroot = Path(docroot) if docroot else self._own_docroot()
        self.error_log = self.dir / "error.log"
        self.access_log = self.dir / "access.log"
        self.conf = self.dir / "httpd.conf"
        self.process = None
        self.orphans = None  # the children of a parent that was killed
        self.secrets = set()  # strings that must not be in any log: the session ids (B-103)
        self._expected, self._log_pos = [], 0

    # ---- configuration ----

    def _own_docroot(self):
        root = self.dir / "htdocs"
        root.mkdir()
        (root / "index.html").write_text("<!DOCTYPE html><title>plain</title><p>plain page</p>\n")
        return root

    def _points_dir(self):
        directory = self.dir / "points"
        directory.mkdir()
        directory.chmod(0o777)  # the children remove files from it
        return directory

    def _mpm_conf(self):
        n, t = self.children_wanted, self.threads
        if self.mpm == "prefork":
            return f"StartServers {n}\nMinSpareServers {n}\nMaxSpareServers {n}\nServerLimit {2 * n}\n" \
                   f"MaxRequestWorkers {n}\n"
        extra = "AsyncRequestWorkerFactor 200\n" if self.mpm == "event" else ""
        # ServerLimit needs room for the generations before, which may follow one another quickly.
        return f"ServerLimit {5 * n}\nThreadLimit {t}\nStartServers {n}\nThreadsPerChild {t}\n" \
               f"MinSpareThreads {n * t}\nMaxSpareThreads {self.max_spare or n * t}\n" \
               f"MaxRequestWorkers {n * t}\n{extra}"

    def config(self):
        libexec = subprocess.run(["apxs", "-q", "LIBEXECDIR"], check=True, capture_output=True,
                                 text=True).stdout.strip()
        names = ["mpm_" + self.mpm, "authz_core", "mime", "dir", "status", "headers", *self.modules]
        if self.tls:
            names.append("ssl")
        if self.h2:
            names.append("http2")
        out = [f"ServerRoot {self.dir}", f"DefaultRuntimeDir {self.dir}", f"PidFile {self.dir}/httpd.pid",
               "ServerName localhost", f"Listen 127.0.0.1:{self.port}"]
        out += [f"LoadModule {n}_module {libexec}/mod_{n}.so" for n in names]
        out.append(f"LoadModule bosh_module {points_module() if self.points else MODULE}")
        if os.getuid() == 0:
            # Children do not run as root: what they may not do must show up here.
            user = pwd.getpwnam("www-data")
            out += ["User www-data", f"Group {grp.getgrgid(user.pw_gid).gr_name}"]
        out += [self._mpm_conf(), "ListenBacklog 1024", "Timeout 60", "KeepAlive On", "KeepAliveTimeout 5",
                "MaxKeepAliveRequests 0", "TypesConfig /etc/mime.types", "ExtendedStatus On",
                f"LogLevel {self.log_level}", f"ErrorLog {self.error_log}",
                'LogFormat "%P %{tid}P %>s %X %D %b \\"%r\\"" test', f"CustomLog {self.access_log} test",
                f"DocumentRoot {self.docroot}", "DirectoryIndex index.html",
                f"<Directory {self.docroot}>\n  Require all granted\n</Directory>",
                "<Location /server-status>\n  SetHandler server-status\n</Location>"]
        if self.h2:
            out.append("Protocols h2 h2c http/1.1")
        if self.handler:
            out.append(f'<Location "{BIND_PATH}">\n  SetHandler bosh\n{self.location}\n</Location>')
        out += [f"BoshUpstream {u}" for u in self.upstreams]
        out.append("BoshLoginSize 0")  # most tests send what they like before they log in
        if self.polling is not None:
            out += [f"BoshPolling {self.polling}", "BoshMaxHold 2"]
        out.append(self.directives)
        if self.tls:
            cert, key = make_certificate(self.dir)
            out += [f"Listen 127.0.0.1:{self.tls_port}", f"<VirtualHost 127.0.0.1:{self.tls_port}>",
                    "ServerName localhost", f"DocumentRoot {self.docroot}", "SSLEngine on",
                    f"SSLCertificateFile {cert}", f"SSLCertificateKeyFile {key}", *self.tls_lines, "</VirtualHost>"]
        out.append(self.vhost)
        return "\n".join(out) + "\n"

    def write_config(self):
        self.conf.write_text(self.config())

    def check_config(self):
        """httpd -t: (exit code, what it said)."""
        self.write_config()
        env = dict(os.environ, LD_PRELOAD=PRELOAD, ASAN_OPTIONS="detect_leaks=0") if PRELOAD else None
        done = subprocess.run([APACHE, "-t", "-f", self.conf], capture_output=True, text=True, env=env)
        return done.returncode, done.stdout + done.stderr

    # ---- life ----

    def _environment(self):
        env = dict(os.environ)
        if self.points:
            env["BOSH_POINT_DIR"] = str(self.points)
        if PRELOAD:
            env["LD_PRELOAD"] = PRELOAD
            for name in ("ASAN", "UBSAN", "TSAN"):
                default = "detect_leaks=0:" if name == "ASAN" else "print_stacktrace=1:"
                if name == "TSAN":  # prefork itself ends a child from within a signal handler
                    default = f"report_signal_unsafe=0:suppressions={Path(__file__).with_name('tsan.supp')}:"
                env[f"{name}_OPTIONS"] = f"{default}log_path={self.dir}/{name.lower()}:" + \
                    os.environ.get(f"{name}_OPTIONS", "")
            self.dir.chmod(0o1777)  # reports are written by children that are not root
        return env

    def start(self):
        if not MODULE.exists():
            raise AssertionError(f"{MODULE} does not exist: run make first, or set BOSH_MODULE")
        self.write_config()
        command = [APACHE, "-f", self.conf, "-D", "FOREGROUND"]
        if VALGRIND:
            command = ["valgrind", "--quiet", "--vgdb=no", "--leak-check=full", "--show-leak-kinds=definite",
                       "--errors-for-leak-kinds=definite", "--num-callers=30", f"--log-file={self.dir}/vg.%p",
                       APACHE, "-f", self.conf, "-X"]
        if self.nofile:
            command = ["prlimit", f"--nofile={self.nofile}:{self.nofile}", "--", *command]
        self._stderr = open(self.dir / "stderr.log", "wb")
        self.process = subprocess.Popen(WITH_US + command, env=self._environment(), cwd=self.dir,
                                        stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr,
                                        start_new_session=True)
        Httpd.all.append(self)
        try:
            wait_for(self._ready, 15, "httpd accepts connections and has all its children")
        except AssertionError as err:
            said = (self.dir / "stderr.log").read_text(errors="replace") + "".join(self.log_lines())
            self.kill()
            raise AssertionError(f"httpd did not start: {err}\n{said}") from None
        return self

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"httpd ended with {self.process.returncode}")
        if not VALGRIND and len(self.children()) < self.children_wanted:
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def graceful(self):
        """Restart without dropping connections; returns when the new generation has its children."""
        before = set(self.children())
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: len(set(self.children()) - before) >= self.children_wanted, 20,
                 "a new generation of children")

    def graceful_stop(self):
        self.process.send_signal(signal.SIGWINCH)

    def stop(self, timeout=20):
        if self.process is None:
            return
        if self.alive():
            self._settle()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"httpd did not stop within {timeout} s of SIGTERM") from None
        self.forget()
        self._check_reports()

    def _settle(self):
        """Until the connections that the client closed are closed here too. The event MPM itself (2.4.71, also
        without this module) can crash when SIGTERM comes while a worker is closing a connection."""
        deadline = time.monotonic() + 2
        while tcp_inodes(self.port, closing=True) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.05)

    def kill(self):
        if self.alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.forget()

    def forget(self):
        if self in Httpd.all:
            Httpd.all.remove(self)
        self._stderr.close()

    def cleanup(self):
        if KEEP:
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def _check_reports(self):
        """Reports of valgrind and the sanitizers."""
        for path in sorted(self.dir.glob("vg.*")) + sorted(self.dir.glob("*san.*")):
            text = path.read_text(errors="replace")
            assert not text.strip(), f"{path.name}:\n{text[:8000]}"

    # ---- processes ----

    def children(self):
        if self.process is None:
            return []
        if VALGRIND:
            return [self.process.pid]
        if self.orphans is not None:
            return [pid for pid in self.orphans if process_state(f"/proc/{pid}") not in (None, "Z")]
        return sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and proc_ppid(p) == self.process.pid)

    def rss_kb(self):
        """Memory of all children that is neither shared nor from files."""
        total = 0
        for pid in self.children():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("RssAnon") else 0
        return total

    def threads_of(self, pid):
        try:
            return len(os.listdir(f"/proc/{pid}/task"))
        except OSError:  # gone
            return 0

    def fds_of(self, pid):
        return len(os.listdir(f"/proc/{pid}/fd"))

    def fds(self):
        """Descriptors of all children."""
        return sum(self.fds_of(p) for p in self.children())

    def owner_of(self, local_port):
        """The child that has the TCP socket with this local port (the stub's name for a stream's other end)."""
        return self._child_with(tcp_inodes(local_port))

    def owner_of_connection(self, client_port):
        """The child that has the connection which a client made from this port of its own."""
        return self._child_with(tcp_inodes(self.port, client_port))

    def _child_with(self, inodes):
        for pid in self.children():
            try:
                names = os.listdir(f"/proc/{pid}/fd")
            except OSError:
                continue
            for fd in names:
                try:
                    link = os.readlink(f"/proc/{pid}/fd/{fd}")
                except OSError:
                    continue
                if link.startswith("socket:[") and link[8:-1] in inodes:
                    return pid
        return None

    @contextlib.contextmanager
    def stopped(self, pids):
        """These children stand still. Wait for no answer meanwhile: one of them may have the lock they all share."""
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: all(map(stands_still, pids)), 10, "the children stand still")
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def taken(self, exchange):
        """Waits until a child has accepted the connection of this exchange: that child, or None if it is over."""
        child = None

        def accepted():
            nonlocal child
            child = self.owner_of_connection(exchange.conn.local_port)
            return child or exchange.done()
        wait_for(accepted, 10, "a child accepts the connection")
        return child

    def taken_by(self, pid, send):
        """The Exchange that send() makes on a connection of its own, which this child accepts and no other."""
        if VALGRIND:
            return send()
        with self.stopped(set(self.children()) - {pid}):
            exchange = send()
            assert self.taken(exchange) in (pid, None), "the set of children was changing"
        return exchange

    def kill_child(self, pid):
        """SIGKILL; the parent's notice about it is expected."""
        assert pid in self.children(), f"{pid} is no child of this httpd"
        self.expect_log(rf"AH00052: child pid {pid} exit signal Killed")
        os.kill(pid, signal.SIGKILL)

    def kill_parent(self):
        """SIGKILL for the parent alone. Its children go on; the test ends them."""
        self.orphans = self.children()
        self.process.kill()
        self.process.wait()
        self.forget()

    def arm(self, point):
        """The next process that comes to this point kills itself there."""
        (self.points / point).touch()

    def armed(self, point):
        return (self.points / point).exists()

    def disarm(self):
        for path in self.points.iterdir():
            path.unlink(missing_ok=True)

    # ---- addresses ----

    def url(self, path=BIND_PATH, tls=False):
        return f"{'https' if tls else 'http'}://localhost:{self.tls_port if tls else self.port}{path}"

    def client(self, **options):
        """A client.BoshClient for this server; tls=True: for its TLS port."""
        from client import BoshClient
        port = self.tls_port if options.get("tls") else self.port
        return BoshClient(port, secrets=self.secrets, **options)

    # ---- logs ----

    def log_lines(self):
        if not self.error_log.exists():
            return []
        with open(self.error_log, encoding="utf-8", errors="replace") as f:
            return f.readlines()

    def expect_log(self, pattern):
        """Lines that match are no failure of the test that runs now."""
        self._expected.append(re.compile(pattern))

    def new_problems(self):
        """Lines since the last call that no healthy run would have, and no test declared."""
        lines = self.log_lines()
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # it is being written
        fresh, self._log_pos = lines[self._log_pos:], len(lines)
        expected, self._expected = self._expected, []
        return [line.rstrip() for line in fresh
                if is_problem(line) and not any(p.search(line) for p in expected + HARMLESS)]

    def check_secrets(self):
        text = "".join(self.log_lines())
        leaked = [s for s in self.secrets if s in text]
        assert not leaked, f"{len(leaked)} session ids are in the error log (B-103)"


def is_problem(line):
    if not line.strip():
        return False
    match = LOG_LINE.match(line)
    if not match:
        return True  # not written by httpd's log: an abort message, a sanitizer
    return match.group(2) in BAD_LEVELS or bool(CRASH.search(line))
