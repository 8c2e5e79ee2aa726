# SPDX-License-Identifier: Apache-2.0
"""Directives: what httpd -t says about wrong ones, and that right ones are taken."""

import re

import pytest
from bosh_env import ROOT, Httpd
from client import TB, new_body


def checked(line, upstreams=()):
    server = Httpd(name="config", upstreams=upstreams, directives=line)
    try:
        return server.check_config()
    finally:
        server.cleanup()


WRONG = ["BoshUpstream", "BoshUpstream example.com", "BoshUpstream example.com nohost", "BoshUpstream example.com h:0",
         "BoshUpstream example.com h:99999", "BoshUpstream example.com [::1:5222", "BoshUpstream example.com unix:rel",
         "BoshUpstream example.com 127.0.0.1:5222 tls=maybe", "BoshUpstream example.com 127.0.0.1:5222 nonsense",
         "BoshUpstream example.com 127.0.0.1:5222 timeout=x", "BoshUpstream example.com srv nonsense",
         "BoshUpstream *.example.com srv", "BoshUpstream example.com tls=off", "BoshAllowDomain a@b", "BoshAllowDomain *x",
         "BoshAllowDomain", "BoshResolver", "BoshResolver ns.example", "BoshResolver 192.0.2.1:x", "BoshResolver [192.0.2.1]:53",
         "BoshUpstream a@b 127.0.0.1:5222 tls=off", "BoshMaxWait x", "BoshMaxWait -1", "BoshMaxWait 99999", "BoshMaxWait",
         "BoshMaxHold -1", "BoshMaxHold 1.5", "BoshMaxHold 256", "BoshMaxRequests 0", "BoshMaxRequests 256", "BoshMaxStreams 0", "BoshMaxStreams 9", "BoshMaxStreams x",
         "BoshInactivity x", "BoshInactivity 100ms", "BoshMaxPause -5", "BoshPolling 5 5", "BoshMaxBody 0", "BoshMaxBody 1X",
         "BoshMaxStanza 9999", "BoshQueueSize 0", "BoshMaxSessions 0", "BoshMaxSessions x", "BoshMemory 1K",
         "BoshMaxSessionsPerAddress -1", "BoshMaxStreams 0", "BoshMaxStreams x", "BoshMaxStreams 99", "BoshLoginTimeout x", "BoshLoginSize 1X", "BoshRequireTLS perhaps",
         "BoshRequireTLS http://a.example/bind", "BoshRequireTLS https://", "BoshInflate 2", "BoshDeflate 1", "BoshReturnUndelivered 1", "BoshRoute xmpp:h:1", "BoshScriptSyntax jsonp",
         "BoshAllowOrigin", "BoshAllowOrigin https://a.example/path", "BoshAllowOrigin nonsense", "BoshAsync perhaps",
         "BoshDrainTimeout x", "BoshDrainTimeout -1", "BoshDrainTimeout 2d",
         "BoshKeys 1"]


@pytest.mark.parametrize("line", WRONG)
def test_wrong_lines_are_refused_with_a_message(line):
    code, said = checked(line)
    assert code != 0, f"accepted: {line}"
    name = line.split()[0]
    assert name in said, said
    # One helpful sentence of its own: more than httpd's frame of "Syntax error on line".
    assert "Syntax error on line" in said and len(said.strip().splitlines()) <= 4, said


