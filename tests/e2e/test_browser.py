# SPDX-License-Identifier: Apache-2.0
"""strophe.js and the web chat page in a real headless Chromium, on httpd with mod_bosh and a real Prosody.

The scenarios are in browser/*.mjs and can be run by hand as well; browser/lib.mjs says how. Each runs in a
browser of its own. A script error, a console error or a violation of the Content-Security-Policy fails it,
and so does, as everywhere, a warning in httpd's error log.
"""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from bosh_env import ROOT, SLOW, private_dir, wait_for
from prosody import Prosody

HERE = Path(__file__).resolve().parent / "browser"
WEB = ROOT / "build" / "web"
CONFIG = """export default {{
    boshUrl: '/http-bind',
    domain: '{host}',
    anonymousDomain: '{anon}',
    roomService: '{rooms}',
}};
"""
SCENARIOS = ["chat", "csp", "reload", "answer", "network", "lost", "keyboard", "phone", "guest", "chinese", "logout",
             "errors", "twins", "insecure", "restarted"]


def page_policy():
    """The headers that `make run` gives the page, from its own template."""
    template = (ROOT / "tests" / "tools" / "httpd.conf.in").read_text()
    part = re.search(r'<Directory "@WEB@">\n(.*?)</Directory>', template, re.S).group(1)
    headers = [line for line in part.splitlines() if line.strip().startswith("Header")]
    assert any("Content-Security-Policy" in line for line in headers)
    return "\n".join(headers)


@pytest.fixture(scope="module")
def docroot():
    assert (WEB / "strophe.umd.min.js").exists(), f"{WEB} is not complete: run make web"
    root = private_dir("page") / "page"
    shutil.copytree(WEB, root)
    for name in ("plain.html", "plain.js"):
        shutil.copy(HERE / name, root)
    (root / "config.js").write_text(CONFIG.format(host=Prosody.HOST, anon=Prosody.ANON_HOST, rooms=Prosody.ROOMS))
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    yield root
    shutil.rmtree(root.parent, ignore_errors=True)


@pytest.fixture(scope="module")
def chat_server(httpd):
    """A Prosody of our own: the scenarios make contacts, and other tests shall not meet those."""
    prosody = Prosody(modules=("carbons", "offline"))
    prosody.start()
    yield prosody
    prosody.stop()


@pytest.fixture(scope="module")
def page(httpd, chat_server, docroot):
    """httpd with the page, under the policy of `make run`."""
    # Real clients meet the limits that administrators get (sections 11, 12).
    return httpd(docroot=docroot, upstreams=chat_server.upstreams(), polling=None,
                 directives=f"<Directory {docroot}>\n{page_policy()}\n</Directory>")


def run_browser(script, scenario, server, prosody, **more):
    chromium = os.environ.get("BOSH_CHROMIUM") or shutil.which("chromium")
    node = shutil.which("node")
    assert chromium and node, "the browser tests need chromium and node: run make deps"
    env = dict(os.environ, BOSH_URL=server.url("/"), BOSH_CHROMIUM=chromium, BOSH_ROOMS=prosody.ROOMS,
               **{f"BOSH_{name.upper()}": password for name, password in prosody.PASSWORDS.items()}, **more)
    done = subprocess.run([node, HERE / script, scenario], env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=150 * SLOW)
    assert done.returncode == 0, f"{script} {scenario}:\n{done.stdout}{done.stderr}"
    assert f"ok {scenario}" in done.stdout, done.stdout + done.stderr
    # The next scenario starts without anybody logged in.
    wait_for(lambda: not connections_to(prosody.port), 20, "the sessions of the scenario have ended")


def connections_to(port):
    """Established TCP connections to that port on this machine."""
    wanted = f":{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [row for row in rows if row[2].endswith(wanted) and row[3] == "01"]


@pytest.mark.limit(160)
def test_strophe_alone(page, chat_server):
    """strophe.js 5: log in, twenty messages each way in order, disconnect."""
    run_browser("plain.mjs", "messages", page, chat_server)


@pytest.fixture(scope="module")
def script_page(httpd):
    """An origin with a page for script syntax, and no policy that would forbid it."""
    root = private_dir("script") / "page"
    root.mkdir()
    for name in ("script.html", "script.js"):
        shutil.copy(HERE / name, root)
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    yield httpd(docroot=root, handler=False, name="script_page")
    shutil.rmtree(root.parent, ignore_errors=True)


@pytest.mark.limit(160)
@pytest.mark.rows("S-002", "S-006", "S-008", "S-009", "S-010", "S-012", "S-013", "S-018")
@pytest.mark.parametrize("scenario", ["talk", "stranger"])
def test_script_elements_alone(httpd, script_page, chat_server, scenario):
    """XEP-0252: a page on another origin logs in and chats by GET alone, in pieces; others may not."""
    server = httpd(upstreams=chat_server.upstreams(), polling=None,
                   directives=f"BoshScriptSyntax On\nBoshAllowOrigin http://localhost:{script_page.port}")
    server.expect_log("BH013")
    run_browser("script.mjs", scenario, script_page, chat_server,
                BOSH_ENDPOINT=f"http://127.0.0.1:{server.port}/http-bind")
    server.stop()


@pytest.mark.limit(240)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_page(scenario, page, chat_server):
    if scenario in ("errors", "lost"):
        page.expect_log(r"unknown\.example|item-not-found|rid")
    run_browser("page.mjs", scenario, page, chat_server)


@pytest.mark.limit(240)
def test_a_page_chats_through_ten_graceful_restarts(httpd, chat_server, docroot):
    server = httpd(docroot=docroot, upstreams=chat_server.upstreams(), polling=None,
                   directives=f"<Directory {docroot}>\n{page_policy()}\n</Directory>")
    over, enough = threading.Event(), server.dir / "enough"

    def restart():
        for _ in range(10):
            if over.wait(1.5):
                return
            server.graceful()
        enough.touch()
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        run_browser("page.mjs", "restarts", server, chat_server, BOSH_UNTIL=str(enough))
    finally:
        over.set()
        thread.join()
    assert enough.exists()


def test_every_scenario_is_run():
    declared = re.search(r"await main\(\{(.*?)\}", (HERE / "page.mjs").read_text(), re.S).group(1)
    assert sorted([*SCENARIOS, "restarts"]) == sorted(name.strip() for name in declared.split(","))
