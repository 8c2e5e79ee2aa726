# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests; bosh_env.py says what there is."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import bosh_env
from bosh_env import Httpd, SLOW
from client import BoshClient
from prosody import Prosody
from record import Record
from stub import StubServer

bosh_env.raise_file_limit()


def pytest_configure(config):
    if not bosh_env.VALGRIND and not config.option.collectonly:
        path = bosh_env.ROOT / os.environ.get("BUILD", "build") / "check" / "e2e.json"
        config.pluginmanager.register(Record(path), "record")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A test that hangs fails instead of stopping the run."""
    marker = item.get_closest_marker("limit")
    seconds = (marker.args[0] if marker else 60) * SLOW

    def expired(_signum, _frame):
        raise TimeoutError(f"the test took longer than {seconds} s")
    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(int(seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


@pytest.fixture(scope="module")
def httpd(request):
    servers = []

    def factory(**options):
        options.setdefault("name", request.module.__name__)
        server = Httpd(**options)
        servers.append(server)
        return server.start()
    yield factory
    problems = []
    for server in servers:
        try:
            server.stop()
        except AssertionError as err:
            problems.append(str(err))
        problems += server.new_problems()
        try:
            server.check_secrets()
        except AssertionError as err:
            problems.append(str(err))
        server.cleanup()
    assert not problems, "when httpd stopped:\n" + "\n".join(problems)


@pytest.fixture(autouse=True)
def clean_error_logs():
    """After each test: nothing in any error log that the test did not declare."""
    yield
    problems = []
    for server in list(Httpd.all):
        problems += server.new_problems()
        if not server.alive():
            problems.append(f"httpd ended with {server.process.returncode}")
            server.forget()
    assert not problems, "error log:\n" + "\n".join(problems)


@pytest.fixture(scope="module")
def stub_server():
    stub = StubServer()
    yield stub
    stub.stop()


@pytest.fixture
def stub(stub_server):
    stub_server.reset()
    return stub_server


@pytest.fixture(scope="module")
def server(httpd, stub_server):
    return httpd(upstreams=[stub_server.upstream()])


@pytest.fixture
def client(server, stub):
    # stub is asked for so that it is reset before, and still there when the sessions are ended.
    made = BoshClient(server.port, secrets=server.secrets)
    yield made
    made.close()


@pytest.fixture(scope="session")
def prosody():
    server = Prosody()
    server.start()
    yield server
    server.stop()