RIGHT = ["BoshUpstream example.com 127.0.0.1:5222", "BoshUpstream example.com [::1]:5222 tls=off timeout=5s",
         "BoshUpstream example.com srv", "BoshUpstream example.com srv tls=direct verify=off", "BoshUpstream bücher.example srv",
         "BoshUpstream example.com 192.0.2.1:5222 h.example:5223 unix:/a=b tls=off",
         "BoshUpstream example.com a.example:5222\nBoshUpstream example.com b.example:5222 tls=direct",
         "BoshUpstream * srv\nBoshAllowDomain example.com *.example.org bücher.example",
         "BoshUpstream * srv\nBoshAllowDomain *", "BoshResolver 192.0.2.1 192.0.2.1:5353 2001:db8::1 [2001:db8::1]:53",
         "BoshUpstream example.com 127.example.org:5222 verify=on",  # a name, not this host
         "BoshUpstream EXAMPLE.com localhost:5222", "BoshUpstream example.com unix:/tmp/xmpp.sock",
         "BoshUpstream example.com 192.0.2.1:5222 tls=off", "BoshUpstream example.com 192.0.2.1:5222", "BoshDrainTimeout 10min",
         "BoshMaxWait 1min", "BoshMaxWait 0", "BoshMaxHold 4",
         "BoshMaxRequests 5", "BoshInactivity 90s", "BoshInactivity 0", "BoshMaxPause 0", "BoshPolling 0",
         "BoshMaxBody 64K", "BoshMaxStanza 10000", "BoshQueueSize 8M", "BoshMaxSessions 50", "BoshMemory 16M",
         "BoshMaxSessionsPerAddress 50", "BoshMaxStreams 1", "BoshMaxStreams 8", "BoshLoginTimeout 2min", "BoshLoginSize 0", "BoshRequireTLS On", "BoshInflate Off", "BoshDeflate Off", "BoshReturnUndelivered Off", "BoshRoute On", "BoshScriptSyntax Off",
         "BoshRequireTLS https://a.example:5281/bind",
         "BoshAllowOrigin *", "BoshAllowOrigin https://a.example http://b.example:8080", "BoshAsync Off",
         "BoshKeys Off"]


@pytest.mark.parametrize("line", RIGHT)
def test_right_lines_are_taken(line):
    code, said = checked(line)
    assert code == 0 and "Syntax OK" in said, said


@pytest.mark.parametrize("line", ["BoshUpstream example.com 127.0.0.1:5223",
                                  "BoshUpstream EXAMPLE.com 127.0.0.1:5222 127.0.0.1:5223",
                                  "BoshUpstream xn--bcher-kva.example 127.0.0.1:5223"])
def test_a_target_twice_is_refused(line):
    code, said = checked(line, upstreams=["example.com 127.0.0.1:5223", "bücher.example 127.0.0.1:5223"])
    assert code != 0 and "twice" in said, said


def test_star_needs_a_list():
    code, said = checked("BoshUpstream * srv")
    assert code != 0 and "BH014" in said and "BoshAllowDomain" in said, said


def test_a_stanza_larger_than_the_queue_is_refused():
    code, said = checked("BoshMaxStanza 8M\nBoshQueueSize 4M")
    assert code != 0 and "BoshMaxStanza" in said and "BoshQueueSize" in said, said


def test_without_an_upstream_every_domain_is_unknown(httpd):
    client = httpd(children=1).client()
    TB(client.post(new_body()).answer(), "host-unknown")


def test_values_of_a_virtual_host(httpd, stub):
    """A virtual host inherits what it does not say, and its own lines win."""
    server = httpd(children=1, tls=True, upstreams=[stub.upstream()], directives="BoshMaxWait 20\nBoshMaxHold 1\n",
                   tls_lines=["BoshMaxWait 30", f"BoshUpstream own.example {stub.address}"])
    plain, own = server.client(), server.client(tls=True)
    assert plain.new(wait=55, hold=2).wait == 20
    session = own.new(wait=55, hold=2)
    assert session.wait == 30 and session.hold == 1
    own.new(to="own.example")
    TB(plain.post(new_body(to="own.example")).answer(), "host-unknown")
    plain.close()
    own.close()


# --- conf/ ---------------------------------------------------------------------------------------

SAMPLES = {  # file: what begins a line that may be uncommented
    "bosh.conf": r"^( *)# (?=Bosh[A-Z])",
    "tuning.conf": r"^( *)#(?=[A-Z])",
}


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.parametrize("uncommented", [False, True], ids=["as it is", "all lines"])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_taken(name, uncommented, mpm):
    """Without a warning, behind the other settings of the server."""
    text, found = (ROOT / "conf" / name).read_text(), 1
    if uncommented:
        text, found = re.subn(SAMPLES[name], r"\1", text, flags=re.MULTILINE)
    server = Httpd(name="sample", mpm=mpm, handler=False, polling=None, modules=["deflate"], vhost=text)
    (server.dir / "logs").mkdir()
    try:
        code, said = server.check_config()
    finally:
        server.cleanup()
    assert found and code == 0 and said.strip() == "Syntax OK", said


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_leave_memory_alone(name):
    """MaxMemFree below 32 doubles what each request costs."""
    values = re.findall(r"^\s*#?\s*MaxMemFree\s+(\d+)", (ROOT / "conf" / name).read_text(), re.MULTILINE)
    assert all(int(v) >= 32 for v in values), values
