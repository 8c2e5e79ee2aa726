# SPDX-License-Identifier: Apache-2.0
"""Each step on the way to a stream is bounded; what went wrong is told to the client, and to the administrator in one
line with domain, address, step and reason. (Names: the tests of the resolver.)"""

import re
import time

import pytest
from blackhole import BlackHole
from bosh_env import SLOW, free_port, wait_for
from certs import Authority, context
from client import T, TB
from stub import stream_error

HEADER = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='1'>"
WAIT = 30  # of the clients; timeout= is 1 s

# name: (tls=, what the server does, step, reason)
STEPS = {
    "refused": ("off", "nobody", "connect", "cannot connect: Connection refused"),
    "connect": ("off", "black hole", "connect", "cannot connect in time"),
    "connect-tls": ("direct", "black hole", "connect", "cannot connect in time"),
    "shake": ("direct", "silent", "tls", "TLS did not come about in time"),
    "shake-starttls": ("starttls", "proceeds", "tls", "TLS did not come about in time"),
    "offer": ("starttls", "silent", "starttls", "no stream features in time"),
    "answer": ("starttls", "offers", "starttls", "no answer to STARTTLS in time"),
    "header": ("off", "silent", "header", "no stream header in time"),
    "features": ("off", "header", "features", "no stream features in time"),
    "header-tls": ("direct", "shakes", "header", "no stream header in time"),
    "error": ("off", "errs", "features", "stream error from the server: host-unknown"),
    "error-starttls": ("starttls", "errs", "starttls", "a stream error from the server instead of TLS: host-unknown"),
    "end": ("off", "ends", "features", "the server ended the stream at its beginning"),
}


@pytest.fixture(scope="module")
def ca():
    made = Authority()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def hole():
    made = BlackHole()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(httpd, stub_server, hole, ca):
    at = {"black hole": hole.address, "nobody": f"127.0.0.1:{free_port()}"}
    made = httpd(children=1, upstreams=[
        f"{name}.example {at.get(server, stub_server.address)} timeout=1s tls={tls}" + (f" ca={ca.pem}" * (tls != "off"))
        for name, (tls, server, _, _) in STEPS.items()])
    made.addresses = {name: at.get(step[1], stub_server.address) for name, step in STEPS.items()}
    return made


def behave(stub, how, ca):
    script = stub.script
    script.auto = how in ("header", "offers", "proceeds", "shakes", "errs", "ends")
    script.tls_context = context(ca.issue("x", [f"DNS:{name}.example" for name in STEPS]))
    if how in ("header", "errs", "ends"):
        script.features = [None]
        last_words = {"header": "", "errs": stream_error("host-unknown", "not here") + "</stream:stream>",
                      "ends": "</stream:stream>"}[how]
        script.header = lambda session: HEADER + last_words
    elif how in ("offers", "proceeds"):
        script.tls, script.proceed = "starttls", None
        if how == "proceeds":  # and says no more
            script.on_stanza = lambda session, _: session.send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>") or True
    elif how == "shakes":
        script.tls = "direct"
        script.auto = False


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.rows("U-012")
def test_each_step(server, client, stub, ca, name):
    _, how, step, reason = STEPS[name]
    before = len(server.log_lines())
    server.expect_log(rf"BH201: .*{reason}")
    behave(stub, how, ca)
    begun = time.monotonic()
    answer = client.new_async(to=f"{name}.example", wait=WAIT).answer(WAIT)
    if name == "error":
        TB(answer, "remote-stream-error")
    elif name == "end":
        T(answer)
    else:
        TB(answer, "remote-connection-failed")
    assert time.monotonic() - begun < WAIT * SLOW / 2, "not bounded by timeout="

    def told():
        return [line for line in server.log_lines()[before:] if "BH201" in line]
    wait_for(told, 5, "a line in the log")
    assert len(told()) == 1
    assert re.search(rf"\[s\d+\.\d+ {step}\] {name}\.example at {server.addresses[name]}: BH201: .*{reason}", told()[0])
