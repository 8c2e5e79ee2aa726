# SPDX-License-Identifier: Apache-2.0
"""`make run`: starts, says what is wrong, and leaves nothing running however it ends.

These run tests/tools/run.sh, which is what make calls, with a directory of their own.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import termios
import urllib.request

import pytest

from bosh_env import MODULE, ROOT, free_port, private_dir, wait_for

SCRIPT = ROOT / "tests" / "tools" / "run.sh"


class Run:
    """One start of run.sh."""

    def __init__(self, directory, port):
        self.dir, self.port = directory, port
        env = dict(os.environ, PORT=str(port), RUN_DIR=str(directory), BOSH_MODULE=str(MODULE))
        env.pop("LD_PRELOAD", None)
        self.keyboard, terminal = os.openpty()
        self.process = subprocess.Popen([SCRIPT], env=env, stdin=terminal, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(terminal)
        self.text = ""

    def ctrl_c(self):
        """As the terminal does it: SIGINT for everything in its foreground process group."""
        os.write(self.keyboard, b"\x03")

    def started(self):
        """Reads what it says up to its last line."""
        while "Ctrl-C stops it" not in self.text:
            line = self.process.stdout.readline()
            assert line, f"it ended with {self.process.wait()}:\n{self.text}"
            self.text += line
        return self

    def ended(self):
        """(exit status, everything it said)"""
        self.text += self.process.communicate(timeout=30)[0]
        os.close(self.keyboard)
        return self.process.returncode, self.text

    def pid_of(self, name):
        path = self.dir / f"{name}.pid"
        return int(wait_for(lambda: path.exists() and path.read_text().strip(), 5, f"{path} is written"))


def leftovers(directory):
    """Processes that run on something in that directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                command = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{directory}/" in command:
            found.append(f"{pid} {command}")
    return found


@pytest.fixture(scope="module")
def directory():
    """One for all tests here: a later run finds what an earlier one left."""
    path = private_dir("run")
    yield path
    assert not leftovers(path)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def run(directory):
    runs = []

    def start(port=None):
        runs.append(Run(directory, port or free_port()))
        return runs[-1]
    yield start
    for one in runs:
        if one.process.poll() is None:
            one.process.terminate()
            one.ended()
    wait_for(lambda: not leftovers(directory), 10, "nothing is left running")


def fetch(port, path="/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, dict(answer.headers), answer.read().decode()


def test_serves_the_page_and_stops_on_ctrl_c(run):
    one = run().started()
    assert f"http://localhost:{one.port}/\n" in one.text
    assert "alice" in one.text and "bob" in one.text
    status, headers, page = fetch(one.port)
    assert status == 200 and "<title>Chat</title>" in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "anon.localhost" in fetch(one.port, "/config.js")[2]
    assert len(fetch(one.port, "/strophe.umd.min.js")[2]) > 50000
    one.ctrl_c()
    status, text = one.ended()
    assert status == 0 and "Nothing is left running" in text
    assert not leftovers(one.dir)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", one.port), 1)


def test_a_second_run_is_refused(run):
    one = run().started()
    status, text = run().ended()
    assert status == 1
    assert "already running" in text
    assert str(one.process.pid) in text and f"http://localhost:{one.port}/" in text
    assert fetch(one.port)[0] == 200, "the first goes on"


def test_a_port_in_use(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, text = run(port).ended()
    assert status == 1
    assert f"port {port}" in text and "already in use" in text and f"make run PORT={port + 1}" in text
    assert len(text.splitlines()) <= 4


@pytest.mark.parametrize("port", ["x", "0", "70000", "8080x"])
def test_not_a_port(run, port):
    status, text = run(port).ended()
    assert status == 1 and f"PORT={port}" in text and len(text.splitlines()) <= 2


@pytest.mark.parametrize("name,label", [("prosody", "Prosody"), ("httpd", "httpd")])
def test_one_of_the_two_dies(run, name, label):
    one = run().started()
    os.kill(one.pid_of(name), signal.SIGKILL)
    status, text = one.ended()
    assert status == 1
    assert f"{label} stopped by itself" in text and "--- " in text, text


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [None, "run.pid", "prosody.cfg.lua", "prosody.pid", "httpd.conf", "httpd.pid"])
def test_stopped_in_the_middle_of_starting(run, sent, after):
    """after: the file whose appearance says how far it is."""
    one = run()
    if after:
        made = one.dir / after
        before = made.stat().st_mtime_ns if made.exists() else 0
        wait_for(lambda: made.exists() and made.stat().st_mtime_ns != before, 15, f"{after} is there", 0.001)
    one.process.send_signal(sent)
    status, text = one.ended()
    # Before it set up to be stopped in order (it holds nothing then) the signal just ends it.
    assert status in (0, -sent), text
    assert after is None or status == 0
    assert not leftovers(one.dir)


def test_killed_itself(run):
    """SIGKILL, so that it can clean up nothing: the servers end anyway, and the next run starts."""
    one = run().started()
    one.process.kill()
    one.ended()
    wait_for(lambda: not leftovers(one.dir), 10, "the servers follow")
    again = run(one.port).started()
    assert fetch(again.port)[0] == 200


def test_servers_of_a_run_that_could_not_stop_them(run, directory):
    """httpd's children go on when their parent is killed, deaf to SIGTERM: the next run ends them."""
    one = run().started()
    os.kill(one.process.pid, signal.SIGSTOP)  # it shall not notice
    os.kill(one.pid_of("httpd"), signal.SIGKILL)
    one.process.kill()
    one.ended()
    assert leftovers(directory)
    again = run(one.port).started()
    assert "Servers of an earlier run are still there" in again.text
    assert fetch(again.port)[0] == 200


def test_a_stale_pid_file(run, directory):
    (directory / "run.pid").write_text("1\n")
    (directory / "prosody.pid").write_text("1\n")
    (directory / "httpd.pid").write_text("not a number\n")
    one = run().started()
    assert not re.search(r"already running|earlier run", one.text)
    assert fetch(one.port)[0] == 200
